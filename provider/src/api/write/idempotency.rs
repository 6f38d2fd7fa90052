//! The same request twice counts once: what `Idempotency-Key` is for.
//!
//! The answer is kept in the transaction of the write, for a day and for each token of its own. The same key with
//! another body is a mistake, and said to be one.

use charliehub_proto::change::Change;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio_postgres::{Client, types::Type};
use uuid::Uuid;

use super::{Applied, Failure};
use crate::api::Problem;

const HEADER: &str = "idempotency-key";

/// What a client calls its request.
pub(in crate::api) struct Key(String);

impl Key {
    pub(super) fn read(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(header) = headers.get(HEADER) else { return Ok(None) };
        let text = header.to_str().unwrap_or_default();
        if (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Some(Self(text.to_owned())));
        }
        Err(Problem::invalid("Idempotency-Key", "it is not 1 to 200 printable characters without blanks")
            .remedy("send a UUID, a new one for each new request"))
    }
}

/// A request with a key.
pub(in crate::api) struct Idempotency {
    key: Key,
    consumer: Uuid,
    request: Vec<u8>,
}

/// What was answered, but for what is served by now.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) rows: Vec<Applied>,
    pub(super) change: Change,
}

impl Idempotency {
    pub(super) fn new(key: Key, consumer: Uuid, body: &[u8]) -> Self {
        Self { key, consumer, request: Sha256::digest(body).to_vec() }
    }

    /// The answer to the request, when it was done before.
    pub(super) async fn find(&self, transaction: &Client) -> Result<Option<Kept>, Failure> {
        let sql = "SELECT request, answer::text FROM idempotency WHERE consumer = $1 AND key = $2";
        let found = transaction.query_typed(sql, &[(&self.consumer, Type::UUID), (&self.key.0, Type::TEXT)]).await?;
        let Some(row) = found.first() else { return Ok(None) };
        let (request, answer): (Vec<u8>, String) = (row.try_get(0)?, row.try_get(1)?);
        if request != self.request {
            let detail = "this key was sent with another body before";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency", "The key is used", detail)
                .field("Idempotency-Key")
                .remedy("use a new key for a new request")
                .into());
        }
        Ok(serde_json::from_str(&answer).ok())
    }

    /// Remembers the answer, and forgets those of yesterday.
    pub(super) async fn keep(&self, transaction: &Client, kept: &Kept) -> Result<(), Failure> {
        let answer = serde_json::to_string(kept).map_err(|_| Problem::internal())?;
        let sql = "WITH old AS (DELETE FROM idempotency WHERE created_at < now() - interval '1 day')
                   INSERT INTO idempotency (consumer, key, request, answer) VALUES ($1, $2, $3, $4::text::json)";
        let (consumer, key, request) = (&self.consumer, &self.key.0, &self.request);
        transaction
            .execute_typed(
                sql,
                &[(consumer, Type::UUID), (key, Type::TEXT), (request, Type::BYTEA), (&answer, Type::TEXT)],
            )
            .await?;
        Ok(())
    }
}
