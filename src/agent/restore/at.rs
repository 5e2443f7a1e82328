//! "Back to then" → the snapshot that is meant. Pure.

use crate::agent::arguments::RestoreAt;
use crate::store::snapshot::SnapshotId;
use jiff::Timestamp;

/// Nothing is kept of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuch {
    /// No snapshot has that id.
    #[error("there is no snapshot {id}{}", near.map(|near| format!("; the nearest is {near}")).unwrap_or_default())]
    Snapshot {
        /// As it was asked for.
        id: String,
        /// The one of the nearest time.
        near: Option<SnapshotId>,
    },
    /// The oldest snapshot is younger.
    #[error("no snapshot is as old as {time}{}", oldest.map(|oldest| format!("; the oldest is {oldest}")).unwrap_or_default())]
    Time {
        /// As it was asked for.
        time: Timestamp,
        /// The oldest that there is.
        oldest: Option<SnapshotId>,
    },
}

/// The snapshot of that id; for a time, the one that was the newest then.
pub fn at(snapshots: &[SnapshotId], wanted: &RestoreAt) -> Result<SnapshotId, NoSuch> {
    match wanted {
        RestoreAt::Snapshot(text) => {
            let id = text.parse::<SnapshotId>().ok();
            id.filter(|id| snapshots.contains(id)).ok_or_else(|| NoSuch::Snapshot {
                id: text.clone(),
                near: id.and_then(|id| {
                    let distance = |other: &SnapshotId| other.time.duration_since(id.time).abs();
                    snapshots.iter().min_by_key(|other| distance(other)).copied()
                }),
            })
        }
        RestoreAt::Time(time) => snapshots
            .iter()
            .filter(|id| id.time <= *time)
            .max_by_key(|id| (id.time, **id))
            .copied()
            .ok_or_else(|| NoSuch::Time {
                time: *time,
                oldest: snapshots.iter().min().copied(),
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNAPSHOTS: [&str; 3] = [
        "20261122T100000Z-1.1-auto",
        "20261122T110000Z-1.2-auto",
        "20261122T110000Z-1.3-final",
    ];

    fn asked(wanted: &str) -> Result<String, String> {
        let snapshots: Vec<SnapshotId> = SNAPSHOTS.iter().map(|id| id.parse().unwrap()).collect();
        at(&snapshots, &wanted.parse().unwrap())
            .map(|id| id.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_id_means_itself_and_a_time_means_what_was_newest_then() {
        for (wanted, expected) in [
            (SNAPSHOTS[1], SNAPSHOTS[1]),
            ("2026-11-22T10:00:00Z", SNAPSHOTS[0]),
            ("2026-11-22T10:59:59Z", SNAPSHOTS[0]),
            ("2026-11-22T12:00:00+01:00", SNAPSHOTS[2]),
            ("2027-01-01T00:00:00Z", SNAPSHOTS[2]),
        ] {
            assert_eq!(asked(wanted).as_deref(), Ok(expected), "{wanted}");
        }
    }

    #[test]
    fn what_is_not_kept_is_said_with_the_nearest_that_is() {
        assert_eq!(
            asked("20261122T104000Z-1.9-auto").unwrap_err(),
            "there is no snapshot 20261122T104000Z-1.9-auto; the nearest is 20261122T110000Z-1.2-auto"
        );
        assert_eq!(
            asked("2026-11-22T09:59:59Z").unwrap_err(),
            "no snapshot is as old as 2026-11-22T09:59:59Z; the oldest is 20261122T100000Z-1.1-auto"
        );
    }
}
