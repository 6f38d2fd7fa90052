//! A row in its place becomes a router, with the middlewares and the service behind it.
//!
//! The order of the middlewares is that of what they protect: who may come in, how often, as whom, then the row's own.
//! A row that does not compile keeps its place and answers 503 (tcp: the connection is closed).

use std::sync::Arc;

use charliehub_proto::domain::{Domain, Protocol, ServiceType, Status, TlsMode};
use uuid::Uuid;

use super::{
    Route, Section, Settings, State,
    access::{Access, access},
    middleware,
    output::{Head, Name, Output},
    piece::Piece,
    place::Spot,
    service,
    shared::{AUTHELIA, INTERNAL, Shared},
    syntax,
    tls::{RouterTls, router_tls},
};

/// Answers a redirect itself; nothing reaches it.
const NOOP: &str = "noop@internal";

/// Compiles the row at `spot`, but for its routers: their heads are told beside it, in their order. `live` tells whether a
/// fragment of that name is in the configuration.
pub(super) fn compile(
    id: Uuid,
    row: Option<&Domain>,
    spot: &Spot,
    trouble: Option<String>,
    settings: &Settings,
    live: &dyn Fn(&Name) -> bool,
) -> (Output, Vec<Head>) {
    let mut draft = Draft {
        settings,
        live,
        spot,
        pieces: Vec::new(),
        shared: Vec::new(),
        wants: Vec::new(),
        chain: Vec::new(),
        heads: Vec::new(),
    };
    let mut warnings = Vec::new();
    let tls = row.map_or(Ok(None), |row| router_tls(row, &spot.host, settings, &mut warnings));
    let done = match (trouble.or_else(|| spot.fault.clone()), row, &tls) {
        (Some(reason), _, _) => Err(reason),
        (None, None, _) => Err("the row cannot be read".to_owned()),
        (None, Some(_), Err(reason)) => Err(reason.clone()),
        (None, Some(row), Ok(tls)) => draft.row(id, row, tls.clone()),
    };
    let (routers, state) = match done {
        Ok(state) => (vec![(draft.routers(), Arc::clone(&spot.name))], state),
        Err(reason) => {
            draft.pieces.clear();
            draft.shared.clear();
            (draft.close(tls.ok().flatten()), State::Closed { reason })
        }
    };
    let route = Route { protocol: Some(spot.protocol), routers, state, warnings };
    (Output { route, pieces: draft.pieces, shared: draft.shared, wants: draft.wants, parent: None }, draft.heads)
}

/// What has been compiled of a row so far.
struct Draft<'a> {
    settings: &'a Settings,
    live: &'a dyn Fn(&Name) -> bool,
    spot: &'a Spot,
    pieces: Vec<Piece>,
    shared: Vec<Shared>,
    wants: Vec<Name>,
    /// Names of middlewares, in order.
    chain: Vec<Arc<str>>,
    heads: Vec<Head>,
}

impl Draft<'_> {
    /// All of a row that is as it should be; the error names the column and the remedy.
    fn row(&mut self, id: Uuid, row: &Domain, tls: Option<RouterTls>) -> Result<State, String> {
        check(row)?;
        self.allow(row)?;
        let name = Arc::clone(&self.spot.name);
        if row.status == Status::Maintenance {
            if self.settings.self_url.is_some() {
                self.own(middleware::maintenance(&name, id));
                self.shared.push(Shared::Myself);
            }
            self.closed_service();
            self.router(&name, tls);
            return Ok(State::Maintenance);
        }
        if let Some(limit) = &row.rate_limit {
            self.own(middleware::rate_limit(&name, limit)?);
        }
        if row.auth_required {
            self.auth()?;
        }
        let section = self.section(Section::HttpMiddlewares, Section::TcpMiddlewares);
        for name in &row.middlewares {
            if self.refer("middlewares", section, name)? == Some(Shared::Authelia) {
                self.auth()?;
            } else if !self.chain.iter().any(|other| **other == **name) {
                self.chain.push(name.as_str().into());
            }
        }
        match row.service_type {
            ServiceType::Proxy => {
                self.pieces.extend(service::service(row, &name)?);
                self.router(&name, tls);
            }
            ServiceType::Redirect => {
                self.own(middleware::redirect(&name, row)?);
                self.router(NOOP, tls);
            }
            ServiceType::Reference => {
                let service = row.service_ref.as_deref().ok_or("service_ref: is missing; name a service")?;
                self.refer("service_ref", Section::HttpServices, service)?;
                self.router(service, tls);
            }
        }
        Ok(State::Live)
    }

    fn section(&self, http: Section, tcp: Section) -> Section {
        match self.spot.protocol {
            Protocol::Http => http,
            Protocol::Tcp => tcp,
        }
    }

    fn routers(&self) -> Section {
        self.section(Section::HttpRouters, Section::TcpRouters)
    }

    /// A middleware of the row's own.
    fn own(&mut self, piece: Piece) {
        self.chain.push(Arc::clone(&piece.name));
        self.pieces.push(piece);
    }

    /// Who may come in: always the first.
    fn allow(&mut self, row: &Domain) -> Result<(), String> {
        match access(row, self.settings)? {
            Access::Everybody => {}
            Access::Internal => {
                self.chain.push(INTERNAL.into());
                self.shared.push(match self.spot.protocol {
                    Protocol::Http => Shared::HttpInternal,
                    Protocol::Tcp => Shared::TcpInternal,
                });
            }
            Access::Listed(networks) => {
                let section = self.section(Section::HttpMiddlewares, Section::TcpMiddlewares);
                self.own(middleware::allow(section, &self.spot.name, &networks));
            }
        }
        Ok(())
    }

    fn auth(&mut self) -> Result<(), String> {
        if self.settings.forward_auth.is_none() {
            return Err("auth_required: nobody to ask; set [access] forward_auth".to_owned());
        }
        if !self.shared.contains(&Shared::Authelia) {
            self.shared.push(Shared::Authelia);
            self.chain.push(AUTHELIA.into());
        }
        Ok(())
    }

    /// Makes sure that what the row names is there: Traefik refuses the whole router otherwise.
    fn refer(&mut self, column: &str, section: Section, name: &str) -> Result<Option<Shared>, String> {
        if !syntax::is_name(name) {
            return Err(format!("{column}: has what is not a name; letters, digits, . _ and -"));
        }
        match own_name(name) {
            None => Ok(None),
            Some(AUTHELIA) if section == Section::HttpMiddlewares && self.settings.forward_auth.is_some() => {
                Ok(Some(Shared::Authelia))
            }
            Some(bare) => {
                let wanted = (section, Arc::from(bare));
                let found = (self.live)(&wanted);
                self.wants.push(wanted);
                if found {
                    return Ok(None);
                }
                let (protocol, kind) = section.path();
                let kind = kind.trim_end_matches('s');
                Err(format!(
                    "{column}: there is no fragment {protocol}.{kind}/{bare} that is enabled and valid; add it"
                ))
            }
        }
    }

    /// The live router.
    fn router(&mut self, service: &str, tls: Option<RouterTls>) {
        let Some(entry) = self.spot.entry_points.first() else { return };
        self.heads.push(Head {
            entry_point: Arc::clone(&entry.name),
            middlewares: std::mem::take(&mut self.chain),
            priority: self.spot.priority,
            service: service.into(),
            tls,
        });
    }

    fn closed_service(&mut self) {
        let section = self.section(Section::HttpServices, Section::TcpServices);
        self.pieces.push(Piece { section, name: Arc::clone(&self.spot.name), text: service::CLOSED.into() });
    }

    /// Holds the place on every entry point that requests can come by. The certificate stays as it was.
    fn close(&mut self, tls: Option<RouterTls>) -> Vec<Name> {
        let spot = self.spot;
        let passthrough = spot.protocol == Protocol::Tcp && spot.tls == Some(TlsMode::Passthrough);
        let tls = tls.unwrap_or_else(|| if passthrough { RouterTls::passthrough() } else { RouterTls::default() });
        let mut routers = Vec::with_capacity(spot.entry_points.len());
        for (index, entry) in spot.entry_points.iter().enumerate() {
            self.heads.push(Head {
                entry_point: Arc::clone(&entry.name),
                middlewares: Vec::new(),
                priority: spot.priority,
                service: Arc::clone(&spot.name),
                tls: entry.tls.then(|| tls.clone()),
            });
            let name =
                if index == 0 { Arc::clone(&spot.name) } else { format!("{}[{}]", spot.name, entry.name).into() };
            routers.push((self.routers(), name));
        }
        self.closed_service();
        routers
    }
}

/// What a reference names among our own pieces: `a` or `a@http`, the name of Traefik's provider that we are.
pub(super) fn own_name(reference: &str) -> Option<&str> {
    match reference.split_once('@') {
        None => Some(reference),
        Some((bare, "http")) => Some(bare),
        Some(_) => None,
    }
}

/// What the database would have refused, as far as it would open something or be ignored in silence.
fn check(row: &Domain) -> Result<(), String> {
    let refuse = |reason: &str| Err(reason.to_owned());
    let tcp = row.protocol == Protocol::Tcp;
    if row.auth_required && (tcp || !matches!(row.tls_mode, TlsMode::Acme | TlsMode::Default)) {
        return refuse("auth_required: needs protocol http and tls_mode acme or default; change them");
    }
    if tcp && row.status == Status::Maintenance {
        return refuse("status: maintenance is for http rows; use disabled");
    }
    if tcp && row.service_type != ServiceType::Proxy {
        return refuse("service_type: a tcp row is a proxy; correct it");
    }
    if tcp && (row.rate_limit.is_some() || row.sticky.is_some() || row.health_check.is_some()) {
        return refuse("protocol: a tcp row has no rate_limit, sticky or health_check; remove them");
    }
    if (row.service_type == ServiceType::Redirect) != row.redirect_to.is_some() {
        return refuse("redirect_to: goes together with service_type redirect; complete or remove it");
    }
    if (row.service_type == ServiceType::Reference) != row.service_ref.is_some() {
        return refuse("service_ref: goes together with service_type reference; complete or remove it");
    }
    if row.service_type != ServiceType::Proxy && (row.backend_host.is_some() || !row.backends.is_empty()) {
        return refuse("backend_host: only a proxy has a backend; remove it and backends, or change service_type");
    }
    Ok(())
}
