//! When our Litestream may begin: the writer before us looks at the claims in steps, so for one such step after ours was
//! written its Litestream may still send. Whoever has let go before, or was our own pod, costs no wait. What is known of it is
//! kept in the pod's shared folder: from our first heartbeat on, the store says nothing of the one before.

use crate::agent::start::Start;
use crate::store::claims::{self, Holder};
use crate::store::state::{self, HEARTBEAT, State};
use crate::store::{Error, Store};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// While Litestream runs, the claims are looked at at least so often: a little less than each heartbeat does anyway.
pub const LOOK: Duration = Duration::from_secs(HEARTBEAT.as_secs() + 5);
/// A look that takes longer has failed.
pub const LOOKING: Duration = Duration::from_secs(10);
/// After so long a writer that stands and has its store has seen a newer claim, and has let go.
const LETS_GO_WITHIN: SignedDuration = SignedDuration::from_secs(85);
/// The file's name.
const NOTE: &str = "turn.json";

/// What is kept of it.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    epoch: u64,
    from: Timestamp,
}

/// Whether the writer before us, this pod under this epoch, may still send, from the last summary of the place.
fn may_send((epoch, pod): (u64, &str), state: Option<&State>, us: &Start) -> bool {
    let has_let_go = state.is_some_and(|state| state.epoch == epoch && state.released);
    // A pod's name is used again by a StatefulSet alone.
    let is_our_pod = pod == us.pod && !us.pod.is_empty() && us.owner.kind != "StatefulSet";
    !has_let_go && !is_our_pod
}

/// In how long our turn comes, under a claim that was written at `claimed`. `folder` is where Litestream's files lie. It has to
/// be asked before our first heartbeat.
pub async fn comes(
    store: &dyn Store,
    us: &Start,
    ours: &Holder,
    claimed: Timestamp,
    folder: &Path,
) -> Result<Duration, Error> {
    let from = from(store, us, ours, claimed, folder).await?;
    let wait = from.duration_since(Timestamp::now()).min(LETS_GO_WITHIN);
    // What lies behind us is no wait.
    Ok(Duration::try_from(wait).unwrap_or_default())
}

async fn from(
    store: &dyn Store,
    us: &Start,
    ours: &Holder,
    claimed: Timestamp,
    folder: &Path,
) -> Result<Timestamp, Error> {
    let path = folder.join(NOTE);
    let note: Option<Note> = std::fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(note) = note.filter(|note| note.epoch == ours.epoch) {
        return Ok(note.from);
    }
    let from = match before(store, ours).await? {
        Some((epoch, pod, state)) if may_send((epoch, &pod), state.as_ref(), us) => {
            tracing::warn!(
                "pod {pod} (epoch {epoch}) has not let go of this place: databases are replicated once it has seen that it is \
                 ours, within {} s",
                LETS_GO_WITHIN.as_secs()
            );
            claimed + LETS_GO_WITHIN
        }
        _ => claimed,
    };
    let note = serde_json::to_vec(&Note {
        epoch: ours.epoch,
        from,
    });
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, note.unwrap_or_default()));
    if let Err(error) = written {
        // A sidecar that is started again waits without need.
        tracing::warn!("{} can't be written: {error}", path.display());
    }
    Ok(from)
}

/// Epoch and pod of the claim before ours, with the place's last summary. A claim that is damaged has a name, and no pod.
async fn before(store: &dyn Store, ours: &Holder) -> Result<Option<(u64, String, Option<State>)>, Error> {
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
    Ok(Some((before.epoch, pod, state::read(store).await?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::claims::{Claim, ClaimedVolume, Owner};
    use crate::store::keys;
    use crate::store::memory::Memory;
    use crate::store::records::{VERSION, encode};

    fn start(kind: &str, pod: &str) -> Start {
        Start {
            version: VERSION,
            time: Timestamp::UNIX_EPOCH,
            owner: Owner {
                cluster: "c".to_owned(),
                namespace: "n".to_owned(),
                kind: kind.to_owned(),
                name: "app".to_owned(),
                pod: String::new(),
            },
            pod: pod.to_owned(),
            generation: String::new(),
            epoch: 0,
            since: None,
            destinations: Vec::new(),
            volumes: Vec::new(),
            serving: None,
        }
    }

    async fn claim(store: &Memory, epoch: u64, pod: &str) -> Holder {
        let claim = Claim {
            epoch,
            pod: pod.to_owned(),
            volumes: vec![ClaimedVolume {
                name: "data".to_owned(),
                folder: "config".to_owned(),
                id: pod.to_owned(),
            }],
            ..start("Deployment", pod).claim(Timestamp::UNIX_EPOCH)
        };
        let holder = claim.holder();
        store.write(&holder.key(), &encode(&claim)).await.unwrap();
        holder
    }

    async fn beat(store: &Memory, epoch: u64, released: bool) {
        let state = State {
            version: VERSION,
            epoch,
            released,
            ..State::default()
        };
        store.write(keys::STATE, &encode(&state)).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_has_not_let_go_is_waited_for_and_nobody_else() {
        let claimed = Timestamp::now();
        // Who was there, the summary (epoch, released), our kind and pod, whether we wait.
        for (before, state, kind, pod, waits) in [
            (None, None, "Deployment", "app2", false),
            (Some("app1"), None, "Deployment", "app2", true),
            (Some("app1"), Some((1, false)), "Deployment", "app2", true),
            (Some("app1"), Some((1, true)), "Deployment", "app2", false),
            // A summary of one who was there even before.
            (Some("app1"), Some((0, true)), "Deployment", "app2", true),
            // Its containers were started anew: the ones before are gone.
            (Some("app2"), Some((1, false)), "Deployment", "app2", false),
            (Some("app2"), Some((1, false)), "StatefulSet", "app2", true),
            (Some("app2"), Some((1, true)), "StatefulSet", "app2", false),
        ] {
            let (store, folder) = (Memory::default(), tempfile::tempdir().unwrap());
            if let Some(before) = before {
                claim(&store, 1, before).await;
            }
            if let Some((epoch, released)) = state {
                beat(&store, epoch, released).await;
            }
            let us = start(kind, pod);
            let ours = claim(&store, 2, pod).await;
            let comes = async || comes(&store, &us, &ours, claimed, folder.path()).await.unwrap();
            assert_eq!(comes().await > LOOK, waits, "{before:?} {state:?} {kind} {pod}");
            // A sidecar that is started again knows it from before, whoever has written a summary since.
            beat(&store, 2, false).await;
            assert_eq!(comes().await > LOOK, waits, "{before:?} {state:?} {kind} {pod}");
        }
    }

    #[tokio::test]
    async fn a_claim_that_is_cut_off_is_one_that_has_not_let_go_until_the_summary_says_so() {
        for (released, waits) in [(false, true), (true, false)] {
            let (store, folder) = (Memory::default(), tempfile::tempdir().unwrap());
            let before = claim(&store, 1, "app1").await;
            store.write(&before.key(), b"").await.unwrap();
            beat(&store, 1, released).await;
            let ours = claim(&store, 2, "app2").await;
            let us = start("Deployment", "app2");
            let wait = comes(&store, &us, &ours, Timestamp::now(), folder.path()).await;
            assert_eq!(wait.unwrap() > LOOK, waits, "{released}");
        }
    }

    #[test]
    fn a_writer_that_looks_when_it_has_to_has_let_go_in_time() {
        let at_last = LOOK + LOOKING + Duration::from_secs(2);
        assert!(LETS_GO_WITHIN > SignedDuration::try_from(at_last).unwrap());
    }
}
