//! `restore-at` that could not be served to its end: with the annotation it is finished, without it the volume is what it
//! was, and neither needs anything but what is on the volume.

use super::*;
use crate::agent::start::Serving;
use crate::agent::volume::marker::{INCOMING, OUTGOING, RESTORING, Restoring, UNDO};
use crate::agent::volume::own::OwnFolder;
use crate::store::served;

/// A volume in use, with two snapshots in the store and something that nobody has saved.
async fn in_use() -> (Bed, Tree) {
    let bed = Bed::new();
    bed.start().await;
    bed.backup(FIRST_OURS, &Tree::new(), &before());
    bed.backup(SECOND_OURS, &before(), &after());
    for (path, content) in after() {
        bed.put(&format!("volume/{path}"), &content);
    }
    bed.put("volume/unsaved", "nobody has this");
    bed.put("volume/dir/unsaved", "nor this");
    let whole = bed.tree();
    (bed, whole)
}

const FIRST_OURS: &str = "20261122T130500Z-1.1-auto";
const SECOND_OURS: &str = "20261122T140500Z-1.2-auto";

impl Bed {
    fn own(&self) -> OwnFolder {
        OwnFolder::on(&self.volume())
    }

    /// With another value of the annotation, or none.
    fn at(mut self, value: Option<&str>) -> Self {
        self.flags.retain(|flag| !flag.starts_with("--restore-at"));
        self.flags.extend(value.map(|value| format!("--restore-at={value}")));
        self
    }

    /// A start that has put everything in its place, and ends before it could say so.
    async fn start_in_part(&self) {
        let defaults = self.folder.path().join("defaults");
        fs::remove_dir(&defaults).unwrap();
        fs::write(&defaults, "no folder").unwrap();
        let error = self.start_over(Fault::None).await.unwrap_err();
        assert!(matches!(error, Error::Layers(_)), "{error}");
        fs::remove_file(&defaults).unwrap();
        fs::create_dir(&defaults).unwrap();
        let restoring: Restoring = self.own().read(RESTORING).unwrap().unwrap();
        assert!(restoring.placing);
    }

    fn left_over(&self) -> Vec<&'static str> {
        let names = [RESTORING, UNDO, INCOMING, OUTGOING];
        names
            .into_iter()
            .filter(|name| self.own().join(name).exists())
            .collect()
    }
}

#[tokio::test]
async fn a_point_that_could_not_be_fetched_and_is_not_asked_for_any_more_has_changed_nothing() {
    let (bed, whole) = in_use().await;
    let bed = bed.at(Some(FIRST_OURS));
    assert!(bed.start_over(Fault::HalfFiles).await.is_err());
    assert!(bed.own().join(RESTORING).exists(), "it was begun");
    assert_eq!(bed.tree(), whole);
    // Not even a store is needed.
    let bed = bed.at(None);
    let start = bed.start_over(Fault::AwayFrom(0)).await.unwrap();
    assert_eq!((bed.tree(), start.volumes[0].status), (whole, Status::Settled));
    assert_eq!(bed.left_over(), Vec::<&str>::new());
    // Asked for again, it is served.
    let bed = bed.at(Some(FIRST_OURS));
    bed.start().await;
    assert_eq!(bed.tree(), before());
}

#[tokio::test]
async fn a_point_that_was_put_in_place_in_part_is_taken_back_without_the_store() {
    let (bed, whole) = in_use().await;
    let bed = bed.at(Some(FIRST_OURS));
    bed.start_in_part().await;
    assert_eq!(bed.tree(), before());
    let bed = bed.at(None);
    let start = bed.start_over(Fault::AwayFrom(0)).await.unwrap();
    assert_eq!((bed.tree(), start.volumes[0].status), (whole, Status::Settled));
    assert_eq!(bed.left_over(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_point_that_was_put_in_place_in_part_is_finished_while_it_is_asked_for() {
    let (bed, _) = in_use().await;
    let bed = bed.at(Some(FIRST_OURS));
    bed.start_in_part().await;
    bed.start_in_part().await;
    let start = bed.start().await;
    assert_eq!(
        (bed.tree(), start.serving.unwrap().value),
        (before(), FIRST_OURS.to_owned())
    );
    assert_eq!(bed.left_over(), Vec::<&str>::new());
    assert_eq!(aside(&bed).len(), 2, "what nobody had saved");
}

#[tokio::test]
async fn another_point_is_served_from_the_volume_as_it_was() {
    let (bed, whole) = in_use().await;
    let bed = bed.at(Some(FIRST_OURS));
    bed.start_in_part().await;
    bed.memory.objects().retain(|key, _| !key.contains("/.vixens-aside/"));
    let bed = bed.at(Some(SECOND_OURS));
    bed.start().await;
    assert_eq!(bed.tree(), after());
    let saved = aside(&bed);
    assert!(
        saved.iter().all(|(path, content)| whole.get(path) == Some(content)) && saved.len() == 2,
        "{saved:?}"
    );
}

#[tokio::test]
async fn a_point_that_came_to_its_end_is_not_taken_back() {
    let (bed, _) = in_use().await;
    let bed = bed.at(Some(FIRST_OURS));
    bed.start_in_part().await;
    let restoring: Restoring = bed.own().read(RESTORING).unwrap().unwrap();
    bed.start().await;
    // Killed right after its last word about the volume.
    bed.put("volume/a", "changed since");
    for value in [Some(FIRST_OURS), None] {
        bed.own().write(RESTORING, &restoring).unwrap();
        let mut arguments = bed.arguments();
        arguments.restore_at = value.map(|value| value.parse().unwrap());
        let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&bed.memory, Fault::None))];
        start(&arguments, &stores).await.unwrap();
        assert_eq!(bed.tree()["a"], "changed since", "{value:?}");
        assert_eq!(bed.left_over(), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn an_empty_volume_that_got_a_point_in_part_gets_the_newest_once_that_is_taken_back() {
    let bed = backed_up().at(Some(FIRST));
    bed.start_in_part().await;
    assert_eq!(bed.tree(), before());
    let bed = bed.at(None);
    let start = bed.start().await;
    assert_eq!((bed.tree(), start.serving), (after(), None));
    assert_eq!(bed.left_over(), Vec::<&str>::new());
}

#[tokio::test]
async fn what_is_restored_for_another_reason_is_finished_whatever_the_annotation_says() {
    let bed = backed_up();
    bed.put("volume/a", "default");
    bed.start_in_part().await;
    bed.start().await;
    assert_eq!(bed.tree(), after());
    assert_eq!(aside(&bed), tree(&[("a", "default")]));
}

#[tokio::test]
async fn a_volume_that_came_after_the_snapshots_stays_as_it_is_whatever_is_asked_for() {
    for flag in ["--restore-at=20261122T130500Z-1.1-auto", "--restore=always"] {
        let (bed, _) = in_use().await;
        let bed = bed.with(flag);
        let other = bed.folder.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("film"), "two terabytes").unwrap();
        let mut arguments = bed.arguments();
        let volume = format!("more:media:{}", other.display()).parse().unwrap();
        arguments.protection.volumes.push(volume);
        let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&bed.memory, Fault::None))];
        start(&arguments, &stores).await.unwrap();
        assert_eq!(fs::read_to_string(other.join("film")).unwrap(), "two terabytes");
        let start = Start::read(&bed.folder.path().join("restore")).unwrap().unwrap();
        assert_eq!(start.volumes[1].status, Status::Settled);
        if flag.starts_with("--restore-at") {
            assert_eq!(bed.tree(), before());
            assert!(
                start.volumes[1].why.contains("has no folder media/"),
                "{}",
                start.volumes[1].why
            );
        }
    }
}

#[tokio::test]
async fn a_point_that_is_asked_for_while_another_restore_is_half_way_is_served_whole() {
    let (bed, _) = in_use().await;
    bed.lose_volume();
    bed.start_in_part().await;
    assert_eq!(
        bed.tree(),
        after(),
        "and what it has put in place is no part of that point"
    );
    let bed = bed.at(Some(FIRST_OURS));
    bed.start().await;
    assert_eq!(bed.tree(), before());
    assert_eq!(bed.left_over(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_value_that_was_served_is_recorded_at_each_destination_that_does_not_know_it() {
    let bed = backed_up()
        .with(&format!("--restore-at={FIRST}"))
        .with("--destination=minio:b/second");
    let second = Arc::new(Memory::default());
    let snapshot: SnapshotId = FIRST.parse().unwrap();
    served::record(bed.memory.as_ref(), FIRST, snapshot).await.unwrap();
    let started = async || {
        let stores: [Box<dyn Store>; 2] = [
            Box::new(Faulty::new(&bed.memory, Fault::None)),
            Box::new(Faulty::new(&second, Fault::None)),
        ];
        start(&bed.arguments(), &stores).await.unwrap();
        Start::read(&bed.folder.path().join("restore")).unwrap().unwrap()
    };
    let value = FIRST.to_owned();
    assert_eq!(started().await.serving, Some(Serving { value, snapshot }));
    assert_eq!(bed.tree(), after(), "it is not served again");
    served::record(second.as_ref(), FIRST, snapshot).await.unwrap();
    assert_eq!(started().await.serving, None);
}
