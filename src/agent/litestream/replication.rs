//! What the sidecar's parts know together about replicated databases: backups find them and leave them out of the files, the
//! supervisor replicates them, snapshots ask where they stand. No I/O but that last question, and what is there at the end.

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
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// A replica of it was seen in the store.
    pub replicated: bool,
    /// The replica does not keep up, or never began: it is saved as a file too.
    pub failing: bool,
    /// The last synchronisation is over, and the store has all of it.
    pub complete: bool,
    /// What the store is known to have.
    pub sent: Txid,
    /// Litestream's newest transaction of it, as far as it was ever seen.
    pub newest: Txid,
    /// It is in the last snapshot as a file, of this transaction and what came after it; [`Txid::MAX`]: newer than anything
    /// that was sent before this life. The file stays until the replica is seen to be newer.
    pub saved: Option<Txid>,
}

impl Database {
    /// Where its replica lies.
    #[must_use]
    pub fn key(&self) -> String {
        keys::database(&self.folder, &self.path)
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
    /// What the newest snapshot has as files when the place is opened: [`Database::saved`], by path of the index.
    inherited: Mutex<BTreeMap<Vec<u8>, Txid>>,
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
            inherited: Mutex::default(),
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

    /// A backup met a database at this path of the index, `file` on disk.
    pub fn found(&self, path: &[u8], file: PathBuf) -> Treatment {
        let Some(slash) = path.iter().position(|byte| *byte == b'/') else {
            return Treatment::Saved;
        };
        let (folder, below) = (&path[..slash], &path[slash + 1..]);
        let Some(profile) = self.profile_of(below) else {
            return Treatment::Saved;
        };
        // Nothing is sent any more of what is met only now.
        let too_late = self.stopping().is_some();
        let mut databases = locked(&self.databases);
        if let Some(database) = databases.get_mut(path) {
            database.failing |= too_late && !database.replicated;
            return match *database {
                Database { failing: true, .. } => Treatment::Saved,
                Database {
                    replicated: true,
                    saved,
                    sent,
                    ..
                } if saved.is_none_or(|saved| sent > saved) => {
                    database.saved = None;
                    Treatment::Replicated
                }
                _ => Treatment::Kept,
            };
        }
        let saved = locked(&self.inherited).remove(path);
        databases.insert(
            path.to_vec(),
            Database {
                file,
                folder: String::from_utf8_lossy(folder).into_owned(),
                path: String::from_utf8_lossy(below).into_owned(),
                profile,
                since: Instant::now(),
                replicated: false,
                failing: too_late,
                complete: false,
                sent: Txid(0),
                newest: Txid(0),
                saved,
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
        for database in locked(&self.databases).values_mut() {
            database.replicated = false;
            database.complete = false;
            database.sent = Txid(0);
            database.since = Instant::now();
        }
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

    /// Where each database stands now: its log is read to its end before, where Litestream runs.
    pub async fn positions(&self) -> Vec<DatabasePosition> {
        let databases = self.databases();
        let sockets: BTreeSet<PathBuf> = databases
            .values()
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
        databases
            .iter()
            .filter_map(|(path, database)| {
                let position = local::position(&database.file);
                let newest = position.map_or(Txid(0), |position| position.txid);
                let mut newest = newest.max(database.newest).max(database.sent);
                if newest == Txid(0) && self.stopping().is_some() {
                    // Whatever a replica has of it: nothing newer than this end is ever sent.
                    newest = Txid::MAX;
                }
                self.change(path, |database| database.newest = newest);
                // Where Litestream's own folder is gone, this is all that is known.
                let txid = database
                    .saved
                    .or_else(|| (database.failing && newest > Txid(0)).then_some(newest));
                let position = position.or_else(|| {
                    let time = Timestamp::now();
                    Some(local::Position { txid: txid?, time })
                })?;
                Some(DatabasePosition {
                    folder: database.folder.clone(),
                    path: database.path.clone(),
                    txid: position.txid.to_string(),
                    time: position.time,
                    file: None,
                })
            })
            .collect()
    }

    /// A backup has saved the database as a file, after [`Self::positions`] were asked.
    pub fn saved(&self, path: &[u8]) {
        self.change(path, |database| database.saved = Some(database.newest));
    }

    /// Notes which of them the snapshot has as files.
    pub fn note_files(&self, positions: &mut [DatabasePosition]) {
        let databases = locked(&self.databases);
        for position in positions {
            let path = format!("{}/{}", position.folder, position.path);
            let saved = databases.get(path.as_bytes()).and_then(|database| database.saved);
            position.file = saved.map(|txid| txid.to_string());
        }
    }

    /// What the newest snapshot has as files, from its index, before anything is found.
    pub fn inherit(&self, positions: &[DatabasePosition]) {
        let files = positions.iter().filter_map(|position| {
            let txid = Txid::parse(position.file.as_deref()?)?;
            Some((format!("{}/{}", position.folder, position.path).into_bytes(), txid))
        });
        *locked(&self.inherited) = files.collect();
    }

    /// Whether the newest snapshot had this path as such a file.
    #[must_use]
    pub fn has_inherited(&self, path: &[u8]) -> bool {
        locked(&self.inherited).contains_key(path)
    }

    /// The store has everything up to `newest`. Whether with that it is newer than what was saved as a file.
    pub fn listed(&self, path: &[u8], newest: Txid) -> bool {
        let mut passed = false;
        self.change(path, |database| {
            database.sent = newest;
            if database.saved == Some(Txid::MAX) {
                // From here on it counts: what is listed now may be older than the file, or as new.
                database.saved = Some(newest);
            }
            passed = database.saved.is_some_and(|saved| newest > saved);
        });
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replication(which: &str) -> Replication {
        Replication::new(which.parse().unwrap(), Profile::Standard, PathBuf::from("/nowhere"))
    }

    #[test]
    fn what_is_replicated_and_how_is_what_the_annotations_say() {
        let auto = replication("auto");
        assert_eq!(auto.profile_of(b"sub/app.db"), Some(Profile::Standard));
        assert_eq!(auto.profile_of(b"\xff.db"), None, "no name for a store");
        for name in ["a#.db", "a?.db", "100%.db"] {
            assert_eq!(auto.profile_of(name.as_bytes()), None, "{name}");
        }
        let paths = replication("a.db=critical,sub/b.db,c.db=ephemeral");
        assert_eq!(paths.profile_of(b"a.db"), Some(Profile::Critical));
        assert_eq!(paths.profile_of(b"sub/b.db"), Some(Profile::Standard));
        assert_eq!(paths.profile_of(b"c.db"), None);
        assert_eq!(paths.profile_of(b"d.db"), None);
        assert_eq!(replication("none").profile_of(b"a.db"), None);
        let ephemeral = Replication::new(Databases::Auto, Profile::Ephemeral, PathBuf::new());
        assert_eq!(ephemeral.found(b"config/a.db", "/a.db".into()), Treatment::Saved);
    }

    #[test]
    fn a_database_leaves_the_files_once_its_replica_was_seen_and_comes_back_when_that_fails() {
        let replication = replication("auto");
        let path = b"config/a.db";
        let meet = || replication.found(path, "/config/a.db".into());
        assert_eq!(meet(), Treatment::Kept);
        assert!(replication.knows(path));
        replication.change(path, |database| database.replicated = true);
        assert_eq!(meet(), Treatment::Replicated);
        replication.change(path, |database| database.failing = true);
        assert_eq!(meet(), Treatment::Saved);
        replication.lost(path);
        assert!(!replication.knows(path));
    }

    #[test]
    fn a_database_that_is_met_by_the_last_backup_alone_is_saved_as_a_file() {
        let replication = replication("auto");
        let (path, another) = (b"config/a.db", b"config/b.db");
        assert_eq!(replication.found(path, "/a.db".into()), Treatment::Kept);
        replication.stop(Instant::now());
        assert_eq!(replication.found(path, "/a.db".into()), Treatment::Saved);
        assert_eq!(replication.found(another, "/b.db".into()), Treatment::Saved);
    }

    #[tokio::test]
    async fn once_nothing_is_sent_any_more_only_a_complete_database_is_left_out_of_the_files() {
        let replication = replication("auto");
        let (sent, unsent) = (b"config/a.db", b"config/b.db");
        let file = tempfile::NamedTempFile::new().unwrap();
        let treatments = || [sent, unsent].map(|path| replication.found(path, file.path().into()));
        treatments();
        for path in [sent, unsent] {
            replication.change(path, |database| {
                database.replicated = true;
                database.sent = Txid(7);
            });
        }
        replication.stop(Instant::now());
        assert_eq!(treatments(), [Treatment::Replicated; 2], "it is still being sent");
        replication.change(sent, |database| database.complete = true);
        replication.end();
        // Asked before the files are looked at: the snapshot has to say of what transaction the file is.
        let mut positions = replication.positions().await;
        assert_eq!(treatments(), [Treatment::Replicated, Treatment::Saved]);
        replication.saved(unsent);
        replication.note_files(&mut positions);
        let files: Vec<_> = positions
            .iter()
            .map(|position| (&*position.path, position.file.as_deref()))
            .collect();
        assert_eq!(files, [("b.db", Some("0000000000000007"))]);
    }

    #[test]
    fn a_file_that_is_newer_than_its_replica_stays_until_the_replica_is_newer() {
        let replication = replication("auto");
        let path = b"config/a.db";
        let position = |file| DatabasePosition {
            folder: "config".to_owned(),
            path: "a.db".to_owned(),
            txid: Txid(7).to_string(),
            time: Timestamp::UNIX_EPOCH,
            file,
        };
        for (saved, first) in [(Txid(7), 7), (Txid::MAX, 9)] {
            replication.inherit(&[position(Some(saved.to_string()))]);
            assert!(replication.has_inherited(path));
            assert_eq!(replication.found(path, "/a.db".into()), Treatment::Kept);
            replication.change(path, |database| database.replicated = true);
            assert!(!replication.listed(path, Txid(first)));
            assert_eq!(replication.found(path, "/a.db".into()), Treatment::Kept);
            let mut positions = [position(None)];
            replication.note_files(&mut positions);
            assert_eq!(positions[0].file, Some(Txid(first).to_string()));
            assert!(replication.listed(path, Txid(first + 1)));
            assert_eq!(replication.found(path, "/a.db".into()), Treatment::Replicated);
            replication.note_files(&mut positions);
            assert_eq!(positions[0].file, None);
            replication.lost(path);
        }
    }

    #[tokio::test]
    async fn a_snapshot_says_of_what_transaction_a_file_is_that_was_not_sent() {
        let replication = replication("auto");
        let path = b"config/a.db";
        replication.found(path, "/nowhere/a.db".into());
        assert_eq!(replication.positions().await, [], "nothing is known of it");
        replication.change(path, |database| {
            database.replicated = true;
            database.failing = true;
            database.sent = Txid(7);
        });
        let mut positions = replication.positions().await;
        replication.note_files(&mut positions);
        assert_eq!(
            (positions.len(), &positions[0].file),
            (1, &None),
            "it was not saved yet"
        );
        replication.saved(path);
        replication.note_files(&mut positions);
        assert_eq!(positions[0].file.as_deref(), Some("0000000000000007"));
    }

    #[test]
    fn once_fenced_the_place_is_not_held_again() {
        let replication = replication("auto");
        let holder = Holder {
            epoch: 1,
            volume_id: "a".to_owned(),
        };
        replication.hold(&holder, Instant::now());
        assert_eq!(replication.permission(), Permission::Held(holder.clone()));
        replication.fence();
        replication.hold(&holder, Instant::now());
        assert_eq!(replication.permission(), Permission::Fenced);
    }
}
