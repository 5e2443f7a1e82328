//! What Litestream stores: names of its files ↔ levels and transaction ids, and which points in time a listing of them can
//! give back. Pure.
//!
//! A replica is a folder for each level: level 0 has a file for each synchronisation (each half second with a change),
//! levels 1 to 3 the same by compaction (30 s, 5 min, 1 h), level 9 whole snapshots. Level 0 is kept for five minutes after
//! it was compacted, the others for as long as the profile says. A state is a snapshot (or a file that begins with
//! transaction 1) and files that follow each other without a gap.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Every level of a replica.
pub const LEVELS: [u8; 5] = [0, 1, 2, 3, 9];
/// The level of whole snapshots.
pub const SNAPSHOTS: u8 = 9;

/// A transaction id: 16 hexadecimal digits in names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txid(pub u64);

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Txid {
    /// After every other.
    pub const MAX: Self = Self(u64::MAX);

    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16)
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
    }
}

impl Serialize for Txid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Txid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a transaction id is 16 hexadecimal digits"))
    }
}

/// A file of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    /// Its first transaction.
    pub min: Txid,
    /// Its last one.
    pub max: Txid,
    /// Its level.
    pub level: u8,
}

impl File {
    /// From its name, `<min>-<max>.ltx`.
    #[must_use]
    pub fn parse(level: u8, name: &str) -> Option<Self> {
        let (min, max) = name.strip_suffix(".ltx")?.split_once('-')?;
        Some(Self {
            min: Txid::parse(min)?,
            max: Txid::parse(max)?,
            level,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}.ltx", self.min, self.max)
    }
}

/// The files that make up the newest state at or before `limit`, in order; none where no state is. Of several ways the one
/// that begins with the newest snapshot.
#[must_use]
pub fn newest(files: &[File], limit: Option<Txid>) -> Option<Vec<File>> {
    let within = |file: &&File| limit.is_none_or(|limit| file.max <= limit);
    let snapshot = files
        .iter()
        .filter(|file| file.level == SNAPSHOTS)
        .filter(within)
        .max_by_key(|file| file.max);
    let mut chain: Vec<File> = snapshot.copied().into_iter().collect();
    loop {
        let reached = chain.last().map_or(0, |file| file.max.0);
        let next = files
            .iter()
            .filter(|file| file.level != SNAPSHOTS && file.min.0 <= reached + 1 && file.max.0 > reached)
            .filter(within)
            .max_by_key(|file| (file.max, std::cmp::Reverse(file.min), file.level));
        match next {
            Some(next) => chain.push(*next),
            None => return (!chain.is_empty()).then_some(chain),
        }
    }
}

/// The oldest state that is there.
#[must_use]
pub fn oldest(files: &[File]) -> Option<Txid> {
    let first = files
        .iter()
        .filter(|file| file.min.0 <= 1)
        .min_by_key(|file| file.max)?;
    Some(first.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(u8, u64, u64)]) -> Vec<File> {
        list.iter()
            .map(|(level, min, max)| File {
                min: Txid(*min),
                max: Txid(*max),
                level: *level,
            })
            .collect()
    }

    fn reached(files: &[File], limit: Option<u64>) -> Option<u64> {
        newest(files, limit.map(Txid)).map(|chain| chain.last().unwrap().max.0)
    }

    #[test]
    fn names_are_litestreams() {
        let name = "000000000000000a-00000000000000ff.ltx";
        let file = File::parse(1, name).unwrap();
        assert_eq!((file.min.0, file.max.0), (10, 255));
        assert_eq!(file.name(), name);
        for other in ["", "a.ltx", "000000000000000a-00000000000000ff", "a-b.ltx", "x.tmp"] {
            assert_eq!(File::parse(0, other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_state_at_or_before_a_transaction_is_what_the_levels_reach() {
        let all = files(&[
            (9, 1, 1),
            (9, 1, 40),
            (1, 1, 10),
            (1, 11, 25),
            (1, 26, 41),
            (0, 39, 39),
            (0, 40, 40),
            (0, 41, 41),
            (0, 42, 42),
        ]);
        assert_eq!(reached(&all, None), Some(42));
        assert_eq!(reached(&all, Some(42)), Some(42));
        assert_eq!(reached(&all, Some(41)), Some(41));
        assert_eq!(
            reached(&all, Some(39)),
            Some(25),
            "level 1 is all that is left before 40"
        );
        assert_eq!(reached(&all, Some(30)), Some(25));
        assert_eq!(reached(&all, Some(9)), Some(1));
        assert_eq!(reached(&all, Some(0)), None);
        assert_eq!(oldest(&all), Some(Txid(1)));
    }

    #[test]
    fn a_gap_ends_what_can_be_reached() {
        let all = files(&[(0, 1, 1), (0, 2, 2), (0, 4, 4)]);
        assert_eq!(reached(&all, None), Some(2));
        assert_eq!(reached(&files(&[(0, 2, 2)]), None), None, "nothing to begin with");
        assert_eq!(reached(&[], None), None);
        assert_eq!(oldest(&files(&[(0, 2, 2)])), None);
    }

    #[test]
    fn without_its_newest_snapshot_a_state_is_reached_from_the_one_before() {
        let all = files(&[(9, 1, 1), (9, 1, 40), (3, 2, 38), (2, 30, 41), (0, 42, 42)]);
        assert_eq!(newest(&all, None).unwrap()[0].max, Txid(40));
        let spared: Vec<File> = all.into_iter().filter(|file| file.max != Txid(40)).collect();
        assert_eq!(reached(&spared, None), Some(42));
    }
}
