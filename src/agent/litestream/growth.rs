//! How much of a volume may pile up because of Litestream while the store is down: a tenth of the volume, at most 1 GiB, and
//! never the last of its room. Litestream itself knows no limit (lesson: a local log grew to 134 GiB). Numbers in, a verdict
//! out.

use crate::agent::volume::room::Room;

const MOST: u64 = 1 << 30;
/// Less than this is no backlog: a log rests at a few MiB.
const LEAST: u64 = 64 << 20;

/// What is to be done about what has piled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// It is half of what may be: say so, before it hurts.
    Much {
        /// Bytes that may be.
        most: u64,
    },
    /// Stop, so that the app can empty its log.
    TooMuch {
        /// Bytes that may be.
        most: u64,
    },
}

impl Room {
    /// What to do about a backlog of so many bytes.
    #[must_use]
    pub fn judge(&self, backlog: u64) -> Verdict {
        let tenth = (self.size / 10).clamp(LEAST.min(self.size / 4), MOST);
        // The backlog's own bytes count as room: what else fills the volume must leave some.
        let most = tenth.min((self.free.saturating_add(backlog)) / 2);
        if backlog <= LEAST / 4 {
            Verdict::Fine
        } else if backlog >= most {
            Verdict::TooMuch { most }
        } else if backlog >= most / 2 {
            Verdict::Much { most }
        } else {
            Verdict::Fine
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn judged(size: u64, free: u64, backlog: u64) -> Verdict {
        let room = Room {
            size: size * MIB,
            free: free * MIB,
            ..Room::default()
        };
        room.judge(backlog * MIB)
    }

    #[test]
    fn a_tenth_of_the_volume_and_no_more_than_a_gibibyte_may_pile_up() {
        let most = |mib: u64| mib * MIB;
        assert_eq!(judged(10_240, 9_000, 100), Verdict::Fine);
        assert_eq!(judged(10_240, 9_000, 600), Verdict::Much { most: most(1024) });
        assert_eq!(judged(10_240, 9_000, 1024), Verdict::TooMuch { most: most(1024) });
        assert_eq!(judged(1_000_000, 900_000, 1024), Verdict::TooMuch { most: most(1024) });
        assert_eq!(judged(1024, 900, 110), Verdict::TooMuch { most: 1024 * MIB / 10 });
        assert_eq!(judged(200, 150, 50), Verdict::TooMuch { most: most(50) });
    }

    #[test]
    fn a_volume_that_is_nearly_full_is_left_its_last_room() {
        assert_eq!(judged(10_240, 100, 90), Verdict::Much { most: 95 * MIB });
        assert_eq!(judged(10_240, 20, 30), Verdict::TooMuch { most: 25 * MIB });
        assert_eq!(judged(10_240, 5, 10), Verdict::Fine, "an ordinary log");
    }
}
