//! The process of a Traefik under rehearsal: it says what it logs, and does not outlive us.
//!
//! It is killed when it is dropped. For the case that we are killed ourselves it is started by our own program, as
//! [`die_with`]: that asks the kernel for a SIGKILL when we are gone, and then becomes Traefik.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::unix::pipe::Receiver,
    process::{Child, Command},
    time::timeout,
};

use super::Error;

/// The command of ours that runs [`die_with`].
pub const DIE_WITH: &str = "die-with";
/// For asking a Traefik its version.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Actor {
    child: Child,
    log: Lines<BufReader<Receiver>>,
}

impl Actor {
    /// Starts Traefik with this static configuration and nothing else: no environment, no configuration of the system's.
    pub(super) fn enter(traefik: &Path, configuration: &Path) -> Result<Self, Error> {
        let (hear, say) = io::pipe()?;
        // The file of our program may be another by now; this is the one that runs.
        let mut command = Command::new("/proc/self/exe");
        command
            .args([OsStr::new(DIE_WITH), OsStr::new(&getpid().as_raw_pid().to_string()), traefik.as_os_str()])
            .arg(format!("--configFile={}", configuration.display()))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(say.try_clone()?)
            .stderr(say)
            .process_group(0) // a Ctrl-C is for us
            .kill_on_drop(true);
        let child = command.spawn().map_err(|error| Error::Launch(traefik.to_owned(), error))?;
        let log = BufReader::new(Receiver::from_owned_fd(hear.into())?).lines();
        Ok(Self { child, log })
    }

    /// The next line of its log; none after it ended. Can be cancelled.
    pub(super) async fn says(&mut self) -> io::Result<Option<String>> {
        self.log.next_line().await
    }

    pub(super) async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }
}

/// Becomes `program`, which the kernel kills when `parent`, who started us, ends. Returns only when that fails.
pub fn die_with(parent: i32, program: &OsStr, arguments: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have ended before we asked.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return io::Error::other("who started us is gone");
    }
    std::process::Command::new(program).args(arguments).exec()
}

/// The version that a Traefik binary says it is.
pub async fn version(traefik: &Path) -> Result<String, Error> {
    let mut command = Command::new(traefik);
    command.arg("version").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.map_err(|_| Error::Late(PATIENCE))?;
    let output = output.map_err(|error| Error::Launch(traefik.to_owned(), error))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.lines().find_map(|line| line.strip_prefix("Version:"));
    version.map(|version| version.trim().to_owned()).ok_or_else(|| {
        Error::Ended(format!(
            "{} does not tell its version: {}",
            traefik.display(),
            said.lines().next().unwrap_or_default()
        ))
    })
}
