//! PURE: an object that may have been injected → the same object with nothing of ours. What the owner wrote survives
//! byte for byte; what we made for our own sake goes.

use super::companions::is_record_name;
use super::marker::Marker;
use super::plan::{CONTAINERS, RECORD_VOLUME, VOLUMES};
use crate::policy::key;
use crate::workload::{Ownership, POD, TEMPLATE, at, at_mut, text};
use serde_json::{Map, Value};

/// The pod template's label that we add.
const LABELS: &str = "/spec/template/metadata/labels";

/// Whether a container is ours: by its name and its command.
pub fn is_our_container(container: &Value) -> bool {
    let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
    let command: Vec<&str> = container
        .get("command")
        .and_then(Value::as_array)
        .map(|words| words.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    CONTAINERS.contains(&name) && command.starts_with(&["vixens-backup", "agent"])
}

/// Whether a volume of an injected object is ours: by its name; the record's, which blocks of former releases lack, by
/// what it holds, too. Where such a block was injected over one of ours, it is left from before.
pub(super) fn is_our_volume(volume: &Value) -> bool {
    let name = text(volume, "/name").unwrap_or_default();
    if name != RECORD_VOLUME {
        return VOLUMES.contains(&name);
    }
    let is_optional = at(volume, "/configMap/optional") == Some(&Value::Bool(true));
    is_optional && text(volume, "/configMap/name").is_some_and(is_record_name)
}

/// Takes out what was injected. `marker` is the object's own, or the one it had before it was replaced.
pub fn strip(mut object: Value, marker: Option<&Marker>, ownership: &Ownership) -> Value {
    for list in ["initContainers", "containers"] {
        if let Some(Value::Array(items)) = at_mut(&mut object, &format!("{POD}/{list}")) {
            items.retain(|container| !is_our_container(container));
        }
    }
    if let Some(annotations) = map(&mut object, "/metadata/annotations") {
        annotations.shift_remove(key::INJECTED);
    }
    let Some(marker) = marker else {
        return object;
    };
    if let Some(Value::Array(volumes)) = at_mut(&mut object, &format!("{POD}/volumes")) {
        volumes.retain(|volume| !is_our_volume(volume));
    }
    if let Some(labels) = map(&mut object, LABELS) {
        labels.shift_remove(key::APP_LABEL);
    }
    for (setting, ours) in marker.settings() {
        let is_ours = at(&object, setting.path()) == Some(&ours) && !ownership.claims(setting);
        if is_ours && let Some(before) = marker.from.get(setting.path()) {
            put_back(&mut object, setting.path(), before);
        }
    }
    // Deepest first: a parent that we made is empty only when its child is gone.
    for path in [
        &format!("{POD}/initContainers"),
        &format!("{POD}/volumes"),
        LABELS,
        &format!("{TEMPLATE}/metadata"),
    ] {
        if let Some(before) = marker.from.get(path)
            && at(&object, path).is_some_and(is_empty)
        {
            put_back(&mut object, path, before);
        }
    }
    object
}

fn map<'a>(object: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    at_mut(object, path).and_then(Value::as_object_mut)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

/// What the marker says of a value that is about to change.
pub(super) fn before(object: &Value, path: &str) -> Value {
    match at(object, path) {
        None => Value::Null,
        Some(Value::Null) => Value::String("null".to_owned()),
        Some(value) => value.clone(),
    }
}

fn put_back(object: &mut Value, path: &str, before: &Value) {
    let Some((parent, name)) = path.rsplit_once('/') else {
        return;
    };
    let Some(parent) = map(object, parent) else {
        return;
    };
    match before {
        Value::Null => {
            parent.shift_remove(name);
        }
        Value::String(text) if text == "null" => {
            parent.insert(name.to_owned(), Value::Null);
        }
        value => {
            parent.insert(name.to_owned(), value.clone());
        }
    }
}
