//! PURE: a stripped object + a plan → the injected object, with its marker. Positions are computed afresh each time.

use super::block::Block;
use super::marker::{self, LIMIT};
use super::plan::Plan;
use super::strip::before;
use crate::policy::{InitPosition, Problem, key};
use crate::workload::{POD, Setting, TEMPLATE, at, at_mut};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Injects a plan's block into a stripped object.
pub(super) fn insert(
    mut object: Value,
    plan: &Plan,
    position: &InitPosition,
    cluster_id: Option<&str>,
) -> Result<Value, Problem> {
    let Block {
        init_containers,
        volumes,
        label,
    } = Block::new(plan, cluster_id);
    let mut from = BTreeMap::new();
    set_settings(&mut object, &plan.settings, &mut from);

    let labels = format!("{TEMPLATE}/metadata/labels");
    let metadata = format!("{TEMPLATE}/metadata");
    if !at(&object, &metadata).is_some_and(Value::is_object) {
        from.insert(metadata.clone(), before(&object, &metadata));
        set(&mut object, TEMPLATE, "metadata", json!({}));
    }
    if !at(&object, &labels).is_some_and(Value::is_object) {
        from.insert(labels.clone(), before(&object, &labels));
        set(&mut object, &metadata, "labels", json!({}));
    }
    set(&mut object, &labels, key::APP_LABEL, Value::String(label));

    extend(&mut object, "volumes", volumes, None, &mut from);
    let names: Vec<String> = crate::workload::list(&object, &format!("{POD}/initContainers"))
        .iter()
        .map(|container| {
            container
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    let index = match position {
        InitPosition::First => 0,
        InitPosition::Last => names.len(),
        InitPosition::After(name) => names
            .iter()
            .position(|known| known == name)
            .map_or(0, |index| index + 1),
    };
    extend(&mut object, "initContainers", init_containers, Some(index), &mut from);

    write_marker(&mut object, marker::text(plan, &from))?;
    Ok(object)
}

/// Sets what nobody owns, and records what stood there.
pub(super) fn set_settings(
    object: &mut Value,
    settings: &BTreeMap<Setting, Value>,
    from: &mut BTreeMap<String, Value>,
) {
    for (setting, value) in settings {
        from.insert(setting.path().to_owned(), before(object, setting.path()));
        if let Some((parent, name)) = setting.path().rsplit_once('/') {
            set(object, parent, name, value.clone());
        }
    }
}

/// Writes the marker's annotation.
pub(super) fn write_marker(object: &mut Value, text: String) -> Result<(), Problem> {
    if text.len() > LIMIT {
        return Err(Problem::conflict(
            key::INJECTED,
            format!(
                "the annotations of this workload are too long together: what must be remembered of them takes {} bytes, \
                 and {LIMIT} are allowed; shorten the patterns of backup-include and backup-exclude",
                text.len()
            ),
        ));
    }
    if !at(object, "/metadata/annotations").is_some_and(Value::is_object) {
        set(object, "/metadata", "annotations", json!({}));
    }
    set(object, "/metadata/annotations", key::INJECTED, Value::String(text));
    Ok(())
}

fn set(object: &mut Value, parent: &str, name: &str, value: Value) {
    if let Some(parent) = at_mut(object, parent).and_then(Value::as_object_mut) {
        parent.insert(name.to_owned(), value);
    }
}

/// Adds items to a list of the pod; the list is made where there is none.
fn extend(object: &mut Value, name: &str, items: Vec<Value>, index: Option<usize>, from: &mut BTreeMap<String, Value>) {
    let path = format!("{POD}/{name}");
    let existing = at(object, &path).and_then(Value::as_array).map_or(0, Vec::len);
    if existing == 0 {
        from.insert(path.clone(), before(object, &path));
        set(object, POD, name, json!([]));
    }
    if let Some(Value::Array(list)) = at_mut(object, &path) {
        let index = index.unwrap_or(list.len()).min(list.len());
        list.splice(index..index, items);
    }
}
