//! Tier 3, the sidecar: which databases Litestream replicates, where they go, and what becomes of the files.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use support::S3;
use support::app::{App, create, descendants, insert, rows, strays};
use support::pod::tree;
use vixens_backup::store::keys::{SnapshotObject, of_snapshot};

#[test]
fn a_database_is_replicated_and_comes_back_whole_when_everything_is_lost() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    support::write(&app.path("settings.yaml"), "a: 1\n");
    app.start();
    insert(&writer, 0, 100);
    app.until_replicated("app.db");
    drop(writer);
    app.kill();
    app.lose_volume();
    let said = app.bed.start().0;
    assert!(said.contains("restored database"), "{said}");
    assert_eq!(rows(&app.path("app.db")), (0..100).collect::<Vec<_>>());
    assert_eq!(std::fs::read_to_string(app.path("settings.yaml")).unwrap(), "a: 1\n");
    assert_eq!(strays(&app.path("app.db")), Vec::<String>::new());
}

/// The files of the mirror and the newest snapshot's databases, as a reader of the bucket sees them.
fn mirror(app: &App) -> Vec<String> {
    let folder = app.bed.server.bucket().join("app/config");
    if folder.exists() {
        tree(&folder).into_keys().collect()
    } else {
        Vec::new()
    }
}

fn status(app: &App, name: &str) -> String {
    app.status()["databases"][format!("config/{name}")]["status"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn databases_are_replicated_wherever_and_whenever_they_appear_and_other_files_are_files() {
    let mut app = App::on(S3::start());
    let name = |number: usize| format!("sub {number}/d:{number} \"$HOME\" + \u{e9}.db");
    let mut kept = Vec::new();
    for number in 0..10 {
        let name = name(number);
        // Some with their log switched off: Litestream switches it on, for good.
        let mode = if number % 2 == 0 { "delete" } else { "wal" };
        kept.push(create(&app.path(&name), mode));
        insert(&kept[number], 0, 10);
    }
    support::write(&app.path("encrypted.db"), [0x5a; 8192]);
    support::write(&app.path("empty.db"), "");
    // Litestream would open, and make, another file: a#.
    insert(&create(&app.path("a#1.db"), "delete"), 0, 3);
    support::write(&app.path("notes.txt"), "SQLite format 2");
    app.start();
    for number in 0..10 {
        app.until_replicated(&name(number));
    }
    let later = create(&app.path("deep/er/later.sqlite3"), "wal");
    insert(&later, 0, 5);
    app.until_replicated("deep/er/later.sqlite3");
    for (number, connection) in kept.iter().enumerate() {
        insert(connection, 10, i64::try_from(number).unwrap());
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    app.kill();
    assert_eq!(
        mirror(&app),
        ["a#1.db", "empty.db", "encrypted.db", "notes.txt"],
        "files are what is no database, and no log is among them"
    );
    drop((kept, later));
    app.lose_volume();
    app.bed.start();
    for number in 0..10 {
        assert_eq!(
            rows(&app.path(&name(number))),
            (0..i64::try_from(10 + number).unwrap()).collect::<Vec<_>>(),
            "{number}"
        );
    }
    assert_eq!(rows(&app.path("deep/er/later.sqlite3")).len(), 5);
    assert_eq!(rows(&app.path("a#1.db")).len(), 3);
    assert!(!app.path("a").exists());
    assert_eq!(std::fs::read(app.path("encrypted.db")).unwrap(), [0x5a; 8192]);
}

#[test]
fn profiles_say_what_is_replicated_and_an_ephemeral_database_is_saved_as_a_file() {
    let mut app = App::on(S3::start());
    app.sidecar_flags = vec!["--databases=a.db=critical,b.db,c.db=ephemeral".to_owned()];
    for name in ["a.db", "b.db", "c.db", "unnamed.db"] {
        insert(&create(&app.path(name), "wal"), 0, 3);
    }
    app.start();
    app.until_replicated("a.db");
    app.until_replicated("b.db");
    app.until("the others are saved as files", |app| {
        mirror(app) == ["c.db", "unnamed.db"]
    });
    let settings = |profile: &str| {
        let path = app.bed.restore_dir().join(format!("litestream/{profile}.yml"));
        std::fs::read_to_string(path).unwrap()
    };
    assert!(
        settings("critical").contains(r#""interval": "1h""#),
        "{}",
        settings("critical")
    );
    assert!(settings("standard").contains(r#""retention": "168h""#));
    for text in [settings("critical"), settings("standard")] {
        assert!(!text.contains(support::SECRET_KEY) && !text.contains(support::ACCESS_KEY));
    }
    assert_eq!(app.replica("c.db", "0000").len(), 0);
}

#[test]
fn the_last_write_of_the_app_is_in_the_last_synchronisation_and_the_snapshot_knows_it() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    app.start();
    app.until_replicated("app.db");
    insert(&writer, 0, 7);
    drop(writer);
    app.stop();
    let newest = app.replica("app.db", "0000").pop().unwrap();
    let name = newest.file_stem().unwrap().to_str().unwrap().to_owned();
    app.lose_volume();
    app.bed.start();
    assert_eq!(rows(&app.path("app.db")), (0..7).collect::<Vec<_>>());
    assert!(
        newest_index(&app).contains("\"databases\":[{\"folder\":\"config\",\"path\":\"app.db\""),
        "{name}: {}",
        newest_index(&app)
    );
}

fn newest_index(app: &App) -> String {
    let snapshots = tree(&app.bed.server.bucket().join("app/snapshots"));
    let is_index = |name: &String| matches!(of_snapshot(name), SnapshotObject::Index(_));
    let newest = snapshots.into_iter().rfind(|(name, _)| is_index(name));
    String::from_utf8(newest.unwrap().1).unwrap()
}

#[test]
fn a_database_that_its_app_replaces_is_the_one_that_comes_back() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, 0, 50);
    app.start();
    app.until_replicated("app.db");
    drop(writer);
    // As an app does that restores a backup of its own: the set goes, and another file takes the name.
    let other = create(&app.path("new"), "delete");
    insert(&other, 1000, 20);
    drop(other);
    for stray in strays(&app.path("app.db")) {
        if !stray.ends_with("-litestream") {
            std::fs::remove_file(app.path(&stray)).unwrap();
        }
    }
    std::fs::rename(app.path("new"), app.path("app.db")).unwrap();
    app.until_said("was replaced or removed by its app");
    app.until_replicated("app.db");
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, 2000, 5);
    std::thread::sleep(std::time::Duration::from_secs(2));
    drop(writer);
    app.kill();
    app.lose_volume();
    app.bed.start();
    let expected: Vec<i64> = (1000..1020).chain(2000..2005).collect();
    assert_eq!(rows(&app.path("app.db")), expected);
}

fn signal(app: &App, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(app.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// The app puts another file in the place of its database, and adds these rows: Litestream sends what it finds in the new log on
/// top of the old file's pages before our sidecar, which is held up, sees that.
fn replaced_while_nobody_looks(app: &App, other: &std::path::Path, rows: std::ops::Range<i64>) -> rusqlite::Connection {
    let before = app.replica("app.db", "0000").len();
    signal(app, rustix::process::Signal::STOP);
    for stray in strays(&app.path("app.db")) {
        if !stray.ends_with("-litestream") {
            std::fs::remove_file(app.path(&stray)).unwrap();
        }
    }
    std::fs::rename(other, app.path("app.db")).unwrap();
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, rows.start, rows.end - rows.start);
    app.until("a part of the new log is sent", |app| {
        app.replica("app.db", "0000").len() > before
    });
    writer
}

/// One of 500 rows that was sent is replaced by another.
fn a_replaced_one() -> (App, rusqlite::Connection) {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, 0, 500);
    app.start();
    app.until_replicated("app.db");
    drop(writer);
    insert(&create(&app.path("new"), "delete"), 1000, 400);
    let writer = replaced_while_nobody_looks(&app, &app.path("new"), 2000..2005);
    (app, writer)
}

fn assert_is_the_new_one(app: &mut App, writer: rusqlite::Connection) {
    app.until_replicated("app.db");
    insert(&writer, 2005, 5);
    std::thread::sleep(std::time::Duration::from_secs(3));
    drop(writer);
    app.kill();
    app.lose_volume();
    let said = app.bed.start().0;
    let expected: Vec<i64> = (1000..1400).chain(2000..2010).collect();
    assert_eq!(rows(&app.path("app.db")), expected, "{said}");
}

#[test]
fn what_was_sent_of_a_replaced_database_before_that_was_seen_is_nothing_to_go_on_from() {
    let (mut app, writer) = a_replaced_one();
    signal(&app, rustix::process::Signal::CONT);
    app.until_said("was replaced or removed by its app");
    assert_is_the_new_one(&mut app, writer);
}

#[test]
fn a_replaced_database_is_sent_as_a_whole_though_whoever_sent_the_one_before_was_killed() {
    let (mut app, writer) = a_replaced_one();
    app.kill();
    app.start_sidecar();
    app.until_said("was replaced or removed by its app");
    assert_is_the_new_one(&mut app, writer);
}

#[test]
fn where_everything_is_lost_before_a_replaced_database_was_sent_the_one_before_comes_back_and_no_mixture() {
    let mut app = App::on(S3::start());
    let which = |number: i64| format!("CREATE TABLE which AS SELECT {number} AS file");
    let writer = create(&app.path("app.db"), "wal");
    writer.execute_batch(&which(1)).unwrap();
    insert(&writer, 0, 3);
    app.start();
    app.until_replicated("app.db");
    drop(writer);
    // As an older copy of the same has it, Litestream's own tables too: SQLite finds a mixture of the two whole.
    let other = create(&app.path("new"), "delete");
    other.execute_batch(&which(2)).unwrap();
    other
        .execute_batch(
            "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);
             CREATE TABLE _litestream_lock (id INTEGER)",
        )
        .unwrap();
    insert(&other, 1000, 3);
    drop(other);
    drop(replaced_while_nobody_looks(&app, &app.path("new"), 2000..2001));
    app.kill();
    app.lose_volume();
    let (said, _) = app.bed.start();
    assert_eq!(rows(&app.path("app.db")), [0, 1, 2], "{said}");
    let restored = rusqlite::Connection::open(app.path("app.db")).unwrap();
    let file: i64 = restored
        .query_row("SELECT file FROM which", [], |row| row.get(0))
        .unwrap();
    assert_eq!(file, 1, "{said}");
}

#[test]
fn a_database_of_tier_2_leaves_the_files_once_it_is_replicated_and_comes_back_from_both() {
    let mut app = App::on(S3::start());
    app.bed.tier = "tier2";
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, 0, 500);
    app.start();
    app.until("it is saved as a file", |app| mirror(app) == ["app.db"]);
    app.stop();
    app.bed.tier = "tier3";
    app.start();
    app.until_replicated("app.db");
    app.until("it left the files", |app| mirror(app).is_empty());
    insert(&writer, 500, 1);
    std::thread::sleep(std::time::Duration::from_secs(2));
    app.kill();
    drop(writer);
    app.lose_volume();
    let said = app.bed.start().0;
    assert_eq!(rows(&app.path("app.db")).len(), 501, "{said}\n{}", app.log());
    // And back: what a snapshot of tier 3 has as a replica comes back at tier 2 too.
    app.lose_volume();
    app.bed.tier = "tier2";
    let said = app.bed.start().0;
    assert_eq!(rows(&app.path("app.db")).len(), 501, "{said}\n{}", app.log());
    assert_eq!(status(&app, "app.db"), "");
}

#[test]
fn a_litestream_that_is_killed_is_started_again_and_one_that_was_left_behind_is_ended() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    app.start();
    app.until_replicated("app.db");
    let litestream = |app: &App| {
        descendants(app.pid()).into_iter().find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "litestream")
        })
    };
    let pid = litestream(&app).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    app.until_said("Litestream has ended");
    app.until("Litestream runs again", |app| litestream(app).is_some());
    insert(&writer, 0, 5);
    app.until_replicated("app.db");
    app.kill_agent();
    insert(&writer, 5, 5);
    app.start_sidecar();
    app.until_said("was left behind by a sidecar that was killed");
    app.until_replicated("app.db");
    insert(&writer, 10, 5);
    std::thread::sleep(std::time::Duration::from_secs(3));
    drop(writer);
    app.kill();
    app.lose_volume();
    app.bed.start();
    assert_eq!(rows(&app.path("app.db")).len(), 15);
}
