//! Reads the PEM files of `[serve]` into what handshakes need, or says which one is wrong and what to do.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use charliehub_secret::Stamp;
use jiff::Timestamp;
use metrics::counter;
use tokio_rustls::rustls::{
    self, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem, pem::PemObject as _},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::client::called;
use crate::{config::Tls, metrics as name};

/// Bad certificates of clients are logged no oftener than this.
const APART: Duration = Duration::from_secs(1);

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("[serve] {setting} {path} cannot be read: {source}; let our user read it")]
    Read { setting: &'static str, path: PathBuf, source: io::Error },
    #[error("[serve] {setting} {path} is empty; write PEM into it: {wanted}")]
    Empty { setting: &'static str, path: PathBuf, wanted: &'static str },
    #[error("[serve] {setting} {path} holds no PEM of what it should; write {wanted}")]
    Nothing { setting: &'static str, path: PathBuf, wanted: &'static str },
    #[error("[serve] {setting} {path} is broken: {reason}; write it again, as a whole: {wanted}")]
    Broken { setting: &'static str, path: PathBuf, reason: String, wanted: &'static str },
    #[error(
        "[serve] tls_certificate {certificate} and tls_key {key} do not belong together: {source}; write both of one issue"
    )]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error(
        "[serve] client_ca {path} cannot be an authority: {reason}; write the certificates of authorities, not of clients"
    )]
    Authority { path: PathBuf, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Other(rustls::Error),
}

const CHAIN: &str = "our certificate, then those of the authorities between it and a root";
const KEY: &str = "the certificate's private key, not encrypted";
const AUTHORITIES: &str = "the certificates of the authorities that sign clients";

/// What was read, and from which state of the files.
#[derive(Debug)]
pub struct Loaded {
    pub config: Arc<ServerConfig>,
    pub own: Own,
    /// None: no client is asked for a certificate.
    pub clients: Option<Clients>,
    pub(super) stamps: Stamps,
    /// Another number for each reading that is used.
    pub(super) generation: u64,
}

/// Our certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    pub subject: String,
    /// As hexadecimal digits.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// Whose clients are believed.
#[derive(Clone, Debug)]
pub struct Clients {
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// Authorities in the file.
    pub count: usize,
    /// When the first of them ends.
    pub not_after: Timestamp,
}

impl Loaded {
    pub fn read(files: &Tls) -> Result<Self, Error> {
        let stamps = stamps(files);
        let chain = certificates("tls_certificate", &files.certificate, CHAIN)?;
        let own = chain.first().and_then(|first| Own::of(first)).ok_or_else(|| Error::Broken {
            setting: "tls_certificate",
            path: files.certificate.clone(),
            reason: "its first certificate is no X.509".to_owned(),
            wanted: CHAIN,
        })?;
        let key = key(&files.key)?;
        let clients = files.client_ca.as_deref().map(clients).transpose()?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(Error::Other)?;
        let builder = match &clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|source| Error::Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), own, clients, stamps, generation: 0 })
    }
}

impl Own {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        Some(Self {
            subject: called(&parsed),
            serial: serial(&parsed),
            not_before: Timestamp::from_second(parsed.validity().not_before.timestamp()).ok()?,
            not_after: Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?,
        })
    }
}

/// The serial number of a certificate as `openssl` prints it.
pub(super) fn serial(certificate: &X509Certificate<'_>) -> String {
    // DER puts a byte of zeros before one that would be taken for a sign.
    let bytes = match certificate.tbs_certificate.raw_serial() {
        [0, rest @ ..] if !rest.is_empty() => rest,
        bytes => bytes,
    };
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02X}"); // a String takes all
    }
    text
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(setting: &'static str, path: &Path, wanted: &'static str) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read { setting, path: path.to_owned(), source })?;
    if bytes.trim_ascii().is_empty() { Err(Error::Empty { setting, path: path.to_owned(), wanted }) } else { Ok(bytes) }
}

fn certificates(
    setting: &'static str,
    path: &Path,
    wanted: &'static str,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&read(setting, path, wanted)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err(Error::Nothing { setting, path: path.to_owned(), wanted }),
        Ok(found) => Ok(found),
        Err(error) => Err(Error::Broken { setting, path: path.to_owned(), reason: error.to_string(), wanted }),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let (setting, wanted) = ("tls_key", KEY);
    let text = read(setting, path, wanted)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        if matches!(error, pem::Error::NoItemsFound) {
            return Error::Nothing { setting, path: path.to_owned(), wanted };
        }
        Error::Broken { setting, path: path.to_owned(), reason: error.to_string(), wanted }
    })
}

fn clients(path: &Path) -> Result<Clients, Error> {
    let refuse = |reason: String| Error::Authority { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    let mut ends = Vec::new();
    for certificate in certificates("client_ca", path, AUTHORITIES)? {
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|error| refuse(error.to_string()))?;
        if !parsed.is_ca() {
            return Err(refuse(format!("`{}` may sign nobody (no CA:TRUE)", called(&parsed))));
        }
        let end = parsed.validity().not_after.timestamp();
        ends.push(Timestamp::from_second(end).map_err(|error| refuse(error.to_string()))?);
        roots.add(certificate.clone()).map_err(|error| refuse(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        // A client that picks by our hints would bring nothing rather than what we refuse, and hear of a token.
        .clear_root_hint_subjects()
        .build()
        .map_err(|error: VerifierBuilderError| refuse(error.to_string()))?;
    let not_after = ends.iter().min().copied().unwrap_or_default();
    let verifier = Arc::new(Telling { inner: verifier, told: Mutex::default() });
    Ok(Clients { verifier, count: ends.len(), not_after })
}

/// Says in the log whom it refuses, and why.
#[derive(Debug)]
struct Telling {
    inner: Arc<dyn ClientCertVerifier>,
    told: Mutex<Option<Instant>>,
}

impl Telling {
    fn tell(&self, certificate: &CertificateDer<'_>, error: &rustls::Error) {
        counter!(name::TLS_REFUSED).increment(1);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|at| at.elapsed() < APART) {
            return;
        }
        *told = Some(Instant::now());
        let parsed = X509Certificate::from_der(certificate).ok().map(|(_, parsed)| (called(&parsed), serial(&parsed)));
        let (subject, serial) = parsed.unwrap_or_default();
        tracing::warn!(subject, serial, %error, "a client's certificate is refused");
    }
}

impl ClientCertVerifier for Telling {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now);
        verified.inspect_err(|error| self.tell(end_entity, error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Of each file that is named.
pub(super) type Stamps = Vec<Option<Stamp>>;

pub(super) fn stamps(files: &Tls) -> Stamps {
    let paths = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    paths.into_iter().flatten().map(|path| Stamp::of(path)).collect()
}
