//! A question that only a person decides, and how it is answered. Whatever a guard holds, and whatever a start can't
//! decide by itself, is asked with an id, in the log, in `/status` and in an Event; `vixens.io/backup-accept: <id>`, or
//! `vixens-backup backup --accept <id>` in the pod, takes that one decision, once. Types only.

use crate::agent::arguments::{QuestionId, QuestionKind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a start writes before a question, so that whoever reads its last words finds the id.
const ASKS: &str = "vixens-backup asks";

/// A question that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// By which it is answered.
    pub id: QuestionId,
    /// In words: what happened, to what, and what accepting it does. Says nothing of other namespaces: it is shown in
    /// Events.
    pub text: String,
}

impl Question {
    /// A question of this kind about these facts: see [`QuestionId::new`].
    #[must_use]
    pub fn new(kind: QuestionKind, facts: &[&[u8]], text: impl Into<String>) -> Self {
        Self {
            id: QuestionId::new(kind, facts),
            text: text.into(),
        }
    }

    /// Whether it is among those that were accepted. Whether it was decided before is the caller's to ask
    /// (`store::decisions`).
    #[must_use]
    pub fn is_accepted_by(&self, accepted: &[QuestionId]) -> bool {
        accepted.contains(&self.id)
    }

    /// The question in the words of [`fmt::Display`], found in what a container said last.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        Self::find_all(text).next()
    }

    /// All of them.
    pub fn find_all(text: &str) -> impl Iterator<Item = Self> + '_ {
        text.lines().filter_map(|line| {
            let (id, text) = line.split_once(ASKS)?.1.trim_start().split_once(": ")?;
            Some(Self {
                id: id.parse().ok()?,
                text: text.split(ANSWER).next().unwrap_or(text).to_owned(),
            })
        })
    }
}

/// How every question is answered.
const ANSWER: &str = "; to accept it, once: vixens.io/backup-accept: ";

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, text } = self;
        write!(f, "{ASKS} {id}: {text}{ANSWER}{id}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_found_again_in_what_was_said() {
        let question = Question::new(
            QuestionKind::Missing,
            &[b"config/a"],
            "nobody has config/a: start without it?",
        );
        let said = format!("restoring\nerror: {question}\nbye\n");
        assert_eq!(Question::find(&said).as_ref(), Some(&question));
        let twice = format!("{said}{question}");
        assert_eq!(
            Question::find_all(&twice).collect::<Vec<_>>(),
            [question.clone(), question]
        );
        assert_eq!(Question::find("error: no route to host"), None);
    }
}
