//! Backups of a place in which nothing is deleted, because its store refuses that: the laws are the same, and nothing is done
//! again and again.

use super::*;
use crate::store::records::{Pending, decode};

impl Bench {
    fn of_a_store_that_refuses_deletions() -> Self {
        Self {
            refuses: true,
            ..Self::new()
        }
    }

    /// Whether every backup that was begun is a snapshot, or says that it was undone.
    fn all_is_settled(&self) -> bool {
        let snapshots = self.snapshots();
        self.pending().iter().all(|id| {
            let mark = self.memory.objects()[&keys::pending(id)].clone();
            snapshots.contains(id) || decode::<Pending>(&mark).unwrap().undone
        })
    }

    /// Whether the mirror has all that is on the volume, as it is there.
    fn is_mirrored(&self) -> bool {
        let mirror = self.mirror();
        self.mirrored_tree()
            .iter()
            .all(|(name, content)| mirror.get(name) == Some(content))
    }
}

#[tokio::test]
async fn where_nothing_is_deleted_a_death_at_any_call_loses_no_snapshot_and_nothing_is_undone_twice() {
    'lives: for lives in 0.. {
        let mut bench = Bench::of_a_store_that_refuses_deletions();
        let mut alive = bench.open(lives, 1).await.ok();
        for round in 0..3 {
            act(&bench, round);
            let Some(site) = &mut alive else { break };
            if bench.backup(site, Kind::Auto).await.is_err() {
                break;
            }
            if round == 2 {
                assert!(lives > 20, "only {lives} deaths were tried");
                break 'lives;
            }
        }
        bench.check("after the death");
        for again in [lives % 7, lives % 13, usize::MAX] {
            bench.claim(2);
            let Ok(mut site) = bench.open(again, 2).await else {
                bench.check("after a death at the opening");
                continue;
            };
            bench.check("after the opening");
            let result = bench.backup(&mut site, Kind::Auto).await;
            bench.check("after the next backup");
            if again == usize::MAX {
                result.unwrap();
            }
        }
        assert!(bench.all_is_settled(), "after {lives} calls: {:?}", bench.pending());
        assert!(bench.is_mirrored(), "after {lives} calls");
        // What was written since is not put back by those who come later.
        bench.write("a", "a as it is now");
        let mut site = bench.open(usize::MAX, 2).await.unwrap();
        bench.backup(&mut site, Kind::Auto).await.unwrap();
        for epoch in [2, 3] {
            bench.claim(epoch);
            bench.open(usize::MAX, epoch).await.unwrap();
            bench.check("after another opening");
            assert!(bench.is_mirrored(), "after {lives} calls and another opening");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_deleted_is_said_once_and_kept_once() {
    let mut bench = Bench::of_a_store_that_refuses_deletions();
    act(&bench, 0);
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!(
        site.deletions.news("a:b").map(|news| news.contains("AccessDenied")),
        Some(true)
    );
    act(&bench, 1);
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!(site.deletions.news("a:b"), None);
    let before = bench.memory.objects().clone();
    // Whoever opens it again finds copies of files that are gone, and leaves them where they are.
    for _ in 0..3 {
        let mut site = bench.open(usize::MAX, 1).await.unwrap();
        assert_eq!(bench.backup(&mut site, Kind::Auto).await.unwrap().snapshot, None);
        site.delete_again().await.unwrap();
        site.settle(false).await.unwrap();
        site.reconcile().await.unwrap();
        assert_eq!(bench.backup(&mut site, Kind::Auto).await.unwrap().snapshot, None);
    }
    assert_eq!(*bench.memory.objects(), before);
    // A file that comes back is saved under its name, and is none of them.
    bench.write("b", "b is back");
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    site.delete_again().await.unwrap();
    bench.check("after a file came back");
    // It is allowed after all: what is left goes, and nothing else.
    bench.refuses = false;
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!((bench.pending(), bench.mirror()), (vec![], bench.mirrored_tree()));
    bench.check("after all of it could be deleted");
}

#[tokio::test]
async fn a_store_that_deletes_again_is_rid_of_what_is_left_within_a_day() {
    let mut bench = Bench::new();
    act(&bench, 0);
    let store = Arc::new(Mortal {
        refuses: AtomicBool::new(true),
        ..Mortal::new(&bench.memory, usize::MAX)
    });
    let mut site = bench
        .open_over(store.clone(), vec![bench.only_volume()], 1)
        .await
        .unwrap();
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    act(&bench, 1);
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    bench.write("b", "b is back");
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    store.refuses.store(false, Ordering::Relaxed);
    site.delete_again().await.unwrap();
    site.settle(false).await.unwrap();
    assert!(!site.deletions.are_refused());
    assert_eq!((bench.pending(), bench.mirror()), (vec![], bench.mirrored_tree()));
    bench.check("after all of it could be deleted");
}
