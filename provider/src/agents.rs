//! What the agents told, and whether they still do; beside it what the provider itself finds.
//!
//! Between `api`, which takes reports, and who looks: `/api/agents`, `/debug` and `/metrics`. [`store`] keeps a report in the
//! database, once, and finds what changed; [`Agents`] has in memory what is there, so that it is known without a database too;
//! [`watch`] notices one that went silent.

pub mod store;
pub mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use charliehub_proto::{
    agent::AgentStatus,
    debug,
    finding::{Finding, Status},
    report::Endpoint,
};
use jiff::{SignedDuration, Timestamp};

use crate::metrics as name;

/// The check of ours: the agent reports.
pub const SILENT: &str = "agent-silent";
/// With more findings than this only those that are not ok are a metric.
const SERIES: usize = 1000;

/// An agent as the database has it.
#[derive(Clone, Debug)]
struct Known {
    version: String,
    first_seen: Timestamp,
    last_report: Timestamp,
    reported_at: Timestamp,
    expected: Option<String>,
    lost: i64,
    /// When the last report came, by our clock.
    heard: Instant,
    findings: Arc<Vec<Finding>>,
    endpoints: Vec<Endpoint>,
}

/// All agents that ever reported.
#[derive(Debug)]
pub struct Agents {
    silent_after: Duration,
    known: Mutex<BTreeMap<String, Known>>,
    /// What the provider itself finds.
    own: Mutex<Vec<debug::Finding>>,
    /// One reads at a time, so that nothing older comes after it.
    reading: tokio::sync::Mutex<()>,
    /// Since when reports can come: nobody is silent before.
    hearing: Mutex<Instant>,
}

impl Agents {
    pub fn new(silent_after: Duration) -> Self {
        Self {
            silent_after,
            known: Mutex::default(),
            own: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            hearing: Mutex::new(Instant::now()),
        }
    }

    /// Reports could not come until now.
    fn hears_again(&self, now: Instant) {
        *self.hearing.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn is_silent(&self, known: &Known, now: Instant) -> bool {
        let hearing = *self.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(known.heard.max(hearing)) > self.silent_after
    }

    /// What is known of each agent. `named` are those that sites, policies or peers name: they may never have reported.
    pub fn statuses(&self, named: BTreeSet<String>, now: Instant) -> Vec<AgentStatus> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let all: BTreeSet<String> = known.keys().cloned().chain(named).collect();
        all.into_iter().map(|name| self.status(known.get(&name), name, now)).collect()
    }

    fn status(&self, known: Option<&Known>, name: String, now: Instant) -> AgentStatus {
        let Some(known) = known else {
            return AgentStatus {
                name,
                version: None,
                first_seen: None,
                last_report: None,
                reported_at: None,
                age_seconds: None,
                silent: false,
                status: Status::Unknown,
                expected: None,
                expected_current: None,
                expected_revision: None,
                lost: 0,
                findings: Vec::new(),
                endpoints: Vec::new(),
            };
        };
        let age = now.saturating_duration_since(known.heard);
        let silent = self.is_silent(known, now);
        let mut findings = Vec::clone(&known.findings);
        if silent {
            findings.insert(0, silence(&name, known, age));
        }
        AgentStatus {
            version: Some(known.version.clone()),
            first_seen: Some(known.first_seen),
            last_report: Some(known.last_report),
            reported_at: Some(known.reported_at),
            age_seconds: Some(age.as_secs_f64()),
            silent,
            status: findings.iter().map(|finding| finding.status).max().unwrap_or_default(),
            expected: known.expected.clone(),
            expected_current: None,
            expected_revision: None,
            lost: known.lost,
            findings,
            endpoints: known.endpoints.clone(),
            name,
        }
    }

    /// Where the packets of each agent's sites come from, by the name of the agent. Not of one that is silent: it may have
    /// changed.
    pub fn endpoints(&self, now: Instant) -> Vec<(String, Endpoint)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = known.iter().filter(|(_, agent)| !self.is_silent(agent, now));
        let each = |(name, agent): (&String, &Known)| -> Vec<_> {
            agent.endpoints.iter().map(|endpoint| (name.clone(), endpoint.clone())).collect()
        };
        heard.flat_map(each).collect()
    }

    /// What is not as it should be, and what the agents did themselves within a day, for the operators' page.
    pub fn troubles(&self, now: Instant) -> Vec<debug::Finding> {
        let yesterday = Timestamp::now() - SignedDuration::from_hours(24);
        let of = |agent: AgentStatus| {
            let is_told = move |finding: &Finding| {
                finding.status != Status::Ok || finding.action.as_ref().is_some_and(|action| action.at > yesterday)
            };
            agent.findings.into_iter().filter(is_told).map(move |finding| debug::Finding {
                agent: agent.name.clone(),
                check: finding.check,
                target: finding.target,
                site: finding.site,
                status: finding.status,
                text: finding.text,
                since: Some(finding.since),
                remedy: finding.remedy,
                action: finding.action,
            })
        };
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.statuses(BTreeSet::new(), now).into_iter().flat_map(of).chain(own).collect()
    }

    /// What the provider itself finds now that is not ok.
    pub fn found(&self, findings: Vec<debug::Finding>) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = findings;
    }

    /// The lines of `/metrics`. Written here, since a series of a recorder would stay when its target is gone.
    pub fn metrics(&self, now: Instant) -> String {
        let agents = self.statuses(BTreeSet::new(), now);
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if agents.is_empty() && own.is_empty() {
            return String::new();
        }
        let mut text = format!("# HELP {0} Time since the last report\n# TYPE {0} gauge\n", name::AGENT_REPORT_AGE);
        for agent in &agents {
            let age = agent.age_seconds.unwrap_or_default();
            line(&mut text, name::AGENT_REPORT_AGE, &[("agent", &agent.name)], &format!("{age:.3}"));
        }
        let help = "0 ok, 1 warning, 2 critical, 3 unknown; of many only those that are not ok";
        let _: std::fmt::Result = write!(text, "# HELP {0} {help}\n# TYPE {0} gauge\n", name::AGENT_FINDING);
        let many = agents.iter().map(|agent| agent.findings.len()).sum::<usize>() > SERIES;
        for agent in &agents {
            if !agent.silent {
                let labels = [("agent", &*agent.name), ("check", SILENT), ("target", &*agent.name)];
                line(&mut text, name::AGENT_FINDING, &labels, "0");
            }
            for finding in agent.findings.iter().filter(|finding| !many || finding.status != Status::Ok) {
                let labels = [("agent", &*agent.name), ("check", &*finding.check), ("target", &*finding.target)];
                line(&mut text, name::AGENT_FINDING, &labels, &finding.status.code().to_string());
            }
        }
        for finding in &own {
            let labels = [("agent", &*finding.agent), ("check", &*finding.check), ("target", &*finding.target)];
            line(&mut text, name::AGENT_FINDING, &labels, &finding.status.code().to_string());
        }
        text
    }
}

/// One sample in Prometheus' text format.
fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: &str) {
    text.push_str(name);
    for (at, (label, of)) in labels.iter().enumerate() {
        text.push(if at == 0 { '{' } else { ',' });
        let of = of.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        // Writing to a string does not fail.
        let _: std::fmt::Result = write!(text, "{label}=\"{of}\"");
    }
    let _: std::fmt::Result = writeln!(text, "}} {value}");
}

/// That an agent does not report, as a finding.
fn silence(agent: &str, known: &Known, age: Duration) -> Finding {
    let minutes = age.as_secs() / 60;
    let ago = if minutes < 2 { format!("{} s", age.as_secs()) } else { format!("{minutes} min") };
    Finding {
        check: SILENT.to_owned(),
        target: agent.to_owned(),
        site: None,
        status: Status::Critical,
        text: format!("agent {agent} has not reported for {ago}; its findings are that old"),
        observed: Some(format!("last report {}", known.last_report)),
        expected: None,
        source: None,
        remedy: Some(
            "on its host: systemctl status charliehub-edge-agent; one that is no more: charliehub-provider agents rm NAME".to_owned(),
        ),
        action: None,
        since: known.last_report,
        seen: Timestamp::now(),
    }
}

#[cfg(test)]
mod tests;
