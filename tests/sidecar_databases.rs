//! SQLite at tier 2, from a mount that is read-only to the sidecar as in a pod: what was committed is saved as one whole
//! file, whatever state its writer left it in.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use rusqlite::{Connection, OpenFlags};
use std::fs;
use support::S3;
use support::pod::{Place, Pod, in_namespace, until_place};

/// Starts the sidecar on a read-only mount of the volume, where this machine allows one.
fn start_read_only(pod: &mut Pod) {
    let volume = pod.volume.path().display();
    let script = format!(r#"mount --bind "{volume}" "{volume}" && mount -o remount,bind,ro "{volume}""#);
    match in_namespace("--mount", &script) {
        Some(command) => pod.start_with(command),
        None => pod.start(),
    };
}

fn open(pod: &Pod, name: &str, mode: &str) -> Connection {
    let connection = Connection::open(pod.path(name)).unwrap();
    let set: String = connection
        .query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0))
        .unwrap();
    assert_eq!(set, mode);
    connection
        .execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER)")
        .unwrap();
    connection
}

fn insert(connection: &Connection, rows: i64) {
    for n in 0..rows {
        connection.execute("INSERT INTO t VALUES (?1)", [n]).unwrap();
    }
}

/// Rows of the stored database, once it is found whole; none where it is not stored.
fn rows(place: &Place, name: &str) -> Option<i64> {
    let content = place.content(&format!("config/{name}"))?;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    fs::write(&path, content).unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open_with_flags(path, flags).unwrap();
    let check: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    Some(
        connection
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap(),
    )
}

fn no_log_is_stored(place: &Place) {
    let stray = |key: &&String| ["-wal", "-shm", "-journal"].iter().any(|suffix| key.ends_with(suffix));
    assert_eq!(place.keys.iter().find(stray), None);
}

#[test]
fn what_live_writers_have_committed_is_saved_and_their_logs_never() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.arguments = vec!["--interval=10s".to_owned()];
    let (wal, delete) = (open(&pod, "wal.db", "wal"), open(&pod, "delete.db", "delete"));
    wal.execute_batch("PRAGMA wal_autocheckpoint=0").unwrap();
    insert(&wal, 10);
    insert(&delete, 10);
    pod.init(&server);
    start_read_only(&mut pod);
    let place = until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    assert_eq!(
        (rows(&place, "wal.db"), rows(&place, "delete.db")),
        (Some(10), Some(10))
    );
    no_log_is_stored(&place);
    // Only the log changes: the database is saved again, at most once in an interval.
    insert(&wal, 5);
    let place = until_place(&server, |place| rows(place, "wal.db") == Some(15));
    no_log_is_stored(&place);
    assert_eq!(
        place.files(&place.snapshots[0]).len(),
        2,
        "what was replaced can be restored"
    );
}

#[test]
fn what_a_killed_writer_left_in_its_log_is_saved() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    // As a killed process leaves them: with its shared memory, and as a crashed node does: without.
    for (name, with_shm) in [("killed.db", true), ("crashed.db", false)] {
        let elsewhere = tempfile::tempdir().unwrap();
        let path = elsewhere.path().join(name);
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch("PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0; CREATE TABLE t (n INTEGER);")
            .unwrap();
        insert(&writer, 7);
        for suffix in ["", "-wal", "-shm"] {
            if suffix != "-shm" || with_shm {
                let name = format!("{name}{suffix}");
                fs::copy(elsewhere.path().join(&name), pod.path(&name)).unwrap();
            }
        }
    }
    pod.init(&server);
    start_read_only(&mut pod);
    let place = until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    assert_eq!(
        (rows(&place, "killed.db"), rows(&place, "crashed.db")),
        (Some(7), Some(7))
    );
    no_log_is_stored(&place);
}

#[test]
fn a_database_that_was_closed_cleanly_is_saved() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    let writer = open(&pod, "closed.db", "wal");
    insert(&writer, 3);
    drop(writer);
    assert!(!pod.path("closed.db-wal").exists());
    pod.init(&server);
    start_read_only(&mut pod);
    let place = until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    assert_eq!(rows(&place, "closed.db"), Some(3));
}

#[test]
fn a_database_in_exclusive_mode_is_reported_and_holds_up_nothing_else() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    let writer = open(&pod, "busy.db", "delete");
    writer
        .execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; INSERT INTO t VALUES (1);")
        .unwrap();
    pod.write("a", "one");
    pod.init(&server);
    start_read_only(&mut pod);
    pod.until_said("locking_mode=EXCLUSIVE", 1);
    let place = until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    assert_eq!(place.content("config/a").unwrap(), b"one");
    assert_eq!(rows(&place, "busy.db"), None, "it was never saved");
    // The place is written before it is told.
    let skipped = pod.until_status(|status| status["destinations"]["minio:backups/app"]["skipped"]["database"] == 1);
    let metrics = pod.http("GET /metrics", "", "");
    assert!(
        metrics.contains(r#"vixens_backup_skipped_files{reason="database"} 1"#),
        "{skipped}\n{metrics}"
    );
}
