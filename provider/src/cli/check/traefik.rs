//! Do the Traefiks poll us as they should? Asks their APIs, where configured; says the lines that they need.

use std::{collections::BTreeSet, time::Duration};

use super::Finding;
use crate::{
    config::{Config, Traefik},
    running::Api,
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

pub(super) async fn check(traefik: &Traefik, config: &Config) -> Vec<Finding> {
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
        && let Ok(entry_points) = api.entry_points().await
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
