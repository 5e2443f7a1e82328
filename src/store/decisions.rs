//! Decisions that were taken: a question that somebody has accepted is recorded below `served/`, beside the restore-at
//! values that were served, so that an annotation left in Git decides nothing twice. Records ↔ objects of a store.

use super::records::{VERSION, encode};
use super::{Error, Store, keys};
use crate::agent::arguments::QuestionId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `served/<hash>`: a question that was accepted, and never counts as accepted again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// See [`VERSION`].
    pub version: u32,
    /// The question's id.
    pub accepted: QuestionId,
    /// The question, for people.
    pub question: String,
    /// When it was acted upon.
    pub time: Timestamp,
}

/// Whether a question was decided before.
pub async fn is_decided(store: &dyn Store, id: &QuestionId) -> Result<bool, Error> {
    match store.read(&keys::decided(id.as_str())).await {
        // That it is there says all.
        Ok(_) | Err(Error::Damaged { .. }) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Records that a question was acted upon. To be called once what was accepted is done: killed before, it is done again.
pub async fn record(store: &dyn Store, id: &QuestionId, question: &str) -> Result<(), Error> {
    let decision = Decision {
        version: VERSION,
        accepted: id.clone(),
        question: question.to_owned(),
        time: Timestamp::now(),
    };
    store.write(&keys::decided(id.as_str()), &encode(&decision)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn a_question_is_decided_once_it_is_recorded() {
        let store = Memory::default();
        let (one, other): (QuestionId, QuestionId) =
            ("hold-00000001".parse().unwrap(), "hold-00000002".parse().unwrap());
        assert!(!is_decided(&store, &one).await.unwrap());
        record(&store, &one, "may it go?").await.unwrap();
        assert!(is_decided(&store, &one).await.unwrap());
        assert!(!is_decided(&store, &other).await.unwrap());
    }
}
