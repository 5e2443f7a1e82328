//! What people run by hand, with a laptop and the store's credentials and nothing else: look at snapshots, and get files
//! back. Reads stores; writes to the folder that a restore is given, and to scratch of its own. No cluster is asked.

mod access;
mod backup;
mod diff;
mod list;
mod order;
mod progress;
mod restore;
mod selection;
mod show;
mod snapshots;

pub use backup::{Backup, BackupError};
pub use restore::Restore;
pub use snapshots::Snapshots;

use crate::agent::restore::at::NoSuch;
use crate::agent::volume;
use crate::store::Error as StoreError;
use std::io;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error("{error}{hint}")]
    Store {
        /// What it said.
        error: StoreError,
        /// The way out, with what joins it to the error.
        hint: String,
    },
    /// What was typed can't be meant.
    #[error("{0}")]
    Usage(String),
    /// A guard of ours: what would be done might not be wanted.
    #[error("{0}")]
    Refused(String),
    /// There is nothing there.
    #[error("{0}")]
    Nothing(String),
    /// There is no such snapshot.
    #[error("{destination}: {why}; vixens-backup snapshots lists them")]
    NoSuch {
        /// Which destination.
        destination: String,
        /// What was asked for, and what is near.
        why: NoSuch,
    },
    /// The target of a restore.
    #[error(transparent)]
    Target(#[from] volume::Error),
    /// The store went away in the middle.
    #[error("{error}; what came until now is kept in {}, and the same command goes on with it", staging.display())]
    Broken {
        /// What it said.
        error: Box<Self>,
        /// Where that is.
        staging: std::path::PathBuf,
    },
    /// A part of what was asked for is not there.
    #[error("{0}")]
    Partly(String),
    /// Something here.
    #[error("{what}")]
    Local {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Ctrl-C, or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The process's exit code: 1 failed, 2 wrong usage, 3 refused by a guard.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Store { .. }
            | Self::Nothing(_)
            | Self::NoSuch { .. }
            | Self::Target(_)
            | Self::Broken { .. }
            | Self::Partly(_)
            | Self::Local { .. }
            | Self::Interrupted => 1,
        }
    }

    fn local(what: impl Into<String>, source: io::Error) -> Self {
        Self::Local {
            what: what.into(),
            source,
        }
    }
}

/// Runs a command to its end, or until it is told to end: then what it made for itself goes first.
fn run(command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};

    let failed = |source| Error::local("the process can't be set up", source);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    runtime.block_on(async {
        let mut stop = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            result = command => result,
            _ = stop.recv() => Err(Error::Interrupted),
            result = tokio::signal::ctrl_c() => result.map_err(failed).and(Err(Error::Interrupted)),
        }
    })
}
