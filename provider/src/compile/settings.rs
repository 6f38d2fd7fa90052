//! What the operator told us about Traefik and the networks, as far as compiling needs it.

use std::collections::BTreeSet;

use ipnet::IpNet;

/// `[compile]` and `[access]` of the configuration, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The entry points that Traefik has; `None`: not checked.
    pub entry_points: Option<BTreeSet<String>>,
    /// The certificate resolvers that Traefik has; `None`: not checked.
    pub cert_resolvers: Option<BTreeSet<String>>,
    /// The resolver of a row that names none.
    pub default_resolver: Option<String>,
    /// Paths of certificate and key, as Traefik sees them.
    pub default_certificate: Option<(String, String)>,
    /// Us, as Traefik sees us: `http://127.0.0.1:8001`.
    pub self_url: Option<String>,
    pub forward_auth: Option<ForwardAuth>,
    /// Who is internal, beside the networks of the sites; none of both: rows of that tier answer 503.
    pub internal_networks: Vec<IpNet>,
    pub coalesce: Coalesce,
    /// Where rows share routers, those that cannot go below parents, which Traefik has from 3.6 on.
    pub nested: bool,
}

/// Whether rows that are alike share routers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coalesce {
    /// From some number of rows on.
    Auto,
    #[default]
    Off,
}

/// The single sign-on that `auth_required` asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardAuth {
    /// The URL that Traefik asks about each request.
    pub address: String,
    /// The headers of its answer that the backend gets.
    pub auth_response_headers: Vec<String>,
}
