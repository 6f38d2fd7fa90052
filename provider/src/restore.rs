//! Makes the rows in the database what they were, as a new revision.
//!
//! Never more open than they are now: what the newest row says about access is kept where it is narrower.

use std::{collections::BTreeSet, sync::Arc};

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
    let mut compiler = Compiler::new(Arc::default());
    compiler.apply(base.iter().map(|(key, row)| (*key, Some(Arc::clone(row)))).collect());
    let runs = |key: &Key| {
        let routers = compiler.route(key).map(|route| &route.routers);
        routers.is_none_or(|routers| routers.is_empty() || routers.iter().any(|(_, name)| running.contains(&**name)))
    };
    let base: Rows = base.iter().filter(|(key, _)| runs(key)).map(|(key, row)| (*key, Arc::clone(row))).collect();
    let mut rows = restricted(&base, newest);
    for (key, row) in &mut rows {
        // An intersection that is empty cannot be written down; the newest list is narrow enough.
        if let (Row::Domain(domain), Some(Row::Domain(now))) = (&**row, newest.get(key).map(|row| &**row))
            && domain.ip_allowlist.is_empty()
            && !now.ip_allowlist.is_empty()
        {
            let mut domain = domain.clone();
            (domain.access_tier, domain.ip_allowlist) = (now.access_tier, now.ip_allowlist.clone());
            *row = Arc::new(Row::Domain(domain));
        }
    }
    rows
}

/// What has to be written so that `now` becomes `target`. Rows that do not decode are left as they are.
fn changes<'a>(now: &'a Rows, target: &'a Rows) -> Vec<(&'a Key, Option<&'a Row>)> {
    let gone = now.iter().filter(|(key, row)| !target.contains_key(key) && !matches!(***row, Row::Bad(_)));
    let set = target.iter().filter(|(key, row)| !same(now.get(key), row));
    gone.map(|(key, _)| (key, None)).chain(set.map(|(key, row)| (key, Some(&**row)))).collect()
}

/// Alike but for the stamps that the database makes.
fn same(now: Option<&Arc<Row>>, target: &Row) -> bool {
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
        (_, Row::Bad(_)) => true,
        _ => false,
    }
}

/// Writes `target` over `now` in `transaction`; returns how many rows changed.
pub async fn write(transaction: &Transaction<'_>, now: &Rows, target: &Rows) -> Result<usize, tokio_postgres::Error> {
    let changes = changes(now, target);
    // First what goes, so that a name is free for the row that has it next.
    for (key, row) in &changes {
        let table = name(key.table);
        let Some(row) = row else {
            let sql = format!("DELETE FROM charliehub.{table} WHERE id = $1");
            transaction.execute_typed(&sql, &[(&key.id, Type::UUID)]).await?;
            continue;
        };
        let json = match row {
            Row::Domain(domain) => serde_json::to_string(domain),
            Row::Fragment(fragment) => serde_json::to_string(fragment),
            Row::Bad(_) => continue,
        }
        .unwrap_or_default();
        let list = written(key.table);
        let record = format!("jsonb_populate_record(NULL::charliehub.{table}, $1::text::jsonb)");
        let sql = if now.contains_key(key) {
            format!("UPDATE charliehub.{table} t SET ({list}) = (SELECT {list} FROM {record}) WHERE t.id = $2")
        } else {
            format!("INSERT INTO charliehub.{table} (id, {list}) SELECT $2, {list} FROM {record}")
        };
        transaction.execute_typed(&sql, &[(&json, Type::TEXT), (&key.id, Type::UUID)]).await?;
    }
    Ok(changes.len())
}

/// The columns that a writer may set.
fn written(table: Table) -> String {
    const STAMPS: [&str; 3] = ["created_at", "updated_at", "version"];
    let names: Vec<&str> = columns(table).iter().map(|(name, _)| *name).filter(|name| !STAMPS.contains(name)).collect();
    names.join(", ")
}
