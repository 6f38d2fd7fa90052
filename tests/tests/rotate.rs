//! The key of a tunnel is exchanged at both ends: on real tunnels, with an agent at each end, killed at every step, without the
//! provider, and with a site that has no agent.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "fails as its stories do")]

use std::{fs, net::Ipv4Addr, path::Path, time::Duration};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{
    Agent, HUB_PACKAGES, Home, Lab, Output, Pings, Switch, Systemd, World, handbook, measured, secs, until,
};
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

/// As the checks call it.
const CHECK: &str = "key-rotation";
/// The hub's address inside the tunnel, and the site's.
const HUB: Ipv4Addr = Ipv4Addr::new(10, 254, 44, 1);
const SITE: &str = "10.254.44.2";

/// A hub and site uk, an agent at each, and their rows.
struct Ends {
    hub: Agent,
    site: Agent,
    /// How both reach the provider.
    ways: (Switch, Switch),
    lab: Lab,
    world: World,
}

/// How the site's agent reaches the provider.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Aside,
    ThroughTheTunnel,
}

impl Ends {
    async fn up(way: Way) -> Self {
        let world = World::new().await;
        let lab = Lab::up(&world.home, 0).await;
        let port = world.provider.address().port();
        let hub_way = Switch::inside(&world.home, &lab.hub(), port).await;
        let site_way = match way {
            Way::Aside => Switch::inside(&world.home, &lab.at("uk"), port).await,
            Way::ThroughTheTunnel => Switch::at(&world.home, &lab.hub(), HUB, port).await,
        };
        let uk = lab.sites().iter().find(|site| site.name == "uk").unwrap().clone();
        let rows = [
            json!({ "name": "uk", "networks": [uk.network], "hosts": [{ "address": uk.host }], "tunnels": [{
                "interface": "wg-uk", "public_key": uk.key, "own_public_key": uk.hub_key, "keepalive": 25,
                "peer_address": SITE, "allowed_ips": [uk.network, format!("{SITE}/32")] }] }),
            json!({ "name": "hub", "agent": "uk-agent", "networks": [format!("{HUB}/32")], "tunnels": [{
                "interface": "wg-hub", "public_key": uk.hub_key, "own_public_key": uk.key, "keepalive": 25,
                "peer_address": HUB, "allowed_ips": [format!("{HUB}/32")] }] }),
        ];
        for row in rows {
            let answer = world.provider.send(Method::POST, "/api/sites", &row.to_string()).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        let hub = agent(&world, &lab, "hub2", "hub2", "uk", &hub_way).await.inside(&lab.hub());
        let site = agent(&world, &lab, "uk-agent", "uk", "hub", &site_way).await.inside(&lab.at("uk"));
        let mut ends = Self { hub, site, ways: (hub_way, site_way), lab, world };
        ends.hub.up().await;
        ends.site.up().await;
        ends.hub.until_status("wg-reachable", "wg-uk", Status::Ok, secs(20)).await;
        ends.site.until_status("wg-reachable", "wg-hub", Status::Ok, secs(20)).await;
        ends
    }

    async fn rotate(&self) -> Output {
        self.hub.run(&["rotate-keys", "uk"]).await
    }

    /// Killed at this step.
    async fn rotate_until(&mut self, step: &str) {
        self.hub.dies_at(Some(step));
        let killed = self.rotate().await;
        self.hub.dies_at(None);
        assert_eq!(killed.code, None, "{step}: {killed:?}");
    }

    /// The hub's key in four places: in its tunnel, in its file, as the site's peer and in the site's file; and in both rows.
    async fn keys(&self) -> Vec<String> {
        let own = self.lab.asked_on_hub("wg show wg-uk public-key").await;
        let peer = self.lab.asked_at_site("uk", "wg show wg-hub peers").await;
        let hub = self.lab.folder("hub2").join("wg-uk.conf");
        let saved = self.lab.asked_on_hub(&format!("sed -n 's/^PrivateKey = //p' {} | wg pubkey", hub.display())).await;
        let site = self.lab.folder("uk").join("wg-hub.conf");
        let known = self.lab.asked_on_hub(&format!("sed -n 's/^PublicKey = //p' {}", site.display())).await;
        let rows = self.world.provider.get("/api/sites").await.json();
        let of = |name: &str, key: &str| -> String {
            let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
            row["tunnels"][0][key].as_str().unwrap().to_owned()
        };
        let mut keys = [own, peer, saved, known].map(|key| key.trim().to_owned()).to_vec();
        keys.extend([of("uk", "own_public_key"), of("hub", "public_key")]);
        keys
    }

    /// Waits until all of these are the same key, nothing is left of a rotation, and the site answers: that key.
    async fn until_at_rest(&self, deadline: Duration) -> String {
        let at_rest = async || {
            let keys = self.keys().await;
            let left: Vec<String> = self.left();
            let ping = self.hub_pings().await;
            let is_one = keys.iter().all(|key| *key == keys[0]);
            if is_one && left.is_empty() && ping { Ok(keys[0].clone()) } else { Err((keys, left, ping)) }
        };
        until("both ends have one key, and nothing is left", deadline, at_rest).await.0
    }

    async fn hub_pings(&self) -> bool {
        hub_pings(&self.lab).await
    }

    /// Notes and drafts.
    fn left(&self) -> Vec<String> {
        let folders = [self.hub.state_dir(), self.site.state_dir(), self.lab.folder("hub2"), self.lab.folder("uk")];
        let names = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap().flatten());
        let names = names.map(|file| file.file_name().into_string().unwrap());
        let is_left =
            |name: &str| ["rotation-", "follow-"].iter().any(|head| name.starts_with(head)) || name.contains(".new");
        names.filter(|name| is_left(name)).collect()
    }

    /// So that it may be done again at once.
    fn forget_the_last(&self) {
        fs::remove_file(self.hub.state_dir().join("rotated-wg-uk.json")).ok();
    }

    async fn rotations(&self) -> Vec<Value> {
        self.world.provider.get("/api/rotations").await.json().as_array().unwrap().clone()
    }
}

/// At the place of the lab: `hub2` or a site; it may exchange the keys of its tunnel to `site`.
async fn agent(world: &World, lab: &Lab, name: &str, place: &str, site: &str, way: &Switch) -> Agent {
    let token = world.provider.must(&["token", "create", "--role", "agent", "--subject", name, name]).await;
    let file = world.home.join(format!("{name}.token"));
    fs::write(&file, token).unwrap();
    let folder = lab.folder(place);
    Agent::new(
        &world.home,
        &format!(
            "name = \"{name}\"\n[provider]\nurl = \"http://{}\"\ntoken_file = \"{}\"\n\
             [timing]\nwireguard = \"300ms\"\ndoubt = \"100ms\"\nclear = \"200ms\"\n\
             [wireguard]\nsockets = \"{}\"\n[act]\nrun_dir = \"{}\"\nconf_dir = \"{}\"\n\
             [[act.rotate]]\nsite = \"{site}\"\nmode = \"act\"\nonly_way = true\n\
             [[act.peers]]\ninterface = \"wg-{site}\"\nmode = \"act\"\n",
            way.address(),
            file.display(),
            folder.join("wireguard").display(),
            world.home.join(format!("run-{name}")).display(),
            folder.display(),
        ),
    )
}

async fn hub_pings(lab: &Lab) -> bool {
    let said = lab.asked_on_hub(&format!("ping -c 1 -W 1 -I wg-uk {SITE} >/dev/null && echo yes || true")).await;
    said.trim() == "yes"
}

fn mode(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap()) & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_tunnel_is_exchanged_and_no_ping_is_lost() {
    let ends = Ends::up(Way::ThroughTheTunnel).await;
    let before = ends.until_at_rest(secs(10)).await;
    let pings = Pings::start(&ends.world.home, &ends.lab.hub(), "10.44.0.10");
    let asked = std::time::SystemTime::now();
    until("the site answers", secs(5), async || pings.is_answered_since(asked).then_some(()).ok_or("no answer")).await;

    let dry = ends.hub.run(&["rotate-keys", "uk", "--dry-run"]).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(dry.out.contains("dry-run: wg-uk would get a new key") && !dry.out.contains("  no  "), "{}", dry.out);
    assert_eq!(ends.until_at_rest(secs(5)).await, before);

    let started = std::time::Instant::now();
    let done = ends.rotate().await;
    measured("a rotation", started.elapsed());
    println!("{}", done.out);
    assert_eq!(done.code, Some(0), "{done:?}");
    let after = ends.until_at_rest(secs(10)).await;
    assert_ne!(after, before);
    let (lost, longest) = pings.lost();
    println!("lost while the keys were exchanged: {lost} of 10 a second, {:.1} s", longest.as_secs_f64());
    assert!(lost <= 1 && longest < secs(2), "{lost} lost, {longest:?}");
    for (place, file) in [("hub2", "wg-uk.conf"), ("uk", "wg-hub.conf")] {
        assert_eq!(mode(&ends.lab.folder(place).join(file)), 0o600, "{file}");
    }
    // Both say so, and the rows have it in one revision.
    let (own, _) = ends.hub.until_status(CHECK, "wg-uk", Status::Ok, secs(5)).await;
    let deed = own.action.unwrap().to_string();
    assert!(deed.contains(&format!("the key of wg-uk is exchanged: {after} for {before}")), "{deed}");
    let (peer, _) = ends.site.until_status(CHECK, "wg-hub peer", Status::Ok, secs(5)).await;
    assert!(peer.action.unwrap().to_string().contains("wg-hub has the new key of hub2"), "{}", peer.text);
    for agent in [&ends.hub, &ends.site] {
        let is_wrong = |one: &Finding| one.check.starts_with("wg-") && one.status > Status::Warning;
        agent.until("the tunnel is as its row says", secs(5), |all| !all.iter().any(is_wrong)).await;
    }
    let rotations = ends.rotations().await;
    assert_eq!((&rotations[0]["phase"], &rotations[0]["follower"]), (&json!("committed"), &json!("uk-agent")));
    let private = fs::read_to_string(ends.lab.folder("hub2").join("wg-uk.conf")).unwrap();
    let private = private.lines().find_map(|line| line.strip_prefix("PrivateKey = ")).unwrap().to_owned();
    let all = "SELECT string_agg(query_to_xml('SELECT * FROM charliehub.' || tablename, true, false, '')::text, '') \
               FROM pg_tables WHERE schemaname = 'charliehub'";
    let dump = ends.world.psql(all).await.concat().concat();
    assert!(dump.contains(&after), "the public key is there");
    for text in [dump, ends.hub.log(), ends.site.log(), done.out.clone(), ends.world.provider.log()] {
        assert!(!text.contains(&private), "a private key left its host");
    }

    // Not twice within ten minutes, and held by a file.
    let again = ends.rotate().await;
    assert!(again.code == Some(1) && again.out.contains("wait until ten minutes after that"), "{again:?}");
    ends.forget_the_last();
    fs::write(ends.world.home.join("run-uk-agent/hold"), "").unwrap();
    let held = ends.rotate().await;
    assert!(held.code == Some(1) && held.out.contains("held: when it may go on, rm "), "{held:?}");
    assert_eq!(ends.until_at_rest(secs(10)).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_at_any_step_both_ends_come_to_have_one_key() {
    let mut ends = Ends::up(Way::Aside).await;
    let mut before = ends.until_at_rest(secs(10)).await;
    for (step, is_new) in [
        ("rotate-noted", false),
        ("rotate-made", false),
        ("rotate-offered", false),
        ("rotate-ready", false),
        ("rotate-switching", false),
        ("rotate-going", false),
        ("rotate-switched", false),
        ("rotate-proven", false),
        ("rotate-decided", true),
        ("rotate-saved", true),
        ("rotate-told", true),
    ] {
        ends.rotate_until(step).await;
        let after = ends.until_at_rest(secs(30)).await;
        assert_eq!(after != before, is_new, "{step}");
        before = after;
        ends.forget_the_last();
    }
    // In the middle of going back; and the agent that would go on is killed too.
    fs::write(ends.world.home.join("run-uk-agent/hold"), "").unwrap();
    ends.rotate_until("rotate-unset").await;
    assert_eq!(ends.until_at_rest(secs(20)).await, before);
    fs::remove_file(ends.world.home.join("run-uk-agent/hold")).unwrap();
    ends.rotate_until("rotate-proven").await;
    ends.hub.kill();
    ends.hub.dies_at(Some("rotate-unset"));
    ends.hub.up().await;
    ends.hub.until_ended(secs(10)).await;
    ends.hub.dies_at(None);
    ends.hub.up().await;
    assert_eq!(ends.until_at_rest(secs(30)).await, before);

    for (step, is_new) in [
        ("follow-ready", false),
        ("follow-noted", false),
        ("follow-going", false),
        ("follow-switched", false),
        ("follow-saved", true),
    ] {
        ends.site.kill();
        ends.site.dies_at(Some(step));
        ends.site.up().await;
        let hub = ends.hub.run(&["rotate-keys", "uk"]);
        let (hub, ()) = tokio::join!(hub, async {
            ends.site.until_ended(secs(30)).await;
            ends.site.dies_at(None);
            ends.site.up().await;
        });
        let after = ends.until_at_rest(secs(60)).await;
        // Who is back in time to follow on is followed.
        assert_eq!(after != before, hub.code == Some(0), "{step}: {hub:?}");
        assert!(!is_new || after != before, "{step}: {hub:?}");
        println!("{step}: {}", if after == before { "the old key stayed" } else { "the new key stays" });
        before = after;
        ends.forget_the_last();
    }
    // The site, on its way back.
    ends.site.kill();
    ends.site.dies_at(Some("follow-unswitched"));
    ends.site.up().await;
    ends.rotate_until("rotate-switched").await;
    ends.site.until_ended(secs(60)).await;
    ends.site.dies_at(None);
    ends.site.up().await;
    assert_eq!(ends.until_at_rest(secs(60)).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_hears_nothing_goes_by_what_works() {
    let mut ends = Ends::up(Way::ThroughTheTunnel).await;
    let before = ends.until_at_rest(secs(10)).await;

    // The hub goes back, and the tunnel that would tell the site so is the one that does not work.
    ends.rotate_until("rotate-switched").await;
    let killed = std::time::Instant::now();
    assert_eq!(ends.until_at_rest(secs(80)).await, before);
    measured("until the site went back by itself", killed.elapsed());
    assert!(ends.site.log().contains("which=Old"), "{}", ends.site.log());

    // The provider is away once it is decided: the new key works, and the rows have it when the provider is back.
    let port = ends.world.provider.address().port();
    ends.rotate_until("rotate-decided").await;
    ends.ways.0.turn_to(1);
    ends.ways.1.turn_to(1);
    let file = ends.lab.folder("hub2").join("wg-uk.conf");
    let saved = format!("sed -n 's/^PrivateKey = //p' {} | wg pubkey", file.display());
    until("the hub goes on", secs(10), async || {
        let (own, saved) =
            (ends.lab.asked_on_hub("wg show wg-uk public-key").await, ends.lab.asked_on_hub(&saved).await);
        (own == saved && own.trim() != before && ends.hub_pings().await).then_some(()).ok_or((own, saved))
    })
    .await;
    let (told, _) = ends.hub.until_status(CHECK, "wg-uk", Status::Critical, secs(30)).await;
    assert!(told.text.contains("the provider is not told yet"), "{}", told.text);
    ends.ways.0.turn_to(port);
    ends.ways.1.turn_to(port);
    assert_ne!(ends.until_at_rest(secs(60)).await, before);
    ends.hub.until_status(CHECK, "wg-uk", Status::Ok, secs(5)).await;

    // The site's own key goes the same way, and the hub follows.
    let peer = || ends.lab.asked_on_hub("wg show wg-uk peers");
    let old = peer().await;
    let done = ends.site.run(&["rotate-keys", "hub"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    ends.until_at_rest(secs(10)).await;
    assert_ne!(peer().await, old);
    let rows = ends.world.provider.get("/api/sites").await.json();
    let key =
        rows.as_array().unwrap().iter().find(|row| row["name"] == "uk").unwrap()["tunnels"][0]["public_key"].clone();
    assert_eq!(key.as_str().unwrap(), peer().await.trim());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_without_an_agent_is_done_by_hand_and_goes_back_by_itself() {
    let mut ends = Ends::up(Way::Aside).await;
    let before = ends.until_at_rest(secs(10)).await;
    ends.site.kill();
    let gone = ends.world.provider.send(Method::DELETE, "/api/sites/hub", "").await;
    assert_eq!(gone.status, 200, "{}", gone.text());

    // Nobody is there to do it.
    let nobody = ends.rotate().await;
    assert!(nobody.code == Some(1) && nobody.out.contains("nobody is here to do the site's end"), "{nobody:?}");
    assert!(nobody.out.contains("the old key stays"), "{nobody:?}");

    // The operator begins at the site, and does not come back.
    let script = nobody.out.split_once("by itself:\n\n").unwrap().1.split_once("\nEND\n").unwrap().0;
    let short = format!("{script}\nEND\n").replace("left=60", "left=3");
    let said = ends.lab.asked_at_site("uk", &format!("{{ {short}\n}} || true")).await;
    assert!(said.starts_with("waiting\n") && said.ends_with("no handshake: the old key is back\n"), "{said}");
    assert_eq!(ends.lab.asked_at_site("uk", "wg show wg-hub peers").await.trim(), before);
    until("the tunnel works", secs(20), async || ends.hub_pings().await.then_some(()).ok_or("silent")).await;

    // Both ends are done.
    let mut talk = ends.hub.talk(&["rotate-keys", "uk"]);
    let mut lines = BufReader::new(talk.stdout.take().unwrap()).lines();
    let mut script = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        let is_in_it = !script.is_empty() || line.trim_start().starts_with("sh -s ");
        if is_in_it {
            script.extend([line.trim_start(), "\n"]);
        }
        if is_in_it && line.trim() == "END" {
            break;
        }
    }
    let folder = ends.lab.folder("uk");
    let (script_file, out) = (folder.join("script"), folder.join("script.out"));
    fs::write(&script_file, script.replace("sleep 40", "sleep 3")).unwrap();
    let mount = format!("mount --bind {} /etc/wireguard", folder.display());
    let run = format!("{mount} && exec sh {} >{} 2>&1", script_file.display(), out.display());
    ends.lab.at_site("uk", &format!("unshare --mount sh -c '{run}' &")).await;
    let said = async |words: &'static str| {
        let ends_with = async || {
            let said = fs::read_to_string(&out).unwrap_or_default();
            if said.ends_with(words) { Ok(()) } else { Err(said) }
        };
        until(words, secs(20), ends_with).await;
    };
    said("waiting\n").await;
    talk.stdin.take().unwrap().write_all(b"\n").await.unwrap();
    let mut hub = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        hub.extend([line.as_str(), "\n"]);
    }
    assert_eq!(talk.wait().await.unwrap().code(), Some(0), "{hub}");
    said("the new key stays\n").await;
    let keys = ends.lab.asked_on_hub("wg show wg-uk public-key").await;
    let saved = fs::read_to_string(folder.join("wg-hub.conf")).unwrap();
    assert!(keys.trim() != before && saved.contains(keys.trim()), "{saved}");
    assert!(ends.hub_pings().await);
    let row = ends.world.provider.get("/api/sites/uk").await.json();
    assert_eq!(row["tunnels"][0]["own_public_key"].as_str().unwrap(), keys.trim());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_told_and_nothing_is_changed() {
    let mut ends = Ends::up(Way::Aside).await;
    let before = ends.until_at_rest(secs(10)).await;
    let file = ends.lab.folder("hub2").join("wg-uk.conf");
    let hold = ends.world.home.join("run-hub2/hold-uk");
    let site = ends.world.home.join("run-uk-agent/hold");
    for (make, undo, words) in [
        (format!("chmod 640 {}", file.display()), format!("chmod 600 {}", file.display()), "others can read its keys"),
        (format!("mv {0} {0}.away", file.display()), format!("mv {0}.away {0}", file.display()), "wg-quick save wg-uk"),
        (
            "wg set wg-uk peer 2p2NkdRzG9WF9umEqEneYHwUtPVNtQWOFiv45W4Pqzw=".to_owned(),
            "wg set wg-uk peer 2p2NkdRzG9WF9umEqEneYHwUtPVNtQWOFiv45W4Pqzw= remove".to_owned(),
            "wg-uk has 2 peers, and its key is the same to all",
        ),
        (
            format!("mkdir -p {} && touch {}", hold.parent().unwrap().display(), hold.display()),
            format!("rm {}", hold.display()),
            "held: when it may go on, rm ",
        ),
        (
            format!("mkdir -p {} && touch {}", site.parent().unwrap().display(), site.display()),
            format!("rm {}", site.display()),
            "uk-agent: held: when it may go on",
        ),
        (
            "iptables -I OUTPUT -o wg-uk -j DROP".to_owned(),
            "iptables -D OUTPUT -o wg-uk -j DROP".to_owned(),
            "wg-uk does not work: 10.254.44.2 does not answer",
        ),
    ] {
        ends.lab.on_hub(&make).await;
        let refused = ends.rotate().await;
        ends.lab.on_hub(&undo).await;
        assert!(refused.code == Some(1) && refused.out.contains(words), "{words}: {refused:?}");
        assert_eq!(ends.until_at_rest(secs(10)).await, before, "{words}");
    }
    let unknown = ends.hub.run(&["rotate-keys", "fr"]).await;
    assert!(unknown.out.contains("site fr is not expected on this host"), "{unknown:?}");
    assert!(unknown.out.contains("no [[act.rotate]] names site fr"), "{unknown:?}");

    // One at a time.
    let (one, two) = tokio::join!(ends.rotate(), ends.rotate());
    let codes = [one.code, two.code];
    assert!(codes.contains(&Some(0)) && codes.contains(&Some(1)), "{one:?} {two:?}");
    let after = ends.until_at_rest(secs(10)).await;
    assert_ne!(after, before);
    ends.hub.kill();
    ends.forget_the_last();
    let alone = ends.rotate().await;
    assert!(alone.code == Some(1) && alone.out.contains("the agent does not run here"), "{alone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_unit_does_it_with_the_rights_that_the_handbook_gives() {
    if !Systemd::can_boot() {
        return;
    }
    let home = Home::new();
    let lab = Lab::up(&home, 0).await;
    let systemd = Systemd::boot_as_hub(&home, &HUB_PACKAGES, &lab, &[]).await;
    systemd.install(&home);
    systemd.caller("127.0.0.1:8001".parse().unwrap()).until_ready().await;
    let out = Switch::out_of(&home, &lab.hub(), 8001).await;
    let way = Switch::inside(&home, &lab.at("uk"), out.address().port()).await;
    let uk = lab.sites().iter().find(|site| site.name == "uk").unwrap();
    systemd.must("install -d -m 700 /etc/wireguard");
    systemd.copy(lab.folder("hub2").join("wg-uk.conf"), "/etc/wireguard/wg-uk.conf");
    systemd.must("chmod 600 /etc/wireguard/wg-uk.conf");
    let tunnel = |interface: &str, key: &str, own: &str, end: &str, networks: &[&str]| {
        json!([{ "interface": interface, "public_key": key, "own_public_key": own, "keepalive": 25, "peer_address": end,
            "allowed_ips": networks }])
    };
    let (end, own) = (format!("{SITE}/32"), format!("{HUB}/32"));
    let hub = tunnel("wg-uk", &uk.key, &uk.hub_key, SITE, &[&uk.network, &end]);
    let site = tunnel("wg-hub", &uk.hub_key, &uk.key, &HUB.to_string(), &[&own]);
    systemd.output(
        &["sh", "-c", "charliehub-provider psql"],
        &format!(
            "INSERT INTO sites (name, agent, networks, tunnels) VALUES ('uk', 'hub2', '{{{}}}', '{hub}'), \
             ('hub', 'uk-agent', '{{{own}}}', '{site}');",
            uk.network
        ),
    );
    for (agent, file) in [("hub2", "/etc/credstore/agent-token"), ("uk-agent", "/root/token")] {
        let token = format!("charliehub-provider token create --role agent --subject {agent} {agent}");
        systemd.must(&format!("{token} | install -D -m 600 /dev/stdin {file}"));
    }
    systemd.output(
        &["tee", "/etc/charliehub/edge-agent.toml"],
        "name = \"hub2\"\n[provider]\nurl = \"http://127.0.0.1:8001\"\n\
         [[act.rotate]]\nsite = \"uk\"\nmode = \"act\"\nonly_way = true\n",
    );
    let steps = handbook("Keys of tunnels");
    let (_, lets) = steps.iter().find(|(_, text)| text.contains("rotating.conf")).unwrap();
    for line in lets.lines().filter(|line| !line.starts_with("sed ")) {
        systemd.must(line);
    }
    let token = systemd.must("cat /root/token");
    fs::write(home.join("site.token"), token).unwrap();
    let folder = lab.folder("uk");
    let _site = Agent::new(
        &home,
        &format!(
            "name = \"uk-agent\"\n[provider]\nurl = \"http://{}\"\ntoken_file = \"{}\"\n\
             [wireguard]\nsockets = \"{}\"\n[act]\nrun_dir = \"{}\"\nconf_dir = \"{}\"\n\
             [[act.rotate]]\nsite = \"hub\"\nmode = \"act\"\n",
            way.address(),
            home.join("site.token").display(),
            folder.join("wireguard").display(),
            home.join("run").display(),
            folder.display(),
        ),
    )
    .inside(&lab.at("uk"))
    .started()
    .await;

    // Killed in the middle, the agent goes back within its own unit.
    let key = || lab.asked_on_hub("wg show wg-uk public-key");
    let at_rest = async |word: &str| {
        let is = async || {
            let (own, peer) = (key().await, lab.asked_at_site("uk", "wg show wg-hub peers").await);
            let saved = systemd.must("sed -n 's/^PrivateKey = //p' /etc/wireguard/wg-uk.conf | wg pubkey");
            let left = systemd.must("ls /etc/wireguard /var/lib/charliehub-edge-agent");
            let is_left = left.contains(".new") || left.contains("rotation-");
            let ping = hub_pings(&lab).await;
            if own == peer && own == saved && !is_left && ping {
                Ok(own)
            } else {
                Err(format!("{own} {peer} {saved} {left}"))
            }
        };
        until(word, secs(60), is).await.0
    };
    let before = at_rest("both ends have one key").await;
    let drop_in = "/run/systemd/system/charliehub-rotate-keys@.service.d/killed.conf";
    systemd.must(&format!("mkdir -p $(dirname {drop_in})"));
    systemd.output(&["tee", drop_in], "[Service]\nEnvironment=CHARLIEHUB_CRASH_AT=rotate-switched\n");
    systemd.must("systemctl daemon-reload");
    assert!(!systemd.try_sh("systemctl start charliehub-rotate-keys@uk").0, "it is killed");
    assert_eq!(at_rest("the old key is back").await, before);
    systemd.must(&format!("rm {drop_in} && systemctl daemon-reload"));

    let (is_done, said) = systemd.try_sh("systemctl start charliehub-rotate-keys@uk");
    let log = systemd.must("journalctl --no-pager -o cat -u charliehub-rotate-keys@uk");
    println!("{log}");
    assert!(is_done, "{said}\n{log}");
    let after = at_rest("the new key is everywhere").await;
    assert_ne!(after, before);
    assert_eq!(systemd.must("stat -c '%a %U %G' /etc/wireguard/wg-uk.conf").trim(), "600 root root");
    // As root in a terminal, by the token of the unit.
    systemd.must("rm /var/lib/charliehub-edge-agent/rotated-wg-uk.json");
    let (_, command) = steps.iter().find(|(_, text)| text.contains("rotate-keys uk")).unwrap();
    let dry = systemd.must(command.lines().find(|line| line.contains("--dry-run")).unwrap());
    assert!(dry.contains("dry-run: wg-uk would get a new key"), "{dry}");
    println!("{}", systemd.must("charliehub-edge-agent rotate-keys uk"));
    assert_ne!(at_rest("another key is everywhere").await, after);
    systemd
        .must("systemctl enable --now charliehub-rotate-keys@uk.timer && systemctl list-timers | grep rotate-keys@uk");
    println!("{}", systemd.must("systemd-analyze security --no-pager charliehub-rotate-keys@uk.service | tail -n 1"));
}
