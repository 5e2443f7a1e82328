//! Volumes, users, ports and ownership are found from the workload itself.

use super::*;
use serde_json::json;

fn deployment(pod: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"},
           "spec": {"template": {"spec": pod}}})
}

/// Volume, folder, subPath and mount path of each.
type Selected = Vec<(String, String, Option<String>, String)>;

fn selected(pod: &Value, named: Option<&[&str]>) -> Result<Selected, String> {
    let object = deployment(pod);
    let workload = Workload::read(&object, Ownership::default()).unwrap();
    let named: Option<Vec<String>> = named.map(|names| names.iter().map(ToString::to_string).collect());
    match select(&workload.volumes, named.as_deref()) {
        Ok(candidates) => Ok(candidates
            .into_iter()
            .map(|candidate| {
                (
                    candidate.volume.name.clone(),
                    candidate.folder,
                    candidate.sub_path,
                    candidate.mount_path,
                )
            })
            .collect()),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

fn pod(volumes: &Value, mounts: &Value) -> Value {
    json!({"containers": [{"name": "app", "volumeMounts": mounts}], "volumes": volumes})
}

#[test]
fn one_claim_is_the_one_and_scratch_beside_it_is_not() {
    let pod = pod(
        &json!([{"name": "data", "persistentVolumeClaim": {"claimName": "app"}}, {"name": "tmp", "emptyDir": {}},
                {"name": "media", "nfs": {"server": "x", "path": "/"}}]),
        &json!([{"name": "data", "mountPath": "/config/"}, {"name": "tmp", "mountPath": "/work"}, {"name": "media", "mountPath": "/media"}]),
    );
    assert_eq!(
        selected(&pod, None).unwrap(),
        [("data".into(), "config".into(), None, "/config".into())]
    );
}

#[test]
fn several_claims_are_refused_with_the_candidates() {
    let pod = pod(
        &json!([{"name": "data", "persistentVolumeClaim": {"claimName": "a"}}, {"name": "media", "persistentVolumeClaim": {"claimName": "b"}}]),
        &json!([{"name": "data", "mountPath": "/config"}, {"name": "media", "mountPath": "/media"}]),
    );
    insta::assert_snapshot!(selected(&pod, None).unwrap_err(), @"vixens.io/backup-volumes: the app writes to several claims: data (claim a at /config), media (claim b at /media); say which to protect, for example vixens.io/backup-volumes: data");
    assert_eq!(selected(&pod, Some(&["media", "data"])).unwrap().len(), 2);
}

#[test]
fn an_empty_dir_is_taken_only_where_it_is_the_only_one_that_is_not_scratch() {
    let volumes = json!([{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}, {"name": "ram", "emptyDir": {"medium": "Memory"}}]);
    let scratch = pod(
        &volumes,
        &json!([{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/var/cache/app"}, {"name": "ram", "mountPath": "/ram"}]),
    );
    assert_eq!(selected(&scratch, None).unwrap()[0].0, "data");
    let two = pod(
        &volumes,
        &json!([{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/work"}]),
    );
    let refusal = selected(&two, None).unwrap_err();
    assert!(
        refusal.contains("data (emptyDir at /data)") && refusal.contains("tmp (emptyDir at /work)"),
        "{refusal}"
    );
}

#[test]
fn nothing_to_protect_and_a_wrong_name_say_what_could_be_named() {
    let pod = pod(
        &json!([{"name": "media", "nfs": {"server": "x", "path": "/"}}, {"name": "settings", "configMap": {"name": "x"}}]),
        &json!([{"name": "media", "mountPath": "/media"}, {"name": "settings", "mountPath": "/settings"}]),
    );
    insta::assert_snapshot!(selected(&pod, None).unwrap_err(), @"vixens.io/backup-volumes: there is nothing to protect: no container of the app writes to a claim or an emptyDir; write vixens.io/backup-volumes with one of: media (NFS at /media)");
    insta::assert_snapshot!(selected(&pod, Some(&["data"])).unwrap_err(), @r#"vixens.io/backup-volumes: there is no volume "data" in this pod; write vixens.io/backup-volumes with one of: media (NFS at /media)"#);
    assert!(selected(&pod, Some(&["settings"])).is_err());
}

#[test]
fn one_literal_sub_path_is_protected_below_it_and_several_only_when_named() {
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "shared"}}]);
    let one = pod(
        &volumes,
        &json!([{"name": "data", "mountPath": "/config", "subPath": "app"}]),
    );
    assert_eq!(
        selected(&one, None).unwrap(),
        [("data".into(), "config".into(), Some("app".into()), "/config".into())]
    );
    let two = pod(
        &volumes,
        &json!([{"name": "data", "mountPath": "/config", "subPath": "a"}, {"name": "data", "mountPath": "/db", "subPath": "b"}]),
    );
    assert!(selected(&two, None).unwrap_err().contains("several subPaths"));
    assert_eq!(
        selected(&two, Some(&["data"])).unwrap(),
        [("data".into(), "data".into(), None, "/config".into())]
    );
    let expression = pod(
        &volumes,
        &json!([{"name": "data", "mountPath": "/config", "subPathExpr": "$(POD)"}]),
    );
    assert!(selected(&expression, None).unwrap_err().contains("subPathExpr"));
}

#[test]
fn two_volumes_whose_paths_end_alike_take_their_own_names() {
    let pod = pod(
        &json!([{"name": "a", "persistentVolumeClaim": {"claimName": "a"}}, {"name": "b", "persistentVolumeClaim": {"claimName": "b"}}]),
        &json!([{"name": "a", "mountPath": "/one/config"}, {"name": "b", "mountPath": "/two/config"}]),
    );
    let folders: Vec<String> = selected(&pod, Some(&["a", "b"]))
        .unwrap()
        .into_iter()
        .map(|c| c.1)
        .collect();
    assert_eq!(folders, ["a", "b"]);
}

#[test]
fn the_claim_templates_of_a_stateful_set_are_claims() {
    let object = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
        "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        "template": {"spec": {"containers": [{"name": "db", "volumeMounts": [{"name": "data", "mountPath": "/var/lib/db"}]}]}}}});
    let workload = Workload::read(&object, Ownership::default()).unwrap();
    assert!(workload.is_stateful());
    let candidates = select(&workload.volumes, None).unwrap();
    assert_eq!(candidates[0].volume.source, Source::ClaimTemplate);
    assert_eq!(candidates[0].folder, "db");
}

#[test]
fn the_user_is_the_containers_and_else_the_pods() {
    let object = deployment(
        &json!({"securityContext": {"runAsUser": 1000, "runAsNonRoot": true}, "containers": [
            {"name": "a", "securityContext": {"runAsUser": 7, "runAsGroup": 8, "runAsNonRoot": false}}, {"name": "b"}]}),
    );
    let pod = PodFacts::read(&object);
    assert_eq!(
        pod.user_of("a"),
        User {
            uid: Some(7),
            gid: Some(8),
            non_root: false
        }
    );
    assert_eq!(
        pod.user_of("b"),
        User {
            uid: Some(1000),
            gid: None,
            non_root: true
        }
    );
}

fn client_side(strategy: bool) -> Value {
    let mut applied = json!({"spec": {"template": {}}});
    if strategy {
        applied["spec"]["strategy"] = json!({"type": "RollingUpdate"});
    }
    json!({
        "metadata": {
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()},
            "managedFields": [{"manager": "kubectl-client-side-apply", "operation": "Update", "fieldsV1":
                {"f:spec": {"f:strategy": {".": {}, "f:type": {}}, "f:progressDeadlineSeconds": {}}}}]},
        "spec": {"strategy": {"type": "RollingUpdate"}, "progressDeadlineSeconds": 600}})
}

#[test]
fn a_client_side_apply_owns_what_its_manifest_says_and_no_defaults() {
    assert!(!Ownership::recorded(&client_side(false)).owns(Setting::Strategy));
    assert!(Ownership::recorded(&client_side(true)).owns(Setting::Strategy));
}

#[test]
fn a_server_side_apply_owns_its_fields() {
    let object = json!({"metadata": {"managedFields": [
        {"operation": "Apply", "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:terminationGracePeriodSeconds": {}}}}}},
        {"operation": "Update", "subresource": "status", "fieldsV1": {"f:spec": {"f:strategy": {}}}}]}});
    let ownership = Ownership::recorded(&object);
    assert!(ownership.owns(Setting::GracePeriod));
    assert!(!ownership.owns(Setting::Strategy));
}

#[test]
fn a_plain_create_owns_only_what_is_not_the_default() {
    let mut object = client_side(false);
    object["metadata"].as_object_mut().unwrap().remove("annotations");
    assert!(!Ownership::recorded(&object).owns(Setting::ProgressDeadline));
    object["spec"]["progressDeadlineSeconds"] = json!(900);
    assert!(Ownership::recorded(&object).owns(Setting::ProgressDeadline));
}
