//! Files that nobody has any more → one question a volume, or the word that it was answered. Asked once everything else is in its
//! place: the next start goes on from there. Reads the volume, and the store's decisions.

use super::act::Outcome;
use super::subject::Subject;
use super::survey::Survey;
use super::{Error, Init};
use crate::agent::amount;
use crate::agent::arguments::QuestionKind;
use crate::agent::restore::salvage::Missing;
use crate::agent::volume::given_up::give_up;
use crate::contract::question::Question;
use crate::store::decisions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// So many names are in the question.
const NAMED: usize = 5;

/// What lies at a path: another after it was replaced.
type Found = Option<(u64, i64, i64)>;

/// A missing file, and what lay in its place when the restore had ended.
pub(super) struct Gap {
    missing: Missing,
    found: Found,
}

/// The files that a restore could not bring, as they are right after it.
pub(super) fn gaps(volume: &Path, missing: &[Missing]) -> Vec<Gap> {
    let gap = |missing: &Missing| Gap {
        found: found(&volume.join(&missing.path)),
        missing: missing.clone(),
    };
    missing.iter().map(gap).collect()
}

fn found(path: &Path) -> Found {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.ino(), found.ctime(), found.ctime_nsec()))
}

/// The questions that were accepted, to be recorded once the start has ended; an error is the first that was not.
pub(super) async fn decide(
    init: &Init<'_>,
    subjects: &[Subject],
    outcomes: &[Outcome],
    survey: &Survey,
) -> Result<Vec<Question>, Error> {
    let mut accepted = Vec::new();
    let mut open = None;
    for (subject, outcome) in subjects.iter().zip(outcomes) {
        let missing = missing(subject, outcome);
        let Some(question) = question(subject, outcome, &missing, survey.highest_epoch()) else {
            continue;
        };
        let is_answered = question.is_accepted_by(&init.arguments.accepted)
            && match survey.source(init.stores) {
                Some((store, _)) => {
                    let decided = decisions::is_decided(store, &question.id).await;
                    !decided.map_err(crate::agent::restore::Error::from)?
                }
                None => true,
            };
        if is_answered {
            tracing::warn!("accepted: {}", question.text);
            let path = |one: &Missing| [subject.folder.as_bytes(), b"/", one.path.as_os_str().as_bytes()].concat();
            give_up(&subject.own, missing.iter().map(|one| (path(one), one.sha256.as_ref())))?;
            accepted.push(question);
        } else if open.is_none() {
            open = Some(question);
        } else {
            tracing::error!("{question}");
        }
    }
    open.map_or(Ok(accepted), |question| Err(Error::Asks(question)))
}

/// Records what was accepted. The start has done it by now: a store that is away costs nothing but a second question.
pub(super) async fn record(init: &Init<'_>, survey: &Survey, accepted: &[Question]) {
    let Some((store, _)) = survey.source(init.stores) else {
        return;
    };
    for question in accepted {
        if let Err(error) = decisions::record(store, &question.id, &question.text).await {
            tracing::warn!("that {} was accepted could not be recorded: {error}", question.id);
        }
    }
}

/// What a volume lacks still, by path. What came from elsewhere since, as a database from its replica, is not missing.
fn missing<'a>(subject: &Subject, outcome: &'a Outcome) -> Vec<&'a Missing> {
    let stays = |gap: &&Gap| found(&subject.own.volume().join(&gap.missing.path)) == gap.found;
    let mut missing: Vec<&Missing> = outcome.gaps.iter().filter(stays).map(|gap| &gap.missing).collect();
    missing.sort_by(|a, b| a.path.cmp(&b.path));
    missing
}

/// What is to be asked about a volume. A start that settles has a new epoch, and should the same be lost again, it is another
/// question.
fn question(subject: &Subject, outcome: &Outcome, missing: &[&Missing], epoch: u64) -> Option<Question> {
    let brought = outcome.brought.as_ref()?;
    let epoch = epoch.to_le_bytes();
    let mut facts: Vec<&[u8]> = vec![subject.folder.as_bytes(), &epoch];
    if brought.snapshot.is_none() && !brought.fallen_back.is_empty() {
        let lost: Vec<String> = brought.fallen_back.iter().map(|(id, _)| id.to_string()).collect();
        facts.extend(lost.iter().map(String::as_bytes));
        let text = format!(
            "no index of the {} of volume {} can be read any more, so nothing tells which files it had, and what they were: the \
             files that its backup in {}/ has are in their places, with ordinary owners and modes; start with them?",
            amount::count(lost.len() as u64, "snapshot"),
            subject.name,
            subject.folder
        );
        return Some(Question::new(QuestionKind::Missing, &facts, text));
    }
    let first = missing.first()?;
    for one in missing {
        facts.push(one.path.as_os_str().as_bytes());
        facts.push(one.sha256.as_ref().map_or(&[], <[u8; 32]>::as_slice));
    }
    let names = missing.iter().take(NAMED);
    let mut names: Vec<String> = names.map(|one| amount::name(one.path.as_os_str().as_bytes())).collect();
    if missing.len() > NAMED {
        names.push(format!("and {} more", missing.len() - NAMED));
    }
    let text = format!(
        "the backup of volume {} lacks {}: {} ({}); everything else is in its place, and of these the newest older version \
         where the bucket has one; start without them, as they are now?",
        subject.name,
        amount::count(missing.len() as u64, "file"),
        names.join(", "),
        first.why
    );
    Some(Question::new(QuestionKind::Missing, &facts, text))
}
