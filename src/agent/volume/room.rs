//! How much room a file system has. Asks the system; writes nothing.

use std::path::Path;

/// A file system's room.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// Bytes in all.
    pub size: u64,
    /// Bytes that are free for us.
    pub free: u64,
    /// Bytes of which a file takes whole ones.
    pub block: u64,
    /// How many more files there may be, where that is limited.
    pub files: Option<u64>,
}

impl Room {
    /// Of the file system that a path lies on; nothing where it does not say.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(path).ok()?;
        (found.f_blocks > 0).then(|| Self {
            size: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
            block: found.f_frsize,
            files: (found.f_files > 0).then_some(found.f_favail),
        })
    }

    /// Takes a file of this size; `false`, and nothing is taken, where it does not fit.
    pub fn take(&mut self, size: u64) -> bool {
        let taken = match self.block {
            0 => size,
            block => size.div_ceil(block).saturating_mul(block),
        };
        let is_room = taken <= self.free && self.files != Some(0);
        if is_room {
            self.free -= taken;
            self.files = self.files.map(|files| files - 1);
        }
        is_room
    }
}
