//! What is kept outside the store of what the store held: `record.json` of `ConfigMap/<name>-backup-record`, written by
//! the controller from what each sidecar's `/status` says, and mounted, where it is there, into the init container. Where
//! it names a backup, a store that answers with nothing is not believed. A type ↔ bytes; no I/O.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The ConfigMap's key, and the file's name in the folder that it is mounted at.
pub const RECORD_FILE: &str = "record.json";
/// The version that this release writes, and the newest that it reads.
pub const RECORD_VERSION: u32 = 1;

/// What places of a workload held when they were last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// See [`RECORD_VERSION`].
    pub version: u32,
    /// By destination, as the agent is told it and as `/status` names it: `minio:vixens-backups/app`. Each pod of a
    /// StatefulSet has its own.
    pub places: BTreeMap<String, RecordedPlace>,
}

/// What one place held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPlace {
    /// The id in its `store-id` object: `store_id` of the destination in `/status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    /// The id of its newest snapshot: `snapshot` of the destination in `/status`. A place without one is not recorded as a
    /// backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// When that was seen.
    pub time: Timestamp,
}

/// A record that says nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no record.
    #[error("{RECORD_FILE} is no record of backups")]
    Damaged(#[from] serde_json::Error),
    /// Of a release to come.
    #[error("{RECORD_FILE} is of a newer release (version {0}, this one reads up to {RECORD_VERSION})")]
    Newer(u32),
}

impl Default for Record {
    fn default() -> Self {
        Self {
            version: RECORD_VERSION,
            places: BTreeMap::new(),
        }
    }
}

impl Record {
    /// Reads it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version > RECORD_VERSION {
            return Err(Unreadable::Newer(version));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Its text, always the same for the same record.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Text keys and plain values: serialising them can't fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The backup that a place is known to have had.
    #[must_use]
    pub fn backup_at(&self, destination: &str) -> Option<&RecordedPlace> {
        self.places.get(destination).filter(|place| place.snapshot.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let place = RecordedPlace {
            store_id: Some("0123456789abcdef0123456789abcdef".to_owned()),
            snapshot: Some("20261122T130500Z-3.42-auto".to_owned()),
            time: "2026-11-22T13:05:02Z".parse().unwrap(),
        };
        let unsaved = RecordedPlace {
            snapshot: None,
            ..place.clone()
        };
        Record {
            places: [
                ("minio:b/app-0".to_owned(), place),
                ("minio:b/app-1".to_owned(), unsaved),
            ]
            .into(),
            ..Record::default()
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        assert_eq!(Record::from_json(record().to_json().as_bytes()).unwrap(), record());
    }

    #[test]
    fn only_a_place_with_a_snapshot_is_known_to_have_a_backup() {
        assert!(record().backup_at("minio:b/app-0").is_some());
        assert!(record().backup_at("minio:b/app-1").is_none());
        assert!(record().backup_at("minio:b/app-2").is_none());
    }

    #[test]
    fn what_is_no_record_is_unreadable_and_what_a_later_release_adds_is_passed_over() {
        for bytes in [
            &b""[..],
            b"{}",
            b"[]",
            br#"{"version":1}"#,
            br#"{"version":2,"places":{}}"#,
        ] {
            assert!(Record::from_json(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        let later = br#"{"version":1,"places":{"a:b":{"time":"2026-11-22T13:05:02Z","colour":"red"}},"more":1}"#;
        assert_eq!(Record::from_json(later).unwrap().places.len(), 1);
    }
}
