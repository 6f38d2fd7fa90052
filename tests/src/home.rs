//! The place of one test: a short temporary directory, ports that no other test takes, and its tasks.
//!
//! A port is taken by a lock on a file and not by a socket, so that the program which gets it can bind it at once; the
//! range lies below the kernel's ephemeral ports, which outgoing connections use.

use std::{
    fs::{File, OpenOptions, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use rand::RngExt;
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

/// Shared by everything in a test. The directory goes with the last clone.
#[derive(Clone)]
pub struct Home(Arc<Inner>);

struct Inner {
    dir: TempDir,
    ports: Mutex<Vec<File>>,
    tasks: TaskTracker,
}

impl Home {
    pub fn new() -> Self {
        // A unix socket's path holds 107 bytes, and the user `postgres` must be able to enter.
        let dir = tempfile::Builder::new().prefix("ch-").rand_bytes(6).tempdir().expect("a temporary directory");
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("open the directory for postgres");
        Self(Arc::new(Inner { dir, ports: Mutex::default(), tasks: TaskTracker::new() }))
    }

    pub fn path(&self) -> &Path {
        self.0.dir.path()
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// The tasks end with the test's runtime.
    pub fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// A port on loopback that stays ours until the test ends.
    pub fn port(&self) -> u16 {
        self.ports(1)
    }

    /// The first of so many in a row.
    pub fn ports(&self, count: u16) -> u16 {
        let locks = shared().join("ports");
        std::fs::create_dir_all(&locks).expect("a directory for port locks");
        let lock = |port: u16| {
            let lock = OpenOptions::new().create(true).append(true).open(locks.join(port.to_string())).ok()?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
            TcpListener::bind(("0.0.0.0", port)).ok()?;
            Some(lock)
        };
        for _ in 0..1_000 {
            // Below those that the kernel gives to whoever calls out.
            let first = rand::rng().random_range(15_000..32_000_u16);
            if let Some(locks) = (first..first + count).map(lock).collect::<Option<Vec<_>>>() {
                self.0.ports.lock().unwrap().extend(locks);
                return first;
            }
        }
        panic!("no {count} free ports between 15000 and 32000");
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// What all tests of this user share on this machine, wherever each has its home: port locks and the template cluster.
pub(crate) fn shared() -> PathBuf {
    Path::new("/tmp").join(format!("charliehub-tests-{}", rustix::process::getuid().as_raw()))
}

/// The root of the sources, where `deploy` is.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
