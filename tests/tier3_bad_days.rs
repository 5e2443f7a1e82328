//! Tier 3 on bad days: a store that stays away until too much waits, a place that somebody else has taken, a volume without
//! a name that Litestream can take.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use jiff::{SignedDuration, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use support::app::{App, create, descendants, insert, rows, strays};
use support::bed::Bed;
use support::disk::Disk;
use support::pod::block_on;
use support::{S3, path_with_tools, rclone_after, write};
use vixens_backup::agent::litestream::registry::{Registered, Registry};

/// Adds so many MiB to a database.
fn grow(connection: &rusqlite::Connection, from: i64, mib: i64) {
    for n in from..from + mib {
        connection
            .execute("INSERT INTO t VALUES (?1, hex(randomblob(524288)))", [n])
            .unwrap();
    }
}

/// Waits until the store has everything, and more than it had up to this transaction. Which one it has then.
fn until_all_is_sent(app: &App, after: &str) -> String {
    let sent = |app: &App| {
        let database = &app.status()["databases"]["config/app.db"];
        let newest = database["txid"].as_str()?;
        (database["listed"] == newest && newest > after).then(|| newest.to_owned())
    };
    app.until("everything is sent", |app| sent(app).is_some());
    sent(app).unwrap()
}

fn litestreams(app: &App) -> Vec<u32> {
    let mut pids = descendants(app.pid());
    pids.retain(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "litestream"));
    pids
}

fn has_litestream(app: &App) -> bool {
    !litestreams(app).is_empty()
}

#[test]
fn while_the_store_is_down_so_much_may_pile_up_and_then_the_log_is_let_go() {
    // A volume of 400 MiB, of which a tenth, and at least 64 MiB, may be a backlog.
    let Some(disk) = Disk::of("400m") else { return };
    let mut app = App::of(Bed::in_folder(disk.path(), S3::start()));
    let writer = create(&app.path("app.db"), "wal");
    app.start();
    app.until_replicated("app.db");
    let before = until_all_is_sent(&app, "");
    app.bed.server.stop();
    grow(&writer, 0, 1);
    app.until_said("can't be sent, and wait on the volume");
    // How much of it lies there twice depends on how far Litestream has come.
    let mut written = 1;
    for said in [
        "replication stops, so that the volume does not fill up",
        "replication stops, and begins again with a fresh snapshot",
    ] {
        while !app.log().contains(said) {
            assert!(written < 130, "never: {said}\n{}", app.log());
            grow(&writer, written, 1);
            written += 1;
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    app.until("Litestream has let go", |app| !has_litestream(app));
    app.until("it says so", |app| {
        app.status()["databases"]["config/app.db"]["status"] == "stopped"
    });
    app.until("what waited is gone from the volume", |app| {
        !app.path(".app.db-litestream").exists()
            && fs::metadata(app.path("app.db-wal")).map_or(0, |found| found.len()) < 8 << 20
    });
    app.bed.server.resume();
    app.until_said("databases begin again with a fresh snapshot each");
    let anew = until_all_is_sent(&app, &before);
    insert(&writer, 1000, 3);
    until_all_is_sent(&app, &anew);
    drop(writer);
    app.kill();
    fs::remove_file(app.path("app.db")).unwrap();
    for stray in strays(&app.path("app.db")) {
        if stray.starts_with("app.db-") {
            fs::remove_file(app.path(&stray)).unwrap();
        }
    }
    app.bed.start();
    let rows = rows(&app.path("app.db"));
    assert_eq!(rows.len(), usize::try_from(written).unwrap() + 3);
}

/// Whether the status says that the store has everything.
fn is_said_to_be_sent(app: &App) -> bool {
    let database = &app.status()["databases"]["config/app.db"];
    database["txid"].is_string() && database["listed"] == database["txid"] && database["lag_seconds"] == 0.0
}

#[test]
fn what_nobody_has_taken_from_a_database_is_never_said_to_be_sent() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    app.start();
    app.until_replicated("app.db");
    let before = until_all_is_sent(&app, "");
    app.until("it is said", is_said_to_be_sent);
    // Litestream runs, and takes nothing.
    let hung = litestreams(&app);
    signal(&hung, Signal::STOP);
    insert(&writer, 0, 10);
    app.until("it is not said any more", |app| !is_said_to_be_sent(app));
    let lag = |app: &App| app.status()["databases"]["config/app.db"]["lag_seconds"].as_f64();
    app.until("the lag grows", |app| lag(app) > Some(3.0));
    assert!(!is_said_to_be_sent(&app));
    signal(&hung, Signal::CONT);
    let before = until_all_is_sent(&app, &before);
    app.until("it is said again", is_said_to_be_sent);
    // None runs: the pause after the fourth time is eight seconds.
    for _ in 0..4 {
        app.until("Litestream runs", has_litestream);
        signal(&litestreams(&app), Signal::KILL);
        app.until("Litestream has ended", |app| !has_litestream(app));
    }
    insert(&writer, 10, 10);
    app.until("it is not said any more", |app| !is_said_to_be_sent(app));
    until_all_is_sent(&app, &before);
    app.until("it is said again", is_said_to_be_sent);
    // What a transaction that was taken back has left in the log is nothing to wait for.
    let rolled_back = "PRAGMA cache_size = 10; BEGIN;
        WITH RECURSIVE many(n) AS (VALUES (1000) UNION ALL SELECT n + 1 FROM many WHERE n < 1200)
        INSERT INTO t SELECT n, hex(randomblob(5000)) FROM many; ROLLBACK";
    writer.execute_batch(rolled_back).unwrap();
    // Longer than between two looks.
    std::thread::sleep(Duration::from_secs(20));
    app.until("it is said still", is_said_to_be_sent);
}

#[test]
fn what_is_not_sent_when_the_pod_stops_is_sent_then_though_litestream_rests() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    app.start();
    app.until_replicated("app.db");
    // The pause after the fourth time is eight seconds.
    for _ in 0..4 {
        app.until("Litestream runs", has_litestream);
        signal(&litestreams(&app), Signal::KILL);
        app.until("Litestream has ended", |app| !has_litestream(app));
    }
    insert(&writer, 0, 10);
    drop(writer);
    app.stop();
    assert!(app.log().contains("the last synchronisation is made"), "{}", app.log());
    app.lose_volume();
    let (said, _) = app.bed.start();
    assert!(said.contains("its newest point"), "{said}");
    assert_eq!(rows(&app.path("app.db")), (0..10).collect::<Vec<_>>());
}

#[test]
fn what_was_written_while_the_store_was_away_is_sent_when_the_pod_stops_as_soon_as_it_is_back() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, 0, 10);
    app.start();
    app.until_replicated("app.db");
    app.bed.server.stop();
    insert(&writer, 10, 10);
    app.until_said("can't be sent, and wait on the volume");
    // By now Litestream waits longer and longer between two attempts.
    std::thread::sleep(Duration::from_secs(20));
    insert(&writer, 20, 10);
    drop(writer);
    app.bed.server.resume();
    app.stop();
    app.lose_volume();
    app.bed.start();
    assert_eq!(rows(&app.path("app.db")), (0..30).collect::<Vec<_>>(), "{}", app.log());
}

#[test]
fn a_pod_that_stops_before_its_turn_to_replicate_leaves_its_databases_as_files() {
    // At once, and when backups have met the database.
    for age in [Duration::ZERO, Duration::from_secs(5)] {
        let mut app = App::on(S3::start());
        let writer = create(&app.path("app.db"), "wal");
        insert(&writer, 0, 10);
        app.start();
        app.until_replicated("app.db");
        drop(writer);
        app.kill();
        let mut next = successor(&app);
        next.start();
        next.until_said("has not let go of this place");
        insert(&create(&next.path("app.db"), "wal"), 10, 10);
        std::thread::sleep(age);
        next.stop();
        next.lose_volume();
        let said = next.start();
        assert!(
            said.contains("as the snapshot has it as a file"),
            "{said}\n{}",
            next.log()
        );
        assert_eq!(rows(&next.path("app.db")), (0..20).collect::<Vec<_>>());
        // And from there its replica goes on.
        next.until_replicated("app.db");
        let before = until_all_is_sent(&next, "");
        insert(&create(&next.path("app.db"), "wal"), 20, 10);
        until_all_is_sent(&next, &before);
        next.until("it has left the files", |_| {
            !app.bed.server.bucket().join("app/config/app.db").exists()
        });
        next.kill();
        next.lose_volume();
        let (said, _) = next.bed.start();
        assert!(said.contains("its newest point"), "{said}");
        assert_eq!(rows(&next.path("app.db")), (0..30).collect::<Vec<_>>());
    }
}

/// A `PATH` on which rclone takes three seconds longer while a file `slow` lies in this folder.
fn with_a_slow_rclone(folder: &Path) -> String {
    let path = path_with_tools().into_string().unwrap();
    rclone_after(
        folder,
        &format!("[ ! -e '{}' ] || sleep 3", folder.join("slow").display()),
    );
    format!("{}:{path}", folder.display())
}

#[test]
fn what_a_machine_is_too_slow_to_send_when_the_pod_stops_is_saved_as_files() {
    let slow = tempfile::tempdir().unwrap();
    let mut app = App::on(S3::start());
    app.bed.environment.push(("PATH", with_a_slow_rclone(slow.path())));
    app.sidecar_flags.push("--grace-period=60s".to_owned());
    let names = ["a.db", "b.db", "c.db", "d.db"];
    let writers = names.map(|name| create(&app.path(name), "wal"));
    app.start();
    for name in names {
        app.until_replicated(name);
    }
    // It answers nobody, and neither does it send.
    signal(&litestreams(&app), Signal::STOP);
    for writer in &writers {
        insert(writer, 0, 10);
    }
    drop(writers);
    write(&slow.path().join("slow"), "");
    app.stop();
    fs::remove_file(slow.path().join("slow")).unwrap();
    app.lose_volume();
    app.bed.start();
    for name in names {
        assert_eq!(
            rows(&app.path(name)),
            (0..10).collect::<Vec<_>>(),
            "{name}: {}",
            app.log()
        );
    }
}

#[test]
fn a_pod_whose_place_was_taken_sends_nothing_more() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    app.start();
    app.until_replicated("app.db");
    let owner = app.bed.owner();
    block_on(app.bed.claim(owner, 1000, "another", "app-2", "g2"));
    insert(&writer, 0, 10);
    app.until("it is fenced", |app| {
        app.log().contains("databases are not replicated by this pod any more")
            || app.log().contains("was taken over by epoch 1000")
    });
    app.until("Litestream is gone", |app| !has_litestream(app));
    let before = app.replica("app.db", "0000").len();
    insert(&writer, 10, 10);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(app.replica("app.db", "0000").len(), before);
}

/// A pod of the next revision, on a volume of its own, at the place of this one.
fn successor(app: &App) -> App {
    let mut next = App::on(S3::start());
    "app-2".clone_into(&mut next.bed.pod);
    "g2".clone_into(&mut next.bed.generation);
    next.bed
        .server
        .configure("RCLONE_CONFIG_MINIO_ENDPOINT", &app.bed.server.endpoint());
    next
}

/// Watches two pods until the second replicates; `each` is called all the while. Their Litestreams must never run at once.
fn until_handed_over(app: &App, next: &App, mut each: impl FnMut()) {
    let deadline = Instant::now() + Duration::from_secs(400);
    while !has_litestream(next) {
        assert!(Instant::now() < deadline, "{}\n{}", app.log(), next.log());
        each();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!has_litestream(app), "both replicate\n{}\n{}", app.log(), next.log());
}

/// What the second pod commits comes back, and nothing of what the first one wrote on.
fn goes_on_alone(mut next: App, seen: usize) {
    next.until_replicated("app.db");
    insert(&create(&next.path("app.db"), "wal"), 5000, 10);
    next.until_replicated("app.db");
    next.kill();
    next.lose_volume();
    next.bed.start();
    let rows = rows(&next.path("app.db"));
    assert_eq!(rows[rows.len() - 10..], (5000..5010).collect::<Vec<_>>());
    assert_eq!(rows.len(), seen + 10);
}

#[test]
fn a_live_writer_has_let_go_before_whoever_takes_over_begins() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, 0, 10);
    app.start();
    app.until_replicated("app.db");
    let mut next = successor(&app);
    next.start();
    let seen = rows(&next.path("app.db")).len();
    assert_eq!(seen, 10);
    let mut n = 100;
    until_handed_over(&app, &next, || {
        insert(&writer, n, 1);
        n += 1;
    });
    assert!(next.log().contains("has not let go of this place"), "{}", next.log());
    drop(writer);
    goes_on_alone(next, seen);
}

#[test]
fn a_pod_that_stood_still_meanwhile_sends_nothing_when_it_goes_on() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, 0, 10);
    app.start();
    app.until_replicated("app.db");
    let mut all = descendants(app.pid());
    all.insert(0, app.pid());
    signal(&all, Signal::STOP);
    let mut next = successor(&app);
    next.start();
    insert(&writer, 100, 10);
    next.until_within("it begins", Duration::from_secs(400), has_litestream);
    next.until_replicated("app.db");
    let before = app.replica("app.db", "0000");
    signal(&[app.pid()], Signal::CONT);
    app.until_said("whose the place is, as when a pod stands still");
    app.until("its Litestream is gone", |app| !has_litestream(app));
    app.until_said("was taken over by epoch");
    assert_eq!(app.replica("app.db", "0000"), before);
    goes_on_alone(next, 10);
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids {
        let pid = Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        let _ = kill_process(pid, signal);
    }
}

#[test]
fn a_secret_that_changes_is_used_without_a_restart_of_the_pod() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    app.start();
    app.until_replicated("app.db");
    let config = app.bed.restore_dir().join("litestream/standard.yml");
    app.bed.server.configure("RCLONE_CONFIG_MINIO_REGION", "eu-north-7");
    app.until_said("the store's settings have changed");
    app.until("it runs with them", |_| {
        fs::read_to_string(&config).is_ok_and(|text| text.contains("eu-north-7"))
    });
    insert(&writer, 0, 5);
    std::thread::sleep(Duration::from_secs(4));
    drop(writer);
    app.kill();
    app.lose_volume();
    app.bed.start();
    assert_eq!(rows(&app.path("app.db")).len(), 5);
}

#[test]
fn the_replica_of_a_database_that_is_gone_goes_with_the_last_snapshot_that_names_it() {
    let mut app = App::on(S3::start());
    for name in ["app.db", "old.db"] {
        insert(&create(&app.path(name), "wal"), 0, 10);
    }
    app.sidecar_flags = vec!["--interval=10s".to_owned(), "--retention=last=1".to_owned()];
    app.start();
    app.until_replicated("app.db");
    app.until_replicated("old.db");
    app.stop();
    // The app took it away yesterday.
    fs::remove_file(app.path("old.db")).unwrap();
    for stray in strays(&app.path("old.db")) {
        let stray = app.path(&stray);
        fs::remove_dir_all(&stray).or_else(|_| fs::remove_file(&stray)).unwrap();
    }
    let store = app.bed.store();
    block_on(async {
        let mut registry = Registry::read(&store).await.unwrap();
        let old = registry.get("config", "old.db").unwrap().clone();
        let gone = Some(Timestamp::now() - SignedDuration::from_hours(24));
        registry.put(Registered { gone, ..old });
        registry.write(&store).await.unwrap();
    });
    app.start();
    app.until("it is known which snapshots may name it", |_| {
        let registry = block_on(Registry::read(&store)).unwrap();
        let old = registry.get("config", "old.db").unwrap();
        old.needed_by.is_some()
    });
    assert!(!app.replica("old.db", "0009").is_empty());
    // The complete index before the newest is kept, and may name it: it takes two more.
    for round in 0..2 {
        write(&app.path("file"), format!("another snapshot: {round}"));
        app.until("it is saved", |app| {
            let kept = fs::read(app.bed.server.bucket().join("app/config/file"));
            kept.is_ok_and(|kept| kept.ends_with(round.to_string().as_bytes()))
        });
        app.stop();
        assert!(!app.replica("old.db", "0009").is_empty());
        app.start();
    }
    app.until_said("the replica of config/old.db is removed");
    app.until("it is not known any more", |_| {
        let registry = block_on(Registry::read(&store)).unwrap();
        registry.get("config", "old.db").is_none()
    });
    for level in ["0000", "0001", "0009"] {
        assert!(app.replica("old.db", level).is_empty());
    }
    app.stop();
    app.lose_volume();
    app.bed.start();
    assert!(!app.path("old.db").exists());
    assert_eq!(rows(&app.path("app.db")).len(), 10);
}

#[test]
fn a_second_destination_has_databases_as_files() {
    let mut app = App::on(S3::start());
    let server = &app.bed.server;
    for key in ["TYPE", "PROVIDER", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT"] {
        let value = fs::read_to_string(server.rclone_dir().join(format!("RCLONE_CONFIG_MINIO_{key}"))).unwrap();
        server.configure(&format!("RCLONE_CONFIG_OTHER_{key}"), &value);
    }
    app.bed.flags.push("--destination=other:backups/second".to_owned());
    app.sidecar_flags.push("--destination=other:backups/second".to_owned());
    insert(&create(&app.path("app.db"), "wal"), 0, 10);
    app.start();
    app.until_replicated("app.db");
    let bucket = app.bed.server.bucket();
    app.until("it is a file there", |_| bucket.join("second/config/app.db").exists());
    assert!(!bucket.join("app/config/app.db").exists());
    assert!(!bucket.join("second/database").exists());
}

#[test]
fn a_folder_of_the_machine_can_be_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3::start();
    server.configure("RCLONE_CONFIG_MINIO_TYPE", "alias");
    server.configure("RCLONE_CONFIG_MINIO_REMOTE", &folder.path().display().to_string());
    let mut app = App::on(server);
    insert(&create(&app.path("app.db"), "wal"), 0, 10);
    app.start();
    app.until_replicated("app.db");
    app.stop();
    assert!(folder.path().join("backups/app/database/config/app.db/ltx/0").is_dir());
    app.lose_volume();
    app.bed.start();
    assert_eq!(rows(&app.path("app.db")).len(), 10);
}
