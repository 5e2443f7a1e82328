//! Files that rclone writes below a folder → their names, as it closes each. The kernel says so for a fraction of what a
//! line of rclone's log takes to be written and read, and a restore has thousands of files.

use super::process::{BETWEEN_READS, Call, Work};
use super::{Rclone, missing};
use crate::store::{Done, Error, unwatched};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Of the queue, read at once: some hundred names.
const BUFFER: usize = 16 * 1024;

/// The node has so many watches for all of a user's pods, 8192 on some: this takes a part of them, for a moment.
const MOST_FOLDERS: usize = 1_000;

/// A watch over folders.
pub(super) struct Arrivals {
    queue: OwnedFd,
    /// The folder of each watch, relative, with a `/` at its end where it has a name.
    folders: HashMap<i32, String>,
}

impl Arrivals {
    /// Makes the folders of these names below `to`, and watches them. Nothing where they are too many, the system has no
    /// watches left, or a folder can't be made: rclone says better than this why not.
    pub(super) fn of(names: &[&str], to: &Path) -> Option<Self> {
        let folder_of = |name: &str| name.rfind('/').map_or(0, |slash| slash + 1);
        let wanted: BTreeSet<&str> = names.iter().map(|name| &name[..folder_of(name)]).collect();
        if wanted.len() > MOST_FOLDERS {
            return None;
        }
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        let mut folders = HashMap::new();
        for folder in wanted {
            let path = to.join(folder);
            std::fs::create_dir_all(&path).ok()?;
            let watch = inotify::add_watch(&queue, &path, WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR).ok()?;
            folders.insert(watch, folder.to_owned());
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

impl Rclone {
    /// Runs a batch of downloads to its end, and names what of it did not come.
    pub(super) async fn arriving(
        &self,
        call: Call<'_>,
        names: &[&str],
        to: &Path,
        done: Done<'_>,
    ) -> Result<Vec<String>, Error> {
        let Some(arrivals) = Arrivals::of(names, to) else {
            let ended = call.run(Work::Files { names, done }).await?;
            return Ok(ended.undone(names).into_iter().map(|one| one.name).collect());
        };
        let mut arrived = Vec::new();
        let mut tell = || {
            arrivals.each(|name| {
                done(&name);
                arrived.push(name);
            });
        };
        let transfers = usize::try_from(self.settings.transfers).unwrap_or(usize::MAX);
        // What it complains of, it says at this level too.
        let call = call.arg("--log-level=NOTICE");
        let running = call.run(Work::Files {
            names,
            done: &unwatched,
        });
        tokio::pin!(running);
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended?,
                () = tokio::time::sleep(BETWEEN_READS) => tell(),
            }
        };
        tell();
        if ended.given_up {
            // The last ones are those that it was about to write when it was ended.
            arrived.truncate(arrived.len().saturating_sub(transfers));
        }
        let mut arrived: HashSet<String> = arrived.into_iter().collect();
        for complaint in &ended.complaints {
            arrived.remove(&complaint.object);
        }
        Ok(missing(names, &arrived).into_iter().map(str::to_owned).collect())
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
    fn too_many_folders_are_not_watched() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..=MOST_FOLDERS).map(|number| format!("{number}/a")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(Arrivals::of(&names, folder.path()).is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_for_rclone_to_tell() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b"), "a file").unwrap();
        assert!(Arrivals::of(&["b/c"], folder.path()).is_none());
    }
}
