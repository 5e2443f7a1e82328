//! A place that `init` could not claim, because its store was away or somebody still wrote there → ours, not yet, or
//! never under this start. Judged by the same function as in `init`; writes a claim and nothing else.

use crate::agent::claim::{Claimant, Judgement, Since, judge};
use crate::agent::place::{Backup, Place, look};
use crate::agent::start::{Start, Writing};
use crate::store::claims::{self, Holder, Taken};
use crate::store::{Error, Store};
use jiff::Timestamp;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The place is ours.
    Held(Holder),
    /// Look again in a minute.
    NotYet(String),
    /// Not under this start.
    Never(String),
}

/// Claims the place, if it may be claimed now.
pub async fn claim(store: &dyn Store, start: &Start, writing: &Writing) -> Result<Claimed, Error> {
    let waited_for = match writing {
        Writing::Claimed { holder } => return Ok(Claimed::Held(holder.clone())),
        Writing::Fenced => return Ok(Claimed::Never("init-config has fenced it off".to_owned())),
        Writing::Unclaimed => None,
        Writing::Waiting { holder, newest } => Some((holder, newest)),
    };
    let now = Timestamp::now();
    let folders: Vec<String> = start.volumes.iter().map(|volume| volume.folder.clone()).collect();
    let backup = match look(store, &folders).await? {
        Place::Backup(backup) => *backup,
        Place::Nothing { .. } => Backup::default(),
    };
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
        if backup.holder() == Some(holder) && backup.is_live(now) {
            return Ok(Claimed::NotYet(format!(
                "the pod of epoch {} still writes there; it is taken over once that has been silent for three minutes",
                holder.epoch
            )));
        }
    }
    let claimant = Claimant {
        owner: &start.owner,
        volume_ids: start.volumes.iter().map(|volume| volume.id.as_str()).collect(),
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
    };
    match judge(&backup, &claimant, now) {
        Judgement::Fence { why } => return Ok(Claimed::Never(why)),
        Judgement::Wait { why, .. } => return Ok(Claimed::NotYet(why)),
        Judgement::Take => {}
    }
    let taken = match claims::take(store, start.claim(now), &backup.claims, start.epoch).await {
        Err(Error::NoBucket { .. }) => {
            store.create().await?;
            claims::take(store, start.claim(now), &backup.claims, start.epoch).await?
        }
        other => other?,
    };
    Ok(match taken {
        Taken::Held(epoch) => Claimed::Held(Holder {
            epoch,
            volume_id: start.claim(now).holder().volume_id,
        }),
        Taken::Lost(holder) => {
            Claimed::NotYet(format!("the pod of epoch {} claimed it at the same time", holder.epoch))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::start::{StartedVolume, Status};
    use crate::store::claims::Owner;
    use crate::store::keys;
    use crate::store::memory::Memory;
    use crate::store::records::{VERSION, encode};
    use crate::store::state::State;
    use jiff::SignedDuration;

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

    /// A place that the pod of volume `bb` holds, and was alive so many seconds ago.
    async fn held(age: i64) -> (Memory, Holder) {
        let store = Memory::default();
        let then = Timestamp::now() - SignedDuration::from_secs(age);
        let taken = claims::take(&store, start("bb").claim(then), &[], 0).await;
        let Taken::Held(epoch) = taken.unwrap() else {
            panic!("the place was free");
        };
        let state = State {
            version: VERSION,
            epoch,
            volume_id: "bb".to_owned(),
            pod: "app-bb".to_owned(),
            owner: None,
            heartbeat: then,
            released: false,
            stopping: false,
            last: None,
            last_success: None,
            owed: false,
            files: 0,
            bytes: 0,
        };
        store.write(keys::STATE, &encode(&state)).await.unwrap();
        let holder = Holder {
            epoch,
            volume_id: "bb".to_owned(),
        };
        (store, holder)
    }

    #[tokio::test]
    async fn a_store_that_came_back_is_claimed() {
        let store = Memory::default();
        let claimed = claim(&store, &start("aa"), &Writing::Unclaimed).await.unwrap();
        assert!(matches!(claimed, Claimed::Held(holder) if holder.epoch == 2 && holder.volume_id == "aa"));
    }

    #[tokio::test]
    async fn whoever_waits_takes_over_only_from_the_silent() {
        for (age, held_now) in [(10, false), (400, true)] {
            let (store, holder) = held(age).await;
            let writing = Writing::Waiting { holder, newest: None };
            let claimed = claim(&store, &start("aa"), &writing).await.unwrap();
            assert_eq!(matches!(claimed, Claimed::Held(_)), held_now, "{claimed:?}");
            assert!(!matches!(claimed, Claimed::Never(_)), "{claimed:?}");
        }
    }

    #[tokio::test]
    async fn whoever_waits_never_writes_over_what_was_saved_meanwhile() {
        let (store, holder) = held(400).await;
        let writing = Writing::Waiting { holder, newest: None };
        store
            .write("snapshots/20261122T130500Z-1.1-auto.json", b"{}")
            .await
            .unwrap();
        let claimed = claim(&store, &start("aa"), &writing).await.unwrap();
        assert!(
            matches!(&claimed, Claimed::Never(why) if why.contains("1.1-auto")),
            "{claimed:?}"
        );
    }
}
