//! `deploy/argocd/application.yaml` and annotated apps with Argo CD itself, on a control plane of its own: what the
//! webhook adds and writes is no drift, in every way in which Argo CD compares and applies.

#![expect(
    clippy::expect_used,
    reason = "what a test can't do without is expected, in its own functions, too"
)]
#![expect(clippy::panic, reason = "that is how a test fails")]
#![expect(dead_code, reason = "the other tests on an API server use the rest")]

mod application;
mod argo_cd;
#[path = "../api_server/connection.rs"]
mod connection;
#[path = "../api_server/control_plane.rs"]
mod control_plane;
#[path = "../manifests/deployed.rs"]
mod deployed;
#[path = "../manifests/egress.rs"]
mod egress;
#[path = "../api_server/namespace.rs"]
mod namespace;
mod repository;
#[path = "../manifests/tools.rs"]
mod tools;
#[path = "../api_server/webhook.rs"]
mod webhook;
#[path = "../api_server/workload.rs"]
mod workload;

use application::Application;
use argo_cd::ArgoCd;
use connection::Service;
use control_plane::{Said, control_plane, control_plane_with, eventually, root};
use namespace::{Namespace, in_plain_namespace};
use repository::Repository;
use serde_json::{Value, json};
use std::process::Command;
use std::sync::LazyLock;
use webhook::{Process, await_called};
use workload::{App, FIRST, Stored, stored_deployment};

/// The cluster as Argo CD has made it of `deploy/argocd/application.yaml`.
struct Installation {
    application: Application,
    revision: String,
    _process: Process,
    _argo_cd: ArgoCd,
}

static INSTALLATION: LazyLock<Installation> = LazyLock::new(Installation::new);

impl Installation {
    fn new() -> Self {
        let service = Service::new();
        control_plane_with(|folder| egress::egress(&service, folder));
        let argo_cd = ArgoCd::start();

        // The checkout as it lies here, under the tag that the Application names.
        let text = std::fs::read_to_string(root().join("deploy/argocd/application.yaml")).expect("the Application");
        let mut manifest: Value = serde_saphyr::from_str(&text).expect("YAML");
        let repository = Repository::new("vixens-backup");
        let copied = Command::new("cp")
            .args(["-r", "deploy"])
            .arg(repository.folder())
            .current_dir(root())
            .output()
            .expect("cp");
        Said::from(copied).succeeds();
        let revision = repository.commit();
        let source = &mut manifest["spec"]["source"];
        repository.git(&["tag", source["targetRevision"].as_str().expect("a tag")]);
        source["repoURL"] = json!(repository.url());
        let application = Application::apply(&manifest);
        application.await_synced(&revision);

        let process = deployed::serve(&[]);
        service.add(process.port());
        await_called("vixens-backup");
        Self {
            application,
            revision,
            _process: process,
            _argo_cd: argo_cd,
        }
    }
}

#[test]
fn what_the_webhook_writes_into_its_own_installation_is_no_drift() {
    let installation = &*INSTALLATION;
    installation.application.await_synced(&installation.revision);
    installation.application.stands_still(|| {
        let configuration = control_plane().get(&["mutatingwebhookconfiguration/vixens-backup"]);
        let bundle = &configuration["webhooks"][0]["clientConfig"]["caBundle"];
        assert!(bundle.is_string(), "caBundle is gone");
        configuration["metadata"]["resourceVersion"].clone()
    });
    assert_eq!(installation.application.syncs(), 1);
}

/// How Argo CD applies and compares.
struct Mode {
    name: &'static str,
    annotations: Value,
    options: Value,
}

#[test]
fn an_app_under_client_side_apply_is_injected_and_stays_synced() {
    is_injected_and_stays_synced(&Mode {
        name: "client-side",
        annotations: json!({}),
        options: json!([]),
    });
}

#[test]
fn an_app_under_server_side_apply_is_injected_and_stays_synced() {
    is_injected_and_stays_synced(&Mode {
        name: "server-side",
        annotations: json!({}),
        options: json!(["ServerSideApply=true"]),
    });
}

#[test]
fn an_app_that_is_compared_by_dry_runs_is_injected_and_stays_synced() {
    is_injected_and_stays_synced(&Mode {
        name: "dry-runs",
        annotations: json!({"argocd.argoproj.io/compare-options": "ServerSideDiff=true"}),
        options: json!(["ServerSideApply=true"]),
    });
}

#[track_caller]
fn is_injected_and_stays_synced(mode: &Mode) {
    LazyLock::force(&INSTALLATION);
    in_plain_namespace(mode.name, |namespace| {
        let repository = Repository::new(mode.name);
        let commit = |app: App| {
            repository.write("app.json", &app.deployment().to_string());
            repository.write("outspoken.json", &outspoken().to_string());
            repository.commit()
        };
        let manifest = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": mode.name, "namespace": "argocd", "annotations": mode.annotations},
            "spec": {
                "project": "default",
                "source": {"repoURL": repository.url(), "targetRevision": "main", "path": "."},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": namespace.name()},
                "syncPolicy": {"automated": {"prune": true, "selfHeal": true}, "syncOptions": mode.options},
            },
        });
        let revision = commit(FIRST);
        let application = Application::apply(&manifest);
        application.await_synced(&revision);
        is_injected(namespace, "app:1");
        application.stands_still(|| seen(namespace));

        let revision = commit(App { release: 2, ..FIRST });
        application.refresh();
        application.await_synced(&revision);
        is_injected(namespace, "app:2");
        assert_eq!(stored_deployment(namespace).generation(), 2);
        application.stands_still(|| seen(namespace));
        assert_eq!(application.syncs(), 2, "once for each change in Git");

        // It does heal what is drift.
        namespace
            .kubectl(&["set", "image", "deployment/app", "app=app:9"])
            .succeeds();
        eventually("the image is that of Git again", || {
            (stored_deployment(namespace).app_image() == "app:2").then_some(())
        });
        is_injected(namespace, "app:2");

        let revision = commit(App {
            annotated: false,
            release: 2,
            ..FIRST
        });
        application.refresh();
        application.await_synced(&revision);
        let stored = stored_deployment(namespace);
        assert_eq!(stored.init_containers(), [""; 0]);
        assert_eq!(stored.volumes(), ["config"]);
        assert_eq!(stored.annotation("vixens.io/backup-injected"), None);
        eventually("the companions of the one app are gone", || {
            (companions(namespace).len() == 3).then_some(())
        });
        application.stands_still(|| seen(namespace));
    });
}

/// An app whose manifest says itself what the webhook would say.
fn outspoken() -> Value {
    let mut manifest = FIRST.deployment();
    manifest["metadata"]["name"] = json!("outspoken");
    let spec = &mut manifest["spec"];
    spec["replicas"] = json!(1);
    spec["strategy"] = json!({"type": "RollingUpdate"});
    spec["progressDeadlineSeconds"] = json!(600);
    spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(30);
    spec["template"]["spec"]["initContainers"] = json!([{"name": "migrate", "image": "migrate:1"}]);
    manifest
}

#[track_caller]
fn is_injected(namespace: &Namespace, image: &str) {
    let stored = stored_deployment(namespace);
    assert_eq!(stored.init_containers(), ["init-config", "backup-sidecar"]);
    assert_eq!(stored.app_image(), image);
    let outspoken = Stored(namespace.get("deployment/outspoken"));
    assert_eq!(
        outspoken.init_containers(),
        ["init-config", "backup-sidecar", "migrate"]
    );
    assert_eq!(outspoken.spec()["strategy"]["type"], "RollingUpdate");
    assert_eq!(outspoken.generation(), 1);
    eventually("both have their companions", || {
        (companions(namespace).len() == 6).then_some(())
    });
}

/// What stands beside the apps, by UID: neither pruned, although Git knows nothing of it, nor made anew.
fn companions(namespace: &Namespace) -> Vec<Value> {
    let kinds = ["cronjobs,jobs,services", "--selector=vixens.io/backup-companion"];
    let list = control_plane().get(&[&["--namespace", namespace.name()], &kinds[..]].concat());
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["metadata"]["uid"].clone()).collect()
}

/// What must not move: a rollout would be somebody's app restarted.
fn seen(namespace: &Namespace) -> Vec<Value> {
    let list = control_plane().get(&["--namespace", namespace.name(), "deployments"]);
    let items = list["items"].as_array().expect("a list");
    items
        .iter()
        .map(|item| json!([item["metadata"]["generation"], item["spec"]]))
        .chain(companions(namespace))
        .collect()
}
