//! `deploy/harden` on a hub with rules of Docker, fail2ban and people: what it applies the agent finds in order, what it takes
//! back is as it was, and whatever kills it in the middle, both still work. It never cuts the provider off its database.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{Debian, Home, Postgres, Systemd, debian_root, full, measured, ms, secs};
use serde_json::Value;
use tokio::{io::copy_bidirectional, net, task::JoinSet};

/// What the sample says of the firewall, of files, and of the unit that restores the rules.
fn sample() -> String {
    let text = include_str!("../../deploy/agent/hub2.toml");
    let from = text.find("[policy.firewall]").unwrap();
    let to = text.find("[[policy.units]]").unwrap();
    let unit = "[[policy.units]]\nname = \"netfilter-persistent.service\"\n";
    format!("[timing]\ndoubt = \"100ms\"\nclear = \"100ms\"\n{}{unit}", &text[from..to])
}

/// The seed's folders, with the modes that files have when nobody thought of them; a link that leads out, too.
const FILES: &str = r"
mkdir -p /etc/charliehub /etc/wireguard /etc/secret
cd /opt && mkdir -p charliehub && cd charliehub
mkdir -p domain-manager/app/services scripts traefik/certs prometheus/data authelia/redis-data postgres/data
echo 'import os' >domain-manager/app/services/traefik_generator.py
echo '#!/bin/sh' >scripts/rotate-secrets.sh && chmod 777 scripts/rotate-secrets.sh
echo 'a: 1' >domain-manager/app/settings.yml
echo 'A=1' >domain-manager/.env
echo '{}' >traefik/certs/acme.json
echo 'key' >/etc/wireguard/wg-uk.conf && echo 'key' >/etc/wireguard/wg-fr.conf
chown -R 1000:1000 domain-manager
echo 'not yours' >/etc/secret/a.conf && chmod 600 /etc/secret/a.conf
";

/// Rules of others, live; one of a person that is saved too, in a file as a person writes it.
const RULES: &str = r#"
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A DOCKER ! -i br-1 -p tcp --dport 3000 -j DNAT --to-destination 172.19.0.2:3000
iptables -t raw -A PREROUTING -d 172.19.0.5/32 ! -i br-1 -j DROP
iptables -N f2b-sshd
iptables -A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
iptables -A f2b-sshd -s 203.0.113.9 -j REJECT
iptables -A INPUT -i lo -m comment --comment "by hand \" ' \\" -j ACCEPT
ip6tables -A INPUT -p icmpv6 -j ACCEPT
cat >/etc/iptables/rules.v4 <<'END'
# written by hand
*filter
:INPUT ACCEPT
 -A INPUT --in-interface lo -m comment --comment "by hand \" \' \\" --jump ACCEPT
COMMIT
END
chmod 640 /etc/iptables/rules.v4
printf '*filter\n-A INPUT -p ipv6-icmp -j ACCEPT\nCOMMIT\n' >/etc/iptables/rules.v6
systemctl --quiet disable netfilter-persistent
"#;

/// Everything that `harden` may touch, but for its own folder.
const SNAPSHOT: &str = r"
for family in ip ip6; do ${family}tables-save | sed -E '/^#/d; s/\[[0-9]+:[0-9]+\]//'; done
find /opt/charliehub /etc -printf '%p %y %#m %U:%G %l\n' | grep -v ld.so.cache | sort
sha256sum /etc/iptables/*
";

const NETWORK: &str = r"
mkdir -p /run/netns
for name in c:br-1:172.19.0 o:eth0:203.0.113; do
  IFS=: read -r space link net <<END
$name
END
  ip netns add $space
  ip link add $link type veth peer name $link netns $space
  ip addr add $net.1/24 dev $link && ip link set $link up
  ip -n $space addr add $net.2/24 dev $link && ip -n $space link set $link up
  ip -n $space link set lo up
done
";

/// bash runs this before each command, also in functions.
const KILLER: &str = "steps=0\nset -T\n\
    trap '[[ $BASH_COMMAND == $KILL_ON ]] && ((++steps == KILL_AT)) && kill -KILL $$' DEBUG\n\
    trap 'echo $steps >/steps' EXIT\n";

/// Runs at the end of each boot.
const PROOF: &str = "#!/bin/bash\nexec >>/proof/log 2>&1\nset -x\n\
    check() { charliehub-edge-agent check --json >/proof/$1.json; }\n\
    if [[ -e /proof/applied.json ]]; then\n  check second; iptables-save >/proof/second.rules\n  /src/deploy/harden undo --yes\n  \
    iptables-save -t raw >/proof/undone.rules; systemctl is-enabled netfilter-persistent >/proof/undone.unit\n\
    else\n  check first; /src/deploy/harden apply --yes --no-provider; check applied\n  \
    cp /usr/bin/logger /usr/bin/sudo; cp /usr/bin/logger /root/sudo\n  \
    say() { until journalctl _COMM=sudo | grep \"$2 :\"; do (echo \"$2 : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=$3\"; \
    sleep 0.2) | $1 -t sudo; done; }\n  say sudo ann /usr/bin/id; say /root/sudo bob /usr/bin/true\n  \
    charliehub-provider audit-report --source auditd,sudo,git --json >/proof/report.json\nfi\nsystemctl poweroff\n";
const UNIT: &str = "[Unit]\nAfter=netfilter-persistent.service dbus.service\n[Service]\nExecStart=/proof/run\n\
    [Install]\nWantedBy=multi-user.target\n";
const PREPARE: &str = "getent group docker >/dev/null || groupadd docker\nsystemctl disable netfilter-persistent\n\
    systemctl enable proof\nmkdir -p /src/deploy\n";

async fn hub(home: &Home) -> Debian {
    let hub = Debian::start(home).await;
    hub.must("getent group docker >/dev/null || groupadd docker").await;
    hub.must(FILES).await;
    hub.must(RULES).await;
    std::fs::write(hub.path("/etc/charliehub/edge-agent.toml"), sample()).unwrap();
    hub
}

/// What the agent says, but for units: there is no systemd.
async fn findings(hub: &Debian) -> Vec<Finding> {
    let said = hub.sh("charliehub-edge-agent check --json").await;
    let all: Vec<Finding> = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}{}", said.out, said.err));
    let (mut all, _): (Vec<Finding>, Vec<Finding>) = all.into_iter().partition(|one| one.check != "unit");
    all.sort_by(|a, b| (&a.check, &a.target).cmp(&(&b.check, &b.target)));
    all
}

fn bad(findings: &[Finding]) -> Vec<String> {
    let bad = findings.iter().filter(|one| one.status != Status::Ok);
    bad.map(|one| format!("{} {} {}: {}", one.status, one.check, one.target, one.text)).collect()
}

#[tokio::test]
async fn what_is_applied_the_agent_finds_in_order_and_undo_leaves_no_trace() {
    if !Systemd::can_boot() {
        return;
    }
    let home = Home::new();
    let hub = hub(&home).await;
    hub.must(NETWORK).await;
    let before = hub.must(SNAPSHOT).await;

    let first = findings(&hub).await;
    let critical =
        |check: &str| first.iter().filter(|one| one.check == check && one.status == Status::Critical).count();
    assert_eq!((critical("firewall-required"), critical("firewall-boot")), (6, 1), "{:#?}", bad(&first));
    assert!(critical("file-mode") >= 2, "an open secret, and a script that all may write: {:#?}", bad(&first));

    let listeners = listen(&hub).await;
    assert_eq!(reached(&hub).await, ALL.map(|(way, _)| (way, true)), "all is open at first");
    let dry = hub.sh("/src/deploy/harden apply --no-provider").await;
    assert_eq!(dry.code, Some(1), "{}{}", dry.out, dry.err);
    assert!(dry.out.contains("--dport 5432") && dry.err.contains("nothing was changed"), "{}{}", dry.out, dry.err);
    assert_eq!(hub.must(SNAPSHOT).await, before, "a dry run changes nothing");
    assert_eq!(hub.sh("/src/deploy/harden check").await.code, Some(1));

    let began = Instant::now();
    let applied = hub.sh("/src/deploy/harden apply --yes --no-provider").await;
    assert_eq!(applied.code, Some(0), "{}{}", applied.out, applied.err);
    measured("apply", began.elapsed());
    assert_eq!(bad(&findings(&hub).await), [""; 0], "the agent finds all in order");
    assert_eq!(reached(&hub).await, ALL, "who must come in comes in, nobody else");
    assert_eq!(hub.must("stat -c %a:%U /etc/secret/a.conf").await, "600:root\n");
    let rules = hub.must(SNAPSHOT).await;
    for line in before.lines().filter(|line| line.starts_with("-A ")) {
        assert!(rules.contains(line), "a rule of others is gone: {line}");
    }
    assert!(!hub.must("cat /etc/iptables/rules.v4").await.contains("DOCKER"), "what is Docker's is not saved");

    let journal = hub.must("cat /var/lib/charliehub-harden/journal").await;
    let again = hub.sh("/src/deploy/harden apply --yes --no-provider").await;
    assert_eq!(again.code, Some(0));
    assert!(again.err.contains("nothing to do"), "{}", again.err);
    assert_eq!(hub.must(SNAPSHOT).await, rules, "the second time changes nothing");
    assert_eq!(hub.must("cat /var/lib/charliehub-harden/journal").await, journal);
    assert_eq!(hub.sh("/src/deploy/harden check").await.code, Some(0));

    let undone = hub.sh("/src/deploy/harden undo --yes").await;
    assert_eq!(undone.code, Some(0), "{}{}", undone.out, undone.err);
    assert_same(&before, &hub.must(SNAPSHOT).await, "undo");
    assert_eq!(reached(&hub).await, ALL.map(|(way, _)| (way, true)), "all is open again");
    assert!(hub.sh("/src/deploy/harden undo --yes").await.err.contains("nothing to take back"));
    drop(listeners);
}

/// Somebody takes a rule of his own into the file, and changes a mode, after `apply`: only ours goes.
#[tokio::test]
async fn what_others_wrote_since_stays_and_a_link_leads_nowhere() {
    if !Systemd::can_boot() {
        return;
    }
    let home = Home::new();
    let hub = hub(&home).await;
    // The folder is another's: he may put a link there at any time, also in place of a folder.
    hub.must("cd /opt/charliehub && mv scripts /srv/ && ln -s /srv/scripts scripts").await;
    let applied = hub.sh("/src/deploy/harden apply --yes --no-provider").await;
    assert!(applied.out.contains("/opt/charliehub/scripts is no directory"), "{}{}", applied.out, applied.err);
    assert_eq!(hub.must("stat -c %a /srv/scripts/rotate-secrets.sh /srv/scripts").await, "777\n755\n");
    hub.must("sed -i '/^:INPUT/a -A INPUT -p tcp --dport 25 -j DROP' /etc/iptables/rules.v4").await;
    let undone = hub.sh("/src/deploy/harden undo --yes").await;
    assert_eq!(undone.code, Some(0), "{}{}", undone.out, undone.err);
    let file = hub.must("cat /etc/iptables/rules.v4").await;
    assert!(file.contains("--dport 25") && file.contains("by hand") && !file.contains("charliehub-harden"), "{file}");
}

/// Before which command the script is killed, and before which of them: each side of each step of the journal.
const KILLED_APPLYING: &[(&str, usize)] = &[
    ("printf*journal*", 1),
    ("printf*journal*", 6),
    ("eval*", 3),
    ("cat*draft*", 1),
    ("mv*", 2),
    ("chmod*proc*", 4),
    ("systemctl*enable*", 1),
];
const KILLED_UNDOING: &[(&str, usize)] = &[("eval*", 4), ("chmod*proc*", 2), ("mv*", 2), ("rm*journal*", 1)];

#[tokio::test]
async fn a_kill_at_any_step_leaves_what_apply_and_undo_can_mend() {
    if !Systemd::can_boot() {
        return;
    }
    let home = Home::new();
    let hub = hub(&home).await;
    std::fs::write(hub.path("/killer"), KILLER).unwrap();
    let before = hub.must(SNAPSHOT).await;
    let apply = "/src/deploy/harden apply --yes --no-provider";
    let undo = "/src/deploy/harden undo --yes";
    let killed = async |line: &str, on: &str, at: usize| {
        hub.sh(&format!("KILL_ON='{on}' KILL_AT={at} BASH_ENV=/killer {line}")).await.code
    };
    for (on, at) in points(&hub, KILLED_APPLYING, apply, undo).await {
        let what = format!("apply, killed before {on} {at}");
        assert_ne!(killed(apply, on, at).await, Some(0), "{what}");
        if at % 2 == 0 {
            hub.must(apply).await;
            hub.must("/src/deploy/harden check").await;
        }
        hub.must(undo).await;
        assert_same(&before, &hub.must(SNAPSHOT).await, &what);
    }
    hub.must(apply).await;
    for (on, at) in points(&hub, KILLED_UNDOING, undo, apply).await {
        let what = format!("undo, killed before {on} {at}");
        assert_ne!(killed(undo, on, at).await, Some(0), "{what}");
        hub.must(undo).await;
        assert_same(&before, &hub.must(SNAPSHOT).await, &what);
        hub.must(apply).await;
    }
}

/// Those of the table; with `--full` up to twenty of each command, as many as `line` has. `back` takes back what it did.
async fn points(hub: &Debian, table: &[(&'static str, usize)], line: &str, back: &str) -> Vec<(&'static str, usize)> {
    if !full() {
        return table.to_vec();
    }
    let mut all = Vec::new();
    let mut commands: Vec<&str> = table.iter().map(|(on, _)| *on).collect();
    commands.dedup();
    for on in commands {
        hub.must(&format!("KILL_ON='{on}' KILL_AT=0 BASH_ENV=/killer {line}")).await;
        let count: usize = hub.must("cat /steps").await.trim().parse().unwrap();
        hub.must(back).await;
        all.extend((1..=count.min(20)).map(|at| (on, at)));
    }
    all
}

#[tokio::test]
async fn what_would_cut_the_provider_off_its_database_is_refused() {
    if !Systemd::can_boot() {
        return;
    }
    let home = Home::new();
    let (hub, postgres) = (hub(&home).await, Postgres::start(&home).await);
    hub.must(NETWORK).await;
    let (_, port) = postgres.host_and_port();
    let listener = hub.inside(None, || TcpListener::bind("0.0.0.0:5432")).await.unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = net::TcpListener::from_std(listener).unwrap();
    let mut forward = JoinSet::new();
    forward.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut server = net::TcpStream::connect(("127.0.0.1", port)).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let before = hub.must(SNAPSHOT).await;
    let apply = async |address: &str| {
        let url = postgres.url_at(address.parse().unwrap(), 5432);
        hub.sh(&format!("DATABASE_URL='{url}' /src/deploy/harden apply --yes")).await
    };
    let refused = apply("127.0.0.1").await;
    assert_eq!(refused.code, Some(1), "{}{}", refused.out, refused.err);
    assert!(refused.err.contains("PostgreSQL not on loopback"), "{}", refused.err);
    assert!(refused.err.contains("the socket") && refused.err.contains("bridge"), "with the remedy: {}", refused.err);
    let unreachable = apply("203.0.113.77").await;
    assert!(unreachable.err.contains("cannot be told"), "{}", unreachable.err);
    assert_same(&before, &hub.must(SNAPSHOT).await, "what was refused");

    // One that says it is well before, and not after: nobody foresaw how.
    let fake = "#!/bin/sh\nif [ -e /asked ]; then echo 'critical  database: no answer'; exit 1; fi\n\
        touch /asked; echo 'ok        database: PostgreSQL 15 at 172.19.0.1:5432/a'\n";
    std::fs::write(hub.path("/fake"), fake).unwrap();
    std::fs::set_permissions(hub.path("/fake"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let back = hub.sh("CHARLIEHUB_PROVIDER=/fake /src/deploy/harden apply --yes").await;
    assert_eq!(back.code, Some(1), "{}{}", back.out, back.err);
    assert!(back.err.contains("were taken back"), "{}", back.err);
    assert_same(&before, &hub.must(SNAPSHOT).await, "what was taken back");

    let bridge = apply("172.19.0.1").await;
    assert_eq!(bridge.code, Some(0), "by the bridge: {}{}", bridge.out, bridge.err);
    assert_eq!(bad(&findings(&hub).await), [""; 0]);
    forward.abort_all();
}

/// A Debian that boots twice: the rules are back, the unit is what restored them, and the report has what the journal knows.
#[tokio::test]
async fn what_was_applied_is_there_after_a_reboot() {
    if !Systemd::can_boot() {
        return;
    }
    let home = Home::new();
    let mine = home.join("mine");
    let write = |path: &str, text: &str, mode: u32| {
        let path = mine.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("proof/run", PROOF, 0o755);
    write("etc/systemd/system/proof.service", UNIT, 0o644);
    write("etc/charliehub/edge-agent.toml", &sample(), 0o644);
    write("proof/prepare", &format!("{PREPARE}{FILES}"), 0o755);
    let proof = boot_twice(&home, &mine).await;

    let read = |name: &str| std::fs::read_to_string(proof.join(name)).unwrap_or_default();
    let troubles = |name: &str| -> Vec<Finding> {
        serde_json::from_str(&read(name)).unwrap_or_else(|e| panic!("{e}: {}\n{}", read(name), read("log")))
    };
    let first = troubles("first.json");
    let unit = first.iter().find(|one| one.check == "unit").unwrap();
    assert_eq!(unit.status, Status::Critical, "{unit:?}");
    assert_eq!(bad(&troubles("applied.json")), [""; 0], "{}", read("log"));
    assert_eq!(bad(&troubles("second.json")), [""; 0], "after the reboot: {}", read("log"));
    assert_eq!(read("second.rules").matches("charliehub-harden").count(), 5, "{}", read("second.rules"));
    assert!(!read("undone.rules").contains("charliehub-harden"), "{}", read("undone.rules"));
    assert_eq!(read("undone.unit"), "disabled\n");

    let report: Vec<Value> =
        serde_json::from_str(&read("report.json")).unwrap_or_else(|e| panic!("{e}: {}", read("log")));
    let of = |kind: &str| report.iter().filter(|entry| entry["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(
        (&of("sudo.command")[0]["actor"], &of("sudo.command")[0]["name"]),
        (&"ann".into(), &"/usr/bin/id".into())
    );
    assert_eq!(of("sudo.forged")[0]["detail"]["written_by"], "/root/sudo", "who is no sudo is found out");
    let silent: Vec<&str> = of("unavailable").iter().filter_map(|entry| entry["source"].as_str()).collect();
    assert_eq!(silent, ["auditd", "git"], "{report:#?}");
}

/// PID 1 and all, until it powers off by itself, and once more. What is in `mine` is laid over the Debian root; the folder
/// `proof` of it comes back.
async fn boot_twice(home: &Home, mine: &Path) -> PathBuf {
    const BOOTS: &str = r#"set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/up,workdir=$1/work" "$1/root"
cp -r "$3/." "$1/root/"
chroot "$1/root" sh -e /proof/prepare
for boot in first second; do
  systemd-nspawn --quiet --register=no --keep-unit --private-network --boot -D "$1/root" --bind-ro="$4:/src/deploy" \
    --bind-ro="$5/charliehub-edge-agent:/usr/bin/charliehub-edge-agent" --bind-ro="$5/charliehub-provider:/usr/bin/charliehub-provider"
done
cp -r "$1/root/proof" "$3/said"
"#;
    let place = home.join("root");
    std::fs::create_dir_all(&place).unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").canonicalize().unwrap();
    let programs = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let log = std::fs::File::create(home.join("boots.log")).unwrap();
    let mut command = tokio::process::Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", BOOTS, "sh"]);
    command.arg(&place).arg(debian_root()).arg(mine).arg(deploy).arg(programs);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
    let began = Instant::now();
    let ended = tokio::time::timeout(secs(180), command.status()).await;
    let said = || std::fs::read_to_string(home.join("boots.log")).unwrap_or_default();
    assert!(ended.is_ok_and(|status| status.is_ok_and(|status| status.success())), "two boots did not end: {}", said());
    measured("two boots, to their ends", began.elapsed());
    mine.join("said")
}

/// From where to which port, and whether that is open once the rules are there.
const ALL: [((&str, &str), bool); 9] = [
    (("loopback", "127.0.0.1:5432"), false),
    (("loopback", "127.0.0.1:6379"), false),
    (("loopback", "127.0.0.1:8091"), true),
    (("bridge", "172.19.0.1:5432"), true),
    (("container", "172.19.0.1:5432"), true),
    (("container", "172.19.0.1:6379"), true),
    (("container", "172.19.0.1:8091"), true),
    (("outside", "203.0.113.1:5432"), false),
    (("outside", "203.0.113.1:8091"), false),
];

async fn listen(hub: &Debian) -> Vec<TcpListener> {
    let mut all = Vec::new();
    for port in [5432, 6379, 8091] {
        all.push(hub.inside(None, move || TcpListener::bind(("0.0.0.0", port))).await.unwrap());
    }
    all
}

/// Real connections, all at once.
async fn reached(hub: &Debian) -> [((&'static str, &'static str), bool); 9] {
    let connect = async |(from, to): (&'static str, &'static str)| {
        let address: SocketAddr = to.parse().unwrap();
        let space = match from {
            "container" => Some("c"),
            "outside" => Some("o"),
            _ => None,
        };
        let is_open = hub.inside(space, move || TcpStream::connect_timeout(&address, ms(2000))).await.is_ok();
        ((from, to), is_open)
    };
    let all = futures_util::future::join_all(ALL.map(|(way, _)| connect(way))).await;
    all.try_into().unwrap()
}

fn assert_same(before: &str, after: &str, what: &str) {
    let gone: Vec<&str> = before.lines().filter(|line| !after.lines().any(|other| other == *line)).collect();
    let new: Vec<&str> = after.lines().filter(|line| !before.lines().any(|other| other == *line)).collect();
    assert!(before == after, "{what}: gone {gone:#?}, new {new:#?}");
}
