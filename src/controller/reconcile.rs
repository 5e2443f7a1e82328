//! One look at one workload: as it is stored now → its companions as they should be, and what its owner must know. What
//! they should be follows from the plan of the live block, whichever release wrote it.

use super::apply::{Applied, Companions, apply, remove_presync};
use super::events::{News, Teller};
use super::key::{Key, Regarding};
use super::known::Kept;
use super::places::places_of;
use crate::agent::arguments::WorkloadKind;
use crate::inject::{
    CompanionKind, CompanionName, Found, Plan, Surroundings, companion_name, companions, inject, listed, presync_name,
};
use crate::policy::{Installation, key};
use crate::workload::{annotations, reading, text};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Somebody else's object of a companion's name is looked for again after so long: no watch shows it.
const FOREIGN: Duration = Duration::from_secs(300);
/// What is being removed is gone soon.
const LEAVING: Duration = Duration::from_secs(2);

/// What every look needs.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) installation: Installation,
    pub(super) teller: Teller,
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server.
    #[error("{0}")]
    Api(String, #[source] kube::Error),
    /// What it answered.
    #[error("the workload can't be read")]
    Unreadable(#[source] serde_json::Error),
    /// The question.
    #[error("the workload can't be asked for")]
    Request(#[source] http::Error),
}

/// What a workload was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is not there, or leaves.
    Gone,
    /// Its annotations ask for nothing, and nothing is injected.
    Plain,
    /// `disabled`.
    Disabled,
    /// Injected, with its companions.
    Protected,
    /// Its annotations ask for something else than what is injected: the webhook has not seen it.
    Unseen,
    /// Its annotations ask for what can't be done: the webhook would refuse it, or has let it through as it was.
    Invalid,
    /// Injected by a release that this one does not understand: all is left as it is.
    Foreign,
}

/// What came of a look.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) state: State,
    /// The very workload.
    pub(super) uid: String,
    /// Where it writes to.
    pub(super) places: Vec<String>,
    /// Companions as they are now.
    pub(super) applied: Vec<(CompanionKind, ObjectMeta)>,
    pub(super) removed: Vec<CompanionKind>,
    /// Whether anything was written.
    pub(super) changed: bool,
    /// Another look is due, whatever the watches say.
    pub(super) again: Option<Duration>,
}

impl Outcome {
    fn new(state: State, uid: &str) -> Self {
        Self {
            state,
            uid: uid.to_owned(),
            places: Vec::new(),
            applied: Vec::new(),
            removed: Vec::new(),
            changed: false,
            again: None,
        }
    }
}

/// Looks at one workload, and does what is to be done. `seen` are its companions, as the watches have shown them.
pub(super) async fn reconcile(
    context: &Context,
    key: &Key,
    seen: BTreeMap<CompanionKind, Kept>,
) -> Result<Outcome, Error> {
    let Some(object) = read(&context.client, key).await? else {
        return Ok(Outcome::new(State::Gone, ""));
    };
    let uid = text(&object, "/metadata/uid").unwrap_or_default();
    if text(&object, "/metadata/deletionTimestamp").is_some() {
        return Ok(Outcome::new(State::Gone, uid));
    }
    if context.installation.excluded_namespaces.contains(&key.namespace) {
        return Ok(Outcome::new(State::Plain, uid));
    }
    let look = Look {
        context,
        workload: Regarding {
            key: key.clone(),
            uid: uid.to_owned(),
        },
        seen,
        object: &object,
    };
    let asked = annotations(&object, "").get(key::BACKUP).and_then(Value::as_str);
    match (asked, Found::read(&object)) {
        (Some("disabled" | "off"), Found::Nothing) => look.disabled().await,
        (None, Found::Nothing) => look.plain().await,
        (_, Found::Unknown) => Ok(look.not_understood().await),
        (Some("disabled" | "off") | None, Found::Known(_)) => Ok(Outcome::new(State::Unseen, uid)),
        (Some(_), Found::Nothing) => Ok(look.not_injected().await),
        (Some(_), Found::Known(marker)) => match marker.plan() {
            Some(plan) => look.protected(&plan).await,
            None => Ok(look.not_understood().await),
        },
    }
}

/// The workload as it is stored, without what nobody here asks for.
async fn read(client: &Client, key: &Key) -> Result<Option<Value>, Error> {
    let request = http::Request::get(format!("{}/{}", key.url(), key.name))
        .body(Vec::new())
        .map_err(Error::Request)?;
    let answer = match client.request_text(request).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(None),
        answer => answer.map_err(|error| Error::Api(format!("{key} can't be read"), error))?,
    };
    reading::object(&mut serde_json::Deserializer::from_str(&answer)).map_err(Error::Unreadable)
}

/// One look.
struct Look<'a> {
    context: &'a Context,
    workload: Regarding,
    seen: BTreeMap<CompanionKind, Kept>,
    object: &'a Value,
}

impl Look<'_> {
    async fn protected(&self, plan: &Plan) -> Result<Outcome, Error> {
        let mut outcome = Outcome::new(State::Protected, &self.workload.uid);
        let surroundings = Surroundings::read(self.object, plan);
        let wanted = companions(plan, &surroundings, self.context.installation.cluster_id.as_deref());
        let mut made: Vec<CompanionName> = Vec::new();
        for companion in &wanted {
            let name = &companion.name;
            let applied = apply(
                &self.context.client,
                &self.workload,
                companion,
                self.seen.get(&name.kind),
            )
            .await
            .map_err(|error| Error::Api(format!("{}/{} can't be applied", name.kind.as_str(), name.name), error))?;
            match applied {
                Applied::Made(metadata) => {
                    outcome.changed = true;
                    outcome.applied.push((name.kind, *metadata));
                    made.push(name.clone());
                }
                Applied::Changed(metadata) => {
                    outcome.changed = true;
                    outcome.applied.push((name.kind, *metadata));
                }
                Applied::Unchanged(metadata) => outcome.applied.push((name.kind, *metadata)),
                Applied::InTheWay => outcome.again = Some(LEAVING),
                Applied::Foreign { uid, whose } => {
                    outcome.again = outcome.again.or(Some(FOREIGN));
                    self.tell(foreign(name, &self.workload.key.namespace, &whose).on(uid))
                        .await;
                }
            }
        }
        let is_wanted = |kind: CompanionKind| wanted.iter().any(|companion| companion.name.kind == kind);
        self.remove(|kind| !is_wanted(kind), &mut outcome).await?;
        if !made.is_empty() {
            let note = format!("made {}", listed(&made));
            self.tell(News::normal("BackupCompanionsMade", note)).await;
        }
        if let Some(news) = scaled(plan, surroundings.replicas) {
            self.tell(news).await;
        }
        if wanted.is_empty() && !outcome.removed.is_empty() {
            self.tell_the_end("tier1 stores nothing").await;
        }
        outcome.places = places_of(plan);
        Ok(outcome)
    }

    async fn disabled(&self) -> Result<Outcome, Error> {
        let mut outcome = Outcome::new(State::Disabled, &self.workload.uid);
        let kind = CompanionKind::CronJob;
        if let Some(kept) = self.ours(kind) {
            let name = companion_name(kind, &self.workload.key.name);
            let metadata = Companions::new(&self.context.client, kind, &self.workload.key.namespace)
                .suspend(&name)
                .await
                .map_err(|error| Error::Api(format!("CronJob/{name} can't be suspended"), error))?;
            outcome.changed = metadata.resource_version.as_deref() != Some(&kept.resource_version);
            outcome.applied.push((kind, metadata));
        }
        Ok(outcome)
    }

    async fn plain(&self) -> Result<Outcome, Error> {
        let mut outcome = Outcome::new(State::Plain, &self.workload.uid);
        self.remove(|_| true, &mut outcome).await?;
        if !outcome.removed.is_empty() {
            let Key { namespace, name, .. } = &self.workload.key;
            remove_presync(&self.context.client, namespace, name)
                .await
                .map_err(|error| Error::Api(format!("Job/{} can't be removed", presync_name(name)), error))?;
            self.tell_the_end("vixens.io/backup was removed").await;
        }
        Ok(outcome)
    }

    /// The webhook's own functions say whether a touch would help.
    async fn not_injected(&self) -> Outcome {
        let namespace = &self.workload.key.namespace;
        let state = match inject(self.object, namespace, &self.context.installation) {
            Ok(_) => State::Unseen,
            Err(problems) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                let note = format!(
                    "it is annotated, and nothing is backed up, because it can't be protected as it is written: {}",
                    lines.join("; ")
                );
                self.tell(News::warning("BackupNotInjected", note)).await;
                State::Invalid
            }
        };
        Outcome::new(state, &self.workload.uid)
    }

    async fn not_understood(&self) -> Outcome {
        let note = format!(
            "{} was written by another release of vixens-backup: its containers and its companions are left as they are; \
             run that release, or give the workload a new vixens.io/backup-refresh",
            key::INJECTED
        );
        self.tell(News::warning("BackupBlockUnknown", note)).await;
        Outcome::new(State::Foreign, &self.workload.uid)
    }

    /// A companion that is ours, as it was seen.
    fn ours(&self, kind: CompanionKind) -> Option<&Kept> {
        let kept = self.seen.get(&kind)?;
        let owner = kept.owner.as_ref()?;
        (owner.uid == self.workload.uid).then_some(kept)
    }

    async fn remove(&self, unwanted: impl Fn(CompanionKind) -> bool, outcome: &mut Outcome) -> Result<(), Error> {
        for kind in CompanionKind::ALL.into_iter().filter(|kind| unwanted(*kind)) {
            let Some(kept) = self.ours(kind) else {
                continue;
            };
            let name = companion_name(kind, &self.workload.key.name);
            Companions::new(&self.context.client, kind, &self.workload.key.namespace)
                .delete(&name, &kept.uid)
                .await
                .map_err(|error| Error::Api(format!("{}/{name} can't be removed", kind.as_str()), error))?;
            outcome.removed.push(kind);
            outcome.changed = true;
        }
        Ok(())
    }

    async fn tell(&self, news: News) {
        self.context.teller.tell(&self.workload, news).await;
    }

    async fn tell_the_end(&self, why: &str) {
        let generation = text(self.object, "/metadata/resourceVersion").unwrap_or_default();
        let note = format!("{why}: backups of this workload end here; what is stored stays");
        self.tell(News::warning("BackupsEnded", note).on(generation)).await;
    }
}

fn foreign(name: &CompanionName, namespace: &str, whose: &str) -> News {
    let kind = name.kind.as_str();
    let note = format!(
        "{kind}/{} exists, and {whose}: it is left alone, and this workload has no {kind} of ours. When it is the old \
         hand-written one: kubectl -n {namespace} delete {} {}",
        name.name,
        kind.to_lowercase(),
        name.name
    );
    News::warning("BackupCompanionTaken", note)
}

/// More pods than places: not seen at admission, where a later scaling does not come by.
fn scaled(plan: &Plan, replicas: u64) -> Option<News> {
    let each_has_its_own = plan.workload.kind == WorkloadKind::StatefulSet
        && plan.destinations.iter().all(|to| to.path().contains("{pod}"));
    if replicas < 2 || !plan.has_sidecar() || each_has_its_own {
        return None;
    }
    let way_out = match plan.workload.kind {
        WorkloadKind::Deployment => "scale it to 1",
        WorkloadKind::StatefulSet => "scale it to 1, or put {pod} into vixens.io/backup-destination",
    };
    let place = plan.destinations.first().map(ToString::to_string).unwrap_or_default();
    let note = format!(
        "replicas is {replicas}, and {place} has one writer: the other pods run without backups, and what they write is \
         not saved; {way_out}"
    );
    Some(News::warning("BackupScaledAboveOne", note))
}
