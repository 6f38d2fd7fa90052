//! The routes of the main table to one network: lists them, adds one, takes one away.

#![expect(clippy::wildcard_enum_match_arm, reason = "of a kernel's many attributes we want these")]

use std::io;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::Socket;

/// A route to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub network: IpNet,
    /// The index of the interface that it leads through.
    pub interface: u32,
    /// The least one wins.
    pub metric: u32,
    /// Who made it.
    pub protocol: u8,
}

/// Every route that names an interface.
pub(crate) async fn all() -> io::Result<Vec<Route>> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        let mut socket = Socket::open(NETLINK_ROUTE)?;
        let answers = socket.ask(RouteNetlinkMessage::GetRoute(question), NLM_F_DUMP).await;
        match answers {
            // Without IPv6 the kernel tells of IPv4 again.
            Ok(answers) => {
                routes.extend(answers.into_iter().filter_map(read).filter(|route| family_of(route) == family));
            }
            Err(error) if family == AddressFamily::Inet6 && error.kind() == io::ErrorKind::Unsupported => {}
            Err(error) => return Err(error),
        }
    }
    Ok(routes)
}

/// Fails where there is one to the same network with the same metric. Needs CAP_NET_ADMIN.
pub(crate) async fn add(route: &Route) -> io::Result<()> {
    let message = RouteNetlinkMessage::NewRoute(message(route));
    Socket::open(NETLINK_ROUTE)?.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).await.map(drop)
}

/// This one and no other; one that is not there is no error. Needs CAP_NET_ADMIN.
pub(crate) async fn remove(route: &Route) -> io::Result<()> {
    match Socket::open(NETLINK_ROUTE)?.ask(RouteNetlinkMessage::DelRoute(message(route)), NLM_F_ACK).await {
        Err(error) if error.raw_os_error() == Some(NO_SUCH_ROUTE) => Ok(()),
        answer => answer.map(drop),
    }
}

/// ESRCH, as the kernel says it of a route.
const NO_SUCH_ROUTE: i32 = 3;

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let address = route.network.trunc().addr();
    message.header = RouteHeader {
        address_family: family_of(route),
        destination_prefix_length: route.network.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::from(route.protocol),
        scope: if address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(address.into()),
        RouteAttribute::Oif(route.interface),
        RouteAttribute::Priority(route.metric),
    ];
    message
}

fn family_of(route: &Route) -> AddressFamily {
    match route.network {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    }
}

fn read(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let RouteHeader { table, protocol, destination_prefix_length, .. } = message.header;
    if table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let (mut address, mut interface, mut metric) = (None, None, 0);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(is)) => address = Some(is.into()),
            RouteAttribute::Destination(RouteAddress::Inet6(is)) => address = Some(is.into()),
            RouteAttribute::Oif(is) => interface = Some(is),
            RouteAttribute::Priority(is) => metric = is,
            _ => {}
        }
    }
    let network = IpNet::new(address?, destination_prefix_length).ok()?;
    Some(Route { network, interface: interface?, metric, protocol: protocol.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_lists_its_routes() {
        all().await.unwrap();
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for network in ["10.35.0.0/16", "fd35::/48"] {
            let route = Route { network: network.parse().unwrap(), interface: 7, metric: 50, protocol: 235 };
            assert_eq!(read(RouteNetlinkMessage::NewRoute(message(&route))), Some(route), "{network}");
        }
    }
}
