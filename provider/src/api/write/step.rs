//! One change of one row, from what the client sent to the statement that does it.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::Failure;
use crate::{
    api::{Problem, fields::Fields},
    auth::Scope,
    row::{Key, Rows, Table},
    store::rows::{decode, name, select},
};

/// The row that a step is about.
#[derive(Clone, Debug)]
pub(in crate::api) enum Target {
    Id(Uuid),
    /// A fragment, by its kind and name.
    Named(String, String),
    /// A site or a peer by its name, a policy by its agent.
    Called(String),
}

#[derive(Clone, Debug)]
pub(in crate::api) enum Op {
    Insert(Fields),
    /// What is not given gets its default.
    Replace(Target, Fields),
    /// Replaces the row, or inserts it where there is none.
    Put(Target, Fields),
    /// RFC 7396: what is not given stays, `null` is the default again.
    Merge(Target, Map<String, Value>),
    Delete(Target),
}

/// A change of one row; with the version that the client has seen, if it says so.
#[derive(Clone, Debug)]
pub(in crate::api) struct Step {
    pub(in crate::api) table: Table,
    pub(in crate::api) op: Op,
    pub(in crate::api) expected: Option<i64>,
}

/// A row after its step; as it was, where it is gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::api) struct Applied {
    pub(in crate::api) key: Key,
    pub(in crate::api) version: i64,
    /// It was not there before.
    pub(in crate::api) created: bool,
    /// As in `GET`.
    pub(in crate::api) json: String,
}

/// Each row that was touched, as it was before all steps and as it is after them.
#[derive(Default)]
pub(super) struct Touched {
    pub(super) before: Rows,
    pub(super) after: Rows,
    /// Whose rows may be touched.
    scope: Scope,
}

impl Touched {
    pub(super) fn of(scope: Scope) -> Self {
        Self { scope, ..Self::default() }
    }

    /// False when every row is what it was.
    pub(super) fn is_change(&self) -> bool {
        self.before != self.after
    }

    fn step(&mut self, before: Option<&Found>, after: Option<&Found>) {
        let Some(key) = before.or(after).map(|found| found.key) else { return };
        let first = !self.before.contains_key(&key) && !self.after.contains_key(&key);
        if let Some(before) = before.filter(|_| first) {
            self.before.insert(key, Arc::clone(&before.row));
        }
        match after {
            Some(after) => self.after.insert(key, Arc::clone(&after.row)),
            None => self.after.remove(&key),
        };
    }
}

/// A row as the database has it.
struct Found {
    key: Key,
    row: Arc<crate::row::Row>,
    version: i64,
    json: String,
}

impl Found {
    fn read(table: Table, row: &Row) -> Result<Self, Failure> {
        let decoded = decode(table, row, 2).and_then(|fetched| Some((fetched.key, fetched.row?)));
        let (key, decoded) = decoded.ok_or_else(Problem::internal)?;
        Ok(Self { key, row: decoded, json: row.try_get(0)?, version: row.try_get(1)? })
    }

    fn applied(self, created: bool) -> Applied {
        Applied { key: self.key, version: self.version, created, json: self.json }
    }
}

/// What is read of a row: for the client, and for the compiler.
fn columns(table: Table) -> String {
    format!("to_json(t)::text, t.version, {}", select(table))
}

impl Step {
    /// Does it; the errors are those that the client can mend.
    pub(super) async fn apply(&self, transaction: &Client, touched: &mut Touched) -> Result<Applied, Failure> {
        match &self.op {
            Op::Insert(fields) => self.insert(transaction, fields, touched).await,
            Op::Put(target, fields) => match self.find(transaction, target, touched).await? {
                Some(found) => {
                    self.check(transaction, &found).await?;
                    self.update(transaction, found, &fields.clone().all(self.table), touched).await
                }
                None if self.expected.is_some() => Err(missing(self.table).into()),
                None => self.insert(transaction, fields, touched).await,
            },
            Op::Replace(target, fields) => {
                let found = self.seen(transaction, target, touched).await?;
                self.update(transaction, found, &fields.clone().all(self.table), touched).await
            }
            Op::Merge(target, patch) => {
                let found = self.seen(transaction, target, touched).await?;
                let now: Map<String, Value> = serde_json::from_str(&found.json).map_err(|_| Problem::internal())?;
                let fields = Fields::merged(self.table, &now, patch)?;
                self.update(transaction, found, &fields, touched).await
            }
            Op::Delete(target) => {
                let found = self.seen(transaction, target, touched).await?;
                let sql = format!("DELETE FROM {} WHERE id = $1", name(self.table));
                transaction.execute_typed(&sql, &[(&found.key.id, Type::UUID)]).await?;
                touched.step(Some(&found), None);
                Ok(found.applied(false))
            }
        }
    }

    async fn insert(&self, transaction: &Client, fields: &Fields, touched: &mut Touched) -> Result<Applied, Failure> {
        let (table, list, json) = (name(self.table), fields.given().join(", "), fields.json());
        let sql = format!(
            "INSERT INTO {table} AS t ({list}) SELECT {list} FROM jsonb_populate_record(NULL::{table}, $1) RETURNING {}",
            columns(self.table)
        );
        let rows = transaction.query_typed(&sql, &[(&json, Type::JSONB)]).await?;
        let found = Found::read(self.table, rows.first().ok_or_else(Problem::internal)?)?;
        touched.step(None, Some(&found));
        Ok(found.applied(true))
    }

    async fn update(
        &self,
        transaction: &Client,
        found: Found,
        fields: &Fields,
        touched: &mut Touched,
    ) -> Result<Applied, Failure> {
        let table = name(self.table);
        let (list, json) = (fields.given().join(", "), fields.json());
        let mut sets: Vec<String> = fields.defaults().iter().map(|column| format!("{column} = DEFAULT")).collect();
        if !list.is_empty() {
            sets.push(format!("({list}) = (SELECT {list} FROM jsonb_populate_record(NULL::{table}, $2))"));
        }
        if sets.is_empty() {
            touched.step(Some(&found), Some(&found));
            return Ok(found.applied(false));
        }
        let sql =
            format!("UPDATE {table} AS t SET {} WHERE t.id = $1 RETURNING {}", sets.join(", "), columns(self.table));
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&found.key.id, Type::UUID), (&json, Type::JSONB)];
        let parameters = parameters.get(..if list.is_empty() { 1 } else { 2 }).unwrap_or_default();
        let rows = transaction.query_typed(&sql, parameters).await?;
        let now = Found::read(self.table, rows.first().ok_or_else(Problem::internal)?)?;
        touched.step(Some(&found), Some(&now));
        Ok(now.applied(false))
    }

    /// The row, when it is there and the token's.
    async fn find(&self, transaction: &Client, target: &Target, touched: &Touched) -> Result<Option<Found>, Failure> {
        let select = format!("SELECT {} FROM {} t", columns(self.table), name(self.table));
        let rows = match target {
            Target::Id(id) => {
                transaction.query_typed(&format!("{select} WHERE t.id = $1 FOR UPDATE"), &[(id, Type::UUID)]).await?
            }
            Target::Named(kind, name) => {
                let sql = format!("{select} WHERE t.kind = $1 AND t.name = $2 FOR UPDATE");
                transaction.query_typed(&sql, &[(kind, Type::TEXT), (name, Type::TEXT)]).await?
            }
            Target::Called(name) => {
                let column = if self.table == Table::Policies { "agent" } else { "name" };
                let sql = format!("{select} WHERE t.{column} = $1 FOR UPDATE");
                transaction.query_typed(&sql, &[(name, Type::TEXT)]).await?
            }
        };
        let found = rows.first().map(|row| Found::read(self.table, row)).transpose()?;
        if let Some(found) = &found
            && let crate::row::Row::Domain(row) = &*found.row
        {
            touched.scope.allows(row).map_err(Problem::from)?;
        }
        Ok(found)
    }

    /// The row as it is, when it is the one that the client has seen.
    async fn seen(&self, transaction: &Client, target: &Target, touched: &Touched) -> Result<Found, Failure> {
        let found = self.find(transaction, target, touched).await?.ok_or_else(|| missing(self.table))?;
        self.check(transaction, &found).await?;
        Ok(found)
    }

    async fn check(&self, transaction: &Client, found: &Found) -> Result<(), Failure> {
        let Some(expected) = self.expected.filter(|expected| *expected != found.version) else { return Ok(()) };
        let sql = "SELECT actor, source, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
                     FROM revisions WHERE revision = $1";
        let rows = transaction.query_typed(sql, &[(&found.version, Type::INT8)]).await?;
        let by = match rows.first() {
            Some(row) => {
                let (actor, source, at): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                format!("{actor} ({source}) changed it at {at}")
            }
            None => "it was changed since".to_owned(),
        };
        let detail = format!("the row is at version {}, not {expected}: {by}", found.version);
        Err(Problem::new(StatusCode::PRECONDITION_FAILED, "stale", "The row was changed meanwhile", detail)
            .field("If-Match")
            .remedy("read it again, and send your change with the version that you see then")
            .into())
    }
}

fn missing(table: Table) -> Problem {
    match table {
        Table::Domains => Problem::not_found("there is no row with this id").remedy("GET /api/domains lists them"),
        Table::Fragments => {
            Problem::not_found("there is no fragment of this kind and name").remedy("GET /api/fragments lists them")
        }
        Table::Sites => Problem::not_found("there is no site of this name").remedy("GET /api/sites lists them"),
        Table::Policies => Problem::not_found("there is no policy for this agent").remedy("make one with PUT"),
        Table::Peers => Problem::not_found("there is no peer of this name").remedy("GET /api/peers lists them"),
    }
}
