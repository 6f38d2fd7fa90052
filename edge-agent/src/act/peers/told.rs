//! A plan, as people read it. Pure.

use std::{collections::BTreeSet, fmt::Display, net::SocketAddr};

use ipnet::IpNet;

use super::plan::{Altered, Diff, Plan, Step};

/// So many changes are told in a finding.
const TOLD: usize = 3;

impl Plan {
    /// A line for each change, in columns.
    pub(crate) fn lines(&self) -> Vec<String> {
        let name = |step: &Step| step.name.clone().unwrap_or_default();
        let widest = self.steps.iter().map(|step| name(step).chars().count()).max().unwrap_or(0);
        let line = |step: &Step| format!("{} peer {:<widest$}  {}  {}", step.sign(), name(step), step.key, step.rest());
        self.steps.iter().map(line).collect()
    }

    /// The same shortened, in a sentence.
    pub(crate) fn brief(&self) -> String {
        let told: Vec<String> = self.steps.iter().take(TOLD).map(Step::brief).collect();
        let more = self.steps.len().saturating_sub(TOLD);
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        told.join("; ") + &more
    }

    /// What each step leads to, whatever was before.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = String> {
        self.steps.iter().map(|step| {
            let becomes = match &step.diff {
                Diff::Remove { .. } => "removed".to_owned(),
                Diff::Add { .. } => "added".to_owned(),
                Diff::Change(altered) => {
                    let Altered { before, after, keepalive, endpoint, .. } = &**altered;
                    let allowed = (before != after).then(|| list(after));
                    format!("{allowed:?} {:?} {:?}", keepalive.map(|both| both.1), endpoint.map(|both| both.1))
                }
            };
            format!("peer {} {becomes}", step.key)
        })
    }
}

impl Step {
    pub(crate) fn sign(&self) -> char {
        match self.diff {
            Diff::Remove { .. } => '-',
            Diff::Add { .. } => '+',
            Diff::Change(_) => '~',
        }
    }

    fn brief(&self) -> String {
        let who = match (&self.name, &self.diff) {
            (Some(name), Diff::Change(_)) => format!("{name}:"),
            (Some(name), _) => format!("{name} {}", self.key),
            (None, Diff::Change(_)) => format!("{}:", self.key),
            (None, _) => self.key.to_string(),
        };
        format!("{} peer {who} {}", self.sign(), self.rest())
    }

    /// What there is, or what changes.
    pub(crate) fn rest(&self) -> String {
        match &self.diff {
            Diff::Remove { allowed } => format!("allowed {}", list(allowed)),
            Diff::Add { allowed, keepalive, endpoint } => {
                let keepalive = if *keepalive == 0 { String::new() } else { format!(" keepalive {keepalive}") };
                let endpoint = endpoint.map(|endpoint| format!(" endpoint {endpoint}")).unwrap_or_default();
                format!("allowed {}{keepalive}{endpoint}", list(allowed))
            }
            Diff::Change(altered) => {
                let Altered { before, after, keepalive, endpoint, .. } = &**altered;
                let signed = |sign: char, one: &IpNet| format!(" {sign}{one}");
                let lost = before.difference(after).map(|one| signed('-', one));
                let allowed: String = lost.chain(after.difference(before).map(|one| signed('+', one))).collect();
                let allowed = Some(format!("allowed IPs{allowed}")).filter(|_| before != after);
                let keepalive = keepalive.map(|(old, new)| format!("keepalive {old} -> {new}"));
                let nowhere = |old: Option<SocketAddr>| old.map_or_else(|| "none".to_owned(), |old| old.to_string());
                let endpoint = endpoint.map(|(old, new)| format!("endpoint {} -> {new}", nowhere(old)));
                [allowed, keepalive, endpoint].into_iter().flatten().collect::<Vec<_>>().join(", ")
            }
        }
    }
}

pub(crate) fn list<T: Display>(all: &BTreeSet<T>) -> String {
    if all.is_empty() {
        return "none".to_owned();
    }
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::{
        super::plan::{Want, plan},
        *,
    };
    use crate::wireguard::facts::{Device, Key, Peer};

    fn nets(all: &[&str]) -> BTreeSet<IpNet> {
        all.iter().map(|one| one.parse().unwrap()).collect()
    }

    #[test]
    fn a_plan_reads_as_a_diff() {
        let want = |name: &str, byte: u8, allowed: &[&str], keepalive, endpoint: Option<&str>| Want {
            name: name.to_owned(),
            key: Key([byte; 32]),
            allowed: nets(allowed),
            may_have: nets(&[]),
            keepalive,
            endpoint: endpoint.map(|one| one.parse().unwrap()),
            is_fixed: true,
        };
        let has = |byte: u8, allowed: &[&str]| Peer { allowed_ips: nets(allowed), ..Peer::new(Key([byte; 32])) };
        let wants = [
            want("anna-laptop", 3, &["10.99.0.7/32"], 0, None),
            want("uk", 2, &["10.44.0.0/16"], 25, Some("198.51.100.2:51820")),
        ];
        let device = Device { peers: vec![has(1, &["10.99.0.8/32"]), has(2, &["10.1.0.0/16"])], ..Device::default() };
        let plan = plan(&wants, &device, &[], |_| true);
        let [one, two, three] = [1_u8, 2, 3].map(|byte| Key([byte; 32]));
        let change = "allowed IPs -10.1.0.0/16 +10.44.0.0/16, keepalive 0 -> 25, endpoint none -> 198.51.100.2:51820";
        assert_eq!(
            plan.lines(),
            [
                format!("- peer              {one}  allowed 10.99.0.8/32"),
                format!("~ peer uk           {two}  {change}"),
                format!("+ peer anna-laptop  {three}  allowed 10.99.0.7/32"),
            ]
        );
        assert_eq!(
            plan.brief(),
            format!(
                "- peer {one} allowed 10.99.0.8/32; ~ peer uk: {change}; + peer anna-laptop {three} allowed 10.99.0.7/32"
            )
        );
    }
}
