//! A plan → its files, verified, in the folder `incoming` of the volume. Nothing else of the volume is touched, so that
//! a kill here costs nothing, and the next start goes on with what is there.

use super::plan::{Content, Item, Plan, Planned};
use super::verify::{Expected, Verifier, is_as_planned};
use super::way::is_way;
use crate::agent::volume;
use crate::agent::volume::marker::Mode;
use crate::store::{Depth, Error as StoreError, Object, Store, keys, listed};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A file that does not verify is fetched again so often.
const ROUNDS: usize = 3;
/// rclone keeps a folder in memory while it lists it: one with more files of the plan is asked for file by file.
const LARGEST_LISTED: usize = 20_000;
/// What is said of a file that came, and is not the one of the index.
const DIFFERS: &str = "size or SHA-256 differs";

/// Folders up to so many are listed one by one.
const LISTED_ALONE: usize = 20;

/// Why a plan could not be staged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The volume refused.
    #[error(transparent)]
    Volume(#[from] volume::Error),
}

impl Error {
    /// Whether it failed because the volume is full.
    #[must_use]
    pub fn lacks_room(&self) -> bool {
        let source = match self {
            Self::Store(StoreError::Local { source, .. }) | Self::Volume(volume::Error::Io { source, .. }) => source,
            Self::Store(_) | Self::Volume(_) => return false,
        };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// A file of which the store answered that it has not got it, or not as its index says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub kind: Kind,
    /// The same in words.
    pub why: String,
}

/// What is wrong with a stored file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is not there.
    Absent,
    /// It is another than its index says.
    Differs,
    /// It is listed, with its size, and can't be read, time and again, though others can.
    Unreadable,
}

/// How much of the plan is there.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    fn add(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Files and bytes.
    #[must_use]
    pub fn now(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Told every so often how much is there, in files and bytes.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// How often.
    pub every: Duration,
    /// Whom.
    pub tell: &'a (dyn Fn(u64, u64) + Sync),
}

impl Watch<'_> {
    /// Nobody is told.
    #[must_use]
    pub const fn nobody() -> Self {
        Self {
            every: Duration::from_secs(3600),
            tell: &|_, _| {},
        }
    }
}

/// A line of progress in the log is written so often.
pub const PROGRESS: Duration = Duration::from_secs(5);

/// How the files of a plan are fetched.
#[derive(Clone, Copy)]
pub struct Fetch<'a> {
    /// From here.
    pub store: &'a dyn Store,
    /// The volume that the plan is for: what is in its place there is not fetched.
    pub volume: &'a Path,
    /// Where they are staged.
    pub incoming: &'a Path,
    /// What happens to files that are there.
    pub mode: Mode,
    /// Who is told.
    pub watch: Watch<'a>,
    /// The place has snapshots: a store that lists none any more, as one whose disk is not mounted, has not answered.
    pub has_snapshots: bool,
}

impl Fetch<'_> {
    /// Fetches what the volume lacks of a plan into `incoming`, where nothing else stays, until each file is what the index
    /// says. What the store answers that it lacks stops nothing: it is returned.
    pub async fn stage(&self, plan: &Plan) -> Result<Vec<Lacking>, Error> {
        self.clear(plan)?;
        self.fetch(plan).await
    }

    /// Removes from `incoming` what is not of the plan.
    pub(super) fn clear(&self, plan: &Plan) -> Result<(), Error> {
        clear_strangers(plan, self.incoming)
    }

    /// The keys of the files that are neither in their place nor staged.
    pub(super) fn missing(&self, plan: &Plan) -> Result<HashSet<String>, Error> {
        let wanted = wanted(plan, self.volume, self.incoming, self.mode, &Progress::default())?;
        Ok(wanted.into_keys().collect())
    }

    /// The same, beside what is staged.
    pub async fn fetch(&self, plan: &Plan) -> Result<Vec<Lacking>, Error> {
        let progress = Arc::new(Progress::default());
        let mut wanted = wanted(plan, self.volume, self.incoming, self.mode, &progress)?;
        let mut why: HashMap<String, String> = HashMap::new();
        for _ in 0..ROUNDS {
            if wanted.is_empty() {
                break;
            }
            let (right, undone) = fetch(self.store, plan, &wanted, self.incoming, &self.watch, &progress).await?;
            why = undone;
            wanted.retain(|key, _| !right.contains(key));
        }
        let (mut lacking, mut silent) = (Vec::new(), Vec::new());
        for content in wanted.into_values() {
            match why.remove(&content.key) {
                Some(why) if why == DIFFERS => lacking.push(Lacking {
                    key: content.key,
                    kind: Kind::Differs,
                    why,
                }),
                why => silent.push((content, why.unwrap_or_default())),
            }
        }
        lacking.extend(self.confirmed(silent).await?);
        lacking.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(lacking)
    }

    /// Asks the store about files that did not come: whether it is the one that lacks them. What failed here is an error.
    async fn confirmed(&self, undone: Vec<(Content, String)>) -> Result<Vec<Lacking>, Error> {
        if undone.is_empty() {
            return Ok(Vec::new());
        }
        let sizes = self
            .sizes(undone.iter().map(|(content, _)| content.key.as_str()))
            .await?;
        if self.has_snapshots && listed(self.store, keys::SNAPSHOTS, Depth::One).await?.is_empty() {
            let why = "it had snapshots a moment ago, and lists none any more".to_owned();
            let destination = self.store.destination();
            return Err(StoreError::Unreachable { destination, why }.into());
        }
        let mut lacking = Vec::new();
        for (Content { key, size, .. }, said) in undone {
            let (kind, why) = match sizes.get(&key) {
                None => (Kind::Absent, "it is not there".to_owned()),
                Some(found) if *found != size => (Kind::Differs, format!("it has {found} bytes instead of {size}")),
                Some(_) => {
                    self.check_room()?;
                    (Kind::Unreadable, format!("it can't be read: {said}"))
                }
            };
            lacking.push(Lacking { key, kind, why });
        }
        Ok(lacking)
    }

    /// The sizes of what is listed in the folders of these keys.
    async fn sizes(&self, keys: impl Iterator<Item = &str>) -> Result<HashMap<String, u64>, StoreError> {
        let folders: BTreeSet<&str> = keys
            .map(|key| key.rsplit_once('/').map_or("", |(folder, _)| folder))
            .collect();
        let (folders, depth) = if folders.len() <= LISTED_ALONE {
            (folders, Depth::One)
        } else {
            let top = |folder: &str| folder.find('/').unwrap_or(folder.len());
            (
                folders.iter().map(|folder| &folder[..top(folder)]).collect(),
                Depth::All,
            )
        };
        let mut sizes = HashMap::new();
        for folder in folders {
            let mut each = |object: Object| {
                if !object.folder {
                    sizes.insert(keys::joined(folder, &object.name), object.size);
                }
            };
            self.store.list(folder, depth, &mut each).await?;
        }
        Ok(sizes)
    }

    /// That files can be written here.
    fn check_room(&self) -> Result<(), volume::Error> {
        let probe = self.incoming.join(".probe");
        let tried = fs::create_dir_all(self.incoming)
            .and_then(|()| fs::write(&probe, b"probe"))
            .and_then(|()| fs::remove_file(&probe));
        tried.map_err(|source| volume::Error::of("writing", &probe, source))
    }

    /// Copies what is staged, or in its place, to where the same content is to be staged under another key. Whether it was
    /// there.
    pub fn copy(&self, from: &Item, to: &Content) -> Result<bool, Error> {
        let Planned::File(content, _) = &from.what else {
            return Ok(false);
        };
        let target = self.incoming.join(&to.key);
        for source in [self.incoming.join(&content.key), self.volume.join(&from.path)] {
            if there(&source, to)? {
                let copied = target
                    .parent()
                    .map_or(Ok(()), fs::create_dir_all)
                    .and_then(|()| fs::copy(&source, &target));
                copied.map_err(|source| volume::Error::of("writing", &target, source))?;
                return there(&target, to);
            }
        }
        Ok(false)
    }
}

/// The files that are neither in their place nor staged.
fn wanted(
    plan: &Plan,
    volume: &Path,
    incoming: &Path,
    mode: Mode,
    progress: &Progress,
) -> Result<HashMap<String, Content>, Error> {
    let mut wanted = HashMap::new();
    let (mut place, mut stage) = (Above::default(), Above::default());
    for item in &plan.items {
        let Planned::File(content, _) = &item.what else {
            continue;
        };
        let way = place.look(volume, &item.path);
        let target = volume.join(&item.path);
        // What is there stays, and so does what bars the way.
        let is_taken = || way == Way::Barred || way == Way::Folders && fs::symlink_metadata(&target).is_ok();
        let stays = mode == Mode::Missing && is_taken();
        let is_staged = stage.look(incoming, Path::new(&content.key)) == Way::Folders;
        if stays
            || is_staged && there(&incoming.join(&content.key), content)?
            || way == Way::Folders && there(&target, content)?
        {
            progress.add(content.size);
        } else {
            wanted.insert(content.key.clone(), content.clone());
        }
    }
    Ok(wanted)
}

/// What leads from a folder to what lies in another below it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Folders alone.
    Folders,
    /// Folders as far as there is anything: so the last one is not there.
    Nothing,
    /// Something else.
    Barred,
}

/// The folder that was looked at last: what follows in a plan is in it, mostly.
#[derive(Default)]
struct Above {
    folder: Option<(PathBuf, Way)>,
}

impl Above {
    fn look(&mut self, root: &Path, path: &Path) -> Way {
        let folder = path.parent().unwrap_or(path);
        if let Some((last, way)) = &self.folder
            && last == folder
        {
            return *way;
        }
        let way = if !is_way(root, path) {
            Way::Barred
        } else if fs::symlink_metadata(root.join(folder)).is_ok() {
            Way::Folders
        } else {
            Way::Nothing
        };
        self.folder = Some((folder.to_owned(), way));
        way
    }
}

/// Whether a file is there as planned. A link in its place is not followed.
fn there(path: &Path, content: &Content) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.len() == content.size => {
            is_as_planned(path, content).map_err(|source| volume::Error::of("reading", path, source).into())
        }
        _ => Ok(false),
    }
}

/// One run over what is wanted: the keys that verified, and what was said about others.
async fn fetch(
    store: &dyn Store,
    plan: &Plan,
    wanted: &HashMap<String, Content>,
    incoming: &Path,
    watch: &Watch<'_>,
    progress: &Arc<Progress>,
) -> Result<(HashSet<String>, HashMap<String, String>), Error> {
    let expected: Expected = Arc::new(wanted.clone());
    let counted = progress.clone();
    let right: Arc<dyn Fn(u64) + Send + Sync> = Arc::new(move |bytes| counted.add(bytes));
    let verifier = Verifier::start(incoming, &expected, &right);
    let arrivals = verifier.arrivals();
    let mut keys: Vec<String> = wanted.keys().cloned().collect();
    keys.sort_unstable();
    let arrived = move |key: &str| {
        // The threads are there as long as this is.
        let _ = arrivals.send(key.to_owned());
    };
    let fetched = {
        let download = if most_of_their_folders(plan, wanted) {
            store.download_most("", &keys, incoming, &arrived)
        } else {
            store.download("", &keys, incoming, &arrived)
        };
        watched(download, watch, progress).await
    };
    drop(arrived);
    let verdicts = tokio::task::spawn_blocking(move || verifier.finish())
        .await
        .map_err(|error| volume::Error::of("reading", incoming, io::Error::other(error)))?;
    let mut right = HashSet::new();
    let mut why = HashMap::new();
    for verdict in verdicts {
        match verdict.right {
            Ok(true) => {
                right.insert(verdict.key);
            }
            Ok(false) => {
                why.insert(verdict.key, DIFFERS.to_owned());
            }
            Err(error) => {
                why.insert(verdict.key, error.to_string());
            }
        }
    }
    for undone in fetched? {
        why.insert(undone.name, undone.why);
    }
    Ok((right, why))
}

/// Whether listing the folders of what is wanted takes fewer requests, and not much more memory, than asking for each file.
fn most_of_their_folders(plan: &Plan, wanted: &HashMap<String, Content>) -> bool {
    let mut folders: HashMap<&str, usize> = HashMap::new();
    for key in wanted.keys() {
        let mut folder = key.as_str();
        while let Some((above, _)) = folder.rsplit_once('/')
            && folders.insert(above, 0).is_none()
        {
            folder = above;
        }
    }
    for item in &plan.items {
        if let Planned::File(content, _) = &item.what
            && let Some((folder, _)) = content.key.rsplit_once('/')
            && let Some(files) = folders.get_mut(folder)
        {
            *files += 1;
        }
    }
    let listed: usize = folders.values().sum();
    folders.len() * 2 <= wanted.len()
        && listed <= wanted.len() * 2
        && folders.values().all(|files| *files <= LARGEST_LISTED)
}

/// Awaits a download, and tells of its progress.
async fn watched<T>(download: impl Future<Output = T>, watch: &Watch<'_>, progress: &Progress) -> T {
    tokio::pin!(download);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + watch.every, watch.every);
    loop {
        tokio::select! {
            result = &mut download => return result,
            _ = ticks.tick() => {
                let (files, bytes) = progress.now();
                (watch.tell)(files, bytes);
            }
        }
    }
}

/// Removes what an earlier plan staged and this one does not want, which could stand in its way.
fn clear_strangers(plan: &Plan, incoming: &Path) -> Result<(), Error> {
    let expected: HashSet<&Path> = plan
        .items
        .iter()
        .filter_map(|item| match &item.what {
            Planned::File(content, _) => Some(Path::new(content.key.as_str())),
            Planned::Folder(_) | Planned::Link(..) | Planned::Missing => None,
        })
        .collect();
    let mut folders = vec![incoming.to_owned()];
    let mut below_first = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(volume::Error::of("reading", &folder, source).into()),
        };
        for entry in entries {
            let entry = entry.map_err(|source| volume::Error::of("reading", &folder, source))?;
            let path = entry.path();
            let below = path.strip_prefix(incoming).unwrap_or(&path);
            if below == Path::new(keys::SNAPSHOTS) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                below_first.push(path.clone());
                folders.push(path);
            } else if !expected.contains(below) {
                fs::remove_file(&path).map_err(|source| volume::Error::of("removing", &path, source))?;
            }
        }
    }
    for folder in below_first.iter().rev() {
        // One that has something in it stays.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}
