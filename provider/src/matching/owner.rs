//! Finds the row or the fragment that a router stands for.
//!
//! A row's router is called by its host and path, so the rows of the hosts that the name can begin with are compiled to
//! see which of them has it.

use std::sync::Arc;

use charliehub_proto::{
    domain::Status,
    matching::{Answering, MatchOutcome, MatchedFragment, MatchedRow},
};
use tokio_postgres::{GenericClient, types::Type};

use crate::{
    compile::{Compiler, Settings, row_of},
    row::{Key, Row, Rows, Table},
    store::{
        read::by_key,
        rows::{decode, select},
    },
};

/// Completes an answer by what stands behind its router, for a request to `host`.
pub async fn find(
    client: &impl GenericClient,
    settings: &Arc<Settings>,
    host: &str,
    answering: &mut Answering,
) -> Result<(), tokio_postgres::Error> {
    const FRAGMENTS: &str = "SELECT kind FROM charliehub.fragments
        WHERE name = $1 AND kind IN ('http.router', 'tcp.router') AND enabled ORDER BY kind LIMIT 1";
    let fragments = client.query_typed(FRAGMENTS, &[(&answering.router, Type::TEXT)]).await?;
    if let Some(row) = fragments.first() {
        answering.fragment = Some(MatchedFragment { kind: row.try_get(0)?, name: answering.router.clone() });
        return Ok(());
    }
    // Of one that several rows share, what that of the host's row would be called.
    let router = row_of(&answering.router, host).unwrap_or_else(|| answering.router.clone());
    let of_hosts = format!("SELECT {} FROM charliehub.domains t WHERE t.domain = ANY($1)", select(Table::Domains));
    let rows = client.query_typed(&of_hosts, &[(&hosts(&router), Type::TEXT_ARRAY)]).await?;
    let rows = by_key(rows.iter().filter_map(|row| decode(Table::Domains, row, 0)));
    let compiler = Compiler::apart(settings, rows.clone());
    let Some((id, row)) = owner(&compiler, &rows, &router) else { return Ok(()) };
    if let Row::Domain(row) = row {
        // Without a page of ours it is a service without servers, as a closed one.
        if row.status == Status::Maintenance && answering.outcome == MatchOutcome::Closed {
            answering.outcome = MatchOutcome::Maintenance;
        }
        answering.row = Some(MatchedRow { id, domain: row.domain.clone(), path_prefix: row.path_prefix.clone() });
    }
    Ok(())
}

/// The row that has this router, or of whose router this is the one on another entry point: `name[web]`.
fn owner<'a>(compiler: &Compiler, rows: &'a Rows, router: &str) -> Option<(uuid::Uuid, &'a Row)> {
    let has = |key: &Key, is: &dyn Fn(&str) -> bool| {
        compiler.route(key).is_some_and(|route| route.routers.iter().any(|(_, name)| is(name)))
    };
    let exact = rows.iter().find(|(key, _)| has(key, &|name| name == router));
    let beside = |name: &str| router.strip_prefix(name).is_some_and(|rest| rest.starts_with('['));
    let found = exact.or_else(|| rows.iter().find(|(key, _)| has(key, &beside)));
    found.map(|(key, row)| (key.id, &**row))
}

/// The hosts that a router's name can begin with: `a.org` of `a.org/path`, `a.org-mqtt` or `a.org[web]`.
fn hosts(router: &str) -> Vec<String> {
    let ends = router.char_indices().filter(|(_, c)| matches!(c, '/' | '[' | '-')).map(|(at, _)| at);
    ends.chain([router.len()]).filter_map(|end| router.get(..end)).map(str::to_owned).collect()
}
