//! Workloads that the webhook has not seen: found by the controller once the webhook is back, and touched.

use crate::companions::{labelled, leading, made, told};
use crate::control_plane::{control_plane, eventually};
use crate::namespace::in_namespace;
use crate::webhook::Webhook;
use crate::workload::{App, FIRST, stored_deployment};
use serde_json::json;

const NAME: &str = "catch-up";

#[test]
fn a_workload_that_was_annotated_while_the_webhook_was_away_is_found_and_touched_once() {
    let webhook = Webhook::start_with(NAME, &leading(NAME));
    let plain = App {
        annotated: false,
        ..FIRST
    };
    in_namespace(&webhook.labels(), "catch-up", |namespace| {
        let removed = |name: &str| {
            let mut manifest = labelled(&webhook, FIRST.deployment());
            manifest["metadata"]["name"] = json!(name);
            manifest
        };
        namespace.accepts(&removed("left"));
        made(namespace, "service/left-backup");

        webhook.unregister();
        namespace.accepts(&labelled(&webhook, plain.deployment()));
        namespace.accepts(&labelled(&webhook, FIRST.deployment()));
        let mut mistyped = removed("mistyped");
        mistyped["metadata"]["annotations"]["vixens.io/backup-settle"] = json!("never");
        namespace.accepts(&mistyped);
        namespace
            .kubectl(&["annotate", "deployment/left", "vixens.io/backup-"])
            .succeeds();
        assert_eq!(stored_deployment(namespace).init_containers(), [""; 0]);

        webhook.register();
        made(namespace, "cronjob/app-backup");
        let stored = stored_deployment(namespace);
        assert_eq!(stored.init_containers(), ["init-config", "backup-sidecar"]);
        // Its creation, its annotation, and one touch: a rollout is what a touch costs.
        assert_eq!(stored.generation(), 3);
        eventually("what was un-annotated is given back", || {
            let object = namespace.get("deployment/left");
            object["spec"]["template"]["spec"]["initContainers"]
                .is_null()
                .then_some(())
        });
        let events = eventually("the refusal is told", || {
            let fields = "--field-selector=reason=BackupNotInjected";
            let output = "-o=jsonpath={.items[*].message}";
            let said = namespace.kubectl(&["get", "events", fields, output]).succeeds();
            (!said.is_empty()).then_some(said)
        });
        assert!(events.contains("vixens.io/backup-settle"), "{events}");
        assert_eq!(told(namespace, "BackupCompanionsMade").matches("app-backup").count(), 2);
        assert_eq!(stored_deployment(namespace).generation(), 3);
    });
    control_plane().kubectl(&["delete", "mutatingwebhookconfiguration", NAME]);
}
