//! A writer whose place was taken while it was at it, and what of it comes late: whatever it still sends, every snapshot can
//! be restored in the end, files of the same size too.

use super::{Bench, act};
use crate::agent::watch::Changes;
use crate::store::records::{VERSION, encode};
use crate::store::snapshot::{Kind, SnapshotId};
use crate::store::state::State;
use crate::store::{Store, keys};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// A writer that has saved some files.
async fn saved() -> Bench {
    let mut bench = Bench::new();
    let mut site = bench.open(1000, 1).await.unwrap();
    act(&bench, 0);
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    bench
}

/// As far as it has come when its place is taken: it has begun a backup that changes some files, adds some and deletes some.
async fn interrupted(lives: usize) -> (Bench, Option<SnapshotId>) {
    let mut bench = saved().await;
    let Ok(mut site) = bench.open(lives, 1).await else {
        return (bench, None);
    };
    // As large as before.
    bench.write("a", "A AT FIRST");
    bench.write("d/e", "D/E AT FIRST");
    bench.write("new", "new");
    bench.remove("b");
    let _ = bench.backup(&mut site, Kind::Auto).await;
    let pending = bench.pending().first().copied();
    (bench, pending)
}

/// The pod that takes over: a volume of its own, with what the newest snapshot holds.
fn successor(before: &Bench) -> Bench {
    let mut bench = Bench::new();
    bench.memory = before.memory.clone();
    bench.published.clone_from(&before.published);
    let newest = *before.snapshots().last().unwrap();
    for (name, content) in before.restored(&newest) {
        let path = bench.volume.path().join(name.strip_prefix("config/").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    bench.claim(2);
    bench
}

/// What the writer before sends late in its backup `id`: these files as they are on its volume. What it replaces it has kept.
fn send_late(before: &Bench, id: Option<SnapshotId>, names: &[&str]) {
    let Some(id) = id else { return };
    let tree = before.tree();
    let mut objects = before.memory.objects();
    for name in names {
        let name = format!("config/{name}");
        if let Some(there) = objects.get(&name).cloned() {
            objects
                .entry(format!("{}/{name}", keys::history_of(&id)))
                .or_insert(there);
        }
        objects.insert(name.clone(), tree[&name].clone());
    }
}

#[tokio::test]
async fn whatever_a_writer_sends_after_its_place_was_taken_every_snapshot_can_be_restored_in_the_end() {
    let mut undone = 0;
    for lives in 4..24 {
        let (before, pending) = interrupted(lives).await;
        let mut bench = successor(&before);
        let mut site = bench.open_beside(2).await;
        bench.check("when it has come");
        undone += site.undone.len();
        let replaced = ["a", "d/e", "new"];
        send_late(&before, pending, &replaced);
        bench.check_before(2, "after a late write");
        bench.write("of the next", "one");
        bench.backup(&mut site, Kind::Auto).await.unwrap();
        send_late(&before, pending, &replaced);
        site.look_back(false).await.unwrap();
        send_late(&before, pending, &replaced);
        // From here on it is gone.
        site.look_back(true).await.unwrap();
        bench.check("in the end");
        bench.backup(&mut site, Kind::Auto).await.unwrap();
        bench.check("after the next backup");
        assert!(!site.beside && site.undone.is_empty());
        assert_eq!(records(&bench), [""; 0], "lives {lives}");
        assert_eq!(contents(&bench.mirror()), contents(&bench.tree()), "lives {lives}");
    }
    assert!(undone > 3, "some were interrupted in the middle");
}

#[tokio::test]
async fn whoever_goes_on_after_the_one_that_took_over_undoes_what_came_late_too() {
    let replaced = ["a", "d/e", "new"];
    let mut undone = 0;
    for lives in 4..24 {
        let (before, pending) = interrupted(lives).await;
        let mut bench = successor(&before);
        // It ends before it has looked back; the next two are of the same pod, the last one is of another.
        drop(bench.open_beside(2).await);
        for epoch in [2, 2, 3] {
            bench.claim(epoch);
            send_late(&before, pending, &replaced);
            let site = bench.open_beside(epoch).await;
            bench.check("as soon as somebody is there again");
            assert_eq!(
                bench.pending(),
                [],
                "a former release would undo it over what came since"
            );
            undone += site.undone.len();
        }
        send_late(&before, pending, &replaced);
        let mut site = bench.open_beside(3).await;
        send_late(&before, pending, &replaced);
        site.look_back(true).await.unwrap();
        bench.check("in the end");
        bench.backup(&mut site, Kind::Auto).await.unwrap();
        bench.check("after the next backup");
        assert_eq!(contents(&bench.mirror()), contents(&bench.tree()), "lives {lives}");
        assert_eq!(records(&bench), [""; 0]);
    }
    assert!(undone > 9, "some were interrupted in the middle");
}

#[tokio::test]
async fn what_we_saved_while_another_could_still_write_is_saved_anew_in_the_end_whatever_its_size_and_time() {
    let mut replaced = 0;
    for lives in 4..24 {
        let (before, pending) = interrupted(lives).await;
        let mut bench = successor(&before);
        let mut site = bench.open_beside(2).await;
        if site.undone.is_empty() {
            continue;
        }
        // As large as what the writer before has under that name.
        bench.write("a", "a of ours!");
        bench.write("of the next", "one");
        bench.backup(&mut site, Kind::Auto).await.unwrap();
        // It comes after our upload and before our index: by no time it is told from ours.
        send_late(&before, pending, &["a"]);
        assert_eq!(bench.memory.objects()["config/a"], b"A AT FIRST");
        site.look_back(true).await.unwrap();
        assert!(site.beside, "what may be another's is not saved anew yet");
        if replaced % 2 == 1 {
            // Whoever had looked back ends there.
            site = bench.open_beside(2).await;
            site.look_back(true).await.unwrap();
        }
        let report = bench
            .backup_of(&mut site, Kind::Auto, Changes::default())
            .await
            .unwrap();
        assert!(report.snapshot.is_some());
        assert_eq!(contents(&bench.mirror()), contents(&bench.tree()), "lives {lives}");
        assert_eq!(bench.restored(bench.snapshots().last().unwrap()), bench.tree());
        assert!(!site.beside && site.undone.is_empty());
        assert_eq!(records(&bench), [""; 0]);
        // Once is enough.
        let calm = bench.backup(&mut site, Kind::Auto).await.unwrap();
        assert_eq!(calm.snapshot, None);
        replaced += 1;
    }
    assert!(replaced > 3, "some were interrupted in the middle");
}

#[tokio::test]
async fn one_that_is_started_again_looks_back_when_the_first_one_would_have() {
    let (before, _) = interrupted(12).await;
    let bench = successor(&before);
    let minutes = |ago: i64| Timestamp::now() - SignedDuration::from_mins(ago);
    for (epoch, beside, since, expected) in [
        (2, true, Some(minutes(7)), 7),
        (2, true, Some(minutes(-7)), 0),
        (2, true, None, 0),
        // The clock of another pod is another clock.
        (1, true, Some(minutes(7)), 0),
        (2, false, Some(minutes(7)), 0),
    ] {
        let state = State {
            version: VERSION,
            epoch,
            volume_id: "aa".to_owned(),
            beside,
            beside_since: since,
            ..State::default()
        };
        bench.memory.write(keys::STATE, &encode(&state)).await.unwrap();
        let site = bench.open_beside(2).await;
        assert_eq!(site.beside_for().as_secs() / 60, expected, "{epoch} {beside} {since:?}");
    }
}

/// What is written down of backups that were undone.
fn records(bench: &Bench) -> Vec<String> {
    let objects = bench.memory.objects();
    let names = objects.keys().filter_map(|key| key.strip_prefix("served/"));
    names.map(str::to_owned).collect()
}

/// What there is, whatever the names under which it lies.
fn contents(files: &BTreeMap<String, Vec<u8>>) -> BTreeSet<&[u8]> {
    files.values().map(Vec::as_slice).collect()
}

/// The names of the mirror that a backup kept in history.
fn kept_in(bench: &Bench, id: &SnapshotId) -> Vec<String> {
    let folder = format!("{}/config/", keys::history_of(id));
    let objects = bench.memory.objects();
    let names = objects.keys().filter_map(|key| key.strip_prefix(&folder));
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_backup_that_was_begun_late_is_undone_without_undoing_what_came_after() {
    let before = saved().await;
    before.write("c", "C AT FIRST");
    let mut bench = successor(&before);
    let mut site = bench.open_beside(2).await;
    bench.write("a", "a of the next one");
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    // The writer before had looked at the claims a moment before ours was there. It keeps, and replaces, what it finds.
    let late: SnapshotId = "20261122T130500Z-1.9-auto".parse().unwrap();
    bench.memory.write(&keys::pending(&late), b"{}").await.unwrap();
    let kept = format!("{}/config/a", keys::history_of(&late));
    let content = bench.memory.objects()["config/a"].clone();
    bench.memory.objects().insert(kept, content);
    send_late(&before, Some(late), &["c"]);
    site.look_back(false).await.unwrap();
    assert_eq!(site.undone.len(), 1);
    assert_eq!(bench.memory.objects()["config/a"], b"a of the next one");
    send_late(&before, Some(late), &["c"]);
    site.look_back(true).await.unwrap();
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!(contents(&bench.mirror()), contents(&bench.tree()));
    let newest = *bench.snapshots().last().unwrap();
    assert_eq!(bench.restored(&newest), bench.tree());
    assert!(bench.pending().is_empty());
}

#[tokio::test]
async fn where_nobody_else_writes_an_undone_backup_leaves_nothing_behind() {
    let mut undone = 0;
    for lives in 4..24 {
        let (before, pending) = interrupted(lives).await;
        let Some(pending) = pending else { continue };
        let bench = successor(&before);
        let is_ended = before.snapshots().contains(&pending);
        let site = bench.open(1000, 2).await.unwrap();
        assert!(site.undone.is_empty());
        if !is_ended {
            assert_eq!(kept_in(&bench, &pending), [""; 0], "lives {lives}");
            undone += 1;
        }
    }
    assert!(undone > 3, "some were interrupted in the middle");
}
