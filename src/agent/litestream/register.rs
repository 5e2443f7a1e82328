//! What is written down before Litestream sees a database: that a start has to look for it, and after which transaction of
//! its replica the run that begins counts. Part of [`Supervisor`].

use super::begun::Beginning;
use super::continuity::Before;
use super::followed::{self, Beside};
use super::lineage::Run;
use super::local;
use super::ltx::Txid;
use super::registry::{ON_VOLUME, Registered, Registry};
use super::replication::Database;
use super::supervise::{Running, Supervisor};
use crate::agent::sidecar::backup::Failure;
use crate::agent::sidecar::batch::with_sources;
use crate::agent::volume::own::OwnFolder;
use crate::store::Error;
use crate::store::claims::Holder;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

impl Supervisor {
    /// What a start has to look for is written down before Litestream sees it, and after what it counts on.
    pub(super) async fn register(
        &mut self,
        holder: &Holder,
        databases: &BTreeMap<Vec<u8>, Database>,
        starting: &BTreeSet<&'static str>,
    ) -> Result<(), Failure> {
        let known = match &self.registry {
            Some(known) => known.clone(),
            None => Registry::read_or_listed(self.store.as_ref(), (0, 0)).await?,
        };
        for (path, database) in databases {
            self.begin(holder, &known, path, database).await?;
        }
        self.registry = None;
        let databases = self.replication.databases();
        let mut next = registered(&known, &databases);
        for database in databases.values().filter(|one| starting.contains(one.profile.as_str())) {
            if let Some(entry) = next.get_mut(&database.folder, &database.path) {
                self.beginning(holder, database).note(&mut entry.beginnings);
            }
        }
        let written = self.keep(&next, known == next).await;
        self.registry = written.is_ok().then_some(next);
        written
    }

    /// A process begins to send a database, after what is beside it and in the store.
    fn beginning(&self, holder: &Holder, database: &Database) -> Beginning {
        let local = local::position(&database.file).map_or(Txid(0), |position| position.txid);
        let is_ending = self.running.contains_key(database.profile.as_str());
        Beginning::now(holder.epoch, local.max(database.sent).max(database.newest), is_ending)
    }

    /// Processes have begun to send these databases, of which this was the newest transaction then: from then on nothing of
    /// another log is a beginning. Where that can't be written, it is tried again.
    pub(super) async fn note_what_was_begun(&mut self) {
        let has_begun = |running: &Running| running.unsure.is_empty() && !running.begun.is_empty();
        let running = self.running.values().filter(|running| has_begun(running));
        let begun: BTreeMap<PathBuf, Txid> = running.flat_map(|running| running.begun.iter().cloned()).collect();
        let Some(known) = self.registry.as_ref().filter(|_| !begun.is_empty()) else {
            return;
        };
        let mut next = known.clone();
        for database in self.replication.databases().values() {
            let entry = next.get_mut(&database.folder, &database.path);
            let beginning = entry.and_then(|entry| entry.beginnings.last_mut());
            if let Some((newest, beginning)) = begun.get(&database.file).zip(beginning) {
                beginning.seen(*newest);
            }
        }
        if let Err(error) = self.keep(&next, *known == next).await {
            tracing::debug!("{}", with_sources(&error));
            return;
        }
        self.registry = Some(next);
        for running in self.running.values_mut().filter(|running| has_begun(running)) {
            running.begun.clear();
        }
    }

    /// A run begins with what has none yet in this life, and with what can't go on in the one that it had.
    async fn begin(&self, holder: &Holder, known: &Registry, path: &[u8], database: &Database) -> Result<(), Failure> {
        let Some(identity) = local::identity(&database.file) else {
            return Ok(());
        };
        let running = self.running.get(database.profile.as_str());
        let files = running.map(|running| running.files.as_slice()).unwrap_or_default();
        let is_running = files.contains(&(database.file.clone(), identity));
        // What lies beside it is another database's then, and goes.
        let is_another = !is_running && files.iter().any(|(file, _)| *file == database.file)
            || followed::beside(&database.file) != Beside::Its;
        let beside = Before::of(&database.file).filter(|_| !is_another);
        if database.run.is_some() && beside.is_some() && is_running {
            return Ok(());
        }
        let all = self.all_files(database).await?;
        let newest = all.iter().map(|file| file.max).max().unwrap_or_default();
        let listed = self.clear_beyond(database, &all).await?;
        let registered = known.get(&database.folder, &database.path);
        let mut runs = registered.map(|known| known.runs.clone()).unwrap_or_default();
        if let Some(run) = database.run {
            run.note(&mut runs);
        }
        let has_a_gap = beside.is_some_and(|beside| {
            // A store that came back old wants what was taken away here long ago.
            beside.txid() > listed && !local::has(&database.file, Txid(listed.0.saturating_add(1)))
        });
        let was_followed = runs.last().is_none_or(|last| last.after.is_some());
        let saved = self.replication.copies.get(path);
        let is_of_before = !was_followed || saved.is_some_and(|saved| saved.txid == Txid::MAX);
        let is_new = is_of_before || has_a_gap || listed < newest;
        if beside.is_some() && is_new {
            // Nobody knows what was written since by whom: it is sent as a whole, whatever lies beside it.
            local::forget(&database.file).map_err(|source| Error::Local {
                what: format!("{} can't be removed", local::folder(&database.file).display()),
                source,
            })?;
        }
        let local = beside.filter(|_| !is_new).map(|before| before.txid());
        let goes_on = local.is_some_and(|local| local >= listed);
        if database.run.is_some() && goes_on {
            return Ok(());
        }
        Run::begun(&runs, holder.epoch, listed, local).note(&mut runs);
        let replicated = registered.is_some_and(|known| known.replicated);
        self.replication.begin(path, &runs, listed, goes_on, replicated);
        Ok(())
    }

    /// Writes the registry to the store and to the volumes.
    pub(super) async fn keep(&self, registry: &Registry, same: bool) -> Result<(), Failure> {
        if !same {
            registry.write(self.store.as_ref()).await?;
        }
        for volume in &self.scope.volumes {
            let own = OwnFolder::on(&volume.path);
            let part = registry.of(&volume.folder);
            let there: Option<Registry> = own.read(ON_VOLUME).ok().flatten();
            if there.as_ref() != Some(&part)
                && let Err(error) = own.write(ON_VOLUME, &part)
            {
                // A start then goes by the store's.
                tracing::warn!("{}", with_sources(&error));
            }
        }
        Ok(())
    }
}

/// The registry as it should be.
pub(super) fn registered(known: &Registry, databases: &BTreeMap<Vec<u8>, Database>) -> Registry {
    let mut next = known.clone();
    let now = Timestamp::now();
    for database in databases.values() {
        let before = known.get(&database.folder, &database.path);
        let found = std::fs::metadata(&database.file).ok();
        let mut runs = before.map(|before| before.runs.clone()).unwrap_or_default();
        if let Some(run) = database.run {
            run.note(&mut runs);
        }
        let entry = match (&found, before) {
            (Some(found), _) => Registered {
                folder: database.folder.clone(),
                path: database.path.clone(),
                uid: found.uid(),
                gid: found.gid(),
                mode: found.mode() & 0o7777,
                replicated: database.replicated || before.is_some_and(|before| before.replicated),
                gone: None,
                needed_by: None,
                left_at: None,
                runs,
                beginnings: before.map(|before| before.beginnings.clone()).unwrap_or_default(),
            },
            (None, Some(before)) => Registered {
                gone: before.gone.or(Some(now)),
                ..before.clone()
            },
            (None, None) => continue,
        };
        next.put(entry);
    }
    next
}
