//! A client's configuration, as `wg-quick` and WireGuard's apps read it: as text, and as a QR code. Pure.

use std::fmt::Display;

use charliehub_proto::{peer::Peer, policy::Vpn};
use ipnet::IpNet;
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2, types::QrError};

/// So that a NAT on the way remembers the client.
const KEEPALIVE_SECONDS: u16 = 25;

/// White on black, whatever the terminal's colours are: a reader needs the light to be light.
const COLOURS: (&str, &str) = ("\x1b[38;5;231;48;5;16m", "\x1b[0m");

/// Writes it. Without a private key there is a comment in its place.
pub(super) fn text(peer: &Peer, hub: &str, vpn: &Vpn, sites: &[IpNet], private_key: Option<&str>) -> String {
    let mut lines = vec![format!("# {}, a client of {hub}", peer.name), "[Interface]".to_owned()];
    lines.push(match private_key {
        Some(key) => format!("PrivateKey = {key}"),
        None => format!("# PrivateKey = the one that {} was made of", peer.public_key),
    });
    lines.push(format!("Address = {}", list(&peer.addresses)));
    if !vpn.dns.is_empty() {
        lines.push(format!("DNS = {}", list(&vpn.dns)));
    }
    lines.extend(vpn.mtu.map(|mtu| format!("MTU = {mtu}")));
    lines.extend([
        String::new(),
        "[Peer]".to_owned(),
        format!("PublicKey = {}", vpn.public_key),
        format!("Endpoint = {}", vpn.endpoint),
        format!("AllowedIPs = {}", list(&routes(vpn, sites))),
        format!("PersistentKeepalive = {KEEPALIVE_SECONDS}"),
        String::new(),
    ]);
    lines.join("\n")
}

/// What the client sends through the VPN: what the policy says, else the networks of the sites and its own.
fn routes(vpn: &Vpn, sites: &[IpNet]) -> Vec<IpNet> {
    if !vpn.routes.is_empty() {
        return vpn.routes.clone();
    }
    IpNet::aggregate(&vpn.addresses.iter().map(IpNet::trunc).chain(sites.iter().copied()).collect())
}

fn list<T: Display>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Draws it in half blocks, light on dark; `in_colour` for a terminal.
pub(super) fn qr(text: &str, in_colour: bool) -> Result<String, QrError> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)?;
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .module_dimensions(1, 1)
        .build();
    let (begin, end) = if in_colour { COLOURS } else { ("", "") };
    Ok(drawn.lines().flat_map(|line| [begin, line, end, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyMTI=";

    fn peer() -> Peer {
        let peer = json!({"name": "anna", "public_key": KEY, "addresses": ["10.99.0.7/32", "fd99::7/128"]});
        serde_json::from_value(peer).unwrap()
    }

    fn vpn(more: &serde_json::Value) -> Vpn {
        let mut vpn = json!({"interface": "wg-clients", "public_key": "HUB", "endpoint": "vpn.example.org:51820",
            "addresses": ["10.99.0.1/24", "fd99::1/64"]});
        vpn.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(vpn).unwrap()
    }

    fn sites() -> Vec<IpNet> {
        ["10.44.0.0/16", "10.35.0.0/16", "10.99.0.0/24"].map(|text| text.parse().unwrap()).into()
    }

    #[test]
    fn all_that_the_policy_says_is_in_it() {
        let vpn = vpn(&json!({"dns": ["10.44.0.53", "fd44::53"], "mtu": 1380, "routes": ["0.0.0.0/0", "::/0"]}));
        assert_eq!(
            text(&peer(), "hub2", &vpn, &sites(), Some("SECRET")),
            "# anna, a client of hub2\n[Interface]\nPrivateKey = SECRET\nAddress = 10.99.0.7/32, fd99::7/128\n\
             DNS = 10.44.0.53, fd44::53\nMTU = 1380\n\n[Peer]\nPublicKey = HUB\nEndpoint = vpn.example.org:51820\n\
             AllowedIPs = 0.0.0.0/0, ::/0\nPersistentKeepalive = 25\n"
        );
    }

    #[test]
    fn without_routes_the_sites_and_the_vpn_are_behind_it() {
        let told = text(&peer(), "hub2", &vpn(&json!({})), &sites(), None);
        assert!(told.contains("\nAllowedIPs = 10.35.0.0/16, 10.44.0.0/16, 10.99.0.0/24, fd99::/64\n"), "{told}");
        assert!(told.contains(&format!("\n# PrivateKey = the one that {KEY} was made of\n")), "{told}");
        assert!(!told.contains("DNS") && !told.contains("MTU"), "{told}");
    }

    /// The modules that half blocks stand for: true is dark.
    fn modules(drawn: &str) -> Vec<Vec<bool>> {
        let rows = drawn.lines().flat_map(|line| {
            let halves = |light: [char; 2]| line.chars().map(move |c| !light.contains(&c)).collect::<Vec<bool>>();
            [halves(['█', '▀']), halves(['█', '▄'])]
        });
        rows.collect()
    }

    #[test]
    fn a_phone_reads_of_the_drawing_what_the_text_says() {
        let wanted = text(&peer(), "hub2", &vpn(&json!({"dns": ["10.44.0.53"]})), &sites(), Some(KEY));
        let drawn = qr(&wanted, false).unwrap();
        assert!(drawn.lines().all(|line| line.chars().count() <= 80) && drawn.lines().count() <= 40, "{drawn}");
        let dark = modules(&drawn);
        // As a camera sees it: each module some pixels wide.
        let side = dark[0].len();
        let pixel = |x: usize, y: usize| dark.get(y / 4).is_some_and(|row| row[x / 4]);
        let mut seen =
            rqrr::PreparedImage::prepare_from_greyscale(side * 4, side * 4, |x, y| if pixel(x, y) { 0 } else { 255 });
        let grids = seen.detect_grids();
        assert_eq!(grids.len(), 1, "{drawn}");
        assert_eq!(grids[0].decode().unwrap().1, wanted);

        let coloured = qr(&wanted, true).unwrap();
        assert_eq!(coloured.replace(COLOURS.0, "").replace(COLOURS.1, ""), drawn);
    }
}
