//! The kernel's own WireGuard, read by netlink: both ends of a tunnel in a guest with Debian's kernel, and the agent in it.
//! Every fault is mended by the remedy that is told with it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{Guest, Home, measured, ms, secs};

/// The other end is in a namespace of its own, and its socket stays where it was born: both ends talk over loopback.
const UP: &str = "umask 077 && ip link add wg0 type wireguard && ip link add far type wireguard && \
    ip link add wg-many type wireguard && \
    (unshare --net sleep 1000 & echo $! >/tmp/far) && sleep 0.5 && far=$(cat /tmp/far) && ip link set far netns $far && \
    nsenter -t $far -n /bin/sh -c 'wg setconf far /far.conf && ip address add 10.9.0.2/24 dev far && \
        ip address add 10.44.0.10/32 dev far && ip link set far up' && \
    wg setconf wg0 /wg0.conf && ip address add 10.9.0.1/24 dev wg0 && ip link set wg0 up && \
    ip route add 10.44.0.0/16 dev wg0 && wg setconf wg-many /wg-many.conf && ip link set wg-many up";

/// A second tunnel between the same two, and the site's host where neither of them takes it away.
const SECOND: &str = "ip link add wg1 type wireguard && ip link add far1 type wireguard && far=$(cat /tmp/far) && \
    ip link set far1 netns $far && \
    nsenter -t $far -n /bin/sh -c 'wg setconf far1 /far1.conf && ip address add 10.9.1.2/24 dev far1 && ip link set far1 up && \
        ip link set lo up && ip address add 10.44.0.10/32 dev lo' && \
    wg setconf wg1 /wg1.conf && ip address add 10.9.1.1/24 dev wg1 && ip link set wg1 up && \
    ip route add 10.44.0.0/16 dev wg0 metric 100 && ip route del 10.44.0.0/16 dev wg0 metric 0";

/// An answer of a provider to whatever a rotation says: there is no agent at the other end.
const ANSWER: &str = "#!/bin/sh\nlength=0\nwhile read -r line; do\n  line=${line%?}\n  case $line in\n    '') break ;;\n    \
    [Cc]ontent-[Ll]ength:*) length=${line#*: } ;;\n  esac\ndone\nhead -c $length >/dev/null\ncat /answer.txt\n";

/// What an operator does at the far end, and the Enter behind it; at both ends of a pipe into `rotate-keys`.
const BY_HAND: &str = "{ until [ -f /wg0.conf.new ]; do sleep 0.2; done; \
    new=$(sed -n 's/^PrivateKey = //p' /wg0.conf.new | wg pubkey); \
    nsenter -t $(cat /tmp/far) -n wg set far peer $(wg show wg0 public-key) remove peer $new allowed-ips 10.9.0.1/32 \
        endpoint 127.0.0.1:51820 persistent-keepalive 25; echo; }";

/// So many networks of one peer come in several parts of an answer.
const MANY: usize = 1_250;

struct Keys {
    private: String,
    public: String,
}

impl Keys {
    fn new() -> Self {
        let wg = |word: &str, input: &str| {
            let mut child = Command::new("wg").arg(word).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
        };
        let private = wg("genkey", "");
        Self { public: wg("pubkey", &private), private }
    }
}

/// What is in the guest beside its programs. The public keys of the far end, of the last peer, and of a client.
fn files(root: &Path) -> [String; 3] {
    let [near, far, many, last] = [Keys::new(), Keys::new(), Keys::new(), Keys::new()];
    let [second, beyond] = [Keys::new(), Keys::new()];
    let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
    let interface = |keys: &Keys, port| format!("[Interface]\nPrivateKey = {}\nListenPort = {port}\n", keys.private);
    let peer = |keys: &Keys, networks: &str| format!("[Peer]\nPublicKey = {}\nAllowedIPs = {networks}\n", keys.public);
    let call = |port| format!("Endpoint = 127.0.0.1:{port}\nPersistentKeepalive = 25\n");
    let networks: Vec<String> = (0..MANY).map(|n| format!("10.{}.{}.0/24", 100 + n / 250, n % 250)).collect();
    let to_far = interface(&near, 51820) + &peer(&far, "10.9.0.2/32, 10.44.0.0/16") + &call(51821);
    write("wg0.conf", &to_far);
    write("far.conf", &(interface(&far, 51821) + &peer(&near, "10.9.0.1/32") + &call(51820)));
    write("wg1.conf", &(interface(&second, 51840) + &peer(&beyond, "10.9.1.2/32") + &call(51841)));
    write("far1.conf", &(interface(&beyond, 51841) + &peer(&second, "10.9.1.1/32") + &call(51840)));
    let peers = peer(&many, &networks.join(", ")) + &peer(&last, "10.77.0.0/16");
    write("wg-many.conf", &(interface(&near, 51830) + &peers));
    let uk = format!(
        "[[sites]]\nname = \"uk\"\nnetworks = [\"10.44.0.0/16\"]\nhosts = [{{ address = \"10.44.0.10\" }}]\n\
         [[sites.tunnels]]\ninterface = \"wg0\"\npublic_key = \"{}\"\nkeepalive = 25\n\
         allowed_ips = [\"10.9.0.2/32\", \"10.44.0.0/16\"]\npeer_address = \"10.9.0.2\"\naddresses = [\"10.9.0.1/24\"]\n\
         own_public_key = \"{}\"\nlisten_port = 51820\nmtu = 1420\nendpoint = \"127.0.0.1:51821\"\n",
        far.public, near.public
    );
    let site = |name: &str, keys: &Keys, networks: &[String]| {
        format!(
            "[[sites]]\nname = \"{name}\"\nnetworks = []\n[[sites.tunnels]]\ninterface = \"wg-many\"\n\
             public_key = \"{}\"\nallowed_ips = {networks:?}\nown_public_key = \"{}\"\n",
            keys.public, near.public
        )
    };
    let others = site("many", &many, &networks) + &site("last", &last, &["10.77.0.0/16".to_owned()]);
    let common = "state_dir = \"/tmp/state\"\n[timing]\nwireguard = '1s'\nmtu = '2s'\ndoubt = '200ms'\nclear = '400ms'\n\
                  flapping = '1s'\n[wireguard]\nprobes_lost = 4\n";
    let failover = format!(
        "[[sites.tunnels]]\ninterface = \"wg1\"\nrank = 2\npublic_key = \"{}\"\nkeepalive = 25\n\
         allowed_ips = [\"10.9.1.2/32\"]\npeer_address = \"10.9.1.2\"\n\
         [act]\nrun_dir = \"/tmp/run\"\n[[act.failover]]\nsite = \"uk\"\nmode = \"act\"\nprofile = \"fast\"\n\
         return_after = \"3s\"\ntrial = \"1s\"\n",
        beyond.public
    );
    write("failover.toml", &(common.to_owned() + &uk + &failover));
    let act = "[act]\nrun_dir = \"/tmp/run\"\n[[act.re_resolve]]\nsite = \"uk\"\nmode = \"act\"\nafter = \"1s\"\n";
    write("named.toml", &(common.to_owned() + &uk.replace("127.0.0.1:51821", "far:51821") + act));
    let rotate = "[provider]\nurl = \"http://127.0.0.1:8001\"\n[act]\nrun_dir = \"/tmp/run\"\nconf_dir = \"/\"\n\
                  [[act.rotate]]\nsite = \"uk\"\nmode = \"act\"\nonly_way = true\n";
    write("rotate.toml", &(common.to_owned() + &uk + rotate));
    let answer = serde_json::json!({
        "id": "00000000-0000-4000-8000-000000000000", "agent": "hub2", "site": "uk", "interface": "wg0", "old_key": far.public,
        "new_key": far.public, "phase": "offered", "follower": null, "why": null, "begun_at": "2026-11-28T00:00:00Z",
        "changed_at": "2026-11-28T00:00:00Z",
    });
    let answer = answer.to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", answer.len());
    write("answer.txt", &(head + &answer));
    write("answer", ANSWER);
    let vpn = format!(
        "[act]\nrun_dir = \"/tmp/run\"\n[[act.peers]]\ninterface = \"wg0\"\nmode = \"act\"\n[[policy.vpn]]\n\
         interface = \"wg0\"\npublic_key = \"{}\"\nendpoint = \"127.0.0.1:51820\"\naddresses = [\"10.9.0.1/24\"]\n\
         [[peers]]\nname = \"anna\"\ninterface = \"wg0\"\npublic_key = \"{}\"\naddresses = [\"10.9.0.7/32\"]\n",
        near.public, beyond.public
    );
    write("peers.toml", &(common.to_owned() + &uk + &vpn));
    write("uk.toml", &(common.to_owned() + &uk));
    write("many.toml", &(common.to_owned() + &others));
    [far.public, last.public, beyond.public]
}

/// Of tunnels, and of what is done to them.
fn is_told(check: &str) -> bool {
    check.starts_with("wg-") || ["failover", "re-resolve", "vpn-peers"].contains(&check)
}

/// The guest, with an agent in it.
struct World {
    guest: Guest,
}

impl World {
    /// Starts the agent with other settings, as the user and with the capabilities that these words of `setpriv` give it.
    async fn start(&mut self, settings: &str, privileges: &str) {
        let agent = format!("charliehub-edge-agent --config /{settings}.toml run");
        self.guest.sh(&format!("setpriv {privileges} {agent} >>/tmp/agent.log 2>&1 & echo $! >/tmp/agent")).await;
    }

    /// It must have lived until now.
    async fn stop(&mut self) {
        self.guest.sh("kill $(cat /tmp/agent) && while pidof charliehub-edge-agent; do sleep 0.1; done").await;
    }

    /// What it finds of tunnels.
    async fn findings(&mut self) -> Vec<Finding> {
        let (text, _) = self.guest.run("wget -q -O - http://127.0.0.1:9745/findings").await;
        let all: Vec<Finding> = serde_json::from_str(&text).unwrap_or_default(); // before it listens
        all.into_iter().filter(|one| is_told(&one.check)).collect()
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&[Finding]) -> bool) -> Vec<Finding> {
        let began = Instant::now();
        loop {
            let findings = self.findings().await;
            if is_so(&findings) {
                measured(what, began.elapsed());
                return findings;
            }
            if began.elapsed() > LIMIT {
                let all: Vec<String> = findings.iter().map(told).collect();
                panic!("not in time: {what}; {all:#?}\n{}", self.guest.sh("cat /tmp/agent.log").await);
            }
            tokio::time::sleep(ms(200)).await; // it has one processor for both of us
        }
    }

    /// Exactly these, and all are ok.
    async fn until_well(&mut self, what: &str, targets: &[&str]) -> Vec<Finding> {
        let is_ok = |one: &Finding| one.status == Status::Ok;
        self.until(what, |all| all.iter().all(is_ok) && all.iter().map(named).eq(targets.iter().copied())).await
    }

    /// Makes a fault, and runs the remedies of what must be found, one after the other.
    async fn mend(&mut self, fault: &str, status: Status, targets: &[&str]) -> Vec<Finding> {
        self.guest.sh(fault).await;
        let mut found = Vec::new();
        for target in targets {
            let is_it = |one: &Finding| named(one) == *target && one.status == status;
            let findings = self.until(&format!("{fault}: {target}"), |all| all.iter().any(is_it)).await;
            let it = findings.into_iter().find(is_it).unwrap();
            self.guest.sh(it.remedy.as_ref().unwrap()).await;
            found.push(it);
        }
        found
    }
}

/// Everything in the guest is slow.
const LIMIT: Duration = secs(30);

const UK: [&str; 7] = [
    "wg-handshake wg0",
    "wg-interface wg0",
    "wg-mtu wg0",
    "wg-peer wg0",
    "wg-reachable wg0",
    "wg-reachable wg0 10.44.0.10",
    "wg-route 10.44.0.0/16",
];

const OTHERS: [&str; 6] = [
    "wg-handshake wg-many last",
    "wg-handshake wg-many many",
    "wg-interface wg-many",
    "wg-peer wg-many",
    "wg-peer wg-many last",
    "wg-peer wg-many many",
];

fn named(finding: &Finding) -> String {
    format!("{} {}", finding.check, finding.target)
}

fn told(finding: &Finding) -> String {
    format!("{} {}: {:.200}", finding.status, named(finding), finding.text)
}

#[tokio::test]
async fn the_kernels_own_tunnels_are_read_and_mended() {
    let home = Home::new();
    let root = home.join("guest/root");
    fs::create_dir_all(&root).unwrap();
    let [far, last, anna] = files(&root);
    let agent = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("charliehub-edge-agent");
    let programs: Vec<PathBuf> =
        ["ip", "wg", "setpriv", "conntrack"].map(PathBuf::from).into_iter().chain([agent]).collect();
    let programs: Vec<&Path> = programs.iter().map(PathBuf::as_path).collect();
    let began = Instant::now();
    let Some(guest) = Guest::boot(&home, &programs).await else {
        println!("not checked: it needs Debian on x86_64");
        return;
    };
    measured("the guest has booted", began.elapsed());
    let mut world = World { guest };
    world.guest.sh(UP).await;
    world.start("uk", "").await;
    let findings = world.until_well("all is well at first", &UK).await;
    let of_tunnel = findings.iter().filter(|one| ["wg-interface", "wg-peer"].contains(&one.check.as_str()));
    let sources: Vec<Option<&str>> = of_tunnel.map(|one| one.source.as_deref()).collect();
    assert_eq!(sources, [Some("netlink"); 2], "from the kernel");
    let peer = format!("wg set wg0 peer {far}");
    let cases: [(String, Status, &[&str]); 5] = [
        (format!("{peer} remove"), Status::Critical, &["wg-peer wg0"]),
        (format!("{peer} allowed-ips 10.9.0.2/32"), Status::Critical, &["wg-peer wg0"]),
        (format!("{peer} persistent-keepalive off"), Status::Warning, &["wg-peer wg0"]),
        ("wg set wg0 listen-port 51999".to_owned(), Status::Warning, &["wg-interface wg0"]),
        // The kernel takes the routes with the link.
        ("ip link set wg0 down".to_owned(), Status::Critical, &["wg-interface wg0", "wg-route 10.44.0.0/16"]),
    ];
    for (fault, status, targets) in cases {
        world.mend(&fault, status, targets).await;
        world.until_well(&format!("{fault}: mended"), &UK).await;
    }
    world.stop().await;

    world.start("many", "").await;
    world.until_well("a peer in several parts is read whole", &OTHERS).await;
    // In the middle of the many, the last peer takes one over.
    let fault = format!("wg set wg-many peer {last} allowed-ips 10.77.0.0/16,10.103.7.0/24");
    let found = world.mend(&fault, Status::Critical, &["wg-peer wg-many many"]).await;
    let text = format!("10.103.7.0/24 is not among its allowed IPs: peer {last} has it");
    assert_eq!(found.first().unwrap().text, text);
    world.until_well("it is given back", &OTHERS).await;
    world.stop().await;

    // Whom the kernel does not tell: nothing is called bad, and what would let it look is told.
    let user = "--reuid 65534 --regid 65534 --clear-groups";
    world.start("uk", user).await;
    let findings = world.until("an ordinary user's agent answers", |all| all.iter().map(named).eq(UK)).await;
    for one in findings {
        let (status, remedy) = match one.check.as_str() {
            "wg-route" => (Status::Ok, ""),
            "wg-interface" => (Status::Unknown, "CAP_NET_ADMIN"),
            "wg-mtu" | "wg-reachable" => (Status::Unknown, "CAP_NET_RAW"),
            _ => (Status::Unknown, "mend that first: no permission to ask the kernel"),
        };
        assert_eq!(one.status, status, "{one:#?}");
        assert!(one.remedy.unwrap_or_default().contains(remedy), "{}", one.text);
    }
    world.stop().await;
    // The same user as these remedies would have it.
    let capabilities = "--inh-caps +net_admin,+net_raw --ambient-caps +net_admin,+net_raw";
    world.start("uk", &format!("{user} {capabilities}")).await;
    world.until_well("the same user with the capabilities is told all", &UK).await;
    world.stop().await;

    // The kernel's own tunnels are written by netlink: the networks move, and come back.
    world.guest.sh(SECOND).await;
    world.guest.sh("modprobe nf_conntrack enable_hooks=1 && modprobe nf_conntrack_netlink").await;
    world.start("failover", "").await;
    let by = |all: &[Finding], words: &str| all.iter().any(|one| one.check == "failover" && one.text.contains(words));
    world.until("the second tunnel stands by", |all| by(all, "10.44.0.0/16 goes by wg0, and wg1 stands by")).await;
    let before = world.guest.sh("wg show wg1 allowed-ips").await;
    // A connection that is tracked, and would be for three minutes.
    world.guest.sh("conntrack -I -p udp -s 10.9.0.1 -d 10.44.0.10 --sport 4500 --dport 4500 -t 180").await;
    let tracked = "conntrack -L -p udp -d 10.44.0.10 --dport 4500 2>/dev/null";
    assert!(world.guest.sh(tracked).await.contains("src=10.9.0.1 dst=10.44.0.10"), "it is tracked");
    world.guest.sh("nsenter -t $(cat /tmp/far) -n ip link set far down").await;
    world.until("the networks go by the second tunnel", |all| by(all, "10.44.0.0/16 goes by wg1")).await;
    assert_eq!(world.guest.run(tracked).await.0, "", "it begins anew");
    let route = world.guest.sh("ip route get 10.44.0.10").await;
    assert!(route.contains("dev wg1"), "{route}");
    world.guest.sh("nsenter -t $(cat /tmp/far) -n ip link set far up").await;
    world.until("they are back", |all| by(all, "10.44.0.0/16 goes by wg0, and wg1 stands by")).await;
    assert_eq!(world.guest.sh("wg show wg1 allowed-ips && ip route show proto 235").await, before);
    world.stop().await;

    // So is where a peer is called.
    world
        .guest
        .sh("mkdir -p /etc && echo 'hosts: files' >/etc/nsswitch.conf && echo '127.0.0.2 far' >/etc/hosts")
        .await;
    world.start("named", "").await;
    // The far end is well, and may be heard from its old address at once.
    let done = ["done: it was read back", "done: the site was heard from 127.0.0.1:51821 just then"];
    let is_done = |one: &Finding| {
        let deed = one.action.as_ref().map(ToString::to_string).unwrap_or_default();
        done.iter().any(|end| deed.ends_with(end))
    };
    world.until("it is called where its name leads to", |all| all.iter().any(is_done)).await;
    world.stop().await;

    // And which peers there are: one removed, one changed and one made in one order.
    world.start("peers", "").await;
    let is_made = |all: &[Finding]| all.iter().any(|one| named(one) == "wg-peer wg0 anna" && one.status == Status::Ok);
    world.until("a client is let in", is_made).await;
    let shown = "wg show wg0 allowed-ips | sort && wg show wg0 persistent-keepalive | sort";
    let right = world.guest.sh(shown).await;
    assert!(right.contains(&format!("{anna}\t10.9.0.7/32")), "{right}");
    let wrong =
        format!("wg set wg0 peer {last} allowed-ips 10.44.0.0/16 peer {far} persistent-keepalive 0 peer {anna} remove");
    world.guest.sh(&wrong).await;
    let is_done = |one: &Finding| {
        let deed = one.action.as_ref().map(ToString::to_string).unwrap_or_default();
        one.check == "vpn-peers" && one.status == Status::Ok && deed.contains(&format!("- peer {last}"))
    };
    let found = world.until("it is as the rows say", |all| all.iter().any(is_done)).await;
    println!("{}", found.into_iter().find(is_done).unwrap().action.unwrap());
    assert_eq!(world.guest.sh(shown).await, right);
    world.stop().await;
    world.guest.sh(&format!("wg set wg0 peer {anna} remove")).await;

    // And its own key: killed in the middle the old one comes back, and the next time the new one stays.
    world.guest.sh("chmod 600 /wg0.conf && chmod 755 /answer && { nc -ll -p 8001 -e /answer & }").await;
    world.start("rotate", "").await;
    world.until_well("all is well before the key is exchanged", &UK).await;
    let rotate = "charliehub-edge-agent --config /rotate.toml rotate-keys uk";
    let old = world.guest.sh("wg show wg0 public-key").await;
    let (said, code) = world.guest.run(&format!("{BY_HAND} | CHARLIEHUB_CRASH_AT=rotate-switched {rotate}")).await;
    assert_eq!(code, 137, "{said}");
    world.guest.sh(&format!("until [ \"$(wg show wg0 public-key)\" = {} ]; do sleep 0.2; done", old.trim())).await;
    let back = format!(
        "new=$(nsenter -t $(cat /tmp/far) -n wg show far peers) && nsenter -t $(cat /tmp/far) -n wg set far peer $new remove \
         peer {} allowed-ips 10.9.0.1/32 endpoint 127.0.0.1:51820 persistent-keepalive 25",
        old.trim()
    );
    world.guest.sh(&back).await;
    world.guest.sh("while [ -f /tmp/state/rotation-wg0.json ] || [ -f /wg0.conf.new ]; do sleep 0.2; done").await;
    world.until_well("all is well with the old key", &UK).await;
    let said = world.guest.sh(&format!("{BY_HAND} | {rotate}")).await;
    println!("{said}");
    let saved = world.guest.sh("sed -n 's/^PrivateKey = //p' /wg0.conf | wg pubkey").await;
    assert_eq!(world.guest.sh("wg show wg0 public-key").await, saved);
    assert_ne!(saved, old);
    world.guest.sh("ping -c 1 -W 5 10.44.0.10").await;
    world.stop().await;

    let private = fs::read_to_string(root.join("wg0.conf")).unwrap();
    let private = private.lines().find_map(|line| line.strip_prefix("PrivateKey = ")).unwrap();
    let log = world.guest.sh("cat /tmp/agent.log").await;
    assert!(log.contains(&far) && !log.contains(private), "what it says holds no key that is secret: {log}");
    measured("all of it", began.elapsed());
}
