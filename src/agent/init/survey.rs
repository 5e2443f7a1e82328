//! Volumes × every destination's place → one decision a volume. Asks the store again, with growing pauses, while a
//! decision wants that. Reads the store only.

use super::decision::Decision;
use super::pause::Pause;
use super::subject::Subject;
use super::{Error, Init, Stores};
use crate::agent::arguments::RestorePolicy;
use crate::agent::lease::beat::{LOOK_AGAIN, Observation, Seen};
use crate::agent::lease::inspect::{Backup, Outline, Place};
use crate::agent::lease::reverted::newer;
use crate::agent::restore::moved::Moved;
use crate::agent::start::Serving;
use crate::agent::volume::bare;
use crate::agent::volume::look::VolumeState;
use crate::contract::question::Question;
use crate::store::Store;
use crate::store::claims::{Claim, Holder};
use crate::store::snapshot::SnapshotId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

mod asking;
mod coverage;
pub(super) mod doubt;
mod folders;
mod found;
mod glance;
mod newest;
pub(super) mod owners;
mod point;
mod source;
mod waiting;

use asking::{Answers, ask};
use doubt::{Expected, Weighed};
use glance::{GLANCE, glance};
use owners::TakenOver;
use point::{LookedUp, Wanted};
use source::Source;
use waiting::{observe, tell_once, waits_for};

/// A writer that is about to let go is looked at so often.
const HAND_OVER: Duration = Duration::from_secs(2);

/// What a destination said.
pub(super) enum Said {
    /// Its place was looked at.
    Place(Place),
    /// Only what lies there was listed. Enough for volumes that are kept.
    Outline(Outline),
    /// It could not be asked, or not be believed.
    Nothing(String),
}

impl Said {
    /// The claims of the place, the holder last; `None` where nobody knows.
    pub(super) fn holders(&self) -> Option<&[Holder]> {
        match self {
            Self::Outline(outline) => Some(&outline.claims),
            Self::Place(Place::Backup(backup)) => Some(&backup.claims),
            Self::Place(Place::Nothing { .. }) => Some(&[]),
            Self::Nothing(_) => None,
        }
    }

    fn backup(&self) -> Option<&Backup> {
        match self {
            Self::Place(Place::Backup(backup)) => Some(backup),
            Self::Place(Place::Nothing { .. }) | Self::Outline(_) | Self::Nothing(_) => None,
        }
    }

    fn outline(&self) -> Option<&Outline> {
        match self {
            Self::Outline(outline) => Some(outline),
            Self::Place(_) | Self::Nothing(_) => None,
        }
    }
}

/// What is to be done with a volume, and what else there is to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decided {
    /// What is to be done.
    pub(super) decision: Decision,
    /// Why, where that has to be said: a clause.
    pub(super) because: Option<String>,
    /// What the volume has of the backup under other names.
    pub(super) moved: Moved,
    /// The store has said what the volume should have, or that it has nothing.
    pub(super) is_known: bool,
}

impl From<Decision> for Decided {
    fn from(decision: Decision) -> Self {
        Self {
            decision,
            because: None,
            moved: Moved::new(),
            is_known: false,
        }
    }
}

/// A snapshot that was made from a volume after the state which that has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reverted {
    /// The pod volume's name.
    pub(super) volume: String,
    /// The epoch in its marker.
    pub(super) marked: u64,
    /// The snapshot.
    pub(super) snapshot: SnapshotId,
}

/// What a start knows before it acts.
pub(super) struct Survey {
    /// One a volume.
    pub(super) decided: Vec<Decided>,
    /// One a destination.
    pub(super) said: Vec<Said>,
    /// What was seen of the holder of each.
    seen: Vec<Option<Seen>>,
    /// The `restore-at` value to serve, and what it means.
    pub(super) at: Option<Serving>,
    /// `restore-at` values of which a store said that they were served.
    pub(super) served: Vec<String>,
    /// One of them, where not every store says so.
    pub(super) unrecorded: Option<Serving>,
    /// What came of answers that were not believed.
    pub(super) weighed: Weighed,
    /// Places that are taken over from other workloads.
    pub(super) taken_over: Vec<TakenOver>,
    /// What a volume that was put back to an older state lacks, by the number of its destination.
    pub(super) reverted: Vec<(usize, Reverted)>,
    /// The destination that a restore comes from: the one that can give the newest snapshot.
    pub(super) best: Option<usize>,
    /// That snapshot.
    newest: Option<SnapshotId>,
    /// What is to be said of it, a clause each: it is not what was expected.
    pub(super) remarks: Vec<String>,
}

impl Survey {
    /// Nothing but what the destinations said.
    fn of(said: Vec<Said>) -> Self {
        Self {
            decided: Vec::new(),
            seen: vec![None; said.len()],
            said,
            at: None,
            served: Vec::new(),
            unrecorded: None,
            weighed: Weighed::default(),
            taken_over: Vec::new(),
            reverted: Vec::new(),
            best: None,
            newest: None,
            remarks: Vec::new(),
        }
    }

    fn comes_from(&mut self, source: Option<Source>) {
        self.best = source.map(|source| source.number);
        self.newest = source.and_then(|source| source.newest);
    }

    /// The snapshot that is to be pinned at a destination before anything is written there.
    pub(super) fn reverted(&self, destination: usize) -> Option<&Reverted> {
        let mut all = self.reverted.iter();
        all.find_map(|(number, reverted)| (*number == destination).then_some(reverted))
    }

    /// The same of all destinations, by their names.
    pub(super) fn pins(&self, stores: &Stores) -> BTreeMap<String, SnapshotId> {
        let each = self.reverted.iter();
        each.filter_map(|(number, reverted)| Some((stores.get(*number)?.destination(), reverted.snapshot)))
            .collect()
    }

    /// Whether any volume has to wait for its store.
    fn asks_again(&self) -> bool {
        let decided = &mut self.decided.iter();
        decided.any(|decided| decided.decision == Decision::AskAgain)
    }

    /// Where to restore from, where there is a backup.
    pub(super) fn source<'a>(&'a self, stores: &'a Stores) -> Option<(&'a dyn Store, &'a Backup)> {
        let best = self.best?;
        Some((stores.get(best)?.as_ref(), self.said.get(best)?.backup()?))
    }

    /// What was seen of the holder of a destination; none: it was not looked at.
    pub(super) fn seen(&self, destination: usize) -> Option<Seen> {
        self.seen.get(destination).copied().flatten()
    }

    /// What each destination has, where it could be asked.
    pub(super) fn backups(&self) -> impl Iterator<Item = (usize, &Backup)> {
        let said = self.said.iter().enumerate();
        said.filter_map(|(number, said)| Some((number, said.backup()?)))
    }

    /// Whether all destinations could be asked, and were believed.
    pub(super) fn is_all_known(&self) -> bool {
        !self.said.iter().any(|said| matches!(said, Said::Nothing(_)))
    }

    /// Whether the first destination could not be asked, or not be believed.
    pub(super) fn is_primary_away(&self) -> bool {
        matches!(self.said.first(), Some(Said::Nothing(_)))
    }

    /// Destinations with a backup beside the one that is restored from.
    pub(super) fn others<'a>(&'a self, stores: &'a Stores) -> Vec<(&'a dyn Store, &'a Backup)> {
        let numbered = stores.iter().zip(&self.said).enumerate();
        numbered
            .filter(|(number, _)| Some(*number) != self.best)
            .filter_map(|(_, (store, said))| Some((store.as_ref(), said.backup()?)))
            .collect()
    }

    /// The claim that holds the first destination that has one; where that is damaged, the one before it.
    pub(super) fn primary_claim(&self) -> Option<&Claim> {
        self.said.iter().find_map(|said| {
            let backup = said.backup()?;
            backup.claim.as_ref().or(backup.earlier.as_ref())
        })
    }

    /// The highest epoch that anything, anywhere, has.
    pub(super) fn highest_epoch(&self) -> u64 {
        self.said
            .iter()
            .filter_map(|said| match said {
                Said::Place(Place::Backup(backup)) => Some(backup.highest_epoch()),
                said => said.holders()?.last().map(|holder| holder.epoch),
            })
            .max()
            .unwrap_or(0)
    }

    /// Time is up: where nothing else stands in the way, a person may say that nothing is to be waited for.
    fn given_up(self) -> Result<Self, Error> {
        let unknown = self.said.iter().filter(|said| matches!(said, Said::Nothing(_)));
        match self.weighed.asks.first() {
            Some((_, question)) if unknown.count() == self.weighed.asks.len() => Err(Error::Asks(question.clone())),
            _ => Ok(self),
        }
    }

    /// What each destination that could not be asked said, for people.
    pub(super) fn last_answers(&self) -> String {
        let answers: Vec<&str> = self
            .said
            .iter()
            .filter_map(|said| match said {
                Said::Nothing(why) => Some(why.as_str()),
                Said::Place(_) | Said::Outline(_) => None,
            })
            .collect();
        answers.join("; ")
    }

    /// Both volumes by name, for people.
    pub(super) fn superseded_by(&self, subject: &Subject) -> String {
        match self.primary_claim() {
            Some(claim) => format!(
                "this one is {} (epoch {}), the store's is {} of pod {} (epoch {}); set vixens.io/backup-restore-at to go \
                 on from what the store holds",
                subject.id,
                subject.epoch(),
                claim.holder().volume_id,
                claim.pod,
                claim.epoch
            ),
            None => "it names another volume".to_owned(),
        }
    }
}

/// Looks until every volume has a decision that can be acted on, or the time is up.
pub(super) async fn survey(init: &Init<'_>, subjects: &mut [Subject], expected: &Expected) -> Result<Survey, Error> {
    folders::keep_recorded(subjects, None);
    folders::set_apart(subjects, None)?;
    let wanted = point::wanted(init.arguments, subjects);
    let all_kept = init.arguments.restore != RestorePolicy::Always
        && subjects.iter().all(|subject| {
            matches!(subject.state, VolumeState::Initialised(_)) && !is_emptied(init, subject, expected)
        });
    if all_kept
        && wanted.is_none()
        && let Some(survey) = glance(init, subjects, expected).await
    {
        return Ok(survey);
    }
    let mut pause = Pause::first();
    let mut observations = vec![Observation::default(); init.stores.len()];
    let mut told = None;
    let mut asked: Vec<(usize, Question)> = Vec::new();
    loop {
        let left = init.deadline.saturating_duration_since(Instant::now());
        let needs_store = !all_kept || matches!(wanted, Some(Wanted::New(_)));
        let Answers { said, cut_off } = ask(
            subjects,
            init.stores,
            if needs_store { left } else { GLANCE },
            needs_store,
        )
        .await?;
        let seen = observe(&mut observations, &said);
        if needs_store
            && let Some(why) = owners::undecided(init, &said, &seen)
            && Instant::now() + LOOK_AGAIN < init.deadline
        {
            tell_once(&mut told, &why, LOOK_AGAIN);
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        }
        let mut survey = conclude(init, subjects, said, seen, expected, wanted.as_ref()).await?;
        // What was not answered in time is what it was.
        let were = std::mem::replace(&mut asked, survey.weighed.asks.clone());
        let stand = were.into_iter().filter(|(number, _)| cut_off.contains(number));
        asked.extend(stand);
        survey.weighed.asks.clone_from(&asked);
        if survey.asks_again() {
            if !pause.ends_before(init.deadline) {
                return survey.given_up();
            }
            pause.rest(survey.last_answers()).await;
            continue;
        }
        let Some(why) = waits_for(init, subjects, &survey) else {
            return Ok(survey);
        };
        if Instant::now() + HAND_OVER >= init.deadline {
            return match survey.at {
                Some(_) => Err(Error::StillWriting {
                    why,
                    waited: init.arguments.restore_timeout.to_string(),
                }),
                None => Ok(survey),
            };
        }
        tell_once(&mut told, &why, HAND_OVER);
        tokio::time::sleep(HAND_OVER).await;
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Whether a volume without a file is known to have had some, before any store is asked.
fn is_emptied(init: &Init<'_>, subject: &Subject, expected: &Expected) -> bool {
    let was_restored = subject.marker.as_ref().is_some_and(|marker| marker.restored.is_some());
    let restores = init.arguments.restore != RestorePolicy::Never;
    let is_missed = was_restored || expected.names_a_backup(init.stores);
    restores && subject.is_bare && is_missed && !is_bare_by_right(init, subject, expected)
}

/// Whether a volume without a file is as its backup has it, as far as that can be known without the store: there was none when
/// the last start ended, which had asked; nobody has put any there since; and nothing was saved under a later start, as where
/// the storage was put back to an older state. Of a volume that is lost, nothing of this is known.
fn is_bare_by_right(init: &Init<'_>, subject: &Subject, expected: &Expected) -> bool {
    let was = subject.marker.as_ref().and_then(|marker| marker.bare.as_ref());
    let is_untouched = was.is_some() && bare::untouched(subject.own.volume()).ok().flatten().as_ref() == was;
    is_untouched && !expected.names_a_later_one(init.stores, subject.epoch())
}

/// What the destinations said together, and what follows for each volume.
async fn conclude(
    init: &Init<'_>,
    subjects: &mut [Subject],
    mut said: Vec<Said>,
    seen: Vec<Option<Seen>>,
    expected: &Expected,
    wanted: Option<&Wanted>,
) -> Result<Survey, Error> {
    let weighed = expected.weigh(init, &mut said, subjects).await?;
    let taken_over = owners::places(init, &mut said, &seen).await?;
    for (store, said) in init.stores.iter().zip(&said) {
        warn_of_oddities(store.as_ref(), said);
    }
    owners::volumes(init, subjects, &said, &taken_over).await?;
    let source = source::newest(init, &mut said, subjects).await?;
    let mut survey = Survey {
        seen,
        weighed,
        taken_over,
        ..Survey::of(said)
    };
    survey.comes_from(source);
    folders::keep_recorded(subjects, survey.primary_claim());
    folders::set_apart(subjects, survey.primary_claim())?;
    folders::ask(init, &survey, subjects).await?;
    survey.reverted = reverted(init, &survey.said, subjects, expected);
    survey.remarks = expected.remarks(init, &survey);
    match wanted {
        None => {}
        Some(Wanted::Unconfirmed(value)) => {
            let confirmed = point::confirmed(init, &survey, value).await;
            survey.served.extend(confirmed);
        }
        Some(Wanted::New(value)) => match point::look_up(init, &survey, subjects, value).await {
            Ok(LookedUp::Serve((number, snapshot))) => {
                survey.comes_from(Some(Source {
                    number,
                    newest: Some(snapshot),
                }));
                let value = value.clone();
                survey.at = Some(Serving { value, snapshot });
            }
            Ok(LookedUp::Served(snapshot)) => {
                // A destination that lacks its record may be the only one that is left some day.
                if let Some(snapshot) = snapshot
                    && point::confirmed(init, &survey, value).await.is_none()
                {
                    let value = value.clone();
                    survey.unrecorded = Some(Serving { value, snapshot });
                }
                survey.served.push(value.clone());
            }
            Ok(LookedUp::Unknown { holds }) => {
                let value = value.clone();
                return Err(Error::NoSuchPoint { value, holds });
            }
            Err(why) => {
                survey.said.push(Said::Nothing(why));
                survey.decided = vec![Decision::AskAgain.into(); subjects.len()];
                return Ok(survey);
            }
        },
    }
    let mut decided = Vec::with_capacity(subjects.len());
    for subject in subjects.iter() {
        decided.push(match (&survey.at, &subject.state) {
            (Some(_), VolumeState::Empty | VolumeState::Interrupted(_)) => Decision::Restore.into(),
            (Some(_), _) => Decision::SetAsideAndRestore.into(),
            (None, _) => found::decided(init, &survey, subject, is_emptied(init, subject, expected)).await,
        });
    }
    Ok(Survey { decided, ..survey })
}

/// Volumes that were put back to an older state, and what the destinations have of them since.
fn reverted(init: &Init<'_>, said: &[Said], subjects: &[Subject], expected: &Expected) -> Vec<(usize, Reverted)> {
    let backups = said
        .iter()
        .enumerate()
        .filter_map(|(number, said)| Some((number, said.backup()?)));
    backups
        .flat_map(|(number, backup)| {
            subjects.iter().filter_map(move |subject| {
                let marker = subject.marker.as_ref()?;
                let state = expected.marked(&init.stores.get(number)?.destination(), marker);
                let reverted = Reverted {
                    volume: subject.name.clone(),
                    marked: state.epoch,
                    snapshot: newer(backup, &state)?,
                };
                Some((number, reverted))
            })
        })
        .collect()
}

fn warn_of_oddities(store: &dyn Store, said: &Said) {
    let Said::Place(Place::Nothing {
        bucket_missing,
        strangers,
    }) = said
    else {
        return;
    };
    if *bucket_missing {
        tracing::warn!(
            "the bucket of {} does not exist; it counts as no backup, and will be made",
            store.destination()
        );
    }
    if !strangers.is_empty() {
        tracing::warn!(
            "{} has nothing of this workload's volumes, but it has {}: is it the right place?",
            store.destination(),
            strangers.join(", ")
        );
    }
}
