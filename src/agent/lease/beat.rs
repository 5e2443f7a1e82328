//! Whether whoever holds a place is alive: a beat that changes while somebody looks is of a living writer, and one that stands
//! still for longer than two beats take is of none. Beats and our own moments in, a sign out. No stored time is compared with
//! our clock, since two clocks may differ by any amount. Pure.

use super::inspect::Backup;
use crate::store::claims::Holder;
use crate::store::snapshot::SnapshotId;
use crate::store::state::{HEARTBEAT, State};
use std::time::Duration;
use tokio::time::Instant;

/// A writer of our own workload that shows nothing new for so long is taken for dead: it may be fenced without harm.
pub const SILENCE: Duration = Duration::from_secs(90);
/// A writer of another cluster, which nobody else looks after, is watched for longer.
pub const LONG_SILENCE: Duration = Duration::from_secs(180);
/// Whoever waits looks so often.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);

const _: () = assert!(SILENCE.as_secs() > HEARTBEAT.as_secs() && LONG_SILENCE.as_secs() > 2 * HEARTBEAT.as_secs());

/// What a place shows of its holder. Whatever of it changes, the holder has done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Beat {
    holder: Holder,
    summary: Option<State>,
    /// The newest snapshot under its claim, and the newest that it has begun.
    newest: Option<SnapshotId>,
    pending: Option<SnapshotId>,
}

impl Beat {
    fn of(backup: &Backup) -> Option<Self> {
        let holder = backup.holder()?;
        let own = |ids: &[SnapshotId]| ids.iter().rev().find(|id| id.epoch == holder.epoch).copied();
        Some(Self {
            summary: backup.summary().cloned(),
            newest: own(&backup.snapshots),
            pending: own(&backup.pending),
            holder: holder.clone(),
        })
    }

    /// Whether the holder has done something since `earlier`. What somebody else has written over, or taken away, is no sign of
    /// its.
    fn goes_on(&self, earlier: &Self) -> bool {
        let appeared = |new: Option<SnapshotId>, old: Option<SnapshotId>| new.is_some() && new > old;
        self.holder != earlier.holder
            || (self.summary.is_some() && self.summary != earlier.summary)
            || appeared(self.newest, earlier.newest)
            || appeared(self.pending, earlier.pending)
    }
}

/// What looking at a place has shown until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Nobody holds the place, or its holder has let go.
    pub let_go: bool,
    /// The holder has been seen to do something.
    pub moved: bool,
    /// For how long nothing has changed under our eyes.
    pub still_for: Duration,
}

/// What is to be thought of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It has let go, or there is none.
    Gone,
    /// Nothing is known yet: look again.
    NotYet,
    /// It was seen alive.
    Live,
    /// Nothing came of it for the whole time.
    Silent,
}

impl Seen {
    /// Whoever looks for the first time knows nothing but whether it has let go.
    #[must_use]
    pub fn first(backup: &Backup) -> Self {
        Self {
            let_go: backup.has_let_go(),
            moved: false,
            still_for: Duration::ZERO,
        }
    }

    /// What that means for somebody who waits for so long.
    #[must_use]
    pub fn sign(self, patience: Duration) -> Sign {
        match self {
            Self { let_go: true, .. } => Sign::Gone,
            Self { still_for, .. } if still_for >= patience => Sign::Silent,
            Self { moved: true, .. } => Sign::Live,
            Self { moved: false, .. } => Sign::NotYet,
        }
    }
}

/// Looking at one place, again and again.
#[derive(Clone, Debug, Default)]
pub struct Observation(Option<(Beat, Instant, bool)>);

impl Observation {
    /// Takes in what the place shows now.
    pub fn look(&mut self, backup: &Backup, now: Instant) -> Seen {
        let Some(beat) = Beat::of(backup) else {
            self.0 = None;
            return Seen::first(backup);
        };
        let (mut since, mut moved) = (now, false);
        let mut latest = beat.clone();
        if let Some((earlier, then, has_moved)) = self.0.take() {
            if beat.goes_on(&earlier) {
                // Another holder is another writer, and has yet to show that it goes on.
                moved = beat.holder == earlier.holder;
            } else {
                (since, moved) = (then, has_moved);
                // What was written over meanwhile is not news when it is there again.
                latest.summary = latest.summary.or(earlier.summary);
                latest.newest = latest.newest.max(earlier.newest);
                latest.pending = latest.pending.max(earlier.pending);
            }
        }
        self.0 = Some((latest, since, moved));
        Seen {
            let_go: backup.has_let_go(),
            moved,
            still_for: now.saturating_duration_since(since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::state::Mode;
    use jiff::Timestamp;

    /// A place held at epoch 5, with a summary of this epoch and heartbeat (seconds).
    fn place(summary: Option<(u64, i64)>) -> Backup {
        Backup {
            claims: vec![Holder {
                epoch: 5,
                volume_id: "aa".to_owned(),
            }],
            state: summary.map(|(epoch, heartbeat)| State {
                epoch,
                volume_id: "aa".to_owned(),
                heartbeat: Timestamp::from_second(heartbeat).unwrap(),
                ..State::default()
            }),
            ..Backup::default()
        }
    }

    /// The signs of places that are looked at, each so many seconds after the one before.
    fn signs(looks: &[(u64, Backup)], patience: Duration) -> Vec<Sign> {
        let (mut observation, mut now) = (Observation::default(), Instant::now());
        looks
            .iter()
            .map(|(after, backup)| {
                now += Duration::from_secs(*after);
                observation.look(backup, now).sign(patience)
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_that_changes_is_of_a_living_writer_and_one_that_stands_still_of_a_dead_one() {
        use Sign::{Gone, Live, NotYet, Silent};
        let beat = |heartbeat| place(Some((5, heartbeat)));
        let released = Backup {
            state: beat(9).state.map(|state| State {
                released: true,
                ..state
            }),
            ..beat(9)
        };
        let begun = Backup {
            pending: vec!["20261122T130500Z-5.2-auto".parse().unwrap()],
            ..beat(7)
        };
        let taken_over = Backup {
            claims: vec![Holder {
                epoch: 6,
                volume_id: "bb".to_owned(),
            }],
            ..beat(7)
        };
        for (looks, expected) in [
            // However old or young its time seems, one look says nothing.
            (vec![(0, beat(0))], vec![NotYet]),
            (vec![(0, beat(i64::from(u32::MAX)))], vec![NotYet]),
            (vec![(0, beat(7)), (5, beat(67))], vec![NotYet, Live]),
            // A clock that was set back beats too.
            (vec![(0, beat(7)), (5, beat(2))], vec![NotYet, Live]),
            (
                vec![(0, beat(7)), (89, beat(7)), (1, beat(7)), (30, beat(8))],
                vec![NotYet, NotYet, Silent, Live],
            ),
            // It beat, and beats no more.
            (
                vec![(0, beat(7)), (9, beat(8)), (89, beat(8)), (1, beat(8))],
                vec![NotYet, Live, Live, Silent],
            ),
            (vec![(0, beat(7)), (5, released.clone())], vec![NotYet, Gone]),
            (vec![(0, Backup::default())], vec![Gone]),
            // Before its first beat, and after.
            (vec![(0, place(None)), (90, place(None))], vec![NotYet, Silent]),
            (vec![(0, place(None)), (60, beat(1))], vec![NotYet, Live]),
            // A backup that it has begun is a sign too; that it is over or undone, is none.
            (
                vec![(0, beat(7)), (60, begun.clone()), (80, beat(7)), (10, begun.clone())],
                vec![NotYet, Live, Live, Silent],
            ),
            // Somebody who was fenced writes over the summary: no sign of the holder's, nor is its own old one.
            (
                vec![(0, beat(7)), (60, place(Some((4, 99)))), (30, beat(7))],
                vec![NotYet, NotYet, Silent],
            ),
            // Another holder begins anew.
            (
                vec![
                    (0, beat(7)),
                    (89, taken_over.clone()),
                    (89, taken_over.clone()),
                    (1, taken_over),
                ],
                vec![NotYet, NotYet, NotYet, Silent],
            ),
        ] {
            assert_eq!(signs(&looks, SILENCE), expected, "{looks:?}");
        }
    }

    #[test]
    fn where_runs_release_at_their_end_a_claim_that_has_not_been_used_holds_nobody_up() {
        let state = |epoch, mode, released| State {
            epoch,
            volume_id: "aa".to_owned(),
            mode,
            released,
            ..State::default()
        };
        for (state, let_go) in [
            (None, false),
            (Some(state(4, None, true)), false),
            (Some(state(4, Some(Mode::Cronjob), true)), true),
            (Some(state(4, Some(Mode::Cronjob), false)), true),
            (Some(state(5, Some(Mode::Cronjob), false)), false),
            (Some(state(5, Some(Mode::Cronjob), true)), true),
        ] {
            let place = Backup { state, ..place(None) };
            assert_eq!(Seen::first(&place).let_go, let_go, "{:?}", place.state);
        }
    }
}
