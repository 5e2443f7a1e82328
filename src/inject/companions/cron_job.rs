//! PURE: Plan → `CronJob/<name>-backup`: asks the sidecars, or in mode `cronjob` does the work itself, beside the app's pod.

use super::super::block::{Places, data_mount, label_value, protection};
use super::super::plan::Plan;
use super::pod::Pod;
use super::{CompanionKind, Surroundings, companion_name};
use crate::agent::arguments::{BackupArguments, Backups, Flags, Identity, Port, Span, WorkloadKind};
use crate::policy::{ContainerKind, key};
use serde_json::{Map, Value, json};

/// How long one backup may take, in seconds: the agent's own limit.
const TIMEOUT: u64 = 1800;
/// What its pod gets beyond that, to come up and to say so.
const ALLOWANCE: u64 = 300;
/// How late a run may begin, in seconds: an hourly one, and one that comes every five minutes.
const LATE: (u64, u64) = (600, 200);

/// The CronJob's specification.
pub(super) fn specification(plan: &Plan, surroundings: &Surroundings, cluster_id: Option<&str>) -> Value {
    let has_sidecar = plan.has_sidecar();
    let name = &plan.workload.name;
    let first_pod = format!("{name}-{}", surroundings.first_ordinal);
    let arguments = BackupArguments {
        identity: Identity::default(),
        // A question fills `{pod}` in from the address; who does the work itself does it for the one pod there is.
        protection: protection(plan, (!has_sidecar).then_some(first_pod.as_str())),
        folders: Places::new(plan.moved_folders).folders(),
        backups: Backups {
            retention: plan.retention,
            max_shrink: plan.max_shrink,
        },
        ask: if has_sidecar {
            addresses(plan, surroundings)
        } else {
            Vec::new()
        },
        // A sidecar has been told itself.
        accepted: if has_sidecar { Vec::new() } else { plan.accepted.clone() },
        manual: false,
        cron_job: Some(companion_name(CompanionKind::CronJob, name)),
        job: String::new(),
        timeout: Span::seconds(TIMEOUT),
    };
    let claims = |volume: &str| {
        let claim = surroundings.claims.iter().find(|(name, _)| name == volume);
        claim.map(|(_, claim)| claim.clone())
    };
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    if !has_sidecar {
        for volume in &plan.volumes {
            if let Some(claim) = claims(&volume.name) {
                volumes.push(json!({"name": volume.name,
                    "persistentVolumeClaim": {"claimName": claim, "readOnly": true}}));
                mounts.push(data_mount(volume, true));
            }
        }
    }
    let pod = Pod {
        plan,
        surroundings,
        cluster_id,
        label: CompanionKind::CronJob.label(),
        kind: ContainerKind::CronJob,
        command: "backup",
        flags: arguments.flags(),
        secret_is_optional: false,
        capabilities: if has_sidecar { &[] } else { &["DAC_OVERRIDE"] },
        volumes,
        mounts,
    };
    let mut template = pod.template();
    // While the app is stopped, its claims can be mounted anywhere.
    if !has_sidecar && surroundings.replicas > 0 {
        let mut label = Map::new();
        label.insert(key::APP_LABEL.to_owned(), json!(label_value(name)));
        template["spec"]["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": label},
        }]}});
    }
    json!({
        "schedule": plan.schedule,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": if has_sidecar { LATE.0 } else { LATE.1 },
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "suspend": false,
        "jobTemplate": {
            "spec": {
                "activeDeadlineSeconds": TIMEOUT + ALLOWANCE,
                "backoffLimit": 1,
                // 2 wrong usage, 3 refused by a guard: the same again would end the same.
                "podFailurePolicy": {"rules": [{"action": "FailJob",
                    "onExitCodes": {"containerName": "backup", "operator": "In", "values": [2, 3]}}]},
                "template": template,
            },
        },
    })
}

/// Where the sidecars answer. Without a port, the question goes through the store.
fn addresses(plan: &Plan, surroundings: &Surroundings) -> Vec<String> {
    let port = match plan.port {
        Port::Fixed(port) => format!(":{port}"),
        Port::From(_) => String::new(),
    };
    let service = companion_name(CompanionKind::Service, &plan.workload.name);
    match plan.workload.kind {
        WorkloadKind::Deployment => vec![format!("{service}{port}")],
        WorkloadKind::StatefulSet => {
            // Its pods have names in the Service that it names, and in no other.
            let service = surroundings.service_name.as_deref().unwrap_or(&service);
            let address = |ordinal| format!("{}-{ordinal}.{service}{port}", plan.workload.name);
            surroundings.ordinals().map(address).collect()
        }
    }
}
