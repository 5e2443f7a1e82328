//! Makes one backup of the mounted volumes itself, for apps without a sidecar (mode `cronjob`): under the claims that
//! `init` made and wrote down on each volume, and those that it could not make, one run at a time, with the sidecar's own guards
//! and order. The volumes are mounted read-only, and never written.

use super::{Error, claim, say};
use crate::agent::arguments::{BackupArguments, Destination, QuestionId};
use crate::agent::filters::Filters;
use crate::agent::last_words;
use crate::agent::lease::absence::{Absence, Step};
use crate::agent::lease::check::{Away, Fenced, Lease};
use crate::agent::lease::handover::{Arrival, Comer, LOOK_BACK, arrive, farewell};
use crate::agent::lease::known::{KnownStore, KnownStores, STORES};
use crate::agent::lease::renew::Renewal;
use crate::agent::owner;
use crate::agent::prune::Look;
use crate::agent::sidecar::backup::{Failure, Order, Site};
use crate::agent::sidecar::batch::with_sources;
use crate::agent::sidecar::volume::{Scope, Volume, is_writable};
use crate::agent::snapshot::changes::Look as LookAtVolumes;
use crate::agent::start::{START, Serving, Start};
use crate::agent::volume::given_up::GivenUp;
use crate::agent::volume::marker::{MARKER, Marker, MarkerStatus};
use crate::agent::volume::{mount, own::OwnFolder};
use crate::agent::watch::Changes;
use crate::contract::last_words::Saved;
use crate::contract::question::Question;
use crate::store::claims::{Claim, ClaimedVolume, Holder};
use crate::store::rclone::{Rclone, Settings};
use crate::store::records::{VERSION, encode};
use crate::store::snapshot::Kind;
use crate::store::state::{Mode, State};
use crate::store::{Store, keys, served};
use jiff::Timestamp;
use rustix::fs::FlockOperation;
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A locked database is waited for at most this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Another run is waited for, and looked for this often.
const AGAIN: Duration = Duration::from_millis(500);
/// A store that is not the one that was there is looked at for so long, this often.
const LOOKS: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// In seconds.
const DAY: i64 = 24 * 3600;

/// Backs up to each destination; each is tried, whatever came of the others.
pub(super) async fn backup(arguments: &BackupArguments) -> Result<(), Error> {
    let protection = &arguments.protection;
    let filters = Filters::new(&protection.includes, &protection.excludes, protection.max_size)?;
    let mut volumes = Vec::new();
    let mut locks = Vec::new();
    let mut markers = Vec::new();
    let mut known = KnownStores::default();
    let mut serving: Option<Serving> = None;
    let mut given_up = GivenUp::default();
    let mut start: Option<Start> = None;
    for volume in &protection.volumes {
        let path = Path::new(&volume.mount_path);
        mount::check(path, arguments.folders.allow_plain_folder).map_err(|error| Error::Failed(error.to_string()))?;
        let marker = marker(path)?;
        locks.push(lock(path).await?);
        // What can't be read is not known.
        let own = OwnFolder::on(path);
        let stores = own.read::<KnownStores>(STORES).ok().flatten();
        // Nor is what was to be let go of: it stays.
        let _ = given_up.read(&own);
        known.stores.extend(stores.unwrap_or_default().stores);
        serving = serving.or_else(|| marker.serving.clone());
        // A start of a former release, or one that was killed, has left none, or that of another start.
        let of_start = || own.read::<Start>(START).ok().flatten();
        start = start.or_else(|| of_start().filter(|start| start.time == marker.time));
        volumes.push(Volume {
            path: path.to_owned(),
            folder: marker.folder.clone(),
            id: marker.id.clone(),
            writable: is_writable(path),
        });
        markers.push((volume.name.clone(), marker));
    }
    let Some(claim) = marked(&markers) else {
        return Err(Error::Failed("there is no volume to back up".to_owned()));
    };
    volumes.sort_by_key(|volume| format!("{}/", volume.folder));
    let scope = Arc::new(Scope {
        volumes,
        filters,
        databases: protection.databases.clone(),
        replication: None,
        copies: Arc::default(),
        turn: Arc::default(),
        given_up: Arc::new(given_up),
    });
    let mut errors = Vec::new();
    for (index, destination) in protection.destinations.iter().enumerate() {
        let known = known.of(&destination.to_string());
        let under = Under {
            start: start.as_ref(),
            claim: &claim,
            known: &known,
        };
        match one(arguments, index, destination, &under, serving.as_ref(), &scope).await {
            Ok(None) => {}
            // The run that places a hold is seen to; those after it only say so.
            Ok(Some(question)) => errors.push(Error::Refused(format!(
                "{destination}: what is new is saved; but {question}"
            ))),
            Err(failure) => {
                let why = format!("{destination}: {}", with_sources(&failure));
                errors.push(match failure {
                    Failure::Refused(_) | Failure::Fenced(_) | Failure::Waiting(_) => Error::Refused(why),
                    _ => Error::Failed(why),
                });
            }
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

/// The claim that `init` made and the markers name, to be known again and, where it is gone, to be written again.
fn marked(markers: &[(String, Marker)]) -> Option<Claim> {
    let (_, first) = markers.first()?;
    let holder = first.claim.clone().unwrap_or(Holder {
        epoch: first.epoch,
        volume_id: first.id.clone(),
    });
    let mut volumes: Vec<ClaimedVolume> = markers
        .iter()
        .map(|(name, marker)| ClaimedVolume {
            name: name.clone(),
            folder: marker.folder.clone(),
            id: marker.id.clone(),
        })
        .collect();
    // A claim bears the name of its first volume, which this run may not have been told of.
    if volumes.iter().all(|volume| volume.id != holder.volume_id) {
        let named = volumes.first().cloned()?;
        volumes.push(ClaimedVolume {
            id: holder.volume_id.clone(),
            ..named
        });
    }
    volumes.sort_by_key(|volume| volume.id != holder.volume_id);
    Some(Claim {
        version: VERSION,
        epoch: holder.epoch,
        owner: first.owner.clone(),
        pod: String::new(),
        generation: String::new(),
        volumes,
        time: first.time,
        start: Some(first.time),
    })
}

/// Opens the place. One that answers with less than was there is looked at again, for minutes.
async fn open(
    store: &Arc<dyn Store>,
    lease: Lease,
    known: &KnownStore,
    scope: &Arc<Scope>,
    scratch: &Path,
    arrival: Arrival,
) -> Result<(Site, Vec<String>), Failure> {
    let begun = Instant::now();
    let mut absence = Absence::begins(begun);
    loop {
        let away = match Site::open(store.clone(), lease.clone(), scope.clone(), scratch.to_owned(), arrival).await {
            Err(Failure::Away(away)) => away,
            other => return other,
        };
        let sight = lease.look(store.as_ref()).await?;
        match absence.step(sight, Instant::now()) {
            Step::GoOn => {}
            Step::WriteClaim => {
                lease.write_claim(store.as_ref()).await?;
                say(&format!(
                    "{}: our claim was gone from our own store, as where a rule of the bucket removes what is old: it is written again",
                    store.destination()
                ));
            }
            Step::Fence(holder) => {
                return Err(Fenced::TakenOver {
                    destination: store.destination(),
                    holder,
                    ours: lease.holder,
                }
                .into());
            }
            Step::Wait(_) | Step::Ask(_) | Step::TakeAnew if begun.elapsed() < LOOKS => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            // Only a start can begin anew: what is claimed then is written on the volume.
            Step::Wait(why) | Step::Ask(why) => {
                let question = known.start_new(&store.destination(), &why);
                return Err(Away {
                    why: format!("{why}. {question}"),
                    ..away
                }
                .into());
            }
            Step::TakeAnew => return Err(away.into()),
        }
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

/// What a run may write under.
struct Under<'a> {
    /// The last start.
    start: Option<&'a Start>,
    /// The claim that the markers name.
    claim: &'a Claim,
    /// What is known of the store.
    known: &'a KnownStore,
}

impl Under<'_> {
    /// Our claim at this destination.
    async fn held(&self, store: &dyn Store, accepted: &[QuestionId]) -> Result<Lease, Failure> {
        if let Some(start) = self.start {
            return claim::held(store, start, self.known, accepted).await;
        }
        match &self.known.asks {
            Some(question) => {
                last_words::leave(&question.to_string());
                Err(Failure::Waiting(question.to_string()))
            }
            None => Ok(Lease::new(self.claim, self.known.store_id.clone())),
        }
    }
}

/// Backs up to one destination. What its guard holds since this backup is asked about.
async fn one(
    arguments: &BackupArguments,
    index: usize,
    destination: &Destination,
    under: &Under<'_>,
    serving: Option<&Serving>,
    scope: &Arc<Scope>,
) -> Result<Option<Question>, Failure> {
    let scratch = arguments.folders.restore_dir.join("backup").join(index.to_string());
    let at = |to: &Destination| -> Arc<dyn Store> {
        let settings = Settings::lean(&arguments.folders.rclone_dir, &scratch);
        Arc::new(Rclone::new(to.remote(), to.path(), settings))
    };
    let store = at(destination);
    let lease = under.held(store.as_ref(), &arguments.accepted).await?;
    let comer = Comer {
        holder: &lease.holder,
        pod: &arguments.identity.pod,
        kind: arguments.protection.workload.kind.as_str(),
    };
    let arrival = arrive(store.as_ref(), comer, pending()).await?;
    let mut renewal = Renewal {
        store: store.clone(),
        holder: lease.holder.clone(),
        summary: None,
    };
    let opening = open(&store, lease, under.known, scope, &scratch, arrival);
    let (mut site, warnings) = renewal.during(opening).await?;
    for warning in warnings {
        say(&format!("{destination}: {warning}"));
    }
    let others = arguments.protection.destinations.iter();
    site.elsewhere = others.filter(|other| *other != destination).map(at).collect();
    let before = site.before.clone().unwrap_or_default();
    let holder = site.lease.holder.clone();
    let [.., long_ago] = LOOK_BACK;
    if site.beside && site.beside_for() >= long_ago {
        // A run before this one had to write beside somebody, who is gone by now.
        for warning in renewal.during(site.look_back(true)).await? {
            say(&format!("{destination}: {warning}"));
        }
    }
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
    renewal.summary = Some(described(&site, &summary));
    let result = renewal.during(save(arguments, destination, serving, &mut site)).await;
    if let Err(Failure::Fenced(_)) = &result {
        farewell(store.as_ref(), &holder, true).await;
    } else if !matches!(result, Err(Failure::Away(_))) {
        summary.released = true;
        summary.owed = result.is_err() || !site.stuck.is_empty();
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

/// The summary of the place as it is now.
fn described(site: &Site, summary: &State) -> State {
    let totals = site.known.totals();
    State {
        heartbeat: Timestamp::now(),
        last: site.known.last(),
        files: totals.files,
        bytes: totals.bytes,
        beside: site.beside,
        beside_since: site.beside_since,
        pruning: site.pruning.clone(),
        ..summary.clone()
    }
}

/// Writes it.
async fn beat(site: &Site, summary: &State) -> Result<(), Failure> {
    let state = described(site, summary);
    Ok(site.store.write(keys::STATE, &encode(&state)).await?)
}

/// One backup, and then what nobody wants kept goes.
async fn save(
    arguments: &BackupArguments,
    destination: &Destination,
    serving: Option<&Serving>,
    site: &mut Site,
) -> Result<Option<Question>, Failure> {
    // The state that a restore-at value asked for is made a snapshot, and the value is never served again.
    let serving = match serving {
        Some(serving) if !served::is_served(site.store.as_ref(), &serving.value).await? => Some(serving),
        _ => None,
    };
    let kind = if serving.is_some() {
        Kind::Restored
    } else if arguments.is_manual() {
        Kind::Manual
    } else {
        Kind::Scheduled
    };
    let report = site
        .backup(Order {
            kind,
            look: LookAtVolumes {
                changes: Changes {
                    everything: true,
                    ..Changes::default()
                },
                resting: Vec::new(),
                restless: None,
            },
            always: arguments.is_manual() || serving.is_some(),
            most: arguments.backups.max_shrink,
            accepted: arguments.accepted.clone(),
            restored: serving.map(|serving| serving.snapshot),
            rest: Duration::ZERO,
            patience: PATIENCE,
        })
        .await?;
    for remark in report.warnings.iter().chain(&report.remarks) {
        say(&format!("{destination}: {remark}"));
    }
    if let Some(serving) = serving {
        served::record(site.store.as_ref(), &serving.value, serving.snapshot).await?;
    }
    let now = Timestamp::now();
    let day = |time: Timestamp| time.as_second().div_euclid(DAY);
    let last = site.before.as_ref().map(|state| state.heartbeat);
    if last.is_none_or(|last| day(last) != day(now)) {
        // Old by the bucket's rules is what is never written again.
        site.lease.write_again(site.store.as_ref()).await?;
    }
    let retention = &arguments.backups.retention;
    site.prune(retention, Look::Lightly).await?;
    if let Some(news) = site.deletions.news(&destination.to_string()) {
        say(&news);
    }
    let last = site.known.last();
    if let Some(snapshot) = last {
        let saved = Saved {
            destination: destination.to_string(),
            snapshot: snapshot.to_string(),
            store_id: site.lease.store_id.as_ref().map(ToString::to_string),
        };
        last_words::leave(&saved.to_string());
    }
    for question in &report.questions {
        // The one that this run ends with is said then.
        if report.placed.as_ref() != Some(question) {
            say(&format!("{destination}: {question}"));
        }
        last_words::leave(&question.to_string());
    }
    let id = last.map_or_else(|| "there is nothing to save".to_owned(), |id| id.to_string());
    match report.snapshot {
        Some(_) => say(&format!(
            "{destination}: {} files, {} bytes saved\n{id}",
            report.uploaded, report.uploaded_bytes
        )),
        None => say(&format!("{destination}: nothing has changed since\n{id}")),
    }
    Ok(report.placed)
}
