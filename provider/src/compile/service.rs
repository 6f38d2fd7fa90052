//! The servers behind a row, and how requests are shared among them.

use std::{borrow::Cow, sync::Arc};

use charliehub_proto::domain::{Backend, Domain, HealthCheck, Protocol, Sticky};
use serde::Serialize;

use super::{Section, piece::Piece, syntax};

/// What a service without servers answers: 503 (tcp: the connection is closed).
pub(super) const CLOSED: &str = r#"{"loadBalancer":{"servers":[]}}"#;

/// The pieces of the row's service, which has the name `name`; the error names the column and the remedy.
pub(super) fn service(row: &Domain, name: &Arc<str>) -> Result<Vec<Piece>, String> {
    let section = match row.protocol {
        Protocol::Http => Section::HttpServices,
        Protocol::Tcp => Section::TcpServices,
    };
    let backends = backends(row)?;
    let check = row.health_check.as_deref().map(health_check).transpose()?;
    let sticky = row.sticky.as_deref().map(sticky).transpose()?;
    let servers = |backends: &[Backend]| backends.iter().map(|backend| server(row, backend)).collect::<Result<_, _>>();
    if backends.iter().all(|backend| backend.weight.unwrap_or(1) == 1) {
        let balancer = LoadBalancer { health_check: check, servers: servers(&backends)?, sticky };
        return Ok(vec![Piece::new(section, Arc::clone(name), &Service::LoadBalancer(balancer))]);
    }
    // Servers have weights of their own only since Traefik 3.1; services have had them since 2.0.
    let mut pieces = Vec::with_capacity(backends.len() + 1);
    let mut shares = Vec::with_capacity(backends.len());
    for (index, backend) in backends.iter().enumerate() {
        let child: Arc<str> = format!("{name}[{}]", index + 1).into();
        let balancer = LoadBalancer {
            health_check: check.clone(),
            servers: servers(std::slice::from_ref(backend))?,
            sticky: None,
        };
        pieces.push(Piece::new(section, Arc::clone(&child), &Service::LoadBalancer(balancer)));
        shares.push(Share { name: child, weight: backend.weight.unwrap_or(1) });
    }
    let weighted = Weighted { health_check: check.map(|_| Empty {}), services: shares, sticky };
    pieces.push(Piece::new(section, Arc::clone(name), &Service::Weighted(weighted)));
    Ok(pieces)
}

/// The servers of the row, from `backend_*` or from `backends`.
fn backends(row: &Domain) -> Result<Cow<'_, [Backend]>, String> {
    match (&row.backend_host, row.backend_port, row.backends.as_slice()) {
        (Some(host), Some(port), []) => {
            let scheme = row.backend_scheme.clone();
            Ok(Cow::Owned(vec![Backend { host: host.clone(), port, scheme, weight: None }]))
        }
        (None, None, []) => Err("backend_host: is missing; name it and backend_port, or backends".to_owned()),
        (None, None, backends) if row.backend_scheme.is_none() => {
            if backends.len() > 100 {
                return Err("backends: more than 100; put a load balancer in front of them".to_owned());
            }
            if backends.iter().all(|backend| backend.weight == Some(0)) {
                return Err("backends: every weight is 0; give one of them a share".to_owned());
            }
            if backends.iter().any(|backend| backend.weight.is_some_and(|weight| weight > 10_000)) {
                return Err("backends: a weight is above 10000; use smaller ones".to_owned());
            }
            Ok(Cow::Borrowed(backends))
        }
        (Some(_), Some(_), _) => Err("backends: not together with backend_host; keep one of them".to_owned()),
        _ => Err("backend_host: goes together with backend_port, and backend_scheme with both; complete it".to_owned()),
    }
}

fn server(row: &Domain, backend: &Backend) -> Result<Server, String> {
    let column = if row.backends.is_empty() { "backend" } else { "backends" };
    if !syntax::is_server(&backend.host) {
        return Err(format!("{column}: the host is neither a name nor an address; correct it"));
    }
    if backend.port == 0 {
        return Err(format!("{column}: the port is 0; name one from 1 to 65535"));
    }
    let brackets = if backend.host.contains(':') { ("[", "]") } else { ("", "") };
    let address = format!("{}{}{}:{}", brackets.0, backend.host, brackets.1, backend.port);
    match (row.protocol, backend.scheme.as_deref()) {
        (Protocol::Tcp, None) => Ok(Server { address: Some(address), url: None }),
        (Protocol::Tcp, Some(_)) => Err(format!("{column}: a tcp row has no scheme; remove it")),
        (Protocol::Http, scheme @ (None | Some("http" | "https" | "h2c"))) => {
            Ok(Server { address: None, url: Some(format!("{}://{address}", scheme.unwrap_or("http"))) })
        }
        (Protocol::Http, Some(_)) => Err(format!("{column}: the scheme is not http, https or h2c; use one of them")),
    }
}

fn health_check(check: &HealthCheck) -> Result<Check, String> {
    let wrong = |what: &str| Err(format!("health_check: {what}"));
    if !syntax::is_path(&check.path) {
        return wrong("path is not a path such as /healthz; correct it");
    }
    if [&check.interval, &check.timeout].into_iter().flatten().any(|text| !syntax::is_duration(text)) {
        return wrong("interval and timeout are durations such as 10s; correct them");
    }
    if check.port == Some(0) {
        return wrong("port is 0; name one from 1 to 65535");
    }
    if check.hostname.as_deref().is_some_and(|name| !syntax::is_server(name)) {
        return wrong("hostname is not a name; correct it");
    }
    Ok(Check {
        hostname: check.hostname.clone(),
        interval: check.interval.clone(),
        path: check.path.clone(),
        port: check.port,
        timeout: check.timeout.clone(),
    })
}

fn sticky(sticky: &Sticky) -> Result<CookieOf, String> {
    if !syntax::is_cookie(&sticky.cookie) {
        return Err("sticky: cookie is not the name of one; letters, digits, _ . and -".to_owned());
    }
    if sticky.same_site.as_deref().is_some_and(|site| !matches!(site, "none" | "lax" | "strict")) {
        return Err("sticky: same_site is not none, lax or strict; use one of them".to_owned());
    }
    let cookie = Cookie {
        http_only: sticky.http_only,
        name: sticky.cookie.clone(),
        same_site: sticky.same_site.clone(),
        secure: sticky.secure,
    };
    Ok(CookieOf { cookie })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Service {
    LoadBalancer(LoadBalancer),
    Weighted(Weighted),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadBalancer {
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check: Option<Check>,
    servers: Vec<Server>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky: Option<CookieOf>,
}

#[derive(Serialize)]
struct Server {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Weighted {
    /// Present: a child that is down gets nothing. Then each child needs a check of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check: Option<Empty>,
    services: Vec<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky: Option<CookieOf>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Share {
    name: Arc<str>,
    weight: u32,
}

#[derive(Clone, Serialize)]
struct Check {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
}

#[derive(Serialize)]
struct CookieOf {
    cookie: Cookie,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cookie {
    #[serde(skip_serializing_if = "Option::is_none")]
    http_only: Option<bool>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    same_site: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secure: Option<bool>,
}
