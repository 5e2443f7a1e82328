//! A namespace of one case, and what its owner does in it.

use crate::bucket::{self, BUCKET};
use crate::cluster::{self, eventually, kubectl, kubectl_fails};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::thread::JoinHandle;

/// A namespace with the Secret by which its apps reach the store; it is removed with this value.
pub(crate) struct Space {
    name: String,
    labels: Value,
    secret: String,
    /// What pods say while they are ended: nobody can ask them afterwards.
    ends: RefCell<Vec<JoinHandle<String>>>,
}

impl Drop for Space {
    fn drop(&mut self) {
        // What explains a failure is read before.
        if std::thread::panicking() {
            self.explain();
        }
        kubectl(
            &["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"],
            "",
        );
    }
}

impl Space {
    /// Makes one whose name begins with `app-`.
    pub(crate) fn new(case: &str) -> Self {
        Self::with(case, json!({}), &secret(None))
    }

    /// The same with labels, and with a Secret of its own.
    pub(crate) fn with(case: &str, labels: Value, secret: &str) -> Self {
        let space = Self {
            name: format!("app-{}", case.replace('_', "-")),
            labels,
            secret: secret.to_owned(),
            ends: RefCell::default(),
        };
        // A run that was cut short left it, and its backups.
        kubectl(&["delete", "namespace", &space.name, "--ignore-not-found"], "");
        bucket::rclone(&["delete", "--rmdirs", &format!("{BUCKET}/{}", space.name)], "");
        space.make();
        space
    }

    /// The namespace and its Secret, as Git has them.
    pub(crate) fn make(&self) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": self.name, "labels": self.labels}});
        kubectl(&["apply", "-f", "-"], &namespace.to_string());
        self.kubectl(&["apply", "-f", "-"], &self.secret);
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A kubectl in it that must succeed.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str], manifest: &str) -> String {
        kubectl(&[&["--namespace", &self.name], arguments].concat(), manifest)
    }

    /// A kubectl in it that must fail: its complaint.
    #[track_caller]
    pub(crate) fn kubectl_fails(&self, arguments: &[&str], manifest: &str) -> String {
        kubectl_fails(&[&["--namespace", &self.name], arguments].concat(), manifest)
    }

    /// Applies a List.
    #[track_caller]
    pub(crate) fn apply(&self, list: &Value) {
        self.kubectl(&["apply", "-f", "-"], &list.to_string());
    }

    /// An object of the core group, or a list: `pods`, `pods/NAME`, `pods?labelSelector=…`.
    pub(crate) fn get(&self, what: &str) -> Option<Value> {
        cluster::get(&format!("/api/v1/namespaces/{}/{what}", self.name))
    }

    /// Waits until no pod is left and the last sidecar has let go of its place.
    pub(crate) fn released(&self, place: &str) {
        eventually("its pod is gone", || {
            if self.pods().is_empty() {
                Ok(())
            } else {
                Err("not yet".into())
            }
        });
        eventually("the store was let go of", || {
            let state = bucket::content(&format!("{place}/state.json"));
            if state.contains("\"released\": true") {
                Ok(())
            } else {
                Err(state)
            }
        });
    }

    /// The pods of the app that are not being deleted.
    pub(crate) fn pods(&self) -> Vec<Value> {
        let list = self.get("pods?labelSelector=app%3Dapp").unwrap_or_default();
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.into_iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .collect()
    }

    /// Waits for one Ready pod that is not the one whose UID is given; its UID.
    #[track_caller]
    pub(crate) fn ready(&self, not: &str) -> String {
        eventually("one pod is Ready", || self.is_ready(not))
    }

    /// The UID of the one Ready pod that is not the one whose UID is given; else what there is.
    pub(crate) fn is_ready(&self, not: &str) -> Result<String, String> {
        match self.pods().as_slice() {
            [pod] if is_ready(pod) && pod["metadata"]["uid"] != not => {
                Ok(pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
            }
            pods => Err(format!(
                "{} pods: {:?}",
                pods.len(),
                pods.iter().map(|pod| &pod["status"]).collect::<Vec<_>>()
            )),
        }
    }

    /// A shell command in the app's container.
    #[track_caller]
    pub(crate) fn exec(&self, workload: &str, script: &str) -> String {
        let output = self.kubectl(&["exec", workload, "-c", "app", "--", "sh", "-c", script], "");
        output.trim_end().to_owned()
    }

    /// What a pod, a Job or a workload's container has said.
    #[track_caller]
    pub(crate) fn logs(&self, of: &[&str]) -> String {
        self.kubectl(&[&["logs"], of].concat(), "")
    }

    /// Listens to the sidecars of the pods that are there until they end.
    pub(crate) fn follow_the_end(&self) {
        for pod in self.pods() {
            let (space, pod) = (
                self.name.clone(),
                pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            );
            self.ends.borrow_mut().push(std::thread::spawn(move || {
                let arguments = [
                    "--namespace",
                    &space,
                    "logs",
                    "-f",
                    "--tail=40",
                    &pod,
                    "-c",
                    "backup-sidecar",
                ];
                let said = cluster::try_kubectl(&arguments, "").unwrap_or_else(|complaint| complaint);
                format!("{pod}, which was ended:\n{said}")
            }));
        }
    }

    /// `reason: message` of every Event about an object.
    pub(crate) fn events(&self, object: &str) -> Vec<String> {
        let list = self
            .get(&format!("events?fieldSelector=involvedObject.name%3D{object}"))
            .unwrap_or_default();
        let events = list["items"].as_array().cloned().unwrap_or_default();
        events
            .iter()
            .map(|event| {
                format!(
                    "{}: {}",
                    event["reason"].as_str().unwrap_or_default(),
                    event["message"].as_str().unwrap_or_default()
                )
            })
            .collect()
    }

    /// Makes a Job from the CronJob, as the guide does, and waits for its end; its log.
    #[track_caller]
    pub(crate) fn backup_job(&self, name: &str) -> String {
        eventually("the CronJob is there", || {
            cluster::get(&format!("/apis/batch/v1/namespaces/{}/cronjobs/app-backup", self.name))
                .ok_or_else(|| "there is none".to_owned())
        });
        self.kubectl(&["create", "job", "--from=cronjob/app-backup", name], "");
        self.job(name)
    }

    /// Waits for a Job's success; its log.
    #[track_caller]
    pub(crate) fn job(&self, name: &str) -> String {
        eventually(&format!("job {name} succeeds"), || {
            let job = cluster::get(&format!("/apis/batch/v1/namespaces/{}/jobs/{name}", self.name)).unwrap_or_default();
            if job["status"]["succeeded"] == 1 {
                Ok(())
            } else {
                Err(job["status"].to_string())
            }
        });
        self.logs(&[&format!("job/{name}")])
    }

    fn explain(&self) {
        println!("--- namespace {} ---", self.name);
        for (what, arguments) in [
            ("pods", &["get", "pods", "-o", "wide"] as &[&str]),
            ("events", &["get", "events", "--sort-by=.lastTimestamp"]),
            (
                "init-config",
                &["logs", "-l", "app=app", "-c", "init-config", "--tail=40"],
            ),
            (
                "backup-sidecar",
                &["logs", "-l", "app=app", "-c", "backup-sidecar", "--tail=40"],
            ),
        ] {
            let arguments = [&["--namespace", &self.name], arguments].concat();
            let said = cluster::try_kubectl(&arguments, "").unwrap_or_else(|complaint| complaint);
            println!("{what}:\n{said}");
        }
        for end in self.ends.take().into_iter().filter(JoinHandle::is_finished) {
            println!("{}", end.join().unwrap_or_default());
        }
    }
}

/// Whether a pod's condition `Ready` is true.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The Secret of the store, as `make e2e` gives it; with another endpoint where one is given.
pub(crate) fn secret(endpoint: Option<&str>) -> String {
    let file = std::env::var("VIXENS_BACKUP_STORE_SECRET").expect("these tests are started by `make e2e`");
    let text = std::fs::read_to_string(file).expect("the Secret");
    match endpoint {
        None => text,
        Some(endpoint) => text
            .lines()
            .map(|line| match line.split_once("_ENDPOINT: ") {
                Some((key, _)) => format!("{key}_ENDPOINT: {endpoint}\n"),
                None => format!("{line}\n"),
            })
            .collect(),
    }
}
