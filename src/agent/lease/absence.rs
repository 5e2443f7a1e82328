//! A store that answers and is not the one that was there, over time: what each look at it calls for. A NAS that has not
//! mounted its disk yet is back in minutes; what stays away is for a person to decide. Sights and moments in, a step out.
//! Pure.

use super::check::Sight;
use crate::store::claims::Holder;
use std::time::Duration;
use tokio::time::Instant;

/// Two looks that say the same, at least so far apart, are believed.
const TWICE: Duration = Duration::from_secs(5);
/// An older copy of our own store is believed after so long.
const OLDER: Duration = Duration::from_secs(300);
/// Nothing, or another store, is for a person to decide after so long.
const ELSEWHERE: Duration = Duration::from_secs(600);

/// Since when a store has been away.
#[derive(Clone, Debug)]
pub struct Absence {
    since: Instant,
    /// Since when each look has shown our store without our claim.
    gone_since: Option<Instant>,
    /// Since when each look has shown an older copy of our store.
    older_since: Option<Instant>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The store is back: go on.
    GoOn,
    /// Write our claim again, and go on.
    WriteClaim,
    /// Claim the place anew, as a start would: it is ours.
    TakeAnew,
    /// Look again.
    Wait(String),
    /// Look again, and ask whether to begin anew there.
    Ask(String),
    /// Somebody has taken the place over.
    Fence(Holder),
}

impl Absence {
    /// It begins now.
    #[must_use]
    pub const fn begins(now: Instant) -> Self {
        Self {
            since: now,
            gone_since: None,
            older_since: None,
        }
    }

    /// Takes in what a look has shown.
    pub fn step(&mut self, sight: Sight, now: Instant) -> Step {
        let gone_since = self.gone_since.take().unwrap_or(now);
        let older_since = self.older_since.take().unwrap_or(now);
        match sight {
            Sight::Ours => Step::GoOn,
            Sight::TakenOver(holder) => Step::Fence(holder),
            Sight::ClaimGone if now.duration_since(gone_since) >= TWICE => Step::WriteClaim,
            Sight::ClaimGone => {
                self.gone_since = Some(gone_since);
                Step::Wait("our claim is gone, and is written again if the next looks say the same".to_owned())
            }
            Sight::Older(_) if now.duration_since(older_since) >= OLDER => Step::TakeAnew,
            Sight::Older(why) => {
                self.older_since = Some(older_since);
                Step::Wait(why)
            }
            Sight::Elsewhere(why) => self.unknown(why, now),
        }
    }

    /// Nothing, or another store.
    #[must_use]
    pub fn unknown(&self, why: String, now: Instant) -> Step {
        if now.duration_since(self.since) >= ELSEWHERE {
            Step::Ask(why)
        } else {
            Step::Wait(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of the steps that looks call for, each so many seconds after the one before.
    fn steps(looks: &[(u64, Sight)]) -> Vec<&'static str> {
        let mut now = Instant::now();
        let mut absence = Absence::begins(now);
        let word = |step| match step {
            Step::GoOn => "go on",
            Step::WriteClaim => "write",
            Step::TakeAnew => "take",
            Step::Wait(_) => "wait",
            Step::Ask(_) => "ask",
            Step::Fence(_) => "fence",
        };
        looks
            .iter()
            .map(|(after, sight)| {
                now += Duration::from_secs(*after);
                word(absence.step(sight.clone(), now))
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_follows_from_one_look_but_that_somebody_else_has_come_or_that_all_is_back() {
        let older = Sight::Older("o".to_owned());
        let elsewhere = Sight::Elsewhere("e".to_owned());
        let taken = Sight::TakenOver(Holder {
            epoch: 9,
            volume_id: "z".to_owned(),
        });
        for (looks, expected) in [
            (vec![(0, Sight::Ours)], vec!["go on"]),
            (vec![(0, taken)], vec!["fence"]),
            (
                vec![(0, Sight::ClaimGone), (4, Sight::ClaimGone), (1, Sight::ClaimGone)],
                vec!["wait", "wait", "write"],
            ),
            // Looks that don't say the same begin anew.
            (
                vec![(0, Sight::ClaimGone), (9, elsewhere.clone()), (1, Sight::ClaimGone)],
                vec!["wait", "wait", "wait"],
            ),
            (
                vec![(0, older.clone()), (299, older.clone()), (1, older.clone())],
                vec!["wait", "wait", "take"],
            ),
            (
                vec![(0, elsewhere.clone()), (599, elsewhere.clone()), (1, elsewhere.clone())],
                vec!["wait", "wait", "ask"],
            ),
            // However long it takes, what is back is back.
            (
                vec![(0, elsewhere.clone()), (9_999, elsewhere), (1, Sight::Ours)],
                vec!["wait", "ask", "go on"],
            ),
        ] {
            assert_eq!(steps(&looks), expected, "{looks:?}");
        }
    }
}
