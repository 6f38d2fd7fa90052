//! HTTP: routers, services, models and the transports to servers. Middlewares are in `middleware`.

use std::collections::BTreeMap;

use super::{
    Duration, Invalid, Kind, Reference, Rules,
    invalid::{exactly_one, require},
    options::{Field, choices, options},
    rule,
    tls::{CertAndKey, Domain, TlsVersion, check_ciphers, check_versions},
};
pub use crate::traefik::middleware::*;

options! {
    /// The `http` section.
    pub struct Http {
        pub routers: BTreeMap<String, Router>,
        pub services: BTreeMap<String, Service>,
        pub middlewares: BTreeMap<String, Middleware>,
        pub models: BTreeMap<String, Model>,
        pub servers_transports: BTreeMap<String, ServersTransport>,
    }

    /// Needs a `rule`. Without a `service` it is the parent of other routers, which name it in `parent_refs`.
    pub struct Router {
        pub entry_points: Vec<String>,
        pub middlewares: Vec<String>,
        pub service: String,
        pub rule: String,
        pub parent_refs: Vec<String>,
        /// Deprecated by Traefik.
        pub rule_syntax: Option<RuleSyntax>,
        /// Higher goes first. Without one, the length of the rule.
        pub priority: Option<i64>,
        pub tls: Option<RouterTls>,
        pub observability: Option<Observability>,
    }

    /// Empty: TLS with the default options and certificate.
    pub struct RouterTls [may_be_empty] {
        pub options: String,
        pub cert_resolver: String,
        pub domains: Vec<Domain>,
    }

    pub struct Observability {
        pub access_logs: Option<bool>,
        pub metrics: Option<bool>,
        pub tracing: Option<bool>,
        pub trace_verbosity: Option<TraceVerbosity>,
    }

    /// What the routers of an entry point get on top of their own.
    pub struct Model {
        pub middlewares: Vec<String>,
        pub tls: Option<RouterTls>,
        pub observability: Option<Observability>,
    }

    /// Of exactly one kind; middlewares go with any.
    pub struct Service {
        pub middlewares: Vec<String>,
        pub load_balancer: Option<LoadBalancer>,
        pub highest_random_weight: Option<HighestRandomWeight>,
        pub weighted: Option<Weighted>,
        pub mirroring: Option<Mirroring>,
        pub failover: Option<Failover>,
    }

    pub struct LoadBalancer {
        pub sticky: Option<Sticky>,
        pub servers: Vec<Server>,
        pub strategy: Option<Strategy>,
        pub health_check: Option<HealthCheck>,
        pub passive_health_check: Option<PassiveHealthCheck>,
        /// True unless said otherwise.
        pub pass_host_header: Option<bool>,
        pub response_forwarding: Option<ResponseForwarding>,
        pub servers_transport: String,
    }

    pub struct Server {
        /// `http://`, `https://` or `h2c://`, host, port.
        pub url: String,
        pub weight: Option<i64>,
        pub preserve_path: bool,
    }

    pub struct Sticky {
        pub cookie: Option<Cookie>,
    }

    /// Empty: a session cookie with a name made by Traefik.
    pub struct Cookie [may_be_empty] {
        pub name: String,
        pub secure: bool,
        pub http_only: bool,
        pub same_site: Option<SameSite>,
        /// In seconds; negative: expires at once.
        pub max_age: Option<i64>,
        /// `/` unless said otherwise.
        pub path: Option<String>,
        pub domain: String,
    }

    pub struct HealthCheck {
        pub scheme: String,
        pub mode: Option<HealthCheckMode>,
        pub path: String,
        pub method: String,
        pub status: Option<i64>,
        pub port: Option<i64>,
        pub interval: Option<Duration>,
        pub unhealthy_interval: Option<Duration>,
        pub timeout: Option<Duration>,
        pub hostname: String,
        pub follow_redirects: Option<bool>,
        pub headers: BTreeMap<String, String>,
    }

    pub struct PassiveHealthCheck {
        pub failure_window: Option<Duration>,
        pub max_failed_attempts: Option<i64>,
    }

    pub struct ResponseForwarding {
        pub flush_interval: Option<Duration>,
    }

    /// Present: the state of the children is passed on to the parents.
    pub struct ReportHealth [may_be_empty] {}

    pub struct Weighted {
        pub services: Vec<Weight>,
        pub sticky: Option<Sticky>,
        pub health_check: Option<ReportHealth>,
    }

    pub struct HighestRandomWeight {
        pub services: Vec<Weight>,
        pub health_check: Option<ReportHealth>,
    }

    pub struct Weight {
        pub name: String,
        /// 1 unless said otherwise.
        pub weight: Option<i64>,
    }

    pub struct Mirroring {
        pub service: String,
        /// True unless said otherwise.
        pub mirror_body: Option<bool>,
        /// In bytes; -1: no limit.
        pub max_body_size: Option<i64>,
        pub mirrors: Vec<Mirror>,
        pub health_check: Option<ReportHealth>,
    }

    pub struct Mirror {
        pub name: String,
        pub percent: Option<i64>,
    }

    pub struct Failover {
        pub service: String,
        pub fallback: String,
        pub health_check: Option<ReportHealth>,
        pub errors: Option<FailoverErrors>,
    }

    pub struct FailoverErrors {
        /// In bytes; -1: no limit.
        pub max_request_body_bytes: Option<i64>,
        /// `500`, `500-599`
        pub status: Vec<String>,
    }

    pub struct ServersTransport {
        pub server_name: String,
        pub insecure_skip_verify: bool,
        /// Files or PEM.
        #[serde(rename = "rootCAs")]
        pub root_cas: Vec<String>,
        pub certificates: Vec<CertAndKey>,
        pub cipher_suites: Vec<String>,
        pub min_version: Option<TlsVersion>,
        pub max_version: Option<TlsVersion>,
        pub max_idle_conns_per_host: Option<i64>,
        pub forwarding_timeouts: Option<ForwardingTimeouts>,
        #[serde(rename = "disableHTTP2")]
        pub disable_http2: bool,
        #[serde(rename = "peerCertURI")]
        pub peer_cert_uri: String,
        pub spiffe: Option<Spiffe>,
    }

    pub struct ForwardingTimeouts {
        pub dial_timeout: Option<Duration>,
        pub response_header_timeout: Option<Duration>,
        pub idle_conn_timeout: Option<Duration>,
        pub read_idle_timeout: Option<Duration>,
        pub ping_timeout: Option<Duration>,
    }

    /// Empty: any SPIFFE identity.
    pub struct Spiffe [may_be_empty] {
        pub ids: Vec<String>,
        pub trust_domain: String,
    }
}

choices! {
    pub enum RuleSyntax { V2 = "v2", V3 = "v3", }
    pub enum TraceVerbosity { Minimal = "minimal", Detailed = "detailed", }
    /// Weighted round robin, power of two choices, highest random weight, least time.
    pub enum Strategy { Wrr = "wrr", P2c = "p2c", Hrw = "hrw", LeastTime = "leasttime", }
    pub enum SameSite { None = "none", Lax = "lax", Strict = "strict", }
    pub enum HealthCheckMode { Http = "http", Grpc = "grpc", }
}

/// Traefik keeps the topmost 1000 for itself.
const MAX_PRIORITY: i64 = i64::MAX - 1000;

impl Rules for Router {
    fn check(&self) -> Result<(), Invalid> {
        require("rule", &self.rule)?;
        rule::check_http(&self.rule, self.rule_syntax)?;
        check_priority(self.priority)?;
        if self.parent_refs.is_empty() {
            return Ok(());
        }
        let only_root = |path, given: bool| {
            let reason =
                "belongs to the parent: a router with parentRefs takes entry points, TLS and observability from it";
            if given { Err(Invalid::new(path, reason)) } else { Ok(()) }
        };
        only_root("entryPoints", !self.entry_points.is_empty())?;
        only_root("tls", !self.tls.absent())?;
        only_root("observability", !self.observability.absent())
    }

    fn references(&self) -> Vec<Reference> {
        let mut found = Reference::all(Kind::HttpMiddleware, "middlewares", &self.middlewares);
        found.extend(Reference::one(Kind::HttpService, "service", &self.service));
        found.extend(Reference::all(Kind::HttpRouter, "parentRefs", &self.parent_refs));
        found.extend(tls_options(self.tls.as_ref()));
        found
    }
}

pub(crate) fn check_priority(priority: Option<i64>) -> Result<(), Invalid> {
    if priority.is_some_and(|priority| priority > MAX_PRIORITY) {
        return Err(Invalid::new(
            "priority",
            format!("must be at most {MAX_PRIORITY}: Traefik keeps the rest for itself"),
        ));
    }
    Ok(())
}

fn tls_options(tls: Option<&RouterTls>) -> Option<Reference> {
    tls.and_then(|tls| Reference::one(Kind::TlsOption, "tls.options", &tls.options))
}

impl Rules for Model {
    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }

    fn references(&self) -> Vec<Reference> {
        let mut found = Reference::all(Kind::HttpMiddleware, "middlewares", &self.middlewares);
        found.extend(tls_options(self.tls.as_ref()));
        found
    }
}

impl Rules for Service {
    fn check(&self) -> Result<(), Invalid> {
        exactly_one(
            "an HTTP service",
            &[
                ("loadBalancer", !self.load_balancer.absent()),
                ("weighted", !self.weighted.absent()),
                ("highestRandomWeight", !self.highest_random_weight.absent()),
                ("mirroring", !self.mirroring.absent()),
                ("failover", !self.failover.absent()),
            ],
        )?;
        if let Some(balancer) = &self.load_balancer {
            balancer.check().map_err(|error| error.under("loadBalancer"))?;
        }
        if let Some(weighted) = &self.weighted {
            check_weights("weighted.services", &weighted.services)?;
            check_sticky(weighted.sticky.as_ref()).map_err(|error| error.under("weighted"))?;
        }
        if let Some(weighted) = &self.highest_random_weight {
            check_weights("highestRandomWeight.services", &weighted.services)?;
        }
        if let Some(mirroring) = &self.mirroring {
            mirroring.check().map_err(|error| error.under("mirroring"))?;
        }
        if let Some(failover) = &self.failover {
            failover.check().map_err(|error| error.under("failover"))?;
        }
        Ok(())
    }

    fn references(&self) -> Vec<Reference> {
        let mut found = Reference::all(Kind::HttpMiddleware, "middlewares", &self.middlewares);
        if let Some(balancer) = &self.load_balancer {
            let path = "loadBalancer.serversTransport";
            found.extend(Reference::one(Kind::HttpServersTransport, path, &balancer.servers_transport));
        }
        if let Some(weighted) = &self.weighted {
            found.extend(references(Kind::HttpService, "weighted.services", &weighted.services));
        }
        if let Some(weighted) = &self.highest_random_weight {
            found.extend(references(Kind::HttpService, "highestRandomWeight.services", &weighted.services));
        }
        if let Some(mirroring) = &self.mirroring {
            found.extend(Reference::one(Kind::HttpService, "mirroring.service", &mirroring.service));
            for (i, mirror) in mirroring.mirrors.iter().enumerate() {
                found.extend(Reference::one(Kind::HttpService, &format!("mirroring.mirrors[{i}].name"), &mirror.name));
            }
        }
        if let Some(failover) = &self.failover {
            found.extend(Reference::one(Kind::HttpService, "failover.service", &failover.service));
            found.extend(Reference::one(Kind::HttpService, "failover.fallback", &failover.fallback));
        }
        found
    }
}

/// Children of a weighted service, whatever the protocol.
pub(crate) fn references(kind: Kind, path: &str, weights: &[Weight]) -> Vec<Reference> {
    let one = |(i, weight): (usize, &Weight)| Reference::one(kind, &format!("{path}[{i}].name"), &weight.name);
    weights.iter().enumerate().filter_map(one).collect()
}

pub(crate) fn check_weights(path: &str, weights: &[Weight]) -> Result<(), Invalid> {
    if weights.is_empty() {
        return Err(Invalid::new(path, "needs at least one service"));
    }
    weights.iter().enumerate().try_for_each(|(i, weight)| {
        let at = format!("{path}[{i}]");
        require("name", &weight.name).and_then(|()| not_negative("weight", weight.weight)).map_err(|e| e.under(&at))
    })
}

pub(crate) fn not_negative(path: &str, number: Option<i64>) -> Result<(), Invalid> {
    if number.is_some_and(i64::is_negative) { Err(Invalid::new(path, "must not be negative")) } else { Ok(()) }
}

pub(crate) fn check_port(path: &str, port: Option<i64>) -> Result<(), Invalid> {
    match port {
        Some(port) if !(1..=65535).contains(&port) => Err(Invalid::new(path, "must be a port, 1 to 65535")),
        _ => Ok(()),
    }
}

/// Traefik takes its own default for these, and only logs it.
pub(crate) fn check_positive(path: &str, duration: Option<Duration>) -> Result<(), Invalid> {
    if duration.is_some_and(|duration| duration <= Duration::default()) {
        return Err(Invalid::new(path, "must be more than 0s"));
    }
    Ok(())
}

fn check_sticky(sticky: Option<&Sticky>) -> Result<(), Invalid> {
    match sticky.and_then(|sticky| sticky.cookie.as_ref()) {
        Some(Cookie { path: Some(path), .. }) if !path.starts_with('/') => {
            Err(Invalid::new("sticky.cookie.path", "must start with a slash"))
        }
        _ => Ok(()),
    }
}

impl LoadBalancer {
    fn check(&self) -> Result<(), Invalid> {
        for (i, server) in self.servers.iter().enumerate() {
            let at = |name| format!("servers[{i}].{name}");
            require(&at("url"), &server.url)?;
            let rest = ["http://", "https://", "h2c://"].iter().find_map(|scheme| server.url.strip_prefix(scheme));
            if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace)) {
                return Err(Invalid::new(at("url"), "must be a URL such as http://10.0.0.1:8080 (or https, h2c)"));
            }
            not_negative(&at("weight"), server.weight)?;
        }
        check_sticky(self.sticky.as_ref())?;
        if let Some(check) = &self.health_check {
            check.check().map_err(|error| error.under("healthCheck"))?;
        }
        if let Some(check) = &self.passive_health_check {
            check_positive("passiveHealthCheck.failureWindow", check.failure_window)?;
            not_negative("passiveHealthCheck.maxFailedAttempts", check.max_failed_attempts)?;
        }
        Ok(())
    }
}

impl HealthCheck {
    fn check(&self) -> Result<(), Invalid> {
        if self.path.contains("://") {
            return Err(Invalid::new("path", "must be a path such as /health, without scheme and host"));
        }
        check_port("port", self.port)?;
        check_status("status", self.status)?;
        check_positive("interval", self.interval)?;
        check_positive("unhealthyInterval", self.unhealthy_interval)?;
        check_positive("timeout", self.timeout)
    }
}

impl Mirroring {
    fn check(&self) -> Result<(), Invalid> {
        require("service", &self.service)?;
        for (i, mirror) in self.mirrors.iter().enumerate() {
            require(&format!("mirrors[{i}].name"), &mirror.name)?;
            if mirror.percent.is_some_and(|percent| !(0..=100).contains(&percent)) {
                return Err(Invalid::new(format!("mirrors[{i}].percent"), "must be 0 to 100"));
            }
        }
        Ok(())
    }
}

impl Failover {
    fn check(&self) -> Result<(), Invalid> {
        require("service", &self.service)?;
        require("fallback", &self.fallback)?;
        self.errors.as_ref().map_or(Ok(()), |errors| check_ranges("errors.status", &errors.status))
    }
}

impl Rules for ServersTransport {
    fn check(&self) -> Result<(), Invalid> {
        if self.min_version.is_some() && self.max_version.is_none() {
            // 3.7.15 compares with zero, logs an error, and connects with none of these options
            return Err(Invalid::new(
                "maxVersion",
                "is required with minVersion: Traefik drops all TLS options otherwise",
            ));
        }
        check_versions(self.min_version, self.max_version)?;
        check_ciphers(&self.cipher_suites)?;
        CertAndKey::check_all("certificates", &self.certificates)?;
        let tls = Self {
            spiffe: None,
            max_idle_conns_per_host: None,
            forwarding_timeouts: None,
            disable_http2: false,
            ..self.clone()
        };
        if self.spiffe.is_some() && tls != Self::default() {
            return Err(Invalid::new("spiffe", "excludes all other TLS options"));
        }
        Ok(())
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
}
