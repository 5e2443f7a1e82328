//! A run that would remove most of what is there, though nobody has changed what is to be kept → whether it may, or is put
//! off. Pure.
//!
//! Snapshots go one after the other; that most of them go at once happens after a long rest, or because a clock is wrong.
//! What was right is so an hour later too. Who changes the rules has asked for it, and what the byte budget of history asks
//! for has nothing to do with clocks: neither is put off.

use crate::store::state::Pruning;
use jiff::{SignedDuration, Timestamp};

/// By the store's clock.
const PUT_OFF: SignedDuration = SignedDuration::from_hours(1);

/// What comes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It removes what is to go.
    Goes,
    /// It removes only what the byte budget asks for. `new`: no run before it was put off.
    PutOff {
        /// Whether that is news.
        new: bool,
    },
}

/// `before`: as the run before left it, none where that is not known. `clock`: the store's, or ours where it does not tell.
#[must_use]
pub fn turn(before: Option<&Pruning>, rules: &str, is_sweeping: bool, clock: Timestamp) -> (Turn, Pruning) {
    let is_change = before.is_some_and(|before| before.rules != rules);
    // One that is still to come was said by a clock that was wrong.
    let since = before.and_then(|before| before.put_off).filter(|since| *since <= clock);
    let is_due = since.is_some_and(|since| clock.duration_since(since) >= PUT_OFF);
    let goes = !is_sweeping || is_change || is_due;
    let pruning = Pruning {
        rules: rules.to_owned(),
        put_off: (!goes).then(|| since.unwrap_or(clock)),
    };
    let turn = if goes {
        Turn::Goes
    } else {
        Turn::PutOff { new: since.is_none() }
    };
    (turn, pruning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_remove_most_is_put_off_until_a_run_an_hour_on_says_the_same_or_the_rules_change() {
        let at = |text: &str| -> Timestamp { format!("2026-11-22T{text}:00Z").parse().unwrap() };
        let put_off = |new| Turn::PutOff { new };
        let ten = Some("10:00");
        // The rules before and since when a run is put off, the rules, whether it removes most, when; what comes of it, and
        // since when it is put off then.
        for (before, rules, is_sweeping, clock, turn_expected, since) in [
            (None, "7d", false, "10:00", Turn::Goes, None),
            (None, "7d", true, "10:00", put_off(true), ten),
            (Some(("7d", None)), "7d", true, "10:00", put_off(true), ten),
            (Some(("7d", ten)), "7d", true, "10:59", put_off(false), ten),
            (Some(("7d", ten)), "7d", true, "11:00", Turn::Goes, None),
            // In between it was seen that little is to go: it was a clock.
            (Some(("7d", ten)), "7d", false, "10:05", Turn::Goes, None),
            // The store's clock is set back.
            (Some(("7d", ten)), "7d", true, "09:00", put_off(true), Some("09:00")),
            (Some(("7d", None)), "last=2", true, "10:00", Turn::Goes, None),
            (Some(("7d", ten)), "last=2", true, "10:05", Turn::Goes, None),
        ] {
            let before = before.map(|(rules, since): (&str, Option<&str>)| Pruning {
                rules: rules.to_owned(),
                put_off: since.map(at),
            });
            let expected = Pruning {
                rules: rules.to_owned(),
                put_off: since.map(at),
            };
            assert_eq!(
                turn(before.as_ref(), rules, is_sweeping, at(clock)),
                (turn_expected, expected),
                "{before:?} {rules} {is_sweeping} {clock}"
            );
        }
    }
}
