//! Where a secret is: in a file, or what a command prints, so that any vault fits.
//!
//! Every setting `*_file` of provider and agent is a [`Source`]: a path, or `exec:COMMAND ARG...`. A command is named by its
//! whole path and started without a shell; its words are separated by blanks, and what needs more is a script. It has
//! [`PATIENCE`], nothing on its input, and at most [`LARGEST`] bytes of output.
//!
//! An error names the command and the first line that it said on stderr; never the secret.

mod stamp;

use std::{
    fmt, fs, io,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

pub use self::stamp::Stamp;

/// How a setting begins whose secret is what a command prints.
pub const EXEC: &str = "exec:";
/// A command that takes longer is ended.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the longest secret.
pub const LARGEST: u64 = 64 << 10;
/// Bytes of what is shown of stderr.
const SHOWN: usize = 200;

/// A file, or a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// The command's path and its arguments.
    Command(Vec<String>),
}

/// Why there is no secret. Says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} cannot be read: {source}; name a file that this user can read")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{0} is empty; write the secret into it")]
    Empty(PathBuf),
    #[error("`{EXEC}{0}` does not name a command by its whole path; write {EXEC}/usr/local/bin/COMMAND ARG...")]
    NoPath(String),
    #[error("the command {command} cannot be started: {source}; name a program that this user can run")]
    Start { command: String, source: io::Error },
    #[error("the command {command} failed ({status}): {said}; run it as this user to see why")]
    Failed { command: String, status: ExitStatus, said: String },
    #[error("the command {command} did not end within {} s; it must print the secret and end", .limit.as_secs())]
    Late { command: String, limit: Duration },
    #[error("the command {command} printed nothing; it must print the secret on stdout")]
    Nothing { command: String },
    #[error("the command {command} printed no secret: {what}; it must print the secret on stdout and nothing else")]
    NoSecret { command: String, what: &'static str },
}

impl From<&Path> for Source {
    fn from(setting: &Path) -> Self {
        match setting.to_str().and_then(|text| text.strip_prefix(EXEC)) {
            Some(command) => Self::Command(command.split_whitespace().map(str::to_owned).collect()),
            None => Self::File(setting.to_owned()),
        }
    }
}

impl fmt::Display for Source {
    /// What is said of it: the path, or the command without its arguments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Command(words) => f.write_str(words.first().map_or("", String::as_str)),
        }
    }
}

impl Source {
    /// The secret, without the newline at its end; of a command also without blanks around it. Blocks, at most
    /// [`PATIENCE`] and what the file system takes.
    pub fn read(&self) -> Result<String, Error> {
        self.read_within(PATIENCE)
    }

    fn read_within(&self, limit: Duration) -> Result<String, Error> {
        match self {
            Self::File(path) => {
                let text =
                    fs::read_to_string(path).map_err(|source| Error::Unreadable { path: path.clone(), source })?;
                match text.trim_end_matches(['\r', '\n']) {
                    "" => Err(Error::Empty(path.clone())),
                    secret => Ok(secret.to_owned()),
                }
            }
            Self::Command(words) => match words.split_first() {
                Some((command, arguments)) if command.starts_with('/') => ask(command, arguments, limit),
                _ => Err(Error::NoPath(words.first().cloned().unwrap_or_default())),
            },
        }
    }
}

fn ask(command: &str, arguments: &[String], limit: Duration) -> Result<String, Error> {
    let until = Instant::now() + limit;
    let named = || command.to_owned();
    // A group of its own, so that what it started ends with it.
    let mut child = Command::new(command)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|source| Error::Start { command: named(), source })?;
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let left = || until.saturating_duration_since(Instant::now());
    let heard = out.recv_timeout(left()).ok().and_then(|out| Some((out, err.recv_timeout(left()).ok()?)));
    let Some((out, err)) = heard else {
        end(&mut child);
        return Err(Error::Late { command: named(), limit });
    };
    let no_secret = |what| Error::NoSecret { command: named(), what };
    // Nobody read the rest, so that how it ends says nothing.
    if u64::try_from(out.len()).is_ok_and(|length| length > LARGEST) {
        end(&mut child);
        return Err(no_secret("it is longer than 64 KiB"));
    }
    // Both of its outputs are closed; what goes on behind that is not waited for.
    let status = match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        Ok(None) => wait(child, left()).ok_or_else(|| Error::Late { command: named(), limit })?,
        Err(source) => Err(source),
    };
    let status = status.map_err(|source| Error::Start { command: named(), source })?;
    let secret = String::from_utf8_lossy(&out);
    if !status.success() {
        return Err(Error::Failed { command: named(), status, said: first_line(&err, secret.trim()) });
    }
    match std::str::from_utf8(&out).map_err(|_| no_secret("it is not UTF-8"))?.trim() {
        "" => Err(Error::Nothing { command: named() }),
        secret => Ok(secret.to_owned()),
    }
}

/// All that comes, one byte more than the most at last.
fn collect(from: Option<impl io::Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (done, out) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(from) = from {
            // What came before an error is judged.
            drop(from.take(LARGEST + 1).read_to_end(&mut bytes));
        }
        drop(done.send(bytes));
    });
    out
}

/// Waits for one that closed its outputs. None, and it is ended, when it does not end in time.
fn wait(mut child: Child, limit: Duration) -> Option<io::Result<ExitStatus>> {
    let group = group(&child);
    let (done, ended) = mpsc::channel();
    thread::spawn(move || drop(done.send(child.wait())));
    let ended = ended.recv_timeout(limit).ok();
    if ended.is_none() {
        kill(group);
    }
    ended
}

fn end(child: &mut Child) {
    kill(group(child));
    drop(child.wait());
}

fn group(child: &Child) -> Option<rustix::process::Pid> {
    i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw)
}

fn kill(group: Option<rustix::process::Pid>) {
    if let Some(group) = group {
        // One that is gone already is no error.
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
    }
}

/// Of what was said on stderr; without the secret, should it be in there.
fn first_line(err: &[u8], secret: &str) -> String {
    let text = String::from_utf8_lossy(err);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing on stderr");
    let line = if secret.is_empty() { line.to_owned() } else { line.replace(secret, "***") };
    line.trim().chars().filter(|letter| !letter.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests;
