//! The small JSON objects of a place, and how any of them is read: a `version` first, and one that is newer than this
//! release knows is damage, never absence. Bytes in, types out. Pure.

use super::snapshot::SnapshotId;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version that this release writes into every stored object, and the newest that it reads.
pub const VERSION: u32 = 1;

/// What is wrong with stored bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub String);

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Refuses a version that this release does not know.
pub fn check_version(version: u32) -> Result<(), Damage> {
    if version <= VERSION {
        Ok(())
    } else {
        Err(Damage(format!(
            "a newer release wrote it (version {version}, this one reads up to {VERSION}): update vixens-backup"
        )))
    }
}

/// Reads a stored object.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damage> {
    let Versioned { version } =
        serde_json::from_slice(bytes).map_err(|error| Damage(format!("not an object with a version: {error}")))?;
    check_version(version)?;
    serde_json::from_slice(bytes).map_err(|error| Damage(error.to_string()))
}

/// The bytes of an object to store: JSON that people can read, with a newline at its end.
#[must_use]
pub fn encode<T: Serialize>(object: &T) -> Vec<u8> {
    // Types of ours with text keys: serialising them can't fail.
    let mut bytes = serde_json::to_vec_pretty(object).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// `snapshots/<id>.pending`: a backup that is under way, or was when its process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// See [`VERSION`].
    pub version: u32,
    /// The snapshot that it is to become.
    pub id: SnapshotId,
    /// When it began.
    pub time: Timestamp,
}

/// `pins/<name>.json`: a snapshot that retention must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// See [`VERSION`].
    pub version: u32,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When it was pinned.
    pub time: Timestamp,
    /// By whom and why, for people.
    pub reason: String,
}

/// `served/<hash>`: a restore-at value that was served, and never will be again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// See [`VERSION`].
    pub version: u32,
    /// The value as it was written.
    pub value: String,
    /// The snapshot that it meant.
    pub snapshot: SnapshotId,
    /// When its result was published.
    pub time: Timestamp,
}

/// `requests/<id>.json`: "back up now", left where the network forbids asking the sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// See [`VERSION`].
    pub version: u32,
    /// When it was asked.
    pub time: Timestamp,
    /// Whether somebody asked by hand (else the schedule did).
    pub manual: bool,
    /// The id of a guard's refusal that is overridden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// What came of it, put here by the sidecar: a line of progress as over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_damage() {
        let bytes = br#"{"version":2,"time":"whatever it will be then"}"#;
        let damage = decode::<Request>(bytes).unwrap_err();
        assert!(damage.0.contains("update vixens-backup"), "{damage}");
    }

    #[test]
    fn fields_that_a_later_release_adds_are_passed_over() {
        let bytes = br#"{"version":1,"time":"2026-11-22T13:05:00Z","manual":true,"colour":"red"}"#;
        assert!(decode::<Request>(bytes).unwrap().manual);
    }

    #[test]
    fn half_an_object_is_damage() {
        let whole = encode(&Request {
            version: VERSION,
            time: Timestamp::UNIX_EPOCH,
            manual: false,
            accept: None,
            answer: None,
        });
        assert!(decode::<Request>(&whole[..whole.len() / 2]).is_err());
        assert!(decode::<Request>(b"").is_err());
    }
}
