//! PURE: Plan → the injected block: containers, volumes and label, as JSON. Fields that the API server would fill in
//! are written out, so that what comes back equals what was sent.

use super::companions::record_name;
use super::plan::{
    INIT_CONTAINER, Plan, PlannedVolume, RCLONE_VOLUME, RECORD_VOLUME, RESTORE_VOLUME, SECRETS_VOLUME,
    SIDECAR_CONTAINER, VANILLA_VOLUME,
};
use crate::agent::arguments::{
    Backups, DEFAULTS_PATH, Destination, Flags, Folders, Identity, InitArguments, NudgeArguments, Port,
    ProtectedVolume, Protection, RCLONE_PATH, RECORD_PATH, RESTORE_PATH, SECRETS_PATH, SidecarArguments, Span, Tier,
    WorkloadKind,
};
use crate::policy::{ContainerKind, fingerprint};
use serde_json::{Map, Value, json};

/// What is added to a pod template.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Block {
    /// In the order of their start.
    pub(super) init_containers: Vec<Value>,
    /// Volumes, in the order of [`super::plan::VOLUMES`].
    pub(super) volumes: Vec<Value>,
    /// The value of the pod label `vixens.io/backup-app`.
    pub(super) label: String,
}

/// Where the token of the pod's ServiceAccount is mounted into every container that does not mount something there.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// In an injected container, its own pod, by the downward API.
const OWN_POD: &str = "$(POD_NAME)";

/// Our own folders, at their usual places or below `/vixens-backup`.
pub(super) struct Places {
    pub(super) defaults: String,
    pub(super) restore: String,
    pub(super) secrets: String,
    pub(super) rclone: String,
    pub(super) record: String,
}

impl Places {
    pub(super) fn new(moved: bool) -> Self {
        let place = |path: &str| {
            if moved {
                format!("/vixens-backup{path}")
            } else {
                path.to_owned()
            }
        };
        Self {
            defaults: place(DEFAULTS_PATH),
            restore: place(RESTORE_PATH),
            secrets: place(SECRETS_PATH),
            rclone: place(RCLONE_PATH),
            record: place(RECORD_PATH),
        }
    }

    pub(super) fn folders(&self) -> Folders {
        Folders {
            defaults_dir: self.defaults.clone().into(),
            restore_dir: self.restore.clone().into(),
            secrets_dir: self.secrets.clone().into(),
            rclone_dir: self.rclone.clone().into(),
            allow_plain_folder: false,
        }
    }
}

impl Block {
    /// Builds the block. `cluster_id` is kube-system's UID, where it is known.
    pub(super) fn new(plan: &Plan, cluster_id: Option<&str>) -> Self {
        let places = Places::new(plan.moved_folders);
        let mut init_containers = vec![init_container(plan, &places, cluster_id)];
        if plan.has_sidecar() {
            init_containers.push(sidecar(plan, &places, cluster_id));
        }
        Self {
            init_containers,
            volumes: volumes(plan),
            label: label_value(&plan.workload.name),
        }
    }
}

/// A name as a label's value: cut to 63 characters, with a hash where it had to be.
pub fn label_value(name: &str) -> String {
    if name.len() <= 63 {
        return name.to_owned();
    }
    let hash = fingerprint(name) >> 32;
    let head: String = name.chars().take(54).collect();
    format!("{}-{hash:08x}", head.trim_end_matches(['-', '.']))
}

/// What the agent is told to protect. `{pod}` stays where no pod is named.
pub(super) fn protection(plan: &Plan, pod: Option<&str>) -> Protection {
    let filled = |destination: &Destination| match pod {
        Some(pod) => destination.filled(&[("{pod}", pod)]),
        None => destination.clone(),
    };
    Protection {
        workload: plan.workload.clone(),
        volumes: plan
            .volumes
            .iter()
            .map(|volume| ProtectedVolume {
                name: volume.name.clone(),
                folder: volume.folder.clone(),
                mount_path: volume.mount_path.clone(),
            })
            .collect(),
        destinations: plan.destinations.iter().map(filled).collect(),
        includes: plan.includes.clone(),
        excludes: plan.excludes.clone(),
        max_size: plan.max_size,
        databases: plan.databases.clone(),
    }
}

fn init_container(plan: &Plan, places: &Places, cluster_id: Option<&str>) -> Value {
    let arguments = InitArguments {
        identity: Identity::default(),
        protection: protection(plan, Some(OWN_POD)),
        folders: places.folders(),
        tier: plan.tier,
        restore: plan.restore,
        restore_at: plan.restore_at.clone(),
        restore_timeout: plan.restore_timeout,
        store_down: plan.store_down,
        secrets_files: plan.secrets_files.clone(),
        accepted: plan.accepted.clone(),
        max_shrink: plan.max_shrink,
        record_dir: match plan.tier {
            // There is no store that could be known.
            Tier::Tier1 => RECORD_PATH.into(),
            _ => places.record.clone().into(),
        },
    };
    let mut mounts: Vec<Value> = plan.volumes.iter().map(|volume| data_mount(volume, false)).collect();
    mounts.push(mount(RESTORE_VOLUME, &places.restore, false));
    mounts.push(mount(VANILLA_VOLUME, &places.defaults, true));
    if plan.tier != Tier::Tier1 {
        mounts.push(mount(RCLONE_VOLUME, &places.rclone, true));
    }
    if !plan.secrets.is_empty() {
        mounts.push(mount(SECRETS_VOLUME, &places.secrets, true));
    }
    if plan.tier != Tier::Tier1 {
        mounts.push(mount(RECORD_VOLUME, &places.record, true));
    }
    mounts.push(no_token());
    container(plan, INIT_CONTAINER, "init", &arguments.flags(), mounts, cluster_id)
}

fn sidecar(plan: &Plan, places: &Places, cluster_id: Option<&str>) -> Value {
    let arguments = SidecarArguments {
        identity: Identity::default(),
        protection: protection(plan, Some(OWN_POD)),
        folders: places.folders(),
        backups: Backups {
            retention: plan.retention,
            max_shrink: plan.max_shrink,
        },
        tier: plan.tier,
        profile: plan.profile,
        settle: plan.settle,
        interval: plan.interval,
        port: plan.port,
        grace_period: Span::seconds(plan.grace_period),
        accepted: plan.accepted.clone(),
    };
    // Read-only, as in the guide (design, decision 12); but Litestream writes beside the databases.
    let read_only = !plan.replicates();
    let mut mounts: Vec<Value> = plan
        .volumes
        .iter()
        .map(|volume| data_mount(volume, read_only))
        .collect();
    mounts.push(mount(RESTORE_VOLUME, &places.restore, false));
    mounts.push(mount(RCLONE_VOLUME, &places.rclone, true));
    mounts.push(no_token());
    let mut container = container(
        plan,
        SIDECAR_CONTAINER,
        "sidecar",
        &arguments.flags(),
        mounts,
        cluster_id,
    );
    let nudge = NudgeArguments {
        port: plan.port,
        restore_dir: places.restore.clone().into(),
    };
    let mut command = vec!["vixens-backup".to_owned(), "agent".to_owned(), "nudge".to_owned()];
    command.extend(nudge.flags());
    container["restartPolicy"] = json!("Always");
    container["lifecycle"] = json!({"preStop": {"exec": {"command": command}}});
    if let Port::Fixed(port) = plan.port {
        container["ports"] = json!([{"name": "vixens-backup", "containerPort": port, "protocol": "TCP"}]);
    }
    container
}

fn container(
    plan: &Plan,
    name: &str,
    command: &str,
    flags: &[String],
    mounts: Vec<Value>,
    cluster_id: Option<&str>,
) -> Value {
    let kind = if name == INIT_CONTAINER {
        ContainerKind::Init
    } else {
        ContainerKind::Sidecar
    };
    let requirements = plan.resources().of(kind, plan.guaranteed);
    let mut container = json!({
        "name": name,
        "image": plan.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["vixens-backup", "agent", command],
        "args": flags,
        "env": environment(plan, cluster_id),
    });
    if plan.tier != Tier::Tier1 {
        container["envFrom"] = json!([{"secretRef": {"name": plan.secret}}]);
    }
    container["resources"] = json!({"requests": requirements.requests, "limits": requirements.limits});
    container["securityContext"] = security_context(plan, kind);
    container["volumeMounts"] = Value::Array(mounts);
    container["terminationMessagePath"] = json!("/dev/termination-log");
    // The reason of a failure is then in `kubectl describe pod`.
    container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    container
}

fn environment(plan: &Plan, cluster_id: Option<&str>) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let revision = match plan.workload.kind {
        WorkloadKind::Deployment => "pod-template-hash",
        WorkloadKind::StatefulSet => "controller-revision-hash",
    };
    let mut environment = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("VIXENS_BACKUP_GENERATION", &format!("metadata.labels['{revision}']")),
    ];
    if let Some(id) = cluster_id {
        environment.push(cluster_variable(id));
    }
    environment
}

/// By which the agent knows its cluster.
pub(super) const CLUSTER_ID: &str = "VIXENS_BACKUP_CLUSTER_ID";

pub(super) fn cluster_variable(id: &str) -> Value {
    json!({"name": CLUSTER_ID, "value": id})
}

/// Passes Pod Security `restricted` whenever the app does; root keeps only what moving other users' files takes.
fn security_context(plan: &Plan, kind: ContainerKind) -> Value {
    let mut context = Map::new();
    context.insert("allowPrivilegeEscalation".to_owned(), json!(false));
    let mut capabilities = json!({"drop": ["ALL"]});
    if plan.user.is_root() {
        capabilities["add"] = match kind {
            ContainerKind::Init => json!(["CHOWN", "DAC_OVERRIDE", "FOWNER"]),
            // SQLite gives the log that it makes to the database's owner.
            _ if plan.replicates() => json!(["CHOWN", "DAC_OVERRIDE"]),
            _ => json!(["DAC_OVERRIDE"]),
        };
    }
    context.insert("capabilities".to_owned(), capabilities);
    context.insert("readOnlyRootFilesystem".to_owned(), json!(true));
    if let Some(gid) = plan.user.gid {
        context.insert("runAsGroup".to_owned(), json!(gid));
    }
    context.insert("runAsNonRoot".to_owned(), json!(!plan.user.is_root()));
    context.insert("runAsUser".to_owned(), json!(plan.user.uid.unwrap_or(0)));
    context.insert("seccompProfile".to_owned(), json!({"type": "RuntimeDefault"}));
    Value::Object(context)
}

pub(super) fn mount(volume: &str, path: &str, read_only: bool) -> Value {
    let mut mount = json!({"name": volume, "mountPath": path});
    if read_only {
        mount["readOnly"] = json!(true);
    }
    mount
}

pub(super) fn data_mount(volume: &PlannedVolume, read_only: bool) -> Value {
    let mut mount = mount(&volume.name, &volume.mount_path, read_only);
    if let Some(sub_path) = &volume.sub_path {
        mount["subPath"] = json!(sub_path);
    }
    mount
}

/// An empty folder over the token: our containers need no permission.
fn no_token() -> Value {
    json!({"name": RESTORE_VOLUME, "mountPath": TOKEN_PATH, "subPath": "no-token", "readOnly": true})
}

fn volumes(plan: &Plan) -> Vec<Value> {
    let (vanilla, required) = &plan.vanilla_config;
    let mut volumes = vec![
        json!({"name": RESTORE_VOLUME, "emptyDir": {}}),
        json!({"name": VANILLA_VOLUME, "configMap": {"name": vanilla, "optional": !required, "defaultMode": 420}}),
    ];
    if plan.tier != Tier::Tier1 {
        volumes.push(json!({"name": RCLONE_VOLUME, "secret": {"secretName": plan.secret, "defaultMode": 420}}));
    }
    if !plan.secrets.is_empty() {
        let sources: Vec<Value> = plan
            .secrets
            .iter()
            .map(|secret| json!({"secret": {"name": secret}}))
            .collect();
        volumes.push(json!({"name": SECRETS_VOLUME, "projected": {"sources": sources, "defaultMode": 420}}));
    }
    if plan.tier != Tier::Tier1 {
        // There is none before the first snapshot.
        let record = record_name(&plan.workload.name);
        volumes
            .push(json!({"name": RECORD_VOLUME, "configMap": {"name": record, "optional": true, "defaultMode": 420}}));
    }
    volumes
}
