//! Real containers behind podman's Docker-compatible socket, in a process namespace that ends with the test.
//!
//! Their root is busybox. Without control groups, so that they run on any machine; so nothing can be paused.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use tokio::net::UnixStream;

use crate::{Home, Process, netns::run, process::guarded, secs, until};

pub struct Podman {
    home: Home,
    root: PathBuf,
    process: Option<Process>,
}

impl Podman {
    pub async fn start(home: &Home) -> Self {
        let root = home.join("container-root");
        for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "run"] {
            std::fs::create_dir_all(root.join(directory)).expect("a root for containers");
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
        for applet in ["sh", "sleep", "test"] {
            symlink("busybox", root.join("bin").join(applet)).expect("an applet");
        }
        let mut this = Self { home: home.clone(), root, process: None };
        this.up().await;
        this
    }

    pub async fn up(&mut self) {
        let (store, run, socket) = (self.home.join("podman"), self.home.join("podman-run"), self.socket());
        // crun knows control groups of one kind or the other, not both at once.
        let script = format!(
            "umount /sys/fs/cgroup/unified 2>/dev/null\n\
             podman --root {} --runroot {} --storage-driver vfs --cgroup-manager cgroupfs --events-backend file \
             system service --time 0 unix://{} &\nwait",
            store.display(),
            run.display(),
            socket.display()
        );
        let mut command = guarded(None, "KILL", "unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script]);
        self.process = Some(Process::start(&self.home, "podman", command));
        until("podman answers", secs(10), async || UnixStream::connect(&socket).await).await;
    }

    /// All of it ends, the containers too.
    pub fn down(&mut self) {
        self.process = None;
    }

    pub fn socket(&self) -> PathBuf {
        self.home.join("podman.sock")
    }

    /// The root of all containers.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a container and starts it. `words`: options of `podman create`, a `--`, the command.
    pub fn run(&self, name: &str, options: &[&str], command: &[&str]) {
        let root = self.root.display().to_string();
        let mut words =
            vec!["create", "--name", name, "--network", "none", "--cgroups", "disabled", "--log-driver", "none"];
        words.extend(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        words.extend(options);
        words.extend(["--rootfs", &root]);
        words.extend(command);
        self.podman(&words);
        self.podman(&["start", name]);
    }

    /// `podman WORDS`, which must succeed.
    pub fn podman(&self, words: &[&str]) {
        let url = format!("unix://{}", self.socket().display());
        run("podman", &[&["--remote", "--url", &url], words].concat());
    }

    /// `podman healthcheck run`: exit code 1 is a result.
    pub fn check_health(&self, name: &str) {
        let url = format!("unix://{}", self.socket().display());
        let words = ["--remote", "--url", &url, "healthcheck", "run", name];
        Command::new("podman").args(words).output().expect("podman");
    }
}
