//! A snapshot, and the paths that were typed → what a restore brings, and where each file's content lies. Reads only.

use super::Error;
use super::access::{Access, Opened, Wanted};
use super::selection::select;
use crate::agent::amount;
use crate::agent::restore::knowledge;
use crate::agent::restore::plan::{Plan, of_listing};
use crate::store::history::History;
use crate::store::index::{Entry, Header, What};
use crate::store::indexes::Indexes;
use crate::store::keys;
use crate::store::snapshot::SnapshotId;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is to be restored.
pub(super) struct Order {
    /// None: a place made by hand, whose newest copies are all that there is.
    pub(super) snapshot: Option<(SnapshotId, Header)>,
    /// Each volume in a folder of its own.
    pub(super) plan: Plan,
    /// The newest snapshot that the plan was made of.
    pub(super) newest: Option<SnapshotId>,
    /// What history held.
    pub(super) history: History,
    /// Newer snapshots, and why they can't be read.
    pub(super) lost: Vec<(SnapshotId, String)>,
    /// Files that only the mirror's listing knows, because of that.
    pub(super) unverified: Vec<PathBuf>,
    /// Files that changed while they were read.
    torn: Vec<PathBuf>,
}

impl Order {
    /// What is meant by what was typed.
    pub(super) async fn of(access: &Access, opened: &Opened, at: &Wanted, paths: &[String]) -> Result<Self, Error> {
        let by_hand = opened.nothing.is_none() && opened.backup.snapshots.is_empty() && *at == Wanted::Newest;
        let mut order = if by_hand {
            Self::by_hand(access, opened).await?
        } else {
            let id = opened.snapshot(at)?;
            let wanted = match at {
                Wanted::Newest => knowledge::Wanted::Newest,
                Wanted::Point(_) | Wanted::At(_) => knowledge::Wanted::Exactly(id),
            };
            Self::of_snapshot(access, opened, wanted).await?
        };
        let bytes: Vec<&[u8]> = order
            .plan
            .items
            .iter()
            .map(|item| item.path.as_os_str().as_bytes())
            .collect();
        let mut chosen = select(paths, &bytes)?.into_iter();
        order.plan.items.retain(|_| chosen.next().unwrap_or(false));
        if let Some(stray) = order.plan.stray() {
            return Err(Error::Partly(format!(
                "{stray}, which no snapshot of ours has: nothing was restored"
            )));
        }
        let wanted: BTreeSet<&Path> = order.plan.items.iter().map(|item| item.path.as_path()).collect();
        order.torn.retain(|path| wanted.contains(path.as_path()));
        Ok(order)
    }

    async fn of_snapshot(access: &Access, opened: &Opened, wanted: knowledge::Wanted) -> Result<Self, Error> {
        let failed = |error| access.failed(error);
        let indexes = Indexes::new(&opened.store, opened.scratch.path());
        let backup = &opened.backup;
        let named = backup.state.as_ref().and_then(|state| state.last);
        let mut known = knowledge::read(&indexes, &backup.snapshots, named, wanted)
            .await
            .map_err(failed)?;
        if let (knowledge::Wanted::Exactly(_), None) = (wanted, &known.whole)
            && let Some((id, why)) = known.lost.pop()
        {
            return Err(Error::Nothing(format!(
                "the snapshot {id} can't be read: {why}; an older snapshot may be whole: vixens-backup snapshots lists them"
            )));
        }
        let history = History::list(&opened.store).await.map_err(failed)?;
        let newest = known.newest();
        let torn = known
            .whole
            .as_ref()
            .map(|(_, _, entries)| torn(entries))
            .unwrap_or_default();
        let mut folders = known.folders();
        if !known.lost.is_empty() {
            folders.extend(opened.folders.iter().cloned());
        }
        let is_settled = backup.pending.is_empty();
        let (mut items, mut unverified) = (Vec::new(), Vec::new());
        for folder in folders {
            let planned = known.plan(&opened.store, &folder, Some(&history), is_settled);
            let knowledge::Planned { plan, unverified: of } = planned.await.map_err(failed)?;
            unverified.extend(of.iter().map(|path| Path::new(&folder).join(path)));
            items.extend(below(&folder, plan).items);
        }
        let snapshot = known.whole.take().map(|(id, header, _)| (id, header));
        Ok(Self {
            plan: Plan {
                snapshot: snapshot.as_ref().map(|(id, _)| *id),
                items,
            },
            snapshot,
            newest,
            history,
            lost: known.lost,
            unverified,
            torn,
        })
    }

    async fn by_hand(access: &Access, opened: &Opened) -> Result<Self, Error> {
        let mut plan = Plan::default();
        for folder in &opened.folders {
            let found = of_listing(&opened.store, folder).await;
            plan.items
                .extend(below(folder, found.map_err(|error| access.failed(error))?).items);
        }
        Ok(Self {
            snapshot: None,
            plan,
            newest: None,
            history: History::default(),
            lost: Vec::new(),
            unverified: Vec::new(),
            torn: Vec::new(),
        })
    }

    /// The snapshot, or what there is instead.
    pub(super) fn name(&self) -> String {
        match &self.snapshot {
            Some((id, _)) => id.to_string(),
            None => "the newest copies of a place without snapshots".to_owned(),
        }
    }

    /// What a person should know about what is brought.
    pub(super) fn notes(&self, destination: &str) -> String {
        let mut notes = String::new();
        // Writing to a String does not fail.
        for (id, why) in &self.lost {
            let _ = writeln!(notes, "LOST: {id} can't be restored as it was: {why}");
        }
        for path in &self.unverified {
            let _ = writeln!(
                notes,
                "note: {} lies there, and no index that can be read knows it: nothing verified it",
                amount::name(path.as_os_str().as_bytes())
            );
        }
        if self.snapshot.is_none() && self.lost.is_empty() {
            let _ = writeln!(
                notes,
                "note: without an index nothing says what these files should be: only their sizes were compared"
            );
        }
        for path in &self.torn {
            let _ = writeln!(
                notes,
                "note: {} changed while it was backed up: look whether it is whole",
                amount::name(path.as_os_str().as_bytes())
            );
        }
        let databases = self.snapshot.iter().flat_map(|(_, header)| &header.databases);
        for database in databases.filter(|database| database.file.is_none()) {
            let _ = writeln!(
                notes,
                "note: the database {}/{} is not among the files: Litestream has it; restore it with `litestream restore \
                 -txid {}` from {destination}/{}",
                database.folder,
                database.path,
                database.txid,
                keys::database(&database.folder, &database.path)
            );
        }
        notes
    }
}

/// Files that changed while they were read, as a plan names them.
fn torn(entries: &[Entry]) -> Vec<PathBuf> {
    let torn = entries
        .iter()
        .filter(|entry| matches!(&entry.what, What::File(file) if file.torn));
    torn.map(|entry| PathBuf::from(OsStr::from_bytes(&entry.path)))
        .collect()
}

/// The plan of one volume, in a folder of its own.
fn below(folder: &str, mut plan: Plan) -> Plan {
    for item in &mut plan.items {
        // Joining an empty path would leave a slash at the end.
        item.path = if item.path.as_os_str().is_empty() {
            PathBuf::from(folder)
        } else {
            Path::new(folder).join(&item.path)
        };
    }
    plan
}
