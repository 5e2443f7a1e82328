//! What was uploaded → the snapshot that says so; then what it deleted goes. Part of [`Site`].

use super::{Begun, Failure, Site};
use crate::agent::scan::Kind;
use crate::agent::sidecar::batch::blocking;
use crate::agent::sidecar::twin::{write_index, write_twin};
use crate::agent::snapshot::changes::{Plan, PlanError};
use crate::store::index::{Carried, Header, IndexedVolume};
use crate::store::{self, Upload, keys};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// A complete index at least so often.
const FULL_EVERY: SignedDuration = SignedDuration::from_hours(24);

impl Site {
    /// Writes the index: a difference to the base, or all of it.
    pub(super) async fn publish(&mut self, begun: &mut Begun) -> Result<(), Failure> {
        let now = Timestamp::now();
        let id = begun.id;
        let difference = (self.known.changed_since_base() + begun.outcomes.count()) as u64;
        let base = self.known.base().filter(|(base, made)| {
            base.epoch == id.epoch
                // One of a clock that was ahead is as good as old.
                && (SignedDuration::ZERO..FULL_EVERY).contains(&now.duration_since(*made))
                && u128::from(difference).pow(2) <= 2 * u128::from(self.known.base_entries().max(32))
        });
        let mut header = Header {
            id,
            base: base.map(|(id, _)| id),
            time: now,
            volumes: self
                .scope
                .volumes
                .iter()
                .map(|volume| IndexedVolume {
                    folder: volume.folder.clone(),
                    id: volume.id.clone(),
                })
                .collect(),
            databases: begun.databases.clone(),
            skipped: begun
                .report
                .skipped
                .iter()
                .map(|(reason, count)| (reason.as_str().to_owned(), *count))
                .collect(),
            carried: Carried::default(),
        };
        let (outcomes, again) = (begun.outcomes.read()?, [begun.outcomes.read()?, begun.outcomes.read()?]);
        let (known, placed, count) = (self.known.clone(), begun.placed, begun.outcomes.count());
        let (copies, saved) = (self.scope.copies.clone(), std::mem::take(&mut begun.saved));
        let [index, mark] = ["json", "base"].map(|extension| format!("{id}.{extension}"));
        let paths = [&index, &mark].map(|name| self.scratch.join(name));
        let (next, noted) = blocking(move || {
            let [index, mark] = paths;
            let next = if header.base.is_some() {
                known.changed(outcomes)?.published(id)
            } else {
                known.rebased(outcomes, id, now)?
            }
            .held_since(placed);
            let is_there = |path: &[u8]| matches!(next.get(path), Ok(Some(record)) if record.entry.kind == Kind::File);
            let noted = copies.note(&mut header.databases, &saved, id.epoch, is_there);
            if header.base.is_none() {
                write_twin(&known, again, count, &next, &header, &mark)?;
            }
            write_index(&next, &header, &index)?;
            Ok::<_, Failure>((next, noted))
        })
        .await?;
        if base.is_none() {
            // Before the index, never with it: retention takes a complete index without its mark for a difference, and
            // may remove what others build on.
            self.publish_document(mark).await?;
        }
        self.publish_document(index).await?;
        self.scope.copies.publish(noted);
        self.known = Arc::new(next);
        (self.learned, self.named, self.renew) = (Some(id), None, false);
        begun.report.snapshot = Some(id);
        Ok(())
    }

    /// Uploads a document of a snapshot from scratch.
    pub(super) async fn publish_document(&self, name: String) -> Result<(), Failure> {
        let files = [Upload {
            local: self.scratch.join(&name),
            name,
        }];
        let undone = self.store.upload(keys::SNAPSHOTS, &files, &store::unwatched).await;
        for file in &files {
            let _ = std::fs::remove_file(&file.local);
        }
        match undone? {
            undone if undone.is_empty() => Ok(()),
            undone => Err(Failure::Undone {
                what: "the index could not be published",
                count: files.len(),
                undone,
            }),
        }
    }

    /// The mirror copies of deleted files go, and last the pending mark.
    pub(super) async fn clean(&mut self, plan: &Plan, begun: &Begun) -> Result<(), Failure> {
        let mut names: Vec<String> = begun.withdrawn.iter().map(|(name, _)| name.clone()).collect();
        if begun.parts {
            names.extend(begun.strangers.iter().cloned());
        }
        if begun.report.deleted > 0 {
            for change in plan.changes().map_err(PlanError::from)? {
                names.extend(change.map_err(PlanError::from)?.leaves_the_mirror());
            }
        }
        names.retain(|name| !begun.unkept.contains(name));
        // The snapshot is there: what can't be deleted costs it nothing.
        let store = self.store.clone();
        if !names.is_empty() {
            self.deletions.delete(store.as_ref(), "", &names).await?;
        }
        let pending = [format!("{}.pending", begun.id)];
        self.deletions.delete(store.as_ref(), keys::SNAPSHOTS, &pending).await?;
        Ok(())
    }
}
