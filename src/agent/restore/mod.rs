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

use crate::agent::lease::inspect::{self, Backup};
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
use sha2::{Digest, Sha256};
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

/// Snapshots, and backups that are under way, the newest last.
type Points = (Vec<SnapshotId>, Vec<SnapshotId>);

/// A restore is planned no more often than this while somebody goes on writing what it is about.
const LOOKS: usize = 10;

/// Where the indexes of a store are kept below `incoming`: another may have others of the same names.
#[must_use]
pub fn indexes_in(incoming: &Path, store: &dyn Store) -> PathBuf {
    let hash = Sha256::digest(store.destination());
    incoming
        .join(keys::SNAPSHOTS)
        .join(keys::hex(hash.get(..8).unwrap_or_default()))
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
        let folder = indexes_in(incoming, self.store);
        let indexes = Indexes::new(self.store, &folder).known(&backup.indexes);
        let named = backup.state.as_ref().and_then(|state| state.last);
        // As they were when the place was looked at. A writer may go on meanwhile.
        let mut points = (backup.snapshots.clone(), backup.pending.clone());
        let mut known = self.known(&indexes, &mut points, named).await?;
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
        let watch = Watch {
            every: PROGRESS,
            tell: &|files, bytes| tracing::info!("restoring: {files} files, {bytes} bytes are there"),
        };
        let fetch = Fetch {
            watch,
            ..self.fetch(incoming)
        };
        // The newest snapshot's files are in the mirror, unless a backup after it was under way.
        let is_newest = points.1.is_empty() && known.lost.is_empty() && known.newest() == backup.newest();
        let mut history = if is_newest {
            None
        } else {
            Some(History::list(self.store).await?)
        };
        let mut looks = 0;
        loop {
            looks += 1;
            let is_settled = points.1.is_empty();
            let newest = known.newest();
            let Planned { mut plan, unverified } = self.planned(&mut known, history.as_ref(), is_settled).await?;
            let Fitted { lacking, left_out } = fetch.stage_what_fits(&mut plan).await?;
            let mut brought = Brought {
                snapshot: plan.snapshot,
                fallen_back: std::mem::take(&mut known.lost),
                unverified,
                damaged: damaged_in_mirror(&lacking),
                left_out,
                ..Brought::default()
            };
            if lacking.is_empty() {
                return Ok((plan, brought));
            }
            // What was replaced since history was listed has moved there: nothing is missing before that was looked at.
            let files: BTreeSet<String> = lacking.iter().map(|one| file_of(&one.key).to_owned()).collect();
            let (mut now, mut since) = (History::list(self.store).await?, self.points(&points).await?);
            let is_last = looks >= LOOKS;
            let agrees = history.as_ref().is_some_and(|then| then.agrees(&now, &files)) && since.0 == points.0;
            if agrees || is_last {
                let salvage = Salvage {
                    fetch: self.fetch(incoming),
                    indexes: &indexes,
                    snapshots: &points.0,
                    newest,
                    history: &now,
                    folder: Some(self.folder),
                    others: &self.others(incoming),
                };
                let found = salvage.salvage(&mut plan, lacking).await?;
                let is_whole = found.from_older.is_empty() && found.missing.is_empty();
                // That took its time.
                let mut is_believed = is_whole || is_last;
                if !is_believed {
                    let then = now;
                    (now, since) = (History::list(self.store).await?, self.points(&points).await?);
                    is_believed = then.agrees(&now, &files) && since.0 == points.0;
                }
                (brought.from_older, brought.missing) = (found.from_older, found.missing);
                if is_believed {
                    return Ok((plan, brought));
                }
            }
            tracing::info!(
                "{} files are not where they should be: looking into history",
                files.len()
            );
            (history, points) = (Some(now), since);
            known = self.known(&indexes, &mut points, named).await?;
        }
    }

    /// What is known of the snapshot that is wanted. Where the newest can't be read, it may have been thinned out since it was
    /// listed: the snapshots (and the backups that are under way) are listed again before an older one is taken.
    async fn known(
        &self,
        indexes: &Indexes<'_>,
        points: &mut Points,
        named: Option<SnapshotId>,
    ) -> Result<Knowledge, StoreError> {
        let mut looks = 0;
        loop {
            looks += 1;
            let known = knowledge::read(indexes, &points.0, named, self.wanted).await?;
            if self.wanted != Wanted::Newest || known.lost.is_empty() || looks >= LOOKS {
                return Ok(known);
            }
            let listed = self.points(points).await?;
            if listed.0 == points.0 {
                return Ok(known);
            }
            *points = listed;
        }
    }

    /// The points of the place as they are now, where the newest is wanted: what that was may have been thinned out since these
    /// were listed, and what it had with it. A store that shows none any more says nothing.
    async fn points(&self, known: &Points) -> Result<Points, StoreError> {
        if self.wanted != Wanted::Newest {
            return Ok(known.clone());
        }
        let listed = inspect::points(self.store).await?;
        Ok(if listed.0.is_empty() { known.clone() } else { listed })
    }

    /// A place without snapshots, made by hand.
    async fn by_listing(&self, incoming: &Path) -> Result<(Plan, Brought), Error> {
        let mut plan = self.sound(plan::of_listing(self.store, self.folder).await?)?;
        let lacking = self.fetch(incoming).stage(&plan).await?;
        let history = History::default();
        let folder = indexes_in(incoming, self.store);
        let salvage = Salvage {
            fetch: self.fetch(incoming),
            indexes: &Indexes::new(self.store, &folder),
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
        let others = self.others.iter();
        let others = others.map(|(store, backup)| Other {
            store: *store,
            snapshots: &backup.snapshots,
            indexes: &backup.indexes,
            folder: indexes_in(incoming, *store),
        });
        others.collect()
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
