//! Judges the age of handshakes, with the keepalive and what was sent; tells of endpoints that moved and of restarts. Pure.
//!
//! Whoever began a session renews it 120 s later, once there is a packet to send, and after 180 s no key is taken any more
//! (WireGuard's paper, section 6). So with a keepalive the age says whether the tunnel lives; without one an idle tunnel may be of any age.
//! A request for a handshake has 148 bytes, an answer 92, and every other packet of a tunnel a multiple of 16: what was sent
//! between two looks tells requests without an answer.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use charliehub_proto::report::Endpoint;

use super::{
    facts::{self, Facts, Key},
    judge::{because, device, obstacle},
    wanted::{self, Wanted},
};
use crate::{clock::Now, config, sample::Sample};

const HANDSHAKE: &str = "wg-handshake";

/// A session is renewed when it is so old.
const RENEWED: Duration = Duration::from_mins(2);

/// A tunnel without a keepalive answers what it receives within so long, and that renews too.
const ANSWERED: Duration = Duration::from_secs(10);

/// No session is older, but for 5 s in which its successor is asked for.
const REFUSED: Duration = Duration::from_secs(185);

/// So many requests without an answer are no accident: 15 s.
const UNANSWERED: u32 = 3;

/// For how long it is told that an endpoint moved or a tunnel restarted.
const NEWS: Duration = Duration::from_mins(10);

/// What is known of the peers from earlier looks.
#[derive(Debug, Default)]
pub(super) struct Memory {
    peers: BTreeMap<(String, Key), Past>,
}

#[derive(Clone, Debug)]
struct Past {
    /// When we saw the peer first; again after a restart.
    since: Duration,
    index: u32,
    received: u64,
    sent: u64,
    handshake: Option<Duration>,
    /// When we saw the latest handshake become another. None: it was there when we came.
    changed: Option<Duration>,
    endpoint: Option<SocketAddr>,
    /// When something came from there last.
    heard: Option<Duration>,
    /// Requests and answers that led to no handshake.
    tries: u32,
    /// `received` before the first of them.
    received_then: u64,
    /// Something was sent, and since then nothing came back.
    is_waiting: bool,
    news: Option<(Duration, String)>,
}

/// Something that is no fault, and worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub target: String,
    pub site: String,
    pub text: String,
}

impl Memory {
    /// Takes a look at all peers in, and judges each.
    pub(super) fn judge(
        &mut self,
        wanted: &Wanted,
        facts: &Facts,
        now: Now,
        settings: &config::WireGuard,
    ) -> (Vec<Sample>, Vec<News>) {
        let (mut samples, mut news) = (Vec::new(), Vec::new());
        let mut before = std::mem::take(&mut self.peers);
        for (name, interface) in &wanted.interfaces {
            for peer in &interface.peers {
                let sample = match find(name, peer, facts) {
                    Ok((index, seen)) => {
                        let past = before.remove(&(name.clone(), seen.key));
                        let (past, text) = step(past, index, seen, now);
                        let sample = judge(name, peer, seen, &past, now, settings);
                        news.extend(text.map(|text| News {
                            target: peer.target.clone(),
                            site: peer.site.clone(),
                            text,
                        }));
                        self.peers.insert((name.clone(), seen.key), past);
                        sample
                    }
                    Err(why) => because(HANDSHAKE, &peer.target, &why),
                };
                samples.push(sample.site(peer.site.clone()));
            }
        }
        // A peer that is gone for one look comes back with what is known of it.
        before.retain(|(name, _), past| {
            wanted.interfaces.contains_key(name) && now.boot.saturating_sub(past.since) < NEWS
        });
        for (key, past) in before {
            self.peers.entry(key).or_insert(past);
        }
        (samples, news)
    }

    /// Where the sites' packets come from: of each the far end of its best tunnel, if something came from there in the life of a
    /// session.
    pub(super) fn endpoints(&self, wanted: &Wanted, now: Now) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for (name, peer) in wanted.peers() {
            let mut pasts = self.peers.iter().filter(|((of, key), _)| of == name && key.to_string() == peer.key);
            let Some((_, past)) = pasts.next() else { continue };
            let is_heard = past.heard.is_some_and(|heard| now.boot.saturating_sub(heard) <= REFUSED);
            let Some(endpoint) = past.endpoint.filter(|_| is_heard) else { continue };
            endpoints.extend(peer.sites.iter().map(|site| Endpoint {
                site: site.clone(),
                interface: name.clone(),
                address: endpoint.ip().to_canonical(),
            }));
        }
        endpoints.sort();
        endpoints
    }

    /// Adds to what is said of peers that are well what happened to them lately.
    pub(super) fn tell(&self, wanted: &Wanted, samples: &mut [Sample]) {
        for (name, peer) in wanted.peers() {
            let mut pasts =
                self.peers.iter().filter(|((interface, key), _)| interface == name && key.to_string() == peer.key);
            let Some((_, news)) = pasts.find_map(|(_, past)| past.news.as_ref()) else { continue };
            for sample in samples.iter_mut().filter(|sample| sample.check == "wg-peer" && sample.target == peer.target)
            {
                sample.text = format!("{}; {news}", sample.text);
            }
        }
    }
}

/// The peer, and the index of its interface; or why nothing can be said of its handshakes.
fn find<'f>(name: &str, wanted: &wanted::Peer, facts: &'f Facts) -> Result<(u32, &'f facts::Peer), String> {
    if let Some(why) = obstacle(name, facts) {
        return Err(why);
    }
    let index = facts.interfaces.get(name).and_then(|interface| interface.link.as_ref().ok()?.as_ref());
    let peer = device(name, facts)?.peers.iter().find(|peer| peer.key.to_string() == wanted.key);
    peer.map(|peer| (index.map_or(0, |link| link.index), peer)).ok_or_else(|| "the peer is absent".to_owned())
}

/// What is known after one more look, and what is news.
fn step(past: Option<Past>, index: u32, seen: &facts::Peer, now: Now) -> (Past, Option<String>) {
    let fresh = Past {
        since: now.boot,
        index,
        received: seen.received,
        sent: seen.sent,
        handshake: seen.handshake,
        changed: None,
        endpoint: seen.endpoint,
        heard: None,
        tries: 0,
        received_then: seen.received,
        is_waiting: false,
        news: None,
    };
    let Some(past) = past else { return (fresh, None) };
    let moved = match (past.endpoint, seen.endpoint) {
        (Some(old), Some(new)) if old != new => Some(format!("its endpoint moved from {old} to {new}")),
        _ => None,
    };
    let has_restarted = index != past.index || seen.sent < past.sent || seen.received < past.received;
    let text = moved.or_else(|| has_restarted.then(|| "it restarted: its counters began anew".to_owned()));
    let news = text.clone().map(|text| (now.boot, text)).or(past.news);
    let news = news.filter(|(at, _)| now.boot.saturating_sub(*at) < NEWS);
    let endpoint = seen.endpoint.or(past.endpoint);
    if has_restarted {
        return (Past { news, endpoint, changed: seen.handshake.map(|_| now.boot), ..fresh }, text);
    }
    let is_new = seen.handshake != past.handshake;
    let tries = if is_new { 0 } else { past.tries.saturating_add(tries(seen.sent - past.sent)) };
    let came = seen.received > past.received;
    // What is authentic moves the endpoint to where it came from: only then is it more than what somebody set.
    let heard = if seen.endpoint != past.endpoint {
        None
    } else if came {
        Some(now.boot)
    } else {
        past.heard
    };
    let past = Past {
        since: past.since,
        changed: if is_new { Some(now.boot) } else { past.changed },
        tries,
        received_then: if past.tries == 0 { past.received } else { past.received_then },
        is_waiting: !is_new && !came && (past.is_waiting || wants_answer(seen.sent - past.sent)),
        news,
        endpoint,
        heard,
        ..fresh
    };
    (past, text)
}

/// Everything that is sent is answered, if only by a keepalive; but a keepalive is not, and has 32 bytes.
const fn wants_answer(sent: u64) -> bool {
    sent != 0 && sent != 32
}

/// How many requests for a handshake, or answers to one, were sent, when nothing else was.
fn tries(sent: u64) -> u32 {
    match sent {
        148 | 92 => 1,
        296 | 184 => 2,
        444 | 276 => 3,
        _ => 0,
    }
}

fn judge(
    name: &str,
    wanted: &wanted::Peer,
    seen: &facts::Peer,
    past: &Past,
    now: Now,
    settings: &config::WireGuard,
) -> Sample {
    let target = wanted.target.as_str();
    let is_idle = seen.keepalive == 0 && !past.is_waiting;
    let Some(handshake) = seen.handshake else { return never(name, wanted, seen, past, now, settings) };
    if !now.is_trusted {
        return Sample::unknown(HANDSHAKE, target, "its age cannot be told, because the clock cannot be believed")
            .remedy("timedatectl status: let the clock be synchronised; two calm looks later it is believed again");
    }
    let Some(age) = age(handshake, past.changed, now) else {
        return Sample::unknown(HANDSHAKE, target, "its latest handshake lies ahead: the clock was set back")
            .remedy("timedatectl status: it is well again with the next handshake, 2 min at most");
    };
    let keepalive = Duration::from_secs(seen.keepalive.into()).max(ANSWERED);
    let late = RENEWED + keepalive + settings.handshake_margin;
    let dead = REFUSED.max(late + Duration::from_secs(30));
    let seconds = format!("latest handshake {} s ago", age.as_secs());
    if is_idle {
        return Sample::ok(HANDSHAKE, target, "idle without a keepalive: the age of its handshake says nothing")
            .observed(seconds);
    }
    let (why, remedy) = explain(name, wanted, seen, past);
    let limit = |limit: Duration| format!("at most {} s", limit.as_secs());
    if age > dead {
        return Sample::critical(HANDSHAKE, target, format!("no handshake for too long: {why}"))
            .observed(seconds)
            .expected(limit(dead))
            .remedy(remedy);
    }
    if age > late {
        return Sample::warning(HANDSHAKE, target, format!("its handshake is late: {why}"))
            .observed(seconds)
            .expected(limit(late))
            .remedy(remedy);
    }
    if past.tries >= UNANSWERED {
        return Sample::warning(HANDSHAKE, target, why).observed(seconds).expected("an answer").remedy(remedy);
    }
    Sample::ok(HANDSHAKE, target, "its handshakes are fresh").observed(seconds)
}

fn never(
    name: &str,
    wanted: &wanted::Peer,
    seen: &facts::Peer,
    past: &Past,
    now: Now,
    settings: &config::WireGuard,
) -> Sample {
    let up = now.boot.saturating_sub(past.since);
    let allowed = if seen.endpoint.is_some() { settings.first_handshake } else { REFUSED };
    if seen.keepalive == 0 && !past.is_waiting {
        return Sample::ok(HANDSHAKE, &wanted.target, "idle without a keepalive: it had no reason for a handshake yet");
    }
    if up <= allowed {
        return Sample::ok(HANDSHAKE, &wanted.target, "it waits for its first handshake");
    }
    let (why, remedy) = explain(name, wanted, seen, past);
    Sample::critical(HANDSHAKE, &wanted.target, format!("it never had a handshake: {why}"))
        .observed(format!("none in {} s", up.as_secs()))
        .expected(format!("one within {} s", allowed.as_secs()))
        .remedy(remedy)
}

/// How old a handshake is. None when it lies ahead. One that we saw happen cannot be older than that, whatever was done to
/// the clock.
fn age(handshake: Duration, changed: Option<Duration>, now: Now) -> Option<Duration> {
    let wall = Duration::try_from(now.wall.duration_since(jiff::Timestamp::UNIX_EPOCH)).ok()?;
    // The clock is read before the tunnel is.
    let by_wall = (wall + Duration::from_secs(2)).checked_sub(handshake)?.saturating_sub(Duration::from_secs(2));
    Some(changed.map_or(by_wall, |changed| by_wall.min(now.boot.saturating_sub(changed))))
}

/// Why there is no handshake, and where to look.
fn explain(name: &str, wanted: &wanted::Peer, seen: &facts::Peer, past: &Past) -> (String, String) {
    let Some(endpoint) = seen.endpoint else {
        return (
            "the site does not call, and we know no endpoint to call".to_owned(),
            format!("see that site {} has power and its WAN, and calls this host", wanted.site),
        );
    };
    if past.tries >= UNANSWERED && seen.received > past.received_then {
        return (
            "handshakes get no answer, though packets of the peer arrive: the keys differ, or the path is one-way"
                .to_owned(),
            format!(
                "`wg show {name} public-key` must be the peer at site {}; UDP from here to {endpoint} must pass",
                wanted.site
            ),
        );
    }
    let text =
        if past.tries >= UNANSWERED { "handshakes get no answer, and nothing arrives" } else { "nothing renews it" };
    (text.to_owned(), format!("see that site {} has power and its WAN, and that UDP to {endpoint} passes", wanted.site))
}

#[cfg(test)]
mod tests;
