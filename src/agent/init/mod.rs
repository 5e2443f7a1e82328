//! `agent init`: looks at the volumes and the store, decides, restores what is missing, lays the layers, claims the
//! place, and says so last. Never talks to the Kubernetes API.
//!
//! ```text
//! volumes ─► look ─┐
//! store ───► look ─┴► decide ─► set aside ─► restore ─► vanilla ─► secrets ─► claim ─► mark ─► start.json
//! ```
//!
//! Killed anywhere, the next start finds what it needs on the volume: `restoring.json` until everything is in place,
//! `volume.json` only when all is done.

pub mod claiming;
pub mod decision;
pub mod summary;
pub mod survey;

use super::arguments::{InitArguments, RestorePolicy, Tier};
use super::claim::Claimant;
use super::layers::{self, Laid, Layers};
use super::place::Backup;
use super::restore::{self, Brought, Restore, aside};
use super::start::{Start, StartedVolume, Status};
use super::volume::look::VolumeState;
use super::volume::marker::{INCOMING, MARKER, Marker, MarkerStatus, Mode, RESTORING, Restoring};
use super::volume::own::OwnFolder;
use super::volume::{self, look, mount};
use crate::store::Store;
use crate::store::claims::Owner;
use crate::store::keys;
use crate::store::rclone::{Rclone, Settings};
use crate::store::records::VERSION;
use crate::store::snapshot::{Kind, SnapshotId};
use decision::Decision;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use summary::Summary;
use survey::Survey;

/// The guide's marks, for whoever looks.
const RESTORE_SUCCESS: &str = ".restore-success";
/// There was nothing to restore.
const NO_BACKUP: &str = ".no-backup";
/// Which layer won each file.
const LAYERS: &str = "layers.json";

/// Why the app does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume can't be used.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// A volume's marker names somebody else.
    #[error(
        "the volume at {} belongs to {theirs}, and this is {us}: mount this workload's own volume, or remove \
         {}/.vixens-backup to take it over with its files",
        path.display(),
        path.display()
    )]
    AnothersVolume {
        /// Where it is mounted.
        path: PathBuf,
        /// Whose it is.
        theirs: String,
        /// Who we are.
        us: String,
    },
    /// The place belongs to somebody else.
    #[error(
        "{destination} belongs to {theirs}, and this is {us}: give this workload a place of its own with the annotation \
         vixens.io/backup-destination"
    )]
    AnothersPlace {
        /// The destination.
        destination: String,
        /// Whose it is.
        theirs: String,
        /// Who we are.
        us: String,
    },
    /// A volume's folder has a name that the bucket's layout needs.
    #[error(
        "the volume {volume} would lie in {folder:?}, which the bucket's layout needs itself: mount it at another path"
    )]
    ReservedFolder {
        /// The pod volume.
        volume: String,
        /// The folder.
        folder: String,
    },
    /// The store was not there in time.
    #[error(
        "the store could not be asked within {waited}, and nothing was changed on the volume. The app does not start, because \
         it would start empty over a backup that may exist; to start it on vanilla all the same, set \
         vixens.io/backup-store-down: start. Last answer: {last}"
    )]
    StoreAway {
        /// The timeout.
        waited: String,
        /// What each destination said.
        last: String,
    },
    /// An interrupted restore can't be finished.
    #[error(
        "a restore of {snapshot} onto {} was interrupted, and {why}: the volume holds a part of it. Nothing was deleted; \
         remove {}/.vixens-backup/restoring.json to start with what is there",
        path.display(),
        path.display()
    )]
    Unfinished {
        /// Where the volume is mounted.
        path: PathBuf,
        /// What was being restored.
        snapshot: String,
        /// Why it can't be.
        why: String,
    },
    /// The restore failed.
    #[error("the restore failed, and the app does not start on half of its files")]
    Restore(#[from] restore::Error),
    /// Layer 1 or 3 could not be laid.
    #[error("the layers could not be laid")]
    Layers(#[from] layers::Error),
    /// A file of ours in the pod's shared folder.
    #[error("{} can't be written", path.display())]
    Shared {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A protected volume during a start.
pub(crate) struct Subject {
    /// The pod volume's name.
    pub(crate) name: String,
    /// Its folder in the bucket.
    pub(crate) folder: String,
    /// Its root and our folder on it.
    pub(crate) own: OwnFolder,
    /// What it was found as.
    pub(crate) state: VolumeState,
    /// Its id: the one on it, or a new one.
    pub(crate) id: String,
}

impl Subject {
    /// The marker of an earlier start.
    pub(crate) fn marker(&self) -> Option<&Marker> {
        match &self.state {
            VolumeState::Initialised(marker) | VolumeState::Provisional(marker) => Some(marker),
            VolumeState::Empty | VolumeState::Interrupted(_) | VolumeState::Foreign | VolumeState::Others(_) => None,
        }
    }
}

/// What became of a volume.
pub(crate) struct Outcome {
    status: Status,
    why: String,
    brought: Option<Brought>,
    adopted: bool,
    /// Whether the marker is written: a volume of which nobody knows whether it is ours stays unmarked.
    marked: bool,
    /// It has data from before this start.
    kept: bool,
}

impl Outcome {
    fn settled(why: impl Into<String>) -> Self {
        Self {
            status: Status::Settled,
            why: why.into(),
            brought: None,
            adopted: false,
            marked: true,
            kept: false,
        }
    }
}

/// Runs a start to its end.
pub async fn run(arguments: &InitArguments) -> Result<(), Error> {
    let began = Instant::now();
    let restore_dir = &arguments.folders.restore_dir;
    // The word of an earlier start in this pod is no word about this one.
    remove(&restore_dir.join(super::start::START))?;
    let owner = owner(arguments);
    let mut subjects = subjects(arguments, &owner)?;
    if arguments.tier == Tier::Tier1 {
        return tier1(arguments, &subjects, &owner, began);
    }
    let stores = stores(arguments);
    let survey = survey::survey(arguments, &owner, &subjects, &stores, began).await?;
    keep_recorded_folders(&mut subjects, &survey);

    let mut outcomes = Vec::with_capacity(subjects.len());
    for (subject, decision) in subjects.iter().zip(&survey.decisions) {
        outcomes.push(act(arguments, &owner, subject, *decision, &survey, &stores, began).await?);
    }
    leave_guides_mark(restore_dir, &outcomes)?;
    let laid = lay(arguments, &subjects)?;
    let start = settle(arguments, &owner, &subjects, &outcomes, &survey, &stores).await?;
    write_layers(restore_dir, &subjects, &outcomes, &laid)?;
    start.write(restore_dir).map_err(|source| Error::Shared {
        path: restore_dir.join(super::start::START),
        source,
    })?;
    let brought: Vec<(String, Brought)> = subjects
        .iter()
        .zip(outcomes)
        .filter_map(|(subject, outcome)| Some((subject.folder.clone(), outcome.brought?)))
        .collect();
    tell(&Summary {
        start: &start,
        brought: &brought,
        laid: &laid,
        took: began.elapsed(),
    });
    Ok(())
}

fn owner(arguments: &InitArguments) -> Owner {
    super::owner(&arguments.identity, &arguments.protection.workload)
}

fn stores(arguments: &InitArguments) -> Vec<Rclone> {
    let scratch = arguments.folders.restore_dir.join("scratch");
    arguments
        .protection
        .destinations
        .iter()
        .map(|destination| {
            let settings = Settings::fast(&arguments.folders.rclone_dir, &scratch);
            Rclone::new(destination.remote(), destination.path(), settings)
        })
        .collect()
}

/// Looks at each volume.
fn subjects(arguments: &InitArguments, owner: &Owner) -> Result<Vec<Subject>, Error> {
    let mut subjects = Vec::new();
    for volume in &arguments.protection.volumes {
        let path = Path::new(&volume.mount_path);
        mount::check(path, arguments.folders.allow_plain_folder)?;
        if keys::is_reserved(&volume.folder) {
            return Err(Error::ReservedFolder {
                volume: volume.name.clone(),
                folder: volume.folder.clone(),
            });
        }
        let own = OwnFolder::on(path);
        let state = look::look(&own, owner)?;
        if let VolumeState::Others(theirs) = &state {
            return Err(Error::AnothersVolume {
                path: path.to_owned(),
                theirs: theirs.to_string(),
                us: owner.to_string(),
            });
        }
        let known = match &state {
            VolumeState::Initialised(marker) | VolumeState::Provisional(marker) => Some(marker.id.clone()),
            VolumeState::Interrupted(restoring) => Some(restoring.id.clone()),
            VolumeState::Empty | VolumeState::Foreign | VolumeState::Others(_) => None,
        };
        let id = match known {
            Some(id) => id,
            None => new_id().map_err(|source| volume::Error::of("reading", Path::new("/dev/urandom"), source))?,
        };
        subjects.push(Subject {
            name: volume.name.clone(),
            folder: volume.folder.clone(),
            own,
            state,
            id,
        });
    }
    Ok(subjects)
}

fn new_id() -> io::Result<String> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(keys::hex(&bytes))
}

/// A changed mount path does not change where a volume's files lie: the claim, or the marker, tells.
fn keep_recorded_folders(subjects: &mut [Subject], survey: &Survey) {
    let claimed: Vec<(String, String)> = survey
        .primary_claim()
        .into_iter()
        .flat_map(|claim| &claim.volumes)
        .map(|volume| (volume.name.clone(), volume.folder.clone()))
        .collect();
    for subject in subjects {
        let marked = subject.marker().map(|marker| marker.folder.clone());
        let recorded = marked.or_else(|| {
            claimed
                .iter()
                .find(|(name, _)| *name == subject.name)
                .map(|(_, folder)| folder.clone())
        });
        if let Some(recorded) = recorded
            && recorded != subject.folder
        {
            tracing::info!(
                "volume {} stays in {recorded}/, where it has been, though its mount path would say {}/",
                subject.name,
                subject.folder
            );
            subject.folder = recorded;
        }
    }
}

/// Does what was decided for one volume.
async fn act(
    arguments: &InitArguments,
    owner: &Owner,
    subject: &Subject,
    decision: Decision,
    survey: &Survey,
    stores: &[Rclone],
    began: Instant,
) -> Result<Outcome, Error> {
    let keep = |why: &str| Outcome {
        kept: true,
        ..Outcome::settled(why)
    };
    Ok(match decision {
        Decision::Keep => keep("kept: its data is newer than its backup"),
        Decision::Adopt => Outcome {
            adopted: true,
            ..keep("adopted with the files that were on it; the store had nothing")
        },
        Decision::AdoptOverBackup => {
            tracing::warn!(
                "volume {}: the files on it are kept; what the store holds moves to history with the next backup",
                subject.name
            );
            Outcome {
                adopted: true,
                ..Outcome::settled("kept with the files that were on it; what the store holds moves to history")
            }
        }
        Decision::New => Outcome::settled("new: the store answered, and has no backup"),
        Decision::KeepSuperseded => Outcome {
            status: Status::Fenced,
            ..keep(&format!(
                "kept, but the store has been written from another volume since: {}",
                survey.superseded_by(subject)
            ))
        },
        Decision::KeepUnknown => Outcome {
            status: Status::Fenced,
            marked: false,
            ..keep("kept with the files that were on it; not backed up, because the store could not be asked")
        },
        Decision::StartProvisional => Outcome {
            status: Status::Provisional,
            ..Outcome::settled("started on vanilla, because the store could not be asked")
        },
        Decision::Restore => bring(arguments, owner, subject, Mode::Whole, survey, stores, began).await?,
        Decision::RestoreMissing => bring(arguments, owner, subject, Mode::Missing, survey, stores, began).await?,
        Decision::SetAsideAndRestore => bring(arguments, owner, subject, Mode::Replace, survey, stores, began).await?,
        Decision::AskAgain => {
            return Err(Error::StoreAway {
                waited: arguments.restore_timeout.to_string(),
                last: survey.last_answers(),
            });
        }
        Decision::FailInterrupted => {
            let snapshot = match &subject.state {
                VolumeState::Interrupted(Restoring { snapshot: Some(id), .. }) => id.to_string(),
                _ => "the files in the bucket".to_owned(),
            };
            let why = if arguments.restore == RestorePolicy::Never {
                "vixens.io/backup-restore is never"
            } else {
                "what was being restored is gone from the store"
            };
            return Err(Error::Unfinished {
                path: subject.own.volume().to_owned(),
                snapshot,
                why: why.to_owned(),
            });
        }
    })
}

/// Restores one volume, and tries again while the store comes and goes, until the timeout.
async fn bring(
    arguments: &InitArguments,
    owner: &Owner,
    subject: &Subject,
    mode: Mode,
    survey: &Survey,
    stores: &[Rclone],
    began: Instant,
) -> Result<Outcome, Error> {
    let (store, backup) = survey.source(stores);
    // What an interrupted restore does with files that are there was decided when it began.
    let (mode, resumed) = match &subject.state {
        VolumeState::Interrupted(restoring) => (restoring.mode, Some(restoring)),
        _ => (mode, None),
    };
    if backup.snapshots.is_empty() && !backup.by_listing {
        return Ok(Outcome::settled(
            "new: the place is claimed, but nothing was ever backed up",
        ));
    }
    // The same point as before the interruption, while the store still has it: files of it may be in their places.
    let at = resumed
        .filter(|resumed| resumed.placing)
        .and_then(|resumed| resumed.snapshot)
        .filter(|snapshot| backup.snapshots.contains(snapshot));
    let is_placing = resumed.is_some_and(|resumed| resumed.placing);
    let restoring = Restoring {
        version: VERSION,
        id: subject.id.clone(),
        owner: owner.clone(),
        destination: store.destination(),
        snapshot: at.or(backup.newest()),
        mode,
        placing: is_placing,
        time: Timestamp::now(),
        serving: None,
    };
    // Said before anything is fetched: should the store forget its backup meanwhile, this is no new volume.
    subject.own.write(RESTORING, &restoring)?;
    tracing::info!(
        "restoring volume {} from {}, {}",
        subject.name,
        store.destination(),
        at.or(backup.newest())
            .map_or_else(|| "by listing".to_owned(), |id| id.to_string())
    );
    let restore = Restore {
        store,
        backup,
        folder: &subject.folder,
        own: &subject.own,
        mode,
        at,
    };
    let deadline = began + arguments.restore_timeout.duration();
    let mut pause = Duration::from_secs(1);
    let brought = loop {
        let attempt = restore
            .bring(async |plan| {
                if mode == Mode::Replace && !is_placing {
                    let id = SnapshotId::new(Timestamp::now(), survey.highest_epoch() + 1, 0, Kind::Restored);
                    aside::set_aside(store, plan, &subject.own, &subject.folder, &subject.id, id).await?;
                }
                // From here on the volume is neither what it was nor what it will be.
                let placing = Restoring {
                    snapshot: plan.snapshot,
                    placing: true,
                    ..restoring.clone()
                };
                Ok(subject.own.write(RESTORING, &placing)?)
            })
            .await;
        match attempt {
            Ok(brought) => break brought,
            Err(restore::Error::Store(error)) if Instant::now() + pause < deadline => {
                tracing::warn!("{error}; trying again in {} s", pause.as_secs());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(30));
            }
            Err(error) => return Err(error.into()),
        }
    };
    let id = brought
        .snapshot
        .map_or_else(|| "the files in the bucket".to_owned(), |id| id.to_string());
    Ok(Outcome {
        brought: Some(brought),
        ..Outcome::settled(format!("restored from {id}"))
    })
}

/// Layers 1 and 3, on the first volume.
fn lay(arguments: &InitArguments, subjects: &[Subject]) -> Result<Laid, Error> {
    let Some(first) = subjects.first() else {
        return Ok(Laid::default());
    };
    let layers = Layers {
        volume: first.own.volume(),
        defaults: &arguments.folders.defaults_dir,
        secrets: &arguments.folders.secrets_dir,
        secrets_files: &arguments.secrets_files,
    };
    layers::lay(&layers).map_err(|error| match error {
        // The volume's refusal has ways out of its own.
        layers::Error::Io { path, source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied && path.starts_with(layers.volume) =>
        {
            volume::Error::of("writing", &path, source).into()
        }
        error => error.into(),
    })
}

/// Claims the place, then marks the volumes.
async fn settle(
    arguments: &InitArguments,
    owner: &Owner,
    subjects: &[Subject],
    outcomes: &[Outcome],
    survey: &Survey,
    stores: &[Rclone],
) -> Result<Start, Error> {
    let now = Timestamp::now();
    let epoch = subjects
        .iter()
        .filter_map(Subject::marker)
        .map(|marker| marker.epoch)
        .max()
        .unwrap_or(0);
    let mut start = Start {
        version: VERSION,
        time: now,
        owner: owner.clone(),
        pod: arguments.identity.pod.clone(),
        generation: arguments.identity.generation.clone(),
        epoch,
        destinations: Vec::new(),
        volumes: subjects
            .iter()
            .zip(outcomes)
            .map(|(subject, outcome)| StartedVolume {
                name: subject.name.clone(),
                folder: subject.folder.clone(),
                path: subject.own.volume().to_owned(),
                id: subject.id.clone(),
                status: outcome.status,
                why: outcome.why.clone(),
                restored: outcome.brought.as_ref().and_then(|brought| brought.snapshot),
                adopted: outcome.adopted,
            })
            .collect(),
        serving: None,
    };
    let claimant = Claimant {
        owner,
        volume_ids: subjects.iter().map(|subject| subject.id.as_str()).collect(),
        epoch,
        kept: outcomes.iter().any(|outcome| outcome.kept),
        generation: &arguments.identity.generation,
        pod: &arguments.identity.pod,
    };
    let any_settled = outcomes.iter().any(|outcome| outcome.status == Status::Settled);
    start.destinations = claiming::claim(&claimant, &start, survey, stores, any_settled, now).await;
    let claim = claiming::highest(&start.destinations);
    if let Some(holder) = &claim {
        start.epoch = holder.epoch;
    }
    for (subject, outcome) in subjects.iter().zip(outcomes) {
        let before = subject.marker();
        let marker = Marker {
            version: VERSION,
            id: subject.id.clone(),
            owner: owner.clone(),
            folder: subject.folder.clone(),
            status: match outcome.status {
                Status::Settled => MarkerStatus::Settled,
                Status::Provisional => MarkerStatus::Provisional,
                Status::Fenced => MarkerStatus::Fenced,
            },
            epoch: start.epoch,
            claim: claim.clone().or_else(|| before.and_then(|marker| marker.claim.clone())),
            time: now,
            restored: outcome
                .brought
                .as_ref()
                .map_or_else(|| before.and_then(|marker| marker.restored), |brought| brought.snapshot),
            served: before.map(|marker| marker.served.clone()).unwrap_or_default(),
        };
        mark(subject, outcome, &marker)?;
    }
    Ok(start)
}

/// Writes the marker, the last step on a volume; then what the restore left behind goes.
fn mark(subject: &Subject, outcome: &Outcome, marker: &Marker) -> Result<(), Error> {
    if outcome.brought.is_some() {
        // The marker must not outlive a power cut that the files did not.
        subject.own.sync()?;
    }
    if outcome.marked {
        subject.own.write(MARKER, marker)?;
    }
    subject.own.remove(RESTORING)?;
    subject.own.remove(INCOMING)?;
    Ok(())
}

/// Layers only: no store, no claim, and a marker that tier 2 will not take for its own.
fn tier1(arguments: &InitArguments, subjects: &[Subject], owner: &Owner, began: Instant) -> Result<(), Error> {
    let laid = lay(arguments, subjects)?;
    let now = Timestamp::now();
    for subject in subjects {
        // A volume that tier 2 has marked keeps its marker: the way back finds it.
        if subject.marker().is_some() || matches!(subject.state, VolumeState::Interrupted(_)) {
            continue;
        }
        subject.own.write(
            MARKER,
            &Marker {
                version: VERSION,
                id: subject.id.clone(),
                owner: owner.clone(),
                folder: subject.folder.clone(),
                status: MarkerStatus::Tier1,
                epoch: 0,
                claim: None,
                time: now,
                restored: None,
                served: Vec::new(),
            },
        )?;
    }
    write_layers(&arguments.folders.restore_dir, subjects, &[], &laid)?;
    let took = began.elapsed().as_secs_f64();
    tell(&format!(
        "vixens-backup init: {owner}, tier 1, in {took:.1} s\n{}",
        summary::layers(&laid)
    ));
    Ok(())
}

fn leave_guides_mark(restore_dir: &Path, outcomes: &[Outcome]) -> Result<(), Error> {
    let restored = outcomes.iter().any(|outcome| outcome.brought.is_some());
    let (mark, other) = if restored {
        (RESTORE_SUCCESS, NO_BACKUP)
    } else {
        (NO_BACKUP, RESTORE_SUCCESS)
    };
    remove(&restore_dir.join(other))?;
    remove(&restore_dir.join(mark))?;
    let kept = outcomes.iter().all(|outcome| outcome.kept);
    if restored || !kept {
        write(&restore_dir.join(mark), b"")?;
    }
    Ok(())
}

/// `layers.json`: for each file, the layer that won. Of volumes that were kept, only what layers 1 and 3 name.
fn write_layers(restore_dir: &Path, subjects: &[Subject], outcomes: &[Outcome], laid: &Laid) -> Result<(), Error> {
    let mut files: BTreeMap<String, &str> = BTreeMap::new();
    for (subject, outcome) in subjects.iter().zip(outcomes) {
        for path in outcome.brought.iter().flat_map(|brought| &brought.paths) {
            files.insert(format!("{}/{}", subject.folder, path.display()), "restored");
        }
    }
    if let Some(first) = subjects.first() {
        let key = |path: &PathBuf| format!("{}/{}", first.folder, path.display());
        for path in &laid.kept {
            files.entry(key(path)).or_insert("kept");
        }
        files.extend(laid.vanilla.iter().map(|path| (key(path), "vanilla")));
        files.extend(laid.rendered.iter().map(|path| (key(path), "secrets")));
    }
    let object = serde_json::json!({"version": VERSION, "files": files, "layers": laid});
    write(&restore_dir.join(LAYERS), &crate::store::records::encode(&object))
}

fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    std::fs::write(path, content).map_err(|source| Error::Shared {
        path: path.to_owned(),
        source,
    })
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Shared {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The command's output: what a person reads with `kubectl logs`.
fn tell(summary: &impl std::fmt::Display) {
    // Nobody listens: then nobody is told, and the start is no worse for it.
    let _ = writeln!(io::stdout(), "{}", summary.to_string().trim_end());
}

/// The survey's backup, for the types' sake.
pub(crate) type Source<'a> = (&'a dyn Store, &'a Backup);
