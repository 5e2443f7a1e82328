//! Whether a start may take a place: the place's claims, what was seen of its holder, and our volumes → take, wait, ask or
//! stay away. Pure. Used by `init`, and by a sidecar whose store was away during `init`.

use super::beat::{LONG_SILENCE, SILENCE, Seen, Sign};
use super::inspect::{Backup, Whose};
use crate::agent::arguments::{QuestionId, QuestionKind};
use crate::contract::question::Question;
use crate::store::claims::{Holder, Owner};
use crate::store::snapshot::SnapshotId;
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
    /// Holders of another workload that were accepted to be taken over, and have let go.
    pub takes_over: Vec<&'a Holder>,
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
    /// Nobody can see whether its holder is alive: a person has to say.
    Ask(Question),
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
/// that is deleted is replaced before it has ended). A writer that is silent, or that beats on without being stopped, is not
/// waited for.
#[must_use]
pub fn awaited(backup: &Backup, us: &Claimant<'_>, seen: Seen) -> Option<String> {
    let pod = holding_pod(backup);
    if us.holds(backup) || pod == us.pod {
        return None;
    }
    let sign = seen.sign(SILENCE);
    if matches!(sign, Sign::Gone | Sign::Silent) {
        return None;
    }
    if backup.summary().is_some_and(|summary| summary.stopping) {
        return Some(format!("pod {pod} is being stopped, and its last backup is awaited"));
    }
    (us.is_twin(backup) && sign == Sign::NotYet).then(|| {
        format!(
            "pod {pod} of the same revision has not let go: its last backup, or a sign that it goes on, is awaited, for {} s \
             at most",
            SILENCE.as_secs()
        )
    })
}

/// Why a place of another cluster may not even be read from yet: its holder was seen alive, or (`true`) may be. Where runs of a
/// CronJob write, nobody can see that: what is there is restored, and writing there is asked for.
#[must_use]
pub fn in_use(backup: &Backup, owner: &Owner, seen: Seen) -> Option<(String, bool)> {
    if backup.is_written_by_runs() {
        return None;
    }
    let minutes = LONG_SILENCE.as_secs() / 60;
    match seen.sign(LONG_SILENCE) {
        Sign::Gone | Sign::Silent => None,
        Sign::Live => Some((
            format!(
                "is in use by {owner}, which was seen to write: it is adopted once that shows no sign for {minutes} minutes"
            ),
            false,
        )),
        Sign::NotYet => Some((
            format!("is held by {owner}: it is adopted once that has shown no sign for {minutes} minutes"),
            true,
        )),
    }
}

/// What is asked before anybody writes where the runs of another cluster's CronJob do.
fn question(place: &str, holder: &Holder, owner: &Owner) -> Question {
    Question::new(
        QuestionKind::Write,
        &[
            place.as_bytes(),
            holder.epoch.to_string().as_bytes(),
            holder.volume_id.as_bytes(),
        ],
        format!(
            "{place} is written by the runs of a CronJob of {owner}, and between two of them nobody can see whether that is \
             still there. What it holds was restored; nothing is backed up there until this is accepted, which ends the \
             backups of the other cluster"
        ),
    )
}

/// Judges the place `place`, of whose holder so much was seen. `accepted`: questions that are answered by yes.
#[must_use]
pub fn judge(place: &str, backup: &Backup, us: &Claimant<'_>, seen: Seen, accepted: &[QuestionId]) -> Judgement {
    let Some(holder) = backup.holder() else {
        return Judgement::Take;
    };
    let other_cluster = match backup.whose(us.owner) {
        Whose::Others(_) if us.takes_over.contains(&holder) => None,
        Whose::Others(owner) => {
            return Judgement::Fence {
                why: format!("the place belongs to {owner}"),
            };
        }
        Whose::OtherCluster(owner) => match in_use(backup, &owner, seen) {
            Some((why, true)) => return wait(backup, holder, format!("the place {why}")),
            Some((why, false)) => {
                return Judgement::Fence {
                    why: format!("the place {why}"),
                };
            }
            None => Some(owner),
        },
        Whose::Ours => None,
    };
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
    if let Some(owner) = other_cluster {
        let question = question(place, holder, &owner);
        return if !backup.is_written_by_runs() || question.is_accepted_by(accepted) {
            Judgement::Take
        } else {
            Judgement::Ask(question)
        };
    }
    let may_live = matches!(seen.sign(SILENCE), Sign::NotYet | Sign::Live);
    if us.is_twin(backup) && pod != us.pod && may_live {
        let why = format!("pod {pod} of the same revision holds the place and has not let go");
        return wait(backup, holder, why);
    }
    Judgement::Take
}

fn wait(backup: &Backup, holder: &Holder, why: String) -> Judgement {
    Judgement::Wait {
        holder: holder.clone(),
        newest: backup.newest(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::claims::{Claim, ClaimedVolume};
    use crate::store::records::VERSION;
    use crate::store::state::{Mode, State};
    use std::time::Duration;

    fn owner(cluster: &str) -> Owner {
        Owner {
            cluster: cluster.to_owned(),
            namespace: "home".to_owned(),
            kind: "Deployment".to_owned(),
            name: "app".to_owned(),
            pod: String::new(),
        }
    }

    /// A place held at epoch 5 by volume "theirs", generation "g1".
    fn backup(cluster: &str, released: bool) -> Backup {
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
                start: None,
            }),
            state: Some(State {
                epoch: 5,
                volume_id: "theirs".to_owned(),
                released,
                ..State::default()
            }),
            ..Backup::default()
        }
    }

    fn us<'a>(owner: &'a Owner, id: &'a str, epoch: u64, kept: bool, generation: &'a str) -> Claimant<'a> {
        Claimant {
            owner,
            volume_ids: vec![id],
            epoch,
            kept,
            since: None,
            generation,
            pod: "app-2",
            takes_over: Vec::new(),
        }
    }

    fn judged(backup: &Backup, seen: Seen, id: &str, epoch: u64, kept: bool, generation: &str) -> Judgement {
        let owner = owner("c1");
        judge(
            "minio:b/app",
            backup,
            &us(&owner, id, epoch, kept, generation),
            seen,
            &[],
        )
    }

    /// Looked at for so long, and seen to change or not.
    fn seen(backup: &Backup, moved: bool, still_for: u64) -> Seen {
        Seen {
            moved,
            still_for: Duration::from_secs(still_for),
            ..Seen::first(backup)
        }
    }

    #[test]
    fn the_last_backup_of_a_pod_that_is_being_replaced_is_awaited() {
        let live = backup("c1", false);
        let owner = owner("c1");
        let awaits = |backup: &Backup, id: &str, generation: &str, moved: bool, still_for: u64| {
            let us = us(&owner, id, 0, false, generation);
            awaited(backup, &us, seen(backup, moved, still_for)).is_some()
        };
        assert!(
            awaits(&live, "ours", "g1", false, 0),
            "nobody knows yet whether it goes on"
        );
        assert!(!awaits(&live, "ours", "g1", true, 3), "it beats on: somebody scaled up");
        assert!(
            !awaits(&live, "ours", "g2", false, 0),
            "a rollout: it ends once we are ready"
        );
        assert!(!awaits(&live, "theirs", "g1", false, 0), "its volume is ours");
        assert!(!awaits(&backup("c1", true), "ours", "g1", false, 0), "it has let go");
        assert!(!awaits(&live, "ours", "g1", false, 90), "it is dead");
        let mut stopping = live;
        if let Some(state) = &mut stopping.state {
            state.stopping = true;
        }
        assert!(awaits(&stopping, "ours", "g2", true, 3), "it said so");
        assert!(!awaits(&stopping, "ours", "g2", true, 90), "it died of it");
    }

    #[test]
    fn an_unclaimed_place_is_taken() {
        let nobody = Backup::default();
        assert_eq!(
            judged(&nobody, Seen::first(&nobody), "ours", 0, false, "g1"),
            Judgement::Take
        );
    }

    #[test]
    fn the_same_volume_takes_over_at_once_even_from_a_live_writer() {
        let place = backup("c1", false);
        for seen in [Seen::first(&place), seen(&place, true, 0)] {
            assert_eq!(judged(&place, seen, "theirs", 5, true, "g1"), Judgement::Take);
            assert_eq!(judged(&place, seen, "theirs", 5, true, "g2"), Judgement::Take);
        }
    }

    #[test]
    fn a_writer_of_the_same_generation_keeps_the_place_until_it_is_known_to_be_silent() {
        let place = backup("c1", false);
        for (seen, generation, waits) in [
            (Seen::first(&place), "g1", true),
            (seen(&place, true, 0), "g1", true),
            (seen(&place, false, 89), "g1", true),
            (seen(&place, false, 90), "g1", false),
            (seen(&place, true, 90), "g1", false),
            // A rollout goes on; so does it where nobody said which revision.
            (Seen::first(&place), "g2", false),
            (Seen::first(&place), "", false),
        ] {
            let judgement = judged(&place, seen, "ours", 0, false, generation);
            assert_eq!(
                matches!(judgement, Judgement::Wait { .. }),
                waits,
                "{seen:?} {generation}: {judgement:?}"
            );
            assert_eq!(judgement == Judgement::Take, !waits);
        }
        let released = backup("c1", true);
        assert_eq!(
            judged(&released, Seen::first(&released), "ours", 0, false, "g1"),
            Judgement::Take
        );
    }

    #[test]
    fn an_old_volume_that_came_back_is_fenced_and_both_volumes_are_named() {
        let place = backup("c1", true);
        let seen = Seen::first(&place);
        for epoch in [3, 5] {
            let Judgement::Fence { why } = judged(&place, seen, "ours", epoch, true, "g1") else {
                panic!("epoch {epoch} is older than the store's");
            };
            assert!(why.contains("ours") && why.contains("theirs"), "{why}");
        }
        assert_eq!(
            judged(&place, seen, "ours", 6, true, "g1"),
            Judgement::Take,
            "the store is older than the volume"
        );
    }

    #[test]
    fn a_volume_that_could_not_be_claimed_goes_on_while_the_place_stands_still() {
        let place = backup("c1", true);
        let owner = owner("c1");
        let mut us = us(&owner, "ours", 0, true, "g1");
        us.since = Some(Since::of(&place));
        let judged = |us: &Claimant<'_>| judge("minio:b/app", &place, us, Seen::first(&place), &[]);
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
    fn another_cluster_is_adopted_only_once_nothing_was_seen_of_it_for_three_minutes() {
        let prod = backup("prod", false);
        let judged = |place: &Backup, seen| judged(place, seen, "ours", 0, false, "");
        for still_for in [0, 90, 179] {
            let judgement = judged(&prod, seen(&prod, false, still_for));
            assert!(matches!(judgement, Judgement::Wait { .. }), "{judgement:?}");
            let judgement = judged(&prod, seen(&prod, true, still_for));
            assert!(matches!(judgement, Judgement::Fence { .. }), "{judgement:?}");
        }
        assert_eq!(judged(&prod, seen(&prod, false, 180)), Judgement::Take);
        assert_eq!(judged(&prod, seen(&prod, true, 180)), Judgement::Take);
        let released = backup("prod", true);
        assert_eq!(judged(&released, Seen::first(&released)), Judgement::Take);
    }

    #[test]
    fn where_runs_of_another_cluster_write_a_person_decides_and_each_claim_is_another_question() {
        let by_runs = |epoch: u64, released: bool| {
            let mut place = backup("prod", released);
            place.claims[0].epoch = epoch;
            if let Some(state) = &mut place.state {
                state.mode = Some(Mode::Cronjob);
            }
            place
        };
        let (us_owner, place) = (owner("c1"), by_runs(5, true));
        let mut us = us(&us_owner, "ours", 0, false, "g1");
        let ask = |place: &Backup, us: &Claimant<'_>, accepted: &[QuestionId]| {
            judge("minio:b/app", place, us, seen(place, false, 999), accepted)
        };
        let Judgement::Ask(question) = ask(&place, &us, &[]) else {
            panic!("nobody can see whether prod is still there");
        };
        assert_eq!(question.id.kind(), Some(QuestionKind::Write));
        let accepted = [question.id.clone()];
        assert_eq!(ask(&place, &us, &accepted), Judgement::Take);
        // In the middle of a run, or before the first one under a claim, it is the same question.
        assert_eq!(ask(&by_runs(5, false), &us, &[]), Judgement::Ask(question));
        assert!(
            matches!(ask(&by_runs(6, true), &us, &accepted), Judgement::Ask(_)),
            "it has come back since"
        );
        // The sidecar judges a volume that has been in use since.
        us.kept = true;
        assert!(matches!(ask(&place, &us, &accepted), Judgement::Fence { .. }));
        us.since = Some(Since::of(&place));
        assert_eq!(ask(&place, &us, &accepted), Judgement::Take);
        us.owner = &place.claim.as_ref().unwrap().owner;
        assert_eq!(ask(&place, &us, &[]), Judgement::Take, "a namesake of the same cluster");
    }
}
