//! A place → files on a volume: staged beside it, verified, then renamed into place. Writes to the volume only.
//!
//! [`knowledge`] says what is known of the snapshot, [`plan`] what comes from where, [`stage`] fetches and verifies, [`salvage`]
//! looks for what can't be had elsewhere, [`room`] says what is given up where the volume is too small, [`place`] renames. [`bring`] drives them: one damaged object is one file, or one
//! snapshot, and holds nothing else up.
//!
//! [`bring`]: Restore::bring

pub mod aside;
pub mod at;
pub mod attributes;
pub mod knowledge;
pub mod moved;
pub mod place;
pub mod plan;
pub mod room;
pub mod salvage;
pub mod stage;
pub mod undo;
pub mod verify;
pub mod way;

use crate::agent::lease::inspect::Backup;
use crate::agent::volume;
use crate::agent::volume::marker::{INCOMING, Mode, OUTGOING};
use crate::agent::volume::own::OwnFolder;
use crate::store::history::{History, file_of};
use crate::store::index::{HoldId, Standing};
use crate::store::indexes::Indexes;
use crate::store::snapshot::SnapshotId;
use crate::store::{Error as StoreError, Store, keys};
use knowledge::{Knowledge, Planned, Wanted};
use moved::Moved;
use place::Placed;
use plan::Plan;
use room::{Fitted, LeftOut};
use salvage::{Missing, Other, Salvage};
use stage::{Fetch, Kind, Lacking, PROGRESS, Watch};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Why nothing could be restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed; nothing on the volume was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The volume failed.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// Files that a restore would replace could not be brought to safety, so it did not begin.
    #[error("what is on the volume could not be set aside in {destination}, so nothing was replaced: {}", undone.join("; "))]
    NotSetAside {
        /// Which destination.
        destination: String,
        /// Up to five files, and why.
        undone: Vec<String>,
    },
    /// The snapshot that is wanted, and no other, can't be read.
    #[error("the snapshot {id} in {destination} can't be restored, so nothing was put in place: {why}")]
    Unreadable {
        /// Which destination.
        destination: String,
        /// The snapshot.
        id: SnapshotId,
        /// What is wrong with it.
        why: String,
    },
    /// The index leads out of the volume.
    #[error("{destination}: {stray}, which no snapshot of ours has: nothing was put in place")]
    Stray {
        /// Which destination.
        destination: String,
        /// Which path, and why.
        stray: String,
    },
}

impl From<stage::Error> for Error {
    fn from(error: stage::Error) -> Self {
        match error {
            stage::Error::Store(error) => Self::Store(error),
            stage::Error::Volume(error) => Self::Volume(error),
        }
    }
}

/// What was brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// The snapshot; none: by listing.
    pub snapshot: Option<SnapshotId>,
    /// Newer ones whose index is lost, and why.
    pub fallen_back: Vec<(SnapshotId, String)>,
    /// Files that no index knows, or none that can be read: brought because an index is lost.
    pub unverified: Vec<PathBuf>,
    /// Files of which an older version was brought, and the snapshot that it is of.
    pub from_older: Vec<(PathBuf, SnapshotId)>,
    /// Files that nobody has as they should be.
    pub missing: Vec<Missing>,
    /// Held and excluded files for which the volume has no room.
    pub left_out: LeftOut,
    /// Names below the destination: what the mirror has there is not what the newest snapshot says.
    pub damaged: Vec<String>,
    /// What was put in place.
    pub placed: Placed,
    /// The paths that the plan had, files and links only.
    pub paths: Vec<PathBuf>,
}

/// A restore onto one volume.
pub struct Restore<'a> {
    /// From here.
    pub store: &'a dyn Store,
    /// What lies there.
    pub backup: &'a Backup,
    /// Other destinations that answered, and what lies there: for what this one lacks.
    pub others: &'a [(&'a dyn Store, &'a Backup)],
    /// The volume's folder in the bucket.
    pub folder: &'a str,
    /// Onto this volume.
    pub own: &'a OwnFolder,
    /// What happens to files that are there.
    pub mode: Mode,
    /// Which snapshot.
    pub wanted: Wanted,
    /// Contents that lie on the volume under other names, and need not be brought.
    pub moved: &'a Moved,
    /// What of the newest snapshot is held under these may go: it is not brought back.
    pub let_go: &'a BTreeSet<HoldId>,
}

impl Restore<'_> {
    /// Brings the snapshot, as much of it as can be had. Between staging and placing, `before_placing` is called, once, with
    /// the plan that was chosen and what is known of it.
    pub async fn bring(
        &self,
        mut before_placing: impl AsyncFnMut(&Plan, &Brought) -> Result<(), Error>,
    ) -> Result<Brought, Error> {
        let incoming = self.own.join(INCOMING);
        self.own.create()?;
        let (plan, mut brought) = self.staged(&incoming).await?;
        brought.tell(self.folder);
        before_placing(&plan, &brought).await?;
        brought.placed = place::place(
            &plan,
            self.own.volume(),
            &incoming,
            Some(&self.own.join(OUTGOING)),
            self.mode,
        )?;
        brought.paths = plan
            .items
            .into_iter()
            .filter(|item| matches!(item.what, plan::Planned::File(..) | plan::Planned::Link(..)))
            .map(|item| item.path)
            .collect();
        Ok(brought)
    }

    /// What can be had, staged, and what is to be said of the rest.
    async fn staged(&self, incoming: &Path) -> Result<(Plan, Brought), Error> {
        let backup = self.backup;
        let named = backup.state.as_ref().and_then(|state| state.last);
        let indexes = Indexes::new(self.store, incoming).known(&backup.indexes);
        let read = async || knowledge::read(&indexes, &backup.snapshots, named, self.wanted).await;
        let mut known = read().await?;
        if let (Wanted::Exactly(_), None, Some((id, why))) = (self.wanted, &known.whole, known.lost.first()) {
            return Err(Error::Unreadable {
                destination: self.store.destination(),
                id: *id,
                why: why.clone(),
            });
        }
        if known.newest().is_none() && known.lost.is_empty() {
            return self.by_listing(incoming).await;
        }
        let newest = known.newest();
        let watch = Watch {
            every: PROGRESS,
            tell: &|files, bytes| tracing::info!("restoring: {files} files, {bytes} bytes are there"),
        };
        let fetch = Fetch {
            watch,
            ..self.fetch(incoming)
        };
        // The newest snapshot's files are in the mirror, unless a backup after it was under way.
        let is_settled = backup.pending.is_empty();
        let is_newest = is_settled && known.lost.is_empty() && newest == backup.newest();
        let mut history = if is_newest {
            None
        } else {
            Some(History::list(self.store).await?)
        };
        let mut planned = self.planned(&mut known, history.as_ref(), is_settled).await?;
        let mut fitted = fetch.stage_what_fits(&mut planned.plan).await?;
        if !fitted.lacking.is_empty() {
            // A writer may have gone on since the place was looked at: what it replaced has moved to history.
            tracing::info!(
                "{} files are not where they should be: looking into history",
                fitted.lacking.len()
            );
            known = read().await?;
            let now = history.insert(History::list(self.store).await?);
            planned = self.planned(&mut known, Some(now), is_settled).await?;
            fitted = fetch.stage_what_fits(&mut planned.plan).await?;
        }
        let Fitted { lacking, left_out } = fitted;
        let Planned { mut plan, unverified } = planned;
        let mut brought = Brought {
            snapshot: plan.snapshot,
            fallen_back: known.lost,
            unverified,
            damaged: damaged_in_mirror(&lacking),
            left_out,
            ..Brought::default()
        };
        if let (false, Some(history)) = (lacking.is_empty(), &history) {
            let salvage = Salvage {
                fetch: self.fetch(incoming),
                indexes: &indexes,
                snapshots: &backup.snapshots,
                newest,
                history,
                folder: Some(self.folder),
                others: &self.others(incoming),
            };
            let found = salvage.salvage(&mut plan, lacking).await?;
            (brought.from_older, brought.missing) = (found.from_older, found.missing);
        }
        Ok((plan, brought))
    }

    /// A place without snapshots, made by hand.
    async fn by_listing(&self, incoming: &Path) -> Result<(Plan, Brought), Error> {
        let mut plan = self.sound(plan::of_listing(self.store, self.folder).await?)?;
        let lacking = self.fetch(incoming).stage(&plan).await?;
        let history = History::default();
        let salvage = Salvage {
            fetch: self.fetch(incoming),
            indexes: &Indexes::new(self.store, incoming),
            snapshots: &[],
            newest: None,
            history: &history,
            folder: Some(self.folder),
            others: &[],
        };
        let missing = salvage.salvage(&mut plan, lacking).await?.missing;
        let brought = Brought {
            missing,
            ..Brought::default()
        };
        Ok((plan, brought))
    }

    async fn planned(
        &self,
        known: &mut Knowledge,
        history: Option<&History>,
        is_settled: bool,
    ) -> Result<Planned, Error> {
        let Planned { mut plan, unverified } = known.plan(self.store, self.folder, history, is_settled).await?;
        if self.wanted == Wanted::Newest {
            plan.items
                .retain(|item| !matches!(&item.standing, Standing::Held(id) if self.let_go.contains(id)));
        }
        Ok(Planned {
            plan: self.sound(plan)?,
            unverified,
        })
    }

    /// A plan that stays on its volume, of what is not there.
    fn sound(&self, plan: Plan) -> Result<Plan, Error> {
        match plan.stray() {
            None => Ok(moved::without(plan, self.moved, self.own.volume())),
            Some(stray) => Err(Error::Stray {
                destination: self.store.destination(),
                stray,
            }),
        }
    }

    fn fetch<'a>(&'a self, incoming: &'a Path) -> Fetch<'a> {
        Fetch {
            store: self.store,
            volume: self.own.volume(),
            incoming,
            mode: self.mode,
            watch: Watch::nobody(),
            has_snapshots: !self.backup.snapshots.is_empty(),
        }
    }

    fn others(&self, incoming: &Path) -> Vec<Other<'_>> {
        let numbered = self.others.iter().enumerate();
        numbered
            .map(|(number, (store, backup))| Other {
                store: *store,
                snapshots: &backup.snapshots,
                folder: incoming.join(keys::SNAPSHOTS).join(format!("other-{number}")),
            })
            .collect()
    }
}

impl Brought {
    /// What was not as it should be, for the log.
    fn tell(&self, folder: &str) {
        for line in self.told() {
            tracing::error!("{folder}: {line}");
        }
    }

    /// What was not as it should be, a line each.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        const MOST: usize = 20;
        let name =
            |path: &PathBuf| crate::agent::amount::name(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
        let mut lines = Vec::new();
        let lost = self.fallen_back.iter().take(MOST);
        lines.extend(lost.map(|(id, why)| format!("{id} could not be restored as it was: {why}")));
        let older = self.from_older.iter().take(MOST);
        lines.extend(older.map(|(path, id)| {
            format!(
                "{} is an older version, of {id}: the newer one can't be had",
                name(path)
            )
        }));
        let missing = self.missing.iter().take(MOST);
        lines.extend(missing.map(|one| format!("{} is MISSING: {}", name(&one.path), one.why)));
        lines.extend(self.left_out.told());
        if let Some(first) = self.unverified.first() {
            lines.push(format!(
                "{} files, such as {}, came without anything to verify them by: an index is lost, and the bucket has them",
                self.unverified.len(),
                name(first)
            ));
        }
        let told = [self.fallen_back.len(), self.from_older.len(), self.missing.len()];
        let more: usize = told.iter().map(|count| count.saturating_sub(MOST)).sum();
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines
    }
}

/// Of what is lacking, what the mirror should have.
fn damaged_in_mirror(lacking: &[Lacking]) -> Vec<String> {
    let in_mirror = lacking.iter().filter(|one| file_of(&one.key) == one.key);
    in_mirror
        .filter(|one| one.kind != Kind::Unreadable)
        .map(|one| one.key.clone())
        .collect()
}
