//! A plan whose files are staged → the volume as the plan says, by renames. Everything is on the volume already, so
//! this needs no store; a kill at any moment leaves files that the next start takes for what they are.

use super::attributes;
use super::plan::{Item, Plan, Planned};
use super::undo::extras;
use super::way::{Gate, is_way};
use crate::agent::database;
use crate::agent::litestream::local::{BESIDE, beside};
use crate::agent::litestream::restore::aside_name;
use crate::agent::volume::Error;
use crate::agent::volume::marker::Mode;
use crate::agent::volume::own::remove_all;
use crate::store::index::Attributes;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Files, and links, that are now as the plan says.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Paths that stayed as they were, because something was there.
    pub kept: u64,
    /// Paths whose owner could not be given: this process may not.
    pub owners_not_given: u64,
    /// Paths that the plan lacks, and that are gone.
    pub removed: u64,
}

/// Puts everything into its place. What has to give way is moved to `outgoing`; without that, and where it is from an
/// earlier attempt, it is removed.
pub fn place(
    plan: &Plan,
    volume: &Path,
    incoming: &Path,
    outgoing: Option<&Path>,
    mode: Mode,
) -> Result<Placed, Error> {
    let mut placed = Placed::default();
    let mut way = Way::new(volume, outgoing, mode);
    if mode == Mode::Replace {
        for extra in extras(plan, volume)? {
            way.give(&extra)?;
            placed.removed += 1;
        }
    }
    for item in &plan.items {
        if item.what == Planned::Missing {
            continue;
        }
        if !way.cleared(&item.path)? {
            placed.kept += 1;
            continue;
        }
        match &item.what {
            Planned::Folder(_) => {
                if !make_folder(&item.path, &way)? {
                    way.bar(&item.path);
                    placed.kept += 1;
                }
            }
            Planned::File(content, given) => {
                let staged = incoming.join(&content.key);
                place_file(&staged, &item.path, given.as_ref(), &way, &mut placed)?;
                placed.bytes += content.size;
            }
            Planned::Link(to, given) => place_link(to, &item.path, incoming, given, &way, &mut placed)?,
            Planned::Missing => {}
        }
    }
    // Placing what is in a folder changes its time.
    for item in plan.items.iter().rev() {
        if let Planned::Folder(given) = &item.what
            && !way.is_barred(&item.path)
        {
            finish_folder(&item.path, volume, given, mode, &mut placed)?;
        }
    }
    let is_finished = |folder: &Path| {
        let is_it = |item: &Item| matches!(item.what, Planned::Folder(_)) && volume.join(&item.path) == folder;
        mode != Mode::Missing && plan.items.iter().any(is_it)
    };
    let closed = way.gate.close(is_finished);
    closed.map_err(|source| Error::of("giving back the modes of folders on", volume, source))?;
    Ok(placed)
}

fn place_file(
    staged: &Path,
    path: &Path,
    given: Option<&Attributes>,
    way: &Way<'_>,
    placed: &mut Placed,
) -> Result<(), Error> {
    let (target, mode) = (&way.volume.join(path), way.mode);
    let exists = fs::symlink_metadata(target).ok();
    if mode == Mode::Missing && (exists.is_some() || is_log_of_another(target)) {
        placed.kept += 1;
        return Ok(());
    }
    let arrived = fs::symlink_metadata(staged).ok();
    if mode == Mode::Missing && arrived.is_some() {
        set_logs_aside(staged, target)?;
    }
    let failed = |source| Error::of("writing", target, source);
    let (file, now) = match (&arrived, &exists) {
        (Some(arrived), _) => (staged, arrived),
        (None, Some(there)) => (target.as_path(), there),
        (None, None) => return Err(failed(io::ErrorKind::NotFound.into())),
    };
    let given = match given {
        Some(given) => *given,
        None => by_hand(now, target),
    };
    match attributes::give_over(now, file, &given) {
        Ok(given) => placed.owners_not_given += u64::from(!given),
        // It was there, with the right content, and is somebody else's.
        Err(error) if arrived.is_none() && error.kind() == io::ErrorKind::PermissionDenied => {
            placed.owners_not_given += 1;
        }
        Err(error) => return Err(failed(error)),
    }
    if arrived.is_some() {
        if exists.is_some() {
            way.give(path)?;
        }
        way.gate
            .through(staged, target, || fs::rename(staged, target))
            .map_err(failed)?;
    }
    placed.files += 1;
    Ok(())
}

/// Whether it would be the log of a database that is there, and stays: SQLite would play one state's log into another.
fn is_log_of_another(target: &Path) -> bool {
    let name = target.file_name().unwrap_or_default().as_bytes();
    let database = database::beside(name).map(|name| target.with_file_name(OsStr::from_bytes(name)));
    database.is_some_and(|database| database::is_database(&database).unwrap_or(false))
}

/// Before a database is put in place: a log that was left without one is of another state, and gets the name that goes
/// with a database which was set aside.
fn set_logs_aside(staged: &Path, target: &Path) -> Result<(), Error> {
    for suffix in BESIDE {
        let log = beside(target, suffix);
        if fs::symlink_metadata(&log).is_ok() && database::is_database(staged).unwrap_or(false) {
            let aside = beside(&aside_name(target, Timestamp::now()), suffix);
            fs::rename(&log, &aside).map_err(|source| Error::of("writing", &aside, source))?;
        }
    }
    Ok(())
}

/// A file of a place made by hand: the nearest folder's owner, an ordinary mode, its own time.
fn by_hand(own: &fs::Metadata, target: &Path) -> Attributes {
    let folder = target
        .ancestors()
        .skip(1)
        .find_map(|folder| fs::metadata(folder).ok())
        .unwrap_or_else(|| own.clone());
    Attributes {
        uid: folder.uid(),
        gid: folder.gid(),
        mode: 0o644,
        ..attributes::of(own)
    }
}

fn place_link(
    to: &Path,
    path: &Path,
    incoming: &Path,
    given: &Attributes,
    way: &Way<'_>,
    placed: &mut Placed,
) -> Result<(), Error> {
    let target = &way.volume.join(path);
    let failed = |source| Error::of("writing", target, source);
    let exists = fs::symlink_metadata(target).is_ok();
    if exists && way.mode == Mode::Missing {
        placed.kept += 1;
        return Ok(());
    }
    let staged = incoming.join(".link");
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::create_dir_all(incoming).map_err(failed)?;
    symlink(to, &staged).map_err(failed)?;
    let owner_given = attributes::give_to_link(&staged, given).map_err(failed)?;
    placed.owners_not_given += u64::from(!owner_given);
    if exists {
        way.give(path)?;
    }
    way.gate
        .through(&staged, target, || fs::rename(&staged, target))
        .map_err(failed)?;
    placed.files += 1;
    Ok(())
}

/// Makes a folder; `false` where something else is there and stays.
fn make_folder(path: &Path, way: &Way<'_>) -> Result<bool, Error> {
    let target = &way.volume.join(path);
    match fs::symlink_metadata(target) {
        Ok(found) if found.is_dir() => return Ok(true),
        Ok(_) if way.mode == Mode::Missing => return Ok(false),
        Ok(_) => way.give(path)?,
        Err(_) => {}
    }
    way.gate
        .through(target, target, || fs::DirBuilder::new().mode(0o700).create(target))
        .map(|()| true)
        .map_err(|source| Error::of("writing", target, source))
}

/// The folders above what is placed.
struct Way<'a> {
    volume: &'a Path,
    /// Where to what is in the way goes.
    outgoing: Option<&'a Path>,
    mode: Mode,
    /// The last folder that was seen to be there: what follows is in it, mostly.
    there: PathBuf,
    /// Folders of the plan that are something else on the volume, and stay so: what is below them is kept out.
    barred: BTreeSet<PathBuf>,
    gate: Gate,
}

impl<'a> Way<'a> {
    fn new(volume: &'a Path, outgoing: Option<&'a Path>, mode: Mode) -> Self {
        Self {
            volume,
            outgoing,
            mode,
            there: PathBuf::new(),
            barred: BTreeSet::new(),
            gate: Gate::default(),
        }
    }

    /// Moves what is at a path out of the way. Where an earlier attempt has moved something from there, what is there now
    /// is that one's own.
    fn give(&self, path: &Path) -> Result<(), Error> {
        let target = self.volume.join(path);
        let failed = |source| Error::of("removing", &target, source);
        let to = self
            .outgoing
            .filter(|outgoing| is_way(outgoing, path))
            .map(|outgoing| outgoing.join(path));
        if let Some(to) = to.filter(|to| fs::symlink_metadata(to).is_err()) {
            let above = to.parent().unwrap_or(&to);
            fs::create_dir_all(above).map_err(|source| Error::of("making", above, source))?;
            return self
                .gate
                .through(&target, &to, || fs::rename(&target, &to))
                .map_err(failed);
        }
        let removed = self.gate.through(&target, &target, || remove_all(&target));
        removed.map(drop).map_err(failed)
    }

    /// A folder that no entry names: of a place made by hand, or of a few paths of a snapshot. It gets its owner from the
    /// folder that it is in.
    fn make_unnamed(&self, folder: &Path, above: &Path) -> io::Result<()> {
        self.gate.through(folder, folder, || fs::create_dir(folder))?;
        let above = fs::metadata(above)?;
        let _ = lchown(folder, Some(above.uid()), Some(above.gid()));
        Ok(())
    }

    fn bar(&mut self, folder: &Path) {
        self.barred.insert(folder.to_owned());
    }

    fn is_barred(&self, path: &Path) -> bool {
        !self.barred.is_empty() && path.ancestors().any(|above| self.barred.contains(above))
    }

    /// Makes the folders above a path; no link is followed. `false` where something else is in their place and stays.
    fn cleared(&mut self, path: &Path) -> Result<bool, Error> {
        let Some(parent) = path.parent().filter(|parent| **parent != *self.there) else {
            return Ok(true);
        };
        if self.is_barred(parent) {
            return Ok(false);
        }
        let (mut below, mut above) = (PathBuf::new(), self.volume.to_owned());
        for component in parent.components() {
            below.push(component);
            let folder = self.volume.join(&below);
            let failed = |source| Error::of("writing", &folder, source);
            match fs::symlink_metadata(&folder) {
                Ok(found) if found.is_dir() => {}
                Ok(_) if self.mode == Mode::Missing => {
                    self.bar(&below);
                    return Ok(false);
                }
                Ok(_) => {
                    self.give(&below)?;
                    self.make_unnamed(&folder, &above).map_err(failed)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make_unnamed(&folder, &above).map_err(failed)?;
                }
                Err(error) => return Err(failed(error)),
            }
            above = folder;
        }
        parent.clone_into(&mut self.there);
        Ok(true)
    }
}

fn finish_folder(path: &Path, volume: &Path, given: &Attributes, mode: Mode, placed: &mut Placed) -> Result<(), Error> {
    let target = volume.join(path);
    let Ok(found) = fs::symlink_metadata(&target) else {
        return Ok(());
    };
    let is_root = path.as_os_str().is_empty();
    if !found.is_dir() || mode == Mode::Missing && (is_root || !found_is_ours(&found)) {
        return Ok(());
    }
    if is_root {
        // The kubelet marks the root of an fsGroup volume with the group and the setgid bit: another group than the
        // recorded one is today's, and is right.
        let fs_group_changed = found.mode() & 0o2000 != 0 && found.gid() != given.gid;
        if !fs_group_changed {
            // The root's owner may be out of our hands, and the files are what counts.
            let _ = attributes::give(&target, given);
        }
        return Ok(());
    }
    match attributes::give(&target, given) {
        Ok(given) => placed.owners_not_given += u64::from(!given),
        // It was there before, and is somebody else's.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => placed.owners_not_given += 1,
        Err(source) => return Err(Error::of("writing", &target, source)),
    }
    Ok(())
}

/// A folder that this restore made has the mode that it makes folders with.
fn found_is_ours(found: &fs::Metadata) -> bool {
    found.mode() & 0o7777 == 0o700
}

#[cfg(test)]
mod tests;
