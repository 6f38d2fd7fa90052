//! Says of each name whether it leads to the edge, and whether its issuer may issue.
//!
//! Pure, between what the servers said (`charliehub_dns`, `caa`) and the samples. What all of them say that answered is the
//! truth; where they differ that is told, server by server.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use charliehub_dns::{Error, Lookup, Saying, Server, Step, is_public, shown, wire::rr::Name};
use charliehub_proto::{domain::DnsMode, finding::Status};

use super::{
    Wanted,
    caa::{Bound, Refusal},
};
use crate::sample::Sample;

pub(super) const ADDRESS: &str = "dns-address";
pub(super) const CAA: &str = "dns-caa";

/// Looks until servers that differ are believed to: some take a while to hear of a change.
const DIFFERING: u32 = 10;

/// Looks until a server that is silent is believed to be.
const FAILING: u32 = 3;

/// Where a name leads, at the end of its aliases.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Addresses, and whose they are. None: there is the name, and no address.
    At(Name, BTreeSet<IpAddr>),
    NoSuchName(Name),
    /// An alias that leads back to itself.
    Circle(Name),
}

/// What is wrong with where it leads.
struct Wrong {
    says: String,
    remedy: String,
}

/// Where a name leads, held against the edge's addresses.
pub(super) fn address(
    text: &str,
    name: &Name,
    mode: DnsMode,
    steps: &Result<Vec<Step>, Error>,
    edge: &[IpAddr],
) -> Sample {
    let bad = if mode == DnsMode::External { Status::Warning } else { Status::Critical };
    let steps = match steps {
        Ok(steps) => steps,
        Err(error) => {
            return Sample::new(ADDRESS, text, bad, format!("where {text} leads cannot be told: {error}"))
                .remedy("give it an A record, or an alias that leads to one at once");
        }
    };
    let mut faults = BTreeSet::new();
    for step in steps {
        let lookup = match &step.found {
            Ok(lookup) => lookup,
            Err(error) => return unasked(text, &step.name, error),
        };
        let failed = failed(lookup);
        if lookup.said.iter().all(|one| one.said.is_err()) {
            let zone = shown(&lookup.zone.name);
            let sample = format!("no server of the zone {zone} says where {text} leads: {}", listed(&failed));
            return Sample::unknown(ADDRESS, text, sample).remedy(format!(
                "see that this host may ask any name server (udp and tcp, port 53), and whether those of {zone} run: `dig +trace {text}`"
            ));
        }
        faults.extend(failed);
    }
    let ends = ends(steps, name);
    let all: BTreeMap<&End, Option<Wrong>> = ends.keys().map(|end| (end, wrong(text, mode, end, edge))).collect();
    let observed = said(&ends);
    let wanted = match mode {
        DnsMode::Ddns => "a public address, of its site".to_owned(),
        DnsMode::Static | DnsMode::External => records(name, edge),
    };
    let fine = match mode {
        DnsMode::Ddns => "has a public address",
        DnsMode::Static | DnsMode::External => "leads here",
    };
    let sample = match all.values().flatten().next() {
        None if faults.is_empty() => return Sample::ok(ADDRESS, text, format!("{text} {fine}")).observed(observed),
        None => Sample::warning(ADDRESS, text, format!("{text} {fine}, but not by all: {}", listed(&faults)))
            .confirmed_by(FAILING)
            .remedy("mend that server, or take it out of the NS records of the zone, and of those above it"),
        // Some say so, and others what is right.
        Some(wrong) if all.values().any(Option::is_none) => Sample::warning(
            ADDRESS,
            text,
            format!("the servers of {text} disagree: by some {}", wrong.says),
        )
        .confirmed_by(DIFFERING)
        .remedy("see that all servers of the zone have its newest serial (`dig +nssearch ZONE`): one does not follow"),
        Some(wrong) => Sample::new(ADDRESS, text, bad, wrong.says.clone()).remedy(wrong.remedy.clone()),
    };
    sample.observed(observed).expected(wanted).source("the name servers of its zone")
}

/// The sample of a name that we could not ask for.
fn unasked(text: &str, at: &Name, error: &Error) -> Sample {
    let over = if shown(at) == text { String::new() } else { format!(", since {} cannot be asked for", shown(at)) };
    Sample::unknown(ADDRESS, text, format!("where {text} leads is not known{over}: {error}")).remedy(resolver(error))
}

fn resolver(error: &Error) -> &'static str {
    if *error == Error::NoResolver {
        "name a recursive resolver: `[dns] servers`, or a `nameserver` line in /etc/resolv.conf"
    } else if error.is_ours() {
        "see that this host may send to name servers: routes, and rules for port 53"
    } else {
        "see that the resolver answers (`dig SOA NAME`), or name others: `[dns] servers`; nothing is concluded from it"
    }
}

/// The servers that said nothing that can be used, though we could ask. That all of one family are out of reach while one of
/// the other answers says more of us than of them.
fn failed(lookup: &Lookup) -> BTreeSet<String> {
    let is_reached = |server: &Server| {
        let family = server.at.is_ipv4();
        lookup.said.iter().any(|one| one.said.is_ok() && one.server.at.is_ipv4() == family)
    };
    let is_any = lookup.said.iter().any(|one| one.said.is_ok());
    let errors = lookup.said.iter().filter_map(|one| Some((&one.server, one.said.as_ref().err()?)));
    let is_theirs = |(server, error): &(&Server, &Error)| {
        if error.is_silence() { is_reached(server) || !is_any } else { !error.is_ours() }
    };
    let of_servers = errors.filter(is_theirs).map(|(server, error)| format!("{}: {error}", shown(&server.name)));
    let nameless = lookup.zone.nameless.iter().filter(|(_, error)| !error.is_unresolved());
    of_servers.chain(nameless.map(|(name, _)| format!("{} has no address", shown(name)))).collect()
}

/// Where the name leads by each of its servers.
fn ends(steps: &[Step], name: &Name) -> BTreeMap<End, BTreeSet<Server>> {
    let mut ends: BTreeMap<End, BTreeSet<Server>> = BTreeMap::new();
    for (server, saying) in sayings(steps, name) {
        for end in follow(steps, name, saying, &mut vec![name]) {
            ends.entry(end).or_default().insert(server.clone());
        }
    }
    ends
}

fn sayings<'a>(steps: &'a [Step], name: &Name) -> impl Iterator<Item = (&'a Server, &'a Saying)> {
    let lookup = steps.iter().find(|step| step.name == *name).and_then(|step| step.found.as_ref().ok());
    let said = lookup.into_iter().flat_map(|lookup| &lookup.said);
    said.filter_map(|one| Some((&one.server, one.said.as_ref().ok()?)))
}

/// The ends of one saying: several where the servers of what it stands for differ.
fn follow<'a>(steps: &'a [Step], name: &Name, saying: &'a Saying, way: &mut Vec<&'a Name>) -> BTreeSet<End> {
    match saying {
        Saying::Addresses(addresses) => BTreeSet::from([End::At(name.clone(), addresses.clone())]),
        Saying::NoSuchName => BTreeSet::from([End::NoSuchName(name.clone())]),
        Saying::Alias(other) if way.contains(&other) => BTreeSet::from([End::Circle(other.clone())]),
        Saying::Alias(other) => {
            way.push(other);
            let distinct: BTreeSet<&Saying> = sayings(steps, other).map(|(_, saying)| saying).collect();
            let ends = distinct.into_iter().flat_map(|saying| follow(steps, other, saying, way)).collect();
            way.pop();
            ends
        }
    }
}

fn wrong(text: &str, mode: DnsMode, end: &End, edge: &[IpAddr]) -> Option<Wrong> {
    let set = |at: &Name| match mode {
        DnsMode::Ddns => format!("see why {} is not kept up: the provider's `[ddns]`, or who else does it", shown(at)),
        DnsMode::Static | DnsMode::External => format!("set {}", records(at, edge)),
    };
    let via = |at: &Name| if shown(at) == text { String::new() } else { format!(" stands for {}, which", shown(at)) };
    match end {
        End::NoSuchName(at) => {
            let says = match via(at).as_str() {
                "" => format!("there is no name {text} in DNS"),
                via => format!("{text}{via} is no name in DNS"),
            };
            Some(Wrong { says, remedy: set(at) })
        }
        End::Circle(at) => Some(Wrong {
            says: format!("{text} leads in a circle: {} stands for itself", shown(at)),
            remedy: format!("take out the CNAME record, and {}", set(at)),
        }),
        End::At(at, addresses) if addresses.is_empty() => {
            Some(Wrong { says: format!("{text}{} has no address", via(at)), remedy: set(at) })
        }
        End::At(at, addresses) => {
            let is_right = |ip: &IpAddr| match mode {
                DnsMode::Ddns => is_public(*ip),
                DnsMode::Static | DnsMode::External => edge.contains(ip),
            };
            let strange: Vec<&IpAddr> = addresses.iter().filter(|ip| !is_right(ip)).collect();
            if strange.is_empty() {
                return None;
            }
            let also = if strange.len() < addresses.len() { "also " } else { "" };
            let list = strange.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let why = if mode == DnsMode::Ddns {
                "which nobody on the internet reaches"
            } else if also.is_empty() {
                "which is not the edge"
            } else {
                "which is not the edge: some visitors go there"
            };
            let gone: Vec<_> = strange.iter().map(|ip| record(at, **ip)).collect();
            Some(Wrong {
                says: format!("{text}{} leads {also}to {list}, {why}", via(at)),
                remedy: format!("take out {}; {}", gone.join("; "), set(at)),
            })
        }
    }
}

fn record(at: &Name, ip: IpAddr) -> String {
    let kind = if ip.is_ipv4() { "A" } else { "AAAA" };
    format!("`{}. {kind} {ip}`", shown(at))
}

fn records(at: &Name, edge: &[IpAddr]) -> String {
    edge.iter().map(|ip| record(at, *ip)).collect::<Vec<_>>().join("; ")
}

/// What was said, and by whom where not all say the same.
fn said(ends: &BTreeMap<End, BTreeSet<Server>>) -> String {
    let is_one = ends.len() == 1;
    let lines = ends.iter().map(|(end, servers)| {
        let what = match end {
            End::At(at, addresses) if addresses.is_empty() => format!("{} without an address", shown(at)),
            End::At(at, addresses) => addresses.iter().map(|ip| record(at, *ip)).collect::<Vec<_>>().join(", "),
            End::NoSuchName(at) => format!("no name {}", shown(at)),
            End::Circle(at) => format!("a circle at {}", shown(at)),
        };
        let servers = servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if is_one { what } else { format!("{what} by {servers}") }
    });
    lines.collect::<Vec<_>>().join("; ")
}

fn listed(lines: &BTreeSet<String>) -> String {
    match lines.iter().cloned().collect::<Vec<_>>().join("; ") {
        text if text.is_empty() => "they cannot be asked from here".to_owned(),
        text => text,
    }
}

/// Whether the records that were found let one of `issuers` issue.
pub(super) fn caa(text: &str, mode: DnsMode, bound: &Bound, issuers: &[String]) -> Sample {
    let bad = if mode == DnsMode::External { Status::Warning } else { Status::Critical };
    let who = issuers.join(", ");
    let set = match bound {
        Bound::Free => return Sample::ok(CAA, text, format!("nothing keeps {who} from issuing for {text}")),
        Bound::By(set) => set,
        Bound::Failed { at, error } => return failed_caa(text, at, error),
    };
    let (owner, is_wildcard) = (shown(&set.owner), text.starts_with("*."));
    let refusal = match set.lets(issuers, is_wildcard) {
        Ok(()) => return Sample::ok(CAA, text, format!("{owner} lets {who} issue for {text}")).observed(set.shown()),
        Err(refusal) => refusal,
    };
    let add = |tag: &str| match issuers.first() {
        Some(issuer) => format!("add `{owner}. CAA 0 {tag} \"{issuer}\"`"),
        None => "name who issues here: `[dns] issuers`".to_owned(),
    };
    let (says, remedy) = match refusal {
        Refusal::Others(tag) => (
            format!(
                "the CAA records of {owner} do not let {who} issue for {text}: its certificate will not be renewed"
            ),
            format!("{}, or take its `{tag}` records out; `[dns] issuers` says who issues here", add(tag)),
        ),
        Refusal::Strange(property) => (
            format!(
                "a CAA record of {owner} binds issuers by `{}`, which they do not know: none will issue for {text}",
                property.tag
            ),
            format!("take out `{owner}. CAA {}`", property.shown()),
        ),
    };
    Sample::new(CAA, text, bad, says)
        .observed(set.shown())
        .source(format!("the name servers of {owner}"))
        .remedy(remedy)
}

fn failed_caa(text: &str, at: &Name, error: &Error) -> Sample {
    let at = shown(at);
    if error.is_answer() {
        let says = format!("the CAA records of {at} cannot be had: {error}; issuers take that for a no");
        return Sample::warning(CAA, text, says).confirmed_by(FAILING).remedy(format!(
            "see why its servers fail: `dig CAA {at}`; some old ones fail at types that they do not know"
        ));
    }
    Sample::unknown(CAA, text, format!("whether {text} has CAA records is not known, those of {at} neither: {error}"))
        .remedy(resolver(error))
}

/// A name that took too long.
pub(super) fn late(text: &str, wanted: Wanted, limit: Duration) -> Vec<Sample> {
    let why = format!("its servers, or those that tell who they are, take longer than {} s", limit.as_secs());
    of_both(text, wanted, &why, "see that name servers answer from this host: `dig +trace NAME`")
}

/// A name that cannot be asked for.
pub(super) fn strange(text: &str, wanted: Wanted, error: &Error) -> Vec<Sample> {
    of_both(text, wanted, &error.to_string(), "write it in lower case letters, digits and hyphens")
}

fn of_both(text: &str, wanted: Wanted, why: &str, remedy: &str) -> Vec<Sample> {
    let checks = [Some(ADDRESS), wanted.is_issued.then_some(CAA)].into_iter().flatten();
    checks.map(|check| Sample::unknown(check, text, format!("{text} is not known: {why}")).remedy(remedy)).collect()
}

#[cfg(test)]
mod tests;
