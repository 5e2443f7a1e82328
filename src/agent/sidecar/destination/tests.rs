//! A destination at work on a store in memory that is emptied and filled again under it, as a NAS is whose disk is not mounted
//! yet: what it writes meanwhile, when it goes on, and what it asks.

use super::*;
use crate::agent::arguments::{Databases, QuestionKind};
use crate::agent::filters::Filters;
use crate::agent::lease::judge::Since;
use crate::agent::sidecar::inbox::{Ask, Event, Settle};
use crate::agent::sidecar::status::DestinationStatus;
use crate::agent::sidecar::volume::Volume;
use crate::agent::start::{StartedVolume, Status};
use crate::store::claims::{self, Claim, Holder, Owner, Taken};
use crate::store::faulty::{Fault, Faulty};
use crate::store::index::IndexReader;
use crate::store::keys::{self, SnapshotObject};
use crate::store::memory::Memory;
use crate::store::records::{VERSION, decode, encode};
use crate::store::state::{Mode, Pruning, State};
use crate::store::{decisions, store_id};
use std::fs;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What lies in a store.
type Objects = BTreeMap<String, Vec<u8>>;

struct Bed {
    memory: Arc<Memory>,
    store: Arc<Faulty>,
    volume: TempDir,
    restore: TempDir,
    started: Start,
    accepted: Vec<QuestionId>,
    retention: &'static str,
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

fn holder(epoch: u64, id: &str) -> Holder {
    Holder {
        epoch,
        volume_id: id.to_owned(),
    }
}

impl Bed {
    /// A pod with a volume that has one file, whose place is claimed with epoch 1.
    async fn new() -> Self {
        let volume = tempfile::tempdir().unwrap();
        fs::create_dir(volume.path().join(".vixens-backup")).unwrap();
        fs::write(volume.path().join(".vixens-backup/volume.json"), "{}").unwrap();
        fs::write(volume.path().join("a"), "a").unwrap();
        let started = Start {
            version: VERSION,
            time: Timestamp::now(),
            owner: Owner {
                cluster: "c".to_owned(),
                namespace: "n".to_owned(),
                kind: "Deployment".to_owned(),
                name: "app".to_owned(),
                pod: String::new(),
            },
            pod: "app-1".to_owned(),
            generation: "g".to_owned(),
            epoch: 1,
            since: None,
            pins: std::collections::BTreeMap::new(),
            destinations: Vec::new(),
            volumes: vec![StartedVolume {
                name: "data".to_owned(),
                folder: "config".to_owned(),
                path: volume.path().to_owned(),
                id: "aa".to_owned(),
                status: Status::Settled,
                why: String::new(),
                restored: None,
                adopted: false,
            }],
            serving: None,
        };
        let memory = Arc::new(Memory::default());
        let taken = claims::take(memory.as_ref(), started.claim(started.time), &[], 0).await;
        assert_eq!(taken.unwrap(), Taken::Held(1));
        Self {
            store: Arc::new(Faulty::new(&memory, Fault::None)),
            memory,
            volume,
            restore: tempfile::tempdir().unwrap(),
            started,
            accepted: Vec::new(),
            retention: "last=2",
            inbox: Arc::new(Inbox::new(Settle {
                quiet: Duration::from_secs(1),
                most: Duration::from_secs(2),
            })),
            shared: Arc::default(),
            worker: None,
        }
    }

    fn write(&self, name: &str) {
        fs::write(self.volume.path().join(name), name).unwrap();
    }

    fn start(&mut self, writing: Writing) {
        let scope = Scope {
            replication: None,
            given_up: Arc::default(),
            copies: Arc::default(),
            volumes: vec![Volume {
                path: self.volume.path().to_owned(),
                folder: "config".to_owned(),
                id: "aa".to_owned(),
                writable: true,
            }],
            filters: Filters::new(&[], &[], None).unwrap(),
            databases: Databases::Auto,
            turn: Arc::default(),
        };
        let worker = Worker::new(Destination {
            store: self.store.clone(),
            elsewhere: Vec::new(),
            writing,
            started: Arc::new(self.started.clone()),
            scope: Arc::new(scope),
            scratch: self.restore.path().join("sidecar"),
            credentials: Credentials::of(self.restore.path().join("rclone").as_path()),
            inbox: self.inbox.clone(),
            shared: self.shared.clone(),
            interval: Duration::from_secs(10),
            settle: Duration::from_secs(1),
            max_shrink: Percent(50),
            accepted: self.accepted.clone(),
            retention: self.retention.parse().unwrap(),
            restore_dir: self.restore.path().to_owned(),
        });
        self.worker = Some(tokio::spawn(worker.run()));
    }

    /// As `init` has claimed it.
    fn start_claimed(&mut self) {
        self.start(Writing::Claimed {
            holder: holder(1, "aa"),
        });
    }

    /// The container dies.
    async fn kill(&mut self) {
        let worker = self.worker.take().unwrap();
        worker.abort();
        let _ = worker.await;
        self.begin_anew();
    }

    /// Of what a container has heard, the next one knows nothing.
    fn begin_anew(&mut self) {
        self.inbox = Arc::new(Inbox::new(Settle {
            quiet: Duration::from_secs(1),
            most: Duration::from_secs(2),
        }));
    }

    fn status(&self) -> DestinationStatus {
        let status = self.shared.status().destinations.get("memory:store").cloned();
        status.unwrap_or_default()
    }

    async fn until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        for _ in 0..3_600 {
            if wanted(self) {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("{what} did not come: {:?} {:?}", self.status(), self.keys());
    }

    fn keys(&self) -> Vec<String> {
        self.memory.objects().keys().cloned().collect()
    }

    /// The files of the newest snapshot.
    fn saved(&self) -> Vec<String> {
        let objects = self.memory.objects();
        let newest = objects
            .keys()
            .filter_map(|key| match keys::of_snapshot(key.strip_prefix("snapshots/")?) {
                SnapshotObject::Index(id) => Some(id),
                _ => None,
            })
            .max();
        let Some(newest) = newest else { return Vec::new() };
        let index =
            |id: &SnapshotId| IndexReader::new(std::io::Cursor::new(objects[&keys::snapshot(id)].clone())).unwrap();
        let reader = index(&newest);
        let base = reader.header().base;
        let mut files: BTreeMap<String, bool> = BTreeMap::new();
        for reader in base.map(|base| index(&base)).into_iter().chain([reader]) {
            for entry in reader.map(Result::unwrap) {
                let path = String::from_utf8(entry.path.clone()).unwrap();
                let is_there = !matches!(entry.what, crate::store::index::What::Gone);
                files.insert(path, is_there);
            }
        }
        let there = files
            .into_iter()
            .filter(|(path, is_there)| *is_there && !path.ends_with('/'));
        there.map(|(path, _)| path).collect()
    }

    async fn until_saved(&self, files: &[&str]) {
        let wanted: Vec<String> = files.iter().map(|file| format!("config/{file}")).collect();
        self.until(&format!("a snapshot of {wanted:?}"), |bed| bed.saved() == wanted)
            .await;
    }

    /// The disk is not there any more.
    fn unmount(&self) -> Objects {
        std::mem::take(&mut *self.memory.objects())
    }

    /// It is there again; what was written where it had been.
    fn mount(&self, objects: Objects) -> Objects {
        std::mem::replace(&mut *self.memory.objects(), objects)
    }

    /// Has a backup made, as by `vixens-backup backup --accept`; what came of it.
    async fn ask(&self, accepted: &[QuestionId]) -> Event {
        let (progress, mut lines) = mpsc::unbounded_channel();
        self.inbox.ask(Ask {
            kind: Kind::Manual,
            accepted: accepted.to_vec(),
            progress,
        });
        loop {
            match lines.recv().await.unwrap().event {
                Event::Started => {}
                ended => return ended,
            }
        }
    }
}

fn says_away(bed: &Bed) -> bool {
    let status = bed.status();
    status.phase == "failing"
        && status
            .why
            .is_some_and(|why| why.contains("is not the store that was here"))
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_not_mounted_for_minutes_is_believed_again_and_nothing_was_written_into_the_void() {
    let mut bed = Bed::new().await;
    bed.start_claimed();
    bed.until_saved(&["a"]).await;
    let disk = bed.unmount();
    bed.write("b");
    bed.until("a word that it is away", says_away).await;
    tokio::time::sleep(Duration::from_secs(500)).await;
    assert!(says_away(&bed));
    assert_eq!(bed.status().questions, [], "nobody is asked yet");
    bed.write("c");
    let void = bed.mount(disk);
    let written: Vec<&String> = void.keys().filter(|key| *key != keys::STATE).collect();
    assert_eq!(written, [""; 0], "nothing but a heartbeat that was on its way");
    bed.until_saved(&["a", "b", "c"]).await;
    assert_eq!(bed.status().phase, "ready");
    assert_eq!(bed.status().epoch, 1, "it was ours all the time");
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_backup_waits_for_a_store_that_is_not_mounted_until_its_deadline() {
    let mut bed = Bed::new().await;
    bed.start_claimed();
    bed.until_saved(&["a"]).await;
    let disk = bed.unmount();
    bed.write("b");
    bed.inbox.stop(Stop {
        deadline: Instant::now() + Duration::from_secs(60),
    });
    tokio::time::sleep(Duration::from_secs(40)).await;
    bed.mount(disk);
    bed.worker.take().unwrap().await.unwrap();
    assert_eq!(bed.saved(), ["config/a", "config/b"]);
    let last = bed
        .keys()
        .into_iter()
        .rfind(|key| key.starts_with("snapshots/"))
        .unwrap();
    assert!(last.contains("-final"), "{last}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_a_rule_of_the_bucket_has_removed_is_written_again_by_its_holder() {
    let mut bed = Bed::new().await;
    bed.start_claimed();
    bed.until_saved(&["a"]).await;
    let claim = bed.memory.objects().remove("claims/1-aa.json").unwrap();
    bed.write("b");
    let begun = Instant::now();
    bed.until_saved(&["a", "b"]).await;
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(bed.memory.objects()["claims/1-aa.json"], claim);
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_not_written_again_where_somebody_else_has_written_since() {
    let mut bed = Bed::new().await;
    bed.start_claimed();
    bed.until_saved(&["a"]).await;
    {
        let mut objects = bed.memory.objects();
        objects.remove("claims/1-aa.json");
        let state: State = decode(&objects[keys::STATE]).unwrap();
        let state = State {
            epoch: 2,
            volume_id: "bb".to_owned(),
            ..state
        };
        objects.insert(keys::STATE.to_owned(), encode(&state));
    }
    bed.write("b");
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(says_away(&bed), "{:?}", bed.status());
    assert!(!bed.keys().contains(&"claims/1-aa.json".to_owned()));
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_place_is_written_again_each_day() {
    let mut bed = Bed::new().await;
    bed.start_claimed();
    bed.until_saved(&["a"]).await;
    let id = bed.status().store_id.unwrap();
    bed.memory.objects().remove(keys::STORE_ID);
    // A claim that was cut off holds by its name, until it is whole again.
    bed.memory
        .objects()
        .insert("claims/1-aa.json".to_owned(), b"{".to_vec());
    tokio::time::sleep(Duration::from_secs(25 * 3_600)).await;
    let found = store_id::read(bed.memory.as_ref()).await.unwrap();
    assert_eq!(found.unwrap().to_string(), id);
    let claim: Claim = decode(&bed.memory.objects()["claims/1-aa.json"]).unwrap();
    assert_eq!(claim, bed.started.claim_of(&holder(1, "aa")));
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_place_that_stays_empty_is_begun_anew_once_somebody_says_so_and_not_before() {
    let mut bed = Bed::new().await;
    bed.start_claimed();
    bed.until_saved(&["a"]).await;
    let before = bed.status().store_id.unwrap();
    bed.unmount();
    bed.write("b");
    bed.until("a word that it is away", says_away).await;
    // Too early: nobody is asked yet.
    let known = KnownStores::read(bed.restore.path()).of("memory:store");
    let id = known.start_new("memory:store", "whatever").id;
    let answer = bed.ask(std::slice::from_ref(&id)).await;
    assert!(matches!(answer, Event::Failed { .. }), "{answer:?}");
    bed.until("a question", |bed| !bed.status().questions.is_empty()).await;
    assert_eq!(bed.status().questions[0].id, id);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let answer = bed.ask(&[]).await;
    assert!(matches!(answer, Event::Failed { .. }), "{answer:?}");
    assert_eq!(bed.saved(), [""; 0], "hours later, nothing is written");
    let answer = bed.ask(std::slice::from_ref(&id)).await;
    assert!(matches!(answer, Event::Done { made: true, .. }), "{answer:?}");
    assert_eq!(bed.saved(), ["config/a", "config/b"]);
    let status = bed.status();
    assert_eq!(
        (status.phase.as_str(), status.epoch, status.questions),
        ("ready", 2, Vec::new())
    );
    assert_ne!(status.store_id.unwrap(), before, "it is another store");
    assert!(decisions::is_decided(bed.memory.as_ref(), &id).await.unwrap());
    // A sidecar that is started again holds what this one had claimed.
    bed.kill().await;
    bed.write("c");
    bed.start_claimed();
    bed.until_saved(&["a", "b", "c"]).await;
    assert_eq!(bed.status().epoch, 2);
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_of_our_own_store_is_claimed_anew_and_gets_what_is_on_the_volume() {
    let mut bed = Bed::new().await;
    // Somebody of our workload was here before.
    let before = Claim {
        epoch: 0,
        volumes: vec![claims::ClaimedVolume {
            id: "zz".to_owned(),
            ..bed.started.claim(bed.started.time).volumes[0].clone()
        }],
        ..bed.started.claim(bed.started.time)
    };
    bed.memory
        .objects()
        .insert("claims/0-zz.json".to_owned(), encode(&before));
    bed.start_claimed();
    bed.until_saved(&["a"]).await;
    let mut copy = bed.memory.objects().clone();
    copy.retain(|key, _| key == keys::STORE_ID || key == "claims/0-zz.json");
    let store_id = bed.status().store_id;
    bed.mount(copy);
    bed.write("b");
    bed.until("a word that it is away", says_away).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(says_away(&bed), "it may be back in a moment");
    bed.until_saved(&["a", "b"]).await;
    assert_eq!((bed.status().epoch, bed.status().store_id), (2, store_id));
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_claim_fences_at_once() {
    let mut bed = Bed::new().await;
    bed.start_claimed();
    bed.until_saved(&["a"]).await;
    let disk = bed.unmount();
    bed.write("b");
    bed.until("a word that it is away", says_away).await;
    // It comes back, and somebody has been there.
    bed.mount(disk);
    let newer = Claim {
        epoch: 2,
        ..bed.started.claim(Timestamp::now())
    };
    bed.memory
        .objects()
        .insert("claims/2-bb.json".to_owned(), encode(&newer));
    bed.until("a word that it is fenced", |bed| bed.status().phase == "fenced")
        .await;
    assert_eq!(bed.saved(), ["config/a"]);
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_is_started_again_while_the_store_is_not_mounted_knows_that_something_was_there() {
    let mut bed = Bed::new().await;
    bed.start_claimed();
    bed.until_saved(&["a"]).await;
    bed.kill().await;
    let disk = bed.unmount();
    for writing in [
        Writing::Claimed {
            holder: holder(1, "aa"),
        },
        Writing::Unclaimed,
    ] {
        bed.start(writing);
        bed.until("a word that it is away", says_away).await;
        tokio::time::sleep(Duration::from_secs(400)).await;
        assert_eq!(bed.keys(), [""; 0]);
        bed.kill().await;
        bed.shared = Arc::default();
    }
    bed.mount(disk);
    bed.write("b");
    bed.start_claimed();
    bed.until_saved(&["a", "b"]).await;
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_never_there_is_waited_for_by_nobody() {
    let mut bed = Bed::new().await;
    bed.unmount();
    bed.start(Writing::Unclaimed);
    let begun = Instant::now();
    bed.until_saved(&["a"]).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    bed.kill().await;
}

/// The place is held by the runs of another cluster's CronJob, and our volume has what it held.
fn held_by_runs_elsewhere(bed: &mut Bed) {
    let mut theirs = bed.started.claim(bed.started.time);
    theirs.epoch = 1;
    theirs.owner.cluster = "prod".to_owned();
    theirs.volumes[0].id = "bb".to_owned();
    let state = State {
        version: VERSION,
        epoch: 1,
        volume_id: "bb".to_owned(),
        released: true,
        mode: Some(Mode::Cronjob),
        ..State::default()
    };
    let mut objects = bed.memory.objects();
    objects.clear();
    objects.insert("claims/1-bb.json".to_owned(), encode(&theirs));
    objects.insert(keys::STATE.to_owned(), encode(&state));
    drop(objects);
    bed.started.since = Some(Since {
        holder: Some(holder(1, "bb")),
        newest: None,
    });
}

#[tokio::test(start_paused = true)]
async fn that_another_cluster_may_write_there_is_asked_in_the_status_until_it_is_accepted() {
    let mut bed = Bed::new().await;
    held_by_runs_elsewhere(&mut bed);
    bed.start(Writing::Unclaimed);
    bed.until("a question", |bed| !bed.status().questions.is_empty()).await;
    let questions = bed.status().questions;
    assert_eq!(questions.len(), 1);
    let id = questions[0].id.clone();
    assert_eq!(id.kind(), Some(QuestionKind::Write));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(bed.status().questions, questions, "once, however often it is asked");
    assert_eq!(bed.saved(), [""; 0]);
    let answer = bed.ask(&[]).await;
    assert!(
        matches!(&answer, Event::Failed { why, .. } if why.contains(id.as_str())),
        "{answer:?}"
    );
    let answer = bed.ask(std::slice::from_ref(&id)).await;
    assert!(matches!(answer, Event::Done { made: true, .. }), "{answer:?}");
    assert_eq!(bed.status().questions, []);
    assert_eq!((bed.status().epoch, bed.saved()), (2, vec!["config/a".to_owned()]));
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_fenced_off_asks_nothing_any_more() {
    let mut bed = Bed::new().await;
    held_by_runs_elsewhere(&mut bed);
    bed.start(Writing::Unclaimed);
    bed.until("a question", |bed| !bed.status().questions.is_empty()).await;
    // The other cluster is there, and has written what this volume does not have.
    let state = decode::<State>(&bed.memory.objects()[keys::STATE]).unwrap();
    let newer = Claim {
        epoch: 2,
        ..decode(&bed.memory.objects()["claims/1-bb.json"]).unwrap()
    };
    bed.memory
        .objects()
        .insert("claims/2-bb.json".to_owned(), encode(&newer));
    bed.memory
        .objects()
        .insert(keys::STATE.to_owned(), encode(&State { epoch: 2, ..state }));
    bed.until("a word that it is fenced", |bed| bed.status().phase == "fenced")
        .await;
    assert_eq!(bed.status().questions, []);
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn where_deletions_are_refused_backups_go_on_and_that_is_said_once_and_tried_again_once_a_day() {
    let mut bed = Bed::new().await;
    bed.store = Arc::new(Faulty::new(&bed.memory, Fault::RefusesDeletions));
    bed.start_claimed();
    bed.until_saved(&["a"]).await;
    for name in ["b", "c", "d"] {
        bed.write(name);
        let saved = bed.saved().len() + 1;
        bed.until("a snapshot", |bed| bed.saved().len() == saved).await;
    }
    fs::remove_file(bed.volume.path().join("b")).unwrap();
    bed.until_saved(&["a", "c", "d"]).await;
    let status = bed.status();
    assert_eq!(status.phase, "ready");
    assert!(status.undeleted.unwrap().contains("AccessDenied"));
    let tried = bed.store.refusals();
    tokio::time::sleep(Duration::from_secs(3 * 24 * 3_600)).await;
    assert_eq!(bed.status().phase, "ready");
    assert!(bed.status().undeleted.is_some());
    let again = bed.store.refusals() - tried;
    assert!((3..=30).contains(&again), "{again} times in three days");
    bed.write("e");
    bed.until_saved(&["a", "c", "d", "e"]).await;
    bed.kill().await;
}

impl Bed {
    fn summary(&self) -> State {
        decode(&self.memory.objects()[keys::STATE]).unwrap()
    }

    fn snapshots(&self) -> usize {
        let objects = self.memory.objects();
        let below = objects.keys().filter_map(|key| key.strip_prefix("snapshots/"));
        below
            .filter(|name| matches!(keys::of_snapshot(name), SnapshotObject::Index(_)))
            .count()
    }

    /// The pod is made anew with other rules, and has pruned by them.
    async fn under(&mut self, rules: &'static str) {
        self.kill().await;
        self.retention = rules;
        self.start_claimed();
        let is_pruned = |bed: &Self| bed.summary().pruning.is_some_and(|pruning| pruning.rules == rules);
        self.until("a word of how it is pruned", is_pruned).await;
    }
}

/// A running pod that has saved one file after the other, and the files.
async fn with_six_snapshots() -> (Bed, Vec<&'static str>) {
    let mut bed = Bed::new().await;
    bed.retention = "7d";
    bed.start_claimed();
    let mut files = vec!["a"];
    bed.until_saved(&files).await;
    for name in ["b", "c", "d", "e", "f"] {
        bed.write(name);
        files.push(name);
        bed.until_saved(&files).await;
    }
    (bed, files)
}

#[tokio::test(start_paused = true)]
async fn what_would_remove_most_snapshots_is_put_off_across_restarts_until_an_hour_has_passed_or_the_rules_change() {
    let (mut bed, mut files) = with_six_snapshots().await;
    let remember = |bed: &Bed, pruning: Option<Pruning>| {
        let summary = State {
            pruning,
            ..bed.summary()
        };
        bed.memory.objects().insert(keys::STATE.to_owned(), encode(&summary));
    };
    // As a pod of the former release leaves it: what the rules were is not known.
    bed.kill().await;
    remember(&bed, None);
    bed.retention = "last=1";
    bed.start_claimed();
    bed.until("a word that it is put off", |bed| bed.summary().pruning.is_some())
        .await;
    let since = bed.summary().pruning.unwrap().put_off.unwrap();
    bed.under("last=1").await;
    bed.write("g");
    files.push("g");
    bed.until_saved(&files).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(
        bed.summary().pruning.unwrap().put_off,
        Some(since),
        "it is the same as before"
    );
    assert_eq!(bed.snapshots(), 7);
    // An hour later.
    bed.kill().await;
    let put_off = Some(since - SignedDuration::from_hours(1));
    let rules = "last=1".to_owned();
    remember(&bed, Some(Pruning { rules, put_off }));
    bed.start_claimed();
    bed.until("only the newest and the index that it builds on", |bed| {
        bed.snapshots() == 2
    })
    .await;
    bed.until("a word that nothing is put off", |bed| {
        bed.summary().pruning.unwrap().put_off.is_none()
    })
    .await;
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_rules_is_served_at_once() {
    let (mut bed, _) = with_six_snapshots().await;
    bed.until("a word of the rules", |bed| bed.summary().pruning.is_some())
        .await;
    bed.under("last=1").await;
    assert_eq!(bed.snapshots(), 2);
    assert_eq!(bed.saved().len(), 6);
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_store_has_lost_while_nobody_wrote_there_is_saved_anew_by_the_next_pod_that_has_it() {
    let mut bed = Bed::new().await;
    bed.write("b");
    bed.start_claimed();
    bed.until_saved(&["a", "b"]).await;
    bed.inbox.stop(Stop {
        deadline: Instant::now() + Duration::from_secs(60),
    });
    bed.worker.take().unwrap().await.unwrap();
    bed.memory.objects().remove("config/a");
    bed.memory.objects().insert("config/b".to_owned(), b"cut".to_vec());
    // A new pod, with its data; the last one had let go of the place.
    bed.begin_anew();
    let began = Instant::now();
    bed.start_claimed();
    bed.until("both", |bed| {
        let objects = bed.memory.objects();
        let of = |key: &str| objects.get(key).cloned().unwrap_or_default();
        (of("config/a"), of("config/b")) == (b"a".to_vec(), b"b".to_vec())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    bed.kill().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_restored_a_moment_ago_is_not_compared_again() {
    let mut bed = Bed::new().await;
    bed.start_claimed();
    bed.until_saved(&["a"]).await;
    bed.inbox.stop(Stop {
        deadline: Instant::now() + Duration::from_secs(60),
    });
    bed.worker.take().unwrap().await.unwrap();
    let listed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = listed.clone();
    let counting = Faulty::new(&bed.memory, Fault::None).meddled_with(move |_, prefix| {
        counted.fetch_add(usize::from(prefix == "config"), std::sync::atomic::Ordering::Relaxed);
    });
    bed.store = Arc::new(counting);
    for (restored, expected) in [(Some("20261122T130500Z-1.1-auto".parse().unwrap()), 0), (None, 1)] {
        bed.begin_anew();
        bed.started.volumes[0].restored = restored;
        bed.start_claimed();
        let name = format!("c{expected}");
        bed.write(&name);
        bed.until("a backup", |bed| bed.saved().contains(&format!("config/{name}")))
            .await;
        bed.inbox.stop(Stop {
            deadline: Instant::now() + Duration::from_secs(60),
        });
        bed.worker.take().unwrap().await.unwrap();
        assert_eq!(listed.load(std::sync::atomic::Ordering::Relaxed), expected);
    }
}
