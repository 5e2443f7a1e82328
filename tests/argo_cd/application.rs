//! An Application: what Argo CD says of it, and whether it leaves it alone.

use crate::control_plane::{control_plane, eventually};
use serde_json::Value;

const NAMESPACE: &str = "--namespace=argocd";

/// An Application of Argo CD's, by name.
pub(crate) struct Application {
    name: String,
}

impl Application {
    /// Applies its manifest.
    pub(crate) fn apply(manifest: &Value) -> Self {
        control_plane().apply(manifest);
        Self {
            name: manifest["metadata"]["name"].as_str().expect("a name").to_owned(),
        }
    }

    /// Waits until `revision` was applied, and nothing differs from it.
    #[track_caller]
    pub(crate) fn await_synced(&self, revision: &str) {
        let object = format!("application/{}", self.name);
        for (path, value) in [
            ("operationState.syncResult.revision", revision),
            ("operationState.phase", "Succeeded"),
            ("sync.revision", revision),
            ("sync.status", "Synced"),
        ] {
            let until = format!("--for=jsonpath={{.status.{path}}}={value}");
            let said = control_plane().kubectl(&[NAMESPACE, "wait", &object, &until, "--timeout=60s"]);
            assert!(said.succeeded, "{}\n{:#}", said.stderr, self.status());
        }
    }

    /// Has it compared anew with what Git has now, as by a call from the Git server. What came of it.
    pub(crate) fn refresh(&self) -> Value {
        let object = format!("application/{}", self.name);
        let annotate = ["annotate", &object, "argocd.argoproj.io/refresh=normal"];
        control_plane()
            .kubectl(&[&[NAMESPACE], &annotate[..]].concat())
            .succeeds();
        eventually(&format!("{} is compared anew", self.name), || {
            let mut object = self.get();
            // Argo CD takes it away with what it has found.
            let done = object["metadata"]["annotations"]["argocd.argoproj.io/refresh"].is_null();
            done.then(|| object["status"].take())
        })
    }

    /// Compares again and again: nothing may differ, nothing may be applied, and what `look` sees stands still.
    pub(crate) fn stands_still<T: PartialEq + std::fmt::Debug>(&self, look: impl Fn() -> T) {
        let operation = self.status()["operationState"].clone();
        let before = look();
        for _ in 0..5 {
            let status = self.refresh();
            assert_eq!(status["sync"]["status"], "Synced", "{:#}", status["resources"]);
            assert_eq!(status["operationState"], operation, "it was applied again");
            assert_eq!(look(), before);
        }
    }

    /// How many times it was applied.
    pub(crate) fn syncs(&self) -> usize {
        self.status()["history"].as_array().map_or(0, Vec::len)
    }

    fn status(&self) -> Value {
        self.get()["status"].take()
    }

    fn get(&self) -> Value {
        control_plane().get(&[NAMESPACE, "application", &self.name])
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // Else it would go on to bring back what its case removes.
        control_plane().kubectl(&[NAMESPACE, "delete", "application", &self.name]);
    }
}
