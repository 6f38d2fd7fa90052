//! Decides what belongs together: one cause for each outage, however many alarms it rings.
//!
//! Between everything that was noticed and the operator. What is noticed of one row, one server, one site, one Traefik or
//! with one reason is one cause; its root is the signal nearest to where it began. A site joins only where an agent has
//! found something there: two servers of one site may be down for two reasons. Pure.

use std::collections::{BTreeMap, BTreeSet};

use charliehub_proto::{
    debug::{Cause, DatabaseLink, Finding, Health, Quarantined, Signal, SignalKind},
    drift::{Drift, DriftKind, InstanceDrift},
    finding::Status,
    instance::{HeldBack, InstanceState, InstanceStatus, Instead, Owner, RefusedRoute, ServerHealth},
    revision::Withheld,
};
use jiff::Timestamp;
use uuid::Uuid;

/// Signals that a cause shows; the others are counted.
const SHOWN: usize = 100;

/// All that was noticed.
pub(super) struct Facts<'f> {
    /// A config is served.
    pub served: bool,
    pub database: &'f DatabaseLink,
    pub quarantined: &'f [Quarantined],
    pub withheld: &'f [Withheld],
    pub instances: &'f [InstanceStatus],
    pub drift: &'f [InstanceDrift],
    pub findings: &'f [Finding],
    /// The sites of rows.
    pub sites: &'f BTreeMap<Uuid, String>,
}

/// What two signals of one cause have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    Row(Uuid),
    /// As Traefik calls it.
    Object(String),
    /// A server: host and port.
    Server(String),
    Site(String),
    /// What an agent has checked.
    Target(String),
    Instance(String),
    Digest(String),
    Reason(String),
}

/// A signal, and what it would be as a cause of its own.
struct Noticed {
    kind: SignalKind,
    state: Health,
    /// What it is about, where no row is.
    subject: String,
    text: String,
    next: String,
    command: Option<String>,
    since: Option<Timestamp>,
    owner: Option<Owner>,
    links: Vec<Link>,
}

/// One cause for each outage, the worst first.
pub(super) fn causes(facts: &Facts<'_>) -> Vec<Cause> {
    let mut noticed = Vec::new();
    database(facts, &mut noticed);
    noticed.extend(facts.withheld.iter().map(withheld));
    noticed.extend(facts.quarantined.iter().map(quarantined));
    noticed.extend(facts.findings.iter().filter(|one| one.status != Status::Ok).map(finding));
    noticed.extend(facts.findings.iter().filter_map(|one| action(one, facts)));
    let alive = facts.instances.iter().any(|one| !matches!(one.state, InstanceState::Gone));
    for one in facts.instances {
        noticed.extend(instance(one, alive));
        let refuses = one.state == InstanceState::Refused;
        let of_it = |mut noticed: Noticed| {
            noticed.links.extend(refuses.then(|| Link::Instance(one.name.clone())));
            noticed
        };
        noticed.extend(one.held_back.iter().map(|held| of_it(held_back(one, held))));
        noticed.extend(one.refused_routes.iter().map(|refused| of_it(refused_route(one, refused))));
        noticed.extend(one.servers.iter().filter(|server| !server.up).map(|server| down(one, server)));
    }
    for one in facts.drift {
        let state = facts.instances.iter().find(|known| known.name == one.instance).map(|known| known.state);
        // On its way to what it was sent, everything is different for a moment.
        if state != Some(InstanceState::Behind) {
            let whole = !matches!(state, None | Some(InstanceState::Current | InstanceState::Unverified));
            noticed.extend(one.differences.iter().map(|drift| drifted(one, drift, whole)));
        }
    }
    place(&mut noticed, facts);
    let mut causes: Vec<Cause> = groups(&noticed).into_iter().filter_map(joined).collect();
    causes.sort_by(|a, b| {
        let key =
            |cause: &Cause| (cause.state, std::cmp::Reverse(cause.owners.len()), cause.since.is_none(), cause.since);
        key(a).cmp(&key(b)).then_with(|| a.subject.cmp(&b.subject)).then_with(|| a.text.cmp(&b.text))
    });
    causes
}

/// Ties rows to the sites and names that an agent has found something about.
fn place(noticed: &mut [Noticed], facts: &Facts<'_>) {
    let bad = || facts.findings.iter().filter(|finding| finding.status != Status::Ok);
    let sites: BTreeSet<&str> = bad().filter_map(|finding| finding.site.as_deref()).collect();
    let targets: BTreeSet<&str> = bad().map(|finding| finding.target.as_str()).collect();
    for one in noticed.iter_mut().filter(|one| one.kind != SignalKind::Finding) {
        let Some(owner) = &one.owner else { continue };
        let site = facts.sites.get(&owner.id).filter(|site| sites.contains(site.as_str()));
        // What is wrong with the row itself, the way to its site does not explain.
        if matches!(one.kind, SignalKind::Server | SignalKind::Drift) {
            one.links.extend(site.map(|site| Link::Site(site.clone())));
        }
        let host = owner.name.split('/').next().unwrap_or_default();
        one.links.extend(targets.contains(host).then(|| Link::Target(host.to_owned())));
    }
}

/// Puts together whatever is linked, directly or through others.
fn groups(noticed: &[Noticed]) -> Vec<Vec<&Noticed>> {
    let mut parent: Vec<usize> = (0..noticed.len()).collect();
    let mut first: BTreeMap<&Link, usize> = BTreeMap::new();
    for (at, one) in noticed.iter().enumerate() {
        for link in &one.links {
            let other = *first.entry(link).or_insert(at);
            let (a, b) = (root(&mut parent, at), root(&mut parent, other));
            if let Some(slot) = parent.get_mut(a.max(b)) {
                *slot = a.min(b);
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<&Noticed>> = BTreeMap::new();
    for (at, one) in noticed.iter().enumerate() {
        groups.entry(root(&mut parent, at)).or_default().push(one);
    }
    groups.into_values().collect()
}

fn root(parent: &mut [usize], mut at: usize) -> usize {
    while let Some(&up) = parent.get(at)
        && up != at
    {
        let above = parent.get(up).copied().unwrap_or(up);
        if let Some(slot) = parent.get_mut(at) {
            *slot = above; // halves the way for the next
        }
        at = above;
    }
    at
}

fn joined(mut group: Vec<&Noticed>) -> Option<Cause> {
    // Of one kind a fragment comes first: rows use it, not the other way round.
    let is_row = |one: &Noticed| one.owner.as_ref().is_none_or(|owner| owner.kind == "domain");
    group.sort_by(|a, b| {
        let key = |one: &Noticed| (one.kind, is_row(one), one.state);
        key(a).cmp(&key(b)).then_with(|| (&a.subject, &a.text).cmp(&(&b.subject, &b.text)))
    });
    let owners: BTreeMap<Uuid, &Owner> =
        group.iter().filter_map(|one| one.owner.as_ref()).map(|owner| (owner.id, owner)).collect();
    let mut owners: Vec<Owner> = owners.into_values().cloned().collect();
    owners.sort_by(|a, b| (a.kind == "domain", &a.name).cmp(&(b.kind == "domain", &b.name)));
    let mut signals: Vec<Signal> = Vec::new();
    for one in &group {
        let signal = Signal { kind: one.kind, text: format!("{}: {}", one.about(), one.text) };
        if !signals.contains(&signal) && signals.len() < SHOWN {
            signals.push(signal);
        }
    }
    let root = group.first()?;
    let mut subjects: Vec<&str> = owners.iter().map(|owner| &*owner.name).collect();
    if subjects.is_empty() {
        subjects = group.iter().filter(|one| one.kind == root.kind).map(|one| &*one.subject).collect();
    }
    subjects.dedup();
    Some(Cause {
        state: group.iter().map(|one| one.state).min().unwrap_or(Health::Ok),
        subject: named(&subjects),
        text: root.text.clone(),
        next: root.next.clone(),
        command: root.command.clone(),
        since: group.iter().filter_map(|one| one.since).min(),
        owners,
        signals,
        joined: group.len(),
    })
}

/// `a.org`, `a.org and b.org`, `a.org, b.org and 3 more`.
fn named(subjects: &[&str]) -> String {
    match subjects {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [one, two] => format!("{one} and {two}"),
        [one, two, more @ ..] => format!("{one}, {two} and {} more", more.len()),
    }
}

impl Noticed {
    fn about(&self) -> &str {
        self.owner.as_ref().map_or(&self.subject, |owner| &owner.name)
    }
}

fn plain(kind: SignalKind, state: Health, subject: &str, text: impl Into<String>, next: impl Into<String>) -> Noticed {
    Noticed {
        kind,
        state,
        subject: subject.to_owned(),
        text: text.into(),
        next: next.into(),
        command: None,
        since: None,
        owner: None,
        links: Vec::new(),
    }
}

fn database(facts: &Facts<'_>, noticed: &mut Vec<Noticed>) {
    for reason in &facts.database.reasons {
        // Each has a line of its own, with more to say.
        if reason.starts_with("withheld: ") || reason.starts_with("no routes yet") {
            continue;
        }
        let text = reason.strip_prefix("stale: ").or_else(|| reason.strip_prefix("forked: ")).unwrap_or(reason);
        let state = if facts.served { Health::Attention } else { Health::Broken };
        let next = "What is served goes on; changes wait until the database answers. See what it says:";
        let mut one = plain(SignalKind::Database, state, "database", text, next);
        if reason.starts_with("forked: ") {
            "Compare the rows with what you expect: later commits of the old primary are gone."
                .clone_into(&mut one.next);
            one.command = Some("charliehub-provider domains list".to_owned());
        } else {
            one.command = Some("charliehub-provider check".to_owned());
        }
        noticed.push(one);
    }
    if !facts.served && facts.database.followed {
        let next = "Add the first route, or bring those of a Traefik along: charliehub-provider import FILE";
        let mut one = plain(SignalKind::Database, Health::Attention, "no routes yet", "nothing is served", next);
        let add = "charliehub-provider domains add www.example.org --backend 10.0.0.7:8080";
        one.command = Some(add.to_owned());
        noticed.push(one);
    } else if facts.instances.is_empty() {
        let next = "Point a Traefik here, as the README says, with a token of its own:";
        let mut one =
            plain(SignalKind::Instance, Health::Attention, "no Traefik", "none has polled since the start", next);
        one.command = Some("charliehub-provider token create --role traefik --name hub2".to_owned());
        noticed.push(one);
    }
}

fn withheld(one: &Withheld) -> Noticed {
    let n = one.revision;
    let by = one.actor.as_deref().unwrap_or("somebody");
    let why = match one.held_by.as_str() {
        "guard:empty" => "it would leave no route at all",
        "guard:shrink" => "it removes more routes than may go at once",
        "guard:quarantine" => "more rows would not compile than may fail at once",
        "guard:opening" => "it opens protected places to the internet",
        "guard:login_loss" => "places would lose their login",
        other => other,
    };
    let text = format!("waits for an operator, and what is served is older: {why} (by {by})");
    let next = "Look at it below, then approve it if it is meant, or discard it:";
    let place = one.part.as_ref().map_or_else(String::new, |part| format!(" in {part}"));
    let mut noticed = plain(SignalKind::Withheld, Health::Attention, &format!("revision {n}{place}"), text, next);
    noticed.command = Some(format!("charliehub-provider approve {n}"));
    noticed.since = Some(one.at);
    noticed.links = vec![Link::Reason("withheld".to_owned())];
    noticed
}

fn quarantined(one: &Quarantined) -> Noticed {
    let (column, rest) = one.reason.split_once(": ").unwrap_or(("", &one.reason));
    let (text, remedy) = rest.rsplit_once("; ").unwrap_or((rest, "correct it there"));
    let is_row = one.table == "domains";
    // Unless it is a router a fragment answers nobody; the rows that need it have a line of their own.
    let state = if is_row || one.name.contains(".router ") { Health::Broken } else { Health::Attention };
    let about = if column.is_empty() { text.to_owned() } else { format!("{column}: {text}") };
    let mut noticed =
        plain(SignalKind::Quarantined, state, &one.name, format!("closed, answers 503: {about}"), capital(remedy));
    let column = if column.is_empty() { "COLUMN" } else { column };
    noticed.command = is_row.then(|| format!("charliehub-provider domains set {} {column}=VALUE", quoted(&one.name)));
    let kind = if is_row { "domain" } else { "fragment" };
    noticed.owner = Some(Owner { id: one.id, kind: kind.to_owned(), name: one.name.clone() });
    noticed.links = vec![Link::Row(one.id), Link::Reason(one.reason.clone())];
    noticed
}

fn finding(one: &Finding) -> Noticed {
    let state = if one.status == Status::Critical { Health::Broken } else { Health::Attention };
    let next = one.remedy.clone().unwrap_or_else(|| format!("On {}, see what the check says:", one.agent));
    let subject = format!("{} {}", one.check, one.target);
    let mut noticed = plain(SignalKind::Finding, state, &subject, &*one.text, next);
    noticed.command = one.remedy.is_none().then(|| format!("charliehub-edge-agent explain {}", quoted(&one.check)));
    noticed.since = one.since;
    noticed.links = vec![Link::Target(one.target.clone())];
    noticed.links.extend(one.site.clone().map(Link::Site));
    noticed
}

/// What was done about something that is not well, or not well of its site. It is never a cause of its own.
fn action(one: &Finding, facts: &Facts<'_>) -> Option<Noticed> {
    let action = one.action.as_ref()?;
    let is_bad = |other: &&Finding| other.status != Status::Ok;
    let of_site = |other: &&Finding| other.site.is_some() && other.site == one.site;
    let link = if is_bad(&one) {
        Link::Target(one.target.clone())
    } else {
        facts.findings.iter().filter(is_bad).find(of_site)?;
        Link::Site(one.site.clone()?)
    };
    let mut noticed = plain(SignalKind::Action, Health::Attention, &one.agent, action.to_string(), "");
    noticed.links = vec![link];
    Some(noticed)
}

fn instance(one: &InstanceStatus, others: bool) -> Option<Noticed> {
    let name = format!("Traefik {}", one.name);
    let sent = one.sent.as_ref().and_then(|sent| sent.revision);
    let what = sent.map_or_else(|| "what it was sent".to_owned(), |revision| format!("revision {revision}"));
    let trouble = one.trouble.clone();
    let api = one.api.as_deref().unwrap_or("http://TRAEFIK:8080");
    let ask = |path: &str| Some(format!("curl -s {}", quoted(&format!("{api}{path}"))));
    let (state, text, next, command) = match one.state {
        InstanceState::Current | InstanceState::Behind => return None,
        InstanceState::Refused => (
            Health::Broken,
            trouble.unwrap_or_else(|| format!("does not take {what}")),
            "It runs what it had before. Correct what was changed, or go back:".to_owned(),
            one.running
                .as_ref()
                .and_then(|running| running.revision)
                .map(|revision| format!("charliehub-provider rollback {revision}")),
        ),
        InstanceState::Late => (
            Health::Broken,
            trouble.unwrap_or_else(|| format!("does not run {what} since {:.0} s", one.lag_seconds)),
            "Look into its log; is its machine overloaded?".to_owned(),
            ask("/api/overview"),
        ),
        InstanceState::Unknown => (
            Health::Attention,
            trouble.unwrap_or_else(|| "its API does not answer, so what it runs is not known".to_owned()),
            "Mend its API, or its [[traefik]] in the configuration:".to_owned(),
            ask("/api/version"),
        ),
        InstanceState::Unverified => (
            Health::Attention,
            "polls, and nothing tells what it runs".to_owned(),
            format!("Name its API in the configuration: [[traefik]] instance = \"{}\", api = \"{api}\"", one.name),
            None,
        ),
        InstanceState::Gone => (
            if others { Health::Attention } else { Health::Broken },
            trouble.unwrap_or_else(|| "does not poll any more".to_owned()),
            "Start it, or see why it does not reach us:".to_owned(),
            Some("systemctl status traefik".to_owned()),
        ),
    };
    let mut noticed = plain(SignalKind::Instance, state, &name, text, next);
    noticed.command = command;
    noticed.since = match one.state {
        InstanceState::Gone => one.last_poll,
        InstanceState::Refused | InstanceState::Late => one.sent.as_ref().map(|sent| sent.at),
        InstanceState::Current | InstanceState::Behind | InstanceState::Unverified | InstanceState::Unknown => None,
    };
    noticed.links = vec![Link::Instance(one.name.clone())];
    let same = matches!(one.state, InstanceState::Refused).then_some(one.sent.as_ref()).flatten();
    noticed.links.extend(same.map(|sent| Link::Digest(sent.digest.clone())));
    let unverified = (one.state == InstanceState::Unverified).then(|| Link::Reason("unverified".to_owned()));
    noticed.links.extend(unverified);
    Some(noticed)
}

/// How the row or fragment is changed.
fn change(owner: &Owner) -> String {
    if owner.kind == "domain" {
        return format!("charliehub-provider domains set {} COLUMN=VALUE", quoted(&owner.name));
    }
    format!("curl -X PUT {}", quoted(&format!(".../api/fragments/{}/{}", owner.kind, owner.name)))
}

fn held_back(of: &InstanceStatus, one: &HeldBack) -> Noticed {
    let (state, instead) = match one.instead {
        Instead::Earlier => (Health::Attention, "runs as it was before"),
        Instead::Closed => (Health::Broken, "is closed and answers 503"),
        Instead::Nothing => (Health::Attention, "is left out"),
    };
    let text = format!("{instead} on {}, which does not take revision {}: {}", of.name, one.revision, one.reason);
    let mut noticed =
        plain(SignalKind::HeldBack, state, &of.name, text, "Correct it; the next revision is tried at once:");
    noticed.command = Some(change(&one.owner));
    noticed.since = Some(one.since);
    noticed.links = vec![Link::Row(one.owner.id)];
    noticed.owner = Some(one.owner.clone());
    noticed
}

fn refused_route(of: &InstanceStatus, one: &RefusedRoute) -> Noticed {
    let state = if one.status == "disabled" { Health::Broken } else { Health::Attention };
    let words = if one.errors.is_empty() { one.status.clone() } else { one.errors.join("; ") };
    let text = format!("{} {} of {} is {}: {words}", one.object, one.name, of.name, one.status);
    let next = match &one.owner {
        Some(_) => "Correct it as Traefik says:",
        None => "It is not ours: correct it in the provider of Traefik that it comes from.",
    };
    let mut noticed = plain(SignalKind::RefusedRoute, state, &one.name, text, next);
    noticed.command = one.owner.as_ref().map(change);
    // A middleware that Traefik cannot build takes its routers with it, in the same words.
    noticed.links = vec![Link::Object(one.name.clone()), Link::Reason(words)];
    noticed.links.extend(one.owner.as_ref().map(|owner| Link::Row(owner.id)));
    noticed.owner.clone_from(&one.owner);
    noticed
}

fn drifted(of: &InstanceDrift, one: &Drift, whole: bool) -> Noticed {
    let (state, what, next) = match one.kind {
        DriftKind::Missing => (Health::Broken, "is missing", "See why Traefik does not have it:"),
        DriftKind::Extra => (Health::Attention, "is there, and no row says so", "See where it comes from:"),
        DriftKind::Different => (Health::Broken, "is not as the rows say", "See what Traefik has:"),
        DriftKind::Shadowed => {
            (Health::Broken, "does not answer", "Remove the other router, or give the row a higher priority:")
        }
    };
    let text = format!("{} {} {what} on {}: {}", one.object, one.name, of.instance, one.detail);
    let mut noticed = plain(SignalKind::Drift, state, &one.name, text, next);
    noticed.command = Some(match (one.kind, &one.owner) {
        (DriftKind::Shadowed, Some(owner)) if owner.kind == "domain" => {
            format!("charliehub-provider domains set {} priority=1000000", quoted(&owner.name))
        }
        _ => "curl .../api/drift".to_owned(),
    });
    noticed.since = of.at;
    noticed.links = if whole {
        vec![Link::Instance(of.instance.clone())]
    } else {
        let row = one.owner.as_ref().map(|owner| Link::Row(owner.id));
        row.into_iter().chain([Link::Object(one.name.clone())]).collect()
    };
    noticed.owner = one.owner.clone().filter(|_| !whole);
    noticed
}

fn down(of: &InstanceStatus, one: &ServerHealth) -> Noticed {
    let others = of.servers.iter().filter(|other| other.service == one.service && other.protocol == one.protocol);
    let state = if others.clone().any(|other| other.up) { Health::Attention } else { Health::Broken };
    let text = format!("server {} is down, as {} finds", one.url, of.name);
    let mut noticed =
        plain(SignalKind::Server, state, &one.service, text, "See whether it answers from the edge host:");
    noticed.command = Some(if one.protocol == "http" {
        format!("curl -sv {}", quoted(&one.url))
    } else {
        format!("nc -vz {}", quoted(host_of(&one.url)).replace(':', " "))
    });
    noticed.links = vec![Link::Server(host_of(&one.url).to_owned()), Link::Object(one.service.clone())];
    noticed.links.extend(one.owner.as_ref().map(|owner| Link::Row(owner.id)));
    noticed.owner.clone_from(&one.owner);
    noticed
}

/// `10.0.0.5:80` of `http://user@10.0.0.5:80/path`.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// One word for a shell, whatever is in it: people paste commands.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
