//! PURE: Plan → `Job/<name>-restore`: looks at the store, says what a restore would bring, writes nothing. And the same
//! pod for `Job/<name>-presync`, which pins what it has found.

use super::super::block::{Places, protection};
use super::super::plan::Plan;
use super::pod::Pod;
use super::{CompanionKind, Surroundings};
use crate::agent::arguments::{Flags, Identity, PreSyncArguments, Verify, WorkloadKind};
use crate::policy::{ContainerKind, fingerprint};
use serde_json::{Value, json};

/// It may look for so long, in seconds.
const DEADLINE: u64 = 1800;

/// The Job's specification.
pub(super) fn specification(plan: &Plan, surroundings: &Surroundings, cluster_id: Option<&str>) -> Value {
    json!({
        "backoffLimit": 2,
        "activeDeadlineSeconds": DEADLINE,
        "template": template(plan, surroundings, cluster_id, CompanionKind::RestoreJob.label(), false),
    })
}

/// The template of a pod that looks at the store.
pub(super) fn template(
    plan: &Plan,
    surroundings: &Surroundings,
    cluster_id: Option<&str>,
    label: &'static str,
    pin: bool,
) -> Value {
    let arguments = PreSyncArguments {
        identity: Identity::default(),
        // `{pod}` stays: it is filled in for each of the replicas.
        protection: protection(plan, None),
        folders: Places::new(plan.moved_folders).folders(),
        verify: Verify::Listing,
        pin,
        secret: Some(plan.secret.clone()),
        replicas: replicas(plan, surroundings),
    };
    let pod = Pod {
        plan,
        surroundings,
        cluster_id,
        label,
        kind: ContainerKind::Restore,
        command: "pre-sync",
        flags: arguments.flags(),
        // In a namespace that is being made it may come later.
        secret_is_optional: true,
        capabilities: &[],
        volumes: Vec::new(),
        mounts: Vec::new(),
    };
    pod.template()
}

fn replicas(plan: &Plan, surroundings: &Surroundings) -> u32 {
    match plan.workload.kind {
        WorkloadKind::Deployment => 1,
        WorkloadKind::StatefulSet => {
            let end = surroundings.first_ordinal + surroundings.replicas.max(1);
            u32::try_from(end).unwrap_or(u32::MAX)
        }
    }
}

/// What the Job was made for: another workload (its UID) or another policy has another one, a release of ours with
/// another image or other flags has not.
pub(super) fn occasion(plan: &Plan, surroundings: &Surroundings) -> String {
    let Plan {
        workload,
        volumes,
        user,
        destinations,
        secret,
        includes,
        excludes,
        max_size,
        databases,
        resources,
        tier: _,
        mode: _,
        image: _,
        vanilla_config: _,
        secrets: _,
        secrets_files: _,
        profile: _,
        settle: _,
        interval: _,
        schedule: _,
        retention: _,
        restore: _,
        restore_at: _,
        restore_timeout: _,
        store_down: _,
        max_shrink: _,
        accepted: _,
        guaranteed: _,
        port: _,
        grace_period: _,
        moved_folders: _,
        refresh: _,
        settings: _,
    } = plan;
    let policy = json!([
        surroundings.uid,
        workload,
        volumes,
        user,
        destinations,
        secret,
        includes,
        excludes,
        max_size,
        databases,
        resources,
        replicas(plan, surroundings),
        surroundings.placement,
        surroundings.groups,
    ]);
    format!("{:016x}", fingerprint(&policy.to_string()))
}
