//! Replicas of databases that are gone from their volume → which of them nobody needs any more. A replica stays as long as a
//! snapshot is kept that may name its database: those that were there when it was first seen to be gone. Part of
//! [`Supervisor`], but for the decision, which is pure.

use super::registry::{Registered, Registry};
use super::replica::Replica;
use super::supervise::Supervisor;
use crate::agent::sidecar::backup::{Failure, all_done};
use crate::agent::sidecar::batch::with_sources;
use crate::store::claims::Holder;
use crate::store::snapshot::SnapshotId;
use jiff::Timestamp;

/// What is to become of a database's replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It stays.
    Stays,
    /// It stays, for the snapshots up to this one.
    StaysFor(SnapshotId),
    /// It goes.
    Goes,
}

/// `kept`: the snapshots of the place that stay, pinned ones among them, the newest last.
fn fate(database: &Registered, is_there: bool, kept: &[SnapshotId], now: Timestamp) -> Fate {
    let (false, false, Some(newest)) = (is_there, database.is_missed(now), kept.last()) else {
        return Fate::Stays;
    };
    match database.needed_by {
        None => Fate::StaysFor(*newest),
        Some(last) if kept.iter().all(|id| *id > last) => Fate::Goes,
        Some(_) => Fate::Stays,
    }
}

impl Supervisor {
    /// Takes away what no snapshot of these needs.
    pub(super) async fn outlive(&mut self, holder: &Holder, kept: &[SnapshotId]) {
        if let Err(failure) = self.take_away(holder, kept).await {
            // It is found again when the place is next pruned.
            tracing::warn!(
                "what nobody needs of databases that are gone could not be removed: {}",
                with_sources(&failure)
            );
        }
    }

    async fn take_away(&mut self, holder: &Holder, kept: &[SnapshotId]) -> Result<(), Failure> {
        let known = match &self.registry {
            Some(known) => known.clone(),
            None => Registry::read_or_listed(self.store.as_ref(), (0, 0)).await?,
        };
        let mut next = known.clone();
        let now = Timestamp::now();
        for database in &known.databases {
            match fate(database, self.is_there(database), kept, now) {
                Fate::Stays => {}
                Fate::StaysFor(last) => next.put(Registered {
                    needed_by: Some(last),
                    ..database.clone()
                }),
                Fate::Goes => {
                    self.require_claim(holder).await?;
                    self.remove(database).await?;
                    next.forget(database);
                }
            }
        }
        if next == known {
            return Ok(());
        }
        self.require_claim(holder).await?;
        let written = self.keep(&next, false).await;
        self.registry = written.is_ok().then_some(next);
        written
    }

    /// Anything at its path; a volume that is not ours to look at may have it.
    fn is_there(&self, database: &Registered) -> bool {
        let volume = self
            .scope
            .volumes
            .iter()
            .find(|volume| volume.folder == database.folder);
        volume.is_none_or(|volume| std::fs::symlink_metadata(volume.path.join(&database.path)).is_ok())
    }

    /// Litestream's own files, and no others: below them may lie the replica of another database.
    async fn remove(&self, database: &Registered) -> Result<(), Failure> {
        let key = database.key();
        let replica = Replica {
            store: self.store.as_ref(),
            target: &self.target,
            key: &key,
        };
        let names: Vec<String> = replica.files().await?.iter().map(|file| replica.name(file)).collect();
        let undone = self.store.delete(&key, &names).await?;
        all_done("not all of a replica could be removed", &names, undone)?;
        let path = format!("{}/{}", database.folder, database.path);
        self.replication.lost(path.as_bytes());
        tracing::info!("the replica of {path} is removed: the database is gone, and no snapshot that is kept names it");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_goes_once_no_snapshot_is_kept_that_may_name_its_database() {
        let now: Timestamp = "2026-11-22T13:00:00Z".parse().unwrap();
        let long_ago = "2026-11-01T12:00:00Z";
        let first = "20261101T110000Z-1.1-auto";
        let second = "20261101T130000Z-1.2-auto";
        // Its clock was set back.
        let third = "20261101T090000Z-2.1-auto";
        // Since when it is gone, whether it is there, by which it is needed, what is kept.
        for (gone, is_there, needed_by, kept, expected) in [
            (None, false, None, &[first][..], Fate::Stays),
            (Some(long_ago), true, Some(first), &[third], Fate::Stays),
            // A start within the hour would miss it.
            (Some("2026-11-22T12:30:00Z"), false, Some(first), &[third], Fate::Stays),
            (Some(long_ago), false, None, &[], Fate::Stays),
            (
                Some(long_ago),
                false,
                None,
                &[first, second],
                Fate::StaysFor(second.parse().unwrap()),
            ),
            (
                Some(long_ago),
                false,
                Some(second),
                &[first, second, third],
                Fate::Stays,
            ),
            // The first one is pinned.
            (Some(long_ago), false, Some(second), &[first, third], Fate::Stays),
            (Some(long_ago), false, Some(second), &[second, third], Fate::Stays),
            (Some(long_ago), false, Some(second), &[third], Fate::Goes),
            (Some(long_ago), false, Some(second), &[], Fate::Stays),
        ] {
            let database = Registered {
                folder: "config".to_owned(),
                path: "app.db".to_owned(),
                uid: 0,
                gid: 0,
                mode: 0o600,
                replicated: true,
                gone: gone.map(|time| time.parse().unwrap()),
                needed_by: needed_by.map(|id| id.parse().unwrap()),
                left_at: None,
                runs: Vec::new(),
                beginnings: Vec::new(),
            };
            let kept: Vec<SnapshotId> = kept.iter().map(|id| id.parse().unwrap()).collect();
            assert_eq!(
                fate(&database, is_there, &kept, now),
                expected,
                "{gone:?} {is_there} {needed_by:?} {kept:?}"
            );
        }
    }
}
