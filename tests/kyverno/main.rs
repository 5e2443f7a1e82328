//! Kyverno beside the webhook on a control plane of its own, with policies that change every container, ours too, and
//! policies that refuse: whichever of the two is called first, the same workload is stored, and nothing moves it again.

#![expect(
    clippy::expect_used,
    reason = "what a test can't do without is expected, in its own functions, too"
)]
#![expect(clippy::panic, reason = "that is how a test fails")]
#![expect(dead_code, reason = "the other tests on an API server use the rest")]

#[path = "../api_server/control_plane.rs"]
mod control_plane;
mod kyverno;
#[path = "../api_server/namespace.rs"]
mod namespace;
#[path = "../api_server/webhook.rs"]
mod webhook;
#[path = "../api_server/workload.rs"]
mod workload;

use control_plane::control_plane;
use kyverno::{CONFIGURATION, Kyverno, LABEL};
use namespace::{Namespace, in_namespace};
use serde_json::{Value, json};
use std::sync::LazyLock;
use webhook::Webhook;
use workload::{App, FIRST, Stored, Way, stored_deployment};

/// The webhook under two names: one that is called before Kyverno, and the deployed one, which is called after it.
struct Beside {
    first: Webhook,
    second: Webhook,
    _kyverno: Kyverno,
}

static BESIDE: LazyLock<Beside> = LazyLock::new(|| {
    let beside = Beside {
        first: Webhook::start("before-vixens-backup"),
        second: Webhook::start("vixens-backup"),
        _kyverno: Kyverno::start(&control_plane().kubeconfig, control_plane().scratch(), kubectl),
    };
    assert!(beside.first.name() < CONFIGURATION && CONFIGURATION < beside.second.name());
    beside
});

fn kubectl(arguments: &[&str], manifest: &str) -> Result<String, String> {
    let manifest = serde_json::from_str(manifest).unwrap_or_default();
    let said = control_plane().kubectl_with(arguments, &manifest, &[]);
    if said.succeeded {
        Ok(said.stdout)
    } else {
        Err(said.stderr)
    }
}

/// The labels of a namespace with the policies, about which `webhook` is asked, too.
fn labels(webhook: Option<&Webhook>) -> Value {
    let mut labels = webhook.map_or_else(|| json!({}), Webhook::labels);
    labels[LABEL.0] = json!(LABEL.1);
    labels
}

/// What comes of a case in each order: ours first, and Kyverno first.
fn each_order<T>(case: &str, run: impl Fn(&Namespace) -> T) -> [T; 2] {
    [("ours-first", &BESIDE.first), ("kyverno-first", &BESIDE.second)]
        .map(|(order, webhook)| in_namespace(&labels(Some(webhook)), &format!("{case}-{order}"), &run))
}

/// The containers of a workload, ours and the app's.
fn containers(stored: &Stored) -> Vec<&Value> {
    let pod = &stored.spec()["template"]["spec"];
    ["initContainers", "containers"]
        .iter()
        .flat_map(|list| pod[list].as_array().into_iter().flatten())
        .collect()
}

#[track_caller]
fn is_as_the_policies_want_it(stored: &Stored) {
    for container in containers(stored) {
        let (name, resources) = (&container["name"], &container["resources"]);
        assert_eq!(
            container["securityContext"]["capabilities"]["drop"],
            json!(["ALL"]),
            "{name}"
        );
        assert_eq!(resources["requests"]["ephemeral-storage"], "64Mi", "{name}");
        assert_eq!(resources["limits"]["ephemeral-storage"], "1Gi", "{name}");
    }
}

/// What the marker says, but for the schedule, which follows from the namespace's name.
fn marker(stored: &Stored) -> Value {
    let text = stored.annotation("vixens.io/backup-injected").expect("a marker");
    let mut marker: Value = serde_json::from_str(text).expect("JSON");
    marker["plan"]["schedule"] = Value::Null;
    marker
}

#[track_caller]
fn same([one, other]: &[Stored; 2]) {
    assert_eq!(one.spec(), other.spec());
    assert_eq!(marker(one), marker(other));
}

/// A root app: our containers keep what capabilities they need.
fn root(mut manifest: Value) -> Value {
    manifest["spec"]["template"]["spec"]
        .as_object_mut()
        .expect("a mapping")
        .remove("securityContext");
    manifest
}

#[test]
fn both_orders_store_the_same_workload() {
    for (name, object, manifest) in [
        ("deployment", "deployment/app", FIRST.deployment()),
        ("root", "deployment/app", root(FIRST.deployment())),
        ("set", "statefulset/app", FIRST.stateful_set()),
    ] {
        let stored = each_order(name, |namespace| {
            namespace.accepts(&manifest);
            Stored(namespace.get(object))
        });
        same(&stored);
        assert_eq!(stored[0].init_containers(), ["init-config", "backup-sidecar"], "{name}");
        is_as_the_policies_want_it(&stored[0]);
    }
}

#[test]
fn applying_again_changes_nothing_in_either_order() {
    for way in Way::ALL {
        each_order(&format!("again-{}", way.as_str()), |namespace| {
            way.create(namespace, FIRST);
            let before = stored_deployment(namespace);
            for _ in 0..2 {
                way.change(namespace, FIRST, FIRST);
            }
            let after = stored_deployment(namespace);
            assert_eq!(after.spec(), before.spec(), "{way:?}");
            assert_eq!(after.generation(), before.generation(), "{way:?}");
        });
    }
}

#[test]
fn a_change_of_the_app_is_one_rollout_and_the_same_in_both_orders() {
    for way in Way::ALL {
        let changed = App { release: 2, ..FIRST };
        let stored = each_order(&format!("change-{}", way.as_str()), |namespace| {
            way.create(namespace, FIRST);
            way.change(namespace, FIRST, changed);
            let stored = stored_deployment(namespace);
            assert_eq!((stored.app_image(), stored.generation()), ("app:2", 2), "{way:?}");
            way.change(namespace, changed, changed);
            assert_eq!(stored_deployment(namespace).spec(), stored.spec(), "{way:?}");
            stored
        });
        same(&stored);
        is_as_the_policies_want_it(&stored[0]);
    }
}

#[test]
fn removing_the_annotation_leaves_what_kyverno_makes_of_the_owners_workload() {
    let removed = App {
        annotated: false,
        ..FIRST
    };
    LazyLock::force(&BESIDE);
    let vanilla = in_namespace(&labels(None), "removed-vanilla", |namespace| {
        Way::ServerSideApply.create(namespace, removed);
        stored_deployment(namespace).spec().clone()
    });
    for way in Way::ALL {
        each_order(&format!("removed-{}", way.as_str()), |namespace| {
            way.create(namespace, FIRST);
            way.change(namespace, FIRST, removed);
            assert_eq!(stored_deployment(namespace).spec(), &vanilla, "{way:?}");
        });
    }
}

#[test]
fn what_nobody_injects_and_what_is_not_pinned_is_refused() {
    LazyLock::force(&BESIDE);
    in_namespace(&labels(None), "refused-plain", |namespace| {
        let refused = namespace.rejects(&FIRST.deployment());
        assert!(refused.contains("needs an init container that restores"), "{refused}");
    });
    each_order("refused", |namespace| {
        let mut manifest = FIRST.deployment();
        manifest["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:latest");
        let refused = namespace.rejects(&manifest);
        assert!(refused.contains("an image needs a tag, and not latest"), "{refused}");
    });
}
