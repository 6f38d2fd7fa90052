//! `POST /api/agents/{name}/report`: what an agent found. Delivered twice it counts once.

use axum::{
    Extension, Json,
    extract::{Path, Request, State},
};
use charliehub_proto::{agent::Received, report::Report};

use super::{agent_name, own, twice};
use crate::{
    agents::{store, watch::tell_transitions},
    api::{Api, Problem, json, query::Parameters},
    auth::Caller,
};

/// The largest body: some 20,000 findings.
const LIMIT: usize = 16 << 20;

/// Bytes of a check's name and of a target: they are keys of an index.
const LONGEST: usize = 2000;

/// `POST /api/agents/{name}/report`. At most 16 MiB.
#[utoipa::path(post, operation_id = "report", path = "/api/agents/{name}/report", tag = "agents", params(("name" = String, Path)),
    request_body = Report, responses((status = 200, body = Received, description = "It is kept, or was before"), Problem))]
pub(in crate::api) async fn post(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<Received>, Problem> {
    let name = agent_name(name)?;
    own(&caller, &name)?;
    Parameters::of(request.uri())?.done(&[])?;
    let report: Report = json::read(&json::body(request, LIMIT).await?)?;
    check(&report)?;
    let mut client = api.pool.get().await?;
    let stored = store::store(&mut client, &name, &report).await?;
    if stored.new {
        api.agents.refresh(&**client).await?;
        tell_transitions(&api.events, &stored.transitions);
    }
    Ok(Json(Received {
        seq: u64::try_from(stored.seq).unwrap_or_default(),
        stored: stored.new,
        transitions: stored.transitions.len(),
        expected: api.expectations.of(&name).map(|ready| ready.expected.digest.clone()),
    }))
}

/// What the types do not say.
fn check(report: &Report) -> Result<(), Problem> {
    if report.seq == 0 || i64::try_from(report.seq).is_err() {
        return Err(Problem::invalid("seq", "it is not 1 to 9223372036854775807").remedy("count reports from 1 on"));
    }
    let digest = report.expected.as_deref().unwrap_or_default();
    for (field, text) in [("version", &*report.version), ("expected", digest)] {
        if text.len() > LONGEST {
            return Err(
                Problem::invalid(field, format!("`{field}` is longer than {LONGEST} bytes")).remedy("shorten it")
            );
        }
    }
    for (at, finding) in report.findings.iter().enumerate() {
        for (field, text) in [("check", &finding.check), ("target", &finding.target)] {
            if !(1..=LONGEST).contains(&text.len()) {
                let field = format!("findings[{at}].{field}");
                return Err(Problem::invalid(&field, format!("`{field}` is not 1 to {LONGEST} bytes long"))
                    .remedy("give a short and stable name"));
            }
        }
    }
    for (at, endpoint) in report.endpoints.iter().enumerate() {
        for (field, text) in [("site", &endpoint.site), ("interface", &endpoint.interface)] {
            if !(1..=LONGEST).contains(&text.len()) {
                let field = format!("endpoints[{at}].{field}");
                return Err(Problem::invalid(&field, format!("`{field}` is not 1 to {LONGEST} bytes long"))
                    .remedy("give the name as the site's row has it"));
            }
        }
    }
    if let Some(at) = twice(report.endpoints.iter().map(|endpoint| (&endpoint.site, &endpoint.interface))) {
        return Err(Problem::invalid(&format!("endpoints[{at}]"), "its site and interface are there twice")
            .remedy("report one endpoint of each tunnel"));
    }
    match twice(report.findings.iter().map(|finding| (&finding.check, &finding.target))) {
        Some(at) => Err(Problem::invalid(&format!("findings[{at}]"), "its check and target are there twice")
            .remedy("report one finding of each target")),
        None => Ok(()),
    }
}
