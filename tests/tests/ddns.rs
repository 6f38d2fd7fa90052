//! Names in DNS follow the addresses at which the tunnels of sites are seen: in a real BIND by signed updates, and by OVH's
//! API (a stand-in that publishes in a BIND); and never where they should not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "fails as its stories do")]

use std::{fs, net::IpAddr, time::Duration};

use charliehub_tests::{
    Agent, Bind, Home, Lab, Mood, Netns, Ovh, Postgres, Provider, Row, Switch, World, ms, secs, until,
};
use hyper::Method;
use serde_json::{Value, json};

/// For a machine that does much else.
const LONG: Duration = secs(60);
const KEY: &str = "edge";
const SECRET: &str = "c2VjcmV0IG9mIGEgc3RvcnkgdGhhdCBpcyBsb25n";
const WRONG: &str = "YW5vdGhlciBzZWNyZXQgb2YgYSBzdG9yeSB0aGF0";
const ZONE: &str = "example.org";
const TUNNEL_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

/// A zone in a BIND that has a namespace for itself.
struct Dns {
    bind: Bind,
    netns: Netns,
}

impl Dns {
    async fn start(home: &Home, records: &str) -> Self {
        let netns = Netns::new(home);
        let IpAddr::V4(at) = netns.ip() else { panic!("not IPv4") };
        let records = format!("@ 60 NS ns\nns 60 A {at}\n{records}");
        let bind = Bind::new(home, netns.name(), at).zone(ZONE, &records).changed_by(KEY, SECRET);
        Self { bind: bind.started().await, netns }
    }

    /// TTL and address, as the zone's server has them.
    async fn says(&self, name: &str, kind: &str) -> String {
        let answer = self.bind.dig(&["+noall", "+answer", name, kind]).await;
        let words: Vec<Vec<&str>> = answer.lines().map(|line| line.split_whitespace().collect()).collect();
        words.iter().map(|words| format!("{} {}", words[1], words[4])).collect::<Vec<_>>().join(", ")
    }

    async fn until(&self, name: &str, kind: &str, right: &str) -> Duration {
        until(&format!("{name} {kind} is {right}"), LONG, async || {
            let says = self.says(name, kind).await;
            if says == right { Ok(()) } else { Err(says) }
        })
        .await
        .1
    }

    /// Without the secret.
    fn table(&self, secret: &std::path::Path) -> String {
        format!(
            "[[ddns.zone]]\nzone = \"{ZONE}\"\nprovider = \"rfc2136\"\nserver = \"{}\"\nkey_name = \"{KEY}\"\nsecret_file = \"{}\"\n",
            self.netns.ip(),
            secret.display()
        )
    }
}

/// A provider that acts soon.
fn soon(provider: Provider) -> Provider {
    [("mode", "act"), ("stable", "250ms"), ("interval", "300ms"), ("look", "150ms")]
        .into_iter()
        .fold(provider, |provider, (key, value)| provider.set("ddns", key, &format!("\"{value}\"")))
}

fn secret(home: &Home, text: &str) -> std::path::PathBuf {
    let file = home.join("dns.secret");
    fs::write(&file, format!("{text}\n")).unwrap();
    file
}

/// Site uk with its WAN name, and the domain `app.example.org` that follows it.
async fn site_uk(world: &World) {
    let tunnel =
        json!({ "interface": "wg-uk", "public_key": TUNNEL_KEY, "allowed_ips": ["10.44.0.0/16"], "keepalive": 25 });
    let site = json!({ "name": "uk", "networks": ["10.44.0.0/16"], "tunnels": [tunnel], "wan_name": "uk.example.org" });
    let answer = world.provider.send(Method::POST, "/api/sites", &site.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let row = Row::http("app.example.org", ([127, 0, 0, 1], 9).into()).with("dns_mode", "ddns").with("site", "uk");
    world.insert(&row).await;
}

/// The agent of the hub says where site uk is seen.
async fn seen_at(world: &World, seq: u64, addresses: &[&str]) {
    let endpoints: Vec<Value> = addresses
        .iter()
        .enumerate()
        .map(|(at, address)| {
            // The others by a tunnel that is not the site's own.
            let interface = if at == 0 { "wg-uk" } else { "wg-other" };
            json!({ "site": "uk", "interface": interface, "address": address })
        })
        .collect();
    let report = json!({
        "install": "00000000-0000-4000-8000-000000000001", "seq": seq, "at": "2026-11-28T10:00:00Z",
        "boot": "00000000-0000-4000-8000-000000000002", "version": "0.1.0", "complete": true, "findings": [],
        "endpoints": endpoints,
    });
    let answer = world.provider.send(Method::POST, "/api/agents/hub2/report", &report.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// What the provider finds of a target; none while it is right.
async fn found(provider: &Provider, target: &str) -> Option<Value> {
    let page = provider.get("/debug.json").await.json();
    let all = page["agents"]["findings"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["check"] == "ddns" && one["target"] == target)
}

async fn until_found(provider: &Provider, target: &str, words: &str) -> Value {
    until(&format!("{target}: {words}"), LONG, async || {
        let finding = found(provider, target).await;
        let is_it = finding.as_ref().is_some_and(|one| one["text"].as_str().unwrap_or_default().contains(words));
        if is_it { finding.ok_or(None) } else { Err(finding) }
    })
    .await
    .0
}

async fn until_right(provider: &Provider, target: &str) {
    until(&format!("{target} is right"), LONG, async || match found(provider, target).await {
        None => Ok(()),
        Some(finding) => Err(finding),
    })
    .await;
}

/// What the audit has of DNS, the oldest first: kind, name and type, old, new or the result.
async fn audit(world: &World) -> Vec<String> {
    let sql =
        "SELECT kind || ' ' || concat_ws(' ', detail ->> 'name', detail ->> 'type', detail ->> 'old', detail ->> 'new')
                 FROM charliehub.audit_events WHERE kind LIKE 'ddns.%' ORDER BY id";
    world.psql(sql).await.into_iter().map(|row| row.into_iter().next().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_follow_a_site_and_nothing_else_is_touched() {
    let home = Home::new();
    let dns =
        Dns::start(&home, "uk 300 A 1.2.3.4\napp 60 A 1.2.3.4\nother 60 A 1.2.3.4\ntwo 60 A 1.2.3.4\ntwo 60 A 1.2.3.5")
            .await;
    let (postgres, table) = (Postgres::start(&home).await, dns.table(&secret(&home, SECRET)));
    let world = World::over(home, postgres, |provider| soon(provider).table(&table)).await;
    site_uk(&world).await;
    for (name, site) in [("two.example.org", "uk"), ("app.example.com", "uk"), ("lost.example.org", "moon")] {
        let row = Row::http(name, ([127, 0, 0, 1], 9).into()).with("dns_mode", "ddns").with("site", site);
        world.insert(&row).await;
    }
    let row = Row::http("*.dyn.example.org", ([127, 0, 0, 1], 9).into()).with("dns_mode", "ddns").with("site", "uk");
    world.insert(&row).await;
    until_found(&world.provider, "uk.example.org ANY", "agent hub2 tells of no packets").await;
    seen_at(&world, 1, &["5.6.7.8", "9.9.9.9"]).await;
    dns.until("uk.example.org", "A", "300 5.6.7.8").await;
    dns.until("app.example.org", "A", "60 5.6.7.8").await;
    dns.until("any.dyn.example.org", "A", "60 5.6.7.8").await;
    for name in ["uk", "app"] {
        let begun = format!("ddns.change {name}.example.org A 1.2.3.4 5.6.7.8");
        let ended = format!("ddns.changed {name}.example.org A 5.6.7.8");
        until("the change is in the audit, then its end", LONG, async || {
            let changes = audit(&world).await;
            let at = |what: &String| changes.iter().position(|one| one == what);
            if at(&begun).is_some() && at(&begun) < at(&ended) { Ok(()) } else { Err(changes) }
        })
        .await;
    }
    // What is not ours, not one, or not known is told and left alone.
    until_found(&world.provider, "two.example.org A", "several addresses").await;
    until_found(&world.provider, "app.example.com ANY", "in no zone of the settings").await;
    until_found(&world.provider, "lost.example.org ANY", "site moon, which there is not").await;
    assert_eq!(dns.says("other.example.org", "A").await, "60 1.2.3.4");

    // IPv6 is a record of its own, made where there was none.
    seen_at(&world, 2, &["2a01:cb00::7"]).await;
    dns.until("uk.example.org", "AAAA", "60 2a01:cb00::7").await;
    assert_eq!(dns.says("uk.example.org", "A").await, "300 5.6.7.8");

    // Private ones are never published, however long they are there.
    for (seq, address) in [(3, "192.168.1.7"), (4, "100.64.0.9"), (5, "fd00::7"), (6, "198.51.100.7")] {
        seen_at(&world, seq, &[address]).await;
        let family = if address.contains(':') { "AAAA" } else { "A" };
        let target = format!("uk.example.org {family}");
        let finding =
            until_found(&world.provider, &target, &format!("{address} is not reached from the internet")).await;
        assert_eq!(finding["status"], "warning");
    }
    tokio::time::sleep(ms(1_500)).await;
    assert_eq!(dns.says("uk.example.org", "A").await, "300 5.6.7.8");
    assert_eq!(dns.says("uk.example.org", "AAAA").await, "60 2a01:cb00::7");
    let metrics = world.provider.get("/metrics").await.text();
    assert!(
        metrics.contains("agent_finding{agent=\"provider\",check=\"ddns\",target=\"app.example.com ANY\"} 1"),
        "{metrics}"
    );
    assert!(world.provider.count("ddns_changes_total").await >= 4, "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_is_told_and_a_hold_stops_everything() {
    let home = Home::new();
    let mut dns = Dns::start(&home, "uk 60 A 1.2.3.4\napp 60 A 5.6.7.8").await;
    let file = secret(&home, WRONG);
    let (postgres, table) = (Postgres::start(&home).await, dns.table(&file));
    let mut world = World::over(home, postgres, |provider| soon(provider).table(&table)).await;
    site_uk(&world).await;
    seen_at(&world, 1, &["5.6.7.8"]).await;
    let finding =
        until_found(&world.provider, "uk.example.org A", "the server knows the key with another secret").await;
    assert_eq!(finding["status"], "critical");
    assert!(finding["remedy"].as_str().unwrap().contains("secret_file"), "{finding}");
    let log = world.provider.log();
    assert!(!log.contains(WRONG) && !finding.to_string().contains(WRONG), "{log}");
    assert_eq!(dns.says("uk.example.org", "A").await, "60 1.2.3.4");
    fs::write(&file, SECRET).unwrap();
    dns.until("uk.example.org", "A", "60 5.6.7.8").await;
    until_right(&world.provider, "uk.example.org A").await;

    // A server that is away is unknown, and no harm.
    dns.bind.down();
    let finding = until_found(&world.provider, "uk.example.org A", "cannot be reached").await;
    assert_eq!(finding["status"], "unknown");
    dns.bind.up().await;
    until_right(&world.provider, "uk.example.org A").await;

    // An operator stops it, sees what would be done, and lets it go on.
    world.provider.must(&["ddns", "hold", "--reason", "a line is moved"]).await;
    until_found(&world.provider, "hold", "a line is moved").await;
    let before = audit(&world).await.len();
    seen_at(&world, 2, &["9.9.9.9"]).await;
    until_found(&world.provider, "uk.example.org A", "nothing is changed now").await;
    let plan = world.provider.must(&["ddns"]).await;
    let line = plan.lines().find(|line| line.starts_with("uk.example.org")).unwrap();
    for word in ["9.9.9.9", "5.6.7.8", "change to 9.9.9.9"] {
        assert!(line.contains(word), "{plan}");
    }
    assert_eq!((dns.says("uk.example.org", "A").await.as_str(), audit(&world).await.len()), ("60 5.6.7.8", before));
    world.provider.must(&["ddns", "release"]).await;
    dns.until("uk.example.org", "A", "60 9.9.9.9").await;

    // Started again as a dry run, with a file that tells where the site is, it says all of it and does none of it.
    assert!(world.provider.stop().await.success());
    let source = world.home.join("uk.address");
    fs::write(&source, "8.8.4.4\n2a01:cb00::7\n").unwrap();
    world.provider.change("ddns", "mode", "\"dry-run\"");
    world.provider.change("ddns", "sources", &format!("[\"uk={}\"]", source.display()));
    world.provider.up().await;
    until_found(&world.provider, "uk.example.org A", "seen at 8.8.4.4: dry-run, nothing is done").await;
    until_found(&world.provider, "uk.example.org AAAA", "DNS says nothing, and site uk is seen at 2a01:cb00::7").await;
    fs::write(&source, "8.8.4.4 8.8.8.8").unwrap();
    until_found(&world.provider, "uk.example.org ANY", "several addresses for A").await;
    assert_eq!(dns.says("uk.example.org", "A").await, "60 9.9.9.9");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_server_does_not_have_is_told() {
    let home = Home::new();
    let dns = Dns::start(&home, "uk 60 A 1.2.3.4\napp 60 A 5.6.7.8").await;
    let postgres = Postgres::start(&home).await;
    let table = dns.table(&secret(&home, SECRET)).replace(&format!("key_name = \"{KEY}\""), "key_name = \"stranger\"");
    let world = World::over(home, postgres, |provider| soon(provider).table(&table)).await;
    site_uk(&world).await;
    seen_at(&world, 1, &["5.6.7.8"]).await;
    let finding = until_found(&world.provider, "uk.example.org A", "the server does not know the key").await;
    assert!(finding["remedy"].as_str().unwrap().contains("`stranger`"), "{finding}");
    assert_eq!(dns.says("uk.example.org", "A").await, "60 1.2.3.4");
}

/// OVH keeps the zone, and publishes in the BIND.
async fn ovh(home: &Home, dns: &Dns) -> (Ovh, String) {
    let keys = ["app-key", "app-secret", "consumer-key"];
    let ovh = Ovh::start(home, ZONE, keys, dns.netns.ip(), &format!("{KEY}:{SECRET}")).await;
    let consumer = home.join("consumer.key");
    fs::write(&consumer, keys[2]).unwrap();
    let table = format!(
        "[[ddns.zone]]\nzone = \"{ZONE}\"\nprovider = \"ovh\"\nurl = \"{}\"\nnameserver = \"{}\"\nttl = 120\n\
         application_key = \"{}\"\nsecret_file = \"{}\"\nconsumer_key_file = \"{}\"\n",
        ovh.url(),
        dns.netns.ip(),
        keys[0],
        secret(home, keys[1]).display(),
        consumer.display()
    );
    (ovh, table)
}

#[tokio::test(flavor = "multi_thread")]
async fn ovh_is_told_by_its_api() {
    let home = Home::new();
    let dns = Dns::start(&home, "uk 300 A 1.2.3.4").await;
    let (ovh, table) = ovh(&home, &dns).await;
    ovh.has("A", "uk", "1.2.3.4", 300);
    let postgres = Postgres::start(&home).await;
    let world = World::over(home, postgres, |provider| soon(provider).table(&table)).await;
    site_uk(&world).await;
    seen_at(&world, 1, &["5.6.7.8"]).await;
    dns.until("uk.example.org", "A", "300 5.6.7.8").await;
    dns.until("app.example.org", "A", "120 5.6.7.8").await;
    until_right(&world.provider, "app.example.org A").await;
    let asked = ovh.asked();
    let record = |name: &str| format!("GET /domain/zone/{ZONE}/record?fieldType=A&subDomain={name}");
    assert!(asked.contains(&record("uk")) && asked.contains(&record("app")), "{asked:?}");
    let refresh = format!("POST /domain/zone/{ZONE}/refresh");
    let post = format!("POST /domain/zone/{ZONE}/record");
    assert!(asked.contains(&post) && asked.iter().any(|one| one.starts_with("PUT ")), "{asked:?}");
    assert_eq!(asked.iter().filter(|one| **one == refresh).count(), 2, "{asked:?}");

    let log = world.provider.log();
    assert!(!log.contains("app-secret") && !log.contains("consumer-key"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ovh_answers_wrongly_is_told_and_does_no_harm() {
    let home = Home::new();
    let dns = Dns::start(&home, "uk 300 A 1.2.3.4\napp 60 A 5.6.7.8").await;
    let (ovh, table) = ovh(&home, &dns).await;
    ovh.has("A", "uk", "1.2.3.4", 300);
    let postgres = Postgres::start(&home).await;
    let world = World::over(home, postgres, |provider| soon(provider).table(&table)).await;
    site_uk(&world).await;
    // One name is enough.
    world.psql("UPDATE domains SET dns_mode = 'external'").await;
    // Each is told, changes nothing, and is over when it is over.
    let mut seq = 0;
    for (mood, words, address) in [
        (Mood::Refusing(500, None), "answers 500 Internal Server Error: try again later", "9.9.9.9"),
        (Mood::Refusing(429, Some(1)), "answers 429 Too Many Requests", "8.8.8.8"),
        (Mood::Nonsense, "its answer cannot be read", "8.8.4.4"),
        (Mood::Refusing(403, None), "answers 403 Forbidden", "5.6.7.8"),
    ] {
        let before = dns.says("uk.example.org", "A").await;
        ovh.is(mood);
        seq += 1;
        seen_at(&world, seq, &[address]).await;
        let finding = until_found(&world.provider, "uk.example.org A", words).await;
        assert_eq!(finding["status"], "critical", "{finding}");
        assert_eq!(dns.says("uk.example.org", "A").await, before);
        ovh.is(Mood::Well);
        dns.until("uk.example.org", "A", &format!("300 {address}")).await;
        until_right(&world.provider, "uk.example.org A").await;
    }

    // Taken, and not published: told, and in the end tried again.
    ovh.is(Mood::Idle);
    seen_at(&world, seq + 1, &["1.1.1.1"]).await;
    until_found(&world.provider, "uk.example.org A", "the name servers never said so").await;
    ovh.is(Mood::Well);
    dns.until("uk.example.org", "A", "300 1.1.1.1").await;
    until_right(&world.provider, "uk.example.org A").await;

    // Somebody else made it something else, and has not published that.
    ovh.has("A", "uk", "7.7.7.7", 300);
    seen_at(&world, seq + 2, &["5.6.7.8"]).await;
    until_found(&world.provider, "uk.example.org A", "OVH has 7.7.7.7, which is not what its name servers say").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_change_the_next_start_ends_it() {
    let home = Home::new();
    let dns = Dns::start(&home, "uk 300 A 1.2.3.4\napp 60 A 5.6.7.8").await;
    let (ovh, table) = ovh(&home, &dns).await;
    ovh.has("A", "uk", "1.2.3.4", 300);
    let postgres = Postgres::start(&home).await;
    let mut world = World::over(home, postgres, |provider| soon(provider).table(&table)).await;
    site_uk(&world).await;
    let mut addresses = ["5.6.7.8", "9.9.9.9", "8.8.8.8"].into_iter().zip(1_u64..);
    // Before the record is changed; between that and the refresh; when it is published and nobody has looked.
    for step in [Method::GET, Method::PUT, Method::POST] {
        let (address, seq) = addresses.next().unwrap();
        ovh.asked();
        ovh.is(Mood::Mute(step.clone()));
        seen_at(&world, seq, &[address]).await;
        let mut asked = Vec::new();
        until(&format!("it is asked to {step}"), LONG, async || {
            asked.extend(ovh.asked());
            if asked.iter().any(|one| one.starts_with(step.as_str())) { Ok(()) } else { Err(asked.clone()) }
        })
        .await;
        world.provider.kill();
        ovh.is(Mood::Well);
        world.provider.up().await;
        dns.until("uk.example.org", "A", &format!("300 {address}")).await;
        until_right(&world.provider, "uk.example.org A").await;
        until("every change has an end", LONG, async || {
            let sql = "SELECT count(*) FROM charliehub.audit_events c WHERE kind = 'ddns.change' AND detail ->> 'name' = 'uk.example.org' AND NOT EXISTS
                       (SELECT FROM charliehub.audit_events e WHERE (e.detail ->> 'change')::bigint = c.id)";
            match world.postgres.value(sql).await.as_str() {
                "0" => Ok(()),
                open => Err(open.to_owned()),
            }
        })
        .await;
    }
    let results =
        world.psql("SELECT detail ->> 'result' FROM charliehub.audit_events WHERE kind = 'ddns.changed'").await;
    assert!(results.iter().any(|one| one[0] == "found at a later look"), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_hangs_is_given_up() {
    let home = Home::new();
    let dns = Dns::start(&home, "uk 300 A 1.2.3.4\napp 60 A 5.6.7.8").await;
    let (ovh, table) = ovh(&home, &dns).await;
    ovh.is(Mood::Mute(Method::GET));
    let postgres = Postgres::start(&home).await;
    let world = World::over(home, postgres, |provider| soon(provider).table(&table)).await;
    site_uk(&world).await;
    seen_at(&world, 1, &["5.6.7.8"]).await;
    until_found(&world.provider, "uk.example.org A", "no answer in time").await;
    assert_eq!(dns.says("uk.example.org", "A").await, "300 1.2.3.4");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_providers_one_acts_and_a_change_is_made_once_in_its_interval() {
    let home = Home::new();
    let dns = Dns::start(&home, "uk 300 A 1.2.3.4\napp 60 A 1.2.3.4").await;
    let (postgres, table) = (Postgres::start(&home).await, dns.table(&secret(&home, SECRET)));
    let rare = |provider: Provider| soon(provider).table(&table).set("ddns", "interval", "\"3s\"");
    let world = World::over(home.clone(), postgres, rare).await;
    let mut others = Vec::new();
    for name in ["two", "three"] {
        others.push(rare(Provider::new(&home, name).database(&world.postgres.url())).start().await);
    }
    site_uk(&world).await;
    seen_at(&world, 1, &["5.6.7.8"]).await;
    for (name, ttl) in [("uk.example.org", 300), ("app.example.org", 60)] {
        dns.until(name, "A", &format!("{ttl} 5.6.7.8")).await;
    }
    // The address is another one at once: it waits for its turn.
    seen_at(&world, 2, &["9.9.9.9"]).await;
    for (name, ttl) in [("uk.example.org", 300), ("app.example.org", 60)] {
        dns.until(name, "A", &format!("{ttl} 9.9.9.9")).await;
    }
    for provider in others.iter().chain([&world.provider]) {
        until_right(provider, "uk.example.org A").await;
    }
    let apart = "SELECT min(b.at - a.at) > interval '3 s' FROM charliehub.audit_events a JOIN charliehub.audit_events b
                     ON b.id > a.id AND b.detail ->> 'name' = a.detail ->> 'name' WHERE a.kind = 'ddns.change' AND b.kind = 'ddns.change'";
    assert_eq!(world.postgres.value(&format!("SELECT ({apart})::text")).await, "true");
    let changes = audit(&world).await.iter().filter(|one| one.starts_with("ddns.change ")).count();
    assert_eq!(changes, 4, "each once: {:?}", audit(&world).await);
}

/// A site that follows what its tunnel's end on the hub sees, on real tunnels.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_moves_and_dns_follows_its_tunnel() {
    let home = Home::new();
    let dns = Dns::start(&home, "uk 300 A 1.2.3.4").await;
    let (postgres, table) = (Postgres::start(&home).await, dns.table(&secret(&home, SECRET)));
    let world = World::over(home, postgres, |provider| soon(provider).table(&table)).await;
    let lab = Lab::up(&world.home, 0).await;
    let hub = lab.hub();
    let provider = Switch::inside(&world.home, &hub, world.provider.address().port()).await;
    for site in lab.sites() {
        let wan_name = (site.name == "uk").then_some("uk.example.org");
        let body = json!({ "name": site.name, "networks": [site.network], "wan_name": wan_name,
            "tunnels": [{ "interface": site.interface, "public_key": site.key, "keepalive": 25, "peer_address": site.end,
                "allowed_ips": [site.network, format!("{}/32", site.end)] }] });
        let answer = world.provider.send(Method::POST, "/api/sites", &body.to_string()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let token = world.provider.must(&["token", "create", "--role", "agent", "--subject", "hub2", "hub2"]).await;
    fs::write(world.home.join("agent.token"), token).unwrap();
    let sockets = lab.settings().split("[[sites]]").next().unwrap_or_default().to_owned();
    let settings = format!(
        "name = \"hub2\"\n[timing]\nwireguard = \"300ms\"\ndoubt = \"100ms\"\n[provider]\nurl = \"http://{}\"\n\
         token_file = \"{}\"\n{sockets}",
        provider.address(),
        world.home.join("agent.token").display()
    );
    let _agent = Agent::new(&world.home, &settings).inside(&hub).started().await;
    // What the lab's networks are is kept for documents.
    until_found(&world.provider, "uk.example.org A", "198.51.100.2 is not reached from the internet").await;
    // Its NAT gives it an address of the internet's, and another one. The hub's own packets must not keep the old way open.
    lab.at_site("net", "iptables -w 5 -t raw -A PREROUTING -i hub2 -d 198.51.100.2 -j DROP").await;
    for (address, port) in [("44.4.4.2", 51_901), ("44.4.4.3", 51_902)] {
        let nat = format!("POSTROUTING -o hub2 -s 198.51.100.2 -p udp -j SNAT --to-source {address}");
        lab.at_site("net", &format!("iptables -w 5 -t nat -F POSTROUTING; iptables -w 5 -t nat -A {nat}")).await;
        let call = "ping -q -c 4 -i 0.2 -W 1 10.254.44.1 || true";
        lab.at_site("uk", &format!("wg set wg-hub listen-port {port}; {call}")).await;
        dns.until("uk.example.org", "A", &format!("300 {address}")).await;
    }
    until_right(&world.provider, "uk.example.org A").await;
    let agents = world.provider.get("/api/agents").await.json();
    let endpoints = agents[0]["endpoints"].as_array().unwrap();
    let uk = endpoints.iter().find(|one| one["site"] == "uk").unwrap();
    assert_eq!((&uk["interface"], &uk["address"]), (&json!("wg-uk"), &json!("44.4.4.3")), "{agents}");
}
