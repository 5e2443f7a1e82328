//! Places with snapshots, history and pins × rules and clocks → what is left of them.

use super::*;
use crate::store::faulty::{Fault, Faulty};
use crate::store::index::Header;
use crate::store::indexes::Indexes;
use crate::store::keys::SnapshotObject;
use crate::store::memory::Memory;
use crate::store::records::{VERSION, encode};
use std::sync::Arc;

const PLACE: [&str; 12] = [
    "config/a",
    "history/20261101T100100Z-1.2-auto/config/a",
    "history/20261122T100000Z-1.3-auto/config/a",
    "history/20261122T115900Z-1.4-auto/config/a",
    "snapshots/20261020T100000Z-0.1-auto.json",
    "snapshots/20261020T100000Z-0.1-auto.base",
    "snapshots/20261101T100000Z-1.1-auto.json",
    "snapshots/20261101T100000Z-1.1-auto.base",
    "snapshots/20261101T100100Z-1.2-auto.json",
    "snapshots/20261122T100000Z-1.3-auto.json",
    "snapshots/20261122T100000Z-1.3-auto.base",
    "snapshots/20261122T115900Z-1.4-auto.json",
];

/// What lies under a key: an index without files, where it is one.
fn stored(key: &str) -> Vec<u8> {
    let name = key.strip_prefix("snapshots/").unwrap_or_default();
    let SnapshotObject::Index(id) = keys::of_snapshot(name) else {
        return b"x".to_vec();
    };
    Header::of_nothing(id).alone()
}

/// Its clock is right.
async fn place() -> Memory {
    let store = Memory::default();
    for key in PLACE {
        store.write(key, &stored(key)).await.unwrap();
    }
    store.written().clear();
    for key in PLACE {
        let name = key.strip_prefix("snapshots/").unwrap_or_default();
        if let SnapshotObject::Index(id) | SnapshotObject::Base(id) = keys::of_snapshot(name) {
            store.written().insert(key.to_owned(), id.time);
        }
    }
    store
}

fn keys_of(store: &Memory) -> Vec<String> {
    store.objects().keys().cloned().collect()
}

async fn pruned(store: &dyn Store, retention: &str, look: Look) -> Result<Pruned, Error> {
    pruned_at(store, retention, look, "2026-11-22T12:00:00Z", None).await
}

async fn pruned_at(
    store: &dyn Store,
    retention: &str,
    look: Look,
    now: &str,
    before: Option<&Pruning>,
) -> Result<Pruned, Error> {
    prune(
        store,
        &retention.parse().unwrap(),
        look,
        now.parse().unwrap(),
        before,
        None,
        tempfile::tempdir().unwrap().path(),
    )
    .await
}

#[tokio::test]
async fn what_nobody_wants_kept_goes_with_the_history_that_only_it_needed() {
    let store = place().await;
    let pruned = pruned(&store, "last=1", Look::Lightly).await.unwrap();
    assert_eq!((pruned.plan.dropped.len(), pruned.undone), (2, vec![]));
    assert_eq!(
        keys_of(&store),
        [
            "config/a",
            "history/20261101T100100Z-1.2-auto/config/a",
            "history/20261122T115900Z-1.4-auto/config/a",
            "snapshots/20261101T100000Z-1.1-auto.base",
            "snapshots/20261101T100000Z-1.1-auto.json",
            "snapshots/20261122T100000Z-1.3-auto.base",
            "snapshots/20261122T100000Z-1.3-auto.json",
            "snapshots/20261122T115900Z-1.4-auto.json",
        ]
    );
}

#[tokio::test]
async fn a_complete_index_whose_predecessor_goes_can_be_read_without_either_of_its_two_objects() {
    let (old, gone) = ("20261101T100000Z-1.1-auto", "20261020T100000Z-0.1-auto");
    for lost in ["json", "base"] {
        let store = place().await;
        let dropped = pruned(&store, "last=1", Look::Lightly).await.unwrap().plan.dropped;
        assert!(dropped.contains(&gone.parse().unwrap()), "{dropped:?}");
        let object = format!("snapshots/{old}.{lost}");
        store.write(&object, b"rotten").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (header, _) = Indexes::new(&store, folder.path())
            .read(&old.parse().unwrap())
            .await
            .unwrap();
        assert_eq!(header.id, old.parse().unwrap(), "without {object}");
    }
}

#[tokio::test]
async fn what_a_damaged_complete_index_can_be_read_by_stays() {
    let (old, before) = ("20261101T100000Z-1.1-auto", "20261020T100000Z-0.1-auto");
    let store = place().await;
    store.write(&format!("snapshots/{old}.json"), b"rotten").await.unwrap();
    let dropped = pruned(&store, "last=1", Look::Lightly).await.unwrap().plan.dropped;
    assert!(!dropped.contains(&before.parse().unwrap()), "{dropped:?}");
    assert_eq!(
        store.objects()[&format!("snapshots/{old}.base")],
        b"x",
        "it is left alone"
    );
}

#[tokio::test]
async fn a_pin_of_a_newer_release_stops_everything() {
    let store = place().await;
    store.write("pins/before-sync.json", b"{\"version\":9}").await.unwrap();
    let error = pruned(&store, "last=1", Look::Thoroughly).await.unwrap_err();
    assert!(matches!(error, Error::Newer { .. }), "{error}");
    assert!(error.to_string().contains("pins/before-sync.json"), "{error}");
    assert_eq!(keys_of(&store).len(), PLACE.len() + 1);
}

#[tokio::test]
async fn a_damaged_pin_keeps_what_is_left_of_it_names_or_else_one_snapshot_of_each_day_and_stops_nothing() {
    let pinned = "20261020T100000Z-0.1-auto";
    for (name, content, kept) in [
        ("sync", format!("{{\"version\":1,\"snapshot\":\"{pinned}\",\"ti"), true),
        (&*format!("before-{pinned}"), String::new(), true),
        ("sync", String::new(), false),
    ] {
        let store = place().await;
        // Of that day, this is the newest.
        for extension in ["json", "base"] {
            let key = format!("snapshots/20261020T100100Z-0.2-auto.{extension}");
            store.write(&key, &stored(&key)).await.unwrap();
        }
        store.write(&keys::pin(name), content.as_bytes()).await.unwrap();
        store.write("pins/.DS_Store", b"x").await.unwrap();
        let pruned = pruned(&store, "last=1", Look::Thoroughly).await.unwrap();
        let dropped: Vec<String> = pruned.plan.dropped.iter().map(ToString::to_string).collect();
        let other = if kept { "20261020T100100Z-0.2-auto" } else { pinned };
        // The newest of the other day.
        let expected: &[&str] = if kept {
            &[other, "20261101T100100Z-1.2-auto"]
        } else {
            &[other]
        };
        assert_eq!(dropped, expected, "{name} {content}");
    }
}

/// The same, and a pin.
async fn pinned_place() -> Memory {
    let store = place().await;
    let pin = Pin {
        version: VERSION,
        snapshot: "20261101T100100Z-1.2-auto".parse().unwrap(),
        time: Timestamp::UNIX_EPOCH,
        reason: "before a sync".to_owned(),
    };
    store.write("pins/before-sync.json", &encode(&pin)).await.unwrap();
    store
}

#[tokio::test]
async fn what_is_pinned_stays_whenever_the_store_shows_nothing_for_a_moment() {
    for number in 0..30 {
        let memory = Arc::new(pinned_place().await);
        let store = Faulty::new(&memory, Fault::UnmountedAt(number));
        let _ = pruned(&store, "last=1", Look::Lightly).await;
        let left = keys_of(&memory);
        for needed in ["snapshots/20261101T100100Z-1.2-auto.json", "pins/before-sync.json"] {
            assert!(left.iter().any(|key| key == needed), "{needed} is gone, call {number}");
        }
    }
}

#[tokio::test]
async fn what_is_pinned_stays_with_what_it_needs() {
    let store = pinned_place().await;
    let pruned = pruned(&store, "last=1", Look::Lightly).await.unwrap();
    assert_eq!(pruned.plan.dropped, ["20261020T100000Z-0.1-auto".parse().unwrap()]);
    // The pin came, an index and its mark went.
    assert_eq!(keys_of(&store).len(), PLACE.len() + 1 - 2);
}

#[tokio::test]
async fn what_an_interrupted_pruning_left_behind_goes_with_the_next_thorough_one() {
    let store = place().await;
    for key in [
        "snapshots/20261020T100000Z-0.1-auto.json",
        "snapshots/20261101T100000Z-1.1-auto.json",
        "snapshots/20261101T100100Z-1.2-auto.json",
    ] {
        store.objects().remove(key).unwrap();
    }
    pruned(&store, "last=2", Look::Thoroughly).await.unwrap();
    assert_eq!(
        keys_of(&store),
        [
            "config/a",
            "history/20261122T115900Z-1.4-auto/config/a",
            "snapshots/20261122T100000Z-1.3-auto.base",
            "snapshots/20261122T100000Z-1.3-auto.json",
            "snapshots/20261122T115900Z-1.4-auto.json",
        ]
    );
}

#[tokio::test]
async fn where_nothing_is_deleted_what_was_to_go_counts_as_kept_and_that_is_no_failure() {
    let store = Faulty::new(&Arc::new(place().await), Fault::RefusesDeletions);
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    let rules = "last=1".parse().unwrap();
    let pruned = prune(
        &store,
        &rules,
        Look::Thoroughly,
        now,
        None,
        None,
        std::path::Path::new("/nowhere"),
    )
    .await
    .unwrap();
    assert!(!pruned.undone.is_empty());
    assert_eq!(keys_of(&store.memory).len(), PLACE.len());
    assert_eq!(pruned.kept().len(), 5, "all of them can be restored still");
}

/// All of them of one day, and their store says when it wrote them.
async fn busy() -> Memory {
    let store = Memory::default();
    for sequence in 1..=9 {
        let id: SnapshotId = format!("20261122T113{sequence}00Z-1.{sequence}-auto").parse().unwrap();
        let key = keys::snapshot(&id);
        store.write(&key, b"x").await.unwrap();
        store.written().insert(key, id.time);
    }
    let base = "snapshots/20261122T113100Z-1.1-auto.base";
    store.write(base, b"").await.unwrap();
    store.written().remove(base);
    store
}

const IN_2036: &str = "2036-11-22T12:00:00Z";

#[tokio::test]
async fn a_clock_ten_years_ahead_removes_nothing_of_a_store_that_says_when_it_wrote() {
    let store = busy().await;
    for look in [Look::Lightly, Look::Thoroughly] {
        let pruned = pruned_at(&store, "7d", look, IN_2036, None).await.unwrap();
        assert_eq!(pruned.plan.dropped, []);
        assert_eq!(pruned.pruning.unwrap().put_off, None, "there is nothing to put off");
    }
    assert_eq!(keys_of(&store).len(), 10);
}

#[tokio::test]
async fn where_nothing_is_written_anew_the_claim_says_what_time_it_is() {
    let store = busy().await;
    let claim = "claims/1-aa.json";
    store.write(claim, b"{}").await.unwrap();
    store.written().insert(claim.to_owned(), IN_2036.parse().unwrap());
    let pruned = pruned_at(&store, "7d", Look::Thoroughly, IN_2036, None).await.unwrap();
    assert_eq!(pruned.pruning.unwrap().put_off, Some(IN_2036.parse().unwrap()));
}

#[tokio::test]
async fn a_store_that_says_no_times_loses_nothing_to_a_clock_that_is_wrong_for_less_than_an_hour() {
    let store = busy().await;
    store.written().clear();
    let (minutes_on, an_hour_on) = ("2036-11-22T12:59:59Z", "2036-11-22T13:00:00Z");
    let run = async |now, before: Option<&Pruning>| {
        let pruned = pruned_at(&store, "7d", Look::Lightly, now, before).await.unwrap();
        (keys_of(&store).len(), pruned.pruning)
    };
    let (left, first) = run(IN_2036, None).await;
    let since = first.as_ref().unwrap().put_off;
    assert_eq!((left, since), (10, Some(IN_2036.parse().unwrap())));
    assert_eq!(run(minutes_on, first.as_ref()).await, (10, first.clone()));
    // The clock is right again.
    let (left, back) = run("2026-11-22T12:00:00Z", first.as_ref()).await;
    assert_eq!((left, back.as_ref().unwrap().put_off), (10, None));
    assert_eq!(run(an_hour_on, back.as_ref()).await.0, 10, "and begins anew");
    // It was right.
    let (left, last) = run(an_hour_on, first.as_ref()).await;
    assert_eq!((left, last.unwrap().put_off), (3, None));
}

#[tokio::test]
async fn one_object_with_a_time_to_come_does_not_put_off_for_ever_what_is_due() {
    let store = busy().await;
    // A store that keeps the times of files, and a node whose clock was ahead once.
    let ahead = "snapshots/20261122T113900Z-1.9-auto.json";
    store.written().insert(ahead.to_owned(), IN_2036.parse().unwrap());
    let mut before = None;
    let mut left = Vec::new();
    for now in ["2026-12-22T12:00:00Z", "2026-12-22T12:59:59Z", "2026-12-22T13:00:00Z"] {
        let pruned = pruned_at(&store, "7d", Look::Lightly, now, before.as_ref()).await;
        before = pruned.unwrap().pruning;
        left.push(keys_of(&store).len());
    }
    assert_eq!(
        left,
        [10, 10, 4],
        "the newest, the one that it took over from, and what they build on"
    );
}

#[tokio::test]
async fn what_a_change_of_the_rules_asks_for_is_done_at_once() {
    let store = busy().await;
    let before = pruned(&store, "7d", Look::Lightly).await.unwrap().pruning;
    let again = async |before: Option<&Pruning>| {
        let now = "2026-11-22T12:00:00Z";
        pruned_at(&store, "last=1", Look::Lightly, now, before).await.unwrap()
    };
    assert_eq!(
        again(None).await.plan.dropped,
        [],
        "whether they have changed is not known"
    );
    assert_eq!(again(before.as_ref()).await.plan.dropped.len(), 7);
    assert_eq!(keys_of(&store).len(), 3);
}
