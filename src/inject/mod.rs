//! PURE: a review, or a manifest → the injected object and the JSON Patch to it; and the way back.
//!
//! Every pass first strips what was injected before, then injects, at positions computed afresh:
//! `inject(inject(x)) == inject(x)` and `strip(inject(x)) == strip(x)` (design, decision 1). No clock, no randomness, no
//! I/O. The webhook, the controller and the offline commands call the same functions.

mod additions;
mod block;
mod checks;
mod companions;
mod explain;
mod insert;
mod marker;
mod patch;
mod plan;
mod rendered;
mod settings;
mod sticky;
mod strip;

pub use block::label_value;
pub use companions::{
    Companion, CompanionKind, CompanionName, OCCASION, PRESYNC, Surroundings, companion_name, companion_names,
    companions, is_presync_job, listed, presync_job, presync_name, record_config_map, record_name,
};
pub use explain::{Explanation, explain};
pub use marker::{Found, Marker};
pub use patch::patch;
pub use plan::{Draft, Plan, PlannedUser, PlannedVolume};
pub use plan::{INIT_CONTAINER, RCLONE_VOLUME, SECRETS_VOLUME, SIDECAR_CONTAINER, VANILLA_VOLUME};
pub use strip::{is_our_container, strip};

use crate::policy::{Installation, Intent, Policy, Problem, Subject, key};
use crate::workload::{Ownership, Workload, annotations, at, kind, text};
use json_patch::Patch;
use serde_json::Value;
use std::borrow::Cow;

/// What the API server asks about.
#[derive(Clone, Copy, Debug)]
pub struct Review<'a> {
    /// The object as it would be stored; absent on a deletion.
    pub object: Option<&'a Value>,
    /// The object as it is stored; absent on a creation.
    pub old_object: Option<&'a Value>,
    /// The request's namespace.
    pub namespace: &'a str,
    /// Whether nothing will be stored.
    pub dry_run: bool,
}

/// What the API server is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Stored, with these changes; none: as it is.
    Allowed {
        /// The changes.
        patch: Patch,
        /// What the owner should know.
        warnings: Vec<String>,
    },
    /// Refused: one line a problem.
    Denied {
        /// What is wrong.
        problems: Vec<String>,
    },
}

impl Outcome {
    fn unchanged(warnings: Vec<String>) -> Self {
        Self::Allowed {
            patch: Patch(Vec::new()),
            warnings,
        }
    }

    fn changed(from: &Value, to: Value, warnings: Vec<String>) -> Self {
        Self::Allowed {
            patch: patch(from, to),
            warnings,
        }
    }
}

/// An object after injection, or after un-injection.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// The object.
    pub object: Value,
    /// What the owner should know.
    pub warnings: Vec<String>,
}

/// Answers a review. Objects that are no workload of ours, or are being deleted, pass as they are.
pub fn admit(review: &Review<'_>, installation: &Installation) -> Outcome {
    let Some(object) = review.object else {
        return Outcome::unchanged(Vec::new());
    };
    let is_leaving = at(object, "/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    let is_excluded = installation
        .excluded_namespaces
        .iter()
        .any(|namespace| namespace == review.namespace);
    if kind(object).is_none() || is_leaving || is_excluded {
        return Outcome::unchanged(Vec::new());
    }
    let old = review.old_object.filter(|old| kind(old).is_some());
    let own_marker = match Found::read(object) {
        Found::Unknown => {
            return Outcome::unchanged(vec![format!(
                "{}: written by another version of vixens-backup; what it injected is kept as it is",
                key::INJECTED
            )]);
        }
        found => found.known(),
    };
    let sent = object;
    let object = &*own_marker
        .as_ref()
        .map_or(Cow::Borrowed(sent), |marker| rendered::without_remains(sent, marker));
    let old_marker = old.and_then(|old| Found::read(old).known());
    let marker = own_marker.as_ref().or(old_marker.as_ref());
    let pass = match pass(
        object,
        marker,
        Ownership::recorded(object),
        review.namespace,
        installation,
    ) {
        Ok(pass) => pass,
        Err(problems) => return refused(object, old, &problems, review.namespace, installation),
    };
    let mut warnings = pass.warnings.clone();
    if pass.drafted.is_none() && old.is_some_and(is_protected) {
        warnings.push(format!(
            "{} was removed: backups of this workload end here; what is stored stays",
            key::BACKUP
        ));
    }
    let announced = review
        .dry_run
        .then(|| pass.drafted.as_ref().map(|(_, draft)| draft.plan.clone()));
    let old_plan = old_marker.as_ref().and_then(Marker::plan);
    let before = old.zip(old_marker.as_ref());
    let kept = own_marker
        .as_ref()
        .and_then(|marker| rendered::rendered(object, marker, &pass, installation))
        .or_else(|| {
            let (object, marker) = before?;
            sticky::Before { object, marker }.kept(&pass, review.namespace, installation)
        });
    if let Some(Some(plan)) = announced {
        let existing = old_plan.as_ref().map(companion_names).unwrap_or_default();
        let mut made = companion_names(&plan);
        made.retain(|companion| !existing.contains(companion));
        if !made.is_empty() {
            warnings.push(format!("vixens-backup: would create {}", listed(&made)));
        }
    }
    match kept.map_or_else(|| pass.result(installation), Ok) {
        Ok(mut result) => {
            additions::keep(object, &mut result);
            Outcome::changed(sent, result, warnings)
        }
        Err(problem) => refused(object, old, &[problem], review.namespace, installation),
    }
}

/// Injects a manifest, or un-injects it where its annotation is gone: the offline form of [`admit`].
pub fn inject(object: &Value, namespace: &str, installation: &Installation) -> Result<Injected, Vec<Problem>> {
    let unchanged = |warnings| {
        Ok(Injected {
            object: object.clone(),
            warnings,
        })
    };
    let is_excluded = installation
        .excluded_namespaces
        .iter()
        .any(|excluded| excluded == text(object, "/metadata/namespace").unwrap_or(namespace));
    if kind(object).is_none() || is_excluded {
        return unchanged(Vec::new());
    }
    let marker = match Found::read(object) {
        Found::Unknown => {
            return unchanged(vec![format!(
                "{}: written by another version of vixens-backup; what it injected is kept as it is",
                key::INJECTED
            )]);
        }
        found => found.known(),
    };
    let pass = pass(
        object,
        marker.as_ref(),
        Ownership::as_written(object),
        namespace,
        installation,
    )?;
    let warnings = pass.warnings.clone();
    let mut result = pass.result(installation).map_err(|problem| vec![problem])?;
    additions::keep(object, &mut result);
    Ok(Injected {
        object: result,
        warnings,
    })
}

/// Takes out what was injected, and leaves what only looks like it, with a warning.
pub fn eject(object: &Value) -> Injected {
    let unchanged = |warnings| Injected {
        object: object.clone(),
        warnings,
    };
    if kind(object).is_none() {
        return unchanged(Vec::new());
    }
    let marker = match Found::read(object) {
        Found::Unknown => {
            return unchanged(vec![format!(
                "{}: written by another version of vixens-backup; eject with that version",
                key::INJECTED
            )]);
        }
        found => found.known(),
    };
    let stripped = strip(object.clone(), marker.as_ref(), &Ownership::as_written(object));
    let workload = Workload::read(&stripped, Ownership::default());
    let lookalikes = workload.iter().flat_map(|workload| {
        let pod = &workload.pod;
        let containers = pod.init_containers.iter().chain(&pod.containers);
        let ours = containers.filter(|name| plan::CONTAINERS.contains(&name.as_str()));
        ours.chain(pod.volumes.iter().filter(|name| plan::VOLUMES.contains(&name.as_str())))
    });
    Injected {
        warnings: lookalikes
            .map(|name| format!("{name:?} has a name of ours but was not injected: it is left"))
            .collect(),
        object: stripped,
    }
}

/// One pass over an object: stripped, and what is to be injected, where its annotations ask for it.
struct Pass {
    stripped: Value,
    ownership: Ownership,
    /// Where it is protected.
    drafted: Option<(Policy, Draft)>,
    warnings: Vec<String>,
}

impl Pass {
    /// The object as it is to be stored.
    fn result(self, installation: &Installation) -> Result<Value, Problem> {
        match self.drafted {
            None => Ok(self.stripped),
            Some((_, draft)) => insert::insert(
                self.stripped,
                &draft.plan,
                &draft.position,
                installation.cluster_id.as_deref(),
            ),
        }
    }
}

fn pass(
    object: &Value,
    marker: Option<&Marker>,
    ownership: Ownership,
    namespace: &str,
    installation: &Installation,
) -> Result<Pass, Vec<Problem>> {
    let ownership = self::ownership(object, marker, ownership);
    let stripped = strip(object.clone(), marker, &ownership);
    let (intent, mut warnings) = intent(&stripped, namespace, installation)?;
    let problems = checks::template_problems(&stripped);
    if !problems.is_empty() {
        return Err(problems);
    }
    let drafted = match intent {
        Intent::NotOurs | Intent::Disabled => None,
        Intent::Protect(policy) => {
            let Some(workload) = Workload::read(&stripped, ownership.clone()) else {
                return Err(vec![Problem::conflict("metadata.name", "the workload has no name")]);
            };
            let mut draft = Draft::new(&policy, &workload, namespace, installation)?;
            warnings.append(&mut draft.warnings);
            Some((*policy, draft))
        }
    };
    Ok(Pass {
        stripped,
        ownership,
        drafted,
        warnings,
    })
}

/// Who owns what, as far as it matters here. While a workload is protected, a value that equals what our marker says
/// we set is ours, whoever is named beside it: kubectl's first server-side apply claims defaulted fields for one
/// request. When the annotation goes, what an applier owns is the applier's.
fn ownership(object: &Value, marker: Option<&Marker>, ownership: Ownership) -> Ownership {
    match marker {
        Some(marker) if is_protected(object) => ownership.without(&marker.our_settings(object)),
        _ => ownership,
    }
}

/// What an object's annotations ask for.
fn intent(object: &Value, namespace: &str, installation: &Installation) -> Result<(Intent, Vec<String>), Vec<Problem>> {
    let subject = Subject {
        name: text(object, "/metadata/name").unwrap_or_default(),
        namespace: text(object, "/metadata/namespace").unwrap_or(namespace),
        stateful: text(object, "/kind") == Some("StatefulSet"),
    };
    let profile = text(object, "/spec/template/metadata/labels/vixens.io~1backup-profile");
    Intent::read(annotations(object, ""), profile, subject, installation)
}

fn is_protected(object: &Value) -> bool {
    let value = annotations(object, "").get(key::BACKUP).and_then(Value::as_str);
    value.is_some_and(|value| !matches!(value, "disabled" | "off"))
}

/// Denied; but what was invalid already, and is not made worse, is let through so that it can be repaired.
fn refused(
    object: &Value,
    old: Option<&Value>,
    problems: &[Problem],
    namespace: &str,
    installation: &Installation,
) -> Outcome {
    let old_problems = old
        .and_then(|old| {
            let marker = Found::read(old).known();
            pass(old, marker.as_ref(), Ownership::recorded(old), namespace, installation).err()
        })
        .unwrap_or_default();
    let is_old = |problem: &Problem| old_problems.iter().any(|old| old.subject() == problem.subject());
    if problems.iter().all(is_old) {
        let mut warnings = vec!["this workload was invalid before, and is let through as it is:".to_owned()];
        warnings.extend(problems.iter().map(ToString::to_string));
        return Outcome::unchanged(warnings);
    }
    let name = text(object, "/metadata/name").unwrap_or_default();
    let kind = text(object, "/kind").unwrap_or_default();
    let mut lines = vec![format!("{kind}/{name} can't be protected as it is written:")];
    lines.extend(problems.iter().map(|problem| format!("  {problem}")));
    Outcome::Denied { problems: lines }
}

#[cfg(test)]
mod tests;
