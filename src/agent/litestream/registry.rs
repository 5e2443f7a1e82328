//! `database/.vixens-databases.json`: which databases of a place have, or are about to have, a replica, and whose their files
//! are. Written by the claim's holder before Litestream first sees a database, and kept on each volume too, so that a start
//! without a store knows what to look at. A type ↔ an object.

use super::begun::Beginning;
use super::lineage::Run;
use super::ltx::Txid;
use crate::store::keys;
use crate::store::records::{VERSION, decode, encode};
use crate::store::snapshot::SnapshotId;
use crate::store::{Depth, Error, Object, Store};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The copy in our folder on a volume.
pub const ON_VOLUME: &str = "databases.json";
/// A database that was gone for so long while its app ran on is not missed.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// The databases of a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// See [`VERSION`].
    pub version: u32,
    /// Sorted by folder and path.
    pub databases: Vec<Registered>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Its volume's folder.
    pub folder: String,
    /// Its path on the volume.
    pub path: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// A replica of it was seen in the store.
    pub replicated: bool,
    /// Since when it has not been on the volume, where that was noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Timestamp>,
    /// The newest snapshot when that was noticed: it and those before may name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_by: Option<SnapshotId>,
    /// What the replica had when somebody had the place who does not follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_at: Option<Txid>,
    /// Who followed it, the last one last; written before Litestream begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Run>,
    /// Where processes of Litestream began to send it, the last one last; written before each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beginnings: Vec<Beginning>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            version: VERSION,
            databases: Vec::new(),
        }
    }
}

impl Registered {
    /// Where its replica lies.
    #[must_use]
    pub fn key(&self) -> String {
        keys::database(&self.folder, &self.path)
    }

    /// Its path of the index.
    #[must_use]
    pub fn path_of_index(&self) -> Vec<u8> {
        format!("{}/{}", self.folder, self.path).into_bytes()
    }

    /// Whether its replica was followed by the last one who had the place.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.runs.last().is_none_or(|last| last.after.is_some())
    }

    /// Whether it belongs to what a restore of now brings.
    #[must_use]
    pub fn is_missed(&self, now: Timestamp) -> bool {
        self.gone.is_none_or(|gone| now.duration_since(gone) < FORGOTTEN_AFTER)
    }
}

impl Registry {
    /// Reads it; an empty one where there is none.
    pub async fn read(store: &dyn Store) -> Result<Self, Error> {
        match store.read(&keys::databases()).await {
            Ok(bytes) => Self::of_bytes(store, &bytes),
            Err(error) if error.is_not_found() || matches!(error, Error::NoBucket { .. }) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Reads it; where it is damaged, what a listing of the replicas tells: which there are. Their files are given to this user
    /// and group.
    pub async fn read_or_listed(store: &dyn Store, owner: (u32, u32)) -> Result<Self, Error> {
        match Self::read(store).await {
            Err(error @ Error::Damaged { .. }) => {
                tracing::error!("{error}: which databases have a replica is seen by listing them");
                Self::listed(store, owner).await
            }
            other => other,
        }
    }

    async fn listed(store: &dyn Store, (uid, gid): (u32, u32)) -> Result<Self, Error> {
        let mut found = BTreeSet::new();
        let mut each = |object: Object| {
            // What Litestream keeps below a replica's folder, in this version and the one before.
            let below = ["/ltx/", "/generations/"].map(|below| object.name.find(below));
            let root = below.into_iter().flatten().min().and_then(|end| object.name.get(..end));
            if let Some((folder, path)) = root.and_then(|root| root.split_once('/')) {
                found.insert((folder.to_owned(), path.to_owned()));
            }
        };
        store.list(keys::DATABASE, Depth::All, &mut each).await?;
        let databases = found.into_iter().map(|(folder, path)| Registered {
            folder,
            path,
            uid,
            gid,
            mode: 0o644,
            replicated: true,
            gone: None,
            needed_by: None,
            left_at: None,
            runs: Vec::new(),
            beginnings: Vec::new(),
        });
        Ok(Self {
            databases: databases.collect(),
            ..Self::default()
        })
    }

    /// The one in these bytes of a store.
    pub fn of_bytes(store: &dyn Store, bytes: &[u8]) -> Result<Self, Error> {
        decode(bytes).map_err(|damage| damage.of(store.destination(), keys::databases()))
    }

    /// Writes it.
    pub async fn write(&self, store: &dyn Store) -> Result<(), Error> {
        store.write(&keys::databases(), &encode(self)).await
    }

    /// The part of one volume.
    #[must_use]
    pub fn of(&self, folder: &str) -> Self {
        let databases = self.databases.iter();
        Self {
            databases: databases.filter(|one| one.folder == folder).cloned().collect(),
            ..*self
        }
    }

    /// One database.
    #[must_use]
    pub fn get(&self, folder: &str, path: &str) -> Option<&Registered> {
        self.databases
            .iter()
            .find(|one| one.folder == folder && one.path == path)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, folder: &str, path: &str) -> Option<&mut Registered> {
        self.databases
            .iter_mut()
            .find(|one| one.folder == folder && one.path == path)
    }

    /// Notes that under this claim nobody follows the databases that are not `followed`, and which of them are gone: what
    /// is known of them.
    pub fn stop(
        &mut self,
        epoch: u64,
        now: Timestamp,
        followed: impl Fn(&Registered) -> bool,
        is_there: impl Fn(&Registered) -> bool,
    ) -> Vec<&mut Registered> {
        let mut left = Vec::new();
        for database in self.databases.iter_mut().filter(|database| !followed(database)) {
            if database.is_followed() {
                Run::none(epoch).note(&mut database.runs);
                database.left_at = None;
            }
            if is_there(database) {
                (database.gone, database.needed_by) = (None, None);
            } else {
                database.gone.get_or_insert(now);
            }
            left.push(database);
        }
        left
    }

    /// Adds a database, or changes what is known of it.
    pub fn put(&mut self, database: Registered) {
        self.forget(&database);
        self.databases.push(database);
        self.databases
            .sort_by(|a, b| (&a.folder, &a.path).cmp(&(&b.folder, &b.path)));
    }

    /// Takes a database out.
    pub fn forget(&mut self, database: &Registered) {
        self.databases
            .retain(|one| (&one.folder, &one.path) != (&database.folder, &database.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    fn database(path: &str) -> Registered {
        Registered {
            folder: "config".to_owned(),
            path: path.to_owned(),
            uid: 1000,
            gid: 1000,
            mode: 0o640,
            replicated: false,
            gone: None,
            needed_by: None,
            left_at: None,
            runs: Vec::new(),
            beginnings: Vec::new(),
        }
    }

    #[tokio::test]
    async fn it_comes_back_as_it_was_written_and_is_empty_where_there_is_none() {
        let store = Memory::default();
        assert_eq!(Registry::read(&store).await.unwrap(), Registry::default());
        let mut registry = Registry::default();
        registry.put(database("b.db"));
        registry.put(database("a.db"));
        registry.put(Registered {
            replicated: true,
            ..database("b.db")
        });
        registry.write(&store).await.unwrap();
        let read = Registry::read(&store).await.unwrap();
        assert_eq!(read, registry);
        let names: Vec<&str> = read.databases.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(names, ["a.db", "b.db"]);
        assert!(read.get("config", "b.db").unwrap().replicated);
        assert_eq!(read.of("other").databases, []);
    }

    #[tokio::test]
    async fn one_of_a_newer_release_or_cut_off_is_never_empty() {
        let store = Memory::default();
        let read = async |text: &str| {
            store.write(&keys::databases(), text.as_bytes()).await.unwrap();
            Registry::read(&store).await
        };
        let newer = read(r#"{"version": 9, "databases": {}}"#).await;
        assert!(matches!(newer, Err(Error::Newer { .. })), "{newer:?}");
        let cut = read(r#"{"version": 1, "databa"#).await;
        assert!(matches!(cut, Err(Error::Damaged { .. })), "{cut:?}");
        // Then the replicas themselves are looked for.
        for key in [
            "database/config/a.db/ltx/0/0000000000000001-0000000000000001.ltx",
            "database/config/a.db/ltx/9/0000000000000001-0000000000000009.ltx",
            "database/config/sub/b.db/generations/0123456789abcdef/snapshots/00000000.snapshot.lz4",
            "database/.DS_Store",
        ] {
            store.write(key, b"x").await.unwrap();
        }
        let listed = Registry::read_or_listed(&store, (7, 8)).await.unwrap();
        let paths: Vec<&str> = listed.databases.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["a.db", "sub/b.db"]);
        assert!(
            listed
                .databases
                .iter()
                .all(|one| one.replicated && (one.uid, one.gid) == (7, 8))
        );
    }

    #[test]
    fn a_database_that_was_gone_for_an_hour_is_not_missed() {
        let now: Timestamp = "2026-11-22T13:00:00Z".parse().unwrap();
        let gone = |time: &str| Registered {
            gone: Some(time.parse().unwrap()),
            ..database("a.db")
        };
        assert!(database("a.db").is_missed(now));
        assert!(gone("2026-11-22T12:30:00Z").is_missed(now));
        assert!(!gone("2026-11-22T11:30:00Z").is_missed(now));
    }

    #[test]
    fn what_nobody_follows_is_written_down_once_and_what_is_gone_with_it() {
        let now: Timestamp = "2026-11-22T13:00:00Z".parse().unwrap();
        let mut registry = Registry::default();
        for path in ["a.db", "b.db", "c.db"] {
            let mut database = database(path);
            Run::begun(&[], 3, Txid(0), None).note(&mut database.runs);
            registry.put(database);
        }
        let stop = |registry: &mut Registry, epoch, now| {
            let left = registry.stop(epoch, now, |one| one.path == "a.db", |one| one.path != "c.db");
            left.into_iter().map(|left| left.path.clone()).collect::<Vec<_>>()
        };
        assert_eq!(stop(&mut registry, 4, now), ["b.db", "c.db"]);
        let state = |path| {
            let one = registry.get("config", path).unwrap();
            (one.is_followed(), one.gone.is_some())
        };
        assert_eq!(
            [state("a.db"), state("b.db"), state("c.db")],
            [(true, false), (false, false), (false, true)]
        );
        let before = registry.clone();
        stop(&mut registry, 5, now + FORGOTTEN_AFTER);
        assert_eq!(registry, before, "nobody has followed them since");
    }
}
