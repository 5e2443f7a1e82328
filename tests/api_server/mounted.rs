//! A folder that holds a Secret as the kubelet has it: what lies in it are links, and all of them change at once.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// A mounted Secret.
pub(crate) struct Mounted {
    folder: tempfile::TempDir,
    versions: AtomicU32,
}

impl Mounted {
    /// One that holds nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            versions: AtomicU32::new(0),
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes it hold `files`, whatever it held before.
    pub(crate) fn hold(&self, files: &[(&str, &[u8])]) {
        let folder = self.folder.path();
        let version = format!("..{}", self.versions.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(folder.join(&version)).expect("a folder");
        for (name, content) in files {
            fs::write(folder.join(&version).join(name), content).expect("a file");
        }
        symlink(&version, folder.join("..next")).expect("a link");
        fs::rename(folder.join("..next"), folder.join("..data")).expect("a link");
        for (name, _) in files {
            // There already, from the second time on.
            let _ = symlink(format!("..data/{name}"), folder.join(name));
        }
    }
}
