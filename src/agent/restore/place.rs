//! A plan whose files are staged → the volume as the plan says, by renames. Everything is on the volume already, so
//! this needs no store; a kill at any moment leaves files that the next start takes for what they are.

use super::attributes;
use super::plan::{Plan, Planned};
use crate::agent::volume::Error;
use crate::agent::volume::marker::Mode;
use crate::store::index::Attributes;
use crate::store::keys::OWN_FOLDER;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
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

/// Puts everything into its place.
pub fn place(plan: &Plan, volume: &Path, incoming: &Path, mode: Mode) -> Result<Placed, Error> {
    let mut placed = Placed::default();
    if mode == Mode::Replace {
        placed.removed = remove_extras(plan, volume)?;
    }
    // A folder of the plan that is something else on the volume, and stays so, keeps what is below it out.
    let mut barred: Option<PathBuf> = None;
    for item in &plan.items {
        if barred.as_ref().is_some_and(|folder| item.path.starts_with(folder)) {
            placed.kept += 1;
            continue;
        }
        let target = volume.join(&item.path);
        match &item.what {
            Planned::Folder(_) => {
                if !make_folder(&target, mode)? {
                    barred = Some(item.path.clone());
                    placed.kept += 1;
                }
            }
            Planned::File(content, given) => {
                let staged = incoming.join(&content.key);
                place_file(&staged, &target, given.as_ref(), mode, &mut placed)?;
                placed.bytes += content.size;
            }
            Planned::Link(to, given) => place_link(to, &target, incoming, given, mode, &mut placed)?,
        }
    }
    // Placing what is in a folder changes its time.
    for item in plan.items.iter().rev() {
        if let Planned::Folder(given) = &item.what {
            finish_folder(&item.path, volume, given, mode, &mut placed)?;
        }
    }
    Ok(placed)
}

fn place_file(
    staged: &Path,
    target: &Path,
    given: Option<&Attributes>,
    mode: Mode,
    placed: &mut Placed,
) -> Result<(), Error> {
    let exists = fs::symlink_metadata(target).ok();
    if mode == Mode::Missing && exists.is_some() {
        placed.kept += 1;
        return Ok(());
    }
    let is_staged = fs::symlink_metadata(staged).is_ok();
    let file = if is_staged { staged } else { target };
    let given = match given {
        Some(given) => *given,
        None => by_hand(file, target)?,
    };
    let owner_given = attributes::give(file, &given).map_err(|source| Error::of("writing", target, source))?;
    placed.owners_not_given += u64::from(!owner_given);
    if is_staged {
        if exists.is_some_and(|found| found.is_dir()) {
            fs::remove_dir_all(target).map_err(|source| Error::of("removing", target, source))?;
        }
        make_parents(target)?;
        fs::rename(staged, target).map_err(|source| Error::of("writing", target, source))?;
    }
    placed.files += 1;
    Ok(())
}

/// A file of a place made by hand: the nearest folder's owner, an ordinary mode, its own time.
fn by_hand(file: &Path, target: &Path) -> Result<Attributes, Error> {
    let own = fs::symlink_metadata(file).map_err(|source| Error::of("reading", file, source))?;
    let folder = target
        .ancestors()
        .skip(1)
        .find_map(|folder| fs::metadata(folder).ok())
        .unwrap_or_else(|| own.clone());
    Ok(Attributes {
        uid: folder.uid(),
        gid: folder.gid(),
        mode: 0o644,
        ..attributes::of(&own)
    })
}

fn place_link(
    to: &Path,
    target: &Path,
    incoming: &Path,
    given: &Attributes,
    mode: Mode,
    placed: &mut Placed,
) -> Result<(), Error> {
    let failed = |source| Error::of("writing", target, source);
    match fs::symlink_metadata(target) {
        Ok(_) if mode == Mode::Missing => {
            placed.kept += 1;
            return Ok(());
        }
        Ok(found) if found.is_dir() => fs::remove_dir_all(target).map_err(failed)?,
        Ok(_) | Err(_) => {}
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
    make_parents(target)?;
    fs::rename(&staged, target).map_err(failed)?;
    placed.files += 1;
    Ok(())
}

/// Makes a folder; `false` where something else is there and stays.
fn make_folder(target: &Path, mode: Mode) -> Result<bool, Error> {
    match fs::symlink_metadata(target) {
        Ok(found) if found.is_dir() => return Ok(true),
        Ok(_) if mode == Mode::Missing => return Ok(false),
        Ok(_) => fs::remove_file(target).map_err(|source| Error::of("removing", target, source))?,
        Err(_) => {}
    }
    make_parents(target)?;
    fs::DirBuilder::new()
        .mode(0o700)
        .create(target)
        .map(|()| true)
        .map_err(|source| Error::of("writing", target, source))
}

/// Folders that no entry names: of a place made by hand, or of a few paths of a snapshot. They get their owner from
/// the folder that they are in.
fn make_parents(target: &Path) -> Result<(), Error> {
    let Some(parent) = target.parent() else {
        return Ok(());
    };
    if parent.is_dir() {
        return Ok(());
    }
    make_parents(parent)?;
    let make = || -> io::Result<()> {
        fs::create_dir(parent)?;
        if let Some(above) = parent.parent() {
            let above = fs::metadata(above)?;
            let _ = std::os::unix::fs::chown(parent, Some(above.uid()), Some(above.gid()));
        }
        Ok(())
    };
    make().map_err(|source| Error::of("writing", parent, source))
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
    let owner_given = attributes::give(&target, given).map_err(|source| Error::of("writing", &target, source))?;
    placed.owners_not_given += u64::from(!owner_given);
    Ok(())
}

/// A folder that this restore made has the mode that it makes folders with.
fn found_is_ours(found: &fs::Metadata) -> bool {
    found.mode() & 0o7777 == 0o700
}

/// Removes what the plan lacks. It was set aside before.
fn remove_extras(plan: &Plan, volume: &Path) -> Result<u64, Error> {
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
    let mut removed = 0;
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
                _ => {
                    let gone = if is_folder {
                        fs::remove_dir_all(&path)
                    } else {
                        fs::remove_file(&path)
                    };
                    gone.map_err(|source| Error::of("removing", &path, source))?;
                    removed += 1;
                }
            }
        }
    }
    Ok(removed)
}
