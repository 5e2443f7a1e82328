//! The sidecar on bad days: the store goes away, the process is killed, names and files are odd, the node is short of
//! what it needs. Nothing that was published is lost, and the sidecar never ends by itself.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::S3;
use support::pod::{PLACE, Place, Pod, agent_backup, block_on, free_address, in_namespace, tree, until_place};
use support::wire::Wire;
use vixens_backup::store::index::What;
use vixens_backup::store::{Depth, Store, keys, listed};

fn said(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

fn settled(place: &Place, snapshots: usize) -> bool {
    place.snapshots.len() == snapshots && place.pending.is_empty()
}

#[test]
fn what_changed_while_the_store_was_down_is_saved_when_it_is_back() {
    let mut server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| settled(place, 1));
    server.stop();
    pod.write("a", "two");
    pod.write("b", "new");
    pod.until_said("can't be reached", 1);
    let down = pod.http("GET /metrics", "", "");
    assert!(
        down.contains(r#"vixens_backup_store_up{destination="minio:backups/app"} 0"#),
        "{down}"
    );
    assert!(pod.status()["unsaved_change_age"].as_f64() > Some(0.0));
    server.resume();
    let place = until_place(&server, |place| settled(place, 2));
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
    pod.until_status(|status| status["unsaved_change_age"] == 0.0);
    let up = pod.http("GET /metrics", "", "");
    assert!(
        up.contains(r#"vixens_backup_store_up{destination="minio:backups/app"} 1"#),
        "{up}"
    );
}

#[test]
fn a_kill_at_any_moment_loses_no_snapshot_and_the_next_start_brings_all_in_order() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("first", "first");
    pod.init(&server);
    let begun = Instant::now();
    pod.start();
    until_place(&server, |place| settled(place, 1));
    // As long as a start with its first backup takes on this machine, now.
    let whole = u64::try_from(begun.elapsed().as_millis()).unwrap();
    pod.kill();
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut published = std::collections::BTreeMap::new();
    let enough = Instant::now() + Duration::from_secs(30);
    for round in 0..200_u64 {
        // On a busy machine each kill takes longer, and fewer have to do.
        if round >= 32 && published.len() > 5 && Instant::now() > enough {
            break;
        }
        // A different content each time, so that every snapshot can be told from the others.
        for file in 0..8 {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let path = pod.path(&format!("d{}/f{file}", dice % 3));
            if dice.is_multiple_of(5) && path.exists() {
                fs::remove_file(path).unwrap();
            } else {
                pod.write(&format!("d{}/f{file}", dice % 3), format!("{round} {dice}"));
            }
        }
        let before = tree(pod.volume.path());
        pod.start();
        std::thread::sleep(Duration::from_millis(dice % whole));
        pod.kill();
        if round % 8 == 7 {
            let place = Place::read(&server);
            for (id, files) in &published {
                assert_eq!(&place.files(id), files, "{id} after {round} kills");
            }
            for id in &place.snapshots {
                published.entry(*id).or_insert_with(|| place.files(id));
            }
        }
        assert_eq!(tree(pod.volume.path()), before, "the volume is never written");
    }
    pod.start();
    pod.until_status(|status| status["destinations"]["minio:backups/app"]["phase"] == "ready");
    assert!(pod.stop().success());
    let place = Place::read(&server);
    assert_eq!(place.pending, []);
    for (id, files) in &published {
        assert_eq!(&place.files(id), files, "{id} in the end");
    }
    assert!(
        published.len() > 5,
        "only {} snapshots were made between the kills",
        published.len()
    );
    let volume = tree(pod.volume.path());
    assert_eq!(place.files(&place.newest()), volume);
    let mirror: Vec<&String> = place.keys.iter().filter(|key| key.starts_with("config/")).collect();
    assert_eq!(
        mirror.len(),
        volume.len(),
        "the mirror is what the volume is: {mirror:?}"
    );
}

#[test]
fn names_that_no_store_can_hold_come_back_as_they_are() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    let names: Vec<Vec<u8>> = vec![
        b"new\nline".to_vec(),
        b" leading".to_vec(),
        b"trailing ".to_vec(),
        b"-rf".to_vec(),
        b"[a]*?{b,c}.txt".to_vec(),
        b"#comment".to_vec(),
        b"; semicolon".to_vec(),
        b"invalid \xff\xfe".to_vec(),
        vec![b'x'; 255],
        "caf\u{e9}".as_bytes().to_vec(),
        "cafe\u{301}".as_bytes().to_vec(),
        b"back\\slash".to_vec(),
        b"quote\"'$HOME`".to_vec(),
        "\u{ff0f}\u{2424}".as_bytes().to_vec(),
        [b"deep ".as_slice(), b"/er /file "].concat(),
    ];
    for name in &names {
        let path = pod.volume.path().join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    pod.init(&server);
    pod.start();
    let place = until_place(&server, |place| settled(place, 1));
    let found: Vec<Vec<u8>> = place
        .entries(&place.newest())
        .iter()
        .filter(|entry| matches!(entry.what, What::File(_)))
        .map(|entry| entry.place().1.to_vec())
        .collect();
    let mut expected = names.clone();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(place.files(&place.newest()).len(), names.len(), "each was verified");
    // And they are seen when they change, and when they go.
    fs::write(pod.path("trailing "), "changed").unwrap();
    fs::remove_file(pod.path("new\nline")).unwrap();
    let place = until_place(&server, |place| settled(place, 2));
    let files = place.files(&place.newest());
    assert_eq!(files.get("trailing ").unwrap(), b"changed");
    assert!(!files.contains_key("new\nline"));
    assert_eq!(place.files(&place.snapshots[0]).len(), names.len());
}

#[test]
fn links_empty_folders_and_modes_are_in_the_snapshot() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("run.sh", "#!/bin/sh");
    fs::set_permissions(pod.path("run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::create_dir_all(pod.path("empty/inner")).unwrap();
    symlink("../elsewhere", pod.path("link")).unwrap();
    pod.init(&server);
    pod.start();
    until_place(&server, |place| settled(place, 1));
    fs::set_permissions(pod.path("run.sh"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(pod.path("link")).unwrap();
    symlink("new-target", pod.path("link")).unwrap();
    let place = until_place(&server, |place| settled(place, 2));
    let entries = place.entries(&place.newest());
    let find = |path: &str| &entries.iter().find(|entry| entry.path == path.as_bytes()).unwrap().what;
    assert!(matches!(find("config/"), What::Folder(_)));
    assert!(matches!(find("config/empty/inner/"), What::Folder(_)));
    assert!(matches!(find("config/link"), What::Link(target, _) if target == b"new-target"));
    let What::File(script) = find("config/run.sh") else {
        panic!("a file is a file");
    };
    assert_eq!(script.attributes.mode, 0o700);
    assert_eq!(
        script.stored.sequence, 1,
        "only its mode changed: it was not uploaded again"
    );
}

#[test]
fn a_file_that_never_rests_is_saved_as_something_that_it_was() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("rests", "rests");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| settled(place, 1));
    let (path, ended) = (pod.path("grows"), Arc::new(AtomicBool::new(false)));
    let writer = std::thread::spawn({
        let ended = ended.clone();
        move || {
            use std::io::Write;
            let mut file = fs::File::create(path).unwrap();
            while !ended.load(Ordering::SeqCst) {
                file.write_all(&[b'x'; 1000]).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let place = until_place(&server, |place| {
        place.content("config/grows").is_some() && place.pending.is_empty()
    });
    let files = place.files(&place.newest());
    assert!(files["grows"].iter().all(|byte| *byte == b'x'));
    ended.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    until_place(&server, |place| {
        place.pending.is_empty() && place.files(&place.newest()) == tree(pod.volume.path())
    });
}

#[test]
fn a_second_sigterm_ends_at_once_and_leaves_no_process_behind() {
    let mut server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.arguments = vec!["--grace-period=1h".to_owned()];
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| settled(place, 1));
    // A store that takes connections and never answers.
    server.stop();
    let silent = server.listen_silently();
    pod.write("a", "two");
    pod.signal(Signal::TERM);
    pod.until_said("stopping", 1);
    let accepted = silent.accept().unwrap();
    let children = pod.children();
    assert!(!children.is_empty(), "an rclone waits for the store");
    let begun = Instant::now();
    pod.signal(Signal::TERM);
    assert!(pod.ended().success());
    assert!(begun.elapsed() < Duration::from_secs(30));
    let gone = Instant::now() + Duration::from_secs(30);
    while children
        .iter()
        .any(|child| fs::metadata(format!("/proc/{child}/exe")).is_ok())
    {
        assert!(Instant::now() < gone, "{children:?} are left behind");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(accepted);
}

#[test]
fn one_destination_that_is_down_holds_up_no_other() {
    let server = S3::start();
    let mut broken = S3::start();
    for (key, value) in [
        ("TYPE", "s3"),
        ("PROVIDER", "Minio"),
        ("ACCESS_KEY_ID", support::ACCESS_KEY),
    ] {
        server.configure(&format!("RCLONE_CONFIG_OTHER_{key}"), value);
    }
    server.configure("RCLONE_CONFIG_OTHER_SECRET_ACCESS_KEY", support::SECRET_KEY);
    server.configure("RCLONE_CONFIG_OTHER_ENDPOINT", &broken.endpoint());
    let mut pod = Pod::new(&server, "aa");
    pod.also("other", &broken);
    pod.write("a", "one");
    pod.init(&server);
    broken.stop();
    pod.start();
    until_place(&server, |place| settled(place, 1));
    pod.write("a", "two");
    let place = until_place(&server, |place| settled(place, 2));
    assert_eq!(place.content("config/a").unwrap(), b"two");
    broken.resume();
    let place = until_place(&broken, |place| {
        place.content("config/a").is_some() && place.pending.is_empty()
    });
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
}

#[test]
fn without_inotify_instances_full_scans_find_what_changes() {
    let Some(command) = in_namespace("--user", "echo 0 > /proc/sys/user/max_inotify_instances") else {
        return;
    };
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.arguments = vec!["--interval=10s".to_owned()];
    pod.write("a", "one");
    pod.init(&server);
    pod.start_with(command);
    pod.until_said("EMFILE", 1);
    until_place(&server, |place| settled(place, 1));
    pod.write("a", "two");
    let place = until_place(&server, |place| settled(place, 2));
    assert_eq!(place.content("config/a").unwrap(), b"two");
    assert!(pod.status()["watch"].as_str().unwrap().contains("full scans"));
}

#[test]
fn without_inotify_watches_full_scans_find_what_changes() {
    let Some(command) = in_namespace("--user", "echo 2 > /proc/sys/user/max_inotify_watches") else {
        return;
    };
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.arguments = vec!["--interval=10s".to_owned()];
    for folder in ["a", "b", "c", "d"] {
        pod.write(&format!("{folder}/file"), "one");
    }
    pod.init(&server);
    pod.start_with(command);
    pod.until_said("ENOSPC", 1);
    until_place(&server, |place| settled(place, 1));
    for folder in ["a", "b", "c", "d"] {
        pod.write(&format!("{folder}/file"), "two");
    }
    until_place(&server, |place| {
        place.pending.is_empty() && place.files(&place.newest()) == tree(pod.volume.path())
    });
}

#[test]
fn a_volume_that_turned_read_only_is_said_and_not_mirrored() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.arguments = vec!["--interval=10s".to_owned()];
    pod.write("a", "one");
    pod.init(&server);
    let trigger = pod.scratch.path().join("turn");
    let script = format!(
        r#"volume="{volume}"; cp -a "$volume" "{copy}"; mount -t tmpfs none "$volume"; cp -a "{copy}/." "$volume"
        (while [ ! -e "{trigger}" ]; do sleep 0.1; done; echo two > "$volume/a"; mount -o remount,ro "$volume") >/dev/null 2>&1 &"#,
        volume = pod.volume.path().display(),
        copy = pod.scratch.path().join("copy").display(),
        trigger = trigger.display(),
    );
    let Some(command) = in_namespace("--mount", &script) else {
        return;
    };
    pod.start_with(command);
    until_place(&server, |place| settled(place, 1));
    fs::write(trigger, "").unwrap();
    pod.until_said("has turned read-only", 1);
    let metrics = pod.http("GET /metrics", "", "");
    assert!(
        metrics.contains(r#"vixens_backup_guard_refusals_total{reason="read-only"}"#),
        "{metrics}"
    );
    assert_eq!(Place::read(&server).content("config/a").unwrap(), b"one");
}

#[test]
fn a_volume_that_went_away_is_not_mirrored() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.arguments = vec!["--max-shrink=100%".to_owned()];
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    let before = until_place(&server, |place| settled(place, 1));
    // As after an unmount: the path is there, and empty.
    fs::rename(pod.volume.path(), pod.scratch.path().join("moved")).unwrap();
    fs::create_dir(pod.volume.path()).unwrap();
    pod.until_said("has lost its marker", 1);
    assert!(pod.stop().success());
    let after = Place::read(&server);
    assert_eq!(
        (after.snapshots, after.keys.contains(&"config/a".to_owned())),
        (before.snapshots, true)
    );
}

#[test]
fn a_file_that_can_not_be_read_keeps_what_was_saved_of_it() {
    use std::os::unix::fs::PermissionsExt;
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("mine", "one");
    pod.write("closed", "one");
    pod.init(&server);
    if rustix::process::geteuid().is_root() {
        // Root reads everything, unless it may not.
        let mut command = Command::new("setpriv");
        for set in ["--bounding-set", "--inh-caps"] {
            command.args([set, "-dac_override,-dac_read_search"]);
        }
        command.arg(env!("CARGO_BIN_EXE_vixens-backup"));
        pod.start_with(command);
    } else {
        pod.start();
    }
    until_place(&server, |place| settled(place, 1));
    fs::remove_file(pod.path("closed")).unwrap();
    pod.write("closed", "two");
    fs::set_permissions(pod.path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    pod.write("mine", "two");
    pod.until_said("closed can't be read", 1);
    let place = until_place(&server, |place| settled(place, 2));
    let files = place.files(&place.newest());
    assert_eq!(
        (files["mine"].as_slice(), files["closed"].as_slice()),
        (b"two".as_slice(), b"one".as_slice())
    );
}

#[test]
fn what_a_fenced_pod_wrote_late_is_found_and_kept_aside() {
    let mut server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| settled(place, 1));
    pod.kill();
    server.place("app/config/a", "late, and of another size");
    server.place("app/config/stranger", "late");
    pod.init(&server);
    pod.start();
    pod.until_said("no snapshot knows", 1);
    let place = until_place(&server, |place| settled(place, 2));
    assert_eq!(place.content("config/a").unwrap(), b"one", "saved anew");
    assert_eq!(place.content("config/stranger"), None);
    let history = keys::history_of(&place.newest());
    assert_eq!(place.content(&format!("{history}/config/stranger")).unwrap(), b"late");
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
}

#[test]
fn a_wrong_crypt_password_is_no_emptied_place_and_nothing_is_written_by_it() {
    let server = S3::start();
    server.encrypt("right");
    let mut pod = Pod::new(&server, "aa");
    pod.arguments = vec!["--interval=10s".to_owned()];
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| settled(place, 1));
    pod.kill();
    let plain = server.store_of("plain", support::BUCKET);
    let stored = || block_on(listed(&plain, "", Depth::All)).unwrap();
    // The first backup is followed by what is done once a day.
    let mut before = stored();
    let mut since = Instant::now();
    let written = || newest_below(server.folder());
    let mut newest = written();
    while since.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(200));
        let now = written();
        if now != newest {
            (before, newest, since) = (stored(), now, Instant::now());
        }
    }
    server.encrypt("wrong");
    pod.write("a", "two");
    pod.start();
    pod.until_said("undecryptable", 1);
    assert_eq!(stored(), before);
    assert!(!pod.log().contains("somebody emptied the place"), "{}", pod.log());
    // The Secret is put right, and the pod goes on.
    server.encrypt("right");
    let place = until_place(&server, |place| settled(place, 2));
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
}

/// When a file below a folder was last written.
fn newest_below(folder: &Path) -> Option<std::time::SystemTime> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
    entries
        .filter_map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => newest_below(&entry.path()),
            Ok(found) => found.modified().ok(),
            Err(_) => None,
        })
        .max()
}

#[test]
fn a_crypt_password_that_changes_under_a_running_sidecar_leaves_nothing_under_the_wrong_key() {
    let server = S3::start();
    server.encrypt("right");
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    // Its last word on it too: nothing is on its way.
    until_place(&server, |place| {
        let summary = place.content("state.json").unwrap_or_default();
        let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap_or_default();
        settled(place, 1) && summary["last"].is_string()
    });
    let plain = server.store_of("plain", support::BUCKET);
    let stored = || -> Vec<String> {
        let objects = block_on(listed(&plain, "", Depth::All)).unwrap();
        objects.into_iter().map(|object| object.name).collect()
    };
    let before = stored();
    server.encrypt("wrong");
    // It is told that the pod ends soon, and would say so in its summary at once.
    let nudge = std::process::Command::new(env!("CARGO_BIN_EXE_vixens-backup"))
        .args(["agent", "nudge", "--port=1+"])
        .arg(format!("--restore-dir={}", pod.scratch.path().display()))
        .status()
        .unwrap();
    assert!(nudge.success());
    pod.until_said("undecryptable", 1);
    assert_eq!(stored(), before);
}

#[test]
fn a_store_that_goes_away_in_the_middle_of_a_backup_gets_the_rest_when_it_is_back() {
    let server = S3::start();
    let wire = Wire::to(server.port());
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    server.configure("RCLONE_CONFIG_MINIO_ENDPOINT", &wire.endpoint());
    pod.start();
    let first = until_place(&server, |place| settled(place, 1));
    let files = first.files(&first.newest());
    wire.cut_after(400_000);
    // It sees all of it at once, however long the writing takes.
    pod.signal(Signal::STOP);
    pod.write("a", "two");
    for number in 0..60 {
        pod.write(&format!("d{}/{number}", number % 7), vec![b'x'; 20_000 + number]);
    }
    pod.signal(Signal::CONT);
    pod.until_said("can't be reached", 1);
    assert!(wire.is_cut());
    let near = wire.endpoint();
    // It reads the same settings, and must not find the way around.
    pod.signal(Signal::STOP);
    server.configure("RCLONE_CONFIG_MINIO_ENDPOINT", &server.endpoint());
    let half = Place::read(&server);
    assert_eq!(half.snapshots, first.snapshots);
    assert_eq!(half.files(&half.newest()), files, "what was published is whole");
    server.configure("RCLONE_CONFIG_MINIO_ENDPOINT", &near);
    pod.signal(Signal::CONT);
    wire.mend();
    let place = until_place(&server, |place| {
        place.pending.is_empty() && place.files(&place.newest()) == tree(pod.volume.path())
    });
    assert_eq!(place.files(&first.newest()), files);
}

#[test]
fn a_store_that_is_full_is_said_and_keeps_what_it_has() {
    let Some(server) = S3::small("300k") else { return };
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.write("b", "one");
    pod.init(&server);
    pod.start();
    let first = until_place(&server, |place| settled(place, 1));
    let files = first.files(&first.newest());
    pod.write("a", "two");
    pod.write("large", vec![b'x'; 1_000_000]);
    // All that this server says of it.
    pod.until_said("InternalError", 1);
    let place = Place::read(&server);
    assert_eq!(place.snapshots, first.snapshots);
    assert_eq!(place.files(&place.newest()), files);
    server.enlarge();
    let place = until_place(&server, |place| {
        place.pending.is_empty() && place.files(&place.newest()) == tree(pod.volume.path())
    });
    assert_eq!(place.files(&first.newest()), files);
}

#[test]
fn a_scratch_folder_that_is_full_is_said_and_harms_nothing() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    let trigger = pod.volume.path().join(".vixens-backup/turn");
    let script = format!(
        r#"mount -t tmpfs -o size=2m none "{scratch}/sidecar"
        (while [ ! -e "{trigger}" ] && kill -0 $$; do sleep 0.1; done
        dd if=/dev/zero of="{scratch}/sidecar/filler" bs=4k
        while [ -e "{trigger}" ] && kill -0 $$; do sleep 0.1; done; rm "{scratch}/sidecar/filler") >/dev/null 2>&1 &"#,
        scratch = pod.scratch.path().display(),
        trigger = trigger.display(),
    );
    fs::create_dir(pod.scratch.path().join("sidecar")).unwrap();
    let Some(command) = in_namespace("--mount", &script) else {
        return;
    };
    pod.start_with(command);
    let first = until_place(&server, |place| settled(place, 1));
    fs::write(&trigger, "").unwrap();
    // Until there is no room left, backups go on.
    let mut number = 0;
    while !pod.log().contains("No space left on device") {
        pod.write("a", format!("{number}"));
        number += 1;
        std::thread::sleep(Duration::from_millis(500));
        assert!(number < 120, "{}", pod.log());
    }
    let place = Place::read(&server);
    assert_eq!(place.files(&first.newest())["a"], b"one");
    fs::remove_file(&trigger).unwrap();
    pod.write("b", "after");
    until_place(&server, |place| {
        place.pending.is_empty() && place.files(&place.newest()) == tree(pod.volume.path())
    });
}

#[test]
fn a_clock_that_was_set_back_changes_no_order() {
    let mut server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    let first = until_place(&server, |place| settled(place, 1));
    pod.kill();
    // That was tomorrow: the clock was a day ahead.
    let id = first.newest();
    let ahead = vixens_backup::store::snapshot::SnapshotId {
        time: id.time + jiff::SignedDuration::from_hours(24),
        ..id
    };
    for suffix in ["base", "json"] {
        let content = first.content(&format!("snapshots/{id}.{suffix}")).unwrap();
        server.place(&format!("{PLACE}/snapshots/{ahead}.{suffix}"), content);
    }
    let both = ["base", "json"].map(|suffix| format!("{id}.{suffix}"));
    assert_eq!(
        block_on(server.store(PLACE).delete(keys::SNAPSHOTS, &both)).unwrap(),
        []
    );
    for (round, word) in ["two", "three"].into_iter().enumerate() {
        pod.write("a", word);
        pod.init(&server);
        pod.start();
        let place = until_place(&server, |place| settled(place, round + 2));
        assert_eq!(place.snapshots[0], ahead);
        assert!(place.newest().time < ahead.time, "{:?}", place.snapshots);
        assert_eq!(place.files(&place.newest())["a"], word.as_bytes());
        assert_eq!(place.files(&ahead)["a"], b"one");
        pod.kill();
    }
}

#[test]
fn a_truncated_index_is_read_by_its_twin_and_without_one_everything_is_saved_anew() {
    for has_twin in [true, false] {
        let mut server = S3::start();
        let mut pod = Pod::new(&server, "aa");
        pod.write("a", "one");
        pod.write("b", "one");
        pod.init(&server);
        pod.start();
        let first = until_place(&server, |place| settled(place, 1));
        pod.kill();
        let cut = |server: &mut S3, key: &str| {
            let whole = first.content(key).unwrap();
            server.place(&format!("{PLACE}/{key}"), &whole[..whole.len() / 2]);
        };
        cut(&mut server, &keys::snapshot(&first.newest()));
        if !has_twin {
            cut(&mut server, &keys::base(&first.newest()));
        }
        pod.write("a", "two");
        pod.init(&server);
        pod.start();
        let said = if has_twin {
            "its twin was read in its place"
        } else {
            "every file is saved anew"
        };
        pod.until_said(said, 1);
        let place = until_place(&server, |place| settled(place, 2));
        assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
        let history = keys::history_of(&place.newest());
        assert_eq!(place.content(&format!("{history}/config/a")).unwrap(), b"one");
        assert_eq!(place.content(&format!("{history}/config/b")).is_none(), has_twin);
        pod.kill();
    }
}

#[test]
fn more_events_than_the_kernel_keeps_are_made_up_for_by_a_scan() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.write("sub/b", "one");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| settled(place, 1));
    pod.signal(Signal::STOP);
    let kept: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // Two events each, of which none is like the one before it.
    for _ in 0..kept {
        fs::rename(pod.path("a"), pod.path("c")).unwrap();
        fs::rename(pod.path("c"), pod.path("a")).unwrap();
    }
    pod.write("sub/b", "two");
    pod.write("sub/late", "two");
    pod.signal(Signal::CONT);
    let place = until_place(&server, |place| settled(place, 2));
    assert_eq!(place.files(&place.newest()), tree(pod.volume.path()));
}

#[test]
fn a_large_file_that_never_rests_is_saved_all_the_same() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("rests", "rests");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| settled(place, 1));
    let (path, ended) = (pod.path("large"), Arc::new(AtomicBool::new(false)));
    let writer = std::thread::spawn({
        let ended = ended.clone();
        move || {
            use std::os::unix::fs::FileExt;
            let file = fs::File::create(path).unwrap();
            // Larger than what is taken without waiting for it, and no room on any disk.
            file.set_len(65 << 20).unwrap();
            while !ended.load(Ordering::SeqCst) {
                file.write_all_at(b"x", 0).unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    pod.write("beside", "beside");
    let beside = until_place(&server, |place| settled(place, 2));
    assert!(
        !beside.keys.contains(&"config/large".to_owned()),
        "nothing waits for it"
    );
    let place = until_place(&server, |place| {
        place.keys.contains(&"config/large".to_owned()) && place.pending.is_empty()
    });
    assert_eq!(place.files(&place.newest())["large"].len(), 65 << 20);
    ended.store(true, Ordering::SeqCst);
    writer.join().unwrap();
}

#[test]
fn a_network_that_forbids_asking_leaves_the_request_to_the_store() {
    let server = S3::start();
    let mut pod = Pod::new(&server, "aa");
    pod.write("a", "one");
    pod.init(&server);
    pod.start();
    until_place(&server, |place| {
        place.content("state.json").is_some() && place.pending.is_empty()
    });
    let scratch = tempfile::tempdir().unwrap();
    let ask = [format!("--ask={}", free_address()), "--manual".to_owned()];
    let output = agent_backup(&server, scratch.path(), &ask);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let place = Place::read(&server);
    assert!(
        said(&output.stdout).ends_with(&format!("\n{}\n", place.newest())),
        "{}",
        said(&output.stdout)
    );
    assert!(place.newest().to_string().ends_with("-manual"));
    assert!(
        place.keys.iter().all(|key| !key.starts_with("requests/")),
        "{:?}",
        place.keys
    );
}
