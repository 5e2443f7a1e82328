//! The pinned tools of `.tools`, each built where it is not there yet.

use crate::control_plane::{Said, root};
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

    /// The folder of the files that it ships beside them.
    pub(crate) fn files(&self) -> PathBuf {
        self.programs.with_file_name("files")
    }
}
