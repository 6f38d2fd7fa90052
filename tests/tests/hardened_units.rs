//! Everything works within the hardened units, as the packages install them: each check of the agent, on a hub with real tunnels;
//! the backup by its timer; a database whose login is a credential.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    os::unix::fs::{PermissionsExt as _, chown},
};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{
    Bind, Broker, Caller, CertCase, HUB_PACKAGES, Home, Lab, Podman, Switch, Systemd, measured, secs, until,
};

/// Of each kind of check one that is well. Tunnels, the broker and ports come to it.
const POLICY: &str = r#"
[timing]
wireguard = "1s"
mtu = "2s"
firewall = "2s"
certificates = "2s"
dns = "2s"
host = "2s"
doubt = "200ms"
clear = "400ms"
[dns]
edge = ["203.0.113.1"]
servers = ["127.0.0.53"]
[policy.certificates]
names = ["app.example.test"]
files = ["/etc/charliehub/default.pem"]
[policy.firewall]
[[policy.firewall.rules]]
name = "PostgreSQL for containers only"
table = "raw"
chain = "PREROUTING"
rule = "-p tcp --dport 5432 ! -s 172.16.0.0/12 -j DROP"
[[policy.files]]
paths = ["/opt/charliehub/acme.json", "/etc/charliehub/broker.password"]
mode = "600"
owner = "root"
secret = true
[[policy.units]]
name = "charliehub-edge-agent.service"
[[policy.units]]
name = "netfilter-persistent.service"
[[policy.containers]]
name = "good"
[[policy.gateways]]
name = "uk"
topic = "uk/gateway/#"
max_age = "10s"
[[policy.disks]]
path = "/"
[[policy.recent]]
name = "settings"
path = "/etc/charliehub/edge-agent.toml"
max_age = "26h"
"#;
const RULES: &str = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    -A PREROUTING ! -s 172.16.0.0/12 -p tcp -m tcp --dport 5432 -j DROP\nCOMMIT\n";
/// The line that the unit names for Docker's socket.
const DROP_IN: &str = "[Service]\nSupplementaryGroups=docker\n";
/// What it may do more where it acts; with it, it also sees tunnels of wireguard-go.
const ACTING: &str = "/usr/share/doc/charliehub-edge-agent/examples/acting.conf";
/// What no target of a hub without a provider has.
const OF_ITSELF: [&str; 5] = ["dns-caa", "flapping", "key-rotation", "look", "provider"];

fn findings(agent: Caller) -> Result<Vec<Finding>, String> {
    let (_, body) = agent.send("GET", "/findings", "", "").map_err(|error| error.to_string())?;
    serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))
}

/// A line for each that is not ok.
fn told(findings: &[Finding]) -> String {
    let line = |one: &Finding| {
        let remedy = one.remedy.as_deref().unwrap_or_default();
        format!("{} {} {}: {} ({remedy})\n", one.status, one.check, one.target, one.text)
    };
    findings.iter().filter(|one| one.status != Status::Ok).map(line).collect()
}

#[tokio::test]
async fn each_check_of_the_agent_can_look_from_within_its_unit() {
    if !Systemd::can_boot() {
        return;
    }
    let home = Home::new();
    let (lab, podman, broker) = (Lab::up(&home, 0).await, Podman::start(&home).await, Broker::start(&home).await);
    podman.run("good", &[], &["/bin/sleep", "1000"]);
    let _gateway = broker.gateway("uk/gateway/1");
    let certificate = CertCase::make(&home, "certificate", "app.example.test", "valid", "Good Root").await;
    let served = Switch::inside(&home, &lab.hub(), certificate.port.unwrap()).await;
    let _broker_inside = Switch::inside(&home, &lab.hub(), broker.port()).await;
    let names = Bind::new(&home, &lab.hub(), Ipv4Addr::new(127, 0, 0, 53));
    let names = names.zone(".", "@ NS ns\nns A 127.0.0.53\napp.example.test A 203.0.113.1\n");
    let _names = names.started().await;
    let systemd = Systemd::boot_as_hub(&home, &HUB_PACKAGES, &lab, &[(podman.socket(), "/run/docker.sock")]).await;
    systemd.install(&home);

    systemd.must("groupadd docker && mkdir -p /opt/charliehub");
    let docker = systemd.must("getent group docker | cut -d: -f3").trim().parse().unwrap();
    chown(podman.socket(), None, Some(docker)).unwrap();
    std::fs::set_permissions(podman.socket(), std::fs::Permissions::from_mode(0o660)).unwrap();
    for (from, to) in [
        (certificate.dir.join("acme.json"), "/opt/charliehub/acme.json"),
        (certificate.dir.join("fullchain.pem"), "/etc/charliehub/default.pem"),
        (certificate.dir.join("root.pem"), "/etc/charliehub/root.pem"),
        (home.join("broker.pem"), "/etc/charliehub/broker.pem"),
        (home.join("broker.password"), "/etc/charliehub/broker.password"),
    ] {
        systemd.copy(from, to);
    }
    systemd.must("chmod 600 /opt/charliehub/acme.json /etc/charliehub/broker.password");
    systemd.output(&["tee", "/etc/iptables/rules.v4"], RULES);
    systemd.must("iptables-restore </etc/iptables/rules.v4");
    let settings = format!(
        "[certificates]\nentry_points = {{ websecure = \"{}\" }}\nacme_json = [\"/opt/charliehub/acme.json\"]\n\
         authorities = [\"/etc/charliehub/root.pem\"]\n{}{POLICY}{}{}",
        served.address(),
        broker.settings().replace(&home.path().display().to_string(), "/etc/charliehub"),
        lab.expected(),
        lab.failover(
            "mode = \"act\"\nprofile = \"fast\"\n[[act.restart]]\nsite = \"uk\"\nmode = \"dry-run\"\n\
             [[act.re_resolve]]\nsite = \"uk\"\nmode = \"dry-run\"\n[[act.peers]]\ninterface = \"wg-uk\"\nmode = \"act\""
        ),
    );
    systemd.output(&["tee", "/etc/charliehub/edge-agent.toml"], &settings);
    systemd.must("systemctl restart charliehub-edge-agent");

    // As packaged it sees neither root's sockets nor Docker's, and says what would let it.
    let agent = systemd.caller("127.0.0.1:9745".parse().unwrap());
    let remedies = [
        ("container", "SupplementaryGroups=docker"),
        ("wg-interface", "CAP_DAC_OVERRIDE"),
        ("failover", "acting.conf"),
    ];
    until("what is closed to it is unknown, with what would open it", secs(60), async || {
        let all = findings(agent)?;
        let is_told = |(check, words): &(&str, &str)| {
            let mut of = all.iter().filter(|one| one.check == *check).peekable();
            let says = |one: &Finding| one.remedy.as_ref().is_some_and(|remedy| remedy.contains(words));
            of.peek().is_some() && of.all(|one| one.status == Status::Unknown && says(one))
        };
        let others = all.iter().filter(|one| one.status != Status::Ok && one.status != Status::Unknown).count();
        if remedies.iter().all(is_told) && others == 0 { Ok(()) } else { Err(told(&all)) }
    })
    .await;

    systemd.must("mkdir -p /etc/systemd/system/charliehub-edge-agent.service.d");
    systemd.output(&["tee", "/etc/systemd/system/charliehub-edge-agent.service.d/more.conf"], DROP_IN);
    systemd.must(&format!("cp {ACTING} /etc/systemd/system/charliehub-edge-agent.service.d/"));
    systemd.must("systemctl daemon-reload && systemctl restart charliehub-edge-agent");
    let known = systemd.must("charliehub-edge-agent explain");
    let known = known.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned));
    let known: BTreeSet<String> = known.filter(|name| !OF_ITSELF.contains(&name.as_str())).collect();
    let (count, took) = until("every check that there is can look, and all is well", secs(90), async || {
        let all = findings(agent)?;
        let looked: BTreeSet<String> = all.iter().map(|one| one.check.clone()).collect();
        let missing: Vec<&String> = known.difference(&looked).collect();
        let bad = told(&all);
        if missing.is_empty() && bad.is_empty() { Ok(all.len()) } else { Err(format!("no {missing:?}; {bad}")) }
    })
    .await;
    measured(&format!("{} checks, {count} targets", known.len()), took);
    let shown = systemd.must("systemctl show -p User,NRestarts charliehub-edge-agent");
    assert!(shown.contains("User=charliehub-edge-agent") && shown.contains("NRestarts=0"), "{shown}");
    println!("{}", systemd.must("systemd-analyze security --no-pager charliehub-edge-agent | tail -n 1"));

    // It acts, and what it noted outlasts a restart.
    assert!(lab.fault("drop-underlay", "fr", None).await);
    let moved = async || {
        let all = findings(agent)?;
        let is_it = |one: &Finding| one.check == "failover" && one.text.starts_with("10.35.0.0/16 goes by wg-uk");
        if all.iter().any(is_it) { Ok(()) } else { Err(told(&all)) }
    };
    until("the site is reached by the other tunnel", secs(30), moved).await;
    systemd.must("systemctl restart charliehub-edge-agent && test -f /run/charliehub-edge-agent/failover-fr.json");
    until("a restart finds it there", secs(30), moved).await;

    // It sees them fail as well.
    assert!(lab.fault("link-down", "uk", None).await);
    podman.podman(&["stop", "-t", "0", "good"]);
    systemd.must("iptables -t raw -F && chmod 644 /opt/charliehub/acme.json");
    let wanted = ["acme-storage", "container", "file-mode", "firewall-required", "wg-interface"];
    until("each is found", secs(60), async || {
        let all = findings(agent)?;
        let critical: BTreeSet<&str> =
            all.iter().filter(|one| one.status == Status::Critical).map(|one| one.check.as_str()).collect();
        if wanted.iter().all(|check| critical.contains(check)) { Ok(()) } else { Err(told(&all)) }
    })
    .await;
}

#[tokio::test]
async fn a_backup_comes_by_its_timer_and_a_databases_login_by_a_credential() {
    if !Systemd::can_boot() {
        return;
    }
    let home = Home::new();
    let systemd = Systemd::boot_with(&home, &HUB_PACKAGES).await;
    systemd.install(&home);
    let api = systemd.caller("127.0.0.1:8001".parse().unwrap());
    api.until_ready().await;
    systemd.must("charliehub-provider domains add kept.test --backend 127.0.0.1:9000");
    systemd.must("charliehub-provider domains list | grep kept.test");
    // It comes along with the backup.
    let token = systemd.must("cat /var/lib/charliehub-provider/admin.token").trim().to_owned();

    // The first one is long overdue. What it waits for by chance is not waited for.
    let timer = "charliehub-backup.timer";
    systemd.must(&format!("mkdir -p /var/lib/systemd/timers /etc/systemd/system/{timer}.d"));
    systemd.output(
        &["tee", &format!("/etc/systemd/system/{timer}.d/now.conf")],
        "[Timer]\nRandomizedDelaySec=0\nAccuracySec=1s\n",
    );
    systemd.must(&format!("touch -d '2 days ago' /var/lib/systemd/timers/stamp-{timer}"));
    systemd.must(&format!("systemctl daemon-reload && systemctl enable --now {timer}"));
    let list = "ls /var/lib/charliehub-provider/backups/charliehub-*.tar.gz";
    let (backup, took) = until("the timer has made up for it", secs(60), async || {
        let (found, said) = systemd.try_sh(list);
        if found { Ok(said.trim().to_owned()) } else { Err(systemd.must("journalctl -n 5 -u charliehub-backup")) }
    })
    .await;
    measured("a backup by the timer", took);
    assert_eq!(systemd.must(&format!("stat -c '%a %U' {backup}")).trim(), "600 charliehub-provider");
    let ended = async || {
        let shown = systemd.must("systemctl show -p ActiveState,Result charliehub-backup.service");
        let is_well = shown.contains("ActiveState=inactive") && shown.contains("Result=success");
        if is_well { Ok(()) } else { Err(shown) }
    };
    until("its service has ended well", secs(30), ended).await;
    systemd.must(&format!("systemctl list-timers {timer} | grep -q '1 timers listed'"));
    systemd.must(&format!("charliehub-provider restore {backup} --dry-run"));
    // As the handbook makes one by hand, beside the private database of a unit that others cannot look into.
    let by_hand = "runuser -u charliehub-provider -- charliehub-provider --config /etc/charliehub/provider.toml backup /tmp/b.tar.gz";
    systemd.must(by_hand);

    // A database of the hub's own. Its password is in no setting, and no other user can read it.
    systemd.must("pg_createcluster $(ls /usr/lib/postgresql) main --start");
    let roles = "CREATE ROLE charliehub LOGIN PASSWORD 'of the hub'; CREATE ROLE second LOGIN PASSWORD 'another' IN ROLE charliehub;";
    let psql = "runuser -u postgres -- psql -X -q -v ON_ERROR_STOP=1";
    systemd.must(&format!("{psql} -c \"{roles}\" && {psql} -c 'CREATE DATABASE charliehub OWNER charliehub'"));
    systemd.output(&["install", "-D", "-m", "600", "/dev/stdin", "/etc/credstore/database.password"], "of the hub\n");
    let url = "postgresql://charliehub@127.0.0.1/charliehub";
    systemd.must(&format!(
        "sed -i 's|^#url = .*|url = \"{url}\"|; s|^#password_file|password_file|' /etc/charliehub/provider.toml"
    ));
    systemd.must("systemctl restart charliehub-provider");
    until("the provider has made its schema there", secs(60), async || {
        let (_, said) = systemd.try_sh("charliehub-provider check");
        if said.lines().any(|line| line.starts_with("ok ") && line.contains(" schema: ")) { Ok(()) } else { Err(said) }
    })
    .await;
    systemd.must(&format!("charliehub-provider restore {backup}"));
    let rows = |name: &str| {
        format!(
            "{psql} -d charliehub -c \"INSERT INTO charliehub.domains (domain, backend_host, backend_port) VALUES ('{name}', '127.0.0.1', 9001)\""
        )
    };
    systemd.must(&rows("row.test"));
    let serves = async |name: &str| match api.send("GET", "/traefik?instance=t", &token, "") {
        Ok((200, body)) if body.contains("kept.test") && body.contains(name) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("what was restored and what came since are served", secs(30), async || serves("row.test").await).await;
    systemd.must("systemctl start charliehub-backup.service");
    assert_eq!(systemd.must(list).lines().count(), 2, "one of the new database");

    // All of the login in one credential, which beats what the file says.
    systemd.output(
        &["install", "-m", "600", "/dev/stdin", "/etc/credstore/database.url"],
        "postgresql://second:another@127.0.0.1/charliehub\n",
    );
    systemd.must(
        "rm /etc/credstore/database.password && sed -i '/^password_file/d; /^url = /d' /etc/charliehub/provider.toml",
    );
    systemd.must("systemctl restart charliehub-provider");
    api.until_ready().await;
    systemd.must(&rows("later.test"));
    until("it follows by the other login", secs(30), async || serves("later.test").await).await;
    let users = systemd
        .must(&format!("{psql} -Atc \"SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = 'charliehub'\""));
    assert!(users.lines().any(|user| user == "second"), "{users}");

    // A backup that fails is a failed unit, and a finding.
    systemd.output(
        &["tee", "/etc/charliehub/edge-agent.toml"],
        "[timing]\nhost = \"1s\"\ndoubt = \"200ms\"\nclear = \"400ms\"\n\
         [[policy.units]]\nname = \"charliehub-backup.timer\"\n\
         [[policy.units]]\nname = \"charliehub-backup.service\"\nactive = false\n",
    );
    systemd.must("systemctl restart charliehub-edge-agent");
    let agent = systemd.caller("127.0.0.1:9745".parse().unwrap());
    let is = async |status: Status| {
        let all = findings(agent)?;
        let of = |unit: &str, status: Status| {
            all.iter().any(|one| one.check == "unit" && one.target == unit && one.status == status)
        };
        if of("charliehub-backup.service", status) && of(timer, Status::Ok) { Ok(()) } else { Err(told(&all)) }
    };
    until("the agent sees nothing wrong", secs(30), async || is(Status::Ok).await).await;
    systemd.must("pg_ctlcluster $(ls /usr/lib/postgresql) main stop -m immediate");
    assert!(!systemd.try_sh("systemctl start charliehub-backup.service").0, "there is nothing to back up from");
    assert_eq!(systemd.must("systemctl is-failed charliehub-backup.service").trim(), "failed");
    let why = systemd.must("journalctl --no-pager -o cat -u charliehub-backup.service | tail -n 20");
    assert!(why.contains("error: "), "{why}");
    assert_eq!(systemd.must(list).lines().count(), 2, "and those of before are there");
    until("the agent tells of it", secs(30), async || is(Status::Critical).await).await;
    systemd.must("pg_ctlcluster $(ls /usr/lib/postgresql) main start");
    systemd.must("systemctl start charliehub-backup.service");
    assert_eq!(systemd.must(list).lines().count(), 3);
    until("and that it is over", secs(30), async || is(Status::Ok).await).await;
}
