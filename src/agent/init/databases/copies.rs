//! Copies of databases that are files: which of them the snapshots of each destination have, which of those is the newest,
//! and how one of them is brought by itself.

use super::super::act::Outcome;
use super::super::subject::Subject;
use super::super::survey::Survey;
use super::super::{Error, Init};
use super::{GLANCE, followed, positions};
use crate::agent::lease::inspect::{self, Backup, Whose};
use crate::agent::litestream::lineage::Saved;
use crate::agent::litestream::registry::Registered;
use crate::agent::litestream::restore;
use crate::agent::litestream::target::Target;
use crate::agent::restore::indexes_in;
use crate::agent::restore::plan::{Plan, Planned, of_snapshot};
use crate::agent::restore::stage::{self, Fetch, Lacking, Watch};
use crate::agent::restore::verify::sha256_of;
use crate::agent::volume::marker::{INCOMING, Mode};
use crate::store::history::History;
use crate::store::index::{Entry, Header, What};
use crate::store::indexes::Indexes;
use crate::store::snapshot::SnapshotId;
use crate::store::{Error as StoreError, Store};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Where a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On the volume: this start has restored it.
    Here,
    /// In the newest snapshot of this destination.
    Elsewhere(usize),
}

/// A snapshot, and what it says of databases.
pub(super) struct Snapshot<'a> {
    /// Of which destination.
    pub(super) number: usize,
    pub(super) store: &'a dyn Store,
    pub(super) id: SnapshotId,
    pub(super) header: Header,
    backup: Cow<'a, Backup>,
    /// What it holds, where that was read.
    entries: Option<Vec<Entry>>,
}

impl Snapshot<'_> {
    /// Whether it was made no earlier than another, as far as claims tell.
    pub(super) fn is_as_late_as(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| self.id.epoch >= other.id.epoch)
    }

    /// How new its file of a database is, if it has one. `lies`: whether it does, where that is known.
    fn saved(&self, folder: &str, path: &str, lies: Option<bool>) -> Option<Saved> {
        let position = positions(Some(self), folder).find(|position| position.path == path);
        match (position, lies) {
            (_, Some(false)) | (None, None) => None,
            (Some(position), _) => Saved::of(position, &self.id),
            // Nothing is said of it: nobody followed it.
            (None, Some(true)) => Some(Saved::alone(self.id.epoch)),
        }
    }

    /// A folder of ours for what is brought from there: two destinations may have snapshots of the same name.
    fn incoming(&self, subject: &Subject) -> PathBuf {
        subject.own.join(INCOMING).join(format!("destination-{}", self.number))
    }

    async fn entries(&self, subject: &Subject) -> Result<Vec<Entry>, StoreError> {
        if let Some(entries) = &self.entries {
            return Ok(entries.clone());
        }
        let folder = indexes_in(&subject.own.join(INCOMING), self.store);
        let indexes = Indexes::new(self.store, &folder).known(&self.backup.indexes);
        let (_, entries) = indexes.read(&self.id).await?;
        Ok(entries)
    }

    /// Whether what lies on the volume is its file of a database, to the byte.
    pub(super) async fn is_its(&self, subject: &Subject, database: &Registered, file: &Path) -> bool {
        let path = database.path_of_index();
        let entries = self.entries(subject).await.unwrap_or_default();
        let of_index = entries.into_iter().find(|entry| entry.path == path);
        let Some(What::File(of_index)) = of_index.map(|entry| entry.what) else {
            return false;
        };
        let file = file.to_owned();
        let compared = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::open(file)?;
            Ok::<_, std::io::Error>(file.metadata()?.len() == of_index.size && sha256_of(&mut file)? == of_index.sha256)
        });
        matches!(compared.await, Ok(Ok(true)))
    }

    /// Brings its file of a database to its place.
    pub(super) async fn bring(
        &self,
        subject: &Subject,
        database: &Registered,
        file: &Path,
    ) -> Result<String, restore::Error> {
        let path = database.path_of_index();
        let mut entries = self.entries(subject).await?;
        entries.retain(|entry| entry.path == path);
        let Some(What::File(of_index)) = entries.first().map(|entry| &entry.what) else {
            return Err(restore::Error::NoReplica(self.store.destination()));
        };
        let registered = Registered {
            uid: of_index.attributes.uid,
            gid: of_index.attributes.gid,
            mode: of_index.attributes.mode,
            ..database.clone()
        };
        let incoming = self.incoming(subject);
        let (mut history, mut last): (Option<History>, Option<Plan>) = (None, None);
        let staged = loop {
            let plan = of_snapshot(self.id, entries.clone(), &subject.folder, history.as_ref());
            match self.stage(&plan, subject, &incoming).await {
                Ok(staged) => break staged,
                // Looked for once more, it is where it was not found.
                Err(error) if last.as_ref() == Some(&plan) => return Err(error),
                Err(error) => tracing::info!("looking into history: {error}"),
            }
            history = Some(History::list(self.store).await?);
            last = Some(plan);
        };
        let aside = restore::place(&staged, file, &registered)?;
        let kept = aside.map_or_else(String::new, |aside| {
            format!("; what was there is kept as {}", aside.display())
        });
        Ok(format!(
            "{}: as {} has it as a file in {}{kept}",
            file.display(),
            self.store.destination(),
            self.id
        ))
    }

    /// Fetches and verifies the one file of a plan: where it lies then.
    async fn stage(&self, plan: &Plan, subject: &Subject, incoming: &Path) -> Result<PathBuf, restore::Error> {
        // Nothing lies below it: what is on the volume is no reason not to fetch.
        let nowhere = incoming.join("nowhere");
        let staged = plan.items.iter().find_map(|item| match &item.what {
            Planned::File(content, _) => Some(incoming.join(&content.key)),
            Planned::Folder(_) | Planned::Link(..) | Planned::Missing => None,
        });
        subject.own.create().map_err(|error| restore::Error::Local {
            what: "our folder on the volume can't be made".to_owned(),
            source: std::io::Error::other(error),
        })?;
        let fetch = Fetch {
            store: self.store,
            volume: &nowhere,
            incoming,
            mode: Mode::Whole,
            watch: Watch::nobody(),
            has_snapshots: true,
        };
        let unrestorable = |why: String| restore::Error::Unrestorable {
            destination: self.store.destination(),
            why,
        };
        match fetch.stage(plan).await {
            Ok(lacking) => match lacking.into_iter().next() {
                Some(Lacking { key, why, .. }) => Err(unrestorable(format!("{key}: {why}"))),
                None => staged.ok_or_else(|| restore::Error::NoReplica(self.store.destination())),
            },
            Err(stage::Error::Store(error)) => Err(error.into()),
            Err(error) => Err(unrestorable(error.to_string())),
        }
    }
}

/// The newest of the files that snapshots have of a database. `lies`: the first of them was restored, and had it.
pub(super) fn newest_file(snapshots: &[Snapshot<'_>], folder: &str, path: &str, lies: bool) -> Option<(Place, Saved)> {
    let mut newest: Option<(Place, Saved)> = None;
    for (at, snapshot) in snapshots.iter().enumerate() {
        let (place, lies) = match at {
            0 => (Place::Here, Some(lies)),
            _ => (Place::Elsewhere(snapshot.number), None),
        };
        if let Some(saved) = snapshot.saved(folder, path, lies)
            && newest.is_none_or(|(_, newest)| saved > newest)
        {
            newest = Some((place, saved));
        }
    }
    newest
}

/// The snapshot that a volume was restored from, and then, unless an older point was asked for, the newest of each other
/// destination.
pub(super) async fn of_restore<'a>(
    init: &Init<'a>,
    target: Option<&Target>,
    subject: &Subject,
    outcome: &Outcome,
    survey: &'a Survey,
) -> Result<Vec<Snapshot<'a>>, Error> {
    let snapshot = outcome.brought.as_ref().and_then(|brought| brought.snapshot);
    let (Some(id), Some((store, backup))) = (snapshot, survey.source(init.stores)) else {
        return Ok(Vec::new());
    };
    let folder = indexes_in(&subject.own.join(INCOMING), store);
    let (header, _) = Indexes::new(store, &folder)
        .known(&backup.indexes)
        .totals(&id)
        .await
        .map_err(crate::agent::restore::Error::from)?;
    let concerns_databases = target.is_some() || !header.databases.is_empty();
    let number = survey.best.unwrap_or(0);
    let header = if survey.at.is_none() {
        followed::as_of_now(number, store, backup, header).await
    } else {
        header
    };
    let mut snapshots = vec![Snapshot {
        number,
        store,
        id,
        header,
        backup: Cow::Borrowed(backup),
        entries: None,
    }];
    if survey.at.is_none() && concerns_databases {
        let others = survey.backups().filter(|(number, _)| Some(*number) != survey.best);
        for (number, backup) in others {
            if let Some(store) = init.stores.get(number)
                && let Some(snapshot) = newest_of(number, store.as_ref(), Cow::Borrowed(backup), subject).await
            {
                snapshots.push(snapshot);
            }
        }
    }
    Ok(snapshots)
}

/// The newest snapshot of each destination, for a volume that was kept.
pub(super) async fn of_places<'a>(init: &Init<'a>, subject: &Subject) -> Vec<Snapshot<'a>> {
    let folders = [subject.folder.clone()];
    let looks = init.stores.iter().enumerate().map(|(number, store)| {
        let folders = &folders;
        async move {
            let look = inspect::look_to_restore(store.as_ref(), folders);
            let backup = match tokio::time::timeout(GLANCE * 4, look).await {
                Ok(Ok(inspect::Place::Backup(backup))) => *backup,
                Ok(Ok(inspect::Place::Nothing { .. })) => return None,
                Ok(Err(error)) => {
                    tracing::warn!("{error}");
                    return None;
                }
                Err(_) => {
                    tracing::warn!("{} did not answer in time", store.destination());
                    return None;
                }
            };
            match backup.whose(init.owner) {
                Whose::Ours => newest_of(number, store.as_ref(), Cow::Owned(backup), subject).await,
                Whose::Others(_) | Whose::OtherCluster(_) => None,
            }
        }
    });
    futures::future::join_all(looks).await.into_iter().flatten().collect()
}

/// A destination's newest snapshot that can be read; where none can, it has nothing to offer.
async fn newest_of<'a>(
    number: usize,
    store: &'a dyn Store,
    backup: Cow<'a, Backup>,
    subject: &Subject,
) -> Option<Snapshot<'a>> {
    let folder = indexes_in(&subject.own.join(INCOMING), store);
    let indexes = Indexes::new(store, &folder).known(&backup.indexes);
    let mut read = None;
    for id in backup.with_named().into_iter().rev() {
        match indexes.whole(&id).await {
            Ok(header) => {
                read = Some((id, header));
                break;
            }
            Err(error @ (StoreError::Damaged { .. } | StoreError::NotFound { .. })) => {
                tracing::warn!("{error}; the snapshot before it is looked at");
            }
            Err(error) => {
                tracing::warn!("{error}");
                return None;
            }
        }
    }
    let (id, header) = read?;
    let header = followed::as_of_now(number, store, &backup, header).await;
    Some(Snapshot {
        number,
        store,
        id,
        header,
        backup,
        entries: None,
    })
}

/// The newest file of a database among these snapshots, none of which was restored.
pub(super) async fn held(snapshots: &mut [Snapshot<'_>], subject: &Subject, path: &str) -> Option<(Place, Saved)> {
    let whole = format!("{}/{path}", subject.folder).into_bytes();
    let mut newest: Option<(Place, Saved)> = None;
    for snapshot in snapshots {
        let entries = match snapshot.entries(subject).await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!("{error}");
                continue;
            }
        };
        let lies = entries.iter().any(|entry| entry.path == whole);
        snapshot.entries = Some(entries);
        if let Some(saved) = snapshot.saved(&subject.folder, path, Some(lies))
            && newest.is_none_or(|(_, newest)| saved > newest)
        {
            newest = Some((Place::Elsewhere(snapshot.number), saved));
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::litestream::ltx::Txid;
    use crate::store::index::{Carried, DatabasePosition};
    use crate::store::memory::Memory;
    use std::collections::BTreeMap;

    /// A snapshot of this destination, and what it says: nothing, or the run, and the transaction of its file if it has one.
    fn snapshot<'a>(store: &'a Memory, number: usize, epoch: u64, said: Option<(&str, Option<u64>)>) -> Snapshot<'a> {
        let id: SnapshotId = format!("20261122T130500Z-{epoch}.42-auto").parse().unwrap();
        let databases = said.map(|(run, file)| DatabasePosition {
            folder: "config".to_owned(),
            path: "a.db".to_owned(),
            txid: Txid(1000).to_string(),
            time: id.time,
            run: Some(run.parse().unwrap()),
            file: file.map(|txid| Txid(txid).to_string()),
            file_run: None,
        });
        Snapshot {
            number,
            store,
            id,
            header: Header {
                id,
                base: None,
                time: id.time,
                volumes: Vec::new(),
                databases: databases.into_iter().collect(),
                skipped: BTreeMap::new(),
                carried: Carried::default(),
            },
            backup: Cow::Owned(Backup::default()),
            entries: None,
        }
    }

    #[expect(clippy::large_stack_arrays, reason = "a table, read once")]
    #[test]
    fn the_newest_file_of_a_database_is_taken_from_whichever_destination_has_it() {
        const ALL: Option<u64> = Some(u64::MAX);
        let store = Memory::default();
        let of = |number, epoch, said| snapshot(&store, number, epoch, said);
        let second = |said| of(1, 4, Some(said));
        let (here, elsewhere) = (Some(Place::Here), Some(Place::Elsewhere(1)));
        // The restored one, whether it has the file, the other destination's; where the newest file is.
        for (what, restored, lies, other, expected) in [
            (
                "both the same",
                of(0, 4, Some(("4.0", ALL))),
                true,
                second(("4.0", ALL)),
                here,
            ),
            (
                "saved later here",
                of(0, 4, Some(("4.1", Some(9)))),
                true,
                second(("4.1", Some(8))),
                here,
            ),
            (
                "saved later there",
                of(0, 4, Some(("4.1", Some(8)))),
                true,
                second(("4.1", Some(9))),
                elsewhere,
            ),
            (
                "left to a replica here",
                of(0, 4, Some(("4.1", None))),
                false,
                second(("4.1", Some(9))),
                elsewhere,
            ),
            (
                "nothing said here, and it has none",
                of(0, 4, None),
                false,
                second(("4.1", Some(9))),
                elsewhere,
            ),
            (
                "nothing said here: nobody followed it",
                of(0, 5, None),
                true,
                second(("4.1", Some(9))),
                here,
            ),
            (
                "the other one was followed later",
                of(0, 4, None),
                true,
                second(("4.1", Some(9))),
                elsewhere,
            ),
            (
                "its file is damaged",
                of(0, 4, Some(("4.1", Some(9)))),
                false,
                second(("4.1", None)),
                None,
            ),
            ("neither has one", of(0, 4, None), false, second(("4.1", None)), None),
        ] {
            let found = newest_file(&[restored, other], "config", "a.db", lies);
            assert_eq!(found.map(|(place, _)| place), expected, "{what}");
        }
    }
}
