//! The pinned tools of `.tools`, each built where it is not there yet.

use crate::control_plane::{Said, control_plane, eventually, root};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A tool.
pub(crate) struct Tool {
    programs: PathBuf,
}

impl Tool {
    /// The one that `.tools` calls `name`.
    pub(crate) fn new(name: &str) -> Self {
        let output = Command::new(root().join(".tools/install"))
            .args(["--print-path", name])
            .stderr(Stdio::inherit())
            .output()
            .expect("bash");
        let programs = Said::from(output).succeeds().trim_end().into();
        Self { programs }
    }

    /// The folder of its programs.
    pub(crate) fn programs(&self) -> PathBuf {
        self.programs.clone()
    }

    /// Teaches the cluster the kinds of the tool: of the files that it ships, those that are called so.
    pub(crate) fn define(&self, files: &[&str]) {
        for file in files {
            let file = self.programs.with_file_name("files").join(file);
            let file = file.to_str().expect("UTF-8");
            let apply = ["apply", "--server-side", "-f", file];
            control_plane().kubectl(&apply).succeeds();
            let established = ["wait", "--for=condition=Established", "--timeout=60s", "-f", file];
            // It does not wait for the first condition.
            eventually("the kind is known", || {
                control_plane().kubectl(&established).succeeded.then_some(())
            });
        }
    }
}
