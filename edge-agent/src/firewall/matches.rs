//! One thing that a rule asks of a packet, in one spelling; and what follows from what.
//!
//! Spellings are those of iptables 1.8 (`iptables-extensions(8)`, and what `iptables-save` made of them). Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::rule::Services;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Match {
    pub(crate) negated: bool,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    /// By name, in lower case.
    Protocol(String),
    Source(IpNet),
    Destination(IpNet),
    /// The interface; `+` at its end stands for anything.
    In(String),
    Out(String),
    Fragment,
    /// Any of these ranges, in order, apart from each other.
    Ports(Side, Vec<(u16, u16)>),
    /// Anything else, by module and option.
    Other {
        module: String,
        option: String,
        values: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    Source,
    Destination,
    /// One of the two, as multiport's `--ports`.
    Either,
}

impl Match {
    /// Every packet is so.
    pub(crate) fn is_everything(&self) -> bool {
        match &self.what {
            What::Source(net) | What::Destination(net) => !self.negated && net.prefix_len() == 0,
            What::Ports(_, ranges) => !self.negated && ranges == &[(0, u16::MAX)],
            What::Protocol(_) | What::In(_) | What::Out(_) | What::Fragment | What::Other { .. } => false,
        }
    }

    /// A packet that is as this says is also as the other says.
    pub(crate) fn implies(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        // Sets A (mine) and B (the other's): A in B, not A in not B, A in not B; `not A in B` is never told.
        let follows = |a_in_b: bool, b_in_a: bool, apart: bool| match (self.negated, other.negated) {
            (false, false) => a_in_b,
            (true, true) => b_in_a,
            (false, true) => apart,
            (true, false) => false,
        };
        match (&self.what, &other.what) {
            (What::Protocol(a), What::Protocol(b)) => follows(a == b, a == b, a != b),
            (What::Source(a), What::Source(b)) | (What::Destination(a), What::Destination(b)) => {
                follows(b.contains(a), a.contains(b), !a.contains(b) && !b.contains(a))
            }
            (What::In(a), What::In(b)) | (What::Out(a), What::Out(b)) => {
                let apart = !takes(a, b) && !takes(b, a);
                follows(takes(b, a), takes(a, b), apart)
            }
            (What::Ports(side, a), What::Ports(of, b)) if side == of && *side != Side::Either => {
                follows(within(a, b), within(b, a), apart(a, b))
            }
            _ => false,
        }
    }
}

/// The pattern takes every interface that `name`, itself perhaps a pattern, takes.
fn takes(pattern: &str, name: &str) -> bool {
    pattern == name || pattern.strip_suffix('+').is_some_and(|start| name.trim_end_matches('+').starts_with(start))
}

fn within(inner: &[(u16, u16)], outer: &[(u16, u16)]) -> bool {
    inner.iter().all(|(from, to)| outer.iter().any(|(low, high)| low <= from && to <= high))
}

fn apart(a: &[(u16, u16)], b: &[(u16, u16)]) -> bool {
    a.iter().all(|(from, to)| b.iter().all(|(low, high)| high < from || to < low))
}

/// A protocol by its name in lower case, the numbers that have one among them.
pub(crate) fn protocol(text: &str) -> String {
    const NAMES: &[(&str, &str)] = &[
        ("0", "all"),
        ("1", "icmp"),
        ("2", "igmp"),
        ("4", "ipencap"),
        ("6", "tcp"),
        ("17", "udp"),
        ("33", "dccp"),
        ("41", "ipv6"),
        ("47", "gre"),
        ("50", "esp"),
        ("51", "ah"),
        ("58", "ipv6-icmp"),
        ("89", "ospf"),
        ("112", "vrrp"),
        ("132", "sctp"),
        ("135", "mh"),
        ("136", "udplite"),
        ("icmpv6", "ipv6-icmp"),
        ("icmp6", "ipv6-icmp"),
        ("ipv6-mh", "mh"),
        ("mobility-header", "mh"),
    ];
    let text = text.to_ascii_lowercase();
    NAMES.iter().find(|(other, _)| *other == text).map_or(text, |(_, name)| (*name).to_owned())
}

/// `172.16.0.0/12`, `172.16.0.0/255.240.0.0`, `10.0.0.1`, `::1`, `localhost`; host bits are cut off.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let (address, mask) = text.split_once('/').map_or((text, None), |(address, mask)| (address, Some(mask)));
    let address: IpAddr = match address {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        "0" => Ipv4Addr::UNSPECIFIED.into(),
        other => other.parse().ok()?,
    };
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match mask {
        None => widest,
        Some(mask) => match mask.parse::<u8>() {
            Ok(length) => length,
            Err(_) => ipnet::ip_mask_to_prefix(mask.parse().ok()?).ok()?,
        },
    };
    Some(IpNet::new(address, prefix).ok()?.trunc())
}

/// Reads any option that is not one of the general ones; true with it when this spelling is known to be the only one left.
pub(crate) fn option(
    negated: bool,
    module: &str,
    option: &str,
    values: &[String],
    services: &Services,
) -> (Option<Match>, bool) {
    let first = values.first().map_or("", String::as_str);
    let side = match option {
        "--dport" | "--destination-port" | "--dports" | "--destination-ports" => Some(Side::Destination),
        "--sport" | "--source-port" | "--sports" | "--source-ports" => Some(Side::Source),
        "--ports" | "--port" => Some(Side::Either),
        _ => None,
    };
    if let Some(side) = side
        && let Some(ranges) = ports(first, services)
    {
        let read = Match { negated, what: What::Ports(side, ranges) };
        return ((!read.is_everything()).then_some(read), true);
    }
    let (option, values, is_known) = spelled(option, values);
    // The protocols' own modules need not be named; the same option of another module is another.
    let is_of_protocol = matches!(option.as_str(), "--tcp-flags" | "--icmp-type" | "--icmpv6-type");
    let module = if is_of_protocol || matches!(module, "tcp" | "udp" | "icmp" | "icmp6") { "" } else { module };
    (Some(Match { negated, what: What::Other { module: module.to_owned(), option, values } }), is_known)
}

/// Ranges of ports, sorted and joined: `22,80:90,http`.
fn ports(list: &str, services: &Services) -> Option<Vec<(u16, u16)>> {
    let one = |text: &str| text.parse().ok().or_else(|| services.get(text).copied());
    let mut ranges = Vec::new();
    for item in list.split(',').take(64) {
        let (low, high) = match item.split_once(':') {
            None => (one(item)?, one(item)?),
            Some((low, high)) => {
                (if low.is_empty() { 0 } else { one(low)? }, if high.is_empty() { u16::MAX } else { one(high)? })
            }
        };
        ranges.push((low.min(high), low.max(high)));
    }
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (low, high) in ranges {
        match joined.last_mut() {
            Some((_, end)) if u32::from(low) <= u32::from(*end) + 1 => *end = (*end).max(high),
            _ => joined.push((low, high)),
        }
    }
    Some(joined)
}

/// Option and values as iptables-save writes them, and whether nothing else can mean the same.
fn spelled(option: &str, values: &[String]) -> (String, Vec<String>, bool) {
    let first = values.first().map_or("", String::as_str);
    let plain = |is_known| (option.to_owned(), values.to_vec(), is_known);
    let with = |option: &str, values: Vec<String>| (option.to_owned(), values, true);
    match option {
        "--ctstate" | "--state" | "--dst-type" | "--src-type" => with(option, vec![list(&first.to_ascii_uppercase())]),
        "--syn" => with("--tcp-flags", vec![list("FIN,SYN,RST,ACK"), "SYN".to_owned()]),
        "--tcp-flags" if values.len() == 2 => with(option, values.iter().map(|flags| list(flags)).collect()),
        "--icmp-type" => match first {
            "echo-reply" | "pong" => with(option, vec!["0".to_owned()]),
            "echo-request" | "ping" => with(option, vec!["8".to_owned()]),
            number => plain(number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'/')),
        },
        "--icmpv6-type" => match first {
            "echo-request" | "ping" => with(option, vec!["128".to_owned()]),
            "echo-reply" | "pong" => with(option, vec!["129".to_owned()]),
            number => plain(number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'/')),
        },
        "--mark" => match number(first) {
            Some(mark) => with(option, vec![format!("0x{mark:x}")]),
            None => plain(false),
        },
        "--set-mark" => match number(first) {
            Some(mark) => with("--set-xmark", vec![format!("0x{mark:x}/0xffffffff")]),
            None => plain(false),
        },
        "--reject-with" | "--set-xmark" | "--to-destination" | "--to-source" | "--log-prefix" | "--limit-burst" => {
            plain(values.len() == 1)
        }
        "--limit" => {
            let (count, unit) = first.split_once('/').unwrap_or((first, "s"));
            let unit = match unit.chars().next() {
                Some('s') => "sec",
                Some('m') => "min",
                Some('h') => "hour",
                Some('d') => "day",
                _ => return plain(false),
            };
            with(option, vec![format!("{count}/{unit}")])
        }
        _ => plain(false),
    }
}

/// A list whose order means nothing.
fn list(text: &str) -> String {
    let mut items: Vec<&str> = text.split(',').collect();
    items.sort_unstable();
    items.dedup();
    items.join(",")
}

fn number(text: &str) -> Option<u32> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok())
}
