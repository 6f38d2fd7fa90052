//! A PostgreSQL of our own, for who configured none: made on the first start, a child of ours, stopped with us.
//!
//! It listens on a unix socket only, in a directory that only its user enters, and lets in by the operating system's
//! word (peer) the user it runs as, us, and root. It refuses to run as root, so as root we run it as a user of its own.
//! A server that outlived a `kill -9` of us is adopted when it really is that of our data directory; one that died is
//! started again and recovers. `postmaster.pid` is never deleted by us: children of a dead postmaster may still write.
//!
//! One provider at a time: a lock on the data directory is held as long as [`Private`] lives.

mod cluster;
mod place;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use self::cluster::Living;
use self::place::Place;
use super::Database;

const USER: &str = "charliehub";
const DATABASE: &str = "charliehub";

/// How long a fast shutdown may take before it is made an immediate one.
const FAST: Duration = Duration::from_secs(10);
/// A server that says that it recovers gets more time than one that says nothing.
const RECOVERY: Duration = Duration::from_mins(5);
const SILENCE: Duration = Duration::from_secs(30);
/// For how long a start is tried again while children of the last one hold its memory.
const BUSY: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// How often an adopted server is looked at. Not tokio's `AsyncFd`: its constructors are deprecated or unsafe.
const WATCH: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no PostgreSQL {} or newer on this machine; install it (apt install postgresql, dnf install postgresql-server, \
         apk add postgresql), or name its programs with [database] bin_dir, or a database with [database] url",
        super::OLDEST
    )]
    NoBinaries,
    #[error(
        "{cluster} was made by PostgreSQL {made_by}, which is not here (found: {found}); install postgresql-{made_by}, or \
         bring the data over with pg_upgrade"
    )]
    OtherMajor { cluster: String, made_by: u32, found: String },
    #[error("PostgreSQL does not run as root and user {0} does not exist; make it: useradd --system {0}")]
    NoUser(String),
    #[error("another charliehub-provider runs with data directory {0}; stop it, or give another --data-dir")]
    InUse(String),
    #[error("{0} belongs to somebody else; remove it, or give another --data-dir")]
    Foreign(String),
    #[error(
        "{link} points to {target}, which is not there; mount it, or remove the link to begin with an empty database"
    )]
    Dangling { link: String, target: String },
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: String, source: io::Error },
    #[error("initdb failed: {0}")]
    Initdb(String),
    #[error("the private PostgreSQL does not start: {why} (log: {log})")]
    Start { why: String, log: String },
    #[error(transparent)]
    Database(#[from] super::Error),
}

impl Error {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { what, path, source }
    }
}

/// The private server. Dropped, it is told to stop; [`Private::stop`] also waits for it.
#[derive(Debug)]
pub struct Private {
    place: Place,
    bin_dir: Option<PathBuf>,
    database: Database,
    server: Option<Server>,
}

#[derive(Debug)]
enum Server {
    Ours(Child),
    /// Left over by a provider that was killed: not our child, so it is watched and signalled by its pidfd.
    Adopted(OwnedFd),
}

impl Private {
    /// Makes its place and tells its address, at once and for good; [`Private::start`] starts it.
    ///
    /// `data_dir` is made when missing. `run_as` is used only when we are root. `bin_dir` holds `initdb` and `postgres`;
    /// without it they are looked for.
    pub fn prepare(data_dir: &Path, run_as: &str, bin_dir: Option<&Path>) -> Result<(Self, Database), Error> {
        let mut place = Place::prepare(data_dir, run_as)?;
        match Living::find(&place.cluster) {
            Some(living) if living.is_reachable() => place.sockets = living.sockets,
            _ => place.make_sockets()?,
        }
        let database = Database::local(&place.sockets, USER, DATABASE)?;
        let private = Self { place, bin_dir: bin_dir.map(Path::to_owned), database: database.clone(), server: None };
        Ok((private, database))
    }

    /// Makes the cluster if there is none, adopts its server or starts it, and returns when it lets us in: after some
    /// 0.3 s, the very first time some 2 s.
    pub async fn start(&mut self) -> Result<(), Error> {
        self.bring_up().await
    }

    /// The server that a running provider has for `data_dir`: for command lines. None when there is none, or it is not
    /// ours to reach.
    pub fn attach(data_dir: &Path) -> Option<Database> {
        let cluster = data_dir.join("postgres").canonicalize().ok()?;
        let living = Living::find(&cluster).or_else(|| Living::answering(&cluster))?;
        Database::local(&living.sockets, USER, DATABASE).ok()
    }

    /// Resolves when the server is gone, with what it said last: the caller logs that and calls [`Private::restart`].
    pub async fn exited(&mut self) -> String {
        let how = match &mut self.server {
            Some(Server::Ours(child)) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Some(adopted @ Server::Adopted(_)) => {
                adopted.ended().await;
                "it ended".to_owned()
            }
            None => "it was not running".to_owned(),
        };
        format!("{how}: {}", self.last_words(0))
    }

    /// Starts the server again where it was. The address stays the same.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.halt().await;
        self.place.reopen_sockets()?;
        self.bring_up().await
    }

    /// Lets transactions end for no one: open ones are rolled back, all is on disk, the process and its socket are gone.
    pub async fn stop(mut self) {
        self.halt().await;
        self.place.remove_sockets();
    }

    /// The process of the server, while there is one.
    pub fn pid(&self) -> Option<u32> {
        Living::find(&self.place.cluster).and_then(|living| u32::try_from(living.pid.as_raw_nonzero().get()).ok())
    }

    async fn bring_up(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            let logged = self.place.log_length();
            let adopted = self.adopt().await?;
            let was_adopted = adopted.is_some();
            self.server = Some(match adopted {
                Some(adopted) => adopted,
                None => Server::Ours(cluster::spawn(&self.place, self.bin_dir.as_deref()).await?),
            });
            let Some(why) = self.until_ready(logged).await? else { return Ok(()) };
            let busy = was_adopted || ["lock file", "still in use"].iter().any(|sign| why.contains(sign));
            if !busy || began.elapsed() > BUSY {
                return Err(Error::Start { why, log: self.place.log.display().to_string() });
            }
            tracing::debug!(why, "the private PostgreSQL cannot start yet");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// The server that lives in our data directory already. One whose socket is gone is of no use and is stopped.
    async fn adopt(&self) -> Result<Option<Server>, Error> {
        let Some(living) = Living::find(&self.place.cluster) else { return Ok(None) };
        let Ok(process) = pidfd_open(living.pid, PidfdFlags::NONBLOCK) else { return Ok(None) };
        if Living::find(&self.place.cluster).is_none_or(|now| now.pid != living.pid) {
            return Ok(None);
        }
        let mut adopted = Server::Adopted(process);
        if living.is_stopping || !living.is_reachable() || living.sockets != self.place.sockets {
            adopted.halt().await;
            return Ok(None);
        }
        tracing::info!(pid = %living.pid.as_raw_nonzero(), "adopted the private PostgreSQL that was running already");
        Ok(Some(adopted))
    }

    /// None when it lets us in; else why it ended.
    async fn until_ready(&mut self, logged: u64) -> Result<Option<String>, Error> {
        let began = Instant::now();
        loop {
            let error = match self.database.connect("charliehub-provider start").await {
                Ok(_) => return Ok(None),
                Err(super::Error::NoDatabase { .. }) => {
                    self.create_database().await?;
                    continue;
                }
                Err(error) => error,
            };
            if self.server.as_mut().is_none_or(Server::is_gone) {
                self.server = None;
                return Ok(Some(self.last_words(logged)));
            }
            let patience = if matches!(error, super::Error::NotReady { .. }) { RECOVERY } else { SILENCE };
            if !error.is_transient() || began.elapsed() > patience {
                return Err(error.into());
            }
            sleep(POLL).await;
        }
    }

    async fn create_database(&self) -> Result<(), Error> {
        let (client, connection) = self.database.with_database("postgres").connect("charliehub-provider start").await?;
        let sql = format!("CREATE DATABASE {DATABASE}");
        let create = client.batch_execute(&sql);
        tokio::select! {
            done = create => done.map_err(super::Error::from)?,
            lost = connection => lost.map_err(super::Error::from)?,
        }
        Ok(())
    }

    async fn halt(&mut self) {
        if let Some(server) = &mut self.server {
            server.halt().await;
        }
        self.server = None;
    }

    /// The end of the log, from byte `from` on, without its time stamps and on one line.
    fn last_words(&self, from: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.place.log)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(from.max(end.saturating_sub(4096))))?;
            let mut bytes = Vec::new();
            file.take(4096).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let telling: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let levels =
                    ["FATAL:", "PANIC:", "ERROR:", "HINT:", "LOG:  unrecognized", "LOG:  invalid", "LOG:  could not"];
                let at = levels.iter().find_map(|level| line.find(level))?;
                line.get(at..)?.split_once(':').map(|(_, said)| said)
            })
            .map(str::trim)
            .collect();
        match telling.len() {
            0 => text.lines().last().unwrap_or("it ended while it was starting").trim().to_owned(),
            count => telling.into_iter().skip(count.saturating_sub(3)).collect::<Vec<_>>().join("; "),
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.signal(Signal::INT);
        }
    }
}

impl Server {
    fn is_gone(&mut self) -> bool {
        match self {
            Self::Ours(child) => !matches!(child.try_wait(), Ok(None)),
            Self::Adopted(process) => {
                let mut end = [PollFd::new(process, PollFlags::IN)];
                poll(&mut end, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ended| ended > 0)
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let sent = match self {
            Self::Ours(child) => match child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
                Some(pid) => kill_process(pid, signal),
                None => Ok(()), // it ended and was reaped
            },
            Self::Adopted(process) => pidfd_send_signal(process, signal),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, ?signal, "the private PostgreSQL was gone already");
        }
    }

    /// Fast shutdown, then immediate, then the end.
    async fn halt(&mut self) {
        for (signal, patience) in [(Signal::INT, FAST), (Signal::QUIT, FAST), (Signal::KILL, FAST)] {
            self.signal(signal);
            if timeout(patience, self.ended()).await.is_ok() {
                return;
            }
            tracing::warn!(?signal, "the private PostgreSQL does not stop");
        }
    }

    async fn ended(&mut self) {
        match self {
            Self::Ours(child) => drop(child.wait().await),
            Self::Adopted(_) => {
                while !self.is_gone() {
                    sleep(WATCH).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
