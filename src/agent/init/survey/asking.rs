//! Destinations → what each of them says of its place, and who had no more time to say it. Reads the stores.

use super::{Said, with_causes};
use crate::agent::init::subject::Subject;
use crate::agent::init::{Error, Stores};
use crate::agent::lease::inspect;
use crate::store::Error as StoreError;
use std::collections::BTreeSet;
use std::time::Duration;

/// What the destinations said.
#[derive(Default)]
pub(super) struct Answers {
    /// One a destination.
    pub(super) said: Vec<Said>,
    /// Those, by their numbers, that had no more time to answer.
    pub(super) cut_off: BTreeSet<usize>,
}

/// Asks each destination. Where the start needs one, a place of a newer release ends it: no patience helps, and what it holds
/// may be newer than all that can be read. An app whose volume is kept starts beside it, and is not backed up.
pub(super) async fn ask(
    subjects: &[Subject],
    stores: &Stores,
    patience: Duration,
    needs_store: bool,
) -> Result<Answers, Error> {
    let folders: Vec<String> = subjects.iter().map(|subject| subject.folder.clone()).collect();
    let looks = stores.iter().map(|store| async {
        match tokio::time::timeout(patience, inspect::look_to_restore(store.as_ref(), &folders)).await {
            Ok(Ok(place)) => Ok((Said::Place(place), false)),
            Ok(Err(newer @ StoreError::Newer { .. })) if needs_store => Err(Error::NewerRelease(newer)),
            Ok(Err(error)) => Ok((Said::Nothing(with_causes(&error)), false)),
            Err(_) => {
                let why = format!("{} did not answer in time", store.destination());
                Ok((Said::Nothing(why), true))
            }
        }
    });
    let mut answers = Answers::default();
    for (number, answer) in futures::future::join_all(looks).await.into_iter().enumerate() {
        let (said, is_cut_off) = answer?;
        answers.said.push(said);
        if is_cut_off {
            answers.cut_off.insert(number);
        }
    }
    Ok(answers)
}
