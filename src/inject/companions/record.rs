//! PURE: what the store held → `ConfigMap/<name>-backup-record`. It is there from the first snapshot on, whatever the
//! workload's annotations say later, and goes with the workload.

use super::{EXTRANEOUS, labels, record_name};
use crate::agent::arguments::WorkloadName;
use crate::contract::record::{RECORD_FILE, Record};
use serde_json::{Map, Value, json};

/// The value of its label `vixens.io/backup-companion`.
const LABEL: &str = "record";

/// The ConfigMap of a workload with this UID.
#[must_use]
pub fn record_config_map(namespace: &str, workload: &WorkloadName, uid: &str, record: &Record) -> Value {
    let annotations = Map::from_iter([(EXTRANEOUS.0.to_owned(), json!(EXTRANEOUS.1))]);
    let data = Map::from_iter([(RECORD_FILE.to_owned(), json!(record.to_json()))]);
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": record_name(&workload.name),
            "namespace": namespace,
            "labels": labels(LABEL),
            "annotations": annotations,
            "ownerReferences": [super::surroundings::owner_reference(workload, uid)],
        },
        "data": data,
    })
}
