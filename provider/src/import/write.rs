//! Writes a plan: set by set, in a transaction of the caller's.

use tokio_postgres::{
    GenericClient,
    types::{ToSql, Type},
};

use super::{
    Error, Plan,
    plan::{Action, Write},
};
use crate::{
    api::problem::REMEDIES,
    row::{Row, Table},
    store::rows::{columns, name},
};

/// As many rows as one statement takes: enough that their number does not matter, few enough for one message.
const SET: usize = 1_000;

/// Inserts and updates what the plan says; nothing for what is unchanged.
pub async fn write(client: &impl GenericClient, plan: &Plan) -> Result<(), Error> {
    for table in [Table::Domains, Table::Fragments] {
        for action in [Action::Update, Action::Insert] {
            let of = |write: &&Write| write.action == action && table_of(&write.row) == Some(table);
            let writes: Vec<&Write> = plan.writes.iter().filter(of).collect();
            for set in writes.chunks(SET) {
                write_set(client, table, action, set).await?;
            }
        }
    }
    Ok(())
}

fn table_of(row: &Row) -> Option<Table> {
    match row {
        Row::Domain(_) => Some(Table::Domains),
        Row::Fragment(_) => Some(Table::Fragments),
        Row::Site(_) => Some(Table::Sites),
        Row::Policy(_) => Some(Table::Policies),
        Row::Peer(_) => Some(Table::Peers),
        Row::Bad(_) => None,
    }
}

async fn write_set(client: &impl GenericClient, table: Table, action: Action, set: &[&Write]) -> Result<(), Error> {
    const STAMPS: [&str; 3] = ["created_at", "updated_at", "version"];
    let names: Vec<&str> = columns(table).iter().map(|(name, _)| *name).filter(|name| !STAMPS.contains(name)).collect();
    let (table, list) = (name(table), names.join(", "));
    let set_json: Vec<serde_json::Value> = set.iter().map(|write| json(&write.row)).collect();
    let json = serde_json::Value::from(set_json).to_string();
    let records = format!("jsonb_populate_recordset(NULL::charliehub.{table}, $1::text::jsonb) r");
    let sql = if action == Action::Insert {
        format!("INSERT INTO charliehub.{table} (id, {list}) SELECT id, {list} FROM {records}")
    } else {
        let of_r: Vec<String> = names.iter().map(|name| format!("r.{name}")).collect();
        format!("UPDATE charliehub.{table} t SET ({list}) = ROW ({}) FROM {records} WHERE t.id = r.id", of_r.join(", "))
    };
    let parameters = [(&json as &(dyn ToSql + Sync), Type::TEXT)];
    client.execute_typed(&sql, &parameters).await.map(drop).map_err(|error| refused(error, set))
}

fn json(row: &Row) -> serde_json::Value {
    match row {
        Row::Domain(domain) => serde_json::to_value(domain),
        Row::Fragment(fragment) => serde_json::to_value(fragment),
        Row::Site(site) => serde_json::to_value(site),
        Row::Policy(policy) => serde_json::to_value(policy),
        Row::Peer(peer) => serde_json::to_value(peer),
        Row::Bad(row) => Ok(row.raw.clone()),
    }
    .unwrap_or_default()
}

/// A violated constraint in the words of whoever wrote the file. PostgreSQL shows the failing row from its id on.
fn refused(error: tokio_postgres::Error, set: &[&Write]) -> Error {
    let Some(db) = error.as_db_error().filter(|db| db.code().code().starts_with("23")) else { return error.into() };
    let detail = db.detail().unwrap_or_default();
    let failing = set.iter().find(|write| match &write.row {
        Row::Domain(row) => {
            let (id, place) = (row.id.to_string(), format!("=({}, {}, ", row.domain, row.path_prefix));
            detail.contains(&id) || detail.contains(&place)
        }
        Row::Fragment(row) => {
            let (id, name) = (row.id.to_string(), format!("=({}, {})", row.kind, row.name));
            detail.contains(&id) || detail.contains(&name)
        }
        Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => false,
    });
    let Some(write) = failing else { return error.into() };
    let known = REMEDIES.iter().find(|known| Some(known.constraint) == db.constraint());
    Error::Refused {
        row: write.row.name(),
        router: write.router.clone(),
        file: write.file.to_string(),
        reason: known.map_or_else(|| db.message().to_owned(), |known| format!("{}: {}", known.field, known.rule)),
    }
}
