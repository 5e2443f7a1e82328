//! All Applications of both Argo CDs at once: what is said of them, and whether they are left alone.

use crate::argo_cd::Tracking;
use crate::control_plane::control_plane;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What Argo CD says of every Application, by name.
pub(crate) fn statuses() -> BTreeMap<String, Value> {
    let mut list = control_plane().get(&["applications.argoproj.io", "--all-namespaces"]);
    let items = list["items"].as_array_mut().expect("a list");
    items
        .iter_mut()
        .map(|item| {
            (
                item["metadata"]["name"].as_str().expect("a name").to_owned(),
                item["status"].take(),
            )
        })
        .collect()
}

/// Has all of them compared anew, with what Git has now; `hard`: rendered anew, too.
pub(crate) fn refresh(hard: bool) {
    let how = if hard { "hard" } else { "normal" };
    let annotation = format!("argocd.argoproj.io/refresh={how}");
    for tracking in Tracking::ALL {
        let annotate = [
            "annotate",
            "applications.argoproj.io",
            "--all",
            "--overwrite",
            &annotation,
        ];
        control_plane()
            .kubectl(&[&["--namespace", tracking.namespace()], &annotate[..]].concat())
            .succeeds();
    }
}

/// Waits until every Application that `is_meant` has applied `revision`, and nothing differs from it.
#[track_caller]
pub(crate) fn await_synced(revision: &str, is_meant: impl Fn(&str) -> bool) {
    await_all(&format!("synced to {revision}"), |name, status| {
        !is_meant(name) || is_synced(status, revision)
    });
}

/// Waits until of every Application nothing differs, and nobody complains.
#[track_caller]
pub(crate) fn await_quiet() {
    await_all("synced without a complaint", |_, status| {
        status["sync"]["status"] == "Synced" && status["conditions"].is_null()
    });
}

#[track_caller]
fn await_all(what: &str, is_so: impl Fn(&str, &Value) -> bool) {
    let began = Instant::now();
    loop {
        let behind: Vec<_> = statuses()
            .into_iter()
            .filter(|(name, status)| !is_so(name, status))
            .map(|(name, status)| (name, told(&status)))
            .collect();
        if behind.is_empty() {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(400),
            "still not {what}: {behind:#?}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn is_synced(status: &Value, revision: &str) -> bool {
    status["sync"]["status"] == "Synced"
        && status["sync"]["revision"] == revision
        && status["operationState"]["phase"] == "Succeeded"
        && status["operationState"]["syncResult"]["revision"] == revision
}

/// What explains a status, without what is as it should be.
pub(crate) fn told(status: &Value) -> String {
    let mut resources = status["resources"].as_array().cloned().unwrap_or_default();
    resources.retain(|resource| resource["status"] != "Synced");
    format!(
        "{} {}; {}; {} {:?}",
        status["sync"]["status"],
        status["sync"]["revision"],
        status["operationState"]["message"],
        status["conditions"],
        resources.iter().map(ToString::to_string).collect::<Vec<_>>(),
    )
}

/// What must not move while nothing changes in Git: nothing differs, nothing is applied, nobody complains.
#[track_caller]
pub(crate) fn undisturbed() -> BTreeMap<String, Value> {
    let statuses = statuses();
    for (name, status) in &statuses {
        assert_eq!(status["sync"]["status"], "Synced", "{name}: {}", told(status));
        assert!(status["conditions"].is_null(), "{name}: {}", told(status));
    }
    operations_of(statuses)
}

/// What was applied last, of each.
pub(crate) fn operations() -> BTreeMap<String, Value> {
    operations_of(statuses())
}

fn operations_of(statuses: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    statuses
        .into_iter()
        .map(|(name, mut status)| (name, status["operationState"].take()))
        .collect()
}

/// How many times an Application was applied.
pub(crate) fn syncs(name: &str) -> usize {
    statuses()[name]["history"].as_array().map_or(0, Vec::len)
}
