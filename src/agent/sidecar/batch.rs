//! A plan, batch by batch: changes in, what is to be uploaded, kept and remembered out. And the spool of what became of
//! each path, so that the first backup of 100,000 files needs no more memory than the hundredth.

use super::backup::Failure;
use super::known::Outcome;
use super::stage::{Left, Piece, Stage, Staged, mirror_name};
use crate::agent::scan::{Kind, Record, TableError};
use crate::agent::snapshot::changes::PlanError;
use crate::agent::snapshot::spool::{Change, SpoolError};
use crate::store::index::Standing;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes that are copied to scratch before they are uploaded.
const BYTES: u64 = 64 << 20;
/// Files of one upload.
const FILES: usize = 2_000;
/// Paths of one batch.
const PATHS: usize = 10_000;

/// A part of a plan, in path order.
#[derive(Debug, Default)]
pub struct Batch {
    /// What is to be uploaded.
    pub pieces: Vec<Piece>,
    /// Files whose mirror copy goes, once the index is there.
    leaving: Vec<Record>,
    /// How many of them.
    pub deleted: u64,
    /// What was left as it is.
    pub left: Vec<(Vec<u8>, Left)>,
    /// A restore would notice.
    pub worth: bool,
    /// The plan ends here.
    pub last: bool,
    outcomes: Vec<Outcome>,
}

impl Batch {
    /// Takes the next changes, until there is enough to upload.
    pub fn take(
        changes: &mut impl Iterator<Item = Result<Change, SpoolError>>,
        stage: &mut Stage,
    ) -> Result<Self, Failure> {
        let mut batch = Self::default();
        while batch.pieces.len() < FILES && batch.outcomes.len() < PATHS && stage.staged() < BYTES {
            let Some(change) = changes.next() else {
                batch.last = true;
                break;
            };
            batch.change(change.map_err(PlanError::from)?, stage)?;
        }
        Ok(batch)
    }

    fn change(&mut self, change: Change, stage: &mut Stage) -> Result<(), Failure> {
        match change {
            Change::Save { entry, database, known } => {
                let path = entry.path.clone();
                let modified = known.as_ref().map(|known| known.entry.modified);
                let is_back = known.as_ref().is_some_and(|known| !known.standing.is_live());
                let ownership = known
                    .as_ref()
                    .is_some_and(|known| entry.ownership_differs(&known.entry));
                let staged = stage.take(entry, database, known).map_err(|source| Failure::Scratch {
                    path: stage.folder().clone(),
                    source,
                })?;
                match staged {
                    Staged::Upload(piece) => self.pieces.push(piece),
                    Staged::Same(record) => {
                        self.worth |= ownership || is_back || (!database && modified != Some(record.entry.modified));
                        self.outcomes.push((path, Some(record)));
                    }
                    Staged::Left(left) => self.left.push((path, left)),
                }
            }
            Change::Attributes { entry, known } => {
                self.worth = true;
                let record = match known {
                    Some(known) if known.entry.kind == entry.kind => Record {
                        entry,
                        standing: Standing::Live,
                        ..known
                    },
                    known => {
                        self.leaves(known);
                        Record::unsaved(entry)
                    }
                };
                self.outcomes.push((record.entry.path.clone(), Some(record)));
            }
            Change::Gone { known, vanished: _ } => {
                self.worth = true;
                self.outcomes.push((known.entry.path.clone(), None));
                self.leaves(Some(known));
            }
            Change::Carried { record } => {
                self.worth = true;
                self.outcomes.push((record.entry.path.clone(), Some(record)));
            }
        }
        Ok(())
    }

    fn leaves(&mut self, known: Option<Record>) {
        let file = known.filter(|known| known.entry.kind == Kind::File);
        self.deleted += u64::from(file.is_some());
        self.leaving.extend(file);
    }

    /// Takes those pieces out that need not be uploaded.
    pub fn part(&mut self, unneeded: impl FnMut(&Piece) -> bool) -> Vec<Piece> {
        let (there, pieces) = std::mem::take(&mut self.pieces).into_iter().partition(unneeded);
        self.pieces = pieces;
        there
    }

    /// The mirror copies that this batch replaces, or that are to be deleted.
    #[must_use]
    pub fn replaced(&self) -> Vec<String> {
        let replaced = self.pieces.iter().filter_map(|piece| piece.known.as_ref());
        replaced.chain(&self.leaving).map(mirror_name).collect()
    }

    /// The mirror copy of a file that is gone stays, if this is its name. Whether it is.
    pub fn keep(&mut self, name: &str) -> bool {
        let before = self.leaving.len();
        self.leaving.retain(|record| mirror_name(record) != name);
        let kept = before - self.leaving.len();
        self.deleted -= kept as u64;
        kept > 0
    }

    /// What became of a path.
    pub fn outcome(&mut self, path: Vec<u8>, record: Option<Record>) {
        self.outcomes.push((path, record));
    }
}

impl Change {
    /// The name of a file whose mirror copy goes with this change.
    #[must_use]
    pub fn leaves_the_mirror(&self) -> Option<String> {
        match self {
            Self::Gone { known, .. } => Some(known),
            Self::Attributes {
                entry,
                known: Some(known),
            } if entry.kind != known.entry.kind => Some(known),
            Self::Attributes { .. } | Self::Save { .. } | Self::Carried { .. } => None,
        }
        .filter(|known| known.entry.kind == Kind::File)
        .map(mirror_name)
    }
}

/// What became of each path, in path order, in scratch.
pub struct Outcomes {
    path: PathBuf,
    to: BufWriter<File>,
    count: usize,
}

impl Outcomes {
    /// An empty spool.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|source| Failure::Scratch {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            to: BufWriter::new(file),
            count: 0,
        })
    }

    /// Paths in it.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Adds a batch, which comes after those before it.
    pub fn append(&mut self, mut batch: Batch) -> Result<(), Failure> {
        batch.outcomes.sort_by(|a, b| a.0.cmp(&b.0));
        let mut write = || {
            for (path, record) in &batch.outcomes {
                self.to.write_all(&[u8::from(record.is_some())])?;
                if let Some(record) = record {
                    record.write(&mut self.to)?;
                } else {
                    self.to.write_all(&(path.len() as u64).to_le_bytes())?;
                    self.to.write_all(path)?;
                }
            }
            self.to.flush()
        };
        write().map_err(|source| Failure::Scratch {
            path: self.path.clone(),
            source,
        })?;
        self.count += batch.outcomes.len();
        Ok(())
    }

    /// Everything that was added.
    pub fn read(&self) -> Result<impl Iterator<Item = Result<Outcome, TableError>> + use<>, TableError> {
        let path = self.path.clone();
        let failed = move |source| TableError::Io {
            path: path.clone(),
            source,
        };
        let mut from = BufReader::new(File::open(&self.path).map_err(&failed)?);
        let mut left = self.count;
        Ok(std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            Some(read(&mut from).map_err(&failed))
        }))
    }
}

fn read(from: &mut impl Read) -> std::io::Result<Outcome> {
    let mut is_there = [0];
    from.read_exact(&mut is_there)?;
    if is_there == [1] {
        let record = Record::read(from)?;
        return Ok((record.entry.path.clone(), Some(record)));
    }
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let mut path = Vec::new();
    from.take(u64::from_le_bytes(length)).read_to_end(&mut path)?;
    Ok((path, None))
}

/// Runs what waits for the disk beside the runtime's one thread.
pub async fn blocking<T, E>(act: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    match tokio::task::spawn_blocking(act).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down, and nobody waits for an answer.
            Err(_) => std::future::pending().await,
        },
    }
}

/// An error and its causes on one line.
#[must_use]
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}
