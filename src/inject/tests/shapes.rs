//! Workloads of the real world, injected, under snapshot; and what is refused.

use super::*;
use std::path::PathBuf;

fn shapes(folder: &str) -> Vec<(String, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/workloads")
        .join(folder);
    let mut shapes: Vec<(String, Value)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (
                name,
                serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap(),
            )
        })
        .collect();
    shapes.sort_by(|a, b| a.0.cmp(&b.0));
    shapes
}

#[test]
fn every_shape_of_the_real_world_is_injected_and_given_back() {
    let shapes = shapes("injected");
    assert!(shapes.len() >= 8);
    for (name, object) in shapes {
        let injected =
            inject(&object, "media", &installation()).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        assert_eq!(eject(&injected.object).object, object, "{name}");
        let explanation = explain(&object, Some("media"), &installation()).unwrap();
        let changes = serde_json::to_string_pretty(&patch(&object, injected.object.clone())).unwrap();
        insta::assert_snapshot!(format!("shape-{name}"), format!("{explanation}\n{changes}"));
    }
}

#[test]
fn of_what_was_injected_offline_the_webhook_changes_the_clusters_id_alone() {
    let cluster = Installation {
        cluster_id: Some("cluster-uid".to_owned()),
        ..installation()
    };
    for (name, object) in shapes("injected") {
        let rendered = inject(&object, "media", &installation()).unwrap().object;
        let Outcome::Allowed { patch, .. } = admit(&review(&rendered, None), &cluster) else {
            panic!("{name}: denied");
        };
        let changes = serde_json::to_value(&patch).unwrap();
        let changes = changes.as_array().unwrap();
        assert!(!changes.is_empty(), "{name}");
        for change in changes {
            assert_eq!(change["op"], "add", "{name}: {change}");
            assert_eq!(change["value"]["name"], "VIXENS_BACKUP_CLUSTER_ID", "{name}: {change}");
        }
    }
}

#[test]
fn every_refused_shape_says_what_is_wrong_and_what_to_write() {
    let shapes = shapes("refused");
    assert!(shapes.len() >= 8);
    let said: Vec<String> = shapes
        .iter()
        .map(|(name, object)| format!("{name}\n{}", denied(object)))
        .collect();
    insta::assert_snapshot!("refused", said.join("\n\n"));
}

#[test]
fn a_name_too_long_for_a_label_is_cut_and_hashed() {
    let name = "a".repeat(70);
    assert_eq!(label_value(&name).len(), 63);
    assert_ne!(label_value(&name), label_value(&"a".repeat(71)));
    assert_eq!(label_value("app"), "app");
}

#[test]
fn the_marker_is_small_and_an_oversized_one_is_refused() {
    let (stored, _) = admitted(&app(), None, &installation());
    let marker = text(&stored, "/metadata/annotations/vixens.io~1backup-injected").unwrap();
    assert!(marker.len() < 1500, "{}", marker.len());
    let mut large = app();
    large["metadata"]["annotations"]["vixens.io/backup-exclude"] = json!("pattern-of-some-length\n".repeat(500));
    assert!(denied(&large).contains("too long"));
}

#[test]
fn a_guaranteed_pod_stays_guaranteed() {
    let mut object = app();
    let amounts = json!({"cpu": "1", "memory": "1Gi"});
    object["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": amounts, "limits": amounts});
    let (stored, _) = admitted(&object, None, &installation());
    for container in stored["spec"]["template"]["spec"]["initContainers"].as_array().unwrap() {
        assert_eq!(container["resources"]["requests"], container["resources"]["limits"]);
    }
}
