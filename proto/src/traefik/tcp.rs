//! TCP: routers, services, middlewares and the transports to servers.

use std::collections::BTreeMap;

use super::{
    Duration, Invalid, Kind, Reference, Rules,
    http::{
        ReportHealth, RuleSyntax, Spiffe, Weight, check_networks, check_port, check_positive, check_priority,
        check_weights, not_negative, references,
    },
    invalid::{exactly_one, require},
    options::{Field, options},
    rule,
    tls::{CertAndKey, Domain},
};

options! {
    /// The `tcp` section.
    pub struct Tcp {
        pub routers: BTreeMap<String, Router>,
        pub services: BTreeMap<String, Service>,
        pub middlewares: BTreeMap<String, Middleware>,
        pub servers_transports: BTreeMap<String, ServersTransport>,
    }

    /// Needs a `rule` and a `service`. Without TLS, the rule has to be for every name: HostSNI(`*`).
    pub struct Router {
        pub entry_points: Vec<String>,
        pub middlewares: Vec<String>,
        pub service: String,
        pub rule: String,
        /// Deprecated by Traefik.
        pub rule_syntax: Option<RuleSyntax>,
        /// Higher goes first. Without one, the length of the rule.
        pub priority: Option<i64>,
        pub tls: Option<RouterTls>,
    }

    /// Empty: TLS with the default options and certificate, ended here.
    pub struct RouterTls [may_be_empty] {
        /// TLS goes on to the server as it is.
        pub passthrough: bool,
        pub options: String,
        pub cert_resolver: String,
        pub domains: Vec<Domain>,
    }

    /// Of exactly one kind.
    pub struct Service {
        pub load_balancer: Option<LoadBalancer>,
        pub weighted: Option<Weighted>,
    }

    pub struct LoadBalancer {
        pub servers: Vec<Server>,
        pub servers_transport: String,
        /// Deprecated by Traefik: a servers transport has it.
        pub proxy_protocol: Option<ProxyProtocol>,
        /// In milliseconds. Deprecated by Traefik: a servers transport has it.
        pub termination_delay: Option<i64>,
        pub health_check: Option<HealthCheck>,
    }

    pub struct Server {
        /// Host and port.
        pub address: String,
        pub tls: bool,
    }

    /// Empty: version 2.
    pub struct ProxyProtocol [may_be_empty] {
        pub version: Option<i64>,
    }

    /// Empty: connects every 30 s.
    pub struct HealthCheck [may_be_empty] {
        pub port: Option<i64>,
        pub send: String,
        pub expect: String,
        pub interval: Option<Duration>,
        pub unhealthy_interval: Option<Duration>,
        pub timeout: Option<Duration>,
    }

    pub struct Weighted {
        pub services: Vec<Weight>,
        pub health_check: Option<ReportHealth>,
    }

    /// Of exactly one kind.
    pub struct Middleware {
        pub in_flight_conn: Option<InFlightConn>,
        /// Deprecated by Traefik: `ip_allow_list`.
        pub ip_white_list: Option<IpList>,
        pub ip_allow_list: Option<IpList>,
    }

    /// Connections at a time, by address.
    pub struct InFlightConn {
        pub amount: Option<i64>,
    }

    pub struct IpList {
        /// Addresses and networks.
        pub source_range: Vec<String>,
    }

    pub struct ServersTransport {
        /// Negative: none.
        pub dial_keep_alive: Option<Duration>,
        pub dial_timeout: Option<Duration>,
        pub proxy_protocol: Option<ProxyProtocol>,
        /// Negative: for ever.
        pub termination_delay: Option<Duration>,
        pub tls: Option<ClientTls>,
    }

    /// Empty: TLS, verified as the system does.
    pub struct ClientTls [may_be_empty] {
        pub server_name: String,
        pub insecure_skip_verify: bool,
        /// Files or PEM.
        #[serde(rename = "rootCAs")]
        pub root_cas: Vec<String>,
        pub certificates: Vec<CertAndKey>,
        #[serde(rename = "peerCertURI")]
        pub peer_cert_uri: String,
        pub spiffe: Option<Spiffe>,
    }
}

/// Host and port, as `10.0.0.1:1883`, `[fd00::1]:1883`, `mqtt.lan:1883`.
pub(crate) fn check_address(path: &str, address: &str) -> Result<(), Invalid> {
    let wrong = match address.rsplit_once(':') {
        Some((host, port)) => {
            let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
            host.contains([' ', '/']) || bare_ipv6 || port.parse::<u16>().is_err()
        }
        None => true,
    };
    if wrong { Err(Invalid::new(path, "must be host and port, such as 10.0.0.1:1883")) } else { Ok(()) }
}

fn check_proxy_protocol(path: &str, given: Option<&ProxyProtocol>) -> Result<(), Invalid> {
    match given.and_then(|given| given.version) {
        None | Some(1 | 2) => Ok(()),
        Some(_) => Err(Invalid::new(format!("{path}.version"), "must be 1 or 2")),
    }
}

impl Rules for Router {
    fn check(&self) -> Result<(), Invalid> {
        require("rule", &self.rule)?;
        require("service", &self.service)?;
        rule::check_tcp(&self.rule, self.rule_syntax, !self.tls.absent())?;
        check_priority(self.priority)
    }

    fn references(&self) -> Vec<Reference> {
        let mut found = Reference::all(Kind::TcpMiddleware, "middlewares", &self.middlewares);
        found.extend(Reference::one(Kind::TcpService, "service", &self.service));
        found.extend(self.tls.iter().filter_map(|tls| Reference::one(Kind::TlsOption, "tls.options", &tls.options)));
        found
    }
}

impl Rules for Service {
    fn check(&self) -> Result<(), Invalid> {
        let kinds = [("loadBalancer", !self.load_balancer.absent()), ("weighted", !self.weighted.absent())];
        exactly_one("a TCP service", &kinds)?;
        if let Some(weighted) = &self.weighted {
            return check_weights("weighted.services", &weighted.services);
        }
        self.load_balancer.as_ref().map_or(Ok(()), |balancer| balancer.check().map_err(|e| e.under("loadBalancer")))
    }

    fn references(&self) -> Vec<Reference> {
        let weights = self.weighted.as_ref().map_or(&[][..], |weighted| &weighted.services);
        let mut found = references(Kind::TcpService, "weighted.services", weights);
        let transport = self.load_balancer.as_ref().map_or("", |balancer| &balancer.servers_transport);
        found.extend(Reference::one(Kind::TcpServersTransport, "loadBalancer.serversTransport", transport));
        found
    }
}

impl LoadBalancer {
    fn check(&self) -> Result<(), Invalid> {
        for (i, server) in self.servers.iter().enumerate() {
            check_address(&format!("servers[{i}].address"), &server.address)?;
        }
        check_proxy_protocol("proxyProtocol", self.proxy_protocol.as_ref())?;
        let Some(check) = &self.health_check else { return Ok(()) };
        check_port("healthCheck.port", check.port)?;
        check_positive("healthCheck.interval", check.interval)?;
        check_positive("healthCheck.unhealthyInterval", check.unhealthy_interval)?;
        check_positive("healthCheck.timeout", check.timeout)
    }
}

impl Rules for Middleware {
    fn check(&self) -> Result<(), Invalid> {
        exactly_one(
            "a TCP middleware",
            &[
                ("inFlightConn", !self.in_flight_conn.absent()),
                ("ipWhiteList", !self.ip_white_list.absent()),
                ("ipAllowList", !self.ip_allow_list.absent()),
            ],
        )?;
        for (path, list) in [("ipWhiteList", &self.ip_white_list), ("ipAllowList", &self.ip_allow_list)] {
            if let Some(list) = list {
                check_networks(&format!("{path}.sourceRange"), &list.source_range)?;
            }
        }
        not_negative("inFlightConn.amount", self.in_flight_conn.as_ref().and_then(|limit| limit.amount))
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
}

impl Rules for ServersTransport {
    fn check(&self) -> Result<(), Invalid> {
        check_proxy_protocol("proxyProtocol", self.proxy_protocol.as_ref())?;
        let Some(tls) = &self.tls else { return Ok(()) };
        CertAndKey::check_all("tls.certificates", &tls.certificates)?;
        let without_spiffe = ClientTls { spiffe: None, ..tls.clone() };
        if tls.spiffe.is_some() && without_spiffe != ClientTls::default() {
            return Err(Invalid::new("tls.spiffe", "excludes all other TLS options"));
        }
        Ok(())
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
}
