//! Rolling the webhook's Deployment, as its Service sees it: a new endpoint is added when it is ready, an old one is told
//! to end and disappears from the Service a little later. A steady stream of applies loses none.

use crate::connection::Service;
use crate::control_plane::control_plane;
use crate::load::Load;
use crate::namespace::in_namespace;
use crate::webhook::{Process, await_called, configuration, labels};
use std::time::Duration;

const NAME: &str = "rolling";
/// How long after a pod was told to end its endpoint is known to be gone. In a cluster it takes a second or so.
const LATE: Duration = Duration::from_millis(800);

fn start() -> (Process, u16) {
    let arguments = [
        "--listen=127.0.0.1:0",
        "--namespace=default",
        "--webhook-configuration",
        NAME,
        "--certificates-secret=rolling-certificates",
        "--shutdown-delay=3s",
    ];
    let process = Process::start(&arguments, &[]);
    let port = process.port();
    (process, port)
}

fn ready(process: &Process) {
    process.says("ready part=\"certificates\"");
    process.says("ready part=\"cluster\"");
}

#[test]
fn rolling_under_load_loses_no_apply() {
    let service = Service::new();
    let url = format!("https://127.0.0.1:{}/mutate", service.port());
    control_plane().apply(&configuration(NAME, &url));
    let (mut present, mut port) = start();
    ready(&present);
    service.add(port);
    await_called(NAME);
    in_namespace(&labels(NAME), "rolling", |namespace| {
        let load = Load::start(namespace);
        for _ in 0..3 {
            let (next, next_port) = start();
            ready(&next);
            service.add(next_port);
            present.tell_to_end();
            present.says("ending: not ready from now on");
            std::thread::sleep(LATE);
            service.remove(port);
            assert!(present.end(), "it does not end well");
            (present, port) = (next, next_port);
        }
        load.loses_none_of(50);
    });
}

#[test]
fn an_answer_under_way_is_given_before_the_process_ends() {
    use std::io::{Read, Write};
    let (mut process, port) = {
        let arguments = ["--listen=127.0.0.1:0", "--without-controller", "--shutdown-delay=0s"];
        let process = Process::start(&arguments, &[("KUBECONFIG", "/nowhere")]);
        let port = process.port();
        (process, port)
    };
    let body = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"a-1"}}"#;
    let mut stream = crate::connection::open(port);
    write!(
        stream,
        "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
        body.len(),
        &body[..10]
    )
    .expect("it is read");
    stream.flush().expect("it is read");
    // The request has to be under way before it is told.
    crate::control_plane::eventually("the connection is served", || {
        crate::connection::get(port, "/livez").ok()
    });
    process.tell_to_end();
    process.says("ending: not ready from now on");
    stream.write_all(&body.as_bytes()[10..]).expect("it is read");
    let mut answer = Vec::new();
    // The end of the connection may come without TLS's own goodbye.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains(r#""uid":"a-1","allowed":true"#), "{answer}");
    assert!(process.end(), "it does not end well");
}
