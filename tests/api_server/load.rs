//! A steady stream of server-side applies of an annotated workload, as dry runs: each is one call of the webhook, and
//! each has to come back injected.

use crate::control_plane::control_plane;
use crate::namespace::Namespace;
use crate::workload::FIRST;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many applies are under way at once.
const AT_ONCE: usize = 4;
/// Between one and the next: some hundred a second say what thousands would, and leave the machine to the other tests.
const PAUSE: Duration = Duration::from_millis(25);

/// Applies, until it is stopped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<String>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicUsize,
}

impl Load {
    /// Begins in `namespace`, and returns when the first apply was answered.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = shared.clone();
            let namespace = namespace.name().to_owned();
            move || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime")
                    .block_on(apply_on_and_on(&namespace, &shared))
            }
        });
        let load = Self { shared, thread };
        crate::control_plane::eventually("an apply is answered", || (load.answered() > 0).then_some(()));
        load
    }

    /// How many applies were answered so far.
    pub(crate) fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Ends it after `enough` applies, fewer of which would prove little. None must have failed.
    #[track_caller]
    pub(crate) fn loses_none_of(self, enough: usize) {
        crate::control_plane::eventually("enough is applied", || (self.answered() >= enough).then_some(()));
        self.shared.stop.store(true, Ordering::Relaxed);
        let failures = self.thread.join().expect("the stream ends");
        let answered = self.shared.answered.load(Ordering::Relaxed);
        let (count, some) = (failures.len(), &failures[..failures.len().min(3)]);
        assert!(failures.is_empty(), "{count} of {answered} applies failed: {some:#?}");
    }
}

async fn apply_on_and_on(namespace: &str, shared: &Shared) -> Vec<String> {
    let kubeconfig = Kubeconfig::read_from(&control_plane().kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a cluster");
    let deployments: Api<Deployment> = Api::namespaced(Client::try_from(config).expect("a client"), namespace);
    let manifest = FIRST.deployment();
    let parameters = PatchParams::apply("load").dry_run();
    let one_by_one = async || {
        let mut failures = Vec::new();
        while !shared.stop.load(Ordering::Relaxed) {
            match deployments.patch("app", &parameters, &Patch::Apply(&manifest)).await {
                Ok(object) => {
                    let pod = object.spec.and_then(|spec| spec.template.spec);
                    let injected = pod
                        .and_then(|pod| pod.init_containers)
                        .is_some_and(|containers| containers.len() == 2);
                    if !injected {
                        failures.push("not injected".to_owned());
                    }
                }
                Err(error) => failures.push(error.to_string()),
            }
            shared.answered.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        failures
    };
    futures::future::join_all((0..AT_ONCE).map(|_| one_by_one()))
        .await
        .concat()
}
