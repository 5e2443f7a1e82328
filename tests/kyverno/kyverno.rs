//! Kyverno's admission controller beside the control plane, with the policies of `policies.yaml`.

use crate::control_plane::{control_plane, eventually};
use crate::namespace::in_plain_namespace;
use crate::tools::Tool;
use crate::webhook::{Process, guarded};
use serde_json::json;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

/// The MutatingWebhookConfiguration that it makes: the API server calls webhooks in the order of these names.
pub(crate) const CONFIGURATION: &str = "kyverno-resource-mutating-webhook-cfg";

/// What it asks its environment for about itself.
const ITS_OWN: [&str; 5] = [
    "KYVERNO_NAMESPACE",
    "KYVERNO_DEPLOYMENT",
    "KYVERNO_POD_NAME",
    "KYVERNO_SERVICEACCOUNT_NAME",
    "KYVERNO_SVC",
];

/// Its process.
pub(crate) struct Kyverno {
    _process: Process,
}

impl Kyverno {
    /// Starts it as its chart does, but for what needs other pods; returns when its policies are in force.
    pub(crate) fn start() -> Self {
        let plane = control_plane();
        let tool = Tool::new("kyverno");
        define(&tool.programs().with_file_name("files"));
        plane.kubectl(&["create", "namespace", "kyverno"]).succeeds();
        for name in ["kyverno", "kyverno-metrics"] {
            plane.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": "kyverno"}}));
        }
        let home = plane.scratch().join("kyverno");
        std::fs::create_dir(&home).expect("a folder");
        let port = free_port();
        let mut command = guarded(tool.programs().join("kyverno"));
        command
            .arg(format!("--kubeconfig={}", plane.kubeconfig.display()))
            .arg(format!("--serverIP=127.0.0.1:{port}"))
            .arg(format!("--webhookServerPort={port}"))
            .args([
                "--webhookServerHost=127.0.0.1",
                "--caSecretName=kyverno-authority",
                "--tlsSecretName=kyverno-tls",
                "--disableLogColor",
                "--metricsHost=127.0.0.1",
                "--metricsPort=0",
                "--controllerRuntimeMetricsAddress=0",
                "--admissionReports=false",
            ])
            .envs([("INIT_CONFIG", "kyverno"), ("METRICS_CONFIG", "kyverno-metrics")])
            .envs(ITS_OWN.map(|variable| (variable, "kyverno")))
            .env("HOME", &home)
            .current_dir(&home);
        let process = Process::of(command);
        process.says("name=webhook-controller");
        plane
            .kubectl(&["apply", "-f", "tests/kyverno/policies.yaml"])
            .succeeds();
        await_in_force();
        Self { _process: process }
    }
}

/// A port that nobody listens on: it takes none by itself.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Teaches the cluster its kinds.
fn define(files: &Path) {
    let files = files.to_str().expect("UTF-8");
    let apply = ["apply", "--server-side", "--recursive", "-f", files];
    control_plane().kubectl(&apply).succeeds();
    let established = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "--recursive",
        "-f",
        files,
    ];
    eventually("the kinds are known", || {
        control_plane().kubectl(&established).succeeded.then_some(())
    });
}

/// Waits until each policy does its work: no event tells when the API server has seen a configuration.
fn await_in_force() {
    in_plain_namespace("kyverno-in-force", |namespace| {
        let try_out = |annotations: &serde_json::Value, image: &str| {
            let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "app", "annotations": annotations},
                "spec": {"selector": {"matchLabels": {"app": "app"}}, "template": {
                    "metadata": {"labels": {"app": "app"}}, "spec": {"containers": [{"name": "app", "image": image}]}}}});
            let arguments = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
            namespace.kubectl_with(&arguments, &deployment, &[])
        };
        eventually("the policies are in force", || {
            let mutated = try_out(&json!({}), "app:1");
            let latest = try_out(&json!({}), "app:latest");
            let unprotected = try_out(&json!({"vixens.io/backup": "tier2"}), "app:1");
            let is_mutated = mutated.stdout.contains("\"ephemeral-storage\"") && mutated.stdout.contains("\"ALL\"");
            let is_refused = latest.stderr.contains("and not latest");
            let is_missed = unprotected.stderr.contains("an init container that restores");
            (is_mutated && is_refused && is_missed).then_some(())
        });
    });
}
