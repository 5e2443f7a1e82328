//! The app of all cases: what its owner has in Git. It serves the files of its volume, and at tier 3 writes to a
//! database ten times a second.

use crate::cluster::eventually;
use crate::space::Space;
use serde_json::{Value, json};

/// What runs the app.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Deployment,
    StatefulSet,
}

/// Where its files lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Volume {
    Claim,
    EmptyDir,
}

/// Whom it runs as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// The pod says so.
    Root,
    /// The pod says which one.
    Named,
    /// Its image has one, and the pod says nothing.
    Silent,
}

/// What is asked of us.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    Files,
    Databases,
}

/// One app.
#[derive(Clone, Copy)]
pub(crate) struct App {
    pub(crate) kind: Kind,
    pub(crate) volume: Volume,
    pub(crate) user: User,
    pub(crate) tier: Tier,
}

/// What most cases use.
pub(crate) const APP: App = App {
    kind: Kind::Deployment,
    volume: Volume::Claim,
    user: User::Named,
    tier: Tier::Files,
};

/// Ends at once when it is told to; `httpd` goes to the background by itself.
const SERVE: &str = "trap 'exit 0' TERM; httpd -p 8080 -h /config; ";
const DATABASE: &str = "app tick /config/app.db & ";
const WAIT: &str = "while :; do sleep 1 & wait $!; done";

impl App {
    /// `deployment/app` or `statefulset/app`.
    pub(crate) fn workload(self) -> &'static str {
        match self.kind {
            Kind::Deployment => "deployment/app",
            Kind::StatefulSet => "statefulset/app",
        }
    }

    /// The claim's name.
    pub(crate) fn claim(self) -> &'static str {
        match self.kind {
            Kind::Deployment => "app-config",
            Kind::StatefulSet => "config-app-0",
        }
    }

    /// Its place in the bucket.
    pub(crate) fn place(namespace: &str) -> String {
        format!("{namespace}/app")
    }

    /// What its owner has in Git, as a List.
    pub(crate) fn manifests(self) -> Value {
        self.annotated(&[])
    }

    /// The same with more annotations; an empty value takes one away.
    pub(crate) fn annotated(self, more: &[(&str, &str)]) -> Value {
        let mut items = vec![
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app-vanilla-config"},
                "data": {"configuration.yaml": "app:\n  name: Application\n"}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "app"},
                "spec": {"selector": {"app": "app"}, "ports": [{"name": "http", "port": 8080}]}}),
        ];
        if self.volume == Volume::Claim && self.kind == Kind::Deployment {
            items.push(
                json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "app-config"},
                "spec": claim()}),
            );
        }
        items.push(self.object(more));
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    }

    /// Deletes the claim with everything on it, and the pod; makes the claim anew, as Git would.
    #[track_caller]
    pub(crate) fn destroy_volume(self, space: &Space) {
        space.follow_the_end();
        if self.volume == Volume::Claim {
            space.kubectl(&["delete", "pvc", self.claim(), "--wait=false"], "");
        }
        space.kubectl(&["delete", "pods", "-l", "app=app", "--wait=false"], "");
        if self.volume == Volume::Claim && self.kind == Kind::Deployment {
            self.applied_anew(space);
        }
    }

    /// Waits until the claim is gone, and applies what is in Git, as a sync does.
    #[track_caller]
    pub(crate) fn applied_anew(self, space: &Space) {
        eventually("the claim is gone", || {
            match space.get(&format!("persistentvolumeclaims/{}", self.claim())) {
                None => Ok(()),
                Some(claim) => Err(claim["status"].to_string()),
            }
        });
        space.apply(&self.manifests());
    }

    /// The last number that the app's database has; it must be sound.
    #[track_caller]
    pub(crate) fn rows(self, space: &Space) -> u64 {
        self.rows_of(space, "/config/app.db")
    }

    /// The same of another one.
    #[track_caller]
    pub(crate) fn rows_of(self, space: &Space, path: &str) -> u64 {
        let said = space.exec(self.workload(), &format!("app last {path}"));
        let (integrity, rows) = said.split_once(' ').expect("two words");
        assert_eq!(integrity, "ok");
        rows.parse().expect("a number")
    }

    fn object(self, more: &[(&str, &str)]) -> Value {
        let tier = match self.tier {
            Tier::Files => "tier2",
            Tier::Databases => "tier3",
        };
        let mut annotations = json!({"vixens.io/backup": tier,
            "vixens.io/backup-destination": "minio:vixens-backups/{namespace}/{name}"});
        for (key, value) in more {
            if value.is_empty() {
                annotations.as_object_mut().expect("a map").remove(*key);
            } else {
                annotations[*key] = json!(value);
            }
        }
        // Its end takes a few seconds, but on a machine that is busy with all the other cases.
        let mut template = json!({"metadata": {"labels": {"app": "app"}},
            "spec": {"containers": [self.container()], "terminationGracePeriodSeconds": 120}});
        if self.user == User::Named {
            template["spec"]["securityContext"] = json!({"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000,
                "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}});
        }
        if self.user == User::Root {
            template["spec"]["securityContext"] = json!({"runAsUser": 0});
        }
        let mut object = json!({"apiVersion": "apps/v1", "metadata": {"name": "app", "annotations": annotations},
            "spec": {"selector": {"matchLabels": {"app": "app"}}}});
        match (self.volume, self.kind) {
            (Volume::EmptyDir, _) => template["spec"]["volumes"] = json!([{"name": "config", "emptyDir": {}}]),
            (Volume::Claim, Kind::Deployment) => {
                template["spec"]["volumes"] =
                    json!([{"name": "config", "persistentVolumeClaim": {"claimName": "app-config"}}]);
            }
            (Volume::Claim, Kind::StatefulSet) => {
                object["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "config"}, "spec": claim()}]);
            }
        }
        match self.kind {
            Kind::Deployment => object["kind"] = json!("Deployment"),
            Kind::StatefulSet => {
                object["kind"] = json!("StatefulSet");
                object["spec"]["serviceName"] = json!("app");
            }
        }
        object["spec"]["template"] = template;
        object
    }

    fn container(self) -> Value {
        let image = std::env::var("VIXENS_BACKUP_APP_IMAGE").expect("these tests are started by `make e2e`");
        let database = if self.tier == Tier::Databases { DATABASE } else { "" };
        let mut container = json!({"name": "app", "image": image, "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c"], "args": [format!("{SERVE}{database}{WAIT}")],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 30},
            "resources": {"requests": {"memory": "16Mi", "cpu": "10m"}, "limits": {"memory": "64Mi", "cpu": "500m"}},
            "volumeMounts": [{"name": "config", "mountPath": "/config"}]});
        if self.user == User::Named {
            container["securityContext"] =
                json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        }
        container
    }
}

fn claim() -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}})
}
