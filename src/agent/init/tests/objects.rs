//! Starts over a place in which one object is damaged, missing, somebody's, or of a newer release.

use super::*;

#[tokio::test]
async fn a_claim_that_is_cut_off_holds_by_its_name_and_keeps_nobody_from_starting() {
    for cut in [0, 40] {
        let bed = backed_up();
        let key = keys::claim(3, "theirs");
        bed.memory.objects().get_mut(&key).unwrap().truncate(cut);
        let start = bed.start().await;
        assert_eq!(bed.tree(), after());
        let Writing::Claimed { holder } = &start.destinations[0].writing else {
            panic!("{:?}", start.destinations);
        };
        assert_eq!(holder.epoch, 4, "above the one that is cut off");
    }
}

#[tokio::test]
async fn a_place_whose_claim_is_cut_off_is_never_taken_from_the_workload_that_its_summary_names() {
    let bed = backed_up();
    bed.heartbeat(3, "theirs", true, false);
    let edit = |text: String, from: &str, to: &str| text.replace(from, to).into_bytes();
    {
        let mut objects = bed.memory.objects();
        objects.insert(keys::claim(3, "theirs"), Vec::new());
        let state = String::from_utf8(objects[keys::STATE].clone()).unwrap();
        let owner = r#"{"owner":{"namespace":"home","kind":"Deployment","name":"other"},"#;
        objects.insert(keys::STATE.to_owned(), edit(state, "{", owner));
    }
    let error = bed.start_over(Fault::None).await.unwrap_err();
    assert!(matches!(error, Error::Asks(_)), "{error}");
    assert_eq!(bed.tree(), Tree::new());
}

#[tokio::test]
async fn a_place_of_a_newer_release_starts_nothing_and_is_not_written() {
    for key in [
        "snapshots/20261122T160500Z-3.3-weekly.json",
        "snapshots/20261122T160500Z-3.3-auto.cbor",
        "claims/4-theirs.cbor",
    ] {
        let bed = backed_up().with("--store-down=start");
        bed.memory.objects().insert(key.to_owned(), b"of another time".to_vec());
        let before = bed.memory.objects().clone();
        let error = bed.start_over(Fault::None).await.unwrap_err();
        assert!(matches!(error, Error::NewerRelease(_)), "{key}: {error}");
        assert!(error.to_string().contains(key.split('/').next().unwrap()), "{error}");
        assert_eq!((bed.tree(), &*bed.memory.objects()), (Tree::new(), &before), "{key}");
    }
}

#[tokio::test]
async fn an_app_whose_volume_is_kept_starts_beside_a_newer_release_and_writes_nothing() {
    let bed = backed_up();
    bed.start().await;
    let key = "claims/5-theirs.cbor";
    bed.memory.objects().insert(key.to_owned(), b"of another time".to_vec());
    let before = bed.memory.objects().clone();
    let start = bed.start().await;
    assert_eq!(bed.tree(), after());
    assert_eq!(start.destinations[0].writing, Writing::Unclaimed);
    assert!(
        start.destinations[0].why.contains("newer release"),
        "{:?}",
        start.destinations
    );
    assert_eq!(*bed.memory.objects(), before);
}

#[tokio::test]
async fn what_somebody_else_left_at_a_place_changes_nothing() {
    for key in [
        "snapshots/.DS_Store",
        "claims/.DS_Store",
        "history/.DS_Store",
        "config/.DS_Store",
        "pins/Thumbs.db",
        "snapshots/@eaDir/20261122T140500Z-3.2-auto.json",
        "snapshots/20261122T150500Z-3.3-auto.json.1a2b3c4d.partial",
        "claims/9-theirs.json.9c.partial",
        "config/a.1a2b3c4d.partial",
    ] {
        let bed = backed_up();
        bed.memory.objects().insert(key.to_owned(), b"x".to_vec());
        let start = bed.start().await;
        assert_eq!(bed.tree(), after(), "{key}");
        assert!(
            matches!(start.destinations[0].writing, Writing::Claimed { .. }),
            "{key}"
        );
    }
}

#[tokio::test]
async fn a_marker_that_is_cut_off_costs_nothing_that_is_on_the_volume() {
    let bed = backed_up();
    bed.start().await;
    bed.put("volume/unsaved", "since the last backup");
    fs::write(bed.volume().join(".vixens-backup/volume.json"), "{\"version\":1,").unwrap();
    let start = bed.start().await;
    let mut expected = after();
    expected.insert("unsaved".to_owned(), "since the last backup".to_owned());
    assert_eq!(bed.tree(), expected);
    assert_eq!(start.volumes[0].status, Status::Settled);
    // And from then on it is an ordinary volume.
    assert_eq!(bed.start().await.volumes[0].id, start.volumes[0].id);
}

#[tokio::test]
async fn a_restore_that_nobody_can_read_any_more_is_made_again_and_what_only_the_volume_has_is_kept() {
    // Before anything was put in place, and with a half of it there.
    for half in [false, true] {
        let bed = backed_up();
        bed.put("volume/.vixens-backup/restoring.json", "");
        if half {
            bed.put("volume/a", "second a");
            bed.put("volume/own", "of the app");
        }
        bed.start().await;
        assert_eq!(bed.tree(), after());
        let kept = if half {
            tree(&[("own", "of the app")])
        } else {
            Tree::new()
        };
        assert_eq!(aside(&bed), kept);
    }
    // On a volume that was settled, and of which nothing was changed yet, it means nothing.
    let bed = backed_up();
    bed.start().await;
    bed.put("volume/a", "unsaved");
    bed.put("volume/.vixens-backup/restoring.json", "{");
    bed.start().await;
    assert_eq!(bed.tree()["a"], "unsaved");
}
