//! Several destinations, and several volumes.

use super::*;

#[tokio::test]
async fn of_several_destinations_the_newest_that_can_be_read_is_restored() {
    let bed = backed_up();
    let older = Bed::new();
    older.claim(1, "theirs", "app-0");
    older.backup("20261122T120500Z-1.1-auto", &Tree::new(), &before());
    let mut arguments = bed.arguments();
    arguments.protection.destinations.push("other:b/app".parse().unwrap());
    let both = |first: Fault| -> [Box<dyn Store>; 2] {
        [
            Box::new(Faulty::new(&older.memory, Fault::None)),
            Box::new(Faulty::new(&bed.memory, first)),
        ]
    };
    start(&arguments, &both(Fault::None)).await.unwrap();
    assert_eq!(bed.tree(), after());
    let read = || Start::read(&bed.folder.path().join("restore")).unwrap().unwrap();
    assert_eq!(read().epoch, 4, "one epoch, above every claim anywhere");
    bed.lose_volume();
    start(&arguments, &both(Fault::AwayFrom(0))).await.unwrap();
    assert_eq!(bed.tree(), before());
    assert_eq!(read().destinations[1].writing, Writing::Unclaimed);
}

#[tokio::test]
async fn no_backup_is_true_only_when_every_destination_says_so() {
    let bed = Bed::new();
    let away = backed_up();
    let mut arguments = bed.arguments();
    arguments.protection.destinations.push("other:b/app".parse().unwrap());
    let stores: [Box<dyn Store>; 2] = [
        Box::new(Faulty::new(&bed.memory, Fault::None)),
        Box::new(Faulty::new(&away.memory, Fault::AwayFrom(0))),
    ];
    let error = start(&arguments, &stores).await.unwrap_err();
    assert!(matches!(error, Error::StoreAway { .. }), "{error}");
    assert_eq!(bed.tree(), Tree::new());
}

#[tokio::test]
async fn several_volumes_come_back_each_from_its_folder() {
    let bed = backed_up();
    let other = bed.folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let mut arguments = bed.arguments();
    arguments
        .protection
        .volumes
        .push(format!("more:data:{}", other.display()).parse().unwrap());
    let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&bed.memory, Fault::None))];
    start(&arguments, &stores).await.unwrap();
    assert_eq!(bed.tree(), after());
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1, "nothing but our own folder");
    // One of them is lost: the other is kept.
    bed.put("volume/a", "newer");
    fs::remove_dir_all(&other).unwrap();
    fs::create_dir(&other).unwrap();
    start(&arguments, &stores).await.unwrap();
    assert_eq!(bed.tree()["a"], "newer");
    let start = Start::read(&bed.folder.path().join("restore")).unwrap().unwrap();
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{start:?}"
    );
}

/// Two destinations of one workload.
struct Two {
    bed: Bed,
    second: Bed,
}

impl Two {
    fn new(first: Bed, mut second: Bed) -> Self {
        Arc::get_mut(&mut second.memory).unwrap().name = "memory:second";
        let bed = first.with("--destination=other:b/app");
        Self { bed, second }
    }

    async fn start(&self) -> Result<Start, Error> {
        let stores: [Box<dyn Store>; 2] = [
            Box::new(Faulty::new(&self.bed.memory, Fault::None)),
            Box::new(Faulty::new(&self.second.memory, Fault::None)),
        ];
        start(&self.bed.arguments(), &stores).await?;
        Ok(Start::read(&self.bed.folder.path().join("restore")).unwrap().unwrap())
    }
}

fn damage(bed: &Bed, id: &str) {
    let key = keys::snapshot(&id.parse().unwrap());
    let mut objects = bed.memory.objects();
    let index = objects.get_mut(&key).unwrap();
    index.truncate(index.len() / 2);
}

fn restored(start: &Start) -> String {
    start.volumes[0].restored.map(|id| id.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn the_newest_snapshot_that_any_destination_can_give_whole_is_restored_whichever_is_the_first() {
    let two = Two::new(backed_up(), backed_up());
    damage(&two.bed, SECOND);
    let start = two.start().await.unwrap();
    assert_eq!((two.bed.tree(), restored(&start)), (after(), SECOND.to_owned()));
    // Nor is the first one's older snapshot taken where the second's is but a little younger.
    let second = Bed::new();
    second.claim(3, "theirs", "app-0");
    let between = "20261122T133500Z-3.9-auto";
    let state = tree(&[("a", "in between")]);
    second.backup(between, &Tree::new(), &state);
    let two = Two::new(backed_up(), second);
    damage(&two.bed, SECOND);
    let start = two.start().await.unwrap();
    assert_eq!((two.bed.tree(), restored(&start)), (state, between.to_owned()));
}

#[tokio::test]
async fn age_counts_before_order_and_order_at_equal_age() {
    // The second has one snapshot, as old as the oldest of the first.
    let second = Bed::new();
    second.claim(3, "theirs", "app-0");
    second.backup(FIRST, &Tree::new(), &tree(&[("a", "of the second")]));
    let two = Two::new(backed_up(), second);
    damage(&two.bed, SECOND);
    let start = two.start().await.unwrap();
    assert_eq!(restored(&start), FIRST);
    assert_ne!(two.bed.tree()["a"], "of the second");
}

#[tokio::test]
async fn a_point_in_time_is_served_from_whichever_destination_can_give_it() {
    // One that the first has never had, one that is damaged there, and a time that means it.
    for (value, listed) in [(SECOND, false), (SECOND, true), ("2026-11-22T14:05:00Z", true)] {
        let first = Bed::new();
        first.claim(3, "theirs", "app-0");
        first.backup(FIRST, &Tree::new(), &before());
        if listed {
            first.backup(SECOND, &before(), &after());
            damage(&first, SECOND);
        }
        let mut two = Two::new(first, backed_up());
        two.bed = two.bed.with(&format!("--restore-at={value}"));
        let start = two.start().await.unwrap();
        assert_eq!(two.bed.tree(), after(), "{value} {listed}");
        assert_eq!(start.serving.unwrap().snapshot.to_string(), SECOND);
    }
    // What none has is said of both.
    let two = Two::new(backed_up(), backed_up());
    let two = Two {
        bed: two.bed.with("--restore-at=2020-01-01T00:00:00Z"),
        ..two
    };
    let error = two.start().await.unwrap_err().to_string();
    assert!(
        error.contains("memory:store has 2") && error.contains("memory:second has 2"),
        "{error}"
    );
}

#[tokio::test]
async fn always_takes_no_older_snapshot_for_a_newer_one_that_nobody_can_read() {
    let bed = Bed::new();
    let id = bed.start().await.volumes[0].id.clone();
    bed.heartbeat(1, &id, true, false);
    bed.backup("20261122T130500Z-1.1-auto", &Tree::new(), &before());
    let kept: Tree = before().into_iter().chain(tree(&[("a", "since")])).collect();
    for (path, content) in &kept {
        bed.put(&format!("volume/{path}"), content);
    }
    bed.backup("20261122T140500Z-2.1-auto", &before(), &after());
    damage(&bed, "20261122T140500Z-2.1-auto");
    let bed = bed.with("--restore=always");
    bed.start().await;
    assert_eq!(bed.tree(), kept);
}

#[tokio::test]
async fn of_a_file_that_nobody_has_the_newest_older_version_is_brought_from_wherever_it_lies() {
    // The first has a version of noon, the second one of an hour later; the newest is damaged at both.
    let of = |content: &str| tree(&[("a", content), ("b", "b")]);
    let (first, second) = (Bed::new(), Bed::new());
    for (bed, id, content) in [
        (&first, "20261122T120500Z-3.1-auto", "noon"),
        (&second, "20261122T130500Z-3.1-auto", "one"),
    ] {
        bed.claim(3, "theirs", "app-0");
        bed.backup(id, &Tree::new(), &of(content));
        bed.backup(SECOND, &of(content), &of("two"));
        bed.memory.objects().insert("config/a".to_owned(), b"x".to_vec());
    }
    let two = Two::new(first, second);
    two.start().await.unwrap();
    assert_eq!(two.bed.tree(), of("one"));
}
