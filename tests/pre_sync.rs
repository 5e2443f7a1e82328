//! `agent pre-sync` on real rclone and a real S3 server: what the restore Jobs say, and when they stop a sync.

mod support;

use std::process::Command;
use support::bed::{Bed, FOLDER, lived_in};
use support::laptop::{Said, said};
use support::{BUCKET, write};
use vixens_backup::store::Store;
use vixens_backup::store::records::{Pin, Request, decode};

const FIRST: &str = "20260101T100000Z-1.1-auto";
const SECOND: &str = "20260101T110000Z-1.2-auto";

fn check(bed: &Bed, flags: &[&str]) -> Said {
    check_of(bed, &[&format!("minio:{BUCKET}/app")], flags)
}

fn check_of(bed: &Bed, destinations: &[&str], flags: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vixens-backup"));
    command
        .args(["agent", "pre-sync"])
        .arg(format!("--volume=data:{FOLDER}:/config"))
        .args(
            destinations
                .iter()
                .map(|destination| format!("--destination={destination}")),
        )
        .arg(format!("--restore-dir={}", bed.restore_dir().display()))
        .arg(format!("--rclone-dir={}", bed.server.rclone_dir().display()))
        .args(flags)
        .args((!flags.iter().any(|flag| flag.starts_with("--workload"))).then_some("--workload=Deployment/app"))
        .env("POD_NAMESPACE", "home")
        .env("VIXENS_BACKUP_CLUSTER_ID", "c1");
    said(&mut command)
}

async fn backed_up() -> Bed {
    let bed = Bed::new();
    let volume = lived_in();
    bed.claim(bed.owner(), 1, "gone", "app-0", "g1").await;
    bed.backup(volume.path(), FIRST).await;
    write(&volume.path().join("added"), "new");
    bed.backup(volume.path(), SECOND).await;
    bed
}

#[tokio::test]
async fn a_whole_backup_is_ready_and_told_with_what_it_would_bring() {
    let bed = backed_up().await;
    for (flags, verified) in [
        (&[][..], "every file of it is there with its size"),
        (&["--verify=full"], "every file, by its size and SHA-256"),
    ] {
        let out = check(&bed, flags).fine();
        assert!(out.contains(": ready, "), "{out}");
        assert!(out.contains(SECOND) && out.contains("13 files, "), "{out}");
        assert!(out.contains(verified), "{out}");
    }
    let left = std::fs::read_dir(bed.restore_dir()).unwrap().count();
    assert_eq!(left, 0, "nothing of the check stays in the pod's folder");
    let keys: Vec<String> = vixens_backup::store::listed(&bed.store(), "pins", vixens_backup::store::Depth::All)
        .await
        .unwrap()
        .into_iter()
        .map(|object| object.name)
        .collect();
    assert_eq!(keys, Vec::<String>::new(), "it writes nothing unless told");
}

#[tokio::test]
async fn the_restore_point_is_pinned_where_that_is_asked_for() {
    let bed = backed_up().await;
    let out = check(&bed, &["--pin"]).fine();
    assert!(out.contains("pinned"), "{out}");
    let pin: Pin = decode(&bed.store().read("pins/presync.json").await.unwrap()).unwrap();
    assert_eq!(pin.snapshot.to_string(), SECOND);
}

#[tokio::test]
async fn no_backup_is_said_plainly_and_stops_nothing() {
    let bed = Bed::new();
    let out = check(&bed, &["--pin"]).fine();
    assert!(
        out.contains(": no backup: the app starts on its vanilla configuration"),
        "{out}"
    );
    let out = check_of(&bed, &["minio:no-such-bucket/app"], &[]).fine();
    assert!(out.contains("no backup (not even the bucket exists"), "{out}");
    bed.store().write("config/a.yaml", b"a").await.unwrap();
    let out = check(&bed, &[]).fine();
    assert!(out.contains("made by hand") && out.contains("1 file, 1 B"), "{out}");
}

#[tokio::test]
async fn a_missing_file_stops_the_sync_and_what_is_whole_is_pinned() {
    let bed = backed_up().await;
    bed.store().delete("config", &["added".to_owned()]).await.unwrap();
    let said = check(&bed, &["--pin"]);
    assert!(said.out.contains("config/added is missing"), "{said:#?}");
    assert!(
        said.out.contains("a restore brings the rest") && said.out.contains(FIRST),
        "{said:#?}"
    );
    let error = said.failed(1);
    assert!(error.contains("can't be trusted") && error.contains(SECOND), "{error}");
    let pin: Pin = decode(&bed.store().read("pins/presync.json").await.unwrap()).unwrap();
    assert_eq!(pin.snapshot.to_string(), FIRST);
    // A sidecar that has the file is asked to save it anew.
    let request: Request = decode(&bed.store().read("requests/presync.json").await.unwrap()).unwrap();
    assert_eq!(request.damaged, ["config/added"]);
}

#[tokio::test]
async fn a_flipped_byte_is_found_when_everything_is_verified() {
    let mut bed = backed_up().await;
    let key = "app/config/configuration.yaml";
    let mut content = std::fs::read(bed.server.bucket().join(key)).unwrap();
    content[3] ^= 1;
    bed.server.place(key, &content);
    check(&bed, &[]).fine();
    let error = check(&bed, &["--verify=full"]).failed(1);
    assert!(
        error.contains("config/configuration.yaml: size or SHA-256 differs"),
        "{error}"
    );
}

#[tokio::test]
async fn a_truncated_index_is_damaged_and_never_no_backup() {
    let mut bed = backed_up().await;
    for id in [FIRST, SECOND] {
        let key = format!("app/snapshots/{id}.json");
        let whole = std::fs::read(bed.server.bucket().join(&key)).unwrap();
        bed.server.place(&key, &whole[..whole.len() / 2]);
    }
    let said = check(&bed, &[]);
    assert!(
        said.out.contains("DAMAGED") && !said.out.contains("no backup"),
        "{said:#?}"
    );
    assert!(said.out.contains("none of its snapshots can be restored"), "{said:#?}");
    let error = said.failed(1);
    assert!(error.contains(SECOND), "{error}");
}

#[tokio::test]
async fn a_store_that_refuses_or_does_not_answer_stops_the_sync() {
    let mut bed = backed_up().await;
    let secret = "RCLONE_CONFIG_MINIO_SECRET_ACCESS_KEY";
    let key = std::fs::read_to_string(bed.server.rclone_dir().join(secret)).unwrap();
    bed.server.configure(secret, "wrongwrongwrong");
    let refused = check(&bed, &[]).failed(1);
    assert!(refused.contains("refused the credentials"), "{refused}");
    assert!(!refused.contains("wrongwrong"), "{refused}");
    bed.server.configure(secret, &key);
    bed.server.stop();
    let away = check(&bed, &[]).failed(1);
    assert!(away.contains("can't be reached"), "{away}");
}

#[tokio::test]
async fn another_workloads_place_is_said_and_left_to_the_start_to_ask_about() {
    let bed = backed_up().await;
    let mut theirs = bed.owner();
    theirs.name = "other".to_owned();
    bed.claim(theirs, 2, "theirs", "other-0", "g1").await;
    let said = check(&bed, &["--pin"]).fine();
    assert!(said.contains("BELONGS TO Deployment/other"), "{said}");
    assert!(
        said.contains("vixens.io/backup-accept") && said.contains("vixens.io/backup-destination"),
        "{said}"
    );
    assert!(
        bed.store().read("pins/presync.json").await.is_err(),
        "nothing of theirs is pinned"
    );
}

#[tokio::test]
async fn of_two_destinations_one_that_can_be_trusted_is_enough_and_none_is_not() {
    let bed = backed_up().await;
    let (good, empty, unknown) = (
        format!("minio:{BUCKET}/app"),
        format!("minio:{BUCKET}/empty"),
        "nowhere:bucket/app",
    );
    let out = check_of(&bed, &[unknown, &good], &[]).fine();
    assert!(
        out.contains("NOT KNOWN") && out.contains("ready") && out.contains("warning"),
        "{out}"
    );
    let error = check_of(&bed, &[&empty, unknown], &[]).failed(1);
    assert!(error.contains("nowhere:bucket/app is not configured"), "{error}");
}

#[tokio::test]
async fn a_secret_that_does_not_exist_yet_is_no_failure() {
    let bed = backed_up().await;
    for entry in std::fs::read_dir(bed.server.rclone_dir()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let out = check(&bed, &["--secret=rclone-minio-config", "--pin"]).fine();
    assert!(
        out.starts_with("not checked: Secret rclone-minio-config does not exist yet"),
        "{out}"
    );
    let error = check(&bed, &[]).failed(1);
    assert!(error.contains("is not configured"), "{error}");
}

#[tokio::test]
async fn each_pod_of_a_stateful_set_is_checked_in_its_own_place() {
    let bed = backed_up().await;
    let command = |replicas: &str| {
        let destination = format!("minio:{BUCKET}/{{pod}}");
        check_of(
            &bed,
            &[&destination],
            &["--workload=StatefulSet/app", &format!("--replicas={replicas}")],
        )
    };
    let out = command("2").fine();
    for pod in ["app-0", "app-1"] {
        assert!(out.contains(&format!("minio:{BUCKET}/{pod}")), "{out}");
    }
    assert!(!out.contains("app-2"), "{out}");
    // Of what one of them has nothing is said in the name of another.
    bed.server
        .store("app-1")
        .write("snapshots/20260101T100000Z-1.1-auto.json", b"{\"version\":9}")
        .await
        .unwrap();
    let error = command("2").failed(1);
    assert!(error.contains("/app-1") && !error.contains("/app-0"), "{error}");
}
