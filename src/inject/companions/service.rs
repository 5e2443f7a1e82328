//! PURE: Plan → `Service/<name>-backup`: headless, for metrics, and for the CronJob's question.

use super::super::block::label_value;
use super::super::plan::Plan;
use crate::agent::arguments::Port;
use crate::policy::key;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The Service's specification.
pub(super) fn specification(plan: &Plan) -> Value {
    let selector = BTreeMap::from([(key::APP_LABEL, label_value(&plan.workload.name))]);
    let mut specification = json!({
        "type": "ClusterIP",
        "clusterIP": "None",
        // A sidecar answers while its app is not ready, too.
        "publishNotReadyAddresses": true,
        "selector": selector,
    });
    // On the node's network the port is only known once the agent has found a free one.
    if let Port::Fixed(port) = plan.port {
        specification["ports"] = json!([{"name": "metrics", "port": port, "targetPort": port, "protocol": "TCP"}]);
    }
    specification
}
