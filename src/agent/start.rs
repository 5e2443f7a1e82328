//! `start.json`, in the folder that the injected containers share: what `init` found and did. Written last by `init`,
//! the only word that the sidecar believes; without it, nothing is backed up. A copy lies on each volume, for the runs of a
//! CronJob; it counts where it is of the start that the marker is of. A type ↔ a file.

use super::lease::judge::Since;
use crate::contract::question::Question;
use crate::store::claims::{Claim, Holder, Owner};
use crate::store::records::{Damage, decode, encode};
use crate::store::snapshot::SnapshotId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The file's name.
pub const START: &str = "start.json";

/// What came of a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// See [`crate::store::records::VERSION`].
    pub version: u32,
    /// When `init` ended.
    pub time: Timestamp,
    /// Whose files they are.
    pub owner: Owner,
    /// The pod.
    pub pod: String,
    /// The revision of its template.
    pub generation: String,
    /// Under which the volumes were last marked: what a claim by the sidecar has to exceed.
    pub epoch: u64,
    /// How the place stood when the volumes were brought up to date, where it could not be claimed then: for
    /// [`crate::agent::lease::judge::judge`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
    /// Snapshots that are to be pinned before anything is written, by destination: see [`crate::agent::lease::reverted`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<String, SnapshotId>,
    /// One a destination, in the order of the arguments.
    pub destinations: Vec<StartedDestination>,
    /// One a protected volume, in the order of the arguments.
    pub volumes: Vec<StartedVolume>,
    /// A `restore-at` value that was served by this start: to be recorded in `served/` once a snapshot of the result
    /// (kind `restored`) is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Serving>,
}

/// A `restore-at` value whose result is on the volumes and not yet in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// As it was written in the annotation.
    pub value: String,
    /// What it meant.
    pub snapshot: SnapshotId,
}

/// A destination as `init` left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedDestination {
    /// `remote:bucket/path`.
    pub destination: String,
    /// Whether, and how, we may write there.
    pub writing: Writing,
    /// One sentence for people: why it is so.
    pub why: String,
    /// Names below the destination: what its mirror has there is not what the newest snapshot says. It was found by the restore,
    /// and is to be saved anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
    /// The place was somebody else's, and that it is taken over was accepted; it could not be claimed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_over: Option<TakeOver>,
}

/// A place that is to be taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeOver {
    /// Whose claim is not in the way.
    pub holder: Holder,
    /// What was accepted.
    pub question: Question,
}

/// Whether the sidecar may write to a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Writing {
    /// The place is claimed: write while no claim is newer.
    Claimed {
        /// The claim that is ours.
        holder: Holder,
    },
    /// The store could not be asked: once it answers, judge its claims as `init` does (`lease::judge`), and claim.
    Unclaimed,
    /// A writer of the same generation, or of another cluster, holds it. Once nothing was seen of it for three minutes, and
    /// the newest snapshot is still `newest`, claim.
    Waiting {
        /// Who holds it.
        holder: Holder,
        /// The newest snapshot when we looked.
        newest: Option<SnapshotId>,
    },
    /// Whether its holder is alive can't be seen: once this is accepted, claim.
    Asks {
        /// What is asked.
        question: Question,
    },
    /// Never, under this start.
    Fenced,
}

/// A volume as `init` left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedVolume {
    /// The pod volume's name.
    pub name: String,
    /// Its folder in the bucket: the recorded one, which a changed mount path does not change.
    pub folder: String,
    /// Where it is mounted.
    pub path: PathBuf,
    /// The id in its marker.
    pub id: String,
    /// Whether it may be backed up.
    pub status: Status,
    /// One sentence for people: why it is so.
    pub why: String,
    /// The snapshot that was restored by this start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<SnapshotId>,
    /// The volume was taken over with files that the store does not know, so the first backup may differ from the
    /// newest snapshot by any amount: what the store held goes to history.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

/// Whether a volume may be backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Restored, kept, or confirmed new: it may be backed up.
    Settled,
    /// Started on vanilla while the store was away: never backed up; the next start decides.
    Provisional,
    /// It may not be backed up.
    Fenced,
}

impl Start {
    /// A new claim of ours, without its epoch: for [`crate::store::claims::take`].
    #[must_use]
    pub fn claim(&self, now: Timestamp) -> Claim {
        Claim {
            version: self.version,
            epoch: 0,
            owner: self.owner.clone(),
            pod: self.pod.clone(),
            generation: self.generation.clone(),
            volumes: self
                .volumes
                .iter()
                .map(|volume| crate::store::claims::ClaimedVolume {
                    name: volume.name.clone(),
                    folder: volume.folder.clone(),
                    id: volume.id.clone(),
                })
                .collect(),
            time: now,
            start: Some(self.time),
        }
    }

    /// What is asked while the app runs all the same.
    pub fn asks(&self) -> impl Iterator<Item = &Question> {
        let destinations = self.destinations.iter();
        destinations.filter_map(|destination| match &destination.writing {
            Writing::Asks { question } => Some(question),
            _ => None,
        })
    }

    /// A claim of ours that was made under this start, as its name tells it.
    #[must_use]
    pub fn claim_of(&self, holder: &Holder) -> Claim {
        Claim {
            epoch: holder.epoch,
            ..self.claim(self.time)
        }
    }

    /// The same for a volume: what the restore found damaged is for the sidecar alone, and may be long.
    #[must_use]
    pub fn in_short(&self) -> Self {
        let mut short = self.clone();
        for destination in &mut short.destinations {
            destination.damaged.clear();
        }
        short
    }

    /// Reads the file; `None` where there is none: `init` did not end.
    pub fn read(restore_dir: &Path) -> Result<Option<Self>, Unreadable> {
        let path = restore_dir.join(START);
        match std::fs::read(&path) {
            Ok(bytes) => decode(&bytes)
                .map(Some)
                .map_err(|source| Unreadable::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Unreadable::Io { path, source }),
        }
    }

    /// Writes the file as a whole or not at all.
    pub fn write(&self, restore_dir: &Path) -> io::Result<()> {
        let partial = restore_dir.join(".start.json.partial");
        std::fs::write(&partial, encode(self))?;
        std::fs::rename(partial, restore_dir.join(START))
    }
}

/// Why `start.json` could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not what `init` writes.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Damage,
    },
    /// The system refused.
    #[error("{} can't be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start {
            version: 1,
            time: Timestamp::UNIX_EPOCH,
            owner: Owner {
                cluster: "c1".to_owned(),
                namespace: "home".to_owned(),
                kind: "Deployment".to_owned(),
                name: "app".to_owned(),
                pod: String::new(),
            },
            pod: "app-1".to_owned(),
            generation: "abc".to_owned(),
            epoch: 3,
            since: None,
            pins: BTreeMap::new(),
            destinations: vec![StartedDestination {
                destination: "minio:b/app".to_owned(),
                writing: Writing::Claimed {
                    holder: Holder {
                        epoch: 3,
                        volume_id: "ab12".to_owned(),
                    },
                },
                why: "claimed".to_owned(),
                damaged: Vec::new(),
                takes_over: None,
            }],
            volumes: vec![StartedVolume {
                name: "data".to_owned(),
                folder: "config".to_owned(),
                path: "/config".into(),
                id: "ab12".to_owned(),
                status: Status::Settled,
                why: "kept".to_owned(),
                restored: None,
                adopted: false,
            }],
            serving: None,
        }
    }

    #[test]
    fn a_start_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        start().write(folder.path()).unwrap();
        assert_eq!(Start::read(folder.path()).unwrap(), Some(start()));
    }

    #[test]
    fn no_file_means_that_init_did_not_end_and_half_a_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Start::read(folder.path()).unwrap(), None);
        std::fs::write(folder.path().join(START), br#"{"version":1,"ti"#).unwrap();
        assert!(Start::read(folder.path()).is_err());
    }
}
