//! What becomes of the packets that a required rule is for: does the rule get them, or one before it.
//!
//! Walks the table as such a packet would, from the kernel's own chain on. A rule that takes all of these packets and ends
//! their way decides; one that takes only some of them, an exception, does not. A rule of the same effect that takes more is
//! as good as the required one. Pure, and bounded.

use super::{
    rule::Rule,
    save::{Chain, Table, is_built_in},
};

/// A rule of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) chain: &'a str,
    /// From 0 on.
    pub(crate) index: usize,
    pub(crate) rule: &'a Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate<'a> {
    /// The rule gets them, or one before it does the same with them.
    Holds(Place<'a>),
    /// It is there, and another takes them first.
    Shadowed { rule: Place<'a>, by: Place<'a> },
    /// It is there, in a chain that nothing leads to.
    Unreached(Place<'a>),
    /// It is not there; the rule that takes them instead, where there is one.
    Absent { taken_by: Option<Place<'a>> },
}

impl Fate<'_> {
    pub(crate) fn holds(&self) -> bool {
        matches!(self, Self::Holds(_))
    }
}

/// Follows the packets of `wanted`, which belongs into `chain`.
pub(crate) fn fate<'a>(table: Option<&'a Table>, chain: &str, wanted: &Rule) -> Fate<'a> {
    let Some(table) = table else { return Fate::Absent { taken_by: None } };
    let mut taken_by = None;
    for start in table.chains.keys().filter(|name| if is_built_in(chain) { *name == chain } else { is_built_in(name) })
    {
        match (Walk { table, chain, wanted, way: Vec::new(), left: MOST_RULES }).through(start) {
            Step::Reached(place) => return Fate::Holds(place),
            Step::Taken(by) => taken_by = taken_by.or(Some(by)),
            Step::Left => {}
        }
    }
    match (find(table, chain, wanted), taken_by) {
        (Some(rule), Some(by)) => Fate::Shadowed { rule, by },
        (Some(rule), None) => Fate::Unreached(rule),
        (None, taken_by) => Fate::Absent { taken_by },
    }
}

/// The rule itself, in its chain.
pub(crate) fn find<'a>(table: &'a Table, chain: &str, wanted: &Rule) -> Option<Place<'a>> {
    let (chain, found) = table.chains.get_key_value(chain)?;
    let index = found.rules.iter().position(|rule| rule.does_the_same_as(wanted))?;
    Some(Place { chain, index, rule: found.rules.get(index)? })
}

struct Walk<'a, 'w> {
    table: &'a Table,
    chain: &'w str,
    wanted: &'w Rule,
    /// The chains that led here.
    way: Vec<&'a str>,
    left: usize,
}

/// So many rules are looked at for one packet: chains that jump to each other could make it more than anybody can wait for.
const MOST_RULES: usize = 200_000;

enum Step<'a> {
    Reached(Place<'a>),
    Taken(Place<'a>),
    /// The end of the chain, or RETURN.
    Left,
}

impl<'a> Walk<'a, '_> {
    fn through(&mut self, name: &str) -> Step<'a> {
        let Some((name, chain)) = self.table.chains.get_key_value(name) else { return Step::Left };
        if self.way.contains(&name.as_str()) {
            return Step::Left;
        }
        self.way.push(name);
        let step = self.along(name, chain);
        self.way.pop();
        step
    }

    fn along(&mut self, name: &'a str, chain: &'a Chain) -> Step<'a> {
        for (index, rule) in chain.rules.iter().enumerate() {
            let place = Place { chain: name, index, rule };
            let Some(left) = self.left.checked_sub(1) else { return Step::Left };
            self.left = left;
            if name == self.chain && rule.does_the_same_as(self.wanted) {
                return Step::Reached(place);
            }
            let takes_all = rule.covers(self.wanted);
            if takes_all && rule.target.is_terminal() {
                let is_as_good = rule.target == self.wanted.target;
                return if is_as_good { Step::Reached(place) } else { Step::Taken(place) };
            }
            if takes_all && rule.target.name == "RETURN" {
                return Step::Left;
            }
            if self.table.chains.contains_key(&rule.target.name) {
                match self.through(&rule.target.name) {
                    Step::Reached(place) => return Step::Reached(place),
                    Step::Taken(by) if takes_all => return Step::Taken(by),
                    Step::Taken(_) | Step::Left if takes_all && rule.target.is_goto => return Step::Left,
                    Step::Taken(_) | Step::Left => {}
                }
            }
        }
        Step::Left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::firewall::{rule, save};

    const WANTED: &str = "! -s 172.16.0.0/12 -p tcp --dport 5432 -j DROP";

    /// One letter for each fate, of the wanted rule in a table with these lines.
    fn of(chain: &str, lines: &[&str]) -> char {
        let text = format!("*raw\n:PREROUTING ACCEPT\n:CH -\n:X -\n{}\nCOMMIT\n", lines.join("\n"));
        let ruleset = save::parse(&text, &rule::Services::new());
        let wanted = rule::parse(WANTED, &rule::Services::new()).unwrap();
        match fate(ruleset.tables.get("raw"), chain, &wanted[0]) {
            Fate::Holds(_) => 'h',
            Fate::Shadowed { .. } => 's',
            Fate::Unreached(_) => 'u',
            Fate::Absent { taken_by: None } => 'a',
            Fate::Absent { taken_by: Some(_) } => 't',
        }
    }

    #[test]
    fn who_gets_the_packets() {
        let wanted = format!("-A PREROUTING {WANTED}");
        let wanted = wanted.as_str();
        for (expected, lines) in [
            ('h', vec![wanted]),
            ('a', vec![]),
            ('a', vec!["-A PREROUTING ! -s 172.16.0.0/12 -p tcp --dport 5433 -j DROP"]),
            ('s', vec!["-A PREROUTING -p tcp --dport 5432 -j ACCEPT", wanted]),
            ('h', vec![wanted, "-A PREROUTING -p tcp --dport 5432 -j ACCEPT"]),
            ('t', vec!["-A PREROUTING -p tcp -j ACCEPT"]),
            ('h', vec!["-A PREROUTING -p tcp --dport 5432 -j DROP"]),
            ('h', vec!["-A PREROUTING -s 192.0.2.1 -p tcp -j ACCEPT", wanted]),
            ('h', vec!["-A PREROUTING -p tcp --dport 5432 -j LOG", wanted]),
            ('s', vec!["-A PREROUTING -j CH", "-A CH -j ACCEPT", wanted]),
            ('h', vec!["-A PREROUTING -j CH", "-A CH -j RETURN", "-A CH -j ACCEPT", wanted]),
            ('h', vec!["-A PREROUTING -i eth0 -j CH", "-A CH -j ACCEPT", wanted]),
            ('h', vec!["-A PREROUTING -j CH", "-A CH -j CH", wanted]),
            ('u', vec!["-A PREROUTING -j RETURN", wanted]),
            ('u', vec!["-A PREROUTING -g CH", wanted]),
        ] {
            assert_eq!(of("PREROUTING", &lines), expected, "{lines:?}");
        }
        let inside = format!("-A CH {WANTED}");
        let inside = inside.as_str();
        for (expected, lines) in [
            ('h', vec!["-A PREROUTING -j CH", inside]),
            ('h', vec!["-A PREROUTING -i eth0 -j X", "-A X -j CH", inside]),
            ('u', vec![inside]),
            ('s', vec!["-A PREROUTING -j ACCEPT", "-A PREROUTING -j CH", inside]),
        ] {
            assert_eq!(of("CH", &lines), expected, "{lines:?}");
        }
    }

    proptest! {
        /// Whatever stands below a rule, it gets its packets; and what refuses them above it changes nothing.
        #[test]
        fn what_comes_later_takes_nothing(later in proptest::collection::vec(any_line(), 0..6)) {
            let wanted = format!("-A PREROUTING {WANTED}");
            let mut lines = vec![wanted.as_str()];
            lines.extend(later.iter().map(String::as_str));
            prop_assert_eq!(of("PREROUTING", &lines), 'h');
            lines.insert(0, "-A PREROUTING -j DROP");
            prop_assert_eq!(of("PREROUTING", &lines), 'h');
            lines.insert(0, "-A PREROUTING -j ACCEPT");
            prop_assert_eq!(of("PREROUTING", &lines), 's');
        }
    }

    fn any_line() -> impl Strategy<Value = String> {
        "-A (PREROUTING|CH|X)( -p tcp)?( --dport 5432)?( -i eth0)? -j (ACCEPT|DROP|CH|X|RETURN|LOG)"
    }
}
