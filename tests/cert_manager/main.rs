//! `deploy/overlays/cert-manager` with cert-manager itself, on a control plane of its own: cert-manager makes the
//! certificates and writes `caBundle`, the webhook serves them by its Service's name, and each renewal, under a steady
//! stream of applies, loses none of them.

#![expect(
    clippy::expect_used,
    reason = "what a test can't do without is expected, in its own functions, too"
)]
#![expect(clippy::panic, reason = "that is how a test fails")]
#![expect(dead_code, reason = "the other tests on an API server use the rest")]

#[path = "../api_server/connection.rs"]
mod connection;
#[path = "../api_server/control_plane.rs"]
mod control_plane;
#[path = "../manifests/deployed.rs"]
mod deployed;
#[path = "../manifests/egress.rs"]
mod egress;
#[path = "../api_server/load.rs"]
mod load;
#[path = "../api_server/mounted.rs"]
mod mounted;
#[path = "../api_server/namespace.rs"]
mod namespace;
#[path = "../manifests/tools.rs"]
mod tools;
#[path = "../api_server/webhook.rs"]
mod webhook;
#[path = "../api_server/workload.rs"]
mod workload;

use base64::Engine;
use connection::{Service, chain};
use control_plane::{control_plane, control_plane_with, eventually};
use jiff::Timestamp;
use load::Load;
use mounted::Mounted;
use namespace::in_plain_namespace;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use tools::Tool;
use webhook::{Process, guarded};
use workload::{FIRST, stored_deployment};

const OVERLAY: &str = "deploy/overlays/cert-manager";
const NAMESPACE: &str = "--namespace=vixens-backup";
/// The Secret that is mounted, and that of the authority.
const LEAF: &str = "vixens-backup-tls";
const AUTHORITY: &str = "vixens-backup-authority";

/// The overlay as it is deployed, with what belongs to it in a cluster.
struct Installation {
    process: Process,
    port: u16,
    mounted: Mounted,
    _cert_manager: Process,
}

/// The one installation, for one case at a time: what is renewed is everybody's.
fn installation() -> (&'static Installation, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    static INSTALLATION: LazyLock<Installation> = LazyLock::new(Installation::new);
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (&INSTALLATION, turn)
}

impl Installation {
    fn new() -> Self {
        let service = Service::new();
        let plane = control_plane_with(|folder| egress::egress(&service, folder));
        let tool = Tool::new("cert-manager");
        tool.define(&[
            "cert-manager.io_certificaterequests.yaml",
            "cert-manager.io_certificates.yaml",
            "cert-manager.io_clusterissuers.yaml",
            "cert-manager.io_issuers.yaml",
        ]);
        let mut cert_manager = guarded(tool.programs().join("cert-manager"));
        cert_manager.env("KUBECONFIG", &plane.kubeconfig);
        let cert_manager = Process::of(cert_manager);
        cert_manager.says("Starting workers");
        plane.kubectl(&["apply", "-k", OVERLAY]).succeeds();

        let mounted = Mounted::new();
        mount(&mounted, &secret_other_than(LEAF, &Secret::default()));
        let process = deployed::serve(&[("/tls", mounted.path())]);
        let port = process.port();
        service.add(port);
        Self {
            process,
            port,
            mounted,
            _cert_manager: cert_manager,
        }
    }

    /// Brings a new Secret to the webhook, as the kubelet does, and waits until it is served.
    fn serves(&self, secret: &Secret) {
        mount(&self.mounted, secret);
        let leaf = secret.certificates("tls.crt");
        eventually("the new certificate is served", || {
            (chain(self.port) == leaf).then_some(())
        });
    }
}

/// What a Secret holds.
#[derive(Default, PartialEq)]
struct Secret(BTreeMap<String, Vec<u8>>);

impl Secret {
    fn certificates(&self, key: &str) -> Vec<CertificateDer<'static>> {
        certificates(&self.0[key])
    }
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .expect("PEM")
}

fn base64(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("a text");
    base64::prelude::BASE64_STANDARD.decode(text).expect("base64")
}

/// The Secret `name`, once it holds another certificate than `before`.
fn secret_other_than(name: &str, before: &Secret) -> Secret {
    eventually("cert-manager makes a certificate", || {
        let said = control_plane().kubectl(&[NAMESPACE, "get", "-o", "json", "secret", name]);
        let secret: Value = serde_json::from_str(&said.stdout).ok()?;
        let data = secret["data"].as_object()?;
        let secret: BTreeMap<_, _> = data.iter().map(|(key, value)| (key.clone(), base64(value))).collect();
        (secret.get("tls.crt") != before.0.get("tls.crt")).then_some(Secret(secret))
    })
}

fn secret(name: &str) -> Secret {
    secret_other_than(name, &Secret::default())
}

fn mount(mounted: &Mounted, secret: &Secret) {
    let files: Vec<(&str, &[u8])> = secret.0.iter().map(|(key, file)| (key.as_str(), &file[..])).collect();
    mounted.hold(&files);
}

/// What `cmctl renew` does.
fn renew(certificate: &str) {
    let condition = json!([{"op": "add", "path": "/status/conditions/-", "value": {
        "type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "renewed by hand",
        "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }}])
    .to_string();
    let object = format!("certificate/{certificate}");
    control_plane()
        .kubectl(&[
            NAMESPACE,
            "patch",
            &object,
            "--subresource=status",
            "--type=json",
            "--patch",
            &condition,
        ])
        .succeeds();
}

/// What the API server trusts.
fn bundle() -> Vec<CertificateDer<'static>> {
    let configuration = control_plane().get(&["mutatingwebhookconfiguration/vixens-backup"]);
    certificates(&base64(&configuration["webhooks"][0]["clientConfig"]["caBundle"]))
}

/// What is stored of the overlay, but for the status.
fn applied() -> Vec<Value> {
    let mut list = control_plane().get(&["-k", OVERLAY]);
    let items = list["items"].as_array_mut().expect("a list");
    for item in items.iter_mut() {
        let object = item.as_object_mut().expect("an object");
        object.remove("status");
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        metadata.remove("managedFields");
        metadata.remove("resourceVersion");
    }
    items.clone()
}

#[test]
fn cert_manager_makes_what_is_served_and_trusted() {
    let (installation, _turn) = installation();
    assert_eq!(chain(installation.port), secret(LEAF).certificates("tls.crt"));
    let authority = secret(AUTHORITY).certificates("tls.crt");
    assert!(bundle().contains(&authority[0]), "cainjector writes caBundle");
    in_plain_namespace("cert-manager", |namespace| {
        namespace.accepts(&FIRST.deployment());
        let stored = stored_deployment(namespace);
        assert_eq!(stored.init_containers(), ["init-config", "backup-sidecar"]);
    });
    let secrets = control_plane().get(&[NAMESPACE, "secrets"]);
    let names: Vec<&str> = secrets["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|secret| secret["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, [AUTHORITY, LEAF], "the webhook keeps none of its own");
}

#[test]
fn applying_the_overlay_again_changes_nothing() {
    let (_, _turn) = installation();
    let before = applied();
    let said = control_plane().kubectl(&["diff", "-k", OVERLAY]);
    assert!(said.succeeded && said.stdout.is_empty(), "{said:?}");
    control_plane().kubectl(&["apply", "-k", OVERLAY]).succeeds();
    assert_eq!(applied(), before);
}

#[test]
fn a_secret_that_is_deleted_is_made_anew_and_no_apply_is_lost() {
    let (installation, _turn) = installation();
    in_plain_namespace("deleted", |namespace| {
        let load = Load::start(namespace);
        let before = secret(LEAF);
        control_plane()
            .kubectl(&[NAMESPACE, "delete", "secret", LEAF])
            .succeeds();
        installation.serves(&secret_other_than(LEAF, &before));
        load.loses_none_of(50);
    });
}

#[test]
fn renewing_authority_and_leaf_under_load_loses_no_apply() {
    let (installation, _turn) = installation();
    in_plain_namespace("authority", |namespace| {
        let load = Load::start(namespace);
        let (authority, leaf) = (secret(AUTHORITY), secret(LEAF));
        renew("vixens-backup-authority");
        let authority = secret_other_than(AUTHORITY, &authority).certificates("tls.crt");
        // The first leaf that is signed by the new one brings it into caBundle.
        renew("vixens-backup");
        let leaf = secret_other_than(LEAF, &leaf);
        assert_eq!(leaf.certificates("ca.crt"), authority);
        eventually("the new authority is trusted", || {
            bundle().contains(&authority[0]).then_some(())
        });
        installation.serves(&leaf);
        load.loses_none_of(50);
    });
}
