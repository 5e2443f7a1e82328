//! A place that answers with nothing × what is known to have been there → believed, or not: then nobody knows what the store
//! holds, and a person may say that nothing is to be waited for. Known is what the last start has left on the volumes, and what
//! the controller has recorded outside the store. Reads only.

use super::super::subject::Subject;
use super::super::{Init, Stores};
use super::Said;
use crate::agent::lease::inspect::Place;
use crate::agent::lease::known::{KnownStore, KnownStores, STORES};
use crate::agent::lease::reverted::Marked;
use crate::agent::volume::look::VolumeState;
use crate::agent::volume::marker::Marker;
use crate::contract::question::Question;
use crate::contract::record::{RECORD_FILE, Record};
use crate::store::{Store, decisions, store_id};
use std::io;
use std::path::Path;
use std::time::Duration;

/// A store that is slower than this is not asked which it is: the sidecar asks it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known before any store is asked.
pub(in super::super) struct Expected {
    /// By the volumes.
    known: KnownStores,
    /// By the controller.
    record: Record,
}

/// What came of weighing the answers.
#[derive(Default)]
pub(in super::super) struct Weighed {
    /// What is asked about places that are not believed to be empty.
    pub(in super::super) asks: Vec<Question>,
    /// Places, by their number, that are to be begun anew, because somebody has said so.
    pub(in super::super) anew: Vec<(usize, Question)>,
}

impl Expected {
    /// Reads what is known. What can't be read is not known.
    pub(in super::super) fn read(init: &Init<'_>, subjects: &[Subject]) -> Self {
        let mut known = KnownStores::default();
        for subject in subjects {
            // What a start that did not come to its end has left is no word of this volume.
            if matches!(subject.state, VolumeState::Initialised(_)) {
                match subject.own.read::<KnownStores>(STORES) {
                    Ok(stores) => known.stores.extend(stores.unwrap_or_default().stores),
                    Err(error) => tracing::warn!("which stores were used before is not known: {error}"),
                }
            }
        }
        Self {
            known,
            record: record(&init.arguments.record_dir),
        }
    }

    /// What is known of one destination.
    fn of(&self, destination: &str) -> KnownStore {
        let by_volume = self.known.of(destination);
        let Some(recorded) = self.record.backup_at(destination) else {
            return KnownStore {
                claimed: None,
                recorded: None,
                ..by_volume
            };
        };
        let by_record = recorded.store_id.as_ref().and_then(|id| id.parse().ok());
        KnownStore {
            held: by_volume.held,
            store_id: by_volume.store_id.or(by_record),
            recorded: recorded.snapshot.clone(),
            claimed: None,
            asks: by_volume.asks,
            marked: by_volume.marked,
        }
    }

    /// What the marker of a volume said, as far as a destination knows: what was in it when it was last there.
    pub(super) fn marked(&self, destination: &str, marker: &Marker) -> Marked {
        let marker = Marked::from(marker);
        let known = self.known.of(destination).marked;
        match known.into_iter().find(|marked| marked.id == marker.id) {
            Some(mut before) => {
                before.goes_on(&marker);
                before
            }
            None => marker,
        }
    }

    /// Whether a destination was away when the volumes were last marked.
    pub(super) fn was_away(&self, destination: &str) -> bool {
        !self.known.of(destination).marked.is_empty()
    }

    /// Whether any destination is known to have had a backup.
    pub(super) fn names_a_backup(&self, stores: &Stores) -> bool {
        let mut each = stores.iter().map(|store| self.of(&store.destination()));
        each.any(|known| known.recorded.is_some())
    }

    /// Why an answer is not believed.
    fn doubts(&self, destination: &str, said: &Said) -> Option<String> {
        let Said::Place(place) = said else {
            return None;
        };
        self.of(destination).doubts(place)
    }

    /// Turns answers that are not believed into none.
    pub(in super::super) async fn weigh(&self, init: &Init<'_>, said: &mut [Said]) -> Weighed {
        let mut weighed = Weighed::default();
        for (number, (store, said)) in init.stores.iter().zip(said).enumerate() {
            let destination = store.destination();
            let Some(why) = self.doubts(&destination, said) else {
                continue;
            };
            let question = self.of(&destination).start_new(&destination, &why);
            // A place that says so was begun anew by an earlier start, and has yet to get its first snapshot.
            let is_decided = decisions::is_decided(store.as_ref(), &question.id)
                .await
                .unwrap_or(false);
            if is_decided || question.is_accepted_by(&init.arguments.accepted) {
                tracing::warn!(
                    "{}: {why}; beginning anew there was accepted ({})",
                    destination,
                    question.id
                );
                weighed.anew.push((number, question));
            } else {
                *said = Said::Nothing(format!(
                    "{destination} answers, but is not the store that was here: {why}"
                ));
                weighed.asks.push(question);
            }
        }
        weighed
    }

    /// What is known once the stores were asked: for the next start, and for the sidecar.
    pub(in super::super) async fn learned(&self, stores: &Stores, said: &[Said], weighed: &Weighed) -> KnownStores {
        let mut learned = self.known.clone();
        for (number, (store, said)) in stores.iter().zip(said).enumerate() {
            let destination = store.destination();
            let before = self.of(&destination);
            let is_anew = weighed.anew.iter().any(|(anew, _)| *anew == number);
            // Until it is claimed, which this start has yet to do.
            let marked = before.marked.clone();
            let known = match said {
                _ if is_anew => KnownStore::default(),
                Said::Nothing(_) => before,
                Said::Place(Place::Nothing { .. }) => KnownStore::default(),
                Said::Place(Place::Backup(backup)) => KnownStore {
                    held: true,
                    store_id: backup.store_id.clone().or(before.store_id),
                    ..KnownStore::default()
                },
                Said::Outline(_) => KnownStore {
                    held: true,
                    store_id: match before.store_id {
                        Some(known) => Some(known),
                        None => asked(store.as_ref()).await,
                    },
                    ..KnownStore::default()
                },
            };
            let marked = if is_anew { Vec::new() } else { marked };
            learned.stores.insert(destination, KnownStore { marked, ..known });
        }
        learned
    }
}

/// Which store it is, where it says so in time.
async fn asked(store: &dyn Store) -> Option<store_id::StoreId> {
    let read = tokio::time::timeout(PATIENCE, store_id::read(store)).await;
    read.ok()?.ok()?
}

/// What the controller has recorded.
fn record(folder: &Path) -> Record {
    let path = folder.join(RECORD_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => Record::from_json(&bytes).unwrap_or_else(|unreadable| {
            tracing::warn!(
                "{}: {unreadable}: what the store held is not known from there",
                path.display()
            );
            Record::default()
        }),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!("{} can't be read: {error}", path.display());
            }
            Record::default()
        }
    }
}
