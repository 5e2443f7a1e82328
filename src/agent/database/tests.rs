//! Databases in every state that an app leaves them in, and what is saved of them.

use super::*;
use std::os::unix::fs::PermissionsExt;

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("volume")).unwrap();
        fs::create_dir(folder.path().join("scratch")).unwrap();
        Self { folder }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("volume/a #?%.db")
    }

    fn open(&self, mode: &str) -> Connection {
        let connection = Connection::open(self.database()).unwrap();
        let set: String = connection
            .query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0))
            .unwrap();
        assert_eq!(set, mode);
        connection
            .execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER); INSERT INTO t VALUES (1);")
            .unwrap();
        connection
    }

    fn save(&self, deadline: Duration) -> Result<PathBuf, DatabaseError> {
        let scratch = self.folder.path().join("scratch");
        let to = scratch.join("copy");
        let before = self.listing();
        let result = save(&self.database(), &to, &scratch, deadline).map(|()| to);
        assert_eq!(self.listing(), before, "nothing is written on the volume");
        let left: Vec<_> = fs::read_dir(&scratch)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(left.iter().all(|name| name == "copy"), "{left:?}");
        result
    }

    fn saved_rows(&self) -> i64 {
        rows(&self.save(Duration::from_secs(5)).unwrap())
    }

    fn listing(&self) -> Vec<(OsString, u64)> {
        let mut names: Vec<_> = fs::read_dir(self.folder.path().join("volume"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name(), entry.metadata().unwrap().len())
            })
            .collect();
        names.sort();
        names
    }
}

fn rows(path: &Path) -> i64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri(path, "immutable=1"), flags)
        .unwrap()
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn what_a_live_writer_has_committed_to_its_log_is_saved() {
    let case = Case::new();
    let writer = case.open("wal");
    writer
        .execute_batch("PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES (2);")
        .unwrap();
    assert_eq!(case.saved_rows(), 2);
    writer.execute_batch("BEGIN; INSERT INTO t VALUES (3);").unwrap();
    assert_eq!(case.saved_rows(), 2, "what is not committed is not there");
}

#[test]
fn a_killed_writers_log_is_not_lost_with_and_without_its_index() {
    let case = Case::new();
    let writer = case.open("wal");
    writer
        .execute_batch("PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES (2);")
        .unwrap();
    // As a killed process leaves it: the files stay, the locks go.
    let killed = Case::new();
    for suffix in [b"".as_slice(), WAL, SHM] {
        fs::copy(
            with_suffix(&case.database(), suffix),
            with_suffix(&killed.database(), suffix),
        )
        .unwrap();
    }
    assert_eq!(killed.saved_rows(), 2, "with -shm");
    fs::remove_file(with_suffix(&killed.database(), SHM)).unwrap();
    assert_eq!(killed.saved_rows(), 2, "without -shm");
}

#[test]
fn a_cleanly_closed_database_is_saved() {
    for mode in ["wal", "delete"] {
        let case = Case::new();
        drop(case.open(mode));
        assert_eq!(case.listing().len(), 1, "{mode}");
        assert_eq!(case.saved_rows(), 1, "{mode}");
    }
}

#[test]
fn a_hot_journal_is_rolled_back_in_the_copy_alone() {
    let case = Case::new();
    let writer = case.open("delete");
    writer
        .execute_batch("PRAGMA cache_size=1; PRAGMA cache_spill=1; BEGIN;")
        .unwrap();
    for _ in 0..2000 {
        writer.execute_batch("INSERT INTO t VALUES (zeroblob(500));").unwrap();
    }
    let killed = Case::new();
    for suffix in [b"".as_slice(), JOURNAL] {
        fs::copy(
            with_suffix(&case.database(), suffix),
            with_suffix(&killed.database(), suffix),
        )
        .unwrap();
    }
    // Where nothing can be written, SQLite can't roll back in place. (Root may write all the same: then it must not.)
    fs::set_permissions(killed.folder.path().join("volume"), fs::Permissions::from_mode(0o555)).unwrap();
    assert_eq!(killed.saved_rows(), 1);
}

#[test]
fn a_database_in_exclusive_mode_has_a_deadline_and_is_named() {
    let case = Case::new();
    let writer = case.open("delete");
    writer
        .execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; INSERT INTO t VALUES (2);")
        .unwrap();
    let begun = Instant::now();
    let error = case.save(Duration::from_millis(300)).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(error.to_string().contains("locking_mode=EXCLUSIVE"), "{error}");
}

#[test]
fn a_damaged_database_is_never_saved_over_a_good_one() {
    let case = Case::new();
    let writer = case.open("delete");
    writer.execute_batch("CREATE INDEX i ON t (n);").unwrap();
    for n in 0..5000 {
        writer.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
    }
    drop(writer);
    let mut bytes = fs::read(case.database()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(case.database(), bytes).unwrap();
    let error = case.save(Duration::from_secs(5)).unwrap_err();
    assert!(matches!(error, DatabaseError::Damaged { .. }), "{error}");
}

#[test]
fn the_same_content_gives_the_same_copy() {
    let case = Case::new();
    let _writer = case.open("wal");
    let first = fs::read(case.save(Duration::from_secs(5)).unwrap()).unwrap();
    let second = fs::read(case.save(Duration::from_secs(5)).unwrap()).unwrap();
    assert!(first == second);
}

#[test]
fn names_beside_a_database_are_told() {
    assert_eq!(beside(b"a/x.db-wal"), Some(&b"a/x.db"[..]));
    assert_eq!(beside(b"a/x.db-journal"), Some(&b"a/x.db"[..]));
    assert_eq!(beside(b"a/x.db-shm"), Some(&b"a/x.db"[..]));
    assert_eq!(beside(b"a/x.db"), None);
}
