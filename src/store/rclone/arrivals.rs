//! Files that rclone writes below a folder → their names, as it closes each. The kernel says so for a fraction of what a
//! line of rclone's log takes to be written and read, and a restore has thousands of files.

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Of the queue, read at once: some hundred names.
const BUFFER: usize = 16 * 1024;

/// A watch over folders.
pub(super) struct Arrivals {
    queue: OwnedFd,
    /// The folder of each watch, relative, with a `/` at its end where it has a name.
    folders: HashMap<i32, String>,
}

impl Arrivals {
    /// Makes the folders of these names below `to`, and watches them. Nothing where the system has no watches left, or a
    /// folder can't be made: rclone says better than this why not.
    pub(super) fn of(names: &[&str], to: &Path) -> Option<Self> {
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        let mut folders = HashMap::new();
        let mut seen: HashSet<&str> = HashSet::new();
        for name in names {
            let folder = &name[..name.rfind('/').map_or(0, |slash| slash + 1)];
            if seen.insert(folder) {
                let path = to.join(folder);
                std::fs::create_dir_all(&path).ok()?;
                let watch = inotify::add_watch(&queue, &path, WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR).ok()?;
                folders.insert(watch, folder.to_owned());
            }
        }
        Some(Self { queue, folders })
    }

    /// Tells of each file that was closed since.
    pub(super) fn each(&self, mut closed: impl FnMut(String)) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut events = inotify::Reader::new(&self.queue, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(CStr::to_str);
                    if let (Some(folder), Some(Ok(name))) = (self.folders.get(&event.wd()), name) {
                        closed(format!("{folder}{name}"));
                    }
                }
                Err(Errno::INTR) => {}
                // There are no more, for now.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn closed(arrivals: &Arrivals) -> Vec<String> {
        let mut names = Vec::new();
        arrivals.each(|name| names.push(name));
        names
    }

    #[test]
    fn a_file_has_arrived_once_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let arrivals = Arrivals::of(&["a", "b/c", "b/d", "b/c d/e"], folder.path()).unwrap();
        let file = fs::File::create(folder.path().join("b/c")).unwrap();
        assert_eq!(closed(&arrivals), [""; 0]);
        drop(file);
        fs::write(folder.path().join("a"), "x").unwrap();
        fs::write(folder.path().join("b/c d/e"), "x").unwrap();
        assert_eq!(closed(&arrivals), ["b/c", "a", "b/c d/e"]);
        assert_eq!(closed(&arrivals), [""; 0]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_for_rclone_to_tell() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b"), "a file").unwrap();
        assert!(Arrivals::of(&["b/c"], folder.path()).is_none());
    }
}
