//! Tier 3 and death: an app that commits 200 transactions a second for a minute, while the sidecar, the app, both, or the
//! store are killed at moments that nobody chose. What was committed two seconds before is there after a restore, and the
//! database is whole.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test says what failed by failing"
)]

mod support;

use std::time::{Duration, Instant};
use support::app::{App, Writer, now, rows};
use support::{Kind, S3};

/// What may be lost, in milliseconds before a death.
const LOSS: u128 = 2000;

/// The app: a process of its own, so that it can die.
#[test]
fn the_app() {
    Writer::be();
}

/// So long that nobody foresees it.
fn a_while(from: u64, to: u64) {
    let mut bytes = [0; 8];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    let length = from + u64::from_le_bytes(bytes) % (to - from);
    std::thread::sleep(Duration::from_millis(length));
}

/// An app at work on a volume on disk, its replica at work too.
fn at_work() -> (App, Writer, tempfile::TempDir) {
    let mut app = App::on(S3::of(Kind::Minio));
    let notes = tempfile::tempdir().unwrap();
    support::write(&app.path("settings.yaml"), "a: 1\n");
    app.start();
    let writer = Writer::start(&app.path("app.db"), &notes.path().join("committed"), "the_app");
    app.until_replicated("app.db");
    (app, writer, notes)
}

/// Everything is lost; what was committed before `died` has to come back, without a gap.
fn comes_back(app: &App, writer: &std::path::Path, died: u128) {
    let expected = Writer::committed_before(writer, died - LOSS);
    app.lose_volume();
    let (said, _) = app.bed.start();
    let restored = rows(&app.path("app.db"));
    let last = restored.last().copied().unwrap_or_default();
    eprintln!("of {expected} transactions that were committed 2 s before, {last} came back");
    assert!(expected > 100, "{expected}");
    assert!(
        last >= expected,
        "{} transactions are lost\n{said}\n{}",
        expected - last,
        app.log()
    );
    let missing: Vec<i64> = (1..=last).filter(|n| restored.binary_search(n).is_err()).collect();
    assert!(
        missing.is_empty(),
        "{missing:?} of {last} are missing\n{said}\n{}",
        app.log()
    );
}

#[test]
fn the_sidecar_and_the_app_die_at_random_moments_of_a_minute() {
    let (mut app, mut writer, notes) = at_work();
    let committed = writer.committed().to_owned();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        a_while(2000, 6000);
        app.kill();
        a_while(10, 1500);
        app.start_sidecar();
        a_while(2000, 6000);
        writer.kill();
        a_while(10, 500);
        writer = Writer::start(&app.path("app.db"), &committed, "the_app");
    }
    app.until_replicated("app.db");
    a_while(1000, 4000);
    // Both at once, and the volume with them.
    let died = now();
    app.kill();
    writer.kill();
    comes_back(&app, &committed, died);
    drop(notes);
}

#[test]
fn the_app_dies_alone_and_all_that_it_had_committed_comes_back() {
    let (mut app, writer, _notes) = at_work();
    let committed = writer.committed().to_owned();
    a_while(3000, 8000);
    writer.kill();
    let died = now();
    // Everything that was committed is sent within the two seconds.
    std::thread::sleep(Duration::from_secs(2));
    app.kill();
    comes_back(&app, &committed, died + LOSS);
}

#[test]
fn the_pod_dies_while_it_writes() {
    let (mut app, writer, _notes) = at_work();
    let committed = writer.committed().to_owned();
    a_while(3000, 10_000);
    let died = now();
    app.kill();
    writer.kill();
    comes_back(&app, &committed, died);
}

#[test]
fn the_store_dies_and_the_pod_after_it() {
    let (mut app, writer, _notes) = at_work();
    let committed = writer.committed().to_owned();
    a_while(3000, 10_000);
    let died = now();
    app.bed.server.stop();
    a_while(3000, 8000);
    app.kill();
    writer.kill();
    app.bed.server.resume();
    comes_back(&app, &committed, died);
}

#[test]
fn the_store_comes_back_and_what_was_written_meanwhile_is_caught_up() {
    let (mut app, writer, _notes) = at_work();
    let committed = writer.committed().to_owned();
    a_while(2000, 5000);
    app.bed.server.stop();
    app.until_said("can't be sent, and wait on the volume");
    a_while(5000, 15_000);
    app.bed.server.resume();
    app.until_said("databases catch up");
    let lag = |app: &App| app.status()["databases"]["config/app.db"]["lag_seconds"].as_f64();
    app.until("it has caught up", |app| lag(app).is_some_and(|lag| lag < 2.0));
    a_while(3000, 5000);
    let died = now();
    app.kill();
    writer.kill();
    comes_back(&app, &committed, died);
}
