//! Whether the API server can trust what we serve: the check that it makes itself at the beginning of each connection.
//! Ready only then.

use super::{Configuration, Served};
use crate::admission::Readiness;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;

/// The part of readiness that waits for trust.
const PART: &str = "certificates";

/// Verifies `chain` for `name` as a client does that trusts `roots` and nobody else.
pub fn trusts(
    roots: &[CertificateDer<'static>],
    chain: &[CertificateDer<'static>],
    name: &str,
    now: Timestamp,
) -> Result<(), rustls::Error> {
    let no_certificate = || rustls::Error::General("there is no certificate".to_owned());
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|_| rustls::Error::General("nobody is trusted".to_owned()))?;
    let name = ServerName::try_from(name).map_err(|error| rustls::Error::General(error.to_string()))?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().max(0).unsigned_abs()));
    let (end_entity, intermediates) = chain.split_first().ok_or_else(no_certificate)?;
    verifier
        .verify_server_cert(end_entity, intermediates, &name, &[], now)
        .map(|_| ())
}

/// Whether every webhook of `configuration` trusts what is served, or why not.
fn assess(name: &str, configuration: Option<&Configuration>, served: &Served, now: Timestamp) -> Result<(), String> {
    let Some(configuration) = configuration else {
        return Err(format!(
            "there is no MutatingWebhookConfiguration {name}: apply it, and it is found within a moment"
        ));
    };
    if configuration.webhooks.is_empty() {
        return Err(format!(
            "MutatingWebhookConfiguration {name} has no webhook that calls us"
        ));
    }
    let Some(leaf) = served.leaf() else {
        return Err("there is no certificate yet".to_owned());
    };
    for webhook in &configuration.webhooks {
        if webhook.bundle.is_empty() {
            return Err(format!("webhook {} of {name} has no caBundle yet", webhook.name));
        }
        trusts(&webhook.bundle, leaf.chain(), &webhook.server_name, now).map_err(|error| {
            format!(
                "webhook {} of {name} does not trust our certificate for {}: {error}",
                webhook.name, webhook.server_name
            )
        })?;
    }
    Ok(())
}

/// Tells `readiness` whether the configuration `name` trusts what is served, now and after each change of either. Not
/// ready from the call on, polled or not.
pub fn watch_trust(
    configurations: Api<MutatingWebhookConfiguration>,
    name: String,
    served: Arc<Served>,
    readiness: Arc<Readiness>,
) -> impl Future<Output = ()> {
    readiness.wait(PART, "the API server was not asked yet");
    watch(configurations, name, served, readiness)
}

async fn watch(
    configurations: Api<MutatingWebhookConfiguration>,
    name: String,
    served: Arc<Served>,
    readiness: Arc<Readiness>,
) {
    // Time alone can end trust, too.
    const CHECK: Duration = Duration::from_secs(60);
    let mut changes = served.changes();
    let mut objects = watcher::watch_object(configurations, &name).default_backoff().boxed();
    let mut configuration = None;
    let mut known = false;
    loop {
        tokio::select! {
            object = objects.next() => match object {
                Some(Ok(object)) => {
                    configuration = object.as_ref().map(Configuration::from);
                    known = true;
                }
                Some(Err(error)) => {
                    // What was seen last goes on to hold: an API server that is away calls nobody.
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "MutatingWebhookConfiguration {name} can't be watched");
                    if !known {
                        readiness.wait(PART, format!("MutatingWebhookConfiguration {name} can't be read: {error}"));
                    }
                    continue;
                }
                None => return,
            },
            _ = changes.changed() => {}
            () = tokio::time::sleep(CHECK) => {}
        }
        if known {
            match assess(&name, configuration.as_ref(), &served, Timestamp::now()) {
                Ok(()) => readiness.done(PART),
                Err(why) => readiness.wait(PART, why),
            }
        }
    }
}
