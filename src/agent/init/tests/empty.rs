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
    let bed = Bed::new();
    let place = RecordedPlace {
        store_id: Some(store_id().to_string()),
        snapshot: Some(SECOND.to_owned()),
        time: Timestamp::now(),
    };
    let record = Record {
        places: [(PLACE.to_owned(), place)].into(),
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
