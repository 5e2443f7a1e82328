//! One companion as it should be + what was seen of it → the API server. What is not ours is never written over: an object
//! is ours when the workload's very UID controls it, and each write says which object it means by that object's UID.

use super::key::Regarding;
use super::known::Kept;
use super::slim;
use crate::inject::{Companion, CompanionKind, OCCASION, PRESYNC, presync_name};
use crate::policy::key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Whom the fields of companions belong to.
pub(super) const FIELD_MANAGER: &str = "vixens-backup-controller";

/// What came of one companion.
#[derive(Debug)]
pub(super) enum Applied {
    /// It was not there.
    Made(Box<ObjectMeta>),
    /// It was there, and was another.
    Changed(Box<ObjectMeta>),
    /// It was there as it should be.
    Unchanged(Box<ObjectMeta>),
    /// Somebody else's object has the name.
    Foreign {
        /// Which one.
        uid: String,
        /// Who controls it.
        whose: String,
    },
    /// One of a former workload of this name is still being removed.
    InTheWay,
}

/// The API of a kind of companions, metadata alone.
#[derive(Clone)]
pub(super) enum Companions {
    CronJobs(Api<slim::CronJob>),
    Jobs(Api<slim::RestoreJob>),
    Services(Api<slim::Service>),
}

/// The same call for each kind.
macro_rules! each {
    ($self:expr, $api:ident => $call:expr) => {
        match $self {
            Companions::CronJobs($api) => $call,
            Companions::Jobs($api) => $call,
            Companions::Services($api) => $call,
        }
    };
}

impl Companions {
    pub(super) fn new(client: &Client, kind: CompanionKind, namespace: &str) -> Self {
        let client = client.clone();
        match kind {
            CompanionKind::CronJob => Self::CronJobs(Api::namespaced(client, namespace)),
            CompanionKind::RestoreJob => Self::Jobs(Api::namespaced(client, namespace)),
            CompanionKind::Service => Self::Services(Api::namespaced(client, namespace)),
        }
    }

    async fn get(&self, name: &str) -> kube::Result<Option<ObjectMeta>> {
        each!(self, api => api.get_opt(name).await.map(|found| found.map(|found| found.metadata)))
    }

    async fn patch(&self, name: &str, parameters: &PatchParams, patch: &Patch<&Value>) -> kube::Result<ObjectMeta> {
        each!(self, api => api.patch(name, parameters, patch).await.map(|found| found.metadata))
    }

    /// Removes one object and no other of its name. It may be gone.
    pub(super) async fn delete(&self, name: &str, uid: &str) -> kube::Result<()> {
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            ..Preconditions::default()
        });
        let deleted = each!(self, api => api.delete(name, &parameters).await.map(|_| ()));
        match deleted {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            deleted => deleted,
        }
    }

    /// Has a CronJob start nothing any more.
    pub(super) async fn suspend(&self, name: &str) -> kube::Result<ObjectMeta> {
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = json!({"spec": {"suspend": true}});
        self.patch(name, &parameters, &Patch::Merge(&patch)).await
    }
}

/// Removes what Argo CD has left of a former workload's manifests: it prunes no hooks.
pub(super) async fn remove_presync(client: &Client, namespace: &str, workload: &str) -> kube::Result<()> {
    let jobs = Companions::new(client, CompanionKind::RestoreJob, namespace);
    let name = presync_name(workload);
    let Some(found) = jobs.get(&name).await? else {
        return Ok(());
    };
    let labels = found.labels.unwrap_or_default();
    match found.uid {
        Some(uid) if labels.get(key::JOB_LABEL).is_some_and(|job| job == PRESYNC) => jobs.delete(&name, &uid).await,
        _ => Ok(()),
    }
}

/// Makes one companion what it should be.
pub(super) async fn apply(
    client: &Client,
    workload: &Regarding,
    companion: &Companion,
    seen: Option<&Kept>,
) -> kube::Result<Applied> {
    let Companion { name, manifest } = companion;
    let api = Companions::new(client, name.kind, &workload.key.namespace);
    let is_ours = |owner: Option<&Regarding>| owner.is_some_and(|owner| owner.uid == workload.uid);
    // What the watch shows may be behind, but who controls an object with a UID does not change behind our back.
    let known = seen.filter(|seen| is_ours(seen.owner.as_ref()));
    if let Some(kept) = known.filter(|_| name.kind != CompanionKind::RestoreJob) {
        match ours(&api, &name.name, manifest, &kept.uid, &kept.resource_version).await {
            // It is gone, or another one now.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {}
            applied => return applied,
        }
    }
    let Some(found) = api.get(&name.name).await? else {
        let made = api
            .patch(&name.name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(manifest))
            .await?;
        return Ok(Applied::Made(Box::new(made)));
    };
    let owner = Regarding::controller_of(&found);
    if !is_ours(owner.as_ref()) {
        let is_former = owner.as_ref().is_some_and(|owner| owner.key == workload.key);
        return Ok(if is_former || found.deletion_timestamp.is_some() {
            Applied::InTheWay
        } else {
            Applied::Foreign {
                uid: found.uid.unwrap_or_default(),
                whose: found_owner(owner.as_ref()),
            }
        });
    }
    if found.deletion_timestamp.is_some() {
        return Ok(Applied::InTheWay);
    }
    let uid = found.uid.clone().unwrap_or_default();
    if name.kind != CompanionKind::RestoreJob {
        let version = found.resource_version.clone().unwrap_or_default();
        return ours(&api, &name.name, manifest, &uid, &version).await;
    }
    // A Job can't be changed. What it was made for says whether another is due.
    let occasion = found
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(OCCASION));
    let wanted = manifest["metadata"]["annotations"][OCCASION].as_str();
    if occasion.map(String::as_str) == wanted {
        return Ok(Applied::Unchanged(Box::new(found)));
    }
    api.delete(&name.name, &uid).await?;
    if api.get(&name.name).await?.is_some() {
        return Ok(Applied::InTheWay);
    }
    let made = api
        .patch(&name.name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(manifest))
        .await?;
    Ok(Applied::Changed(Box::new(made)))
}

/// Who controls an object that is not ours.
pub(super) fn found_owner(owner: Option<&Regarding>) -> String {
    match owner {
        Some(owner) => format!("it belongs to {}", owner.key),
        None => "vixens-backup did not make it".to_owned(),
    }
}

/// Applies over what is ours, and what somebody has changed of it.
async fn ours(api: &Companions, name: &str, manifest: &Value, uid: &str, version: &str) -> kube::Result<Applied> {
    let mut manifest = manifest.clone();
    manifest["metadata"]["uid"] = json!(uid);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let applied = api.patch(name, &parameters, &Patch::Apply(&manifest)).await?;
    Ok(if applied.resource_version.as_deref() == Some(version) {
        Applied::Unchanged(Box::new(applied))
    } else {
        Applied::Changed(Box::new(applied))
    })
}
