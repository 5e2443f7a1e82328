//! A place that answers with nothing × what is known to have been there → believed, or not: then nobody knows what the store
//! holds, and a person may say that nothing is to be waited for. Known is what the last start has left on the volumes, and what
//! the controller has recorded outside the store. Reads only.

use super::super::subject::Subject;
use super::super::{Error, Init, Stores};
use super::{Said, Survey, is_bare_by_right};
use crate::agent::arguments::{QuestionKind, RestorePolicy};
use crate::agent::lease::inspect::{Backup, Place};
use crate::agent::lease::known::{KnownStore, KnownStores, STORES};
use crate::agent::lease::reverted::Marked;
use crate::agent::volume::look::VolumeState;
use crate::agent::volume::marker::Marker;
use crate::contract::question::Question;
use crate::contract::record::{RECORD_FILE, Record};
use crate::store::claims::Owner;
use crate::store::snapshot::SnapshotId;
use crate::store::store_id::StoreId;
use crate::store::{Store, decisions, store_id};
use jiff::SignedDuration;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Two destinations that were saved to together may be this far apart.
const ONE_BACKUP: SignedDuration = SignedDuration::from_mins(15);
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
    /// What is asked about places that are not believed, by their number.
    pub(in super::super) asks: Vec<(usize, Question)>,
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

    /// Whether something is recorded that was saved later than under this epoch.
    pub(super) fn names_a_later_one(&self, stores: &Stores, epoch: u64) -> bool {
        let mut each = stores.iter().map(|store| self.of(&store.destination()));
        each.any(|known| {
            known
                .recorded
                .is_some_and(|id| !id.parse().is_ok_and(|id: SnapshotId| id.epoch <= epoch))
        })
    }

    /// Why an answer is not believed.
    fn doubts(&self, destination: &str, said: &Said, subjects: &[Subject]) -> Option<String> {
        let Said::Place(place) = said else {
            return None;
        };
        if matches!(place, Place::Backup(backup) if place.is_bare().is_none() && self.knows(backup)) {
            return None;
        }
        let volumes: Vec<&str> = subjects.iter().map(|subject| subject.id.as_str()).collect();
        self.of(destination).doubts(place, &volumes)
    }

    /// Whether a place is in a store of which something is known, were it copied from another of ours.
    fn knows(&self, backup: &Backup) -> bool {
        let by_volume = self.known.stores.values().filter_map(|known| known.store_id.as_ref());
        let by_record = self
            .record
            .places
            .values()
            .filter_map(|place| place.store_id.as_deref());
        let mut ids = by_volume.map(StoreId::as_str).chain(by_record);
        backup
            .store_id
            .as_ref()
            .is_some_and(|found| ids.any(|known| known == found.as_str()))
    }

    /// What is recorded of places that are none of a start's destinations, and may have been this pod's: the newest, and its
    /// snapshot.
    fn left_behind(&self, init: &Init<'_>) -> Option<(&str, SnapshotId)> {
        let is_given = |place: &str| init.stores.iter().any(|store| store.destination() == place);
        let places = self.record.places.keys().map(String::as_str);
        let ours = places.filter(|place| !is_given(place) && may_be_of(place, init.owner));
        let backups = ours.filter_map(|place| {
            let recorded = self.record.backup_at(place)?.snapshot.as_deref()?;
            Some((place, recorded.parse::<SnapshotId>().ok()?))
        });
        backups.max_by_key(|(_, id)| (id.time, id.point()))
    }

    /// What is to be said of answers that are believed, and are not what is known: older than what was recorded, or of another
    /// store. A clause each.
    pub(super) fn remarks(&self, init: &Init<'_>, survey: &Survey) -> Vec<String> {
        let mut remarks = Vec::new();
        for (number, backup) in survey.backups() {
            let Some(destination) = init.stores.get(number).map(|store| store.destination()) else {
                continue;
            };
            let known = self.of(&destination);
            let is_anew = survey.weighed.anew.iter().any(|(anew, _)| *anew == number);
            if let (Some(what), false) = (known.is_another(backup), is_anew) {
                remarks.push(format!("{destination} is not in the store that was here: {what}"));
            }
            let recorded = known.recorded.and_then(|id| id.parse::<SnapshotId>().ok());
            if let (Some(recorded), Some(newest), false) = (recorded, backup.newest(), is_anew)
                && recorded.point() > newest.point()
            {
                remarks.push(format!(
                    "{destination} is an older copy of what was here: it ends with {newest}, and {recorded} is recorded"
                ));
            }
        }
        if let (Some((place, recorded)), Some(newest)) = (self.left_behind(init), survey.newest)
            && recorded.time.duration_since(newest.time) > ONE_BACKUP
        {
            remarks.push(format!("{recorded} of {place}, which is not asked any more, is newer"));
        }
        remarks
    }

    /// Turns answers that are not believed into none. A place that has nothing is no reason to start empty where a backup is
    /// recorded at another, which was this workload's: that is asked at once.
    pub(in super::super) async fn weigh(
        &self,
        init: &Init<'_>,
        said: &mut [Said],
        subjects: &[Subject],
    ) -> Result<Weighed, Error> {
        let mut weighed = Weighed::default();
        for (number, (store, said)) in init.stores.iter().zip(said.iter_mut()).enumerate() {
            let destination = store.destination();
            let Some(why) = self.doubts(&destination, said, subjects) else {
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
                weighed.asks.push((number, question));
            }
        }
        let is_bare = |said: &Said| matches!(said, Said::Place(place) if place.is_bare().is_some());
        let begins = |subject: &Subject| match subject.state {
            VolumeState::Initialised(_) => subject.is_bare && !is_bare_by_right(init, subject, self),
            VolumeState::Others(_) => false,
            _ => true,
        };
        if init.arguments.restore != RestorePolicy::Never
            && weighed.anew.is_empty()
            && said.iter().all(is_bare)
            && subjects.iter().any(begins)
            && let (Some(store), Some((place, recorded))) = (init.stores.first(), self.left_behind(init))
        {
            let question = about_left_behind(&store.destination(), place, &recorded);
            let is_decided = decisions::is_decided(store.as_ref(), &question.id);
            if !is_decided.await.unwrap_or(false) && !question.is_accepted_by(&init.arguments.accepted) {
                return Err(Error::Asks(question));
            }
            tracing::warn!("{place} is left behind, as was accepted ({})", question.id);
            weighed.anew.push((0, question));
        }
        Ok(weighed)
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
                Said::Place(place) if is_anew && place.is_bare().is_some() => KnownStore::default(),
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

/// Asks whether to begin anew at a place that has nothing, beside a backup at another.
fn about_left_behind(destination: &str, place: &str, recorded: &SnapshotId) -> Question {
    Question::new(
        QuestionKind::StartNew,
        &[
            destination.as_bytes(),
            place.as_bytes(),
            recorded.to_string().as_bytes(),
        ],
        format!(
            "{destination} has no backup, and {place}, where this workload was backed up before, has {recorded}, which is not \
             asked any more. To go on from it, name it in vixens.io/backup-destination again, alone or after {destination}, or \
             copy it to {destination}. Accepting begins anew, with what is on the volume"
        ),
    )
}

/// Whether a place may have been that of a workload's pod: of a StatefulSet, each has its own, which names it.
fn may_be_of(place: &str, owner: &Owner) -> bool {
    let after_name = |found: &str| {
        let digits: String = found.chars().take_while(char::is_ascii_digit).collect();
        let is_whole = !found.chars().nth(digits.len()).is_some_and(char::is_alphanumeric);
        (is_whole && !digits.is_empty()).then_some(digits)
    };
    let name = format!("{}-", owner.name);
    let named = place.match_indices(&name);
    let ordinals: Vec<String> = named
        .filter_map(|(at, _)| after_name(place.get(at + name.len()..)?))
        .collect();
    let own = owner.pod.strip_prefix(&name);
    owner.pod.is_empty() || ordinals.is_empty() || ordinals.iter().any(|ordinal| Some(ordinal.as_str()) == own)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_another_pod_of_a_stateful_set_is_not_this_ones() {
        let owner = |pod: &str| Owner {
            cluster: "c".to_owned(),
            namespace: "n".to_owned(),
            kind: "StatefulSet".to_owned(),
            name: "app".to_owned(),
            pod: pod.to_owned(),
        };
        for (place, pod, expected) in [
            ("minio:b/app-1", "app-1", true),
            ("minio:b/app-10", "app-1", false),
            ("minio:b/app-0", "app-1", false),
            ("minio:app-0/x/app-1/y", "app-1", true),
            ("minio:b/app", "app-1", true),
            ("minio:b/app-data", "app-1", true),
            ("minio:b/app-0", "", true),
        ] {
            assert_eq!(may_be_of(place, &owner(pod)), expected, "{place} {pod}");
        }
    }
}
