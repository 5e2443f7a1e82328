//! Places in memory, as somebody left them, and what a look at each of them says.

use super::*;
use crate::store::claims::ClaimedVolume;
use crate::store::listed;
use crate::store::memory::Memory;
use crate::store::records::{VERSION, encode};

fn owner(cluster: &str, name: &str) -> Owner {
    Owner {
        cluster: cluster.to_owned(),
        namespace: "home".to_owned(),
        kind: "Deployment".to_owned(),
        name: name.to_owned(),
        pod: String::new(),
    }
}

fn claim(cluster: &str, name: &str) -> Claim {
    Claim {
        version: VERSION,
        epoch: 3,
        owner: owner(cluster, name),
        pod: "app-1".to_owned(),
        generation: String::new(),
        volumes: vec![ClaimedVolume {
            name: "data".to_owned(),
            folder: "config".to_owned(),
            id: "ab12".to_owned(),
        }],
        time: "2026-11-22T12:00:00Z".parse().unwrap(),
        start: None,
    }
}

fn folders() -> Vec<String> {
    vec!["config".to_owned()]
}

async fn put(store: &Memory, key: &str, content: &[u8]) {
    store.write(key, content).await.unwrap();
}

#[tokio::test]
async fn a_place_with_nothing_of_ours_is_no_backup() {
    let store = Memory::default();
    put(&store, "other/file", b"x").await;
    let found = look(&store, &folders()).await.unwrap();
    let strangers = vec!["other".to_owned()];
    assert_eq!(
        found,
        Place::Nothing {
            bucket_missing: false,
            strangers
        }
    );
}

#[tokio::test]
async fn files_without_claims_are_a_place_made_by_hand() {
    let store = Memory::default();
    put(&store, "config/a.yaml", b"x").await;
    let Place::Backup(backup) = look(&store, &folders()).await.unwrap() else {
        panic!("files are a backup");
    };
    assert!(backup.by_listing);
    assert_eq!(backup.whose(&owner("c1", "app")), Whose::Ours);
}

#[tokio::test]
async fn what_is_of_a_newer_release_is_never_no_backup_and_never_damaged() {
    for (key, content) in [
        ("snapshots/20261122T130500Z-3.42-auto.cbor", "x"),
        ("snapshots/20261122T130500Z-3.42-weekly.json", "x"),
        ("claims/4-cd34.cbor", "x"),
        ("claims/3-ab12.json", "{\"version\":9}"),
    ] {
        let store = Memory::default();
        put(&store, key, content.as_bytes()).await;
        let found = look(&store, &folders()).await;
        assert!(matches!(found, Err(Error::Newer { .. })), "{key}: {found:?}");
    }
}

#[tokio::test]
async fn what_somebody_else_left_in_our_folders_is_nothing() {
    let store = Memory::default();
    for key in [
        "snapshots/.DS_Store",
        "snapshots/20261122T130500Z-3.42-auto.json.1a2b3c4d.partial",
        "claims/.DS_Store",
        "claims/3-ab12.json.9c.partial",
        "claims/@eaDir/3-ab12.json",
        "config/a.yaml.1a2b3c4d.partial",
    ] {
        put(&store, key, b"x").await;
    }
    let found = look(&store, &folders()).await.unwrap();
    assert!(matches!(found, Place::Nothing { .. }), "{found:?}");
}

#[tokio::test]
async fn a_claim_that_is_cut_off_holds_by_its_name_and_others_tell_whose_the_place_is() {
    let us = owner("c1", "app");
    let whole = encode(&claim("c1", "other"));
    for cut in [0, whole.len() / 2, whole.len() - 3] {
        let store = Memory::default();
        let found = async || match look(&store, &folders()).await.unwrap() {
            Place::Backup(backup) => *backup,
            Place::Nothing { .. } => panic!("a claim is a backup"),
        };
        put(&store, "claims/3-ab12.json", &whole[..cut]).await;
        let backup = found().await;
        assert_eq!(backup.holder().unwrap().key(), "claims/3-ab12.json");
        assert_eq!((backup.claim.clone(), backup.whose(&us)), (None, Whose::Ours));
        // The summary knows it.
        let owner = owner("c1", "third");
        let state = State {
            owner: Some(owner.clone()),
            version: VERSION,
            ..State::default()
        };
        put(&store, "state.json", &encode(&state)).await;
        assert_eq!(found().await.whose(&us), Whose::Others(owner));
        // And a claim before it more surely.
        let mut before = claim("c1", "fourth");
        before.epoch = 2;
        put(&store, "claims/2-ab12.json", &encode(&before)).await;
        put(&store, "claims/1-ab12.json", b"").await;
        let theirs = Whose::Others(before.owner.clone());
        assert_eq!(found().await.whose(&us), theirs);
    }
}

#[tokio::test]
async fn snapshots_are_in_order_and_a_finished_one_is_not_pending() {
    let store = Memory::default();
    for name in [
        "20261122T130500Z-3.10-auto.json",
        "20261122T130400Z-3.9-auto.json",
        "20261122T130400Z-3.9-auto.pending",
        "20261122T130600Z-3.11-auto.pending",
    ] {
        put(&store, &format!("snapshots/{name}"), b"x").await;
    }
    let objects = listed(&store, keys::SNAPSHOTS, Depth::All).await.unwrap();
    let points = Points::of_listing(&store, &objects).unwrap();
    let text: Vec<String> = points.snapshots.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["20261122T130400Z-3.9-auto", "20261122T130500Z-3.10-auto"]);
    assert_eq!(points.pending.len(), 1);
}

#[tokio::test]
async fn another_clusters_place_is_its_own_until_its_holder_lets_go() {
    let store = Memory::default();
    put(&store, "claims/3-ab12.json", &encode(&claim("prod", "app"))).await;
    for (epoch, released, let_go) in [(3, false, false), (3, true, true), (2, true, false)] {
        let state = State {
            version: VERSION,
            epoch,
            volume_id: "ab12".to_owned(),
            released,
            ..State::default()
        };
        put(&store, "state.json", &encode(&state)).await;
        let Place::Backup(backup) = look(&store, &folders()).await.unwrap() else {
            panic!("a claim is a backup");
        };
        let whose = backup.whose(&owner("dev", "app"));
        assert_eq!(whose, Whose::OtherCluster(owner("prod", "app")));
        assert_eq!(backup.has_let_go(), let_go, "{epoch} {released}");
    }
}

#[tokio::test]
async fn another_workloads_place_is_never_ours() {
    let store = Memory::default();
    put(&store, "claims/3-ab12.json", &encode(&claim("c1", "other"))).await;
    let Place::Backup(backup) = look(&store, &folders()).await.unwrap() else {
        panic!("a claim is a backup");
    };
    let whose = backup.whose(&owner("c1", "app"));
    assert_eq!(whose, Whose::Others(owner("c1", "other")));
}

#[tokio::test]
async fn how_much_a_place_has_at_most_is_seen_without_reading_it() {
    let store = Memory::default();
    assert_eq!(outline(&store).await.unwrap(), Outline::default());
    put(&store, "claims/3-ab12.json", &encode(&claim("c1", "app"))).await;
    for (name, lines) in [
        ("20261122T120000Z-2.9-auto.json", 900),
        ("20261122T130100Z-3.1-auto.json", 20),
        ("20261122T130200Z-3.2-auto.json", 1),
    ] {
        put(&store, &format!("snapshots/{name}"), &vec![b'x'; lines * 90]).await;
    }
    let seen = outline(&store).await.unwrap();
    assert_eq!(
        seen.files_at_most, 21,
        "the newest may build on the largest of its epoch"
    );
    assert_eq!(seen.newest.unwrap().to_string(), "20261122T130200Z-3.2-auto");
    assert_eq!(seen.claims.last().unwrap().epoch, 3);
    put(&store, "snapshots/20261122T130200Z-3.2-auto.base", b"x").await;
    assert_eq!(outline(&store).await.unwrap().files_at_most, 2, "it builds on none");
}

#[tokio::test]
async fn who_restores_gets_the_newest_index_and_what_it_builds_on() {
    let store = Memory::default();
    let large = vec![b'x'; usize::try_from(LARGEST_ALONG).unwrap() + 1];
    let folders = folders();
    let along = async || match look_to_restore(&store, &folders).await.unwrap() {
        Place::Backup(backup) => backup.indexes.into_keys().collect::<Vec<_>>(),
        Place::Nothing { .. } => panic!("a snapshot is a backup"),
    };
    for name in [
        "20261122T120000Z-2.9-auto.json",
        "20261122T120000Z-2.9-auto.base",
        "20261122T130100Z-3.1-auto.json",
        "20261122T130100Z-3.1-auto.base",
        "20261122T130200Z-3.2-auto.json",
        "20261122T130300Z-3.3-auto.json",
    ] {
        put(&store, &format!("snapshots/{name}"), b"x").await;
    }
    let base = "snapshots/20261122T130100Z-3.1-auto.json";
    let newest = "snapshots/20261122T130300Z-3.3-auto.json";
    assert_eq!(along().await, [base, newest]);
    put(&store, base, &large).await;
    assert_eq!(along().await, [newest], "a large one is fetched once it is needed");
    put(&store, "snapshots/20261122T130300Z-3.3-auto.base", b"x").await;
    assert_eq!(along().await, [newest], "it builds on nothing");
    let Place::Backup(backup) = look(&store, &folders).await.unwrap() else {
        panic!("a snapshot is a backup");
    };
    assert!(backup.indexes.is_empty(), "nobody else needs them");
}
