//! What a place holds and what its owner wants kept → which snapshots stay, and which objects can go. Pure: the caller
//! lists, and deletes in the order of [`Plan::steps`].
//!
//! Three laws, under test for any plan: a snapshot that stays can be restored whole; the newest one and every pinned
//! one stays; and planning again after the deletions drops nothing more.
//!
//! **What stays.** A span such as `7d` means that every moment of the last seven days has a state to go back to. So a
//! snapshot grows old from when the *next* one was made, not from when it was made itself: the last backup of an app
//! that was off for a month stays for seven more days once the app is back. Machine-made snapshots (`auto`,
//! `scheduled`) are thinned within the span: all for an hour, the newest of each hour for a day, the newest of each day
//! after. Counts (`last`, `hourly`, …) keep the newest of so many periods that have one. What stays keeps the index
//! that it builds on, which is a snapshot too.
//!
//! **Two generations.** Beside the complete index that the newest snapshot builds on, the complete one before it stays, a whole
//! snapshot like any other: the twin of the newer is a difference to it (see [`super::index`]). So whatever single object is
//! lost, the newest snapshot can be read: of a complete index nothing is lost, of a difference that one backup, and of a file its
//! newest version. An older complete index whose predecessor goes has its twin made complete before (see [`Plan::bereft`]).
//!
//! **Clocks.** Order is by epoch and sequence alone. How old a snapshot is, is said by our clock and by the store's, and the
//! smaller age counts, which is never above that of one before it (see [`age`]). A run that would remove most of what is
//! there all the same is put off (see [`delay`]).
//!
//! **History.** `history/<B>/f` is what the backup B replaced. The content of `f` in a snapshot S lies with the smallest
//! B > S that has `f`, and else in the mirror. So of all that history has of `f` between two snapshots that stay, the
//! first is needed, by the earlier snapshot, and the others by none; what is older than every snapshot that stays is
//! needed by none either. Nothing has to be moved when snapshots between are thinned: the first simply remains.

use super::keys::{self, SnapshotObject};
use super::snapshot::{Kind, Point, SnapshotId};
use super::{Error, Object};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

mod age;
pub mod delay;

/// Within this time every snapshot stays.
const ALL: SignedDuration = SignedDuration::from_hours(1);
/// Within this time the newest of each hour stays; after it, the newest of each day. What somebody asked for stays at
/// least as long, whatever the counts say.
const HOURLY: SignedDuration = SignedDuration::from_hours(24);

/// What a restore set aside stays for so long at least: `init` says so when it does.
const ASIDE_STAYS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What the owner wants kept: the union of all that is set. Where nothing is, only the newest snapshot stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Every moment of this span can be gone back to, thinned.
    pub within: Option<Duration>,
    /// The newest ones.
    pub last: Option<u32>,
    /// The newest of each of so many hours.
    pub hourly: Option<u32>,
    /// The newest of each of so many days.
    pub daily: Option<u32>,
    /// The newest of each of so many weeks.
    pub weekly: Option<u32>,
    /// The newest of each of so many months.
    pub monthly: Option<u32>,
    /// Bytes that history may hold: the oldest snapshots go until it fits.
    pub history: Option<u64>,
}

/// What a place holds, as listings tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Whole snapshots.
    pub indexes: BTreeSet<SnapshotId>,
    /// Those whose index is complete in itself.
    pub bases: BTreeSet<SnapshotId>,
    /// Pinned snapshots.
    pub pins: BTreeSet<SnapshotId>,
    /// What history holds. In no order.
    pub history: Vec<Kept>,
    /// When the indexes were written, where the store says so.
    pub written: BTreeMap<SnapshotId, Timestamp>,
    /// What the store's clock has reached: the newest time that it says of anything.
    pub clock: Option<Timestamp>,
}

/// One object of history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// The file in the mirror that it was: folder and stored name. For what a restore set aside: its name below the
    /// backup's history, which no file of the mirror has.
    pub file: String,
    /// The backup that replaced it.
    pub backup: SnapshotId,
    /// In bytes.
    pub size: u64,
}

impl Listing {
    /// Takes in a listing of `snapshots/`. A name of a newer release is an error: nothing may be dropped that it may need.
    pub fn snapshots(&mut self, destination: &str, objects: &[Object]) -> Result<(), Error> {
        for object in objects {
            self.saw(object);
            match keys::of_snapshot(&object.name) {
                SnapshotObject::Index(id) => {
                    self.indexes.insert(id);
                    self.written.extend(object.written.map(|written| (id, written)));
                }
                SnapshotObject::Base(id) => {
                    self.bases.insert(id);
                }
                SnapshotObject::Pending(_) | SnapshotObject::Foreign => {}
                SnapshotObject::Newer => return Err(keys::newer(destination, &object.name)),
            }
        }
        Ok(())
    }

    /// Takes in when the store has written something.
    pub fn saw(&mut self, object: &Object) {
        self.clock = self.clock.max(object.written);
    }

    /// How old each snapshot is, in order.
    fn ages(&self, all: &[SnapshotId], now: Timestamp) -> Vec<SignedDuration> {
        age::ages(all, &self.written, now, self.clock)
    }

    /// Takes in an object of a listing of `history/`. What no backup of ours can have put there stays where it is.
    pub fn history(&mut self, object: &Object) {
        if let Some((id, file)) = object.name.split_once('/')
            && let Ok(backup) = id.parse()
        {
            self.history.push(Kept {
                file: file.to_owned(),
                backup,
                size: object.size,
            });
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Snapshots that stay, the newest last.
    pub kept: Vec<SnapshotId>,
    /// Snapshots that go, the newest last.
    pub dropped: Vec<SnapshotId>,
    /// Names below `snapshots/`: indexes that build on others.
    differences: Vec<String>,
    /// Names below `snapshots/`: indexes that others build on.
    bases: Vec<String>,
    /// Names below `snapshots/`: marks of indexes that are gone.
    marks: Vec<String>,
    /// Names below `history/`.
    history: Vec<String>,
    /// What history will hold.
    pub history_bytes: u64,
    /// By how much that exceeds the byte budget all the same: the newest snapshot, the pinned ones and the index that
    /// they build on need it. A complete index with the next backup frees what the old one holds.
    pub over_budget: u64,
}

impl Plan {
    /// Deletions, as folders and the names below them: each must be done before the next begins, so that wherever it
    /// ends, every snapshot that is still listed can be restored.
    #[must_use]
    pub fn steps(&self) -> Vec<(&'static str, &[String])> {
        let Self {
            kept: _,
            dropped: _,
            differences,
            bases,
            marks,
            history,
            history_bytes: _,
            over_budget: _,
        } = self;
        [
            (keys::SNAPSHOTS, differences),
            (keys::SNAPSHOTS, bases),
            (keys::SNAPSHOTS, marks),
            (keys::HISTORY, history),
        ]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(folder, names)| (folder, names.as_slice()))
        .collect()
    }
}

impl Plan {
    /// Complete indexes that stay, each with the one before it, which goes: its twin may be a difference to that one.
    #[must_use]
    pub fn bereft(&self, listing: &Listing) -> Vec<(SnapshotId, SnapshotId)> {
        let complete: Vec<SnapshotId> = listing.indexes.intersection(&listing.bases).copied().collect();
        let pairs = complete.windows(2).map(|pair| (pair[1], pair[0]));
        pairs
            .filter(|(after, before)| self.kept.contains(after) && self.dropped.contains(before))
            .collect()
    }
}

impl Rules {
    /// Of these, what has nothing to do with clocks: every snapshot stays, as far as the byte budget allows.
    #[must_use]
    pub fn without_ages(self) -> Self {
        Self {
            last: Some(u32::MAX),
            ..self
        }
    }
}

/// Whether these rules would have most of the snapshots go, whatever history may hold.
#[must_use]
pub fn is_sweeping(rules: &Rules, listing: &Listing, now: Timestamp) -> bool {
    let unlimited = Rules {
        history: None,
        ..*rules
    };
    plan(&unlimited, listing, now).dropped.len() > listing.indexes.len() / 2
}

/// What stays and what goes.
#[must_use]
pub fn plan(rules: &Rules, listing: &Listing, now: Timestamp) -> Plan {
    let all: Vec<SnapshotId> = listing.indexes.iter().copied().collect();
    let ages = listing.ages(&all, now);
    let wanted = wanted(rules, &all, &ages, &age::times(&all, &listing.written, now));
    let age_of = |backup: &SnapshotId| {
        // It is as old as the first snapshot that has it, at least.
        let position = all.partition_point(|id| id.point() < backup.point());
        ages.get(position).copied().unwrap_or(SignedDuration::ZERO)
    };
    let must = |id: &SnapshotId| listing.pins.contains(id) || all.last() == Some(id);

    let mut history: Vec<&Kept> = listing.history.iter().collect();
    history.sort_unstable_by(|a, b| (&a.file, a.backup.point(), a.backup).cmp(&(&b.file, b.backup.point(), b.backup)));
    // The oldest of them go first, where history has a budget.
    let droppable: Vec<SnapshotId> = wanted.iter().copied().filter(|id| !must(id)).collect();
    let without = |count: usize| {
        let sacrificed: HashSet<&SnapshotId> = droppable[..count].iter().collect();
        let chosen = all
            .iter()
            .filter(|id| must(id) || (wanted.contains(id) && !sacrificed.contains(id)));
        let kept = with_bases(chosen, listing);
        let needed = needed(&history, &kept, &listing.pins, age_of);
        let bytes: u64 = history
            .iter()
            .zip(&needed)
            .filter(|(_, needed)| **needed)
            .map(|(kept, _)| kept.size)
            .sum();
        (kept, needed, bytes)
    };
    let budget = rules.history.unwrap_or(u64::MAX);
    // The more go, the less history holds: look for the fewest that fit, or that come as close as all of them would.
    let (mut too_few, mut enough) = (0, droppable.len());
    let within_reach = if budget == u64::MAX {
        budget
    } else {
        budget.max(without(enough).2)
    };
    while too_few < enough {
        let middle = usize::midpoint(too_few, enough);
        if without(middle).2 <= within_reach {
            enough = middle;
        } else {
            too_few = middle + 1;
        }
    }
    let (kept, needed, bytes) = without(enough);

    let dropped: Vec<SnapshotId> = all.iter().copied().filter(|id| !kept.contains(id)).collect();
    let (bases, differences): (Vec<SnapshotId>, Vec<SnapshotId>) =
        dropped.iter().partition(|id| listing.bases.contains(id));
    let index = |id: &SnapshotId| format!("{id}.json");
    let dangling = |id: &&SnapshotId| !kept.contains(id) && all.last().is_some_and(|newest| *id < newest);
    Plan {
        differences: differences.iter().map(index).collect(),
        bases: bases.iter().map(index).collect(),
        marks: listing
            .bases
            .iter()
            .filter(dangling)
            .map(|id| format!("{id}.base"))
            .collect(),
        history: history
            .iter()
            .zip(needed)
            .filter(|(_, needed)| !needed)
            .map(|(kept, _)| format!("{}/{}", kept.backup, kept.file))
            .collect(),
        history_bytes: bytes,
        over_budget: bytes.saturating_sub(budget),
        kept: kept.into_iter().collect(),
        dropped,
    }
}

/// Whether nobody asked for it.
fn is_machine_made(id: &SnapshotId) -> bool {
    matches!(id.kind, Kind::Auto | Kind::Scheduled)
}

/// The snapshots that the rules want, whatever they cost. `times` say of which period each is.
fn wanted(rules: &Rules, all: &[SnapshotId], ages: &[SignedDuration], times: &[Timestamp]) -> BTreeSet<SnapshotId> {
    let mut wanted: BTreeSet<SnapshotId> = all.last().into_iter().copied().collect();
    let newest_first = || all.iter().zip(times).rev();
    // Of machine-made ones that grow old, the newest of each period stays.
    let newest_of = |period: Period| -> HashSet<SnapshotId> {
        let mut seen = HashSet::new();
        newest_first()
            .filter(|(id, _)| is_machine_made(id))
            .filter(|(_, time)| seen.insert(period(**time)))
            .map(|(id, _)| *id)
            .collect()
    };
    let (of_hours, of_days) = (newest_of(hour), newest_of(day));
    for (position, id) in all.iter().enumerate() {
        let age = ages[position];
        let superseded = ages.get(position + 1).copied().unwrap_or(SignedDuration::ZERO);
        let asked_for = !is_machine_made(id);
        let within = rules
            .within
            .is_some_and(|within| superseded < SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX));
        let thinned = age < ALL
            || if age < HOURLY {
                of_hours.contains(id)
            } else {
                of_days.contains(id)
            };
        // The one that the span begins with is the only state of its time.
        let begins = rules
            .within
            .is_some_and(|within| age >= SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX));
        if within && (thinned || asked_for || begins) || asked_for && superseded < HOURLY {
            wanted.insert(*id);
        }
    }
    let last = usize::try_from(rules.last.unwrap_or(0)).unwrap_or(usize::MAX);
    wanted.extend(all.iter().rev().take(last));
    let counts: [(Option<u32>, Period); 4] = [
        (rules.hourly, hour),
        (rules.daily, day),
        (rules.weekly, week),
        (rules.monthly, month),
    ];
    for (count, period) in counts {
        let mut left = count.unwrap_or(0);
        let mut seen = None;
        for (id, time) in newest_first() {
            let period = period(*time);
            if left > 0 && seen != Some(period) {
                seen = Some(period);
                left -= 1;
                wanted.insert(*id);
            }
        }
    }
    wanted
}

/// A number for each hour, day, ….
type Period = fn(Timestamp) -> i64;

fn hour(time: Timestamp) -> i64 {
    time.as_second().div_euclid(3_600)
}

fn day(time: Timestamp) -> i64 {
    time.as_second().div_euclid(86_400)
}

/// Weeks begin on Monday; 1 January 1970 was a Thursday.
fn week(time: Timestamp) -> i64 {
    (day(time) + 3).div_euclid(7)
}

fn month(time: Timestamp) -> i64 {
    let date = time.to_zoned(jiff::tz::TimeZone::UTC).date();
    i64::from(date.year()) * 12 + i64::from(date.month())
}

/// The chosen snapshots, and what their indexes build on: the newest complete index at or before each, of its epoch.
/// Where none is marked as complete, everything of the epoch before it may be it, and stays. Before the one that the newest
/// snapshot builds on, the complete one of whatever epoch stays too.
fn with_bases<'a>(chosen: impl Iterator<Item = &'a SnapshotId>, listing: &Listing) -> BTreeSet<SnapshotId> {
    let mut kept = BTreeSet::new();
    for id in chosen {
        kept.insert(*id);
        let epoch: Vec<&SnapshotId> = listing
            .indexes
            .range(..=*id)
            .rev()
            .take_while(|other| other.epoch == id.epoch)
            .collect();
        match epoch.iter().find(|other| listing.bases.contains(other)) {
            Some(base) => {
                kept.insert(**base);
            }
            None => kept.extend(epoch.into_iter().copied()),
        }
    }
    let newest = listing.indexes.last();
    let is_of_newest = |id: &&SnapshotId| newest.is_some_and(|newest| newest.epoch == id.epoch);
    let complete = || listing.indexes.iter().rev().filter(|id| listing.bases.contains(id));
    if let Some(base) = complete().find(is_of_newest) {
        kept.extend(complete().find(|before| *before < base));
    }
    kept
}

/// For each object of history, sorted by file and then by backup: whether a kept snapshot may need it.
fn needed(
    history: &[&Kept],
    kept: &BTreeSet<SnapshotId>,
    pins: &BTreeSet<SnapshotId>,
    age_of: impl Fn(&SnapshotId) -> SignedDuration,
) -> Vec<bool> {
    let points: Vec<Point> = kept.iter().map(SnapshotId::point).collect();
    // What was set aside belongs to no snapshot: it goes with the ones of its time, which a pin does not prolong, and not
    // before its owner has had a month to look for it.
    let oldest_unpinned = kept.iter().find(|id| !pins.contains(id)).map(SnapshotId::point);
    let mut before: Option<(&str, usize)> = None;
    history
        .iter()
        .map(|object| {
            let point = object.backup.point();
            if object.file.starts_with(keys::ASIDE) {
                let is_young = age_of(&object.backup) < ASIDE_STAYS;
                return is_young || oldest_unpinned.is_some_and(|oldest| oldest < point);
            }
            // So many kept snapshots are older than that backup; the newest of them is the one that may need it.
            let older = points.partition_point(|kept| *kept < point);
            let is_first = before != Some((&object.file, older));
            before = Some((&object.file, older));
            older > 0 && is_first
        })
        .collect()
}

#[cfg(test)]
mod tests;
