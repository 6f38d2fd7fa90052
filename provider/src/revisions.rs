//! What history tells: who changed what, when and why, what that meant for Traefik, and the exact bytes.
//!
//! Between the tables `revisions`, `history` and `snapshots`, and those who ask: the API and the commands. What Traefik was
//! given is told from the bytes where they are kept, else from what the rows of that time compile to.

use std::{collections::BTreeSet, io, sync::Arc};

use charliehub_proto::revision::{Changed, Commit, Compared, Revision, RouteChange, RowChange, RowOp, Withheld};
use serde_json::Value;
use tokio_postgres::{GenericClient, Row as Found, error::SqlState, types::Type};

use crate::{
    compile::{Compiler, Settings},
    config::Selector,
    diff,
    mask::mask,
    postgres,
    row::{Key, Row, Rows},
    snapshot::{disk::gunzip, encode::Draft},
    store::{read, rows::name},
};

/// The rows of one revision, before and after.
const ROWS: &str = "SELECT json_build_object('table', tbl, 'key', key, 'name',
    CASE tbl WHEN 'domains' THEN concat(coalesce(new, old) ->> 'domain', nullif(coalesce(new, old) ->> 'path_prefix', '/'))
    WHEN 'sites' THEN concat('site ', coalesce(new, old) ->> 'name')
    WHEN 'policies' THEN concat('policy of ', coalesce(new, old) ->> 'agent')
    WHEN 'peers' THEN concat('peer ', coalesce(new, old) ->> 'name')
    ELSE concat(coalesce(new, old) ->> 'kind', ' ', coalesce(new, old) ->> 'name') END,
    'op', CASE op WHEN 'I' THEN 'insert' WHEN 'U' THEN 'update' ELSE 'delete' END,
    'before', old, 'after', new)::text, revision
    FROM charliehub.history WHERE revision = $1 ORDER BY seq";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no revision {0}")]
    Unknown(i64),
    #[error("the rows of revision {revision} are not kept any more; the oldest that are kept are those of {floor}")]
    NotKept { revision: i64, floor: i64 },
    #[error("what is kept of revision {0} cannot be read: {1}")]
    Damaged(i64, io::Error),
    #[error(transparent)]
    Database(#[from] postgres::Error),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Whether secrets are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    Shown,
    Masked,
}

const COMMIT: &str = "'revision', r.revision, 'at', r.at, 'actor', r.actor, 'source', r.source, 'address', r.address,
    'request_id', r.request_id, 'reason', r.reason, 'db_user', r.db_user, 'db_address', host(r.db_address),
    'application', r.application, 'state', s.state, 'digest', s.digest, 'pinned', coalesce(s.pinned, false)";
/// The newest config of a revision speaks for it; one that is pinned pins it.
const SNAPSHOT: &str = "LEFT JOIN LATERAL (
    SELECT state, digest, bool_or(pinned) OVER () AS pinned FROM charliehub.snapshots
     WHERE revision = r.revision AND token = r.token AND part IS NULL ORDER BY id DESC LIMIT 1) s ON true";

/// At most `limit` revisions older than `before`, the newest first.
pub async fn list(client: &impl GenericClient, before: Option<i64>, limit: i64) -> Result<Vec<Revision>, Error> {
    let sql = format!(
        "SELECT json_build_object({COMMIT},
                'changes', (SELECT count(*) FROM charliehub.history h WHERE h.revision = r.revision))::text, r.revision
           FROM charliehub.revisions r {SNAPSHOT}
          WHERE $1::bigint IS NULL OR r.revision < $1 ORDER BY r.revision DESC LIMIT $2"
    );
    let rows = client.query_typed(&sql, &[(&before, Type::INT8), (&limit, Type::INT8)]).await?;
    rows.iter().map(decode).collect()
}

/// The revision `n` with the rows before and after, and what it changed for Traefik.
pub async fn changed(
    client: &impl GenericClient,
    n: i64,
    settings: &Arc<Settings>,
    secrets: Secrets,
) -> Result<Changed, Error> {
    let sql = format!(
        "SELECT json_build_object({COMMIT})::text, r.revision FROM charliehub.revisions r {SNAPSHOT} WHERE r.revision = $1"
    );
    let found = client.query_typed(&sql, &[(&n, Type::INT8)]).await?;
    let commit: Commit = decode(found.first().ok_or(Error::Unknown(n))?)?;
    let rows = client.query_typed(ROWS, &[(&n, Type::INT8)]).await?;
    let mut changes: Vec<RowChange> = rows.iter().map(decode).collect::<Result<_, Error>>()?;
    let mut routes = match (rows_of(client, n - 1).await, rows_of(client, n).await) {
        (Ok(before), Ok(after)) => {
            let found = diff::configs(&compiled(n, &before, settings)?, &compiled(n, &after, settings)?);
            Some(found.into_iter().map(RouteChange::from).collect::<Vec<_>>())
        }
        (Err(Error::NotKept { .. }), _) | (_, Err(Error::NotKept { .. })) => None,
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    if secrets == Secrets::Masked {
        hide_in_rows(&mut changes);
        hide_in_routes(routes.iter_mut().flatten());
    }
    Ok(Changed { commit, changes, routes })
}

/// The bytes of revision `n` as they were compiled, where they are kept.
pub async fn exact(client: &impl GenericClient, n: i64) -> Result<Option<Vec<u8>>, Error> {
    const EXACT: &str = "SELECT charliehub.snapshot_body(b) FROM charliehub.snapshots s JOIN charliehub.snapshot_bodies b USING (digest)
        WHERE s.revision = $1 AND s.part IS NULL ORDER BY s.id DESC LIMIT 1";
    let found = client.query_typed(EXACT, &[(&n, Type::INT8)]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    gunzip(row.try_get(0)?).map(Some).map_err(|error| Error::Damaged(n, error))
}

/// The number of the newest revision.
pub async fn newest(client: &impl GenericClient) -> Result<i64, Error> {
    Ok(client.query_one("SELECT n FROM charliehub.revision", &[]).await?.try_get(0)?)
}

/// What is different between revisions `a` and `b`.
pub async fn compare(
    client: &impl GenericClient,
    (a, b): (i64, i64),
    settings: &Arc<Settings>,
    secrets: Secrets,
) -> Result<Compared, Error> {
    let (before, after) = (rows_of(client, a).await?, rows_of(client, b).await?);
    let mut configs = Vec::new();
    for (n, rows) in [(a, &before), (b, &after)] {
        configs.push(match exact(client, n).await? {
            Some(bytes) => parsed(n, &bytes)?,
            None => compiled(n, rows, settings)?,
        });
    }
    let [old, new] = configs.as_mut_slice() else { return Err(Error::Unknown(a)) };
    let mut rows = between(&before, &after);
    let found = diff::configs(old, new);
    let mut routes: Vec<RouteChange> = found.into_iter().map(RouteChange::from).collect();
    if secrets == Secrets::Masked {
        // After the comparison: a secret that changed is a difference too.
        hide_in_rows(&mut rows);
        hide_in_routes(routes.iter_mut());
        mask(old);
        mask(new);
    }
    let text = diff::text((&format!("revision {a}"), &format!("revision {b}")), old, new);
    Ok(Compared { routes, rows, text })
}

/// The changes that wait for an administrator, oldest first, each beside what runs.
pub async fn withheld(client: &impl GenericClient, secrets: Secrets) -> Result<Vec<Withheld>, Error> {
    const WAITING: &str = "SELECT json_build_object('revision', s.revision, 'at', s.created_at, 'held_by', s.reason,
            'actor', r.actor, 'source', r.source, 'reason', r.reason, 'routes', s.routes, 'quarantined', s.quarantined,
            'diff', json_build_array())::text, s.revision, charliehub.snapshot_body(b), s.part
        FROM charliehub.snapshots s JOIN charliehub.snapshot_bodies b USING (digest)
        LEFT JOIN charliehub.revisions r ON r.revision = s.revision AND r.token = s.token
        WHERE s.state = 'withheld' ORDER BY s.id";
    const RUNS: &str = "SELECT s.revision, charliehub.snapshot_body(b) FROM charliehub.snapshots s
        JOIN charliehub.snapshot_bodies b USING (digest)
        WHERE s.state IN ('served', 'approved') AND s.part IS NOT DISTINCT FROM $1 ORDER BY s.id DESC LIMIT 1";
    let mut waiting = Vec::new();
    for row in client.query_typed(WAITING, &[]).await? {
        let mut one: Withheld = decode(&row)?;
        let part: Option<Value> = row.try_get(3)?;
        let runs = client.query_typed(RUNS, &[(&part, Type::JSONB)]).await?;
        let runs = match runs.first() {
            Some(row) => unpacked(row.try_get(0)?, row.try_get(1)?)?,
            None => Value::Null,
        };
        one.part = part.and_then(|part| serde_json::from_value(part).ok()).map(|part: Selector| part.to_string());
        let found = diff::configs(&runs, &unpacked(one.revision, row.try_get(2)?)?);
        one.diff = found.into_iter().map(RouteChange::from).collect();
        if secrets == Secrets::Masked {
            hide_in_routes(one.diff.iter_mut());
        }
        waiting.push(one);
    }
    Ok(waiting)
}

/// The JSON that is the first column of a row whose second is the revision.
fn decode<T: serde::de::DeserializeOwned>(row: &Found) -> Result<T, Error> {
    let (text, revision): (&str, i64) = (row.try_get(0)?, row.try_get(1)?);
    serde_json::from_str(text).map_err(|error| Error::Damaged(revision, error.into()))
}

fn parsed(n: i64, bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Damaged(n, error.into()))
}

fn unpacked(n: i64, gzip: &[u8]) -> Result<Value, Error> {
    parsed(n, &gunzip(gzip).map_err(|error| Error::Damaged(n, error))?)
}

/// All rows as they were at `n`; before the first revision there were none.
async fn rows_of(client: &impl GenericClient, n: i64) -> Result<Rows, Error> {
    match read::as_of(client, n).await {
        Ok(rows) => Ok(read::by_key(rows)),
        Err(error) if error.code() == Some(&SqlState::NO_DATA_FOUND) => {
            let row = client.query_one("SELECT n, floor FROM charliehub.revision", &[]).await?;
            let (newest, floor): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            Err(if n > newest || n < 0 { Error::Unknown(n) } else { Error::NotKept { revision: n, floor } })
        }
        Err(error) => Err(error.into()),
    }
}

/// What rows compile to, as Traefik would get it.
fn compiled(n: i64, rows: &Rows, settings: &Arc<Settings>) -> Result<Value, Error> {
    let compiler = Compiler::of(settings, rows.clone());
    parsed(n, &Draft::new(compiler.pieces()).finish().identity())
}

/// The rows that are not the same.
fn between(before: &Rows, after: &Rows) -> Vec<RowChange> {
    let keys: BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
    let change = |key: &Key| {
        let (old, new) = (before.get(key), after.get(key));
        let op = match (old, new) {
            (None, _) => RowOp::Insert,
            (_, None) => RowOp::Delete,
            (Some(old), Some(new)) if old == new => return None,
            (Some(_), Some(_)) => RowOp::Update,
        };
        Some(RowChange {
            table: name(key.table).to_owned(),
            key: key.id.to_string(),
            name: new.or(old).map(|row| row.name()).unwrap_or_default(),
            op,
            before: old.map(|row| json(row)),
            after: new.map(|row| json(row)),
        })
    };
    keys.into_iter().filter_map(change).collect()
}

fn json(row: &Row) -> Value {
    match row {
        Row::Domain(row) => serde_json::to_value(row).unwrap_or_default(),
        Row::Fragment(row) => serde_json::to_value(row).unwrap_or_default(),
        Row::Site(row) => serde_json::to_value(row).unwrap_or_default(),
        Row::Policy(row) => serde_json::to_value(row).unwrap_or_default(),
        Row::Peer(row) => serde_json::to_value(row).unwrap_or_default(),
        Row::Bad(row) => row.raw.clone(),
    }
}

fn hide_in_rows(rows: &mut [RowChange]) {
    for row in rows.iter_mut().filter(|row| row.table == "fragments") {
        for side in [&mut row.before, &mut row.after].into_iter().flatten() {
            side.get_mut("body").into_iter().for_each(mask);
        }
    }
}

fn hide_in_routes<'a>(routes: impl Iterator<Item = &'a mut RouteChange>) {
    routes.flat_map(|one| [&mut one.before, &mut one.after]).flatten().for_each(mask);
}
