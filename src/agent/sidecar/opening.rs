//! A destination as somebody left it → a [`Site`] that can be written to: what its newest snapshot holds, and every
//! backup that was begun and not ended finished (its index is there) or undone (it is not). Only under our own claim.

use super::backup::{Failure, Site, Stuck};
use super::batch::{blocking, with_sources};
use super::known::{Known, doubted, from_index};
use super::stage::mirror_name;
use super::volume::Scope;
use crate::agent::lease::check::Lease;
use crate::agent::lease::handover::Arrival;
use crate::agent::litestream::registry::{Registered, Registry};
use crate::agent::litestream::replica::newest_of;
use crate::agent::scan::{Entry, Kind, Record, Table, TableError, TableWriter};
use crate::agent::snapshot::deletions::Deletions;
use crate::store::claims;
use crate::store::history::History;
use crate::store::index;
use crate::store::indexes::Indexes;
use crate::store::keys::{self, NAMES, SnapshotObject};
use crate::store::records::{Pending, VERSION, decode, encode};
use crate::store::snapshot::{Point, SnapshotId};
use crate::store::state::State;
use crate::store::{self, Depth, Store, listed, state, store_id};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What lies below `snapshots/`.
#[derive(Debug, Default)]
struct Seen {
    indexes: BTreeSet<SnapshotId>,
    pending: BTreeSet<SnapshotId>,
    /// Marks of complete indexes; one alone is of a backup that ended before its index was there.
    bases: BTreeSet<SnapshotId>,
}

impl Seen {
    async fn list(store: &dyn Store) -> Result<Self, store::Error> {
        let mut seen = Self::default();
        let mut newer = None;
        let mut each = |object: store::Object| match keys::of_snapshot(&object.name) {
            SnapshotObject::Index(id) => {
                seen.indexes.insert(id);
            }
            SnapshotObject::Pending(id) => {
                seen.pending.insert(id);
            }
            SnapshotObject::Base(id) => {
                seen.bases.insert(id);
            }
            SnapshotObject::Newer => newer = Some(object.name),
            SnapshotObject::Foreign => {}
        };
        store.list(keys::SNAPSHOTS, Depth::All, &mut each).await?;
        match newer {
            Some(name) => Err(keys::newer(&store.destination(), &name)),
            None => Ok(seen),
        }
    }
}

impl Site {
    /// Opens a destination under our claim. Warnings are for the log.
    pub async fn open(
        store: Arc<dyn Store>,
        lease: Lease,
        scope: Arc<Scope>,
        scratch: PathBuf,
        arrival: Arrival,
    ) -> Result<(Self, Vec<String>), Failure> {
        std::fs::create_dir_all(&scratch).map_err(|source| Failure::Scratch {
            path: scratch.clone(),
            source,
        })?;
        let mut site = Self {
            known: Arc::new(Known::nothing(scratch.join("known.table"))?),
            store,
            elsewhere: Vec::new(),
            lease,
            scope,
            scratch,
            sequence: 0,
            databases: BTreeMap::new(),
            unfinished: true,
            unreconciled: true,
            reconciled: false,
            beside: arrival == Arrival::Beside,
            beside_since: None,
            looked_back: false,
            undone: BTreeSet::new(),
            strangers: BTreeSet::new(),
            leftovers: BTreeMap::new(),
            deletions: Deletions::default(),
            stuck: Stuck::default(),
            unkept: BTreeSet::new(),
            before: None,
            pruning: None,
            named: None,
            learned: None,
            renew: false,
            gaps: false,
        };
        let (store, claim) = (site.store.clone(), site.lease.holder.key());
        let databases = keys::databases();
        let mut read = store
            .read_all(&[keys::STATE, keys::STORE_ID, &claim, &databases])
            .await?;
        let state = read.remove(keys::STATE);
        let state = state.and_then(|bytes| state::of_bytes(store.as_ref(), &bytes));
        site.before.clone_from(&state);
        site.beside_since = site.beside.then(|| site.since(state.as_ref()));
        site.named = state.as_ref().and_then(|state| state.last);
        site.pruning = state.as_ref().and_then(|state| state.pruning.clone());
        // Whoever was here before may have had a write under way when it ended; and between the runs of a CronJob nobody looks
        // at what came later.
        let is_quiet = |state: State| state.released && !state.owed && !state.beside && state.mode.is_none();
        site.unreconciled = !state.is_some_and(is_quiet);
        if let Some(bytes) = read.remove(&claim) {
            site.lease.read_as(store.as_ref(), &bytes);
        }
        let mut warnings = site.settle(true).await?;
        // Now that the place is seen to be ours.
        let found = read.remove(keys::STORE_ID);
        let found = found.and_then(|bytes| store_id::of_bytes(store.as_ref(), &bytes));
        site.lease.identify(store.as_ref(), found).await?;
        if let Some(bytes) = read.remove(&databases) {
            site.stop_following(&bytes, &mut warnings).await?;
        }
        Ok((site, warnings))
    }

    /// Writes down which databases have a replica here that nobody follows from now on: what is saved of them is newer.
    async fn stop_following(&self, registry: &[u8], warnings: &mut Vec<String>) -> Result<(), Failure> {
        let known = match Registry::of_bytes(self.store.as_ref(), registry) {
            Ok(known) => known,
            Err(error) => {
                warnings.push(with_sources(&error));
                return Ok(());
            }
        };
        let volume = |database: &Registered| {
            let mut volumes = self.scope.volumes.iter();
            volumes.find(|volume| volume.folder == database.folder)
        };
        let replication = self.scope.replication.as_deref();
        let is_followed = |database: &Registered| {
            // Whatever comes of a volume that is not ours to look at.
            volume(database).is_none()
                || replication.is_some_and(|replication| replication.profile_of(database.path.as_bytes()).is_some())
        };
        let is_there = |database: &Registered| {
            volume(database).is_some_and(|volume| volume.path.join(&database.path).symlink_metadata().is_ok())
        };
        let followed = known.databases.iter().filter(|database| is_followed(database));
        let runs = followed.filter_map(|database| Some((database.path_of_index(), *database.runs.last()?)));
        self.scope.copies.followed(runs);
        let mut next = known.clone();
        let mut paths = Vec::new();
        for left in next.stop(self.lease.holder.epoch, Timestamp::now(), is_followed, is_there) {
            if left.left_at.is_none() {
                left.left_at = Some(newest_of(self.store.as_ref(), &left.key()).await?.unwrap_or_default());
            }
            paths.push((left.path_of_index(), left.left_at));
        }
        if next != known {
            next.write(self.store.as_ref()).await?;
        }
        self.scope.copies.leave(paths);
        Ok(())
    }

    /// Finishes or undoes what was begun, and learns anew what the newest snapshot holds where that may be another.
    pub async fn settle(&mut self, anew: bool) -> Result<Vec<String>, Failure> {
        let mut warnings = Vec::new();
        // A backup whose end is not known may have made some of them known.
        self.unreconciled |= !self.strangers.is_empty();
        let (claims, seen) = futures::join!(claims::list(self.store.as_ref()), Seen::list(self.store.as_ref()));
        self.lease.check_in(self.store.as_ref(), &claims?).await?;
        let seen = seen?;
        let ours = seen
            .indexes
            .iter()
            .chain(&seen.pending)
            .chain(&seen.bases)
            .chain(&self.named);
        let highest = ours
            .filter(|id| id.epoch == self.lease.holder.epoch)
            .map(|id| id.sequence)
            .max();
        self.sequence = self.sequence.max(highest.unwrap_or(0));
        let newest = seen.indexes.last().copied();
        if anew || newest != self.known.last() {
            self.known = Arc::new(self.learn(&seen, &mut warnings).await?);
        }
        let (published, begun): (Vec<SnapshotId>, Vec<SnapshotId>) =
            seen.pending.iter().partition(|id| seen.indexes.contains(id));
        warnings.extend(self.undo_all(&begun).await?);
        if anew && self.beside {
            warnings.extend(self.undo_again().await?);
        }
        for id in published.iter().rev() {
            // Where nothing is deleted, marks pile up, and nothing comes of what they ask for.
            if self.deletions.are_refused() {
                break;
            }
            // Where its index can't be read, nobody knows which files it deleted: what the mirror has of them belongs to no
            // snapshot that can be, and goes to history with the next full backup.
            let is_known = self.learned.is_some_and(|learned| *id <= learned);
            let is_finished = if is_known {
                self.finish(id).await?
            } else {
                self.unmark(id).await?
            };
            if is_finished {
                warnings.push(format!("the backup {id} was finished: its index was there"));
            }
        }
        if self.unreconciled && self.known.last().is_some() {
            warnings.extend(self.reconcile().await?);
        }
        // Without a snapshot, the listing is all that is known.
        self.unreconciled = false;
        self.unfinished = false;
        Ok(warnings)
    }

    /// What the newest snapshot holds. Where its index is lost: what the newest that can be read holds; files that were replaced
    /// since, and what was added since, are saved anew, and what the mirror has of them goes to history. A complete index is
    /// written at once then, of all that is on the volume.
    async fn learn(&mut self, seen: &Seen, warnings: &mut Vec<String>) -> Result<Known, Failure> {
        let newest = seen.indexes.last().copied();
        // One that was published, and is not listed any more.
        let unlisted = self
            .named
            .filter(|named| Some(named.point()) > newest.map(|id| id.point()));
        let mut lost = Vec::new();
        for id in unlisted.into_iter().chain(seen.indexes.iter().rev().copied()) {
            let result = if lost.is_empty() {
                self.learn_from_index(id, &BTreeSet::new()).await
            } else {
                let history = History::list(self.store.as_ref()).await?;
                let replaced = history.replaced_after(&id).map(str::to_owned).collect();
                self.learn_from_index(id, &replaced).await
            };
            match result {
                Ok(known) if lost.is_empty() => {
                    self.learned = Some(id);
                    return Ok(known);
                }
                Ok(known) => {
                    warnings.push(format!(
                        "{}: what the snapshot {id} does not know is saved anew, and a complete index is written",
                        lost.join("; ")
                    ));
                    self.learned = Some(id);
                    (self.renew, self.gaps) = (true, true);
                    return Ok(known.without_base(newest));
                }
                Err(Failure::Store(error @ (store::Error::Damaged { .. } | store::Error::NotFound { .. }))) => {
                    lost.push(with_sources(&error));
                }
                Err(error) => return Err(error),
            }
        }
        if !lost.is_empty() {
            warnings.push(format!(
                "{}: every file is saved anew, and what the mirror has goes to history",
                lost.join("; ")
            ));
            self.renew = true;
        }
        self.learned = None;
        let known = self.learn_from_mirror().await?;
        self.gaps |= known.totals().files > 0;
        Ok(known.without_base(newest))
    }

    /// What a snapshot holds; of these files, as the mirror names them, it is not known what the mirror has.
    async fn learn_from_index(&mut self, id: SnapshotId, replaced: &BTreeSet<String>) -> Result<Known, Failure> {
        let table = self.scratch.join("known.table");
        // What an attempt before this left here is not what the store has.
        let _ = std::fs::remove_dir_all(self.scratch.join(keys::SNAPSHOTS));
        let indexes = Indexes::new(self.store.as_ref(), &self.scratch);
        let header = indexes.header(&id).await?;
        self.scope.copies.inherit(&header);
        let (copies, is_followed) = (self.scope.copies.clone(), self.scope.replication.is_some());
        // An index does not tell databases from other files: of these it is known.
        let replaced = Arc::new(replaced.clone());
        let noted = move |entry: index::Entry| {
            let mut record = from_index(entry)?;
            record.database = is_followed && copies.get(&record.entry.path).is_some();
            let is_file = record.entry.kind == Kind::File;
            if is_file && !replaced.is_empty() && replaced.contains(&mirror_name(&record)) {
                return Some(doubted(record));
            }
            Some(record)
        };
        // A twin's base is not that of its index, which is complete.
        let difference = match header.base.filter(|_| indexes.broken().is_empty()) {
            Some(base) => Some((base, indexes.difference(&id).await?)),
            None => None,
        };
        let base = difference.as_ref().map_or(id, |(base, _)| *base);
        let (made, written) = tabled(&indexes, &base, table.clone(), noted.clone()).await?;
        let is_sound = indexes.broken().is_empty();
        if !is_sound {
            // What it is read from in its place is the last way to it.
            self.renew = true;
        }
        let _ = std::fs::remove_dir_all(self.scratch.join(keys::SNAPSHOTS));
        let holds = header.carried.holds.into_iter().map(|hold| (hold.id, hold.since));
        blocking(move || {
            let known = Known::new(table, written, is_sound.then_some((base, made.time)), Some(id));
            let known = match difference {
                Some((_, Some(difference))) => {
                    let changes = difference.into_iter();
                    known.changed(changes.map(|entry| Ok((entry.path.clone(), noted(entry)))))?
                }
                _ => known,
            };
            Ok::<_, Failure>(known.held_since(holds))
        })
        .await
    }

    /// What a snapshot of any destination holds, as a table at `path`.
    pub(super) async fn table_of(&self, store: &dyn Store, id: SnapshotId, path: PathBuf) -> Result<Table, Failure> {
        // What lies there is of another attempt, and may be of another destination.
        let clear = || std::fs::remove_dir_all(self.scratch.join(keys::SNAPSHOTS));
        let _ = clear();
        let indexes = Indexes::new(store, &self.scratch);
        let result = tabled(&indexes, &id, path, from_index).await;
        let _ = clear();
        Ok(result?.1)
    }

    /// For a place without snapshots (made by hand with the guide, or new): what its mirror holds, contents unknown.
    async fn learn_from_mirror(&self) -> Result<Known, Failure> {
        let mut records = Vec::new();
        for volume in &self.scope.volumes {
            let folder = keys::mirror(&volume.folder);
            for object in listed(self.store.as_ref(), &folder, Depth::All).await? {
                if !object.name.starts_with(NAMES) && !keys::is_partial(&object.name) {
                    records.push(Record {
                        stored_size: object.size,
                        ..Record::unsaved(Entry::only_listed(
                            format!("{folder}/{}", object.name).into_bytes(),
                            object.size,
                        ))
                    });
                }
            }
        }
        records.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        let table = self.scratch.join("known.table");
        blocking(move || {
            let mut writer = TableWriter::create(&table)?;
            for record in &records {
                writer.push(record)?;
            }
            Ok::<_, TableError>(Known::new(table, writer.finish()?, None, None))
        })
        .await
        .map_err(Failure::from)
    }

    /// The index is there: what it deleted leaves the mirror, if it is still there. Whether all of that was done.
    async fn finish(&mut self, id: &SnapshotId) -> Result<bool, Failure> {
        let gone = self.kept_by(id, |stored| stored.is_none()).await?;
        let gone: Vec<String> = gone.into_iter().map(|(name, _)| name).collect();
        let store = self.store.clone();
        let is_gone = self.deletions.delete(store.as_ref(), "", &gone).await?;
        Ok(self.unmark(id).await? && is_gone)
    }

    /// Takes a pending mark away; whether it is gone.
    async fn unmark(&mut self, id: &SnapshotId) -> Result<bool, Failure> {
        let (store, mark) = (self.store.clone(), [format!("{id}.pending")]);
        Ok(self.deletions.delete(store.as_ref(), keys::SNAPSHOTS, &mark).await?)
    }

    /// Undoes backups that have no index. One that was undone before, and whose mark could not be removed, says so: the mirror
    /// is newer by now.
    async fn undo_all(&mut self, begun: &[SnapshotId]) -> Result<Vec<String>, Failure> {
        let keys: Vec<String> = begun.iter().map(keys::pending).collect();
        let wanted: Vec<&str> = keys.iter().map(String::as_str).collect();
        let marks = if wanted.is_empty() {
            store::Contents::new()
        } else {
            self.store.read_all(&wanted).await?
        };
        let mut warnings = Vec::new();
        for (id, key) in begun.iter().zip(&keys) {
            // A mark that can't be read is one all the same.
            let mark = marks.get(key).and_then(|bytes| decode::<Pending>(bytes).ok());
            if mark.is_some_and(|mark| mark.undone) {
                if !self.deletions.are_refused() {
                    self.unmark(id).await?;
                }
                continue;
            }
            let restored = self.undo(id).await?;
            self.unreconciled = true;
            warnings.push(format!(
                "the backup {id} was undone: it had ended before its index was there; {restored} files of the mirror are what they were before"
            ));
        }
        Ok(warnings)
    }

    /// The index is not there: the mirror gets back what was replaced, but for what a later backup has replaced again. What was
    /// only added is found when the listing is reconciled with the index.
    ///
    /// While the writer that began it may still write, what it kept stays in history, and it is written down that it was undone
    /// (not by its mark: a former release undoes whatever has one, over all that came since). Whatever it does to the mirror yet,
    /// the snapshots before it can be restored, and the mirror gets it back once more in the end, by whoever is here then.
    async fn undo(&mut self, id: &SnapshotId) -> Result<usize, Failure> {
        let kept = self.put_back(id).await?;
        let (store, history) = (self.store.clone(), keys::history_of(id));
        let mark = Pending {
            version: VERSION,
            id: *id,
            time: Timestamp::now(),
            undone: true,
        };
        let is_gone = if self.may_go_on(id) {
            store.write(&keys::undone(id), &encode(&mark)).await?;
            self.undone.insert(*id);
            true
        } else {
            self.deletions.delete(store.as_ref(), &history, &kept).await?
        };
        if !(is_gone && self.unmark(id).await?) {
            // Before anything newer is written: it must not be undone twice.
            store.write(&keys::pending(id), &encode(&mark)).await?;
        }
        Ok(kept.len())
    }

    /// Once a day: what was refused may be allowed by now.
    pub async fn delete_again(&mut self) -> Result<(), Failure> {
        if self.deletions.are_refused() {
            let store = self.store.clone();
            self.require_claim().await?;
            self.deletions.try_again(store.as_ref()).await?;
            // Marks are looked through.
            self.unfinished = true;
        }
        Ok(())
    }

    /// Looks again for what a writer before us, which had not let go when we came, has begun or sent since; the last time
    /// `for_good`. Warnings are for the log.
    pub async fn look_back(&mut self, for_good: bool) -> Result<Vec<String>, Failure> {
        let mut warnings = self.settle(false).await?;
        if for_good {
            let (store, undone) = (self.store.clone(), self.undone.clone());
            for id in &undone {
                let restored = self.put_back(id).await?;
                self.deletions
                    .delete(store.as_ref(), &keys::history_of(id), &restored)
                    .await?;
                warnings.extend(undone_again(id, restored.len()));
            }
            warnings.extend(self.reconcile_late().await?);
            self.looked_back = true;
            if !self.gaps {
                self.let_go().await?;
            }
        }
        Ok(warnings)
    }

    /// Nothing is left of the writer before us: nobody looks for it any more.
    pub(super) async fn let_go(&mut self) -> Result<(), Failure> {
        let (store, undone) = (self.store.clone(), self.undone.clone());
        if !undone.is_empty() {
            // Whoever has taken the place over since needs the records.
            self.require_claim().await?;
        }
        for id in &undone {
            let name = [keys::name_of_undone(id)];
            if !self.deletions.delete(store.as_ref(), keys::SERVED, &name).await? {
                // It says nothing any more.
                store.write(&keys::undone(id), b"").await?;
            }
        }
        self.undone.clear();
        (self.beside, self.beside_since, self.looked_back) = (false, None, false);
        Ok(())
    }

    /// Undoes once more what somebody before us has undone: its writer may have gone on since.
    async fn undo_again(&mut self) -> Result<Vec<String>, Failure> {
        let mut warnings = Vec::new();
        for record in listed(self.store.as_ref(), keys::SERVED, Depth::All).await? {
            let id = keys::of_undone(&record.name).filter(|id| record.size > 0 && self.may_go_on(id));
            if let Some(id) = id
                && self.undone.insert(id)
            {
                let restored = self.put_back(&id).await?;
                warnings.extend(undone_again(&id, restored.len()));
                self.unreconciled = true;
            }
        }
        Ok(warnings)
    }

    /// Whether a backup is of a writer before us that may still be at it.
    fn may_go_on(&self, id: &SnapshotId) -> bool {
        self.beside && id.epoch < self.lease.holder.epoch
    }

    /// Since when we are beside somebody: one of us that had our claim may have been here before, by the same clock.
    fn since(&self, before: Option<&State>) -> Timestamp {
        let ours = &self.lease.holder;
        let is_ours = |state: &&State| state.beside && state.epoch == ours.epoch && state.volume_id == ours.volume_id;
        let now = Timestamp::now();
        let since = before.filter(is_ours).and_then(|state| state.beside_since);
        since.map_or(now, |since| since.min(now))
    }

    /// For how long we have been beside somebody.
    #[must_use]
    pub fn beside_for(&self) -> Duration {
        let since = self.beside_since.map(|since| Timestamp::now().duration_since(since));
        since.and_then(|passed| passed.try_into().ok()).unwrap_or_default()
    }

    /// The mirror gets back what a backup that has no index has replaced, but for what a later backup has replaced again, and for
    /// halves of copies, as a store leaves them that loses power: what those were of is in the mirror still. The names of it, but
    /// for what the store can't put back: that stays in history, where it can be told by its hash, and is saved anew.
    async fn put_back(&mut self, id: &SnapshotId) -> Result<Vec<String>, Failure> {
        let is_newest = self.known.last().is_none_or(|newest| newest < *id);
        let is_before = |stored: Option<Point>| stored.map_or(is_newest, |stored| stored < id.point());
        let kept = self.kept_by(id, is_before).await?;
        let whole: Vec<String> = kept
            .iter()
            .filter(|(_, is_whole)| *is_whole)
            .map(|(name, _)| name.clone())
            .collect();
        let undone = self.store.copy(&keys::history_of(id), "", &whole).await?;
        let stuck: BTreeSet<String> = undone.into_iter().map(|one| one.name).collect();
        if let Some(first) = stuck.first() {
            // Should the store have gone, all of it is put back once it is here again.
            self.require_claim().await?;
            tracing::warn!(
                destination = %self.store.destination(),
                "{} files of the mirror, such as {first}, can't be put back as they were before the backup {id}: history keeps them, \
                 and they are saved anew",
                stuck.len()
            );
            let names: Vec<String> = stuck.iter().cloned().collect();
            self.save_anew(&names).await?;
        }
        let names = kept.into_iter().map(|(name, _)| name);
        Ok(names.filter(|name| !stuck.contains(name)).collect())
    }

    /// The names of the mirror that a backup kept in history, as far as they are `wanted` in the light of which backup has
    /// stored what the newest snapshot has under each of them; and whether they are whole, as far as their size tells.
    async fn kept_by(
        &self,
        id: &SnapshotId,
        wanted: impl Fn(Option<Point>) -> bool,
    ) -> Result<Vec<(String, bool)>, Failure> {
        let history = keys::history_of(id);
        let objects = listed(self.store.as_ref(), &history, Depth::All).await?.into_iter();
        let objects: Vec<(String, u64)> = objects
            .filter(|object| !object.name.starts_with(keys::ASIDE))
            .map(|object| (object.name, object.size))
            .collect();
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let among: BTreeSet<String> = objects.iter().map(|(name, _)| name.clone()).collect();
        let known = self.known.clone();
        let present = blocking(move || {
            let mut present = BTreeMap::new();
            for record in known.records()? {
                let record = record?;
                if record.entry.kind == Kind::File {
                    let name = mirror_name(&record);
                    if among.contains(&name) {
                        present.insert(name, (record.stored, record.stored_size));
                    }
                }
            }
            Ok::<_, TableError>(present)
        })
        .await?;
        let named = objects.into_iter().filter_map(|(name, size)| {
            let known = present.get(&name);
            let is_whole = known.is_none_or(|(_, stored)| *stored == size);
            wanted(known.map(|(stored, _)| *stored)).then_some((name, is_whole))
        });
        Ok(named.collect())
    }
}

/// What is said of a backup that was undone before.
fn undone_again(id: &SnapshotId, restored: usize) -> Option<String> {
    (restored > 0).then(|| {
        format!(
            "the backup {id} of the writer before was undone once more, in case it has written since: {restored} files of the \
             mirror are what they were before"
        )
    })
}

/// Writes a snapshot's entries to a table at `path`, as `noted` has them.
async fn tabled(
    indexes: &Indexes<'_>,
    id: &SnapshotId,
    path: PathBuf,
    noted: impl Fn(index::Entry) -> Option<Record> + Send + Sync + 'static,
) -> Result<(index::Header, Table), Failure> {
    let read = indexes.all(id, move |entries| {
        let mut writer = TableWriter::create(&path)?;
        for entry in entries {
            if let Some(record) = noted(entry?) {
                writer.push(&record)?;
            }
        }
        Ok::<_, Failure>(writer.finish()?)
    });
    read.await
}
