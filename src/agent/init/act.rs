//! A decision about one volume → the volume as it was decided: kept, set aside, restored. Writes to the volume, and to
//! the store only what is set aside.

use super::decision::Decision;
use super::missing::{self, Gap};
use super::pause::Pause;
use super::subject::Subject;
use super::survey::{Decided, Survey};
use super::{Error, Init};
use crate::agent::arguments::RestorePolicy;
use crate::agent::lease::inspect::Backup;
use crate::agent::lease::reverted::told;
use crate::agent::restore::knowledge::Wanted;
use crate::agent::restore::plan::{Plan, of_listing, of_snapshot};
use crate::agent::restore::undo::Undo;
use crate::agent::restore::{self, Brought, Restore, aside, indexes_in};
use crate::agent::start::Status;
use crate::agent::volume::look::VolumeState;
use crate::agent::volume::marker::{INCOMING, Mode, RESTORING, Restoring};
use crate::store::index::{Entry, Header, HoldId};
use crate::store::indexes::Indexes;
use crate::store::records::VERSION;
use crate::store::snapshot::{Kind, SnapshotId};
use crate::store::{Error as StoreError, Store, decisions, keys};
use jiff::Timestamp;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// What became of a volume.
pub(super) struct Outcome {
    /// Whether it may be backed up.
    pub(super) status: Status,
    /// One sentence for people.
    pub(super) why: String,
    /// What was restored.
    pub(super) brought: Option<Brought>,
    /// What of it could not be.
    pub(super) gaps: Vec<Gap>,
    /// It may differ from the newest snapshot by any amount.
    pub(super) adopted: bool,
    /// Whether the marker is written: a volume of which nobody knows whether it is ours stays unmarked.
    pub(super) marked: bool,
    /// It has data from before this start.
    pub(super) kept: bool,
}

impl Outcome {
    fn settled(why: impl Into<String>) -> Self {
        Self {
            status: Status::Settled,
            why: why.into(),
            brought: None,
            gaps: Vec::new(),
            adopted: false,
            marked: true,
            kept: false,
        }
    }

    fn kept(why: impl Into<String>) -> Self {
        Self {
            kept: true,
            ..Self::settled(why)
        }
    }
}

/// Does what was decided for one volume.
pub(super) async fn act(
    init: &Init<'_>,
    subject: &Subject,
    decided: &Decided,
    survey: &Survey,
) -> Result<Outcome, Error> {
    let mut outcome = done(init, subject, decided, survey).await?;
    for (number, reverted) in survey
        .reverted
        .iter()
        .filter(|(_, reverted)| reverted.volume == subject.name)
    {
        let destination = init.stores.get(*number).map(|store| store.destination());
        let told = told(&destination.unwrap_or_default(), &reverted.snapshot, reverted.marked);
        tracing::warn!("volume {}: {told}", subject.name);
        outcome.why = format!("{}; {told}", outcome.why);
    }
    for remark in &survey.remarks {
        tracing::warn!("volume {}: {remark}", subject.name);
        outcome.why = format!("{}; {remark}", outcome.why);
    }
    Ok(outcome)
}

async fn done(init: &Init<'_>, subject: &Subject, decided: &Decided, survey: &Survey) -> Result<Outcome, Error> {
    Ok(match decided.decision {
        Decision::Keep => Outcome::kept("kept: its data is newer than its backup"),
        Decision::Adopt => Outcome {
            adopted: true,
            ..Outcome::kept("adopted with the files that were on it; the store had nothing")
        },
        Decision::AdoptOverBackup => {
            tracing::warn!(
                "volume {} is kept as it is, and nothing is restored, though the store has a backup: \
                 vixens.io/backup-restore is never",
                subject.name
            );
            Outcome {
                adopted: true,
                ..Outcome::settled("kept as it is, though the store has a backup: vixens.io/backup-restore is never")
            }
        }
        Decision::New => Outcome::settled("new: the store answered, and has no backup"),
        Decision::KeepSuperseded => Outcome {
            status: Status::Fenced,
            ..Outcome::kept(format!(
                "kept, but the store has been written from another volume since: {}",
                survey.superseded_by(subject)
            ))
        },
        Decision::KeepUnknown => Outcome {
            status: Status::Fenced,
            marked: false,
            ..Outcome::kept("kept with the files that were on it; not backed up, because the store could not be asked")
        },
        Decision::StartProvisional => Outcome {
            status: Status::Provisional,
            ..Outcome::settled("started on vanilla, because the store could not be asked")
        },
        Decision::Restore => bring(init, subject, Mode::Whole, decided, survey).await?,
        Decision::RestoreMissing => bring(init, subject, Mode::Missing, decided, survey).await?,
        Decision::SetAsideAndRestore => bring(init, subject, Mode::Replace, decided, survey).await?,
        Decision::AskAgain => {
            return Err(Error::StoreAway {
                waited: init.arguments.restore_timeout.to_string(),
                last: survey.last_answers(),
            });
        }
        Decision::FailInterrupted => return Err(unfinished(init, subject)),
    })
}

fn unfinished(init: &Init<'_>, subject: &Subject) -> Error {
    let snapshot = match &subject.state {
        VolumeState::Interrupted(Restoring { snapshot: Some(id), .. }) => id.to_string(),
        _ => "the files in the bucket".to_owned(),
    };
    let why = if init.arguments.restore == RestorePolicy::Never {
        "vixens.io/backup-restore is never"
    } else {
        "what was being restored is gone from the store"
    };
    Error::Unfinished {
        path: subject.own.volume().to_owned(),
        snapshot,
        why: why.to_owned(),
    }
}

/// Restores one volume, and tries again while the store comes and goes, until the timeout.
async fn bring(
    init: &Init<'_>,
    subject: &Subject,
    mode: Mode,
    decided: &Decided,
    survey: &Survey,
) -> Result<Outcome, Error> {
    let Some((store, backup)) = survey.source(init.stores) else {
        return Ok(Outcome::settled("new: the store answered, and has no backup"));
    };
    if backup.snapshots.is_empty() && !backup.by_listing {
        return Ok(Outcome::settled(
            "new: the place is claimed, but nothing was ever backed up",
        ));
    }
    let is_another =
        |restoring: &Restoring| survey.at.is_some() && restoring.serves.is_none() && restoring.mode != Mode::Replace;
    let (resumed, mode) = match &subject.state {
        // What a restore of now has put in place so far is no part of the point that somebody asks for since: it gives way.
        VolumeState::Interrupted(restoring) if is_another(restoring) => (None, Mode::Replace),
        // What an interrupted restore does with files that are there was decided when it began; so was its point, while
        // the store still has it: files of it may be in their places.
        VolumeState::Interrupted(restoring) => (Some(restoring), restoring.mode),
        _ => (None, mode),
    };
    let wanted = survey.at.as_ref().map(|serving| serving.snapshot);
    let placing = resumed.filter(|resumed| resumed.placing);
    let begun = placing
        .and_then(|placing| placing.snapshot)
        .filter(|snapshot| backup.snapshots.contains(snapshot));
    let at = wanted.or(begun);
    if mode == Mode::Replace
        && resumed.is_none()
        && let Some(why) = retried(init, async || knows_nothing(store, backup, subject, at).await).await?
    {
        tracing::warn!("volume {}: {why}", subject.name);
        return Ok(Outcome {
            adopted: !matches!(subject.state, VolumeState::Initialised(_)),
            ..Outcome::kept(why)
        });
    }
    let restoring = Restoring {
        version: VERSION,
        id: subject.id.clone(),
        owner: init.owner.clone(),
        destination: store.destination(),
        snapshot: at.or(backup.newest()),
        mode,
        placing: placing.is_some(),
        serves: match placing {
            Some(placing) => placing.serves.clone(),
            None => survey.at.as_ref().map(|serving| serving.value.clone()),
        },
        time: Timestamp::now(),
        damaged: resumed.map(|resumed| resumed.damaged.clone()).unwrap_or_default(),
    };
    // Said before anything is fetched: should the store forget its backup meanwhile, this is no new volume.
    subject.own.write(RESTORING, &restoring)?;
    let what = restoring
        .snapshot
        .map_or_else(|| "by listing".to_owned(), |id| id.to_string());
    tracing::info!("restoring volume {} from {}, {what}", subject.name, store.destination());
    let others = survey.others(init.stores);
    let let_go = let_go(init, store).await;
    let restore = |wanted| Restore {
        store,
        backup,
        others: &others,
        folder: &subject.folder,
        own: &subject.own,
        mode,
        wanted,
        moved: &decided.moved,
        let_go: &let_go,
    };
    let aside = RefCell::new(None);
    let is_written = Cell::new(placing.is_some());
    let before_placing = async |plan: &Plan, brought: &Brought| {
        let undo = checked(subject, plan, mode)?;
        if mode == Mode::Replace && placing.is_none() {
            let kept = set_aside(store, backup, plan, subject, survey).await?;
            *aside.borrow_mut() = kept;
        }
        if let Some(undo) = undo {
            undo.write(&subject.own, !is_written.replace(true))?;
        }
        // From here on the volume is neither what it was nor what it will be.
        let placing = Restoring {
            placing: true,
            damaged: all_damaged(&restoring, brought),
            ..restoring.clone()
        };
        Ok(subject.own.write(RESTORING, &placing)?)
    };
    let brought = retried(init, async || {
        let exactly = at.map_or(Wanted::Newest, Wanted::Exactly);
        match restore(exactly).bring(before_placing).await {
            // It was begun with a snapshot whose index is lost since: with what is known now it goes on.
            Err(restore::Error::Unreadable { .. }) if wanted.is_none() => {
                restore(Wanted::Newest).bring(before_placing).await
            }
            other => other,
        }
    })
    .await?;
    let brought = Brought {
        damaged: all_damaged(&restoring, &brought),
        ..brought
    };
    let is_newest = brought.snapshot.is_some() && brought.snapshot == backup.newest();
    let id = brought
        .snapshot
        .map_or_else(|| "the files in the bucket".to_owned(), |id| id.to_string());
    let mut why = format!("restored from {id}");
    if let Some(because) = &decided.because {
        why = format!("{why}, because {because}");
    }
    if let Some(aside) = aside.into_inner() {
        why = format!("{why}; {aside}");
    }
    if decided.because.is_some() {
        tracing::warn!("volume {}: {why}", subject.name);
    }
    Ok(Outcome {
        adopted: !is_newest || brought.placed.kept > 0,
        gaps: missing::gaps(subject.own.volume(), &brought.missing),
        brought: Some(brought),
        ..Outcome::settled(why)
    })
}

/// The holds that somebody has accepted, and that nobody has acted upon yet: the sidecar of this start does.
async fn let_go(init: &Init<'_>, store: &dyn Store) -> BTreeSet<HoldId> {
    let mut holds = BTreeSet::new();
    for id in &init.arguments.accepted {
        if let Ok(hold) = id.as_str().parse()
            // Where that can't be asked, what is held comes back.
            && let Ok(false) = decisions::is_decided(store, id).await
        {
            holds.insert(hold);
        }
    }
    holds
}

/// Why a volume can't be replaced by what a snapshot has of it: that was made before the volume was backed up, and nothing of it
/// is older than the volume's own files.
async fn knows_nothing(
    store: &dyn Store,
    backup: &Backup,
    subject: &Subject,
    at: Option<SnapshotId>,
) -> Result<Option<String>, restore::Error> {
    let Some(id) = at.or(backup.newest()) else {
        let is_empty = of_listing(store, &subject.folder).await?.items.is_empty();
        let why = || {
            format!(
                "kept as it is: {} has no files of {}/",
                store.destination(),
                subject.folder
            )
        };
        return Ok(is_empty.then(why));
    };
    subject.own.create()?;
    let Some((header, entries)) = read(store, backup, subject, &id).await? else {
        // What is to be done then is for the restore to say.
        return Ok(None);
    };
    let is_its = |entry: &Entry| entry.place().0 == subject.folder.as_bytes();
    let is_known = header.volumes.iter().any(|volume| volume.folder == subject.folder) || entries.iter().any(is_its);
    Ok((!is_known).then(|| format!("kept as it is: the snapshot {id} has no folder {}/", subject.folder)))
}

/// A snapshot; none where it can't be read.
async fn read(
    store: &dyn Store,
    backup: &Backup,
    subject: &Subject,
    id: &SnapshotId,
) -> Result<Option<(Header, Vec<Entry>)>, StoreError> {
    let folder = indexes_in(&subject.own.join(INCOMING), store);
    match Indexes::new(store, &folder).known(&backup.indexes).read(id).await {
        Ok(read) => Ok(Some(read)),
        Err(error) if !error.retry_helps() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Looks whether everything can be put in place, and how what gives way is to be put back.
fn checked(subject: &Subject, plan: &Plan, mode: Mode) -> Result<Option<Undo>, restore::Error> {
    if mode == Mode::Whole {
        return Ok(None);
    }
    let undo = Undo::of(plan, subject.own.volume(), &subject.own.join(INCOMING), mode)?;
    undo.check(subject.own.volume())?;
    Ok(Some(undo).filter(|_| mode == Mode::Replace))
}

/// What was found damaged, now and by the attempts before.
fn all_damaged(restoring: &Restoring, brought: &Brought) -> Vec<String> {
    let damaged = restoring.damaged.iter().chain(&brought.damaged);
    damaged.collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

/// What is on the volume and in no snapshot goes into history before it is replaced. Says where it is, if there was any.
async fn set_aside(
    store: &dyn Store,
    backup: &Backup,
    plan: &Plan,
    subject: &Subject,
    survey: &Survey,
) -> Result<Option<String>, restore::Error> {
    let newest = match backup.newest() {
        Some(newest) if plan.snapshot != Some(newest) => match read(store, backup, subject, &newest).await? {
            Some((_, entries)) => of_snapshot(newest, entries, &subject.folder, None),
            // One that can't be read has nothing to offer.
            None => Plan::default(),
        },
        _ => Plan::default(),
    };
    let id = SnapshotId::new(Timestamp::now(), survey.highest_epoch() + 1, 0, Kind::Restored);
    let files = aside::set_aside(store, &[plan, &newest], &subject.own, &subject.folder, &subject.id, id).await?;
    Ok((files > 0).then(|| {
        format!(
            "what was on it and in no snapshot ({files} files) is kept for 30 days, in {}/{}",
            store.destination(),
            keys::aside(&id, &subject.folder)
        )
    }))
}

/// Tries again while the store is away and there is time.
async fn retried<T>(init: &Init<'_>, mut attempt: impl AsyncFnMut() -> Result<T, restore::Error>) -> Result<T, Error> {
    let mut pause = Pause::first();
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(restore::Error::Store(newer @ StoreError::Newer { .. })) => return Err(Error::NewerRelease(newer)),
            // A volume without room, or a tool that is missing, is for somebody to look at now.
            Err(restore::Error::Store(error))
                if !matches!(error, StoreError::Local { .. }) && pause.ends_before(init.deadline) =>
            {
                pause.rest(error).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
