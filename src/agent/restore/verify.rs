//! Files that arrive → which of them are what the index says. Threads of their own hash while more arrive.

use super::plan::Content;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A file is read in pieces of this size, a small one at once.
const PIECE: u64 = 128 * 1024;

/// Whether a file is what it should be.
pub fn is_as_planned(path: &Path, content: &Content) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() != content.size {
        return Ok(false);
    }
    let Some(expected) = content.sha256 else {
        return Ok(true);
    };
    Ok(hash_of(&mut file, content.size, content.size)? == expected)
}

/// The SHA-256 of what is left to read of a file.
pub fn sha256_of(file: &mut File) -> io::Result<[u8; 32]> {
    // One more than there is, so that its end is seen at once too.
    let piece = file.metadata()?.len().saturating_add(1);
    hash_of(file, piece, u64::MAX)
}

/// The SHA-256 of the next so many bytes, or of all that is left where that is less, read in pieces of at most [`PIECE`].
fn hash_of(file: &mut File, piece: u64, length: u64) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; usize::try_from(piece.min(PIECE)).unwrap_or(4096)];
    let mut left = length;
    while left > 0 {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
        left = left.saturating_sub(read as u64);
    }
    Ok(hash.finalize().into())
}

/// The expected contents, by key.
pub type Expected = Arc<HashMap<String, Content>>;

/// Hashes files on threads of its own.
pub struct Verifier {
    sender: Sender<String>,
    threads: Vec<JoinHandle<Vec<Verdict>>>,
}

/// What came of one file.
#[derive(Debug)]
pub struct Verdict {
    /// Its key.
    pub key: String,
    /// It is what the index says; or it could not be read.
    pub right: io::Result<bool>,
}

impl Verifier {
    /// Starts the threads, for files that arrive at `folder/key`. `right` is called with the bytes of each good file.
    pub fn start(folder: &Path, expected: &Expected, right: &Arc<dyn Fn(u64) + Send + Sync>) -> Self {
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let count = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 4);
        let threads = (0..count)
            .map(|_| {
                let (receiver, expected, right) = (receiver.clone(), expected.clone(), right.clone());
                let folder = folder.to_owned();
                std::thread::spawn(move || work(&receiver, &folder, &expected, right.as_ref()))
            })
            .collect();
        Self { sender, threads }
    }

    /// Where to say that a file has arrived.
    pub fn arrivals(&self) -> Sender<String> {
        self.sender.clone()
    }

    /// Waits until all that arrived is verified. Every other sender must be gone.
    pub fn finish(self) -> Vec<Verdict> {
        drop(self.sender);
        self.threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_default())
            .collect()
    }
}

fn work(
    receiver: &Mutex<Receiver<String>>,
    folder: &Path,
    expected: &HashMap<String, Content>,
    right: &(dyn Fn(u64) + Send + Sync),
) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(key) = next else { return verdicts };
        let Some(content) = expected.get(&key) else {
            continue;
        };
        let path: PathBuf = folder.join(&key);
        let verdict = is_as_planned(&path, content);
        if matches!(verdict, Ok(true)) {
            right(content.size);
        }
        verdicts.push(Verdict { key, right: verdict });
    }
}
