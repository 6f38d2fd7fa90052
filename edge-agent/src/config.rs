//! The agent's one file, read into what cannot be wrong.
//!
//! An unknown key is an error that names those that are known; the error names file and line.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use charliehub_proto::{duration::text, peer::Peer, policy::Policy, site::Site};
use serde::{Deserialize, Deserializer, de};

mod act;

pub use self::act::{Act, Failover, Mode, Peers, Profile, ReResolve, Restart, Rotate};

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
    pub dns: Dns,
    pub host: Host,
    pub act: Act,
    /// Sites beside the provider's; one of the same name replaces the provider's.
    pub sites: Vec<Site>,
    /// Clients of the VPN beside the provider's; one of the same name replaces the provider's.
    pub peers: Vec<Peer>,
    /// Added to the provider's.
    pub policy: Policy,
    pub log: Log,
}

/// Where the file is when no other is named.
pub const DEFAULT: &str = "/etc/charliehub/edge-agent.toml";

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error(
        "{path}: name: `{name}` may hold letters, digits, `.`, `_` and `-`, at most 63, and begins with a letter or digit"
    )]
    Name { path: PathBuf, name: String },
    #[error("{path}: act.{key}: `{value}` {why}")]
    Act { path: PathBuf, key: &'static str, value: String, why: String },
}

impl Config {
    /// Of a file, or of the default one where there is one.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        let file = path.unwrap_or(Path::new(DEFAULT));
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(Error::Read { path: file.to_owned(), source }),
        };
        let config: Self =
            toml::from_str(&text).map_err(|source| Error::Parse { path: file.to_owned(), source: Box::new(source) })?;
        let name = &config.name;
        let is_plain = name.len() <= 63
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !is_plain {
            return Err(Error::Name { path: file.to_owned(), name: name.clone() });
        }
        config.act.judge().map_err(|(key, value, why)| Error::Act { path: file.to_owned(), key, value, why })?;
        Ok(config)
    }
}

/// Section `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// As `RUST_LOG` has it: `info`, `charliehub_edge_agent=debug`.
    pub filter: String,
    /// One JSON object a line.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), json: false }
    }
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
            dns: Dns::default(),
            host: Host::default(),
            act: Act::default(),
            sites: Vec::new(),
            peers: Vec::new(),
            policy: Policy::default(),
            log: Log::default(),
        }
    }
}

/// Section `[provider]`: who says what should be, and is told what is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// `https://provider.example.org:8001`.
    pub url: String,
    /// A file that holds the agent's token, or `exec:COMMAND ARG...`, which prints it. None: the credential `agent-token`, else the client certificate alone.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// PEM of the authority that signed the provider's certificate. None: those of this machine.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM of a client certificate and its key: where the provider knows its authority, no token is needed.
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
    /// Between two probes as large as a tunnel takes, while they pass it.
    #[serde(with = "text")]
    pub mtu: Duration,
    #[serde(with = "text")]
    pub firewall: Duration,
    #[serde(with = "text")]
    pub certificates: Duration,
    /// Between two questions for a name whose DNS records are right.
    #[serde(with = "text")]
    pub dns: Duration,
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
            mtu: Duration::from_mins(5),
            firewall: Duration::from_secs(30),
            certificates: Duration::from_mins(1),
            dns: Duration::from_mins(5),
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
    /// A probe without an answer for so long is lost.
    #[serde(with = "text")]
    pub probe_timeout: Duration,
    /// So many probes lost in a row are an outage.
    pub probes_lost: u32,
    /// Loss is counted over the probes of so long.
    #[serde(with = "text")]
    pub loss_window: Duration,
    /// More loss than this is a warning.
    pub loss_percent: u8,
    /// Handshakes may be so much older than the protocol alone explains.
    #[serde(with = "text")]
    pub handshake_margin: Duration,
    /// A tunnel that we call has its first handshake within so long.
    #[serde(with = "text")]
    pub first_handshake: Duration,
}

impl Default for WireGuard {
    fn default() -> Self {
        Self {
            sockets: PathBuf::from("/var/run/wireguard"),
            probe_timeout: Duration::from_secs(1),
            probes_lost: 8,
            loss_window: Duration::from_mins(1),
            loss_percent: 10,
            handshake_margin: Duration::from_secs(10),
            first_handshake: Duration::from_secs(30),
        }
    }
}

/// Section `[firewall]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Firewall {
    /// What is restored at boot: `rules.v4` and `rules.v6`.
    pub rules_dir: PathBuf,
    /// The links to the units that start at boot.
    pub wants_dir: PathBuf,
    /// What netfilter-persistent runs at boot, and the file that changes how.
    pub plugins_dir: PathBuf,
    pub defaults_file: PathBuf,
    /// How the names of chains begin that other programs make and keep.
    pub foreign_chains: Vec<String>,
    /// How the names of nftables' own tables begin that other programs make and keep.
    pub native_tables: Vec<String>,
    /// Docker's bridges; `+` at the end stands for anything.
    pub bridges: Vec<String>,
    /// A trial restore that takes longer is given up, and the file only read.
    #[serde(with = "text")]
    pub restore_within: Duration,
    /// However often rules change, the next look that a change causes comes no sooner after the last one.
    #[serde(with = "text")]
    pub calm: Duration,
}

impl Default for Firewall {
    fn default() -> Self {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            rules_dir: PathBuf::from("/etc/iptables"),
            wants_dir: PathBuf::from("/etc/systemd/system/multi-user.target.wants"),
            plugins_dir: PathBuf::from("/usr/share/netfilter-persistent/plugins.d"),
            defaults_file: PathBuf::from("/etc/default/netfilter-persistent"),
            foreign_chains: own(&["DOCKER", "f2b-", "KUBE-", "LIBVIRT", "CNI-", "NETAVARK", "cali-", "ts-"]),
            native_tables: own(&["crowdsec", "docker-", "f2b-", "libvirt_", "netavark", "ts-", "wg-quick-"]),
            bridges: own(&["docker0", "br-+"]),
            restore_within: Duration::from_secs(2),
            calm: Duration::from_secs(2),
        }
    }
}

/// Section `[certificates]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Certificates {
    /// Where each entry point is reached from here: `websecure = "127.0.0.1:443"`. A name of one that is not here is not
    /// asked for. Names of the policy are those of `websecure`, or of the only one.
    pub entry_points: BTreeMap<String, SocketAddr>,
    /// Where Traefik keeps what ACME gave it.
    pub acme_json: Vec<PathBuf>,
    /// PEM files of authorities beside those of this machine.
    pub authorities: Vec<PathBuf>,
    /// So many names a second are asked for at most, beside those that are new or not ok: a minute's worth at once.
    pub rate: u32,
    /// Handshakes at one time.
    pub concurrency: usize,
    /// A handshake is given up after it.
    #[serde(with = "text")]
    pub handshake: Duration,
    /// Another certificate is served than `acme.json` holds for so long: a warning. Traefik takes 2 s.
    #[serde(with = "text")]
    pub differs_warning: Duration,
    #[serde(with = "text")]
    pub differs_critical: Duration,
    /// `acme.json` that was not whole three times within it is no file that is being written.
    #[serde(with = "text")]
    pub torn: Duration,
    /// Bytes of the greatest `acme.json` that is read.
    pub largest: u64,
    /// Of more names than this only those that are not ok are told one by one.
    pub one_by_one: usize,
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            entry_points: BTreeMap::new(),
            acme_json: Vec::new(),
            authorities: Vec::new(),
            rate: 20,
            concurrency: 16,
            handshake: Duration::from_secs(2),
            differs_warning: Duration::from_mins(2),
            differs_critical: Duration::from_mins(10),
            torn: Duration::from_secs(10),
            largest: 64 << 20,
            one_by_one: 1_000,
        }
    }
}

/// Section `[dns]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// The public addresses of the edge: where names must lead. None: nothing is asked.
    pub edge: Vec<IpAddr>,
    /// Who issues the certificates that come by ACME, as CAA records name them.
    pub issuers: Vec<String>,
    /// Recursive resolvers, `ADDRESS` or `ADDRESS:PORT`, which tell who speaks for a name. None: those of `/etc/resolv.conf`.
    #[serde(deserialize_with = "servers")]
    pub servers: Vec<SocketAddr>,
    /// So many names a second are asked for at most: five seconds' worth at once.
    pub rate: u32,
    /// Names that are asked for at one time.
    pub concurrency: usize,
    /// A server that says nothing for so long, to three questions, is silent.
    #[serde(with = "text")]
    pub timeout: Duration,
    /// Between two questions for a name whose records are not right.
    #[serde(with = "text")]
    pub again: Duration,
    /// Of more names than this only those that are not ok are told one by one.
    pub one_by_one: usize,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            edge: Vec::new(),
            issuers: vec!["letsencrypt.org".to_owned()],
            servers: Vec::new(),
            rate: 20,
            concurrency: 16,
            timeout: Duration::from_secs(2),
            again: Duration::from_secs(30),
            one_by_one: 1_000,
        }
    }
}

fn servers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    let listed = Vec::<String>::deserialize(from)?;
    listed.iter().map(|text| charliehub_dns::server(text).map_err(de::Error::custom)).collect()
}

/// Section `[host]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// The socket of Docker's API, or of podman's. Only read from.
    pub docker: PathBuf,
    /// The broker of the gateways.
    pub mqtt: Option<Mqtt>,
    /// How long each part may take: what hangs, such as a dead network file system, is unknown by itself.
    #[serde(with = "text")]
    pub timeout: Duration,
    /// Units and containers that restarted twice within it are restarting again and again.
    #[serde(with = "text")]
    pub restart_window: Duration,
    /// A rule for files looks at so many paths, and says when there are more.
    pub max_paths: usize,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            docker: PathBuf::from("/var/run/docker.sock"),
            mqtt: None,
            timeout: Duration::from_secs(5),
            restart_window: Duration::from_mins(10),
            max_paths: 100_000,
        }
    }
}

/// Section `[host.mqtt]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// `mqtt.example.org:8883`.
    pub address: String,
    #[serde(default)]
    pub tls: bool,
    /// PEM of the authority that signed the broker's certificate. None: those of this machine.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub username: Option<String>,
    /// A file, or `exec:COMMAND ARG...`. Read again at each connection, so that a rotated password needs no restart.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()))
            .map_err(|error| error.to_string().replace(&file.path().display().to_string(), "FILE"))
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_would_be_right() {
        let wrong = load("name = \"hub2\"\n[timing]\nwiregard = \"5s\"\n").unwrap_err();
        assert!(wrong.contains("line 3") && wrong.contains("wiregard") && wrong.contains("`wireguard`"), "{wrong}");
        let wrong = load("[timing]\ndoubt = \"soon\"").unwrap_err();
        assert!(wrong.contains("`soon` is no duration: write"), "{wrong}");
        let wrong = load("name = \"hub 2\"").unwrap_err();
        assert!(wrong.starts_with("FILE: name: `hub 2` may hold"), "{wrong}");
        assert!(Config::load(Some(Path::new("/nowhere"))).is_err());
        for (text, said) in [
            ("[[act.failover]]\nsite = \"fr\"\nmode = \"on\"", "expected one of `off`, `dry-run`, `act`"),
            ("[[act.failover]]\nmode = \"act\"", "missing field `site`"),
            ("[[act.failover]]\nsite = \"a/b\"", "FILE: act.failover: `a/b` is no name of a site"),
            (
                "[[act.restart]]\nsite = \"fr\"\n[[act.restart]]\nsite = \"fr\"",
                "FILE: act.restart: `fr` is named twice: leave one [[act.restart]] for it",
            ),
            ("[[act.re_resolve]]\nsite = \"\"", "FILE: act.re_resolve: `` is no name of a site"),
            ("[dns]\nservers = [\"dns.test\"]", "`dns.test` is no name server: write an address, or ADDRESS:PORT"),
            ("[dns]\nedge = [\"edge.test\"]", "invalid IP address syntax"),
            ("[act]\nrun_dir = \"run\"", "FILE: act.run_dir: `run` must begin with `/`"),
            ("[[act.peers]]\ninterface = \"../x\"", "FILE: act.peers: `../x` is no name of an interface"),
            ("[[act.peers]]\ninterface = \"wg-clients-of-hub2\"", "at most 15 letters, digits"),
            (
                "[[act.peers]]\ninterface = \"wg0\"\n[[act.peers]]\ninterface = \"wg0\"",
                "FILE: act.peers: `wg0` is named twice: leave one [[act.peers]] for it",
            ),
            ("[act]\nmanaged_from = [\"10.44.0.1\"]", "invalid IP address syntax"),
        ] {
            let wrong = load(text).unwrap_err();
            assert!(wrong.contains(said), "{wrong}");
        }
        let all = "[[act.failover]]\nsite = \"fr\"\n[[act.restart]]\nsite = \"fr\"\n[[act.re_resolve]]\nsite = \"fr\"";
        let act = load(all).unwrap().act;
        let (one, restart, re_resolve) = (&act.failover[0], &act.restart[0], &act.re_resolve[0]);
        assert_eq!((one.mode, one.profile, one.return_after), (Mode::Off, Profile::Normal, Duration::from_mins(5)));
        assert_eq!((restart.mode, re_resolve.mode), (Mode::Off, Mode::Off));
        let act = load("[[act.peers]]\ninterface = \"wg-clients\"").unwrap().act;
        assert_eq!((act.peers[0].mode, act.management_ports, act.managed_from), (Mode::Off, vec![22], vec![]));
    }

    #[test]
    fn the_sample_is_understood_and_says_something_of_each_part() {
        let sample = load(include_str!("../../deploy/agent/hub2.toml")).unwrap();
        let policy = &sample.policy;
        assert!(sample.provider.is_some() && sample.host.mqtt.is_some() && policy.firewall.is_some());
        let lengths = [
            policy.files.len(),
            policy.units.len(),
            policy.containers.len(),
            policy.gateways.len(),
            policy.recent.len(),
        ];
        assert!(lengths.iter().all(|length| *length > 1), "{lengths:?}");
        let failover: Vec<_> = sample.act.failover.iter().map(|one| (&*one.site, one.mode)).collect();
        assert_eq!(failover, [("fr", Mode::DryRun)]);
        assert!(sample.act.restart.iter().all(|one| one.mode == Mode::DryRun) && sample.act.restart.len() == 2);
        assert!(sample.act.re_resolve.iter().all(|one| one.mode == Mode::DryRun) && sample.act.re_resolve.len() == 2);
        let rotate: Vec<_> = sample.act.rotate.iter().map(|one| (&*one.site, one.mode, one.only_way)).collect();
        assert_eq!(rotate, [("uk", Mode::DryRun, true), ("fr", Mode::DryRun, false)]);
        assert!(sample.act.peers.iter().all(|one| one.mode == Mode::DryRun) && sample.act.peers.len() == 2);
    }

    #[test]
    fn an_empty_file_is_a_hub() {
        let config = load("").unwrap();
        assert_eq!(
            (&*config.name, config.listen.port(), config.timing.wireguard),
            ("hub2", 9745, Duration::from_secs(5))
        );
    }
}
