//! Pods of the companion CronJobs that do the work themselves → what their last words say: which snapshot each place holds,
//! and what they ask. The newest run of each counts. No I/O.

use super::key::controller;
use super::record::{Said, SaidOf};
use super::slim::Pod;
use super::watch::Change;
use crate::contract::last_words::Saved;
use crate::contract::question::Question;
use jiff::Timestamp;
use std::collections::HashMap;

/// Namespace and name of a CronJob.
type CronJob = (String, String);

/// One run, when it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    made: Option<Timestamp>,
    /// What it has saved.
    pub(super) places: SaidOf,
    pub(super) questions: Vec<Question>,
    /// Whether all of its work was done, so that what it does not ask is no question.
    pub(super) is_complete: bool,
}

/// The newest run of each CronJob.
#[derive(Debug, Default)]
pub(super) struct Runs {
    newest: HashMap<CronJob, Run>,
}

impl Runs {
    /// Takes in a change of pods. What is gone has been heard.
    pub(super) fn see(&mut self, change: &Change<Pod>) {
        let Change::Found(pod) = change else {
            return;
        };
        let Some((cron_job, run)) = ended(pod) else {
            return;
        };
        let is_newer = self.newest.get(&cron_job).is_none_or(|known| known.made <= run.made);
        if is_newer {
            self.newest.insert(cron_job, run);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&CronJob, &Run)> {
        self.newest.iter()
    }

    /// Keeps those of CronJobs that are there.
    pub(super) fn retain(&mut self, is_there: impl Fn(&CronJob) -> bool) {
        self.newest.retain(|cron_job, _| is_there(cron_job));
    }
}

/// A run that has ended with a word, and whose it was.
fn ended(pod: &Pod) -> Option<(CronJob, Run)> {
    let job = controller(&pod.metadata).filter(|owner| owner.kind == "Job")?;
    // <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>: the time is appended, in minutes.
    let (name, time) = job.name.rsplit_once('-')?;
    time.parse::<u64>().ok()?;
    let mut statuses = pod.status.container_statuses.iter();
    let ended = statuses.find_map(|status| status.state.terminated.as_ref())?;
    let places = Saved::find_all(&ended.message).map(|saved| {
        let said = Said {
            store_id: saved.store_id,
            snapshot: saved.snapshot,
        };
        (saved.destination, said)
    });
    let run = Run {
        made: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        places: places.collect(),
        questions: Question::find_all(&ended.message).collect(),
        is_complete: ended.exit_code == 0,
    };
    Some(((pod.metadata.namespace.clone()?, name.to_owned()), run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::arguments::QuestionKind;
    use serde_json::json;

    fn pod(job: &str, time: &str, code: i32, message: &str) -> Change<Pod> {
        let pod = json!({
            "metadata": {"namespace": "media", "name": format!("{job}-x7k2p"), "creationTimestamp": time,
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": "j", "controller": true}]},
            "status": {"containerStatuses": [{"name": "backup", "state": {"terminated": {"exitCode": code, "message": message}}}]},
        });
        Change::Found(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn the_newest_run_of_a_cron_job_says_what_its_places_hold_and_what_it_asks() {
        let saved = Saved {
            destination: "minio:b/app".to_owned(),
            snapshot: "s2".to_owned(),
            store_id: Some("a".to_owned()),
        };
        let question = Question::new(QuestionKind::Hold, &[b"x"], "files vanished");
        let mut runs = Runs::default();
        runs.see(&pod(
            "app-backup-29390400",
            "2026-11-22T13:10:00Z",
            0,
            &format!("{saved}\n{question}"),
        ));
        runs.see(&pod(
            "app-backup-29390395",
            "2026-11-22T13:05:00Z",
            1,
            "b2:b/app: no route to host",
        ));
        runs.see(&pod("now", "2026-11-22T13:20:00Z", 0, "somebody's own"));
        let (cron_job, run) = runs.iter().next().unwrap();
        assert_eq!(cron_job, &("media".to_owned(), "app-backup".to_owned()));
        assert_eq!(run.places["minio:b/app"].snapshot, "s2");
        assert_eq!(run.places["minio:b/app"].store_id.as_deref(), Some("a"));
        assert_eq!(run.questions, [question]);
        assert!(run.is_complete);
        assert_eq!(runs.iter().count(), 1);
        runs.see(&pod(
            "app-backup-29390405",
            "2026-11-22T13:15:00Z",
            1,
            "minio:b/app: no route to host",
        ));
        assert!(!runs.iter().next().unwrap().1.is_complete);
        runs.retain(|(_, name)| name == "another");
        assert_eq!(runs.iter().count(), 0);
    }
}
