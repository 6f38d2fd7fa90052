//! What proves us to the provider and it to us: a token, a certificate and its key, authorities. Read from files, and again
//! when these change.
//!
//! What cannot be used replaces nothing: the old goes on, and the log says why once. Half of a renewal is no reason to
//! complain, so files are believed to be wrong at the second look.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use charliehub_secret::{Source, Stamp};
use http::HeaderValue;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsConnector;

use super::Error;
use crate::config;

/// For one request.
pub(super) struct Credentials {
    pub token: Option<HeaderValue>,
    /// None: plain HTTP.
    pub tls: Option<TlsConnector>,
}

/// The credentials as they were read last.
pub(super) struct Kept {
    settings: config::Provider,
    is_https: bool,
    credentials: Arc<Credentials>,
    stamps: Stamps,
    /// Files that could not be used, and whether that was said.
    refused: Option<(Stamps, bool)>,
}

/// Of each file, where it is named.
type Stamps = Vec<Option<Stamp>>;

impl Kept {
    pub(super) fn read(settings: config::Provider, is_https: bool) -> Result<Self, Error> {
        let stamps = stamps(&settings);
        let credentials = Arc::new(Credentials::read(&settings, is_https)?);
        Ok(Self { settings, is_https, credentials, stamps, refused: None })
    }

    /// Those of the files as they are now, if these can be used.
    pub(super) fn current(&mut self) -> Arc<Credentials> {
        let stamps = stamps(&self.settings);
        let before = self.refused.as_ref().filter(|(refused, _)| *refused == stamps).map(|(_, said)| *said);
        if stamps == self.stamps {
            self.refused = None;
        } else if before != Some(true) {
            match Credentials::read(&self.settings, self.is_https) {
                Ok(credentials) => {
                    tracing::info!("the token, certificate or authority for the provider was read again");
                    (self.credentials, self.stamps, self.refused) = (Arc::new(credentials), stamps, None);
                }
                Err(error) => {
                    if before.is_some() {
                        tracing::error!(%error, "the files for the provider changed and cannot be used: the old ones are");
                    }
                    self.refused = Some((stamps, before.is_some()));
                }
            }
        }
        Arc::clone(&self.credentials)
    }
}

impl Credentials {
    fn read(settings: &config::Provider, is_https: bool) -> Result<Self, Error> {
        let tls = if is_https { Some(connector(settings)?) } else { None };
        Ok(Self { token: token(settings)?, tls })
    }
}

fn stamps(settings: &config::Provider) -> Stamps {
    let token = token_file(settings);
    let files =
        [token.as_ref(), settings.ca_file.as_ref(), settings.client_certificate.as_ref(), settings.client_key.as_ref()];
    files.into_iter().map(|path| Stamp::of(path?)).collect()
}

/// Where systemd finds the credentials of our unit, for who runs us without it: root can read them there.
const CREDENTIALS: &str = "/etc/credstore";

/// The file of the token: as configured, or a credential of our unit.
fn token_file(settings: &config::Provider) -> Option<PathBuf> {
    let credential = || {
        let folder =
            std::env::var_os("CREDENTIALS_DIRECTORY").map_or_else(|| PathBuf::from(CREDENTIALS), PathBuf::from);
        Some(folder.join("agent-token")).filter(|path| path.exists())
    };
    settings.token_file.clone().or_else(credential)
}

/// The header that says who we are.
fn token(settings: &config::Provider) -> Result<Option<HeaderValue>, Error> {
    let Some(path) = token_file(settings) else { return Ok(None) };
    let text = Source::from(path.as_path()).read()?;
    // The file may be what `token create` printed of it: the token is its last word.
    let token = text.split_whitespace().last().and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
    let mut token = token.ok_or(Error::Token(path))?;
    token.set_sensitive(true);
    Ok(Some(token))
}

fn connector(settings: &config::Provider) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(match &settings.ca_file {
        None => rustls_native_certs::load_native_certs().certs,
        Some(file) => certificates(file)?,
    });
    if usable == 0 {
        return Err(Error::NoRoots);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::Client)?
        .with_root_certificates(roots);
    let config = match (&settings.client_certificate, &settings.client_key) {
        (Some(certificate), Some(key)) => {
            let pem = read(key)?;
            let key = PrivateKeyDer::from_pem_slice(&pem)
                .map_err(|_| Error::Pem { path: key.clone(), what: "private key" })?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(Error::Client)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(Error::Client(rustls::Error::General("one of the two is missing".to_owned()))),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?).filter_map(Result::ok).collect();
    if found.is_empty() { Err(Error::Pem { path: path.to_owned(), what: "certificate" }) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })
}
