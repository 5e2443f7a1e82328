//! A restore Job that has ended → what its pod left as last words, for an Event on the workload.

use super::events::News;
use super::key::Regarding;
use super::slim::{Job, Pod};
use jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::{Api, Client};

/// What ended longer ago was told then.
pub(super) const OLD: SignedDuration = SignedDuration::from_mins(30);

/// A Job that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) workload: Regarding,
    name: String,
    uid: String,
    succeeded: bool,
    why: String,
}

/// Whether a Job has ended, and how.
pub(super) fn ended(job: &Job, now: Timestamp) -> Option<Ended> {
    let conditions = job.status.conditions.iter();
    let last = conditions
        .filter(|condition| condition.status == "True")
        .find(|condition| matches!(condition.kind.as_str(), "Complete" | "Failed"))?;
    let when = last.last_transition_time.as_ref().map(|time| time.0);
    if when.is_some_and(|when| now.duration_since(when) > OLD) {
        return None;
    }
    Some(Ended {
        workload: Regarding::controller_of(&job.metadata)?,
        name: job.metadata.name.clone()?,
        uid: job.metadata.uid.clone()?,
        succeeded: last.kind == "Complete",
        why: last.message.clone().unwrap_or_default(),
    })
}

impl Ended {
    /// Asks its pods.
    pub(super) async fn news(&self, client: &Client) -> News {
        let namespace = &self.workload.key.namespace;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let selector = format!("batch.kubernetes.io/job-name={}", self.name);
        // Without them, the Job itself says something.
        let pods = pods.list(&ListParams::default().labels(&selector)).await;
        let words = pods
            .map(|pods| last_words(&pods.items, self.succeeded))
            .unwrap_or_default();
        let words = words.unwrap_or_else(|| self.why.clone());
        let name = &self.name;
        let news = if self.succeeded {
            News::normal("RestoreChecked", format!("Job/{name}: {words}"))
        } else {
            News::warning(
                "RestoreCheckFailed",
                format!("Job/{name}: {words} (kubectl -n {namespace} logs job/{name})"),
            )
        };
        news.on(self.uid.clone())
    }
}

/// What the newest pod that ended as its Job did has left.
fn last_words(pods: &[Pod], succeeded: bool) -> Option<String> {
    let mut ended: Vec<_> = pods
        .iter()
        .filter_map(|pod| {
            let mut statuses = pod.status.container_statuses.iter();
            let ended = statuses.find_map(|status| status.state.terminated.as_ref())?;
            let fits = (ended.exit_code == 0) == succeeded && !ended.message.trim().is_empty();
            fits.then_some((
                pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
                ended.message.trim(),
            ))
        })
        .collect();
    ended.sort();
    let (_, message) = ended.last()?;
    if succeeded {
        return Some((*message).to_owned());
    }
    reason(message).map(str::to_owned)
}

/// Of what a failed container has left, the reason: its log's last line.
pub(super) fn reason(message: &str) -> Option<&str> {
    message.trim().lines().last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(conditions: &Value) -> Job {
        serde_json::from_value(json!({"metadata": {"namespace": "media", "name": "app-restore", "uid": "j",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "app", "uid": "u", "controller": true}]},
            "status": {"conditions": conditions}}))
        .unwrap()
    }

    #[test]
    fn a_job_has_ended_when_it_says_so_and_an_old_end_was_told_before() {
        let now: Timestamp = "2026-11-22T13:10:00Z".parse().unwrap();
        let at = |kind: &str, time: &str| job(&json!([{"type": kind, "status": "True", "lastTransitionTime": time}]));
        assert_eq!(ended(&job(&json!([])), now), None);
        assert_eq!(ended(&at("Suspended", "2026-11-22T13:05:00Z"), now), None);
        assert!(ended(&at("Complete", "2026-11-22T13:05:00Z"), now).unwrap().succeeded);
        assert!(!ended(&at("Failed", "2026-11-22T13:05:00Z"), now).unwrap().succeeded);
        assert_eq!(ended(&at("Complete", "2026-11-22T12:05:00Z"), now), None);
    }

    #[test]
    fn the_last_words_of_the_newest_pod_count() {
        let pod = |time: &str, code: i32, message: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"creationTimestamp": time},
                "status": {"containerStatuses": [{"name": "pre-sync", "state": {"terminated": {"exitCode": code, "message": message}}}]}}))
            .unwrap()
        };
        let pods = [
            pod("2026-11-22T13:06:00Z", 1, "line\nthe store can't be trusted: b"),
            pod("2026-11-22T13:05:00Z", 1, "the store can't be trusted: a"),
            pod(
                "2026-11-22T13:07:00Z",
                0,
                "minio:b/app: 20261122T130500Z-3.42-auto, made 2 min ago",
            ),
        ];
        assert_eq!(
            last_words(&pods, false).as_deref(),
            Some("the store can't be trusted: b")
        );
        assert!(last_words(&pods, true).unwrap().contains("3.42-auto"));
        assert_eq!(last_words(&[], true), None);
    }
}
