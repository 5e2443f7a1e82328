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
