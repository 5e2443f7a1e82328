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
#[path = "../api_server/sidecar.rs"]
mod sidecar;
#[path = "../api_server/webhook.rs"]
mod webhook;

use control_plane::{Said, control_plane, eventually, root};
use serde_json::{Value, json};
use sidecar::Sidecar;
use std::fs;
use std::process::Command;
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
        let process = deployed::serve_with(&[], &["--status-interval=200ms"]);
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
        "--timeout=180s",
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
    for (verb, resource) in [
        ("patch", "deployments.apps"),
        ("list", "statefulsets.apps"),
        ("create", "cronjobs.batch"),
        ("delete", "jobs.batch"),
        ("patch", "services"),
        ("list", "pods"),
        ("watch", "events"),
        ("create", "events.events.k8s.io"),
        ("patch", "events.events.k8s.io"),
        ("get", "configmaps"),
        ("create", "configmaps"),
        ("patch", "configmaps"),
    ] {
        assert!(may(&[verb, resource, "--all-namespaces"]), "{verb} {resource}");
    }
    let status = "--subresource=status";
    assert!(may(&["patch", "jobs.batch", status, "--all-namespaces"]));
    assert!(!may(&["patch", "pods", status, "--all-namespaces"]));
    assert!(may(&[&["update", "leases/vixens-backup"], &ours[..]].concat()));
    for refused in [
        &["update", "leases/another", "--namespace", "vixens-backup"][..],
        &["create", "leases", "--all-namespaces"],
        &["list", "configmaps", "--all-namespaces"],
        &["watch", "configmaps", "--all-namespaces"],
        &["update", "configmaps", "--all-namespaces"],
        &["delete", "configmaps", "--all-namespaces"],
        &["list", "events.events.k8s.io", "--all-namespaces"],
        &["get", "pods/log", "--all-namespaces"],
        &["create", "pods/exec", "--all-namespaces"],
        &["delete", "pods", "--all-namespaces"],
        &["delete", "deployments.apps", "--all-namespaces"],
        &["update", "cronjobs.batch", "--all-namespaces"],
    ] {
        assert!(!may(refused), "{refused:?}");
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

/// What the deployed rights are enough for: the whole life of the companions.
#[test]
fn the_account_makes_keeps_and_removes_companions() {
    let installation = Installation::new();
    installation.process.says("leading");
    let plane = control_plane();
    // Rendered here: in this case the API server has no way to the webhook.
    let installed = Command::new(env!("CARGO_BIN_EXE_vixens-backup"))
        .args(["inject", "-f", "deploy/examples/app.yaml"])
        .current_dir(root())
        .output()
        .expect("the program");
    let manifests = String::from_utf8(installed.stdout).expect("UTF-8");
    let deployment = manifests
        .split("---\n")
        .find(|document| document.contains("kind: Deployment"))
        .expect("the app");
    let mut deployment: Value = serde_saphyr::from_str(deployment).expect("YAML");
    deployment["spec"]["replicas"] = json!(0);
    plane.kubectl(&["delete", "mutatingwebhookconfiguration/vixens-backup"]);
    plane.apply(&deployment);
    let name = deployment["metadata"]["name"].as_str().expect("a name");
    let names = [
        format!("cronjob/{name}-backup"),
        format!("job/{name}-restore"),
        format!("service/{name}-backup"),
    ];
    for name in &names {
        eventually(name, || plane.kubectl(&["get", name]).succeeded.then_some(()));
    }
    let events = || {
        plane.kubectl(&[
            "get",
            "events",
            "--field-selector=reason=BackupCompanionsMade",
            "-o",
            "name",
        ])
    };
    eventually("an Event", || (!events().succeeds().is_empty()).then_some(()));
    plane.kubectl(&["delete", &names[2]]).succeeds();
    eventually("the Service is made again", || {
        plane.kubectl(&["get", &names[2]]).succeeded.then_some(())
    });
    // What a sidecar says is recorded, and a question of its that comes again counts on.
    let asking = |asks: &Value| {
        json!({"destinations": {"minio:vixens-backups/app":
            {"phase": "ready", "snapshot": "s1", "questions": asks}}})
    };
    let hold = json!([{"id": "hold-1a2b3c4d", "text": "files vanished"}]);
    let sidecar = Sidecar::start(&asking(&hold));
    plane
        .kubectl(&["scale", &format!("deployment/{name}"), "--replicas=1"])
        .succeeds();
    let pod = eventually("a pod", || {
        let found = ["get", "pods", "-l", "vixens.io/backup-app", "-o", "name"];
        let found = plane.kubectl(&found).succeeds();
        found.lines().next().map(str::to_owned)
    });
    let status = json!({"status": sidecar.status()}).to_string();
    plane
        .kubectl(&["patch", &pod, "--subresource=status", "--type=merge", "-p", &status])
        .succeeds();
    let record = format!("configmap/{name}-backup-record");
    eventually(&record, || plane.kubectl(&["get", &record]).succeeded.then_some(()));
    installation.process.says("BackupHeld");
    sidecar.say(&asking(&json!([])));
    installation.process.says("BackupQuestionEnded");
    sidecar.say(&asking(&hold));
    eventually("the Event counts", || {
        let fields = "--field-selector=reason=BackupHeld";
        let path = "jsonpath={.items[*].series.count}";
        let said = plane.kubectl(&["get", "events.v1.events.k8s.io", fields, "-o", path]);
        (said.succeeds() == "2").then_some(())
    });
    plane
        .kubectl(&[
            "annotate",
            &format!("deployment/{name}"),
            "vixens.io/backup-",
            "vixens.io/backup-injected-",
        ])
        .succeeds();
    for name in &names {
        eventually(name, || (!plane.kubectl(&["get", name]).succeeded).then_some(()));
    }
    assert!(
        !installation.process.log().contains("orbidden"),
        "{}",
        installation.process.log()
    );
    plane.kubectl(&["delete", &format!("deployment/{name}")]).succeeds();
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
    let role = of("Role");
    assert_eq!((role.len(), of("RoleBinding").len()), (1, 1));
    for rule in role[0]["rules"].as_array().expect("rules") {
        assert_eq!(rule["resources"], json!(["leases"]), "no Secret is kept");
    }
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
