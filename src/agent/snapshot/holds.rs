//! What a backup would delete × what is elsewhere → what goes, and what is held. Rewrites a plan in scratch; of the
//! volumes it reads the contents of new files, and those alone whose size says that they may have been moved.
//!
//! What moved is not gone: content that lies on the volume under another name (the same inode, or the same size and
//! hash) leaves the old name. If what is left exceeds what may vanish, all of it is held, with the folders that it was
//! in. A hold whose content turns up elsewhere later is released. Memory: 16 bytes for each file that is gone or held.

use super::changes::{Plan, PlanError};
use super::elsewhere::{Elsewhere, Sought, content, digest, node, short};
use super::guard::Vanishing;
use super::spool::{Change, Spool};
use crate::agent::arguments::Percent;
use crate::agent::database;
use crate::agent::scan::{Entry, Kind, Record, Records, Table, TableError};
use crate::agent::sidecar::known::Known;
use crate::agent::sidecar::volume::Scope;
use crate::store::index::{HoldId, Standing};
use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::iter::Peekable;
use std::path::Path;
use std::time::Duration;

/// A database is waited for so long, to see whether it is one that was moved.
const PATIENCE: Duration = Duration::from_secs(10);

/// Judges a plan.
pub struct Judge<'a> {
    /// What is backed up.
    pub scope: &'a Scope,
    /// What the store has.
    pub known: &'a Known,
    /// How much may vanish.
    pub most: Percent,
    /// The id of a hold, should one be placed.
    pub id: HoldId,
    /// The snapshot that a restore has just gone back to: what it lacks, the restore has removed.
    pub restored: Option<&'a Table>,
    /// A folder for copies of databases.
    pub scratch: &'a Path,
}

/// What becomes of one path.
enum Fate {
    /// As the plan says, if it says anything.
    AsPlanned,
    /// It is held from now on, or still.
    Held(HoldId),
    /// It goes.
    Goes,
}

impl Judge<'_> {
    /// Decides what of a plan goes, and writes it anew where that is not what it says. Whether a hold was placed.
    pub fn judge(&self, plan: &mut Plan) -> Result<bool, PlanError> {
        let exceeds = plan.vanishing.exceeds(self.most);
        let tally = self.known.tally();
        let looks_for_held = plan.full && !tally.held.is_empty();
        let leaves_folders = plan.folders_gone > 0 && (tally.carries() || plan.excluded > 0);
        if !exceeds && !looks_for_held && !leaves_folders {
            return Ok(false);
        }
        let mut elsewhere = self.sought(plan, exceeds, looks_for_held)?;
        self.look(plan, &mut elsewhere, exceeds)?;
        let holds = exceeds && self.counted(plan, &elsewhere)?.exceeds(self.most);
        let releases = looks_for_held && elsewhere.contents.found_any();
        if holds || releases || leaves_folders {
            let rewrite = Rewrite {
                judge: self,
                elsewhere: &elsewhere,
                holds,
                releases,
            };
            let folders = rewrite.folders(plan)?;
            rewrite.write(plan, &folders)?;
        }
        Ok(holds)
    }

    /// What is looked for under other names.
    fn sought(&self, plan: &Plan, vanished: bool, held: bool) -> Result<Elsewhere, PlanError> {
        let (mut contents, mut nodes, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        if vanished {
            for change in plan.changes()? {
                if let Change::Gone { known, vanished: true } = change? {
                    contents.extend(content(&known));
                    nodes.extend(node(&known.entry));
                    if known.entry.kind == Kind::File && known.stored_size > 0 {
                        sizes.push(known.stored_size);
                    }
                }
            }
        }
        if held {
            for record in self.known.records()? {
                let record = record?;
                if matches!(record.standing, Standing::Held(_)) {
                    contents.extend(content(&record));
                }
            }
        }
        sizes.sort_unstable();
        sizes.dedup();
        Ok(Elsewhere {
            contents: Sought::new(contents),
            nodes: Sought::new(nodes),
            sizes,
            moved: 0,
        })
    }

    /// Looks at what stays, and, where `anew`, at what is new.
    fn look(&self, plan: &Plan, elsewhere: &mut Elsewhere, anew: bool) -> Result<(), PlanError> {
        for pair in aligned(self.known, plan)? {
            let (record, change) = pair?;
            match (record, change) {
                (Some(record), None) if record.standing.is_live() => {
                    elsewhere.contents.note(content(&record));
                }
                (
                    Some(record),
                    Some(Change::Attributes {
                        entry,
                        known: Some(known),
                    }),
                ) if entry.kind == known.entry.kind => {
                    elsewhere.contents.note(content(&record));
                }
                (_, Some(Change::Attributes { entry, .. })) => {
                    elsewhere.contents.note(content(&Record::unsaved(entry)));
                }
                (_, Some(Change::Save { entry, database, .. })) if anew => self.is_moved(&entry, database, elsewhere),
                _ => {}
            }
        }
        if anew {
            // Large files that are new are saved later; that they are there counts now.
            for path in &plan.later {
                if let Ok(Some(entry)) = self.scope.look(path)
                    && entry.kind == Kind::File
                {
                    self.is_moved(&entry, false, elsewhere);
                }
            }
        }
        Ok(())
    }

    /// Looks at a new file. What can't be read was not moved, as far as anybody knows.
    fn is_moved(&self, entry: &Entry, database: bool, elsewhere: &mut Elsewhere) {
        let is_moved = if elsewhere.nodes.note(node(entry)) {
            true
        } else if elsewhere.sizes.binary_search(&entry.size).is_ok() {
            let digest = if database {
                self.digest_of_database(entry)
            } else {
                self.digest(entry)
            };
            elsewhere.contents.note(digest.ok().map(short))
        } else {
            false
        };
        if is_moved {
            elsewhere.moved = elsewhere.moved.saturating_add(entry.size);
        }
    }

    fn digest(&self, entry: &Entry) -> io::Result<[u8; 32]> {
        digest(&mut self.scope.open(&entry.path)?)
    }

    /// As it would be saved.
    fn digest_of_database(&self, entry: &Entry) -> io::Result<[u8; 32]> {
        let source = self.scope.on_disk(&entry.path).ok_or(io::ErrorKind::NotFound)?;
        let copy = self.scratch.join("moved.db");
        database::save(&source, &copy, self.scratch, PATIENCE).map_err(io::Error::other)?;
        let digest = File::open(&copy).and_then(|mut file| digest(&mut file));
        let _ = std::fs::remove_file(&copy);
        digest
    }

    /// What vanishes, without what is elsewhere and what a restore removed.
    fn counted(&self, plan: &Plan, elsewhere: &Elsewhere) -> Result<Vanishing, PlanError> {
        let mut counted = Vanishing {
            before: plan.vanishing.before,
            grown: plan.vanishing.grown.saturating_sub(elsewhere.moved),
            ..Vanishing::default()
        };
        let mut restored = Restored::new(self.restored)?;
        for change in plan.changes()? {
            let Change::Gone { known, vanished: true } = change? else {
                continue;
            };
            if known.entry.kind != Kind::File {
                continue;
            }
            if restored.lacks(&known.entry.path)? {
                counted.before.files = counted.before.files.saturating_sub(1);
                counted.before.bytes = counted.before.bytes.saturating_sub(known.stored_size);
            } else if !elsewhere.has(&known) {
                counted.add(known.stored_size);
            }
        }
        Ok(counted)
    }
}

/// A plan that is written anew.
struct Rewrite<'a> {
    judge: &'a Judge<'a>,
    elsewhere: &'a Elsewhere,
    /// What vanishes is held.
    holds: bool,
    /// What is held and is elsewhere is let go.
    releases: bool,
}

/// A folder that may go, or be kept for what is below it.
struct Open {
    path: Vec<u8>,
    number: usize,
    /// By itself, it would be kept like this.
    own: Option<Standing>,
    has_children: bool,
    /// Something below it is kept like this.
    below: Option<Standing>,
}

impl Rewrite<'_> {
    /// What becomes of a path that is no folder.
    fn fate(
        &self,
        record: Option<&Record>,
        change: Option<&Change>,
        restored: &mut Restored,
    ) -> Result<Fate, PlanError> {
        Ok(match (record, change) {
            (_, Some(Change::Gone { known, vanished: true })) if self.holds => {
                if restored.lacks(&known.entry.path)? || self.elsewhere.has(known) {
                    Fate::Goes
                } else {
                    Fate::Held(self.judge.id)
                }
            }
            (
                Some(Record {
                    standing: Standing::Held(id),
                    ..
                }),
                None,
            ) => match record {
                Some(record) if self.releases && self.elsewhere.contents.has(content(record)) => Fate::Goes,
                _ => Fate::Held(*id),
            },
            _ => Fate::AsPlanned,
        })
    }

    /// How a folder that is gone, or held, would be kept if nothing below it were; nothing: it is none of these.
    fn folder(&self, record: Option<&Record>, change: Option<&Change>) -> Option<ByItself> {
        match (record, change) {
            (_, Some(Change::Gone { known, vanished })) if known.entry.kind == Kind::Folder => {
                let held = Standing::Held(self.judge.id);
                Some(ByItself((self.holds && *vanished).then_some(held)))
            }
            (Some(record), None) if record.entry.kind == Kind::Folder && self.releases => match record.standing {
                standing @ Standing::Held(_) => Some(ByItself(Some(standing))),
                Standing::Live | Standing::Excluded => None,
            },
            _ => None,
        }
    }

    /// How each folder in question is kept, in order; nothing: it goes.
    fn folders(&self, plan: &Plan) -> Result<Vec<Option<Standing>>, PlanError> {
        let mut decided: Vec<Option<Standing>> = Vec::new();
        let mut open: Vec<Open> = Vec::new();
        let mut restored = Restored::new(self.judge.restored)?;
        for pair in aligned(self.judge.known, plan)? {
            let (record, change) = pair?;
            let (record, change) = (record.as_ref(), change.as_ref());
            let path = path_of(record, change);
            while let Some(last) = open.pop_if(|last| !path.starts_with(&last.path)) {
                close(&last, &mut open, &mut decided);
            }
            if let Some(last) = open.last_mut() {
                last.has_children = true;
            }
            if let Some(ByItself(own)) = self.folder(record, change) {
                open.push(Open {
                    path: path.to_vec(),
                    number: decided.len(),
                    own,
                    has_children: false,
                    below: None,
                });
                decided.push(None);
                continue;
            }
            let standing = match self.fate(record, change, &mut restored)? {
                Fate::Held(id) => Some(Standing::Held(id)),
                Fate::Goes => None,
                Fate::AsPlanned => match (record, change) {
                    (_, Some(Change::Carried { record })) | (Some(record), None) => Some(record.standing),
                    _ => None,
                },
            };
            if let (Some(last), Some(standing @ (Standing::Held(_) | Standing::Excluded))) = (open.last_mut(), standing)
            {
                last.below.get_or_insert(standing);
            }
        }
        while let Some(last) = open.pop() {
            close(&last, &mut open, &mut decided);
        }
        Ok(decided)
    }

    fn write(&self, plan: &mut Plan, folders: &[Option<Standing>]) -> Result<(), PlanError> {
        let path = plan.path().with_extension("judged");
        let mut spool = Spool::create(&path)?;
        let mut restored = Restored::new(self.judge.restored)?;
        let mut folders = folders.iter();
        let mut changes = 0;
        for pair in aligned(self.judge.known, plan)? {
            let (record, change) = pair?;
            let kept = match self.folder(record.as_ref(), change.as_ref()) {
                Some(_) => folders.next().copied().flatten(),
                None => match self.fate(record.as_ref(), change.as_ref(), &mut restored)? {
                    Fate::Held(id) => Some(Standing::Held(id)),
                    Fate::Goes => None,
                    Fate::AsPlanned => {
                        if let Some(change) = change {
                            changes += 1;
                            spool.push(&change)?;
                        }
                        continue;
                    }
                },
            };
            let (is_new, record) = match (change, record) {
                (Some(Change::Gone { known, .. }), _) => (true, known),
                (_, Some(record)) => (false, record),
                _ => continue,
            };
            let change = match kept {
                Some(standing) if is_new => Change::Carried {
                    record: Record { standing, ..record },
                },
                Some(_) => continue,
                None => Change::Gone {
                    known: record,
                    vanished: false,
                },
            };
            changes += 1;
            spool.push(&change)?;
        }
        spool.finish()?;
        plan.replace(&path, changes)
    }
}

/// How a folder would be kept if nothing below it were.
struct ByItself(Option<Standing>);

/// A folder is kept for what is kept below it, and an empty one by itself.
fn close(folder: &Open, above: &mut [Open], decided: &mut [Option<Standing>]) {
    let own = folder.own.filter(|_| !folder.has_children || folder.below.is_some());
    let kept = own.or(folder.below);
    if let (Some(last), Some(standing)) = (above.last_mut(), kept) {
        last.below.get_or_insert(standing);
    }
    if let Some(slot) = decided.get_mut(folder.number) {
        *slot = kept;
    }
}

/// The snapshot that was restored, read beside a plan.
struct Restored(Option<Peekable<Records>>);

impl Restored {
    fn new(table: Option<&Table>) -> Result<Self, TableError> {
        Ok(Self(table.map(Table::records).transpose()?.map(Iterator::peekable)))
    }

    /// Whether the restore has removed this path. Paths come in order.
    fn lacks(&mut self, path: &[u8]) -> Result<bool, TableError> {
        let Some(records) = &mut self.0 else { return Ok(false) };
        while let Some(record) =
            records.next_if(|record| record.as_ref().map_or(true, |r| r.entry.path.as_slice() < path))
        {
            record?;
        }
        Ok(records
            .peek()
            .is_none_or(|record| record.as_ref().is_ok_and(|r| r.entry.path != path)))
    }
}

fn path_of<'a>(record: Option<&'a Record>, change: Option<&'a Change>) -> &'a [u8] {
    match (record, change) {
        (_, Some(change)) => change.path(),
        (Some(record), None) => &record.entry.path,
        (None, None) => b"",
    }
}

/// What is known of a path, and what is planned.
type Pair = (Option<Record>, Option<Change>);

/// What is known and what is planned, path by path.
fn aligned<'a>(
    known: &'a Known,
    plan: &Plan,
) -> Result<impl Iterator<Item = Result<Pair, PlanError>> + use<'a>, PlanError> {
    let mut records = known.records()?.peekable();
    let mut changes = plan.changes()?.peekable();
    Ok(std::iter::from_fn(move || {
        let order = match (records.peek(), changes.peek()) {
            (None, None) => return None,
            (Some(Ok(record)), Some(Ok(change))) => record.entry.path.as_slice().cmp(change.path()),
            (Some(_), None) | (Some(Err(_)), _) => Ordering::Less,
            (_, Some(_)) => Ordering::Greater,
        };
        let record = if order.is_le() {
            records.next().transpose()
        } else {
            Ok(None)
        };
        let change = if order.is_ge() {
            changes.next().transpose()
        } else {
            Ok(None)
        };
        Some(match (record, change) {
            (Ok(record), Ok(change)) => Ok((record, change)),
            (Err(error), _) => Err(error.into()),
            (_, Err(error)) => Err(error.into()),
        })
    }))
}
