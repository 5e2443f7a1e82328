//! What Litestream keeps beside a database: `.<name>-litestream`, where its position is, and the log that it holds back.
//! Reads names and sizes; removes what a restore has made stale.

use super::ltx::{File, Txid};
use crate::agent::database::{SHM, WAL};
use jiff::Timestamp;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a database stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its newest transaction.
    pub txid: Txid,
    /// When that was made.
    pub time: Timestamp,
}

/// Litestream's folder of a database.
#[must_use]
pub fn folder(database: &Path) -> PathBuf {
    let name = database.file_name().unwrap_or_default();
    let hidden = [b".", name.as_bytes(), b"-litestream"].concat();
    database.with_file_name(OsString::from_vec(hidden))
}

/// The newest transaction that Litestream has taken from a database.
#[must_use]
pub fn position(database: &Path) -> Option<Position> {
    let entries = std::fs::read_dir(folder(database).join("ltx/0")).ok()?;
    let newest = entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((File::parse(0, entry.file_name().to_str()?)?.max, entry)))
        .max_by_key(|(txid, _)| *txid);
    let (txid, entry) = newest?;
    let modified = entry.metadata().ok()?.modified().ok()?;
    Some(Position {
        txid,
        time: Timestamp::try_from(modified).ok()?,
    })
}

/// Bytes on the volume that wait: what the store, which has everything up to `sent`, has yet to get, and the log.
#[must_use]
pub fn backlog(database: &Path, sent: Txid) -> u64 {
    let log = std::fs::metadata(beside(database, WAL)).map_or(0, |found| found.len());
    let Ok(entries) = std::fs::read_dir(folder(database).join("ltx/0")) else {
        return log;
    };
    let waiting = entries.filter_map(Result::ok).filter(|entry| {
        let name = entry.file_name();
        let file = name.to_str().and_then(|name| File::parse(0, name));
        file.is_none_or(|file| file.max > sent)
    });
    log + waiting
        .filter_map(|entry| entry.metadata().ok())
        .map(|found| found.len())
        .sum::<u64>()
}

/// When the first transaction that the store has yet to get was made.
#[must_use]
pub fn waiting_since(database: &Path, sent: Txid) -> Option<Timestamp> {
    let entries = std::fs::read_dir(folder(database).join("ltx/0")).ok()?;
    let first = entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((File::parse(0, entry.file_name().to_str()?)?.max, entry)))
        .filter(|(txid, _)| *txid > sent)
        .min_by_key(|(txid, _)| *txid)?;
    Timestamp::try_from(first.1.metadata().ok()?.modified().ok()?).ok()
}

/// Whether Litestream still has what it took in one transaction.
#[must_use]
pub fn has(database: &Path, txid: Txid) -> bool {
    folder(database).join(format!("ltx/0/{txid}-{txid}.ltx")).is_file()
}

/// Takes away what Litestream kept: it begins with a fresh snapshot then.
pub fn forget(database: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder(database)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Which file it is: another one of the same name is another database.
#[must_use]
pub fn identity(database: &Path) -> Option<(u64, u64)> {
    let found = std::fs::metadata(database).ok()?;
    found.is_file().then(|| (found.dev(), found.ino()))
}

/// A file that SQLite keeps beside a database.
#[must_use]
pub fn beside(database: &Path, suffix: &[u8]) -> PathBuf {
    OsString::from_vec([database.as_os_str().as_bytes(), suffix].concat()).into()
}

/// All that SQLite keeps beside a database.
pub const BESIDE: [&[u8]; 3] = [WAL, SHM, crate::agent::database::JOURNAL];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_is_the_newest_file_of_level_0() {
        let volume = tempfile::tempdir().unwrap();
        let database = volume.path().join("app.db");
        assert_eq!(position(&database), None);
        let level = volume.path().join(".app.db-litestream/ltx/0");
        std::fs::create_dir_all(&level).unwrap();
        assert_eq!(position(&database), None);
        for number in [9, 10, 2] {
            let txid = Txid(number);
            std::fs::write(level.join(format!("{txid}-{txid}.ltx")), "12345").unwrap();
        }
        std::fs::write(level.join("000000000000000f-000000000000000f.ltx.tmp"), "").unwrap();
        std::fs::write(beside(&database, WAL), "123").unwrap();
        assert_eq!(position(&database).unwrap().txid, Txid(10));
        assert!(has(&database, Txid(9)) && !has(&database, Txid(8)));
        assert_eq!(backlog(&database, Txid(0)), 18);
        assert_eq!(backlog(&database, Txid(9)), 8, "what the store has does not wait");
        assert!(waiting_since(&database, Txid(9)).is_some());
        assert_eq!(waiting_since(&database, Txid(10)), None);
        forget(&database).unwrap();
        forget(&database).unwrap();
        assert_eq!(backlog(&database, Txid(0)), 3);
    }
}
