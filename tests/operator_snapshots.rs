//! `vixens-backup snapshots` on real rclone and a real S3 server: what a person sees of a place, and what they are told
//! when it can't be seen.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use support::bed::{Bed, FOLDER, entries, lived_in};
use support::laptop::{bare, command, of_place};
use support::pod::{Pod, until_place};
use support::{BUCKET, S3, write};
use vixens_backup::store::Store;
use vixens_backup::store::records::{Pin, VERSION, encode};

const FIRST: &str = "20260101T100000Z-1.1-auto";
const SECOND: &str = "20260101T110000Z-1.2-manual";

/// A place with two snapshots of a volume that holds everything.
async fn two_snapshots() -> Bed {
    let bed = Bed::new();
    let volume = lived_in();
    bed.claim(bed.owner(), 1, "gone", "app-0", "g1").await;
    bed.backup(volume.path(), FIRST).await;
    write(&volume.path().join("added"), "new");
    write(&volume.path().join("configuration.yaml"), "title: away\n");
    assert!(std::fs::remove_file(volume.path().join("-rf")).is_ok());
    bed.backup(volume.path(), SECOND).await;
    bed
}

#[tokio::test]
async fn snapshots_are_listed_with_what_they_hold_and_what_keeps_them() {
    let bed = two_snapshots().await;
    let pin = Pin {
        version: VERSION,
        snapshot: FIRST.parse().unwrap(),
        time: "2026-01-01T10:30:00Z".parse().unwrap(),
        reason: "before a sync".to_owned(),
    };
    bed.store().write("pins/presync.json", &encode(&pin)).await.unwrap();
    let text = command(&bed.server, &["snapshots"]).fine();
    let mut lines = text.lines();
    assert!(
        lines.next().unwrap().contains("Deployment/app in namespace home"),
        "{text}"
    );
    let line = |id: &str| text.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    assert!(line(FIRST).ends_with("pinned: presync"), "{text}");
    assert!(line(SECOND).contains(" days"), "{text}");
    let json = command(&bed.server, &["snapshots", "-o", "json"]).json();
    assert_eq!(json[0]["id"], FIRST);
    assert_eq!(json[0]["pinned"][0], "presync");
    assert_eq!(json[1]["kind"], "manual");
    let volume = lived_in();
    let files = entries(volume.path(), FIRST.parse().unwrap())
        .iter()
        .filter(|entry| entry.stored_name().is_some())
        .count();
    assert_eq!(json[0]["files"], files);
    assert_eq!(json[1]["files"], files);
}

#[tokio::test]
async fn a_snapshot_is_shown_by_id_number_time_or_as_the_newest() {
    let bed = two_snapshots().await;
    for (wanted, expected) in [
        (FIRST, FIRST),
        ("1.1", FIRST),
        ("2026-01-01T10:59:59Z", FIRST),
        ("newest", SECOND),
        ("2026-01-01T12:00:00+01:00", SECOND),
    ] {
        let text = command(&bed.server, &["snapshots", "show", wanted]).fine();
        assert!(
            text.starts_with(&format!("snapshot   {expected}\n")),
            "{wanted}: {text}"
        );
    }
    let text = command(&bed.server, &["snapshots", "show", "1.1"]).fine();
    assert!(text.contains("-rws--x--x"), "the mode of -rf: {text}");
    assert!(text.contains("config/link -> configuration.yaml"), "{text}");
    assert!(text.contains("config/new\\nline"), "a name is one line: {text}");
    let json = command(
        &bed.server,
        &["snapshots", "show", "1.1", "config/.storage", "-o", "json"],
    )
    .json();
    let paths: Vec<&str> = json["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "config/",
            "config/.storage/",
            "config/.storage/.hidden/",
            "config/.storage/.hidden/deep",
            "config/.storage/core.config"
        ]
    );
    let missing = command(&bed.server, &["snapshots", "show", "2026-01-01T09:00:00Z"]).failed(1);
    assert!(missing.contains(&format!("the oldest is {FIRST}")), "{missing}");
}

#[tokio::test]
async fn what_differs_between_two_snapshots_is_said_line_by_line() {
    let bed = two_snapshots().await;
    let text = command(&bed.server, &["snapshots", "diff", FIRST, SECOND]).fine();
    assert_eq!(
        text,
        format!(
            "- config/-rf  4 B\n+ config/added  3 B\n~ config/configuration.yaml  12 B, other content\n\
             {FIRST} to {SECOND}: 1 added, 1 removed, 1 changed\n"
        )
    );
    let json = command(&bed.server, &["snapshots", "diff", "1.1", "-o", "json"]).json();
    assert_eq!(json["to"], SECOND);
    assert_eq!(json["changed"][0]["what"], serde_json::json!(["content", "time"]));
    let added = command(&bed.server, &["snapshots", "diff", "1.1", "1.2", "config/added"]).fine();
    assert!(
        added.starts_with("+ config/added  3 B\n"),
        "in one of them alone: {added}"
    );
}

#[test]
fn the_sidecars_own_snapshots_are_read_with_the_index_that_they_build_on() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    for number in 0..200 {
        pod.write(&format!("many/{number}"), "same");
    }
    pod.init(&server);
    pod.start();
    until_place(&server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    pod.write("many/7", "changed");
    std::fs::remove_file(pod.path("many/8")).unwrap();
    let place = until_place(&server, |place| place.snapshots.len() == 2 && place.pending.is_empty());
    assert_eq!(
        place
            .keys
            .iter()
            .filter(|key| key.strip_suffix(".base").is_some())
            .count(),
        1,
        "the second one's index is a difference, or this shows nothing"
    );
    let text = command(&server, &["snapshots", "diff", "1.1", "1.2"]).fine();
    assert!(text.contains("~ config/many/7  4 B → 7 B\n"), "{text}");
    assert!(text.contains("- config/many/8  4 B\n"), "{text}");
    assert!(text.ends_with("0 added, 1 removed, 1 changed\n"), "{text}");
    let json = command(&server, &["snapshots", "-o", "json"]).json();
    assert_eq!((&json[0]["files"], &json[1]["files"]), (&200.into(), &199.into()));
}

#[tokio::test]
async fn a_truncated_index_is_damaged_and_never_no_backup() {
    let mut bed = two_snapshots().await;
    let key = format!("app/snapshots/{SECOND}.json");
    let whole = std::fs::read(bed.server.bucket().join(&key)).unwrap();
    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        bed.server.place(&key, &whole[..length]);
        let text = command(&bed.server, &["snapshots"]).fine();
        let line = text.lines().find(|line| line.starts_with(SECOND)).unwrap();
        assert!(line.contains("DAMAGED: "), "{length} bytes: {text}");
        let error = command(&bed.server, &["snapshots", "show"]).failed(1);
        assert!(error.contains(&format!("snapshots/{SECOND}.json")), "{error}");
        assert!(
            error.contains("is damaged") && error.contains("an older snapshot"),
            "{error}"
        );
        command(&bed.server, &["snapshots", "show", "1.1"]).fine();
    }
}

#[tokio::test]
async fn a_release_to_come_is_no_damage_of_ours_and_no_absence_either() {
    let mut bed = two_snapshots().await;
    bed.server
        .place("app/snapshots/20260101T120000Z-1.3-auto.zst", "of a release to come");
    let error = command(&bed.server, &["snapshots"]).failed(1);
    assert!(
        error.contains("newer release of vixens-backup") && error.contains("update vixens-backup"),
        "{error}"
    );
}

#[tokio::test]
async fn no_backup_is_said_plainly_with_what_is_beside_it() {
    let bed = two_snapshots().await;
    let none = of_place(&bed.server, &format!("minio:{BUCKET}/ap"), &["snapshots"]).fine();
    assert_eq!(
        none,
        format!("minio:{BUCKET}/ap holds no backup; minio:{BUCKET} has app\n")
    );
    let json = of_place(&bed.server, &format!("minio:{BUCKET}/ap"), &["snapshots", "-o", "json"]).json();
    assert_eq!(json, serde_json::json!([]));
    let show = of_place(&bed.server, &format!("minio:{BUCKET}/ap"), &["snapshots", "show"]).failed(1);
    assert!(show.contains("holds no backup"), "{show}");
}

#[tokio::test]
async fn a_place_made_by_hand_has_no_snapshots_and_that_is_said() {
    let bed = Bed::new();
    write(&bed.server.bucket().join(format!("app/{FOLDER}/a.yaml")), "a");
    let text = command(&bed.server, &["snapshots"]).fine();
    assert!(text.contains("made by hand") && text.contains("config"), "{text}");
    let error = command(&bed.server, &["snapshots", "show"]).failed(1);
    assert!(error.contains("has no snapshot yet"), "{error}");
}

#[tokio::test]
async fn each_way_not_to_reach_a_store_has_a_name_and_a_way_out() {
    let mut bed = two_snapshots().await;
    let server = &bed.server;
    let bucket = of_place(server, "minio:backup/app", &["snapshots"]).failed(1);
    assert!(bucket.contains("the remote minio has no bucket \"backup\""), "{bucket}");
    assert!(bucket.contains("check the name"), "{bucket}");

    let remote = of_place(server, &format!("mino:{BUCKET}/app"), &["snapshots"]).failed(1);
    assert!(remote.contains("is not configured"), "{remote}");
    assert!(
        remote.contains("--rclone-config") && remote.contains("RCLONE_CONFIG_MINO_TYPE"),
        "{remote}"
    );

    let place = format!("minio:{BUCKET}/app");
    let file = bare(&["snapshots", "-d", &place, "--rclone-config", "/no/such/rclone.conf"]).failed(1);
    assert!(file.contains("--rclone-config /no/such/rclone.conf"), "{file}");

    let program = of_place(server, &place, &["snapshots", "--rclone", "no-such-rclone"]).failed(1);
    assert!(
        program.contains("no-such-rclone can't be started: install rclone"),
        "{program}"
    );

    let key = std::fs::read_to_string(server.rclone_dir().join("RCLONE_CONFIG_MINIO_SECRET_ACCESS_KEY")).unwrap();
    server.configure("RCLONE_CONFIG_MINIO_SECRET_ACCESS_KEY", "wrongwrongwrong");
    let refused = command(server, &["snapshots"]).failed(1);
    assert!(refused.contains("refused the credentials"), "{refused}");
    assert!(refused.contains("check the keys of the remote minio"), "{refused}");
    assert!(!refused.contains("wrongwrong"), "{refused}");
    server.configure("RCLONE_CONFIG_MINIO_SECRET_ACCESS_KEY", &key);

    bed.server.stop();
    let unreachable = command(&bed.server, &["snapshots"]).failed(1);
    assert!(unreachable.contains("can't be reached"), "{unreachable}");
    assert!(unreachable.contains("RCLONE_CONFIG_MINIO_ENDPOINT"), "{unreachable}");
}

#[test]
fn what_cannot_be_meant_is_wrong_usage() {
    let missing = bare(&["snapshots"]).failed(2);
    assert!(missing.contains("--destination is missing"), "{missing}");
    let placeholder = bare(&["snapshots", "-d", "minio:backups/{name}"]).failed(2);
    assert!(placeholder.contains("{name}"), "{placeholder}");
    for arguments in [["snapshots", "-d", "minio"], ["snapshots", "show", "yesterday"]] {
        let said = bare(&arguments);
        assert_eq!(said.code, 2, "{said:#?}");
    }
}
