//! `stores.json`: what is known of each destination before it is asked. Lies on each volume, as of the last start that came to
//! its end, and in the folder that a pod's containers share, where the sidecar keeps it up to date: so whoever begins again
//! while a store shows nothing knows that something was there. A type ↔ a file.

use super::inspect::{Backup, Place};
use super::reverted::Marked;
use crate::agent::arguments::QuestionKind;
use crate::agent::start::Writing;
use crate::contract::question::Question;
use crate::store::claims::Holder;
use crate::store::records::{VERSION, decode, encode};
use crate::store::store_id::StoreId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The file's name, in both places.
pub const STORES: &str = "stores.json";

/// What is known of each destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownStores {
    /// See [`VERSION`].
    pub version: u32,
    /// By destination.
    pub stores: BTreeMap<String, KnownStore>,
}

/// What is known of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownStore {
    /// A start has found a place there, or has claimed one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Which store it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<StoreId>,
    /// The newest snapshot that was recorded outside the store, where the store showed nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
    /// The claim that the sidecar of this pod has made, where `init` had not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<ClaimedSince>,
    /// What has to be accepted before anything is written there, as the last start asked it: a run of a CronJob, which can't
    /// claim, says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<Question>,
    /// What the markers of the volumes said when a start could not claim it: since then they were written anew. What it has that
    /// is newer is pinned before anything is written there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marked: Vec<Marked>,
}

/// A claim that a sidecar has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedSince {
    /// The start that it was made under, by its time.
    pub start: Timestamp,
    /// The claim.
    pub holder: Holder,
    /// Which store it was made in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<StoreId>,
}

impl Default for KnownStores {
    fn default() -> Self {
        Self {
            version: VERSION,
            stores: BTreeMap::new(),
        }
    }
}

impl KnownStore {
    /// Whether something is known to have been there, so that nothing is not believed.
    #[must_use]
    pub const fn was_there(&self) -> bool {
        self.held || self.store_id.is_some() || self.recorded.is_some()
    }

    /// Why an answer is not believed, by whoever knows this of the store. What was written there last from one of these volumes
    /// is no other's.
    #[must_use]
    pub fn doubts(&self, place: &Place, volumes: &[&str]) -> Option<String> {
        let Some(why) = place.is_bare() else {
            let is_ours = |backup: &Backup| {
                let mut last = backup.holder().into_iter();
                last.any(|holder| volumes.contains(&holder.volume_id.as_str()))
            };
            return match place {
                Place::Backup(backup) if !is_ours(backup) => self.is_another(backup),
                _ => None,
            };
        };
        let is_doubtful = match place {
            Place::Nothing { .. } => self.was_there(),
            // Claimed, and never used: whoever knows of a backup knows better.
            Place::Backup(_) => self.recorded.is_some(),
        };
        is_doubtful.then_some(why)
    }

    /// Why a place that is in use is in another store than this one.
    #[must_use]
    pub fn is_another(&self, backup: &Backup) -> Option<String> {
        let (known, found) = (self.store_id.as_ref()?, backup.store_id.as_ref()?);
        let newest = backup.newest().map_or_else(|| "none".to_owned(), |id| id.to_string());
        (known != found).then(|| format!("its id is {found}, and was {known}; its newest snapshot is {newest}"))
    }

    /// Asks whether to begin anew where nothing is left of this store, or another one is.
    #[must_use]
    pub fn start_new(&self, destination: &str, what: &str) -> Question {
        // The same before and after a restart, which may know of the snapshot too.
        let store = self.store_id.as_ref().map(StoreId::as_str);
        let facts = [destination, store.or(self.recorded.as_deref()).unwrap_or_default()];
        Question::new(
            QuestionKind::StartNew,
            &facts.map(str::as_bytes),
            format!(
                "{destination} answers, but is not the store that was here: {what}. Bring the store back, and it goes on by \
                 itself. Accepting begins anew in what is there now, with what is on the volume; an empty volume gets what is \
                 there"
            ),
        )
    }
}

impl KnownStores {
    /// Reads it from the folder that the pod's containers share. What can't be read is not known.
    #[must_use]
    pub fn read(restore_dir: &Path) -> Self {
        let path = restore_dir.join(STORES);
        let read = match std::fs::read(&path) {
            Ok(bytes) => decode(&bytes).map_err(|damage| damage.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.to_string()),
        };
        read.unwrap_or_else(|why| {
            tracing::warn!("{} can't be read: {why}", path.display());
            Self::default()
        })
    }

    /// Writes it there, as a whole or not at all.
    pub fn write(&self, restore_dir: &Path) -> io::Result<()> {
        let partial = restore_dir.join(".stores.json.partial");
        std::fs::write(&partial, encode(self))?;
        std::fs::rename(partial, restore_dir.join(STORES))
    }

    /// What is known of a destination.
    #[must_use]
    pub fn of(&self, destination: &str) -> KnownStore {
        self.stores.get(destination).cloned().unwrap_or_default()
    }

    /// What came of claiming a place there, from volumes of which their markers said so much.
    pub fn learn(&mut self, destination: &str, writing: &Writing, marked: &[Marked]) {
        let known = self.stores.entry(destination.to_owned()).or_default();
        match writing {
            Writing::Claimed { .. } => {
                known.held = true;
                known.asks = None;
            }
            Writing::Asks { question } => known.asks = Some(question.clone()),
            Writing::Unclaimed | Writing::Waiting { .. } | Writing::Fenced => {}
        }
        if let Writing::Claimed { .. } = writing {
            known.marked.clear();
        } else {
            for marked in marked {
                // The first one counts: whatever came after it, the store was not there.
                match known.marked.iter_mut().find(|before| before.id == marked.id) {
                    Some(before) => before.goes_on(marked),
                    None => known.marked.push(marked.clone()),
                }
            }
        }
    }

    /// Changes what is known of one destination, in the pod's shared folder. Where that can't be written, a sidecar that is
    /// started again knows less.
    pub fn note(restore_dir: &Path, destination: &str, known: &KnownStore) {
        let mut stores = Self::read(restore_dir);
        if stores.stores.get(destination) == Some(known) {
            return;
        }
        stores.stores.insert(destination.to_owned(), known.clone());
        if let Err(error) = stores.write(restore_dir) {
            tracing::warn!("{} can't be written: {error}", restore_dir.join(STORES).display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_comes_back_and_what_cannot_be_read_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(KnownStores::read(folder.path()), KnownStores::default());
        let known = KnownStore {
            store_id: Some("1".repeat(32).parse().unwrap()),
            claimed: Some(ClaimedSince {
                start: Timestamp::UNIX_EPOCH,
                holder: Holder {
                    epoch: 3,
                    volume_id: "ab".to_owned(),
                },
                store_id: None,
            }),
            ..KnownStore::default()
        };
        KnownStores::note(folder.path(), "minio:b/app", &known);
        KnownStores::note(folder.path(), "minio:c/app", &KnownStore::default());
        assert_eq!(KnownStores::read(folder.path()).of("minio:b/app"), known);
        assert!(!KnownStores::read(folder.path()).of("minio:d/app").was_there());
        std::fs::write(folder.path().join(STORES), "{\"version\":1,").unwrap();
        assert_eq!(KnownStores::read(folder.path()), KnownStores::default());
    }

    #[test]
    fn another_store_that_is_in_use_is_doubted_unless_it_was_written_from_our_own_volume() {
        let id = |digit: &str| -> StoreId { digit.repeat(32).parse().unwrap() };
        let place = |store_id: Option<StoreId>| {
            Place::Backup(Box::new(Backup {
                claims: vec![Holder {
                    epoch: 3,
                    volume_id: "ab".to_owned(),
                }],
                snapshots: vec!["20261122T130500Z-3.1-auto".parse().unwrap()],
                store_id,
                ..Backup::default()
            }))
        };
        // What is known, what is found, our volume.
        for (known, found, volume, expected) in [
            (Some("1"), Some("2"), "cd", true),
            (Some("1"), Some("2"), "ab", false),
            (Some("1"), Some("1"), "cd", false),
            (Some("1"), None, "cd", false),
            (None, Some("2"), "cd", false),
        ] {
            let known = KnownStore {
                store_id: known.map(id),
                ..KnownStore::default()
            };
            let doubts = known.doubts(&place(found.map(id)), &[volume]);
            assert_eq!(doubts.is_some(), expected, "{known:?} {found:?} {volume}");
        }
    }

    #[test]
    fn another_store_that_went_is_another_question() {
        let known = |digit: &str| KnownStore {
            store_id: Some(digit.repeat(32).parse().unwrap()),
            ..KnownStore::default()
        };
        let id = |known: &KnownStore, destination: &str, what: &str| known.start_new(destination, what).id;
        assert_eq!(
            id(&known("1"), "a:b", "it is empty"),
            id(&known("1"), "a:b", "no bucket")
        );
        assert_ne!(
            id(&known("1"), "a:b", "it is empty"),
            id(&known("2"), "a:b", "it is empty")
        );
        assert_ne!(
            id(&known("1"), "a:b", "it is empty"),
            id(&known("1"), "a:c", "it is empty")
        );
    }
}
