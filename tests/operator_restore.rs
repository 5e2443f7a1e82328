//! `vixens-backup restore` on real rclone and a real S3 server: what comes back is what was there, and what can't come
//! back is named.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use support::bed::{Bed, FOLDER, lived_in, seen};
use support::laptop::{command, of_place, text};
use support::pod::{Pod, tree, until_place};
use support::{BUCKET, S3, write};

const FIRST: &str = "20260101T100000Z-1.1-auto";

#[tokio::test]
async fn everything_comes_back_with_owner_mode_times_links_and_empty_folders() {
    let bed = Bed::new();
    let volume = lived_in();
    bed.backup(volume.path(), FIRST).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("new/folder");
    let out = command(&bed.server, &["restore", "--to", text(&to)]).fine();
    assert_eq!(seen(&to.join(FOLDER)), seen(volume.path()));
    let names: Vec<_> = fs::read_dir(&to)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, [FOLDER], "nothing of ours stays");
    assert!(
        out.starts_with("restored ") && out.contains(FIRST) && out.contains("SHA-256"),
        "{out}"
    );
}

#[test]
fn each_earlier_state_comes_back_from_history() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("kept", "always the same");
    pod.write("changed", "one");
    pod.write("deleted", "soon gone");
    pod.init(&server);
    pod.start();
    let mut states = Vec::new();
    for round in 1..=3 {
        let place = until_place(&server, |place| {
            place.snapshots.len() == round && place.pending.is_empty()
        });
        states.push((place.newest(), tree(pod.volume.path())));
        match round {
            1 => {
                pod.write("changed", "two");
                fs::remove_file(pod.path("deleted")).unwrap();
            }
            2 => {
                pod.write("changed", "three");
                pod.write("deleted", "and back");
            }
            _ => {}
        }
    }
    for (id, expected) in &states {
        let folder = tempfile::tempdir().unwrap();
        let id = id.to_string();
        command(&server, &["restore", "--to", text(folder.path()), "--at", &id]).fine();
        assert_eq!(tree(&folder.path().join("config")), *expected, "{id}");
    }
}

#[tokio::test]
async fn only_some_paths_come_back_when_only_those_are_named() {
    let bed = Bed::new();
    let volume = lived_in();
    bed.backup(volume.path(), FIRST).await;
    let folder = tempfile::tempdir().unwrap();
    let out = command(
        &bed.server,
        &[
            "restore",
            "--to",
            text(folder.path()),
            "config/.storage",
            "/config/a b/*.txt",
        ],
    )
    .fine();
    assert!(out.starts_with("restored 3 files"), "{out}");
    let expected = seen(volume.path());
    let brought = seen(&folder.path().join(FOLDER));
    let files: Vec<String> = brought
        .iter()
        .filter(|(_, what)| what.starts_with("file"))
        .map(|(path, _)| String::from_utf8_lossy(path).into_owned())
        .collect();
    assert_eq!(
        files,
        [".storage/.hidden/deep", ".storage/core.config", "a b/[c]*?{d}.txt"]
    );
    for (path, what) in &brought {
        assert_eq!(
            Some(what),
            expected.get(path),
            "the folders above get their attributes too"
        );
    }
    let error = command(&bed.server, &["restore", "--to", text(folder.path()), "config/nope"]).failed(1);
    assert!(error.contains("has no \"config/nope\""), "{error}");
}

#[tokio::test]
async fn a_folder_that_is_not_empty_is_refused_unless_told() {
    let bed = Bed::new();
    let volume = lived_in();
    bed.backup(volume.path(), FIRST).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path();
    write(&to.join("mine"), "stays");
    write(&to.join("config/configuration.yaml"), "is replaced");
    let error = command(&bed.server, &["restore", "--to", text(to)]).failed(3);
    assert!(
        error.contains("is not empty") && error.contains("--overwrite"),
        "{error}"
    );
    assert_eq!(fs::read(to.join("config/configuration.yaml")).unwrap(), b"is replaced");
    command(&bed.server, &["restore", "--to", text(to), "--overwrite"]).fine();
    assert_eq!(fs::read(to.join("mine")).unwrap(), b"stays");
    assert_eq!(seen(&to.join(FOLDER)), seen(volume.path()));
}

#[tokio::test]
async fn a_folder_in_the_place_of_a_file_is_never_lost_to_it() {
    let bed = Bed::new();
    let volume = lived_in();
    bed.backup(volume.path(), FIRST).await;
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("config/configuration.yaml/precious"), "stays");
    let error = command(&bed.server, &["restore", "--to", text(folder.path()), "--overwrite"]).failed(3);
    assert!(error.contains("config/configuration.yaml is a folder here"), "{error}");
    assert!(folder.path().join("config/configuration.yaml/precious").exists());
}

#[tokio::test]
async fn a_volume_that_an_app_lives_on_is_refused() {
    let bed = Bed::new();
    let volume = lived_in();
    bed.backup(volume.path(), FIRST).await;
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join(".vixens-backup/volume.json"), "{}");
    let error = command(&bed.server, &["restore", "--to", text(folder.path())]).failed(3);
    assert!(error.contains("vixens.io/backup-restore-at"), "{error}");
}

#[tokio::test]
async fn nothing_is_written_through_a_link_that_lies_in_the_target() {
    let bed = Bed::new();
    let volume = lived_in();
    bed.backup(volume.path(), FIRST).await;
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(elsewhere.path(), folder.path().join("config")).unwrap();
    command(&bed.server, &["restore", "--to", text(folder.path()), "--overwrite"]).fine();
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(seen(&folder.path().join(FOLDER)), seen(volume.path()));
}

#[tokio::test]
async fn a_flipped_byte_in_a_stored_file_is_found_and_named_and_the_rest_comes_back() {
    let mut bed = Bed::new();
    let volume = lived_in();
    bed.backup(volume.path(), FIRST).await;
    let key = "app/config/configuration.yaml";
    let mut content = fs::read(bed.server.bucket().join(key)).unwrap();
    content[3] ^= 1;
    bed.server.place(key, &content);
    fs::remove_file(bed.server.bucket().join("app/config/-rf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let said = command(&bed.server, &["restore", "--to", text(folder.path())]);
    assert_eq!(said.code, 1, "{said:#?}");
    let named: Vec<&str> = said
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("NOT RESTORED: "))
        .collect();
    assert_eq!(named.len(), 2, "{said:#?}");
    assert!(named[0].starts_with("config/-rf: "), "{said:#?}");
    assert_eq!(
        named[1],
        "config/configuration.yaml: size or SHA-256 differs (config/configuration.yaml)"
    );
    assert!(
        said.err.contains("2 files of ") && said.err.contains(FIRST),
        "{said:#?}"
    );
    let mut expected = seen(volume.path());
    for lost in [b"-rf".as_slice(), b"configuration.yaml"] {
        expected.remove(lost).unwrap();
    }
    assert_eq!(seen(&folder.path().join(FOLDER)), expected);
}

#[tokio::test]
async fn a_store_that_goes_away_costs_nothing_that_came() {
    let mut bed = Bed::new();
    let volume = lived_in();
    bed.backup(volume.path(), FIRST).await;
    let folder = tempfile::tempdir().unwrap();
    // As an interrupted restore leaves it: a file that is right, one that is not, and one that is of no use.
    let staging = folder.path().join(".vixens-restore");
    let right = fs::read(volume.path().join(".storage/core.config")).unwrap();
    write(&staging.join("config/.storage/core.config"), right);
    write(&staging.join("config/configuration.yaml"), "half of i");
    write(&staging.join("config/no-such-file"), "");
    fs::remove_file(bed.server.bucket().join("app/config/.storage/core.config")).unwrap();
    bed.server.stop();
    let error = command(&bed.server, &["restore", "--to", text(folder.path())]).failed(1);
    assert!(error.contains("can't be reached"), "{error}");
    bed.server.resume();
    command(&bed.server, &["restore", "--to", text(folder.path())]).fine();
    assert_eq!(seen(&folder.path().join(FOLDER)), seen(volume.path()));
    assert!(!staging.exists());
}

#[tokio::test]
async fn a_dry_run_says_what_would_come_and_writes_nothing() {
    let bed = Bed::new();
    let volume = lived_in();
    bed.backup(volume.path(), FIRST).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("new");
    let out = command(
        &bed.server,
        &["restore", "--to", text(&to), "--dry-run", "config/.storage"],
    )
    .fine();
    assert!(out.starts_with("would bring 2 files, "), "{out}");
    assert!(!to.exists());
}

#[tokio::test]
async fn a_place_made_by_hand_comes_back_unverified_and_that_is_said() {
    let bed = Bed::new();
    write(&bed.server.bucket().join("app/config/a/b.yaml"), "b");
    write(&bed.server.bucket().join("app/data/c"), "c");
    let folder = tempfile::tempdir().unwrap();
    let out = command(&bed.server, &["restore", "--to", text(folder.path())]).fine();
    assert!(out.contains("only their sizes were compared"), "{out}");
    assert_eq!(fs::read(folder.path().join("config/a/b.yaml")).unwrap(), b"b");
    assert_eq!(fs::read(folder.path().join("data/c")).unwrap(), b"c");
}

#[tokio::test]
async fn where_there_is_no_backup_nothing_is_restored_and_nothing_is_made() {
    let bed = Bed::new();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("new");
    let none = command(&bed.server, &["restore", "--to", text(&to)]).failed(1);
    assert!(none.contains("holds no backup"), "{none}");
    let bucket = of_place(&bed.server, "minio:nope/app", &["restore", "--to", text(&to)]).failed(1);
    assert!(bucket.contains("has no bucket \"nope\""), "{bucket}");
    let place = format!("minio:{BUCKET}/app");
    let at = of_place(&bed.server, &place, &["restore", "--to", text(&to), "--at", FIRST]).failed(1);
    assert!(at.contains("holds no backup"), "{at}");
    assert!(!to.exists());
}
