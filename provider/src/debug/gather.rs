//! Collects what is known: from memory what is served and by whom, from the database who made it and the rows.
//!
//! Without a database it is all there but the rows: what was read last is remembered, and said to be that.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use charliehub_proto::{
    agent::AgentStatus,
    debug::{
        Agents, DatabaseLink, Debug, Finding, LastChange, Live, Quarantined, RouteCount, RouteLine, Routes,
        ServedRevision,
    },
    drift::InstanceDrift,
    event::{Event, EventKind},
    instance::{InstanceStatus, Instead},
    revision::{Commit, Revision, Withheld},
    route::RouteState,
};
use jiff::Timestamp;
use tokio::{sync::Notify, task::JoinSet, time::timeout};
use uuid::Uuid;

use super::{
    join::{Facts, causes},
    rows::{self, Page, Wanted},
    verdict::verdict,
};
use crate::{
    compile::StateKind,
    events::Events,
    instances::Instances,
    mask::{mask, mask_text},
    postgres::Pool,
    publish::Overview,
    revisions::{self, Secrets},
    snapshot::{Current, Snapshot},
    status::Status,
    store::rows::name as table_name,
};

/// Changes, and events, that are shown.
const CHANGES: i64 = 30;
const EVENTS: usize = 50;
/// Of each list that may be long.
const SHOWN: usize = 100;
/// Closed rows that are looked at for common causes.
const JOINED: usize = 1000;
/// How long the database is waited for; less when it is known to be away.
const PATIENCE: Duration = Duration::from_secs(2);
const LITTLE: Duration = Duration::from_millis(250);

/// Where it is collected from.
pub struct Sources<'s> {
    pub pool: &'s Pool,
    pub current: &'s Current,
    pub status: &'s Status,
    pub overview: &'s Overview,
    pub instances: &'s Instances,
    pub events: &'s Events,
    pub drift: Vec<InstanceDrift>,
    pub agents: Vec<AgentStatus>,
    /// What these found that is not ok.
    pub findings: Vec<Finding>,
    pub memory: &'s Memory,
}

/// The digest that is served, and the newest revision that waits.
type Pair = (Arc<str>, i64);

/// What was read of the database last.
#[derive(Debug, Default)]
pub struct Memory {
    history: ArcSwapOption<History>,
    /// Made from whole configs: once for each pair.
    withheld: Mutex<Option<(Pair, Vec<Withheld>)>>,
    pub compared: ArcSwapOption<Compared>,
    /// Who compares now, and what tells that it was done.
    pub comparing: Mutex<JoinSet<()>>,
    pub news: Notify,
}

/// What Traefiks run otherwise than a config says.
#[derive(Debug)]
pub struct Compared {
    pub digest: Arc<str>,
    pub at: Instant,
    pub found: Vec<InstanceDrift>,
}

/// The newest changes, and the one that is served.
#[derive(Debug, Default)]
struct History {
    changes: Vec<Revision>,
    served: Option<Commit>,
}

/// What only the database knows.
#[derive(Default)]
struct Told {
    history: Arc<History>,
    page: Page,
    withheld: Vec<Withheld>,
    sites: BTreeMap<Uuid, String>,
    trouble: Option<String>,
}

/// All that operators see. Secrets are masked whoever asks.
pub async fn gather(sources: Sources<'_>, wanted: &Wanted, now: Timestamp) -> Debug {
    let snapshot = sources.current.load();
    let mut instances = sources.instances.statuses();
    instances.iter_mut().for_each(hide);
    let told = ask(&sources, snapshot.as_deref(), wanted, &instances).await;
    let Told { history, page, withheld, sites, trouble } = told;
    let age = sources.status.age();
    let readiness = sources.status.readiness(snapshot.as_deref());
    let database =
        DatabaseLink { followed: age.is_zero(), age_seconds: age.as_secs_f64(), reasons: readiness.reasons, trouble };
    let revision = snapshot.as_deref().map(|snapshot| served(snapshot, &history, now));
    let mut quarantined = quarantined(sources.overview);
    let facts = Facts {
        served: snapshot.is_some(),
        database: &database,
        quarantined: &quarantined,
        withheld: &withheld,
        instances: &instances,
        drift: &sources.drift,
        findings: &sources.findings,
        sites: &sites,
    };
    let causes = causes(&facts);
    let verdict = verdict(&causes, revision.as_ref(), &instances);
    let events = sources.events.since(0).events;
    let changes = changes(&history.changes, &events);
    let routes = routes(sources.overview, wanted, page, &instances);
    quarantined.truncate(SHOWN);
    instances.iter_mut().for_each(shorten);
    let reported = sources.agents.iter().any(|agent| agent.last_report.is_some());
    let note = match (reported, sources.findings.is_empty()) {
        (false, _) => Some("No agent has reported.".to_owned()),
        (true, true) => Some("All that the agents check is well.".to_owned()),
        (true, false) => None,
    };
    Debug {
        at: now,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        verdict,
        causes,
        revision,
        database,
        changes,
        instances,
        drift: sources.drift,
        routes,
        quarantined,
        withheld,
        agents: Agents { findings: sources.findings, agents: sources.agents, note },
        events: events.iter().rev().take(EVENTS).map(|event| shown(event)).collect(),
    }
}

/// Asks the database; what it does not say in time is what it said last.
async fn ask(
    sources: &Sources<'_>,
    snapshot: Option<&Snapshot>,
    wanted: &Wanted,
    instances: &[InstanceStatus],
) -> Told {
    let patience = if sources.status.age().is_zero() { PATIENCE } else { LITTLE };
    let trouble = match timeout(patience, read(sources, snapshot, wanted, instances)).await {
        Ok(Ok(told)) => return told,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the page is shown without the database");
            "the database does not answer; who made what is as it was read last, and rows are not listed"
        }
        Err(_) => "the database does not answer in time; who made what is as it was read last, and rows are not listed",
    };
    let history = sources.memory.history.load_full().unwrap_or_default();
    Told { history, trouble: Some(trouble.to_owned()), ..Told::default() }
}

async fn read(
    sources: &Sources<'_>,
    snapshot: Option<&Snapshot>,
    wanted: &Wanted,
    instances: &[InstanceStatus],
) -> Result<Told, revisions::Error> {
    let client = sources.pool.get().await?;
    let serves = snapshot.map(|snapshot| snapshot.held.revision);
    let (changes, page) = tokio::join!(
        revisions::list(&**client, None, CHANGES),
        rows::page(&**client, wanted, &sources.overview.quarantined)
    );
    let (changes, page) = (changes?, page?);
    let mut commit = changes.iter().find(|one| Some(one.commit.revision) == serves).map(|one| one.commit.clone());
    if let Some(serves) = serves
        && commit.is_none()
    {
        let found = revisions::list(&**client, Some(serves + 1), 1).await?;
        commit = found.into_iter().next().map(|one| one.commit).filter(|one| one.revision == serves);
    }
    let history = Arc::new(History { changes, served: commit });
    sources.memory.history.store(Some(Arc::clone(&history)));
    let withheld = match sources.current.waiting() {
        Some(pair) => waiting(sources.memory, &client, pair).await?,
        None => Vec::new(),
    };
    // Only where an agent has found something there a site joins what is noticed.
    let sites = if sources.findings.iter().any(|finding| finding.site.is_some()) {
        let down = instances.iter().flat_map(|one| &one.servers).filter(|server| !server.up);
        let drift = sources.drift.iter().flat_map(|one| &one.differences);
        let owners = down.map(|one| &one.owner).chain(drift.map(|one| &one.owner));
        let ids: Vec<Uuid> = owners.flatten().map(|owner| owner.id).collect();
        rows::sites(&**client, &ids).await?
    } else {
        BTreeMap::new()
    };
    Ok(Told { history, page, withheld, sites, trouble: None })
}

/// What waits for an operator.
async fn waiting(
    memory: &Memory,
    client: &tokio_postgres::Client,
    pair: Pair,
) -> Result<Vec<Withheld>, revisions::Error> {
    let known = memory.withheld.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some((of, known)) = known
        && of == pair
    {
        return Ok(known);
    }
    let mut found = revisions::withheld(client, Secrets::Masked).await?;
    for one in &mut found {
        one.diff.truncate(SHOWN);
    }
    // It is written down behind the swap, so it may not be there yet.
    if found.iter().any(|one| one.revision == pair.1) {
        *memory.withheld.lock().unwrap_or_else(PoisonError::into_inner) = Some((pair, found.clone()));
    }
    Ok(found)
}

fn served(snapshot: &Snapshot, history: &History, now: Timestamp) -> ServedRevision {
    let revision = snapshot.held.revision;
    let commit = history.served.clone().filter(|commit| commit.revision == revision);
    ServedRevision {
        revision,
        digest: snapshot.digest().to_string(),
        routes: snapshot.size.routes,
        withheld: snapshot.withheld,
        age_seconds: commit.as_ref().map(|commit| seconds(commit.at, now)),
        commit,
    }
}

fn quarantined(overview: &Overview) -> Vec<Quarantined> {
    let closed = overview.quarantined.iter().take(JOINED);
    closed
        .map(|(key, (name, reason))| Quarantined {
            id: key.id,
            table: table_name(key.table).to_owned(),
            name: name.clone(),
            reason: reason.clone(),
        })
        .collect()
}

/// Each change with the times at which instances were first seen to run it.
fn changes(revisions: &[Revision], events: &[Arc<Event>]) -> Vec<LastChange> {
    let mut live: BTreeMap<i64, BTreeMap<&str, &Event>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.kind == EventKind::Ack) {
        if let (Some(revision), Some(instance)) = (event.revision, &event.instance) {
            live.entry(revision).or_default().entry(instance).or_insert(event);
        }
    }
    let change = |one: &Revision| {
        let seen = live.get(&one.commit.revision);
        let times = seen
            .into_iter()
            .flatten()
            .map(|(instance, event)| Live { instance: (*instance).to_owned(), seconds: took(event, one.commit.at) });
        LastChange { commit: one.commit.clone(), rows: one.changes, live: times.collect() }
    };
    revisions.iter().map(change).collect()
}

/// As the event says; else by the clocks.
fn took(event: &Event, committed: Timestamp) -> f64 {
    let said = event.detail.get("time_to_live_seconds").and_then(serde_json::Value::as_f64);
    said.unwrap_or_else(|| seconds(committed, event.at))
}

fn routes(overview: &Overview, wanted: &Wanted, page: Page, instances: &[InstanceStatus]) -> Routes {
    let counts = overview.counts.routes.iter().map(|((protocol, state), count)| RouteCount {
        protocol: protocol.as_str().to_owned(),
        state: match state {
            StateKind::Live => RouteState::Live,
            StateKind::Maintenance => RouteState::Maintenance,
            StateKind::Closed => RouteState::Closed,
            StateKind::Off => RouteState::Off,
        },
        count: *count,
    });
    let mut lines = page.lines;
    complete(&mut lines, instances);
    Routes {
        counts: counts.collect(),
        filter: wanted.filter.clone(),
        state: wanted.state,
        page: lines,
        next: page.next.map(|after| after.cursor()),
    }
}

/// Tells of each line what Traefiks say of it.
fn complete(lines: &mut [RouteLine], instances: &[InstanceStatus]) {
    let mut known: BTreeMap<Uuid, &mut RouteLine> = lines.iter_mut().map(|line| (line.id, line)).collect();
    for one in instances {
        for server in &one.servers {
            let line = server.owner.as_ref().and_then(|owner| known.get_mut(&owner.id));
            if let Some(line) = line.filter(|line| line.servers.len() < SHOWN) {
                line.servers.push(server.clone());
            }
        }
        for held in &one.held_back {
            if let Some(line) = known.get_mut(&held.owner.id) {
                let instead = match held.instead {
                    Instead::Earlier => "as it was before",
                    Instead::Closed => "closed",
                    Instead::Nothing => "left out",
                };
                line.troubles.push(format!("{instead} on {}: {}", one.name, held.reason));
            }
        }
        for refused in &one.refused_routes {
            if let Some(line) = refused.owner.as_ref().and_then(|owner| known.get_mut(&owner.id)) {
                line.troubles.push(format!("{} on {}: {}", refused.status, one.name, refused.errors.join("; ")));
            }
        }
    }
}

/// Traefik's words may hold what a fragment says.
fn hide(one: &mut InstanceStatus) {
    one.trouble.iter_mut().chain(&mut one.api).for_each(mask_text);
    one.refused_routes.iter_mut().flat_map(|refused| &mut refused.errors).for_each(mask_text);
    one.held_back.iter_mut().for_each(|held| mask_text(&mut held.reason));
    one.servers.iter_mut().for_each(|server| mask_text(&mut server.url));
}

fn shorten(one: &mut InstanceStatus) {
    one.servers.retain(|server| !server.up);
    one.servers.truncate(SHOWN);
    one.refused_routes.truncate(SHOWN);
    one.held_back.truncate(SHOWN);
}

fn shown(event: &Event) -> Event {
    let mut event = event.clone();
    mask(&mut event.detail);
    mask_text(&mut event.text);
    event
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    from.until(to).map_or(0.0, |span| span.total(jiff::Unit::Second).unwrap_or(0.0)).max(0.0)
}
