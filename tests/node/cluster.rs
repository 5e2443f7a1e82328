//! The cluster of `KUBECONFIG`: kubectl as a person would type it, and reads of the API for what is awaited.

use kube::Client;
use serde_json::Value;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// What takes longer on a machine that is busy with all the other cases has gone wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
});

static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    let _ = rustls::crypto::ring::default_provider().install_default();
    RUNTIME
        .block_on(Client::try_default())
        .expect("a cluster: these tests are started by `make e2e`")
});

/// An object or a list by its path on the API server; nothing where there is none.
pub(crate) fn get(path: &str) -> Option<Value> {
    let request = http::Request::get(path).body(Vec::new()).expect("a request");
    match RUNTIME.block_on(CLIENT.request::<Value>(request)) {
        Ok(value) => Some(value),
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => panic!("GET {path}: {error}"),
    }
}

/// The output of a kubectl that must succeed.
#[track_caller]
pub(crate) fn kubectl(arguments: &[&str], manifest: &str) -> String {
    try_kubectl(arguments, manifest)
        .unwrap_or_else(|complaint| panic!("kubectl {} failed: {complaint}", arguments.join(" ")))
}

/// The complaint of a kubectl that must fail.
#[track_caller]
pub(crate) fn kubectl_fails(arguments: &[&str], manifest: &str) -> String {
    match try_kubectl(arguments, manifest) {
        Err(complaint) => complaint,
        Ok(output) => panic!("kubectl {} did not fail: {output}", arguments.join(" ")),
    }
}

/// The output of a kubectl, or its complaint.
pub(crate) fn try_kubectl(arguments: &[&str], manifest: &str) -> Result<String, String> {
    let output = run(Command::new("kubectl").args(arguments), manifest);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A command with something on its standard input.
pub(crate) fn run(command: &mut Command, input: &str) -> Output {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is in PATH");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that fails early does not read on; its own words say why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// Asks twice a second until `ask` answers; what it said last, where it never does.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, ask: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, ask)
}

/// The same with a patience of its own.
#[track_caller]
pub(crate) fn within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(value) => return value,
            Err(last) if begun.elapsed() > patience => {
                panic!("not within {} s: {what}; last: {last}", patience.as_secs())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}
