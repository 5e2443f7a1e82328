//! The API server → what changed, as one stream. Each watch survives its end, an error and a lost version by itself; what
//! it found is listed again then, in pages. Workloads and companions come as metadata alone.

use super::slim;
use crate::agent::arguments::WorkloadKind;
use crate::inject::{CompanionKind, PRESYNC};
use crate::policy::key;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{self, Config};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// So many objects are held of a list at a time.
const PAGE: u32 = 50;

/// One change of one kind of object.
pub(super) enum Change<T> {
    /// All of them will be listed, from here to [`Change::Listed`].
    Listing,
    /// It is there, like this.
    Found(T),
    /// What was not found since [`Change::Listing`] is gone.
    Listed,
    /// It is gone.
    Gone(T),
}

impl<T> From<watcher::Event<T>> for Change<T> {
    fn from(event: watcher::Event<T>) -> Self {
        match event {
            watcher::Event::Init => Self::Listing,
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => Self::Found(object),
            watcher::Event::InitDone => Self::Listed,
            watcher::Event::Delete(object) => Self::Gone(object),
        }
    }
}

impl<T> Change<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Change<U> {
        match self {
            Self::Listing => Change::Listing,
            Self::Found(object) => Change::Found(f(object)),
            Self::Listed => Change::Listed,
            Self::Gone(object) => Change::Gone(f(object)),
        }
    }
}

/// What changed.
pub(super) enum Seen {
    Workload(WorkloadKind, Change<ObjectMeta>),
    Companion(CompanionKind, Change<ObjectMeta>),
    /// A restore Job, which is a companion too.
    Job(Change<slim::Job>),
    /// A pod with an injected block.
    Pod(Change<slim::Pod>),
    /// A PreSync Job's pod, or one of a CronJob's.
    JobPod(Change<slim::Pod>),
    /// A pod's volume that could not be mounted.
    Mount(Change<slim::Event>),
}

/// Everything that the controller follows. `selector` narrows the workloads.
pub(super) fn watch(client: &Client, selector: Option<&str>) -> BoxStream<'static, Seen> {
    let workloads = || match selector {
        Some(selector) => paged().labels(selector),
        None => paged(),
    };
    let companions = || paged().labels(key::COMPANION_LABEL);
    let deployments = follow(client, workloads()).map(|change| {
        let metadata = change.map(|found: slim::Deployment| found.metadata);
        Seen::Workload(WorkloadKind::Deployment, metadata)
    });
    let stateful_sets = follow(client, workloads()).map(|change| {
        let metadata = change.map(|found: slim::StatefulSet| found.metadata);
        Seen::Workload(WorkloadKind::StatefulSet, metadata)
    });
    let cron_jobs = follow(client, companions()).map(|change| {
        let metadata = change.map(|found: slim::CronJob| found.metadata);
        Seen::Companion(CompanionKind::CronJob, metadata)
    });
    let services = follow(client, companions()).map(|change| {
        let metadata = change.map(|found: slim::Service| found.metadata);
        Seen::Companion(CompanionKind::Service, metadata)
    });
    let jobs = follow(client, companions()).map(Seen::Job);
    let pods = follow(client, paged().labels(key::APP_LABEL)).map(Seen::Pod);
    let of_jobs = format!("{} in ({PRESYNC},{})", key::JOB_LABEL, CompanionKind::CronJob.label());
    let job_pods = follow(client, paged().labels(&of_jobs)).map(Seen::JobPod);
    let failed_mounts = paged().fields("reason=FailedMount,involvedObject.kind=Pod");
    let mounts = follow(client, failed_mounts).map(Seen::Mount);
    stream::select_all([
        deployments.boxed(),
        stateful_sets.boxed(),
        cron_jobs.boxed(),
        services.boxed(),
        jobs.boxed(),
        pods.boxed(),
        job_pods.boxed(),
        mounts.boxed(),
    ])
    .boxed()
}

fn paged() -> Config {
    Config::default().page_size(PAGE)
}

fn follow<K>(client: &Client, config: Config) -> impl Stream<Item = Change<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let what = K::plural(&()).into_owned();
    watch_objects(Api::<K>::all(client.clone()), config)
        .default_backoff()
        .filter_map(move |event| {
            let change = match event {
                Ok(event) => Some(Change::from(event)),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "{what} can't be watched; trying again");
                    None
                }
            };
            std::future::ready(change)
        })
}
