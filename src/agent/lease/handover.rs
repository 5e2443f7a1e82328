//! A place that was claimed while somebody still wrote there: whoever did looks at the claims beside all that takes long, and
//! ends what it has begun once ours is there; for so long nothing is written beside it. What it leaves is a backup that was
//! begun and not ended, and is undone then. Nobody who has let go, or has begun nothing, is waited for.
//!
//! Whoever can't see the claims (a node that was cut off or stood still, a former release, which looks only between two steps)
//! may send something even later: that is looked for again.

use super::beat::LOOK_AGAIN;
use super::renew::{LOOK, LOOKING};
use crate::store::claims::{self, Holder};
use crate::store::keys::{self, SnapshotObject};
use crate::store::records::encode;
use crate::store::state::{self, State};
use crate::store::{Depth, Error, Store, listed};
use jiff::Timestamp;
use std::time::Duration;

/// After so long a writer that has its store has seen our claim, and sends nothing any more.
pub const LETS_GO_WITHIN: Duration = Duration::from_secs(45);
/// What came of a writer that had not let go is looked for again so long after; the last time for good.
pub const LOOK_BACK: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(300)];
/// Nobody waits longer for a word that is only a courtesy.
const FAREWELL: Duration = Duration::from_secs(10);

const _: () = assert!(LETS_GO_WITHIN.as_secs() > LOOK.as_secs() + LOOKING.as_secs());

/// Who comes.
#[derive(Clone, Copy, Debug)]
pub struct Comer<'a> {
    /// Its claim.
    pub holder: &'a Holder,
    /// Its pod.
    pub pod: &'a str,
    /// The kind of its workload: a pod's name is used again by a StatefulSet alone.
    pub kind: &'a str,
}

/// How a place is come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Nobody else writes there.
    Alone,
    /// Somebody may, who has not said that it does not.
    Beside,
}

/// The writer before us.
#[derive(Debug)]
pub struct Predecessor {
    /// The epoch of its claim.
    pub epoch: u64,
    /// Its pod; empty where its claim is damaged.
    pub pod: String,
}

impl Predecessor {
    /// Whose claim was the last one before ours, if anybody's.
    pub async fn of(store: &dyn Store, ours: &Holder) -> Result<Option<Self>, Error> {
        let claims = claims::list(store).await?;
        let Some(before) = claims.iter().rev().find(|holder| holder.epoch < ours.epoch) else {
            return Ok(None);
        };
        let pod = match claims::read(store, before).await {
            Ok(claim) => claim.pod,
            Err(Error::Damaged { .. }) => String::new(),
            // Pruned between the two.
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self {
            epoch: before.epoch,
            pod,
        }))
    }

    /// Whether it was our own pod, whose containers were started anew: the ones before are gone.
    #[must_use]
    pub fn is(&self, comer: Comer<'_>) -> bool {
        self.pod == comer.pod && !comer.pod.is_empty() && comer.kind != "StatefulSet"
    }
}

/// Waits until the writer before us has let go, where it has begun a backup; `cut`: there is no time for that.
pub async fn arrive(store: &dyn Store, comer: Comer<'_>, cut: impl Future<Output = ()>) -> Result<Arrival, Error> {
    let has_let_go = |state: &State| state.released && !state.beside;
    if let Some(state) = state::read(store).await? {
        let is_ours = state.epoch == comer.holder.epoch && state.volume_id == comer.holder.volume_id;
        if has_let_go(&state) || is_ours && !state.beside {
            return Ok(Arrival::Alone);
        }
        if is_ours {
            return Ok(Arrival::Beside);
        }
    }
    let predecessor = match Predecessor::of(store, comer.holder).await? {
        Some(predecessor) if !predecessor.is(comer) => predecessor,
        _ => return Ok(Arrival::Alone),
    };
    if !has_begun(store, comer.holder).await? {
        return Ok(Arrival::Beside);
    }
    tracing::warn!(
        "{}: pod {} (epoch {}) has begun a backup there, and has not let go: nothing is written until it has seen that the \
         place is ours, within {} s",
        store.destination(),
        predecessor.pod,
        predecessor.epoch,
        LETS_GO_WITHIN.as_secs()
    );
    let waiting = async {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            if let Ok(Some(state)) = state::read(store).await
                && has_let_go(&state)
            {
                return Arrival::Alone;
            }
        }
    };
    tokio::select! {
        arrival = waiting => Ok(arrival),
        () = tokio::time::sleep(LETS_GO_WITHIN) => Ok(Arrival::Beside),
        () = cut => Ok(Arrival::Beside),
    }
}

/// Whether somebody before us has begun a backup and not ended it: whatever it writes, it has said so first.
async fn has_begun(store: &dyn Store, ours: &Holder) -> Result<bool, Error> {
    let objects = listed(store, keys::SNAPSHOTS, Depth::All).await?;
    Ok(objects
        .iter()
        .any(|object| matches!(keys::of_snapshot(&object.name), SnapshotObject::Pending(id) if id.epoch < ours.epoch)))
}

/// Says, once everything has ended, that nothing more comes of a writer whose place was taken, for as long as its summary is
/// the last: whoever took it need not wait. If that fails, it does.
pub async fn farewell(store: &dyn Store, ours: &Holder, owed: bool) {
    let say = async {
        let Some(state) = state::read(store).await? else {
            return Ok(());
        };
        if state.epoch != ours.epoch || state.volume_id != ours.volume_id || state.released {
            return Ok(());
        }
        let state = State {
            released: true,
            stopping: false,
            owed,
            heartbeat: Timestamp::now(),
            ..state
        };
        store.write(keys::STATE, &encode(&state)).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(FAREWELL, say).await {
        tracing::warn!("{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::claims::{Claim, ClaimedVolume, Owner};
    use crate::store::memory::Memory;
    use crate::store::records::VERSION;
    use std::future::pending;
    use tokio::time::Instant;

    const BEGUN: &str = "snapshots/20261122T130500Z-3.7-auto.pending";

    fn holder(epoch: u64, id: &str) -> Holder {
        Holder {
            epoch,
            volume_id: id.to_owned(),
        }
    }

    async fn claim(store: &Memory, epoch: u64, pod: &str) {
        let claim = Claim {
            version: VERSION,
            epoch,
            owner: Owner {
                cluster: String::new(),
                namespace: "n".to_owned(),
                kind: "Deployment".to_owned(),
                name: "app".to_owned(),
                pod: String::new(),
            },
            pod: pod.to_owned(),
            generation: String::new(),
            volumes: vec![ClaimedVolume {
                name: "data".to_owned(),
                folder: "config".to_owned(),
                id: pod.to_owned(),
            }],
            time: Timestamp::UNIX_EPOCH,
            start: None,
        };
        store.write(&claim.holder().key(), &encode(&claim)).await.unwrap();
    }

    async fn summary(store: &Memory, epoch: u64, id: &str, released: bool, beside: bool) {
        let state = State {
            version: VERSION,
            epoch,
            volume_id: id.to_owned(),
            released,
            beside,
            ..State::default()
        };
        store.write(keys::STATE, &encode(&state)).await.unwrap();
    }

    /// A place that pod `one` held at epoch 3, and pod `two` has claimed since.
    async fn taken(begun: bool) -> Memory {
        let store = Memory::default();
        claim(&store, 3, "one").await;
        summary(&store, 3, "one", false, false).await;
        claim(&store, 4, "two").await;
        if begun {
            store.write(BEGUN, b"{}").await.unwrap();
        }
        store
    }

    async fn arrival(store: &Memory, pod: &str, kind: &str) -> (Arrival, Duration) {
        let begun = Instant::now();
        let ours = holder(4, "two");
        let comer = Comer {
            holder: &ours,
            pod,
            kind,
        };
        (arrive(store, comer, pending()).await.unwrap(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_writer_that_has_begun_a_backup_and_not_let_go_is_waited_for() {
        use Arrival::{Alone, Beside};
        let at_once = Duration::ZERO;
        let store = taken(true).await;
        assert_eq!(arrival(&store, "two", "Deployment").await, (Beside, LETS_GO_WITHIN));
        // Its pod's name is ours: its containers were started anew. A StatefulSet has the name again on another node.
        assert_eq!(arrival(&store, "one", "Deployment").await, (Alone, at_once));
        assert_eq!(arrival(&store, "one", "StatefulSet").await, (Beside, LETS_GO_WITHIN));
        // It has begun nothing; what it may begin now it begins with a look at the claims.
        assert_eq!(
            arrival(&taken(false).await, "two", "Deployment").await,
            (Beside, at_once)
        );
        // It has let go; the one before it had not when it had to write.
        for (beside, expected) in [(false, (Alone, at_once)), (true, (Beside, LETS_GO_WITHIN))] {
            let store = taken(true).await;
            summary(&store, 3, "one", true, beside).await;
            assert_eq!(arrival(&store, "two", "Deployment").await, expected);
        }
        // We have been here before.
        for (beside, expected) in [(false, Alone), (true, Beside)] {
            let store = taken(true).await;
            summary(&store, 4, "two", false, beside).await;
            assert_eq!(arrival(&store, "two", "Deployment").await, (expected, at_once));
        }
        // Nobody was there.
        let store = Memory::default();
        claim(&store, 4, "two").await;
        assert_eq!(arrival(&store, "two", "Deployment").await, (Alone, at_once));
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_has_seen_our_claim_says_so_and_is_waited_for_no_longer() {
        let store = taken(true).await;
        let seen = async {
            tokio::time::sleep(Duration::from_secs(12)).await;
            farewell(&store, &holder(3, "one"), true).await;
        };
        let ((arrival, waited), ()) = tokio::join!(arrival(&store, "two", "Deployment"), seen);
        assert_eq!((arrival, waited), (Arrival::Alone, LOOK_AGAIN * 3));
        let state = state::read(&store).await.unwrap().unwrap();
        assert!(state.released && state.owed);
        // Once the next one has written its own, nothing is said any more.
        summary(&store, 4, "two", false, false).await;
        farewell(&store, &holder(3, "one"), true).await;
        assert_eq!(state::read(&store).await.unwrap().unwrap().epoch, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_no_time_does_not_wait() {
        let (store, ours, begun) = (taken(true).await, holder(4, "two"), Instant::now());
        let comer = Comer {
            holder: &ours,
            pod: "two",
            kind: "Deployment",
        };
        let cut = tokio::time::sleep(Duration::from_secs(7));
        assert_eq!(arrive(&store, comer, cut).await.unwrap(), Arrival::Beside);
        assert_eq!(begun.elapsed(), Duration::from_secs(7));
    }
}
