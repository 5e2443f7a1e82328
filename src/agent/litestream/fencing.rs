//! One writer by epoch: whoever takes a place over counts on our looking at the claims in time, and on our sending nothing
//! once we have seen a newer one. Part of [`Supervisor`].

use super::supervise::Supervisor;
use super::turn::{LOOK, LOOKING};
use crate::agent::lease::check::{Fenced, check};
use crate::agent::sidecar::backup::Failure;
use crate::agent::sidecar::batch::with_sources;
use crate::store::Error;
use crate::store::claims::{self, Holder};
use tokio::time::Instant;

impl Supervisor {
    /// Looks in time. Where this process stood still for longer than that, as a frozen container does, nothing more is sent
    /// before it has looked.
    pub(super) async fn look(&mut self, holder: &Holder) {
        let confirmed = self.replication.confirmed();
        if self.running.is_empty() || confirmed.elapsed() < LOOK {
            return;
        }
        let asked = self.asked.max(confirmed).elapsed();
        if asked > LOOK + LOOKING {
            tracing::error!(
                "nobody has looked for {} s whose the place is, as when a pod stands still: Litestream is ended until that is \
                 known",
                asked.as_secs()
            );
            self.halt().await;
        } else if asked < LOOKING {
            return;
        }
        match self.require_claim(holder).await {
            Ok(()) => {}
            Err(failure) => self.not_ours(failure).await,
        }
    }

    /// The place could not be seen to be ours.
    pub(super) async fn not_ours(&mut self, failure: Failure) {
        match failure {
            Failure::Fenced(fenced) => self.let_go(&fenced).await,
            Failure::Away(away) => {
                // What is sent now is missing where it belongs.
                self.halt().await;
                self.down(&away.to_string());
            }
            failure => self.down(&with_sources(&failure)),
        }
    }

    /// Somebody else holds the place: nothing more is sent.
    pub(super) async fn let_go(&mut self, fenced: &Fenced) {
        self.halt().await;
        tracing::error!("{fenced}: databases are not replicated by this pod any more");
        self.replication.fence();
    }

    /// Whether the place is still ours.
    pub(super) async fn require_claim(&mut self, holder: &Holder) -> Result<(), Failure> {
        self.asked = Instant::now();
        let store = self.store.clone();
        let look = async {
            let claims = claims::list(store.as_ref()).await?;
            Ok::<_, Failure>(check(store.as_ref(), &claims, holder).await?)
        };
        let Ok(looked) = tokio::time::timeout(LOOKING, look).await else {
            return Err(Error::Unreachable {
                destination: self.store.destination(),
                why: format!("whose the place is was not answered within {} s", LOOKING.as_secs()),
            }
            .into());
        };
        looked?;
        self.replication.confirm();
        Ok(())
    }
}
