//! Which recursive resolvers there are: those of the settings, or of this machine. Pure, but for [`of_resolv_conf`].

use std::net::{IpAddr, SocketAddr};

use crate::{Error, PORT};

/// Where a machine names its resolvers.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A server as it is written in settings: `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`.
pub fn server(text: &str) -> Result<SocketAddr, Error> {
    let plain = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    plain.or_else(|_| text.parse()).map_err(|_| Error::Server(text.to_owned()))
}

/// Those of this machine. None where the file cannot be read.
pub async fn of_resolv_conf() -> Vec<SocketAddr> {
    listed(&tokio::fs::read_to_string(RESOLV_CONF).await.unwrap_or_default())
}

fn listed(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    // An address with a zone (`fe80::1%eth0`) is none that can be parsed, and left out.
    lines.filter_map(|address| address.parse::<IpAddr>().ok()).map(|ip| SocketAddr::new(ip, PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_as_they_are_written() {
        for (text, right) in [
            ("192.0.2.1", Some("192.0.2.1:53")),
            ("192.0.2.1:5353", Some("192.0.2.1:5353")),
            ("2001:db8::1", Some("[2001:db8::1]:53")),
            ("[2001:db8::1]:5353", Some("[2001:db8::1]:5353")),
            ("ns1.example.org", None),
            ("", None),
        ] {
            assert_eq!(server(text).ok().map(|at| at.to_string()).as_deref(), right, "{text}");
        }
    }

    #[test]
    fn what_resolv_conf_lists() {
        let text = "# nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # ours\n\
                    nameserver fe80::1%eth0\nnameserver\noptions edns0\n";
        let listed: Vec<_> = listed(text).iter().map(ToString::to_string).collect();
        assert_eq!(listed, ["192.0.2.1:53", "[2001:db8::1]:53"]);
    }
}
