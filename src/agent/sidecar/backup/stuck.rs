//! Files of which a place does not take what is new, or can't keep what it has: an error of its disk, a file that is held open
//! there, a lock. That is their own trouble. What the store has of them stays, and stays what snapshots say of them; what is
//! new waits, and is tried again, at first with the next scan, later less often. No I/O.

use crate::agent::amount;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What can't be saved at all is tried so often.
const LONGEST_REST: Duration = Duration::from_secs(3600);
/// Of more than these, nothing is remembered: they are tried each time.
const MOST: usize = 10_000;
/// So many are named.
const MOST_NAMED: usize = 20;

/// What waits at one place, by paths of the index.
#[derive(Debug, Default)]
pub struct Stuck {
    waiting: BTreeMap<Vec<u8>, Wait>,
}

#[derive(Debug)]
struct Wait {
    attempts: u32,
    since: Instant,
    why: String,
    /// The backup that is under way has met it.
    is_met: bool,
}

impl Stuck {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Their paths.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.waiting.keys().map(Vec::as_slice)
    }

    /// A backup begins.
    pub fn begin(&mut self) {
        for wait in self.waiting.values_mut() {
            wait.is_met = false;
        }
    }

    /// Whether it is too early to try this one again; `rest`: between the first two attempts, doubled with each more.
    pub fn rests(&mut self, path: &[u8], rest: Duration) -> bool {
        let Some(wait) = self.waiting.get_mut(path) else {
            return false;
        };
        let doubled = rest.saturating_mul(1 << wait.attempts.saturating_sub(1).min(10));
        let rests = wait.since.elapsed() < doubled.min(LONGEST_REST);
        wait.is_met |= rests;
        rests
    }

    /// This one could not be saved.
    pub fn add(&mut self, path: &[u8], why: &str) {
        if self.waiting.len() >= MOST && !self.waiting.contains_key(path) {
            return;
        }
        let wait = self.waiting.entry(path.to_vec()).or_insert(Wait {
            attempts: 0,
            since: Instant::now(),
            why: String::new(),
            is_met: true,
        });
        wait.attempts += 1;
        wait.since = Instant::now();
        why.clone_into(&mut wait.why);
        wait.is_met = true;
    }

    /// This one is saved.
    pub fn remove(&mut self, path: &[u8]) {
        self.waiting.remove(path);
    }

    /// A backup is made that has looked at everything: what it did not meet waits no more.
    pub fn end(&mut self) {
        self.waiting.retain(|_, wait| wait.is_met);
    }

    /// What there is to say, a line each.
    #[must_use]
    pub fn told(&self, destination: &str) -> Vec<String> {
        let mut lines: Vec<String> = self
            .waiting
            .iter()
            .take(MOST_NAMED)
            .map(|(path, wait)| {
                format!(
                    "{} is NOT saved as it is now: {destination} does not take it, or can't keep what it has of it ({}). What it \
                     has stays as it is, and it is tried again; if its object there is beyond repair, delete that",
                    amount::name(path),
                    wait.why
                )
            })
            .collect();
        let more = self.waiting.len().saturating_sub(MOST_NAMED);
        if more > 0 {
            lines.push(format!("and {more} more are not saved at {destination}"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn what_is_stuck_rests_between_attempts_and_is_forgotten_once_it_is_saved_or_gone() {
        let mut stuck = Stuck::default();
        assert!(!stuck.rests(b"config/a", HOUR));
        stuck.add(b"config/a", "it is locked");
        stuck.add(b"config/b", "it is locked");
        stuck.begin();
        assert!(stuck.rests(b"config/a", HOUR));
        assert!(!stuck.rests(b"config/a", Duration::ZERO), "whoever asks has it tried");
        stuck.end();
        assert_eq!(stuck.paths().collect::<Vec<_>>(), [b"config/a"]);
        let said = stuck.told("nas:backups");
        assert!(
            said[0].contains("config/a") && said[0].contains("it is locked"),
            "{said:?}"
        );
        stuck.remove(b"config/a");
        assert!(stuck.is_empty());
    }
}
