//! Beside other webhooks: what they add to our containers stays, and what we set stays ours.

use super::*;

const INIT: &str = "/spec/template/spec/initContainers/0";

/// The stored app, after another webhook has added to each container what policies add.
fn added_to(stored: &Value) -> Value {
    let mut object = stored.clone();
    let pod = object.pointer_mut("/spec/template/spec").unwrap();
    for list in ["containers", "initContainers"] {
        for container in pod[list].as_array_mut().unwrap() {
            container["resources"]["limits"]["ephemeral-storage"] = json!("1Gi");
            container["stdin"] = json!(false);
            let variables = container["env"].as_array().cloned().unwrap_or_default();
            let first = json!({"name": "SSL_CERT_DIR", "value": "/authorities"});
            container["env"] = [vec![first], variables].concat().into();
            let mounts = container["volumeMounts"].as_array_mut().unwrap();
            mounts.push(json!({"name": "authorities", "mountPath": "/authorities", "readOnly": true}));
        }
    }
    let volumes = pod["volumes"].as_array_mut().unwrap();
    for volume in volumes.iter_mut().filter(|volume| volume["emptyDir"].is_object()) {
        volume["emptyDir"]["sizeLimit"] = json!("2Gi");
    }
    volumes.push(json!({"name": "authorities", "configMap": {"name": "authorities"}}));
    object
}

#[track_caller]
fn is_added_to(object: &Value) {
    for list in ["containers", "initContainers"] {
        for container in object["spec"]["template"]["spec"][list].as_array().unwrap() {
            let names = |list: &str, key: &str| -> Vec<String> {
                let items = container[list].as_array().unwrap().iter();
                items.map(|item| item[key].as_str().unwrap().to_owned()).collect()
            };
            assert_eq!(container["resources"]["limits"]["ephemeral-storage"], "1Gi");
            assert_eq!(container["stdin"], false);
            assert!(names("env", "name").contains(&"SSL_CERT_DIR".to_owned()));
            assert!(names("volumeMounts", "mountPath").contains(&"/authorities".to_owned()));
        }
    }
    let volumes = object["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let restore = volumes
        .iter()
        .find(|volume| volume["name"] == "restore-volume")
        .unwrap();
    assert_eq!(restore["emptyDir"]["sizeLimit"], "2Gi");
}

#[test]
fn what_another_webhook_adds_to_the_block_stays_when_we_are_asked_again() {
    let (stored, _) = admitted(&app(), None, &installation());
    let (created, _) = admitted(&added_to(&stored), None, &installation());
    is_added_to(&created);
    let (again, _) = admitted(&created, None, &installation());
    assert_eq!(again.to_string(), created.to_string());
    // An update that the owner makes, and one in which nothing but the other webhook's changes is new.
    let mut updated = created.clone();
    updated["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:2");
    is_added_to(&admitted(&updated, Some(&created), &installation()).0);
    is_added_to(&admitted(&added_to(&stored), Some(&stored), &installation()).0);
}

#[test]
fn what_we_set_stays_as_we_set_it() {
    let (stored, _) = admitted(&app(), None, &installation());
    let mut changed = stored.clone();
    let container = changed.pointer_mut(INIT).unwrap();
    container["image"] = json!("elsewhere/vixens-backup:1");
    container["args"] = json!(["--tier=tier1"]);
    container["env"][0] = json!({"name": "POD_NAME", "value": "another"});
    container["volumeMounts"][0] = json!({"name": "other", "mountPath": "/config"});
    container["resources"]["limits"]["memory"] = json!("1Mi");
    container["securityContext"]["capabilities"] = json!({"drop": [], "add": ["SYS_ADMIN"]});
    changed["spec"]["template"]["spec"]["volumes"][1] = json!({"name": "restore-volume", "hostPath": {"path": "/"}});
    let (result, _) = admitted(&changed, None, &installation());
    assert_eq!(result["spec"], stored["spec"]);
}

#[test]
fn a_block_of_another_plan_or_refresh_is_replaced_whole_and_then_added_to() {
    for (annotation, value) in [("vixens.io/backup-retention", "30d"), ("vixens.io/backup-refresh", "1")] {
        let (stored, _) = admitted(&app(), None, &installation());
        let mut changed = added_to(&stored);
        changed["metadata"]["annotations"][annotation] = json!(value);
        let (result, _) = admitted(&changed, Some(&added_to(&stored)), &installation());
        let mut fresh = app();
        fresh["metadata"]["annotations"][annotation] = json!(value);
        let (fresh, _) = admitted(&fresh, None, &installation());
        assert_eq!(result.pointer(INIT), fresh.pointer(INIT), "{annotation}");
        // The other webhook is asked after us, and we after it.
        let (again, _) = admitted(&added_to(&fresh), Some(&added_to(&stored)), &installation());
        is_added_to(&again);
    }
}

#[test]
fn what_was_added_goes_with_the_block() {
    let (stored, _) = admitted(&app(), None, &installation());
    let mut removed = added_to(&stored);
    removed["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .shift_remove("vixens.io/backup");
    let (result, _) = admitted(&removed, Some(&stored), &installation());
    let pod = &result["spec"]["template"]["spec"];
    assert!(pod.get("initContainers").is_none());
    let volumes: Vec<&Value> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| &volume["name"])
        .collect();
    assert_eq!(volumes, ["data", "authorities"]);
}

#[test]
fn a_pod_that_another_webhook_makes_guaranteed_stays_so_with_us() {
    let (stored, _) = admitted(&app(), None, &installation());
    let mut limited = stored.clone();
    let limits = json!({"cpu": "1", "memory": "1Gi"});
    limited["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": limits, "limits": limits});
    let (created, _) = admitted(&limited, None, &installation());
    for container in created["spec"]["template"]["spec"]["initContainers"]
        .as_array()
        .unwrap()
    {
        let resources = &container["resources"];
        assert_eq!(resources["requests"], resources["limits"], "{}", container["name"]);
    }
}
