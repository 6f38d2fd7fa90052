//! Chooses the addresses of a new client. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

/// Of each network that the hub has an address in, the lowest address that nobody has. `Err`: the network that is full.
pub(super) fn next_free(hub: &[IpNet], taken: &BTreeSet<IpAddr>) -> Result<Vec<IpAddr>, IpNet> {
    let networks: BTreeSet<IpNet> = hub.iter().map(IpNet::trunc).collect();
    let mut taken = taken.clone();
    let mut chosen = Vec::new();
    for network in networks {
        let free = network.hosts().find(|address| is_for_a_host(&network, *address) && !taken.contains(address));
        let free = free.ok_or(network)?;
        taken.insert(free);
        chosen.push(free);
    }
    Ok(chosen)
}

/// True for an address that is of a network of the hub's, and of one host in it.
pub(super) fn is_within(hub: &[IpNet], address: IpAddr) -> bool {
    hub.iter().any(|network| network.contains(&address) && is_for_a_host(network, address))
}

/// Not the network's own, which in IPv6 all its routers share, nor the one for everybody.
fn is_for_a_host(network: &IpNet, address: IpAddr) -> bool {
    let is_point_to_point = network.prefix_len() + 1 >= network.max_prefix_len();
    is_point_to_point || (address != network.network() && (address.is_ipv6() || address != network.broadcast()))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_next_free_one_of_each_network() {
        for (hub, taken, chosen) in [
            (&["10.99.0.1/24"][..], &["10.99.0.1"][..], Ok(&["10.99.0.2"][..])),
            (&["10.99.0.1/24"], &["10.99.0.1", "10.99.0.2", "10.99.0.4"], Ok(&["10.99.0.3"])),
            (&["10.99.0.5/30"], &["10.99.0.5"], Ok(&["10.99.0.6"])),
            (&["10.99.0.5/30"], &["10.99.0.5", "10.99.0.6"], Err("10.99.0.4/30")),
            (&["10.99.0.4/31"], &["10.99.0.4"], Ok(&["10.99.0.5"])),
            (&["10.99.0.1/32"], &["10.99.0.1"], Err("10.99.0.1/32")),
            (&["10.99.0.1/24", "fd99::1/64"], &["10.99.0.1", "fd99::1"], Ok(&["10.99.0.2", "fd99::2"])),
            (&["fd99::2/64"], &["fd99::2"], Ok(&["fd99::1"])),
            (&["10.99.0.1/24", "10.99.0.2/24"], &["10.99.0.1", "10.99.0.2"], Ok(&["10.99.0.3"])),
            (&["10.99.0.1/16", "10.99.0.1/24"], &["10.99.0.1"], Ok(&["10.99.0.2", "10.99.0.3"])),
        ] {
            let taken = taken.iter().map(|text| text.parse().unwrap()).collect();
            let chosen = chosen
                .map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>())
                .map_err(|text| text.parse().unwrap());
            assert_eq!(next_free(&networks(hub), &taken), chosen, "{hub:?} {taken:?}");
        }
    }

    #[test]
    fn an_address_is_of_a_host_in_the_hubs_networks() {
        let hub = networks(&["10.99.0.1/24", "fd99::1/64"]);
        for (address, is_right) in [
            ("10.99.0.7", true),
            ("10.99.0.0", false),
            ("10.99.0.255", false),
            ("10.98.0.7", false),
            ("fd99::7", true),
            ("fd99::", false),
            ("fd99::ffff:ffff:ffff:ffff", true),
        ] {
            assert_eq!(is_within(&hub, address.parse().unwrap()), is_right, "{address}");
        }
    }

    proptest! {
        /// Nobody gets an address twice, and nobody is turned away while one is left.
        #[test]
        fn clients_that_come_one_after_the_other_get_all_addresses_once(
            prefix in 24..=32_u8, of_hub in any::<u32>(), before in btree_set(any::<u8>(), 0..40),
        ) {
            let hub = IpNet::new(std::net::Ipv4Addr::from(of_hub).into(), prefix).unwrap();
            let in_network = |n: &u8| {
                let IpAddr::V4(base) = hub.network() else { unreachable!() };
                IpAddr::from(std::net::Ipv4Addr::from(u32::from(base) | (u32::from(*n) & u32::from(hub_mask(prefix)))))
            };
            let mut taken: BTreeSet<IpAddr> = before.iter().map(in_network).collect();
            taken.insert(hub.addr());
            let all: BTreeSet<IpAddr> = hub.hosts().collect();
            let left = all.difference(&taken).count();
            for _ in 0..left {
                let chosen = next_free(&[hub], &taken).unwrap();
                prop_assert_eq!(chosen.len(), 1);
                prop_assert!(all.contains(&chosen[0]) && taken.insert(chosen[0]), "{:?}", chosen);
            }
            prop_assert_eq!(next_free(&[hub], &taken), Err(hub.trunc()));
        }
    }

    /// The bits of an IPv4 address that are the host's.
    fn hub_mask(prefix: u8) -> u8 {
        u8::try_from((1_u32 << (32 - u32::from(prefix))) - 1).unwrap()
    }
}
