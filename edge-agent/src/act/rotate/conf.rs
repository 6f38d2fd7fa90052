//! The file of a tunnel, as wg-quick reads it at the next boot: the only place where a private key is kept.
//!
//! It is replaced whole, by a draft beside it that has its owner and mode. Of a line only the value is another one.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use crate::wireguard::{facts::Key, write::Secret};

#[derive(Clone)]
pub(super) struct Conf {
    path: PathBuf,
    text: String,
}

impl Conf {
    pub(super) fn path(dir: &Path, interface: &str) -> PathBuf {
        dir.join(format!("{interface}.conf"))
    }

    /// Why not, and the remedy, where it cannot be read or others can read it too.
    pub(super) fn read(dir: &Path, interface: &str) -> Result<Self, String> {
        let path = Self::path(dir, interface);
        let shown = path.display();
        let text = fs::read_to_string(&path).map_err(|error| {
            format!("{shown} cannot be read: {error}; save the tunnel there, so that a reboot has it: wg-quick save {interface}")
        })?;
        let mode = fs::metadata(&path).map_err(|error| format!("{shown} cannot be looked at: {error}"))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!("{shown} has mode {mode:o}, so others can read its keys: chmod 600 {shown}"));
        }
        Ok(Self { path, text })
    }

    /// The private key of this end.
    pub(super) fn own_key(&self) -> Option<Secret> {
        let mut lines = self.lines().filter(|line| line.section == Section::Interface);
        lines.find_map(|line| Secret::read(line.value("PrivateKey")?))
    }

    pub(super) fn has_peer(&self, key: Key) -> bool {
        self.section_of(key).is_some()
    }

    /// The preshared key of a peer, where it has one.
    pub(super) fn preshared(&self, key: Key) -> Option<Secret> {
        let section = self.section_of(key)?;
        let mut lines = self.lines().filter(|line| line.section == Section::Peer(section));
        lines.find_map(|line| Secret::read(line.value("PresharedKey")?))
    }

    /// With another private key of this end.
    #[must_use]
    pub(super) fn with_own_key(&self, key: &Secret) -> Self {
        self.with(|line| {
            let is_it = line.section == Section::Interface && line.value("PrivateKey").is_some();
            is_it.then(|| key.reveal())
        })
    }

    /// With another key of a peer, where it has that.
    #[must_use]
    pub(super) fn with_peer(&self, old: Key, new: Key) -> Self {
        self.with(|line| (line.value("PublicKey").and_then(Key::read) == Some(old)).then(|| new.to_string()))
    }

    /// Its text is that of the file from now on, and after a crash that of either.
    pub(super) fn save(&self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        self.draft_in(dir)?.persist(&self.path)?;
        fs::File::open(dir)?.sync_all()
    }

    /// Written beside the file, for [`Self::save_draft`].
    pub(super) fn write_draft(&self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        self.draft_in(dir)?.persist(draft(&self.path))?;
        fs::File::open(dir)?.sync_all()
    }

    fn draft_in(&self, dir: &Path) -> io::Result<tempfile::NamedTempFile> {
        let mut draft = tempfile::NamedTempFile::new_in(dir)?;
        let (old, ours) = (fs::metadata(&self.path)?, draft.as_file().metadata()?);
        draft.as_file().set_permissions(fs::Permissions::from_mode(old.mode() & 0o700))?;
        if (old.uid(), old.gid()) != (ours.uid(), ours.gid()) {
            let given = fchown(draft.as_file(), Some(old.uid()), Some(old.gid()));
            given.map_err(|error| {
                io::Error::new(error.kind(), format!("it cannot be given to its owner ({error}): CAP_CHOWN"))
            })?;
        }
        draft.write_all(self.text.as_bytes())?;
        draft.as_file().sync_all()?;
        Ok(draft)
    }

    /// The draft takes the place of the file. None there: it did before.
    pub(super) fn save_draft(dir: &Path, interface: &str) -> io::Result<()> {
        let path = Self::path(dir, interface);
        match fs::rename(draft(&path), path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        fs::File::open(dir)?.sync_all()
    }

    pub(super) fn remove_draft(dir: &Path, interface: &str) -> io::Result<()> {
        match fs::remove_file(draft(&Self::path(dir, interface))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn section_of(&self, key: Key) -> Option<usize> {
        self.lines().find_map(|line| match line.section {
            Section::Peer(number) => (Key::read(line.value("PublicKey")?) == Some(key)).then_some(number),
            Section::Interface => None,
        })
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let mut section = Section::Interface;
        let mut peers = 0;
        self.text.split_inclusive('\n').map(move |text| {
            let head = text.trim();
            if head.eq_ignore_ascii_case("[interface]") {
                section = Section::Interface;
            } else if head.eq_ignore_ascii_case("[peer]") {
                peers += 1;
                section = Section::Peer(peers);
            }
            Line { section, text }
        })
    }

    fn with(&self, new: impl Fn(&Line<'_>) -> Option<String>) -> Self {
        let text = self.lines().map(|line| match new(&line) {
            Some(value) => line.with(&value),
            None => line.text.to_owned(),
        });
        Self { path: self.path.clone(), text: text.collect() }
    }
}

fn draft(path: &Path) -> PathBuf {
    path.with_extension("conf.new")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Interface,
    Peer(usize),
}

struct Line<'a> {
    section: Section,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// Where this is the line of that name. Names are read in any case, as `wg` does.
    fn value(&self, name: &str) -> Option<&'a str> {
        let (is, value) = self.text.split_once('#').map_or(self.text, |(line, _)| line).split_once('=')?;
        is.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    }

    fn with(&self, value: &str) -> String {
        let name = self.text.split_once('=').map_or(self.text, |(name, _)| name).trim_end();
        let comment = self.text.split_once('#').map(|(_, comment)| format!(" #{}", comment.trim_end()));
        format!("{name} = {value}{}\n", comment.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Secret = Secret([7; 32]);
    const PSK: Secret = Secret([8; 32]);
    const UK: Key = Key([1; 32]);
    const FR: Key = Key([2; 32]);

    fn file(dir: &Path) -> Conf {
        let text = format!(
            "# of the hub\n[Interface]\nprivateKEY = {} # made in 2024\nListenPort = 51820\nPostUp = ip rule add x=y\n\n\
             [Peer]\nPublicKey = {UK}\nAllowedIPs = 10.44.0.0/16\n[peer]\nPublicKey = {FR}\nPresharedKey = {}\n",
            OWN.reveal(),
            PSK.reveal()
        );
        fs::write(dir.join("wg0.conf"), text).unwrap();
        fs::set_permissions(dir.join("wg0.conf"), fs::Permissions::from_mode(0o600)).unwrap();
        Conf::read(dir, "wg0").unwrap()
    }

    #[test]
    fn its_keys_are_found_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let conf = file(dir.path());
        assert_eq!(conf.own_key(), Some(OWN));
        assert_eq!([UK, FR, Key([3; 32])].map(|key| conf.has_peer(key)), [true, true, false]);
        assert_eq!([UK, FR].map(|key| conf.preshared(key)), [None, Some(PSK)]);
    }

    #[test]
    fn of_a_line_only_the_value_changes() {
        let dir = tempfile::tempdir().unwrap();
        let conf = file(dir.path());
        let new = Secret([9; 32]);
        let own = conf.with_own_key(&new);
        assert_eq!(own.text.replace(&new.reveal(), &OWN.reveal()), conf.text);
        let peer = conf.with_peer(UK, Key([5; 32]));
        assert_eq!(peer.text.replace(&Key([5; 32]).to_string(), &UK.to_string()), conf.text);
        assert_eq!((peer.has_peer(UK), peer.has_peer(Key([5; 32]))), (false, true));
    }

    #[test]
    fn a_draft_takes_its_place_once() {
        let dir = tempfile::tempdir().unwrap();
        let conf = file(dir.path());
        let new = Secret([9; 32]);
        conf.with_own_key(&new).write_draft().unwrap();
        assert_eq!(Conf::read(dir.path(), "wg0").unwrap().own_key(), Some(OWN));
        for _ in 0..2 {
            Conf::save_draft(dir.path(), "wg0").unwrap();
            let read = Conf::read(dir.path(), "wg0").unwrap();
            assert_eq!(read.own_key(), Some(new));
        }
        conf.save().unwrap();
        assert_eq!(Conf::read(dir.path(), "wg0").unwrap().own_key(), Some(OWN));
        Conf::remove_draft(dir.path(), "wg0").unwrap();
    }

    #[test]
    fn one_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path());
        fs::set_permissions(dir.path().join("wg0.conf"), fs::Permissions::from_mode(0o640)).unwrap();
        let why = Conf::read(dir.path(), "wg0").err().unwrap();
        assert!(why.contains("has mode 640") && why.contains("chmod 600"), "{why}");
        assert!(Conf::read(dir.path(), "wg1").err().unwrap().contains("wg-quick save wg1"));
    }
}
