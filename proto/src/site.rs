//! A site behind the hub: its networks, the tunnels that lead there, and hosts that must answer.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A place behind the hub. The field names are those of the columns of table `charliehub.sites`, of the API's JSON and
/// of the agent's own file alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Lower case letters, digits and hyphens: `uk`.
    pub name: String,
    /// The agent on the host that its tunnels end on.
    #[serde(default = "hub")]
    pub agent: String,
    /// What is there. They must be reached through the tunnel of rank 1.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub networks: Vec<IpNet>,
    pub tunnels: Vec<Tunnel>,
    /// Hosts there that must answer, beside the far ends of the tunnels.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// The DNS name of its public address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wan_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

/// A row of `charliehub.sites`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteRow {
    pub id: Uuid,
    #[serde(flatten)]
    pub site: Site,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The revision that last changed the row.
    pub version: i64,
}

fn hub() -> String {
    "hub2".to_owned()
}

/// A WireGuard tunnel from the hub, as the hub's end should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// The interface on the hub: `wg-uk`.
    pub interface: String,
    /// The site's public key, as `wg show` writes it.
    pub public_key: String,
    /// What the peer may send and is sent: all of its allowed IPs.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub allowed_ips: Vec<IpNet>,
    /// Seconds; 0 is off.
    #[serde(default)]
    pub keepalive: u16,
    /// 1 is primary; greater ones take over in their order.
    #[serde(default = "primary")]
    pub rank: u16,
    /// The address of the far end inside the tunnel: what is pinged to know that the tunnel works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub peer_address: Option<IpAddr>,
    /// The hub's own addresses on the interface. None given: not checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpNet>,
    /// The hub's own public key. None: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_public_key: Option<String>,
    /// The UDP port that the hub listens on. None: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Of the interface. None: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Host and port that the hub calls; none when only the site calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

fn primary() -> u16 {
    1
}

/// A host at a site that must answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Host {
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// What it is called in findings: `px1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A TCP port that it accepts connections on, asked where pings may not be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}
