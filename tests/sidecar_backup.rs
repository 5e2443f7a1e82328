//! The sidecar on real rclone and a real S3 server: what is written is saved, what is replaced is kept, and what must
//! not be saved is not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use support::S3;
use support::pod::{PLACE, Place, Pod, token, tree, until_place};
use vixens_backup::store::state::State;

#[test]
fn a_written_file_appears_in_the_bucket_and_in_a_snapshot() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("before", "there at the start");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| {
        place.content("config/before").is_some() && place.pending.is_empty()
    });
    pod.write("sub/.hidden/after", "written while we watch");
    let place = until_place(&server, |place| place.snapshots.len() == 2 && place.pending.is_empty());
    assert_eq!(
        place.content("config/sub/.hidden/after").unwrap(),
        b"written while we watch"
    );
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
    // The summary comes last: after the pending mark is gone.
    let newest = place.newest().to_string();
    until_place(&server, |place| {
        let state = place.content("state.json").unwrap_or_default();
        serde_json::from_slice::<serde_json::Value>(&state).is_ok_and(|state| state["last"] == newest)
    });
    assert!(PLACE == "app" && place.keys.iter().all(|key| !key.contains(".vixens-backup")));
}

#[test]
fn what_is_replaced_or_deleted_is_kept_and_every_snapshot_can_be_restored() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    for file in ["a", "b", "c"] {
        pod.write(file, format!("{file} one"));
    }
    pod.init(&server);
    pod.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    let first = tree(pod.volume.path());
    pod.write("a", "a two");
    std::fs::remove_file(pod.path("b")).unwrap();
    let place = until_place(&server, |place| place.snapshots.len() == 2 && place.pending.is_empty());
    assert_eq!(place.content("config/a").unwrap(), b"a two");
    assert_eq!(place.content("config/b"), None, "the mirror is what the volume is");
    assert_eq!(place.files(&place.snapshots[0]), first);
    assert_eq!(place.files(&place.snapshots[1]), tree(pod.volume.path()));
}

#[test]
fn what_an_emptied_volume_had_is_held_and_what_is_new_is_saved() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    for file in ["a", "b", "c"] {
        pod.write(file, format!("content of {file}"));
    }
    pod.init(&server);
    pod.start();
    let before = until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    for file in ["a", "b", "c"] {
        std::fs::remove_file(pod.path(file)).unwrap();
    }
    pod.until_said("vixens-backup asks hold-", 1);
    pod.write("new", "written afterwards");
    assert!(pod.stop().success());
    let after = Place::read(&server);
    let files = after.files(&after.newest());
    assert_eq!(files.len(), 4, "{files:?}");
    assert_eq!(files["new"], b"written afterwards");
    assert_eq!(after.files(&before.newest()), before.files(&before.newest()));
    let state: State = serde_json::from_slice(&after.content("state.json").unwrap()).unwrap();
    assert!(state.released && !state.owed, "nothing is owed: {state:?}");
    // The next life of the container, which has been told nothing, holds them still.
    pod.start();
    let status = pod.until_status(|status| status["destinations"]["minio:backups/app"]["phase"] == "ready");
    let destination = &status["destinations"]["minio:backups/app"];
    assert_eq!(destination["held"]["files"], 3, "{status:#}");
    let id = destination["questions"][0]["id"].as_str().unwrap();
    assert!(id.starts_with("hold-"), "{status:#}");
    let metrics = pod.http("GET /metrics", "", "");
    assert!(
        metrics.contains(r#"vixens_backup_held_files{destination="minio:backups/app"} 3"#),
        "{metrics}"
    );
    pod.until_said(&format!("asks {id}"), 1);
}

#[test]
fn the_one_large_file_of_a_small_volume_may_be_deleted_or_emptied_and_is_in_history() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    for (file, size) in [("a", 10), ("b", 10), ("large", 100_000), ("larger", 200_000)] {
        pod.write(file, vec![b'x'; size]);
    }
    pod.init(&server);
    pod.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    std::fs::remove_file(pod.path("larger")).unwrap();
    let place = until_place(&server, |place| place.snapshots.len() == 2 && place.pending.is_empty());
    assert_eq!(place.files(&place.snapshots[0]).len(), 4, "it can be taken back");
    pod.write("large", "");
    let place = until_place(&server, |place| place.snapshots.len() == 3 && place.pending.is_empty());
    assert_eq!(place.files(&place.snapshots[1])["large"].len(), 100_000);
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
}

#[test]
fn the_last_backup_takes_everything_however_young() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.arguments = vec!["--settle=5m".to_owned()];
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    pod.write("a", "two");
    pod.write("b", "young");
    assert!(pod.stop().success());
    let place = Place::read(&server);
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
    assert_eq!(place.newest().kind, vixens_backup::store::snapshot::Kind::Final);
    let state: serde_json::Value = serde_json::from_slice(&place.content("state.json").unwrap()).unwrap();
    assert_eq!((&state["released"], &state["owed"]), (&true.into(), &false.into()));
}

#[test]
fn a_takeover_fences_the_old_pod() {
    let server = S3::start();
    let mut old = Pod::new(&server, "aa");
    old.write("a", "of the old pod");
    old.init(&server);
    old.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    let new = Pod::new(&server, "bb");
    new.init(&server);
    old.write("a", "too late");
    old.until_said("was taken over by epoch 2", 1);
    assert!(old.stop().success());
    let place = Place::read(&server);
    assert_eq!(place.snapshots.len(), 1);
    assert_eq!(place.content("config/a").unwrap(), b"of the old pod");
}

#[test]
fn without_a_settled_start_nothing_is_written() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "vanilla");
    pod.init_with(&server, |start| {
        start.volumes[0].status = vixens_backup::agent::start::Status::Provisional;
        "started on vanilla".clone_into(&mut start.volumes[0].why);
    });
    pod.start();
    pod.until_said("started on vanilla", 1);
    assert!(pod.http("GET /metrics", "", "").contains("vixens_backup_fenced{} 1"));
    assert!(pod.stop().success());
    let place = Place::read(&server);
    assert!(
        place.keys.iter().all(|key| key.starts_with("claims/")),
        "{:?}",
        place.keys
    );
}

#[test]
fn a_nudge_saves_at_once_what_would_have_settled_later() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.arguments = vec!["--settle=5m".to_owned()];
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    pod.write("a", "two");
    pod.until_status(|status| status["unsaved_change_age"].as_f64() > Some(0.0));
    let nudge = std::process::Command::new(env!("CARGO_BIN_EXE_vixens-backup"))
        .args(["agent", "nudge", "--port=1+"])
        .arg(format!("--restore-dir={}", pod.scratch.path().display()))
        .status()
        .unwrap();
    assert!(nudge.success());
    let place = until_place(&server, |place| place.snapshots.len() == 2 && place.pending.is_empty());
    assert_eq!(place.content("config/a").unwrap(), b"two");
}

#[test]
fn a_nudge_without_a_sidecar_fails_no_pod() {
    let nowhere = tempfile::tempdir().unwrap();
    let nudge = std::process::Command::new(env!("CARGO_BIN_EXE_vixens-backup"))
        .args(["agent", "nudge"])
        .arg(format!("--restore-dir={}", nowhere.path().display()))
        .status()
        .unwrap();
    assert!(nudge.success());
}

#[test]
fn a_backup_is_made_for_whoever_has_the_credentials() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    let refused = pod.http("POST /v1/backup", "Authorization: Bearer 00\r\n", "");
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    let token = token(&server);
    let answer = pod.http(
        "POST /v1/backup",
        &format!("Authorization: Bearer {token}\r\n"),
        r#"{"manual":true}"#,
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let newest = Place::read(&server).newest().to_string();
    assert!(
        newest.ends_with("-manual"),
        "a manual backup is a snapshot, changed or not: {newest}"
    );
    assert!(
        answer.contains(&format!(r#""event":"done","snapshot":"{newest}""#)),
        "{answer}"
    );
}

#[test]
fn what_is_held_goes_when_its_id_is_accepted_and_by_nothing_else() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    for file in ["a", "b", "c"] {
        pod.write(file, format!("content of {file}"));
    }
    pod.init(&server);
    pod.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    for file in ["a", "b"] {
        std::fs::remove_file(pod.path(file)).unwrap();
    }
    let status = pod.until_status(|status| status["destinations"]["minio:backups/app"]["questions"][0].is_object());
    let id = status["destinations"]["minio:backups/app"]["questions"][0]["id"]
        .as_str()
        .unwrap();
    let token = token(&server);
    let ask = |accept: &str| {
        let body = format!(r#"{{"manual":true,"accept":"{accept}"}}"#);
        pod.http("POST /v1/backup", &format!("Authorization: Bearer {token}\r\n"), &body)
    };
    let other = ask("hold-00000000");
    assert!(other.contains("no such question stands"), "{other}");
    assert!(
        other.contains(&format!("asks {id}")),
        "what stands is said again: {other}"
    );
    assert_eq!(Place::read(&server).files(&Place::read(&server).newest()).len(), 3);
    assert!(ask(id).contains(r#""event":"done""#));
    let place = Place::read(&server);
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
    assert_eq!(
        place.files(&place.snapshots[0]).len(),
        3,
        "what was accepted can be taken back"
    );
}
