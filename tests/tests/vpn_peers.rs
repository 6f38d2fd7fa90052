//! The peers of an interface become what the rows say, and nobody who is right notices: on real tunnels, with clients that come and
//! go, killed at each step, fought over, held, and never the peer by which the hub is managed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{Agent, Home, Lab, Pings, Session, Signal, Site, Switch, World, measured, ms, secs, until};
use hyper::Method;
use serde_json::json;

const CHECK: &str = "vpn-peers";
/// Of nobody: valid as a key.
const STRANGER: &str = "2p2NkdRzG9WF9umEqEneYHwUtPVNtQWOFiv45W4Pqzw=";

/// A client that a row could have: its name, its key, its address.
type Client = (&'static str, &'static str, &'static str);

const ANNA: Client = ("anna-laptop", "hgnS7gruSLwdyuNxT/BvOJ9wElypGRV3iWxzwkSEIVo=", "10.99.0.7");
const BEN: Client = ("ben-phone", STRANGER, "10.99.0.8");

struct Hub {
    /// Taken down while its home is there.
    lab: Lab,
    home: Home,
}

impl Hub {
    async fn up() -> Self {
        let home = Home::new();
        let lab = Lab::up(&home, 0).await;
        Self { lab, home }
    }

    fn run_dir(&self) -> PathBuf {
        self.home.join("run")
    }

    fn site(&self, name: &str) -> &Site {
        self.lab.sites().iter().find(|site| site.name == name).unwrap()
    }

    /// Of an agent that keeps these interfaces. `act` stands below `[act]`, `let_in`: by wg-uk, beside its site.
    fn settings(&self, mode: &str, interfaces: &[&str], act: &str, let_in: &[Client]) -> String {
        let kept = |one: &&str| format!("[[act.peers]]\ninterface = \"{one}\"\nmode = \"{mode}\"\n");
        let kept: String = interfaces.iter().map(kept).collect();
        let client = |(name, key, address): &Client| {
            format!(
                "[[peers]]\nname = \"{name}\"\ninterface = \"wg-uk\"\npublic_key = \"{key}\"\naddresses = [\"{address}/32\"]\n"
            )
        };
        let uk = self.site("uk");
        let vpn = format!(
            "[[policy.vpn]]\ninterface = \"wg-uk\"\npublic_key = \"{}\"\nendpoint = \"192.0.2.2:51820\"\n\
             addresses = [\"{}\"]\nmtu = 1420\n",
            uk.hub_key, uk.address
        );
        format!(
            "[timing]\nwireguard = \"500ms\"\ndoubt = \"100ms\"\nclear = \"200ms\"\n[act]\nrun_dir = \"{}\"\n{act}\n{kept}{}{vpn}{}",
            self.run_dir().display(),
            self.lab.settings(),
            let_in.iter().map(client).collect::<String>(),
        )
    }

    fn agent(&self, settings: &str) -> Agent {
        Agent::new(&self.home, settings).inside(&self.lab.hub())
    }

    /// A line for each peer: its key, its keepalive, its allowed IPs in order.
    async fn peers(&self, interface: &str) -> String {
        let shown = self.lab.asked_on_hub(&format!("wg show {interface} dump | tail -n +2")).await;
        let line = |line: &str| {
            let words: Vec<&str> = line.split('\t').collect();
            let mut networks: Vec<&str> = words[3].split(',').collect();
            networks.sort_unstable();
            format!("{} {} {}\n", words[0], networks.join(" "), words[7])
        };
        let mut lines: Vec<String> = shown.lines().map(line).collect();
        lines.sort();
        lines.concat()
    }

    async fn handshakes(&self, interface: &str) -> String {
        self.lab.asked_on_hub(&format!("wg show {interface} latest-handshakes")).await
    }

    async fn until_peers(&self, what: &str, interface: &str, is_so: impl Fn(&str) -> bool) -> Duration {
        let asked = async || {
            let shown = self.peers(interface).await;
            if is_so(&shown) { Ok(()) } else { Err(shown) }
        };
        until(what, secs(10), asked).await.1
    }

    async fn until_are(&self, interface: &str, wanted: &str) -> Duration {
        self.until_peers("the peers are as the rows say", interface, |shown| shown == wanted).await
    }
}

/// Waits until it is said of this interface, in its text or of what was done.
async fn told(agent: &Agent, interface: &str, status: Status, words: &str) -> Finding {
    let is_it = |one: &Finding| {
        let deed = one.action.as_ref().map(ToString::to_string).unwrap_or_default();
        let has = one.text.contains(words) || deed.contains(words);
        one.check == CHECK && one.target == interface && one.status == status && has
    };
    let (findings, _) =
        agent.until(&format!("{interface} {status}: {words}"), secs(15), |all| all.iter().any(is_it)).await;
    findings.into_iter().find(is_it).unwrap()
}

const WELL: &str = "has the peers that its rows name";

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_told_and_mended_and_who_is_right_does_not_notice() {
    let hub = Hub::up().await;
    let (uk, fr) = (hub.site("uk").clone(), hub.site("fr").clone());
    let (right_uk, right_fr) = (hub.peers("wg-uk").await, hub.peers("wg-fr").await);
    let pings = Pings::every(&hub.home, &hub.lab.hub(), &uk.host, ms(20));
    // A stranger who took the network of fr, who lost his keepalive; and one beside uk.
    let wrong = format!(
        "wg set wg-fr peer {STRANGER} allowed-ips {} && wg set wg-fr peer {} persistent-keepalive 0 && \
         wg set wg-uk peer {STRANGER} allowed-ips 10.99.0.8/32",
        fr.network, fr.key
    );
    hub.lab.on_hub(&wrong).await;
    let (wrong_uk, wrong_fr) = (hub.peers("wg-uk").await, hub.peers("wg-fr").await);

    // A dry run tells all of it, and changes nothing.
    let mut agent = hub.agent(&hub.settings("dry-run", &["wg-uk", "wg-fr"], "", &[])).started().await;
    let dry = told(&agent, "wg-fr", Status::Warning, "dry-run: nothing is done").await;
    println!("{}\n{}", dry.text, dry.action.as_ref().unwrap());
    let stranger = format!("- peer {STRANGER} allowed {}", fr.network);
    let change = format!("~ peer fr: allowed IPs +{}, keepalive 0 -> 25", fr.network);
    for words in [&stranger, &change] {
        assert!(dry.text.contains(words), "{words}: {}", dry.text);
    }
    assert!(dry.action.unwrap().to_string().ends_with("dry run: nothing was changed"));
    assert_eq!((hub.peers("wg-uk").await, hub.peers("wg-fr").await), (wrong_uk.clone(), wrong_fr.clone()));
    let shown = agent.run(&["apply", "--dry-run"]).await;
    println!("{}", shown.out);
    assert_eq!(shown.code, Some(1), "{shown:?}");
    assert!(
        shown.out.contains("wg-uk: 1 peer would change\n") && shown.out.contains("wg-fr: 2 peers would change\n"),
        "{shown:?}"
    );
    assert_eq!((hub.peers("wg-uk").await, hub.peers("wg-fr").await), (wrong_uk, wrong_fr));
    let drift = agent.finding("wg-peer", "wg-uk").await.unwrap();
    assert_eq!(drift.status, Status::Critical, "somebody who is no row is let in: {}", drift.text);
    agent.kill();

    // Let go, it is as the rows say, at once.
    let handshakes = hub.handshakes("wg-uk").await;
    let uk_handshake = handshakes.lines().find(|line| line.starts_with(&uk.key)).unwrap().to_owned();
    let mut agent = hub.agent(&hub.settings("act", &["wg-uk", "wg-fr"], "", &[])).started().await;
    let done = told(&agent, "wg-fr", Status::Ok, "done: 2 peers of wg-fr changed, and read back").await;
    println!("{}\n{}", done.text, done.action.unwrap());
    told(&agent, "wg-uk", Status::Ok, "done: 1 peer of wg-uk changed, and read back").await;
    assert_eq!((hub.peers("wg-uk").await, hub.peers("wg-fr").await), (right_uk.clone(), right_fr.clone()));
    assert!(hub.handshakes("wg-uk").await.contains(&uk_handshake), "its session goes on");
    let log = agent.log();
    assert!(log.contains("its peers change") && log.contains("its peers are changed"), "{log}");

    // The peer of a site is gone: it is made again, with all that its row says.
    hub.lab.on_hub(&format!("wg set wg-fr peer {} remove", fr.key)).await;
    let took = hub.until_are("wg-fr", &right_fr).await;
    measured("a peer that was removed is there again", took);
    let is_back = |one: &Finding| one.check == "wg-reachable" && one.target == "wg-fr" && one.status == Status::Ok;
    agent.until("fr answers again", secs(30), |all| all.iter().any(is_back)).await;

    // A client comes with the settings, and goes with them.
    agent.settings(&hub.settings("act", &["wg-uk", "wg-fr"], "", &[ANNA, BEN]));
    let asked = Instant::now();
    agent.signal(Signal::HUP);
    let lets_in = |name: Client| move |shown: &str| shown.contains(&format!("{} {}/32", name.1, name.2));
    hub.until_peers("anna is let in", "wg-uk", lets_in(ANNA)).await;
    measured("a client is let in", asked.elapsed());
    let (anna, _) = agent.until_status("wg-peer", "wg-uk anna-laptop", Status::Ok, secs(5)).await;
    assert_eq!(anna.site, None);
    let of_anna = |one: &&Finding| one.target.contains("anna-laptop");
    assert_eq!(agent.findings().await.iter().filter(of_anna).count(), 1, "whether she calls is not asked");
    agent.settings(&hub.settings("act", &["wg-uk", "wg-fr"], "", &[BEN]));
    let asked = Instant::now();
    agent.signal(Signal::HUP);
    hub.until_peers("anna is revoked", "wg-uk", |shown| !shown.contains(ANNA.1)).await;
    measured("a client is revoked", asked.elapsed());
    assert!(asked.elapsed() < secs(5), "{:?}", asked.elapsed());
    assert!(lets_in(BEN)(&hub.peers("wg-uk").await), "and nobody else");
    agent.kill();

    // Without an agent, by the command.
    agent.settings(&hub.settings("off", &["wg-uk"], "", &[]));
    let none = agent.run(&["apply"]).await;
    assert_eq!(none.code, Some(3), "{none:?}");
    assert!(none.err.contains("[[act.peers]] names no interface; name one: wg-fr, wg-uk"), "{none:?}");
    let unknown = agent.run(&["apply", "wg-none"]).await;
    assert!(unknown.code == Some(3) && unknown.err.contains("no row tells of wg-none"), "{unknown:?}");
    let done = agent.run(&["apply", "wg-uk"]).await;
    println!("{}", done.out);
    assert_eq!(
        (done.code, done.out.lines().next()),
        (Some(0), Some("wg-uk: 1 peer changed, and read back")),
        "{done:?}"
    );
    assert!(done.out.contains(&format!("  - peer   {}  allowed 10.99.0.8/32\n", BEN.1)), "{}", done.out);
    assert_eq!(hub.peers("wg-uk").await, right_uk);
    let again = agent.run(&["apply", "wg-uk", "--json"]).await;
    let again: serde_json::Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(
        again,
        serde_json::json!([{ "interface": "wg-uk", "changes": [], "refused": [], "notes": [], "is_done": false }])
    );

    // All that time uk was right.
    let (lost, longest) = pings.lost();
    println!("of pings to uk every 20 ms {lost} were lost; {longest:?} between two answers at most");
    assert_eq!(lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_step_the_next_start_ends_right() {
    let hub = Hub::up().await;
    let right = hub.peers("wg-uk").await;
    let mut agent = hub.agent(&hub.settings("act", &["wg-uk"], "", &[]));
    for step in ["peers-noted", "peers-written", "peers-checked"] {
        hub.lab.on_hub(&format!("wg set wg-uk peer {STRANGER} allowed-ips {}", hub.site("uk").network)).await;
        // Three of one change are too many within ten minutes.
        fs::remove_file(hub.run_dir().join("vpn-peers-wg-uk.json")).ok();
        agent.dies_at(Some(step));
        agent.up().await;
        agent.until_ended(secs(10)).await;
        println!("killed at {step}: {}", hub.peers("wg-uk").await.replace('\n', "; "));
        assert_eq!(hub.peers("wg-uk").await == right, step != "peers-noted", "{step}");
        agent.dies_at(None);
        agent.up().await;
        told(&agent, "wg-uk", Status::Ok, WELL).await;
        assert_eq!(hub.peers("wg-uk").await, right, "{step}");
        agent.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_manages_the_hub_is_not_cut_off_without_force() {
    let hub = Hub::up().await;
    let uk = hub.site("uk").clone();
    let right = hub.peers("wg-uk").await;
    // Somebody of site uk is logged in on the hub.
    let mut session = Session::open(&hub.lab.hub(), "10.254.44.1:2222", &hub.lab.place("uk"), &uk.host).await;
    // By the rows the site has another key.
    let rows =
        |mode: &str| hub.settings(mode, &["wg-uk"], "management_ports = [2222]", &[ANNA]).replace(&uk.key, BEN.1);
    let agent = hub.agent(&rows("act")).started().await;
    let guarded = told(&agent, "wg-uk", Status::Warning, "is not removed: a session from 10.44.0.10 comes by it").await;
    println!("{}", guarded.text);
    assert_eq!(
        guarded.remedy.as_deref(),
        Some("when there is another way in: charliehub-edge-agent apply wg-uk --force")
    );
    hub.until_peers("all else is done", "wg-uk", |shown| shown.contains(ANNA.1) && shown.contains(BEN.1)).await;
    let shown = hub.peers("wg-uk").await;
    let way = shown.lines().find(|line| line.starts_with(&uk.key)).unwrap();
    assert!(way.contains(&uk.network), "{shown}");
    assert!(session.lives().await, "the session goes on");

    // By hand neither.
    let refused = agent.run(&["apply", "wg-uk"]).await;
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(
        refused.err.contains("is not removed: a session from 10.44.0.10 comes by it")
            && refused.err.contains("--force"),
        "{refused:?}"
    );
    assert!(session.lives().await);
    drop(session);

    // The network that it is always managed from is a reason too, without anybody there. The last word is an operator's.
    drop(agent);
    let settings = rows("off").replace("management_ports = [2222]", "managed_from = [\"10.44.0.0/16\"]");
    let agent = hub.agent(&settings);
    let refused = agent.run(&["apply", "wg-uk"]).await;
    assert!(
        refused.code == Some(3) && refused.err.contains("whoever manages this host from 10.44.0.0/16"),
        "{refused:?}"
    );
    // Nor the way to the provider; and before that was heard once, nobody knows anything.
    let provider = format!("{}[provider]\nurl = \"http://10.44.0.10:8001\"\n", rows("off"));
    agent.settings(&provider);
    let refused = agent.run(&["apply", "wg-uk"]).await;
    assert!(refused.code == Some(3) && refused.err.contains("the provider was never heard"), "{refused:?}");
    let heard = "{\"agent\":\"hub2\",\"revision\":1,\"digest\":\"d\",\"sites\":[],\"policy\":{},\"names\":{}}";
    fs::write(agent.state_dir().join("expected.json"), heard).unwrap();
    let refused = agent.run(&["apply", "wg-uk"]).await;
    assert!(refused.code == Some(3) && refused.err.contains("the provider at 10.44.0.10 comes by it"), "{refused:?}");
    agent.settings(&settings);
    let forced = agent.run(&["apply", "wg-uk", "--force"]).await;
    println!("{}", forced.out);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert!(!hub.peers("wg-uk").await.contains(&uk.key));
    agent.settings(&hub.settings("off", &["wg-uk"], "", &[]));
    assert_eq!(agent.run(&["apply", "wg-uk"]).await.code, Some(0));
    assert_eq!(hub.peers("wg-uk").await, right);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_done_by_two_nor_against_somebody_nor_while_it_is_held() {
    let hub = Hub::up().await;
    let right = hub.peers("wg-uk").await;
    let settings = hub.settings("act", &["wg-uk"], "", &[]);
    let agent = hub.agent(&settings).started().await;
    told(&agent, "wg-uk", Status::Ok, WELL).await;

    let unable = hub.agent(&settings).without("net_admin").started().await;
    let refused = told(&unable, "wg-uk", Status::Unknown, "the agent may not set routes or tunnels").await;
    assert!(refused.remedy.unwrap().contains("CAP_NET_ADMIN"));
    drop(unable);
    let second = hub.agent(&settings).started().await;
    told(&second, "wg-uk", Status::Unknown, "another agent does this on this host").await;
    drop(second);

    // An operator's file: nothing is done, and it is told what would be.
    let add = format!("wg set wg-uk peer {STRANGER} allowed-ips 10.99.0.8/32");
    for file in ["hold", "hold-wg-uk", "hold-uk"] {
        let file = hub.run_dir().join(file);
        fs::write(&file, "").unwrap();
        told(&agent, "wg-uk", Status::Warning, "is as the rows say, and would not be kept so").await;
        hub.lab.on_hub(&add).await;
        let held =
            told(&agent, "wg-uk", Status::Warning, &format!("held: wg-uk stays as it is: - peer {STRANGER}")).await;
        assert_eq!(held.remedy.unwrap(), format!("when it may go on: rm {}", file.display()));
        let by_hand = agent.run(&["apply", "wg-uk"]).await;
        assert!(
            by_hand.code == Some(3) && by_hand.err.contains(&format!("{} holds it", file.display())),
            "{by_hand:?}"
        );
        assert!(hub.peers("wg-uk").await.contains(STRANGER));
        fs::remove_file(&file).unwrap();
        hub.until_are("wg-uk", &right).await;
    }

    // That was three times. The fourth is an operator's.
    hub.lab.on_hub(&add).await;
    let held =
        told(&agent, "wg-uk", Status::Critical, "held after a change that was made 3 times and taken back").await;
    println!("{}\n{}", held.text, fs::read_to_string(hub.run_dir().join("held-vpn-peers-wg-uk")).unwrap());
    assert!(hub.peers("wg-uk").await.contains(STRANGER));
    fs::remove_file(hub.run_dir().join("held-vpn-peers-wg-uk")).unwrap();
    hub.until_are("wg-uk", &right).await;
    told(&agent, "wg-uk", Status::Ok, WELL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_moved_stays_and_several_peers_do_not_go_at_once() {
    let hub = Hub::up().await;
    let (uk, fr) = (hub.site("uk").clone(), hub.site("fr").clone());
    // By its row the network of fr may go by wg-uk; another one may not.
    let given = format!("{},{}/32,{},10.77.0.0/16", uk.network, uk.end, fr.network);
    hub.lab.on_hub(&format!("wg set wg-uk peer {} allowed-ips {given}", uk.key)).await;
    let standby = hub.lab.failover("mode = \"off\"");
    let settings =
        hub.settings("act", &["wg-uk"], "", &[]).replace("[[policy.vpn]]", &format!("{standby}[[policy.vpn]]"));
    let mut agent = hub.agent(&settings).started().await;
    told(&agent, "wg-uk", Status::Ok, "~ peer uk: allowed IPs -10.77.0.0/16; done").await;
    let shown = hub.peers("wg-uk").await;
    assert_eq!(shown, format!("{} {}/32 {} {} 25\n", uk.key, uk.end, fr.network, uk.network));
    agent.kill();

    // No row is left: the rows are lost, not the peers. The last one was revoked.
    hub.lab.on_hub(&format!("wg set wg-uk peer {STRANGER} allowed-ips 10.99.0.8/32")).await;
    let (sites, rest) = (settings.find("[[sites]]").unwrap(), settings.find("[[policy.vpn]]").unwrap());
    let empty = format!("{}{}", &settings[..sites], &settings[rest..]);
    agent.settings(&empty);
    agent.up().await;
    let left = told(&agent, "wg-uk", Status::Warning, "wg-uk has 2 peers and no row: so many do not go at once").await;
    assert!(left.remedy.unwrap().ends_with("charliehub-edge-agent apply wg-uk --force"));
    let refused = agent.run(&["apply", "wg-uk"]).await;
    assert!(
        refused.code == Some(3) && refused.err.contains("no row is left for 2 peers; --force does it"),
        "{refused:?}"
    );
    assert_eq!(hub.peers("wg-uk").await.lines().count(), 2);
    hub.lab.on_hub(&format!("wg set wg-uk peer {STRANGER} remove")).await;
    hub.until_are("wg-uk", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_called_by_a_name_does_not_wait_for_it() {
    const NAME: &str = "fr.example.test";
    let hub = Hub::up().await;
    let (fr, right) = (hub.site("fr").clone(), hub.peers("wg-fr").await);
    // It does not call, and its peer is gone.
    let passive =
        format!("wg set wg-hub peer {0} remove && wg set wg-hub peer {0} allowed-ips 10.254.35.1/32", fr.hub_key);
    hub.lab.at_site("fr", &passive).await;
    hub.lab.on_hub(&format!("wg set wg-fr peer {} remove", fr.key)).await;
    let hosts = hub.home.join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let named = fr.endpoint.replace("203.0.113.2", NAME);
    let settings = hub.settings("act", &["wg-fr"], "", &[]).replace(&fr.endpoint, &named);
    let agent = hub.agent(&settings).with_hosts(hosts.clone()).started().await;
    let lost = told(&agent, "wg-fr", Status::Warning, &format!("{named} cannot be resolved")).await;
    assert_eq!(lost.remedy.as_deref(), Some("getent ahosts fr.example.test"));
    assert_eq!(hub.peers("wg-fr").await, right, "there it is");
    fs::write(&hosts, format!("127.0.0.1 localhost\n203.0.113.2 {NAME}\n")).unwrap();
    told(&agent, "wg-fr", Status::Ok, &format!("~ peer fr: endpoint none -> {}; done", fr.endpoint)).await;
    assert_eq!(hub.lab.asked_on_hub("wg show wg-fr endpoints").await, format!("{}\t{}\n", fr.key, fr.endpoint));

    // One that is heard is called where it was heard from, whatever the row has. Silent, it is called where the row says.
    let has_shaken = async || {
        let shown = hub.handshakes("wg-fr").await;
        if shown.trim_end().ends_with("\t0") { Err(shown) } else { Ok(()) }
    };
    until("it has shaken hands", secs(30), has_shaken).await;
    agent.settings(&settings.replace(&named, "203.0.113.9:51820"));
    agent.signal(Signal::HUP);
    until("it is reloaded", secs(10), async || agent.log().contains("reloaded").then_some(()).ok_or("not yet")).await;
    tokio::time::sleep(secs(1)).await; // two looks that change nothing
    assert_eq!(hub.lab.asked_on_hub("wg show wg-fr endpoints").await, format!("{}\t{}\n", fr.key, fr.endpoint));
    hub.lab
        .on_hub(&format!("wg set wg-fr peer {0} remove && wg set wg-fr peer {0} endpoint 203.0.113.10:1", fr.key))
        .await;
    told(&agent, "wg-fr", Status::Ok, "endpoint 203.0.113.10:1 -> 203.0.113.9:51820; done").await;
    assert_eq!(hub.peers("wg-fr").await, right);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_connects_by_what_it_was_issued_until_it_is_revoked() {
    let world = World::new().await;
    let lab = Lab::up(&world.home, 0).await;
    let uk = lab.sites().iter().find(|site| site.name == "uk").unwrap();
    lab.on_hub("ip address add 10.98.0.1/24 dev wg-uk").await;
    let row = json!({ "name": "uk", "networks": [uk.network], "tunnels": [{ "interface": "wg-uk", "public_key": uk.key,
        "own_public_key": uk.hub_key, "keepalive": 25, "peer_address": uk.end,
        "allowed_ips": [uk.network, format!("{}/32", uk.end)] }] });
    let answer = world.provider.send(Method::POST, "/api/sites", &row.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let vpn = json!({ "vpn": [{ "interface": "wg-uk", "public_key": uk.hub_key, "endpoint": "192.0.2.2:51820",
        "addresses": ["10.98.0.1/24"], "routes": ["10.98.0.1/32"] }] });
    let answer = world.provider.send(Method::PUT, "/api/agents/hub2/policy", &vpn.to_string()).await;
    assert!(answer.status < 300, "{}", answer.text());
    let provider = Switch::inside(&world.home, &lab.hub(), world.provider.address().port()).await;
    let token = world.provider.must(&["token", "create", "--role", "agent", "--subject", "hub2", "hub2"]).await;
    let file = world.home.join("agent.token");
    fs::write(&file, token).unwrap();
    // With the intervals of everyday.
    let settings = format!(
        "name = \"hub2\"\n[provider]\nurl = \"http://{}\"\ntoken_file = \"{}\"\n[wireguard]\nsockets = \"{}\"\n\
         [act]\nrun_dir = \"{}\"\n[[act.peers]]\ninterface = \"wg-uk\"\nmode = \"act\"\n",
        provider.address(),
        file.display(),
        lab.folder("hub2").join("wireguard").display(),
        world.home.join("run").display(),
    );
    let agent = Agent::new(&world.home, &settings).inside(&lab.hub()).started().await;
    agent.until_status(CHECK, "wg-uk", Status::Ok, secs(20)).await;
    let site = Pings::start(&world.home, &lab.hub(), &uk.host);

    let configuration = world.home.join("wg-anna.conf");
    let issued = Instant::now();
    let issue = ["peers", "issue", "anna", "--interface", "wg-uk", "--out", configuration.to_str().unwrap()];
    world.provider.must(&issue).await;
    let client = Pings::through(&world.home, &lab.at("fr"), &configuration, "10.98.0.1");
    let connected = async || client.is_answered_since(UNIX_EPOCH).then_some(()).ok_or_else(|| client.log());
    until("the client is connected", secs(20), connected).await;
    measured("issued -> connected", issued.elapsed());
    let wrong = |one: &Finding| one.check == "wg-peer" && one.status != Status::Ok;
    agent.until("the hub knows whom it lets in", secs(10), |all| !all.iter().any(wrong)).await;

    let key = world.psql("SELECT public_key FROM peers").await.remove(0).remove(0);
    let revoked = Instant::now();
    let revoke = world.provider.must(&["peers", "revoke", "anna"]);
    let gone = async || {
        let peers = lab.asked_on_hub("wg show wg-uk peers").await;
        if peers.contains(&key) { Err(peers) } else { Ok(()) }
    };
    let (told, ((), took)) = tokio::join!(revoke, until("the hub does not let it in", secs(5), gone));
    measured("revoked -> gone from the hub", took);
    assert!(told.contains("gone from hub2 after "), "{told}");
    assert!(revoked.elapsed() < secs(5), "{:?}", revoked.elapsed());
    let after = SystemTime::now();
    let lost = async || {
        let late = client.is_answered_since(after + ms(500));
        let long = after.elapsed().is_ok_and(|passed| passed > ms(1500));
        if late { panic!("it is still answered") } else { long.then_some(()).ok_or("not yet") }
    };
    until("nothing is answered any more", secs(5), lost).await;
    assert_eq!(site.lost().0, 0, "the site noticed nothing");
}
