//! Tier 3, the start: what is missing or damaged comes back from its replica, at the newest point or at the one that was
//! asked for; what can't be is left as it is, and the app does not start.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::app::{App, create, insert, rows, strays};
use support::bed::FOLDER;
use support::laptop::said;
use support::pod::Place;
use support::{BUCKET, S3, write};

/// An app whose database has these many rows in the store, and that has stopped.
fn stopped(rows: i64) -> App {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    app.start();
    app.until_replicated("app.db");
    insert(&writer, 0, rows);
    drop(writer);
    app.stop();
    app
}

/// Spoils a page in the middle.
fn damage(database: &Path) {
    // What lies in the log counts: first all of it goes into the file.
    Connection::open(database)
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let file = fs::File::options().write(true).open(database).unwrap();
    file.write_all_at(&[0xa5; 4096], 4096).unwrap();
}

#[test]
fn a_database_that_is_missing_from_a_volume_in_use_comes_back_with_its_owner_and_mode() {
    let mut app = App::on(S3::start());
    let path = app.path("deep/app.db");
    let writer = create(&path, "wal");
    insert(&writer, 0, 20);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o606)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        chown(&path, Some(1234), Some(4321)).unwrap();
        chown(path.parent().unwrap(), Some(1234), Some(4321)).unwrap();
    }
    app.start();
    app.until_replicated("deep/app.db");
    drop(writer);
    app.stop();
    fs::remove_dir_all(app.path("deep")).unwrap();
    let said = app.bed.start().0;
    assert!(said.contains("deep/app.db: its newest point"), "{said}");
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o606);
    if is_root {
        assert_eq!((found.uid(), found.gid()), (1234, 4321));
    }
    assert_eq!(strays(&path), Vec::<String>::new());
    assert_eq!(rows(&path), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_damaged_database_is_kept_aside_and_the_newest_point_takes_its_place() {
    let mut app = stopped(300);
    let path = app.path("app.db");
    damage(&path);
    let spoilt = fs::read(&path).unwrap();
    let said = app.start();
    assert!(
        said.contains("damaged") && said.contains("what was there is kept as"),
        "{said}"
    );
    let aside: Vec<String> = strays(&path)
        .into_iter()
        .filter(|name| name.contains(".damaged-"))
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(fs::read(app.path(&aside[0])).unwrap(), spoilt);
    assert_eq!(rows(&path), (0..300).collect::<Vec<_>>());
    // It is replicated on from there, and what was damaged is neither a database nor a file of the backup.
    let writer = create(&path, "wal");
    insert(&writer, 300, 1);
    app.until_replicated("app.db");
    drop(writer);
    app.stop();
    let place = Place::read(&app.bed.server);
    assert!(
        !place.keys.iter().any(|key| key.contains("damaged")),
        "{:?}",
        place.keys
    );
    app.lose_volume();
    app.bed.start();
    assert_eq!(rows(&path).len(), 301);
}

#[test]
fn a_damaged_database_without_a_replica_stays_where_it_is_and_the_app_does_not_start() {
    let mut app = stopped(300);
    let path = app.path("app.db");
    damage(&path);
    let spoilt = fs::read(&path).unwrap();
    fs::remove_dir_all(app.bed.server.bucket().join("app/database")).unwrap();
    app.bed.server.stop();
    app.bed.server.resume();
    let said = app.bed.refused();
    assert!(
        said.contains("has no replica of it") && said.contains("nothing was deleted"),
        "{said}"
    );
    assert_eq!(fs::read(&path).unwrap(), spoilt);
    // Named by the owner, it is looked at whoever knows of it.
    fs::remove_file(app.path(".vixens-backup/databases.json")).unwrap();
    app.bed.flags.push("--databases=app.db".to_owned());
    assert!(app.bed.refused().contains("app.db is damaged"));
}

#[test]
fn a_restore_job_says_whether_each_database_can_come_back() {
    let mut app = stopped(100);
    let check = |app: &App| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vixens-backup"));
        command
            .args(["agent", "pre-sync", "--workload=Deployment/app"])
            .arg(format!("--volume=data:{FOLDER}:/config"))
            .arg(format!("--destination=minio:{BUCKET}/app"))
            .arg(format!("--restore-dir={}", app.bed.restore_dir().display()))
            .arg(format!("--rclone-dir={}", app.bed.server.rclone_dir().display()))
            .env("POD_NAMESPACE", "home")
            .env("VIXENS_BACKUP_CLUSTER_ID", "c1");
        said(&mut command)
    };
    let out = check(&app).fine();
    assert!(out.contains(&format!("{FOLDER}/app.db at ")), "{out}");
    fs::remove_dir_all(app.bed.server.bucket().join("app/database").join(FOLDER)).unwrap();
    app.bed.server.stop();
    app.bed.server.resume();
    let why = check(&app).failed(1);
    let expected = format!("database/{FOLDER}/app.db holds no state of the database that can be restored");
    assert!(why.contains(&expected), "{why}");
}

#[test]
fn a_database_that_is_whole_is_not_touched_and_a_store_that_is_away_holds_nobody_up() {
    let mut app = stopped(50);
    let path = app.path("app.db");
    let before = (fs::metadata(&path).unwrap().ino(), fs::read(&path).unwrap());
    let log = fs::read(app.path("app.db-wal")).ok();
    let (said, _) = app.bed.start();
    assert!(!said.contains("restored database"), "{said}");
    app.bed.server.stop();
    let (said, _) = app.bed.start();
    assert!(said.contains("kept"), "{said}");
    assert_eq!((fs::metadata(&path).unwrap().ino(), fs::read(&path).unwrap()), before);
    assert_eq!(
        fs::read(app.path("app.db-wal")).ok(),
        log,
        "its log is as the app left it"
    );
    app.bed.server.resume();
}

/// Flips a byte in the middle of a file of the bucket.
fn corrupt(app: &mut App, name: &Path) {
    let mut content = fs::read(name).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0xff;
    let key = name
        .strip_prefix(app.bed.server.bucket())
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    app.bed.server.place(&key, content);
}

#[test]
fn a_corrupt_newest_snapshot_in_the_bucket_is_passed_over_and_nothing_is_lost() {
    let mut app = stopped(300);
    let snapshot = app.replica("app.db", "0009").pop().unwrap();
    corrupt(&mut app, &snapshot);
    app.lose_volume();
    let (said, _) = app.bed.start();
    assert!(
        said.contains("by way of other files, because these are damaged: 0009/"),
        "{said}"
    );
    assert!(!said.contains("is lost"), "{said}");
    assert_eq!(rows(&app.path("app.db")).len(), 300);
}

#[test]
fn a_corrupt_last_transaction_in_the_bucket_costs_that_one_and_no_other() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    app.start();
    app.until_replicated("app.db");
    for round in 0..3 {
        insert(&writer, round * 10, 10);
        std::thread::sleep(Duration::from_millis(1500));
    }
    drop(writer);
    app.kill();
    let newest = app.replica("app.db", "0000").pop().unwrap();
    // What compaction made of it meanwhile is spoilt too.
    let name = newest.file_stem().unwrap().to_str().unwrap().to_owned();
    let last = name.split_once('-').unwrap().1.to_owned();
    for level in ["0001", "0000"] {
        for file in app.replica("app.db", level) {
            if file.to_str().unwrap().ends_with(&format!("-{last}.ltx")) {
                corrupt(&mut app, &file);
            }
        }
    }
    app.lose_volume();
    let (said, _) = app.bed.start();
    assert!(said.contains("is lost"), "{said}");
    let left = rows(&app.path("app.db"));
    assert!(left.len() >= 10 && left.len() < 30, "{left:?}\n{said}");
    assert_eq!(
        left,
        (0..i64::try_from(left.len()).unwrap()).collect::<Vec<_>>(),
        "a beginning, without a gap"
    );
}

#[test]
fn a_restore_to_a_snapshot_brings_files_and_databases_of_one_moment() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    let idle = create(&app.path("idle.db"), "wal");
    insert(&idle, 0, 4);
    drop(idle);
    app.start();
    app.until_replicated("app.db");
    app.until_replicated("idle.db");
    let mut points = Vec::new();
    for round in 0..3 {
        insert(&writer, round * 10, 10);
        // The file says which rows there were.
        write(&app.path("count"), ((round + 1) * 10).to_string());
        let count = ((round + 1) * 10).to_string();
        let place = support::pod::until_place(&app.bed.server, |place| {
            place
                .content("config/count")
                .is_some_and(|content| content == count.as_bytes())
                && place.pending.is_empty()
        });
        points.push(place.newest());
    }
    insert(&writer, 100, 1);
    drop(writer);
    app.stop();
    app.bed.flags.push(format!("--restore-at={}", points[1]));
    let (said, _) = app.bed.start();
    assert!(said.contains("the very one of the snapshot"), "{said}");
    assert_eq!(fs::read_to_string(app.path("count")).unwrap(), "20");
    assert_eq!(rows(&app.path("app.db")), (0..20).collect::<Vec<_>>(), "{said}");
    assert_eq!(
        rows(&app.path("idle.db")).len(),
        4,
        "an idle database, at a later snapshot"
    );
    // From there on it is replicated again, and that is the newest point.
    app.start_sidecar();
    app.until_replicated("app.db");
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, 500, 1);
    std::thread::sleep(Duration::from_secs(2));
    drop(writer);
    app.stop();
    app.lose_volume();
    app.bed.start();
    assert_eq!(rows(&app.path("app.db")), (0..20).chain([500]).collect::<Vec<_>>());
}

#[test]
fn a_restore_to_a_time_brings_the_files_and_the_database_as_they_were_then() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    app.start();
    app.until_replicated("app.db");
    let mut times = Vec::new();
    for round in 0..2 {
        insert(&writer, round * 10, 10);
        let count = ((round + 1) * 10).to_string();
        write(&app.path("count"), &count);
        support::pod::until_place(&app.bed.server, |place| {
            let content = place.content("config/count");
            content.is_some_and(|content| content == count.as_bytes()) && place.pending.is_empty()
        });
        // Litestream names its points by the second.
        std::thread::sleep(Duration::from_secs(2));
        times.push(jiff::Timestamp::now());
        std::thread::sleep(Duration::from_secs(2));
    }
    drop(writer);
    app.stop();
    app.bed.flags.push(format!("--restore-at={}", times[0]));
    let (said, _) = app.bed.start();
    assert_eq!(fs::read_to_string(app.path("count")).unwrap(), "10", "{said}");
    assert_eq!(rows(&app.path("app.db")), (0..10).collect::<Vec<_>>(), "{said}");
}

#[test]
fn an_encrypted_store_is_refused_at_the_start_and_tier_2_is_named() {
    let server = S3::start();
    server.encrypt("password");
    let app = App::on(server);
    create(&app.path("app.db"), "wal");
    let said = app.bed.refused();
    assert!(
        said.contains("crypt") && said.contains("vixens.io/backup: tier2"),
        "{said}"
    );
    assert!(app.path("app.db").exists());
}
