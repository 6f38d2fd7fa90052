//! Whom a router lets in, whatever the request: by the lists of addresses and the logins among its middlewares.

use ipnet::IpNet;

use super::{chain, config::Config, rule::network};

/// Whom a router lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// `None`: everybody. Empty: nobody, since its lists have nothing in common.
    pub networks: Option<Vec<IpNet>>,
    /// Asks for a login before the backend is reached.
    pub login: bool,
    /// Its service has no server.
    pub closed: bool,
}

impl Admission {
    /// Of a router of the config; `None` where it has none of that name.
    ///
    /// What cannot be told counts as open: a middleware of another provider, a list that goes by a header.
    pub fn of(config: &Config, tcp: bool, router: &str) -> Option<Self> {
        let half = if tcp { &config.tcp } else { &config.http };
        let router = half.routers.get(router)?;
        let (mut networks, mut login) = (None::<Vec<IpNet>>, false);
        for (kind, options) in chain::flat(half, &router.middlewares).into_iter().filter_map(|(_, found)| found) {
            match kind {
                "ipAllowList" | "ipWhiteList" if options.get("ipStrategy").is_none() => {
                    let listed = chain::texts(options, "sourceRange");
                    let listed: Vec<IpNet> = listed.iter().filter_map(|text| network(text)).collect();
                    networks = Some(networks.map_or_else(|| listed.clone(), |others| common(&others, &listed)));
                }
                "forwardAuth" | "basicAuth" | "digestAuth" => login = true,
                _ => {}
            }
        }
        // A network of everything is no list.
        let networks = networks.filter(|networks| !networks.iter().any(|network| network.prefix_len() == 0));
        Some(Self { networks, login, closed: half.is_closed(&router.service) })
    }
}

/// Networks contain each other or have nothing in common.
fn common(a: &[IpNet], b: &[IpNet]) -> Vec<IpNet> {
    let both = |a: &IpNet, b: &IpNet| if a.contains(b) { Some(*b) } else { Some(*a).filter(|a| b.contains(a)) };
    a.iter().flat_map(|a| b.iter().filter_map(move |b| both(a, b))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_narrow_each_other_and_what_cannot_be_told_is_open() {
        let list = |networks: &[&str]| json!({"ipAllowList": {"sourceRange": networks}});
        for (middlewares, networks, login) in [
            (&[][..], None, false),
            (&["sites"], Some(&["10.44.0.0/16", "10.35.0.0/16"][..]), false),
            (&["sites", "ten"], Some(&["10.44.0.0/16", "10.35.0.0/16"]), false),
            (&["one", "sites", "basic"], Some(&["10.44.0.7/32"]), true),
            (&["one", "other"], Some(&[]), false),
            (&["all"], None, false),
            (&["header"], None, false),
            (&["elsewhere@file"], None, false),
            (&["both"], Some(&["10.44.0.0/16", "10.35.0.0/16"]), true),
        ] {
            let config = json!({"http": {
                "routers": {"r": {"rule": "Host(`a`)", "service": "s", "middlewares": middlewares}},
                "services": {"s": {"loadBalancer": {"servers": [{"url": "http://h"}]}}},
                "middlewares": {
                    "sites": list(&["10.44.0.0/16", "10.35.0.0/16"]),
                    "ten": list(&["10.0.0.0/8"]),
                    "one": list(&["10.44.0.7"]),
                    "other": list(&["192.0.2.0/24"]),
                    "all": list(&["0.0.0.0/0"]),
                    "header": {"ipAllowList": {"sourceRange": ["10.0.0.0/8"], "ipStrategy": {"depth": 1}}},
                    "basic": {"basicAuth": {"users": ["a:b"]}},
                    "login": {"forwardAuth": {"address": "http://a"}},
                    "both": {"chain": {"middlewares": ["sites", "login"]}},
                },
            }});
            let config = Config::read(config.to_string().as_bytes()).unwrap();
            let networks = networks.map(|list| list.iter().map(|net| net.parse().unwrap()).collect());
            let expected = Admission { networks, login, closed: false };
            assert_eq!(Admission::of(&config, false, "r"), Some(expected), "{middlewares:?}");
            assert_eq!(Admission::of(&config, true, "r"), None);
        }
    }
}
