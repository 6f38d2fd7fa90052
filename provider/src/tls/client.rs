//! Decides who a client is by the certificate that it brought: a Traefik or an agent, of one name.
//!
//! Its subject alternative name says so, as one URI: `charliehub:traefik:hub2`, `charliehub:agent:hub2`. No authority
//! writes such a URI by accident, as it might a common name. A certificate never does more than these two roles, and
//! nothing for a request that came through a proxy: then the proxy's client is not the certificate's owner.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderMap, header};
use jiff::Timestamp;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{
    Tls,
    files::{Loaded, serial},
};

const SCHEME: &str = "charliehub:";
/// Letters of a subject in logs, answers and the audit.
const LONGEST: usize = 100;

/// What a certificate may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Traefik,
    Agent,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traefik => "traefik",
            Self::Agent => "agent",
        }
    }
}

/// Who a certificate says that its owner is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub role: Kind,
    pub name: String,
}

/// Why a verified certificate lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it names no role: it has no URI such as charliehub:agent:hub2")]
    Nobody,
    #[error("it names more than one role")]
    Several,
    #[error("`{0}` is not charliehub:traefik:NAME or charliehub:agent:NAME")]
    Wrong(String),
    #[error("it does not count for a request that came through a proxy")]
    Forwarded,
    #[error("it ended at {0}, and the connection is older")]
    Ended(Timestamp),
    #[error("its authority is not in `serve.client_ca` any more")]
    Distrusted,
    #[error("it speaks for another {} than `{name}`", match role { Kind::Traefik => "instance", Kind::Agent => "agent" })]
    Other { role: Kind, name: String },
    #[error("{0}")]
    Role(String),
}

impl Fault {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        let fixed = match self {
            Self::Other { role, name } => {
                return format!("use the one that `deploy/pki issue DIR {} {name}` makes", role.as_str());
            }
            Self::Nobody | Self::Several | Self::Wrong(_) => {
                "issue one with `deploy/pki issue DIR traefik|agent NAME`, or send a token"
            }
            Self::Forwarded => "call the provider directly, or send a token",
            Self::Ended(_) => "renew it with `deploy/pki renew`; Traefik reads its files only when it starts",
            Self::Distrusted => "issue it by an authority of `serve.client_ca`, or add its authority there",
            Self::Role(_) => "send a token of that role: charliehub-provider token create",
        };
        fixed.to_owned()
    }
}

/// The certificate that a client brought, which was verified in the handshake.
#[derive(Debug)]
pub struct Presented {
    pub named: Result<Named, Fault>,
    pub not_after: Timestamp,
    who: String,
    chain: Vec<CertificateDer<'static>>,
    tls: Arc<Tls>,
    /// Of the authorities by which it was verified last.
    generation: AtomicU64,
}

impl fmt::Display for Presented {
    /// `certificate hub2, serial 3F0A`, for refusals, the log and the audit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.who)
    }
}

impl Presented {
    /// None when it cannot be read, though it was verified.
    pub(super) fn new(chain: &[CertificateDer<'_>], with: &Loaded, tls: Arc<Tls>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(chain.first()?).ok()?;
        let named = named(&parsed);
        let name = named.as_ref().map_or_else(|_| called(&parsed), |named| named.name.clone());
        Some(Self {
            not_after: Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?,
            who: format!("certificate {name}, serial {}", serial(&parsed)),
            named,
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            tls,
            generation: AtomicU64::new(with.generation),
        })
    }

    /// Who sends a request with these headers on its connection.
    pub fn owner(&self, headers: &HeaderMap, now: Timestamp) -> Result<&Named, Fault> {
        let named = self.named.as_ref().map_err(Clone::clone)?;
        if is_forwarded(headers) {
            return Err(Fault::Forwarded);
        }
        if self.not_after < now {
            return Err(Fault::Ended(self.not_after));
        }
        let loaded = self.tls.loaded.load();
        if loaded.generation != self.generation.load(Ordering::Relaxed) {
            self.verify(&loaded)?;
            self.generation.store(loaded.generation, Ordering::Relaxed);
        }
        Ok(named)
    }

    /// The connection is older than the authorities: does one of them still stand for it?
    fn verify(&self, loaded: &Loaded) -> Result<(), Fault> {
        let (clients, (leaf, between)) =
            loaded.clients.as_ref().zip(self.chain.split_first()).ok_or(Fault::Distrusted)?;
        let verified = clients.verifier.verify_client_cert(leaf, between, UnixTime::now());
        verified.map(drop).map_err(|_| Fault::Distrusted)
    }
}

/// Whether somebody else's request is passed on.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(header::VIA)
        || headers.contains_key(header::FORWARDED)
        || headers.contains_key("x-forwarded-for")
}

/// Who a certificate says that its owner is: exactly one URI of ours.
fn named(certificate: &X509Certificate<'_>) -> Result<Named, Fault> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let uris = names.iter().flat_map(|names| &names.value.general_names);
    let uris = uris.filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    let mut ours = uris.filter(|uri| uri.to_ascii_lowercase().starts_with(SCHEME));
    let uri = ours.next().ok_or(Fault::Nobody)?;
    if ours.next().is_some() {
        return Err(Fault::Several);
    }
    let wrong = || Fault::Wrong(printable(uri));
    let (role, name) = uri.strip_prefix(SCHEME).and_then(|rest| rest.split_once(':')).ok_or_else(wrong)?;
    let role = [Kind::Traefik, Kind::Agent].into_iter().find(|kind| kind.as_str() == role).ok_or_else(wrong)?;
    if is_name(name) { Ok(Named { role, name: name.to_owned() }) } else { Err(wrong()) }
}

/// As the database's `ch_name` has it.
fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    name.len() <= 128 && name.bytes().all(inner) && outer(name.as_bytes().first()) && outer(name.as_bytes().last())
}

/// The common name, else all of the subject.
pub(super) fn called(certificate: &X509Certificate<'_>) -> String {
    let common = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    printable(&common.map_or_else(|| certificate.subject().to_string(), str::to_owned))
}

/// What somebody else wrote, fit for a line of a log.
fn printable(text: &str) -> String {
    text.chars().take(LONGEST).map(|c| if c.is_control() { '?' } else { c }).collect()
}
