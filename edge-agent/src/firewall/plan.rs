//! What would make the required rules live and saved, and nothing else: the steps of `policy plan`.
//!
//! Adds rules of the policy; never removes, moves or saves a rule of somebody else. A rule that stands behind one that takes its
//! packets is put before it once more. What is added carries [`MARK`], so that taking it away again takes nothing else. Pure,
//! but for the saved file, which is read again for its text.

use super::{
    Family, Firewall, diff,
    foreign::Foreign,
    judge::{Meaning, Wanted},
    mend::{self, Place},
    reach::{self, Fate},
    read::{Saved, Side},
    rule::Rule,
    save::{self, Backend, Ruleset, Table},
};
use crate::config;

/// The comment of each rule that was added.
pub const MARK: &str = "charliehub-harden";

/// A command that changes the live rules, and one that takes that back: both for a shell of root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub what: String,
    pub command: String,
    pub undo: String,
}

/// What a step is not for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub what: String,
    pub remedy: String,
}

/// One family's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub family: &'static str,
    pub live: Vec<Step>,
    /// Tables of nftables that the steps make: family and name.
    pub tables: Vec<(&'static str, String)>,
    /// The saved file and how it must read; None when it is right.
    pub file: String,
    pub saved: Option<String>,
    pub left: Vec<Left>,
    /// Restoring the saved file now would change nothing that is live.
    pub is_restored: bool,
}

/// What is added at which place of a chain.
struct Added {
    table: String,
    chain: String,
    at: usize,
    line: String,
}

pub(super) fn plan(side: &Side, all: &[Wanted], foreign: &Foreign, text: &str) -> Plan {
    let (family, prefix) = match side.family {
        Family::V4 => ("ipv4", "ip"),
        Family::V6 => ("ipv6", "ip6"),
    };
    let mut plan = Plan {
        family,
        live: Vec::new(),
        tables: Vec::new(),
        file: side.file.display().to_string(),
        saved: None,
        left: Vec::new(),
        is_restored: is_restored(side),
    };
    let wanted: Vec<&Wanted> = all.iter().filter(|wanted| wanted.family == side.family).collect();
    let mut added: Vec<Added> = Vec::new();
    for one in &wanted {
        for rule in rules(one, side, &mut plan) {
            live(side, one, rule, all, foreign, &mut plan, &mut added);
        }
    }
    if side.backend() == Backend::Nft {
        let known = &side.live(Backend::Nft).rules.tables;
        for one in added.iter().filter(|one| !known.contains_key(&one.table)) {
            let table = (prefix, one.table.clone());
            if !plan.tables.contains(&table) {
                plan.tables.push(table);
            }
        }
    }
    saved(side, &wanted, all, foreign, text, &mut plan);
    plan
}

/// The rules of one that is understood and can be judged here.
fn rules<'a>(wanted: &'a Wanted, side: &Side, plan: &mut Plan) -> &'a [Rule] {
    let live = side.live(side.backend());
    let name = &wanted.name;
    match &wanted.rules {
        Meaning::Not(why) => {
            plan.left.push(left(name, why, "correct the rule in the policy: it is what follows `iptables -A CHAIN`"));
            &[]
        }
        Meaning::Known(rules) | Meaning::Unsure(rules) => match &live.cut {
            Some(why) if !live.rules.tables.contains_key(&wanted.table) => {
                let remedy = "see `charliehub-edge-agent check` for what hides the table";
                plan.left.push(left(name, &format!("table {} cannot be read: {why}", wanted.table), remedy));
                &[]
            }
            _ => rules,
        },
    }
}

fn left(name: &str, why: &str, remedy: &str) -> Left {
    Left { what: format!("rule `{name}`: {why}"), remedy: remedy.to_owned() }
}

fn live(
    side: &Side,
    wanted: &Wanted,
    rule: &Rule,
    all: &[Wanted],
    foreign: &Foreign,
    plan: &mut Plan,
    added: &mut Vec<Added>,
) {
    let Wanted { name, table, chain, .. } = wanted;
    let backend = side.backend();
    let of = |backend| side.live(backend).rules.tables.get(table);
    let fates = [backend, backend.other()].map(|backend| reach::fate(of(backend), chain, rule));
    if fates.iter().any(Fate::holds) {
        return;
    }
    let rules = of(backend).map_or(&[][..], |table| table.rules(chain));
    let [fate, _] = fates;
    let at = match fate {
        Fate::Holds(_) => return,
        Fate::Unreached(_) => {
            plan.left.push(left(name, &format!("no packet gets to chain {chain}"), "add the jump to it"));
            return;
        }
        Fate::Absent { .. } if matches!(wanted.rules, Meaning::Unsure(_)) => {
            let remedy = format!("write the policy's rule as `{}-save` prints it", side.program(backend));
            plan.left.push(left(name, "whether it is live cannot be told", &remedy));
            return;
        }
        Fate::Shadowed { by, .. } | Fate::Absent { taken_by: Some(by) } if by.chain != chain.as_str() => 0,
        Fate::Shadowed { by, .. } => by.index,
        Fate::Absent { .. } => super::judge::place_live(side, wanted, rule, all, foreign, rules),
    };
    let program = side.program(backend);
    let place = Place { program: &program, table, file: &side.file };
    let is_there = save::is_built_in(chain)
        || of(backend).is_some_and(|table| table.chains.contains_key(chain))
        || added.iter().any(|one| (&one.table, &one.chain) == (table, chain));
    if !is_there {
        plan.live.push(Step {
            what: format!("chain {chain} in table {table} ({program})"),
            command: place.new_chain(chain),
            undo: format!("{} || true", place.live(&format!("-X {} 2>/dev/null", super::word::shell(chain)))),
        });
    }
    let here = added.iter().filter(|one| (&one.table, &one.chain) == (table, chain));
    let (before, length) = (here.clone().filter(|one| one.at <= at).count(), rules.len() + here.count());
    let arguments = format!("-m comment --comment {MARK} {}", rule.arguments());
    let rest = format!("{} {arguments}", super::word::shell(chain));
    let command = if at + before >= length {
        place.live(&format!("-A {rest}"))
    } else {
        place.live(&format!("-I {} {} {arguments}", super::word::shell(chain), at + before + 1))
    };
    plan.live.push(Step {
        what: format!("rule `{name}` in {table}/{chain} ({program})"),
        command,
        undo: format!("! {} 2>/dev/null || {}", place.live(&format!("-C {rest}")), place.live(&format!("-D {rest}"))),
    });
    added.push(Added { table: table.clone(), chain: chain.clone(), at, line: String::new() });
}

/// The saved file with the lines that it lacks.
fn saved(side: &Side, wanted: &[&Wanted], all: &[Wanted], foreign: &Foreign, text: &str, plan: &mut Plan) {
    let none = Ruleset::default();
    let (rules, layout) = match &side.saved {
        Saved::Read { rules, layout, .. } => (rules, layout),
        Saved::Missing | Saved::Empty => (&none, &none),
        Saved::Unreadable(why) | Saved::Refused { message: why, .. } => {
            let what = format!("{} cannot be restored: {why}", plan.file);
            plan.left
                .push(Left { what, remedy: format!("correct it; `iptables-restore --test <{}` tells", plan.file) });
            return;
        }
    };
    let empty = Table::default();
    let mut added: Vec<Added> = Vec::new();
    for one in wanted.iter().filter(|one| !matches!(one.rules, Meaning::Not(_))) {
        let (Meaning::Known(meant) | Meaning::Unsure(meant)) = &one.rules else { continue };
        let (table, chain) = (&one.table, &one.chain);
        let here = rules.tables.get(table).unwrap_or(&empty);
        for rule in meant {
            let stands = reach::fate(Some(here), chain, rule);
            let live = side.live(side.backend()).rules.tables.get(table);
            let at = match stands {
                Fate::Holds(_) | Fate::Unreached(_) => continue,
                Fate::Absent { .. } if matches!(one.rules, Meaning::Unsure(_)) => continue,
                Fate::Shadowed { by, .. } | Fate::Absent { taken_by: Some(by) } if by.chain != chain.as_str() => 0,
                Fate::Shadowed { by, .. } => by.index,
                Fate::Absent { .. } => saved_place(live, here, one, rule, all, foreign),
            };
            let mine = format!("-A {chain} -m comment --comment {MARK} {}", rule.line());
            // As it is live, with its comment; unless there something takes its packets too.
            let found = match reach::fate(live, chain, rule) {
                Fate::Holds(found) if found.chain == chain.as_str() && found.rule.does_the_same_as(rule) => Some(found),
                Fate::Holds(_) | Fate::Shadowed { .. } | Fate::Unreached(_) | Fate::Absent { .. } => None,
            };
            let written = found.map_or(mine, |found| format!("-A {chain} {}", found.rule.line()));
            added.push(Added { table: table.clone(), chain: chain.clone(), at, line: written });
        }
    }
    if added.is_empty() {
        return;
    }
    match with_lines(text, layout, rules, &added) {
        Some(text) => plan.saved = Some(text),
        None => plan.left.push(Left {
            what: format!("{}: its lines cannot be told from what it restores", plan.file),
            remedy: format!(
                "write `{}` into it",
                added.iter().map(|one| &*one.line).collect::<Vec<_>>().join("` and `")
            ),
        }),
    }
}

/// Among its live neighbours; else behind what the policy names before it.
fn saved_place(
    live: Option<&Table>,
    saved: &Table,
    wanted: &Wanted,
    rule: &Rule,
    all: &[Wanted],
    foreign: &Foreign,
) -> usize {
    let Wanted { table, chain, .. } = wanted;
    let rules = saved.rules(chain);
    if let Some(live) = live
        && let Some(found) = reach::find(live, chain, rule)
    {
        let aligned = diff::align(table, chain, live.rules(chain), rules, foreign);
        let same: Vec<(usize, usize)> = aligned.same.iter().map(|(live, saved)| (*saved, *live)).collect();
        return mend::place(rules, &same, Some(found.index), rule);
    }
    super::judge::after_earlier(wanted, all.iter(), rules).min(mend::place(rules, &[], None, rule))
}

/// Puts lines into the text of a saved file. None where its lines cannot be told from what was restored.
fn with_lines(text: &str, layout: &Ruleset, rules: &Ruleset, added: &[Added]) -> Option<String> {
    // (line of the file that it goes before, what)
    let mut edits: Vec<(usize, String)> = Vec::new();
    let mut new: Vec<(&str, Vec<String>)> = Vec::new();
    for one in added {
        let Some(table) = layout.tables.get(&one.table) else {
            let at = new.iter().position(|(name, _)| *name == one.table).unwrap_or_else(|| {
                new.push((&one.table, Vec::new()));
                new.len() - 1
            });
            let lines = &mut new.get_mut(at)?.1;
            declare(&one.chain, lines);
            lines.push(one.line.clone());
            continue;
        };
        let chain = table.chains.get(&one.chain);
        let lines = chain.map_or(&[][..], |chain| &chain.lines);
        let length = rules.tables.get(&one.table).map_or(0, |table| table.rules(&one.chain).len());
        if lines.len() != length || !lines.is_sorted() {
            return None;
        }
        if chain.is_none() && !save::is_built_in(&one.chain) {
            let declared = format!(":{} - [0:0]", one.chain);
            if !edits.iter().any(|(_, line)| *line == declared) {
                edits.push((table.line + 1, declared));
            }
        }
        let before = match (lines.get(one.at), lines.last()) {
            (Some(next), _) => *next,
            (None, Some(last)) => last + 1,
            (None, None) => table.commit?,
        };
        edits.push((before, one.line.clone()));
    }
    let mut whole = String::new();
    let all_lines = text.lines().count();
    for (number, line) in (1..).zip(text.lines()) {
        for (_, edit) in edits.iter().filter(|(before, _)| *before == number) {
            whole.extend([edit, "\n"]);
        }
        whole.extend([line, "\n"]);
    }
    for (_, edit) in edits.iter().filter(|(before, _)| *before > all_lines) {
        whole.extend([edit, "\n"]);
    }
    for (table, lines) in new {
        whole.extend(["*", table, "\n", &lines.join("\n"), "\nCOMMIT\n"]);
    }
    Some(whole)
}

/// A chain that is not the kernel's must be declared before its rules.
fn declare(chain: &str, lines: &mut Vec<String>) {
    let declared = format!(":{chain} - [0:0]");
    if !save::is_built_in(chain) && !lines.contains(&declared) {
        lines.insert(0, declared);
    }
}

/// In each table of the saved file, live and saved are one: rule by rule, also those of others.
fn is_restored(side: &Side) -> bool {
    let Saved::Read { rules, .. } = &side.saved else {
        return matches!(side.saved, Saved::Missing | Saved::Empty);
    };
    let live = side.live(side.backend());
    rules.tables.iter().all(|(name, saved)| {
        let empty = Table::default();
        let live = live.rules.tables.get(name).unwrap_or(&empty);
        let chains = live.chains.keys().chain(saved.chains.keys());
        chains.into_iter().all(|chain| {
            let same = |(a, b): (&Rule, &Rule)| a.identity() == b.identity();
            let (one, other) = (live.rules(chain), saved.rules(chain));
            one.len() == other.len()
                && one.iter().zip(other).all(same)
                && (!save::is_built_in(chain) || live.policy(chain) == saved.policy(chain))
        })
    })
}

impl Firewall {
    /// What would make the policy's rules live and saved, for each family.
    pub async fn plan(settings: &config::Firewall, policy: &charliehub_proto::policy::Firewall) -> Vec<Plan> {
        let mut this = Self::new(settings);
        let (sides, wanted) = this.seen(policy).await;
        let read = |side: &Side| std::fs::read_to_string(&side.file).unwrap_or_default();
        sides.iter().map(|side| plan(side, &wanted, &this.foreign, &read(side))).collect()
    }
}

#[cfg(test)]
mod tests;
