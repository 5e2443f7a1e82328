//! Staged files → the mirror, and before that what they replace → history. What the store does not do with one of them is that
//! one's trouble: see [`super::stuck`]. Part of [`Site`].

use super::{Begun, Failure, Site};
use crate::agent::filters::Skipped;
use crate::agent::sidecar::batch::{Batch, blocking, with_sources};
use crate::agent::sidecar::known::doubted;
use crate::agent::sidecar::stage::{Left, Piece, Stage, Staged};
use crate::store::{self, Depth, Undone, Upload, keys, listed};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Before what a store did not take is tried again.
const BREATH: Duration = Duration::from_secs(1);
/// So often a file is tried before it waits for another backup.
const ATTEMPTS: usize = 2;

/// Names below the destination, and why not.
pub(super) type Unkept = BTreeMap<String, String>;

/// A file that the store did not take.
pub(super) struct Refused {
    piece: Piece,
    why: String,
}

impl Begun {
    /// So many files are not saved as they are.
    pub(super) fn count_stuck(&mut self, files: usize) {
        if files > 0 {
            self.report.stuck += files as u64;
            *self.report.skipped.entry(Skipped::Stuck).or_default() += files as u64;
        }
    }
}

impl Site {
    /// Copies what is about to be replaced or deleted from the mirror into history. What could not be copied is returned: it must
    /// stay where it is.
    pub(super) async fn keep(&self, names: &[String], begun: &mut Begun) -> Result<Unkept, Failure> {
        if names.is_empty() {
            return Ok(Unkept::new());
        }
        let undone = self.store.copy("", &keys::history_of(&begun.id), names).await?;
        if undone.is_empty() {
            return Ok(Unkept::new());
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
        // Should the store have gone, everything is done again once it is back.
        self.require_claim().await?;
        Ok(kept.into_iter().map(|one| (one.name, one.why)).collect())
    }

    /// What could not be kept is not replaced: what is new of it waits. And where its file is gone, it is not deleted.
    pub(super) fn leave_unkept(&mut self, batch: &mut Batch, mut unkept: Unkept, begun: &mut Begun) {
        let waiting = batch.part(|piece| unkept.contains_key(&piece.name()));
        for piece in &waiting {
            let why = unkept.remove(&piece.name()).unwrap_or_default();
            self.stuck.add(
                &piece.record.entry.path,
                &format!("what it replaces could not be kept: {why}"),
            );
        }
        begun.count_stuck(waiting.len());
        for (name, why) in unkept {
            if batch.keep(&name) {
                begun.report.warnings.push(format!(
                    "{} can't move {name} to history, whose file is gone ({why}): it stays where it is",
                    self.store.destination()
                ));
                begun.unkept.insert(name);
            }
        }
    }

    /// What the store did not take waits. Whatever it has there now, snapshots say of it what it was: that is put back as far as
    /// it goes, and lies in history besides.
    pub(super) async fn leave_refused(
        &mut self,
        batch: &mut Batch,
        refused: Vec<Refused>,
        begun: &mut Begun,
    ) -> Result<(), Failure> {
        let names: Vec<String> = refused.iter().map(|one| one.piece.name()).collect();
        let back: Vec<String> = names.into_iter().filter(|name| begun.replaced.contains(name)).collect();
        if !back.is_empty() {
            let undone = self.store.copy(&keys::history_of(&begun.id), "", &back).await?;
            if let Some(first) = undone.first() {
                tracing::warn!(
                    destination = %self.store.destination(),
                    "{} of {} files could not be put back, such as {}: {}",
                    undone.len(),
                    back.len(),
                    first.name,
                    first.why
                );
            }
        }
        begun.count_stuck(refused.len());
        for Refused { piece, why } in refused {
            let path = &piece.record.entry.path;
            self.stuck.add(path, &why);
            if let Some(known) = piece.known {
                batch.outcome(path.clone(), Some(doubted(known)));
            }
        }
        Ok(())
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
        for (name, _) in self.keep(&names, begun).await? {
            begun.strangers.remove(&name);
            begun.unkept.insert(name);
        }
        Ok(())
    }

    /// Uploads, again as copies what changed meanwhile, and again what a store that stumbles did not take, as long as each
    /// attempt gets something done. What it does not take though it was tried, one by one, is returned.
    pub(super) async fn upload(
        &mut self,
        mut stage: Stage,
        mut pieces: Vec<Piece>,
        begun: &mut Begun,
    ) -> Result<(Stage, Vec<Piece>, Vec<Refused>), Failure> {
        let (mut uploaded, mut refused) = (Vec::new(), Vec::new());
        let mut attempts: BTreeMap<String, usize> = BTreeMap::new();
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
                let failed = missing.one_by_one && missing.names.contains_key(&piece.name());
                piece.direct && (failed || !stage.rested(piece))
            });
            let (mut taken, mut left) = taken
                .into_iter()
                .partition::<Vec<_>, _>(|piece| !missing.names.contains_key(&piece.name()));
            if !left.is_empty() {
                if done.is_empty() && !missing.one_by_one {
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
            if missing.one_by_one {
                let is_over = |piece: &Piece| {
                    let attempts = attempts.entry(piece.name()).or_default();
                    *attempts += 1;
                    *attempts >= ATTEMPTS
                };
                let over;
                (over, left) = left.into_iter().partition::<Vec<_>, _>(is_over);
                refused.extend(over.into_iter().map(|piece| Refused {
                    why: missing.names.get(&piece.name()).cloned().unwrap_or_default(),
                    piece,
                }));
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
        Ok((stage, uploaded, refused))
    }
}

/// What an upload left out.
struct Missing {
    /// And what was said of each.
    names: BTreeMap<String, String>,
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
            names: undone.iter().map(|one| (one.name.clone(), one.why.clone())).collect(),
            one_by_one: true,
            failure: Failure::Undone {
                what: "not everything could be uploaded",
                count: files.len(),
                undone,
            },
        }),
        Err(error @ store::Error::Unreachable { .. }) if !done.is_empty() => {
            let names = files.iter().map(|file| &file.name);
            let why = error.to_string();
            Ok(Missing {
                names: names
                    .filter(|name| !done.contains(*name))
                    .map(|name| (name.clone(), why.clone()))
                    .collect(),
                one_by_one: false,
                failure: error.into(),
            })
        }
        Err(error) => Err(error.into()),
    }
}
