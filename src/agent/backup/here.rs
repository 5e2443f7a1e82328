//! Makes one backup of the mounted volumes itself, for apps without a sidecar (mode `cronjob`): under the claim that
//! `init` made and wrote down in each volume's marker, one run at a time, with the sidecar's own guards and order. The
//! volumes are mounted read-only, and never written.

use super::{Error, say};
use crate::agent::arguments::{BackupArguments, Destination};
use crate::agent::filters::Filters;
use crate::agent::owner;
use crate::agent::prune::{Look, prune};
use crate::agent::sidecar::backup::{Failure, Order, Site, all_done};
use crate::agent::sidecar::batch::with_sources;
use crate::agent::sidecar::plan;
use crate::agent::sidecar::volume::{Scope, Volume, is_writable};
use crate::agent::volume::marker::{MARKER, Marker, MarkerStatus};
use crate::agent::volume::{mount, own::OwnFolder};
use crate::agent::watch::Changes;
use crate::store::claims::Holder;
use crate::store::rclone::{Rclone, Settings};
use crate::store::records::{VERSION, encode};
use crate::store::snapshot::Kind;
use crate::store::state::{self, Mode, State};
use crate::store::{Store, keys};
use jiff::Timestamp;
use rustix::fs::FlockOperation;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A locked database is waited for at most this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Another run is waited for, and looked for this often.
const AGAIN: Duration = Duration::from_millis(500);

/// Backs up to each destination; each is tried, whatever came of the others.
pub(super) async fn backup(arguments: &BackupArguments) -> Result<(), Error> {
    let protection = &arguments.protection;
    let filters = Filters::new(&protection.includes, &protection.excludes, protection.max_size)?;
    let mut volumes = Vec::new();
    let mut locks = Vec::new();
    let mut holder: Option<Holder> = None;
    for volume in &protection.volumes {
        let path = Path::new(&volume.mount_path);
        mount::check(path, arguments.folders.allow_plain_folder).map_err(|error| Error::Failed(error.to_string()))?;
        let marker = marker(path)?;
        locks.push(lock(path).await?);
        holder.get_or_insert(marker.claim.unwrap_or(Holder {
            epoch: marker.epoch,
            volume_id: marker.id.clone(),
        }));
        volumes.push(Volume {
            path: path.to_owned(),
            folder: marker.folder,
            id: marker.id,
            adopted: false,
            writable: is_writable(path),
        });
    }
    let Some(holder) = holder else {
        return Err(Error::Failed("there is no volume to back up".to_owned()));
    };
    volumes.sort_by_key(|volume| format!("{}/", volume.folder));
    let scope = Arc::new(Scope {
        volumes,
        filters,
        databases: protection.databases.clone(),
        replication: None,
        turn: Arc::default(),
    });
    let mut errors = Vec::new();
    for (index, destination) in protection.destinations.iter().enumerate() {
        if let Err(failure) = one(arguments, index, destination, &holder, &scope).await {
            let why = format!("{destination}: {}", with_sources(&failure));
            errors.push(match failure {
                Failure::Refused(_) | Failure::Fenced(_) => Error::Refused(why),
                _ => Error::Failed(why),
            });
        }
    }
    drop(locks);
    Error::all(&errors)
}

/// What `init` left on the volume: only what it settled may be backed up.
fn marker(volume: &Path) -> Result<Marker, Error> {
    let marker = OwnFolder::on(volume).read::<Marker>(MARKER);
    match marker.map_err(|error| Error::Failed(with_sources(&error)))? {
        Some(marker) if marker.status == MarkerStatus::Settled => Ok(marker),
        Some(marker) => Err(Error::Refused(format!(
            "the volume at {} may not be backed up: its last start left it {:?}, see that pod's init-config",
            volume.display(),
            marker.status
        ))),
        None => Err(Error::Refused(format!(
            "the volume at {} was never initialised: start the app once, so that init-config can look at it",
            volume.display()
        ))),
    }
}

/// One run at a time: the runs of a volume are on its node, where this lock is seen by all. Whoever comes second, as who
/// asks for a backup in the minute of the schedule, waits for the first, for as long as a backup may take.
async fn lock(volume: &Path) -> Result<Option<std::fs::File>, Error> {
    let local = |source| Error::Local {
        what: "opening",
        path: volume.to_owned(),
        source,
    };
    let file = std::fs::File::open(OwnFolder::on(volume).join(MARKER)).map_err(local)?;
    let mut told = false;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                if !told {
                    say(&format!(
                        "another backup of the volume at {} is under way: waiting for it",
                        volume.display()
                    ));
                    told = true;
                }
                tokio::time::sleep(AGAIN).await;
            }
            // A network file system without locks: there the schedule's own rule has to do.
            Err(_) => return Ok(None),
        }
    }
}

async fn one(
    arguments: &BackupArguments,
    index: usize,
    destination: &Destination,
    holder: &Holder,
    scope: &Arc<Scope>,
) -> Result<(), Failure> {
    let scratch = arguments.folders.restore_dir.join("backup").join(index.to_string());
    let store: Arc<dyn Store> = Arc::new(Rclone::new(
        destination.remote(),
        destination.path(),
        Settings::lean(&arguments.folders.rclone_dir, &scratch),
    ));
    let (mut site, warnings) = Site::open(store.clone(), holder.clone(), scope.clone(), scratch).await?;
    for warning in warnings {
        say(&format!("{destination}: {warning}"));
    }
    let before = state::read(store.as_ref()).await?.unwrap_or_default();
    let mut summary = State {
        version: VERSION,
        epoch: holder.epoch,
        volume_id: holder.volume_id.clone(),
        pod: arguments.identity.pod.clone(),
        owner: Some(owner(&arguments.identity, &arguments.protection.workload)),
        mode: Some(Mode::Cronjob),
        last_success: before.last_success,
        ..State::default()
    };
    // From here on a pod that comes to the place waits for what this run saves, as it would for a sidecar's last backup.
    beat(&site, &summary).await?;
    let result = save(arguments, destination, &mut site).await;
    if !matches!(result, Err(Failure::Fenced(_))) {
        summary.released = true;
        summary.owed = result.is_err();
        if result.is_ok() {
            summary.last_success = Some(Timestamp::now());
        }
        // Why the run failed is told, whatever becomes of this.
        let released = beat(&site, &summary).await;
        if result.is_ok() {
            released?;
        }
    }
    result
}

/// Writes the summary of the place.
async fn beat(site: &Site, summary: &State) -> Result<(), Failure> {
    let totals = site.known.totals();
    let state = State {
        heartbeat: Timestamp::now(),
        last: site.known.last(),
        files: totals.files,
        bytes: totals.bytes,
        ..summary.clone()
    };
    Ok(site.store.write(keys::STATE, &encode(&state)).await?)
}

/// One backup, and then what nobody wants kept goes.
async fn save(arguments: &BackupArguments, destination: &Destination, site: &mut Site) -> Result<(), Failure> {
    let kind = if arguments.is_manual() {
        Kind::Manual
    } else {
        Kind::Scheduled
    };
    let report = site
        .backup(Order {
            kind,
            look: plan::Look {
                changes: Changes {
                    everything: true,
                    ..Changes::default()
                },
                resting: Vec::new(),
                restless: None,
            },
            always: arguments.is_manual(),
            most: Some(arguments.backups.max_shrink),
            accepted: arguments.accepted.clone(),
            rest: Duration::ZERO,
            patience: PATIENCE,
        })
        .await?;
    for warning in &report.warnings {
        say(&format!("{destination}: {warning}"));
    }
    let retention = &arguments.backups.retention;
    let pruned = prune(site.store.as_ref(), retention, Look::Lightly, Timestamp::now()).await?;
    all_done(
        "not everything that nobody wants kept could be removed",
        &[],
        pruned.undone,
    )?;
    let id = site
        .known
        .last()
        .map_or_else(|| "there is nothing to save".to_owned(), |id| id.to_string());
    match report.snapshot {
        Some(_) => say(&format!(
            "{destination}: {} files, {} bytes saved\n{id}",
            report.uploaded, report.uploaded_bytes
        )),
        None => say(&format!("{destination}: nothing has changed since\n{id}")),
    }
    Ok(())
}
