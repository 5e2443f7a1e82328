//! What the owner wants kept, done to a place: lists it, asks [`retention::plan`], and deletes in its order. Only the
//! holder of the place may call this, with no backup under way; it never touches the mirror.

use crate::agent::arguments::Retention;
use crate::agent::snapshot::deletions::undeleted;
use crate::store::records::{Damage, Pin, decode};
use crate::store::retention::{self, Listing, Plan, Rules};
use crate::store::snapshot::SnapshotId;
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

/// Where nobody can say any more what a pin keeps, the newest snapshot of each of so many days stays.
const DAYS_OF_DAMAGED: u32 = 30;

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

impl Pruned {
    /// The snapshots that stay, the newest last. What could not be deleted does.
    #[must_use]
    pub fn kept(&self) -> Vec<SnapshotId> {
        let mut kept = self.plan.kept.clone();
        if !self.undone.is_empty() {
            kept.extend(&self.plan.dropped);
            kept.sort_unstable();
        }
        kept
    }
}

/// Removes what nobody wants kept. On an error, what was removed until then was in order.
pub async fn prune(store: &dyn Store, retention: &Retention, look: Look, now: Timestamp) -> Result<Pruned, Error> {
    let mut rules = Rules::from(*retention);
    let mut listing = Listing::default();
    let snapshots = listed(store, keys::SNAPSHOTS, Depth::All).await?;
    listing.snapshots(&store.destination(), &snapshots)?;
    if listing.indexes.is_empty() {
        return Ok(Pruned::default());
    }
    let pins = pins(store).await?;
    listing.pins = pins.iter().filter_map(Pinned::snapshot).collect();
    let unknown: Vec<&str> = pins
        .iter()
        .filter(|pin| pin.snapshot().is_none())
        .map(Pinned::name)
        .collect();
    if !unknown.is_empty() {
        tracing::warn!(
            "{}: which snapshot is kept by {} can't be read any more, so the newest of each day stays for {DAYS_OF_DAMAGED} \
             days; pin anew what has to stay, and delete what can't be read",
            store.destination(),
            unknown.join(", ")
        );
        rules.daily = Some(rules.daily.unwrap_or(0).max(DAYS_OF_DAMAGED));
    }
    let mut plan = retention::plan(&rules, &listing, now);
    if look == Look::Thoroughly || rules.history.is_some() || !plan.dropped.is_empty() {
        store
            .list(keys::HISTORY, Depth::All, &mut |object| listing.history(&object))
            .await?;
        plan = retention::plan(&rules, &listing, now);
    }
    for (folder, names) in plan.steps() {
        let undone = undeleted(store, folder, names).await?;
        if !undone.is_empty() {
            return Ok(Pruned { plan, undone });
        }
    }
    Ok(Pruned {
        plan,
        undone: Vec::new(),
    })
}

/// A pin, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// It is whole.
    Whole {
        /// Its name.
        name: String,
        /// What it says.
        pin: Pin,
    },
    /// It is damaged, and what is left of it, or its name, still tells what it keeps; or not even that.
    Damaged {
        /// Its name.
        name: String,
        /// The snapshot.
        snapshot: Option<SnapshotId>,
    },
}

impl Pinned {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Whole { name, .. } | Self::Damaged { name, .. } => name,
        }
    }

    /// What it keeps, where that is known.
    #[must_use]
    pub fn snapshot(&self) -> Option<SnapshotId> {
        match self {
            Self::Whole { pin, .. } => Some(pin.snapshot),
            Self::Damaged { snapshot, .. } => *snapshot,
        }
    }
}

/// The pins of a place. One that is damaged stops nothing; one of a newer release does, because what it keeps is not known.
pub async fn pins(store: &dyn Store) -> Result<Vec<Pinned>, Error> {
    let mut pins = Vec::new();
    for object in listed(store, keys::PINS, Depth::All).await? {
        let Some(name) = object.name.strip_suffix(".json") else {
            continue;
        };
        let key = keys::pin(name);
        let bytes = match store.read(&key).await {
            Ok(bytes) => bytes,
            // Taken away between the two.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let name = name.to_owned();
        pins.push(match decode(&bytes) {
            Ok(pin) => Pinned::Whole { name, pin },
            Err(newer @ Damage::Newer(_)) => return Err(newer.of(store.destination(), key)),
            Err(Damage::Broken(_)) => Pinned::Damaged {
                snapshot: id_in(&String::from_utf8_lossy(&bytes)).or_else(|| id_in(&name)),
                name,
            },
        });
    }
    Ok(pins)
}

/// The snapshot that a text names, anywhere in it.
fn id_in(text: &str) -> Option<SnapshotId> {
    let is_of_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    text.split(|c| !is_of_id(c)).find_map(|word| {
        // A name may have a word before its id.
        let starts = word.match_indices('-').map(|(dash, _)| dash + 1);
        std::iter::once(0)
            .chain(starts)
            .find_map(|start| word[start..].parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::Fault;
    use crate::store::memory::Memory;
    use crate::store::records::{VERSION, encode};
    use std::sync::Arc;

    const PLACE: [&str; 12] = [
        "config/a",
        "history/20261101T100100Z-1.2-auto/config/a",
        "history/20261122T100000Z-1.3-auto/config/a",
        "history/20261122T115900Z-1.4-auto/config/a",
        "snapshots/20261020T100000Z-0.1-auto.json",
        "snapshots/20261020T100000Z-0.1-auto.base",
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
                "history/20261101T100100Z-1.2-auto/config/a",
                "history/20261122T115900Z-1.4-auto/config/a",
                "snapshots/20261101T100000Z-1.1-auto.base",
                "snapshots/20261101T100000Z-1.1-auto.json",
                "snapshots/20261122T100000Z-1.3-auto.base",
                "snapshots/20261122T100000Z-1.3-auto.json",
                "snapshots/20261122T115900Z-1.4-auto.json",
            ]
        );
    }

    #[tokio::test]
    async fn a_pin_of_a_newer_release_stops_everything() {
        let store = place().await;
        store.write("pins/before-sync.json", b"{\"version\":9}").await.unwrap();
        let error = pruned(&store, "last=1", Look::Thoroughly).await.unwrap_err();
        assert!(matches!(error, Error::Newer { .. }), "{error}");
        assert!(error.to_string().contains("pins/before-sync.json"), "{error}");
        assert_eq!(keys_of(&store).len(), PLACE.len() + 1);
    }

    #[tokio::test]
    async fn a_damaged_pin_keeps_what_is_left_of_it_names_or_else_one_snapshot_of_each_day_and_stops_nothing() {
        let pinned = "20261020T100000Z-0.1-auto";
        for (name, content, kept) in [
            ("sync", format!("{{\"version\":1,\"snapshot\":\"{pinned}\",\"ti"), true),
            (&*format!("before-{pinned}"), String::new(), true),
            ("sync", String::new(), false),
        ] {
            let store = place().await;
            // Of that day, this is the newest.
            for extension in ["json", "base"] {
                let key = format!("snapshots/20261020T100100Z-0.2-auto.{extension}");
                store.write(&key, b"x").await.unwrap();
            }
            store.write(&keys::pin(name), content.as_bytes()).await.unwrap();
            store.write("pins/.DS_Store", b"x").await.unwrap();
            let pruned = pruned(&store, "last=1", Look::Thoroughly).await.unwrap();
            let dropped: Vec<String> = pruned.plan.dropped.iter().map(ToString::to_string).collect();
            let other = if kept { "20261020T100100Z-0.2-auto" } else { pinned };
            // The newest of the other day.
            let expected: &[&str] = if kept {
                &[other, "20261101T100100Z-1.2-auto"]
            } else {
                &[other]
            };
            assert_eq!(dropped, expected, "{name} {content}");
        }
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
        assert_eq!(pruned.plan.dropped, ["20261020T100000Z-0.1-auto".parse().unwrap()]);
        // The pin came, an index and its mark went.
        assert_eq!(keys_of(&store).len(), PLACE.len() + 1 - 2);
    }

    #[tokio::test]
    async fn what_an_interrupted_pruning_left_behind_goes_with_the_next_thorough_one() {
        let store = place().await;
        for key in [
            "snapshots/20261020T100000Z-0.1-auto.json",
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

    #[tokio::test]
    async fn where_nothing_is_deleted_what_was_to_go_counts_as_kept_and_that_is_no_failure() {
        let store = crate::store::faulty::Faulty::new(&Arc::new(place().await), Fault::RefusesDeletions);
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let rules = "last=1".parse().unwrap();
        let pruned = prune(&store, &rules, Look::Thoroughly, now).await.unwrap();
        assert!(!pruned.undone.is_empty());
        assert_eq!(keys_of(&store.memory).len(), PLACE.len());
        assert_eq!(pruned.kept().len(), 5, "all of them can be restored still");
    }
}
