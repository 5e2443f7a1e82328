//! What the admission server did, as the metrics that the interface names. Each is set by what happened, never at
//! start-up.

use super::review::Operation;
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It passed as it was.
    Unchanged,
    /// It passed, changed.
    Patched,
    /// It was refused for what it said.
    Denied,
    /// It could not be read.
    Unreadable,
    /// We failed, or were not ready.
    Failed,
}

impl Ending {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Patched => "patched",
            Self::Denied => "denied",
            Self::Unreadable => "unreadable",
            Self::Failed => "failed",
        }
    }
}

type Label = (&'static str, &'static str);

/// The admission server's metrics; a clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<[Label; 2], Counter>,
    duration: Histogram,
    certificate_expiry: Family<[Label; 0], Gauge>,
}

impl Metrics {
    /// Metrics that `registry` shows.
    pub fn new(registry: &mut Registry) -> Self {
        // A review of 10 KB takes some 100 µs, one of 3 MiB some 50 ms.
        const SECONDS: [f64; 10] = [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.25, 1.0];
        let metrics = Self {
            requests: Family::default(),
            duration: Histogram::new(SECONDS),
            certificate_expiry: Family::default(),
        };
        registry.register(
            "vixens_backup_admission_requests",
            "Admission requests, by what was being done and how they ended",
            metrics.requests.clone(),
        );
        registry.register(
            "vixens_backup_admission_duration_seconds",
            "How long it took from a request's last byte to its answer",
            metrics.duration.clone(),
        );
        registry.register(
            "vixens_backup_certificate_expiry_timestamp_seconds",
            "When the certificate that is served expires",
            metrics.certificate_expiry.clone(),
        );
        metrics
    }

    /// A request was answered.
    pub fn answered(&self, operation: Operation, ending: Ending, took: Duration) {
        self.requests
            .get_or_create(&[("operation", operation.as_str()), ("result", ending.as_str())])
            .inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A certificate is served from now on.
    pub fn serves_certificate_until(&self, expires: Timestamp) {
        self.certificate_expiry.get_or_create(&[]).set(expires.as_second());
    }
}
