//! One round of asking: every injected pod → what its sidecar says of itself, where it has one that answers. What is late,
//! refused or fenced is told at once; the rest is for whoever has asked.

use super::key::Regarding;
use super::pods::Injected;
use super::reconcile::Context;
use super::sidecars::{self, Status};
use futures::stream::{self, StreamExt};

/// So many sidecars are asked at once.
const AT_ONCE: usize = 8;

/// A pod to be asked.
pub(super) struct Target {
    pub(super) pod: String,
    pub(super) injected: Injected,
    /// Its workload.
    pub(super) regarding: Regarding,
}

/// What a pod said.
pub(super) struct Heard {
    pub(super) target: Target,
    /// Where it was asked, and has answered.
    pub(super) status: Option<Status>,
}

/// Asks all of them.
pub(super) async fn ask_all(context: &Context, targets: Vec<Target>) -> Vec<Heard> {
    let asked = stream::iter(targets).map(|target| ask(context, target));
    asked.buffer_unordered(AT_ONCE).collect().await
}

async fn ask(context: &Context, target: Target) -> Heard {
    let Target {
        pod,
        injected,
        regarding,
    } = &target;
    let Some(address) = injected.sidecar else {
        return Heard { target, status: None };
    };
    let status = match sidecars::ask(address).await {
        Ok(status) => {
            for news in sidecars::judge(&status, pod, &injected.uid) {
                context.teller.tell(regarding, news).await;
            }
            Some(status)
        }
        // The network may forbid it: the metrics tell the same.
        Err(error) => {
            tracing::debug!("the sidecar of pod {pod} does not answer: {error}");
            None
        }
    };
    Heard { target, status }
}
