//! What leads to a path on a volume, and folders on it that forbid to be changed. No link is followed.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Whether nothing but folders lies on the way from a volume to a path on it, as far as anything does. What is to be
/// found behind a link is not on the volume.
#[must_use]
pub fn is_way(volume: &Path, path: &Path) -> bool {
    let mut on_the_way = volume.to_owned();
    path.parent().unwrap_or(path).components().all(|component| {
        on_the_way.push(component);
        fs::symlink_metadata(&on_the_way).map_or(true, |found| found.is_dir())
    })
}

/// Folders that forbade to be changed, are ours, and were made to allow it.
#[derive(Debug, Default)]
pub struct Gate {
    opened: RefCell<Vec<(PathBuf, u32)>>,
}

impl Gate {
    /// Does something that takes an entry from one folder, and makes one in another.
    pub fn through<T>(&self, from: &Path, to: &Path, operation: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // A folder that moves is written too: it gets another one above it.
                for folder in [from.parent(), to.parent(), Some(from)].into_iter().flatten() {
                    self.open(folder);
                }
                operation()
            }
            other => other,
        }
    }

    fn open(&self, folder: &Path) {
        let Ok(found) = fs::symlink_metadata(folder) else {
            return;
        };
        let mode = found.mode() & 0o7777;
        let is_ours = found.uid() == rustix::process::geteuid().as_raw();
        // Where this is refused too, the operation says so.
        if found.is_dir() && is_ours && mode & 0o700 != 0o700 && set_mode(folder, mode | 0o700).is_ok() {
            self.opened.borrow_mut().push((folder.to_owned(), mode));
        }
    }

    /// Gives those folders their modes back, but for those that have got others since, which `others` knows.
    pub fn close(&self, others: impl Fn(&Path) -> bool) -> io::Result<()> {
        for (folder, mode) in self.opened.borrow_mut().drain(..).rev() {
            let is_folder = fs::symlink_metadata(&folder).is_ok_and(|found| found.is_dir());
            if is_folder && !others(&folder) {
                set_mode(&folder, mode)?;
            }
        }
        Ok(())
    }
}

fn set_mode(folder: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
}
