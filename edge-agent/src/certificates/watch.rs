//! Tells that a file may have changed, by inotify on its folder (it may be replaced) and on itself (it may be a link).

use std::{
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

/// A writer is given so long to come to its end.
const SETTLE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Watch {
    queue: AsyncFd<OwnedFd>,
    /// What each watch is of: a folder, where only some names count, or a file.
    watched: Vec<(i32, Option<PathBuf>)>,
    /// It was heard, and not told yet: who waited went away.
    is_pending: bool,
}

impl Watch {
    /// Watches as many of them as it can.
    pub(super) fn on(paths: &[PathBuf]) -> io::Result<Self> {
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[expect(deprecated, reason = "an OwnedFd stays open and the same; what replaces it needs `unsafe`")]
        let queue = AsyncFd::new(queue)?;
        let mut this = Self { queue, watched: Vec::new(), is_pending: false };
        for path in paths {
            this.add(path);
        }
        Ok(this)
    }

    /// Again after it was replaced: adding what is watched already changes nothing.
    fn add(&mut self, path: &Path) {
        let flags = WatchFlags::ATTRIB | WatchFlags::CLOSE_WRITE;
        if let Ok(id) = inotify::add_watch(self.queue.get_ref(), path, flags)
            && !self.watched.contains(&(id, None))
        {
            self.watched.push((id, None));
        }
        let flags = flags | WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM;
        if let Some(folder) = path.parent()
            && let Ok(id) = inotify::add_watch(self.queue.get_ref(), folder, flags | WatchFlags::ONLYDIR)
            && !self.watched.contains(&(id, Some(path.to_owned())))
        {
            self.watched.push((id, Some(path.to_owned())));
        }
    }

    /// Returns after one of them changed, when its writer has come to an end. What happens while nobody waits is kept.
    pub(super) async fn changed(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        while !self.is_pending {
            let mut ready = self.queue.readable().await?;
            self.is_pending = heard(self.queue.get_ref(), &mut self.watched)?;
            ready.clear_ready();
        }
        tokio::time::sleep(SETTLE).await;
        for path in paths {
            self.add(path);
        }
        heard(self.queue.get_ref(), &mut self.watched)?;
        self.is_pending = false;
        Ok(())
    }
}

/// Empties the queue; true when something in it is about what is watched.
fn heard(queue: &OwnedFd, watched: &mut Vec<(i32, Option<PathBuf>)>) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(queue, &mut buffer);
    let mut concerns = false;
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                // Without a watch it is the overflow of the queue: anything may have happened.
                concerns |= event.wd() < 0
                    || watched.iter().any(|(id, path)| {
                        *id == event.wd() && path.as_ref().is_none_or(|path| path.file_name() == name)
                    });
                if event.events().contains(ReadFlags::IGNORED) {
                    watched.retain(|(id, _)| *id != event.wd());
                }
            }
            Err(Errno::WOULDBLOCK) => return Ok(concerns),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn writes_replacements_and_modes_are_heard_and_neighbours_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acme.json");
        let paths = [path.clone()];
        let mut watch = Watch::on(&paths).unwrap();
        fs::write(folder.path().join("other"), "1").unwrap();
        assert!(timeout(SETTLE * 4, watch.changed(&paths)).await.is_err(), "a neighbour");
        fs::write(&path, "1").unwrap();
        timeout(SOON, watch.changed(&paths)).await.expect("made").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        timeout(SOON, watch.changed(&paths)).await.expect("mode").unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        timeout(SOON, watch.changed(&paths)).await.expect("replaced").unwrap();
        fs::write(&path, "2").unwrap();
        timeout(SOON, watch.changed(&paths)).await.expect("written after that").unwrap();
        fs::remove_file(&path).unwrap();
        timeout(SOON, watch.changed(&paths)).await.expect("removed").unwrap();
        assert!(timeout(SETTLE * 4, watch.changed(&paths)).await.is_err(), "told twice");
    }
}
