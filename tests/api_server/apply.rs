//! Every way to apply × everything that an owner does: what is injected stays, `generation` stands still when nothing of
//! the owner's changed, and removing the annotation gives the owner's own workload back.

use crate::namespace::{Namespace, in_namespace, in_plain_namespace};
use crate::webhook::Webhook;
use crate::workload::{App, FIRST, Stored, Way, await_revision, stored_deployment};
use serde_json::Value;
use std::sync::OnceLock;

fn webhook() -> &'static Webhook {
    static WEBHOOK: OnceLock<Webhook> = OnceLock::new();
    WEBHOOK.get_or_init(|| Webhook::start("apply"))
}

/// The spec that the API server makes of `app` where nobody injects anything.
fn vanilla(name: &str, app: App) -> Value {
    in_plain_namespace(&format!("{name}-vanilla"), |namespace| {
        Way::ServerSideApply.create(namespace, app);
        stored_deployment(namespace).spec().clone()
    })
}

#[track_caller]
fn is_injected(stored: &Stored, owners: &[&str]) {
    let expected: Vec<&str> = [&["init-config", "backup-sidecar"], owners].concat();
    assert_eq!(stored.init_containers(), expected);
    for volume in [
        "config",
        "restore-volume",
        "vanilla-config",
        "rclone-config",
        "backup-record",
    ] {
        assert!(
            stored.volumes().contains(&volume),
            "{volume} is missing in {:?}",
            stored.volumes()
        );
    }
}

/// A case for each way to apply, in a namespace of its own.
fn each_way(case: &str, run: impl Fn(Way, &Namespace)) {
    for way in Way::ALL {
        in_namespace(&webhook().labels(), &format!("{case}-{}", way.as_str()), |namespace| {
            run(way, namespace);
        });
    }
}

#[test]
fn what_is_created_is_injected() {
    each_way("create", |way, namespace| {
        way.create(namespace, FIRST);
        let stored = stored_deployment(namespace);
        is_injected(&stored, &[]);
        assert_eq!(stored.generation(), 1, "{way:?}");
    });
}

#[test]
fn applying_again_changes_nothing() {
    each_way("again", |way, namespace| {
        way.create(namespace, FIRST);
        let before = stored_deployment(namespace);
        for _ in 0..2 {
            way.change(namespace, FIRST, FIRST);
        }
        let after = stored_deployment(namespace);
        assert_eq!(after.generation(), before.generation(), "{way:?}");
        assert_eq!(after.spec(), before.spec(), "{way:?}");
    });
}

#[test]
fn a_change_of_the_app_is_one_rollout_and_stays_injected() {
    each_way("change", |way, namespace| {
        way.create(namespace, FIRST);
        way.change(namespace, FIRST, App { release: 2, ..FIRST });
        let stored = stored_deployment(namespace);
        is_injected(&stored, &[]);
        assert_eq!((stored.app_image(), stored.generation()), ("app:2", 2), "{way:?}");
    });
}

#[test]
fn an_init_container_that_the_owner_adds_comes_behind_ours() {
    each_way("init", |way, namespace| {
        let migrating = App {
            migrates: true,
            ..FIRST
        };
        way.create(namespace, FIRST);
        way.change(namespace, FIRST, migrating);
        is_injected(&stored_deployment(namespace), &["migrate"]);
        way.change(namespace, migrating, migrating);
        let stored = stored_deployment(namespace);
        is_injected(&stored, &["migrate"]);
        assert_eq!(stored.generation(), 2, "{way:?}");
    });
}

#[test]
fn removing_the_annotation_gives_the_owners_workload_back_with_a_warning() {
    let removed = App {
        annotated: false,
        ..FIRST
    };
    let vanilla = vanilla("remove", removed);
    each_way("remove", |way, namespace| {
        way.create(namespace, FIRST);
        let said = way.change(namespace, FIRST, removed);
        assert!(said.stderr.contains("Warning:"), "{way:?}: {said:?}");
        let stored = stored_deployment(namespace);
        assert_eq!(stored.spec(), &vanilla, "{way:?}");
        assert_eq!(stored.annotation("vixens.io/backup-injected"), None, "{way:?}");
    });
}

#[test]
fn an_annotation_that_comes_later_is_one_rollout() {
    each_way("later", |way, namespace| {
        let plain = App {
            annotated: false,
            ..FIRST
        };
        way.create(namespace, plain);
        assert_eq!(stored_deployment(namespace).init_containers(), [""; 0]);
        if way == Way::Edit {
            namespace
                .kubectl(&["annotate", "deployment/app", "vixens.io/backup=tier2"])
                .succeeds();
        } else {
            way.change(namespace, plain, FIRST);
        }
        let stored = stored_deployment(namespace);
        is_injected(&stored, &[]);
        assert_eq!(stored.generation(), 2, "{way:?}");
    });
}

#[test]
fn an_upgrade_of_ours_restarts_nothing_until_the_owner_does() {
    let mut webhook = Webhook::start_with("upgrade", &["--image=vixens-backup:1.0.0"]);
    let cases = Way::ALL.map(|way| {
        (
            way,
            Namespace::new(&webhook.labels(), &format!("upgrade-{}", way.as_str())),
        )
    });
    for (way, namespace) in &cases {
        way.create(namespace, FIRST);
    }
    webhook.stop();
    webhook.resume(&["--image=vixens-backup:2.0.0"]);
    for (way, namespace) in &cases {
        way.change(namespace, FIRST, FIRST);
        let stored = stored_deployment(namespace);
        assert_eq!(
            (stored.injected_image(), stored.generation()),
            ("vixens-backup:1.0.0", 1),
            "{way:?}"
        );
        way.change(namespace, FIRST, App { release: 2, ..FIRST });
        let stored = stored_deployment(namespace);
        assert_eq!(
            (stored.injected_image(), stored.generation()),
            ("vixens-backup:2.0.0", 2),
            "{way:?}"
        );
    }
}

#[test]
fn a_restart_is_one_rollout_and_applying_again_none() {
    each_way("restart", |way, namespace| {
        way.create(namespace, FIRST);
        namespace.kubectl(&["rollout", "restart", "deployment/app"]).succeeds();
        let restarted = stored_deployment(namespace);
        is_injected(&restarted, &[]);
        assert_eq!(restarted.generation(), 2, "{way:?}");
        if way != Way::Replace {
            // Replacing takes kubectl's restart annotation away again, with or without us.
            way.change(namespace, FIRST, FIRST);
            assert_eq!(stored_deployment(namespace).generation(), 2, "{way:?}");
        }
    });
}

#[test]
fn scaling_leaves_the_template_alone_and_applying_again_too() {
    each_way("scale", |way, namespace| {
        way.create(namespace, FIRST);
        let before = stored_deployment(namespace);
        namespace
            .kubectl(&["scale", "deployment/app", "--replicas=0"])
            .succeeds();
        let scaled = stored_deployment(namespace);
        assert_eq!(scaled.spec()["template"], before.spec()["template"], "{way:?}");
        assert_eq!(scaled.generation(), 2, "{way:?}");
        way.change(namespace, FIRST, FIRST);
        let after = stored_deployment(namespace);
        assert_eq!(after.spec()["template"], before.spec()["template"], "{way:?}");
    });
}

#[test]
fn undoing_a_change_of_the_app_keeps_it_injected() {
    each_way("undo", |way, namespace| {
        way.create(namespace, FIRST);
        await_revision(namespace, Some("1"));
        way.change(namespace, FIRST, App { release: 2, ..FIRST });
        await_revision(namespace, Some("2"));
        namespace.kubectl(&["rollout", "undo", "deployment/app"]).succeeds();
        let stored = stored_deployment(namespace);
        is_injected(&stored, &[]);
        assert_eq!((stored.app_image(), stored.generation()), ("app:1", 3), "{way:?}");
    });
}

#[test]
fn undoing_past_the_annotation_leaves_nothing_of_ours_behind() {
    let plain = App {
        annotated: false,
        ..FIRST
    };
    let vanilla = vanilla("past", plain);
    each_way("past", |way, namespace| {
        way.create(namespace, plain);
        await_revision(namespace, Some("1"));
        namespace
            .kubectl(&["annotate", "deployment/app", "vixens.io/backup=tier2"])
            .succeeds();
        await_revision(namespace, Some("2"));
        is_injected(&stored_deployment(namespace), &[]);
        namespace.kubectl(&["rollout", "undo", "deployment/app"]).succeeds();
        let stored = stored_deployment(namespace);
        assert_eq!(stored.annotation("vixens.io/backup"), None, "{way:?}");
        assert_eq!(stored.spec(), &vanilla, "{way:?}");
    });
}

#[test]
fn a_stateful_set_is_injected_kept_and_given_back() {
    for server_side in [false, true] {
        in_namespace(&webhook().labels(), &format!("stateful-{server_side}"), |namespace| {
            let apply = |app: App| {
                let flag = format!("--server-side={server_side}");
                namespace
                    .kubectl_with(&["apply", &flag, "-f", "-"], &app.stateful_set(), &[])
                    .succeeds();
                Stored(namespace.get("statefulset/app"))
            };
            let created = apply(FIRST);
            assert_eq!(created.init_containers(), ["init-config", "backup-sidecar"]);
            assert_eq!(apply(FIRST).generation(), created.generation());
            let changed = apply(App { release: 2, ..FIRST });
            assert_eq!((changed.app_image(), changed.generation()), ("app:2", 2));
            let removed = apply(App {
                annotated: false,
                release: 2,
                ..FIRST
            });
            assert_eq!(removed.init_containers(), [""; 0]);
            assert_eq!(removed.volumes(), [""; 0]);
        });
    }
}
