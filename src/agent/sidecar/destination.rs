//! One destination, for as long as the pod lives: opens it, backs up what settled, scans each interval, beats its
//! heart, answers requests, and makes the last backup. It degrades, reports and retries; it never gives up by itself.

use super::backup::{Failure, Order, Report, Site};
use super::batch::with_sources;
use super::credentials::Credentials;
use super::inbox::{Ask, Event, Inbox, Progress, Stop, Work};
use super::status::Shared;
use super::volume::Scope;
use crate::agent::arguments::{Percent, QuestionId, QuestionKind, Retention};
use crate::agent::lease::absence::Absence;
use crate::agent::lease::acquire::{self, Claimed};
use crate::agent::lease::beat::Observation;
use crate::agent::lease::check::{Away, Fenced, Lease};
use crate::agent::lease::handover::farewell;
use crate::agent::lease::known::{ClaimedSince, KnownStore, KnownStores};
use crate::agent::prune;
use crate::agent::snapshot::changes::Look;
use crate::agent::snapshot::questions::{self, Reminders};
use crate::agent::start::{Serving, Start, Writing};
use crate::agent::watch::Changes;
use crate::contract::question::Question;
use crate::store::claims;
use crate::store::records::{Request, VERSION, decode, encode};
use crate::store::snapshot::{Kind, SnapshotId};
use crate::store::state::{HEARTBEAT, State};
use crate::store::{Store, keys, served};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

mod absent;
mod arriving;

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
            next_reconcile: Instant::now() + DAILY,
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

    /// Answers everybody who asks that nothing is done here, until the end.
    async fn refuse_all(&self, fenced: &Fenced) {
        let inbox = self.destination.inbox.clone();
        inbox.take_changes();
        inbox.saved();
        loop {
            match inbox.wait(Instant::now() + HEARTBEAT).await {
                Some(Work::Asked(ask)) => self.tell(
                    &ask,
                    Event::Failed {
                        refused: true,
                        why: fenced.to_string(),
                    },
                ),
                Some(Work::Changed(_) | Work::Nudged) => inbox.saved(),
                Some(Work::Final(_)) => return,
                None => {}
            }
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

    /// Whoever asks is told at once why nothing comes of it.
    fn turn_away(&self, failure: &Failure) {
        for ask in self.destination.inbox.take_asks() {
            self.tell(
                &ask,
                Event::Failed {
                    refused: matches!(failure, Failure::Refused(_) | Failure::Fenced(_) | Failure::Waiting(_)),
                    why: with_sources(failure),
                },
            );
        }
    }

    /// Our claim, made now where `init` could not.
    async fn claimed(&mut self) -> Result<Lease, Failure> {
        if let Some(lease) = &self.lease {
            return Ok(lease.clone());
        }
        let Destination {
            store,
            started,
            writing,
            inbox,
            accepted,
            ..
        } = &self.destination;
        let by_init = matches!(writing, Writing::Claimed { .. });
        // A sidecar that is started again holds what it had claimed before.
        let before = self.known.claimed.as_ref();
        if let Some(before) = before.filter(|before| before.start == started.time) {
            let claim = started.claim_of(&before.holder);
            let lease = Lease::new(&claim, before.store_id.clone());
            return Ok(self.holds(lease));
        }
        let accepted: Vec<QuestionId> = accepted.iter().cloned().chain(inbox.accepted()).collect();
        let (known, observation) = (&self.known, &mut self.observation);
        let claimed = acquire::claim(store.as_ref(), started, writing, known, &accepted, observation).await?;
        self.asks(
            QuestionKind::Write,
            match &claimed {
                Claimed::Asks(question) => Some(question),
                _ => None,
            },
        );
        match claimed {
            Claimed::Held(claim) => {
                let lease = Lease::new(&claim, self.known.store_id.clone());
                if !by_init {
                    self.held_since = Instant::now();
                    self.claims(&lease);
                }
                Ok(self.holds(lease))
            }
            Claimed::NotYet(why) => Err(Failure::Waiting(why)),
            Claimed::Asks(question) => Err(Failure::Waiting(question.to_string())),
            Claimed::Away(why) => self.nothing_there(why).await,
            Claimed::Never(why) => Err(Fenced::Never {
                destination: self.name.clone(),
                why,
            }
            .into()),
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

    async fn save(&mut self, changes: Changes) -> Result<(), Failure> {
        // A large file that has kept us waiting for long enough is taken as it is.
        let waited = |later: &Later| later.is_large && later.since.elapsed() >= RESTLESS;
        let restless = (!self.later.values().any(waited)).then_some(self.destination.settle);
        let order = self.order(self.kind(), changes.clone(), restless);
        match self.backup(order).await {
            Ok(report) => {
                self.later
                    .retain(|path, _| report.later.contains(path) || !changes.paths.contains_key(path));
                self.defer(&report.later);
                Ok(())
            }
            Err(failure) => {
                self.give_back(changes, &failure);
                Err(failure)
            }
        }
    }

    /// What was not saved waits: for the store to recover, or, where a guard refused, for something to change.
    fn give_back(&self, changes: Changes, failure: &Failure) {
        if matches!(failure, Failure::Refused(_)) {
            self.destination.inbox.hold(changes);
        } else {
            self.destination.inbox.put_back(changes);
        }
    }

    /// What was left for later comes back: a database when it may be saved again, a large file that never rests after
    /// another time of quiet. Until then it counts as unsaved.
    fn defer(&mut self, later: &[Vec<u8>]) {
        let now = Instant::now();
        let databases = self.site.as_ref().map(|site| &site.databases);
        for path in later {
            let saved = databases.and_then(|databases| databases.get(path));
            let due = match saved {
                Some(saved) => Instant::from_std(*saved) + self.destination.interval,
                None => now + self.destination.settle,
            };
            let is_large = saved.is_none();
            self.later
                .entry(path.clone())
                .or_insert(Later {
                    due,
                    since: now,
                    is_large,
                })
                .due = due;
        }
        if self.later.is_empty() {
            self.destination.inbox.saved();
        }
    }

    /// What was left for later and is due now.
    async fn due(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let mut changes = Changes::default();
        for (path, later) in &self.later {
            if later.due <= now {
                changes.add(path.clone(), false);
            }
        }
        self.save(changes).await
    }

    async fn scan(&mut self) -> Result<(), Failure> {
        self.next_scan = Instant::now() + self.destination.interval;
        if self.next_reconcile <= Instant::now()
            && let Some(renewal) = self.site.as_ref().map(|site| self.renewal(&site.lease.holder))
            && let Some(site) = &mut self.site
        {
            self.next_reconcile = Instant::now() + DAILY;
            renewal.during(site.delete_again()).await?;
            for warning in renewal.during(site.reconcile()).await? {
                tracing::warn!(destination = %self.name, "{warning}");
            }
        }
        let taken = self.destination.inbox.take_changes();
        let order = self.order(self.kind(), everything(), Some(self.destination.settle));
        match self.backup(order).await {
            Ok(report) => {
                self.later.retain(|path, _| report.later.contains(path));
                self.defer(&report.later);
                self.prune().await
            }
            Err(failure) => {
                self.give_back(taken, &failure);
                if !matches!(failure, Failure::Refused(_)) {
                    // What it would have found is not lost: it is looked for again as soon as the store is back.
                    self.next_scan = Instant::now();
                }
                Err(failure)
            }
        }
    }

    /// What the owner does not want kept any more goes: thoroughly at first and once a day, else only where there is
    /// something new.
    async fn prune(&mut self) -> Result<(), Failure> {
        let Some(renewal) = self.site.as_ref().map(|site| self.renewal(&site.lease.holder)) else {
            return Ok(());
        };
        let Some(site) = &mut self.site else { return Ok(()) };
        let last = site.known.last();
        let thoroughly = self.next_thorough <= Instant::now();
        if !thoroughly && (last == self.pruned || site.deletions.are_refused()) {
            return Ok(());
        }
        let look = if thoroughly {
            prune::Look::Thoroughly
        } else {
            prune::Look::Lightly
        };
        let store = self.destination.store.clone();
        if thoroughly {
            let claims = claims::list(store.as_ref()).await?;
            site.lease.check_in(store.as_ref(), &claims).await?;
            // Old by the bucket's rules is what is never written again.
            site.lease.write_again(store.as_ref()).await?;
            let outlived: Vec<String> = claims::outlived(&claims)
                .iter()
                .filter_map(|claim| claim.key().strip_prefix("claims/").map(str::to_owned))
                .collect();
            if !outlived.is_empty() {
                site.deletions.delete(store.as_ref(), keys::CLAIMS, &outlived).await?;
            }
        }
        let (retention, before) = (&self.destination.retention, site.pruning.as_ref());
        let prune = prune::prune(store.as_ref(), retention, look, Timestamp::now(), before);
        let pruned = renewal.during(async { Ok(prune.await?) }).await?;
        site.deletions.note(&pruned.undone);
        site.pruning.clone_from(&pruned.pruning);
        if let Some(replication) = &self.destination.scope.replication {
            replication.keep(pruned.kept());
        }
        if thoroughly {
            self.next_thorough = Instant::now() + DAILY;
        }
        self.pruned = last;
        Ok(())
    }

    async fn asked(&mut self, ask: Ask) -> Result<(), Failure> {
        self.tell(&ask, Event::Started);
        let taken = self.destination.inbox.take_changes();
        let mut order = self.order(ask.kind, everything(), None);
        order.always = ask.kind == Kind::Manual;
        order.accepted.extend(ask.accepted.iter().cloned());
        order.rest = Duration::ZERO;
        match self.backup(order).await {
            Ok(report) => {
                self.later.clear();
                self.destination.inbox.saved();
                let snapshot = self.site.as_ref().and_then(|site| site.known.last());
                self.tell(&ask, Event::of(&report, snapshot));
                Ok(())
            }
            Err(failure) => {
                self.give_back(taken, &failure);
                self.tell(
                    &ask,
                    Event::Failed {
                        refused: matches!(failure, Failure::Refused(_) | Failure::Fenced(_)),
                        why: with_sources(&failure),
                    },
                );
                Err(failure)
            }
        }
    }

    fn tell(&self, ask: &Ask, event: Event) {
        // Whoever asked may have gone away; the backup is made all the same.
        let _ = ask.progress.send(Progress {
            version: VERSION,
            destination: self.name.clone(),
            event,
        });
    }

    /// The pod is being stopped: whoever comes next had better wait for the last backup.
    async fn stopping(&mut self) -> Result<(), Failure> {
        if self.is_stopping {
            return Ok(());
        }
        if let Some(site) = &self.site {
            site.require_claim().await?;
        }
        self.is_stopping = true;
        self.beat(Hold::Held).await
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

    fn kind(&self) -> Kind {
        if self.serving.is_some() {
            Kind::Restored
        } else {
            Kind::Auto
        }
    }

    fn order(&self, kind: Kind, changes: Changes, restless: Option<Duration>) -> Order {
        // Of the annotation: looked for with the first full scan.
        let accepted = if changes.everything {
            self.answers.clone()
        } else {
            Vec::new()
        };
        Order {
            kind,
            look: Look {
                changes,
                resting: Vec::new(),
                restless,
            },
            always: self.serving.is_some(),
            most: self.destination.max_shrink,
            accepted,
            restored: self.serving.as_ref().map(|serving| serving.snapshot),
            rest: self.destination.interval,
            patience: PATIENCE,
        }
    }

    async fn backup(&mut self, order: Order) -> Result<Report, Failure> {
        let begun = Instant::now();
        let Some(renewal) = self.site.as_ref().map(|site| self.renewal(&site.lease.holder)) else {
            return Ok(Report::default());
        };
        let Some(site) = &mut self.site else {
            return Ok(Report::default());
        };
        let (kind, full) = (order.kind, order.look.changes.everything);
        let report = renewal.during(site.backup(order)).await?;
        let last = site.known.last();
        if full {
            self.answers.clear();
        }
        self.said = None;
        self.last_success = Some(Timestamp::now());
        self.destination.inbox.saved();
        self.destination
            .shared
            .succeeded(&self.name, &report, last, begun.elapsed());
        if full {
            self.destination.shared.skipped(&self.name, &report);
        }
        for warning in report.warnings.iter().chain(&report.remarks) {
            tracing::warn!(destination = %self.name, "{warning}");
        }
        self.remind(&report.questions);
        if let Some(id) = report.snapshot {
            tracing::info!(
                destination = %self.name,
                snapshot = %id,
                uploaded = report.uploaded,
                bytes = report.uploaded_bytes,
                deleted = report.deleted,
                files = report.totals.files,
                took = ?begun.elapsed(),
                "saved"
            );
            self.served().await?;
            if kind != Kind::Final {
                self.beat(Hold::Held).await?;
            }
        }
        Ok(report)
    }

    /// Says what stands, when it is time.
    fn remind(&mut self, questions: &[Question]) {
        for question in self.reminders.due(questions, Instant::now()) {
            if question.id.kind() == Some(QuestionKind::Hold) {
                tracing::error!(destination = %self.name, "{question}");
            } else {
                tracing::warn!(destination = %self.name, "{question}");
            }
        }
    }

    /// The state that a restore-at value asked for is a snapshot now: it is never served again.
    async fn served(&mut self) -> Result<(), Failure> {
        if let Some(serving) = &self.serving {
            served::record(self.destination.store.as_ref(), &serving.value, serving.snapshot).await?;
            self.serving = None;
        }
        Ok(())
    }

    /// With other settings than before, what answers has to be our place before it is written to.
    async fn recognise(&mut self) -> Result<(), Failure> {
        if let (Some(news), Some(site)) = (self.destination.credentials.news(), &self.site) {
            let store = self.destination.store.as_ref();
            site.lease.check(store).await?;
            self.destination.credentials.know(news);
        }
        Ok(())
    }

    /// Once a minute: we are here, nobody has taken over, and whoever left a request is served. One call.
    async fn pulse(&mut self) -> Result<(), Failure> {
        self.next_heartbeat = Instant::now() + HEARTBEAT;
        self.recognise().await?;
        let (Some(state), Some(site)) = (self.state(Hold::Held), &self.site) else {
            return Ok(());
        };
        let store = self.destination.store.clone();
        let found = store
            .exchange(keys::STATE, &encode(&state), &[keys::CLAIMS, keys::REQUESTS])
            .await?;
        let names = |folder| {
            found
                .keys()
                .filter(move |(found, _)| found == folder)
                .map(|(_, name)| name.as_str())
        };
        let claims =
            claims::in_order(names(keys::CLAIMS)).map_err(|damage| damage.of(self.name.clone(), keys::CLAIMS))?;
        site.lease.check_in(store.as_ref(), &claims).await?;
        let standing = questions::standing(&site.known.holds(), site.known.tally());
        self.remind(&standing);
        if let Some(replication) = &self.destination.scope.replication {
            replication.confirm();
        }
        self.destination.shared.metrics.store_up(&self.name, true);
        for ((folder, name), content) in &found {
            if let Some(id) = name.strip_suffix(".json").filter(|_| folder == keys::REQUESTS) {
                self.request(id, content).await?;
            }
        }
        Ok(())
    }

    /// Serves a request, once; one that is old is taken away.
    async fn request(&mut self, id: &str, content: &[u8]) -> Result<(), Failure> {
        let key = keys::request(id);
        let mut request: Request = match decode(content) {
            Ok(request) => request,
            Err(damage) => {
                self.say(&format!("{key} is no request that can be read: {damage}"));
                return Ok(());
            }
        };
        let store = self.destination.store.clone();
        if Timestamp::now().duration_since(request.time) > REQUEST_EXPIRES {
            let names = [format!("{id}.json")];
            if let Some(site) = &mut self.site
                && !site.deletions.are_refused()
            {
                site.deletions.delete(store.as_ref(), keys::REQUESTS, &names).await?;
            }
            return Ok(());
        }
        if request.answer.is_none() {
            if let Some(site) = &mut self.site
                && site.save_anew(&request.damaged).await? > 0
            {
                let count = request.damaged.len();
                tracing::warn!(destination = %self.name, "{key} found {count} files damaged: they are saved anew");
            }
            let event = self.requested(&request).await;
            request.answer = serde_json::to_value(event).ok();
            store.write(&key, &encode(&request)).await?;
        }
        Ok(())
    }

    async fn requested(&mut self, request: &Request) -> Event {
        let (progress, mut lines) = mpsc::unbounded_channel();
        let ask = Ask {
            kind: if request.manual { Kind::Manual } else { Kind::Scheduled },
            accepted: QuestionId::of_list(request.accept.as_deref()),
            progress,
        };
        // Its failure is in the answer, and is met again with the next attempt.
        let _ = self.asked(ask).await;
        let mut last = Event::Started;
        while let Ok(progress) = lines.try_recv() {
            last = progress.event;
        }
        last
    }

    /// The summary of the place.
    async fn beat(&mut self, hold: Hold) -> Result<(), Failure> {
        self.next_heartbeat = Instant::now() + HEARTBEAT;
        self.recognise().await?;
        let Some(state) = self.state(hold) else {
            return Ok(());
        };
        Ok(self.destination.store.write(keys::STATE, &encode(&state)).await?)
    }

    fn state(&self, hold: Hold) -> Option<State> {
        let site = self.site.as_ref()?;
        let totals = site.known.totals();
        Some(State {
            version: VERSION,
            epoch: site.lease.holder.epoch,
            volume_id: site.lease.holder.volume_id.clone(),
            pod: self.destination.started.pod.clone(),
            owner: Some(self.destination.started.owner.clone()),
            heartbeat: Timestamp::now(),
            released: hold != Hold::Held,
            stopping: self.is_stopping && hold == Hold::Held,
            last: site.known.last(),
            last_success: self.last_success,
            owed: match hold {
                Hold::Held => self.destination.inbox.owes(),
                Hold::Released => false,
                Hold::Owing => true,
            },
            files: totals.files,
            bytes: totals.bytes,
            beside: site.beside,
            pruning: site.pruning.clone(),
            ..State::default()
        })
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
