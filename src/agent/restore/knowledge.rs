//! The indexes of a place, of which any may be damaged → what is known of the snapshot that a restore is to bring: all of it,
//! or as much as the others tell. Reads only.

use super::plan::{Plan, of_snapshot};
use crate::store::history::History;
use crate::store::index::{Entry, Header, What};
use crate::store::indexes::Indexes;
use crate::store::keys;
use crate::store::snapshot::SnapshotId;
use crate::store::{Depth, Error, Store, listed};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Which snapshot is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest: where its index is lost, as much of it as others tell.
    Newest,
    /// This one, and no other.
    Exactly(SnapshotId),
}

/// What is known.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// The newest of the wanted snapshots whose index can be read whole, and what it holds.
    pub whole: Option<(SnapshotId, Header, Vec<Entry>)>,
    /// Newer ones, the newest first, and why they can't be read.
    pub lost: Vec<(SnapshotId, String)>,
    /// Of the newest of those that still tells it: what has changed since the complete index that it builds on, which is lost.
    difference: Option<(SnapshotId, Vec<Entry>)>,
}

/// A plan, and what of it nothing verifies.
#[derive(Debug, Default)]
pub struct Planned {
    /// What is brought.
    pub plan: Plan,
    /// Files that only the mirror's listing knows.
    pub unverified: Vec<PathBuf>,
}

/// Reads what can be read. `snapshots` ascend. `named` is the newest that the place's summary names: one that is not among them
/// has lost its index.
pub async fn read(
    indexes: &Indexes<'_>,
    snapshots: &[SnapshotId],
    named: Option<SnapshotId>,
    wanted: Wanted,
) -> Result<Knowledge, Error> {
    let mut knowledge = Knowledge::default();
    let candidates: Vec<SnapshotId> = match wanted {
        Wanted::Exactly(id) => vec![id],
        Wanted::Newest => snapshots.iter().rev().copied().collect(),
    };
    let listed = snapshots.last().map(SnapshotId::point);
    // One that was published, and whose index is not listed any more: its twin may be there.
    let unlisted = named.filter(|named| wanted == Wanted::Newest && Some(named.point()) > listed);
    for id in unlisted.into_iter().chain(candidates) {
        match indexes.read(&id).await {
            Ok((header, entries)) => {
                knowledge.whole = Some((id, header, entries));
                break;
            }
            Err(error @ (Error::Damaged { .. } | Error::NotFound { .. })) => {
                knowledge.lost.push((id, error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    for (id, _) in &knowledge.lost {
        if knowledge.difference.is_none() && wanted == Wanted::Newest {
            knowledge.difference = match indexes.difference(id).await {
                Ok(difference) => difference.map(|entries| (*id, entries)),
                Err(Error::Damaged { .. } | Error::NotFound { .. }) => None,
                Err(error) => return Err(error),
            };
        }
    }
    Ok(knowledge)
}

impl Knowledge {
    /// The newest snapshot of which anything is known.
    #[must_use]
    pub fn newest(&self) -> Option<SnapshotId> {
        let whole = self.whole.as_ref().map(|(id, ..)| *id);
        self.difference.as_ref().map(|(id, _)| *id).or(whole)
    }

    /// The folders of the volumes that it knows.
    #[must_use]
    pub fn folders(&self) -> BTreeSet<String> {
        let whole = self.whole.iter().flat_map(|(_, _, entries)| entries);
        let difference = self.difference.iter().flat_map(|(_, entries)| entries);
        // A folder of the layout has a name that every store can hold.
        whole
            .chain(difference)
            .map(|entry| String::from_utf8_lossy(entry.place().0).into_owned())
            .collect()
    }

    /// What is brought onto the volume of this folder, which is forgotten here by that. Where indexes are lost and no backup is
    /// under way (`is_settled`), the mirror is listed too: files that only the lost ones knew are there. Without a history, all
    /// is taken to be in the mirror.
    pub async fn plan(
        &mut self,
        store: &dyn Store,
        folder: &str,
        history: Option<&History>,
        is_settled: bool,
    ) -> Result<Planned, Error> {
        let mut planned = Planned::default();
        if let Some((id, _, entries)) = &mut self.whole {
            planned.plan = of_snapshot(*id, taken(entries, folder), folder, history);
        }
        let mut gone = BTreeSet::new();
        if let Some((id, entries)) = &mut self.difference {
            let entries = taken(entries, folder);
            let is_gone = |entry: &&Entry| entry.what == What::Gone;
            let path = |entry: &Entry| PathBuf::from(OsStr::from_bytes(entry.place().1));
            gone = entries.iter().filter(is_gone).map(path).collect();
            let newer = of_snapshot(*id, entries, folder, history);
            planned.plan = planned.plan.beneath(newer, &gone);
        }
        if !self.lost.is_empty() && (is_settled || self.newest().is_none()) {
            let listing = listed(store, &keys::mirror(folder), Depth::All).await?;
            planned.unverified = planned.plan.add_unknown(&listing, folder, &gone);
        }
        planned.plan.snapshot = self.whole.as_ref().map(|(id, ..)| *id);
        Ok(planned)
    }
}

/// The entries of a volume, out of those of all.
fn taken(entries: &mut Vec<Entry>, folder: &str) -> Vec<Entry> {
    let is_of = |entry: &Entry| entry.place().0 == folder.as_bytes();
    let all = std::mem::take(entries);
    // Most places have one volume, and a volume may have half a million files.
    if all.iter().all(is_of) {
        return all;
    }
    let (of, others) = all.into_iter().partition(is_of);
    *entries = others;
    of
}
