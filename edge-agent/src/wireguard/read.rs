//! Reads what there is of the tunnels that are expected: links, addresses and routes from the kernel, the tunnels from
//! whoever runs them.
//!
//! A socket of a process comes first; where there is none, or nobody behind it, and the link is the kernel's own, the
//! kernel is asked.

use std::{collections::BTreeMap, io, net::IpAddr, path::Path};

use futures_util::future::join_all;
use ipnet::IpNet;

use super::{
    facts::{Device, Facts, Interface, Link, NoDevice, Unseen},
    netlink, uapi,
    wanted::Wanted,
};

/// Of everything that is wanted; the own public keys where they are expected.
pub(super) async fn facts(sockets: &Path, wanted: &Wanted) -> Facts {
    let links = netlink::links().await.map_err(|error| {
        Unseen::new(format!("cannot list the interfaces: {error}"), "let the agent have AF_NETLINK sockets")
    });
    let interfaces = wanted.interfaces.iter().map(|(name, wanted)| {
        let link = links.as_ref().map(|links| links.get(name).cloned()).map_err(Unseen::clone);
        async move {
            let kind = link.as_ref().ok().and_then(Option::as_ref).map(|link| link.kind.as_str());
            let device = device(sockets, name, kind, wanted.own_key.is_some()).await;
            (name.clone(), Interface { link, device })
        }
    });
    let interfaces = join_all(interfaces).await.into_iter().collect();
    let names = links.as_ref().map(|links| by_index(links)).unwrap_or_default();
    Facts { interfaces, routes: routes(wanted.routes.keys(), &names).await }
}

fn by_index(links: &BTreeMap<String, Link>) -> BTreeMap<u32, &str> {
    links.iter().map(|(name, link)| (link.index, name.as_str())).collect()
}

/// The WireGuard part of an interface; its own key where it is wanted.
pub(crate) async fn device(
    sockets: &Path,
    name: &str,
    kind: Option<&str>,
    is_key_wanted: bool,
) -> Result<Device, NoDevice> {
    let by_process = uapi::read(&sockets.join(format!("{name}.sock")), is_key_wanted).await;
    if kind != Some("wireguard") || !matches!(by_process, Err(NoDevice::Absent | NoDevice::Refused)) {
        return by_process;
    }
    netlink::device(name).await.map_err(|error| {
        NoDevice::Unseen(if error.kind() == io::ErrorKind::PermissionDenied {
            Unseen::new(
                "no permission to ask the kernel for its tunnels",
                "run the agent with CAP_NET_ADMIN: AmbientCapabilities=CAP_NET_ADMIN in its unit",
            )
        } else {
            Unseen::new(
                format!("the kernel does not tell of {name}: {error}"),
                "see `dmesg` for the kernel's own words",
            )
        })
    })
}

/// The same of one interface, as it is named.
pub(crate) async fn named(sockets: &Path, name: &str, is_key_wanted: bool) -> Result<Device, NoDevice> {
    let links = netlink::links().await.map_err(|error| {
        let why = format!("interfaces cannot be listed: {error}");
        NoDevice::Unseen(Unseen::new(why, "let the agent have AF_NETLINK sockets"))
    })?;
    device(sockets, name, links.get(name).map(|link| link.kind.as_str()), is_key_wanted).await
}

async fn routes(
    networks: impl Iterator<Item = &IpNet>,
    names: &BTreeMap<u32, &str>,
) -> BTreeMap<IpNet, Result<Option<String>, Unseen>> {
    let mut routes = BTreeMap::new();
    for network in networks {
        let route = netlink::route(somebody(network)).await.map_err(|error| {
            Unseen::new(format!("cannot ask for the route: {error}"), format!("ip route get {}", somebody(network)))
        });
        let through = route.map(|index| {
            index.map(|index| names.get(&index).map_or_else(|| format!("interface {index}"), ToString::to_string))
        });
        routes.insert(*network, through);
    }
    routes
}

/// An address within a network that a host may have.
pub(crate) fn somebody(network: &IpNet) -> IpAddr {
    network.hosts().next().unwrap_or(network.addr())
}
