//! Argo CD without its servers for people: its repo-server and its application-controller, on the control plane.

use crate::control_plane::control_plane;
use crate::tools::Tool;
use crate::webhook::{Process, guarded};
use serde_json::json;
use std::net::{Ipv4Addr, TcpListener};

/// Its processes.
pub(crate) struct ArgoCd {
    _parts: [Process; 3],
}

impl ArgoCd {
    /// Starts it as it is installed, but for how often it looks: each 5 s, and it heals itself after 2 s.
    pub(crate) fn start() -> Self {
        let tool = Tool::new("argocd");
        install(&tool);
        let [redis, repo_server, metrics, more_metrics] = ports();
        let redis_address = format!("127.0.0.1:{redis}");
        let cache = start(&tool, "redis", &[&redis_address]);
        let manifests = start(
            &tool,
            "argocd-repo-server",
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
        let controller = start(
            &tool,
            "argocd-application-controller",
            &[
                "--namespace=argocd",
                "--repo-server-plaintext",
                &format!("--repo-server=127.0.0.1:{repo_server}"),
                &format!("--metrics-port={more_metrics}"),
                &format!("--redis={redis_address}"),
                "--app-resync=5",
                "--app-resync-jitter=0",
                "--self-heal-timeout-seconds=2",
            ],
        );
        Self {
            _parts: [cache, manifests, controller],
        }
    }
}

fn install(tool: &Tool) {
    let plane = control_plane();
    tool.define(&["application-crd.yaml", "appproject-crd.yaml"]);
    plane.kubectl(&["create", "namespace", "argocd"]).succeeds();
    let metadata =
        |name: &str| json!({"name": name, "namespace": "argocd", "labels": {"app.kubernetes.io/part-of": "argocd"}});
    for object in [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("argocd-cm")}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("argocd-rbac-cm")}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("argocd-secret"),
            "stringData": {"server.secretkey": "of nobody"}}),
        json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": metadata("default"),
            "spec": {"sourceRepos": ["*"], "destinations": [{"namespace": "*", "server": "*"}],
                "clusterResourceWhitelist": [{"group": "*", "kind": "*"}]}}),
    ] {
        plane.apply(&object);
    }
}

fn start(tool: &Tool, part: &str, arguments: &[&str]) -> Process {
    let plane = control_plane();
    let folder = plane.scratch().join(part);
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
    let listeners = [(); COUNT].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}
