//! `agent init` on bad days: the store or the volume fails in the middle of it, or is not what it seems. The app does
//! not start on less than it had, nothing that is stored is lost, and the next start ends as an undisturbed one does.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use jiff::{SignedDuration, Timestamp};
use std::fs;
use std::path::Path;
use std::process::Command;
use support::app::App;
use support::bed::{Bed, FOLDER, lived_in, seen};
use support::disk::Disk;
use support::pod::{Place, in_namespace, tree};
use support::wire::Wire;
use support::{BUCKET, S3, write};
use tempfile::TempDir;
use vixens_backup::agent::start::{Start, Status, Writing};
use vixens_backup::store::{Depth, Store, claims, listed};

const FIRST: &str = "20261122T130500Z-3.1-auto";
const SECOND: &str = "20261122T140500Z-3.2-auto";

/// Files that take the store some time.
fn many() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..60 {
        write(
            &folder.path().join(format!("d{}/{number}", number % 7)),
            vec![b'x'; 20_000 + number],
        );
    }
    folder
}

/// What the app sees on a volume.
fn is_empty(volume: &Path) -> bool {
    fs::read_dir(volume)
        .unwrap()
        .all(|entry| entry.unwrap().file_name() == ".vixens-backup")
}

#[tokio::test]
async fn a_wrong_crypt_password_is_no_empty_store() {
    let bed = Bed::new();
    bed.server.encrypt("right");
    let before = lived_in();
    bed.backup(before.path(), FIRST).await;
    let plain = bed.server.store_of("plain", BUCKET);
    let stored = listed(&plain, "", Depth::All).await.unwrap();
    bed.server.encrypt("wrong");
    let bed = bed.with("--restore-timeout=15s");
    let said = bed.refused();
    assert!(said.contains("undecryptable"), "{said}");
    assert!(is_empty(&bed.volume()));
    // Not even a start on vanilla writes there.
    let mut bed = bed.with("--store-down=start");
    let (said, start) = bed.start();
    assert_eq!(start.volumes[0].status, Status::Provisional, "{said}");
    assert_eq!(listed(&plain, "", Depth::All).await.unwrap(), stored);
    bed.server.encrypt("right");
    bed.flags.clear();
    bed.start();
    assert_eq!(
        fs::read_to_string(bed.volume().join("configuration.yaml")).unwrap(),
        "title: home\n"
    );
}

#[tokio::test]
async fn a_certificate_that_nobody_knows_is_no_empty_store() {
    let mut bed = Bed::on(S3::of(support::Kind::Rclone)).with("--restore-timeout=15s");
    bed.server.certify();
    let said = bed.refused();
    assert!(said.contains("x509"), "{said}");
    assert!(is_empty(&bed.volume()));
}

#[tokio::test]
async fn a_store_that_goes_away_in_the_middle_is_waited_for_and_what_came_is_kept() {
    let bed = Bed::new();
    let before = many();
    bed.backup(before.path(), FIRST).await;
    let wire = Wire::to(bed.server.port());
    bed.server.configure("RCLONE_CONFIG_MINIO_ENDPOINT", &wire.endpoint());
    // In time: the same start goes on.
    wire.cut_after(500_000);
    let log = tempfile::NamedTempFile::new().unwrap();
    let said = || std::fs::read_to_string(log.path()).unwrap();
    let mut starting = bed
        .init()
        .stdout(std::process::Stdio::null())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    while !said().contains("trying again") {
        assert_eq!(starting.try_wait().unwrap(), None, "{}", said());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(
        is_empty(&bed.volume()),
        "nothing is in its place before all of it has come"
    );
    wire.mend();
    assert!(starting.wait().unwrap().success(), "{}", said());
    assert_eq!(seen(&bed.volume()), seen(before.path()));
    // Not in time: the app does not start, and the next start fetches what is missing.
    bed.lose_volume();
    wire.cut_after(500_000);
    let mut bed = bed.with("--restore-timeout=10s");
    bed.refused();
    assert!(is_empty(&bed.volume()));
    wire.cut_after(1_200_000);
    bed.flags.clear();
    bed.start();
    assert!(!wire.is_cut(), "what had come was not fetched again");
    assert_eq!(seen(&bed.volume()), seen(before.path()));
}

/// Runs init in a mount namespace with a volume of its own.
fn on_a_volume(bed: &Bed, mount: &str) -> Option<Command> {
    in_namespace(
        "--mount",
        &format!("mount -t tmpfs -o {mount} none '{}'", bed.volume().display()),
    )
}

#[tokio::test]
async fn a_volume_that_is_too_small_is_said_and_holds_nothing_by_half() {
    let bed = Bed::new();
    let before = many();
    bed.backup(before.path(), FIRST).await;
    let (Some(small), Some(large)) = (on_a_volume(&bed, "size=600k"), on_a_volume(&bed, "size=64m")) else {
        return;
    };
    let mut bed = bed.with("--restore-timeout=15s");
    let said = bed.refused_by(small);
    assert!(said.contains("there is no space left"), "{said}");
    assert!(
        !said.contains("trying the one before"),
        "an older snapshot is no answer to that: {said}"
    );
    bed.flags.clear();
    let output = bed.init_by(large).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn where_a_volume_lacks_room_what_is_live_comes_back_and_what_is_held_stays_held() {
    let Some(disk) = Disk::of("64m") else { return };
    let mut app = App::of(Bed::in_folder(disk.path(), S3::start()));
    app.bed.tier = "tier2";
    let document = |number: u8| (format!("documents/{number}"), vec![number; 1 << 20]);
    for number in 0..16 {
        let (path, content) = document(number);
        // Four are live later, twelve are not.
        let path = if number < 4 { format!("kept-{number}") } else { path };
        write(&app.path(&path), content);
    }
    app.start();
    let destination = |app: &App| app.status()["destinations"]["minio:backups/app"].clone();
    app.until("everything is saved", |app| destination(app)["files"] == 16);
    fs::remove_dir_all(app.path("documents")).unwrap();
    app.until("what vanished is held", |app| destination(app)["held"]["files"] == 12);
    app.stop();
    app.lose_volume();
    disk.resize("10m");
    let said = app.start();
    let back = fs::read_dir(app.path("documents")).unwrap().count();
    assert!((1..12).contains(&back), "{back}\n{said}");
    let left_out = format!("the volume has no room for {} files", 12 - back);
    assert!(said.contains(&left_out), "{said}");
    for number in 0..4 {
        assert_eq!(
            fs::read(app.path(&format!("kept-{number}"))).unwrap(),
            vec![number; 1 << 20]
        );
    }
    // What is back is live, the rest is held, and all of it is in each snapshot.
    write(&app.path("new"), "written afterwards");
    app.until("it is saved", |app| destination(app)["files"] == 17);
    app.until("the rest is held", |app| destination(app)["held"]["files"] == 12 - back);
    app.stop();
    let place = Place::read(&app.bed.server);
    let newest = place.newest();
    let files = place.files(&newest);
    assert_eq!(files["new"], b"written afterwards");
    for number in 4..16 {
        let (path, content) = document(number);
        assert!(files[&path] == content, "{path}");
        let entries = place.entries(&newest);
        let entry = entries.iter().find(|entry| entry.place().1 == path.as_bytes()).unwrap();
        assert_eq!(entry.standing.is_live(), app.path(&path).exists(), "{path}");
    }
    // With more room, somebody has them all back.
    disk.resize("64m");
    app.bed.flags.push(format!("--restore-at={newest}"));
    app.start();
    assert_eq!(tree(&app.bed.volume()), files);
}

#[tokio::test]
async fn a_volume_that_is_read_only_is_said() {
    let bed = Bed::new();
    let before = lived_in();
    bed.backup(before.path(), FIRST).await;
    let Some(command) = on_a_volume(&bed, "ro") else {
        return;
    };
    let said = bed.refused_by(command);
    assert!(said.contains("Read-only file system"), "{said}");
}

#[tokio::test]
async fn a_volume_that_this_user_may_not_write_is_said_with_the_ways_out() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bed = Bed::new();
    let before = lived_in();
    bed.backup(before.path(), FIRST).await;
    std::os::unix::fs::chown(bed.volume(), Some(1234), Some(4321)).unwrap();
    let said = bed.refused_by(without_override());
    assert!(
        said.contains("for user 0:0, it belongs to 1234:4321") && said.contains("vixens.io/backup-run-as"),
        "{said}"
    );
    assert!(is_empty(&bed.volume()));
}

/// Root may write everywhere, unless it may not.
fn without_override() -> Command {
    let mut command = Command::new("setpriv");
    for set in ["--bounding-set", "--inh-caps"] {
        command.args([set, "-dac_override,-dac_read_search"]);
    }
    command.arg(env!("CARGO_BIN_EXE_vixens-backup"));
    command
}

#[tokio::test]
async fn going_back_is_refused_before_anything_changes_where_a_folder_can_not_be_written() {
    use std::os::unix::fs::{PermissionsExt, chown};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bed = Bed::new();
    let before = lived_in();
    write(&before.path().join("modules/v1/a.go"), "package a");
    write(&before.path().join("theirs/b"), "saved");
    for folder in ["modules/v1", "modules"] {
        fs::set_permissions(before.path().join(folder), fs::Permissions::from_mode(0o555)).unwrap();
    }
    bed.backup(before.path(), "20261122T130500Z-1.1-auto").await;
    let mut bed = bed.with("--restore=never");
    bed.start();
    write(&bed.volume().join("modules/v1/a.go"), "package changed");
    write(&bed.volume().join("modules/v2/b.go"), "package b");
    write(&bed.volume().join("theirs/b"), "changed");
    for folder in ["modules/v1", "modules/v2", "modules"] {
        fs::set_permissions(bed.volume().join(folder), fs::Permissions::from_mode(0o555)).unwrap();
    }
    chown(bed.volume().join("theirs"), Some(1234), Some(4321)).unwrap();
    let whole = seen(&bed.volume());
    bed.flags = vec!["--restore-at=20261122T130500Z-1.1-auto".to_owned()];
    let said = bed.refused_by(without_override());
    assert!(
        said.contains("volume/theirs") && said.contains("it belongs to 1234:4321"),
        "{said}"
    );
    assert_eq!(seen(&bed.volume()), whole);
    bed.flags.clear();
    bed.start();
    assert_eq!(seen(&bed.volume()), whole);
    // Folders of ours that forbid it are no obstacle, and forbid it afterwards.
    chown(bed.volume().join("theirs"), Some(0), Some(0)).unwrap();
    bed.flags = vec!["--restore-at=20261122T130500Z-1.1-auto".to_owned()];
    let output = bed.init_by(without_override()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(seen(&bed.volume()), seen(before.path()));
}

#[tokio::test]
async fn a_clock_that_was_set_back_keeps_nobody_waiting_and_loses_nothing() {
    let bed = Bed::new().with("--restore-timeout=60s");
    let before = many();
    // All of it was written by a pod whose clock was a day ahead; it is gone, and has let go of nothing.
    let ahead = Timestamp::now() + SignedDuration::from_hours(24);
    let id = format!("{}-3.1-auto", ahead.strftime("%Y%m%dT%H%M%SZ"));
    bed.claim(bed.owner(), 3, "theirs", "app-0", "g0").await;
    bed.backup(before.path(), &id).await;
    bed.heartbeat(3, "theirs", ahead, false).await;
    let (said, start) = bed.start();
    assert_eq!(start.volumes[0].restored, Some(id.parse().unwrap()), "{said}");
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{said}"
    );
    assert_eq!(seen(&bed.volume()), seen(before.path()));
}

#[tokio::test]
async fn a_truncated_index_falls_back_loudly_and_is_never_no_backup() {
    let mut bed = Bed::new();
    let volume = tempfile::tempdir().unwrap();
    write(&volume.path().join("a"), "first");
    bed.backup(volume.path(), FIRST).await;
    write(&volume.path().join("b"), "second");
    bed.backup(volume.path(), SECOND).await;
    let whole = |key: &str| {
        let key = key.to_owned();
        let store = bed.store();
        async move { store.read(&key).await.unwrap() }
    };
    let (first, second) = (
        whole(&format!("snapshots/{FIRST}.json")).await,
        whole(&format!("snapshots/{SECOND}.json")).await,
    );
    bed.server
        .place(&format!("app/snapshots/{SECOND}.json"), &second[..second.len() - 40]);
    let (said, start) = bed.start();
    assert_eq!(start.volumes[0].restored, Some(FIRST.parse().unwrap()));
    assert!(said.contains("WARNING") && said.contains(SECOND), "{said}");
    // Nothing tells any more what the bucket has beside it: it is brought, and said.
    assert!(said.contains("without anything to verify them by"), "{said}");
    assert_eq!(fs::read_to_string(bed.volume().join("b")).unwrap(), "second");
    // None is whole: the app does not start, until somebody has looked at what there is.
    bed.lose_volume();
    bed.server
        .place(&format!("app/snapshots/{FIRST}.json"), &first[..first.len() / 2]);
    let bed = bed.with("--restore-timeout=15s");
    let question = bed.asked();
    assert!(question.text.contains("no index of the 2 snapshots"), "{question}");
    assert!(bed.store().read(&format!("{FOLDER}/a")).await.is_ok());
}

#[tokio::test]
async fn secrets_with_any_sign_are_laid_as_they_are() {
    let bed = Bed::new();
    let odd = "a=b $HOME ${X} \"quoted\" 'and so' `id` \\ #\nsecond line";
    write(
        &bed.defaults().join("app.conf"),
        "odd: ${ODD}\nenv: ${FROM_ENV}\nx: ${UNKNOWN}\n",
    );
    write(&bed.secrets().join("app/ODD"), odd);
    write(
        &bed.secrets().join("app/settings.env"),
        "# a comment\nexport FROM_ENV='it is = $5 \"now\"'\n",
    );
    let (said, _) = bed.start();
    let laid = fs::read_to_string(bed.volume().join("app.conf")).unwrap();
    assert_eq!(laid, format!("odd: {odd}\nenv: it is = $5 \"now\"\nx: ${{UNKNOWN}}\n"));
    assert!(said.contains("UNKNOWN") && !said.contains("quoted"), "{said}");
}

#[tokio::test]
async fn of_two_pods_that_start_at_once_one_holds_the_place() {
    let one = Bed::new();
    let mut two = Bed::on(S3::of(support::Kind::Rclone));
    two.pod = "app-2".to_owned();
    two.server
        .configure("RCLONE_CONFIG_MINIO_ENDPOINT", &one.server.endpoint());
    let before = lived_in();
    one.backup(before.path(), FIRST).await;
    let started = |bed: &Bed| {
        let mut command = bed.init();
        std::thread::spawn(move || command.output().unwrap())
    };
    let both = [started(&one), started(&two)].map(|one| one.join().unwrap());
    for output in &both {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let claims = claims::list(&one.store()).await.unwrap();
    let holds = |bed: &Bed| {
        let start = Start::read(&bed.restore_dir()).unwrap().unwrap();
        matches!(&start.destinations[0].writing, Writing::Claimed { holder } if claims.last() == Some(holder))
    };
    assert!(holds(&one) != holds(&two), "the place has one writer: {claims:?}");
    assert_eq!(seen(&one.volume()), seen(before.path()));
    assert_eq!(seen(&two.volume()), seen(before.path()));
}

#[tokio::test]
async fn a_damaged_newest_index_at_the_first_destination_leaves_the_newest_snapshot_to_the_second() {
    let bed = Bed::new();
    let source = lived_in();
    bed.backup(source.path(), FIRST).await;
    write(&source.path().join("since"), "since");
    bed.backup(source.path(), SECOND).await;
    let place = |name: &str| format!("minio:{BUCKET}/{name}");
    bed.server.rclone(&["copy", &place("app"), &place("second")]);
    let index = format!("snapshots/{SECOND}.json");
    bed.store().write(&index, b"{\"version\":1,").await.unwrap();
    let bed = bed.with(&format!("--destination={}", place("second")));
    let (said, start) = bed.start();
    assert_eq!(start.volumes[0].restored, Some(SECOND.parse().unwrap()), "{said}");
    assert!(said.contains(&format!("from {}", place("second"))), "{said}");
    assert_eq!(seen(&bed.volume()), seen(source.path()));
}

#[tokio::test]
async fn an_app_that_keeps_nothing_starts_while_its_store_is_away_until_it_has_kept_something() {
    let mut bed = Bed::new();
    bed.backup(tempfile::tempdir().unwrap().path(), FIRST).await;
    let record = bed.defaults().with_file_name("record");
    fs::create_dir(&record).unwrap();
    let text = format!(
        "{{\"version\":1,\"places\":{{\"minio:{BUCKET}/app\":{{\"snapshot\":\"{FIRST}\",\"time\":\"2026-11-22T13:05:02Z\"}}}}}}"
    );
    fs::write(record.join("record.json"), text).unwrap();
    bed.flags.push(format!("--record-dir={}", record.display()));
    bed.start();
    bed.server.stop();
    let (said, start) = bed.start();
    assert_eq!(start.volumes[0].status, Status::Settled, "{said}");
    fs::write(bed.volume().join("kept"), "k").unwrap();
    fs::remove_file(bed.volume().join("kept")).unwrap();
    bed.flags.push("--restore-timeout=2s".to_owned());
    let said = bed.refused();
    assert!(said.contains("could not be asked"), "{said}");
}
