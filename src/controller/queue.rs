//! Which workload is looked at next, and when: each once at a time, a few at once, and again after a failure, later each
//! time. No I/O; time is an argument.

use super::key::Key;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// So many are looked at at once.
pub(super) const AT_ONCE: usize = 8;
/// After a first failure, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What waits, and what is under way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    running: HashSet<Key>,
    failures: HashMap<Key, u32>,
}

impl Queue {
    /// It is to be looked at, at `when` at the latest.
    pub(super) fn add(&mut self, key: &Key, when: Instant) {
        match self.due.get(key) {
            Some(due) if *due <= when => return,
            Some(due) => {
                self.order.remove(&(*due, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), when);
        self.order.insert((when, key.clone()));
    }

    /// The next one that may begin now.
    pub(super) fn take(&mut self, now: Instant) -> Option<Key> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let next = self
            .order
            .iter()
            .take_while(|(when, _)| *when <= now)
            .find(|(_, key)| !self.running.contains(key))
            .cloned()?;
        self.order.remove(&next);
        let (_, key) = next;
        self.due.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// It was looked at. Says after how long it is tried again, where it failed.
    pub(super) fn done(&mut self, key: &Key, succeeded: bool, now: Instant) -> Option<Duration> {
        self.running.remove(key);
        if succeeded {
            self.failures.remove(key);
            return None;
        }
        let failures = self.failures.entry(key.clone()).or_default();
        let wait = BACKOFF.0.saturating_mul(1 << (*failures).min(10)).min(BACKOFF.1);
        *failures += 1;
        self.add(key, now + wait);
        Some(wait)
    }

    /// When something is due that could begin.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let next = self.order.iter().find(|(_, key)| !self.running.contains(key));
        next.map(|(when, _)| *when)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::arguments::WorkloadKind;

    fn key(name: &str) -> Key {
        Key {
            namespace: "media".to_owned(),
            kind: WorkloadKind::Deployment,
            name: name.to_owned(),
        }
    }

    #[tokio::test]
    async fn each_is_taken_once_and_again_when_it_changed_meanwhile() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(&key("a"), now);
        queue.add(&key("a"), now);
        assert_eq!(queue.take(now), Some(key("a")));
        assert_eq!(queue.take(now), None);
        queue.add(&key("a"), now);
        assert_eq!(queue.take(now), None, "it is still being looked at");
        assert_eq!(queue.next(), None);
        assert_eq!(queue.done(&key("a"), true, now), None);
        assert_eq!(queue.take(now), Some(key("a")));
    }

    #[tokio::test]
    async fn a_failure_is_tried_again_later_each_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            queue.add(&key("a"), now);
            let taken = queue.take(now).unwrap();
            waits.push(queue.done(&taken, false, now).unwrap().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(queue.next(), Some(now + Duration::from_secs(60)));
        queue.add(&key("a"), now);
        assert_eq!(queue.take(now), Some(key("a")), "a change does not wait");
    }

    #[tokio::test]
    async fn no_more_than_a_few_are_under_way_at_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for number in 0..20 {
            queue.add(&key(&number.to_string()), now);
        }
        let taken: Vec<Key> = std::iter::from_fn(|| queue.take(now)).collect();
        assert_eq!(taken.len(), AT_ONCE);
        queue.done(&taken[0], true, now);
        assert!(queue.take(now).is_some());
    }
}
