//! What a destination has yet to do: changed paths, until they have settled; backups that were asked for; the end. Each
//! destination has its own, so that one that is down holds up no other. No I/O.

use super::backup::Report;
use crate::agent::arguments::QuestionId;
use crate::agent::watch::Changes;
use crate::store::snapshot::{Kind, SnapshotId};
use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// How long files must be quiet, and how long they may keep us waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// Since the last change.
    pub quiet: Duration,
    /// Since the first change.
    pub most: Duration,
}

/// A backup that somebody asked for.
#[derive(Debug)]
pub struct Ask {
    /// Scheduled or manual.
    pub kind: Kind,
    /// Questions that are answered by yes.
    pub accepted: Vec<QuestionId>,
    /// Where its progress goes. A receiver that is gone is no reason to stop.
    pub progress: mpsc::UnboundedSender<Progress>,
}

/// A line of a backup's progress: `POST /v1/backup` answers with these, one JSON object a line. What it means stays
/// across releases; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Progress {
    /// See [`crate::store::records::VERSION`].
    pub version: u32,
    /// The destination that it is about.
    pub destination: String,
    /// What happened there.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened at a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// The backup began.
    Started,
    /// It ended well. `snapshot` is the newest one, `made` whether this backup made it.
    Done {
        /// Its id; none: there is nothing to save, and never was.
        snapshot: Option<String>,
        /// Made by this backup.
        made: bool,
        /// Files that were uploaded.
        uploaded: u64,
        /// Their bytes.
        bytes: u64,
        /// One sentence each: what was answered and how, and what is asked.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remarks: Vec<String>,
    },
    /// It did not, or not all of it.
    Failed {
        /// A guard refused.
        refused: bool,
        /// Why, with its causes.
        why: String,
    },
}

impl Event {
    /// What came of a backup; `newest`: the newest snapshot now. Whoever had it made when a hold was placed is told so as
    /// of a refusal, by which the releases before ours know one: what is new is saved all the same.
    #[must_use]
    pub fn of(report: &Report, newest: Option<SnapshotId>) -> Self {
        let newest = newest.map(|id| id.to_string());
        if let Some(question) = &report.placed {
            let newest = newest.unwrap_or_default();
            return Self::Failed {
                refused: true,
                why: format!("what is new is saved as the snapshot {newest}; but {question}"),
            };
        }
        let stuck = (report.stuck > 0).then(|| {
            format!(
                "{} files are NOT saved as they are now: the store does not take them, or can't keep what it has of them; they are \
                 tried again, see the log",
                report.stuck
            )
        });
        Self::Done {
            snapshot: newest,
            made: report.snapshot.is_some(),
            uploaded: report.uploaded,
            bytes: report.uploaded_bytes,
            remarks: report
                .remarks
                .iter()
                .cloned()
                .chain(stuck)
                .chain(report.questions.iter().map(ToString::to_string))
                .collect(),
        }
    }
}

/// The end is near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// When everything has to be done.
    pub deadline: Instant,
}

/// What a destination does next.
#[derive(Debug)]
pub enum Work {
    /// These have settled.
    Changed(Changes),
    /// Somebody asked.
    Asked(Ask),
    /// The pod is about to be stopped: say so.
    Nudged,
    /// The last backup.
    Final(Stop),
}

#[derive(Debug, Default)]
struct Waiting {
    changes: Changes,
    first: Option<Instant>,
    last: Option<Instant>,
    /// The oldest change that no snapshot has, in this box or under way.
    unsaved_since: Option<Instant>,
    /// Some of what was taken could not be saved.
    is_stuck: bool,
    hurry: bool,
    nudged: bool,
    asks: Vec<Ask>,
    stop: Option<Stop>,
}

/// What a destination has yet to do.
#[derive(Debug)]
pub struct Inbox {
    settle: Settle,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

impl Inbox {
    /// An empty one.
    #[must_use]
    pub fn new(settle: Settle) -> Self {
        Self {
            settle,
            waiting: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed just now.
    pub fn changed(&self, changes: Changes) {
        if changes.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut waiting = self.waiting();
        waiting.changes.merge(changes);
        waiting.first.get_or_insert(now);
        waiting.last = Some(now);
        waiting.unsaved_since.get_or_insert(now);
        drop(waiting);
        self.wake.notify_one();
    }

    /// What was taken was not saved: it waits again, as old as it is.
    pub fn put_back(&self, changes: Changes) {
        if changes.is_empty() {
            return;
        }
        let mut waiting = self.waiting();
        waiting.changes.merge(changes);
        let since = waiting.unsaved_since.unwrap_or_else(Instant::now);
        waiting.first.get_or_insert(since);
        waiting.last.get_or_insert(since);
    }

    /// What was taken was refused: it waits for the next change or scan to be looked at again, as old as it is.
    pub fn hold(&self, changes: Changes) {
        self.waiting().changes.merge(changes);
    }

    /// These can't be saved where the others are: they wait for the next change or scan, as old as they are.
    pub fn stuck(&self, changes: Changes) {
        let mut waiting = self.waiting();
        waiting.is_stuck = !changes.is_empty();
        if waiting.is_stuck {
            waiting.unsaved_since.get_or_insert_with(Instant::now);
        }
        waiting.changes.merge(changes);
    }

    /// What was taken is saved, but for what is stuck.
    pub fn saved(&self) {
        let mut waiting = self.waiting();
        if !waiting.is_stuck {
            waiting.unsaved_since = waiting.first;
        }
    }

    /// Everything that waits is part of a full scan that begins now.
    pub fn take_changes(&self) -> Changes {
        let mut waiting = self.waiting();
        waiting.first = None;
        waiting.last = None;
        std::mem::take(&mut waiting.changes)
    }

    /// The oldest change that no snapshot has.
    #[must_use]
    pub fn unsaved_since(&self) -> Option<Instant> {
        self.waiting().unsaved_since
    }

    /// Whether changes wait that no snapshot has.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.waiting().unsaved_since.is_some()
    }

    /// The pod is about to be stopped: changes need not settle any more.
    pub fn nudge(&self) {
        let mut waiting = self.waiting();
        waiting.hurry = true;
        waiting.nudged = true;
        drop(waiting);
        self.wake.notify_one();
    }

    /// Somebody asks for a backup.
    pub fn ask(&self, ask: Ask) {
        self.waiting().asks.push(ask);
        self.wake.notify_one();
    }

    /// What those who ask for a backup accept.
    #[must_use]
    pub fn accepted(&self) -> Vec<QuestionId> {
        let waiting = self.waiting();
        waiting.asks.iter().flat_map(|ask| ask.accepted.clone()).collect()
    }

    /// Those who ask, where nothing can be done for them.
    pub fn take_asks(&self) -> Vec<Ask> {
        std::mem::take(&mut self.waiting().asks)
    }

    /// The end is near.
    pub fn stop(&self, stop: Stop) {
        self.waiting().stop = Some(stop);
        self.wake.notify_one();
    }

    /// Whether the end is near.
    #[must_use]
    pub fn stopping(&self) -> Option<Stop> {
        self.waiting().stop
    }

    /// Waits until the end is near.
    pub async fn stopped(&self) -> Stop {
        loop {
            let wake = self.wake.notified();
            if let Some(stop) = self.stopping() {
                return stop;
            }
            wake.await;
        }
    }

    /// What is to be done now, or when to look again.
    fn next(&self) -> Result<Work, Option<Instant>> {
        let mut waiting = self.waiting();
        if let Some(stop) = waiting.stop {
            return Ok(Work::Final(stop));
        }
        if std::mem::take(&mut waiting.nudged) {
            return Ok(Work::Nudged);
        }
        if !waiting.asks.is_empty() {
            return Ok(Work::Asked(waiting.asks.remove(0)));
        }
        let due = waiting
            .first
            .zip(waiting.last)
            .map(|(first, last)| (last + self.settle.quiet).min(first + self.settle.most));
        match due {
            Some(due) if due <= Instant::now() || waiting.hurry => {
                drop(waiting);
                Ok(Work::Changed(self.take_changes()))
            }
            due => Err(due),
        }
    }

    /// Waits for something to do, at most until `until`.
    pub async fn wait(&self, until: Instant) -> Option<Work> {
        loop {
            let wake = self.wake.notified();
            let due = match self.next() {
                Ok(work) => return Some(work),
                Err(due) => due.map_or(until, |due| due.min(until)),
            };
            tokio::select! {
                () = wake => {}
                () = tokio::time::sleep_until(due) => if due == until {
                    return None;
                },
            }
        }
    }

    /// Waits after a failure: until `until`, the end, or a question.
    pub async fn rest(&self, until: Instant) {
        loop {
            let wake = self.wake.notified();
            {
                let waiting = self.waiting();
                if waiting.stop.is_some() || !waiting.asks.is_empty() {
                    return;
                }
            }
            tokio::select! {
                () = wake => {}
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> Inbox {
        Inbox::new(Settle {
            quiet: Duration::from_secs(2),
            most: Duration::from_secs(4),
        })
    }

    fn change(path: &str) -> Changes {
        let mut changes = Changes::default();
        changes.add(path.as_bytes().to_vec(), false);
        changes
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_taken_once_it_has_been_quiet() {
        let (inbox, begun) = (inbox(), Instant::now());
        inbox.changed(change("a"));
        let work = inbox.wait(soon()).await;
        assert!(matches!(work, Some(Work::Changed(changes)) if changes == change("a")));
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_never_rests_is_taken_all_the_same() {
        let (inbox, begun) = (inbox(), Instant::now());
        let writing = async {
            loop {
                inbox.changed(change("a"));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            () = writing => {}
            work = inbox.wait(soon()) => assert!(matches!(work, Some(Work::Changed(_)))),
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_saved_keeps_its_age() {
        let (inbox, begun) = (inbox(), Instant::now());
        inbox.changed(change("a"));
        let Some(Work::Changed(taken)) = inbox.wait(soon()).await else {
            panic!("nothing settled");
        };
        assert_eq!(inbox.unsaved_since(), Some(begun), "under way is not saved");
        inbox.put_back(taken);
        inbox.changed(change("b"));
        assert_eq!(inbox.unsaved_since(), Some(begun));
        inbox.take_changes();
        inbox.saved();
        assert_eq!(inbox.unsaved_since(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_waits_for_the_next_change() {
        let inbox = inbox();
        inbox.changed(change("a"));
        let Some(Work::Changed(taken)) = inbox.wait(soon()).await else {
            panic!("nothing settled");
        };
        inbox.hold(taken);
        assert!(inbox.wait(Instant::now() + Duration::from_secs(60)).await.is_none());
        assert!(inbox.owes());
        inbox.changed(change("b"));
        let Some(Work::Changed(both)) = inbox.wait(soon()).await else {
            panic!("nothing settled");
        };
        assert_eq!(both.paths.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_stuck_waits_for_the_next_change_and_is_owed_until_it_is_saved() {
        let (inbox, begun) = (inbox(), Instant::now());
        inbox.changed(change("a"));
        inbox.wait(soon()).await.unwrap();
        inbox.stuck(change("a"));
        inbox.saved();
        assert_eq!((inbox.owes(), inbox.unsaved_since()), (true, Some(begun)));
        assert!(inbox.wait(Instant::now() + Duration::from_secs(60)).await.is_none());
        assert_eq!(inbox.take_changes(), change("a"));
        inbox.stuck(Changes::default());
        inbox.saved();
        assert!(!inbox.owes());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_before_everything_and_wakes_a_rest() {
        let inbox = inbox();
        inbox.changed(change("a"));
        let stop = Stop { deadline: soon() };
        tokio::join!(inbox.rest(soon()), async { inbox.stop(stop) });
        assert!(matches!(inbox.wait(soon()).await, Some(Work::Final(found)) if found == stop));
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_hurry_nothing_settles() {
        let (inbox, begun) = (inbox(), Instant::now());
        inbox.changed(change("a"));
        inbox.nudge();
        assert!(matches!(inbox.wait(soon()).await, Some(Work::Nudged)));
        assert!(matches!(inbox.wait(soon()).await, Some(Work::Changed(_))));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
