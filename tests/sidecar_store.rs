//! The store answers, and not with what it had: its disk is not mounted, its bucket is gone for a while, a rule of the bucket
//! has removed what is old, nothing is deleted there. Nothing is lost by it, and backups go on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::fs;
use support::app::{App, create, insert, rows};
use support::host::Host;
use support::pod::{agent_backup, block_on, tree};
use support::{BUCKET, Kind, S3, write};
use vixens_backup::agent::prune::{Look, prune};
use vixens_backup::agent::start::Writing;
use vixens_backup::contract::question::Question;
use vixens_backup::contract::record::{RECORD_FILE, Record, RecordedPlace};
use vixens_backup::store::claims;
use vixens_backup::store::keys::{self, SnapshotObject};
use vixens_backup::store::records::encode;
use vixens_backup::store::state::{self, State};
use vixens_backup::store::{Depth, Error, Object, Store, listed, store_id};

const AWAY: &str = "is not the store that was here";

/// A pod at tier 2 with a full scan every few seconds.
fn pod(server: S3) -> App {
    let mut app = App::on(server);
    app.bed.tier = "tier2";
    app.sidecar_flags = vec!["--interval=10s".to_owned(), "--grace-period=60s".to_owned()];
    app
}

fn files(app: &App) -> BTreeMap<String, Vec<u8>> {
    tree(&app.bed.volume())
}

/// Waits until the newest snapshot has so many files.
fn until_saved(app: &App, files: u64) {
    app.until(&format!("{files} files are saved"), |app| {
        let status = &app.status()["destinations"]["minio:backups/app"];
        status["phase"] == "ready" && status["files"] == files
    });
}

/// The volume is lost, and another pod takes its place: its start, without a sidecar.
fn start_elsewhere(app: &mut App) -> String {
    app.bed.lose_volume();
    "app-2".clone_into(&mut app.bed.pod);
    "g2".clone_into(&mut app.bed.generation);
    let (said, start) = app.bed.start();
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{said}"
    );
    said
}

#[test]
fn a_store_that_is_not_mounted_for_a_while_costs_an_empty_dir_nothing() {
    for (kind, with_bucket) in [
        (Kind::Rclone, true),
        (Kind::Sftp, true),
        (Kind::Minio, true),
        (Kind::Minio, false),
    ] {
        let mut app = pod(S3::of(kind));
        write(&app.path("before"), "before");
        app.start();
        until_saved(&app, 1);
        app.bed.server.unmount(with_bucket);
        write(&app.path("meanwhile"), "meanwhile");
        app.until_said(AWAY);
        app.bed.server.mount();
        write(&app.path("after"), "after");
        until_saved(&app, 3);
        let expected = files(&app);
        app.stop();
        start_elsewhere(&mut app);
        assert_eq!(files(&app), expected, "{kind:?} {with_bucket}");
    }
}

#[test]
fn the_last_backup_of_an_empty_dir_waits_until_its_store_is_mounted_again() {
    let mut app = pod(S3::start());
    write(&app.path("before"), "before");
    app.start();
    until_saved(&app, 1);
    app.bed.server.unmount(true);
    write(&app.path("meanwhile"), "meanwhile");
    app.until_said(AWAY);
    app.terminate();
    app.until_said("stopping");
    app.bed.server.mount();
    app.ended();
    let expected = files(&app);
    start_elsewhere(&mut app);
    assert_eq!(files(&app), expected);
}

#[test]
fn an_object_that_was_lost_while_nobody_wrote_is_saved_anew_by_the_next_pod_that_has_its_data() {
    let mut app = pod(S3::start());
    for name in ["a", "b", "c"] {
        write(&app.path(name), name);
    }
    app.start();
    until_saved(&app, 3);
    app.stop();
    let expected = files(&app);
    app.bed
        .server
        .rclone(&["deletefile", &format!("minio:{BUCKET}/app/config/b")]);
    app.start();
    app.until_said("has lost 1 files");
    app.stop();
    start_elsewhere(&mut app);
    assert_eq!(files(&app), expected);
}

#[test]
fn a_share_of_samba_that_is_not_mounted_for_a_while_costs_an_empty_dir_nothing() {
    let mut server = S3::of(Kind::Rclone);
    let Some(mut samba) = Host::samba(&server) else {
        eprintln!("skipped: there is no smbd here (.tools/need smbd installs it)");
        return;
    };
    server.stop();
    let mut app = pod(server);
    write(&app.path("a"), "a");
    app.start();
    until_saved(&app, 1);
    samba.unmount(false);
    write(&app.path("b"), "b");
    app.until("its absence is told", |app| {
        app.status()["destinations"]["minio:backups/app"]["phase"] != "ready"
    });
    samba.mount();
    until_saved(&app, 2);
    samba.unmount(true);
    write(&app.path("c"), "c");
    app.until_said(AWAY);
    samba.mount();
    until_saved(&app, 3);
    let expected = files(&app);
    app.kill();
    start_elsewhere(&mut app);
    assert_eq!(files(&app), expected);
}

#[test]
fn claims_that_a_rule_of_the_bucket_removes_are_written_again_and_backups_go_on() {
    let mut app = pod(S3::of(Kind::Minio));
    write(&app.path("a"), "a");
    app.start();
    until_saved(&app, 1);
    let store = app.bed.store();
    let claims = || block_on(store.exchange("requests/none", b"", &[keys::CLAIMS])).unwrap();
    let before = claims();
    assert_eq!(before.len(), 1);
    app.bed
        .server
        .rclone(&["delete", &format!("minio:{BUCKET}/app/claims")]);
    // Whoever looks at it next writes it again: that may be at once.
    write(&app.path("b"), "b");
    until_saved(&app, 2);
    assert_eq!(claims(), before, "byte by byte");
    app.stop();
}

#[test]
fn a_start_on_an_empty_dir_while_the_store_is_not_mounted_waits_and_asks() {
    let mut app = pod(S3::of(Kind::Minio));
    write(&app.path("a"), "a");
    app.start();
    until_saved(&app, 1);
    app.stop();
    let expected = files(&app);
    // What the controller has recorded meanwhile.
    let store = app.bed.store();
    let snapshots = block_on(listed(&store, keys::SNAPSHOTS, Depth::All)).unwrap();
    let newest = snapshots
        .iter()
        .filter_map(|object| match keys::of_snapshot(&object.name) {
            SnapshotObject::Index(id) => Some(id),
            _ => None,
        });
    let place = RecordedPlace {
        store_id: block_on(store_id::read(&store)).unwrap().map(String::from),
        snapshot: newest.max().map(|id| id.to_string()),
        time: jiff::Timestamp::now(),
    };
    let record = Record {
        places: [(format!("minio:{BUCKET}/app"), place)].into(),
        ..Record::default()
    };
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join(RECORD_FILE), record.to_json());
    app.bed.flags = vec![
        format!("--record-dir={}", folder.path().display()),
        "--restore-timeout=12s".to_owned(),
    ];
    for with_bucket in [true, false] {
        app.bed.server.unmount(with_bucket);
        app.bed.lose_volume();
        let output = app.bed.init().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("vixens-backup asks startnew-"), "{said}");
        assert_eq!(fs::read_dir(app.bed.volume()).unwrap().count(), 0);
        app.bed.server.mount();
    }
    app.bed.flags.truncate(1);
    start_elsewhere(&mut app);
    assert_eq!(files(&app), expected);
}

#[test]
fn what_rots_on_the_disk_of_minio_costs_itself_and_no_start_and_no_other_file() {
    let mut app = pod(S3::of(Kind::Minio));
    for name in ["a", "b", "c"] {
        write(&app.path(name), name);
    }
    app.start();
    until_saved(&app, 3);
    app.stop();
    let mut expected = files(&app);
    let store = app.bed.store();
    let claims = block_on(claims::list(&store)).unwrap();
    let newest = block_on(state::read(&store)).unwrap().unwrap().last.unwrap();
    for key in [keys::STATE, &claims[0].key(), &keys::snapshot(&newest)] {
        app.bed.server.rot(&format!("app/{key}"));
    }
    start_elsewhere(&mut app);
    assert_eq!(files(&app), expected, "what is known of the files is not the files");

    app.bed.server.rot("app/config/b");
    app.bed.lose_volume();
    let init = |app: &App| {
        let output = app.bed.init().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = init(&app);
    let question = Question::find(&said).unwrap_or_else(|| panic!("{code:?} {said}"));
    assert!(said.contains("b is MISSING"), "{said}");
    app.bed.flags.push(format!("--accept={}", question.id));
    let (code, said) = init(&app);
    assert_eq!(code, Some(0), "{said}");
    expected.remove("b");
    assert_eq!(files(&app), expected, "{said}");
}

/// A life in which files change and go, and history is thinned all the time; then the volume is lost.
fn lives(mut app: App) -> App {
    app.sidecar_flags.push("--retention=last=2".to_owned());
    for name in ["a", "b", "c", "d"] {
        write(&app.path(name), name);
    }
    app.start();
    until_saved(&app, 4);
    fs::remove_file(app.path("b")).unwrap();
    until_saved(&app, 3);
    for round in ["one", "two", "three"] {
        write(&app.path("a"), round);
        write(&app.path(round), round);
        let count = files(&app).len() as u64;
        until_saved(&app, count);
    }
    // The agent is killed, and goes on.
    app.kill();
    app.start_sidecar();
    write(&app.path("b"), "b is back");
    until_saved(&app, 7);
    let expected = files(&app);
    app.stop();
    start_elsewhere(&mut app);
    assert_eq!(files(&app), expected);
    app
}

#[test]
fn a_bucket_that_locks_its_objects_and_one_with_versions_are_places_like_others() {
    let versioned = S3::of(Kind::Minio);
    versioned.rclone(&["backend", "versioning", &format!("minio:{BUCKET}"), "Enabled"]);
    for server in [S3::locked(), versioned] {
        let app = lives(pod(server));
        let deleted = app
            .bed
            .server
            .rclone(&["lsf", "-R", "--files-only", &format!("minio:{BUCKET}/app/config")]);
        assert!(!app.log().contains("ERROR"), "{}", app.log());
        assert!(!deleted.contains(".pending"));
        // What was deleted is hidden, and hidden it is from us.
        let versions = format!("minio:{BUCKET}/app/snapshots");
        let all = app.bed.server.rclone(&["lsf", "--s3-versions", &versions]);
        let shown = app.bed.server.rclone(&["lsf", &versions]);
        assert!(
            all.contains(".pending") && !shown.contains(".pending"),
            "{all}\n{shown}"
        );
    }
}

#[test]
fn where_the_key_may_not_delete_backups_and_restores_go_on_and_that_is_said_once() {
    let server = S3::of(Kind::Minio);
    server.may_only_add();
    let app = lives(pod(server));
    // Once by each sidecar that has lived.
    assert_eq!(
        app.log().matches("does not delete what it is asked to").count(),
        2,
        "{}",
        app.log()
    );
    assert!(!app.log().contains("ERROR"), "{}", app.log());
    let store = app.bed.store();
    let undone = block_on(store.delete(keys::SNAPSHOTS, &["none.json".to_owned()]));
    assert!(
        matches!(undone, Err(Error::Refused { .. })),
        "it refuses still: {undone:?}"
    );
    // Kept in history when it went, and once more when it came back over the copy that had stayed.
    let history = app
        .bed
        .server
        .rclone(&["lsf", "-R", "--files-only", &format!("minio:{BUCKET}/app/history")]);
    assert_eq!(history.matches("/config/b\n").count(), 2, "{history}");
}

#[test]
fn without_a_sidecar_a_claim_that_is_gone_is_written_again_by_the_next_run() {
    let app = pod(S3::of(Kind::Minio));
    write(&app.path("a"), "a");
    app.bed.start();
    let scratch = tempfile::tempdir().unwrap();
    let volume = format!("--volume=data:config:{}", app.bed.volume().display());
    let run = || {
        let output = agent_backup(&app.bed.server, scratch.path(), std::slice::from_ref(&volume));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    };
    run();
    let store = app.bed.store();
    let claims = || block_on(claims::list(&store)).unwrap();
    let before = claims();
    app.bed
        .server
        .rclone(&["delete", &format!("minio:{BUCKET}/app/claims")]);
    assert_eq!(claims(), []);
    write(&app.path("b"), "b");
    let said = run();
    assert!(
        said.contains("it is written again") && said.contains("1 files, 1 bytes saved"),
        "{said}"
    );
    assert_eq!(claims(), before);
    let claim = block_on(claims::read(&store, &before[0])).unwrap();
    assert_eq!(claim.owner, app.bed.owner());
}

/// Files, each of which makes a snapshot.
const SOME: [&str; 5] = ["a", "b", "c", "d", "e"];

#[test]
fn a_clock_that_jumps_ten_years_ahead_removes_no_snapshot() {
    for kind in [Kind::Rclone, Kind::Minio, Kind::Sftp] {
        let mut app = pod(S3::of(kind));
        app.start();
        for (count, name) in (1..).zip(SOME) {
            write(&app.path(name), name);
            until_saved(&app, count);
        }
        app.stop();
        let store = app.bed.store();
        let in_ten_years = Timestamp::now() + SignedDuration::from_hours(10 * 365 * 24);
        let (rules, scratch) = ("7d".parse().unwrap(), tempfile::tempdir().unwrap());
        let pruned = block_on(prune(
            &store,
            &rules,
            Look::Thoroughly,
            in_ten_years,
            None,
            None,
            scratch.path(),
        ))
        .unwrap();
        // Each of these says when it wrote the indexes: nothing looks old, and nothing has to be put off.
        assert_eq!(pruned.plan.dropped, [], "{kind:?}");
        assert_eq!(pruned.pruning.unwrap().put_off, None, "{kind:?}");
        assert!(pruned.plan.kept.len() >= SOME.len(), "{kind:?}");
    }
}

#[test]
fn without_a_sidecar_too_it_is_known_by_which_rules_the_run_before_has_pruned() {
    let app = pod(S3::start());
    app.bed.start();
    let scratch = tempfile::tempdir().unwrap();
    let volume = format!("--volume=data:config:{}", app.bed.volume().display());
    let run = |rules: &str| {
        let arguments = [volume.clone(), format!("--retention={rules}")];
        let output = agent_backup(&app.bed.server, scratch.path(), &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let state = block_on(state::read(&app.bed.store())).unwrap().unwrap();
        (said, state.pruning.unwrap())
    };
    let snapshots = || {
        let listed = block_on(listed(&app.bed.store(), keys::SNAPSHOTS, Depth::All)).unwrap();
        let is_index = |object: &&Object| matches!(keys::of_snapshot(&object.name), SnapshotObject::Index(_));
        listed.iter().filter(is_index).count()
    };
    for name in SOME {
        write(&app.path(name), name);
        let (_, pruning) = run("7d");
        assert_eq!((&*pruning.rules, pruning.put_off), ("7d", None));
    }
    assert_eq!(snapshots(), SOME.len());
    // A pod of the former release was here, and does not say.
    let store = app.bed.store();
    let before = block_on(state::read(&store)).unwrap().unwrap();
    let silent = State {
        pruning: None,
        ..before.clone()
    };
    block_on(store.write(keys::STATE, &encode(&silent))).unwrap();
    let (said, pruning) = run("last=1");
    assert!(said.contains("that is put off for an hour"), "{said}");
    assert!(pruning.put_off.is_some());
    let (said, again) = run("last=1");
    assert!(!said.contains("put off"), "{said}");
    assert_eq!(again, pruning);
    assert_eq!(snapshots(), SOME.len());
    block_on(store.write(keys::STATE, &encode(&before))).unwrap();
    let (_, pruning) = run("last=1");
    assert_eq!((&*pruning.rules, pruning.put_off), ("last=1", None));
    assert_eq!(snapshots(), 2, "what the owner asks for is done at once");
}

#[test]
fn a_run_says_what_the_start_of_its_pod_has_asked_and_writes_once_that_is_accepted() {
    let mut app = pod(S3::start());
    write(&app.path("a"), "a");
    app.bed.start();
    let run = |app: &App| {
        let scratch = tempfile::tempdir().unwrap();
        let volume = format!("--volume=data:config:{}", app.bed.volume().display());
        let output = agent_backup(&app.bed.server, scratch.path(), &[volume]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    assert_eq!(run(&app).0, Some(0));
    // Another cluster, while nobody can see whether that one is still there.
    app.bed.lose_volume();
    (app.bed.cluster, app.bed.pod) = ("c2".to_owned(), "app-2".to_owned());
    let (_, start) = app.bed.start();
    let Writing::Asks { question } = &start.destinations[0].writing else {
        panic!("{:?}", start.destinations);
    };
    write(&app.path("b"), "b");
    let (code, said) = run(&app);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(&question.to_string()), "{said}");
    assert!(!said.contains("taken over"), "{said}");
    app.bed.flags.push(format!("--accept={}", question.id));
    app.bed.pod = "app-3".to_owned();
    app.bed.start();
    let (code, said) = run(&app);
    assert_eq!(code, Some(0), "{said}");
    let expected = files(&app);
    start_elsewhere(&mut app);
    assert_eq!(files(&app), expected);
}

#[test]
fn databases_catch_up_once_their_store_is_mounted_again() {
    let mut app = App::on(S3::start());
    let writer = create(&app.path("app.db"), "wal");
    insert(&writer, 0, 10);
    app.start();
    app.until_replicated("app.db");
    app.bed.server.unmount(true);
    insert(&writer, 10, 10);
    app.until_said("databases can't be sent, and wait on the volume");
    insert(&writer, 20, 10);
    app.bed.server.mount();
    app.until_said("the store is back: databases catch up");
    insert(&writer, 30, 10);
    drop(writer);
    app.stop();
    app.lose_volume();
    let (said, _) = app.bed.start();
    assert_eq!(rows(&app.path("app.db")), (0..40).collect::<Vec<_>>(), "{said}");
}
