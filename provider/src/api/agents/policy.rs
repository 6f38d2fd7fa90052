//! `/api/agents/{name}/policy`: what that host must have.

use axum::{
    Extension,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use charliehub_proto::{change::WrittenPolicy, policy::Policy};
use http::header;
use serde_json::{Value, json};
use tokio_postgres::types::Type;

use super::agent_name;
use crate::{
    api::{
        Api, Problem,
        domains::one,
        fields::Fields,
        fragments::if_match,
        json,
        write::{Op, Order, Step, Target, Writing},
    },
    auth::Caller,
    row::Table,
};

/// `GET /api/agents/{name}/policy`.
#[utoipa::path(get, operation_id = "get_policy", path = "/api/agents/{name}/policy", tag = "agents", params(("name" = String, Path)),
    responses((status = 200, body = Policy, description = "What its host must have"), Problem))]
pub(in crate::api) async fn get(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, Problem> {
    let name = agent_name(name)?;
    let client = api.pool.get().await?;
    let sql = "SELECT body::text, version FROM policies WHERE agent = $1";
    let rows = client.query_typed(sql, &[(&name, Type::TEXT)]).await?;
    let row = rows
        .first()
        .ok_or_else(|| Problem::not_found("there is no policy for this agent").remedy("make one with PUT"))?;
    let (text, version): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    let headers = [(header::ETAG, format!("\"{version}\"")), (header::CONTENT_TYPE, "application/json".to_owned())];
    Ok((headers, text).into_response())
}

/// `PUT /api/agents/{name}/policy`: replaces it, or makes it. `{}`: nothing is checked.
#[utoipa::path(put, operation_id = "put_policy", path = "/api/agents/{name}/policy", tag = "agents", params(("name" = String, Path), Writing, ("If-Match" = Option<String>, Header), ("X-Change-Reason" = Option<String>, Header)), request_body = Policy,
    responses((status = 200, body = WrittenPolicy, description = "The policy, and what the write did"), (status = 201, body = WrittenPolicy, description = "The new policy, and what the write did"), Problem))]
pub(in crate::api) async fn put(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (name, order) = (agent_name(name)?, Order::of(&request, &caller)?);
    let expected = if_match(&api, &request)?;
    let body = json::body(request, json::LIMIT).await?;
    // For the names of its fields as the client has them.
    json::read::<Policy>(&body)?;
    let policy: Value = json::read(&body)?;
    let fields = Fields::from_value(Table::Policies, &json!({ "agent": name, "body": policy }))?;
    let op = Op::Put(Target::Called(name), fields);
    one(&api, &order, Step { table: Table::Policies, op, expected }).await
}
