//! PURE: an injected manifest → `Job/<name>-presync`, which Argo CD runs before it syncs. It stands in rendered manifests
//! alone: Argo CD makes and removes it, and the controller leaves it to that.

use super::super::marker::Found;
use super::super::plan::Plan;
use super::names::presync_name;
use super::{Surroundings, restore_job};
use crate::agent::arguments::Tier;
use crate::policy::key;
use crate::workload::text;
use serde_json::{Value, json};

/// It may look for so long, in seconds: a sync waits for it.
const DEADLINE: u64 = 600;

/// The value of the label `vixens.io/backup-job` of PreSync Jobs and of their pods.
pub const PRESYNC: &str = "presync";

/// The Job of an injected workload that stores something.
#[must_use]
pub fn presync_job(object: &Value) -> Option<Value> {
    let plan: Plan = Found::read(object).known()?.plan()?;
    if plan.tier == Tier::Tier1 {
        return None;
    }
    let mut metadata = json!({
        "name": presync_name(&plan.workload.name),
        "labels": {"app.kubernetes.io/managed-by": "vixens-backup", key::JOB_LABEL: PRESYNC},
        "annotations": {
            "argocd.argoproj.io/hook": "PreSync",
            // Its log is there until the next sync.
            "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
        },
    });
    // As the workload: where it names none, both come into the one that the manifests are applied to.
    if let Some(namespace) = text(object, "/metadata/namespace") {
        metadata["namespace"] = json!(namespace);
    }
    let template = restore_job::template(&plan, &Surroundings::read(object, &plan), None, PRESYNC, true);
    Some(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 2,
            "activeDeadlineSeconds": DEADLINE,
            "template": template,
        },
    }))
}

/// Whether an object is such a Job.
#[must_use]
pub fn is_presync_job(object: &Value) -> bool {
    text(object, "/kind") == Some("Job") && object["metadata"]["labels"][key::JOB_LABEL] == PRESYNC
}
