//! A real systemd: Debian as process 1 of a container of systemd-nspawn, of which nothing is kept when the test is over.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    Home, Lab, Process, is_root,
    process::{below, guarded},
    secs, until,
};

pub struct Systemd {
    home: Home,
    /// Its process 1, as the host counts.
    init: u32,
    process: Process,
}

impl Systemd {
    /// Whether it can be had here; says so where it cannot.
    pub fn can_boot() -> bool {
        let can = is_root() && Path::new("/usr/bin/systemd-nspawn").exists();
        if !can {
            println!("not checked: it needs root and systemd-nspawn");
        }
        can
    }

    pub async fn boot(home: &Home) -> Self {
        let (root, machine) = (root(&[]), machine(home));
        // What nspawn starts outlives it; what is in a process namespace does not.
        let mut command = guarded(None, "KILL", "unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "systemd-nspawn"]);
        command.args(["--quiet", "--register=no", "--keep-unit", "--private-network", "--volatile=overlay", "--boot"]);
        command.arg(format!("--machine={machine}")).arg("--directory").arg(root);
        Self::until_booted(home, Process::start(home, "systemd", command)).await
    }

    /// One that has these packages of Debian too, and whose disk outlives a reboot.
    pub async fn boot_with(home: &Home, packages: &[&str]) -> Self {
        Self::boot_as(home, packages, &["--private-network".to_owned()]).await
    }

    /// The same as the hub of a lab: its network, and its tunnels with their sockets. `binds`: what else of this host it has, and
    /// where.
    pub async fn boot_as_hub(home: &Home, packages: &[&str], lab: &Lab, binds: &[(PathBuf, &str)]) -> Self {
        let mut words = vec![
            format!("--network-namespace-path=/run/netns/{}", lab.hub()),
            "--capability=CAP_NET_ADMIN".to_owned(),
            format!("--bind={}:/run/wireguard", lab.sockets().display()),
        ];
        words.extend(binds.iter().map(|(from, to)| format!("--bind={}:{to}", from.display())));
        Self::boot_as(home, packages, &words).await
    }

    async fn boot_as(home: &Home, packages: &[&str], words: &[String]) -> Self {
        let (root, machine) = (root(packages), machine(home));
        for folder in ["upper", "work", "root"] {
            std::fs::create_dir(home.join(folder)).expect("a folder of the overlay");
        }
        // The mount is seen in the namespace alone, and goes with it. 133 is how nspawn says that it is to be started anew.
        let script = "mount -t overlay overlay -o lowerdir=\"$1\",upperdir=\"$2/upper\",workdir=\"$2/work\" \"$2/root\" || exit\n\
            root=$2/root machine=$3; shift 3\n\
            while systemd-nspawn --quiet --register=no --keep-unit --boot --machine=\"$machine\" -D \"$root\" \"$@\"\n\
                [ $? = 133 ]; do :; done";
        let mut command = guarded(None, "KILL", "unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh"]);
        command.arg(root).arg(home.path()).arg(machine).args(words);
        Self::until_booted(home, Process::start(home, "systemd", command)).await
    }

    async fn until_booted(home: &Home, process: Process) -> Self {
        let mut this = Self { home: home.clone(), init: 0, process };
        this.until_up().await;
        this
    }

    async fn until_up(&mut self) {
        let (before, pid) = (self.init, self.process.pid());
        let other = async || below(pid, "systemd").filter(|init| *init != before).ok_or("not yet");
        (self.init, _) = until("systemd is process 1", secs(60), other).await;
        until("it has booted", secs(60), async || {
            let state = self.output(&["systemctl", "is-system-running"], "");
            if matches!(state.trim(), "running" | "degraded") { Ok(()) } else { Err(state) }
        })
        .await;
    }

    /// Down and up again, as an operator does it. Of [`boot_with`](Self::boot_with): what was written is still there.
    pub async fn reboot(&mut self) {
        self.output(&["systemctl", "reboot"], "");
        self.until_up().await;
    }

    /// Where a path inside is for the host.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// Copies a file of this host into it.
    pub fn copy(&self, from: impl AsRef<Path>, inside: &str) {
        let from = from.as_ref();
        std::fs::copy(from, self.path(inside))
            .unwrap_or_else(|error| panic!("{} to {inside}: {error}", from.display()));
    }

    /// Runs a shell command line in it that must do well; all that it printed.
    pub fn must(&self, line: &str) -> String {
        let (well, said) = self.try_sh(line);
        assert!(well, "{line}: {said}");
        said
    }

    /// Whether a shell command line does well in it, and all that it printed.
    pub fn try_sh(&self, line: &str) -> (bool, String) {
        let line = format!("exec 2>&1; cd /; {line}");
        let output = self.inside(&["sh", "-c", &line]).stdin(Stdio::null()).output().expect("nsenter");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// One that sends requests to an address inside.
    pub fn caller(&self, address: SocketAddr) -> Caller {
        Caller { init: self.init, address }
    }

    /// Runs a command in it; what it printed.
    pub fn output(&self, words: &[&str], input: &str) -> String {
        let mut command = self.inside(words);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("nsenter");
        child.stdin.take().expect("its input").write_all(input.as_bytes()).ok();
        String::from_utf8_lossy(&child.wait_with_output().expect("its end").stdout).into_owned()
    }

    /// A command in it, with an environment as root has it there, and nothing of ours.
    fn inside(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(self.enter()).args(words).env_clear();
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("HOME", "/root");
        command
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

/// Sends requests to what listens inside, each on a connection of its own. It sends no header but what it is told.
#[derive(Clone, Copy)]
pub struct Caller {
    init: u32,
    address: SocketAddr,
}

impl Caller {
    /// Status and body. A connection that is closed unanswered is an unexpected end or a reset, never a refusal.
    pub fn send(self, method: &str, path: &str, token: &str, body: &str) -> std::io::Result<(u16, String)> {
        let inside = move || {
            let network = File::open(format!("/proc/{}/ns/net", self.init))?;
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            TcpStream::connect(self.address)
        };
        // A thread stays in the namespace that it moves into.
        let mut stream = thread::spawn(inside).join().expect("a thread")?;
        stream.set_read_timeout(Some(secs(60)))?;
        let (host, length) = (self.address, body.len());
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        if answer.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))?;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok((status, body.to_owned()))
    }
}

/// Where `debian-root` has one with these packages.
fn root(packages: &[&str]) -> String {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/debian-root");
    let made = Command::new(&tool).args(packages).stderr(Stdio::inherit()).output().expect("debian-root");
    assert!(made.status.success(), "{} failed", tool.display());
    String::from_utf8_lossy(&made.stdout).trim().to_owned()
}

fn machine(home: &Home) -> String {
    home.path().file_name().unwrap_or_default().to_string_lossy().replace('.', "")
}
