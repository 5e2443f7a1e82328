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
        namespace
            .kubectl(&["create", "job", "--from=cronjob/app-backup", "now"])
            .succeeds();
        let labels = made(namespace, "job/now")["metadata"]["labels"].clone();
        assert!(
            labels["vixens.io/backup-companion"].is_null(),
            "what a CronJob makes is no companion: {labels}"
        );
        // Garbage collection is the controller-manager's.
        namespace.kubectl(&["delete", "deployment/app"]).succeeds();
        for object in ALL {
            gone(namespace, object);
        }
    });
}

#[test]
fn a_companion_comes_back_when_it_is_deleted_or_edited() {
    in_namespace(&webhook().labels(), "companions-kept", |namespace| {
        namespace.accepts(&annotated(webhook(), &[("vixens.io/backup-schedule", "17 * * * *")]));
        for object in ALL {
            let uid = made(namespace, object)["metadata"]["uid"].clone();
            namespace.kubectl(&["delete", object]).succeeds();
            eventually(&format!("another {object}"), || {
                (found(namespace, object)?["metadata"]["uid"] != uid).then_some(())
            });
        }
        let patch = r#"{"spec": {"schedule": "* * * * *", "suspend": true, "concurrencyPolicy": "Allow"}}"#;
        namespace
            .kubectl(&["patch", ALL[0], "--type=merge", "-p", patch])
            .succeeds();
        eventually("the schedule is ours again", || {
            let spec = namespace.get(ALL[0])["spec"].clone();
            let is_ours = spec["schedule"] == "17 * * * *" && spec["concurrencyPolicy"] == "Forbid";
            (is_ours && spec["suspend"] == false).then_some(())
        });
        let patch = r#"{"spec": {"selector": {"vixens.io/backup-app": "another"}}}"#;
        namespace
            .kubectl(&["patch", ALL[2], "--type=merge", "-p", patch])
            .succeeds();
        eventually("the selector is ours again", || {
            (namespace.get(ALL[2])["spec"]["selector"]["vixens.io/backup-app"] == "app").then_some(())
        });
        // What somebody adds is nobody's loss.
        namespace.kubectl(&["label", ALL[0], "team=media"]).succeeds();
        namespace
            .kubectl(&["annotate", ALL[0], "argocd.argoproj.io/compare-options-"])
            .succeeds();
        eventually("the annotation is back", || {
            let metadata = namespace.get(ALL[0])["metadata"].clone();
            assert_eq!(metadata["labels"]["team"], "media");
            metadata["annotations"]["argocd.argoproj.io/compare-options"]
                .as_str()
                .map(|_| ())
        });
    });
}

#[test]
fn a_change_of_the_policy_changes_companions_in_place() {
    in_namespace(&webhook().labels(), "companions-policy", |namespace| {
        namespace.accepts(&annotated(webhook(), &[("vixens.io/backup-schedule", "17 * * * *")]));
        let before = ALL.map(|object| made(namespace, object)["metadata"]["uid"].clone());
        namespace
            .kubectl(&[
                "annotate",
                "--overwrite",
                "deployment/app",
                "vixens.io/backup-schedule=3 4 * * *",
            ])
            .succeeds();
        eventually("the new schedule", || {
            (namespace.get(ALL[0])["spec"]["schedule"] == "3 4 * * *").then_some(())
        });
        let after = ALL.map(|object| made(namespace, object)["metadata"]["uid"].clone());
        assert_eq!(after, before, "none was made anew");

        namespace
            .kubectl(&["annotate", "deployment/app", "vixens.io/backup-mode=sidecar"])
            .succeeds();
        gone(namespace, ALL[0]);
        made(namespace, ALL[2]);
        namespace
            .kubectl(&[
                "annotate",
                "--overwrite",
                "deployment/app",
                "vixens.io/backup-mode=cronjob",
            ])
            .succeeds();
        gone(namespace, ALL[2]);
        let cron_job = made(namespace, ALL[0]);
        let pod = &cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_array().expect("volumes");
        let claim = volumes
            .iter()
            .find(|volume| volume["name"] == "config")
            .expect("the app's volume");
        assert_eq!(
            claim["persistentVolumeClaim"],
            json!({"claimName": "app-config", "readOnly": true})
        );
        let affinity = &pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(affinity["labelSelector"]["matchLabels"]["vixens.io/backup-app"], "app");
        namespace
            .kubectl(&["scale", "deployment/app", "--replicas=0"])
            .succeeds();
        eventually("a stopped app's node is not asked for", || {
            let pod = &namespace.get(ALL[0])["spec"]["jobTemplate"]["spec"]["template"]["spec"];
            pod["affinity"].is_null().then_some(())
        });
    });
}

#[test]
fn without_the_annotation_companions_go_and_the_owner_is_told_that_backups_end() {
    in_namespace(&webhook().labels(), "companions-end", |namespace| {
        namespace.accepts(&annotated(webhook(), &[]));
        for object in ALL {
            made(namespace, object);
        }
        namespace
            .kubectl(&["annotate", "deployment/app", "vixens.io/backup-"])
            .succeeds();
        for object in ALL {
            gone(namespace, object);
        }
        let note = told(namespace, "BackupsEnded");
        assert_eq!(
            note,
            "vixens.io/backup was removed: backups of this workload end here; what is stored stays"
        );
    });
}

#[test]
fn while_disabled_the_cron_job_stays_and_starts_nothing() {
    in_namespace(&webhook().labels(), "companions-disabled", |namespace| {
        namespace.accepts(&annotated(webhook(), &[]));
        let uid = made(namespace, ALL[0])["metadata"]["uid"].clone();
        let is = |suspended: bool| {
            eventually(&format!("suspend is {suspended}"), || {
                let cron_job = namespace.get(ALL[0]);
                assert_eq!(cron_job["metadata"]["uid"], uid);
                (cron_job["spec"]["suspend"] == suspended).then_some(())
            });
        };
        namespace
            .kubectl(&["annotate", "--overwrite", "deployment/app", "vixens.io/backup=disabled"])
            .succeeds();
        is(true);
        let patch = r#"{"spec": {"suspend": false}}"#;
        namespace
            .kubectl(&["patch", ALL[0], "--type=merge", "-p", patch])
            .succeeds();
        is(true);
        namespace
            .kubectl(&["annotate", "--overwrite", "deployment/app", "vixens.io/backup=tier2"])
            .succeeds();
        is(false);
    });
}

/// The guide's hand-written ones have exactly these names.
#[test]
fn an_object_of_that_name_that_is_not_ours_is_left_alone_and_told_of() {
    in_namespace(&webhook().labels(), "companions-foreign", |namespace| {
        let foreign = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "app-backup"},
            "spec": {"schedule": "1 2 3 4 5", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "mine", "image": "mine:1"}]}}}}}});
        namespace.accepts(&foreign);
        let before = namespace.get(ALL[0]);
        namespace.accepts(&annotated(webhook(), &[]));
        let note = told(namespace, "BackupCompanionTaken");
        assert!(
            note.starts_with("CronJob/app-backup exists, and vixens-backup did not make it: it is left alone"),
            "{note}"
        );
        assert!(
            note.ends_with("kubectl -n companions-foreign delete cronjob app-backup"),
            "{note}"
        );
        made(namespace, ALL[1]);
        made(namespace, ALL[2]);
        assert_eq!(namespace.get(ALL[0]), before);
        namespace
            .kubectl(&["annotate", "deployment/app", "vixens.io/backup-"])
            .succeeds();
        gone(namespace, ALL[1]);
        gone(namespace, ALL[2]);
        assert_eq!(namespace.get(ALL[0]), before, "nor removed");
        namespace.kubectl(&["delete", ALL[0]]).succeeds();
        namespace
            .kubectl(&["annotate", "deployment/app", "vixens.io/backup=tier2"])
            .succeeds();
        made(namespace, ALL[0]);
    });
}

#[test]
fn two_workloads_of_one_name_do_not_take_each_others_companions() {
    in_namespace(&webhook().labels(), "companions-twins", |namespace| {
        namespace.accepts(&annotated(webhook(), &[]));
        let before = ALL.map(|object| made(namespace, object)["metadata"]["uid"].clone());
        namespace.accepts(&labelled(webhook(), FIRST.stateful_set()));
        let note = told(namespace, "BackupCompanionTaken");
        assert!(note.contains("it belongs to Deployment/app"), "{note}");
        assert_eq!(
            ALL.map(|object| made(namespace, object)["metadata"]["uid"].clone()),
            before
        );
    });
}

#[test]
fn the_pods_of_a_stateful_set_follow_its_replicas() {
    in_namespace(&webhook().labels(), "companions-stateful", |namespace| {
        namespace.accepts(&labelled(webhook(), FIRST.stateful_set()));
        let arguments = |object: &str| {
            let object = found(namespace, object)?;
            let job = object.pointer("/spec/jobTemplate").unwrap_or(&object);
            Some(job["spec"]["template"]["spec"]["containers"][0]["args"].to_string())
        };
        eventually("one pod is asked", || {
            arguments(ALL[0])?.contains("--ask=app-0.app:9476").then_some(())
        });
        namespace
            .kubectl(&["scale", "statefulset/app", "--replicas=3"])
            .succeeds();
        eventually("all pods are asked", || {
            arguments(ALL[0])?.contains("--ask=app-2.app:9476").then_some(())
        });
        eventually("all places are checked", || {
            arguments(ALL[1])?.contains("--replicas=3").then_some(())
        });
    });
}

#[test]
fn a_dry_run_says_what_would_be_created_and_creates_nothing() {
    in_namespace(&webhook().labels(), "companions-dry-run", |namespace| {
        let manifest = annotated(webhook(), &[("vixens.io/backup-schedule", "17 * * * *")]);
        let said = namespace.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &manifest, &[]);
        let warning =
            "vixens-backup: would create CronJob/app-backup (17 * * * *), Job/app-restore, Service/app-backup";
        assert!(said.stderr.contains(warning), "{said:?}");
        assert!(said.succeeded);
        for object in ALL {
            assert_eq!(found(namespace, object), None);
        }
    });
}

#[test]
fn the_metrics_count_workloads_and_looks() {
    in_namespace(&webhook().labels(), "companions-metrics", |namespace| {
        namespace.accepts(&annotated(webhook(), &[]));
        made(namespace, ALL[0]);
        eventually("the metrics", || {
            let metrics = crate::connection::get(webhook().process().port(), "/metrics").ok()?;
            let has = |line: &str| metrics.lines().any(|found| found.starts_with(line));
            let all = has("vixens_backup_workloads{tier=\"tier2\"} ")
                && has("vixens_backup_reconciliations_total{result=\"changed\"} ");
            all.then_some(())
        });
    });
}

fn image(object: &Value) -> String {
    let job = object.pointer("/spec/jobTemplate").unwrap_or(object);
    let image = &job["spec"]["template"]["spec"]["containers"][0]["image"];
    image.as_str().expect("an image").to_owned()
}

#[test]
fn companions_follow_the_live_block_and_an_upgrade_of_ours_checks_no_restore_again() {
    let arguments = |image: &'static str| [&[image][..], &leading("companions-upgrade")].concat();
    let mut webhook = Webhook::start_with("companions-upgrade", &arguments("--image=vixens-backup:1.0.0"));
    in_namespace(&webhook.labels(), "companions-upgrade", |namespace| {
        let manifest = annotated(&webhook, &[]);
        namespace.accepts(&manifest);
        let job = made(namespace, ALL[1]);
        assert_eq!(image(&made(namespace, ALL[0])), "vixens-backup:1.0.0");
        webhook.stop();
        webhook.resume(&arguments("--image=vixens-backup:2.0.0"));
        // Made anew by the new release, for the block that runs.
        let uid = made(namespace, ALL[0])["metadata"]["uid"].clone();
        namespace.kubectl(&["delete", ALL[0]]).succeeds();
        let cron_job = eventually("another CronJob", || {
            found(namespace, ALL[0]).filter(|object| object["metadata"]["uid"] != uid)
        });
        assert_eq!(image(&cron_job), "vixens-backup:1.0.0");
        namespace.kubectl(&["rollout", "restart", "deployment/app"]).succeeds();
        eventually("the new block's CronJob", || {
            (image(&namespace.get(ALL[0])) == "vixens-backup:2.0.0").then_some(())
        });
        let same = namespace.get(ALL[1]);
        assert_eq!(same["metadata"]["uid"], job["metadata"]["uid"]);
        // Another policy is another question.
        let elsewhere = "vixens.io/backup-destination=minio:elsewhere/app";
        namespace.kubectl(&["annotate", "deployment/app", elsewhere]).succeeds();
        let job = eventually("a Job for the new place", || {
            found(namespace, ALL[1]).filter(|object| object["metadata"]["uid"] != job["metadata"]["uid"])
        });
        assert!(job["spec"].to_string().contains("minio:elsewhere/app"), "{job}");
        // So is another workload of the same name.
        namespace
            .kubectl(&["delete", "deployment/app", "--wait=false"])
            .succeeds();
        eventually("it is gone", || {
            found(namespace, "deployment/app").is_none().then_some(())
        });
        namespace.accepts(&manifest);
        let owner = namespace.get("deployment/app")["metadata"]["uid"].clone();
        for object in ALL {
            eventually(&format!("{object} of the new one"), || {
                let owners = found(namespace, object)?["metadata"]["ownerReferences"].clone();
                (owners[0]["uid"] == owner).then_some(())
            });
        }
    });
}

#[test]
fn a_tier_that_stores_nothing_has_no_companions_and_the_owner_is_told() {
    in_namespace(&webhook().labels(), "companions-tier1", |namespace| {
        namespace.accepts(&annotated(webhook(), &[]));
        for object in ALL {
            made(namespace, object);
        }
        let tier1 = ["annotate", "--overwrite", "deployment/app", "vixens.io/backup=tier1"];
        namespace.kubectl(&tier1).succeeds();
        for object in ALL {
            gone(namespace, object);
        }
        let note = told(namespace, "BackupsEnded");
        assert!(note.starts_with("tier1 stores nothing"), "{note}");
    });
}

#[test]
fn the_block_of_a_release_to_come_is_left_with_its_companions() {
    in_namespace(&webhook().labels(), "companions-to-come", |namespace| {
        namespace.accepts(&annotated(webhook(), &[]));
        let before = ALL.map(|object| made(namespace, object)["metadata"]["uid"].clone());
        let marker = r#"vixens.io/backup-injected={"version": 99, "plan": {}, "from": {}}"#;
        namespace
            .kubectl(&["annotate", "--overwrite", "deployment/app", marker])
            .succeeds();
        let note = told(namespace, "BackupBlockUnknown");
        assert!(note.contains("another release of vixens-backup"), "{note}");
        assert_eq!(
            ALL.map(|object| made(namespace, object)["metadata"]["uid"].clone()),
            before
        );
    });
}
