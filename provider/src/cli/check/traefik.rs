//! Do the Traefiks poll us as they should? Asks their APIs, where configured; says the lines that they need.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use http::Request;
use serde::{Deserialize, de::DeserializeOwned};

use super::Finding;
use crate::{
    client::{self, Limits, Trust},
    config::{Config, Traefik},
};

const LIMITS: Limits = Limits { patience: Duration::from_secs(3), largest: 1 << 20 };

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
    let request = Request::get(format!("{api}{path}")).body(Bytes::new())?;
    let response = client::send(request, &Trust::System, LIMITS).await?;
    anyhow::ensure!(response.status().is_success(), "it answers {}", response.status());
    Ok(serde_json::from_slice(response.body())?)
}
