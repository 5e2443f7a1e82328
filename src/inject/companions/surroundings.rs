//! PURE: a workload as it is stored → what its companions take over from it. Never its labels or annotations: whoever
//! tracks the workload by those would count the companions as its own.

use super::super::plan::Plan;
use crate::agent::arguments::WorkloadName;
use crate::workload::{POD, at, list, text};
use serde_json::{Map, Value, json};

/// What is taken over from a workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.replicas`; 1 where it is absent.
    pub replicas: u64,
    /// The number of a StatefulSet's first pod.
    pub first_ordinal: u64,
    /// The Service that gives a StatefulSet's pods their names.
    pub service_name: Option<String>,
    /// Where pods of the workload may run and how their images are pulled, as fields of a pod's specification.
    pub placement: Map<String, Value>,
    /// Groups by which the app reads its volumes.
    pub groups: Vec<u64>,
    /// The claim behind each protected volume.
    pub claims: Vec<(String, String)>,
}

/// Fields of a pod's specification that decide where it may run, and whether its images can be had.
const PLACEMENT: [&str; 4] = ["imagePullSecrets", "nodeSelector", "runtimeClassName", "tolerations"];

impl Surroundings {
    /// Reads a stored workload.
    #[must_use]
    pub fn read(object: &Value, plan: &Plan) -> Self {
        let of_pod = |name: &str| at(object, &format!("{POD}/{name}")).filter(|value| !value.is_null());
        let number = |path: &str| at(object, path).and_then(Value::as_u64);
        let mut groups: Vec<u64> = number(&format!("{POD}/securityContext/fsGroup")).into_iter().collect();
        let more = list(object, &format!("{POD}/securityContext/supplementalGroups"));
        groups.extend(more.iter().filter_map(Value::as_u64));
        groups.sort_unstable();
        groups.dedup();
        let first_ordinal = number("/spec/ordinals/start").unwrap_or(0);
        let claim = |volume: &str| -> Option<String> {
            let named = |item: &&Value, path: &str| text(item, path) == Some(volume);
            let volumes = list(object, &format!("{POD}/volumes"));
            if let Some(found) = volumes.iter().find(|item| named(item, "/name")) {
                return text(found, "/persistentVolumeClaim/claimName").map(str::to_owned);
            }
            let templates = list(object, "/spec/volumeClaimTemplates");
            templates
                .iter()
                .find(|item| named(item, "/metadata/name"))
                .map(|_| format!("{volume}-{}-{first_ordinal}", plan.workload.name))
        };
        Self {
            namespace: text(object, "/metadata/namespace").unwrap_or_default().to_owned(),
            uid: text(object, "/metadata/uid").unwrap_or_default().to_owned(),
            replicas: number("/spec/replicas").unwrap_or(1),
            first_ordinal,
            service_name: text(object, "/spec/serviceName")
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            placement: PLACEMENT
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), of_pod(name)?.clone())))
                .collect(),
            groups,
            claims: plan
                .volumes
                .iter()
                .filter_map(|volume| Some((volume.name.clone(), claim(&volume.name)?)))
                .collect(),
        }
    }

    /// The ordinals of a StatefulSet's pods; at least one, so that a stopped one keeps its companions.
    pub(super) fn ordinals(&self) -> impl Iterator<Item = u64> {
        self.first_ordinal..self.first_ordinal + self.replicas.max(1)
    }

    /// The owner of every companion.
    pub(super) fn owner_reference(&self, plan: &Plan) -> Value {
        owner_reference(&plan.workload, &self.uid)
    }
}

/// The reference by which a workload controls an object.
pub(super) fn owner_reference(workload: &WorkloadName, uid: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": workload.kind.to_string(),
        "name": workload.name,
        "uid": uid,
        "controller": true,
    })
}
