//! The newest snapshot that can be read → what it has of each folder: live files, and databases that it leaves to their replicas.
//! Reads the store; indexes are kept where a restore finds them.

use super::with_causes;
use crate::agent::lease::inspect::Backup;
use crate::agent::restore::indexes_in;
use crate::agent::restore::plan::{Plan, of_snapshot};
use crate::agent::volume::marker::INCOMING;
use crate::agent::volume::own::OwnFolder;
use crate::store::index::{DatabasePosition, Entry, Standing, What};
use crate::store::indexes::Indexes;
use crate::store::snapshot::SnapshotId;
use crate::store::{Error as StoreError, Store, keys};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A snapshot, read whole.
pub(super) struct Newest {
    id: SnapshotId,
    entries: Vec<Entry>,
    databases: Vec<DatabasePosition>,
}

impl Newest {
    /// Reads it. An index that is damaged costs its snapshot.
    pub(super) async fn read(store: &dyn Store, backup: &Backup, own: &OwnFolder) -> Result<Self, StoreError> {
        let incoming = own.join(INCOMING);
        own.create().map_err(|error| StoreError::Local {
            what: format!("{} can't be made", incoming.display()),
            source: std::io::Error::other(error),
        })?;
        let folder = indexes_in(&incoming, store);
        let indexes = Indexes::new(store, &folder).known(&backup.indexes);
        let mut damaged = None;
        for id in backup.snapshots.iter().rev() {
            match indexes.read(id).await {
                Ok((header, entries)) => {
                    return Ok(Self {
                        id: *id,
                        entries,
                        databases: header.databases,
                    });
                }
                Err(error @ (StoreError::Damaged { .. } | StoreError::NotFound { .. })) => {
                    tracing::warn!("{}; the snapshot before it is looked at", with_causes(&error));
                    damaged.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(damaged.unwrap_or_else(|| StoreError::NotFound {
            destination: store.destination(),
            key: keys::SNAPSHOTS.to_owned(),
        }))
    }

    /// How many files and databases each folder has, live or not.
    pub(super) fn folders(&self) -> BTreeMap<String, u64> {
        let files = self.entries.iter().filter(|entry| matches!(entry.what, What::File(_)));
        let files = files.map(|entry| String::from_utf8_lossy(entry.place().0).into_owned());
        let databases = self.databases.iter().filter(|position| position.file.is_none());
        let mut folders = BTreeMap::new();
        for folder in files.chain(databases.map(|position| position.folder.clone())) {
            *folders.entry(folder).or_default() += 1;
        }
        folders
    }

    /// Whether something of a folder is held: somebody is to decide about it.
    pub(super) fn holds(&self, folder: &str) -> bool {
        self.entries
            .iter()
            .any(|entry| matches!(entry.standing, Standing::Held(_)) && entry.place().0 == folder.as_bytes())
    }

    /// What a restore of a folder's live files would bring, and the databases beside them.
    pub(super) fn live(mut self, folder: &str) -> (Plan, Vec<PathBuf>) {
        self.entries.retain(|entry| entry.standing.is_live());
        let databases = self
            .databases
            .iter()
            .filter(|position| position.folder == folder && position.file.is_none());
        let databases = databases.map(|position| PathBuf::from(&position.path)).collect();
        (of_snapshot(self.id, self.entries, folder, None), databases)
    }
}
