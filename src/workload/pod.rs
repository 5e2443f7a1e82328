//! The pod of a workload: who it runs as, which ports it takes, and what else decides how our containers must look.

use super::{POD, at, list, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// User and group of a container, from its own security context or the pod's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// `runAsUser`, as far as the manifest says.
    pub uid: Option<u64>,
    /// `runAsGroup`.
    pub gid: Option<u64>,
    /// `runAsNonRoot: true`.
    pub non_root: bool,
}

/// What is known of the pod.
#[derive(Clone, Debug, Default)]
pub struct PodFacts {
    /// Names of the app's own init containers, in order.
    pub init_containers: Vec<String>,
    /// Names of the app's containers, in order.
    pub containers: Vec<String>,
    /// Names of volumes, in order.
    pub volumes: Vec<String>,
    /// Each container's user, by name; native sidecars included.
    pub users: Vec<(String, User)>,
    /// Every declared container port.
    pub ports: BTreeSet<u64>,
    /// `hostNetwork: true`.
    pub host_network: bool,
    /// `dnsPolicy`.
    pub dns_policy: Option<String>,
    /// `shareProcessNamespace: true`.
    pub share_process_namespace: bool,
    /// Whether each container's requests equal its limits, for CPU and memory.
    pub guaranteed: bool,
    /// `terminationGracePeriodSeconds`, or the API's default.
    pub grace_period: u64,
    /// The pod template's label `vixens.io/backup-profile`.
    pub profile_label: Option<String>,
}

impl PodFacts {
    /// Reads the template of a workload.
    pub fn read(object: &Value) -> Self {
        let Some(pod) = at(object, POD) else {
            return Self::default();
        };
        let containers = list(pod, "/containers");
        let init = list(pod, "/initContainers");
        let names = |items: &[Value]| -> Vec<String> {
            items
                .iter()
                .filter_map(|item| text(item, "/name"))
                .map(str::to_owned)
                .collect()
        };
        let all = || init.iter().chain(containers);
        Self {
            init_containers: names(init),
            containers: names(containers),
            volumes: names(list(pod, "/volumes")),
            users: all()
                .filter_map(|container| Some((text(container, "/name")?.to_owned(), user(pod, container))))
                .collect(),
            ports: all()
                .flat_map(|container| list(container, "/ports"))
                .flat_map(|port| [port.get("containerPort"), port.get("hostPort")])
                .filter_map(|port| port.and_then(Value::as_u64))
                .collect(),
            host_network: flag(pod, "/hostNetwork"),
            dns_policy: text(pod, "/dnsPolicy").map(str::to_owned),
            share_process_namespace: flag(pod, "/shareProcessNamespace"),
            guaranteed: !containers.is_empty() && all().all(is_guaranteed),
            grace_period: at(pod, "/terminationGracePeriodSeconds")
                .and_then(Value::as_u64)
                .unwrap_or(30),
            profile_label: at(object, "/spec/template/metadata/labels/vixens.io~1backup-profile")
                .and_then(Value::as_str)
                .map(str::to_owned),
        }
    }

    /// The user of a container.
    pub fn user_of(&self, container: &str) -> User {
        self.users
            .iter()
            .find(|(name, _)| name == container)
            .map(|(_, user)| *user)
            .unwrap_or_default()
    }
}

fn flag(value: &Value, path: &str) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or(false)
}

fn user(pod: &Value, container: &Value) -> User {
    let number = |name: &str| {
        let path = format!("/securityContext/{name}");
        let own = at(container, &path).and_then(Value::as_u64);
        own.or_else(|| at(pod, &path).and_then(Value::as_u64))
    };
    let non_root = "/securityContext/runAsNonRoot";
    User {
        uid: number("runAsUser"),
        gid: number("runAsGroup"),
        non_root: match at(container, non_root).and_then(Value::as_bool) {
            Some(own) => own,
            None => flag(pod, non_root),
        },
    }
}

/// QoS class Guaranteed asks for limits of CPU and memory, and requests that equal them or are absent.
fn is_guaranteed(container: &Value) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let limit = at(container, &format!("/resources/limits/{name}"));
        let request = at(container, &format!("/resources/requests/{name}"));
        limit.is_some_and(|limit| request.is_none_or(|request| request == limit))
    })
}
