//! Names that do not lead to the edge, and issuers that are kept from issuing: found where the zones are, on real BINDs, before
//! anybody misses a visitor or a certificate.
//!
//! A namespace is the whole internet: `ns1` has the root and all below it, `ns2` most zones of the names too, and a resolver
//! resolves from that root. Nothing leaves it.
#![allow(clippy::expect_used, reason = "fails as its stories do")]

use std::{net::Ipv4Addr, time::Duration};

use charliehub_proto::{
    domain::DnsMode::{self, Ddns, External, Static},
    expected::{Expected, Served},
    finding::{Finding, Status},
};
use charliehub_tests::{Agent, Bind, Home, Netns, measured, secs};

use Status::{Critical, Ok as Fine, Unknown, Warning};

const NS1: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const NS2: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 12);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

/// What makes a look as quick as it can be, and everything believed after as many looks as in real life.
const SETTINGS: &str = "name = \"hub2\"\n[provider]\nurl = \"http://127.0.0.1:1\"\n\
    [timing]\ndns = \"300ms\"\ndoubt = \"50ms\"\nclear = \"100ms\"\nflapping = \"1ms\"\n\
    [dns]\nedge = [\"203.0.113.1\", \"2001:db8::1\"]\nservers = [\"127.0.0.53\"]\nagain = \"200ms\"\ntimeout = \"500ms\"\nrate = 1000\n";

/// Both name servers have these zones.
const OURS: &str = "@ NS ns1\n@ NS ns2\nns1 A 127.0.0.11\nns2 A 127.0.0.12\n\
    right A 203.0.113.1\nright AAAA 2001:db8::1\nonly4 A 203.0.113.1\n*.wild A 203.0.113.1\n\
    wrong A 192.0.2.9\nstray A 203.0.113.1\nstray AAAA 2001:db8::9\nempty TXT here\n\
    alias CNAME edge.cdn.test.\nbroken CNAME gone.cdn.test.\n\
    home A 9.9.9.9\ninside A 10.0.0.7\n\
    refused A 203.0.113.1\nrefused CAA 0 issue \"other.example\"\n\
    a.bound A 203.0.113.1\nbound CAA 0 issue \"other.example; policy=x\"\n\
    nowild CAA 0 issue \"letsencrypt.org\"\nnowild CAA 0 issuewild \";\"\n*.nowild A 203.0.113.1\na.nowild A 203.0.113.1\n\
    strange A 203.0.113.1\nstrange CAA 128 tbs \"x\"\n";
const CDN: &str = "@ NS ns1.ours.test.\n@ NS ns2.ours.test.\n@ A 203.0.113.1\nedge A 203.0.113.1\n";

struct World {
    ns1: Bind,
    ns2: Bind,
    resolver: Bind,
    net: Netns,
    home: Home,
}

impl World {
    async fn new() -> Self {
        let home = Home::new();
        let net = Netns::new(&home);
        let delegated = |zone| format!("{zone} NS ns1.ours\n{zone} NS ns2.ours\n");
        let test = format!(
            "@ NS ns1.ours\n{}ns1.ours A {NS1}\nns2.ours A {NS2}\n",
            ["ours", "cdn", "differ", "half"].map(delegated).concat()
        );
        let differ = |address: &str| format!("@ NS ns1.ours.test.\n@ NS ns2.ours.test.\nwww A {address}\n");
        let both = |bind: Bind, address: &str| {
            bind.zone("ours.test", OURS).zone("cdn.test", CDN).zone("differ.test", &differ(address))
        };
        let ns1 = both(Bind::new(&home, net.name(), NS1), "203.0.113.1");
        let ns1 = ns1.zone(".", &format!("@ NS ns\nns A {NS1}\ntest NS ns1.ours.test.\nns1.ours.test. A {NS1}\n"));
        let ns1 = ns1.zone("test", &test).zone("half.test", &differ("203.0.113.1"));
        let ns2 = both(Bind::new(&home, net.name(), NS2), "192.0.2.9");
        let resolver = Bind::resolver(&home, net.name(), RESOLVER, NS1);
        let (ns1, ns2) = tokio::join!(ns1.started(), ns2.started());
        let resolver = resolver.started().await;
        Self { ns1, ns2, resolver, net, home }
    }

    /// An agent that was told of these names, each with a certificate by ACME, before its provider went away.
    async fn agent(&self, names: &[(&str, DnsMode)]) -> Agent {
        let agent = Agent::new(&self.home, SETTINGS).inside(self.net.name());
        let served = |dns_mode| Served {
            entry_point: "websecure".to_owned(),
            resolver: Some("letsencrypt".to_owned()),
            dns_mode,
        };
        let names = names.iter().map(|(name, mode)| ((*name).to_owned(), served(*mode))).collect();
        let expected = Expected { agent: "hub2".to_owned(), names, ..Expected::default() };
        let text = serde_json::to_vec(&expected).expect("JSON");
        std::fs::write(agent.state_dir().join("expected.json"), text).expect("what is expected");
        agent.started().await
    }
}

#[tokio::test]
async fn each_way_in_which_a_name_fails_is_found_and_the_record_that_mends_it_is_told() {
    let world = World::new().await;
    // What is said of its addresses, and whether its issuer may issue.
    let cases = [
        ("right.ours.test", Static, Fine, "leads here", Fine),
        ("only4.ours.test", Static, Fine, "leads here", Fine),
        ("*.wild.ours.test", Static, Fine, "leads here", Fine),
        ("alias.ours.test", Static, Fine, "leads here", Fine),
        ("wrong.ours.test", Static, Critical, "leads to 192.0.2.9, which is not the edge", Fine),
        ("stray.ours.test", Static, Critical, "leads also to 2001:db8::9", Fine),
        ("gone.ours.test", Static, Critical, "there is no name gone.ours.test", Fine),
        ("empty.ours.test", Static, Critical, "has no address", Fine),
        ("broken.ours.test", Static, Critical, "stands for gone.cdn.test, which is no name", Fine),
        ("cdn.test", Static, Fine, "leads here", Fine),
        ("www.half.test", Static, Warning, "but not by all: ns2.ours.test: 127.0.0.12 answers Query Refused", Fine),
        ("www.differ.test", Static, Warning, "the servers of www.differ.test disagree", Fine),
        ("inside.ours.test", Ddns, Critical, "leads to 10.0.0.7, which nobody on the internet reaches", Fine),
        ("home.ours.test", Ddns, Fine, "has a public address", Fine),
        ("refused.ours.test", Static, Fine, "leads here", Critical),
        ("a.bound.ours.test", Static, Fine, "leads here", Critical),
        ("*.nowild.ours.test", Static, Fine, "leads here", Critical),
        ("a.nowild.ours.test", Static, Fine, "leads here", Fine),
        ("strange.ours.test", Static, Fine, "leads here", Critical),
    ];
    let agent = world.agent(&cases.map(|(name, mode, ..)| (name, mode))).await;
    let (findings, took) = agent
        .until("each is told as it is", secs(20), |all| {
            cases.iter().all(|(name, _, address, says, caa)| {
                is(all, "dns-address", name, *address, says) && is(all, "dns-caa", name, *caa, "")
            })
        })
        .await;
    measured("all are seen", took);
    let remedy = |check: &str, name: &str| {
        let finding = findings.iter().find(|one| one.check == check && one.target == name);
        finding.and_then(|one| one.remedy.clone()).expect("a remedy")
    };
    assert_eq!(
        remedy("dns-address", "stray.ours.test"),
        "take out `stray.ours.test. AAAA 2001:db8::9`; \
         set `stray.ours.test. A 203.0.113.1`; `stray.ours.test. AAAA 2001:db8::1`"
    );
    assert!(
        remedy("dns-caa", "a.bound.ours.test").starts_with("add `bound.ours.test. CAA 0 issue \"letsencrypt.org\"`")
    );
    assert!(remedy("dns-caa", "*.nowild.ours.test").starts_with("add `nowild.ours.test. CAA 0 issuewild"));
    let differs = findings.iter().find(|one| one.target == "www.differ.test" && one.check == "dns-address");
    let observed = differs.and_then(|one| one.observed.clone()).expect("who says what");
    assert!(observed.contains("192.0.2.9` by ns2.ours.test (127.0.0.12)"), "{observed}");
    let metrics = agent.metrics().await;
    assert!(metrics.contains(r#"check_status{check="dns-address",target="wrong.ours.test"} 2"#), "{metrics}");
    assert!(metrics.contains(r#"check_status{check="dns-caa",target="refused.ours.test"} 2"#), "{metrics}");
}

#[tokio::test]
async fn who_does_not_keep_a_record_is_only_warned() {
    let world = World::new().await;
    let names = ["wrong.ours.test", "gone.ours.test", "stray.ours.test", "refused.ours.test", "strange.ours.test"];
    let agent = world.agent(&names.map(|name| (name, External))).await;
    let is_warned = |all: &[Finding]| {
        names[..3].iter().all(|name| is(all, "dns-address", name, Warning, ""))
            && names[3..].iter().all(|name| is(all, "dns-caa", name, Warning, ""))
    };
    let (findings, _) = agent.until("all are warnings", secs(20), is_warned).await;
    assert!(findings.iter().all(|one| !one.check.starts_with("dns-") || one.status != Critical), "{findings:#?}");
}

#[tokio::test]
async fn faults_come_and_go_and_a_resolver_that_is_away_makes_nothing_wrong() {
    let mut world = World::new().await;
    let name = "right.ours.test";
    let agent = world.agent(&[(name, Static)]).await;
    let until = async |what: &str, status: Status, says: &str| -> Duration {
        let told = agent.until(what, secs(20), |all| is(all, "dns-address", name, status, says)).await;
        measured(what, told.1);
        told.1
    };
    until("it is fine", Fine, "leads here").await;

    world.ns2.sleep();
    until("a silent server is a warning", Warning, "ns2.ours.test: 127.0.0.12 does not answer within 0.5 s").await;
    world.ns2.wake();
    until("it is fine again", Fine, "leads here").await;

    world.resolver.down();
    until("without a resolver nothing is known", Unknown, "no resolver tells of right.ours.test").await;
    let caa = agent.finding("dns-caa", name).await.expect("a finding");
    assert_eq!(caa.status, Unknown, "{caa:?}");
    world.resolver.up().await;
    until("it heals by itself", Fine, "leads here").await;

    let moved = OURS.replace("right A 203.0.113.1", "right A 192.0.2.77");
    for bind in [&mut world.ns1, &mut world.ns2] {
        bind.set("ours.test", &moved).await;
    }
    until("a change is found", Critical, "leads also to 192.0.2.77").await;
    for bind in [&mut world.ns1, &mut world.ns2] {
        bind.set("ours.test", OURS).await;
    }
    until("and cleared", Fine, "leads here").await;
}

fn is(all: &[Finding], check: &str, name: &str, status: Status, says: &str) -> bool {
    all.iter().any(|one| one.check == check && one.target == name && one.status == status && one.text.contains(says))
}
