//! The laws of injection over generated and hand-made workloads, and whole outputs under snapshot.

mod accepted;
mod additions;
mod laws;
mod record;
mod shapes;
mod sticky;

use super::*;
use serde_json::json;

/// A vanilla Deployment with a claim and the one annotation.
fn app() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app", "namespace": "media", "annotations": {"vixens.io/backup": "tier2"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {"labels": {"app": "app"}},
                "spec": {
                    "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
                    "containers": [{"name": "app", "image": "app:1", "volumeMounts": [{"name": "data", "mountPath": "/config"}]}],
                    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "app-config"}}]
                }
            }
        }
    })
}

fn installation() -> Installation {
    Installation {
        image: "vixens-backup:1".to_owned(),
        ..Installation::default()
    }
}

fn review<'a>(object: &'a Value, old_object: Option<&'a Value>) -> Review<'a> {
    Review {
        object: Some(object),
        old_object,
        namespace: "media",
        dry_run: false,
    }
}

/// The object that the API server would store, and the warnings.
fn admitted(object: &Value, old: Option<&Value>, installation: &Installation) -> (Value, Vec<String>) {
    match admit(&review(object, old), installation) {
        Outcome::Allowed { patch, warnings } => {
            let mut result = object.clone();
            json_patch::patch(&mut result, &patch).unwrap();
            (result, warnings)
        }
        Outcome::Denied { problems } => panic!("denied: {problems:?}"),
    }
}

fn denied(object: &Value) -> String {
    match admit(&review(object, None), &installation()) {
        Outcome::Denied { problems } => problems.join("\n"),
        Outcome::Allowed { .. } => panic!("allowed"),
    }
}
