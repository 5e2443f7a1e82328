//! What is kept, and for how long.

use super::{Invalid, Size, Span};
use std::fmt;
use std::str::FromStr;

/// How long snapshots are kept: `7d` thinned, or how many of each age, and a byte budget for `history/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Retention {
    /// Keep for this long, thinned: all for an hour, hourly for a day, daily after.
    pub within: Option<Span>,
    /// Keep the newest so many.
    pub last: Option<u32>,
    /// Keep the newest of each of so many hours.
    pub hourly: Option<u32>,
    /// Keep the newest of each of so many days.
    pub daily: Option<u32>,
    /// Keep the newest of each of so many weeks.
    pub weekly: Option<u32>,
    /// Keep the newest of each of so many months.
    pub monthly: Option<u32>,
    /// At most so many bytes in `history/`.
    pub history: Option<Size>,
}

impl FromStr for Retention {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = || {
            Invalid::allowed(
                "a duration such as 7d, or any of last=5,hourly=24,daily=7,weekly=4,monthly=6, with history=2Gi as a byte budget",
            )
        };
        let mut retention = Self::default();
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None if retention.within.is_none() => {
                    let within: Span = part.parse().map_err(|_| refusal())?;
                    if within.duration().is_zero() {
                        return Err(refusal());
                    }
                    retention.within = Some(within);
                }
                None => return Err(refusal()),
                Some(("history", size)) if retention.history.is_none() => {
                    retention.history = Some(size.parse().map_err(|_| refusal())?);
                }
                Some((key, count)) => {
                    let slot = match key {
                        "last" => &mut retention.last,
                        "hourly" => &mut retention.hourly,
                        "daily" => &mut retention.daily,
                        "weekly" => &mut retention.weekly,
                        "monthly" => &mut retention.monthly,
                        _ => return Err(refusal()),
                    };
                    let count: u32 = count.parse().map_err(|_| refusal())?;
                    if count == 0 || slot.replace(count).is_some() {
                        return Err(refusal());
                    }
                }
            }
        }
        let keeps = retention.within.is_some()
            || [
                retention.last,
                retention.hourly,
                retention.daily,
                retention.weekly,
                retention.monthly,
            ]
            .iter()
            .any(Option::is_some);
        if !keeps {
            // A byte budget alone says nothing about age: the default age stands beside it.
            retention.within = Some(Span::seconds(7 * 86_400));
        }
        Ok(retention)
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
        ];
        let parts: Vec<String> = self
            .within
            .iter()
            .map(ToString::to_string)
            .chain(
                counts
                    .iter()
                    .filter_map(|(key, count)| count.map(|count| format!("{key}={count}"))),
            )
            .chain(self.history.iter().map(|size| format!("history={size}")))
            .collect();
        f.write_str(&parts.join(","))
    }
}
