//! A program with its log, which never outlives its test: killed on drop, and by the kernel when the test is killed.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::{Home, until};

pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    log_from: u64,
}

/// A command that dies with the thread that starts it (`setpriv` sets that and replaces itself by the program).
pub(crate) fn guarded(user: Option<&str>, death: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.args(["--pdeathsig", death, "--"]).arg(program);
    command.env("NO_COLOR", "1");
    command
}

impl Process {
    /// Output of both kinds is appended to `<name>.log` in the home.
    pub fn start(home: &Home, name: &str, mut command: Command) -> Self {
        let log = home.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let log_from = file.metadata().map_or(0, |m| m.len());
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        Self { name: name.to_owned(), child, log, log_from }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        signal_pid(self.pid(), signal);
    }

    /// The first of its descendants that runs this program.
    pub fn below(&self, program: &str) -> Option<u32> {
        below(self.pid(), program)
    }

    /// `None` while it runs.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of a child")
    }

    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let name = self.name.clone();
        until(&format!("{name} ends"), deadline, async || self.exit().ok_or("still running")).await.0
    }

    /// `kill -9`, and reaped.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// What it has said since this start.
    pub fn log(&self) -> String {
        let all = std::fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(self.log_from).unwrap_or(0).min(all.len());
        String::from_utf8_lossy(&all[from..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let text = String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(150)..];
            println!("---- {} (last {} of {} lines)\n{}", self.name, tail.len(), lines.len(), tail.join("\n"));
        }
    }
}

/// Sends a signal; a process that is gone is no error.
pub(crate) fn signal_pid(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).ok();
}

/// The first of the descendants of a process that runs this program.
pub(crate) fn below(pid: u32, program: &str) -> Option<u32> {
    // The kernel keeps 15 bytes of a name.
    let name = program.get(..15).unwrap_or(program);
    // Each thread has the children that it made.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<u32> =
        children.flat_map(|of| of.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    children.into_iter().find_map(|pid| {
        let own = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        if own.trim() == name { Some(pid) } else { below(pid, program) }
    })
}

/// Ends every process that works in `dir`: what a killed parent left behind (PostgreSQL's children lead their own groups).
pub(crate) fn sweep(dir: &std::path::Path) {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir)) {
            signal_pid(pid, Signal::KILL);
        }
    }
}
