//! `database/.vixens-databases.json`: which databases of a place have, or are about to have, a replica, and whose their files
//! are. Written by the claim's holder before Litestream first sees a database, and kept on each volume too, so that a start
//! without a store knows what to look at. A type ↔ an object.

use crate::store::keys;
use crate::store::records::{VERSION, decode, encode};
use crate::store::snapshot::SnapshotId;
use crate::store::{Error, Store};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

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

    /// Whether it belongs to what a restore of now brings.
    #[must_use]
    pub fn is_missed(&self, now: Timestamp) -> bool {
        self.gone.is_none_or(|gone| now.duration_since(gone) < FORGOTTEN_AFTER)
    }
}

impl Registry {
    /// Reads it; an empty one where there is none.
    pub async fn read(store: &dyn Store) -> Result<Self, Error> {
        let key = keys::databases();
        match store.read(&key).await {
            Ok(bytes) => decode(&bytes).map_err(|damage| damage.of(store.destination(), key)),
            Err(error) if error.is_not_found() || matches!(error, Error::NoBucket { .. }) => Ok(Self::default()),
            Err(error) => Err(error),
        }
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
}
