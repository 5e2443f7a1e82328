//! What a start did → ten lines that a tired person can read. Pure.

use super::layers::{Layer, Layered};
use crate::agent::restore::Brought;
use crate::agent::start::{Start, Status, Writing};
use std::fmt::{self, Write};
use std::time::Duration;

/// A start, as it is told.
pub struct Summary<'a> {
    /// What it came to.
    pub start: &'a Start,
    /// What was restored, by folder.
    pub brought: &'a [(String, Brought)],
    /// Layers 1 and 3.
    pub layered: &'a Layered,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            start,
            brought,
            layered,
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
        for (folder, brought) in *brought {
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
            for (id, why) in &brought.fallen_back {
                writeln!(f, "  WARNING: {id} could not be restored: {why}")?;
            }
        }
        writeln!(
            f,
            "  layers: {} vanilla files laid, {} kept, {} with secrets",
            layered.count(Layer::Vanilla),
            layered.count(Layer::Kept),
            layered.count(Layer::Secrets)
        )?;
        if !layered.unknown.is_empty() {
            let names: Vec<String> = layered
                .unknown
                .iter()
                .take(5)
                .map(|(name, file)| format!("${{{name}}} in {}", file.display()))
                .collect();
            writeln!(
                f,
                "  left as they are, because no Secret has them: {}",
                names.join(", ")
            )?;
        }
        if !layered.edited.is_empty() {
            let names: Vec<String> = layered
                .edited
                .iter()
                .take(5)
                .map(|file| file.display().to_string())
                .collect();
            writeln!(
                f,
                "  edited since secrets were put in, and left alone: {}",
                names.join(", ")
            )?;
        }
        for destination in &start.destinations {
            let writing = match &destination.writing {
                Writing::Claimed { holder } => format!("backups go on, epoch {}", holder.epoch),
                Writing::Unclaimed => "backups begin once it answers".to_owned(),
                Writing::Waiting { .. } => "NO BACKUPS for now".to_owned(),
                Writing::Fenced => "NO BACKUPS".to_owned(),
            };
            writeln!(f, "  {}: {writing}: {}", destination.destination, destination.why)?;
        }
        Ok(())
    }
}
