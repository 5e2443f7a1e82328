//! The folder that the injected containers of a pod share: the guide's marks, `layers.json` and `start.json`.

use super::Error;
use super::act::Outcome;
use super::subject::Subject;
use crate::agent::layers::Laid;
use crate::agent::lease::known::{KnownStores, STORES};
use crate::agent::restore::Brought;
use crate::agent::start::{START, Start};
use crate::store::records::{VERSION, encode};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The guide's mark: something was restored.
const RESTORE_SUCCESS: &str = ".restore-success";
/// The guide's mark: there was nothing to restore.
const NO_BACKUP: &str = ".no-backup";
/// Which layer won each file.
const LAYERS: &str = "layers.json";

/// The shared folder.
pub(super) struct Shared<'a>(pub(super) &'a Path);

impl Shared<'_> {
    /// Removes the word of an earlier start in this pod: it is none about this one.
    pub(super) fn forget(&self) -> Result<(), Error> {
        for name in [START, STORES, RESTORE_SUCCESS, NO_BACKUP] {
            self.remove(name)?;
        }
        Ok(())
    }

    /// Leaves the guide's mark, where something was restored or there was nothing to restore. What could not be restored as it
    /// was is written in it.
    pub(super) fn leave_mark(&self, outcomes: &[Outcome]) -> Result<(), Error> {
        if outcomes.iter().any(|outcome| outcome.brought.is_some()) {
            let brought = outcomes.iter().filter_map(|outcome| outcome.brought.as_ref());
            let told: String = brought.flat_map(Brought::told).map(|line| line + "\n").collect();
            self.write(RESTORE_SUCCESS, told.as_bytes())
        } else if outcomes.iter().all(|outcome| outcome.kept) {
            Ok(())
        } else {
            self.write(NO_BACKUP, b"")
        }
    }

    /// For each file, the layer that won. Of volumes that were kept, only what layers 1 and 3 name.
    pub(super) fn write_layers(&self, subjects: &[Subject], outcomes: &[Outcome], laid: &Laid) -> Result<(), Error> {
        let mut files: BTreeMap<String, &str> = BTreeMap::new();
        for (subject, outcome) in subjects.iter().zip(outcomes) {
            for path in outcome.brought.iter().flat_map(|brought| &brought.paths) {
                files.insert(format!("{}/{}", subject.folder, path.display()), "restored");
            }
        }
        if let Some(first) = subjects.first() {
            let key = |path: &PathBuf| format!("{}/{}", first.folder, path.display());
            for path in &laid.kept {
                files.entry(key(path)).or_insert("kept");
            }
            files.extend(laid.vanilla.iter().map(|path| (key(path), "vanilla")));
            files.extend(laid.rendered.iter().map(|path| (key(path), "secrets")));
        }
        let object = serde_json::json!({"version": VERSION, "files": files, "layers": laid});
        self.write(LAYERS, &encode(&object))
    }

    /// What is known of each destination.
    pub(super) fn write_known(&self, known: &KnownStores) -> Result<(), Error> {
        known.write(self.0).map_err(|source| self.failed(STORES, source))
    }

    /// The last word.
    pub(super) fn write_start(&self, start: &Start) -> Result<(), Error> {
        start.write(self.0).map_err(|source| self.failed(START, source))
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        std::fs::write(self.0.join(name), content).map_err(|source| self.failed(name, source))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        match std::fs::remove_file(self.0.join(name)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.failed(name, source)),
            _ => Ok(()),
        }
    }

    fn failed(&self, name: &str, source: io::Error) -> Error {
        Error::Shared {
            path: self.0.join(name),
            source,
        }
    }
}
