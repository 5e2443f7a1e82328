//! What happened in the pod half → the metrics of the interface. A series appears when something happened that it is
//! about: none is born as a zero that looks healthy.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// Seconds, as a fraction.
type Seconds = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct None {}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Destination {
    destination: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Database {
    database: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Layer {
    layer: &'static str,
}

/// The pod half's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    last_success: Family<Destination, Seconds>,
    runs: Family<Outcome, Counter>,
    run_duration: Family<None, Seconds>,
    uploaded_bytes: Family<None, Counter>,
    unsaved_change_age: Family<None, Seconds>,
    store_up: Family<Destination, Gauge>,
    fenced: Family<None, Gauge>,
    guard_refusals: Family<Reason, Counter>,
    held_files: Family<Destination, Gauge>,
    held_bytes: Family<Destination, Gauge>,
    excluded_files: Family<Destination, Gauge>,
    restore_duration: Family<None, Seconds>,
    restored_files: Family<None, Gauge>,
    layer_files: Family<Layer, Gauge>,
    skipped_files: Family<Reason, Gauge>,
    database_lag: Family<Database, Seconds>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("vixens_backup"),
            last_success: Family::default(),
            runs: Family::default(),
            run_duration: Family::default(),
            uploaded_bytes: Family::default(),
            unsaved_change_age: Family::default(),
            store_up: Family::default(),
            fenced: Family::default(),
            guard_refusals: Family::default(),
            held_files: Family::default(),
            held_bytes: Family::default(),
            excluded_files: Family::default(),
            restore_duration: Family::default(),
            restored_files: Family::default(),
            layer_files: Family::default(),
            skipped_files: Family::default(),
            database_lag: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register_with_unit(
            "last_success_timestamp",
            "When a backup last succeeded, whether it found something to save or not",
            Unit::Seconds,
            self.last_success.clone(),
        );
        registry.register(
            "runs",
            "Backups by result: saved, unchanged, refused, failed",
            self.runs.clone(),
        );
        registry.register_with_unit(
            "run_duration",
            "How long the last backup took",
            Unit::Seconds,
            self.run_duration.clone(),
        );
        registry.register_with_unit("uploaded", "Bytes uploaded", Unit::Bytes, self.uploaded_bytes.clone());
        registry.register_with_unit(
            "unsaved_change_age",
            "Age of the oldest change that no snapshot has: the data you would lose now",
            Unit::Seconds,
            self.unsaved_change_age.clone(),
        );
        registry.register(
            "store_up",
            "Whether the store did what it was last asked",
            self.store_up.clone(),
        );
        registry.register(
            "fenced",
            "1 where a destination or volume may not be backed up by this pod",
            self.fenced.clone(),
        );
        registry.register(
            "guard_refusals",
            "What a guard refused: the backup (vanished, read-only, fenced), or its deletions, which are held (max-shrink)",
            self.guard_refusals.clone(),
        );
        registry.register(
            "held_files",
            "Files that vanished from the volumes and stay in each snapshot until somebody decides",
            self.held_files.clone(),
        );
        registry.register_with_unit("held", "The bytes of held files", Unit::Bytes, self.held_bytes.clone());
        registry.register(
            "excluded_files",
            "Files that the policy takes no longer, whose last version stays in each snapshot",
            self.excluded_files.clone(),
        );
        registry.register_with_unit(
            "restore_duration",
            "How long the restore at this start took",
            Unit::Seconds,
            self.restore_duration.clone(),
        );
        registry.register(
            "restored_files",
            "Files restored at this start",
            self.restored_files.clone(),
        );
        registry.register(
            "layer_files",
            "Files that each layer won at this start",
            self.layer_files.clone(),
        );
        registry.register("skipped_files", "Files left out, by reason", self.skipped_files.clone());
        registry.register_with_unit(
            "database_lag",
            "Age of the oldest transaction that the store does not list",
            Unit::Seconds,
            self.database_lag.clone(),
        );
    }

    /// A backup to `destination` succeeded, at `time` (seconds since 1970).
    pub fn succeeded(&self, destination: &str, time: f64, took: f64, uploaded: u64, saved: bool) {
        self.last_success.get_or_create(&labels(destination)).set(time);
        self.store_up.get_or_create(&labels(destination)).set(1);
        self.run_duration.get_or_create(&None {}).set(took);
        self.uploaded_bytes.get_or_create(&None {}).inc_by(uploaded);
        self.run(if saved { "saved" } else { "unchanged" });
    }

    /// A backup came to an end otherwise.
    pub fn run(&self, result: &'static str) {
        self.runs.get_or_create(&Outcome { result }).inc();
    }

    /// The store did, or did not do, what it was asked.
    pub fn store_up(&self, destination: &str, up: bool) {
        self.store_up.get_or_create(&labels(destination)).set(i64::from(up));
    }

    /// A guard refused.
    pub fn refused(&self, reason: &'static str) {
        self.guard_refusals.get_or_create(&Reason { reason }).inc();
    }

    /// What the newest snapshot holds that the volumes don't have.
    pub fn carried(&self, destination: &str, held_files: u64, held_bytes: u64, excluded_files: u64) {
        let gauges = [
            (&self.held_files, held_files),
            (&self.held_bytes, held_bytes),
            (&self.excluded_files, excluded_files),
        ];
        for (gauge, value) in gauges {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            gauge.get_or_create(&labels(destination)).set(value);
        }
    }

    /// Whether a destination or volume may not be backed up by this pod.
    pub fn fenced(&self, fenced: bool) {
        self.fenced.get_or_create(&None {}).set(i64::from(fenced));
    }

    /// The age of the oldest unsaved change, in seconds.
    pub fn unsaved(&self, age: f64) {
        self.unsaved_change_age.get_or_create(&None {}).set(age);
    }

    /// How many files the last full scan left out for a reason.
    pub fn skipped(&self, reason: &'static str, files: u64) {
        self.skipped_files
            .get_or_create(&Reason { reason })
            .set(i64::try_from(files).unwrap_or(i64::MAX));
    }

    /// How far a database's replica is behind, in seconds.
    pub fn database_lag(&self, database: &str, seconds: f64) {
        let database = database.to_owned();
        self.database_lag.get_or_create(&Database { database }).set(seconds);
    }

    /// What the start restored.
    pub fn restored(&self, seconds: f64, files: u64) {
        self.restore_duration.get_or_create(&None {}).set(seconds);
        self.restored_files
            .get_or_create(&None {})
            .set(i64::try_from(files).unwrap_or(i64::MAX));
    }

    /// How many files a layer (`vanilla`, `restored`, `secrets`) won.
    pub fn layer(&self, layer: &'static str, files: u64) {
        self.layer_files
            .get_or_create(&Layer { layer })
            .set(i64::try_from(files).unwrap_or(i64::MAX));
    }

    /// The text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

fn labels(destination: &str) -> Destination {
    Destination {
        destination: destination.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_set_by_what_happened_never_at_start_up() {
        let metrics = Metrics::default();
        let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(series(&metrics.text()), 0);
        metrics.succeeded("minio:b/app", 1_732_280_700.0, 0.2, 12, true);
        metrics.refused("max-shrink");
        metrics.carried("minio:b/app", 40, 2048, 3);
        metrics.skipped("excluded", 3);
        metrics.unsaved(0.0);
        insta::assert_snapshot!(metrics.text());
    }
}
