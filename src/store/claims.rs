//! Claims: who writes at a place. A listing of `claims/` and the claims themselves → whose place it is, and who holds
//! it. Immutable objects, because rclone has no compare-and-swap and a late write must not erase a claim: write one,
//! list, and the highest epoch, then the smallest volume id, wins.

use super::records::{Damage, VERSION, decode, encode};
use super::{Depth, Error, Exchanged, Object, Store, keys, listed};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose files they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The UID of the cluster's kube-system namespace; empty where nobody said.
    #[serde(default)]
    pub cluster: String,
    /// The workload's namespace.
    pub namespace: String,
    /// Deployment or StatefulSet.
    pub kind: String,
    /// The workload's name.
    pub name: String,
    /// A StatefulSet's pod, whose place it is; empty for a Deployment, whose pods follow each other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            namespace,
            kind,
            name,
            pod,
        } = self;
        write!(f, "{kind}/{name} in namespace {namespace}")?;
        if !pod.is_empty() {
            write!(f, ", pod {pod}")?;
        }
        if !cluster.is_empty() {
            write!(f, ", cluster {cluster}")?;
        }
        Ok(())
    }
}

/// Whose place it is, from the view of somebody who comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinship {
    /// Ours.
    Same,
    /// The same workload of another cluster: recovery, once that one is silent.
    OtherCluster,
    /// Another workload: never.
    Other,
}

impl Owner {
    /// Compares the owner of a place with us. A cluster that either side does not know is no difference.
    #[must_use]
    pub fn kinship(&self, us: &Self) -> Kinship {
        let workload = |owner: &Self| {
            (
                owner.namespace.clone(),
                owner.kind.clone(),
                owner.name.clone(),
                owner.pod.clone(),
            )
        };
        if workload(self) != workload(us) {
            Kinship::Other
        } else if self.cluster == us.cluster || self.cluster.is_empty() || us.cluster.is_empty() {
            Kinship::Same
        } else {
            Kinship::OtherCluster
        }
    }
}

/// `claims/<epoch>-<volume id>.json`: somebody writes here, from this epoch on. Never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// See [`VERSION`].
    pub version: u32,
    /// One more than any claim that was there.
    pub epoch: u64,
    /// Whose files they are.
    pub owner: Owner,
    /// The pod that claims, for messages and to know it again.
    #[serde(default)]
    pub pod: String,
    /// The revision of the pod's template; a live writer of the same one means that somebody scaled up.
    #[serde(default)]
    pub generation: String,
    /// The volumes; the first one's id is in the claim's name.
    pub volumes: Vec<ClaimedVolume>,
    /// When it was written.
    pub time: Timestamp,
    /// The start of the pod under which it was written, as its volumes' markers have it: by `init`, or by the sidecar since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
}

/// A volume of a claim. Its folder stays with it when its mount path changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedVolume {
    /// The pod volume's name.
    pub name: String,
    /// Its folder in the bucket.
    pub folder: String,
    /// The id in its marker.
    pub id: String,
}

/// A claim as its name tells it: enough to know who holds the place. Ordered so that the greatest holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Of the claim.
    pub epoch: u64,
    /// Of the claimant's first volume.
    pub volume_id: String,
}

impl Holder {
    /// The claim's key.
    #[must_use]
    pub fn key(&self) -> String {
        keys::claim(self.epoch, &self.volume_id)
    }
}

impl PartialOrd for Holder {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Holder {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.epoch, &other.volume_id).cmp(&(other.epoch, &self.volume_id))
    }
}

impl Claim {
    /// The claim as its name tells it.
    #[must_use]
    pub fn holder(&self) -> Holder {
        Holder {
            epoch: self.epoch,
            volume_id: self.volumes.first().map(|volume| volume.id.clone()).unwrap_or_default(),
        }
    }
}

/// The claims that a listing of `claims/` shows, the holder last. A name of our shape and an unknown kind is of a newer
/// release, and may hold the place; other names are somebody's.
pub fn in_order<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<Holder>, Damage> {
    let mut holders = Vec::new();
    for name in names {
        if let Some((epoch, volume_id)) = keys::of_claim(name) {
            holders.push(Holder {
                epoch,
                volume_id: volume_id.to_owned(),
            });
        } else if keys::is_newer_claim(name) {
            return Err(Damage::Newer(format!(
                "it has {name:?}, and this release knows no such claim"
            )));
        }
    }
    holders.sort_unstable();
    Ok(holders)
}

/// Lists the claims of a place, the holder last: one request.
pub async fn list(store: &dyn Store) -> Result<Vec<Holder>, Error> {
    of_listing(store, &listed(store, keys::CLAIMS, Depth::All).await?)
}

/// The claims in a listing of their folder, the one that holds the place last.
pub fn of_listing(store: &dyn Store, objects: &[Object]) -> Result<Vec<Holder>, Error> {
    in_order(objects.iter().map(|object| object.name.as_str()))
        .map_err(|damage| damage.of(store.destination(), keys::CLAIMS))
}

/// The claims among what was read of their folder, the one that holds the place last.
pub fn of_exchange(store: &dyn Store, found: &Exchanged) -> Result<Vec<Holder>, Error> {
    let claims = found.keys().filter(|(folder, _)| folder == keys::CLAIMS);
    in_order(claims.map(|(_, name)| name.as_str())).map_err(|damage| damage.of(store.destination(), keys::CLAIMS))
}

/// Reads a claim.
pub async fn read(store: &dyn Store, holder: &Holder) -> Result<Claim, Error> {
    of_bytes(store, holder, &store.read(&holder.key()).await?)
}

/// The claim of this holder, in these bytes of a store. Of one that is damaged the name holds all the same: whose it is has to
/// be asked elsewhere.
pub fn of_bytes(store: &dyn Store, holder: &Holder, bytes: &[u8]) -> Result<Claim, Error> {
    let damaged = |damage: Damage| damage.of(store.destination(), holder.key());
    let claim: Claim = decode(bytes).map_err(damaged)?;
    if claim.holder() == *holder {
        Ok(claim)
    } else {
        Err(damaged(Damage::broken("it is not the claim that its name says")))
    }
}

/// What came of claiming a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is ours, with this epoch.
    Held(u64),
    /// Somebody claimed it at the same time, or later, and won.
    Lost(Holder),
}

/// Claims a place: writes `claim` with an epoch above every claim in `seen` and above `floor` (the volume's own last
/// epoch), lists, and says who won. Whether it may be claimed at all is the caller's to decide before.
pub async fn take(store: &dyn Store, mut claim: Claim, seen: &[Holder], floor: u64) -> Result<Taken, Error> {
    let highest = seen.last().map_or(0, |holder| holder.epoch).max(floor);
    claim.version = VERSION;
    claim.epoch = highest + 1;
    let ours = claim.holder();
    store.write(&ours.key(), &encode(&claim)).await?;
    let now = list(store).await?;
    match now.last() {
        Some(holder) if *holder == ours => Ok(Taken::Held(ours.epoch)),
        Some(holder) if *holder > ours => Ok(Taken::Lost(holder.clone())),
        // Written, answered with success, and not there: this store does not keep what it takes.
        _ => Err(Error::Unreachable {
            destination: store.destination(),
            why: format!("{} was written, but the listing does not show it", ours.key()),
        }),
    }
}

/// The claims that are of no more use: all but the holder's and the one before it.
#[must_use]
pub fn outlived(claims: &[Holder]) -> &[Holder] {
    &claims[..claims.len().saturating_sub(2)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    fn owner(cluster: &str, name: &str) -> Owner {
        Owner {
            cluster: cluster.to_owned(),
            namespace: "home".to_owned(),
            kind: "Deployment".to_owned(),
            name: name.to_owned(),
            pod: String::new(),
        }
    }

    fn claim(id: &str) -> Claim {
        Claim {
            version: VERSION,
            epoch: 0,
            owner: owner("c1", "app"),
            pod: "app-1".to_owned(),
            generation: "abc".to_owned(),
            volumes: vec![ClaimedVolume {
                name: "data".to_owned(),
                folder: "config".to_owned(),
                id: id.to_owned(),
            }],
            time: Timestamp::UNIX_EPOCH,
            start: None,
        }
    }

    fn holder(epoch: u64, id: &str) -> Holder {
        Holder {
            epoch,
            volume_id: id.to_owned(),
        }
    }

    #[test]
    fn the_highest_epoch_then_the_smallest_id_holds_the_place() {
        let names = ["9-b.json", "10-c.json", "10-a.json", "2-z.json"];
        let holders = in_order(names.into_iter()).unwrap();
        assert_eq!(holders.last(), Some(&holder(10, "a")));
        assert_eq!(outlived(&holders), [holder(2, "z"), holder(9, "b")]);
    }

    #[test]
    fn a_claim_of_a_newer_release_stops_everything_and_a_name_that_is_somebodys_nothing() {
        let damage = in_order(["3-a.json", "4-b.cbor"].into_iter()).unwrap_err();
        assert!(matches!(damage, Damage::Newer(_)), "{damage}");
        let names = [".DS_Store", "3-a.json", "4-b.json.1a2b3c4d.partial", "@eaDir/5-c.json"];
        assert_eq!(in_order(names.into_iter()).unwrap(), [holder(3, "a")]);
    }

    #[test]
    fn another_workload_is_never_a_match_and_another_cluster_is_kin() {
        let us = owner("c1", "app");
        assert_eq!(owner("c1", "app").kinship(&us), Kinship::Same);
        assert_eq!(owner("", "app").kinship(&us), Kinship::Same);
        assert_eq!(owner("c2", "app").kinship(&us), Kinship::OtherCluster);
        assert_eq!(owner("c1", "other").kinship(&us), Kinship::Other);
    }

    #[tokio::test]
    async fn each_claim_has_a_higher_epoch_than_the_ones_before() {
        let store = Memory::default();
        assert_eq!(take(&store, claim("b"), &[], 0).await.unwrap(), Taken::Held(1));
        let seen = list(&store).await.unwrap();
        assert_eq!(take(&store, claim("a"), &seen, 0).await.unwrap(), Taken::Held(2));
        let seen = list(&store).await.unwrap();
        assert_eq!(take(&store, claim("a"), &seen, 7).await.unwrap(), Taken::Held(8));
        let newest = holder(8, "a");
        assert_eq!(read(&store, &newest).await.unwrap().epoch, 8);
    }

    #[tokio::test]
    async fn of_two_claims_at_once_one_wins_and_the_other_knows() {
        let store = Memory::default();
        let (first, second) = (
            take(&store, claim("b"), &[], 0).await,
            take(&store, claim("a"), &[], 0).await,
        );
        assert_eq!(first.unwrap(), Taken::Held(1));
        assert_eq!(second.unwrap(), Taken::Held(1));
        let now = list(&store).await.unwrap();
        assert_eq!(
            now.last(),
            Some(&holder(1, "a")),
            "the smaller id holds it, and b sees that at its next guard"
        );
        assert_eq!(
            take(&store, claim("c"), &[], 0).await.unwrap(),
            Taken::Lost(holder(1, "a"))
        );
    }

    #[tokio::test]
    async fn a_claim_that_is_not_what_its_name_says_is_damaged() {
        let store = Memory::default();
        store.write("claims/5-b.json", &encode(&claim("a"))).await.unwrap();
        assert!(matches!(
            read(&store, &holder(5, "b")).await,
            Err(Error::Damaged { .. })
        ));
    }
}
