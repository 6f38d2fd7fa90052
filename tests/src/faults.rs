//! Faults that need no program's help: a wire that can be cut at a byte, a disk that is soon full, too little memory.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::{Home, ms, netns::run};

/// A TCP relay to `target`; what comes from the target can be cut after N bytes, or stall.
pub struct Link {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// Bytes from the target that each new connection lets through before it closes.
    allowance: AtomicU64,
    /// It does not close then, but stalls until there is a larger allowance.
    waits: AtomicBool,
    stalled: AtomicBool,
    connections: AtomicU64,
    close: Notify,
}

impl Link {
    pub async fn to(home: &Home, target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the link");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State {
            allowance: AtomicU64::new(u64::MAX),
            waits: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            close: Notify::new(),
        });
        let (tasks, shared) = (home.tasks().clone(), state.clone());
        home.tasks().spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = shared.clone();
                tasks.spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    far.set_nodelay(true).ok();
                    near.set_nodelay(true).ok();
                    tokio::select! {
                        () = relay(near, far, &shared) => {}
                        () = shared.close.notified() => {}
                    }
                });
            }
        });
        Self { address, state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the next connection on, each is closed after `bytes` from the target.
    pub fn cut_after(&self, bytes: u64) {
        self.state.allowance.store(bytes, Ordering::SeqCst);
    }

    /// From the next connection on, each stalls after `bytes` from the target until it is mended.
    pub fn stall_after(&self, bytes: u64) {
        self.state.waits.store(true, Ordering::SeqCst);
        self.cut_after(bytes);
    }

    pub fn mend(&self) {
        self.cut_after(u64::MAX);
    }

    /// Nothing passes any more, in either direction, and nobody is told.
    pub fn stall(&self, stalled: bool) {
        self.state.stalled.store(stalled, Ordering::SeqCst);
    }

    /// Closes every connection that there is.
    pub fn close_all(&self) {
        self.state.close.notify_waiters();
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }
}

async fn relay(mut near: TcpStream, mut far: TcpStream, state: &State) {
    let mut left = state.allowance.load(Ordering::SeqCst);
    let (mut up, mut down) = (vec![0_u8; 16_384], vec![0_u8; 16_384]);
    loop {
        while state.stalled.load(Ordering::SeqCst) {
            tokio::time::sleep(ms(10)).await;
        }
        tokio::select! {
            read = near.read(&mut up) => match read {
                Ok(n) if n > 0 => if far.write_all(&up[..n]).await.is_err() { return },
                _ => return,
            },
            read = far.read(&mut down) => match read {
                Ok(n) if n > 0 => {
                    let pass = u64::try_from(n).unwrap_or(0).min(left);
                    left -= pass;
                    let (now, later) = down[..n].split_at(usize::try_from(pass).unwrap_or(0));
                    if near.write_all(now).await.is_err() {
                        return;
                    }
                    if left == 0 {
                        if !state.waits.load(Ordering::SeqCst) {
                            return;
                        }
                        while state.allowance.load(Ordering::SeqCst) != u64::MAX {
                            tokio::time::sleep(ms(10)).await;
                        }
                        left = u64::MAX;
                        if near.write_all(later).await.is_err() {
                            return;
                        }
                    }
                }
                _ => return,
            },
        }
    }
}

/// A tmpfs of a few MiB. Needs root.
pub struct SmallDisk {
    path: PathBuf,
    _home: Home,
}

impl SmallDisk {
    pub fn mount(home: &Home, name: &str, mib: u32) -> Self {
        let path = home.join(name);
        std::fs::create_dir_all(&path).expect("a mount point");
        let size = format!("size={mib}m,mode=0755");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &path.display().to_string()]);
        Self { path, _home: home.clone() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes until nothing more fits; the file to delete is returned.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.path.join("ballast");
        Command::new("dd")
            .args(["if=/dev/zero", "bs=4096", "status=none", &format!("of={}", ballast.display())])
            .output()
            .expect("dd");
        ballast
    }

    /// By a mount on top: files that are open stay writable, as the kernel insists.
    pub fn read_only(&self, on: bool) {
        let path = self.path.display().to_string();
        if on {
            run("mount", &["--bind", &path, &path]);
            run("mount", &["-o", "remount,bind,ro", &path]);
        } else {
            run("umount", &["-l", &path]);
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        while Command::new("umount").arg("-l").arg(&self.path).output().is_ok_and(|out| out.status.success()) {}
    }
}

/// A memory limit for a program that is started in it; `None` where the kernel does not let us.
pub struct LittleMemory {
    group: PathBuf,
}

impl LittleMemory {
    pub fn new(mib: u64) -> Option<Self> {
        let (root, limit) = if Path::new("/sys/fs/cgroup/memory").exists() {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            ("/sys/fs/cgroup", "memory.max")
        };
        let this = Self { group: Path::new(root).join(format!("charliehub-{}", rand::random::<u32>())) };
        std::fs::create_dir(&this.group).ok()?;
        std::fs::write(this.group.join(limit), (mib << 20).to_string()).ok()?;
        Some(this)
    }

    /// From now on the limit holds for this process and what it starts.
    pub fn confine(&self, pid: u32) {
        std::fs::write(self.group.join("cgroup.procs"), pid.to_string()).expect("move a process into its group");
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.group).ok();
    }
}
