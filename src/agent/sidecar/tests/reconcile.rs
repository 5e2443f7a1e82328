//! What the store's listing shows beside what is known of it: what was lost, written over, or left behind.

use super::*;
use crate::store::index::{IndexReader, What};
use jiff::{SignedDuration, Timestamp};

async fn saved(keeps_times: bool) -> (Bench, Site) {
    let mut bench = Bench::new();
    let mut memory = Memory::default();
    memory.keeps_times = keeps_times;
    bench.memory = Arc::new(memory);
    bench.claim(1);
    for number in 0..8 {
        bench.write(&format!("file-{number}"), &format!("content {number}"));
    }
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    (bench, site)
}

fn in_an_hour() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(1)
}

/// Somebody writes something else of the same size.
fn write_over(bench: &Bench, key: &str) {
    bench.memory.objects().insert(key.to_owned(), b"CONTENT X".to_vec());
    bench.memory.written().insert(key.to_owned(), in_an_hour());
}

#[tokio::test]
async fn what_was_written_over_is_saved_anew_and_what_lies_there_goes_to_history() {
    for keeps_times in [false, true] {
        let (mut bench, mut site) = saved(keeps_times).await;
        write_over(&bench, "config/file-3");
        let warnings = site.reconcile().await.unwrap();
        assert!(
            warnings[0].contains("1 files were written over") && warnings[0].contains("file-3"),
            "{warnings:?}"
        );
        // Whatever is asked for, all is looked at: a snapshot must not be published that does not know it.
        let report = bench
            .backup_of(&mut site, Kind::Auto, Changes::default())
            .await
            .unwrap();
        assert_eq!(report.uploaded, 1);
        assert_eq!(bench.mirror(), bench.tree());
        let kept = format!("{}/config/file-3", keys::history_of(&report.snapshot.unwrap()));
        assert_eq!(bench.memory.objects()[&kept], b"CONTENT X");
        // Once is enough.
        bench
            .memory
            .written()
            .insert("config/file-3".to_owned(), Timestamp::now());
        assert_eq!(site.reconcile().await.unwrap(), [""; 0]);
    }
}

#[tokio::test]
async fn what_was_only_touched_or_saved_by_an_attempt_before_is_not_saved_again() {
    let (mut bench, mut site) = saved(true).await;
    let path = bench.volume.path().join("file-3");
    let later = std::time::SystemTime::now() + Duration::from_secs(3000);
    fs::File::open(path).unwrap().set_modified(later).unwrap();
    let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!(report.uploaded, 0);
    assert_eq!(site.reconcile().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn times_of_a_bucket_that_was_copied_mean_nothing() {
    let (mut bench, mut site) = saved(false).await;
    for number in 0..200 {
        bench.write(&format!("more/{number}"), &format!("content {number}"));
    }
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    let names: Vec<String> = bench.mirror().into_keys().collect();
    for name in names {
        bench.memory.written().insert(name, in_an_hour());
    }
    let warnings = site.reconcile().await.unwrap();
    assert!(warnings[0].contains("as after the bucket was copied"), "{warnings:?}");
    let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!((report.uploaded, report.snapshot), (0, None));
}

#[tokio::test]
async fn a_complete_index_that_is_lost_beneath_a_running_pod_is_replaced_at_once() {
    for empty in [false, true] {
        let (mut bench, mut site) = saved(false).await;
        let complete = keys::snapshot(&site.known.last().unwrap());
        bench.write("file-1", "another one");
        bench.backup(&mut site, Kind::Auto).await.unwrap();
        if empty {
            bench.memory.objects().insert(complete, Vec::new());
        } else {
            bench.memory.objects().remove(&complete);
        }
        let warnings = site.reconcile().await.unwrap();
        assert!(warnings[0].contains("on which later snapshots build"), "{warnings:?}");
        let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
        let id = report
            .snapshot
            .expect("nothing has changed, and it is made all the same");
        assert!(bench.memory.objects().contains_key(&keys::base(&id)));
        assert_eq!(bench.restored(&id), bench.tree());
        assert_eq!(bench.backup(&mut site, Kind::Auto).await.unwrap().snapshot, None);
    }
}

#[tokio::test]
async fn halves_of_uploads_leave_the_mirror_and_are_kept_nowhere() {
    let (mut bench, mut site) = saved(false).await;
    for name in ["config/file-3.1a2b3c4d.partial", "config/unknown"] {
        bench.memory.objects().insert(name.to_owned(), b"half".to_vec());
    }
    site.reconcile().await.unwrap();
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!(bench.mirror(), bench.tree());
    let objects = bench.memory.objects();
    let kept: Vec<&String> = objects.keys().filter(|key| key.starts_with("history/")).collect();
    assert!(kept.len() == 1 && kept[0].ends_with("/config/unknown"), "{kept:?}");
}

#[tokio::test]
async fn what_somebody_has_seen_damaged_is_saved_anew() {
    let (mut bench, mut site) = saved(false).await;
    bench
        .memory
        .objects()
        .insert("config/file-3".to_owned(), b"CONTENT X".to_vec());
    let named = ["config/file-3", "config/unknown", "history/x"].map(str::to_owned);
    assert_eq!(site.save_anew(&named).await.unwrap(), 1);
    let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!(report.uploaded, 1);
    assert_eq!(bench.mirror(), bench.tree());
}

#[tokio::test]
async fn of_a_newest_index_that_cannot_be_read_the_next_one_is_complete_and_no_history_is_lost() {
    for cut in [0, 100] {
        let (mut bench, mut site) = saved(false).await;
        bench.write("file-1", "another 1");
        bench.write("added", "by the last one");
        let lost = bench.backup(&mut site, Kind::Auto).await.unwrap().snapshot.unwrap();
        bench
            .memory
            .objects()
            .get_mut(&keys::snapshot(&lost))
            .unwrap()
            .truncate(cut);
        bench.published.remove(&lost);
        bench.claim(2);
        let mut site = bench.open(usize::MAX, 2).await.unwrap();
        let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
        let id = report.snapshot.unwrap();
        assert!(bench.memory.objects().contains_key(&keys::base(&id)), "it is complete");
        assert_eq!(report.uploaded, 2, "only what the lost one knew is saved anew");
        bench.published.remove(&lost);
        bench.check("after the next backup");
        assert_eq!(bench.mirror(), bench.tree());
    }
}

#[tokio::test]
async fn what_can_not_be_saved_anew_yet_stays_where_it_is_and_is_told_by_what_it_was() {
    let mut bench = Bench::new();
    let database = rusqlite::Connection::open(bench.volume.path().join("app.db")).unwrap();
    database.execute_batch("CREATE TABLE t (n)").unwrap();
    bench.write("file-1", "one");
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    // A database that was saved rests for a while.
    bench.order.rest = Duration::from_secs(300);
    let first = bench.backup(&mut site, Kind::Auto).await.unwrap().snapshot.unwrap();
    let whole = bench.memory.objects()["config/app.db"].clone();
    let damaged = vec![b'X'; whole.len()];
    bench
        .memory
        .objects()
        .insert("config/app.db".to_owned(), damaged.clone());
    bench.memory.written().insert("config/app.db".to_owned(), in_an_hour());
    assert!(site.reconcile().await.unwrap()[0].contains("written over"));
    bench.write("file-1", "another one");
    let second = bench.backup(&mut site, Kind::Auto).await.unwrap().snapshot.unwrap();
    assert_eq!(
        bench.memory.objects()["config/app.db"],
        damaged,
        "nobody has touched it"
    );
    let digest = |id: &SnapshotId| {
        let bytes = bench.memory.objects()[&keys::snapshot(id)].clone();
        let index = IndexReader::new(bytes.as_slice()).unwrap();
        let mut entries = index.map(Result::unwrap);
        match entries
            .find(|entry| entry.path == b"config/app.db")
            .map(|entry| entry.what)
        {
            Some(What::File(file)) => file.sha256,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(digest(&second), digest(&first));
    bench.order.rest = Duration::ZERO;
    assert_eq!(bench.backup(&mut site, Kind::Auto).await.unwrap().uploaded, 1);
    assert_eq!(bench.memory.objects()["config/app.db"], whole);
}

#[tokio::test]
async fn a_mark_of_a_complete_index_that_is_lost_is_made_again_and_a_complete_one_follows() {
    let (mut bench, mut site) = saved(false).await;
    let base = keys::base(&site.known.last().unwrap());
    bench.write("file-1", "another one");
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!(Some(base.clone()), site.known.base().map(|(base, _)| keys::base(&base)));
    bench.memory.objects().remove(&base);
    let warnings = site.reconcile().await.unwrap();
    assert!(
        warnings[0].contains("has lost") && warnings[0].contains(&base),
        "{warnings:?}"
    );
    assert!(bench.memory.objects().contains_key(&base));
    let id = bench.backup(&mut site, Kind::Auto).await.unwrap().snapshot.unwrap();
    assert!(bench.memory.objects().contains_key(&keys::base(&id)));
    assert_eq!(bench.restored(&id), bench.tree());
}
