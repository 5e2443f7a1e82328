//! `vixens-backup serve` as a process on loopback, and a MutatingWebhookConfiguration that is the deployed one but for
//! where it calls and for which namespaces: those with the label of this webhook.

use crate::control_plane::{Guarded, control_plane, eventually, root};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The label of the namespaces that a webhook is asked about.
const LABEL: &str = "webhook.test";

/// A webhook of its own, by name.
pub(crate) struct Webhook {
    name: String,
    port: u16,
    process: Option<Process>,
}

/// One process of `vixens-backup serve`.
pub(crate) struct Process {
    guarded: Guarded,
    log: Arc<Log>,
}

/// What a process said, and an event for each line.
#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Process {
    /// Starts `vixens-backup serve` with `arguments`.
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = guarded(env!("CARGO_BIN_EXE_vixens-backup"));
        command
            .arg("serve")
            .args(arguments)
            .env("KUBECONFIG", &control_plane().kubeconfig)
            // Who wants companions says for which workloads: all processes share the one cluster.
            .env("VIXENS_BACKUP_WATCH_LABEL_SELECTOR", "webhook.test=nobody")
            .envs(variables.iter().copied());
        Self::of(command)
    }

    /// Starts what [`guarded`] has made.
    pub(crate) fn of(mut command: Command) -> Self {
        command.stderr(Stdio::piped());
        let mut guarded = Guarded::start(&mut command);
        let stderr = guarded.child().stderr.take().expect("a pipe");
        let log = Arc::new(Log::default());
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = kept.text.lock().expect("a log");
                text.push_str(&line);
                text.push('\n');
                kept.grown.notify_all();
            }
        });
        Self { guarded, log }
    }

    /// Waits until a line of the log holds `words`.
    #[track_caller]
    pub(crate) fn says(&self, words: &str) -> String {
        let text = self.log.text.lock().expect("a log");
        let patience = Duration::from_secs(180);
        let (text, _) = self
            .log
            .grown
            .wait_timeout_while(text, patience, |text| !text.contains(words))
            .expect("a log");
        let line = text.lines().find(|line| line.contains(words)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("it did not say {words:?}:\n{text}"))
    }

    /// What it said.
    pub(crate) fn log(&self) -> String {
        self.log.text.lock().expect("a log").clone()
    }

    /// The port that it listens on.
    #[track_caller]
    pub(crate) fn port(&self) -> u16 {
        let line = self.says("listening address=");
        line.rsplit(':')
            .next()
            .and_then(|port| port.trim().parse().ok())
            .expect("a port")
    }

    /// Kills it, so that it can say goodbye to nobody.
    pub(crate) fn kill(&mut self) {
        // The shell that guards it has one child.
        let guard = self.guarded.child().id();
        let children = std::fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).expect("a process");
        let killed = Command::new("kill")
            .arg("-KILL")
            .args(children.split_whitespace())
            .status();
        assert!(killed.expect("kill").success(), "{children:?}");
    }

    /// Tells it to end, as Kubernetes does.
    pub(crate) fn tell_to_end(&mut self) {
        self.guarded.tell_to_end();
    }

    /// Tells it to end, and waits. Says whether it ended well.
    pub(crate) fn end(mut self) -> bool {
        self.guarded.end()
    }
}

/// A command that ends, as Kubernetes ends it, when its standard input does.
pub(crate) fn guarded(program: impl AsRef<OsStr>) -> Command {
    // The shell passes its exit code on.
    let script = r#""$@" </dev/null & pid=$!; read -r _; kill -TERM $pid; wait $pid"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "guard"]).arg(program);
    command
}

impl Webhook {
    /// Starts one, and waits until the API server calls it.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, &[])
    }

    /// The same with more arguments for `serve`.
    pub(crate) fn start_with(name: &str, arguments: &[&str]) -> Self {
        let mut webhook = Self {
            name: name.to_owned(),
            port: 0,
            process: None,
        };
        webhook.resume(arguments);
        let process = webhook.process.as_ref().expect("a process");
        webhook.port = process.port();
        control_plane().apply(&configuration(
            name,
            &format!("https://127.0.0.1:{}/mutate", webhook.port),
        ));
        process.says("ready part=\"certificates\"");
        await_called(name);
        webhook
    }

    /// Starts its process again, on the same port.
    pub(crate) fn resume(&mut self, arguments: &[&str]) {
        let listen = format!("127.0.0.1:{}", self.port);
        let secret = format!("{}-certificates", self.name);
        let mut all = vec![
            "--listen",
            &listen,
            "--namespace=default",
            "--webhook-configuration",
            &self.name,
            "--certificates-secret",
            &secret,
            "--shutdown-delay=0s",
        ];
        all.extend(arguments);
        let process = Process::start(&all, &[]);
        if self.port != 0 {
            process.says("ready part=\"certificates\"");
        }
        self.process = Some(process);
    }

    /// Ends its process; the configuration stays.
    pub(crate) fn stop(&mut self) {
        let process = self.process.take().expect("a process");
        assert!(process.end(), "it does not end well");
    }

    /// Takes the configuration away, and waits until the process knows.
    pub(crate) fn unregister(&self) {
        control_plane()
            .kubectl(&["delete", "mutatingwebhookconfiguration", &self.name])
            .succeeds();
        self.process()
            .says("not ready: there is no MutatingWebhookConfiguration");
    }

    /// Brings the configuration back.
    pub(crate) fn register(&self) {
        let url = format!("https://127.0.0.1:{}/mutate", self.port);
        control_plane().apply(&configuration(&self.name, &url));
    }

    /// Its name, and its configuration's.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().expect("a process")
    }

    /// The labels of a namespace that it is asked about.
    pub(crate) fn labels(&self) -> Value {
        labels(&self.name)
    }
}

/// The labels of a namespace about which the webhook `name` is asked.
pub(crate) fn labels(name: &str) -> Value {
    json!({LABEL: name})
}

/// Waits until the API server calls the webhook `name`: no event tells when it has seen a configuration.
pub(crate) fn await_called(name: &str) {
    let namespace = format!("{name}-first");
    control_plane().apply(&json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": namespace, "labels": labels(name)}}));
    let manifest = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "first", "namespace": namespace, "annotations": {"vixens.io/backup-first": ""}},
        "spec": {"selector": {"matchLabels": {"app": "first"}}, "template": {
            "metadata": {"labels": {"app": "first"}}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}}}});
    eventually("the API server calls the webhook", || {
        let said = control_plane().kubectl_with(&["create", "--dry-run=server", "-f", "-"], &manifest, &[]);
        said.stderr
            .contains("vixens.io/backup-first: no such annotation")
            .then_some(())
    });
}

/// The deployed configuration as `name`, calling `url`, for the namespaces with its label.
pub(crate) fn configuration(name: &str, url: &str) -> Value {
    let file = root().join("deploy/base/mutatingwebhookconfiguration.yaml");
    let text = std::fs::read_to_string(file).expect("the configuration");
    let mut object: Value = serde_saphyr::from_str(&text).expect("YAML");
    object["metadata"]["name"] = json!(name);
    let webhook = &mut object["webhooks"][0];
    webhook["clientConfig"] = json!({"url": url});
    webhook["namespaceSelector"]["matchLabels"] = json!({LABEL: name});
    object
}
