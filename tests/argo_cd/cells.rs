//! Every way in which Argo CD compares, applies and tracks: an Application each, all of the same vanilla manifests in Git,
//! each into a namespace of its own.

use crate::argo_cd::Tracking;
use crate::control_plane::control_plane;
use crate::namespace::Namespace;
use crate::repository::Repository;
use crate::workload::{App, FIRST, Stored};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How it compares: the annotation of an Application.
const COMPARING: [(&str, &str); 3] = [
    ("merging", ""),
    ("dry-running", "ServerSideDiff=true"),
    ("dry-running-all", "ServerSideDiff=true,IncludeMutationWebhook=true"),
];

/// How it applies: the sync options of an Application, and the folder in Git.
const APPLYING: [(&str, &[&str], &str); 3] = [
    ("client-side", &[], "applied"),
    ("server-side", &["ServerSideApply=true"], "applied"),
    ("replace", &["Replace=true"], "replaced"),
];

/// All of them.
pub(crate) struct Cells {
    repository: Repository,
    namespaces: Vec<Namespace>,
}

impl Cells {
    /// Makes them, of the app as it is at first; the revision.
    pub(crate) fn make() -> (Self, String) {
        let repository = Repository::new("cells");
        let mut cells = Self {
            repository,
            namespaces: Vec::new(),
        };
        let revision = cells.commit(FIRST);
        for tracking in Tracking::ALL {
            for (comparing, compare_options) in COMPARING {
                for (applying, sync_options, path) in APPLYING {
                    let name = format!("{}-{comparing}-{applying}", tracking.as_str());
                    cells.namespaces.push(Namespace::new(&json!({}), &name));
                    control_plane().apply(&json!({
                        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
                        "metadata": {"name": name, "namespace": tracking.namespace(),
                            "annotations": {"argocd.argoproj.io/compare-options": compare_options}},
                        "spec": {
                            "project": "default",
                            "source": {"repoURL": cells.repository.url(), "targetRevision": "main", "path": path},
                            "destination": {"server": "https://kubernetes.default.svc", "namespace": name},
                            "syncPolicy": {"automated": {"prune": true, "selfHeal": true}, "syncOptions": sync_options},
                        },
                    }));
                }
            }
        }
        (cells, revision)
    }

    /// Commits the app, in each of the kinds, and beside it one that never changes; the revision.
    pub(crate) fn commit(&self, app: App) -> String {
        for (folder, outspoken) in [("applied", outspoken(&DEFAULTS)), ("replaced", outspoken(&OTHERS))] {
            for (name, manifest) in [
                ("app", &app.deployment()),
                ("db", &database(app)),
                ("outspoken", &outspoken),
            ] {
                self.repository
                    .write(&format!("{folder}/{name}.json"), &manifest.to_string());
            }
        }
        self.repository.commit()
    }

    /// Those in which Argo CD does not see that an annotation, anybody's, is gone from Git: what it compares with knows of
    /// nothing that was there before, unless it was applied as it is compared.
    pub(crate) fn overlook_what_is_gone(name: &str) -> bool {
        name.ends_with("-replace") || (name.contains("-dry-running") && name.ends_with("-client-side"))
    }

    /// Has one of them synced as by a hand.
    pub(crate) fn sync(name: &str) {
        let tracking = Tracking::ALL
            .into_iter()
            .find(|tracking| name.starts_with(tracking.as_str()));
        let namespace = tracking.expect("a tracking").namespace();
        let options = APPLYING.iter().find(|(applying, ..)| name.ends_with(applying));
        let (_, options, _) = options.expect("a way to apply");
        // Into what is left of an earlier operation, of parts of the Application perhaps, this one would be merged.
        let operation = json!({"operation": {"sync": {"prune": true, "syncOptions": options}},
            "status": {"operationState": null}})
        .to_string();
        let patch = [
            "patch",
            "applications.argoproj.io",
            name,
            "--type=merge",
            "-p",
            &operation,
        ];
        control_plane()
            .kubectl(&[&["--namespace", namespace], &patch[..]].concat())
            .succeeds();
    }

    /// Their names, which are those of their namespaces.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.namespaces.iter().map(Namespace::name)
    }

    /// One of them.
    pub(crate) fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// What stands in every namespace: workloads as they are, and companions by UID, which are neither pruned, although Git
    /// knows nothing of them, nor made anew.
    pub(crate) fn seen(&self) -> BTreeMap<String, Cell> {
        let mut cells: BTreeMap<String, Cell> = self.names().map(|name| (name.to_owned(), Cell::default())).collect();
        let list = |kinds: &str| {
            let mut list = control_plane().get(&[kinds, "--all-namespaces"]);
            match list["items"].take() {
                Value::Array(items) => items,
                other => panic!("no list: {other}"),
            }
        };
        for workload in list("deployments,statefulsets") {
            let metadata = &workload["metadata"];
            if let Some(cell) = cells.get_mut(metadata["namespace"].as_str().expect("a namespace")) {
                let name = metadata["name"].as_str().expect("a name").to_owned();
                cell.workloads.insert(name, workload);
            }
        }
        for replica_set in list("replicasets") {
            let metadata = &replica_set["metadata"];
            let is_counted = metadata["ownerReferences"][0]["name"] == "outspoken";
            if let Some(cell) = cells.get_mut(metadata["namespace"].as_str().expect("a namespace"))
                && is_counted
            {
                cell.rollouts += 1;
            }
        }
        for companion in list("cronjobs,jobs,services") {
            let metadata = &companion["metadata"];
            // A CronJob's Jobs have owners, too.
            let is_companion = !metadata["labels"]["vixens.io/backup-companion"].is_null();
            if let Some(cell) = cells.get_mut(metadata["namespace"].as_str().expect("a namespace"))
                && is_companion
            {
                let name = format!("{}/{}", companion["kind"], metadata["name"]);
                cell.companions.insert(name, metadata["uid"].clone());
            }
        }
        cells
    }
}

/// What stands in one namespace.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    pub(crate) workloads: BTreeMap<String, Value>,
    pub(crate) companions: BTreeMap<String, Value>,
    /// How many templates the Deployment `outspoken` has had: each has a ReplicaSet.
    rollouts: usize,
}

impl Cell {
    /// What must not move: a rollout would be somebody's app restarted.
    pub(crate) fn settled(self) -> Vec<Value> {
        let workloads = self
            .workloads
            .into_values()
            .map(|workload| json!([workload["metadata"]["generation"], workload["spec"]]));
        workloads.chain(self.companions.into_values()).collect()
    }

    /// What is not as it should be where the app was released so many times.
    pub(crate) fn faults(&self, release: u8, is_annotated: bool) -> Vec<String> {
        let mut faults = Vec::new();
        let mut expect = |what: &str, is_so: bool| {
            if !is_so {
                faults.push(what.to_owned());
            }
        };
        let ours: &[&str] = if is_annotated {
            &["init-config", "backup-sidecar"]
        } else {
            &[]
        };
        for name in ["app", "db"] {
            let Some(stored) = self.workloads.get(name).cloned().map(Stored) else {
                return vec![format!("no {name}")];
            };
            expect(
                &format!("{name} is injected: {is_annotated}"),
                stored.init_containers() == ours,
            );
            expect(
                &format!("{name} is of release {release}"),
                stored.app_image() == format!("app:{release}"),
            );
            let marker = stored.annotation("vixens.io/backup-injected");
            expect(&format!("the marker of {name}"), marker.is_some() == is_annotated);
        }
        let Some(outspoken) = self.workloads.get("outspoken").cloned().map(Stored) else {
            return vec!["no outspoken".to_owned()];
        };
        expect(
            "the owner's init container stays behind ours",
            outspoken.init_containers() == ["init-config", "backup-sidecar", "migrate"],
        );
        let spec = outspoken.spec();
        let is_said = |said: &Said| {
            spec["strategy"]["rollingUpdate"]["maxSurge"] == said.surge
                && spec["progressDeadlineSeconds"] == said.deadline
                && spec["template"]["spec"]["terminationGracePeriodSeconds"] == said.grace_period
        };
        expect(
            "what the owner says stays the owner's",
            is_said(&DEFAULTS) || is_said(&OTHERS),
        );
        expect("outspoken was rolled out once", self.rollouts == 1);
        let expected = if is_annotated { 9 } else { 3 };
        expect(&format!("{expected} companions"), self.companions.len() == expected);
        faults
    }
}

/// The app as a StatefulSet, which says all of its claim: Argo CD shows drift where it does not, in anybody's.
fn database(app: App) -> Value {
    let mut manifest = app.stateful_set();
    manifest["metadata"]["name"] = json!("db");
    let spec = &mut manifest["spec"];
    spec["selector"]["matchLabels"]["app"] = json!("db");
    spec["template"]["metadata"]["labels"]["app"] = json!("db");
    let claim = &mut spec["volumeClaimTemplates"][0];
    claim["apiVersion"] = json!("v1");
    claim["kind"] = json!("PersistentVolumeClaim");
    claim["spec"]["volumeMode"] = json!("Filesystem");
    manifest
}

/// What an owner can say of what the webhook would say: a grace period, a deadline, and by how many pods a rollout may be
/// above.
pub(crate) struct Said {
    grace_period: u32,
    deadline: u32,
    surge: &'static str,
}

/// The API server's own defaults, said aloud.
pub(crate) const DEFAULTS: Said = Said {
    grace_period: 30,
    deadline: 600,
    surge: "25%",
};

/// Where manifests are not applied but put in place, nobody can tell what was said from what was filled in, unless it is
/// something else.
const OTHERS: Said = Said {
    grace_period: 31,
    deadline: 601,
    surge: "50%",
};

/// An app whose manifest says itself what the webhook would say.
pub(crate) fn outspoken(said: &Said) -> Value {
    let mut manifest = FIRST.deployment();
    manifest["metadata"]["name"] = json!("outspoken");
    let spec = &mut manifest["spec"];
    spec["replicas"] = json!(1);
    spec["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": said.surge}});
    spec["progressDeadlineSeconds"] = json!(said.deadline);
    spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(said.grace_period);
    spec["template"]["spec"]["initContainers"] = json!([{"name": "migrate", "image": "migrate:1"}]);
    manifest
}
