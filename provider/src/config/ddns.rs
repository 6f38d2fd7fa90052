//! Section `[ddns]`: names in DNS that follow the addresses of sites, and who is told of a change.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use charliehub_dns::update::Algorithm;
use charliehub_secret::Source;

/// Section `[ddns]`.
#[derive(Clone, Debug)]
pub struct Ddns {
    pub mode: Mode,
    /// An address is believed when it was seen for so long.
    pub stable: Duration,
    /// At most one change of a name and type within it.
    pub interval: Duration,
    /// Between two looks at what the name servers say.
    pub look: Duration,
    pub zones: Vec<Zone>,
    /// Sites whose addresses are told by a file or a command, not by their tunnels.
    pub sources: BTreeMap<String, Source>,
}

/// What is done about a name that must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Off,
    /// It is told, and nothing else.
    DryRun,
    Act,
}

/// One `[[ddns.zone]]`: names in it are ours.
#[derive(Clone, Debug)]
pub struct Zone {
    /// In lower case, without a dot at its end.
    pub zone: String,
    /// Of a record that was not there.
    pub ttl: u32,
    /// Whose answers count, as HOST:PORT; none: those of the zone's own name servers.
    pub nameserver: Option<String>,
    pub provider: Provider,
}

/// Who keeps a zone.
#[derive(Clone, Debug)]
pub enum Provider {
    /// A name server that takes signed updates.
    Rfc2136 {
        /// As HOST:PORT.
        server: String,
        key_name: String,
        algorithm: Algorithm,
        /// In base64.
        secret: Source,
    },
    /// OVH's API.
    Ovh {
        /// Without a slash at its end.
        url: String,
        /// Who may have signed its certificate; none: the authorities of this machine.
        ca_file: Option<PathBuf>,
        application_key: String,
        application_secret: Source,
        consumer_key: Source,
    },
}
