//! A snapshot, and the paths that were typed → what a restore brings, and where each file's content lies. Reads only.

use super::Error;
use super::access::{Access, Opened, Wanted};
use super::selection::select;
use crate::agent::amount;
use crate::agent::restore::plan::{History, Indexes, Plan, Planned, of_listing, of_snapshot};
use crate::store::index::{Entry, Header, What};
use crate::store::snapshot::SnapshotId;
use crate::store::{Undone, keys};
use std::collections::{BTreeSet, HashMap};
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
            Self::of_snapshot(access, opened, opened.snapshot(at)?).await?
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

    async fn of_snapshot(access: &Access, opened: &Opened, id: SnapshotId) -> Result<Self, Error> {
        let failed = |error| access.failed(error);
        let indexes = Indexes::new(&opened.store, opened.scratch.path());
        let (header, entries) = indexes.read(&id).await.map_err(failed)?;
        let history = History::list(&opened.store).await.map_err(failed)?;
        let folders: BTreeSet<&[u8]> = entries.iter().map(|entry| entry.place().0).collect();
        let mut items = Vec::new();
        for folder in folders {
            // A folder of the layout has a name that every store can hold.
            let folder = String::from_utf8_lossy(folder);
            let plan = of_snapshot(id, entries.clone(), &folder, Some(&history));
            items.extend(below(&folder, plan).items);
        }
        Ok(Self {
            snapshot: Some((id, header)),
            plan: Plan {
                snapshot: Some(id),
                items,
            },
            torn: torn(&entries),
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
            torn: Vec::new(),
        })
    }

    /// Leaves out what could not be had, and says of each file why.
    pub(super) fn lose(&mut self, undone: &[Undone]) -> Vec<(PathBuf, String)> {
        let why: HashMap<&str, &str> = undone
            .iter()
            .map(|undone| (undone.name.as_str(), undone.why.as_str()))
            .collect();
        let mut lost = Vec::new();
        self.plan.items.retain(|item| {
            let Planned::File(content, _) = &item.what else {
                return true;
            };
            let Some(why) = why.get(content.key.as_str()) else {
                return true;
            };
            lost.push((item.path.clone(), format!("{why} ({})", content.key)));
            false
        });
        lost
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
        if self.snapshot.is_none() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::restore::plan::{Content, Item};

    fn file(path: &str) -> Item {
        let content = Content {
            key: path.to_owned(),
            size: 1,
            sha256: None,
        };
        Item {
            path: path.into(),
            what: Planned::File(content, None),
        }
    }

    #[test]
    fn what_could_not_be_had_is_left_out_and_named() {
        let mut order = Order {
            snapshot: None,
            plan: Plan {
                snapshot: None,
                items: vec![file("config/a"), file("config/b")],
            },
            torn: Vec::new(),
        };
        let undone = Undone {
            name: "config/a".to_owned(),
            why: "size or SHA-256 differs".to_owned(),
        };
        let lost = order.lose(&[undone]);
        assert_eq!(
            lost,
            [(
                PathBuf::from("config/a"),
                "size or SHA-256 differs (config/a)".to_owned()
            )]
        );
        assert_eq!(order.plan.items, [file("config/b")]);
    }
}
