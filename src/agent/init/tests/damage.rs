//! The law of one bad object: a place of several epochs, complete indexes, differences and history, made by the agent itself, in
//! which any single object is damaged or gone. A start without data brings every file whose content is still there, and never
//! fails without a question; a pod that has the data goes on, and after its next backup a start brings everything.

use super::*;
use crate::agent::arguments::{Databases, Percent};
use crate::agent::filters::Filters;
use crate::agent::lease::handover::Arrival;
use crate::agent::sidecar::backup::{Order, Report, Site};
use crate::agent::sidecar::volume::{Scope, Volume};
use crate::agent::snapshot::changes::Look;
use crate::agent::volume::given_up::GivenUp;
use crate::agent::volume::own::OwnFolder;
use crate::agent::watch::Changes;
use crate::store::indexes::Indexes;
use crate::store::snapshot::Kind;
use jiff::SignedDuration;
use std::time::Duration;

type Objects = BTreeMap<String, Vec<u8>>;

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Gone,
    Empty,
    CutAtHalf,
    /// A byte is another; whoever wrote it did so later than all else.
    WrittenOver,
}

const DAMAGES: [Damage; 4] = [Damage::Gone, Damage::Empty, Damage::CutAtHalf, Damage::WrittenOver];

/// What the app had at each snapshot.
struct Life {
    bed: Bed,
    objects: Objects,
    states: Vec<(SnapshotId, Tree)>,
}

impl Bed {
    /// One sidecar of the start that was made last, which looks at everything once.
    async fn saves(&self, start: &Start, kind: Kind) -> (Report, Site) {
        let mut site = self.opens(start).await;
        let report = self.backs_up(&mut site, kind).await;
        (report, site)
    }

    async fn opens(&self, start: &Start) -> Site {
        let Writing::Claimed { holder } = &start.destinations[0].writing else {
            panic!("{:?}", start.destinations);
        };
        let volumes = start.volumes.iter().map(|volume| Volume {
            path: volume.path.clone(),
            folder: volume.folder.clone(),
            id: volume.id.clone(),
            writable: true,
        });
        let volumes: Vec<Volume> = volumes.collect();
        let mut given_up = GivenUp::default();
        for volume in &volumes {
            given_up.read(&OwnFolder::on(&volume.path)).unwrap();
        }
        let scope = Scope {
            volumes,
            filters: Filters::new(&[], &[], None).unwrap(),
            databases: Databases::Auto,
            turn: Arc::default(),
            given_up: Arc::new(given_up),
            copies: Arc::default(),
            replication: None,
        };
        let scratch = self.folder.path().join("scratch");
        let _ = fs::remove_dir_all(&scratch);
        let (mut site, _) = Site::open(
            self.memory.clone(),
            holder.clone().into(),
            Arc::new(scope),
            scratch,
            Arrival::Alone,
        )
        .await
        .unwrap();
        site.save_anew(&start.destinations[0].damaged).await.unwrap();
        site
    }

    async fn backs_up(&self, site: &mut Site, kind: Kind) -> Report {
        self.backs_up_guarded(site, kind, Percent(100)).await
    }

    async fn backs_up_guarded(&self, site: &mut Site, kind: Kind, most: Percent) -> Report {
        let everything = Changes {
            everything: true,
            ..Changes::default()
        };
        let order = Order {
            kind,
            look: Look {
                changes: everything,
                resting: Vec::new(),
                restless: None,
            },
            always: false,
            most,
            accepted: Vec::new(),
            restored: None,
            rest: Duration::ZERO,
            patience: Duration::from_secs(1),
        };
        let report = site.backup(order).await.unwrap();
        let mut state = State {
            version: VERSION,
            epoch: site.lease.holder.epoch,
            volume_id: site.lease.holder.volume_id.clone(),
            pod: "app-1".to_owned(),
            owner: Some(crate::agent::owner(
                &self.arguments().identity,
                &self.arguments().protection.workload,
            )),
            heartbeat: Timestamp::now(),
            released: true,
            stopping: false,
            last: site.known.last(),
            last_success: None,
            owed: false,
            pruning: None,
            mode: None,
            beside: false,
            beside_since: None,
            files: 0,
            bytes: 0,
        };
        state.heartbeat -= SignedDuration::from_hours(1);
        self.memory.write(keys::STATE, &encode(&state)).await.unwrap();
        report
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.folder.path().join("volume").join(path)).unwrap();
    }

    /// A start that is answered where it asks; whether it asked.
    async fn start_answered(&mut self) -> (Start, bool) {
        match self.start_over(Fault::None).await {
            Ok(start) => (start, false),
            Err(Error::Asks(question)) => {
                assert_eq!(Error::Asks(question.clone()).exit_code(), 3);
                let again = self.start_over(Fault::None).await;
                assert!(
                    matches!(&again, Err(Error::Asks(same)) if same.id == question.id),
                    "the same question each time: {again:?}"
                );
                self.flags.push(format!("--accept={}", question.id));
                (self.start_over(Fault::None).await.unwrap(), true)
            }
            Err(error) => panic!("{error}: {}", crate::agent::sidecar::batch::with_sources(&error)),
        }
    }
}

/// Two pods' lives, the second one with two complete indexes.
async fn life() -> Life {
    let bed = Bed::new();
    let mut states = Vec::new();
    let start = bed.start().await;
    let names = ["a", "b", "c", "d/e", "d/f", " odd", "same/one", "same/two"];
    for name in names {
        let name = name.rsplit_once("/two").map_or(name, |_| "same/one");
        bed.put(&format!("volume/{name}"), &format!("{name} at first"));
    }
    bed.put("volume/same/two", "same/one at first");
    let mut note = |bed: &Bed, report: &Report| states.push((report.snapshot.unwrap(), bed.tree()));
    let (report, mut site) = bed.saves(&start, Kind::Auto).await;
    note(&bed, &report);
    bed.put("volume/a", "a for the second time");
    bed.put("volume/n1", "n1");
    bed.remove("b");
    note(&bed, &bed.backs_up(&mut site, Kind::Auto).await);
    bed.put("volume/a", "a for the third time");
    bed.put("volume/ odd", "odd again");
    note(&bed, &bed.backs_up(&mut site, Kind::Final).await);
    // The app is started again.
    let start = bed.start().await;
    bed.put("volume/c", "c in the second epoch");
    let (report, mut site) = bed.saves(&start, Kind::Auto).await;
    note(&bed, &report);
    bed.put("volume/b", "b is back");
    bed.put("volume/d/e", "e in the second epoch");
    note(&bed, &bed.backs_up(&mut site, Kind::Auto).await);
    for number in 0..12 {
        bed.put(&format!("volume/more/{number}"), &format!("content {number}"));
    }
    bed.put("volume/a", "a for the fourth time");
    note(&bed, &bed.backs_up(&mut site, Kind::Auto).await);
    bed.put("volume/more/3", "another 3");
    bed.put("volume/last", "of the last backup");
    bed.remove("n1");
    note(&bed, &bed.backs_up(&mut site, Kind::Final).await);
    let objects = bed.memory.objects().clone();
    Life { bed, objects, states }
}

impl Life {
    fn newest(&self) -> &(SnapshotId, Tree) {
        self.states.last().unwrap()
    }

    /// A place like this one, in which an object is damaged, and no volume.
    fn damaged(&self, key: &str, damage: Damage) -> Bed {
        let bed = Bed::new();
        let mut objects = self.objects.clone();
        let later = Timestamp::now() + SignedDuration::from_hours(1);
        for name in objects.keys() {
            bed.memory.written().insert(name.clone(), Timestamp::now());
        }
        let content = objects.get_mut(key).unwrap();
        match damage {
            Damage::Gone => drop(objects.remove(key)),
            Damage::Empty => content.clear(),
            Damage::CutAtHalf => content.truncate(content.len() / 2),
            Damage::WrittenOver => {
                let middle = content.len() / 2;
                content[middle] ^= 1;
                bed.memory.written().insert(key.to_owned(), later);
            }
        }
        *bed.memory.objects() = objects;
        bed
    }

    /// The volume of this life, in another bed.
    fn copy_volume(&self, to: &Bed) {
        let from = self.bed.volume();
        let status = std::process::Command::new("cp")
            .arg("-a")
            .arg(from.join("."))
            .arg(to.volume())
            .status();
        assert!(status.unwrap().success());
    }
}

fn has(objects: &Objects, content: &str) -> bool {
    objects.values().any(|stored| stored == content.as_bytes())
}

#[tokio::test]
async fn a_place_that_lives_has_several_epochs_and_complete_indexes_and_differences() {
    let life = life().await;
    let indexes = life.objects.keys().filter(|key| {
        key.strip_suffix(".json")
            .is_some_and(|key| key.starts_with("snapshots/"))
    });
    let marks = life.objects.keys().filter(|key| key.strip_suffix(".base").is_some());
    assert_eq!((indexes.count(), marks.count()), (7, 3), "{:?}", life.objects.keys());
    let of_history = life.objects.keys().filter(|key| key.starts_with("history/"));
    assert!(of_history.count() >= 8, "{:?}", life.objects.keys());
}

#[tokio::test]
async fn whatever_object_is_damaged_a_start_without_data_brings_every_file_that_is_still_there() {
    let life = life().await;
    let (newest, tree) = life.newest();
    let (_, before) = &life.states[life.states.len() - 2];
    let index_of_newest = keys::snapshot(newest);
    for key in life.objects.keys() {
        for damage in DAMAGES {
            let when = format!("{damage:?} {key}");
            let mut bed = life.damaged(key, damage);
            let objects = bed.memory.objects().clone();
            let (start, asked) = bed.start_answered().await;
            let brought = bed.tree();
            for (path, content) in tree {
                if *key == index_of_newest {
                    // One backup is lost. What it added is in the mirror; what it replaced comes as it was.
                    let is_either = [Some(content), before.get(path)].contains(&brought.get(path));
                    assert!(is_either && brought.contains_key(path), "{when}: {path}");
                } else if has(&objects, content) {
                    assert_eq!(brought.get(path), Some(content), "{when}: {path}");
                } else {
                    let mut older = life.states.iter().rev().filter_map(|(_, tree)| tree.get(path));
                    let older = older.find(|older| has(&objects, older));
                    assert_eq!(brought.get(path), older, "{when}: {path} as it was before");
                    assert_eq!(asked, older.is_none(), "{when}: what nobody has is asked");
                }
            }
            for path in brought.keys().filter(|path| !tree.contains_key(*path)) {
                assert!(
                    *key == index_of_newest && before.contains_key(path),
                    "{when}: {path} came from nowhere"
                );
            }
            // Its sidecar goes on, and what it has saved comes back without a question.
            bed.saves(&start, Kind::Auto).await;
            bed.lose_volume();
            bed.flags.clear();
            bed.start().await;
            assert_eq!(bed.tree(), brought, "{when}: after the next backup");
        }
    }
}

#[tokio::test]
async fn whatever_object_is_damaged_a_pod_that_has_the_data_goes_on_and_then_all_of_it_comes_back() {
    let life = life().await;
    let (_, tree) = life.newest();
    for key in life.objects.keys() {
        for damage in DAMAGES {
            let when = format!("{damage:?} {key}");
            let mut bed = life.damaged(key, damage);
            life.copy_volume(&bed);
            let start = bed.start().await;
            bed.put("volume/new", "since");
            let mut site = bed.opens(&start).await;
            // As it does once a day.
            site.reconcile().await.unwrap();
            bed.backs_up(&mut site, Kind::Auto).await;
            let mut expected = tree.clone();
            expected.insert("new".to_owned(), "since".to_owned());
            assert_eq!(bed.tree(), expected, "{when}: nothing on the volume was touched");
            bed.lose_volume();
            let (_, asked) = bed.start_answered().await;
            assert_eq!((bed.tree(), asked), (expected, false), "{when}");
        }
    }
}

#[tokio::test]
async fn whatever_object_is_damaged_going_back_brings_every_file_that_is_still_there() {
    let life = life().await;
    let (at, tree) = &life.states[1];
    let own_index = keys::snapshot(at);
    for key in life.objects.keys() {
        for damage in DAMAGES {
            let when = format!("{damage:?} {key}");
            let mut bed = life.damaged(key, damage).with(&format!("--restore-at={at}"));
            life.copy_volume(&bed);
            let objects = bed.memory.objects().clone();
            if *key == own_index {
                // Another point than the one that was asked for is for somebody to choose.
                let error = bed.start_over(Fault::None).await.unwrap_err();
                let is_told = matches!(error, Error::Restore(_) | Error::NoSuchPoint { .. });
                assert!(is_told, "{when}: {error}");
                assert_eq!(bed.tree(), life.newest().1, "{when}: nothing was changed");
                continue;
            }
            let (_, asked) = bed.start_answered().await;
            for (path, content) in tree {
                if has(&objects, content) || life.newest().1.get(path) == Some(content) {
                    assert_eq!(bed.tree().get(path), Some(content), "{when}: {path}");
                } else {
                    let older = life.states[0].1.get(path).filter(|older| has(&objects, older));
                    assert_eq!(asked, older.is_none(), "{when}: {path}");
                    if older.is_some() {
                        assert_eq!(bed.tree().get(path), older, "{when}: {path}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn what_a_start_was_told_to_go_without_is_in_no_later_snapshot_however_it_was_kept() {
    let most = Percent(10);
    for was_held in [false, true] {
        let mut bed = Bed::new();
        let start = bed.start().await;
        for name in ["a", "b", "c", "d", "e"] {
            bed.put(&format!("volume/{name}"), &format!("{name} at first"));
        }
        let (_, mut site) = bed.saves(&start, Kind::Auto).await;
        if was_held {
            for name in ["a", "b", "c", "d"] {
                bed.remove(name);
            }
            let report = bed.backs_up_guarded(&mut site, Kind::Final, most).await;
            assert!(report.placed.is_some(), "they are held");
        }
        bed.lose_volume();
        // Nobody has most of them any more.
        for name in ["a", "b", "c"] {
            bed.memory.objects().remove(&format!("config/{name}")).unwrap();
        }
        let (start, asked) = bed.start_answered().await;
        assert!(asked, "held: {was_held}");
        let mut site = bed.opens(&start).await;
        let report = bed.backs_up_guarded(&mut site, Kind::Auto, most).await;
        assert_eq!(
            report.placed, None,
            "held: {was_held}: nobody is asked about them again"
        );
        let newest = site.known.last().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (_, entries) = Indexes::new(bed.memory.as_ref(), folder.path())
            .read(&newest)
            .await
            .unwrap();
        let paths: Vec<String> = entries
            .iter()
            .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
            .filter(|path| !path.ends_with('/'))
            .collect();
        assert_eq!(paths, ["config/d", "config/e"], "held: {was_held}");
        // What is left is whole: a start brings it, and asks nothing.
        bed.lose_volume();
        bed.flags.clear();
        bed.start().await;
        assert_eq!(
            bed.tree().into_keys().collect::<Vec<_>>(),
            ["d", "e"],
            "held: {was_held}"
        );
    }
}
