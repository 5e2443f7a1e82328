//! What the sidecar's parts know together about replicated databases: backups find them and leave them out of the files, the
//! supervisor replicates them, snapshots ask where they stand. No I/O but that last question, and what is there at the end.

use super::copies::Copies;
use super::lineage::{Run, Saved};
use super::ltx::Txid;
use super::{control, local, process};
use crate::agent::arguments::{Databases, Profile};
use crate::store::claims::Holder;
use crate::store::index::DatabasePosition;
use crate::store::keys::{self, StoredName, stored_name};
use crate::store::snapshot::SnapshotId;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A snapshot waits so long for a database's log to be read to its end.
const GLANCE: Duration = Duration::from_secs(2);

/// Before these, Litestream takes the path to be at its end.
const NOT_IN_A_URI: [char; 3] = ['#', '?', '%'];

/// How a backup of files treats a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// As at tier 2: by online backup.
    Saved,
    /// Left out, but what the store has of it as a file stays for now.
    Kept,
    /// Left out.
    Replicated,
}

/// A database that is, or is to be, replicated.
#[derive(Clone, Debug)]
pub struct Database {
    /// The file.
    pub file: PathBuf,
    /// Its volume's folder.
    pub folder: String,
    /// Its path on the volume.
    pub path: String,
    /// How it is kept.
    pub profile: Profile,
    /// When it was found.
    pub since: Instant,
    /// The run of Litestream that has it; none: not in this life.
    pub run: Option<Run>,
    /// From here on the replica has what the database held when the run began.
    pub whole_from: Txid,
    /// A replica of it was seen in the store that has that.
    pub replicated: bool,
    /// The replica does not keep up, or never began: it is saved as a file too.
    pub failing: bool,
    /// The last synchronisation is over, and the store has all of it.
    pub complete: bool,
    /// What the store is known to have.
    pub sent: Txid,
    /// Litestream's newest transaction of it, as far as it was ever seen in this run.
    pub newest: Txid,
}

impl Database {
    /// What the store has of it is not what was sent: until it is whole there again, it counts as one that was never sent.
    pub(super) fn unsent(&mut self) {
        self.replicated = false;
        self.complete = false;
        self.sent = Txid(0);
        self.since = Instant::now();
    }

    /// Where its replica lies.
    #[must_use]
    pub fn key(&self) -> String {
        keys::database(&self.folder, &self.path)
    }

    /// Whether what the store is known to have is newer than this file.
    fn is_newer_than(&self, saved: Saved) -> bool {
        self.run
            .is_some_and(|run| run.run == saved.run && self.sent > saved.txid)
    }
}

/// Whether we may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Permission {
    /// The place is not claimed yet.
    #[default]
    NotYet,
    /// Under this claim.
    Held(Holder),
    /// Never again.
    Fenced,
}

/// What is known together.
#[derive(Debug)]
pub struct Replication {
    databases: Mutex<BTreeMap<Vec<u8>, Database>>,
    permission: Mutex<Permission>,
    /// When our Litestream may begin, and when the place was last seen to be ours.
    turn: Mutex<Instant>,
    ours: Mutex<Instant>,
    /// The snapshots that stay, as the last pruning left them.
    kept: Mutex<Option<Vec<SnapshotId>>>,
    stopping: Mutex<Option<Instant>>,
    /// What the snapshots of the same destination have as files: a file stays until the replica is seen to be newer.
    pub copies: Arc<Copies>,
    /// Something changed that the supervisor should look at.
    pub changed: Notify,
    told_to_stop: Notify,
    news: AtomicBool,
    begins_anew: AtomicBool,
    which: Databases,
    profile: Profile,
    folder: PathBuf,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replication {
    /// Of these databases. `folder`: where processes have their files.
    #[must_use]
    pub fn new(which: Databases, profile: Profile, folder: PathBuf) -> Self {
        Self {
            databases: Mutex::default(),
            permission: Mutex::default(),
            turn: Mutex::new(Instant::now()),
            ours: Mutex::new(Instant::now()),
            kept: Mutex::default(),
            stopping: Mutex::default(),
            copies: Arc::default(),
            changed: Notify::new(),
            told_to_stop: Notify::new(),
            news: AtomicBool::new(false),
            begins_anew: AtomicBool::new(false),
            which,
            profile,
            folder,
        }
    }

    /// Where processes have their files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Under which profile a file of this path on its volume is replicated; none: it is not.
    #[must_use]
    pub fn profile_of(&self, path: &[u8]) -> Option<Profile> {
        // Litestream takes no other names than the store does, and opens what it takes as an unescaped URI: another file.
        let text = std::str::from_utf8(path).ok()?;
        if !matches!(stored_name(path), StoredName::Plain(_)) || text.contains(NOT_IN_A_URI) {
            return None;
        }
        let profile = match &self.which {
            Databases::Auto => Some(self.profile),
            Databases::None => None,
            Databases::Paths(paths) => paths
                .iter()
                .find(|(named, _)| named == text)
                .map(|(_, profile)| profile.unwrap_or(self.profile)),
        };
        profile.filter(|profile| profile.hours().is_some())
    }

    /// Whether this path of the index is known as a database.
    #[must_use]
    pub fn knows(&self, path: &[u8]) -> bool {
        locked(&self.databases).contains_key(path)
    }

    /// A backup met a database at this path of the index, `file` on disk. `stored`: the store has it as a file.
    pub fn found(&self, path: &[u8], file: PathBuf, stored: bool) -> Treatment {
        let Some(slash) = path.iter().position(|byte| *byte == b'/') else {
            return Treatment::Saved;
        };
        let (folder, below) = (&path[..slash], &path[slash + 1..]);
        let Some(profile) = self.profile_of(below) else {
            return Treatment::Saved;
        };
        // Nothing is sent any more of what is met only now.
        let too_late = self.stopping().is_some();
        if stored {
            self.copies.assume(path);
        }
        let saved = self.copies.get(path);
        let mut databases = locked(&self.databases);
        if let Some(database) = databases.get_mut(path) {
            database.failing |= too_late && !database.replicated;
            return match database {
                Database { failing: true, .. } => Treatment::Saved,
                Database { replicated: true, .. } if saved.is_none_or(|saved| database.is_newer_than(saved)) => {
                    Treatment::Replicated
                }
                _ => Treatment::Kept,
            };
        }
        databases.insert(
            path.to_vec(),
            Database {
                file,
                folder: String::from_utf8_lossy(folder).into_owned(),
                path: String::from_utf8_lossy(below).into_owned(),
                profile,
                since: Instant::now(),
                run: None,
                whole_from: Txid(0),
                replicated: false,
                failing: too_late,
                complete: false,
                sent: Txid(0),
                newest: Txid(0),
            },
        );
        drop(databases);
        self.changed.notify_one();
        if too_late { Treatment::Saved } else { Treatment::Kept }
    }

    /// What was a database there is none any more.
    pub fn lost(&self, path: &[u8]) {
        if locked(&self.databases).remove(path).is_some() {
            self.changed.notify_one();
        }
    }

    /// All of them, by their path of the index.
    #[must_use]
    pub fn databases(&self) -> BTreeMap<Vec<u8>, Database> {
        locked(&self.databases).clone()
    }

    /// Changes what is known of one.
    pub fn change(&self, path: &[u8], change: impl FnOnce(&mut Database)) {
        if let Some(database) = locked(&self.databases).get_mut(path) {
            change(database);
        }
    }

    /// The place is ours; whoever had it before may still send until `turn`.
    pub fn hold(&self, holder: &Holder, turn: Instant) {
        let mut permission = locked(&self.permission);
        if *permission == Permission::NotYet {
            *permission = Permission::Held(holder.clone());
            *locked(&self.turn) = turn;
            self.confirm();
            self.changed.notify_one();
        }
    }

    /// The place was claimed anew, because it is another one or an older copy: what it has of databases is not what was sent.
    pub fn hold_anew(&self, holder: &Holder) {
        *locked(&self.permission) = Permission::Held(holder.clone());
        locked(&self.databases).values_mut().for_each(Database::unsent);
        self.begins_anew.store(true, Ordering::Relaxed);
        self.confirm();
        self.changed.notify_one();
    }

    /// Whether every database is to begin anew with a fresh snapshot, once.
    pub fn take_anew(&self) -> bool {
        self.begins_anew.swap(false, Ordering::Relaxed)
    }

    /// When our Litestream may begin.
    #[must_use]
    pub fn turn(&self) -> Instant {
        *locked(&self.turn)
    }

    /// Somebody has looked: no claim is newer than ours.
    pub fn confirm(&self) {
        *locked(&self.ours) = Instant::now();
    }

    /// When somebody has last looked.
    #[must_use]
    pub fn confirmed(&self) -> Instant {
        *locked(&self.ours)
    }

    /// The place is ours no more.
    pub fn fence(&self) {
        *locked(&self.permission) = Permission::Fenced;
        self.changed.notify_one();
    }

    /// Whether we may write.
    #[must_use]
    pub fn permission(&self) -> Permission {
        locked(&self.permission).clone()
    }

    /// The place was pruned, and these snapshots stay, the newest last.
    pub fn keep(&self, kept: Vec<SnapshotId>) {
        *locked(&self.kept) = Some(kept);
        self.changed.notify_one();
    }

    /// What the last pruning left, once.
    pub fn take_kept(&self) -> Option<Vec<SnapshotId>> {
        locked(&self.kept).take()
    }

    /// The pod is being stopped: one last synchronisation until then.
    pub fn stop(&self, deadline: Instant) {
        *locked(&self.stopping) = Some(deadline);
        self.told_to_stop.notify_one();
        self.changed.notify_one();
    }

    /// No Litestream of ours runs, and none will: whatever is not known to be complete is saved as a file from now on.
    pub fn end(&self) {
        for (path, database) in self.databases() {
            if !database.complete && database.file.exists() {
                self.change(&path, |database| database.failing = true);
            }
        }
    }

    /// Waits until the pod is being stopped. For one who waits.
    pub async fn stopped(&self) {
        while self.stopping().is_none() {
            self.told_to_stop.notified().await;
        }
    }

    /// Until when the last synchronisation may last.
    #[must_use]
    pub fn stopping(&self) -> Option<Instant> {
        *locked(&self.stopping)
    }

    /// A database is replicated now that was not before: the next backup makes a snapshot that knows it.
    pub fn tell(&self) {
        self.news.store(true, Ordering::Relaxed);
    }

    /// Whether there is something that a snapshot should know, once.
    pub fn take_news(&self) -> bool {
        self.news.swap(false, Ordering::Relaxed)
    }

    /// The last one of these runs of Litestream is about to begin with a database. `goes_on`: where the one before ended.
    /// `replicated`: the store is known to have had a replica.
    pub fn begin(&self, path: &[u8], runs: &[Run], listed: Txid, goes_on: bool, replicated: bool) {
        let Some(run) = runs.last() else { return };
        let after = run.after.unwrap_or_default();
        self.copies.renumber(path, runs);
        self.change(path, |database| {
            database.run = Some(*run);
            database.whole_from = if goes_on { after } else { Txid(after.0 + 1) };
            database.replicated = goes_on && replicated;
            database.complete = false;
            database.sent = listed;
            database.newest = after;
        });
    }

    /// Where each database stands now; with `read`, its log is read to its end before, where Litestream runs. What no run has
    /// in this life stands at [`Txid::MAX`], of none: nothing that a replica has is newer.
    pub async fn positions(&self, read: bool, epoch: u64) -> Vec<DatabasePosition> {
        let databases = self.databases();
        let sockets: BTreeSet<PathBuf> = databases
            .values()
            .filter(|_| read)
            .map(|database| process::socket(&self.folder, database.profile.as_str()))
            .filter(|socket| socket.exists())
            .collect();
        let syncs = databases.values().map(|database| {
            let socket = process::socket(&self.folder, database.profile.as_str());
            let runs = sockets.contains(&socket);
            async move {
                if runs {
                    // Where it does not answer, what it took before counts.
                    let _ = control::sync(&socket, &database.file, false, GLANCE).await;
                }
            }
        });
        futures::future::join_all(syncs).await;
        let position = |(path, database): (&Vec<u8>, &Database)| {
            let local = local::position(&database.file);
            let (run, txid) = if let Some(run) = database.run {
                // Where Litestream's own folder is gone, what was seen of it is all that is known.
                let newest = local.map_or(Txid(0), |local| local.txid);
                let newest = newest.max(database.newest).max(database.sent);
                self.change(path, |database| database.newest = database.newest.max(newest));
                (run.run, newest)
            } else {
                let Saved { run, txid } = self.copies.unfollowed(path, epoch, local.map(|local| local.txid));
                (run, txid)
            };
            DatabasePosition {
                folder: database.folder.clone(),
                path: database.path.clone(),
                txid: txid.to_string(),
                time: local.map_or_else(Timestamp::now, |local| local.time),
                run: Some(run),
                file: None,
                file_run: None,
            }
        };
        databases.iter().map(position).collect()
    }

    /// The store has everything up to `newest`. Whether with that it is newer than what was saved as a file.
    pub fn listed(&self, path: &[u8], newest: Txid) -> bool {
        let saved = self.copies.get(path);
        let mut passed = false;
        self.change(path, |database| {
            database.sent = newest;
            passed = saved.is_some_and(|saved| database.is_newer_than(saved));
        });
        passed
    }
}

#[cfg(test)]
mod tests;
