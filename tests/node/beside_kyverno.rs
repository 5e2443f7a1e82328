//! Kyverno beside us, on a real node: whichever of the two is called first, the same workload is stored, its pod works,
//! and nobody moves it, or what stands beside it, again.

use crate::app::{APP, App, User};
use crate::bucket;
use crate::cluster::{self, eventually, kubectl, try_kubectl};
use crate::kernel;
use crate::kyverno::{CONFIGURATION, Kyverno, LABEL};
use crate::space::{Space, secret};
use serde_json::{Value, json};
use std::path::Path;

/// What is deployed: called after Kyverno, whose name comes before ours.
const DEPLOYED: &str = "vixens-backup";
/// The same under a name that comes before Kyverno's, for namespaces with the label of this name alone.
const EARLY: &str = "early-vixens-backup";

#[test]
fn both_orders_of_kyverno_and_us_give_the_same_working_pod() {
    // It runs beside the API server, as a process.
    if !kernel::is_here() {
        return;
    }
    assert!(EARLY < CONFIGURATION && CONFIGURATION < DEPLOYED);
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = std::env::var("KUBECONFIG").expect("these tests are started by `make e2e`");
    let _kyverno = Kyverno::start(Path::new(&kubeconfig), folder.path(), try_kubectl);
    let _early = Early::register();
    let cases = [("user", User::Named), ("root", User::Root)].map(|(name, user)| {
        let app = App { user, ..APP };
        let kyverno_first = json!({LABEL.0: LABEL.1});
        let ours_first = json!({LABEL.0: LABEL.1, EARLY: ""});
        [("kyverno-first", kyverno_first), ("ours-first", ours_first)]
            .map(|(order, labels)| std::thread::spawn(move || working_pod(&format!("{order}-{name}"), labels, app)))
    });
    for orders in cases {
        let [one, other] = orders.map(|case| case.join().expect("a working pod"));
        assert_eq!(one, other);
    }
}

/// Takes an app through its life; what is stored of it in the end, without the name of its namespace.
fn working_pod(case: &str, labels: Value, app: App) -> String {
    let space = Space::with(case, labels, &secret(None));
    space.apply(&app.manifests());
    let pod = space.ready("");
    as_the_policies_want_it(&space.pods()[0]["spec"]);

    space.exec(
        app.workload(),
        "echo kept > /config/kept.txt && chmod 640 /config/kept.txt",
    );
    space.backup_job("now");
    let place = App::place(space.name());
    assert_eq!(bucket::content(&format!("{place}/config/kept.txt")), "kept\n");
    app.destroy_volume(&space);
    space.ready(&pod);
    assert_eq!(
        space.exec(app.workload(), "stat -c %a /config/kept.txt; cat /config/kept.txt"),
        "640\nkept"
    );

    let before = object(&space, "apps/v1", "deployments/app");
    for way in [
        &["apply", "-f", "-"] as &[&str],
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
    ] {
        space.kubectl(way, &app.manifests().to_string());
    }
    let after = object(&space, "apps/v1", "deployments/app");
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(
        after["metadata"]["generation"], 1,
        "it was stored once, and nothing has moved it"
    );
    let replica_sets = object(&space, "apps/v1", "replicasets");
    assert_eq!(replica_sets["items"].as_array().map(Vec::len), Some(1), "no rollout");

    // Companions are seen by the same policies, and the controller does not undo what they add.
    space.job("app-restore");
    let cron_job = object(&space, "batch/v1", "cronjobs/app-backup");
    as_the_policies_want_it(&cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]);
    assert_eq!(
        cron_job["metadata"]["generation"], 1,
        "the CronJob was made once, and nothing has moved it"
    );

    let latest = app.manifests().to_string().replace(&app_image(app), "app:latest");
    let refused = space.kubectl_fails(&["apply", "-f", "-"], &latest);
    assert!(refused.contains("and not latest"), "{refused}");
    after["spec"].to_string().replace(space.name(), "NAMESPACE")
}

fn app_image(app: App) -> String {
    let manifests = app.manifests();
    let items = manifests["items"].as_array().expect("a list");
    let workload = items.last().expect("the workload");
    let image = &workload["spec"]["template"]["spec"]["containers"][0]["image"];
    image.as_str().expect("an image").to_owned()
}

fn object(space: &Space, group: &str, path: &str) -> Value {
    let path = format!("/apis/{group}/namespaces/{}/{path}", space.name());
    cluster::get(&path).unwrap_or_else(|| panic!("there is no {path}"))
}

/// Every container, ours too.
#[track_caller]
fn as_the_policies_want_it(pod: &Value) {
    for list in ["initContainers", "containers"] {
        for container in pod[list].as_array().into_iter().flatten() {
            let (name, resources) = (&container["name"], &container["resources"]);
            assert_eq!(
                container["securityContext"]["capabilities"]["drop"],
                json!(["ALL"]),
                "{name}"
            );
            assert_eq!(resources["limits"]["ephemeral-storage"], "1Gi", "{name}");
        }
    }
}

/// The deployed configuration under the early name. It leaves the labelled namespaces to that one as long as this lives.
struct Early {
    selector: Value,
}

impl Early {
    fn register() -> Self {
        let path = format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{DEPLOYED}");
        let deployed = cluster::get(&path).expect("vixens-backup is installed");
        let early = Self {
            selector: deployed["webhooks"][0]["namespaceSelector"].clone(),
        };
        let mut selector = early.selector.clone();
        selector["matchExpressions"]
            .as_array_mut()
            .expect("a list")
            .push(json!({"key": EARLY, "operator": "DoesNotExist"}));
        select(&selector);
        let space = Space::with(EARLY, json!({EARLY: ""}), &secret(None));
        let mistyped = APP.annotated(&[("vixens.io/backup-first", "1")]).to_string();
        let try_out = || {
            let arguments = ["--namespace", space.name(), "apply", "--dry-run=server", "-f", "-"];
            try_kubectl(&arguments, &mistyped)
        };
        eventually("the deployed webhook is not asked", try_out);

        let mut webhook = deployed["webhooks"][0].clone();
        webhook["namespaceSelector"] = json!({"matchLabels": {EARLY: ""}});
        let configuration = json!({"apiVersion": deployed["apiVersion"], "kind": deployed["kind"],
            "metadata": {"name": EARLY}, "webhooks": [webhook]});
        kubectl(&["apply", "-f", "-"], &configuration.to_string());
        eventually("the early webhook is asked", || match try_out() {
            Err(complaint) if complaint.contains("vixens.io/backup-first") => Ok(()),
            Err(complaint) => Err(complaint),
            Ok(output) => Err(output),
        });
        early
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        kubectl(
            &["delete", "mutatingwebhookconfiguration", EARLY, "--ignore-not-found"],
            "",
        );
        select(&self.selector);
    }
}

/// The namespaces about which the deployed webhook is asked.
fn select(selector: &Value) {
    let patch = json!([{"op": "replace", "path": "/webhooks/0/namespaceSelector", "value": selector}]);
    let patch = patch.to_string();
    kubectl(
        &[
            "patch",
            "mutatingwebhookconfiguration",
            DEPLOYED,
            "--type=json",
            "--patch",
            &patch,
        ],
        "",
    );
}
