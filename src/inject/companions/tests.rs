//! Companions of the shapes of the real world, under snapshot; and what they must never hold.

use super::*;
use crate::inject::{Found, inject};
use crate::policy::Installation;
use std::path::PathBuf;

/// What has databases replicated keeps its sidecar: a CronJob alone is for tier 2.
const TIER2: (&str, &str) = ("vixens.io/backup", "tier2");

/// A workload as it would be stored, and its plan.
fn stored(mut object: Value, annotations: &[(&str, &str)]) -> (Value, Plan) {
    for (name, value) in annotations {
        object["metadata"]["annotations"][*name] = json!(value);
    }
    let installation = Installation {
        image: "vixens-backup:1".to_owned(),
        ..Installation::default()
    };
    let mut object = inject(&object, "media", &installation).unwrap().object;
    object["metadata"]["namespace"] = json!("media");
    object["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    let plan = Found::read(&object).known().unwrap().plan().unwrap();
    (object, plan)
}

fn shape(name: &str) -> Value {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/workloads/injected")
        .join(format!("{name}.yaml"));
    serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn made(name: &str, annotations: &[(&str, &str)]) -> Vec<Companion> {
    let (object, plan) = stored(shape(name), annotations);
    companions(&plan, &Surroundings::read(&object, &plan), Some("cluster-uid"))
}

fn manifest(companions: &[Companion], kind: CompanionKind) -> &Value {
    let found = companions.iter().find(|companion| companion.name.kind == kind);
    &found.unwrap().manifest
}

fn arguments(manifest: &Value) -> String {
    let job = manifest.pointer("/spec/jobTemplate").unwrap_or(manifest);
    let arguments = &job["spec"]["template"]["spec"]["containers"][0]["args"];
    let texts: Vec<&str> = arguments.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    texts.join("\n")
}

#[test]
fn the_companions_of_an_app_with_a_sidecar_one_with_several_pods_and_one_without_a_sidecar() {
    for (name, shape, annotations) in [
        ("sidecar", "two-containers", &[][..]),
        ("stateful-set", "stateful-set", &[]),
        ("cronjob", "sub-path", &[("vixens.io/backup-mode", "cronjob")]),
    ] {
        let manifests: Vec<Value> = made(shape, annotations)
            .into_iter()
            .map(|companion| companion.manifest)
            .collect();
        insta::assert_json_snapshot!(format!("companions-{name}"), manifests);
    }
}

#[test]
fn a_policy_asks_for_its_companions_and_for_no_others() {
    let names = |shape, annotations: &[(&str, &str)]| listed(&made_names(shape, annotations));
    assert_eq!(names("tier1", &[]), "");
    let app = "home-assistant";
    let schedule = ("vixens.io/backup-schedule", "3 4 * * *");
    assert_eq!(
        names(app, &[schedule]),
        "CronJob/home-assistant-backup (3 4 * * *), Job/home-assistant-restore, Service/home-assistant-backup"
    );
    assert_eq!(
        names(app, &[schedule, ("vixens.io/backup-mode", "sidecar")]),
        "Job/home-assistant-restore, Service/home-assistant-backup"
    );
    assert_eq!(
        names(app, &[schedule, TIER2, ("vixens.io/backup-mode", "cronjob")]),
        "CronJob/home-assistant-backup (3 4 * * *), Job/home-assistant-restore"
    );
}

fn made_names(name: &str, annotations: &[(&str, &str)]) -> Vec<CompanionName> {
    companion_names(&stored(shape(name), annotations).1)
}

/// Argo CD would prune what carries its tracking label, and Services and network policies select on the app's labels.
#[test]
fn nothing_of_the_owners_labels_and_annotations_is_copied() {
    let (mut object, plan) = stored(shape("home-assistant"), &[]);
    for place in ["/metadata", "/spec/template/metadata"] {
        let metadata = object.pointer_mut(place).unwrap();
        metadata["labels"]["app"] = json!("of-the-owner");
        metadata["labels"]["app.kubernetes.io/instance"] = json!("of-the-owner");
        metadata["annotations"]["argocd.argoproj.io/tracking-id"] = json!("of-the-owner");
    }
    for companion in companions(&plan, &Surroundings::read(&object, &plan), None) {
        let text = companion.manifest.to_string();
        assert!(!text.contains("of-the-owner"), "{text}");
        for labels in labels_in(&companion.manifest) {
            for name in ["app", "app.kubernetes.io/name", "app.kubernetes.io/instance", "k8s-app"] {
                assert!(labels.get(name).is_none(), "{name} in {labels}");
            }
        }
    }
}

/// Every `labels` below a value.
fn labels_in(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(entries) => {
            let own = entries.get("labels").into_iter();
            own.chain(entries.values().flat_map(labels_in)).collect()
        }
        Value::Array(items) => items.iter().flat_map(labels_in).collect(),
        _ => Vec::new(),
    }
}

/// The backup Job hung on a claim that was attached to another node.
#[test]
fn no_claim_is_mounted_where_a_sidecar_runs_else_beside_the_apps_pod() {
    let with_sidecar = made("home-assistant", &[]);
    let text = manifest(&with_sidecar, CompanionKind::CronJob).to_string();
    assert!(
        !text.contains("persistentVolumeClaim") && !text.contains("affinity"),
        "{text}"
    );

    let by_cron_job = [TIER2, ("vixens.io/backup-mode", "cronjob")];
    let (mut object, plan) = stored(shape("home-assistant"), &by_cron_job);
    let affinity = |object: &Value| {
        let made = companions(&plan, &Surroundings::read(object, &plan), None);
        let pod = &manifest(&made, CompanionKind::CronJob)["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        let claims = pod["volumes"].to_string();
        assert!(claims.contains(r#""readOnly":true"#), "{claims}");
        pod.get("affinity").cloned()
    };
    let found = affinity(&object).unwrap().to_string();
    assert!(found.contains(r#""vixens.io/backup-app":"home-assistant""#), "{found}");
    object["spec"]["replicas"] = json!(0);
    assert_eq!(affinity(&object), None, "a stopped app has no node");
}

#[test]
fn the_pods_of_a_stateful_set_are_each_asked_and_each_checked() {
    let made = made("stateful-set", &[]);
    let asked = arguments(manifest(&made, CompanionKind::CronJob));
    for pod in ["mosquitto-0", "mosquitto-1", "mosquitto-2"] {
        assert!(asked.contains(&format!("--ask={pod}.mosquitto:9476")), "{asked}");
    }
    assert!(asked.contains("--destination=minio:vixens-backups/{pod}"), "{asked}");
    let checked = arguments(manifest(&made, CompanionKind::RestoreJob));
    assert!(checked.contains("--replicas=3"), "{checked}");
    assert!(
        checked.contains("--destination=minio:vixens-backups/{pod}"),
        "{checked}"
    );
}

#[test]
fn on_the_nodes_network_the_question_goes_through_the_store() {
    let mut object = shape("home-assistant");
    object["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    object["spec"]["template"]["spec"]["dnsPolicy"] = json!("ClusterFirstWithHostNet");
    let (object, plan) = stored(object, &[]);
    let made = companions(&plan, &Surroundings::read(&object, &plan), None);
    let asked = arguments(manifest(&made, CompanionKind::CronJob));
    assert!(
        asked.lines().any(|line| line == "--ask=home-assistant-backup"),
        "{asked}"
    );
    assert_eq!(manifest(&made, CompanionKind::Service)["spec"].get("ports"), None);
}

#[test]
fn the_restore_job_is_for_a_new_workload_or_policy_and_never_for_an_upgrade_of_ours() {
    let (object, plan) = stored(shape("home-assistant"), &[]);
    let occasion = |object: &Value, plan: &Plan| {
        let made = companions(plan, &Surroundings::read(object, plan), None);
        let annotations = &manifest(&made, CompanionKind::RestoreJob)["metadata"]["annotations"];
        assert_eq!(annotations["argocd.argoproj.io/hook"], "PreSync");
        annotations[OCCASION].clone()
    };
    let before = occasion(&object, &plan);
    let upgraded = Plan {
        image: "vixens-backup:2".to_owned(),
        schedule: "1 2 3 4 5".to_owned(),
        grace_period: 600,
        ..plan.clone()
    };
    assert_eq!(occasion(&object, &upgraded), before);
    let mut again = object.clone();
    again["metadata"]["uid"] = json!("of-another-life");
    assert_ne!(occasion(&again, &plan), before);
    let elsewhere = Plan {
        destinations: vec!["minio:elsewhere/app".parse().unwrap()],
        ..plan.clone()
    };
    assert_ne!(occasion(&object, &elsewhere), before);
    let mut moved = object.clone();
    moved["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "fast"});
    assert_ne!(occasion(&moved, &plan), before);
}

#[test]
fn the_presync_job_is_the_restore_jobs_pod_as_a_hook_and_pins() {
    let (object, _) = stored(shape("home-assistant"), &[]);
    let job = presync_job(&object).unwrap();
    assert_eq!(job["metadata"]["name"], "home-assistant-presync");
    assert_eq!(job["metadata"]["namespace"], "media");
    let annotations = &job["metadata"]["annotations"];
    assert_eq!(annotations["argocd.argoproj.io/hook"], "PreSync");
    assert_eq!(
        annotations["argocd.argoproj.io/hook-delete-policy"],
        "BeforeHookCreation"
    );
    assert!(is_presync_job(&job));
    // Argo CD makes it: for the controller it is no companion, and nobody's.
    assert_eq!(job["metadata"]["labels"].get(key::COMPANION_LABEL), None);
    assert_eq!(job["metadata"].get("ownerReferences"), None);

    let restore = made("home-assistant", &[]);
    let restore = manifest(&restore, CompanionKind::RestoreJob);
    assert!(!is_presync_job(restore));
    let pod = |job: &Value| job["spec"]["template"]["spec"].clone();
    let (mut ours, mut theirs) = (pod(&job), pod(restore));
    let arguments = ours["containers"][0]["args"].take();
    let mut expected = theirs["containers"][0]["args"].take();
    let expected = expected.as_array_mut().unwrap();
    expected.push(json!("--pin"));
    let sorted = |list: &[Value]| {
        list.iter()
            .map(ToString::to_string)
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(sorted(arguments.as_array().unwrap()), sorted(expected));
    let environment = theirs["containers"][0]["env"].as_array_mut().unwrap();
    // Offline the cluster is not known.
    environment.retain(|variable| variable["name"] != "VIXENS_BACKUP_CLUSTER_ID");
    assert_eq!(ours, theirs);

    assert_eq!(presync_job(&stored(shape("tier1"), &[]).0), None);
    let (mut object, _) = stored(shape("home-assistant"), &[]);
    object["metadata"]["annotations"]["vixens.io/backup"] = json!("disabled");
    let object = inject(&object, "media", &Installation::default()).unwrap().object;
    assert_eq!(presync_job(&object), None);
}

#[test]
fn companions_pass_pod_security_restricted_when_the_app_has_a_user() {
    let (object, plan) = stored(shape("home-assistant"), &[("vixens.io/backup-run-as", "1000")]);
    for companion in companions(&plan, &Surroundings::read(&object, &plan), None) {
        if companion.name.kind == CompanionKind::Service {
            continue;
        }
        let job = companion
            .manifest
            .pointer("/spec/jobTemplate")
            .unwrap_or(&companion.manifest);
        let context = &job["spec"]["template"]["spec"]["containers"][0]["securityContext"];
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(context["runAsNonRoot"], json!(true));
        assert_eq!(context["allowPrivilegeEscalation"], json!(false));
        assert_eq!(context["seccompProfile"], json!({"type": "RuntimeDefault"}));
    }
}
