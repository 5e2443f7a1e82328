//! `state.json`: a summary of a place by the one who holds it, with a heartbeat. Bytes ↔ a type, and how fresh it is.

use super::claims::Owner;
use super::records::decode;
use super::snapshot::SnapshotId;
use super::{Error, Store, keys};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Time between two heartbeats.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(60);
/// A heartbeat is fresh for so long.
pub const FRESH: std::time::Duration = std::time::Duration::from_secs(180);
/// A writer of our own workload that misses a heartbeat for so long is taken for dead: it may be fenced without harm.
pub const SILENT: std::time::Duration = std::time::Duration::from_secs(90);

/// The summary. Written by the claim's holder alone; a reader takes it for a hint, and the claims for the truth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// See [`super::records::VERSION`].
    pub version: u32,
    /// The claim under which it was written.
    pub epoch: u64,
    /// The first volume's id, as in the claim's name.
    pub volume_id: String,
    /// The pod that writes.
    #[serde(default)]
    pub pod: String,
    /// Whose files they are, as in the claim: should that be damaged, this tells it. Former releases leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// When it was written.
    pub heartbeat: Timestamp,
    /// The writer is gone, and no backup of its is to come: whoever comes need not wait. It has made its final backup,
    /// unless one is owed because a guard refused it.
    #[serde(default)]
    pub released: bool,
    /// The writer has been told to end, and its final backup is to come: whoever comes had better wait for it.
    #[serde(default)]
    pub stopping: bool,
    /// The newest snapshot.
    #[serde(default)]
    pub last: Option<SnapshotId>,
    /// When a backup last succeeded (also one that found nothing to do).
    #[serde(default)]
    pub last_success: Option<Timestamp>,
    /// Whether changes are waiting that no snapshot has.
    #[serde(default)]
    pub owed: bool,
    /// Files of the newest snapshot.
    #[serde(default)]
    pub files: u64,
    /// Bytes of the newest snapshot.
    #[serde(default)]
    pub bytes: u64,
}

/// Whether `time` is at most [`FRESH`] ago.
#[must_use]
pub fn is_fresh(time: Timestamp, now: Timestamp) -> bool {
    is_within(FRESH, time, now)
}

/// Whether `time` is at most `span` away. Clocks differ, so a time to come may be a moment ago; but one that lies farther
/// ahead is of a clock that was set back since, and says nothing for as long as that is.
#[must_use]
pub fn is_within(span: std::time::Duration, time: Timestamp, now: Timestamp) -> bool {
    now.duration_since(time).abs() <= SignedDuration::from_secs(span.as_secs().cast_signed())
}

/// Reads the summary; `None` where there is none. One that can't be understood, as a store leaves it whose writer was
/// killed in the middle, says nothing either: the claims are the truth, and the next heartbeat writes it anew.
pub async fn read(store: &dyn Store) -> Result<Option<State>, Error> {
    match store.read(keys::STATE).await {
        Ok(bytes) => Ok(of_bytes(store, &bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The summary in these bytes of a store.
pub fn of_bytes(store: &dyn Store, bytes: &[u8]) -> Option<State> {
    decode(bytes)
        .inspect_err(|why| {
            tracing::warn!(
                "{}: {} is damaged and says nothing: {why}",
                store.destination(),
                keys::STATE
            );
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn a_summary_that_was_cut_off_says_nothing() {
        let store = Memory::default();
        for text in ["", "{\"version\":1,\"epo", "[]"] {
            store.objects().insert(keys::STATE.to_owned(), text.into());
            assert_eq!(read(&store).await.unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn a_heartbeat_is_fresh_for_three_minutes() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let beat = time("2026-11-22T13:05:00Z");
        assert!(is_fresh(beat, time("2026-11-22T13:08:00Z")));
        assert!(!is_fresh(beat, time("2026-11-22T13:08:01Z")));
        assert!(
            is_fresh(beat, time("2026-11-22T13:04:00Z")),
            "the writer's clock is ahead"
        );
        assert!(
            !is_fresh(beat, time("2026-11-22T12:05:00Z")),
            "a clock was set back: nobody waits for an hour"
        );
    }
}
