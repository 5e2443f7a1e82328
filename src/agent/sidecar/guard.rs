//! What must hold before a backup writes, and again before its index is published: the volumes are what they were, and not
//! too much of them would vanish. Facts in, a refusal out. Whose the place is: [`crate::agent::lease::check`].

use super::plan::Vanishing;
use super::volume::Trouble;
use crate::agent::arguments::{Percent, QuestionId, QuestionKind};
use crate::store::index::Totals;
use crate::store::snapshot::SnapshotId;
use std::fmt;

/// A backup that was not made, because making it would have hurt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `reason` of `vixens_backup_guard_refusals_total`.
    pub reason: &'static str,
    /// By which a manual backup accepts it; none: it can't be accepted.
    pub id: Option<String>,
    why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no backup was made, nothing was changed in the store: {}", self.why)?;
        match &self.id {
            Some(id) => write!(
                f,
                "; if this is as it should be, accept it once: kubectl exec POD -c backup-sidecar -- vixens-backup backup --accept {id}"
            ),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Self {
            reason: trouble.reason(),
            id: None,
            why: trouble.to_string(),
        }
    }
}

/// Refuses to mirror a volume that lost more than `most` percent of its files or bytes since the snapshot `last`.
///
/// On a small volume one file can be most of the bytes, and deleting it is nothing unusual: the largest that is gone,
/// unless it is a large one, counts as a file and not in bytes. A file that is still there and lost its content counts.
///
/// The refusal's id stands for the snapshot that would be left and for how much would vanish, in steps of ten percent:
/// accepting the loss of half does not accept the loss of everything.
pub fn shrink(
    vanishing: &Vanishing,
    most: Percent,
    last: Option<SnapshotId>,
    accepted: &[QuestionId],
) -> Result<(), Refusal> {
    let Vanishing {
        before: Totals {
            files: files_before,
            bytes: bytes_before,
        },
        files,
        bytes,
        largest,
    } = *vanishing;
    let percent = |part: u64, whole: u64| {
        if whole == 0 {
            0
        } else {
            u128::from(part) * 100 / u128::from(whole)
        }
    };
    let exceeds = |part: u64, whole: u64| u128::from(part) * 100 > u128::from(whole) * u128::from(most.0);
    if !exceeds(files, files_before) && !exceeds(bytes.saturating_sub(largest), bytes_before) {
        return Ok(());
    }
    let worst = percent(files, files_before).max(percent(bytes, bytes_before));
    let last = last.map(|id| id.to_string()).unwrap_or_default();
    let id = QuestionId::new(
        QuestionKind::Hold,
        &[last.as_bytes(), (worst / 10).to_string().as_bytes()],
    );
    if accepted.contains(&id) {
        return Ok(());
    }
    Err(Refusal {
        reason: "max-shrink",
        why: format!(
            "{files} of {files_before} files and {bytes} of {bytes_before} bytes would vanish since the snapshot {last}, more than vixens.io/backup-max-shrink allows ({most})"
        ),
        id: Some(id.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vanishing(before: (u64, u64), files: u64, bytes: u64) -> Vanishing {
        Vanishing {
            before: Totals {
                files: before.0,
                bytes: before.1,
            },
            files,
            bytes,
            largest: 0,
        }
    }

    fn last() -> SnapshotId {
        "20261122T130500Z-3.42-auto".parse().unwrap()
    }

    #[test]
    fn more_than_max_shrink_may_not_vanish_in_files_or_in_bytes() {
        for (case, most, allowed) in [
            (vanishing((0, 0), 0, 0), 50, true),
            (vanishing((10, 100), 5, 50), 50, true),
            (vanishing((10, 100), 6, 6), 50, false),
            (vanishing((10, 100), 0, 51), 50, false),
            (vanishing((10, 100), 10, 100), 50, false),
            (vanishing((10, 100), 10, 100), 100, true),
            (vanishing((10, 100), 1, 1), 0, false),
            (vanishing((10, 100), 0, 0), 0, true),
            (vanishing((u64::MAX, u64::MAX), u64::MAX, 0), 99, false),
        ] {
            assert_eq!(
                shrink(&case, Percent(most), Some(last()), &[]).is_ok(),
                allowed,
                "{case:?} at {most}%"
            );
        }
    }

    #[test]
    fn one_file_of_a_small_volume_may_go_however_much_of_it_that_is() {
        let vanishing = |before: (u64, u64), files, bytes, largest| Vanishing {
            largest,
            ..vanishing(before, files, bytes)
        };
        for (case, most, allowed) in [
            (vanishing((3, 100), 1, 98, 98), 50, true),
            // Two of them are not one.
            (vanishing((10, 200), 2, 190, 95), 50, true),
            (vanishing((10, 200), 3, 198, 66), 50, false),
            // All of them, and none where none may.
            (vanishing((1, 100), 1, 100, 100), 50, false),
            (vanishing((3, 100), 1, 98, 98), 0, false),
            // Emptied, not deleted; and a large one.
            (vanishing((3, 100), 0, 98, 0), 50, false),
            (vanishing((3, 1 << 40), 1, 1 << 39 | 1, 0), 50, false),
        ] {
            assert_eq!(
                shrink(&case, Percent(most), Some(last()), &[]).is_ok(),
                allowed,
                "{case:?} at {most}%"
            );
        }
    }

    #[test]
    fn a_refusal_is_accepted_by_its_id_and_a_worse_one_is_not() {
        let some = vanishing((10, 100), 6, 60);
        let refusal = shrink(&some, Percent(50), Some(last()), &[]).unwrap_err();
        let id: QuestionId = refusal.id.clone().unwrap().parse().unwrap();
        assert!(refusal.to_string().contains(&format!("--accept {id}")), "{refusal}");
        assert!(refusal.to_string().contains("6 of 10 files"), "{refusal}");
        assert_eq!(
            shrink(&some, Percent(50), Some(last()), std::slice::from_ref(&id)),
            Ok(())
        );
        let all = vanishing((10, 100), 10, 100);
        assert!(
            shrink(&all, Percent(50), Some(last()), std::slice::from_ref(&id)).is_err(),
            "everything was not accepted"
        );
        let later = Some("20261122T140500Z-3.43-auto".parse().unwrap());
        assert!(
            shrink(&some, Percent(50), later, std::slice::from_ref(&id)).is_err(),
            "it is accepted once"
        );
    }
}
