//! One HTTP/1 client: to a chosen address whatever the URL's host says, from a chosen one, trusting any certificate.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Home, Stream};

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub took: Duration,
}

impl Answer {
    /// Empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.text()))
    }

    /// What `X-Charliehub-Revision` says; 0 when it says nothing.
    pub fn revision(&self) -> u64 {
        self.header("x-charliehub-revision").parse().unwrap_or(0)
    }
}

/// Asks the entry points `web` (http) and `websecure` (https), a new connection for each request.
#[derive(Clone)]
pub struct Client {
    home: Home,
    web: SocketAddr,
    websecure: SocketAddr,
    source: Option<IpAddr>,
    headers: Vec<(String, String)>,
}

impl Client {
    pub(crate) fn new(home: &Home, web: SocketAddr, websecure: SocketAddr) -> Self {
        Self { home: home.clone(), web, websecure, source: None, headers: Vec::new() }
    }

    /// The address to come from.
    #[must_use]
    pub fn from(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    #[must_use]
    pub fn with(mut self, header: &str, value: &str) -> Self {
        self.headers.push((header.to_owned(), value.to_owned()));
        self
    }

    /// `http://host/path` or `https://host/path`; the scheme chooses the entry point.
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        let (scheme, rest) = url.split_once("://").context("a URL has a scheme")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (address, tls) = if scheme == "https" { (self.websecure, Some(host)) } else { (self.web, None) };
        let mut connection = Connection::open_from(&self.home, address, self.source, tls).await?;
        let mut headers: Vec<(&str, &str)> = vec![("host", host)];
        headers.extend(self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        connection.send(Method::GET, if path.is_empty() { "/" } else { path }, &headers, "").await
    }
}

/// One TCP connection that is kept: what the hold counts by.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    pub async fn open(home: &Home, address: SocketAddr) -> anyhow::Result<Self> {
        Self::open_from(home, address, None, None).await
    }

    /// Over TLS as this client has it, to a server of this name.
    pub async fn by_tls(
        home: &Home,
        address: SocketAddr,
        name: &str,
        config: Arc<ClientConfig>,
    ) -> anyhow::Result<Self> {
        let socket = connect(address, None).await?;
        let stream = TlsConnector::from(config).connect(ServerName::try_from(name.to_owned())?, socket).await?;
        Self::over(home, stream, address.to_string()).await
    }

    pub(crate) async fn open_from(
        home: &Home,
        address: SocketAddr,
        source: Option<IpAddr>,
        tls: Option<&str>,
    ) -> anyhow::Result<Self> {
        let socket = connect(address, source).await?;
        let host = address.to_string();
        match tls {
            Some(name) => Self::over(home, handshake_tls(socket, name).await?, host).await,
            None => Self::over(home, socket, host).await,
        }
    }

    pub(crate) async fn over(
        home: &Home,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        host: String,
    ) -> anyhow::Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(io)).await?;
        home.tasks().spawn(async move { drop(connection.await) });
        Ok(Self { sender, host })
    }

    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<Answer> {
        let began = Instant::now();
        let (parts, body) = self.ask(method, path, headers, body).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, took: began.elapsed() })
    }

    /// An answer that goes on: its status and media type, and the events in it.
    pub async fn stream(&mut self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<(u16, String, Stream)> {
        let (parts, body) = self.ask(Method::GET, path, headers, "").await?.into_parts();
        let media = parts.headers.get("content-type").and_then(|media| media.to_str().ok()).unwrap_or_default();
        Ok((parts.status.as_u16(), media.to_owned(), Stream::new(body)))
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", &self.host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned())))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

async fn connect(address: SocketAddr, source: Option<IpAddr>) -> anyhow::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// TLS that takes any certificate.
pub fn trusting_all() -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsAll(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn handshake_tls(stream: TcpStream, name: &str) -> anyhow::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned())?;
    Ok(TlsConnector::from(trusting_all()?).connect(name, stream).await?)
}

/// A TLS stream with this server name, for protocols that are not HTTP.
pub async fn open_tls(address: SocketAddr, name: &str) -> anyhow::Result<TlsStream<TcpStream>> {
    handshake_tls(connect(address, None).await?, name).await
}

/// Stories look at what is served, not at who signed it.
#[derive(Debug)]
struct TrustsAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
