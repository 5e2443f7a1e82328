//! Tier 3 and a large database: 2 GB, replicated and back. Minutes, and gigabytes on disk: `LARGE=true make test` runs it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test says what failed by failing"
)]

mod support;

use std::fs;
use std::time::{Duration, Instant};
use support::app::{App, create, descendants};
use support::bed::Bed;
use support::{Kind, S3};

const PATIENCE: Duration = Duration::from_secs(1200);

/// The most memory that a process has had at once, in MiB, and what of it is its own.
fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .unwrap_or_default()
            / 1024
    };
    (of("VmHWM:"), of("RssAnon:"))
}

#[test]
#[ignore = "a database of 2 GB takes minutes and 6 GB of disk: LARGE=true make test"]
fn a_database_of_two_gigabytes_is_replicated_and_comes_back() {
    let mut app = App::of(Bed::on_disk(S3::of(Kind::Minio)));
    let path = app.path("app.db");
    let writer = create(&path, "wal");
    writer.execute_batch("PRAGMA synchronous=OFF").unwrap();
    for n in 0..2000 {
        writer
            .execute("INSERT INTO t VALUES (?1, randomblob(1048576))", [n])
            .unwrap();
    }
    writer
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    assert!(fs::metadata(&path).unwrap().len() > 2_000_000_000);
    let begun = Instant::now();
    app.start();
    let (mut peak, mut own) = (0, 0);
    loop {
        for pid in descendants(app.pid()) {
            let (high, anonymous) = memory(pid);
            (peak, own) = (peak.max(high), own.max(anonymous));
        }
        let database = &app.status()["databases"]["config/app.db"];
        if database["status"] == "replicated" && database["listed"] == database["txid"] {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", app.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    eprintln!("replicated: {:.1} s", begun.elapsed().as_secs_f64());
    eprintln!("the largest of the sidecar's processes: {peak} MiB, {own} MiB of it its own");
    let begun = Instant::now();
    writer.execute("INSERT INTO t VALUES (5000, 'the last')", []).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    drop(writer);
    app.stop();
    eprintln!("stopped: {:.1} s", begun.elapsed().as_secs_f64());
    app.lose_volume();
    let begun = Instant::now();
    app.bed.flags.push("--restore-timeout=20m".to_owned());
    app.bed.start();
    eprintln!("restored and checked: {:.1} s", begun.elapsed().as_secs_f64());
    let restored = rusqlite::Connection::open(&path).unwrap();
    let (rows, bytes): (i64, i64) = restored
        .query_row("SELECT count(*), sum(length(x)) FROM t WHERE n < 5000", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((rows, bytes), (2000, 2000 << 20));
    let last: String = restored
        .query_row("SELECT x FROM t WHERE n = 5000", [], |row| row.get(0))
        .unwrap();
    assert_eq!(last, "the last");
}
