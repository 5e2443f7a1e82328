//! Tier 3 on stores other than S3: SFTP by key and by password, WebDAV, and what stands in for Google's. The same remote
//! serves rclone and Litestream, and its password is nowhere but in their environment.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use std::fs;
use std::path::Path;
use support::S3;
use support::app::{App, create, descendants, insert, rows};
use support::host::{Host, PASSWORD};

/// A database goes to the server of this Secret and comes back from there, at its newest point and without the log.
fn goes_there_and_comes_back(host: &Host, server: S3) {
    let mut app = App::on(server);
    app.bed.environment.push(host.environment());
    let writer = create(&app.path("a $HOME.db"), "wal");
    app.start();
    app.until_replicated("a $HOME.db");
    insert(&writer, 0, 100);
    app.until_replicated("a $HOME.db");
    app.until("all of it is listed there", |app| {
        let database = &app.status()["databases"]["config/a $HOME.db"];
        database["listed"].is_string() && database["listed"] == database["txid"]
    });
    assert_tells_nobody(&app);
    drop(writer);
    app.kill();
    let mut stored = 0;
    each_file(host.folder(), &mut |file| {
        // However the server names what it keeps.
        stored += usize::from(file.to_string_lossy().ends_with(".ltx"));
    });
    assert!(stored > 0, "nothing lies at the server");
    app.lose_volume();
    let (said, _) = app.bed.start();
    assert!(said.contains("its newest point"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
    assert_eq!(rows(&app.path("a $HOME.db")), (0..100).collect::<Vec<_>>());
    // What was restored is replicated in its turn.
    app.start_sidecar();
    app.until_replicated("a $HOME.db");
    insert(&create(&app.path("a $HOME.db"), "wal"), 100, 1);
    app.stop();
    app.lose_volume();
    app.bed.start();
    assert_eq!(rows(&app.path("a $HOME.db")).len(), 101);
}

/// The password is in no argument, in no file of the pod, and in no log.
fn assert_tells_nobody(app: &App) {
    // As it is, and as a configuration would hold it.
    let words = [PASSWORD.to_owned(), serde_json::json!(PASSWORD).to_string()];
    let tells = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        words.iter().any(|word| text.contains(word.trim_matches('"')))
    };
    let pids = descendants(app.pid());
    assert!(!pids.is_empty(), "Litestream runs");
    for pid in pids {
        assert!(!tells(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()));
    }
    assert!(!tells(app.log().as_bytes()));
    for folder in [app.bed.restore_dir(), app.bed.volume()] {
        each_file(&folder, &mut |file| {
            assert!(!tells(&fs::read(file).unwrap_or_default()), "{} has it", file.display());
        });
    }
}

fn each_file(folder: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            each_file(&entry.path(), each);
        } else if entry.file_type().unwrap().is_file() {
            each(&entry.path());
        }
    }
}

#[test]
fn a_server_of_sftp_keeps_databases_by_password_and_is_known_by_its_key() {
    let server = S3::start();
    let host = Host::sftp(&server, false);
    goes_there_and_comes_back(&host, server);
}

#[test]
fn a_server_of_sftp_keeps_databases_by_key() {
    let server = S3::start();
    let host = Host::sftp(&server, true);
    goes_there_and_comes_back(&host, server);
}

#[test]
fn a_server_of_webdav_keeps_databases() {
    let server = S3::start();
    let host = Host::webdav(&server);
    goes_there_and_comes_back(&host, server);
}

#[test]
fn a_google_bucket_keeps_databases() {
    let server = S3::start();
    let host = Host::google(&server);
    goes_there_and_comes_back(&host, server);
}
