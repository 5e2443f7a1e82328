//! An object of the store that can't be read, copied or replaced: it stays what snapshots say of it, everything else is saved, and
//! it is tried again with each backup.

use super::*;
use crate::agent::filters::Skipped;

impl Bench {
    /// From now on the site's store can't do this.
    fn stick(&self, site: &mut Site, stuck: &[(Can, &'static str)]) {
        site.store = Arc::new(Mortal {
            stuck: stuck.to_vec(),
            ..Mortal::new(&self.memory, usize::MAX)
        });
    }

    /// A backup, whose snapshot holds this.
    async fn saves(&mut self, site: &mut Site, expected: &BTreeMap<String, Vec<u8>>, when: &str) -> Report {
        let report = self.backup(site, Kind::Auto).await.unwrap();
        let id = site.known.last().unwrap();
        assert_eq!(&self.restored(&id), expected, "{when}");
        self.published.insert(id, expected.clone());
        self.check(when);
        assert_eq!(self.pending(), [], "{when}");
        report
    }

    async fn with_three() -> (Self, Site) {
        let mut bench = Self::new();
        for name in ["a", "b", "c"] {
            bench.write(name, &format!("{name} at first"));
        }
        let mut site = bench.open(usize::MAX, 1).await.unwrap();
        bench.backup(&mut site, Kind::Auto).await.unwrap();
        (bench, site)
    }
}

const WAYS: [(&str, &[(Can, &str)]); 4] = [
    ("what it has can't be read", &[(Can::Read, "config/a")]),
    ("history can't take it", &[(Can::Write, "history/*/config/a")]),
    ("it can't be replaced", &[(Can::Write, "config/a")]),
    (
        "nothing can be done with it",
        &[(Can::Read, "config/a"), (Can::Write, "config/a")],
    ),
];

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_or_replaced_is_not_overwritten_and_everything_else_is_saved() {
    for (way, stuck) in WAYS {
        let (mut bench, mut site) = Bench::with_three().await;
        bench.stick(&mut site, stuck);
        bench.write("a", "a again");
        bench.write("b", "b again");
        bench.write("d", "new");
        bench.remove("c");
        let mut expected = bench.tree();
        expected.insert("config/a".to_owned(), b"a at first".to_vec());
        for attempt in 0..3 {
            let when = format!("{way}, attempt {attempt}");
            let report = bench.saves(&mut site, &expected, &when).await;
            assert_eq!((report.stuck, report.skipped[&Skipped::Stuck]), (1, 1), "{when}");
            let said = report.warnings.join("; ");
            assert!(
                said.contains("config/a is NOT saved") && said.contains("input/output error"),
                "{said}"
            );
            assert_eq!(site.stuck.paths().collect::<Vec<_>>(), [b"config/a"], "{when}");
        }
        bench.stick(&mut site, &[]);
        let tree = bench.tree();
        let report = bench.saves(&mut site, &tree, &format!("{way}, and then it can")).await;
        assert_eq!((report.stuck, site.stuck.is_empty()), (0, true), "{way}");
        assert_eq!(bench.mirror(), bench.tree(), "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_is_not_tried_all_the_time() {
    let (mut bench, mut site) = Bench::with_three().await;
    bench.stick(&mut site, &[(Can::Write, "config/a")]);
    bench.order.rest = Duration::from_secs(300);
    let before = bench.tree();
    bench.write("a", "a again");
    bench.saves(&mut site, &before, "as long as it can't").await;
    let store = Arc::new(Mortal::new(&bench.memory, usize::MAX));
    site.store = store.clone();
    let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!((report.stuck, report.snapshot), (1, None));
    assert_eq!(
        store.calls.load(Ordering::Relaxed),
        1,
        "whose place it is is asked, and no more"
    );
    // Whoever makes a last backup, or asks for one, has it tried.
    bench.order.rest = Duration::ZERO;
    let tree = bench.tree();
    assert_eq!(bench.saves(&mut site, &tree, "at last").await.stuck, 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_file_that_the_store_does_not_take_is_in_no_snapshot_until_it_does() {
    let (mut bench, mut site) = Bench::with_three().await;
    bench.stick(&mut site, &[(Can::Write, "config/new")]);
    let mut expected = bench.tree();
    bench.write("new", "new");
    bench.write("b", "b again");
    expected.insert("config/b".to_owned(), b"b again".to_vec());
    assert_eq!(bench.saves(&mut site, &expected, "as long as it can't").await.stuck, 1);
    bench.stick(&mut site, &[]);
    let tree = bench.tree();
    bench.saves(&mut site, &tree, "and then it can").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_and_cannot_be_kept_stays_in_the_mirror_for_the_snapshots_that_have_it() {
    for (way, stuck) in WAYS {
        let (mut bench, mut site) = Bench::with_three().await;
        // Of that one, history takes a copy, and nothing else is wanted of it.
        let can_be_kept = stuck == [(Can::Write, "config/a")];
        bench.stick(&mut site, stuck);
        bench.remove("a");
        bench.write("b", "b again");
        let tree = bench.tree();
        assert_eq!(bench.saves(&mut site, &tree, way).await.stuck, 0);
        assert_eq!(bench.mirror().contains_key("config/a"), !can_be_kept, "{way}");
        // It is back before it could be kept: it waits again, and the snapshots that have the other lose nothing.
        bench.write("a", "another a");
        let report = bench.saves(&mut site, &tree, &format!("{way}, and it is back")).await;
        assert_eq!(report.stuck, 1, "{way}");
        bench.remove("a");
        bench.saves(&mut site, &tree, &format!("{way}, and gone")).await;
        bench.stick(&mut site, &[]);
        site.reconcile().await.unwrap();
        bench.saves(&mut site, &tree, &format!("{way}, and then it can")).await;
        assert_eq!(bench.mirror(), bench.tree(), "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_opens_a_place_after_a_last_backup_that_lacked_something_looks_at_all_of_it() {
    let (mut bench, mut site) = Bench::with_three().await;
    bench.stick(&mut site, &[(Can::Read, "config/a")]);
    bench.remove("a");
    let tree = bench.tree();
    bench.saves(&mut site, &tree, "it can't be kept").await;
    let state = crate::store::state::State {
        version: crate::store::records::VERSION,
        epoch: 1,
        volume_id: "aa".to_owned(),
        last: site.known.last(),
        released: true,
        owed: true,
        ..crate::store::state::State::default()
    };
    let state = crate::store::records::encode(&state);
    bench.memory.objects().insert(keys::STATE.to_owned(), state);
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    bench.write("a", "another a");
    let tree = bench.tree();
    bench
        .saves(&mut site, &tree, "it is back, and the next pod saves it")
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_place_opens_though_one_object_cannot_be_put_back_and_what_it_was_is_somewhere() {
    for (way, stuck) in WAYS {
        for lives in 3..12 {
            let (mut bench, mut site) = Bench::with_three().await;
            site.store = Arc::new(Mortal::new(&bench.memory, lives));
            bench.write("a", "A AT FIRST");
            bench.write("b", "b again");
            let was_made = bench.backup(&mut site, Kind::Auto).await.is_ok();
            let when = format!("{way}, after {lives} calls");
            bench.claim(2);
            let store = Mortal {
                stuck: stuck.to_vec(),
                ..Mortal::new(&bench.memory, usize::MAX)
            };
            let volumes = vec![bench.only_volume()];
            let mut site = bench.open_over(Arc::new(store), volumes, 2).await.unwrap();
            bench.check(&when);
            let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
            assert!(report.stuck <= 1, "{when}");
            bench.all_is_somewhere(&when);
            bench.stick(&mut site, &[]);
            bench.backup(&mut site, Kind::Auto).await.unwrap();
            bench.all_is_somewhere(&when);
            assert_eq!(bench.restored(&site.known.last().unwrap()), bench.tree(), "{when}");
            if was_made {
                return;
            }
        }
    }
}

impl Bench {
    /// Each snapshot's contents are in the mirror or in history under their names: that is where a restore looks for them.
    fn all_is_somewhere(&self, when: &str) {
        let objects = self.memory.objects().clone();
        for id in self.snapshots() {
            for entry in self.entries(&id) {
                let What::File(file) = &entry.what else { continue };
                let name = format!("config/{}", entry.stored_name().unwrap());
                let is_it = |(key, content): (&String, &Vec<u8>)| {
                    crate::store::history::file_of(key) == name && keys::sha256_hex(content) == keys::hex(&file.sha256)
                };
                assert!(objects.iter().any(is_it), "{name} of {id} is nowhere, {when}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_of_a_place_made_by_hand_and_cannot_be_read_stays_there_and_holds_nothing_up() {
    let mut bench = Bench::new();
    bench.order.most = Percent(10);
    for number in 0..40 {
        let key = format!("config/by-hand/{number}");
        let content = format!("by hand {number}").into_bytes();
        bench.memory.objects().insert(key, content);
    }
    bench.write("by-hand/0", "by hand 0");
    let store = Mortal {
        stuck: vec![(Can::Read, "config/by-hand/7")],
        ..Mortal::new(&bench.memory, usize::MAX)
    };
    let volumes = vec![bench.only_volume()];
    let mut site = bench.open_over(Arc::new(store), volumes, 1).await.unwrap();
    let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
    let said = report.warnings.join("; ");
    assert!(said.contains("can't read config/by-hand/7"), "{said}");
    let files = bench.restored(&report.snapshot.unwrap());
    assert_eq!(files.len(), 39);
    assert!(!files.contains_key("config/by-hand/7"));
    assert_eq!(bench.memory.objects()["config/by-hand/7"], b"by hand 7");
}
