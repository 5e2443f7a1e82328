//! PURE: Policy + facts → what is refused, and what is warned about (interface, "What is refused, and how").

use super::plan::{CONTAINERS, PlannedUser, VOLUMES};
use crate::agent::arguments::{Databases, Span, Tier, WorkloadKind};
use crate::policy::{Mode, Policy, Problem, is_ours, key};
use crate::workload::{Candidate, TEMPLATE, Workload, annotations, at};
use serde_json::Value;

/// Keys of ours on the pod template, where nobody reads them.
pub(super) fn template_problems(object: &Value) -> Vec<Problem> {
    let labels = at(object, &format!("{TEMPLATE}/metadata/labels"))
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, _)| ("label", name))
        .filter(|(_, name)| *name != key::PROFILE);
    annotations(object, TEMPLATE)
        .keys()
        .map(|name| ("annotation", name))
        .chain(labels)
        .filter(|(_, name)| is_ours(name))
        .map(|(what, name)| {
            Problem::conflict(
                name.as_str(),
                format!(
                    "this {what} is on the pod template, where it has no effect; move it up to the metadata.annotations \
                     of the workload itself"
                ),
            )
        })
        .collect()
}

/// Containers and volumes of the owner's that have our names: most often the hand-written pattern.
pub(super) fn name_problems(workload: &Workload<'_>) -> Vec<Problem> {
    let pod = &workload.pod;
    let containers = pod
        .init_containers
        .iter()
        .chain(&pod.containers)
        .filter(|name| CONTAINERS.contains(&name.as_str()))
        .map(|name| ("container", name));
    let volumes = pod
        .volumes
        .iter()
        .filter(|name| VOLUMES.contains(&name.as_str()))
        .map(|name| ("volume", name));
    containers
        .chain(volumes)
        .map(|(what, name)| {
            Problem::conflict(
                format!("{what} {name:?}"),
                format!(
                    "the hand-written backup pattern is still in this workload: remove the {what} {name:?} (or rename it, \
                     if it is something else); {} adds its own",
                    key::BACKUP
                ),
            )
        })
        .collect()
}

pub(super) fn replica_problems(policy: &Policy, workload: &Workload<'_>) -> Vec<Problem> {
    if workload.replicas <= 1 || policy.tier == Tier::Tier1 {
        return Vec::new();
    }
    let replicas = workload.replicas;
    match workload.name.kind {
        WorkloadKind::Deployment if policy.has_sidecar() => vec![Problem::conflict(
            "spec.replicas",
            format!(
                "{replicas} pods would write one backup; set replicas: 1, or make it a StatefulSet, whose pods have a \
                 place each"
            ),
        )],
        WorkloadKind::StatefulSet => policy
            .destinations
            .iter()
            .filter(|destination| !destination.path().contains("{pod}"))
            .map(|destination| {
                Problem::conflict(
                    key::DESTINATION,
                    format!(
                        "{replicas} pods would share {destination}; let the path hold {{pod}}, such as {destination}/{{pod}}"
                    ),
                )
            })
            .collect(),
        WorkloadKind::Deployment => Vec::new(),
    }
}

pub(super) fn mode_problems(policy: &Policy, workload: &Workload<'_>, candidates: &[Candidate<'_>]) -> Vec<Problem> {
    if policy.mode != Mode::CronJob || policy.tier == Tier::Tier1 {
        return Vec::new();
    }
    let live = (policy.tier == Tier::Tier3).then(|| {
        Problem::conflict(
            key::MODE,
            "cronjob comes and goes, and tier3 replicates databases as they are written; use sidecar or sidecar+cronjob, \
             or tier2",
        )
    });
    let several = (workload.replicas > 1 && !workload.is_stateful()).then(|| {
        Problem::conflict(
            key::MODE,
            format!("cronjob serves one pod, and there are {} replicas", workload.replicas),
        )
    });
    candidates
        .iter()
        .filter(|candidate| !candidate.volume.source.is_shared_claim())
        .map(|candidate| {
            Problem::conflict(
                key::MODE,
                format!(
                    "cronjob can't reach volume {:?} ({}): it lives inside the pod; use sidecar or sidecar+cronjob",
                    candidate.volume.name,
                    candidate.volume.source.describe()
                ),
            )
        })
        .chain(several)
        .chain(live)
        .collect()
}

/// Who our containers run as: whom the annotation names, or the app.
pub(super) fn user(
    policy: &Policy,
    workload: &Workload<'_>,
    candidates: &[Candidate<'_>],
) -> Result<PlannedUser, Problem> {
    let app = candidates
        .first()
        .map(|candidate| workload.pod.user_of(&candidate.container))
        .unwrap_or_default();
    let user = match policy.run_as {
        Some(run_as) => PlannedUser {
            uid: Some(run_as.uid.into()),
            gid: run_as.gid.map(u64::from).or(app.gid),
        },
        None => PlannedUser {
            uid: app.uid,
            gid: app.gid,
        },
    };
    match user.uid {
        None if app.non_root => Err(Problem::conflict(
            key::RUN_AS,
            format!(
                "the app has runAsNonRoot and names no user, and our containers must run as the same one; write {}: \
                 UID, or uid:gid (the user of its image)",
                key::RUN_AS
            ),
        )),
        Some(0) if app.non_root => Err(Problem::conflict(
            key::RUN_AS,
            "user 0 is root, and the pod has runAsNonRoot: it would not start; name the app's own user",
        )),
        _ => Ok(user),
    }
}

/// At tier 3: a restore to a point brings files and databases, as long as both are kept.
fn profile_warning(policy: &Policy) -> Option<String> {
    let (_, hours) = policy.profile.hours()?;
    let files = policy.retention.within?;
    let is_shorter = Span::seconds(u64::from(hours) * 3600).duration() < files.duration();
    (policy.tier == Tier::Tier3 && is_shorter).then(|| {
        format!(
            "{}: {}: databases can go back for {hours} h, and files for {files} (vixens.io/backup-retention): before that, a restore brings files \
             of one moment and databases of another",
            key::PROFILE,
            policy.profile
        )
    })
}

/// What the owner should know.
pub(super) fn warnings_of(
    policy: &Policy,
    workload: &Workload<'_>,
    user: PlannedUser,
    candidates: &[Candidate<'_>],
) -> Vec<String> {
    let mut warnings = Vec::new();
    let pod = &workload.pod;
    warnings.extend(profile_warning(policy));
    if policy.tier == Tier::Tier2 && matches!(policy.databases, Databases::Paths(_)) {
        warnings.push(format!(
            "{}: at tier2 a live database is saved by online backup once per interval ({}), not continuously",
            key::DATABASES,
            policy.interval
        ));
    }
    if user.uid.is_none() {
        warnings.push(format!(
            "the app's user is not known (no runAsUser): our containers run as root with few capabilities; say it with {}",
            key::RUN_AS
        ));
    }
    let users: Vec<Option<u64>> = candidates
        .iter()
        .flat_map(|candidate| candidate.volume.writable_mounts())
        .map(|mount| pod.user_of(&mount.container).uid)
        .collect();
    if policy.run_as.is_none() && users.iter().any(|uid| *uid != user.uid) {
        warnings.push(format!(
            "containers of different users write to the protected volume; ours run as {}; say which with {}",
            user.uid.map_or_else(|| "root".to_owned(), |uid| uid.to_string()),
            key::RUN_AS
        ));
    }
    if pod.host_network && pod.dns_policy.as_deref() != Some("ClusterFirstWithHostNet") {
        warnings.push(
            "hostNetwork without dnsPolicy: ClusterFirstWithHostNet: names of the cluster, such as the store's, do not \
             resolve in this pod"
                .to_owned(),
        );
    }
    if pod.share_process_namespace {
        warnings.push(
            "shareProcessNamespace: processes of the same user in this pod can read the store's credentials".to_owned(),
        );
    }
    warnings
}
