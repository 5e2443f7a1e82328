//! Volumes that have a marker, and are not what that says: emptied in the hope of a restore, or put back to an older state.

use super::*;
use crate::agent::lease::acquire::{self, Claimed};
use crate::agent::lease::beat::Observation;
use crate::agent::lease::known::{KnownStores, STORES};
use crate::agent::start::StartedVolume;
use crate::agent::volume::own::OwnFolder;
use crate::store::claims::Holder;
use crate::store::index::{Carried, Hold, HoldId, Standing};

/// A volume that was restored and is in use: three files in two folders, and dot-files.
async fn in_use() -> Bed {
    let bed = Bed::new();
    bed.claim(3, "theirs", "app-0");
    bed.backup(FIRST, &Tree::new(), &many());
    bed.start().await;
    assert_eq!(bed.tree(), many());
    bed
}

fn many() -> Tree {
    let files = (0..20).map(|number| (format!("d{}/f{number}", number % 3), format!("content {number}")));
    files.chain([(".hidden".to_owned(), "h".to_owned())]).collect()
}

/// `rm -rf *` spares what begins with a dot: ours too.
fn empty(bed: &Bed) {
    for entry in fs::read_dir(bed.volume()).unwrap().map(Result::unwrap) {
        if !entry.file_name().to_string_lossy().starts_with('.') {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

#[tokio::test]
async fn an_emptied_volume_is_restored_and_what_is_there_stays() {
    let bed = in_use().await;
    empty(&bed);
    bed.put("volume/.hidden", "changed since");
    let start = bed.start().await;
    let mut expected = many();
    expected.insert(".hidden".to_owned(), "changed since".to_owned());
    assert_eq!(bed.tree(), expected);
    let StartedVolume { status, why, .. } = &start.volumes[0];
    assert!(
        *status == Status::Settled && why.contains("only 1 of 21 files were left"),
        "{why}"
    );
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{start:?}"
    );
    assert_eq!(aside(&bed), Tree::new());
}

#[tokio::test]
async fn what_is_more_than_a_remnant_is_kept_as_it_is() {
    for left in [3, 10] {
        let bed = in_use().await;
        empty(&bed);
        let kept: Tree = many().into_iter().take(left).collect();
        for (path, content) in &kept {
            bed.put(&format!("volume/{path}"), content);
        }
        let start = bed.start().await;
        assert_eq!(bed.tree(), kept);
        assert!(start.volumes[0].why.starts_with("kept"), "{}", start.volumes[0].why);
    }
    // Everything was moved, into fewer files than a remnant has names for.
    let bed = Bed::new();
    bed.claim(3, "theirs", "app-0");
    bed.backup(FIRST, &Tree::new(), &tree(&[("a", "aa"), ("b", "bb"), ("c", "cc")]));
    bed.start().await;
    for (from, to) in [("a", "x"), ("b", "y")] {
        fs::rename(bed.volume().join(from), bed.volume().join(to)).unwrap();
    }
    fs::remove_file(bed.volume().join("c")).unwrap();
    bed.start().await;
    assert_eq!(bed.tree(), tree(&[("x", "aa"), ("y", "bb")]));
}

#[tokio::test]
async fn an_emptied_volume_of_which_somebody_is_asked_already_is_kept() {
    let bed = in_use().await;
    let marker: Marker = OwnFolder::on(&bed.volume()).read(MARKER).unwrap().unwrap();
    let id: SnapshotId = format!("20261122T150500Z-{}.1-auto", marker.epoch).parse().unwrap();
    bed.backup_held(&id, &many(), ".hidden");
    empty(&bed);
    bed.start().await;
    assert_eq!(bed.tree(), tree(&[(".hidden", "h")]));
}

impl Bed {
    /// A snapshot in which everything but one file is held.
    fn backup_held(&self, id: &SnapshotId, files: &Tree, live: &str) {
        self.backup(&id.to_string(), &Tree::new(), files);
        let mut objects = self.memory.objects();
        let index = objects.get_mut(&keys::snapshot(id)).unwrap();
        let reader = crate::store::index::IndexReader::new(std::io::Cursor::new(index.clone())).unwrap();
        let (held, mut totals) = (HoldId::new(7), Totals::default());
        let mut header = reader.header().clone();
        header.carried = Carried {
            holds: vec![Hold {
                id: held,
                since: id.time,
                totals: Totals::default(),
            }],
            ..Carried::default()
        };
        let mut writer = IndexWriter::new(Vec::new(), &header).unwrap();
        for entry in reader {
            let mut entry = entry.unwrap();
            if entry.path != format!("config/{live}").into_bytes() {
                entry.standing = Standing::Held(held);
            }
            totals.add(&entry);
            writer.push(&entry).unwrap();
        }
        *index = writer.finish(totals).unwrap();
    }
}

#[tokio::test]
async fn what_is_held_comes_back_unless_it_was_accepted_that_it_goes() {
    let hold = HoldId::new(7).to_string();
    for accepts in [false, true] {
        let bed = Bed::new();
        bed.backup_held(&SECOND.parse().unwrap(), &before(), "a");
        let bed = if accepts {
            bed.with(&format!("--accept={hold}"))
        } else {
            bed
        };
        bed.start().await;
        let expected = before().into_iter().filter(|(path, _)| !accepts || path == "a");
        assert_eq!(bed.tree(), expected.collect::<Tree>());
        // It was acted upon, by whoever backs up: from then on it counts no more.
        crate::store::decisions::record(bed.memory.as_ref(), &hold.parse().unwrap(), "may it go?")
            .await
            .unwrap();
        bed.lose_volume();
        bed.start().await;
        assert_eq!(bed.tree(), before());
    }
}

#[tokio::test]
async fn an_emptied_volume_that_never_restores_is_kept() {
    let bed = in_use().await.with("--restore=never");
    empty(&bed);
    bed.start().await;
    assert_eq!(bed.tree(), tree(&[(".hidden", "h")]));
}

#[tokio::test]
async fn a_volume_without_a_file_waits_for_its_store_and_one_with_some_does_not() {
    let bed = in_use().await;
    empty(&bed);
    bed.start_over(Fault::AwayFrom(0)).await.unwrap();
    assert_eq!(
        bed.tree(),
        tree(&[(".hidden", "h")]),
        "it is kept: nobody knows what it had"
    );
    fs::remove_file(bed.volume().join(".hidden")).unwrap();
    let error = bed.start_over(Fault::AwayFrom(0)).await.unwrap_err();
    assert!(matches!(error, Error::StoreAway { .. }), "{error}");
    bed.start().await;
    assert_eq!(bed.tree(), many());
}

#[tokio::test]
async fn a_start_with_nothing_to_do_reads_nothing_but_two_listings() {
    let bed = in_use().await;
    let store = Arc::new(Faulty::new(&bed.memory, Fault::None));
    let outline = crate::agent::lease::inspect::outline(store.as_ref()).await.unwrap();
    let listings = store.calls();
    assert!(outline.files_at_most >= 21, "{outline:?}");
    let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&bed.memory, Fault::FailsAt(listings)))];
    // What comes after the listings is the claim, and that alone may fail.
    start(&bed.arguments(), &stores).await.unwrap();
    let start = Start::read(&bed.folder.path().join("restore")).unwrap().unwrap();
    assert_eq!(start.volumes[0].status, Status::Settled);
    assert!(start.volumes[0].why.starts_with("kept"), "{}", start.volumes[0].why);
}

/// A volume, and what it was two starts ago: its marker is older than what was saved from it since.
async fn reverted() -> (Bed, SnapshotId) {
    let bed = in_use().await;
    let own = OwnFolder::on(&bed.volume());
    let before: Marker = own.read(MARKER).unwrap().unwrap();
    let epoch = bed.start().await.epoch;
    let mut newer = many();
    newer.insert("since".to_owned(), "newer".to_owned());
    let id: SnapshotId = format!("20261122T170500Z-{epoch}.1-auto").parse().unwrap();
    bed.backup(&id.to_string(), &many(), &newer);
    own.write(MARKER, &before).unwrap();
    (bed, id)
}

fn pins(bed: &Bed) -> Vec<String> {
    let objects = bed.memory.objects();
    objects.keys().filter(|key| key.starts_with("pins/")).cloned().collect()
}

#[tokio::test]
async fn a_storage_that_was_put_back_is_told_and_what_the_store_has_newer_is_pinned_once() {
    let (bed, id) = reverted().await;
    let start = bed.start().await;
    assert_eq!(bed.tree(), many(), "the volume is kept");
    let pin = format!("pins/reverted-{id}.json");
    let why = &start.volumes[0].why;
    assert!(
        why.contains("put back to an older state") && why.contains(&pin),
        "{why}"
    );
    assert_eq!(pins(&bed), [pin]);
    assert!(
        matches!(start.destinations[0].writing, Writing::Claimed { .. }),
        "{start:?}"
    );
    let again = bed.start().await;
    assert!(!again.volumes[0].why.contains("put back"), "{}", again.volumes[0].why);
    assert_eq!(pins(&bed).len(), 1);
}

#[tokio::test]
async fn what_can_not_be_pinned_is_not_written_to() {
    for call in 0..30 {
        let (bed, id) = reverted().await;
        let start = bed.start_over(Fault::AwayFrom(call)).await.unwrap();
        let claimed = matches!(start.destinations[0].writing, Writing::Claimed { .. });
        assert!(!claimed || pins(&bed).len() == 1, "call {call}: {start:?}");
        if claimed {
            assert!(call > 3, "{call}");
            return;
        }
        // The sidecar pins it, if it is the one that claims.
        let is_told = start.volumes[0].why.contains("put back");
        assert_eq!(
            start.pins.values().any(|pinned| *pinned == id),
            is_told,
            "call {call}: {start:?}"
        );
    }
    panic!("it never got to its end");
}

#[tokio::test]
async fn what_a_store_has_newer_that_was_away_is_pinned_by_whoever_claims_it_in_the_end_and_nothing_else_is() {
    let (bed, id) = reverted().await;
    let own = OwnFolder::on(&bed.volume());
    let before: Marker = own.read(MARKER).unwrap().unwrap();
    // It is away for two starts; the volume is marked anew by each, under a later epoch where another destination is claimed.
    let mut start = bed.start_over(Fault::AwayFrom(0)).await.unwrap();
    for _ in 0..2 {
        let marker: Marker = own.read(MARKER).unwrap().unwrap();
        own.write(
            MARKER,
            &Marker {
                epoch: before.epoch + 10,
                ..marker
            },
        )
        .unwrap();
        start = bed.start_over(Fault::AwayFrom(0)).await.unwrap();
    }
    assert_eq!(start.epoch, before.epoch + 10);
    let to = start.destinations[0].clone();
    let known = KnownStores::read(&bed.folder.path().join("restore")).of(&to.destination);
    let claim = async |store: &dyn Store, start: &Start| {
        let mut observation = Observation::default();
        acquire::claim(store, start, &to.writing, &known, &[], &mut observation).await
    };
    // Killed anywhere, it is not claimed before it is pinned.
    for call in 0..10 {
        let copy = Arc::new(Memory::default());
        copy.objects().clone_from(&bed.memory.objects());
        let result = claim(&Faulty::new(&copy, Fault::AwayFrom(call)), &start).await;
        let objects = copy.objects();
        let is_claimed = objects.contains_key(&keys::claim(start.epoch + 1, &start.volumes[0].id));
        let is_pinned = objects.contains_key(&format!("pins/reverted-{id}.json"));
        assert!(is_pinned || !is_claimed, "call {call}: {result:?}");
    }
    // Where a start is the first to ask it, that one does.
    let copy = Arc::new(Memory::default());
    copy.objects().clone_from(&bed.memory.objects());
    assert!(matches!(claim(bed.memory.as_ref(), &start).await, Ok(Claimed::Held(_))));
    assert_eq!(pins(&bed), [format!("pins/reverted-{id}.json")]);
    let by_a_start = Bed { memory: copy, ..bed };
    by_a_start.start().await;
    assert_eq!(pins(&by_a_start), [format!("pins/reverted-{id}.json")]);
}

#[tokio::test]
async fn what_was_saved_there_under_a_start_in_between_is_in_order() {
    let (bed, id) = reverted().await;
    let own = OwnFolder::on(&bed.volume());
    let start = bed.start_over(Fault::AwayFrom(0)).await.unwrap();
    // The sidecar of this start claims it, and saves something there.
    let newest = {
        let mut objects = bed.memory.objects();
        objects.retain(|key, _| *key != keys::snapshot(&id));
        let claim = start.claim_of(&Holder {
            epoch: start.epoch + 2,
            volume_id: start.volumes[0].id.clone(),
        });
        objects.insert(claim.holder().key(), encode(&claim));
        format!("20261122T180500Z-{}.1-auto", claim.epoch)
    };
    bed.backup(&newest, &many(), &many());
    let marker: Marker = own.read(MARKER).unwrap().unwrap();
    assert_eq!(marker.time, start.time);
    let next = bed.start_over(Fault::AwayFrom(0)).await.unwrap();
    let last = bed.start().await;
    assert!(!last.volumes[0].why.contains("put back"), "{}", last.volumes[0].why);
    assert!(next.time > start.time);
    assert_eq!(pins(&bed), Vec::<String>::new());
    // Once it is claimed, nothing is left to be looked at.
    let known: KnownStores = own.read(STORES).unwrap().unwrap();
    assert!(known.stores.values().all(|known| known.marked.is_empty()), "{known:?}");
}

#[tokio::test]
async fn a_start_that_was_killed_before_its_marker_is_no_storage_that_was_put_back() {
    let bed = in_use().await;
    let own = OwnFolder::on(&bed.volume());
    let before: Marker = own.read(MARKER).unwrap().unwrap();
    bed.start().await;
    own.write(MARKER, &before).unwrap();
    let start = bed.start().await;
    assert!(!start.volumes[0].why.contains("put back"), "{}", start.volumes[0].why);
    // Nor is one whose place the sidecar has claimed, under the start that its marker is of.
    let (bed, _) = reverted().await;
    let own = OwnFolder::on(&bed.volume());
    let marker: Marker = own.read(MARKER).unwrap().unwrap();
    {
        let mut objects = bed.memory.objects();
        let claims = objects.iter_mut().filter(|(key, _)| key.starts_with("claims/"));
        for (_, bytes) in claims {
            let mut claim: Claim = crate::store::records::decode(bytes).unwrap();
            claim.start = Some(marker.time);
            *bytes = encode(&claim);
        }
    }
    let start = bed.start().await;
    assert!(!start.volumes[0].why.contains("put back"), "{}", start.volumes[0].why);
    assert_eq!(pins(&bed), Vec::<String>::new());
}
