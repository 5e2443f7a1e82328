//! The controller: keeps each annotated workload's companions, tells its owner what must be known, and finds what the
//! webhook has missed. Level-triggered: what it does follows from what is stored now, never from what it remembers, so that
//! any replica may do it at any time. It runs beside the admission server, which never waits for it.
//!
//! ```text
//! watch ─► known (a fingerprint each) ─► queue ─► reconcile: workload ─► plan of the live block ─► companions ─► apply
//!   pods, events, Jobs, sidecars' /status ─► events on the workload
//!   what sidecars, and runs of CronJobs, say that a store holds ─► a record of it, outside the store
//!   a PreSync Job's failed pod            ─► the Job's own reason, for Argo CD
//!   annotated, but nothing injected       ─► catch up: touched, so that the webhook is asked
//! election: one replica leads
//! ```

mod apply;
mod catch_up;
mod election;
mod events;
mod key;
mod known;
mod leader;
mod metrics;
mod places;
mod pods;
mod presync;
mod questions;
mod queue;
mod reconcile;
mod record;
mod restore;
mod round;
mod runs;
mod sidecars;
mod slim;
mod watch;

pub use metrics::Metrics;

use crate::admission::Readiness;
use crate::policy::Installation;
use election::Election;
use events::Teller;
use kube::{Api, Client};
use leader::Leader;
use reconcile::Context;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch as channel;

/// What the controller is told.
pub struct Controller {
    /// The API server.
    pub client: Client,
    /// Our own namespace: the Lease lies there.
    pub namespace: String,
    /// The Lease's name.
    pub lease: String,
    /// Who we are among the replicas.
    pub identity: String,
    /// Labels of the workloads to look after; none: all of them.
    pub selector: Option<String>,
    /// How often sidecars are asked.
    pub status_interval: Duration,
    /// The installation's defaults, with the cluster's identity.
    pub installation: Installation,
    /// Whether the API server can call the webhook.
    pub readiness: Arc<Readiness>,
    /// What is counted.
    pub metrics: Metrics,
}

impl Controller {
    /// Leads whenever this replica has the Lease, until `stop` says so, and gives the Lease back.
    pub async fn run(self, mut stop: channel::Receiver<bool>) {
        let Self {
            client,
            namespace,
            lease,
            identity,
            selector,
            status_interval,
            installation,
            readiness,
            metrics,
        } = self;
        let mut election = Election::new(Api::namespaced(client.clone(), &namespace), lease, identity.clone());
        let context = Arc::new(Context {
            teller: Teller::new(client.clone(), identity),
            client,
            installation,
        });
        loop {
            tokio::select! {
                () = election.win() => {}
                () = told(&mut stop) => return,
            }
            tracing::info!("leading: companions are kept by this replica");
            let leader = Leader::new(
                context.clone(),
                selector.clone(),
                readiness.clone(),
                metrics.clone(),
                status_interval,
            );
            tokio::select! {
                why = election.keep() => tracing::warn!("not leading any more: {why}"),
                () = leader.lead() => {}
                () = told(&mut stop) => {
                    election.release().await;
                    return;
                }
            }
            metrics.follow();
        }
    }
}

/// Until it is said, or nobody is left who could.
async fn told(stop: &mut channel::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
