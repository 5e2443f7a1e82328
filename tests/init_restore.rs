//! `agent init` on a real S3 server: what a pod finds when it starts, and what it never does.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use jiff::Timestamp;
use std::fs;
use support::bed::{Bed, FOLDER, entries, lived_in, seen};
use support::{path_with_tools, rclone_after, write};
use vixens_backup::agent::start::{Status, Writing};
use vixens_backup::contract::question::Question;
use vixens_backup::store::Store;
use vixens_backup::store::decisions;
use vixens_backup::store::index::{Attributes, Entry, Standing, What};
use vixens_backup::store::store_id;

const FIRST: &str = "20261122T130500Z-3.1-auto";

#[tokio::test]
async fn a_lost_volume_comes_back_as_it_was() {
    let bed = Bed::new();
    let before = lived_in();
    bed.backup(before.path(), FIRST).await;
    let (said, start) = bed.start();
    assert_eq!(seen(&bed.volume()), seen(before.path()));
    assert_eq!(start.volumes[0].status, Status::Settled);
    assert_eq!(start.volumes[0].restored, Some(FIRST.parse().unwrap()));
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{said}"
    );
    assert!(bed.restore_dir().join(".restore-success").exists());
    assert!(!bed.volume().join(".vixens-backup/incoming").exists());
}

#[tokio::test]
async fn a_restore_asks_for_nothing_twice() {
    let bed = Bed::new();
    let before = tempfile::tempdir().unwrap();
    for number in 0..20 {
        write(&before.path().join(format!("file-{number}")), number.to_string());
    }
    bed.backup(before.path(), FIRST).await;
    let here = tempfile::tempdir().unwrap();
    let calls = here.path().join("calls");
    rclone_after(here.path(), &format!("echo \"$1\" >> {}", calls.display()));
    bed.claim(bed.owner(), 3, "ab12", "app-1", "").await;
    bed.heartbeat(3, "ab12", Timestamp::now(), true).await;
    let id = "1".repeat(32).parse().unwrap();
    store_id::write(&bed.store(), &id).await.unwrap();
    let mut path = here.path().as_os_str().to_owned();
    path.push(":");
    path.push(path_with_tools());
    let output = bed.init().env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(seen(&bed.volume()), seen(before.path()));
    // Claims and snapshots; claim, summary, store-id and index; the files; our claim; who holds the place now.
    let calls = fs::read_to_string(calls).unwrap();
    let calls: Vec<&str> = calls.lines().collect();
    assert_eq!(calls, ["lsjson", "copy", "copy", "rcat", "lsjson"]);
}

#[tokio::test]
async fn an_emptied_volume_comes_back_around_what_is_left_and_a_kept_one_is_looked_at_by_one_listing() {
    let bed = Bed::new();
    let before = tempfile::tempdir().unwrap();
    for number in 0..30 {
        write(
            &before.path().join(format!("d{}/file-{number}", number % 3)),
            number.to_string(),
        );
    }
    write(&before.path().join(".hidden"), "h");
    bed.backup(before.path(), FIRST).await;
    let id = "1".repeat(32).parse().unwrap();
    store_id::write(&bed.store(), &id).await.unwrap();
    bed.start();
    for folder in ["d0", "d1", "d2"] {
        fs::remove_dir_all(bed.volume().join(folder)).unwrap();
    }
    let (said, start) = bed.start();
    assert_eq!(seen(&bed.volume()), seen(before.path()));
    assert!(start.volumes[0].why.contains("only 1 of 31 files were left"), "{said}");
    let here = tempfile::tempdir().unwrap();
    let calls = here.path().join("calls");
    rclone_after(here.path(), &format!("echo \"$1\" >> {}", calls.display()));
    let mut path = here.path().as_os_str().to_owned();
    path.push(":");
    path.push(path_with_tools());
    let output = bed.init().env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // Claims and snapshots; our claim; who holds the place now.
    let calls = fs::read_to_string(calls).unwrap();
    let calls: Vec<&str> = calls.lines().collect();
    assert_eq!(calls, ["lsjson", "rcat", "lsjson"]);
}

#[tokio::test]
async fn a_new_volume_and_an_empty_place_begin_on_vanilla() {
    let bed = Bed::new();
    write(&bed.defaults().join("configuration.yaml"), "token: ${TOKEN}\n");
    write(&bed.secrets().join("app/TOKEN"), "t0ken");
    let (said, start) = bed.start();
    let content = fs::read_to_string(bed.volume().join("configuration.yaml")).unwrap();
    assert_eq!(content, "token: t0ken\n");
    assert_eq!((start.volumes[0].status, start.epoch), (Status::Settled, 1), "{said}");
    assert!(bed.restore_dir().join(".no-backup").exists());
    assert!(!said.contains("t0ken"), "{said}");
}

#[tokio::test]
async fn initialised_data_is_kept_and_each_start_has_a_higher_epoch() {
    let bed = Bed::new();
    bed.start();
    write(&bed.volume().join("a"), "mine");
    let elsewhere = tempfile::tempdir().unwrap();
    write(&elsewhere.path().join("a"), "older");
    bed.backup(elsewhere.path(), "20261122T130500Z-1.1-auto").await;
    let (_, start) = bed.start();
    assert_eq!(fs::read_to_string(bed.volume().join("a")).unwrap(), "mine");
    assert_eq!((start.epoch, start.volumes[0].status), (2, Status::Settled));
}

#[tokio::test]
async fn a_restored_file_wins_over_vanilla_and_vanilla_fills_what_is_missing() {
    let bed = Bed::new();
    let before = tempfile::tempdir().unwrap();
    write(&before.path().join("a.yaml"), "mine");
    bed.backup(before.path(), FIRST).await;
    write(&bed.defaults().join("a.yaml"), "vanilla");
    write(&bed.defaults().join("b.yaml"), "vanilla");
    bed.start();
    let content = |name: &str| fs::read_to_string(bed.volume().join(name)).unwrap();
    assert_eq!(
        (content("a.yaml").as_str(), content("b.yaml").as_str()),
        ("mine", "vanilla")
    );
    let layers = fs::read_to_string(bed.restore_dir().join("layers.json")).unwrap();
    let layers: serde_json::Value = serde_json::from_str(&layers).unwrap();
    assert_eq!(layers["files"]["config/a.yaml"], "restored");
    assert_eq!(layers["files"]["config/b.yaml"], "vanilla");
}

#[tokio::test]
async fn an_unreachable_store_is_waited_for_and_the_app_does_not_start_empty() {
    let mut bed = Bed::new().with("--restore-timeout=6s");
    write(&bed.defaults().join("a"), "vanilla");
    bed.server.stop();
    let said = bed.refused();
    assert!(
        said.contains("connection refused") && said.contains("vixens.io/backup-store-down"),
        "{said}"
    );
    assert!(!bed.volume().join("a").exists());
}

#[tokio::test]
async fn a_wrong_key_is_no_empty_store() {
    let bed = Bed::new().with("--restore-timeout=6s");
    bed.server
        .configure("RCLONE_CONFIG_MINIO_SECRET_ACCESS_KEY", "wrongwrongwrong");
    let said = bed.refused();
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");
    assert!(!said.contains("wrongwrong"), "{said}");
}

#[tokio::test]
async fn a_store_that_comes_back_in_time_is_restored_from() {
    let mut bed = Bed::new();
    let before = lived_in();
    bed.backup(before.path(), FIRST).await;
    bed.server.stop();
    let mut command = bed.init();
    let waiting = std::thread::spawn(move || command.output().unwrap());
    std::thread::sleep(std::time::Duration::from_millis(700));
    bed.server.resume();
    let output = waiting.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(seen(&bed.volume()), seen(before.path()));
}

#[tokio::test]
async fn started_on_vanilla_the_store_is_not_written_and_the_next_start_restores() {
    let mut bed = Bed::new().with("--store-down=start");
    let before = lived_in();
    bed.backup(before.path(), FIRST).await;
    write(&bed.defaults().join("a"), "vanilla");
    bed.server.stop();
    let mut bed = bed.with("--restore-timeout=6s");
    let (said, start) = bed.start();
    assert_eq!(start.volumes[0].status, Status::Provisional, "{said}");
    assert_eq!(start.destinations[0].writing, Writing::Fenced);
    write(&bed.volume().join("written by the app"), "meanwhile");
    bed.server.resume();
    bed.flags.pop();
    let (said, start) = bed.start();
    assert_eq!(start.volumes[0].status, Status::Settled, "{said}");
    let mut expected = seen(before.path());
    let mut found = seen(&bed.volume());
    assert!(
        found.remove(b"a".as_slice()).is_some(),
        "vanilla fills what the backup lacks"
    );
    expected.remove(b"".as_slice());
    found.remove(b"".as_slice());
    assert_eq!(found, expected);
    let objects = vixens_backup::store::listed(&bed.store(), "history", vixens_backup::store::Depth::All)
        .await
        .unwrap();
    let aside: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
    assert!(
        aside
            .iter()
            .any(|name| name.ends_with("/.vixens-aside/config/written by the app")),
        "{aside:?}"
    );
}

#[tokio::test]
async fn an_initialised_volume_starts_without_its_store() {
    let mut bed = Bed::new();
    bed.start();
    write(&bed.volume().join("a"), "mine");
    bed.server.stop();
    let (said, start) = bed.start();
    assert_eq!(start.volumes[0].status, Status::Settled, "{said}");
    assert_eq!(start.destinations[0].writing, Writing::Unclaimed);
}

#[tokio::test]
async fn another_workloads_place_is_taken_over_once_that_is_accepted() {
    let mut bed = Bed::new();
    let before = lived_in();
    bed.backup(before.path(), FIRST).await;
    let mut owner = bed.owner();
    (owner.namespace, owner.name) = ("elsewhere".to_owned(), "other".to_owned());
    bed.claim(owner, 3, "theirs", "other-1", "").await;
    bed.heartbeat(3, "theirs", Timestamp::now(), true).await;
    let said = bed.asks();
    assert!(said.contains("vixens.io/backup-destination"), "{said}");
    let question = Question::find(&said).unwrap();
    assert!(!question.text.contains("elsewhere"), "{question}");
    assert!(
        said.contains("belongs to Deployment/other in namespace elsewhere"),
        "our own log says it: {said}"
    );
    assert!(seen(&bed.volume()).len() == 1, "nothing was changed");
    bed.flags.push(format!("--accept={}", question.id));
    let (said, start) = bed.start();
    assert_eq!(seen(&bed.volume()), seen(before.path()), "{said}");
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{said}"
    );
    // It was answered once, and is not asked again.
    bed.lose_volume();
    bed.flags.clear();
    bed.start();
    assert_eq!(seen(&bed.volume()), seen(before.path()));
}

#[tokio::test]
async fn another_workloads_volume_is_asked_about() {
    let bed = Bed::new();
    bed.start();
    let command = bed.init();
    let args: Vec<std::ffi::OsString> = command
        .get_args()
        .map(|arg| {
            if arg == "--workload=Deployment/app" {
                "--workload=Deployment/other".into()
            } else {
                arg.to_owned()
            }
        })
        .collect();
    let output = std::process::Command::new(command.get_program())
        .args(args)
        .env("PATH", support::path_with_tools())
        .env("POD_NAMESPACE", "home")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("Deployment/app"), "{said}");
}

#[tokio::test]
async fn another_clusters_place_is_not_taken_before_it_was_looked_at_and_a_released_one_is_adopted() {
    let mut bed = Bed::new().with("--restore-timeout=6s");
    let before = lived_in();
    bed.backup(before.path(), FIRST).await;
    let mut owner = bed.owner();
    owner.cluster = "production".to_owned();
    bed.claim(owner, 3, "theirs", "app-0", "").await;
    let old = "2026-01-01T00:00:00Z".parse().unwrap();
    bed.heartbeat(3, "theirs", old, false).await;
    let said = bed.refused();
    assert!(said.contains("production"), "{said}");
    bed.heartbeat(3, "theirs", old, true).await;
    bed.flags.clear();
    let (said, start) = bed.start();
    assert_eq!(start.epoch, 4, "{said}");
    assert_eq!(seen(&bed.volume()), seen(before.path()));
}

#[tokio::test]
async fn a_place_made_by_hand_is_adopted_and_restored_by_listing() {
    let mut bed = Bed::new();
    bed.server.place("app/config/configuration.yaml", "title: home\n");
    bed.server.place("app/config/.storage/core.config", "{}");
    let (said, start) = bed.start();
    let content = fs::read_to_string(bed.volume().join(".storage/core.config")).unwrap();
    assert_eq!(content, "{}");
    assert_eq!((start.epoch, start.volumes[0].status), (1, Status::Settled), "{said}");
}

#[tokio::test]
async fn defaults_that_were_written_before_anybody_looked_give_way_to_the_backup() {
    let bed = Bed::new();
    let before = lived_in();
    bed.backup(before.path(), FIRST).await;
    write(&bed.volume().join("configuration.yaml"), "default: true\n");
    write(&bed.volume().join("started/at"), "first");
    let (said, start) = bed.start();
    assert_eq!(seen(&bed.volume()), seen(before.path()));
    assert_eq!(start.volumes[0].status, Status::Settled);
    assert!(start.volumes[0].why.contains("is kept for 30 days"), "{said}");
    let aside = vixens_backup::store::listed(&bed.store(), "history", vixens_backup::store::Depth::All)
        .await
        .unwrap();
    for path in ["configuration.yaml", "started/at"] {
        let name = format!("/.vixens-aside/{FOLDER}/{path}");
        assert!(aside.iter().any(|object| object.name.ends_with(&name)), "{aside:?}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_named_and_made() {
    let mut bed = Bed::new();
    bed.server.drop_bucket();
    let (said, start) = bed.start();
    assert!(said.contains("bucket of minio:backups/app does not exist"), "{said}");
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{said}"
    );
}

#[tokio::test]
async fn of_a_damaged_file_the_newest_older_version_comes_loudly() {
    let mut bed = Bed::new();
    let volume = tempfile::tempdir().unwrap();
    write(&volume.path().join("a"), "first");
    bed.backup(volume.path(), FIRST).await;
    // The second backup replaces "a": its first content goes to history, as a sidecar does it.
    let second = "20261122T130600Z-3.2-auto";
    bed.store()
        .copy(FOLDER, &format!("history/{second}/{FOLDER}"), &["a".to_owned()])
        .await
        .unwrap();
    write(&volume.path().join("a"), "second");
    bed.backup(volume.path(), second).await;
    // A byte flips in the store.
    bed.server.place("app/config/a", "secone");
    let (said, start) = bed.start();
    assert_eq!(fs::read_to_string(bed.volume().join("a")).unwrap(), "first");
    assert_eq!(start.volumes[0].restored, Some(second.parse().unwrap()));
    let told = format!("WARNING: a is an older version, of {FIRST}");
    assert!(said.contains(&told), "{said}");
    let mark = fs::read_to_string(bed.restore_dir().join(".restore-success")).unwrap();
    assert!(mark.contains("a is an older version"), "{mark}");
}

#[tokio::test]
async fn what_nobody_has_is_asked_once_everything_else_is_in_its_place_and_the_answer_counts_once() {
    let mut bed = Bed::new();
    let volume = tempfile::tempdir().unwrap();
    for (name, content) in [("a", "good"), ("b", "same"), ("c", "same"), ("d", "other")] {
        write(&volume.path().join(name), content);
    }
    bed.backup(volume.path(), FIRST).await;
    bed.server.place("app/config/a", "evil");
    // Of this one there is a copy under another name.
    bed.server.place("app/config/b", "evil");
    let question = bed.asked();
    assert!(question.text.contains(": a ("), "{question}");
    let names = |bed: &Bed| {
        let entries = fs::read_dir(bed.volume()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&bed), [".vixens-backup", "b", "c", "d"]);
    assert_eq!(fs::read_to_string(bed.volume().join("b")).unwrap(), "same");
    assert_eq!(bed.asked(), question, "the same question each time");
    // Somebody mends it in the bucket: nothing is to be asked any more.
    bed.server.place("app/config/a", "good");
    bed.start();
    assert_eq!(names(&bed), [".vixens-backup", "a", "b", "c", "d"]);
    // Or accepts that it is lost.
    bed.lose_volume();
    bed.server.place("app/config/a", "evil");
    let question = bed.asked();
    let bed = bed.with(&format!("--accept={}", question.id));
    let (said, start) = bed.start();
    assert_eq!(names(&bed), [".vixens-backup", "b", "c", "d"]);
    assert_eq!(start.destinations[0].damaged, ["config/a", "config/b"]);
    assert!(said.contains("a is MISSING"), "{said}");
    assert!(decisions::is_decided(&bed.store(), &question.id).await.unwrap());
    // Should the same be lost again, it is another question.
    bed.lose_volume();
    assert_ne!(bed.asked().id, question.id);
}

#[tokio::test]
async fn an_index_that_leads_out_of_the_volume_is_not_followed() {
    let bed = Bed::new();
    let (volume, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&volume.path().join("a/b"), "stray");
    let id = bed.backup(volume.path(), FIRST).await;
    let mut forged = entries(volume.path(), id);
    forged.retain(|entry| entry.path != b"config/a/");
    let target = elsewhere.path().as_os_str().as_encoded_bytes().to_vec();
    let link = Entry {
        path: b"config/a".to_vec(),
        what: What::Link(target, Attributes::default()),
        standing: Standing::Live,
    };
    forged.insert(1, link);
    bed.publish(id, &forged).await;
    let said = bed.refused();
    assert!(said.contains("a/b lies below a link"), "{said}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_index_of_a_newer_release_is_never_no_backup() {
    let mut bed = Bed::new().with("--restore-timeout=6s");
    bed.server.place(
        &format!("app/snapshots/{FIRST}.json"),
        "{\"version\":2,\"snapshot\":{},\"entries\":[\n]}\n",
    );
    let said = bed.refused();
    assert!(
        said.contains("newer release") && said.contains("update vixens-backup"),
        "{said}"
    );
    assert!(!said.contains("trying again"), "{said}");
}
