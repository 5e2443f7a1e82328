//! A place that `init` could not claim, because its store was away or somebody still wrote there → ours, not yet, or
//! never under this start. Judged by the same function as in `init`; writes a claim and nothing else.

use super::beat::{LONG_SILENCE, Observation, Sign};
use super::inspect::{Backup, Place, look};
use super::judge::{Claimant, Judgement, Since, judge};
use super::known::KnownStore;
use super::reverted::{newer, pin, told};
use crate::agent::arguments::QuestionId;
use crate::agent::start::{Start, Writing};
use crate::contract::question::Question;
use crate::store::claims::{self, Claim, Taken};
use crate::store::{Error, Store, decisions};
use jiff::Timestamp;
use tokio::time::Instant;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The place is ours, by this claim.
    Held(Claim),
    /// Something is known to have been there, and nothing is.
    Away(String),
    /// Look again in a minute.
    NotYet(String),
    /// Not before a person has said so.
    Asks(Question),
    /// Not under this start.
    Never(String),
}

/// Claims the place, if it may be claimed now. What is `known` to have been there is not believed to be gone; `observation`
/// is what this process has seen of it before; `accepted` are questions that are answered by yes.
pub async fn claim(
    store: &dyn Store,
    start: &Start,
    writing: &Writing,
    known: &KnownStore,
    accepted: &[QuestionId],
    observation: &mut Observation,
) -> Result<Claimed, Error> {
    let waited_for = match writing {
        Writing::Claimed { holder } => return Ok(Claimed::Held(start.claim_of(holder))),
        Writing::Fenced => return Ok(Claimed::Never("init-config has fenced it off".to_owned())),
        Writing::Unclaimed | Writing::Asks { .. } => None,
        Writing::Waiting { holder, newest } => Some((holder, newest)),
    };
    let now = Timestamp::now();
    let folders: Vec<String> = start.volumes.iter().map(|volume| volume.folder.clone()).collect();
    let place = look(store, &folders).await?;
    let volumes: Vec<&str> = start.volumes.iter().map(|volume| volume.id.as_str()).collect();
    if let Some(why) = known.doubts(&place, &volumes) {
        return Ok(Claimed::Away(why));
    }
    let backup = match place {
        Place::Backup(backup) => *backup,
        Place::Nothing { .. } => Backup::default(),
    };
    let seen = observation.look(&backup, Instant::now());
    if let Some((holder, newest)) = waited_for {
        let name = |id: &Option<_>| {
            id.map_or_else(
                || "none".to_owned(),
                |id: crate::store::snapshot::SnapshotId| id.to_string(),
            )
        };
        if backup.newest() != *newest {
            return Ok(Claimed::Never(format!(
                "another pod has made a backup since this one started ({}, before {}): what it saved is not on this volume; restart this pod",
                name(&backup.newest()),
                name(newest)
            )));
        }
        let may_live = matches!(seen.sign(LONG_SILENCE), Sign::NotYet | Sign::Live);
        if backup.holder() == Some(holder) && may_live {
            return Ok(Claimed::NotYet(format!(
                "the pod of epoch {} has not let go; it is taken over once nothing was seen of it for {} minutes",
                holder.epoch,
                LONG_SILENCE.as_secs() / 60
            )));
        }
    }
    let place = store.destination();
    let destination = start.destinations.iter().find(|to| to.destination == place);
    let takes_over = destination.and_then(|to| to.takes_over.as_ref());
    let claimant = Claimant {
        owner: &start.owner,
        volume_ids: volumes,
        epoch: start.epoch,
        // What the app has written since the start is on the volume only; what the store got since is not.
        kept: true,
        since: start.since.clone().or_else(|| {
            waited_for.map(|(holder, newest)| Since {
                holder: Some(holder.clone()),
                newest: *newest,
            })
        }),
        generation: &start.generation,
        pod: &start.pod,
        takes_over: takes_over.map(|taken| &taken.holder).into_iter().collect(),
    };
    let question = match judge(&place, &backup, &claimant, seen, &[]) {
        Judgement::Fence { why } => return Ok(Claimed::Never(why)),
        Judgement::Wait { why, .. } => return Ok(Claimed::NotYet(why)),
        Judgement::Ask(question) if !is_accepted(store, &question, accepted).await? => {
            return Ok(Claimed::Asks(question));
        }
        Judgement::Ask(question) => Some(question),
        Judgement::Take => None,
    };
    if let Some(snapshot) = start.pins.get(&place) {
        let names: Vec<&str> = start.volumes.iter().map(|volume| volume.name.as_str()).collect();
        pin(store, *snapshot, &names.join(", ")).await?;
    }
    // No start could ask it: what it has is compared with what the volumes were when it was last there.
    let is_of_this_start = backup
        .claim
        .as_ref()
        .is_some_and(|claim| claim.start == Some(start.time));
    for marked in known.marked.iter().filter(|_| !is_of_this_start) {
        let volume = start.volumes.iter().find(|volume| volume.id == marked.id);
        if let (Some(volume), Some(snapshot)) = (volume, newer(&backup, marked)) {
            pin(store, snapshot, &volume.name).await?;
            tracing::warn!("volume {}: {}", volume.name, told(&place, &snapshot, marked.epoch));
        }
    }
    let draft = start.claim(now);
    // One epoch for all destinations of a start: what is saved under it is told apart by time.
    let is_of_this_start = start
        .destinations
        .iter()
        .any(|destination| matches!(&destination.writing, Writing::Claimed { holder } if holder.epoch == start.epoch));
    let below = start.epoch.saturating_sub(u64::from(is_of_this_start));
    let taken = take(store, &draft, &backup, below.max(backup.highest_epoch())).await?;
    if let Taken::Held(_) = &taken {
        for question in question.iter().chain(takes_over.map(|taken| &taken.question)) {
            decisions::record(store, &question.id, &question.text).await?;
        }
    }
    Ok(match taken {
        Taken::Held(epoch) => Claimed::Held(Claim { epoch, ..draft }),
        Taken::Lost(holder) => {
            Claimed::NotYet(format!("the pod of epoch {} claimed it at the same time", holder.epoch))
        }
    })
}

/// Whether a question is answered by yes, for the first time.
pub async fn is_accepted(store: &dyn Store, question: &Question, accepted: &[QuestionId]) -> Result<bool, Error> {
    Ok(question.is_accepted_by(accepted) && !decisions::is_decided(store, &question.id).await?)
}

/// Claims a place with an epoch above `floor`, in a bucket that is made where there is none.
pub async fn take(store: &dyn Store, draft: &Claim, backup: &Backup, floor: u64) -> Result<Taken, Error> {
    match claims::take(store, draft.clone(), &backup.claims, floor).await {
        Err(Error::NoBucket { .. }) => {
            store.create().await?;
            claims::take(store, draft.clone(), &backup.claims, floor).await
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::start::{StartedVolume, Status};
    use crate::store::claims::{Holder, Owner};
    use crate::store::keys;
    use crate::store::memory::Memory;
    use crate::store::records::{VERSION, encode};
    use crate::store::state::{Mode, State};

    const UNKNOWN: KnownStore = KnownStore {
        held: false,
        store_id: None,
        recorded: None,
        claimed: None,
        asks: None,
        marked: Vec::new(),
    };

    fn start(id: &str) -> Start {
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
            pod: format!("app-{id}"),
            generation: "g".to_owned(),
            epoch: 1,
            since: None,
            pins: std::collections::BTreeMap::new(),
            destinations: Vec::new(),
            volumes: vec![StartedVolume {
                name: "data".to_owned(),
                folder: "config".to_owned(),
                path: "/config".into(),
                id: id.to_owned(),
                status: Status::Settled,
                why: String::new(),
                restored: None,
                adopted: false,
            }],
            serving: None,
        }
    }

    /// A place that the pod of volume `bb` holds, with such a summary.
    async fn held(summary: State) -> (Memory, Holder) {
        let store = Memory::default();
        let taken = claims::take(&store, start("bb").claim(Timestamp::now()), &[], 0).await;
        let Taken::Held(epoch) = taken.unwrap() else {
            panic!("the place was free");
        };
        let state = State {
            version: VERSION,
            epoch,
            volume_id: "bb".to_owned(),
            pod: "app-bb".to_owned(),
            ..summary
        };
        store.write(keys::STATE, &encode(&state)).await.unwrap();
        let holder = Holder {
            epoch,
            volume_id: "bb".to_owned(),
        };
        (store, holder)
    }

    async fn beat(store: &Memory, seconds: i64) {
        let mut state = crate::store::state::read(store).await.unwrap().unwrap();
        state.heartbeat = Timestamp::from_second(seconds).unwrap();
        store.write(keys::STATE, &encode(&state)).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_came_back_is_claimed() {
        let (store, mut observation) = (Memory::default(), Observation::default());
        let claimed = claim(
            &store,
            &start("aa"),
            &Writing::Unclaimed,
            &UNKNOWN,
            &[],
            &mut observation,
        )
        .await;
        assert!(matches!(claimed.unwrap(), Claimed::Held(claim) if claim.epoch == 2 && claim.volumes[0].id == "aa"));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_takes_over_only_from_those_of_whom_nothing_was_seen_for_three_minutes() {
        let (store, holder) = held(State::default()).await;
        let writing = Writing::Waiting { holder, newest: None };
        let (start, mut observation) = (start("aa"), Observation::default());
        let mut minutes = 0;
        loop {
            if minutes < 10 {
                // Its clock stands at 1970, and goes.
                beat(&store, minutes).await;
            }
            match claim(&store, &start, &writing, &UNKNOWN, &[], &mut observation)
                .await
                .unwrap()
            {
                Claimed::NotYet(_) => {}
                Claimed::Held(_) => break,
                other => panic!("{other:?}"),
            }
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            minutes += 1;
        }
        assert_eq!(minutes, 12, "its last beat was in the minute 9");
    }

    #[tokio::test]
    async fn whoever_waits_never_writes_over_what_was_saved_meanwhile() {
        let (store, holder) = held(State::default()).await;
        let writing = Writing::Waiting { holder, newest: None };
        store
            .write("snapshots/20261122T130500Z-1.1-auto.json", b"{}")
            .await
            .unwrap();
        let claimed = claim(
            &store,
            &start("aa"),
            &writing,
            &UNKNOWN,
            &[],
            &mut Observation::default(),
        )
        .await;
        let claimed = claimed.unwrap();
        assert!(
            matches!(&claimed, Claimed::Never(why) if why.contains("1.1-auto")),
            "{claimed:?}"
        );
    }

    #[tokio::test]
    async fn where_runs_of_another_cluster_write_it_is_asked_once_and_the_decision_is_recorded() {
        let (store, holder) = held(State {
            released: true,
            mode: Some(Mode::Cronjob),
            ..State::default()
        })
        .await;
        let mut start = start("aa");
        start.owner.cluster = "dev".to_owned();
        start.since = Some(Since {
            holder: Some(holder),
            newest: None,
        });
        let claim = async |accepted: &[QuestionId]| {
            claim(
                &store,
                &start,
                &Writing::Unclaimed,
                &UNKNOWN,
                accepted,
                &mut Observation::default(),
            )
            .await
            .unwrap()
        };
        let Claimed::Asks(question) = claim(&[]).await else {
            panic!("nobody can see whether the other cluster is there");
        };
        let accepted = [question.id.clone()];
        assert!(matches!(claim(&accepted).await, Claimed::Held(_)));
        assert!(decisions::is_decided(&store, &question.id).await.unwrap());
    }
}
