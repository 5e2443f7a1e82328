//! The store's listing × what we know of it → what the mirror has that no snapshot knows (a late write of a pod that was
//! fenced, what an undone backup had added), and what it has lost. The first goes to history with the next full backup,
//! the second is saved anew. Lists, and writes nothing.

use super::backup::{Failure, Site};
use super::batch::blocking;
use super::known::{Known, Marks};
use super::stage::mirror_name;
use crate::agent::scan::{Kind, TableError};
use crate::store::index::Standing;
use crate::store::keys::{self, NAMES};
use crate::store::{Depth, Object};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Strangers beyond so many wait for the next time.
const MOST: usize = 50_000;

/// What the listing showed.
#[derive(Debug, Default)]
struct Found {
    /// Names below the destination.
    strangers: BTreeSet<String>,
    /// Paths of the index.
    lost: Vec<Vec<u8>>,
    /// Held and excluded files that were not listed.
    unseen: u64,
}

impl Site {
    /// Compares the mirror with the newest snapshot. Warnings are for the log.
    pub async fn reconcile(&mut self) -> Result<Vec<String>, Failure> {
        let spool = self.scratch.join("listing");
        let failed = |source| Failure::Scratch {
            path: spool.clone(),
            source,
        };
        let mut to = BufWriter::new(File::create(&spool).map_err(failed)?);
        for volume in &self.scope.volumes {
            let folder = keys::mirror(&volume.folder);
            let mut result = Ok(());
            let mut each = |object: Object| {
                if result.is_ok() {
                    result = write!(to, "{} {folder}/{}\0", object.size, object.name);
                }
            };
            self.store.list(&folder, Depth::All, &mut each).await?;
            result.map_err(failed)?;
        }
        to.flush().map_err(failed)?;
        // A listing says nothing of a place that is not ours, or not there, by now.
        self.require_claim().await?;
        let (known, path) = (self.known.clone(), spool.clone());
        let folders: BTreeSet<Vec<u8>> = self
            .scope
            .volumes
            .iter()
            .map(|volume| volume.folder.clone().into_bytes())
            .collect();
        let mut found = blocking(move || compare(&known, &folders, &path)).await?;
        found.strangers.retain(|name| !self.deletions.leaves(name));
        let mut warnings = Vec::new();
        let destination = self.store.destination();
        if let Some(first) = found.strangers.first()
            && !self.deletions.are_refused()
        {
            warnings.push(format!(
                "{destination} has {} files that no snapshot knows, such as {first}: they go to history with the next full backup",
                found.strangers.len()
            ));
        }
        if let Some(first) = found.lost.first() {
            warnings.push(format!(
                "{destination} has lost {} files, or their sizes are others, such as {}: they are saved anew",
                found.lost.len(),
                String::from_utf8_lossy(first)
            ));
        }
        if found.unseen > 0 {
            warnings.push(format!(
                "{destination} does not list {} files that are held or excluded, and on no volume: they stay in each snapshot, and can be restored once the store shows them again",
                found.unseen
            ));
        }
        if !found.lost.is_empty() {
            let gone = found.lost.into_iter().map(|path| Ok((path, None)));
            self.known = Arc::new(self.known.changed(gone)?);
        }
        self.strangers = found.strangers;
        self.unreconciled = false;
        Ok(warnings)
    }
}

/// `folders`: those that were listed. Of others, nothing was seen, and nothing is lost.
fn compare(known: &Known, folders: &BTreeSet<Vec<u8>>, spool: &Path) -> Result<Found, Failure> {
    let failed = |source| Failure::Scratch {
        path: spool.to_owned(),
        source,
    };
    let by_hash = by_hash(known)?;
    let mut marks = Marks::default();
    let mut found = Found::default();
    let lines = BufReader::new(File::open(spool).map_err(failed)?).split(0);
    for line in lines {
        let line = String::from_utf8(line.map_err(failed)?).map_err(|error| failed(io::Error::other(error)))?;
        let Some((size, name)) = line.split_once(' ') else {
            continue;
        };
        let path = by_hash.get(name).map_or(name.as_bytes(), Vec::as_slice);
        let record = known
            .mark(path, &mut marks)?
            .filter(|record| record.entry.kind == Kind::File && mirror_name(record) == name);
        // What is held or excluded can't be saved anew: a listing that shows it otherwise is no reason to forget it.
        let is_carried = record.as_ref().is_some_and(|record| record.standing != Standing::Live);
        let same = is_carried
            || record
                .as_ref()
                .is_some_and(|record| record.stored_size.to_string() == size);
        if !same && found.strangers.len() < MOST {
            found.strangers.insert(name.to_owned());
        }
        if !same && record.is_some() {
            found.lost.push(path.to_vec());
        }
    }
    for record in known.unmarked(&marks)? {
        let record = record?;
        let folder = record.entry.path.split(|byte| *byte == b'/').next().unwrap_or_default();
        if record.entry.kind == Kind::File && folders.contains(folder) {
            if record.standing == Standing::Live {
                found.lost.push(record.entry.path);
            } else {
                found.unseen += 1;
            }
        }
    }
    found.lost.sort();
    Ok(found)
}

/// The paths of files that are stored by their hash.
fn by_hash(known: &Known) -> Result<BTreeMap<String, Vec<u8>>, TableError> {
    let mut names = BTreeMap::new();
    for record in known.records()? {
        let record = record?;
        if record.entry.kind == Kind::File {
            let name = mirror_name(&record);
            if name.contains(NAMES) {
                names.insert(name, record.entry.path);
            }
        }
    }
    Ok(names)
}
