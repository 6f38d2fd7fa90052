//! Who manages this host now: sessions on its management ports, the provider, and where it is always managed from.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use tokio::task::spawn_blocking;

use super::{super::right::Obstacle, plan::Manager};
use crate::config;

/// Each once. `provider`: where it is.
pub(crate) async fn managers(settings: &config::Act, provider: &[IpAddr]) -> Result<Vec<Manager>, Obstacle> {
    let ports = settings.management_ports.clone();
    let sessions = match spawn_blocking(move || sessions(&ports)).await {
        Ok(sessions) => sessions,
        Err(error) => Err(io::Error::other(error)),
    };
    let sessions = sessions.map_err(|error| {
        Obstacle::unknown(
            format!("who is connected to this host cannot be read: {error}"),
            "let the agent read /proc/net/tcp: it removes nobody whose peer may be the way to it",
        )
    })?;
    let host = |address: IpAddr, who: &str| Manager { network: address.into(), who: format!("{who} {address}") };
    let is_elsewhere = |address: &&IpAddr| !address.is_loopback();
    let mut all: Vec<Manager> = sessions.iter().filter(is_elsewhere).map(|one| host(*one, "a session from")).collect();
    all.extend(provider.iter().filter(is_elsewhere).map(|one| host(*one, "the provider at")));
    let from = settings.managed_from.iter().map(IpNet::trunc);
    all.extend(from.map(|network| Manager { network, who: format!("whoever manages this host from {network}") }));
    all.sort_by(|a, b| (a.network, &a.who).cmp(&(b.network, &b.who)));
    all.dedup();
    Ok(all)
}

/// Where those come from who are connected to one of these ports.
fn sessions(ports: &[u16]) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => {
                let established = text.lines().filter_map(established);
                found.extend(established.filter(|(local, _)| ports.contains(&local.port())).map(|(_, far)| far.ip()));
            }
            // Of a kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Both ends of a line of the kernel's table, where they are connected.
fn established(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = line.split_whitespace().skip(1);
    let (local, far, state) = (words.next()?, words.next()?, words.next()?);
    Some((address(local)?, address(far)?)).filter(|_| state == "01")
}

/// `0100007F:0016` is 127.0.0.1:22: words of 32 bits as this machine has them, in hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8)
        .map(|at| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    let bytes = words?.concat();
    let ip = match (<[u8; 4]>::try_from(bytes.as_slice()), <[u8; 16]>::try_from(bytes.as_slice())) {
        (Ok(four), _) => Ipv4Addr::from(four).into(),
        (_, Ok(sixteen)) => Ipv6Addr::from(sixteen).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernels_table() {
        const TAIL: &str =
            " 00000000:00000000 02:000A0B0C 00000000     0        0 12345 4 0000000000000000 20 4 29 10 -1";
        let both = |line: &str| established(&(line.to_owned() + TAIL)).map(|(local, far)| format!("{local} {far}"));
        for (line, wanted) in [
            ("   1: 0A002C0A:0016 0B002C0A:D431 01", Some("10.44.0.10:22 10.44.0.11:54321")),
            ("   2: 0A002C0A:0016 0B002C0A:D431 06", None),
            (
                "   3: 0000000000000000FFFF00000A002C0A:0016 0000000000000000FFFF00000B002C0A:D431 01",
                Some("10.44.0.10:22 10.44.0.11:54321"),
            ),
            (
                "   4: B80D0120000000000000000001000000:0016 B80D0120000000000000000002000000:D431 01",
                Some("[2001:db8::1]:22 [2001:db8::2]:54321"),
            ),
            ("  sl  local_address rem_address   st", None),
        ] {
            assert_eq!(both(line).as_deref(), wanted, "{line}");
        }
    }

    #[tokio::test]
    async fn who_is_connected_is_found() {
        let listener = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(sessions(&[port]).unwrap(), Vec::<IpAddr>::new());
        let _client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_eq!(sessions(&[port]).unwrap(), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        let settings = config::Act {
            management_ports: vec![port],
            managed_from: vec!["10.44.0.1/16".parse().unwrap()],
            ..config::Act::default()
        };
        let found = managers(&settings, &["198.51.100.7".parse().unwrap(), Ipv4Addr::LOCALHOST.into()]).await.unwrap();
        let found: Vec<String> = found.into_iter().map(|one| one.who).collect();
        assert_eq!(
            found,
            ["whoever manages this host from 10.44.0.0/16", "the provider at 198.51.100.7"],
            "who comes from here comes by no peer"
        );
    }
}
