//! Events and changes of rows as one list in the order of time, for `GET /api/audit` and `audit-report`.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::{GenericClient, types::Type};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub actor: Option<String>,
    /// A kind such as `token.create`, or all of `token`.
    pub kind: Option<String>,
    /// Only what comes behind this one, in the order asked for.
    pub behind: Option<Place>,
    pub newest_first: bool,
    pub limit: i64,
}

/// Where an entry stands: no two are at the same place, and none ever moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// To the microsecond, as the database says it.
    pub at: String,
    pub chain: i32,
    pub number: i64,
    pub seq: i64,
}

/// An event, or one row's part in a change.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AuditEntry)]
pub struct Entry {
    pub at: Timestamp,
    /// `row.insert`, `row.update`, `row.delete`, `row.truncate`, or the kind of the event.
    pub kind: String,
    /// Who it was, as the writer said.
    pub actor: String,
    pub source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Who it was, as the database knows; of changes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// `domains` or `fragments`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The row's name, as it is called in Traefik.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The fields that an update changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What else an event says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
    #[serde(skip)]
    pub place: Place,
}

const MERGED: &str = "
    SELECT * FROM (
        SELECT e.at, 0 AS chain, e.id AS number, 0::bigint AS seq, e.kind, e.actor, e.source, e.address,
               NULL::text AS db_user, NULL::bigint AS revision, NULL::text AS tbl, NULL::text AS key, NULL::text AS name,
               '{}'::text[] AS fields, NULL::text AS request_id, NULL::text AS reason, e.detail
          FROM audit_events e
         WHERE ($1::timestamptz IS NULL OR e.at >= $1) AND ($2::timestamptz IS NULL OR e.at < $2)
        UNION ALL
        SELECT r.at, 1, r.revision, h.seq,
               CASE h.op WHEN 'I' THEN 'row.insert' WHEN 'U' THEN 'row.update' WHEN 'D' THEN 'row.delete'
                         ELSE 'row.truncate' END,
               r.actor, r.source, r.address, r.db_user::text, r.revision, h.tbl, h.key,
               ch_row_name(h.tbl, coalesce(h.new, h.old)),
               CASE h.op WHEN 'U' THEN ARRAY(SELECT n.key FROM jsonb_each(h.new) n
                                              WHERE h.old -> n.key IS DISTINCT FROM n.value
                                                AND n.key NOT IN ('version', 'updated_at') ORDER BY 1) ELSE '{}' END,
               r.request_id, r.reason, NULL::jsonb
          FROM revisions r JOIN history h USING (revision)
         WHERE ($1::timestamptz IS NULL OR r.at >= $1) AND ($2::timestamptz IS NULL OR r.at < $2)) merged
     WHERE ($3::text IS NULL OR actor = $3) AND ($4::text IS NULL OR kind = $4 OR starts_with(kind, $4 || '.'))
       AND ($5::text IS NULL OR ";

/// The entries that `filter` asks for.
pub async fn entries(client: &impl GenericClient, filter: &Filter) -> Result<Vec<Entry>, tokio_postgres::Error> {
    let (beyond, order) = if filter.newest_first { ("<", "DESC") } else { (">", "ASC") };
    let sql = format!(
        "SELECT m.*, ch_utc(m.at) AS at_text FROM ({MERGED} (at, chain, number, seq) {beyond} ($5::timestamptz, $6, $7, $8))) m
          ORDER BY at {order}, chain {order}, number {order}, seq {order} LIMIT $9"
    );
    let behind = filter.behind.as_ref();
    let at = behind.map(|place| place.at.as_str());
    let (chain, number, seq) = behind.map_or((0, 0, 0), |place| (place.chain, place.number, place.seq));
    let rows = client
        .query_typed(
            &sql,
            &[
                (&filter.since, Type::TIMESTAMPTZ),
                (&filter.until, Type::TIMESTAMPTZ),
                (&filter.actor, Type::TEXT),
                (&filter.kind, Type::TEXT),
                (&at, Type::TEXT),
                (&chain, Type::INT4),
                (&number, Type::INT8),
                (&seq, Type::INT8),
                (&filter.limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter().map(entry).collect()
}

fn entry(row: &tokio_postgres::Row) -> Result<Entry, tokio_postgres::Error> {
    Ok(Entry {
        at: row.try_get("at")?,
        kind: row.try_get("kind")?,
        actor: row.try_get("actor")?,
        source: row.try_get("source")?,
        address: row.try_get("address")?,
        db_user: row.try_get("db_user")?,
        revision: row.try_get("revision")?,
        table: row.try_get("tbl")?,
        id: row.try_get("key")?,
        name: row.try_get("name")?,
        fields: row.try_get("fields")?,
        request_id: row.try_get("request_id")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
        place: Place {
            at: row.try_get("at_text")?,
            chain: row.try_get("chain")?,
            number: row.try_get("number")?,
            seq: row.try_get("seq")?,
        },
    })
}
