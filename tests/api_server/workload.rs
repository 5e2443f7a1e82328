//! A workload as its owner writes it, the ways to store it, and what is found in it.

use crate::control_plane::{Said, control_plane};
use crate::namespace::Namespace;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

/// What an owner writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct App {
    /// `vixens.io/backup: tier2`.
    pub(crate) annotated: bool,
    /// The image's tag.
    pub(crate) release: u8,
    /// An init container of the owner's own.
    pub(crate) migrates: bool,
}

/// The app as it is at first.
pub(crate) const FIRST: App = App {
    annotated: true,
    release: 1,
    migrates: false,
};

impl App {
    /// A Deployment.
    pub(crate) fn deployment(self) -> Value {
        let mut spec = json!({
            "containers": [{"name": "app", "image": format!("app:{}", self.release),
                "volumeMounts": [{"name": "config", "mountPath": "/config"}]}],
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
            "volumes": [{"name": "config", "persistentVolumeClaim": {"claimName": "app-config"}}],
        });
        if self.migrates {
            spec["initContainers"] = json!([{"name": "migrate", "image": "migrate:1"}]);
        }
        let annotations = if self.annotated {
            json!({"vixens.io/backup": "tier2"})
        } else {
            json!({})
        };
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "annotations": annotations},
            "spec": {"selector": {"matchLabels": {"app": "app"}},
                "template": {"metadata": {"labels": {"app": "app"}}, "spec": spec}},
        })
    }

    /// A StatefulSet.
    pub(crate) fn stateful_set(self) -> Value {
        let mut object = self.deployment();
        object["kind"] = json!("StatefulSet");
        object["spec"]["serviceName"] = json!("app");
        object["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "config"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
        object["spec"]["template"]["spec"]
            .as_object_mut()
            .expect("a mapping")
            .remove("volumes");
        object
    }
}

/// How an owner stores what it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ClientSideApply,
    ServerSideApply,
    Replace,
    Edit,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::ClientSideApply, Self::ServerSideApply, Self::Replace, Self::Edit];

    /// A word for names.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSideApply => "client-side-apply",
            Self::ServerSideApply => "server-side-apply",
            Self::Replace => "replace",
            Self::Edit => "edit",
        }
    }

    /// Stores the app for the first time.
    #[track_caller]
    pub(crate) fn create(self, namespace: &Namespace, app: App) -> Said {
        let arguments: &[&str] = match self {
            Self::ClientSideApply => &["apply", "-f", "-"],
            Self::ServerSideApply => &["apply", "--server-side", "-f", "-"],
            Self::Replace | Self::Edit => &["create", "-f", "-"],
        };
        let said = stored(namespace.kubectl_with(arguments, &app.deployment(), &[]));
        await_revision(namespace, None);
        said
    }

    /// Makes `after` of what is stored as `before`.
    #[track_caller]
    pub(crate) fn change(self, namespace: &Namespace, before: App, after: App) -> Said {
        match self {
            Self::ClientSideApply | Self::ServerSideApply => self.create(namespace, after),
            Self::Replace => on_the_latest_version(|| {
                let mut manifest = after.deployment();
                let Stored(now) = stored_deployment(namespace);
                // Of this version and no other: the deployment controller may be about to write its own annotation.
                manifest["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
                // Without that annotation, `generation` moves for anybody's Deployment.
                let revision = "deployment.kubernetes.io/revision";
                if let Some(value) = now["metadata"]["annotations"].get(revision) {
                    manifest["metadata"]["annotations"][revision] = value.clone();
                }
                namespace.kubectl_with(&["replace", "-f", "-"], &manifest, &[])
            }),
            Self::Edit => edit(namespace, before, after),
        }
    }
}

#[track_caller]
fn stored(said: Said) -> Said {
    assert!(said.succeeded, "refused: {said:#?}");
    said
}

/// `kubectl edit`, with sed as the editor of what is stored, injected parts and all.
#[track_caller]
fn edit(namespace: &Namespace, before: App, after: App) -> Said {
    let mut commands = vec![format!(
        "s/image: app:{}$/image: app:{}/",
        before.release, after.release
    )];
    if before.annotated && !after.annotated {
        commands.push("/vixens.io\\/backup: tier2/d".to_owned());
    }
    if !before.migrates && after.migrates {
        // At the end of the list, behind ours: where containers begin.
        commands.push("s/^\\( *\\)initContainers:$/&\\n\\1- name: migrate\\n\\1  image: migrate:1/".to_owned());
    }
    let editor = control_plane().scratch().join(format!("edit-{}", namespace.name()));
    let script = format!("#!/bin/sh\nexec sed -i '{}' \"$1\"\n", commands.join(";"));
    std::fs::write(&editor, script).expect("the editor");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).expect("the editor");
    let editor = editor.to_str().expect("UTF-8");
    let arguments = ["edit", "deployment/app"];
    on_the_latest_version(|| namespace.kubectl_with(&arguments, &Value::Null, &[("KUBE_EDITOR", editor)]))
}

/// Tries again where a controller has written the status meanwhile, as people do.
#[track_caller]
fn on_the_latest_version(attempt: impl Fn() -> Said) -> Said {
    loop {
        let said = attempt();
        if !said.stderr.contains("the object has been modified") {
            return stored(said);
        }
    }
}

/// Waits until the deployment controller has made a ReplicaSet of what is stored: only that can be undone to.
pub(crate) fn await_revision(namespace: &Namespace, revision: Option<&str>) {
    let mut wait = r"--for=jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}".to_owned();
    if let Some(revision) = revision {
        wait.push('=');
        wait.push_str(revision);
    }
    namespace
        .kubectl(&["wait", "deployment/app", &wait, "--timeout=180s"])
        .succeeds();
}

/// What is stored.
#[derive(Debug)]
pub(crate) struct Stored(pub Value);

/// Reads the Deployment.
pub(crate) fn stored_deployment(namespace: &Namespace) -> Stored {
    Stored(namespace.get("deployment/app"))
}

impl Stored {
    pub(crate) fn generation(&self) -> u64 {
        self.0["metadata"]["generation"].as_u64().expect("a generation")
    }

    pub(crate) fn init_containers(&self) -> Vec<&str> {
        let containers = self.pod_spec()["initContainers"].as_array();
        containers
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str())
            .collect()
    }

    pub(crate) fn volumes(&self) -> Vec<&str> {
        let volumes = self.pod_spec()["volumes"].as_array();
        volumes
            .into_iter()
            .flatten()
            .filter_map(|volume| volume["name"].as_str())
            .collect()
    }

    pub(crate) fn app_image(&self) -> &str {
        self.pod_spec()["containers"][0]["image"].as_str().expect("an image")
    }

    /// The image of the first injected container.
    pub(crate) fn injected_image(&self) -> &str {
        let containers = self.pod_spec()["initContainers"].as_array();
        let ours = containers
            .into_iter()
            .flatten()
            .find(|container| container["name"] == "init-config");
        ours.and_then(|container| container["image"].as_str())
            .expect("an injected container")
    }

    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.0["metadata"]["annotations"][name].as_str()
    }

    pub(crate) fn spec(&self) -> &Value {
        &self.0["spec"]
    }

    fn pod_spec(&self) -> &Value {
        &self.0["spec"]["template"]["spec"]
    }
}
