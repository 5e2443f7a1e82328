//! A restore that was interrupted, and what is asked for now → whether it is still under way. What nobody asks for any more
//! is taken back on the spot, without the store: the volume is what it was, with everything unsaved on it.

use crate::agent::restore::undo::Undo;
use crate::agent::volume::Error;
use crate::agent::volume::look::{VolumeState, look_past};
use crate::agent::volume::marker::{MARKER, Marker, Mode, RESTORING, Restoring};
use crate::agent::volume::own::{Kept, OwnFolder};
use crate::store::claims::Owner;

/// The state of a volume that was found in this one, where `value` is the `restore-at` of now.
pub(super) fn settled(
    own: &OwnFolder,
    us: &Owner,
    found: VolumeState,
    value: Option<&str>,
) -> Result<VolumeState, Error> {
    let VolumeState::Interrupted(restoring) = found else {
        return Ok(found);
    };
    let marker: Option<Marker> = match own.read_or_damaged(MARKER)? {
        Kept::Whole(marker) => Some(marker),
        Kept::Damaged | Kept::Nothing => None,
    };
    let served = |value: &String| marker.as_ref().is_some_and(|marker| marker.served.contains(value));
    if restoring.serves.as_ref().is_some_and(served) {
        // It came to its end: the marker says so, and is written last.
        own.remove(RESTORING)?;
        return look_past(own, us);
    }
    let is_taken_back = restoring.serves.is_some() && restoring.serves.as_deref() != value;
    if !restoring.placing {
        // Nothing was changed yet: the volume is what its marker says. Without one, it is no new volume all the same:
        // there was a backup.
        return Ok(match look_past(own, us)? {
            state @ VolumeState::Initialised(_) => state,
            state @ VolumeState::Foreign if is_taken_back => state,
            _ => VolumeState::Interrupted(restoring),
        });
    }
    let asked = restoring.serves.as_deref().unwrap_or_default();
    match Undo::read(own)? {
        _ if !is_taken_back => Ok(VolumeState::Interrupted(restoring)),
        Some(undo) if restoring.mode == Mode::Replace => {
            let back = undo.take_back(own)?;
            tracing::warn!(
                "vixens.io/backup-restore-at: {asked} was interrupted, and is not asked for any more: {} is what it was \
                 before ({back} files and folders were put back)",
                own.volume().display()
            );
            look_past(own, us)
        }
        // There was nothing to put back, or it is not known: what is here of it gives way to the newest snapshot.
        _ => {
            tracing::warn!(
                "vixens.io/backup-restore-at: {asked} was interrupted, and is not asked for any more: {} gets the newest \
                 snapshot instead",
                own.volume().display()
            );
            Ok(VolumeState::Interrupted(Restoring {
                snapshot: None,
                mode: Mode::Replace,
                serves: None,
                ..restoring
            }))
        }
    }
}
