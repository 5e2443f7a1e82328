//! The claim under which a run writes to a destination: the one that `init` made, or, where its store was away then, one that a
//! run makes under the same start, by the same judgement as a sidecar's. The volumes are mounted read-only: which claim is ours
//! is read from the store.

use crate::agent::arguments::QuestionId;
use crate::agent::last_words;
use crate::agent::lease::acquire::{self, Claimed};
use crate::agent::lease::beat::{LONG_SILENCE, LOOK_AGAIN, Observation};
use crate::agent::lease::check::{Away, Fenced, Lease};
use crate::agent::lease::known::KnownStore;
use crate::agent::sidecar::backup::Failure;
use crate::agent::start::{Start, Writing};
use crate::store::claims::{self, Claim};
use crate::store::{Error as StoreError, Store};
use std::time::Duration;
use tokio::time::Instant;

/// Whoever may still write there is looked at for so long.
const LOOKS: Duration = LONG_SILENCE.saturating_add(Duration::from_secs(30));

/// Our claim at a destination, made now where nobody could before.
pub(super) async fn held(
    store: &dyn Store,
    start: &Start,
    known: &KnownStore,
    accepted: &[QuestionId],
) -> Result<Lease, Failure> {
    let destination = store.destination();
    let mut each = start.destinations.iter();
    let Some(found) = each.find(|to| to.destination == destination) else {
        let why = "the app's last start knows nothing of it: start the app once".to_owned();
        return Err(Fenced::Never { destination, why }.into());
    };
    let writing = found.writing.clone();
    if !matches!(writing, Writing::Claimed { .. } | Writing::Fenced)
        && let Some(claim) = of_a_run_before(store, start).await?
    {
        return Ok(Lease::new(&claim, known.store_id.clone()));
    }
    let mut observation = Observation::default();
    let begun = Instant::now();
    loop {
        match acquire::claim(store, start, &writing, known, accepted, &mut observation).await? {
            Claimed::Held(claim) => return Ok(Lease::new(&claim, known.store_id.clone())),
            Claimed::NotYet(_) if begun.elapsed() < LOOKS => tokio::time::sleep(LOOK_AGAIN).await,
            Claimed::NotYet(why) => return Err(Failure::Waiting(why)),
            Claimed::Asks(question) => {
                last_words::leave(&question.to_string());
                return Err(Failure::Waiting(question.to_string()));
            }
            // Only a start can begin anew: what is claimed then is written on the volume.
            Claimed::Away(why) => {
                let question = known.start_new(&destination, &why);
                let why = format!("{why}. {question}");
                return Err(Away { destination, why }.into());
            }
            Claimed::Never(why) => return Err(Fenced::Never { destination, why }.into()),
        }
    }
}

/// The claim that a run before this one has made, under the start that the volumes are marked by.
async fn of_a_run_before(store: &dyn Store, start: &Start) -> Result<Option<Claim>, Failure> {
    let claims = claims::list(store).await?;
    let is_ours = |id: &String| start.volumes.iter().any(|volume| volume.id == *id);
    let Some(last) = claims.last().filter(|last| is_ours(&last.volume_id)) else {
        return Ok(None);
    };
    match claims::read(store, last).await {
        Ok(claim) => Ok(Some(claim).filter(|claim| claim.start == Some(start.time))),
        // It says nothing; its name says that it is ours, and another one is made above it.
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::start::{StartedDestination, StartedVolume, Status};
    use crate::store::claims::{Holder, Owner};
    use crate::store::memory::Memory;
    use crate::store::records::{VERSION, encode};
    use crate::store::snapshot::SnapshotId;
    use jiff::Timestamp;

    /// A start of the epoch 3 that has claimed another destination, and not this one.
    fn start(writing: Option<Writing>) -> Start {
        let started = |destination: &str, writing| StartedDestination {
            destination: destination.to_owned(),
            writing,
            why: String::new(),
            damaged: Vec::new(),
            takes_over: None,
        };
        let elsewhere = Writing::Claimed {
            holder: holder(3, "aa"),
        };
        let here = writing.map(|writing| started("memory:store", writing));
        Start {
            version: VERSION,
            time: Timestamp::now(),
            owner: Owner {
                cluster: "c".to_owned(),
                namespace: "n".to_owned(),
                kind: "Deployment".to_owned(),
                name: "app".to_owned(),
                pod: String::new(),
            },
            pod: "app-1".to_owned(),
            generation: "g".to_owned(),
            epoch: 3,
            since: None,
            pins: std::collections::BTreeMap::new(),
            destinations: [Some(started("other:store", elsewhere)), here]
                .into_iter()
                .flatten()
                .collect(),
            volumes: vec![StartedVolume {
                name: "data".to_owned(),
                folder: "config".to_owned(),
                path: "/config".into(),
                id: "aa".to_owned(),
                status: Status::Settled,
                why: String::new(),
                restored: None,
                adopted: false,
            }],
            serving: None,
        }
    }

    fn holder(epoch: u64, id: &str) -> Holder {
        Holder {
            epoch,
            volume_id: id.to_owned(),
        }
    }

    /// A claim that was made there by a volume, under a start of its own.
    async fn claimed(store: &Memory, epoch: u64, id: &str) {
        let mut other = start(None);
        other.time = Timestamp::UNIX_EPOCH;
        id.clone_into(&mut other.volumes[0].id);
        let claim = other.claim_of(&holder(epoch, id));
        store.write(&claim.holder().key(), &encode(&claim)).await.unwrap();
    }

    async fn held_by(store: &Memory, start: &Start, known: &KnownStore) -> Result<Holder, Failure> {
        held(store, start, known, &[]).await.map(|lease| lease.holder)
    }

    #[tokio::test]
    async fn a_destination_that_was_away_is_claimed_by_the_next_run_once_and_by_no_run_after_it() {
        let store = Memory::default();
        // Of this volume, by a start before.
        claimed(&store, 2, "aa").await;
        let (unclaimed, known) = (start(Some(Writing::Unclaimed)), KnownStore::default());
        for _ in 0..3 {
            assert_eq!(held_by(&store, &unclaimed, &known).await.unwrap(), holder(3, "aa"));
        }
        assert_eq!(claims::list(&store).await.unwrap().len(), 2);
        // One that `init` has claimed is not looked for.
        let by_init = start(Some(Writing::Claimed {
            holder: holder(7, "aa"),
        }));
        assert_eq!(
            held_by(&Memory::default(), &by_init, &known).await.unwrap(),
            holder(7, "aa")
        );
    }

    #[tokio::test]
    async fn a_run_claims_nothing_that_a_sidecar_would_not() {
        let known = KnownStore::default();
        // Another volume has taken the place over since.
        let store = Memory::default();
        claimed(&store, 4, "bb").await;
        let failure = held_by(&store, &start(Some(Writing::Unclaimed)), &known)
            .await
            .unwrap_err();
        assert!(matches!(failure, Failure::Fenced(Fenced::Never { .. })), "{failure}");
        // The last start has fenced it off, or has not heard of it.
        for writing in [Some(Writing::Fenced), None] {
            let failure = held_by(&Memory::default(), &start(writing), &known).await.unwrap_err();
            assert!(matches!(failure, Failure::Fenced(Fenced::Never { .. })), "{failure}");
        }
        // Something was there, and nothing is: as where a disk is not mounted.
        let (store, was_there) = (
            Memory::default(),
            KnownStore {
                held: true,
                ..KnownStore::default()
            },
        );
        let failure = held_by(&store, &start(Some(Writing::Unclaimed)), &was_there)
            .await
            .unwrap_err();
        assert!(
            matches!(&failure, Failure::Away(away) if away.why.contains("asks startnew-")),
            "{failure}"
        );
        assert!(store.objects().is_empty());
        // Whoever a start waits for has saved something since.
        let store = Memory::default();
        claimed(&store, 2, "bb").await;
        let newest: SnapshotId = "20261122T130500Z-2.1-auto".parse().unwrap();
        store
            .write(&crate::store::keys::snapshot(&newest), b"{}")
            .await
            .unwrap();
        let waiting = Writing::Waiting {
            holder: holder(2, "bb"),
            newest: None,
        };
        let failure = held_by(&store, &start(Some(waiting)), &known).await.unwrap_err();
        assert!(matches!(failure, Failure::Fenced(Fenced::Never { .. })), "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_may_still_be_there_is_looked_at_before_its_place_is_taken() {
        let store = Memory::default();
        claimed(&store, 2, "bb").await;
        let begun = Instant::now();
        let waiting = Writing::Waiting {
            holder: holder(2, "bb"),
            newest: None,
        };
        let ours = held_by(&store, &start(Some(waiting)), &KnownStore::default())
            .await
            .unwrap();
        assert_eq!(ours, holder(3, "aa"));
        assert!(begun.elapsed() >= LONG_SILENCE && begun.elapsed() < LOOKS);
    }
}
