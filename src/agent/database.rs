//! A SQLite file on the volume → a whole copy of it in scratch, by the online backup, checked. Never writes to the
//! volume, also where it could: no `-shm` is made, no log is checkpointed.
//!
//! The tier-2 mount is read-only, where each state of a database needs another way (tried with SQLite 3.40 and later):
//!
//! | beside the file | what works |
//! | --- | --- |
//! | `-shm` (a writer, or one that was killed) | `mode=ro`, under its locks |
//! | nothing, write-ahead logging in its header | `immutable=1`, if the file is the same before and after |
//! | nothing, or the journal of a live transaction | `mode=ro`, under its locks |
//! | `-wal` without `-shm`, or a hot journal | a copy of the set, recovered in scratch |
//!
//! POSIX locks belong to the process: whoever opens and closes a database's file elsewhere in this process drops the
//! locks of a backup that is under way. So these calls, and the reading of files, are made one at a time.

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The first bytes of every SQLite file: <https://www.sqlite.org/fileformat.html>.
pub const HEADER: &[u8; 16] = b"SQLite format 3\0";
/// The write-ahead log.
pub const WAL: &[u8] = b"-wal";
/// The rollback journal.
pub const JOURNAL: &[u8] = b"-journal";
/// Shared memory of the write-ahead log.
pub const SHM: &[u8] = b"-shm";

/// Pages of one step: 4 MiB with the usual page size. The locks of a step are short, so that the app can write.
const STEP: i32 = 1024;
/// Above this, only the structure is checked, not each index against its table.
const LARGE: u64 = 64 << 20;

/// Why a database was not saved. What was saved of it before stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Somebody holds it in exclusive mode, or wrote to it all the time.
    #[error("the database {path} was locked for {seconds} s, as with locking_mode=EXCLUSIVE, and was not saved")]
    Busy {
        /// The file.
        path: PathBuf,
        /// The deadline.
        seconds: u64,
    },
    /// It was opened, closed or replaced in each attempt.
    #[error("the database {path} changed hands in every attempt, and was not saved")]
    Restless {
        /// The file.
        path: PathBuf,
    },
    /// The copy fails SQLite's own check.
    #[error("the database {path} is damaged ({what}), and was not saved: the copy of it in the store is left as it is")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first line of the check.
        what: String,
    },
    /// SQLite refused.
    #[error("the database {path} can't be read by SQLite")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file or the scratch space.
    #[error("the database {path} can't be copied")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether the file begins as a SQLite database does.
pub fn is_database(path: &Path) -> io::Result<bool> {
    let mut start = [0; 16];
    match File::open(path)?.read_exact(&mut start) {
        Ok(()) => Ok(&start == HEADER),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The name of the database that a file of this name would lie beside; none if it is no such name.
#[must_use]
pub fn beside(path: &[u8]) -> Option<&[u8]> {
    [WAL, JOURNAL, SHM].iter().find_map(|suffix| path.strip_suffix(*suffix))
}

/// Saves the database at `source` as the single file `to`, within `deadline`. `scratch` is a folder for copies.
pub fn save(source: &Path, to: &Path, scratch: &Path, deadline: Duration) -> Result<(), DatabaseError> {
    let save = Save {
        source,
        to,
        scratch,
        until: Instant::now() + deadline,
        deadline,
    };
    let result = save.run();
    for suffix in [WAL, JOURNAL, SHM] {
        let _ = fs::remove_file(with_suffix(to, suffix));
    }
    if result.is_err() {
        let _ = fs::remove_file(to);
    }
    result
}

struct Save<'a> {
    source: &'a Path,
    to: &'a Path,
    scratch: &'a Path,
    until: Instant,
    deadline: Duration,
}

/// What one attempt came to.
enum Attempt {
    Done,
    /// Its state changed meanwhile: look again.
    Again,
    /// It needs recovery, which takes a copy.
    Recover,
}

impl Save<'_> {
    fn run(&self) -> Result<(), DatabaseError> {
        loop {
            let attempt = if self.is_closed_wal()? {
                self.immutable()?
            } else if self.exists(WAL) && !self.exists(SHM) {
                Attempt::Recover
            } else {
                self.locked()?
            };
            let attempt = match attempt {
                Attempt::Recover => self.recovered()?,
                other => other,
            };
            match attempt {
                Attempt::Done => return self.check(),
                Attempt::Again | Attempt::Recover if Instant::now() < self.until => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Attempt::Again | Attempt::Recover => {
                    return Err(DatabaseError::Restless {
                        path: self.source.to_owned(),
                    });
                }
            }
        }
    }

    fn exists(&self, suffix: &[u8]) -> bool {
        fs::symlink_metadata(with_suffix(self.source, suffix)).is_ok()
    }

    /// Write-ahead logging in the header, and nothing beside the file: it was closed cleanly.
    fn is_closed_wal(&self) -> Result<bool, DatabaseError> {
        if self.exists(WAL) || self.exists(SHM) || self.exists(JOURNAL) {
            return Ok(false);
        }
        let mut header = [0; 20];
        let mut file = File::open(self.source).map_err(|source| self.io(source))?;
        match file.read_exact(&mut header) {
            Ok(()) => Ok(header[18..20] == [2, 2]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Nobody has it open; if somebody opens it meanwhile, that is seen and the copy thrown away.
    fn immutable(&self) -> Result<Attempt, DatabaseError> {
        let before = self.identity()?;
        let copied = self
            .open(self.source, "immutable=1")
            .and_then(|from| self.copy(&from, true));
        if self.identity()? != before || self.exists(WAL) || self.exists(SHM) {
            return Ok(Attempt::Again);
        }
        copied.map(|()| Attempt::Done)
    }

    /// Under SQLite's own locks, with the app at work.
    fn locked(&self) -> Result<Attempt, DatabaseError> {
        let from = self.open(self.source, "mode=ro&readonly_shm=1")?;
        // A snapshot of the log holds nobody up; a read lock on a file with a rollback journal does.
        let has_log = self.exists(WAL);
        match self.copy(&from, has_log) {
            Ok(()) => Ok(Attempt::Done),
            Err(DatabaseError::Sqlite { source, .. }) if needs_recovery(&source) => Ok(Attempt::Recover),
            Err(error) => Err(error),
        }
    }

    /// Copies the file with its log or journal, and lets SQLite recover the copy.
    fn recovered(&self) -> Result<Attempt, DatabaseError> {
        let folder = self.scratch.join("recover");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|source| self.io(source))?;
        let copy = folder.join("database");
        let before = self.set_identity();
        for suffix in [b"".as_slice(), WAL, JOURNAL] {
            match fs::copy(with_suffix(self.source, suffix), with_suffix(&copy, suffix)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {}
                Err(error) => return Err(self.io(error)),
            }
        }
        let attempt = if self.set_identity() == before {
            Connection::open_with_flags(
                &copy,
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )
            .map_err(|source| self.sqlite(source))
            .and_then(|from| self.copy(&from, true))
            .map(|()| Attempt::Done)
        } else {
            Ok(Attempt::Again)
        };
        let _ = fs::remove_dir_all(&folder);
        attempt
    }

    fn open(&self, path: &Path, how: &str) -> Result<Connection, DatabaseError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(uri(path, how), flags).map_err(|source| self.sqlite(source))
    }

    /// `hold`: one read transaction over all steps, so that no write begins the copy anew.
    fn copy(&self, from: &Connection, hold: bool) -> Result<(), DatabaseError> {
        let sqlite = |source| self.sqlite(source);
        let _ = fs::remove_file(self.to);
        let mut to = Connection::open(self.to).map_err(sqlite)?;
        to.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-1024;")
            .map_err(sqlite)?;
        from.busy_timeout(Duration::ZERO).map_err(sqlite)?;
        self.until_free(|| from.execute_batch("PRAGMA cache_size=-1024;"))?;
        if hold {
            self.until_free(|| from.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master;"))?;
        }
        let backup = Backup::new(from, &mut to).map_err(sqlite)?;
        let mut left = i32::MAX;
        let mut restarts = 0;
        loop {
            // A database that is written between all our steps is copied in one, under one lock.
            let pages = if restarts > 3 { -1 } else { STEP };
            match backup.step(pages) {
                Ok(StepResult::Done) => return Ok(()),
                Ok(StepResult::More) => {
                    let now = backup.progress().remaining;
                    restarts += u32::from(now > left);
                    left = now;
                    if !hold {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
                Ok(_) => self.wait()?,
                Err(error) if is_busy(&error) => self.wait()?,
                Err(error) => return Err(sqlite(error)),
            }
        }
    }

    fn until_free(&self, mut act: impl FnMut() -> rusqlite::Result<()>) -> Result<(), DatabaseError> {
        loop {
            match act() {
                Ok(()) => return Ok(()),
                Err(error) if is_busy(&error) => self.wait()?,
                Err(error) => return Err(self.sqlite(error)),
            }
        }
    }

    fn wait(&self) -> Result<(), DatabaseError> {
        if Instant::now() >= self.until {
            return Err(DatabaseError::Busy {
                path: self.source.to_owned(),
                seconds: self.deadline.as_secs(),
            });
        }
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }

    /// SQLite's own check, on the copy.
    fn check(&self) -> Result<(), DatabaseError> {
        let size = fs::metadata(self.to).map_err(|source| self.io(source))?.len();
        let copy = self.open(self.to, "immutable=1")?;
        let pragma = if size > LARGE {
            "PRAGMA quick_check(1)"
        } else {
            "PRAGMA integrity_check(1)"
        };
        let answer: rusqlite::Result<String> = copy.query_row(pragma, [], |row| row.get(0));
        let what = match answer {
            Ok(answer) if answer == "ok" => return Ok(()),
            Ok(answer) => answer,
            Err(error) => error.to_string(),
        };
        Err(DatabaseError::Damaged {
            path: self.source.to_owned(),
            what: what.lines().last().unwrap_or_default().to_owned(),
        })
    }

    fn identity(&self) -> Result<[i64; 6], DatabaseError> {
        identity(self.source).map_err(|source| self.io(source))
    }

    fn set_identity(&self) -> [Option<[i64; 6]>; 3] {
        [b"".as_slice(), WAL, JOURNAL].map(|suffix| identity(&with_suffix(self.source, suffix)).ok())
    }

    fn sqlite(&self, source: rusqlite::Error) -> DatabaseError {
        DatabaseError::Sqlite {
            path: self.source.to_owned(),
            source,
        }
    }

    fn io(&self, source: io::Error) -> DatabaseError {
        DatabaseError::Io {
            path: self.source.to_owned(),
            source,
        }
    }
}

/// Inode, size, modification and change time.
fn identity(path: &Path) -> io::Result<[i64; 6]> {
    let metadata = fs::symlink_metadata(path)?;
    Ok([
        metadata.ino().cast_signed(),
        metadata.size().cast_signed(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ])
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// What SQLite says where it would have to write to read: a hot journal, or a log whose index is gone.
fn needs_recovery(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
    )
}

fn with_suffix(path: &Path, suffix: &[u8]) -> PathBuf {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.extend_from_slice(suffix);
    OsString::from_vec(name).into()
}

/// <https://www.sqlite.org/uri.html>: every byte that is not plain is escaped, so that any path can be named.
pub(crate) fn uri(path: &Path, how: &str) -> PathBuf {
    let mut text = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => text.push(*byte),
            other => text.extend(format!("%{other:02X}").into_bytes()),
        }
    }
    text.push(b'?');
    text.extend(how.as_bytes());
    OsString::from_vec(text).into()
}

#[cfg(test)]
mod tests;
