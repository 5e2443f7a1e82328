//! A settled start → a claim at each destination that takes one, and for each a sentence that says why or why not.
//! A store that fails here never keeps the app from starting: its files are where they belong.

use super::Stores;
use super::survey::{Reverted, Said, Survey};
use crate::agent::arguments::QuestionId;
use crate::agent::lease::acquire::is_accepted;
use crate::agent::lease::beat::Seen;
use crate::agent::lease::inspect::{Backup, Place};
use crate::agent::lease::judge::{Claimant, Judgement, judge};
use crate::agent::lease::reverted::pin;
use crate::agent::start::{Start, StartedDestination, Writing};
use crate::contract::question::Question;
use crate::store::claims::{self, Holder, Taken};
use crate::store::{Error as StoreError, Store, decisions};
use jiff::Timestamp;
use std::time::Duration;

/// A claim takes two requests; a store that needs longer is claimed by the sidecar.
const PATIENCE: Duration = Duration::from_secs(20);

/// Claims what may be claimed.
pub(super) async fn claim(
    us: &Claimant<'_>,
    start: &Start,
    survey: &Survey,
    stores: &Stores,
    all_settled: bool,
    accepted: &[QuestionId],
    now: Timestamp,
) -> Vec<StartedDestination> {
    // One epoch for all destinations, above every claim that anybody has seen.
    let floor = survey.highest_epoch().max(us.epoch);
    let each = stores
        .iter()
        .zip(&survey.said)
        .enumerate()
        .map(|(number, (store, said))| async move {
            let (writing, why) = if all_settled {
                let attempt = Attempt {
                    us,
                    start,
                    store: store.as_ref(),
                    seen: survey.seen(number),
                    reverted: survey.reverted(number),
                    accepted,
                    floor,
                    now,
                };
                attempt.at(said).await
            } else {
                (Writing::Fenced, "not every volume may be backed up".to_owned())
            };
            StartedDestination {
                destination: store.destination(),
                writing,
                why,
                damaged: Vec::new(),
                takes_over: None,
            }
        });
    futures::future::join_all(each).await
}

/// The highest claim that is ours now.
pub(super) fn highest(destinations: &[StartedDestination]) -> Option<Holder> {
    destinations
        .iter()
        .filter_map(|destination| match &destination.writing {
            Writing::Claimed { holder } => Some(holder.clone()),
            Writing::Unclaimed | Writing::Waiting { .. } | Writing::Asks { .. } | Writing::Fenced => None,
        })
        .max()
}

/// Claiming one destination.
struct Attempt<'a> {
    us: &'a Claimant<'a>,
    start: &'a Start,
    store: &'a dyn Store,
    /// What was seen of its holder.
    seen: Option<Seen>,
    /// What has to be pinned there before anything is written.
    reverted: Option<&'a Reverted>,
    accepted: &'a [QuestionId],
    floor: u64,
    now: Timestamp,
}

impl Attempt<'_> {
    async fn at(&self, said: &Said) -> (Writing, String) {
        let nobody = Backup::default();
        let backup = match said {
            Said::Nothing(why) => return (Writing::Unclaimed, why.clone()),
            Said::Place(Place::Backup(backup)) => backup,
            Said::Place(Place::Nothing { .. }) => &nobody,
            // Held from one of our volumes: that was looked at.
            Said::Outline(_) => return self.take(said, None).await,
        };
        let seen = self.seen.unwrap_or_else(|| Seen::first(backup));
        match judge(&self.store.destination(), backup, self.us, seen, &[]) {
            Judgement::Fence { why } => (Writing::Fenced, why),
            Judgement::Wait { holder, newest, why } => (Writing::Waiting { holder, newest }, why),
            Judgement::Ask(question) => {
                let accepted = is_accepted(self.store, &question, self.accepted);
                if matches!(tokio::time::timeout(PATIENCE, accepted).await, Ok(Ok(true))) {
                    self.take(said, Some(question)).await
                } else {
                    tracing::warn!("{question}");
                    let why = question.to_string();
                    (Writing::Asks { question }, why)
                }
            }
            Judgement::Take => self.take(said, None).await,
        }
    }

    async fn take(&self, said: &Said, accepted: Option<Question>) -> (Writing, String) {
        let Self {
            start,
            store,
            floor,
            now,
            ..
        } = self;
        let draft = start.claim(*now);
        let seen = said.holders().unwrap_or_default();
        let take = async {
            if let Some(reverted) = self.reverted {
                pin(*store, reverted.snapshot, &reverted.volume).await?;
            }
            let taken = match claims::take(*store, draft.clone(), seen, *floor).await {
                Err(StoreError::NoBucket { .. }) => {
                    store.create().await?;
                    claims::take(*store, draft, seen, *floor).await?
                }
                other => other?,
            };
            if let (Some(question), Taken::Held(_)) = (&accepted, &taken) {
                decisions::record(*store, &question.id, &question.text).await?;
            }
            Ok::<_, StoreError>(taken)
        };
        match tokio::time::timeout(PATIENCE, take).await {
            Ok(Ok(Taken::Held(epoch))) => {
                let mut claim = start.claim(*now);
                claim.epoch = epoch;
                (
                    Writing::Claimed { holder: claim.holder() },
                    "the place is claimed".to_owned(),
                )
            }
            Ok(Ok(Taken::Lost(holder))) => {
                let why = format!(
                    "volume {} claimed the place at the same time, and won",
                    holder.volume_id
                );
                (
                    Writing::Waiting {
                        holder,
                        newest: newest(said),
                    },
                    why,
                )
            }
            Ok(Err(error)) => (Writing::Unclaimed, format!("it could not be claimed: {error}")),
            Err(_) => (
                Writing::Unclaimed,
                format!("it could not be claimed within {} s", PATIENCE.as_secs()),
            ),
        }
    }
}

fn newest(said: &Said) -> Option<crate::store::snapshot::SnapshotId> {
    match said {
        Said::Place(Place::Backup(backup)) => backup.newest(),
        Said::Place(Place::Nothing { .. }) | Said::Outline(_) | Said::Nothing(_) => None,
    }
}
