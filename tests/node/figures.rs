//! How much is lost, how long it takes to be back, what it costs: printed as a table, beside what is aimed at. Run after
//! all others, by itself. Times are never asserted: a machine's are its own.

use crate::app::{APP, App, Tier, Volume};
use crate::cluster::{self, eventually, kubectl};
use crate::kernel;
use crate::space::{Space, is_ready};
use crate::writer::{NEWEST, Writer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Prints one line of the table.
fn figure(what: &str, measured: &str, goal: &str) {
    println!("figure | {what} | {measured} | {goal} |");
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// A number ten times a second; how long before the kill was the first one written that the restore lacks?
#[test]
fn loss_when_pod_and_volume_are_killed() {
    if !kernel::is_here() {
        return;
    }
    let cases = [
        "files-1",
        "files-2",
        "files-3",
        "databases-1",
        "databases-2",
        "databases-3",
    ];
    let losses: Vec<(Duration, Duration)> = std::thread::scope(|scope| {
        let all: Vec<_> = cases
            .iter()
            .zip(0..)
            .map(|(case, nth)| scope.spawn(move || loss(case, nth)))
            .collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    for (what, tier, goal) in [
        ("files", &losses[..3], "under 5 s"),
        ("databases (tier 3)", &losses[3..], "under 2 s"),
    ] {
        let (lost, away): (Vec<Duration>, Vec<Duration>) = tier.iter().copied().unzip();
        let worst = |of: Vec<Duration>| seconds(of.into_iter().max().unwrap_or_default());
        figure(
            &format!("loss of {what}: pod and volume killed without grace"),
            &format!("{} at most, of 3; Ready again after {}", worst(lost), worst(away)),
            goal,
        );
    }
}

/// What was lost, and how long the app was away.
fn loss(case: &str, nth: u64) -> (Duration, Duration) {
    let tier = if case.starts_with("files") {
        Tier::Files
    } else {
        Tier::Databases
    };
    let app = App { tier, ..APP };
    let space = Space::new(&format!("loss-{case}"));
    space.apply(&app.manifests());
    let pod = space.ready("");
    let writer = match tier {
        Tier::Files => Writer::start(&space, app.workload(), "0.1"),
        Tier::Databases => Writer::database(&space, app.workload()),
    };
    // Longer than anything is put off, and each at another moment of it.
    std::thread::sleep(Duration::from_millis(15_000 + 700 * nth));
    let killed = kernel::kill_with_volume(&space, &space.pods()[0], app.claim());
    app.applied_anew(&space);
    space.ready(&pod);
    let away = killed.elapsed();
    let restored = match tier {
        Tier::Files => space.exec(app.workload(), NEWEST).parse().expect("a number"),
        Tier::Databases => app.rows_of(&space, "/config/written.db"),
    };
    assert!(restored > 0, "something is back");
    let lost = writer
        .first_after(restored)
        .map_or(Duration::ZERO, |first| killed - first);
    (lost, away)
}

#[test]
fn loss_at_a_graceful_restart() {
    let app = App {
        volume: Volume::EmptyDir,
        ..APP
    };
    let space = Space::new("graceful");
    space.apply(&app.manifests());
    let pod = space.ready("");
    let mut writer = Writer::start(&space, app.workload(), "0.1");
    eventually("it writes", || {
        if writer.last() > 50 {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    });
    space.kubectl(&["rollout", "restart", app.workload()], "");
    let written = writer.ended();
    space.ready(&pod);
    let restored: u64 = space.exec(app.workload(), NEWEST).parse().expect("a number");
    figure(
        "files of an emptyDir: graceful restart",
        &format!("{} writes", written - restored),
        "none",
    );
    assert_eq!(restored, written);
}

#[test]
fn recovery_and_overhead_with_5000_files() {
    let space = Space::new("recovery");
    space.apply(&APP.manifests());
    let mut pod = space.ready("");
    space.exec(
        APP.workload(),
        "mkdir /config/many; cd /config/many; for d in $(seq 50); do mkdir $d; for f in $(seq 100); do head -c 11000 /dev/urandom >$d/$f; done; done",
    );
    space.backup_job("all");

    overhead(&space);

    let begun = Instant::now();
    APP.destroy_volume(&space);
    pod = space.ready(&pod);
    figure(
        "recovery: claim deleted → pod Ready, 5,000 files",
        &seconds(begun.elapsed()),
        "under 60 s",
    );
    let count = "find /config/many -type f | wc -l";
    assert_eq!(space.exec(APP.workload(), count), "5000");

    let begun = Instant::now();
    kubectl(&["delete", "namespace", space.name()], "");
    space.make();
    space.apply(&APP.manifests());
    space.ready(&pod);
    figure(
        "recovery: namespace deleted → pod Ready, 5,000 files",
        &seconds(begun.elapsed()),
        "under 60 s",
    );
    assert_eq!(space.exec(APP.workload(), count), "5000");
}

/// What the kubelet says of the sidecar while it has nothing to do.
fn overhead(space: &Space) {
    let node = space.pods()[0]["spec"]["nodeName"].as_str().expect("a node").to_owned();
    // The value, and the kubelet's own time of it in milliseconds.
    let read = |metric: &str| -> (f64, f64) {
        let text = kubectl(
            &["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/metrics/resource")],
            "",
        );
        let line = text.lines().find(|line| {
            line.starts_with(metric)
                && line.contains("container=\"backup-sidecar\"")
                && line.contains(&format!("namespace=\"{}\"", space.name()))
        });
        let mut words = line.expect("the kubelet knows the sidecar").split_whitespace().skip(1);
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
        (number(), number())
    };
    let cpu = "container_cpu_usage_seconds_total";
    // The backup that was just made is over, and the kubelet has seen that.
    std::thread::sleep(Duration::from_secs(30));
    let (used, begun) = read(cpu);
    std::thread::sleep(Duration::from_secs(45));
    let (more, ended) = read(cpu);
    let percent = (more - used) / ((ended - begun) / 1000.0) * 100.0;
    let memory = read("container_memory_working_set_bytes").0 / 1_048_576.0;
    figure(
        "overhead at rest, 5,000 files: memory of the sidecar's container",
        &format!("{memory:.1} MiB"),
        "",
    );
    figure(
        "overhead at rest, 5,000 files: processor",
        &format!("{percent:.2} % of a core"),
        "",
    );
}

/// What stands before the app's container when it starts.
#[derive(Clone, Copy)]
enum Before {
    Nothing,
    /// An init container and a native sidecar that do nothing: what the kubelet alone takes for two containers.
    Idle,
    Ours,
}

#[test]
fn delay_of_a_start() {
    let [without, idle, ours] = [
        ("nothing", Before::Nothing),
        ("idle", Before::Idle),
        ("ours", Before::Ours),
    ]
    .map(|(case, before)| {
        let space = Space::new(&format!("start-{case}"));
        space.apply(&starting_after(before));
        space.ready("");
        let mut times: Vec<Duration> = (0..5).map(|_| one_start(&space)).collect();
        times.sort();
        times[2]
    });
    let more = |with: Duration| seconds(with.saturating_sub(without));
    figure(
        "start delay: scheduled → Ready, nothing to restore",
        &format!(
            "{} ({} without); an init container and a sidecar that do nothing: {}",
            more(ours),
            seconds(without),
            more(idle)
        ),
        "under 1 s",
    );
}

fn starting_after(before: Before) -> Value {
    let mut list = match before {
        Before::Ours => APP.manifests(),
        Before::Nothing | Before::Idle => {
            APP.annotated(&[("vixens.io/backup", ""), ("vixens.io/backup-destination", "")])
        }
    };
    for item in list["items"].as_array_mut().expect("a list") {
        let Some(pod) = item.pointer_mut("/spec/template/spec") else {
            continue;
        };
        // Without it a pod is Ready when its containers run, and not up to a second later.
        let container = pod["containers"][0].as_object_mut().expect("a map");
        container.remove("readinessProbe");
        let image = container["image"].clone();
        if matches!(before, Before::Idle) {
            pod["initContainers"] = json!([
                {"name": "nothing", "image": image, "command": ["true"]},
                {"name": "idle", "image": image, "restartPolicy": "Always",
                    "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]}]);
        }
    }
    list
}

/// From when the pod is seen scheduled to when it is seen Ready.
fn one_start(space: &Space) -> Duration {
    space.kubectl(&["scale", "deployment/app", "--replicas=0"], "");
    eventually("no pod is left", || {
        let list = space.get("pods?labelSelector=app%3Dapp").unwrap_or_default();
        if list["items"] == json!([]) {
            Ok(())
        } else {
            Err("one is".to_owned())
        }
    });
    space.kubectl(&["scale", "deployment/app", "--replicas=1"], "");
    let mut scheduled = None;
    let begun = Instant::now();
    while begun.elapsed() < cluster::PATIENCE {
        if let [pod] = space.pods().as_slice() {
            if is_scheduled(pod) && scheduled.is_none() {
                scheduled = Some(Instant::now());
            }
            if is_ready(pod) {
                return scheduled.map(|moment| moment.elapsed()).expect("scheduled before");
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the pod is not Ready: {:?}", space.pods());
}

fn is_scheduled(pod: &Value) -> bool {
    pod["spec"]["nodeName"].is_string()
}
