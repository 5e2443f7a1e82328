//! PURE: the text of manifests (YAML with several documents, JSON, Lists) → its objects, each replaced by what takes its
//! place, or passed on byte for byte.
//!
//! A document that does not hold our prefix can't be ours: it is not even parsed.

use crate::policy::PREFIX;
use crate::workload::text;
use serde_json::Value;

/// A document that may be ours could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not YAML.
    #[error("document {index} is not YAML")]
    Yaml {
        /// Counted from 1.
        index: usize,
        /// Where and why.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// It is not JSON.
    #[error("document {index} is not JSON")]
    Json {
        /// Counted from 1.
        index: usize,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A document could not be written back.
    #[error("document {index} could not be written as YAML")]
    Write {
        /// Counted from 1.
        index: usize,
        /// Why.
        #[source]
        source: Box<serde_saphyr::ser::Error>,
    },
}

/// Between two documents that are ours to write.
const SEPARATOR: &str = "---\n";

/// One document, and what stands before it.
#[derive(Debug)]
struct Document<'a> {
    /// The separator's line, `---` and what follows it; empty at the start of a file.
    separator: &'a str,
    body: &'a str,
}

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It stays, byte for byte.
    Stays,
    /// These take its place; none: it is left out.
    Becomes(Vec<Value>),
}

/// Rewrites each object of a text, those inside Lists one by one, with `change`. Objects without our prefix are not shown,
/// unless they share a document with one that has it.
pub fn rewrite(input: &str, mut change: impl FnMut(&Value) -> Change) -> Result<String, Error> {
    let mut output = String::with_capacity(input.len() + input.len() / 2);
    for (index, document) in documents(input).into_iter().enumerate() {
        let rewritten = if document.body.contains(PREFIX) {
            rewrite_document(index + 1, document.body, &mut change)?
        } else {
            None
        };
        match rewritten {
            None => {
                output.push_str(document.separator);
                output.push_str(document.body);
            }
            Some(text) if text.trim().is_empty() => {}
            Some(text) => {
                // What stood behind the dashes was part of the document, unless it was a comment.
                let rest = document.separator.trim_start_matches('-').trim();
                if rest.is_empty() || rest.starts_with('#') {
                    output.push_str(document.separator);
                } else {
                    output.push_str(SEPARATOR);
                }
                output.push_str(&text);
            }
        }
    }
    Ok(output)
}

/// Calls `visit` with each object of a text, in order, as [`rewrite`] does.
pub fn visit(input: &str, mut visit: impl FnMut(&Value)) -> Result<(), Error> {
    rewrite(input, |object| {
        visit(object);
        Change::Stays
    })
    .map(drop)
}

/// The Namespaces that a text makes. A document that can't be read makes none.
pub fn namespaces(input: &str) -> Vec<String> {
    fn collect(object: &Value, names: &mut Vec<String>) {
        if text(object, "/apiVersion") == Some("v1") && text(object, "/kind") == Some("Namespace") {
            names.extend(text(object, "/metadata/name").map(str::to_owned));
        }
        for item in object.get("items").and_then(Value::as_array).into_iter().flatten() {
            collect(item, names);
        }
    }
    let mut names = Vec::new();
    for document in documents(input) {
        if document.body.contains("Namespace")
            && let Ok(object) = serde_saphyr::from_str::<Value>(document.body)
        {
            collect(&object, &mut names);
        }
    }
    names
}

fn documents(input: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut separator, mut body_start) = ("", 0);
    let mut offset = 0;
    for line in input.split_inclusive('\n') {
        let is_separator = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_separator {
            if offset > 0 {
                documents.push(Document {
                    separator,
                    body: &input[body_start..offset],
                });
            }
            let content = line[3..].trim();
            // A document may begin on the separator's own line.
            if content.is_empty() || content.starts_with('#') {
                separator = line;
                body_start = offset + line.len();
            } else {
                separator = &line[..3];
                body_start = offset + 3;
            }
        }
        offset += line.len();
    }
    documents.push(Document {
        separator,
        body: &input[body_start..],
    });
    documents
}

fn rewrite_document(
    index: usize,
    body: &str,
    change: &mut impl FnMut(&Value) -> Change,
) -> Result<Option<String>, Error> {
    if body.trim_start().starts_with('{')
        && let Some(text) = rewrite_json(index, body, change)?
    {
        return Ok(text);
    }
    let options = serde_saphyr::options! {
        // As kubectl reads them: defaultMode: 0755.
        legacy_octal_numbers: true,
        budget: None,
    };
    let object: Value = serde_saphyr::from_str_with_options(body, options).map_err(|source| Error::Yaml {
        index,
        source: Box::new(source),
    })?;
    let Change::Becomes(objects) = rewrite_object(&object, change) else {
        return Ok(None);
    };
    let options = serde_saphyr::ser_options! {
        compact_list_indent: true,
        folded_wrap_chars: usize::MAX,
    };
    let texts: Result<Vec<String>, _> = objects
        .iter()
        .map(|object| serde_saphyr::to_string_with_options(object, options.clone()))
        .collect();
    let texts = texts.map_err(|source| Error::Write {
        index,
        source: Box::new(source),
    })?;
    Ok(Some(texts.join(SEPARATOR)))
}

/// JSON objects, one behind the other. The outer `None`: it is not JSON but YAML that begins with a brace.
#[expect(clippy::option_option, reason = "not JSON, JSON unchanged, JSON changed")]
fn rewrite_json(
    index: usize,
    body: &str,
    change: &mut impl FnMut(&Value) -> Change,
) -> Result<Option<Option<String>>, Error> {
    let mut output = String::new();
    let mut is_changed = false;
    let mut start = 0;
    let mut values = serde_json::Deserializer::from_str(body).into_iter::<Value>();
    while let Some(value) = values.next() {
        let object = match value {
            Ok(object) => object,
            Err(_) if start == 0 => return Ok(None),
            Err(source) => return Err(Error::Json { index, source }),
        };
        let end = values.byte_offset();
        match rewrite_object(&object, change) {
            Change::Stays => output.push_str(&body[start..end]),
            Change::Becomes(objects) => {
                is_changed = true;
                let space = body[start..end].len() - body[start..end].trim_start().len();
                output.push_str(&body[start..start + space]);
                let texts: Result<Vec<String>, _> = objects.iter().map(serde_json::to_string_pretty).collect();
                let texts = texts.map_err(|source| Error::Json { index, source })?;
                // Where each document is taken for one object, as by Argo CD, there are as many as objects.
                output.push_str(&texts.join("\n---\n"));
            }
        }
        start = end;
    }
    output.push_str(&body[start..]);
    Ok(Some(is_changed.then_some(output)))
}

/// An object, or those of a List.
fn rewrite_object(object: &Value, change: &mut impl FnMut(&Value) -> Change) -> Change {
    let list = text(object, "/kind").and_then(|kind| kind.strip_suffix("List"));
    let (Some(kind), Some(items)) = (list, object.get("items").and_then(Value::as_array)) else {
        return match change(object) {
            Change::Becomes(objects) if matches!(&objects[..], [same] if same == object) => Change::Stays,
            change => change,
        };
    };
    let mut rewritten = Vec::with_capacity(items.len());
    let mut is_changed = false;
    for item in items {
        // The items of a DeploymentList may leave out what the list says.
        let mut typed = item.clone();
        let is_typed = kind.is_empty() || item.get("kind").is_some();
        if let (false, Some(entries)) = (is_typed, typed.as_object_mut()) {
            entries.insert("kind".to_owned(), Value::from(kind));
            entries.insert("apiVersion".to_owned(), object["apiVersion"].clone());
        }
        match rewrite_object(&typed, change) {
            Change::Stays => rewritten.push(item.clone()),
            Change::Becomes(mut objects) => {
                is_changed = true;
                for new in objects.iter_mut().filter(|new| !is_typed && new["kind"] == kind) {
                    if let Some(entries) = new.as_object_mut() {
                        entries.shift_remove("kind");
                        entries.shift_remove("apiVersion");
                    }
                }
                rewritten.append(&mut objects);
            }
        }
    }
    if !is_changed {
        return Change::Stays;
    }
    let mut changed = object.clone();
    changed["items"] = Value::Array(rewritten);
    Change::Becomes(vec![changed])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(input: &str) -> String {
        rewrite(input, |object| {
            if crate::workload::kind(object).is_none() {
                return Change::Stays;
            }
            let mut changed = object.clone();
            changed["seen"] = Value::from(true);
            Change::Becomes(vec![changed])
        })
        .unwrap()
    }

    /// A text with a Job behind each workload, and without the Jobs that it had.
    fn accompanied(input: &str) -> String {
        rewrite(input, |object| {
            let job = serde_json::json!({"kind": "Job", "metadata": {"labels": {"vixens.io/backup-job": "x"}}});
            if *object == job {
                Change::Becomes(Vec::new())
            } else if crate::workload::kind(object).is_some() {
                Change::Becomes(vec![object.clone(), job])
            } else {
                Change::Stays
            }
        })
        .unwrap()
    }

    const OURS: &str =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: app\n  annotations:\n    vixens.io/backup: tier2\n";

    #[test]
    fn documents_that_are_not_ours_pass_byte_for_byte_and_in_order() {
        let other = "# a comment\r\nkind:   ConfigMap\napiVersion: v1\ndata: {a: \"x\\ty\"}   # kept\n";
        let input = format!("%YAML 1.2\n--- # first\n{other}---\n{OURS}---\n\n---\n{other}...\n---\nnot: [valid\n");
        let output = marked(&input);
        assert_eq!(output.matches(other).count(), 2);
        assert_eq!(output.replace("seen: true\n", ""), input);
    }

    #[test]
    fn an_input_without_anything_of_ours_comes_back_as_it_was() {
        for input in [
            "",
            "---\n",
            "a: b",
            "---\r\na: b\r\n---\r\n",
            "text: |\n  ---\n  more\n--- \nx: y",
        ] {
            assert_eq!(marked(input), input);
        }
    }

    #[test]
    fn json_stays_json_and_several_objects_stay_apart() {
        let object =
            r#"{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"annotations":{"vixens.io/backup":"tier2"}}}"#;
        let other = r#"{"kind":"ConfigMap",  "apiVersion":"v1"}"#;
        let output = marked(&format!("{other}\n{object}\n{other}\n"));
        assert_eq!(output.matches(other).count(), 2);
        assert!(output.contains("\"seen\": true"), "{output}");
        let values: Vec<Value> = serde_json::Deserializer::from_str(&output)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(values.len(), 3);
    }

    #[test]
    fn workloads_inside_lists_are_found_and_their_neighbours_left() {
        let input = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n- apiVersion: apps/v1\n  kind: Deployment\n  metadata: {annotations: {vixens.io/backup: tier2}}\n";
        let output: Value = serde_saphyr::from_str(&marked(input)).unwrap();
        assert_eq!(output["items"][1]["seen"], true);
        assert_eq!(output["items"][0].get("seen"), None);
        let typed =
            "apiVersion: apps/v1\nkind: DeploymentList\nitems:\n- metadata: {annotations: {vixens.io/backup: tier2}}\n";
        let output: Value = serde_saphyr::from_str(&marked(typed)).unwrap();
        assert_eq!(output["items"][0]["seen"], true);
        assert_eq!(output["items"][0].get("kind"), None);
    }

    #[test]
    fn what_is_added_stands_behind_its_workload_and_can_be_taken_away_again() {
        let other = "kind: ConfigMap # kept\n";
        let yaml = format!("{other}---\n{OURS}---\n{other}");
        let added = accompanied(&yaml);
        let kinds: Vec<&str> = added.lines().filter(|line| line.starts_with("kind: ")).collect();
        assert_eq!(
            kinds,
            [
                "kind: ConfigMap # kept",
                "kind: Deployment",
                "kind: Job",
                "kind: ConfigMap # kept"
            ]
        );
        assert_eq!(accompanied(&added), added);

        let list = "apiVersion: v1\nkind: List\nitems:\n- {kind: ConfigMap}\n- apiVersion: apps/v1\n  kind: Deployment\n  \
            metadata: {annotations: {vixens.io/backup: tier2}}\n- {kind: Secret}\n";
        let added: Value = serde_saphyr::from_str(&accompanied(list)).unwrap();
        let kinds: Vec<&Value> = added["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| &item["kind"])
            .collect();
        assert_eq!(kinds, ["ConfigMap", "Deployment", "Job", "Secret"]);

        let json = concat!(
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"annotations":{"vixens.io/backup":"tier2"}}}"#,
            "\n"
        );
        let added = accompanied(json);
        let documents: Vec<&str> = added.split("\n---\n").collect();
        assert_eq!(documents.len(), 2);
        for document in documents {
            serde_json::from_str::<Value>(document).unwrap();
        }
        assert_eq!(accompanied(&added), added);
    }

    #[test]
    fn what_readers_could_take_for_something_else_is_quoted_and_octal_is_read_as_kubectl_does() {
        let input = format!(
            "{OURS}spec:\n  mode: 0755\n  texts: ['off', 'yes', '0755', '1e3', '12:30', '~', '', '2026-11-22', ' x', 'a: b', '#c', \"two\\nlines\\n\"]\n"
        );
        let output = marked(&input);
        let value: Value = serde_saphyr::from_str(&output).unwrap();
        assert_eq!(value["spec"]["mode"], 493);
        let texts = [
            "off",
            "yes",
            "0755",
            "1e3",
            "12:30",
            "~",
            "",
            "2026-11-22",
            " x",
            "a: b",
            "#c",
            "two\nlines\n",
        ];
        assert_eq!(value["spec"]["texts"], serde_json::json!(texts));
        for text in ["off", "yes", "0755", "1e3", "12:30", "~"] {
            assert!(!output.contains(&format!("- {text}\n")), "{output}");
        }
    }

    #[test]
    fn a_document_of_ours_that_is_no_yaml_is_named() {
        let error = rewrite("a: b\n---\nvixens.io/backup: [", |_| Change::Stays).unwrap_err();
        assert_eq!(error.to_string(), "document 2 is not YAML");
    }
}
