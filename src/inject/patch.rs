//! PURE: two objects → the smallest JSON Patch between them that can be found by looking at each list's common head
//! and tail: what we do to a list is insert and remove.

use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::{Map, Value};

/// The patch that turns `from` into `to`. What is added is moved into it.
pub fn patch(from: &Value, to: Value) -> Patch {
    let mut operations = Vec::new();
    compare(Path::Root, from, to, &mut operations);
    Patch(operations)
}

/// Where we are. Written out only where something differs.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Name(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn pointer(self) -> PointerBuf {
        match self {
            Self::Root => PointerBuf::root(),
            Self::Name(parent, name) => parent.and(Token::new(name)),
            Self::Index(parent, index) => parent.and(Token::from(index)),
        }
    }

    fn and(self, token: Token<'_>) -> PointerBuf {
        let mut pointer = self.pointer();
        pointer.push_back(token);
        pointer
    }

    fn add(self, value: Value) -> PatchOperation {
        let path = self.pointer();
        PatchOperation::Add(AddOperation { path, value })
    }

    fn remove(self) -> PatchOperation {
        let path = self.pointer();
        PatchOperation::Remove(RemoveOperation { path })
    }

    fn replace(self, value: Value) -> PatchOperation {
        let path = self.pointer();
        PatchOperation::Replace(ReplaceOperation { path, value })
    }
}

fn compare(path: Path<'_>, from: &Value, to: Value, operations: &mut Vec<PatchOperation>) {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => compare_maps(path, from, to, operations),
        (Value::Array(from), Value::Array(to)) => compare_lists(path, from, to, operations),
        (from, to) if *from == to => {}
        (_, to) => operations.push(path.replace(to)),
    }
}

fn compare_maps(
    path: Path<'_>,
    from: &Map<String, Value>,
    to: Map<String, Value>,
    operations: &mut Vec<PatchOperation>,
) {
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        operations.push(Path::Name(&path, name).remove());
    }
    for (name, value) in to {
        let path = Path::Name(&path, &name);
        match from.get(&name) {
            Some(old) => compare(path, old, value, operations),
            None => operations.push(path.add(value)),
        }
    }
}

fn compare_lists(path: Path<'_>, from: &[Value], to: Vec<Value>, operations: &mut Vec<PatchOperation>) {
    let head = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let (from_rest, to_rest) = (&from[head..], &to[head..]);
    let tail = from_rest
        .iter()
        .rev()
        .zip(to_rest.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let removed = &from_rest[..from_rest.len() - tail];
    let added = to_rest.len() - tail;
    let paired = removed.len().min(added);
    let mut added = to.into_iter().skip(head).take(added);
    for (offset, (old, new)) in removed.iter().zip(added.by_ref().take(paired)).enumerate() {
        compare(Path::Index(&path, head + offset), old, new, operations);
    }
    for _ in paired..removed.len() {
        operations.push(Path::Index(&path, head + paired).remove());
    }
    for (offset, value) in added.enumerate() {
        operations.push(Path::Index(&path, head + paired + offset).add(value));
    }
}
