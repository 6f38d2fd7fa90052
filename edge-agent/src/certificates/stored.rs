//! What Traefik keeps in `acme.json`: for each resolver its certificates, as PEM in base64, each with its key.
//!
//! Traefik rewrites it in place, so half of it may be seen. It holds private keys, also the account's: nothing of its text
//! is logged or kept, a parser's own words are not either (they quote what they do not like), and a certificate's key is
//! only compared with the certificate.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{self, Metadata, OpenOptions},
    io::{ErrorKind, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use rustix::fs::OFlags;
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde::Deserialize;

use super::{
    authorities::Authorities,
    chain::{Chain, Leaf},
    stamp::Stamp,
};

/// What was found at a path.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    /// Its permission bits, where there is a file.
    pub mode: Option<u32>,
    pub content: Content,
    stamp: Option<Stamp>,
    authorities: [u8; 32],
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Missing,
    /// Docker makes one where a mount's file is missing.
    Directory,
    /// We may not, or the disk will not.
    Unreadable(String),
    /// More bytes than we read.
    TooLarge(u64),
    Empty,
    /// It is not what Traefik writes, or not all of it.
    Torn(String),
    Whole(Arc<Stored>),
}

/// All of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub resolvers: usize,
    pub certificates: Vec<Kept>,
}

/// One certificate of a resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub resolver: String,
    /// What Traefik asked it for, in lower case.
    pub domains: Vec<String>,
    /// None: it is not a certificate.
    pub chain: Option<Arc<Chain>>,
    pub key: Key,
    /// The leaf comes first.
    pub is_leaf_first: bool,
}

/// Whether a key is its certificate's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Fits,
    Other,
    /// None that we can compare: weak ones and rare kinds.
    Unknown,
}

impl Storage {
    /// Blocks. What did not change since `earlier` is not read again.
    pub(super) fn read(
        path: &Path,
        largest: u64,
        authorities: &Authorities,
        now: Timestamp,
        earlier: Option<&Self>,
    ) -> Self {
        let nothing = |content| {
            let mode = fs::metadata(path).ok().filter(Metadata::is_file).map(|meta| meta.mode() & 0o7777);
            Self { mode, content, stamp: None, authorities: authorities.digest }
        };
        // A pipe must not make us wait for its writer.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return nothing(Content::Missing),
            Err(error) => return nothing(Content::Unreadable(error.to_string())),
        };
        let meta = match file.metadata() {
            Ok(meta) if meta.is_dir() => return nothing(Content::Directory),
            Ok(meta) if !meta.is_file() => return nothing(Content::Unreadable("it is not a file".to_owned())),
            Ok(meta) => meta,
            Err(error) => return nothing(Content::Unreadable(error.to_string())),
        };
        let stamp = Some(Stamp::of(&meta));
        let same = |earlier: &&Self| earlier.stamp == stamp && earlier.authorities == authorities.digest;
        if let Some(earlier) = earlier.filter(same) {
            return earlier.clone();
        }
        let mode = Some(meta.mode() & 0o7777);
        let content = if meta.len() > largest {
            Content::TooLarge(meta.len())
        } else {
            let mut text = Vec::new();
            match (&mut file).take(largest).read_to_end(&mut text) {
                Ok(0) => Content::Empty,
                Ok(_) => match parse(&text, authorities, now) {
                    Ok(stored) => Content::Whole(Arc::new(stored)),
                    Err(why) => Content::Torn(why),
                },
                Err(error) => Content::Unreadable(error.to_string()),
            }
        };
        Self { mode, content, stamp, authorities: authorities.digest }
    }
}

#[cfg(test)]
impl Storage {
    pub(super) fn fake(mode: u32, content: Content) -> Self {
        Self { mode: Some(mode), content, stamp: None, authorities: [0; 32] }
    }
}

/// A resolver. Its account is not even looked at.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Resolver<'a> {
    #[serde(borrow)]
    certificates: Option<Vec<Certificate<'a>>>,
}

#[derive(Deserialize)]
struct Certificate<'a> {
    #[serde(borrow)]
    domain: Domain<'a>,
    #[serde(borrow, rename = "certificate")]
    chain: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Domain<'a> {
    #[serde(borrow)]
    main: Cow<'a, str>,
    #[serde(default)]
    sans: Option<Vec<String>>,
}

/// The text of an `acme.json`. The error never holds any of the text.
pub(super) fn parse(text: &[u8], authorities: &Authorities, now: Timestamp) -> Result<Stored, String> {
    let resolvers: BTreeMap<String, Option<Resolver<'_>>> = serde_json::from_slice(text).map_err(|error| {
        let what = if error.is_data() { "is not what Traefik writes" } else { "is no whole JSON" };
        format!("{what} (line {}, column {})", error.line(), error.column())
    })?;
    let mut stored = Stored { resolvers: resolvers.len(), certificates: Vec::new() };
    for (name, resolver) in &resolvers {
        let certificates = resolver.iter().filter_map(|resolver| resolver.certificates.as_ref()).flatten();
        stored.certificates.extend(certificates.map(|one| one.keep(name, authorities, now)));
    }
    Ok(stored)
}

impl Certificate<'_> {
    fn keep(&self, resolver: &str, authorities: &Authorities, now: Timestamp) -> Kept {
        let pem = STANDARD.decode(self.chain.as_bytes()).unwrap_or_default();
        let mut chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        let key = STANDARD.decode(self.key.as_bytes()).ok().and_then(|pem| public_key(&pem));
        let owner = key
            .as_ref()
            .and_then(|key| chain.iter().position(|der| Leaf::read(der).is_ok_and(|leaf| leaf.key == *key)));
        // Traefik takes the first for the leaf; we show what is wrong by the certificate that the key is for.
        chain.rotate_left(owner.unwrap_or(0));
        let domains = std::iter::once(&*self.domain.main).chain(self.domain.sans.iter().flatten().map(String::as_str));
        Kept {
            resolver: resolver.to_owned(),
            domains: domains.map(str::to_ascii_lowercase).collect(),
            chain: Chain::read(&chain, authorities, now).ok().map(Arc::new),
            key: match (key, owner) {
                (None, _) => Key::Unknown,
                (Some(_), None) => Key::Other,
                (Some(_), Some(_)) => Key::Fits,
            },
            is_leaf_first: owner.unwrap_or(0) == 0,
        }
    }
}

/// The public half of a private key. None for one that is not read: RSA below 2048 bits and above 4096, rare kinds.
pub(super) fn public_key(pem: &[u8]) -> Option<Vec<u8>> {
    let key = PrivateKeyDer::from_pem_slice(pem).ok()?;
    let key = any_supported_type(&key).ok()?;
    key.public_key().map(|key| key.to_vec())
}

#[cfg(test)]
mod tests;
