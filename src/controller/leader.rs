//! The leader's loop: what the watches show goes into small maps, what follows from it is done by a few futures at a
//! time, and what they come to goes into the maps again. One task owns all of it; nothing is locked.

use super::catch_up::{self, CatchUp, Touched, touch};
use super::events::News;
use super::key::{Key, Regarding};
use super::known::Known;
use super::metrics::{Ending, Metrics};
use super::places::Places;
use super::pods::{About, PodKey, Pods, outdated};
use super::questions::{Questions, Seat, Telling, Voice, voice};
use super::queue::Queue;
use super::reconcile::{Context, Error, Outcome, State, reconcile};
use super::record::{Records, keep_all};
use super::round::{Heard, Target, ask_all};
use super::runs::Runs;
use super::watch::{Change, Seen, watch};
use super::{presync, restore, slim};
use crate::admission::Readiness;
use crate::agent::arguments::QuestionId;
use crate::contract::record::Record;
use crate::inject::CompanionKind;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use kube::Api;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// So often, and so many times, a StatefulSet is asked for its new revision.
const REVISION: (Duration, u32) = (Duration::from_secs(1), 10);

/// What one future came to.
enum Done {
    Looked(Key, Result<Outcome, Error>),
    Touched(Key, u64, Touched),
    Asked(Vec<Heard>),
    Recorded(Vec<(Regarding, Option<Record>)>),
    /// It could not be told.
    Untold(Seat, QuestionId),
    Told,
}

/// What the leader knows, and does.
pub(super) struct Leader {
    context: Arc<Context>,
    selector: Option<String>,
    readiness: Arc<Readiness>,
    metrics: Metrics,
    status_interval: Duration,
    known: Known,
    queue: Queue,
    places: Places,
    pods: Pods,
    runs: Runs,
    questions: Questions,
    records: Records,
    catch_up: CatchUp,
    next_round: Instant,
    is_asking: bool,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Leader {
    pub(super) fn new(
        context: Arc<Context>,
        selector: Option<String>,
        readiness: Arc<Readiness>,
        metrics: Metrics,
        status_interval: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            context,
            selector,
            readiness,
            metrics,
            status_interval,
            known: Known::default(),
            queue: Queue::default(),
            places: Places::default(),
            pods: Pods::default(),
            runs: Runs::default(),
            questions: Questions::default(),
            records: Records::new(status_interval),
            catch_up: CatchUp::new(now),
            next_round: now + status_interval,
            is_asking: false,
            work: FuturesUnordered::new(),
        }
    }

    /// Leads. Never ends by itself: who lost the Lease drops this.
    pub(super) async fn lead(mut self) {
        let mut seen = watch(&self.context.client, self.selector.as_deref());
        loop {
            let next = self.begin(Instant::now());
            tokio::select! {
                Some(seen) = seen.next() => self.see(seen),
                Some(done) = self.work.next() => self.finish(done),
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Begins what is due. Says when something is due next.
    fn begin(&mut self, now: Instant) -> Instant {
        let mut next = self.next_round.max(now + Duration::from_millis(10));
        if self.known.is_complete() {
            while let Some(key) = self.queue.take(now) {
                if !self.known.is_watched(&key) {
                    // It is gone, and what it owned goes with it; or it is another controller's.
                    self.queue.done(&key, true, now);
                    self.catch_up.forget(&key);
                    self.places.set(&key, Vec::new());
                    self.questions.forget(&key);
                    self.records.forget(&key);
                    continue;
                }
                let context = self.context.clone();
                let companions = self.known.companions(&key);
                self.work.push(
                    async move {
                        let outcome = reconcile(&context, &key, companions).await;
                        Done::Looked(key, outcome)
                    }
                    .boxed(),
                );
            }
            next = self.queue.next().map_or(next, |due| next.min(due));
        }
        self.begin_touch(now);
        next = self.catch_up.due().map_or(next, |due| next.min(due));
        if now >= self.next_round {
            self.next_round = now + self.status_interval;
            self.begin_round();
        }
        next
    }

    fn begin_touch(&mut self, now: Instant) {
        // Without a webhook that is trusted, a touch would be in vain.
        if self.catch_up.due().is_some_and(|due| due <= now) && self.readiness.check().is_err() {
            self.catch_up.postpone(now);
            return;
        }
        let Some(key) = self.catch_up.take(now) else {
            return;
        };
        let Some(workload) = self.known.workload(&key) else {
            return;
        };
        let fingerprint = workload.fingerprint;
        let context = self.context.clone();
        self.work.push(
            async move {
                let touched = touch(&context, &key).await;
                Done::Touched(key, fingerprint, touched)
            }
            .boxed(),
        );
    }

    /// Asks every sidecar what it says of itself.
    fn begin_round(&mut self) {
        if self.is_asking {
            return;
        }
        let targets = self.pods.iter().filter_map(|((_, pod), injected)| {
            Some(Target {
                pod: pod.clone(),
                injected: injected.clone(),
                regarding: self.regarding(&injected.workload)?,
            })
        });
        let targets = targets.collect();
        self.is_asking = true;
        let context = self.context.clone();
        let round = async move { Done::Asked(ask_all(&context, targets).await) };
        self.work.push(round.boxed());
    }

    /// What came of a round.
    fn hear(&mut self, heard: Vec<Heard>, now: Instant) {
        let mut voices = Vec::with_capacity(heard.len());
        for Heard { target, status } in heard {
            voices.push(voice(&target.pod, &target.injected, status.as_ref()));
            if let Some(status) = status {
                self.records.hear(&target.regarding, status.places());
            }
        }
        self.hear_runs(&mut voices);
        for telling in self.questions.hear(voices, now) {
            match self.regarding(&telling.seat.workload) {
                Some(regarding) => self.ask_owner(regarding, telling),
                None => self.questions.untold(&telling.seat, &telling.id),
            }
        }
        self.metrics.questions(self.questions.by_kind());
        let time = Timestamp::now();
        let looks = self.records.due(now, time);
        if !looks.is_empty() {
            let context = self.context.clone();
            let keeping = async move { Done::Recorded(keep_all(&context, looks, time).await) };
            self.work.push(keeping.boxed());
        }
    }

    /// What the newest runs of CronJobs say, where there is no sidecar that would.
    fn hear_runs(&mut self, voices: &mut Vec<Voice>) {
        let owner = |known: &Known, (namespace, name): &(String, String)| {
            known.owner(CompanionKind::CronJob, namespace, name).cloned()
        };
        self.runs.retain(|cron_job| owner(&self.known, cron_job).is_some());
        let pods = self.pods.iter().map(|(_, injected)| injected);
        let with_sidecar: HashSet<&Key> = pods
            .filter(|injected| injected.has_sidecar)
            .map(|injected| &injected.workload)
            .collect();
        for (cron_job, run) in self.runs.iter() {
            let workload = owner(&self.known, cron_job);
            if let Some(workload) = workload.filter(|workload| !with_sidecar.contains(&workload.key)) {
                voices.push(Voice::of_run(&workload.key, run));
                self.records.hear(&workload, run.places.clone());
            }
        }
    }

    fn ask_owner(&mut self, regarding: Regarding, telling: Telling) {
        let context = self.context.clone();
        let asking = async move {
            let Telling { seat, id, news, times } = telling;
            if context.teller.tell_again(&regarding, &news, times).await {
                Done::Told
            } else {
                Done::Untold(seat, id)
            }
        };
        self.work.push(asking.boxed());
    }

    fn see(&mut self, seen: Seen) {
        let worth_a_look = match seen {
            Seen::Workload(kind, change) => {
                let keys = self.known.see_workload(kind, change);
                if !keys.is_empty() {
                    self.metrics.workloads(self.known.tiers());
                }
                keys
            }
            Seen::Companion(kind, change) => self.known.see_companion(kind, change),
            Seen::Job(change) => self.see_job(change),
            Seen::Pod(change) => {
                let stuck = match &change {
                    Change::Found(pod) => Some(pod.metadata.clone()),
                    _ => None,
                };
                let about = self.pods.see(change);
                self.tell_about(about);
                if let Some(metadata) = stuck {
                    let key = (
                        metadata.namespace.unwrap_or_default(),
                        metadata.name.unwrap_or_default(),
                    );
                    self.examine(&key);
                }
                Vec::new()
            }
            Seen::JobPod(change) => {
                self.runs.see(&change);
                if let Change::Found(pod) = &change
                    && let Some(failure) = presync::failure(pod)
                {
                    self.tell_job(failure);
                }
                Vec::new()
            }
            Seen::Mount(change) => {
                let about = self.pods.see_mount(change);
                self.tell_about(about);
                Vec::new()
            }
        };
        for key in worth_a_look {
            self.queue.add(&key, Instant::now());
        }
    }

    fn see_job(&mut self, change: Change<slim::Job>) -> Vec<Key> {
        if let Change::Found(job) = &change
            && let Some(ended) = restore::ended(job, Timestamp::now())
        {
            let context = self.context.clone();
            self.work.push(
                async move {
                    let news = ended.news(&context.client).await;
                    context.teller.tell(&ended.workload, news).await;
                    Done::Told
                }
                .boxed(),
            );
        }
        let change = match change {
            Change::Listing => Change::Listing,
            Change::Found(job) => Change::Found(job.metadata),
            Change::Listed => Change::Listed,
            Change::Gone(job) => Change::Gone(job.metadata),
        };
        self.known.see_companion(CompanionKind::RestoreJob, change)
    }

    fn tell_job(&mut self, failure: presync::Failure) {
        let context = self.context.clone();
        self.work.push(
            async move {
                if let Err(error) = failure.tell(&context.client).await {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(
                        error,
                        "a PreSync Job ends without its reason: it stands in its pod's log alone"
                    );
                }
                Done::Told
            }
            .boxed(),
        );
    }

    fn finish(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Told => {}
            Done::Asked(heard) => {
                self.is_asking = false;
                self.hear(heard, now);
            }
            Done::Untold(seat, id) => self.questions.untold(&seat, &id),
            Done::Recorded(kept) => {
                for (workload, record) in kept {
                    self.records.looked(&workload, record);
                }
            }
            Done::Looked(key, Ok(outcome)) => {
                self.queue.done(&key, true, now);
                self.take_in(&key, outcome, now);
            }
            Done::Looked(key, Err(error)) => {
                self.metrics.looked(Ending::Failed);
                let wait = self.queue.done(&key, false, now).unwrap_or_default();
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "{key}: trying again in {} s", wait.as_secs());
            }
            Done::Touched(key, fingerprint, touched) => {
                if let Some(wait) = self.catch_up.done(&key, fingerprint, &touched) {
                    self.queue.add(&key, now + wait);
                }
                match touched {
                    Touched::Seen => tracing::info!("{key}: the webhook had not seen it, and was asked"),
                    Touched::Unseen => tracing::debug!("{key}: the webhook is not asked about it"),
                    Touched::Refused(message) => self.tell_about(vec![(key, catch_up::refused(&message))]),
                    Touched::Failed(why) => tracing::warn!("{key}: the webhook could not be asked: {why}"),
                }
            }
        }
    }

    fn take_in(&mut self, key: &Key, outcome: Outcome, now: Instant) {
        let Outcome {
            state,
            uid,
            places,
            applied,
            removed,
            changed,
            again,
        } = outcome;
        self.metrics
            .looked(if changed { Ending::Changed } else { Ending::Unchanged });
        for (kind, metadata) in &applied {
            self.known.applied(*kind, metadata);
        }
        for kind in removed {
            self.known.removed(kind, key);
        }
        if let Some(wait) = again {
            self.queue.add(key, now + wait);
        }
        if matches!(state, State::Gone | State::Plain) {
            self.questions.forget(key);
            // What there is stays until the workload goes; who removes it then gets none again.
            self.records.forget(key);
        }
        let fingerprint = self.known.workload(key).map(|workload| workload.fingerprint);
        match (state, fingerprint) {
            (State::Unseen, Some(fingerprint)) => self.catch_up.add(key, fingerprint),
            _ => self.catch_up.forget(key),
        }
        self.tell_shared_places(&Regarding { key: key.clone(), uid }, places);
        let stuck: Vec<PodKey> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.workload == *key && pod.stuck.is_some())
            .map(|(pod, _)| pod.clone())
            .collect();
        for pod in stuck {
            self.examine(&pod);
        }
    }

    fn tell_shared_places(&mut self, workload: &Regarding, places: Vec<String>) {
        for (other, place) in self.places.set(&workload.key, places) {
            let Some(other) = self.regarding(&other) else {
                continue;
            };
            for (told, sharer) in [(workload, &other), (&other, workload)] {
                let note = format!(
                    "{place} is the place of {}, too: the second of them to start fails, or they write over each other; give one of \
                     them another vixens.io/backup-destination (only when their Secrets lead to different stores is this fine)",
                    sharer.key
                );
                let news = News::warning("BackupPlaceShared", note).on(format!("{place}|{}", sharer.uid));
                self.tell(told.clone(), news);
            }
        }
    }

    /// Looks whether a pod that can't start keeps its successor from coming.
    fn examine(&mut self, pod: &PodKey) {
        let Some(injected) = self.pods.get(pod) else {
            return;
        };
        let (Some(revision), Some(regarding)) = (injected.stuck.clone(), self.regarding(&injected.workload)) else {
            return;
        };
        let (context, uid, (namespace, name)) = (self.context.clone(), injected.uid.clone(), pod.clone());
        self.work.push(
            async move {
                let wanted = update_revision(&context, &regarding.key).await;
                if wanted.is_some_and(|wanted| wanted != revision) {
                    let news = outdated(&namespace, &name, &revision, &uid);
                    context.teller.tell(&regarding, news).await;
                }
                Done::Told
            }
            .boxed(),
        );
    }

    /// An annotated workload, as the subject of an Event.
    fn regarding(&self, key: &Key) -> Option<Regarding> {
        let workload = self.known.workload(key)?;
        Some(Regarding {
            key: key.clone(),
            uid: workload.uid.clone(),
        })
    }

    fn tell_about(&mut self, about: Vec<About>) {
        for (key, news) in about {
            if let Some(regarding) = self.regarding(&key) {
                self.tell(regarding, news);
            }
        }
    }

    fn tell(&mut self, regarding: Regarding, news: News) {
        let context = self.context.clone();
        self.work.push(
            async move {
                context.teller.tell(&regarding, news).await;
                Done::Told
            }
            .boxed(),
        );
    }
}

/// The revision that a StatefulSet's pods should have, once its controller has seen its last change.
async fn update_revision(context: &Context, key: &Key) -> Option<String> {
    let stateful_sets: Api<slim::Revised> = Api::namespaced(context.client.clone(), &key.namespace);
    let (wait, times) = REVISION;
    for _ in 0..times {
        let found = stateful_sets.get_opt(&key.name).await.ok()??;
        let status = found.status;
        if status.observed_generation >= found.metadata.generation {
            return status.update_revision;
        }
        tokio::time::sleep(wait).await;
    }
    None
}
