//! The kernel's own WireGuard, read by netlink: both ends of a tunnel in a guest with Debian's kernel, and the agent in it.
//! Every fault is mended by the remedy that is told with it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
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

/// So many networks of one peer come in several parts of an answer.
const MANY: usize = 3_000;

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

/// What is in the guest beside its programs. The public keys of the far end, of the peer with many networks, of the last.
fn files(root: &Path) -> [String; 3] {
    let [near, far, many, last] = [Keys::new(), Keys::new(), Keys::new(), Keys::new()];
    let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
    let interface = |keys: &Keys, port| format!("[Interface]\nPrivateKey = {}\nListenPort = {port}\n", keys.private);
    let peer = |keys: &Keys, networks: &str| format!("[Peer]\nPublicKey = {}\nAllowedIPs = {networks}\n", keys.public);
    let call = |port| format!("Endpoint = 127.0.0.1:{port}\nPersistentKeepalive = 25\n");
    let networks: Vec<String> = (0..MANY).map(|n| format!("10.{}.{}.0/24", 100 + n / 250, n % 250)).collect();
    let to_far = interface(&near, 51820) + &peer(&far, "10.9.0.2/32, 10.44.0.0/16") + &call(51821);
    write("wg0.conf", &to_far);
    write("far.conf", &(interface(&far, 51821) + &peer(&near, "10.9.0.1/32") + &call(51820)));
    let peers = peer(&many, &networks.join(", ")) + &peer(&last, "10.77.0.0/16");
    write("wg-many.conf", &(interface(&near, 51830) + &peers));
    let mut sites = format!(
        "[[sites]]\nname = \"uk\"\nnetworks = [\"10.44.0.0/16\"]\nhosts = [{{ address = \"10.44.0.10\" }}]\n\
         [[sites.tunnels]]\ninterface = \"wg0\"\npublic_key = \"{}\"\nkeepalive = 25\n\
         allowed_ips = [\"10.9.0.2/32\", \"10.44.0.0/16\"]\npeer_address = \"10.9.0.2\"\naddresses = [\"10.9.0.1/24\"]\n\
         own_public_key = \"{}\"\nlisten_port = 51820\nmtu = 1420\nendpoint = \"127.0.0.1:51821\"\n",
        far.public, near.public
    );
    let others = [("many", &many, format!("{networks:?}")), ("last", &last, "[\"10.77.0.0/16\"]".to_owned())];
    for (name, keys, networks) in others {
        let _ = write!(
            sites,
            "[[sites]]\nname = \"{name}\"\nnetworks = []\n[[sites.tunnels]]\ninterface = \"wg-many\"\n\
             public_key = \"{}\"\nallowed_ips = {networks}\nown_public_key = \"{}\"\n",
            keys.public, near.public
        );
    }
    let timing = "[timing]\nwireguard = '1s'\nmtu = '2s'\ndoubt = '200ms'\nclear = '400ms'\nflapping = '1s'\n\
                  [wireguard]\nprobes_lost = 4\n";
    for (name, port) in [("root", 9745), ("user", 9746), ("unit", 9747)] {
        let own = format!("listen = \"127.0.0.1:{port}\"\nstate_dir = \"/tmp/{name}\"\n");
        write(&format!("{name}.toml"), &(own + timing + &sites));
    }
    [far.public, many.public, last.public]
}

/// The guest, with agents in it: each is called as its settings are.
struct World {
    guest: Guest,
}

impl World {
    /// Starts one, as the user and with the capabilities that these words of `setpriv` give it.
    async fn start(&mut self, name: &str, privileges: &str) {
        let agent = format!("charliehub-edge-agent --config /{name}.toml run");
        let place = format!("mkdir -p /tmp/{name} && chown 65534 /tmp/{name}");
        self.guest.sh(&format!("{place}; setpriv {privileges} {agent} >/tmp/{name}.log 2>&1 &")).await;
    }

    async fn findings(&mut self, name: &str) -> Vec<Finding> {
        let (text, _) = self.guest.run(&format!("charliehub-edge-agent --config /{name}.toml check --json")).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    async fn until(&mut self, name: &str, what: &str, is_so: impl Fn(&[Finding]) -> bool) -> Vec<Finding> {
        let began = Instant::now();
        loop {
            let findings = self.findings(name).await;
            if is_so(&findings) {
                measured(what, began.elapsed());
                return findings;
            }
            if began.elapsed() > LIMIT {
                let log = self.guest.sh(&format!("cat /tmp/{name}.log")).await;
                panic!("not in time: {what}; {:#?}\n{log}", bad(&findings));
            }
            tokio::time::sleep(ms(50)).await;
        }
    }

    async fn until_well(&mut self, name: &str, what: &str) {
        self.until(name, what, |all| all.len() == ALL.len() && bad(all).is_empty()).await;
    }
}

/// Everything in the guest is slow.
const LIMIT: Duration = secs(15);

const ALL: [&str; 13] = [
    "wg-handshake wg-many last",
    "wg-handshake wg-many many",
    "wg-handshake wg0",
    "wg-interface wg-many",
    "wg-interface wg0",
    "wg-mtu wg0",
    "wg-peer wg-many",
    "wg-peer wg-many last",
    "wg-peer wg-many many",
    "wg-peer wg0",
    "wg-reachable wg0",
    "wg-reachable wg0 10.44.0.10",
    "wg-route 10.44.0.0/16",
];

fn named(finding: &Finding) -> String {
    format!("{} {}", finding.check, finding.target)
}

/// What is not ok, as `STATUS CHECK TARGET: TEXT`.
fn bad(findings: &[Finding]) -> Vec<String> {
    let bad = findings.iter().filter(|one| one.status != Status::Ok);
    bad.map(|one| format!("{} {}: {:.200}", one.status, named(one), one.text)).collect()
}

#[tokio::test]
async fn the_kernels_own_tunnels_are_read_and_mended() {
    let home = Home::new();
    let root = home.join("guest/root");
    fs::create_dir_all(&root).unwrap();
    let [far, many, last] = files(&root);
    let agent = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("charliehub-edge-agent");
    let programs: Vec<PathBuf> = ["ip", "wg", "setpriv"].map(PathBuf::from).into_iter().chain([agent]).collect();
    let programs: Vec<&Path> = programs.iter().map(PathBuf::as_path).collect();
    let began = Instant::now();
    let Some(guest) = Guest::boot(&home, &programs).await else {
        println!("not checked: it needs Debian's kernel for x86_64");
        return;
    };
    measured("the guest has booted", began.elapsed());
    let mut world = World { guest };
    world.guest.sh(UP).await;
    world.start("root", "").await;
    let well = |all: &[Finding]| all.len() == ALL.len() && bad(all).is_empty();
    let findings = world.until("root", "all is well at first", well).await;
    assert_eq!(findings.iter().map(named).collect::<Vec<_>>(), ALL);
    let of_tunnels = findings.iter().filter(|one| ["wg-interface", "wg-peer"].contains(&one.check.as_str()));
    let sources: BTreeSet<Option<&str>> = of_tunnels.map(|one| one.source.as_deref()).collect();
    assert_eq!(sources, [Some("netlink")].into(), "from the kernel");

    let cases: [(String, &str, &[&str]); 8] = [
        (format!("wg set wg0 peer {far} remove"), "critical", &["wg-peer wg0"]),
        (format!("wg set wg0 peer {far} allowed-ips 10.9.0.2/32"), "critical", &["wg-peer wg0"]),
        (format!("wg set wg0 peer {far} persistent-keepalive off"), "warning", &["wg-peer wg0"]),
        ("wg set wg0 listen-port 51999".to_owned(), "warning", &["wg-interface wg0"]),
        ("ip link set wg0 mtu 1300".to_owned(), "warning", &["wg-interface wg0"]),
        ("ip route del 10.44.0.0/16 dev wg0".to_owned(), "critical", &["wg-route 10.44.0.0/16"]),
        // The kernel takes the routes with the link.
        ("ip link set wg0 down".to_owned(), "critical", &["wg-interface wg0", "wg-route 10.44.0.0/16"]),
        // In the middle of the many, the last peer takes one over.
        (
            format!("wg set wg-many peer {last} allowed-ips 10.77.0.0/16,10.106.7.0/24"),
            "critical",
            &["wg-peer wg-many many"],
        ),
    ];
    for (fault, status, targets) in cases {
        world.guest.sh(&fault).await;
        for target in targets {
            let is_told = |one: &Finding| named(one) == *target && one.status.as_str() == status;
            let what = format!("{fault}: {status} {target}");
            let findings = world.until("root", &what, |all| all.iter().any(is_told)).await;
            let told = findings.into_iter().find(is_told).unwrap();
            if target.ends_with("many") {
                let text = format!("10.106.7.0/24 is not among its allowed IPs: peer {last} has it");
                assert_eq!(told.text, text);
                assert!(told.remedy.as_ref().unwrap().contains(&many));
            }
            world.guest.sh(&told.remedy.unwrap()).await;
        }
        world.until_well("root", &format!("{fault}: mended")).await;
    }

    // Whom the kernel does not tell: nothing is called bad, and what would let it look is told.
    world.start("user", "--reuid 65534 --regid 65534 --clear-groups").await;
    let all_told = |all: &[Finding]| all.len() == ALL.len();
    let findings = world.until("user", "an ordinary user's agent answers", all_told).await;
    for one in findings {
        let is_open = one.check == "wg-route";
        assert_eq!(one.status, if is_open { Status::Ok } else { Status::Unknown }, "{one:#?}");
        assert!(is_open || one.remedy.is_some(), "{one:#?}");
        if one.check == "wg-interface" {
            assert_eq!(one.text, "no permission to ask the kernel for its tunnels");
            assert!(one.remedy.unwrap().contains("AmbientCapabilities=CAP_NET_ADMIN"));
        }
    }
    // The same user as the remedies would have it.
    let capabilities = "--inh-caps +net_admin,+net_raw --ambient-caps +net_admin,+net_raw";
    world.start("unit", &format!("--reuid 65534 --regid 65534 --clear-groups {capabilities}")).await;
    world.until_well("unit", "the same user with the capabilities is told all").await;

    let running = world.guest.sh("pidof charliehub-edge-agent").await;
    assert_eq!(running.split_whitespace().count(), 3, "none of them ended: {running}");
    let private = fs::read_to_string(root.join("wg0.conf")).unwrap();
    let private = private.lines().find_map(|line| line.strip_prefix("PrivateKey = ")).unwrap();
    let logs = world.guest.sh("cat /tmp/*.log").await;
    assert!(logs.contains("wireguard") && !logs.contains(private), "no key is told: {logs}");
    measured("all of it", began.elapsed());
}
