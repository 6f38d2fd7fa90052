//! The programs of PostgreSQL and what they work on: finding them, `initdb`, the postmaster and its pid file.

use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Pid;
use tokio::process::Child;

use super::super::{OLDEST, major};
use super::place::Place;
use super::{Error, USER};

/// Small, since it has one client and some thousand rows; as safe as any other: fsync stays on.
const SETTINGS: [&str; 12] = [
    "listen_addresses=",
    "port=5432",
    "unix_socket_permissions=0700",
    "max_connections=100",
    "shared_buffers=16MB",
    "jit=off",
    "fsync=on",
    "autovacuum_max_workers=1",
    "autovacuum_work_mem=16MB",
    "max_wal_size=256MB",
    "logging_collector=off",
    "log_line_prefix=%m [%p] ",
];

/// A directory with `initdb` and `postgres`.
#[derive(Debug)]
struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// Those of `wanted`, else the newest. An explicit directory is the only one looked at.
    fn find(explicit: Option<&Path>, cluster: &Path, wanted: Option<u32>) -> Result<Self, Error> {
        let mut found: Vec<_> = match explicit {
            Some(directory) => vec![directory.to_owned()],
            None => usual_places(),
        }
        .into_iter()
        .filter_map(Self::at)
        .collect();
        found.sort_by_key(|binaries| binaries.major);
        let majors: Vec<_> = found.iter().map(|binaries| binaries.major.to_string()).collect();
        let chosen = match wanted {
            Some(wanted) => found.into_iter().rfind(|binaries| binaries.major == wanted),
            None => found.into_iter().rfind(|binaries| binaries.major >= OLDEST),
        };
        match (chosen, wanted) {
            (Some(chosen), _) => Ok(chosen),
            (None, Some(made_by)) if !majors.is_empty() => {
                Err(Error::OtherMajor { cluster: cluster.display().to_string(), made_by, found: majors.join(", ") })
            }
            (None, _) => Err(Error::NoBinaries),
        }
    }

    fn at(directory: PathBuf) -> Option<Self> {
        if !directory.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(directory.join("postgres")).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?; // postgres (PostgreSQL) 15.18 (Debian 15.18-1)
        let major = major(text.split_whitespace().nth(2)?)?;
        Some(Self { directory, major })
    }
}

fn usual_places() -> Vec<PathBuf> {
    let below = |parent: &str| {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let debian = below("/usr/lib/postgresql").into_iter().map(|version| version.join("bin"));
    let is_pgdg = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgsql-"));
    let redhat = below("/usr").into_iter().filter(is_pgdg).map(|version| version.join("bin"));
    let told = Command::new("pg_config").arg("--bindir").output().ok();
    let told = told.and_then(|output| String::from_utf8(output.stdout).ok()).map(|path| PathBuf::from(path.trim()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian.chain(redhat).chain(told).chain(std::env::split_paths(&path)).collect()
}

/// A program of PostgreSQL, as the server's user, with an environment that cannot change what it does.
fn command(place: &Place, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    command.process_group(0); // a Ctrl-C is for us: we stop it when the last poll is answered
    if place.server.drop {
        command.uid(place.server.uid).gid(place.server.gid);
    }
    command
}

/// Starts the postmaster, on a cluster that is made first when there is none.
pub(super) async fn spawn(place: &Place, bin_dir: Option<&Path>) -> Result<Child, Error> {
    let made_by = fs::read_to_string(place.cluster.join("PG_VERSION")).ok().and_then(|text| major(text.trim()));
    let binaries = Binaries::find(bin_dir, &place.cluster, made_by)?;
    if made_by.is_none() {
        initdb(place, &binaries).await?;
    }
    place.link()?;
    place.write(&place.cluster.join("pg_ident.conf"), &ident(&place.admitted))?;

    let log = place.open_log()?;
    let errors = log.try_clone().map_err(Error::io("cannot write", &place.log))?;
    let program = binaries.directory.join("postgres");
    let mut command = command(place, &program);
    command.arg("-D").arg(&place.cluster);
    command.arg("-c").arg(format!("unix_socket_directories={}", place.sockets.display()));
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.stdout(log).stderr(errors);
    tokio::process::Command::from(command).spawn().map_err(Error::io("cannot run", &program))
}

/// Into a directory beside, then renamed: what is there under the right name is whole.
async fn initdb(place: &Place, binaries: &Binaries) -> Result<(), Error> {
    let begun = place.cluster.with_extension("new");
    if begun.exists() {
        fs::remove_dir_all(&begun).map_err(Error::io("cannot remove", &begun))?;
    }
    fs::create_dir(&begun).map_err(Error::io("cannot make", &begun))?;
    place.give(&begun)?;
    let program = binaries.directory.join("initdb");
    let mut command = command(place, &program);
    command
        .args(["--encoding=UTF8", "--locale=C", "--data-checksums", "--auth-local=peer", "--auth-host=reject"])
        .args(["--no-instructions", "--username", USER, "-D"])
        .arg(&begun);
    let output = tokio::process::Command::from(command).output().await.map_err(Error::io("cannot run", &program))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let telling = said.lines().find(|line| line.contains("error")).or(said.lines().last()).unwrap_or_default();
        return Err(Error::Initdb(telling.trim().to_owned()));
    }
    place.write(
        &begun.join("pg_hba.conf"),
        "# the socket's directory is private; who passes is in pg_ident.conf\nlocal all all peer map=charliehub\n",
    )?;
    fs::rename(&begun, &place.cluster).map_err(Error::io("cannot make", &place.cluster))?;
    let parent = place.cluster.parent().unwrap_or(Path::new("/"));
    let synced = fs::File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(Error::io("cannot sync", parent))
}

fn ident(admitted: &[String]) -> String {
    let lines = admitted.iter().map(|name| format!("charliehub \"{name}\" {USER}\n"));
    format!("# written at each start: who of this machine may be database user {USER}\n{}", lines.collect::<String>())
}

/// A postmaster that runs on a cluster, as its pid file and the kernel say.
#[derive(Debug)]
pub(super) struct Living {
    pub(super) pid: Pid,
    /// The directory of its socket.
    pub(super) sockets: PathBuf,
    pub(super) is_stopping: bool,
}

impl Living {
    /// `cluster` is a real path. A pid file that names a process which is not a postgres in this directory is stale.
    pub(super) fn find(cluster: &Path) -> Option<Self> {
        let named = Self::named(cluster)?;
        let process = Path::new("/proc").join(named.pid.as_raw_pid().to_string());
        let exe = fs::read_link(process.join("exe")).ok()?;
        let is_postgres = exe.file_name()?.to_string_lossy().starts_with("postgres"); // " (deleted)" after an upgrade
        let is_here = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == cluster);
        (is_postgres && is_here).then_some(named)
    }

    /// The same for who only wants to connect: what answers on the socket lives. In a user namespace of its own, as a unit
    /// with `PrivateUsers=` has, the kernel shows its process to root alone.
    pub(super) fn answering(cluster: &Path) -> Option<Self> {
        let named = Self::named(cluster)?;
        UnixStream::connect(named.socket()).ok()?;
        Some(named)
    }

    fn named(cluster: &Path) -> Option<Self> {
        let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
        // pid, data directory, start time, port, socket directory, address, shared memory, status
        let mut lines = text.lines();
        let pid = Pid::from_raw(lines.next()?.trim().parse().ok()?)?;
        let sockets = PathBuf::from(lines.nth(3)?.trim());
        let is_stopping = lines.nth(2).is_some_and(|status| status.trim() == "stopping");
        Some(Self { pid, sockets, is_stopping })
    }

    /// False when somebody cleaned up: nobody can connect any more.
    pub(super) fn is_reachable(&self) -> bool {
        self.socket().exists()
    }

    fn socket(&self) -> PathBuf {
        self.sockets.join(".s.PGSQL.5432")
    }
}
