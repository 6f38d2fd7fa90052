//! The firewall: are the rules there, do packets reach them, and will they survive a boot.
//!
//! Between what the policy wants, what the kernel has (`iptables-save` of both kinds) and what boot would restore, which is
//! proven by restoring the saved file in a throw-away network namespace. In order: `read` (facts), `rule` and `save` (what they
//! say, however it is written), `foreign` (whose they are), `reach` (who gets the packets), `diff` (what is not the same),
//! `mend` (the commands), `judge`; `native` looks for tables that iptables does not show. `watch` tells of changes before the
//! interval is over.

mod boot;
mod canonical;
pub mod cuts;
mod diff;
mod foreign;
mod judge;
mod matches;
mod mend;
mod native;
pub mod plan;
mod reach;
mod read;
mod rule;
pub(crate) mod run;
mod save;
mod watch;
mod word;

use std::{fmt, sync::Arc, time::Duration};

use charliehub_proto::{expected::Expected, policy};
use metrics::gauge;
use tokio::time::Instant;

use self::{
    canonical::{Canonical, Outcome},
    foreign::Foreign,
    judge::{Meaning, Wanted},
    read::{Programs, Saved, Side},
    rule::Services,
    save::Backend,
    watch::Watch,
};
use crate::{catalogue::Check, clock::Now, config, look::Look, metrics::DRIFT_RULES, sample::Sample};

pub const CHECKS: &[Check] = &[
    Check {
        name: judge::REQUIRED,
        what: "each rule that the policy requires is live, and the packets that it is for reach it",
        why: "A port that must be shut is open while its rule is missing, or stands behind a rule that takes its packets. Either is \
              critical, as is a rule that is in one family only and wanted in both. The remedy puts the rule where it stands among \
              its saved neighbours, or removes the rule before it; it touches no rule of Docker or fail2ban.",
    },
    Check {
        name: judge::PERSISTED,
        what: "what boot would restore is what is live, in our rules and their order",
        why: "The saved file is really restored in a throw-away network namespace and held against the live rules. A file that is \
              missing, empty or refused, and one that lacks a required rule, is critical; any other difference is a warning. \
              Chains of Docker, fail2ban, wg-quick and the like make themselves again, and are no difference. The remedy edits \
              the lines of ours: `netfilter-persistent save` would keep the chains of others too.",
    },
    Check {
        name: boot::CHECK,
        what: "the unit that restores the rules at boot is enabled, and what it runs can run",
        why: "Without it the rules are gone after the next boot: critical. A plugin that is not executable, or defaults that skip \
              saving or do not flush, are a warning.",
    },
    Check {
        name: judge::BACKEND,
        what: "all rules are in one iptables of the kernel, nft or legacy, and were saved from that one; no table of nftables beside it",
        why: "Rules in both are seen by some tools and not by others, and packets pass both: a warning. So are chains of nftables \
              that iptables does not show, but for those of programs that make them again at each start \
              (`firewall.native_tables`). They are looked for where `nft` is installed.",
    },
];

/// Of which addresses the rules are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// How the programs' names begin.
    const fn prefix(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::V4 => "rules.v4",
            Self::V6 => "rules.v6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}

/// The group.
#[derive(Debug)]
pub struct Firewall {
    settings: config::Firewall,
    foreign: Foreign,
    services: Services,
    /// What was restored last, so that nothing is restored twice.
    v4: Canonical,
    v6: Canonical,
    /// Made at the first look, within the runtime.
    watch: Option<Watch>,
    last: Option<Instant>,
    /// Something changed, and it was not looked at yet.
    is_stale: bool,
}

impl Firewall {
    pub fn new(settings: &config::Firewall) -> Self {
        Self {
            settings: settings.clone(),
            foreign: Foreign::new(settings),
            services: read::services(),
            v4: Canonical::default(),
            v6: Canonical::default(),
            watch: None,
            last: None,
            is_stale: false,
        }
    }

    /// Both families as they are, and what they must have. Nothing where the look itself failed.
    async fn seen(&mut self, policy: &policy::Firewall) -> (Vec<Side>, Vec<Wanted>) {
        let found = tokio::task::spawn_blocking(|| [Family::V4, Family::V6].map(Programs::find)).await;
        let Ok([programs4, programs6]) = found else { return (Vec::new(), Vec::new()) };
        let (v4, v6) = tokio::join!(
            read::side(&programs4, &self.settings, &self.services, &mut self.v4),
            read::side(&programs6, &self.settings, &self.services, &mut self.v6),
        );
        let sides = vec![v4, v6];
        let wanted = self.wanted(policy, [&programs4, &programs6], &sides).await;
        (sides, wanted)
    }

    /// The policy's rules in each family. What is not understood here is given to iptables.
    async fn wanted(&mut self, policy: &policy::Firewall, programs: [&Programs; 2], sides: &[Side]) -> Vec<Wanted> {
        let mut all = Vec::new();
        for (place, rule) in policy.rules.iter().enumerate() {
            for &family in judge::families(rule.family) {
                let (programs, canonical) = match family {
                    Family::V4 => (programs[0], &mut self.v4),
                    Family::V6 => (programs[1], &mut self.v6),
                };
                let rules = match meant(rule, family, &self.services) {
                    Meaning::Unsure(rules) => {
                        let declared = declared(rule, &rules, sides.iter().find(|side| side.family == family));
                        let declared: Vec<&str> = declared.iter().map(String::as_str).collect();
                        let text = (rule.table.as_str(), rule.chain.as_str(), rule.rule.as_str());
                        let printed =
                            read::wanted(programs, &self.settings, &self.services, canonical, place, text, &declared)
                                .await;
                        match printed {
                            Outcome::Printed(lines) => {
                                let lines = lines.lines().map(|line| rule::parse(line, &self.services));
                                lines
                                    .collect::<Result<Vec<_>, _>>()
                                    .map_or(Meaning::Unsure(rules), |all| Meaning::Known(all.concat()))
                            }
                            Outcome::Refused { message, .. } => Meaning::Not(message),
                            Outcome::NotPossible(_) => Meaning::Unsure(rules),
                        }
                    }
                    known @ (Meaning::Known(_) | Meaning::Not(_)) => known,
                };
                let (table, chain) = (rule.table.clone(), rule.chain.clone());
                all.push(Wanted { name: rule.name.clone(), family, table, chain, rules });
            }
        }
        all
    }
}

/// What the policy's text says, without asking iptables.
fn meant(rule: &policy::Rule, family: Family, services: &Services) -> Meaning {
    if !matches!(rule.table.as_str(), "raw" | "mangle" | "nat" | "filter" | "security") {
        return Meaning::Not(format!("there is no table `{}`", rule.table));
    }
    let rules = match rule::parse(&rule.rule, services) {
        Ok(rules) => rules,
        Err(e) => return Meaning::Not(e.to_string()),
    };
    let is_other = |net: &ipnet::IpNet| matches!(net, ipnet::IpNet::V4(_)) != (family == Family::V4);
    let other = rules.iter().flat_map(|rule| &rule.matches).find_map(|one| match &one.what {
        matches::What::Source(net) | matches::What::Destination(net) => is_other(net).then_some(net),
        matches::What::Protocol(_)
        | matches::What::In(_)
        | matches::What::Out(_)
        | matches::What::Fragment
        | matches::What::Ports(..)
        | matches::What::Other { .. } => None,
    });
    match other {
        Some(net) => Meaning::Not(format!("{net} is no {family} network")),
        None if rules.iter().any(|rule| rule.target.name.is_empty()) => Meaning::Not("it has no `-j`".to_owned()),
        None if rules.iter().all(|rule| rule.is_understood) => Meaning::Known(rules),
        None => Meaning::Unsure(rules),
    }
}

/// Chains that a rule of the policy names and that iptables must be told of.
fn declared(rule: &policy::Rule, rules: &[rule::Rule], side: Option<&Side>) -> Vec<String> {
    let is_chain = |name: &str| {
        let Some(side) = side else { return false };
        let saved = match &side.saved {
            Saved::Read { rules, .. } => rules.tables.get(&rule.table),
            Saved::Missing | Saved::Empty | Saved::Unreadable(_) | Saved::Refused { .. } => None,
        };
        let live = [Backend::Nft, Backend::Legacy].map(|of| side.live(of).rules.tables.get(&rule.table));
        live.into_iter().chain([saved]).flatten().any(|table| table.chains.contains_key(name))
    };
    let own = (!save::is_built_in(&rule.chain)).then(|| rule.chain.clone());
    let targets = rules.iter().map(|rule| rule.target.name.clone()).filter(|name| is_chain(name));
    let mut all: Vec<String> = own.into_iter().chain(targets).collect();
    all.sort_unstable();
    all.dedup();
    all
}

impl Look for Firewall {
    const NAME: &'static str = "firewall";

    async fn look(&mut self, expected: &Arc<Expected>, _now: Now) -> Vec<Sample> {
        let Some(policy) = &expected.policy.firewall else { return Vec::new() };
        let folders = vec![self.settings.rules_dir.clone(), self.settings.wants_dir.clone()];
        self.watch.get_or_insert_with(|| Watch::new(folders)).renew();
        self.last = Some(Instant::now());
        self.is_stale = false;
        let settings = self.settings.clone();
        let ((sides, wanted), boot, native) = tokio::join!(
            self.seen(policy),
            boot::read(&settings, &policy.unit),
            native::sample(&settings.native_tables),
        );
        if sides.is_empty() {
            return Vec::new();
        }
        let (mut samples, drift) = judge::judge(&sides, &wanted, &self.foreign);
        samples.push(boot::judge(&boot, &self.settings, &policy.unit));
        samples.extend(native);
        for ((table, kind), rules) in drift {
            gauge!(DRIFT_RULES, "table" => table, "kind" => kind).set(f64::from(rules));
        }
        samples
    }

    async fn wake(&mut self) {
        let Some(watch) = &self.watch else { return std::future::pending().await };
        if !self.is_stale {
            watch.changed().await;
            self.is_stale = true;
        }
        // A change is mostly several: their end is waited for, and no storm of them makes a storm of looks.
        let calm = self.last.map_or(Duration::ZERO, |last| self.settings.calm.saturating_sub(last.elapsed()));
        tokio::time::sleep(calm.max(Duration::from_millis(100))).await;
    }
}

#[cfg(test)]
mod quiet_hour;
#[cfg(test)]
mod tests;
