//! `ConfigMap/<name>-backup-record`: made from what sidecars say of their stores, and kept for as long as its workload.

use crate::companions::{found, gone, labelled, leading, made, notes, told};
use crate::control_plane::eventually;
use crate::namespace::{Namespace, in_namespace};
use crate::owner_events::{pod, status};
use crate::sidecar::{Sidecar, container};
use crate::webhook::Webhook;
use crate::workload::FIRST;
use serde_json::{Value, json};
use std::sync::OnceLock;

const RECORD: &str = "configmap/app-backup-record";
const PLACE: &str = "minio:vixens-backups/app";

fn webhook() -> &'static Webhook {
    static WEBHOOK: OnceLock<Webhook> = OnceLock::new();
    WEBHOOK.get_or_init(|| Webhook::start_with("record", &leading("record")))
}

fn holding(store: &Value, snapshot: &Value) -> Value {
    json!({"version": 1, "destinations": {PLACE: {"phase": "ready", "store_id": store, "snapshot": snapshot}}})
}

/// A pod of the app, whose sidecar says this.
fn runs(namespace: &Namespace, words: &Value) -> Sidecar {
    let sidecar = Sidecar::start(words);
    status(namespace, &pod(namespace, "app=app"), &sidecar.status());
    sidecar
}

/// What is recorded of the place.
fn recorded(record: &Value) -> Value {
    let text = record["data"]["record.json"].as_str().expect("a record");
    let record: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(record["version"], 1);
    record["places"][PLACE].clone()
}

#[test]
fn from_the_first_snapshot_on_it_says_what_the_store_holds_and_comes_back_when_it_is_deleted() {
    in_namespace(&webhook().labels(), "record-kept", |namespace| {
        namespace.accepts(&labelled(webhook(), FIRST.deployment()));
        let uid = namespace.get("deployment/app")["metadata"]["uid"].clone();
        // A hold is told in the same round in which a record would be written.
        let mut without = holding(&json!("store-a"), &json!(null));
        without["destinations"][PLACE]["questions"] = json!([{"id": "hold-1a2b3c4d", "text": "files vanished"}]);
        let sidecar = runs(namespace, &without);
        told(namespace, "BackupHeld");
        assert_eq!(found(namespace, RECORD), None, "there is no snapshot yet");
        sidecar.say(&holding(&json!(null), &json!("s1")));
        let record = made(namespace, RECORD);
        assert_eq!(recorded(&record)["snapshot"], "s1");
        let metadata = &record["metadata"];
        let owners = metadata["ownerReferences"].as_array().expect("owners");
        assert_eq!(owners.len(), 1);
        assert_eq!((&owners[0]["uid"], &owners[0]["controller"]), (&uid, &json!(true)));
        assert_eq!(
            metadata["annotations"],
            json!({"argocd.argoproj.io/compare-options": "IgnoreExtraneous"})
        );
        assert_eq!(
            metadata["labels"],
            json!({"app.kubernetes.io/managed-by": "vixens-backup", "vixens.io/backup-companion": "record"})
        );
        // Now the store has a name, which is news; a newer snapshot within the hour is not.
        sidecar.say(&holding(&json!("store-a"), &json!("s1")));
        let named = eventually("the store's id", || {
            let record = found(namespace, RECORD)?;
            (recorded(&record)["store_id"] == "store-a").then_some(record)
        });
        sidecar.say(&holding(&json!("store-a"), &json!("s2")));
        namespace.kubectl(&["delete", RECORD]).succeeds();
        let again = made(namespace, RECORD);
        assert_ne!(again["metadata"]["uid"], named["metadata"]["uid"]);
        assert_eq!(recorded(&again)["store_id"], "store-a");
        // What somebody has made of it is mended with what is known.
        let patch = r#"{"data": {"record.json": "nothing"}}"#;
        namespace
            .kubectl(&["patch", RECORD, "--type=merge", "-p", patch])
            .succeeds();
        eventually("it is a record again", || {
            let record = found(namespace, RECORD)?;
            let text = record["data"]["record.json"].as_str()?;
            text.contains("store-a").then_some(())
        });
    });
}

#[test]
fn nothing_is_written_while_nothing_is_new() {
    in_namespace(&webhook().labels(), "record-rest", |namespace| {
        namespace.accepts(&labelled(webhook(), FIRST.deployment()));
        let sidecar = runs(namespace, &holding(&json!("store-a"), &json!("s1")));
        let version = made(namespace, RECORD)["metadata"]["resourceVersion"].clone();
        // Each in a later round than the one before, and each looked at many times.
        for snapshot in ["s2", "s3", "s4"] {
            let mut words = holding(&json!("store-a"), &json!(snapshot));
            let asks = [json!({"id": format!("hold-0000000{}", &snapshot[1..]), "text": "files vanished"})];
            words["destinations"][PLACE]["questions"] = json!(asks);
            sidecar.say(&words);
            eventually("it was heard", || {
                let notes = notes(namespace, "BackupHeld");
                notes
                    .iter()
                    .any(|note| note.starts_with(asks[0]["id"].as_str().unwrap_or("?")))
                    .then_some(())
            });
        }
        let record = namespace.get(RECORD);
        assert_eq!(record["metadata"]["resourceVersion"], version, "{record}");
        assert_eq!(recorded(&record)["snapshot"], "s1");
    });
}

#[test]
fn it_stays_when_the_workload_is_disabled_or_its_annotation_goes_and_goes_with_the_workload() {
    in_namespace(&webhook().labels(), "record-stays", |namespace| {
        namespace.accepts(&labelled(webhook(), FIRST.deployment()));
        let _sidecar = runs(namespace, &holding(&json!("store-a"), &json!("s1")));
        let uid = made(namespace, RECORD)["metadata"]["uid"].clone();
        let disabled = ["annotate", "--overwrite", "deployment/app", "vixens.io/backup=disabled"];
        namespace.kubectl(&disabled).succeeds();
        eventually("the CronJob rests", || {
            (made(namespace, "cronjob/app-backup")["spec"]["suspend"] == true).then_some(())
        });
        assert_eq!(namespace.get(RECORD)["metadata"]["uid"], uid);
        let removed = ["annotate", "deployment/app", "vixens.io/backup-"];
        namespace.kubectl(&removed).succeeds();
        gone(namespace, "cronjob/app-backup");
        assert_eq!(namespace.get(RECORD)["metadata"]["uid"], uid);
        namespace
            .kubectl(&["delete", "deployment/app", "--wait=false"])
            .succeeds();
        gone(namespace, RECORD);
    });
}

#[test]
fn a_config_map_of_that_name_that_is_not_ours_is_left_alone_and_told_of() {
    in_namespace(&webhook().labels(), "record-foreign", |namespace| {
        let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app-backup-record"},
            "data": {"mine": "1"}});
        namespace.accepts(&foreign);
        let before = namespace.get(RECORD);
        namespace.accepts(&labelled(webhook(), FIRST.deployment()));
        let _sidecar = runs(namespace, &holding(&json!("store-a"), &json!("s1")));
        let note = told(namespace, "BackupCompanionTaken");
        assert!(
            note.starts_with("ConfigMap/app-backup-record exists, and vixens-backup did not make it: it is left alone"),
            "{note}"
        );
        assert!(
            note.ends_with("kubectl -n record-foreign delete configmap app-backup-record"),
            "{note}"
        );
        assert_eq!(namespace.get(RECORD), before);
        namespace.kubectl(&["delete", RECORD]).succeeds();
        assert_eq!(recorded(&made(namespace, RECORD))["snapshot"], "s1");
    });
}

#[test]
fn without_a_sidecar_the_last_words_of_a_run_of_the_cron_job_are_what_is_recorded() {
    in_namespace(&webhook().labels(), "record-run", |namespace| {
        let mut manifest = labelled(webhook(), FIRST.deployment());
        manifest["metadata"]["annotations"]["vixens.io/backup-mode"] = json!("cronjob");
        manifest["metadata"]["annotations"]["vixens.io/backup-schedule"] = json!("* * * * *");
        namespace.accepts(&manifest);
        // Its Jobs are the real controllers'.
        let pod = pod(namespace, "vixens.io/backup-job=cronjob");
        let words = format!(
            "vixens-backup saved {PLACE}: newest snapshot s1, store store-a\nvixens-backup asks hold-1a2b3c4d: files vanished"
        );
        let ended = json!({"terminated": {"exitCode": 0, "message": words, "finishedAt": "2026-11-22T13:05:00Z"}});
        let ended = json!({"phase": "Succeeded", "containerStatuses": [container("backup", 0, &ended)]});
        status(namespace, &pod, &ended);
        let place = recorded(&made(namespace, RECORD));
        assert_eq!(
            (&place["snapshot"], &place["store_id"]),
            (&json!("s1"), &json!("store-a"))
        );
        let note = told(namespace, "BackupHeld");
        assert!(
            note.ends_with("vixens.io/backup-accept=hold-1a2b3c4d (or the same in Git)"),
            "{note}"
        );
    });
}

#[test]
fn each_pod_of_a_stateful_set_has_its_place_in_one_record() {
    in_namespace(&webhook().labels(), "record-stateful", |namespace| {
        let mut manifest = labelled(webhook(), FIRST.stateful_set());
        manifest["spec"]["replicas"] = json!(2);
        manifest["spec"]["podManagementPolicy"] = json!("Parallel");
        namespace.accepts(&manifest);
        let sidecars: Vec<Sidecar> = (0..2)
            .map(|ordinal| {
                let name = format!("app-{ordinal}");
                let place = format!("minio:vixens-backups/{name}");
                let words = json!({"destinations": {place: {"phase": "ready", "snapshot": format!("s{ordinal}")}}});
                let sidecar = Sidecar::start(&words);
                let pod = made(namespace, &format!("pod/{name}"));
                status(namespace, &pod, &sidecar.status());
                sidecar
            })
            .collect();
        let record = eventually("both places", || {
            let record = found(namespace, RECORD)?;
            let text = record["data"]["record.json"].as_str()?.to_owned();
            let record: Value = serde_json::from_str(&text).ok()?;
            (record["places"].as_object()?.len() == sidecars.len()).then_some(record)
        });
        assert_eq!(record["places"]["minio:vixens-backups/app-0"]["snapshot"], "s0");
        assert_eq!(record["places"]["minio:vixens-backups/app-1"]["snapshot"], "s1");
    });
}
