#![expect(clippy::unnecessary_wraps, reason = "servers say it or fail")]

use std::{net::SocketAddr, sync::Arc};

use Status::{Critical, Ok as Fine, Unknown, Warning};
use charliehub_dns::{Said, Zone, wire::op::ResponseCode};

use super::*;
use crate::dns::caa::{Property, Set};

const HERE: &str = "203.0.113.1";
const HERE_6: &str = "2001:db8::1";

fn name(text: &str) -> Name {
    charliehub_dns::name(text).unwrap()
}

fn at(number: usize) -> SocketAddr {
    format!("192.0.2.{number}:53").parse().unwrap()
}

fn server(number: usize) -> Server {
    Server { name: name(&format!("ns{number}.test")), at: at(number) }
}

fn addresses(of: &[&str]) -> Result<Saying, Error> {
    Ok(Saying::Addresses(of.iter().map(|ip| ip.parse().unwrap()).collect()))
}

fn alias(to: &str) -> Result<Saying, Error> {
    Ok(Saying::Alias(name(to)))
}

fn nothing() -> Result<Saying, Error> {
    Ok(Saying::NoSuchName)
}

fn silent(number: usize) -> Result<Saying, Error> {
    Err(Error::Silent { server: at(number), limit: Duration::from_secs(2) })
}

fn away() -> Error {
    let why = Error::Silent { server: at(53), limit: Duration::from_secs(2) };
    Error::Unresolved { name: Box::new(name("a.test")), why: Box::new(why) }
}

/// A name, and what each of its servers says.
fn step(text: &str, said: Vec<Result<Saying, Error>>) -> Step {
    let said: Vec<_> = (1..).zip(said).map(|(number, said)| Said { server: server(number), said }).collect();
    let zone =
        Zone { name: name("test"), servers: said.iter().map(|one| one.server.clone()).collect(), nameless: vec![] };
    Step { name: name(text), found: Ok(Arc::new(Lookup { zone: Arc::new(zone), said })) }
}

fn edge() -> Vec<IpAddr> {
    [HERE, HERE_6].iter().map(|ip| ip.parse().unwrap()).collect()
}

fn judged(mode: DnsMode, steps: Vec<Step>) -> Sample {
    address("a.test", &name("a.test"), mode, &Ok(steps), &edge())
}

#[test]
fn where_a_name_leads() {
    for (said, status, text, remedy) in [
        (vec![addresses(&[HERE])], Fine, "a.test leads here", ""),
        (vec![addresses(&[HERE, HERE_6]), addresses(&[HERE])], Fine, "a.test leads here", ""),
        (
            vec![nothing()],
            Critical,
            "there is no name a.test in DNS",
            "set `a.test. A 203.0.113.1`; `a.test. AAAA 2001:db8::1`",
        ),
        (
            vec![addresses(&[])],
            Critical,
            "a.test has no address",
            "set `a.test. A 203.0.113.1`; `a.test. AAAA 2001:db8::1`",
        ),
        (
            vec![addresses(&["192.0.2.9"]), addresses(&["192.0.2.9"])],
            Critical,
            "a.test leads to 192.0.2.9, which is not the edge",
            "take out `a.test. A 192.0.2.9`; set `a.test. A 203.0.113.1`; `a.test. AAAA 2001:db8::1`",
        ),
        (
            vec![addresses(&[HERE, "2001:db8::9"])],
            Critical,
            "a.test leads also to 2001:db8::9, which is not the edge: some visitors go there",
            "take out `a.test. AAAA 2001:db8::9`; set `a.test. A 203.0.113.1`; `a.test. AAAA 2001:db8::1`",
        ),
        (
            vec![addresses(&[HERE]), silent(2)],
            Warning,
            "a.test leads here, but not by all: ns2.test: 192.0.2.2 does not answer within 2 s",
            "mend that server, or take it out of the NS records of the zone, and of those above it",
        ),
        (
            vec![addresses(&["192.0.2.9"]), addresses(&[HERE])],
            Warning,
            "the servers of a.test disagree: by some a.test leads to 192.0.2.9, which is not the edge",
            "see that all servers of the zone have its newest serial (`dig +nssearch ZONE`): one does not follow",
        ),
    ] {
        let sample = judged(DnsMode::Static, vec![step("a.test", said.clone())]);
        let remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
        assert_eq!((sample.status, sample.text.as_str(), sample.remedy), (status, text, remedy), "{said:?}");
        let external = judged(DnsMode::External, vec![step("a.test", said)]);
        let most = if status == Critical { Warning } else { status };
        assert_eq!((external.status, external.text), (most, sample.text), "who does not keep it is only warned");
    }
}

#[test]
fn who_disagrees_is_named() {
    let sample = judged(DnsMode::Static, vec![step("a.test", vec![addresses(&[HERE]), nothing(), addresses(&[HERE])])]);
    assert_eq!((sample.status, sample.confirm), (Warning, DIFFERING));
    assert_eq!(
        sample.observed.unwrap(),
        "`a.test. A 203.0.113.1` by ns1.test (192.0.2.1), ns3.test (192.0.2.3); no name a.test by ns2.test (192.0.2.2)"
    );
}

#[test]
fn aliases_are_followed_and_told() {
    for (steps, status, text) in [
        (
            vec![step("a.test", vec![alias("edge.example")]), step("edge.example", vec![addresses(&[HERE])])],
            Fine,
            "a.test leads here",
        ),
        (
            vec![step("a.test", vec![alias("edge.example")]), step("edge.example", vec![nothing()])],
            Critical,
            "a.test stands for edge.example, which is no name in DNS",
        ),
        (
            vec![step("a.test", vec![alias("edge.example")]), step("edge.example", vec![addresses(&["192.0.2.9"])])],
            Critical,
            "a.test stands for edge.example, which leads to 192.0.2.9, which is not the edge",
        ),
        (
            vec![step("a.test", vec![alias("b.test")]), step("b.test", vec![alias("a.test")])],
            Critical,
            "a.test leads in a circle: a.test stands for itself",
        ),
        (
            vec![
                step("a.test", vec![alias("edge.example"), addresses(&[HERE])]),
                step("edge.example", vec![addresses(&[HERE]), nothing()]),
            ],
            Warning,
            "the servers of a.test disagree: by some a.test stands for edge.example, which is no name in DNS",
        ),
    ] {
        let sample = judged(DnsMode::Static, steps.clone());
        assert_eq!((sample.status, sample.text.as_str()), (status, text), "{steps:?}");
    }
}

#[test]
fn what_could_not_be_asked_is_unknown_whatever_else_was_said() {
    let unasked = Step { name: name("a.test"), found: Err(away()) };
    let beyond = Step { name: name("edge.example"), found: Err(away()) };
    for steps in [
        vec![unasked],
        vec![step("a.test", vec![alias("edge.example")]), beyond],
        vec![step("a.test", vec![silent(1), silent(2)])],
        vec![step("a.test", vec![Err(Error::Lame { server: at(1), name: Box::new(name("a.test")) })])],
    ] {
        for mode in [DnsMode::Static, DnsMode::Ddns, DnsMode::External] {
            let sample = judged(mode, steps.clone());
            assert_eq!(sample.status, Unknown, "{steps:?}");
            assert!(sample.remedy.is_some(), "{}", sample.text);
        }
    }
}

#[test]
fn that_we_cannot_reach_a_family_is_nobodys_fault() {
    let mut there = step("a.test", vec![addresses(&[HERE]), silent(2)]);
    let Ok(lookup) = &mut there.found else { unreachable!() };
    let mut changed = Lookup::clone(lookup);
    changed.said[1].server.at = "[2001:db8::53]:53".parse().unwrap();
    there.found = Ok(Arc::new(changed));
    assert_eq!(judged(DnsMode::Static, vec![there]).status, Fine);
    let unsent = Err(Error::Unsent { server: at(2), why: "Network is unreachable".to_owned() });
    assert_eq!(judged(DnsMode::Static, vec![step("a.test", vec![addresses(&[HERE]), unsent])]).status, Fine);
}

#[test]
fn what_follows_a_site_must_be_public_and_no_more() {
    for (ip, status) in [
        ("9.9.9.9", Fine),
        ("2a01:cb00::7", Fine),
        ("198.51.100.7", Critical),
        ("2001:db8::7", Critical),
        ("10.1.2.3", Critical),
        ("172.20.0.1", Critical),
        ("192.168.1.1", Critical),
        ("100.64.0.1", Critical),
        ("169.254.1.1", Critical),
        ("127.0.0.1", Critical),
        ("0.0.0.0", Critical),
        ("224.0.0.1", Critical),
        ("fd00::1", Critical),
        ("fe80::1", Critical),
        ("::1", Critical),
    ] {
        let sample = judged(DnsMode::Ddns, vec![step("a.test", vec![addresses(&[ip])])]);
        assert_eq!(sample.status, status, "{ip}: {}", sample.text);
    }
    let gone = judged(DnsMode::Ddns, vec![step("a.test", vec![nothing()])]);
    assert_eq!((gone.status, gone.text.as_str()), (Critical, "there is no name a.test in DNS"));
}

#[test]
fn whether_the_issuer_may_issue() {
    let by = |records: &[(bool, &str, &str)]| {
        let properties = records.iter().map(|(is_critical, tag, value)| Property {
            is_critical: *is_critical,
            tag: (*tag).to_owned(),
            value: (*value).to_owned(),
        });
        Bound::By(Set { owner: name("test"), properties: properties.collect() })
    };
    let failed = |error| Bound::Failed { at: name("test"), error };
    let code = ResponseCode::ServFail;
    let answered = Error::Code { server: at(1), name: Box::new(name("test")), code };
    let silent = Error::Silent { server: at(1), limit: Duration::from_secs(2) };
    for (bound, status, text) in [
        (Bound::Free, Fine, "nothing keeps ours.example from issuing for *.a.test"),
        (by(&[(false, "issue", "ours.example")]), Fine, "test lets ours.example issue for *.a.test"),
        (
            by(&[(false, "issue", "other.example")]),
            Critical,
            "the CAA records of test do not let ours.example issue for *.a.test: its certificate will not be renewed",
        ),
        (
            by(&[(true, "tbs", "x")]),
            Critical,
            "a CAA record of test binds issuers by `tbs`, which they do not know: none will issue for *.a.test",
        ),
        (
            failed(answered),
            Warning,
            "the CAA records of test cannot be had: 192.0.2.1 answers Server Failure for test; issuers take that for a no",
        ),
        (
            failed(silent),
            Unknown,
            "whether *.a.test has CAA records is not known, those of test neither: 192.0.2.1 does not answer within 2 s",
        ),
        (
            failed(away()),
            Unknown,
            "whether *.a.test has CAA records is not known, those of test neither: no resolver tells of a.test: 192.0.2.53 does \
             not answer within 2 s",
        ),
    ] {
        let issuers = ["ours.example".to_owned()];
        let sample = caa("*.a.test", DnsMode::Static, &bound, &issuers);
        assert_eq!((sample.status, sample.text.as_str()), (status, text));
        assert_eq!(sample.remedy.is_some(), status != Fine, "{text}");
        let external = caa("*.a.test", DnsMode::External, &bound, &issuers);
        assert_eq!(external.status, if status == Critical { Warning } else { status }, "{text}");
    }
    let wild = by(&[(false, "issue", "ours.example"), (false, "issuewild", ";")]);
    let sample = caa("*.a.test", DnsMode::Static, &wild, &["ours.example".to_owned()]);
    assert_eq!(
        sample.remedy.unwrap(),
        "add `test. CAA 0 issuewild \"ours.example\"`, or take its `issuewild` records out; `[dns] issuers` says who issues here"
    );
    assert_eq!(sample.observed.unwrap(), "test. CAA 0 issue \"ours.example\"; test. CAA 0 issuewild \";\"");
    assert_eq!(caa("a.test", DnsMode::Static, &wild, &["ours.example".to_owned()]).status, Fine);
}
