//! What a workload's owner is told by Events, each once. Pods are made by the real controllers; what a kubelet would say
//! of them is written in its place.

use crate::companions::{labelled, leading, made, notes, told};
use crate::control_plane::eventually;
use crate::namespace::{Namespace, in_namespace};
use crate::sidecar::{Sidecar, container};
use crate::webhook::Webhook;
use crate::workload::FIRST;
use serde_json::{Value, json};
use std::sync::OnceLock;

fn webhook() -> &'static Webhook {
    static WEBHOOK: OnceLock<Webhook> = OnceLock::new();
    WEBHOOK.get_or_init(|| Webhook::start_with("owner-events", &leading("owner-events")))
}

fn with_app(name: &str, case: impl FnOnce(&Namespace)) {
    in_namespace(&webhook().labels(), name, |namespace| {
        namespace.accepts(&labelled(webhook(), FIRST.deployment()));
        case(namespace);
    });
}

/// The one pod with a label, once its controller has made it.
pub(crate) fn pod(namespace: &Namespace, label: &str) -> Value {
    eventually(&format!("a pod with {label}"), || {
        let said = namespace
            .kubectl(&["get", "pods", "-l", label, "-o", "json"])
            .succeeds();
        let list: Value = serde_json::from_str(&said).expect("JSON");
        list["items"].as_array()?.first().cloned()
    })
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

/// What a kubelet says of a pod.
pub(crate) fn status(namespace: &Namespace, pod: &Value, status: &Value) {
    let patch = json!({"status": status}).to_string();
    let arguments = [
        "patch",
        "pod",
        name(pod),
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    namespace.kubectl(&arguments).succeeds();
}

/// What a kubelet says when a volume can't be mounted.
fn failed_mount(namespace: &Namespace, name: &str, pod: &Value, message: &str) {
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace.name(),
            "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
        "reason": "FailedMount", "type": "Warning", "message": message, "source": {"component": "kubelet"}});
    namespace.kubectl_with(&["create", "-f", "-"], &event, &[]).succeeds();
}

#[test]
fn a_missing_secret_or_config_map_is_told_once_from_what_the_kubelet_says() {
    with_app("events-missing", |namespace| {
        let pod = pod(namespace, "app=app");
        let message = r#"MountVolume.SetUp failed for volume "rclone-config" : secret "rclone-minio-config" not found"#;
        failed_mount(namespace, "first", &pod, message);
        let note = told(namespace, "BackupSecretMissing");
        let expected = format!(
            "pod {} can't start: Secret rclone-minio-config does not exist in its namespace; make it, or name another with \
             vixens.io/backup-secret",
            name(&pod)
        );
        assert_eq!(note, expected);
        failed_mount(namespace, "again", &pod, message);
        failed_mount(
            namespace,
            "own",
            &pod,
            r#"MountVolume.SetUp failed for volume "own" : secret "own" not found"#,
        );
        let message = r#"MountVolume.SetUp failed for volume "vanilla-config" : configmap "app-vanilla" not found"#;
        failed_mount(namespace, "other", &pod, message);
        let note = told(namespace, "BackupConfigMapMissing");
        assert!(note.contains("ConfigMap app-vanilla"), "{note}");
        assert_eq!(
            notes(namespace, "BackupSecretMissing").len(),
            1,
            "once, and not of the app's own volumes"
        );

        let state =
            json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"keys\" not found"}});
        status(
            namespace,
            &pod,
            &json!({"initContainerStatuses": [container("init-config", 0, &state)]}),
        );
        eventually("the Secret of the environment, too", || {
            let notes = notes(namespace, "BackupSecretMissing");
            notes.iter().any(|note| note.contains("Secret keys")).then_some(())
        });
    });
}

#[test]
fn two_workloads_on_one_place_are_both_told() {
    in_namespace(&webhook().labels(), "events-place", |namespace| {
        let at = |name: &str| {
            let mut manifest = labelled(webhook(), FIRST.deployment());
            manifest["metadata"]["name"] = json!(name);
            manifest["metadata"]["annotations"]["vixens.io/backup-destination"] = json!("minio:events/shared");
            manifest
        };
        namespace.accepts(&at("app"));
        made(namespace, "cronjob/app-backup");
        assert_eq!(notes(namespace, "BackupPlaceShared"), [""; 0]);
        namespace.accepts(&at("other"));
        let note = told(namespace, "BackupPlaceShared");
        assert!(
            note.starts_with("minio:events/shared is the place of Deployment/other in events-place, too"),
            "{note}"
        );
        eventually("the other is told, too", || {
            let fields = "--field-selector=reason=BackupPlaceShared,involvedObject.name=other";
            let said = namespace.kubectl(&["get", "events", fields, "-o", "name"]).succeeds();
            (!said.is_empty()).then_some(())
        });
    });
}

#[test]
fn scaling_above_one_is_told_for_it_is_not_seen_at_admission() {
    with_app("events-scaled", |namespace| {
        namespace
            .kubectl(&["scale", "deployment/app", "--replicas=3"])
            .succeeds();
        let note = told(namespace, "BackupScaledAboveOne");
        assert!(
            note.starts_with("replicas is 3, and minio:vixens-backups/app has one writer"),
            "{note}"
        );
    });
}

/// The end of a Job's pod, as a kubelet tells it.
fn ends(namespace: &Namespace, code: i32, message: &str) {
    let pod = pod(namespace, "batch.kubernetes.io/job-name=app-restore");
    let state = json!({"terminated": {"exitCode": code, "message": message, "finishedAt": "2026-11-22T13:05:00Z"}});
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    status(
        namespace,
        &pod,
        &json!({"phase": phase, "containerStatuses": [container("pre-sync", 0, &state)]}),
    );
}

#[test]
fn what_a_restore_would_bring_is_told_with_the_snapshots_id_and_age() {
    with_app("events-restore", |namespace| {
        made(namespace, "job/app-restore");
        let words = "minio:vixens-backups/app: 20261122T130500Z-3.42-auto, made 2 h 10 min ago, 5,000 files, 55.0 MiB";
        ends(namespace, 0, words);
        assert_eq!(told(namespace, "RestoreChecked"), format!("Job/app-restore: {words}"));
    });
}

#[test]
fn a_store_that_can_not_be_trusted_is_told() {
    with_app("events-untrusted", |namespace| {
        made(namespace, "job/app-restore");
        // It is tried three times.
        for attempt in 1..=3 {
            let before = format!("batch.kubernetes.io/job-name=app-restore,attempt!={}", attempt - 1);
            let found = eventually("a pod of the next attempt", || {
                let said = namespace
                    .kubectl(&["get", "pods", "-l", &before, "-o", "json"])
                    .succeeds();
                let list: Value = serde_json::from_str(&said).expect("JSON");
                let items = list["items"].as_array()?.clone();
                items.into_iter().find(|pod| pod["status"]["phase"] == "Pending")
            });
            let message =
                "warning: something\nvixens-backup: the store can't be trusted with a restore: refused the key";
            let state =
                json!({"terminated": {"exitCode": 1, "message": message, "finishedAt": "2026-11-22T13:05:00Z"}});
            let patch = json!({"phase": "Failed", "containerStatuses": [container("pre-sync", 0, &state)]});
            status(namespace, &found, &patch);
        }
        assert_eq!(
            told(namespace, "RestoreCheckFailed"),
            "Job/app-restore: vixens-backup: the store can't be trusted with a restore: refused the key (kubectl -n \
             events-untrusted logs job/app-restore)"
        );
    });
}

#[test]
fn what_sidecars_say_of_late_refused_and_fenced_backups_is_told_once() {
    with_app("events-status", |namespace| {
        let destination = |words: Value, age: f64| {
            json!({"version": 1, "unsaved_change_age": age,
            "destinations": {"minio:vixens-backups/app": words}})
        };
        let sidecar = Sidecar::start(&destination(json!({"phase": "ready"}), 1.0));
        status(namespace, &pod(namespace, "app=app"), &sidecar.status());
        let refused = json!({"phase": "refused", "why": "9 of 10 files would vanish", "refusal": "r-1"});
        sidecar.say(&destination(refused, 60.0));
        let note = told(namespace, "BackupRefused");
        assert!(
            note.contains("a guard refuses the backup to minio:vixens-backups/app: 9 of 10 files would vanish"),
            "{note}"
        );
        assert!(note.ends_with("vixens-backup backup --accept r-1"), "{note}");
        sidecar.say(&destination(
            json!({"phase": "failing", "why": "connection refused"}),
            1_000.0,
        ));
        let note = told(namespace, "BackupStale");
        assert!(note.contains("more than 15 minutes (the last backup: never)"), "{note}");
        sidecar.say(&destination(json!({"phase": "fenced", "why": "app-2 took over"}), 0.0));
        assert!(told(namespace, "BackupFenced").contains("app-2 took over"));
        // It was asked many times meanwhile.
        for reason in ["BackupRefused", "BackupStale", "BackupFenced"] {
            assert_eq!(notes(namespace, reason).len(), 1, "{reason}");
        }
    });
}

#[test]
fn a_pod_that_keeps_its_own_fix_from_coming_is_told_with_the_command_that_frees_it() {
    in_namespace(&webhook().labels(), "events-stuck", |namespace| {
        namespace.accepts(&labelled(webhook(), FIRST.stateful_set()));
        let pod = pod(namespace, "app=app");
        let state = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        status(
            namespace,
            &pod,
            &json!({"initContainerStatuses": [container("init-config", 4, &state)]}),
        );
        made(namespace, "cronjob/app-backup");
        assert_eq!(
            notes(namespace, "BackupPodOutdated"),
            [""; 0],
            "there is no other revision yet"
        );
        let fixed = crate::workload::App { release: 2, ..FIRST };
        namespace.accepts(&labelled(webhook(), fixed.stateful_set()));
        let note = told(namespace, "BackupPodOutdated");
        assert!(note.starts_with("pod app-0 can't get out of init-config"), "{note}");
        assert!(note.ends_with("kubectl -n events-stuck delete pod app-0"), "{note}");
    });
}
