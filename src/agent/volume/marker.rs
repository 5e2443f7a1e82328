//! What we write on a volume about the volume: `volume.json`, the last step of a start, and `restoring.json`, while a
//! restore is under way. Types only.

use crate::agent::lease::judge::Since;
use crate::agent::start::Serving;
use crate::store::claims::{Holder, Owner};
use crate::store::snapshot::SnapshotId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The initialised marker.
pub const MARKER: &str = "volume.json";
/// A restore is under way.
pub const RESTORING: &str = "restoring.json";
/// Where a restore stages its files.
pub const INCOMING: &str = "incoming";

/// Where a restore moves what it replaces and removes, until its start has come to its end.
pub const OUTGOING: &str = "outgoing";
/// What a restore is about to change: see [`crate::agent::restore::undo`].
pub const UNDO: &str = "undo";

/// `volume.json`: a start has come to its end on this volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// See [`crate::store::records::VERSION`].
    pub version: u32,
    /// This volume's own id, for as long as it lives.
    pub id: String,
    /// Whose files it holds.
    pub owner: Owner,
    /// Its folder in the bucket.
    pub folder: String,
    /// What came of the start.
    pub status: MarkerStatus,
    /// The epoch of the last claim that named this volume.
    pub epoch: u64,
    /// That claim, as its name tells it.
    #[serde(default)]
    pub claim: Option<Holder>,
    /// How the place stood when the volume was brought up to date, if it could not be claimed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
    /// When.
    pub time: Timestamp,
    /// The snapshot that was restored onto it last.
    #[serde(default)]
    pub restored: Option<SnapshotId>,
    /// `restore-at` values that were served on this volume, or that the store said were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub served: Vec<String>,
    /// The last of them, until the store is known to have its record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Serving>,
    /// There was no file on the volume when the start ended, and the store had none for it: its folders, as
    /// [`super::bare::untouched`] has them. While they say the same, nothing was ever put there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bare: Option<String>,
}

/// What a start made of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarkerStatus {
    /// Restored, kept or confirmed new.
    Settled,
    /// Started on vanilla while the store was away.
    Provisional,
    /// Kept, and may not be backed up.
    Fenced,
    /// Layers only: at tier 2 it counts as a volume that we never saw.
    Tier1,
}

/// `restoring.json`: what is being brought onto the volume. While it is there, nothing on the volume is settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoring {
    /// See [`crate::store::records::VERSION`].
    pub version: u32,
    /// The volume's id.
    pub id: String,
    /// Whose files they are.
    pub owner: Owner,
    /// From where.
    pub destination: String,
    /// Which snapshot; none: a place made by hand, which has none.
    pub snapshot: Option<SnapshotId>,
    /// What happens to files that are there.
    pub mode: Mode,
    /// Everything is staged, and set aside: files are going to their places. Before that, nothing was changed.
    pub placing: bool,
    /// The `restore-at` value that it serves; none: no value asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<String>,
    /// When it began.
    pub time: Timestamp,
    /// Names below the destination that were found damaged so far: once their files are in place from elsewhere, nobody looks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}

/// What a restore does with files that are on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// There are none, but those of the same restore.
    Whole,
    /// They stay, and win.
    Missing,
    /// They were set aside, and go.
    Replace,
}
