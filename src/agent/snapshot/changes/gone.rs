//! What is known, and was not met on the volumes → it vanished, it left with good reason, or it is carried along. Part of
//! [`Planner`].

use super::{Change, Kind, PlanError, Planner, Record, Skipped, Standing, Way, database, relative};
use crate::agent::scan::Entry;

impl Planner<'_> {
    /// What is known of a volume that is not protected any more is excluded, all of it.
    pub(super) fn unprotected(&mut self, folder: &[u8]) -> Result<(), PlanError> {
        let known = self.known;
        for record in known.below(folder)? {
            let record = record?;
            if self.accepted.takes(record.standing) {
                self.leaves(record)?;
            } else if record.standing.is_live() {
                self.excluded(record)?;
            }
        }
        Ok(())
    }

    /// The volume does not have it, or the policy does not take it.
    pub(super) fn gone(&mut self, known: Record) -> Result<(), PlanError> {
        match known.standing {
            _ if self.scope.given_up.has(&known.entry.path, known.digest.as_ref()) => self.leaves(known),
            Standing::Live => self.missing(known),
            standing if self.accepted.takes(standing) || self.yields(&known) => self.leaves(known),
            Standing::Held(_) => Ok(()),
            Standing::Excluded => match self.scope.look(&known.entry.path) {
                Ok(Some(found)) if !known.was_seen() && self.plan.full => self.fact(Entry {
                    inode: found.inode,
                    ..known.entry
                }),
                // Deleted while we looked.
                Ok(None) if known.was_seen() => self.leaves(known),
                _ => Ok(()),
            },
        }
    }

    /// A live entry that was not met.
    fn missing(&mut self, known: Record) -> Result<(), PlanError> {
        if self.yields(&known) {
            return self.leaves(known);
        }
        let scope = self.scope;
        let path = relative(&known.entry.path);
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let skipped = match known.entry.kind {
            Kind::Folder => scope.filters.folder(path),
            Kind::Symlink => scope.filters.file(path, 0),
            Kind::File if database::beside(path).is_some() => return self.leaves(known),
            Kind::File => scope.filters.file(path, 0).or_else(|| self.outgrown(&known)),
        };
        match skipped {
            Some(Skipped::Excluded | Skipped::NotIncluded | Skipped::TooLarge) => self.excluded(known),
            Some(_) => self.leaves(known),
            // With includes, a folder is met for what is in it alone.
            None if scope.filters.narrows()
                && known.entry.kind == Kind::Folder
                && matches!(scope.look(&known.entry.path), Ok(Some(_))) =>
            {
                self.leaves(known)
            }
            None => {
                if known.entry.kind == Kind::File {
                    self.plan.vanishing.add(known.stored_size);
                }
                self.went(&Change::Gone { known, vanished: true })
            }
        }
    }

    /// Whether a file is larger than the policy takes now: what was saved of it before is better than nothing.
    fn outgrown(&self, known: &Record) -> Option<Skipped> {
        let path = relative(&known.entry.path);
        let is_too_large = |size| {
            self.scope
                .filters
                .file(path, size)
                .filter(|why| *why == Skipped::TooLarge)
        };
        match self.scope.look(&known.entry.path) {
            Ok(Some(found)) if found.kind == Kind::File => is_too_large(found.size),
            // It went before anybody looked under this policy.
            Ok(None) if !known.was_seen() => is_too_large(known.entry.size),
            _ => None,
        }
    }

    /// It leaves the mirror, and nobody needs to ask.
    pub(super) fn leaves(&mut self, known: Record) -> Result<(), PlanError> {
        self.went(&Change::Gone { known, vanished: false })
    }

    fn went(&mut self, change: &Change) -> Result<(), PlanError> {
        if let Change::Gone { known, .. } = change {
            self.plan.folders_gone += u64::from(known.entry.kind == Kind::Folder);
        }
        self.write(change)
    }

    /// The policy takes it no longer: what was saved of it is carried along.
    pub(super) fn excluded(&mut self, known: Record) -> Result<(), PlanError> {
        if known.entry.is_only_listed() {
            return self.leaves(known);
        }
        self.plan.excluded += 1;
        self.write(&Change::Carried {
            record: Record {
                standing: Standing::Excluded,
                ..known
            },
        })
    }

    /// Whether something lies in the place of what is kept: a file where a folder above it was, or a folder where it was.
    fn yields(&mut self, kept: &Record) -> bool {
        let path = &kept.entry.path;
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        let folder = trimmed
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(trimmed, |slash| &trimmed[..slash]);
        let way = match &self.way {
            Some((last, way)) if last == folder => *way,
            _ => {
                let way = self.scope.way(trimmed).unwrap_or(Way::Missing);
                self.way = Some((folder.to_vec(), way));
                way
            }
        };
        match way {
            Way::Barred => true,
            Way::Missing => false,
            Way::Folders => matches!(
                self.scope.look(path),
                Ok(Some(found)) if (found.kind == Kind::Folder) != (kept.entry.kind == Kind::Folder)
            ),
        }
    }
}
