//! What several destinations have → the newest snapshot that any of them can give whole. Age counts before order: only of
//! snapshots of one age is it the first destination's. Reads the stores.

use super::{Said, with_causes};
use crate::agent::arguments::RestorePolicy;
use crate::agent::init::subject::Subject;
use crate::agent::init::{Error, Init};
use crate::agent::restore::indexes_in;
use crate::agent::volume::look::VolumeState;
use crate::agent::volume::marker::INCOMING;
use crate::agent::volume::own::OwnFolder;
use crate::store::Error as StoreError;
use crate::store::indexes::Indexes;
use crate::store::snapshot::SnapshotId;
use std::cmp::Reverse;
use std::time::{Duration, Instant};

/// A snapshot, and the number of the destination that lists it.
pub(super) type Listed = (usize, SnapshotId);

/// Where a restore comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// The destination, by its number.
    pub(super) number: usize,
    /// Its newest snapshot that can be read, where that was looked at; else the newest that it lists.
    pub(super) newest: Option<SnapshotId>,
}

/// What came of looking for a snapshot that is whole.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// It.
    pub(super) found: Option<Listed>,
    /// Destinations that failed meanwhile, by their numbers.
    pub(super) failed: Vec<(usize, StoreError)>,
}

/// Merges the snapshots of destinations, each in its own order, the newest last: the newest first.
pub(super) fn newest_first(mut lists: Vec<(usize, Vec<SnapshotId>)>) -> impl Iterator<Item = Listed> {
    std::iter::from_fn(move || {
        let newest = lists
            .iter_mut()
            .max_by_key(|(number, list)| (list.last().map(SnapshotId::lateness), Reverse(*number)));
        newest.and_then(|(number, list)| Some((*number, list.pop()?)))
    })
}

/// The destination that a restore comes from. A destination whose answers turn out to be none is not among those that said
/// something any more.
pub(super) async fn newest(init: &Init<'_>, said: &mut [Said], subjects: &[Subject]) -> Result<Option<Source>, Error> {
    let listed = |said: &[Said]| {
        let each = said
            .iter()
            .enumerate()
            .filter_map(|(number, said)| Some((number, said.backup()?)));
        let latest = each.max_by_key(|(number, backup)| (backup.newest().map(|id| id.lateness()), Reverse(*number)));
        latest.map(|(number, backup)| Source {
            number,
            newest: backup.newest(),
        })
    };
    // Where only one has any, what can't be read of it is for the restore to go around.
    let each = said.iter().enumerate();
    let lists = each.filter_map(|(number, said)| Some((number, said.backup()?.with_named())));
    let lists: Vec<(usize, Vec<SnapshotId>)> = lists.filter(|(_, list)| !list.is_empty()).collect();
    // Except where an older snapshot than that would take the place of what the volume has.
    let is_older = |subject: &Subject| {
        let newest = lists
            .iter()
            .filter_map(|(_, list)| list.last())
            .map(|id| id.epoch)
            .max();
        subject.epoch() > 0 && newest > Some(subject.epoch())
    };
    let is_compared =
        lists.len() > 1 || init.arguments.restore == RestorePolicy::Always && subjects.iter().any(is_older);
    let (true, Some(first)) = (is_compared, subjects.first()) else {
        return Ok(listed(said));
    };
    let looked = first_whole(init, said, &first.own, newest_first(lists)).await;
    let is_needed = subjects
        .iter()
        .any(|subject| !matches!(subject.state, VolumeState::Initialised(_)));
    for (number, error) in looked.failed {
        match error {
            newer @ StoreError::Newer { .. } if is_needed => return Err(Error::NewerRelease(newer)),
            error => {
                if let Some(said) = said.get_mut(number) {
                    *said = Said::Nothing(with_causes(&error));
                }
            }
        }
    }
    let found = looked.found.map(|(number, id)| Source {
        number,
        newest: Some(id),
    });
    Ok(found.or_else(|| listed(said)))
}

/// The first of these that can be read to its end, with all that it builds on. A destination that fails is asked no more.
pub(super) async fn first_whole(
    init: &Init<'_>,
    said: &[Said],
    own: &OwnFolder,
    listed: impl Iterator<Item = Listed>,
) -> Looked {
    let mut looked = Looked::default();
    if let Err(error) = own.create() {
        // What can't be kept there is for the restore to say.
        tracing::warn!("{}", with_causes(&error));
        return looked;
    }
    for (number, id) in listed {
        let (Some(store), Some(backup)) = (init.stores.get(number), said.get(number).and_then(Said::backup)) else {
            continue;
        };
        if looked.failed.iter().any(|(failed, _)| *failed == number) {
            continue;
        }
        let folder = indexes_in(&own.join(INCOMING), store.as_ref());
        let indexes = Indexes::new(store.as_ref(), &folder).known(&backup.indexes);
        let left = init.deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.max(Duration::from_secs(1)), indexes.whole(&id)).await {
            Ok(Ok(_)) => {
                looked.found = Some((number, id));
                return looked;
            }
            Ok(Err(error @ (StoreError::Damaged { .. } | StoreError::NotFound { .. }))) => tracing::warn!(
                "{}; the newest that any destination can give is looked for",
                with_causes(&error)
            ),
            Ok(Err(error)) => looked.failed.push((number, error)),
            Err(_) => looked.failed.push((
                number,
                StoreError::Unreachable {
                    destination: store.destination(),
                    why: "it did not answer in time".to_owned(),
                },
            )),
        }
    }
    looked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_counts_before_order_and_each_destination_keeps_its_own_order() {
        let ids = |texts: &[&str]| -> Vec<SnapshotId> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let lists = vec![
            (
                0,
                ids(&[
                    "20261122T130000Z-1.1-auto",
                    "20261122T150000Z-2.1-auto",
                    "20261122T140000Z-2.2-auto",
                ]),
            ),
            (1, ids(&["20261122T130000Z-1.9-auto", "20261122T143000Z-2.3-auto"])),
            (2, Vec::new()),
        ];
        let merged: Vec<String> = newest_first(lists)
            .map(|(number, id)| format!("{number} {id}"))
            .collect();
        assert_eq!(
            merged,
            [
                "1 20261122T143000Z-2.3-auto",
                // Its clock was set back: what it counts is in order all the same.
                "0 20261122T140000Z-2.2-auto",
                "0 20261122T150000Z-2.1-auto",
                "0 20261122T130000Z-1.1-auto",
                "1 20261122T130000Z-1.9-auto",
            ]
        );
    }
}
