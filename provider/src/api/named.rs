//! Rows that are addressed by their own name, such as sites and peers: what their endpoints do alike.

use axum::{
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{Uri, header};
use serde_json::Value;
use tokio_postgres::types::Type;

use super::{
    Api, Problem,
    domains::{expected, one},
    fields::Fields,
    fragments::if_match,
    json,
    query::Parameters,
    write::{Op, Order, Step, Target},
};
use crate::{auth::Caller, row::Table};

/// Which rows, and what they are called.
pub(super) struct Named {
    pub table: Table,
    /// `site`.
    pub one: &'static str,
    /// The table and the endpoint: `sites`.
    pub all: &'static str,
    /// What a body has: `{"networks": [...], "tunnels": [...]}`.
    pub body: &'static str,
}

impl Named {
    pub(super) async fn list(&self, api: &Api, uri: &Uri) -> Result<Response, Problem> {
        Parameters::of(uri)?.done(&[])?;
        let client = api.pool.get().await?;
        let sql = format!("SELECT to_json(t)::text FROM {} t ORDER BY name", self.all);
        let rows = client.query_typed(&sql, &[]).await?;
        let rows = rows.iter().map(|row| Ok(serde_json::from_str(row.try_get(0)?).unwrap_or_default()));
        let rows: Vec<Value> = rows.collect::<Result<_, tokio_postgres::Error>>()?;
        Ok(axum::Json(rows).into_response())
    }

    pub(super) async fn insert(&self, api: &Api, caller: &Caller, request: Request) -> Result<Response, Problem> {
        let (order, body) = Order::with_body(request, caller, json::LIMIT).await?;
        let op = Op::Insert(Fields::read(self.table, &body)?);
        one(api, &order, Step { table: self.table, op, expected: None }).await
    }

    pub(super) async fn get(&self, api: &Api, name: &str) -> Result<Response, Problem> {
        let client = api.pool.get().await?;
        let sql = format!("SELECT to_json(t)::text, version FROM {} t WHERE name = $1", self.all);
        let rows = client.query_typed(&sql, &[(&name, Type::TEXT)]).await?;
        let row = rows.first().ok_or_else(|| {
            Problem::not_found(format!("there is no {} of this name", self.one))
                .remedy(format!("GET /api/{} lists them", self.all))
        })?;
        let (text, version): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let headers = [(header::ETAG, format!("\"{version}\"")), (header::CONTENT_TYPE, "application/json".to_owned())];
        Ok((headers, text).into_response())
    }

    pub(super) async fn put(
        &self,
        api: &Api,
        caller: &Caller,
        name: String,
        request: Request,
    ) -> Result<Response, Problem> {
        let order = Order::of(&request, caller)?;
        let expected = if_match(api, &request)?;
        let mut fields: Value = json::read(&json::body(request, json::LIMIT).await?)?;
        let given = fields
            .as_object_mut()
            .ok_or_else(|| Problem::invalid(".", "the body is not an object").remedy(format!("send {}", self.body)))?;
        if given.get("name").is_some_and(|value| *value != *name) {
            return Err(Problem::invalid("name", "`name` is not that of the path")
                .remedy(format!("leave it out; to rename a {} make a new one and delete this", self.one)));
        }
        given.insert("name".to_owned(), name.as_str().into());
        let op = Op::Put(Target::Called(name), Fields::from_value(self.table, &fields)?);
        one(api, &order, Step { table: self.table, op, expected }).await
    }

    pub(super) async fn delete(
        &self,
        api: &Api,
        caller: &Caller,
        name: String,
        request: Request,
    ) -> Result<Response, Problem> {
        let (order, expected) = (Order::of(&request, caller)?, expected(api, request.headers())?);
        drop(request);
        one(api, &order, Step { table: self.table, op: Op::Delete(Target::Called(name)), expected }).await
    }
}
