//! What the owner wants kept, done to a place: lists it, asks [`retention::plan`], and deletes in its order. Only the
//! holder of the place may call this, with no backup under way; it never touches the mirror.

use crate::agent::arguments::Retention;
use crate::agent::snapshot::deletions::undeleted;
use crate::store::records::{Damage, Pin, decode};
use crate::store::retention::delay::{self, Turn};
use crate::store::retention::{self, Listing, Plan, Rules};
use crate::store::snapshot::SnapshotId;
use crate::store::state::Pruning;
use crate::store::{Depth, Error, Store, Undone, keys, listed, read_listed};
use jiff::Timestamp;
use std::path::Path;

mod twins;

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
/// `scratch`: a folder for what has to be read.
pub async fn prune(
    store: &dyn Store,
    retention: &Retention,
    look: Look,
    now: Timestamp,
    before: Option<&Pruning>,
    base: Option<SnapshotId>,
    scratch: &Path,
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
    let lost = twins::made_whole(store, scratch, &plan, &listing).await?;
    if !lost.is_empty() {
        listing.pins.extend(lost);
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
        let bytes = match read_listed(store, &key).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            // Its name may tell.
            Err(error) if error.is_damaged() => Vec::new(),
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
mod tests;
