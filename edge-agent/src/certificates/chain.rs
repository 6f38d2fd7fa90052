//! What a chain of certificates is: its leaf as clients read it, and whether it leads to somebody whom they trust.
//!
//! Pure; used for what is served, stored, and in files alike. What depends on the hour is kept as times, so that a chain is
//! read once and judged each time: the path is checked at a moment at which its leaf is valid.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, UnixTime, alg_id,
};
use sha2::{Digest as _, Sha256};
use webpki::{EndEntityCert, KeyUsage, ring as algorithms};
use x509_parser::{oid_registry, prelude::*, public_key::PublicKey};

use super::authorities::Authorities;

/// A leaf with what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub leaf: Leaf,
    /// Why no client follows it to somebody whom it trusts.
    pub fault: Option<Fault>,
    /// When the first of the leaf and the intermediates of its path ends.
    pub until: Timestamp,
    /// Each certificate is followed by its issuer, where that came at all.
    pub is_in_order: bool,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// SHA-256 of it.
    pub fingerprint: [u8; 32],
    /// The common name, else all of the name.
    pub subject: String,
    pub issuer: String,
    /// Its alternative DNS names, in lower case.
    pub names: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Bits of an RSA key.
    pub rsa_bits: Option<usize>,
    /// Signed by RSA with SHA-1.
    pub is_sha1: bool,
    /// Its extended key usage allows a server, or it has none.
    pub is_for_servers: bool,
    pub is_self_signed: bool,
    /// The subject's public key, as DER.
    pub key: Vec<u8>,
}

/// Why no client follows a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    SelfSigned,
    /// The issuer did not come along, and is nobody whom one trusts.
    NoIssuer(String),
    /// It ends in somebody whom nobody trusts.
    Untrusted(String),
    Expired {
        intermediate: String,
        at: Timestamp,
    },
    /// We know nobody to trust: it could not be judged.
    NoAuthorities,
    Other(String),
}

/// It does not parse as X.509.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotACertificate;

impl Leaf {
    pub(super) fn read(der: &[u8]) -> Result<Self, NotACertificate> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| NotACertificate)?;
        let names = parsed.subject_alternative_name().ok().flatten().map_or_else(Vec::new, |alternative| {
            let names = alternative.value.general_names.iter().take(1_000);
            names
                .filter_map(
                    |name| if let GeneralName::DNSName(name) = name { Some(name.to_ascii_lowercase()) } else { None },
                )
                .collect()
        });
        let usage = parsed.extended_key_usage().ok().flatten();
        let algorithm = &parsed.signature_algorithm.algorithm;
        Ok(Self {
            fingerprint: Sha256::digest(der).into(),
            subject: called(parsed.subject()),
            issuer: called(parsed.issuer()),
            names,
            not_before: moment(parsed.validity().not_before),
            not_after: moment(parsed.validity().not_after),
            rsa_bits: match parsed.public_key().parsed() {
                Ok(PublicKey::RSA(key)) => Some(key.key_size()),
                _ => None,
            },
            is_sha1: *algorithm == oid_registry::OID_PKCS1_SHA1WITHRSA,
            is_for_servers: usage.is_none_or(|usage| usage.value.server_auth || usage.value.any),
            is_self_signed: parsed.issuer().as_raw() == parsed.subject().as_raw(),
            key: parsed.public_key().raw.to_vec(),
        })
    }

    pub(super) fn lifetime(&self) -> jiff::SignedDuration {
        self.not_after.duration_since(self.not_before)
    }
}

impl Chain {
    /// `at` is the moment to judge intermediates by; a leaf that is not valid then is judged at the nearest at which it is.
    pub(super) fn read(
        certificates: &[CertificateDer<'_>],
        authorities: &Authorities,
        at: Timestamp,
    ) -> Result<Self, NotACertificate> {
        let (first, rest) = certificates.split_first().ok_or(NotACertificate)?;
        let leaf = Leaf::read(first)?;
        let at = at.min(leaf.not_after).max(leaf.not_before);
        let (fault, until) = match path(first, rest, authorities, at) {
            Ok(until) => (None, until.map_or(leaf.not_after, |until| until.min(leaf.not_after))),
            Err(said) if authorities.anchors.is_empty() => {
                tracing::debug!(said, "no authorities to judge a chain by");
                (Some(Fault::NoAuthorities), leaf.not_after)
            }
            Err(said) => (fault(certificates, authorities, at, said), leaf.not_after),
        };
        Ok(Self { is_in_order: is_in_order(certificates), leaf, fault, until })
    }
}

/// When the first intermediate of the path that a client takes ends.
fn path(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    authorities: &Authorities,
    at: Timestamp,
) -> Result<Option<Timestamp>, String> {
    let leaf = EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)));
    let found = leaf
        .verify_for_usage(ALGORITHMS, &authorities.anchors, rest, at, KeyUsage::server_auth(), None, None)
        .map_err(|error| error.to_string())?;
    Ok(found.intermediate_certificates().filter_map(|one| Leaf::read(&one.der()).ok()).map(|one| one.not_after).min())
}

/// Walks from the leaf as a reader would, to say in words what `said` says in a code. None where that is about what the
/// leaf tells by itself.
fn fault(certificates: &[CertificateDer<'_>], authorities: &Authorities, at: Timestamp, said: String) -> Option<Fault> {
    let parsed: Vec<_> =
        certificates.iter().filter_map(|der| X509Certificate::from_der(der).ok()).map(|(_, one)| one).collect();
    let mut current = parsed.first()?;
    let leaf = Leaf::read(certificates.first()?).ok()?;
    if leaf.is_self_signed {
        return Some(Fault::SelfSigned);
    }
    let mut visited = BTreeSet::new();
    loop {
        let issuer = current.issuer().as_raw();
        let next = parsed.iter().enumerate().skip(1).find(|(_, one)| one.subject().as_raw() == issuer);
        let anchored = authorities.anchors.iter().any(|anchor| is_name(&anchor.subject, issuer));
        match next {
            Some((at_index, one)) if visited.insert(at_index) => {
                let ends = moment(one.validity().not_after);
                if ends < at {
                    return Some(Fault::Expired { intermediate: called(one.subject()), at: ends });
                }
                current = one;
            }
            _ if anchored => break,
            None if visited.is_empty() => return Some(Fault::NoIssuer(called(current.issuer()))),
            Some(_) | None => return Some(Fault::Untrusted(called(current.issuer()))),
        }
    }
    leaf.is_for_servers.then_some(Fault::Other(said))
}

/// An anchor's subject is the content of the sequence that a certificate's name is.
fn is_name(anchor: &[u8], name: &[u8]) -> bool {
    name.strip_suffix(anchor).is_some_and(|head| (2..=4).contains(&head.len()))
}

fn is_in_order(certificates: &[CertificateDer<'_>]) -> bool {
    let names = |der: &CertificateDer<'_>| {
        let (_, one) = X509Certificate::from_der(der).ok()?;
        Some((one.subject().as_raw().to_vec(), one.issuer().as_raw().to_vec()))
    };
    let names: Vec<_> = certificates.iter().filter_map(names).collect();
    names.windows(2).all(|pair| {
        let [(subject, issuer), (next, _)] = pair else { return true };
        issuer == next || subject == issuer || !names.iter().any(|(one, _)| one == issuer)
    })
}

/// A name for people: of bounded length and without control characters, for others wrote it.
fn called(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
    let whole = common.unwrap_or_else(|| name.to_string());
    whole.chars().filter(|char| !char.is_control()).take(100).collect()
}

fn moment(time: ASN1Time) -> Timestamp {
    Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::MAX)
}

/// What clients take, and SHA-1, of which we say that it is no longer good.
static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
    algorithms::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
    algorithms::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    &Sha1,
];

/// RSA with SHA-1, so that a chain that has one is followed and named for what it is.
#[derive(Debug)]
struct Sha1;

impl SignatureVerificationAlgorithm for Sha1 {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = ring::signature::UnparsedPublicKey::new(
            &ring::signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
            public_key,
        );
        key.verify(message, signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        // sha1WithRSAEncryption, 1.2.840.113549.1.1.5, with its NULL.
        AlgorithmIdentifier::from_slice(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05, 0x05, 0x00])
    }
}

#[cfg(test)]
mod tests;
