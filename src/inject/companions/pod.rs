//! PURE: what the pods of the CronJob, of the restore Job and of the PreSync one have in common, as JSON.

use super::super::block::{Places, cluster_variable, mount};
use super::super::plan::{Plan, RCLONE_VOLUME, RESTORE_VOLUME};
use super::Surroundings;
use crate::policy::{ContainerKind, key};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One container that runs a command of the agent's.
pub(super) struct Pod<'a> {
    pub(super) plan: &'a Plan,
    pub(super) surroundings: &'a Surroundings,
    pub(super) cluster_id: Option<&'a str>,
    /// The value of the label `vixens.io/backup-job`.
    pub(super) label: &'static str,
    /// Whose resources it has.
    pub(super) kind: ContainerKind,
    /// The agent's command.
    pub(super) command: &'static str,
    pub(super) flags: Vec<String>,
    /// Whether the pod waits for the Secret of the store.
    pub(super) secret_is_optional: bool,
    /// Capabilities of root; none where no files of other users are read.
    pub(super) capabilities: &'static [&'static str],
    /// Beside our own.
    pub(super) volumes: Vec<Value>,
    pub(super) mounts: Vec<Value>,
}

impl Pod<'_> {
    /// The pod template.
    pub(super) fn template(self) -> Value {
        // A Job without labels gets those of its pods: the CronJob's are no companions.
        let labels = BTreeMap::from([
            ("app.kubernetes.io/managed-by", "vixens-backup"),
            (key::JOB_LABEL, self.label),
            // A mesh's proxy would not end with the work.
            ("sidecar.istio.io/inject", "false"),
        ]);
        let placement = self.surroundings.placement.clone();
        let groups = self.surroundings.groups.clone();
        let volumes = self.all_volumes();
        let container = self.container();
        let mut spec = json!({
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [container],
            "volumes": volumes,
        });
        if !groups.is_empty() {
            spec["securityContext"] = json!({"supplementalGroups": groups});
        }
        if let Some(fields) = spec.as_object_mut() {
            fields.extend(placement);
        }
        json!({
            "metadata": {"labels": labels, "annotations": {"linkerd.io/inject": "disabled"}},
            "spec": spec,
        })
    }

    fn all_volumes(&self) -> Vec<Value> {
        let mut secret = json!({"secretName": self.plan.secret});
        if self.secret_is_optional {
            secret["optional"] = json!(true);
        }
        let mut volumes = vec![
            json!({"name": RESTORE_VOLUME, "emptyDir": {}}),
            json!({"name": RCLONE_VOLUME, "secret": secret}),
        ];
        volumes.extend(self.volumes.iter().cloned());
        volumes
    }

    fn container(self) -> Value {
        let places = Places::new(self.plan.moved_folders);
        let requirements = self.plan.resources().of(self.kind, false);
        let mut mounts = vec![
            mount(RESTORE_VOLUME, &places.restore, false),
            mount(RCLONE_VOLUME, &places.rclone, true),
        ];
        mounts.extend(self.mounts);
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let mut environment = vec![
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
        ];
        if self.kind == ContainerKind::CronJob {
            let path = "metadata.labels['batch.kubernetes.io/job-name']";
            environment.push(field("VIXENS_BACKUP_JOB", path));
        }
        environment.extend(self.cluster_id.map(cluster_variable));
        let mut secret = json!({"name": self.plan.secret});
        if self.secret_is_optional {
            secret["optional"] = json!(true);
        }
        let user = self.plan.user;
        let mut context = Map::new();
        let mut capabilities = json!({"drop": ["ALL"]});
        if user.is_root() && !self.capabilities.is_empty() {
            capabilities["add"] = json!(self.capabilities);
        }
        context.insert("allowPrivilegeEscalation".to_owned(), json!(false));
        context.insert("capabilities".to_owned(), capabilities);
        context.insert("readOnlyRootFilesystem".to_owned(), json!(true));
        if let Some(gid) = user.gid {
            context.insert("runAsGroup".to_owned(), json!(gid));
        }
        context.insert("runAsNonRoot".to_owned(), json!(!user.is_root()));
        context.insert("runAsUser".to_owned(), json!(user.uid.unwrap_or(0)));
        context.insert("seccompProfile".to_owned(), json!({"type": "RuntimeDefault"}));
        json!({
            "name": self.command,
            "image": self.plan.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["vixens-backup", "agent", self.command],
            "args": self.flags,
            "env": environment,
            "envFrom": [{"secretRef": secret}],
            "resources": {"requests": requirements.requests, "limits": requirements.limits},
            "securityContext": context,
            "volumeMounts": mounts,
            // What the agent leaves there becomes an Event; a failure's reason comes from its log.
            "terminationMessagePolicy": "FallbackToLogsOnError",
        })
    }
}
