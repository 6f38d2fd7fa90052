//! A client of the VPN: a peer of its own, that one person's device is.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A client that hubs let in. The field names are those of the columns of table `charliehub.peers` and of the API's JSON alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Lower case letters, digits and hyphens: `anna-laptop`.
    pub name: String,
    /// The agents on the hubs that let it in.
    #[serde(default = "hubs")]
    pub agents: Vec<String>,
    /// The interface on these hubs, of which the policy of each has the rest (`vpn`).
    #[serde(default = "interface")]
    pub interface: String,
    /// As `wg pubkey` writes it. Nobody but the client has the private one.
    pub public_key: String,
    /// Its own addresses in the VPN, each with a full prefix: `10.99.0.7/32`. They are its allowed IPs on the hubs.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

/// A row of `charliehub.peers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeerRow {
    pub id: Uuid,
    #[serde(flatten)]
    pub peer: Peer,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The revision that last changed the row.
    pub version: i64,
}

fn hubs() -> Vec<String> {
    vec!["hub2".to_owned()]
}

fn interface() -> String {
    "wg-clients".to_owned()
}
