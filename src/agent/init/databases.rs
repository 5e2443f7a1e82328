//! Databases that are missing or damaged → restored from their replicas, after the files are in their places and before the
//! volume is marked: killed anywhere, the next start does it again. At tier 3; at tier 2 only what a snapshot of tier 3 has.

use super::act::Outcome;
use super::decision::Decision;
use super::pause::Pause;
use super::subject::Subject;
use super::survey::Survey;
use super::{Error, Init};
use crate::agent::arguments::{Databases, RestoreAt, Tier};
use crate::agent::litestream::check::{self, Health};
use crate::agent::litestream::ltx::Txid;
use crate::agent::litestream::registry::{ON_VOLUME, Registered, Registry};
use crate::agent::litestream::restore::{self, Restore, Wanted, on_volume};
use crate::agent::litestream::target::Target;
use crate::agent::restore::plan::Indexes;
use crate::agent::start::Status;
use crate::agent::volume::marker::INCOMING;
use crate::store::Error as StoreError;
use crate::store::index::DatabasePosition;
use jiff::Timestamp;
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
    /// It comes from the replica whatever is there: what is there is older.
    anyway: bool,
    /// A start without it is wrong, though nothing of it is on the volume.
    required: bool,
    /// It was saved as a file when this was its newest transaction, and that file was restored.
    saved: Option<Txid>,
}

/// Restores what is missing or damaged. One line for each database that was restored.
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
        for mut expected in expected(init, target, subject, outcome, survey).await? {
            // What somebody else laid there before us stays, as his files do.
            expected.anyway &= decided.decision != Decision::RestoreMissing;
            let Some(file) = on_volume(&subject.own, &expected.database) else {
                tracing::error!(
                    "the database {:?} of {} leads out of the volume: it is not restored",
                    expected.database.path,
                    subject.folder
                );
                continue;
            };
            let found = look(&file, &expected).await;
            if let Some(found) = found {
                told.extend(one(init, target, subject, &expected, &file, found).await?);
            }
        }
    }
    Ok(told)
}

/// What is wrong with a database; nothing where it stays as it is.
async fn look(file: &Path, expected: &Expected) -> Option<String> {
    let exists = std::fs::metadata(file).is_ok_and(|found| found.is_file());
    if expected.anyway || !exists {
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
) -> Result<Vec<Expected>, Error> {
    let recorded = recorded(init, subject, outcome, survey).await?;
    let folder = &subject.folder;
    if target.is_none() {
        // A tier that has no replicas of its own, after one that had.
        let databases = recorded.iter().filter(|position| position.folder == *folder);
        return Ok(databases
            .map(|position| Expected {
                database: unknown(folder, &position.path, subject.own.volume()),
                wanted: if survey.at.is_some() {
                    at(position)
                } else {
                    Wanted::Newest
                },
                anyway: false,
                required: true,
                saved: None,
            })
            .collect());
    }
    let registry = registry(init, subject, !outcome.kept).await?.of(folder);
    let now = Timestamp::now();
    let serving = survey.at.as_ref().filter(|_| outcome.brought.is_some());
    let mut all = Vec::new();
    if let Some(serving) = serving {
        let time = match serving.value.parse() {
            Ok(RestoreAt::Time(time)) => Some(time),
            _ => None,
        };
        for position in recorded.iter().filter(|position| position.folder == *folder) {
            let known = registry.get(folder, &position.path).cloned();
            all.push(Expected {
                database: known.unwrap_or_else(|| unknown(folder, &position.path, subject.own.volume())),
                wanted: time.map_or_else(|| at(position), Wanted::Before),
                anyway: true,
                required: true,
                saved: saved(position),
            });
        }
    } else {
        let brought = outcome.brought.is_some();
        for database in registry.databases.iter().filter(|database| database.is_missed(now)) {
            all.push(Expected {
                required: database.replicated,
                database: database.clone(),
                wanted: Wanted::Newest,
                anyway: brought,
                saved: recorded
                    .iter()
                    .find(|position| position.folder == database.folder && position.path == database.path)
                    .and_then(saved),
            });
        }
        // Named by the owner: looked at, whoever knows them.
        if let Databases::Paths(paths) = &init.arguments.protection.databases {
            for (path, _) in paths.iter().filter(|(path, _)| registry.get(folder, path).is_none()) {
                let database = unknown(folder, path, subject.own.volume());
                if on_volume(&subject.own, &database)
                    .is_some_and(|file| crate::agent::database::is_database(&file).unwrap_or(false))
                {
                    all.push(Expected {
                        database,
                        wanted: Wanted::Newest,
                        anyway: false,
                        required: false,
                        saved: None,
                    });
                }
            }
        }
    }
    Ok(all)
}

fn at(position: &DatabasePosition) -> Wanted {
    Txid::parse(&position.txid).map_or(Wanted::Before(position.time), Wanted::At)
}

/// The transaction that its file in the snapshot has.
fn saved(position: &DatabasePosition) -> Option<Txid> {
    Txid::parse(position.file.as_deref()?)
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
    }
}

/// Where the databases of the restored snapshot stood.
async fn recorded(
    init: &Init<'_>,
    subject: &Subject,
    outcome: &Outcome,
    survey: &Survey,
) -> Result<Vec<DatabasePosition>, Error> {
    let snapshot = outcome.brought.as_ref().and_then(|brought| brought.snapshot);
    let (Some(snapshot), Some((store, _))) = (snapshot, survey.source(init.stores)) else {
        return Ok(Vec::new());
    };
    let incoming = subject.own.join(INCOMING);
    let (header, _) = Indexes::new(store, &incoming)
        .totals(&snapshot)
        .await
        .map_err(crate::agent::restore::Error::from)?;
    Ok(header.databases)
}

/// Which databases there are: as the store says, for a volume that was empty; a volume that was kept has a copy.
async fn registry(init: &Init<'_>, subject: &Subject, is_new: bool) -> Result<Registry, Error> {
    let Some(store) = init.stores.first() else {
        return Ok(Registry::default());
    };
    let copy: Registry = subject.own.read(ON_VOLUME).ok().flatten().unwrap_or_default();
    let mut pause = Pause::first();
    loop {
        let why = match tokio::time::timeout(GLANCE, Registry::read(store.as_ref())).await {
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

/// Restores one database, and tries again while the store comes and goes.
async fn one(
    init: &Init<'_>,
    target: Option<&Target>,
    subject: &Subject,
    expected: &Expected,
    file: &Path,
    found: String,
) -> Result<Option<String>, Error> {
    let Some(store) = init.stores.first() else {
        return Ok(None);
    };
    let own_target;
    let target = match (target, init.arguments.protection.destinations.first()) {
        (Some(target), _) => target,
        (None, Some(primary)) => {
            own_target = Target::of(primary, &init.arguments.folders.rclone_dir)?;
            &own_target
        }
        (None, None) => return Ok(None),
    };
    let folder: PathBuf = init.arguments.folders.restore_dir.join("litestream");
    let restore = Restore {
        store: store.as_ref(),
        target,
        database: &expected.database,
        own: &subject.own,
        folder: &folder,
        saved: expected.saved.filter(|_| expected.anyway),
    };
    tracing::info!("restoring the database {}: {found}", file.display());
    let mut pause = Pause::first();
    let error = loop {
        let left = init.deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, restore.bring(file, expected.wanted)).await {
            Ok(Ok(restored)) => {
                tracing::info!("restored {}", restored.told);
                return Ok(Some(restored.told));
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
    if nothing_there && !exists && !expected.required {
        // Found a moment before everything ended, and never sent.
        tracing::warn!("the database {} was never replicated: it begins anew", file.display());
        return Ok(None);
    }
    if expected.anyway && exists && check::quick(file) == Health::Whole {
        tracing::warn!(
            "the database {} can't be restored from its replica ({}): what was saved of it as a file stays",
            file.display(),
            crate::agent::sidecar::batch::with_sources(&error)
        );
        return Ok(None);
    }
    Err(Error::Database {
        path: file.to_owned(),
        found,
        source: Box::new(error),
    })
}
