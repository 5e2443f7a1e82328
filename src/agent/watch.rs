//! inotify events of the protected volumes → paths that may have changed. Reads names only; what a path is now is for
//! whoever looks at it later.
//!
//! One inotify instance for all volumes (128 instances for one user on a node is a common limit), one watch a folder.
//! What is remembered of a folder is its name and its parent, not its path: 10,000 folders are some 600 KiB.

use crate::agent::filters::Filters;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// Between two readings of the queue: a file that is written all the time does not keep us awake.
const PAUSE: Duration = Duration::from_millis(100);
/// More changed paths than this are not remembered one by one: a scan finds them.
const MOST_PATHS: usize = 10_000;
const BUFFER: usize = 16 * 1024;

/// What may have changed since somebody last looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// `<folder in the bucket>/<path>` → whether everything below it may have changed too.
    pub paths: BTreeMap<Vec<u8>, bool>,
    /// Nobody knows what changed: only a full scan tells.
    pub everything: bool,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && self.paths.is_empty()
    }

    /// Adds one path.
    pub fn add(&mut self, path: Vec<u8>, below: bool) {
        if self.everything {
            return;
        }
        *self.paths.entry(path).or_default() |= below;
        if self.paths.len() > MOST_PATHS {
            self.all();
        }
    }

    /// Gives up on single paths.
    pub fn all(&mut self) {
        self.everything = true;
        self.paths = BTreeMap::new();
    }

    /// Adds what another set holds.
    pub fn merge(&mut self, other: Self) {
        if other.everything {
            self.all();
        }
        for (path, below) in other.paths {
            self.add(path, below);
        }
    }
}

/// Why changes are found by full scans alone (or, for some folders, by them alone).
#[derive(Debug, thiserror::Error)]
pub enum Limited {
    /// `EMFILE` of `inotify_init`.
    #[error(
        "no inotify instance is left for this user on this node (EMFILE; fs.inotify.max_user_instances): changes are found by full scans alone"
    )]
    Instances,
    /// `ENOSPC` of `inotify_add_watch`.
    #[error(
        "no inotify watch is left for this user on this node (ENOSPC; fs.inotify.max_user_watches), {watched} folders are watched: changes in the others are found by full scans alone"
    )]
    Watches {
        /// Folders that are watched all the same.
        watched: usize,
    },
    /// Anything else.
    #[error("{path} can't be watched: changes there are found by full scans alone")]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

struct Node {
    /// Its parent's place in the tree; a root is its own.
    parent: u32,
    /// `None` for a free place.
    watch: Option<i32>,
    name: Box<[u8]>,
}

/// A tree of watched folders.
pub struct Watch {
    queue: AsyncFd<OwnedFd>,
    filters: Filters,
    roots: Vec<Root>,
    nodes: Vec<Node>,
    free: Vec<u32>,
    places: HashMap<i32, u32>,
    limited: Option<Limited>,
    ready_at: Instant,
}

struct Root {
    path: PathBuf,
    folder: String,
}

/// Takes an event: the folder's place in the tree, the name within it, and what happened.
type Event = (i32, ReadFlags, Vec<u8>);

impl Watch {
    /// Watches every folder of the volumes: where each is mounted, and its folder in the bucket. Needs a tokio runtime.
    pub fn start(volumes: &[(PathBuf, String)], filters: &Filters) -> Result<Self, Limited> {
        let failed = |source| Limited::Folder {
            path: volumes.first().map(|(path, _)| path.clone()).unwrap_or_default(),
            source,
        };
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|error| match error {
            Errno::MFILE | Errno::NFILE => Limited::Instances,
            other => failed(other.into()),
        })?;
        #[expect(
            deprecated,
            reason = "its successor is an unsafe function; an OwnedFd stays open and the same, as both ask"
        )]
        let queue = AsyncFd::new(queue).map_err(failed)?;
        let mut watch = Self {
            queue,
            filters: filters.clone(),
            roots: Vec::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            places: HashMap::new(),
            limited: None,
            ready_at: Instant::now(),
        };
        for (path, folder) in volumes {
            let index = u32::try_from(watch.roots.len()).unwrap_or(u32::MAX);
            watch.roots.push(Root {
                path: path.clone(),
                folder: folder.clone(),
            });
            watch.nodes.push(Node {
                parent: index,
                watch: None,
                name: Box::default(),
            });
        }
        for index in 0..watch.roots.len() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            watch.add_tree(index);
        }
        Ok(watch)
    }

    /// What could not be watched, said once.
    pub fn take_limited(&mut self) -> Option<Limited> {
        self.limited.take()
    }

    /// Folders that are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.places.len()
    }

    /// Waits until something happened, and adds what may have changed.
    pub async fn next(&mut self, changes: &mut Changes) -> io::Result<()> {
        tokio::time::sleep_until(self.ready_at).await;
        loop {
            let events = {
                let mut guard = self.queue.readable().await?;
                match read(self.queue.get_ref()) {
                    Ok(events) if events.is_empty() => {
                        guard.clear_ready();
                        continue;
                    }
                    Ok(events) => events,
                    Err(Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                }
            };
            for event in events {
                self.take(event, changes);
            }
            self.ready_at = Instant::now() + PAUSE;
            return Ok(());
        }
    }

    fn take(&mut self, (watch, what, name): Event, changes: &mut Changes) {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            // What was created meanwhile is not watched yet, either.
            self.rewatch();
            changes.all();
            return;
        }
        // Events of a folder that was dropped a moment ago: its parent's event stands for them.
        let Some(node) = self.places.get(&watch).copied() else {
            return;
        };
        if what.contains(ReadFlags::IGNORED) {
            self.places.remove(&watch);
            self.drop_node(node);
            return;
        }
        if what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT) {
            if self.is_root(node) {
                changes.all();
            }
            return;
        }
        let Some((root, folder)) = self.path_of(node) else {
            return;
        };
        let path = join(&folder, &name);
        let key = self.key(root, &path);
        if what.contains(ReadFlags::ISDIR) {
            if self.filters.folder(&path).is_some() {
                return;
            }
            let appeared = what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
            if what.intersects(ReadFlags::MOVED_FROM | ReadFlags::DELETE) {
                self.drop_tree(node, &name);
            }
            if appeared {
                self.drop_tree(node, &name);
                let child = self.place(Node {
                    parent: node,
                    watch: None,
                    name: name.into_boxed_slice(),
                });
                self.add_tree(child);
            }
            changes.add(key, !what.contains(ReadFlags::ATTRIB));
        } else if name.is_empty() || self.filters.file(&path, 0).is_none() {
            changes.add(key, false);
        }
    }

    fn key(&self, root: u32, path: &[u8]) -> Vec<u8> {
        let folder = self.roots.get(root as usize).map_or("", |root| root.folder.as_str());
        join(folder.as_bytes(), path)
    }

    fn is_root(&self, node: u32) -> bool {
        (node as usize) < self.roots.len()
    }

    /// The root above a folder, and the folder's path below it.
    fn path_of(&self, node: u32) -> Option<(u32, Vec<u8>)> {
        let mut names = Vec::new();
        let mut at = node;
        while !self.is_root(at) {
            let node = self.nodes.get(at as usize)?;
            names.push(node.name.as_ref());
            at = node.parent;
        }
        names.reverse();
        Some((at, names.join(&b'/')))
    }

    fn place(&mut self, node: Node) -> u32 {
        if let Some(free) = self.free.pop()
            && let Some(slot) = self.nodes.get_mut(free as usize)
        {
            *slot = node;
            return free;
        }
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
    }

    /// Watches a folder and all below it. The watch comes before the listing, so that nothing falls between them.
    fn add_tree(&mut self, top: u32) {
        let mut waiting = vec![top];
        while let Some(node) = waiting.pop() {
            let Some((root, relative)) = self.path_of(node) else {
                continue;
            };
            let Some(path) = self
                .roots
                .get(root as usize)
                .map(|root| absolute(&root.path, &relative))
            else {
                continue;
            };
            let flags = WatchFlags::MODIFY
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::ATTRIB
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR
                | WatchFlags::EXCL_UNLINK
                | if self.is_root(node) {
                    WatchFlags::empty()
                } else {
                    WatchFlags::DONT_FOLLOW
                };
            match inotify::add_watch(self.queue.get_ref(), path.as_path(), flags) {
                Ok(watch) => {
                    if let Some(slot) = self.nodes.get_mut(node as usize) {
                        slot.watch = Some(watch);
                    }
                    self.places.insert(watch, node);
                }
                Err(error) => {
                    // A folder that is gone again needs no watch, and the parent's event says so.
                    if !matches!(error, Errno::NOENT | Errno::NOTDIR) {
                        let watched = self.places.len();
                        self.limited.get_or_insert(match error {
                            Errno::NOSPC => Limited::Watches { watched },
                            other => Limited::Folder {
                                path,
                                source: other.into(),
                            },
                        });
                    }
                    if !self.is_root(node) {
                        self.release(node);
                    }
                    continue;
                }
            }
            for name in folders_in(&path) {
                if self.filters.folder(&join(&relative, &name)).is_none() {
                    waiting.push(self.place(Node {
                        parent: node,
                        watch: None,
                        name: name.into_boxed_slice(),
                    }));
                }
            }
        }
    }

    fn release(&mut self, node: u32) {
        if let Some(slot) = self.nodes.get_mut(node as usize) {
            slot.watch = None;
            slot.name = Box::default();
            slot.parent = node;
            self.free.push(node);
        }
    }

    /// Forgets the folder `name` in `parent`, and all below it.
    fn drop_tree(&mut self, parent: u32, name: &[u8]) {
        let found = self
            .nodes
            .iter()
            .enumerate()
            .skip(self.roots.len())
            .find(|(_, node)| node.parent == parent && node.watch.is_some() && node.name.as_ref() == name);
        if let Some((index, _)) = found {
            self.drop_node(u32::try_from(index).unwrap_or(u32::MAX));
        }
    }

    fn drop_node(&mut self, top: u32) {
        let mut leaving = vec![top];
        let mut next = 0;
        while let Some(parent) = leaving.get(next).copied() {
            next += 1;
            let children = self
                .nodes
                .iter()
                .enumerate()
                .skip(self.roots.len())
                .filter(|(index, node)| node.parent == parent && *index != parent as usize && node.watch.is_some());
            leaving.extend(
                children
                    .filter_map(|(index, _)| u32::try_from(index).ok())
                    .collect::<Vec<_>>(),
            );
        }
        for node in leaving {
            let watch = self.nodes.get_mut(node as usize).and_then(|slot| slot.watch.take());
            if let Some(watch) = watch {
                self.places.remove(&watch);
                // It is gone already when the folder was deleted.
                let _ = inotify::remove_watch(self.queue.get_ref(), watch);
            }
            if !self.is_root(node) {
                self.release(node);
            }
        }
    }

    /// Begins again from the roots.
    fn rewatch(&mut self) {
        for root in 0..self.roots.len() {
            let root = u32::try_from(root).unwrap_or(u32::MAX);
            self.drop_node(root);
            self.add_tree(root);
        }
    }
}

/// What is in the queue now.
fn read(queue: &OwnedFd) -> Result<Vec<Event>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut reader = inotify::Reader::new(queue, &mut buffer);
    let mut events: Vec<Event> = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event
                    .file_name()
                    .map(|name| name.to_bytes().to_vec())
                    .unwrap_or_default();
                let event = (event.wd(), event.events(), name);
                // A file that is being written says so many times in a row.
                if events.last() != Some(&event) {
                    events.push(event);
                }
            }
            Err(Errno::WOULDBLOCK) => return Ok(events),
            Err(error) if events.is_empty() => return Err(error),
            Err(_) => return Ok(events),
        }
    }
}

/// The names of the folders in a folder; none when it can't be read, which the full scan reports.
fn folders_in(path: &Path) -> Vec<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(path, flags, Mode::empty()) else {
        return Vec::new();
    };
    let Ok(entries) = Dir::read_from(&folder) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => rustix::fs::statat(&folder, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            _ => false,
        })
        .map(|entry| entry.file_name().to_bytes().to_vec())
        .filter(|name| name != b"." && name != b"..")
        .collect()
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() || name.is_empty() {
        [folder, name].concat()
    } else {
        [folder, b"/", name].concat()
    }
}

fn absolute(root: &Path, relative: &[u8]) -> PathBuf {
    if relative.is_empty() {
        root.to_owned()
    } else {
        root.join(OsStr::from_bytes(relative))
    }
}

#[cfg(test)]
mod tests;
