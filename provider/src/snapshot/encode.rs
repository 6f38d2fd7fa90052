//! Pieces to bytes: the body that Traefik gets, its gzip form, and the digest that names it.
//!
//! The body is canonical: sections and names in order, no white space, no empty map. It carries one marker, middleware
//! `charliehub-revision`, first of its section, whose header is the digest of all the other bytes, so that Traefik's API
//! tells which config it runs.
//!
//! A change costs what changed: the entries of a section are in [`chunk`]s, each hashed and compressed on its own, and a
//! [`Draft`] keeps those that a change left alone. What remains to be done for all is to list the compressed chunks one
//! behind the other: they are not copied, but [`Joined`], and sent from where they are.

mod chunk;
mod crc;
mod deflate;
mod joined;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use self::{chunk::Chunk, deflate::Member};
pub use self::{
    deflate::gzip,
    joined::{Joined, Reader},
};
use super::disk::inflate;
use crate::compile::{Changes, Pieces, Section};

/// The middleware that tells, by Traefik's API, which config an instance runs.
pub const MARKER: &str = "charliehub-revision";

/// Told apart from every other use of SHA-256, and from other ways to cut.
const DOMAIN: &[u8] = b"charliehub config 4\0";
/// A body up to this is kept decompressed once somebody asked for it so.
const SMALL: usize = 1 << 20;

/// The bytes of one config.
#[derive(Debug)]
pub struct Encoded {
    /// Names the config: equal exactly when the canonical bytes without the marker are.
    pub digest: Arc<str>,
    pub gzip: Joined,
    /// How long it is decompressed.
    pub length: usize,
    identity: OnceLock<Bytes>,
}

impl Encoded {
    /// From compressed bytes that were kept, `length` when they are decompressed.
    pub fn compressed(digest: Arc<str>, gzip: impl Into<Joined>, length: usize) -> Self {
        Self { digest, gzip: gzip.into(), length, identity: OnceLock::new() }
    }

    /// The bytes, decompressed.
    pub fn identity(&self) -> Bytes {
        if self.is_large() {
            return self.decompressed();
        }
        self.identity.get_or_init(|| self.decompressed()).clone()
    }

    /// True when the bytes are not kept decompressed.
    pub fn is_large(&self) -> bool {
        self.length > SMALL
    }

    fn decompressed(&self) -> Bytes {
        // We made it, or found it whole when it was read.
        inflate(self.gzip.reader()).unwrap_or_default().into()
    }
}

/// A config that is kept encoded from change to change.
#[derive(Debug, Default)]
pub struct Draft {
    sections: BTreeMap<Section, Vec<Chunk>>,
}

impl Draft {
    pub fn new(pieces: &Pieces) -> Self {
        let mut draft = Self::default();
        draft.update(pieces, &Changes::All);
        draft
    }

    /// Brings it up to `pieces`, which are what it held before but for `changes`.
    pub fn update(&mut self, pieces: &Pieces, changes: &Changes) {
        let Changes::These(names) = changes else {
            self.sections = pieces.iter().map(|(section, entries)| (*section, chunk::all(*section, entries))).collect();
            return;
        };
        let sections: BTreeSet<Section> = names.iter().map(|(section, _)| *section).collect();
        for section in sections {
            let of_section = names.iter().filter(|(of, _)| *of == section).map(|(_, name)| name);
            match pieces.get(&section) {
                Some(entries) => chunk::update(section, self.sections.entry(section).or_default(), entries, of_section),
                None => drop(self.sections.remove(&section)),
            }
        }
    }

    /// Over the hashes of the chunks. How many a section has is told, so that no chunk counts for another section's.
    pub fn digest(&self) -> String {
        let mut sum = Sha256::new_with_prefix(DOMAIN);
        for (section, chunks) in &self.sections {
            let (top, key) = section.path();
            sum.update(format!("{top}.{key} {}\n", chunks.len()));
            for chunk in chunks {
                sum.update(chunk.hash);
            }
        }
        hex(&sum.finalize())
    }

    pub fn finish(&self) -> Encoded {
        self.finish_as(self.digest())
    }

    /// The same by who knows its [`Draft::digest`] already.
    pub fn finish_as(&self, digest: String) -> Encoded {
        let mut out = Member::default();
        let mut seam = Vec::with_capacity(512);
        let mut open = None;
        let nothing = Vec::new();
        let mut sections: BTreeMap<Section, &Vec<Chunk>> =
            self.sections.iter().map(|(section, chunks)| (*section, chunks)).collect();
        // There for the marker, whatever the rows say.
        sections.entry(Section::HttpMiddlewares).or_insert(&nothing);
        for (section, chunks) in sections {
            let (top, key) = section.path();
            if open == Some(top) {
                seam.push(b',');
            } else {
                seam.extend_from_slice(if open.is_some() { b"}," } else { b"{" });
                chunk::key(&mut seam, top);
                seam.push(b'{');
            }
            open = Some(top);
            chunk::key(&mut seam, key);
            let list = section == Section::TlsCertificates;
            seam.push(if list { b'[' } else { b'{' });
            if section == Section::HttpMiddlewares {
                let header =
                    format!(r#"{{"headers":{{"customResponseHeaders":{{"X-Charliehub-Config":"{digest}"}}}}}}"#);
                chunk::key(&mut seam, MARKER);
                seam.extend_from_slice(header.as_bytes());
            }
            out.plain(&seam);
            seam.clear();
            for chunk in chunks {
                out.part(&chunk.deflated, chunk.length, chunk.crc);
            }
            seam.push(if list { b']' } else { b'}' });
        }
        seam.extend_from_slice(b"}}");
        out.plain(&seam);
        let (gzip, length) = out.end();
        Encoded { digest: digest.into(), gzip, length, identity: OnceLock::new() }
    }

    #[cfg(test)]
    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.sections.values().flatten()
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _: std::fmt::Result = write!(text, "{byte:02x}");
        text
    })
}
