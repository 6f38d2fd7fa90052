//! The pieces that several rows share. Each exists only while a row uses it, so the bytes depend on the rows alone.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;

use super::{
    Section, Settings, access,
    middleware::Middleware,
    piece::{Piece, encode},
    service,
};

pub(super) const INTERNAL: &str = "charliehub-internal";
pub(super) const SELF: &str = "charliehub-self";
pub(super) const CLOSED: &str = "charliehub-closed";
pub(super) const AUTHELIA: &str = "authelia";

/// What can be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shared {
    /// Who is internal.
    HttpInternal,
    TcpInternal,
    /// The single sign-on.
    Authelia,
    /// Us, for the pages of maintenance.
    Myself,
    /// What a closed router of a fragment leads to.
    HttpClosed,
    TcpClosed,
}

impl Shared {
    fn place(self) -> (Section, &'static str) {
        match self {
            Self::HttpInternal => (Section::HttpMiddlewares, INTERNAL),
            Self::TcpInternal => (Section::TcpMiddlewares, INTERNAL),
            Self::Authelia => (Section::HttpMiddlewares, AUTHELIA),
            Self::Myself => (Section::HttpServices, SELF),
            Self::HttpClosed => (Section::HttpServices, CLOSED),
            Self::TcpClosed => (Section::TcpServices, CLOSED),
        }
    }

    pub(super) fn piece(self, settings: &Settings) -> Piece {
        let (section, name) = self.place();
        let text = match self {
            Self::HttpInternal | Self::TcpInternal => {
                encode(&Middleware::IpAllowList { source_range: &access::internal(settings) })
            }
            Self::Authelia => {
                let auth = settings.forward_auth.as_ref();
                encode(&Middleware::ForwardAuth {
                    address: auth.map_or("", |auth| &auth.address),
                    auth_response_headers: auth.map_or(&[], |auth| &auth.auth_response_headers),
                    trust_forward_header: false,
                })
            }
            Self::Myself => encode(
                &json!({"loadBalancer": {"servers": [{"url": settings.self_url.as_deref().unwrap_or_default()}]}}),
            ),
            Self::HttpClosed | Self::TcpClosed => service::CLOSED.into(),
        };
        Piece { section, name: Arc::from(name), text }
    }
}

/// Who uses what, counted.
#[derive(Debug, Default)]
pub(super) struct Uses(BTreeMap<Shared, usize>);

impl Uses {
    pub(super) fn any(&self, shared: Shared) -> bool {
        self.0.contains_key(&shared)
    }

    /// True when this is the first use.
    pub(super) fn add(&mut self, shared: Shared) -> bool {
        let count = self.0.entry(shared).or_default();
        *count += 1;
        *count == 1
    }

    /// True when this was the last use.
    pub(super) fn remove(&mut self, shared: Shared) -> bool {
        let Some(count) = self.0.get_mut(&shared) else { return false };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&shared);
        }
        !self.0.contains_key(&shared)
    }
}
