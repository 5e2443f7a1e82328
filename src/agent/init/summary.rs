//! What a start did → ten lines that a tired person can read. Pure.

use crate::agent::layers::Laid;
use crate::agent::restore::Brought;
use crate::agent::start::{Start, Status, Writing};
use crate::contract::last_words::Restored;
use std::fmt::{self, Write};
use std::time::Duration;

/// What was restored of one volume.
pub(super) struct Restoration {
    /// The pod volume.
    pub(super) volume: String,
    /// Its folder in the bucket.
    pub(super) folder: String,
    /// What came.
    pub(super) brought: Brought,
    /// Whether it is not what an owner would expect of a start.
    pub(super) is_unexpected: bool,
}

/// A start, as it is told.
pub(super) struct Summary<'a> {
    /// What it came to.
    pub(super) start: &'a Start,
    /// What was restored.
    pub(super) brought: &'a [Restoration],
    /// Databases that were restored, a line each.
    pub(super) databases: &'a [String],
    /// Layers 1 and 3.
    pub(super) laid: &'a Laid,
    /// How long it took.
    pub(super) took: Duration,
}

impl Summary<'_> {
    /// What it has brought back, for an Event; nothing where it has brought nothing.
    pub(super) fn restored(&self) -> Option<Restored> {
        if self.brought.is_empty() && self.databases.is_empty() {
            return None;
        }
        let brought = |name: &str| self.brought.iter().find(|brought| brought.volume == name);
        let volumes = self
            .start
            .volumes
            .iter()
            .filter(|volume| brought(&volume.name).is_some());
        let mut parts: Vec<String> = volumes
            .map(|volume| format!("volume {}: {}", volume.name, volume.why))
            .collect();
        for Restoration { brought, .. } in self.brought {
            let fallen_back = brought.fallen_back.iter();
            parts.extend(fallen_back.map(|(id, why)| format!("{id} could not be restored: {why}")));
            parts.extend(brought.left_out.told());
        }
        parts.extend(self.databases.iter().map(|database| format!("database {database}")));
        Some(Restored {
            is_unexpected: self.brought.iter().any(
                |Restoration {
                     brought, is_unexpected, ..
                 }| {
                    *is_unexpected || !brought.fallen_back.is_empty() || !brought.left_out.paths.is_empty()
                },
            ),
            text: parts.join("; "),
        })
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            start,
            brought,
            databases,
            laid,
            took,
        } = self;
        writeln!(
            f,
            "vixens-backup init: {} started in {:.1} s",
            start.owner,
            took.as_secs_f64()
        )?;
        for volume in &start.volumes {
            let status = match volume.status {
                Status::Settled => "settled",
                Status::Provisional => "PROVISIONAL, not backed up",
                Status::Fenced => "FENCED, not backed up",
            };
            writeln!(
                f,
                "  volume {} ({}): {status}: {}",
                volume.name,
                volume.path.display(),
                volume.why
            )?;
        }
        for Restoration { folder, brought, .. } in *brought {
            let placed = &brought.placed;
            let from = brought
                .snapshot
                .map_or_else(|| "the files in the bucket".to_owned(), |id| id.to_string());
            let mut line = format!(
                "  restored {folder}: {} files, {} bytes from {from}",
                placed.files, placed.bytes
            );
            if placed.kept > 0 {
                write!(line, "; {} were there and stayed", placed.kept)?;
            }
            if placed.removed > 0 {
                write!(line, "; {} that it lacks are gone", placed.removed)?;
            }
            if placed.owners_not_given > 0 {
                write!(line, "; {} keep this process's user as owner", placed.owners_not_given)?;
            }
            writeln!(f, "{line}")?;
            for line in brought.told() {
                writeln!(f, "  WARNING: {line}")?;
            }
        }
        for database in *databases {
            writeln!(f, "  restored database {database}")?;
        }
        writeln!(f, "{}", layers(laid))?;
        for destination in &start.destinations {
            let writing = match &destination.writing {
                Writing::Claimed { holder } => format!("backups go on, epoch {}", holder.epoch),
                Writing::Unclaimed => "backups begin once it answers".to_owned(),
                Writing::Waiting { .. } => "NO BACKUPS for now".to_owned(),
                Writing::Asks { .. } => "NO BACKUPS until you say so".to_owned(),
                Writing::Fenced => "NO BACKUPS".to_owned(),
            };
            writeln!(f, "  {}: {writing}: {}", destination.destination, destination.why)?;
        }
        Ok(())
    }
}

/// Layers 1 and 3, in a few lines.
pub(super) fn layers(laid: &Laid) -> String {
    let mut text = format!(
        "  layers: {} vanilla files laid, {} kept, {} with secrets",
        laid.vanilla.len(),
        laid.kept.len(),
        laid.rendered.len()
    );
    let mut note = |what: &str, names: Vec<String>| {
        if !names.is_empty() {
            let more = if names.len() > 5 { ", …" } else { "" };
            text.push_str("\n  ");
            text.push_str(what);
            text.push_str(": ");
            text.push_str(&names[..names.len().min(5)].join(", "));
            text.push_str(more);
        }
    };
    let edited = laid.edited.iter().map(|file| file.display().to_string()).collect();
    note("edited since secrets were put in, and left alone", edited);
    let unknown = |(file, names): (&std::path::PathBuf, &std::collections::BTreeSet<String>)| {
        let names: Vec<String> = names.iter().map(|name| format!("${{{name}}}")).collect();
        format!("{} in {}", names.join(" "), file.display())
    };
    note(
        "left as they are, because no Secret has them",
        laid.unknown.iter().map(unknown).collect(),
    );
    let skipped = laid
        .skipped
        .iter()
        .map(|(file, why)| format!("{} ({why})", file.display()));
    note("not looked at", skipped.collect());
    text
}
