//! `changes.log`, which outlives a database.

use std::path::{Path, PathBuf};

use super::{Read, Source, entry, tail};
use crate::audit::list::Entry;

pub(super) async fn read(file: Option<PathBuf>) -> Read {
    let Some(file) = file else { return Err("it is off; set `log.changes_file`".to_owned()) };
    let text = tokio::task::spawn_blocking(move || both(&file)).await.map_err(|error| error.to_string())??;
    Ok(text.lines().filter_map(parse).collect())
}

/// The file, behind the one that was rotated last.
fn both(file: &Path) -> Result<String, String> {
    let mut before = file.as_os_str().to_owned();
    before.push(".1");
    let before = tail(Path::new(&before)).unwrap_or_default();
    let now = tail(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(before + &now)
}

/// `2026-11-24T18:00:00Z revision=7 actor="ann" source="api" address="-" update=a.test`
fn parse(line: &str) -> Option<Entry> {
    let (at, rest) = line.split_once(' ')?;
    let (revision, rest) = rest.strip_prefix("revision=")?.split_once(' ')?;
    let (actor, rest) = quoted(rest.strip_prefix("actor=")?)?;
    let (source, rest) = quoted(rest.strip_prefix(" source=")?)?;
    let (address, rest) = quoted(rest.strip_prefix(" address=")?)?;
    Some(Entry {
        revision: Some(revision.parse().ok()?),
        address: Some(address).filter(|address| address != "-"),
        name: Some(rest.trim().to_owned()).filter(|name| !name.is_empty()),
        reason: Some(format!("by {source}")),
        ..entry(at.parse().ok()?, "change", actor, Source::Changes)
    })
}

/// What Rust's `Debug` quoted, and what comes behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut is_escaped = false;
    let end = inner.find(|one| {
        let ends = one == '"' && !is_escaped;
        is_escaped = one == '\\' && !is_escaped;
        ends
    })?;
    let (word, rest) = (inner.get(..end)?, inner.get(end + 1..)?);
    Some((word.replace("\\\"", "\"").replace("\\\\", "\\"), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_entry_and_nobody_makes_a_line_of_his_name() {
        let line = r#"2026-11-24T18:00:00Z revision=7 actor="an\"n\n source=" source="api" address="-" update=a.test"#;
        let found = parse(line).unwrap();
        assert_eq!((found.revision, found.actor.as_str()), (Some(7), "an\"n\\n source="));
        assert_eq!((found.name.as_deref(), found.address), (Some("update=a.test"), None));
        for torn in ["", "2026-11-24T18:00:00Z", "2026-11-24T18:00:00Z revision=7 actor=\"a"] {
            assert!(parse(torn).is_none(), "{torn}");
        }
    }
}
