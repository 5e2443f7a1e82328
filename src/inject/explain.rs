//! PURE: a workload → what would happen to it, and why, for people and for scripts.

use super::companions::companion_names;
use super::marker::Found;
use super::plan::{Draft, Plan};
use super::strip::strip;
use crate::agent::arguments::{Databases, QuestionId, Tier};
use crate::policy::{Installation, Intent, Problem, is_ours};
use crate::workload::{Ownership, Workload, annotations, kind, text};
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// A protected volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedVolume {
    /// The pod volume.
    pub name: String,
    /// Where it is mounted.
    pub mount_path: String,
    /// Its folder in the bucket; absent where it is not protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What it is made of.
    pub source: String,
}

/// A companion object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Companion {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// When it acts.
    #[serde(skip)]
    pub schedule: Option<String>,
}

/// What would happen to one annotated workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Its kind.
    pub kind: String,
    /// Its namespace; the text `{namespace}` where it is not known.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `tier1` to `tier3`, `disabled`, or empty where it does not parse.
    pub tier: String,
    /// What is protected.
    pub volumes: Vec<ExplainedVolume>,
    /// What the app can write to and is not protected.
    pub unprotected: Vec<ExplainedVolume>,
    /// `uid:gid` of our containers.
    pub run_as: String,
    /// `auto`, `none`, or paths.
    pub databases: String,
    /// Where copies go.
    pub destinations: Vec<String>,
    /// What is made beside the workload.
    pub companions: Vec<Companion>,
    /// The questions that are answered by yes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<QuestionId>,
    /// What the owner should know.
    pub warnings: Vec<String>,
    /// What is taken for granted, for want of a cluster to ask.
    pub assumptions: Vec<String>,
    /// Why it would be refused.
    pub errors: Vec<Problem>,
}

/// Explains one object; `None` where it is no workload, or carries no annotation of ours.
pub fn explain(object: &Value, namespace: Option<&str>, installation: &Installation) -> Option<Explanation> {
    let kind = kind(object)?;
    let is_annotated = annotations(object, "").keys().any(|found| is_ours(found));
    if !is_annotated && super::checks::template_problems(object).is_empty() {
        return None;
    }
    let namespace = text(object, "/metadata/namespace")
        .or(namespace)
        .unwrap_or("{namespace}");
    let mut explanation = Explanation {
        kind: kind.to_string(),
        namespace: namespace.to_owned(),
        name: text(object, "/metadata/name").unwrap_or_default().to_owned(),
        ..Explanation::default()
    };
    let marker = Found::read(object).known();
    let ownership = super::ownership(object, marker.as_ref(), Ownership::as_written(object));
    let stripped = strip(object.clone(), marker.as_ref(), &ownership);
    let (intent, warnings) = match super::intent(&stripped, namespace, installation) {
        Ok(read) => read,
        Err(problems) => {
            explanation.errors = problems;
            return Some(explanation);
        }
    };
    explanation.warnings = warnings;
    let policy = match intent {
        Intent::NotOurs => {
            explanation.errors = super::checks::template_problems(&stripped);
            return Some(explanation);
        }
        Intent::Disabled => {
            "disabled".clone_into(&mut explanation.tier);
            return Some(explanation);
        }
        Intent::Protect(policy) => policy,
    };
    explanation.tier = policy.tier.to_string();
    let workload = Workload::read(&stripped, ownership)?;
    match Draft::new(&policy, &workload, namespace, installation) {
        Err(problems) => explanation.errors = problems,
        Ok(Draft { plan, warnings, .. }) => {
            explanation.warnings.extend(warnings);
            explanation.fill(&plan, &workload);
        }
    }
    Some(explanation)
}

impl Explanation {
    fn fill(&mut self, plan: &Plan, workload: &Workload<'_>) {
        let source = |name: &str| {
            let volume = workload.volumes.iter().find(|volume| volume.name == name);
            volume.map(|volume| volume.source.describe()).unwrap_or_default()
        };
        self.volumes = plan
            .volumes
            .iter()
            .map(|volume| ExplainedVolume {
                name: volume.name.clone(),
                mount_path: volume.mount_path.clone(),
                folder: Some(volume.folder.clone()),
                source: source(&volume.name),
            })
            .collect();
        self.unprotected = workload
            .volumes
            .iter()
            .filter(|volume| plan.volumes.iter().all(|planned| planned.name != volume.name))
            .filter(|volume| volume.source != crate::workload::Source::ReadOnly)
            .filter_map(|volume| {
                volume.writable_mounts().next().map(|mount| ExplainedVolume {
                    name: volume.name.clone(),
                    mount_path: mount.path.clone(),
                    folder: None,
                    source: volume.source.describe(),
                })
            })
            .collect();
        let user = plan.user;
        self.run_as = match (user.uid, user.gid) {
            (None, _) => "root, with few capabilities (the app's user is not known)".to_owned(),
            (Some(uid), None) => uid.to_string(),
            (Some(uid), Some(gid)) => format!("{uid}:{gid}"),
        };
        self.databases = match (&plan.databases, plan.tier) {
            (_, Tier::Tier1) => "not saved at tier1".to_owned(),
            (Databases::Auto, _) => "auto: SQLite files are found by their header".to_owned(),
            (Databases::None, _) => "none: every file is a plain file".to_owned(),
            (paths, _) => paths.to_string(),
        };
        self.companions = companion_names(plan)
            .into_iter()
            .map(|companion| Companion {
                kind: companion.kind.as_str().to_owned(),
                name: companion.name,
                schedule: companion.schedule,
            })
            .collect();
        self.destinations = plan.destinations.iter().map(ToString::to_string).collect();
        self.accepted.clone_from(&plan.accepted);
        let (vanilla, required) = &plan.vanilla_config;
        self.assumptions.push(if *required {
            format!("ConfigMap {vanilla} exists (it was not looked for)")
        } else {
            format!("ConfigMap {vanilla} may exist; then its files are layer 1")
        });
        let with_store = plan.tier != Tier::Tier1;
        for secret in with_store.then_some(&plan.secret).into_iter().chain(&plan.secrets) {
            self.assumptions.push(format!(
                "Secret {secret} exists in the namespace (it was not looked for)"
            ));
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}/{} in {}", self.kind, self.name, self.namespace)?;
        let mut row = |name: &str, text: &str| writeln!(f, "  {name:<13} {text}");
        if !self.tier.is_empty() {
            row(
                "tier",
                match self.tier.as_str() {
                    "tier1" => "tier1: vanilla configuration and secrets; nothing is stored",
                    "tier2" => "tier2: files are backed up as they change, and restored when they are missing",
                    "tier3" => "tier3: as tier2; databases too",
                    _ => "disabled: nothing is injected, what is stored stays",
                },
            )?;
        }
        for volume in &self.volumes {
            let folder = match (&volume.folder, self.destinations.first()) {
                (Some(folder), Some(destination)) => format!(" → {destination}/{folder}"),
                _ => String::new(),
            };
            row(
                "protected",
                &format!("{} ({}) at {}{folder}", volume.name, volume.source, volume.mount_path),
            )?;
        }
        for volume in &self.unprotected {
            row(
                "NOT protected",
                &format!("{} ({}) at {}", volume.name, volume.source, volume.mount_path),
            )?;
        }
        for destination in self.destinations.iter().skip(1) {
            row("also to", destination)?;
        }
        if !self.volumes.is_empty() {
            row("runs as", &self.run_as)?;
            row("databases", &self.databases)?;
        }
        for companion in &self.companions {
            let schedule = companion.schedule.as_ref().map(|schedule| format!(" ({schedule})"));
            row(
                "beside it",
                &format!("{}/{}{}", companion.kind, companion.name, schedule.unwrap_or_default()),
            )?;
        }
        for id in &self.accepted {
            row(
                "accepts",
                &format!("{id}, once: an answer that was acted upon is not taken again"),
            )?;
        }
        for assumption in &self.assumptions {
            row("assumed", assumption)?;
        }
        for warning in &self.warnings {
            row("warning", warning)?;
        }
        for error in &self.errors {
            row("REFUSED", &error.to_string())?;
        }
        Ok(())
    }
}
