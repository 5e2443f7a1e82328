//! A destination as somebody left it → a [`Site`] that can be written to: what its newest snapshot holds, and every
//! backup that was begun and not ended finished (its index is there) or undone (it is not). Only under our own claim.

use super::backup::{Failure, Site, all_done};
use super::batch::{blocking, with_sources};
use super::known::{Known, from_index};
use super::stage::mirror_name;
use super::volume::Scope;
use crate::agent::lease::check::Lease;
use crate::agent::litestream::registry::{Registered, Registry};
use crate::agent::scan::{Entry, Kind, Record, Table, TableError, TableWriter};
use crate::agent::snapshot::deletions::Deletions;
use crate::store::claims;
use crate::store::index::{self, IndexReader};
use crate::store::keys::{self, NAMES, SnapshotObject};
use crate::store::records::{Damage, Pending, VERSION, decode, encode};
use crate::store::snapshot::SnapshotId;
use crate::store::state::State;
use crate::store::{self, Depth, Store, listed, state, store_id, unwatched};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    ) -> Result<(Self, Vec<String>), Failure> {
        std::fs::create_dir_all(&scratch).map_err(|source| Failure::Scratch {
            path: scratch.clone(),
            source,
        })?;
        let mut site = Self {
            known: Arc::new(Known::nothing(scratch.join("known.table"))?),
            store,
            lease,
            scope,
            scratch,
            sequence: 0,
            databases: BTreeMap::new(),
            unfinished: true,
            unreconciled: true,
            strangers: BTreeSet::new(),
            leftovers: BTreeMap::new(),
            deletions: Deletions::default(),
            before: None,
        };
        let (store, claim) = (site.store.clone(), site.lease.holder.key());
        let databases = keys::databases();
        let mut read = store
            .read_all(&[keys::STATE, keys::STORE_ID, &claim, &databases])
            .await?;
        let state = read.remove(keys::STATE);
        let state = state.and_then(|bytes| state::of_bytes(store.as_ref(), &bytes));
        site.before.clone_from(&state);
        // Whoever was here before may have had a write under way when it ended; and between the runs of a CronJob nobody looks
        // at what came later.
        let is_quiet = |state: State| state.released && state.mode.is_none();
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
        let mut next = known.clone();
        let left = next.stop(self.lease.holder.epoch, Timestamp::now(), is_followed, is_there);
        if next != known {
            next.write(self.store.as_ref()).await?;
        }
        self.scope.copies.leave(left);
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
        let ours = seen.indexes.iter().chain(&seen.pending).chain(&seen.bases);
        let highest = ours
            .filter(|id| id.epoch == self.lease.holder.epoch)
            .map(|id| id.sequence)
            .max();
        self.sequence = self.sequence.max(highest.unwrap_or(0));
        let newest = seen.indexes.last().copied();
        if anew || newest != self.known.last() {
            self.known = Arc::new(self.learn(newest, &mut warnings).await?);
        }
        let (published, begun): (Vec<SnapshotId>, Vec<SnapshotId>) =
            seen.pending.iter().partition(|id| seen.indexes.contains(id));
        warnings.extend(self.undo_all(&begun).await?);
        for id in published.iter().rev() {
            // Where nothing is deleted, marks pile up, and nothing comes of what they ask for.
            if self.deletions.are_refused() {
                break;
            }
            if self.finish(id).await? {
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

    async fn learn(&self, newest: Option<SnapshotId>, warnings: &mut Vec<String>) -> Result<Known, Failure> {
        let Some(id) = newest else {
            return self.learn_from_mirror().await;
        };
        match self.learn_from_index(id).await {
            Err(Failure::Store(error @ store::Error::Damaged { .. })) => {
                warnings.push(format!(
                    "{}: every file is saved anew, and what the mirror has goes to history",
                    with_sources(&error)
                ));
                self.learn_from_mirror().await
            }
            other => other,
        }
    }

    async fn learn_from_index(&self, id: SnapshotId) -> Result<Known, Failure> {
        let table = self.scratch.join("known.table");
        let index = self.fetch(id).await?;
        let damaged = |id: SnapshotId| {
            let destination = self.store.destination();
            move |damage: Damage| Failure::from(damage.of(destination, keys::snapshot(&id)))
        };
        let header = read_index(&index).map_err(damaged(id))?.header().clone();
        self.scope.copies.inherit(&header);
        let (copies, is_followed) = (self.scope.copies.clone(), self.scope.replication.is_some());
        // An index does not tell databases from other files: of these it is known.
        let noted = move |entry: index::Entry| {
            let mut record = from_index(entry)?;
            record.database = is_followed && copies.get(&record.entry.path).is_some();
            Some(record)
        };
        let (base, base_id) = match header.base {
            None => (index.clone(), id),
            Some(base) => (self.fetch(base).await?, base),
        };
        let made = read_index(&base).map_err(damaged(base_id))?.header().time;
        let (base_damaged, damaged) = (damaged(base_id), damaged(id));
        blocking(move || {
            let mut writer = TableWriter::create(&table)?;
            for entry in read_index(&base).map_err(base_damaged.clone())? {
                if let Some(record) = noted(entry.map_err(base_damaged.clone())?) {
                    writer.push(&record)?;
                }
            }
            let known = Known::new(table, writer.finish()?, Some((base_id, made)), Some(id));
            let known = if base_id == id {
                known
            } else {
                let mut changes = Vec::new();
                for entry in read_index(&index).map_err(damaged.clone())? {
                    let entry = entry.map_err(damaged.clone())?;
                    changes.push(Ok((entry.path.clone(), noted(entry))));
                }
                known.changed(changes)?
            }
            .held_since(header.carried.holds.iter().map(|hold| (hold.id, hold.since)));
            for path in [&base, &index] {
                let _ = std::fs::remove_file(path);
            }
            Ok(known)
        })
        .await
    }

    /// What a snapshot holds, as a table at `path`.
    pub(super) async fn table_of(&self, id: SnapshotId, path: PathBuf) -> Result<Table, Failure> {
        let destination = self.store.destination();
        let damaged = move |damage: Damage| Failure::from(damage.of(destination.clone(), keys::snapshot(&id)));
        let index = self.fetch(id).await?;
        let base = match read_index(&index).map_err(&damaged)?.header().base {
            Some(base) => Some(self.fetch(base).await?),
            None => None,
        };
        blocking(move || {
            let mut writer = TableWriter::create(&path)?;
            let base_entries = base.as_deref().map(read_index).transpose().map_err(&damaged)?;
            let entries = index::merged(
                base_entries.into_iter().flatten(),
                read_index(&index).map_err(&damaged)?,
            );
            for entry in entries {
                if let Some(record) = from_index(entry.map_err(&damaged)?) {
                    writer.push(&record)?;
                }
            }
            for path in base.iter().chain([&index]) {
                let _ = std::fs::remove_file(path);
            }
            Ok(writer.finish()?)
        })
        .await
    }

    /// Brings an index to scratch.
    async fn fetch(&self, id: SnapshotId) -> Result<PathBuf, Failure> {
        let name = format!("{id}.json");
        let names = [name.clone()];
        let undone = self
            .store
            .download(keys::SNAPSHOTS, &names, &self.scratch, &unwatched)
            .await?;
        all_done("the newest snapshot's index could not be read", &names, undone)?;
        Ok(self.scratch.join(name))
    }

    /// For a place without snapshots (made by hand with the guide, or new): what its mirror holds, contents unknown.
    async fn learn_from_mirror(&self) -> Result<Known, Failure> {
        let mut records = Vec::new();
        for volume in &self.scope.volumes {
            let folder = keys::mirror(&volume.folder);
            for object in listed(self.store.as_ref(), &folder, Depth::All).await? {
                if !object.name.starts_with(NAMES) {
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
        let gone = self.kept_by(id, |name, known| !known.contains(name)).await?;
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

    /// The index is not there: the mirror gets back what was replaced. What was only added is found when the listing is
    /// reconciled with the index.
    async fn undo(&mut self, id: &SnapshotId) -> Result<usize, Failure> {
        let history = keys::history_of(id);
        let kept = self.kept_by(id, |_, _| true).await?;
        let undone = self.store.copy(&history, "", &kept).await?;
        all_done("the mirror could not be put back", &kept, undone)?;
        let store = self.store.clone();
        let is_gone = self.deletions.delete(store.as_ref(), &history, &kept).await?;
        if !(is_gone && self.unmark(id).await?) {
            // Before anything newer is written: it must not be undone twice.
            let mark = Pending {
                version: VERSION,
                id: *id,
                time: Timestamp::now(),
                undone: true,
            };
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

    /// The names of the mirror that a backup kept in history, as far as they are `wanted` in the light of the newest
    /// snapshot's names.
    async fn kept_by(
        &self,
        id: &SnapshotId,
        wanted: impl Fn(&str, &BTreeSet<String>) -> bool,
    ) -> Result<Vec<String>, Failure> {
        let history = keys::history_of(id);
        let mut names: Vec<String> = listed(self.store.as_ref(), &history, Depth::All)
            .await?
            .into_iter()
            .map(|object| object.name)
            .filter(|name| !name.starts_with(keys::ASIDE))
            .collect();
        if names.is_empty() {
            return Ok(names);
        }
        let among: BTreeSet<String> = names.iter().cloned().collect();
        let known = self.known.clone();
        let present = blocking(move || {
            let mut present = BTreeSet::new();
            for record in known.records()? {
                let record = record?;
                if record.entry.kind == Kind::File {
                    let name = mirror_name(&record);
                    if among.contains(&name) {
                        present.insert(name);
                    }
                }
            }
            Ok::<_, TableError>(present)
        })
        .await?;
        names.retain(|name| wanted(name, &present));
        Ok(names)
    }
}

fn read_index(path: &Path) -> Result<IndexReader<BufReader<File>>, Damage> {
    let file = File::open(path).map_err(|error| Damage::broken(error.to_string()))?;
    IndexReader::new(BufReader::new(file))
}
