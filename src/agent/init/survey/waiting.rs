//! What a place has shown of its holder → whether to look again before anything is decided, and what is said of that.

use super::{Said, Survey};
use crate::agent::arguments::RestorePolicy;
use crate::agent::init::Init;
use crate::agent::init::decision::Decision;
use crate::agent::init::settle::claimant;
use crate::agent::init::subject::Subject;
use crate::agent::lease::beat::{Observation, SILENCE, Seen, Sign};
use crate::agent::lease::judge::awaited;
use std::time::Duration;

/// Says why we wait, where that is news.
pub(super) fn tell_once(told: &mut Option<String>, why: &str, pause: Duration) {
    if told.as_deref() != Some(why) {
        tracing::warn!("{why}; looking every {} s", pause.as_secs());
        *told = Some(why.to_owned());
    }
}

/// What each destination shows of its holder, in the light of what was seen before.
pub(super) fn observe(observations: &mut [Observation], said: &[Said]) -> Vec<Option<Seen>> {
    let now = tokio::time::Instant::now();
    let each = observations.iter_mut().zip(said);
    each.map(|(observation, said)| Some(observation.look(said.backup()?, now)))
        .collect()
}

/// Whether the writer before us is to be waited for.
pub(super) fn waits_for(init: &Init<'_>, subjects: &[Subject], survey: &Survey) -> Option<String> {
    let (_, backup) = survey.source(init.stores)?;
    let restores = survey.decided.iter().any(|decided| {
        matches!(
            decided.decision,
            Decision::Restore | Decision::RestoreMissing | Decision::SetAsideAndRestore
        )
    });
    // What is newest is not known while somebody may still save, and `always` goes by that.
    if !restores && init.arguments.restore != RestorePolicy::Always {
        return None;
    }
    let us = claimant(init, subjects, false);
    let seen = survey.seen(survey.best?).unwrap_or_else(|| Seen::first(backup));
    if survey.at.is_some() {
        let pod = backup.claim.as_ref().map_or("", |claim| claim.pod.as_str());
        let may_live = matches!(seen.sign(SILENCE), Sign::NotYet | Sign::Live);
        return (may_live && pod != us.pod).then(|| format!("pod {pod} has not let go of the place"));
    }
    awaited(backup, &us, seen)
}
