//! The Secret's folder → whether it is still what it was. A store that is asked with other settings may be another store, or
//! look like one, as a crypt remote does with another password: it is looked at before anything is written there.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The settings of a destination, as they were when the place was last seen to be ours with them.
#[derive(Debug)]
pub struct Credentials {
    folder: PathBuf,
    known: Option<[u8; 32]>,
}

impl Credentials {
    /// Nothing is known of them yet.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            known: None,
        }
    }

    /// What stands there now, where that is not what is known.
    #[must_use]
    pub fn news(&self) -> Option<[u8; 32]> {
        let now = digest(&self.folder);
        (self.known != Some(now)).then_some(now)
    }

    /// The place was seen with these.
    pub fn know(&mut self, news: [u8; 32]) {
        self.known = Some(news);
    }
}

/// All keys with their values. A folder that can't be read is as good as an empty one.
fn digest(folder: &Path) -> [u8; 32] {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let mut digest = Sha256::new();
    for path in paths {
        // The kubelet's own folders are not read: each key is a link into them.
        if let Ok(value) = std::fs::read(&path) {
            digest.update(path.as_os_str().as_encoded_bytes());
            digest.update([0]);
            digest.update(Sha256::digest(value));
        }
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_comes_goes_or_changes_is_news_until_it_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut credentials = Credentials::of(folder.path());
        let mut knows = |what: &str| {
            let news = credentials.news().unwrap_or_else(|| panic!("{what} is news"));
            credentials.know(news);
            assert_eq!(credentials.news(), None, "{what}");
        };
        knows("the first look");
        let key = folder.path().join("RCLONE_CONFIG_MINIO_PASSWORD");
        std::fs::write(&key, "one").unwrap();
        knows("a new key");
        std::fs::write(&key, "two").unwrap();
        knows("a new value");
        std::fs::rename(&key, folder.path().join("RCLONE_CONFIG_MINIO_PASS")).unwrap();
        knows("another name");
    }
}
