//! What the owner wants kept, done to a place: lists it, asks [`retention::plan`], and deletes in its order. Only the
//! holder of the place may call this, with no backup under way; it never touches the mirror.

use crate::agent::arguments::Retention;
use crate::store::records::{Damage, Pin, decode};
use crate::store::retention::{self, Listing, Plan, Rules};
use crate::store::{Depth, Error, Store, Undone, keys, listed};
use jiff::Timestamp;

impl From<Retention> for Rules {
    fn from(retention: Retention) -> Self {
        let Retention {
            within,
            last,
            hourly,
            daily,
            weekly,
            monthly,
            history,
        } = retention;
        Self {
            within: within.map(crate::agent::arguments::Span::duration),
            last,
            hourly,
            daily,
            weekly,
            monthly,
            history: history.map(|size| size.0),
        }
    }
}

/// How much of a place is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// History only where a snapshot goes, or where it has a byte budget: one request for snapshots, one for pins.
    Lightly,
    /// History too, so that what an interrupted pruning left behind goes. Once at the start, and daily.
    Thoroughly,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What was planned.
    pub plan: Plan,
    /// What could not be deleted: it is found again the next time. Later steps were not begun.
    pub undone: Vec<Undone>,
}

/// Removes what nobody wants kept. On an error, what was removed until then was in order.
pub async fn prune(store: &dyn Store, retention: &Retention, look: Look, now: Timestamp) -> Result<Pruned, Error> {
    let rules = Rules::from(*retention);
    let mut listing = Listing::default();
    let snapshots = listed(store, keys::SNAPSHOTS, Depth::All).await?;
    listing.snapshots(&store.destination(), &snapshots)?;
    if listing.indexes.is_empty() {
        return Ok(Pruned::default());
    }
    listing.pins = pins(store).await?.into_iter().map(|(_, pin)| pin.snapshot).collect();
    let mut plan = retention::plan(&rules, &listing, now);
    if look == Look::Thoroughly || rules.history.is_some() || !plan.dropped.is_empty() {
        store
            .list(keys::HISTORY, Depth::All, &mut |object| listing.history(&object))
            .await?;
        plan = retention::plan(&rules, &listing, now);
    }
    for (folder, names) in plan.steps() {
        let undone = store.delete(folder, names).await?;
        if !undone.is_empty() {
            return Ok(Pruned { plan, undone });
        }
    }
    Ok(Pruned {
        plan,
        undone: Vec::new(),
    })
}

/// The pins of a place, by name. One that can't be read is an error: what it keeps is not known, so nothing may go.
pub async fn pins(store: &dyn Store) -> Result<Vec<(String, Pin)>, Error> {
    let mut pins = Vec::new();
    for object in listed(store, keys::PINS, Depth::All).await? {
        let key = format!("{}/{}", keys::PINS, object.name);
        let bytes = store.read(&key).await?;
        let pin = decode(&bytes).map_err(|Damage(why)| Error::Damaged {
            destination: store.destination(),
            key,
            why,
        })?;
        let name = object.name.strip_suffix(".json").unwrap_or(&object.name);
        pins.push((name.to_owned(), pin));
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;
    use crate::store::records::{VERSION, encode};

    const PLACE: [&str; 10] = [
        "config/a",
        "history/20261101T100100Z-1.2-auto/config/a",
        "history/20261122T100000Z-1.3-auto/config/a",
        "history/20261122T115900Z-1.4-auto/config/a",
        "snapshots/20261101T100000Z-1.1-auto.json",
        "snapshots/20261101T100000Z-1.1-auto.base",
        "snapshots/20261101T100100Z-1.2-auto.json",
        "snapshots/20261122T100000Z-1.3-auto.json",
        "snapshots/20261122T100000Z-1.3-auto.base",
        "snapshots/20261122T115900Z-1.4-auto.json",
    ];

    async fn place() -> Memory {
        let store = Memory::default();
        for key in PLACE {
            store.write(key, b"x").await.unwrap();
        }
        store
    }

    fn keys_of(store: &Memory) -> Vec<String> {
        store.objects().keys().cloned().collect()
    }

    async fn pruned(store: &Memory, retention: &str, look: Look) -> Result<Pruned, Error> {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        prune(store, &retention.parse().unwrap(), look, now).await
    }

    #[tokio::test]
    async fn what_nobody_wants_kept_goes_with_the_history_that_only_it_needed() {
        let store = place().await;
        let pruned = pruned(&store, "last=1", Look::Lightly).await.unwrap();
        assert_eq!((pruned.plan.dropped.len(), pruned.undone), (2, vec![]));
        assert_eq!(
            keys_of(&store),
            [
                "config/a",
                "history/20261122T115900Z-1.4-auto/config/a",
                "snapshots/20261122T100000Z-1.3-auto.base",
                "snapshots/20261122T100000Z-1.3-auto.json",
                "snapshots/20261122T115900Z-1.4-auto.json",
            ]
        );
    }

    #[tokio::test]
    async fn a_pin_that_cannot_be_read_stops_everything() {
        let store = place().await;
        store.write("pins/before-sync.json", b"{\"version\":1").await.unwrap();
        let error = pruned(&store, "last=1", Look::Thoroughly).await.unwrap_err();
        assert!(error.to_string().contains("pins/before-sync.json"), "{error}");
        assert_eq!(keys_of(&store).len(), PLACE.len() + 1);
    }

    #[tokio::test]
    async fn what_is_pinned_stays_with_what_it_needs() {
        let store = place().await;
        let pin = Pin {
            version: VERSION,
            snapshot: "20261101T100100Z-1.2-auto".parse().unwrap(),
            time: Timestamp::UNIX_EPOCH,
            reason: "before a sync".to_owned(),
        };
        store.write("pins/before-sync.json", &encode(&pin)).await.unwrap();
        let pruned = pruned(&store, "last=1", Look::Lightly).await.unwrap();
        assert_eq!(pruned.plan.dropped, []);
        assert_eq!(keys_of(&store).len(), PLACE.len() + 1);
    }

    #[tokio::test]
    async fn what_an_interrupted_pruning_left_behind_goes_with_the_next_thorough_one() {
        let store = place().await;
        for key in [
            "snapshots/20261101T100000Z-1.1-auto.json",
            "snapshots/20261101T100100Z-1.2-auto.json",
        ] {
            store.objects().remove(key).unwrap();
        }
        pruned(&store, "last=2", Look::Thoroughly).await.unwrap();
        assert_eq!(
            keys_of(&store),
            [
                "config/a",
                "history/20261122T115900Z-1.4-auto/config/a",
                "snapshots/20261122T100000Z-1.3-auto.base",
                "snapshots/20261122T100000Z-1.3-auto.json",
                "snapshots/20261122T115900Z-1.4-auto.json",
            ]
        );
    }
}
