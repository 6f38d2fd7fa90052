//! Where the private server lives: its data, its socket, its log, and as whom it runs.
//!
//! Everything is below the data directory but for two things. The socket goes to a short directory elsewhere, since a path
//! over 107 bytes cannot be bound. And where the server's user cannot get to the data directory (a home of root), or where
//! it holds what is not ours to give away, the cluster goes to /var/lib/charliehub with a link to it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, symlink,
};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use super::Error;

/// The longest path of a unix socket, in bytes.
const LONGEST: usize = 107;
/// Above this the log begins anew.
const LOG_LIMIT: u64 = 10 << 20;
/// What we, and nobody else, put into a data directory.
const OURS: [&str; 7] = ["admin.token", "backups", "lock", "parts", "postgres", "snapshot", "tokens"];

/// Who the server runs as.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// True when we are root and have to become this user.
    pub(super) drop: bool,
}

#[derive(Debug)]
pub(super) struct Place {
    /// The real path of the cluster; it may not be there yet.
    pub(super) cluster: PathBuf,
    /// `<data-dir>/postgres`: the cluster, or a link to it.
    link: PathBuf,
    pub(super) sockets: PathBuf,
    pub(super) log: PathBuf,
    pub(super) server: Identity,
    /// Names of the operating system that may be database user `charliehub`.
    pub(super) admitted: Vec<String>,
    digest: String,
    #[expect(dead_code, reason = "locked as long as it is open")]
    lock: File,
}

impl Place {
    pub(super) fn prepare(data_dir: &Path, run_as: &str) -> Result<Self, Error> {
        let server = Identity::of_server(run_as)?;
        let made = !data_dir.exists();
        if let Some(above) = data_dir.parent().filter(|_| made) {
            fs::create_dir_all(above).map_err(Error::io("cannot make", above))?;
        }
        if made {
            DirBuilder::new().mode(0o700).create(data_dir).map_err(Error::io("cannot make", data_dir))?;
        }
        let data_dir = data_dir.canonicalize().map_err(Error::io("cannot enter", data_dir))?;
        let lock = lock(&data_dir, &server)?;
        let digest = digest(&data_dir);

        let link = data_dir.join("postgres");
        let cluster = if let Ok(there) = link.canonicalize() {
            there
        } else if let Ok(target) = fs::read_link(&link) {
            let (link, target) = (link.display().to_string(), target.display().to_string());
            return Err(Error::Dangling { link, target });
        } else if server.drop && !(may_give_away(&data_dir, &server, made) && is_passable(&data_dir, &server)) {
            let elsewhere = Path::new("/var/lib/charliehub");
            fs::create_dir_all(elsewhere).map_err(Error::io("cannot make", elsewhere))?;
            fs::set_permissions(elsewhere, Permissions::from_mode(0o755))
                .map_err(Error::io("cannot open", elsewhere))?;
            let elsewhere = elsewhere.canonicalize().map_err(Error::io("cannot enter", elsewhere))?;
            let cluster = elsewhere.join(&digest);
            tracing::info!(user = %server.name, cluster = %cluster.display(), "the database is kept outside of the data \
                directory, which its user cannot enter");
            cluster
        } else {
            link.clone()
        };
        if cluster == link && server.drop {
            chown(&data_dir, Some(server.uid), Some(server.gid)).map_err(Error::io("cannot give away", &data_dir))?;
            fs::set_permissions(&data_dir, Permissions::from_mode(0o700))
                .map_err(Error::io("cannot close", &data_dir))?;
        }

        let us = Identity::named(None).map(|us| us.name);
        let mut admitted = vec!["root".to_owned(), server.name.clone()];
        admitted.extend(us);
        admitted.sort();
        admitted.dedup();
        let log = data_dir.join("postgres.log");
        if fs::metadata(&log).is_ok_and(|log| log.len() > LOG_LIMIT) {
            File::create(&log).map_err(Error::io("cannot empty", &log))?;
        }
        Ok(Self { cluster, link, sockets: PathBuf::new(), log, server, admitted, digest, lock })
    }

    /// The socket's directory: made, or found as we left it. In that of our unit, in /run or the user's own, else in /tmp.
    pub(super) fn make_sockets(&mut self) -> Result<(), Error> {
        let own = if self.server.drop {
            Some(PathBuf::from("/run"))
        } else {
            // Of the unit: a /tmp of its own would hide the socket from our commands.
            ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"].into_iter().find_map(std::env::var_os).map(Into::into)
        };
        let name = format!("charliehub-{}", self.digest);
        let fits = |base: &PathBuf| base.join(&name).join(".s.PGSQL.5432").as_os_str().len() <= LONGEST;
        let mut last = None;
        for base in own.into_iter().filter(fits).chain([PathBuf::from("/tmp")]) {
            let directory = base.join(&name);
            match self.make_private(&directory) {
                Ok(()) => {
                    self.sockets = directory;
                    return Ok(());
                }
                Err(foreign @ Error::Foreign(_)) => return Err(foreign),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Foreign("/tmp".to_owned())))
    }

    /// The same directory as before, in case somebody cleaned up.
    pub(super) fn reopen_sockets(&self) -> Result<(), Error> {
        self.make_private(&self.sockets)
    }

    fn make_private(&self, directory: &Path) -> Result<(), Error> {
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => self.give(directory),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let found = fs::symlink_metadata(directory).map_err(Error::io("cannot look at", directory))?;
                if found.is_dir() && found.uid() == self.server.uid && found.mode() & 0o777 == 0o700 {
                    return Ok(());
                }
                Err(Error::Foreign(directory.display().to_string()))
            }
            Err(error) => Err(Error::io("cannot make", directory)(error)),
        }
    }

    /// Makes the server's user the owner of what we made as root.
    pub(super) fn give(&self, path: &Path) -> Result<(), Error> {
        if !self.server.drop {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.server.uid), Some(self.server.gid))
            .map_err(Error::io("cannot give away", path))
    }

    /// Writes a file of the cluster as its user's, whole or not at all. Never through a link that lies there.
    pub(super) fn write(&self, path: &Path, text: &str) -> Result<(), Error> {
        if fs::read_to_string(path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(Error::io("cannot write", path))?;
        file.write_all(text.as_bytes()).map_err(Error::io("cannot write", path))?;
        self.give(file.path())?;
        file.persist(path).map_err(|error| Error::io("cannot write", path)(error.error))?;
        Ok(())
    }

    /// `<data-dir>/postgres` leads to the cluster, wherever it is.
    pub(super) fn link(&self) -> Result<(), Error> {
        if self.cluster == self.link || fs::symlink_metadata(&self.link).is_ok() {
            return Ok(());
        }
        symlink(&self.cluster, &self.link).map_err(Error::io("cannot make", &self.link))
    }

    pub(super) fn open_log(&self) -> Result<File, Error> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600).open(&self.log).map_err(Error::io("cannot write", &self.log))
    }

    pub(super) fn log_length(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |log| log.len())
    }

    pub(super) fn remove_sockets(&self) {
        if let Err(error) = fs::remove_dir_all(&self.sockets) {
            tracing::debug!(%error, directory = %self.sockets.display(), "the socket's directory stays");
        }
    }
}

impl Identity {
    fn of_server(run_as: &str) -> Result<Self, Error> {
        let drop = rustix::process::geteuid().is_root();
        let mut identity = if drop {
            Self::named(Some(run_as)).filter(|user| user.uid != 0).ok_or_else(|| Error::NoUser(run_as.to_owned()))?
        } else {
            Self::named(None).unwrap_or_else(|| Self {
                name: String::new(),
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                drop,
            })
        };
        identity.drop = drop;
        Ok(identity)
    }

    /// As `id` knows it, so that users of a directory service count too. None: no such user.
    fn named(name: Option<&str>) -> Option<Self> {
        let ask = |flag: &str| {
            let output =
                Command::new("id").arg(flag).args(name).output().ok().filter(|output| output.status.success())?;
            Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
        };
        Some(Self { name: ask("-un")?, uid: ask("-u")?.parse().ok()?, gid: ask("-g")?.parse().ok()?, drop: false })
    }

    fn may_pass(&self, directory: &fs::Metadata) -> bool {
        let bit = match directory {
            own if own.uid() == self.uid => 0o100,
            group if group.gid() == self.gid => 0o010,
            _ => 0o001,
        };
        directory.mode() & bit != 0
    }
}

fn lock(data_dir: &Path, server: &Identity) -> Result<File, Error> {
    let path = data_dir.join("postgres.lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).open(&path).map_err(Error::io("cannot write", &path))?;
    // A command of root may come before the first start of a service that runs as the directory's owner.
    if server.drop && fs::metadata(data_dir).is_ok_and(|owned| owned.uid() == server.uid) {
        chown(&path, Some(server.uid), Some(server.gid)).map_err(Error::io("cannot give away", &path))?;
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::InUse(data_dir.display().to_string())),
        Err(error) => Err(Error::io("cannot lock", &path)(error.into())),
    }
}

/// The first 12 hex digits of the SHA-256 of the path: short, and the same at the next start.
fn digest(data_dir: &Path) -> String {
    let hash = Sha256::digest(data_dir.as_os_str().as_bytes());
    hash.iter().take(6).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// True when the directory may belong to the server's user: new, its already, or with nothing in it but ours. Somebody
/// may have said `--data-dir /etc`.
fn may_give_away(data_dir: &Path, server: &Identity, made: bool) -> bool {
    let is_ours = |name: &OsStr| OURS.iter().any(|ours| name.as_bytes().starts_with(ours.as_bytes()));
    let only_ours =
        || fs::read_dir(data_dir).is_ok_and(|found| found.flatten().all(|entry| is_ours(&entry.file_name())));
    made || fs::metadata(data_dir).is_ok_and(|found| found.uid() == server.uid) || only_ours()
}

/// True when the server's user can walk down to the directory.
fn is_passable(data_dir: &Path, server: &Identity) -> bool {
    data_dir.ancestors().skip(1).all(|above| fs::metadata(above).is_ok_and(|above| server.may_pass(&above)))
}
