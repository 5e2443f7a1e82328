//! The controller beside the webhook: what it makes, keeps and removes, on a real API server with the garbage collector
//! of a real kube-controller-manager.

use crate::control_plane::eventually;
use crate::namespace::{Namespace, in_namespace};
use crate::webhook::Webhook;
use crate::workload::FIRST;
use serde_json::{Value, json};
use std::sync::OnceLock;

/// The webhook of most cases, whose process is the leader, too.
fn webhook() -> &'static Webhook {
    static WEBHOOK: OnceLock<Webhook> = OnceLock::new();
    WEBHOOK.get_or_init(|| Webhook::start_with("companions", &leading("companions")))
}

/// What makes a process the leader of the workloads with this name's label.
pub(crate) fn leading(name: &str) -> Vec<&'static str> {
    let arguments = [
        format!("--lease={name}"),
        format!("--watch-label-selector=webhook.test={name}"),
        "--status-interval=200ms".to_owned(),
    ];
    // They live as long as the test does.
    arguments.map(|argument| &*argument.leak()).to_vec()
}

/// A workload with the label that makes it `webhook`'s.
pub(crate) fn labelled(webhook: &Webhook, mut manifest: Value) -> Value {
    manifest["metadata"]["labels"] = webhook.labels();
    manifest
}

/// The app with more annotations.
fn annotated(webhook: &Webhook, annotations: &[(&str, &str)]) -> Value {
    let mut manifest = labelled(webhook, FIRST.deployment());
    for (name, value) in annotations {
        manifest["metadata"]["annotations"][*name] = json!(value);
    }
    manifest
}

/// An object, once it is there.
#[track_caller]
pub(crate) fn made(namespace: &Namespace, object: &str) -> Value {
    eventually(&format!("{object} is made"), || found(namespace, object))
}

/// An object, where it is there.
pub(crate) fn found(namespace: &Namespace, object: &str) -> Option<Value> {
    let said = namespace.kubectl(&["get", object, "--ignore-not-found", "-o", "json"]);
    serde_json::from_str(&said.succeeds()).ok()
}

/// Waits until an object is gone.
#[track_caller]
pub(crate) fn gone(namespace: &Namespace, object: &str) {
    eventually(&format!("{object} is gone"), || {
        found(namespace, object).is_none().then_some(())
    });
}

/// The notes of the workload's Events of one reason.
pub(crate) fn notes(namespace: &Namespace, reason: &str) -> Vec<String> {
    let fields = format!("--field-selector=reason={reason},involvedObject.name=app");
    let events: Value =
        serde_json::from_str(&namespace.kubectl(&["get", "events", &fields, "-o", "json"]).succeeds()).expect("JSON");
    let items = events["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| item["message"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// The note of the first Event of a reason.
#[track_caller]
pub(crate) fn told(namespace: &Namespace, reason: &str) -> String {
    eventually(&format!("an Event {reason}"), || notes(namespace, reason).pop())
}

const ALL: [&str; 3] = ["cronjob/app-backup", "job/app-restore", "service/app-backup"];

#[test]
fn an_annotated_workload_gets_its_companions_and_owns_them() {
    in_namespace(&webhook().labels(), "companions-made", |namespace| {
        let manifest = annotated(webhook(), &[("vixens.io/backup-schedule", "17 * * * *")]);
        namespace.accepts(&manifest);
        let uid = namespace.get("deployment/app")["metadata"]["uid"].clone();
        for object in ALL {
            let companion = made(namespace, object);
            let owners = companion["metadata"]["ownerReferences"].as_array().expect("owners");
            assert_eq!(owners.len(), 1);
            assert_eq!((&owners[0]["uid"], &owners[0]["controller"]), (&uid, &json!(true)));
            assert_eq!(
                companion["metadata"]["annotations"]["argocd.argoproj.io/compare-options"],
                "IgnoreExtraneous"
            );
        }
        let cron_job = namespace.get("cronjob/app-backup");
        assert_eq!(cron_job["spec"]["schedule"], "17 * * * *");
        assert_eq!(cron_job["spec"]["concurrencyPolicy"], "Forbid");
        let note = told(namespace, "BackupCompanionsMade");
        assert_eq!(
            note,
            "made CronJob/app-backup (17 * * * *), Job/app-restore, Service/app-backup"
        );
        // Garbage collection is the controller-manager's.
        namespace.kubectl(&["delete", "deployment/app"]).succeeds();
        for object in ALL {
            gone(namespace, object);
        }
    });
}
