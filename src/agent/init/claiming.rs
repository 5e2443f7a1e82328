//! A settled start → a claim at each destination that takes one, and for each a sentence that says why or why not.
//! A store that fails here never keeps the app from starting: its files are where they belong.

use super::Stores;
use super::survey::{Said, Survey};
use crate::agent::claim::{Claimant, Judgement, judge};
use crate::agent::place::{Backup, Place};
use crate::agent::start::{Start, StartedDestination, Writing};
use crate::store::claims::{self, Holder, Taken};
use crate::store::{Error as StoreError, Store};
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
    now: Timestamp,
) -> Vec<StartedDestination> {
    // One epoch for all destinations, above every claim that anybody has seen.
    let floor = survey.highest_epoch().max(us.epoch);
    let each = stores.iter().zip(&survey.said).map(|(store, said)| async move {
        let (writing, why) = if all_settled {
            one(us, start, said, store.as_ref(), floor, now).await
        } else {
            (Writing::Fenced, "not every volume may be backed up".to_owned())
        };
        StartedDestination {
            destination: store.destination(),
            writing,
            why,
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
            Writing::Unclaimed | Writing::Waiting { .. } | Writing::Fenced => None,
        })
        .max()
}

async fn one(
    us: &Claimant<'_>,
    start: &Start,
    said: &Said,
    store: &dyn Store,
    floor: u64,
    now: Timestamp,
) -> (Writing, String) {
    let judgement = match said {
        Said::Nothing(why) => return (Writing::Unclaimed, why.clone()),
        Said::Place(Place::Backup(backup)) => judge(backup, us, now),
        Said::Place(Place::Nothing { .. }) => judge(&Backup::default(), us, now),
        // Held from one of our volumes: that was looked at.
        Said::Claims(_) => Judgement::Take,
    };
    match judgement {
        Judgement::Fence { why } => return (Writing::Fenced, why),
        Judgement::Wait { holder, newest, why } => return (Writing::Waiting { holder, newest }, why),
        Judgement::Take => {}
    }
    let draft = start.claim(now);
    let seen = said.holders().unwrap_or_default();
    let take = async {
        match claims::take(store, draft.clone(), seen, floor).await {
            Err(StoreError::NoBucket { .. }) => {
                store.create().await?;
                claims::take(store, draft, seen, floor).await
            }
            other => other,
        }
    };
    match tokio::time::timeout(PATIENCE, take).await {
        Ok(Ok(Taken::Held(epoch))) => {
            let mut claim = start.claim(now);
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

fn newest(said: &Said) -> Option<crate::store::snapshot::SnapshotId> {
    match said {
        Said::Place(Place::Backup(backup)) => backup.newest(),
        Said::Place(Place::Nothing { .. }) | Said::Claims(_) | Said::Nothing(_) => None,
    }
}
