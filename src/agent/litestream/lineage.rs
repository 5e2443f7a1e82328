//! Which of two copies of a database is newer: what a replica holds, and what a snapshot has as a file. Transactions are
//! counted on and on in a replica, but a run of Litestream that begins anew counts on from what the store has, whatever the
//! database held by then: so each run is written down, with the last transaction before it. Pure, and no clock is asked.

use super::ltx::Txid;
use crate::store::index::DatabasePosition;
use crate::store::snapshot::{Point, SnapshotId};
use serde::{Deserialize, Serialize};

/// So many runs of a database are remembered.
const MOST_RUNS: usize = 16;
/// The sequence of whatever the former release counted: its runs have no names.
const UNNAMED: u64 = u64::MAX;

/// Litestream followed a database from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The claim under which it did, and which of its runs it was.
    pub run: Point,
    /// What is counted up to here was sent before, or of what was before; none: from then on nobody followed the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Txid>,
}

impl Run {
    /// From this claim on nobody follows the database.
    #[must_use]
    pub const fn none(epoch: u64) -> Self {
        let run = Point { epoch, sequence: 0 };
        Self { run, after: None }
    }

    /// The run that begins now: the store has everything up to `listed`; `local`: Litestream's own newest file beside the
    /// database.
    #[must_use]
    pub fn begun(runs: &[Self], epoch: u64, listed: Txid, local: Option<Txid>) -> Self {
        // One that is behind the store begins anew after what that has.
        let after = Some(local.unwrap_or_default().max(listed));
        match runs.last() {
            // Nothing was sent since it began.
            Some(last) if last.run.epoch == epoch && last.after == after => *last,
            last => {
                let before = last.map(|last| last.run).filter(|run| run.epoch >= epoch);
                let run = before.map_or(Point { epoch, sequence: 1 }, |run| Point {
                    sequence: run.sequence + 1,
                    ..run
                });
                Self { run, after }
            }
        }
    }

    /// Notes it, and forgets the oldest.
    pub fn note(self, runs: &mut Vec<Self>) {
        if runs.last() != Some(&self) {
            runs.push(self);
            let over = runs.len().saturating_sub(MOST_RUNS);
            runs.drain(..over);
        }
    }
}

/// How new a file of a snapshot is: it holds this transaction, as it was counted in this run, and what came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Saved {
    /// Under which run it was saved.
    pub run: Point,
    /// The transaction; [`Txid::MAX`]: whatever was sent before.
    pub txid: Txid,
}

impl Saved {
    /// Saved under this claim, while Litestream did not follow the database.
    #[must_use]
    pub const fn alone(epoch: u64) -> Self {
        Self {
            run: Point { epoch, sequence: 0 },
            txid: Txid::MAX,
        }
    }

    /// The file that a snapshot has of a database; none: it has none that it knows of.
    #[must_use]
    pub fn of(position: &DatabasePosition, snapshot: &SnapshotId) -> Option<Self> {
        let txid = Txid::parse(position.file.as_deref()?)?;
        let run = position.file_run.or(position.run).unwrap_or_else(|| unnamed(snapshot));
        // What nobody followed is newer than all that was sent: the number is what the former release goes by.
        let txid = if run.sequence == 0 { Txid::MAX } else { txid };
        Some(Self { run, txid })
    }

    /// Where a database stood when a snapshot was made, for what its replica held then.
    #[must_use]
    pub fn position(position: &DatabasePosition, snapshot: &SnapshotId) -> Option<Self> {
        let txid = Txid::parse(&position.txid)?;
        let run = position.run.unwrap_or_else(|| unnamed(snapshot));
        Some(Self { run, txid })
    }

    /// The transaction, as it is counted now: whatever a replica holds beyond it is newer.
    #[must_use]
    pub fn counted(&self, runs: &[Run]) -> Txid {
        let is_counted = runs.is_empty() || self.run.sequence == UNNAMED || runs.iter().any(|run| run.run == self.run);
        // Another replica's count says nothing of this one's.
        let txid = if is_counted { self.txid } else { Txid::MAX };
        Self { txid, ..*self }.bounded(runs)
    }

    /// The transaction, or the last one that was sent before another run counted anew.
    #[must_use]
    pub fn bounded(&self, runs: &[Run]) -> Txid {
        let later = runs.iter().filter(|run| run.run > self.run);
        later.filter_map(|run| run.after).fold(self.txid, Txid::min)
    }

    /// Whether a replica that reaches so far is newer.
    #[must_use]
    pub fn is_older_than(&self, reached: Option<Txid>, runs: &[Run]) -> bool {
        reached.is_some_and(|reached| reached > self.counted(runs))
    }
}

const fn unnamed(snapshot: &SnapshotId) -> Point {
    Point {
        epoch: snapshot.epoch,
        sequence: UNNAMED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(run: &str, after: Option<u64>) -> Run {
        Run {
            run: run.parse().unwrap(),
            after: after.map(Txid),
        }
    }

    fn saved(run: &str, txid: u64) -> Saved {
        Saved {
            run: run.parse().unwrap(),
            txid: Txid(txid),
        }
    }

    #[test]
    fn which_copy_of_a_database_is_newer() {
        const ALL: u64 = u64::MAX;
        const FORMER: &str = "3.18446744073709551615";
        // What the file is, which runs there were, how far the replica reaches: whether the replica is newer.
        #[rustfmt::skip]
        let table: &[(&str, Saved, &[Run], u64, bool)] = &[
            ("saved while its replica was behind", saved("3.1", 100), &[run("3.1", Some(0))], 100, false),
            ("the replica caught up", saved("3.1", 100), &[run("3.1", Some(0))], 101, true),
            ("tier 2 after tier 3", saved("4.0", ALL), &[run("3.1", Some(0)), run("4.0", None)], 900, false),
            ("tier 2, and nobody wrote that down", saved("4.0", ALL), &[run("3.1", Some(0))], 900, false),
            ("tier 3 again, nothing sent yet", saved("4.0", ALL), &[run("3.1", Some(0)), run("4.0", None), run("5.1", Some(900))], 900, false),
            ("tier 3 again, and sent", saved("4.0", ALL), &[run("3.1", Some(0)), run("4.0", None), run("5.1", Some(900))], 901, true),
            ("two short lives: the first one's last backup has it", saved("2.0", ALL), &[run("1.1", Some(0))], 102, false),
            ("the second one has sent something", saved("2.0", ALL), &[run("1.1", Some(0)), run("3.1", Some(102))], 103, true),
            ("begun anew below what the file counts", saved("3.1", 1000), &[run("3.1", Some(0)), run("3.2", Some(500))], 500, false),
            ("and sent", saved("3.1", 1000), &[run("3.1", Some(0)), run("3.2", Some(500))], 501, true),
            ("an earlier run that went on after the file", saved("3.1", 100), &[run("3.1", Some(0)), run("4.1", Some(150))], 150, true),
            ("three lives that made no snapshot", saved("3.1", 1000), &[run("3.1", Some(0)), run("4.1", Some(500)), run("5.1", Some(800))], 800, true),
            ("the other destination's replica counted it", saved("5.1", 100), &[run("3.1", Some(0)), run("5.0", None)], 300, false),
            ("and this one's has begun again", saved("5.1", 100), &[run("3.1", Some(0)), run("5.0", None), run("6.1", Some(300))], 301, true),
            ("a primary that came back old", saved("5.1", 100), &[run("3.1", Some(0))], 300, false),
            ("the former release, both", saved(FORMER, 100), &[], 100, false),
            ("the former release, both, caught up", saved(FORMER, 100), &[], 101, true),
            ("the former release saved it, ours followed", saved(FORMER, ALL), &[run("4.1", Some(100))], 101, true),
            ("the former release saved it after ours followed", saved(FORMER, ALL), &[run("2.1", Some(100))], 101, false),
        ];
        for (what, saved, runs, reached, expected) in table {
            assert_eq!(saved.is_older_than(Some(Txid(*reached)), runs), *expected, "{what}");
            assert!(!saved.is_older_than(None, runs), "{what}: there is no replica");
        }
    }

    #[test]
    fn what_a_later_run_counted_is_not_what_a_snapshot_meant() {
        let runs = [run("3.1", Some(0)), run("4.1", Some(990))];
        assert_eq!(
            saved("3.1", 1000).bounded(&runs),
            Txid(990),
            "ten of them were never sent"
        );
        assert_eq!(saved("3.1", 900).bounded(&runs), Txid(900));
        assert_eq!(saved("4.1", 1000).bounded(&runs), Txid(1000));
        assert_eq!(
            saved("1.1", 500).bounded(&runs[1..]),
            Txid(500),
            "so long ago that its run is forgotten"
        );
    }

    #[test]
    fn a_run_counts_on_from_what_the_store_has_or_from_what_lies_beside_the_database() {
        let runs = [run("3.1", Some(100))];
        for (listed, local, expected) in [
            (100, None, run("4.1", Some(100))),
            (100, Some(90), run("4.1", Some(100))),
            (100, Some(120), run("4.1", Some(120))),
            (0, None, run("4.1", Some(0))),
        ] {
            assert_eq!(Run::begun(&runs, 4, Txid(listed), local.map(Txid)), expected);
        }
        assert_eq!(Run::begun(&[], 4, Txid(7), None), run("4.1", Some(7)));
        // Within one claim: another only where something was sent since.
        assert_eq!(Run::begun(&runs, 3, Txid(100), None), runs[0]);
        assert_eq!(Run::begun(&runs, 3, Txid(150), None), run("3.2", Some(150)));
        assert_eq!(Run::begun(&[run("3.0", None)], 3, Txid(5), None), run("3.1", Some(5)));
        // A registry that another claim wrote meanwhile.
        assert_eq!(
            Run::begun(&[run("7.2", Some(9))], 4, Txid(10), None),
            run("7.3", Some(10))
        );
    }

    #[test]
    fn runs_are_noted_once_and_the_oldest_are_forgotten() {
        let mut runs = Vec::new();
        for epoch in 1..=20 {
            for _ in 0..2 {
                Run::begun(&runs, epoch, Txid(epoch), None).note(&mut runs);
            }
        }
        assert_eq!(runs.len(), MOST_RUNS);
        assert_eq!(runs.last().unwrap().run.to_string(), "20.1");
    }

    #[test]
    fn a_position_says_what_the_snapshot_has() {
        let id: SnapshotId = "20261122T130500Z-3.42-auto".parse().unwrap();
        let position = |run: Option<&str>, file: Option<u64>, file_run: Option<&str>| DatabasePosition {
            folder: "config".to_owned(),
            path: "a.db".to_owned(),
            txid: Txid(9).to_string(),
            time: id.time,
            run: run.map(|run| run.parse().unwrap()),
            file: file.map(|txid| Txid(txid).to_string()),
            file_run: file_run.map(|run| run.parse().unwrap()),
        };
        let former = Point {
            epoch: 3,
            sequence: UNNAMED,
        };
        assert_eq!(Saved::of(&position(Some("3.1"), None, None), &id), None);
        assert_eq!(
            Saved::of(&position(Some("3.1"), Some(7), None), &id),
            Some(saved("3.1", 7))
        );
        assert_eq!(
            Saved::of(&position(Some("3.1"), Some(7), Some("2.1")), &id),
            Some(saved("2.1", 7))
        );
        assert_eq!(
            Saved::of(&position(Some("3.0"), Some(7), None), &id),
            Some(Saved::alone(3))
        );
        assert_eq!(
            Saved::of(&position(None, Some(7), None), &id).map(|saved| saved.run),
            Some(former)
        );
        assert_eq!(
            Saved::position(&position(Some("3.1"), None, None), &id),
            Some(saved("3.1", 9))
        );
    }
}
