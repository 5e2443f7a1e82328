//! What pods ask, as their owner reads it: in Events of the workload, and in a metric.

use crate::companions::{labelled, leading, notes, told};
use crate::control_plane::eventually;
use crate::namespace::{Namespace, in_namespace};
use crate::owner_events::{pod, status};
use crate::sidecar::{Sidecar, container};
use crate::webhook::Webhook;
use crate::workload::FIRST;
use serde_json::{Value, json};
use std::sync::OnceLock;

fn webhook() -> &'static Webhook {
    static WEBHOOK: OnceLock<Webhook> = OnceLock::new();
    WEBHOOK.get_or_init(|| Webhook::start_with("questions", &leading("questions")))
}

fn with_app(name: &str, case: impl FnOnce(&Namespace)) {
    in_namespace(&webhook().labels(), name, |namespace| {
        namespace.accepts(&labelled(webhook(), FIRST.deployment()));
        case(namespace);
    });
}

fn asking(questions: &Value) -> Value {
    json!({"version": 1, "destinations": {"minio:vixens-backups/app": {"phase": "ready", "questions": questions}}})
}

/// How often an Event of a reason says that it was told.
fn count(namespace: &Namespace, reason: &str) -> Option<u64> {
    let field = format!("--field-selector=reason={reason}");
    let arguments = ["get", "events.v1.events.k8s.io", &field, "-o", "json"];
    let said = namespace.kubectl(&arguments).succeeds();
    let list: Value = serde_json::from_str(&said).expect("JSON");
    let items = list["items"].as_array().expect("a list");
    assert_eq!(items.len(), 1, "one Event a question");
    items[0]["series"]["count"].as_u64()
}

fn is_counted(kind: &str, count: Option<u32>) {
    let line = format!("vixens_backup_questions{{kind=\"{kind}\"}}");
    let expected = count.map(|count| format!("{line} {count}"));
    eventually(&format!("{line} is {count:?}"), || {
        let metrics = crate::connection::get(webhook().process().port(), "/metrics").ok()?;
        let found = metrics.lines().find(|found| found.starts_with(&line));
        (found == expected.as_deref()).then_some(())
    });
}

#[test]
fn a_held_deletion_is_told_with_both_ways_to_accept_it_and_its_end_too() {
    with_app("questions-hold", |namespace| {
        let hold = json!([{"id": "hold-1a2b3c4d", "text": "40 of 51 files vanished, and are held"}]);
        let sidecar = Sidecar::start(&asking(&hold));
        let pod = pod(namespace, "app=app");
        status(namespace, &pod, &sidecar.status());
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let expected = format!(
            "hold-1a2b3c4d: 40 of 51 files vanished, and are held; to accept it, once: kubectl -n questions-hold annotate \
             --overwrite deployment/app vixens.io/backup-accept=hold-1a2b3c4d (or the same in Git); or: kubectl -n \
             questions-hold exec {name} -c backup-sidecar -- vixens-backup backup --accept hold-1a2b3c4d"
        );
        assert_eq!(told(namespace, "BackupHeld"), expected);
        is_counted("hold", Some(1));
        assert_eq!(count(namespace, "BackupHeld"), None, "once, for all rounds");
        sidecar.say(&asking(&json!([])));
        let note = told(namespace, "BackupQuestionEnded");
        assert!(note.starts_with("hold-1a2b3c4d does not stand any more"), "{note}");
        is_counted("hold", None);
        // It is back: the Event goes on counting.
        sidecar.say(&asking(&hold));
        eventually("it is told again", || {
            (count(namespace, "BackupHeld") == Some(2)).then_some(())
        });
    });
}

#[test]
fn what_a_start_asks_and_why_another_failed_are_told_from_their_last_words() {
    with_app("questions-start", |namespace| {
        let pod = pod(namespace, "app=app");
        let fails = |restarts: u32, message: &str| {
            let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
            let mut init = container("init-config", restarts, &waiting);
            init["lastState"] = json!({"terminated": {"exitCode": 3, "message": message}});
            status(namespace, &pod, &json!({"initContainerStatuses": [init]}));
        };
        let asks = "vixens-backup asks missing-00c0ffee: nobody has config/a.jpg; to accept it, once: \
                    vixens.io/backup-accept: missing-00c0ffee";
        fails(1, asks);
        let note = told(namespace, "BackupQuestion");
        assert_eq!(
            note,
            "missing-00c0ffee: nobody has config/a.jpg; to accept it, once: kubectl -n questions-start annotate --overwrite \
             deployment/app vixens.io/backup-accept=missing-00c0ffee (or the same in Git)"
        );
        is_counted("missing", Some(1));
        fails(2, asks);
        assert_eq!(
            notes(namespace, "BackupStartFailed"),
            [""; 0],
            "it asks, and says so once"
        );
        fails(
            3,
            "restoring\nvixens-backup: the restore failed: no space left on device",
        );
        let note = told(namespace, "BackupStartFailed");
        let name = pod["metadata"]["name"].as_str().expect("a name");
        assert_eq!(
            note,
            format!(
                "pod {name} can't start, and is tried again: vixens-backup: the restore failed: no space left on device (kubectl \
                 -n questions-start logs {name} -c init-config)"
            )
        );
        assert_eq!(notes(namespace, "BackupQuestionEnded"), [""; 0], "nobody has decided");
        let through = json!({"terminated": {"exitCode": 0, "finishedAt": "2026-11-22T13:05:00Z"}});
        let sidecar = Sidecar::start(&asking(&json!([])));
        let mut now = sidecar.status();
        now["initContainerStatuses"][0] = container("init-config", 4, &through);
        status(namespace, &pod, &now);
        let note = told(namespace, "BackupQuestionEnded");
        assert!(note.starts_with("missing-00c0ffee"), "{note}");
    });
}

#[test]
fn what_a_start_has_brought_back_is_told_from_its_last_words() {
    with_app("questions-restored", |namespace| {
        let pod = pod(namespace, "app=app");
        let words = "vixens-backup restored, please look: volume config: restored from s1; s2 could not be restored: its index is \
                     damaged";
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let through = json!({"terminated": {"exitCode": 0, "message": words, "finishedAt": now}});
        let through = container("init-config", 0, &through);
        status(namespace, &pod, &json!({"initContainerStatuses": [through]}));
        let note = told(namespace, "BackupRestored");
        let name = pod["metadata"]["name"].as_str().expect("a name");
        assert_eq!(
            note,
            format!(
                "pod {name}: volume config: restored from s1; s2 could not be restored: its index is damaged (kubectl -n \
                 questions-restored logs {name} -c init-config)"
            )
        );
    });
}
