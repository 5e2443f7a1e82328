//! One destination, for as long as the pod lives: opens it, backs up what settled, scans each interval, beats its
//! heart, answers requests, and makes the last backup. It degrades, reports and retries; it never gives up by itself.

use super::backup::{Failure, Site};
use super::batch::with_sources;
use super::credentials::Credentials;
use super::inbox::{Inbox, Stop, Work};
use super::status::Shared;
use super::volume::Scope;
use crate::agent::arguments::{Percent, QuestionId, Retention};
use crate::agent::lease::absence::Absence;
use crate::agent::lease::beat::Observation;
use crate::agent::lease::check::{Away, Fenced, Lease};
use crate::agent::lease::handover::farewell;
use crate::agent::lease::known::{KnownStore, KnownStores};
use crate::agent::snapshot::questions::Reminders;
use crate::agent::start::{Serving, Start, Writing};
use crate::agent::watch::Changes;
use crate::store::Store;
use crate::store::snapshot::{Kind, SnapshotId};
use crate::store::state::HEARTBEAT;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

mod absent;
mod arriving;
mod asking;
mod beating;
mod saving;

/// After the first failure; doubled with each more.
const FIRST_REST: Duration = Duration::from_secs(1);
/// Never longer than this.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// A locked database is waited for at most this long, and less when the pod is being stopped.
const PATIENCE: Duration = Duration::from_secs(10);
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// What a large file that never rests is given instead of the usual settling.
const RESTLESS: Duration = Duration::from_secs(30);

/// The mirror's listing is compared with what is known of it, and the place thoroughly pruned.
const DAILY: Duration = Duration::from_secs(24 * 3600);
/// A request that nobody came back for.
const REQUEST_EXPIRES: SignedDuration = SignedDuration::from_hours(1);

/// What one destination needs to know.
pub struct Destination {
    /// The destination.
    pub store: Arc<dyn Store>,
    /// The other ones, to be read.
    pub elsewhere: Vec<Arc<dyn Store>>,
    /// Whether, and how, we may write there.
    pub writing: Writing,
    /// What `init` has left.
    pub started: Arc<Start>,
    /// What is backed up.
    pub scope: Arc<Scope>,
    /// A folder of its own.
    pub scratch: PathBuf,
    /// Its settings.
    pub credentials: Credentials,
    /// What it has yet to do.
    pub inbox: Arc<Inbox>,
    /// What is said of it.
    pub shared: Arc<Shared>,
    /// Between two full scans.
    pub interval: Duration,
    /// How long files must be quiet.
    pub settle: Duration,
    /// How much may vanish.
    pub max_shrink: Percent,
    /// Questions that are answered by yes.
    pub accepted: Vec<QuestionId>,
    /// What is kept.
    pub retention: Retention,
    /// The folder that the pod's containers share.
    pub restore_dir: PathBuf,
}

/// Why nothing more is done here.
enum End {
    /// The last backup was made, or could not be.
    Stopped,
    Fenced(Fenced),
}

/// How the place is held, as the summary says it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// By us.
    Held,
    /// Not any more: the last backup is made.
    Released,
    /// Not any more, though changes are on the volume that no snapshot has.
    Owing,
}

/// Something that was left for later.
struct Later {
    due: Instant,
    /// When it was first left.
    since: Instant,
    /// A file that is too large to be taken while it is written; else a database that was saved a moment ago.
    is_large: bool,
}

/// A destination at work.
pub struct Worker {
    destination: Destination,
    name: String,
    lease: Option<Lease>,
    /// What is known of the store, whatever it shows now.
    known: KnownStore,
    /// What was seen of whoever held the place before us.
    observation: Observation,
    /// Since when what answers is not the store that was here.
    absence: Option<Absence>,
    /// Since when we have worked for the place, as far as we know.
    held_since: Instant,
    /// When what a writer before us may have sent late is looked for.
    looks_back: Vec<Instant>,
    site: Option<Site>,
    /// A restore-at value whose result has yet to be published.
    serving: Option<Serving>,
    failures: u32,
    next_scan: Instant,
    next_heartbeat: Instant,
    next_reconcile: Instant,
    next_thorough: Instant,
    /// The newest snapshot when the place was last pruned.
    pruned: Option<SnapshotId>,
    later: BTreeMap<Vec<u8>, Later>,
    reminders: Reminders,
    /// Answers of the annotation that were not looked at yet.
    answers: Vec<QuestionId>,
    is_stopping: bool,
    last_success: Option<Timestamp>,
    said: Option<String>,
}

impl Worker {
    /// A destination that is yet to be opened.
    #[must_use]
    pub fn new(destination: Destination) -> Self {
        let name = destination.store.destination();
        let known = KnownStores::read(&destination.restore_dir).of(&name);
        // What was restored a moment ago was there; of what was kept, nobody knows whether the store has it still, and the volume
        // may be lost before the day is over.
        let is_kept = destination
            .started
            .volumes
            .iter()
            .any(|volume| volume.restored.is_none());
        Self {
            name,
            lease: None,
            known,
            observation: Observation::default(),
            absence: None,
            held_since: Instant::now(),
            looks_back: Vec::new(),
            site: None,
            serving: destination.started.serving.clone(),
            failures: 0,
            next_scan: Instant::now(),
            next_heartbeat: Instant::now() + HEARTBEAT,
            next_reconcile: Instant::now() + if is_kept { Duration::ZERO } else { DAILY },
            next_thorough: Instant::now(),
            pruned: None,
            later: BTreeMap::new(),
            reminders: Reminders::default(),
            answers: destination.accepted.clone(),
            is_stopping: false,
            last_success: None,
            said: None,
            destination,
        }
    }

    /// Works until the pod is stopped.
    pub async fn run(mut self) {
        let shared = self.destination.shared.clone();
        shared.destination(&self.name, |status| {
            "opening".clone_into(&mut status.phase);
        });
        match self.work().await {
            End::Stopped => {}
            End::Fenced(fenced) => {
                tracing::error!("{fenced}");
                if let Some(replication) = &self.destination.scope.replication {
                    replication.fence();
                }
                shared.fenced(&self.name, fenced.to_string());
                self.part(&fenced).await;
                self.refuse_all(&fenced).await;
            }
        }
    }

    /// Whoever has taken the place over need not wait for us any more. Where databases are replicated it does, until what does
    /// that has ended.
    async fn part(&self, fenced: &Fenced) {
        let is_alone = self.destination.scope.replication.is_none();
        if let (Fenced::TakenOver { ours, .. }, true) = (fenced, is_alone) {
            farewell(self.destination.store.as_ref(), ours, self.destination.inbox.owes()).await;
        }
    }

    async fn work(&mut self) -> End {
        loop {
            // However busy we are, signals and questions have their turn.
            tokio::task::yield_now().await;
            let stop = self.destination.inbox.stopping();
            if let Err(failure) = self.ready().await {
                self.turn_away(&failure);
                match self.failed(failure, stop).await {
                    Some(end) => return end,
                    None => continue,
                }
            }
            let later = self.later.values().map(|later| later.due).min();
            let until = self.next_scan.min(self.next_heartbeat);
            let back = self.looks_back.first().copied();
            let until = back.map_or(until, |back| back.min(until));
            let until = later.map_or(until, |later| later.min(until));
            let result = match self.destination.inbox.wait(until).await {
                Some(Work::Final(stop)) => match self.last(stop).await {
                    Ok(()) => return End::Stopped,
                    Err(failure) => Err(failure),
                },
                Some(Work::Changed(changes)) => self.save(changes).await,
                Some(Work::Asked(ask)) => self.asked(ask).await,
                Some(Work::Nudged) => self.stopping().await,
                None if back.is_some_and(|back| Instant::now() >= back) => self.look_back().await,
                None if Instant::now() >= self.next_scan => self.scan().await,
                None if later.is_some_and(|later| Instant::now() >= later) => self.due().await,
                None => self.pulse().await,
            };
            self.tell_refused();
            match result {
                Ok(()) => self.failures = 0,
                Err(failure) => {
                    let stop = self.destination.inbox.stopping();
                    if let Some(end) = self.failed(failure, stop).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Reports a failure and waits before the next attempt; the end, if there is no next.
    async fn failed(&mut self, failure: Failure, stop: Option<Stop>) -> Option<End> {
        let shared = self.destination.shared.clone();
        let waits = matches!(failure, Failure::Waiting(_));
        match failure {
            Failure::Fenced(fenced) => return Some(End::Fenced(fenced)),
            Failure::Refused(refusal) => {
                shared.refused(&self.name, &refusal);
                self.say(&refusal.to_string());
                // Looked at again with the next change or scan: it is not the store that has to recover.
                self.failures = 0;
                stop?;
                self.release_owing().await;
                return Some(End::Stopped);
            }
            other => {
                let store = matches!(other, Failure::Store(_) | Failure::Undone { .. } | Failure::Away(_));
                let why = with_sources(&other);
                if let Failure::Away(_) = other {
                    self.is_away();
                }
                shared.failed(&self.name, why.clone(), store);
                self.say(&why);
            }
        }
        self.failures += 1;
        let rest = if waits { LONGEST_REST } else { backoff(self.failures) };
        match stop {
            Some(_) if waits => Some(End::Stopped),
            Some(stop) if Instant::now() + rest.min(FIRST_REST) >= stop.deadline => {
                tracing::error!(
                    destination = %self.name,
                    "the last backup could not be made before the grace period ends: what was not saved is on the volume alone"
                );
                Some(End::Stopped)
            }
            Some(_) => {
                tokio::time::sleep(rest.min(FIRST_REST)).await;
                None
            }
            None => {
                self.destination.inbox.rest(Instant::now() + rest).await;
                None
            }
        }
    }

    /// No last backup is to come: whoever comes next need not wait for it, and is told that one is owed.
    async fn release_owing(&mut self) {
        match self.beat(Hold::Owing).await {
            Ok(()) => tracing::error!(
                destination = %self.name,
                "the last backup was refused, and the place is released without it: what was not saved is on the volume alone"
            ),
            Err(failure) => tracing::error!(
                destination = %self.name,
                "the last backup was refused, and the place could not be released, so the next pod waits until this one has been silent for three minutes: {}",
                with_sources(&failure)
            ),
        }
    }

    /// Deletions that the store refuses are said once.
    fn tell_refused(&mut self) {
        let Some(site) = &mut self.site else { return };
        let news = site.deletions.news(&self.name);
        if let Some(news) = &news {
            tracing::warn!(destination = %self.name, "{news}");
        }
        if news.is_some() || !site.deletions.are_refused() {
            self.destination
                .shared
                .destination(&self.name, |status| status.undeleted = news);
        }
    }

    /// Says a thing once, not with every attempt.
    fn say(&mut self, what: &str) {
        if self.said.as_deref() != Some(what) {
            tracing::error!(destination = %self.name, "{what}");
            self.said = Some(what.to_owned());
        }
    }

    /// Everything, at once, whatever is young; then the place is released.
    async fn last(&mut self, stop: Stop) -> Result<(), Failure> {
        self.stopping().await?;
        self.destination.inbox.take_changes();
        let mut order = self.order(Kind::Final, everything(), None);
        order.rest = Duration::ZERO;
        let left = stop.deadline.saturating_duration_since(Instant::now());
        order.patience = LAST_PATIENCE.min(left / 2);
        let report = self.backup(order).await?;
        if report.stuck > 0 {
            self.beat(Hold::Owing).await?;
            tracing::error!(
                destination = %self.name,
                "the last backup is made, but for {} files that the store does not take, or of which it can't keep what it has: as \
                 they are now, they are on the volume alone",
                report.stuck
            );
            return Ok(());
        }
        self.beat(Hold::Released).await?;
        let snapshot = self.site.as_ref().and_then(|site| site.known.last());
        tracing::info!(
            destination = %self.name,
            snapshot = snapshot.map(|id| id.to_string()),
            uploaded = report.uploaded,
            "the last backup is made: nothing is owed"
        );
        Ok(())
    }
}

fn everything() -> Changes {
    Changes {
        everything: true,
        ..Changes::default()
    }
}

/// Doubled with each failure, and scattered by up to a half, so that many pods don't come back in step.
fn backoff(failures: u32) -> Duration {
    let doubled = FIRST_REST
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(LONGEST_REST);
    // The clock's nanoseconds are as good as dice here.
    let dice = f64::from(Timestamp::now().subsec_nanosecond().unsigned_abs() % 1_000_000) / 1_000_000.0;
    doubled.mul_f64(0.5 + dice / 2.0)
}

#[cfg(test)]
mod tests;
