//! A store that fails as it is told to, for tests: at the nth call, without an answer, with a listing that lies, or with
//! half a file.

use super::memory::Memory;
use super::{
    Answer, Depth, Done, Error, Exchanged, Object, Presence, Store, Undone, Upload, exchange_one_by_one, keys,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// From the call of this number on (the first is 0), the store is away.
    AwayFrom(usize),
    /// The call of this number fails, and no other.
    FailsAt(usize),
    /// From the call of this number on, no call returns.
    HangsFrom(usize),
    /// A transfer that is the call of this number does half of its files, then the store is away.
    HalfOf(usize),
    /// Listings leave out every other object.
    ListsHalf,
    /// Downloads bring the first half of each file, and succeed.
    HalfFiles,
    /// At the call of this number its disk is not mounted: nothing is there of what is read or downloaded.
    UnmountedAt(usize),
    /// Nothing is deleted.
    RefusesDeletions,
    /// The folder that downloads go to has room for so many bytes, and no more.
    RoomFor(u64),
}

/// A store with a fault, over a store in memory.
pub struct Faulty {
    /// What is stored.
    pub memory: Arc<Memory>,
    fault: Fault,
    calls: AtomicUsize,
    refusals: AtomicUsize,
    meddling: Option<Meddling>,
}

/// What somebody else does to the store once a folder was listed.
type Meddling = Box<dyn Fn(&Memory, &str) + Send + Sync>;

impl Faulty {
    /// The store with this fault.
    #[must_use]
    pub fn new(memory: &Arc<Memory>, fault: Fault) -> Self {
        Self {
            memory: memory.clone(),
            fault,
            calls: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            meddling: None,
        }
    }

    /// Somebody else writes there, too: this is called after each listing, with what was listed.
    #[must_use]
    pub fn meddled_with(self, meddling: impl Fn(&Memory, &str) + Send + Sync + 'static) -> Self {
        Self {
            meddling: Some(Box::new(meddling)),
            ..self
        }
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// How often a deletion was refused.
    pub fn refusals(&self) -> usize {
        self.refusals.load(Ordering::Relaxed)
    }

    fn away(&self) -> Error {
        Error::Unreachable {
            destination: self.destination(),
            why: "connection refused".to_owned(),
        }
    }

    /// Counts a call: an error if it is to fail, how many of its files it does otherwise.
    async fn call(&self, files: usize) -> Result<usize, Error> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::AwayFrom(first) if number >= first => Err(self.away()),
            Fault::FailsAt(failing) if number == failing => Err(self.away()),
            Fault::HangsFrom(first) if number >= first => std::future::pending().await,
            Fault::HalfOf(half) if number == half => Ok(files / 2),
            Fault::HalfOf(half) if number > half => Err(self.away()),
            _ => Ok(files),
        }
    }

    fn is_mounted(&self) -> bool {
        self.fault != Fault::UnmountedAt(self.calls())
    }

    /// Downloads one file after the other, until there is no room for the next.
    async fn download_into(
        &self,
        bytes: u64,
        prefix: &str,
        names: &[String],
        to: &Path,
        done: Done<'_>,
    ) -> Result<Vec<Undone>, Error> {
        let mut undone = Vec::new();
        for name in names {
            let size = self
                .memory
                .objects()
                .get(&keys::joined(prefix, name))
                .map_or(0, Vec::len);
            if bytes_in(to) + size as u64 > bytes {
                return Err(Error::Local {
                    what: "there is no space left here".to_owned(),
                    source: std::io::ErrorKind::StorageFull.into(),
                });
            }
            undone.extend(
                self.memory
                    .download(prefix, std::slice::from_ref(name), to, done)
                    .await?,
            );
        }
        Ok(undone)
    }

    /// A transfer whose second half was not done has failed.
    fn ended(&self, done: usize, files: usize, undone: Vec<Undone>) -> Result<Vec<Undone>, Error> {
        if done < files { Err(self.away()) } else { Ok(undone) }
    }
}

/// What lies in a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_in(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

impl Store for Faulty {
    fn destination(&self) -> String {
        self.memory.destination()
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        depth: Depth,
        each: &'a mut (dyn FnMut(Object) + Send),
    ) -> Answer<'a, Presence> {
        Box::pin(async move {
            self.call(0).await?;
            let mut shown = true;
            let lies = self.fault == Fault::ListsHalf;
            let mut some = |object| {
                if shown {
                    each(object);
                }
                shown = !(lies && shown);
            };
            let listed = self.memory.list(prefix, depth, &mut some).await;
            if let Some(meddling) = &self.meddling {
                meddling(&self.memory, prefix);
            }
            listed
        })
    }

    fn read<'a>(&'a self, key: &'a str) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let is_mounted = self.is_mounted();
            self.call(0).await?;
            if !is_mounted {
                return Err(Error::NotFound {
                    destination: self.destination(),
                    key: key.to_owned(),
                });
            }
            self.memory.read(key).await
        })
    }

    fn write<'a>(&'a self, key: &'a str, content: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.call(0).await?;
            self.memory.write(key, content).await
        })
    }

    fn upload<'a>(&'a self, prefix: &'a str, files: &'a [Upload], done: Done<'a>) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let count = self.call(files.len()).await?;
            let undone = self.memory.upload(prefix, &files[..count], done).await?;
            self.ended(count, files.len(), undone)
        })
    }

    fn download<'a>(
        &'a self,
        prefix: &'a str,
        names: &'a [String],
        to: &'a Path,
        done: Done<'a>,
    ) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let is_mounted = self.is_mounted();
            let count = self.call(names.len()).await?;
            if !is_mounted {
                let undone = |name: &String| Undone {
                    name: name.clone(),
                    why: "object not found".to_owned(),
                };
                return Ok(names.iter().map(undone).collect());
            }
            if let Fault::RoomFor(bytes) = self.fault {
                return self.download_into(bytes, prefix, names, to, done).await;
            }
            let undone = self
                .memory
                .download(prefix, &names[..count], to, &super::unwatched)
                .await?;
            for name in &names[..count] {
                let path = to.join(name);
                if let (Fault::HalfFiles, Ok(content)) = (self.fault, std::fs::read(&path)) {
                    let _ = std::fs::write(&path, &content[..content.len() / 2]);
                }
                if path.exists() {
                    done(name);
                }
            }
            self.ended(count, names.len(), undone)
        })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str, names: &'a [String]) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let count = self.call(names.len()).await?;
            let undone = self.memory.copy(from, to, &names[..count]).await?;
            self.ended(count, names.len(), undone)
        })
    }

    fn delete<'a>(&'a self, prefix: &'a str, names: &'a [String]) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let count = self.call(names.len()).await?;
            if self.fault == Fault::RefusesDeletions {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                return Err(Error::Refused {
                    destination: self.destination(),
                    why: "AccessDenied: Access Denied.".to_owned(),
                });
            }
            let undone = self.memory.delete(prefix, &names[..count]).await?;
            self.ended(count, names.len(), undone)
        })
    }

    fn probe(&self) -> Answer<'_, Presence> {
        Box::pin(async move {
            self.call(0).await?;
            self.memory.probe().await
        })
    }

    fn exchange<'a>(&'a self, key: &'a str, content: &'a [u8], folders: &'a [&'a str]) -> Answer<'a, Exchanged> {
        Box::pin(exchange_one_by_one(self, key, content, folders))
    }

    fn create(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.call(0).await?;
            self.memory.create().await
        })
    }
}
