//! The store: one destination (`remote:bucket/path`), where the copies of a workload's volumes lie.
//!
//! Everything that leaves or enters the pod goes through [`Store`], one narrow trait. [`rclone`] is its only
//! implementation; [`memory`] and [`faulty`] are doubles for tests. The files beside it know the bucket's layout:
//! [`keys`] makes every key, [`snapshot`] and [`index`] are the points in time, [`claims`] and [`state`] say who
//! writes, [`retention`] decides what goes. None of them may touch a volume or the Kubernetes API.

pub mod claims;
pub mod decisions;
#[cfg(test)]
pub mod faulty;
pub mod history;
pub mod index;
pub mod indexes;
pub mod keys;
#[cfg(test)]
pub mod memory;
pub mod rclone;
pub mod records;
pub mod retention;
pub mod served;
pub mod snapshot;
pub mod state;
pub mod store_id;

use futures::future::BoxFuture;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a call of the store resolves to.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// Called with the name of each file once it is wholly there, from within the call.
pub type Done<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// For calls whose progress nobody watches.
pub fn unwatched(_: &str) {}

/// One destination. Keys are relative to it, made by [`keys`], with `/` between their parts and none at either end;
/// the empty prefix is the destination itself.
///
/// A call either did what it says or returns an error or the names that it did not do: a caller never has to believe
/// an exit code. No call retries; whether a retry helps is a method of the error. Dropping a call's future ends it,
/// with every process that it started; what was under way then may or may not have been done.
pub trait Store: Send + Sync {
    /// The destination, for messages: `minio:vixens-backups/app`. No credentials.
    fn destination(&self) -> String;

    /// Calls `each` for everything below `prefix`, in no order. [`Depth::One`] names folders too.
    ///
    /// A prefix with nothing below it is no error. [`Presence::Missing`]: not even the bucket is there (on stores
    /// with real folders: the folder is not there), which is as empty as empty can be.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        depth: Depth,
        each: &'a mut (dyn FnMut(Object) + Send),
    ) -> Answer<'a, Presence>;

    /// Every file below each of these folders, sorted by name, as [`listed`] has it: in one go where the store knows how.
    fn list_all<'a>(&'a self, prefixes: &'a [&'a str]) -> Answer<'a, Vec<Vec<Object>>> {
        Box::pin(list_one_by_one(self, prefixes))
    }

    /// A small object (at most [`SMALL`] bytes) whole. [`Error::NotFound`] where there is none, [`Error::Damaged`] where the
    /// store answers and can't give this one.
    fn read<'a>(&'a self, key: &'a str) -> Answer<'a, Vec<u8>>;

    /// Small objects, by their keys: in one go where the store knows how. What is not there is left out; of what
    /// is there and can't be read, nothing is given, as of an object that was cut off.
    fn read_all<'a>(&'a self, keys: &'a [&'a str]) -> Answer<'a, Contents> {
        Box::pin(read_one_by_one(self, keys))
    }

    /// Writes a small object, replacing what was there.
    fn write<'a>(&'a self, key: &'a str, content: &'a [u8]) -> Answer<'a, ()>;

    /// Uploads files to `prefix`, replacing what is there without looking. Returns what was not uploaded.
    ///
    /// The files have no order among each other. A file that changes while it is read may be refused or torn:
    /// that is the caller's to notice.
    fn upload<'a>(&'a self, prefix: &'a str, files: &'a [Upload], done: Done<'a>) -> Answer<'a, Vec<Undone>>;

    /// Downloads `prefix/name` to `to/name` for each name, replacing what is there. Returns what did not come,
    /// missing objects among it. Content is not verified: compare size and SHA-256 with the index.
    fn download<'a>(
        &'a self,
        prefix: &'a str,
        names: &'a [String],
        to: &'a Path,
        done: Done<'a>,
    ) -> Answer<'a, Vec<Undone>>;

    /// The same, where `names` are most of what lies in their folders: listing those takes fewer requests than asking for
    /// each name.
    fn download_most<'a>(
        &'a self,
        prefix: &'a str,
        names: &'a [String],
        to: &'a Path,
        done: Done<'a>,
    ) -> Answer<'a, Vec<Undone>> {
        self.download(prefix, names, to, done)
    }

    /// Copies `from/name` to `to/name` within the store, for each name. Returns what was not copied, missing
    /// objects among it.
    fn copy<'a>(&'a self, from: &'a str, to: &'a str, names: &'a [String]) -> Answer<'a, Vec<Undone>>;

    /// Deletes `prefix/name` for each name. What is not there is as good as deleted.
    fn delete<'a>(&'a self, prefix: &'a str, names: &'a [String]) -> Answer<'a, Vec<Undone>>;

    /// Whether an empty listing can be believed: the remote answers and, where it is encrypted, its root can be
    /// read with this password (a wrong one makes everything look empty).
    fn probe(&self) -> Answer<'_, Presence>;

    /// Writes a small object and reads the small objects right below some folders: all that an idle sidecar does once a
    /// minute, in one go where the store knows how. By folder and name.
    fn exchange<'a>(&'a self, key: &'a str, content: &'a [u8], folders: &'a [&'a str]) -> Answer<'a, Exchanged>;

    /// Makes the bucket, where it is missing. No other call does.
    fn create(&self) -> Answer<'_, ()>;
}

/// Small objects, by their folder and name.
pub type Exchanged = BTreeMap<(String, String), Vec<u8>>;

/// Small objects, by their keys.
pub type Contents = BTreeMap<String, Vec<u8>>;

/// [`Store::list_all`], call by call.
async fn list_one_by_one(store: &(impl Store + ?Sized), prefixes: &[&str]) -> Result<Vec<Vec<Object>>, Error> {
    let mut listings = Vec::with_capacity(prefixes.len());
    for prefix in prefixes {
        listings.push(listed(store, prefix, Depth::All).await?);
    }
    Ok(listings)
}

/// [`Store::read_all`], call by call.
async fn read_one_by_one(store: &(impl Store + ?Sized), keys: &[&str]) -> Result<Contents, Error> {
    let mut contents = Contents::new();
    for key in keys {
        match store.read(key).await {
            Ok(content) => {
                contents.insert((*key).to_owned(), content);
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                contents.insert((*key).to_owned(), unreadable(error)?);
            }
        }
    }
    Ok(contents)
}

/// [`Store::exchange`], call by call.
pub async fn exchange_one_by_one(
    store: &dyn Store,
    key: &str,
    content: &[u8],
    folders: &[&str],
) -> Result<Exchanged, Error> {
    store.write(key, content).await?;
    let mut found = Exchanged::new();
    for folder in folders {
        let objects = listed(store, folder, Depth::One).await?;
        for object in objects.into_iter().filter(|object| !object.folder) {
            match store.read(&keys::joined(folder, &object.name)).await {
                Ok(content) => {
                    found.insert(((*folder).to_owned(), object.name), content);
                }
                // Taken away between the two.
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    found.insert(((*folder).to_owned(), object.name), unreadable(error)?);
                }
            }
        }
    }
    Ok(found)
}

/// What is read of a damaged object, among others: nothing, as of one that was cut off. It costs what it told.
fn unreadable(error: Error) -> Result<Vec<u8>, Error> {
    if !error.is_damaged() {
        return Err(error);
    }
    tracing::warn!("{error}");
    Ok(Vec::new())
}

/// Objects up to this size are read and written whole.
pub const SMALL: u64 = 4 << 20;

/// How far a listing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The files and folders right below the prefix.
    One,
    /// Every file below the prefix, however deep; no folders.
    All,
    /// The same, and when each was last written.
    Dated,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Relative to the prefix that was listed.
    pub name: String,
    /// In bytes; 0 for a folder.
    pub size: u64,
    /// Only in a listing of [`Depth::One`].
    pub folder: bool,
    /// Only in a listing of [`Depth::Dated`], and of a store that says it without being asked for each: on object stores when
    /// the object was written, by their clock; on those that keep the time of the file that was uploaded, that time.
    pub written: Option<Timestamp>,
}

/// Whether a listed prefix exists at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It was listed.
    Present,
    /// The bucket, or on stores with real folders the folder, does not exist.
    Missing,
}

/// A file to upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Where it lies: an absolute path, any bytes.
    pub local: PathBuf,
    /// Its name below the prefix: see [`keys::stored_name`].
    pub name: String,
}

/// A file of a batch that was not done, and what was said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// Its name below the prefix.
    pub name: String,
    /// rclone's words, or that it said nothing.
    pub why: String,
}

/// Why a call of the store failed. The chain of sources ends in what rclone or the system said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not exist; the store answered.
    #[error("{destination} has no {key}")]
    NotFound {
        /// Which destination.
        destination: String,
        /// The key that was asked for.
        key: String,
    },
    /// No answer, or not from a store: network, DNS, TLS, a timeout, 5xx.
    #[error("{destination} can't be reached: {why}")]
    Unreachable {
        /// Which destination.
        destination: String,
        /// What was said.
        why: String,
    },
    /// The store answered and refused: key, signature, permission, or a password that does not fit.
    #[error("{destination} refused the credentials: {why}")]
    Refused {
        /// Which destination.
        destination: String,
        /// What was said.
        why: String,
    },
    /// rclone does not know the remote, or can't use its configuration.
    #[error("{destination} is not configured: {why}")]
    Misconfigured {
        /// Which destination.
        destination: String,
        /// What was said.
        why: String,
    },
    /// The bucket does not exist. A listing says [`Presence::Missing`] instead.
    #[error("the bucket of {destination} does not exist: {why}")]
    NoBucket {
        /// Which destination.
        destination: String,
        /// What was said.
        why: String,
    },
    /// The store has no room.
    #[error("{destination} is full: {why}")]
    Full {
        /// Which destination.
        destination: String,
        /// What was said.
        why: String,
    },
    /// A stored object can't be read: truncated, or altered. Never *no backup*; and one object, which costs what it told.
    #[error("{key} in {destination} is damaged: {why}")]
    Damaged {
        /// Which destination.
        destination: String,
        /// Which object.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A newer release wrote this object, so nobody here knows what it and the others mean. Nothing is started from such a
    /// place, and nothing is written to it.
    #[error(
        "{key} in {destination} is of a newer release of vixens-backup: {why}; nothing is written there: update vixens-backup"
    )]
    Newer {
        /// Which destination.
        destination: String,
        /// Which object.
        key: String,
        /// How it is known.
        why: String,
    },
    /// Something on this side: no scratch space, no rclone, a file that can't be read.
    #[error("{what}")]
    Local {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same call may succeed later with nothing changed on our side.
    #[must_use]
    pub const fn retry_helps(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Full { .. } | Self::Local { .. })
    }

    /// Whether it is this one object that is damaged.
    #[must_use]
    pub const fn is_damaged(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// Whether the store answered that there is no such object.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Whether a store shows anything of a place at this moment. One whose disk is not mounted, or is another, shows nothing, and
/// says of each object that it is not there: to be asked before that is believed of one that was listed.
pub async fn shows_itself(store: &dyn Store) -> Result<bool, Error> {
    match store.list_all(&[keys::CLAIMS, keys::SNAPSHOTS]).await {
        Ok(listings) if listings.iter().all(Vec::is_empty) => match store.read(keys::STORE_ID).await {
            Ok(_) | Err(Error::Damaged { .. }) => Ok(true),
            Err(Error::NotFound { .. } | Error::NoBucket { .. }) => Ok(false),
            Err(error) => Err(error),
        },
        Ok(_) => Ok(true),
        Err(Error::NoBucket { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads an object; none: the store says that there is none.
pub async fn read_if_there(store: &dyn Store, key: &str) -> Result<Option<Vec<u8>>, Error> {
    match store.read(key).await {
        Err(error) if error.is_not_found() => Ok(None),
        read => read.map(Some),
    }
}

/// Reads an object that was listed, or may be of a place that has a backup. None: see [`asked_twice`].
pub async fn read_listed(store: &dyn Store, key: &str) -> Result<Option<Vec<u8>>, Error> {
    asked_twice(store, key, || read_if_there(store, key)).await
}

/// Asks for an object that was listed. None: it is not there, as a store that shows its place says twice.
pub async fn asked_twice<T, F>(store: &dyn Store, key: &str, ask: impl Fn() -> F) -> Result<Option<T>, Error>
where
    F: Future<Output = Result<Option<T>, Error>>,
{
    if let Some(found) = ask().await? {
        return Ok(Some(found));
    }
    if shows_itself(store).await? {
        return ask().await;
    }
    Err(Error::Unreachable {
        destination: store.destination(),
        why: format!("it shows nothing of the place any more, which it did a moment ago: {key} can't be asked for"),
    })
}

/// Everything below `prefix`, sorted by name.
pub async fn listed(store: &(impl Store + ?Sized), prefix: &str, depth: Depth) -> Result<Vec<Object>, Error> {
    let mut objects = Vec::new();
    store.list(prefix, depth, &mut |object| objects.push(object)).await?;
    objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(objects)
}
