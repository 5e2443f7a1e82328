//! How much of the volumes' files may vanish from one backup to the next. Counts in, an answer out. Pure.

use crate::agent::arguments::Percent;
use crate::store::index::Totals;

/// A file above this that is gone is missed.
const LARGE: u64 = 64 << 20;

/// What would vanish. What only changed is not among it, nor what the policy takes no longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vanishing {
    /// What was live before.
    pub before: Totals,
    /// Files that are gone.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes by which everything else grew.
    pub grown: u64,
    /// The largest of the files that are gone, among those up to [`LARGE`].
    pub largest: u64,
}

impl Vanishing {
    /// Counts a file.
    pub fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
        if bytes <= LARGE {
            self.largest = self.largest.max(bytes);
        }
    }

    /// Whether more than `most` percent of the files or bytes vanish.
    ///
    /// On a small volume one file can be most of the bytes, and deleting it is nothing unusual: the largest that is
    /// gone, unless it is a large one, counts as a file and not in bytes.
    #[must_use]
    pub fn exceeds(&self, most: Percent) -> bool {
        let Self {
            before,
            files,
            bytes,
            grown,
            largest,
        } = *self;
        let exceeds = |part: u64, whole: u64| u128::from(part) * 100 > u128::from(whole) * u128::from(most.0);
        let bytes = bytes.saturating_sub(grown).saturating_sub(largest);
        exceeds(files, before.files) || exceeds(bytes, before.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vanishing(before: (u64, u64), files: u64, bytes: u64, largest: u64) -> Vanishing {
        Vanishing {
            before: Totals {
                files: before.0,
                bytes: before.1,
            },
            files,
            bytes,
            grown: 0,
            largest,
        }
    }

    #[test]
    fn more_than_max_shrink_does_not_vanish_unasked_in_files_or_in_bytes() {
        for (case, most, exceeds) in [
            (vanishing((0, 0), 0, 0, 0), 50, false),
            (vanishing((10, 100), 5, 50, 0), 50, false),
            (vanishing((10, 100), 6, 6, 0), 50, true),
            (vanishing((10, 100), 0, 51, 0), 50, true),
            (vanishing((10, 100), 10, 100, 0), 50, true),
            (vanishing((10, 100), 10, 100, 0), 100, false),
            (vanishing((10, 100), 1, 1, 0), 0, true),
            (vanishing((10, 100), 0, 0, 0), 0, false),
            (vanishing((u64::MAX, u64::MAX), u64::MAX, 0, 0), 99, true),
        ] {
            assert_eq!(case.exceeds(Percent(most)), exceeds, "{case:?} at {most}%");
        }
    }

    #[test]
    fn one_file_of_a_small_volume_may_go_however_much_of_it_that_is() {
        for (case, most, exceeds) in [
            (vanishing((3, 100), 1, 98, 98), 50, false),
            // Two of them are not one.
            (vanishing((10, 200), 2, 190, 95), 50, false),
            (vanishing((10, 200), 3, 198, 66), 50, true),
            // All of them, and none where none may.
            (vanishing((1, 100), 1, 100, 100), 50, true),
            (vanishing((3, 100), 1, 98, 98), 0, true),
            // A large one.
            (vanishing((3, 1 << 40), 1, 1 << 39 | 1, 0), 50, true),
        ] {
            assert_eq!(case.exceeds(Percent(most)), exceeds, "{case:?} at {most}%");
        }
        let mut counted = Vanishing::default();
        for bytes in [LARGE + 1, 5, 7] {
            counted.add(bytes);
        }
        assert_eq!((counted.files, counted.largest), (3, 7));
    }

    #[test]
    fn what_came_makes_up_for_what_went_in_bytes_and_not_in_files() {
        let replaced = Vanishing {
            grown: 98,
            ..vanishing((3, 100), 1, 98, 0)
        };
        assert!(!replaced.exceeds(Percent(50)));
        let cleared = Vanishing {
            grown: 100,
            ..vanishing((3, 100), 3, 100, 0)
        };
        assert!(cleared.exceeds(Percent(50)));
    }
}
