//! What a destination is known to hold × what a backup made of it → the documents of a snapshot: its index, and the twin of one
//! that is complete in itself, so that neither of the two is the only way to what they tell. Writes to scratch alone.

use super::backup::Failure;
use super::known::{Known, Outcome, to_index};
use crate::agent::scan::TableError;
use crate::store::index::{Carried, Entry, Header, IndexWriter, Standing, Totals, What};
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

/// Writes an index: a difference where its header has a base, else all of it.
pub(super) fn write_index(known: &Known, header: &Header, path: &Path) -> Result<(), Failure> {
    let header = Header {
        carried: known.carried(header.base.is_some())?,
        ..header.clone()
    };
    if header.base.is_some() {
        let difference = known.difference().map(Ok);
        return write(difference, &header, known.totals(), path);
    }
    let all = known.records()?.map(|record| record.map(|record| to_index(&record)));
    write(all, &header, known.totals(), path)
}

/// Writes the twin of a complete index `header`: the state `next`, which came of the state `before` by these outcomes (given
/// twice), as a difference to the complete index that `before` builds on; or complete as well, where there is none, or a difference would be
/// no smaller.
pub(super) fn write_twin(
    before: &Known,
    [outcomes, again]: [impl Iterator<Item = Result<Outcome, TableError>>; 2],
    count: usize,
    next: &Known,
    header: &Header,
    path: &Path,
) -> Result<(), Failure> {
    let changes = (before.changed_since_base() + count) as u64;
    let base = before.base().filter(|_| changes < next.base_entries());
    let Some((base, _)) = base else {
        return write_index(next, header, path);
    };
    let mut carried = Carried {
        holds: next.holds(),
        excluded: next.tally().excluded.totals,
        marked: Vec::new(),
    };
    if next.tally().carries() {
        for entry in difference(before, again) {
            carried.mark(&entry?);
        }
    }
    let header = Header {
        base: Some(base),
        carried,
        ..header.clone()
    };
    write(difference(before, outcomes), &header, next.totals(), path)
}

/// A difference, and what came after it, as one. Both are in path order.
fn difference(
    before: &Known,
    outcomes: impl Iterator<Item = Result<Outcome, TableError>>,
) -> impl Iterator<Item = Result<Entry, TableError>> {
    let mut since = before.difference().peekable();
    let mut outcomes = outcomes
        .map(|outcome| outcome.map(|(path, record)| entry(path, record.as_ref().map(to_index))))
        .peekable();
    std::iter::from_fn(move || {
        let Some(Ok(after)) = outcomes.peek() else {
            return outcomes.next().or_else(|| since.next().map(Ok));
        };
        match since.next_if(|entry| entry.path <= after.path) {
            Some(entry) if entry.path < after.path => Some(Ok(entry)),
            // What came after it counts.
            _ => outcomes.next(),
        }
    })
}

fn entry(path: Vec<u8>, entry: Option<Entry>) -> Entry {
    entry.unwrap_or(Entry {
        path,
        what: What::Gone,
        standing: Standing::Live,
    })
}

fn write(
    entries: impl Iterator<Item = Result<Entry, TableError>>,
    header: &Header,
    totals: Totals,
    path: &Path,
) -> Result<(), Failure> {
    let failed = |source: io::Error| Failure::Scratch {
        path: path.to_owned(),
        source,
    };
    let file = BufWriter::new(File::create(path).map_err(failed)?);
    let mut writer = IndexWriter::new(file, header).map_err(failed)?;
    for entry in entries {
        writer.push(&entry?).map_err(failed)?;
    }
    writer.finish(totals).map_err(failed)?;
    Ok(())
}
