//! What of a plan could not be had → another copy of the same content, wherever that lies, or the newest older version that
//! verifies, or the word that nobody has it. File by file: the rest of the plan is not held up.

use super::plan::{Content, Item, Plan, Planned};
use super::stage::{self, Fetch, Kind, Lacking};
use crate::store::history::{History, file_of};
use crate::store::index::{Attributes, Entry, What};
use crate::store::indexes::Indexes;
use crate::store::snapshot::{Point, SnapshotId};
use crate::store::{Contents, Error as StoreError, Store};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where content may be looked for.
pub struct Salvage<'a> {
    /// Its files are fetched as those of the plan were.
    pub fetch: Fetch<'a>,
    /// The store's indexes.
    pub indexes: &'a Indexes<'a>,
    /// The store's snapshots, ascending.
    pub snapshots: &'a [SnapshotId],
    /// The newest of them that the plan was made of: later ones are not gone back to.
    pub newest: Option<SnapshotId>,
    /// What its history holds.
    pub history: &'a History,
    /// The volume's folder; none where the plan's paths begin with it.
    pub folder: Option<&'a str>,
    /// Other destinations, which may have the same content.
    pub others: &'a [Other<'a>],
}

/// Another destination.
pub struct Other<'a> {
    /// It.
    pub store: &'a dyn Store,
    /// Its snapshots, ascending.
    pub snapshots: &'a [SnapshotId],
    /// What was read of its indexes already.
    pub indexes: &'a Contents,
    /// A folder for its indexes.
    pub folder: PathBuf,
}

/// A store in which versions are looked for.
struct Source<'a> {
    store: &'a dyn Store,
    indexes: &'a Indexes<'a>,
    /// Ascending.
    snapshots: &'a [SnapshotId],
    history: &'a History,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Paths whose content is another copy of the same.
    pub from_copies: Vec<PathBuf>,
    /// Paths that have an older version, and the snapshot that it is of.
    pub from_older: Vec<(PathBuf, SnapshotId)>,
    /// Paths of which nothing verifies.
    pub missing: Vec<Missing>,
}

/// A file that can't be had as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Where it should be.
    pub path: PathBuf,
    /// The content that it should have.
    pub sha256: Option<[u8; 32]>,
    /// What is wrong with it.
    pub why: String,
}

/// A file that was not had.
struct Bad {
    /// In the plan.
    position: usize,
    /// As an index writes it.
    path: Vec<u8>,
    /// Folder and stored name.
    file: String,
    lacking: Lacking,
    wanted: Content,
    /// In each store that is asked, the restored one first: versions of this point and later ones were looked at; none: there
    /// is nothing to be looked at.
    before: Vec<Option<Point>>,
}

/// What is tried for a file.
struct Try {
    /// Of the plan.
    position: usize,
    content: Content,
    attributes: Option<Attributes>,
}

impl Salvage<'_> {
    /// Looks for what is lacking, and changes the plan to what was found. What was not is [`Planned::Missing`] in it.
    pub async fn salvage(&self, plan: &mut Plan, lacking: Vec<Lacking>) -> Result<Salvaged, stage::Error> {
        let mut salvaged = Salvaged::default();
        let mut left = self.bad(plan, lacking);
        let found = self.copies(plan, &left).await?;
        let taken = |left: &mut Vec<Bad>, found: &BTreeSet<usize>| {
            let (taken, rest) = std::mem::take(left)
                .into_iter()
                .partition(|bad: &Bad| found.contains(&bad.position));
            *left = rest;
            taken
        };
        let by_copy: Vec<Bad> = taken(&mut left, &found);
        salvaged
            .from_copies
            .extend(by_copy.iter().map(|bad| path_of(plan, bad)));
        let mut others: Vec<(&Other<'_>, Indexes<'_>, History)> = Vec::new();
        for other in self.others.iter().filter(|_| !left.is_empty()) {
            match History::list(other.store).await {
                Ok(history) => {
                    let indexes = Indexes::new(other.store, &other.folder).known(other.indexes);
                    others.push((other, indexes, history));
                }
                // What another destination does not answer is not known to be anywhere else.
                Err(error) => tracing::warn!("not asked for what is missing elsewhere: {error}"),
            }
        }
        let own = Source {
            store: self.fetch.store,
            indexes: self.indexes,
            snapshots: self.snapshots,
            history: self.history,
        };
        let others = others.iter().map(|(other, indexes, history)| Source {
            store: other.store,
            indexes,
            snapshots: other.snapshots,
            history,
        });
        let sources: Vec<Source<'_>> = std::iter::once(own).chain(others).collect();
        for other in sources.iter().skip(1) {
            let found = self.elsewhere(plan, &left, other).await?;
            let by_other: Vec<Bad> = taken(&mut left, &found);
            salvaged
                .from_copies
                .extend(by_other.iter().map(|bad| path_of(plan, bad)));
        }
        let older = self.older(plan, &mut left, &sources).await?;
        let by_older: Vec<Bad> = taken(&mut left, &older.keys().copied().collect());
        for bad in &by_older {
            let path = path_of(plan, bad);
            if let Some(snapshot) = older.get(&bad.position) {
                salvaged.from_older.push((path.clone(), *snapshot));
            }
            if bad.lacking.kind == Kind::Unreadable {
                // It is there, and somebody may be able to make it readable again: that is for a person to know.
                salvaged.missing.push(missing(path, bad));
            }
        }
        for bad in left {
            salvaged.missing.push(missing(path_of(plan, &bad), &bad));
            if let Some(item) = plan.items.get_mut(bad.position) {
                item.what = Planned::Missing;
            }
        }
        Ok(salvaged)
    }

    /// The files of a plan that these are about.
    fn bad(&self, plan: &Plan, lacking: Vec<Lacking>) -> Vec<Bad> {
        let mut by_key: HashMap<String, Lacking> = lacking.into_iter().map(|one| (one.key.clone(), one)).collect();
        let mut bad = Vec::new();
        for (position, item) in plan.items.iter().enumerate() {
            if let Planned::File(content, _) = &item.what
                && let Some(lacking) = by_key.remove(&content.key)
            {
                bad.push(Bad {
                    position,
                    path: self.index_path(&item.path),
                    file: file_of(&content.key).to_owned(),
                    lacking,
                    wanted: content.clone(),
                    before: Vec::new(),
                });
            }
        }
        bad
    }

    fn index_path(&self, path: &Path) -> Vec<u8> {
        let path = path.as_os_str().as_bytes();
        match self.folder {
            Some(folder) => [folder.as_bytes(), b"/", path].concat(),
            None => path.to_vec(),
        }
    }

    /// The same content under another name of the plan, or under the same name in history or in the mirror.
    async fn copies(&self, plan: &mut Plan, left: &[Bad]) -> Result<BTreeSet<usize>, stage::Error> {
        let mut found = BTreeSet::new();
        let wanted: HashSet<[u8; 32]> = left.iter().filter_map(|bad| bad.wanted.sha256).collect();
        let mut same: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
        for (position, item) in plan.items.iter().enumerate() {
            if let Planned::File(content, _) = &item.what
                && let Some(sha256) = content.sha256.filter(|sha256| wanted.contains(sha256))
            {
                same.entry(sha256).or_default().push(position);
            }
        }
        for bad in left {
            let same = bad.wanted.sha256.and_then(|sha256| same.get(&sha256));
            let items = same.into_iter().flatten().filter_map(|other| plan.items.get(*other));
            for item in items {
                if !found.contains(&bad.position) && self.fetch.copy(item, &bad.wanted)? {
                    found.insert(bad.position);
                }
            }
        }
        // Without a hash, any content of that size would pass for it.
        let rest = left
            .iter()
            .filter(|bad| !found.contains(&bad.position) && bad.wanted.sha256.is_some());
        let tries: Vec<Vec<Try>> = rest
            .map(|bad| {
                let mut keys = self.history.copies(&bad.file, bad.wanted.size);
                keys.retain(|key| *key != bad.wanted.key);
                tries_of(bad, &bad.wanted, attributes_of(plan, bad), keys)
            })
            .collect();
        found.append(&mut self.tried(self.fetch.store, plan, tries).await?);
        Ok(found)
    }

    /// The same content at another destination: where its newest snapshot has it, or in its history.
    async fn elsewhere(
        &self,
        plan: &mut Plan,
        left: &[Bad],
        other: &Source<'_>,
    ) -> Result<BTreeSet<usize>, stage::Error> {
        // Without a hash, any content of that size would pass for it.
        let left: Vec<&Bad> = left.iter().filter(|bad| bad.wanted.sha256.is_some()).collect();
        if left.is_empty() {
            return Ok(BTreeSet::new());
        }
        let paths: HashSet<Vec<u8>> = left.iter().map(|bad| bad.path.clone()).collect();
        let newest = match other.newest(&paths).await {
            Ok(newest) => newest,
            Err(error) => {
                tracing::warn!("not asked for what is missing elsewhere: {error}");
                return Ok(BTreeSet::new());
            }
        };
        let mut tries = Vec::new();
        for bad in left {
            let mut keys = other.history.copies(&bad.file, bad.wanted.size);
            if let Some((newest, entries)) = &newest {
                let is_same = |entry: &Entry| match &entry.what {
                    What::File(file) => Some(file.sha256) == bad.wanted.sha256,
                    _ => false,
                };
                // The mirror has what the snapshot says.
                keys.retain(|key| *key != bad.file);
                if let (true, Some((folder, name))) =
                    (entries.get(&bad.path).is_some_and(is_same), bad.file.split_once('/'))
                {
                    let key = other.history.key(newest, folder, name);
                    keys.retain(|other| *other != key);
                    keys.insert(0, key);
                }
            }
            tries.push(tries_of(bad, &bad.wanted, attributes_of(plan, bad), keys));
        }
        match self.tried(other.store, plan, tries).await {
            Err(stage::Error::Store(error)) if !matches!(error, StoreError::Local { .. }) => {
                tracing::warn!("{error}");
                Ok(BTreeSet::new())
            }
            found => found,
        }
    }

    /// The newest older version of each that verifies, wherever it lies, with the snapshot that it is of.
    async fn older(
        &self,
        plan: &mut Plan,
        left: &mut [Bad],
        sources: &[Source<'_>],
    ) -> Result<BTreeMap<usize, SnapshotId>, stage::Error> {
        let mut found = BTreeMap::new();
        for bad in left.iter_mut() {
            let before = sources.iter().enumerate().map(|(number, source)| match number {
                0 => self.newest.map(just_after),
                _ => source.no_later_than(self.newest?).map(just_after),
            });
            bad.before = before.collect();
        }
        loop {
            let next = |bad: &Bad| {
                let is_found = found.contains_key(&bad.position);
                let each = sources.iter().zip(&bad.before).enumerate().filter(|_| !is_found);
                let each = each.filter_map(|(number, (source, before))| {
                    let before = (*before)?;
                    let older = source.snapshots.iter().rev().find(|id| id.point() < before)?;
                    Some((older.lateness(), Reverse(number), *older))
                });
                each.max()
            };
            let Some((_, Reverse(number), id)) = left.iter().filter_map(next).max() else {
                return Ok(found);
            };
            let Some(source) = sources.get(number) else {
                return Ok(found);
            };
            match self.version(plan, left, (number, source), id, &found).await {
                Ok(verified) => found.extend(verified.into_iter().map(|position| (position, id))),
                Err(stage::Error::Store(error)) if number > 0 && !matches!(error, StoreError::Local { .. }) => {
                    tracing::warn!("no older versions are looked for there: {error}");
                    for before in left.iter_mut().filter_map(|bad| bad.before.get_mut(number)) {
                        *before = None;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Those of which a snapshot of a store has a version that verifies.
    async fn version(
        &self,
        plan: &mut Plan,
        left: &mut [Bad],
        (number, source): (usize, &Source<'_>),
        id: SnapshotId,
        found: &BTreeMap<usize, SnapshotId>,
    ) -> Result<BTreeSet<usize>, stage::Error> {
        let is_asked = |bad: &&mut Bad| {
            let before = bad.before.get(number).copied().flatten();
            !found.contains_key(&bad.position) && before > Some(id.point())
        };
        let asked: Vec<&mut Bad> = left.iter_mut().filter(is_asked).collect();
        let paths: HashSet<Vec<u8>> = asked.iter().map(|bad| bad.path.clone()).collect();
        let entries = match source.indexes.find(&id, paths).await {
            Ok(entries) => entries,
            Err(error @ (StoreError::Damaged { .. } | StoreError::NotFound { .. })) => {
                tracing::warn!("{error}: an older version is looked for before it");
                HashMap::new()
            }
            Err(error) => return Err(error.into()),
        };
        let mut tries = Vec::new();
        for bad in asked {
            let Some(before) = bad.before.get_mut(number) else {
                continue;
            };
            *before = Some(id.point());
            let Some(Entry {
                what: What::File(file), ..
            }) = entries.get(&bad.path)
            else {
                continue;
            };
            // Every snapshot since that backup has the same content.
            *before = Some(file.stored.min(id.point()));
            if bad.wanted.sha256 == Some(file.sha256) {
                continue;
            }
            if let Some((folder, name)) = bad.file.split_once('/') {
                let content = Content {
                    key: source.history.key(&id, folder, name),
                    size: file.size,
                    sha256: Some(file.sha256),
                };
                let mut keys = vec![content.key.clone()];
                let copies = source.history.copies(&bad.file, file.size);
                keys.extend(copies.into_iter().filter(|key| *key != content.key));
                tries.push(tries_of(bad, &content, Some(file.attributes), keys));
            }
        }
        self.tried(source.store, plan, tries).await
    }

    /// Tries what may be the content of each, one after the other, and changes the plan to what verified: their positions.
    async fn tried(
        &self,
        store: &dyn Store,
        plan: &mut Plan,
        tries: Vec<Vec<Try>>,
    ) -> Result<BTreeSet<usize>, stage::Error> {
        let mut found = BTreeSet::new();
        let mut tries: Vec<_> = tries.into_iter().map(Vec::into_iter).collect();
        loop {
            let next: Vec<Try> = tries
                .iter_mut()
                .filter_map(|tries| tries.find(|one| !found.contains(&one.position)))
                .collect();
            if next.is_empty() {
                return Ok(found);
            }
            let items = next.iter().filter_map(|one| {
                Some(Item {
                    what: Planned::File(one.content.clone(), one.attributes),
                    ..plan.items.get(one.position)?.clone()
                })
            });
            let wanted = Plan {
                snapshot: plan.snapshot,
                items: items.collect(),
            };
            let fetch = Fetch { store, ..self.fetch };
            let lacking: HashSet<String> = fetch.fetch(&wanted).await?.into_iter().map(|one| one.key).collect();
            for one in next {
                if !lacking.contains(&one.content.key)
                    && let Some(item) = plan.items.get_mut(one.position)
                {
                    item.what = Planned::File(one.content, one.attributes);
                    found.insert(one.position);
                }
            }
        }
    }
}

impl Source<'_> {
    /// Its newest snapshot that can be read, and what that has at these paths.
    async fn newest(
        &self,
        paths: &HashSet<Vec<u8>>,
    ) -> Result<Option<(SnapshotId, HashMap<Vec<u8>, Entry>)>, StoreError> {
        for id in self.snapshots.iter().rev() {
            match self.indexes.find(id, paths.clone()).await {
                Ok(entries) => return Ok(Some((*id, entries))),
                Err(error @ (StoreError::Damaged { .. } | StoreError::NotFound { .. })) => {
                    tracing::warn!("{error}: the snapshot before it is looked at");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Its newest snapshot that is no later than one of another store.
    fn no_later_than(&self, other: SnapshotId) -> Option<SnapshotId> {
        let mut snapshots = self.snapshots.iter().rev();
        snapshots.find(|id| id.lateness() <= other.lateness()).copied()
    }
}

/// The point after a snapshot: of all others, none lies between the two.
const fn just_after(id: SnapshotId) -> Point {
    Point {
        epoch: id.epoch,
        sequence: id.sequence.saturating_add(1),
    }
}

fn tries_of(bad: &Bad, content: &Content, attributes: Option<Attributes>, keys: Vec<String>) -> Vec<Try> {
    let each = keys.into_iter().map(|key| Try {
        position: bad.position,
        content: Content { key, ..content.clone() },
        attributes,
    });
    each.collect()
}

fn attributes_of(plan: &Plan, bad: &Bad) -> Option<Attributes> {
    match plan.items.get(bad.position).map(|item| &item.what) {
        Some(Planned::File(_, attributes)) => *attributes,
        _ => None,
    }
}

fn path_of(plan: &Plan, bad: &Bad) -> PathBuf {
    plan.items
        .get(bad.position)
        .map(|item| item.path.clone())
        .unwrap_or_default()
}

fn missing(path: PathBuf, bad: &Bad) -> Missing {
    Missing {
        path,
        sha256: bad.wanted.sha256,
        why: format!("{} ({})", bad.lacking.why, bad.lacking.key),
    }
}
