//! Argo CD without its servers for people: its repo-server, and an application-controller for each way in which it can
//! track what it has applied, on the control plane.

#[path = "../support/port.rs"]
mod port;

use crate::control_plane::control_plane;
use crate::tools::Tool;
use crate::webhook::{Process, guarded};
use port::free_port;
use serde_json::json;

/// How Argo CD knows its objects again. It is one setting for all of its Applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tracking {
    Annotation,
    Label,
}

impl Tracking {
    pub(crate) const ALL: [Self; 2] = [Self::Annotation, Self::Label];

    /// The setting's value.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Annotation => "annotation",
            Self::Label => "label",
        }
    }

    /// Where the Argo CD lives that tracks so.
    pub(crate) const fn namespace(self) -> &'static str {
        match self {
            Self::Annotation => "argocd",
            Self::Label => "argocd-label",
        }
    }
}

/// Its processes.
pub(crate) struct ArgoCd {
    _parts: Vec<Process>,
}

impl ArgoCd {
    /// Starts it as it is installed, but for how often it looks, and how soon it heals itself.
    pub(crate) fn start() -> Self {
        let tool = Tool::new("argocd");
        tool.define(&["application-crd.yaml", "appproject-crd.yaml"]);
        let [redis, repo_server, metrics] = ports();
        let redis_address = format!("127.0.0.1:{redis}");
        let cache = start(&tool, "redis", "redis", &[&redis_address]);
        let manifests = start(
            &tool,
            "argocd-repo-server",
            "repo-server",
            &[
                "--address=127.0.0.1",
                "--metrics-address=127.0.0.1",
                "--disable-tls",
                &format!("--port={repo_server}"),
                &format!("--metrics-port={metrics}"),
                &format!("--redis={redis_address}"),
            ],
        );
        manifests.says("listening on");
        let mut parts = vec![cache, manifests];
        for tracking in Tracking::ALL {
            install(tracking);
            let [metrics] = ports();
            parts.push(start(
                &tool,
                "argocd-application-controller",
                tracking.namespace(),
                &[
                    &format!("--namespace={}", tracking.namespace()),
                    "--repo-server-plaintext",
                    &format!("--repo-server=127.0.0.1:{repo_server}"),
                    &format!("--metrics-port={metrics}"),
                    &format!("--redis={redis_address}"),
                    "--app-resync=30",
                    "--app-resync-jitter=0",
                    "--self-heal-timeout-seconds=2",
                ],
            ));
        }
        Self { _parts: parts }
    }
}

fn install(tracking: Tracking) {
    let plane = control_plane();
    let namespace = tracking.namespace();
    plane.kubectl(&["create", "namespace", namespace]).succeeds();
    let metadata =
        |name: &str| json!({"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "argocd"}});
    for object in [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("argocd-cm"),
            "data": {"application.resourceTrackingMethod": tracking.as_str()}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("argocd-rbac-cm")}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("argocd-secret"),
            "stringData": {"server.secretkey": "of nobody"}}),
        json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": metadata("default"),
            "spec": {"sourceRepos": ["*"], "destinations": [{"namespace": "*", "server": "*"}],
                "clusterResourceWhitelist": [{"group": "*", "kind": "*"}], "orphanedResources": {"warn": true,
                    // What the installation makes itself, and keeps.
                    "ignore": [{"kind": "Secret", "name": "vixens-backup-certificates"}]}}}),
    ] {
        plane.apply(&object);
    }
}

fn start(tool: &Tool, part: &str, name: &str, arguments: &[&str]) -> Process {
    let plane = control_plane();
    let folder = plane.scratch().join(name);
    std::fs::create_dir(&folder).expect("a folder");
    let kustomize = Tool::new("kustomize").programs();
    let path = std::env::var("PATH").expect("a PATH");
    let mut command = guarded(tool.programs().join("argocd"));
    command
        .args(arguments)
        .env("ARGOCD_BINARY_NAME", part)
        .env("ARGOCD_FAKE_IN_CLUSTER", "true")
        .env("ARGOCD_GPG_ENABLED", "false")
        .env("KUBECONFIG", &plane.kubeconfig)
        .env("PATH", format!("{}:{path}", kustomize.display()))
        .envs([("HOME", &folder), ("TMPDIR", &folder)]);
    Process::of(command)
}

/// Ports that nobody listens on: it takes none by itself.
fn ports<const COUNT: usize>() -> [u16; COUNT] {
    [(); COUNT].map(|()| free_port())
}
