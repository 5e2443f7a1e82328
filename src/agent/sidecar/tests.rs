//! One backup after the other on a store in memory that dies after any number of calls, in the middle of one: every
//! snapshot that was ever published can be restored, before and after whoever comes next has brought the place in order.

use super::backup::{Failure, Order, Report, Site};
use super::volume::{Scope, Volume};
use crate::agent::arguments::{Databases, Percent};
use crate::agent::filters::Filters;
use crate::agent::lease::handover::Arrival;
use crate::agent::snapshot::changes::Look;
use crate::agent::watch::Changes;
use crate::store::claims::Holder;
use crate::store::index::{Entry, IndexReader, What, merged};
use crate::store::keys::{self, SnapshotObject};
use crate::store::memory::Memory;
use crate::store::snapshot::{Kind, SnapshotId};
use crate::store::{
    Answer, Depth, Done, Error, Exchanged, Object, Presence, Store, Undone, Upload, exchange_one_by_one,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

mod holds;
mod late;
mod reconcile;
mod stuck;
mod undeleted;

/// A store that dies: after so many calls none is answered any more, and half of the last one is done.
struct Mortal {
    inner: Arc<Memory>,
    calls: AtomicUsize,
    uploaded: AtomicUsize,
    lives: usize,
    /// No upload takes more than half of its files, rounded up, before it fails.
    stumbles: bool,
    /// The last call is done wholly, and nobody hears of it.
    unheard: bool,
    /// Nothing is deleted.
    refuses: AtomicBool,
    /// Objects with which it can't do this, and says so of each.
    stuck: Vec<(Can, &'static str)>,
}

/// What a store does with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Can {
    Read,
    Write,
}

impl Mortal {
    fn new(inner: &Arc<Memory>, lives: usize) -> Self {
        Self {
            inner: inner.clone(),
            calls: AtomicUsize::new(0),
            uploaded: AtomicUsize::new(0),
            lives,
            stumbles: false,
            unheard: false,
            refuses: AtomicBool::new(false),
            stuck: Vec::new(),
        }
    }

    /// Of a backup's history, whichever it is: `history/*/<name>`.
    fn refused(&self, can: Can, key: &str) -> bool {
        let named = match key.strip_prefix("history/").and_then(|below| below.split_once('/')) {
            Some((_, name)) => format!("history/*/{name}"),
            None => key.to_owned(),
        };
        self.stuck.contains(&(can, &*named))
    }

    fn undone(name: &str) -> Undone {
        Undone {
            name: name.to_owned(),
            why: "input/output error".to_owned(),
        }
    }

    /// How much of a call over `count` things is done: all, half, or an error right away.
    fn share(&self, count: usize) -> Result<usize, Error> {
        match self.calls.fetch_add(1, Ordering::Relaxed).cmp(&self.lives) {
            std::cmp::Ordering::Less => Ok(count),
            std::cmp::Ordering::Equal if self.unheard => Ok(count),
            std::cmp::Ordering::Equal => Ok(count / 2),
            std::cmp::Ordering::Greater => Err(self.dead()),
        }
    }

    fn dead(&self) -> Error {
        Error::Unreachable {
            destination: self.destination(),
            why: "it is dead".to_owned(),
        }
    }

    fn rest(&self, done: usize, count: usize) -> Result<Vec<Undone>, Error> {
        let unheard = self.unheard && self.calls.load(Ordering::Relaxed) > self.lives;
        if done < count || unheard {
            Err(self.dead())
        } else {
            Ok(Vec::new())
        }
    }
}

impl Store for Mortal {
    fn destination(&self) -> String {
        self.inner.destination()
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        depth: Depth,
        each: &'a mut (dyn FnMut(Object) + Send),
    ) -> Answer<'a, Presence> {
        Box::pin(async move {
            self.share(0)?;
            self.inner.list(prefix, depth, each).await
        })
    }

    fn read<'a>(&'a self, key: &'a str) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            self.share(0)?;
            self.inner.read(key).await
        })
    }

    fn write<'a>(&'a self, key: &'a str, content: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            if self.share(2)? < 2 {
                return Err(self.dead());
            }
            self.inner.write(key, content).await?;
            self.rest(2, 2).map(|_| ())
        })
    }

    fn upload<'a>(&'a self, prefix: &'a str, files: &'a [Upload], done: Done<'a>) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let mut count = self.share(files.len())?;
            if self.stumbles {
                count = count.div_ceil(2);
            }
            let (stuck, able): (Vec<Upload>, Vec<Upload>) = files[..count]
                .iter()
                .cloned()
                .partition(|file| self.refused(Can::Write, &keys::joined(prefix, &file.name)));
            self.uploaded.fetch_add(able.len(), Ordering::Relaxed);
            let undone = self.inner.upload(prefix, &able, done).await?;
            assert_eq!(undone, []);
            self.rest(count, files.len())?;
            Ok(stuck.iter().map(|file| Self::undone(&file.name)).collect())
        })
    }

    fn download<'a>(
        &'a self,
        prefix: &'a str,
        names: &'a [String],
        to: &'a Path,
        done: Done<'a>,
    ) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            self.share(0)?;
            let stuck = |name: &&String| self.refused(Can::Read, &keys::joined(prefix, name));
            let able: Vec<String> = names.iter().filter(|name| !stuck(name)).cloned().collect();
            let mut undone = self.inner.download(prefix, &able, to, done).await?;
            undone.extend(names.iter().filter(stuck).map(|name| Self::undone(name)));
            Ok(undone)
        })
    }

    fn copy<'a>(&'a self, from: &'a str, to: &'a str, names: &'a [String]) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let count = self.share(names.len())?;
            let stuck = |name: &&String| {
                self.refused(Can::Read, &keys::joined(from, name)) || self.refused(Can::Write, &keys::joined(to, name))
            };
            let able: Vec<String> = names[..count].iter().filter(|name| !stuck(name)).cloned().collect();
            let mut undone = self.inner.copy(from, to, &able).await?;
            undone.extend(names[..count].iter().filter(stuck).map(|name| Self::undone(name)));
            if undone.is_empty() {
                self.rest(count, names.len())
            } else {
                Ok(undone)
            }
        })
    }

    fn delete<'a>(&'a self, prefix: &'a str, names: &'a [String]) -> Answer<'a, Vec<Undone>> {
        Box::pin(async move {
            let count = self.share(names.len())?;
            if self.refuses.load(Ordering::Relaxed) && !names.is_empty() {
                return Err(Error::Refused {
                    destination: self.destination(),
                    why: "AccessDenied".to_owned(),
                });
            }
            self.inner.delete(prefix, &names[..count]).await?;
            self.rest(count, names.len())
        })
    }

    fn probe(&self) -> Answer<'_, Presence> {
        self.inner.probe()
    }

    fn exchange<'a>(&'a self, key: &'a str, content: &'a [u8], folders: &'a [&'a str]) -> Answer<'a, Exchanged> {
        Box::pin(exchange_one_by_one(self, key, content, folders))
    }

    fn create(&self) -> Answer<'_, ()> {
        self.inner.create()
    }
}

struct Bench {
    volume: TempDir,
    scratch: TempDir,
    memory: Arc<Memory>,
    filters: Filters,
    order: Order,
    /// Nothing is deleted there.
    refuses: bool,
    /// What the volume held when each snapshot was made.
    published: BTreeMap<SnapshotId, BTreeMap<String, Vec<u8>>>,
}

/// As `init` marks a volume.
fn mark(volume: &Path) {
    fs::create_dir_all(volume.join(".vixens-backup")).unwrap();
    fs::write(volume.join(".vixens-backup/volume.json"), "{}").unwrap();
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            volume: tempfile::tempdir().unwrap(),
            scratch: tempfile::tempdir().unwrap(),
            memory: Arc::new(Memory::default()),
            filters: Filters::new(&[], &[], None).unwrap(),
            order: Order {
                kind: Kind::Auto,
                look: Look {
                    changes: Changes::default(),
                    resting: Vec::new(),
                    restless: None,
                },
                always: false,
                most: Percent(100),
                accepted: Vec::new(),
                restored: None,
                rest: Duration::ZERO,
                patience: Duration::from_secs(1),
            },
            refuses: false,
            published: BTreeMap::new(),
        };
        mark(bench.volume.path());
        bench.claim(1);
        bench
    }

    fn claim(&self, epoch: u64) {
        let key = Self::holder(epoch).key();
        self.memory.objects().insert(key, b"{}".to_vec());
    }

    fn holder(epoch: u64) -> Holder {
        Holder {
            epoch,
            volume_id: "aa".to_owned(),
        }
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.volume.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.volume.path().join(name)).unwrap();
    }

    fn tree(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.volume.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                let name = path
                    .strip_prefix(self.volume.path())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                if entry.file_type().unwrap().is_dir() && name != ".vixens-backup" {
                    folders.push(path);
                } else if entry.file_type().unwrap().is_file() {
                    files.insert(format!("config/{name}"), fs::read(&path).unwrap());
                }
            }
        }
        files
    }

    async fn open(&self, lives: usize, epoch: u64) -> Result<Site, Failure> {
        self.open_with(vec![self.only_volume()], lives, epoch).await
    }

    fn only_volume(&self) -> Volume {
        Volume {
            path: self.volume.path().to_owned(),
            folder: "config".to_owned(),
            id: "aa".to_owned(),
            writable: true,
        }
    }

    async fn open_with(&self, volumes: Vec<Volume>, lives: usize, epoch: u64) -> Result<Site, Failure> {
        let store = Arc::new(Mortal {
            refuses: AtomicBool::new(self.refuses),
            ..Mortal::new(&self.memory, lives)
        });
        self.open_over(store, volumes, epoch).await
    }

    async fn open_over(&self, store: Arc<Mortal>, volumes: Vec<Volume>, epoch: u64) -> Result<Site, Failure> {
        self.arrive_over(store, volumes, epoch, Arrival::Alone).await
    }

    /// Where somebody else may still write.
    async fn open_beside(&self, epoch: u64) -> Site {
        let store = Arc::new(Mortal::new(&self.memory, usize::MAX));
        let volumes = vec![self.only_volume()];
        self.arrive_over(store, volumes, epoch, Arrival::Beside).await.unwrap()
    }

    async fn arrive_over(
        &self,
        store: Arc<Mortal>,
        volumes: Vec<Volume>,
        epoch: u64,
        arrival: Arrival,
    ) -> Result<Site, Failure> {
        let scope = Scope {
            replication: None,
            given_up: Arc::default(),
            copies: Arc::default(),
            volumes,
            filters: self.filters.clone(),
            databases: Databases::Auto,
            turn: Arc::default(),
        };
        let (lease, scratch) = (Self::holder(epoch).into(), self.scratch.path().to_owned());
        Site::open(store, lease, Arc::new(scope), scratch, arrival)
            .await
            .map(|(site, _)| site)
    }

    async fn backup(&mut self, site: &mut Site, kind: Kind) -> Result<Report, Failure> {
        let everything = Changes {
            everything: true,
            ..Changes::default()
        };
        self.backup_of(site, kind, everything).await
    }

    async fn backup_of(&mut self, site: &mut Site, kind: Kind, changes: Changes) -> Result<Report, Failure> {
        let mut order = self.order.clone();
        order.kind = kind;
        order.look.changes = changes;
        let tree = self.tree();
        let result = site.backup(order).await;
        // Whatever came of it: if its index is there, it was published.
        for id in self.snapshots() {
            self.published.entry(id).or_insert_with(|| tree.clone());
        }
        result
    }

    fn ids(&self, wanted: impl Fn(SnapshotObject) -> Option<SnapshotId>) -> Vec<SnapshotId> {
        let objects = self.memory.objects();
        let names = objects.keys().filter_map(|key| key.strip_prefix("snapshots/"));
        names.map(keys::of_snapshot).filter_map(wanted).collect()
    }

    fn snapshots(&self) -> Vec<SnapshotId> {
        self.ids(|object| match object {
            SnapshotObject::Index(id) => Some(id),
            _ => None,
        })
    }

    fn pending(&self) -> Vec<SnapshotId> {
        self.ids(|object| match object {
            SnapshotObject::Pending(id) => Some(id),
            _ => None,
        })
    }

    fn entries(&self, id: &SnapshotId) -> Vec<Entry> {
        let objects = self.memory.objects();
        let read = |id: &SnapshotId| IndexReader::new(objects.get(&keys::snapshot(id)).unwrap().as_slice()).unwrap();
        let index = read(id);
        match index.header().base {
            None => index.map(Result::unwrap).collect(),
            Some(base) => merged(read(&base), index).map(Result::unwrap).collect(),
        }
    }

    /// What a restore of the snapshot would bring, each file verified.
    fn restored(&self, id: &SnapshotId) -> BTreeMap<String, Vec<u8>> {
        let objects = self.memory.objects().clone();
        let mut files = BTreeMap::new();
        for entry in self.entries(id) {
            let What::File(file) = &entry.what else { continue };
            let (folder, _) = entry.place();
            let name = format!("{}/{}", String::from_utf8_lossy(folder), entry.stored_name().unwrap());
            let kept = objects.iter().filter_map(|(key, content)| {
                let (by, file) = keys::of_history(key.strip_prefix("history/")?)?;
                (file == name && by > *id).then_some((by, content))
            });
            let in_history = kept.min_by_key(|(by, _)| *by).map(|(_, content)| content);
            let content = in_history
                .or_else(|| objects.get(&name))
                .unwrap_or_else(|| panic!("{name} of {id} is nowhere in {:?}", objects.keys().collect::<Vec<_>>()));
            assert_eq!(keys::sha256_hex(content), keys::hex(&file.sha256), "{name} of {id}");
            files.insert(String::from_utf8_lossy(&entry.path).into_owned(), content.clone());
        }
        files
    }

    fn check(&self, when: &str) {
        self.check_before(u64::MAX, when);
    }

    /// Every snapshot of the epochs before this one.
    fn check_before(&self, epoch: u64, when: &str) {
        for (id, tree) in self.published.iter().filter(|(id, _)| id.epoch < epoch) {
            assert_eq!(&self.restored(id), tree, "{id} {when}");
        }
    }

    fn mirror(&self) -> BTreeMap<String, Vec<u8>> {
        let objects = self.memory.objects();
        objects
            .iter()
            .filter(|(key, _)| key.starts_with("config/"))
            .map(|(key, content)| (key.clone(), content.clone()))
            .collect()
    }
}

/// What an app does between two backups.
fn act(bench: &Bench, round: usize) {
    match round {
        0 => {
            for name in ["a", "b", "c", "d/e", "d/f", " odd"] {
                bench.write(name, &format!("{name} at first"));
            }
        }
        1 => {
            bench.write("a", "a again");
            bench.write("d/e", "e again");
            bench.write("new", "new");
            bench.remove("b");
            bench.remove(" odd");
        }
        _ => {
            bench.write("b", "b is back");
            bench.write("a", "a for the third time");
            bench.remove("d/f");
            bench.remove("new");
            bench.write("new/now", "a folder");
        }
    }
}

#[tokio::test]
async fn a_death_at_any_call_loses_no_snapshot_and_the_next_start_brings_all_in_order() {
    'lives: for lives in 0.. {
        let mut bench = Bench::new();
        let mut alive = bench.open(lives, 1).await.ok();
        for round in 0..3 {
            act(&bench, round);
            let Some(site) = &mut alive else { break };
            if bench.backup(site, Kind::Auto).await.is_err() {
                break;
            }
            if round == 2 {
                assert!(lives > 20, "only {lives} deaths were tried");
                break 'lives;
            }
        }
        bench.check("after the death");
        // The next one may die as well, at its first calls or its later ones.
        for again in [lives % 7, lives % 13, usize::MAX] {
            bench.claim(2);
            let Ok(mut site) = bench.open(again, 2).await else {
                bench.check("after a death at the opening");
                continue;
            };
            bench.check("after the opening");
            let result = bench.backup(&mut site, Kind::Auto).await;
            bench.check("after the next backup");
            if again == usize::MAX {
                result.unwrap();
            }
        }
        assert_eq!(bench.pending(), []);
        assert_eq!(bench.mirror(), bench.mirrored_tree(), "after {lives} calls");
    }
}

impl Bench {
    /// The volume as its mirror has to be.
    fn mirrored_tree(&self) -> BTreeMap<String, Vec<u8>> {
        self.tree()
            .into_iter()
            .map(|(name, content)| {
                let path = name.strip_prefix("config/").unwrap();
                (
                    format!("config/{}", keys::stored_name(path.as_bytes()).as_str()),
                    content,
                )
            })
            .collect()
    }
}

/// A generator of the same numbers each time: <https://en.wikipedia.org/wiki/Linear_congruential_generator>.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % count
    }
}

/// What an app does, one thing at a time; the path that it did it to.
fn act_at_random(bench: &Bench, dice: &mut Dice, step: usize) -> Vec<u8> {
    let names = ["a", "b", "c", "d/e", "d/f", " odd", "g", "h"];
    let name = names[dice.below(names.len())];
    if bench.volume.path().join(name).exists() && dice.below(3) == 0 {
        bench.remove(name);
    } else {
        bench.write(name, &format!("{name} at step {step}"));
    }
    format!("config/{name}").into_bytes()
}

/// As a sidecar lives: backups of what changed and of everything, in any order, on a store that goes away at any call and
/// comes back, settled after each failure; now and then a sidecar that begins anew.
#[tokio::test]
async fn whenever_the_store_goes_away_no_snapshot_is_lost_and_in_the_end_all_is_saved() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let mut bench = Bench::new();
        let mut site = bench.open(usize::MAX, 1).await.unwrap();
        let mut changes = Changes::default();
        for step in 0..12 {
            for _ in 0..dice.below(4) {
                changes.add(act_at_random(&bench, &mut dice, step), false);
            }
            let lives = if dice.below(2) == 0 { dice.below(12) } else { usize::MAX };
            site.store = Arc::new(Mortal {
                unheard: dice.below(2) == 0,
                ..Mortal::new(&bench.memory, lives)
            });
            if site.unfinished && site.settle(false).await.is_err() {
                continue;
            }
            let everything = dice.below(4) == 0;
            let order = Changes {
                everything,
                ..changes.clone()
            };
            if bench.backup_of(&mut site, Kind::Auto, order).await.is_ok() {
                changes = Changes::default();
            }
            bench.check(&format!("after step {step} of {seed}"));
            if dice.below(6) == 0
                && let Ok(another) = bench.open(usize::MAX, 1).await
            {
                site = another;
            }
        }
        site.store = Arc::new(Mortal::new(&bench.memory, usize::MAX));
        site.settle(false).await.unwrap();
        bench.backup(&mut site, Kind::Final).await.unwrap();
        bench.check(&format!("in the end of {seed}"));
        assert_eq!(bench.pending(), [], "{seed}");
        assert_eq!(bench.mirror(), bench.mirrored_tree(), "{seed}");
    }
}

#[tokio::test]
async fn what_a_failed_attempt_uploaded_is_not_uploaded_again() {
    let mut bench = Bench::new();
    for number in 0..50 {
        bench.write(&format!("file-{number}"), &format!("content {number}"));
    }
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    // Claims, the mark, and then half of the upload.
    site.store = Arc::new(Mortal::new(&bench.memory, 2));
    bench.backup(&mut site, Kind::Auto).await.unwrap_err();
    assert!(site.unfinished);
    let halfway = bench.mirror().len();
    assert!(halfway > 10, "{halfway}");
    // Meanwhile one of them was replaced by something else.
    let other = b"of another size".to_vec();
    let (replaced, _) = bench.mirror().pop_first().unwrap();
    bench.memory.objects().insert(replaced.clone(), other.clone());
    let store = Arc::new(Mortal::new(&bench.memory, usize::MAX));
    site.store = store.clone();
    site.settle(true).await.unwrap();
    let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
    let index_and_twin = 2;
    assert_eq!(
        store.uploaded.load(Ordering::Relaxed),
        50 - halfway + 1 + index_and_twin
    );
    bench.check("after all");
    assert_eq!(bench.mirror(), bench.tree());
    let kept = format!("{}/{replaced}", keys::history_of(&report.snapshot.unwrap()));
    assert_eq!(bench.memory.objects().get(&kept), Some(&other));
}

#[tokio::test(start_paused = true)]
async fn an_upload_goes_on_after_a_stumble_as_long_as_it_gets_something_done() {
    let mut bench = Bench::new();
    for number in 0..50 {
        bench.write(&format!("file-{number}"), &format!("content {number}"));
    }
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    let store = Arc::new(Mortal {
        stumbles: true,
        ..Mortal::new(&bench.memory, usize::MAX)
    });
    site.store = store.clone();
    let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
    let index_and_twin = 2;
    assert_eq!(report.uploaded, 50);
    assert_eq!(
        store.uploaded.load(Ordering::Relaxed),
        50 + index_and_twin,
        "nothing twice"
    );
    assert_eq!(bench.mirror(), bench.tree());
    bench.check("after all");
    // One that takes nothing any more is not asked for ever.
    bench.write("file-1", "new");
    site.store = Arc::new(Mortal::new(&bench.memory, 3));
    bench.backup(&mut site, Kind::Auto).await.unwrap_err();
}

#[tokio::test]
async fn a_change_that_hides_behind_its_old_time_and_size_is_seen() {
    let mut bench = Bench::new();
    bench.write("a", "one");
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    // As after a restart: all that is known comes from the index.
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    assert_eq!(bench.backup(&mut site, Kind::Auto).await.unwrap().snapshot, None);
    let path = bench.volume.path().join("a");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "two").unwrap();
    fs::File::open(&path).unwrap().set_modified(modified).unwrap();
    let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!(report.uploaded, 1);
    bench.check("after all");
}

#[tokio::test]
async fn a_file_that_was_only_touched_is_not_uploaded_again() {
    let mut bench = Bench::new();
    bench.write("a", "one");
    let mut site = bench.open(usize::MAX, 1).await.unwrap();
    bench.backup(&mut site, Kind::Auto).await.unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    fs::File::open(bench.volume.path().join("a"))
        .unwrap()
        .set_modified(later)
        .unwrap();
    let report = bench.backup(&mut site, Kind::Auto).await.unwrap();
    assert_eq!(report.uploaded, 0);
    let id = report.snapshot.unwrap();
    let entries = bench.entries(&id);
    let What::File(file) = &entries.iter().find(|entry| entry.path == b"config/a").unwrap().what else {
        panic!("a file is a file");
    };
    let nanoseconds = later.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    assert_eq!(
        i128::from(file.attributes.modified),
        i128::try_from(nanoseconds).unwrap()
    );
    assert_eq!(bench.backup(&mut site, Kind::Auto).await.unwrap().snapshot, None);
    bench.check("after all");
}
