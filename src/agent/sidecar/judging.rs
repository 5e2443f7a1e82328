//! What somebody has accepted, and what of a plan is held: the part of a backup that comes between looking at the volumes
//! and writing. Reads the store where a decision or a snapshot has to be known; writes to scratch, and what was decided.

use super::backup::{Failure, Order, Site};
use super::batch::blocking;
use crate::agent::arguments::QuestionKind;
use crate::agent::scan::Table;
use crate::agent::snapshot::changes::{Accepted, Look, Plan};
use crate::agent::snapshot::holds::Judge;
use crate::agent::snapshot::questions;
use crate::agent::watch::Changes;
use crate::contract::question::Question;
use crate::store::index::HoldId;
use crate::store::{self, decisions};

/// The questions that were answered by yes and stand, and what there is to say of the others.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) accepted: Accepted,
    pub(super) questions: Vec<Question>,
    pub(super) remarks: Vec<String>,
}

impl Site {
    /// What of an order's answers is to be acted upon. Each decides once; only a full scan does what it says.
    pub(super) async fn answers(&self, order: &Order) -> Result<Answers, Failure> {
        let mut answers = Answers::default();
        if order.accepted.is_empty() || !order.look.changes.everything {
            return Ok(answers);
        }
        let standing = questions::standing(&self.known.holds(), self.known.tally());
        for id in &order.accepted {
            if !matches!(id.kind(), Some(QuestionKind::Hold | QuestionKind::Excluded)) {
                continue;
            }
            if decisions::is_decided(self.store.as_ref(), id).await? {
                answers
                    .remarks
                    .push(format!("{id} was accepted before, and counts once"));
                continue;
            }
            let Some(question) = standing.iter().find(|question| question.id == *id) else {
                let destination = self.store.destination();
                answers.remarks.push(format!(
                    "{id} accepts nothing: no such question stands at {destination}"
                ));
                continue;
            };
            match id.as_str().parse::<HoldId>() {
                Ok(hold) => {
                    answers.accepted.holds.insert(hold);
                }
                Err(_) => answers.accepted.excluded = true,
            }
            answers.questions.push(question.clone());
        }
        Ok(answers)
    }

    /// What was accepted is done: it is never asked again.
    pub(super) async fn decided(&self, answers: &Answers) -> Vec<String> {
        let mut warnings = Vec::new();
        for Question { id, text } in &answers.questions {
            if let Err(error) = decisions::record(self.store.as_ref(), id, text).await {
                warnings.push(format!("{id} was done, and can't be recorded as decided: {error}"));
            }
        }
        warnings
    }

    /// Decides what of a plan is held. The id of a hold, if one is placed.
    pub(super) async fn judge(
        &self,
        order: &Order,
        accepted: &Accepted,
        mut plan: Plan,
    ) -> Result<(Plan, Option<HoldId>), Failure> {
        if plan.vanishing.exceeds(order.most) && !plan.full {
            // What else happened is on the volume by now: a folder that was moved, and not only removed.
            let look = Look {
                changes: Changes {
                    everything: true,
                    ..Changes::default()
                },
                ..order.look.clone()
            };
            plan = self.plan(&look, accepted, order.rest).await?;
        }
        let restored = match order.restored {
            Some(id) if plan.vanishing.exceeds(order.most) => self.restored(id).await?,
            _ => None,
        };
        let last = self.known.last().map(|id| id.to_string()).unwrap_or_default();
        let epoch = self.lease.holder.epoch.to_le_bytes();
        let folders = self.scope.volumes.iter().map(|volume| volume.folder.as_bytes());
        let facts: Vec<&[u8]> = [last.as_bytes(), &epoch].into_iter().chain(folders).collect();
        let (id, most) = (questions::hold_id(&facts), order.most);
        let (scope, known, scratch) = (self.scope.clone(), self.known.clone(), self.scratch.clone());
        Ok(blocking(move || {
            let _turn = scope.turn();
            let judge = Judge {
                scope: &scope,
                known: &known,
                most,
                id,
                restored: restored.as_ref(),
                scratch: &scratch,
            };
            let placed = judge.judge(&mut plan)?;
            Ok::<_, crate::agent::snapshot::changes::PlanError>((plan, placed.then_some(id)))
        })
        .await?)
    }

    /// The snapshot that a restore has gone back to, from whichever destination has it: what the restore has removed is decided
    /// at all of them. One that can't be read any more accepts nothing.
    async fn restored(&self, id: store::snapshot::SnapshotId) -> Result<Option<Table>, Failure> {
        let path = self.scratch.join("restored.table");
        let mut why = match self.table_of(self.store.as_ref(), id, path.clone()).await {
            Ok(table) => return Ok(Some(table)),
            Err(Failure::Store(error @ (store::Error::Damaged { .. } | store::Error::NotFound { .. }))) => {
                error.to_string()
            }
            Err(failure) => return Err(failure),
        };
        for store in &self.elsewhere {
            match self.table_of(store.as_ref(), id, path.clone()).await {
                Ok(table) => return Ok(Some(table)),
                // No destination waits for another one.
                Err(Failure::Store(error)) => why = format!("{why}; {error}"),
                Err(failure) => return Err(failure),
            }
        }
        tracing::warn!("what a restore to {id} has removed can't be told from what else is gone: {why}");
        Ok(None)
    }
}
