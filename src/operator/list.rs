//! A place → its snapshots, a line each, the newest last.

use super::Error;
use super::access::{Access, Opened};
use super::snapshots::{Output, json};
use crate::agent::amount;
use crate::agent::prune::pins;
use crate::store::index::{Carried, Totals};
use crate::store::indexes::Indexes;
use crate::store::snapshot::SnapshotId;
use crate::store::{Depth, Error as StoreError, Store, keys, listed, unwatched};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// Indexes are read for their totals, the newest first, up to so many bytes.
const READ: u64 = 64 << 20;

/// One snapshot, as it is listed.
#[derive(Debug, Serialize)]
struct Line {
    id: SnapshotId,
    /// When it was made, to the second.
    time: Timestamp,
    epoch: u64,
    sequence: u64,
    kind: &'static str,
    /// Not known where the index was not read.
    files: Option<u64>,
    bytes: Option<u64>,
    /// Files among them that vanished from the volumes, and stay until somebody decides.
    held: Option<u64>,
    /// Files among them that the policy takes no longer.
    excluded: Option<u64>,
    /// The names of the pins that keep it.
    pinned: Vec<String>,
    /// What is wrong with its index.
    damaged: Option<String>,
}

/// Lists a place.
pub(super) async fn list(access: &Access, opened: &Opened, output: Output) -> Result<String, Error> {
    let mut pinned: BTreeMap<SnapshotId, Vec<String>> = BTreeMap::new();
    let (mut read, mut unreadable) = (Read::default(), Vec::new());
    if !opened.backup.snapshots.is_empty() {
        match pins(&opened.store).await {
            Ok(pins) => {
                for pin in pins {
                    match pin.snapshot() {
                        Some(snapshot) => pinned.entry(snapshot).or_default().push(pin.name().to_owned()),
                        None => unreadable.push(keys::pin(pin.name())),
                    }
                }
            }
            Err(error) => return Err(access.failed(error)),
        }
        read = Read::all(opened).await.map_err(|error| access.failed(error))?;
    }
    let lines: Vec<Line> = opened
        .backup
        .snapshots
        .iter()
        .map(|id| {
            let totals = read.totals.get(id);
            let carried = read.carried.get(id);
            Line {
                id: *id,
                time: id.time,
                epoch: id.epoch,
                sequence: id.sequence,
                kind: id.kind.as_str(),
                files: totals.map(|totals| totals.files),
                bytes: totals.map(|totals| totals.bytes),
                held: carried.map(|carried| carried.held().files),
                excluded: carried.map(|carried| carried.excluded.files),
                pinned: pinned.remove(id).unwrap_or_default(),
                damaged: read.damaged.get(id).cloned(),
            }
        })
        .collect();
    match output {
        Output::Json => json(&lines),
        Output::Text => {
            let mut text = text(opened, &lines, Timestamp::now());
            for key in unreadable {
                let _ = writeln!(
                    text,
                    "{key} is damaged, and which snapshot it kept can't be read any more: pin that one anew, and delete this"
                );
            }
            Ok(text)
        }
    }
}

/// What the indexes say.
#[derive(Default)]
struct Read {
    totals: HashMap<SnapshotId, Totals>,
    carried: HashMap<SnapshotId, Carried>,
    damaged: HashMap<SnapshotId, String>,
}

impl Read {
    async fn all(opened: &Opened) -> Result<Self, StoreError> {
        let sizes: HashMap<String, u64> = listed(&opened.store, keys::SNAPSHOTS, Depth::All)
            .await?
            .into_iter()
            .map(|object| (object.name, object.size))
            .collect();
        let mut left = READ;
        let chosen: Vec<SnapshotId> = opened
            .backup
            .snapshots
            .iter()
            .rev()
            .copied()
            .take_while(|id| {
                let size = sizes.get(&format!("{id}.json")).copied().unwrap_or(0);
                let fits = size <= left;
                left = left.saturating_sub(size);
                fits
            })
            .collect();
        let names: Vec<String> = chosen.iter().map(|id| format!("{id}.json")).collect();
        let folder = opened.scratch.path().join(keys::SNAPSHOTS);
        // What does not come is asked for again below, one by one, and said.
        opened
            .store
            .download(keys::SNAPSHOTS, &names, &folder, &unwatched)
            .await?;
        let indexes = Indexes::new(&opened.store, opened.scratch.path());
        let mut read = Self::default();
        for id in chosen {
            match indexes.totals(&id).await {
                Ok((header, totals)) => {
                    read.totals.insert(id, totals);
                    read.carried.insert(id, header.carried);
                }
                Err(StoreError::Damaged { why, .. }) => {
                    read.damaged.insert(id, why);
                }
                // Retention has removed it since it was listed.
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

fn text(opened: &Opened, lines: &[Line], now: Timestamp) -> String {
    let mut text = String::new();
    let backup = &opened.backup;
    // Writing to a String does not fail.
    let _ = match (&opened.nothing, backup.owner()) {
        (Some(nothing), _) => writeln!(text, "{nothing}"),
        (None, Some(owner)) => writeln!(text, "{}: {owner}", opened.store.destination()),
        (None, None) if backup.holder().is_some() => writeln!(
            text,
            "{}: its claims are damaged, so nobody can say whose it is",
            opened.store.destination()
        ),
        (None, None) => writeln!(
            text,
            "{}: made by hand, it has no claims; its files lie in {}",
            opened.store.destination(),
            opened.folders.join(", ")
        ),
    };
    if let Some(state) = &backup.state {
        let released = if state.released { ", and has let go" } else { "" };
        let owed = if state.owed {
            ", with changes that no snapshot has"
        } else {
            ""
        };
        let seen = amount::ago(state.heartbeat, now);
        let _ = writeln!(text, "last written by pod {}, seen {seen}{released}{owed}", state.pod);
    }
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{:34} {:>14} {:>9} {:>10}", "SNAPSHOT", "AGE", "FILES", "SIZE");
    }
    for line in lines {
        let age = now.duration_since(line.time);
        let age = if age.is_negative() {
            "to come".to_owned()
        } else {
            amount::span(age)
        };
        let files = line.files.map_or_else(|| "-".to_owned(), amount::number);
        let bytes = line.bytes.map_or_else(|| "-".to_owned(), amount::bytes);
        let id = line.id.to_string();
        let _ = write!(text, "{id:34} {age:>14} {files:>9} {bytes:>10}");
        for (files, word) in [(line.held, "held"), (line.excluded, "excluded")] {
            if let Some(files) = files.filter(|files| *files > 0) {
                let _ = write!(text, "  {} {word}", amount::number(files));
            }
        }
        if !line.pinned.is_empty() {
            let _ = write!(text, "  pinned: {}", line.pinned.join(", "));
        }
        if let Some(why) = &line.damaged {
            let _ = write!(text, "  DAMAGED: {why}");
        }
        text.push('\n');
    }
    for id in &backup.pending {
        let _ = writeln!(
            text,
            "{id:34} is under way, or its writer has ended in the middle of it"
        );
    }
    text
}
