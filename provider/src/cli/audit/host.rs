//! What the host itself wrote down beside our audit: commands by sudo, watched files, commits, `changes.log`.
//!
//! Each source is read on its own; one that cannot be read says why, and holds up nobody. Programs run without a shell,
//! with a deadline and a bound on what they may say. What they say is text by whoever made it: it is parsed, never believed
//! to be one line.

mod auditd;
mod changes;
mod commits;
mod sudo;

use std::{io, process::Stdio, time::Duration};

use clap::ValueEnum;
use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::timeout,
};

use crate::{
    audit::list::{Entry, Place},
    config::Config,
};

/// A source may take so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// And say so much, in bytes; of what is more only the first is read.
const MOST: u64 = 32 << 20;

/// Where entries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Source {
    /// Our own audit, in the database
    Own,
    /// Files that auditd watches for `deploy/harden`
    Auditd,
    /// Commands by sudo, from the journal
    Sudo,
    /// Commits in the folders of `audit.git_folders`
    Git,
    /// Lines of changes.log whose revision our own audit does not have
    Changes,
}

impl Source {
    pub(super) const ALL: [Self; 5] = [Self::Own, Self::Auditd, Self::Sudo, Self::Git, Self::Changes];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Auditd => "auditd",
            Self::Sudo => "sudo",
            Self::Git => "git",
            Self::Changes => "changes.log",
        }
    }
}

/// From when to when, and whose.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) since: Timestamp,
    pub(super) until: Option<Timestamp>,
    pub(super) actor: Option<String>,
}

impl Wanted {
    fn has(&self, entry: &Entry) -> bool {
        entry.at >= self.since
            && self.until.is_none_or(|until| entry.at < until)
            && self.actor.as_ref().is_none_or(|actor| *actor == entry.actor)
    }
}

/// What a source has, or why it could not be read: a sentence with the remedy.
pub(super) type Read = Result<Vec<Entry>, String>;

/// Reads the host's sources among these, side by side, in their order.
pub(super) async fn read(config: &Config, sources: &[Source], wanted: &Wanted) -> Vec<(Source, Read)> {
    let one = async |source: Source| {
        let read = match source {
            Source::Own => return None,
            Source::Auditd => auditd::read().await,
            Source::Sudo => sudo::read(wanted).await,
            Source::Git => commits::read(&config.audit.git_folders, wanted).await,
            Source::Changes => changes::read(config.log.changes_file.clone()).await,
        };
        let kept = read.map(|entries| entries.into_iter().filter(|entry| wanted.has(entry)).collect());
        Some((source, kept))
    };
    let read = futures_util::future::join_all(sources.iter().map(|source| one(*source))).await;
    read.into_iter().flatten().collect()
}

/// An entry of a source of the host.
fn entry(at: Timestamp, kind: &str, actor: impl Into<String>, source: Source) -> Entry {
    Entry {
        at,
        kind: kind.to_owned(),
        actor: actor.into(),
        source: source.name().to_owned(),
        address: None,
        db_user: None,
        revision: None,
        table: None,
        id: None,
        name: None,
        fields: Vec::new(),
        request_id: None,
        reason: None,
        detail: None,
        place: Place { at: String::new(), chain: 0, number: 0, seq: 0 },
    }
}

/// That a source could not be read, for a report that is one list.
pub(super) fn unavailable(source: Source, why: &str) -> Entry {
    Entry { reason: Some(why.to_owned()), ..entry(Timestamp::now(), "unavailable", "charliehub-provider", source) }
}

/// What a program said.
struct Said {
    code: Option<i32>,
    output: Vec<u8>,
    /// The first line of its complaint.
    complaint: String,
}

/// Runs a program of the host to its end.
async fn run(program: &str, arguments: &[&str]) -> Result<Said, String> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").env("TZ", "UTC").env_remove("NOTIFY_SOCKET").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            return format!("`{program}` is not installed");
        }
        format!("`{program}` cannot be run: {error}")
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let all = async {
        let (output, complaint) = tokio::try_join!(bounded(stdout, MOST), bounded(stderr, 64 << 10))?;
        let code = child.wait().await?.code();
        let complaint = String::from_utf8_lossy(&complaint).lines().next().unwrap_or_default().to_owned();
        Ok(Said { code, output, complaint })
    };
    match timeout(PATIENCE, all).await {
        Ok(said) => said.map_err(|error: io::Error| format!("`{program}`: {error}")),
        Err(_) => Err(format!("`{program}` did not end within {} s; ask for less (--since)", PATIENCE.as_secs())),
    }
}

async fn bounded(from: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<Vec<u8>> {
    let mut taken = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(most).read_to_end(&mut taken).await?;
        // What is more is thrown away, so that its writer ends.
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(taken)
}

/// The end of a file, bounded; without a first line that was cut.
fn tail(path: &std::path::Path) -> io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if length <= MOST {
        return Ok(text);
    }
    Ok(text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default())
}

/// `alice` of 1000; the number where nobody is called so.
fn user(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}
