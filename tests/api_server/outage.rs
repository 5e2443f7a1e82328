//! The webhook is away: who opted in is refused, everybody else passes, and nothing is kept from going.

use crate::control_plane::control_plane;
use crate::namespace::in_namespace;
use crate::webhook::Webhook;
use crate::workload::{App, FIRST};
use serde_json::{Value, json};

fn named(name: &str, mut manifest: Value) -> Value {
    manifest["metadata"]["name"] = json!(name);
    manifest
}

#[test]
fn an_outage_stops_those_who_opted_in_and_nobody_else() {
    let plain = App {
        annotated: false,
        ..FIRST
    };
    let mut webhook = Webhook::start("outage");
    in_namespace(&webhook.labels(), "outage", |namespace| {
        for name in ["kept", "deleted", "foreground"] {
            namespace.accepts(&named(name, FIRST.deployment()));
        }
        namespace.accepts(&named("plain", plain.deployment()));
        webhook.stop();

        let said = namespace.rejects(&named("new", FIRST.deployment()));
        assert!(said.contains("failed calling webhook"), "{said}");
        let changed = App { release: 2, ..FIRST };
        let said = namespace.rejects(&named("kept", changed.deployment()));
        assert!(said.contains("failed calling webhook"), "{said}");

        namespace.accepts(&named("plain", App { release: 2, ..plain }.deployment()));
        namespace.accepts(&named("another", plain.deployment()));
        // Not asked about, so that an app can be stopped whatever happens.
        namespace
            .kubectl(&["scale", "deployment/kept", "--replicas=0"])
            .succeeds();

        namespace
            .kubectl(&["delete", "deployment/deleted", "--timeout=180s"])
            .succeeds();
        let foreground = [
            "delete",
            "deployment/foreground",
            "--cascade=foreground",
            "--timeout=180s",
        ];
        namespace.kubectl(&foreground).succeeds();
        control_plane()
            .kubectl(&["delete", "namespace", namespace.name(), "--timeout=180s"])
            .succeeds();
    });
}

#[test]
fn what_was_refused_in_an_outage_passes_after_it() {
    let mut webhook = Webhook::start("recovery");
    in_namespace(&webhook.labels(), "recovery", |namespace| {
        webhook.stop();
        namespace.rejects(&FIRST.deployment());
        webhook.resume(&[]);
        namespace.accepts(&FIRST.deployment());
        let object = namespace.get("deployment/app");
        assert_eq!(
            object["spec"]["template"]["spec"]["initContainers"][0]["name"],
            "init-config"
        );
    });
}
