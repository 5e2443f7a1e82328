//! Never cause a rollout: an upgrade of ours, a re-apply and a replace leave the template as it is.

use super::*;

fn upgraded() -> Installation {
    Installation {
        image: "vixens-backup:2".to_owned(),
        ..Installation::default()
    }
}

fn image(object: &Value) -> &str {
    text(object, "/spec/template/spec/initContainers/0/image").unwrap()
}

#[test]
fn an_upgrade_of_ours_changes_nothing_until_the_owner_rolls_out() {
    let (stored, _) = admitted(&app(), None, &installation());
    let (same, _) = admitted(&stored, Some(&stored), &upgraded());
    assert_eq!(same.to_string(), stored.to_string());
    let mut restarted = stored.clone();
    restarted["spec"]["template"]["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/restartedAt": "now"});
    let (rolled, _) = admitted(&restarted, Some(&stored), &upgraded());
    assert_eq!(image(&rolled), "vixens-backup:2");
}

/// What the webhook of a cluster whose id is known would do.
fn in_cluster(image: &str) -> Installation {
    Installation {
        image: image.to_owned(),
        cluster_id: Some("cluster-uid".to_owned()),
        ..Installation::default()
    }
}

/// As `inject` renders it, of a release of its own.
fn rendered(manifest: &Value, image: &str) -> Value {
    let offline = Installation {
        image: image.to_owned(),
        ..Installation::default()
    };
    inject(manifest, "media", &offline).unwrap().object
}

/// Argo CD would apply it again and again, were anything of it changed.
#[test]
fn a_rendered_manifest_is_stored_as_it_is_whichever_release_has_rendered_it() {
    for (plugin, webhook) in [
        ("vixens-backup:1", "vixens-backup:2"),
        ("vixens-backup:2", "vixens-backup:1"),
    ] {
        let cluster = in_cluster(webhook);
        let (stored, _) = admitted(&rendered(&app(), plugin), None, &cluster);
        assert_eq!(image(&stored), plugin);
        assert!(stored.to_string().contains("cluster-uid"));
        // Applied again: replaced by it, and merged into what is stored.
        let (replaced, _) = admitted(&rendered(&app(), plugin), Some(&stored), &cluster);
        assert_eq!(replaced, stored);
        let mut merged = stored.clone();
        let marker = text(&stored, "/metadata/annotations/vixens.io~1backup-injected").unwrap();
        let applied = json!({"metadata": {"annotations": {"vixens.io/backup-injected": marker}}});
        merged["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
            json!(applied.to_string());
        let (again, _) = admitted(&merged, Some(&merged), &cluster);
        assert_eq!(again, merged);
        // Git has another release of the app: of ours nothing moves.
        let mut changed = merged.clone();
        changed["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:2");
        let (result, _) = admitted(&changed, Some(&merged), &cluster);
        assert_eq!(result, changed);
    }
}

#[test]
fn a_rendered_manifest_can_be_applied_over_one_that_was_never_injected() {
    let mut merged = rendered(&app(), "vixens-backup:1");
    assert_eq!(merged["spec"]["strategy"], json!({"type": "Recreate"}));
    // What the API server had filled in before, and a server-side apply leaves.
    merged["spec"]["strategy"]["rollingUpdate"] = json!({"maxUnavailable": "25%", "maxSurge": "25%"});
    let (stored, _) = admitted(&merged, Some(&app()), &in_cluster("vixens-backup:1"));
    assert_eq!(stored["spec"]["strategy"], json!({"type": "Recreate"}));
    assert!(stored.to_string().contains("cluster-uid"));
}

#[test]
fn what_a_rendered_manifest_asks_for_beyond_its_annotations_is_not_taken() {
    let mut forged = rendered(&app(), "vixens-backup:1");
    let marker = text(&forged, "/metadata/annotations/vixens.io~1backup-injected").unwrap();
    let marker = marker.replace("minio:vixens-backups/app", "minio:vixens-backups/other");
    forged["metadata"]["annotations"]["vixens.io/backup-injected"] = json!(marker);
    let (stored, _) = admitted(&forged, None, &in_cluster("vixens-backup:2"));
    let plan = Found::read(&stored).known().unwrap().plan().unwrap();
    assert_eq!(plan.destinations[0].to_string(), "minio:vixens-backups/app");
    let mut edited = rendered(&app(), "vixens-backup:1");
    edited["spec"]["template"]["spec"]["initContainers"][0]["args"] = json!([]);
    let (stored, _) = admitted(&edited, None, &in_cluster("vixens-backup:2"));
    assert_ne!(
        stored["spec"]["template"]["spec"]["initContainers"][0]["args"],
        json!([])
    );
}

#[test]
fn backup_refresh_brings_the_new_block() {
    let (stored, _) = admitted(&app(), None, &installation());
    let mut refreshed = stored.clone();
    refreshed["metadata"]["annotations"]["vixens.io/backup-refresh"] = json!("1");
    let (result, _) = admitted(&refreshed, Some(&stored), &upgraded());
    assert_eq!(image(&result), "vixens-backup:2");
}

#[test]
fn a_replace_by_the_vanilla_manifest_keeps_the_block() {
    let mut vanilla = app();
    // What the API server fills in before we are asked.
    vanilla["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}});
    vanilla["spec"]["progressDeadlineSeconds"] = json!(600);
    vanilla["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(30);
    let (stored, _) = admitted(&vanilla, None, &installation());
    let (replaced, _) = admitted(&vanilla, Some(&stored), &upgraded());
    assert_eq!(replaced, stored);
}

#[test]
fn what_only_companions_feel_updates_the_marker_alone() {
    let (stored, _) = admitted(&app(), None, &installation());
    let mut changed = stored.clone();
    changed["metadata"]["annotations"]["vixens.io/backup-schedule"] = json!("3 3 * * *");
    let (result, _) = admitted(&changed, Some(&stored), &upgraded());
    assert_eq!(result["spec"], stored["spec"]);
    let marker = Found::read(&result).known().unwrap();
    assert_eq!(marker.plan["schedule"], "3 3 * * *");
    assert_eq!(marker.plan["image"], "vixens-backup:1");
}

#[test]
fn a_change_of_the_app_brings_the_new_block_beside_it() {
    let (stored, _) = admitted(&app(), None, &installation());
    let mut changed = stored.clone();
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:2");
    let (result, _) = admitted(&changed, Some(&stored), &upgraded());
    assert_eq!(image(&result), "vixens-backup:2");
    assert_eq!(
        result["spec"]["template"]["spec"]["containers"],
        changed["spec"]["template"]["spec"]["containers"]
    );
}

#[test]
fn removing_the_annotation_un_injects_in_every_way_and_says_so() {
    let (stored, _) = admitted(&app(), None, &installation());
    let mut removed = stored.clone();
    removed["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .shift_remove("vixens.io/backup");
    let (result, warnings) = admitted(&removed, Some(&stored), &installation());
    let mut vanilla = app();
    vanilla["metadata"]["annotations"] = json!({});
    assert_eq!(result, vanilla);
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("backups of this workload end here")),
        "{warnings:?}"
    );
    // Replaced by a manifest that never had it.
    let (result, warnings) = admitted(&vanilla, Some(&stored), &installation());
    assert_eq!(result, vanilla);
    assert_eq!(warnings.len(), 1);
    let mut disabled = stored.clone();
    disabled["metadata"]["annotations"]["vixens.io/backup"] = json!("disabled");
    let (result, _) = admitted(&disabled, Some(&stored), &installation());
    assert_eq!(result["spec"], app()["spec"]);
}

#[test]
fn what_an_applier_owns_is_never_changed_but_warned_about() {
    let mut object = app();
    let applied = json!({"spec": {"strategy": {"type": "RollingUpdate"}, "progressDeadlineSeconds": 60, "template": {"spec": {"terminationGracePeriodSeconds": 5}}}});
    object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!(applied.to_string());
    object["spec"]["strategy"] = json!({"type": "RollingUpdate"});
    object["spec"]["progressDeadlineSeconds"] = json!(60);
    object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(5);
    let (result, warnings) = admitted(&object, None, &installation());
    assert_eq!(result["spec"]["strategy"], object["spec"]["strategy"]);
    assert_eq!(result["spec"]["progressDeadlineSeconds"], 60);
    assert_eq!(result["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 5);
    for name in ["strategy", "progressDeadlineSeconds", "terminationGracePeriodSeconds"] {
        assert!(
            warnings.iter().any(|warning| warning.starts_with(name)),
            "{name}: {warnings:?}"
        );
    }
}

#[test]
fn a_setting_that_the_owner_takes_over_stays_as_the_owner_wrote_it() {
    let (stored, _) = admitted(&app(), None, &installation());
    assert_eq!(stored["spec"]["strategy"], json!({"type": "Recreate"}));
    let mut taken = stored.clone();
    let applied = json!({"spec": {"strategy": {"type": "RollingUpdate"}, "template": {"spec": {"terminationGracePeriodSeconds": 30}}}});
    taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!(applied.to_string());
    taken["spec"]["strategy"] = json!({"type": "RollingUpdate"});
    taken["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(30);
    let (result, _) = admitted(&taken, Some(&stored), &installation());
    assert_eq!(result["spec"]["strategy"], json!({"type": "RollingUpdate"}));
    assert_eq!(result["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 30);
    let (again, _) = admitted(&result, Some(&result), &installation());
    assert_eq!(again, result);
    // And when the annotation goes, it is still the owner's.
    let mut removed = result.clone();
    removed["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .shift_remove("vixens.io/backup");
    let (result, _) = admitted(&removed, Some(&result), &installation());
    assert_eq!(result["spec"]["strategy"], json!({"type": "RollingUpdate"}));
}

#[test]
fn a_manifest_rendered_offline_is_kept_as_it_was_rendered() {
    let rendered = inject(&app(), "media", &installation()).unwrap().object;
    let mut applied = rendered.clone();
    applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
        json!(rendered.to_string());
    let (stored, _) = admitted(&applied, None, &installation());
    assert_eq!(stored, applied);
    let cluster = Installation {
        cluster_id: Some("uid".to_owned()),
        ..installation()
    };
    let (stored, _) = admitted(&applied, None, &cluster);
    let mut without_id = stored.clone();
    for container in without_id["spec"]["template"]["spec"]["initContainers"]
        .as_array_mut()
        .unwrap()
    {
        container["env"]
            .as_array_mut()
            .unwrap()
            .retain(|variable| variable["name"] != "VIXENS_BACKUP_CLUSTER_ID");
    }
    assert_eq!(without_id, applied);
}

#[test]
fn a_block_of_an_unknown_version_is_kept() {
    let (mut stored, _) = admitted(&app(), None, &installation());
    stored["metadata"]["annotations"]["vixens.io/backup-injected"] =
        json!("{\"version\": 99, \"plan\": {}, \"from\": {}}");
    let (result, warnings) = admitted(&stored, Some(&stored), &upgraded());
    assert_eq!(result, stored);
    assert!(warnings[0].contains("another version"));
}

#[test]
fn what_was_invalid_before_and_is_not_made_worse_is_let_through() {
    let mut invalid = app();
    invalid["metadata"]["annotations"]["vixens.io/backup-settle"] = json!("never");
    let mut edited = invalid.clone();
    edited["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:2");
    let (result, warnings) = admitted(&edited, Some(&invalid), &installation());
    assert_eq!(result, edited);
    assert!(
        warnings.iter().any(|warning| warning.contains("backup-settle")),
        "{warnings:?}"
    );
    let mut worse = edited.clone();
    worse["metadata"]["annotations"]["vixens.io/backup-oops"] = json!("1");
    assert!(matches!(
        admit(&review(&worse, Some(&invalid)), &installation()),
        Outcome::Denied { .. }
    ));
}

#[test]
fn an_object_that_is_being_deleted_and_an_excluded_namespace_pass_as_they_are() {
    let mut leaving = app();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-11-22T13:05:00Z");
    leaving["metadata"]["annotations"]["vixens.io/backup-oops"] = json!("1");
    assert_eq!(admitted(&leaving, None, &installation()).0, leaving);
    let excluded = Installation {
        excluded_namespaces: vec!["media".to_owned()],
        ..installation()
    };
    assert_eq!(admitted(&app(), None, &excluded).0, app());
}

#[test]
fn what_kubectl_claims_for_one_request_of_its_first_server_side_apply_stays_ours() {
    let mut object = app();
    object["spec"]["strategy"] = json!({"type": "RollingUpdate"});
    let (stored, _) = admitted(&object, None, &installation());
    let mut migrated = stored.clone();
    migrated["metadata"]["managedFields"] = json!([{"manager": "kubectl", "operation": "Apply", "fieldsV1":
        {"f:spec": {"f:strategy": {}, "f:progressDeadlineSeconds": {}, "f:template": {"f:spec": {"f:terminationGracePeriodSeconds": {}}}}}}]);
    let (result, _) = admitted(&migrated, Some(&stored), &installation());
    assert_eq!(result, migrated);
    // When the annotation goes, it is the applier's.
    let mut removed = migrated.clone();
    removed["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .shift_remove("vixens.io/backup");
    let (result, _) = admitted(&removed, Some(&migrated), &installation());
    assert_eq!(result["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn a_dry_run_says_what_would_be_created_and_only_that() {
    let dry_run = |object: &Value, old: Option<&Value>| {
        let review = Review {
            dry_run: true,
            ..review(object, old)
        };
        match admit(&review, &installation()) {
            Outcome::Allowed { warnings, .. } => warnings
                .into_iter()
                .filter(|warning| warning.starts_with("vixens-backup: would create"))
                .collect::<Vec<_>>(),
            Outcome::Denied { problems } => panic!("denied: {problems:?}"),
        }
    };
    let mut object = app();
    object["metadata"]["annotations"]["vixens.io/backup-schedule"] = json!("17 * * * *");
    let all = ["vixens-backup: would create CronJob/app-backup (17 * * * *), Job/app-restore, Service/app-backup"];
    assert_eq!(dry_run(&object, None), all);
    let (_, warnings) = admitted(&object, None, &installation());
    assert!(
        !warnings.iter().any(|warning| warning.contains("would create")),
        "{warnings:?}"
    );
    let (stored, _) = admitted(&object, None, &installation());
    assert_eq!(dry_run(&stored, Some(&stored)), [""; 0], "they are there");
    let mut off = stored.clone();
    off["metadata"]["annotations"]["vixens.io/backup"] = json!("disabled");
    assert_eq!(dry_run(&off, Some(&stored)), [""; 0]);
}
