//! What stands around touched rows, compiled as it was and as it is.
//!
//! Enough is read to tell what the change does, and no more: for rows those of their hosts and the wildcards above them;
//! for fragments the rows that name them, or have a name that some fragment asks for; for sites the rows of the internal tier.
//! All fragments and sites are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use charliehub_proto::{
    change::{Difference, Impact},
    fragment::Fragment,
    traefik::{self, Kind},
};
use futures_util::future::try_join3;
use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use super::Touched;
use crate::{
    api::Api,
    compile::{Compiler, State},
    impact::{differences, impact},
    row::{Key, Row, Rows, Table},
    store::{
        read::by_key,
        rows::{decode, select},
    },
};

/// What was found out about a change.
pub(super) struct Verdict {
    pub(super) impact: Impact,
    pub(super) diff: Vec<Difference>,
    pub(super) warnings: Vec<String>,
    /// Touched rows that do not compile, and why.
    pub(super) closed: BTreeMap<Key, String>,
    /// Rows and fragments that compiled until now, and were not touched.
    pub(super) others: Vec<String>,
}

/// Compiles the surroundings before and after.
pub(super) async fn judge(
    transaction: &Client,
    api: &Api,
    touched: &Touched,
) -> Result<Verdict, tokio_postgres::Error> {
    let after_rows = surroundings(transaction, touched).await?;
    let mut before_rows = after_rows.clone();
    for key in touched.after.keys() {
        before_rows.remove(key);
    }
    before_rows.extend(touched.before.iter().map(|(key, row)| (*key, Arc::clone(row))));
    let (before, after) = (Compiler::apart(&api.settings, before_rows), Compiler::apart(&api.settings, after_rows));
    Ok(compare(&before, &after, touched))
}

fn compare(before: &Compiler, after: &Compiler, touched: &Touched) -> Verdict {
    let mut verdict = Verdict {
        impact: impact(before, after),
        diff: differences(before.pieces(), after.pieces()),
        warnings: Vec::new(),
        closed: BTreeMap::new(),
        others: Vec::new(),
    };
    for (key, route) in after.routes() {
        let mine = touched.after.contains_key(key);
        let name = || after.rows().get(key).map(|row| row.name()).unwrap_or_default();
        match &route.state {
            // Closed for want of a setting: the row is right, and is live as soon as that is set.
            State::Closed { reason } if mine && waits_for_a_setting(reason) => {
                verdict.warnings.push(format!("{}: answers 503: {reason}", name()));
            }
            State::Closed { reason } if mine => {
                verdict.closed.insert(*key, reason.clone());
            }
            State::Closed { reason } if was_open(before, key) && lost_its_networks(reason) => {
                verdict.warnings.push(format!("{}: answers 503: {reason}", name()));
            }
            State::Closed { .. } if was_open(before, key) => {
                verdict.others.push(name());
            }
            State::Closed { .. } | State::Live | State::Maintenance | State::Off => {}
        }
        if mine {
            verdict.warnings.extend(route.warnings.iter().map(|warning| format!("{}: {warning}", name())));
        }
    }
    verdict.warnings.extend(taken_over(before, after, touched));
    verdict
}

fn waits_for_a_setting(reason: &str) -> bool {
    reason.starts_with("access_tier: internal, but no network") || reason.starts_with("auth_required: nobody to ask")
}

fn was_open(before: &Compiler, key: &Key) -> bool {
    before.route(key).is_some_and(|was| !matches!(was.state, State::Closed { .. }))
}

/// A site that is removed, or narrowed, shuts out whom it should, whatever rows that leaves without anybody.
fn lost_its_networks(reason: &str) -> bool {
    reason.starts_with("access_tier: internal, but no network")
        || reason.starts_with("ip_allowlist: has nothing in common")
}

/// Requests that another row, not touched, answered until now: often meant, never silent.
fn taken_over(before: &Compiler, after: &Compiler, touched: &Touched) -> Vec<String> {
    let doors: BTreeSet<_> = touched.after.keys().flat_map(|key| after.doors(key)).collect();
    let taken = doors.iter().filter_map(|door| {
        let (was, is) = (before.answer(door)?.key, after.answer(door)?.key);
        let other = after.rows().get(&was).filter(|_| was != is && !touched.after.contains_key(&was))?;
        Some(format!("{}: its requests were answered by {} until now", door.name, other.name()))
    });
    taken.collect()
}

/// What has to be known, as it is after the steps.
async fn surroundings(transaction: &Client, touched: &Touched) -> Result<Rows, tokio_postgres::Error> {
    let all = format!("SELECT {} FROM fragments t", select(Table::Fragments));
    let list = select(Table::Domains);
    let hosts = hosts(touched);
    let of_hosts = format!("SELECT {list} FROM domains t WHERE t.domain = ANY($1)");
    let hosts = [(&hosts as &(dyn ToSql + Sync), Type::TEXT_ARRAY)];
    let sites = format!("SELECT {} FROM sites t", select(Table::Sites));
    let (fragments, sites, domains) = try_join3(
        transaction.query_typed(&all, &[]),
        transaction.query_typed(&sites, &[]),
        transaction.query_typed(&of_hosts, &hosts),
    )
    .await?;
    let mut rows = by_key(fragments.iter().filter_map(|row| decode(Table::Fragments, row, 0)));
    rows.extend(by_key(sites.iter().filter_map(|row| decode(Table::Sites, row, 0))));
    rows.extend(by_key(domains.iter().filter_map(|row| decode(Table::Domains, row, 0))));
    let any = |table: Table| touched.before.keys().chain(touched.after.keys()).any(|key| key.table == table);
    if any(Table::Sites) {
        let internal = format!("SELECT {list} FROM domains t WHERE t.access_tier = 'internal'");
        let found = transaction.query_typed(&internal, &[]).await?;
        rows.extend(by_key(found.iter().filter_map(|row| decode(Table::Domains, row, 0))));
    }
    if any(Table::Fragments) {
        // A row is named by what begins with its domain.
        let names = names(touched, &rows);
        let of_names = format!(
            "SELECT {list} FROM domains t WHERE t.service_ref = ANY($1) OR t.middlewares && $1
                OR EXISTS (SELECT FROM unnest($1) n WHERE starts_with(n, t.domain))"
        );
        let found = transaction.query_typed(&of_names, &[(&names, Type::TEXT_ARRAY)]).await?;
        rows.extend(by_key(found.iter().filter_map(|row| decode(Table::Domains, row, 0))));
    }
    Ok(rows)
}

/// The hosts of the touched rows, and the wildcards above them.
fn hosts(touched: &Touched) -> Vec<String> {
    let rows = touched.before.values().chain(touched.after.values());
    let names = rows.filter_map(|row| match &**row {
        Row::Domain(row) => Some(row.domain.as_str()),
        Row::Bad(row) => row.raw.get("domain").and_then(serde_json::Value::as_str),
        Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) => None,
    });
    let wildcard = |name: &str| name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    let both = names.flat_map(|name| [Some(name.to_owned()), wildcard(name)]).flatten();
    both.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The names of the touched fragments, with and without our provider, and all that any fragment names.
fn names(touched: &Touched, rows: &Rows) -> Vec<String> {
    let fragment = |row: &Arc<Row>| match &**row {
        Row::Fragment(fragment) => Some(fragment.clone()),
        Row::Domain(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => None,
    };
    let own = touched.before.values().chain(touched.after.values()).filter_map(fragment);
    let own = own.flat_map(|fragment| [format!("{}@http", fragment.name), fragment.name]);
    let named = rows.values().filter_map(fragment).flat_map(|fragment| references(&fragment));
    own.chain(named).collect::<BTreeSet<_>>().into_iter().collect()
}

fn references(fragment: &Fragment) -> Vec<String> {
    let piece = fragment.kind.parse::<Kind>().ok().and_then(|kind| traefik::piece(kind, &fragment.body).ok());
    piece.map(|piece| piece.references().into_iter().map(|reference| reference.name).collect()).unwrap_or_default()
}
