//! PURE: two objects → the smallest JSON Patch between them that can be found by looking at each list's common head
//! and tail: what we do to a list is insert and remove.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::{Map, Value};

/// The patch that turns `from` into `to`.
pub fn patch(from: &Value, to: &Value) -> Patch {
    let mut operations = Vec::new();
    compare(&mut PointerBuf::root(), from, to, &mut operations);
    Patch(operations)
}

fn compare(path: &mut PointerBuf, from: &Value, to: &Value, operations: &mut Vec<PatchOperation>) {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => compare_maps(path, from, to, operations),
        (Value::Array(from), Value::Array(to)) => compare_lists(path, from, to, operations),
        _ if from == to => {}
        _ => operations.push(PatchOperation::Replace(ReplaceOperation {
            path: path.clone(),
            value: to.clone(),
        })),
    }
}

fn compare_maps(
    path: &mut PointerBuf,
    from: &Map<String, Value>,
    to: &Map<String, Value>,
    operations: &mut Vec<PatchOperation>,
) {
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        path.push_back(name.as_str());
        operations.push(PatchOperation::Remove(RemoveOperation { path: path.clone() }));
        path.pop_back();
    }
    for (name, value) in to {
        path.push_back(name.as_str());
        match from.get(name) {
            Some(old) => compare(path, old, value, operations),
            None => operations.push(PatchOperation::Add(AddOperation {
                path: path.clone(),
                value: value.clone(),
            })),
        }
        path.pop_back();
    }
}

fn compare_lists(path: &mut PointerBuf, from: &[Value], to: &[Value], operations: &mut Vec<PatchOperation>) {
    let head = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let (from_rest, to_rest) = (&from[head..], &to[head..]);
    let tail = from_rest
        .iter()
        .rev()
        .zip(to_rest.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let removed = &from_rest[..from_rest.len() - tail];
    let added = &to_rest[..to_rest.len() - tail];
    let paired = removed.len().min(added.len());
    for (offset, (old, new)) in removed.iter().zip(added).enumerate() {
        path.push_back(head + offset);
        compare(path, old, new, operations);
        path.pop_back();
    }
    for _ in paired..removed.len() {
        path.push_back(head + paired);
        operations.push(PatchOperation::Remove(RemoveOperation { path: path.clone() }));
        path.pop_back();
    }
    for (offset, value) in added.iter().enumerate().skip(paired) {
        path.push_back(head + offset);
        operations.push(PatchOperation::Add(AddOperation {
            path: path.clone(),
            value: value.clone(),
        }));
        path.pop_back();
    }
}
