//! Starts over a store that answers, and has nothing, where something is known to have been.

use super::*;
use crate::agent::lease::known::{KnownStore, KnownStores, STORES};
use crate::agent::volume::own::OwnFolder;
use crate::contract::question::Question;
use crate::contract::record::{RECORD_FILE, Record, RecordedPlace};
use crate::store::store_id::{self, StoreId};

const PLACE: &str = "memory:store";

fn store_id() -> StoreId {
    "1".repeat(32).parse().unwrap()
}

/// A pod beside a record that names a backup of the only destination.
fn recorded() -> Bed {
    recorded_at(PLACE, SECOND)
}

/// The same of any place.
fn recorded_at(place_of: &str, snapshot: &str) -> Bed {
    let bed = Bed::new();
    let place = RecordedPlace {
        store_id: Some(store_id().to_string()),
        snapshot: Some(snapshot.to_owned()),
        time: Timestamp::now(),
    };
    let record = Record {
        places: [(place_of.to_owned(), place)].into(),
        ..Record::default()
    };
    bed.put(&format!("record/{RECORD_FILE}"), &record.to_json());
    let flag = format!("--record-dir={}", bed.folder.path().join("record").display());
    bed.with(&flag)
}

async fn asked(bed: &Bed) -> Question {
    match bed.start_over(Fault::None).await.unwrap_err() {
        Error::Asks(question) => question,
        error => panic!("{error}"),
    }
}

fn known(bed: &Bed) -> KnownStore {
    KnownStores::read(&bed.folder.path().join("restore")).of(PLACE)
}

/// Claimed, and nothing else is known.
fn held() -> KnownStore {
    KnownStore {
        held: true,
        ..KnownStore::default()
    }
}

#[tokio::test]
async fn an_empty_place_of_which_a_backup_is_recorded_is_asked_about_and_starts_nothing() {
    let bed = recorded();
    let question = asked(&bed).await;
    assert!(question.text.contains(PLACE), "{question}");
    assert_eq!((bed.tree(), bed.memory.objects().len()), (Tree::new(), 0));
    // Nor is one that was claimed meanwhile, and never used.
    bed.claim(1, "somebody", "app-0");
    assert_eq!(
        asked(&bed).await,
        Question {
            text: asked(&bed).await.text,
            ..question
        }
    );
    // The store is back.
    let back = backed_up();
    bed.memory.objects().clone_from(&*back.memory.objects());
    bed.start().await;
    assert_eq!(bed.tree(), after());
}

#[tokio::test]
async fn a_place_is_begun_anew_once_that_is_accepted_and_nobody_is_asked_until_it_has_a_snapshot() {
    let bed = recorded();
    let question = asked(&bed).await;
    let bed = bed.with(&format!("--accept={}", question.id));
    let start = bed.start().await;
    assert!(matches!(start.destinations[0].writing, Writing::Claimed { .. }));
    assert_eq!(known(&bed), held(), "another store has another id");
    assert!(
        crate::store::decisions::is_decided(bed.memory.as_ref(), &question.id)
            .await
            .unwrap()
    );
    // The pod is lost before its first backup, and the annotation is taken back.
    bed.lose_volume();
    let bed = Bed {
        flags: bed
            .flags
            .iter()
            .filter(|flag| !flag.starts_with("--accept"))
            .cloned()
            .collect(),
        ..bed
    };
    bed.start().await;
    // What was accepted in the place that is gone says nothing about the next.
    bed.lose_volume();
    bed.memory.objects().clear();
    assert_eq!(asked(&bed).await.id, question.id);
}

#[tokio::test]
async fn a_backup_elsewhere_is_restored_and_the_empty_place_is_not_written_until_it_is_back() {
    let bed = recorded().with("--destination=minio:b/second");
    let second = backed_up();
    let stores: [Box<dyn Store>; 2] = [
        Box::new(Faulty::new(&bed.memory, Fault::None)),
        Box::new(Faulty::new(&second.memory, Fault::None)),
    ];
    start(&bed.arguments(), &stores).await.unwrap();
    assert_eq!(bed.tree(), after());
    let start = Start::read(&bed.folder.path().join("restore")).unwrap().unwrap();
    assert_eq!(start.destinations[0].writing, Writing::Unclaimed);
    assert!(matches!(start.destinations[1].writing, Writing::Claimed { .. }));
    assert_eq!(bed.memory.objects().len(), 0);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_or_names_no_backup_holds_nobody_up() {
    for text in ["", "{\"version\":9}", &Record::default().to_json()] {
        let bed = recorded();
        bed.put(&format!("record/{RECORD_FILE}"), text);
        let start = bed.start().await;
        assert!(
            matches!(start.destinations[0].writing, Writing::Claimed { .. }),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_kept_volume_starts_beside_an_empty_place_that_was_not_empty_and_leaves_it_alone() {
    let bed = backed_up();
    store_id::write(bed.memory.as_ref(), &store_id()).await.unwrap();
    bed.start().await;
    assert_eq!(known(&bed).store_id, Some(store_id()));
    let on_volume: KnownStores = OwnFolder::on(&bed.volume()).read(STORES).unwrap().unwrap();
    assert_eq!(on_volume.of(PLACE), known(&bed));
    let disk = std::mem::take(&mut *bed.memory.objects());
    for _ in 0..2 {
        let start = bed.start().await;
        assert_eq!(
            (bed.tree(), &start.destinations[0].writing),
            (after(), &Writing::Unclaimed)
        );
        assert_eq!(
            known(&bed).store_id,
            Some(store_id()),
            "the sidecar knows what to wait for"
        );
        assert_eq!(bed.memory.objects().len(), 0);
    }
    // It is back, or somebody says that it won't be.
    let question = known(&bed).start_new(PLACE, "");
    *bed.memory.objects() = disk;
    let start = bed.start().await;
    assert!(matches!(start.destinations[0].writing, Writing::Claimed { .. }));
    bed.memory.objects().clear();
    let bed = bed.with(&format!("--accept={}", question.id));
    let start = bed.start().await;
    assert!(matches!(start.destinations[0].writing, Writing::Claimed { .. }));
    assert_eq!(known(&bed), held());
}

#[tokio::test]
async fn a_place_that_was_claimed_by_an_earlier_start_is_not_believed_to_be_empty_though_nobody_knows_its_id() {
    let bed = backed_up();
    bed.start().await;
    assert_eq!(known(&bed), held());
    bed.memory.objects().clear();
    let start = bed.start().await;
    assert_eq!(start.destinations[0].writing, Writing::Unclaimed);
    // Another destination is another matter.
    let other = Bed {
        memory: Arc::default(),
        ..bed
    };
    let path = other.volume().join(".vixens-backup").join(STORES);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(PLACE, "memory:elsewhere")).unwrap();
    let start = other.start().await;
    assert!(matches!(start.destinations[0].writing, Writing::Claimed { .. }));
}

#[tokio::test]
async fn a_place_whose_claims_have_expired_is_claimed_above_all_that_was_ever_written_there() {
    let bed = backed_up();
    bed.heartbeat(5, "theirs", true, false);
    bed.memory.objects().remove(&keys::claim(3, "theirs"));
    let start = bed.start().await;
    let Writing::Claimed { holder } = &start.destinations[0].writing else {
        panic!("{:?}", start.destinations);
    };
    assert_eq!(holder.epoch, 6);
}

#[tokio::test]
async fn a_new_app_waits_for_nothing() {
    let start = Bed::new().start().await;
    assert!(matches!(start.destinations[0].writing, Writing::Claimed { .. }));
}

#[tokio::test]
async fn a_restore_whose_store_is_gone_for_good_is_given_up_once_that_is_accepted() {
    let bed = recorded();
    let back = backed_up();
    bed.memory.objects().clone_from(&*back.memory.objects());
    // It was fetching, and has put nothing in its place.
    assert!(bed.start_over(Fault::HalfFiles).await.is_err());
    assert!(OwnFolder::on(&bed.volume()).join("restoring.json").exists());
    bed.memory.objects().clear();
    let question = asked(&bed).await;
    let bed = bed.with(&format!("--accept={}", question.id));
    let start = bed.start().await;
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{start:?}"
    );
    assert_eq!(start.volumes[0].status, Status::Settled);
    assert!(!OwnFolder::on(&bed.volume()).join("restoring.json").exists());
}

fn without(bed: Bed, flag: &str) -> Bed {
    let flags = bed.flags.iter().filter(|given| !given.starts_with(flag)).cloned();
    Bed {
        flags: flags.collect(),
        ..bed
    }
}

#[tokio::test]
async fn nothing_starts_empty_at_a_new_place_beside_its_backup_at_the_former_one() {
    let bed = recorded_at("minio:b/former", SECOND);
    let question = asked(&bed).await;
    assert!(
        question.text.contains("minio:b/former") && question.text.contains(SECOND),
        "{question}"
    );
    assert_eq!((bed.tree(), bed.memory.objects().len()), (Tree::new(), 0));
    // Nor with no more than what an init container of the owner has written first.
    bed.put("volume/default", "d");
    assert_eq!(asked(&bed).await, question);
    fs::remove_file(bed.volume().join("default")).unwrap();
    let bed = bed.with(&format!("--accept={}", question.id));
    let start = bed.start().await;
    assert!(matches!(start.destinations[0].writing, Writing::Claimed { .. }));
    // Nobody is asked twice, though the volume is lost before its first backup.
    bed.lose_volume();
    let bed = without(bed, "--accept");
    bed.start().await;
    // With a backup of its own, no more.
    bed.lose_volume();
    bed.backup("20261122T150500Z-9.1-auto", &Tree::new(), &after());
    let start = bed.start().await;
    assert_eq!(bed.tree(), after());
    assert!(!start.volumes[0].why.contains("minio:b/former"), "{start:?}");
}

#[tokio::test]
async fn a_kept_volume_takes_a_new_place_without_a_question() {
    let bed = recorded_at("minio:b/former", SECOND);
    bed.put(&format!("record/{RECORD_FILE}"), &Record::default().to_json());
    bed.start().await;
    bed.put("volume/a", "a");
    let again = recorded_at("minio:b/former", SECOND);
    let record = fs::read_to_string(again.folder.path().join("record").join(RECORD_FILE)).unwrap();
    bed.put(&format!("record/{RECORD_FILE}"), &record);
    bed.memory.objects().clear();
    let path = bed.volume().join(".vixens-backup").join(STORES);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(PLACE, "minio:b/former")).unwrap();
    let start = bed.start().await;
    assert!(matches!(start.destinations[0].writing, Writing::Claimed { .. }));
}

#[tokio::test]
async fn a_restore_from_a_place_of_which_a_newer_backup_is_recorded_says_so() {
    for (place, snapshot) in [
        ("minio:b/former", "20261122T170500Z-3.9-auto"),
        (PLACE, "20261122T140700Z-3.4-auto"),
    ] {
        let bed = recorded_at(place, snapshot);
        bed.memory.objects().clone_from(&*backed_up().memory.objects());
        let start = bed.start().await;
        assert_eq!(bed.tree(), after());
        let why = &start.volumes[0].why;
        assert!(why.contains(snapshot) && why.contains(place), "{why}");
    }
    // Two destinations that were saved to together are no two ages.
    let bed = recorded_at("minio:b/former", "20261122T140507Z-3.9-auto");
    bed.memory.objects().clone_from(&*backed_up().memory.objects());
    let start = bed.start().await;
    assert!(!start.volumes[0].why.contains("former"), "{start:?}");
}

#[tokio::test]
async fn another_store_with_a_place_of_the_same_name_is_asked_about_before_anything_is_restored_from_it() {
    let bed = recorded();
    bed.memory.objects().clone_from(&*backed_up().memory.objects());
    let other: StoreId = "2".repeat(32).parse().unwrap();
    store_id::write(bed.memory.as_ref(), &other).await.unwrap();
    let before = bed.memory.objects().clone();
    let question = asked(&bed).await;
    assert!(
        question.text.contains(other.as_str()) && question.text.contains(SECOND),
        "{question}"
    );
    assert_eq!((bed.tree(), *bed.memory.objects() == before), (Tree::new(), true));
    let bed = bed.with(&format!("--accept={}", question.id));
    let start = bed.start().await;
    assert_eq!(bed.tree(), after());
    assert!(matches!(start.destinations[0].writing, Writing::Claimed { .. }));
    assert_eq!(known(&bed).store_id, Some(other));
    // The same store, by its own id or by that of another place of this workload, is no other.
    let bed = recorded();
    bed.memory.objects().clone_from(&*backed_up().memory.objects());
    store_id::write(bed.memory.as_ref(), &store_id()).await.unwrap();
    bed.start().await;
    assert_eq!(bed.tree(), after());
}

#[tokio::test]
async fn a_kept_volume_starts_beside_another_store_and_nothing_is_written_there_unless_it_is_an_older_copy_of_its_own()
{
    let other: StoreId = "2".repeat(32).parse().unwrap();
    for is_own in [false, true] {
        let bed = backed_up();
        store_id::write(bed.memory.as_ref(), &store_id()).await.unwrap();
        bed.start().await;
        let id = bed.start().await.volumes[0].id.clone();
        bed.put("volume/a", "unsaved");
        bed.memory.objects().clone_from(&*backed_up().memory.objects());
        store_id::write(bed.memory.as_ref(), &other).await.unwrap();
        if is_own {
            let mut objects = bed.memory.objects();
            objects.retain(|key, _| !key.starts_with("claims/"));
            drop(objects);
            bed.claim(3, &id, "app-1");
        }
        let before = bed.memory.objects().clone();
        let start = bed.start().await;
        assert_eq!(bed.tree()["a"], "unsaved");
        if is_own {
            assert!(
                matches!(start.destinations[0].writing, Writing::Claimed { .. }),
                "{start:?}"
            );
            assert!(start.volumes[0].why.contains(other.as_str()), "{start:?}");
        } else {
            assert_eq!(start.destinations[0].writing, Writing::Unclaimed);
            assert!(start.destinations[0].why.contains(other.as_str()), "{start:?}");
            assert_eq!(*bed.memory.objects(), before);
            assert_eq!(known(&bed).store_id, Some(store_id()), "the sidecar asks");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_stands_though_the_last_look_was_cut_off() {
    let bed = recorded().with("--restore-timeout=9s");
    let question = asked(&bed).await;
    // A look, and whether it was decided before.
    let counted = Faulty::new(&bed.memory, Fault::None);
    let folders = ["config".to_owned()];
    crate::agent::lease::inspect::look_to_restore(&counted, &folders)
        .await
        .unwrap();
    let calls = counted.calls() + 1;
    let error = bed.start_over(Fault::HangsFrom(calls)).await.unwrap_err();
    assert!(matches!(&error, Error::Asks(asked) if *asked == question), "{error}");
    // One that was refused since has another answer.
    let error = bed.start_over(Fault::AwayFrom(calls)).await.unwrap_err();
    assert!(matches!(error, Error::StoreAway { .. }), "{error}");
}

#[tokio::test]
async fn a_volume_that_is_empty_by_right_does_not_wait_for_its_store_and_one_that_was_emptied_does() {
    let bed = recorded_at(PLACE, "20261122T140500Z-1.2-auto");
    let other = bed.folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let flag = format!("--volume=more:data:{}", other.display());
    let bed = bed.with(&flag);
    bed.backup("20261122T140500Z-1.2-auto", &Tree::new(), &after());
    bed.claim(1, "theirs", "app-0");
    bed.start().await;
    assert_eq!(bed.tree(), after());
    let away = async || bed.start_over(Fault::AwayFrom(0)).await;
    for _ in 0..2 {
        let start = away().await.unwrap();
        assert!(
            start.volumes.iter().all(|volume| volume.status == Status::Settled),
            "{start:?}"
        );
    }
    // Something was there, and may have been saved.
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    fs::File::open(&other).unwrap().set_modified(long_ago).unwrap();
    let error = away().await.unwrap_err();
    assert!(matches!(error, Error::StoreAway { .. }), "{error}");
    // The store is asked, and from then on that is known again.
    bed.start().await;
    away().await.unwrap();
    // Something was saved under a later start than the volume knows of: its storage was put back.
    let later = recorded_at(PLACE, "20261122T180500Z-99.1-auto");
    let record = fs::read_to_string(later.folder.path().join("record").join(RECORD_FILE)).unwrap();
    bed.put(&format!("record/{RECORD_FILE}"), &record);
    assert!(away().await.is_err());
    // One that is lost tells nothing.
    bed.put(&format!("record/{RECORD_FILE}"), &Record::default().to_json());
    away().await.unwrap();
    fs::remove_dir_all(&other).unwrap();
    fs::create_dir(&other).unwrap();
    assert!(away().await.is_err());
}
