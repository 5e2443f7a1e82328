//! Kyverno's admission controller as a process beside an API server, with the policies of `policies.yaml`. They are in
//! force in the namespaces with [`LABEL`] alone: others may have tests of their own in this cluster.

#[path = "../support/port.rs"]
mod port;

use port::free_port;
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The MutatingWebhookConfiguration that it makes: the API server calls webhooks in the order of these names.
pub(crate) const CONFIGURATION: &str = "kyverno-resource-mutating-webhook-cfg";
/// The label, and its value, of namespaces in which the policies are in force.
pub(crate) const LABEL: (&str, &str) = ("policies", "kyverno");

const PATIENCE: Duration = Duration::from_secs(240);

/// kubectl with a manifest on its standard input: its output, or its complaint.
pub(crate) type Kubectl = fn(&[&str], &str) -> Result<String, String>;

/// Its process.
pub(crate) struct Kyverno {
    process: Child,
    kubectl: Kubectl,
    log: PathBuf,
}

/// What it asks its environment for about itself.
const ITS_OWN: [&str; 6] = [
    "INIT_CONFIG",
    "KYVERNO_NAMESPACE",
    "KYVERNO_DEPLOYMENT",
    "KYVERNO_POD_NAME",
    "KYVERNO_SERVICEACCOUNT_NAME",
    "KYVERNO_SVC",
];

impl Kyverno {
    /// Starts it as its chart does, but for what needs pods of its own; returns when its policies are in force. Its
    /// files are kept in `folder`.
    pub(crate) fn start(kubeconfig: &Path, folder: &Path, kubectl: Kubectl) -> Self {
        let programs = programs();
        define(&programs.with_file_name("files"), kubectl);
        let selector = json!({"namespaceSelector": {"matchLabels": {LABEL.0: LABEL.1}}});
        for object in [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kyverno"}}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kyverno", "namespace": "kyverno"},
                "data": {"webhooks": selector.to_string()}}),
            json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "kyverno-metrics", "namespace": "kyverno"}}),
        ] {
            succeeds(kubectl, &["apply", "-f", "-"], &object.to_string());
        }
        let log = folder.join("kyverno.log");
        let port = free_port();
        // It ends when this process does, however that ends: its standard input is a pipe that breaks.
        let script = r#""$@" </dev/null & pid=$!; read -r _; kill -TERM $pid; wait $pid"#;
        let process = Command::new("sh")
            .args(["-c", script, "guard"])
            .arg(programs.join("kyverno"))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
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
            .env("METRICS_CONFIG", "kyverno-metrics")
            .envs(ITS_OWN.map(|variable| (variable, "kyverno")))
            .env("HOME", folder)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("sh");
        let kyverno = Self { process, kubectl, log };
        kyverno.until("it takes policies", || {
            let configurations = kubectl(&["get", "validatingwebhookconfigurations", "-o", "name"], "")?;
            let is_there = configurations.contains("kyverno-policy-validating-webhook-cfg");
            if is_there { Ok(()) } else { Err(configurations) }
        });
        let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kyverno/policies.yaml");
        kyverno.until("it accepts the policies", || kubectl(&["apply", "-f", policies], ""));
        kyverno.await_in_force();
        kyverno
    }

    /// Waits until each policy does its work: no event tells when the API server has seen a configuration.
    fn await_in_force(&self) {
        let namespace = "kyverno-in-force";
        let manifest = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {LABEL.0: LABEL.1}}});
        succeeds(self.kubectl, &["apply", "-f", "-"], &manifest.to_string());
        let create = |annotations: Value, image: &str| {
            let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "app", "namespace": namespace, "annotations": annotations},
                "spec": {"selector": {"matchLabels": {"app": "app"}}, "template": {"metadata": {"labels": {"app": "app"}},
                    "spec": {"containers": [{"name": "app", "image": image}]}}}});
            let arguments = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
            (self.kubectl)(&arguments, &deployment.to_string())
        };
        self.until("the policies are in force", || {
            let plain = create(json!({}), "app:1")?;
            let latest = create(json!({}), "app:latest").err().unwrap_or_default();
            let is_mutated = plain.contains("\"ephemeral-storage\"") && plain.contains("\"ALL\"");
            if is_mutated && latest.contains("and not latest") {
                Ok(())
            } else {
                Err(format!("{plain}\n{latest}"))
            }
        });
        succeeds(self.kubectl, &["delete", "namespace", namespace, "--wait=false"], "");
    }

    #[track_caller]
    fn until<T>(&self, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
        let begun = Instant::now();
        loop {
            match ask() {
                Ok(value) => return value,
                Err(last) => assert!(
                    begun.elapsed() < PATIENCE,
                    "Kyverno: not within {PATIENCE:?}: {what}; last: {last}\nits log:\n{}",
                    std::fs::read_to_string(&self.log).unwrap_or_default()
                ),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Kyverno {
    fn drop(&mut self) {
        // Its webhooks would be called in vain.
        for kind in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            let arguments = ["delete", kind, "-l", "webhook.kyverno.io/managed-by=kyverno"];
            let _ = (self.kubectl)(&arguments, "");
        }
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The folder of the pinned program, which is built where it is not there yet.
fn programs() -> PathBuf {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/install"))
        .args(["--print-path", "kyverno"])
        .stderr(Stdio::inherit())
        .output()
        .expect("bash");
    assert!(output.status.success(), "Kyverno can't be built, see above");
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().into()
}

/// Teaches the cluster its kinds.
fn define(files: &Path, kubectl: Kubectl) {
    let files = files.to_str().expect("UTF-8");
    succeeds(kubectl, &["apply", "--server-side", "--recursive", "-f", files], "");
    let established = [
        "wait",
        "--for=condition=Established",
        "--timeout=180s",
        "--recursive",
        "-f",
        files,
    ];
    // It does not wait for the first condition.
    let begun = Instant::now();
    while let Err(complaint) = kubectl(&established, "") {
        assert!(begun.elapsed() < PATIENCE, "Kyverno's kinds are not known: {complaint}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[track_caller]
fn succeeds(kubectl: Kubectl, arguments: &[&str], manifest: &str) {
    if let Err(complaint) = kubectl(arguments, manifest) {
        panic!("kubectl {} failed: {complaint}", arguments.join(" "));
    }
}
