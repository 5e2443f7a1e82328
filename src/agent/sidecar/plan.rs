//! What is known of a destination × what the volumes hold now → what one backup has to do, spooled to scratch in path
//! order, and what would vanish. Reads the volumes' metadata (and the first bytes of what may be a database), writes
//! nothing but the spool.

use super::known::{Known, relative};
use super::volume::{Scope, Volume};
use crate::agent::arguments::Databases;
use crate::agent::database;
use crate::agent::filters::Skipped;
use crate::agent::litestream::replication::Treatment;
use crate::agent::scan::{Entry, Found, Kind, Record, TableError, Walk};
use crate::agent::watch::Changes;
use crate::store::index::Totals;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file above this that never rests is given more time, and one that is gone is missed.
pub const LARGE: u64 = 64 << 20;

/// What is to be done about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The content may be new: save it if it is.
    Save {
        /// What the volume says.
        entry: Entry,
        /// By the online backup.
        database: bool,
        /// What the store has of it.
        known: Option<Record>,
    },
    /// A folder or symlink that is new or another, or a file of which only owner or mode changed.
    Attributes {
        /// What the volume says.
        entry: Entry,
        /// What the store has of it.
        known: Option<Record>,
    },
    /// It is not there any more, or not to be taken any more.
    Gone {
        /// What the store has of it.
        known: Record,
    },
}

impl Change {
    /// The path that it is about.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Save { entry, .. } | Self::Attributes { entry, .. } => &entry.path,
            Self::Gone { known } => &known.entry.path,
        }
    }
}

/// How thoroughly the volumes are looked at.
#[derive(Clone, Debug)]
pub struct Look {
    /// Which paths; [`Changes::everything`] for a full scan.
    pub changes: Changes,
    /// Databases that were saved a moment ago and can wait (paths of the index).
    pub resting: Vec<Vec<u8>>,
    /// Large files that changed so recently are left for later.
    pub restless: Option<Duration>,
}

/// What a backup would do.
#[derive(Debug)]
pub struct Plan {
    spool: PathBuf,
    /// Changes in it.
    pub changes: u64,
    /// Everything was looked at.
    pub full: bool,
    /// Files that are what an index says of them, whose inode and change time are known now.
    pub facts: u64,
    /// Files and bytes that would vanish, and what there was before.
    pub vanishing: Vanishing,
    /// What is left out, by reason.
    pub skipped: BTreeMap<Skipped, u64>,
    /// Left for later.
    pub later: Vec<Vec<u8>>,
    /// What could not be looked at, and why; what is known of it stays.
    pub unreadable: Vec<(Vec<u8>, String)>,
    /// Folders that look like a live database server's.
    pub servers: Vec<Vec<u8>>,
}

/// What would be lost from the mirror, for the guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vanishing {
    /// Before.
    pub before: Totals,
    /// Files that are gone.
    pub files: u64,
    /// Bytes by which everything shrank.
    pub bytes: u64,
    /// The largest of the files that are gone, among those up to [`LARGE`].
    pub largest: u64,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The table in scratch.
    #[error("what is known of the store can't be read")]
    Known(#[from] TableError),
    /// The spool in scratch.
    #[error("the plan {path} can't be written or read")]
    Spool {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The volume.
    #[error("the volume at {path} can't be scanned")]
    Volume {
        /// Where it is mounted.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Plan {
    /// Looks at the volumes.
    pub fn make(scope: &Scope, known: &Known, look: &Look, spool: &Path) -> Result<Self, PlanError> {
        let mut planner = Planner {
            scope,
            known,
            look,
            spool: Spool::create(spool)?,
            facts: Spool::create(&facts_path(spool))?,
            plan: Self {
                spool: spool.to_owned(),
                changes: 0,
                full: look.changes.everything,
                facts: 0,
                vanishing: Vanishing {
                    before: known.totals(),
                    ..Vanishing::default()
                },
                skipped: BTreeMap::new(),
                later: Vec::new(),
                unreadable: Vec::new(),
                servers: Vec::new(),
            },
            grown: 0,
            shrunk: 0,
        };
        if look.changes.everything {
            planner.everything()?;
        } else {
            planner.candidates()?;
        }
        planner.plan.vanishing.bytes = planner.shrunk.saturating_sub(planner.grown);
        planner.spool.finish()?;
        planner.facts.finish()?;
        Ok(planner.plan)
    }

    /// Where [`Plan::facts`] lie.
    #[must_use]
    pub fn facts_path(&self) -> PathBuf {
        facts_path(&self.spool)
    }

    /// Everything that is to be done, in path order.
    pub fn changes(&self) -> Result<impl Iterator<Item = Result<Change, PlanError>> + use<>, PlanError> {
        let path = self.spool.clone();
        let failed = move |source| PlanError::Spool {
            path: path.clone(),
            source,
        };
        let mut from = BufReader::new(File::open(&self.spool).map_err(&failed)?);
        let mut left = self.changes;
        Ok(std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            Some(read(&mut from).map_err(&failed))
        }))
    }
}

struct Planner<'a> {
    scope: &'a Scope,
    known: &'a Known,
    look: &'a Look,
    spool: Spool,
    facts: Spool,
    plan: Plan,
    grown: u64,
    shrunk: u64,
}

impl Planner<'_> {
    fn everything(&mut self) -> Result<(), PlanError> {
        let mut volumes: Vec<Volume> = self.scope.volumes.clone();
        volumes.sort_by_key(|volume| format!("{}/", volume.folder));
        for volume in volumes {
            self.tree(&volume, b"")?;
        }
        Ok(())
    }

    /// A folder (relative; empty for all) against what is known of it.
    fn tree(&mut self, volume: &Volume, folder: &[u8]) -> Result<(), PlanError> {
        let failed = |source| PlanError::Volume {
            path: volume.path.clone(),
            source,
        };
        let scope = self.scope;
        let mut walk = Walk::new(&volume.path, &volume.folder, folder, &scope.filters).map_err(failed)?;
        let mut prefix = [volume.folder.as_bytes(), b"/", folder].concat();
        if !folder.is_empty() {
            prefix.push(b'/');
        }
        let mut known = self.known.below(&prefix)?.peekable();
        // What lies below a folder that can't be read is not gone.
        let mut held: Option<Vec<u8>> = None;
        let is_held = |held: &Option<Vec<u8>>, path: &[u8]| {
            held.as_ref()
                .is_some_and(|held| path == held.as_slice() || (held.ends_with(b"/") && path.starts_with(held)))
        };
        for found in walk.by_ref() {
            let path = match &found {
                Found::Entry { entry, .. } => entry.path.clone(),
                Found::Unreadable { path, .. } => path.clone(),
            };
            while let Some(record) = known.next_if(|record| record.as_ref().is_ok_and(|r| r.entry.path < path)) {
                let record = record?;
                if !is_held(&held, &record.entry.path) {
                    self.gone(record)?;
                }
            }
            let same = known
                .next_if(|record| record.as_ref().map_or(true, |r| r.entry.path == path))
                .transpose()?;
            match found {
                Found::Entry { entry, beside } => self.examine(entry, beside, same)?,
                Found::Unreadable { path, error } => {
                    self.plan.unreadable.push((path.clone(), error.to_string()));
                    held = Some(path);
                }
            }
        }
        for record in known {
            let record = record?;
            if !is_held(&held, &record.entry.path) {
                self.gone(record)?;
            }
        }
        for (reason, count) in walk.skipped() {
            *self.plan.skipped.entry(*reason).or_default() += count;
        }
        Ok(())
    }

    /// Single paths, each against what is known of it.
    fn candidates(&mut self) -> Result<(), PlanError> {
        let mut candidates: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        for (path, below) in &self.look.changes.paths {
            let path = self.database_of(path)?.unwrap_or_else(|| path.clone());
            *candidates.entry(path).or_default() |= below;
        }
        let file = std::mem::replace(&mut self.spool, Spool::Memory(Vec::new()));
        for (path, below) in &candidates {
            if !ancestors(path).any(|ancestor| candidates.get(ancestor) == Some(&true)) {
                self.candidate(path, *below)?;
            }
        }
        let Spool::Memory(mut found) = std::mem::replace(&mut self.spool, file) else {
            return Ok(());
        };
        // Candidates come without the slash of a folder, which counts in the order of the index.
        found.sort_by(|a, b| a.path().cmp(b.path()));
        self.plan.changes = 0;
        found.iter().try_for_each(|change| self.write(change))
    }

    fn candidate(&mut self, path: &[u8], below: bool) -> Result<(), PlanError> {
        let entry = match self.scope.look(path) {
            Ok(entry) => entry,
            Err(error) => {
                self.plan.unreadable.push((path.to_vec(), error.to_string()));
                return Ok(());
            }
        };
        // What it was and is no more.
        let is_folder = entry.as_ref().is_some_and(|entry| entry.kind == Kind::Folder);
        if (entry.is_none() || is_folder)
            && let Some(record) = self.known.get(path)?
        {
            self.gone(record)?;
        }
        if !is_folder {
            let known = self.known;
            for record in known.below(&[path, b"/"].concat())? {
                self.gone(record?)?;
            }
        }
        let Some(entry) = entry else { return Ok(()) };
        if is_folder && below {
            return match self.scope.place(&entry.path) {
                Some((volume, relative)) => self.tree(&volume.clone(), relative),
                None => Ok(()),
            };
        }
        let relative = relative(path);
        let skipped = match entry.kind {
            Kind::Folder => self.scope.filters.folder(relative),
            Kind::File | Kind::Symlink => self.scope.filters.file(relative, entry.size),
        };
        if skipped.is_some() {
            return Ok(());
        }
        let known = self.known.get(&entry.path)?;
        let beside = entry.kind == Kind::File
            && [database::WAL, database::JOURNAL].iter().any(|suffix| {
                let beside = [entry.path.as_slice(), suffix].concat();
                matches!(self.scope.look(&beside), Ok(Some(_)))
            });
        self.examine(entry, beside, known)
    }

    /// For the log or journal of a database: the database.
    fn database_of(&self, path: &[u8]) -> Result<Option<Vec<u8>>, PlanError> {
        if self.scope.databases == Databases::None {
            return Ok(None);
        }
        let Some(base) = database::beside(path) else {
            return Ok(None);
        };
        let known = self.known.get(base)?.is_some_and(|record| record.database);
        Ok((known || self.scope.is_database(base)).then(|| base.to_vec()))
    }

    /// An entry of the volume, and what is known of it.
    fn examine(&mut self, entry: Entry, beside: bool, known: Option<Record>) -> Result<(), PlanError> {
        if entry.kind != Kind::File {
            if is_of_a_server(&entry.path) && self.plan.servers.len() < 20 {
                self.plan.servers.push(entry.path.clone());
            }
            let same = known
                .as_ref()
                .is_some_and(|known| !entry.may_differ(&known.entry) && !entry.ownership_differs(&known.entry));
            return if same {
                Ok(())
            } else {
                self.write(&Change::Attributes { entry, known })
            };
        }
        if is_of_a_server(&entry.path) && self.plan.servers.len() < 20 {
            self.plan.servers.push(entry.path.clone());
        }
        if self.database_of(&entry.path)?.is_some() {
            return known.map_or(Ok(()), |known| self.gone(known));
        }
        if let Some(replication) = &self.scope.replication
            && (replication.knows(&entry.path) || known.as_ref().is_none_or(|known| known.database))
        {
            match self.scope.treatment(&entry.path) {
                // What the store had of it as a file goes to history.
                Some(Treatment::Replicated) => return known.map_or(Ok(()), |known| self.moved(known)),
                Some(Treatment::Kept) => return Ok(()),
                Some(Treatment::Saved) | None => {}
            }
        }
        let was_database = known.as_ref().is_some_and(|known| known.database);
        let maybe = self.scope.databases != Databases::None && (was_database || beside);
        let entry = if maybe && (was_database || self.scope.is_database(&entry.path)) {
            self.scope.stamped(entry)
        } else {
            entry
        };
        match known {
            Some(known) if !entry.may_differ(&known.entry) => {
                if entry.ownership_differs(&known.entry) {
                    self.write(&Change::Attributes {
                        entry,
                        known: Some(known),
                    })
                } else if known.entry.changed == 0 && self.plan.full {
                    self.plan.facts += 1;
                    self.facts.push(&Change::Attributes { entry, known: None })
                } else {
                    Ok(())
                }
            }
            known => self.save(entry, known),
        }
    }

    fn save(&mut self, entry: Entry, known: Option<Record>) -> Result<(), PlanError> {
        let database = match self.scope.treatment(&entry.path) {
            Some(Treatment::Saved) => true,
            Some(Treatment::Kept | Treatment::Replicated) => return Ok(()),
            None => false,
        };
        let entry = if database && !known.as_ref().is_some_and(|known| known.database) {
            // The stamp of `examine` was for what was known to be one.
            match self.scope.look(&entry.path) {
                Ok(Some(entry)) => self.scope.stamped(entry),
                _ => entry,
            }
        } else {
            entry
        };
        let restless =
            !database && entry.size > LARGE && self.look.restless.is_some_and(|settle| age(entry.modified) < settle);
        if restless || (database && self.look.resting.contains(&entry.path)) {
            self.plan.later.push(entry.path);
            return Ok(());
        }
        let before = known.as_ref().map_or(0, |known| known.stored_size);
        // What a database has in its log is not lost.
        let log = [entry.path.as_slice(), database::WAL].concat();
        let log = match self.scope.look(&log) {
            Ok(Some(log)) if database => log.size,
            _ => 0,
        };
        let size = entry.size.saturating_add(log);
        self.grown += size.saturating_sub(before);
        self.shrunk += before.saturating_sub(size);
        self.write(&Change::Save { entry, database, known })
    }

    fn gone(&mut self, known: Record) -> Result<(), PlanError> {
        let path = relative(&known.entry.path);
        let (path, excluded) = match path.strip_suffix(b"/") {
            Some(folder) => (folder, self.scope.filters.folder(folder)),
            None => (path, self.scope.filters.file(path, 0)),
        };
        if known.entry.kind == Kind::File && excluded.is_none() && database::beside(path).is_none() {
            // Grown beyond `max-size`: what was saved of it is better than nothing.
            if let Ok(Some(entry)) = self.scope.look(&known.entry.path)
                && entry.kind == Kind::File
                && self.scope.filters.file(path, entry.size) == Some(Skipped::TooLarge)
            {
                return Ok(());
            }
            let vanishing = &mut self.plan.vanishing;
            vanishing.files += 1;
            if known.stored_size <= LARGE {
                vanishing.largest = vanishing.largest.max(known.stored_size);
            }
            self.shrunk += known.stored_size;
        }
        self.write(&Change::Gone { known })
    }

    /// It leaves the files for a replica: nothing vanishes.
    fn moved(&mut self, known: Record) -> Result<(), PlanError> {
        self.write(&Change::Gone { known })
    }

    fn write(&mut self, change: &Change) -> Result<(), PlanError> {
        self.plan.changes += 1;
        self.spool.push(change)
    }
}

/// Nanoseconds since 1970 → how long ago; nothing for what lies ahead.
fn age(modified: i64) -> Duration {
    let now = jiff::Timestamp::now().as_nanosecond();
    u64::try_from(now - i128::from(modified)).map_or(Duration::ZERO, Duration::from_nanos)
}

fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(slash, _)| &path[..slash])
}

/// Files that PostgreSQL, MySQL and MongoDB keep in the folder of their data.
fn is_of_a_server(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    [b"PG_VERSION".as_slice(), b"ibdata1", b"WiredTiger"].contains(&name)
}

fn facts_path(spool: &Path) -> PathBuf {
    spool.with_extension("facts")
}

/// What [`Plan::facts`] counts, from where [`Plan::facts_path`] says, in path order.
pub fn read_facts(
    path: &Path,
    count: u64,
) -> Result<impl Iterator<Item = Result<Entry, TableError>> + use<>, TableError> {
    let file = File::open(path);
    let path = path.to_owned();
    let failed = move |source| TableError::Io {
        path: path.clone(),
        source,
    };
    let mut from = BufReader::new(file.map_err(&failed)?);
    Ok((0..count).map(move |_| match read(&mut from).map_err(&failed)? {
        Change::Save { entry, .. } | Change::Attributes { entry, .. } => Ok(entry),
        Change::Gone { known } => Ok(known.entry),
    }))
}

/// Where changes go, in order.
enum Spool {
    File { to: BufWriter<File>, path: PathBuf },
    Memory(Vec<Change>),
}

impl Spool {
    fn create(path: &Path) -> Result<Self, PlanError> {
        let file = File::create(path).map_err(|source| PlanError::Spool {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::File {
            to: BufWriter::new(file),
            path: path.to_owned(),
        })
    }

    fn push(&mut self, change: &Change) -> Result<(), PlanError> {
        match self {
            Self::File { to, path } => write(to, change).map_err(|source| PlanError::Spool {
                path: path.clone(),
                source,
            }),
            Self::Memory(changes) => {
                changes.push(change.clone());
                Ok(())
            }
        }
    }

    fn finish(&mut self) -> Result<(), PlanError> {
        match self {
            Self::File { to, path } => to.flush().map_err(|source| PlanError::Spool {
                path: path.clone(),
                source,
            }),
            Self::Memory(_) => Ok(()),
        }
    }
}

const SAVE: u8 = 1;
const SAVE_DATABASE: u8 = 2;
const ATTRIBUTES: u8 = 3;
const GONE: u8 = 4;
const HAS_KNOWN: u8 = 0x80;

fn write(to: &mut impl Write, change: &Change) -> io::Result<()> {
    let (what, entry, known) = match change {
        Change::Save { entry, database, known } => (
            if *database { SAVE_DATABASE } else { SAVE },
            Some(entry),
            known.as_ref(),
        ),
        Change::Attributes { entry, known } => (ATTRIBUTES, Some(entry), known.as_ref()),
        Change::Gone { known } => (GONE, None, Some(known)),
    };
    to.write_all(&[what | if known.is_some() { HAS_KNOWN } else { 0 }])?;
    if let Some(entry) = entry {
        Record::unsaved(entry.clone()).write(to)?;
    }
    if let Some(known) = known {
        known.write(to)?;
    }
    Ok(())
}

fn read(from: &mut impl Read) -> io::Result<Change> {
    let mut what = [0];
    from.read_exact(&mut what)?;
    let [what] = what;
    let known = |from: &mut _| {
        if what & HAS_KNOWN == 0 {
            Ok(None)
        } else {
            Record::read(from).map(Some)
        }
    };
    Ok(match what & !HAS_KNOWN {
        kind @ (SAVE | SAVE_DATABASE) => Change::Save {
            entry: Record::read(from)?.entry,
            database: kind == SAVE_DATABASE,
            known: known(from)?,
        },
        ATTRIBUTES => Change::Attributes {
            entry: Record::read(from)?.entry,
            known: known(from)?,
        },
        GONE => Change::Gone {
            known: known(from)?.ok_or_else(|| io::Error::other("a deletion of nothing"))?,
        },
        _ => return Err(io::Error::other("an unknown change")),
    })
}
