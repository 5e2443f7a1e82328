//! A place → files on a volume: staged beside it, verified, then renamed into place. Writes to the volume only.
//!
//! [`plan`] says what comes from where, [`stage`] fetches and verifies, [`place`] renames. [`bring`] drives them over
//! the snapshots that come into question, the newest first, until one verifies.

pub mod aside;
pub mod at;
pub mod attributes;
pub mod moved;
pub mod place;
pub mod plan;
pub mod stage;
pub mod undo;
pub mod verify;
pub mod way;

use crate::agent::lease::inspect::Backup;
use crate::agent::volume;
use crate::agent::volume::marker::{INCOMING, Mode, OUTGOING};
use crate::agent::volume::own::OwnFolder;
use crate::store::snapshot::SnapshotId;
use crate::store::{Error as StoreError, Store};
use moved::Moved;
use place::Placed;
use plan::{History, Indexes, Plan};
use std::path::Path;

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
    /// No snapshot verifies.
    #[error(
        "none of the {tried} snapshots in {destination} can be restored, so nothing was put in place; the newest: {newest}"
    )]
    NoneVerifies {
        /// Which destination.
        destination: String,
        /// How many were tried.
        tried: usize,
        /// What was wrong with the newest.
        newest: String,
    },
}

/// What was brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// The snapshot; none: by listing.
    pub snapshot: Option<SnapshotId>,
    /// Newer ones that did not verify, and why.
    pub fallen_back: Vec<(SnapshotId, String)>,
    /// What was put in place.
    pub placed: Placed,
    /// The paths that the plan had, files and links only.
    pub paths: Vec<std::path::PathBuf>,
}

/// A restore onto one volume.
pub struct Restore<'a> {
    /// From here.
    pub store: &'a dyn Store,
    /// What lies there.
    pub backup: &'a Backup,
    /// The volume's folder in the bucket.
    pub folder: &'a str,
    /// Onto this volume.
    pub own: &'a OwnFolder,
    /// What happens to files that are there.
    pub mode: Mode,
    /// Only this snapshot, or else the newest that verifies.
    pub at: Option<SnapshotId>,
    /// Contents that lie on the volume under other names, and need not be brought.
    pub moved: &'a Moved,
}

impl Restore<'_> {
    /// Brings the newest snapshot that verifies. Between staging and placing, `before_placing` is called, once, with
    /// the plan that was chosen.
    pub async fn bring(
        &self,
        mut before_placing: impl AsyncFnMut(&Plan) -> Result<(), Error>,
    ) -> Result<Brought, Error> {
        let incoming = self.own.join(INCOMING);
        self.own.create()?;
        let (plan, fallen_back) = self.staged(&incoming).await?;
        before_placing(&plan).await?;
        let placed = place::place(
            &plan,
            self.own.volume(),
            &incoming,
            Some(&self.own.join(OUTGOING)),
            self.mode,
        )?;
        Ok(Brought {
            snapshot: plan.snapshot,
            fallen_back,
            placed,
            paths: plan
                .items
                .into_iter()
                .filter(|item| !matches!(item.what, plan::Planned::Folder(_)))
                .map(|item| item.path)
                .collect(),
        })
    }

    /// The newest plan that verifies, wholly staged.
    async fn staged(&self, incoming: &Path) -> Result<(Plan, Vec<(SnapshotId, String)>), Error> {
        let candidates: Vec<SnapshotId> = match self.at {
            Some(at) => vec![at],
            None => self.backup.snapshots.iter().rev().copied().collect(),
        };
        if candidates.is_empty() {
            let plan = plan::of_listing(self.store, self.folder).await?;
            self.stage(&plan, incoming)
                .await
                .map_err(|wrong| self.none_verifies(&[], wrong))?;
            return Ok((plan, Vec::new()));
        }
        let mut fallen_back: Vec<(SnapshotId, String)> = Vec::new();
        for id in candidates {
            match self.attempt(&id, incoming).await {
                Ok(plan) => return Ok((plan, fallen_back)),
                Err(Attempt::Error(error)) => return Err(error),
                Err(Attempt::Wrong(why)) => {
                    tracing::warn!("snapshot {id} can't be restored, trying the one before it: {why}");
                    fallen_back.push((id, why));
                }
            }
        }
        let newest = fallen_back.first().map(|(id, why)| format!("{id}: {why}"));
        Err(self.none_verifies(&fallen_back, Attempt::Wrong(newest.unwrap_or_default())))
    }

    fn none_verifies(&self, tried: &[(SnapshotId, String)], why: Attempt) -> Error {
        match why {
            Attempt::Error(error) => error,
            Attempt::Wrong(newest) => Error::NoneVerifies {
                destination: self.store.destination(),
                tried: tried.len(),
                newest,
            },
        }
    }

    /// Stages one snapshot.
    async fn attempt(&self, id: &SnapshotId, incoming: &Path) -> Result<Plan, Attempt> {
        let indexes = Indexes::new(self.store, incoming).known(&self.backup.indexes);
        let (_, entries) = indexes.read(id).await?;
        // The newest snapshot's files are in the mirror, unless a backup after it was under way.
        let is_newest = self.backup.newest().as_ref() == Some(id) && self.backup.pending.is_empty();
        if is_newest {
            let plan = self.sound(plan::of_snapshot(*id, entries.clone(), self.folder, None))?;
            match self.stage(&plan, incoming).await {
                Ok(()) => return Ok(plan),
                Err(Attempt::Error(error)) => return Err(Attempt::Error(error)),
                // A writer may have gone on since the place was looked at.
                Err(Attempt::Wrong(why)) => tracing::info!("looking into history: {why}"),
            }
        }
        let history = History::list(self.store).await?;
        let plan = self.sound(plan::of_snapshot(*id, entries, self.folder, Some(&history)))?;
        self.stage(&plan, incoming).await.map(|()| plan)
    }

    /// A plan that stays on its volume, of what is not there.
    fn sound(&self, plan: Plan) -> Result<Plan, Attempt> {
        match plan.stray() {
            None => Ok(moved::without(plan, self.moved, self.own.volume())),
            Some(stray) => Err(Attempt::Wrong(format!("{stray}, which no snapshot of ours has"))),
        }
    }

    async fn stage(&self, plan: &Plan, incoming: &Path) -> Result<(), Attempt> {
        stage::stage(self.store, plan, self.own.volume(), incoming, self.mode)
            .await
            .map_err(|error| match error {
                stage::Error::Store(error) => Attempt::from(error),
                stage::Error::Volume(error) => Attempt::Error(error.into()),
                wrong @ stage::Error::Wrong { .. } => Attempt::Wrong(wrong.to_string()),
            })
    }
}

/// Why one snapshot was not staged.
enum Attempt {
    /// Another one would not be either.
    Error(Error),
    /// This one is damaged.
    Wrong(String),
}

impl From<StoreError> for Attempt {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged { .. } | StoreError::NotFound { .. } => Self::Wrong(error.to_string()),
            error => Self::Error(error.into()),
        }
    }
}
