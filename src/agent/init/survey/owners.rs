//! A place or a volume of another workload → a question, unless that was accepted and the other one has let go. Whoever moves
//! an app to another namespace, renames it or makes it a StatefulSet takes its backup along so. Who the other one is stands in
//! our own log alone: a question is shown in Events, and names nothing of another namespace.

use super::Said;
use crate::agent::arguments::QuestionKind;
use crate::agent::init::subject::Subject;
use crate::agent::init::{Error, Init};
use crate::agent::lease::acquire::is_accepted;
use crate::agent::lease::beat::{LONG_SILENCE, Seen, Sign};
use crate::agent::lease::inspect::{Backup, Whose};
use crate::agent::lease::judge::in_use;
use crate::agent::volume::look::{Others, VolumeState};
use crate::contract::question::Question;
use crate::store::Store;
use crate::store::claims::{Holder, Kinship, Owner};

/// A place that is taken over from another workload.
pub(in super::super) struct TakenOver {
    /// The destination's number.
    pub(in super::super) number: usize,
    /// What was accepted.
    pub(in super::super) question: Question,
    /// Whose claim is not in the way.
    pub(in super::super) holder: Holder,
    owner: Owner,
}

/// Asks whether a place of somebody else is to be taken over.
fn about_place(destination: &str, backup: &Backup, theirs: &Owner, us: &Owner) -> Question {
    let holder = backup.holder().cloned();
    let (epoch, volume) = holder.map_or((0, String::new()), |holder| (holder.epoch, holder.volume_id));
    let facts = [
        destination.to_owned(),
        theirs.to_string(),
        us.to_string(),
        epoch.to_string(),
        volume,
    ];
    Question::new(
        QuestionKind::TakeOver,
        &facts.each_ref().map(String::as_bytes),
        format!(
            "{destination} belongs to another workload, and this is {us}. If that is what this one was before it was moved or \
             renamed, accepting takes its backups over, once the other one has let go: remove its annotation \
             vixens.io/backup first. If not, give this workload a place of its own with the annotation \
             vixens.io/backup-destination"
        ),
    )
}

/// Asks whether a volume of somebody else is to be taken over.
fn about_volume(subject: &Subject, theirs: &Owner, us: &Owner) -> Question {
    let facts = [
        subject.id.clone(),
        theirs.to_string(),
        us.to_string(),
        subject.epoch().to_string(),
    ];
    Question::new(
        QuestionKind::TakeOver,
        &facts.each_ref().map(String::as_bytes),
        format!(
            "the volume {} at {} is another workload's, and this is {us}. If it was kept when this one was moved or renamed, \
             accepting takes it over with its files. If not, mount this workload's own volume",
            subject.name,
            subject.own.volume().display()
        ),
    )
}

/// Looks whose places they are. Another cluster's that may be in use is no answer; another workload's is asked about.
pub(super) async fn places(init: &Init<'_>, said: &mut [Said], seen: &[Option<Seen>]) -> Result<Vec<TakenOver>, Error> {
    let mut taken = Vec::new();
    for (number, ((store, said), seen)) in init.stores.iter().zip(said).zip(seen).enumerate() {
        let Some(backup) = said.backup() else { continue };
        let seen = seen.unwrap_or_else(|| Seen::first(backup));
        match backup.whose(init.owner) {
            Whose::Ours => {}
            Whose::OtherCluster(owner) => {
                if let Some((why, _)) = in_use(backup, &owner, seen) {
                    *said = Said::Nothing(format!("{} {why}", store.destination()));
                }
            }
            Whose::Others(owner) => {
                let destination = store.destination();
                tracing::warn!("{destination} belongs to {owner}, and this is {}", init.owner);
                let question = about_place(&destination, backup, &owner, init.owner);
                if !accepts(init, store.as_ref(), &question).await {
                    return Err(Error::Asks(question));
                }
                if matches!(seen.sign(LONG_SILENCE), Sign::NotYet | Sign::Live) {
                    return Err(Error::PlaceInUse { destination });
                }
                tracing::warn!("{destination} is taken over, as was accepted ({})", question.id);
                taken.push(TakenOver {
                    number,
                    question,
                    holder: backup.holder().cloned().unwrap_or(Holder {
                        epoch: 0,
                        volume_id: String::new(),
                    }),
                    owner,
                });
            }
        }
    }
    Ok(taken)
}

/// Whether a place's holder is yet to be looked at for longer: until then nobody knows whether the place may be read from, or
/// taken over.
pub(super) fn undecided(init: &Init<'_>, said: &[Said], seen: &[Option<Seen>]) -> Option<String> {
    let mut each = init.stores.iter().zip(said).zip(seen);
    each.find_map(|((store, said), seen)| {
        let (backup, seen, destination) = (said.backup()?, (*seen)?, store.destination());
        match backup.whose(init.owner) {
            Whose::Ours => None,
            Whose::OtherCluster(owner) => {
                let (why, may_change) = in_use(backup, &owner, seen)?;
                may_change.then(|| format!("{destination} {why}"))
            }
            Whose::Others(owner) => {
                let question = about_place(&destination, backup, &owner, init.owner);
                let waits = question.is_accepted_by(&init.arguments.accepted) && seen.sign(LONG_SILENCE) == Sign::NotYet;
                waits.then(|| {
                    format!(
                        "{destination} is held by another workload: it is taken over once that has shown no sign for {} \
                         minutes",
                        LONG_SILENCE.as_secs() / 60
                    )
                })
            }
        }
    })
}

/// Looks whose volumes they are. One that is taken over, and that a place knows as the one its backups were made from, is what
/// its marker says; any other has files that we did not bring.
pub(in super::super) async fn volumes(
    init: &Init<'_>,
    subjects: &mut [Subject],
    said: &[Said],
    taken: &[TakenOver],
) -> Result<(), Error> {
    for subject in subjects {
        let VolumeState::Others(Others { owner, if_ours }) = &subject.state else {
            continue;
        };
        tracing::warn!(
            "the volume at {} belongs to {owner}, and this is {}",
            subject.own.volume().display(),
            init.owner
        );
        let is_its = |taken: &TakenOver| taken.owner.kinship(owner) != Kinship::Other;
        if !taken.iter().any(is_its) {
            let question = about_volume(subject, owner, init.owner);
            let accepted = match init.stores.first() {
                Some(store) if !said.is_empty() => accepts(init, store.as_ref(), &question).await,
                _ => question.is_accepted_by(&init.arguments.accepted),
            };
            if !accepted {
                return Err(Error::Asks(question));
            }
            subject.accepted.push(question);
        }
        let is_known = said.iter().filter_map(Said::backup).any(|backup| {
            let mut claimed = backup.claim.iter().flat_map(|claim| &claim.volumes);
            claimed.any(|volume| volume.id == subject.id)
        });
        let state = match if_ours.as_ref() {
            VolumeState::Interrupted(restoring) => VolumeState::Interrupted(restoring.clone()),
            state if is_known => state.clone(),
            _ if subject.is_bare => VolumeState::Empty,
            _ => VolumeState::Foreign,
        };
        if matches!(state, VolumeState::Empty | VolumeState::Foreign) {
            subject.marker = None;
        }
        subject.state = state;
    }
    Ok(())
}

/// Whether a question is answered by yes. A store that can't say whether it was decided before has no such record.
pub(super) async fn accepts(init: &Init<'_>, store: &dyn Store, question: &Question) -> bool {
    is_accepted(store, question, &init.arguments.accepted)
        .await
        .unwrap_or(true)
}
