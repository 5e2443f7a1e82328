//! Which workloads write where: two of them on one place would take turns in writing over each other. No I/O.

use super::key::Key;
use crate::agent::arguments::WorkloadKind;
use crate::inject::Plan;
use std::collections::{BTreeSet, HashMap};

/// The place of each protected workload.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_workload: HashMap<Key, Vec<String>>,
    by_place: HashMap<String, BTreeSet<Key>>,
}

/// The places of a plan. A StatefulSet's first pod stands for all of them.
pub(super) fn places_of(plan: &Plan) -> Vec<String> {
    let pod = match plan.workload.kind {
        WorkloadKind::Deployment => plan.workload.name.clone(),
        WorkloadKind::StatefulSet => format!("{}-0", plan.workload.name),
    };
    let destinations = plan.destinations.iter();
    destinations
        .map(|to| to.filled(&[("{pod}", &pod)]).to_string())
        .collect()
}

impl Places {
    /// A workload writes to these. The others that write there too, each with the place.
    pub(super) fn set(&mut self, key: &Key, places: Vec<String>) -> Vec<(Key, String)> {
        let before = self.by_workload.remove(key).unwrap_or_default();
        for place in before {
            if let Some(there) = self.by_place.get_mut(&place) {
                there.remove(key);
                if there.is_empty() {
                    self.by_place.remove(&place);
                }
            }
        }
        let mut others = Vec::new();
        for place in &places {
            let there = self.by_place.entry(place.clone()).or_default();
            others.extend(there.iter().map(|other| (other.clone(), place.clone())));
            there.insert(key.clone());
        }
        if !places.is_empty() {
            self.by_workload.insert(key.clone(), places);
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str) -> Key {
        Key {
            namespace: namespace.to_owned(),
            kind: WorkloadKind::Deployment,
            name: "app".to_owned(),
        }
    }

    #[test]
    fn whoever_comes_second_to_a_place_is_told_who_is_there() {
        let mut places = Places::default();
        let at = |place: &str| vec![place.to_owned()];
        assert_eq!(places.set(&key("a"), at("minio:b/app")), []);
        assert_eq!(places.set(&key("a"), at("minio:b/app")), [], "it is there itself");
        assert_eq!(
            places.set(&key("b"), at("minio:b/app")),
            [(key("a"), "minio:b/app".to_owned())]
        );
        assert_eq!(places.set(&key("b"), at("minio:b/other")), []);
        assert_eq!(places.set(&key("c"), at("minio:b/app")).len(), 1);
        places.set(&key("a"), Vec::new());
        places.set(&key("c"), Vec::new());
        assert_eq!(places.set(&key("d"), at("minio:b/app")), []);
    }
}
