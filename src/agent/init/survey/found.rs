//! One volume and what the destinations said → the row and the column of the table, and its word. Reads the newest
//! snapshot's index where contents have to be compared.

use super::coverage::{Coverage, cover};
use super::{Decided, Said, Survey, with_causes};
use crate::agent::init::Init;
use crate::agent::init::decision::{Answer, Decision, Found, decide};
use crate::agent::init::subject::Subject;
use crate::agent::lease::inspect::Backup;
use crate::agent::lease::judge::Since;
use crate::agent::restore::moved::Moved;
use crate::agent::restore::plan::{Plan, of_listing, of_snapshot};
use crate::agent::volume::look::VolumeState;
use crate::agent::volume::marker::{INCOMING, Mode};
use crate::store::indexes::Indexes;
use crate::store::{Error as StoreError, Store};
use std::path::PathBuf;

/// The table's word for one volume.
pub(super) async fn decided(init: &Init<'_>, survey: &Survey, subject: &Subject) -> Decided {
    let nobody = Backup::default();
    let source = survey.source(init.stores);
    let backup = source.map_or(&nobody, |(_, backup)| backup);
    let any_unknown = survey.said.iter().any(|said| matches!(said, Said::Nothing(_)));
    let answer = match source {
        Some(_) => Answer::Backup {
            newer: is_newer(backup, subject),
        },
        None if any_unknown => Answer::Unreachable,
        None => Answer::NoBackup,
    };
    let (mut because, mut moved) = (None, Moved::new());
    let (found, answer) = match (&subject.state, source) {
        (VolumeState::Empty, _) => (Found::Empty, answer),
        (VolumeState::Provisional(_), _) => (Found::Provisional, answer),
        (VolumeState::Interrupted(restoring), _) => {
            if let (Mode::Missing, Some((store, backup))) = (restoring.mode, source) {
                let coverage = covered(store, backup, subject).await;
                moved = coverage.map(|coverage| coverage.moved).unwrap_or_default();
            }
            (Found::Interrupted, answer)
        }
        (VolumeState::Initialised(_), _) if is_superseded(backup, subject) => (Found::Superseded, answer),
        (VolumeState::Initialised(_), _) => (Found::Initialised, answer),
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
    Decided {
        because: because.filter(|_| decision == Decision::SetAsideAndRestore),
        decision,
        moved,
    }
}

/// Whether the newest snapshot was made from another volume than this, since this was last claimed.
fn is_newer(backup: &Backup, subject: &Subject) -> bool {
    subject.epoch() == 0 || backup.newest().is_some_and(|id| id.epoch > subject.epoch())
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

/// How much of what the place has for it a volume has. Of several snapshots, of the newest that can be read.
async fn covered(store: &dyn Store, backup: &Backup, subject: &Subject) -> Result<Coverage, StoreError> {
    let (plan, databases) = newest(store, backup, subject).await?;
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

/// What a restore of the newest snapshot would bring, and the databases that it leaves to their replicas.
async fn newest(store: &dyn Store, backup: &Backup, subject: &Subject) -> Result<(Plan, Vec<PathBuf>), StoreError> {
    if backup.newest().is_none() {
        return Ok((of_listing(store, &subject.folder).await?, Vec::new()));
    }
    let incoming = subject.own.join(INCOMING);
    subject.own.create().map_err(|error| StoreError::Local {
        what: format!("{} can't be made", incoming.display()),
        source: std::io::Error::other(error),
    })?;
    let indexes = Indexes::new(store, &incoming).known(&backup.indexes);
    for id in backup.snapshots.iter().rev() {
        match indexes.read(id).await {
            Ok((header, entries)) => {
                let replicated = header
                    .databases
                    .iter()
                    .filter(|position| position.folder == subject.folder && position.file.is_none());
                let databases = replicated.map(|position| PathBuf::from(&position.path)).collect();
                return Ok((of_snapshot(*id, entries, &subject.folder, None), databases));
            }
            Err(error @ (StoreError::Damaged { .. } | StoreError::NotFound { .. })) => {
                tracing::warn!("{}; the snapshot before it is looked at", with_causes(&error));
            }
            Err(error) => return Err(error),
        }
    }
    // Nothing tells what its files were: then what is there by name and size has to do.
    Ok((of_listing(store, &subject.folder).await?, Vec::new()))
}
