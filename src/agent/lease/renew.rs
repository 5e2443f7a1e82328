//! A place is held while something long is done there: beside it the claims are looked at, and the summary beats. Whoever
//! takes the place over counts on our noticing that in time, and on our sending nothing from then on; and whoever waits for us
//! sees that we are there. The work is dropped with every process that it has started.

use super::check::Fenced;
use crate::agent::sidecar::backup::Failure;
use crate::store::claims::{self, Holder};
use crate::store::records::encode;
use crate::store::state::{HEARTBEAT, State};
use crate::store::{Error, Store, keys};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The claims are looked at so often.
pub const LOOK: Duration = Duration::from_secs(20);
/// A look that takes longer is given up; the next one comes all the same.
pub const LOOKING: Duration = Duration::from_secs(15);

/// A place that is ours.
pub struct Renewal {
    /// The place.
    pub store: Arc<dyn Store>,
    /// Our claim.
    pub holder: Holder,
    /// What its summary says meanwhile; none: there is nothing to say yet.
    pub summary: Option<State>,
}

impl Renewal {
    /// Does this until it ends, or until somebody else holds the place.
    pub async fn during<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::pin!(work);
        let mut next_beat = Instant::now() + HEARTBEAT;
        loop {
            tokio::select! {
                result = &mut work => return result,
                () = tokio::time::sleep(LOOK) => {}
            }
            let beats = self.summary.as_ref().filter(|_| next_beat <= Instant::now());
            let look = async {
                match beats {
                    Some(summary) => {
                        // An attempt counts, whatever comes of it: what is in order is said by the next beat.
                        next_beat = Instant::now() + HEARTBEAT;
                        self.beat(summary).await
                    }
                    None => claims::list(self.store.as_ref()).await,
                }
            };
            let look = tokio::time::timeout(LOOKING, look);
            tokio::pin!(look);
            let looked = tokio::select! {
                looked = &mut look => looked,
                result = &mut work => {
                    if beats.is_some() {
                        // What is said next must not be overtaken by what was said before.
                        let _ = look.await;
                    }
                    return result;
                }
            };
            // Where there is no answer the work goes on: it finds out by itself whether its store is there.
            if let Ok(Ok(claims)) = looked
                && let Some(holder) = claims.last().filter(|holder| **holder > self.holder)
            {
                return Err(Fenced::TakenOver {
                    destination: self.store.destination(),
                    holder: holder.clone(),
                    ours: self.holder.clone(),
                }
                .into());
            }
        }
    }

    async fn beat(&self, summary: &State) -> Result<Vec<Holder>, Error> {
        let summary = State {
            heartbeat: Timestamp::now(),
            ..summary.clone()
        };
        let store = self.store.as_ref();
        let found = store.exchange(keys::STATE, &encode(&summary), &[keys::CLAIMS]).await?;
        claims::of_exchange(store, &found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;
    use std::future::pending;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn holder(epoch: u64) -> Holder {
        Holder {
            epoch,
            volume_id: "aa".to_owned(),
        }
    }

    async fn renewal(summary: Option<State>) -> (Arc<Memory>, Renewal) {
        let store = Arc::new(Memory::default());
        store.write(&holder(3).key(), b"{}").await.unwrap();
        let renewal = Renewal {
            store: store.clone(),
            holder: holder(3),
            summary,
        };
        (store, renewal)
    }

    /// Says when it is dropped.
    struct Work<'a>(&'a AtomicBool);

    impl Drop for Work<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_ends_soon_after_somebody_else_has_taken_the_place() {
        let (store, renewal) = renewal(None).await;
        let (begun, ended) = (Instant::now(), AtomicBool::new(false));
        let work = async {
            let _work = Work(&ended);
            pending::<Result<(), Failure>>().await
        };
        let takeover = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            assert!(!ended.load(Ordering::Relaxed));
            store.write(&holder(4).key(), b"{}").await.unwrap();
        };
        let (result, ()) = tokio::join!(renewal.during(work), takeover);
        assert!(matches!(result, Err(Failure::Fenced(Fenced::TakenOver { holder: by, .. })) if by == holder(4)));
        assert!(begun.elapsed() <= Duration::from_secs(3600) + LOOK);
        assert!(ended.load(Ordering::Relaxed), "its processes are gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_shows_nothing_ends_nothing() {
        let (store, renewal) = renewal(None).await;
        store.objects().clear();
        let work = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(7)
        };
        assert_eq!(renewal.during(work).await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_looks_at_a_writer_that_is_long_at_it_sees_it_beat() {
        let summary = State {
            epoch: 3,
            ..State::default()
        };
        let (store, renewal) = renewal(Some(summary)).await;
        let work = async {
            tokio::time::sleep(Duration::from_secs(599)).await;
            Ok(())
        };
        let looking = async {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..600 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                seen.extend(store.objects().get(keys::STATE).cloned());
            }
            seen.len()
        };
        let (result, beats) = tokio::join!(renewal.during(work), looking);
        result.unwrap();
        assert_eq!(beats, 9, "one a minute, and none before the first is over");
    }
}
