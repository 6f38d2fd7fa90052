//! What a host must have: firewall rules, files and their modes, units, containers, gateways, room and backups; and when
//! a certificate is late. A part that is not given is not checked.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A row of `charliehub.policies`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyRow {
    pub id: Uuid,
    /// The agent on the host that it is for.
    pub agent: String,
    pub body: Policy,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The revision that last changed the row.
    pub version: i64,
}

/// The policy of one agent's host: a row of table `charliehub.policies`, the API's JSON, and `[policy]` in the agent's own
/// file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall: Option<Firewall>,
    pub files: Vec<Files>,
    pub units: Vec<Unit>,
    pub containers: Vec<Container>,
    pub gateways: Vec<Gateway>,
    pub disks: Vec<Disk>,
    /// Things that must have happened lately: backups, rotations of secrets.
    pub recent: Vec<Recent>,
    pub certificates: Certificates,
    /// Interfaces that clients of the VPN are peers of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vpn: Vec<Vpn>,
}

/// An interface that clients are peers of: the hub's end of it, and what a client's configuration says of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Vpn {
    /// `wg-clients`. Each peer of it is a row: an agent that acts removes any other.
    pub interface: String,
    /// The hub's public key.
    pub public_key: String,
    /// Host and port that clients call: `vpn.example.org:51820`. The hub listens on this port, unless `listen_port` says another.
    pub endpoint: String,
    /// The hub's own addresses, each with the network that clients get theirs from: `10.99.0.1/24`.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpNet>,
    /// What clients send through the VPN. None given: the networks of all sites, and the VPN's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub routes: Vec<IpNet>,
    /// Who resolves names for clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub dns: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Of the interface and of clients. None: not checked, and WireGuard's own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What the firewall must have, and that it has it after a reboot too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Firewall {
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// The unit that restores the rules at boot.
    #[serde(default = "restoring_unit")]
    pub unit: String,
}

fn restoring_unit() -> String {
    "netfilter-persistent.service".to_owned()
}

/// A rule that must be there, in both meanings: listed, and reached by the packets that it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What it is for, in findings: `PostgreSQL only from the container network`.
    pub name: String,
    #[serde(default)]
    pub family: Family,
    /// `raw`, `mangle`, `nat`, `filter` or `security`.
    pub table: String,
    pub chain: String,
    /// As `iptables -A CHAIN` would take it: `-p tcp --dport 5432 ! -s 172.16.0.0/12 -j DROP`.
    pub rule: String,
}

/// Of which address family a rule is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Family {
    #[default]
    Ipv4,
    Ipv6,
    /// It must be in both.
    Both,
}

/// Files or directories that must have a mode and an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Absolute globs, `**` too: `/opt/charliehub/**/*.py`.
    pub paths: Vec<String>,
    /// Globs of what is left out of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// What `paths` match: files, unless it says `directory`.
    #[serde(default)]
    pub kind: FileKind,
    /// Octal: `444`. None: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The user, by name or number, that must be able to write there: proven by its rights, never by writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writable_by: Option<String>,
    /// True when others must not read it: a readable one is critical.
    #[serde(default)]
    pub secret: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    #[default]
    File,
    Directory,
}

/// A unit of systemd: a service, a timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// With its suffix: `charliehub-backup.timer`.
    pub name: String,
    /// It must run.
    #[serde(default = "yes")]
    pub active: bool,
    /// It must start at boot.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

/// A container that must run, be healthy where it has a health check, and not restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Container {
    pub name: String,
}

/// An MQTT gateway, of which the last message must not be old.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// `uk`, `fr`, `us`.
    pub name: String,
    /// Its topics, `+` and `#` as in MQTT.
    pub topic: String,
    /// Older is a warning; twice as old is critical. As `10m`.
    pub max_age: String,
}

/// Room that must be free on the file system of a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Disk {
    pub path: String,
    /// Less free than so many percent, of room or of inodes, is a warning.
    #[serde(default = "ten")]
    pub warning_percent: u8,
    #[serde(default = "five")]
    pub critical_percent: u8,
}

fn ten() -> u8 {
    10
}

fn five() -> u8 {
    5
}

/// Something that must have happened lately, known by the newest file of a glob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Recent {
    /// `backup`, `secret-rotation`.
    pub name: String,
    /// An absolute glob: the time of its newest file counts; an empty file does not.
    pub path: String,
    /// Older is a warning; half as old again is critical. As `26h`, `95d`.
    pub max_age: String,
}

/// How certificates are judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Certificates {
    /// Names to serve beside those of the domains.
    pub names: Vec<String>,
    /// Names of domains that are not served here.
    pub except: Vec<String>,
    /// A staging authority is what is wanted.
    pub allow_staging: bool,
    /// Certificates beside Traefik's: PEM files, or directories of them.
    pub files: Vec<String>,
}
