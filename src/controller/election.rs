//! One replica leads: a Lease in our own namespace, as client-go's leader election does it. A holder that is not heard of
//! for a while has lost it; a leader that can't renew stops by itself before that. What is done twice in between does no
//! harm: everything that a leader applies follows from what is stored.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use std::time::Duration;
use tokio::time::Instant;

/// After so long without a renewal, somebody else may lead.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long stops.
const DEADLINE: Duration = Duration::from_secs(10);
/// A leader renews so often.
const RENEW: Duration = Duration::from_secs(5);
/// Who wants to lead looks so often.
const RETRY: Duration = Duration::from_secs(2);
/// The API server's answer is waited for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes part in the election for one Lease.
pub(super) struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    /// The Lease as it was seen last, and when it was first seen like that: nobody's clock but our own counts.
    seen: Option<(Lease, Instant)>,
}

impl Election {
    pub(super) fn new(leases: Api<Lease>, name: String, identity: String) -> Self {
        Self {
            leases,
            name,
            identity,
            seen: None,
        }
    }

    /// Waits until this replica leads.
    pub(super) async fn win(&mut self) {
        let mut told = false;
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => told = false,
                Err(error) if !told => {
                    told = true;
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "Lease {} can't be taken; trying again", self.name);
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews the Lease, and returns when it is lost.
    pub(super) async fn keep(&mut self) -> String {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW.min(DEADLINE.saturating_sub(renewed.elapsed()))).await;
            let why = match self.attempt().await {
                Ok(true) => {
                    renewed = Instant::now();
                    continue;
                }
                Ok(false) => return format!("{} leads", self.holder().unwrap_or("somebody else")),
                Err(error) => error.to_string(),
            };
            if renewed.elapsed() >= DEADLINE {
                return format!("it could not be renewed for {} s: {why}", DEADLINE.as_secs());
            }
            tokio::time::sleep(RETRY.min(DEADLINE.saturating_sub(renewed.elapsed()))).await;
        }
    }

    /// Gives the Lease back, so that nobody has to wait.
    pub(super) async fn release(&mut self) {
        let Some((mut lease, _)) = self.seen.take() else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            let parameters = PostParams::default();
            let replaced = self.leases.replace(&self.name, &parameters, &lease);
            // Else it runs out by itself.
            let _ = tokio::time::timeout(Duration::from_secs(2), replaced).await;
        }
    }

    fn holder(&self) -> Option<&str> {
        self.seen.as_ref()?.0.spec.as_ref()?.holder_identity.as_deref()
    }

    /// Takes or renews the Lease; false where somebody else has it.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        match tokio::time::timeout(PATIENCE, self.take_or_renew()).await {
            Ok(taken) => taken,
            Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
        }
    }

    async fn take_or_renew(&mut self) -> Result<bool, kube::Error> {
        // What we wrote ourselves is most likely what is still there.
        if self.holder() != Some(&self.identity) {
            let found = self.leases.get_opt(&self.name).await?;
            self.see(found);
        }
        let now = MicroTime(jiff::Timestamp::now());
        let written = match &self.seen {
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(LeaseSpec {
                        holder_identity: Some(self.identity.clone()),
                        lease_duration_seconds: seconds(DURATION),
                        acquire_time: Some(now.clone()),
                        renew_time: Some(now),
                        lease_transitions: Some(0),
                        ..LeaseSpec::default()
                    }),
                };
                self.leases.create(&PostParams::default(), &lease).await
            }
            Some((lease, since)) => {
                let mut lease = lease.clone();
                let spec = lease.spec.get_or_insert_default();
                let holder = spec.holder_identity.as_deref().unwrap_or_default();
                if holder != self.identity {
                    let lasts = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
                    if !holder.is_empty() && since.elapsed() < Duration::from_secs(lasts) {
                        return Ok(false);
                    }
                    spec.holder_identity = Some(self.identity.clone());
                    spec.acquire_time = Some(now.clone());
                    spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
                }
                spec.lease_duration_seconds = seconds(DURATION);
                spec.renew_time = Some(now);
                self.leases.replace(&self.name, &PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                Ok(true)
            }
            // Somebody else was first: what is stored counts.
            Err(kube::Error::Api(status))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                let found = self.leases.get_opt(&self.name).await?;
                self.see(found);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn see(&mut self, found: Option<Lease>) {
        self.seen = match (found, self.seen.take()) {
            (Some(found), Some((known, since))) if found.resource_version() == known.resource_version() => {
                Some((known, since))
            }
            (Some(found), _) => Some((found, Instant::now())),
            (None, _) => None,
        };
    }
}

fn seconds(duration: Duration) -> Option<i32> {
    i32::try_from(duration.as_secs()).ok()
}
