//! Properties that hold for every workload (design, decision 1).

use super::*;
use proptest::prelude::*;

/// A list that is absent, `null`, empty or filled.
fn list(items: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        Just(Some(json!([]))),
        prop::collection::vec(items, 1..4).prop_map(|mut items| {
            items.dedup_by(|a, b| a["name"] == b["name"]);
            Some(Value::Array(items))
        }),
    ]
    .boxed()
}

fn owners_container() -> impl Strategy<Value = Value> {
    (
        "[a-z]{1,6}",
        prop::option::of(1_u64..70_000),
        prop::option::of(9470_u64..9480),
        any::<bool>(),
    )
        .prop_map(|(name, user, port, restarts)| {
            let mut container = json!({"name": name, "image": "x:1", "x-unknown-field": {"kept": [1, null, "2"]}});
            if let Some(user) = user {
                container["securityContext"] = json!({"runAsUser": user});
            }
            if let Some(port) = port {
                container["ports"] = json!([{"containerPort": port}]);
            }
            if restarts {
                container["restartPolicy"] = json!("Always");
            }
            container
        })
}

fn owners_volume() -> impl Strategy<Value = Value> {
    "[a-z]{1,6}".prop_map(|name| json!({"name": format!("v-{name}"), "configMap": {"name": name}}))
}

fn put(object: &mut Value, path: &str, name: &str, value: Option<Value>) {
    let parent = object.pointer_mut(path).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(name.to_owned(), value),
        None => parent.shift_remove(name),
    };
}

prop_compose! {
    fn workload()(
        init in list(owners_container()),
        sidekick in prop::option::of(owners_container()),
        labels in prop_oneof![Just(None), Just(Some(Value::Null)), Just(Some(json!({}))), Just(Some(json!({"app": "app"})))],
        metadata in any::<bool>(),
        strategy in prop_oneof![Just(None), Just(Some(Value::Null)), Just(Some(json!({"type": "RollingUpdate"}))), Just(Some(json!({"type": "Recreate"})))],
        grace in prop_oneof![Just(None), Just(Some(json!(30))), Just(Some(json!(300)))],
        deadline in prop_oneof![Just(None), Just(Some(json!(600)))],
        volume in prop::option::of(owners_volume()),
        tier in prop::sample::select(vec!["tier1", "tier2", "tier3"]),
        mode in prop::option::of(prop::sample::select(vec!["sidecar", "cronjob", "sidecar+cronjob"])),
        position in prop::option::of(prop::sample::select(vec!["first", "last"])),
        path in prop::sample::select(vec!["/config", "/data/x", "/restore", "/secrets/y"]),
        host_network in any::<bool>(),
        stateful in any::<bool>(),
    ) -> Value {
        let mut object = app();
        put(&mut object, "/spec/template/spec", "initContainers", init);
        if let Some(sidekick) = sidekick {
            object["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().push(sidekick);
        }
        put(&mut object, "/spec/template/metadata", "labels", labels);
        if !metadata {
            put(&mut object, "/spec/template", "metadata", None);
        }
        put(&mut object, "/spec", "strategy", strategy);
        put(&mut object, "/spec", "progressDeadlineSeconds", deadline);
        put(&mut object, "/spec/template/spec", "terminationGracePeriodSeconds", grace);
        if let Some(volume) = volume {
            object["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap().insert(0, volume);
        }
        object["metadata"]["annotations"]["vixens.io/backup"] = json!(tier);
        // Refused together.
        if let Some(mode) = mode.filter(|mode| *mode != "cronjob" || tier != "tier3") {
            object["metadata"]["annotations"]["vixens.io/backup-mode"] = json!(mode);
        }
        if let Some(position) = position {
            object["metadata"]["annotations"]["vixens.io/backup-init-position"] = json!(position);
        }
        object["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = json!(path);
        if host_network {
            object["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
        }
        if stateful {
            object["kind"] = json!("StatefulSet");
            put(&mut object, "/spec/template/spec", "volumes", None);
            object["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}}]);
        }
        object
    }
}

fn names(object: &Value, list: &str) -> Vec<Value> {
    crate::workload::list(object, &format!("/spec/template/spec/{list}")).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn inject_twice_is_inject_once(object in workload()) {
        let once = inject(&object, "media", &installation()).unwrap().object;
        let twice = inject(&once, "media", &installation()).unwrap().object;
        prop_assert_eq!(once.to_string(), twice.to_string());
    }

    #[test]
    fn strip_gives_the_original_back_byte_for_byte(object in workload()) {
        let injected = inject(&object, "media", &installation()).unwrap().object;
        prop_assert_ne!(&injected, &object);
        prop_assert_eq!(eject(&injected).object.to_string(), object.to_string());
        prop_assert_eq!(eject(&object).object.to_string(), object.to_string());
    }

    #[test]
    fn what_the_owner_wrote_survives_in_its_order(object in workload()) {
        let injected = inject(&object, "media", &installation()).unwrap().object;
        for list in ["initContainers", "containers", "volumes"] {
            let kept: Vec<Value> = names(&injected, list)
                .into_iter()
                .filter(|item| names(&object, list).contains(item))
                .collect();
            prop_assert_eq!(kept, names(&object, list));
        }
        prop_assert_eq!(&injected["spec"]["selector"], &object["spec"]["selector"]);
    }

    #[test]
    fn the_order_of_keys_does_not_matter(object in workload()) {
        let mut turned = object.clone();
        turn(&mut turned);
        let injected = inject(&object, "media", &installation()).unwrap().object;
        let from_turned = inject(&turned, "media", &installation()).unwrap().object;
        prop_assert_eq!(injected, from_turned);
    }

    #[test]
    fn the_patch_leads_to_the_injected_object_and_a_second_review_changes_nothing(object in workload()) {
        let (stored, _) = admitted(&object, None, &installation());
        prop_assert_ne!(&stored, &object);
        let again = admit(&review(&stored, Some(&stored)), &installation());
        prop_assert!(matches!(&again, Outcome::Allowed { patch, .. } if patch.0.is_empty()), "{:?}", again);
        let created = admit(&review(&stored, None), &installation());
        prop_assert!(matches!(&created, Outcome::Allowed { patch, .. } if patch.0.is_empty()), "{:?}", created);
    }

    #[test]
    fn any_two_values_have_a_patch_between_them(from in workload(), to in workload()) {
        let mut patched = from.clone();
        json_patch::patch(&mut patched, &patch(&from, to.clone())).unwrap();
        prop_assert_eq!(patched, to);
    }

    #[test]
    fn no_review_panics(
        mut object in workload(),
        path in prop::sample::select(vec!["/spec", "/spec/template", "/spec/template/spec", "/spec/template/metadata",
            "/metadata", "/metadata/annotations", "/spec/template/spec/containers", "/spec/template/spec/volumes",
            "/spec/template/spec/containers/0", "/spec/template/spec/containers/0/volumeMounts/0", "/spec/strategy"]),
        value in prop::sample::select(vec![json!(null), json!([]), json!({}), json!("text"), json!(7), json!([null]), json!([[]])]),
    ) {
        if let Some(slot) = object.pointer_mut(path) {
            *slot = value;
        }
        let _ = admit(&review(&object, None), &installation());
        let _ = admit(&review(&object, Some(&app())), &installation());
        let _ = admit(&review(&app(), Some(&object)), &installation());
        let _ = inject(&object, "media", &installation());
        let _ = explain(&object, None, &installation());
        let _ = eject(&object);
    }
}

/// Turns the order of every map's keys.
fn turn(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            let turned: Vec<(String, Value)> = std::mem::take(entries).into_iter().rev().collect();
            for (name, mut value) in turned {
                turn(&mut value);
                entries.insert(name, value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(turn),
        _ => {}
    }
}
