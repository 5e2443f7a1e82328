//! The protected volumes as the sidecar sees them: paths of the index ↔ paths on disk, one path looked at safely, and
//! whether a volume is still what it was at the start. Reads metadata only.

use crate::agent::arguments::Databases;
use crate::agent::database;
use crate::agent::filters::Filters;
use crate::agent::litestream::copies::Copies;
use crate::agent::litestream::replication::{Replication, Treatment};
use crate::agent::scan::{Entry, Kind};
use crate::agent::volume::given_up::GivenUp;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The marker that `init` leaves in an initialised volume, relative to it.
const MARKER: &str = ".vixens-backup/volume.json";

/// One protected volume.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Its folder in the bucket.
    pub folder: String,
    /// The id in its marker.
    pub id: String,
    /// The file system could be written when we started (whether our own mount can or not).
    pub writable: bool,
}

/// Everything that is backed up, and how its files are told apart.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Sorted by folder.
    pub volumes: Vec<Volume>,
    /// Which files are taken.
    pub filters: Filters,
    /// Which of them are databases.
    pub databases: Databases,
    /// Whose turn it is to read: see [`crate::agent::database`].
    pub turn: Arc<Mutex<()>>,
    /// Tier 3, at the primary destination: databases that Litestream replicates are left out.
    pub replication: Option<Arc<Replication>>,
    /// Which databases the destination has as files.
    pub copies: Arc<Copies>,
    /// What a start was told to go without.
    pub given_up: Arc<GivenUp>,
}

/// What leads to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Folders, all of them there.
    Folders,
    /// Folders, as far as anything is there.
    Missing,
    /// Something that is no folder.
    Barred,
}

/// What is wrong with a volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It can't be looked into.
    #[error("the volume at {path} can't be read ({why}): it may have been detached")]
    Unreadable {
        /// Where it was mounted.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The marker that every initialised volume has is gone.
    #[error(
        "the volume at {path} has lost its marker .vixens-backup/volume.json: it was emptied, or another volume lies there now; restart the pod to have it looked at anew"
    )]
    Unmarked {
        /// Where it was mounted.
        path: PathBuf,
    },
    /// Its file system was remounted read-only, as the kernel does after an error.
    #[error(
        "the file system of {path} has turned read-only, as after a disk error: what is read from it may be damaged; check the disk, and restart the pod"
    )]
    ReadOnly {
        /// Where it is mounted.
        path: PathBuf,
    },
}

impl Trouble {
    /// The `reason` of `vixens_backup_guard_refusals_total`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } | Self::Unmarked { .. } => "vanished",
            Self::ReadOnly { .. } => "read-only",
        }
    }
}

impl Scope {
    /// Waits until no other destination reads the volumes, and keeps them waiting. Not for the runtime's own thread.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume of a path of the index, and the path on it, raw and without slashes at either end.
    #[must_use]
    pub fn place<'a>(&self, path: &'a [u8]) -> Option<(&Volume, &'a [u8])> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let (folder, relative) = match path.iter().position(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (path, b"".as_slice()),
        };
        let volume = self.volumes.iter().find(|volume| volume.folder.as_bytes() == folder)?;
        Some((volume, relative))
    }

    /// Where a path of the index lies on disk.
    #[must_use]
    pub fn on_disk(&self, path: &[u8]) -> Option<PathBuf> {
        let (volume, relative) = self.place(path)?;
        Some(on_disk(&volume.path, relative))
    }

    /// What lies at a path of the index now, its parents not followed through links. None: nothing that is taken.
    pub fn look(&self, path: &[u8]) -> io::Result<Option<Entry>> {
        let Some((volume, relative)) = self.place(path) else {
            return Ok(None);
        };
        let missing = |error: &io::Error| {
            matches!(
                error.raw_os_error().map(rustix::io::Errno::from_raw_os_error),
                Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP)
            )
        };
        let (folder, name) = match parent(&volume.path, relative) {
            Ok(found) => found,
            Err(error) if missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = if name.is_empty() {
            rustix::fs::fstat(&folder)
        } else {
            rustix::fs::statat(&folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
        };
        let stat = match stat.map_err(io::Error::from) {
            Ok(stat) => stat,
            Err(error) if missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let target = if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Symlink {
            rustix::fs::readlinkat(&folder, OsStr::from_bytes(name), Vec::new())?.into_bytes()
        } else {
            Vec::new()
        };
        let full = [volume.folder.as_bytes(), b"/", relative].concat();
        Ok(Entry::of(full, &stat, target))
    }

    /// What leads to a path of the index, its parents not followed through links.
    pub fn way(&self, path: &[u8]) -> io::Result<Way> {
        let Some((volume, relative)) = self.place(path) else {
            return Ok(Way::Missing);
        };
        match parent(&volume.path, relative) {
            Ok(_) => Ok(Way::Folders),
            Err(error) => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::NOENT) => Ok(Way::Missing),
                Some(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(Way::Barred),
                _ => Err(error),
            },
        }
    }

    /// Opens a file of the index for reading, its parents not followed through links; never waits for a pipe.
    pub fn open(&self, path: &[u8]) -> io::Result<std::fs::File> {
        let (volume, relative) = self.place(path).ok_or(io::ErrorKind::NotFound)?;
        let (folder, name) = parent(&volume.path, relative)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&folder, OsStr::from_bytes(name), flags, Mode::empty())?.into())
    }

    /// Whether a file is saved as a database. A file that can't be read is not.
    #[must_use]
    pub fn is_database(&self, path: &[u8]) -> bool {
        self.databases != Databases::None
            && self
                .on_disk(path)
                .is_some_and(|path| database::is_database(&path).unwrap_or(false))
    }

    /// How a file is treated that may be a database: nothing where it is none. `stored`: the store has it as a file.
    #[must_use]
    pub fn treatment(&self, path: &[u8], stored: bool) -> Option<Treatment> {
        let is_database = self.is_database(path);
        match &self.replication {
            Some(replication) if is_database => Some(replication.found(path, self.on_disk(path)?, stored)),
            Some(replication) => {
                replication.lost(path);
                None
            }
            None => is_database.then_some(Treatment::Saved),
        }
    }

    /// Gives the entry of a database the times of its log and journal too: a change of either is a change of it.
    #[must_use]
    pub fn stamped(&self, mut entry: Entry) -> Entry {
        let mut stamp = [entry.changed, 0, 0];
        for (suffix, slot) in [database::WAL, database::JOURNAL].into_iter().zip(&mut stamp[1..]) {
            let beside = [entry.path.as_slice(), suffix].concat();
            if let Ok(Some(beside)) = self.look(&beside)
                && beside.kind == Kind::File
            {
                *slot = beside.changed.wrapping_add(beside.size.cast_signed()).wrapping_mul(31);
                entry.modified = entry.modified.max(beside.modified);
            }
        }
        let [own, log, journal] = stamp;
        entry.changed = own
            .wrapping_mul(1_000_003)
            .wrapping_add(log.wrapping_mul(31))
            .wrapping_add(journal)
            | 1;
        entry
    }

    /// What is wrong with the volumes, if anything is.
    pub fn trouble(&self) -> Result<(), Trouble> {
        self.volumes.iter().try_for_each(|volume| {
            let path = volume.path.clone();
            if let Err(error) = std::fs::read_dir(&volume.path) {
                return Err(Trouble::Unreadable {
                    path,
                    why: error.to_string(),
                });
            }
            match std::fs::symlink_metadata(volume.path.join(MARKER)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Trouble::Unmarked { path }),
                Err(error) => {
                    return Err(Trouble::Unreadable {
                        path,
                        why: error.to_string(),
                    });
                }
            }
            if volume.writable && !is_writable(&volume.path) {
                return Err(Trouble::ReadOnly { path });
            }
            Ok(())
        })
    }
}

/// Whether the file system beneath a path takes writes, whatever our own mount of it allows: the options behind the
/// dash in `/proc/self/mountinfo`. Where that can't be told, it does.
#[must_use]
pub fn is_writable(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(metadata), Ok(mounts)) = (std::fs::metadata(path), std::fs::read_to_string("/proc/self/mountinfo")) else {
        return true;
    };
    let device = format!(
        "{}:{}",
        rustix::fs::major(metadata.dev()),
        rustix::fs::minor(metadata.dev())
    );
    mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(&device))
        .and_then(|line| line.split_once(" - "))
        .and_then(|(_, rest)| rest.split(' ').nth(2))
        .is_none_or(|options| options.split(',').all(|option| option != "ro"))
}

/// The folder that a path lies in, opened step by step, and the path's last name (empty for the volume's root).
fn parent<'a>(root: &Path, relative: &'a [u8]) -> io::Result<(OwnedFd, &'a [u8])> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder = rustix::fs::open(root, flags, Mode::empty())?;
    let mut names = relative.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            return Ok((folder, name));
        }
        folder = rustix::fs::openat(
            &folder,
            OsStr::from_bytes(name),
            flags | OFlags::NOFOLLOW,
            Mode::empty(),
        )?;
    }
    Ok((folder, b""))
}

fn on_disk(root: &Path, relative: &[u8]) -> PathBuf {
    if relative.is_empty() {
        root.to_owned()
    } else {
        root.join(OsStr::from_bytes(relative))
    }
}
