//! What a Traefik runs, as its API says.
//!
//! Sources: `pkg/api/handler*.go` of Traefik 3.7. Lists come in pages, `X-Next-Page` tells the next one; `/api/rawdata` is all
//! of them at once, by name.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use tokio::time::timeout;

use crate::{
    client::{Line, Trust},
    config,
    snapshot::encode::MARKER,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is taken: some 200,000 routers.
const LARGEST: usize = 256 << 20;
/// All, in nearly every Traefik: it lists and sorts all of them again for each page.
const PAGE: usize = 20_000;
/// The response header of the marker that holds the digest.
const HEADER: &str = "X-Charliehub-Config";

/// Why nothing is known. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0}; is Traefik running, and is `api` of [[traefik]] its address?")]
    Unreachable(String),
    #[error("it wants to know who asks ({0}); set `token`, or `user` and `password`, in [[traefik]]")]
    Refused(StatusCode),
    #[error(
        "it answers {1} to {0}; is this Traefik's API? Its static configuration turns it on: api.insecure, or a router for api@internal"
    )]
    Status(String, StatusCode),
    #[error("its answer to {0} is not Traefik's: {1}; is `api` of [[traefik]] right?")]
    Nonsense(String, String),
}

/// One list of Traefik's API: where it is, and what its members are called.
pub type List = (&'static str, &'static str);

/// All lists: the protocol, and the kind of object in the plural.
pub const LISTS: [List; 8] = [
    ("http", "routers"),
    ("http", "services"),
    ("http", "middlewares"),
    ("tcp", "routers"),
    ("tcp", "services"),
    ("tcp", "middlewares"),
    ("udp", "routers"),
    ("udp", "services"),
];

/// A router, service or middleware that runs, of whichever provider.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Object {
    /// With its provider: `a.example.org@http`.
    pub name: String,
    pub status: String,
    pub error: Vec<String>,
    /// Of a router.
    pub rule: String,
    /// Of a service with health checks: `UP` or `DOWN`, by server.
    pub server_status: BTreeMap<String, String>,
    load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LoadBalancer {
    health_check: Option<IgnoredAny>,
}

impl Object {
    /// Its name, where it is one that we sent.
    pub fn ours(&self) -> Option<&str> {
        self.name.strip_suffix("@http")
    }

    /// True when Traefik complains of it.
    pub fn is_faulty(&self) -> bool {
        !self.error.is_empty() || !matches!(&*self.status, "enabled" | "")
    }
}

/// Everything that runs.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// The digest of the config of ours that runs.
    pub digest: Option<String>,
    pub lists: BTreeMap<List, Vec<Object>>,
}

impl Running {
    /// True when it asks a server for its health.
    pub fn has_health_checks(&self) -> bool {
        self.lists.values().flatten().any(|object| object.load_balancer.health_check.is_some())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

#[derive(Deserialize)]
pub struct EntryPoint {
    pub name: String,
    pub address: String,
}

#[derive(Deserialize)]
struct Marker {
    headers: Option<Headers>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Headers {
    #[serde(default)]
    custom_response_headers: BTreeMap<String, String>,
}

/// The API of one Traefik.
pub struct Api {
    base: String,
    /// What it wants to be shown.
    shown: Option<(HeaderName, HeaderValue)>,
    trust: Trust,
    line: Option<Line>,
}

struct Answer {
    body: Bytes,
    next_page: usize,
}

impl Api {
    pub fn new(base: String, shown: Option<(HeaderName, HeaderValue)>, trust: Trust) -> Self {
        Self { base, shown, trust, line: None }
    }

    /// The API of a configured Traefik, if it has one.
    pub fn of(traefik: &config::Traefik) -> Option<Self> {
        let secret = traefik.authorization.as_ref();
        let shown = secret.and_then(|secret| {
            let mut value = HeaderValue::from_str(secret.reveal()).ok()?;
            value.set_sensitive(true);
            Some((header::AUTHORIZATION, value))
        });
        let trust = traefik.ca_file.clone().map_or(Trust::System, Trust::Only);
        Some(Self::new(traefik.api.clone()?, shown, trust))
    }

    /// Such as `3.7.15`; of a build from source, its name.
    pub async fn version(&mut self) -> Result<String, Error> {
        Ok(self.get::<Version>("/api/version").await?.version)
    }

    /// The digest of the config of ours that runs.
    pub async fn digest(&mut self) -> Result<Option<String>, Error> {
        match self.response_header(MARKER, HEADER).await {
            Err(Error::Status(_, StatusCode::NOT_FOUND)) => {
                // Nothing of ours runs, or it is no Traefik at all.
                self.version().await?;
                Ok(None)
            }
            digest => digest,
        }
    }

    /// The value that a middleware of ours gives a header of responses.
    pub async fn response_header(&mut self, middleware: &str, header: &str) -> Result<Option<String>, Error> {
        let Marker { headers } = self.get(&format!("/api/http/middlewares/{middleware}@http")).await?;
        Ok(headers.and_then(|mut headers| headers.custom_response_headers.remove(header)))
    }

    /// In short what runs: how many of each kind, and how many of them with errors. Cheap, and another when something is.
    pub async fn overview(&mut self) -> Result<Bytes, Error> {
        Ok(self.ask("/api/overview").await?.body)
    }

    /// Those that tell it what to run, by their names in its API, such as `HTTP`.
    pub async fn providers(&mut self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Overview {
            #[serde(default)]
            providers: Vec<String>,
        }
        Ok(self.get::<Overview>("/api/overview").await?.providers)
    }

    pub async fn entry_points<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, Error> {
        self.get("/api/entrypoints").await
    }

    /// All members of one list.
    pub async fn list<T: DeserializeOwned>(&mut self, (protocol, kind): List) -> Result<Vec<T>, Error> {
        let (mut all, mut page) = (Vec::new(), 1);
        loop {
            let path = format!("/api/{protocol}/{kind}?per_page={PAGE}&page={page}");
            let answer = match self.ask(&path).await {
                // TCP had no middlewares once.
                Err(Error::Status(_, StatusCode::NOT_FOUND)) if page == 1 && kind == "middlewares" => return Ok(all),
                answer => answer?,
            };
            all.extend(read::<Vec<T>>(&path, &answer.body)?);
            // Behind the last page comes the first.
            if answer.next_page <= page {
                return Ok(all);
            }
            page = answer.next_page;
        }
    }

    /// All lists, page by page.
    pub async fn everything(&mut self) -> Result<Running, Error> {
        let digest = self.digest().await?;
        let mut lists = BTreeMap::new();
        for list in LISTS {
            lists.insert(list, self.list(list).await?);
        }
        Ok(Running { digest, lists })
    }

    /// All lists by one request, for when nothing is expected to be new.
    pub async fn everything_at_once(&mut self) -> Result<Running, Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Raw {
            routers: BTreeMap<String, Object>,
            services: BTreeMap<String, Object>,
            middlewares: BTreeMap<String, MarkedObject>,
            tcp_routers: BTreeMap<String, Object>,
            tcp_services: BTreeMap<String, Object>,
            tcp_middlewares: BTreeMap<String, Object>,
            udp_routers: BTreeMap<String, Object>,
            udp_services: BTreeMap<String, Object>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct MarkedObject {
            #[serde(flatten)]
            object: Object,
            headers: Option<Headers>,
        }
        let raw: Raw = self.get("/api/rawdata").await?;
        let mut middlewares = raw.middlewares;
        let marker = middlewares.get_mut(&format!("{MARKER}@http")).and_then(|marker| marker.headers.take());
        let digest = marker.and_then(|mut headers| headers.custom_response_headers.remove(HEADER));
        let middlewares = middlewares.into_iter().map(|(name, marked)| (name, marked.object)).collect();
        let named = |objects: BTreeMap<String, Object>| {
            objects.into_iter().map(|(name, object)| Object { name, ..object }).collect()
        };
        let all = [
            raw.routers,
            raw.services,
            middlewares,
            raw.tcp_routers,
            raw.tcp_services,
            raw.tcp_middlewares,
            raw.udp_routers,
            raw.udp_services,
        ];
        Ok(Running { digest, lists: LISTS.into_iter().zip(all.map(named)).collect() })
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Error> {
        read(path, &self.ask(path).await?.body)
    }

    async fn ask(&mut self, path: &str) -> Result<Answer, Error> {
        // It may have closed the connection since the last time: that is no answer, and asking again does no harm.
        let was_open = self.line.is_some();
        match self.ask_once(path).await {
            Err(Error::Unreachable(_)) if was_open => self.ask_once(path).await,
            answer => answer,
        }
    }

    async fn ask_once(&mut self, path: &str) -> Result<Answer, Error> {
        let told = |error: anyhow::Error| Error::Unreachable(format!("no answer from {}: {error:#}", self.base));
        let uri: Uri = format!("{}{path}", self.base).parse().map_err(|error| told(anyhow::Error::new(error)))?;
        let mut request = Request::get(&uri).body(Bytes::new()).map_err(|error| told(error.into()))?;
        request.headers_mut().extend(self.shown.clone());
        let line = self.line.take();
        let asked = async {
            let mut line = match line {
                Some(line) => line,
                // Rare, and large: it may have to speak TLS.
                None => Box::pin(Line::open(&uri, &self.trust)).await?,
            };
            let answer = line.ask(request, LARGEST).await?;
            anyhow::Ok((line, answer))
        };
        let (line, answer) = match timeout(PATIENCE, asked).await {
            Ok(asked) => asked.map_err(told)?,
            Err(_) => return Err(told(anyhow::anyhow!("not within {} s", PATIENCE.as_secs()))),
        };
        self.line = Some(line);
        let (head, body) = answer.into_parts();
        match head.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                return Err(Error::Refused(head.status));
            }
            status => return Err(Error::Status(path.to_owned(), status)),
        }
        let next_page = head.headers.get("x-next-page").and_then(|page| page.to_str().ok()?.parse().ok());
        Ok(Answer { body, next_page: next_page.unwrap_or_default() })
    }
}

fn read<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Nonsense(path.to_owned(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn every_page_of_a_list_is_asked_for_on_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut api = Api::new(format!("http://{}", listener.local_addr().unwrap()), None, Trust::System);
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            for (name, next) in [("a", 2), ("b", 3), ("c", 1)] {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                asked.push(String::from_utf8(request).unwrap());
                let body = format!(r#"[{{"name": "{name}@http", "status": "enabled"}}]"#);
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nX-Next-Page: {next}\r\nContent-Length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        };
        let (asked, listed) = tokio::join!(serve, api.list::<Object>(("http", "routers")));
        let names: Vec<_> = listed.unwrap().iter().map(|object| object.ours().unwrap().to_owned()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(asked.iter().zip(1..).all(|(asked, page)| asked.contains(&format!("page={page} HTTP"))), "{asked:?}");
    }
}
