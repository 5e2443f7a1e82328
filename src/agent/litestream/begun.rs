//! Where a process of Litestream began to send a database. One that is started sends the whole database where the log is not
//! the one that it knows; one that runs does that too when the app has put another file in the place of the first, but takes
//! what is not in the new log from the file that it still holds: the "whole" is a mixture then. So each start is written down,
//! and what is whole, of a log that can't follow, and not the first of a process, is no point to restore. Pure.

use super::ltx::Txid;
use serde::{Deserialize, Serialize};

/// So many starts of a database are remembered.
const MOST: usize = 16;
/// What the process before has sent is listed by then, but for what the store took at that moment.
const KILLED: u64 = 2;
/// What a process may send that is only being ended.
const ENDING: u64 = 16;

/// A process began to send a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// Under which claim.
    pub epoch: u64,
    /// The last transaction that was known then.
    pub after: Txid,
    /// The first that it sent is none after this one. Where it was seen to go on with what was there, it is the same.
    pub upto: Txid,
}

impl Beginning {
    /// It begins now. `is_ending`: the process before has yet to end.
    #[must_use]
    pub const fn now(epoch: u64, after: Txid, is_ending: bool) -> Self {
        let more = if is_ending { ENDING } else { KILLED };
        let upto = Txid(after.0.saturating_add(more));
        Self { epoch, after, upto }
    }

    /// It was seen to have begun: this is the newest transaction then.
    pub fn seen(&mut self, newest: Txid) {
        self.upto = newest.max(self.after);
    }

    /// Notes it, and forgets the oldest.
    pub fn note(self, beginnings: &mut Vec<Self>) {
        if beginnings.last() != Some(&self) {
            beginnings.push(self);
            let over = beginnings.len().saturating_sub(MOST);
            beginnings.drain(..over);
        }
    }

    const fn may_begin_with(&self, first: Txid) -> bool {
        self.after.0 < first.0 && first.0 <= self.upto.0
    }
}

/// Whether a process may have begun with this transaction: also where it is older than all that is remembered.
#[must_use]
pub fn may_begin_with(beginnings: &[Beginning], first: Txid) -> bool {
    beginnings.first().is_none_or(|oldest| first <= oldest.after)
        || beginnings.iter().any(|beginning| beginning.may_begin_with(first))
}

/// Whether all processes are known that have sent anything: the last one to hold the place writes them down.
#[must_use]
pub fn are_known(beginnings: &[Beginning], holder: u64) -> bool {
    beginnings.last().is_some_and(|last| last.epoch == holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_begins_right_after_what_was_known_and_what_is_forgotten_may_be_a_beginning() {
        let mut beginnings = Vec::new();
        assert!(may_begin_with(&beginnings, Txid(7)), "nothing is known");
        for after in [10, 20] {
            Beginning::now(3, Txid(after), false).note(&mut beginnings);
        }
        let begins = |beginnings: &[Beginning], first| may_begin_with(beginnings, Txid(first));
        #[rustfmt::skip]
        let table = [(9, true), (10, true), (11, true), (12, true), (13, false), (20, false), (21, true), (23, false)];
        for (first, expected) in table {
            assert_eq!(begins(&beginnings, first), expected, "{first}");
        }
        beginnings[1].seen(Txid(21));
        assert!(begins(&beginnings, 21) && !begins(&beginnings, 22));
        beginnings[1].seen(Txid(20));
        assert!(!begins(&beginnings, 21), "it went on with what was there");
        let ending = [Beginning::now(3, Txid(20), true)];
        assert!(begins(&ending, 36) && !begins(&ending, 37));
    }

    #[test]
    fn what_a_former_release_has_sent_since_is_not_known_and_the_oldest_are_forgotten() {
        let mut beginnings = Vec::new();
        assert!(!are_known(&beginnings, 0));
        for after in 30..60 {
            Beginning::now(3, Txid(after), false).note(&mut beginnings);
        }
        assert_eq!(beginnings.len(), MOST);
        assert!(are_known(&beginnings, 3) && !are_known(&beginnings, 4));
    }
}
