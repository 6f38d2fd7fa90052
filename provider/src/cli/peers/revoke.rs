//! `peers revoke`: the row goes, and each hub that let the client in says that it knows.

use std::time::Duration;

use anyhow::{Context as _, bail};
use charliehub_proto::{agent::AgentStatus, change::WrittenPeer};
use http::Method;
use tokio::time::{Instant, sleep, timeout_at};

use super::path;
use crate::cli::{
    agents::{Writing, done},
    domains::{Api, Ask, decoded},
    output,
};

/// How long a hub may take to say that it knows.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at the agents.
const APART: Duration = Duration::from_millis(100);

pub(super) async fn revoke(api: &Api, name: &str, writing: &Writing) -> anyhow::Result<()> {
    let began = Instant::now();
    let answer = api.send(&writing.ask(Method::DELETE, &path(name), None)).await?;
    let WrittenPeer { peer, change } = decoded(answer.clone())?;
    done(&format!("peer {name}"), &answer)?;
    let Some(revision) = change.revision else { return Ok(()) };
    let mut silent = peer.peer.agents;
    let mut last = Vec::new();
    let told = timeout_at(began + PATIENCE, until_told(api, revision, began, &mut silent, &mut last)).await;
    if let Ok(told) = told {
        return told.context("the row is removed, and whether the hubs know it is not known");
    }
    let silent: Vec<String> = silent.iter().map(|agent| why(agent, &last)).collect();
    bail!("the row is removed, and not every hub has said that it knows: {}", silent.join("; "))
}

/// Takes out of `waiting` each agent that says it holds reality against the rows of `revision` or later.
async fn until_told(
    api: &Api,
    revision: i64,
    began: Instant,
    waiting: &mut Vec<String>,
    last: &mut Vec<AgentStatus>,
) -> anyhow::Result<()> {
    loop {
        *last = decoded(api.send(&Ask::get("/api/agents".to_owned())).await?)?;
        let (told, other) =
            waiting.drain(..).partition(|agent| find(agent, last).is_some_and(|one| knows(one, revision)));
        *waiting = other;
        let took = began.elapsed().as_secs_f64();
        let told: Vec<String> = told;
        for agent in told {
            output::print(&format!("gone from {agent} after {took:.1} s\n"))?;
        }
        if waiting.is_empty() {
            return Ok(());
        }
        sleep(APART).await;
    }
}

fn find<'a>(name: &str, agents: &'a [AgentStatus]) -> Option<&'a AgentStatus> {
    agents.iter().find(|agent| agent.name == name)
}

fn knows(agent: &AgentStatus, revision: i64) -> bool {
    agent.expected_revision.is_some_and(|compiled| compiled >= revision)
        && agent.expected.is_some()
        && agent.expected == agent.expected_current
}

/// Why there is no answer of an agent, as far as is known.
fn why(name: &str, agents: &[AgentStatus]) -> String {
    match find(name, agents).and_then(|agent| agent.age_seconds) {
        None => format!("{name} has never reported: is charliehub-edge-agent set up there?"),
        Some(age) => format!("{name} has not answered, its last report is {age:.0} s old: look with `agents list`"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn agent(more: &Value) -> AgentStatus {
        let mut agent = json!({
            "name": "hub2", "version": "0.1", "first_seen": null, "last_report": null, "reported_at": null,
            "age_seconds": 12.4, "silent": false, "status": "ok", "expected": "a", "expected_current": "a",
            "expected_revision": 7, "lost": 0, "findings": [],
        });
        agent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(agent).unwrap()
    }

    #[test]
    fn an_agent_knows_what_it_says_that_it_holds_reality_against() {
        for (more, known) in [
            (json!({}), true),
            (json!({"expected_revision": 6}), false),
            (json!({"expected_revision": null}), false),
            (json!({"expected": "b"}), false),
            (json!({"expected": null, "expected_current": null}), false),
        ] {
            assert_eq!(knows(&agent(&more), 7), known, "{more}");
        }
    }

    #[test]
    fn who_does_not_answer_is_told_apart_from_who_never_did() {
        let all = [agent(&json!({})), agent(&json!({"name": "hub3", "age_seconds": null}))];
        assert!(why("hub2", &all).contains("12 s old"));
        assert!(why("hub3", &all).contains("never reported") && why("hub4", &all).contains("never reported"));
    }
}
