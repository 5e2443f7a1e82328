//! What an init container is told of its volumes → each of them as it is found. Reads the volumes, and takes a restore
//! back that was interrupted and is not asked for any more.

use super::{Error, taken_back};
use crate::agent::arguments::InitArguments;
use crate::agent::volume;
use crate::agent::volume::files::Files;
use crate::agent::volume::look::{VolumeState, look};
use crate::agent::volume::marker::{MARKER, Marker};
use crate::agent::volume::mount;
use crate::agent::volume::own::{Kept, OwnFolder};
use crate::contract::question::Question;
use crate::store::claims::Owner;
use crate::store::keys;
use std::io::{self, Read};
use std::path::Path;

/// A protected volume during a start.
pub(super) struct Subject {
    /// The pod volume's name.
    pub(super) name: String,
    /// Its folder in the bucket.
    pub(super) folder: String,
    /// Its root and our folder on it.
    pub(super) own: OwnFolder,
    /// What it was found as.
    pub(super) state: VolumeState,
    /// The marker of an earlier start, whatever happened since.
    pub(super) marker: Option<Marker>,
    /// Its id: the one on it, or a new one.
    pub(super) id: String,
    /// There is no file on it but ours.
    pub(super) is_bare: bool,
    /// Questions about it that were answered by yes, and acted upon.
    pub(super) accepted: Vec<Question>,
}

impl Subject {
    /// The epoch that its marker names; 0 without one.
    pub(super) fn epoch(&self) -> u64 {
        self.marker.as_ref().map_or(0, |marker| marker.epoch)
    }
}

/// Looks at each volume.
pub(super) fn subjects(arguments: &InitArguments, owner: &Owner) -> Result<Vec<Subject>, Error> {
    let value = arguments.restore_at.as_ref().map(ToString::to_string);
    let mut subjects = Vec::new();
    for volume in &arguments.protection.volumes {
        let path = Path::new(&volume.mount_path);
        mount::check(path, arguments.folders.allow_plain_folder)?;
        if keys::is_reserved(&volume.folder) {
            return Err(Error::ReservedFolder {
                volume: volume.name.clone(),
                folder: volume.folder.clone(),
            });
        }
        let own = OwnFolder::on(path);
        let state = taken_back::settled(&own, owner, look(&own, owner)?, value.as_deref())?;
        let own_state = match &state {
            VolumeState::Others(others) => others.if_ours.as_ref(),
            state => state,
        };
        let marker = match own_state {
            VolumeState::Initialised(marker) | VolumeState::Provisional(marker) => Some(marker.clone()),
            VolumeState::Interrupted(_) => match own.read_or_damaged(MARKER)? {
                Kept::Whole(marker) => Some(marker),
                Kept::Damaged | Kept::Nothing => None,
            },
            VolumeState::Empty | VolumeState::Foreign | VolumeState::Others(_) => None,
        };
        let known = match own_state {
            VolumeState::Interrupted(restoring) => Some(restoring.id.clone()),
            _ => marker.as_ref().map(|marker| marker.id.clone()),
        };
        let id = match known {
            Some(id) if !id.is_empty() => id,
            _ => new_id().map_err(|source| volume::Error::of("reading", Path::new("/dev/urandom"), source))?,
        };
        subjects.push(Subject {
            name: volume.name.clone(),
            folder: volume.folder.clone(),
            own,
            is_bare: Files::on(path).next().is_none(),
            state,
            marker,
            id,
            accepted: Vec::new(),
        });
    }
    Ok(subjects)
}

fn new_id() -> io::Result<String> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(keys::hex(&bytes))
}
