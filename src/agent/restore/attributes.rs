//! Owner, mode and times of an index ↔ those of a file. No link is followed.

use crate::store::index::Attributes;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

const NANOSECONDS: i64 = 1_000_000_000;

/// What a file's metadata says.
#[must_use]
pub fn of(metadata: &fs::Metadata) -> Attributes {
    Attributes {
        modified: metadata
            .mtime()
            .saturating_mul(NANOSECONDS)
            .saturating_add(metadata.mtime_nsec()),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode() & 0o7777,
    }
}

/// Gives a file or folder its attributes. `false`: its owner could not be given, because this user may not.
pub fn give(path: &Path, attributes: &Attributes) -> io::Result<bool> {
    give_over(&fs::symlink_metadata(path)?, path, attributes)
}

/// The same, where it is known what it has now.
pub fn give_over(now: &fs::Metadata, path: &Path, attributes: &Attributes) -> io::Result<bool> {
    let given = give_owner(now, path, attributes)?;
    // A change of owner may take bits of the mode away.
    if !is_owned(now, attributes) || now.mode() & 0o7777 != attributes.mode {
        fs::set_permissions(path, fs::Permissions::from_mode(attributes.mode))?;
    }
    give_time(path, attributes)?;
    Ok(given)
}

/// Gives a link its owner and time; a link's mode means nothing.
pub fn give_to_link(path: &Path, attributes: &Attributes) -> io::Result<bool> {
    let given = give_owner(&fs::symlink_metadata(path)?, path, attributes)?;
    give_time(path, attributes)?;
    Ok(given)
}

fn is_owned(now: &fs::Metadata, attributes: &Attributes) -> bool {
    (now.uid(), now.gid()) == (attributes.uid, attributes.gid)
}

fn give_owner(now: &fs::Metadata, path: &Path, attributes: &Attributes) -> io::Result<bool> {
    if is_owned(now, attributes) {
        return Ok(true);
    }
    match lchown(path, Some(attributes.uid), Some(attributes.gid)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // A group that we are in may be given without rights of root.
            let _ = lchown(path, None, Some(attributes.gid));
            Ok(now.uid() == attributes.uid)
        }
        Err(error) => Err(error),
    }
}

fn give_time(path: &Path, attributes: &Attributes) -> io::Result<()> {
    let time = Timespec {
        tv_sec: attributes.modified.div_euclid(NANOSECONDS),
        tv_nsec: attributes.modified.rem_euclid(NANOSECONDS),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
}
