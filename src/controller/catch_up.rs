//! Workloads that the webhook has not seen: annotated, or un-annotated, while it was away. An empty patch has the API server
//! ask the webhook. One after the other, because each is a rollout; a few attempts each, because the API server may not
//! know the webhook yet, or never ask it about that namespace.

use super::events::News;
use super::key::Key;
use super::reconcile::Context;
use super::slim;
use crate::policy::key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Between two touches.
const PACE: Duration = Duration::from_secs(1);
/// So often is a workload touched until it changes.
const ATTEMPTS: u32 = 5;

/// Who is to be touched.
#[derive(Debug)]
pub(super) struct CatchUp {
    waiting: VecDeque<Key>,
    /// How often each was touched as it is, by its fingerprint.
    touched: HashMap<Key, (u64, u32)>,
    next: Instant,
}

/// What came of a touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// The webhook was asked.
    Seen,
    /// Nothing has changed: nobody was asked.
    Unseen,
    /// The webhook refused, and says why.
    Refused(String),
    /// The API server, or the webhook, is not there.
    Failed(String),
}

impl CatchUp {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            touched: HashMap::new(),
            next: now,
        }
    }

    /// It is to be touched, unless it was often enough as it is.
    pub(super) fn add(&mut self, workload: &Key, fingerprint: u64) {
        let times = self
            .touched
            .get(workload)
            .filter(|(touched, _)| *touched == fingerprint);
        if times.is_none_or(|(_, times)| *times < ATTEMPTS) && !self.waiting.contains(workload) {
            self.waiting.push_back(workload.clone());
        }
    }

    /// Nothing is to be done about it any more.
    pub(super) fn forget(&mut self, workload: &Key) {
        self.waiting.retain(|waiting| waiting != workload);
        self.touched.remove(workload);
    }

    /// When the next one may be touched.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// The next one may wait: the webhook is not ready.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.next = now + PACE;
    }

    /// The next one that may be touched.
    pub(super) fn take(&mut self, now: Instant) -> Option<Key> {
        if now < self.next {
            return None;
        }
        let workload = self.waiting.pop_front()?;
        self.next = now + PACE;
        Some(workload)
    }

    /// It was touched as it was with this fingerprint. After how long it may be looked at again, where that helps.
    pub(super) fn done(&mut self, workload: &Key, fingerprint: u64, touched: &Touched) -> Option<Duration> {
        let times = match self.touched.get(workload) {
            Some((before, times)) if *before == fingerprint => times + 1,
            _ => 1,
        };
        let times = match touched {
            Touched::Seen => {
                self.touched.remove(workload);
                return None;
            }
            Touched::Refused(_) => ATTEMPTS,
            // Of no weight: nobody had a chance.
            Touched::Failed(_) => times - 1,
            Touched::Unseen => times,
        };
        self.touched.insert(workload.clone(), (fingerprint, times));
        (times < ATTEMPTS).then(|| PACE.saturating_mul(2 << times))
    }
}

/// Has the API server ask the webhook about a workload.
pub(super) async fn touch(context: &Context, workload: &Key) -> Touched {
    let request = http::Request::patch(format!(
        "{}/{}?fieldManager={}",
        workload.url(),
        workload.name,
        super::apply::FIELD_MANAGER
    ))
    .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
    .header(
        http::header::ACCEPT,
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    )
    .body(b"{}".to_vec());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Touched::Failed(error.to_string()),
    };
    let answer: kube::Result<slim::Deployment> = context.client.request(request).await;
    match answer {
        Ok(answer) if is_seen(&answer.metadata) => Touched::Seen,
        Ok(_) => Touched::Unseen,
        Err(kube::Error::Api(status)) if status.is_not_found() => Touched::Seen,
        Err(kube::Error::Api(status)) if status.message.contains("denied the request") => {
            Touched::Refused(status.message)
        }
        Err(error) => Touched::Failed(error.to_string()),
    }
}

/// Whether what is injected is what is asked for.
fn is_seen(metadata: &ObjectMeta) -> bool {
    let annotation = |name| {
        metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(name))
    };
    let is_asked = annotation(key::BACKUP).is_some_and(|value| !matches!(value.as_str(), "disabled" | "off"));
    is_asked == annotation(key::INJECTED).is_some()
}

/// For the owner of a workload that was refused.
pub(super) fn refused(message: &str) -> News {
    let note = format!("this workload is annotated, and nothing is backed up: {message}");
    News::warning("BackupNotInjected", note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::arguments::WorkloadKind;

    fn app() -> Key {
        Key {
            namespace: "media".to_owned(),
            kind: WorkloadKind::Deployment,
            name: "app".to_owned(),
        }
    }

    #[tokio::test]
    async fn one_after_the_other_and_each_only_some_times_as_it_is() {
        let now = Instant::now();
        let mut catch_up = CatchUp::new(now);
        let other = Key {
            name: "other".to_owned(),
            ..app()
        };
        catch_up.add(&app(), 1);
        catch_up.add(&app(), 1);
        catch_up.add(&other, 1);
        assert_eq!(catch_up.take(now), Some(app()));
        assert_eq!(catch_up.take(now), None, "the other one waits for its turn");
        assert_eq!(catch_up.take(now + PACE), Some(other));
        let mut attempts = 0;
        while catch_up.done(&app(), 1, &Touched::Unseen).is_some() {
            attempts += 1;
        }
        assert_eq!(attempts + 1, ATTEMPTS);
        catch_up.add(&app(), 1);
        assert_eq!(catch_up.due(), None);
        catch_up.add(&app(), 2);
        assert!(catch_up.due().is_some(), "it has changed");
    }

    #[tokio::test]
    async fn a_refusal_is_not_repeated_and_an_outage_is_waited_out() {
        let mut catch_up = CatchUp::new(Instant::now());
        for _ in 0..20 {
            assert!(catch_up.done(&app(), 1, &Touched::Failed(String::new())).is_some());
        }
        assert_eq!(catch_up.done(&app(), 1, &Touched::Refused(String::new())), None);
        catch_up.add(&app(), 1);
        assert_eq!(catch_up.due(), None);
    }
}
