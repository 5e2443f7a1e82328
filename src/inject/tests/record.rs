//! The record of what the store held, as it is mounted; and the block of the release before, which has no such mount.

use super::*;

const INIT: &str = "/spec/template/spec/initContainers/0";

fn volumes(object: &Value) -> Vec<Value> {
    crate::workload::list(object, "/spec/template/spec/volumes").to_vec()
}

fn record_volumes(object: &Value) -> Vec<Value> {
    let volumes = volumes(object).into_iter();
    volumes.filter(|volume| volume["name"] == "backup-record").collect()
}

fn record_mounts(container: &Value) -> Vec<&str> {
    let mounts = crate::workload::list(container, "/volumeMounts").iter();
    let mounts = mounts.filter(|mount| mount["name"] == "backup-record" && mount["readOnly"] == true);
    mounts.filter_map(|mount| text(mount, "/mountPath")).collect()
}

/// The same workload as the release before has stored it.
fn of_the_release_before(stored: &Value) -> Value {
    let mut object = stored.clone();
    let without = |list: &mut Value| {
        list.as_array_mut()
            .unwrap()
            .retain(|item| item["name"] != "backup-record");
    };
    without(&mut object["spec"]["template"]["spec"]["volumes"]);
    without(object.pointer_mut(&format!("{INIT}/volumeMounts")).unwrap());
    object
}

fn with_image(object: &Value, image: &str) -> Value {
    let mut object = object.clone();
    object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    object
}

#[test]
fn the_record_is_mounted_where_it_is_there_and_only_where_a_start_reads_it() {
    let (stored, _) = admitted(&app(), None, &installation());
    let expected = json!({"name": "backup-record",
        "configMap": {"name": "app-backup-record", "optional": true, "defaultMode": 420}});
    assert_eq!(record_volumes(&stored), [expected]);
    assert_eq!(record_mounts(&stored.pointer(INIT).unwrap().clone()), ["/record"]);
    let sidecar = &stored["spec"]["template"]["spec"]["initContainers"][1];
    assert_eq!(record_mounts(sidecar), [""; 0]);
    assert!(!stored.to_string().contains("--record-dir"), "it lies where init looks");
    let mut tier1 = app();
    tier1["metadata"]["annotations"]["vixens.io/backup"] = json!("tier1");
    assert!(record_volumes(&admitted(&tier1, None, &installation()).0).is_empty());
}

#[test]
fn where_the_app_has_a_volume_there_the_record_lies_elsewhere() {
    let mut object = app();
    object["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = json!("/record");
    let (stored, _) = admitted(&object, None, &installation());
    let init = stored.pointer(INIT).unwrap();
    assert_eq!(record_mounts(init), ["/vixens-backup/record"]);
    assert!(
        init["args"].to_string().contains("--record-dir=/vixens-backup/record"),
        "{init}"
    );
}

#[test]
fn a_block_of_the_release_before_is_not_rolled_and_gets_the_record_with_the_next_rollout() {
    let (stored, _) = admitted(&app(), None, &installation());
    let before = of_the_release_before(&stored);
    assert_ne!(before, stored);
    let marker = Found::read(&before).known().unwrap();
    assert!(
        !marker.plan.contains_key("accepted"),
        "it is of a release that asks nothing"
    );
    let (same, _) = admitted(&before, Some(&before), &installation());
    assert_eq!(same, before);
    // A replace by the vanilla manifest, too.
    let (same, _) = admitted(&app(), Some(&before), &installation());
    assert_eq!(same["spec"]["template"], before["spec"]["template"]);
    let (rolled, _) = admitted(&with_image(&before, "app:2"), Some(&before), &installation());
    assert_eq!(rolled, with_image(&stored, "app:2"));
}

#[test]
fn what_the_release_before_leaves_of_the_record_when_it_is_back_is_ours_still() {
    let (stored, _) = admitted(&app(), None, &installation());
    let mut before = of_the_release_before(&stored);
    let left = record_volumes(&stored).remove(0);
    let list = before["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap();
    list.insert(0, left);
    let (same, _) = admitted(&before, Some(&before), &installation());
    assert_eq!(same, before, "no rollout");
    let (rolled, _) = admitted(&with_image(&before, "app:2"), Some(&before), &installation());
    assert_eq!(rolled, with_image(&stored, "app:2"));
    assert_eq!(eject(&before).object, app());
}

#[test]
fn a_volume_of_that_name_that_is_the_owners_stays_the_owners() {
    let own = json!({"name": "backup-record", "emptyDir": {}});
    let with_own = |object: &Value| {
        let mut object = object.clone();
        let list = object["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap();
        list.push(own.clone());
        object
    };
    assert!(denied(&with_own(&app())).contains("volume \"backup-record\""));
    // The release before let it pass.
    let (stored, _) = admitted(&app(), None, &installation());
    let before = with_own(&of_the_release_before(&stored));
    let changed = with_image(&before, "app:2");
    let (result, warnings) = admitted(&changed, Some(&before), &installation());
    assert_eq!(result, changed, "it is let through as it was");
    assert!(
        warnings.iter().any(|line| line.contains("backup-record")),
        "{warnings:?}"
    );
    let ejected = eject(&before);
    assert_eq!(ejected.object, with_own(&app()));
    assert_eq!(ejected.warnings.len(), 1);
}
