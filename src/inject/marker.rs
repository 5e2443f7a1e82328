//! The annotation `vixens.io/backup-injected`: what was injected, and what was there before. Written by us, read back
//! by us and by the controller; no secrets, at most 8 KiB.

use super::plan::Plan;
use crate::policy::key;
use crate::workload::{Setting, annotations, at};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The version that this release writes.
pub(super) const VERSION: u64 = 1;
/// The largest marker, in bytes.
pub(super) const LIMIT: usize = 8192;

/// What the annotation says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// Its format.
    pub version: u64,
    /// The plan of the live block, of whichever release wrote it.
    pub plan: Map<String, Value>,
    /// What stood at a path before us: a value, `null` where it was absent, the text `"null"` where it was `null`.
    pub from: BTreeMap<String, Value>,
}

/// What was found where a marker may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// No annotation.
    Nothing,
    /// A marker that this release understands.
    Known(Marker),
    /// A marker of another version, or one that was damaged: what it speaks of is kept.
    Unknown,
}

impl Found {
    /// Reads the annotation of an object.
    pub fn read(object: &Value) -> Self {
        let Some(text) = annotations(object, "").get(key::INJECTED).and_then(Value::as_str) else {
            return Self::Nothing;
        };
        match serde_json::from_str::<Marker>(text) {
            Ok(marker) if marker.version == VERSION => Self::Known(marker),
            _ => Self::Unknown,
        }
    }

    /// The marker, where it is understood.
    pub fn known(self) -> Option<Marker> {
        match self {
            Self::Known(marker) => Some(marker),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

impl Marker {
    /// The plan of the live block, where this release can read it.
    pub fn plan(&self) -> Option<Plan> {
        serde_json::from_value(Value::Object(self.plan.clone())).ok()
    }

    /// What we set, by setting.
    pub fn settings(&self) -> BTreeMap<Setting, Value> {
        self.plan
            .get("settings")
            .and_then(|settings| serde_json::from_value(settings.clone()).ok())
            .unwrap_or_default()
    }

    /// What we set and the owner may not have written: the settings that are ours.
    pub fn our_settings(&self, object: &Value) -> Vec<Setting> {
        self.settings()
            .into_iter()
            .filter(|(setting, value)| at(object, setting.path()) == Some(value))
            .map(|(setting, _)| setting)
            .collect()
    }

    /// The annotation's text.
    pub(super) fn text(&self) -> String {
        text(&self.plan, &self.from)
    }
}

/// The text of a marker of this release's version.
pub(super) fn text(plan: &impl Serialize, from: &BTreeMap<String, Value>) -> String {
    #[derive(Serialize)]
    struct Written<'a, P> {
        version: u64,
        plan: &'a P,
        from: &'a BTreeMap<String, Value>,
    }
    let written = Written {
        version: VERSION,
        plan,
        from,
    };
    serde_json::to_string(&written).unwrap_or_default()
}
