//! PURE: the few scalars that we set where nobody owns them (design, decision 3).

use crate::agent::arguments::Tier;
use crate::policy::{Policy, key};
use crate::workload::{Setting, Workload, at, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The grace period that we would like: the app's own stop, then the last backup.
const GRACE_PERIOD: u64 = 60;
/// What `progressDeadlineSeconds` leaves the app beyond a restore.
const START_ALLOWANCE: u64 = 600;

/// The settings that nobody owns, as we want them; a warning for each that somebody owns and that stands in the way.
pub(super) fn settings(
    policy: &Policy,
    workload: &Workload<'_>,
    warnings: &mut Vec<String>,
) -> BTreeMap<Setting, Value> {
    let mut settings = BTreeMap::new();
    let owned = |setting| workload.ownership.owns(setting);
    let is_deployment = !workload.is_stateful();
    if policy.has_sidecar() {
        if is_deployment && text(workload.object, "/spec/strategy/type") != Some("Recreate") {
            if owned(Setting::Strategy) {
                warnings.push(
                    "strategy: the manifest sets it, and it is not Recreate: at a rollout the new pod starts while the old \
                     one still writes, and waits for nothing; set strategy: {type: Recreate}"
                        .to_owned(),
                );
            } else {
                settings.insert(Setting::Strategy, json!({"type": "Recreate"}));
            }
        }
        if workload.pod.grace_period < GRACE_PERIOD {
            if owned(Setting::GracePeriod) {
                warnings.push(format!(
                    "terminationGracePeriodSeconds: the manifest sets {}: the app's stop and the last backup must fit \
                     into it; {GRACE_PERIOD} or more is safer",
                    workload.pod.grace_period
                ));
            } else {
                settings.insert(Setting::GracePeriod, json!(GRACE_PERIOD));
            }
        }
    }
    if is_deployment && policy.tier != Tier::Tier1 {
        let restore = policy.restore_timeout.duration().as_secs();
        let deadline = at(workload.object, "/spec/progressDeadlineSeconds")
            .and_then(Value::as_u64)
            .unwrap_or(600);
        if deadline <= restore {
            if owned(Setting::ProgressDeadline) {
                warnings.push(format!(
                    "progressDeadlineSeconds: the manifest sets {deadline}, and a restore may take {restore} s: a long \
                     one is reported as a failed rollout; raise it, or lower {}",
                    key::RESTORE_TIMEOUT
                ));
            } else {
                settings.insert(Setting::ProgressDeadline, json!(restore + START_ALLOWANCE));
            }
        }
    }
    settings
}
