//! A pod takes the place of another that is at it: the old one's upload of a batch is under way. Every snapshot can be
//! restored in the end, files of the same size too.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what failed by failing"
)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};
use support::S3;
use support::pod::{PATIENCE, PLACE, Place, Pod, block_on, tree, until_place};
use vixens_backup::store::records::{decode, encode};
use vixens_backup::store::state::State;
use vixens_backup::store::{Store, keys};

const FILES: usize = 40;
const SIZE: usize = 60_000;

/// Files of one size, of which each round has others.
fn content(round: u8, number: usize) -> Vec<u8> {
    let mut content = vec![b'a' + round; SIZE];
    content[..8].copy_from_slice(&(number as u64).to_le_bytes());
    content
}

fn write_all(pod: &Pod, round: u8) {
    for number in 0..FILES {
        pod.write(&format!("f{number}"), content(round, number));
    }
}

/// A pod that has saved its files, and is in the middle of saving them anew, by an rclone that sends so many bytes a second.
fn at_it(server: &S3, limit: &str) -> Pod {
    let mut old = Pod::new(server, "aa");
    write_all(&old, 0);
    old.init(server);
    old.start();
    until_place(server, |place| place.snapshots.len() == 1 && place.pending.is_empty());
    // Ended without a word, so that the next one has a backup to take over from.
    old.kill();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vixens-backup"));
    command.env("RCLONE_BWLIMIT", limit);
    old.start_with(command);
    old.until_status(|status| {
        status["destinations"]
            .as_object()
            .is_some_and(|all| all.values().all(|one| one["phase"] == "ready"))
    });
    write_all(&old, 1);
    let begun = until_place(server, |place| !place.pending.is_empty());
    assert_eq!(begun.snapshots.len(), 1);
    let deadline = Instant::now() + PATIENCE;
    while !any_sent(server) {
        assert!(Instant::now() < deadline, "nothing is sent:\n{}", old.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    old
}

fn any_sent(server: &S3) -> bool {
    let place = Place::read(server);
    (0..FILES).any(|number| place.content(&format!("config/f{number}")).unwrap() == content(1, number))
}

/// The next pod, on a volume of its own with what the newest snapshot holds.
fn successor(server: &S3) -> Pod {
    let mut new = Pod::new(server, "bb");
    write_all(&new, 0);
    new.init(server);
    new.write("of the new pod", "one");
    new.start();
    new
}

#[test]
fn a_pod_whose_place_is_taken_ends_its_upload_and_what_it_had_sent_is_undone_before_anything_is_written() {
    let server = S3::start();
    // What is left would take it more than a minute.
    let old = at_it(&server, "20k");
    let new = successor(&server);
    old.until_said("was taken over by epoch 2", 1);
    let uploads =
        |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"rclone\0copy\0"));
    let deadline = Instant::now() + PATIENCE;
    while old.children().iter().any(uploads) {
        assert!(Instant::now() < deadline, "its rclone goes on:\n{}", old.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    // It has said so: nobody waits out the time that it might have needed.
    let place = until_place(&server, |place| place.snapshots.len() == 2 && place.pending.is_empty());
    assert!(
        new.log().contains("has begun a backup there, and has not let go"),
        "{}",
        new.log()
    );
    assert_eq!(place.files(&place.newest()), tree(new.volume.path()));
    for id in &place.snapshots {
        place.files(id);
    }
}

#[test]
fn whoever_goes_on_for_the_pod_that_took_over_undoes_what_a_blind_writer_sends_late_and_saves_anew_what_it_may_have_hit()
 {
    let server = S3::start();
    let mut old = at_it(&server, "20k");
    old.kill();
    let mut new = successor(&server);
    let undone = |place: &Place| {
        let mut names = place.keys.iter().filter_map(|key| key.strip_prefix("served/"));
        names.find_map(keys::of_undone)
    };
    let is_as_before = |place: &Place| {
        (0..FILES).all(|number| place.content(&format!("config/f{number}")) == Some(content(0, number)))
    };
    let place = until_place(&server, |place| {
        place.snapshots.len() == 2 && undone(place).is_some() && is_as_before(place)
    });
    let begun = undone(&place).unwrap();
    let kept = format!("{}/config/f", keys::history_of(&begun));
    let sent: Vec<usize> = (0..FILES)
        .filter(|number| place.keys.contains(&format!("{kept}{number}")))
        .collect();
    assert!(!sent.is_empty());
    let store = server.store(PLACE);
    let sends_late = || {
        for number in &sent {
            block_on(store.write(&format!("config/f{number}"), &content(1, *number))).unwrap();
        }
    };
    // The container ends before it has looked back, and another one goes on.
    new.kill();
    sends_late();
    new.start();
    let place = until_place(&server, is_as_before);
    assert_eq!(undone(&place), Some(begun));
    new.until_said("undone once more", 1);
    new.kill();
    sends_late();
    // Minutes later.
    let mut state: State = decode(&block_on(store.read(keys::STATE)).unwrap()).unwrap();
    assert!(state.beside);
    state.beside_since = state
        .beside_since
        .map(|since| since - jiff::SignedDuration::from_mins(10));
    block_on(store.write(keys::STATE, &encode(&state))).unwrap();
    new.start();
    new.until_said("were saved while the writer before could still write there", 1);
    let place = until_place(&server, |place| {
        let state: State = decode(&place.content(keys::STATE).unwrap()).unwrap();
        !state.beside && place.pending.is_empty() && undone(place).is_none()
    });
    assert!(is_as_before(&place));
    assert_eq!(place.files(&place.newest()), tree(new.volume.path()));
    for id in &place.snapshots {
        place.files(id);
    }
}
