//! `agent init`, killed at random moments: the next start ends in the state of an undisturbed one. The whole process
//! group is killed, as the end of a container does it.

#![expect(
    clippy::unwrap_used,
    reason = "what these functions do is part of the tests that call them"
)]

mod support;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant, SystemTime};
use support::bed::{Bed, lived_in, seen};
use support::write;
use vixens_backup::agent::start::{Start, Status, Writing};

/// Kills, over all rounds of one test.
const KILLS: usize = 200;

/// Numbers that differ from run to run; the seed is told when a test fails.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Self(u64::from(now.subsec_nanos()) << 20 | now.as_secs() | 1)
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}

/// Starts, and kills after a while. `true` when the start had come to its end before.
fn killed(bed: &Bed, after: Duration) -> bool {
    let mut child = bed.init().process_group(0).spawn().unwrap();
    let deadline = Instant::now() + after;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap().success()
}

/// Kills starts, a few in a row, until there were enough, and looks at what the start after them made of it. `prepare`
/// makes the state that a round begins with, `expected` tells how it ends, from what can be seen.
fn kill_and_look(bed: &Bed, kills: usize, mut prepare: impl FnMut(&Bed), expected: &BTreeMap<Vec<u8>, String>) {
    let mut dice = Dice::new();
    let seed = dice.0;
    prepare(bed);
    let began = Instant::now();
    bed.start();
    let mut whole = began.elapsed();
    let (mut done, mut too_late) = (0, 0);
    // On a busy machine each kill takes longer, and fewer have to do.
    while done < kills / 4 || (done < kills && began.elapsed() < Duration::from_secs(40)) {
        prepare(bed);
        for _ in 0..=dice.roll(8) {
            let after =
                Duration::from_micros(dice.roll(whole.subsec_micros().into()) + dice.roll(1_000_000 * whole.as_secs()));
            if killed(bed, after) {
                // It has become faster since that was measured.
                whole = whole * 9 / 10;
                too_late += 1;
                prepare(bed);
            } else if Start::read(&bed.restore_dir()).unwrap().is_some() {
                // Killed between its last word and its end: the word must be true.
                assert_eq!(&seen(&bed.volume()), expected, "seed {seed}: it said that it was done");
                too_late += 1;
                prepare(bed);
            } else {
                done += 1;
            }
        }
        let (said, start) = bed.start();
        assert_eq!(&seen(&bed.volume()), expected, "seed {seed}: {said}");
        assert_eq!(start.volumes[0].status, Status::Settled, "seed {seed}: {said}");
        assert!(
            matches!(start.destinations[0].writing, Writing::Claimed { .. }),
            "seed {seed}: {said}"
        );
        assert!(!bed.volume().join(".vixens-backup/incoming").exists(), "seed {seed}");
    }
    assert!(too_late <= done, "most kills came too late to say anything");
}

#[tokio::test]
async fn a_restore_that_is_killed_at_any_moment_is_finished_by_the_next_start() {
    let bed = Bed::new();
    let before = lived_in();
    for number in 0..60 {
        let path = before.path().join(format!("many/{}/{number}", number % 7));
        write(&path, format!("content {number}").repeat(number));
    }
    write(&before.path().join("large"), vec![7_u8; 2 << 20]);
    bed.backup(before.path(), "20261122T130500Z-1.1-auto").await;
    kill_and_look(&bed, KILLS, Bed::lose_volume, &seen(before.path()));
}

#[tokio::test]
async fn going_back_in_time_that_is_killed_at_any_moment_is_finished_by_the_next_start() {
    let bed = Bed::new().with("--restore-at=20261122T130500Z-1.1-auto");
    let before = lived_in();
    bed.backup(before.path(), "20261122T130500Z-1.1-auto").await;
    let later = |bed: &Bed| {
        bed.lose_volume();
        // A volume with other files, and others in the places of the same.
        write(&bed.volume().join("configuration.yaml"), "changed since");
        write(&bed.volume().join("new/file"), "new since");
        write(&bed.volume().join("empty.txt/is now a folder"), "x");
    };
    kill_and_look(&bed, KILLS / 4, later, &seen(before.path()));
}

/// Starts, and kills a moment after files have begun to go to their places.
fn killed_while_placing(bed: &Bed, dice: &mut Dice) {
    let restoring = bed.volume().join(".vixens-backup/restoring.json");
    let mut child = bed.init().process_group(0).spawn().unwrap();
    let is_placing = || std::fs::read_to_string(&restoring).is_ok_and(|text| text.contains("\"placing\": true"));
    while !is_placing() {
        if child.try_wait().unwrap().is_some() {
            return;
        }
    }
    std::thread::sleep(Duration::from_micros(dice.roll(8000)));
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn going_back_in_time_that_is_killed_and_then_taken_back_leaves_the_volume_as_it_was() {
    let mut bed = Bed::new();
    let before = lived_in();
    for number in 0..200 {
        write(
            &before.path().join(format!("many/{}/{number}", number % 7)),
            format!("{number}"),
        );
    }
    bed.backup(before.path(), "20261122T130500Z-1.1-auto").await;
    let in_use = |bed: &mut Bed| {
        bed.lose_volume();
        bed.flags = vec!["--restore=never".to_owned()];
        bed.start();
        write(&bed.volume().join("configuration.yaml"), "changed since");
        write(&bed.volume().join("new/file"), "new since");
        write(&bed.volume().join("empty.txt/is now a folder"), "x");
        write(&bed.volume().join("many/3"), "is no folder any more");
        for number in 0..100 {
            write(&bed.volume().join(format!("many/4/{number}")), "of another kind");
        }
        std::os::unix::fs::symlink("new", bed.volume().join("nothing")).unwrap();
        seen(&bed.volume())
    };
    let mut dice = Dice::new();
    let seed = dice.0;
    let mut expected = in_use(&mut bed);
    let began = Instant::now();
    let (mut taken_back, mut rounds) = (0, 0);
    while rounds < 20 || (rounds < 80 && began.elapsed() < Duration::from_secs(40)) {
        rounds += 1;
        bed.flags = vec!["--restore-at=20261122T130500Z-1.1-auto".to_owned()];
        for _ in 0..=dice.roll(2) {
            killed_while_placing(&bed, &mut dice);
        }
        let word = bed.restore_dir().join("start.json");
        bed.flags = vec!["--restore=never".to_owned()];
        if word.exists() || !bed.volume().join(".vixens-backup/restoring.json").exists() {
            // It was done before it could be killed.
            expected = in_use(&mut bed);
            continue;
        }
        // The start that takes it back is killed too.
        for _ in 0..dice.roll(3) {
            killed(&bed, Duration::from_micros(dice.roll(40_000)));
        }
        let (said, start) = bed.start();
        assert_eq!(seen(&bed.volume()), expected, "seed {seed}: {said}");
        assert_eq!(start.volumes[0].status, Status::Settled, "seed {seed}: {said}");
        for left in ["outgoing", "incoming", "undo", "restoring.json"] {
            assert!(
                !bed.volume().join(".vixens-backup").join(left).exists(),
                "seed {seed}: {left}"
            );
        }
        taken_back += 1;
    }
    assert!(taken_back > rounds / 4, "most kills came too late to say anything");
}
