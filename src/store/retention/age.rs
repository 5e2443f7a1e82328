//! How old snapshots are, and of which hour or day, as far as clocks can be believed: pure.
//!
//! Each of two clocks is compared with itself alone: ours with the times in the ids, which writers like us have put there,
//! and the store's with what it says of when it wrote the indexes. The smaller age counts, and no snapshot is older than one
//! before it in the order of ids. So a clock that jumps ahead, ours or the store's, makes nothing look old, and neither does
//! one that was set back.

use super::SnapshotId;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// The time in an id may be so much later than the store's own for its index; else it was a wrong clock's.
const APART: SignedDuration = SignedDuration::from_hours(24);

/// The age of each of `all`, which are in order. Of a store that says no times, `written` is empty and `clock` none.
pub(super) fn ages(
    all: &[SnapshotId],
    written: &BTreeMap<SnapshotId, Timestamp>,
    now: Timestamp,
    clock: Option<Timestamp>,
) -> Vec<SignedDuration> {
    let ours = by_clock(all.iter().map(|id| Some(id.time)), now);
    let Some(clock) = clock else { return ours };
    let stores = by_clock(all.iter().map(|id| written.get(id).copied()), clock);
    ours.into_iter()
        .zip(stores)
        .map(|(ours, stores)| ours.min(stores))
        .collect()
}

/// By one clock: none where a time, and all before it, are unknown or still to come.
fn by_clock(times: impl Iterator<Item = Option<Timestamp>>, clock: Timestamp) -> Vec<SignedDuration> {
    let mut latest: Option<Timestamp> = None;
    times
        .map(|time| {
            latest = latest.max(time.filter(|time| *time <= clock));
            latest.map_or(SignedDuration::ZERO, |time| clock.duration_since(time))
        })
        .collect()
}

/// The time of each of `all` as far as periods go. One that is still to come, or later than the store can have written it,
/// says nothing: it counts for the period of the one before it, and takes nobody's place in another.
pub(super) fn times(all: &[SnapshotId], written: &BTreeMap<SnapshotId, Timestamp>, now: Timestamp) -> Vec<Timestamp> {
    let mut before = None;
    all.iter()
        .map(|id| {
            let is_belied = written
                .get(id)
                .is_some_and(|written| id.time.duration_since(*written) > APART);
            let time = before.filter(|_| id.time > now || is_belied).unwrap_or(id.time);
            before = Some(time);
            time
        })
        .collect()
}
