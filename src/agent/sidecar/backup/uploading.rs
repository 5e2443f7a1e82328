//! Staged files → the mirror, and before that what they replace → history. Part of [`Site`].

use super::{Begun, Failure, Site};
use crate::agent::sidecar::batch::{blocking, with_sources};
use crate::agent::sidecar::stage::{Left, Piece, Stage, Staged};
use crate::store::{self, Depth, Undone, Upload, keys, listed};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Before what a store did not take is tried again.
const BREATH: Duration = Duration::from_secs(1);

impl Site {
    /// Copies what is about to be replaced or deleted from the mirror into history.
    pub(super) async fn keep(&self, names: &[String], begun: &mut Begun) -> Result<(), Failure> {
        if names.is_empty() {
            return Ok(());
        }
        let undone = self.store.copy("", &keys::history_of(&begun.id), names).await?;
        if undone.is_empty() {
            return Ok(());
        }
        // What the mirror has lost can't be kept; anything else must be.
        let there = self.there(&undone).await?;
        let (kept, lost): (Vec<Undone>, Vec<Undone>) = undone.into_iter().partition(|one| there.contains(&one.name));
        for one in lost {
            begun.report.warnings.push(format!(
                "{} has lost {}: earlier snapshots can't give it back",
                self.store.destination(),
                one.name
            ));
        }
        if kept.is_empty() {
            return Ok(());
        }
        Err(Failure::Undone {
            what: "what is replaced could not be kept in history",
            count: names.len(),
            undone: kept,
        })
    }

    /// What is in the mirror beside these, and these as far as they are.
    pub(in crate::agent::sidecar) async fn there(&self, undone: &[Undone]) -> Result<BTreeSet<String>, Failure> {
        let mut there = BTreeSet::new();
        let folders: BTreeSet<&str> = undone
            .iter()
            .filter_map(|one| one.name.rsplit_once('/'))
            .map(|(folder, _)| folder)
            .collect();
        for folder in folders {
            for object in listed(self.store.as_ref(), folder, Depth::One).await? {
                there.insert(format!("{folder}/{}", object.name));
            }
        }
        Ok(there)
    }

    /// Keeps the strangers that are left in history, before they leave the mirror: but for halves of uploads, which are of no use
    /// to anybody.
    pub(super) async fn part(&self, begun: &mut Begun) -> Result<(), Failure> {
        let whole = begun.strangers.iter().filter(|name| !keys::is_partial(name));
        let names: Vec<String> = whole.cloned().collect();
        self.keep(&names, begun).await
    }

    /// Uploads, again as copies what changed meanwhile, and again what a store that stumbles did not take, as long as each
    /// attempt gets something done.
    pub(super) async fn upload(
        &mut self,
        mut stage: Stage,
        mut pieces: Vec<Piece>,
        begun: &mut Begun,
    ) -> Result<(Stage, Vec<Piece>), Failure> {
        let mut uploaded = Vec::new();
        while !pieces.is_empty() {
            let files: Vec<Upload> = pieces
                .iter()
                .map(|piece| Upload {
                    local: piece.local.clone(),
                    name: piece.name(),
                })
                .collect();
            let done = Mutex::new(BTreeSet::new());
            let note = |name: &str| {
                done.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(name.to_owned());
            };
            let result = self.store.upload("", &files, &note).await;
            let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
            for piece in &pieces {
                if done.contains(&piece.name()) && stage.rested(piece) {
                    self.leave(piece, begun);
                }
            }
            let missing = missing(result, &files, &done)?;
            let (restless, taken) = pieces.into_iter().partition::<Vec<_>, _>(|piece| {
                let failed = missing.one_by_one && missing.names.contains(&piece.name());
                piece.direct && (failed || !stage.rested(piece))
            });
            let (mut taken, left) = taken
                .into_iter()
                .partition::<Vec<_>, _>(|piece| !missing.names.contains(&piece.name()));
            if !left.is_empty() {
                if done.is_empty() {
                    return Err(missing.failure);
                }
                tracing::warn!(
                    destination = %self.store.destination(),
                    "{}; {} of {} files were uploaded, going on with the rest",
                    with_sources(&missing.failure),
                    done.len(),
                    files.len()
                );
                tokio::time::sleep(BREATH).await;
                self.require_claim().await?;
            }
            uploaded.append(&mut taken);
            pieces = left;
            // Copies hold still: this ends after the second round.
            let again;
            let scope = self.scope.clone();
            (stage, again) = blocking(move || {
                let _turn = scope.turn();
                let mut again = Vec::new();
                for piece in restless {
                    let name = piece.name();
                    again.push((name, piece.record.entry.path.clone(), stage.again(&piece)));
                }
                Ok::<_, Failure>((stage, again))
            })
            .await?;
            for (name, path, staged) in again {
                match staged.map_err(|source| self.unusable(source))? {
                    Staged::Upload(piece) => pieces.push(piece),
                    Staged::Left(Left::Unreadable(_, error)) => return Err(self.unusable(error)),
                    Staged::Left(_) | Staged::Same(_) => begun.withdrawn.push((name, path)),
                }
            }
        }
        Ok((stage, uploaded))
    }
}

/// What an upload left out.
struct Missing {
    names: BTreeSet<String>,
    /// Each was tried, and something is wrong with it alone; else the store went away in the middle.
    one_by_one: bool,
    /// What there is to say of it.
    failure: Failure,
}

/// What of an upload may be tried again; an error where that is of no use.
fn missing(
    result: Result<Vec<Undone>, store::Error>,
    files: &[Upload],
    done: &BTreeSet<String>,
) -> Result<Missing, Failure> {
    match result {
        Ok(undone) => Ok(Missing {
            names: undone.iter().map(|one| one.name.clone()).collect(),
            one_by_one: true,
            failure: Failure::Undone {
                what: "not everything could be uploaded",
                count: files.len(),
                undone,
            },
        }),
        Err(error @ store::Error::Unreachable { .. }) if !done.is_empty() => {
            let names = files.iter().map(|file| &file.name);
            Ok(Missing {
                names: names.filter(|name| !done.contains(*name)).cloned().collect(),
                one_by_one: false,
                failure: error.into(),
            })
        }
        Err(error) => Err(error.into()),
    }
}
