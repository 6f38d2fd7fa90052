//! The provider, as the agent asks it: one request and its answer, on a connection of its own.
//!
//! Any status is an answer here; what keeps us from one is an [`Error`] that says what to do. What we prove ourselves and it
//! by is read from files, and again when they change: see [`credentials`].

mod credentials;
mod trouble;

use std::{
    error::Error as StdError,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rand::RngExt as _;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use self::credentials::{Credentials, Kept};
use crate::config;

/// An answer may be so long: 100,000 names are some 6 MiB.
const LARGEST: usize = 64 << 20;

/// The provider of the settings.
#[derive(Clone)]
pub struct Provider {
    url: String,
    host: String,
    port: u16,
    is_https: bool,
    kept: Arc<Mutex<Kept>>,
    /// Where it was connected to last.
    address: Arc<Mutex<Option<IpAddr>>>,
}

/// Where the provider of this URL is, as its name leads there now; nowhere, when that is not known in time.
pub(crate) async fn look_up(url: &str, patience: Duration) -> Vec<IpAddr> {
    let Some(host) = url.parse::<Uri>().ok().and_then(|uri| Some(uri.host()?.trim_matches(['[', ']']).to_owned()))
    else {
        return Vec::new();
    };
    let found = timeout(patience, lookup_host((host, 0))).await;
    found.ok().and_then(Result::ok).map(|found| found.map(|one| one.ip()).collect()).unwrap_or_default()
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
    #[error(transparent)]
    Secret(#[from] charliehub_secret::Error),
    #[error("{url} does not answer: {source}")]
    Connect { url: String, source: std::io::Error },
    #[error("{url}: {why}")]
    Tls { url: String, why: String },
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
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let kept = Arc::new(Mutex::new(Kept::read(settings.clone(), is_https)?));
        Ok(Self { url, host, port, is_https, kept, address: Arc::default() })
    }

    /// Where it was connected to last. None: it was not yet.
    pub fn address(&self) -> Option<IpAddr> {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `GET`s a path.
    pub async fn get(&self, path: &str, patience: Duration) -> Result<Response<Bytes>, Error> {
        self.send(Method::GET, path, Bytes::new(), patience).await
    }

    /// `POST`s JSON to a path.
    pub async fn post(&self, path: &str, json: Bytes, patience: Duration) -> Result<Response<Bytes>, Error> {
        self.send(Method::POST, path, json, patience).await
    }

    /// `PUT`s JSON to a path.
    pub async fn put(&self, path: &str, json: Bytes, patience: Duration) -> Result<Response<Bytes>, Error> {
        self.send(Method::PUT, path, json, patience).await
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
        let at = stream.peer_addr().ok().map(|at| at.ip().to_canonical());
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = at;
        let credentials = self.kept.lock().unwrap_or_else(PoisonError::into_inner).current();
        match &credentials.tls {
            None => self.over(stream, method, path, body, &credentials).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(|_| Error::Url(url()))?;
                let stream = tls.connect(name, stream).await.map_err(|error| self.trouble(&error))?;
                self.over(stream, method, path, body, &credentials).await
            }
        }
    }

    async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        method: Method,
        path: &str,
        body: Bytes,
        credentials: &Credentials,
    ) -> Result<Response<Bytes>, Error> {
        let wrong = |error: &(dyn StdError + 'static)| self.trouble(error);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::CONNECTION, "close");
        if let Some(token) = &credentials.token {
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

impl Provider {
    /// What keeps an answer from us: TLS, if it is to blame at all, in words that say who mends it.
    fn trouble(&self, error: &(dyn StdError + 'static)) -> Error {
        let url = self.url.clone();
        match trouble::cause(error) {
            Some(cause) => Error::Tls { url, why: trouble::words(cause, &self.host) },
            None if self.is_https && trouble::is_cut(error) => Error::Tls { url, why: trouble::CUT.to_owned() },
            None => Error::Http { url, reason: error.to_string() },
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
        let told = config::Provider { token_file: Some("exec:/bin/false".into()), ..settings("http://p") };
        let error = Provider::new(&told).err().map(|error| error.to_string()).unwrap();
        assert!(error.starts_with("the command /bin/false failed (exit status: 1)"), "{error}");
        let told = config::Provider { token_file: Some("exec:/bin/echo a b token".into()), ..settings("http://p") };
        let credentials = Provider::new(&told).unwrap().kept.lock().unwrap().current();
        assert_eq!(credentials.token.as_ref().unwrap(), "Bearer token");
    }
}
