//! How long a start waits before it tries a store again: a second at first, and twice as long each time.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// The next pause.
pub(super) struct Pause(Duration);

impl Pause {
    /// Before the second attempt.
    pub(super) const fn first() -> Self {
        Self(Duration::from_secs(1))
    }

    /// Whether there is something left to do after it.
    pub(super) fn ends_before(&self, deadline: Instant) -> bool {
        Instant::now() + self.0 < deadline
    }

    /// Says why, and waits; the next one is longer.
    pub(super) async fn rest(&mut self, why: impl Display) {
        tracing::warn!("{why}; trying again in {} s", self.0.as_secs());
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_doubles_until_half_a_minute() {
        let mut pause = Pause::first();
        let mut lengths = Vec::new();
        for _ in 0..7 {
            lengths.push(pause.0.as_secs());
            pause.rest("the store is away").await;
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 30, 30]);
        assert!(!pause.ends_before(Instant::now() + Duration::from_secs(29)));
        assert!(pause.ends_before(Instant::now() + Duration::from_secs(31)));
    }
}
