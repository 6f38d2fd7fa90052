//! Makes the rows in the database what they were, as a new revision.
//!
//! Never more open than they are now: what the newest row says about access is kept where it is narrower.

use std::{collections::BTreeSet, sync::Arc};

use charliehub_proto::{
    domain::{Domain, Protocol},
    peer::PeerRow,
};
use tokio_postgres::{Transaction, types::Type};

use crate::{
    compile::Compiler,
    publish::restricted,
    row::{Key, Row, Rows, Table},
    store::rows::{columns, name},
};

/// The rows that run while `newest` are withheld: those of the `base` whose routers are among the `running` ones (a row
/// may have been removed in a small step since), as narrow as the newest say.
pub fn rows_that_run(base: &Rows, newest: &Rows, running: &BTreeSet<String>) -> Rows {
    let compiler = Compiler::of(&Arc::default(), base.clone());
    let runs = |key: &Key| {
        let routers = compiler.route(key).map(|route| &route.routers);
        routers.is_none_or(|routers| routers.is_empty() || routers.iter().any(|(_, name)| running.contains(&**name)))
    };
    let base: Rows = base.iter().filter(|(key, _)| runs(key)).map(|(key, row)| (*key, Arc::clone(row))).collect();
    let mut rows = restricted(&base, newest);
    make_writable(&mut rows, newest);
    rows
}

/// Gives a list to rows that were narrowed to nobody: an intersection that is empty cannot be written down. The newest list
/// is narrow enough.
pub fn make_writable(rows: &mut Rows, newest: &Rows) {
    for (key, row) in rows {
        if let (Row::Domain(domain), Some(Row::Domain(now))) = (&**row, newest.get(key).map(|row| &**row))
            && domain.ip_allowlist.is_empty()
            && !now.ip_allowlist.is_empty()
        {
            let mut domain = domain.clone();
            (domain.access_tier, domain.ip_allowlist) = (now.access_tier, now.ip_allowlist.clone());
            *row = Arc::new(Row::Domain(domain));
        }
    }
}

/// What has to be written so that `now` becomes `target`. Rows that do not decode are left as they are.
pub fn changes<'a>(now: &'a Rows, target: &'a Rows) -> Vec<(&'a Key, Option<&'a Row>)> {
    let gone = now.iter().filter(|(key, row)| !target.contains_key(key) && !matches!(***row, Row::Bad(_)));
    let set = target.iter().filter(|(key, row)| !same(now.get(key), row));
    gone.map(|(key, _)| (key, None)).chain(set.map(|(key, row)| (key, Some(&**row)))).collect()
}

/// Alike but for the stamps that the database makes.
pub fn same(now: Option<&Arc<Row>>, target: &Row) -> bool {
    match (now.map(|row| &**row), target) {
        (Some(Row::Domain(now)), Row::Domain(target)) => {
            let mut target = target.clone();
            (target.created_at, target.updated_at, target.version) = (now.created_at, now.updated_at, now.version);
            *now == target
        }
        (Some(Row::Fragment(now)), Row::Fragment(target)) => {
            (&now.kind, &now.name, &now.body, now.enabled, &now.notes)
                == (&target.kind, &target.name, &target.body, target.enabled, &target.notes)
        }
        (Some(Row::Site(now)), Row::Site(target)) => now.site == target.site,
        (Some(Row::Policy(now)), Row::Policy(target)) => (&now.agent, &now.body) == (&target.agent, &target.body),
        (Some(Row::Peer(now)), Row::Peer(target)) => now.peer == target.peer,
        (_, Row::Bad(_)) => true,
        _ => false,
    }
}

/// Why the rows cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} cannot be as they were", .0.iter().map(|refused| refused.name.as_str()).collect::<Vec<_>>().join(", "))]
    Refused(Vec<Refused>),
    #[error(transparent)]
    Database(#[from] tokio_postgres::Error),
}

/// A row that the constraints forbid by now.
#[derive(Debug)]
pub struct Refused {
    pub name: String,
    pub error: tokio_postgres::Error,
}

/// Writes `target` over `now` in `transaction`; returns how many rows changed. Refused rows are all named.
pub async fn write(transaction: &Transaction<'_>, now: &Rows, target: &Rows) -> Result<usize, Error> {
    let changes = changes(now, target);
    transaction.batch_execute("SAVEPOINT all_rows").await?;
    match write_all(transaction, now, &changes).await {
        Ok(()) => return Ok(changes.len()),
        Err(error) if !is_refusal(&error) => return Err(error.into()),
        Err(_) => transaction.batch_execute("ROLLBACK TO SAVEPOINT all_rows").await?,
    }
    // Once more, a row at a time, to find all that are refused.
    let mut refused = Vec::new();
    for change in &changes {
        transaction.batch_execute("SAVEPOINT one_row").await?;
        if let Err(error) = write_all(transaction, now, std::slice::from_ref(change)).await {
            if !is_refusal(&error) {
                return Err(error.into());
            }
            transaction.batch_execute("ROLLBACK TO SAVEPOINT one_row").await?;
            let row = change.1.or_else(|| now.get(change.0).map(|row| &**row));
            refused.push(Refused { name: row.map(Row::name).unwrap_or_default(), error });
        }
    }
    Err(Error::Refused(refused))
}

/// What the database holds against a row.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code().get(..2), Some("22" | "23")))
}

async fn write_all(
    transaction: &Transaction<'_>,
    now: &Rows,
    changes: &[(&Key, Option<&Row>)],
) -> Result<(), tokio_postgres::Error> {
    // First what goes or moves, so that a name is free for the row that has it next.
    let frees = |key: &Key, row: Option<&Row>| now.get(key).is_some_and(|now| row.is_none_or(|row| moves(now, row)));
    for (key, _) in changes.iter().filter(|(key, row)| frees(key, *row)) {
        let sql = format!("DELETE FROM charliehub.{} WHERE id = $1", name(key.table));
        transaction.execute_typed(&sql, &[(&key.id, Type::UUID)]).await?;
    }
    for (key, row) in changes {
        let json = match row {
            Some(Row::Domain(domain)) => serde_json::to_string(domain),
            Some(Row::Fragment(fragment)) => serde_json::to_string(fragment),
            Some(Row::Site(site)) => serde_json::to_string(site),
            Some(Row::Policy(policy)) => serde_json::to_string(policy),
            Some(Row::Peer(peer)) => serde_json::to_string(peer),
            Some(Row::Bad(_)) | None => continue,
        }
        .unwrap_or_default();
        let (table, list) = (name(key.table), written(key.table));
        let record = format!("jsonb_populate_record(NULL::charliehub.{table}, $1::text::jsonb)");
        let sql = if now.contains_key(key) && !frees(key, *row) {
            format!("UPDATE charliehub.{table} t SET ({list}) = (SELECT {list} FROM {record}) WHERE t.id = $2")
        } else {
            format!("INSERT INTO charliehub.{table} (id, {list}) SELECT $2, {list} FROM {record}")
        };
        transaction.execute_typed(&sql, &[(&json, Type::TEXT), (&key.id, Type::UUID)]).await?;
    }
    Ok(())
}

/// True when a row has another name, another claim to all of an entry point, or other networks, so that two may want to
/// change places.
fn moves(now: &Row, target: &Row) -> bool {
    match (now, target) {
        (Row::Domain(a), Row::Domain(b)) => {
            let name = |row: &Domain| (row.domain.clone(), row.path_prefix.clone(), row.tcp_entrypoint.clone());
            let tcp =
                |row: &Domain| (row.protocol, (row.protocol == Protocol::Tcp).then_some((row.tls_mode, row.status)));
            name(a) != name(b) || tcp(a) != tcp(b)
        }
        (Row::Fragment(a), Row::Fragment(b)) => (&a.kind, &a.name) != (&b.kind, &b.name),
        (Row::Site(a), Row::Site(b)) => (&a.site.name, &a.site.networks) != (&b.site.name, &b.site.networks),
        (Row::Policy(a), Row::Policy(b)) => a.agent != b.agent,
        (Row::Peer(a), Row::Peer(b)) => {
            let held = |row: &PeerRow| (row.peer.name.clone(), row.peer.public_key.clone(), row.peer.addresses.clone());
            held(a) != held(b)
        }
        _ => false,
    }
}

/// The columns that a writer may set.
fn written(table: Table) -> String {
    const STAMPS: [&str; 3] = ["created_at", "updated_at", "version"];
    let names: Vec<&str> = columns(table).iter().map(|(name, _)| *name).filter(|name| !STAMPS.contains(name)).collect();
    names.join(", ")
}
