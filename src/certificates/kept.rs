//! The Secret ↔ what it keeps: the authority with its key, the older authorities that are still trusted, and the leaf.

use super::authority::{self, Authority, Leaf, Unusable};
use super::decision::{Bundle, Facts, LeafFacts};
use super::{Configuration, pem, trusts};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls_pki_types::CertificateDer;
use std::collections::{BTreeMap, BTreeSet};

/// The Secret's keys. `ca.crt` holds the present authority first, then the older ones.
const ROOTS: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const LEAF: &str = "tls.crt";
const LEAF_KEY: &str = "tls.key";

/// How many older authorities are kept. There is one, except after several lost Secrets in a row.
const OLDER: usize = 3;

/// What the Secret keeps.
#[derive(Clone, Debug)]
pub struct Kept {
    authority: Authority,
    older: Vec<CertificateDer<'static>>,
    leaf: Option<Leaf>,
}

impl Kept {
    /// Reads a Secret's data. A leaf that can't be used is as good as none.
    pub fn from_data(data: &BTreeMap<String, ByteString>) -> Result<Self, Unusable> {
        let value = |key: &str| data.get(key).map(|value| value.0.as_slice()).unwrap_or_default();
        let authority = Authority::from_pem(value(ROOTS), value(AUTHORITY_KEY))?;
        Ok(Self {
            authority,
            older: pem::certificates(value(ROOTS)).into_iter().skip(1).collect(),
            leaf: Leaf::from_pem(value(LEAF), value(LEAF_KEY)).ok(),
        })
    }

    /// Writes a Secret's data.
    pub fn to_data(&self) -> BTreeMap<String, ByteString> {
        let Self { authority, older, leaf } = self;
        let mut roots = pem::encode_certificates(std::slice::from_ref(authority.certificate()));
        roots.push_str(&pem::encode_certificates(older));
        let mut data = BTreeMap::from([
            (ROOTS.to_owned(), ByteString(roots.into_bytes())),
            (
                AUTHORITY_KEY.to_owned(),
                ByteString(authority.key_pem().as_bytes().to_vec()),
            ),
        ]);
        if let Some(leaf) = leaf {
            data.insert(LEAF.to_owned(), ByteString(leaf.chain_pem().into_bytes()));
            data.insert(LEAF_KEY.to_owned(), ByteString(leaf.key_pem().to_vec()));
        }
        data
    }

    /// A new authority in front of `older` ones, those that have not ended. `leaf` goes on where one of them signed it.
    pub fn begin(
        authority: Authority,
        mut older: Vec<CertificateDer<'static>>,
        leaf: Option<Leaf>,
        now: Timestamp,
    ) -> Self {
        older.retain(|root| authority::expiry(root).is_some_and(|expires| expires > now));
        older.truncate(OLDER);
        let mut kept = Self {
            authority,
            older,
            leaf: None,
        };
        kept.leaf = leaf.filter(|leaf| signed_by(leaf, &kept.roots(), now));
        kept
    }

    /// The same with another leaf.
    #[must_use]
    pub fn with_leaf(self, leaf: Leaf) -> Self {
        Self {
            leaf: Some(leaf),
            ..self
        }
    }

    /// The same without the older authorities.
    #[must_use]
    pub fn without_older(self) -> Self {
        Self {
            older: Vec::new(),
            ..self
        }
    }

    /// Who signs.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What is served.
    pub fn leaf(&self) -> Option<&Leaf> {
        self.leaf.as_ref()
    }

    /// Everybody who is to be trusted, the present authority first.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(self.authority.certificate())
            .chain(&self.older)
            .cloned()
            .collect()
    }

    /// What a decision needs to know.
    pub(super) fn facts(
        kept: Option<&Self>,
        configuration: Option<&Configuration>,
        names: &BTreeSet<String>,
        now: Timestamp,
    ) -> Facts {
        let Some(kept) = kept else {
            return Facts {
                authority: None,
                older: false,
                leaf: None,
                bundle: Bundle::Differs,
            };
        };
        let roots = kept.roots();
        Facts {
            authority: Some(kept.authority.validity),
            older: !kept.older.is_empty(),
            leaf: kept.leaf.as_ref().map(|leaf| LeafFacts {
                validity: leaf.validity,
                by_authority: signed_by(leaf, &roots[..1], now),
                fits: names.iter().all(|name| trusts(&roots, leaf.chain(), name, now).is_ok()),
            }),
            bundle: match configuration {
                Some(configuration) if configuration.trusts_exactly(&roots) => Bundle::Ours,
                Some(configuration) if !configuration.webhooks.is_empty() => Bundle::Differs,
                Some(_) | None => Bundle::NoConfiguration,
            },
        }
    }
}

/// Whether one of `roots` signed `leaf`.
fn signed_by(leaf: &Leaf, roots: &[CertificateDer<'static>], now: Timestamp) -> bool {
    leaf.names()
        .iter()
        .any(|name| trusts(roots, leaf.chain(), name, now).is_ok())
}
