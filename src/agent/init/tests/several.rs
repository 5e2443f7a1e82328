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
