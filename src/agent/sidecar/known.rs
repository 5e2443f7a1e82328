//! What one destination is known to hold: its newest snapshot as a table in scratch, and what changed since the
//! snapshot's base. Index ↔ records. Memory follows what changed since the base, never the size of the volume.

use crate::agent::scan::{Entry, Kind, Record, Table, TableError, TableWriter, Tally};
use crate::store::index::{self, Attributes, Carried, File, Hold, HoldId, Standing, Totals, What};
use crate::store::keys::{StoredName, stored_name};
use crate::store::snapshot::SnapshotId;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::path::PathBuf;
use std::sync::Arc;

/// Beyond so many, changes go to a table of their own.
const MOST_IN_MEMORY: usize = 5_000;

/// Records that were seen: a bit for each of the base, and the paths of the difference.
#[derive(Debug, Default)]
pub struct Marks {
    base: Bits,
    since: BTreeSet<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Bits(Vec<u8>);

impl Bits {
    fn insert(&mut self, number: u64) {
        let (byte, bit) = Self::place(number);
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        if let Some(slot) = self.0.get_mut(byte) {
            *slot |= bit;
        }
    }

    fn contains(&self, number: u64) -> bool {
        let (byte, bit) = Self::place(number);
        self.0.get(byte).is_some_and(|slot| slot & bit != 0)
    }

    fn place(number: u64) -> (usize, u8) {
        (usize::try_from(number / 8).unwrap_or(usize::MAX - 1), 1 << (number % 8))
    }
}

/// What became of one path: its record, or nothing any more.
pub type Outcome = (Vec<u8>, Option<Record>);

/// The newest snapshot of a destination. It never changes: a backup makes the next one beside it.
#[derive(Clone, Debug)]
pub struct Known {
    table: PathBuf,
    base: Arc<Table>,
    /// The snapshot that the table is, and when it was made; none: there is no snapshot, or none to build on.
    base_id: Option<(SnapshotId, Timestamp)>,
    /// What became of each path since the base; `None`: gone.
    since: BTreeMap<Vec<u8>, Option<Record>>,
    last: Option<SnapshotId>,
    tally: Tally,
    /// When what is held vanished.
    held_since: BTreeMap<HoldId, Timestamp>,
}

impl Known {
    /// A destination of which nothing is known; its table will lie at `table`.
    pub fn nothing(table: PathBuf) -> Result<Self, TableError> {
        Ok(Self {
            base: Arc::new(TableWriter::create(&table)?.finish()?),
            table,
            base_id: None,
            since: BTreeMap::new(),
            last: None,
            tally: Tally::default(),
            held_since: BTreeMap::new(),
        })
    }

    /// The newest snapshot, from a table of its base (or of itself, where it has none).
    pub fn new(
        table: PathBuf,
        base: Table,
        base_id: Option<(SnapshotId, Timestamp)>,
        last: Option<SnapshotId>,
    ) -> Self {
        Self {
            table,
            tally: base.tally().clone(),
            base: Arc::new(base),
            base_id,
            since: BTreeMap::new(),
            last,
            held_since: BTreeMap::new(),
        }
    }

    /// The same, where this is held since then.
    #[must_use]
    pub fn held_since(mut self, holds: impl IntoIterator<Item = (HoldId, Timestamp)>) -> Self {
        self.held_since.extend(holds);
        self
    }

    /// The newest snapshot.
    #[must_use]
    pub const fn last(&self) -> Option<SnapshotId> {
        self.last
    }

    /// What the newest snapshot holds, whether the volumes have it or not.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.tally.totals()
    }

    /// The same, by how it stands.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The holds that stand.
    #[must_use]
    pub fn holds(&self) -> Vec<Hold> {
        let held = self.tally.held.iter();
        held.map(|(id, part)| Hold {
            id: *id,
            since: self.held_since.get(id).copied().unwrap_or_default(),
            totals: part.totals,
        })
        .collect()
    }

    /// The base, and when it was made.
    #[must_use]
    pub const fn base(&self) -> Option<(SnapshotId, Timestamp)> {
        self.base_id
    }

    /// Entries of the difference to the base.
    #[must_use]
    pub fn changed_since_base(&self) -> usize {
        self.since.len()
    }

    /// Entries of the base.
    #[must_use]
    pub fn base_entries(&self) -> u64 {
        self.base.entries()
    }

    /// What the newest snapshot has at this path.
    pub fn get(&self, path: &[u8]) -> Result<Option<Record>, TableError> {
        match self.since.get(path) {
            Some(record) => Ok(record.clone()),
            None => self.base.get(path),
        }
    }

    /// Marks a path as seen, and gives its record.
    pub fn mark(&self, path: &[u8], marks: &mut Marks) -> Result<Option<Record>, TableError> {
        if let Some(record) = self.since.get(path) {
            if record.is_some() {
                marks.since.insert(path.to_vec());
            }
            return Ok(record.clone());
        }
        let Some((number, record)) = self.base.find(path)? else {
            return Ok(None);
        };
        marks.base.insert(number);
        Ok(Some(record))
    }

    /// The records that were not marked, in no order.
    pub fn unmarked<'a>(
        &'a self,
        marks: &'a Marks,
    ) -> Result<impl Iterator<Item = Result<Record, TableError>> + use<'a>, TableError> {
        let base = (0..)
            .zip(self.base.records()?)
            .filter_map(|(number, record)| match record {
                Ok(record) if marks.base.contains(number) || self.since.contains_key(&record.entry.path) => None,
                other => Some(other),
            });
        let since = self.since.iter().filter(|(path, _)| !marks.since.contains(*path));
        Ok(base.chain(since.filter_map(|(_, record)| record.clone().map(Ok))))
    }

    /// The folder `path` (with its `/`) and everything below it, in order.
    pub fn below<'a>(
        &'a self,
        path: &[u8],
    ) -> Result<impl Iterator<Item = Result<Record, TableError>> + use<'a>, TableError> {
        let prefix = path.to_vec();
        let since = self
            .since
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix));
        Ok(Merged {
            base: self.base.below(path)?.peekable(),
            since: since.peekable(),
        })
    }

    /// The volumes' folders of which anything is known, in order.
    pub fn folders(&self) -> Result<Vec<Vec<u8>>, TableError> {
        let (mut folders, mut from) = (Vec::new(), Vec::new());
        loop {
            let mut rest = Merged {
                base: self.base.from(&from)?.peekable(),
                since: self.since.range(from.clone()..).peekable(),
            };
            let Some(record) = rest.next().transpose()? else {
                return Ok(folders);
            };
            let path = record.entry.path;
            let end = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
            let folder = path.get(..end).unwrap_or_default().to_vec();
            // The byte after the slash: behind everything in the folder.
            from = [folder.as_slice(), b"0"].concat();
            folders.push(folder);
        }
    }

    /// Everything, in order.
    pub fn records(&self) -> Result<impl Iterator<Item = Result<Record, TableError>> + use<'_>, TableError> {
        Ok(Merged {
            base: self.base.records()?.peekable(),
            since: self.since.iter().peekable(),
        })
    }

    /// The difference to the base, as an index has it.
    pub fn difference(&self) -> impl Iterator<Item = index::Entry> {
        self.since.iter().map(|(path, record)| match record {
            Some(record) => to_index(record),
            None => index::Entry {
                path: path.clone(),
                what: What::Gone,
                standing: Standing::Live,
            },
        })
    }

    /// What an index says of what is not live: of the difference to the base, or of all.
    pub fn carried(&self, difference: bool) -> Result<Carried, TableError> {
        let mut carried = Carried {
            holds: self.holds(),
            excluded: self.tally.excluded.totals,
            marked: Vec::new(),
        };
        if !self.tally.carries() {
            return Ok(carried);
        }
        if difference {
            self.difference().for_each(|entry| carried.mark(&entry));
        } else {
            for record in self.records()? {
                carried.mark(&to_index(&record?));
            }
        }
        Ok(carried)
    }

    /// The next state, as a difference to the same base.
    pub fn changed(&self, outcomes: impl IntoIterator<Item = Result<Outcome, TableError>>) -> Result<Self, TableError> {
        let mut next = self.clone();
        for outcome in outcomes {
            let (path, record) = outcome?;
            if let Some(old) = next.get(&path)? {
                next.tally.remove(&old);
            }
            if let Some(new) = &record {
                next.tally.add(new);
            }
            next.since.insert(path, record);
        }
        Ok(next)
    }

    /// The next state, as the base `id` of its own. Outcomes come in path order.
    pub fn rebased(
        &self,
        outcomes: impl IntoIterator<Item = Result<Outcome, TableError>>,
        id: SnapshotId,
        time: Timestamp,
    ) -> Result<Self, TableError> {
        let mut writer = TableWriter::create(&self.table)?;
        let mut known = self.records()?.peekable();
        for outcome in outcomes {
            let (path, record) = outcome?;
            while let Some(before) = known.next_if(|before| before.as_ref().map_or(true, |b| b.entry.path < path)) {
                writer.push(&before?)?;
            }
            let _replaced = known.next_if(|same| same.as_ref().is_ok_and(|same| same.entry.path == path));
            if let Some(record) = record {
                writer.push(&record)?;
            }
        }
        for after in known {
            writer.push(&after?)?;
        }
        Ok(
            Self::new(self.table.clone(), writer.finish()?, Some((id, time)), Some(id))
                .held_since(self.held_since.clone()),
        )
    }

    /// The same state, with the inodes and change times of files that an index had told us of. In path order.
    pub fn refreshed(&self, facts: impl Iterator<Item = Result<Entry, TableError>>) -> Result<Self, TableError> {
        let mut writer = TableWriter::create(&self.table)?;
        let mut base = self.base.records()?.peekable();
        let mut since = self.since.clone();
        for fact in facts {
            let fact = fact?;
            while let Some(before) = base.next_if(|before| before.as_ref().map_or(true, |b| b.entry.path < fact.path)) {
                writer.push(&before?)?;
            }
            let same = base.next_if(|same| same.as_ref().is_ok_and(|same| same.entry.path == fact.path));
            if let Some(Some(record)) = since.get_mut(&fact.path) {
                record.entry = fact;
                same.transpose()?.map_or(Ok(()), |same| writer.push(&same))?;
            } else if let Some(same) = same {
                writer.push(&Record { entry: fact, ..same? })?;
            }
        }
        for after in base {
            writer.push(&after?)?;
        }
        Ok(Self {
            base: Arc::new(writer.finish()?),
            since,
            ..self.clone()
        })
    }

    /// The same state, where these files are [`doubted`]. Of many, nothing is kept in memory: the next index is complete then.
    pub fn doubting(&self, mut paths: Vec<Vec<u8>>) -> Result<Self, TableError> {
        paths.sort_unstable();
        let many = paths.len() > MOST_IN_MEMORY;
        let outcomes = paths.into_iter().filter_map(|path| match self.get(&path) {
            Ok(record) => record.map(|record| Ok((path, Some(doubted(record))))),
            Err(error) => Some(Err(error)),
        });
        match self.last {
            Some(last) if many => {
                let rebased = self.rebased(outcomes, last, Timestamp::UNIX_EPOCH)?;
                Ok(rebased.without_base(Some(last)))
            }
            _ => self.changed(outcomes),
        }
    }

    /// The same state, on which nothing can build: the next index is complete in itself. `last` is the newest snapshot.
    #[must_use]
    pub fn without_base(mut self, last: Option<SnapshotId>) -> Self {
        self.base_id = None;
        self.last = last;
        self
    }

    /// The same state, published as the snapshot `id`.
    #[must_use]
    pub fn published(mut self, id: SnapshotId) -> Self {
        self.last = Some(id);
        self
    }
}

/// Base and changes as one, in order.
struct Merged<B: Iterator, S: Iterator> {
    base: Peekable<B>,
    since: Peekable<S>,
}

impl<'a, B, S> Iterator for Merged<B, S>
where
    B: Iterator<Item = Result<Record, TableError>>,
    S: Iterator<Item = (&'a Vec<u8>, &'a Option<Record>)>,
{
    type Item = Result<Record, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let newer = match (self.base.peek(), self.since.peek()) {
                (Some(Err(_)), _) | (_, None) => return self.base.next(),
                (Some(Ok(record)), Some((path, _))) if record.entry.path < **path => return self.base.next(),
                (Some(Ok(record)), Some((path, _))) if record.entry.path == **path => {
                    self.base.next();
                    self.since.next()
                }
                _ => self.since.next(),
            };
            if let Some((_, Some(record))) = newer {
                return Some(Ok(record.clone()));
            }
        }
    }
}

/// A record as a snapshot's index has it.
#[must_use]
pub fn to_index(record: &Record) -> index::Entry {
    let Record {
        entry,
        digest,
        stored_size,
        stored,
        database: _,
        torn,
        standing,
    } = record;
    let attributes = Attributes {
        modified: entry.modified,
        uid: entry.uid,
        gid: entry.gid,
        mode: entry.mode,
    };
    let what = match entry.kind {
        Kind::Folder => What::Folder(attributes),
        Kind::Symlink => What::Link(entry.target.clone(), attributes),
        Kind::File => What::File(File {
            size: *stored_size,
            sha256: digest.unwrap_or_default(),
            attributes,
            stored: *stored,
            name: match stored_name(relative(&entry.path)) {
                StoredName::Plain(_) => None,
                StoredName::Named(name) => Some(name),
            },
            torn: *torn,
        }),
    };
    index::Entry {
        path: entry.path.clone(),
        what,
        standing: *standing,
    }
}

/// What an index says of a path; none for what is gone. Inode, change time and whether it is a database are not in it.
#[must_use]
pub fn from_index(entry: index::Entry) -> Option<Record> {
    let (kind, attributes, target, file) = match entry.what {
        What::Gone => return None,
        What::Folder(attributes) => (Kind::Folder, attributes, Vec::new(), None),
        What::Link(target, attributes) => (Kind::Symlink, attributes, target, None),
        What::File(file) => (Kind::File, file.attributes, Vec::new(), Some(file)),
    };
    let size = file.as_ref().map_or(0, |file| file.size);
    Some(Record {
        entry: Entry {
            path: entry.path,
            kind,
            size,
            modified: attributes.modified,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            inode: 0,
            changed: 0,
            target,
        },
        digest: file.as_ref().map(|file| file.sha256),
        stored_size: size,
        stored: file
            .as_ref()
            .map_or(crate::store::snapshot::Point { epoch: 0, sequence: 0 }, |file| {
                file.stored
            }),
        database: false,
        torn: file.is_some_and(|file| file.torn),
        standing: entry.standing,
    })
}

/// The change time of a file that is doubted: no file has this one.
const DOUBTED: i64 = i64::MIN;

/// A file of which it is not known what the store has: its content is read anew, and saved whatever it is. Until that is done,
/// snapshots say of it what it was: wherever that is still found, it can be told by its hash.
#[must_use]
pub fn doubted(record: Record) -> Record {
    let entry = Entry {
        changed: DOUBTED,
        ..record.entry
    };
    Record { entry, ..record }
}

/// Whether the store may have something else, or nothing, where it should have this file.
#[must_use]
pub fn is_doubted(record: &Record) -> bool {
    record.entry.kind == Kind::File && record.entry.changed == DOUBTED
}

/// The path on the volume, without the volume's folder.
#[must_use]
pub fn relative(path: &[u8]) -> &[u8] {
    path.iter()
        .position(|byte| *byte == b'/')
        .map_or(&[], |slash| &path[slash + 1..])
}

#[cfg(test)]
mod tests;
