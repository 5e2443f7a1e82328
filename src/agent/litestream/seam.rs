//! The newest files of a replica → the last transaction that nothing speaks against. A log begins anew in a way that can be
//! told, or with the whole database, by a process that was started then; a part of a log that is neither was sent from another
//! file that the app had put in the place of the first, or after what was written while no Litestream ran. Whoever sends sees
//! that within seconds and sends the whole database; killed before, it leaves as the newest point what no database ever was,
//! though SQLite may find it whole.
//! Reads the store: the newest file of level 0 most of the time, and a dozen more where that is no whole database.

use super::begun::{self, Beginning};
use super::continuity::{Part, part};
use super::ltx::{File, Txid};
use super::replica::Replica;
use crate::store::{Depth, Error, SMALL, keys};
use std::io::Cursor;

/// So often in a row a log is begun anew between two looks, at most.
const MOST_BEGINNINGS: u32 = 16;

impl Part {
    /// Whether it is of the same log as what was sent before, or of that which SQLite begins in the place of that one: it counts
    /// the first half of the salts.
    fn continues(self, before: Self) -> bool {
        let beginnings = self.first_salt().wrapping_sub(before.first_salt());
        self.salts == before.salts || (1..=MOST_BEGINNINGS).contains(&beginnings)
    }

    fn first_salt(self) -> u32 {
        let [a, b, c, d, ..] = self.salts;
        u32::from_be_bytes([a, b, c, d])
    }
}

impl Replica<'_> {
    /// The last transaction at or before `limit` with which what comes next can't belong together; none: all of it may.
    /// `beginnings`: where processes began; none are known where it is empty, and what is whole is believed.
    pub(super) async fn seam(&self, limit: Option<Txid>, beginnings: &[Beginning]) -> Result<Option<Txid>, Error> {
        let mut files = self.newest_in_a_row(limit).await?;
        let mut seam = None;
        while let Some(before) = self.seam_in(&files, beginnings).await? {
            files.truncate(before + 1);
            seam = files.last().map(|(file, _)| file.max);
        }
        Ok(seam)
    }

    /// The files of level 0 that lead to the newest without a gap, and their sizes.
    async fn newest_in_a_row(&self, limit: Option<Txid>) -> Result<Vec<(File, u64)>, Error> {
        let mut files = Vec::new();
        let folder = keys::joined(self.key, &self.target.level(0));
        let mut each = |object: crate::store::Object| {
            files.extend(File::parse(0, &object.name).map(|file| (file, object.size)));
        };
        self.store.list(&folder, Depth::All, &mut each).await?;
        files.retain(|(file, _)| limit.is_none_or(|limit| file.max <= limit));
        files.sort_unstable();
        let gap = files
            .windows(2)
            .rposition(|two| matches!(two, [(one, _), (next, _)] if next.min.0 != one.max.0 + 1));
        Ok(files.split_off(gap.map_or(0, |gap| gap + 1)))
    }

    /// Which of the files is the last before the log of the newest, where that can't follow it.
    async fn seam_in(&self, files: &[(File, u64)], beginnings: &[Beginning]) -> Result<Option<usize>, Error> {
        let Some(last) = files.len().checked_sub(1) else {
            return Ok(None);
        };
        let begins = |which: usize| {
            let file = files.get(which).map(|(file, _)| file.min);
            file.is_some_and(|first| begun::may_begin_with(beginnings, first))
        };
        let Some(newest) = self.part(files, last).await? else {
            return Ok(None);
        };
        if newest.is_whole && begins(last) {
            return Ok(None);
        }
        // The first of the same log: one that was left is not taken up again.
        let (mut from, mut first) = (0, last);
        while from < first {
            let middle = usize::midpoint(from, first);
            match self.part(files, middle).await? {
                Some(part) if part.salts == newest.salts => first = middle,
                Some(_) => from = middle + 1,
                None => return Ok(None),
            }
        }
        let Some(before) = first.checked_sub(1) else {
            return Ok(None);
        };
        let (Some(opening), Some(end)) = (self.part(files, first).await?, self.part(files, before).await?) else {
            return Ok(None);
        };
        if opening.continues(end) || opening.is_whole && begins(first) {
            return Ok(None);
        }
        // Whoever was started since, and found the same log, has sent the whole database once more.
        for which in (first + 1..=last).filter(|which| begins(*which)) {
            if self.part(files, which).await?.is_some_and(|part| part.is_whole) {
                return Ok(None);
            }
        }
        Ok(Some(before))
    }

    /// What a file says of itself; none where it is damaged, or too large to be looked at for that.
    async fn part(&self, files: &[(File, u64)], which: usize) -> Result<Option<Part>, Error> {
        let Some((file, _)) = files.get(which).filter(|(_, size)| *size <= SMALL) else {
            return Ok(None);
        };
        let key = keys::joined(self.key, &self.name(file));
        match self.store.read(&key).await {
            Ok(bytes) => Ok(part(&mut Cursor::new(bytes)).ok()),
            Err(error) if error.is_not_found() || matches!(error, Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::litestream::continuity::tests::ltx;
    use crate::agent::litestream::target::Target;
    use crate::store::Store;
    use crate::store::memory::Memory;

    /// The salt, and so many pages of so many.
    type Sent = (u32, u64, u32);
    /// What is the case, the first transaction, what was sent from it on, and the seam.
    type Case<'a> = (&'a str, u64, &'a [Sent], Option<u64>);
    /// What is the case, what was sent, after which transactions processes began, and the seam.
    type Begun<'a> = (&'a str, &'a [Sent], &'a [u64], Option<u64>);

    /// The seam of a replica whose files, from a transaction on, are of these salts, and so many pages of so many.
    async fn seam(first: u64, files: &[Sent], limit: Option<u64>, begun: &[u64]) -> Option<u64> {
        let store = Memory::default();
        for (txid, (salt, pages, of)) in (first..).zip(files) {
            let mut salts = [7; 8];
            salts[..4].copy_from_slice(&salt.to_be_bytes());
            let key = format!("database/a.db/0000/{}-{}.ltx", Txid(txid), Txid(txid));
            store.write(&key, &ltx(salts, *pages, *of)).await.unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let remote = [
            ("TYPE", "s3"),
            ("PROVIDER", "Minio"),
            ("ENDPOINT", "http://minio:9000"),
            ("ACCESS_KEY_ID", "key"),
            ("SECRET_ACCESS_KEY", "secret"),
        ];
        for (key, value) in remote {
            std::fs::write(folder.path().join(format!("RCLONE_CONFIG_TEST_{key}")), value).unwrap();
        }
        let target = Target::of(&"test:backups/app".parse().unwrap(), folder.path()).unwrap();
        let replica = Replica {
            store: &store,
            target: &target,
            key: "database/a.db",
        };
        let beginnings: Vec<Beginning> = begun
            .iter()
            .map(|after| Beginning {
                epoch: 1,
                after: Txid(*after),
                upto: Txid(after + 1),
            })
            .collect();
        let seam = replica.seam(limit.map(Txid), &beginnings).await.unwrap();
        seam.map(|txid| txid.0)
    }

    #[tokio::test]
    async fn what_is_whole_and_of_another_log_is_believed_of_a_process_that_began_with_it() {
        const WHOLE: u64 = 9;
        #[rustfmt::skip]
        let table: &[Begun<'_>] = &[
            ("a file that was put there while Litestream ran", &[(5, WHOLE, 9), (5, 1, 9), (800, WHOLE, 9)], &[0], Some(2)),
            ("and what comes after it", &[(5, WHOLE, 9), (5, 1, 9), (800, WHOLE, 9), (800, 1, 9)], &[0], Some(2)),
            ("and is ended before the next process begins", &[(5, WHOLE, 9), (5, 1, 9), (800, WHOLE, 9), (800, 1, 9)], &[0, 4], Some(2)),
            ("and is sent as a whole by that", &[(5, WHOLE, 9), (800, WHOLE, 9), (800, 1, 9), (800, WHOLE, 9)], &[0, 3], None),
            ("of which the log goes on", &[(5, WHOLE, 9), (800, 2, 9), (800, WHOLE, 9), (800, 1, 9)], &[0, 2], None),
            ("a process that began with it", &[(5, WHOLE, 9), (5, 1, 9), (800, WHOLE, 9), (800, 1, 9)], &[0, 2], None),
            ("older than what is remembered", &[(5, WHOLE, 9), (5, 1, 9), (800, WHOLE, 9), (800, 1, 9)], &[3], None),
            ("the log that SQLite has begun in the place of the one before", &[(5, WHOLE, 9), (6, WHOLE, 9)], &[0], None),
        ];
        for (what, files, begun, expected) in table {
            assert_eq!(seam(1, files, None, begun).await, *expected, "{what}");
        }
    }

    #[tokio::test]
    async fn a_part_of_a_log_that_can_not_follow_is_not_the_newest_point() {
        const WHOLE: u64 = 9;
        #[rustfmt::skip]
        let table: &[Case] = &[
            ("nothing is there", 1, &[], None),
            ("one log", 1, &[(5, WHOLE, 9), (5, 1, 9), (5, 2, 9)], None),
            ("what lies before its beginning is not kept any more", 40, &[(5, 1, 9), (5, 2, 9)], None),
            ("SQLite has begun the log anew", 1, &[(5, WHOLE, 9), (5, 1, 9), (6, 1, 9), (6, 1, 9), (7, 1, 9)], None),
            ("the whole database, whatever came before", 1, &[(5, 1, 9), (800, WHOLE, 9), (800, 1, 9)], None),
            ("another file's log", 1, &[(5, WHOLE, 9), (5, 1, 9), (800, 1, 3)], Some(2)),
            ("more of it", 10, &[(5, 1, 9), (5, 1, 9), (5, 1, 9), (800, 1, 9), (800, 2, 9), (800, 1, 9)], Some(12)),
            ("two, one after the other", 1, &[(5, WHOLE, 9), (800, 1, 9), (33, 2, 9)], Some(1)),
            ("it was sent as a whole since", 1, &[(5, 1, 9), (800, 1, 3), (801, 3, 3)], None),
            ("a log that counts over", 1, &[(u32::MAX, 1, 9), (0, 1, 9)], None),
        ];
        for (what, first, files, expected) in table {
            assert_eq!(seam(*first, files, None, &[]).await, *expected, "{what}");
        }
        let mixed = [(5, WHOLE, 9), (800, 1, 3), (801, 3, 3)];
        assert_eq!(
            seam(1, &mixed, Some(2), &[]).await,
            Some(1),
            "the point that is asked for is one"
        );
        assert_eq!(seam(1, &mixed, Some(1), &[]).await, None);
    }
}
