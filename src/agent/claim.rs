//! Whether a start may take a place: the place's claims and heartbeat, and our volumes → take, wait or stay away.
//! Pure. Used by `init`, and by a sidecar whose store was away during `init`.

use super::place::{Backup, Whose};
use crate::store::claims::{Holder, Owner};
use crate::store::snapshot::SnapshotId;
use crate::store::state::{SILENT, is_within};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What we are, for a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant<'a> {
    /// Whose files we have.
    pub owner: &'a Owner,
    /// The ids of our volumes.
    pub volume_ids: Vec<&'a str>,
    /// The highest epoch that any marker on our volumes names; 0 for none.
    pub epoch: u64,
    /// A volume of ours has data of its own, from before this start: what the store got since is not on it.
    pub kept: bool,
    /// How the place stood when our volumes were last as new as it, where we did not claim it then.
    pub since: Option<Since>,
    /// The revision of our pod's template.
    pub generation: &'a str,
    /// Our pod.
    pub pod: &'a str,
}

/// A moment of a place: who held it, and its newest snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// Who held it.
    pub holder: Option<Holder>,
    /// Its newest snapshot.
    pub newest: Option<SnapshotId>,
}

impl Since {
    /// How a place stands now.
    #[must_use]
    pub fn of(backup: &Backup) -> Self {
        Self {
            holder: backup.holder().cloned(),
            newest: backup.newest(),
        }
    }
}

/// Whether the place may be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Yes, with an epoch above all.
    Take,
    /// A live writer of our own generation holds it: somebody scaled up, or its node died a moment ago.
    Wait {
        /// Who.
        holder: Holder,
        /// The newest snapshot as of now.
        newest: Option<SnapshotId>,
        /// For people.
        why: String,
    },
    /// No.
    Fence {
        /// For people.
        why: String,
    },
}

impl Claimant<'_> {
    /// Whether the place is held from one of our volumes.
    fn holds(&self, backup: &Backup) -> bool {
        let is_ours = |id: &str| self.volume_ids.contains(&id);
        backup.holder().is_some_and(|holder| is_ours(&holder.volume_id))
            || backup
                .claim
                .as_ref()
                .is_some_and(|claim| claim.volumes.iter().any(|volume| is_ours(&volume.id)))
    }

    /// Whether the holder is a pod of our own revision.
    fn is_twin(&self, backup: &Backup) -> bool {
        backup
            .claim
            .as_ref()
            .is_some_and(|claim| !self.generation.is_empty() && claim.generation == self.generation)
    }
}

/// The pod that holds a place.
fn holding_pod(backup: &Backup) -> &str {
    backup.claim.as_ref().map_or("", |claim| claim.pod.as_str())
}

/// Why a start that would restore had better wait: the writer before us may be about to make its last backup (a pod
/// that is deleted is replaced before it has ended). `first_seen` is its heartbeat as we first saw it. A writer that
/// is silent, or that beats on without being stopped, is not waited for.
#[must_use]
pub fn awaited(backup: &Backup, us: &Claimant<'_>, first_seen: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let pod = holding_pod(backup);
    if us.holds(backup) || pod == us.pod {
        return None;
    }
    let seen = backup.last_seen().filter(|seen| is_within(SILENT, *seen, now))?;
    let is_stopping = backup.state.as_ref().is_some_and(|state| state.stopping);
    if is_stopping {
        return Some(format!("pod {pod} is being stopped, and its last backup is awaited"));
    }
    let goes_on = first_seen.is_some_and(|first| seen > first);
    (us.is_twin(backup) && !goes_on).then(|| {
        format!(
            "pod {pod} of the same revision was alive a moment ago: its last backup, or its next heartbeat, is awaited"
        )
    })
}

/// Judges a place.
#[must_use]
pub fn judge(backup: &Backup, us: &Claimant<'_>, now: Timestamp) -> Judgement {
    let Some(holder) = backup.holder() else {
        return Judgement::Take;
    };
    match backup.whose(us.owner, now) {
        Whose::Others(owner) => {
            return Judgement::Fence {
                why: format!("the place belongs to {owner}"),
            };
        }
        Whose::OtherCluster { owner, live: true } => {
            return Judgement::Fence {
                why: format!("{owner} writes there"),
            };
        }
        Whose::Ours | Whose::OtherCluster { live: false, .. } => {}
    }
    if us.holds(backup) {
        // The previous writer wrote from this very volume: whatever it saved is here.
        return Judgement::Take;
    }
    let pod = holding_pod(backup);
    let stands_still = us.since.as_ref() == Some(&Since::of(backup));
    if us.kept && !stands_still && holder.epoch >= us.epoch {
        return Judgement::Fence {
            why: format!(
                "since this volume ({}) was last backed up, volume {} of pod {pod} has taken over (epoch {}, ours is {}): \
                 set vixens.io/backup-restore-at to go on from what the store holds",
                us.volume_ids.join(", "),
                holder.volume_id,
                holder.epoch,
                us.epoch
            ),
        };
    }
    let is_live = backup.last_seen().is_some_and(|seen| is_within(SILENT, seen, now));
    if us.is_twin(backup) && pod != us.pod && is_live {
        return Judgement::Wait {
            holder: holder.clone(),
            newest: backup.newest(),
            why: format!("pod {pod} of the same revision holds the place and was alive a moment ago"),
        };
    }
    Judgement::Take
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::claims::{Claim, ClaimedVolume};
    use crate::store::records::VERSION;
    use crate::store::state::State;

    const NOW: &str = "2026-11-22T13:00:00Z";

    fn owner(cluster: &str) -> Owner {
        Owner {
            cluster: cluster.to_owned(),
            namespace: "home".to_owned(),
            kind: "Deployment".to_owned(),
            name: "app".to_owned(),
            pod: String::new(),
        }
    }

    /// A place held at epoch 5 by volume "theirs", generation "g1", last seen at this time.
    fn backup(cluster: &str, heartbeat: &str, released: bool) -> Backup {
        let holder = Holder {
            epoch: 5,
            volume_id: "theirs".to_owned(),
        };
        Backup {
            claims: vec![holder],
            claim: Some(Claim {
                version: VERSION,
                epoch: 5,
                owner: owner(cluster),
                pod: "app-1".to_owned(),
                generation: "g1".to_owned(),
                volumes: vec![ClaimedVolume {
                    name: "data".to_owned(),
                    folder: "config".to_owned(),
                    id: "theirs".to_owned(),
                }],
                time: "2026-11-22T01:00:00Z".parse().unwrap(),
            }),
            state: Some(State {
                version: VERSION,
                epoch: 5,
                volume_id: "theirs".to_owned(),
                pod: "app-1".to_owned(),
                owner: None,
                heartbeat: heartbeat.parse().unwrap(),
                released,
                stopping: false,
                last: None,
                last_success: None,
                owed: false,
                files: 0,
                bytes: 0,
            }),
            ..Backup::default()
        }
    }

    fn judged(backup: &Backup, id: &str, epoch: u64, kept: bool, generation: &str) -> Judgement {
        let owner = owner("c1");
        let us = Claimant {
            owner: &owner,
            volume_ids: vec![id],
            epoch,
            kept,
            since: None,
            generation,
            pod: "app-2",
        };
        judge(backup, &us, NOW.parse().unwrap())
    }

    fn awaits(backup: &Backup, id: &str, generation: &str, first_seen: Option<&str>) -> bool {
        let owner = owner("c1");
        let us = Claimant {
            owner: &owner,
            volume_ids: vec![id],
            epoch: 0,
            kept: false,
            since: None,
            generation,
            pod: "app-2",
        };
        let first_seen = first_seen.map(|time| time.parse().unwrap());
        awaited(backup, &us, first_seen, NOW.parse().unwrap()).is_some()
    }

    #[test]
    fn the_last_backup_of_a_pod_that_is_being_replaced_is_awaited() {
        let live = backup("c1", ALIVE, false);
        assert!(
            awaits(&live, "ours", "g1", Some(ALIVE)),
            "nobody knows yet whether it goes on"
        );
        assert!(
            !awaits(&live, "ours", "g1", Some("2026-11-22T12:58:30Z")),
            "it beats on: somebody scaled up"
        );
        assert!(
            !awaits(&live, "ours", "g2", Some(ALIVE)),
            "a rollout: it ends once we are ready"
        );
        assert!(!awaits(&live, "theirs", "g1", Some(ALIVE)), "its volume is ours");
        assert!(
            !awaits(&backup("c1", ALIVE, true), "ours", "g1", Some(ALIVE)),
            "it has let go"
        );
        assert!(
            !awaits(&backup("c1", SILENT, false), "ours", "g1", Some(SILENT)),
            "it is dead"
        );
        let mut stopping = live;
        if let Some(state) = &mut stopping.state {
            state.stopping = true;
        }
        assert!(
            awaits(&stopping, "ours", "g2", Some("2026-11-22T12:58:30Z")),
            "it said so"
        );
    }

    const ALIVE: &str = "2026-11-22T12:59:30Z";
    const SILENT: &str = "2026-11-22T12:50:00Z";

    #[test]
    fn an_unclaimed_place_is_taken() {
        assert_eq!(judged(&Backup::default(), "ours", 0, false, "g1"), Judgement::Take);
    }

    #[test]
    fn the_same_volume_takes_over_at_once_even_from_a_live_writer() {
        let place = backup("c1", ALIVE, false);
        assert_eq!(judged(&place, "theirs", 5, true, "g1"), Judgement::Take);
        assert_eq!(judged(&place, "theirs", 5, true, "g2"), Judgement::Take);
    }

    #[test]
    fn a_live_writer_of_the_same_generation_keeps_the_place() {
        let live = backup("c1", ALIVE, false);
        assert!(matches!(judged(&live, "ours", 0, false, "g1"), Judgement::Wait { .. }));
        assert_eq!(
            judged(&live, "ours", 0, false, "g2"),
            Judgement::Take,
            "a rollout goes on"
        );
        assert_eq!(
            judged(&live, "ours", 0, false, ""),
            Judgement::Take,
            "nobody said which revision"
        );
        let silent = backup("c1", SILENT, false);
        assert_eq!(judged(&silent, "ours", 0, false, "g1"), Judgement::Take);
        let released = backup("c1", ALIVE, true);
        assert_eq!(judged(&released, "ours", 0, false, "g1"), Judgement::Take);
    }

    #[test]
    fn an_old_volume_that_came_back_is_fenced_and_both_volumes_are_named() {
        let place = backup("c1", SILENT, true);
        for epoch in [3, 5] {
            let Judgement::Fence { why } = judged(&place, "ours", epoch, true, "g1") else {
                panic!("epoch {epoch} is older than the store's");
            };
            assert!(why.contains("ours") && why.contains("theirs"), "{why}");
        }
        assert_eq!(
            judged(&place, "ours", 6, true, "g1"),
            Judgement::Take,
            "the store is older than the volume"
        );
    }

    #[test]
    fn a_volume_that_could_not_be_claimed_goes_on_while_the_place_stands_still() {
        let place = backup("c1", SILENT, true);
        let owner = owner("c1");
        let mut us = Claimant {
            owner: &owner,
            volume_ids: vec!["ours"],
            epoch: 0,
            kept: true,
            since: Some(Since::of(&place)),
            generation: "g1",
            pod: "app-2",
        };
        let judged = |us: &Claimant<'_>| judge(&place, us, NOW.parse().unwrap());
        assert_eq!(judged(&us), Judgement::Take);
        us.since = Some(Since {
            holder: place.holder().cloned(),
            newest: Some("20261122T120000Z-5.1-auto".parse().unwrap()),
        });
        assert!(
            matches!(judged(&us), Judgement::Fence { .. }),
            "somebody wrote meanwhile"
        );
    }

    #[test]
    fn another_cluster_is_adopted_only_once_it_is_silent() {
        assert!(matches!(
            judged(&backup("prod", ALIVE, false), "ours", 0, false, ""),
            Judgement::Fence { .. }
        ));
        assert_eq!(
            judged(&backup("prod", SILENT, false), "ours", 0, false, ""),
            Judgement::Take
        );
        assert_eq!(
            judged(&backup("prod", ALIVE, true), "ours", 0, false, ""),
            Judgement::Take
        );
    }
}
