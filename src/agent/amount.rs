//! Numbers → what a person reads: bytes, counts, spans of time, file names. Pure.

use jiff::{SignedDuration, Timestamp};
use std::fmt::Write;

/// `55.1 MiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, rounded, in whole numbers: no number of bytes is too large for them.
    let (mut tenths, mut unit) = (u128::from(bytes) * 10, "B");
    for next in UNITS {
        (tenths, unit) = ((tenths + 512) / 1024, next);
        if tenths < 10_240 {
            break;
        }
    }
    if tenths < 1_000 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", (tenths + 5) / 10)
    }
}

/// `1,234`.
#[must_use]
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1,234 files`, `1 file`.
#[must_use]
pub fn count(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", number(count))
}

/// `2 h 10 min`: the two largest units.
#[must_use]
pub fn span(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => two(minutes, "min", seconds % 60, "s"),
        (0, _, _) => two(hours, "h", minutes % 60, "min"),
        (1, _, _) => two(1, "day", hours % 24, "h"),
        (_, _, _) => two(days, "days", hours % 24, "h"),
    }
}

/// `2 h 10 min ago`; for a time to come, that.
#[must_use]
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    let age = now.duration_since(time);
    if age.is_negative() {
        format!("in {}, by its clock", span(age.abs()))
    } else {
        format!("{} ago", span(age))
    }
}

/// A file's name on one line: what is no printable UTF-8 is escaped.
#[must_use]
pub fn name(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_at_most() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (102_348, "99.9 KiB"),
            (104_857_600, "100 MiB"),
            (55 << 20, "55.0 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn counts_are_grouped_and_one_is_no_plural() {
        assert_eq!(count(0, "file"), "0 files");
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(999, "file"), "999 files");
        assert_eq!(count(1_234_567, "file"), "1,234,567 files");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [
            (-5, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_661, "1 h 1 min"),
            (86_400, "1 day"),
            (90_000, "1 day 1 h"),
            (200_000, "2 days 7 h"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_name_is_one_line_whatever_it_holds() {
        assert_eq!(name("été/a b".as_bytes()), "été/a b");
        assert_eq!(name(b"a\nb\\c\xff"), "a\\nb\\\\c\\xff");
    }
}
