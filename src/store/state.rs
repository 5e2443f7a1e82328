//! `state.json`: a summary of a place by the one who holds it, with a heartbeat. Bytes ↔ a type.

use super::claims::Owner;
use super::records::decode;
use super::snapshot::SnapshotId;
use super::{Error, Store, keys};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Time between two heartbeats.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(60);
/// The summary. Written by the claim's holder alone; a reader takes it for a hint, and the claims for the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// When it was written, by the writer's clock: nobody else's may be compared with it. That it changes is the beat.
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
    /// How its writer works, where that is not by a sidecar, which beats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// A writer before this one had not let go when this one had to begin, and may have sent something since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beside: bool,
    /// Since when, by the writer's clock: whoever goes on under the same claim looks for that at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside_since: Option<Timestamp>,
    /// How the place was last pruned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruning: Option<Pruning>,
}

/// How a writer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By the runs of a CronJob: each releases at its end, and between two of them nothing beats.
    Cronjob,
    /// In a way that this release does not know.
    #[serde(other)]
    Unknown,
}

/// The rules by which a place was last pruned, and what was put off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruning {
    /// The rules, as the annotation writes them.
    pub rules: String,
    /// Since when more is due to be removed than is removed at once, by the store's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_off: Option<Timestamp>,
}

/// Reads the summary; `None` where there is none. One that can't be understood, as a store leaves it whose writer was
/// killed in the middle, says nothing either: the claims are the truth, and the next heartbeat writes it anew.
pub async fn read(store: &dyn Store) -> Result<Option<State>, Error> {
    match store.read(keys::STATE).await {
        Ok(bytes) => Ok(of_bytes(store, &bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) if error.is_damaged() => {
            tracing::warn!("{error}: it says nothing");
            Ok(None)
        }
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

    #[tokio::test]
    async fn what_a_later_release_says_of_its_mode_is_no_damage() {
        let store = Memory::default();
        let text = br#"{"version":1,"epoch":3,"volume_id":"ab","heartbeat":"2026-11-22T13:05:00Z","mode":"satellite"}"#;
        store.write(keys::STATE, text).await.unwrap();
        assert_eq!(read(&store).await.unwrap().unwrap().mode, Some(Mode::Unknown));
    }
}
