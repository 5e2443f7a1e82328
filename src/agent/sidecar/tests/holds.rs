//! What vanishes suspiciously is held, and nothing else is; what the policy takes no longer is carried along.

use super::*;
use crate::agent::arguments::QuestionId;
use crate::store::faulty::{Fault, Faulty};
use crate::store::index::Standing;

const MANY: usize = 40;

impl Bench {
    /// A volume with `store/f0` to `store/f39` and `app.conf`, backed up once, guarded as by default.
    async fn guarded() -> (Self, Site) {
        let mut bench = Self::new();
        bench.order.most = Percent(50);
        bench.write("app.conf", "first");
        for number in 0..MANY {
            bench.write(&format!("store/f{number:02}"), &format!("content of {number}"));
        }
        let mut site = bench.open(usize::MAX, 1).await.unwrap();
        let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
        assert_eq!((report.totals.files, report.placed), (41, None));
        (bench, site)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.volume.path().join(name)
    }

    fn rename(&self, from: &str, to: &str) {
        let to = self.path(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(self.path(from), to).unwrap();
    }

    fn clear(&self, name: &str) {
        fs::remove_dir_all(self.path(name)).unwrap();
    }

    async fn changed(&mut self, site: &mut Site, paths: &[&str]) -> Report {
        let mut changes = Changes::default();
        for path in paths {
            changes.add(format!("config/{path}").into_bytes(), true);
        }
        self.backup_of(site, Kind::Auto, changes).await.unwrap()
    }

    async fn scanned(&mut self, site: &mut Site) -> Report {
        self.backup(site, Kind::Auto).await.unwrap()
    }

    async fn accepted(&mut self, site: &mut Site, id: &QuestionId) -> Report {
        self.order.accepted = vec![id.clone()];
        let report = self.scanned(site).await;
        self.order.accepted.clear();
        report
    }

    /// The paths of the newest snapshot that are not live, as text.
    fn not_live(&self) -> Vec<String> {
        let entries = self.newest_entries();
        let kept = entries.iter().filter(|entry| !entry.standing.is_live());
        kept.map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
            .collect()
    }

    fn newest_entries(&self) -> Vec<Entry> {
        self.entries(self.snapshots().iter().max().unwrap())
    }

    /// Everything that the newest snapshot brings is in the store, and the mirror holds nothing else.
    fn newest_is_whole(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.restored(self.snapshots().iter().max().unwrap());
        assert_eq!(self.mirror(), files);
        files
    }
}

#[tokio::test]
async fn what_vanishes_suspiciously_is_held_and_what_is_new_is_saved() {
    let (mut bench, mut site) = Bench::guarded().await;
    bench.clear("store");
    bench.write("app.conf", "second");
    bench.write("new", "written afterwards");
    let report = bench.scanned(&mut site).await;
    let question = report.placed.unwrap();
    assert!(question.text.starts_with("40 files"), "{question}");
    assert_eq!(report.holds[0].totals.files, 40);
    let files = bench.newest_is_whole();
    assert_eq!(
        (files.len(), files["config/app.conf"].as_slice()),
        (42, b"second".as_slice())
    );
    let not_live = bench.not_live();
    assert_eq!(
        (not_live.len(), not_live[0].as_str()),
        (41, "config/store/"),
        "with their folder"
    );
    // Small deletions afterwards pass, and nothing is asked twice.
    bench.remove("new");
    let report = bench.changed(&mut site, &["new"]).await;
    assert_eq!((report.placed, report.deleted), (None, 1));
    assert_eq!(bench.newest_is_whole().len(), 41);
    let report = bench.scanned(&mut site).await;
    assert_eq!((report.snapshot, report.placed), (None, None));
    assert_eq!(report.questions, [question]);
}

#[tokio::test]
async fn an_event_of_a_large_deletion_is_held_like_a_scan() {
    let (mut bench, mut site) = Bench::guarded().await;
    bench.clear("store");
    let report = bench.changed(&mut site, &["store"]).await;
    assert!(report.placed.is_some());
    assert_eq!(bench.newest_is_whole().len(), 41);
}

#[tokio::test]
async fn what_moved_is_not_gone() {
    for restarted in [false, true] {
        let (mut bench, mut site) = Bench::guarded().await;
        std::os::unix::fs::symlink("f00", bench.path("store/link")).unwrap();
        bench.scanned(&mut site).await;
        if restarted {
            // Inodes are not known any more: by size and hash.
            site = bench.open(usize::MAX, 1).await.unwrap();
        }
        bench.rename("store", "data/archive");
        bench.write("data/archive/new", "written after the move");
        // The event of the old name alone: the rest is on the volume all the same.
        let report = bench.changed(&mut site, &["store"]).await;
        assert_eq!((report.placed, report.deleted), (None, 40), "restarted: {restarted}");
        assert_eq!(bench.newest_is_whole(), bench.tree());
        assert!(bench.not_live().is_empty());
    }
}

#[tokio::test]
async fn a_copy_that_was_saved_before_its_original_went_is_the_same_file() {
    let (mut bench, mut site) = Bench::guarded().await;
    for number in 0..MANY {
        bench.write(&format!("archive/f{number:02}"), &format!("content of {number}"));
    }
    bench.scanned(&mut site).await;
    bench.clear("store");
    let report = bench.scanned(&mut site).await;
    assert_eq!((report.placed, report.deleted), (None, 40));
    assert_eq!(bench.newest_is_whole(), bench.tree());
}

#[tokio::test]
async fn what_is_held_and_turns_up_elsewhere_is_let_go() {
    let (mut bench, mut site) = Bench::guarded().await;
    fs::create_dir(bench.path("elsewhere")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(bench.path("store"), elsewhere.path().join("store")).unwrap();
    assert!(bench.scanned(&mut site).await.placed.is_some());
    fs::rename(elsewhere.path().join("store"), bench.path("elsewhere/store")).unwrap();
    bench.scanned(&mut site).await;
    let report = bench.scanned(&mut site).await;
    assert_eq!((report.holds, report.questions), (vec![], vec![]));
    assert_eq!(bench.newest_is_whole(), bench.tree());
    assert!(bench.not_live().is_empty(), "{:?}", bench.not_live());
}

#[tokio::test]
async fn what_is_held_survives_the_process_and_lives_again_when_it_is_back() {
    let (mut bench, mut site) = Bench::guarded().await;
    std::os::unix::fs::symlink("f00", bench.path("store/link")).unwrap();
    fs::create_dir(bench.path("store/empty")).unwrap();
    bench.scanned(&mut site).await;
    let before = bench.tree();
    let away = tempfile::tempdir().unwrap();
    fs::rename(bench.path("store"), away.path().join("store")).unwrap();
    let hold = bench.scanned(&mut site).await.holds;
    for epoch in 2..4 {
        bench.claim(epoch);
        site = bench.open(usize::MAX, epoch).await.unwrap();
        bench.write("app.conf", &format!("of epoch {epoch}"));
        let report = bench.scanned(&mut site).await;
        assert_eq!((report.holds, report.placed), (hold.clone(), None), "epoch {epoch}");
        let kept = ["config/store/", "config/store/empty/", "config/store/f00"];
        assert_eq!(bench.not_live()[..3], kept);
        assert_eq!(bench.not_live().len(), 43, "with its link");
        assert_eq!(bench.newest_is_whole().len(), 41);
    }
    fs::rename(away.path().join("store"), bench.path("store")).unwrap();
    bench.write("app.conf", "first");
    let report = bench.scanned(&mut site).await;
    assert_eq!((report.holds, report.uploaded), (vec![], 1));
    assert!(bench.not_live().is_empty(), "{:?}", bench.not_live());
    assert_eq!((bench.newest_is_whole(), bench.tree()), (before.clone(), before));
}

#[tokio::test]
async fn a_held_path_yields_to_what_takes_its_place() {
    let (mut bench, mut site) = Bench::guarded().await;
    bench.clear("store");
    bench.scanned(&mut site).await;
    // The same name with another content; a folder of a held file's name; and, at last, a file where the folder was.
    bench.write("store/f00", "another");
    bench.write("store/f01/below", "new");
    bench.changed(&mut site, &["store"]).await;
    let files = bench.newest_is_whole();
    assert_eq!(files["config/store/f00"], b"another");
    assert!(!files.contains_key("config/store/f01") && files.contains_key("config/store/f02"));
    assert_eq!(bench.not_live().len(), 38);
    bench.clear("store");
    bench.write("store", "a file");
    let report = bench.scanned(&mut site).await;
    assert_eq!(report.holds, []);
    assert_eq!(bench.newest_is_whole(), bench.tree());
    // The old content is in history: the first snapshot is what it was.
    let first = bench.snapshots().into_iter().min().unwrap();
    assert_eq!(bench.restored(&first).len(), 41);
}

#[tokio::test]
async fn what_is_accepted_goes_once_and_nothing_else_goes_with_it() {
    let (mut bench, mut site) = Bench::guarded().await;
    bench.clear("store");
    let first = bench.scanned(&mut site).await.placed.unwrap().id;
    for number in 0..MANY {
        bench.write(&format!("more/f{number:02}"), &format!("more of {number}"));
    }
    bench.scanned(&mut site).await;
    bench.clear("more");
    let second = bench.scanned(&mut site).await.placed.unwrap().id;
    assert_ne!(first, second);
    let report = bench.accepted(&mut site, &first).await;
    assert_eq!((report.deleted, report.remarks.len()), (40, 0));
    assert_eq!(report.questions.iter().map(|q| &q.id).collect::<Vec<_>>(), [&second]);
    assert_eq!(bench.newest_is_whole().len(), 41);
    // The annotation stays in Git.
    let report = bench.accepted(&mut site, &first).await;
    assert_eq!(report.snapshot, None);
    assert!(report.remarks[0].contains("counts once"), "{:?}", report.remarks);
    let unknown = "hold-00000000".parse().unwrap();
    let report = bench.accepted(&mut site, &unknown).await;
    assert!(report.remarks[0].contains("no such question"), "{:?}", report.remarks);
    // Of another kind: somebody else's question.
    let report = bench.accepted(&mut site, &"missing-00000000".parse().unwrap()).await;
    assert_eq!(report.remarks, [""; 0]);
}

#[tokio::test]
async fn an_emptied_file_has_not_vanished() {
    let (mut bench, mut site) = Bench::guarded().await;
    for number in 0..MANY {
        bench.write(&format!("store/f{number:02}"), "");
    }
    let report = bench.scanned(&mut site).await;
    assert_eq!((report.placed, report.uploaded), (None, 40));
    assert_eq!(bench.newest_is_whole(), bench.tree());
}

#[tokio::test]
async fn what_a_restore_removed_is_not_asked_about_and_everything_else_is() {
    let (mut bench, mut site) = Bench::guarded().await;
    let then = site.known.last().unwrap();
    for number in 0..100 {
        bench.write(&format!("later/f{number:02}"), &format!("later {number}"));
    }
    bench.scanned(&mut site).await;
    // As a restore to `then` leaves the volume.
    bench.clear("later");
    bench.order.restored = Some(then);
    site = bench.open(usize::MAX, 1).await.unwrap();
    let report = bench.scanned(&mut site).await;
    assert_eq!((report.placed, report.deleted), (None, 100));
    assert_eq!(bench.newest_is_whole(), bench.tree());
    // Once more, with what was restored gone as well before anybody looked: this is held.
    for number in 0..100 {
        bench.write(&format!("later/f{number:02}"), &format!("later {number}"));
    }
    bench.scanned(&mut site).await;
    bench.clear("later");
    bench.clear("store");
    let report = bench.scanned(&mut site).await;
    assert_eq!((report.holds[0].totals.files, report.deleted), (40, 100));
    assert_eq!(bench.newest_is_whole().len(), 41);
    // What can't be read any more accepts nothing.
    let (mut bench, mut site) = Bench::guarded().await;
    bench.clear("store");
    bench.order.restored = Some("20261122T130500Z-1.77-auto".parse().unwrap());
    assert!(bench.scanned(&mut site).await.placed.is_some());
}

#[tokio::test]
async fn what_a_restore_removed_is_decided_at_a_destination_that_does_not_know_what_was_restored() {
    for (fault, is_asked) in [
        (Some(Fault::None), false),
        (Some(Fault::AwayFrom(0)), true),
        (None, true),
    ] {
        let (mut bench, site) = Bench::guarded().await;
        let then = site.known.last().unwrap();
        let first = bench.memory.clone();
        // The second destination was away then, and has what came later.
        for number in 0..100 {
            bench.write(&format!("later/f{number:02}"), &format!("later {number}"));
        }
        bench.memory = Arc::new(Memory::default());
        bench.published.clear();
        bench.claim(2);
        let mut second = bench.open(usize::MAX, 2).await.unwrap();
        second.elsewhere = fault
            .map(|fault| Arc::new(Faulty::new(&first, fault)) as _)
            .into_iter()
            .collect();
        bench.scanned(&mut second).await;
        bench.clear("later");
        bench.order.restored = Some(then);
        let report = bench.scanned(&mut second).await;
        assert_eq!(report.placed.is_some(), is_asked, "{fault:?}");
        assert_eq!(report.deleted, if is_asked { 0 } else { 100 });
    }
}

#[tokio::test]
async fn what_an_exclude_takes_no_longer_is_carried_until_it_is_deleted_before_our_eyes() {
    let mut bench = Bench::new();
    for name in ["keep", "cache/a", "cache/b", "cache/deep/c", "big"] {
        bench.write(name, &format!("content of {name}"));
    }
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    bench.scanned(&mut site).await;
    let before = bench.tree();
    bench.order.most = Percent(10);
    bench.filters = Filters::new(&[], &["cache/**".to_owned()], Some("16".parse().unwrap())).unwrap();
    bench.write("big", "grown far beyond what is taken");
    bench.write("cache/never", "never saved");
    site = bench.open(usize::MAX, 1).await.unwrap();
    let report = bench.scanned(&mut site).await;
    assert_eq!((report.placed, report.excluded.files, report.deleted), (None, 4, 0));
    assert_eq!(
        bench.newest_is_whole(),
        before,
        "the last version of each that was saved"
    );
    let question = report.questions[0].clone();
    assert!(question.id.as_str().starts_with("excluded-"), "{question}");
    // Whether they are on the volume at all is not known after a restart: not there is not deleted.
    fs::remove_file(bench.path("cache/a")).unwrap();
    site = bench.open(usize::MAX, 1).await.unwrap();
    assert_eq!(bench.scanned(&mut site).await.excluded.files, 4);
    fs::remove_file(bench.path("cache/b")).unwrap();
    let report = bench.scanned(&mut site).await;
    assert_eq!((report.excluded.files, report.deleted), (3, 1));
    assert_ne!(report.questions[0].id, question.id);
    // The policy takes one again, and it is what it is.
    bench.filters = Filters::new(&[], &["cache/deep/**".to_owned()], None).unwrap();
    site = bench.open(usize::MAX, 1).await.unwrap();
    let report = bench.scanned(&mut site).await;
    assert_eq!(
        report.excluded.files, 2,
        "cache/a is not on the volume, cache/deep is excluded"
    );
    let files = bench.newest_is_whole();
    assert_eq!(files["config/big"], b"grown far beyond what is taken");
    assert_eq!(files["config/cache/never"], b"never saved");
    let question = report.questions[0].clone();
    let report = bench.accepted(&mut site, &question.id).await;
    assert_eq!((report.excluded.files, report.deleted), (0, 2));
    assert_eq!(
        bench.newest_is_whole().keys().collect::<Vec<_>>(),
        ["config/big", "config/cache/never", "config/keep"]
    );
}

#[tokio::test]
async fn a_volume_that_is_protected_no_longer_stays_in_each_snapshot() {
    let mut bench = Bench::new();
    let media = tempfile::tempdir().unwrap();
    mark(media.path());
    for number in 0..10 {
        fs::write(media.path().join(format!("m{number}")), "media").unwrap();
    }
    bench.write("a", "1");
    bench.order.most = Percent(50);
    let volume = |path: &Path, folder: &str| Volume {
        path: path.to_owned(),
        folder: folder.to_owned(),
        id: "aa".to_owned(),
        writable: true,
    };
    let config = volume(bench.volume.path(), "config");
    let both = vec![config.clone(), volume(media.path(), "media")];
    let mut site = bench.open_with(both.clone(), usize::MAX, 1).await.unwrap();
    assert_eq!(bench.scanned(&mut site).await.totals.files, 11);
    for epoch in 2..4 {
        bench.claim(epoch);
        bench.write("b", &format!("of epoch {epoch}"));
        let mut site = bench.open_with(vec![config.clone()], usize::MAX, epoch).await.unwrap();
        let report = bench.scanned(&mut site).await;
        assert_eq!((report.excluded.files, report.deleted), (10, 0), "epoch {epoch}");
        // As daily, and after a pod that was killed.
        site.reconcile().await.unwrap();
        assert_eq!(bench.scanned(&mut site).await.totals.files, 12, "epoch {epoch}");
    }
    // It is protected again, and has them still.
    bench.claim(4);
    let mut site = bench.open_with(both, usize::MAX, 4).await.unwrap();
    let report = bench.scanned(&mut site).await;
    assert_eq!(
        (report.excluded.files, report.uploaded, report.totals.files),
        (0, 0, 12)
    );
    assert!(
        bench
            .newest_entries()
            .iter()
            .all(|entry| entry.standing == Standing::Live)
    );
}

#[tokio::test]
async fn what_a_place_made_by_hand_has_and_the_volume_lacks_is_held_with_its_content() {
    let mut bench = Bench::new();
    bench.order.most = Percent(50);
    for number in 0..10 {
        let key = format!("config/by-hand/{number}");
        bench
            .memory
            .objects()
            .insert(key, format!("by hand {number}").into_bytes());
    }
    bench
        .memory
        .objects()
        .insert("config/a.log".to_owned(), b"not taken".to_vec());
    bench.write("by-hand/0", "by hand 0");
    bench.write("new", "new");
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    let report = bench.scanned(&mut site).await;
    assert_eq!(report.holds[0].totals.files, 9);
    let files = bench.newest_is_whole();
    assert_eq!(files.len(), 11, "what the policy does not take goes to history as ever");
    assert_eq!(files["config/by-hand/7"], b"by hand 7");
}

#[tokio::test]
async fn a_death_at_any_call_loses_nothing_of_what_is_held_and_decides_nothing_by_itself() {
    for lives in 0.. {
        let (mut bench, mut site) = Bench::guarded().await;
        bench.clear("store");
        bench.write("new", "new");
        site.store = Arc::new(Mortal::new(&bench.memory, lives));
        let placed = bench.backup(&mut site, Kind::Auto).await;
        bench.claim(2);
        let mut site = bench.open(usize::MAX, 2).await.unwrap();
        let held = bench.scanned(&mut site).await;
        assert_eq!(held.holds[0].totals.files, 40, "after {lives} calls");
        assert_eq!(bench.newest_is_whole().len(), 42, "after {lives} calls");
        // And in the middle of letting it go.
        site.store = Arc::new(Mortal::new(&bench.memory, lives));
        bench.order.accepted = vec![held.questions[0].id.clone()];
        let accepted = bench.backup(&mut site, Kind::Auto).await;
        bench.claim(3);
        let mut site = bench.open(usize::MAX, 3).await.unwrap();
        let report = bench.scanned(&mut site).await;
        assert_eq!(
            (report.holds, report.questions),
            (vec![], vec![]),
            "after {lives} calls"
        );
        assert_eq!((bench.newest_is_whole(), bench.pending()), (bench.tree(), vec![]));
        for id in bench.snapshots() {
            bench.restored(&id);
        }
        let first = bench.snapshots().into_iter().min().unwrap();
        assert_eq!(bench.restored(&first).len(), 41);
        if placed.is_ok() && accepted.is_ok() {
            assert!(lives > 8, "only {lives} deaths were tried");
            break;
        }
    }
}
