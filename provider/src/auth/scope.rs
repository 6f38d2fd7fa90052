//! Decides which rows a token may touch: by their name, their owner, their site.
//!
//! `*.a.org` is every name below `a.org`, at any depth; `a.org` is that name alone. Of each kind one entry must match, of
//! the kinds all that are given. A wildcard row counts by all names that it covers, so `*.org` is outside of `*.a.org`.
//! Pure: [`Scope::sql`] only says the same to the database.

use std::fmt::{self, Write as _};

use charliehub_proto::domain::Domain;
use serde::{Deserialize, Serialize};

/// What a token is limited to; a kind without entries does not limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<String>,
}

/// What of a row is not the token's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {} is outside of the token's scope, which is {}", found.as_deref().unwrap_or("(none)"), scope.join(", "))]
pub struct Outside {
    pub field: &'static str,
    pub found: Option<String>,
    pub scope: Vec<String>,
}

impl Scope {
    /// True for a token without limits.
    pub fn is_everything(&self) -> bool {
        self.domains.is_empty() && self.owners.is_empty() && self.sites.is_empty()
    }

    /// Whether the row is the token's. A write asks for the row as it was and as it becomes.
    pub fn allows(&self, row: &Domain) -> Result<(), Outside> {
        self.allows_place(&row.domain)?;
        among("owner", row.owner.as_deref(), &self.owners)?;
        among("site", row.site.as_deref(), &self.sites)
    }

    /// Whether all names that `name` covers are the token's; it may be a wildcard.
    pub fn allows_place(&self, name: &str) -> Result<(), Outside> {
        if self.domains.is_empty() || self.domains.iter().any(|entry| holds(entry, name)) {
            return Ok(());
        }
        Err(Outside { field: "domain", found: Some(name.to_owned()), scope: self.domains.clone() })
    }

    /// The first of `others` that is not the token's and that `row` would take requests from.
    ///
    /// Within a name of the token's own a wildcard of somebody else above it is no obstacle.
    pub fn shadows<'r>(&self, row: &Domain, others: impl IntoIterator<Item = &'r Domain>) -> Option<&'r Domain> {
        others.into_iter().find(|other| {
            let takes = row.domain == other.domain
                || covers(&row.domain, &other.domain)
                || (self.domains.is_empty() && covers(&other.domain, &row.domain));
            takes && row.protocol == other.protocol && row.id != other.id && self.allows(other).is_err()
        })
    }

    /// The same as a condition on `d`, a row of `domains`, with its parameters from `$first` on, each of type `text[]`.
    pub fn sql(&self, first: usize) -> (String, Vec<&[String]>) {
        let (mut condition, mut parameters) = ("true".to_owned(), Vec::new());
        let kinds = [(&self.domains, ""), (&self.owners, "d.owner"), (&self.sites, "d.site")];
        for (entries, column) in kinds.into_iter().filter(|(entries, _)| !entries.is_empty()) {
            let number = first + parameters.len();
            let text = &mut condition; // a String takes all
            let _ = match column {
                "" => write!(
                    text,
                    " AND EXISTS (SELECT FROM unnest(${number}::text[]) s WHERE d.domain = s
                        OR (s LIKE '*.%' AND right(d.domain, length(s) - 1) = substr(s, 2)))"
                ),
                column => write!(text, " AND ({column} = ANY(${number}::text[])) IS TRUE"),
            };
            parameters.push(entries.as_slice());
        }
        (condition, parameters)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [("", &self.domains), ("owner ", &self.owners), ("site ", &self.sites)];
        let given = kinds.into_iter().filter(|(_, entries)| !entries.is_empty());
        f.write_str(
            &given.map(|(kind, entries)| format!("{kind}{}", entries.join(", "))).collect::<Vec<_>>().join("; "),
        )
    }
}

/// Whether an entry of a scope holds all names that `name` covers.
fn holds(entry: &str, name: &str) -> bool {
    // The dot stays: `*.a.org` ends with it, as `b.a.org` does and `a.org` does not.
    name == entry || entry.strip_prefix('*').is_some_and(|below| name.ends_with(below))
}

/// Whether a wildcard covers another name, or a part of what that covers.
fn covers(wildcard: &str, name: &str) -> bool {
    let Some(below) = wildcard.strip_prefix('*') else { return false };
    name.strip_suffix(below).is_some_and(|label| !label.is_empty() && !label.contains('.'))
}

fn among(field: &'static str, found: Option<&str>, entries: &[String]) -> Result<(), Outside> {
    if entries.is_empty() || entries.iter().any(|entry| Some(entry.as_str()) == found) {
        return Ok(());
    }
    Err(Outside { field, found: found.map(str::to_owned), scope: entries.to_vec() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio_postgres::types::{ToSql, Type};

    use super::*;
    use crate::postgres::tests::cluster::Cluster;

    fn scope(domains: &[&str], owners: &[&str], sites: &[&str]) -> Scope {
        let [domains, owners, sites] =
            [domains, owners, sites].map(|list| list.iter().map(ToString::to_string).collect());
        Scope { domains, owners, sites }
    }

    #[test]
    fn a_name_is_inside_when_all_that_it_covers_is() {
        for (entry, name, inside) in [
            ("*.trevarn.com", "a.trevarn.com", true),
            ("*.trevarn.com", "a.b.trevarn.com", true),
            ("*.trevarn.com", "*.trevarn.com", true),
            ("*.trevarn.com", "*.b.trevarn.com", true),
            ("*.trevarn.com", "trevarn.com", false),
            ("*.trevarn.com", "eviltrevarn.com", false),
            ("*.trevarn.com", "trevarn.com.evil.org", false),
            ("*.a.trevarn.com", "*.trevarn.com", false),
            ("trevarn.com", "trevarn.com", true),
            ("trevarn.com", "a.trevarn.com", false),
            ("trevarn.com", "*.trevarn.com", false),
        ] {
            assert_eq!(scope(&[entry], &[], &[]).allows_place(name).is_ok(), inside, "{entry} {name}");
        }
        assert!(Scope::default().is_everything() && Scope::default().allows_place("a.org").is_ok());
    }

    async fn rows(client: &tokio_postgres::Client, condition: &str, parameters: &[&[String]]) -> Vec<Domain> {
        let sql = format!("SELECT to_json(d) FROM domains d WHERE {condition} ORDER BY domain");
        let parameters: Vec<_> =
            parameters.iter().map(|list| (list as &(dyn ToSql + Sync), Type::TEXT_ARRAY)).collect();
        let rows = client.query_typed(&sql, &parameters).await.unwrap();
        rows.iter().map(|row| serde_json::from_value(row.get::<_, Value>(0)).unwrap()).collect()
    }

    #[tokio::test]
    async fn the_database_and_we_agree_on_what_is_inside() {
        let (_cluster, client) = Cluster::migrated().await;
        for (name, owner, site) in [
            ("a.trevarn.com", Some("ann"), Some("hub")),
            ("b.a.trevarn.com", Some("bob"), Some("hub")),
            ("*.trevarn.com", Some("ann"), None),
            ("trevarn.com", None, Some("hub")),
            ("eviltrevarn.com", Some("ann"), Some("hub")),
        ] {
            let sql =
                "INSERT INTO domains (domain, owner, site, backend_host, backend_port) VALUES ($1, $2, $3, 'h', 1)";
            client.execute(sql, &[&name, &owner, &site]).await.unwrap();
        }
        let all = rows(&client, "true", &[]).await;
        assert_eq!(all.len(), 5);
        for (scope, inside) in [
            (Scope::default(), 5),
            (scope(&["*.trevarn.com"], &[], &[]), 3),
            (scope(&["trevarn.com"], &[], &[]), 1),
            (scope(&["*.a.trevarn.com", "trevarn.com"], &[], &[]), 2),
            (scope(&[], &["ann"], &[]), 3),
            (scope(&["*.trevarn.com"], &["ann"], &[]), 2),
            (scope(&["*.trevarn.com"], &["ann", "bob"], &["hub"]), 2),
            (scope(&[], &[], &["elsewhere"]), 0),
        ] {
            let (condition, parameters) = scope.sql(1);
            let asked = rows(&client, &condition, &parameters).await;
            let ours: Vec<Domain> = all.iter().filter(|row| scope.allows(row).is_ok()).cloned().collect();
            assert_eq!((asked.len(), &asked), (inside, &ours), "{scope:?}");
        }
        let stranger = scope(&["*.trevarn.com"], &["zoe"], &[]).allows(&all[1]).unwrap_err();
        assert_eq!(stranger.to_string(), "`owner` ann is outside of the token's scope, which is zoe");
        let none = scope(&[], &["zoe"], &[]).allows(all.iter().find(|row| row.owner.is_none()).unwrap()).unwrap_err();
        assert!(none.to_string().starts_with("`owner` (none) is outside"), "{none}");
    }

    #[tokio::test]
    async fn a_row_takes_no_request_from_one_outside_of_the_scope() {
        let (_cluster, client) = Cluster::migrated().await;
        client
            .batch_execute(
                "INSERT INTO domains (domain, path_prefix, owner, backend_host, backend_port) VALUES
                 ('*.a.org', '/', 'bob', 'h', 1), ('b.a.org', '/', 'bob', 'h', 1), ('b.a.org', '/x', 'ann', 'h', 1),
                 ('c.a.org', '/', 'ann', 'h', 1), ('*.b.org', '/', 'ann', 'h', 1), ('x.b.org', '/', 'bob', 'h', 1)",
            )
            .await
            .unwrap();
        let all = rows(&client, "true", &[]).await;
        let row =
            |name: &str| all.iter().find(|row| row.domain == name && row.owner.as_deref() == Some("ann")).unwrap();
        let taken = |scope: &Scope, name| scope.shadows(row(name), &all).map(|other| other.domain.as_str());
        let ann = scope(&[], &["ann"], &[]);
        let below = scope(&["*.a.org"], &["ann"], &[]);
        assert_eq!(taken(&below, "b.a.org"), Some("b.a.org"), "a path of another's host");
        assert_eq!(taken(&ann, "c.a.org"), Some("*.a.org"), "a name below another's wildcard");
        assert_eq!(taken(&ann, "*.b.org"), Some("x.b.org"), "a wildcard over another's name");
        assert_eq!(taken(&scope(&["c.a.org"], &["ann"], &[]), "c.a.org"), None, "its own name");
        assert_eq!(taken(&Scope::default(), "*.b.org"), None);
    }

    #[tokio::test]
    async fn a_scope_that_nobody_can_mean_is_refused_by_the_database() {
        let (_cluster, client) = Cluster::migrated().await;
        for (scope, role, taken) in [
            (json!({}), "admin", true),
            (json!({"domains": ["*.a.org", "a.org"], "owners": ["Ann B."], "sites": ["hub"]}), "editor", true),
            (json!({"domains": ["a.org"]}), "admin", false),
            (json!({"domains": []}), "editor", false),
            (json!({"domains": "a.org"}), "editor", false),
            (json!({"domains": ["*.org"]}), "editor", false),
            (json!({"domains": ["*"]}), "editor", false),
            (json!({"owners": [""]}), "editor", false),
            (json!({"owners": [1]}), "editor", false),
            (json!({"owner": ["ann"]}), "editor", false),
            (json!([]), "editor", false),
        ] {
            let sql = "INSERT INTO tokens (name, role, hash, scope) VALUES ('t', $1, sha256(gen_random_uuid()::text::bytea), $2)";
            let done = client.execute(sql, &[&role, &scope]).await;
            assert_eq!(done.is_ok(), taken, "{role} {scope}: {done:?}");
        }
    }
}
