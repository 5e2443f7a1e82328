//! A snapshot's index, or a listing → what a restore brings onto one volume, and where each file's content lies.

use crate::agent::amount;
use crate::store::index::{Attributes, Entry, Header, IndexReader, Totals, What, merged};
use crate::store::keys::{self, OWN_FOLDER};
use crate::store::records::Damage;
use crate::store::snapshot::SnapshotId;
use crate::store::{Contents, Depth, Error, Store, listed, unwatched};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
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
            Planned::Folder(_) | Planned::Link(..) => (files, bytes),
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
}

/// What `history/` holds: for each stored file (folder and name), the backups that replaced it, ascending.
#[derive(Clone, Debug, Default)]
pub struct History(HashMap<String, Vec<SnapshotId>>);

impl History {
    /// Lists it.
    pub async fn list(store: &dyn Store) -> Result<Self, Error> {
        let mut files: HashMap<String, Vec<SnapshotId>> = HashMap::new();
        store
            .list(keys::HISTORY, Depth::All, &mut |object| {
                if let Some((id, file)) = keys::of_history(&object.name) {
                    files.entry(file.to_owned()).or_default().push(id);
                }
            })
            .await?;
        for ids in files.values_mut() {
            ids.sort_unstable();
        }
        Ok(Self(files))
    }

    /// The key of a file's content as it was in a snapshot: the first later backup that replaced it has it, and the
    /// mirror where none did.
    fn key(&self, snapshot: &SnapshotId, folder: &str, name: &str) -> String {
        let file = format!("{folder}/{name}");
        let replaced = self
            .0
            .get(&file)
            .and_then(|ids| ids.iter().find(|id| id.point() > snapshot.point()));
        match replaced {
            Some(id) => format!("{}/{name}", keys::history(id, folder)),
            None => format!("{}/{name}", keys::mirror(folder)),
        }
    }
}

/// Indexes of a store, kept as files in a folder.
pub struct Indexes<'a> {
    store: &'a dyn Store,
    folder: &'a Path,
    /// What was read of them already.
    read: Option<&'a Contents>,
}

impl<'a> Indexes<'a> {
    /// The store's, kept in this folder.
    #[must_use]
    pub fn new(store: &'a dyn Store, folder: &'a Path) -> Self {
        Self {
            store,
            folder,
            read: None,
        }
    }

    /// The same, where these were read already.
    #[must_use]
    pub fn known(self, read: &'a Contents) -> Self {
        Self {
            read: Some(read),
            ..self
        }
    }

    fn damaged(&self, id: &SnapshotId, damage: Damage) -> Error {
        damage.of(self.store.destination(), keys::snapshot(id))
    }

    async fn fetch(&self, id: &SnapshotId) -> Result<PathBuf, Error> {
        let file = self.folder.join(keys::snapshot(id));
        // One that was fetched before an interruption may be half there.
        if self
            .open(id)
            .is_ok_and(|reader| reader.into_iter().all(|entry| entry.is_ok()))
        {
            return Ok(file);
        }
        if let Some(content) = self.read.and_then(|read| read.get(&keys::snapshot(id))) {
            return self.keep(&file, content).map(|()| file);
        }
        let name = format!("{id}.json");
        let undone = self
            .store
            .download(
                keys::SNAPSHOTS,
                std::slice::from_ref(&name),
                &self.folder.join(keys::SNAPSHOTS),
                &unwatched,
            )
            .await?;
        if undone.is_empty() {
            Ok(file)
        } else {
            Err(Error::NotFound {
                destination: self.store.destination(),
                key: keys::snapshot(id),
            })
        }
    }

    fn keep(&self, file: &Path, content: &[u8]) -> Result<(), Error> {
        let kept =
            std::fs::create_dir_all(self.folder.join(keys::SNAPSHOTS)).and_then(|()| std::fs::write(file, content));
        kept.map_err(|source| Error::Local {
            what: format!("{} can't be written", file.display()),
            source,
        })
    }

    fn open(&self, id: &SnapshotId) -> Result<IndexReader<BufReader<File>>, Error> {
        let path = self.folder.join(keys::snapshot(id));
        let file = File::open(&path).map_err(|source| Error::Local {
            what: format!("{} can't be read", path.display()),
            source,
        })?;
        let reader = IndexReader::new(BufReader::new(file)).map_err(|damage| self.damaged(id, damage))?;
        if reader.header().id.point() == id.point() {
            Ok(reader)
        } else {
            Err(self.damaged(id, Damage::broken("it is the index of another snapshot")))
        }
    }

    /// Reads a snapshot's own index to its end, without the one that it builds on: what it is, and what it holds in all.
    pub async fn totals(&self, id: &SnapshotId) -> Result<(Header, Totals), Error> {
        self.fetch(id).await?;
        let mut reader = self.open(id)?;
        if let Some(damage) = reader.find_map(Result::err) {
            return Err(self.damaged(id, damage));
        }
        let totals = reader.totals().unwrap_or_default();
        Ok((reader.header().clone(), totals))
    }

    /// Reads a snapshot whole: its header, and its entries in order.
    pub async fn read(&self, id: &SnapshotId) -> Result<(Header, Vec<Entry>), Error> {
        self.fetch(id).await?;
        let reader = self.open(id)?;
        let header = reader.header().clone();
        let entries = match header.base {
            None => reader.collect::<Result<Vec<_>, _>>(),
            Some(base) => {
                self.fetch(&base).await?;
                merged(self.open(&base)?, reader).collect()
            }
        };
        entries
            .map(|entries| (header, entries))
            .map_err(|damage| self.damaged(id, damage))
    }
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
        items.push(Item { path, what });
    }
    Plan {
        snapshot: Some(id),
        items,
    }
}

/// What a place without snapshots brings: the files of its mirror.
pub async fn of_listing(store: &dyn Store, folder: &str) -> Result<Plan, Error> {
    let mirror = keys::mirror(folder);
    let items = listed(store, &mirror, Depth::All)
        .await?
        .into_iter()
        .filter(|object| {
            !object.name.starts_with(keys::NAMES)
                && !Path::new(&object.name).starts_with(OWN_FOLDER)
                && object
                    .name
                    .split('/')
                    .all(|part| !part.is_empty() && part != "." && part != "..")
        })
        .map(|object| Item {
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
        .collect();
    Ok(Plan { snapshot: None, items })
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
