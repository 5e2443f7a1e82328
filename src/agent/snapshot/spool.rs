//! What is to be done about each path, one after the other in path order, as a file in scratch: so that a backup of
//! 500,000 files needs no more memory than one of ten. Values ↔ a file.

use crate::agent::scan::{Entry, Record, TableError};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// What is to be done about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The content may be new: save it if it is.
    Save {
        /// What the volume says.
        entry: Entry,
        /// By the online backup.
        database: bool,
        /// What the store has of it.
        known: Option<Record>,
    },
    /// A folder or symlink that is new or another, or a file of which only owner, mode or standing changed.
    Attributes {
        /// What the volume says.
        entry: Entry,
        /// What the store has of it.
        known: Option<Record>,
    },
    /// It leaves the mirror, for history.
    Gone {
        /// What the store has of it.
        known: Record,
        /// The volume had it, and has it no more: a guard may hold it.
        vanished: bool,
    },
    /// It stays in the mirror, though the volume does not have it, or the policy does not take it.
    Carried {
        /// As it stands from now on.
        record: Record,
    },
}

impl Change {
    /// The path that it is about.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Save { entry, .. } | Self::Attributes { entry, .. } => &entry.path,
            Self::Gone { known, .. } => &known.entry.path,
            Self::Carried { record } => &record.entry.path,
        }
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (what, entry, known) = match self {
            Self::Save { entry, database, known } => (
                if *database { SAVE_DATABASE } else { SAVE },
                Some(entry),
                known.as_ref(),
            ),
            Self::Attributes { entry, known } => (ATTRIBUTES, Some(entry), known.as_ref()),
            Self::Gone { known, vanished } => (if *vanished { VANISHED } else { GONE }, None, Some(known)),
            Self::Carried { record } => (CARRIED, None, Some(record)),
        };
        to.write_all(&[what | if known.is_some() { HAS_KNOWN } else { 0 }])?;
        if let Some(entry) = entry {
            Record::unsaved(entry.clone()).write(to)?;
        }
        if let Some(known) = known {
            known.write(to)?;
        }
        Ok(())
    }

    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut what = [0];
        from.read_exact(&mut what)?;
        let [what] = what;
        let known = |from: &mut _| {
            if what & HAS_KNOWN == 0 {
                Ok(None)
            } else {
                Record::read(from).map(Some)
            }
        };
        let record = |from: &mut _| known(from)?.ok_or_else(|| io::Error::other("a change of nothing"));
        Ok(match what & !HAS_KNOWN {
            kind @ (SAVE | SAVE_DATABASE) => Self::Save {
                entry: Record::read(from)?.entry,
                database: kind == SAVE_DATABASE,
                known: known(from)?,
            },
            ATTRIBUTES => Self::Attributes {
                entry: Record::read(from)?.entry,
                known: known(from)?,
            },
            kind @ (GONE | VANISHED) => Self::Gone {
                known: record(from)?,
                vanished: kind == VANISHED,
            },
            CARRIED => Self::Carried { record: record(from)? },
            _ => return Err(io::Error::other("an unknown change")),
        })
    }
}

const SAVE: u8 = 1;
const SAVE_DATABASE: u8 = 2;
const ATTRIBUTES: u8 = 3;
const GONE: u8 = 4;
const VANISHED: u8 = 5;
const CARRIED: u8 = 6;
const HAS_KNOWN: u8 = 0x80;

/// A spool can't be written or read.
#[derive(Debug, thiserror::Error)]
#[error("the plan {path} can't be written or read")]
pub struct SpoolError {
    path: PathBuf,
    source: io::Error,
}

impl From<SpoolError> for TableError {
    fn from(SpoolError { path, source }: SpoolError) -> Self {
        Self::Io { path, source }
    }
}

/// Changes on their way to a file, or into memory as long as they are few and out of order.
pub enum Spool {
    /// To a file.
    File {
        /// The open file.
        to: BufWriter<File>,
        /// Where it lies.
        path: PathBuf,
    },
    /// Into memory.
    Memory(Vec<Change>),
}

impl Spool {
    /// An empty file.
    pub fn create(path: &Path) -> Result<Self, SpoolError> {
        let file = File::create(path).map_err(|source| SpoolError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::File {
            to: BufWriter::new(file),
            path: path.to_owned(),
        })
    }

    /// Adds a change.
    pub fn push(&mut self, change: &Change) -> Result<(), SpoolError> {
        match self {
            Self::File { to, path } => change.write(to).map_err(|source| SpoolError {
                path: path.clone(),
                source,
            }),
            Self::Memory(changes) => {
                changes.push(change.clone());
                Ok(())
            }
        }
    }

    /// Everything that was added can be read.
    pub fn finish(&mut self) -> Result<(), SpoolError> {
        match self {
            Self::File { to, path } => to.flush().map_err(|source| SpoolError {
                path: path.clone(),
                source,
            }),
            Self::Memory(_) => Ok(()),
        }
    }
}

/// Puts one spool in the place of another.
pub fn replace(with: &Path, path: &Path) -> Result<(), SpoolError> {
    std::fs::rename(with, path).map_err(|source| SpoolError {
        path: path.to_owned(),
        source,
    })
}

/// The first `count` changes of a file.
pub fn read(path: &Path, count: u64) -> Result<impl Iterator<Item = Result<Change, SpoolError>> + use<>, SpoolError> {
    let file = File::open(path);
    let path = path.to_owned();
    let failed = move |source| SpoolError {
        path: path.clone(),
        source,
    };
    let mut from = BufReader::new(file.map_err(&failed)?);
    Ok((0..count).map(move |_| Change::read(&mut from).map_err(&failed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::scan::Kind;
    use crate::store::index::{HoldId, Standing};

    #[test]
    fn changes_come_back_as_they_were_added() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        let entry = |path: &str| Entry {
            path: path.as_bytes().to_vec(),
            kind: Kind::File,
            size: 3,
            modified: 4,
            mode: 0o600,
            uid: 5,
            gid: 6,
            inode: 7,
            changed: 8,
            target: Vec::new(),
        };
        let held = Record {
            digest: Some([9; 32]),
            standing: Standing::Held(HoldId::new(10)),
            ..Record::unsaved(entry("c/b"))
        };
        let known = Record::unsaved(entry("c/c"));
        let changes = [
            Change::Save {
                entry: entry("c/a"),
                database: true,
                known: None,
            },
            Change::Save {
                entry: entry("c/b"),
                database: false,
                known: Some(held.clone()),
            },
            Change::Attributes {
                entry: entry("c/c"),
                known: Some(known.clone()),
            },
            Change::Gone {
                known: known.clone(),
                vanished: true,
            },
            Change::Gone { known, vanished: false },
            Change::Carried { record: held },
        ];
        let mut spool = Spool::create(&path).unwrap();
        for change in &changes {
            spool.push(change).unwrap();
        }
        spool.finish().unwrap();
        let found: Vec<Change> = read(&path, 6).unwrap().map(Result::unwrap).collect();
        assert_eq!(found, changes);
        assert!(
            read(&path, 7).unwrap().any(|change| change.is_err()),
            "half a plan is no plan"
        );
    }
}
