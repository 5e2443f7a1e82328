//! A folder on disk → the entries below it, in path order, filtered. Opens folders relative to each other and never
//! follows a symlink, so that a link planted during the walk leads nowhere.

use super::{Entry, Kind};
use crate::agent::database;
use crate::agent::filters::{Filters, Skipped};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Folders within folders, each of which holds a file descriptor while it is walked.
const DEEPEST: usize = 400;

/// What a walk finds.
#[derive(Debug)]
pub enum Found {
    /// An entry that is taken.
    Entry {
        /// What `lstat` says.
        entry: Entry,
        /// A file named as the log or journal of this one would be lies beside it.
        beside: bool,
    },
    /// Something that can't be looked at, or into: what is known of it and of everything below it stays as it is.
    Unreadable {
        /// What, as [`Entry::path`].
        path: Vec<u8>,
        /// Why.
        error: io::Error,
    },
}

/// An iterator over what lies below a folder.
pub struct Walk<'a> {
    filters: &'a Filters,
    /// `<folder in the bucket>/`, before every path.
    prefix: Vec<u8>,
    /// Path of the folder at the top of the stack, relative to the volume, without a slash at its end.
    path: Vec<u8>,
    levels: Vec<Level>,
    ready: VecDeque<Found>,
    /// With includes: folders that are given out only when something below them is.
    waiting: Vec<Entry>,
    skipped: BTreeMap<Skipped, u64>,
}

struct Level {
    folder: OwnedFd,
    /// Those of folders end with `/`.
    names: Vec<u8>,
    /// Start and end of each name, in order of the names.
    starts: Vec<(u32, u32)>,
    next: usize,
    /// Length of the path of this folder.
    path_length: usize,
}

impl Level {
    fn open(folder: OwnedFd, path_length: usize) -> io::Result<Self> {
        let mut names = Vec::new();
        let mut starts = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let is_folder = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => rustix::fs::statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
                _ => false,
            };
            let bounds = u32::try_from(names.len())
                .and_then(|start| Ok((start, u32::try_from(names.len() + name.len() + usize::from(is_folder))?)))
                .map_err(io::Error::other)?;
            starts.push(bounds);
            names.extend_from_slice(name);
            if is_folder {
                names.push(b'/');
            }
        }
        let slice = |(start, end): (u32, u32)| names.get(start as usize..end as usize).unwrap_or_default();
        starts.sort_unstable_by(|a, b| slice(*a).cmp(slice(*b)));
        Ok(Self {
            folder,
            names,
            starts,
            next: 0,
            path_length,
        })
    }

    fn has(&self, name: &[u8]) -> bool {
        let at = |(start, end): &(u32, u32)| self.names.get(*start as usize..*end as usize).unwrap_or_default();
        self.starts.binary_search_by(|bounds| at(bounds).cmp(name)).is_ok()
    }

    fn next_name(&mut self) -> Option<Vec<u8>> {
        let (start, end) = *self.starts.get(self.next)?;
        self.next += 1;
        self.names.get(start as usize..end as usize).map(<[u8]>::to_vec)
    }
}

const fn plain(entry: Entry) -> Found {
    Found::Entry { entry, beside: false }
}

impl<'a> Walk<'a> {
    /// The folder `path` (relative, without a slash at its end; empty for all) of the volume at `root`, and what lies
    /// below it. `folder` is the volume's in the bucket.
    pub fn new(root: &Path, folder: &str, path: &[u8], filters: &'a Filters) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut top = rustix::fs::open(root, flags, Mode::empty())?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            top = rustix::fs::openat(&top, OsStr::from_bytes(name), flags | OFlags::NOFOLLOW, Mode::empty())?;
        }
        let stat = rustix::fs::fstat(&top)?;
        let mut walk = Self {
            filters,
            prefix: format!("{folder}/").into_bytes(),
            path: path.to_vec(),
            levels: vec![Level::open(top, path.len())?],
            ready: VecDeque::new(),
            waiting: Vec::new(),
            skipped: BTreeMap::new(),
        };
        if let Some(entry) = Entry::of(walk.full_path(path), &stat, Vec::new()) {
            if filters.narrows() && !path.is_empty() {
                walk.waiting.push(entry);
            } else {
                walk.ready.push_back(plain(entry));
            }
        }
        Ok(walk)
    }

    /// How many files (and whole folders) were left out, and why.
    #[must_use]
    pub const fn skipped(&self) -> &BTreeMap<Skipped, u64> {
        &self.skipped
    }

    fn full_path(&self, relative: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), relative].concat()
    }

    fn skip(&mut self, reason: Skipped) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    /// Nothing is known of what the path at hand is now.
    fn unreadable(&mut self, is_folder: bool, error: io::Error) {
        self.skip(Skipped::Unreadable);
        let mut path = self.full_path(&self.path);
        if is_folder {
            path.push(b'/');
        }
        self.ready.push_back(Found::Unreadable { path, error });
    }

    /// Reads one more name; false at the end.
    fn advance(&mut self) -> bool {
        let Some(level) = self.levels.last_mut() else {
            return false;
        };
        self.path.truncate(level.path_length);
        let name = level.next_name();
        let Some(level) = self.levels.last() else { return false };
        let Some(name) = name else {
            self.levels.pop();
            let left = self.full_path(&[self.path.as_slice(), b"/"].concat());
            self.waiting.pop_if(|folder| folder.path == left);
            return true;
        };
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        let (name, is_folder) = match name.strip_suffix(b"/") {
            Some(name) => (name, true),
            None => (name.as_slice(), false),
        };
        self.path.extend_from_slice(name);
        let name = OsStr::from_bytes(name);
        let stat = match rustix::fs::statat(&level.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since its name was read: a deletion like any other.
            Err(rustix::io::Errno::NOENT) => return true,
            Err(error) => {
                self.unreadable(is_folder, error.into());
                return true;
            }
        };
        if (FileType::from_raw_mode(stat.st_mode) == FileType::Directory) != is_folder {
            self.unreadable(
                is_folder,
                io::Error::other("it became something else while it was looked at"),
            );
            return true;
        }
        let target = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            match rustix::fs::readlinkat(&level.folder, name, Vec::new()) {
                Ok(target) => target.into_bytes(),
                Err(_) => return true,
            }
        } else {
            Vec::new()
        };
        let Some(entry) = Entry::of(self.full_path(&self.path), &stat, target) else {
            self.skip(Skipped::Special);
            return true;
        };
        if entry.kind == Kind::Folder {
            self.enter(entry, name);
        } else if let Some(reason) = self.filters.file(&self.path, entry.size) {
            self.skip(reason);
        } else {
            let beside = [database::WAL, database::JOURNAL]
                .iter()
                .any(|suffix| level.has(&[name.as_bytes(), suffix].concat()));
            self.ready.extend(self.waiting.drain(..).map(plain));
            self.ready.push_back(Found::Entry { entry, beside });
        }
        true
    }

    fn enter(&mut self, entry: Entry, name: &OsStr) {
        if let Some(reason) = self.filters.folder(&self.path) {
            self.skip(reason);
            return;
        }
        let Some(level) = self.levels.last() else { return };
        let opened = if self.levels.len() >= DEEPEST {
            Err(io::Error::other(format!("more than {DEEPEST} folders deep")))
        } else {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::openat(&level.folder, name, flags, Mode::empty())
                .map_err(io::Error::from)
                .and_then(|folder| Level::open(folder, self.path.len()))
        };
        match opened {
            Ok(level) if self.filters.narrows() => {
                self.levels.push(level);
                self.waiting.push(entry);
            }
            Ok(level) => {
                self.levels.push(level);
                self.ready.push_back(plain(entry));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.unreadable(true, error),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Some(found);
            }
            if !self.advance() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn filters(includes: &[&str]) -> Filters {
        let includes: Vec<String> = includes.iter().map(|p| (*p).to_owned()).collect();
        Filters::new(&includes, &[], None).unwrap()
    }

    fn paths(walk: Walk<'_>) -> Vec<String> {
        walk.map(|found| match found {
            Found::Entry { entry, .. } => String::from_utf8_lossy(&entry.path).into_owned(),
            Found::Unreadable { path, .. } => format!("!{}", String::from_utf8_lossy(&path)),
        })
        .collect()
    }

    #[test]
    fn a_walk_is_in_path_order_and_takes_dot_files_links_and_empty_folders() {
        let volume = tempfile::tempdir().unwrap();
        for folder in ["a/x", "a.b", ".storage", "empty", ".vixens-backup"] {
            fs::create_dir_all(volume.path().join(folder)).unwrap();
        }
        for file in [
            "a/x/1",
            "a/2",
            "a.b/3",
            ".storage/auth",
            ".vixens-backup/volume.json",
            "z.log",
        ] {
            fs::write(volume.path().join(file), file).unwrap();
        }
        symlink("/nowhere", volume.path().join("link")).unwrap();
        symlink("a", volume.path().join("to-folder")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(volume.path().join("socket")).unwrap();

        let filters = filters(&[]);
        let mut walk = Walk::new(volume.path(), "config", b"", &filters).unwrap();
        let entries: Vec<Entry> = walk
            .by_ref()
            .map(|found| match found {
                Found::Entry { entry, .. } => entry,
                Found::Unreadable { path, error } => panic!("{path:?}: {error}"),
            })
            .collect();
        let seen: Vec<String> = entries
            .iter()
            .map(|e| String::from_utf8_lossy(&e.path).into_owned())
            .collect();
        assert_eq!(
            seen,
            [
                "config/",
                "config/.storage/",
                "config/.storage/auth",
                "config/a.b/",
                "config/a.b/3",
                "config/a/",
                "config/a/2",
                "config/a/x/",
                "config/a/x/1",
                "config/empty/",
                "config/link",
                "config/to-folder",
            ]
        );
        assert!(entries.is_sorted_by(|a, b| a.path < b.path));
        let link = entries.iter().find(|e| e.path == b"config/link").unwrap();
        assert_eq!((link.kind, link.target.as_slice()), (Kind::Symlink, &b"/nowhere"[..]));
        assert_eq!(
            walk.skipped()
                .iter()
                .map(|(reason, count)| (*reason, *count))
                .collect::<Vec<_>>(),
            [(Skipped::Internal, 1), (Skipped::Excluded, 1), (Skipped::Special, 1)]
        );
    }

    #[test]
    fn with_includes_a_folder_is_given_out_only_for_what_it_holds() {
        let volume = tempfile::tempdir().unwrap();
        for folder in ["a/b/c", "d/e", "f/0", "f/9"] {
            fs::create_dir_all(volume.path().join(folder)).unwrap();
        }
        for file in [
            "a/b/c/x.yaml",
            "a/b/c/y.txt",
            "d/e/z.txt",
            "f/1.yaml",
            "f/9/n",
            "f/a.yaml",
        ] {
            fs::write(volume.path().join(file), file).unwrap();
        }
        let filters = filters(&["*.yaml"]);
        let walk = Walk::new(volume.path(), "v", b"", &filters).unwrap();
        assert_eq!(
            paths(walk),
            [
                "v/",
                "v/a/",
                "v/a/b/",
                "v/a/b/c/",
                "v/a/b/c/x.yaml",
                "v/f/",
                "v/f/1.yaml",
                "v/f/a.yaml"
            ]
        );
    }

    #[test]
    fn a_walk_can_begin_below_the_root_but_not_through_a_link() {
        let volume = tempfile::tempdir().unwrap();
        fs::create_dir_all(volume.path().join("a/b")).unwrap();
        fs::write(volume.path().join("a/b/1"), "1").unwrap();
        symlink("a", volume.path().join("l")).unwrap();
        let filters = filters(&[]);
        assert_eq!(
            paths(Walk::new(volume.path(), "v", b"a", &filters).unwrap()),
            ["v/a/", "v/a/b/", "v/a/b/1"]
        );
        assert!(Walk::new(volume.path(), "v", b"l", &filters).is_err());
    }
}
