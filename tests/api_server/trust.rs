//! Certificates on a real API server: two replicas agree, and a rotation, of the leaf and of the authority, under a
//! steady stream of applies loses none of them.

use crate::connection::{Service, chain, get};
use crate::control_plane::{control_plane, eventually};
use crate::load::Load;
use crate::mounted::Mounted;
use crate::namespace::in_namespace;
use crate::webhook::{Process, await_called, configuration, labels};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use vixens_backup::certificates::Authority;

const LISTEN: &str = "--listen=127.0.0.1:0";
/// Nobody else asks: nothing has to be waited for.
const SHUTDOWN: &str = "--shutdown-delay=0s";

/// Two replicas behind a Service, and the configuration that calls it.
struct Replicas {
    name: &'static str,
    processes: [Process; 2],
    ports: [u16; 2],
}

impl Replicas {
    fn start(name: &'static str, arguments: &[&str]) -> Self {
        let service = Service::new();
        let secret = format!("{name}-certificates");
        let own = [
            LISTEN,
            SHUTDOWN,
            "--namespace=default",
            "--webhook-configuration",
            name,
            "--certificates-secret",
            &secret,
        ];
        control_plane().apply(&configuration(name, &url(&service)));
        let processes = [(); 2].map(|()| Process::start(&[&own[..], arguments].concat(), &[]));
        let ports = [0, 1].map(|replica: usize| {
            let process = &processes[replica];
            process.says("ready part=\"certificates\"");
            process.says("ready part=\"cluster\"");
            process.port()
        });
        for port in ports {
            service.add(port);
        }
        await_called(name);
        Self { name, processes, ports }
    }

    fn secret(&self) -> String {
        format!("secret/{}-certificates", self.name)
    }

    /// What the API server trusts.
    fn bundle(&self) -> Vec<CertificateDer<'static>> {
        let configuration = control_plane().get(&["mutatingwebhookconfiguration", self.name]);
        let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"]
            .as_str()
            .expect("a caBundle");
        certificates(bundle)
    }

    /// Waits until `count` lines of both logs together hold `words`.
    fn say(&self, words: &str, count: usize) {
        eventually(words, || {
            let said: usize = self
                .processes
                .iter()
                .map(|process| process.log().matches(words).count())
                .sum();
            (said >= count).then_some(())
        });
    }
}

fn url(service: &Service) -> String {
    format!("https://127.0.0.1:{}/mutate", service.port())
}

fn certificates(base64: &str) -> Vec<CertificateDer<'static>> {
    use base64::Engine;
    let pem = base64::prelude::BASE64_STANDARD.decode(base64).expect("base64");
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .expect("PEM")
}

#[test]
fn two_replicas_that_start_at_once_agree() {
    let replicas = Replicas::start("at-once", &[]);
    let [one, other] = replicas.ports.map(chain);
    assert_eq!(one, other);
    assert_eq!(replicas.bundle().len(), 1);
    let made: usize = replicas
        .processes
        .iter()
        .map(|process| process.log().matches("a new certificate is served").count())
        .sum();
    assert_eq!(made, 2, "each serves one certificate, the same");
}

#[test]
fn rotating_leaf_and_authority_under_load_loses_no_apply() {
    // The leaf is renewed each 6 s, the authority each 12 s; 300 ms are to be enough for everybody to see a change.
    let replicas = Replicas::start("rotation", &["--certificate-lifetime=9s", "--authority-lifetime=18s"]);
    let before = (chain(replicas.ports[0]), replicas.bundle());
    in_namespace(&labels(replicas.name), "rotation", |namespace| {
        let load = Load::start(namespace);
        replicas.say("certificate authorities from before are forgotten", 1);
        load.loses_none_of(50);
    });
    let after = (chain(replicas.ports[0]), replicas.bundle());
    assert_ne!(before.0, after.0);
    assert!(
        !after.1.contains(&before.1[0]),
        "the first authority is trusted no more"
    );
}

#[test]
fn a_secret_that_is_deleted_is_made_anew_and_no_apply_is_lost() {
    let replicas = Replicas::start("deleted", &[]);
    let before = replicas.bundle();
    in_namespace(&labels(replicas.name), "deleted", |namespace| {
        let load = Load::start(namespace);
        control_plane().kubectl(&["delete", &replicas.secret()]).succeeds();
        // Both serve what the new Secret holds, the first certificate still: its authority is trusted on.
        eventually("a new authority beside the old one", || {
            let bundle = replicas.bundle();
            (bundle.len() == 2 && bundle[1] == before[0]).then_some(())
        });
        let enough = load.answered() + 50;
        eventually("applies go on", || (load.answered() > enough).then_some(()));
        load.loses_none_of(50);
    });
}

#[test]
fn a_secret_that_can_not_be_used_is_made_anew() {
    let replicas = Replicas::start("damaged", &[]);
    let patch = json!({"data": {"ca.key": "bm90IGEga2V5"}}).to_string();
    control_plane()
        .kubectl(&["patch", &replicas.secret(), "--type=merge", "--patch", &patch])
        .succeeds();
    replicas.say("can't be used, and is made anew", 1);
    eventually("a Secret that can be used", || {
        let secret: Value = control_plane().get(&[&replicas.secret()]);
        (secret["data"]["ca.key"] != json!("bm90IGEga2V5")).then_some(())
    });
    for port in replicas.ports {
        eventually("ready again", || {
            get(port, "/readyz").ok().filter(|answer| answer.contains("200 OK"))
        });
    }
}

#[test]
fn not_ready_until_the_configuration_trusts_what_is_served() {
    let name = "untrusted";
    let arguments = [LISTEN, SHUTDOWN, "--webhook-configuration", name, "--namespace=default"];
    let secret = format!("--certificates-secret={name}-certificates");
    let process = Process::start(&[&arguments[..], &[&secret]].concat(), &[]);
    let port = process.port();
    process.says("there is no MutatingWebhookConfiguration untrusted");
    let answer = get(port, "/readyz").expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("apply it"),
        "{answer}"
    );
    let answer = get(port, "/livez").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    control_plane().apply(&configuration(name, &format!("https://127.0.0.1:{port}/mutate")));
    process.says("ready part=\"certificates\"");
    eventually("ready", || {
        get(port, "/readyz")
            .ok()
            .filter(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    control_plane()
        .kubectl(&["delete", "mutatingwebhookconfiguration", name])
        .succeeds();
    eventually("not ready", || {
        get(port, "/readyz")
            .ok()
            .filter(|answer| answer.starts_with("HTTP/1.1 503"))
    });
    control_plane()
        .kubectl(&["delete", "secret", "untrusted-certificates"])
        .succeeds();
}

/// A certificate of somebody else's, as files.
struct Foreign {
    mounted: Mounted,
    authority: Authority,
}

impl Foreign {
    fn new() -> Self {
        let authority = Authority::make(Timestamp::now(), Duration::from_secs(3600)).expect("an authority");
        let mounted = Mounted::new();
        let foreign = Self { mounted, authority };
        foreign.renew();
        foreign
    }

    fn renew(&self) {
        let names = BTreeSet::from(["127.0.0.1".to_owned()]);
        let leaf = self
            .authority
            .sign(&names, Timestamp::now(), Duration::from_secs(600))
            .expect("a leaf");
        self.mounted
            .hold(&[("tls.crt", leaf.chain_pem().as_bytes()), ("tls.key", leaf.key_pem())]);
    }

    fn arguments(&self) -> [String; 2] {
        let folder = self.mounted.path().display();
        [
            format!("--tls-cert={folder}/tls.crt"),
            format!("--tls-key={folder}/tls.key"),
        ]
    }
}

#[test]
fn a_certificate_from_files_is_trusted_by_the_configuration_and_reread_when_it_changes() {
    use base64::Engine;
    let name = "files";
    let foreign = Foreign::new();
    let [certificate, key] = foreign.arguments();
    let arguments = [LISTEN, SHUTDOWN, "--webhook-configuration", name, &certificate, &key];
    let process = Process::start(&arguments, &[]);
    let port = process.port();
    control_plane().apply(&configuration(name, &format!("https://127.0.0.1:{port}/mutate")));
    process.says("has no caBundle yet");
    // As cert-manager's cainjector does.
    let bundle = base64::prelude::BASE64_STANDARD.encode(foreign.authority.certificate_pem());
    let patch = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]).to_string();
    let object = format!("mutatingwebhookconfiguration/{name}");
    control_plane()
        .kubectl(&["patch", &object, "--type=json", "--patch", &patch])
        .succeeds();
    process.says("ready part=\"certificates\"");
    await_called(name);

    let before = chain(port);
    in_namespace(&labels(name), "files", |namespace| {
        let load = Load::start(namespace);
        foreign.renew();
        process.says("the certificate's files changed");
        assert_ne!(chain(port), before);
        load.loses_none_of(50);
    });
}

#[test]
fn without_the_controller_no_cluster_is_needed() {
    let arguments = [LISTEN, SHUTDOWN, "--without-controller"];
    let process = Process::start(&arguments, &[("KUBECONFIG", "/nowhere")]);
    let answer = get(process.port(), "/readyz").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let foreign = Foreign::new();
    let [certificate, key] = foreign.arguments();
    let arguments = [LISTEN, SHUTDOWN, "--without-controller", &certificate, &key];
    let process = Process::start(&arguments, &[("KUBECONFIG", "/nowhere")]);
    let port = process.port();
    assert!(get(port, "/readyz").expect("an answer").starts_with("HTTP/1.1 200"));
    let metrics = get(port, "/metrics").expect("an answer");
    assert!(
        metrics.contains("vixens_backup_certificate_expiry_timestamp_seconds "),
        "{metrics}"
    );
}
