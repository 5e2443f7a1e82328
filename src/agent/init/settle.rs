//! Volumes that are as they should be → a claim, a marker on each, and `start.json`. The last steps of a start, in this
//! order: killed before the marker, the next start does all of it again.

use super::act::Outcome;
use super::claiming;
use super::subject::Subject;
use super::survey::Survey;
use super::{Error, Init};
use crate::agent::lease::judge::{Claimant, Since};
use crate::agent::lease::known::{KnownStores, STORES};
use crate::agent::lease::reverted::Marked;
use crate::agent::start::{START, Start, StartedDestination, StartedVolume, Status, TakeOver, Writing};
use crate::agent::volume::marker::{INCOMING, MARKER, Marker, MarkerStatus, OUTGOING, RESTORING, UNDO};
use crate::agent::volume::{self, bare};
use crate::store::Store;
use crate::store::decisions;
use crate::store::records::VERSION;
use jiff::Timestamp;

/// Who claims, for judging a place.
pub(super) fn claimant<'a>(init: &'a Init<'_>, subjects: &'a [Subject], kept: bool) -> Claimant<'a> {
    Claimant {
        owner: init.owner,
        volume_ids: subjects.iter().map(|subject| subject.id.as_str()).collect(),
        epoch: subjects.iter().map(Subject::epoch).max().unwrap_or(0),
        kept,
        since: subjects
            .iter()
            .find_map(|subject| subject.marker.as_ref()?.since.clone()),
        generation: &init.arguments.identity.generation,
        pod: &init.arguments.identity.pod,
        takes_over: Vec::new(),
    }
}

/// Claims the place, then marks the volumes.
pub(super) async fn settle(
    init: &Init<'_>,
    subjects: &[Subject],
    outcomes: &[Outcome],
    survey: &Survey,
    known: &mut KnownStores,
) -> Result<Start, Error> {
    let now = Timestamp::now();
    let claimant = Claimant {
        takes_over: survey.taken_over.iter().map(|taken| &taken.holder).collect(),
        ..claimant(init, subjects, outcomes.iter().any(|outcome| outcome.kept))
    };
    let unconfirmed = subjects
        .iter()
        .filter_map(|subject| subject.marker.as_ref()?.serving.clone())
        .find(|serving| !survey.served.contains(&serving.value));
    let mut start = Start {
        version: VERSION,
        time: now,
        owner: init.owner.clone(),
        pod: init.arguments.identity.pod.clone(),
        generation: init.arguments.identity.generation.clone(),
        epoch: claimant.epoch,
        since: None,
        pins: survey.pins(init.stores),
        destinations: Vec::new(),
        volumes: subjects.iter().zip(outcomes).map(started).collect(),
        serving: survey.at.clone().or(unconfirmed).or_else(|| survey.unrecorded.clone()),
    };
    // A snapshot has all volumes of a place, so all of them must be fit for one.
    let all_settled = outcomes.iter().all(|outcome| outcome.status == Status::Settled);
    let accepted = &init.arguments.accepted;
    let claim = claiming::claim(&claimant, &start, survey, init.stores, all_settled, accepted, now);
    let (destinations, synced) = tokio::join!(claim, synced(subjects, outcomes));
    synced?;
    start.destinations = destinations;
    let markers = subjects.iter().filter_map(|subject| subject.marker.as_ref());
    let states: Vec<Marked> = markers.map(Marked::from).collect();
    for destination in &start.destinations {
        known.learn(&destination.destination, &destination.writing, &states);
    }
    for taken in &survey.taken_over {
        if let Some(to) = start.destinations.get_mut(taken.number)
            && !matches!(to.writing, Writing::Claimed { .. } | Writing::Fenced)
        {
            to.takes_over = Some(TakeOver {
                holder: taken.holder.clone(),
                question: taken.question.clone(),
            });
        }
    }
    record_decisions(init, &start, subjects, survey).await;
    note_damage(
        &mut start.destinations,
        outcomes,
        survey.source(init.stores).map(|(store, _)| store),
    );
    let claim = claiming::highest(&start.destinations);
    if let Some(holder) = &claim {
        start.epoch = holder.epoch;
    } else if outcomes.iter().any(|outcome| outcome.brought.is_some()) {
        start.since = survey.source(init.stores).map(|(_, backup)| Since::of(backup));
    } else {
        // Brought up to date by an earlier start, of which the store has still not heard.
        start.since.clone_from(&claimant.since);
    }
    for ((subject, outcome), decided) in subjects.iter().zip(outcomes).zip(&survey.decided) {
        let before = subject.marker.as_ref();
        let mut served = before.map(|marker| marker.served.clone()).unwrap_or_default();
        let now_served = survey.at.iter().map(|serving| &serving.value).chain(&survey.served);
        for value in now_served {
            if !served.contains(value) {
                served.push(value.clone());
            }
        }
        let marker = Marker {
            version: VERSION,
            id: subject.id.clone(),
            owner: init.owner.clone(),
            folder: subject.folder.clone(),
            status: match outcome.status {
                Status::Settled => MarkerStatus::Settled,
                Status::Provisional => MarkerStatus::Provisional,
                Status::Fenced => MarkerStatus::Fenced,
            },
            epoch: start.epoch,
            claim: claim.clone().or_else(|| before.and_then(|marker| marker.claim.clone())),
            since: start.since.clone(),
            time: now,
            restored: match &outcome.brought {
                Some(brought) => brought.snapshot,
                None => before.and_then(|marker| marker.restored),
            },
            served,
            serving: start.serving.clone(),
            bare: None,
        };
        let is_known = decided.is_known && survey.is_all_known();
        mark(subject, outcome, marker, (known, &start), is_known)?;
    }
    Ok(start)
}

/// What was accepted and acted upon is recorded, once the place is claimed: it is never taken for an answer again.
async fn record_decisions(init: &Init<'_>, start: &Start, subjects: &[Subject], survey: &Survey) {
    let anew = survey.weighed.anew.iter().map(|(number, question)| (*number, question));
    let taken = survey.taken_over.iter().map(|taken| (taken.number, &taken.question));
    let volumes = subjects.iter().flat_map(|subject| &subject.accepted);
    let volumes = volumes.map(|question| (survey.best.unwrap_or(0), question));
    for (number, question) in anew.chain(taken).chain(volumes) {
        let claimed = start
            .destinations
            .get(number)
            .is_some_and(|destination| matches!(destination.writing, Writing::Claimed { .. }));
        if let (true, Some(store)) = (claimed, init.stores.get(number))
            && let Err(error) = decisions::record(store.as_ref(), &question.id, &question.text).await
        {
            tracing::warn!("that {} was accepted could not be recorded: {error}", question.id);
        }
    }
}

/// What the restore found damaged, for the sidecar to save anew. More than this it finds by itself, in the listing.
fn note_damage(destinations: &mut [StartedDestination], outcomes: &[Outcome], source: Option<&dyn Store>) {
    const MOST: usize = 10_000;
    let Some(source) = source.map(Store::destination) else {
        return;
    };
    for destination in destinations.iter_mut().filter(|to| to.destination == source) {
        let brought = outcomes.iter().filter_map(|outcome| outcome.brought.as_ref());
        destination.damaged = brought
            .flat_map(|brought| &brought.damaged)
            .take(MOST)
            .cloned()
            .collect();
    }
}

fn started((subject, outcome): (&Subject, &Outcome)) -> StartedVolume {
    StartedVolume {
        name: subject.name.clone(),
        folder: subject.folder.clone(),
        path: subject.own.volume().to_owned(),
        id: subject.id.clone(),
        status: outcome.status,
        why: outcome.why.clone(),
        restored: outcome.brought.as_ref().and_then(|brought| brought.snapshot),
        adopted: outcome.adopted,
    }
}

/// Waits until what was restored lies on its disk: the marker must not outlive a power cut that the files did not.
async fn synced(subjects: &[Subject], outcomes: &[Outcome]) -> Result<(), Error> {
    for (subject, outcome) in subjects.iter().zip(outcomes) {
        if outcome.brought.is_some() {
            let own = subject.own.clone();
            let sync = tokio::task::spawn_blocking(move || own.sync()).await;
            sync.unwrap_or_else(|error| {
                let error = std::io::Error::other(error);
                Err(volume::Error::of("writing", subject.own.volume(), error))
            })?;
        }
    }
    Ok(())
}

/// Writes the marker, the last step on a volume; then what the restore left behind goes. `is_known`: what the volume has is what
/// the store says that it should.
fn mark(
    subject: &Subject,
    outcome: &Outcome,
    marker: Marker,
    (known, start): (&KnownStores, &Start),
    is_known: bool,
) -> Result<(), Error> {
    if outcome.marked {
        subject.own.write(STORES, known)?;
        // For the runs of a CronJob, which see nothing else of this start.
        subject.own.write(START, &start.in_short())?;
        // Where it can't be told, the next start waits for the store.
        let bare = bare::untouched(subject.own.volume()).unwrap_or_default();
        let was = subject.marker.as_ref().and_then(|before| before.bare.as_ref());
        let marker = Marker {
            bare: bare.filter(|bare| is_known || Some(bare) == was),
            ..marker
        };
        subject.own.write(MARKER, &marker)?;
    }
    subject.own.remove(RESTORING)?;
    for left in [UNDO, INCOMING, OUTGOING] {
        if let Err(error) = subject.own.remove(left) {
            // It takes room, and the next start tries again.
            tracing::warn!("{}", crate::agent::sidecar::batch::with_sources(&error));
        }
    }
    Ok(())
}
