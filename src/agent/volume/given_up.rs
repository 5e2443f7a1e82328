//! Files of the backup that nobody has any more, and that a start was told to go without: noted on the volume, so that the
//! next backup lets go of them, however they are kept, and no later snapshot claims to have them.

use super::Error;
use super::own::{Kept, OwnFolder};
use crate::store::keys::hex;
use crate::store::records::VERSION;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// The note, in our folder of the volume.
const NOTE: &str = "given-up.json";

/// What was given up, of one volume or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenUp(BTreeSet<String>);

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    version: u32,
    /// [`mark`] of each.
    files: BTreeSet<String>,
}

/// A path of the index, and the content that it should have: the first half of a SHA-256, in hexadecimal digits.
fn mark(path: &[u8], content: Option<&[u8; 32]>) -> String {
    let mut hash = Sha256::new();
    hash.update(path);
    hash.update([0]);
    hash.update(content.map_or(&[][..], <[u8; 32]>::as_slice));
    hex(&hash.finalize()[..16])
}

impl GivenUp {
    /// Adds what a volume's note says. One that is damaged says nothing: what it said is asked again.
    pub fn read(&mut self, own: &OwnFolder) -> Result<(), Error> {
        if let Kept::Whole(Note { files, .. }) = own.read_or_damaged(NOTE)? {
            self.0.extend(files);
        }
        Ok(())
    }

    /// Whether this content at this path of the index was given up.
    #[must_use]
    pub fn has(&self, path: &[u8], content: Option<&[u8; 32]>) -> bool {
        !self.0.is_empty() && self.0.contains(&mark(path, content))
    }
}

/// Notes what is given up of a volume: paths of the index, and the content that each should have.
pub fn give_up<'a>(own: &OwnFolder, files: impl Iterator<Item = (Vec<u8>, Option<&'a [u8; 32]>)>) -> Result<(), Error> {
    let mut noted = GivenUp::default();
    noted.read(own)?;
    noted.0.extend(files.map(|(path, content)| mark(&path, content)));
    let note = Note {
        version: VERSION,
        files: noted.0,
    };
    own.write(NOTE, &note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_a_path_with_a_content_and_stays_so_beside_what_is_given_up_later() {
        let volume = tempfile::tempdir().unwrap();
        let own = OwnFolder::on(volume.path());
        let (one, other) = ([1; 32], [2; 32]);
        give_up(&own, [(b"config/a".to_vec(), Some(&one))].into_iter()).unwrap();
        give_up(&own, [(b"config/b".to_vec(), None)].into_iter()).unwrap();
        let mut given_up = GivenUp::default();
        given_up.read(&own).unwrap();
        for (path, content, expected) in [
            ("config/a", Some(&one), true),
            ("config/a", Some(&other), false),
            ("config/a", None, false),
            ("config/b", None, true),
            ("config/c", None, false),
        ] {
            assert_eq!(given_up.has(path.as_bytes(), content), expected, "{path}");
        }
        std::fs::write(own.join(NOTE), b"{\"version\":1,\"fi").unwrap();
        let mut damaged = GivenUp::default();
        damaged.read(&own).unwrap();
        assert_eq!(damaged, GivenUp::default());
    }
}
