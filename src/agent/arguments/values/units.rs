//! Values that are a number with a unit: lengths of time, bytes, shares, ports.

use super::Invalid;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time, written as Go and Prometheus do: `90s`, `5m`, `1h30m`, `7d`, `2w`. Whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

const UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Span {
    /// A span of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The same length as the standard library's type.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = || {
            let refusal = Invalid::allowed("a duration such as 30s, 5m, 1h30m or 7d");
            match text.trim().parse::<u64>() {
                Ok(number) => refusal.nearest(format!("{number}s")),
                Err(_) => refusal,
            }
        };
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refusal)?;
            let number: u64 = rest[..digits].parse().map_err(|_| refusal())?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            let (_, unit) = UNITS
                .iter()
                .find(|(name, _)| *name == &rest[..letters])
                .ok_or_else(refusal)?;
            rest = &rest[letters..];
            total = number
                .checked_mul(*unit)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(refusal)?;
        }
        if text.is_empty() {
            return Err(refusal());
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in UNITS.iter().filter(|(name, _)| *name != "w") {
            if rest >= *unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

/// A number of bytes, written as a Kubernetes quantity: `100M`, `2Gi`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

const SUFFIXES: [(&str, u64); 10] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("K", 1_000),
    ("", 1),
];

impl FromStr for Size {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refusal = || {
            let refusal = Invalid::allowed("a quantity of bytes such as 100M, 2Gi or 4096");
            let trimmed = text.trim().trim_end_matches(['b', 'B']).to_uppercase();
            match (trimmed != text && !trimmed.is_empty()).then(|| trimmed.parse::<Self>()) {
                Some(Ok(_)) => refusal.nearest(trimmed),
                _ => refusal,
            }
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| refusal())?;
        let (_, factor) = SUFFIXES
            .iter()
            .find(|(suffix, _)| *suffix == &text[digits..])
            .ok_or_else(refusal)?;
        number.checked_mul(*factor).map(Self).ok_or_else(refusal)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SUFFIXES
            .iter()
            .find(|(suffix, factor)| *suffix != "K" && self.0 >= *factor && self.0.is_multiple_of(*factor));
        match exact {
            Some((suffix, factor)) => write!(f, "{}{suffix}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A share from `0%` to `100%`; the sign may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(pub u8);

impl FromStr for Percent {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = text.strip_suffix('%').unwrap_or(text);
        match digits.parse::<u8>() {
            Ok(number) if number <= 100 => Ok(Self(number)),
            _ => Err(Invalid::allowed("0% to 100%")),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// The port of the sidecar's HTTP server: `9476`, or `9476+` for the first free one from there on (`hostNetwork`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// This one.
    Fixed(u16),
    /// The first free one from here on.
    From(u16),
}

impl FromStr for Port {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (digits, from) = match text.strip_suffix('+') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        match digits.parse::<u16>() {
            Ok(port) if port > 0 => Ok(if from { Self::From(port) } else { Self::Fixed(port) }),
            _ => Err(Invalid::allowed(
                "a port such as 9476, or 9476+ for the first free one from there on",
            )),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(port) => write!(f, "{port}"),
            Self::From(port) => write!(f, "{port}+"),
        }
    }
}
