//! PURE: Policy + facts → [`Plan`], everything that the injected block and the companions are made from; or every
//! reason why it can't be made.

use super::checks;
use super::settings::settings;
use crate::agent::arguments::{
    Databases, Destination, METRICS_PORT, Percent, Port, Profile, QuestionId, RestoreAt, RestorePolicy, Retention,
    Size, Span, StoreDown, Tier, WorkloadName,
};
use crate::policy::{InitPosition, Installation, Mode, Policy, Problem, Resources, Schedule, key, staggered};
use crate::workload::{Setting, Workload, select};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The names of our containers.
pub(super) const CONTAINERS: [&str; 2] = [INIT_CONTAINER, SIDECAR_CONTAINER];
/// Our init container.
pub const INIT_CONTAINER: &str = "init-config";
/// Our native sidecar.
pub const SIDECAR_CONTAINER: &str = "backup-sidecar";
/// Markers, indexes and scratch.
pub(super) const RESTORE_VOLUME: &str = "restore-volume";
/// Layer 1.
pub const VANILLA_VOLUME: &str = "vanilla-config";
/// The Secret with `rclone.conf`.
pub const RCLONE_VOLUME: &str = "rclone-config";
/// Layer 3.
pub const SECRETS_VOLUME: &str = "secrets-config";
/// What the store is known to have held: `contract::record`.
pub(super) const RECORD_VOLUME: &str = "backup-record";
/// The names of our volumes.
pub(super) const VOLUMES: [&str; 5] = [
    RESTORE_VOLUME,
    VANILLA_VOLUME,
    RCLONE_VOLUME,
    SECRETS_VOLUME,
    RECORD_VOLUME,
];

/// A protected volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedVolume {
    /// The pod volume.
    pub name: String,
    /// Its folder in the bucket.
    pub folder: String,
    /// Where the app, and our containers, mount it.
    pub mount_path: String,
    /// The `subPath` below which it is protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
}

/// Who our containers run as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedUser {
    /// `runAsUser`; `None`: nobody says, so root with few capabilities (design, decision 13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u64>,
    /// `runAsGroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u64>,
}

impl PlannedUser {
    /// Whether it is root, by name or for want of one.
    pub fn is_root(self) -> bool {
        self.uid.unwrap_or(0) == 0
    }
}

/// Everything that the injected block and the companions of one workload are made from. Kept in the marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The workload.
    pub workload: WorkloadName,
    /// How much of the pattern it gets.
    pub tier: Tier,
    /// Who makes backups.
    pub mode: Mode,
    /// The image of our containers.
    pub image: String,
    /// The protected volumes; layer 1 goes into the first.
    pub volumes: Vec<PlannedVolume>,
    /// Who our containers run as.
    pub user: PlannedUser,
    /// Where copies go; empty at tier 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// The Secret with the store's credentials.
    pub secret: String,
    /// The ConfigMap of layer 1, and whether it must exist.
    pub vanilla_config: (String, bool),
    /// The Secrets of layer 3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Globs of files in which `${VAR}` is replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets_files: Vec<String>,
    /// Patterns of files to take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub includes: Vec<String>,
    /// Patterns of files to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<String>,
    /// Larger files are skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Size>,
    /// Which files are databases.
    pub databases: Databases,
    /// The profile of databases that name none.
    pub profile: Profile,
    /// How long files must be quiet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<Span>,
    /// Time between full scans.
    pub interval: Span,
    /// The companion CronJob's schedule.
    pub schedule: String,
    /// How long snapshots are kept.
    pub retention: Retention,
    /// When to restore.
    pub restore: RestorePolicy,
    /// A point in time to go back to, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_at: Option<RestoreAt>,
    /// Time for a restore.
    pub restore_timeout: Span,
    /// What to do with an empty volume and no store.
    pub store_down: StoreDown,
    /// What may vanish between two backups.
    pub max_shrink: Percent,
    /// Questions that are answered by yes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<QuestionId>,
    /// What our containers ask for, over the defaults.
    pub resources: String,
    /// Whether the pod is of QoS class Guaranteed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guaranteed: bool,
    /// The sidecar's port.
    pub port: Port,
    /// The pod's grace period, in seconds.
    pub grace_period: u64,
    /// Whether our own folders had to move below `/vixens-backup`, because the app's volume lies at one of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved_folders: bool,
    /// The value of `backup-refresh` for which the block was made: a new one takes what others added, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<String>,
    /// The settings that nobody owns, and what we set them to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<Setting, Value>,
}

impl Plan {
    /// Whether a sidecar is injected.
    pub const fn has_sidecar(&self) -> bool {
        !matches!(self.tier, Tier::Tier1) && self.mode.has_sidecar()
    }

    /// Whether databases are replicated as they are written.
    pub fn replicates(&self) -> bool {
        self.tier == Tier::Tier3 && self.databases != Databases::None
    }

    /// What our containers ask for.
    pub fn resources(&self) -> Resources {
        self.resources.parse().unwrap_or_default()
    }
}

/// A plan, and what is not part of it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The plan.
    pub plan: Plan,
    /// Where our init containers come.
    pub position: InitPosition,
    /// What the owner should know.
    pub warnings: Vec<String>,
}

impl Draft {
    /// Plans one workload. `workload` must hold nothing of ours; `namespace` is its own.
    pub fn new(
        policy: &Policy,
        workload: &Workload<'_>,
        namespace: &str,
        installation: &Installation,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = checks::template_problems(workload.object);
        problems.extend(checks::name_problems(workload));
        problems.extend(checks::replica_problems(policy, workload));
        if let InitPosition::After(name) = &policy.init_position
            && !workload.pod.init_containers.contains(name)
        {
            let names = &workload.pod.init_containers;
            let known = if names.is_empty() {
                "it has none of its own".to_owned()
            } else {
                format!("they are {}", names.join(", "))
            };
            problems.push(Problem::conflict(
                key::INIT_POSITION,
                format!("there is no init container {name:?}; {known}"),
            ));
        }
        let candidates = select(&workload.volumes, policy.volumes.as_deref()).unwrap_or_else(|found| {
            problems.extend(found);
            Vec::new()
        });
        problems.extend(checks::mode_problems(policy, workload, &candidates));
        let user = match checks::user(policy, workload, &candidates) {
            Ok(user) => user,
            Err(problem) => {
                problems.push(problem);
                PlannedUser::default()
            }
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut warnings = Vec::new();
        let settings = settings(policy, workload, &mut warnings);
        let grace_period = settings
            .get(&Setting::GracePeriod)
            .and_then(Value::as_u64)
            .unwrap_or(workload.pod.grace_period);
        warnings.extend(checks::warnings_of(policy, workload, user, &candidates));
        let name = &workload.name.name;
        let schedule = policy
            .schedule
            .clone()
            .unwrap_or_else(|| default_schedule(policy.mode, namespace, name));
        let moved_folders = candidates.iter().any(|candidate| collides(&candidate.mount_path));
        let with_store = policy.tier != Tier::Tier1;
        let plan = Plan {
            workload: workload.name.clone(),
            tier: policy.tier,
            mode: policy.mode,
            image: installation.image.clone(),
            volumes: candidates
                .into_iter()
                .map(|candidate| PlannedVolume {
                    name: candidate.volume.name.clone(),
                    folder: candidate.folder,
                    mount_path: candidate.mount_path,
                    sub_path: candidate.sub_path,
                })
                .collect(),
            user,
            destinations: if with_store {
                policy.destinations.clone()
            } else {
                Vec::new()
            },
            secret: policy.secret.clone(),
            vanilla_config: match &policy.vanilla_config {
                Some(name) => (name.clone(), true),
                None => (format!("{name}-vanilla-config"), false),
            },
            secrets: policy.secrets.clone(),
            secrets_files: policy.secrets_files.clone(),
            includes: policy.includes.clone(),
            excludes: policy.excludes.clone(),
            max_size: policy.max_size,
            databases: policy.databases.clone(),
            profile: policy.profile,
            settle: policy.settle,
            interval: policy.interval,
            schedule: schedule.to_string(),
            retention: policy.retention,
            restore: policy.restore,
            restore_at: policy.restore_at.clone(),
            restore_timeout: policy.restore_timeout,
            store_down: policy.store_down,
            max_shrink: policy.max_shrink,
            accepted: policy.accepted.clone(),
            resources: policy.resources.to_string(),
            guaranteed: workload.pod.guaranteed,
            port: port(workload),
            grace_period,
            moved_folders,
            refresh: policy.refresh.clone(),
            settings,
        };
        Ok(Self {
            plan,
            position: policy.init_position.clone(),
            warnings,
        })
    }
}

/// Hourly beside a sidecar, every five minutes where the CronJob does the work, as in the guide; both staggered.
fn default_schedule(mode: Mode, namespace: &str, name: &str) -> Schedule {
    staggered(namespace, name, if mode.has_sidecar() { 60 } else { 5 })
}

/// 9476, or the next port that nobody in the pod has; with `hostNetwork` the agent looks on the node.
fn port(workload: &Workload<'_>) -> Port {
    let free = (METRICS_PORT..u16::MAX)
        .find(|port| !workload.pod.ports.contains(&u64::from(*port)))
        .unwrap_or(METRICS_PORT);
    if workload.pod.host_network {
        Port::From(free)
    } else {
        Port::Fixed(free)
    }
}

/// Whether a mount path lies at, above or below one of our own folders.
fn collides(path: &str) -> bool {
    use crate::agent::arguments::{DEFAULTS_PATH, RCLONE_PATH, RECORD_PATH, RESTORE_PATH, SECRETS_PATH};
    [DEFAULTS_PATH, RESTORE_PATH, SECRETS_PATH, RCLONE_PATH, RECORD_PATH]
        .iter()
        .any(|ours| path == *ours || path.starts_with(&format!("{ours}/")) || path == "/")
}
