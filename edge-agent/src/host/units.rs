//! Units of systemd: active, enabled, not failed, not restarting again and again; timers with a next run.
//!
//! One `systemctl show` for all of them; what it prints is one block a unit, in the order that it was asked for.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use charliehub_proto::{finding::Status, policy};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::timeout,
};

use super::restarts::{Restarts, TOO_MANY};
use crate::{clock::Now, config, sample::Sample};

const CHECK: &str = "unit";

const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,UnitFileState,Result,NRestarts,NextElapseUSecRealtime,NextElapseUSecMonotonic";

/// What `systemctl` may say: a block is some 200 bytes.
const MOST_OUTPUT: u64 = 1 << 20;

/// A timer may be so late: systemd gathers them within its `AccuracySec`, a minute.
const LATE: SignedDuration = SignedDuration::from_mins(5);

#[derive(Debug)]
pub(super) struct Units {
    timeout: Duration,
    window: Duration,
    restarts: Restarts,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("there is no `systemctl` in PATH or /usr/bin")]
    Absent,
    #[error("`systemctl` could not be run: {0}")]
    Run(#[from] io::Error),
    #[error("`systemctl show` did not end within {0:?}")]
    Hangs(Duration),
    #[error("`systemctl show` failed: {0}")]
    Failed(String),
    #[error("`systemctl show` told of {told} units of {asked}")]
    Short { told: usize, asked: usize },
}

/// A unit, as systemd calls its states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    load: String,
    active: String,
    sub: String,
    file: String,
    result: String,
    restarts: u64,
    next: Next,
}

/// When a timer elapses next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Never,
    At(Timestamp),
    /// Some time after the boot.
    Later,
}

impl Units {
    pub(super) fn new(settings: &config::Host) -> Self {
        Self { timeout: settings.timeout, window: settings.restart_window, restarts: Restarts::default() }
    }

    pub(super) async fn look(&mut self, units: &[policy::Unit], now: Now) -> Vec<Sample> {
        let (named, nameless): (Vec<_>, Vec<_>) = units.iter().partition(|unit| is_name(&unit.name));
        let facts = if named.is_empty() { Ok(Vec::new()) } else { read(&named, self.timeout).await };
        let mut samples: Vec<Sample> = nameless
            .iter()
            .map(|unit| {
                let text = format!("`{}` is no name of a unit", unit.name.escape_debug());
                Sample::unknown(CHECK, &unit.name, text)
                    .remedy("correct the policy: a name with its suffix, such as `docker.service`")
            })
            .collect();
        self.restarts.keep(units.iter().map(|unit| unit.name.as_str()));
        match facts {
            Ok(facts) => samples.extend(named.iter().zip(facts).map(|(unit, facts)| {
                let lately = self.restarts.note(&unit.name, facts.restarts, now.boot, self.window);
                judge(unit, &facts, lately, now)
            })),
            Err(error) => samples.extend(named.iter().map(|unit| {
                let text = format!("{} could not be looked at: {error}", unit.name);
                Sample::unknown(CHECK, &unit.name, text).source("systemctl show").remedy(
                    "run the agent where systemd is process 1 and its bus can be reached: `systemctl show` must work for the agent's user",
                )
            })),
        }
        samples
    }
}

/// What systemd takes for one unit: no pattern, and no option.
fn is_name(name: &str) -> bool {
    let is_right = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.len() <= 255 && name.bytes().all(is_right) && !name.starts_with('-') && name.contains('.')
}

async fn read(units: &[&policy::Unit], limit: Duration) -> Result<Vec<Facts>, Error> {
    let mut command = Command::new(program("systemctl").ok_or(Error::Absent)?);
    command.args(["show", "--no-pager", PROPERTIES, "--"]).args(units.iter().map(|unit| &unit.name));
    let (status, out, err) = timeout(limit, run(command)).await.map_err(|_| Error::Hangs(limit))??;
    if !status.success() {
        let why = err.lines().next().unwrap_or("without a word").to_owned();
        return Err(Error::Failed(why));
    }
    let facts = parse(&out);
    if facts.len() != units.len() {
        return Err(Error::Short { told: facts.len(), asked: units.len() });
    }
    Ok(facts)
}

/// In PATH, and where administrators' programs are.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(known).map(|folder| folder.join(name)).find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    path.is_absolute() && path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Its answers are in English and UTC; it dies with the look.
async fn run(mut command: Command) -> io::Result<(ExitStatus, String, String)> {
    let mut child = command
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        // Else it says to systemd that it is ready, in our name.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = tokio::try_join!(text(out), text(err))?;
    Ok((child.wait().await?, out, err))
}

async fn text(from: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(MOST_OUTPUT).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `Name=value` lines, an empty one between two units.
fn parse(text: &str) -> Vec<Facts> {
    let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
    let facts = |block: &str| {
        let properties: BTreeMap<&str, &str> = block.lines().filter_map(|line| line.split_once('=')).collect();
        let get = |name: &str| properties.get(name).copied().unwrap_or_default();
        Facts {
            load: get("LoadState").to_owned(),
            active: get("ActiveState").to_owned(),
            sub: get("SubState").to_owned(),
            file: get("UnitFileState").to_owned(),
            result: get("Result").to_owned(),
            restarts: get("NRestarts").parse().unwrap_or(0),
            next: next(get("NextElapseUSecRealtime"), get("NextElapseUSecMonotonic")),
        }
    };
    blocks.map(facts).collect()
}

/// The one as `Fri 2026-11-27 02:00:00 UTC`, the other as `1d 2h`, `0` or `infinity`; either may be empty.
fn next(real: &str, monotonic: &str) -> Next {
    let time = real
        .strip_suffix(" UTC")
        .and_then(|text| text.split_once(' '))
        .map(|(_, time)| time.replacen(' ', "T", 1) + "Z");
    match time.and_then(|time| time.parse().ok()) {
        Some(at) => Next::At(at),
        None if matches!(monotonic, "" | "0" | "infinity") => Next::Never,
        None => Next::Later,
    }
}

fn judge(unit: &policy::Unit, facts: &Facts, restarts: u64, now: Now) -> Sample {
    let name = unit.name.as_str();
    let say = |status, text: &str| Sample::new(CHECK, name, status, format!("{name} {text}")).source("systemctl show");
    let seen = format!(
        "{} ({}), {}",
        facts.active,
        facts.sub,
        if facts.file.is_empty() { "no unit file" } else { &facts.file }
    );
    let wanted = match (unit.active, unit.enabled) {
        (true, true) => "active, enabled",
        (true, false) => "active",
        (false, true) => "enabled, not failed",
        (false, false) => "not failed",
    };
    let bad = |status, text: &str, remedy: String| say(status, text).observed(&seen).expected(wanted).remedy(remedy);
    if facts.load == "not-found" {
        return bad(
            Status::Critical,
            "does not exist",
            format!("install what brings {name}, or take it out of the policy"),
        );
    }
    if facts.load == "masked" {
        return bad(Status::Critical, "is masked", format!("systemctl unmask {name} && systemctl enable --now {name}"));
    }
    if facts.load != "loaded" {
        return bad(
            Status::Critical,
            &format!("cannot be loaded: {}", facts.load),
            format!("see `systemctl status {name}`"),
        );
    }
    let start = format!("systemctl start {name}");
    match facts.active.as_str() {
        "failed" => {
            let text = format!("has failed: {}", if facts.result.is_empty() { "failed" } else { &facts.result });
            let mend = if unit.active {
                format!("systemctl restart {name}")
            } else {
                format!("systemctl reset-failed {name}")
            };
            return bad(Status::Critical, &text, format!("see `journalctl -u {name} -n 50`; then `{mend}`"));
        }
        "activating" if facts.sub == "auto-restart" => {
            let remedy = format!("see why it ends: `journalctl -u {name} -n 50`");
            return bad(Status::Critical, "ended, and waits for its next start", remedy);
        }
        _ if !unit.active => {}
        "active" | "reloading" | "refreshing" => {}
        "activating" => return bad(Status::Warning, "is still starting", format!("see `systemctl status {name}`")),
        other => return bad(Status::Critical, &format!("is not active: {other}"), start),
    }
    if restarts >= TOO_MANY {
        let text = format!("restarted by itself {restarts} times lately");
        return bad(Status::Warning, &text, format!("see why it ends: `journalctl -u {name} -n 50`"));
    }
    if unit.enabled && !starts_at_boot(&facts.file) {
        let text = format!("is not enabled ({}), so it is gone after a reboot", facts.file);
        return bad(Status::Warning, &text, format!("systemctl enable {name}"));
    }
    if unit.active && unit.name.rsplit_once('.').is_some_and(|(_, kind)| kind == "timer") && facts.sub != "running" {
        match facts.next {
            Next::Never => {
                let remedy = format!(
                    "see `systemctl list-timers {name}` and its `OnCalendar=`; then `systemctl restart {name}`"
                );
                return bad(Status::Warning, "has no next run", remedy);
            }
            Next::At(at) if now.is_trusted && now.wall.duration_since(at) > LATE => {
                return bad(Status::Warning, &format!("should have run at {at}"), format!("systemctl restart {name}"));
            }
            Next::At(_) | Next::Later => {}
        }
    }
    say(Status::Ok, &format!("is {seen}"))
}

/// `static`, `generated` and their like cannot be enabled: something else starts them.
fn starts_at_boot(file: &str) -> bool {
    matches!(file, "enabled" | "static" | "alias" | "indirect" | "generated" | "")
}

#[cfg(test)]
mod tests;
