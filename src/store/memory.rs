//! A store in memory, for tests: what the trait says, and nothing that rclone adds.

use super::keys::joined;
use super::{Answer, Depth, Done, Error, Exchanged, Object, Presence, Store, Undone, Upload, exchange_one_by_one};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Objects by key.
#[derive(Debug, Default)]
pub struct Memory {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// When they were written, as far as calls of the trait did it.
    written: Mutex<BTreeMap<String, Timestamp>>,
    /// An uploaded file keeps its time, as on a file system; else the time of the upload counts, as in a bucket.
    pub keeps_times: bool,
    /// The destination, where there are several; else it is `memory:store`.
    pub name: &'static str,
}

impl Memory {
    /// What is stored now.
    pub fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When objects were written.
    pub fn written(&self) -> MutexGuard<'_, BTreeMap<String, Timestamp>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, key: String, content: Vec<u8>) {
        self.written().insert(key.clone(), Timestamp::now());
        self.objects().insert(key, content);
    }
}

fn missing(name: &str) -> Undone {
    Undone {
        name: name.to_owned(),
        why: "there is no such object".to_owned(),
    }
}

impl Store for Memory {
    fn destination(&self) -> String {
        let name = if self.name.is_empty() {
            "memory:store"
        } else {
            self.name
        };
        name.to_owned()
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        depth: Depth,
        each: &'a mut (dyn FnMut(Object) + Send),
    ) -> Answer<'a, Presence> {
        Box::pin(async move {
            let start = if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            };
            let mut found = BTreeMap::new();
            for (key, content) in self.objects().range(start.clone()..) {
                let Some(name) = key.strip_prefix(&start) else { break };
                let (name, folder) = match name.split_once('/') {
                    Some((folder, _)) if depth == Depth::One => (folder, true),
                    _ => (name, false),
                };
                let size = if folder { 0 } else { content.len() as u64 };
                let written = self.written().get(key).copied().filter(|_| depth == Depth::Dated);
                found.insert(name.to_owned(), (size, folder, written));
            }
            for (name, (size, folder, written)) in found {
                each(Object {
                    name,
                    size,
                    folder,
                    written,
                });
            }
            Ok(Presence::Present)
        })
    }

    fn read<'a>(&'a self, key: &'a str) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            self.objects().get(key).cloned().ok_or_else(|| Error::NotFound {
                destination: self.destination(),
                key: key.to_owned(),
            })
        })
    }

    fn write<'a>(&'a self, key: &'a str, content: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.put(key.to_owned(), content.to_vec());
            Ok(())
        })
    }

    fn upload<'a>(&'a self, prefix: &'a str, files: &'a [Upload], done: Done<'a>) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let mut undone = Vec::new();
            for Upload { local, name } in files {
                match std::fs::read(local) {
                    Ok(content) => {
                        let key = joined(prefix, name);
                        self.put(key.clone(), content);
                        let modified = std::fs::metadata(local).and_then(|found| found.modified());
                        if let (true, Ok(modified)) = (self.keeps_times, modified) {
                            let modified = Timestamp::try_from(modified).unwrap_or_default();
                            self.written().insert(key, modified);
                        }
                        done(name);
                    }
                    Err(error) => undone.push(Undone {
                        name: name.clone(),
                        why: error.to_string(),
                    }),
                }
            }
            Ok(undone)
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
            let mut undone = Vec::new();
            for name in names {
                let content = self.objects().get(&joined(prefix, name)).cloned();
                let Some(content) = content else {
                    undone.push(missing(name));
                    continue;
                };
                let file = to.join(name);
                let written = file
                    .parent()
                    .map_or(Ok(()), std::fs::create_dir_all)
                    .and_then(|()| std::fs::write(&file, content));
                match written {
                    Ok(()) => done(name),
                    Err(error) => undone.push(Undone {
                        name: name.clone(),
                        why: error.to_string(),
                    }),
                }
            }
            Ok(undone)
        })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str, names: &'a [String]) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let mut undone = Vec::new();
            for name in names {
                let content = self.objects().get(&joined(from, name)).cloned();
                match content {
                    Some(content) => {
                        let time = self.written().get(&joined(from, name)).copied();
                        self.put(joined(to, name), content);
                        if let (true, Some(time)) = (self.keeps_times, time) {
                            self.written().insert(joined(to, name), time);
                        }
                    }
                    None => undone.push(missing(name)),
                }
            }
            Ok(undone)
        })
    }

    fn delete<'a>(&'a self, prefix: &'a str, names: &'a [String]) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            for name in names {
                self.objects().remove(&joined(prefix, name));
            }
            Ok(Vec::new())
        })
    }

    fn probe(&self) -> Answer<'_, Presence> {
        Box::pin(async { Ok(Presence::Present) })
    }

    fn exchange<'a>(&'a self, key: &'a str, content: &'a [u8], folders: &'a [&'a str]) -> Answer<'a, Exchanged> {
        Box::pin(exchange_one_by_one(self, key, content, folders))
    }

    fn create(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
