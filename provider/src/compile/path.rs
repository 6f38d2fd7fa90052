//! The path of a row, and the matcher that takes every spelling of it.
//!
//! Before Traefik matches, it decodes each `%XX` but the reserved ones, which it leaves as they were sent (Traefik 3.7,
//! pkg/muxer/http/mux.go). So `/%61dmin` in a rule would never match, and `/a!b` would let `/a%21b` pass to a neighbour
//! although most backends take both for the same. Rows whose paths are the same for a backend are the same place here.
//! An encoded slash stays another path: whether requests may have one is a matter of the entry point
//! (`encodedCharacters`).

use std::fmt::Write as _;

use super::syntax;

/// A path in canonical form: unreserved and sub-delimiter characters as they are, all others as `%XX` in upper case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(String);

/// What is reserved in Traefik and may stand in a path as it is: each is matched in both spellings.
const EITHER: &[u8] = b"!$&'()*+,;=:@[]";
/// What is reserved and means something else when it stands there as it is.
const ENCODED: &[u8] = b"/?#%";

impl Path {
    /// The path of a row; the error names the column and the remedy.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !syntax::is_path(text) {
            return Err("path_prefix: not a path such as /admin: begin with /, no // or /../, no / at the end, other \
                        characters as %XX"
                .to_owned());
        }
        if !text.contains('%') {
            return Ok(Self(text.to_owned()));
        }
        let decoded: Vec<(u8, bool)> = Decoded { rest: text.as_bytes() }.collect();
        let bytes: Vec<u8> = decoded.iter().map(|(byte, _)| *byte).collect();
        if std::str::from_utf8(&bytes).is_err() {
            return Err("path_prefix: its %XX are not UTF-8, which no rule can hold; correct them".to_owned());
        }
        let mut canonical = String::with_capacity(text.len());
        for (byte, encoded) in decoded {
            let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let either = EITHER.contains(&byte) && !b"'[]".contains(&byte);
            if plain || either || (byte == b'/' && !encoded) {
                canonical.push(char::from(byte));
            } else {
                push_encoded(&mut canonical, byte);
            }
        }
        if !syntax::is_path(&canonical) {
            return Err("path_prefix: has /./ or /../ once its %XX are decoded; Traefik resolves them first".to_owned());
        }
        Ok(Self(canonical))
    }

    pub(super) fn root() -> Self {
        Self("/".to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The matcher: `PathPrefix` where the path is the same in all spellings, else an anchored `PathRegexp`.
    pub(super) fn matcher(&self) -> String {
        if self.0.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b)) {
            return format!("PathPrefix(`{}`)", self.0);
        }
        let bytes: Vec<(u8, bool)> = Decoded { rest: self.0.as_bytes() }.collect();
        let mut regexp = String::new();
        let mut text = Vec::new();
        for (byte, encoded) in bytes {
            if !byte.is_ascii() {
                text.push(byte);
                continue;
            }
            push_text(&mut regexp, &mut text);
            if EITHER.contains(&byte) {
                let _ = write!(regexp, "(?:\\x{byte:02X}|%{byte:02X})");
            } else if encoded && ENCODED.contains(&byte) {
                push_encoded(&mut regexp, byte);
            } else if byte.is_ascii_alphanumeric() || b"/-_~".contains(&byte) {
                regexp.push(char::from(byte));
            } else {
                let _ = write!(regexp, "\\x{byte:02X}");
            }
        }
        push_text(&mut regexp, &mut text);
        format!("PathRegexp(`^{regexp}`)")
    }
}

/// Writes what is not ASCII as `\x{..}`, so that no rule holds a character that only looks like another.
fn push_text(regexp: &mut String, text: &mut Vec<u8>) {
    for character in String::from_utf8_lossy(text).chars() {
        let _ = write!(regexp, "\\x{{{:X}}}", u32::from(character));
    }
    text.clear();
}

fn push_encoded(out: &mut String, byte: u8) {
    let _ = write!(out, "%{byte:02X}");
}

/// The bytes of a percent-encoded text, and whether each was encoded.
struct Decoded<'a> {
    rest: &'a [u8],
}

impl Iterator for Decoded<'_> {
    type Item = (u8, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        if let [b'%', high, low, rest @ ..] = self.rest
            && let (Some(high), Some(low)) = (digit(high), digit(low))
        {
            self.rest = rest;
            return Some((high * 16 + low, true));
        }
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some((*first, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (text, canonical, matcher) in [
            ("/admin", "/admin", "PathPrefix(`/admin`)"),
            ("/%61dmin", "/admin", "PathPrefix(`/admin`)"),
            ("/a.b", "/a.b", "PathPrefix(`/a.b`)"),
            ("/a!b", "/a!b", r"PathRegexp(`^/a(?:\x21|%21)b`)"),
            ("/a%21b.", "/a!b.", r"PathRegexp(`^/a(?:\x21|%21)b\x2E`)"),
            ("/a%2fb", "/a%2Fb", "PathRegexp(`^/a%2Fb`)"),
            ("/a%25b", "/a%25b", "PathRegexp(`^/a%25b`)"),
            ("/a%20b", "/a%20b", r"PathRegexp(`^/a\x20b`)"),
            ("/%60%22%5c", "/%60%22%5C", r"PathRegexp(`^/\x60\x22\x5C`)"),
            ("/%27%5b", "/%27%5B", r"PathRegexp(`^/(?:\x27|%27)(?:\x5B|%5B)`)"),
            ("/caf%c3%A9", "/caf%C3%A9", r"PathRegexp(`^/caf\x{E9}`)"),
            ("/a@b", "/a@b", r"PathRegexp(`^/a(?:\x40|%40)b`)"),
        ] {
            let path = Path::parse(text).unwrap();
            assert_eq!((path.as_str(), path.matcher().as_str()), (canonical, matcher), "{text}");
            assert_eq!(Path::parse(canonical).unwrap(), path, "{text} is not a fixed point");
        }
        for text in ["", "admin", "/a/", "/a/../b", "/a/%2e%2e/b", "/%2e", "/%ff", "/a`b"] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }
}
