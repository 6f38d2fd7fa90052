//! What `sslmode` and `sslrootcert` mean, as libpq has them, for rustls.
//!
//! `disable` and `prefer` ask for nothing; `require` encrypts and believes any certificate, unless a root is given, which
//! makes it `verify-ca`; `verify-ca` wants a chain to a root; `verify-full` wants the host's name too. Without
//! `sslrootcert` (or with `system`) the roots are those of the machine. A self-signed certificate that is itself the
//! root is accepted, as people make one with `openssl req -x509`.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The stream below a connection that is encrypted.
pub type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("sslmode={0} is unknown; use disable, prefer, require, verify-ca or verify-full")]
    Mode(String),
    #[error("sslrootcert={path} cannot be read: {source}; give a PEM file with the certificate of the authority")]
    Roots { path: String, source: rustls::pki_types::pem::Error },
    #[error("sslrootcert={0} holds no usable certificate; give a PEM file with the certificate of the authority")]
    NoRoots(String),
    #[error("this machine has no root certificates; install ca-certificates or set sslrootcert=FILE")]
    NoSystemRoots,
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// How much of the server's certificate has to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    Chain,
    ChainAndName,
}

/// The mode that tokio-postgres negotiates with, and the connector that checks what libpq would.
pub(super) fn connector(mode: Option<&str>, root: Option<&str>) -> Result<(SslMode, MakeRustlsConnect), Error> {
    let (mode, check) = match (mode.unwrap_or("prefer"), root) {
        ("disable", _) => (SslMode::Disable, Check::Nothing),
        ("prefer" | "allow", _) => (SslMode::Prefer, Check::Nothing),
        ("require", None) => (SslMode::Require, Check::Nothing),
        ("require", Some("system")) | ("verify-full", _) => (SslMode::Require, Check::ChainAndName),
        ("require", Some(_)) | ("verify-ca", _) => (SslMode::Require, Check::Chain),
        (other, _) => return Err(Error::Mode(other.to_owned())),
    };
    let roots = if check == Check::Nothing { Vec::new() } else { load(root)? };
    let mut config = config(check, roots, root.unwrap_or("system"))?;
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok((mode, MakeRustlsConnect::new(config)))
}

/// Believes any certificate of a server that has its key.
pub fn believing() -> Result<ClientConfig, Error> {
    config(Check::Nothing, Vec::new(), "")
}

fn config(check: Check, roots: Vec<CertificateDer<'static>>, from: &str) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(check, roots, provider.clone(), from)?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn load(root: Option<&str>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let path = match root {
        None | Some("system") => {
            let found = rustls_native_certs::load_native_certs().certs;
            return if found.is_empty() { Err(Error::NoSystemRoots) } else { Ok(found) };
        }
        Some(path) => path,
    };
    let refuse = |source| Error::Roots { path: path.to_owned(), source };
    let file = File::open(path).map_err(|error| refuse(rustls::pki_types::pem::Error::Io(error)))?;
    CertificateDer::pem_reader_iter(BufReader::new(file)).collect::<Result<_, _>>().map_err(refuse)
}

#[derive(Debug)]
struct Verifier {
    check: Check,
    roots: RootCertStore,
    /// The roots as they are, to recognise a server that shows one of them.
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(
        check: Check,
        pinned: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
        from: &str,
    ) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(pinned.iter().cloned());
        if check != Check::Nothing && usable == 0 {
            return Err(Error::NoRoots(from.to_owned()));
        }
        Ok(Self { check, roots, pinned, provider })
    }

    /// A root that serves as its own server certificate is trusted while it is valid: webpki refuses it as an authority.
    fn is_pinned(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<bool, rustls::Error> {
        if !self.pinned.contains(certificate) {
            return Ok(false);
        }
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        Ok(true)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.check != Check::Nothing {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            if !self.is_pinned(end_entity, now)? {
                let algorithms = self.provider.signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
            }
            if self.check == Check::ChainAndName {
                verify_server_name(&certificate, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
