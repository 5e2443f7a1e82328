//! etcd, kube-apiserver and kube-controller-manager, started once for all cases, and gone with this process.

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A running control plane.
pub(crate) struct ControlPlane {
    /// The administrator's.
    pub(crate) kubeconfig: PathBuf,
    path: String,
    scratch: tempfile::TempDir,
    _guard: Guarded,
}

/// What a command of kubectl's came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) succeeded: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            succeeded: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// What it printed, where it succeeded.
    #[track_caller]
    pub(crate) fn succeeds(self) -> String {
        assert!(self.succeeded, "kubectl failed: {self:#?}");
        self.stdout
    }

    /// What it complained about, where it failed.
    #[track_caller]
    pub(crate) fn fails(self) -> String {
        assert!(!self.succeeded, "kubectl did not fail: {self:#?}");
        self.stderr
    }
}

/// The one control plane.
pub(crate) fn control_plane() -> &'static ControlPlane {
    control_plane_with(|_| Vec::new())
}

/// The same; where it does not run yet, its API server is given the flags that `flags` makes, with files in a folder.
pub(crate) fn control_plane_with(flags: impl FnOnce(&Path) -> Vec<String>) -> &'static ControlPlane {
    static CONTROL_PLANE: OnceLock<ControlPlane> = OnceLock::new();
    CONTROL_PLANE.get_or_init(|| ControlPlane::start(flags))
}

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl ControlPlane {
    fn start(flags: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let scratch = tempfile::tempdir().expect("a folder");
        let flags = flags(scratch.path());
        let state = scratch.path().join("state");
        let script = root().join("tests/bed/control-plane");
        // Ends what is started when this process is gone, however it goes.
        let guard = Guarded::start(
            Command::new("bash")
                .args(["-c", r#"read -r _; exec "$0" down --state "$1" >&2"#])
                .arg(&script)
                .arg(&state),
        );
        let run = |arguments: &[&str], flags: &[String]| {
            let output = Command::new("bash")
                .args(["-c", r#""$@""#, "control-plane"])
                .arg(&script)
                .args(arguments)
                .arg("--state")
                .arg(&state)
                .arg("--")
                .args(flags)
                .env_remove("USE_EXISTING_CLUSTER")
                .output()
                .expect("bash");
            Said::from(output)
        };
        let up = run(&["up"], &flags);
        assert!(up.succeeded, "no control plane: {}", up.stderr);
        let exports = run(&["env"], &[]).succeeds();
        let output = Command::new("bash")
            .args([
                "-c",
                r#"eval "$1"; printf '%s\n%s\n' "$KUBECONFIG" "$PATH""#,
                "env",
                &exports,
            ])
            .output()
            .expect("bash");
        let lines = Said::from(output).succeeds();
        let (kubeconfig, path) = lines.trim_end().split_once('\n').expect("two lines");
        Self {
            kubeconfig: kubeconfig.into(),
            path: path.to_owned(),
            scratch,
            _guard: guard,
        }
    }

    /// kubectl, as the administrator.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Said {
        self.kubectl_with(arguments, &Value::Null, &[])
    }

    /// kubectl with a manifest on its standard input, and environment variables.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], manifest: &Value, variables: &[(&str, &str)]) -> Said {
        let mut child = Command::new("kubectl")
            .env("PATH", &self.path)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.scratch.path().join("cache"))
            .envs(variables.iter().copied())
            .args(arguments)
            .current_dir(root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl");
        let mut stdin = child.stdin.take().expect("a pipe");
        if !manifest.is_null() {
            stdin.write_all(manifest.to_string().as_bytes()).expect("kubectl reads");
        }
        drop(stdin);
        child.wait_with_output().expect("kubectl ends").into()
    }

    /// One object.
    pub(crate) fn get(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = [&["get", "-o", "json"], arguments].concat();
        serde_json::from_str(&self.kubectl(&arguments).succeeds()).expect("JSON")
    }

    /// Applies one object.
    pub(crate) fn apply(&self, manifest: &Value) {
        self.kubectl_with(&["apply", "-f", "-"], manifest, &[]).succeeds();
    }

    /// A folder for files of the test's own.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }
}

/// A process that ends when this one does: its standard input is a pipe that breaks.
pub(crate) struct Guarded {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Guarded {
    /// Starts it. It must end once its standard input does.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().expect("the process starts");
        Self {
            stdin: child.stdin.take(),
            child,
        }
    }

    /// The process.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Ends it, without waiting for it.
    pub(crate) fn tell_to_end(&mut self) {
        drop(self.stdin.take());
    }

    /// Ends it, and waits until it is gone. Says whether it ended well.
    pub(crate) fn end(&mut self) -> bool {
        self.tell_to_end();
        self.child.wait().expect("it ends").success()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for what no event tells of.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(
            began.elapsed() < Duration::from_secs(180),
            "still not so after 180 s: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
