//! Takes names off the internet: the rows that are chosen get the internal tier, in one transaction.
//!
//! It can only narrow. A row that would be closed by it (its list has nothing in common with the internal networks, or
//! there are none) is refused by name, and then nothing is written.

use std::sync::Arc;

use charliehub_proto::{
    domain::{AccessTier, Domain},
    route::Surface,
};
use regex::Regex;
use tokio_postgres::Client;

use super::at;
use crate::{
    author::{Author, revision_made},
    compile::{Compiler, Settings, State},
    postgres, restore,
    row::{Key, Row},
    store::read,
};

/// Why nothing was moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no row is called {}; `surface` lists the names, and * stands for any text", .0.join(", "))]
    Nothing(Vec<String>),
    #[error("it would close these: {}", .0.join("; "))]
    Closes(Vec<String>),
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

/// A name, and who reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub name: String,
    /// None for a row that is not served.
    pub before: Option<Surface>,
    pub after: Option<Surface>,
}

/// What was moved, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// None for a dry run, or where every row was internal already.
    pub revision: Option<i64>,
    pub moves: Vec<Move>,
}

/// Gives the internal tier to the rows whose domain or name is one of `globs`; with `dry_run` only says what that does.
pub async fn to_internal(
    client: &mut Client,
    globs: &[String],
    author: &Author,
    settings: &Arc<Settings>,
    dry_run: bool,
) -> Result<Moved, Error> {
    let patterns: Vec<Regex> = globs.iter().filter_map(|glob| pattern(glob)).collect();
    let transaction = client.transaction().await?;
    author.begin(&transaction).await?;
    let now = read::all(&transaction).await?;
    let chosen = now.iter().filter_map(|(key, row)| match &**row {
        Row::Domain(row) if is_chosen(&patterns, row) => Some((*key, row)),
        Row::Domain(_) | Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => None,
    });
    let chosen: Vec<(Key, &Domain)> = chosen.collect();
    if chosen.is_empty() {
        return Err(Error::Nothing(globs.to_vec()));
    }
    let mut target = now.clone();
    for (key, row) in &chosen {
        let row = Domain { access_tier: AccessTier::Internal, ..(*row).clone() };
        target.insert(*key, Arc::new(Row::Domain(row)));
    }
    let (before, after) = (Compiler::of(settings, now.clone()), Compiler::of(settings, target.clone()));
    let keys = chosen.iter().filter(|(_, row)| row.access_tier != AccessTier::Internal).map(|(key, _)| *key);
    let keys: Vec<Key> = keys.collect();
    let closes = keys.iter().filter_map(|key| closes(&before, &after, key)).collect::<Vec<_>>();
    if !closes.is_empty() {
        return Err(Error::Closes(closes));
    }
    let moves = keys.iter().map(|key| Move {
        name: now.get(key).map(|row| row.name()).unwrap_or_default(),
        before: at(&before, key),
        after: at(&after, key),
    });
    let mut moves: Vec<Move> = moves.collect();
    moves.sort_by(|a, b| a.name.cmp(&b.name));
    restore::write(&transaction, &now, &target).await.map_err(|error| match error {
        restore::Error::Database(error) => error.into(),
        refused @ restore::Error::Refused(_) => Error::Refused(refused),
    })?;
    if dry_run {
        transaction.rollback().await?;
        return Ok(Moved { revision: None, moves });
    }
    let revision = revision_made(&transaction).await?;
    transaction.commit().await?;
    Ok(Moved { revision, moves })
}

/// Why the row would be closed, and is not yet.
fn closes(before: &Compiler, after: &Compiler, key: &Key) -> Option<String> {
    let closed = |compiler: &Compiler| match compiler.route(key).map(|route| &route.state) {
        Some(State::Closed { reason }) => Some(reason.clone()),
        Some(State::Live | State::Maintenance | State::Off) | None => None,
    };
    let reason = closed(after).filter(|_| closed(before).is_none())?;
    let name = after.rows().get(key).map(|row| row.name()).unwrap_or_default();
    Some(format!("{name}: {reason}"))
}

fn is_chosen(patterns: &[Regex], row: &Domain) -> bool {
    let name = Row::Domain(row.clone()).name();
    patterns.iter().any(|pattern| pattern.is_match(&row.domain) || pattern.is_match(&name))
}

/// `*` is any text, `?` any character.
fn pattern(glob: &str) -> Option<Regex> {
    let text = regex::escape(&glob.to_ascii_lowercase()).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("^(?s:{text})$")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_is_a_name_with_stars() {
        for (glob, name, is) in [
            ("a.org", "a.org", true),
            ("a.org", "xa.org", false),
            ("A.org", "a.org", true),
            ("*.org", "b.a.org", true),
            ("*.a.org", "*.a.org", true),
            ("a?org", "a.org", true),
            ("a.org", "a-org", false),
            ("a.org/*", "a.org/admin", true),
            ("a.(org", "a.(org", true),
        ] {
            assert_eq!(pattern(glob).unwrap().is_match(name), is, "{glob} {name}");
        }
    }
}
