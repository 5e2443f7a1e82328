//! What is to be held and is known by its name alone, as in a place that was made by hand → its content, read from the
//! mirror: an index says of each file what it is. Reads the store; writes to scratch, and the plan anew.

use super::backup::{Failure, Site};
use super::batch::blocking;
use super::stage::mirror_name;
use crate::agent::restore::verify::sha256_of;
use crate::agent::scan::{Entry, Kind, Record};
use crate::agent::snapshot::changes::{Plan, PlanError};
use crate::agent::snapshot::spool::Change;
use crate::store::unwatched;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

/// So much is read at a time.
const PORTION_FILES: usize = 500;
const PORTION_BYTES: u64 = 64 << 20;

/// What became of a file.
enum Content {
    /// Its size and SHA-256.
    Read(u64, [u8; 32]),
    /// The mirror has lost it.
    Lost,
    /// It is there, and can't be read: its name, and what was said.
    Unread(String, String),
}

/// By path of the index.
type Contents = BTreeMap<Vec<u8>, Content>;

fn is_unread(record: &Record) -> bool {
    record.entry.kind == Kind::File && record.digest.is_none()
}

impl Site {
    /// Reads what a plan keeps and nobody has read. What the mirror has lost can't be kept. What can't be read is in no snapshot,
    /// which would have to say what it is: its names are returned, and stay in the mirror.
    pub(super) async fn read_kept(&self, plan: &mut Plan) -> Result<(Vec<String>, BTreeSet<String>), Failure> {
        let mut contents = Contents::new();
        let (mut portion, mut bytes) = (Vec::new(), 0);
        for change in plan.changes().map_err(PlanError::from)? {
            if let Change::Carried { record } = change.map_err(PlanError::from)?
                && is_unread(&record)
            {
                bytes += record.stored_size;
                portion.push(record);
            }
            if portion.len() >= PORTION_FILES || bytes >= PORTION_BYTES {
                contents.extend(self.read_portion(std::mem::take(&mut portion)).await?);
                bytes = 0;
            }
        }
        contents.extend(self.read_portion(portion).await?);
        if contents.is_empty() {
            return Ok(Default::default());
        }
        let destination = self.store.destination();
        let is_lost = |content: &Content| matches!(content, Content::Lost);
        let lost = contents.values().filter(|content| is_lost(content)).count();
        let first = contents.iter().find(|(_, content)| is_lost(content));
        let mut warnings: Vec<String> = Vec::new();
        warnings.extend(first.map(|(path, _)| {
            format!(
                "{destination} has lost {lost} files that are gone from the volumes too, such as {}: nothing is left of them",
                String::from_utf8_lossy(path)
            )
        }));
        let mut unread = BTreeSet::new();
        for content in contents.values() {
            if let Content::Unread(name, why) = content {
                if unread.is_empty() {
                    warnings.push(format!(
                        "{destination} can't read {name}, or others with it, which are gone from the volumes ({why}): no snapshot \
                         has them from now on, and they stay where they are"
                    ));
                }
                unread.insert(name.clone());
            }
        }
        self.fill(plan, &contents)?;
        Ok((warnings, unread))
    }

    async fn read_portion(&self, records: Vec<Record>) -> Result<Contents, Failure> {
        if records.is_empty() {
            return Ok(Contents::new());
        }
        let folder = self.scratch.join("kept");
        let names: Vec<String> = records.iter().map(mirror_name).collect();
        let undone = self.store.download("", &names, &folder, &unwatched).await?;
        let there = self.there(&undone).await?;
        self.require_claim().await?;
        let failed: BTreeMap<String, String> = undone
            .into_iter()
            .filter(|one| there.contains(&one.name))
            .map(|one| (one.name, one.why))
            .collect();
        blocking(move || {
            let mut contents = Contents::new();
            for (record, name) in records.into_iter().zip(names) {
                let content = match (File::open(folder.join(&name)), failed.get(&name)) {
                    // A half of it may have come.
                    (_, Some(why)) => Content::Unread(name, why.clone()),
                    (Ok(mut file), None) => Content::Read(file.metadata()?.len(), sha256_of(&mut file)?),
                    (Err(error), None) if error.kind() == io::ErrorKind::NotFound => Content::Lost,
                    (Err(error), None) => return Err(error),
                };
                contents.insert(record.entry.path, content);
            }
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(contents),
            }
        })
        .await
        .map_err(|source: io::Error| self.unusable(source))
    }

    /// Writes what was read into the plan.
    fn fill(&self, plan: &mut Plan, contents: &Contents) -> Result<(), PlanError> {
        plan.rewrite(|change| match change {
            Change::Carried { record } if is_unread(&record) => match contents.get(&record.entry.path) {
                Some(Content::Read(size, digest)) => Change::Carried {
                    record: Record {
                        digest: Some(*digest),
                        stored_size: *size,
                        entry: self.guessed(record.entry),
                        ..record
                    },
                },
                _ => Change::Gone {
                    known: record,
                    vanished: false,
                },
            },
            other => other,
        })
    }

    /// An entry that was only listed gets the owner of its volume, an ordinary mode, and today's date.
    fn guessed(&self, entry: Entry) -> Entry {
        if !entry.is_only_listed() {
            return entry;
        }
        let folder = entry.path.split(|byte| *byte == b'/').next().unwrap_or_default();
        let root = self.scope.look(&[folder, b"/"].concat()).ok().flatten();
        Entry {
            modified: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0),
            mode: 0o644,
            uid: root.as_ref().map_or(0, |root| root.uid),
            gid: root.as_ref().map_or(0, |root| root.gid),
            ..entry
        }
    }
}
