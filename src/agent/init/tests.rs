//! Starts over stores that fail: whatever happens, no start ends in a wrong state, and the next one with a store that
//! answers ends as an undisturbed one does.

use super::*;
use crate::agent::arguments::{Flags, Identity};
use crate::agent::restore::attributes;
use crate::agent::start::{Start, Status, Writing};
use crate::store::claims::{Claim, ClaimedVolume};
use crate::store::faulty::{Fault, Faulty};
use crate::store::index::{Carried, Entry, File, Header, IndexWriter, IndexedVolume, Standing, Totals, What};
use crate::store::keys;
use crate::store::memory::Memory;
use crate::store::records::encode;
use crate::store::snapshot::SnapshotId;
use crate::store::state::State;
use clap::{Args, FromArgMatches};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

mod damage;
mod emptied;
mod empty;
mod foreign;
mod going_back;
mod leases;
mod meddling;
mod moved;
mod objects;
mod policy;
mod several;

const FIRST: &str = "20261122T130500Z-3.1-auto";
const SECOND: &str = "20261122T140500Z-3.2-auto";

struct Bed {
    memory: Arc<Memory>,
    folder: TempDir,
    flags: Vec<String>,
    pod: &'static str,
    generation: &'static str,
}

type Tree = BTreeMap<String, String>;

fn tree(files: &[(&str, &str)]) -> Tree {
    files
        .iter()
        .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
        .collect()
}

impl Bed {
    fn new() -> Self {
        // A start waits until its files lie on the disk: in memory that takes no time.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
        for name in ["volume", "restore", "defaults"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self {
            memory: Arc::default(),
            folder,
            flags: Vec::new(),
            pod: "app-1",
            generation: "g1",
        }
    }

    fn with(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    fn volume(&self) -> std::path::PathBuf {
        self.folder.path().join("volume")
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn arguments(&self) -> InitArguments {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let mut flags = vec![
            "--tier=tier2".to_owned(),
            "--workload=Deployment/app".to_owned(),
            "--allow-plain-folder".to_owned(),
            "--destination=minio:b/app".to_owned(),
            format!("--volume=data:config:{}", at("volume")),
            format!("--restore-dir={}", at("restore")),
            format!("--defaults-dir={}", at("defaults")),
            format!("--secrets-dir={}", at("secrets")),
        ];
        if !self.flags.iter().any(|flag| flag.starts_with("--restore-timeout")) {
            flags.push("--restore-timeout=1s".to_owned());
        }
        flags.extend(self.flags.clone());
        let command = InitArguments::augment_args(clap::Command::new("init").no_binary_name(true));
        let mut arguments = InitArguments::from_arg_matches(&command.get_matches_from(flags)).unwrap();
        assert!(!arguments.flags().is_empty());
        arguments.identity = Identity {
            namespace: "home".to_owned(),
            pod: self.pod.to_owned(),
            generation: self.generation.to_owned(),
            cluster_id: "c1".to_owned(),
        };
        arguments
    }

    async fn start_over(&self, fault: Fault) -> Result<Start, Error> {
        let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&self.memory, fault))];
        start(&self.arguments(), &stores).await?;
        Ok(Start::read(&self.folder.path().join("restore")).unwrap().unwrap())
    }

    async fn start(&self) -> Start {
        self.start_over(Fault::None).await.unwrap()
    }

    /// What the app sees.
    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let mut folders = vec![self.volume()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.volume()).unwrap().display().to_string();
                if name == keys::OWN_FOLDER {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else {
                    tree.insert(name, fs::read_to_string(path).unwrap());
                }
            }
        }
        tree
    }

    /// Backs up a tree as a sidecar would: history, mirror, index.
    fn backup(&self, id: &str, before: &Tree, after: &Tree) {
        back_up(&self.memory, id, before, after);
    }

    /// A claim of somebody who has let go since.
    fn claim(&self, epoch: u64, volume_id: &str, pod: &str) {
        let claim = Claim {
            version: VERSION,
            epoch,
            owner: crate::agent::owner(&self.arguments().identity, &self.arguments().protection.workload),
            pod: pod.to_owned(),
            generation: "g1".to_owned(),
            volumes: vec![ClaimedVolume {
                name: "data".to_owned(),
                folder: "config".to_owned(),
                id: volume_id.to_owned(),
            }],
            time: "2026-01-01T00:00:00Z".parse().unwrap(),
            start: None,
        };
        self.memory
            .objects()
            .insert(keys::claim(epoch, volume_id), encode(&claim));
        self.heartbeat(epoch, volume_id, true, false);
    }

    fn heartbeat(&self, epoch: u64, volume_id: &str, released: bool, stopping: bool) {
        let state = State {
            version: VERSION,
            epoch,
            volume_id: volume_id.to_owned(),
            pod: "app-0".to_owned(),
            owner: None,
            heartbeat: Timestamp::now(),
            released,
            stopping,
            ..State::default()
        };
        self.memory.objects().insert(keys::STATE.to_owned(), encode(&state));
    }

    fn lose_volume(&self) {
        for name in ["volume", "restore"] {
            let path = self.folder.path().join(name);
            fs::remove_dir_all(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
    }
}

/// What a sidecar does there with a backup of this tree.
fn back_up(memory: &Memory, id: &str, before: &Tree, after: &Tree) {
    let id: SnapshotId = id.parse().unwrap();
    let mut objects = memory.objects();
    for (path, content) in before {
        if after.get(path) != Some(content) {
            objects.insert(format!("history/{id}/config/{path}"), content.clone().into_bytes());
            objects.remove(&format!("config/{path}"));
        }
    }
    let header = Header {
        id,
        base: None,
        time: id.time,
        volumes: vec![IndexedVolume {
            folder: "config".to_owned(),
            id: "theirs".to_owned(),
        }],
        databases: Vec::new(),
        skipped: BTreeMap::new(),
        carried: Carried::default(),
    };
    let scratch = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::new(Vec::new(), &header).unwrap();
    let mut totals = Totals::default();
    for (path, content) in after {
        objects.insert(format!("config/{path}"), content.clone().into_bytes());
        let local = scratch.path().join("file");
        fs::write(&local, content).unwrap();
        let entry = Entry {
            path: format!("config/{path}").into_bytes(),
            what: What::File(File {
                size: content.len() as u64,
                sha256: crate::agent::restore::verify::sha256_of(&mut fs::File::open(&local).unwrap()).unwrap(),
                attributes: attributes::of(&fs::metadata(&local).unwrap()),
                stored: id.point(),
                name: None,
                torn: false,
            }),
            standing: Standing::Live,
        };
        totals.add(&entry);
        writer.push(&entry).unwrap();
    }
    objects.insert(keys::snapshot(&id), writer.finish(totals).unwrap());
}

fn before() -> Tree {
    tree(&[("a", "first a"), ("dir/b", "first b"), ("gone", "was here")])
}

fn after() -> Tree {
    tree(&[("a", "second a"), ("dir/b", "first b"), ("new", "is new")])
}

fn backed_up() -> Bed {
    let bed = Bed::new();
    bed.claim(3, "theirs", "app-0");
    bed.backup(FIRST, &Tree::new(), &before());
    bed.backup(SECOND, &before(), &after());
    bed
}

#[tokio::test(start_paused = true)]
async fn a_store_that_dies_at_any_call_costs_nothing() {
    for mode in [
        Fault::AwayFrom as fn(usize) -> Fault,
        Fault::FailsAt,
        Fault::HangsFrom,
        Fault::HalfOf,
    ] {
        for call in 0..40 {
            let bed = backed_up();
            let result = tokio::time::timeout(std::time::Duration::from_secs(600), bed.start_over(mode(call))).await;
            if let Ok(Ok(start)) = result {
                assert_eq!(bed.tree(), after(), "call {call}: it said that it succeeded");
                assert_eq!(start.volumes[0].status, Status::Settled);
            } else {
                let marker: Option<Marker> = volume::own::OwnFolder::on(&bed.volume()).read(MARKER).unwrap();
                assert_eq!(marker, None, "call {call}: only a start that came to its end says so");
            }
            let start = bed.start().await;
            assert_eq!(bed.tree(), after(), "call {call}");
            assert!(
                matches!(start.destinations[0].writing, Writing::Claimed { .. }),
                "call {call}"
            );
        }
    }
}

#[tokio::test]
async fn half_a_file_is_noticed_and_nothing_is_put_in_place() {
    let bed = backed_up();
    let error = bed.start_over(Fault::HalfFiles).await.unwrap_err();
    assert!(matches!(error, Error::Asks(_)), "{error}");
    assert_eq!(bed.tree(), Tree::new());
    bed.start().await;
    assert_eq!(bed.tree(), after());
}

#[tokio::test]
async fn a_listing_that_leaves_snapshots_out_never_makes_a_volume_new() {
    let bed = backed_up();
    // Whatever it leaves out, what is restored is one of the snapshots, whole.
    if bed.start_over(Fault::ListsHalf).await.is_ok() {
        assert!([before(), after()].contains(&bed.tree()), "{:?}", bed.tree());
    }
}

#[tokio::test]
async fn what_was_being_restored_and_is_gone_is_never_a_new_volume() {
    let bed = backed_up();
    let error = bed.start_over(Fault::HalfFiles).await.unwrap_err();
    assert!(matches!(error, Error::Asks(_)), "{error}");
    bed.memory.objects().clear();
    let error = bed.start_over(Fault::None).await.unwrap_err();
    assert!(matches!(error, Error::Unfinished { .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_a_later_backup_replaced_or_deleted_comes_from_history() {
    let bed = backed_up().with(&format!("--restore-at={FIRST}"));
    let start = bed.start().await;
    assert_eq!(bed.tree(), before());
    assert_eq!(start.serving.unwrap().value, FIRST);
    assert!(
        start.volumes[0].adopted,
        "the next backup may differ from the newest snapshot"
    );
}

#[tokio::test]
async fn a_backup_that_was_under_way_does_not_spoil_the_snapshot_before_it() {
    let bed = backed_up();
    // It had copied to history and replaced one file in the mirror when it died.
    let pending = "20261122T150500Z-3.3-auto";
    {
        let mut objects = bed.memory.objects();
        objects.insert(format!("snapshots/{pending}.pending"), b"{}".to_vec());
        objects.insert(format!("history/{pending}/config/a"), b"second a".to_vec());
        objects.insert("config/a".to_owned(), b"third a".to_vec());
        objects.insert("config/half".to_owned(), b"of a backup".to_vec());
    }
    bed.start().await;
    assert_eq!(bed.tree(), after());
}

#[tokio::test]
async fn a_point_in_time_is_served_once_and_what_it_replaces_is_in_history() {
    let bed = Bed::new();
    bed.start().await;
    let id = bed.start().await.volumes[0].id.clone();
    bed.backup("20261122T130500Z-2.1-auto", &Tree::new(), &before());
    bed.backup("20261122T140500Z-2.2-auto", &before(), &after());
    for (path, content) in after() {
        bed.put(&format!("volume/{path}"), &content);
    }
    bed.put("volume/unsaved", "nobody has this");
    let bed = bed.with("--restore-at=2026-11-22T13:30:00Z");
    let start = bed.start().await;
    assert_eq!(bed.tree(), before());
    assert_eq!(start.volumes[0].id, id, "it is the same volume");
    let aside: Vec<String> = bed
        .memory
        .objects()
        .keys()
        .filter(|key| key.contains("/.vixens-aside/config/"))
        .cloned()
        .collect();
    assert_eq!(
        aside.len(),
        1,
        "what the newest snapshot has is not stored again: {aside:?}"
    );
    assert!(aside[0].ends_with("/unsaved"));
    // The annotation stays in Git: the app works on, and no start rolls it back again.
    bed.put("volume/a", "after going back");
    let start = bed.start().await;
    assert_eq!(bed.tree()["a"], "after going back");
    assert!(start.serving.is_some(), "until the sidecar has recorded it");
    let key = keys::served("2026-11-22T13:30:00Z");
    bed.memory.objects().insert(key, b"{\"version\":1}".to_vec());
    assert_eq!(bed.start().await.serving, None);
    // Not even when the volume is lost.
    bed.lose_volume();
    bed.start().await;
    assert_eq!(bed.tree(), after());
}

#[tokio::test]
async fn a_point_that_is_not_there_changes_nothing() {
    let bed = backed_up().with("--restore-at=2020-01-01T00:00:00Z");
    let error = bed.start_over(Fault::None).await.unwrap_err().to_string();
    assert!(error.contains("2020-01-01") && error.contains(FIRST), "{error}");
    assert_eq!(bed.tree(), Tree::new());
}

#[tokio::test]
async fn going_back_waits_while_another_pod_writes_and_then_fails() {
    let bed = backed_up().with(&format!("--restore-at={FIRST}"));
    bed.heartbeat(3, "theirs", false, false);
    let error = bed.start_over(Fault::None).await.unwrap_err();
    assert!(matches!(error, Error::StillWriting { .. }), "{error}");
    bed.heartbeat(3, "theirs", true, false);
    bed.start().await;
    assert_eq!(bed.tree(), before());
}

#[tokio::test]
async fn the_last_backup_of_the_pod_before_is_in_what_the_next_one_restores() {
    let bed = backed_up().with("--restore-timeout=30s");
    bed.heartbeat(3, "theirs", false, true);
    let ending = async {
        // The old pod makes its last backup and lets go, while the new one waits.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let last = tree(&[("a", "the last word")]);
        bed.backup("20261122T160500Z-3.3-final", &after(), &last);
        bed.heartbeat(3, "theirs", true, false);
    };
    let (start, ()) = tokio::join!(bed.start(), ending);
    assert_eq!(bed.tree(), tree(&[("a", "the last word")]));
    assert!(matches!(start.destinations[0].writing, Writing::Claimed { .. }));
}

#[tokio::test]
async fn a_scaled_up_pod_runs_without_backing_up() {
    let bed = backed_up();
    bed.heartbeat(3, "theirs", false, false);
    let start = bed.start().await;
    assert_eq!(bed.tree(), after());
    assert!(
        matches!(start.destinations[0].writing, Writing::Waiting { .. }),
        "{:?}",
        start.destinations
    );
    let claims = bed
        .memory
        .objects()
        .keys()
        .filter(|key| key.starts_with("claims/"))
        .count();
    assert_eq!(claims, 1, "it did not claim");
}

#[tokio::test]
async fn an_old_volume_that_came_back_is_kept_and_fenced_until_the_owner_decides() {
    let bed = Bed::new();
    bed.start().await;
    bed.put("volume/a", "old");
    bed.claim(7, "theirs", "app-9");
    bed.backup("20261122T170500Z-7.1-auto", &Tree::new(), &after());
    let start = bed.start().await;
    assert_eq!(bed.tree(), tree(&[("a", "old")]));
    assert_eq!(start.volumes[0].status, Status::Fenced);
    assert!(start.volumes[0].why.contains("theirs") && start.volumes[0].why.contains(&start.volumes[0].id));
    assert_eq!(start.destinations[0].writing, Writing::Fenced);
    // Again: a start that was fenced does not settle by being repeated.
    assert_eq!(bed.start().await.volumes[0].status, Status::Fenced);
    let bed = bed.with("--restore-at=20261122T170500Z-7.1-auto");
    let start = bed.start().await;
    assert_eq!(bed.tree(), after());
    assert_eq!((start.volumes[0].status, start.epoch), (Status::Settled, 8));
    let aside = bed
        .memory
        .objects()
        .keys()
        .any(|key| key.ends_with("/.vixens-aside/config/a"));
    assert!(aside, "the old volume's file is in history");
}

#[tokio::test]
async fn files_that_an_init_container_wrote_first_stay_and_the_rest_comes() {
    let bed = backed_up();
    bed.put("volume/from-the-owner", "generated");
    let start = bed.start().await;
    let mut expected = after();
    expected.insert("from-the-owner".to_owned(), "generated".to_owned());
    assert_eq!(bed.tree(), expected);
    assert_eq!(start.volumes[0].status, Status::Settled);
}

/// What was set aside, below its volume's folder.
fn aside(bed: &Bed) -> Tree {
    let objects = bed.memory.objects();
    let files = objects.iter().filter_map(|(key, content)| {
        let (_, path) = key.split_once("/.vixens-aside/config/")?;
        Some((path.to_owned(), String::from_utf8(content.clone()).unwrap()))
    });
    files.collect()
}

#[tokio::test]
async fn a_changed_mount_path_keeps_the_folder() {
    let bed = backed_up();
    bed.start().await;
    let mut arguments = bed.arguments();
    arguments.protection.volumes[0].folder = "data".to_owned();
    let stores: [Box<dyn Store>; 1] = [Box::new(Faulty::new(&bed.memory, Fault::None))];
    start(&arguments, &stores).await.unwrap();
    let read = || Start::read(&bed.folder.path().join("restore")).unwrap().unwrap();
    assert_eq!(read().volumes[0].folder, "config");
    // And on a new volume, by the claim.
    bed.lose_volume();
    start(&arguments, &stores).await.unwrap();
    assert_eq!((read().volumes[0].folder.as_str(), bed.tree()), ("config", after()));
}

#[tokio::test]
async fn tier_1_marks_its_volume_as_one_that_tier_2_never_saw() {
    let bed = backed_up();
    bed.put("defaults/vanilla", "v");
    let mut arguments = bed.arguments();
    arguments.tier = Tier::Tier1;
    let calls = Faulty::new(&bed.memory, Fault::None);
    let stores: [Box<dyn Store>; 1] = [Box::new(calls)];
    start(&arguments, &stores).await.unwrap();
    assert_eq!(bed.tree(), tree(&[("vanilla", "v")]));
    assert!(Start::read(&bed.folder.path().join("restore")).unwrap().is_none());
    bed.start().await;
    assert_eq!(bed.tree()["a"], "second a", "its files are missing, so they come back");
}
