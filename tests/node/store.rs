//! A MinIO of one case's own, which can be taken away without harm to anybody else. What it stores outlives its pod.

use crate::bucket::rclone;
use crate::cluster::{eventually, kubectl};
use crate::space::{self, Space};
use serde_json::{Value, json};

/// A store in a namespace of its own.
pub(crate) struct Store {
    space: Space,
}

impl Store {
    /// One with an empty bucket.
    pub(crate) fn new(case: &str) -> Self {
        let store = Self {
            space: Space::new(&format!("{case}-store")),
        };
        store.space.apply(&Self::manifests());
        store.rolled_out();
        store
    }

    /// The Secret by which apps reach it.
    pub(crate) fn secret(&self) -> String {
        space::secret(Some(&self.endpoint()))
    }

    /// Takes it away; returns when it is gone.
    pub(crate) fn away(&self) {
        self.space.kubectl(&["scale", "deployment/minio", "--replicas=0"], "");
        eventually("the store is away", || {
            let list = self.space.get("pods?labelSelector=app%3Dminio").unwrap_or_default();
            match list["items"].as_array() {
                Some(pods) if pods.is_empty() => Ok(()),
                _ => Err("its pod is still there".to_owned()),
            }
        });
    }

    /// Brings it back.
    pub(crate) fn back(&self) {
        self.space.kubectl(&["scale", "deployment/minio", "--replicas=1"], "");
        self.rolled_out();
    }

    /// The content of an object; empty where there is none.
    pub(crate) fn content(&self, path: &str) -> String {
        rclone(&["cat", &self.at(path)], "")
    }

    fn at(&self, path: &str) -> String {
        format!("minio,endpoint=\"{}\":vixens-backups/{path}", self.endpoint())
    }

    fn endpoint(&self) -> String {
        format!("http://minio.{}.svc:9000", self.space.name())
    }

    fn rolled_out(&self) {
        kubectl(
            &[
                "-n",
                self.space.name(),
                "rollout",
                "status",
                "deployment/minio",
                "--timeout=300s",
            ],
            "",
        );
    }

    fn manifests() -> Value {
        let (image, app) = (
            std::env::var("VIXENS_BACKUP_MINIO_IMAGE").expect("these tests are started by `make e2e`"),
            std::env::var("VIXENS_BACKUP_APP_IMAGE").expect("these tests are started by `make e2e`"),
        );
        let key = |name: &str, key: &str| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "rclone-minio-config", "key": key}}});
        let mount = json!([{"name": "data", "mountPath": "/data"}]);
        let pod = json!({
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
            "initContainers": [{"name": "bucket", "image": app, "imagePullPolicy": "IfNotPresent",
                "command": ["mkdir", "-p", "/data/vixens-backups"], "volumeMounts": mount}],
            "containers": [{"name": "minio", "image": image, "imagePullPolicy": "IfNotPresent",
                "args": ["minio", "server", "/data", "--address", ":9000"],
                "env": [{"name": "MINIO_UPDATE", "value": "off"}, {"name": "HOME", "value": "/tmp"},
                    key("MINIO_ROOT_USER", "RCLONE_CONFIG_MINIO_ACCESS_KEY_ID"),
                    key("MINIO_ROOT_PASSWORD", "RCLONE_CONFIG_MINIO_SECRET_ACCESS_KEY")],
                // Ready from its first answer to its end, however busy the machine is.
                "startupProbe": {"httpGet": {"path": "/minio/health/ready", "port": 9000}, "periodSeconds": 1,
                    "timeoutSeconds": 10, "failureThreshold": 300},
                // As the bed's own: apps at work on this node must not starve it.
                "resources": {"requests": {"cpu": "200m"}},
                "volumeMounts": mount}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "minio"}}]});
        json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "minio"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "minio"},
                "spec": {"selector": {"app": "minio"}, "ports": [{"port": 9000}]}},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "minio"},
                "spec": {"strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"app": "minio"}},
                    "template": {"metadata": {"labels": {"app": "minio"}}, "spec": pod}}}]})
    }
}
