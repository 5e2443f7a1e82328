//! What the controller did, as the metrics that the interface names. Each is set by what happened, never at start-up.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;

/// How one look at a workload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All was as it should be.
    Unchanged,
    /// Something was written.
    Changed,
    /// It has to be tried again.
    Failed,
}

impl Ending {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Failed => "failed",
        }
    }
}

/// The controller's metrics; a clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciliations: Family<[(&'static str, &'static str); 1], Counter>,
    workloads: Family<[(&'static str, String); 1], Gauge>,
    questions: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl Metrics {
    /// Metrics that `registry` shows.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciliations: Family::default(),
            workloads: Family::default(),
            questions: Family::default(),
        };
        registry.register(
            "vixens_backup_reconciliations",
            "Looks at a workload and its companions, by how they ended",
            metrics.reconciliations.clone(),
        );
        registry.register(
            "vixens_backup_workloads",
            "Annotated workloads, by tier, as the leader sees them",
            metrics.workloads.clone(),
        );
        registry.register(
            "vixens_backup_questions",
            "Questions of pods that only a person decides and nobody has decided, by what they are about, as the leader hears them",
            metrics.questions.clone(),
        );
        metrics
    }

    /// One look has ended.
    pub(super) fn looked(&self, ending: Ending) {
        self.reconciliations.get_or_create(&[("result", ending.as_str())]).inc();
    }

    /// So many workloads have which tier.
    pub(super) fn workloads(&self, tiers: BTreeMap<String, i64>) {
        // A tier that nobody has any more is no series.
        self.workloads.clear();
        for (tier, count) in tiers {
            self.workloads.get_or_create(&[("tier", tier)]).set(count);
        }
    }

    /// So many questions stand, of which kind.
    pub(super) fn questions(&self, kinds: BTreeMap<&'static str, i64>) {
        self.questions.clear();
        for (kind, count) in kinds {
            self.questions.get_or_create(&[("kind", kind)]).set(count);
        }
    }

    /// Somebody else leads, and counts.
    pub(super) fn follow(&self) {
        self.workloads.clear();
        self.questions.clear();
    }
}
