//! When our Litestream may begin: the writer before us looks at the claims in steps, so for one such step after ours was
//! written its Litestream may still send. Whoever has let go before, or was our own pod, costs no wait. What is known of it is
//! kept in the pod's shared folder: from our first heartbeat on, the store says nothing of the one before.

use crate::agent::lease::handover::{Comer, Predecessor};
use crate::agent::start::Start;
use crate::store::claims::Holder;
use crate::store::state::{self, HEARTBEAT, State};
use crate::store::{Error, Store};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// While Litestream runs, the claims are looked at at least so often: a little less than each heartbeat does anyway.
pub const LOOK: Duration = Duration::from_secs(HEARTBEAT.as_secs() + 5);
/// A look that takes longer has failed.
pub const LOOKING: Duration = Duration::from_secs(10);
/// After so long a writer that stands and has its store has seen a newer claim, and has let go.
const LETS_GO_WITHIN: Duration = Duration::from_secs(85);
/// The file's name.
const NOTE: &str = "turn.json";

/// What is kept of it.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    epoch: u64,
    /// Seconds since the node was started: a clock that nobody sets, and that all containers of a pod share.
    from: u64,
}

/// Seconds since the node was started.
fn uptime() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}

/// In how long our turn comes, of a sidecar that has known since `since` that the place is ours. `folder` is where Litestream's
/// files lie. It has to be asked before our first heartbeat.
pub async fn comes(
    store: &dyn Store,
    us: &Start,
    ours: &Holder,
    since: Instant,
    folder: &Path,
) -> Result<Duration, Error> {
    let waited = since.elapsed().as_secs();
    let from = from(store, us, ours, waited, folder).await?;
    // What lies behind us is no wait.
    Ok(Duration::from_secs(from.saturating_sub(uptime())).min(LETS_GO_WITHIN))
}

async fn from(store: &dyn Store, us: &Start, ours: &Holder, waited: u64, folder: &Path) -> Result<u64, Error> {
    let path = folder.join(NOTE);
    let note: Option<Note> = std::fs::read(&path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(note) = note.filter(|note| note.epoch == ours.epoch) {
        return Ok(note.from);
    }
    let claimed = uptime().saturating_sub(waited);
    let comer = Comer {
        holder: ours,
        pod: &us.pod,
        kind: &us.owner.kind,
    };
    let from = match Predecessor::of(store, ours).await? {
        Some(before) if !before.is(comer) && !has_let_go(&before, state::read(store).await?.as_ref()) => {
            tracing::warn!(
                "pod {} (epoch {}) has not let go of this place: databases are replicated once it has seen that it is ours, \
                 within {} s",
                before.pod,
                before.epoch,
                LETS_GO_WITHIN.as_secs()
            );
            claimed + LETS_GO_WITHIN.as_secs()
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

/// Whether the writer before us has said that it sends nothing more.
fn has_let_go(before: &Predecessor, state: Option<&State>) -> bool {
    state.is_some_and(|state| state.epoch == before.epoch && state.released)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::claims::{Claim, ClaimedVolume, Owner};
    use crate::store::keys;
    use crate::store::memory::Memory;
    use crate::store::records::{VERSION, encode};
    use jiff::Timestamp;

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
            pins: std::collections::BTreeMap::new(),
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
        let claimed = Instant::now();
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
            let wait = comes(&store, &us, &ours, Instant::now(), folder.path()).await;
            assert_eq!(wait.unwrap() > LOOK, waits, "{released}");
        }
    }

    #[test]
    fn a_writer_that_looks_when_it_has_to_has_let_go_in_time() {
        let at_last = LOOK + LOOKING + Duration::from_secs(2);
        assert!(LETS_GO_WITHIN > at_last);
    }
}
