//! A hub's firewall, broken in every way of `tests/tools/iptables-case`, under the eyes of a real agent.
//!
//! Each case has a network namespace, rules and an agent of its own. The agent must tell what broke and nothing else, within
//! its time; its commands are run as it gives them, and then all is well again. What is no drift must go unnoticed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    collections::BTreeMap,
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use charliehub_proto::finding::{
    Finding,
    Status::{self, Critical, Ok as Good, Unknown, Warning},
};
use charliehub_tests::{Agent, Home, full, is_root, measured, ms, secs, until};
use futures_util::StreamExt as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const REQUIRED: &str = "firewall-required";
const PERSISTED: &str = "firewall-persisted";
const BACKEND: &str = "firewall-backend";
const BOOT: &str = "firewall-boot";

const POSTGRES: &str = "PostgreSQL for containers only";
const FILE: &str = "rules.v4";
const UNIT: &str = "netfilter-persistent.service";

type Troubles = Vec<(&'static str, &'static str, Status)>;

/// What the agent must say of a case; None for a case that nobody thought of.
fn expected(case: &str, backend: &str) -> Option<Troubles> {
    let raw = || {
        let others = ["PostgreSQL not on loopback", "Redis for containers only", "Redis not on loopback"];
        let all = [POSTGRES, others[0], others[1], others[2], "8091 for containers and loopback only"];
        all.map(|name| (REQUIRED, name, Critical)).to_vec()
    };
    let file = || {
        let tables = ["filter ipv4", "nat ipv4", "raw ipv4"].map(|table| (PERSISTED, table, Unknown));
        [&[(PERSISTED, FILE, Critical)][..], &tables].concat()
    };
    Some(match case {
        "clean" | "counters" | "docker" | "comment-quotes" | "equivalent-forms" | "wg-quick" | "fail2ban"
        | "restored" | "empty-tables" | "set-order" => vec![],
        "nft-native" if backend == "legacy" => vec![(BACKEND, "nft", Warning)],
        "removed" | "shadowed" => vec![(REQUIRED, POSTGRES, Critical)],
        "port-changed" => vec![(REQUIRED, POSTGRES, Critical), (PERSISTED, "raw ipv4", Warning)],
        "reordered" => vec![(PERSISTED, "raw ipv4", Warning)],
        "added" | "policy" | "saved-stale" => vec![(PERSISTED, "filter ipv4", Warning)],
        "raw-flushed" | "table-missing" => raw(),
        "all-flushed" => [raw(), vec![(PERSISTED, "filter ipv4", Warning), (PERSISTED, "nat ipv4", Warning)]].concat(),
        "v6-removed" => vec![(REQUIRED, "PostgreSQL not over IPv6", Critical)],
        "saved-missing" | "saved-empty" | "saved-broken" => file(),
        "not-enabled" => vec![(BOOT, UNIT, Critical)],
        "legacy-also" if backend == "nft" => vec![(BACKEND, "ipv4", Warning)],
        "legacy-also" => vec![(BACKEND, "ipv4", Warning), (PERSISTED, "filter ipv4", Warning)],
        // A rule that iptables cannot express: the table before it was read whole, it and the next were not.
        "nft-native" => {
            let unread = [(BACKEND, "ipv4"), (PERSISTED, "filter ipv4"), (PERSISTED, "nat ipv4")]
                .map(|(check, target)| (check, target, Unknown));
            [&unread[..], &[(BACKEND, "nft", Warning)]].concat()
        }
        _ => return None,
    })
}

/// What undoes a case whose remedy is not a command.
fn undo(case: &str) -> Option<&'static str> {
    Some(match case {
        "saved-broken" => "sed -i 's/--dport fifty/--dport 5432/' iptables/rules.v4",
        "not-enabled" => "ln -s $PWD/netfilter-persistent.service units/",
        "nft-native" => {
            "nft delete table inet ch; of=$(nft -a list chain ip filter INPUT | sed -n 's/.*mark set.*handle //p'); \
             [ -z \"$of\" ] || nft delete rule ip filter INPUT handle $of"
        }
        _ => return None,
    })
}

/// From a fault to its finding, with the real intervals: edge.md section 6.
fn budget(case: &str, backend: &str) -> Duration {
    match (case, backend) {
        ("saved-missing" | "saved-empty" | "saved-broken" | "not-enabled", _) => secs(15),
        (_, "nft") if case != "legacy-also" => secs(5),
        _ => secs(35),
    }
}

#[tokio::test]
async fn every_case_is_told_as_it_is_with_nft() {
    every_case("nft").await;
}

#[tokio::test]
async fn every_case_is_told_as_it_is_with_the_older_iptables() {
    if !legacy_works() {
        println!("not checked: this kernel has no legacy iptables");
        return;
    }
    every_case("legacy").await;
}

async fn every_case(backend: &str) {
    if !is_root() {
        println!("not checked: network namespaces need root");
        return;
    }
    let list = String::from_utf8(tool(&["--list"]).stdout).unwrap();
    let cases: Vec<&str> = list.lines().collect();
    assert!(cases.len() >= 27, "{cases:?}");
    let unthought: Vec<&&str> = cases.iter().filter(|case| expected(case, backend).is_none()).collect();
    assert!(unthought.is_empty(), "cases without an expectation: {unthought:?}");
    let slowest = futures_util::stream::iter(cases)
        .map(async |case| (one_case(case, backend).await, case))
        .buffer_unordered(6)
        .fold((Duration::ZERO, ""), async |worst, one| worst.max(one))
        .await;
    measured(&format!("slowest of all with {backend}, {}", slowest.1), slowest.0);
}

/// How long it took from the fault to the finding.
async fn one_case(case: &str, backend: &str) -> Duration {
    let firewall = Broken::start(backend).await;
    let before = firewall.until(&format!("{case}: all is well at first"), secs(30), &[]).await;
    let wanted = expected(case, backend).unwrap();
    firewall.make(case).await;
    let began = Instant::now();
    if wanted.is_empty() {
        firewall.stays_well(case, if full() { secs(70) } else { secs(3) }).await;
        return Duration::ZERO;
    }
    let told = firewall.until(&format!("{case}: what broke, and nothing else"), budget(case, backend), &wanted).await;
    let took = began.elapsed();
    for (name, finding) in &told {
        let is_told = wanted.iter().any(|(check, target, _)| (*check, *target) == (name.0.as_str(), name.1.as_str()));
        assert!(!is_told || finding.remedy.is_some(), "{case}: no remedy: {finding:?}");
        assert!(is_told || finding.since == before[name].since, "{case}: another finding changed: {finding:?}");
    }
    firewall.mend(case, told).await;
    println!("{case} ({backend}): told after {took:?}");
    took
}

/// A port that is shut is really shut; and open, once the rules are flushed, until they are back.
#[tokio::test]
async fn a_connection_proves_it() {
    if !is_root() {
        println!("not checked: network namespaces need root");
        return;
    }
    let firewall = Broken::start("nft").await;
    firewall.until("all is well at first", secs(30), &[]).await;
    let address: SocketAddr = "127.0.0.1:5432".parse().unwrap();
    let listener = firewall.inside(move || TcpListener::bind(address)).await.unwrap();
    let is_open = async || firewall.inside(move || TcpStream::connect_timeout(&address, ms(700))).await.is_ok();
    assert!(!is_open().await, "5432 is shut on loopback too");
    let findings = firewall.agent.findings().await;
    let postgres = findings.iter().find(|one| one.target == POSTGRES).unwrap();
    assert!(postgres.text.contains("programs of this host do not reach 127.0.0.1:5432 either"), "{postgres:?}");

    firewall.make("raw-flushed").await;
    let told = firewall
        .until("the flush is told", budget("raw-flushed", "nft"), &expected("raw-flushed", "nft").unwrap())
        .await;
    assert!(is_open().await, "5432 is open without the rules");
    let metrics = firewall.agent.metrics().await;
    let drift = r#"charliehub_agent_firewall_drift_rules{table="raw ipv4",kind="missing_live"} 5"#;
    assert!(metrics.contains(drift), "{metrics}");
    firewall.mend("raw-flushed", told).await;
    assert!(!is_open().await, "5432 is shut again");
    drop(listener);
}

/// Rules and files of one case, and the agent that looks at them.
struct Broken {
    _home: Home,
    dir: PathBuf,
    agent: Agent,
    namespace: Namespace,
}

/// As the tool made it.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.0]).status().ok();
    }
}

type Told = BTreeMap<(String, String), Finding>;

impl Broken {
    async fn start(backend: &str) -> Self {
        let home = Home::new();
        let dir = home.join("case");
        run_tool(&["--work", dir.to_str().unwrap(), "--backend", backend, "--keep", "clean"]).await;
        let env = std::fs::read_to_string(dir.join("case.env")).unwrap();
        let namespace = env.split_whitespace().find_map(|pair| pair.strip_prefix("NS=")).unwrap();
        let namespace = Namespace(namespace.to_owned());
        let timing = if full() {
            ""
        } else {
            "[timing]\nfirewall = \"2s\"\ndoubt = \"1s\"\nclear = \"1s\"\nflapping = \"10m\"\n"
        };
        let place = dir.display();
        let policy = Agent::sample_firewall();
        let settings = format!(
            "{timing}[firewall]\nrules_dir = \"{place}/iptables\"\nwants_dir = \"{place}/units\"\n\
             plugins_dir = \"{place}/plugins.d\"\ndefaults_file = \"{place}/defaults\"\n{policy}"
        );
        let agent = Agent::start_in(&home, &settings, &namespace.0).await;
        Self { _home: home, dir, namespace, agent }
    }

    async fn make(&self, case: &str) {
        run_tool(&["--into", "--work", self.dir.to_str().unwrap(), case]).await;
    }

    /// Waits until exactly these are not ok, and all others are.
    async fn until(&self, what: &str, deadline: Duration, wanted: &[(&str, &str, Status)]) -> Told {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        until(what, deadline, async || {
            let told = self.told().await;
            let mut troubles = troubles(&told);
            troubles.sort_unstable();
            if !told.is_empty() && troubles == wanted { Ok(told) } else { Err(brief(&told)) }
        })
        .await
        .0
    }

    async fn told(&self) -> Told {
        let findings = self.agent.findings().await;
        let ours = findings.into_iter().filter(|one| one.check.starts_with("firewall-"));
        ours.map(|one| ((one.check.clone(), one.target.clone()), one)).collect()
    }

    async fn stays_well(&self, case: &str, lasting: Duration) {
        let began = Instant::now();
        while began.elapsed() < lasting {
            let told = self.told().await;
            assert!(troubles(&told).is_empty(), "{case} is no drift: {:#?}", brief(&told));
            tokio::time::sleep(ms(200)).await;
        }
    }

    /// Runs the commands of the remedies, one finding after the other, until all is well.
    async fn mend(&self, case: &str, mut told: Told) {
        for _ in 0..12 {
            let bad: Vec<&Finding> = told.values().filter(|one| one.status != Good).collect();
            if bad.is_empty() {
                return;
            }
            let command = bad.iter().find(|one| one.remedy.as_deref().is_some_and(is_command) && undo(case).is_none());
            let (name, command) = match command {
                Some(one) => (Some((one.check.clone(), one.target.clone())), one.remedy.clone().unwrap()),
                None => (None, undo(case).unwrap_or_else(|| panic!("{case}: no command: {bad:#?}")).to_owned()),
            };
            let out = self.shell(&command).await;
            assert!(out.status.success(), "{case}: {command}: {}", String::from_utf8_lossy(&out.stderr));
            let again = if full() { secs(90) } else { secs(20) };
            let what = format!("{case}: mended by {command}");
            told = until(&what, again, async || {
                let told = self.told().await;
                let is_well = match &name {
                    Some(name) => told.get(name).is_none_or(|one| one.status == Good),
                    None => troubles(&told).is_empty(),
                };
                if is_well { Ok(told) } else { Err(brief(&told)) }
            })
            .await
            .0;
        }
        panic!("{case}: still not well: {:#?}", brief(&told));
    }

    async fn shell(&self, command: &str) -> Output {
        let mut shell = tokio::process::Command::new("ip");
        shell.args(["netns", "exec", &self.namespace.0, "sh", "-c", command]).current_dir(&self.dir);
        shell.stdin(Stdio::null()).output().await.unwrap()
    }

    /// Does something in a thread that is in the namespace.
    async fn inside<T: Send + 'static>(
        &self,
        action: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let namespace = format!("/run/netns/{}", self.namespace.0);
        let (done, result) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let enter = || -> std::io::Result<()> {
                let namespace = File::open(namespace)?;
                Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
            };
            done.send(enter().and_then(|()| action())).ok();
        });
        result.await.unwrap()
    }
}

fn troubles(told: &Told) -> Vec<(&str, &str, Status)> {
    let bad = told.iter().filter(|(_, one)| one.status != Good);
    bad.map(|((check, target), one)| (check.as_str(), target.as_str(), one.status)).collect()
}

fn brief(told: &Told) -> Vec<String> {
    let bad = told.values().filter(|one| one.status != Good);
    bad.map(|one| {
        format!("{} {} {}: {} => {}", one.status, one.check, one.target, one.text, one.remedy.as_deref().unwrap_or("-"))
    })
    .collect()
}

/// A remedy is a command or tells where to look.
fn is_command(remedy: &str) -> bool {
    let program = remedy.trim_start_matches('(').split(' ').next().unwrap_or_default();
    matches!(program, "sed" | "umask") || program.starts_with("iptables") || program.starts_with("ip6tables")
}

fn legacy_works() -> bool {
    let probe =
        ["-n", "sh", "-c", "iptables-legacy -t raw -S && iptables-legacy -t filter -S && iptables-legacy -t nat -S"];
    Command::new("unshare").args(probe).output().is_ok_and(|out| out.status.success())
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn tool(arguments: &[&str]) -> Output {
    Command::new(repository().join("tests/tools/iptables-case")).args(arguments).output().unwrap()
}

async fn run_tool(arguments: &[&str]) {
    let mut tool = tokio::process::Command::new(repository().join("tests/tools/iptables-case"));
    let out = tool.args(arguments).output().await.unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}
