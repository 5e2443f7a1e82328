//! A database file → whether SQLite finds it whole. With its log, as the app would open it; what it finds is left as it is:
//! no log is emptied, so that Litestream goes on where it was.

use super::local::{BESIDE, beside};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is whole.
    Whole,
    /// It is not, and the first words of what is wrong.
    Damaged(String),
    /// Somebody else holds it, so it is at least in use.
    Busy,
}

/// The structure of a database that is in use, with its log: `PRAGMA quick_check`.
#[must_use]
pub fn quick(database: &Path) -> Health {
    let had: Vec<bool> = BESIDE.iter().map(|suffix| beside(database, suffix).exists()).collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let health = match Connection::open_with_flags(database, flags) {
        Ok(connection) => {
            let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            let _ = connection.busy_timeout(Duration::from_secs(2));
            ask(&connection, "PRAGMA quick_check(1)")
        }
        Err(error) => of(&error),
    };
    // A log that was made by looking holds nothing.
    for (suffix, had) in BESIDE.iter().zip(had) {
        let path = beside(database, suffix);
        if !had
            && health != Health::Busy
            && std::fs::metadata(&path).is_ok_and(|found| found.len() == 0 || *suffix == b"-shm")
        {
            let _ = std::fs::remove_file(path);
        }
    }
    health
}

/// A file that nobody else has, and that has no log: `PRAGMA integrity_check`. Leaves nothing beside it.
#[must_use]
pub fn full(database: &Path) -> Health {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match Connection::open_with_flags(crate::agent::database::uri(database, "immutable=1"), flags) {
        Ok(connection) => ask(&connection, "PRAGMA integrity_check(1)"),
        Err(error) => of(&error),
    }
}

/// Writes what is in the log into the file, and empties the log, if nobody minds.
pub fn checkpoint(database: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(Duration::from_secs(1))?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

fn ask(connection: &Connection, pragma: &str) -> Health {
    let answer: rusqlite::Result<String> = connection.query_row(pragma, [], |row| row.get(0));
    match answer {
        Ok(answer) if answer == "ok" => Health::Whole,
        Ok(answer) => Health::Damaged(answer.lines().last().unwrap_or_default().to_owned()),
        Err(error) => of(&error),
    }
}

fn of(error: &rusqlite::Error) -> Health {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Health::Busy,
        _ => Health::Damaged(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn database(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("app.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t (n INTEGER, x TEXT);")
            .unwrap();
        for n in 0..200 {
            connection
                .execute("INSERT INTO t VALUES (?1, hex(randomblob(100)))", [n])
                .unwrap();
        }
        path
    }

    #[test]
    fn a_whole_database_stays_as_it_is_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path());
        assert_eq!(quick(&path), Health::Whole);
        assert_eq!(full(&path), Health::Whole);
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing was left beside it"
        );
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch("PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES (1, 'in the log')")
            .unwrap();
        let log = std::fs::read(beside(&path, b"-wal")).unwrap();
        assert_eq!(quick(&path), Health::Whole);
        assert_eq!(std::fs::read(beside(&path, b"-wal")).unwrap(), log);
    }

    #[test]
    fn damage_is_found_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path());
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xa5; 4096], 4096).unwrap();
        assert!(matches!(quick(&path), Health::Damaged(_)));
        assert!(matches!(full(&path), Health::Damaged(_)));
        std::fs::write(&path, "no database at all, but long enough to be taken for one").unwrap();
        assert!(matches!(quick(&path), Health::Damaged(_)));
    }

    #[test]
    fn a_database_that_is_held_is_busy_and_not_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path());
        let holder = Connection::open(&path).unwrap();
        holder
            .execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; INSERT INTO t VALUES (1, 'x')")
            .unwrap();
        assert_eq!(quick(&path), Health::Busy);
    }
}
