//! What the sidecar says of itself: `/status` and the metrics, from what its destinations report. No I/O.

use super::backup::Report;
use super::guard::Refusal;
use super::inbox::Inbox;
use crate::agent::metrics::Metrics;
use crate::contract::question::Question;
use crate::store::snapshot::SnapshotId;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// `/status`. Its fields stay across releases; others may be added.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// See [`crate::store::records::VERSION`].
    pub version: u32,
    /// Of this program.
    pub release: &'static str,
    /// Nothing is backed up at all, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<String>,
    /// Changes are found by full scans alone, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<String>,
    /// Each protected volume, by its folder.
    pub volumes: BTreeMap<String, VolumeStatus>,
    /// Each destination.
    pub destinations: BTreeMap<String, DestinationStatus>,
    /// Each replicated database, by its volume's folder and its path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub databases: BTreeMap<String, DatabaseStatus>,
    /// Seconds since the oldest change that no snapshot has.
    pub unsaved_change_age: f64,
}

/// A volume's part of [`Status`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct VolumeStatus {
    /// Where it is mounted.
    pub path: String,
    /// `settled`, `provisional` or `fenced`.
    pub status: String,
    /// Why.
    pub why: String,
}

/// A destination's part of [`Status`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct DestinationStatus {
    /// `opening`, `ready`, `failing`, `refused`, `fenced`.
    pub phase: String,
    /// Why it is so, where that is not plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Our claim's epoch.
    pub epoch: u64,
    /// Which store it is: the id in its `store-id` object, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    /// The newest snapshot.
    pub snapshot: Option<SnapshotId>,
    /// When a backup last succeeded.
    pub last_success: Option<Timestamp>,
    /// Files of the newest snapshot.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files left out at the last full scan, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// What vanished from the volumes and is held, where anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldStatus>,
    /// Files that the policy takes no longer, and that are carried along.
    pub excluded: u64,
    /// What the store does not delete, and why, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undeleted: Option<String>,
    /// What only a person decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<Question>,
}

/// What is held, as a part of [`Status`].
#[derive(Clone, Debug, Serialize)]
pub struct HeldStatus {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the first of them vanished.
    pub since: Timestamp,
}

/// A replicated database's part of [`Status`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct DatabaseStatus {
    /// `starting`, `replicated`, `failing` (it is saved as at tier 2 meanwhile), `stopped` (too much waited on the volume).
    pub status: String,
    /// Its profile.
    pub profile: String,
    /// The newest transaction on the volume; none while that is not known: it was written to, and Litestream has not
    /// taken that.
    pub txid: Option<String>,
    /// The newest that the store lists.
    pub listed: Option<String>,
    /// How long the first that it does not list has waited.
    pub lag_seconds: f64,
    /// When it was looked at for this: what was written later is not in it.
    pub as_of: Timestamp,
}

/// What all parts of the sidecar share.
#[derive(Debug, Default)]
pub struct Shared {
    /// The metrics.
    pub metrics: Metrics,
    status: Mutex<Status>,
    inboxes: Mutex<Vec<Arc<Inbox>>>,
}

impl Shared {
    /// Changes what is said.
    pub fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The destinations' inboxes.
    pub fn inboxes(&self) -> MutexGuard<'_, Vec<Arc<Inbox>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data that would be lost now.
    pub fn unsaved_age(&self) -> Duration {
        let oldest = self.inboxes().iter().filter_map(|inbox| inbox.unsaved_since()).min();
        oldest.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Changes what is said of a destination.
    pub fn destination(&self, name: &str, change: impl FnOnce(&mut DestinationStatus)) {
        change(self.status().destinations.entry(name.to_owned()).or_default());
    }

    /// A backup succeeded.
    pub fn succeeded(&self, name: &str, report: &Report, snapshot: Option<SnapshotId>, took: Duration) {
        let now = Timestamp::now();
        let seconds = now.as_duration().as_secs_f64();
        let saved = report.snapshot.is_some();
        self.metrics
            .succeeded(name, seconds, took.as_secs_f64(), report.uploaded_bytes, saved);
        self.destination(name, |status| {
            "ready".clone_into(&mut status.phase);
            status.why = None;
            status.snapshot = snapshot;
            status.last_success = Some(now);
            status.files = report.totals.files;
            status.bytes = report.totals.bytes;
        });
        self.carried(name, report);
    }

    /// What the newest snapshot holds that the volumes don't have.
    fn carried(&self, name: &str, report: &Report) {
        let held = report.holds.iter().fold(None, |sum: Option<HeldStatus>, hold| {
            let (files, bytes, since) = sum.map_or((0, 0, hold.since), |sum| (sum.files, sum.bytes, sum.since));
            Some(HeldStatus {
                files: files + hold.totals.files,
                bytes: bytes + hold.totals.bytes,
                since: since.min(hold.since),
            })
        });
        if report.placed.is_some() {
            self.metrics.refused("max-shrink");
        }
        let (files, bytes) = held.as_ref().map_or((0, 0), |held| (held.files, held.bytes));
        self.metrics.carried(name, files, bytes, report.excluded.files);
        self.destination(name, |status| {
            status.held = held;
            status.excluded = report.excluded.files;
            status.questions.clone_from(&report.questions);
        });
    }

    /// How many files a full scan left out.
    pub fn skipped(&self, name: &str, report: &Report) {
        for reason in crate::agent::filters::Skipped::ALL {
            let files = report.skipped.get(&reason).copied().unwrap_or(0);
            let said = self
                .status()
                .destinations
                .get(name)
                .is_some_and(|status| status.skipped.contains_key(reason.as_str()));
            if files > 0 || said {
                self.metrics.skipped(reason.as_str(), files);
                self.destination(name, |status| {
                    status.skipped.insert(reason.as_str(), files);
                });
            }
        }
    }

    /// A guard refused.
    pub fn refused(&self, name: &str, refusal: &Refusal) {
        self.metrics.refused(refusal.reason);
        self.metrics.run("refused");
        self.destination(name, |status| {
            "refused".clone_into(&mut status.phase);
            status.why = Some(refusal.to_string());
        });
    }

    /// This pod may not write there (any more).
    pub fn fenced(&self, name: &str, why: String) {
        self.metrics.fenced(true);
        self.metrics.refused("fenced");
        self.destination(name, |status| {
            "fenced".clone_into(&mut status.phase);
            status.why = Some(why);
            // Nobody would act upon an answer here.
            status.questions.clear();
        });
    }

    /// Something failed that may work later.
    pub fn failed(&self, name: &str, why: String, store: bool) {
        self.metrics.run("failed");
        if store {
            self.metrics.store_up(name, false);
        }
        self.destination(name, |status| {
            "failing".clone_into(&mut status.phase);
            status.why = Some(why);
        });
    }
}
