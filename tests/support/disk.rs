//! A disk of a size of its own, in memory; only where this user may mount one.

use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A disk, until it is dropped.
pub struct Disk(TempDir);

impl Disk {
    /// A disk of this size, such as `64m`. Nothing where this machine mounts nothing for us: then a test is skipped.
    pub fn of(size: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        if disk.mount(&["-t", "tmpfs"], size) {
            return Some(disk);
        }
        eprintln!("skipped: this machine mounts nothing for us");
        None
    }

    /// Gives it another size.
    pub fn resize(&self, size: &str) {
        assert!(self.mount(&["-o", "remount"], size));
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn mount(&self, how: &[&str], size: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(how).args(["-o", &format!("size={size}"), "none"]);
        let status = mount.arg(self.path()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.path())
            .stderr(Stdio::null())
            .status();
    }
}
