//! A destination's heartbeat: its summary, once a minute, and what is looked at with it. Part of [`Worker`].

use super::{Hold, Worker};
use crate::agent::arguments::QuestionKind;
use crate::agent::sidecar::backup::Failure;
use crate::agent::snapshot::questions;
use crate::contract::question::Question;
use crate::store::records::{VERSION, encode};
use crate::store::state::{HEARTBEAT, State};
use crate::store::{claims, keys};
use jiff::Timestamp;
use tokio::time::Instant;

impl Worker {
    /// The pod is being stopped: whoever comes next had better wait for the last backup.
    pub(super) async fn stopping(&mut self) -> Result<(), Failure> {
        if self.is_stopping {
            return Ok(());
        }
        if let Some(site) = &self.site {
            site.require_claim().await?;
        }
        self.is_stopping = true;
        self.beat(Hold::Held).await
    }

    /// With other settings than before, what answers has to be our place before it is written to.
    pub(super) async fn recognise(&mut self) -> Result<(), Failure> {
        if let (Some(news), Some(site)) = (self.destination.credentials.news(), &self.site) {
            let store = self.destination.store.as_ref();
            site.lease.check(store).await?;
            self.destination.credentials.know(news);
        }
        Ok(())
    }

    /// Once a minute: we are here, nobody has taken over, and whoever left a request is served. One call.
    pub(super) async fn pulse(&mut self) -> Result<(), Failure> {
        self.next_heartbeat = Instant::now() + HEARTBEAT;
        self.recognise().await?;
        let (Some(state), Some(site)) = (self.state(Hold::Held), &self.site) else {
            return Ok(());
        };
        let store = self.destination.store.clone();
        let found = store
            .exchange(keys::STATE, &encode(&state), &[keys::CLAIMS, keys::REQUESTS])
            .await?;
        let claims = claims::of_exchange(store.as_ref(), &found)?;
        site.lease.check_in(store.as_ref(), &claims).await?;
        let standing = questions::standing(&site.known.holds(), site.known.tally());
        self.remind(&standing);
        if let Some(replication) = &self.destination.scope.replication {
            replication.confirm();
        }
        self.destination.shared.metrics.store_up(&self.name, true);
        for ((folder, name), content) in &found {
            if let Some(id) = name.strip_suffix(".json").filter(|_| folder == keys::REQUESTS) {
                self.request(id, content).await?;
            }
        }
        Ok(())
    }

    /// Says what stands, when it is time.
    pub(super) fn remind(&mut self, questions: &[Question]) {
        for question in self.reminders.due(questions, Instant::now()) {
            if question.id.kind() == Some(QuestionKind::Hold) {
                tracing::error!(destination = %self.name, "{question}");
            } else {
                tracing::warn!(destination = %self.name, "{question}");
            }
        }
    }

    /// The summary of the place.
    pub(super) async fn beat(&mut self, hold: Hold) -> Result<(), Failure> {
        self.next_heartbeat = Instant::now() + HEARTBEAT;
        self.recognise().await?;
        let Some(state) = self.state(hold) else {
            return Ok(());
        };
        Ok(self.destination.store.write(keys::STATE, &encode(&state)).await?)
    }

    pub(super) fn state(&self, hold: Hold) -> Option<State> {
        let site = self.site.as_ref()?;
        let totals = site.known.totals();
        Some(State {
            version: VERSION,
            epoch: site.lease.holder.epoch,
            volume_id: site.lease.holder.volume_id.clone(),
            pod: self.destination.started.pod.clone(),
            owner: Some(self.destination.started.owner.clone()),
            heartbeat: Timestamp::now(),
            released: hold != Hold::Held,
            stopping: self.is_stopping && hold == Hold::Held,
            last: site.known.last(),
            last_success: self.last_success,
            owed: match hold {
                Hold::Held => self.destination.inbox.owes(),
                Hold::Released => false,
                Hold::Owing => true,
            },
            files: totals.files,
            bytes: totals.bytes,
            beside: site.beside,
            beside_since: site.beside_since,
            pruning: site.pruning.clone(),
            ..State::default()
        })
    }
}
