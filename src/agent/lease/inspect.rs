//! A destination's place → what is there for us: claims, snapshots, or files laid there by hand. Reads only, and keeps
//! *there is a backup*, *there is none* and *nobody knows* apart: the last is always an error.

use crate::store::claims::{self, Claim, Holder, Kinship, Owner};
use crate::store::index::IndexReader;
use crate::store::keys::{self, SnapshotObject};
use crate::store::records::Damage;
use crate::store::snapshot::SnapshotId;
use crate::store::state::{self, Mode, State};
use crate::store::store_id::{self, StoreId};
use crate::store::{Contents, Depth, Error, Object, Presence, Store, listed};

/// An index up to this size is read along with the claim of its place, before anybody knows whether it is needed.
const LARGEST_ALONG: u64 = 1 << 20;

/// No file's line in an index is shorter, in bytes: its SHA-256 alone has 64 digits.
const SHORTEST_LINE: u64 = 90;

/// What two listings show of a place: enough for volumes that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The holder last.
    pub claims: Vec<Holder>,
    /// The newest snapshot.
    pub newest: Option<SnapshotId>,
    /// No more files than these are in it.
    pub files_at_most: u64,
}

/// What lies at a place that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A claim, a snapshot or files of ours.
    Backup(Box<Backup>),
    /// The listing succeeded, and had nothing of ours.
    Nothing {
        /// Not even the bucket is there.
        bucket_missing: bool,
        /// Folders that are none of ours.
        strangers: Vec<String>,
    },
}

/// A place that is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backup {
    /// The holder last.
    pub claims: Vec<Holder>,
    /// The holder's claim; none too where it is damaged, and its name alone tells who holds the place.
    pub claim: Option<Claim>,
    /// Where the holder's claim is damaged: the newest of the others that can be read.
    pub earlier: Option<Claim>,
    /// The holder's summary.
    pub state: Option<State>,
    /// Snapshots that are whole, the newest last.
    pub snapshots: Vec<SnapshotId>,
    /// Backups that are, or were, under way, the newest last.
    pub pending: Vec<SnapshotId>,
    /// No more files than these are in the newest snapshot.
    pub files_at_most: u64,
    /// There is no snapshot, but the mirror has files: made by hand with the guide, or never finished.
    pub by_listing: bool,
    /// Which store it is.
    pub store_id: Option<StoreId>,
    /// What was read of the newest snapshot's indexes, for whoever restores.
    pub indexes: Contents,
}

/// Whose place it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Ours, or nobody's.
    Ours,
    /// The same workload's of another cluster.
    OtherCluster(Owner),
    /// Another workload's.
    Others(Owner),
}

impl Place {
    /// Why this is nothing that a backup could come from: whoever knows that there was one does not believe it.
    #[must_use]
    pub fn is_bare(&self) -> Option<String> {
        match self {
            Self::Nothing {
                bucket_missing: true, ..
            } => Some("its bucket does not exist".to_owned()),
            Self::Nothing { .. } => Some("nothing of ours is there".to_owned()),
            Self::Backup(backup) if backup.snapshots.is_empty() && !backup.by_listing => {
                Some("it has no snapshot, and no file of ours".to_owned())
            }
            Self::Backup(_) => None,
        }
    }
}

impl Backup {
    /// The highest epoch that anything there has: whoever claims the place goes beyond, also where claims have expired.
    #[must_use]
    pub fn highest_epoch(&self) -> u64 {
        let snapshots = self.snapshots.iter().chain(&self.pending).map(|id| id.epoch);
        let state = self.state.iter().map(|state| state.epoch);
        let claims = self.claims.iter().map(|holder| holder.epoch);
        snapshots.chain(state).chain(claims).max().unwrap_or(0)
    }

    /// The newest snapshot.
    #[must_use]
    pub fn newest(&self) -> Option<SnapshotId> {
        self.snapshots.last().copied()
    }

    /// The snapshots, and the one that the summary names as the last where it is not listed any more: its twin may be there.
    #[must_use]
    pub fn with_named(&self) -> Vec<SnapshotId> {
        let named = self.state.as_ref().and_then(|state| state.last);
        let listed = self.newest().map(|id| id.point());
        let unlisted = named.filter(|named| Some(named.point()) > listed);
        self.snapshots.iter().copied().chain(unlisted).collect()
    }

    /// Whose it is: as the holder's claim tells it, or where that is damaged another claim, or the place's summary.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        let told = self.claim.as_ref().or(self.earlier.as_ref());
        told.map(|claim| &claim.owner)
            .or_else(|| self.state.as_ref()?.owner.as_ref())
    }

    /// The claim that holds the place.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        self.claims.last()
    }

    /// The summary, where the holder wrote it.
    #[must_use]
    pub fn summary(&self) -> Option<&State> {
        let holder = self.holder()?;
        let is_its = |state: &&State| state.epoch == holder.epoch && state.volume_id == holder.volume_id;
        self.state.as_ref().filter(is_its)
    }

    /// Whether nobody writes here, by the holder's own word. Where backups are made by the runs of a CronJob, a claim that no
    /// run has used yet is nobody at work.
    #[must_use]
    pub fn has_let_go(&self) -> bool {
        match self.summary() {
            Some(summary) => summary.released,
            None => self.holder().is_none() || self.is_written_by_runs(),
        }
    }

    /// Whether backups are made here by the runs of a CronJob: between two of them nothing tells that anybody is there.
    #[must_use]
    pub fn is_written_by_runs(&self) -> bool {
        self.state
            .as_ref()
            .is_some_and(|state| state.mode == Some(Mode::Cronjob))
    }

    /// Whose it is, from our view.
    #[must_use]
    pub fn whose(&self, us: &Owner) -> Whose {
        let Some(owner) = self.owner() else {
            return Whose::Ours;
        };
        match owner.kinship(us) {
            Kinship::Same => Whose::Ours,
            Kinship::Other => Whose::Others(owner.clone()),
            Kinship::OtherCluster => Whose::OtherCluster(owner.clone()),
        }
    }
}

/// Looks at a place for these volume folders. Each is asked for by its name: a listing that leaves something out must
/// not make a place look empty.
pub async fn look(store: &dyn Store, folders: &[String]) -> Result<Place, Error> {
    look_and_read(store, folders, 0).await
}

/// The same, for whoever is about to restore: what the newest snapshot is read from comes along.
pub async fn look_to_restore(store: &dyn Store, folders: &[String]) -> Result<Place, Error> {
    look_and_read(store, folders, LARGEST_ALONG).await
}

/// Looks at who holds a place, and how much it has at most.
pub async fn outline(store: &dyn Store) -> Result<Outline, Error> {
    let (claims, _, points) = listings(store).await?;
    Ok(Outline {
        claims,
        newest: points.snapshots.last().copied(),
        files_at_most: points.files_at_most,
    })
}

/// The snapshots of a place, and the backups that are under way, the newest last.
pub async fn points(store: &dyn Store) -> Result<(Vec<SnapshotId>, Vec<SnapshotId>), Error> {
    let objects = listed(store, keys::SNAPSHOTS, Depth::All).await?;
    let Points { snapshots, pending, .. } = Points::of_listing(store, &objects)?;
    Ok((snapshots, pending))
}

async fn listings(store: &dyn Store) -> Result<(Vec<Holder>, Vec<Object>, Points), Error> {
    let mut listings = store.list_all(&[keys::CLAIMS, keys::SNAPSHOTS]).await?.into_iter();
    let claims = claims::of_listing(store, &listings.next().unwrap_or_default())?;
    let objects = listings.next().unwrap_or_default();
    let points = Points::of_listing(store, &objects)?;
    Ok((claims, objects, points))
}

async fn look_and_read(store: &dyn Store, folders: &[String], largest: u64) -> Result<Place, Error> {
    let (claims, objects, points) = listings(store).await?;
    let mut by_listing = false;
    if points.snapshots.is_empty() {
        for folder in folders {
            if !by_listing {
                let mirror = keys::mirror(folder);
                let mut each = |object: Object| by_listing |= !keys::is_partial(&object.name);
                store.list(&mirror, Depth::All, &mut each).await?;
            }
        }
    }
    if claims.is_empty() && points.snapshots.is_empty() && points.pending.is_empty() && !by_listing {
        return nothing(store).await;
    }
    let holder = claims.last();
    let claim_key = holder.map(Holder::key);
    let along = points.indexes_of_newest(&objects, largest);
    let wanted: Vec<&str> = [keys::STATE, keys::STORE_ID]
        .into_iter()
        .chain(claim_key.as_deref())
        .chain(along.iter().map(String::as_str))
        .collect();
    let mut read = store.read_all(&wanted).await?;
    let state = read.remove(keys::STATE);
    let store_id = read.remove(keys::STORE_ID);
    for (key, index) in read.iter().filter(|(key, _)| along.contains(key)) {
        // One that is damaged is for whoever needs it.
        if let Err(newer @ Damage::Newer(_)) = IndexReader::new(index.as_slice()) {
            return Err(newer.of(store.destination(), key));
        }
    }
    let claim = match holder {
        Some(holder) => match read.remove(&holder.key()) {
            Some(bytes) => unless_damaged(claims::of_bytes(store, holder, &bytes))?,
            None => unless_damaged(claims::read(store, holder).await)?,
        },
        None => None,
    };
    let earlier = match &claim {
        Some(_) => None,
        None => earlier(store, &claims).await?,
    };
    let Points {
        snapshots,
        pending,
        files_at_most,
        ..
    } = points;
    let backup = Backup {
        claims,
        claim,
        earlier,
        state: state.and_then(|bytes| state::of_bytes(store, &bytes)),
        snapshots,
        pending,
        files_at_most,
        by_listing,
        store_id: store_id.and_then(|bytes| store_id::of_bytes(store, &bytes)),
        indexes: read,
    };
    if let (Some(holder), None) = (backup.holder(), backup.owner()) {
        tracing::warn!(
            "{}: {} is damaged, and nothing else there says whose files these are: they are taken for this workload's own",
            store.destination(),
            holder.key()
        );
    }
    Ok(Place::Backup(Box::new(backup)))
}

/// A claim that can be read; a damaged one is said, and costs what it told beside its name.
fn unless_damaged(claim: Result<Claim, Error>) -> Result<Option<Claim>, Error> {
    match claim {
        Ok(claim) => Ok(Some(claim)),
        Err(error @ Error::Damaged { .. }) => {
            tracing::warn!("{error}; its name still tells who holds the place");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The newest claim before the holder's that can be read.
async fn earlier(store: &dyn Store, claims: &[Holder]) -> Result<Option<Claim>, Error> {
    for holder in claims.iter().rev().skip(1) {
        match claims::read(store, holder).await {
            // Pruned between the two.
            Err(error) if error.is_not_found() => {}
            other => {
                if let Some(claim) = unless_damaged(other)? {
                    return Ok(Some(claim));
                }
            }
        }
    }
    Ok(None)
}

/// An empty answer counts only where it can be believed.
async fn nothing(store: &dyn Store) -> Result<Place, Error> {
    let mut strangers = Vec::new();
    // What a writer of ours says of a place is none.
    let mut keep = |object: Object| {
        if ![keys::STATE, keys::STORE_ID].contains(&object.name.as_str()) {
            strangers.push(object.name);
        }
    };
    let presence = store.list("", Depth::One, &mut keep).await?;
    let root = store.probe().await?;
    Ok(Place::Nothing {
        bucket_missing: presence == Presence::Missing || root == Presence::Missing,
        strangers,
    })
}

/// The points in time of a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Points {
    /// Whole ones, the newest last.
    snapshots: Vec<SnapshotId>,
    /// Those under way, the newest last.
    pending: Vec<SnapshotId>,
    /// Those that others may build on, in no order.
    bases: Vec<SnapshotId>,
    /// No more files than these are in the newest.
    files_at_most: u64,
}

impl Points {
    /// Those in a listing of the snapshots' folder.
    fn of_listing(store: &dyn Store, objects: &[Object]) -> Result<Self, Error> {
        let mut points = Self::default();
        for object in objects {
            match keys::of_snapshot(&object.name) {
                SnapshotObject::Index(id) => points.snapshots.push(id),
                SnapshotObject::Pending(id) => points.pending.push(id),
                SnapshotObject::Base(id) => points.bases.push(id),
                SnapshotObject::Newer => return Err(keys::newer(&store.destination(), &object.name)),
                SnapshotObject::Foreign => {}
            }
        }
        points.snapshots.sort_unstable();
        points.pending.sort_unstable();
        points.pending.retain(|id| !points.snapshots.contains(id));
        points.files_at_most = points.most_files(objects);
        Ok(points)
    }

    /// The lines that the newest snapshot's index and the one that it builds on have room for.
    fn most_files(&self, objects: &[Object]) -> u64 {
        let Some(newest) = self.snapshots.last() else {
            return 0;
        };
        let size = |id: &SnapshotId| {
            let name = format!("{id}.json");
            let index = objects.iter().find(|object| object.name == name);
            index.map_or(0, |index| index.size)
        };
        // Whichever of its epoch it is; where the marks of those are lost, it may be any.
        let marked = self
            .bases
            .iter()
            .filter(|base| base.epoch == newest.epoch)
            .map(size)
            .max();
        let base = marked.or_else(|| {
            self.snapshots
                .iter()
                .filter(|id| id.epoch == newest.epoch)
                .map(size)
                .max()
        });
        (size(newest) + base.unwrap_or(0)) / SHORTEST_LINE
    }

    /// The index of the newest snapshot, and the one that it most likely builds on, where they are no larger than this.
    fn indexes_of_newest(&self, objects: &[Object], largest: u64) -> Vec<String> {
        let Some(newest) = self.snapshots.last() else {
            return Vec::new();
        };
        let base = self
            .bases
            .iter()
            .filter(|base| base.epoch == newest.epoch && base.sequence <= newest.sequence)
            .max_by_key(|base| base.sequence);
        let sound = |id: &&SnapshotId| {
            let name = format!("{id}.json");
            objects
                .iter()
                .any(|object| object.name == name && object.size <= largest)
        };
        let mut indexes: Vec<&SnapshotId> = base.into_iter().chain([newest]).filter(sound).collect();
        indexes.dedup();
        indexes.into_iter().map(keys::snapshot).collect()
    }
}

#[cfg(test)]
mod tests;
