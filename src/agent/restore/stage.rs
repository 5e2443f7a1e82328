//! A plan → its files, verified, in the folder `incoming` of the volume. Nothing else of the volume is touched, so that
//! a kill here costs nothing, and the next start goes on with what is there.

use super::plan::{Content, Plan, Planned};
use super::verify::{Expected, Verifier, is_as_planned};
use super::way::is_way;
use crate::agent::volume;
use crate::agent::volume::marker::Mode;
use crate::store::{Error as StoreError, Store, Undone, keys};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A file that does not verify is fetched again so often.
const ROUNDS: usize = 3;
/// A line of progress is written so often.
const PROGRESS: Duration = Duration::from_secs(5);
/// rclone keeps a folder in memory while it lists it: one with more files of the plan is asked for file by file.
const LARGEST_LISTED: usize = 20_000;
/// What is said of a file that came, and is not the one of the index.
const DIFFERS: &str = "size or SHA-256 differs";

/// Why a plan could not be staged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The volume refused.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// The store answers, and does not have what the index says.
    #[error("{destination} does not hold what its index says: {}", wrong.join("; "))]
    Wrong {
        /// Which destination.
        destination: String,
        /// Up to five files, and what is wrong with each; then how many more.
        wrong: Vec<String>,
    },
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
pub struct Watch<'a> {
    /// How often.
    pub every: Duration,
    /// Whom.
    pub tell: &'a (dyn Fn(u64, u64) + Sync),
}

/// Fetches what the volume lacks of a plan into `incoming`, until each file is what the index says.
pub async fn stage(store: &dyn Store, plan: &Plan, volume: &Path, incoming: &Path, mode: Mode) -> Result<(), Error> {
    let (all_files, all_bytes) = plan.totals();
    let watch = Watch {
        every: PROGRESS,
        tell: &|files, bytes| {
            tracing::info!("restoring: {files} of {all_files} files, {bytes} of {all_bytes} bytes");
        },
    };
    let undone = stage_what_can_be(store, plan, volume, incoming, mode, &watch).await?;
    if undone.is_empty() {
        return Ok(());
    }
    let mut wrong: Vec<String> = undone
        .iter()
        .take(5)
        .map(|Undone { name, why }| format!("{name} ({why})"))
        .collect();
    if undone.len() > wrong.len() {
        wrong.push(format!("and {} more", undone.len() - wrong.len()));
    }
    Err(Error::Wrong {
        destination: store.destination(),
        wrong,
    })
}

/// The same, but what can't be had stops nothing: it is returned, by key.
pub async fn stage_what_can_be(
    store: &dyn Store,
    plan: &Plan,
    volume: &Path,
    incoming: &Path,
    mode: Mode,
    watch: &Watch<'_>,
) -> Result<Vec<Undone>, Error> {
    clear_strangers(plan, incoming)?;
    let progress = Arc::new(Progress::default());
    let mut wanted = wanted(plan, volume, incoming, mode, &progress)?;
    let mut why: HashMap<String, String> = HashMap::new();
    for _ in 0..ROUNDS {
        if wanted.is_empty() {
            break;
        }
        let (right, undone) = fetch(store, plan, &wanted, incoming, watch, &progress).await?;
        why = undone;
        wanted.retain(|key, _| !right.contains(key));
    }
    let mut undone: Vec<Undone> = wanted
        .into_keys()
        .map(|name| Undone {
            why: why.remove(&name).unwrap_or_else(|| DIFFERS.to_owned()),
            name,
        })
        .collect();
    undone.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(undone)
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
            Planned::Folder(_) | Planned::Link(..) => None,
        })
        .collect();
    let mut folders = vec![incoming.to_owned()];
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
                folders.push(path);
            } else if !expected.contains(below) {
                fs::remove_file(&path).map_err(|source| volume::Error::of("removing", &path, source))?;
            }
        }
    }
    Ok(())
}
