//! Do the Traefiks poll us as they should? Asks their APIs, where configured; says the lines that they need.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls};

use super::Finding;
use crate::config::{Config, Traefik};

const PATIENCE: Duration = Duration::from_secs(3);
const LARGEST: usize = 1 << 20;

/// The lines of Traefik's static configuration that belong together: a poll is always open, and never cut off.
pub(super) fn static_configuration(config: &Config) -> String {
    let us = config.self_url(config.serve.listen).unwrap_or_else(|| "http://PROVIDER:8001".to_owned());
    let wait = config.serve.max_wait.min(Duration::from_secs(55)).as_secs();
    format!(
        "Traefik's static configuration needs these lines together: providers.http.endpoint: \
         {us}/traefik?wait={wait}s&instance=NAME; providers.http.pollInterval: 10ms; providers.http.pollTimeout: {}s; \
         providers.providersThrottleDuration: 10ms; a token of role traefik in providers.http.headers.Authorization",
        wait + 5
    )
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Overview {
    #[serde(default)]
    providers: Vec<String>,
}

#[derive(Deserialize)]
struct EntryPoint {
    name: String,
}

pub(super) async fn check(traefik: &Traefik, config: &Config) -> Vec<Finding> {
    let name = &traefik.instance;
    let version: Version = match get(&traefik.api, "/api/version").await {
        Ok(version) => version,
        Err(error) => {
            let remedy = "is Traefik running, is its API on (api: {}), and is `api` of [[traefik]] right?";
            return vec![Finding::warning(
                format!("Traefik {name}: no answer from {}: {error:#}", traefik.api),
                remedy,
            )];
        }
    };
    let mut findings = vec![Finding::ok(format!("Traefik {name}: version {} at {}", version.version, traefik.api))];
    if let Ok(overview) = get::<Overview>(&traefik.api, "/api/overview").await
        && !overview.providers.iter().any(|provider| provider.eq_ignore_ascii_case("http"))
    {
        let what = format!("Traefik {name}: polls nobody by HTTP");
        findings.push(Finding::critical(what, "add providers.http to its static configuration"));
    }
    if let Some(configured) = &config.compile.entry_points
        && let Ok(entry_points) = get::<Vec<EntryPoint>>(&traefik.api, "/api/entrypoints").await
    {
        let there: BTreeSet<String> = entry_points.into_iter().map(|entry_point| entry_point.name).collect();
        for missing in configured.difference(&there) {
            findings.push(Finding::warning(
                format!("Traefik {name}: has no entry point `{missing}` of `compile.entry_points`"),
                format!(
                    "add it to Traefik, or remove it there; Traefik has: {}",
                    Vec::from_iter(there.clone()).join(", ")
                ),
            ));
        }
    }
    findings
}

/// Asks one thing of a Traefik's API.
async fn get<T: DeserializeOwned>(api: &str, path: &str) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, ask(api, path)).await.context("no answer in time")?
}

async fn ask<T: DeserializeOwned>(api: &str, path: &str) -> anyhow::Result<T> {
    let uri: http::Uri = format!("{api}{path}").parse()?;
    let authority = uri.authority().context("no host")?.clone();
    let secure = uri.scheme_str() == Some("https");
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    let request = Request::get(uri.path())
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let body = if secure {
        let name = rustls::pki_types::ServerName::try_from(host)?;
        exchange(TlsConnector::from(trust()?).connect(name, stream).await?, request).await?
    } else {
        exchange(stream, request).await?
    };
    Ok(serde_json::from_slice(&body)?)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
) -> anyhow::Result<Bytes> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        anyhow::ensure!(response.status().is_success(), "it answers {}", response.status());
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes())
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answered = &mut answer => answered,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}

fn trust() -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
