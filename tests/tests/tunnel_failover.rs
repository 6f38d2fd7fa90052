//! A site's networks move to the tunnel that stands by and come back: on real tunnels, cut, mended, killed at each step, held, and
//! handled by somebody else.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{Agent, Home, Lab, Pings, full, handbook, measured, ms, secs, until};

const CHECK: &str = "failover";
const TARGET: &str = "wg-fr->wg-uk";
const HOST: &str = "10.35.0.10";
/// Routes of ours, and of nobody else.
const OURS: &str = "ip route show proto 235";

/// Real tunnels, where site fr may also be reached by that of uk.
struct Sites {
    /// Taken down while its home is there.
    lab: Lab,
    home: Home,
}

impl Sites {
    async fn up() -> Self {
        let home = Home::new();
        let lab = Lab::up(&home, 0).await;
        Self { lab, home }
    }

    fn run_dir(&self) -> PathBuf {
        self.home.join("run")
    }

    /// Of an agent that fails over as `failover` says.
    fn settings(&self, failover: &str) -> String {
        format!(
            "[timing]\nwireguard = \"500ms\"\ndoubt = \"100ms\"\nclear = \"200ms\"\n[act]\nrun_dir = \"{}\"\n{}{}",
            self.run_dir().display(),
            self.lab.settings(),
            self.lab.failover(failover),
        )
    }

    fn agent(&self, failover: &str) -> Agent {
        Agent::new(&self.home, &self.settings(failover)).inside(&self.lab.hub())
    }

    /// What the host had before and must have again.
    async fn host(&self) -> String {
        self.lab.asked_on_hub("ip route show 10.35.0.0/16; wg show wg-uk allowed-ips | tr ' ' '\\n' | sort").await
    }

    /// Waits until the site answers; how long that took.
    async fn until_answered(&self, pings: &Pings, deadline: Duration) -> Duration {
        let asked = SystemTime::now();
        let answered = async || pings.is_answered_since(asked).then_some(()).ok_or("no answer");
        until("the site answers", deadline, answered).await.1
    }
}

/// A move is judged soon, and returns soon.
const FAST: &str = "mode = \"act\"\nprofile = \"fast\"\nreturn_after = \"3s\"\ntrial = \"2s\"";

async fn told(agent: &Agent, status: Status, words: &str, deadline: Duration) -> Finding {
    let is_it =
        |one: &Finding| one.check == CHECK && one.target == TARGET && one.status == status && one.text.contains(words);
    let (findings, _) = agent.until(&format!("{status}: {words}"), deadline, |all| all.iter().any(is_it)).await;
    findings.into_iter().find(is_it).unwrap()
}

async fn until_at_rest(agent: &Agent, deadline: Duration) {
    told(agent, Status::Ok, "goes by wg-fr, and wg-uk stands by", deadline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_cut_and_its_site_is_reached_by_the_other_and_by_its_own_again() {
    let sites = Sites::up().await;
    let before = sites.host().await;
    let (settings, limit) =
        if full() { ("mode = \"act\"\nreturn_after = \"3s\"\ntrial = \"2s\"", secs(50)) } else { (FAST, secs(8)) };
    // What comes by another way than it would be answered is dropped, and tracked connections are ended by a program.
    sites.lab.on_hub("sysctl -qw net.ipv4.conf.all.rp_filter=1").await;
    let (programs, ended) = (sites.home.join("programs"), sites.home.join("ended"));
    fs::create_dir_all(&programs).unwrap();
    fs::write(programs.join("conntrack"), format!("#!/bin/sh\necho \"$@\" >>{}\n", ended.display())).unwrap();
    fs::set_permissions(programs.join("conntrack"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut agent = sites.agent(settings).with_programs(programs).started().await;
    until_at_rest(&agent, secs(10)).await;
    let pings = Pings::start(&sites.home, &sites.lab.hub(), HOST);
    sites.until_answered(&pings, secs(5)).await;

    let drill = handbook("Failover between tunnels");
    let (_, drill) = drill.iter().find(|(_, text)| text.starts_with("iptables -I")).unwrap();
    let cut = drill.lines().next().unwrap();
    sites.lab.on_hub(cut).await;
    let took = sites.until_answered(&pings, secs(60)).await;
    measured("from the cut to an answer by the other tunnel", took);
    let moved = told(&agent, Status::Warning, "goes by wg-uk", secs(5)).await;
    let deed = moved.action.unwrap().to_string();
    assert!(deed.contains("10.35.0.0/16 moves to wg-uk: ") && deed.contains("3 probes of the site's hosts"), "{deed}");
    for words in ["may now send as 10.35.0.0/16", "sends by wg-fr is dropped meanwhile (strict rp_filter"] {
        assert!(moved.text.contains(words), "{words}: {}", moved.text);
    }
    let ours = sites.lab.asked_on_hub(OURS).await;
    assert!(ours.starts_with("10.35.0.0/16 dev wg-uk") && ours.contains("metric 50"), "{ours}");
    // What follows from it is no alarm of its own.
    let peer = agent.finding("wg-peer", "wg-uk").await.unwrap();
    assert_eq!(peer.status, Status::Ok, "{}", peer.text);
    let (lost, longest) = pings.lost();
    println!("lost while it moved: {lost} of 10 a second, {:.1} s", longest.as_secs_f64());
    assert!(longest < limit, "{longest:?} without an answer");

    sites.lab.on_hub(&cut.replace(" -I ", " -D ")).await;
    until_at_rest(&agent, secs(30)).await;
    let (lost_in_all, _) = pings.lost();
    println!("lost while it returned: {}", lost_in_all - lost);
    assert!(lost_in_all - lost <= 5, "it returns while both tunnels work");
    assert_eq!(sites.host().await, before, "nothing of it is left");
    let log = agent.log();
    for line in ["failover begins", "failover is done", "moves back to wg-fr, which has answered for 3 s"] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert_eq!(fs::read_to_string(ended).unwrap(), "-D -d 10.35.0.0/16\n".repeat(2));

    // A third move within the hour, and the fourth is an operator's, also after a restart.
    sites.lab.on_hub(cut).await;
    told(&agent, Status::Warning, "goes by wg-uk", limit).await;
    sites.lab.on_hub(&cut.replace(" -I ", " -D ")).await;
    let words = "held after 3 moves within an hour: 10.35.0.0/16 stays with wg-uk";
    told(&agent, Status::Critical, words, secs(20)).await;
    agent.kill();
    agent.up().await;
    told(&agent, Status::Critical, words, secs(10)).await;
    sites.until_answered(&pings, secs(2)).await;
    fs::remove_file(sites.run_dir().join("held-fr")).unwrap();
    until_at_rest(&agent, secs(20)).await;
    assert_eq!(sites.host().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_where_it_would_not_help_or_somebody_else_decides() {
    let sites = Sites::up().await;
    let before = sites.host().await;
    let mut agent = sites.agent(FAST).started().await;
    until_at_rest(&agent, secs(10)).await;

    // Without the capability nothing is begun.
    let unable = sites.agent(FAST).without("net_admin").started().await;
    let refused = told(&unable, Status::Unknown, "the agent may not set routes", secs(10)).await;
    assert!(refused.remedy.unwrap().contains("CAP_NET_ADMIN"));
    drop(unable);

    // One host, one agent that acts.
    let second = sites.agent(FAST).started().await;
    let refused = told(&second, Status::Unknown, "another agent does this on this host", secs(10)).await;
    assert!(refused.remedy.unwrap().contains("stop one of them"));
    drop(second);

    // Both dead: it stays, and says so. Then the other answers again, and takes over.
    for site in ["uk", "fr"] {
        assert!(sites.lab.fault("drop-underlay", site, None).await);
    }
    told(&agent, Status::Critical, "both wg-fr and wg-uk are silent", secs(20)).await;
    tokio::time::sleep(secs(4)).await;
    assert_eq!(sites.host().await, before);

    // An operator's file: whatever happens, nothing is done.
    fs::write(sites.run_dir().join("hold"), "").unwrap();
    sites.lab.undo("uk").await;
    let held = told(&agent, Status::Critical, "held: 10.35.0.0/16 stays with wg-fr", secs(10)).await;
    assert!(held.remedy.unwrap().contains(&format!("rm {}", sites.run_dir().join("hold").display())));
    tokio::time::sleep(secs(4)).await;
    assert_eq!(sites.host().await, before);

    // A route by hand: it is not ours, with the file gone too.
    sites.lab.on_hub("ip route add 10.35.0.0/16 dev wg-uk metric 50").await;
    let by_hand = sites.host().await;
    fs::remove_file(sites.run_dir().join("hold")).unwrap();
    told(&agent, Status::Warning, "has a route that somebody made, of metric 50,", secs(10)).await;
    tokio::time::sleep(secs(4)).await;
    assert_eq!(sites.host().await, by_hand);

    // The other tunnel answers, and its site does not pass on: the move is undone, and told.
    sites.lab.at_site("uk", "ip link set lan0 down").await;
    sites.lab.on_hub("ip route del 10.35.0.0/16 dev wg-uk metric 50").await;
    let failed = "the last move failed: no host of the site answers by wg-uk (0 of 3 probes); undone";
    told(&agent, Status::Critical, failed, secs(20)).await;
    assert_eq!(sites.host().await, before);
    agent.kill();

    // A dry-run says all of it, and does none of it.
    let agent = sites.agent(&FAST.replace("act", "dry-run")).started().await;
    let said = told(&agent, Status::Warning, "goes by wg-uk", secs(20)).await;
    assert!(said.text.contains("dry-run: nothing is done"), "{}", said.text);
    assert!(said.action.unwrap().what.starts_with("10.35.0.0/16 moves to wg-uk: "));
    assert_eq!(sites.host().await, before);
    sites.lab.undo("fr").await;
    until_at_rest(&agent, secs(20)).await;
    assert_eq!(sites.host().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_step_the_next_start_ends_in_a_way_that_works() {
    let sites = Sites::up().await;
    let before = sites.host().await;
    let pings = Pings::start(&sites.home, &sites.lab.hub(), HOST);
    let mut agent = sites.agent(FAST);
    assert!(sites.lab.fault("drop-underlay", "fr", None).await);
    // On the way over, each start first undoes what the one before has left, and then dies a step later.
    for step in ["remembered", "allowed", "routed"] {
        agent.dies_at(Some(step));
        agent.up().await;
        agent.until_ended(secs(30)).await;
        println!("killed when {step}: {}", sites.host().await.replace('\n', " "));
    }
    agent.dies_at(None);
    agent.up().await;
    told(&agent, Status::Warning, "goes by wg-uk", secs(20)).await;
    sites.until_answered(&pings, secs(2)).await;
    // On the way back.
    for step in ["unrouted", "disallowed"] {
        agent.kill();
        agent.dies_at(Some(step));
        agent.up().await;
        told(&agent, Status::Warning, "goes by wg-uk", secs(20)).await;
        sites.lab.undo("fr").await;
        agent.until_ended(secs(30)).await;
        sites.until_answered(&pings, secs(2)).await;
        agent.dies_at(None);
        agent.up().await;
        until_at_rest(&agent, secs(20)).await;
        assert_eq!(sites.host().await, before, "nothing of it is left after {step}");
        if step == "unrouted" {
            assert!(sites.lab.fault("drop-underlay", "fr", None).await);
            told(&agent, Status::Warning, "goes by wg-uk", secs(20)).await;
        }
    }
    sites.until_answered(&pings, ms(500)).await;
}

/// What makes both sites reachable by IPv6 too: within the tunnels, and from one to the other.
async fn give_ipv6(lab: &Lab) {
    let of = |name: &str| lab.sites().iter().find(|site| site.name == name).unwrap();
    let (uk, fr) = (of("uk"), of("fr"));
    lab.on_hub(&format!(
        "ip -6 address add fd00:35::1/64 dev wg-fr nodad; ip -6 address add fd00:44::1/64 dev wg-uk nodad; \
         ip -6 route add fd35::/48 dev wg-fr metric 100; \
         wg set wg-fr peer {} allowed-ips 10.35.0.0/16,10.254.35.2/32,fd35::/48; \
         wg set wg-uk peer {} allowed-ips 10.44.0.0/16,10.254.44.2/32,fd00:44::2/128",
        fr.key, uk.key
    ))
    .await;
    lab.at_site(
        "fr",
        &format!(
            "ip -6 address add fd00:35::2/64 dev wg-hub nodad; ip -6 address add fd31::2/64 dev lan0 nodad; \
             ip -6 route add local fd35::/48 dev lo; ip -6 route add fd00:44::/64 via fd31::1; \
             wg set wg-hub peer {} allowed-ips 10.254.35.1/32,fd00:35::1/128",
            fr.hub_key
        ),
    )
    .await;
    lab.at_site(
        "uk",
        &format!(
            "sysctl -qw net.ipv6.conf.all.forwarding=1; ip -6 address add fd00:44::2/64 dev wg-hub nodad; \
             ip -6 address add fd31::1/64 dev lan0 nodad; ip -6 route add fd35::/48 via fd31::2; \
             wg set wg-hub peer {} allowed-ips 10.254.44.1/32,fd00:44::1/128",
            uk.hub_key
        ),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_of_both_families_move_together() {
    let sites = Sites::up().await;
    give_ipv6(&sites.lab).await;
    let host = "{ address = \"10.35.0.10\" }";
    let settings = sites
        .settings(FAST)
        .replace("networks = [\"10.35.0.0/16\"]", "networks = [\"10.35.0.0/16\", \"fd35::/48\"]")
        .replace(host, &format!("{host}, {{ address = \"fd35::10\" }}"))
        .replace("\"10.254.35.2/32\"]", "\"10.254.35.2/32\", \"fd35::/48\"]")
        .replace("\"10.254.44.2/32\"]", "\"10.254.44.2/32\", \"fd00:44::2/128\"]");
    let before = sites.host().await;
    let agent = Agent::new(&sites.home, &settings).inside(&sites.lab.hub()).started().await;
    told(&agent, Status::Ok, "10.35.0.0/16, fd35::/48 goes by wg-fr", secs(10)).await;
    // Each from the address that the hub has for its way then: one that goes on keeps what it began with.
    let is_reached = async || {
        sites.until_answered(&Pings::start(&sites.home, &sites.lab.hub(), "fd35::10"), secs(10)).await;
    };
    is_reached().await;
    // One of them alone proves nothing of the other.
    sites.lab.at_site("uk", "ip -6 route del fd35::/48").await;
    sites.lab.on_hub("iptables -I INPUT -p udp --dport 51821 -j DROP").await;
    told(&agent, Status::Critical, "the last move failed: no host of the site answers by wg-uk", secs(30)).await;
    sites.lab.at_site("uk", "ip -6 route add fd35::/48 via fd31::2").await;
    told(&agent, Status::Warning, "10.35.0.0/16, fd35::/48 goes by wg-uk", secs(30)).await;
    is_reached().await;
    let ours = sites.lab.asked_on_hub("ip -6 route show proto 235").await;
    assert!(ours.starts_with("fd35::/48 dev wg-uk") && ours.contains("metric 50"), "{ours}");
    sites.lab.on_hub("iptables -D INPUT -p udp --dport 51821 -j DROP").await;
    told(&agent, Status::Ok, "10.35.0.0/16, fd35::/48 goes by wg-fr", secs(30)).await;
    is_reached().await;
    assert_eq!(sites.lab.asked_on_hub("ip -6 route show proto 235").await, "", "nothing of it is left");
    assert_eq!(sites.host().await, before);
}
