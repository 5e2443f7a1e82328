//! What putting a snapshot into place is about to change on a volume → checked, and written down beside it, so that it can
//! be taken back without the store: what is replaced or removed is renamed into `outgoing`, and deleted only once the
//! start has come to its end. Reads and writes the volume only; a kill anywhere costs nothing, and taking back twice is as
//! good as once.

use super::attributes;
use super::plan::{Plan, Planned};
use super::way::{Gate, is_way};
use crate::agent::volume::Error;
use crate::agent::volume::marker::{Mode, OUTGOING, RESTORING, UNDO};
use crate::agent::volume::own::{OwnFolder, remove_all};
use crate::store::index::Attributes;
use crate::store::keys::OWN_FOLDER;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The first record of the file.
const BEGINS: &[u8] = b"vixens-backup undo 1";
/// The last: without it the file is half of one.
const ENDS: &[u8] = b"end";

/// What is about to change. Paths are relative to the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undo {
    /// What goes out of the way. A folder goes as a whole: nothing below it is named.
    outgoing: BTreeSet<PathBuf>,
    /// Where something will be, and nothing is.
    new: BTreeSet<PathBuf>,
    /// What stays and may get others.
    attributes: BTreeMap<PathBuf, Attributes>,
}

impl Undo {
    /// Looks at what a plan whose files are staged in `incoming` will replace, remove and make.
    pub fn of(plan: &Plan, volume: &Path, incoming: &Path, mode: Mode) -> Result<Self, Error> {
        let mut undo = Self::default();
        let mut touched = BTreeSet::new();
        let extras = if mode == Mode::Replace {
            extras(plan, volume)?
        } else {
            Vec::new()
        };
        for extra in extras {
            touched.insert(above(&extra));
            undo.outgoing.insert(extra);
        }
        for item in plan.items.iter().filter(|item| item.what != Planned::Missing) {
            let target = volume.join(&item.path);
            let found = fs::symlink_metadata(&target)
                .ok()
                .filter(|_| is_way(volume, &item.path));
            let Some(found) = found else {
                if mode != Mode::Missing || is_way(volume, &item.path) {
                    touched.insert(undo.make(volume, &item.path));
                }
                continue;
            };
            if mode == Mode::Missing {
                continue;
            }
            let given = match &item.what {
                Planned::Folder(given) if found.is_dir() => Some(*given),
                Planned::File(content, given) if found.is_file() && !incoming.join(&content.key).exists() => *given,
                Planned::Folder(_) | Planned::File(..) | Planned::Link(..) | Planned::Missing => {
                    undo.outgoing.insert(item.path.clone());
                    touched.insert(above(&item.path));
                    continue;
                }
            };
            let now = attributes::of(&found);
            if given != Some(now) {
                undo.attributes.insert(item.path.clone(), now);
            }
        }
        // A folder that forbids writing in it has to allow it for a moment, also to be moved.
        let moved = undo.outgoing.iter().filter(|path| {
            let found = fs::symlink_metadata(volume.join(path));
            found.is_ok_and(|found| found.is_dir())
        });
        touched.extend(moved.cloned());
        for folder in touched {
            let found = fs::symlink_metadata(volume.join(&folder));
            let found = found.map_err(|source| Error::of("looking at", &volume.join(&folder), source))?;
            undo.attributes.entry(folder).or_insert_with(|| attributes::of(&found));
        }
        Ok(undo)
    }

    /// Something will be made here, and the folders above it that are missing. Returns the one that is there.
    fn make(&mut self, volume: &Path, path: &Path) -> PathBuf {
        self.new.insert(path.to_owned());
        for folder in path.ancestors().skip(1) {
            // What has to give way is no folder to make something in.
            let is_there =
                is_way(volume, folder) && fs::symlink_metadata(volume.join(folder)).is_ok_and(|found| found.is_dir());
            if is_there && !self.is_outgoing(folder) {
                return folder.to_owned();
            }
            if !self.outgoing.contains(folder) {
                self.new.insert(folder.to_owned());
            }
        }
        PathBuf::new()
    }

    fn is_outgoing(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.outgoing.contains(above))
    }

    /// Refuses what can't be done to the end: a folder that has to change, and that this user may neither write nor make
    /// writable. Nothing was changed.
    pub fn check(&self, volume: &Path) -> Result<(), Error> {
        let changed = self.outgoing.iter().chain(&self.new).map(|path| above(path));
        let moved = self.outgoing.iter().cloned();
        let folders: BTreeSet<PathBuf> = moved.chain(changed).filter(|path| !self.new.contains(path)).collect();
        let us = rustix::process::geteuid().as_raw();
        for folder in folders {
            let path = volume.join(folder);
            let Some(found) = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_dir) else {
                continue;
            };
            let wanted = Access::WRITE_OK | Access::EXEC_OK;
            match accessat(CWD, &path, wanted, AtFlags::EACCESS) {
                Err(rustix::io::Errno::ACCESS) if found.uid() == us => {}
                Err(error) => return Err(Error::of("writing in", &path, error.into())),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// With what an earlier attempt wrote down, before which the volume was what it was.
    #[must_use]
    fn since(self, first: Option<Self>) -> Self {
        let Some(mut first) = first else { return self };
        let is_made = |first: &Self, path: &Path| path.ancestors().any(|above| first.new.contains(above));
        for path in self.outgoing {
            if !is_made(&first, &path) && !first.is_outgoing(&path) {
                first.outgoing.insert(path);
            }
        }
        for path in self.new {
            if !first.is_outgoing(&path) {
                first.new.insert(path);
            }
        }
        for (path, attributes) in self.attributes {
            if !is_made(&first, &path) && !first.is_outgoing(&path) {
                first.attributes.entry(path).or_insert(attributes);
            }
        }
        first
    }

    /// Writes it down, beside what an earlier attempt of the same restore has written; `anew`: there was none, and what is
    /// left of another is of no use.
    pub fn write(self, own: &OwnFolder, anew: bool) -> Result<(), Error> {
        if anew {
            own.remove(UNDO)?;
            own.remove(OUTGOING)?;
        }
        let whole = self.since(Self::read(own)?);
        own.write_bytes(UNDO, &whole.encoded())
    }

    /// Reads it; `None` where there is none, or nothing of use.
    pub fn read(own: &OwnFolder) -> Result<Option<Self>, Error> {
        let path = own.join(UNDO);
        match fs::read(&path) {
            Ok(bytes) => Ok(Self::decoded(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::of("reading", &path, source)),
        }
    }

    fn encoded(&self) -> Vec<u8> {
        let mut bytes = BEGINS.to_vec();
        let mut record = |kind: &str, path: &Path| {
            bytes.push(0);
            bytes.extend_from_slice(kind.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(path.as_os_str().as_bytes());
        };
        for path in &self.outgoing {
            record("outgoing", path);
        }
        for path in &self.new {
            record("new", path);
        }
        for (
            path,
            Attributes {
                modified,
                uid,
                gid,
                mode,
            },
        ) in &self.attributes
        {
            record(&format!("had {modified} {uid} {gid} {mode:o}"), path);
        }
        bytes.push(0);
        bytes.extend_from_slice(ENDS);
        bytes
    }

    fn decoded(bytes: &[u8]) -> Option<Self> {
        let mut records = bytes.split(|byte| *byte == 0);
        if records.next() != Some(BEGINS) || records.next_back() != Some(ENDS) {
            return None;
        }
        let mut undo = Self::default();
        for record in records {
            let mut words = record.splitn(2, |byte| *byte == b' ');
            let (kind, rest) = (words.next()?, words.next()?);
            match kind {
                b"outgoing" => {
                    undo.outgoing.insert(path(rest));
                }
                b"new" => {
                    undo.new.insert(path(rest));
                }
                b"had" => {
                    let mut words = rest.splitn(5, |byte| *byte == b' ');
                    let mut number = || std::str::from_utf8(words.next()?).ok();
                    let attributes = Attributes {
                        modified: number()?.parse().ok()?,
                        uid: number()?.parse().ok()?,
                        gid: number()?.parse().ok()?,
                        mode: u32::from_str_radix(number()?, 8).ok()?,
                    };
                    undo.attributes.insert(path(words.next()?), attributes);
                }
                _ => return None,
            }
        }
        Some(undo)
    }

    /// Makes the volume what it was. Returns how many things were put back. What was being restored is forgotten, last.
    pub fn take_back(&self, own: &OwnFolder) -> Result<usize, Error> {
        let (volume, outgoing, gate) = (own.volume(), own.join(OUTGOING), Gate::default());
        for path in self.new.iter().rev().filter(|path| is_way(volume, path)) {
            remove_if_bare(&volume.join(path), &gate)?;
        }
        let mut back = 0;
        for path in &self.outgoing {
            let (from, to) = (outgoing.join(path), volume.join(path));
            if fs::symlink_metadata(&from).is_err() {
                continue;
            }
            let put = || remove_all(&to).and_then(|_| fs::rename(&from, &to));
            gate.through(&from, &to, put)
                .map_err(|source| Error::of("putting back", &to, source))?;
            back += 1;
        }
        // What was put back has what it had; folders got another time by that.
        for (path, had) in self.attributes.iter().rev().filter(|(path, _)| is_way(volume, path)) {
            let target = volume.join(path);
            if let Ok(now) = fs::symlink_metadata(&target)
                && attributes::of(&now) != *had
            {
                let given = attributes::give_over(&now, &target, had);
                given.map_err(|source| Error::of("putting back the attributes of", &target, source))?;
            }
        }
        own.sync()?;
        own.remove(RESTORING)?;
        Ok(back)
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// The folder that a path is in.
fn above(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

/// Removes what a restore has made. A folder in which something else is stays.
fn remove_if_bare(path: &Path, gate: &Gate) -> Result<(), Error> {
    let remove = || match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gate.through(path, path, remove) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(Error::of("removing", path, error))
        }
        _ => Ok(()),
    }
}

/// What is on a volume that the plan lacks, or has as something else: each the highest of its kind.
pub(super) fn extras(plan: &Plan, volume: &Path) -> Result<Vec<PathBuf>, Error> {
    let planned: HashMap<&Path, bool> = plan
        .items
        .iter()
        .flat_map(|item| {
            let is_folder = matches!(item.what, Planned::Folder(_));
            // Folders on the way to a path are wanted, named or not.
            let above = item.path.ancestors().skip(1).map(|folder| (folder, true));
            above.chain([(item.path.as_path(), is_folder)])
        })
        .collect();
    let mut extras = Vec::new();
    let mut folders = vec![volume.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |source| Error::of("reading", &folder, source);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let below = path.strip_prefix(volume).unwrap_or(&path);
            if below == Path::new(OWN_FOLDER) || below == Path::new("lost+found") {
                continue;
            }
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            match planned.get(below) {
                Some(wanted) if *wanted == is_folder => {
                    if is_folder {
                        folders.push(path);
                    }
                }
                _ => extras.push(below.to_owned()),
            }
        }
    }
    Ok(extras)
}

#[cfg(test)]
mod tests;
