//! The volume's state × the store's answer × the owner's policy → what to do. Pure: the table of the documentation,
//! and a test of every cell.

use crate::agent::arguments::{RestorePolicy, StoreDown};

/// A volume's state, as far as it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No file.
    Empty,
    /// Started on vanilla while the store was away.
    Provisional,
    /// A restore was under way.
    Interrupted,
    /// A start came to its end.
    Initialised,
    /// The same, and next to nothing is left of what the newest snapshot has of it.
    Emptied,
    /// A start came to its end, and the store has been written since, under a newer epoch, from another volume.
    Superseded,
    /// Files that we did not bring: most of what the snapshot has is among them, or none is in the place of one of its.
    Foreign,
    /// Files that we did not bring, in the places of the snapshot's, and most of what that has is not among them.
    ForeignLacking,
}

/// The store's answer. The three are never confused (lessons: "no backup" once was said for a wrong key).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Something is there, and readable. `newer`: than the volume, so far as it has a past.
    Backup {
        /// The newest snapshot was not made from this volume.
        newer: bool,
    },
    /// The listing succeeded, and was empty.
    NoBackup,
    /// Anything else.
    Unreachable,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Bring the snapshot onto a volume without files; also: finish what was under way.
    Restore,
    /// Bring what the volume lacks; what is there stays.
    RestoreMissing,
    /// Set the volume's files aside in history, then bring the snapshot.
    SetAsideAndRestore,
    /// Confirmed new: layers.
    New,
    /// Take the files that are there for ours; the store has nothing.
    Adopt,
    /// Take the files that are there for ours, though the store has a backup: nothing is to be restored. What the volume
    /// lacks is the sidecar's guard to judge.
    AdoptOverBackup,
    /// Leave the volume as it is.
    Keep,
    /// Leave the volume as it is, and back nothing up: the store was written from another volume since.
    KeepSuperseded,
    /// Leave the volume as it is, and back nothing up: nobody knows what the store holds.
    KeepUnknown,
    /// Start on vanilla, marked so, with backups fenced.
    StartProvisional,
    /// Ask the store again until the timeout, then fail.
    AskAgain,
    /// A restore was under way, and what was being restored is gone, or may not be restored.
    FailInterrupted,
}

/// The decision for one volume.
#[must_use]
pub fn decide(found: Found, answer: Answer, policy: RestorePolicy, store_down: StoreDown) -> Decision {
    use Answer::{Backup, NoBackup, Unreachable};
    use Decision::{
        Adopt, AdoptOverBackup, AskAgain, FailInterrupted, Keep, KeepSuperseded, KeepUnknown, New, Restore,
        RestoreMissing, SetAsideAndRestore, StartProvisional,
    };
    use Found::{Emptied, Empty, Foreign, ForeignLacking, Initialised, Interrupted, Provisional, Superseded};
    use RestorePolicy::{Always, IfEmpty, Never};

    match (policy, found, answer) {
        // What was interrupted is finished, or nothing starts.
        (Never, Interrupted, _) | (_, Interrupted, NoBackup) => FailInterrupted,
        (_, Interrupted, Unreachable) => AskAgain,
        (_, Interrupted, Backup { .. }) | (IfEmpty | Always, Empty, Backup { .. }) => Restore,

        // Initialised data is newer than its backup.
        (_, Initialised, NoBackup | Unreachable | Backup { newer: false })
        | (IfEmpty | Never, Initialised, Backup { newer: true })
        | (_, Emptied, NoBackup)
        | (Never, Emptied, _)
        | (_, Superseded, NoBackup | Unreachable) => Keep,
        (Always, Superseded, Backup { newer: false }) | (IfEmpty | Never, Superseded, Backup { .. }) => KeepSuperseded,

        // What the app wrote on vanilla, what somebody wrote before we looked, or what the owner wants undone at each
        // start, is kept in history.
        (IfEmpty | Always, Provisional | ForeignLacking, Backup { .. })
        | (Always, Foreign, Backup { .. })
        | (Always, Initialised | Emptied | Superseded, Backup { newer: true }) => SetAsideAndRestore,

        (_, Empty | Provisional, NoBackup) => New,
        (Never, Empty | Provisional, Unreachable) => StartProvisional,
        (IfEmpty | Always, Empty | Emptied | Provisional, Unreachable) => match store_down {
            StoreDown::Wait => AskAgain,
            StoreDown::Start => StartProvisional,
        },

        (_, Foreign | ForeignLacking, NoBackup) => Adopt,
        (_, Foreign | ForeignLacking, Unreachable) => KeepUnknown,
        // What is there is what somebody left there on purpose, or did not see.
        (IfEmpty, Foreign | Emptied, Backup { .. }) | (Always, Emptied, Backup { newer: false }) => RestoreMissing,
        (Never, Empty | Provisional | Foreign | ForeignLacking, Backup { .. }) => AdoptOverBackup,
    }
}

#[cfg(test)]
mod tests {
    use super::Answer::{Backup, NoBackup, Unreachable};
    use super::Decision::*;
    use super::Found::*;
    use super::*;
    use RestorePolicy::{Always, IfEmpty, Never};

    const NEWER: Answer = Backup { newer: true };
    const OLDER: Answer = Backup { newer: false };

    /// Every cell: policy, found, then newer backup, older backup, no backup, unreachable with wait, with start.
    const TABLE: [(RestorePolicy, Found, [Decision; 5]); 24] = [
        (IfEmpty, Empty, [Restore, Restore, New, AskAgain, StartProvisional]),
        (
            IfEmpty,
            Provisional,
            [SetAsideAndRestore, SetAsideAndRestore, New, AskAgain, StartProvisional],
        ),
        (
            IfEmpty,
            Interrupted,
            [Restore, Restore, FailInterrupted, AskAgain, AskAgain],
        ),
        (IfEmpty, Initialised, [Keep, Keep, Keep, Keep, Keep]),
        (
            IfEmpty,
            Emptied,
            [RestoreMissing, RestoreMissing, Keep, AskAgain, StartProvisional],
        ),
        (IfEmpty, Superseded, [KeepSuperseded, KeepSuperseded, Keep, Keep, Keep]),
        (
            IfEmpty,
            Foreign,
            [RestoreMissing, RestoreMissing, Adopt, KeepUnknown, KeepUnknown],
        ),
        (
            IfEmpty,
            ForeignLacking,
            [SetAsideAndRestore, SetAsideAndRestore, Adopt, KeepUnknown, KeepUnknown],
        ),
        (Always, Empty, [Restore, Restore, New, AskAgain, StartProvisional]),
        (
            Always,
            Provisional,
            [SetAsideAndRestore, SetAsideAndRestore, New, AskAgain, StartProvisional],
        ),
        (
            Always,
            Interrupted,
            [Restore, Restore, FailInterrupted, AskAgain, AskAgain],
        ),
        (Always, Initialised, [SetAsideAndRestore, Keep, Keep, Keep, Keep]),
        (
            Always,
            Emptied,
            [SetAsideAndRestore, RestoreMissing, Keep, AskAgain, StartProvisional],
        ),
        (
            Always,
            Superseded,
            [SetAsideAndRestore, KeepSuperseded, Keep, Keep, Keep],
        ),
        (
            Always,
            ForeignLacking,
            [SetAsideAndRestore, SetAsideAndRestore, Adopt, KeepUnknown, KeepUnknown],
        ),
        (
            Always,
            Foreign,
            [SetAsideAndRestore, SetAsideAndRestore, Adopt, KeepUnknown, KeepUnknown],
        ),
        (
            Never,
            Empty,
            [
                AdoptOverBackup,
                AdoptOverBackup,
                New,
                StartProvisional,
                StartProvisional,
            ],
        ),
        (
            Never,
            Provisional,
            [
                AdoptOverBackup,
                AdoptOverBackup,
                New,
                StartProvisional,
                StartProvisional,
            ],
        ),
        (
            Never,
            Interrupted,
            [
                FailInterrupted,
                FailInterrupted,
                FailInterrupted,
                FailInterrupted,
                FailInterrupted,
            ],
        ),
        (Never, Initialised, [Keep, Keep, Keep, Keep, Keep]),
        (Never, Emptied, [Keep, Keep, Keep, Keep, Keep]),
        (Never, Superseded, [KeepSuperseded, KeepSuperseded, Keep, Keep, Keep]),
        (
            Never,
            ForeignLacking,
            [AdoptOverBackup, AdoptOverBackup, Adopt, KeepUnknown, KeepUnknown],
        ),
        (
            Never,
            Foreign,
            [AdoptOverBackup, AdoptOverBackup, Adopt, KeepUnknown, KeepUnknown],
        ),
    ];

    #[test]
    fn every_cell_of_the_table() {
        for (policy, found, row) in TABLE {
            let columns = [
                (NEWER, StoreDown::Wait),
                (OLDER, StoreDown::Wait),
                (NoBackup, StoreDown::Wait),
                (Unreachable, StoreDown::Wait),
                (Unreachable, StoreDown::Start),
            ];
            for ((answer, store_down), expected) in columns.into_iter().zip(row) {
                assert_eq!(
                    decide(found, answer, policy, store_down),
                    expected,
                    "{policy} {found:?} {answer:?} {store_down}"
                );
            }
            for answer in [NEWER, OLDER, NoBackup] {
                assert_eq!(
                    decide(found, answer, policy, StoreDown::Wait),
                    decide(found, answer, policy, StoreDown::Start),
                    "store-down says nothing about a store that answers"
                );
            }
        }
    }

    #[test]
    fn an_unreachable_store_is_never_taken_for_an_empty_one() {
        for (policy, found, _) in TABLE {
            for store_down in [StoreDown::Wait, StoreDown::Start] {
                let decision = decide(found, Unreachable, policy, store_down);
                assert!(!matches!(decision, New | Adopt), "{policy} {found:?}");
            }
        }
    }
}
