//! Watches the Secret and the configuration, and does what [`Replica`] says: the only part that writes to the cluster.

use super::replica::Act;
use super::{Configuration, FIELD_MANAGER, Kept, Leaf, Replica, Served, Unusable};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How many steps are taken in a row: more than any situation needs.
const STEPS: usize = 12;
/// The situation is looked at this often, whatever happens.
const CHECK: Duration = Duration::from_secs(3600);

/// Keeps one Secret, one configuration and what is served together.
pub struct Keeper {
    /// Where the Secret lies.
    pub secrets: Api<Secret>,
    /// The Secret's name.
    pub secret: String,
    /// Where the configuration lies.
    pub configurations: Api<MutatingWebhookConfiguration>,
    /// The configuration's name.
    pub configuration: String,
    /// What connections get.
    pub served: Arc<Served>,
    /// What was seen, and what to do about it.
    pub replica: Replica,
}

/// Why a step could not be taken.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error("a certificate could not be made")]
    Make(#[from] Unusable),
    #[error("{0}")]
    Api(String, #[source] kube::Error),
}

/// What one step came to.
enum Taken {
    /// There may be more to do.
    Step,
    /// There is nothing to do until then.
    Settled(Timestamp),
}

/// The Secret as it was read.
#[derive(Default)]
struct Seen {
    exists: bool,
    resource_version: Option<String>,
}

impl Keeper {
    /// Never ends by itself. `changed` is told of each certificate that is served from then on.
    pub async fn keep(mut self, changed: impl Fn(&Leaf)) {
        let mut secrets = watcher::watch_object(self.secrets.clone(), &self.secret)
            .default_backoff()
            .boxed();
        let mut configurations = watcher::watch_object(self.configurations.clone(), &self.configuration)
            .default_backoff()
            .boxed();
        let mut seen = None;
        let mut known = false;
        let mut wait = CHECK;
        loop {
            tokio::select! {
                Some(secret) = secrets.next() => match secret {
                    Ok(secret) => self.see(secret, &mut seen, &changed),
                    Err(error) => {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, "Secret {} can't be watched", self.secret);
                        continue;
                    }
                },
                Some(configuration) = configurations.next() => match configuration {
                    Ok(configuration) => {
                        known = true;
                        self.replica.see_configuration(configuration.as_ref().map(Configuration::from));
                    }
                    Err(error) => {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, "MutatingWebhookConfiguration {} can't be watched", self.configuration);
                        continue;
                    }
                },
                () = tokio::time::sleep(wait) => {}
                else => return,
            }
            if known && seen.is_some() {
                wait = self.settle(&mut seen, &changed).await;
            }
        }
    }

    /// Takes steps until there is nothing to do; says for how long.
    async fn settle(&mut self, seen: &mut Option<Seen>, changed: &impl Fn(&Leaf)) -> Duration {
        for _ in 0..STEPS {
            match self.step(seen, changed).await {
                Ok(Taken::Step) => {}
                Ok(Taken::Settled(until)) => {
                    let wait = until.duration_since(Timestamp::now());
                    return Duration::try_from(wait)
                        .unwrap_or_default()
                        .clamp(Duration::from_millis(100), CHECK);
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "certificates: trying again in {} s", RETRY.as_secs());
                    return RETRY;
                }
            }
        }
        tracing::warn!("certificates do not settle: somebody else writes the Secret or the caBundle, too");
        RETRY
    }

    async fn step(&mut self, seen: &mut Option<Seen>, changed: &impl Fn(&Leaf)) -> Result<Taken, KeeperError> {
        match self.replica.next(Timestamp::now())? {
            Act::Wait(until) => return Ok(Taken::Settled(until)),
            Act::Keep(kept) => {
                let written = self.write(&kept, seen.as_ref()).await;
                let secret = match written {
                    // Another replica was first: what it wrote counts.
                    Err(kube::Error::Api(status))
                        if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
                    {
                        self.read().await?
                    }
                    written => Some(written.map_err(|error| self.failed("written", error))?),
                };
                self.see(secret, seen, changed);
            }
            Act::Trust(roots) => {
                // What was seen may be old by now; an old bundle would take trust from a new leaf.
                let secret = self.read().await?;
                let fresh = secret.as_ref().and_then(ResourceExt::resource_version);
                if seen.as_ref().is_some_and(|seen| seen.resource_version == fresh)
                    && let Some(configuration) = self.replica.configuration()
                {
                    let application = configuration.application(&self.configuration, &roots);
                    let parameters = PatchParams::apply(FIELD_MANAGER).force();
                    let applied = self
                        .configurations
                        .patch(&self.configuration, &parameters, &Patch::Apply(&application))
                        .await;
                    let configuration = match applied {
                        Ok(configuration) => Some(configuration),
                        // Somebody changed or removed it meanwhile.
                        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => self
                            .configurations
                            .get_opt(&self.configuration)
                            .await
                            .map_err(|error| self.untrusted(error))?,
                        Err(error) => return Err(self.untrusted(error)),
                    };
                    self.replica
                        .see_configuration(configuration.as_ref().map(Configuration::from));
                    tracing::info!("MutatingWebhookConfiguration {}: caBundle written", self.configuration);
                } else {
                    self.see(secret, seen, changed);
                }
            }
        }
        Ok(Taken::Step)
    }

    async fn read(&self) -> Result<Option<Secret>, KeeperError> {
        self.secrets
            .get_opt(&self.secret)
            .await
            .map_err(|error| self.failed("read", error))
    }

    async fn write(&self, kept: &Kept, seen: Option<&Seen>) -> Result<Secret, kube::Error> {
        let mut secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.secret.clone()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/name".to_owned(),
                    "vixens-backup".to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            data: Some(kept.to_data()),
            ..Secret::default()
        };
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match seen {
            Some(Seen {
                exists: true,
                resource_version,
            }) => {
                secret.metadata.resource_version.clone_from(resource_version);
                self.secrets.replace(&self.secret, &parameters, &secret).await
            }
            _ => self.secrets.create(&parameters, &secret).await,
        }
    }

    fn see(&mut self, secret: Option<Secret>, seen: &mut Option<Seen>, changed: &impl Fn(&Leaf)) {
        let version = |version: &Option<String>| version.as_ref().and_then(|version| version.parse::<u64>().ok());
        let now = Seen {
            exists: secret.is_some(),
            resource_version: secret.as_ref().and_then(ResourceExt::resource_version),
        };
        // A watch may be behind what we wrote ourselves.
        if let (Some(new), Some(old)) = (
            version(&now.resource_version),
            seen.as_ref().and_then(|seen| version(&seen.resource_version)),
        ) && new < old
        {
            return;
        }
        *seen = Some(now);
        let data: Option<BTreeMap<String, ByteString>> = secret.and_then(|secret| secret.data);
        let kept = data.and_then(|data| match Kept::from_data(&data) {
            Ok(kept) => Some(kept),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "what Secret {} holds can't be used, and is made anew",
                    self.secret
                );
                None
            }
        });
        self.replica.see_kept(kept);
        if let Some(leaf) = self.replica.leaf() {
            match self.served.serve(leaf) {
                Ok(true) => {
                    tracing::info!(expires = %leaf.expires(), "a new certificate is served");
                    changed(leaf);
                }
                Ok(false) => {}
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the certificate in Secret {} can't be served", self.secret);
                }
            }
        }
    }

    fn failed(&self, what: &str, error: kube::Error) -> KeeperError {
        KeeperError::Api(format!("Secret {} could not be {what}", self.secret), error)
    }

    fn untrusted(&self, error: kube::Error) -> KeeperError {
        KeeperError::Api(
            format!(
                "the caBundle of MutatingWebhookConfiguration {} could not be written",
                self.configuration
            ),
            error,
        )
    }
}
