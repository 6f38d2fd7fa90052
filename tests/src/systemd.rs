//! A real systemd: Debian as process 1 of a container of systemd-nspawn, of which nothing is kept.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Home, Process, process::guarded, secs, until};

pub struct Systemd {
    home: Home,
    /// Its process 1, as the host counts.
    init: u32,
    process: Process,
}

impl Systemd {
    pub async fn boot(home: &Home) -> Self {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/debian-root");
        let made = Command::new(&tool).stderr(Stdio::inherit()).output().expect("debian-root");
        assert!(made.status.success(), "{} failed", tool.display());
        let root = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        let machine = home.path().file_name().unwrap_or_default().to_string_lossy().replace('.', "");
        // What nspawn starts outlives it; what is in a process namespace does not.
        let mut command = guarded(None, "KILL", "unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "systemd-nspawn"]);
        command.args(["--quiet", "--register=no", "--keep-unit", "--private-network", "--volatile=overlay", "--boot"]);
        command.arg(format!("--machine={machine}")).arg("--directory").arg(root);
        let process = Process::start(home, "systemd", command);
        let (init, _) =
            until("systemd is process 1", secs(20), async || below(process.pid(), "systemd").ok_or("not yet")).await;
        let this = Self { home: home.clone(), init, process };
        until("it has booted", secs(30), async || {
            let state = this.output(&["systemctl", "is-system-running"], "");
            if matches!(state.trim(), "running" | "degraded") { Ok(()) } else { Err(state) }
        })
        .await;
        this
    }

    /// Runs a command in it; what it printed.
    pub fn output(&self, words: &[&str], input: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(self.enter()).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("nsenter");
        child.stdin.take().expect("its input").write_all(input.as_bytes()).ok();
        String::from_utf8_lossy(&child.wait_with_output().expect("its end").stdout).into_owned()
    }

    /// A shell command line, as a remedy has it.
    pub fn sh(&self, line: &str) {
        self.output(&["sh", "-c", line], "");
    }

    /// A unit file.
    pub fn unit(&self, name: &str, text: &str) {
        self.output(&["tee", &format!("/etc/systemd/system/{name}")], text);
    }

    /// A directory with a `systemctl` that is this one's: put it before PATH.
    pub fn programs(&self) -> PathBuf {
        let folder = self.home.join("programs");
        std::fs::create_dir_all(&folder).expect("a folder");
        let text = format!("#!/bin/sh\nexec nsenter {} systemctl \"$@\"\n", self.enter().join(" "));
        let program = folder.join("systemctl");
        std::fs::write(&program, text).expect("a program");
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
        folder
    }

    fn enter(&self) -> Vec<String> {
        let mut words = vec!["--target".to_owned(), self.init.to_string()];
        words.extend(["--mount", "--uts", "--ipc", "--net", "--pid", "--"].map(str::to_owned));
        words
    }

    /// As when it is gone from one moment to the next.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// The first of the descendants of a process that has this name.
fn below(pid: u32, name: &str) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find_map(|pid| {
        let own = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        if own.trim() == name { Some(pid) } else { below(pid, name) }
    })
}
