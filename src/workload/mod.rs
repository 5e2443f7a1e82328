//! PURE: Deployment | StatefulSet → facts: its volumes and who mounts them, its users, ports, and which of its fields
//! an applier owns. Reads raw JSON, and tolerates every absent parent; edits nothing.

mod ownership;
mod path;
mod pod;
pub mod reading;
mod volumes;

pub use ownership::{Ownership, Setting};
pub use path::{at, at_mut};
pub use pod::{PodFacts, User};
pub use volumes::{Candidate, Mount, Source, Volume, select};

use crate::agent::arguments::{WorkloadKind, WorkloadName};
use serde_json::{Map, Value};

/// Where the pod template lies in every workload of ours.
pub const TEMPLATE: &str = "/spec/template";
/// Where the pod's specification lies.
pub const POD: &str = "/spec/template/spec";

/// What is known of one workload, with nothing of ours in it.
#[derive(Clone, Debug)]
pub struct Workload<'a> {
    /// Its kind and name.
    pub name: WorkloadName,
    /// The whole object.
    pub object: &'a Value,
    /// `spec.replicas`; 1 where it is absent.
    pub replicas: u64,
    /// Its volumes, claims of a StatefulSet's templates included.
    pub volumes: Vec<Volume>,
    /// Its pod.
    pub pod: PodFacts,
    /// Which settings an applier owns.
    pub ownership: Ownership,
}

/// The kind of an object, where it is one of ours: `apps/v1` Deployment or StatefulSet.
pub fn kind(object: &Value) -> Option<WorkloadKind> {
    if text(object, "/apiVersion") != Some("apps/v1") {
        return None;
    }
    text(object, "/kind")?.parse().ok()
}

/// The annotations of an object, or of its pod template.
pub fn annotations<'a>(object: &'a Value, parent: &str) -> &'a Map<String, Value> {
    static NONE: std::sync::OnceLock<Map<String, Value>> = std::sync::OnceLock::new();
    at(object, &format!("{parent}/metadata/annotations"))
        .and_then(Value::as_object)
        .unwrap_or_else(|| NONE.get_or_init(Map::new))
}

/// The text at a path, where there is one.
pub fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    at(object, path).and_then(Value::as_str)
}

/// The list at a path; absent and `null` are empty.
pub fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl<'a> Workload<'a> {
    /// Reads an object; `None` where it is no workload of ours or has no name.
    pub fn read(object: &'a Value, ownership: Ownership) -> Option<Self> {
        let kind = kind(object)?;
        let name = text(object, "/metadata/name").or_else(|| text(object, "/metadata/generateName"))?;
        Some(Self {
            name: WorkloadName {
                kind,
                name: name.to_owned(),
            },
            object,
            replicas: at(object, "/spec/replicas").and_then(Value::as_u64).unwrap_or(1),
            volumes: volumes::read(object),
            pod: PodFacts::read(object),
            ownership,
        })
    }

    /// Whether each pod has an identity of its own.
    pub const fn is_stateful(&self) -> bool {
        matches!(self.name.kind, WorkloadKind::StatefulSet)
    }
}

#[cfg(test)]
mod tests;
