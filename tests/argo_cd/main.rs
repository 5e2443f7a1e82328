//! `deploy/argocd/` and annotated apps with Argo CD itself, on a control plane of its own: what the webhook adds and
//! writes is no drift, in every way in which Argo CD compares, applies and tracks.

#![expect(
    clippy::expect_used,
    reason = "what a test can't do without is expected, in its own functions, too"
)]
#![expect(clippy::panic, reason = "that is how a test fails")]
#![expect(dead_code, reason = "the other tests on an API server use the rest")]

mod applications;
mod argo_cd;
mod cells;
#[path = "../api_server/connection.rs"]
mod connection;
#[path = "../api_server/control_plane.rs"]
mod control_plane;
#[path = "../manifests/deployed.rs"]
mod deployed;
#[path = "../manifests/egress.rs"]
mod egress;
mod installation;
#[path = "../api_server/namespace.rs"]
mod namespace;
mod plugin;
mod repository;
#[path = "../manifests/tools.rs"]
mod tools;
#[path = "../api_server/webhook.rs"]
mod webhook;
#[path = "../api_server/workload.rs"]
mod workload;

use applications::{await_quiet, await_synced, operations, refresh, syncs, told, undisturbed};
use cells::{Cells, DEFAULTS, outspoken};
use installation::Installation;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use workload::{App, FIRST};

/// For so long nothing may be applied that was not changed.
const STILL: Duration = Duration::from_secs(300);
/// So often everything is rendered and compared anew meanwhile; compared alone, by Argo CD itself, twice as often.
const ROUND: Duration = Duration::from_secs(60);

#[test]
fn nothing_is_drift_however_argo_cd_compares_applies_and_tracks() {
    let mut installation = Installation::new();
    let (cells, revision) = Cells::make();
    let is_cell = |name: &str| name != installation::NAME;
    await_synced(&revision, is_cell);
    await_state(&cells, 1, true);

    // Each change in Git is applied once, in all of them.
    let revision = cells.commit(App { release: 2, ..FIRST });
    refresh(false);
    await_synced(&revision, is_cell);
    await_state(&cells, 2, true);
    for name in cells.names() {
        assert_eq!(syncs(name), 2, "{name}");
    }
    assert_eq!(syncs(installation::NAME), 1);

    let bundle = installation::ca_bundle();
    stands_still(&cells, STILL);
    let renewed = installation::ca_bundle();
    assert_ne!(
        renewed, bundle,
        "the authority was not renewed meanwhile: that proves less"
    );

    // An upgrade of ours is applied once, and restarts nobody.
    let before = settled(&cells);
    installation.upgrade();
    stands_still(&cells, ROUND / 2);
    assert_eq!(settled(&cells), before);
    assert_eq!(syncs(installation::NAME), 2);

    // What the owner has set stays the owner's, and they are told.
    let dry_run = ["apply", "--dry-run=server", "-f", "-"];
    let said = cells.namespaces()[0]
        .kubectl_with(&dry_run, &outspoken(&DEFAULTS), &[])
        .stderr;
    for name in ["strategy", "terminationGracePeriodSeconds"] {
        assert!(said.contains(&format!("Warning: {name}")), "{said}");
    }

    // It does heal what is drift.
    for namespace in cells.namespaces() {
        for workload in ["deployment/app", "statefulset/db"] {
            namespace.kubectl(&["set", "image", workload, "app=app:9"]).succeeds();
        }
    }
    await_state(&cells, 2, true);

    let revision = cells.commit(App {
        annotated: false,
        release: 2,
        ..FIRST
    });
    refresh(false);
    await_synced(&revision, |name| is_cell(name) && !Cells::overlook_what_is_gone(name));
    for name in cells.names().filter(|name| Cells::overlook_what_is_gone(name)) {
        Cells::sync(name);
    }
    await_synced(&revision, is_cell);
    await_state(&cells, 2, false);
    comes_to_rest();
    stands_still(&cells, ROUND / 2);
}

/// Waits until every cell is as it should be.
#[track_caller]
fn await_state(cells: &Cells, release: u8, is_annotated: bool) {
    let began = Instant::now();
    loop {
        let faults: Vec<_> = cells
            .seen()
            .iter()
            .map(|(name, cell)| (name.clone(), cell.faults(release, is_annotated)))
            .filter(|(_, faults)| !faults.is_empty())
            .collect();
        if faults.is_empty() {
            return;
        }
        let statuses = applications::statuses();
        let explained: Vec<_> = faults.iter().map(|(name, _)| told(&statuses[name])).collect();
        assert!(
            began.elapsed() < Duration::from_secs(300),
            "still not so: {faults:#?}\n{explained:#?}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn settled(cells: &Cells) -> BTreeMap<String, Vec<serde_json::Value>> {
    let seen = cells.seen().into_iter();
    seen.map(|(name, cell)| (name, cell.settled())).collect()
}

/// Waits until a while goes by in which nothing is applied: what was overlooked may be healed once more, whenever Argo CD's own
/// comparison comes by. What is drift for ever never rests.
#[track_caller]
fn comes_to_rest() {
    let began = Instant::now();
    loop {
        await_quiet();
        let before = operations();
        refresh(true);
        std::thread::sleep(ROUND / 2);
        if operations() == before {
            return;
        }
        assert!(began.elapsed() < STILL, "something is applied again and again");
    }
}

/// For so long nothing differs, nothing is applied, and nothing moves. There is no event to wait for: that none comes is
/// what is to be seen.
#[track_caller]
fn stands_still(cells: &Cells, duration: Duration) {
    // What the last change has set in motion has come to its end.
    await_quiet();
    let (operations, before) = (undisturbed(), settled(cells));
    let end = Instant::now() + duration;
    while Instant::now() < end {
        refresh(true);
        std::thread::sleep(ROUND.min(duration));
        assert_eq!(undisturbed(), operations, "it was applied again");
        assert_eq!(settled(cells), before);
    }
}
