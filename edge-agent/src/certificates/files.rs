//! PEM files beside Traefik's: each certificate in them is read, and a key beside it compared.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    chain::Leaf,
    stored::{Key, public_key},
};

/// Bytes of the greatest file that is read, files of a directory, and how deep it is looked into.
const LARGEST: u64 = 4 << 20;
const MOST: usize = 1_000;
const DEEPEST: usize = 3;

/// A file, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub path: PathBuf,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Missing,
    Unreadable(String),
    /// Not a single certificate.
    None,
    /// What it holds, and whether the key beside it is the first's.
    Certificates(Vec<Leaf>, Key),
}

/// Blocks. A directory's files are those that are called `.pem`, `.crt` or `.cer`; of them those that only hold keys are
/// left out.
pub(super) fn read(paths: &[String]) -> Vec<File> {
    let mut files = Vec::new();
    for path in paths {
        let path = PathBuf::from(path);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => directory(&path, DEEPEST, &mut files),
            Ok(_) => files.push(File { content: content(&path), path }),
            Err(error) => files.push(File { content: failed(&error), path }),
        }
    }
    files
}

fn directory(path: &Path, deep: usize, files: &mut Vec<File>) {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            files.push(File { path: path.to_owned(), content: failed(&error) });
            return;
        }
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).take(MOST).collect();
    paths.sort();
    for path in paths {
        let Ok(meta) = fs::metadata(&path) else { continue };
        if meta.is_dir() && deep > 1 {
            directory(&path, deep - 1, files);
        } else if meta.is_file()
            && path.extension().is_some_and(|end| ["pem", "crt", "cer"].iter().any(|one| end == *one))
            && files.len() < MOST
        {
            let content = content(&path);
            if content != Content::None {
                files.push(File { path, content });
            }
        }
    }
}

fn content(path: &Path) -> Content {
    let mut text = Vec::new();
    let read = fs::metadata(path).and_then(|meta| {
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(std::io::Error::other("it is no file, or too large"));
        }
        fs::File::open(path)?.take(LARGEST).read_to_end(&mut text)
    });
    if let Err(error) = read {
        return failed(&error);
    }
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect();
    let leaves: Vec<_> = found.iter().filter_map(|der| Leaf::read(der).ok()).collect();
    let Some(first) = leaves.first() else { return Content::None };
    let key = match public_key(&text) {
        None => Key::Unknown,
        Some(key) if key == first.key => Key::Fits,
        Some(_) => Key::Other,
    };
    Content::Certificates(leaves, key)
}

fn failed(error: &std::io::Error) -> Content {
    if error.kind() == ErrorKind::NotFound { Content::Missing } else { Content::Unreadable(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn files_and_directories_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let pem = CertificateParams::new(["a.test".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        fs::create_dir_all(at("live/a.test")).unwrap();
        fs::write(at("live/a.test/fullchain.pem"), format!("{pem}{pem}")).unwrap();
        fs::write(at("live/a.test/privkey.pem"), key.serialize_pem()).unwrap();
        fs::write(at("live/a.test/README"), &pem).unwrap();
        fs::write(at("live/both.pem"), format!("{pem}{}", key.serialize_pem())).unwrap();
        fs::write(at("live/wrong.crt"), format!("{pem}{}", other.serialize_pem())).unwrap();
        let paths = ["live", "live/a.test/privkey.pem", "none.pem"].map(|name| at(name).display().to_string());
        let read = read(&paths);
        let said: Vec<_> = read
            .iter()
            .map(|file| {
                let content = if let Content::Certificates(leaves, key) = &file.content {
                    format!("{} {key:?}", leaves.len())
                } else {
                    format!("{:?}", file.content)
                };
                (file.path.strip_prefix(folder.path()).unwrap().display().to_string(), content)
            })
            .collect();
        assert_eq!(
            said,
            [
                ("live/a.test/fullchain.pem", "2 Unknown"),
                ("live/both.pem", "1 Fits"),
                ("live/wrong.crt", "1 Other"),
                ("live/a.test/privkey.pem", "None"),
                ("none.pem", "Missing"),
            ]
            .map(|(path, content)| (path.to_owned(), content.to_owned()))
        );
    }
}
