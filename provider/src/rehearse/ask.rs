//! Asks the API of the Traefik under rehearsal.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::TcpStream, time::sleep};

use super::{
    Error,
    harmless::MARKER,
    report::{Found, Part},
    stage::{HEADER, own},
};

/// Between two questions while it is not there yet: its API has no way to wait.
const AGAIN: Duration = Duration::from_millis(5);
const PAGE: usize = 1_000;

/// The API, for who has the token.
pub(super) struct Api<'t> {
    pub(super) port: u16,
    pub(super) token: &'t str,
}

struct Answer {
    body: Bytes,
    /// Traefik's first page stands for: this was the last.
    next_page: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Marker {
    headers: Option<Headers>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Headers {
    custom_response_headers: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    provider: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    error: Vec<String>,
}

impl Api<'_> {
    /// Its version, as soon as it answers.
    pub(super) async fn until_up(&self) -> String {
        loop {
            if let Ok(Version { version }) = self.get("/api/version").await {
                return version;
            }
            sleep(AGAIN).await;
        }
    }

    /// Waits until the configuration with this mark runs, all of it.
    pub(super) async fn until_runs(&self, mark: &str) {
        let path = format!("/api/http/middlewares/{MARKER}@http");
        loop {
            if let Ok(Marker { headers: Some(headers) }) = self.get(&path).await
                && headers.custom_response_headers.get(HEADER).is_some_and(|value| value == mark)
            {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// What does not run as the candidate has it.
    pub(super) async fn found(&self) -> Result<Found, Error> {
        let mut found = Found::default();
        for protocol in ["http", "tcp", "udp"] {
            let (all, bad) = self.list(protocol, "routers").await?;
            found.loaded += all;
            found.routers.extend(bad);
            found.services.extend(self.list(protocol, "services").await?.1);
            if protocol != "udp" {
                found.middlewares.extend(self.list(protocol, "middlewares").await?.1);
            }
        }
        Ok(found)
    }

    /// How many there are of the candidate, and those that are not well.
    async fn list(&self, protocol: &'static str, kind: &str) -> Result<(usize, Vec<Part>), Error> {
        let (mut all, mut bad, mut page) = (0, Vec::new(), 1);
        loop {
            let path = format!("/api/{protocol}/{kind}?per_page={PAGE}&page={page}");
            let Answer { body, next_page } = self.ask(&path).await?;
            for listed in read::<Vec<Listed>>(&body)?.into_iter().filter(|listed| listed.provider == "http") {
                all += 1;
                if listed.status != "enabled" || !listed.error.is_empty() {
                    let name = own(&listed.name).to_owned();
                    bad.push(Part { protocol, name, status: listed.status, errors: listed.error });
                }
            }
            if next_page <= page {
                return Ok((all, bad));
            }
            page = next_page;
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        read(&self.ask(path).await?.body)
    }

    async fn ask(&self, path: &str) -> Result<Answer, Error> {
        let told = |error: hyper::Error| Error::Api(error.to_string());
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .header(header::CONNECTION, "close")
            .header(HEADER, self.token)
            .body(Empty::<Bytes>::new())
            .map_err(|error| Error::Api(error.to_string()))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
        let answer = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok((head, body.collect().await?.to_bytes()))
        };
        // The connection moves the bytes; what it has to tell is told by the answer.
        let (_, answered) = tokio::join!(connection, answer);
        let (head, body) = answered.map_err(told)?;
        if !head.status.is_success() {
            return Err(Error::Api(format!("{} to {path}", head.status)));
        }
        let next_page = head.headers.get("x-next-page").and_then(|page| page.to_str().ok()?.parse().ok());
        Ok(Answer { body, next_page: next_page.unwrap_or_default() })
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Api(error.to_string()))
}
