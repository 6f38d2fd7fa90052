//! One request and its answer, for who asks a server: a provider's API, Traefik's, or one that wants to hear events.
//!
//! Each has a connection of its own, or shares a [`Line`] with others; by rustls where the URL says https. What can be wrong with an answer is the
//! caller's to say: any status is an answer here.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

/// How long a server may take, and how much it may say.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub patience: Duration,
    pub largest: usize,
}

/// Who may have signed the certificate of an https server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The authorities of this machine.
    System,
    /// Those of a PEM file alone.
    Only(PathBuf),
}

/// Sends a request to the server that its absolute URI names.
pub async fn send(request: Request<Bytes>, trust: &Trust, limits: Limits) -> anyhow::Result<Response<Bytes>> {
    timeout(limits.patience, ask(request, trust, limits.largest)).await.context("no answer in time")?
}

async fn ask(request: Request<Bytes>, trust: &Trust, largest: usize) -> anyhow::Result<Response<Bytes>> {
    let mut line = Line::open(request.uri(), trust).await?;
    let (mut parts, body) = request.into_parts();
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    line.ask(Request::from_parts(parts, body), largest).await
}

/// A connection to one server, for one request after the other. Dropped, it is closed.
pub struct Line {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes, while somebody waits for an answer.
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

impl Line {
    /// Connects to the server that an absolute URI names.
    pub async fn open(uri: &Uri, trust: &Trust) -> anyhow::Result<Self> {
        let authority = uri.authority().context("no host")?;
        let is_secure = uri.scheme_str() == Some("https");
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let connector = if is_secure { Some(connector(trust)?) } else { None };
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        match connector {
            Some(connector) => Self::over(connector.connect(ServerName::try_from(host)?, stream).await?).await,
            None => Self::over(stream).await,
        }
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<Self> {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, connection: Box::pin(connection) })
    }

    /// Sends a request with an absolute URI, and takes an answer of at most `largest` bytes.
    pub async fn ask(&mut self, request: Request<Bytes>, largest: usize) -> anyhow::Result<Response<Bytes>> {
        let (mut parts, body) = request.into_parts();
        let authority = parts.uri.authority().context("no host")?;
        parts.headers.insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
        parts.uri = parts.uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
        let request = Request::from_parts(parts, Full::new(body));
        let sender = &mut self.sender;
        let answer = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, largest).collect().await.map_err(|error| anyhow::anyhow!(error))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answered = &mut answer => answered,
            ended = &mut self.connection => {
                ended?;
                answer.await
            }
        }
    }
}

/// How long an answer asks to be left alone: in seconds, or until a date.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

fn connector(trust: &Trust) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(match trust {
        Trust::System => rustls_native_certs::load_native_certs().certs,
        Trust::Only(file) => authorities(file)?,
    });
    if usable == 0 {
        match trust {
            Trust::System => anyhow::bail!("this machine has no root certificates; install ca-certificates"),
            Trust::Only(file) => anyhow::bail!("{} holds no certificate; give a PEM file", file.display()),
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn authorities(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>();
    certificates.with_context(|| format!("{} is not PEM", file.display()))
}

#[cfg(test)]
mod tests;
