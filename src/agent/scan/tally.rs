//! Entries counted by how they stand: what is live, what each hold keeps, what is excluded. Values only.

use super::{Kind, Record};
use crate::store::index::{HoldId, Standing, Totals};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Entries of one standing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Files, folders and links.
    pub entries: u64,
    /// The files among them, as they are stored.
    pub totals: Totals,
}

impl Part {
    fn add(&mut self, record: &Record) {
        self.entries += 1;
        self.totals.files += u64::from(record.entry.kind == Kind::File);
        self.totals.bytes += record.stored_size;
    }

    fn remove(&mut self, record: &Record) {
        self.entries = self.entries.saturating_sub(1);
        let is_file = u64::from(record.entry.kind == Kind::File);
        self.totals.files = self.totals.files.saturating_sub(is_file);
        self.totals.bytes = self.totals.bytes.saturating_sub(record.stored_size);
    }
}

/// Entries, by how they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What the volume has.
    pub live: Part,
    /// What is held, by hold; none without an entry.
    pub held: BTreeMap<HoldId, Part>,
    /// What the policy takes no longer.
    pub excluded: Part,
    /// Stands for what is excluded, whatever the order in which it was met: the sum of a number for each.
    pub excluded_set: u64,
}

impl Tally {
    /// Counts a record.
    pub fn add(&mut self, record: &Record) {
        match record.standing {
            Standing::Live => self.live.add(record),
            Standing::Held(id) => self.held.entry(id).or_default().add(record),
            Standing::Excluded => {
                self.excluded.add(record);
                self.excluded_set = self.excluded_set.wrapping_add(number(record));
            }
        }
    }

    /// Counts a record no longer.
    pub fn remove(&mut self, record: &Record) {
        match record.standing {
            Standing::Live => self.live.remove(record),
            Standing::Held(id) => {
                if let Some(part) = self.held.get_mut(&id) {
                    part.remove(record);
                    if part.entries == 0 {
                        self.held.remove(&id);
                    }
                }
            }
            Standing::Excluded => {
                self.excluded.remove(record);
                self.excluded_set = self.excluded_set.wrapping_sub(number(record));
            }
        }
    }

    /// Files in all.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let parts = self.held.values().chain([&self.live, &self.excluded]);
        parts.fold(Totals::default(), |sum, part| Totals {
            files: sum.files + part.totals.files,
            bytes: sum.bytes + part.totals.bytes,
        })
    }

    /// Whether anything is not live.
    #[must_use]
    pub fn carries(&self) -> bool {
        !self.held.is_empty() || self.excluded.entries > 0
    }
}

/// A record's part of [`Tally::excluded_set`]. What is saved anew is another one.
fn number(record: &Record) -> u64 {
    let mut hash = Sha256::new();
    hash.update(record.stored.to_string());
    hash.update([0]);
    hash.update(&record.entry.path);
    let mut number = [0; 8];
    number.copy_from_slice(&hash.finalize()[..8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::scan::Entry;
    use crate::store::snapshot::Point;

    fn record(path: &str, size: u64, standing: Standing) -> Record {
        Record {
            stored_size: size,
            stored: Point { epoch: 1, sequence: 1 },
            standing,
            ..Record::unsaved(Entry {
                path: path.as_bytes().to_vec(),
                kind: if path.ends_with('/') { Kind::Folder } else { Kind::File },
                size,
                modified: 0,
                mode: 0,
                uid: 0,
                gid: 0,
                inode: 0,
                changed: 0,
                target: Vec::new(),
            })
        }
    }

    #[test]
    fn what_is_counted_and_no_longer_counted_leaves_nothing() {
        let hold = Standing::Held(HoldId::new(1));
        let records = [
            record("c/", 0, Standing::Live),
            record("c/a", 3, Standing::Live),
            record("c/b/", 0, hold),
            record("c/b/c", 5, hold),
            record("c/d", 7, Standing::Excluded),
            record("c/e", 9, Standing::Excluded),
        ];
        let mut tally = Tally::default();
        for record in &records {
            tally.add(record);
        }
        assert_eq!(tally.totals(), Totals { files: 4, bytes: 24 });
        assert_eq!(tally.live.totals, Totals { files: 1, bytes: 3 });
        assert_eq!(tally.held[&HoldId::new(1)].entries, 2);
        let set = tally.excluded_set;
        let mut other_way_round = Tally::default();
        for record in records.iter().rev() {
            other_way_round.add(record);
        }
        assert_eq!(other_way_round, tally);
        tally.remove(&records[5]);
        assert_ne!(tally.excluded_set, set);
        records[..5].iter().for_each(|record| tally.remove(record));
        assert_eq!(tally, Tally::default());
    }
}
