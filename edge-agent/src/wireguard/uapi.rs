//! Reads a userspace tunnel through its socket, in the protocol of <https://www.wireguard.com/xplatform/>.
//!
//! The answer holds the private key: it becomes the public one here, or nothing, and is written nowhere.

use std::{
    fmt::Write as _,
    io::{self, ErrorKind},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use super::{
    facts::{Device, Key, NoDevice, Peer, Unseen},
    write::{Change, Order, Secret},
};

/// An answer is at most so long: some 10,000 peers.
const LONGEST: usize = 4 << 20;

/// A process that runs answers within a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);

/// What went wrong with an answer. None of its text is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the answer was cut short")]
    Short,
    #[error("line {0} of the answer is not understood")]
    Line(usize),
    #[error("the answer is an error, {0}")]
    Errno(i64),
}

/// Asks the process behind `socket`. Its own public key is worked out only where it is `wanted`: that takes 40 µs.
pub(super) async fn read(socket: &Path, is_key_wanted: bool) -> Result<Device, NoDevice> {
    let unseen = |why: String, remedy: &str| NoDevice::Unseen(Unseen::new(why, remedy));
    let asked = timeout(PATIENCE, ask(socket, b"get=1\n\n")).await.map_err(|_| {
        unseen(
            format!("{} did not answer within {} s", socket.display(), PATIENCE.as_secs()),
            "see what the process of the tunnel is doing; restart it if it hangs",
        )
    })?;
    #[expect(clippy::wildcard_enum_match_arm, reason = "of the many kinds of errors these say something of tunnels")]
    let mut answer = asked.map_err(|error| match error.kind() {
        ErrorKind::NotFound => NoDevice::Absent,
        ErrorKind::ConnectionRefused => NoDevice::Refused,
        ErrorKind::PermissionDenied => unseen(
            format!("no permission to ask {}", socket.display()),
            "run the agent with CAP_DAC_OVERRIDE, or as root: the sockets of tunnels are root's alone",
        ),
        _ => unseen(format!("cannot ask {}: {error}", socket.display()), "see the log of the tunnel's process"),
    })?;
    let device = parse(&answer, is_key_wanted);
    answer.fill(0);
    device.map(|device| Device { source: socket.display().to_string(), ..device }).map_err(|error| {
        unseen(format!("{}: {error}", socket.display()), "see that the process of the tunnel is a current WireGuard")
    })
}

async fn ask(socket: &Path, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(question).await?;
    let mut answer = Vec::with_capacity(64 << 10); // not grown, so not copied, for up to 200 peers
    while !answer.ends_with(b"\n\n") && answer.len() < LONGEST {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    Ok(answer)
}

/// Changes the tunnel.
pub(super) async fn set(socket: &Path, orders: &[Order<'_>]) -> io::Result<()> {
    let mut text = order(orders);
    let answer = timeout(PATIENCE, ask(socket, text.as_bytes())).await;
    wipe(&mut text);
    let answer = answer.map_err(|_| io::Error::from(ErrorKind::TimedOut))??;
    parse(&answer, false).map(drop).map_err(|error| io::Error::other(error.to_string()))
}

/// There may have been keys in it.
fn wipe(text: &mut String) {
    let mut bytes = std::mem::take(text).into_bytes();
    bytes.fill(0);
}

fn order(orders: &[Order<'_>]) -> String {
    // Not grown, so not copied: 100 peers of 10 networks.
    let mut text = String::with_capacity(64 << 10);
    text += "set=1\n";
    for order in orders {
        let (peer, how, changes) = match order {
            Order::OwnKey(private) => {
                key_line(&mut text, "private_key", &private.0);
                continue;
            }
            Order::Remove(peer) => (peer, "remove=true\n", [].as_slice()),
            Order::Change(peer, changes) => (peer, "update_only=true\n", changes.as_slice()),
            Order::Make(peer, changes) => (peer, "", changes.as_slice()),
        };
        key_line(&mut text, "public_key", &peer.0);
        text += how;
        for change in changes {
            change_lines(&mut text, *change);
        }
    }
    text + "\n"
}

fn change_lines(text: &mut String, change: Change<'_>) {
    match change {
        Change::AllowedIps { networks, is_replacing } => {
            if is_replacing {
                *text += "replace_allowed_ips=true\n";
            }
            for network in networks {
                let _ = writeln!(text, "allowed_ip={network}");
            }
        }
        Change::Endpoint(endpoint) => {
            let _ = writeln!(text, "endpoint={endpoint}");
        }
        Change::Keepalive(seconds) => {
            let _ = writeln!(text, "persistent_keepalive_interval={seconds}");
        }
        Change::PresharedKey(key) => key_line(text, "preshared_key", &key.0),
    }
}

fn key_line(text: &mut String, name: &str, key: &[u8; 32]) {
    let _ = write!(text, "{name}=");
    for byte in key {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
}

/// Reads an answer to `get=1`. What newer versions add is passed over.
pub(super) fn parse(answer: &[u8], is_key_wanted: bool) -> Result<Device, Error> {
    let text = str::from_utf8(answer).map_err(|_| Error::Line(0))?.strip_suffix("\n\n").ok_or(Error::Short)?;
    let mut device = Device::default();
    let mut errno = None;
    for (number, line) in text.lines().enumerate() {
        let bad = Error::Line(number + 1);
        let (name, value) = line.split_once('=').ok_or(bad)?;
        match (name, device.peers.last_mut()) {
            ("errno", _) => errno = Some(value.parse().map_err(|_| bad)?),
            ("private_key", None) => {
                let private = Secret(key(value).ok_or(bad)?);
                device.own_key = is_key_wanted.then(|| private.public());
            }
            ("listen_port", None) => device.port = value.parse().map_err(|_| bad)?,
            ("public_key", _) => device.peers.push(Peer::new(Key(key(value).ok_or(bad)?))),
            (_, None) => {}
            (name, Some(peer)) => fill(peer, name, value).ok_or(bad)?,
        }
    }
    match errno {
        Some(0) => Ok(device),
        Some(errno) => Err(Error::Errno(errno)),
        None => Err(Error::Short),
    }
}

/// One line about a peer. None when it is not understood.
fn fill(peer: &mut Peer, name: &str, value: &str) -> Option<()> {
    match name {
        "endpoint" => peer.endpoint = Some(value.parse().ok()?),
        "last_handshake_time_sec" => {
            let seconds: u64 = value.parse().ok()?;
            peer.handshake = (seconds > 0).then_some(Duration::from_secs(seconds));
        }
        "last_handshake_time_nsec" => {
            let nanoseconds = Duration::from_nanos(value.parse().ok()?);
            peer.handshake = peer.handshake.map(|seconds| seconds.saturating_add(nanoseconds));
        }
        "rx_bytes" => peer.received = value.parse().ok()?,
        "tx_bytes" => peer.sent = value.parse().ok()?,
        "persistent_keepalive_interval" => peer.keepalive = value.parse().ok()?,
        "allowed_ip" => drop(peer.allowed_ips.insert(value.parse::<IpNet>().ok()?.trunc())),
        _ => {}
    }
    Some(())
}

/// 64 hexadecimal digits.
fn key(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    let mut pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(&mut pairs) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Private key and public key as `wg genkey` and `wg pubkey` made them; the rest from wireguard-go 0.0.20220316.
    const ANSWER: &str = "private_key=f89bdde3eb076ba066b6b8cc4cb1165e549a40902f95c62a5692a7996414e161\nlisten_port=51820\n\
        public_key=da9d8d91d4731bd585f6e984a849de607c14b4f54db5058e162bf8e56e0fab3c\nprotocol_version=1\n\
        endpoint=198.51.100.2:51820\nlast_handshake_time_sec=1795765866\nlast_handshake_time_nsec=501497605\n\
        tx_bytes=6964\nrx_bytes=6908\npersistent_keepalive_interval=25\nallowed_ip=10.44.0.1/16\n\
        allowed_ip=fd00::/64\nerrno=0\n\n";

    #[test]
    fn an_answer_of_wireguard_go() {
        let device = parse(ANSWER.as_bytes(), true).unwrap();
        assert_eq!(device.port, 51820);
        let [peer] = device.peers.as_slice() else { panic!("{device:?}") };
        assert_eq!(peer.key.to_string(), "2p2NkdRzG9WF9umEqEneYHwUtPVNtQWOFiv45W4Pqzw=");
        assert_eq!(peer.endpoint, Some("198.51.100.2:51820".parse().unwrap()));
        assert_eq!(peer.handshake, Some(Duration::new(1_795_765_866, 501_497_605)));
        assert_eq!((peer.sent, peer.received, peer.keepalive), (6964, 6908, 25));
        let allowed: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
        assert_eq!(allowed, ["10.44.0.0/16", "fd00::/64"], "masked, as the kernel has them");
    }

    #[test]
    fn the_own_public_key_only_where_it_is_wanted() {
        let own_key = |is_wanted| parse(ANSWER.as_bytes(), is_wanted).unwrap().own_key.map(|key| key.to_string());
        assert_eq!(own_key(true).as_deref(), Some("hgnS7gruSLwdyuNxT/BvOJ9wElypGRV3iWxzwkSEIVo="));
        assert_eq!(own_key(false), None);
    }

    #[test]
    fn a_peer_is_changed_in_one_thing_and_never_made() {
        let networks = ["10.44.0.0/16", "10.35.0.0/16"].map(|network| network.parse().unwrap()).into();
        let allowed = |is_replacing| Change::AllowedIps { networks: &networks, is_replacing };
        let head = format!("set=1\npublic_key={}\nupdate_only=true\n", "ab".repeat(32));
        for (change, lines) in [
            (allowed(false), "allowed_ip=10.35.0.0/16\nallowed_ip=10.44.0.0/16\n"),
            (allowed(true), "replace_allowed_ips=true\nallowed_ip=10.35.0.0/16\nallowed_ip=10.44.0.0/16\n"),
            (Change::Endpoint("198.51.100.2:51820".parse().unwrap()), "endpoint=198.51.100.2:51820\n"),
            (Change::Endpoint("[2001:db8::2]:51820".parse().unwrap()), "endpoint=[2001:db8::2]:51820\n"),
        ] {
            assert_eq!(order(&[Order::Change(Key([0xab; 32]), vec![change])]), format!("{head}{lines}\n"));
        }
    }

    #[test]
    fn one_order_changes_the_key_and_exchanges_a_peer() {
        let text = order(&[
            Order::OwnKey(Secret([1; 32])),
            Order::Remove(Key([2; 32])),
            Order::Make(Key([3; 32]), vec![Change::PresharedKey(Secret([4; 32])), Change::Keepalive(25)]),
        ]);
        let [own, old, new, shared] = [1, 2, 3, 4].map(|byte| format!("{byte:02x}").repeat(32));
        assert_eq!(
            text,
            format!(
                "set=1\nprivate_key={own}\npublic_key={old}\nremove=true\npublic_key={new}\npreshared_key={shared}\n\
                 persistent_keepalive_interval=25\n\n"
            )
        );
    }

    #[test]
    fn what_is_no_answer() {
        for (answer, error) in [
            ("", Error::Short),
            ("errno=0\n", Error::Short),
            ("listen_port=1\n\n", Error::Short),
            ("errno=-13\n\n", Error::Errno(-13)),
            ("listen_port=70000\nerrno=0\n\n", Error::Line(1)),
            ("nonsense\nerrno=0\n\n", Error::Line(1)),
            ("public_key=00\nerrno=0\n\n", Error::Line(1)),
        ] {
            assert_eq!(parse(answer.as_bytes(), true), Err(error), "{answer:?}");
        }
        assert!(parse(b"fresh_word=1\nerrno=0\n\n", true).is_ok(), "a newer version says more");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(answer in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            parse(&answer, true).ok();
        }

        /// Nor does an answer that is nearly right; and what is read is no longer than what was said.
        #[test]
        fn neither_does_a_torn_answer(at in 0..ANSWER.len(), byte in any::<u8>(), cut in 0..ANSWER.len()) {
            let mut answer = ANSWER.as_bytes().to_vec();
            answer[at] = byte;
            if let Ok(device) = parse(&answer, true) {
                prop_assert!(device.peers.iter().map(|peer| 1 + peer.allowed_ips.len()).sum::<usize>() <= 16);
            }
            prop_assert!(parse(&ANSWER.as_bytes()[..cut], true).is_err());
        }
    }
}
