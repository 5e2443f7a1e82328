//! Two replicas: one leads, both answer. Whatever is taken from them, companions are kept and admission goes on.

use crate::companions::{found, labelled, leading, made, notes, told};
use crate::connection::Service;
use crate::control_plane::{control_plane, eventually};
use crate::namespace::{Namespace, in_namespace};
use crate::webhook::{Process, Webhook, await_called, configuration, labels};
use crate::workload::FIRST;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

fn named(name: &str, label: &Value) -> Value {
    let mut manifest = FIRST.deployment();
    manifest["metadata"]["name"] = json!(name);
    manifest["metadata"]["labels"] = label.clone();
    manifest
}

fn start(name: &str) -> Process {
    let secret = format!("--certificates-secret={name}-certificates");
    let configuration = format!("--webhook-configuration={name}");
    let mut arguments = vec![
        "--listen=127.0.0.1:0",
        "--namespace=default",
        "--shutdown-delay=0s",
        &secret,
        &configuration,
    ];
    arguments.extend(leading(name));
    Process::start(&arguments, &[])
}

#[test]
fn with_one_of_two_replicas_killed_at_random_no_companion_and_no_answer_is_missing() {
    const NAME: &str = "replicas";
    let service = Service::new();
    let url = format!("https://127.0.0.1:{}/mutate", service.port());
    control_plane().apply(&configuration(NAME, &url));
    let begin = || {
        let process = start(NAME);
        process.says("ready part=\"certificates\"");
        process.says("ready part=\"cluster\"");
        service.add(process.port());
        process
    };
    let mut replicas = [begin(), begin()];
    await_called(NAME);
    in_namespace(&labels(NAME), "replicas", |namespace| {
        let mut dice = std::process::id();
        let mut apps: Vec<String> = Vec::new();
        for round in 0..4 {
            for number in 0..3 {
                let app = format!("app-{round}-{number}");
                namespace.accepts(&named(&app, &labels(NAME)));
                apps.push(app);
            }
            if round == 0 {
                eventually("the first leader tells", || {
                    (told_of(namespace, "app-0-1") == 1).then_some(())
                });
            }
            // Any of them: the leader, or the one that waits.
            dice = dice.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            let victim = &mut replicas[usize::from(dice & 0x1_0000 != 0)];
            service.remove(victim.port());
            victim.kill();
            *victim = begin();
            // What was lost meanwhile comes back, too.
            namespace
                .kubectl(&[
                    "delete",
                    "service",
                    &format!("app-{round}-0-backup"),
                    "--ignore-not-found",
                ])
                .succeeds();
            for app in &apps {
                for object in [
                    format!("cronjob/{app}-backup"),
                    format!("job/{app}-restore"),
                    format!("service/{app}-backup"),
                ] {
                    made(namespace, &object);
                }
            }
        }
        let leaders = |process: &Process| process.log().contains("leading: companions are kept");
        assert!(replicas.iter().any(leaders));
        assert_eq!(told_of(namespace, "app-0-1"), 1, "told once, whoever led");
    });
}

/// How often it was told that the companions of an app were made.
fn told_of(namespace: &Namespace, app: &str) -> usize {
    let fields = format!("--field-selector=reason=BackupCompanionsMade,involvedObject.name={app}");
    let said = namespace.kubectl(&["get", "events", &fields, "-o", "name"]).succeeds();
    said.lines().count()
}

#[test]
fn a_leader_that_ends_gives_the_lease_back_and_the_other_takes_over() {
    const NAME: &str = "handover";
    let webhook = Webhook::start_with(NAME, &leading(NAME));
    webhook.process().says("leading: companions are kept");
    let second = start(NAME);
    second.says("ready part=\"cluster\"");
    in_namespace(&webhook.labels(), "handover", |namespace| {
        namespace.accepts(&labelled(&webhook, FIRST.deployment()));
        made(namespace, "cronjob/app-backup");
        let mut webhook = webhook;
        webhook.stop();
        second.says("leading: companions are kept");
        namespace.kubectl(&["delete", "cronjob/app-backup"]).succeeds();
        made(namespace, "cronjob/app-backup");
    });
}

/// The API server, behind a connection that can be cut.
struct Line {
    port: u16,
    shared: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_cut: bool,
    streams: Vec<TcpStream>,
}

impl Line {
    fn new(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Mutex::new(State::default()));
        let kept = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut state = kept.lock().expect("a line");
                if state.is_cut {
                    continue;
                }
                if let Ok(onward) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) {
                    crate::connection::copy(&stream, &onward);
                    crate::connection::copy(&onward, &stream);
                    state.streams.extend([stream, onward]);
                }
            }
        });
        Self { port, shared }
    }

    fn cut(&self) {
        let mut state = self.shared.lock().expect("a line");
        state.is_cut = true;
        for stream in state.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.shared.lock().expect("a line").is_cut = false;
    }
}

#[test]
fn without_the_api_server_the_lease_is_lost_and_all_is_caught_up_without_a_restart() {
    const NAME: &str = "line";
    let kubeconfig = std::fs::read_to_string(&control_plane().kubeconfig).expect("a kubeconfig");
    let mut kubeconfig: Value = serde_saphyr::from_str(&kubeconfig).expect("YAML");
    let server = &mut kubeconfig["clusters"][0]["cluster"]["server"];
    let port = server
        .as_str()
        .and_then(|server| server.rsplit(':').next())
        .and_then(|port| port.parse().ok());
    let line = Line::new(port.expect("a port"));
    *server = json!(format!("https://127.0.0.1:{}", line.port));
    let file = control_plane().scratch().join("line.kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).expect("a kubeconfig");

    let mut arguments = vec![
        "--listen=127.0.0.1:0",
        "--namespace=default",
        "--shutdown-delay=0s",
        "--webhook-configuration=line",
        "--certificates-secret=line-certificates",
    ];
    arguments.extend(leading(NAME));
    let process = Process::start(&arguments, &[("KUBECONFIG", file.to_str().expect("UTF-8"))]);
    let url = format!("https://127.0.0.1:{}/mutate", process.port());
    control_plane().apply(&configuration(NAME, &url));
    process.says("ready part=\"certificates\"");
    await_called(NAME);
    in_namespace(&labels(NAME), "line", |namespace| {
        namespace.accepts(&named("app", &labels(NAME)));
        told(namespace, "BackupCompanionsMade");
        line.cut();
        process.says("not leading any more");
        // The admission path waits for nobody.
        namespace.accepts(&named("other", &labels(NAME)));
        let other = namespace.get("deployment/other");
        assert_eq!(
            other["spec"]["template"]["spec"]["initContainers"][0]["name"],
            "init-config"
        );
        namespace.kubectl(&["delete", "cronjob/app-backup"]).succeeds();
        assert_eq!(found(namespace, "cronjob/other-backup"), None);
        line.mend();
        made(namespace, "cronjob/app-backup");
        made(namespace, "cronjob/other-backup");
        eventually("both times are told", || {
            (notes(namespace, "BackupCompanionsMade").len() == 2).then_some(())
        });
    });
}

#[test]
fn a_lease_that_somebody_takes_is_respected_until_it_runs_out() {
    const NAME: &str = "taken";
    let webhook = Webhook::start_with(NAME, &leading(NAME));
    webhook.process().says("leading: companions are kept");
    let patch = r#"{"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 6}}"#;
    control_plane()
        .kubectl(&[
            "patch",
            "lease",
            NAME,
            "--namespace=default",
            "--type=merge",
            "-p",
            patch,
        ])
        .succeeds();
    webhook.process().says("not leading any more: somebody leads");
    let leads = |namespace: &Namespace| {
        let said = control_plane().get(&["lease", NAME, "--namespace=default"]);
        let _ = namespace;
        (said["spec"]["holderIdentity"] != "somebody").then_some(())
    };
    in_namespace(&webhook.labels(), "taken", |namespace| {
        namespace.accepts(&labelled(&webhook, FIRST.deployment()));
        eventually("it leads again", || leads(namespace));
        made(namespace, "cronjob/app-backup");
        let lease = control_plane().get(&["lease", NAME, "--namespace=default"]);
        assert!(lease["spec"]["leaseTransitions"].as_u64() >= Some(1), "{lease}");
    });
}
