//! What the watches have shown → the little of it that is kept: of each annotated workload whether it has changed, of
//! each companion whose it is and whether it is as it was applied. No objects. No I/O.

use super::key::{Key, Regarding};
use super::watch::Change;
use crate::agent::arguments::WorkloadKind;
use crate::inject::{CompanionKind, companion_name};
use crate::policy::{is_ours, key};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};

/// An annotated workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) uid: String,
    /// The annotation `vixens.io/backup`, as it is written.
    pub(super) tier: Option<String>,
    /// Of all that a look at it may come to.
    pub(super) fingerprint: u64,
}

/// A companion, as it was seen or applied last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) uid: String,
    pub(super) resource_version: String,
    /// The workload that controls it.
    pub(super) owner: Option<Regarding>,
    /// Of what somebody could have edited.
    pub(super) fingerprint: u64,
}

type CompanionKey = (CompanionKind, String, String);

/// Workloads and companions.
#[derive(Debug, Default)]
pub(super) struct Known {
    workloads: HashMap<Key, Workload>,
    /// Hashes of those that carry no annotation of ours.
    plain: HashSet<u64>,
    companions: HashMap<CompanionKey, Kept>,
    /// While they are listed: what was found so far.
    listed_workloads: HashMap<WorkloadKind, HashSet<u64>>,
    listed_companions: HashMap<CompanionKind, HashSet<u64>>,
    complete: BTreeSet<&'static str>,
}

/// The lists that must have been read once, before anything is done.
const LISTS: [&str; 5] = ["Deployment", "StatefulSet", "CronJob", "Job", "Service"];

impl Known {
    /// Whether everything was seen once.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.len() == LISTS.len()
    }

    /// The workload, where it is annotated.
    pub(super) fn workload(&self, key: &Key) -> Option<&Workload> {
        self.workloads.get(key)
    }

    /// Whether it is one that this controller looks after, annotated or not.
    pub(super) fn is_watched(&self, key: &Key) -> bool {
        self.workloads.contains_key(key) || self.plain.contains(&hash(key))
    }

    /// How many workloads have which tier.
    pub(super) fn tiers(&self) -> BTreeMap<String, i64> {
        let mut tiers = BTreeMap::new();
        for tier in self.workloads.values().filter_map(|workload| workload.tier.as_ref()) {
            // A label of a metric has few values.
            let tier = match tier.as_str() {
                "off" => "disabled",
                tier @ ("tier1" | "tier2" | "tier3" | "disabled") => tier,
                _ => "invalid",
            };
            *tiers.entry(tier.to_owned()).or_default() += 1;
        }
        tiers
    }

    /// The companions that a workload may have, as they were seen.
    pub(super) fn companions(&self, key: &Key) -> BTreeMap<CompanionKind, Kept> {
        let kept = |kind: CompanionKind| {
            let name = (kind, key.namespace.clone(), companion_name(kind, &key.name));
            Some((kind, self.companions.get(&name)?.clone()))
        };
        CompanionKind::ALL.into_iter().filter_map(kept).collect()
    }

    /// The workload that a companion of this name belongs to.
    pub(super) fn owner(&self, kind: CompanionKind, namespace: &str, name: &str) -> Option<&Regarding> {
        let kept = self.companions.get(&(kind, namespace.to_owned(), name.to_owned()))?;
        kept.owner.as_ref()
    }

    /// A companion was applied: what the watch will show is no news.
    pub(super) fn applied(&mut self, kind: CompanionKind, metadata: &ObjectMeta) {
        let kept = Kept::of(kind, metadata);
        self.companions.insert(companion_key(kind, metadata), kept);
    }

    /// A companion was removed.
    pub(super) fn removed(&mut self, kind: CompanionKind, key: &Key) {
        let name = companion_name(kind, &key.name);
        self.companions.remove(&(kind, key.namespace.clone(), name));
    }

    /// Takes in a change of workloads; those that are to be looked at.
    pub(super) fn see_workload(&mut self, kind: WorkloadKind, change: Change<ObjectMeta>) -> Vec<Key> {
        match change {
            Change::Listing => {
                self.listed_workloads.insert(kind, HashSet::new());
                Vec::new()
            }
            Change::Found(metadata) => {
                let key = Key::of(kind, &metadata);
                let number = hash(&key);
                if let Some(listed) = self.listed_workloads.get_mut(&kind) {
                    listed.insert(number);
                }
                match Workload::of(&metadata) {
                    None => {
                        self.plain.insert(number);
                        self.workloads.remove(&key).map(|_| key).into_iter().collect()
                    }
                    Some(workload) => {
                        self.plain.remove(&number);
                        if self.workloads.get(&key) == Some(&workload) {
                            return Vec::new();
                        }
                        self.workloads.insert(key.clone(), workload);
                        vec![key]
                    }
                }
            }
            Change::Gone(metadata) => {
                let key = Key::of(kind, &metadata);
                self.plain.remove(&hash(&key));
                self.workloads.remove(&key).map(|_| key).into_iter().collect()
            }
            Change::Listed => {
                self.complete.insert(match kind {
                    WorkloadKind::Deployment => "Deployment",
                    WorkloadKind::StatefulSet => "StatefulSet",
                });
                let listed = self.listed_workloads.remove(&kind).unwrap_or_default();
                let mut gone: Vec<Key> = self.workloads.keys().cloned().collect();
                gone.retain(|key| key.kind == kind && !listed.contains(&hash(key)));
                for key in &gone {
                    self.workloads.remove(key);
                }
                gone
            }
        }
    }

    /// Takes in a change of companions; the workload that is to be looked at.
    pub(super) fn see_companion(&mut self, kind: CompanionKind, change: Change<ObjectMeta>) -> Vec<Key> {
        let owner = |kept: Option<Kept>| kept.and_then(|kept| kept.owner).map(|owner| owner.key);
        match change {
            Change::Listing => {
                self.listed_companions.insert(kind, HashSet::new());
                Vec::new()
            }
            Change::Found(metadata) => {
                let key = companion_key(kind, &metadata);
                if let Some(listed) = self.listed_companions.get_mut(&kind) {
                    listed.insert(hash(&key));
                }
                let kept = Kept::of(kind, &metadata);
                let before = self.companions.insert(key, kept.clone());
                if before
                    .as_ref()
                    .is_some_and(|before| before.fingerprint == kept.fingerprint)
                {
                    return Vec::new();
                }
                // Whoever had it before may want it back.
                let owners: BTreeSet<Key> = owner(before).into_iter().chain(owner(Some(kept))).collect();
                owners.into_iter().collect()
            }
            Change::Gone(metadata) => {
                let key = companion_key(kind, &metadata);
                let last = Kept::of(kind, &metadata);
                let owners: BTreeSet<Key> = owner(self.companions.remove(&key))
                    .into_iter()
                    .chain(owner(Some(last)))
                    .collect();
                owners.into_iter().collect()
            }
            Change::Listed => {
                self.complete.insert(kind.as_str());
                let listed = self.listed_companions.remove(&kind).unwrap_or_default();
                let mut gone: Vec<CompanionKey> = self.companions.keys().cloned().collect();
                gone.retain(|key| key.0 == kind && !listed.contains(&hash(key)));
                gone.iter()
                    .filter_map(|key| owner(self.companions.remove(key)))
                    .collect()
            }
        }
    }
}

impl Workload {
    /// Nothing where no annotation is ours.
    fn of(metadata: &ObjectMeta) -> Option<Self> {
        let annotations = metadata.annotations.iter().flatten();
        let ours: Vec<(&String, &String)> = annotations.filter(|(name, _)| is_ours(name)).collect();
        if ours.is_empty() {
            return None;
        }
        let tier = ours.iter().find(|(name, _)| *name == key::BACKUP);
        let tier = tier.map(|(_, value)| (*value).clone());
        Some(Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            tier,
            fingerprint: hash(&(metadata.generation, metadata.deletion_timestamp.is_some(), ours)),
        })
    }
}

impl Kept {
    /// Of a companion's metadata. A Service has no generation, and nothing but people changes it.
    pub(super) fn of(kind: CompanionKind, metadata: &ObjectMeta) -> Self {
        let mut hasher = DefaultHasher::new();
        metadata.uid.hash(&mut hasher);
        if kind == CompanionKind::Service {
            metadata.resource_version.hash(&mut hasher);
        } else {
            metadata.generation.hash(&mut hasher);
        }
        metadata.labels.hash(&mut hasher);
        metadata.annotations.hash(&mut hasher);
        metadata.deletion_timestamp.is_some().hash(&mut hasher);
        for owner in metadata.owner_references.iter().flatten() {
            (&owner.uid, owner.controller).hash(&mut hasher);
        }
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            owner: Regarding::controller_of(metadata),
            fingerprint: hasher.finish(),
        }
    }
}

fn companion_key(kind: CompanionKind, metadata: &ObjectMeta) -> CompanionKey {
    (
        kind,
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn metadata(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    fn app(annotations: &Value, generation: i64) -> Change<ObjectMeta> {
        Change::Found(metadata(json!({"namespace": "media", "name": "app", "uid": "u",
            "generation": generation, "annotations": annotations})))
    }

    fn service(version: &str) -> ObjectMeta {
        metadata(
            json!({"namespace": "media", "name": "app-backup", "uid": "s", "resourceVersion": version,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "app", "uid": "u", "controller": true}]}),
        )
    }

    const DEPLOYMENT: WorkloadKind = WorkloadKind::Deployment;

    #[test]
    fn only_what_concerns_us_makes_a_workload_worth_a_look() {
        let mut known = Known::default();
        assert_eq!(known.see_workload(DEPLOYMENT, app(&json!({}), 1)).len(), 0);
        let tier2 = json!({"vixens.io/backup": "tier2"});
        assert_eq!(known.see_workload(DEPLOYMENT, app(&tier2, 1)).len(), 1);
        let status = json!({"vixens.io/backup": "tier2", "deployment.kubernetes.io/revision": "2"});
        assert_eq!(known.see_workload(DEPLOYMENT, app(&status, 1)).len(), 0);
        assert_eq!(
            known.see_workload(DEPLOYMENT, app(&tier2, 2)).len(),
            1,
            "its spec changed"
        );
        assert_eq!(known.tiers(), BTreeMap::from([("tier2".to_owned(), 1)]));
        assert_eq!(
            known.see_workload(DEPLOYMENT, app(&json!({}), 3)).len(),
            1,
            "the annotation went"
        );
        assert_eq!(known.see_workload(DEPLOYMENT, app(&json!({}), 4)).len(), 0);
    }

    #[test]
    fn what_a_new_list_lacks_is_gone() {
        let mut known = Known::default();
        known.see_workload(DEPLOYMENT, app(&json!({"vixens.io/backup": "tier2"}), 1));
        known.see_companion(CompanionKind::Service, Change::Found(service("1")));
        known.see_workload(DEPLOYMENT, Change::Listing);
        assert_eq!(known.see_workload(DEPLOYMENT, Change::Listed).len(), 1);
        known.see_companion(CompanionKind::Service, Change::Listing);
        assert_eq!(known.see_companion(CompanionKind::Service, Change::Listed).len(), 1);
        assert!(known.workloads.is_empty() && known.companions.is_empty());
    }

    #[test]
    fn what_was_applied_is_no_news_and_an_edit_and_a_deletion_are() {
        let mut known = Known::default();
        known.applied(CompanionKind::Service, &service("1"));
        let see = |known: &mut Known, change| known.see_companion(CompanionKind::Service, change).len();
        assert_eq!(see(&mut known, Change::Found(service("1"))), 0);
        assert_eq!(see(&mut known, Change::Found(service("2"))), 1);
        assert_eq!(see(&mut known, Change::Gone(service("2"))), 1);
    }
}
