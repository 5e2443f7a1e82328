//! A protected volume as the agent finds it: a mount of its own, our folder on it, and what state it is in.
//! Reads the volume and writes our own folder only.

pub mod bare;
pub mod files;
pub mod given_up;
pub mod look;
pub mod marker;
pub mod mount;
pub mod own;
pub mod room;

use std::io;
use std::path::{Path, PathBuf};

/// Why a volume can't be used. Each says which path, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path is part of the container's own file system.
    #[error(
        "{} is not a mount of its own, so what is written there is lost with the container: mount the volume there",
        path.display()
    )]
    NotAMount {
        /// The path.
        path: PathBuf,
    },
    /// A file of ours on the volume can't be understood.
    #[error(
        "{} can't be understood ({why}): nothing was changed; delete it to have the volume taken as one that we never saw",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer release wrote a file of ours on the volume.
    #[error(
        "{} was written by a newer release of vixens-backup ({why}): nothing was changed: update vixens-backup",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// How that is known.
        why: String,
    },
    /// The volume refuses.
    #[error(
        "{what} {} was refused for user {user}, it belongs to {owner}: set securityContext.fsGroup on the pod, or the \
         annotation vixens.io/backup-run-as to the owner",
        path.display()
    )]
    Permission {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// uid:gid of this process.
        user: String,
        /// uid:gid of what refused.
        owner: String,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else that the system said.
    #[error("{what} {} failed", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl Error {
    /// The error for something that the system refused; `what` is a verb: "writing", "reading".
    pub fn of(what: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission {
                what,
                user: format!(
                    "{}:{}",
                    rustix::process::geteuid().as_raw(),
                    rustix::process::getegid().as_raw()
                ),
                owner: owner_of(&path),
                path,
                source,
            },
            _ => Self::Io { what, path, source },
        }
    }
}

/// uid:gid of the nearest thing that exists at or above a path.
fn owner_of(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;

    path.ancestors()
        .find_map(|path| std::fs::symlink_metadata(path).ok())
        .map_or_else(|| "?".to_owned(), |found| format!("{}:{}", found.uid(), found.gid()))
}
