//! Which folder of a place is a volume's: the one that its marker names, or the place's claim, whatever its mount path says
//! today. A volume that is new beside a folder that nobody uses is asked about: no volume starts empty beside its own backup.

use super::newest::Newest;
use super::owners::accepts;
use super::{Survey, with_causes};
use crate::agent::arguments::{QuestionKind, RestorePolicy};
use crate::agent::init::subject::Subject;
use crate::agent::init::{Error, Init};
use crate::agent::volume::look::VolumeState;
use crate::contract::question::Question;
use crate::store::claims::Claim;
use crate::store::keys;
use std::collections::BTreeMap;

/// A changed mount path does not change where a volume's files lie.
pub(super) fn keep_recorded(subjects: &mut [Subject], claim: Option<&Claim>) {
    for subject in subjects {
        let marked = subject.marker.as_ref().map(|marker| marker.folder.clone());
        let recorded = marked.or_else(|| {
            let volumes = &claim?.volumes;
            let same = volumes.iter().find(|volume| volume.name == subject.name)?;
            Some(same.folder.clone())
        });
        if let Some(recorded) = recorded
            && recorded != subject.folder
            && !is_given(subject)
        {
            tracing::info!(
                "volume {} stays in {recorded}/, where it has been, though its mount path would say {}/",
                subject.name,
                subject.folder
            );
            subject.folder = recorded;
        }
    }
}

/// Two volumes never share a folder: one that nothing but its mount path says to be in another's gets one by its name. Of two that
/// are both said to be in it, as a volume and its copy, neither can be told to be the one.
pub(super) fn set_apart(subjects: &mut [Subject], claim: Option<&Claim>) -> Result<(), Error> {
    for number in 0..subjects.len() {
        let (before, rest) = subjects.split_at_mut(number);
        let Some((subject, after)) = rest.split_first_mut() else {
            continue;
        };
        let others = || before.iter().chain(after.iter());
        let Some(other) = others().find(|other| other.folder == subject.folder) else {
            continue;
        };
        match (is_recorded(subject, claim), is_recorded(other, claim)) {
            // The other one's turn comes.
            (true, false) => {}
            (false, true)
                if !keys::is_reserved(&subject.name) && others().all(|other| other.folder != subject.name) =>
            {
                tracing::info!(
                    "volume {} is in {}/: {}/ is the folder of volume {}",
                    subject.name,
                    subject.name,
                    subject.folder,
                    other.name
                );
                subject.folder.clone_from(&subject.name);
            }
            _ => {
                return Err(Error::OneFolder {
                    folder: subject.folder.clone(),
                    volumes: [other.name.clone(), subject.name.clone()],
                    path: subject.own.volume().to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// Whether more than its mount path says which folder a volume has.
fn is_recorded(subject: &Subject, claim: Option<&Claim>) -> bool {
    let mut volumes = claim.into_iter().flat_map(|claim| &claim.volumes);
    subject
        .marker
        .as_ref()
        .is_some_and(|marker| marker.folder == subject.folder)
        || volumes.any(|volume| volume.name == subject.name && volume.folder == subject.folder)
}

/// Whether it was said which folder a volume has.
fn is_given(subject: &Subject) -> bool {
    let kinds = [Some(QuestionKind::Folder), Some(QuestionKind::StartNew)];
    subject
        .accepted
        .iter()
        .any(|question| kinds.contains(&question.id.kind()))
}

/// Whether nothing says which folder a volume had: it has no marker, and the place has never heard of it.
fn is_unknown(subject: &Subject, claim: Option<&Claim>) -> bool {
    let is_named = claim.is_some_and(|claim| {
        let mut volumes = claim.volumes.iter();
        volumes.any(|volume| volume.name == subject.name || volume.folder == subject.folder)
    });
    let is_new = matches!(
        subject.state,
        VolumeState::Empty | VolumeState::Foreign | VolumeState::Interrupted(_)
    );
    is_new && subject.marker.is_none() && !is_named && !is_given(subject)
}

/// Asks which folder each volume has that nobody knows, where the newest snapshot has folders that nobody uses.
pub(super) async fn ask(init: &Init<'_>, survey: &Survey, subjects: &mut [Subject]) -> Result<(), Error> {
    let Some((store, backup)) = survey.source(init.stores) else {
        return Ok(());
    };
    let claim = survey.primary_claim();
    let asks = init.arguments.restore != RestorePolicy::Never && backup.newest().is_some();
    let Some(first) = subjects
        .iter()
        .find(|subject| is_unknown(subject, claim))
        .filter(|_| asks)
    else {
        return Ok(());
    };
    let mut left = match Newest::read(store, backup, &first.own).await {
        Ok(snapshot) => snapshot.folders(),
        Err(error) => {
            // What can't be read is met again where it is restored.
            tracing::warn!("{}", with_causes(&error));
            BTreeMap::new()
        }
    };
    let known: Vec<bool> = subjects
        .iter()
        .map(|subject| left.remove(&subject.folder).is_some())
        .collect();
    for (subject, is_there) in subjects.iter_mut().zip(known) {
        if is_there || left.is_empty() || !is_unknown(subject, claim) {
            continue;
        }
        let asked = Asked::about(
            subject,
            &store.destination(),
            backup.holder().map_or(0, |holder| holder.epoch),
            &left,
        );
        let mut answer = None;
        for (folder, question) in asked
            .folders
            .iter()
            .map(|(folder, question)| (Some(folder), question))
            .chain([(None, &asked.new)])
        {
            if answer.is_none() && accepts(init, store, question).await {
                answer = Some((folder.cloned(), question.clone()));
            }
        }
        let Some((folder, question)) = answer else {
            return Err(Error::Asks(asked.question()));
        };
        tracing::info!("volume {}: {} was accepted", subject.name, question.id);
        if let Some(folder) = folder {
            left.remove(&folder);
            subject.folder = folder;
        }
        subject.accepted.push(question);
    }
    Ok(())
}

/// What is asked about one volume.
struct Asked {
    volume: String,
    place: String,
    files: BTreeMap<String, u64>,
    folders: Vec<(String, Question)>,
    new: Question,
}

impl Asked {
    fn about(subject: &Subject, place: &str, epoch: u64, left: &BTreeMap<String, u64>) -> Self {
        let epoch = epoch.to_string();
        let question = |kind, folder: &str, text: String| {
            let facts = [place, folder, &subject.name, &epoch];
            Question::new(kind, &facts.map(str::as_bytes), text)
        };
        let folders = left.keys().map(|folder| {
            let text = format!(
                "the volume {} is the one of the folder {folder}/ of {place}",
                subject.name
            );
            (folder.clone(), question(QuestionKind::Folder, folder, text))
        });
        Self {
            folders: folders.collect(),
            new: question(
                QuestionKind::StartNew,
                &subject.folder,
                format!(
                    "the volume {} is a new one, and none of the folders of {place}",
                    subject.name
                ),
            ),
            volume: subject.name.clone(),
            place: place.to_owned(),
            files: left.clone(),
        }
    }

    /// All of it in one question, which is the one about the first folder.
    fn question(&self) -> Question {
        let Self {
            volume,
            place,
            files,
            folders,
            new,
        } = self;
        let mut each = folders.iter().map(|(folder, question)| {
            let count = files.get(folder).copied().unwrap_or(0);
            (folder, count, &question.id)
        });
        let (first, count, id) = match each.next() {
            Some((first, count, id)) => (first.as_str(), count, id.clone()),
            None => ("", 0, new.id.clone()),
        };
        let others: Vec<String> = each
            .map(|(folder, count, id)| format!("; for {folder}/ ({count} files) accept {id}"))
            .collect();
        let others = others.concat();
        Question {
            text: format!(
                "{place} has nothing of the volume {volume}, and a folder {first}/ ({count} files) that no volume of this \
                 workload uses: accepting this takes {first}/ for the volume's own, and restores it{others}. To start the volume \
                 as a new one instead, accept {}",
                new.id
            ),
            id,
        }
    }
}
