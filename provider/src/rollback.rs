//! Brings back the rows of an earlier revision, as a new one.
//!
//! Between history and the newest rows, in one transaction under the revision lock. In order: the rows as they were; on top
//! of them whatever the newest say that is narrower, so that no name gets more open; a look at every place, compiled before
//! and after, which refuses what would open one all the same; then the rows are written, and those that the constraints
//! forbid by now are refused by name. All of it or nothing.
//!
//! A fragment that decides who gets in (a router, a middleware that keeps people out, TLS options) stays as the newest has
//! it: what it lets in cannot be compared. Certificates stay too: old ones may have ended. A site comes back with those of its
//! networks that are internal now: one that was removed is added again by whoever wants it. A client of the VPN stays as the
//! newest has it, and out where that has it no more; one that was not there then goes. Keys of tunnels that were exchanged stay so.

use std::{collections::BTreeSet, sync::Arc};

use charliehub_proto::{
    change::Impact,
    domain::{Domain, TlsMode},
    fragment::Fragment,
    revision::{RolledBack, RowOp, RowWritten},
};
use tokio_postgres::{Client, Transaction, error::SqlState};

use crate::{
    author::{Author, revision_made},
    compile::{Compiler, Settings},
    guard::tighten,
    impact::impact,
    postgres,
    publish::restricted,
    restore,
    rotations::store::exchanged,
    row::{Key, Row, Rows},
    store::read,
};

/// Why nothing was rolled back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no revision {to}; the newest is {newest}")]
    Unknown { to: i64, newest: i64 },
    #[error("the rows of revision {to} are not kept any more; the oldest that are kept are those of {floor}")]
    NotKept { to: i64, floor: i64 },
    #[error("it would make these more open than the newest rows say: {}", .0.join(", "))]
    Opens(Vec<String>),
    #[error(transparent)]
    Refused(restore::Error),
    #[error(transparent)]
    Database(#[from] postgres::Error),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Writes the rows of revision `to` over the newest; with `dry_run` only says what that would do.
pub async fn rollback(
    client: &mut Client,
    to: i64,
    author: &Author,
    settings: &Arc<Settings>,
    dry_run: bool,
) -> Result<RolledBack, Error> {
    let reason = format!("rollback to revision {to}");
    let reason = if author.reason.is_empty() { reason } else { format!("{reason}: {}", author.reason) };
    let author = Author { source: "rollback", reason, ..author.clone() };
    let transaction = client.transaction().await?;
    author.begin(&transaction).await?;
    let mut then = rows_of(&transaction, to).await?;
    keep_keys(&mut then, &exchanged(&transaction).await?);
    let now = read::all(&transaction).await?;
    let Target { rows, kept } = target(&then, &now, settings);
    let impact = impact(&Compiler::of(settings, now.clone()), &Compiler::of(settings, rows.clone()));
    let opens = opens(&impact);
    if !opens.is_empty() {
        return Err(Error::Opens(opens));
    }
    let changed = written(&now, &rows);
    restore::write(&transaction, &now, &rows).await.map_err(|error| match error {
        restore::Error::Database(error) => error.into(),
        refused @ restore::Error::Refused(_) => Error::Refused(refused),
    })?;
    let mut done = RolledBack { revision: None, from: to, changed, kept_narrower: kept, impact, dry_run };
    if dry_run {
        transaction.rollback().await?;
        return Ok(done);
    }
    done.revision = revision_made(&transaction).await?;
    transaction.commit().await?;
    Ok(done)
}

async fn rows_of(transaction: &Transaction<'_>, to: i64) -> Result<Rows, Error> {
    let row = transaction.query_one("SELECT n, floor FROM charliehub.revision", &[]).await?;
    let (newest, floor): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    if to > newest || to < 1 {
        return Err(Error::Unknown { to, newest });
    }
    match read::as_of(transaction, to).await {
        Ok(rows) => Ok(read::by_key(rows)),
        Err(error) if error.code() == Some(&SqlState::NO_DATA_FOUND) => Err(Error::NotKept { to, floor }),
        Err(error) => Err(error.into()),
    }
}

/// The places that would be reached by more people, or without a login.
fn opens(impact: &Impact) -> Vec<String> {
    let lists = [&impact.opened, &impact.widened, &impact.login_lost];
    lists.into_iter().flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// The rows to write, and the names of those that are not as they were.
struct Target {
    rows: Rows,
    kept: Vec<String>,
}

fn target(then: &Rows, now: &Rows, settings: &Arc<Settings>) -> Target {
    let mut base = then.clone();
    keep_fragments(&mut base, now);
    narrow_by_neighbours(&mut base, now, settings);
    let mut rows = restricted(&base, now);
    for (key, row) in &mut rows {
        if let (Row::Domain(was), Some(Row::Domain(is))) = (&**row, now.get(key).map(|row| &**row)) {
            *row = Arc::new(Row::Domain(as_guarded(was, is, now)));
        }
    }
    restore::make_writable(&mut rows, now);
    let other = |key: &Key, row: &Row| !restore::same(then.get(key), row);
    let gone = then.iter().filter(|(key, _)| !rows.contains_key(key));
    let kept = rows.iter().filter(|(key, row)| other(key, row)).chain(gone).map(|(_, row)| row.name());
    let kept = kept.collect::<BTreeSet<_>>().into_iter().collect();
    Target { rows, kept }
}

/// A key of a tunnel that was exchanged since stays so: both its ends have the new one.
fn keep_keys(rows: &mut Rows, exchanged: &[(String, String)]) {
    // One after the other, since the new one may have been exchanged again.
    let renew = |key: &mut String| {
        for (old, new) in exchanged {
            if old == key {
                key.clone_from(new);
            }
        }
    };
    let has_keys = |row: &Row| matches!(row, Row::Site(_) | Row::Policy(_));
    for row in rows.values_mut().filter(|row| !exchanged.is_empty() && has_keys(row)) {
        match Arc::make_mut(row) {
            Row::Site(site) => {
                for tunnel in &mut site.site.tunnels {
                    renew(&mut tunnel.public_key);
                    tunnel.own_public_key.iter_mut().for_each(renew);
                }
            }
            Row::Policy(policy) => policy.body.vpn.iter_mut().for_each(|vpn| renew(&mut vpn.public_key)),
            Row::Domain(_) | Row::Fragment(_) | Row::Peer(_) | Row::Bad(_) => {}
        }
    }
}

/// Puts the newest version of the fragments that decide who gets in over what they were.
fn keep_fragments(rows: &mut Rows, now: &Rows) {
    let stays = |row: &Row| matches!(row, Row::Fragment(fragment) if decides(fragment) || is_certificate(fragment));
    let opens = |row: &Row| matches!(row, Row::Fragment(fragment) if fragment.kind.ends_with(".router"));
    // Nothing tells which protected place a router that is gone would open.
    rows.retain(|key, row| now.contains_key(key) || !opens(row));
    for (key, row) in now {
        if stays(row) || rows.get(key).is_some_and(|was| stays(was)) {
            rows.insert(*key, Arc::clone(row));
        }
    }
    // One that was written anew has another id and the same name.
    let names: BTreeSet<_> = now
        .values()
        .filter(|row| stays(row))
        .filter_map(|row| fragment(row).map(|one| (&one.kind, &one.name)))
        .collect();
    rows.retain(|key, row| {
        now.contains_key(key) || fragment(row).is_none_or(|one| !names.contains(&(&one.kind, &one.name)))
    });
}

fn fragment(row: &Row) -> Option<&Fragment> {
    match row {
        Row::Fragment(fragment) => Some(fragment),
        Row::Domain(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => None,
    }
}

/// True for what can keep somebody out, or let somebody in.
fn decides(fragment: &Fragment) -> bool {
    const GUARDS: [&str; 9] = [
        "basicAuth",
        "chain",
        "digestAuth",
        "forwardAuth",
        "inFlightConn",
        "ipAllowList",
        "ipWhiteList",
        "passTLSClientCert",
        "plugin",
    ];
    match fragment.kind.as_str() {
        "http.router" | "tcp.router" | "udp.router" | "http.model" | "tls.option" => true,
        "http.middleware" | "tcp.middleware" => GUARDS.iter().any(|guard| fragment.body.get(guard).is_some()),
        _ => false,
    }
}

fn is_certificate(fragment: &Fragment) -> bool {
    matches!(fragment.kind.as_str(), "tls.store" | "tls.certificate")
}

/// Narrows rows at places of their own that are part of a neighbour's by now.
fn narrow_by_neighbours(rows: &mut Rows, now: &Rows, settings: &Arc<Settings>) {
    let (compiler_then, compiler_now) = (Compiler::of(settings, rows.clone()), Compiler::of(settings, now.clone()));
    for (key, row) in rows {
        let Row::Domain(was) = &**row else { continue };
        let mut narrowed = was.clone();
        for door in compiler_then.doors(key) {
            let answers = compiler_now.answer(&door).and_then(|answer| now.get(&answer.key));
            if let Some(Row::Domain(is)) = answers.map(|row| &**row) {
                narrowed = as_guarded(&tighten(&narrowed, is), is, now);
            }
        }
        if narrowed != *was {
            *row = Arc::new(Row::Domain(narrowed));
        }
    }
}

/// The row with the middlewares of `is` that may keep somebody out, and with the TLS that a login needs.
fn as_guarded(was: &Domain, is: &Domain, now: &Rows) -> Domain {
    let mut row = was.clone();
    let guards = is.middlewares.iter().filter(|name| may_guard(name, now) && !was.middlewares.contains(name));
    let guards: Vec<String> = guards.cloned().collect();
    row.middlewares.splice(0..0, guards);
    // The login that was added must not cross the network in the clear.
    if row.auth_required && row.tls_mode == TlsMode::None {
        (row.tls_mode, row.cert_resolver) = (is.tls_mode, is.cert_resolver.clone());
    }
    row
}

/// True for a middleware of another provider, and for one of ours that decides.
fn may_guard(name: &str, now: &Rows) -> bool {
    let own = name.strip_suffix("@http").unwrap_or(name);
    let found =
        now.values().filter_map(|row| fragment(row)).find(|one| one.kind.ends_with(".middleware") && one.name == own);
    found.is_none_or(decides)
}

/// What is written where `now` becomes `target`.
fn written(now: &Rows, target: &Rows) -> Vec<RowWritten> {
    let one = |(key, row): (&Key, Option<&Row>)| {
        let was = now.get(key);
        let op = match (was, row) {
            (_, None) => RowOp::Delete,
            (None, Some(_)) => RowOp::Insert,
            (Some(_), Some(_)) => RowOp::Update,
        };
        RowWritten { name: row.or(was.map(|row| &**row)).map(Row::name).unwrap_or_default(), op }
    };
    restore::changes(now, target).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests;
