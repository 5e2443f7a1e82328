//! How far replicas are behind, by what the store *lists* (Litestream's own metrics know what it read, not what arrived), and
//! what piles up on the volume meanwhile. Part of [`Supervisor`].

use super::growth::Verdict;
use super::ltx::Txid;
use super::register::registered;
use super::replica::Replica;
use super::replication::Database;
use super::supervise::Supervisor;
use super::{check, continuity, control, local};
use crate::agent::sidecar::backup::Failure;
use crate::agent::sidecar::batch::{blocking, with_sources};
use crate::agent::sidecar::status::DatabaseStatus;
use crate::agent::volume::room::Room;
use crate::agent::watch::Changes;
use crate::store::Error;
use crate::store::claims::Holder;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// While something waits, the store is asked so often what it has.
const EACH: Duration = Duration::from_secs(15);
/// While a database has no replica yet, or the store is down.
const SOON: Duration = Duration::from_secs(2);
/// More than an ordinary log, in bytes.
const MUCH: u64 = 16 << 20;
/// A database without a replica is saved as at tier 2 after so long.
const FIRST_REPLICA: Duration = Duration::from_secs(60);
/// As is one whose replica is behind by so much.
const BEHIND: Duration = Duration::from_secs(600);

/// What is known of the store, and of what waits for it.
#[derive(Debug, Default)]
pub(super) struct Lag {
    next: Option<Instant>,
    store_down: bool,
    overgrown: bool,
    warned: bool,
    /// Databases that were written to and not taken by Litestream, by their path of the index, and since when: its positions
    /// say nothing of that.
    untaken: BTreeMap<Vec<u8>, Timestamp>,
    /// When it was last seen that all is taken.
    taken: BTreeMap<Vec<u8>, Instant>,
    /// When the databases were last looked at.
    looked: Timestamp,
}

impl Lag {
    /// Litestream was stopped, because too much waited.
    pub(super) const fn is_overgrown(&self) -> bool {
        self.overgrown
    }

    /// It begins again, with a fresh snapshot.
    pub(super) const fn begin_again(&mut self) {
        self.overgrown = false;
    }
}

impl Supervisor {
    /// Looks how far each database is behind.
    pub(super) async fn measure(&mut self, holder: &Holder) {
        let soon = self.lag.next.is_some_and(|next| next <= Instant::now() + EACH - SOON);
        let is_due = self.lag.next.is_none_or(|next| next <= Instant::now()) || (soon && self.is_much());
        let databases = self.replication.databases();
        let waits = |database: &Database| {
            local::position(&database.file).is_some_and(|position| position.txid > database.sent)
                || !database.replicated
        };
        self.look_for_untaken(&databases).await;
        let waiting = databases.values().any(waits)
            || self.lag.overgrown
            || self.running.is_empty()
            || self.wholeness.has_suspects();
        if is_due && waiting {
            self.ask(holder, &databases).await;
            if self.lag.overgrown {
                self.empty_logs(&databases).await;
            }
        }
        self.tell();
        self.bound(&databases).await;
        let soon = self.lag.store_down || databases.values().any(|database| !database.replicated);
        if is_due {
            self.lag.next = Some(Instant::now() + if soon { SOON } else { EACH });
        }
    }

    /// So much waits that it matters whether the store is there.
    fn is_much(&self) -> bool {
        let databases = self.replication.databases();
        let backlog: u64 = databases
            .values()
            .map(|database| local::backlog(&database.file, database.sent))
            .sum();
        backlog > MUCH
    }

    /// Asks the store what it has, and whether the place is still ours.
    async fn ask(&mut self, holder: &Holder, databases: &BTreeMap<Vec<u8>, Database>) {
        match self.require_claim(holder).await {
            Ok(()) => {}
            Err(failure) => return self.not_ours(failure).await,
        }
        let (mut first, mut passed) = (Vec::new(), Vec::new());
        for (path, database) in databases {
            if database.run.is_none() {
                continue;
            }
            match self.seen(path, database).await {
                Ok(None) => {}
                Ok(Some(newest)) => {
                    if self.replication.listed(path, newest) {
                        passed.push(path.clone());
                    }
                    // What was there before says nothing of what is there now.
                    if !database.replicated && newest >= database.whole_from && self.goes_on_without_a_gap(database) {
                        first.push(path.clone());
                    }
                }
                Err(error) => return self.down(&with_sources(&error)),
            }
        }
        if std::mem::take(&mut self.lag.store_down) {
            self.wholeness.doubt();
            tracing::info!("the store is back: databases catch up");
            self.rest_no_longer();
            if std::mem::take(&mut self.lag.overgrown) {
                tracing::info!("databases begin again with a fresh snapshot each");
            }
            self.catch_up(databases);
        }
        self.lag.overgrown = false;
        if !passed.is_empty() {
            self.wake(&passed);
        }
        if !first.is_empty()
            && let Err(error) = self.confirm(&first).await
        {
            tracing::warn!("{}", with_sources(&error));
        }
    }

    /// The newest transaction that the store has of a database.
    pub(super) async fn newest(&self, database: &Database) -> Result<Option<Txid>, Error> {
        let replica = Replica {
            store: self.store.as_ref(),
            target: &self.target,
            key: &database.key(),
        };
        replica.newest().await
    }

    pub(super) fn down(&mut self, why: &str) {
        if !self.lag.store_down {
            tracing::warn!("databases can't be sent, and wait on the volume: {why}");
            self.lag.store_down = true;
        }
    }

    /// Litestream waits for up to five minutes after a store that was away; nobody else has to.
    fn catch_up(&self, databases: &BTreeMap<Vec<u8>, Database>) {
        for database in databases.values() {
            if let Some(socket) = self.socket(database) {
                let file = database.file.clone();
                tokio::spawn(async move {
                    // Where this fails, Litestream's own attempt comes later.
                    let _ = control::sync(&socket, &file, true, Duration::from_secs(60)).await;
                });
            }
        }
    }

    /// Databases whose replica was seen for the first time: they leave the files with the next backup.
    async fn confirm(&mut self, first: &[Vec<u8>]) -> Result<(), Failure> {
        for path in first {
            self.replication.change(path, |database| {
                database.replicated = true;
                database.failing = false;
            });
        }
        if let Some(known) = self.registry.take() {
            let next = registered(&known, &self.replication.databases());
            let written = self.keep(&next, known == next).await;
            self.registry = Some(if written.is_ok() { next } else { known });
            written?;
        }
        self.replication.tell();
        self.wake(first);
        Ok(())
    }

    /// Has backups look at these paths.
    fn wake(&self, paths: &[Vec<u8>]) {
        let mut changes = Changes::default();
        for path in paths {
            changes.add(path.clone(), false);
        }
        for inbox in self.shared.inboxes().iter() {
            inbox.changed(changes.clone());
        }
    }

    /// Says how far each database is behind, and has those that are too far saved in the old way too.
    pub(super) fn tell(&self) {
        let mut turned = Vec::new();
        for (path, database) in self.replication.databases() {
            let name = String::from_utf8_lossy(&path).into_owned();
            let position = local::position(&database.file);
            let untaken = self.lag.untaken.get(&path).copied();
            let since = position
                .filter(|position| position.txid > database.sent)
                .and_then(|_| local::waiting_since(&database.file, database.sent))
                .or(untaken);
            let lag = since.map_or(Duration::ZERO, |since| {
                Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default()
            });
            if database.replicated {
                self.shared.metrics.database_lag(&name, lag.as_secs_f64());
            }
            let failing = if database.replicated {
                lag > BEHIND || (database.failing && lag > EACH * 2)
            } else {
                database.since.max(self.replication.turn()).elapsed() > FIRST_REPLICA
            };
            if failing != database.failing {
                if failing {
                    tracing::error!(
                        "the database {} is not replicated ({}): until it is, it is saved once per interval, as at tier 2",
                        database.file.display(),
                        self.last_words(database.profile)
                    );
                } else {
                    tracing::info!("the database {} is replicated again", database.file.display());
                }
                self.replication.change(&path, |database| database.failing = failing);
                turned.push(path);
            }
            let word = match (database.replicated, failing, self.lag.overgrown) {
                (_, _, true) => "stopped",
                (_, true, _) => "failing",
                (true, ..) => "replicated",
                (false, ..) => "starting",
            };
            self.shared.status().databases.insert(
                name,
                DatabaseStatus {
                    status: word.to_owned(),
                    profile: database.profile.to_string(),
                    txid: position
                        .filter(|_| untaken.is_none())
                        .map(|position| position.txid.to_string()),
                    listed: (database.sent.0 > 0).then(|| database.sent.to_string()),
                    lag_seconds: lag.as_secs_f64(),
                    as_of: self.lag.looked,
                },
            );
        }
        if !turned.is_empty() {
            self.wake(&turned);
        }
    }

    /// Looks which databases were written to without that anybody of ours has taken it: whatever Litestream is not started for
    /// yet, and what it does not take though it runs. What a transaction that was taken back has left in a log is nothing to take.
    async fn look_for_untaken(&mut self, databases: &BTreeMap<Vec<u8>, Database>) {
        self.lag.looked = Timestamp::now();
        self.lag.untaken.retain(|path, _| databases.contains_key(path));
        self.lag.taken.retain(|path, _| databases.contains_key(path));
        for (path, database) in databases {
            let is_taken = if !continuity::has_more(&database.file) {
                true
            } else if !self.goes_on_without_a_gap(database) {
                false
            } else if self.lag.taken.get(path).is_some_and(|asked| asked.elapsed() < EACH) {
                continue;
            } else if let Some(socket) = self.socket(database) {
                control::sync(&socket, &database.file, false, SOON).await.is_ok()
            } else {
                false
            };
            if is_taken {
                self.lag.taken.insert(path.clone(), Instant::now());
                self.lag.untaken.remove(path);
            } else {
                self.lag.untaken.entry(path.clone()).or_insert_with(Timestamp::now);
            }
        }
    }

    /// While the store is down, no more than so much piles up.
    async fn bound(&mut self, databases: &BTreeMap<Vec<u8>, Database>) {
        if !self.lag.store_down || self.lag.overgrown {
            self.lag.warned &= self.lag.store_down;
            return;
        }
        for volume in &self.scope.volumes {
            let of_volume = databases.values().filter(|database| database.folder == volume.folder);
            let backlog: u64 = of_volume
                .map(|database| local::backlog(&database.file, database.sent))
                .sum();
            let Some(room) = Room::of(&volume.path) else { continue };
            match room.judge(backlog) {
                Verdict::Fine => {}
                Verdict::Much { most } if self.lag.warned => {
                    tracing::debug!(backlog, most);
                }
                Verdict::Much { most } => {
                    self.lag.warned = true;
                    tracing::warn!(
                        "the store is down, and {} MiB of databases wait on the volume at {}; at {} MiB replication stops, so \
                         that the volume does not fill up",
                        backlog >> 20,
                        volume.path.display(),
                        most >> 20
                    );
                }
                Verdict::TooMuch { most } => {
                    tracing::error!(
                        "the store is down, and {} MiB of databases wait on the volume at {}, of {} MiB that may: replication \
                         stops, and begins again with a fresh snapshot when the store is back. What was written since it went \
                         away is on the volume alone",
                        backlog >> 20,
                        volume.path.display(),
                        most >> 20
                    );
                    return self.give_up(databases).await;
                }
            }
        }
    }

    /// A log that was let go is as long as it was until it is emptied, which an app at work may put off.
    async fn empty_logs(&self, databases: &BTreeMap<Vec<u8>, Database>) {
        for database in databases.values() {
            let log = std::fs::metadata(local::beside(&database.file, crate::agent::database::WAL));
            if log.is_ok_and(|log| log.len() > MUCH) {
                self.empty_log(&database.file).await;
            }
        }
    }

    /// The store is another one: all that it gets is a fresh snapshot of each database, and which ones there are.
    pub(super) async fn begin_anew(&mut self) {
        self.registry = None;
        let databases = self.replication.databases();
        self.let_go_of_logs(&databases).await;
    }

    /// Lets go of every log, and takes away what waits.
    async fn give_up(&mut self, databases: &BTreeMap<Vec<u8>, Database>) {
        self.lag.overgrown = true;
        self.let_go_of_logs(databases).await;
    }

    async fn let_go_of_logs(&mut self, databases: &BTreeMap<Vec<u8>, Database>) {
        self.halt().await;
        for database in databases.values() {
            let (scope, file) = (self.scope.clone(), database.file.clone());
            let emptied = blocking(move || {
                let _turn = scope.turn();
                let forgotten = local::forget(&file);
                // Where the app is at work, its own next checkpoint does it.
                let _ = check::checkpoint(&file);
                forgotten.map_err(|source| Error::Local {
                    what: format!("{} can't be removed", local::folder(&file).display()),
                    source,
                })
            });
            if let Err(error) = emptied.await {
                tracing::error!("{}", with_sources(&error));
            }
        }
    }
}
