//! The certificate that connections get. It changes under way: a new connection gets the new one.

use super::{Leaf, Unusable};
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// What is served now.
#[derive(Debug)]
pub struct Served {
    certified: RwLock<Arc<CertifiedKey>>,
    leaf: watch::Sender<Option<Leaf>>,
}

impl Served {
    /// Serves `placeholder` until there is something better: probes are answered over TLS too, and don't verify.
    pub fn new(placeholder: &Leaf) -> Result<Self, Unusable> {
        Ok(Self {
            certified: RwLock::new(Arc::new(placeholder.certified()?)),
            leaf: watch::Sender::new(None),
        })
    }

    /// Serves `leaf` from the next connection on. Says whether that is a change.
    pub fn serve(&self, leaf: &Leaf) -> Result<bool, Unusable> {
        if self.leaf().is_some_and(|served| served.chain() == leaf.chain()) {
            return Ok(false);
        }
        let certified = Arc::new(leaf.certified()?);
        *self.certified.write().unwrap_or_else(PoisonError::into_inner) = certified;
        self.leaf.send_replace(Some(leaf.clone()));
        Ok(true)
    }

    /// What is served, once it is more than a placeholder.
    pub fn leaf(&self) -> Option<Leaf> {
        self.leaf.borrow().clone()
    }

    /// Tells of each change.
    pub fn changes(&self) -> watch::Receiver<Option<Leaf>> {
        self.leaf.subscribe()
    }

    /// TLS 1.2 and 1.3 without session resumption: a resumed session would show no certificate, and the API server
    /// keeps its connections open anyway.
    pub fn tls(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
