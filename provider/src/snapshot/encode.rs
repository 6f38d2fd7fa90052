//! Pieces to bytes: the body that Traefik gets, its gzip form, and the digest that names it.
//!
//! The body is canonical: sections and names in order, no white space, no empty map. It carries one marker, middleware
//! `charliehub-revision`, whose header is the digest of all the other bytes, so that Traefik's API tells which config it runs.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use sha2::{Digest as _, Sha256};

use crate::compile::{Pieces, Section};

/// The middleware that tells, by Traefik's API, which config an instance runs.
pub const MARKER: &str = "charliehub-revision";

/// The bytes of one config.
#[derive(Debug)]
pub struct Encoded {
    /// SHA-256, in hexadecimal, of the canonical bytes without the marker.
    pub digest: Arc<str>,
    pub identity: Bytes,
    pub gzip: Bytes,
}

/// The bytes of a config, and where its marker goes.
pub struct Draft {
    digest: String,
    bytes: Vec<u8>,
    marker_at: usize,
    /// Written after the marker when other middlewares follow.
    comma: bool,
}

impl Draft {
    /// Lays out the body without its marker. Cheap beside [`Draft::finish`], so that an unchanged digest costs no gzip.
    pub fn new(pieces: &Pieces) -> Self {
        let size: usize = pieces.values().flatten().map(|(name, json)| name.len() + json.len() + 8).sum();
        let mut out = Layout { bytes: Vec::with_capacity(size + 512), marker: None };
        out.config(pieces);
        let (marker_at, comma) = out.marker.unwrap_or_default();
        Self { digest: hex(&Sha256::digest(&out.bytes)), bytes: out.bytes, marker_at, comma }
    }

    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn finish(self) -> Encoded {
        let Self { digest, mut bytes, marker_at, comma } = self;
        let marker = format!(
            r#""{MARKER}":{{"headers":{{"customResponseHeaders":{{"X-Charliehub-Config":"{digest}"}}}}}}{}"#,
            if comma { "," } else { "" }
        );
        bytes.splice(marker_at..marker_at, marker.into_bytes());
        Encoded { digest: digest.into(), gzip: gzip(&bytes), identity: bytes.into() }
    }
}

thread_local! {
    /// Kept between changes: to make one takes longer than to compress a small config. Speed counts more than the last
    /// percent, because this is between a commit and Traefik.
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new_gzip(Compression::fast(), WINDOW_BITS));
}

/// The largest window, as every gzip has it.
const WINDOW_BITS: u8 = 15;

/// Compresses in one gzip member.
pub fn gzip(bytes: &[u8]) -> Bytes {
    COMPRESS.with_borrow_mut(|compress| {
        compress.reset();
        let mut out = Vec::with_capacity(bytes.len() / 3 + 512);
        loop {
            let done = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
            let rest = bytes.get(done..).unwrap_or_default();
            match compress.compress_vec(rest, &mut out, FlushCompress::Finish) {
                Ok(Status::StreamEnd) => return out.into(),
                // It was full: an error is not possible in memory.
                Ok(Status::Ok | Status::BufError) | Err(_) => out.reserve(out.len().max(512)),
            }
        }
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _: std::fmt::Result = write!(text, "{byte:02x}");
        text
    })
}

struct Layout {
    bytes: Vec<u8>,
    /// Where the marker goes, and whether a comma must follow it.
    marker: Option<(usize, bool)>,
}

impl Layout {
    fn config(&mut self, pieces: &Pieces) {
        let nothing = BTreeMap::new();
        let mut sections: BTreeMap<Section, _> = pieces.iter().map(|(section, entries)| (*section, entries)).collect();
        // There for the marker, whatever the rows say.
        sections.entry(Section::HttpMiddlewares).or_insert(&nothing);
        let mut open = None;
        for (section, entries) in sections {
            let (top, key) = section.path();
            if open == Some(top) {
                self.bytes.push(b',');
            } else {
                self.bytes.extend_from_slice(if open.is_some() { b"}," } else { b"{" });
                self.key(top);
                self.bytes.push(b'{');
            }
            open = Some(top);
            self.key(key);
            if section == Section::TlsCertificates {
                self.list(entries);
            } else {
                self.map(entries, section == Section::HttpMiddlewares);
            }
        }
        self.bytes.extend_from_slice(b"}}");
    }

    fn list(&mut self, entries: &BTreeMap<Arc<str>, Arc<str>>) {
        self.bytes.push(b'[');
        for (n, json) in entries.values().enumerate() {
            if n > 0 {
                self.bytes.push(b',');
            }
            self.bytes.extend_from_slice(json.as_bytes());
        }
        self.bytes.push(b']');
    }

    fn map(&mut self, entries: &BTreeMap<Arc<str>, Arc<str>>, marked: bool) {
        self.bytes.push(b'{');
        for (n, (name, json)) in entries.iter().enumerate() {
            if n > 0 {
                self.bytes.push(b',');
            }
            if marked && self.marker.is_none() && **name > *MARKER {
                self.marker = Some((self.bytes.len(), true));
            }
            self.key(name);
            self.bytes.extend_from_slice(json.as_bytes());
        }
        if marked && self.marker.is_none() {
            if !entries.is_empty() {
                self.bytes.push(b',');
            }
            self.marker = Some((self.bytes.len(), false));
        }
        self.bytes.push(b'}');
    }

    fn key(&mut self, name: &str) {
        // Names were checked when they were compiled; what JSON must escape is escaped all the same.
        drop(serde_json::to_writer(&mut self.bytes, name));
        self.bytes.push(b':');
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn pieces(list: &[(Section, &str, &str)]) -> Pieces {
        let mut pieces = Pieces::new();
        for (section, name, json) in list {
            pieces.entry(*section).or_default().insert((*name).into(), (*json).into());
        }
        pieces
    }

    #[test]
    fn the_body_is_json_with_the_marker_in_its_place_wherever_that_is() {
        for names in [&[][..], &["authelia"], &["zeta"], &["authelia", "zeta"]] {
            let mut list: Vec<_> =
                names.iter().map(|name| (Section::HttpMiddlewares, *name, "{\"compress\":{}}")).collect();
            list.push((Section::HttpRouters, "a.test", "{\"rule\":\"Host(`a.test`)\",\"service\":\"a.test\"}"));
            list.push((Section::TlsCertificates, "c", "{\"certFile\":\"x\",\"keyFile\":\"y\"}"));
            let encoded = Draft::new(&pieces(&list)).finish();
            let json: serde_json::Value = serde_json::from_slice(&encoded.identity).unwrap();
            let middlewares = json["http"]["middlewares"].as_object().unwrap();
            assert_eq!(middlewares.len(), names.len() + 1, "{names:?}");
            assert_eq!(middlewares[MARKER]["headers"]["customResponseHeaders"]["X-Charliehub-Config"], *encoded.digest);
            assert_eq!(json["tls"]["certificates"][0]["certFile"], "x");
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&*encoded.gzip).read_to_end(&mut plain).unwrap();
            assert_eq!(plain, encoded.identity);
        }
    }

    #[test]
    fn nothing_at_all_is_still_not_an_empty_object() {
        let encoded = Draft::new(&Pieces::new()).finish();
        assert!(encoded.identity.starts_with(b"{\"http\":{\"middlewares\":{\"charliehub-revision\""));
    }

    #[test]
    fn whatever_is_compressed_comes_back() {
        let noise: Vec<u8> =
            (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
        for size in [0, 1, 700, 6_000, 100_000, noise.len()] {
            for bytes in [&noise[..size], &vec![b'a'; size]] {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&*gzip(bytes)).read_to_end(&mut plain).unwrap();
                assert!(plain == bytes, "{size} bytes");
            }
        }
    }

    #[test]
    fn another_piece_is_another_digest() {
        let one = Draft::new(&pieces(&[(Section::HttpRouters, "a", "{}")]));
        let two = Draft::new(&pieces(&[(Section::HttpRouters, "b", "{}")]));
        assert_ne!(one.digest(), two.digest());
    }
}
