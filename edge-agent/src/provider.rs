//! The provider, as the agent asks it: one request and its answer, on a connection of its own.
//!
//! Any status is an answer here; what keeps us from one is an [`Error`] that says what to do.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rand::RngExt as _;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::config;

/// An answer may be so long: 100,000 names are some 6 MiB.
const LARGEST: usize = 64 << 20;

/// The provider of the settings.
#[derive(Clone)]
pub struct Provider {
    url: String,
    host: String,
    port: u16,
    token: Option<HeaderValue>,
    tls: Option<TlsConnector>,
}

/// Why there is no answer, or no provider to ask.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("provider.url: `{0}` is not a URL such as https://provider.example.org:8001")]
    Url(String),
    #[error("{path} cannot be read: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} holds no {what}; give a PEM file")]
    Pem { path: PathBuf, what: &'static str },
    #[error("this machine has no root certificates: install ca-certificates, or set provider.ca_file")]
    NoRoots,
    #[error("provider.client_certificate and client_key do not go together: {0}")]
    Client(rustls::Error),
    #[error("{0} holds no token; make one with `charliehub-provider token create --role agent`")]
    Token(PathBuf),
    #[error("{url} does not answer: {source}")]
    Connect { url: String, source: std::io::Error },
    #[error("{url}: its certificate is not trusted: {source}; set provider.ca_file to the authority that signed it")]
    Tls { url: String, source: std::io::Error },
    #[error("{url} did not answer within {} s", .patience.as_secs())]
    Late { url: String, patience: Duration },
    #[error("{url} does not speak HTTP as we do: {reason}")]
    Http { url: String, reason: String },
}

impl Provider {
    pub fn new(settings: &config::Provider) -> Result<Self, Error> {
        let wrong = || Error::Url(settings.url.clone());
        let url = settings.url.trim_end_matches('/').to_owned();
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(connector(settings)?),
            _ => return Err(wrong()),
        };
        let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        Ok(Self { url, host, port, token: token(settings.token_file.as_deref())?, tls })
    }

    /// `GET`s a path.
    pub async fn get(&self, path: &str, patience: Duration) -> Result<Response<Bytes>, Error> {
        self.send(Method::GET, path, Bytes::new(), patience).await
    }

    /// `POST`s JSON to a path.
    pub async fn post(&self, path: &str, json: Bytes, patience: Duration) -> Result<Response<Bytes>, Error> {
        self.send(Method::POST, path, json, patience).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Response<Bytes>, Error> {
        let answer = timeout(patience, self.ask(method, path, body)).await;
        answer.unwrap_or_else(|_| Err(Error::Late { url: self.url.clone(), patience }))
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Bytes>, Error> {
        let url = || self.url.clone();
        let stream = TcpStream::connect((self.host.as_str(), self.port));
        let stream = stream.await.map_err(|source| Error::Connect { url: url(), source })?;
        stream.set_nodelay(true).map_err(|source| Error::Connect { url: url(), source })?;
        match &self.tls {
            None => self.over(stream, method, path, body).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(|_| Error::Url(url()))?;
                let stream = tls.connect(name, stream).await.map_err(|source| Error::Tls { url: url(), source })?;
                self.over(stream, method, path, body).await
            }
        }
    }

    async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Bytes>, Error> {
        let wrong = |error: &dyn std::fmt::Display| Error::Http { url: self.url.clone(), reason: error.to_string() };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| wrong(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| wrong(&error))?;
        let answer = async {
            let (parts, body) = sender.send_request(request).await.map_err(|error| wrong(&error))?.into_parts();
            let body = Limited::new(body, LARGEST).collect().await.map_err(|error| wrong(&*error))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answered = &mut answer => answered,
            ended = connection => {
                ended.map_err(|error| wrong(&error))?;
                answer.await
            }
        }
    }
}

/// How long to wait after one failure and the next: twice as long each time, within bounds, and never two agents in step.
#[derive(Debug)]
pub struct Pause(Duration);

impl Pause {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_mins(1);

    pub fn longer(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LONGEST);
        pause.mul_f64(rand::rng().random_range(0.7..1.3))
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self(Self::SHORTEST)
    }
}

/// The header that says who we are: the token of a file, or of a credential of our unit.
fn token(file: Option<&Path>) -> Result<Option<HeaderValue>, Error> {
    let credential = || Some(PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join("agent-token"));
    let Some(path) = file.map(Path::to_owned).or_else(|| credential().filter(|path| path.exists())) else {
        return Ok(None);
    };
    let text = fs::read_to_string(&path).map_err(|source| Error::File { path: path.clone(), source })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> config::Provider {
        config::Provider {
            url: url.to_owned(),
            token_file: None,
            ca_file: None,
            client_certificate: None,
            client_key: None,
        }
    }

    #[test]
    fn what_is_no_provider_is_said() {
        for (url, said) in [
            ("provider", "provider.url: `provider` is not a URL such as"),
            ("ftp://provider/", "provider.url: `ftp://provider/` is not"),
        ] {
            let error = Provider::new(&settings(url)).err().map(|error| error.to_string()).unwrap();
            assert!(error.starts_with(said), "{error}");
        }
        let missing = config::Provider { token_file: Some("/nowhere/token".into()), ..settings("http://p") };
        let error = Provider::new(&missing).err().map(|error| error.to_string()).unwrap();
        assert!(error.starts_with("/nowhere/token cannot be read"), "{error}");
    }
}
