//! A destination whose store answers and is not the one that was there: nothing is written, changes are kept, and it is looked
//! at again until it is back, or until a person says to begin anew there. Part of [`Worker`].

use super::{Away, Destination, Failure, KnownStores, Lease, Worker};
use crate::agent::arguments::QuestionKind;
use crate::agent::lease::absence::{Absence, Step};
use crate::agent::lease::acquire;
use crate::agent::lease::check::Fenced;
use crate::agent::lease::inspect::{Backup, Place, Whose, look};
use crate::agent::lease::known::ClaimedSince;
use crate::contract::question::Question;
use crate::store::claims::{Claim, Taken};
use crate::store::decisions;
use crate::store::store_id::StoreId;
use jiff::Timestamp;
use tokio::time::Instant;

impl Worker {
    /// The place is ours, by this lease.
    pub(super) fn holds(&mut self, lease: Lease) -> Lease {
        let epoch = lease.holder.epoch;
        self.destination
            .shared
            .destination(&self.name, |status| status.epoch = epoch);
        self.lease = Some(lease.clone());
        lease
    }

    /// The place was opened: which store it is is known from now on.
    pub(super) fn opened(&mut self, lease: &Lease) {
        self.known.store_id.clone_from(&lease.store_id);
        self.known.recorded = None;
        self.note();
        let id = lease.store_id.as_ref().map(ToString::to_string);
        self.destination
            .shared
            .destination(&self.name, |status| status.store_id = id);
        self.lease = Some(lease.clone());
    }

    /// This process has claimed the place, or is about to: a sidecar that is started again knows the claim for its own.
    pub(super) fn claims(&mut self, lease: &Lease) {
        self.known.claimed = Some(ClaimedSince {
            start: self.destination.started.time,
            holder: lease.holder.clone(),
            store_id: lease.store_id.clone(),
        });
        self.known.marked.clear();
        self.note();
    }

    fn note(&self) {
        KnownStores::note(&self.destination.restore_dir, &self.name, &self.known);
    }

    /// What answers is not the store that was here.
    pub(super) fn is_away(&mut self) {
        self.absence.get_or_insert_with(|| Absence::begins(Instant::now()));
        if let Some(site) = &mut self.site {
            site.doubt();
        }
    }

    /// The place is as it was: what changed meanwhile is looked for.
    pub(super) fn is_back(&mut self) {
        if self.absence.take().is_none() {
            return;
        }
        tracing::info!(destination = %self.name, "the store is the one that was here: backups go on");
        self.next_scan = Instant::now();
        self.asks(QuestionKind::StartNew, None);
    }

    /// What is asked of this kind from now on. What a backup asks is said with its result.
    pub(super) fn asks(&self, kind: QuestionKind, question: Option<&Question>) {
        self.destination.shared.destination(&self.name, |status| {
            status.questions.retain(|question| question.id.kind() != Some(kind));
            status.questions.extend(question.cloned());
        });
    }

    fn away(&self, why: String) -> Failure {
        let destination = self.name.clone();
        Away { destination, why }.into()
    }

    /// While the store is away: whether it is back, and what follows where it is not.
    pub(super) async fn look_again(&mut self) -> Result<(), Failure> {
        let (Some(lease), Some(absence)) = (&self.lease, &mut self.absence) else {
            return Ok(());
        };
        let store = self.destination.store.clone();
        let sight = lease.look(store.as_ref()).await?;
        match absence.step(sight, Instant::now()) {
            Step::GoOn => Ok(()),
            Step::WriteClaim => {
                lease.write_claim(store.as_ref()).await?;
                lease.check(store.as_ref()).await?;
                tracing::warn!(
                    destination = %self.name,
                    "our claim (epoch {}) was gone from our own store, as where a rule of the bucket removes what is old: it is \
                     written again. Keep such rules away from {}",
                    lease.holder.epoch,
                    self.name
                );
                Ok(())
            }
            Step::TakeAnew => {
                tracing::warn!(
                    destination = %self.name,
                    "the store is an older copy of the one that was here: it is claimed anew, and gets what is on the volume"
                );
                let store_id = self.known.store_id.clone();
                self.take_anew(store_id).await
            }
            Step::Wait(why) => Err(self.away(why)),
            Step::Ask(why) => self.ask_to_start_new(why).await,
            Step::Fence(holder) => Err(Fenced::TakenOver {
                destination: self.name.clone(),
                holder,
                ours: lease.holder.clone(),
            }
            .into()),
        }
    }

    /// The place is yet to be claimed, something is known to have been there, and nothing is.
    pub(super) async fn nothing_there(&mut self, why: String) -> Result<Lease, Failure> {
        let absence = self.absence.get_or_insert_with(|| Absence::begins(Instant::now()));
        match absence.unknown(why, Instant::now()) {
            Step::Ask(why) => {
                self.ask_to_start_new(why).await?;
                self.lease
                    .clone()
                    .ok_or_else(|| self.away("it was not claimed".to_owned()))
            }
            Step::Wait(why) => Err(self.away(why)),
            _ => Err(self.away(String::new())),
        }
    }

    /// Only a person can say that nothing is to be waited for.
    async fn ask_to_start_new(&mut self, why: String) -> Result<(), Failure> {
        let question = self.known.start_new(&self.name, &why);
        let mut accepted = self.destination.inbox.accepted();
        accepted.extend_from_slice(&self.destination.accepted);
        let store = self.destination.store.clone();
        if !question.is_accepted_by(&accepted) || decisions::is_decided(store.as_ref(), &question.id).await? {
            self.asks(QuestionKind::StartNew, Some(&question));
            return Err(self.away(format!("{why}. {question}")));
        }
        tracing::warn!(destination = %self.name, "{} is accepted: beginning anew in what is there", question.id);
        // Another store has another id.
        self.take_anew(Some(StoreId::random()?)).await?;
        decisions::record(store.as_ref(), &question.id, &question.text).await?;
        self.asks(QuestionKind::StartNew, None);
        Ok(())
    }

    /// Claims what is there, above everything that we know of. The place is opened anew after that.
    async fn take_anew(&mut self, store_id: Option<StoreId>) -> Result<(), Failure> {
        let Destination {
            store, started, scope, ..
        } = &self.destination;
        let (store, replication) = (store.clone(), scope.replication.clone());
        let folders: Vec<String> = started.volumes.iter().map(|volume| volume.folder.clone()).collect();
        let backup = match look(store.as_ref(), &folders).await? {
            Place::Backup(backup) => *backup,
            Place::Nothing { .. } => Backup::default(),
        };
        if let Whose::Others(owner) = backup.whose(&started.owner) {
            return Err(self.away(format!("it belongs to {owner}")));
        }
        let ours = self.lease.as_ref().map_or(started.epoch, |lease| lease.holder.epoch);
        let floor = ours.max(started.epoch).max(backup.highest_epoch());
        let draft = started.claim(Timestamp::now());
        let claim = Claim {
            epoch: floor + 1,
            ..draft.clone()
        };
        let lease = Lease::new(&claim, store_id);
        // Said before it is done.
        self.claims(&lease);
        match acquire::take(store.as_ref(), &draft, &backup, floor).await? {
            Taken::Held(_) => {
                self.site = None;
                if let Some(replication) = replication {
                    replication.hold_anew(&lease.holder);
                }
                self.holds(lease);
                Ok(())
            }
            Taken::Lost(holder) => Err(self.away(format!(
                "volume {} has claimed it at the same time (epoch {})",
                holder.volume_id, holder.epoch
            ))),
        }
    }
}
