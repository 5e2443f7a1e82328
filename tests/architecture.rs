//! Dependencies point one way (src/lib.rs): which module of the crate may use which.

#![expect(clippy::unwrap_used, reason = "a test says what failed by failing")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module, and what it may use. `agent::arguments` stands for itself: it is where both halves meet.
const ALLOWED: &[(&str, &[&str])] = &[
    ("agent::arguments", &[]),
    ("contract", &["agent::arguments"]),
    ("policy", &["agent::arguments"]),
    ("workload", &["policy", "agent::arguments"]),
    ("inject", &["contract", "workload", "policy", "agent::arguments"]),
    ("manifests", &["workload", "policy"]),
    // Readiness waits until the API server trusts the certificates.
    ("certificates", &["admission"]),
    ("admission", &["inject", "policy", "workload", "agent::arguments"]),
    // What it keeps is what `inject` makes; readiness says whether the webhook can be asked.
    (
        "controller",
        &[
            "admission",
            "contract",
            "inject",
            "policy",
            "workload",
            "agent::arguments",
        ],
    ),
    (
        "serve",
        &["admission", "certificates", "controller", "inject", "policy"],
    ),
    ("store", &["agent::arguments"]),
    ("agent", &["contract", "store", "agent::arguments"]),
    ("operator", &["agent", "contract", "store", "agent::arguments"]),
    (
        "cli",
        &[
            "agent",
            "operator",
            "serve",
            "inject",
            "manifests",
            "policy",
            "workload",
            "agent::arguments",
        ],
    ),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The module that a file below `src` belongs to.
fn module(path: &Path) -> String {
    let text = path.to_string_lossy().replace('/', "::");
    let text = text.trim_end_matches(".rs");
    if text.starts_with("agent::arguments") {
        return "agent::arguments".to_owned();
    }
    text.split("::").next().unwrap().to_owned()
}

/// The modules that a text names behind `crate::`.
fn used(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let group = rest
            .strip_prefix('{')
            .map(|rest| rest.split('}').next().unwrap_or_default());
        for path in group
            .unwrap_or(rest)
            .split(',')
            .take(if group.is_some() { usize::MAX } else { 1 })
        {
            let path = path.trim();
            let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let is_arguments = path.starts_with("agent::arguments") || path.starts_with("agent::{arguments");
            used.insert(if is_arguments {
                "agent::arguments".to_owned()
            } else {
                name
            });
        }
    }
    used
}

#[test]
fn no_module_uses_one_that_it_must_not() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut broken = Vec::new();
    let mut looked_at = 0;
    for path in files(&source) {
        let relative = path.strip_prefix(&source).unwrap();
        let module = module(relative);
        if ["main", "lib", "bin"].contains(&module.as_str()) {
            continue;
        }
        let Some(allowed) = allowed.get(module.as_str()) else {
            broken.push(format!("{module} has no line in the table of this test"));
            continue;
        };
        looked_at += 1;
        // A lone name behind `crate::` that is no module is a macro or a re-export of the root.
        let is_module = |name: &String| ALLOWED.iter().any(|(known, _)| known == name);
        for name in used(&std::fs::read_to_string(&path).unwrap())
            .iter()
            .filter(|name| is_module(name))
        {
            if *name != module && !allowed.contains(&name.as_str()) {
                broken.push(format!("{} uses {name}", relative.display()));
            }
        }
    }
    assert!(looked_at > 50, "the source was found");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_pure_modules_do_no_input_or_output_and_know_no_clock() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let forbidden = [
        "std::fs",
        "std::net",
        "std::process",
        "std::time::SystemTime",
        "Instant::now",
        "Timestamp::now",
        "tokio",
        "kube::",
    ];
    for pure in ["policy", "workload", "inject", "manifests", "agent/arguments"] {
        for path in files(&source.join(pure)) {
            if path.to_string_lossy().contains("tests") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for word in forbidden {
                assert!(!code.contains(word), "{} uses {word}", path.display());
            }
        }
    }
}
