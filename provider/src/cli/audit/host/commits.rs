//! Who changed code: the commits of folders that the settings name.
//!
//! Runs no program that a repository could name: no pager, no hook, no signature is looked at, no difference is shown.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;

use super::{Read, Source, Wanted, entry, run};
use crate::audit::list::Entry;

/// Hash, time, author, committer, subject; each is one line.
const FORMAT: &str = "--format=%H%n%ct%n%an <%ae>%n%cn <%ce>%n%s";

pub(super) async fn read(folders: &[PathBuf], wanted: &Wanted) -> Read {
    if folders.is_empty() {
        return Err("no folder is named; set `audit.git_folders`, such as [\"/opt/charliehub\"]".to_owned());
    }
    let mut all = Vec::new();
    for folder in folders {
        let since = format!("--since=@{}", wanted.since.as_second());
        let place = folder.to_string_lossy();
        let trusted = format!("safe.directory={place}");
        let mut arguments = vec!["-C", &*place, "-c", &*trusted, "-c", "core.fsmonitor=false"];
        arguments.extend(["-c", "log.showSignature=false", "--no-pager", "log", "--all", "--no-color", "--no-notes"]);
        arguments.extend(["-z", since.as_str(), FORMAT]);
        let said = run("git", &arguments).await?;
        if said.code != Some(0) {
            return Err(format!("{place}: {}; see `audit.git_folders`", said.complaint));
        }
        let text = String::from_utf8_lossy(&said.output);
        all.extend(text.split('\0').filter_map(|commit| parse(folder, commit)));
    }
    Ok(all)
}

fn parse(folder: &Path, commit: &str) -> Option<Entry> {
    let mut lines = commit.trim_start_matches('\n').lines();
    let (hash, at, author, committer) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    let mut detail = json!({ "folder": folder.to_string_lossy() });
    if author != committer {
        detail.as_object_mut()?.insert("committer".to_owned(), committer.into());
    }
    Some(Entry {
        name: Some(hash.get(..12).unwrap_or(hash).to_owned()),
        reason: Some(lines.next().unwrap_or_default().to_owned()),
        detail: Some(detail),
        ..entry(Timestamp::from_second(at.parse().ok()?).ok()?, "git.commit", author, Source::Git)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_an_entry_whatever_its_subject_is() {
        let commit = "0123456789abcdef\n1764000000\nAnn <a@x>\nBob <b@x>\nmend \u{1b}[31mit";
        let found = parse(Path::new("/srv"), commit).unwrap();
        assert_eq!((found.actor.as_str(), found.name.as_deref()), ("Ann <a@x>", Some("0123456789ab")));
        assert_eq!(found.detail, Some(json!({"folder": "/srv", "committer": "Bob <b@x>"})));
        assert!(parse(Path::new("/srv"), "").is_none());
        assert_eq!(parse(Path::new("/srv"), "\nabc\n1\nA <a>\nA <a>").unwrap().reason.as_deref(), Some(""));
    }
}
