//! A `restore-at` value → whether it is still to be served, and which snapshot it means. A value is served once,
//! wherever that was: the store's `served/` says so, and each volume's marker remembers.

use super::super::Init;
use super::super::subject::Subject;
use super::source::{Listed, first_whole, newest_first};
use super::{Said, Survey, with_causes};
use crate::agent::arguments::{InitArguments, RestoreAt};
use crate::agent::lease::inspect::Backup;
use crate::store::records::{Served, decode};
use crate::store::served::is_served;
use crate::store::snapshot::SnapshotId;
use crate::store::{self, Store, keys};

/// What the stores know of a value.
pub(super) enum LookedUp {
    /// It is new, and means this snapshot of this destination.
    Serve(Listed),
    /// It was served before, and meant this, where that can be read.
    Served(Option<SnapshotId>),
    /// It means nothing that is there.
    Unknown {
        /// What is.
        holds: String,
    },
}

/// What the stores are to be asked about `restore-at`.
pub(super) enum Wanted {
    /// A value that no marker knows.
    New(String),
    /// One that was served on a volume, and whose record in the store was not seen yet.
    Unconfirmed(String),
}

/// The value that the stores are to be asked about, if any.
pub(super) fn wanted(arguments: &InitArguments, subjects: &[Subject]) -> Option<Wanted> {
    let value = arguments.restore_at.as_ref().map(ToString::to_string);
    let is_known = |value: &String| {
        subjects.iter().all(|subject| {
            let marker = subject.marker.as_ref();
            marker.is_some_and(|marker| marker.served.contains(value))
        })
    };
    if let Some(value) = value.filter(|value| !is_known(value)) {
        return Some(Wanted::New(value));
    }
    let markers = subjects.iter().filter_map(|subject| subject.marker.as_ref());
    let serving = markers.into_iter().find_map(|marker| marker.serving.clone())?;
    Some(Wanted::Unconfirmed(serving.value))
}

/// A value that was served here, where every store has its record: any of them may be the only one that is left.
pub(super) async fn confirmed(init: &Init<'_>, survey: &Survey, value: &str) -> Option<String> {
    for (store, said) in init.stores.iter().zip(&survey.said) {
        if matches!(said, Said::Nothing(_)) || !matches!(is_served(store.as_ref(), value).await, Ok(true)) {
            return None;
        }
    }
    Some(value.to_owned())
}

/// The record that a value was served. That there is none is believed of a store that shows its place at the same time, where it
/// has a backup: one whose disk is not mounted says so of everything.
async fn read_served(store: &dyn Store, value: &str, has_a_backup: bool) -> Result<Option<Vec<u8>>, store::Error> {
    let key = keys::served(value);
    if has_a_backup {
        store::read_listed(store, &key).await
    } else {
        store::read_if_there(store, &key).await
    }
}

/// Asks every store about a new value. An error says why nobody knows.
pub(super) async fn look_up(
    init: &Init<'_>,
    survey: &Survey,
    subjects: &[Subject],
    value: &str,
) -> Result<LookedUp, String> {
    // One that has its record is enough; that none has is known only when all have answered.
    let mut unknown = None;
    for (store, said) in init.stores.iter().zip(&survey.said) {
        if let Said::Nothing(why) = said {
            unknown.get_or_insert(format!("whether restore-at {value} was served can't be asked: {why}"));
            continue;
        }
        let has_a_backup = said.backup().is_some();
        match read_served(store.as_ref(), value, has_a_backup).await {
            Ok(Some(bytes)) => {
                let served = decode::<Served>(&bytes).ok();
                return Ok(LookedUp::Served(served.map(|served| served.snapshot)));
            }
            Err(store::Error::Damaged { .. }) => return Ok(LookedUp::Served(None)),
            Ok(None) => {}
            Err(error) => {
                unknown.get_or_insert(with_causes(&error));
            }
        }
    }
    if let Some(why) = unknown {
        return Err(why);
    }
    let Some(at) = &init.arguments.restore_at else {
        return Ok(LookedUp::Served(None));
    };
    let lists: Vec<(usize, Vec<SnapshotId>)> = survey
        .backups()
        .map(|(number, backup)| (number, meant(at, &backup.snapshots)))
        .filter(|(_, list)| !list.is_empty())
        .collect();
    let Some(first) = newest_first(lists.clone()).next() else {
        let holds = survey.backups().map(|(number, backup)| {
            let destination = init.stores.get(number).map(|store| store.destination());
            holds(&destination.unwrap_or_default(), backup)
        });
        let holds: Vec<String> = holds.collect();
        return Ok(LookedUp::Unknown {
            holds: if holds.is_empty() {
                "no destination has a snapshot".to_owned()
            } else {
                holds.join("; ")
            },
        });
    };
    // Where only one has it, what can't be read of it is told by the restore.
    let (true, Some(subject)) = (lists.len() > 1, subjects.first()) else {
        return Ok(LookedUp::Serve(first));
    };
    let looked = first_whole(init, &survey.said, &subject.own, newest_first(lists)).await;
    match looked.failed.first() {
        Some((_, error)) => Err(with_causes(error)),
        None => Ok(LookedUp::Serve(looked.found.unwrap_or(first))),
    }
}

fn holds(destination: &str, backup: &Backup) -> String {
    match (backup.snapshots.first(), backup.snapshots.last()) {
        (Some(first), Some(last)) => {
            format!(
                "{destination} has {} snapshots, {first} to {last}",
                backup.snapshots.len()
            )
        }
        _ => format!("{destination} has no snapshot"),
    }
}

/// The snapshots that a value may mean, the newest last: the one it names, or those that are no newer than its time. Ids ascend.
fn meant(at: &RestoreAt, snapshots: &[SnapshotId]) -> Vec<SnapshotId> {
    let named = match at {
        RestoreAt::Snapshot(id) => id.parse().ok().map(|id: SnapshotId| id.point()),
        RestoreAt::Time(_) => None,
    };
    let is_meant = |known: &&SnapshotId| match at {
        RestoreAt::Snapshot(_) => Some(known.point()) == named,
        RestoreAt::Time(time) => known.time <= *time,
    };
    snapshots.iter().filter(is_meant).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Vec<SnapshotId> {
        [
            "20261122T130000Z-1.1-auto",
            "20261122T140000Z-1.2-auto",
            "20261122T150000Z-2.1-final",
        ]
        .into_iter()
        .map(|id| id.parse().unwrap())
        .collect()
    }

    fn means(value: &str) -> Option<String> {
        meant(&value.parse().unwrap(), &ids()).last().map(ToString::to_string)
    }

    #[test]
    fn a_time_means_the_newest_snapshot_at_or_before_it() {
        assert_eq!(
            means("2026-11-22T14:00:00Z").as_deref(),
            Some("20261122T140000Z-1.2-auto")
        );
        assert_eq!(
            means("2026-11-22T14:59:59Z").as_deref(),
            Some("20261122T140000Z-1.2-auto")
        );
        assert_eq!(
            means("2027-01-01T00:00:00Z").as_deref(),
            Some("20261122T150000Z-2.1-final")
        );
        assert_eq!(means("2026-11-22T12:59:59Z"), None);
    }

    #[test]
    fn an_id_means_that_snapshot_or_nothing() {
        assert_eq!(
            means("20261122T140000Z-1.2-auto").as_deref(),
            Some("20261122T140000Z-1.2-auto")
        );
        assert_eq!(means("20261122T140000Z-1.3-auto"), None);
    }
}
