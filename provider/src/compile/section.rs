//! The places of Traefik's dynamic configuration that a piece can be in.

use std::{collections::BTreeMap, sync::Arc};

use charliehub_proto::traefik::Kind;

/// One map of the dynamic configuration, named by its path in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    HttpRouters,
    HttpServices,
    HttpMiddlewares,
    HttpServersTransports,
    HttpModels,
    TcpRouters,
    TcpServices,
    TcpMiddlewares,
    TcpServersTransports,
    UdpRouters,
    UdpServices,
    /// A list in Traefik: the order is that of the names, which are not written.
    TlsCertificates,
    TlsOptions,
    TlsStores,
}

/// Every object of the configuration: its JSON text by section and name. No inner map is ever empty: Traefik refuses a
/// whole body for one.
pub type Pieces = BTreeMap<Section, BTreeMap<Arc<str>, Arc<str>>>;

impl Section {
    pub(super) const ALL: [Self; 14] = [
        Self::HttpRouters,
        Self::HttpServices,
        Self::HttpMiddlewares,
        Self::HttpServersTransports,
        Self::HttpModels,
        Self::TcpRouters,
        Self::TcpServices,
        Self::TcpMiddlewares,
        Self::TcpServersTransports,
        Self::UdpRouters,
        Self::UdpServices,
        Self::TlsCertificates,
        Self::TlsOptions,
        Self::TlsStores,
    ];

    /// The keys that lead to it: `http`, `routers`.
    pub fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::HttpRouters => ("http", "routers"),
            Self::HttpServices => ("http", "services"),
            Self::HttpMiddlewares => ("http", "middlewares"),
            Self::HttpServersTransports => ("http", "serversTransports"),
            Self::HttpModels => ("http", "models"),
            Self::TcpRouters => ("tcp", "routers"),
            Self::TcpServices => ("tcp", "services"),
            Self::TcpMiddlewares => ("tcp", "middlewares"),
            Self::TcpServersTransports => ("tcp", "serversTransports"),
            Self::UdpRouters => ("udp", "routers"),
            Self::UdpServices => ("udp", "services"),
            Self::TlsCertificates => ("tls", "certificates"),
            Self::TlsOptions => ("tls", "options"),
            Self::TlsStores => ("tls", "stores"),
        }
    }

    /// True for the three kinds of routers.
    pub fn is_router(self) -> bool {
        matches!(self, Self::HttpRouters | Self::TcpRouters | Self::UdpRouters)
    }
}

impl From<Kind> for Section {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::HttpRouter => Self::HttpRouters,
            Kind::HttpService => Self::HttpServices,
            Kind::HttpMiddleware => Self::HttpMiddlewares,
            Kind::HttpServersTransport => Self::HttpServersTransports,
            Kind::HttpModel => Self::HttpModels,
            Kind::TcpRouter => Self::TcpRouters,
            Kind::TcpService => Self::TcpServices,
            Kind::TcpMiddleware => Self::TcpMiddlewares,
            Kind::TcpServersTransport => Self::TcpServersTransports,
            Kind::UdpRouter => Self::UdpRouters,
            Kind::UdpService => Self::UdpServices,
            Kind::TlsCertificate => Self::TlsCertificates,
            Kind::TlsOption => Self::TlsOptions,
            Kind::TlsStore => Self::TlsStores,
        }
    }
}
