//! Injected pods, and events about them → what their owner must know, and which sidecars can be asked. No I/O.

use super::events::{News, shortened};
use super::key::{Key, workload_of_pod};
use super::restore::{OLD, reason};
use super::slim::{ContainerStatus, Event, Pod, Terminated};
use super::watch::Change;
use crate::agent::arguments::WorkloadKind;
use crate::contract::last_words::Restored;
use crate::contract::question::Question;
use crate::inject::{INIT_CONTAINER, RCLONE_VOLUME, SECRETS_VOLUME, SIDECAR_CONTAINER, VANILLA_VOLUME};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

/// The longest of a container's last words in an Event, in bytes.
const WORDS: usize = 600;

/// Namespace and name.
pub(super) type PodKey = (String, String);

/// An injected pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Injected {
    pub(super) workload: Key,
    pub(super) uid: String,
    /// Where its sidecar answers.
    pub(super) sidecar: Option<SocketAddr>,
    /// Whether it has one.
    pub(super) has_sidecar: bool,
    /// How our init container is doing.
    pub(super) init: Init,
    /// It can't get out of our init container, which is of this revision of a StatefulSet.
    pub(super) stuck: Option<String>,
}

/// How our init container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Init {
    /// It has not ended yet.
    Pending,
    /// It has failed, and waits for an answer.
    Asks(Question),
    /// It has failed.
    Failed,
    /// It is through, and the app runs; what it asks all the same.
    Done(Vec<Question>),
}

/// All injected pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    known: HashMap<PodKey, Injected>,
    listed: Option<HashSet<PodKey>>,
    complete: bool,
    /// Events that came before the pods.
    early: Vec<Event>,
}

/// Something to tell about a pod's workload.
pub(super) type About = (Key, News);

impl Pods {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PodKey, &Injected)> {
        self.known.iter()
    }

    pub(super) fn get(&self, pod: &PodKey) -> Option<&Injected> {
        self.known.get(pod)
    }

    /// Takes in a change of pods.
    pub(super) fn see(&mut self, change: Change<Pod>) -> Vec<About> {
        match change {
            Change::Listing => {
                self.listed = Some(HashSet::new());
                Vec::new()
            }
            Change::Found(pod) => {
                let key = key_of(&pod);
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                let Some(injected) = injected(&pod) else {
                    return Vec::new();
                };
                let news = missing_in_status(&pod).chain(start_failed(&pod));
                let news = news.chain(restored(&pod, Timestamp::now()));
                let about = news.map(|news| (injected.workload.clone(), news)).collect();
                self.known.insert(key, injected);
                about
            }
            Change::Gone(pod) => {
                self.known.remove(&key_of(&pod));
                Vec::new()
            }
            Change::Listed => {
                if let Some(listed) = self.listed.take() {
                    self.known.retain(|key, _| listed.contains(key));
                }
                self.complete = true;
                let early = std::mem::take(&mut self.early);
                early.iter().filter_map(|event| self.of_mount(event)).collect()
            }
        }
    }

    /// Takes in an event about a volume that could not be mounted.
    pub(super) fn see_mount(&mut self, change: Change<Event>) -> Vec<About> {
        let Change::Found(event) = change else {
            return Vec::new();
        };
        if !self.complete {
            self.early.push(event);
            return Vec::new();
        }
        self.of_mount(&event).into_iter().collect()
    }

    fn of_mount(&self, event: &Event) -> Option<About> {
        let object = &event.involved_object;
        let pod = self.known.get(&(object.namespace.clone(), object.name.clone()))?;
        let volume = [RCLONE_VOLUME, VANILLA_VOLUME, SECRETS_VOLUME]
            .into_iter()
            .find(|volume| event.message.contains(&format!("volume \"{volume}\"")))?;
        let missing = missing_object(&event.message)?;
        Some((pod.workload.clone(), missing.news(volume, &object.name)))
    }
}

fn key_of(pod: &Pod) -> PodKey {
    let metadata = &pod.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

fn ours<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|status| status.name == name)
}

fn injected(pod: &Pod) -> Option<Injected> {
    let workload = workload_of_pod(&pod.metadata)?;
    let statuses = &pod.status.init_container_statuses;
    let is_running = ours(statuses, SIDECAR_CONTAINER).is_some_and(|status| status.state.running.is_some());
    let container = pod
        .spec
        .init_containers
        .iter()
        .find(|container| container.name == SIDECAR_CONTAINER);
    let port = container
        .and_then(|container| container.ports.first())
        .map(|port| port.container_port);
    let address: Option<IpAddr> = pod.status.pod_ip.as_ref().and_then(|ip| ip.parse().ok());
    let revision = pod
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get("controller-revision-hash"));
    let is_stuck = pod.metadata.deletion_timestamp.is_none()
        && workload.kind == WorkloadKind::StatefulSet
        && ours(statuses, INIT_CONTAINER).is_some_and(is_failing);
    Some(Injected {
        workload,
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        sidecar: address.zip(port).filter(|_| is_running).map(SocketAddr::from),
        has_sidecar: container.is_some(),
        init: ours(statuses, INIT_CONTAINER).map_or(Init::Pending, init),
        stuck: revision.filter(|_| is_stuck).cloned(),
    })
}

/// How a container ended when it did last, unless it ended well since.
fn failure(status: &ContainerStatus) -> Option<&Terminated> {
    let last = status
        .state
        .terminated
        .as_ref()
        .or(status.last_state.terminated.as_ref())?;
    (last.exit_code != 0).then_some(last)
}

fn init(status: &ContainerStatus) -> Init {
    let Some(failure) = failure(status) else {
        return match &status.state.terminated {
            Some(ended) => Init::Done(Question::find_all(&ended.message).collect()),
            None => Init::Pending,
        };
    };
    Question::find(&failure.message).map_or(Init::Failed, Init::Asks)
}

/// Why our init container has failed. What it asks is told as a question.
fn start_failed(pod: &Pod) -> Option<News> {
    // Who is told to end does not start, and need not.
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let failure = failure(ours(&pod.status.init_container_statuses, INIT_CONTAINER)?)?;
    if Question::find(&failure.message).is_some() {
        return None;
    }
    let said = reason(&failure.message).map_or_else(
        || format!("{} (exit code {})", failure.reason, failure.exit_code),
        str::to_owned,
    );
    let (namespace, name) = key_of(pod);
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let note = format!(
        "pod {name} can't start, and is tried again: {} (kubectl -n {namespace} logs {name} -c {INIT_CONTAINER})",
        shortened(&said, WORDS)
    );
    Some(News::warning("BackupStartFailed", note).on(format!("{uid}|{said}")))
}

/// What a start that came to its end has brought back.
fn restored(pod: &Pod, now: Timestamp) -> Option<News> {
    let status = ours(&pod.status.init_container_statuses, INIT_CONTAINER)?;
    let ended = status.state.terminated.as_ref().filter(|ended| ended.exit_code == 0)?;
    // What ended longer ago was told then.
    let finished = ended.finished_at.as_ref()?.0;
    if now.duration_since(finished) > OLD {
        return None;
    }
    let Restored { is_unexpected, text } = Restored::find(&ended.message)?;
    let (namespace, name) = key_of(pod);
    let note = format!(
        "pod {name}: {} (kubectl -n {namespace} logs {name} -c {INIT_CONTAINER})",
        shortened(&text, WORDS)
    );
    let news = if is_unexpected {
        News::warning("BackupRestored", note)
    } else {
        News::normal("BackupRestored", note)
    };
    Some(news.on(pod.metadata.uid.clone().unwrap_or_default()))
}

/// Whether a container has failed at least once, or can't begin, and has not succeeded since.
fn is_failing(status: &ContainerStatus) -> bool {
    let state = &status.state;
    if state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0) {
        return false;
    }
    let can_not_begin = state
        .waiting
        .as_ref()
        .is_some_and(|waiting| !matches!(waiting.reason.as_str(), "" | "PodInitializing" | "ContainerCreating"));
    status.restart_count > 0 || can_not_begin || state.terminated.is_some()
}

/// A Secret or ConfigMap that a pod waits for.
#[derive(Debug, PartialEq, Eq)]
struct Missing<'a> {
    kind: &'static str,
    name: &'a str,
}

/// What a message of the kubelet's says is not there, such as `secret "keys" not found`.
fn missing_object(message: &str) -> Option<Missing<'_>> {
    for (word, kind) in [("secret \"", "Secret"), ("configmap \"", "ConfigMap")] {
        for (at, _) in message.match_indices(word) {
            let (name, rest) = message[at + word.len()..].split_once('"')?;
            if rest.starts_with(" not found") {
                // It may be told with its namespace.
                let name = name.rsplit('/').next().unwrap_or(name);
                return Some(Missing { kind, name });
            }
        }
    }
    None
}

impl Missing<'_> {
    fn news(&self, volume: &str, pod: &str) -> News {
        let Self { kind, name } = self;
        let annotation = match volume {
            VANILLA_VOLUME => "vixens.io/backup-vanilla-config",
            SECRETS_VOLUME => "vixens.io/backup-secrets",
            _ => "vixens.io/backup-secret",
        };
        let reason = if *kind == "Secret" {
            "BackupSecretMissing"
        } else {
            "BackupConfigMapMissing"
        };
        let note = format!(
            "pod {pod} can't start: {kind} {name} does not exist in its namespace; make it, or name another with {annotation}"
        );
        News::warning(reason, note)
    }
}

/// A container of ours that can't be made because something is missing.
fn missing_in_status(pod: &Pod) -> impl Iterator<Item = News> {
    let statuses = pod
        .status
        .init_container_statuses
        .iter()
        .chain(&pod.status.container_statuses);
    let ours = statuses.filter(|status| [INIT_CONTAINER, SIDECAR_CONTAINER].contains(&status.name.as_str()));
    let waiting = ours.filter_map(|status| status.state.waiting.as_ref());
    waiting
        .filter(|waiting| waiting.reason == "CreateContainerConfigError")
        .filter_map(|waiting| {
            let missing = missing_object(&waiting.message)?;
            Some(missing.news(RCLONE_VOLUME, &pod.metadata.name.clone().unwrap_or_default()))
        })
}

/// A StatefulSet's pod that keeps its successor from coming.
pub(super) fn outdated(namespace: &str, pod: &str, revision: &str, uid: &str) -> News {
    let note = format!(
        "pod {pod} can't get out of init-config, and is of the outdated revision {revision}: Kubernetes replaces it only once it \
         is Ready, so the fix never reaches it. Free it: kubectl -n {namespace} delete pod {pod}"
    );
    News::warning("BackupPodOutdated", note).on(format!("{uid}|{revision}"))
}

#[cfg(test)]
mod tests {
    use super::super::events::Severity;
    use super::*;
    use crate::agent::arguments::QuestionKind;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"namespace": "media", "name": "db-0", "uid": "p",
                "labels": {"controller-revision-hash": "db-1"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}]},
            "spec": {"initContainers": [{"name": "init-config"},
                {"name": "backup-sidecar", "ports": [{"containerPort": 9477}]}]},
            "status": status,
        }))
        .unwrap()
    }

    fn init(state: &Value, restarts: u32) -> Value {
        json!({"initContainerStatuses": [{"name": "init-config", "restartCount": restarts, "state": state}]})
    }

    #[test]
    fn a_pod_is_stuck_only_when_our_init_container_has_failed() {
        let stuck = |status: Value| injected(&pod(&status)).unwrap().stuck.is_some();
        assert!(stuck(init(&json!({"waiting": {"reason": "CrashLoopBackOff"}}), 2)));
        assert!(stuck(init(&json!({"running": {"startedAt": "now"}}), 1)));
        assert!(stuck(init(&json!({"waiting": {"reason": "ImagePullBackOff"}}), 0)));
        assert!(!stuck(init(&json!({"running": {}}), 0)), "it may be restoring");
        assert!(!stuck(init(&json!({"waiting": {"reason": "PodInitializing"}}), 0)));
        assert!(!stuck(init(&json!({"terminated": {"exitCode": 0}}), 3)));
    }

    #[test]
    fn what_our_init_container_says_last_is_a_question_or_why_it_failed() {
        let question = Question::new(QuestionKind::Missing, &[b"a"], "nobody has config/a");
        let words = |message: &str| json!({"terminated": {"exitCode": 3, "message": message}});
        let asks = format!("restoring\nvixens-backup: {question}\n");
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let status = |state: &Value, last: &Value| {
            let status = json!({"name": "init-config", "restartCount": 1, "state": state, "lastState": last});
            pod(&json!({"initContainerStatuses": [status]}))
        };
        let nothing = json!({});
        for (state, last) in [
            (&words(&asks), &nothing),
            (&waiting, &words(&asks)),
            (&json!({"running": {}}), &words(&asks)),
        ] {
            let pod = status(state, last);
            assert_eq!(injected(&pod).unwrap().init, Init::Asks(question.clone()));
            assert_eq!(start_failed(&pod), None, "it is told as a question");
        }
        let done = status(&json!({"terminated": {"exitCode": 0}}), &words(&asks));
        assert_eq!(injected(&done).unwrap().init, Init::Done(Vec::new()));
        let through = status(&json!({"terminated": {"exitCode": 0, "message": asks}}), &nothing);
        assert_eq!(injected(&through).unwrap().init, Init::Done(vec![question]));
        let failed = status(&waiting, &words("restoring\nvixens-backup: no space left on device"));
        assert_eq!(injected(&failed).unwrap().init, Init::Failed);
        let news = start_failed(&failed).unwrap();
        assert_eq!(
            news.note,
            "pod db-0 can't start, and is tried again: vixens-backup: no space left on device (kubectl -n media logs db-0 -c \
             init-config)"
        );
        let mut leaving = failed;
        leaving.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(start_failed(&leaving), None);
        let killed = status(
            &json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
            &nothing,
        );
        let note = start_failed(&killed).unwrap().note;
        assert!(note.contains("OOMKilled (exit code 137)"), "{note}");
    }

    #[test]
    fn what_a_start_has_brought_back_is_told_for_as_long_as_it_is_news() {
        let told = |is_unexpected: bool, now: &str| {
            let text = "volume data: restored from s1".to_owned();
            let words = Restored { is_unexpected, text }.to_string();
            let state = json!({"terminated": {"exitCode": 0, "message": words, "finishedAt": "2026-11-22T13:05:00Z"}});
            restored(&pod(&init(&state, 0)), now.parse().unwrap())
        };
        let news = told(false, "2026-11-22T13:06:00Z").unwrap();
        assert_eq!((news.severity, news.reason), (Severity::Normal, "BackupRestored"));
        assert_eq!(
            news.note,
            "pod db-0: volume data: restored from s1 (kubectl -n media logs db-0 -c init-config)"
        );
        assert_eq!(told(true, "2026-11-22T13:06:00Z").unwrap().severity, Severity::Warning);
        assert_eq!(told(true, "2026-11-22T13:50:00Z"), None);
        let silent = json!({"terminated": {"exitCode": 0, "finishedAt": "2026-11-22T13:05:00Z"}});
        assert_eq!(
            restored(&pod(&init(&silent, 0)), "2026-11-22T13:06:00Z".parse().unwrap()),
            None
        );
    }

    #[test]
    fn a_sidecar_is_asked_where_it_runs() {
        let status = json!({"podIP": "10.1.2.3", "initContainerStatuses": [{"name": "backup-sidecar", "state": {"running": {}}}]});
        assert_eq!(
            injected(&pod(&status)).unwrap().sidecar,
            Some("10.1.2.3:9477".parse().unwrap())
        );
        let status = json!({"podIP": "10.1.2.3", "initContainerStatuses": [{"name": "backup-sidecar", "state": {"waiting": {}}}]});
        assert_eq!(injected(&pod(&status)).unwrap().sidecar, None);
    }

    #[test]
    fn what_is_missing_is_read_from_the_kubelets_words() {
        let found = |message| missing_object(message).map(|missing| format!("{} {}", missing.kind, missing.name));
        assert_eq!(
            found(r#"MountVolume.SetUp failed for volume "rclone-config" : secret "rclone-minio-config" not found"#)
                .as_deref(),
            Some("Secret rclone-minio-config")
        );
        assert_eq!(
            found(r#"MountVolume.SetUp failed for volume "vanilla-config" : configmap "app" not found"#).as_deref(),
            Some("ConfigMap app")
        );
        assert_eq!(found(r#"failed to sync secret cache: secret "a" is forbidden"#), None);
    }

    #[test]
    fn an_event_is_told_once_its_pod_is_known_and_the_apps_own_volumes_are_its_own() {
        let event = |volume: &str| -> Event {
            let message = format!(r#"MountVolume.SetUp failed for volume "{volume}" : secret "keys" not found"#);
            serde_json::from_value(
                json!({"message": message, "involvedObject": {"namespace": "media", "name": "db-0"}}),
            )
            .unwrap()
        };
        let mut pods = Pods::default();
        assert!(pods.see_mount(Change::Found(event("rclone-config"))).is_empty());
        pods.see(Change::Listing);
        pods.see(Change::Found(pod(&json!({}))));
        let told = pods.see(Change::Listed);
        assert_eq!(told.len(), 1);
        assert!(told[0].1.note.contains("Secret keys does not exist"), "{told:?}");
        assert!(pods.see_mount(Change::Found(event("app-data"))).is_empty());
        assert_eq!(pods.see_mount(Change::Found(event("secrets-config"))).len(), 1);
    }
}
