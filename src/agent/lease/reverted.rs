//! A storage that was put back to an older state, as Longhorn and ZFS do it: the volume is the same, its marker is older
//! than what the store has from this very volume. What the store has newer is pinned, before anything is written over it.

use super::inspect::Backup;
use crate::agent::volume::marker::Marker;
use crate::store::records::{Pin, VERSION, encode};
use crate::store::snapshot::SnapshotId;
use crate::store::{Error, Store, keys};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a marker said of its volume: the state that the volume was in, for a destination that was away then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// The volume's id.
    pub id: String,
    /// The epoch of the last claim that named it.
    pub epoch: u64,
    /// The start that the marker was of.
    pub time: Timestamp,
    /// Starts after that one, which came from the same state: what was claimed under one of them is in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<Timestamp>,
}

/// So many starts are remembered.
const MOST_STARTS: usize = 100;

impl Marked {
    /// Another start has come from this state, as the marker that it left says.
    pub fn goes_on(&mut self, marker: &Self) {
        if self.time != marker.time && !self.starts.contains(&marker.time) {
            let too_many = (self.starts.len() + 1).saturating_sub(MOST_STARTS);
            self.starts.drain(..too_many);
            self.starts.push(marker.time);
        }
    }
}

impl From<&Marker> for Marked {
    fn from(marker: &Marker) -> Self {
        Self {
            id: marker.id.clone(),
            epoch: marker.epoch,
            time: marker.time,
            starts: Vec::new(),
        }
    }
}

/// The newest snapshot, where it was made from this volume under an epoch that the volume's marker is older than.
///
/// A later claim alone says nothing: a start that was killed before it wrote its marker leaves one, and nobody has written
/// under it. Nor does one that the sidecar has made since, under the very start that the marker is of.
#[must_use]
pub fn newer(backup: &Backup, marker: &Marked) -> Option<SnapshotId> {
    let claim = backup.claim.as_ref()?;
    let is_its = claim.volumes.iter().any(|volume| volume.id == marker.id);
    let is_in_order = |start: Timestamp| start == marker.time || marker.starts.contains(&start);
    let is_later = claim.epoch > marker.epoch && !claim.start.is_some_and(is_in_order);
    let newest = backup.newest()?;
    (is_its && is_later && marker.epoch > 0 && newest.epoch > marker.epoch).then_some(newest)
}

/// The pin's name: one a snapshot, however often it is written.
fn name(snapshot: &SnapshotId) -> String {
    format!("reverted-{snapshot}")
}

/// Pins the snapshot.
pub async fn pin(store: &dyn Store, snapshot: SnapshotId, volume: &str) -> Result<(), Error> {
    let pin = Pin {
        version: VERSION,
        snapshot,
        time: Timestamp::now(),
        reason: format!(
            "the volume {volume} was put back to a state before this snapshot, which was made from it: delete this pin once \
             nothing of it is needed"
        ),
    };
    store.write(&keys::pin(&name(&snapshot)), &encode(&pin)).await
}

/// What is said of it.
#[must_use]
pub fn told(destination: &str, snapshot: &SnapshotId, marked: u64) -> String {
    format!(
        "its storage was put back to an older state (it was last started under epoch {marked}, and {destination} has {snapshot} \
         from this very volume): what that has newer is pinned there as {}; to go on from it, set \
         vixens.io/backup-restore-at: {snapshot}",
        keys::pin(&name(snapshot))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::claims::{Claim, ClaimedVolume, Owner};
    use crate::store::memory::Memory;

    fn place(epoch: u64, volumes: [&str; 2], newest: u64) -> Backup {
        let claimed = |id: &str| ClaimedVolume {
            name: format!("volume {id}"),
            folder: format!("folder {id}"),
            id: id.to_owned(),
        };
        let claim = Claim {
            version: VERSION,
            epoch,
            owner: owner(),
            pod: "app-1".to_owned(),
            generation: String::new(),
            volumes: volumes.map(claimed).into(),
            time: Timestamp::UNIX_EPOCH,
            start: Some(START),
        };
        Backup {
            claims: vec![claim.holder()],
            claim: Some(claim),
            snapshots: vec![format!("20261122T130500Z-{newest}.7-auto").parse().unwrap()],
            ..Backup::default()
        }
    }

    #[test]
    fn a_marker_that_is_older_than_what_was_saved_from_its_volume_is_told_and_nothing_else() {
        for (place, marked, expected) in [
            (place(7, ["aa", "bb"], 7), 5, true),
            (place(7, ["bb", "aa"], 7), 5, true),
            (place(8, ["aa", "bb"], 7), 5, true),
            (place(7, ["aa", "bb"], 7), 7, false),
            // Killed between claim and marker.
            (place(7, ["aa", "bb"], 6), 6, false),
            // Another volume took over, or this one was not protected meanwhile: these are other questions.
            (place(7, ["bb", "cc"], 7), 5, false),
            // Without a marker's word nothing is older.
            (place(7, ["aa", "bb"], 7), 0, false),
        ] {
            assert_eq!(newer(&place, &marker(marked)).is_some(), expected, "{place:?} {marked}");
        }
        assert_eq!(newer(&Backup::default(), &marker(5)), None);
        let same_start = Marked {
            time: START,
            ..marker(5)
        };
        assert_eq!(
            newer(&place(7, ["aa", "bb"], 7), &same_start),
            None,
            "the sidecar has claimed it"
        );
    }

    const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn marker(epoch: u64) -> Marked {
        Marked {
            id: "aa".to_owned(),
            epoch,
            time: Timestamp::UNIX_EPOCH,
            starts: Vec::new(),
        }
    }

    fn owner() -> Owner {
        Owner {
            cluster: String::new(),
            namespace: "home".to_owned(),
            kind: "Deployment".to_owned(),
            name: "app".to_owned(),
            pod: String::new(),
        }
    }

    #[tokio::test]
    async fn a_snapshot_is_pinned_once_however_often_that_is_done() {
        let store = Memory::default();
        let snapshot = "20261122T130500Z-7.7-auto".parse().unwrap();
        pin(&store, snapshot, "data").await.unwrap();
        pin(&store, snapshot, "data").await.unwrap();
        let keys: Vec<String> = store.objects().keys().cloned().collect();
        assert_eq!(keys, ["pins/reverted-20261122T130500Z-7.7-auto.json"]);
        assert!(told("minio:b/app", &snapshot, 5).contains(&keys[0]));
    }
}
