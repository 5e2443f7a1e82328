//! Every key of the bucket's layout (`<destination>/…`) is made here and nowhere else, and taken apart here, so that
//! no backup goes where no restore reads. Pure.

use super::snapshot::SnapshotId;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The folder of snapshot indexes, their `.pending` and their `.base` marks.
pub const SNAPSHOTS: &str = "snapshots";
/// What backups replaced or deleted, one folder a backup.
pub const HISTORY: &str = "history";
/// Who wrote, and writes, here.
pub const CLAIMS: &str = "claims";
/// Litestream's replicas.
pub const DATABASE: &str = "database";
/// `restore-at` values that were served.
pub const SERVED: &str = "served";
/// Snapshots that retention must keep.
pub const PINS: &str = "pins";
/// "Back up now", left for a sidecar.
pub const REQUESTS: &str = "requests";
/// The summary by the claim's holder.
pub const STATE: &str = "state.json";

/// Below a volume's folder: files whose names the store can't hold, by the SHA-256 of their path.
pub const NAMES: &str = ".vixens-names";
/// Below a history folder: what a restore took from a volume, beside what a backup took from the mirror.
pub const ASIDE: &str = ".vixens-aside";
/// On the volume: our own folder, never backed up.
pub const OWN_FOLDER: &str = ".vixens-backup";

/// Below [`DATABASE`]: which databases there are.
const DATABASES: &str = ".vixens-databases.json";

/// Which databases have a replica.
#[must_use]
pub fn databases() -> String {
    format!("{DATABASE}/{DATABASES}")
}

/// Whether a volume may not use this folder name, because the layout does.
#[must_use]
pub fn is_reserved(folder: &str) -> bool {
    [
        SNAPSHOTS, HISTORY, CLAIMS, DATABASE, SERVED, PINS, REQUESTS, STATE, NAMES, ASIDE,
    ]
    .contains(&folder)
}

/// The newest copy of a volume's files.
#[must_use]
pub fn mirror(folder: &str) -> String {
    folder.to_owned()
}

/// What the backup `id` replaced or deleted, of all volumes: below it lies what [`mirror`] has below the destination.
#[must_use]
pub fn history_of(id: &SnapshotId) -> String {
    format!("{HISTORY}/{id}")
}

/// What the backup `id` replaced or deleted of a volume's files.
#[must_use]
pub fn history(id: &SnapshotId, folder: &str) -> String {
    format!("{HISTORY}/{id}/{folder}")
}

/// What a restore, as `id`, set aside of a volume's own files.
#[must_use]
pub fn aside(id: &SnapshotId, folder: &str) -> String {
    format!("{HISTORY}/{id}/{ASIDE}/{folder}")
}

/// The index of what a restore set aside.
#[must_use]
pub fn aside_index(id: &SnapshotId) -> String {
    format!("{HISTORY}/{id}/{ASIDE}/index.json")
}

/// Takes a name below [`HISTORY`] apart: which backup, and which file of the mirror. `None` for what was set aside.
#[must_use]
pub fn of_history(name: &str) -> Option<(SnapshotId, &str)> {
    let (id, file) = name.split_once('/')?;
    if file.starts_with(ASIDE) {
        return None;
    }
    Some((id.parse().ok()?, file))
}

/// A snapshot's index.
#[must_use]
pub fn snapshot(id: &SnapshotId) -> String {
    format!("{SNAPSHOTS}/{id}.json")
}

/// The mark that a backup is under way.
#[must_use]
pub fn pending(id: &SnapshotId) -> String {
    format!("{SNAPSHOTS}/{id}.pending")
}

/// The mark that a snapshot's index is complete in itself, and others may build on it.
#[must_use]
pub fn base(id: &SnapshotId) -> String {
    format!("{SNAPSHOTS}/{id}.base")
}

/// What lies below [`SNAPSHOTS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotObject {
    /// An index: the snapshot is whole.
    Index(SnapshotId),
    /// A backup that is, or was, under way.
    Pending(SnapshotId),
    /// The index of that name is complete in itself.
    Base(SnapshotId),
    /// A name of a release to come, or somebody else's.
    Unknown,
}

/// Takes a name below [`SNAPSHOTS`] apart.
#[must_use]
pub fn of_snapshot(name: &str) -> SnapshotObject {
    let parsed = name
        .rsplit_once('.')
        .and_then(|(id, extension)| Some((id.parse().ok()?, extension)));
    // An id has a dot of its own, between epoch and sequence.
    match parsed {
        Some((id, "json")) => SnapshotObject::Index(id),
        Some((id, "pending")) => SnapshotObject::Pending(id),
        Some((id, "base")) => SnapshotObject::Base(id),
        _ => SnapshotObject::Unknown,
    }
}

/// A claim: the epoch, and the id of the claimant's first volume.
#[must_use]
pub fn claim(epoch: u64, volume_id: &str) -> String {
    format!("{CLAIMS}/{epoch}-{volume_id}.json")
}

/// Takes a name below [`CLAIMS`] apart: epoch and volume id.
#[must_use]
pub fn of_claim(name: &str) -> Option<(u64, &str)> {
    let (epoch, id) = name.strip_suffix(".json")?.split_once('-')?;
    Some((epoch.parse().ok()?, id))
}

/// A `restore-at` value that was served.
#[must_use]
pub fn served(value: &str) -> String {
    format!("{SERVED}/{}", &sha256_hex(value.as_bytes())[..32])
}

/// A question that was decided.
#[must_use]
pub fn decided(id: &str) -> String {
    served(&format!("accept {id}"))
}

/// A pin by its name.
#[must_use]
pub fn pin(name: &str) -> String {
    format!("{PINS}/{name}.json")
}

/// A request by its id.
#[must_use]
pub fn request(id: &str) -> String {
    format!("{REQUESTS}/{id}.json")
}

/// Litestream's replica of the database at `path` of the volume in `folder`.
#[must_use]
pub fn database(folder: &str, path: &str) -> String {
    format!("{DATABASE}/{folder}/{path}")
}

/// How a file is named in the store, below its volume's folder (and below the same folder in history).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredName {
    /// As it is named on the volume.
    Plain(String),
    /// `.vixens-names/<sha256>`: rclone or the store can't hold its path; the index has the raw bytes.
    Named(String),
}

impl StoredName {
    /// The name below the volume's folder.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Plain(name) | Self::Named(name) => name,
        }
    }
}

/// A component longer than this does not fit a crypt remote (255 bytes do not; base32 grows by 8/5).
const LONGEST_COMPONENT: usize = 140;
/// A path longer than this does not fit S3's 1,024 bytes once a destination and a history folder stand before it.
const LONGEST_PATH: usize = 600;

/// Where the file at `path` (raw bytes, relative to its volume, `/` between parts) is stored.
///
/// The rule is on the safe side: what rclone's file lists, its encodings or a crypt remote drop, change or refuse
/// is stored by its hash (facts, rclone 6 and 9).
#[must_use]
pub fn stored_name(path: &[u8]) -> StoredName {
    match std::str::from_utf8(path) {
        Ok(text) if is_plain(text) => StoredName::Plain(text.to_owned()),
        _ => StoredName::Named(format!("{NAMES}/{}", sha256_hex(path))),
    }
}

fn is_plain(path: &str) -> bool {
    path.len() <= LONGEST_PATH
        && !path.starts_with(NAMES)
        && path.chars().all(is_plain_character)
        && path.split('/').all(|part| {
            !part.is_empty()
                && part.len() <= LONGEST_COMPONENT
                && part != "."
                && part != ".."
                && !part.starts_with([' ', '~'])
                && !part.ends_with([' ', '.'])
        })
}

/// Control characters, rclone's stand-ins for characters that a store can't hold (U+2400…, the full-width forms) and
/// its quote (U+201B), and what some store can't hold.
fn is_plain_character(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\\' | '\u{201b}' | '\u{fffd}')
        && !('\u{2400}'..='\u{243f}').contains(&c)
        && !('\u{ff00}'..='\u{ff60}').contains(&c)
}

/// `prefix/name`, where either may be empty.
#[must_use]
pub fn joined(prefix: &str, name: &str) -> String {
    match (prefix, name) {
        ("", _) => name.to_owned(),
        (_, "") => prefix.to_owned(),
        _ => format!("{prefix}/{name}"),
    }
}

/// SHA-256 as 64 lower-case hexadecimal digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SnapshotId {
        "20261122T130500Z-3.42-auto".parse().unwrap()
    }

    #[test]
    fn the_layout_is_the_one_of_the_interface() {
        assert_eq!(mirror("config"), "config");
        assert_eq!(history(&id(), "config"), "history/20261122T130500Z-3.42-auto/config");
        assert_eq!(snapshot(&id()), "snapshots/20261122T130500Z-3.42-auto.json");
        assert_eq!(pending(&id()), "snapshots/20261122T130500Z-3.42-auto.pending");
        assert_eq!(claim(3, "ab12"), "claims/3-ab12.json");
        assert_eq!(pin("before-sync"), "pins/before-sync.json");
        assert_eq!(request("r1"), "requests/r1.json");
        assert_eq!(database("config", "app.db"), "database/config/app.db");
        assert_eq!(served("2026-11-22T13:05:00Z").len(), "served/".len() + 32);
    }

    #[test]
    fn what_is_made_can_be_taken_apart() {
        assert_eq!(
            of_snapshot("20261122T130500Z-3.42-auto.json"),
            SnapshotObject::Index(id())
        );
        assert_eq!(
            of_snapshot("20261122T130500Z-3.42-auto.pending"),
            SnapshotObject::Pending(id())
        );
        assert_eq!(
            of_snapshot("20261122T130500Z-3.42-auto.base"),
            SnapshotObject::Base(id())
        );
        assert_eq!(of_snapshot("notes.txt"), SnapshotObject::Unknown);
        assert_eq!(of_claim("3-ab12.json"), Some((3, "ab12")));
        assert_eq!(of_claim("x-ab12.json"), None);
        let (back, file) = of_history("20261122T130500Z-3.42-auto/config/a/b").unwrap();
        assert_eq!((back, file), (id(), "config/a/b"));
        assert_eq!(of_history("20261122T130500Z-3.42-auto/.vixens-aside/config/a"), None);
    }

    #[test]
    fn ordinary_names_are_stored_as_they_are() {
        for name in [
            "configuration.yaml",
            ".storage/core.config",
            "-rf",
            "#x",
            "; y",
            "a b/[c]*?{d}.txt",
            "été/日本語",
            "e\u{301}",
        ] {
            assert_eq!(
                stored_name(name.as_bytes()),
                StoredName::Plain(name.to_owned()),
                "{name}"
            );
        }
    }

    #[test]
    fn names_that_the_store_cannot_hold_are_stored_by_their_hash() {
        let long = "x".repeat(255);
        let deep = "0123456789/".repeat(100);
        for name in [
            b"a\nb".as_slice(),
            b" leading",
            b"trailing ",
            b"folder /file",
            b"\xff\xfe",
            "\u{240a}".as_bytes(),
            "\u{201b}\u{201b}".as_bytes(),
            "\u{ff0e}".as_bytes(),
            long.as_bytes(),
            &deep.as_bytes()[..1099],
            b".vixens-names/x",
        ] {
            let stored = stored_name(name);
            assert_eq!(stored, StoredName::Named(format!("{NAMES}/{}", sha256_hex(name))));
        }
    }
}
