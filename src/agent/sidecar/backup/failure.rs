//! Why a backup was not made, or not all of it.

use crate::agent::lease::check::{Away, Fenced, NotHeld};
use crate::agent::scan::TableError;
use crate::agent::sidecar::guard::Refusal;
use crate::agent::snapshot::changes::PlanError;
use crate::store::{self, Undone};
use std::io;
use std::path::PathBuf;

/// Why no backup was made.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The store.
    #[error("the backup failed")]
    Store(#[source] store::Error),
    /// The store did part of what it was asked.
    #[error("{what}: {} of {count} files were not, the first is {:?}: {}", undone.len(), undone.first().map_or("", |u| u.name.as_str()), undone.first().map_or("", |u| u.why.as_str()))]
    Undone {
        /// What was asked.
        what: &'static str,
        /// Of how many.
        count: usize,
        /// What was not done.
        undone: Vec<Undone>,
    },
    /// A guard.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Somebody else has the place.
    #[error("{0}")]
    Fenced(#[from] Fenced),
    /// What answers is not the store that was there.
    #[error(transparent)]
    Away(#[from] Away),
    /// The place is not ours yet.
    #[error("nothing is written yet: {0}")]
    Waiting(String),
    /// The volume, or the scratch folder.
    #[error("the backup failed")]
    Plan(#[from] PlanError),
    /// The scratch folder.
    #[error("what is known of the store can't be kept")]
    Known(#[from] TableError),
    /// The scratch folder.
    #[error("the scratch folder {path} can't be used")]
    Scratch {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        match error {
            // Whoever wrote that holds the place, whatever its claims say to this release.
            newer @ store::Error::Newer { .. } => Fenced::Newer { why: newer.to_string() }.into(),
            other => Self::Store(other),
        }
    }
}

impl From<NotHeld> for Failure {
    fn from(not_held: NotHeld) -> Self {
        match not_held {
            NotHeld::Store(error) => error.into(),
            NotHeld::Fenced(fenced) => Self::Fenced(fenced),
            NotHeld::Away(away) => Self::Away(away),
        }
    }
}

/// Nothing was left undone, or it is an error.
pub fn all_done(what: &'static str, names: &[String], undone: Vec<Undone>) -> Result<(), Failure> {
    if undone.is_empty() {
        return Ok(());
    }
    Err(Failure::Undone {
        what,
        count: names.len(),
        undone,
    })
}
