//! Volumes that are to be kept → whether that is all there is to say, by two listings of each place in one go. Where a volume may
//! have been emptied, or put back to an older state, it is not, and more is looked at.

use super::coverage::remnant;
use super::doubt::Expected;
use super::{Decided, Said, Survey, with_causes};
use crate::agent::arguments::RestorePolicy;
use crate::agent::init::decision::Decision;
use crate::agent::init::subject::Subject;
use crate::agent::init::{Init, Stores};
use crate::agent::lease::inspect::{Outline, outline};
use crate::agent::volume::files::Files;
use std::time::Duration;

/// An initialised volume waits so long for a store, and no longer: its app is not the store's hostage.
pub(super) const GLANCE: Duration = Duration::from_secs(5);

/// The survey, if every place is still held from one of these volumes, as far as anybody can tell.
pub(super) async fn glance(init: &Init<'_>, subjects: &[Subject], expected: &Expected) -> Option<Survey> {
    let said = asked(init.stores).await;
    let (first, epoch) = subjects.first().map(|first| (&first.id, first.epoch()))?;
    let all_ours = said.iter().all(|said| match said {
        // An older one of ours is of an older copy of the place.
        Said::Outline(outline) => {
            let mut last = outline.claims.last().into_iter();
            last.any(|holder| holder.volume_id == *first && holder.epoch >= epoch)
        }
        Said::Nothing(_) => true,
        Said::Place(_) => false,
    });
    let seen: Vec<&Outline> = said.iter().filter_map(Said::outline).collect();
    let may_be_emptied = || {
        let most = seen.iter().map(|outline| outline.files_at_most).max().unwrap_or(0);
        init.arguments.restore != RestorePolicy::Never && are_nearly_empty(subjects, most)
    };
    // What it has may be newer than what the volumes were when it was last there.
    let is_back = || {
        let mut each = init.stores.iter().zip(&said);
        each.any(|(store, said)| said.outline().is_some() && expected.was_away(&store.destination()))
    };
    if !all_ours || is_back() || seen.iter().any(|outline| may_be_older(subjects, outline)) || may_be_emptied() {
        return None;
    }
    // A place without a file has none of theirs.
    let is_known = seen.iter().all(|outline| outline.files_at_most == 0);
    let decided = Decided {
        is_known,
        ..Decided::from(Decision::Keep)
    };
    Some(Survey {
        decided: vec![decided; subjects.len()],
        ..Survey::of(said)
    })
}

async fn asked(stores: &Stores) -> Vec<Said> {
    let looks = futures::future::join_all(stores.iter().map(|store| outline(store.as_ref())));
    if let Ok(outlines) = tokio::time::timeout(GLANCE, looks).await {
        let said = outlines.into_iter().map(|outline| match outline {
            Ok(outline) => Said::Outline(outline),
            Err(error) => Said::Nothing(with_causes(&error)),
        });
        return said.collect();
    }
    let said = stores.iter().map(|store| {
        let why = format!("{}: no answer within {} s", store.destination(), GLANCE.as_secs());
        Said::Nothing(why)
    });
    said.collect()
}

/// Whether something was saved under a later epoch than a volume knows of.
fn may_be_older(subjects: &[Subject], outline: &Outline) -> bool {
    let newest = outline.newest.map_or(0, |newest| newest.epoch);
    subjects.iter().any(|subject| subject.epoch() < newest)
}

/// Whether so few files are left that a snapshot of this many may be gone from them. Counts no further than that takes.
fn are_nearly_empty(subjects: &[Subject], most: u64) -> bool {
    if most == 0 {
        return false;
    }
    let left = subjects.iter().flat_map(|subject| Files::on(subject.own.volume()));
    let few = usize::try_from(remnant(most)).unwrap_or(usize::MAX);
    subjects.iter().any(|subject| subject.is_bare) || left.take(few.saturating_add(1)).count() <= few
}
