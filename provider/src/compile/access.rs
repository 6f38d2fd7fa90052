//! Who may reach a row: the networks of its list.

use charliehub_proto::domain::{AccessTier, Domain};
use ipnet::{IpNet, Ipv4Net};

use super::Settings;

/// Who gets in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Access {
    Everybody,
    /// The internal networks as configured: one list for all such rows.
    Internal,
    /// Sorted, without overlaps, never empty.
    Listed(Vec<IpNet>),
}

/// Decides who gets in; the error names the column and the remedy.
pub(super) fn access(row: &Domain, settings: &Settings) -> Result<Access, String> {
    let list = IpNet::aggregate(&row.ip_allowlist.iter().map(|net| canonical(*net)).collect());
    if list.iter().any(|net| net.prefix_len() == 0) {
        return Err(
            "ip_allowlist: is everybody (a /0, or all of it in parts); name networks, or make access_tier public"
                .to_owned(),
        );
    }
    match row.access_tier {
        AccessTier::Public if list.is_empty() => Ok(Access::Everybody),
        AccessTier::Public => {
            Err("ip_allowlist: is not empty on a public row; make access_tier restricted, or empty the list".to_owned())
        }
        AccessTier::Restricted if list.is_empty() => {
            Err("ip_allowlist: is empty on a restricted row; name the networks that may reach it".to_owned())
        }
        AccessTier::Restricted => Ok(Access::Listed(list)),
        AccessTier::Internal if settings.internal_networks.is_empty() => {
            Err("access_tier: internal, but no network is; add a site, or set [access] internal_networks".to_owned())
        }
        AccessTier::Internal if list.is_empty() => Ok(Access::Internal),
        AccessTier::Internal => {
            let both: Vec<IpNet> = settings
                .internal_networks
                .iter()
                .flat_map(|inside| list.iter().filter_map(|listed| intersection(canonical(*inside), *listed)))
                .collect();
            if both.is_empty() {
                return Err(
                    "ip_allowlist: has nothing in common with the internal networks, those of the sites and of \
                            [access] internal_networks; nobody could reach the row"
                        .to_owned(),
                );
            }
            Ok(Access::Listed(IpNet::aggregate(&both)))
        }
    }
}

/// The internal networks as a list for Traefik.
pub(super) fn internal(settings: &Settings) -> Vec<IpNet> {
    IpNet::aggregate(&settings.internal_networks.iter().map(|net| canonical(*net)).collect())
}

/// Without host bits; an IPv4 network written as IPv6 as what it is, since Go takes `::ffff:0:0/96` for all of IPv4.
fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let (Some(address), Some(length)) = (v6.network().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
        && let Ok(v4) = Ipv4Net::new(address, length)
    {
        return IpNet::V4(v4.trunc());
    }
    net.trunc()
}

/// Networks contain each other or have nothing in common.
fn intersection(a: IpNet, b: IpNet) -> Option<IpNet> {
    if a.contains(&b) {
        Some(b)
    } else if b.contains(&a) {
        Some(a)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::domain, *};

    #[test]
    fn tiers() {
        use AccessTier::{Internal, Public, Restricted};
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
        let listed = |list: &[&str]| Some(Access::Listed(nets(list)));
        let two = &["10.44.0.0/16", "10.35.0.0/16"][..];
        for (tier, internal, list, expected) in [
            (Public, two, &[][..], Some(Access::Everybody)),
            (Public, two, &["10.0.0.0/8"], None),
            (Restricted, two, &[], None),
            (Restricted, &[], &["192.0.2.7/24"], listed(&["192.0.2.0/24"])),
            (Restricted, two, &["0.0.0.0/0"], None),
            (Restricted, two, &["0.0.0.0/1", "128.0.0.0/1"], None),
            (Restricted, two, &["::ffff:0.0.0.0/96"], None),
            (Restricted, two, &["::ffff:10.1.0.0/112"], listed(&["10.1.0.0/16"])),
            (Internal, &[], &[], None),
            (Internal, two, &[], Some(Access::Internal)),
            (Internal, two, &["10.44.3.0/24"], listed(&["10.44.3.0/24"])),
            (Internal, two, &["10.0.0.0/8"], listed(&["10.35.0.0/16", "10.44.0.0/16"])),
            (Internal, two, &["192.168.0.0/16"], None),
        ] {
            let mut row = domain("a.org");
            (row.access_tier, row.ip_allowlist) = (tier, nets(list));
            let settings = Settings { internal_networks: nets(internal), ..Settings::default() };
            assert_eq!(access(&row, &settings).ok(), expected, "{tier} {internal:?} {list:?}");
        }
    }
}
