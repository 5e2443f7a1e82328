//! The values that an owner writes in an annotation and the agent reads from a flag: one type for each,
//! parsed by `FromStr` and written back by `Display`, the same text for both halves. Pure: no I/O, no clock.

mod destination;
mod question;
mod retention;
mod subjects;
mod units;
mod words;

pub use destination::Destination;
pub use question::{QuestionId, QuestionKind};
pub use retention::Retention;
pub use subjects::{Databases, ProtectedVolume, RestoreAt, WorkloadName};
pub use units::{Percent, Port, Size, Span};
pub use words::{Profile, RestorePolicy, StoreDown, Tier, Verify, WorkloadKind};

use std::fmt;

/// Why a value was refused: what would have been allowed, and the nearest value that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// A phrase that completes "allowed: …".
    pub allowed: String,
    /// A value that would have been taken, where one lies near.
    pub nearest: Option<String>,
}

impl Invalid {
    /// A refusal that names what is allowed.
    pub fn allowed(allowed: impl Into<String>) -> Self {
        Self {
            allowed: allowed.into(),
            nearest: None,
        }
    }

    /// The same refusal with a value that would have been taken.
    #[must_use]
    pub fn nearest(mut self, nearest: impl Into<String>) -> Self {
        self.nearest = Some(nearest.into());
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "allowed: {}", self.allowed)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Invalid {}

/// The candidate that looks most like `text`, when one looks like it at all.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.trim().to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(text.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Values stand in JSON as the text that they are parsed from.
macro_rules! serde_as_text {
    ($($name:ty),+ $(,)?) => {
        $(
            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                }
            }
        )+
    };
}

serde_as_text!(
    Span,
    Size,
    Percent,
    Destination,
    QuestionId,
    Retention,
    RestoreAt,
    Databases,
    WorkloadName,
    ProtectedVolume,
    Port
);
