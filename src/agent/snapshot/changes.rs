//! What is known of a destination × what the volumes hold now → what one backup has to do, spooled to scratch in path
//! order, and what would vanish. Reads the volumes' metadata (and the first bytes of what may be a database), writes
//! nothing but the spool.
//!
//! What the volume does not have any more is *gone*, and may have *vanished*: whether that is held is [`super::holds`]'
//! question. What is held stays until it is back, something else lies in its place, or somebody lets it go. What the
//! policy takes no longer is *excluded*, and carried along until it is deleted while we look, or somebody lets it go.

mod gone;

use super::guard::Vanishing;
use super::spool::{self, Change, Spool, SpoolError};
use crate::agent::arguments::Databases;
use crate::agent::database;
use crate::agent::filters::Skipped;
use crate::agent::litestream::replication::Treatment;
use crate::agent::scan::{Entry, Found, Kind, Record, TableError, Walk};
use crate::agent::sidecar::known::{Known, relative};
use crate::agent::sidecar::volume::{Scope, Volume, Way};
use crate::agent::watch::Changes;
use crate::store::index::{HoldId, Standing};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file above this that never rests is given more time.
const LARGE: u64 = 64 << 20;

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

/// What somebody has decided: it leaves the mirror with this backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Of what is held.
    pub holds: BTreeSet<HoldId>,
    /// What was excluded until now.
    pub excluded: bool,
}

impl Accepted {
    fn takes(&self, standing: Standing) -> bool {
        match standing {
            Standing::Live => false,
            Standing::Held(id) => self.holds.contains(&id),
            Standing::Excluded => self.excluded,
        }
    }
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
    /// What would vanish.
    pub vanishing: Vanishing,
    /// Folders that are gone.
    pub folders_gone: u64,
    /// Entries that are excluded from now on.
    pub excluded: u64,
    /// What is left out, by reason.
    pub skipped: BTreeMap<Skipped, u64>,
    /// Left for later.
    pub later: Vec<Vec<u8>>,
    /// What could not be looked at, and why; what is known of it stays.
    pub unreadable: Vec<(Vec<u8>, String)>,
    /// Folders that look like a live database server's.
    pub servers: Vec<Vec<u8>>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The table in scratch.
    #[error("what is known of the store can't be read")]
    Known(#[from] TableError),
    /// The spool in scratch.
    #[error(transparent)]
    Spool(#[from] SpoolError),
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
    pub fn make(
        scope: &Scope,
        known: &Known,
        look: &Look,
        accepted: &Accepted,
        spool: &Path,
    ) -> Result<Self, PlanError> {
        let mut planner = Planner {
            scope,
            known,
            look,
            accepted,
            spool: Spool::create(spool)?,
            facts: Spool::create(&facts_path(spool))?,
            plan: Self {
                spool: spool.to_owned(),
                changes: 0,
                full: look.changes.everything,
                facts: 0,
                vanishing: Vanishing {
                    before: known.tally().live.totals,
                    ..Vanishing::default()
                },
                folders_gone: 0,
                excluded: 0,
                skipped: BTreeMap::new(),
                later: Vec::new(),
                unreadable: Vec::new(),
                servers: Vec::new(),
            },
            way: None,
        };
        if look.changes.everything {
            planner.everything()?;
        } else {
            planner.candidates()?;
        }
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
    pub fn changes(&self) -> Result<impl Iterator<Item = Result<Change, SpoolError>> + use<>, SpoolError> {
        spool::read(&self.spool, self.changes)
    }

    /// Other changes take their place: those in this file.
    pub fn replace(&mut self, path: &Path, changes: u64) -> Result<(), PlanError> {
        spool::replace(path, &self.spool)?;
        self.changes = changes;
        Ok(())
    }

    /// Each change as `anew` has it, about the same path.
    pub fn rewrite(&mut self, anew: impl Fn(Change) -> Change) -> Result<(), PlanError> {
        let path = self.spool.with_extension("anew");
        let mut to = Spool::create(&path)?;
        for change in self.changes()? {
            to.push(&anew(change?))?;
        }
        to.finish()?;
        self.replace(&path, self.changes)
    }

    /// Where [`Plan::changes`] lie.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.spool
    }
}

struct Planner<'a> {
    scope: &'a Scope,
    known: &'a Known,
    look: &'a Look,
    accepted: &'a Accepted,
    spool: Spool,
    facts: Spool,
    plan: Plan,
    /// The folder that was looked for last, and what leads to what is in it: what follows is in it, mostly.
    way: Option<(Vec<u8>, Way)>,
}

impl Planner<'_> {
    fn everything(&mut self) -> Result<(), PlanError> {
        // Folders of volumes that are protected no longer as well, each in its place.
        let mut folders: BTreeMap<Vec<u8>, Option<Volume>> = BTreeMap::new();
        for folder in self.known.folders()? {
            folders.insert([folder.as_slice(), b"/"].concat(), None);
        }
        for volume in &self.scope.volumes {
            folders.insert(format!("{}/", volume.folder).into_bytes(), Some(volume.clone()));
        }
        folders.iter().try_for_each(|(folder, volume)| match volume {
            Some(volume) => self.tree(volume, b""),
            None => self.unprotected(folder),
        })
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
        let mut unread: Option<Vec<u8>> = None;
        for found in walk.by_ref() {
            let path = match &found {
                Found::Entry { entry, .. } => entry.path.clone(),
                Found::Unreadable { path, .. } => path.clone(),
            };
            while let Some(record) = known.next_if(|record| record.as_ref().is_ok_and(|r| r.entry.path < path)) {
                self.unseen(record?, unread.as_deref())?;
            }
            let same = known
                .next_if(|record| record.as_ref().map_or(true, |r| r.entry.path == path))
                .transpose()?;
            match found {
                Found::Entry { entry, beside } => self.examine(entry, beside, same)?,
                Found::Unreadable { path, error } => {
                    self.plan.unreadable.push((path.clone(), error.to_string()));
                    unread = Some(path);
                }
            }
        }
        for record in known {
            self.unseen(record?, unread.as_deref())?;
        }
        for (reason, count) in walk.skipped() {
            *self.plan.skipped.entry(*reason).or_default() += count;
        }
        Ok(())
    }

    /// A walk came past it. Of what lies at or below `unread`, nobody knows whether it is there.
    fn unseen(&mut self, known: Record, unread: Option<&[u8]>) -> Result<(), PlanError> {
        let path = known.entry.path.as_slice();
        let is_unread =
            unread.is_some_and(|unread| path == unread || (unread.ends_with(b"/") && path.starts_with(unread)));
        if is_unread && !self.accepted.takes(known.standing) {
            return Ok(());
        }
        self.gone(known)
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
            let same = known.as_ref().is_some_and(|known| {
                known.standing.is_live() && !entry.may_differ(&known.entry) && !entry.ownership_differs(&known.entry)
            });
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
            && (replication.knows(&entry.path) || known.as_ref().is_none_or(|known| self.may_be_database(known)))
        {
            match self.scope.treatment(&entry.path, known.is_some()) {
                // It leaves the files for a replica: nothing vanishes.
                Some(Treatment::Replicated) => return known.map_or(Ok(()), |known| self.leaves(known)),
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
                if entry.ownership_differs(&known.entry) || !known.standing.is_live() {
                    self.write(&Change::Attributes {
                        entry,
                        known: Some(known),
                    })
                } else if known.entry.changed == 0 && self.plan.full {
                    self.fact(entry)
                } else {
                    Ok(())
                }
            }
            known => self.save(entry, known),
        }
    }

    /// Whether a file that is known may be a database that is not followed yet. Of what a tier without replicas has saved no index
    /// tells that: such a file is looked at once, at the first full look, if its size is one of a database: whole pages.
    fn may_be_database(&self, known: &Record) -> bool {
        let is_of_pages = known.entry.size > 0 && known.entry.size.is_multiple_of(512);
        known.database || (self.plan.full && known.entry.changed == 0 && is_of_pages)
    }

    fn save(&mut self, entry: Entry, known: Option<Record>) -> Result<(), PlanError> {
        let database = match self.scope.treatment(&entry.path, known.is_some()) {
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
        let live = known.as_ref().filter(|known| known.standing.is_live());
        let before = live.map_or(0, |known| known.stored_size);
        // What a database has in its log is not lost.
        let log = [entry.path.as_slice(), database::WAL].concat();
        let log = match self.scope.look(&log) {
            Ok(Some(log)) if database => log.size,
            _ => 0,
        };
        let size = entry.size.saturating_add(log);
        self.plan.vanishing.grown += size.saturating_sub(before);
        self.write(&Change::Save { entry, database, known })
    }

    /// What an index says of it is true, and this is what it does not say.
    fn fact(&mut self, entry: Entry) -> Result<(), PlanError> {
        self.plan.facts += 1;
        Ok(self.facts.push(&Change::Attributes { entry, known: None })?)
    }

    fn write(&mut self, change: &Change) -> Result<(), PlanError> {
        self.plan.changes += 1;
        Ok(self.spool.push(change)?)
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
    Ok(spool::read(path, count)?.filter_map(|change| match change {
        Ok(Change::Attributes { entry, .. } | Change::Save { entry, .. }) => Some(Ok(entry)),
        Ok(Change::Gone { .. } | Change::Carried { .. }) => None,
        Err(error) => Some(Err(error.into())),
    }))
}
