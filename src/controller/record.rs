//! What pods say that their stores hold → `ConfigMap/<name>-backup-record`, which a later start believes where a store
//! answers with nothing (`contract::record`). Read and written by its name alone: the controller lists no ConfigMaps. It is
//! written when a place gets its first snapshot or is another store, and for newer snapshots seldom: what is stored here is
//! etcd's.

use super::apply::{FIELD_MANAGER, found_owner};
use super::events::News;
use super::key::{Key, Regarding};
use super::reconcile::{Context, Error};
use super::slim::ConfigMap;
use crate::agent::arguments::WorkloadName;
use crate::contract::record::{RECORD_FILE, Record, RecordedPlace, Unreadable};
use crate::inject::{record_config_map, record_name};
use futures::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// The newest snapshot of a place is written down again after so long.
const NEWER: SignedDuration = SignedDuration::from_hours(1);
/// After so many rounds somebody is asked for again, whom no watch shows: it may have been deleted.
const ROUNDS: u32 = 5;
/// So many are looked at at once.
const AT_ONCE: usize = 8;

/// What a pod says that a place holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) store_id: Option<String>,
    pub(super) snapshot: String,
}

/// The same of places, by destination.
pub(super) type SaidOf = BTreeMap<String, Said>;

/// One workload's record, as it was read or written last.
#[derive(Debug)]
struct Kept {
    uid: String,
    /// What its pods have said, the newest of each place.
    said: SaidOf,
    record: Option<Record>,
    looked: Option<Instant>,
    is_looking: bool,
}

/// The records of all workloads.
#[derive(Debug)]
pub(super) struct Records {
    kept: HashMap<Key, Kept>,
    /// After so long a record is looked for again.
    patience: Duration,
}

/// A record that is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) workload: Regarding,
    said: SaidOf,
    /// As it was last: what is gone is made again.
    last: Record,
}

impl Records {
    /// `round` is the time between two rounds.
    pub(super) fn new(round: Duration) -> Self {
        Self {
            kept: HashMap::new(),
            patience: round * ROUNDS,
        }
    }

    /// Takes in what a pod of a workload has said.
    pub(super) fn hear(&mut self, workload: &Regarding, places: SaidOf) {
        if places.is_empty() {
            return;
        }
        let new = || Kept {
            uid: workload.uid.clone(),
            said: SaidOf::new(),
            record: None,
            looked: None,
            is_looking: false,
        };
        let kept = self.kept.entry(workload.key.clone()).or_insert_with(new);
        if kept.uid != workload.uid {
            *kept = new();
        }
        kept.said.extend(places);
    }

    /// Those that are to be looked at now.
    pub(super) fn due(&mut self, now: Instant, time: Timestamp) -> Vec<Look> {
        let mut due = Vec::new();
        for (key, kept) in &mut self.kept {
            let record = kept.record.clone().unwrap_or_default();
            let is_new = merged(&record, &kept.said, time).is_some();
            let waited = kept.looked.map(|looked| now.duration_since(looked));
            // Where it could not be read or written, it is not tried each time.
            let is_due = match (waited, &kept.record) {
                (None, _) => true,
                (Some(waited), Some(_)) => is_new || waited >= self.patience,
                (Some(waited), None) => waited >= self.patience,
            };
            if is_due && !kept.is_looking {
                kept.is_looking = true;
                kept.looked = Some(now);
                let workload = Regarding {
                    key: key.clone(),
                    uid: kept.uid.clone(),
                };
                due.push(Look {
                    workload,
                    said: kept.said.clone(),
                    last: record,
                });
            }
        }
        due
    }

    /// It was looked at: as it is now, where it is ours.
    pub(super) fn looked(&mut self, workload: &Regarding, record: Option<Record>) {
        let kept = self.kept.get_mut(&workload.key);
        if let Some(kept) = kept.filter(|kept| kept.uid == workload.uid) {
            kept.is_looking = false;
            if record.is_some() {
                kept.record = record;
            }
        }
    }

    /// The workload is gone, and its record goes with it.
    pub(super) fn forget(&mut self, workload: &Key) {
        self.kept.remove(workload);
    }
}

/// The record with what is said, where that is worth writing it down.
fn merged(record: &Record, said: &SaidOf, now: Timestamp) -> Option<Record> {
    let is_worth_it = said.iter().any(|(destination, said)| {
        let Some(known) = record.backup_at(destination) else {
            return true;
        };
        let is_another = said.store_id.is_some() && known.store_id != said.store_id;
        let is_newer = known.snapshot.as_ref() != Some(&said.snapshot);
        // A clock may have been ahead.
        let is_old = now.duration_since(known.time).abs() >= NEWER;
        is_another || (is_newer && is_old)
    });
    if !is_worth_it {
        return None;
    }
    let mut record = record.clone();
    for (destination, said) in said {
        let known = record.places.get(destination);
        let store_id = said
            .store_id
            .clone()
            .or_else(|| known.and_then(|known| known.store_id.clone()));
        let place = RecordedPlace {
            store_id,
            snapshot: Some(said.snapshot.clone()),
            time: now,
        };
        let is_same =
            known.is_some_and(|known| (&known.store_id, &known.snapshot) == (&place.store_id, &place.snapshot));
        if !is_same {
            record.places.insert(destination.clone(), place);
        }
    }
    Some(record)
}

/// Looks at some records, a few at a time. Each as it is now; none where it is not ours, or was out of reach.
pub(super) async fn keep_all(context: &Context, looks: Vec<Look>, now: Timestamp) -> Vec<(Regarding, Option<Record>)> {
    let kept = stream::iter(looks).map(|look| async move {
        let kept = keep(context, &look, now).await.unwrap_or_else(|error| {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "what the store holds is not recorded; trying again");
            None
        });
        (look.workload, kept)
    });
    kept.buffer_unordered(AT_ONCE).collect().await
}

/// Looks at one record, and writes it where that is worth it. None: it is not ours to write.
async fn keep(context: &Context, look: &Look, now: Timestamp) -> Result<Option<Record>, Error> {
    let Look { workload, said, last } = look;
    let Regarding { key, uid } = workload;
    let name = record_name(&key.name);
    let failed = |what: &str| {
        let what = format!("{key}: ConfigMap/{name} can't be {what}");
        move |error| Error::Api(what, error)
    };
    let config_maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &key.namespace);
    let found = config_maps.get_opt(&name).await.map_err(failed("read"))?;
    let mut record = last.clone();
    if let Some(found) = &found {
        let owner = Regarding::controller_of(&found.metadata);
        if owner.as_ref().is_none_or(|owner| owner.uid != *uid) {
            let is_former = owner.as_ref().is_some_and(|owner| owner.key == *key);
            if !is_former && found.metadata.deletion_timestamp.is_none() {
                let whose = found_owner(owner.as_ref());
                let occasion = found.metadata.uid.clone().unwrap_or_default();
                context
                    .teller
                    .tell(workload, taken(&name, &key.namespace, &whose).on(occasion))
                    .await;
            }
            return Ok(None);
        }
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        match found
            .data
            .get(RECORD_FILE)
            .map(|text| Record::from_json(text.as_bytes()))
        {
            Some(Ok(found)) => record = found,
            Some(Err(Unreadable::Newer(_))) => {
                tracing::warn!("{key}: ConfigMap/{name} is of a newer release of vixens-backup: it is left as it is");
                return Ok(None);
            }
            // Somebody has edited it: what was known is written again.
            Some(Err(Unreadable::Damaged(_))) | None => record = Record::default(),
        }
    }
    let wanted = match (merged(&record, said, now), &found) {
        (Some(wanted), _) => wanted,
        (None, Some(_)) => return Ok(Some(record)),
        // It was deleted, and nothing is newer.
        (None, None) => record,
    };
    let subject = WorkloadName {
        kind: key.kind,
        name: key.name.clone(),
    };
    let mut manifest = record_config_map(&key.namespace, &subject, uid, &wanted);
    if let Some(uid) = found.and_then(|found| found.metadata.uid) {
        manifest["metadata"]["uid"] = json!(uid);
    }
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    config_maps
        .patch(&name, &parameters, &Patch::Apply(&manifest))
        .await
        .map_err(failed("written"))?;
    Ok(Some(wanted))
}

fn taken(name: &str, namespace: &str, whose: &str) -> News {
    let note = format!(
        "ConfigMap/{name} exists, and {whose}: it is left alone, and nothing but the store says what the store holds: when it \
         answers with nothing, an app on an empty volume starts empty. To have one of ours: kubectl -n {namespace} delete \
         configmap {name}"
    );
    News::warning("BackupCompanionTaken", note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::arguments::WorkloadKind;

    const PLACE: &str = "minio:b/app";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn said(store_id: Option<&str>, snapshot: &str) -> SaidOf {
        let said = Said {
            store_id: store_id.map(str::to_owned),
            snapshot: snapshot.to_owned(),
        };
        SaidOf::from([(PLACE.to_owned(), said)])
    }

    fn workload(uid: &str) -> Regarding {
        Regarding {
            key: Key {
                namespace: "media".to_owned(),
                kind: WorkloadKind::Deployment,
                name: "app".to_owned(),
            },
            uid: uid.to_owned(),
        }
    }

    #[test]
    fn a_record_is_written_for_a_first_snapshot_another_store_and_newer_snapshots_once_an_hour() {
        let began = time("2026-11-22T13:00:00Z");
        let first = merged(&Record::default(), &said(None, "s1"), began).unwrap();
        assert_eq!(first.backup_at(PLACE).unwrap().snapshot.as_deref(), Some("s1"));
        let named = merged(&first, &said(Some("a"), "s1"), began).unwrap();
        assert_eq!(named.places[PLACE].store_id.as_deref(), Some("a"));
        assert_eq!(
            merged(&named, &said(Some("a"), "s1"), time("2026-11-23T13:00:00Z")),
            None
        );
        assert_eq!(
            merged(&named, &said(Some("a"), "s2"), time("2026-11-22T13:59:59Z")),
            None
        );
        let newer = merged(&named, &said(None, "s2"), time("2026-11-22T14:00:00Z")).unwrap();
        assert_eq!(newer.places[PLACE].snapshot.as_deref(), Some("s2"));
        assert_eq!(
            newer.places[PLACE].store_id.as_deref(),
            Some("a"),
            "it was not said this time"
        );
        assert!(merged(&newer, &said(Some("b"), "s3"), time("2026-11-22T14:00:01Z")).is_some());
        assert!(
            merged(&newer, &said(Some("a"), "s3"), time("2026-11-22T12:00:00Z")).is_some(),
            "a clock was ahead"
        );
    }

    #[test]
    fn a_place_that_nobody_speaks_of_stays_in_the_record() {
        let other = SaidOf::from([(
            "b2:b/app".to_owned(),
            Said {
                store_id: None,
                snapshot: "s9".to_owned(),
            },
        )]);
        let record = merged(&Record::default(), &other, time("2026-11-22T13:00:00Z")).unwrap();
        let both = merged(&record, &said(None, "s1"), time("2026-11-22T18:00:00Z")).unwrap();
        assert_eq!(both.places["b2:b/app"], record.places["b2:b/app"]);
        assert_eq!(both.places.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_looked_at_when_something_is_new_and_once_in_a_while() {
        let round = Duration::from_secs(60);
        let (mut records, mut now, began) = (Records::new(round), Instant::now(), time("2026-11-22T13:00:00Z"));
        assert_eq!(records.due(now, began), []);
        records.hear(&workload("u"), SaidOf::new());
        assert_eq!(records.due(now, began), [], "there is no snapshot yet");
        records.hear(&workload("u"), said(None, "s1"));
        let look = records.due(now, began).remove(0);
        assert_eq!(records.due(now, began), [], "it is under way");
        let written = merged(&look.last, &look.said, began);
        records.looked(&look.workload, written);
        now += round;
        records.hear(&workload("u"), said(None, "s2"));
        assert_eq!(records.due(now, began), [], "a newer snapshot can wait");
        now += round * (ROUNDS - 1);
        assert_eq!(records.due(now, began).len(), 1, "it may have been deleted");
        // It failed.
        records.looked(&workload("u"), None);
        assert_eq!(records.due(now + round, began), []);
        assert_eq!(records.due(now + round * ROUNDS, began).len(), 1);
        // Another workload of the name has a record of its own.
        records.hear(&workload("v"), said(None, "s1"));
        let look = records.due(now + round * ROUNDS, began).remove(0);
        assert_eq!((look.workload, look.last), (workload("v"), Record::default()));
        records.forget(&workload("v").key);
        assert_eq!(records.due(now + round * 10 * ROUNDS, began), []);
    }
}
