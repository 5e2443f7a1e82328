//! One database's replica as the store lists it. Reads the store.

use super::ltx::{File, LEVELS, Txid};
use super::target::Target;
use crate::store::{Depth, Error, Store, keys};

/// Where a database's replica lies.
#[derive(Clone, Copy)]
pub struct Replica<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// How Litestream names it.
    pub target: &'a Target,
    /// The replica's folder below the place.
    pub key: &'a str,
}

impl Replica<'_> {
    /// The files of a level.
    pub async fn level(&self, level: u8) -> Result<Vec<File>, Error> {
        let mut files = Vec::new();
        let folder = keys::joined(self.key, &self.target.level(level));
        self.store
            .list(&folder, Depth::All, &mut |object| {
                files.extend(File::parse(level, &object.name));
            })
            .await?;
        Ok(files)
    }

    /// The newest transaction that the store has.
    pub async fn newest(&self) -> Result<Option<Txid>, Error> {
        Ok(self.level(0).await?.into_iter().map(|file| file.max).max())
    }

    /// Everything.
    pub async fn files(&self) -> Result<Vec<File>, Error> {
        let levels = futures::future::join_all(LEVELS.map(|level| self.level(level))).await;
        let mut files = Vec::new();
        for level in levels {
            files.extend(level?);
        }
        files.sort_unstable();
        Ok(files)
    }

    /// A file's name below the replica.
    #[must_use]
    pub fn name(&self, file: &File) -> String {
        format!("{}/{}", self.target.level(file.level), file.name())
    }
}

/// The newest transaction of a replica, for whoever doesn't know how Litestream reaches the store.
pub async fn newest_of(store: &dyn Store, key: &str) -> Result<Option<Txid>, Error> {
    let mut newest = None;
    for level in ["0000", "ltx/0"] {
        let folder = keys::joined(key, level);
        let mut each = |object: crate::store::Object| {
            newest = newest.max(File::parse(0, &object.name).map(|file| file.max));
        };
        store.list(&folder, Depth::All, &mut each).await?;
    }
    Ok(newest)
}
