//! Which hosts keep routers of their own because of what fragments say of them.
//!
//! Traefik finds the hosts of a `Host` before a request is there: which TLS options a connection gets, and whether it is
//! for http or for a tcp router, depends on them. It does not find those of a regular expression. Where a fragment makes
//! that a difference, rows stay as they are.

use std::{collections::BTreeSet, sync::Arc};

use charliehub_proto::traefik::{
    self,
    rule::{self, Dialect, Name},
};

#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::compile) struct Apart {
    pub(in crate::compile) hosts: BTreeSet<Arc<str>>,
    /// All that are reached by TLS.
    pub(in crate::compile) secure: bool,
    pub(in crate::compile) all: bool,
}

impl Apart {
    /// True for a host, reached by TLS or not, that keeps its own router.
    pub(in crate::compile) fn holds(&self, host: &str, secure: bool) -> bool {
        self.all || secure && (self.secure || self.hosts.contains(host))
    }

    /// Adds what this fragment is about.
    pub(in crate::compile) fn add(&mut self, piece: &traefik::Piece) {
        match piece {
            traefik::Piece::HttpRouter(router) => {
                let options = router.tls.as_ref().is_some_and(|tls| !matches!(&*tls.options, "" | "default"));
                if options && let Ok(rule) = rule::parse(&router.rule, Dialect::http(router.rule_syntax)) {
                    let hosts =
                        rule.matchers().into_iter().filter(|one| matches!(one.name, Name::Host | Name::HostHeader));
                    self.hosts.extend(hosts.flat_map(|one| &one.values).map(|host| host.to_lowercase().into()));
                }
            }
            traefik::Piece::TcpRouter(router) if router.tls.is_some() => {
                // Traefik asks http routers that name a host first, and those that name none last.
                let named = rule::parse(&router.rule, Dialect::tcp(router.rule_syntax)).ok().and_then(|rule| {
                    let names = rule.matchers().into_iter().filter(|one| one.name != Name::ClientIp);
                    let hosts = names.map(|one| (one.name == Name::HostSni).then_some(&one.values));
                    let hosts: Vec<_> = hosts.collect::<Option<Vec<_>>>()?.into_iter().flatten().cloned().collect();
                    (!hosts.is_empty() && !hosts.iter().any(|host| host.contains('*'))).then_some(hosts)
                });
                match named {
                    Some(hosts) => self.hosts.extend(hosts.iter().map(|host| host.to_lowercase().into())),
                    None => self.secure = true,
                }
            }
            // What it adds to each router may count.
            traefik::Piece::HttpModel(model) => self.all |= !model.middlewares.is_empty(),
            traefik::Piece::TcpRouter(_)
            | traefik::Piece::HttpService(_)
            | traefik::Piece::HttpMiddleware(_)
            | traefik::Piece::HttpServersTransport(_)
            | traefik::Piece::TcpService(_)
            | traefik::Piece::TcpMiddleware(_)
            | traefik::Piece::TcpServersTransport(_)
            | traefik::Piece::UdpRouter(_)
            | traefik::Piece::UdpService(_)
            | traefik::Piece::TlsOption(_)
            | traefik::Piece::TlsStore(_)
            | traefik::Piece::TlsCertificate(_) => {}
        }
    }
}

/// Whether a middleware treats a request whatever went before: then it is the same for several rows in one router.
pub(in crate::compile) fn forgets(middleware: &traefik::http::Middleware) -> bool {
    middleware.rate_limit.is_none()
        && middleware.in_flight_req.is_none()
        && middleware.circuit_breaker.is_none()
        && middleware.plugin.is_empty()
}
