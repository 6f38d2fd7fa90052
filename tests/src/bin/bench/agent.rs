//! `edge`: what the agent costs. A round of all checks on a hub with 50 tunnels, 500 firewall rules and 100 names, beside a
//! script that asks the usual programs for the same; and at rest, on a hub of the seed's size.
//!
//! Everything is real: tunnels of wireguard-go between network namespaces, rules in the kernel, handshakes of TLS.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use charliehub_tests::{Agent, CertCase, Home, Lab, Switch, secs};
use tokio::time::sleep;

use crate::{memory::mebibytes, processor::ticks, report::Report};

const TUNNELS: usize = 50;
const RULES: usize = 500;
const NAMES: usize = 100;

/// Each group looks so often while a round is measured.
const EVERY: Duration = Duration::from_secs(2);
const ROUNDS: Duration = Duration::from_secs(30);
const REST: Duration = Duration::from_mins(1);

pub(crate) async fn run() -> anyhow::Result<Report> {
    ensure!(charliehub_tests::is_root(), "network namespaces need root");
    let mut report = Report::default();
    large(&mut report).await?;
    small(&mut report).await?;
    Ok(report)
}

async fn large(report: &mut Report) -> anyhow::Result<()> {
    let home = Home::new();
    let lab = Lab::up(&home, TUNNELS - 2).await;
    let hub = lab.hub();
    let rules = loaded(&home, &lab, RULES).await?;
    let made = CertCase::make(&home, "certificates", "a.example.test", "wildcard", "Bench Root").await;
    let served = Switch::inside(&home, &hub, made.port.context("it is not served")?).await;
    let settings = format!(
        "[timing]\nwireguard = \"2s\"\nfirewall = \"2s\"\ncertificates = \"2s\"\nhost = \"2s\"\n{}{}{}",
        lab.settings(),
        certificates(&made, served.address()),
        firewall(&rules)
    );
    let agent = Agent::start_in(&home, &settings, &hub).await;
    let tunnels =
        |findings: &[charliehub_proto::finding::Finding]| findings.iter().filter(|one| one.check == "wg-peer").count();
    let names = |findings: &[charliehub_proto::finding::Finding]| {
        findings.iter().filter(|one| one.check == "certificate").count()
    };
    agent.until("all is looked at", secs(60), |all| tunnels(all) == TUNNELS && names(all) >= NAMES).await;
    sleep(EVERY * 3).await;

    let before = ticks(agent.pid())?;
    let took_before = looks(&agent).await;
    sleep(ROUNDS).await;
    let used = ticks(agent.pid())? - before;
    let took = looks(&agent).await;
    let rounds = ROUNDS.as_secs_f64() / EVERY.as_secs_f64();
    let slowest =
        took.iter().zip(&took_before).map(|(after, before)| (after.0 - before.0) / (after.1 - before.1).max(1.0));
    let per_round = used / rounds * 10.0; // a tick is 10 ms
    report.at_most("a round of all checks, of a core", per_round, 250.0, "ms");
    report.at_most(
        "a round of all checks, wall time of the slowest group",
        slowest.fold(0.0, f64::max) * 1e3,
        1_000.0,
        "ms",
    );
    report.value("MiB resident with 50 tunnels, 500 rules, 100 names", mebibytes(agent.pid(), "VmRSS")?);

    let script = script(&lab, served.address());
    let peer = script_cost(&hub, &script)? * 1e3;
    report.value("the same by a script: wg, iptables-save, ping, openssl: ms of a core", peer);
    report.value("times as much as the agent", peer / per_round);
    Ok(())
}

async fn small(report: &mut Report) -> anyhow::Result<()> {
    let home = Home::new();
    let lab = Lab::up(&home, 0).await;
    let hub = lab.hub();
    let rules = loaded(&home, &lab, 6).await?;
    let agent = Agent::start_in(&home, &format!("{}{}", lab.settings(), firewall(&rules)), &hub).await;
    sleep(secs(15)).await;
    let before = ticks(agent.pid())?;
    let began = Instant::now();
    sleep(REST).await;
    let share = (ticks(agent.pid())? - before) / began.elapsed().as_secs_f64(); // a tick is a hundredth of a second
    report.at_most("at rest, two tunnels, real intervals, children counted", share, 0.5, "% of a core");
    report.at_most("resident with two tunnels", mebibytes(agent.pid(), "VmRSS")?, 20.0, "MiB");
    Ok(())
}

/// Loads so many rules on the hub, and saves them; where.
async fn loaded(home: &Home, lab: &Lab, count: usize) -> anyhow::Result<PathBuf> {
    let rules = home.join("rules");
    fs::create_dir(&rules)?;
    fs::write(rules.join("wanted"), rules_of(count))?;
    let line =
        "cd {} && iptables-nft-restore < wanted && iptables-nft-save > rules.v4 && ip6tables-nft-save > rules.v6";
    lab.on_hub(&line.replace("{}", &rules.display().to_string())).await;
    Ok(rules)
}

fn rules_of(count: usize) -> String {
    let mut text = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n".to_owned();
    for n in 0..count - 1 {
        let _ = writeln!(
            text,
            "-A FORWARD -s 172.{}.{}.0/24 -p tcp -m tcp --dport {} -j ACCEPT",
            20 + n / 250,
            n % 250,
            1_000 + n
        );
    }
    text + "COMMIT\n*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
            -A PREROUTING ! -s 172.16.0.0/12 -p tcp -m tcp --dport 5432 -j DROP\nCOMMIT\n"
}

fn firewall(rules: &Path) -> String {
    format!(
        "[firewall]\nrules_dir = \"{}\"\n[policy.firewall]\n[[policy.firewall.rules]]\nname = \"PostgreSQL\"\ntable = \"raw\"\n\
         chain = \"PREROUTING\"\nrule = \"! -s 172.16.0.0/12 -p tcp --dport 5432 -j DROP\"\n",
        rules.display()
    )
}

/// A certificate for all names, in an acme.json and served on the hub.
fn certificates(made: &CertCase, served: SocketAddr) -> String {
    let names: Vec<String> = (0..NAMES).map(|n| format!("\"n{n}.example.test\"")).collect();
    format!(
        "[certificates]\nentry_points = {{ websecure = \"{served}\" }}\nacme_json = [\"{0}/acme.json\"]\n\
         authorities = [\"{0}/root.pem\"]\n[policy.certificates]\nnames = [{1}]\n",
        made.dir.display(),
        names.join(", ")
    )
}

/// What people have: the usual programs, one after the other.
fn script(lab: &Lab, served: SocketAddr) -> String {
    let mut text = String::new();
    for site in lab.sites() {
        let _ = writeln!(text, "ping -c 1 -W 1 -I {} {} >/dev/null", site.interface, site.end);
    }
    let _ = writeln!(
        text,
        "iptables-nft-save >/dev/null; ip6tables-nft-save >/dev/null; ip route >/dev/null; ip -s link >/dev/null"
    );
    for n in 0..NAMES {
        let _ = writeln!(
            text,
            "openssl s_client -connect {served} -servername n{n}.example.test </dev/null 2>/dev/null | openssl x509 -noout -enddate >/dev/null"
        );
    }
    text
}

/// Seconds of a core that the script and all that it starts use.
fn script_cost(namespace: &str, script: &str) -> anyhow::Result<f64> {
    let timed = format!("TIMEFORMAT='%U %S'; time {{ {script} }}");
    let output = Command::new("nsenter")
        .args([&format!("--net=/run/netns/{namespace}"), "--", "bash", "-c", &timed])
        .output()
        .context("nsenter")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().context("no time")?;
    last.split(' ').map(|part| part.parse::<f64>().context("no time")).sum()
}

/// Of each group: seconds of all of its looks, and how many.
async fn looks(agent: &Agent) -> Vec<(f64, f64)> {
    let metrics = agent.metrics().await;
    let of = |what: &str, group: &str| {
        let name = format!("charliehub_agent_check_duration_seconds_{what}{{check=\"{group}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0.0)
    };
    ["wireguard", "reach", "firewall", "certificates", "host"]
        .map(|group| (of("sum", group), of("count", group)))
        .to_vec()
}
