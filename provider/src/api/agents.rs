//! `/api/agents`: what the agents on the edge hosts are to hold reality against, what they find, and what they say of keys
//! that they rotate.
//!
//! An agent reads and says all of it under its own name only; people read it.

mod expected;
mod policy;
mod report;
mod rotations;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use charliehub_proto::{
    agent::{AgentStatus, Transition},
    duration,
};
use http::{StatusCode, header};
use serde_json::json;
use tokio::time::timeout;
use tokio_postgres::types::Type;

pub(super) use self::{
    expected::{__path_get as __path_expected, get as expected},
    policy::{__path_get as __path_policy, __path_put as __path_put_policy, get as policy, put as put_policy},
    report::{__path_post as __path_report, post as report},
    rotations::{
        __path_followed as __path_followed_rotations, __path_get as __path_rotation, __path_list as __path_rotations,
        __path_put as __path_tell_rotation, followed as followed_rotations, get as rotation, list as rotations,
        put as tell_rotation,
    },
};
use super::{Api, Problem, query::Parameters, write::author};
use crate::{
    agents::store,
    auth::{Caller, Refusal, Role},
    postgres,
    tls::{Fault, Kind},
};

/// How long the database is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest that a request is held.
const LONGEST: Duration = Duration::from_mins(1);
const MOST: i64 = 1000;
const USUAL: i64 = 100;

/// `GET /api/agents`: each with its findings, as a bare array. Without a database it is what was read last.
#[utoipa::path(get, operation_id = "list_agents", path = "/api/agents", tag = "agents",
    responses((status = 200, body = Vec<AgentStatus>, description = "The agents that reported, and those that sites, policies or peers name"), Problem))]
pub(super) async fn list(State(api): State<Api>, request: Request) -> Result<Json<Vec<AgentStatus>>, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    let refreshed = async { api.agents.refresh(&**api.pool.get().await?).await.map_err(postgres::Error::from) };
    match timeout(PATIENCE, refreshed).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the agents are shown as they were read last"),
        Err(_) => tracing::debug!("the agents are shown as they were read last: the database does not answer in time"),
    }
    Ok(Json(known(&api)))
}

/// All agents, as they are known.
pub(super) fn known(api: &Api) -> Vec<AgentStatus> {
    let mut agents = api.agents.statuses(api.expectations.agents(), Instant::now());
    for agent in &mut agents {
        let ready = api.expectations.of(&agent.name);
        agent.expected_revision = ready.as_ref().map(|ready| ready.expected.revision);
        agent.expected_current = ready.map(|ready| ready.expected.digest.clone());
    }
    agents
}

/// `DELETE /api/agents/{name}`: forgets what it reported. One that still reports comes back.
#[utoipa::path(delete, operation_id = "forget_agent", path = "/api/agents/{name}", tag = "agents", params(("name" = String, Path)),
    responses((status = 200, body = AgentStatus, description = "As it was known until now"), Problem))]
pub(super) async fn forget(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<AgentStatus>, Problem> {
    Parameters::of(request.uri())?.done(&[])?;
    let name = agent_name(name)?;
    let mut client = api.pool.get().await?;
    api.agents.refresh(&**client).await?;
    let known = known(&api).into_iter().find(|agent| agent.name == name && agent.last_report.is_some());
    let known = known
        .ok_or_else(|| Problem::not_found("no agent of this name has reported").remedy("GET /api/agents lists them"))?;
    let transaction = client.transaction().await?;
    transaction.execute_typed("DELETE FROM charliehub.agents WHERE name = $1", &[(&name, Type::TEXT)]).await?;
    author(&request, &caller).note(&*transaction, "agent.forget", &json!({ "agent": name })).await?;
    transaction.commit().await?;
    api.agents.refresh(&**client).await?;
    Ok(Json(known))
}

/// `GET /api/agents/{name}/transitions`: what changed, the newest first, in pages by `Link`.
#[utoipa::path(get, operation_id = "list_transitions", path = "/api/agents/{name}/transitions", tag = "agents",
    params(("name" = String, Path), ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000),
        ("cursor" = Option<i64>, Query, description = "Those before the one of this id")),
    responses((status = 200, body = Vec<Transition>, description = "Findings that changed their status"), Problem))]
pub(super) async fn transitions(
    State(api): State<Api>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(request.uri())?;
    let limit = limit(&mut parameters)?;
    let before = parameters.take("cursor").map(|text| text.parse::<i64>()).transpose().map_err(|_| {
        Problem::parameter("cursor", "it is not one that we gave").remedy("take it from the Link header as it is")
    })?;
    parameters.done(&["limit", "cursor"])?;
    let name = agent_name(name)?;
    let client = api.pool.get().await?;
    let found = store::transitions(&**client, &name, before, limit).await?;
    let full = i64::try_from(found.len()) == Ok(limit);
    let next = found.last().filter(|_| full).map(|last| {
        let path = request.uri().path();
        (header::LINK, format!("<{path}?limit={limit}&cursor={}>; rel=\"next\"", last.id))
    });
    Ok((axum::response::AppendHeaders(next), Json(found)).into_response())
}

fn limit(parameters: &mut Parameters) -> Result<i64, Problem> {
    let limit = parameters.take("limit").map_or(Some(USUAL), |text| text.parse().ok());
    limit.filter(|limit| (1..=MOST).contains(limit)).ok_or_else(|| {
        Problem::parameter("limit", format!("it is not 1 to {MOST}")).remedy(format!("leave it out for {USUAL}"))
    })
}

/// How long the request may be held.
fn wait(parameters: &mut Parameters) -> Result<Duration, Problem> {
    let Some(text) = parameters.take("wait") else { return Ok(Duration::ZERO) };
    duration::parse(&text)
        .filter(|wait| *wait <= LONGEST)
        .ok_or_else(|| Problem::parameter("wait", "it is not a time of at most 60 s").remedy("write it as 55s"))
}

/// Held requests end when we stop.
async fn stopped(api: &Api) {
    api.events.stopped().cancelled_owned().await;
}

/// As the database's `ch_name` has it, without a provider.
fn agent_name(name: String) -> Result<String, Problem> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if name.len() <= 128 && name.bytes().all(inner) && outer(bytes.first()) && outer(bytes.last()) {
        return Ok(name);
    }
    Err(Problem::parameter("name", "it is not the name of an agent")
        .remedy("use up to 128 letters, digits, dots, dashes and underscores"))
}

/// An agent speaks for itself.
fn own(caller: &Caller, name: &str) -> Result<(), Problem> {
    if caller.role != Role::Agent || caller.subject.as_deref() == Some(name) {
        return Ok(());
    }
    if caller.certified {
        let fault = Fault::Other { role: Kind::Agent, name: name.to_owned() };
        return Err(Refusal::Certificate { who: caller.name.clone(), fault }.into());
    }
    let detail = format!("the token speaks for another agent than `{name}`");
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "This token may not do this", detail)
        .field("name")
        .remedy(format!("use a token made with: charliehub-provider token create --role agent --subject {name} NAME")))
}

/// The names in a list that are there twice.
fn twice<'t, T: Ord + 't>(all: impl Iterator<Item = T>) -> Option<usize> {
    let mut seen = BTreeSet::new();
    all.into_iter().position(|one| !seen.insert(one))
}

#[cfg(test)]
mod tests;
