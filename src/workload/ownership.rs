//! Which settings of a workload an applier owns (design, decision 3): what is in the last-applied annotation or in a
//! `managedFields` entry of operation `Apply`. An entry of operation `Update` counts only where there is no last-applied
//! annotation and the value is not the API's default: a client-side create names kubectl as the owner of defaults too.

use serde_json::{Value, json};

const LAST_APPLIED: &str = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";
const INJECTED: &str = "/metadata/annotations/vixens.io~1backup-injected";

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
    owned: Vec<Setting>,
    /// Whether the applier owns our own marker: the manifest was rendered with `vixens-backup inject`.
    rendered: bool,
}

impl Ownership {
    /// What the API server recorded. For reviews and objects read from a cluster.
    pub fn recorded(object: &Value) -> Self {
        let applied: Option<Value> = super::text(object, LAST_APPLIED).and_then(|text| serde_json::from_str(text).ok());
        let managed = super::list(object, "/metadata/managedFields");
        let owns = |path: &str, current: Option<&Value>, default: Option<&Value>| {
            if applied.as_ref().is_some_and(|applied| applied.pointer(path).is_some()) {
                return true;
            }
            managed.iter().any(|entry| {
                // Subresources are written by controllers.
                if super::text(entry, "/subresource").is_some_and(|name| !name.is_empty()) || !has_field(entry, path) {
                    return false;
                }
                match super::text(entry, "/operation") {
                    Some("Apply") => true,
                    Some("Update") => applied.is_none() && default.is_some() && current != default,
                    _ => false,
                }
            })
        };
        Self {
            owned: Setting::ALL
                .into_iter()
                .filter(|setting| owns(setting.path(), object.pointer(setting.path()), Some(&setting.default())))
                .collect(),
            rendered: owns(INJECTED, None, None),
        }
    }

    /// Offline: what the file sets is owned by its applier.
    pub fn as_written(object: &Value) -> Self {
        Self {
            owned: Setting::ALL
                .into_iter()
                .filter(|setting| object.pointer(setting.path()).is_some_and(|value| !value.is_null()))
                .collect(),
            rendered: object.pointer(INJECTED).is_some(),
        }
    }

    /// Whether somebody else wrote it.
    pub fn owns(&self, setting: Setting) -> bool {
        self.owned.contains(&setting)
    }

    /// Whether the marker itself is the applier's: then what it says we set is ours, though the applier wrote it.
    pub const fn is_rendered(&self) -> bool {
        self.rendered
    }

    /// The same, with these settings given back: they are ours.
    #[must_use]
    pub fn without(mut self, ours: &[Setting]) -> Self {
        self.owned.retain(|setting| !ours.contains(setting));
        self
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
