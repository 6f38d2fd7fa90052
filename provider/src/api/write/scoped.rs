//! What a token with a scope may write: rows of its own, that take no requests from others.

use std::sync::Arc;

use charliehub_proto::domain::Domain;
use http::StatusCode;
use tokio_postgres::{Client, types::Type};

use super::{Failure, Touched};
use crate::{
    api::Problem,
    auth::Scope,
    row::{Row, Table},
    store::rows::{decode, select},
};

/// Refuses touched rows that are not the token's as they are now. As they were, they were looked at when they were found.
pub(super) async fn check(transaction: &Client, scope: &Scope, touched: &Touched) -> Result<(), Failure> {
    if scope.is_everything() {
        return Ok(());
    }
    for row in touched.after.values() {
        let Row::Domain(row) = &**row else { return Err(Problem::internal().into()) };
        scope.allows(row).map_err(Problem::from)?;
        // Traefik's own services tell of everybody's routes.
        if row.service_ref.as_deref().is_some_and(|service| service.ends_with("@internal")) {
            return Err(outside("service_ref", "it names a service of Traefik itself").into());
        }
        let others = beside(transaction, row).await?;
        if let Some(other) = scope.shadows(row, &others) {
            return Err(outside(
                "domain",
                &format!("{} takes requests from a row that is not the token's", other.domain),
            )
            .into());
        }
    }
    Ok(())
}

fn outside(field: &str, detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "scope", "It is outside of the token's scope", detail)
        .field(field)
        .remedy("stay within the scope, or ask an administrator for a token with another one")
}

/// The rows that `row` may take requests from: of its host, of the wildcard above, or of what a wildcard covers.
async fn beside(transaction: &Client, row: &Domain) -> Result<Vec<Domain>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT {} FROM domains t WHERE t.domain = $1 OR t.domain = '*.' || substr($1, strpos($1, '.') + 1)
            OR ($1 LIKE '*.%' AND right(t.domain, length($1) - 1) = substr($1, 2))",
        select(Table::Domains)
    );
    let found = transaction.query_typed(&sql, &[(&row.domain, Type::TEXT)]).await?;
    let rows = found.iter().filter_map(|row| decode(Table::Domains, row, 0)?.row);
    Ok(rows.filter_map(|row| if let Row::Domain(row) = Arc::unwrap_or_clone(row) { Some(row) } else { None }).collect())
}
