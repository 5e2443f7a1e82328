//! A snapshot's index, or a listing → what a restore brings onto one volume, and where each file's content lies.

use crate::agent::amount;
use crate::store::history::{History, file_of};
use crate::store::index::{Attributes, Entry, Standing, What};
use crate::store::keys::{self, OWN_FOLDER};
use crate::store::snapshot::SnapshotId;
use crate::store::{Depth, Error, Object, Store, listed};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a restore brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The snapshot; none: a listing.
    pub snapshot: Option<SnapshotId>,
    /// In the order of their paths: a folder before what is in it.
    pub items: Vec<Item>,
}

/// One path of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Relative to the volume; empty for its root.
    pub path: PathBuf,
    /// What is to be there.
    pub what: Planned,
    /// Whether the volume had it.
    pub standing: Standing,
}

/// What is to be at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// A file.
    File(Content, Option<Attributes>),
    /// A folder.
    Folder(Attributes),
    /// A link and its target.
    Link(PathBuf, Attributes),
    /// Nothing: nobody has it any more, or there is no room for it. What is there stays.
    Missing,
}

/// A file's content: where it lies, and how it is known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its key in the store.
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// None for a place made by hand.
    pub sha256: Option<[u8; 32]>,
}

impl Plan {
    /// Files and their bytes.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        self.items.iter().fold((0, 0), |(files, bytes), item| match &item.what {
            Planned::File(content, _) => (files + 1, bytes + content.size),
            Planned::Folder(_) | Planned::Link(..) | Planned::Missing => (files, bytes),
        })
    }

    /// A path that leads out of the folder that is restored to, and why: no backup of ours has one, so an index that
    /// does is not to be followed anywhere.
    #[must_use]
    pub fn stray(&self) -> Option<String> {
        let links: BTreeSet<&Path> = self
            .items
            .iter()
            .filter(|item| matches!(item.what, Planned::Link(..)))
            .map(|item| item.path.as_path())
            .collect();
        self.items.iter().find_map(|item| {
            let path = || amount::name(item.path.as_os_str().as_bytes());
            if item.path.starts_with(OWN_FOLDER) {
                return Some(format!("{} is where vixens-backup keeps its own files", path()));
            }
            // Its key is where it is staged.
            let leads_out = |key: &str| key.split('/').any(|part| matches!(part, "" | "." | ".."));
            if matches!(&item.what, Planned::File(content, _) if leads_out(&content.key)) {
                return Some(format!("the stored name of {} leads out of its place", path()));
            }
            let is_below_a_link = !links.is_empty() && item.path.ancestors().skip(1).any(|above| links.contains(above));
            is_below_a_link.then(|| format!("{} lies below a link of the same snapshot", path()))
        })
    }

    /// Lays what is newer over this plan: its items win, what is `gone` of it goes, and so does what can't be beside either.
    #[must_use]
    pub fn beneath(self, newer: Self, gone: &BTreeSet<PathBuf>) -> Self {
        let is_folder = |item: &Item| matches!(item.what, Planned::Folder(_));
        let over: BTreeMap<PathBuf, Item> = newer.items.into_iter().map(|item| (item.path.clone(), item)).collect();
        let bars = |path: &Path| {
            let is_below_a_file = |above: &Path| over.get(above).is_some_and(|item| !is_folder(item));
            over.contains_key(path) || gone.contains(path) || path.ancestors().skip(1).any(is_below_a_file)
        };
        let has_below = |path: &Path| {
            let next = over.range::<Path, _>((Bound::Excluded(path), Bound::Unbounded)).next();
            next.is_some_and(|(below, _)| below.starts_with(path))
        };
        let mut items: Vec<Item> = self
            .items
            .into_iter()
            .filter(|item| !bars(&item.path) && (is_folder(item) || !has_below(&item.path)))
            .collect();
        items.extend(over.into_values());
        items.sort_by(|a, b| a.path.cmp(&b.path));
        Self {
            snapshot: newer.snapshot.or(self.snapshot),
            items,
        }
    }

    /// Adds what a listing of the mirror has and this plan does not know, nor knows to be `gone`: when the index that knows it
    /// is lost. Nothing tells what such a file should be. Returns their paths.
    pub fn add_unknown(&mut self, listing: &[Object], folder: &str, gone: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
        let known: BTreeSet<&str> = self
            .items
            .iter()
            .filter_map(|item| match &item.what {
                Planned::File(content, _) => Some(file_of(&content.key)),
                Planned::Folder(_) | Planned::Link(..) | Planned::Missing => None,
            })
            .collect();
        let unknown = Self {
            snapshot: None,
            items: unverified(folder, listing)
                .filter(|item| match &item.what {
                    Planned::File(content, _) => !known.contains(content.key.as_str()),
                    _ => false,
                })
                .filter(|item| !gone.contains(&item.path) && !is_of_a_file_manager(&item.path))
                .collect(),
        };
        let paths: BTreeSet<PathBuf> = unknown.items.iter().map(|item| item.path.clone()).collect();
        let this = std::mem::take(self);
        // What is known stays, so it is laid over what is not.
        *self = unknown.beneath(this, gone);
        let added = self.items.iter().filter(|item| paths.contains(&item.path));
        added.map(|item| item.path.clone()).collect()
    }
}

/// What file managers and indexers of a storage leave in every folder that they look into.
fn is_of_a_file_manager(path: &Path) -> bool {
    path.components().any(|part| {
        let part = part.as_os_str().as_bytes();
        part.starts_with(b"._") || [b".DS_Store".as_slice(), b"@eaDir", b"Thumbs.db", b"desktop.ini"].contains(&part)
    })
}

/// What a snapshot brings onto the volume of this folder. Without a history, everything is taken to be in the mirror.
#[must_use]
pub fn of_snapshot(id: SnapshotId, entries: Vec<Entry>, folder: &str, history: Option<&History>) -> Plan {
    let mut items = Vec::new();
    for entry in entries {
        let (of, path) = entry.place();
        if of != folder.as_bytes() {
            continue;
        }
        let path = PathBuf::from(OsStr::from_bytes(path));
        let name = entry.stored_name().map(std::borrow::Cow::into_owned);
        let standing = entry.standing;
        let what = match (entry.what, name) {
            (What::File(file), Some(name)) => {
                let key = match history {
                    Some(history) => history.key(&id, folder, &name),
                    None => format!("{}/{name}", keys::mirror(folder)),
                };
                Planned::File(
                    Content {
                        key,
                        size: file.size,
                        sha256: Some(file.sha256),
                    },
                    Some(file.attributes),
                )
            }
            (What::Folder(attributes), _) => Planned::Folder(attributes),
            (What::Link(target, attributes), _) => Planned::Link(PathBuf::from(OsStr::from_bytes(&target)), attributes),
            (What::File(_) | What::Gone, _) => continue,
        };
        items.push(Item { path, what, standing });
    }
    Plan {
        snapshot: Some(id),
        items,
    }
}

/// What a place without snapshots brings: the files of its mirror.
pub async fn of_listing(store: &dyn Store, folder: &str) -> Result<Plan, Error> {
    let listing = listed(store, &keys::mirror(folder), Depth::All).await?;
    Ok(Plan {
        snapshot: None,
        items: unverified(folder, &listing).collect(),
    })
}

/// Files of a mirror, by a listing of it.
fn unverified(folder: &str, listing: &[Object]) -> impl Iterator<Item = Item> {
    let mirror = keys::mirror(folder);
    let files = listing.iter().filter(|object| {
        !object.name.starts_with(keys::NAMES)
            && !keys::is_partial(&object.name)
            && !Path::new(&object.name).starts_with(OWN_FOLDER)
            && object
                .name
                .split('/')
                .all(|part| !part.is_empty() && part != "." && part != "..")
    });
    files.map(move |object| Item {
        standing: Standing::Live,
        path: PathBuf::from(&object.name),
        what: Planned::File(
            Content {
                key: format!("{mirror}/{}", object.name),
                size: object.size,
                sha256: None,
            },
            None,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, key: &str) -> Item {
        let content = Content {
            key: key.to_owned(),
            size: 1,
            sha256: None,
        };
        Item {
            standing: Standing::Live,
            path: path.into(),
            what: Planned::File(content, None),
        }
    }

    fn stray(items: Vec<Item>) -> Option<String> {
        Plan { snapshot: None, items }.stray()
    }

    #[test]
    fn a_plan_that_leads_out_of_its_folder_is_told() {
        let link = || Item {
            standing: Standing::Live,
            path: "config/a".into(),
            what: Planned::Link("/etc".into(), Attributes::default()),
        };
        let beside = vec![link(), file("config/a-b", "x"), file("config/b/c", "x")];
        assert_eq!(stray(beside), None);
        for (items, why) in [
            (
                vec![link(), file("config/a/x/passwd", "x")],
                "config/a/x/passwd lies below a link of the same snapshot",
            ),
            (
                vec![file(".vixens-backup/volume.json", "x")],
                ".vixens-backup/volume.json is where vixens-backup keeps its own files",
            ),
            (
                vec![file("a", "config/../../a")],
                "the stored name of a leads out of its place",
            ),
            (
                vec![file("a", "config//a")],
                "the stored name of a leads out of its place",
            ),
        ] {
            assert_eq!(stray(items).as_deref(), Some(why));
        }
    }
}
