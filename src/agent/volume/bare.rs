//! A volume without a file → a word for its folders, which is another once anything was put there or taken away, were it put
//! back a moment later. Reads names and times only.

use crate::store::keys::{OWN_FOLDER, hex};
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// With more folders than these, nothing is said.
const MOST: usize = 1_000;

/// The word; none where there is a file, or the folders are too many. A folder's time changes with each name in it; its owner
/// and mode, which a kubelet may set at each start, say nothing.
pub fn untouched(root: &Path) -> io::Result<Option<String>> {
    let mut folders = vec![root.to_owned()];
    let mut words = Vec::new();
    while let Some(folder) = folders.pop() {
        if words.len() >= MOST {
            return Ok(None);
        }
        let found = fs::metadata(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let is_ours = || path.ends_with(OWN_FOLDER) || path.ends_with("lost+found");
            if folder == root && is_ours() {
                continue;
            }
            if !entry.file_type()?.is_dir() {
                return Ok(None);
            }
            folders.push(path);
        }
        let below = folder
            .strip_prefix(root)
            .unwrap_or(&folder)
            .as_os_str()
            .as_bytes()
            .to_vec();
        words.push((below, found.ino(), found.mtime(), found.mtime_nsec()));
    }
    words.sort_unstable();
    let mut hash = Sha256::new();
    for (below, inode, seconds, nanoseconds) in words {
        hash.update((below.len() as u64).to_le_bytes());
        hash.update(&below);
        hash.update(inode.to_le_bytes());
        hash.update(seconds.to_le_bytes());
        hash.update(nanoseconds.to_le_bytes());
    }
    Ok(Some(hex(&hash.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_was_put_on_a_volume_or_taken_from_it_changes_the_word_and_nothing_else_does() {
        let volume = tempfile::tempdir().unwrap();
        let root = volume.path();
        for folder in ["logs/old", OWN_FOLDER, "lost+found"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        // Folders of long ago: the clock goes on in steps.
        for folder in ["logs/old", "logs", ""] {
            let long_ago = std::time::SystemTime::UNIX_EPOCH;
            fs::File::open(root.join(folder))
                .unwrap()
                .set_modified(long_ago)
                .unwrap();
        }
        let word = || untouched(root).unwrap();
        let before = word().unwrap();
        fs::write(root.join(OWN_FOLDER).join("volume.json"), "{}").unwrap();
        fs::write(root.join("lost+found/x"), "x").unwrap();
        fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o2775)).unwrap();
        assert_eq!(word(), Some(before.clone()));
        fs::write(root.join("logs/old/x"), "x").unwrap();
        assert_eq!(word(), None);
        fs::remove_file(root.join("logs/old/x")).unwrap();
        assert_ne!(word(), Some(before));
        assert_eq!(untouched(&root.join("lost+found")).unwrap(), None);
        assert!(untouched(&root.join("gone")).is_err());
    }
}
