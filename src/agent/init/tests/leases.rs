//! Starts at a place that somebody else may hold: whether that is alive is seen, and never read from a time.

use super::*;
use crate::agent::arguments::QuestionKind;
use crate::agent::lease::beat::{LONG_SILENCE, SILENCE};
use crate::store::claims::Owner;
use crate::store::decisions;
use crate::store::state::Mode;
use std::time::Duration;
use tokio::time::Instant;

/// Times that a clock might say which is right, or anything but that.
const TIMES: [&str; 3] = ["1970-01-01T00:00:00Z", "2026-11-22T13:00:00Z", "2036-11-22T13:00:00Z"];

/// A summary by the holder of epoch 3, with such a time.
fn beat(bed: &Bed, heartbeat: Timestamp, change: impl FnOnce(&mut State)) {
    let mut state = State {
        version: VERSION,
        epoch: 3,
        volume_id: "theirs".to_owned(),
        pod: "app-0".to_owned(),
        heartbeat,
        ..State::default()
    };
    change(&mut state);
    bed.memory.objects().insert(keys::STATE.to_owned(), encode(&state));
}

/// A place that a namesake of another cluster holds.
fn held_by_prod() -> Bed {
    let bed = backed_up().with("--restore-timeout=1h");
    let key = keys::claim(3, "theirs");
    let mut claim: Claim = crate::store::records::decode(&bed.memory.objects()[&key]).unwrap();
    claim.owner = Owner {
        cluster: "prod".to_owned(),
        ..claim.owner
    };
    bed.memory.objects().insert(key, encode(&claim));
    bed
}

#[tokio::test(start_paused = true)]
async fn a_place_of_another_cluster_is_adopted_once_nothing_was_seen_of_it_for_three_minutes() {
    for time in TIMES {
        let (bed, begun) = (held_by_prod(), Instant::now());
        beat(&bed, time.parse().unwrap(), |_| {});
        let start = bed.start().await;
        assert!(begun.elapsed() >= LONG_SILENCE, "{time}");
        assert!(begun.elapsed() < LONG_SILENCE + Duration::from_secs(10), "{time}");
        assert_eq!(bed.tree(), after());
        assert!(matches!(start.destinations[0].writing, Writing::Claimed { .. }));
    }
    // What was released is adopted at once.
    let (bed, begun) = (held_by_prod(), Instant::now());
    bed.start().await;
    assert_eq!((bed.tree(), begun.elapsed()), (after(), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_place_of_another_cluster_that_was_seen_to_beat_is_not_taken_whatever_its_clock_says() {
    for time in TIMES {
        let mut bed = held_by_prod();
        bed.flags = vec!["--restore-timeout=10s".to_owned()];
        let mut heartbeat: Timestamp = time.parse().unwrap();
        beat(&bed, heartbeat, |_| {});
        let beats = async {
            loop {
                tokio::time::sleep(Duration::from_secs(60)).await;
                heartbeat += Duration::from_secs(60);
                beat(&bed, heartbeat, |_| {});
            }
        };
        let result = tokio::select! {
            result = bed.start_over(Fault::None) => result,
            () = beats => return,
        };
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::StoreAway { last, .. } if last.contains("was seen to write")),
            "{time}: {error}"
        );
        assert_eq!(bed.tree(), Tree::new());
        assert_eq!(claims(&bed), ["claims/3-theirs.json"]);
    }
}

fn claims(bed: &Bed) -> Vec<String> {
    let objects = bed.memory.objects();
    objects
        .keys()
        .filter(|key| key.starts_with("claims/"))
        .cloned()
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_kept_is_not_held_up_by_another_clusters_place() {
    let bed = Bed::new().with("--restore-timeout=1h");
    bed.start().await;
    let prod = held_by_prod();
    beat(&prod, Timestamp::UNIX_EPOCH, |_| {});
    bed.memory.objects().clone_from(&prod.memory.objects());
    let begun = Instant::now();
    let start = bed.start().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(start.volumes[0].status, Status::Settled);
    assert_eq!(
        start.destinations[0].writing,
        Writing::Unclaimed,
        "the sidecar looks on"
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_backup_of_a_twin_that_died_is_awaited_for_as_long_as_it_may_be_silent() {
    for time in TIMES {
        let (bed, begun) = (backed_up().with("--restore-timeout=1h"), Instant::now());
        beat(&bed, time.parse().unwrap(), |_| {});
        let start = bed.start().await;
        assert!(begun.elapsed() >= SILENCE && begun.elapsed() < SILENCE + Duration::from_secs(5));
        assert_eq!(bed.tree(), after());
        assert!(matches!(start.destinations[0].writing, Writing::Claimed { .. }));
    }
    // A rollout goes on at once.
    let (mut bed, begun) = (backed_up(), Instant::now());
    bed.generation = "g2";
    beat(&bed, Timestamp::now(), |_| {});
    bed.start().await;
    assert_eq!((bed.tree(), begun.elapsed()), (after(), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn where_runs_of_another_cluster_write_is_restored_at_once_and_written_once_that_is_accepted() {
    for released in [true, false] {
        let (bed, begun) = (held_by_prod(), Instant::now());
        let by_runs = |state: &mut State| {
            state.released = released;
            state.mode = Some(Mode::Cronjob);
        };
        beat(&bed, Timestamp::UNIX_EPOCH, by_runs);
        let start = bed.start().await;
        // A run that is under way is given the time to end.
        let patience = if released {
            Duration::ZERO
        } else {
            SILENCE + Duration::from_secs(5)
        };
        assert!(begun.elapsed() <= patience, "{:?}", begun.elapsed());
        assert_eq!((bed.tree(), start.volumes[0].status), (after(), Status::Settled));
        let Writing::Asks { question } = &start.destinations[0].writing else {
            panic!("{:?}", start.destinations);
        };
        assert_eq!(question.id.kind(), Some(QuestionKind::Write));
        assert_eq!(start.asks().collect::<Vec<_>>(), [question]);
        assert!(start.destinations[0].why.contains(question.id.as_str()));
        assert_eq!(claims(&bed), ["claims/3-theirs.json"]);
        // The same with the next start, until somebody says so.
        bed.lose_volume();
        let again = bed.start().await;
        assert_eq!(again.destinations[0].writing, start.destinations[0].writing);
        bed.lose_volume();
        let bed = bed.with(&format!("--accept={}", question.id));
        let start = bed.start().await;
        assert!(
            matches!(&start.destinations[0].writing, Writing::Claimed { holder } if holder.epoch == 4),
            "{:?}",
            start.destinations
        );
        assert!(decisions::is_decided(&*bed.memory, &question.id).await.unwrap());
    }
}
