//! Where the live rules of a table and those that boot would restore differ, chain by chain, in our rules only.
//!
//! The order of rules counts: a rule that is on both sides in another place was moved. Pure.

use std::collections::BTreeSet;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::{
    foreign::Foreign,
    rule::{Identity, Rule},
    save::{Table, is_built_in},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Difference<'a> {
    pub(crate) chain: &'a str,
    pub(crate) kind: Kind<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// What becomes of packets that no rule takes.
    Policy {
        live: &'a str,
        saved: &'a str,
    },
    /// Gone after the next boot.
    NotSaved {
        rule: &'a Rule,
        live_at: usize,
    },
    /// Comes back at the next boot.
    NotLive {
        rule: &'a Rule,
        saved_at: usize,
    },
    Moved {
        rule: &'a Rule,
        live_at: usize,
        saved_at: usize,
    },
}

/// A chain on both sides: which of our rules is which.
#[derive(Debug, Default)]
pub(crate) struct Alignment<'a> {
    /// Places of the same rule, live and saved, in order.
    pub(crate) same: Vec<(usize, usize)>,
    pub(crate) differences: Vec<Kind<'a>>,
}

/// All differences of a table that is called `name`.
pub(crate) fn differences<'a>(name: &str, live: &'a Table, saved: &'a Table, foreign: &Foreign) -> Vec<Difference<'a>> {
    let chains: BTreeSet<&str> = live.chains.keys().chain(saved.chains.keys()).map(String::as_str).collect();
    let mut all = Vec::new();
    for chain in chains.into_iter().filter(|chain| !foreign.has_chain(chain)) {
        let policies = (live.policy(chain), saved.policy(chain));
        if is_built_in(chain) && policies.0 != policies.1 && !foreign.has_policy(name, chain, live) {
            all.push(Difference { chain, kind: Kind::Policy { live: policies.0, saved: policies.1 } });
        }
        let aligned = align(name, chain, live.rules(chain), saved.rules(chain), foreign);
        all.extend(aligned.differences.into_iter().map(|kind| Difference { chain, kind }));
    }
    all
}

/// Holds the rules of one chain against each other.
pub(crate) fn align<'a>(
    table: &str,
    chain: &str,
    live: &'a [Rule],
    saved: &'a [Rule],
    foreign: &Foreign,
) -> Alignment<'a> {
    let ours = |rules: &'a [Rule]| -> Vec<(usize, &'a Rule)> {
        rules.iter().enumerate().filter(|(_, rule)| !foreign.has_rule(table, chain, rule)).collect()
    };
    let (live, saved) = (ours(live), ours(saved));
    let identities =
        |rules: &[(usize, &'a Rule)]| -> Vec<Identity<'a>> { rules.iter().map(|(_, rule)| rule.identity()).collect() };
    let mut aligned = Alignment::default();
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    for step in capture_diff_slices(Algorithm::Myers, &identities(&live), &identities(&saved)) {
        let (old, fresh) = (step.old_range(), step.new_range());
        if let DiffOp::Equal { .. } = step {
            let pairs = old.zip(fresh);
            aligned.same.extend(pairs.filter_map(|(at, of)| Some((live.get(at)?.0, saved.get(of)?.0))));
        } else {
            gone.extend(live.get(old).unwrap_or_default());
            new.extend(saved.get(fresh).unwrap_or_default());
        }
    }
    for (live_at, rule) in gone {
        let moved = new.iter().position(|(_, other)| other.identity() == rule.identity());
        aligned.differences.push(match moved.map(|at| new.remove(at)) {
            Some((saved_at, rule)) => Kind::Moved { rule, live_at, saved_at },
            None => Kind::NotSaved { rule, live_at },
        });
    }
    aligned.differences.extend(new.into_iter().map(|(saved_at, rule)| Kind::NotLive { rule, saved_at }));
    aligned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config,
        firewall::{rule, save},
    };

    fn table(lines: &[String]) -> Table {
        let text = format!("*filter\n{}\nCOMMIT\n", lines.join("\n"));
        save::parse(&text, &rule::Services::new()).tables.remove("filter").unwrap()
    }

    /// `-` gone at boot, `+` back at boot, `~` moved, `p` policy, each with its place.
    fn found(live: &[&str], saved: &[&str]) -> Vec<String> {
        let own = |lines: &[&str]| table(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        let (live, saved) = (own(live), own(saved));
        let foreign = Foreign::new(&config::Firewall::default());
        let all = differences("filter", &live, &saved, &foreign);
        all.iter()
            .map(|difference| match difference.kind {
                Kind::Policy { live, saved } => format!("p {live} {saved}"),
                Kind::NotSaved { live_at, .. } => format!("- {live_at}"),
                Kind::NotLive { saved_at, .. } => format!("+ {saved_at}"),
                Kind::Moved { live_at, saved_at, .. } => format!("~ {live_at} {saved_at}"),
            })
            .collect()
    }

    #[test]
    fn what_differs() {
        let (a, b, c) = ("-A INPUT -i a -j DROP", "-A INPUT -i b -j DROP", "-A INPUT -i c -j DROP");
        let jump = "-A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd";
        for (live, saved, expected) in [
            (vec![a, b], vec![a, b], vec![]),
            (vec![b], vec![a, b], vec!["+ 0"]),
            (vec![a, b], vec![b], vec!["- 0"]),
            (vec![b, a], vec![a, b], vec!["~ 1 0"]),
            (vec![jump, a, b], vec![a, b], vec![]),
            (vec![a, b], vec![jump, a, c, b], vec!["+ 2"]),
            (vec![jump, a, c, b], vec![a, b], vec!["- 2"]),
            (vec![":INPUT DROP", a], vec![":INPUT ACCEPT", a], vec!["p DROP ACCEPT"]),
            (vec![":INPUT ACCEPT", a], vec![":INPUT - [0:0]", a], vec![]),
            (vec![":f2b-sshd -", "-A f2b-sshd -j RETURN"], vec![], vec![]),
            (vec!["-A INPUT -j DROP -m comment --comment x"], vec!["-A INPUT -j DROP"], vec!["- 0", "+ 0"]),
        ] {
            assert_eq!(found(&live, &saved), expected, "live {live:?} saved {saved:?}");
        }
    }

    proptest! {
        /// What is said to be the same is in order on both sides, and every rule is said something of.
        #[test]
        fn each_rule_is_accounted_for(live in rules(), saved in rules()) {
            let foreign = Foreign::new(&config::Firewall::default());
            let (live, saved) = (table(&live), table(&saved));
            let (live, saved) = (live.rules("INPUT"), saved.rules("INPUT"));
            let aligned = align("filter", "INPUT", live, saved, &foreign);
            prop_assert!(aligned.same.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
            let mut lives: Vec<usize> = aligned.same.iter().map(|(at, _)| *at).collect();
            let mut saves: Vec<usize> = aligned.same.iter().map(|(_, at)| *at).collect();
            for kind in &aligned.differences {
                match kind {
                    Kind::NotSaved { live_at, .. } => lives.push(*live_at),
                    Kind::NotLive { saved_at, .. } => saves.push(*saved_at),
                    Kind::Moved { live_at, saved_at, .. } => { lives.push(*live_at); saves.push(*saved_at); }
                    Kind::Policy { .. } => {}
                }
            }
            lives.sort_unstable();
            saves.sort_unstable();
            prop_assert_eq!(lives, (0..live.len()).collect::<Vec<_>>());
            prop_assert_eq!(saves, (0..saved.len()).collect::<Vec<_>>());
        }
    }

    fn rules() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec("-A INPUT -i [a-e] -j (DROP|ACCEPT)", 0..9)
    }
}
