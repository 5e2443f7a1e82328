//! `followed.json` in Litestream's folder of a database: which file it is that Litestream has followed there, and whether it
//! has yet to be sent as a whole. Litestream goes by the path and by the log alone: where the app has put another file there,
//! it sends what it finds in the log of the new one on top of the pages of the old one, and goes on from there when it is
//! started again. Who was killed in between has to know that from the volume. A type ↔ a file.

use super::local::{folder, identity};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

const NAME: &str = "followed.json";

/// What is known of the file that Litestream has followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Followed {
    inode: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    anew: bool,
}

/// What lies in Litestream's folder of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// What belongs to the file that is there, as far as anybody knows.
    Its,
    /// The same, and nobody is sure that what was sent is of that file alone: it has yet to be sent as a whole.
    Doubtful,
    /// What belongs to another file, which lay there before.
    AnothersFile,
}

/// What lies beside a database.
#[must_use]
pub(super) fn beside(database: &Path) -> Beside {
    let bytes = fs::read(folder(database).join(NAME)).unwrap_or_default();
    // The former release writes none.
    let (Ok(followed), Some((_, inode))) = (serde_json::from_slice::<Followed>(&bytes), identity(database)) else {
        return Beside::Its;
    };
    if followed.inode != inode {
        Beside::AnothersFile
    } else if followed.anew {
        Beside::Doubtful
    } else {
        Beside::Its
    }
}

/// Notes that the file that is there is followed. `anew`: until something else is noted, it has to be sent as a whole.
pub(super) fn note(database: &Path, anew: bool) -> io::Result<()> {
    let Some((_, inode)) = identity(database) else {
        return Ok(());
    };
    let is_noted = match beside(database) {
        Beside::Its => !anew && folder(database).join(NAME).exists(),
        Beside::Doubtful => anew,
        Beside::AnothersFile => false,
    };
    if is_noted {
        return Ok(());
    }
    let folder = folder(database);
    fs::create_dir_all(&folder)?;
    let bytes = serde_json::to_vec(&Followed { inode, anew }).map_err(io::Error::other)?;
    let written = folder.join(format!("{NAME}.new"));
    fs::write(&written, bytes)?;
    fs::rename(written, folder.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::litestream::local;

    #[test]
    fn what_lies_beside_a_database_that_was_replaced_is_anothers_whoever_was_killed_meanwhile() {
        let volume = tempfile::tempdir().unwrap();
        let database = volume.path().join("app.db");
        note(&database, true).unwrap();
        assert!(!folder(&database).exists(), "there is no database");
        fs::write(&database, "one").unwrap();
        assert_eq!(beside(&database), Beside::Its);
        note(&database, false).unwrap();
        assert_eq!(beside(&database), Beside::Its);
        fs::write(volume.path().join("new"), "two").unwrap();
        fs::rename(volume.path().join("new"), &database).unwrap();
        assert_eq!(beside(&database), Beside::AnothersFile);
        local::forget(&database).unwrap();
        note(&database, true).unwrap();
        assert_eq!(beside(&database), Beside::Doubtful);
        note(&database, false).unwrap();
        assert_eq!(beside(&database), Beside::Its);
    }
}
