//! A snapshot's id: UTC time, epoch and sequence, and kind, as the bucket's layout has it. Text in, a value that is
//! compared by epoch and sequence out. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const TIME: &str = "%Y%m%dT%H%M%SZ";

/// Why a snapshot was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Files changed.
    Auto,
    /// The CronJob asked.
    Scheduled,
    /// Somebody asked.
    Manual,
    /// The pod was stopped.
    Final,
    /// The state after going back to a point in time.
    Restored,
    /// Before a sync of Argo CD.
    Presync,
}

impl Kind {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Auto, "auto"),
        (Self::Scheduled, "scheduled"),
        (Self::Manual, "manual"),
        (Self::Final, "final"),
        (Self::Restored, "restored"),
        (Self::Presync, "presync"),
    ];

    /// The word in an id.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, word)| word)
    }
}

/// `20261122T130500Z-3.42-auto`. Ordered by epoch and sequence: two in a second and a clock set back change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotId {
    /// When, to the second.
    pub time: Timestamp,
    /// The claim under which it was made.
    pub epoch: u64,
    /// Counted from 1 in each epoch.
    pub sequence: u64,
    /// Why.
    pub kind: Kind,
}

impl SnapshotId {
    /// An id; the time is cut to the second.
    #[must_use]
    pub fn new(time: Timestamp, epoch: u64, sequence: u64, kind: Kind) -> Self {
        Self {
            time: Timestamp::from_second(time.as_second()).unwrap_or(time),
            epoch,
            sequence,
            kind,
        }
    }

    /// What snapshots of several destinations are compared by: under one claim they are counted apart, but by one clock.
    #[must_use]
    pub const fn lateness(&self) -> (u64, Timestamp) {
        (self.epoch, self.time)
    }

    /// Epoch and sequence: what ids are compared by.
    #[must_use]
    pub const fn point(&self) -> Point {
        Point {
            epoch: self.epoch,
            sequence: self.sequence,
        }
    }
}

impl PartialOrd for SnapshotId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SnapshotId {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |id: &Self| (id.epoch, id.sequence, id.time, id.kind);
        key(self).cmp(&key(other))
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            epoch,
            sequence,
            kind,
        } = self;
        write!(f, "{}-{epoch}.{sequence}-{}", time.strftime(TIME), kind.as_str())
    }
}

/// A text that is no snapshot id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no snapshot id such as 20261122T130500Z-3.42-auto")]
pub struct NotAnId(String);

impl FromStr for SnapshotId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let parse = || {
            let mut parts = text.splitn(3, '-');
            let (time, point, word) = (parts.next()?, parts.next()?, parts.next()?);
            let time = DateTime::strptime(TIME, time).ok()?;
            let point: Point = point.parse().ok()?;
            let (kind, _) = Kind::ALL.iter().find(|(_, known)| *known == word)?;
            Some(Self {
                time: TimeZone::UTC.to_timestamp(time).ok()?,
                epoch: point.epoch,
                sequence: point.sequence,
                kind: *kind,
            })
        };
        parse()
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| NotAnId(text.to_owned()))
    }
}

/// `3.42`: an epoch and a sequence, without time and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    /// The claim.
    pub epoch: u64,
    /// The backup under it.
    pub sequence: u64,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

impl FromStr for Point {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        text.split_once('.')
            .and_then(|(epoch, sequence)| {
                Some(Self {
                    epoch: number(epoch)?,
                    sequence: number(sequence)?,
                })
            })
            .ok_or_else(|| NotAnId(text.to_owned()))
    }
}

/// Serde by the text form.
macro_rules! as_text {
    ($name:ident) => {
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
    };
}

as_text!(SnapshotId);
as_text!(Point);

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SnapshotId {
        text.parse().unwrap()
    }

    #[test]
    fn an_id_survives_being_written_and_parsed_again() {
        for text in [
            "20261122T130500Z-3.42-auto",
            "19991231T235959Z-0.0-restored",
            "20261122T130500Z-3.42-presync",
        ] {
            assert_eq!(id(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "20261122T130500Z-3.42",
            "20261122T130500Z-3.42-weekly",
            "20261122T130500Z-3-auto",
            "20261122T130500Z-+3.42-auto",
            "20261122T130500Z-03.42-auto",
            "20261322T130500Z-3.42-auto",
            "20261122T130500-3.42-auto",
        ] {
            assert!(text.parse::<SnapshotId>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_are_compared_by_epoch_and_sequence_never_as_strings() {
        assert!(id("20261122T130500Z-3.10-auto") > id("20261122T130500Z-3.9-auto"));
        // The clock was set back.
        assert!(id("20261122T120000Z-3.43-auto") > id("20261122T130500Z-3.42-auto"));
        // A new claim outranks whatever the old holder still writes.
        assert!(id("20261122T120000Z-10.1-auto") > id("20261122T130500Z-9.900-final"));
    }
}
