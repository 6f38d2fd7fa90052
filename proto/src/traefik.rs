//! Traefik v3.7's dynamic configuration, typed: what may be in a body that its HTTP provider polls, and nothing else.
//!
//! One mistake anywhere makes Traefik refuse the whole body and stay with what it has. So a fragment that someone wrote
//! goes through [`piece`] before it may join: it is typed, a misspelt field is named with the one that was meant, and
//! what Traefik would refuse, or take and then disable, is refused here. What is written by [`to_json`] is canonical:
//! the same piece is the same bytes. Names are not judged, nor whether a reference leads anywhere: that takes all the
//! pieces, see [`Piece::references`].
//!
//! Taken from Traefik's `pkg/config/dynamic` and `pkg/tls`; `tests/every_option.json` has each option, which a story proves.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

mod duration;
pub mod http;
mod invalid;
mod json;
mod middleware;
mod options;
mod plugin;
pub mod rule;
pub mod since;
pub mod tcp;
pub mod tls;
pub mod udp;

pub use self::{
    duration::{Duration, NotADuration},
    invalid::Invalid,
    json::to_json,
    plugin::Setting,
};

options::options! {
    /// A whole body. Without anything in it, it is `{}`, which takes every route away from Traefik.
    pub struct Configuration {
        pub http: http::Http,
        pub tcp: tcp::Tcp,
        pub udp: udp::Udp,
        pub tls: tls::Tls,
    }
}

/// What a piece must keep to beyond its types.
trait Rules {
    fn check(&self) -> Result<(), Invalid>;

    fn references(&self) -> Vec<Reference>;
}

/// The kinds of fragments: their name in the table, and what their body is.
macro_rules! kinds {
    ($($variant:ident($type:ty) = $name:literal,)*) => {
        /// What a fragment is: its section of the configuration.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $(#[serde(rename = $name)] $variant,)*
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As in the database: `http.router`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        /// One fragment's body, typed and checked.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        #[expect(clippy::large_enum_variant, reason = "short-lived: becomes bytes or a field of the configuration")]
        pub enum Piece {
            $($variant($type),)*
        }

        impl Piece {
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$variant(_) => Kind::$variant,)*
                }
            }

            fn rules(&self) -> &dyn Rules {
                match self {
                    $(Self::$variant(piece) => piece,)*
                }
            }
        }

        /// Types and checks the body of a fragment.
        pub fn piece(kind: Kind, body: &Value) -> Result<Piece, Invalid> {
            match kind {
                $(Kind::$variant => typed(body).map(Piece::$variant),)*
            }
        }
    };
}

kinds! {
    HttpRouter(http::Router) = "http.router",
    HttpService(http::Service) = "http.service",
    HttpMiddleware(http::Middleware) = "http.middleware",
    HttpServersTransport(http::ServersTransport) = "http.serversTransport",
    HttpModel(http::Model) = "http.model",
    TcpRouter(tcp::Router) = "tcp.router",
    TcpService(tcp::Service) = "tcp.service",
    TcpMiddleware(tcp::Middleware) = "tcp.middleware",
    TcpServersTransport(tcp::ServersTransport) = "tcp.serversTransport",
    UdpRouter(udp::Router) = "udp.router",
    UdpService(udp::Service) = "udp.service",
    TlsOption(tls::Options) = "tls.option",
    TlsStore(tls::Store) = "tls.store",
    TlsCertificate(tls::Certificate) = "tls.certificate",
}

fn typed<T: Rules + Serialize + DeserializeOwned>(body: &Value) -> Result<T, Invalid> {
    if !body.is_object() {
        return Err(Invalid::new("", "must be an object"));
    }
    json::decodable(body)?;
    let typed: T = invalid::typed(body)?;
    let written = serde_json::to_value(&typed).map_err(|error| Invalid::new("", error.to_string()))?;
    json::nothing_lost(body, &written)?;
    typed.check()?;
    Ok(typed)
}

impl Piece {
    /// Canonical minimal JSON.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// The other pieces that this one names. Names with a provider (`auth@file`) are included, as they stand.
    pub fn references(&self) -> Vec<Reference> {
        self.rules().references()
    }
}

impl Configuration {
    /// Puts a piece where Traefik looks for it, instead of one with this name. Certificates have no name.
    pub fn insert(&mut self, name: String, piece: Piece) {
        match piece {
            Piece::HttpRouter(router) => drop(self.http.routers.insert(name, router)),
            Piece::HttpService(service) => drop(self.http.services.insert(name, service)),
            Piece::HttpMiddleware(middleware) => drop(self.http.middlewares.insert(name, middleware)),
            Piece::HttpServersTransport(transport) => drop(self.http.servers_transports.insert(name, transport)),
            Piece::HttpModel(model) => drop(self.http.models.insert(name, model)),
            Piece::TcpRouter(router) => drop(self.tcp.routers.insert(name, router)),
            Piece::TcpService(service) => drop(self.tcp.services.insert(name, service)),
            Piece::TcpMiddleware(middleware) => drop(self.tcp.middlewares.insert(name, middleware)),
            Piece::TcpServersTransport(transport) => drop(self.tcp.servers_transports.insert(name, transport)),
            Piece::UdpRouter(router) => drop(self.udp.routers.insert(name, router)),
            Piece::UdpService(service) => drop(self.udp.services.insert(name, service)),
            Piece::TlsOption(options) => drop(self.tls.options.insert(name, options)),
            Piece::TlsStore(store) => drop(self.tls.stores.insert(name, store)),
            Piece::TlsCertificate(certificate) => self.tls.certificates.push(certificate),
        }
    }
}

/// That a piece names another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What the other must be.
    pub kind: Kind,
    pub name: String,
    /// Where it is named: `weighted.services[1].name`
    pub path: String,
}

impl Reference {
    /// None where nothing is named.
    fn one(kind: Kind, path: &str, name: &str) -> Option<Self> {
        (!name.is_empty()).then(|| Self { kind, name: name.to_owned(), path: path.to_owned() })
    }

    fn all(kind: Kind, path: &str, names: &[String]) -> Vec<Self> {
        names.iter().enumerate().filter_map(|(i, name)| Self::one(kind, &format!("{path}[{i}]"), name)).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no kind of fragment is called {0:?}; they are: {known}", known = Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownKind(String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.iter().copied().find(|kind| kind.name() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests;
