//! Why a workload is refused: one line that names what was written, what is allowed, and the way out.

use crate::agent::arguments::Invalid;
use std::fmt;

/// One reason for a denial.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(into = "String")]
pub enum Problem {
    /// A key that starts like ours and is none.
    UnknownKey {
        /// The key as it was written.
        key: String,
        /// The closest key that is ours.
        nearest: Option<String>,
    },
    /// A value that does not parse.
    BadValue {
        /// The annotation.
        key: String,
        /// The value as it was written.
        value: String,
        /// What is allowed, and the nearest good value.
        invalid: Invalid,
    },
    /// Anything else, in words: what is wrong, and what to write.
    Conflict {
        /// What the sentence is about: an annotation's key, or a path in the object. Two problems are the same when
        /// their subjects are.
        subject: String,
        /// The sentence.
        text: String,
    },
}

impl Problem {
    /// A problem that is no single value's fault.
    pub fn conflict(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Conflict {
            subject: subject.into(),
            text: text.into(),
        }
    }

    /// What the problem is about: an update that keeps an old problem, and adds none, is let through.
    pub fn subject(&self) -> (&str, &str) {
        match self {
            Self::UnknownKey { key, .. } => (key, ""),
            Self::BadValue { key, value, .. } => (key, value),
            Self::Conflict { subject, text } => (subject, text),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { key, nearest } => {
                write!(f, "{key}: no such annotation")?;
                match nearest {
                    Some(nearest) => write!(f, "; did you mean {nearest}?"),
                    None => write!(f, "; README.md lists them all"),
                }
            }
            Self::BadValue { key, value, invalid } => write!(f, "{key}: {value:?} does not parse; {invalid}"),
            Self::Conflict { subject, text } => write!(f, "{subject}: {text}"),
        }
    }
}

impl From<Problem> for String {
    fn from(problem: Problem) -> Self {
        problem.to_string()
    }
}
