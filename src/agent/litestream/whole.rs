//! Whether a replica still is what was sent to it. Litestream looks at its start alone: where the store comes back as it was
//! an hour ago, or without what it had, Litestream sends on what comes next, which is of no use without what is missing. Part
//! of [`Supervisor`], but for the judgement, which is pure.

use super::local;
use super::ltx::{self, File, SNAPSHOTS, Txid};
use super::replica::Replica;
use super::replication::Database;
use super::supervise::Supervisor;
use super::turn::LOOKING;
use crate::agent::sidecar::backup::{Failure, all_done};
use crate::store::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// What can't be told from the newest files alone is looked at thoroughly, at most so often.
const THOROUGHLY: Duration = Duration::from_secs(3600);

/// What the newest files of a replica say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// It goes on from what it was known to have.
    Whole,
    /// What it was known to have is not among them: it may have been compacted.
    Unsure,
    /// Something is missing.
    Lost,
}

/// What is known of the replicas' being whole.
#[derive(Debug, Default)]
pub(super) struct Wholeness {
    /// Replicas of which something seems to be missing: a listing may lag behind.
    suspects: BTreeSet<Vec<u8>>,
    /// When each was last looked at thoroughly.
    looked: BTreeMap<Vec<u8>, Instant>,
}

impl Wholeness {
    /// Whether any has to be looked at again.
    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// The store was away: who knows what it is now.
    pub(super) fn doubt(&mut self) {
        self.looked.clear();
    }
}

/// Judges the files of level 0. `sent`: what the store was known to have; `local`: what Litestream has taken from the
/// database by now.
fn judge(files: &[File], sent: Txid, local: Option<Txid>) -> Sight {
    let newest = files.iter().map(|file| file.max).max().unwrap_or_default();
    // Somebody else's, or what is left of it.
    if newest < sent || local.is_some_and(|local| newest > local) {
        return Sight::Lost;
    }
    let has_it = files.iter().any(|file| file.min <= sent && sent <= file.max);
    if !has_it && sent > Txid(0) {
        return Sight::Unsure;
    }
    if reached(files, sent) == newest {
        Sight::Whole
    } else {
        Sight::Lost
    }
}

/// How far files follow each other from there.
fn reached(files: &[File], from: Txid) -> Txid {
    let mut files = files.to_vec();
    files.sort_unstable();
    files.iter().fold(from, |reached, file| {
        if file.min.0 <= reached.0 + 1 {
            reached.max(file.max)
        } else {
            reached
        }
    })
}

/// How far a replica can be restored, and the files beyond that, which nothing leads to.
pub(super) fn ends(files: &[File]) -> (Txid, Vec<File>) {
    let chain = ltx::newest(files, None).unwrap_or_default();
    let reached = chain.last().map_or(Txid(0), |file| file.max);
    let beyond = files
        .iter()
        .filter(|file| file.level != SNAPSHOTS && file.max > reached);
    (reached, beyond.copied().collect())
}

impl Supervisor {
    fn replica<'a>(&'a self, key: &'a str) -> Replica<'a> {
        Replica {
            store: self.store.as_ref(),
            target: &self.target,
            key,
        }
    }

    /// What the store has of a database, of every level.
    pub(super) async fn all_files(&self, database: &Database) -> Result<Vec<File>, Failure> {
        let key = database.key();
        match tokio::time::timeout(LOOKING, self.replica(&key).files()).await {
            Ok(files) => Ok(files?),
            Err(_) => Err(Error::Unreachable {
                destination: self.store.destination(),
                why: format!("a replica was not listed within {} s", LOOKING.as_secs()),
            }
            .into()),
        }
    }

    /// Takes away what nothing leads to, so that what is sent next follows what is left: up to where that reaches.
    pub(super) async fn clear_beyond(&self, database: &Database, files: &[File]) -> Result<Txid, Failure> {
        let (reached, beyond) = ends(files);
        if !beyond.is_empty() {
            tracing::error!(
                "the replica of {} has lost what came after transaction {reached}: the database is sent as a whole again",
                database.file.display()
            );
            let key = database.key();
            let names: Vec<String> = beyond.iter().map(|file| self.replica(&key).name(file)).collect();
            let undone = self.store.delete(&key, &names).await?;
            all_done("what is of no use in a replica could not be removed", &names, undone)?;
        }
        Ok(reached)
    }

    /// The newest transaction that the store has of a database; none: it has lost something, or nobody knows yet.
    pub(super) async fn seen(&mut self, path: &[u8], database: &Database) -> Result<Option<Txid>, Failure> {
        let key = database.key();
        let Ok(files) = tokio::time::timeout(LOOKING, self.replica(&key).level(0)).await else {
            return Err(Error::Unreachable {
                destination: self.store.destination(),
                why: format!("a replica was not listed within {} s", LOOKING.as_secs()),
            }
            .into());
        };
        let files = files?;
        let local = local::position(&database.file).map(|position| position.txid);
        let mut sight = judge(&files, database.sent, local);
        let looked = self.wholeness.looked.get(path);
        if sight == Sight::Unsure && looked.is_none_or(|looked| looked.elapsed() >= THOROUGHLY) {
            let all = self.all_files(database).await?;
            let newest = all.iter().map(|file| file.max).max().unwrap_or_default();
            if ends(&all).0 < newest {
                sight = Sight::Lost;
            } else {
                self.wholeness.looked.insert(path.to_vec(), Instant::now());
            }
        }
        if sight != Sight::Lost {
            self.wholeness.suspects.remove(path);
            return Ok(files.iter().map(|file| file.max).max());
        }
        if self.wholeness.suspects.insert(path.to_vec()) {
            return Ok(None);
        }
        self.send_anew(path, database).await?;
        Ok(None)
    }

    /// Has a database sent as a whole again.
    async fn send_anew(&mut self, path: &[u8], database: &Database) -> Result<(), Failure> {
        // Until then it is saved as a file.
        self.replication.change(path, Database::unsent);
        self.tell();
        if let Some(running) = self.running.remove(database.profile.as_str()) {
            running.process.kill().await;
        }
        let files = self.all_files(database).await?;
        self.clear_beyond(database, &files).await?;
        local::forget(&database.file).map_err(|source| Error::Local {
            what: format!("{} can't be removed", local::folder(&database.file).display()),
            source,
        })?;
        self.wholeness.suspects.remove(path);
        self.replication.changed.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(u8, u64, u64)]) -> Vec<File> {
        let file = |(level, min, max): &(u8, u64, u64)| File {
            min: Txid(*min),
            max: Txid(*max),
            level: *level,
        };
        list.iter().map(file).collect()
    }

    type Row<'a> = (&'a str, &'a [u64], u64, Option<u64>, Sight);

    #[test]
    fn a_replica_that_has_lost_something_is_told_from_one_that_was_compacted() {
        let level = |numbers: &[u64]| files(&numbers.iter().map(|number| (0, *number, *number)).collect::<Vec<_>>());
        #[rustfmt::skip]
        let table: &[Row<'_>] = &[
            ("nothing was sent yet", &[], 0, None, Sight::Whole),
            ("the first", &[1], 0, Some(1), Sight::Whole),
            ("it goes on", &[98, 99, 100, 101, 102], 100, Some(105), Sight::Whole),
            ("nothing came since", &[100], 100, Some(100), Sight::Whole),
            (
                "all of it was compacted but the newest",
                &[103, 104],
                100,
                Some(104),
                Sight::Unsure,
            ),
            ("it is empty", &[], 100, Some(101), Sight::Lost),
            ("it is as it was before", &[57, 58], 100, Some(101), Sight::Lost),
            (
                "and something was sent since",
                &[57, 58, 101],
                58,
                Some(101),
                Sight::Lost,
            ),
            (
                "it was empty for a moment, and something was sent elsewhere",
                &[99, 100, 102],
                100,
                Some(102),
                Sight::Lost,
            ),
            (
                "it began anew elsewhere, and here is what was there before",
                &[99, 100],
                5,
                Some(6),
                Sight::Lost,
            ),
            ("Litestream's own folder is gone", &[99, 100], 100, None, Sight::Whole),
        ];
        for (what, listed, sent, local, expected) in table {
            assert_eq!(judge(&level(listed), Txid(*sent), local.map(Txid)), *expected, "{what}");
        }
    }

    #[test]
    fn what_nothing_leads_to_ends_a_replica() {
        for (all, reaches, beyond) in [
            (vec![(9, 1, 40), (1, 30, 45), (0, 46, 46), (0, 47, 47)], 47, vec![]),
            (vec![(9, 1, 40), (1, 30, 45), (0, 47, 47)], 45, vec![(0, 47, 47)]),
            (
                vec![(1, 90, 95), (0, 95, 95), (0, 96, 96)],
                0,
                vec![(1, 90, 95), (0, 95, 95), (0, 96, 96)],
            ),
            (vec![(0, 1, 1), (0, 2, 2), (9, 1, 1)], 2, vec![]),
            (vec![(9, 1, 40), (9, 1, 20), (0, 21, 21)], 40, vec![]),
            (vec![], 0, vec![]),
        ] {
            assert_eq!(ends(&files(&all)), (Txid(reaches), files(&beyond)), "{all:?}");
        }
    }
}
