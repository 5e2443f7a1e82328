//! What was found at a destination → the Job's log. Pure.

use super::check::{Point, Totals, Verdict};
use crate::agent::amount;
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write;
use std::time::Duration;

/// What a restore is taken to do in a second, where it was not tried: bytes, and files.
const BYTES: u64 = 40 << 20;
const FILES: u64 = 500;

/// Some lines about one destination.
pub(super) fn report(destination: &str, verdict: &Verdict, pinned: bool, now: Timestamp, took: Duration) -> String {
    let mut text = format!("{destination}: ");
    let checked = format!("checked in {:.1} s", took.as_secs_f64());
    // Writing to a String does not fail.
    let _ = match verdict {
        Verdict::Ready(point) => {
            let _ = writeln!(text, "ready, {checked}");
            write!(text, "{}", of_point(point, now))
        }
        Verdict::ByHand(totals) => {
            let _ = writeln!(text, "made by hand, without snapshots, {checked}");
            writeln!(
                text,
                "  a restore brings  {}; nothing says what they should be, so nothing was verified",
                of_totals(*totals)
            )
        }
        Verdict::NoBackup { bucket_missing } => {
            let bucket = if *bucket_missing {
                " (not even the bucket exists: if it should, check its name and the endpoint)"
            } else {
                ""
            };
            writeln!(
                text,
                "no backup{bucket}: the app starts on its vanilla configuration; {checked}"
            )
        }
        Verdict::Damaged {
            wrong,
            before,
            damaged: _,
        } => {
            let _ = writeln!(text, "DAMAGED, {checked}");
            for wrong in wrong {
                let _ = writeln!(text, "  damaged           {wrong}");
            }
            match before {
                Some(point) => writeln!(
                    text,
                    "  a restore brings the rest, and of these the newest older versions; the newest snapshot that is whole:\n{}",
                    of_point(point, now).trim_end()
                ),
                None => writeln!(
                    text,
                    "  none of its snapshots can be restored as it was: a restore brings what of them can be verified"
                ),
            }
        }
        Verdict::Others(owner) => writeln!(
            text,
            "BELONGS TO {owner}: the app does not start on it. Whether to take it over is asked by its init-config, with an id \
             for vixens.io/backup-accept; if that is not meant, give this workload a place of its own with the annotation \
             vixens.io/backup-destination"
        ),
        Verdict::Failed(_) => writeln!(text, "{}", reason_only(verdict)),
    };
    if pinned {
        let _ = writeln!(text, "  pinned            retention keeps it until the next sync");
    }
    text
}

/// What would come back, in one sentence; nothing where the destination can't be trusted.
pub(super) fn summary(destination: &str, verdict: &Verdict, now: Timestamp) -> Option<String> {
    match verdict {
        Verdict::Ready(point) => Some(format!(
            "{destination}: {}, made {}, {}",
            point.id,
            amount::ago(point.time, now),
            of_totals(point.totals)
        )),
        Verdict::ByHand(totals) => Some(format!("{destination}: made by hand, {}", of_totals(*totals))),
        Verdict::NoBackup { .. } => Some(format!("{destination}: no backup yet")),
        Verdict::Others(_) => Some(format!(
            "{destination}: another workload's, which the start will ask about"
        )),
        Verdict::Damaged { .. } | Verdict::Failed(_) => None,
    }
}

/// Why a destination can't be trusted, in one sentence.
pub(super) fn reason(destination: &str, verdict: &Verdict) -> String {
    match verdict {
        // An error of the store names its destination.
        Verdict::Failed(error) => error.to_string(),
        other => format!("{destination} {}", reason_only(other)),
    }
}

fn reason_only(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Failed(error) => format!("NOT KNOWN: {error}"),
        Verdict::Damaged { wrong, .. } => format!("is damaged: {}", wrong.join("; ")),
        Verdict::Ready(_) | Verdict::ByHand(_) | Verdict::NoBackup { .. } | Verdict::Others(_) => String::new(),
    }
}

fn of_totals(totals: Totals) -> String {
    format!(
        "{}, {}",
        amount::count(totals.files, "file"),
        amount::bytes(totals.bytes)
    )
}

fn of_point(point: &Point, now: Timestamp) -> String {
    let mut text = String::new();
    let totals = of_totals(point.totals);
    let _ = writeln!(
        text,
        "  restore point     {}, made {}",
        point.id,
        amount::ago(point.time, now)
    );
    let seconds = |seconds: u64| amount::span(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)));
    let _ = if let Some(took) = point.downloaded {
        writeln!(
            text,
            "  a restore brings  {totals}; they came here in {}\n  verified          every file, by its size and SHA-256",
            seconds(took.as_secs())
        )
    } else {
        let estimate = point.totals.bytes / BYTES + point.totals.files / FILES + 1;
        writeln!(
            text,
            "  a restore brings  {totals}; in some {} (at {}/s and {FILES} files/s)\n  verified          its index, and that \
             every file of it is there with its size",
            seconds(estimate),
            amount::bytes(BYTES)
        )
    };
    for database in &point.databases {
        let _ = if database.is_a_file_alone() {
            writeln!(
                text,
                "  database          {}/{}, among the files",
                database.folder, database.path
            )
        } else {
            writeln!(
                text,
                "  database          {}/{} at {} (transaction {}), {}",
                database.folder,
                database.path,
                database.time,
                database.txid,
                if database.file.is_some() {
                    "among the files"
                } else {
                    "in its replica"
                }
            )
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn point() -> Point {
        Point {
            id: "20261122T130500Z-3.42-auto".parse().unwrap(),
            time: time("2026-11-22T13:05:00Z"),
            totals: Totals {
                files: 5_000,
                bytes: 55 << 20,
            },
            downloaded: None,
            databases: Vec::new(),
        }
    }

    fn text(verdict: &Verdict, pinned: bool) -> String {
        let now = time("2026-11-22T15:15:00Z");
        report("minio:b/app", verdict, pinned, now, Duration::from_millis(420))
    }

    #[test]
    fn a_restore_point_is_told_with_what_it_would_bring() {
        assert_eq!(
            text(&Verdict::Ready(point()), true),
            "minio:b/app: ready, checked in 0.4 s\n  \
             restore point     20261122T130500Z-3.42-auto, made 2 h 10 min ago\n  \
             a restore brings  5,000 files, 55.0 MiB; in some 12 s (at 40.0 MiB/s and 500 files/s)\n  \
             verified          its index, and that every file of it is there with its size\n  \
             pinned            retention keeps it until the next sync\n"
        );
    }

    #[test]
    fn the_sentence_for_an_event_has_the_snapshots_id_and_age() {
        let now = time("2026-11-22T15:15:00Z");
        let summary = |verdict| super::summary("minio:b/app", &verdict, now);
        assert_eq!(
            summary(Verdict::Ready(point())).as_deref(),
            Some("minio:b/app: 20261122T130500Z-3.42-auto, made 2 h 10 min ago, 5,000 files, 55.0 MiB")
        );
        assert_eq!(
            summary(Verdict::NoBackup { bucket_missing: false }).as_deref(),
            Some("minio:b/app: no backup yet")
        );
        let damaged = Verdict::Damaged {
            wrong: Vec::new(),
            before: None,
            damaged: Vec::new(),
        };
        assert_eq!(summary(damaged), None);
    }

    #[test]
    fn no_backup_is_said_plainly() {
        let text = text(&Verdict::NoBackup { bucket_missing: false }, false);
        assert_eq!(
            text,
            "minio:b/app: no backup: the app starts on its vanilla configuration; checked in 0.4 s\n"
        );
    }

    #[test]
    fn damage_is_told_with_the_newest_snapshot_that_is_whole() {
        let verdict = Verdict::Damaged {
            wrong: vec!["20261122T130600Z-3.43-auto: config/a is missing".to_owned()],
            before: Some(point()),
            damaged: Vec::new(),
        };
        let text = text(&verdict, false);
        assert!(text.starts_with("minio:b/app: DAMAGED, "), "{text}");
        assert!(text.contains("3.43-auto: config/a is missing"), "{text}");
        assert!(
            text.contains("snapshot that is whole:\n  restore point     20261122T130500Z-3.42-auto"),
            "{text}"
        );
    }
}
