//! What name servers say: of one that is asked, and of those that speak for a name.
//!
//! [`Asker`] sends one message to one server and waits for its answer. [`Round`] finds, by recursive resolvers, in which
//! [`Zone`] a name is and which servers have it, and asks each of those: what they say with authority is what counts, never
//! what a resolver has kept. Messages are written and read by `hickory-proto`, which is [`wire`] here.

mod ask;
mod public;
mod resolvers;
mod round;
#[cfg(feature = "tsig")]
pub mod update;

pub use hickory_proto as wire;
use hickory_proto::{op::ResponseCode, rr::Name};
use std::{net::SocketAddr, time::Duration};

pub use self::{
    ask::Asker,
    public::is_public,
    resolvers::{RESOLV_CONF, of_resolv_conf, server},
    round::{Lookup, Records, Round, Said, Saying, Server, Step, Zone},
};

/// The port of name servers.
pub const PORT: u16 = 53;

/// Why there is no answer. Says of which server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is no name")]
    Name(String),
    #[error("`{0}` is no name server: write an address, or ADDRESS:PORT")]
    Server(String),
    #[error("no name server is known to ask: name one, or see that {RESOLV_CONF} does")]
    NoResolver,
    #[error("{} does not answer within {} s", Shown(*.server), .limit.as_secs_f32())]
    Silent { server: SocketAddr, limit: Duration },
    /// It is theirs: the way there ends, or nobody listens.
    #[error("{} cannot be reached: {why}", Shown(*.server))]
    Away { server: SocketAddr, why: String },
    /// It is ours: from here nothing can be sent to it, such as over IPv6 where there is none.
    #[error("nothing can be sent to {} from here: {why}", Shown(*.server))]
    Unsent { server: SocketAddr, why: String },
    #[error("{} answers {code} for {}", Shown(*.server), shown(.name))]
    Code { server: SocketAddr, name: Box<Name>, code: ResponseCode },
    /// The zone names it, and it does not have the zone.
    #[error("{} does not speak for {} though its zone names it", Shown(*.server), shown(.name))]
    Lame { server: SocketAddr, name: Box<Name> },
    #[error("{} sends no answer to what was asked: {why}", Shown(*.server))]
    Bad { server: SocketAddr, why: String },
    /// It says nothing of the name's own servers: who they are is not known.
    #[error("no resolver tells of {}: {why}", shown(.name))]
    Unresolved { name: Box<Name>, why: Box<Self> },
    #[error("in which zone {} is cannot be told: no zone above it has a SOA record", shown(.0))]
    NoZone(Box<Name>),
    #[error("no name server of the zone {} has an address", shown(.0))]
    NoServer(Box<Name>),
    #[error("{} leads over more than {} names", shown(.name), .most)]
    TooLong { name: Box<Name>, most: usize },
}

impl Error {
    /// It says nothing of the server: it could not be asked from here.
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Unsent { .. })
    }

    /// Nothing came back, which may be the server's fault or that of the way there.
    pub const fn is_silence(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Away { .. })
    }

    /// Something came back that is no good.
    pub const fn is_answer(&self) -> bool {
        matches!(self, Self::Code { .. } | Self::Lame { .. } | Self::Bad { .. } | Self::TooLong { .. })
    }

    /// It is not known who could be asked.
    pub const fn is_unresolved(&self) -> bool {
        matches!(self, Self::Unresolved { .. } | Self::NoResolver)
    }
}

/// A name as it is asked for: whole, and in lower case.
pub fn name(text: &str) -> Result<Name, Error> {
    let name = Name::from_ascii(text).map_err(|_| Error::Name(text.to_owned()))?;
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    Ok(name)
}

/// A name as people write it, without the dot at its end.
pub fn shown(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').filter(|text| !text.is_empty()).map_or(text.clone(), str::to_owned)
}

/// A server as people write it: the port only where it is another than [`PORT`].
struct Shown(SocketAddr);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.port() {
            PORT => self.0.ip().fmt(f),
            _ => self.0.fmt(f),
        }
    }
}
