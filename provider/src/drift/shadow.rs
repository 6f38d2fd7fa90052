//! Routers of other providers that answer in the place of ours.
//!
//! Those on one entry point, both with TLS or both without, are tried by their priority; of two with the same, by the order
//! of their providers since Traefik 3.7, before by chance. A router that is for a host of ours is told as soon as it takes a
//! part of our requests; one for every host, and those that Traefik makes itself, only when it takes all of them: a path of
//! its own for every host, as for ACME, is no fault. What cannot be told of a rule is not told.

use std::collections::{BTreeMap, BTreeSet};

use charliehub_proto::{
    drift::DriftKind,
    traefik::{
        http::RuleSyntax,
        rule::{Dialect, parse},
    },
};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::{
    Found, OURS, Running, bare,
    reach::{Host, Path, Reach, Share, reaches},
    text, words,
};
use crate::compile::Section;

/// Providers that come behind ours where priorities are the same.
const BEHIND: [&str; 3] = ["zookeeper", "rest", "internal"];

/// Where a router stands among the others.
struct Standing<'a> {
    name: &'a str,
    section: Section,
    entry_points: BTreeSet<&'a str>,
    tls: bool,
    priority: Option<i64>,
}

/// A router of another provider that runs.
struct Rival<'a> {
    at: Standing<'a>,
    provider: &'a str,
    reaches: Vec<Reach>,
}

pub(super) fn shadowed(config: &Value, running: &Running) -> Vec<Found> {
    let mut found = Vec::new();
    for section in [Section::HttpRouters, Section::TcpRouters] {
        let https =
            (section == Section::TcpRouters).then(|| rivals(Section::HttpRouters, running).filter_map(Rival::by_sni));
        let rivals = Rivals::of(rivals(section, running).chain(https.into_iter().flatten()));
        if rivals.all.is_empty() {
            continue;
        }
        for runs in ours(running.list(section)) {
            let place = Standing::of(section, runs);
            found.extend(rivals.judge(&place, runs).map(|detail| place.found(config, detail)));
        }
    }
    found.extend(of_udp(config, running));
    found
}

fn ours(list: &[Value]) -> impl Iterator<Item = &Value> {
    list.iter().filter(|one| text(one, "provider") == OURS)
}

fn others(list: &[Value]) -> impl Iterator<Item = &Value> {
    list.iter().filter(|one| text(one, "provider") != OURS && text(one, "status") != "disabled")
}

fn rivals(section: Section, running: &Running) -> impl Iterator<Item = Rival<'_>> {
    others(running.list(section)).filter_map(move |runs| {
        let reaches = reaches_of(section, runs)?;
        Some(Rival { at: Standing::of(section, runs), provider: text(runs, "provider"), reaches })
    })
}

fn reaches_of(section: Section, router: &Value) -> Option<Vec<Reach>> {
    let syntax = (text(router, "ruleSyntax") == "v2").then_some(RuleSyntax::V2);
    let dialect = if section == Section::TcpRouters { Dialect::tcp(syntax) } else { Dialect::http(syntax) };
    // A child of another router is met behind its parent only.
    let is_root = words(router, "parentRefs").is_empty();
    is_root.then(|| reaches(&parse(text(router, "rule"), dialect).ok()?, dialect)).flatten()
}

/// All of them, and those that may be for a host.
struct Rivals<'a> {
    all: Vec<Rival<'a>>,
    by_host: BTreeMap<String, Vec<usize>>,
    /// Whose hosts are not a list.
    of_any: Vec<usize>,
    /// Finds one of the hosts in a rule, sooner than the rule is read; none where they are too many for that.
    hosts: Option<Regex>,
}

impl<'a> Rivals<'a> {
    fn of(rivals: impl Iterator<Item = Rival<'a>>) -> Self {
        let (all, mut by_host, mut of_any) = (rivals.collect::<Vec<_>>(), BTreeMap::<_, Vec<usize>>::new(), Vec::new());
        for (index, rival) in all.iter().enumerate() {
            let mut any = false;
            for reach in &rival.reaches {
                match &reach.host {
                    Some(Host::Exact(name)) => by_host.entry(name.clone()).or_default().push(index),
                    Some(Host::Below(_) | Host::Like(..)) | None => any = true,
                }
            }
            if any {
                of_any.push(index);
            }
        }
        let names: Vec<String> = by_host.keys().map(|name| regex::escape(name)).collect();
        let hosts = RegexBuilder::new(&names.join("|")).case_insensitive(true).build().ok();
        Self { all, by_host, of_any, hosts }
    }

    /// Whether a rule may be for one of the hosts.
    fn names(&self, rule: &str) -> bool {
        // In quotes a name can be written in many ways.
        let plain = rule.replace(r"\.", ".");
        rule.contains('"') || self.hosts.as_ref().is_none_or(|hosts| hosts.is_match(&plain))
    }

    /// Who answers in the place of ours, and why.
    fn judge(&self, ours: &Standing<'_>, runs: &Value) -> Option<String> {
        // Nearly always nobody is before it, and rules take a while.
        let mut of_any = self.of_any.iter().filter_map(|index| self.all.get(*index));
        let may_be = of_any.any(|rival| rival.goes_before(ours))
            || self.names(text(runs, "rule")) && self.all.iter().any(|rival| rival.goes_before(ours));
        if !may_be {
            return None;
        }
        let reaches = reaches_of(ours.section, runs)?;
        let hosts = reaches.iter().filter_map(|reach| match &reach.host {
            Some(Host::Exact(name)) => self.by_host.get(name),
            Some(Host::Below(_) | Host::Like(..)) | None => None,
        });
        let may_be = hosts.flatten().chain(&self.of_any).filter_map(|index| self.all.get(*index));
        let shares = may_be.filter(|rival| rival.goes_before(ours)).filter_map(|rival| {
            let share = rival.takes(&reaches);
            (share > Share::None).then_some((share, rival))
        });
        let (share, rival) = shares.max_by_key(|(share, rival)| (*share, rival.at.priority, rival.at.name))?;
        Some(rival.told(share, &reaches, ours))
    }
}

impl Rival<'_> {
    /// HTTPS for a host goes before tcp with TLS, and takes the connection before a path is known.
    fn by_sni(mut self) -> Option<Self> {
        self.reaches.retain(|reach| reach.host.is_some());
        for reach in &mut self.reaches {
            (reach.path, reach.part) = (None, false);
        }
        (self.at.tls && !self.reaches.is_empty()).then_some(self)
    }

    /// Whether Traefik tries it first.
    fn goes_before(&self, ours: &Standing<'_>) -> bool {
        let at = &self.at;
        if at.tls != ours.tls || at.entry_points.is_disjoint(&ours.entry_points) {
            return false;
        }
        if at.section != ours.section {
            return true;
        }
        match (at.priority, ours.priority) {
            (Some(theirs), Some(ours)) => theirs > ours || theirs == ours && !BEHIND.contains(&self.provider),
            _ => false,
        }
    }

    fn takes(&self, ours: &[Reach]) -> Share {
        let share = |ours: &Reach| self.reaches.iter().map(|theirs| theirs.takes(ours)).max().unwrap_or(Share::None);
        let all = ours.iter().map(share).min().unwrap_or(Share::None);
        if all == Share::All {
            return all;
        }
        let named =
            |ours: &Reach| self.reaches.iter().any(|theirs| theirs.host.is_some() && theirs.takes(ours) > Share::None);
        if self.provider != "internal" && ours.iter().any(named) { Share::Some } else { Share::None }
    }

    fn told(&self, share: Share, reaches: &[Reach], ours: &Standing<'_>) -> String {
        let what = match share {
            Share::All => "in its place".to_owned(),
            Share::Some | Share::None => format!("a part of its requests{}", self.part(reaches)),
        };
        let why = match (self.at.priority, ours.priority) {
            _ if self.at.section != ours.section => "HTTPS for a host goes before tcp".to_owned(),
            (Some(theirs), Some(ours)) if theirs > ours => format!("its priority is {theirs}, ours {ours}"),
            (_, ours) => format!(
                "both have priority {}, and Traefik prefers that provider (before 3.7 it takes either)",
                ours.unwrap_or_default()
            ),
        };
        let entry_points: Vec<&str> = self.at.entry_points.intersection(&ours.entry_points).copied().collect();
        format!(
            "router `{}` of provider {} answers {what} on {}: {why}; give ours a higher priority, or remove that one",
            self.at.name,
            self.provider,
            entry_points.join(", ")
        )
    }

    /// Which part, where it is one path.
    fn part(&self, ours: &[Reach]) -> String {
        let takes = |theirs: &&Reach| ours.iter().any(|ours| theirs.takes(ours) > Share::None);
        match self.reaches.iter().find(takes).and_then(|reach| reach.path.as_ref()) {
            Some(Path::Prefix(path)) => format!(" (below {path})"),
            Some(Path::Exact(path)) => format!(" ({path})"),
            Some(Path::Like(pattern)) => format!(" (paths like {pattern})"),
            None => String::new(),
        }
    }
}

impl<'a> Standing<'a> {
    fn of(section: Section, router: &'a Value) -> Self {
        Self {
            name: text(router, "name"),
            section,
            entry_points: words(router, "entryPoints"),
            tls: router.get("tls").is_some_and(|tls| !tls.is_null()),
            priority: router.get("priority").and_then(Value::as_i64),
        }
    }

    fn found(&self, config: &Value, detail: String) -> Found {
        Found {
            kind: DriftKind::Shadowed,
            section: self.section,
            ours: Some(self.said(config).to_owned()),
            name: self.name.to_owned(),
            detail,
        }
    }

    /// As the config calls it: without the entry point that Traefik put before it.
    fn said<'c>(&'c self, config: &'c Value) -> &'c str {
        let (top, key) = self.section.path();
        let name = bare(self.name);
        let is_said =
            |name: &str| config.get(top).and_then(|top| top.get(key)).is_some_and(|all| all.get(name).is_some());
        let starts = name.match_indices('-').map(|(at, _)| at + 1);
        std::iter::once(0).chain(starts).filter_map(|at| name.get(at..)).find(|name| is_said(name)).unwrap_or(name)
    }
}

/// Traefik takes one router of an entry point by udp: the one with the last name.
fn of_udp(config: &Value, running: &Running) -> Vec<Found> {
    let list = running.list(Section::UdpRouters);
    let rivals: Vec<Standing<'_>> = others(list).map(|runs| Standing::of(Section::UdpRouters, runs)).collect();
    let shadowed = ours(list).filter_map(|runs| {
        let place = Standing::of(Section::UdpRouters, runs);
        let before = rivals.iter().filter(|rival| rival.name > place.name);
        let beside = before.filter(|rival| !rival.entry_points.is_disjoint(&place.entry_points));
        let rival = beside.max_by_key(|rival| rival.name)?;
        let detail = format!(
            "router `{}` answers in its place: Traefik takes one router of a udp entry point, the one with the last name; \
             remove that one",
            rival.name
        );
        Some(place.found(config, detail))
    });
    shadowed.collect()
}
