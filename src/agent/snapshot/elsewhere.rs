//! What vanished under its name × what is there under others → whether it was moved. In memory: 16 bytes for each file that is
//! looked for. Reads nothing but what it is given.

use crate::agent::scan::{Entry, Kind, Record};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};

/// What of the plan's paths is elsewhere too.
#[derive(Default)]
pub(super) struct Elsewhere {
    /// By what they hold.
    pub(super) contents: Sought,
    /// By their inodes.
    pub(super) nodes: Sought,
    /// Of what vanished, ascending.
    pub(super) sizes: Vec<u64>,
    /// Bytes of new files that were moved there.
    pub(super) moved: u64,
}

impl Elsewhere {
    /// Whether what is gone is there under another name.
    pub(super) fn has(&self, gone: &Record) -> bool {
        self.contents.has(content(gone)) || self.nodes.has(node(&gone.entry))
    }
}

/// Keys that are looked for, and those that were found.
#[derive(Default)]
pub(super) struct Sought {
    keys: Vec<u64>,
    found: Vec<bool>,
}

impl Sought {
    /// Looks for these.
    pub(super) fn new(mut keys: Vec<u64>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self {
            found: vec![false; keys.len()],
            keys,
        }
    }

    /// Notes that a key was met; whether it was looked for.
    pub(super) fn note(&mut self, key: Option<u64>) -> bool {
        let at = key.and_then(|key| self.keys.binary_search(&key).ok());
        match at.and_then(|at| self.found.get_mut(at)) {
            Some(found) => {
                *found = true;
                true
            }
            None => false,
        }
    }

    /// Whether anything was found.
    pub(super) fn found_any(&self) -> bool {
        self.found.contains(&true)
    }

    /// Whether this was looked for, and found.
    pub(super) fn has(&self, key: Option<u64>) -> bool {
        let at = key.and_then(|key| self.keys.binary_search(&key).ok());
        at.and_then(|at| self.found.get(at)).copied().unwrap_or(false)
    }
}

/// By which the content of a file is known again under another name, and a link in another folder. Nothing: there is
/// none.
pub(super) fn content(record: &Record) -> Option<u64> {
    match record.entry.kind {
        Kind::File if record.stored_size > 0 => record.digest.map(short),
        Kind::Symlink => {
            let name = record.entry.path.rsplit(|byte| *byte == b'/').next();
            Some(hashed(&(name, &record.entry.target)))
        }
        Kind::File | Kind::Folder => None,
    }
}

/// By which a file that was renamed is known again while we run.
pub(super) fn node(entry: &Entry) -> Option<u64> {
    let folder = entry.path.split(|byte| *byte == b'/').next().unwrap_or_default();
    (entry.kind == Kind::File && entry.inode != 0 && entry.size > 0)
        .then(|| hashed(&(folder, entry.inode, entry.size, entry.modified)))
}

fn hashed(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn short(digest: [u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

pub(super) fn digest(from: &mut File) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(count) => hash.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
