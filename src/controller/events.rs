//! What a workload's owner must know → an Event on the workload, once. An Event's name follows from what it says and of
//! what, so that another replica, or this one after a restart, tells nothing a second time while the first is kept.

use super::key::Regarding;
use crate::policy::fingerprint;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Who tells.
const CONTROLLER: &str = "vixens-backup";
/// The longest note that the API takes.
const NOTE: usize = 1024;
/// So many names of told Events are remembered.
const REMEMBERED: usize = 20_000;

/// Good news or bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Normal,
    Warning,
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) severity: Severity,
    /// In the words of scripts.
    pub(super) reason: &'static str,
    /// What happened, to what, what to do.
    pub(super) note: String,
    /// What makes it another occasion; the same one is told once.
    pub(super) occasion: String,
}

impl News {
    pub(super) fn normal(reason: &'static str, note: impl Into<String>) -> Self {
        Self::of(Severity::Normal, reason, note.into())
    }

    pub(super) fn warning(reason: &'static str, note: impl Into<String>) -> Self {
        Self::of(Severity::Warning, reason, note.into())
    }

    fn of(severity: Severity, reason: &'static str, note: String) -> Self {
        Self {
            severity,
            reason,
            occasion: note.clone(),
            note,
        }
    }

    /// The same; told again on another occasion only, whatever the note says.
    pub(super) fn on(mut self, occasion: impl Into<String>) -> Self {
        self.occasion = occasion.into();
        self
    }
}

/// Tells.
pub(super) struct Teller {
    client: Client,
    instance: String,
    told: Mutex<HashSet<u64>>,
}

impl Teller {
    pub(super) fn new(client: Client, instance: String) -> Self {
        Self {
            client,
            instance,
            told: Mutex::default(),
        }
    }

    /// Tells it on the workload. That it can't be told is logged, and is nobody's failure.
    pub(super) async fn tell(&self, regarding: &Regarding, news: News) {
        let number = number(regarding, &news);
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() > REMEMBERED {
                told.clear();
            }
            if !told.insert(number) {
                return;
            }
        }
        if !self.tell_again(regarding, &news, 1).await {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.remove(&number);
        }
    }

    /// Tells it for the so manieth time: while the first Event is kept, that one counts on. Says whether it was told.
    pub(super) async fn tell_again(&self, regarding: &Regarding, news: &News, times: u32) -> bool {
        let (key, reason, note) = (&regarding.key, news.reason, &news.note);
        let event = self.event(regarding, news);
        let name = event.metadata.name.clone().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &key.namespace);
        let told = match events.create(&PostParams::default(), &event).await {
            // Told before, by whichever replica.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                if times < 2 {
                    return true;
                }
                let series = json!({"series": {"count": times, "lastObservedTime": event.event_time}});
                let patch = Patch::Merge(&series);
                events.patch(&name, &PatchParams::default(), &patch).await
            }
            told => told,
        };
        match told {
            Ok(_) => tracing::info!(reason, "{key}: {note}"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, reason, "{key}: {note} (this could not be told by an Event)");
                return false;
            }
        }
        true
    }

    fn event(&self, regarding: &Regarding, news: &News) -> Event {
        let number = number(regarding, news);
        let key = &regarding.key;
        let head: String = key.name.chars().take(200).collect();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{number:016x}", head.trim_end_matches(['-', '.']))),
                namespace: Some(key.namespace.clone()),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(jiff::Timestamp::now())),
            note: Some(shortened(&news.note, NOTE)),
            reason: Some(news.reason.to_owned()),
            regarding: Some(regarding.reference()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.chars().take(128).collect()),
            type_: Some(
                match news.severity {
                    Severity::Normal => "Normal",
                    Severity::Warning => "Warning",
                }
                .to_owned(),
            ),
            ..Event::default()
        }
    }
}

/// What tells one Event from another.
fn number(regarding: &Regarding, news: &News) -> u64 {
    fingerprint(&format!("{}|{}|{}", regarding.uid, news.reason, news.occasion))
}

/// A text of at most so many bytes.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text
        .char_indices()
        .map(|(at, _)| at)
        .take_while(|at| *at <= limit - '…'.len_utf8())
        .last();
    format!("{}…", &text[..end.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let note = shortened(&"é".repeat(2_000), NOTE);
        assert!(note.len() <= NOTE, "{}", note.len());
        assert!(note.ends_with("é…"));
        assert_eq!(shortened("short", NOTE), "short");
    }
}
