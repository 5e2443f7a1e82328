//! A snapshot's header × who has claimed the place since → what the header says of databases now: the former release follows
//! replicas without a word. Reads claims.

use crate::agent::lease::inspect::Backup;
use crate::store::index::{DatabasePosition, Header};
use crate::store::{Store, claims};

/// Of databases that a snapshot has as files alone: the former release, which has held the place since, may have followed their
/// replicas again, and writes no run down. So where it has, a file is as new as the number says by which it goes itself: what
/// the replica had when it was left. Replicas lie in the primary destination.
pub(super) async fn as_of_now(number: usize, store: &dyn Store, backup: &Backup, mut header: Header) -> Header {
    let is_alone = |position: &DatabasePosition| {
        let run = position.file_run.or(position.run);
        position.file.is_some() && run.is_some_and(|run| run.sequence == 0)
    };
    if number == 0
        && header.databases.iter().any(is_alone)
        && was_held_by_the_former_release(store, backup, header.id.epoch).await
    {
        for position in header.databases.iter_mut().filter(|position| is_alone(position)) {
            (position.run, position.file_run) = (None, None);
        }
    }
    header
}

/// Whether one of the claims after this epoch is of the former release, which does not say under which start it was made.
async fn was_held_by_the_former_release(store: &dyn Store, backup: &Backup, epoch: u64) -> bool {
    for holder in backup.claims.iter().rev().take_while(|holder| holder.epoch > epoch) {
        match claims::read(store, holder).await {
            Ok(claim) if claim.start.is_none() => return true,
            Ok(_) => {}
            Err(error) => tracing::warn!("whether the former release has followed databases can't be told: {error}"),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::litestream::lineage::{Run, Saved};
    use crate::agent::litestream::ltx::Txid;
    use crate::store::claims::{Claim, ClaimedVolume, Holder, Owner};
    use crate::store::index::Carried;
    use crate::store::memory::Memory;
    use crate::store::records::encode;
    use crate::store::snapshot::SnapshotId;
    use jiff::Timestamp;
    use std::collections::BTreeMap;

    /// A snapshot of epoch 4 that has a database as a file alone, and what its replica had when it was left.
    fn header(left_at: u64) -> Header {
        let id: SnapshotId = "20261122T130500Z-4.42-auto".parse().unwrap();
        let position = DatabasePosition {
            folder: "config".to_owned(),
            path: "a.db".to_owned(),
            txid: Txid::MAX.to_string(),
            time: id.time,
            run: Some("4.0".parse().unwrap()),
            file: Some(Txid(left_at).to_string()),
            file_run: None,
        };
        Header {
            id,
            base: None,
            time: id.time,
            volumes: Vec::new(),
            databases: vec![position],
            skipped: BTreeMap::new(),
            carried: Carried::default(),
        }
    }

    /// A claim, as this release writes it or the former one.
    async fn claim(store: &Memory, epoch: u64, is_of_the_former_release: bool) -> Holder {
        let claim = Claim {
            version: 1,
            epoch,
            owner: Owner {
                cluster: String::new(),
                namespace: "home".to_owned(),
                kind: "Deployment".to_owned(),
                name: "app".to_owned(),
                pod: String::new(),
            },
            pod: "app-1".to_owned(),
            generation: String::new(),
            volumes: vec![ClaimedVolume {
                name: "data".to_owned(),
                folder: "config".to_owned(),
                id: "aa".to_owned(),
            }],
            time: Timestamp::UNIX_EPOCH,
            start: Some(Timestamp::UNIX_EPOCH).filter(|_| !is_of_the_former_release),
        };
        store.write(&claim.holder().key(), &encode(&claim)).await.unwrap();
        claim.holder()
    }

    /// The destination, who has claimed the place since, what the replica had when it was left, how far it reaches now, and
    /// whether it is newer.
    type Case = (usize, &'static [(u64, bool)], u64, u64, bool);

    #[tokio::test]
    async fn what_the_former_release_has_sent_since_is_newer_than_a_file_alone() {
        const FORMER: bool = true;
        const OURS: bool = false;
        let store = Memory::default();
        let runs = [Run::none(4)];
        #[rustfmt::skip]
        let table: [Case; 8] = [
            (0, &[], 100, 101, false),
            (0, &[(5, OURS)], 100, 101, false),
            (0, &[(5, FORMER)], 100, 100, false),
            (0, &[(5, FORMER)], 100, 101, true),
            (0, &[(5, FORMER), (6, OURS)], 100, 101, true),
            (0, &[(3, FORMER), (4, OURS)], 100, 101, false),
            (0, &[(5, FORMER)], u64::MAX, 101, false),
            (1, &[(5, FORMER)], 100, 101, false),
        ];
        for (number, since, left_at, reached, expected) in table {
            let mut backup = Backup::default();
            for (epoch, is_of_the_former_release) in since {
                backup
                    .claims
                    .push(claim(&store, *epoch, *is_of_the_former_release).await);
            }
            let header = as_of_now(number, &store, &backup, header(left_at)).await;
            let saved = Saved::of(&header.databases[0], &header.id).unwrap();
            let found = saved.is_older_than(Some(Txid(reached)), &runs);
            assert_eq!(found, expected, "{number} {since:?} {left_at} {reached}");
        }
    }
}
