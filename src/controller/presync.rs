//! A PreSync Job's pod that has failed → the Job's own failure, in the words that the pod has left. Argo CD shows in the
//! Application's message what a Job says of itself, which would be "Job has reached the specified backoff limit".
//!
//! A Job with the condition FailureTarget is ended by Kubernetes' own controller, with that condition's message:
//! <https://kubernetes.io/docs/concepts/workloads/controllers/job/#termination-of-job-pods>.

use super::key::controller;
use super::restore::reason;
use super::slim::{Job, Pod};
use crate::inject::PRESYNC;
use crate::policy::key;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

/// The condition's reason, in the words of scripts.
const REASON: &str = "StoreNotTrusted";
/// Any of these says how a Job ended, or will end.
const ENDINGS: [&str; 4] = ["Complete", "SuccessCriteriaMet", "Failed", "FailureTarget"];

/// What a Job fails with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    namespace: String,
    job: String,
    uid: String,
    message: String,
}

/// Whether a pod of a PreSync Job has failed with a word.
pub(super) fn failure(pod: &Pod) -> Option<Failure> {
    let labels = pod.metadata.labels.as_ref()?;
    // Of a pod that has not ended altogether, its log would go with the Job's end.
    if labels.get(key::JOB_LABEL)? != PRESYNC || pod.status.phase != "Failed" {
        return None;
    }
    let job = controller(&pod.metadata).filter(|owner| owner.kind == "Job")?;
    let mut statuses = pod.status.container_statuses.iter();
    let ended = statuses.find_map(|status| status.state.terminated.as_ref())?;
    Some(Failure {
        namespace: pod.metadata.namespace.clone()?,
        job: job.name.clone(),
        uid: job.uid.clone(),
        message: reason(&ended.message)?.to_owned(),
    })
}

impl Failure {
    /// Has the Job end with it, unless it has ended.
    pub(super) async fn tell(&self, client: &Client) -> kube::Result<()> {
        let jobs: Api<Job> = Api::namespaced(client.clone(), &self.namespace);
        let Some(job) = jobs.get_opt(&self.job).await? else {
            return Ok(());
        };
        let mut conditions = job.status.conditions.iter();
        let is_ending = conditions.any(|found| found.status == "True" && ENDINGS.contains(&found.kind.as_str()));
        if is_ending || job.metadata.uid.as_ref() != Some(&self.uid) {
            return Ok(());
        }
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let patch = json!({
            "metadata": {"uid": self.uid},
            "status": {"conditions": [{
                "type": "FailureTarget",
                "status": "True",
                "reason": REASON,
                "message": self.message,
                "lastProbeTime": now,
                "lastTransitionTime": now,
            }]},
        });
        jobs.patch_status(&self.job, &PatchParams::default(), &Patch::Strategic(&patch))
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_failed_altogether_gives_its_job_the_last_line_of_its_log() {
        let pod = |phase: &str, message: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"namespace": "media", "name": "app-presync-x7k2p", "labels": {key::JOB_LABEL: PRESYNC},
                    "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "app-presync", "uid": "j", "controller": true}]},
                "status": {"phase": phase, "containerStatuses": [
                    {"name": "pre-sync", "state": {"terminated": {"exitCode": 1, "message": message}}}]},
            }))
            .unwrap()
        };
        let log = "minio:b/app: NOT KNOWN: no answer\nvixens-backup: the store can't be trusted\n";
        let found = failure(&pod("Failed", log)).unwrap();
        assert_eq!(found.message, "vixens-backup: the store can't be trusted");
        assert_eq!((found.job.as_str(), found.uid.as_str()), ("app-presync", "j"));
        assert_eq!(failure(&pod("Running", log)), None);
        assert_eq!(failure(&pod("Failed", "")), None, "evicted: another try may go better");
    }
}
