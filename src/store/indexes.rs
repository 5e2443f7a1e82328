//! The indexes of a store, brought to a folder → a snapshot's entries, as a stream. An index that can't be read is replaced
//! by its twin, where it has one: what lies in its `.base` (see [`super::index`]).

use super::index::{Entry, Header, IndexReader, Totals, merged};
use super::records::Damage;
use super::snapshot::SnapshotId;
use super::{Contents, Error, Store, asked_twice, keys, unwatched};
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Indexes of a store, kept as files in a folder.
pub struct Indexes<'a> {
    store: &'a dyn Store,
    folder: &'a Path,
    /// What was read of them already.
    read: Option<&'a Contents>,
    /// Those that turned out to be damaged, or gone.
    broken: Mutex<BTreeSet<SnapshotId>>,
}

/// A stored document that has entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Document {
    Index(SnapshotId),
    Twin(SnapshotId),
}

impl Document {
    const fn id(self) -> SnapshotId {
        match self {
            Self::Index(id) | Self::Twin(id) => id,
        }
    }

    fn key(self) -> String {
        match self {
            Self::Index(id) => keys::snapshot(&id),
            Self::Twin(id) => keys::base(&id),
        }
    }
}

/// A document that is read.
type Reader = IndexReader<BufReader<File>>;

/// Why a snapshot can't be read.
enum Unread<E = Error> {
    /// This document is damaged, or not there.
    Broken(Document, Box<Error>),
    /// Nobody knows, or what is made of it failed.
    Failed(E),
}

impl<E: From<Error>> Unread<E> {
    fn of(document: Document, error: Error) -> Self {
        match error {
            Error::Damaged { .. } | Error::NotFound { .. } => Self::Broken(document, Box::new(error)),
            other => Self::Failed(other.into()),
        }
    }
}

/// Gives the entries of an index and of those that it builds on, one after the other, to `collect`, as those of one snapshot.
fn collected<T, E: From<Error>>(
    readers: Vec<(Document, Reader)>,
    destination: &str,
    collect: &impl Fn(Entries<'_>) -> Result<T, E>,
) -> Result<T, Unread<E>> {
    // Damage that shows only in the middle of a document ends the stream, and is remembered beside it.
    let culprit = Cell::new(None);
    let mut entries: Box<dyn Iterator<Item = Result<Entry, Error>> + '_> = Box::new(std::iter::empty());
    for (document, reader) in readers.into_iter().rev() {
        let culprit = &culprit;
        let reader = reader.map(move |entry| {
            entry.map_err(|damage| {
                culprit.set(Some((document, damage.clone())));
                damage.of(destination.to_owned(), document.key())
            })
        });
        entries = Box::new(merged(entries, reader));
    }
    let found = collect(&mut *entries);
    drop(entries);
    match (culprit.into_inner(), found) {
        (Some((document, damage)), _) => Err(Unread::of(document, damage.of(destination.to_owned(), document.key()))),
        (None, found) => found.map_err(Unread::Failed),
    }
}

/// A snapshot's entries, in order, as they are read.
pub type Entries<'a> = &'a mut dyn Iterator<Item = Result<Entry, Error>>;

impl<'a> Indexes<'a> {
    /// The store's, kept in this folder.
    #[must_use]
    pub fn new(store: &'a dyn Store, folder: &'a Path) -> Self {
        Self {
            store,
            folder,
            read: None,
            broken: Mutex::default(),
        }
    }

    /// Indexes that turned out to be damaged, or gone, whether or not a twin had what they told.
    pub fn broken(&self) -> BTreeSet<SnapshotId> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, broken: SnapshotId) {
        self.broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(broken);
    }

    /// A snapshot's header.
    pub async fn header(&self, id: &SnapshotId) -> Result<Header, Error> {
        self.own(id, |reader| Ok(reader.header().clone())).await
    }

    /// The same, where these were read already.
    #[must_use]
    pub fn known(self, read: &'a Contents) -> Self {
        Self {
            read: Some(read),
            ..self
        }
    }

    /// Reads a snapshot's own index to its end, without the one that it builds on: what it is, and what it holds in all.
    pub async fn totals(&self, id: &SnapshotId) -> Result<(Header, Totals), Error> {
        let read = |mut reader: Reader| match reader.find_map(Result::err) {
            Some(damage) => Err(damage),
            None => Ok((reader.header().clone(), reader.totals().unwrap_or_default())),
        };
        self.own(id, read).await
    }

    /// Reads a snapshot to its end, with all that it builds on: its header, where every line of it can be read.
    pub async fn whole(&self, id: &SnapshotId) -> Result<Header, Error> {
        let read = |entries: Entries<'_>| -> Result<(), Error> {
            for entry in entries {
                entry?;
            }
            Ok(())
        };
        Ok(self.all(id, read).await?.0)
    }

    /// Reads a snapshot's own index, or its twin in its place.
    async fn own<T>(
        &self,
        id: &SnapshotId,
        read: impl Fn(Reader) -> Result<T, Damage> + Send + Sync,
    ) -> Result<T, Error> {
        let first = match self.one(Document::Index(*id), &read).await {
            Ok(found) => return Ok(found),
            Err(Unread::Failed(error)) => return Err(error),
            Err(Unread::Broken(_, error)) => error,
        };
        self.note(*id);
        match self.one(Document::Twin(*id), &read).await {
            Ok(found) => Ok(found),
            Err(Unread::Failed(error)) => Err(error),
            Err(Unread::Broken(..)) => Err(*first),
        }
    }

    async fn one<T>(
        &self,
        document: Document,
        read: &(impl Fn(Reader) -> Result<T, Damage> + Sync),
    ) -> Result<T, Unread> {
        self.fetch(document).await?;
        read(self.open(document)?).map_err(|damage| self.unread(document, damage))
    }

    /// Reads a snapshot whole: its header, and its entries in order.
    pub async fn read(&self, id: &SnapshotId) -> Result<(Header, Vec<Entry>), Error> {
        self.all(id, |entries| entries.collect()).await
    }

    /// What a snapshot has at these paths, as its index writes them.
    pub async fn find(&self, id: &SnapshotId, paths: HashSet<Vec<u8>>) -> Result<HashMap<Vec<u8>, Entry>, Error> {
        let found = self.all(id, move |entries| {
            entries
                .filter(|entry| entry.as_ref().map_or(true, |entry| paths.contains(&entry.path)))
                .map(|entry| entry.map(|entry| (entry.path.clone(), entry)))
                .collect()
        });
        Ok(found.await?.1)
    }

    /// What a snapshot's own index says of paths that have changed since the one that it builds on: for when that is lost. What
    /// is gone is among it. None where the index is complete in itself.
    pub async fn difference(&self, id: &SnapshotId) -> Result<Option<Vec<Entry>>, Error> {
        let read = |reader: Reader| {
            if reader.header().base.is_none() {
                return Ok(None);
            }
            reader.collect::<Result<Vec<Entry>, Damage>>().map(Some)
        };
        let found = self.one(Document::Index(*id), &read).await;
        found.map_err(|unread| match unread {
            Unread::Broken(_, error) => *error,
            Unread::Failed(error) => error,
        })
    }

    /// Gives a snapshot's entries, in order, to `collect`, beside the runtime's threads: once for each way to them that is
    /// tried. What fails in it is said of the whole.
    pub async fn all<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        id: &SnapshotId,
        collect: impl Fn(Entries<'_>) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<(Header, T), E> {
        let collect = Arc::new(collect);
        // Indexes that have turned out to be damaged, and what was said of the first.
        let mut broken: Vec<SnapshotId> = Vec::new();
        let mut first = None;
        loop {
            match self.attempt(id, &broken, &collect).await {
                Ok(found) => {
                    if let Some(error) = first {
                        tracing::warn!("{error}; its twin was read in its place");
                    }
                    return Ok(found);
                }
                Err(Unread::Failed(error)) => return Err(error),
                Err(Unread::Broken(Document::Index(index), error)) if !broken.contains(&index) => {
                    self.note(index);
                    broken.push(index);
                    first.get_or_insert(error);
                }
                Err(Unread::Broken(_, error)) => return Err((*first.unwrap_or(error)).into()),
            }
        }
    }

    /// Reads a snapshot, without these indexes.
    async fn attempt<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        id: &SnapshotId,
        broken: &[SnapshotId],
        collect: &Arc<impl Fn(Entries<'_>) -> Result<T, E> + Send + Sync + 'static>,
    ) -> Result<(Header, T), Unread<E>> {
        let mut readers: Vec<(Document, Reader)> = Vec::new();
        let mut next = Some(*id);
        while let Some(id) = next {
            let document = if broken.contains(&id) {
                Document::Twin(id)
            } else {
                Document::Index(id)
            };
            // An index builds on a complete one, whose twin may build on the complete one before it: ever older ones.
            if readers.last().is_some_and(|(above, _)| above.id() <= id) {
                return Err(self.unread(document, Damage::broken("what builds on it is older")));
            }
            self.fetch(document).await?;
            let reader = self.open(document)?;
            next = reader.header().base;
            readers.push((document, reader));
        }
        let Some(header) = readers.first().map(|(_, reader)| reader.header().clone()) else {
            return Err(self.unread(Document::Index(*id), Damage::broken("it has no first line")));
        };
        let (collect, destination) = (collect.clone(), self.store.destination());
        let read = tokio::task::spawn_blocking(move || collected(readers, &destination, collect.as_ref()));
        match read.await {
            Ok(found) => Ok((header, found?)),
            Err(error) => Err(Unread::Failed(E::from(Error::Local {
                what: "an index can't be read".to_owned(),
                source: std::io::Error::other(error),
            }))),
        }
    }

    fn unread<E: From<Error>>(&self, document: Document, damage: Damage) -> Unread<E> {
        Unread::of(document, damage.of(self.store.destination(), document.key()))
    }

    /// Brings a document here.
    async fn fetch<E: From<Error>>(&self, document: Document) -> Result<(), Unread<E>> {
        let key = document.key();
        let file = self.folder.join(&key);
        // One that was fetched before an interruption may be half there.
        if self
            .open::<Error>(document)
            .is_ok_and(|reader| reader.into_iter().all(|entry| entry.is_ok()))
        {
            return Ok(());
        }
        if let Some(content) = self.read.and_then(|read| read.get(&key)) {
            return self.keep(&file, content).map_err(|error| Unread::Failed(error.into()));
        }
        // What is of another time must not pass for what did not come.
        let _ = std::fs::remove_file(&file);
        let name = key.rsplit_once('/').map_or(key.as_str(), |(_, name)| name).to_owned();
        let came = match document {
            // It was listed.
            Document::Index(_) => asked_twice(self.store, &key, || self.download(&name)).await,
            // Not each index has one.
            Document::Twin(_) => self.download(&name).await,
        };
        let came = came.map_err(|error| Unread::Failed(error.into()))?;
        came.ok_or_else(|| {
            let destination = self.store.destination();
            Unread::of(document, Error::NotFound { destination, key })
        })
    }

    /// Brings one by its name; none: it did not come.
    async fn download(&self, name: &str) -> Result<Option<()>, Error> {
        let folder = self.folder.join(keys::SNAPSHOTS);
        let names = [name.to_owned()];
        let undone = self
            .store
            .download(keys::SNAPSHOTS, &names, &folder, &unwatched)
            .await?;
        Ok(undone.is_empty().then_some(()))
    }

    fn keep(&self, file: &Path, content: &[u8]) -> Result<(), Error> {
        let kept =
            std::fs::create_dir_all(self.folder.join(keys::SNAPSHOTS)).and_then(|()| std::fs::write(file, content));
        kept.map_err(|source| Error::Local {
            what: format!("{} can't be written", file.display()),
            source,
        })
    }

    fn path(&self, document: Document) -> PathBuf {
        self.folder.join(document.key())
    }

    fn open<E: From<Error>>(&self, document: Document) -> Result<Reader, Unread<E>> {
        let path = self.path(document);
        let file = File::open(&path).map_err(|source| {
            let error = Error::Local {
                what: format!("{} can't be read", path.display()),
                source,
            };
            Unread::Failed(error.into())
        })?;
        let lines = BufReader::new(file);
        let reader = match document {
            Document::Index(_) => IndexReader::new(lines),
            Document::Twin(_) => IndexReader::of_twin(lines),
        };
        let reader = reader.map_err(|damage| self.unread(document, damage))?;
        if reader.header().id.point() == document.id().point() {
            Ok(reader)
        } else {
            let damage = Damage::broken("it is the index of another snapshot");
            Err(self.unread(document, damage))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::{Fault, Faulty};
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn an_index_that_was_listed_is_gone_only_of_a_store_that_shows_its_place() {
        let id: SnapshotId = "20261122T130500Z-3.42-auto".parse().unwrap();
        let header = Header::of_nothing(id);
        let memory = Arc::new(Memory::default());
        memory.write(&keys::snapshot(&id), &header.alone()).await.unwrap();
        let read = async |store: Faulty| {
            let folder = tempfile::tempdir().unwrap();
            Indexes::new(&store, folder.path()).header(&id).await
        };
        let unmounted = Faulty::new(&memory, Fault::UnmountedAt(0));
        assert_eq!(read(unmounted).await.unwrap(), header, "for a moment");
        memory.objects().clear();
        let error = read(Faulty::new(&memory, Fault::None)).await.unwrap_err();
        assert!(error.retry_helps(), "it shows nothing at all: {error}");
        for sign in [
            "claims/3-aa.json",
            "snapshots/20261122T130000Z-3.41-auto.json",
            keys::STORE_ID,
        ] {
            memory.objects().clear();
            memory.write(sign, b"x").await.unwrap();
            let error = read(Faulty::new(&memory, Fault::None)).await.unwrap_err();
            assert!(error.is_not_found(), "{sign}: {error}");
        }
    }
}
