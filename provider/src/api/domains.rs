//! `/api/domains`: the rows of the source of truth, as they are in the database.
//!
//! What may stand in a row is decided by the database alone, so that the API and `psql` refuse the same; what a client
//! can mend without it (JSON, types, names of fields) is refused before.

mod new;

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt as _, stream};
use http::{HeaderMap, StatusCode, header};
use tokio_postgres::{
    Row,
    error::SqlState,
    types::{ToSql, Type},
};

use self::new::New;
use super::{Api, Problem, RequestId, address, json};
use crate::{
    auth::Caller,
    author::Author,
    postgres::{Error, Pool, Pooled},
};

/// Rows are sent in pieces of about this many bytes.
const PIECE: usize = 64 << 10;
/// How often a write is tried that others were in the way of.
const ATTEMPTS: u32 = 3;

/// `GET /api/domains`: all rows, a bare array, streamed.
pub async fn list(State(api): State<Api>) -> Result<Response, Problem> {
    let client = api.pool.get().await?;
    let sql = "SELECT to_json(d)::text FROM domains d ORDER BY domain, path_prefix, protocol, tcp_entrypoint";
    let rows = client.query_raw(sql, std::iter::empty::<&str>()).await?;
    // The first row is awaited here: an error still has a status of its own.
    let mut rows = Box::pin(rows);
    let kind = [(header::CONTENT_TYPE, "application/json")];
    let Some(first) = rows.try_next().await? else { return Ok((kind, "[]\n").into_response()) };
    let mut piece = BytesMut::from("[");
    piece.extend_from_slice(first.try_get::<_, &str>(0)?.as_bytes());
    let pieces = stream::try_unfold(Some((client, rows, piece)), async |state| {
        let Some((client, mut rows, mut piece)) = state else { return Ok(None) };
        while piece.len() < PIECE {
            let Some(row) = rows.try_next().await? else {
                piece.extend_from_slice(b"]\n");
                return Ok(Some((piece.freeze(), None)));
            };
            piece.extend_from_slice(b",\n");
            piece.extend_from_slice(row.try_get::<_, &str>(0)?.as_bytes());
        }
        let full: Bytes = piece.split().freeze();
        Ok::<_, tokio_postgres::Error>(Some((full, Some((client, rows, piece)))))
    });
    Ok((kind, Body::from_stream(pieces)).into_response())
}

/// `POST /api/domains`: inserts one row; 201, its place and the row as it is then.
pub async fn insert(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    let author = Author {
        actor: caller.name,
        source: "api",
        address: address(&request).to_string(),
        request_id,
        reason: reason(request.headers()),
    };
    let new = New::read(&json::body(request).await?)?;
    let columns = new.columns().join(", ");
    let sql = format!(
        "INSERT INTO domains ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::domains, $1)
         RETURNING id::text, to_json(domains.*)::text"
    );
    let row = run(&author, &api.pool, &sql, new.json()).await?;
    let (id, json): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let headers =
        [(header::LOCATION, format!("/api/domains/{id}")), (header::CONTENT_TYPE, "application/json".to_owned())];
    Ok((StatusCode::CREATED, headers, json + "\n").into_response())
}

/// Why, in the words of the client: `X-Change-Reason`.
fn reason(headers: &HeaderMap) -> String {
    let header = headers.get("x-change-reason").map(http::HeaderValue::as_bytes).unwrap_or_default();
    String::from_utf8_lossy(header).into_owned()
}

/// Runs a statement that returns one row, in a transaction of its own.
async fn run(author: &Author, pool: &Pool, sql: &str, json: &serde_json::Value) -> Result<Row, Problem> {
    let mut number = 1;
    loop {
        let mut client = pool.get().await?;
        let error = match attempt(author, &mut client, sql, json).await {
            Ok(row) => return row.ok_or_else(Problem::internal),
            Err(error) => error,
        };
        match error.code() {
            Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED) if number < ATTEMPTS => {
                number += 1;
            }
            Some(&SqlState::LOCK_NOT_AVAILABLE) => return Err(blocked(&client).await),
            _ => return Err(error.into()),
        }
    }
}

async fn attempt(
    author: &Author,
    client: &mut Pooled,
    sql: &str,
    json: &serde_json::Value,
) -> Result<Option<Row>, tokio_postgres::Error> {
    // The pool's own kind of transaction only adds a cache of statements.
    let transaction = tokio_postgres::Client::transaction(client).await?;
    let row: [(&(dyn ToSql + Sync), Type); 1] = [(json, Type::JSONB)];
    // Sent one after the other without waiting; the server takes them in this order.
    let ((), rows) = tokio::try_join!(author.sign(&transaction), transaction.query_typed(sql, &row))?;
    transaction.commit().await?;
    Ok(rows.into_iter().next())
}

/// A write waited for the revision lock until its time was up: whose transaction holds it?
async fn blocked(client: &Pooled) -> Problem {
    let holder = "SELECT a.pid, a.application_name, extract(epoch FROM clock_timestamp() - a.xact_start)::bigint
                    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                   WHERE l.relation = 'revision'::regclass AND l.granted AND l.pid <> pg_backend_pid()
                     AND l.mode IN ('RowShareLock', 'RowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
                   ORDER BY a.xact_start LIMIT 1";
    let found = client.query_opt(holder, &[]).await.map_err(Error::from);
    let Ok(Some(row)) = found else {
        return Problem::unavailable(2, "another session held the revision lock, and is gone by now");
    };
    let pid: i32 = row.try_get(0).unwrap_or_default();
    let application = row.try_get::<_, Option<String>>(1).ok().flatten().filter(|name| !name.is_empty());
    let seconds: i64 = row.try_get::<_, Option<i64>>(2).ok().flatten().unwrap_or_default();
    let application = application.unwrap_or_else(|| "an unnamed application".to_owned());
    Problem::unavailable(
        2,
        format!("process {pid} ({application}) holds the revision lock in a transaction that is {seconds} s old"),
    )
    .remedy(format!("commit or roll back there, or: SELECT pg_terminate_backend({pid})"))
}
