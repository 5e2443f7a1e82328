//! Every key of the bucket's layout (`<destination>/…`) is made here and nowhere else, and taken apart here, so that
//! no backup goes where no restore reads. Pure.

use super::Error;
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
/// Before the id of a backup that was undone.
const UNDONE: &str = "undone-";
/// Snapshots that retention must keep.
pub const PINS: &str = "pins";
/// "Back up now", left for a sidecar.
pub const REQUESTS: &str = "requests";
/// The summary by the claim's holder.
pub const STATE: &str = "state.json";
/// Which store this is.
pub const STORE_ID: &str = "store-id";

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
        SNAPSHOTS, HISTORY, CLAIMS, DATABASE, SERVED, PINS, REQUESTS, STATE, STORE_ID, NAMES, ASIDE,
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
    /// A name of our shape, of a kind that this release does not know: a newer one wrote it.
    Newer,
    /// Somebody's, who looked into the bucket with a file manager, or what rclone left of an upload that was cut off.
    Foreign,
}

/// Takes a name below [`SNAPSHOTS`] apart.
#[must_use]
pub fn of_snapshot(name: &str) -> SnapshotObject {
    // An id has a dot of its own, between epoch and sequence.
    let Some((id, extension)) = name.rsplit_once('.') else {
        return SnapshotObject::Foreign;
    };
    match (id.parse(), extension) {
        (Ok(id), "json") => SnapshotObject::Index(id),
        (Ok(id), "pending") => SnapshotObject::Pending(id),
        (Ok(id), "base") => SnapshotObject::Base(id),
        _ if is_extension(extension) && has_shape_of_id(id) => SnapshotObject::Newer,
        _ => SnapshotObject::Foreign,
    }
}

/// The error about a name below [`SNAPSHOTS`] that is of a newer release.
#[must_use]
pub fn newer(destination: &str, name: &str) -> Error {
    Error::Newer {
        destination: destination.to_owned(),
        key: format!("{SNAPSHOTS}/{name}"),
        why: "this release knows no names like this".to_owned(),
    }
}

/// `20261122T130500Z-3.42-weekly`: as an id is written, whatever its kind.
fn has_shape_of_id(text: &str) -> bool {
    text.rsplit_once('-').is_some_and(|(before, kind)| {
        let is_word = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase());
        is_word && format!("{before}-auto").parse::<SnapshotId>().is_ok()
    })
}

/// What a release of ours may call an object by, and no editor, file manager or transfer program calls its own files by.
fn is_extension(text: &str) -> bool {
    let is_word = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    is_word && !["partial", "part", "tmp", "temp", "bak", "old", "orig", "swp", "lock"].contains(&text)
}

/// Whether a name is that of an upload which rclone has not ended: `<name>.<checksum>.partial`. It renames such a file once
/// it is whole, so what bears this name later was left behind.
#[must_use]
pub fn is_partial(name: &str) -> bool {
    let checksum = name.strip_suffix(".partial").and_then(|name| name.rsplit_once('.'));
    checksum.is_some_and(|(name, sum)| {
        let is_sum = (1..=8).contains(&sum.len()) && sum.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_sum && !name.is_empty()
    })
}

/// A claim: the epoch, and the id of the claimant's first volume.
#[must_use]
pub fn claim(epoch: u64, volume_id: &str) -> String {
    format!("{CLAIMS}/{epoch}-{volume_id}.json")
}

/// Takes a name below [`CLAIMS`] apart: epoch and volume id.
#[must_use]
pub fn of_claim(name: &str) -> Option<(u64, &str)> {
    of_claims_shape(name.strip_suffix(".json")?)
}

/// Whether a name below [`CLAIMS`] is that of a claim of a newer release: of our shape, and of a kind that this one does
/// not know. It may hold the place.
#[must_use]
pub fn is_newer_claim(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(claim, extension)| {
        extension != "json" && is_extension(extension) && of_claims_shape(claim).is_some()
    })
}

/// `3-ab12`.
fn of_claims_shape(text: &str) -> Option<(u64, &str)> {
    let (epoch, id) = text.split_once('-')?;
    let is_number = !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit());
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_number && is_id).then_some(())?;
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

/// That a backup was undone while its writer may still have been at it: a record like the others here, which former releases
/// pass over.
#[must_use]
pub fn undone(id: &SnapshotId) -> String {
    format!("{SERVED}/{}", name_of_undone(id))
}

/// The same, below [`SERVED`].
#[must_use]
pub fn name_of_undone(id: &SnapshotId) -> String {
    format!("{UNDONE}{id}")
}

/// The backup that such a name below [`SERVED`] is of.
#[must_use]
pub fn of_undone(name: &str) -> Option<SnapshotId> {
    name.strip_prefix(UNDONE)?.parse().ok()
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
        assert_eq!(undone(&id()), "served/undone-20261122T130500Z-3.42-auto");
        assert_eq!(of_undone("undone-20261122T130500Z-3.42-auto"), Some(id()));
        assert_eq!(of_undone(served("x").trim_start_matches("served/")), None);
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
        assert_eq!(of_claim("3-ab12.json"), Some((3, "ab12")));
        let (back, file) = of_history("20261122T130500Z-3.42-auto/config/a/b").unwrap();
        assert_eq!((back, file), (id(), "config/a/b"));
        assert_eq!(of_history("20261122T130500Z-3.42-auto/.vixens-aside/config/a"), None);
    }

    #[test]
    fn a_name_of_our_shape_and_an_unknown_kind_is_of_a_newer_release_and_any_other_is_somebodys() {
        for (name, expected) in [
            ("20261122T130500Z-3.42-weekly.json", SnapshotObject::Newer),
            ("20261122T130500Z-3.42-weekly.pending", SnapshotObject::Newer),
            ("20261122T130500Z-3.42-auto.cbor", SnapshotObject::Newer),
            (
                "20261122T130500Z-3.42-auto.json.1a2b3c4d.partial",
                SnapshotObject::Foreign,
            ),
            ("20261122T130500Z-3.42-auto.partial", SnapshotObject::Foreign),
            ("20261122T130500Z-3.42-auto.json.bak", SnapshotObject::Foreign),
            ("20261122T130500Z-3.42-auto (1).json", SnapshotObject::Foreign),
            ("20261122T130500Z-3.42.json", SnapshotObject::Foreign),
            ("@eaDir/20261122T130500Z-3.42-auto.json", SnapshotObject::Foreign),
            (".DS_Store", SnapshotObject::Foreign),
            ("Thumbs.db", SnapshotObject::Foreign),
            ("notes.txt", SnapshotObject::Foreign),
        ] {
            assert_eq!(of_snapshot(name), expected, "{name}");
        }
        for (name, expected) in [
            ("4-b.cbor", true),
            ("4-b.json", false),
            ("4-b.json.1a2b3c4d.partial", false),
            ("x-ab12.json", false),
            ("4-b (1).json", false),
            ("@eaDir/4-b.cbor", false),
            (".DS_Store", false),
        ] {
            assert_eq!(is_newer_claim(name), expected, "{name}");
            assert_eq!(of_claim(name).is_some(), name == "4-b.json", "{name}");
        }
    }

    #[test]
    fn what_rclone_left_of_an_upload_is_known_by_its_name() {
        for (name, expected) in [
            ("config/a.yaml.1a2b3c4d.partial", true),
            ("a.9c.partial", true),
            ("a.partial", false),
            ("a.1A2B3C4D.partial", false),
            ("a.1a2b3c4d5.partial", false),
            ("a.1a2b3c4d.partial/b", false),
        ] {
            assert_eq!(is_partial(name), expected, "{name}");
        }
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
