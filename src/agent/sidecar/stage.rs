//! One changed file → what is uploaded of it, and its SHA-256. Small files that changed a moment ago, files that change
//! while they are read, and databases are copied to scratch, so that what is uploaded is what was hashed; files at
//! rest are uploaded from the volume. Writes below its own scratch folder alone.

use super::known::{is_doubted, relative};
use super::volume::Scope;
use crate::agent::database::{self, DatabaseError};
use crate::agent::filters::Skipped;
use crate::agent::scan::{Entry, Kind, Record};
use crate::store::keys::stored_name;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Files up to this size are copied when they are young.
const SMALL: u64 = 8 << 20;
/// Younger than this is young.
const YOUNG: Duration = Duration::from_secs(60);
/// A file that changes in each of so many readings is torn.
const READINGS: usize = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// Where copies are put.
#[derive(Debug)]
pub struct Stage {
    scope: Arc<Scope>,
    folder: PathBuf,
    scratch: PathBuf,
    /// How long a database is waited for.
    patience: Duration,
    /// Bytes in copies.
    staged: u64,
}

/// What is to be done with a file that may be new.
#[derive(Debug)]
pub enum Staged {
    /// Upload it.
    Upload(Piece),
    /// Its content is what the store has; only what is known of it changes.
    Same(Record),
    /// It stays as the store has it.
    Left(Left),
}

/// A file to upload.
#[derive(Debug)]
pub struct Piece {
    /// What is known of it once it is there.
    pub record: Record,
    /// What was known of it before.
    pub known: Option<Record>,
    /// What is uploaded.
    pub local: PathBuf,
    /// It is uploaded from the volume: look again afterwards.
    pub direct: bool,
}

impl Piece {
    /// Its name below the destination, in the mirror and in a history folder alike.
    #[must_use]
    pub fn name(&self) -> String {
        mirror_name(&self.record)
    }
}

/// Why a file was left as it is in the store.
#[derive(Debug)]
pub enum Left {
    /// Gone, or something else, since it was seen.
    Vanished,
    /// It can't be read.
    Unreadable(Skipped, io::Error),
    /// A database that could not be saved.
    Database(DatabaseError),
}

/// A file's name below the destination.
#[must_use]
pub fn mirror_name(record: &Record) -> String {
    let path = &record.entry.path;
    let below = relative(path);
    let folder = String::from_utf8_lossy(&path[..path.len() - below.len()]).into_owned();
    folder + stored_name(below).as_str()
}

impl Stage {
    /// A stage in `scratch`, emptied. `patience`: the deadline of a database.
    pub fn new(scope: Arc<Scope>, scratch: PathBuf, patience: Duration) -> io::Result<Self> {
        let stage = Self {
            scope,
            folder: scratch.join("stage"),
            scratch,
            patience,
            staged: 0,
        };
        stage.cleared()
    }

    /// The same, with nothing in it.
    pub fn cleared(mut self) -> io::Result<Self> {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&self.folder)?;
        self.staged = 0;
        Ok(self)
    }

    /// The folder that it uses.
    #[must_use]
    pub const fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// Bytes in copies.
    #[must_use]
    pub const fn staged(&self) -> u64 {
        self.staged
    }

    /// Reads a file that may be new. An error is about the scratch folder.
    pub fn take(&mut self, entry: Entry, database: bool, known: Option<Record>) -> io::Result<Staged> {
        if database {
            self.database(entry, known)
        } else {
            self.file(entry, known, false)
        }
    }

    /// Takes a file again that changed while it was uploaded, as a copy.
    pub fn again(&mut self, piece: &Piece) -> io::Result<Staged> {
        let Ok(Some(entry)) = self.scope.look(&piece.record.entry.path) else {
            return Ok(Staged::Left(Left::Vanished));
        };
        if entry.kind != Kind::File {
            return Ok(Staged::Left(Left::Vanished));
        }
        // What the store has of it now is neither the known content nor the new one: it is never "the same".
        self.file(entry, None, true)
    }

    fn file(&mut self, mut entry: Entry, known: Option<Record>, copied: bool) -> io::Result<Staged> {
        let local = self.folder.join(mirror_name(&Record::unsaved(entry.clone())));
        let copied = copied || (entry.size <= SMALL && is_young(entry.modified));
        for reading in 1.. {
            let mut from = match self.scope.open(&entry.path) {
                Ok(file) => file,
                Err(error) => return Ok(Staged::Left(unreadable(error))),
            };
            if !from.metadata().is_ok_and(|metadata| metadata.is_file()) {
                return Ok(Staged::Left(Left::Vanished));
            }
            let mut copy = if copied || reading > 1 {
                if let Some(parent) = local.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                Some(File::create(&local)?)
            } else {
                None
            };
            let (digest, size) = match read(&mut from, copy.as_mut()) {
                Ok(read) => read,
                Err(Reading::Volume(error)) => return Ok(Staged::Left(unreadable(error))),
                Err(Reading::Scratch(error)) => return Err(error),
            };
            let now = match self.scope.look(&entry.path) {
                Ok(Some(now)) if now.kind == Kind::File => now,
                _ => return Ok(Staged::Left(Left::Vanished)),
            };
            let rested = !now.may_differ(&entry) && size == entry.size;
            if !rested && reading < READINGS {
                entry = now;
                std::thread::sleep(PAUSE);
                continue;
            }
            if let Some(copy) = &copy {
                copy.set_times(std::fs::FileTimes::new().set_modified(time(now.modified)))?;
                self.staged += size;
            }
            let record = Record {
                digest: Some(digest),
                stored_size: size,
                torn: !rested,
                ..Record::unsaved(Entry { size, ..now })
            };
            return Ok(self.compared(record, known, local, copy.is_none()));
        }
        Ok(Staged::Left(Left::Vanished))
    }

    fn database(&mut self, entry: Entry, known: Option<Record>) -> io::Result<Staged> {
        let Some(source) = self.scope.on_disk(&entry.path) else {
            return Ok(Staged::Left(Left::Vanished));
        };
        let local = self.folder.join(mirror_name(&Record::unsaved(entry.clone())));
        if let Some(parent) = local.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if let Err(error) = database::save(&source, &local, &self.scratch, self.patience) {
            return Ok(Staged::Left(Left::Database(error)));
        }
        let mut copy = File::open(&local)?;
        let (digest, size) = read(&mut copy, None).map_err(Reading::into_inner)?;
        copy.set_times(std::fs::FileTimes::new().set_modified(time(entry.modified)))?;
        self.staged += size;
        let record = Record {
            digest: Some(digest),
            stored_size: size,
            database: true,
            ..Record::unsaved(entry)
        };
        Ok(self.compared(record, known, local, false))
    }

    fn compared(&self, record: Record, known: Option<Record>, local: PathBuf, direct: bool) -> Staged {
        let same = known.as_ref().filter(|known| {
            known.entry.kind == Kind::File
                && !is_doubted(known)
                && known.digest == record.digest
                && known.stored_size == record.stored_size
        });
        if let Some(same) = same {
            return Staged::Same(Record {
                stored: same.stored,
                ..record
            });
        }
        let local = if direct {
            self.scope.on_disk(&record.entry.path).unwrap_or(local)
        } else {
            local
        };
        Staged::Upload(Piece {
            record,
            known: known.filter(|known| known.entry.kind == Kind::File),
            local,
            direct,
        })
    }

    /// Whether a file that was uploaded from the volume is still what was hashed.
    #[must_use]
    pub fn rested(&self, piece: &Piece) -> bool {
        !piece.direct
            || matches!(self.scope.look(&piece.record.entry.path), Ok(Some(now)) if !now.may_differ(&piece.record.entry))
    }
}

/// Changed so recently that a later change might bear the same time, or is likely.
fn is_young(modified: i64) -> bool {
    SystemTime::now()
        .duration_since(time(modified))
        .map_or(true, |age| age < YOUNG)
}

fn time(nanoseconds: i64) -> SystemTime {
    let length = Duration::from_nanos(nanoseconds.unsigned_abs());
    let time = if nanoseconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(length)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(length)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn unreadable(error: io::Error) -> Left {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Left::Vanished,
        _ => Left::Unreadable(Skipped::Unreadable, error),
    }
}

enum Reading {
    Volume(io::Error),
    Scratch(io::Error),
}

impl Reading {
    fn into_inner(self) -> io::Error {
        match self {
            Self::Volume(error) | Self::Scratch(error) => error,
        }
    }
}

/// Hashes a file, and copies it where a copy is wanted.
fn read(from: &mut File, mut copy: Option<&mut File>) -> Result<([u8; 32], u64), Reading> {
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok((hash.finalize().into(), size)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Reading::Volume(error)),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        hash.update(bytes);
        size += bytes.len() as u64;
        if let Some(copy) = &mut copy {
            copy.write_all(bytes).map_err(Reading::Scratch)?;
        }
    }
}
