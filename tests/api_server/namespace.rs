//! A namespace of one case, and what its owner does in it.

use crate::control_plane::{Said, control_plane};
use serde_json::{Value, json};

/// A namespace, which is removed with this value.
pub(crate) struct Namespace {
    name: String,
}

/// Makes a namespace with `labels`, those of a webhook that is to be asked about it, and removes it after `case`.
pub(crate) fn in_namespace<T>(labels: &Value, name: &str, case: impl FnOnce(&Namespace) -> T) -> T {
    case(&Namespace::new(labels, name))
}

/// The same for a namespace that no webhook is asked about.
pub(crate) fn in_plain_namespace<T>(name: &str, case: impl FnOnce(&Namespace) -> T) -> T {
    case(&Namespace::new(&json!({}), name))
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Where the control plane is gone already, so is the namespace.
        control_plane().kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}

impl Namespace {
    /// Makes one.
    pub(crate) fn new(labels: &Value, name: &str) -> Self {
        control_plane().apply(&json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels}}));
        Self { name: name.to_owned() }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// kubectl in this namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Said {
        self.kubectl_with(arguments, &Value::Null, &[])
    }

    /// The same with a manifest on its standard input, and environment variables.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], manifest: &Value, variables: &[(&str, &str)]) -> Said {
        let arguments: Vec<&str> = [&["--namespace", &self.name], arguments].concat();
        control_plane().kubectl_with(&arguments, manifest, variables)
    }

    /// An object, by `kind/name`.
    pub(crate) fn get(&self, object: &str) -> Value {
        control_plane().get(&["--namespace", &self.name, object])
    }

    /// Applies `manifest`, which must pass; what kubectl said.
    #[track_caller]
    pub(crate) fn accepts(&self, manifest: &Value) -> Said {
        let said = self.kubectl_with(&["apply", "-f", "-"], manifest, &[]);
        assert!(said.succeeded, "refused: {said:#?}");
        said
    }

    /// Applies `manifest`, which must be refused; what the person who applies reads.
    #[track_caller]
    pub(crate) fn rejects(&self, manifest: &Value) -> String {
        self.kubectl_with(&["apply", "-f", "-"], manifest, &[]).fails()
    }
}
