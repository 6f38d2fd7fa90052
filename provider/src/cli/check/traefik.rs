//! Do the Traefiks poll us as they should? Asks their APIs, where configured; says the lines that they need.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use tokio_postgres::Client;

use super::{
    super::{database, export},
    Finding,
};
use crate::{
    config::{Config, Traefik},
    drift,
    running::{Api, EntryPoint},
};

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

/// The newest config that was served; none where there is none yet, or no database.
pub(super) async fn served(config: &Config) -> Option<Value> {
    let work = async |client: &mut Client| export::exact(client, None).await;
    let bytes = database::with(config, async |opened| opened.run(work).await).await.ok().flatten()?;
    serde_json::from_slice(&bytes).ok()
}

pub(super) async fn check(traefik: &Traefik, config: &Config, served: Option<&Value>) -> Vec<Finding> {
    let name = &traefik.instance;
    let Some((address, mut api)) = traefik.api.as_ref().zip(Api::of(traefik)) else {
        let what = format!("Traefik {name}: without `api` nobody knows what it runs");
        return vec![Finding::warning(what, "set `api` in its [[traefik]]")];
    };
    let version = match api.version().await {
        Ok(version) => version,
        Err(error) => return vec![Finding::warning(format!("Traefik {name}: {error}"), "")],
    };
    let mut findings = vec![Finding::ok(format!("Traefik {name}: version {version} at {address}"))];
    match api.providers().await {
        Ok(providers) if !providers.iter().any(|provider| provider.eq_ignore_ascii_case("http")) => {
            let what = format!("Traefik {name}: polls nobody by HTTP");
            findings.push(Finding::critical(what, "add providers.http to its static configuration"));
        }
        Ok(_) | Err(_) => {}
    }
    if let Some(configured) = &config.compile.entry_points
        && let Ok(entry_points) = api.entry_points::<EntryPoint>().await
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
    if let Some(served) = served {
        findings.push(drift(name, &mut api, served).await);
    }
    findings
}

/// So many differences are told; `/api/drift` tells all.
const TOLD: usize = 3;

/// Does it run what was served?
async fn drift(name: &str, api: &mut Api, served: &Value) -> Finding {
    let digest = drift::marker(served).unwrap_or_default();
    let running = match drift::read::running(api, digest).await {
        Ok(running) => running,
        Err(error) => {
            let remedy = "open /api/http, /api/tcp, /api/udp and /api/entrypoints of its API to the provider";
            return Finding::warning(format!("Traefik {name}: what it runs cannot be read: {error}"), remedy);
        }
    };
    let found = drift::compare(served, &running, &|_, _| None);
    if found.is_empty() {
        return Finding::ok(format!("Traefik {name}: runs what the rows say"));
    }
    let told = found.iter().take(TOLD).map(|one| {
        format!("{} {} {} is {}: {}", one.protocol, one.object, one.name, drift::word(one.kind), one.detail)
    });
    let told = told.collect::<Vec<_>>().join("; ");
    let more = if found.len() > TOLD { "; ..." } else { "" };
    let what = format!("Traefik {name}: {} things run otherwise than the rows say: {told}{more}", found.len());
    Finding::warning(what, "GET /api/drift tells all of them, with their rows")
}
