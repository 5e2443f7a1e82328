//! What `deploy/` makes of a cluster: applied again it changes nothing, and the rights that it gives are enough.
//! On a control plane of its own: the deployed configuration is about every namespace.

#![expect(
    clippy::expect_used,
    reason = "what a test can't do without is expected, in its own functions, too"
)]
#![expect(clippy::panic, reason = "that is how a test fails")]
#![expect(dead_code, reason = "the other tests on an API server use the rest")]

#[path = "../api_server/control_plane.rs"]
mod control_plane;
mod deployed;
#[path = "../api_server/webhook.rs"]
mod webhook;

use control_plane::{Said, control_plane, root};
use serde_json::{Value, json};
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use webhook::Process;

const ACCOUNT: &str = "system:serviceaccount:vixens-backup:vixens-backup";
const CA_BUNDLE: &str = "jsonpath={.webhooks[0].clientConfig.caBundle}";

/// The deployed installation, with one process that runs as its ServiceAccount. One case at a time: there is one only.
struct Installation {
    process: Process,
    _turn: MutexGuard<'static, ()>,
}

impl Installation {
    fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let plane = control_plane();
        plane.kubectl(&["apply", "-k", "deploy/base"]).succeeds();
        let process = deployed::serve(&[]);
        Self { process, _turn: turn }
    }
}

/// What was deployed, without what controllers and the API server write.
fn deployed() -> Vec<Value> {
    let mut list = control_plane().get(&["-k", "deploy/base"]);
    let items = list["items"].as_array_mut().expect("a list");
    for item in items.iter_mut() {
        let object = item.as_object_mut().expect("an object");
        object.remove("status");
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        for field in ["managedFields", "resourceVersion"] {
            metadata.remove(field);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            annotations.remove("deployment.kubernetes.io/revision");
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    items.clone()
}

fn diff(arguments: &[&str]) -> Said {
    control_plane().kubectl(&[&["diff", "-k", "deploy/base"], arguments].concat())
}

#[test]
fn applying_the_manifests_again_changes_nothing() {
    let _installation = Installation::new();
    let before = deployed();
    let bundles: Vec<&Value> = before
        .iter()
        .filter_map(|object| object.pointer("/webhooks/0/clientConfig/caBundle"))
        .collect();
    assert_eq!(bundles.len(), 1, "the webhook has written caBundle");
    let said = diff(&[]);
    assert!(said.succeeded && said.stdout.is_empty(), "{said:?}");
    control_plane().kubectl(&["apply", "-k", "deploy/base"]).succeeds();
    assert_eq!(deployed(), before);
}

#[test]
fn applying_the_manifests_server_side_conflicts_with_nobody() {
    let _installation = Installation::new();
    // As Argo CD would: a field manager of its own that begins to own what it applies.
    let apply = [
        "apply",
        "-k",
        "deploy/base",
        "--server-side",
        "--field-manager=argocd-controller",
        "--force-conflicts",
    ];
    control_plane().kubectl(&apply).succeeds();
    let before = deployed();
    control_plane().kubectl(&apply[..5]).succeeds();
    assert_eq!(deployed(), before);
    let arguments = ["get", "mutatingwebhookconfiguration/vixens-backup", "-o", CA_BUNDLE];
    assert!(
        !control_plane().kubectl(&arguments).succeeds().is_empty(),
        "caBundle is gone"
    );
    let said = diff(&["--server-side", "--field-manager=argocd-controller"]);
    assert!(said.succeeded && said.stdout.is_empty(), "{said:?}");
}

#[test]
fn a_bundle_that_somebody_drops_comes_back() {
    let installation = Installation::new();
    let rendered = control_plane().kubectl(&["kustomize", "deploy/base"]).succeeds();
    let configuration = rendered
        .split("\n---\n")
        .find(|document| document.contains("kind: MutatingWebhookConfiguration"))
        .expect("the configuration");
    let configuration: Value = serde_saphyr::from_str(configuration).expect("YAML");
    control_plane()
        .kubectl_with(&["replace", "-f", "-"], &configuration, &[])
        .succeeds();
    let wait = format!("--for={CA_BUNDLE}");
    let arguments = [
        "wait",
        "mutatingwebhookconfiguration/vixens-backup",
        &wait,
        "--timeout=30s",
    ];
    control_plane().kubectl(&arguments).succeeds();
    assert!(installation.process.log().contains("caBundle written"));
}

#[test]
fn the_account_may_do_what_it_needs_and_no_more() {
    let _installation = Installation::new();
    let may = |arguments: &[&str]| {
        let said = control_plane().kubectl(&[&["auth", "can-i", "--as", ACCOUNT], arguments].concat());
        said.stdout.trim() == "yes"
    };
    let ours = ["--namespace", "vixens-backup"];
    for verb in ["get", "update"] {
        assert!(
            may(&[&[verb, "secrets/vixens-backup-certificates"], &ours[..]].concat()),
            "{verb}"
        );
        assert!(!may(&[&[verb, "secrets/another"], &ours[..]].concat()), "{verb}");
        assert!(
            !may(&[verb, "secrets/vixens-backup-certificates", "--namespace", "default"]),
            "{verb}"
        );
    }
    for refused in [
        &["list", "secrets", "--namespace", "vixens-backup"][..],
        &[
            "delete",
            "secrets/vixens-backup-certificates",
            "--namespace",
            "vixens-backup",
        ],
        &["patch", "mutatingwebhookconfigurations/another"],
        &["delete", "mutatingwebhookconfigurations/vixens-backup"],
        &["create", "mutatingwebhookconfigurations"],
        &["get", "secrets", "--all-namespaces"],
        &["create", "pods", "--all-namespaces"],
        &["get", "namespaces/default"],
    ] {
        assert!(!may(refused), "{refused:?}");
    }
}

#[test]
fn the_image_is_changed_in_one_place() {
    let overlay = control_plane().scratch().join("overlay");
    fs::create_dir_all(&overlay).expect("a folder");
    let base = root().join("deploy/base");
    // kustomize takes no absolute path, but a link to a folder.
    let _ = fs::remove_file(overlay.join("base"));
    std::os::unix::fs::symlink(base, overlay.join("base")).expect("a link");
    let kustomization = json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": ["base"],
        "images": [{"name": "vixens-backup", "newName": "registry.test/vixens-backup", "newTag": "2.0.0"}]});
    fs::write(overlay.join("kustomization.yaml"), kustomization.to_string()).expect("a kustomization");
    let rendered = control_plane()
        .kubectl(&["kustomize", overlay.to_str().expect("UTF-8")])
        .succeeds();
    assert_eq!(
        rendered.matches("registry.test/vixens-backup:2.0.0").count(),
        2,
        "{rendered}"
    );
    assert_eq!(rendered.matches("vixens-backup:0.1.0").count(), 0, "{rendered}");
}

#[test]
fn with_cert_manager_the_webhook_may_write_nothing() {
    let rendered = control_plane()
        .kubectl(&["kustomize", "deploy/overlays/cert-manager"])
        .succeeds();
    let documents: Vec<Value> = rendered
        .split("\n---\n")
        .map(|document| serde_saphyr::from_str(document).expect("YAML"))
        .collect();
    let of = |kind: &str| {
        documents
            .iter()
            .filter(|document| document["kind"] == kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("Role").len() + of("RoleBinding").len(), 0);
    assert_eq!(
        of("ClusterRole")[0]["rules"][0]["verbs"],
        json!(["get", "list", "watch"])
    );
    let inject = "cert-manager.io/inject-ca-from";
    assert_eq!(
        of("MutatingWebhookConfiguration")[0]["metadata"]["annotations"][inject],
        "vixens-backup/vixens-backup"
    );
    let arguments = &of("Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(
        arguments,
        &json!([
            "--config=/etc/vixens-backup/installation.yaml",
            "--tls-cert=/tls/tls.crt",
            "--tls-key=/tls/tls.key"
        ])
    );
    let deployment = of("Deployment")[0];
    control_plane().kubectl(&["create", "namespace", "vixens-backup"]);
    control_plane()
        .kubectl_with(
            &[
                "apply",
                "--server-side",
                "--force-conflicts",
                "--dry-run=server",
                "-f",
                "-",
            ],
            deployment,
            &[],
        )
        .succeeds();
}
