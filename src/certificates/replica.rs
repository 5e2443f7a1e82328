//! What one replica has seen → what it does next, as a value. Making keys is the only thing here that is not pure; what
//! is written, and whether that succeeds, is the [`Keeper`](super::Keeper)'s.

use super::decision::{Step, decide};
use super::{Authority, Configuration, Kept, Leaf, Lifetimes, Unusable};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeSet;

/// What one replica has seen.
#[derive(Debug)]
pub struct Replica {
    name: String,
    lifetimes: Lifetimes,
    kept: Option<Kept>,
    configuration: Option<Configuration>,
    /// What the Secret held before it was lost: trusted, and served, until there is something new.
    remembered: Option<Kept>,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Act {
    /// Write this into the Secret, in the version that was read.
    Keep(Box<Kept>),
    /// Have the configuration trust these.
    Trust(Vec<CertificateDer<'static>>),
    /// Nothing, until then at the latest.
    Wait(Timestamp),
}

impl Replica {
    /// Has seen nothing. `name` is what the API server calls us by, where no configuration says otherwise.
    pub fn new(name: String, lifetimes: Lifetimes) -> Self {
        Self {
            name,
            lifetimes,
            kept: None,
            configuration: None,
            remembered: None,
        }
    }

    /// The Secret holds this.
    pub(super) fn see_kept(&mut self, kept: Option<Kept>) {
        if let Some(kept) = &kept {
            self.remembered = Some(kept.clone());
        }
        self.kept = kept;
    }

    /// The configuration says this.
    pub(super) fn see_configuration(&mut self, configuration: Option<Configuration>) {
        self.configuration = configuration;
    }

    /// The configuration as it was seen last.
    pub(super) fn configuration(&self) -> Option<&Configuration> {
        self.configuration.as_ref()
    }

    /// What to serve now.
    pub(super) fn leaf(&self) -> Option<&Leaf> {
        self.kept.as_ref().or(self.remembered.as_ref())?.leaf()
    }

    /// What to do next.
    pub(super) fn next(&self, now: Timestamp) -> Result<Act, Unusable> {
        let names = self.names();
        let facts = Kept::facts(self.kept.as_ref(), self.configuration.as_ref(), &names, now);
        Ok(match (decide(facts, now, self.lifetimes), &self.kept) {
            (Step::Wait(until), _) => Act::Wait(until),
            (Step::MakeAuthority(why), _) => {
                tracing::info!("a new certificate authority is made: {why}");
                let authority = Authority::make(now, self.lifetimes.authority).map_err(Unusable::Key)?;
                let before = self.kept.as_ref().or(self.remembered.as_ref());
                let older = before.map(Kept::roots).unwrap_or_default();
                let leaf = before.and_then(Kept::leaf).cloned();
                Act::Keep(Box::new(Kept::begin(authority, older, leaf, now)))
            }
            (Step::WriteBundle, Some(kept)) => Act::Trust(kept.roots()),
            (Step::SignLeaf(why), Some(kept)) => {
                let leaf = kept.authority().sign(&names, now, self.lifetimes.leaf)?;
                tracing::info!(expires = %leaf.expires(), "a new certificate is signed: {why}");
                Act::Keep(Box::new(kept.clone().with_leaf(leaf)))
            }
            (Step::ForgetOlder, Some(kept)) => {
                tracing::info!("the certificate authorities from before are forgotten: nothing of theirs is served");
                Act::Keep(Box::new(kept.clone().without_older()))
            }
            // Without an authority, the decision is to make one.
            (Step::WriteBundle | Step::SignLeaf(_) | Step::ForgetOlder, None) => Act::Wait(now),
        })
    }

    fn names(&self) -> BTreeSet<String> {
        let mut names = self
            .configuration
            .as_ref()
            .map(Configuration::server_names)
            .unwrap_or_default();
        names.insert(self.name.clone());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::configuration::Webhook;
    use crate::certificates::trusts;
    use proptest::prelude::*;
    use std::time::Duration;

    const NAME: &str = "vixens-backup.vixens-backup.svc";
    const LIFETIMES: Lifetimes = Lifetimes {
        authority: Duration::from_secs(90_000),
        leaf: Duration::from_secs(9_000),
    };

    /// What the API server holds, each with its version.
    struct Cluster {
        now: Timestamp,
        version: u64,
        secret: Option<(u64, Kept)>,
        configuration: (u64, Configuration),
    }

    /// A replica, and the versions that it saw.
    struct Running {
        replica: Replica,
        secret: Option<u64>,
        configuration: u64,
        was_ready: bool,
    }

    impl Cluster {
        fn new() -> Self {
            let webhook = Webhook {
                name: "inject".into(),
                server_name: NAME.into(),
                bundle: Vec::new(),
            };
            let configuration = Configuration {
                resource_version: None,
                webhooks: vec![webhook],
            };
            Self {
                now: Timestamp::from_second(1_000_000).expect("a time"),
                version: 1,
                secret: None,
                configuration: (1, configuration),
            }
        }

        fn trusts(&self, leaf: &Leaf) -> bool {
            let (_, configuration) = &self.configuration;
            trusts(&configuration.webhooks[0].bundle, leaf.chain(), NAME, self.now).is_ok()
        }

        fn next_version(&mut self) -> u64 {
            self.version += 1;
            self.version
        }
    }

    impl Running {
        fn new() -> Self {
            Self {
                replica: Replica::new(NAME.into(), LIFETIMES),
                secret: None,
                configuration: 0,
                was_ready: false,
            }
        }

        fn see_secret(&mut self, cluster: &Cluster) {
            self.secret = cluster.secret.as_ref().map(|(version, _)| *version);
            self.replica
                .see_kept(cluster.secret.as_ref().map(|(_, kept)| kept.clone()));
        }

        fn see_configuration(&mut self, cluster: &Cluster) {
            let (version, configuration) = &cluster.configuration;
            self.configuration = *version;
            self.replica.see_configuration(Some(configuration.clone()));
        }

        /// As the keeper does it, on an API server that refuses what is not based on the present version.
        fn act(&mut self, cluster: &mut Cluster) {
            let fresh = self.secret == cluster.secret.as_ref().map(|(version, _)| *version);
            match self.replica.next(cluster.now).expect("keys can be made") {
                Act::Wait(_) => {}
                Act::Keep(kept) if fresh => {
                    let signed = kept.leaf().filter(|leaf| {
                        let before = cluster.secret.as_ref().and_then(|(_, kept)| kept.leaf());
                        before.is_none_or(|before| before.chain() != leaf.chain())
                    });
                    assert!(
                        signed.is_none_or(|leaf| cluster.trusts(leaf)),
                        "a leaf is signed by an authority that caBundle does not hold"
                    );
                    let version = cluster.next_version();
                    cluster.secret = Some((version, *kept));
                    self.see_secret(cluster);
                }
                Act::Trust(roots) if fresh && self.configuration == cluster.configuration.0 => {
                    let version = cluster.next_version();
                    cluster.configuration.0 = version;
                    cluster.configuration.1.webhooks[0].bundle = roots;
                    self.see_configuration(cluster);
                }
                Act::Keep(_) | Act::Trust(_) => {
                    self.see_secret(cluster);
                    self.see_configuration(cluster);
                }
            }
        }

        fn check(&mut self, cluster: &Cluster) {
            let trusted = self.replica.leaf().is_some_and(|leaf| cluster.trusts(leaf));
            assert!(
                trusted || !self.was_ready,
                "what a ready replica serves is no longer trusted, at {}",
                cluster.now
            );
            self.was_ready = trusted;
        }
    }

    #[derive(Clone, Debug)]
    struct Tick {
        pass: i64,
        lose_secret: bool,
        order: Vec<u8>,
    }

    fn tick() -> impl Strategy<Value = Tick> {
        (1..70_i64, 0..1_000_u16, proptest::collection::vec(0..8_u8, 0..3)).prop_map(|(pass, lose, order)| Tick {
            pass,
            lose_secret: lose == 0,
            order,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]

        /// Two replicas without a leader, whatever the order in which they see and do things, and with the Secret lost
        /// now and then: rotating leaf and authority never costs a ready replica its trust.
        #[test]
        fn rotation_never_costs_trust(ticks in proptest::collection::vec(tick(), 2_000)) {
            let mut cluster = Cluster::new();
            let mut replicas = [Running::new(), Running::new()];
            for (number, Tick { pass, lose_secret, order }) in ticks.into_iter().enumerate() {
                cluster.now = cluster.now.checked_add(Duration::from_secs(pass.unsigned_abs())).expect("a time");
                if lose_secret {
                    cluster.secret = None;
                }
                // Within four ticks, both have seen everything: a watch is not an overlap late.
                let all: &[u8] = if number % 4 == 3 { &[0, 1, 2, 3, 4, 5] } else { &[] };
                for step in order.into_iter().chain(all.iter().copied()) {
                    // One look, one act, or (6, 7) as many as are needed until all is settled.
                    let (replica, steps): (u8, &[u8]) = match step {
                        6 | 7 => (step - 6, &[0, 1, 2, 2, 2]),
                        _ => (step / 3, &[[0], [1], [2]][usize::from(step % 3)]),
                    };
                    for step in steps {
                        let running = &mut replicas[usize::from(replica)];
                        match step {
                            0 => running.see_secret(&cluster),
                            1 => running.see_configuration(&cluster),
                            _ => running.act(&mut cluster),
                        }
                        if *step != 1 {
                            for running in &mut replicas {
                                running.check(&cluster);
                            }
                        }
                    }
                }
            }
            prop_assert!(replicas.iter().all(|running| running.was_ready), "not ready in the end");
        }
    }

    #[test]
    fn what_somebody_does_to_the_bundle_is_undone() {
        let mut cluster = Cluster::new();
        let mut running = Running::new();
        let settle = |running: &mut Running, cluster: &mut Cluster| {
            for _ in 0..6 {
                running.see_secret(cluster);
                running.see_configuration(cluster);
                running.act(cluster);
            }
        };
        settle(&mut running, &mut cluster);
        let bundle = cluster.configuration.1.webhooks[0].bundle.clone();
        assert_eq!(bundle.len(), 1);
        cluster.configuration.0 = cluster.next_version();
        cluster.configuration.1.webhooks[0].bundle.clear();
        settle(&mut running, &mut cluster);
        assert_eq!(cluster.configuration.1.webhooks[0].bundle, bundle);
    }

    #[test]
    fn an_authority_is_replaced_before_it_ends_and_then_forgotten() {
        let mut cluster = Cluster::new();
        let mut running = Running::new();
        let mut bundles = Vec::new();
        for _ in 0..2_004 {
            cluster.now = cluster.now.checked_add(Duration::from_secs(60)).expect("a time");
            running.see_secret(&cluster);
            running.see_configuration(&cluster);
            for _ in 0..4 {
                running.act(&mut cluster);
            }
            let bundle = &cluster.configuration.1.webhooks[0].bundle;
            if bundles.last() != Some(bundle) {
                bundles.push(bundle.clone());
            }
        }
        // 120,240 s: changes of authorities at 60,000 s, and at 120,000 s.
        let sizes: Vec<usize> = bundles.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 2, 1, 2]);
        assert_eq!(bundles[1][1], bundles[0][0], "the old one stays beside the new one");
        assert_eq!(bundles[2][0], bundles[1][0], "then the new one is left");
    }
}
