//! Cron schedules: five fields as Kubernetes reads them, and default ones staggered by name, so that the CronJobs of a
//! cluster do not start in the same second (lessons, operation).

use crate::agent::arguments::Invalid;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// A five-field cron expression, kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(String);

const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    (
        "month",
        1,
        12,
        &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    ),
    ("day of week", 0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

impl FromStr for Schedule {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal =
            |why: String| Invalid::allowed(format!("a five-field cron expression such as \"17 * * * *\" ({why})"));
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(refusal(format!("there are {} fields", fields.len())));
        }
        for (field, (name, low, high, words)) in fields.iter().zip(FIELDS) {
            if !field.split(',').all(|part| is_range(part, low, high, words)) {
                return Err(refusal(format!(
                    "the {name} is {field:?}; it goes from {low} to {high}"
                )));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `*`, `5`, `1-5`, `mon`, each with an optional `/step`.
fn is_range(part: &str, low: u32, high: u32, words: &[&str]) -> bool {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (part, None),
    };
    if step.is_some_and(|step| !step.parse::<u32>().is_ok_and(|step| step > 0)) {
        return false;
    }
    let value = |text: &str| -> Option<u32> {
        let word = text.to_lowercase();
        match words.iter().position(|known| *known == word) {
            Some(index) => u32::try_from(index).ok().map(|index| index + low),
            None => text.parse().ok(),
        }
        .filter(|value| (low..=high).contains(value))
    };
    match range.split_once('-') {
        _ if range == "*" || range == "?" => true,
        Some((from, to)) => matches!((value(from), value(to)), (Some(from), Some(to)) if from <= to),
        None => value(range).is_some(),
    }
}

/// The default schedule: once each `period` minutes, at an offset that follows from the workload's name.
///
/// `period` is a divisor of 60; the offset is SHA-256 of `namespace/name`, modulo the period.
#[must_use]
pub fn staggered(namespace: &str, name: &str, period: u32) -> Schedule {
    let digest = Sha256::digest(format!("{namespace}/{name}"));
    let number = digest.iter().fold(0_u64, |remainder, byte| {
        (remainder * 256 + u64::from(*byte)) % u64::from(period)
    });
    if period >= 60 {
        Schedule(format!("{number} * * * *"))
    } else {
        Schedule(format!("{number}-59/{period} * * * *"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Schedule, staggered};

    #[test]
    fn five_fields_are_taken_as_written_and_others_refused() {
        for text in ["*/5 * * * *", "17 3 1,15 jan-mar mon", "0-59/10  * * * 0"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        for text in [
            "* * * *",
            "60 * * * *",
            "*/0 * * * *",
            "@hourly",
            "* * * * 8",
            "5-1 * * * *",
            "",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }

    #[test]
    fn default_schedules_are_staggered_by_name_and_stay_the_same() {
        let minutes: std::collections::BTreeSet<String> = (0..80)
            .map(|n| staggered("default", &format!("app-{n}"), 60).to_string())
            .collect();
        assert!(minutes.len() > 30, "{minutes:?}");
        for minute in minutes {
            minute.parse::<Schedule>().unwrap();
        }
        staggered("a", "b", 5).to_string().parse::<Schedule>().unwrap();
        assert_eq!(staggered("media", "app", 60), staggered("media", "app", 60));
    }
}
