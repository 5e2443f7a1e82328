//! PURE: the plan of the live block + the workload as it is stored → its companions, whole. The webhook's dry run, the
//! controller and `explain` ask here, so they can't disagree.

mod cron_job;
mod names;
mod pod;
mod presync_job;
mod record;
mod restore_job;
mod service;
mod surroundings;

pub(super) use names::is_record_name;
pub use names::{companion_name, presync_name, record_name};
pub use presync_job::{PRESYNC, is_presync_job, presync_job};
pub use record::record_config_map;
pub use surroundings::Surroundings;

use super::plan::Plan;
use crate::agent::arguments::Tier;
use crate::policy::key;
use serde_json::{Map, Value, json};
use std::fmt;

/// The kinds of companions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CompanionKind {
    /// `CronJob/<name>-backup`.
    CronJob,
    /// `Job/<name>-restore`.
    RestoreJob,
    /// `Service/<name>-backup`.
    Service,
}

impl CompanionKind {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 3] = [Self::CronJob, Self::RestoreJob, Self::Service];

    /// The API's kind.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CronJob => "CronJob",
            Self::RestoreJob => "Job",
            Self::Service => "Service",
        }
    }

    const fn api_version(self) -> &'static str {
        match self {
            Self::CronJob | Self::RestoreJob => "batch/v1",
            Self::Service => "v1",
        }
    }

    /// The value of the label `vixens.io/backup-companion`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::CronJob => "cronjob",
            Self::RestoreJob => "restore",
            Self::Service => "service",
        }
    }
}

/// A companion, by what it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompanionName {
    /// Its kind.
    pub kind: CompanionKind,
    /// Its name.
    pub name: String,
    /// When it acts, where it has a schedule.
    pub schedule: Option<String>,
}

impl fmt::Display for CompanionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)?;
        match &self.schedule {
            Some(schedule) => write!(f, " ({schedule})"),
            None => Ok(()),
        }
    }
}

/// A companion, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Companion {
    /// What it is called.
    pub name: CompanionName,
    /// What is applied.
    pub manifest: Value,
}

/// The annotation of a restore Job that says what it was made for.
pub const OCCASION: &str = "vixens.io/backup-checked-for";

/// They are not in Git, and Argo CD is told that this is no drift.
const EXTRANEOUS: (&str, &str) = ("argocd.argoproj.io/compare-options", "IgnoreExtraneous");

/// Which companions a plan asks for.
#[must_use]
pub fn companion_names(plan: &Plan) -> Vec<CompanionName> {
    if plan.tier == Tier::Tier1 {
        return Vec::new();
    }
    let is_wanted = |kind: &CompanionKind| match kind {
        CompanionKind::CronJob => plan.mode.has_cron_job(),
        CompanionKind::RestoreJob => true,
        CompanionKind::Service => plan.has_sidecar(),
    };
    CompanionKind::ALL
        .into_iter()
        .filter(is_wanted)
        .map(|kind| CompanionName {
            kind,
            name: companion_name(kind, &plan.workload.name),
            schedule: (kind == CompanionKind::CronJob).then(|| plan.schedule.clone()),
        })
        .collect()
}

/// The companions that a plan asks for. `cluster_id` is kube-system's UID.
#[must_use]
pub fn companions(plan: &Plan, surroundings: &Surroundings, cluster_id: Option<&str>) -> Vec<Companion> {
    let companion = |name: CompanionName| {
        let mut annotations = Map::new();
        annotations.insert(EXTRANEOUS.0.to_owned(), json!(EXTRANEOUS.1));
        let specification = match name.kind {
            CompanionKind::CronJob => cron_job::specification(plan, surroundings, cluster_id),
            CompanionKind::RestoreJob => {
                annotations.insert("argocd.argoproj.io/hook".to_owned(), json!("PreSync"));
                annotations.insert(
                    "argocd.argoproj.io/hook-delete-policy".to_owned(),
                    json!("BeforeHookCreation"),
                );
                annotations.insert(OCCASION.to_owned(), json!(restore_job::occasion(plan, surroundings)));
                restore_job::specification(plan, surroundings, cluster_id)
            }
            CompanionKind::Service => service::specification(plan),
        };
        let manifest = json!({
            "apiVersion": name.kind.api_version(),
            "kind": name.kind.as_str(),
            "metadata": {
                "name": name.name,
                "namespace": surroundings.namespace,
                "labels": labels(name.kind.label()),
                "annotations": annotations,
                "ownerReferences": [surroundings.owner_reference(plan)],
            },
            "spec": specification,
        });
        Companion { name, manifest }
    };
    companion_names(plan).into_iter().map(companion).collect()
}

/// The labels of a companion: none of the app's own, which Services and network policies select on.
fn labels(kind: &str) -> Map<String, Value> {
    let mut labels = Map::new();
    labels.insert("app.kubernetes.io/managed-by".to_owned(), json!("vixens-backup"));
    labels.insert(key::COMPANION_LABEL.to_owned(), json!(kind));
    labels
}

/// The companions in one line, for people.
#[must_use]
pub fn listed(names: &[CompanionName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
