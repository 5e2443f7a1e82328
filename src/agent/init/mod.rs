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

mod act;
mod claiming;
mod databases;
pub mod decision;
mod missing;
mod pause;
mod settle;
mod shared;
mod subject;
mod summary;
mod survey;
mod taken_back;

use super::arguments::{InitArguments, Tier};
use super::last_words;
use super::layers::{self, Laid, Layers};
use super::restore;
use super::volume;
use super::volume::look::VolumeState;
use super::volume::marker::{MARKER, Marker, MarkerStatus};
use crate::contract::question::Question;
use crate::store::Store;
use crate::store::claims::Owner;
use crate::store::rclone::{Rclone, Settings};
use crate::store::records::VERSION;
use jiff::Timestamp;
use shared::Shared;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;
use subject::Subject;
use summary::{Restoration, Summary};
use survey::doubt::Expected;

/// Why the app does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only a person decides how it goes on.
    #[error("{0}")]
    Asks(Question),
    /// A volume can't be used.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// The place belongs to somebody else, who is still there. Whoever that is stands in the log alone.
    #[error(
        "{destination} belongs to another workload, which has not let go of it: it is not taken from it. Remove that one's \
         annotation vixens.io/backup first, or give this workload a place of its own with the annotation \
         vixens.io/backup-destination"
    )]
    PlaceInUse {
        /// The destination.
        destination: String,
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
    /// Two volumes are said to be in one folder of the place.
    #[error(
        "the volumes {} are both in {folder}/ of the backup, as a volume and its copy are: nothing was started and nothing was \
         changed; take one of them out of vixens.io/backup-volumes, or remove {}/.vixens-backup/volume.json if that is the copy",
        volumes.join(" and "),
        path.display()
    )]
    OneFolder {
        /// The folder.
        folder: String,
        /// Which.
        volumes: [String; 2],
        /// Where the second one is mounted.
        path: PathBuf,
    },
    /// `restore-at` names a point that is not there.
    #[error(
        "vixens.io/backup-restore-at: {value} is no point in time that the store holds ({holds}); nothing was changed"
    )]
    NoSuchPoint {
        /// The value.
        value: String,
        /// What it does hold.
        holds: String,
    },
    /// `restore-at` was asked for while somebody else writes.
    #[error(
        "vixens.io/backup-restore-at can't be served while another pod writes to the place ({why}): it was waited for {waited}.          Scale the workload to zero first, or set strategy: Recreate; nothing was changed"
    )]
    StillWriting {
        /// Who.
        why: String,
        /// The timeout.
        waited: String,
    },
    /// The restore failed.
    #[error("the restore failed, and the app does not start on half of its files")]
    Restore(#[from] restore::Error),
    /// A newer release writes to a place that has to be read.
    #[error(
        "{0}. Nothing was started and nothing was changed: the app does not start on what only that release understands"
    )]
    NewerRelease(crate::store::Error),
    /// Tier 3, where the store can't serve it.
    #[error(transparent)]
    Unsupported(#[from] crate::agent::litestream::target::Unsupported),
    /// A database that is missing or damaged.
    #[error(
        "the database {} is {found}, and can't be restored; the app does not start without it, and nothing was deleted. Repair \
         it or put a good one in its place; or, to start without it, move it away and its line out of \
         .vixens-backup/databases.json and {}; or set vixens.io/backup: tier2, which leaves databases as they are",
        path.display(),
        crate::store::keys::databases()
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
        /// Why it can't be restored.
        source: Box<crate::agent::litestream::restore::Error>,
    },
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

impl Error {
    /// 1 failed, 3 asks.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Asks(_) => 3,
            _ => 1,
        }
    }
}

/// The destinations of a workload, the primary first.
pub(crate) type Stores = [Box<dyn Store>];

/// A start, as it was asked for.
struct Init<'a> {
    arguments: &'a InitArguments,
    owner: &'a Owner,
    stores: &'a Stores,
    began: Instant,
    deadline: Instant,
}

/// Runs a start to its end.
pub async fn run(arguments: &InitArguments) -> Result<(), Error> {
    start(arguments, &stores(arguments)).await
}

/// The same, over any stores.
pub(crate) async fn start(arguments: &InitArguments, stores: &Stores) -> Result<(), Error> {
    let began = Instant::now();
    let init = Init {
        arguments,
        owner: &super::owner(&arguments.identity, &arguments.protection.workload),
        stores,
        began,
        deadline: began + arguments.restore_timeout.duration(),
    };
    let shared = Shared(&arguments.folders.restore_dir);
    shared.forget()?;
    let mut subjects = subject::subjects(arguments, init.owner)?;
    if arguments.tier == Tier::Tier1 {
        survey::owners::volumes(&init, &mut subjects, &[], &[]).await?;
        return tier1(&init, &shared, &subjects);
    }
    let target = databases::target(&init)?;
    let expected = Expected::read(&init, &subjects);
    let survey = survey::survey(&init, &mut subjects, &expected).await?;

    let mut outcomes = Vec::with_capacity(subjects.len());
    for (subject, decided) in subjects.iter().zip(&survey.decided) {
        outcomes.push(act::act(&init, subject, decided, &survey).await?);
    }
    let databases = databases::restore(&init, target.as_ref(), &subjects, &outcomes, &survey).await?;
    let accepted = missing::decide(&init, &subjects, &outcomes, &survey).await?;
    shared.leave_mark(&outcomes)?;
    let laid = lay(arguments, &subjects)?;
    let mut known = expected.learned(stores, &survey.said, &survey.weighed).await;
    let start = settle::settle(&init, &subjects, &outcomes, &survey, &mut known).await?;
    missing::record(&init, &survey, &accepted).await;
    shared.write_layers(&subjects, &outcomes, &laid)?;
    shared.write_known(&known)?;
    shared.write_start(&start)?;

    let brought = subjects.iter().zip(outcomes).zip(&survey.decided);
    let brought: Vec<Restoration> = brought
        .filter_map(|((subject, outcome), decided)| {
            Some(Restoration {
                volume: subject.name.clone(),
                folder: subject.folder.clone(),
                brought: outcome.brought?,
                is_unexpected: decided.because.is_some() || !survey.remarks.is_empty(),
            })
        })
        .collect();
    let summary = Summary {
        start: &start,
        brought: &brought,
        databases: &databases,
        laid: &laid,
        took: began.elapsed(),
    };
    tell(&summary);
    // Where no sidecar runs, nobody else asks it.
    for question in start.asks() {
        last_words::leave(&question.to_string());
    }
    if let Some(restored) = summary.restored() {
        last_words::leave(&restored.to_string());
    }
    Ok(())
}

fn stores(arguments: &InitArguments) -> Vec<Box<dyn Store>> {
    let scratch = arguments.folders.restore_dir.join("scratch");
    let settings = Settings::fast(&arguments.folders.rclone_dir, &scratch);
    let destinations = arguments.protection.destinations.iter();
    destinations
        .map(|to| Box::new(Rclone::new(to.remote(), to.path(), settings.clone())) as Box<dyn Store>)
        .collect()
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

/// Layers only: no store, no claim, and a marker that tier 2 will not take for its own.
fn tier1(init: &Init<'_>, shared: &Shared<'_>, subjects: &[Subject]) -> Result<(), Error> {
    let laid = lay(init.arguments, subjects)?;
    for subject in subjects {
        // A volume that tier 2 has marked keeps its marker: the way back finds it.
        if subject.marker.is_some() || matches!(subject.state, VolumeState::Interrupted(_)) {
            continue;
        }
        let marker = Marker {
            version: VERSION,
            id: subject.id.clone(),
            owner: init.owner.clone(),
            folder: subject.folder.clone(),
            status: MarkerStatus::Tier1,
            epoch: 0,
            claim: None,
            since: None,
            time: Timestamp::now(),
            restored: None,
            served: Vec::new(),
            serving: None,
            bare: None,
        };
        subject.own.write(MARKER, &marker)?;
    }
    shared.write_layers(subjects, &[], &laid)?;
    let took = init.began.elapsed().as_secs_f64();
    tell(&format!(
        "vixens-backup init: {}, tier 1, in {took:.1} s\n{}",
        init.owner,
        summary::layers(&laid)
    ));
    Ok(())
}

/// The command's output: what a person reads with `kubectl logs`.
fn tell(summary: &impl std::fmt::Display) {
    // Nobody listens: then nobody is told, and the start is no worse for it.
    let _ = writeln!(io::stdout(), "{}", summary.to_string().trim_end());
}

#[cfg(test)]
mod tests;
