//! Tier 3, databases that change their way of being saved, or whose destinations come and go: of what is kept of them, the
//! newest comes back, wherever it is.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use support::S3;
use support::app::{App, create, insert, rows, strays};

/// An app with a hundred rows at tier 3, all of them sent, that has stopped.
fn stopped() -> App {
    let mut app = App::on(S3::start());
    hundred(&mut app);
    app
}

/// The first hundred rows: sent, and the pod stopped.
fn hundred(app: &mut App) {
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, 0, 100);
    app.start();
    app.until_replicated("app.db");
    drop(writer);
    app.stop();
}

/// Adds rows, in the middle of a life.
fn add(app: &App, from: i64, count: i64) {
    app.until("the sidecar is there", |app| !app.status().is_null());
    insert(&create(&app.path("app.db"), "wal"), from, count);
}

fn all(app: &App) -> Vec<i64> {
    rows(&app.path("app.db"))
}

fn up_to(count: i64) -> Vec<i64> {
    (0..count).collect()
}

/// What lies beside the database, but for what SQLite and Litestream need.
fn asides(app: &App) -> Vec<String> {
    let mut found = strays(&app.path("app.db"));
    found.retain(|name| name.contains(".damaged-"));
    found
}

/// A file of the mirror.
fn is_in_mirror(server: &S3, name: &str) -> bool {
    server.bucket().join("app/config").join(name).exists()
}

#[test]
fn what_was_saved_at_tier_2_is_newer_than_the_replica_of_tier_3_before_it() {
    let mut app = stopped();
    app.lose_volume();
    app.bed.tier = "tier2";
    app.start();
    assert_eq!(all(&app), up_to(100));
    add(&app, 100, 900);
    app.stop();
    app.lose_volume();
    app.bed.tier = "tier3";
    let said = app.start();
    assert!(said.contains("newer than its replica"), "{said}");
    assert_eq!(all(&app), up_to(1000), "{said}");
    assert_eq!(asides(&app), Vec::<String>::new());
    // From there it is replicated as a whole, and then the replica is the newest.
    app.until_replicated("app.db");
    app.until("it has left the files", |app| !is_in_mirror(&app.bed.server, "app.db"));
    add(&app, 1000, 5);
    app.until_replicated("app.db");
    app.kill();
    app.lose_volume();
    let (said, _) = app.bed.start();
    assert!(said.contains("its newest point"), "{said}");
    assert_eq!(all(&app), up_to(1005));
}

#[test]
fn tier_3_that_comes_back_to_a_volume_begins_with_the_whole_database() {
    let mut app = stopped();
    app.bed.tier = "tier2";
    app.start();
    add(&app, 100, 900);
    app.stop();
    app.bed.tier = "tier3";
    app.start();
    app.until_replicated("app.db");
    app.until("it has left the files", |app| !is_in_mirror(&app.bed.server, "app.db"));
    app.kill();
    app.lose_volume();
    let (said, _) = app.bed.start();
    assert!(said.contains("its newest point"), "{said}");
    assert_eq!(all(&app), up_to(1000));
}

#[test]
fn a_damaged_database_is_restored_from_the_file_of_tier_2_where_that_is_newer_than_the_replica() {
    let mut app = stopped();
    app.bed.tier = "tier2";
    app.start();
    add(&app, 100, 900);
    app.stop();
    damage(&app.path("app.db"));
    app.bed.tier = "tier3";
    let said = app.start();
    assert!(said.contains("has it as a file in"), "{said}");
    assert_eq!(all(&app), up_to(1000), "{said}");
    assert_eq!(asides(&app).len(), 1, "{:?}", asides(&app));
}

/// Spoils a page in the middle.
fn damage(database: &Path) {
    let file = fs::File::options().write(true).open(database).unwrap();
    file.write_all_at(&[0xa5; 4096], 4096).unwrap();
}

#[test]
fn a_database_that_the_policy_leaves_out_is_a_file_from_then_on() {
    for flag in [
        "--databases=other.db",
        "--databases=app.db=ephemeral",
        "--databases=none",
    ] {
        let mut app = stopped();
        app.bed.flags.push(flag.to_owned());
        app.sidecar_flags.push(flag.to_owned());
        app.start();
        add(&app, 100, 900);
        app.until("it is a file", |app| is_in_mirror(&app.bed.server, "app.db"));
        app.stop();
        app.lose_volume();
        let said = app.start();
        assert_eq!(all(&app), up_to(1000), "{flag}: {said}");
        assert_eq!(asides(&app), Vec::<String>::new());
        app.until("the sidecar is there", |app| !app.status().is_null());
        app.stop();
        // And back: with the file as it is, and then as it was written on.
        app.bed.flags.pop();
        app.sidecar_flags.pop();
        app.lose_volume();
        let said = app.start();
        assert_eq!(all(&app), up_to(1000), "{flag}: {said}");
        app.until_replicated("app.db");
        add(&app, 1000, 1);
        app.until_replicated("app.db");
        app.kill();
        app.lose_volume();
        app.bed.start();
        assert_eq!(all(&app), up_to(1001), "{flag}");
    }
}

#[test]
fn a_primary_that_was_away_and_comes_back_old_gives_way_to_the_second_destination() {
    let (mut app, second) = (App::on(S3::start()), S3::start());
    app.also(&second);
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, 0, 100);
    support::write(&app.path("f"), "1");
    app.start();
    app.until_replicated("app.db");
    app.until("both have the file", |app| {
        [&app.bed.server, &second]
            .iter()
            .all(|server| is_in_mirror(server, "f"))
    });
    app.bed.server.stop();
    insert(&writer, 100, 900);
    support::write(&app.path("f"), "2");
    drop(writer);
    app.stop();
    assert_eq!(
        fs::read_to_string(second.bucket().join("app/config/f")).unwrap(),
        "2",
        "{}",
        app.log()
    );
    app.bed.server.resume();
    app.lose_volume();
    let said = app.start();
    assert_eq!(all(&app), up_to(1000), "{said}\n{}", app.log());
    assert_eq!(fs::read_to_string(app.path("f")).unwrap(), "2");
    // The primary's replica follows from there.
    app.until_replicated("app.db");
    add(&app, 1000, 5);
    app.until_replicated("app.db");
    app.kill();
    app.lose_volume();
    let (said, _) = app.bed.start();
    assert!(said.contains("its newest point"), "{said}");
    assert_eq!(all(&app), up_to(1005), "{said}");
}

#[test]
fn an_app_starts_from_its_second_destination_while_the_primary_is_gone_and_loses_nothing_when_that_is_back() {
    let (mut app, second) = (App::on(S3::start()), S3::start());
    app.also(&second);
    hundred(&mut app);
    app.bed.server.stop();
    app.lose_volume();
    let said = app.start();
    assert_eq!(all(&app), up_to(100), "{said}");
    add(&app, 100, 100);
    app.until("the second destination has a file of now", |_| {
        let file = second.bucket().join("app/config/app.db");
        let copy = tempfile::NamedTempFile::new().unwrap();
        fs::copy(file, copy.path()).is_ok() && rows(copy.path()).len() == 200
    });
    app.until("and a snapshot of it", |_| {
        let snapshots = fs::read_dir(second.bucket().join("app/snapshots")).unwrap();
        let mut names = snapshots.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.any(|name| name.contains("Z-2.") && name.rsplit_once('.').is_some_and(|(_, kind)| kind == "json"))
    });
    app.kill();
    // It comes back with what it had.
    app.bed.server.resume();
    app.lose_volume();
    let said = app.start();
    assert_eq!(all(&app), up_to(200), "{said}");
    app.until_replicated("app.db");
    // And is then lost with everything, while the pod runs on another day.
    app.stop();
    fs::remove_dir_all(app.bed.server.bucket().join("app")).unwrap();
    app.bed.server.stop();
    app.bed.server.resume();
    app.lose_volume();
    let said = app.start();
    assert_eq!(all(&app), up_to(200), "{said}");
    app.until_replicated("app.db");
    assert!(!app.replica("app.db", "0000").is_empty());
}

#[test]
fn a_database_that_a_new_primary_has_no_copy_of_yet_comes_from_the_second_destination() {
    let (mut app, second) = (App::on(S3::start()), S3::start());
    app.also(&second);
    hundred(&mut app);
    fs::remove_dir_all(app.bed.server.bucket().join("app")).unwrap();
    app.bed.server.stop();
    app.bed.server.resume();
    app.lose_volume();
    app.start();
    // Its files are at the new primary, and of the database nothing is.
    support::write(&app.path("f"), "1");
    app.until("both have the file", |app| {
        [&app.bed.server, &second]
            .iter()
            .all(|server| is_in_mirror(server, "f"))
    });
    app.kill();
    let _ = fs::remove_dir_all(app.bed.server.bucket().join("app/database/config"));
    app.bed.server.stop();
    app.bed.server.resume();
    app.lose_volume();
    let (said, _) = app.bed.start();
    assert_eq!(all(&app), up_to(100), "{said}\n{}", app.log());
}

#[test]
fn two_pods_that_live_for_seconds_only_lose_nothing() {
    let mut app = stopped();
    app.start();
    app.kill();
    // The next one stops before it has opened the place, and the one after it once everything is sent.
    let mut next = successor(&app, "app-2", "g2");
    next.lose_volume();
    let said = next.bed.start().0;
    assert_eq!(all(&next), up_to(100), "{said}");
    insert(&create(&next.path("app.db"), "wal"), 100, 100);
    next.start_sidecar();
    next.until("it listens", |app| !app.status().is_null());
    next.stop();
    let mut last = successor(&app, "app-3", "g3");
    last.lose_volume();
    last.bed.start();
    assert_eq!(all(&last), up_to(200), "{}", next.log());
    insert(&create(&last.path("app.db"), "wal"), 200, 300);
    last.start_sidecar();
    last.until_replicated("app.db");
    add(&last, 500, 200);
    last.stop();
    last.lose_volume();
    let said = last.bed.start().0;
    assert_eq!(all(&last), up_to(700), "{said}\n{}", last.log());
}

#[test]
fn a_container_that_is_started_again_and_stopped_before_it_follows_anything_loses_nothing() {
    let mut app = stopped();
    app.start();
    app.until_replicated("app.db");
    // Sent by the first process under its own count.
    add(&app, 100, 100);
    app.until_replicated("app.db");
    app.kill();
    insert(&create(&app.path("app.db"), "wal"), 200, 100);
    app.start_sidecar();
    app.until("it listens", |app| !app.status().is_null());
    app.stop();
    app.lose_volume();
    let said = app.bed.start().0;
    assert_eq!(all(&app), up_to(300), "{said}\n{}", app.log());
}

#[test]
fn a_file_that_is_restored_around_what_somebody_laid_there_gives_way_to_a_newer_replica() {
    let files = ["a", "b", "c", "d", "e"];
    let mut app = App::on(S3::start());
    let lay = |app: &App| {
        for name in files {
            support::write(&app.path(name), name);
        }
    };
    lay(&app);
    insert(&create(&app.path("app.db"), "wal"), 0, 100);
    app.bed.tier = "tier2";
    app.start();
    app.until("it is a file", |app| is_in_mirror(&app.bed.server, "app.db"));
    app.until("the sidecar is there", |app| !app.status().is_null());
    app.stop();
    app.bed.tier = "tier3";
    app.start();
    app.until_replicated("app.db");
    add(&app, 100, 100);
    app.until("it has left the files", |app| !is_in_mirror(&app.bed.server, "app.db"));
    app.until_replicated("app.db");
    app.kill();
    // As if it had died before any snapshot of tier 3 was made.
    let snapshots = app.bed.server.bucket().join("app/snapshots");
    for entry in fs::read_dir(&snapshots).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().contains("Z-2.") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    app.bed.server.stop();
    app.bed.server.resume();
    app.lose_volume();
    lay(&app);
    let (said, _) = app.bed.start();
    assert!(said.contains("restored config: 1 files"), "{said}");
    assert_eq!(all(&app), up_to(200), "{said}");
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_replica_that_loses_what_it_had_under_a_pod_that_runs_is_sent_anew() {
    // As it was a moment ago, and without any.
    for comes_back_old in [true, false] {
        let mut app = App::on(S3::start());
        let writer = create(&app.path("app.db"), "wal");
        insert(&writer, 0, 100);
        app.start();
        app.until_replicated("app.db");
        let replicas = app.bed.server.bucket().join("app/database/config");
        let before = tempfile::tempdir().unwrap();
        copy(&replicas, before.path());
        insert(&writer, 100, 100);
        app.until_replicated("app.db");
        app.bed.server.stop();
        fs::remove_dir_all(&replicas).unwrap();
        if comes_back_old {
            copy(before.path(), &replicas);
        }
        app.bed.server.resume();
        insert(&writer, 200, 100);
        app.until_said("the database is sent as a whole again");
        app.until_replicated("app.db");
        insert(&writer, 300, 1);
        app.until_replicated("app.db");
        drop(writer);
        app.kill();
        app.lose_volume();
        let (said, _) = app.bed.start();
        assert_eq!(all(&app), up_to(301), "{said}\n{}", app.log());
    }
}

#[test]
fn a_replica_that_was_broken_when_a_pod_starts_is_mended_by_it() {
    let mut app = stopped();
    app.start();
    for round in 0..3 {
        add(&app, 100 + round, 1);
        app.until_replicated("app.db");
    }
    app.stop();
    // One of the last is lost, and what follows it is of no use.
    let files = app.replica("app.db", "0000");
    fs::remove_file(&files[files.len() - 2]).unwrap();
    for file in app.replica("app.db", "0001") {
        fs::remove_file(file).unwrap();
    }
    app.bed.server.stop();
    app.bed.server.resume();
    app.start();
    app.until_said("the database is sent as a whole again");
    app.until_replicated("app.db");
    app.kill();
    app.lose_volume();
    let (said, _) = app.bed.start();
    assert_eq!(all(&app), up_to(103), "{said}\n{}", app.log());
}

/// The next pod, on the same store.
fn successor(app: &App, pod: &str, generation: &str) -> App {
    let mut next = App::on(S3::start());
    pod.clone_into(&mut next.bed.pod);
    generation.clone_into(&mut next.bed.generation);
    next.bed
        .server
        .configure("RCLONE_CONFIG_MINIO_ENDPOINT", &app.bed.server.endpoint());
    next
}
