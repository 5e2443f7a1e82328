//! `agent backup`, as the CronJob runs it: it asks the sidecar, leaves a request, says what there is where no pod runs,
//! or does the work itself; and its exit code is the result.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use std::slice::from_ref;
use support::S3;
use support::bed::Bed;
use support::pod::{Place, Pod, agent_backup as backup, free_address, tree, until_place};
use vixens_backup::agent::start::Writing;
use vixens_backup::contract::question::Question;
use vixens_backup::store::keys;
use vixens_backup::store::records::{Served, decode};
use vixens_backup::store::snapshot::Kind;
use vixens_backup::store::state::{Mode, State};

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn it_asks_the_sidecar_and_its_log_ends_with_the_snapshots_id() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    let scratch = tempfile::tempdir().unwrap();
    let output = backup(
        &server,
        scratch.path(),
        &[format!("--ask={}", pod.address()), "--manual".to_owned()],
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let newest = Place::read(&server).newest().to_string();
    assert!(
        text(&output.stdout).ends_with(&format!("\n{newest}\n")),
        "{}",
        text(&output.stdout)
    );
    assert!(newest.ends_with("-manual"));
}

#[test]
fn a_port_that_was_taken_at_the_start_is_listened_on_once_it_is_free() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    let taken = std::net::TcpListener::bind(pod.address()).unwrap();
    pod.start();
    pod.until_said("can't be listened on", 1);
    drop(taken);
    pod.until_said("metrics and requests are on port", 1);
    let scratch = tempfile::tempdir().unwrap();
    let output = backup(&server, scratch.path(), &[format!("--ask={}", pod.address())]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_backup_that_places_a_hold_ends_with_exit_code_3_and_later_ones_do_not() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    for name in ["a", "b", "c"] {
        pod.write(name, format!("content of {name}"));
    }
    pod.init(&server);
    pod.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    for name in ["a", "b", "c"] {
        std::fs::remove_file(pod.path(name)).unwrap();
    }
    let scratch = tempfile::tempdir().unwrap();
    let output = backup(&server, scratch.path(), &[format!("--ask={}", pod.address())]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(
        said.contains("what is new is saved as the snapshot") && said.contains("vixens.io/backup-accept: hold-"),
        "{said}"
    );
    // It stands, and is said again; the backup is a backup.
    let output = backup(&server, scratch.path(), &[format!("--ask={}", pod.address())]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("asks hold-"), "{}", text(&output.stdout));
}

#[test]
fn in_the_pod_itself_what_is_held_is_accepted_by_its_id() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    for name in ["a", "b", "c"] {
        pod.write(name, format!("content of {name}"));
    }
    pod.init(&server);
    pod.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    for name in ["a", "b"] {
        std::fs::remove_file(pod.path(name)).unwrap();
    }
    let in_pod = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vixens-backup"));
        command
            .arg("backup")
            .args(arguments)
            .arg("--restore-dir")
            .arg(pod.scratch.path());
        command
            .arg("--rclone-dir")
            .arg(server.rclone_dir())
            .env("PATH", support::path_with_tools());
        command.output().unwrap()
    };
    let refused = in_pod(&[]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused.stderr));
    let said = text(&refused.stderr);
    let id = said.split("vixens.io/backup-accept: ").nth(1).unwrap();
    let id = id
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .next()
        .unwrap();
    let accepted = in_pod(&["--accept", id]);
    assert_eq!(accepted.status.code(), Some(0), "{}", text(&accepted.stderr));
    let place = support::pod::Place::read(&server);
    assert_eq!(place.files(&place.newest()).len(), 1);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vixens-backup"));
    let lost = command
        .args(["backup", "--restore-dir"])
        .arg(elsewhere.path())
        .output()
        .unwrap();
    assert!(
        text(&lost.stderr).contains("there is no sidecar here"),
        "{}",
        text(&lost.stderr)
    );
}

#[test]
fn in_the_pod_itself_snapshots_are_listed_and_restored_though_it_has_no_room_of_its_own() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "content");
    pod.init(&server);
    pod.start();
    let place = until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    let in_pod = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vixens-backup"));
        command
            .args(arguments)
            .arg("--restore-dir")
            .arg(pod.scratch.path())
            .arg("--rclone-config")
            .arg(server.rclone_dir())
            .env("PATH", support::path_with_tools())
            .env_remove("VIXENS_BACKUP_DESTINATION")
            // Nobody can make a file here: a container's own file system is read-only.
            .env("TMPDIR", "/proc")
            .env("HOME", "/proc");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let newest = place.newest().to_string();
    assert!(in_pod(&["snapshots"]).contains(&newest));
    let to = pod.scratch.path().join("back");
    in_pod(&["restore", "--to", to.to_str().unwrap(), "config/a"]);
    assert_eq!(std::fs::read(to.join("config/a")).unwrap(), b"content");
    let left: Vec<String> = std::fs::read_dir(pod.scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("vixens-backup-"))
        .collect();
    assert_eq!(left, [""; 0], "what was made there is gone");
}

#[test]
fn without_a_pod_it_says_what_the_last_backup_was() {
    let server = S3::start();
    let scratch = tempfile::tempdir().unwrap();
    let ask = [format!("--ask={}", free_address())];
    let output = backup(&server, scratch.path(), &ask);
    assert_eq!(output.status.code(), Some(1), "there never was a backup");
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    assert!(pod.stop().success());
    let output = backup(&server, scratch.path(), &ask);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let newest = Place::read(&server).newest();
    assert!(
        text(&output.stdout).ends_with(&format!("\n{newest}\n")),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn without_a_sidecar_it_does_the_work_under_the_markers_claim() {
    let server = S3::start();
    let pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.write("sub/b", "two");
    let volume = format!("--volume=data:config:{}", pod.volume.path().display());
    let output = backup(&server, pod.scratch.path(), from_ref(&volume));
    assert_eq!(
        output.status.code(),
        Some(3),
        "not initialised: {}",
        text(&output.stderr)
    );
    pod.init(&server);
    let output = backup(&server, pod.scratch.path(), from_ref(&volume));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let place = Place::read(&server);
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
    assert!(place.pending.is_empty());
    // Nothing beats between two runs: the place is let go, and says how it is written.
    let state: State = decode(&place.content(keys::STATE).unwrap()).unwrap();
    assert!(
        state.released && !state.owed && state.last == Some(place.newest()),
        "{state:?}"
    );
    assert_eq!(state.mode, Some(Mode::Cronjob));
    // One at a time: a second run waits for the first.
    let other = std::fs::File::open(pod.path(".vixens-backup/volume.json")).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let output = backup(
        &server,
        pod.scratch.path(),
        &[volume.clone(), "--timeout=1s".to_owned()],
    );
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("is under way: waiting for it"));
    assert!(text(&output.stderr).contains("did not end within 1s"));
    pod.write("sub/b", "two and a half");
    pod.write("sub/c", "three");
    let output = std::thread::scope(|scope| {
        let second = scope.spawn(|| backup(&server, pod.scratch.path(), from_ref(&volume)));
        // However early it is let go, the second run ends well.
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(other);
        second.join().unwrap()
    });
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(Place::read(&server).content("config/sub/b").unwrap(), b"two and a half");
    // Most of it vanishes: the run that holds it is seen to, and those after it say so.
    for name in ["sub/b", "sub/c"] {
        std::fs::remove_file(pod.path(name)).unwrap();
    }
    let output = backup(&server, pod.scratch.path(), from_ref(&volume));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(
        said.contains("what is new is saved; but vixens-backup asks hold-"),
        "{said}"
    );
    let output = backup(&server, pod.scratch.path(), from_ref(&volume));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let question = Question::find(&said).expect("the question");
    assert!(said.lines().last().unwrap().contains("-scheduled"), "{said}");
    assert_eq!(Place::read(&server).content("config/sub/b").unwrap(), b"two and a half");
    let accept = format!("--accept={}", question.id);
    let output = backup(&server, pod.scratch.path(), &[volume.clone(), accept]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let place = Place::read(&server);
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
    // A newer claim: this volume's turn is over.
    Pod::new(&server, "bb").init(&server);
    pod.write("a", "too late");
    let output = backup(&server, pod.scratch.path(), from_ref(&volume));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert_eq!(Place::read(&server).content("config/a").unwrap(), b"one");
}

#[test]
fn without_a_sidecar_a_destination_that_was_away_at_the_start_is_claimed_by_a_run_and_what_it_has_newer_is_pinned_first()
 {
    let mut second = S3::start();
    let bed = Bed::new();
    for key in ["TYPE", "PROVIDER", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT"] {
        let value = std::fs::read_to_string(second.rclone_dir().join(format!("RCLONE_CONFIG_MINIO_{key}"))).unwrap();
        bed.server.configure(&format!("RCLONE_CONFIG_SECOND_{key}"), &value);
    }
    let flag = "--destination=second:backups/app";
    let bed = bed.with(flag);
    let volume = format!("--volume=data:config:{}", bed.volume().display());
    let scratch = tempfile::tempdir().unwrap();
    let run = |code: i32| {
        let output = backup(&bed.server, scratch.path(), &[volume.clone(), flag.to_owned()]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    };
    let file = bed.volume().join("a");
    std::fs::write(&file, "one").unwrap();
    bed.start();
    run(0);
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
        assert!(status.unwrap().success());
    };
    let older = tempfile::tempdir().unwrap();
    copy(&bed.volume(), &older.path().join("volume"));
    bed.start();
    std::fs::write(&file, "newer").unwrap();
    run(0);
    let newer = Place::read(&second).newest();
    // The storage is put back, and the second destination is away when the app starts.
    std::fs::remove_dir_all(bed.volume()).unwrap();
    copy(&older.path().join("volume"), &bed.volume());
    second.stop();
    let (_, start) = bed.start();
    assert_eq!(start.destinations[1].writing, Writing::Unclaimed);
    let said = run(1);
    assert!(said.contains("second:backups/app"), "{said}");
    assert_eq!(Place::read(&bed.server).content("config/a").unwrap(), b"one");
    second.resume();
    assert_eq!(Place::read(&second).content("config/a").unwrap(), b"newer");
    run(0);
    let place = Place::read(&second);
    assert_eq!(place.content("config/a").unwrap(), b"one");
    let pin = format!("pins/reverted-{newer}.json");
    assert!(place.keys.contains(&pin), "{:?}", place.keys);
    assert_eq!(place.files(&newer)["a"], b"newer");
    // The next one goes on under the same claim.
    std::fs::write(&file, "two").unwrap();
    run(0);
    let after = Place::read(&second);
    assert_eq!(after.content("config/a").unwrap(), b"two");
    let claims = |place: &Place| place.keys.iter().filter(|key| key.starts_with("claims/")).count();
    assert_eq!(claims(&after), claims(&place));
    assert_eq!(after.newest().epoch, start.epoch);
}

#[test]
fn without_a_sidecar_what_vanishes_is_held_by_the_run_that_meets_it_and_by_each_after_it() {
    let server = S3::start();
    let pod = Pod::new(&server, "aa");
    for name in ["a", "b", "c", "d/e"] {
        pod.write(name, format!("content of {name}"));
    }
    pod.init(&server);
    let volume = format!("--volume=data:config:{}", pod.volume.path().display());
    let run = |code: i32, flags: &[&str]| {
        let mut arguments = vec![volume.clone()];
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let output = backup(&server, pod.scratch.path(), &arguments);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    };
    run(0, &[]);
    std::fs::remove_dir_all(pod.path("d")).unwrap();
    for name in ["a", "b"] {
        std::fs::remove_file(pod.path(name)).unwrap();
    }
    pod.write("new", "new");
    let said = run(3, &[]);
    let id = said
        .split("vixens.io/backup-accept: ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    assert!(id.starts_with("hold-"), "{said}");
    let place = Place::read(&server);
    assert_eq!(place.files(&place.newest()).len(), 5);
    let state: State = decode(&place.content(keys::STATE).unwrap()).unwrap();
    assert!(state.released && !state.owed, "{state:?}");
    let said = run(0, &[]);
    assert!(said.contains(&format!("asks {id}")), "it stands: {said}");
    let show = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vixens-backup"));
        command.arg("snapshots").args(arguments).arg("-d=minio:backups/app");
        command.arg("--rclone-config").arg(server.rclone_dir());
        let output = command.env("PATH", support::path_with_tools()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(show(&[]).contains("  3 held"), "{}", show(&[]));
    let shown = show(&["show"]);
    assert!(
        shown.contains("held       3 files") && shown.contains("config/d/  (held)"),
        "{shown}"
    );
    run(0, &[&format!("--accept={id}")]);
    let place = Place::read(&server);
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
    // An answer that is left where it stands decides nothing twice.
    let said = run(0, &[&format!("--accept={id}")]);
    assert!(said.contains("counts once"), "{said}");
}

#[test]
fn without_a_sidecar_a_restore_at_value_is_recorded_with_the_first_backup_of_its_result() {
    let server = S3::start();
    let pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    let snapshot = "20261122T130500Z-1.1-auto";
    let marker = pod.path(".vixens-backup/volume.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
    json["serving"] = serde_json::json!({"value": "2026-11-22T13:30:00Z", "snapshot": snapshot});
    std::fs::write(&marker, json.to_string()).unwrap();
    let volume = format!("--volume=data:config:{}", pod.volume.path().display());
    let run = || {
        let output = backup(&server, pod.scratch.path(), from_ref(&volume));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        Place::read(&server)
    };
    let place = run();
    assert_eq!(place.newest().kind, Kind::Restored);
    let key = keys::served("2026-11-22T13:30:00Z");
    let record: Served = decode(&place.content(&key).unwrap()).unwrap();
    assert_eq!(record.snapshot.to_string(), snapshot);
    // Once: the marker says so until the next start, and means nothing any more.
    pod.write("a", "two");
    assert_eq!(run().newest().kind, Kind::Scheduled);
}
