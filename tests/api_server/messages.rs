//! What people read: the dry run, its warnings, and denials, in kubectl's own output.

use crate::control_plane::control_plane;
use crate::namespace::in_namespace;
use crate::webhook::Webhook;
use crate::workload::FIRST;
use serde_json::{Value, json};
use std::sync::OnceLock;

fn webhook() -> &'static Webhook {
    static WEBHOOK: OnceLock<Webhook> = OnceLock::new();
    WEBHOOK.get_or_init(|| Webhook::start("messages"))
}

fn annotated(annotations: &Value) -> Value {
    let mut manifest = FIRST.deployment();
    manifest["metadata"]["annotations"] = annotations.clone();
    manifest
}

#[test]
fn a_dry_run_shows_the_injected_workload_and_creates_nothing() {
    in_namespace(&webhook().labels(), "dry-run", |namespace| {
        let arguments = ["apply", "--dry-run=server", "-o", "json", "-f", "-"];
        let said = namespace.kubectl_with(&arguments, &FIRST.deployment(), &[]);
        let shown: Value = serde_json::from_str(&said.succeeds()).expect("JSON");
        let stored = {
            let missing = namespace.kubectl(&["get", "deployment/app"]).fails();
            assert!(missing.contains("NotFound"), "{missing}");
            namespace.accepts(&FIRST.deployment());
            namespace.get("deployment/app")
        };
        assert_eq!(shown["spec"], stored["spec"], "the dry run shows what is stored then");

        let mut manifest = FIRST.deployment();
        manifest["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:2");
        // 1: there is a difference.
        let said = namespace.kubectl_with(&["diff", "-f", "-"], &manifest, &[]);
        let changes: Vec<&str> = said
            .stdout
            .lines()
            .filter(|line| line.starts_with("-  ") || line.starts_with("+  "))
            .collect();
        assert_eq!(
            changes,
            [
                "-  generation: 1",
                "+  generation: 2",
                "-      - image: app:1",
                "+      - image: app:2"
            ]
        );
    });
}

#[test]
fn denials_read_well() {
    let mut ambiguous = annotated(&json!({"vixens.io/backup": "tier2"}));
    ambiguous["spec"]["template"]["spec"]["volumes"] = json!([
        {"name": "config", "persistentVolumeClaim": {"claimName": "app-config"}},
        {"name": "media", "persistentVolumeClaim": {"claimName": "app-media"}},
    ]);
    ambiguous["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "config", "mountPath": "/config"}, {"name": "media", "mountPath": "/media"},
    ]);
    let mut on_the_template = annotated(&json!({}));
    on_the_template["spec"]["template"]["metadata"]["annotations"] = json!({"vixens.io/backup": "tier2"});
    let cases = [
        (
            "a_key_mistyped",
            annotated(&json!({"vixens.io/backup": "tier2", "vixens.io/backup-setle": "2s"})),
        ),
        (
            "a_key_mistyped_alone",
            annotated(&json!({"vixens.io/backups": "tier2"})),
        ),
        (
            "several_problems",
            annotated(
                &json!({"vixens.io/backup": "tier9", "vixens.io/backup-mode": "sidecat", "vixens.io/backup-settle": "1h"}),
            ),
        ),
        ("two_volumes", ambiguous),
        ("on_the_pod_template", on_the_template),
    ];
    in_namespace(&webhook().labels(), "denials", |namespace| {
        for (name, manifest) in cases {
            insta::assert_snapshot!(name, namespace.rejects(&manifest));
        }
    });
}

#[test]
fn what_is_refused_is_not_stored_however_it_is_applied() {
    let manifest = annotated(&json!({"vixens.io/backup": "tier9"}));
    in_namespace(&webhook().labels(), "refused", |namespace| {
        for arguments in [
            &["apply", "-f", "-"][..],
            &["apply", "--server-side", "-f", "-"],
            &["create", "-f", "-"],
            &["apply", "--dry-run=server", "-f", "-"],
        ] {
            let said = namespace.kubectl_with(arguments, &manifest, &[]).fails();
            assert!(said.contains(r#"did you mean "tier1"?"#), "{arguments:?}: {said}");
            assert!(
                namespace
                    .kubectl(&["get", "deployment/app"])
                    .fails()
                    .contains("NotFound")
            );
        }
    });
}

#[test]
fn workloads_that_did_not_opt_in_are_not_even_asked_about() {
    let plain = |metadata: Value, template: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {
            "selector": {"matchLabels": {"app": "app"}}, "template": {"metadata": template,
            "spec": {"containers": [{"name": "app", "image": "app:1"}]}}}})
    };
    let labels = json!({"app": "app"});
    let cases = [
        ("bare", plain(json!({}), json!({"labels": labels}))),
        (
            "null",
            plain(
                json!({"annotations": null}),
                json!({"labels": labels, "annotations": null}),
            ),
        ),
        (
            "empty",
            plain(json!({"annotations": {}}), json!({"labels": labels, "annotations": {}})),
        ),
        (
            "others",
            plain(
                json!({"annotations": {"vixens.io/other": "1", "example.org/backup": ""}}),
                json!({"labels": labels, "annotations": {"prometheus.io/scrape": "true"}}),
            ),
        ),
        (
            "profile",
            plain(
                json!({}),
                json!({"labels": {"app": "app", "vixens.io/backup-profile": "critical"}}),
            ),
        ),
    ];
    in_namespace(&webhook().labels(), "plain", |namespace| {
        for (name, mut manifest) in cases {
            manifest["metadata"]["name"] = json!(name);
            for server_side in ["--server-side=false", "--server-side=true"] {
                let arguments = ["apply", "--dry-run=server", server_side, "-f", "-"];
                namespace.kubectl_with(&arguments, &manifest, &[]).succeeds();
            }
            namespace.accepts(&manifest);
            namespace
                .kubectl(&["scale", "deployment", name, "--replicas=0"])
                .succeeds();
            namespace.kubectl(&["delete", "deployment", name]).succeeds();
        }
        let asked = webhook().process().log();
        assert!(!asked.contains(r#"namespace="plain""#), "{asked}");
    });
}

#[test]
fn the_examples_are_accepted_without_a_warning() {
    in_namespace(&webhook().labels(), "examples", |namespace| {
        for file in ["app.yaml", "app-emptydir.yaml", "rclone-secret.yaml"] {
            let file = format!("deploy/examples/{file}");
            let said = namespace.kubectl(&["apply", "-f", &file]);
            assert!(said.succeeded && said.stderr.is_empty(), "{file}: {said:?}");
        }
        for app in ["app", "app-emptydir"] {
            let object = namespace.get(&format!("deployment/{app}"));
            assert_eq!(
                object["spec"]["template"]["spec"]["initContainers"][0]["name"], "init-config",
                "{app}"
            );
        }
    });
}

#[test]
fn our_own_namespace_and_kube_system_are_left_alone() {
    let expected = json!(["kube-system", "vixens-backup"]);
    let configuration = control_plane().get(&["mutatingwebhookconfiguration", webhook().name()]);
    let selector = &configuration["webhooks"][0]["namespaceSelector"];
    assert_eq!(selector["matchExpressions"][0]["values"], expected);
    assert_eq!(selector["matchExpressions"][0]["operator"], "NotIn");
}
