//! The MutatingWebhookConfiguration, as far as trust goes: by which names the API server calls us, and what it trusts;
//! and what is written there. Nothing but `caBundle` is ours to write.

use super::pem;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Who owns `caBundle` in `managedFields`. Manifests leave the field out, so that no applier does.
pub const FIELD_MANAGER: &str = "vixens-backup-certificates";

/// What a MutatingWebhookConfiguration says about trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The version that was read.
    pub(super) resource_version: Option<String>,
    /// Its webhooks, all of them ours.
    pub(super) webhooks: Vec<Webhook>,
}

/// One webhook of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Webhook {
    /// Its name in the configuration.
    pub(super) name: String,
    /// What the API server expects in our certificate.
    pub(super) server_name: String,
    /// Whom the API server trusts.
    pub(super) bundle: Vec<CertificateDer<'static>>,
}

impl From<&MutatingWebhookConfiguration> for Configuration {
    fn from(object: &MutatingWebhookConfiguration) -> Self {
        let webhooks = object.webhooks.iter().flatten().filter_map(|webhook| {
            let client = &webhook.client_config;
            let server_name = match (&client.service, &client.url) {
                (Some(service), _) => format!("{}.{}.svc", service.name, service.namespace),
                (None, Some(url)) => url
                    .parse::<axum::http::Uri>()
                    .ok()?
                    .host()?
                    .trim_matches(['[', ']'])
                    .to_owned(),
                (None, None) => return None,
            };
            // A name that no certificate can hold would have us sign for ever.
            ServerName::try_from(server_name.as_str()).ok()?;
            Some(Webhook {
                name: webhook.name.clone(),
                server_name,
                bundle: client
                    .ca_bundle
                    .as_ref()
                    .map_or_else(Vec::new, |bundle| pem::certificates(&bundle.0)),
            })
        });
        Self {
            resource_version: object.metadata.resource_version.clone(),
            webhooks: webhooks.collect(),
        }
    }
}

impl Configuration {
    /// The names that our certificate must hold.
    pub fn server_names(&self) -> BTreeSet<String> {
        self.webhooks
            .iter()
            .map(|webhook| webhook.server_name.clone())
            .collect()
    }

    /// Whether each webhook trusts `roots`, and nobody else.
    pub(super) fn trusts_exactly(&self, roots: &[CertificateDer<'_>]) -> bool {
        !self.webhooks.is_empty() && self.webhooks.iter().all(|webhook| webhook.bundle == roots)
    }

    /// What is applied, server-side, so that each webhook trusts `roots`; only to the version that was read.
    pub(super) fn application(&self, name: &str, roots: &[CertificateDer<'_>]) -> Value {
        use base64::Engine;
        let bundle = base64::prelude::BASE64_STANDARD.encode(pem::encode_certificates(roots));
        let webhooks: Vec<Value> = self
            .webhooks
            .iter()
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name, "resourceVersion": self.resource_version},
            "webhooks": webhooks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_expects_the_name_of_the_service_or_of_the_url() {
        let webhook = |client: Value| {
            json!({"name": "a.vixens.io", "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "clientConfig": client})
        };
        let object: MutatingWebhookConfiguration = serde_json::from_value(json!({"webhooks": [
            webhook(json!({"service": {"name": "backup", "namespace": "ours", "path": "/mutate"}})),
            webhook(json!({"url": "https://127.0.0.1:8443/mutate"})),
            webhook(json!({"url": "https://[::1]:8443/mutate"})),
            webhook(json!({"url": "https://hooks.example/mutate"})),
            webhook(json!({"url": "https://under_score.example/mutate"})),
            webhook(json!({})),
        ]}))
        .expect("a configuration");
        let names = Configuration::from(&object).server_names();
        assert_eq!(
            names,
            BTreeSet::from(
                [
                    "backup.ours.svc",
                    "127.0.0.1",
                    "::1",
                    "hooks.example",
                    "under_score.example"
                ]
                .map(str::to_owned)
            )
        );
    }
}
