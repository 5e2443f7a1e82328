//! How far long work is → one line that is written over on a terminal, and a line every few seconds in a log. Standard
//! error only: what a command prints is its result.

use crate::agent::amount;
use jiff::SignedDuration;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

/// Lines of a log.
const LOG: Duration = Duration::from_secs(5);
/// Updates of a terminal's line.
const TERMINAL: Duration = Duration::from_millis(200);

/// Progress towards a known end.
pub(super) struct Progress {
    files: u64,
    bytes: u64,
    began: Instant,
    is_terminal: bool,
}

impl Progress {
    /// Towards so much.
    pub(super) fn towards(files: u64, bytes: u64) -> Self {
        Self {
            files,
            bytes,
            began: Instant::now(),
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// How often [`Self::tell`] is to be called.
    pub(super) fn every(&self) -> Duration {
        if self.is_terminal { TERMINAL } else { LOG }
    }

    /// Says how much is there.
    pub(super) fn tell(&self, files: u64, bytes: u64) {
        let line = line((files, self.files), (bytes, self.bytes), self.began.elapsed());
        let mut stderr = std::io::stderr();
        // Nobody is left to be told that nobody can be told.
        let _ = if self.is_terminal {
            write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{line}")
        };
    }

    /// Leaves the terminal's line to others.
    pub(super) fn end(&self) {
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(files: (u64, u64), bytes: (u64, u64), elapsed: Duration) -> String {
    let mut line = format!(
        "restoring: {} of {}, {} of {}",
        amount::number(files.0),
        amount::count(files.1, "file"),
        amount::bytes(bytes.0),
        amount::bytes(bytes.1)
    );
    let milliseconds = elapsed.as_millis();
    if bytes.0 > 0 && milliseconds > 1_000 {
        let rate = u128::from(bytes.0) * 1_000 / milliseconds;
        let rate = amount::bytes(u64::try_from(rate).unwrap_or(u64::MAX));
        let left = u128::from(bytes.1.saturating_sub(bytes.0)) * milliseconds / u128::from(bytes.0) / 1_000;
        let left = amount::span(SignedDuration::from_secs(i64::try_from(left).unwrap_or(i64::MAX)));
        // Writing to a String does not fail.
        let _ = write!(line, ", {rate}/s, {left} left");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_is_there_how_fast_and_how_long_yet() {
        assert_eq!(
            line((0, 5_000), (0, 55 << 20), Duration::ZERO),
            "restoring: 0 of 5,000 files, 0 B of 55.0 MiB"
        );
        assert_eq!(
            line((1_000, 5_000), (11 << 20, 55 << 20), Duration::from_secs(11)),
            "restoring: 1,000 of 5,000 files, 11.0 MiB of 55.0 MiB, 1.0 MiB/s, 44 s left"
        );
    }
}
