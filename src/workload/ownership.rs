//! Which settings of a workload an applier owns (design, decision 3): what is in the last-applied annotation or in a
//! `managedFields` entry of operation `Apply`. An entry of operation `Update` counts only where there is no last-applied
//! annotation and the value is not the API's default: a client-side create names kubectl as the owner of defaults too.

use super::at;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

const LAST_APPLIED: &str = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";
const INJECTED: &str = "/metadata/annotations/vixens.io~1backup-injected";

/// The names that `managedFields` is asked for, anywhere in it: the parts of the paths above and of each [`Setting`].
pub(super) const ASKED_FIELDS: [&str; 8] = [
    "metadata",
    "annotations",
    "vixens.io/backup-injected",
    "spec",
    "strategy",
    "progressDeadlineSeconds",
    "template",
    "terminationGracePeriodSeconds",
];

/// A scalar that we would like to set, where nobody else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Setting {
    /// `spec.strategy` of a Deployment.
    #[serde(rename = "strategy")]
    Strategy,
    /// `spec.progressDeadlineSeconds` of a Deployment.
    #[serde(rename = "progressDeadlineSeconds")]
    ProgressDeadline,
    /// `spec.template.spec.terminationGracePeriodSeconds`.
    #[serde(rename = "terminationGracePeriodSeconds")]
    GracePeriod,
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Strategy, Self::ProgressDeadline, Self::GracePeriod];

    /// Where it lies in the object.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Strategy => "/spec/strategy",
            Self::ProgressDeadline => "/spec/progressDeadlineSeconds",
            Self::GracePeriod => "/spec/template/spec/terminationGracePeriodSeconds",
        }
    }

    /// The name that users know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strategy => "strategy",
            Self::ProgressDeadline => "progressDeadlineSeconds",
            Self::GracePeriod => "terminationGracePeriodSeconds",
        }
    }

    /// What the API server fills in where nobody says anything.
    pub fn default(self) -> Value {
        match self {
            Self::Strategy => {
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
            }
            Self::ProgressDeadline => json!(600),
            Self::GracePeriod => json!(30),
        }
    }
}

/// Which settings somebody else wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Declared by an applier: written back at its next apply.
    applied: Vec<Setting>,
    /// Written once, by a plain create or an edit; on a create the API server counts our own values among these.
    written: Vec<Setting>,
    /// Whether the applier owns our own marker: the manifest was rendered with `vixens-backup inject`, and what the
    /// marker says we set is ours, though the applier wrote it.
    rendered: bool,
}

impl Ownership {
    /// What the API server recorded. For reviews and objects read from a cluster.
    pub fn recorded(object: &Value) -> Self {
        let last_applied: Option<LastApplied> =
            super::text(object, LAST_APPLIED).and_then(|text| serde_json::from_str(text).ok());
        let managed = super::list(object, "/metadata/managedFields");
        let named_by = |operation: &str, path: &str| {
            managed.iter().any(|entry| {
                // Subresources are written by controllers.
                let whole = super::text(entry, "/subresource").is_none_or(str::is_empty);
                whole && super::text(entry, "/operation") == Some(operation) && has_field(entry, path)
            })
        };
        let is_applied = |path: &str| {
            let listed = last_applied.as_ref().is_some_and(|applied| applied.has(path));
            listed || named_by("Apply", path)
        };
        let is_written = |setting: &Setting| {
            last_applied.is_none()
                && named_by("Update", setting.path())
                && at(object, setting.path()) != Some(&setting.default())
        };
        Self {
            applied: Setting::ALL
                .into_iter()
                .filter(|setting| is_applied(setting.path()))
                .collect(),
            written: Setting::ALL.into_iter().filter(is_written).collect(),
            rendered: is_applied(INJECTED),
        }
    }

    /// Offline: what the file sets is owned by its applier.
    pub fn as_written(object: &Value) -> Self {
        Self {
            applied: Setting::ALL
                .into_iter()
                .filter(|setting| at(object, setting.path()).is_some_and(|value| !value.is_null()))
                .collect(),
            written: Vec::new(),
            rendered: at(object, INJECTED).is_some(),
        }
    }

    /// Whether somebody else wrote it.
    pub fn owns(&self, setting: Setting) -> bool {
        self.applied.contains(&setting) || self.written.contains(&setting)
    }

    /// Whether the manifest came with what is injected.
    pub fn is_rendered(&self) -> bool {
        self.rendered
    }

    /// Whether a value that our marker says we set has become an applier's own since.
    pub fn claims(&self, setting: Setting) -> bool {
        self.applied.contains(&setting) && !self.rendered
    }

    /// The same, with these settings given back: they are ours.
    #[must_use]
    pub fn without(mut self, ours: &[Setting]) -> Self {
        self.applied.retain(|setting| !ours.contains(setting));
        self.written.retain(|setting| !ours.contains(setting));
        self
    }
}

/// What of the last-applied manifest matters here; the rest is not kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LastApplied {
    metadata: AppliedMetadata,
    spec: AppliedSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AppliedMetadata {
    annotations: AppliedAnnotations,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AppliedAnnotations {
    #[serde(rename = "vixens.io/backup-injected")]
    injected: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AppliedSpec {
    strategy: Option<IgnoredAny>,
    progress_deadline_seconds: Option<IgnoredAny>,
    template: AppliedTemplate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AppliedTemplate {
    spec: AppliedPod,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AppliedPod {
    termination_grace_period_seconds: Option<IgnoredAny>,
}

impl LastApplied {
    fn has(&self, path: &str) -> bool {
        match path {
            INJECTED => self.metadata.annotations.injected.is_some(),
            "/spec/strategy" => self.spec.strategy.is_some(),
            "/spec/progressDeadlineSeconds" => self.spec.progress_deadline_seconds.is_some(),
            _ => self.spec.template.spec.termination_grace_period_seconds.is_some(),
        }
    }
}

/// Whether a `managedFields` entry names the field at a JSON pointer.
fn has_field(entry: &Value, path: &str) -> bool {
    let mut fields = entry.get("fieldsV1");
    for part in path.split('/').skip(1) {
        let name = part.replace("~1", "/").replace("~0", "~");
        fields = fields.and_then(|fields| fields.get(format!("f:{name}")));
    }
    fields.is_some()
}
