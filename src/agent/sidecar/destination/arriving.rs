//! A destination that was claimed → one that can be written to, and kept so: whoever wrote there before has let go, what it
//! left is in order, and beside all that takes long the claim is renewed. Part of [`Worker`].

use super::{DAILY, Destination, Hold, Worker};
use crate::agent::arguments::{QuestionId, QuestionKind};
use crate::agent::lease::acquire::{self, Claimed};
use crate::agent::lease::check::{Fenced, Lease};
use crate::agent::lease::handover::{Arrival, Comer, LOOK_BACK, arrive};
use crate::agent::lease::renew::Renewal;
use crate::agent::litestream::replication::Permission;
use crate::agent::litestream::turn;
use crate::agent::sidecar::backup::{Failure, Site};
use crate::agent::sidecar::inbox::Inbox;
use crate::agent::start::Writing;
use crate::store::claims::Holder;
use crate::store::served;
use std::time::Duration;
use tokio::time::Instant;

impl Worker {
    /// Our claim, made now where `init` could not.
    pub(super) async fn claimed(&mut self) -> Result<Lease, Failure> {
        if let Some(lease) = &self.lease {
            return Ok(lease.clone());
        }
        let Destination {
            store,
            started,
            writing,
            inbox,
            accepted,
            ..
        } = &self.destination;
        let by_init = matches!(writing, Writing::Claimed { .. });
        // A sidecar that is started again holds what it had claimed before.
        let before = self.known.claimed.as_ref();
        if let Some(before) = before.filter(|before| before.start == started.time) {
            let claim = started.claim_of(&before.holder);
            let lease = Lease::new(&claim, before.store_id.clone());
            return Ok(self.holds(lease));
        }
        let accepted: Vec<QuestionId> = accepted.iter().cloned().chain(inbox.accepted()).collect();
        let (known, observation) = (&self.known, &mut self.observation);
        let claimed = acquire::claim(store.as_ref(), started, writing, known, &accepted, observation).await?;
        self.asks(
            QuestionKind::Write,
            match &claimed {
                Claimed::Asks(question) => Some(question),
                _ => None,
            },
        );
        match claimed {
            Claimed::Held(claim) => {
                let lease = Lease::new(&claim, self.known.store_id.clone());
                if !by_init {
                    self.held_since = Instant::now();
                    self.claims(&lease);
                }
                Ok(self.holds(lease))
            }
            Claimed::NotYet(why) => Err(Failure::Waiting(why)),
            Claimed::Asks(question) => Err(Failure::Waiting(question.to_string())),
            Claimed::Away(why) => self.nothing_there(why).await,
            Claimed::Never(why) => Err(Fenced::Never {
                destination: self.name.clone(),
                why,
            }
            .into()),
        }
    }

    /// Opens the destination, or brings it in order after a backup that failed.
    pub(super) async fn ready(&mut self) -> Result<(), Failure> {
        self.look_again().await?;
        let lease = self.claimed().await?;
        let renewal = self.renewal(&lease.holder);
        let warnings = match &mut self.site {
            // Where databases could not be held at once, they are now.
            Some(site) if !site.unfinished && !site.unreconciled => return self.hold_databases(&lease.holder).await,
            Some(site) if !site.unfinished => renewal.during(site.reconcile()).await?,
            Some(site) => renewal.during(site.settle(false)).await?,
            None => self.open(lease).await?,
        };
        self.is_back();
        for warning in warnings {
            tracing::warn!(destination = %self.name, "{warning}");
        }
        self.destination.shared.metrics.store_up(&self.name, true);
        self.destination.shared.metrics.fenced(false);
        self.confirm_serving().await
    }

    async fn open(&mut self, lease: Lease) -> Result<Vec<String>, Failure> {
        let holder = lease.holder.clone();
        let arrival = self.arrive(&holder).await?;
        let Destination {
            store, scope, scratch, ..
        } = &self.destination;
        let open = Site::open(store.clone(), lease, scope.clone(), scratch.clone(), arrival);
        let (mut site, warnings) = self.renewal(&holder).during(open).await?;
        site.elsewhere.clone_from(&self.destination.elsewhere);
        let destinations = self.destination.started.destinations.iter();
        for found in destinations.filter(|found| found.destination == self.name) {
            site.save_anew(&found.damaged).await?;
        }
        self.opened(&site.lease);
        if site.reconciled {
            self.next_reconcile = Instant::now() + DAILY;
        }
        if arrival == Arrival::Beside {
            self.looks_back = looks_back(site.beside_for());
        }
        self.site = Some(site);
        // Before our first heartbeat: from then on the store says nothing of the writer before us.
        self.hold_databases(&holder).await?;
        // Whoever comes now sees that the place is in use.
        self.beat(Hold::Held).await?;
        Ok(warnings)
    }

    /// A container that is started again finds the value that its first life has served: it is served once.
    async fn confirm_serving(&mut self) -> Result<(), Failure> {
        let Some(serving) = &self.serving else { return Ok(()) };
        if served::is_served(self.destination.store.as_ref(), &serving.value).await? {
            self.serving = None;
        }
        Ok(())
    }

    /// Waits for the writer before us, for as long as there is time for that.
    async fn arrive(&self, holder: &Holder) -> Result<Arrival, Failure> {
        let Destination {
            store, started, inbox, ..
        } = &self.destination;
        let comer = Comer {
            holder,
            pod: &started.pod,
            kind: &started.owner.kind,
        };
        Ok(arrive(store.as_ref(), comer, short_of_time(inbox)).await?)
    }

    /// The place is ours for databases too, from the moment on when nobody else may still send.
    async fn hold_databases(&self, holder: &Holder) -> Result<(), Failure> {
        let Destination {
            store, started, scope, ..
        } = &self.destination;
        let Some(replication) = &scope.replication else {
            return Ok(());
        };
        if replication.permission() == Permission::NotYet {
            let wait = turn::comes(store.as_ref(), started, holder, self.held_since, replication.folder()).await?;
            replication.hold(holder, Instant::now() + wait);
        }
        Ok(())
    }

    /// What goes on beside all that takes long.
    pub(super) fn renewal(&self, holder: &Holder) -> Renewal {
        Renewal {
            store: self.destination.store.clone(),
            holder: holder.clone(),
            summary: self.state(Hold::Held),
        }
    }

    /// Looks for what came late of a writer before us that had not let go.
    pub(super) async fn look_back(&mut self) -> Result<(), Failure> {
        let Some(mut site) = self.site.take() else {
            self.looks_back.clear();
            return Ok(());
        };
        let holder = site.lease.holder.clone();
        let for_good = self.looks_back.len() < 2;
        let looked = self.renewal(&holder).during(site.look_back(for_good)).await;
        let waits_for_a_backup = site.looked_back;
        self.site = Some(site);
        for warning in looked? {
            tracing::warn!(destination = %self.name, "{warning}");
        }
        self.looks_back.remove(0);
        if waits_for_a_backup {
            self.next_scan = Instant::now();
        }
        Ok(())
    }
}

/// When it is looked back, by whoever has been beside somebody for so long.
fn looks_back(beside_for: Duration) -> Vec<Instant> {
    let now = Instant::now();
    LOOK_BACK.map(|after| now + after.saturating_sub(beside_for)).to_vec()
}

/// Once the pod is being stopped, two thirds of the time that is left belong to the last backup.
async fn short_of_time(inbox: &Inbox) {
    let stop = inbox.stopped().await;
    let left = stop.deadline.saturating_duration_since(Instant::now());
    tokio::time::sleep(left / 3).await;
}
