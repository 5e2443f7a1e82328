//! Whoever asks a destination for a backup, at its server or by a request in the store → a backup, and what came of it. Part
//! of [`Worker`].

use super::{REQUEST_EXPIRES, Worker, everything};
use crate::agent::arguments::QuestionId;
use crate::agent::lease::check::Fenced;
use crate::agent::sidecar::backup::Failure;
use crate::agent::sidecar::batch::with_sources;
use crate::agent::sidecar::inbox::{Ask, Event, Progress, Work};
use crate::store::keys;
use crate::store::records::{Request, VERSION, decode, encode};
use crate::store::snapshot::Kind;
use crate::store::state::HEARTBEAT;
use jiff::Timestamp;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

impl Worker {
    /// Answers everybody who asks that nothing is done here, until the end.
    pub(super) async fn refuse_all(&self, fenced: &Fenced) {
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

    /// Whoever asks is told at once why nothing comes of it.
    pub(super) fn turn_away(&self, failure: &Failure) {
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

    pub(super) async fn asked(&mut self, ask: Ask) -> Result<(), Failure> {
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

    pub(super) fn tell(&self, ask: &Ask, event: Event) {
        // Whoever asked may have gone away; the backup is made all the same.
        let _ = ask.progress.send(Progress {
            version: VERSION,
            destination: self.name.clone(),
            event,
        });
    }

    /// Serves a request, once; one that is old is taken away.
    pub(super) async fn request(&mut self, id: &str, content: &[u8]) -> Result<(), Failure> {
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

    pub(super) async fn requested(&mut self, request: &Request) -> Event {
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
}
