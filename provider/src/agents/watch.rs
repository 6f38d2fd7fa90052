//! Notices that an agent does not report any more, and that it does again; forgets old transitions and rotations.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use charliehub_proto::{
    agent::{AgentStatus, Transition},
    event::EventKind,
    finding::Status,
};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::types::Type;

use super::{Agents, SILENT};
use crate::{
    events::{Events, Told},
    postgres::{self, Pool},
    rotations,
};

/// How often it is looked at, at most.
const LOOK: Duration = Duration::from_secs(5);
const PRUNE: Duration = Duration::from_hours(1);
/// Transitions kept: so long, and so many of each agent. Rotations as long.
const AGE: &str = "90 days";
const KEEP: i32 = 10_000;
/// Transitions of one report that are an event each.
const EVENTS: usize = 50;

/// Watches for ever.
pub async fn watch(agents: Arc<Agents>, pool: Pool, events: Arc<Events>) {
    let mut tick = interval(LOOK.min(agents.silent_after / 4).max(Duration::from_millis(50)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent: BTreeSet<String> = BTreeSet::new();
    let mut heard = false;
    let mut pruned: Option<Instant> = None;
    loop {
        tick.tick().await;
        let looked = look(&agents, &pool, &mut pruned).await;
        if let Err(error) = &looked {
            tracing::debug!(%error, "what the agents told cannot be read");
        }
        let now = Instant::now();
        if looked.is_ok() && !heard {
            agents.hears_again(now);
        }
        heard = looked.is_ok();
        if heard {
            tell(&agents.statuses(BTreeSet::new(), now), &mut silent, &events);
        }
    }
}

async fn look(agents: &Agents, pool: &Pool, pruned: &mut Option<Instant>) -> Result<(), postgres::Error> {
    let client = pool.get().await?;
    agents.refresh(&**client).await?;
    if pruned.is_none_or(|at| at.elapsed() > PRUNE) {
        let sql = "SELECT charliehub.prune_transitions($1::text::interval, $2)";
        client.query_typed(sql, &[(&AGE, Type::TEXT), (&KEEP, Type::INT4)]).await?;
        rotations::store::prune(&**client, AGE).await?;
        *pruned = Some(Instant::now());
    }
    Ok(())
}

fn tell(agents: &[AgentStatus], silent: &mut BTreeSet<String>, events: &Events) {
    for agent in agents {
        let text = match (agent.silent, silent.contains(&agent.name)) {
            (true, false) => {
                silent.insert(agent.name.clone());
                let found = agent.findings.iter().find(|finding| finding.check == SILENT);
                found.map(|finding| finding.text.clone()).unwrap_or_default()
            }
            (false, true) => {
                silent.remove(&agent.name);
                format!("agent {} reports again", agent.name)
            }
            (true, true) | (false, false) => continue,
        };
        tracing::warn!(agent = agent.name, "{text}");
        let mut told = Told::new(EventKind::Finding, text);
        let now = if agent.silent { Status::Critical } else { Status::Ok };
        told.detail = json!({ "agent": agent.name, "check": SILENT, "target": agent.name, "now": now });
        events.tell(told);
    }
}

/// Tells of each transition; of many in one report only of the first.
pub fn tell_transitions(events: &Events, transitions: &[Transition]) {
    for one in transitions.iter().take(EVENTS) {
        let now = one.now.map_or("no target any more", Status::as_str);
        let text = format!("{}: {} {} is {now}: {}", one.agent, one.check, one.target, one.text);
        let mut told = Told::new(EventKind::Finding, text);
        told.detail = json!(one);
        events.tell(told);
    }
    if let (Some(first), more @ 1..) = (transitions.first(), transitions.len().saturating_sub(EVENTS)) {
        let text = format!("{0}: {more} more findings changed; GET /api/agents/{0}/transitions", first.agent);
        events.tell(Told::new(EventKind::Finding, text));
    }
}
