//! A workload's identity in the cluster, and how others name it: an owner reference, a pod's owner.

use crate::agent::arguments::WorkloadKind;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::fmt;

/// Which workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) kind: WorkloadKind,
    pub(super) name: String,
}

/// A workload, and which of those that ever had its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Regarding {
    pub(super) key: Key,
    pub(super) uid: String,
}

impl Key {
    /// Of a workload's metadata.
    pub(super) fn of(kind: WorkloadKind, metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            kind,
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// The path of its API.
    pub(super) fn url(&self) -> String {
        let plural = match self.kind {
            WorkloadKind::Deployment => "deployments",
            WorkloadKind::StatefulSet => "statefulsets",
        };
        format!("/apis/apps/v1/namespaces/{}/{plural}", self.namespace)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} in {}", self.kind, self.name, self.namespace)
    }
}

impl Regarding {
    /// The workload that controls a companion.
    pub(super) fn controller_of(metadata: &ObjectMeta) -> Option<Self> {
        let owner = controller(metadata)?;
        (owner.api_version == "apps/v1").then_some(())?;
        Some(Self {
            key: Key {
                namespace: metadata.namespace.clone().unwrap_or_default(),
                kind: owner.kind.parse().ok()?,
                name: owner.name.clone(),
            },
            uid: owner.uid.clone(),
        })
    }

    /// For an Event.
    pub(super) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some(self.key.kind.to_string()),
            namespace: Some(self.key.namespace.clone()),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

/// The owner that made an object.
pub(super) fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// The workload whose pod this is: a StatefulSet's directly, a Deployment's by its ReplicaSet, which is named after it.
pub(super) fn workload_of_pod(metadata: &ObjectMeta) -> Option<Key> {
    let owner = controller(metadata)?;
    let (kind, name) = match owner.kind.as_str() {
        "StatefulSet" => (WorkloadKind::StatefulSet, owner.name.clone()),
        "ReplicaSet" => {
            let labels = metadata.labels.as_ref()?;
            let hash = labels.get("pod-template-hash")?;
            let name = owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
            (WorkloadKind::Deployment, name.to_owned())
        }
        _ => return None,
    };
    Some(Key {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        kind,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(value: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_is_its_deployments_by_way_of_the_replica_set() {
        let pod = metadata(json!({"namespace": "media", "name": "my-app-5d4c-x7k2p",
            "labels": {"pod-template-hash": "5d4c"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "my-app-5d4c", "uid": "u", "controller": true}]}));
        assert_eq!(workload_of_pod(&pod).unwrap().to_string(), "Deployment/my-app in media");
        let pod = metadata(json!({"namespace": "media", "name": "db-0",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}]}));
        assert_eq!(workload_of_pod(&pod).unwrap().to_string(), "StatefulSet/db in media");
        assert_eq!(workload_of_pod(&ObjectMeta::default()), None);
    }
}
