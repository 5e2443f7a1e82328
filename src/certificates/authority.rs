//! A certificate authority of our own, and the leaf that it signs: made, and read back.

use super::pem;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeSet;
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Certificates are valid from a little before they were made: clocks differ.
const BACKDATED: Duration = Duration::from_secs(300);

/// Why a certificate or its key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Not in PEM, or empty.
    #[error("there is no {0} in PEM")]
    Missing(&'static str),
    /// Not X.509.
    #[error("the certificate can't be read")]
    Certificate(#[source] x509_parser::error::X509Error),
    /// Not a key that can sign, or not the one of the certificate.
    #[error("the key can't be used")]
    Key(#[source] rcgen::Error),
    /// The key can't be served with the certificate.
    #[error("the certificate can't be served with its key")]
    Serve(#[source] rustls::Error),
    /// The key belongs to something else.
    #[error("the key is not the one of the certificate")]
    OtherKey,
}

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// When it was made.
    pub(super) made: Timestamp,
    /// When it ends.
    pub(super) expires: Timestamp,
}

impl Validity {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        let at = |seconds| Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        let begins = at(validity.not_before.timestamp());
        Self {
            made: begins.checked_add(BACKDATED).unwrap_or(begins),
            expires: at(validity.not_after.timestamp()),
        }
    }

    fn begin(now: Timestamp, lifetime: Duration) -> Self {
        Self {
            made: now,
            expires: now.checked_add(lifetime).unwrap_or(Timestamp::MAX),
        }
    }

    fn write(self, params: &mut CertificateParams) {
        let Self { made, expires } = self;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let at = |time: Timestamp| epoch + Duration::from_secs(time.as_second().max(0).unsigned_abs());
        params.not_before = at(made) - BACKDATED;
        params.not_after = at(expires);
    }
}

/// An authority: its certificate, and the key that signs.
#[derive(Clone)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    key: String,
    pub(super) validity: Validity,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without its key.
        formatter
            .debug_struct("Authority")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one.
    pub fn make(now: Timestamp, lifetime: Duration) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // A name of its own, so that two of them in one bundle can be told apart.
        params
            .distinguished_name
            .push(DnType::CommonName, format!("vixens-backup {now:.0}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let validity = Validity::begin(now, lifetime);
        validity.write(&mut params);
        let certificate = params.self_signed(&key)?.into();
        Ok(Self {
            certificate,
            key: key.serialize_pem(),
            validity,
        })
    }

    /// The one whose certificate is the first in `certificates`.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, Unusable> {
        let certificate = first(certificates)?;
        let parsed = parse(&certificate)?;
        let key = str::from_utf8(key).map_err(|_| Unusable::Missing("key"))?.to_owned();
        let pair = KeyPair::from_pem(&key).map_err(Unusable::Key)?;
        if pair.der_bytes() != &*parsed.public_key().subject_public_key.data {
            return Err(Unusable::OtherKey);
        }
        let validity = Validity::of(&parsed);
        Ok(Self {
            certificate,
            key,
            validity,
        })
    }

    /// Signs a new leaf for `names`. It ends no later than the authority.
    pub fn sign(&self, names: &BTreeSet<String>, now: Timestamp, lifetime: Duration) -> Result<Leaf, Unusable> {
        let key = KeyPair::generate().map_err(Unusable::Key)?;
        let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>()).map_err(Unusable::Key)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "vixens-backup");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let mut validity = Validity::begin(now, lifetime);
        validity.expires = validity.expires.min(self.validity.expires);
        validity.write(&mut params);
        let signer = KeyPair::from_pem(&self.key).map_err(Unusable::Key)?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &signer).map_err(Unusable::Key)?;
        let certificate = params.signed_by(&key, &issuer).map_err(Unusable::Key)?;
        Leaf::from_pem(
            pem::encode("CERTIFICATE", certificate.der()).as_bytes(),
            key.serialize_pem().as_bytes(),
        )
    }

    /// What goes into a `caBundle`.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What goes into a `caBundle`, in PEM.
    pub fn certificate_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.certificate)
    }

    /// The key, in PEM.
    pub(super) fn key_pem(&self) -> &str {
        &self.key
    }
}

/// What a server shows, with its key.
#[derive(Clone)]
pub struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    names: BTreeSet<String>,
    pub(super) validity: Validity,
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without its key.
        let Self { names, validity, .. } = self;
        formatter
            .debug_struct("Leaf")
            .field("names", names)
            .field("validity", validity)
            .finish_non_exhaustive()
    }
}

impl Leaf {
    /// A chain of certificates, the server's first, and its key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Unusable> {
        let certificate = first(chain)?;
        let parsed = parse(&certificate)?;
        let leaf = Self {
            chain: pem::certificates(chain),
            key: key.to_vec(),
            names: names_of(&parsed),
            validity: Validity::of(&parsed),
        };
        leaf.certified()?;
        Ok(leaf)
    }

    /// What rustls serves.
    pub fn certified(&self) -> Result<CertifiedKey, Unusable> {
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| Unusable::Missing("key"))?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(self.chain.clone(), key, &provider).map_err(Unusable::Serve)
    }

    /// The chain, the server's certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// When it ends.
    pub fn expires(&self) -> Timestamp {
        self.validity.expires
    }

    /// The names and addresses that it stands for.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// The chain, in PEM.
    pub fn chain_pem(&self) -> String {
        pem::encode_certificates(&self.chain)
    }

    /// The key, in PEM.
    pub fn key_pem(&self) -> &[u8] {
        &self.key
    }
}

fn first(certificates: &[u8]) -> Result<CertificateDer<'static>, Unusable> {
    CertificateDer::from_pem_slice(certificates).map_err(|_| Unusable::Missing("certificate"))
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Unusable> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(error) => Err(Unusable::Certificate(match error {
            x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => error,
            x509_parser::nom::Err::Incomplete(_) => x509_parser::error::X509Error::InvalidCertificate,
        })),
    }
}

/// When `certificate` ends.
pub(super) fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    Some(Validity::of(&parse(certificate).ok()?).expires)
}

fn names_of(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => match octets.len() {
            4 => <[u8; 4]>::try_from(*octets)
                .ok()
                .map(|octets| std::net::IpAddr::from(octets).to_string()),
            _ => <[u8; 16]>::try_from(*octets)
                .ok()
                .map(|octets| std::net::IpAddr::from(octets).to_string()),
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> Timestamp {
        "2026-11-22T13:05:00Z".parse().expect("a time")
    }

    #[test]
    fn what_was_made_is_read_back() {
        let authority = Authority::make(now(), YEAR).expect("an authority");
        let certificate = pem::encode("CERTIFICATE", authority.certificate());
        let again = Authority::from_pem(certificate.as_bytes(), authority.key_pem().as_bytes()).expect("the same");
        assert_eq!(again.validity, authority.validity);

        let names = BTreeSet::from(["127.0.0.1", "::1", "vixens-backup.vixens-backup.svc"].map(str::to_owned));
        let leaf = again.sign(&names, now(), DAY).expect("a leaf");
        assert_eq!(leaf.names(), &names);
        assert_eq!(leaf.validity, Validity::begin(now(), DAY));
        let again = Leaf::from_pem(leaf.chain_pem().as_bytes(), leaf.key_pem()).expect("the same");
        assert_eq!((again.chain(), again.names()), (leaf.chain(), leaf.names()));
    }

    #[test]
    fn a_leaf_ends_no_later_than_its_authority() {
        let authority = Authority::make(now(), DAY).expect("an authority");
        let leaf = authority
            .sign(&BTreeSet::from(["a.b.svc".into()]), now(), YEAR)
            .expect("a leaf");
        assert_eq!(leaf.expires(), authority.validity.expires);
    }

    #[test]
    fn a_key_of_something_else_is_refused() {
        let [one, other] = [(); 2].map(|()| Authority::make(now(), YEAR).expect("an authority"));
        let certificate = pem::encode("CERTIFICATE", one.certificate());
        let read = Authority::from_pem(certificate.as_bytes(), other.key_pem().as_bytes());
        assert!(matches!(read, Err(Unusable::OtherKey)), "{read:?}");
        let read = Leaf::from_pem(certificate.as_bytes(), other.key_pem().as_bytes());
        assert!(matches!(read, Err(Unusable::Serve(_))), "{read:?}");
        assert!(matches!(Authority::from_pem(b"", b""), Err(Unusable::Missing(_))));
    }
}
