//! Which databases a destination's snapshots have as files, and how new each is beside the replicas: learned from its newest
//! snapshot, and told by the next. No I/O.

use super::lineage::{Run, Saved};
use super::ltx::Txid;
use super::replication::Replication;
use crate::store::index::{DatabasePosition, Header};
use crate::store::snapshot::{Point, SnapshotId};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of one destination. Paths are those of the index.
#[derive(Debug, Default)]
pub struct Copies {
    /// The databases that this pod replicates, where they are replicated to another destination.
    elsewhere: Option<Arc<Replication>>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    newest: Option<SnapshotId>,
    /// What is there as a file.
    saved: BTreeMap<Vec<u8>, Saved>,
    /// What the newest snapshot leaves to a replica.
    replicated: BTreeMap<Vec<u8>, DatabasePosition>,
    /// What has a replica here that nobody follows any more, and what that has.
    left: BTreeMap<Vec<u8>, Option<Txid>>,
    /// The last run of what was followed, in this process or in one before it.
    runs: BTreeMap<Vec<u8>, Run>,
}

/// What the next snapshot has as files; it counts once that is published.
#[derive(Debug)]
pub struct Noted(BTreeMap<Vec<u8>, Saved>);

fn path_of(position: &DatabasePosition) -> Vec<u8> {
    format!("{}/{}", position.folder, position.path).into_bytes()
}

impl Copies {
    /// Of a destination beside the one that has the replicas.
    #[must_use]
    pub fn beside(replication: Arc<Replication>) -> Self {
        Self {
            elsewhere: Some(replication),
            ..Self::default()
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest snapshot says what there is.
    pub fn inherit(&self, header: &Header) {
        let mut known = self.known();
        known.newest = Some(header.id);
        known.saved.clear();
        known.replicated.clear();
        for position in &header.databases {
            match Saved::of(position, &header.id) {
                Some(saved) => {
                    known.saved.insert(path_of(position), saved);
                }
                None => {
                    known.replicated.insert(path_of(position), position.clone());
                }
            }
        }
    }

    /// These have a replica here, up to there, and are not followed.
    pub fn leave(&self, databases: impl IntoIterator<Item = (Vec<u8>, Option<Txid>)>) {
        self.known().left.extend(databases);
    }

    /// These were followed before this process began, last in these runs.
    pub fn followed(&self, runs: impl IntoIterator<Item = (Vec<u8>, Run)>) {
        self.known().runs.extend(runs);
    }

    /// How new what lies on the volume is, of a database that Litestream does not follow at this moment: newer than all that
    /// was sent under this claim. `local`: Litestream's own newest file beside the database.
    #[must_use]
    pub fn unfollowed(&self, path: &[u8], epoch: u64, local: Option<Txid>) -> Saved {
        if let Some(elsewhere) = &self.elsewhere {
            return elsewhere.copies.unfollowed(path, epoch, local);
        }
        let known = self.known();
        let run = known.runs.get(path);
        match run.filter(|run| run.run.epoch == epoch && run.run.sequence > 0) {
            Some(Run { run, after }) => Saved {
                run: *run,
                txid: local.map_or(Txid::MAX, |local| local.max(after.unwrap_or_default())),
            },
            None => Saved::alone(epoch),
        }
    }

    /// What is there as a file.
    #[must_use]
    pub fn get(&self, path: &[u8]) -> Option<Saved> {
        self.known().saved.get(path).copied()
    }

    /// Whether it is known as a database, whatever it is treated as now.
    #[must_use]
    pub fn has_met(&self, path: &[u8]) -> bool {
        let known = self.known();
        known.left.contains_key(path) || known.saved.contains_key(path) || known.replicated.contains_key(path)
    }

    /// A database that is about to be followed is there as a file, of which nothing was said: it was saved while nobody
    /// followed it.
    pub fn assume(&self, path: &[u8]) {
        let mut known = self.known();
        if let Some(newest) = known.newest
            && !known.replicated.contains_key(path)
        {
            known
                .saved
                .entry(path.to_vec())
                .or_insert_with(|| Saved::alone(newest.epoch));
        }
    }

    /// A run has begun: from now on its count is what the file is compared by.
    pub fn renumber(&self, path: &[u8], runs: &[Run]) {
        let mut known = self.known();
        let Some(last) = runs.last() else { return };
        known.runs.insert(path.to_vec(), *last);
        if let Some(saved) = known.saved.get_mut(path) {
            *saved = Saved {
                run: last.run,
                txid: saved.counted(runs),
            };
        }
    }

    /// Where each database stands that this destination has, or should have, a copy of. `followed`: those that this
    /// destination has the replicas of.
    pub async fn positions(&self, followed: Option<&Replication>, epoch: u64) -> Vec<DatabasePosition> {
        match (followed, &self.elsewhere) {
            (Some(followed), _) => followed.positions(true, epoch).await,
            // Whatever is saved after this holds as much, and more.
            (None, Some(elsewhere)) => elsewhere.positions(false, epoch).await,
            (None, None) => Vec::new(),
        }
    }

    /// Completes the positions that a snapshot tells: which of them it has as files, by `is_there`. `now`: those that were
    /// saved for it, after the positions were asked.
    pub fn note(
        &self,
        positions: &mut Vec<DatabasePosition>,
        now: &BTreeSet<Vec<u8>>,
        epoch: u64,
        is_there: impl Fn(&[u8]) -> bool,
    ) -> Noted {
        let asked: BTreeSet<Vec<u8>> = positions.iter().map(path_of).collect();
        let others: BTreeSet<Vec<u8>> = {
            let known = self.known();
            let others = known.left.keys().chain(known.saved.keys());
            others.filter(|path| !asked.contains(*path)).cloned().collect()
        };
        positions.extend(others.iter().filter_map(|path| {
            let Saved { run, txid: _ } = self.unfollowed(path, epoch, None);
            unasked(path, run)
        }));
        let known = self.known();
        let mut noted = BTreeMap::new();
        positions.retain_mut(|position| {
            let path = path_of(position);
            let saved = if !is_there(&path) {
                None
            } else if now.contains(&path) {
                saved_now(position)
            } else {
                let assumed = || Some(Saved::alone(known.newest?.epoch)).filter(|_| known.left.contains_key(&path));
                known.saved.get(&path).copied().or_else(assumed)
            };
            if let Some(saved) = saved {
                let counted = known.left.get(&path).copied().flatten();
                noted.insert(path, saved);
                if position.txid == Txid::MAX.to_string() {
                    // The file is all that is known of it.
                    position.txid = saved.txid.to_string();
                    position.run = Some(saved.run);
                }
                // A pod of the former release goes by a number that its replica passes.
                let counted = counted.filter(|_| saved.run.sequence == 0);
                position.file = Some(counted.unwrap_or(saved.txid).to_string());
                position.file_run = Some(saved.run).filter(|run| position.run != Some(*run));
                return true;
            }
            if position.txid != Txid::MAX.to_string() {
                return true;
            }
            // Nothing was heard of it yet in this life.
            match known.replicated.get(&path) {
                Some(before) if asked.contains(&path) => {
                    *position = before.clone();
                    true
                }
                _ => false,
            }
        });
        positions.sort_by(|a, b| (&a.folder, &a.path).cmp(&(&b.folder, &b.path)));
        Noted(noted)
    }

    /// The snapshot is published.
    pub fn publish(&self, noted: Noted) {
        self.known().saved = noted.0;
    }
}

/// What was saved after the position was asked.
fn saved_now(position: &DatabasePosition) -> Option<Saved> {
    Some(Saved {
        run: position.run?,
        txid: Txid::parse(&position.txid)?,
    })
}

/// A database that nobody follows here, or has met yet.
fn unasked(path: &[u8], run: Point) -> Option<DatabasePosition> {
    let (folder, path) = std::str::from_utf8(path).ok()?.split_once('/')?;
    Some(DatabasePosition {
        folder: folder.to_owned(),
        path: path.to_owned(),
        txid: Txid::MAX.to_string(),
        time: Timestamp::now(),
        run: Some(run),
        file: None,
        file_run: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::Carried;

    fn id(epoch: u64) -> SnapshotId {
        format!("20261122T130500Z-{epoch}.42-auto").parse().unwrap()
    }

    fn position(path: &str, run: &str, txid: u64, file: Option<u64>) -> DatabasePosition {
        DatabasePosition {
            folder: "config".to_owned(),
            path: path.to_owned(),
            txid: Txid(txid).to_string(),
            time: Timestamp::UNIX_EPOCH,
            run: Some(run.parse().unwrap()),
            file: file.map(|txid| Txid(txid).to_string()),
            file_run: None,
        }
    }

    fn copies(epoch: u64, databases: Vec<DatabasePosition>) -> Copies {
        let copies = Copies::default();
        copies.inherit(&Header {
            id: id(epoch),
            base: None,
            time: Timestamp::UNIX_EPOCH,
            volumes: Vec::new(),
            databases,
            skipped: BTreeMap::new(),
            carried: Carried::default(),
        });
        copies
    }

    /// The snapshot of this epoch, of which these files are there, and these were saved for it: what it says, and what it
    /// says of files.
    fn next(copies: &Copies, epoch: u64, asked: &[DatabasePosition], saved: &[&str], there: &[&str]) -> Vec<String> {
        let mut positions = asked.to_vec();
        let is_there = |path: &[u8]| there.iter().any(|there| format!("config/{there}").as_bytes() == path);
        let saved = saved.iter().map(|path| format!("config/{path}").into_bytes()).collect();
        let noted = copies.note(&mut positions, &saved, epoch, is_there);
        copies.publish(noted);
        let short = |txid: &str| match Txid::parse(txid).unwrap() {
            Txid::MAX => "all".to_owned(),
            Txid(txid) => txid.to_string(),
        };
        let told = positions.iter().map(|position| {
            let file = position.file.as_deref().map(short).unwrap_or_default();
            let file_run = position.file_run.map(|run| format!(" of {run}")).unwrap_or_default();
            let run = position.run.unwrap();
            format!(
                "{} {} {run} file {file}{file_run}",
                position.path,
                short(&position.txid)
            )
        });
        told.collect()
    }

    #[test]
    fn what_nobody_follows_any_more_is_told_as_a_file_once_it_is_one() {
        let copies = copies(3, vec![position("a.db", "3.1", 100, None)]);
        copies.leave([(b"config/a.db".to_vec(), Some(Txid(120)))]);
        assert_eq!(
            next(&copies, 4, &[], &[], &[]),
            Vec::<String>::new(),
            "it was not saved yet"
        );
        assert_eq!(next(&copies, 4, &[], &["a.db"], &["a.db"]), ["a.db all 4.0 file 120"]);
        assert_eq!(next(&copies, 4, &[], &[], &["a.db"]), ["a.db all 4.0 file 120"]);
        assert_eq!(
            next(&copies, 4, &[], &[], &[]),
            Vec::<String>::new(),
            "its app has deleted it"
        );
    }

    #[test]
    fn a_file_that_is_not_saved_again_is_as_new_as_it_was() {
        let copies = copies(3, vec![position("a.db", "3.1", 120, Some(100))]);
        copies.leave([(b"config/a.db".to_vec(), Some(Txid(120)))]);
        assert_eq!(next(&copies, 4, &[], &[], &["a.db"]), ["a.db 100 3.1 file 100"]);
        let of_nobody = self::copies(3, Vec::new());
        of_nobody.leave([(b"config/a.db".to_vec(), None)]);
        assert_eq!(
            next(&of_nobody, 4, &[], &[], &["a.db"]),
            ["a.db all 3.0 file all"],
            "a release that said nothing had saved it"
        );
    }

    #[test]
    fn a_destination_beside_the_one_with_the_replicas_says_how_new_its_files_are() {
        let copies = copies(3, vec![position("a.db", "3.1", 120, Some(100))]);
        let asked = |txid| [position("a.db", "4.1", txid, None)];
        assert_eq!(
            next(&copies, 4, &asked(130), &[], &["a.db"]),
            ["a.db 130 4.1 file 100 of 3.1"]
        );
        assert_eq!(
            next(&copies, 4, &asked(140), &["a.db"], &["a.db"]),
            ["a.db 140 4.1 file 140"]
        );
        assert_eq!(next(&copies, 4, &asked(150), &[], &["a.db"]), ["a.db 150 4.1 file 140"]);
        assert_eq!(
            next(&copies, 4, &asked(150), &[], &[]),
            ["a.db 150 4.1 file "],
            "it lacks one"
        );
    }

    #[test]
    fn what_was_not_heard_of_yet_is_told_as_before() {
        let before = position("a.db", "3.1", 120, None);
        let copies = copies(3, vec![before, position("b.db", "3.1", 7, Some(7))]);
        let unheard = [
            position("a.db", "4.0", u64::MAX, None),
            position("c.db", "4.0", u64::MAX, None),
        ];
        assert_eq!(
            next(&copies, 4, &unheard, &[], &["b.db"]),
            ["a.db 120 3.1 file ", "b.db 7 3.1 file 7"],
            "b.db was not met yet, and of c.db there is nothing anywhere"
        );
        assert_eq!(
            next(&copies, 4, &unheard, &["c.db"], &["b.db", "c.db"]),
            ["a.db 120 3.1 file ", "b.db 7 3.1 file 7", "c.db all 4.0 file all"]
        );
    }

    #[test]
    fn what_nobody_follows_at_this_moment_is_newer_than_all_that_was_sent_under_this_claim() {
        let run = |run: &str, after| Run {
            run: run.parse().unwrap(),
            after: Some(Txid(after)),
        };
        let copies = copies(3, Vec::new());
        let path = b"config/a.db";
        let unfollowed = |local| copies.unfollowed(path, 4, local);
        assert_eq!(unfollowed(Some(Txid(9))), Saved::alone(4));
        copies.followed([(path.to_vec(), run("3.2", 7))]);
        assert_eq!(
            unfollowed(Some(Txid(9))),
            Saved::alone(4),
            "that was under another claim"
        );
        // A process before this one has followed it, and has sent up to 11.
        let runs = [run("3.2", 7), run("4.1", 9)];
        copies.followed([(path.to_vec(), runs[1])]);
        for local in [Some(Txid(11)), Some(Txid(12)), None] {
            assert!(!unfollowed(local).is_older_than(Some(Txid(11)), &runs), "{local:?}");
        }
        assert_eq!(
            unfollowed(Some(Txid(12))),
            Saved {
                run: runs[1].run,
                txid: Txid(12)
            }
        );
        assert_eq!(
            unfollowed(Some(Txid(3))).txid,
            Txid(9),
            "it has lost what it had counted"
        );
        // It is followed again: what is sent from now on is newer.
        let runs = [runs[0], runs[1], run("4.2", 12)];
        assert!(unfollowed(Some(Txid(12))).is_older_than(Some(Txid(13)), &runs));
        assert!(unfollowed(None).is_older_than(Some(Txid(13)), &runs));
    }

    #[test]
    fn a_file_of_which_nothing_was_said_was_saved_while_nobody_followed_it() {
        let copies = copies(3, vec![position("a.db", "3.1", 120, None)]);
        copies.assume(b"config/a.db");
        assert_eq!(copies.get(b"config/a.db"), None, "its replica is newer");
        copies.assume(b"config/b.db");
        assert_eq!(copies.get(b"config/b.db"), Some(Saved::alone(3)));
    }
}
