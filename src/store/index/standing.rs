//! Whether an entry of a snapshot is on the volume, or kept although it is not: *live*, *held* or *excluded*. Values ↔
//! the words of an index. Pure.

use super::line::Raw;
use super::{Entry, Totals, What};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// What an index says of [`Standing::Excluded`].
const EXCLUDED: &str = "excluded";
/// What the id of a hold begins with: [`crate::agent::arguments::QuestionKind::Hold`] has the same word.
const HOLD: &str = "hold-";

/// Why an entry is in a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The volume has it.
    #[default]
    Live,
    /// It vanished, and more with it than a guard lets go unasked: kept until somebody decides.
    Held(HoldId),
    /// The policy takes it no longer; what was saved before is carried along.
    Excluded,
}

impl Standing {
    /// Whether the volume has it.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Live)
    }
}

/// The number in a hold's id, `hold-1a2b3c4d`, which is the id of the question whether what is held may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId(u32);

impl HoldId {
    /// From its number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HOLD}{:08x}", self.0)
    }
}

/// A text that is no hold's id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no id of a hold, such as hold-1a2b3c4d")]
pub struct NoHold(String);

impl FromStr for HoldId {
    type Err = NoHold;

    fn from_str(text: &str) -> Result<Self, NoHold> {
        let digits = text.strip_prefix(HOLD).filter(|digits| digits.len() == 8);
        digits
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| NoHold(text.to_owned()))
    }
}

impl Serialize for HoldId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HoldId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Deletions that are held together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Which.
    pub id: HoldId,
    /// When they vanished.
    pub since: Timestamp,
    /// What of them is held still.
    #[serde(flatten)]
    pub totals: Totals,
}

/// What a snapshot holds that its volumes don't have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The holds that stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<Hold>,
    /// What the policy takes no longer.
    #[serde(default, skip_serializing_if = "Totals::is_nothing")]
    pub excluded: Totals,
    /// Folders and links of this index (not of its base) that are not live, in order: a line of theirs has no room for
    /// more than the releases before this one read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marked: Vec<Marked>,
}

impl Carried {
    /// Whether everything is live.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let Self {
            holds,
            excluded,
            marked,
        } = self;
        holds.is_empty() && excluded.is_nothing() && marked.is_empty()
    }

    /// What is held, in all.
    #[must_use]
    pub fn held(&self) -> Totals {
        self.holds.iter().fold(Totals::default(), |sum, hold| Totals {
            files: sum.files + hold.totals.files,
            bytes: sum.bytes + hold.totals.bytes,
        })
    }

    /// Notes a folder or link that is not live, in the order of the index.
    pub fn mark(&mut self, entry: &Entry) {
        if let Entry {
            path,
            what: What::Folder(_) | What::Link(..),
            standing: standing @ (Standing::Held(_) | Standing::Excluded),
        } = entry
        {
            self.marked.push(Marked {
                path: path.clone(),
                standing: *standing,
            });
        }
    }
}

/// A folder or link that is not live: `["hold-1a2b3c4d","config/d/"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// As in its entry.
    pub path: Vec<u8>,
    /// Held or excluded.
    pub standing: Standing,
}

impl Serialize for Marked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let word = match self.standing {
            Standing::Live => return Err(serde::ser::Error::custom("what is live needs no mark")),
            Standing::Held(id) => id.to_string(),
            Standing::Excluded => EXCLUDED.to_owned(),
        };
        (word, Raw(Cow::Borrowed(&self.path))).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Marked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (word, Raw(path)) = <(String, Raw<'static>)>::deserialize(deserializer)?;
        let standing = match word.as_str() {
            EXCLUDED => Standing::Excluded,
            hold => Standing::Held(hold.parse().map_err(serde::de::Error::custom)?),
        };
        Ok(Self {
            path: path.into_owned(),
            standing,
        })
    }
}
