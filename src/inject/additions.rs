//! PURE: what somebody else added to the live block → kept in the block that takes its place.
//!
//! Another webhook that is asked about every container (Kyverno with default resources, an injector of authorities) is
//! asked about ours too, and we are asked again after it. Were its additions dropped then, what is stored would follow
//! from which of us comes last, and a policy that insists on them would refuse the workload. What we set stays ours.

use super::strip::{is_our_container, is_our_volume};
use crate::policy::key;
use crate::workload::{POD, annotations, at, at_mut, list};
use serde_json::{Map, Value};

/// Brings the additions in `object` to `result`, where both hold a block of the very same marker. A block of another
/// plan, or of another release, is replaced whole.
pub(super) fn keep(object: &Value, result: &mut Value) {
    let marker = |object| annotations(object, "").get(key::INJECTED);
    if marker(object).is_none() || marker(object) != marker(result) {
        return;
    }
    let is_ours = |container: &Value| is_our_container(container);
    each(object, result, "initContainers", is_ours, container);
    let is_ours = |volume: &Value| is_our_volume(volume);
    each(object, result, "volumes", is_ours, volume);
}

/// Calls `add` with each item of ours in a list of the pod, and with what is found under its name.
fn each(
    object: &Value,
    result: &mut Value,
    name: &str,
    is_ours: impl Fn(&Value) -> bool,
    add: impl Fn(&mut Map<String, Value>, &Map<String, Value>),
) {
    let path = format!("{POD}/{name}");
    let Some(Value::Array(items)) = at_mut(result, &path) else {
        return;
    };
    for item in items.iter_mut().filter(|item| is_ours(item)) {
        let found = list(object, &path)
            .iter()
            .find(|found| is_ours(found) && at(found, "/name") == at(item, "/name"));
        if let (Value::Object(item), Some(Value::Object(found))) = (item, found) {
            add(item, found);
        }
    }
}

fn container(ours: &mut Map<String, Value>, found: &Map<String, Value>) {
    for (name, value) in found {
        match (name.as_str(), ours.get_mut(name), value) {
            (_, None, value) => {
                ours.insert(name.clone(), value.clone());
            }
            ("resources", Some(Value::Object(ours)), Value::Object(found)) => entries(ours, found),
            ("securityContext", Some(Value::Object(ours)), Value::Object(found)) => {
                // Not at every depth: capabilities are what we say.
                ours.extend(absent(ours, found));
            }
            ("env" | "envFrom" | "volumeMounts" | "ports", Some(Value::Array(ours)), Value::Array(found)) => {
                items(ours, found);
            }
            _ => {}
        }
    }
}

/// A volume has one source: nothing is added beside it.
fn volume(ours: &mut Map<String, Value>, found: &Map<String, Value>) {
    for (name, value) in ours {
        if let (Value::Object(ours), Some(Value::Object(found))) = (value, found.get(name)) {
            entries(ours, found);
        }
    }
}

/// Adds the entries that are not ours, at every depth.
fn entries(ours: &mut Map<String, Value>, found: &Map<String, Value>) {
    for (name, value) in found {
        match (ours.get_mut(name), value) {
            (None, value) => {
                ours.insert(name.clone(), value.clone());
            }
            (Some(Value::Object(ours)), Value::Object(found)) => entries(ours, found),
            _ => {}
        }
    }
}

/// The entries that are not ours.
fn absent(ours: &Map<String, Value>, found: &Map<String, Value>) -> Map<String, Value> {
    let absent = found.iter().filter(|(name, _)| !ours.contains_key(*name));
    absent.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Adds the items that are not ours behind those that are.
fn items(ours: &mut Vec<Value>, found: &[Value]) {
    let count = ours.len();
    for item in found {
        if !ours[..count].iter().any(|ours| is_same(ours, item)) {
            ours.push(item.clone());
        }
    }
}

/// Whether two items stand for the same in Kubernetes' eyes, by the key of their list.
fn is_same(one: &Value, other: &Value) -> bool {
    let key = ["mountPath", "containerPort", "name"]
        .into_iter()
        .find(|key| one.get(key).is_some());
    key.map_or_else(|| one == other, |key| one.get(key) == other.get(key))
}
