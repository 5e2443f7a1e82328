//! The small JSON objects of a place, and how any of them is read: a `version` first. What can't be read is one damaged
//! object; one whose version is newer than this release knows is of a newer release, and neither damaged nor absent. Bytes
//! in, types out. Pure.

use super::Error;
use super::snapshot::SnapshotId;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version that this release writes into every stored object, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Why stored bytes can't be understood. The two are never confused: the first costs one object, the second stops all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Cut off, altered, or never ours.
    #[error("{0}")]
    Broken(String),
    /// A newer release wrote them.
    #[error("{0}")]
    Newer(String),
}

impl Damage {
    /// Cut off, altered, or never ours.
    pub fn broken(why: impl Into<String>) -> Self {
        Self::Broken(why.into())
    }

    /// The store's error about the object of this key.
    #[must_use]
    pub fn of(self, destination: String, key: impl Into<String>) -> Error {
        let key = key.into();
        match self {
            Self::Broken(why) => Error::Damaged { destination, key, why },
            Self::Newer(why) => Error::Newer { destination, key, why },
        }
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Refuses a version that this release does not know.
pub fn check_version(version: u32) -> Result<(), Damage> {
    if version <= VERSION {
        Ok(())
    } else {
        Err(Damage::Newer(format!(
            "its version is {version}, and this release reads up to {VERSION}"
        )))
    }
}

/// Reads a stored object.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damage> {
    let Versioned { version } = serde_json::from_slice(bytes)
        .map_err(|error| Damage::Broken(format!("not an object with a version: {error}")))?;
    check_version(version)?;
    serde_json::from_slice(bytes).map_err(|error| Damage::Broken(error.to_string()))
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
    /// It was undone, and its mark could not be removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undone: bool,
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
    /// Names below the destination: somebody has seen that what the mirror has there is not what the newest snapshot says. They
    /// are saved anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
    /// What came of it, put here by the sidecar: a line of progress as over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_of_a_newer_release_and_never_damaged() {
        let bytes = br#"{"version":2,"time":"whatever it will be then"}"#;
        let damage = decode::<Request>(bytes).unwrap_err();
        let error = damage.of("minio:b/app".to_owned(), "requests/r1.json");
        assert!(matches!(error, Error::Newer { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            "requests/r1.json in minio:b/app is of a newer release of vixens-backup: its version is 2, and this release reads \
             up to 1; nothing is written there: update vixens-backup"
        );
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
            damaged: Vec::new(),
            answer: None,
        });
        for bytes in [&whole[..whole.len() / 2], b""] {
            assert!(matches!(decode::<Request>(bytes), Err(Damage::Broken(_))));
        }
    }
}
