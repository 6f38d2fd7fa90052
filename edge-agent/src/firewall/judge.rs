//! Decides how the firewall stands: required rules, what of it survives a boot, and which iptables holds it.
//!
//! Wanted is the policy, live is the kernel, saved is what a restore of the file gives. Each fault is told once: a required
//! rule that is not live by `firewall-required`, what is live and not saved by `firewall-persisted`. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use charliehub_proto::policy;

use super::{
    Family,
    diff::{self, Difference, Kind},
    foreign::Foreign,
    matches::What,
    mend::{self, Sides},
    reach::{self, Fate},
    read::{Live, Saved, Side},
    rule::Rule,
    save::{self, Backend, Ruleset, Table},
};
use crate::sample::Sample;

pub(super) const REQUIRED: &str = "firewall-required";
pub(super) const PERSISTED: &str = "firewall-persisted";
pub(super) const BACKEND: &str = "firewall-backend";

/// A rule of the policy in one family.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) family: Family,
    pub(crate) table: String,
    pub(crate) chain: String,
    pub(crate) rules: Meaning,
}

/// What the policy's text says.
#[derive(Clone, Debug)]
pub(crate) enum Meaning {
    /// One or, of a list of networks, several.
    Known(Vec<Rule>),
    /// Perhaps another spelling is the same: a rule that is not found may be there.
    Unsure(Vec<Rule>),
    /// It is no rule.
    Not(String),
}

impl Wanted {
    pub(super) fn rules(&self) -> &[Rule] {
        match &self.rules {
            Meaning::Known(rules) | Meaning::Unsure(rules) => rules,
            Meaning::Not(_) => &[],
        }
    }
}

/// How many rules of a table drifted, by kind.
pub(crate) type Drift = BTreeMap<(String, &'static str), u32>;

/// All kinds, so that each is 0 where there is none.
pub(crate) const KINDS: &[&str] =
    &["extra_live", "extra_saved", "missing_live", "missing_saved", "moved", "policy", "shadowed"];

pub(crate) fn judge(sides: &[Side], wanted: &[Wanted], foreign: &Foreign) -> (Vec<Sample>, Drift) {
    let mut drift = Drift::new();
    let mut samples = required(sides, wanted, foreign, &mut drift);
    for side in sides {
        let wanted: Vec<&Wanted> = wanted.iter().filter(|wanted| wanted.family == side.family).collect();
        persisted(side, &wanted, foreign, &mut samples, &mut drift);
        samples.push(backend(side, foreign));
    }
    (samples, drift)
}

fn count(drift: &mut Drift, table: &str, family: Family, kind: &'static str) {
    *drift.entry((format!("{table} {family}"), kind)).or_default() += 1;
}

/// One sample for each name of the policy: of the families that it is wanted in, the worst.
fn required(sides: &[Side], wanted: &[Wanted], foreign: &Foreign, drift: &mut Drift) -> Vec<Sample> {
    let mut worst: BTreeMap<&str, Sample> = BTreeMap::new();
    for one in wanted {
        let Some(side) = sides.iter().find(|side| side.family == one.family) else { continue };
        let sample = one_required(side, one, wanted, foreign, drift);
        match worst.get(one.name.as_str()) {
            Some(known) if known.status >= sample.status => {}
            _ => drop(worst.insert(&one.name, sample)),
        }
    }
    worst.into_values().collect()
}

fn one_required(side: &Side, wanted: &Wanted, all: &[Wanted], foreign: &Foreign, drift: &mut Drift) -> Sample {
    let Wanted { name, table, chain, family, .. } = wanted;
    let place = format!("{table}/{chain} ({family})");
    let backend = side.backend();
    let source = format!("{}-save", side.program(backend));
    if let Meaning::Not(why) = &wanted.rules {
        return Sample::unknown(REQUIRED, name, "the policy's rule cannot be read")
            .observed(why)
            .source("the policy")
            .remedy("correct the rule in the policy: it is what follows `iptables -A CHAIN`");
    }
    for rule in wanted.rules() {
        let line = rule.line();
        let fates =
            [backend, backend.other()].map(|backend| reach::fate(table_of(side.live(backend), table), chain, rule));
        if fates.iter().any(Fate::holds) {
            continue;
        }
        let unread = [backend, backend.other()].into_iter().find_map(|backend| missing(side.live(backend), table));
        if let Some(why) = unread {
            return Sample::unknown(REQUIRED, name, format!("{place} cannot be read"))
                .observed(why)
                .expected(line)
                .source(&source)
                .remedy(unreadable_remedy(side.family, table, why));
        }
        let program = side.program(backend);
        let mender = mend::Place { program: &program, table, file: &side.file };
        let rules = table_of(side.live(backend), table).map_or(&[][..], |table| table.rules(chain));
        let [fate, _] = fates;
        let sample = match fate {
            Fate::Holds(_) => continue,
            Fate::Shadowed { by, .. } => {
                count(drift, table, *family, "shadowed");
                let remedy = if foreign.has_rule(table, by.chain, by.rule) {
                    mender.insert(chain, 0, rules.len(), rule)
                } else {
                    mender.delete(by.chain, by.rule)
                };
                Sample::critical(REQUIRED, name, format!("in {place}, but an earlier rule takes its packets"))
                    .observed(format!("-A {} {}", by.chain, by.rule.line()))
                    .remedy(remedy)
            }
            Fate::Unreached(_) => {
                count(drift, table, *family, "shadowed");
                Sample::critical(REQUIRED, name, format!("in {place}, but no packet gets there"))
                    .observed(format!("nothing leads to its place in chain {chain}"))
                    .remedy(format!("add the jump to {chain}; firewall-persisted names it where it is saved"))
            }
            Fate::Absent { .. } if matches!(wanted.rules, Meaning::Unsure(_)) => {
                return Sample::unknown(REQUIRED, name, format!("whether it is in {place} cannot be told"))
                    .expected(line)
                    .source(&source)
                    .remedy(format!("write the policy's rule as `{program}-save` prints it"));
            }
            Fate::Absent { taken_by } => {
                count(drift, table, *family, "missing_live");
                let observed = taken_by.map_or_else(
                    || "not there".to_owned(),
                    |by| format!("its packets are taken by -A {} {}", by.chain, by.rule.line()),
                );
                let at = place_live(side, wanted, rule, all, foreign, rules);
                let insert = mender.insert(chain, at, rules.len(), rule_text(side, wanted, rule));
                let is_new_chain = !save::is_built_in(chain)
                    && !table_of(side.live(backend), table).is_some_and(|table| table.chains.contains_key(chain));
                let remedy = if is_new_chain { format!("{} && {insert}", mender.new_chain(chain)) } else { insert };
                Sample::critical(REQUIRED, name, format!("missing from {place}")).observed(observed).remedy(remedy)
            }
        };
        return sample.expected(line).source(source);
    }
    let mut text = format!("in {place}, and its packets reach it");
    if let Some(cut) = wanted.rules().iter().find_map(|rule| cuts_this_host(wanted, rule)) {
        write!(text, "; programs of this host do not reach {cut} either: give them the socket or the bridge's address")
            .ok();
    }
    Sample::ok(REQUIRED, name, text).source(source)
}

/// The rule as it is saved, where it is: with its comment.
fn rule_text<'a>(side: &'a Side, wanted: &Wanted, rule: &'a Rule) -> &'a Rule {
    let Saved::Read { rules, .. } = &side.saved else { return rule };
    let saved = rules.tables.get(&wanted.table).and_then(|table| reach::find(table, &wanted.chain, rule));
    saved.map_or(rule, |found| found.rule)
}

/// Where it belongs: among its saved neighbours; else after the rules that the policy names before it.
pub(super) fn place_live(
    side: &Side,
    wanted: &Wanted,
    rule: &Rule,
    all: &[Wanted],
    foreign: &Foreign,
    live: &[Rule],
) -> usize {
    let Wanted { table, chain, .. } = wanted;
    if let Saved::Read { rules, .. } = &side.saved
        && let Some(saved) = rules.tables.get(table)
        && let Some(found) = reach::find(saved, chain, rule)
    {
        let aligned = diff::align(table, chain, live, saved.rules(chain), foreign);
        return mend::place(live, &aligned.same, Some(found.index), rule);
    }
    let position = after_earlier(wanted, all.iter(), live);
    position.min(mend::place(live, &[], None, rule))
}

/// Behind the last of the policy's earlier rules that is in the chain; else at its beginning.
pub(super) fn after_earlier<'a>(wanted: &Wanted, all: impl Iterator<Item = &'a Wanted>, rules: &[Rule]) -> usize {
    let earlier = all.take_while(|other| !std::ptr::eq(*other, wanted));
    let earlier = earlier.filter(|o| (o.family, &o.table, &o.chain) == (wanted.family, &wanted.table, &wanted.chain));
    let places =
        earlier.flat_map(Wanted::rules).filter_map(|other| rules.iter().position(|rule| rule.does_the_same_as(other)));
    places.max().map_or(0, |at| at + 1)
}

/// `127.0.0.1:5432`, where the rule refuses what comes from this host too.
fn cuts_this_host(wanted: &Wanted, rule: &Rule) -> Option<String> {
    let ports = rule.matches.iter().find_map(|one| match &one.what {
        What::Ports(super::matches::Side::Destination, ranges) if !one.negated => ranges.first(),
        What::Ports(..)
        | What::Protocol(_)
        | What::Source(_)
        | What::Destination(_)
        | What::In(_)
        | What::Out(_)
        | What::Fragment
        | What::Other { .. } => None,
    })?;
    let local: ipnet::IpNet = if wanted.family == Family::V4 { "127.0.0.1/32" } else { "::1/128" }.parse().ok()?;
    let takes_local = rule.matches.iter().all(|one| match &one.what {
        What::Source(net) | What::Destination(net) => net.contains(&local) != one.negated,
        What::In(name) | What::Out(name) => (name == "lo") != one.negated,
        What::Protocol(_) | What::Ports(..) => true,
        What::Fragment | What::Other { .. } => false,
    });
    let sees_local = matches!(wanted.chain.as_str(), "PREROUTING" | "INPUT" | "OUTPUT") && wanted.table != "nat";
    let address = local.addr();
    let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
    (takes_local && sees_local && rule.target.is_refusal()).then(|| format!("{host}:{}", ports.0))
}

fn table_of<'a>(live: &'a Live, name: &str) -> Option<&'a Table> {
    live.rules.tables.get(name)
}

/// Why the table was not read, where it was not.
fn missing<'a>(live: &'a Live, table: &str) -> Option<&'a str> {
    if live.rules.tables.contains_key(table) { None } else { live.cut.as_deref() }
}

fn unreadable_remedy(family: Family, table: &str, why: &str) -> String {
    if why.contains("ermission") || why.contains("must be root") || why.contains("not permitted") {
        return "give the agent CAP_NET_ADMIN, and CAP_NET_RAW with CAP_DAC_READ_SEARCH for legacy tables".to_owned();
    }
    if why.contains("not installed") {
        return "apt-get install iptables".to_owned();
    }
    let family = if family == Family::V4 { "ip" } else { "ip6" };
    format!(
        "look at `nft -a list table {family} {table}` for a rule that iptables cannot express, and move it to a table of its own"
    )
}

/// The file, and each table that something of ours is in.
fn persisted(side: &Side, wanted: &[&Wanted], foreign: &Foreign, samples: &mut Vec<Sample>, drift: &mut Drift) {
    let backend = side.backend();
    let live = side.live(backend);
    let program = side.program(backend);
    let file = side.file.display().to_string();
    let none = Ruleset::default();
    let (saved, layout) = match &side.saved {
        Saved::Read { rules, layout, .. } => (rules, layout),
        Saved::Missing | Saved::Empty | Saved::Unreadable(_) | Saved::Refused { .. } => (&none, &none),
    };
    let mut names: Vec<&str> = wanted.iter().map(|wanted| wanted.table.as_str()).collect();
    for ruleset in [&live.rules, saved] {
        names.extend(
            ruleset.tables.iter().filter(|(name, table)| has_ours(name, table, foreign)).map(|(name, _)| name.as_str()),
        );
    }
    names.sort_unstable();
    names.dedup();

    samples.push(of_file(side, &program, !names.is_empty(), foreign));
    let is_read = matches!(side.saved, Saved::Read { .. });
    let (empty_live, empty_saved) = (Table::default(), Table::default());
    for name in names {
        let target = format!("{name} {}", side.family);
        for kind in KINDS {
            drift.entry((target.clone(), kind)).or_default();
        }
        if !is_read {
            samples.push(
                Sample::unknown(
                    PERSISTED,
                    &target,
                    format!("nothing to compare with, because of {}", side.family.file()),
                )
                .source(&file)
                .remedy(format!("mend {file} first")),
            );
            continue;
        }
        if let Some(why) = missing(live, name) {
            samples.push(
                Sample::unknown(PERSISTED, &target, "the live table cannot be read")
                    .observed(why)
                    .source(format!("{program}-save"))
                    .remedy(unreadable_remedy(side.family, name, why)),
            );
            continue;
        }
        let sides = Sides {
            live: live.rules.tables.get(name).unwrap_or(&empty_live),
            saved: saved.tables.get(name).unwrap_or(&empty_saved),
            layout,
        };
        let wanted: Vec<&Wanted> = wanted.iter().copied().filter(|wanted| wanted.table == name).collect();
        let place = mend::Place { program: &program, table: name, file: &side.file };
        samples.push(of_table(side, place, sides, &wanted, foreign, drift).source(&file));
    }
}

/// Something in it is ours: a rule, or a policy that is not Docker's.
fn has_ours(name: &str, table: &Table, foreign: &Foreign) -> bool {
    table.chains.iter().any(|(chain, found)| {
        let policy =
            found.policy.as_deref().is_some_and(|policy| policy != "ACCEPT") && !foreign.has_policy(name, chain, table);
        policy || found.rules.iter().any(|rule| !foreign.has_rule(name, chain, rule))
    })
}

fn of_file(side: &Side, program: &str, has_something: bool, foreign: &Foreign) -> Sample {
    let target = side.family.file();
    let file = side.file.display().to_string();
    let live = side.live(side.backend());
    let place = mend::Place { program, table: "", file: &side.file };
    let sample = match &side.saved {
        Saved::Missing | Saved::Empty if !has_something => Sample::ok(PERSISTED, target, "no rules to keep"),
        Saved::Missing => Sample::critical(PERSISTED, target, "missing: nothing would be restored at boot")
            .remedy(mend::save_all(place, &live.rules, foreign)),
        Saved::Empty => Sample::critical(PERSISTED, target, "empty: nothing would be restored at boot")
            .remedy(mend::save_all(place, &live.rules, foreign)),
        Saved::Unreadable(why) => Sample::unknown(PERSISTED, target, "it cannot be read")
            .observed(why)
            .remedy(format!("let the agent read {file}, and write it as `{program}-save` does")),
        Saved::Refused { line, text, message } => {
            let at = line.map_or_else(|| "the refused line".to_owned(), |line| format!("line {line}"));
            Sample::critical(PERSISTED, target, "refused by iptables-restore: nothing would be restored at boot")
                .observed(text.as_deref().map_or_else(|| message.clone(), |text| format!("{at}: {text} ({message})")))
                .remedy(format!("correct {at} of {file}; `iptables-restore --test <{file}` tells when it is right"))
        }
        Saved::Read { unproven: None, .. } => {
            Sample::ok(PERSISTED, target, "restored in a throw-away network namespace as it would be at boot")
        }
        Saved::Read { unproven: Some(why), .. } => {
            Sample::ok(PERSISTED, target, "read, but not proven by a trial restore").observed(why)
        }
    };
    sample.source(file)
}

fn of_table(
    side: &Side,
    place: mend::Place<'_>,
    sides: Sides<'_>,
    wanted: &[&Wanted],
    foreign: &Foreign,
    drift: &mut Drift,
) -> Sample {
    let name = place.table;
    let target = format!("{name} {}", side.family);
    let mut told: Vec<&Rule> = Vec::new();
    let mut lacking = None;
    for one in wanted {
        for rule in one.rules() {
            match reach::fate(Some(sides.live), &one.chain, rule) {
                Fate::Holds(_) => {}
                Fate::Shadowed { by, .. } => told.push(by.rule),
                Fate::Unreached(_) | Fate::Absent { .. } => told.push(rule),
            }
            let fate = reach::fate(Some(sides.saved), &one.chain, rule);
            if !fate.holds() && matches!(one.rules, Meaning::Known(_)) {
                count(drift, name, side.family, "missing_saved");
                lacking = lacking.or_else(|| Some(lacks(place, sides, one, rule, fate, wanted, foreign)));
            }
        }
    }
    let mut differences = diff::differences(name, sides.live, sides.saved, foreign);
    for difference in &differences {
        let kind = match difference.kind {
            Kind::Policy { .. } => "policy",
            Kind::NotSaved { .. } => "extra_live",
            Kind::NotLive { .. } => "extra_saved",
            Kind::Moved { .. } => "moved",
        };
        count(drift, name, side.family, kind);
    }
    if let Some(sample) = lacking {
        return sample;
    }
    // What firewall-required tells is not told again.
    differences.retain(|difference| match difference.kind {
        Kind::NotSaved { rule, .. } => !told.iter().any(|told| std::ptr::eq(*told, rule)),
        Kind::NotLive { rule, .. } => !told.iter().any(|told| told.does_the_same_as(rule)),
        Kind::Policy { .. } | Kind::Moved { .. } => true,
    });
    if differences.is_empty() {
        let stale = sides
            .saved
            .chains
            .iter()
            .flat_map(|(chain, found)| found.rules.iter().filter(move |rule| foreign.has_rule(name, chain, rule)));
        let mut text = "what boot restores is what is live".to_owned();
        match stale.count() {
            0 => {}
            stale => {
                write!(text, "; {stale} saved rules belong to other programs, and will be stale").unwrap_or_default();
            }
        }
        return Sample::ok(PERSISTED, target, text);
    }
    let unproven = matches!(&side.saved, Saved::Read { unproven: Some(_), .. });
    let doubtful = differences.iter().find_map(|difference| match difference.kind {
        Kind::NotSaved { rule, .. } | Kind::NotLive { rule, .. } => (unproven && !rule.is_understood).then_some(rule),
        Kind::Policy { .. } | Kind::Moved { .. } => None,
    });
    if let Some(rule) = doubtful {
        return Sample::unknown(
            PERSISTED,
            target,
            "whether the saved rules are the live ones cannot be told without a trial restore",
        )
        .observed(rule.line())
        .remedy("let the agent make namespaces: RestrictNamespaces=user net, and kernel.unprivileged_userns_clone=1");
    }
    let texts: Vec<String> = differences.iter().take(10).map(told_of).collect();
    let text = match differences.as_slice() {
        [one] => format!("{}: {}", headline(one), name_of(one)),
        all => format!("{} rules or policies are not the same live and after a boot", all.len()),
    };
    let remedy = mend::reconcile(place, sides, &differences, foreign).unwrap_or_else(|| {
        format!("write these rules into {}, as `{}-save -t {name}` prints them", place.file.display(), place.program)
    });
    let (observed, expected) = (texts.join("\n"), "the same rules live and saved, in the same order");
    Sample::warning(PERSISTED, target, text).observed(observed).expected(expected).remedy(remedy)
}

/// A required rule that would not be there after a boot.
fn lacks(
    place: mend::Place<'_>,
    sides: Sides<'_>,
    wanted: &Wanted,
    rule: &Rule,
    fate: Fate<'_>,
    all: &[&Wanted],
    foreign: &Foreign,
) -> Sample {
    let Wanted { name, table, chain, family, .. } = wanted;
    let target = format!("{table} {family}");
    let saved = sides.saved.rules(chain);
    let lines = sides.layout.tables.get(table).and_then(|table| table.chains.get(chain)).map(|chain| &chain.lines);
    let (text, observed, edits) = match fate {
        Fate::Shadowed { by, .. } => {
            let lines =
                sides.layout.tables.get(table).and_then(|table| table.chains.get(by.chain)).map(|chain| &chain.lines);
            let lines = lines.filter(|lines| lines.len() == sides.saved.rules(by.chain).len());
            let edits = lines.and_then(|lines| lines.get(by.index)).map(|line| vec![format!("{line}d")]);
            ("saved, but an earlier saved rule takes its packets", format!("-A {} {}", by.chain, by.rule.line()), edits)
        }
        Fate::Holds(_) | Fate::Unreached(_) => {
            ("saved, but nothing would lead to its chain", format!("chain {chain}"), None)
        }
        Fate::Absent { .. } => {
            // Among its live neighbours; else behind what the policy names before it.
            let live = reach::find(sides.live, chain, rule);
            let at = if let Some(found) = live {
                let aligned = diff::align(table, chain, sides.live.rules(chain), saved, foreign);
                let same: Vec<(usize, usize)> = aligned.same.iter().map(|(live, saved)| (*saved, *live)).collect();
                mend::place(saved, &same, Some(found.index), rule)
            } else {
                after_earlier(wanted, all.iter().copied(), saved).min(mend::place(saved, &[], None, rule))
            };
            let written = live.map_or(rule, |found| found.rule);
            let edits = mend::save_rule(sides.layout, table, chain, at, saved.len(), written);
            ("not saved", lines.map_or("no such chain", |_| "not there").to_owned(), edits)
        }
    };
    let remedy = edits.map_or_else(
        || format!("write `-A {chain} {}` into table {table} of {}", rule.line(), place.file.display()),
        |edits| place.edit(&edits),
    );
    Sample::critical(PERSISTED, target, format!("a required rule would be gone after a boot, `{name}`: {text}"))
        .observed(observed)
        .expected(format!("-A {chain} {}", rule.line()))
        .remedy(remedy)
}

fn headline(difference: &Difference<'_>) -> &'static str {
    match difference.kind {
        Kind::Policy { .. } => "a policy is another one after a boot",
        Kind::NotSaved { .. } => "live, and gone after a boot",
        Kind::NotLive { .. } => "saved, and not live",
        Kind::Moved { .. } => "live in another place than after a boot",
    }
}

fn name_of(difference: &Difference<'_>) -> String {
    let chain = difference.chain;
    match difference.kind {
        Kind::Policy { live, saved } => format!("{chain} is {live} now and {saved} then"),
        Kind::NotSaved { rule, .. } | Kind::NotLive { rule, .. } | Kind::Moved { rule, .. } => {
            format!("-A {chain} {}", rule.line())
        }
    }
}

fn told_of(difference: &Difference<'_>) -> String {
    format!("{}: {}", headline(difference), name_of(difference))
}

/// Rules in both iptables of the kernel, or in another than the file was saved from, are seen by some tools and not by others.
fn backend(side: &Side, foreign: &Foreign) -> Sample {
    let target = side.family.to_string();
    let main = side.backend();
    for of in [Backend::Nft, Backend::Legacy] {
        if let Some(why) = &side.live(of).cut {
            return Sample::unknown(BACKEND, target, format!("the {} tables cannot all be read", of.as_str()))
                .observed(why)
                .remedy(unreadable_remedy(side.family, "filter", why));
        }
    }
    let holds = |of: Backend| side.live(of).rules.tables.values().any(Table::does_something);
    if holds(Backend::Nft) && holds(Backend::Legacy) {
        let other = side.program(main.other());
        let mut commands = Vec::new();
        let mut is_all_ours = true;
        for (name, table) in &side.live(main.other()).rules.tables {
            let place = mend::Place { program: &other, table: name, file: &side.file };
            for (chain, found) in &table.chains {
                is_all_ours &= found.policy.as_deref().is_none_or(|policy| policy == "ACCEPT");
                for rule in &found.rules {
                    is_all_ours &= !foreign.has_rule(name, chain, rule);
                    commands.push(place.delete(chain, rule));
                }
            }
        }
        let remedy = if is_all_ours && commands.len() <= 10 {
            commands.join(" && ")
        } else {
            format!("look at `{other}-save`, and have one iptables only: `update-alternatives --config iptables`")
        };
        return Sample::warning(BACKEND, target, "rules are in both iptables, nft and legacy")
            .observed(format!("{other}-save lists rules beside those of {}", main.as_str()))
            .expected(format!("rules in {} only", main.as_str()))
            .remedy(remedy);
    }
    let written = match &side.saved {
        Saved::Read { layout, .. } => layout.backend,
        Saved::Missing | Saved::Empty | Saved::Unreadable(_) | Saved::Refused { .. } => None,
    };
    match written {
        Some(written) if written != main && holds(main) => Sample::warning(
            BACKEND,
            target,
            format!("the rules are in {}, and were saved from {}", main.as_str(), written.as_str()),
        )
        .source(side.file.display().to_string())
        .remedy("look at `update-alternatives --display iptables`: boot restores into that one; then save again"),
        _ => Sample::ok(BACKEND, target, format!("all rules are in {}", main.as_str())),
    }
}

/// The families of a policy's rule.
pub(crate) fn families(family: policy::Family) -> &'static [Family] {
    match family {
        policy::Family::Ipv4 => &[Family::V4],
        policy::Family::Ipv6 => &[Family::V6],
        policy::Family::Both => &[Family::V4, Family::V6],
    }
}

#[cfg(test)]
mod tests;
