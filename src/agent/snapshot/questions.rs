//! What a destination asks people: may what is held go, and may what is excluded go? Counts ↔ words, and when they are
//! said again. No I/O.

use crate::agent::amount;
use crate::agent::arguments::{QuestionId, QuestionKind};
use crate::agent::scan::Tally;
use crate::contract::question::Question;
use crate::store::index::{Hold, HoldId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A hold that stands is spoken of again after this.
const REMINDER: Duration = Duration::from_secs(3600);

/// The id of a hold that is placed now: one of its own for each snapshot that it keeps things from.
#[must_use]
pub fn hold_id(facts: &[&[u8]]) -> HoldId {
    let id = QuestionId::new(QuestionKind::Hold, facts);
    // The one is the other's text.
    id.as_str().parse().unwrap_or(HoldId::new(0))
}

/// Whether what is held may go.
#[must_use]
pub fn of_hold(hold: &Hold) -> Option<Question> {
    let Hold { id, since, totals } = hold;
    Some(Question {
        id: id.to_string().parse().ok()?,
        text: format!(
            "{} ({}) vanished from the volumes at {}, more than vixens.io/backup-max-shrink allows, and are held: they \
             stay in the mirror and in each snapshot, and what is new is saved as always; may they go? To have them \
             back instead: vixens-backup restore, or vixens.io/backup-restore-at with the newest snapshot",
            amount::count(totals.files, "file"),
            amount::bytes(totals.bytes),
            since.strftime("%Y-%m-%dT%H:%M:%SZ"),
        ),
    })
}

/// Whether what is excluded may go.
#[must_use]
pub fn of_excluded(tally: &Tally) -> Option<Question> {
    let part = &tally.excluded;
    (part.entries > 0).then(|| Question {
        id: excluded_id(tally),
        text: format!(
            "{} ({}) that were saved are not taken any more, by an exclude, by max-size, or because their volume is not \
             protected now: the last version of each stays in the mirror and in each snapshot until it is deleted; may \
             they go?",
            amount::count(part.totals.files, "file"),
            amount::bytes(part.totals.bytes),
        ),
    })
}

fn excluded_id(tally: &Tally) -> QuestionId {
    QuestionId::new(QuestionKind::Excluded, &[&tally.excluded_set.to_le_bytes()])
}

/// All questions that stand.
#[must_use]
pub fn standing(holds: &[Hold], tally: &Tally) -> Vec<Question> {
    let holds = holds.iter().filter_map(of_hold);
    holds.chain(of_excluded(tally)).collect()
}

/// What was said of the questions, and when.
#[derive(Debug, Default)]
pub struct Reminders {
    said: BTreeMap<QuestionId, Instant>,
}

impl Reminders {
    /// Of the questions that stand, those that are to be said now: each once, and what is held again each hour.
    pub fn due<'a>(&mut self, standing: &'a [Question], now: Instant) -> Vec<&'a Question> {
        self.said
            .retain(|id, _| standing.iter().any(|question| question.id == *id));
        let mut due = Vec::new();
        for question in standing {
            let is_due = match self.said.get(&question.id) {
                None => true,
                Some(last) => question.id.kind() == Some(QuestionKind::Hold) && now >= *last + REMINDER,
            };
            if is_due {
                self.said.insert(question.id.clone(), now);
                due.push(question);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::Totals;

    fn hold(number: u32) -> Hold {
        Hold {
            id: HoldId::new(number),
            since: "2026-11-22T13:05:00.25Z".parse().unwrap(),
            totals: Totals { files: 40, bytes: 2048 },
        }
    }

    #[test]
    fn a_hold_is_asked_about_by_its_own_id() {
        let question = of_hold(&hold(0x0a)).unwrap();
        assert_eq!(question.id.as_str(), "hold-0000000a");
        assert!(
            question
                .text
                .starts_with("40 files (2.0 KiB) vanished from the volumes at 2026-11-22T13:05:00Z"),
            "{question}"
        );
        assert_eq!(hold_id(&[b"a"]), hold_id(&[b"a"]));
        assert_ne!(hold_id(&[b"a"]), hold_id(&[b"b"]));
    }

    #[test]
    fn another_set_of_excluded_entries_is_another_question() {
        let mut tally = Tally::default();
        assert_eq!(of_excluded(&tally), None);
        tally.excluded.entries = 1;
        let one = of_excluded(&tally).unwrap().id;
        tally.excluded_set = 7;
        assert_ne!(of_excluded(&tally).unwrap().id, one);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_is_said_at_once_and_again_each_hour_and_what_is_excluded_once() {
        let mut reminders = Reminders::default();
        let mut tally = Tally::default();
        tally.excluded.entries = 1;
        let questions = standing(&[hold(1)], &tally);
        let begun = Instant::now();
        let mut said = |questions: &[Question], minutes: u64| {
            let due = reminders.due(questions, begun + Duration::from_secs(minutes * 60));
            due.iter().map(|question| question.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(said(&questions, 0).len(), 2);
        assert!(said(&questions, 59).is_empty());
        assert_eq!(said(&questions, 60), ["hold-00000001"]);
        let another = standing(&[hold(1), hold(2)], &tally);
        assert_eq!(said(&another, 61), ["hold-00000002"]);
        assert_eq!(said(&[], 62), [""; 0]);
        assert_eq!(said(&questions, 63).len(), 2, "it was gone in between");
    }
}
