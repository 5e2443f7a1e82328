//! What disturbs the whole node. Run after all others, by itself.

use crate::app::{APP, App, Kind, Tier, Volume};
use crate::bucket;
use crate::cluster::{self, eventually, kubectl, try_kubectl};
use crate::kernel;
use crate::space::{Space, is_ready};
use crate::writer::{COUNT, NEWEST, Writer};
use serde_json::json;

const WEBHOOK: [&str; 2] = ["--namespace=vixens-backup", "deployment/vixens-backup"];

#[test]
fn a_node_that_reboots_while_the_webhook_is_down_has_its_apps_back() {
    if !kernel::is_here() {
        return;
    }
    let files = App {
        volume: Volume::EmptyDir,
        ..APP
    };
    let databases = App {
        kind: Kind::StatefulSet,
        tier: Tier::Databases,
        ..APP
    };
    let spaces = [
        (Space::new("reboot-files"), files),
        (Space::new("reboot-databases"), databases),
    ];
    for (space, app) in &spaces {
        space.apply(&app.manifests());
    }
    for (space, _) in &spaces {
        space.ready("");
    }
    let mut writers: Vec<Writer> = spaces
        .iter()
        .map(|(space, app)| Writer::start(space, app.workload(), "0.1"))
        .collect();
    eventually("they write", || match writers.iter().map(Writer::last).min() {
        Some(least) if least > 100 => Ok(()),
        least => Err(format!("{least:?}")),
    });
    let rows = databases.rows(&spaces[1].0);
    let webhook = WebhookDown::new();

    kernel::reboot();
    for ((space, app), writer) in spaces.iter().zip(&mut writers) {
        eventually("its pod runs again, without the webhook", || {
            let pods = space.pods();
            let status = &pods[0]["status"];
            if is_ready(&pods[0]) && status["containerStatuses"][0]["restartCount"].as_u64() >= Some(1) {
                Ok(())
            } else {
                Err(status.to_string())
            }
        });
        // The last ones may not have been heard of: the kubelet passes them on.
        let written: u64 = space.exec(app.workload(), NEWEST).parse().expect("a number");
        assert!(written >= writer.ended());
        assert_eq!(space.exec(app.workload(), COUNT), written.to_string());
        let log = space.logs(&[app.workload(), "-c", "init-config"]);
        assert!(
            !log.contains("restored "),
            "what is there is newer than any backup: {log}"
        );
        space.exec(app.workload(), "echo again >/config/after.txt");
        eventually("backups go on", || {
            match bucket::content(&format!("{}/config/after.txt", App::place(space.name()))) {
                content if content == "again\n" => Ok(()),
                other => Err(other),
            }
        });
    }
    assert!(databases.rows(&spaces[1].0) >= rows);

    // What asked for backups waits for the webhook; nobody else does.
    let (space, app) = &spaces[0];
    let vanilla = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name()}});
    kubectl(&["apply", "-f", "-"], &vanilla.to_string());
    space.kubectl(
        &["create", "deployment", "vanilla", "--image=vanilla:1", "--replicas=0"],
        "",
    );
    let changed = app.annotated(&[("vixens.io/backup-interval", "10m")]).to_string();
    let denied = space.kubectl_fails(&["apply", "-f", "-"], &changed);
    assert!(denied.contains("failed calling webhook"), "{denied}");
    drop(webhook);
    space.kubectl(&["apply", "-f", "-"], &changed);
}

/// While it lasts, nobody answers for the webhook.
struct WebhookDown;

impl WebhookDown {
    fn new() -> Self {
        kubectl(&[&["scale", "--replicas=0"], &WEBHOOK[..]].concat(), "");
        eventually("the webhook is down", || {
            let list = cluster::get("/api/v1/namespaces/vixens-backup/pods").unwrap_or_default();
            match list["items"].as_array() {
                Some(pods) if pods.is_empty() => Ok(()),
                _ => Err("its pods are still there".to_owned()),
            }
        });
        Self
    }
}

impl Drop for WebhookDown {
    fn drop(&mut self) {
        for what in [
            &["scale", "--replicas=2"] as &[&str],
            &["rollout", "status", "--timeout=300s"],
        ] {
            // The apply that comes next says whether it is there.
            let _ = try_kubectl(&[what, &WEBHOOK[..]].concat(), "");
        }
    }
}
