//! Every fault that can be made in a tunnel is found on its own target, within its time, with a remedy that mends it; and
//! nothing else is said.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "fails as its stories do, and says what it could not check"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{Agent, Home, Lab, Site, full, measured, ms, secs};
use futures_util::{StreamExt as _, stream};

/// What must be found of a fault, in words of the table: `check status`, with `host` for the site's host.
struct Case {
    argument: Option<&'static str>,
    /// All of it, at the same time.
    found: &'static [&'static str],
    /// What may be seen too, in passing: what follows from it, sooner or later.
    passing: &'static [&'static str],
    /// From the fault to the findings; real intervals, shortened ones.
    within: [Duration; 2],
    mended_by: Mended,
}

#[derive(Clone, Copy, PartialEq)]
enum Mended {
    /// Running the remedies of its findings.
    Remedy,
    Undoing,
    /// It mends itself; then this is told of the peer.
    Itself(&'static str),
    /// There is nothing to mend.
    Nothing,
}

/// All that a site that is cut off may lead to, beside what must be found.
const CUT: &[&str] = &[
    "wg-reachable critical",
    "wg-reachable warning",
    "wg-reachable host unknown",
    "wg-reachable host warning",
    "wg-mtu unknown",
    "wg-handshake warning",
];

/// Of `edge.md`, section 6; shortened as the intervals are, with some for a machine that does much else.
const FACT: [Duration; 2] = [secs(7), secs(5)];
const LOST: [Duration; 2] = [secs(14), secs(9)];
const KEYS: [Duration; 2] = [secs(20), secs(20)];
const LOSS: [Duration; 2] = [secs(90), secs(40)];
const HOLE: [Duration; 2] = [secs(330), secs(12)];

fn case(fault: &str) -> Option<Case> {
    let case = |found, passing, within, mended_by| Case { argument: None, found, passing, within, mended_by };
    let dead = || case(&["wg-reachable critical", "wg-reachable host unknown"], CUT, LOST, Mended::Undoing);
    Some(match fault {
        "drop-underlay" | "drop-to-site" | "drop-from-site" | "kill-peer" | "endpoint-moved" | "site-lan-dead" => {
            dead()
        }
        "kill-hub" => case(
            &[
                "wg-interface critical",
                "wg-peer unknown",
                "wg-route unknown",
                "wg-handshake unknown",
                "wg-reachable unknown",
                "wg-reachable host unknown",
                "wg-mtu unknown",
            ],
            CUT,
            FACT,
            Mended::Undoing,
        ),
        // The kernel takes the routes with the link, so that the second remedy is that of the route.
        "link-down" => case(
            &[
                "wg-interface critical",
                "wg-route unknown",
                "wg-handshake unknown",
                "wg-reachable unknown",
                "wg-reachable host unknown",
                "wg-mtu unknown",
            ],
            &["wg-route critical", "wg-reachable critical", "wg-reachable warning"],
            FACT,
            Mended::Remedy,
        ),
        "wrong-key" | "remove-peer" => case(
            &["wg-peer critical", "wg-handshake unknown", "wg-reachable unknown", "wg-reachable host unknown"],
            &[
                "wg-mtu unknown",
                "wg-handshake critical",
                "wg-peer warning",
                "wg-reachable critical",
                "wg-reachable warning",
            ],
            FACT,
            Mended::Remedy,
        ),
        "wrong-own-key" => Case {
            found: &["wg-interface critical", "wg-reachable critical", "wg-reachable host unknown"],
            within: KEYS,
            ..dead()
        },
        "remove-allowed-ip" | "dup-allowed-ip" => {
            case(&["wg-peer critical", "wg-reachable host unknown"], &["wg-peer warning"], FACT, Mended::Remedy)
        }
        "keepalive-off" => case(&["wg-peer warning"], &[], FACT, Mended::Remedy),
        "remove-route" => case(&["wg-route critical", "wg-reachable host unknown"], &[], FACT, Mended::Remedy),
        "mtu-hole" => Case { argument: Some("1300"), ..case(&["wg-mtu warning"], &[], HOLE, Mended::Undoing) },
        "loss" => case(&["wg-reachable warning"], CUT, LOSS, Mended::Undoing),
        // Packets are lost until the site speaks by itself, which it does every 25 s.
        "endpoint-wrong" => case(&[], CUT, LOST, Mended::Itself(".77:51820 to ")),
        "nat-moved" => case(&[], CUT, LOST, Mended::Itself(".3:40000")),
        "recreate-hub" => case(
            &[],
            &[
                "wg-interface critical",
                "wg-peer unknown",
                "wg-route unknown",
                "wg-route critical",
                "wg-handshake unknown",
                "wg-reachable unknown",
                "wg-reachable host unknown",
                "wg-reachable warning",
                "wg-reachable host warning",
                "wg-peer critical",
                "wg-mtu unknown",
            ],
            LOST,
            Mended::Itself("it restarted"),
        ),
        // Two or three probes may be lost in the half second that it takes.
        "restart-peer" => case(&[], &["wg-reachable warning", "wg-reachable host warning"], FACT, Mended::Nothing),
        "latency" | "rate" => case(&[], &[], FACT, Mended::Nothing),
        _ => return None,
    })
}

/// The settings of a hub, whose looks follow each other sooner than real ones.
fn timing() -> &'static str {
    if full() { "" } else { "[timing]\nwireguard = \"1s\"\nmtu = \"2s\"\ndoubt = \"200ms\"\nclear = \"400ms\"\n" }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_tunnel_is_found_and_mended() {
    let faults = Lab::faults().await;
    let unknown: Vec<_> = faults.iter().filter(|fault| case(fault).is_none()).collect();
    assert!(unknown.is_empty(), "faults without an expectation: {unknown:?}");
    let home = Home::new();
    let began = Instant::now();
    let lab = Arc::new(Lab::up(&home, faults.len() - 2).await);
    measured("the lab", began.elapsed());
    let settings = lab.settings();
    let settings = if full() {
        settings
    } else {
        settings.replacen("[wireguard]\n", "[wireguard]\nprobe_timeout = \"400ms\"\nloss_window = \"20s\"\n", 1)
    };
    let agent = Arc::new(Agent::start_in(&home, &format!("{}{settings}", timing()), &lab.hub()).await);
    let all = 7 * faults.len();
    let is_well = |findings: &[Finding]| {
        let tunnels: Vec<_> = findings.iter().filter(|one| one.check.starts_with("wg-")).collect();
        tunnels.len() == all && tunnels.iter().all(|one| one.status == Status::Ok)
    };
    let patience = if full() { secs(400) } else { secs(30) };
    let (_, took) = agent.until("every site is well", patience, is_well).await;
    measured("from the start of the agent to all ok", took);
    // Live and left alone: nothing is said.
    let quiet = if full() { secs(300) } else { secs(5) };
    let left_alone = Instant::now();
    while left_alone.elapsed() < quiet {
        let findings = agent.findings().await;
        assert!(is_well(&findings), "{findings:?}");
        tokio::time::sleep(ms(200)).await;
    }
    let metrics = agent.metrics().await;
    let sites = lab.sites().to_vec();
    for name in ["latest_handshake_seconds", "transfer_bytes_total", "reachable", "rtt_seconds"] {
        let series =
            metrics.lines().filter(|line| line.starts_with(&format!("charliehub_agent_wireguard_{name}{{"))).count();
        let expected = if name == "transfer_bytes_total" { 2 * sites.len() } else { sites.len() };
        assert_eq!(series, expected, "wireguard_{name}");
    }
    // Those that wait for the site to speak begin, and the others go on beside them.
    let (slow, quick): (Vec<_>, Vec<_>) = faults
        .into_iter()
        .partition(|fault| matches!(fault.as_str(), "endpoint-wrong" | "nat-moved" | "loss" | "mtu-hole"));
    let cases = slow.into_iter().chain(quick).zip(sites).map(|(fault, site)| {
        let (lab, agent) = (lab.clone(), agent.clone());
        async move {
            let case = case(&fault).expect("asked above");
            Story { lab, agent, fault, site, case, seen: Mutex::default() }.play().await
        }
    });
    let wrong: Vec<String> = stream::iter(cases).buffer_unordered(10).filter_map(async |wrong| wrong).collect().await;
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), agent.log());
    agent.until("every site is well again", patience, is_well).await;
    measured("all of it", began.elapsed());
}

/// One fault at one site.
struct Story {
    lab: Arc<Lab>,
    agent: Arc<Agent>,
    fault: String,
    site: Site,
    case: Case,
    /// Every finding that was not ok, as the table has it.
    seen: Mutex<BTreeSet<String>>,
}

impl Story {
    /// What was wrong; none when all was as it should be.
    async fn play(self) -> Option<String> {
        let wrong = self.told().await.err();
        let expected: BTreeSet<String> =
            self.case.found.iter().chain(self.case.passing).map(|one| (*one).to_owned()).collect();
        let seen = self.seen.into_inner().expect("no panic");
        let surprises: Vec<_> = seen.difference(&expected).cloned().collect();
        let surprises = (!surprises.is_empty()).then(|| format!("said beside it: {}", surprises.join(", ")));
        let wrong: Vec<String> = [wrong, surprises].into_iter().flatten().collect();
        (!wrong.is_empty()).then(|| format!("{} at {}: {}", self.fault, self.site.name, wrong.join("; ")))
    }

    async fn told(&self) -> Result<(), String> {
        let Case { argument, found, within, mended_by, .. } = &self.case;
        if !self.lab.fault(&self.fault, &self.site.name, *argument).await {
            println!("{}: this kernel cannot, NOT CHECKED", self.fault);
            return Ok(());
        }
        let within = within[usize::from(!full())];
        let is_found = |bad: &BTreeMap<String, Finding>| found.iter().all(|one| bad.contains_key(*one));
        if !found.is_empty() {
            let (bad, took) = self.until("the findings", within, |_, bad| is_found(bad)).await?;
            measured(&format!("{} found", self.fault), took);
            if let Some((what, _)) = bad.iter().find(|(_, finding)| finding.remedy.is_none()) {
                return Err(format!("{what} without a remedy"));
            }
        }
        let well = if full() { secs(360) } else { secs(40) };
        match mended_by {
            Mended::Undoing => {
                self.lab.undo(&self.site.name).await;
                let (_, took) = self.until("all well when undone", well, |_, bad| bad.is_empty()).await?;
                measured(&format!("{} ok again", self.fault), took);
            }
            Mended::Remedy => {
                self.mend(well).await?;
                self.lab.undo(&self.site.name).await;
                self.until("all well when undone too", well, |_, bad| bad.is_empty()).await?;
            }
            Mended::Itself(news) => {
                let told = |all: &[Finding]| all.iter().any(|one| one.check == "wg-peer" && one.text.contains(news));
                let (_, took) = self.until(news, secs(60), |all, bad| bad.is_empty() && told(all)).await?;
                measured(&format!("{} told and well", self.fault), took);
                self.lab.undo(&self.site.name).await;
                tokio::time::sleep(secs(2)).await;
                self.until("all well when undone", secs(60), |_, bad| bad.is_empty()).await?;
            }
            Mended::Nothing => {
                let quiet = if full() { secs(60) } else { secs(6) };
                self.until("nothing is said", quiet, |_, _| false).await.ok();
                self.lab.undo(&self.site.name).await;
                self.until("all well when undone", well, |_, bad| bad.is_empty()).await?;
            }
        }
        Ok(())
    }

    /// Runs the remedies of what is broken, and of what comes to light behind it.
    async fn mend(&self, patience: Duration) -> Result<(), String> {
        let mut ran = BTreeSet::new();
        let began = Instant::now();
        loop {
            let bad = self.bad(&self.agent.findings().await);
            if bad.is_empty() && !ran.is_empty() {
                measured(&format!("{} mended by its remedy", self.fault), began.elapsed());
                return Ok(());
            }
            for (what, finding) in &bad {
                let is_broken = matches!(finding.status, Status::Critical | Status::Warning);
                let remedy = finding.remedy.clone().unwrap_or_default();
                let is_command = ["ip ", "wg "].iter().any(|command| remedy.starts_with(command));
                if is_broken && is_command && !what.starts_with("wg-reachable") && ran.insert(remedy.clone()) {
                    self.lab.on_hub(&remedy).await;
                }
            }
            if began.elapsed() > patience {
                return Err(format!("not mended by {ran:?}: {:?}", bad.keys()));
            }
            tokio::time::sleep(ms(100)).await;
        }
    }

    /// Waits for what the site's findings that are not ok must become.
    async fn until(
        &self,
        what: &str,
        deadline: Duration,
        right: impl Fn(&[Finding], &BTreeMap<String, Finding>) -> bool,
    ) -> Result<(BTreeMap<String, Finding>, Duration), String> {
        let began = Instant::now();
        loop {
            let all: Vec<Finding> = self.agent.findings().await.into_iter().filter(|one| self.is_mine(one)).collect();
            let bad = self.bad(&all);
            if right(&all, &bad) {
                return Ok((bad, began.elapsed()));
            }
            if began.elapsed() > deadline {
                let last: Vec<String> =
                    bad.iter().map(|(what, finding)| format!("{what} ({})", finding.text)).collect();
                return Err(format!("not within {deadline:?}: {what}; last seen: {}", last.join(", ")));
            }
            tokio::time::sleep(ms(50)).await;
        }
    }

    fn is_mine(&self, finding: &Finding) -> bool {
        finding.site.as_deref() == Some(self.site.name.as_str())
    }

    /// The site's findings that are not ok, by what the table calls them.
    fn bad(&self, findings: &[Finding]) -> BTreeMap<String, Finding> {
        let bad = findings.iter().filter(|one| self.is_mine(one) && one.status != Status::Ok);
        let bad: BTreeMap<_, _> = bad.map(|one| (self.call(one), one.clone())).collect();
        self.seen.lock().expect("no panic").extend(bad.keys().cloned());
        bad
    }

    /// `check status`, where the target is the one that it should be; else with the target.
    fn call(&self, finding: &Finding) -> String {
        let Finding { check, target, status, .. } = finding;
        let Site { interface, network, host, .. } = &self.site;
        match (check.as_str(), target) {
            ("wg-route", target) if target == network => format!("{check} {status}"),
            ("wg-reachable", target) if *target == format!("{interface} {host}") => format!("{check} host {status}"),
            (_, target) if check != "wg-route" && target == interface => format!("{check} {status}"),
            _ => format!("{check} {target} {status}"),
        }
    }
}
