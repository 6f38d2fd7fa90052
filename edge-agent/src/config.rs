//! The agent's one file, read into what cannot be wrong.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use charliehub_proto::{duration::text, policy::Policy, site::Site};
use serde::Deserialize;

/// The whole file. A key that is not there has its default.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Of the agent, as the provider knows it.
    pub name: String,
    /// Where `/metrics`, `/healthz` and `/findings` are.
    pub listen: SocketAddr,
    /// Where the spool and the last expectation are kept.
    pub state_dir: PathBuf,
    pub provider: Option<Provider>,
    pub timing: Timing,
    pub wireguard: WireGuard,
    pub firewall: Firewall,
    pub certificates: Certificates,
    pub host: Host,
    /// Sites beside the provider's; one of the same name replaces the provider's.
    pub sites: Vec<Site>,
    /// Added to the provider's.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "hub2".to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9745)),
            state_dir: PathBuf::from("/var/lib/charliehub-edge-agent"),
            provider: None,
            timing: Timing::default(),
            wireguard: WireGuard::default(),
            firewall: Firewall::default(),
            certificates: Certificates::default(),
            host: Host::default(),
            sites: Vec::new(),
            policy: Policy::default(),
        }
    }
}

/// Section `[provider]`: who says what should be, and is told what is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// `https://provider.example.org:8001`.
    pub url: String,
    /// A file that holds the agent's token. None: the credential `agent-token`, else the client certificate alone.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// PEM of the authority that signed the provider's certificate. None: those of this machine.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM of a client certificate and its key, where a proxy before the provider asks for one.
    #[serde(default)]
    pub client_certificate: Option<PathBuf>,
    #[serde(default)]
    pub client_key: Option<PathBuf>,
}

/// Section `[timing]`: how often is looked, and how long something must last before it is believed.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// Between two looks at tunnels, and between two probes.
    #[serde(with = "text")]
    pub wireguard: Duration,
    #[serde(with = "text")]
    pub firewall: Duration,
    #[serde(with = "text")]
    pub certificates: Duration,
    #[serde(with = "text")]
    pub host: Duration,
    /// Between two looks while one was worse than what is believed.
    #[serde(with = "text")]
    pub doubt: Duration,
    /// Good looks must span this before it is ok again.
    #[serde(with = "text")]
    pub clear: Duration,
    /// Six changes within it are one `flapping`, which holds the worst for so long.
    #[serde(with = "text")]
    pub flapping: Duration,
    /// Between two reports of everything.
    #[serde(with = "text")]
    pub report: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            wireguard: Duration::from_secs(5),
            firewall: Duration::from_secs(30),
            certificates: Duration::from_mins(1),
            host: Duration::from_mins(1),
            doubt: Duration::from_secs(1),
            clear: Duration::from_secs(15),
            flapping: Duration::from_mins(10),
            report: Duration::from_secs(30),
        }
    }
}

/// Section `[wireguard]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WireGuard {
    /// Where userspace tunnels have their sockets.
    pub sockets: PathBuf,
}

impl Default for WireGuard {
    fn default() -> Self {
        Self { sockets: PathBuf::from("/var/run/wireguard") }
    }
}

/// Section `[firewall]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Firewall {
    /// What is restored at boot: `rules.v4` and `rules.v6`.
    pub rules_dir: PathBuf,
}

impl Default for Firewall {
    fn default() -> Self {
        Self { rules_dir: PathBuf::from("/etc/iptables") }
    }
}

/// Section `[certificates]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Certificates {
    /// Where each entry point is reached from here: `websecure = "127.0.0.1:443"`. A name of one that is not here is not
    /// asked for.
    pub entry_points: BTreeMap<String, SocketAddr>,
    /// Where Traefik keeps what ACME gave it.
    pub acme_json: Vec<PathBuf>,
    /// PEM files of authorities beside those of this machine.
    pub authorities: Vec<PathBuf>,
}

/// Section `[host]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {}
