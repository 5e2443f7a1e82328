//! Bad days, each in namespaces of its own, side by side.

use crate::app::{APP, App, Kind, Tier, Volume};
use crate::bucket::{self, BUCKET, rclone};
use crate::cluster::{self, eventually, within};
use crate::kernel;
use crate::space::{Space, secret};
use crate::store::Store;
use crate::writer::{Writer, assert_are_back};
use serde_json::{Value, json};
use std::time::Duration;
use vixens_backup::store::keys::sha256_hex;

#[test]
fn a_store_away_for_ten_minutes_under_writes_costs_nothing() {
    let store = Store::new("long-away");
    let app = App {
        tier: Tier::Databases,
        ..APP
    };
    let space = Space::with("long-away", json!({}), &store.secret());
    space.apply(&app.manifests());
    let pod = space.ready("");
    let mut writer = Writer::start(&space, app.workload(), "0.5");
    let place = App::place(space.name());
    eventually("the first files are stored", || {
        if store.content(&format!("{place}/config/numbers/1")) == "1\n" {
            Ok(())
        } else {
            Err("not yet".into())
        }
    });

    store.away();
    let minutes = std::env::var("VIXENS_BACKUP_MINUTES_AWAY").map_or(10, |minutes| minutes.parse().expect("a number"));
    std::thread::sleep(Duration::from_secs(60 * minutes));
    let metrics = space.exec(app.workload(), "wget -qO- http://127.0.0.1:9476/metrics");
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("vixens_backup_store_up{") && line.ends_with(" 0")),
        "{metrics}"
    );
    assert_eq!(space.is_ready(""), Ok(pod.clone()), "the app never noticed");
    let before = writer.last();
    assert!(before > 60 * minutes, "it wrote all the while: {before}");
    store.back();
    within(
        Duration::from_secs(120),
        "what was written meanwhile is stored",
        || match store.content(&format!("{place}/config/numbers/{before}")) {
            content if content.trim_end() == before.to_string() => Ok(()),
            other => Err(other),
        },
    );
    for container in space.pods()[0]["status"]["initContainerStatuses"]
        .as_array()
        .expect("two")
    {
        assert_eq!(container["restartCount"], 0, "{container}");
    }

    // And it is all there in a restore.
    let rows = app.rows(&space);
    app.destroy_volume(&space);
    let written = writer.ended();
    space.ready(&pod);
    assert_are_back(&space, app.workload(), written);
    let restored = app.rows(&space);
    assert!(restored >= rows, "rows of the database: {restored}, of {rows}");
}

#[test]
fn a_store_away_at_a_start_holds_an_empty_volume_and_not_a_full_one() {
    let store = Store::new("away-at-start");
    let space = Space::with("away-at-start", json!({}), &store.secret());
    space.apply(&APP.manifests());
    let first = space.ready("");
    space.exec(APP.workload(), "echo kept >/config/settings.yaml");
    space.backup_job("before");

    store.away();
    space.kubectl(&["delete", "pods", "-l", "app=app"], "");
    let second = space.ready(&first);
    assert_eq!(space.exec(APP.workload(), "cat /config/settings.yaml"), "kept");
    space.exec(
        APP.workload(),
        "echo 'written while the store was away' >/config/later.txt",
    );
    store.back();
    space.backup_job("afterwards");
    let stored = store.content(&format!("{}/config/later.txt", App::place(space.name())));
    assert_eq!(stored, "written while the store was away\n");

    store.away();
    APP.destroy_volume(&space);
    eventually("init-config says what it waits for", || {
        match cluster::try_kubectl(&["-n", space.name(), "logs", "-l", "app=app", "-c", "init-config"], "")? {
            log if log.contains("can't be reached") => Ok(()),
            log => Err(log),
        }
    });
    let pods = space.pods();
    assert_eq!(
        pods[0]["status"]["containerStatuses"][0]["started"], false,
        "the app does not start on nothing"
    );
    store.back();
    space.ready(&second);
    assert_eq!(
        space.exec(APP.workload(), "cat /config/settings.yaml /config/later.txt"),
        "kept\nwritten while the store was away"
    );
}

#[test]
fn a_sidecar_that_the_kernel_kills_for_its_memory_comes_back_and_goes_on() {
    if !kernel::is_here() {
        return;
    }
    let space = Space::new("out-of-memory");
    space.apply(&APP.manifests());
    let pod = space.ready("");
    space.backup_job("before");
    kernel::exhaust_memory_of(&space.pods()[0], "backup-sidecar");
    space.exec(
        APP.workload(),
        "echo 'written without a sidecar' >/config/meanwhile.txt",
    );
    let status = eventually("the sidecar was killed, and runs again", || {
        let pods = space.pods();
        let sidecar = pods[0]["status"]["initContainerStatuses"]
            .as_array()
            .and_then(|all| all.iter().find(|container| container["name"] == "backup-sidecar"))
            .cloned()
            .unwrap_or_default();
        if sidecar["restartCount"] == 1 && !sidecar["state"]["running"].is_null() {
            Ok(sidecar)
        } else {
            Err(sidecar.to_string())
        }
    });
    assert_eq!(status["lastState"]["terminated"]["reason"], "OOMKilled", "{status}");
    eventually("what was written meanwhile is stored", || {
        match bucket::content(&format!("{}/config/meanwhile.txt", App::place(space.name()))) {
            content if content == "written without a sidecar\n" => Ok(()),
            other => Err(other),
        }
    });
    assert_eq!(space.is_ready(""), Ok(pod));
    assert_eq!(
        space.pods()[0]["status"]["containerStatuses"][0]["restartCount"],
        0,
        "the app never noticed"
    );
}

#[test]
fn a_rollout_under_writes_loses_nothing_that_was_acknowledged() {
    let app = App {
        volume: Volume::EmptyDir,
        ..APP
    };
    let space = Space::new("rollout");
    space.apply(&app.manifests());
    let mut pod = space.ready("");
    for _ in 0..2 {
        let mut writer = Writer::start(&space, app.workload(), "0.05");
        eventually("it writes", || {
            if writer.last() > 50 {
                Ok(())
            } else {
                Err(writer.last().to_string())
            }
        });
        space.kubectl(&["rollout", "restart", app.workload()], "");
        let written = writer.ended();
        pod = space.ready(&pod);
        assert_are_back(&space, app.workload(), written);
        space.exec(app.workload(), "rm -r /config/numbers");
    }
}

#[test]
fn restore_at_yesterday_brings_back_what_was_there_then() {
    let app = App {
        kind: Kind::StatefulSet,
        ..APP
    };
    let space = Space::new("yesterday");
    space.apply(&app.manifests());
    let mut pod = space.ready("");
    space.exec(app.workload(), "echo yesterday >/config/diary.txt");
    space.backup_job("yesterday");
    space.kubectl(&["scale", app.workload(), "--replicas=0"], "");
    space.released(&App::place(space.name()));
    a_day_goes_by(&App::place(space.name()));
    space.kubectl(&["scale", app.workload(), "--replicas=1"], "");
    pod = space.ready(&pod);
    space.exec(
        app.workload(),
        "echo today >/config/diary.txt; echo new >/config/new.txt",
    );
    space.backup_job("today");

    let hour_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let at = format!("{hour_ago:.0}");
    space.apply(&app.annotated(&[("vixens.io/backup-restore-at", &at)]));
    pod = space.ready(&pod);
    assert_eq!(
        space.exec(app.workload(), "cat /config/diary.txt; ls /config"),
        "yesterday\nconfiguration.yaml\ndiary.txt"
    );
    // The annotation stays in Git, and rolls nobody back twice.
    space.exec(app.workload(), "echo 'today again' >/config/diary.txt");
    space.kubectl(&["delete", "pods", "-l", "app=app"], "");
    space.ready(&pod);
    assert_eq!(space.exec(app.workload(), "cat /config/diary.txt"), "today again");
}

/// What is stored at a place becomes a day older: the names and times of its snapshots.
fn a_day_goes_by(place: &str) {
    let today = jiff::Timestamp::now();
    let yesterday = today - jiff::SignedDuration::from_hours(24);
    let day = |moment: jiff::Timestamp, form: &str| moment.strftime(form).to_string();
    for object in bucket::listing(&format!("{place}/snapshots")) {
        let path = format!("{BUCKET}/{place}/snapshots/{object}");
        let mut text = rclone(&["cat", &path], "");
        for form in ["%Y%m%dT", "%Y-%m-%dT"] {
            text = text.replace(&day(today, form), &day(yesterday, form));
        }
        if let Some((above, _)) = text.rsplit_once(",\"sha256\":") {
            text = format!("{above},\"sha256\":\"{}\"}}\n", sha256_hex(above.as_bytes()));
        }
        let name = object.replace(&day(today, "%Y%m%dT"), &day(yesterday, "%Y%m%dT"));
        assert_ne!(name, object, "made today");
        rclone(&["rcat", &format!("{BUCKET}/{place}/snapshots/{name}")], &text);
        rclone(&["deletefile", &path], "");
    }
}

#[test]
fn the_place_of_another_app_is_refused_and_stays_as_it_is() {
    let (first, second) = (Space::new("first"), Space::new("second"));
    let annotation = "vixens.io/backup-destination";
    let place = format!("minio:vixens-backups/{}/shared", first.name());
    first.apply(&APP.annotated(&[(annotation, &place)]));
    first.ready("");
    first.exec(APP.workload(), "echo mine >/config/mine.txt");
    first.backup_job("mine");
    let stored = || bucket::listing(&format!("{}/shared/config", first.name()));
    let before = stored();

    second.apply(&APP.annotated(&[(annotation, &place)]));
    eventually(
        "init-config refuses it, names whose it is, and says the way out",
        || {
            let logs = ["-n", second.name(), "logs", "-l", "app=app", "-c", "init-config"];
            match cluster::try_kubectl(&logs, "")? {
                log if log.contains(&format!("namespace {}", first.name())) && log.contains(annotation) => Ok(()),
                log => Err(log),
            }
        },
    );
    eventually("the owner is told by an Event", || {
        let events = second.events("app");
        if events.iter().any(|event| event.starts_with("BackupPlaceShared: ")) {
            Ok(())
        } else {
            Err(events.join("\n"))
        }
    });
    assert_eq!(stored(), before);
    // With a place of its own it starts.
    second.apply(&APP.manifests());
    second.ready("");
}

#[test]
fn in_a_namespace_with_pod_security_restricted_everything_runs() {
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"});
    for (case, tier) in [
        ("restricted-files", Tier::Files),
        ("restricted-databases", Tier::Databases),
    ] {
        let space = Space::with(case, labels.clone(), &secret(None));
        space.apply(&App { tier, ..APP }.manifests());
        space.ready("");
        let log = space.backup_job("now");
        assert!(log.trim_end().ends_with("-manual"), "{log}");
        space.job("app-restore");
    }
}

#[test]
fn within_a_quota_and_a_limit_range_everything_runs() {
    let space = Space::new("quota");
    space.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"}, "spec": {"hard": {
            "pods": "4", "requests.cpu": "200m", "requests.memory": "400Mi", "limits.cpu": "4", "limits.memory": "1Gi"}}},
        limit_range("300Mi")]}));
    space.apply(&APP.manifests());
    let pod = space.ready("");
    let log = space.backup_job("now");
    assert!(log.trim_end().ends_with("-manual"), "{log}");
    space.job("app-restore");

    // A range that our defaults do not fit into: who looks finds why, and the annotation is the way out.
    space.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [limit_range("100Mi")]}));
    space.kubectl(&["delete", "pods", "-l", "app=app"], "");
    eventually("the ReplicaSet says why there is no pod", || {
        match space.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"], "") {
            text if text.contains("maximum memory usage per Container is 100Mi") => Ok(()),
            text => Err(text),
        }
    });
    space.apply(&APP.annotated(&[(
        "vixens.io/backup-resources",
        "init.limits.memory=100Mi,sidecar.limits.memory=100Mi,sidecar.requests.memory=50Mi",
    )]));
    space.ready(&pod);
}

fn limit_range(memory: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "range"}, "spec": {"limits": [{"type": "Container",
        "max": {"memory": memory, "cpu": "1"}, "default": {"memory": "32Mi", "cpu": "100m"},
        "defaultRequest": {"memory": "16Mi", "cpu": "10m"}}]}})
}
