//! What the controller reads of each kind of object, and nothing more: the rest is passed over while it is read, and never
//! held. Of metadata that is `managedFields` and what kubectl applied last, most of its bytes.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::{apps, batch, core};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// An object of which only its metadata is asked for.
macro_rules! metadata_of {
    ($(#[$meta:meta])* $name:ident, $whole:ty) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            #[serde(deserialize_with = "lean")]
            pub(super) metadata: ObjectMeta,
        }

        asked_for_as!($name, $whole, true);
    };
}

/// The slim type is asked for where the whole one lies; as metadata alone, or with the rest to choose from.
macro_rules! asked_for_as {
    ($slim:ty, $whole:ty, $metadata_alone:literal) => {
        impl Resource for $slim {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind(dt: &()) -> Cow<'_, str> {
                <$whole as Resource>::kind(dt)
            }

            fn group(dt: &()) -> Cow<'_, str> {
                <$whole as Resource>::group(dt)
            }

            fn version(dt: &()) -> Cow<'_, str> {
                <$whole as Resource>::version(dt)
            }

            fn plural(dt: &()) -> Cow<'_, str> {
                <$whole as Resource>::plural(dt)
            }

            fn metadata_api() -> bool {
                $metadata_alone
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

metadata_of!(
    /// A Deployment.
    Deployment, apps::v1::Deployment
);
metadata_of!(
    /// A StatefulSet.
    StatefulSet, apps::v1::StatefulSet
);
metadata_of!(
    /// A companion CronJob.
    CronJob, batch::v1::CronJob
);
metadata_of!(
    /// A restore Job.
    RestoreJob, batch::v1::Job
);
metadata_of!(
    /// A companion Service.
    Service, core::v1::Service
);

/// Metadata, as far as anybody here asks for it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Lean {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
    owner_references: Option<Vec<OwnerReference>>,
}

fn lean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let Lean {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        creation_timestamp,
        deletion_timestamp,
        labels,
        annotations,
        owner_references,
    } = Lean::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        creation_timestamp,
        deletion_timestamp,
        labels,
        annotations: annotations.map(|annotations| annotations.0),
        owner_references,
        ..ObjectMeta::default()
    })
}

/// Annotations, but for the largest one of many objects.
struct Annotations(BTreeMap<String, String>);

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Annotations;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Annotations, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = access.next_key::<String>()? {
                    if name == LAST_APPLIED {
                        access.next_value::<IgnoredAny>()?;
                    } else {
                        entries.insert(name, access.next_value()?);
                    }
                }
                Ok(Annotations(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// A Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    #[serde(deserialize_with = "lean")]
    pub(super) metadata: ObjectMeta,
    pub(super) spec: PodSpec,
    pub(super) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Port {
    pub(super) container_port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) phase: String,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    pub(super) container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    pub(super) restart_count: u32,
    pub(super) state: ContainerState,
    /// Before its last start.
    pub(super) last_state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerState {
    pub(super) waiting: Option<Waiting>,
    pub(super) running: Option<Running>,
    pub(super) terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Waiting {
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Running {}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Terminated {
    pub(super) exit_code: i32,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) finished_at: Option<Time>,
}

/// A Job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Job {
    #[serde(deserialize_with = "lean")]
    pub(super) metadata: ObjectMeta,
    pub(super) status: JobStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobStatus {
    pub(super) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) message: Option<String>,
    pub(super) last_transition_time: Option<Time>,
}

/// A ConfigMap.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConfigMap {
    #[serde(deserialize_with = "lean")]
    pub(super) metadata: ObjectMeta,
    pub(super) data: BTreeMap<String, String>,
}

/// An Event about a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Event {
    #[serde(deserialize_with = "lean")]
    pub(super) metadata: ObjectMeta,
    pub(super) involved_object: InvolvedObject,
    pub(super) message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InvolvedObject {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// A StatefulSet, for the revision that its pods should have.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Revised {
    #[serde(deserialize_with = "lean")]
    pub(super) metadata: ObjectMeta,
    pub(super) status: RevisedStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RevisedStatus {
    pub(super) observed_generation: Option<i64>,
    pub(super) update_revision: Option<String>,
}

asked_for_as!(Pod, core::v1::Pod, false);
asked_for_as!(Job, batch::v1::Job, false);
asked_for_as!(ConfigMap, core::v1::ConfigMap, false);
asked_for_as!(Event, core::v1::Event, false);
asked_for_as!(Revised, apps::v1::StatefulSet, false);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_metadata_all_is_read_but_what_nobody_asks_for() {
        let object = json!({"kind": "PartialObjectMetadata", "metadata": {
            "name": "app", "namespace": "media", "uid": "u", "resourceVersion": "7", "generation": 2,
            "labels": {"app": "app"}, "creationTimestamp": "2026-11-22T13:05:00Z",
            "annotations": {"vixens.io/backup": "tier2", LAST_APPLIED: "{}"},
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "o", "uid": "v", "controller": true}]}});
        let mut expected: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap();
        expected.managed_fields = None;
        expected.annotations.as_mut().unwrap().remove(LAST_APPLIED);
        let read: Deployment = serde_json::from_value(object).unwrap();
        assert_eq!(read.metadata, expected);
        assert!(Deployment::metadata_api());
    }
}
