//! The PreSync Job as `inject --with-presync` renders it, on a real API server: how its failure is told, and how it goes.

use crate::companions::{found, gone, labelled, leading, made};
use crate::control_plane::eventually;
use crate::namespace::{Namespace, in_namespace};
use crate::webhook::Webhook;
use crate::workload::FIRST;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

fn webhook() -> &'static Webhook {
    static WEBHOOK: OnceLock<Webhook> = OnceLock::new();
    WEBHOOK.get_or_init(|| Webhook::start_with("presync", &leading("presync")))
}

/// The app's manifest, and the Job behind it.
fn rendered() -> [Value; 2] {
    let manifest = labelled(webhook(), FIRST.deployment()).to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_vixens-backup"))
        .args(["inject", "--with-presync"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(manifest.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let documents: Vec<Value> = text
        .split("\n---\n")
        .map(|document| serde_json::from_str(document).expect("JSON"))
        .collect();
    documents.try_into().expect("two objects")
}

/// The Job's pod ends, as a kubelet tells it.
fn fails(namespace: &Namespace, message: &str) {
    let name = eventually("a pod of the Job's", || {
        let arguments = ["get", "pods", "-l", "vixens.io/backup-job=presync", "-o", "name"];
        let names = namespace.kubectl(&arguments).succeeds();
        names.lines().next().map(str::to_owned)
    });
    let ended = json!({"exitCode": 1, "message": message, "finishedAt": "2026-11-22T13:05:00Z"});
    let patch = json!({"status": {"phase": "Failed", "containerStatuses": [{"name": "pre-sync", "image": "image:1",
        "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": ended}}]}});
    let arguments = [
        "patch",
        &name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch.to_string(),
    ];
    namespace.kubectl(&arguments).succeeds();
}

#[test]
fn the_job_fails_with_the_words_of_its_pod_where_argo_cd_shows_them() {
    in_namespace(&webhook().labels(), "presync-fails", |namespace| {
        let [_, job] = rendered();
        namespace.accepts(&job);
        fails(
            namespace,
            "checked\nvixens-backup: the store can't be trusted: refused the key",
        );
        let condition = eventually("the Job has failed", || {
            let job = namespace.get("job/app-presync");
            let conditions = job["status"]["conditions"].as_array()?.clone();
            conditions.into_iter().find(|condition| condition["type"] == "Failed")
        });
        assert_eq!(
            condition["message"],
            "vixens-backup: the store can't be trusted: refused the key"
        );
    });
}

#[test]
fn the_rendered_manifest_is_taken_and_the_job_goes_with_the_annotation() {
    in_namespace(&webhook().labels(), "presync-goes", |namespace| {
        let [app, job] = rendered();
        namespace.accepts(&job);
        namespace.accepts(&app);
        made(namespace, "job/app-restore");
        assert!(
            found(namespace, "job/app-presync").is_some(),
            "the controller leaves it to Argo CD"
        );
        let annotate = ["annotate", "deployment/app", "vixens.io/backup-"];
        namespace.kubectl(&annotate).succeeds();
        gone(namespace, "job/app-restore");
        gone(namespace, "job/app-presync");
    });
}
