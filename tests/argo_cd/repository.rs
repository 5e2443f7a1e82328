//! A Git repository that Argo CD reads from this machine.

use crate::control_plane::{Said, control_plane};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository with the branch `main`.
pub(crate) struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// An empty one.
    pub(crate) fn new(name: &str) -> Self {
        let folder = control_plane().scratch().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        let repository = Self { folder };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// Where its files lie.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.folder.display())
    }

    /// Writes a file, in a folder.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let file = self.folder.join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, content).expect("a file");
    }

    /// Commits all files; the revision.
    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message=as it lies here"]);
        self.git(&["rev-parse", "HEAD"]).trim_end().to_owned()
    }

    /// git in it, whatever this machine's own configuration says.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=somebody", "-c", "user.email=somebody@example.test"])
            .args(arguments)
            .current_dir(&self.folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git");
        Said::from(output).succeeds()
    }
}
