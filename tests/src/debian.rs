//! A hub without a systemd: the Debian root of `tools/debian-root` below an overlay, in namespaces of its own, of which
//! nothing is kept. Our programs are in its `/usr/bin`, and `deploy` is at `/src/deploy`. Needs root.

use std::{
    fs::File,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Home, Output, Process, process::guarded, provider::built, secs, until};

const MAKE: &str = r#"set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/up,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mkdir -p "$1/root/src/deploy"
mount --bind "$3" "$1/root/src/deploy"
for program in "$4" "$5"; do
  touch "$1/root/usr/bin/${program##*/}"
  mount --bind "$program" "$1/root/usr/bin/${program##*/}"
done
ip link set lo up
touch "$1/root/ready"
exec chroot "$1/root" sleep infinity
"#;

pub struct Debian {
    /// Its process 1, as the host counts.
    init: u32,
    _process: Process,
}

impl Debian {
    pub async fn start(home: &Home) -> Self {
        let place = home.join("debian");
        std::fs::create_dir_all(&place).expect("a folder");
        let mut command = guarded(None, "KILL", "unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", MAKE, "sh"]);
        command.arg(&place).arg(debian_root()).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy"));
        command
            .arg(built("charliehub-edge-agent", "CHARLIEHUB_AGENT"))
            .arg(built("charliehub-provider", "CHARLIEHUB_PROVIDER"));
        let process = Process::start(home, "debian", command);
        let pid = process.pid();
        let (init, _) = until("the Debian is there", secs(30), async || {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let init: u32 = children.trim().parse().map_err(|_| children)?;
            if Path::new(&format!("/proc/{init}/root/ready")).exists() { Ok(init) } else { Err("not ready".to_owned()) }
        })
        .await;
        Self { init, _process: process }
    }

    /// Its files as the host sees them.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Runs a line of shell in it, as root.
    pub async fn sh(&self, line: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--net", "--pid", "--root", "--wd=/", "--"]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        command.args(["sh", "-c", line]).stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let out = tokio::time::timeout(secs(120), command.kill_on_drop(true).output()).await;
        let out = out.unwrap_or_else(|_| panic!("{line} did not end in 120 s")).expect("nsenter");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output { code: out.status.code(), out: text(&out.stdout), err: text(&out.stderr) }
    }

    /// The same, which must work; what it printed.
    pub async fn must(&self, line: &str) -> String {
        let said = self.sh(line).await;
        assert_eq!(said.code, Some(0), "{line}: {}{}", said.out, said.err);
        said.out
    }

    /// Does something in a thread that is in its network namespace, or in one that was made in it by `ip netns`.
    pub async fn inside<T: Send + 'static>(
        &self,
        namespace: Option<&str>,
        action: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let namespace = match namespace {
            None => PathBuf::from(format!("/proc/{}/ns/net", self.init)),
            Some(name) => self.path(&format!("/run/netns/{name}")),
        };
        let (done, result) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let enter = || -> io::Result<()> {
                Ok(move_into_link_name_space(File::open(namespace)?.as_fd(), Some(LinkNameSpaceType::Network))?)
            };
            done.send(enter().and_then(|()| action())).ok();
        });
        result.await.expect("the thread answers")
    }
}

/// The shared root: never written to.
pub fn debian_root() -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/debian-root");
    let made = Command::new(&tool).stderr(Stdio::inherit()).output().expect("debian-root");
    assert!(made.status.success(), "{} failed", tool.display());
    PathBuf::from(String::from_utf8_lossy(&made.stdout).trim())
}
