//! What was filled with secrets, and from what: `.vixens-backup/rendered.json` in the volume. It holds templates and
//! digests, no secret. One that is missing or damaged means that nothing is known, which never writes over an edit.

use super::place::Place;
use super::{Error, OURS};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

const FILE: &str = "rendered.json";
const VERSION: u32 = 1;

/// One file that was filled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Before it was filled.
    template: String,
    /// SHA-256 of what was written.
    rendered: String,
    /// SHA-256 of what stood there before that: a kill may have kept it.
    before: String,
}

impl Record {
    pub(super) fn template(&self) -> &[u8] {
        self.template.as_bytes()
    }

    /// Whether a file is as we left it.
    pub(super) fn knows(&self, content: &[u8]) -> bool {
        let digest = digest(content);
        digest == self.rendered || digest == self.before
    }
}

/// All of them, by path; a path that is no text is not recorded.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Records {
    version: u32,
    files: BTreeMap<String, Record>,
    #[serde(skip)]
    is_changed: bool,
}

impl Records {
    pub(super) fn read(volume: &Path) -> Self {
        std::fs::read(volume.join(OURS).join(FILE))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            .filter(|records| records.version == VERSION)
            .unwrap_or_default()
    }

    pub(super) fn of(&self, path: &Path) -> Option<&Record> {
        self.files.get(path.to_str()?)
    }

    /// Records a file that is filled now. A template that is no text is not recorded: nobody rotates secrets in it.
    pub(super) fn set(&mut self, path: &Path, template: &[u8], rendered: &[u8], current: Option<&[u8]>) {
        let (Some(path), Ok(template)) = (path.to_str(), std::str::from_utf8(template)) else {
            return;
        };
        let rendered = digest(rendered);
        let before = current.map(digest).unwrap_or_default();
        let is_known = self
            .files
            .get(path)
            .is_some_and(|record| record.template == template && record.rendered == rendered && before == rendered);
        if !is_known {
            let record = Record {
                template: template.to_owned(),
                rendered,
                before,
            };
            self.files.insert(path.to_owned(), record);
            self.is_changed = true;
        }
    }

    pub(super) fn write(&mut self, place: &Place) -> Result<(), Error> {
        if !self.is_changed {
            return Ok(());
        }
        self.version = VERSION;
        let text = serde_json::to_vec(self).unwrap_or_default();
        place.write(&Path::new(OURS).join(FILE), &text)
    }
}

/// SHA-256, in hexadecimal.
fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write;
        let _ = write!(text, "{byte:02x}");
        text
    })
}
