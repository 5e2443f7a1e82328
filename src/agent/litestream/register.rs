//! What is written down before Litestream sees a database: that a start has to look for it, and after which transaction of
//! its replica the run that begins counts. Part of [`Supervisor`].

use super::continuity::Before;
use super::lineage::Run;
use super::local;
use super::ltx::Txid;
use super::registry::{ON_VOLUME, Registered, Registry};
use super::replica::Replica;
use super::replication::Database;
use super::supervise::Supervisor;
use super::turn::LOOKING;
use crate::agent::sidecar::backup::Failure;
use crate::agent::sidecar::batch::with_sources;
use crate::agent::volume::own::OwnFolder;
use crate::store::Error;
use crate::store::claims::Holder;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

impl Supervisor {
    /// What a start has to look for is written down before Litestream sees it, and after what it counts on.
    pub(super) async fn register(
        &mut self,
        holder: &Holder,
        databases: &BTreeMap<Vec<u8>, Database>,
    ) -> Result<(), Failure> {
        let known = match &self.registry {
            Some(known) => known.clone(),
            None => Registry::read_or_listed(self.store.as_ref(), (0, 0)).await?,
        };
        for (path, database) in databases {
            self.begin(holder, &known, path, database).await?;
        }
        self.registry = None;
        let next = registered(&known, &self.replication.databases());
        let written = self.keep(&next, known == next).await;
        self.registry = written.is_ok().then_some(next);
        written
    }

    /// A run begins with what has none yet, and with what has lost what its run had beside it.
    async fn begin(&self, holder: &Holder, known: &Registry, path: &[u8], database: &Database) -> Result<(), Failure> {
        let beside = Before::of(&database.file);
        if local::identity(&database.file).is_none() || (database.run.is_some() && beside.is_some()) {
            return Ok(());
        }
        let listed = self.listed(database).await?;
        let registered = known.get(&database.folder, &database.path);
        let mut runs = registered.map(|known| known.runs.clone()).unwrap_or_default();
        if let Some(run) = database.run {
            run.note(&mut runs);
        }
        let was_followed = runs.last().is_none_or(|last| last.after.is_some());
        let saved = self.replication.copies.get(path);
        let has_a_gap = beside.is_some_and(|beside| {
            // A store that came back old wants what was taken away here long ago.
            beside.txid() > listed && !local::has(&database.file, Txid(listed.0.saturating_add(1)))
        });
        let is_of_before = !was_followed || saved.is_some_and(|saved| saved.txid == Txid::MAX);
        if beside.is_some() && (is_of_before || has_a_gap) {
            // Nobody knows what was written since by whom: it is sent as a whole, whatever lies beside it.
            local::forget(&database.file).map_err(|source| Error::Local {
                what: format!("{} can't be removed", local::folder(&database.file).display()),
                source,
            })?;
        }
        let local = Before::of(&database.file).map(|before| before.txid());
        Run::begun(&runs, holder.epoch, listed, local).note(&mut runs);
        let goes_on = local.is_some_and(|local| local >= listed);
        let replicated = registered.is_some_and(|known| known.replicated);
        self.replication.begin(path, &runs, listed, goes_on, replicated);
        Ok(())
    }

    /// Up to where the store has anything of a database, in whatever form.
    async fn listed(&self, database: &Database) -> Result<Txid, Failure> {
        let key = database.key();
        let replica = Replica {
            store: self.store.as_ref(),
            target: &self.target,
            key: &key,
        };
        let listed = async {
            match replica.newest().await? {
                Some(newest) => Ok(newest),
                None => Ok(replica
                    .files()
                    .await?
                    .iter()
                    .map(|file| file.max)
                    .max()
                    .unwrap_or_default()),
            }
        };
        match tokio::time::timeout(LOOKING, listed).await {
            Ok(listed) => listed,
            Err(_) => Err(Error::Unreachable {
                destination: self.store.destination(),
                why: format!("a replica was not listed within {} s", LOOKING.as_secs()),
            }
            .into()),
        }
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
                runs,
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
