//! One volume and what the destinations said → the row and the column of the table, and its word. Reads the newest
//! snapshot's index where contents have to be compared.

use super::coverage::{Coverage, cover, remnant};
use super::newest::Newest;
use super::{Decided, Said, Survey, with_causes};
use crate::agent::arguments::RestorePolicy;
use crate::agent::init::Init;
use crate::agent::init::decision::{Answer, Decision, Found, decide};
use crate::agent::init::subject::Subject;
use crate::agent::lease::inspect::Backup;
use crate::agent::lease::judge::Since;
use crate::agent::restore::moved::Moved;
use crate::agent::restore::plan::{Plan, of_listing};
use crate::agent::volume::files::Files;
use crate::agent::volume::look::{VolumeState, look_past};
use crate::agent::volume::marker::Mode;
use crate::store::snapshot::SnapshotId;
use crate::store::{Error as StoreError, Store};
use std::path::PathBuf;

/// The table's word for one volume.
pub(super) async fn decided(init: &Init<'_>, survey: &Survey, subject: &Subject, is_emptied: bool) -> Decided {
    let nobody = Backup::default();
    let source = survey.source(init.stores);
    let backup = source.map_or(&nobody, |(_, backup)| backup);
    let any_unknown = survey.said.iter().any(|said| matches!(said, Said::Nothing(_)));
    let answer = match source {
        Some(_) => Answer::Backup {
            newer: is_newer(survey.newest, subject),
        },
        None if any_unknown => Answer::Unreachable,
        None => Answer::NoBackup,
    };
    let (mut because, mut moved) = (None, Moved::new());
    let mut is_known = answer != Answer::Unreachable;
    let (found, answer) = match (&subject.state, source) {
        (VolumeState::Empty, _) => (Found::Empty, answer),
        (VolumeState::Provisional(_), _) => (Found::Provisional, answer),
        // What was being restored is gone for good, and it was said to begin anew: with what is there.
        (VolumeState::Interrupted(restoring), None)
            if answer == Answer::NoBackup && !survey.weighed.anew.is_empty() =>
        {
            (left_over(restoring.placing, init, subject), answer)
        }
        (VolumeState::Interrupted(restoring), _) => {
            if let (Mode::Missing, Some((store, backup))) = (restoring.mode, source) {
                let coverage = covered(store, backup, subject).await;
                moved = coverage.map(|coverage| coverage.moved).unwrap_or_default();
            }
            (Found::Interrupted, answer)
        }
        (VolumeState::Initialised(_), _) if is_superseded(backup, subject) => (Found::Superseded, answer),
        (VolumeState::Initialised(_), None) if is_emptied => (Found::Emptied, answer),
        (VolumeState::Initialised(_), Some((store, backup))) => match emptied(init, store, backup, subject).await {
            Ok(Some(coverage)) => {
                because = Some(format!(
                    "the volume was emptied: only {} were left (to start with these, set vixens.io/backup-restore: never)",
                    coverage.left()
                ));
                moved = coverage.moved;
                (Found::Emptied, answer)
            }
            Ok(None) => (Found::Initialised, answer),
            Err(error) => {
                tracing::warn!("{}", with_causes(&error));
                is_known = false;
                (Found::Initialised, answer)
            }
        },
        (VolumeState::Initialised(_), None) => (Found::Initialised, answer),
        (VolumeState::Foreign | VolumeState::Others(_), None) => (Found::Foreign, answer),
        (VolumeState::Foreign | VolumeState::Others(_), Some((store, backup))) => {
            match covered(store, backup, subject).await {
                // What an init container of the owner has generated beside all of it stays too.
                Ok(coverage) if coverage.is_most(init.arguments.max_shrink) || coverage.is_apart() => {
                    moved = coverage.moved;
                    (Found::Foreign, answer)
                }
                Ok(coverage) => {
                    because = Some(format!(
                        "the volume had files that we did not bring, and only {coverage} of the backup's"
                    ));
                    (Found::ForeignLacking, answer)
                }
                // An index that can't be read is no answer.
                Err(error) => {
                    tracing::warn!("{}", with_causes(&error));
                    (Found::Foreign, Answer::Unreachable)
                }
            }
        }
    };
    let decision = decide(found, answer, init.arguments.restore, init.arguments.store_down);
    let restores = matches!(decision, Decision::SetAsideAndRestore | Decision::RestoreMissing);
    Decided {
        because: because.filter(|_| restores),
        decision,
        moved,
        is_known,
    }
}

/// What a volume is whose restore is never finished.
fn left_over(placing: bool, init: &Init<'_>, subject: &Subject) -> Found {
    match look_past(&subject.own, init.owner) {
        Ok(VolumeState::Empty) => Found::Empty,
        // Nothing of the restore was put in its place yet.
        Ok(VolumeState::Initialised(_)) if !placing => Found::Initialised,
        _ => Found::Foreign,
    }
}

/// Whether the newest snapshot was made from another volume than this, since this was last claimed.
fn is_newer(newest: Option<SnapshotId>, subject: &Subject) -> bool {
    subject.epoch() == 0 || newest.is_some_and(|id| id.epoch > subject.epoch())
}

/// Whether the place's claim names another volume, is no older than this one's, and was used since.
fn is_superseded(backup: &Backup, subject: &Subject) -> bool {
    let names_another = backup.claim.as_ref().is_some_and(|claim| {
        let recorded = subject.marker.as_ref().map_or(&subject.folder, |marker| &marker.folder);
        let mut volumes = claim.volumes.iter();
        let same = volumes.find(|volume| volume.folder == *recorded);
        same.is_some_and(|volume| volume.id != subject.id)
    });
    let since = subject.marker.as_ref().and_then(|marker| marker.since.as_ref());
    let stands_still = since == Some(&Since::of(backup));
    names_another && !stands_still && backup.holder().is_some_and(|holder| holder.epoch >= subject.epoch())
}

/// How much is left of what the newest snapshot has live, if that is next to nothing, and nobody has been asked about it. What
/// can't be read says nothing.
async fn emptied(
    init: &Init<'_>,
    store: &dyn Store,
    backup: &Backup,
    subject: &Subject,
) -> Result<Option<Coverage>, StoreError> {
    let few = usize::try_from(remnant(backup.files_at_most)).unwrap_or(usize::MAX);
    let left = Files::on(subject.own.volume()).take(few.saturating_add(1)).count();
    if init.arguments.restore == RestorePolicy::Never || backup.newest().is_none() || left > few {
        return Ok(None);
    }
    let newest = Newest::read(store, backup, &subject.own).await?;
    // Somebody is to decide about what vanished: the sidecar's guard has asked.
    if newest.holds(&subject.folder) {
        return Ok(None);
    }
    let (plan, databases) = newest.live(&subject.folder);
    let coverage = compared(plan, databases, subject).await?;
    Ok(Some(coverage).filter(Coverage::is_remnant))
}

/// How much of what the place has live for it a volume has. Of several snapshots, of the newest that can be read.
async fn covered(store: &dyn Store, backup: &Backup, subject: &Subject) -> Result<Coverage, StoreError> {
    let newest = match backup.newest() {
        Some(_) => Newest::read(store, backup, &subject.own).await.map(Some),
        None => Ok(None),
    };
    let (plan, databases) = match newest {
        Ok(Some(newest)) => newest.live(&subject.folder),
        // Nothing tells what its files were: then what is there by name and size has to do.
        Ok(None) | Err(StoreError::Damaged { .. } | StoreError::NotFound { .. }) => {
            (of_listing(store, &subject.folder).await?, Vec::new())
        }
        Err(error) => return Err(error),
    };
    compared(plan, databases, subject).await
}

async fn compared(plan: Plan, databases: Vec<PathBuf>, subject: &Subject) -> Result<Coverage, StoreError> {
    let root = subject.own.volume().to_owned();
    let compared = tokio::task::spawn_blocking(move || {
        let databases = databases.iter().map(PathBuf::as_path);
        cover(&plan, databases, &root)
    });
    compared.await.map_err(|error| StoreError::Local {
        what: format!("{} can't be compared with its backup", subject.own.volume().display()),
        source: std::io::Error::other(error),
    })
}
