//! The exact commands that mend a drift, for a shell of root: they touch our rules only, live or in the saved file.
//!
//! A live rule is put where it stands among its saved neighbours, and before what would take its packets. The saved file is
//! edited by line (`sed -i` replaces it as a whole), never written anew from all that is live: that would keep the chains of Docker
//! and fail2ban, which make their own. Pure.

use std::{fmt::Write as _, path::Path};

use super::{
    diff::{Alignment, Difference, Kind},
    foreign::Foreign,
    rule::Rule,
    save::{Ruleset, Table, is_built_in},
    word::shell,
};

/// So many steps are told at once; the others when it is looked again.
const MOST: usize = 20;

/// Where the commands work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// `iptables`, `ip6tables-legacy`.
    pub(crate) program: &'a str,
    pub(crate) table: &'a str,
    pub(crate) file: &'a Path,
}

impl Place<'_> {
    pub(crate) fn live(&self, rest: &str) -> String {
        format!("{} -w -t {} {rest}", self.program, self.table)
    }

    /// Puts a rule into a live chain that has `length` rules, at `at` (from 0 on).
    pub(crate) fn insert(&self, chain: &str, at: usize, length: usize, rule: &Rule) -> String {
        if at >= length {
            return self.live(&format!("-A {} {}", shell(chain), rule.arguments()));
        }
        self.live(&format!("-I {} {} {}", shell(chain), at + 1, rule.arguments()))
    }

    pub(crate) fn delete(&self, chain: &str, rule: &Rule) -> String {
        self.live(&format!("-D {} {}", shell(chain), rule.arguments()))
    }

    pub(crate) fn new_chain(&self, chain: &str) -> String {
        self.live(&format!("-N {}", shell(chain)))
    }

    /// Edits of the saved file in one go; line numbers are those before it.
    pub(crate) fn edit(&self, edits: &[String]) -> String {
        let edits: Vec<String> = edits.iter().map(|edit| format!("-e {}", shell(edit))).collect();
        format!("sed -i {} {}", edits.join(" "), shell(&self.file.to_string_lossy()))
    }
}

/// Where in a chain a rule belongs that stands `elsewhere` on the other side, or nowhere: among its neighbours (pairs of places
/// here and there), and before the first rule that takes its packets.
pub(crate) fn place(rules: &[Rule], same: &[(usize, usize)], elsewhere: Option<usize>, rule: &Rule) -> usize {
    let taker = rules.iter().position(|other| other.covers(rule) && !other.target.name.is_empty());
    let among = elsewhere.and_then(|at| neighbour(same.iter().map(|(here, there)| (*there, *here)), at));
    among.unwrap_or(rules.len()).min(taker.unwrap_or(rules.len()))
}

/// After the last of the pairs before `at`, else before the first one after it.
fn neighbour(pairs: impl Iterator<Item = (usize, usize)>, at: usize) -> Option<usize> {
    let mut after = None;
    for (here, there) in pairs {
        if here >= at {
            return Some(after.unwrap_or(there));
        }
        after = Some(there + 1);
    }
    after
}

/// Lines for the saved file that put a rule into a chain at `at` of its `length` rules. None where its lines cannot be told
/// from what was restored.
pub(crate) fn save_rule(
    layout: &Ruleset,
    table: &str,
    chain: &str,
    at: usize,
    length: usize,
    rule: &Rule,
) -> Option<Vec<String>> {
    let line = format!("-A {chain} {}", rule.line().replace('\\', r"\\"));
    let Some(found) = layout.tables.get(table) else {
        let declared = (!is_built_in(chain)).then(|| format!("$a :{chain} - [0:0]"));
        let head = std::iter::once(format!("$a *{table}")).chain(declared);
        return Some(head.chain([format!("$a {line}"), "$a COMMIT".to_owned()]).collect());
    };
    let lines = found.chains.get(chain).map_or(&[][..], |chain| &chain.lines);
    if lines.len() != length || !lines.is_sorted() {
        return None;
    }
    let edit = match (lines.get(at), lines.last()) {
        (Some(next), _) => format!("{next}i {line}"),
        (None, Some(last)) => format!("{last}a {line}"),
        (None, None) => format!("{}i {line}", found.commit?),
    };
    let declared =
        (!is_built_in(chain) && !found.chains.contains_key(chain)).then(|| format!("{}a :{chain} - [0:0]", found.line));
    Some(declared.into_iter().chain([edit]).collect())
}

/// Both sides of a table, with what is known of the file's lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sides<'a> {
    pub(crate) live: &'a Table,
    pub(crate) saved: &'a Table,
    pub(crate) layout: &'a Ruleset,
}

/// One line for a shell that makes both sides the same and loses nothing: what is live is saved too, what is saved is live
/// again, moved rules go where they are saved, and of two policies the stricter one stays. None where the file's lines
/// cannot be told.
pub(crate) fn reconcile(
    place: Place<'_>,
    sides: Sides<'_>,
    differences: &[Difference<'_>],
    foreign: &Foreign,
) -> Option<String> {
    let Sides { live, saved, layout } = sides;
    let told = differences.get(..MOST).unwrap_or(differences);
    let mut commands = Vec::new();
    let mut edits = Vec::new();
    let mut declared: Vec<&str> = Vec::new();
    for difference in told {
        if let Kind::NotLive { rule, .. } = difference.kind {
            for chain in [difference.chain, rule.target.name.as_str()] {
                let is_missing =
                    saved.chains.contains_key(chain) && !live.chains.contains_key(chain) && !is_built_in(chain);
                if is_missing && !declared.contains(&chain) {
                    declared.push(chain);
                    commands.push(place.new_chain(chain));
                }
            }
        }
    }
    let mut dropping = Vec::new();
    let mut begin = 0;
    for chain in told.chunk_by(|one, other| one.chain == other.chain) {
        let Some(name) = chain.first().map(|difference| difference.chain) else { continue };
        let aligned = super::diff::align(place.table, name, live.rules(name), saved.rules(name), foreign);
        let mut order = Order::new(live.rules(name).len(), &aligned);
        for Difference { kind, .. } in chain {
            match *kind {
                Kind::Policy { live, saved } if is_stricter(saved, live) => {
                    commands.push(place.live(&format!("-P {} {saved}", shell(name))));
                }
                Kind::Policy { live, .. } => edits.extend(save_policy(layout, place.table, name, live)),
                Kind::NotLive { rule, saved_at } => {
                    let (at, length) = order.insert(saved_at);
                    commands.push(place.insert(name, at, length, rule));
                }
                Kind::Moved { rule, live_at, saved_at } => {
                    let (at, length) = order.insert(saved_at);
                    commands.push(place.insert(name, at, length, rule));
                    let old = order.remove(live_at)?;
                    commands.push(place.live(&format!("-D {} {}", shell(name), old + 1)));
                }
                Kind::NotSaved { rule, live_at } => {
                    let length = saved.rules(name).len();
                    let at = neighbour(aligned.same.iter().copied(), live_at).unwrap_or(length);
                    for edit in save_rule(layout, place.table, name, at, length, rule)? {
                        let is_declaration = edit.starts_with("$a *") || edit.ends_with(" - [0:0]");
                        if !(is_declaration && edits.contains(&edit)) {
                            edits.push(edit);
                        }
                    }
                    dropping.push(place.delete(name, rule));
                }
            }
        }
        begin += chain.len();
    }
    if !edits.is_empty() {
        commands.push(place.edit(&in_one_table(edits)));
    }
    let mut all = commands.join(" && ");
    match (differences.len() - begin, dropping.as_slice()) {
        (0, [one]) => write!(all, "   # or, where it should not be: {one}").unwrap_or_default(),
        (0, _) => {}
        (more, _) => write!(all, "   # then look again: {more} more").unwrap_or_default(),
    }
    Some(all)
}

/// A table that is new in the file begins once and ends once.
fn in_one_table(edits: Vec<String>) -> Vec<String> {
    let is_end = |edit: &String| edit == "$a COMMIT";
    let ends = edits.iter().filter(|edit| is_end(edit)).count();
    let mut all: Vec<String> = edits.into_iter().filter(|edit| !is_end(edit)).collect();
    if ends > 0 {
        all.push("$a COMMIT".to_owned());
    }
    all
}

fn is_stricter(one: &str, other: &str) -> bool {
    one == "DROP" && other != "DROP"
}

fn save_policy(layout: &Ruleset, table: &str, chain: &str, policy: &str) -> Vec<String> {
    let line = format!(":{chain} {policy} [0:0]");
    let Some(found) = layout.tables.get(table) else {
        return vec![format!("$a *{table}"), format!("$a {line}"), "$a COMMIT".to_owned()];
    };
    vec![match found.chains.get(chain).and_then(|chain| chain.line) {
        Some(number) => format!("{number}c {line}"),
        None => format!("{}a {line}", found.line),
    }]
}

/// A live chain while commands change it: where each rule was, and which saved one it is.
struct Order(Vec<(Option<usize>, Option<usize>)>);

impl Order {
    fn new(length: usize, aligned: &Alignment<'_>) -> Self {
        let mut order: Vec<_> = (0..length).map(|at| (Some(at), None)).collect();
        for (live, saved) in &aligned.same {
            if let Some(entry) = order.get_mut(*live) {
                entry.1 = Some(*saved);
            }
        }
        Self(order)
    }

    /// Where a saved rule goes now, and how long the chain is before it.
    fn insert(&mut self, saved_at: usize) -> (usize, usize) {
        let length = self.0.len();
        let known = self.0.iter().enumerate().filter_map(|(at, (_, saved))| Some(((*saved)?, at)));
        let at = neighbour(known, saved_at).unwrap_or(length);
        self.0.insert(at, (None, Some(saved_at)));
        (at, length)
    }

    fn remove(&mut self, live_at: usize) -> Option<usize> {
        let at = self.0.iter().position(|(live, _)| *live == Some(live_at))?;
        self.0.remove(at);
        Some(at)
    }
}

/// Writes the saved file anew from what is live, without the rules of others.
pub(crate) fn save_all(place: Place<'_>, live: &Ruleset, foreign: &Foreign) -> String {
    let mut chains: Vec<&str> = Vec::new();
    let mut rules = Vec::new();
    for (name, table) in &live.tables {
        for (chain, found) in &table.chains {
            if foreign.has_chain(chain) {
                chains.push(chain);
            }
            for rule in &found.rules {
                if foreign.has_rule(name, chain, rule) && !foreign.has_chain(chain) {
                    rules.push(format!("-e {}", shell(&format!("-A {chain} {}", rule.line()))));
                }
            }
        }
    }
    let mut command = format!("{}-save", place.program);
    if !chains.is_empty() {
        chains.sort_unstable();
        chains.dedup();
        let names = chains.join("|").replace('.', r"\.");
        write!(command, " | grep -vE '^(:|-A )({names})( |$)'").unwrap_or_default();
    }
    if !rules.is_empty() {
        write!(command, " | grep -vxF {}", rules.join(" ")).unwrap_or_default();
    }
    let file = shell(&place.file.to_string_lossy());
    format!("(umask 027; {command} >{file}.new) && mv {file}.new {file}")
}

#[cfg(test)]
mod tests;
