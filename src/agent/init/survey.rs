//! Volumes × every destination's place → one decision a volume. Asks the store again, with growing pauses, while a
//! decision wants that. Reads the store only.

use super::decision::{Answer, Decision, Found, decide};
use super::{Error, Source, Subject};
use crate::agent::arguments::{InitArguments, RestorePolicy};
use crate::agent::place::{self, Backup, Place, Whose};
use crate::agent::restore::plan::{Indexes, of_listing};
use crate::agent::volume::look::VolumeState;
use crate::agent::volume::marker::INCOMING;
use crate::store::claims::{self, Claim, Holder, Owner};
use crate::store::rclone::Rclone;
use crate::store::{Error as StoreError, Store};
use jiff::Timestamp;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// An initialised volume waits so long for a store, and no longer: its app is not the store's hostage.
const GLANCE: Duration = Duration::from_secs(5);

/// What a destination said.
pub(crate) enum Said {
    /// Its place was looked at.
    Place(Place),
    /// Only its claims were: the holder last. Enough for volumes that are kept.
    Claims(Vec<Holder>),
    /// It could not be asked, or not be believed.
    Nothing(String),
}

impl Said {
    /// The claims of the place, the holder last; `None` where nobody knows.
    pub(crate) fn holders(&self) -> Option<&[Holder]> {
        match self {
            Self::Claims(holders) => Some(holders),
            Self::Place(Place::Backup(backup)) => Some(&backup.claims),
            Self::Place(Place::Nothing { .. }) => Some(&[]),
            Self::Nothing(_) => None,
        }
    }
}

/// What a start knows before it acts.
pub(crate) struct Survey {
    /// One a volume.
    pub(crate) decisions: Vec<Decision>,
    /// One a destination.
    pub(crate) said: Vec<Said>,
    /// The destination with the newest backup.
    best: Option<usize>,
}

impl Survey {
    /// Where to restore from. Only asked where a decision wants it, and then there is one.
    pub(crate) fn source<'a>(&'a self, stores: &'a [Rclone]) -> Source<'a> {
        static NOTHING: std::sync::LazyLock<Backup> = std::sync::LazyLock::new(Backup::default);
        let best = self.best.unwrap_or(0);
        let backup = match self.said.get(best) {
            Some(Said::Place(Place::Backup(backup))) => backup,
            _ => &*NOTHING,
        };
        (&stores[best], backup)
    }

    /// The claim that holds the first destination that has one.
    pub(crate) fn primary_claim(&self) -> Option<&Claim> {
        self.said.iter().find_map(|said| match said {
            Said::Place(Place::Backup(backup)) => backup.claim.as_ref(),
            _ => None,
        })
    }

    /// The highest epoch that any claim, anywhere, has.
    pub(crate) fn highest_epoch(&self) -> u64 {
        self.said
            .iter()
            .filter_map(Said::holders)
            .filter_map(|holders| holders.last())
            .map(|holder| holder.epoch)
            .max()
            .unwrap_or(0)
    }

    /// What each destination that could not be asked said, for people.
    pub(crate) fn last_answers(&self) -> String {
        let answers: Vec<&str> = self
            .said
            .iter()
            .filter_map(|said| match said {
                Said::Nothing(why) => Some(why.as_str()),
                Said::Place(_) | Said::Claims(_) => None,
            })
            .collect();
        answers.join("; ")
    }

    /// Both volumes by name, for people.
    pub(crate) fn superseded_by(&self, subject: &Subject) -> String {
        let ours = subject.marker().map_or(0, |marker| marker.epoch);
        match self.primary_claim() {
            Some(claim) => format!(
                "this one is {} (epoch {ours}), the store's is {} of pod {} (epoch {}); set vixens.io/backup-restore-at to go \
                 on from what the store holds",
                subject.id,
                claim.holder().volume_id,
                claim.pod,
                claim.epoch
            ),
            None => "it names another volume".to_owned(),
        }
    }
}

/// Looks until every volume has a decision that can be acted on, or the time is up.
pub(crate) async fn survey(
    arguments: &InitArguments,
    owner: &Owner,
    subjects: &[Subject],
    stores: &[Rclone],
    began: Instant,
) -> Result<Survey, Error> {
    let deadline = began + arguments.restore_timeout.duration();
    let all_kept = subjects.iter().all(|subject| {
        matches!(subject.state, VolumeState::Initialised(_)) && arguments.restore != RestorePolicy::Always
    });
    if all_kept && let Some(survey) = glance(subjects, stores).await {
        return Ok(survey);
    }
    let mut pause = Duration::from_secs(1);
    loop {
        let patience = if all_kept {
            GLANCE
        } else {
            deadline.saturating_duration_since(Instant::now())
        };
        let said = ask(subjects, stores, patience).await;
        let survey = conclude(arguments, owner, subjects, stores, said).await?;
        let waits = survey.decisions.contains(&Decision::AskAgain);
        if !waits || Instant::now() + pause >= deadline {
            return Ok(survey);
        }
        tracing::warn!("{}; asking again in {} s", survey.last_answers(), pause.as_secs());
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// For volumes that will be kept: whether each place is still held from one of them. One request a destination.
async fn glance(subjects: &[Subject], stores: &[Rclone]) -> Option<Survey> {
    let listings = futures::future::join_all(stores.iter().map(|store| claims::list(store)));
    let Ok(listings) = tokio::time::timeout(GLANCE, listings).await else {
        let why = format!("no answer within {} s", GLANCE.as_secs());
        return Some(Survey {
            decisions: vec![Decision::Keep; subjects.len()],
            said: stores
                .iter()
                .map(|store| Said::Nothing(format!("{}: {why}", store.destination())))
                .collect(),
            best: None,
        });
    };
    let said: Vec<Said> = listings
        .into_iter()
        .map(|listing| match listing {
            Ok(holders) => Said::Claims(holders),
            Err(error) => Said::Nothing(error.to_string()),
        })
        .collect();
    let first = &subjects.first()?.id;
    let all_ours = said.iter().all(|said| match said {
        Said::Claims(holders) => holders.last().is_some_and(|holder| holder.volume_id == *first),
        Said::Nothing(_) => true,
        Said::Place(_) => false,
    });
    all_ours.then(|| Survey {
        decisions: vec![Decision::Keep; subjects.len()],
        said,
        best: None,
    })
}

async fn ask(subjects: &[Subject], stores: &[Rclone], patience: Duration) -> Vec<Said> {
    let folders: Vec<String> = subjects.iter().map(|subject| subject.folder.clone()).collect();
    let looks = stores.iter().map(|store| async {
        match tokio::time::timeout(patience, place::look(store, &folders)).await {
            Ok(Ok(place)) => Said::Place(place),
            Ok(Err(error)) => Said::Nothing(with_causes(&error)),
            Err(_) => Said::Nothing(format!("{} did not answer in time", store.destination())),
        }
    });
    futures::future::join_all(looks).await
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

/// What the destinations said together, and what follows for each volume.
async fn conclude(
    arguments: &InitArguments,
    owner: &Owner,
    subjects: &[Subject],
    stores: &[Rclone],
    mut said: Vec<Said>,
) -> Result<Survey, Error> {
    let now = Timestamp::now();
    for (store, said) in stores.iter().zip(&mut said) {
        let Said::Place(Place::Backup(backup)) = said else {
            continue;
        };
        match backup.whose(owner, now) {
            Whose::Ours | Whose::OtherCluster { live: false, .. } => {}
            Whose::Others(theirs) => {
                return Err(Error::AnothersPlace {
                    destination: store.destination(),
                    theirs: theirs.to_string(),
                    us: owner.to_string(),
                });
            }
            Whose::OtherCluster { owner, live: true } => {
                *said = Said::Nothing(format!(
                    "{} is in use by {owner}, whose heartbeat is fresh: it is adopted once that has been silent for three \
                     minutes",
                    store.destination()
                ));
            }
        }
    }
    for (store, said) in stores.iter().zip(&said) {
        if let Said::Place(Place::Nothing {
            bucket_missing,
            strangers,
        }) = said
        {
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
    }
    let best = said
        .iter()
        .enumerate()
        .filter_map(|(number, said)| match said {
            Said::Place(Place::Backup(backup)) => Some((backup.newest(), std::cmp::Reverse(number))),
            _ => None,
        })
        .max()
        .map(|(_, std::cmp::Reverse(number))| number);
    let survey = Survey {
        decisions: Vec::new(),
        said,
        best,
    };
    let (store, backup) = survey.source(stores);
    let any_unknown = survey.said.iter().any(|said| matches!(said, Said::Nothing(_)));
    let mut decisions = Vec::with_capacity(subjects.len());
    for subject in subjects {
        let answer = if best.is_some() {
            Answer::Backup {
                newer: is_newer(backup, subject),
            }
        } else if any_unknown {
            Answer::Unreachable
        } else {
            Answer::NoBackup
        };
        let (found, answer) = match found(store, backup, subject, answer).await {
            Ok(found) => (found, answer),
            // An index that can't be read is no answer.
            Err(error) => {
                tracing::warn!("{}", with_causes(&error));
                (Found::Foreign, Answer::Unreachable)
            }
        };
        decisions.push(decide(found, answer, arguments.restore, arguments.store_down));
    }
    Ok(Survey { decisions, ..survey })
}

/// Whether the newest snapshot was made from another volume than this, since this was last claimed.
fn is_newer(backup: &Backup, subject: &Subject) -> bool {
    let epoch = subject.marker().map_or(0, |marker| marker.epoch);
    backup.newest().is_some_and(|id| id.epoch > epoch) || epoch == 0
}

async fn found(store: &dyn Store, backup: &Backup, subject: &Subject, answer: Answer) -> Result<Found, StoreError> {
    Ok(match &subject.state {
        VolumeState::Empty => Found::Empty,
        VolumeState::Provisional(_) => Found::Provisional,
        VolumeState::Interrupted(_) => Found::Interrupted,
        VolumeState::Initialised(marker) => {
            let names_another = backup.claim.as_ref().is_some_and(|claim| {
                claim
                    .volumes
                    .iter()
                    .any(|volume| volume.folder == marker.folder && volume.id != marker.id)
            });
            let at_least_as_new = backup.holder().is_some_and(|holder| holder.epoch >= marker.epoch);
            if names_another && at_least_as_new {
                Found::Superseded
            } else {
                Found::Initialised
            }
        }
        VolumeState::Foreign | VolumeState::Others(_) => {
            if !matches!(answer, Answer::Backup { .. }) || shares_a_file(store, backup, subject).await? {
                Found::Foreign
            } else {
                Found::ForeignApart
            }
        }
    })
}

/// Whether any file of the newest snapshot is on the volume.
async fn shares_a_file(store: &dyn Store, backup: &Backup, subject: &Subject) -> Result<bool, StoreError> {
    let root = subject.own.volume();
    let there = |path: &Path| std::fs::symlink_metadata(root.join(path)).is_ok_and(|found| !found.is_dir());
    let local = |source| StoreError::Local {
        what: format!("{} can't be written", subject.own.join(INCOMING).display()),
        source,
    };
    let Some(newest) = backup.newest() else {
        let plan = of_listing(store, &subject.folder).await?;
        return Ok(plan.items.iter().any(|item| there(&item.path)));
    };
    subject
        .own
        .create()
        .map_err(|error| local(std::io::Error::other(error)))?;
    let incoming = subject.own.join(INCOMING);
    let (_, entries) = Indexes::new(store, &incoming).read(&newest).await?;
    Ok(entries.iter().any(|entry| {
        let (folder, path) = entry.place();
        folder == subject.folder.as_bytes()
            && !entry.path.ends_with(b"/")
            && there(Path::new(std::ffi::OsStr::from_bytes(path)))
    }))
}
