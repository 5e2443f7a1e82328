//! Databases that are missing or damaged, or of which there is a newer copy than the one that was restored → the newest copy,
//! from wherever it is: after the files are in their places and before the volume is marked, so killed anywhere, the next
//! start does it again. At tier 3; at tier 2 only what a snapshot has known as replicated.

mod copies;
mod followed;

use super::act::Outcome;
use super::decision::Decision;
use super::pause::Pause;
use super::subject::Subject;
use super::survey::Survey;
use super::{Error, Init};
use crate::agent::arguments::{Databases, RestoreAt, Tier};
use crate::agent::litestream::check::{self, Health};
use crate::agent::litestream::lineage::{Run, Saved};
use crate::agent::litestream::local;
use crate::agent::litestream::ltx::Txid;
use crate::agent::litestream::registry::{ON_VOLUME, Registered, Registry};
use crate::agent::litestream::restore::{self, Restore, Wanted, on_volume};
use crate::agent::litestream::target::Target;
use crate::agent::sidecar::batch::with_sources;
use crate::agent::start::Status;
use crate::store::Error as StoreError;
use crate::store::index::DatabasePosition;
use crate::store::snapshot::SnapshotId;
use copies::{Place, Snapshot, newest_file};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A volume that was kept waits so long for the registry, and goes by its own copy then.
const GLANCE: Duration = Duration::from_secs(5);

/// Whether the primary destination can have replicas: asked before anything else is done.
pub(super) fn target(init: &Init<'_>) -> Result<Option<Target>, Error> {
    let protection = &init.arguments.protection;
    match protection.destinations.first() {
        Some(primary) if init.arguments.tier == Tier::Tier3 && protection.databases != Databases::None => {
            Ok(Some(Target::of(primary, &init.arguments.folders.rclone_dir)?))
        }
        _ => Ok(None),
    }
}

/// A database that a volume should have.
struct Expected {
    database: Registered,
    wanted: Wanted,
    /// What is there was restored by this start: it gives way to what is newer.
    brought: bool,
    /// A start without it is wrong, though nothing of it is on the volume.
    required: bool,
    /// The newest copy of it that is a file.
    file: Option<(Place, Saved)>,
    /// A replica of it is known.
    is_replicated: bool,
}

impl Expected {
    fn new(database: Registered) -> Self {
        Self {
            required: database.replicated,
            database,
            wanted: Wanted::Newest,
            brought: false,
            file: None,
            is_replicated: true,
        }
    }

    fn runs(&self) -> &[Run] {
        &self.database.runs
    }

    /// The transaction of its file, as its replica counts.
    fn counted(&self) -> Option<Txid> {
        self.file.map(|(_, saved)| saved.counted(self.runs()))
    }
}

/// Restores what is missing or damaged, and what there is a newer copy of. One line for each database that was restored.
pub(super) async fn restore(
    init: &Init<'_>,
    target: Option<&Target>,
    subjects: &[Subject],
    outcomes: &[Outcome],
    survey: &Survey,
) -> Result<Vec<String>, Error> {
    let mut told = Vec::new();
    for ((subject, outcome), decided) in subjects.iter().zip(outcomes).zip(&survey.decided) {
        if outcome.status != Status::Settled {
            continue;
        }
        let mut snapshots = copies::of_restore(init, target, subject, outcome, survey).await?;
        let mut looked = outcome.brought.is_some();
        for mut expected in expected(init, target, subject, outcome, survey, &snapshots).await? {
            let Some(file) = on_volume(&subject.own, &expected.database) else {
                tracing::error!(
                    "the database {:?} of {} leads out of the volume: it is not restored",
                    expected.database.path,
                    subject.folder
                );
                continue;
            };
            if decided.decision == Decision::RestoreMissing && file.is_file() {
                // What somebody else laid there before us stays, as his files do.
                expected.brought = match snapshots.first() {
                    Some(restored) => restored.is_its(subject, &expected.database, &file).await,
                    None => false,
                };
            }
            let Some(found) = look(&file, &expected).await else {
                continue;
            };
            if outcome.brought.is_none() {
                if !std::mem::replace(&mut looked, true) {
                    snapshots = copies::of_places(init, subject).await;
                }
                expected.file = copies::held(&mut snapshots, subject, &expected.database.path).await;
            }
            let start = Start {
                init,
                target,
                subject,
                snapshots: &snapshots,
                is_primary_away: survey.is_primary_away(),
            };
            told.extend(start.one(&expected, &file, found).await?);
        }
    }
    Ok(told)
}

/// What is wrong with a database; nothing where it stays as it is.
async fn look(file: &Path, expected: &Expected) -> Option<String> {
    let exists = std::fs::metadata(file).is_ok_and(|found| found.is_file());
    if expected.brought || !exists {
        return Some("missing".to_owned());
    }
    let path = file.to_owned();
    match tokio::task::spawn_blocking(move || check::quick(&path)).await {
        Ok(Health::Damaged(what)) => Some(format!("damaged ({what})")),
        _ => None,
    }
}

/// The databases that a volume should have, and from which point.
async fn expected(
    init: &Init<'_>,
    target: Option<&Target>,
    subject: &Subject,
    outcome: &Outcome,
    survey: &Survey,
    snapshots: &[Snapshot<'_>],
) -> Result<Vec<Expected>, Error> {
    let folder = &subject.folder;
    let here: Vec<&DatabasePosition> = positions(snapshots.first(), folder).collect();
    if target.is_none() && here.is_empty() {
        // A tier that has no replicas of its own, and no snapshot of one that had.
        return Ok(Vec::new());
    }
    let is_new = !outcome.kept;
    let registry = if is_new && survey.is_primary_away() && !snapshots.is_empty() {
        // What was restored is the newest that can be read, and so are its databases.
        tracing::warn!("which databases have a replica can't be asked: the newest copies that can be read are used");
        Registry::default()
    } else {
        registry(init, subject, is_new).await?
    };
    let registry = registry.of(folder);
    let known = |path: &str| {
        let known = registry.get(folder, path).cloned();
        known.unwrap_or_else(|| unknown(folder, path, subject.own.volume()))
    };
    if let Some(brought) = &outcome.brought {
        // An older version is not what the snapshot says of it.
        let is_older = |path: &str| brought.from_older.iter().any(|(older, _)| older == Path::new(path));
        let lies = |path: &str| {
            let is_on_volume = || on_volume(&subject.own, &known(path)).is_some_and(|file| file.is_file());
            brought.paths.iter().any(|brought| brought == Path::new(path)) && !is_older(path) && is_on_volume()
        };
        if let Some(serving) = &survey.at {
            let time = match serving.value.parse() {
                Ok(RestoreAt::Time(time)) => Some(time),
                _ => None,
            };
            let all = here.into_iter().map(|position| {
                let database = known(&position.path);
                let saved = Saved::of(position, &serving.snapshot).filter(|_| lies(&position.path));
                Expected {
                    wanted: time.map_or_else(|| at(position, &serving.snapshot, &database.runs), Wanted::Before),
                    brought: true,
                    required: true,
                    file: saved.map(|saved| (Place::Here, saved)),
                    ..Expected::new(database)
                }
            });
            return Ok(all.collect());
        }
        let now = Timestamp::now();
        let missed = registry.databases.iter().filter(|database| database.is_missed(now));
        let mut paths: BTreeMap<&str, bool> = missed.map(|database| (&*database.path, database.replicated)).collect();
        for snapshot in snapshots.iter().filter(|other| other.is_as_late_as(snapshots.first())) {
            let of_it = positions(Some(snapshot), folder);
            // What was gone for long before the volume was lost is not missed either.
            let of_it = of_it.filter(|one| registry.get(folder, &one.path).is_none_or(|known| known.is_missed(now)));
            paths.extend(of_it.map(|position| (&*position.path, true)));
        }
        let all = paths.into_iter().map(|(path, required)| Expected {
            brought: true,
            required,
            file: newest_file(snapshots, folder, path, lies(path)),
            is_replicated: registry.get(folder, path).is_some() || here.iter().any(|position| position.path == path),
            ..Expected::new(known(path))
        });
        return Ok(all.collect());
    }
    let now = Timestamp::now();
    let missed = registry.databases.iter().filter(|database| database.is_missed(now));
    let mut all: Vec<Expected> = missed.cloned().map(Expected::new).collect();
    // Named by the owner: looked at, whoever knows them.
    if let Databases::Paths(paths) = &init.arguments.protection.databases {
        for (path, _) in paths.iter().filter(|(path, _)| registry.get(folder, path).is_none()) {
            let database = known(path);
            if on_volume(&subject.own, &database)
                .is_some_and(|file| crate::agent::database::is_database(&file).unwrap_or(false))
            {
                all.push(Expected::new(database));
            }
        }
    }
    Ok(all)
}

/// What a snapshot says of the databases of a volume.
fn positions<'a>(snapshot: Option<&'a Snapshot<'_>>, folder: &str) -> impl Iterator<Item = &'a DatabasePosition> {
    let all = snapshot.map(|snapshot| snapshot.header.databases.iter());
    let folder = folder.to_owned();
    all.into_iter()
        .flatten()
        .filter(move |position| position.folder == folder)
}

/// The point of a snapshot, as the replica counts.
fn at(position: &DatabasePosition, snapshot: &SnapshotId, runs: &[Run]) -> Wanted {
    match Saved::position(position, snapshot) {
        Some(saved) => Wanted::At(saved.bounded(runs)),
        None => Wanted::Before(position.time),
    }
}

/// A database of which only the path is known: it gets the volume's owner.
fn unknown(folder: &str, path: &str, volume: &Path) -> Registered {
    let root = std::fs::metadata(volume);
    Registered {
        folder: folder.to_owned(),
        path: path.to_owned(),
        uid: root.as_ref().map_or(0, MetadataExt::uid),
        gid: root.as_ref().map_or(0, MetadataExt::gid),
        mode: 0o644,
        replicated: false,
        gone: None,
        needed_by: None,
        left_at: None,
        runs: Vec::new(),
        beginnings: Vec::new(),
    }
}

/// Which databases there are: as the store says, for a volume that was empty; a volume that was kept has a copy.
async fn registry(init: &Init<'_>, subject: &Subject, is_new: bool) -> Result<Registry, Error> {
    let Some(store) = init.stores.first() else {
        return Ok(Registry::default());
    };
    let copy: Registry = subject.own.read(ON_VOLUME).ok().flatten().unwrap_or_default();
    let owner = std::fs::metadata(subject.own.volume()).map_or((0, 0), |root| (root.uid(), root.gid()));
    let mut pause = Pause::first();
    loop {
        let read = Registry::read_or_listed(store.as_ref(), owner);
        let why = match tokio::time::timeout(GLANCE, read).await {
            // A store that was emptied does not make a database of ours a stranger.
            Ok(Ok(registry)) if registry.databases.is_empty() && !is_new => return Ok(copy),
            Ok(Ok(registry)) => return Ok(registry),
            Ok(Err(error)) if !error.retry_helps() && is_new => return Err(restore_failed(error)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("{} did not answer in time", store.destination()),
        };
        if !is_new {
            tracing::warn!("which databases have a replica can't be asked ({why}): the volume's own list is used");
            return Ok(copy);
        }
        if !pause.ends_before(init.deadline) {
            return Err(Error::StoreAway {
                waited: init.arguments.restore_timeout.to_string(),
                last: why,
            });
        }
        pause.rest(why).await;
    }
}

fn restore_failed(error: StoreError) -> Error {
    Error::Restore(error.into())
}

/// One volume's databases, and where their copies are.
struct Start<'a> {
    init: &'a Init<'a>,
    target: Option<&'a Target>,
    subject: &'a Subject,
    snapshots: &'a [Snapshot<'a>],
    is_primary_away: bool,
}

impl Start<'_> {
    /// Restores one database, and tries again while the store comes and goes.
    async fn one(&self, expected: &Expected, file: &Path, found: String) -> Result<Option<String>, Error> {
        let init = self.init;
        if let Some((place, _)) = expected.file
            && (!expected.is_replicated || self.is_primary_away || expected.counted() == Some(Txid::MAX))
        {
            return self.file(expected, file, place, found).await;
        }
        let Some(store) = init.stores.first() else {
            return Ok(None);
        };
        let own_target;
        let target = match (self.target, init.arguments.protection.destinations.first()) {
            (Some(target), _) => target,
            (None, Some(primary)) => match Target::of(primary, &init.arguments.folders.rclone_dir) {
                Ok(target) => {
                    own_target = target;
                    &own_target
                }
                Err(unsupported) => {
                    let exists = expected.brought && file.is_file();
                    let place = expected.file.map(|(place, _)| place);
                    let Some(place) = place.or_else(|| exists.then_some(Place::Here)) else {
                        return Err(unsupported.into());
                    };
                    tracing::warn!(
                        "whether {} has a newer replica can't be asked: {unsupported}",
                        file.display()
                    );
                    return self.file(expected, file, place, found).await;
                }
            },
            (None, None) => return Ok(None),
        };
        let folder: PathBuf = init.arguments.folders.restore_dir.join("litestream");
        let restore = Restore {
            store: store.as_ref(),
            target,
            database: &expected.database,
            own: &self.subject.own,
            folder: &folder,
            saved: expected.counted(),
        };
        tracing::info!("restoring the database {}: {found}", file.display());
        let mut pause = Pause::first();
        let error = loop {
            let left = init.deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, restore.bring(file, expected.wanted)).await {
                Ok(Ok(Some(restored))) => {
                    tracing::info!("restored {}", restored.told);
                    return Ok(Some(restored.told));
                }
                Ok(Ok(None)) => {
                    let place = expected.file.map_or(Place::Here, |(place, _)| place);
                    return self.file(expected, file, place, found).await;
                }
                Ok(Err(restore::Error::Store(error))) if error.retry_helps() && pause.ends_before(init.deadline) => {
                    pause.rest(error).await;
                }
                Ok(Err(error)) => break error,
                Err(_) => {
                    break restore::Error::Local {
                        what: format!("it took longer than {}", init.arguments.restore_timeout),
                        source: std::io::ErrorKind::TimedOut.into(),
                    };
                }
            }
        };
        let exists = std::fs::metadata(file).is_ok_and(|found| found.is_file());
        let nothing_there = matches!(error, restore::Error::NoReplica(_));
        if let Some((place @ Place::Elsewhere(_), _)) = expected.file {
            tracing::warn!("{}: {}", file.display(), with_sources(&error));
            return self.file(expected, file, place, found).await;
        }
        if nothing_there && !exists && !expected.required {
            // Found a moment before everything ended, and never sent.
            tracing::warn!("the database {} was never replicated: it begins anew", file.display());
            return Ok(None);
        }
        if expected.brought && exists && check::quick(file) == Health::Whole {
            tracing::warn!(
                "the database {} can't be restored from its replica ({}): what was saved of it as a file stays",
                file.display(),
                with_sources(&error)
            );
            return Ok(None);
        }
        Err(Error::Database {
            path: file.to_owned(),
            found,
            source: Box::new(error),
        })
    }

    /// The newest copy is a file.
    async fn file(
        &self,
        expected: &Expected,
        file: &Path,
        place: Place,
        found: String,
    ) -> Result<Option<String>, Error> {
        let Place::Elsewhere(number) = place else {
            return match local::forget(file) {
                Ok(()) if expected.is_replicated => Ok(Some(format!(
                    "{}: as the snapshot has it as a file, which is newer than its replica",
                    file.display()
                ))),
                Ok(()) => Ok(None),
                Err(source) => Err(Error::Database {
                    path: file.to_owned(),
                    found,
                    source: Box::new(restore::Error::Local {
                        what: "clearing Litestream's state beside it failed".to_owned(),
                        source,
                    }),
                }),
            };
        };
        let Some(snapshot) = self.snapshots.iter().find(|snapshot| snapshot.number == number) else {
            return Ok(None);
        };
        tracing::info!(
            "restoring the database {} from {}, {}",
            file.display(),
            snapshot.store.destination(),
            snapshot.id
        );
        match snapshot.bring(self.subject, &expected.database, file).await {
            Ok(told) => {
                tracing::info!("restored {told}");
                Ok(Some(told))
            }
            Err(source) => Err(Error::Database {
                path: file.to_owned(),
                found,
                source: Box::new(source),
            }),
        }
    }
}
