//! One destination → whether a restore from it can be trusted, and what it would bring. Reads the store only.

use crate::agent::arguments::{Destination, PreSyncArguments, Verify};
use crate::agent::lease::inspect::{self, Backup, Place};
use crate::agent::litestream::ltx::{self, Txid};
use crate::agent::litestream::replica::Replica;
use crate::agent::litestream::target::Target;
use crate::agent::owner;
use crate::agent::restore::plan::{Plan, Planned, of_listing, of_snapshot};
use crate::agent::restore::stage::{self, Fetch, Watch};
use crate::agent::volume::marker::Mode;
use crate::store::claims::{Kinship, Owner};
use crate::store::history::{History, file_of};
use crate::store::index::{DatabasePosition, Entry};
use crate::store::indexes::Indexes;
use crate::store::rclone::Rclone;
use crate::store::snapshot::SnapshotId;
use crate::store::{Depth, Error as StoreError, Object, Store, keys};
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

/// So many snapshots are looked at for one that is whole.
const TRIED: usize = 10;
/// So much is downloaded at a time, to be compared.
const PORTION: u64 = 256 << 20;
/// A snapshot is compared again, while somebody goes on writing, no more often than this.
const LOOKS: usize = 5;
/// A line of progress is written so often.
const PROGRESS: Duration = Duration::from_secs(5);

/// What a destination can be trusted with.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The newest snapshot is whole.
    Ready(Point),
    /// There are no snapshots, but files: made by hand with the guide.
    ByHand(Totals),
    /// The store answered, and has nothing.
    NoBackup {
        /// Not even the bucket.
        bucket_missing: bool,
    },
    /// The newest snapshot is not whole, or what tells of it.
    Damaged {
        /// What is wrong, of each snapshot that was looked at, the newest first.
        wrong: Vec<String>,
        /// The newest that is whole.
        before: Option<Point>,
        /// Names below the destination, where the mirror has not what the newest snapshot says.
        damaged: Vec<String>,
    },
    /// It is another workload's place.
    Others(Owner),
    /// Nobody knows.
    Failed(StoreError),
}

/// A restore point that is whole.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) id: SnapshotId,
    /// When it was made, exactly.
    pub(super) time: Timestamp,
    pub(super) totals: Totals,
    /// Everything was downloaded, in this time.
    pub(super) downloaded: Option<Duration>,
    pub(super) databases: Vec<DatabasePosition>,
}

/// What is wrong with a snapshot.
struct Wrong {
    why: String,
    /// Names below the destination, where the mirror has not what it should.
    damaged: Vec<String>,
}

/// A snapshot beside what the store holds of it.
struct Compared {
    totals: Totals,
    wrong: Vec<String>,
    damaged: Vec<String>,
    downloaded: Option<Duration>,
}

/// Files and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Verdict {
    /// What is worth keeping, even where the newest is damaged.
    pub(super) fn restore_point(&self) -> Option<SnapshotId> {
        match self {
            Self::Ready(point)
            | Self::Damaged {
                before: Some(point), ..
            } => Some(point.id),
            _ => None,
        }
    }
}

/// One destination under check.
pub(super) struct Check<'a> {
    pub(super) store: &'a Rclone,
    pub(super) destination: &'a Destination,
    pub(super) arguments: &'a PreSyncArguments,
    pub(super) scratch: &'a Path,
}

impl Check<'_> {
    pub(super) async fn verdict(&self) -> Verdict {
        match self.checked().await {
            Ok(verdict) => verdict,
            Err(error @ StoreError::Damaged { .. }) => Verdict::Damaged {
                wrong: vec![error.to_string()],
                before: None,
                damaged: Vec::new(),
            },
            Err(error) => Verdict::Failed(error),
        }
    }

    async fn checked(&self) -> Result<Verdict, StoreError> {
        let protection = &self.arguments.protection;
        let folders: Vec<String> = protection.volumes.iter().map(|volume| volume.folder.clone()).collect();
        let backup = match inspect::look(self.store, &folders).await? {
            Place::Nothing { bucket_missing, .. } => return Ok(Verdict::NoBackup { bucket_missing }),
            Place::Backup(backup) => *backup,
        };
        if let Some(theirs) = backup.owner() {
            // A Job is none of the workload's pods; whose volumes they are is not its question.
            let us = Owner {
                pod: theirs.pod.clone(),
                ..owner(&self.arguments.identity, &protection.workload)
            };
            if theirs.kinship(&us) == Kinship::Other {
                return Ok(Verdict::Others(theirs.clone()));
            }
        }
        if backup.snapshots.is_empty() {
            return self.by_hand(&backup, &folders).await;
        }
        let (mut wrong, mut damaged) = (Vec::new(), Vec::new());
        for id in backup.snapshots.iter().rev().take(TRIED) {
            match self.point(id).await {
                Ok(Ok(point)) if wrong.is_empty() => return Ok(Verdict::Ready(point)),
                Ok(Ok(point)) => {
                    return Ok(Verdict::Damaged {
                        wrong,
                        before: Some(point),
                        damaged,
                    });
                }
                Ok(Err(found)) => {
                    if wrong.is_empty() {
                        damaged = found.damaged;
                    }
                    wrong.push(format!("{id}: {}", found.why));
                }
                Err(error @ (StoreError::Damaged { .. } | StoreError::NotFound { .. })) => {
                    wrong.push(format!("{id}: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Verdict::Damaged {
            wrong,
            before: None,
            damaged,
        })
    }

    async fn by_hand(&self, backup: &Backup, folders: &[String]) -> Result<Verdict, StoreError> {
        if !backup.by_listing {
            return Ok(Verdict::NoBackup { bucket_missing: false });
        }
        let mut totals = Totals::default();
        for folder in folders {
            let (files, bytes) = of_listing(self.store, folder).await?.totals();
            totals.files += files;
            totals.bytes += bytes;
        }
        Ok(Verdict::ByHand(totals))
    }

    /// A snapshot that is whole, or what is wrong with it.
    async fn point(&self, id: &SnapshotId) -> Result<Result<Point, Wrong>, StoreError> {
        let (header, entries) = Indexes::new(self.store, self.scratch).read(id).await?;
        let mut found = self.compared(id, &entries).await?;
        for _ in 0..LOOKS {
            if found.wrong.is_empty() {
                break;
            }
            // A backup may have been made meanwhile: what it replaced has moved to history. What two looks say is believed.
            let again = self.compared(id, &entries).await?;
            let is_same = again.wrong == found.wrong;
            found = again;
            if is_same {
                break;
            }
        }
        let Compared {
            totals,
            mut wrong,
            damaged,
            downloaded,
        } = found;
        wrong.extend(self.against_replicas(&header.databases).await?);
        if wrong.is_empty() {
            return Ok(Ok(Point {
                id: *id,
                time: header.time,
                totals,
                downloaded,
                databases: header.databases,
            }));
        }
        let count = wrong.len();
        wrong.truncate(5);
        let more = if count > 5 {
            format!(" and {} more", count - 5)
        } else {
            String::new()
        };
        let why = format!("{}{more}", wrong.join(", "));
        Ok(Err(Wrong { why, damaged }))
    }

    /// A snapshot against what the store holds.
    async fn compared(&self, id: &SnapshotId, entries: &[Entry]) -> Result<Compared, StoreError> {
        let folders: BTreeSet<String> = entries
            .iter()
            .map(|entry| String::from_utf8_lossy(entry.place().0).into_owned())
            .collect();
        // The mirror before history: what is replaced between the two is in history by then.
        let mut sizes = HashMap::new();
        for folder in &folders {
            self.list(&keys::mirror(folder), &mut sizes).await?;
        }
        let history = History::list(self.store).await?;
        let plans: Vec<Plan> = folders
            .iter()
            .map(|folder| of_snapshot(*id, entries.to_vec(), folder, Some(&history)))
            .collect();
        let strays: Vec<String> = plans.iter().filter_map(Plan::stray).collect();
        let plan = Plan {
            snapshot: Some(*id),
            items: plans.into_iter().flat_map(|plan| plan.items).collect(),
        };
        let backups: BTreeSet<&str> = plan
            .items
            .iter()
            .filter_map(|item| match &item.what {
                Planned::File(content, _) => content.key.strip_prefix(keys::HISTORY)?.split('/').nth(1),
                Planned::Folder(_) | Planned::Link(..) | Planned::Missing => None,
            })
            .collect();
        for backup in backups {
            self.list(&format!("{}/{backup}", keys::HISTORY), &mut sizes).await?;
        }
        let (files, bytes) = plan.totals();
        let mut compared = Compared {
            totals: Totals { files, bytes },
            wrong: strays,
            damaged: Vec::new(),
            downloaded: None,
        };
        let mut lacking = against_listing(&plan, &sizes);
        if compared.wrong.is_empty() && lacking.is_empty() && self.arguments.verify == Verify::Full {
            let began = Instant::now();
            lacking = self.against_content(&plan).await?;
            compared.downloaded = Some(began.elapsed());
        }
        for (key, why) in lacking {
            compared.wrong.push(format!("{key}{why}"));
            if file_of(&key) == key {
                compared.damaged.push(key);
            }
        }
        Ok(compared)
    }

    /// Databases whose replica has no state that a restore could begin with.
    async fn against_replicas(&self, databases: &[DatabasePosition]) -> Result<Vec<String>, StoreError> {
        let mut wrong = Vec::new();
        // What the snapshot has as a file needs no replica.
        let mut databases = databases.iter().filter(|database| database.file.is_none()).peekable();
        if databases.peek().is_none() {
            return Ok(wrong);
        }
        let target = match Target::of(self.destination, &self.arguments.folders.rclone_dir) {
            Ok(target) => target,
            Err(unsupported) => return Ok(vec![unsupported.to_string()]),
        };
        for database in databases {
            let key = keys::database(&database.folder, &database.path);
            let replica = Replica {
                store: self.store,
                target: &target,
                key: &key,
            };
            let files = replica.files().await?;
            let at = Txid::parse(&database.txid);
            if ltx::newest(&files, at).is_none() && ltx::oldest(&files).is_none() {
                wrong.push(format!("{key} holds no state of the database that can be restored"));
            }
        }
        Ok(wrong)
    }

    /// The sizes of what lies below a prefix, by key.
    async fn list(&self, prefix: &str, sizes: &mut HashMap<String, u64>) -> Result<(), StoreError> {
        let mut each = |object: Object| {
            sizes.insert(format!("{prefix}/{}", object.name), object.size);
        };
        self.store.list(prefix, Depth::All, &mut each).await?;
        Ok(())
    }

    /// Whether every file is what the index says: downloads all of them, some at a time.
    async fn against_content(&self, plan: &Plan) -> Result<Vec<(String, String)>, StoreError> {
        let folder = self.scratch.join("content");
        let (all_files, _) = plan.totals();
        let mut done = 0;
        let mut wrong = Vec::new();
        for portion in portions(plan) {
            let before = done;
            let watch = Watch {
                every: PROGRESS,
                tell: &|files, _| tracing::info!("verifying: {} of {all_files} files", before + files),
            };
            // Nothing is put in place from here: there is no volume that has a part of it.
            let volume = self.scratch.join("volume");
            let fetch = Fetch {
                store: self.store,
                volume: &volume,
                incoming: &folder,
                mode: Mode::Whole,
                watch,
                has_snapshots: true,
            };
            let lacking = fetch.stage(&portion).await.map_err(|error| match error {
                stage::Error::Store(error) => error,
                stage::Error::Volume(error) => StoreError::Local {
                    what: "the files can't be downloaded to be verified".to_owned(),
                    source: std::io::Error::other(error),
                },
            })?;
            wrong.extend(lacking.into_iter().map(|one| (one.key, format!(": {}", one.why))));
            done += portion.totals().0;
            // The next portion needs the room.
            let _ = std::fs::remove_dir_all(&folder);
        }
        Ok(wrong)
    }
}

/// What of a plan is not listed, or not with its size: keys, and what is wrong with each.
fn against_listing(plan: &Plan, sizes: &HashMap<String, u64>) -> Vec<(String, String)> {
    let files = plan.items.iter().filter_map(|item| match &item.what {
        Planned::File(content, _) => Some(content),
        Planned::Folder(_) | Planned::Link(..) | Planned::Missing => None,
    });
    let wrong = files.filter_map(|content| match sizes.get(&content.key) {
        Some(size) if *size == content.size => None,
        Some(size) => Some((
            content.key.clone(),
            format!(" has {size} bytes instead of {}", content.size),
        )),
        None => Some((content.key.clone(), " is missing".to_owned())),
    });
    wrong.collect()
}

/// A plan's files in portions that scratch has room for; each has one at least.
fn portions(plan: &Plan) -> Vec<Plan> {
    let mut portions = vec![Plan::default()];
    let mut bytes = 0;
    for item in &plan.items {
        let Planned::File(content, _) = &item.what else {
            continue;
        };
        if bytes > 0 && bytes + content.size > PORTION {
            portions.push(Plan::default());
            bytes = 0;
        }
        bytes += content.size;
        if let Some(portion) = portions.last_mut() {
            portion.items.push(item.clone());
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::restore::plan::{Content, Item};
    use crate::store::index::Standing;

    #[test]
    fn a_file_larger_than_a_portion_is_one_and_none_is_left_out() {
        let sizes = [1, PORTION, 3 * PORTION, 5, PORTION - 5, 1];
        let items = sizes.into_iter().map(|size| Item {
            standing: Standing::Live,
            path: size.to_string().into(),
            what: Planned::File(
                Content {
                    key: String::new(),
                    size,
                    sha256: None,
                },
                None,
            ),
        });
        let plan = Plan {
            snapshot: None,
            items: items.collect(),
        };
        let found: Vec<u64> = portions(&plan).iter().map(|portion| portion.totals().1).collect();
        assert_eq!(found, [1, PORTION, 3 * PORTION, PORTION, 1]);
    }
}
