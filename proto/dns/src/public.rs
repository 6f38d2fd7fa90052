//! Which addresses the internet can reach, so that DNS may have them. Pure.
//!
//! By the registries of special addresses (RFC 6890 and its updates): what is kept for one host, one network, documentation,
//! tests, several receivers or the future is never published.

use std::{net::IpAddr, sync::LazyLock};

use ipnet::IpNet;

/// Of IPv4 all but these.
const SPECIAL_V4: [&str; 15] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10", // behind a carrier's NAT
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// Of IPv6 what is given out, but these.
const GIVEN_OUT_V6: &str = "2000::/3";
const SPECIAL_V6: [&str; 4] = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];

static GIVEN_OUT: LazyLock<Option<IpNet>> = LazyLock::new(|| GIVEN_OUT_V6.parse().ok());
static SPECIAL: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| SPECIAL_V4.iter().chain(&SPECIAL_V6).filter_map(|network| network.parse().ok()).collect());

/// Whether the internet can reach an address. An IPv4 address within IPv6 is none.
pub fn is_public(address: IpAddr) -> bool {
    let is_given_out = address.is_ipv4() || GIVEN_OUT.is_some_and(|network| network.contains(&address));
    is_given_out && !SPECIAL.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_something_is_not_public() {
        assert_eq!(SPECIAL.len(), SPECIAL_V4.len() + SPECIAL_V6.len(), "all are networks");
        for network in SPECIAL.iter() {
            for address in [network.network(), network.broadcast()] {
                assert!(!is_public(address), "{address}");
            }
        }
        for address in
            ["::", "::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "fc00::1", "fd12::1", "fe80::1", "ff02::1", "4000::1"]
        {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in
            ["9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.32.0.1", "192.0.1.0", "223.255.255.255"]
        {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["2001:200::1", "2a01:cb00::1", "2400::1", "3ffe::1"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
