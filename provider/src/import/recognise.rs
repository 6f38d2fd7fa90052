//! A router, with its service and middlewares, to the row that may say the same.
//!
//! Only a guess: whether the row says the same is seen by compiling it. So this may be generous where that will tell, and
//! must be careful where it cannot: what is behind a redirect is not compared.

use std::collections::BTreeMap;

use charliehub_proto::{
    domain::{
        AccessTier, Backend, DnsMode, Domain, Environment, HealthCheck, Protocol, RateLimit, ServiceType, Status,
        Sticky, TlsMode,
    },
    traefik::{Duration, Kind, Piece, http, tcp},
};
use ipnet::IpNet;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Name,
    expand::{KEEP_PATH, WHOLE, address, networks, split_port},
    rule,
};
use crate::compile::Settings;

type Pieces = BTreeMap<Name, Piece>;

/// An active, public row with nothing but its name; its id is new.
pub(super) fn blank(domain: &str) -> Domain {
    Domain {
        id: Uuid::new_v4(),
        domain: domain.to_owned(),
        path_prefix: "/".to_owned(),
        protocol: Protocol::Http,
        service_type: ServiceType::Proxy,
        environment: Environment::default(),
        status: Status::Active,
        access_tier: AccessTier::Public,
        tls_mode: TlsMode::Default,
        cert_resolver: None,
        backend_scheme: None,
        backend_host: None,
        backend_port: None,
        backends: Vec::new(),
        tcp_entrypoint: None,
        auth_required: false,
        ip_allowlist: Vec::new(),
        middlewares: Vec::new(),
        service_ref: None,
        redirect_to: None,
        redirect_permanent: false,
        redirect_keep_path: false,
        maintenance_message: None,
        rate_limit: None,
        health_check: None,
        sticky: None,
        priority: None,
        dns_mode: DnsMode::default(),
        site: None,
        owner: None,
        notes: None,
        labels: BTreeMap::new(),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        version: 0,
    }
}

/// The row that a router may be, or why it is none.
pub(super) fn row(pieces: &Pieces, name: &Name, settings: &Settings) -> Result<Domain, &'static str> {
    match pieces.get(name) {
        Some(Piece::HttpRouter(router)) => http_row(pieces, router, settings),
        Some(Piece::TcpRouter(router)) => tcp_row(pieces, &name.1, router, settings),
        _ => Err("a row is an http or tcp route"),
    }
}

fn http_row(pieces: &Pieces, router: &http::Router, settings: &Settings) -> Result<Domain, &'static str> {
    if !router.parent_refs.is_empty() || router.rule_syntax.is_some() || router.observability.is_some() {
        return Err("a row has no parentRefs, ruleSyntax or observability");
    }
    let spot = rule::spot(&router.rule).ok_or("a row's rule is one host, and maybe a path prefix")?;
    let mut row = blank(&spot.host);
    row.path_prefix = spot.path;
    match (&router.entry_points.as_slice(), &router.tls) {
        ([entry_point], None) if entry_point == "web" => row.tls_mode = TlsMode::None,
        ([entry_point], Some(tls)) if entry_point == "websecure" => {
            if !tls.options.is_empty() {
                return Err("a row has no tls.options");
            }
            resolver(&mut row, &tls.cert_resolver);
        }
        _ => return Err("an http row is on websecure with TLS, or on web without"),
    }
    let mut chain = router.middlewares.as_slice();
    let kind_of = |name: &String| match pieces.get(&(Kind::HttpMiddleware, name.clone())) {
        Some(Piece::HttpMiddleware(middleware)) => Some(middleware),
        _ => None,
    };
    if let [first, rest @ ..] = chain
        && let Some(list) = kind_of(first).and_then(|middleware| middleware.ip_allow_list.as_ref())
        && list.ip_strategy.is_none()
        && list.reject_status_code.is_none_or(|code| code == 403)
        && allow(&mut row, &list.source_range, settings)
    {
        chain = rest;
    }
    if let [first, rest @ ..] = chain
        && let Some(limit) = kind_of(first).and_then(|middleware| middleware.rate_limit.as_ref()).and_then(rate_limit)
    {
        row.rate_limit = Some(Box::new(limit));
        chain = rest;
    }
    if let [first, rest @ ..] = chain
        && let Some(auth) = kind_of(first).and_then(|middleware| middleware.forward_auth.as_ref())
        && row.tls_mode != TlsMode::None
        && is_ours(auth, settings)
    {
        row.auth_required = true;
        chain = rest;
    }
    if let [rest @ .., last] = chain
        && let Some(redirect) = kind_of(last).and_then(|middleware| middleware.redirect_regex.as_ref())
        && redirects(&mut row, redirect, &router.service)
    {
        rest.clone_into(&mut row.middlewares);
        return Ok(row);
    }
    chain.clone_into(&mut row.middlewares);
    let service = (Kind::HttpService, router.service.clone());
    if !pieces.get(&service).is_some_and(|service| proxies(&mut row, pieces, service)) {
        (row.service_type, row.service_ref) = (ServiceType::Reference, Some(router.service.clone()));
    }
    Ok(row)
}

fn tcp_row(pieces: &Pieces, name: &str, router: &tcp::Router, settings: &Settings) -> Result<Domain, &'static str> {
    if router.rule_syntax.is_some() {
        return Err("a row has no ruleSyntax");
    }
    let [entry_point] = router.entry_points.as_slice() else { return Err("a tcp row is on one entry point") };
    let spot = rule::spot(&router.rule).ok_or("a tcp row's rule is one host")?;
    // Without TLS a connection names no host, so only the router's name can tell one.
    let host = match (&router.tls, spot.host.as_str()) {
        (None, "*") => name.strip_suffix(&format!("-{entry_point}")).unwrap_or(name).to_owned(),
        (Some(_), host) if host != "*" => host.to_owned(),
        _ => return Err("a tcp row is for one host with TLS, or for every connection without"),
    };
    let mut row = blank(&host);
    (row.protocol, row.tcp_entrypoint) = (Protocol::Tcp, Some(entry_point.clone()));
    match &router.tls {
        None => row.tls_mode = TlsMode::None,
        Some(tls) if !tls.options.is_empty() => return Err("a row has no tls.options"),
        Some(tls) if tls.passthrough => row.tls_mode = TlsMode::Passthrough,
        Some(tls) => resolver(&mut row, &tls.cert_resolver),
    }
    let mut chain = router.middlewares.as_slice();
    if let [first, rest @ ..] = chain
        && let Some(Piece::TcpMiddleware(middleware)) = pieces.get(&(Kind::TcpMiddleware, first.clone()))
        && let Some(list) = &middleware.ip_allow_list
        && allow(&mut row, &list.source_range, settings)
    {
        chain = rest;
    }
    chain.clone_into(&mut row.middlewares);
    let service = (Kind::TcpService, router.service.clone());
    if pieces.get(&service).is_some_and(|service| tcp_proxies(&mut row, pieces, service)) {
        Ok(row)
    } else {
        Err("a tcp row leads to plain servers")
    }
}

fn resolver(row: &mut Domain, resolver: &str) {
    (row.tls_mode, row.cert_resolver) =
        if resolver.is_empty() { (TlsMode::Default, None) } else { (TlsMode::Acme, Some(resolver.to_owned())) };
}

fn allow(row: &mut Domain, ranges: &[String], settings: &Settings) -> bool {
    let Some(nets) = networks(ranges).filter(|nets| nets.iter().all(|net| net.prefix_len() > 0)) else { return false };
    if !settings.internal_networks.is_empty() && IpNet::aggregate(&settings.internal_networks) == nets {
        row.access_tier = AccessTier::Internal;
    } else {
        (row.access_tier, row.ip_allowlist) = (AccessTier::Restricted, nets);
    }
    true
}

fn rate_limit(limit: &http::RateLimit) -> Option<RateLimit> {
    if limit.source_criterion.is_some() || limit.redis.is_some() {
        return None;
    }
    let positive = |number: i64| u64::try_from(number).ok().filter(|number| (1..=1_000_000).contains(number));
    Some(RateLimit {
        average: limit.average.and_then(positive)?,
        burst: limit.burst.map_or(Some(None), |burst| positive(burst).map(Some))?,
        period: limit.period.map_or(Some(None), |period| duration(period).map(Some))?,
    })
}

/// As a row has it: a whole number of one unit.
fn duration(duration: Duration) -> Option<String> {
    let nanoseconds = duration.as_nanos();
    let units = [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000)];
    let (unit, size) = units.into_iter().find(|(_, size)| nanoseconds % size == 0)?;
    let number = nanoseconds / size;
    (1..=999_999).contains(&number).then(|| format!("{number}{unit}"))
}

/// The single sign-on of the settings, and nothing else asked of it.
pub(super) fn is_ours(auth: &http::ForwardAuth, settings: &Settings) -> bool {
    let Some(ours) = &settings.forward_auth else { return false };
    let same = http::ForwardAuth {
        address: ours.address.clone(),
        auth_response_headers: ours.auth_response_headers.clone(),
        trust_forward_header: auth.trust_forward_header,
        max_response_body_size: auth.max_response_body_size,
        ..http::ForwardAuth::default()
    };
    *auth == same
        && auth.trust_forward_header != Some(true)
        && auth.max_response_body_size.is_none_or(|size| size == -1)
}

/// A redirect of ours whose target is another place, so that the service behind it is never reached.
fn redirects(row: &mut Domain, redirect: &http::RedirectRegex, service: &str) -> bool {
    let (keep_path, target) = match (redirect.regex.as_str(), redirect.replacement.strip_suffix("${1}")) {
        (KEEP_PATH, Some(target)) => (true, target),
        (WHOLE, None) => (false, redirect.replacement.as_str()),
        _ => return false,
    };
    let host = target.split("://").nth(1).and_then(|rest| rest.split(['/', ':']).next()).unwrap_or_default();
    let elsewhere = !row.domain.starts_with("*.") && !host.eq_ignore_ascii_case(&row.domain);
    if service != "noop@internal" && !elsewhere {
        return false;
    }
    row.service_type = ServiceType::Redirect;
    (row.redirect_to, row.redirect_permanent) = (Some(target.to_owned()), redirect.permanent);
    row.redirect_keep_path = keep_path;
    true
}

/// Fills in the servers; false, and nothing changed, where a row has no word for the service.
fn proxies(row: &mut Domain, pieces: &Pieces, service: &Piece) -> bool {
    let Piece::HttpService(service) = service else { return false };
    if !service.middlewares.is_empty() {
        return false;
    }
    let found = if let Some(balancer) = &service.load_balancer {
        balancer.servers.iter().map(backend).collect::<Option<Vec<_>>>().map(|backends| (backends, balancer))
    } else if let Some(weighted) = &service.weighted {
        // Of one server each, as we compile them; that they are otherwise alike is compared later.
        let mut children = weighted.services.iter().map(|share| {
            let Some(Piece::HttpService(child)) = pieces.get(&(Kind::HttpService, share.name.clone())) else {
                return None;
            };
            let balancer = child.load_balancer.as_ref()?;
            let [server] = balancer.servers.as_slice() else { return None };
            let weight = share.weight.map_or(Some(None), |weight| u32::try_from(weight).ok().map(Some))?;
            Some((Backend { weight, ..backend(server)? }, balancer))
        });
        children.by_ref().collect::<Option<Vec<_>>>().and_then(|children| {
            let (_, first) = children.first()?;
            let first = *first;
            Some((children.into_iter().map(|(backend, _)| backend).collect(), first))
        })
    } else {
        None
    };
    let Some((backends, balancer)) = found.filter(|(backends, _)| !backends.is_empty()) else { return false };
    let sticky = service.weighted.as_ref().map_or(balancer.sticky.as_ref(), |weighted| weighted.sticky.as_ref());
    let Ok((sticky, check)) = options(sticky, balancer.health_check.as_ref()) else { return false };
    if !balancer.servers_transport.is_empty() || balancer.passive_health_check.is_some() {
        return false;
    }
    if balancer.pass_host_header == Some(false) {
        return false;
    }
    (row.sticky, row.health_check) = (sticky.map(Box::new), check.map(Box::new));
    behind(row, backends);
    true
}

fn backend(server: &http::Server) -> Option<Backend> {
    let (scheme, host, port) = address(&server.url).filter(|_| !server.preserve_path)?;
    Some(Backend {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port,
        scheme: (scheme != "http").then(|| scheme.to_owned()),
        weight: server.weight.map_or(Some(None), |weight| u32::try_from(weight).ok().map(Some))?,
    })
}

/// One backend in its own columns, several as a list.
fn behind(row: &mut Domain, backends: Vec<Backend>) {
    if let [only] = backends.as_slice()
        && only.weight.is_none_or(|weight| weight == 1)
    {
        (row.backend_host, row.backend_port) = (Some(only.host.clone()), Some(only.port));
        row.backend_scheme.clone_from(&only.scheme);
    } else {
        row.backends = backends;
    }
}

/// A row has no word for some of the options.
struct NoWord;

fn options(
    sticky: Option<&http::Sticky>,
    check: Option<&http::HealthCheck>,
) -> Result<(Option<Sticky>, Option<HealthCheck>), NoWord> {
    let sticky = sticky.and_then(|sticky| sticky.cookie.as_ref()).map(cookie).transpose()?;
    Ok((sticky, check.map(health_check).transpose()?))
}

fn cookie(cookie: &http::Cookie) -> Result<Sticky, NoWord> {
    let plain = cookie.max_age.is_none() && cookie.domain.is_empty() && cookie.path.as_deref().is_none_or(|p| p == "/");
    if cookie.name.is_empty() || !plain {
        return Err(NoWord);
    }
    let word = cookie.same_site.map(|site| match site {
        http::SameSite::None => "none".to_owned(),
        http::SameSite::Lax => "lax".to_owned(),
        http::SameSite::Strict => "strict".to_owned(),
    });
    let flag = |flag: bool| flag.then_some(true);
    Ok(Sticky {
        cookie: cookie.name.clone(),
        secure: flag(cookie.secure),
        http_only: flag(cookie.http_only),
        same_site: word,
    })
}

fn health_check(check: &http::HealthCheck) -> Result<HealthCheck, NoWord> {
    let span = |span: Option<Duration>| span.map(|span| duration(span).ok_or(NoWord)).transpose();
    Ok(HealthCheck {
        path: check.path.clone(),
        interval: span(check.interval)?,
        timeout: span(check.timeout)?,
        port: check.port.map(|port| u16::try_from(port).map_err(|_| NoWord)).transpose()?,
        hostname: (!check.hostname.is_empty()).then(|| check.hostname.clone()),
    })
}

fn tcp_proxies(row: &mut Domain, pieces: &Pieces, service: &Piece) -> bool {
    let Piece::TcpService(service) = service else { return false };
    let plain = |server: &tcp::Server, weight: Option<i64>| {
        let (host, port) = split_port(&server.address)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let weight = weight.map_or(Some(None), |weight| u32::try_from(weight).ok().map(Some))?;
        Some(Backend { host, port, scheme: None, weight })
    };
    let backends: Option<Vec<Backend>> = if let Some(balancer) = &service.load_balancer {
        balancer.servers.iter().map(|server| plain(server, None)).collect()
    } else {
        service
            .weighted
            .iter()
            .flat_map(|weighted| &weighted.services)
            .map(|share| {
                let Some(Piece::TcpService(child)) = pieces.get(&(Kind::TcpService, share.name.clone())) else {
                    return None;
                };
                let [server] = child.load_balancer.as_ref()?.servers.as_slice() else { return None };
                plain(server, share.weight)
            })
            .collect()
    };
    let Some(backends) = backends.filter(|backends| !backends.is_empty()) else { return false };
    behind(row, backends);
    true
}
