//! PURE: a workload's name → its companions' names, each mapped to the rule of its kind, with a hash where it had to
//! change.

use super::CompanionKind;
use crate::policy::fingerprint;

/// Jobs become a label of their pods.
const JOB_LIMIT: usize = 63;
/// Most objects' names are subdomains: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.
const OBJECT_LIMIT: usize = 253;
/// By which the ConfigMap of a record is known.
const RECORD_SUFFIX: &str = "-backup-record";

/// The name of a companion. Two workloads of one kind and namespace never get the same one.
#[must_use]
pub fn companion_name(kind: CompanionKind, workload: &str) -> String {
    match kind {
        // Its Jobs get eleven characters more: <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>.
        CompanionKind::CronJob => mapped(workload, workload, "-backup", 52),
        CompanionKind::RestoreJob => mapped(workload, workload, "-restore", JOB_LIMIT),
        CompanionKind::Service => {
            // DNS-1035: a letter first, no dots.
            let mut name = workload.replace('.', "-");
            if name.starts_with(|first: char| first.is_ascii_digit()) {
                name.insert(0, 's');
            }
            mapped(workload, &name, "-backup", 63)
        }
    }
}

/// The name of the Job that is a PreSync hook.
#[must_use]
pub fn presync_name(workload: &str) -> String {
    mapped(workload, workload, "-presync", JOB_LIMIT)
}

/// The name of the ConfigMap that keeps what the store held.
#[must_use]
pub fn record_name(workload: &str) -> String {
    mapped(workload, workload, RECORD_SUFFIX, OBJECT_LIMIT)
}

/// Whether a ConfigMap's name is one of [`record_name`]'s.
pub(in crate::inject) fn is_record_name(name: &str) -> bool {
    name.ends_with(RECORD_SUFFIX)
}

/// A workload's name as its kind may have it, with a suffix, and a hash where it is not the workload's own.
fn mapped(workload: &str, name: &str, suffix: &str, limit: usize) -> String {
    if name == workload && name.len() + suffix.len() <= limit {
        return format!("{name}{suffix}");
    }
    let hash = fingerprint(workload) >> 32;
    let head: String = name.chars().take(limit - suffix.len() - 9).collect();
    format!("{}-{hash:08x}{suffix}", head.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const KINDS: [CompanionKind; 3] = [
        CompanionKind::CronJob,
        CompanionKind::RestoreJob,
        CompanionKind::Service,
    ];

    #[test]
    fn a_name_that_fits_gets_a_suffix_and_nothing_else() {
        assert_eq!(companion_name(CompanionKind::CronJob, "app"), "app-backup");
        assert_eq!(companion_name(CompanionKind::RestoreJob, "app"), "app-restore");
        assert_eq!(companion_name(CompanionKind::Service, "app"), "app-backup");
        assert_eq!(companion_name(CompanionKind::CronJob, "my.app"), "my.app-backup");
        assert_eq!(presync_name("app"), "app-presync");
        assert_eq!(record_name("my.app"), "my.app-backup-record");
        let long = record_name(&"a".repeat(250));
        assert_eq!((long.len(), is_record_name(&long)), (OBJECT_LIMIT, true));
    }

    #[test]
    fn names_that_would_become_the_same_stay_apart() {
        let long = "a".repeat(60);
        let names = ["my.app", "my-app", "1app", "s1app", &long, &format!("{long}b")];
        for kind in KINDS {
            let mapped: BTreeSet<String> = names.iter().map(|name| companion_name(kind, name)).collect();
            assert_eq!(mapped.len(), names.len(), "{mapped:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_follows_the_rule_of_its_kind(
            name in "[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?){0,3}",
        ) {
            let names = KINDS.map(|kind| (Some(kind), companion_name(kind, &name)));
            for (kind, mapped) in names.into_iter().chain([(None, presync_name(&name))]) {
                let limit = if kind == Some(CompanionKind::CronJob) { 52 } else { 63 };
                prop_assert!(mapped.len() <= limit, "{mapped}");
                let is_part = |part: &str| {
                    !part.is_empty()
                        && !part.starts_with('-')
                        && !part.ends_with('-')
                        && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                };
                prop_assert!(mapped.split('.').all(is_part), "{mapped}");
                if kind == Some(CompanionKind::Service) {
                    prop_assert!(!mapped.contains('.'), "{mapped}");
                    prop_assert!(mapped.starts_with(|first: char| first.is_ascii_lowercase()), "{mapped}");
                }
            }
        }
    }
}
