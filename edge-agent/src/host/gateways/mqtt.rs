//! The packets of MQTT 3.1.1 that a listener needs, and which topic fits which filter.
//!
//! A listener subscribes with QoS 0, so nothing is acknowledged. Payloads are skipped as they arrive: what a gateway says is
//! not our business, and however long it is, nothing of it is kept.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, copy, sink};

/// What a broker may say that is no message: a SUBACK has a byte a filter.
const MOST: usize = 64 << 10;

pub(super) const PING: [u8; 2] = [0xC0, 0];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// 0 is welcome; 4 and 5: not let in.
    ConnAck(u8),
    /// For each filter 0 to 2, or 0x80: refused.
    SubAck(Vec<u8>),
    Publish {
        topic: String,
        /// The broker kept it from before; nobody has just sent it.
        is_retained: bool,
    },
    Other,
}

/// CONNECT with a clean session. `keepalive` in seconds.
pub(super) fn connect(client: &str, username: Option<&str>, password: Option<&[u8]>, keepalive: u16) -> Vec<u8> {
    let mut flags = 0x02;
    let mut rest = Vec::new();
    put(&mut rest, client.as_bytes());
    if let Some(username) = username {
        flags |= 0x80;
        put(&mut rest, username.as_bytes());
        if let Some(password) = password {
            flags |= 0x40;
            put(&mut rest, password);
        }
    }
    let mut body = Vec::new();
    put(&mut body, b"MQTT");
    body.extend([4, flags]);
    body.extend(keepalive.to_be_bytes());
    body.extend(rest);
    packet(0x10, &body)
}

/// SUBSCRIBE to all of them, with QoS 0.
pub(super) fn subscribe(filters: &[String]) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        put(&mut body, filter.as_bytes());
        body.push(0);
    }
    packet(0x82, &body)
}

/// A text with its length before it. The protocol has two bytes for that; what is longer is cut.
fn put(body: &mut Vec<u8>, text: &[u8]) {
    let text = text.get(..usize::from(u16::MAX)).unwrap_or(text);
    body.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(text);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        let seven = u8::try_from(left % 128).unwrap_or(0);
        left /= 128;
        packet.push(if left > 0 { seven | 0x80 } else { seven });
        if left == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// Reads one packet, whatever its length.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Packet> {
    let first = from.read_u8().await?;
    let mut left = length(from).await?;
    if first >> 4 == 3 {
        let size = usize::from(from.read_u16().await?);
        let topic = bytes(from, &mut left, 2, size).await?;
        let skipped = copy(&mut from.take(u64::try_from(left).unwrap_or(u64::MAX)), &mut sink()).await?;
        if usize::try_from(skipped) != Ok(left) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let topic = String::from_utf8(topic).map_err(|_| odd("a topic is not UTF-8"))?;
        return Ok(Packet::Publish { topic, is_retained: first & 1 == 1 });
    }
    if left > MOST {
        return Err(odd("a packet is too long"));
    }
    let size = left;
    let body = bytes(from, &mut left, 0, size).await?;
    Ok(match (first >> 4, body.as_slice()) {
        (2, [_, code]) => Packet::ConnAck(*code),
        (9, [_, _, codes @ ..]) => Packet::SubAck(codes.to_vec()),
        (2 | 9, _) => return Err(odd("an answer is cut short")),
        _ => Packet::Other,
    })
}

/// Takes `size` bytes of the `left` ones, after `before` that were read already.
async fn bytes(
    from: &mut (impl AsyncRead + Unpin),
    left: &mut usize,
    before: usize,
    size: usize,
) -> io::Result<Vec<u8>> {
    *left = left.checked_sub(before + size).ok_or_else(|| odd("a packet is shorter than what is in it"))?;
    let mut bytes = vec![0; size];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Seven bits a byte, the lowest first, at most four of them.
async fn length(from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
    let mut length = 0;
    for place in 0..4 {
        let byte = from.read_u8().await?;
        length |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(odd("a length has five bytes"))
}

fn odd(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it does not speak MQTT 3.1.1: {why}"))
}

/// True for what may be subscribed to: `+` and `#` are whole levels, and `#` is the last.
pub(super) fn is_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    let is_level = |(place, level): (usize, &&str)| match *level {
        "#" => place + 1 == levels.len(),
        "+" => true,
        other => !other.contains(['+', '#', '\0']),
    };
    !text.is_empty() && u16::try_from(text.len()).is_ok() && levels.iter().enumerate().all(is_level)
}

/// Whether a filter takes a topic. What begins with `$` is the broker's own, and no wildcard takes it.
pub(super) fn fits(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filters, mut topics) = (filter.split('/'), topic.split('/'));
    loop {
        match (filters.next(), topics.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(filter), Some(topic)) if filter == topic => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn parse(mut bytes: &[u8]) -> io::Result<Packet> {
        read(&mut bytes).now_or_never().expect("bytes are there or not")
    }

    #[test]
    fn filters_take_what_the_standard_says() {
        for (filter, topic, fit) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+/c", "a/b/c", true),
            ("a/#", "a/b/c", true),
            ("a/#", "a", true),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("a/+", "a/", true),
        ] {
            assert_eq!(fits(filter, topic), fit, "{filter} {topic}");
        }
        for (filter, right) in
            [("a/+/#", true), ("#/a", false), ("a+", false), ("", false), ("+", true), ("a/b#", false)]
        {
            assert_eq!(is_filter(filter), right, "{filter}");
        }
    }

    #[test]
    fn packets_are_those_of_mosquitto() {
        assert_eq!(
            connect("id", Some("u"), Some(b"p"), 30),
            b"\x10\x14\x00\x04MQTT\x04\xC2\x00\x1E\x00\x02id\x00\x01u\x00\x01p"
        );
        assert_eq!(subscribe(&["a/#".to_owned()]), b"\x82\x08\x00\x01\x00\x03a/#\x00");
        assert_eq!(parse(b"\x20\x02\x00\x05").unwrap(), Packet::ConnAck(5));
        assert_eq!(parse(b"\x90\x04\x00\x01\x00\x80").unwrap(), Packet::SubAck(vec![0, 0x80]));
        let publish = |is_retained| Packet::Publish { topic: "a/b".to_owned(), is_retained };
        assert_eq!(parse(b"\x30\x07\x00\x03a/bhi").unwrap(), publish(false));
        assert_eq!(parse(b"\x31\x05\x00\x03a/b").unwrap(), publish(true));
        assert_eq!(parse(b"\xD0\x00").unwrap(), Packet::Other);
        for wrong in [
            &b"\x30\x02\x00\x03a/b"[..],
            b"\x20\x01\x00",
            b"\x30\x07\x00\x03a/bh",
            b"\x90\xFF\xFF\xFF\xFF\x01",
            b"\xE0\xFF\xFF\x7F",
            b"",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        let long = packet(0x30, &[&b"\x00\x01a"[..], &vec![0; 300_000]].concat());
        assert_eq!(parse(&long).unwrap(), Packet::Publish { topic: "a".to_owned(), is_retained: false });
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            parse(&bytes).ok();
        }

        #[test]
        fn a_filter_takes_its_own_text(topic in "[a-c/]{1,12}", other in "[+#a-c/$]{0,12}") {
            prop_assert!(fits(&topic, &topic) && is_filter(&topic));
            fits(&other, &topic);
        }
    }
}
