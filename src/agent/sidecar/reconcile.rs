//! The store's listing × what we know of it → what the mirror has that no snapshot knows (a late write of a pod that was
//! fenced, what an undone backup had added), what it has lost, and what somebody wrote over since it was saved. The first goes
//! to history with the next full backup, the others are saved anew. Lists, and writes nothing but the mark of
//! a complete index that has lost its own.
//!
//! **Written over.** A file of the right size may be another. Its content is not looked at, which would cost as much as a
//! restore each day; but the listing tells when it was written. An object that is newer than the index of the first snapshot
//! that has it was written after that by somebody else. On a store that keeps the time of the file that was uploaded, the time
//! of the index's entry is as good as that. Where very many are so, as after the bucket was copied, the times mean nothing.
//!
//! **Written beside us.** Where a writer before us was undone that may have gone on for minutes, an object that we have written
//! in these minutes may be its own as well, and no time tells the two apart: in the end, these are saved anew.

use super::backup::{Failure, Site};
use super::batch::blocking;
use super::known::{Known, Marks, is_doubted};
use super::stage::mirror_name;
use crate::agent::scan::{Kind, Record, TableError};
use crate::store::keys::{self, NAMES, SnapshotObject};
use crate::store::snapshot::Point;
use crate::store::{Depth, Object};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Strangers beyond so many wait for the next time.
const MOST: usize = 50_000;
/// Times of two objects that lie so near each other say nothing: some stores know whole seconds only, or every second one.
const SLACK: i128 = 2_000_000_000;
/// So many files that were written over are believed, or a twentieth of all, if that is more.
const MOST_WRITTEN_OVER: usize = 100;
/// Around the moment at which a writer before us was undone, it may have written for so long.
const BESIDE: SignedDuration = SignedDuration::from_mins(6);

/// What the listing showed.
#[derive(Debug, Default)]
struct Found {
    /// Names below the destination.
    strangers: BTreeSet<String>,
    /// Paths of the index that are gone, or of another size.
    lost: Vec<Vec<u8>>,
    /// Held and excluded files that were not listed.
    unseen: u64,
    /// Paths and names of files that were written over.
    written_over: Vec<(Vec<u8>, String)>,
    /// There are more of them than is to be believed.
    too_many: bool,
    /// Paths of files that were written while somebody else may have written them.
    beside: Vec<Vec<u8>>,
}

impl Found {
    fn lose(&mut self, record: &Record) {
        if record.standing.is_live() {
            self.lost.push(record.entry.path.clone());
        } else {
            self.unseen += 1;
        }
    }
}

/// When the index of each snapshot was written, as the store says.
#[derive(Debug, Default)]
struct Published {
    indexes: BTreeMap<Point, Timestamp>,
    /// When backups of a writer before us were undone.
    undone: Vec<Option<Timestamp>>,
}

/// Whether an object has the time of the file that it is of.
fn is_its_own(record: &Record, written: Timestamp) -> bool {
    (written.as_nanosecond() - i128::from(record.entry.modified)).abs() <= SLACK
}

impl Published {
    /// When a file was there at the latest that this backup had uploaded.
    fn after(&self, stored: Point) -> Option<Timestamp> {
        self.indexes.range(stored..).next().map(|(_, time)| *time)
    }

    /// Whether an object that we have written under this epoch may be of a writer that was undone.
    fn may_be_of_another(&self, record: &Record, epoch: u64, written: Option<Timestamp>) -> bool {
        let mut undone = self.undone.iter();
        let is_near = |undone: &Option<Timestamp>| match (undone, written) {
            (Some(undone), Some(written)) => {
                let passed = written.duration_since(*undone);
                // A time before that can only be that of the file, where the store keeps it.
                passed.abs() <= BESIDE || passed.is_negative() && !is_its_own(record, written)
            }
            _ => true,
        };
        record.stored.epoch == epoch && record.digest.is_some() && !is_doubted(record) && undone.any(is_near)
    }

    /// Whether an object was written after it was saved.
    fn is_written_over(&self, record: &Record, written: Timestamp) -> bool {
        let is_its_own = is_its_own(record, written);
        let written = written.as_nanosecond();
        let after = self.after(record.stored);
        record.digest.is_some()
            && !is_doubted(record)
            && !is_its_own
            && after.is_some_and(|after| written > after.as_nanosecond() + SLACK)
    }
}

impl Site {
    /// Compares the mirror with the newest snapshot. Warnings are for the log.
    pub async fn reconcile(&mut self) -> Result<Vec<String>, Failure> {
        self.reconcile_with(false).await
    }

    /// The same, in the end of the time in which a writer before us may have written beside us.
    pub(super) async fn reconcile_late(&mut self) -> Result<Vec<String>, Failure> {
        self.reconcile_with(true).await
    }

    async fn reconcile_with(&mut self, late: bool) -> Result<Vec<String>, Failure> {
        let mut warnings = Vec::new();
        let mut published = self.published(&mut warnings).await?;
        if late && !self.undone.is_empty() {
            let mut each = |record: Object| {
                if keys::of_undone(&record.name).is_some_and(|id| self.undone.contains(&id)) {
                    published.undone.push(record.written);
                }
            };
            self.store.list(keys::SERVED, Depth::Dated, &mut each).await?;
        }
        let spool = self.scratch.join("listing");
        let failed = |source| Failure::Scratch {
            path: spool.clone(),
            source,
        };
        let mut to = BufWriter::new(File::create(&spool).map_err(failed)?);
        for volume in &self.scope.volumes {
            let folder = keys::mirror(&volume.folder);
            let mut result = Ok(());
            let mut each = |object: Object| {
                if result.is_ok() {
                    let written = object.written.map_or(0, jiff::Timestamp::as_microsecond);
                    result = write!(to, "{} {written} {folder}/{}\0", object.size, object.name);
                }
            };
            self.store.list(&folder, Depth::Dated, &mut each).await?;
            result.map_err(failed)?;
        }
        to.flush().map_err(failed)?;
        // A listing says nothing of a place that is not ours, or not there, by now.
        self.require_claim().await?;
        let (known, path) = (self.known.clone(), spool.clone());
        let folders: BTreeSet<Vec<u8>> = self
            .scope
            .volumes
            .iter()
            .map(|volume| volume.folder.clone().into_bytes())
            .collect();
        let epoch = self.lease.holder.epoch;
        let found = blocking(move || compare(&known, &folders, &published, epoch, &path)).await?;
        self.take(found, &mut warnings)?;
        self.unreconciled = false;
        self.reconciled = true;
        Ok(warnings)
    }

    /// What was found, noted.
    fn take(&mut self, found: Found, warnings: &mut Vec<String>) -> Result<(), Failure> {
        let Found {
            mut strangers,
            mut lost,
            unseen,
            written_over,
            too_many,
            beside,
        } = found;
        strangers.retain(|name| !self.deletions.leaves(name));
        let destination = self.store.destination();
        if let Some(first) = strangers.first()
            && !self.deletions.are_refused()
        {
            warnings.push(format!(
                "{destination} has {} files that no snapshot knows, such as {first}: they go to history with the next full backup",
                strangers.len()
            ));
        }
        if let Some(first) = lost.first() {
            warnings.push(format!(
                "{destination} has lost {} files, or their sizes are others, such as {}: they are saved anew",
                lost.len(),
                String::from_utf8_lossy(first)
            ));
        }
        if unseen > 0 {
            warnings.push(format!(
                "{destination} does not list {unseen} files that are held or excluded, and on no volume: they stay in each \
                 snapshot, and can be restored once the store shows them again"
            ));
        }
        if too_many {
            warnings.push(format!(
                "{destination}: very many files are newer there than the snapshots that have them, as after the bucket was \
                 copied: whether they are what they were is not known; vixens-backup agent pre-sync --verify full looks at each"
            ));
        } else if let Some((_, first)) = written_over.first() {
            warnings.push(format!(
                "{destination}: {} files were written over since they were saved, such as {first}: they are saved anew, and what \
                 lies there now goes to history",
                written_over.len()
            ));
            lost.extend(written_over.into_iter().map(|(path, _)| path));
        }
        if let Some(first) = beside.first() {
            warnings.push(format!(
                "{destination}: {} files were saved while the writer before could still write there, such as {}: they are saved \
                 anew, in case it did",
                beside.len(),
                String::from_utf8_lossy(first)
            ));
            lost.extend(beside);
            lost.sort();
            lost.dedup();
        }
        if !lost.is_empty() {
            self.known = Arc::new(self.known.doubting(lost)?);
            self.gaps = true;
        }
        self.strangers = strangers;
        self.unkept.clear();
        Ok(())
    }

    /// Names below the destination, of which somebody has seen that the mirror does not have there what it should: they are
    /// saved anew, and what is there goes to history. Returns how many of them are known.
    pub async fn save_anew(&mut self, names: &[String]) -> Result<usize, Failure> {
        let (known, names) = (self.known.clone(), names.to_vec());
        let paths = blocking(move || {
            let by_hash = if names.iter().any(|name| name.contains(NAMES)) {
                by_hash(&known)?
            } else {
                BTreeMap::new()
            };
            let mut found = Vec::new();
            for name in names {
                let path = by_hash.get(&name).map_or(name.as_bytes(), Vec::as_slice);
                let record = known.get(path)?;
                let is_it = |record: Record| {
                    record.entry.kind == Kind::File && record.standing.is_live() && mirror_name(&record) == name
                };
                if record.is_some_and(is_it) {
                    found.push(path.to_vec());
                }
            }
            Ok::<_, TableError>(found)
        })
        .await?;
        let count = paths.len();
        if count > 0 {
            self.known = Arc::new(self.known.doubting(paths)?);
            self.gaps = true;
        }
        Ok(count)
    }

    /// When the indexes were written. One that others build on and that is not there as we know it is replaced at once.
    async fn published(&mut self, warnings: &mut Vec<String>) -> Result<Published, Failure> {
        let mut published = Published::default();
        let needed = self.known.base().map(|(base, _)| base);
        let mut is_there = needed.is_none();
        let mut is_marked = needed.is_none();
        let mut each = |object: Object| match keys::of_snapshot(&object.name) {
            SnapshotObject::Index(id) => {
                is_there |= Some(id) == needed && object.size > 0;
                published
                    .indexes
                    .extend(object.written.map(|written| (id.point(), written)));
            }
            SnapshotObject::Base(id) => is_marked |= Some(id) == needed,
            _ => {}
        };
        self.store.list(keys::SNAPSHOTS, Depth::Dated, &mut each).await?;
        if let (Some(base), true, false) = (needed, is_there, is_marked) {
            warnings.push(format!(
                "{} has lost {}, by which whoever prunes knows that later snapshots build on that one: a complete index is written",
                self.store.destination(),
                keys::base(&base)
            ));
            self.require_claim().await?;
            self.store.write(&keys::base(&base), b"").await?;
        }
        if let (Some(base), false) = (needed, is_there) {
            warnings.push(format!(
                "{} has lost {}, on which later snapshots build: a complete index is written",
                self.store.destination(),
                keys::snapshot(&base)
            ));
        }
        if !(is_there && is_marked) {
            self.renew = true;
            let last = self.known.last();
            self.known = Arc::new(Known::clone(&self.known).without_base(last));
        }
        Ok(published)
    }
}

/// `folders`: those that were listed. Of others, nothing was seen, and nothing is lost. `epoch`: ours.
fn compare(
    known: &Known,
    folders: &BTreeSet<Vec<u8>>,
    published: &Published,
    epoch: u64,
    spool: &Path,
) -> Result<Found, Failure> {
    let failed = |source| Failure::Scratch {
        path: spool.to_owned(),
        source,
    };
    let by_hash = by_hash(known)?;
    let mut marks = Marks::default();
    let mut found = Found::default();
    let most = usize::try_from(known.totals().files / 20)
        .unwrap_or(usize::MAX)
        .max(MOST_WRITTEN_OVER);
    let lines = BufReader::new(File::open(spool).map_err(failed)?).split(0);
    for line in lines {
        let line = String::from_utf8(line.map_err(failed)?).map_err(|error| failed(io::Error::other(error)))?;
        let Some((size, (written, name))) = line
            .split_once(' ')
            .and_then(|(size, rest)| Some((size, rest.split_once(' ')?)))
        else {
            continue;
        };
        let path = by_hash.get(name).map_or(name.as_bytes(), Vec::as_slice);
        let record = known
            .mark(path, &mut marks)?
            .filter(|record| record.entry.kind == Kind::File && mirror_name(record) == name);
        // What is held or excluded can't be saved anew: a listing that shows it otherwise is no reason to forget it.
        let is_as_known = |record: &&Record| !record.standing.is_live() || record.stored_size.to_string() == size;
        let same = record.as_ref().filter(is_as_known);
        // What has the place of a known file goes to history when that is saved anew, and not before.
        if record.is_none() && found.strangers.len() < MOST {
            found.strangers.insert(name.to_owned());
        }
        if same.is_none()
            && let Some(record) = &record
        {
            found.lose(record);
        }
        let written = written.parse().ok().filter(|written| *written != 0);
        let written = written.and_then(|written| Timestamp::from_microsecond(written).ok());
        if let Some(same) = same
            && same.standing.is_live()
            && published.may_be_of_another(same, epoch, written)
        {
            found.beside.push(path.to_vec());
        } else if let (Some(same), Some(written)) = (same, written)
            && !found.too_many
            && same.standing.is_live()
            && published.is_written_over(same, written)
        {
            found.written_over.push((path.to_vec(), name.to_owned()));
            found.too_many = found.written_over.len() > most;
        }
    }
    for record in known.unmarked(&marks)? {
        let record = record?;
        let folder = record.entry.path.split(|byte| *byte == b'/').next().unwrap_or_default();
        if record.entry.kind == Kind::File && folders.contains(folder) {
            found.lose(&record);
        }
    }
    found.lost.sort();
    Ok(found)
}

/// The paths of files that are stored by their hash.
fn by_hash(known: &Known) -> Result<BTreeMap<String, Vec<u8>>, TableError> {
    let mut names = BTreeMap::new();
    for record in known.records()? {
        let record = record?;
        if record.entry.kind == Kind::File {
            let name = mirror_name(&record);
            if name.contains(NAMES) {
                names.insert(name, record.entry.path);
            }
        }
    }
    Ok(names)
}
