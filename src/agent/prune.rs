//! What the owner wants kept, done to a place: lists it, asks [`retention::plan`], and deletes in its order. Only the
//! holder of the place may call this, with no backup under way; it never touches the mirror.

use crate::agent::arguments::Retention;
use crate::agent::snapshot::deletions::undeleted;
use crate::store::records::{Damage, Pin, decode};
use crate::store::retention::delay::{self, Turn};
use crate::store::retention::{self, Listing, Plan, Rules};
use crate::store::snapshot::SnapshotId;
use crate::store::state::Pruning;
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
    /// For the place's summary, and the next run.
    pub pruning: Option<Pruning>,
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

/// Removes what nobody wants kept. On an error, what was removed until then was in order. `before`: what the run before this
/// one has left to be known. `base`: the complete index on which the newest snapshot builds, whether or not it is marked.
pub async fn prune(
    store: &dyn Store,
    retention: &Retention,
    look: Look,
    now: Timestamp,
    before: Option<&Pruning>,
    base: Option<SnapshotId>,
) -> Result<Pruned, Error> {
    let mut rules = Rules::from(*retention);
    let mut listing = Listing::default();
    let snapshots = listed(store, keys::SNAPSHOTS, Depth::Dated).await?;
    listing.snapshots(&store.destination(), &snapshots)?;
    if listing.indexes.is_empty() {
        return Ok(Pruned {
            pruning: before.cloned(),
            ..Pruned::default()
        });
    }
    if look == Look::Thoroughly {
        // Where nothing changes, no index is new; but the claim is written each day.
        store
            .list(keys::CLAIMS, Depth::Dated, &mut |object| listing.saw(&object))
            .await?;
    }
    listing.bases.extend(base.filter(|base| listing.indexes.contains(base)));
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
    let is_sweeping = retention::is_sweeping(&rules, &listing, now);
    // A store that keeps the times of files has those of a pod whose clock was ahead.
    let clock = listing.clock.map_or(now, |clock| clock.min(now));
    let (turn, pruning) = delay::turn(before, &retention.to_string(), is_sweeping, clock);
    if let Turn::PutOff { new } = turn {
        if new {
            tracing::warn!(
                "{}: by {retention} more than half of its {} snapshots would go at once: that is put off for an hour, in case \
                 it is a clock that is wrong; what a change of vixens.io/backup-retention asks for is done at once",
                store.destination(),
                listing.indexes.len()
            );
        }
        rules = rules.without_ages();
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
            return Ok(Pruned {
                plan,
                undone,
                pruning: Some(pruning),
            });
        }
    }
    Ok(Pruned {
        plan,
        undone: Vec::new(),
        pruning: Some(pruning),
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
    use crate::store::keys::SnapshotObject;
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

    /// Its clock is right.
    async fn place() -> Memory {
        let store = Memory::default();
        for key in PLACE {
            store.write(key, b"x").await.unwrap();
        }
        store.written().clear();
        for key in PLACE {
            let name = key.strip_prefix("snapshots/").unwrap_or_default();
            if let SnapshotObject::Index(id) | SnapshotObject::Base(id) = keys::of_snapshot(name) {
                store.written().insert(key.to_owned(), id.time);
            }
        }
        store
    }

    fn keys_of(store: &Memory) -> Vec<String> {
        store.objects().keys().cloned().collect()
    }

    async fn pruned(store: &Memory, retention: &str, look: Look) -> Result<Pruned, Error> {
        pruned_at(store, retention, look, "2026-11-22T12:00:00Z", None).await
    }

    async fn pruned_at(
        store: &Memory,
        retention: &str,
        look: Look,
        now: &str,
        before: Option<&Pruning>,
    ) -> Result<Pruned, Error> {
        prune(
            store,
            &retention.parse().unwrap(),
            look,
            now.parse().unwrap(),
            before,
            None,
        )
        .await
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
        let pruned = prune(&store, &rules, Look::Thoroughly, now, None, None).await.unwrap();
        assert!(!pruned.undone.is_empty());
        assert_eq!(keys_of(&store.memory).len(), PLACE.len());
        assert_eq!(pruned.kept().len(), 5, "all of them can be restored still");
    }

    /// All of them of one day, and their store says when it wrote them.
    async fn busy() -> Memory {
        let store = Memory::default();
        for sequence in 1..=9 {
            let id: SnapshotId = format!("20261122T113{sequence}00Z-1.{sequence}-auto").parse().unwrap();
            let key = keys::snapshot(&id);
            store.write(&key, b"x").await.unwrap();
            store.written().insert(key, id.time);
        }
        let base = "snapshots/20261122T113100Z-1.1-auto.base";
        store.write(base, b"").await.unwrap();
        store.written().remove(base);
        store
    }

    const IN_2036: &str = "2036-11-22T12:00:00Z";

    #[tokio::test]
    async fn a_clock_ten_years_ahead_removes_nothing_of_a_store_that_says_when_it_wrote() {
        let store = busy().await;
        for look in [Look::Lightly, Look::Thoroughly] {
            let pruned = pruned_at(&store, "7d", look, IN_2036, None).await.unwrap();
            assert_eq!(pruned.plan.dropped, []);
            assert_eq!(pruned.pruning.unwrap().put_off, None, "there is nothing to put off");
        }
        assert_eq!(keys_of(&store).len(), 10);
    }

    #[tokio::test]
    async fn where_nothing_is_written_anew_the_claim_says_what_time_it_is() {
        let store = busy().await;
        let claim = "claims/1-aa.json";
        store.write(claim, b"{}").await.unwrap();
        store.written().insert(claim.to_owned(), IN_2036.parse().unwrap());
        let pruned = pruned_at(&store, "7d", Look::Thoroughly, IN_2036, None).await.unwrap();
        assert_eq!(pruned.pruning.unwrap().put_off, Some(IN_2036.parse().unwrap()));
    }

    #[tokio::test]
    async fn a_store_that_says_no_times_loses_nothing_to_a_clock_that_is_wrong_for_less_than_an_hour() {
        let store = busy().await;
        store.written().clear();
        let (minutes_on, an_hour_on) = ("2036-11-22T12:59:59Z", "2036-11-22T13:00:00Z");
        let run = async |now, before: Option<&Pruning>| {
            let pruned = pruned_at(&store, "7d", Look::Lightly, now, before).await.unwrap();
            (keys_of(&store).len(), pruned.pruning)
        };
        let (left, first) = run(IN_2036, None).await;
        let since = first.as_ref().unwrap().put_off;
        assert_eq!((left, since), (10, Some(IN_2036.parse().unwrap())));
        assert_eq!(run(minutes_on, first.as_ref()).await, (10, first.clone()));
        // The clock is right again.
        let (left, back) = run("2026-11-22T12:00:00Z", first.as_ref()).await;
        assert_eq!((left, back.as_ref().unwrap().put_off), (10, None));
        assert_eq!(run(an_hour_on, back.as_ref()).await.0, 10, "and begins anew");
        // It was right.
        let (left, last) = run(an_hour_on, first.as_ref()).await;
        assert_eq!((left, last.unwrap().put_off), (3, None));
    }

    #[tokio::test]
    async fn what_a_change_of_the_rules_asks_for_is_done_at_once() {
        let store = busy().await;
        let before = pruned(&store, "7d", Look::Lightly).await.unwrap().pruning;
        let again = async |before: Option<&Pruning>| {
            let now = "2026-11-22T12:00:00Z";
            pruned_at(&store, "last=1", Look::Lightly, now, before).await.unwrap()
        };
        assert_eq!(
            again(None).await.plan.dropped,
            [],
            "whether they have changed is not known"
        );
        assert_eq!(again(before.as_ref()).await.plan.dropped.len(), 7);
        assert_eq!(keys_of(&store).len(), 3);
    }
}
