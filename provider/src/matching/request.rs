//! A request as Traefik's rules see it: the host without its port, the path as it is routed by.
//!
//! The path in order, as `pkg/server/server_entrypoint.go` and `pkg/muxer/http/mux.go` do it: `%XX` of plain characters is
//! decoded and others are put in upper case; `.`, `..` and `//` are resolved; then all `%XX` are decoded but those of the
//! reserved characters.

use std::net::IpAddr;

use charliehub_proto::matching::MatchedRequest;

use super::Error;

/// Those whose `%XX` Traefik leaves as it is.
const RESERVED: &[u8] = b":/?#[]@!$&'()*+,;=%";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Http,
    Https,
    Tcp,
}

/// What is asked about.
#[derive(Clone, Debug)]
pub struct Request {
    url: String,
    pub(super) way: Way,
    /// `None`: any of them.
    pub(super) entry_point: Option<String>,
    /// In lower case. Empty: a connection by tcp that names no host.
    pub(super) host: String,
    pub(super) path: Vec<u8>,
    pub(super) query: Vec<(String, String)>,
    pub(super) method: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) client: Option<IpAddr>,
}

impl Request {
    /// `http://host/path?query`, the same with https, or `tcp://host:port`; by GET, from nobody known.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let wrong = Error::Url;
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| wrong("it has no scheme; write http://host/path, https://host/path or tcp://host:port"))?;
        let (way, entry_point) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Way::Http, Some("web".to_owned())),
            "https" => (Way::Https, Some("websecure".to_owned())),
            "tcp" => (Way::Tcp, None),
            _ => return Err(wrong("its scheme is none of http, https and tcp; use one of them")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let host = host(authority);
        if host.is_empty() && way != Way::Tcp {
            return Err(wrong("it names no host; write it after ://"));
        }
        if !host.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("its host is not ASCII; write an international name in its xn-- form"));
        }
        let path =
            routed(path).ok_or_else(|| wrong("its path has a % that no two hexadecimal digits follow; write %25"))?;
        Ok(Self {
            url: url.to_owned(),
            way,
            entry_point,
            host,
            path,
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            method: "GET".to_owned(),
            headers: Vec::new(),
            client: None,
        })
    }

    #[must_use]
    pub fn entry_point(mut self, name: Option<String>) -> Self {
        self.entry_point = name.or(self.entry_point);
        self
    }

    #[must_use]
    pub fn method(mut self, method: Option<&str>) -> Self {
        if let Some(method) = method {
            self.method = method.to_ascii_uppercase();
        }
        self
    }

    /// The address that the connection comes from.
    #[must_use]
    pub fn from(mut self, client: Option<IpAddr>) -> Self {
        self.client = client.map(|client| client.to_canonical());
        self
    }

    /// Adds a header, as `Name: value`. Traefik's rules do not see `Host` among them.
    pub fn header(mut self, line: &str) -> Result<Self, Error> {
        let (name, value) = line
            .split_once(':')
            .filter(|(name, _)| http::HeaderName::try_from(*name).is_ok())
            .ok_or_else(|| Error::Header(line.to_owned()))?;
        if !name.eq_ignore_ascii_case("host") {
            self.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(self)
    }

    pub(super) fn shown(&self) -> MatchedRequest {
        MatchedRequest {
            url: self.url.clone(),
            entry_point: self.entry_point.clone(),
            host: self.host.clone(),
            path: String::from_utf8_lossy(&self.path).into_owned(),
            method: self.method.clone(),
            client_ip: self.client.map(|client| client.to_string()),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

/// Without its user and port, in lower case.
fn host(authority: &str) -> String {
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    host.to_ascii_lowercase()
}

/// The path that rules are held against; `None`: Traefik answers 400.
fn routed(path: &str) -> Option<Vec<u8>> {
    let mut normal = Vec::with_capacity(path.len());
    for (byte, encoded) in Bytes(path.as_bytes()).collect::<Option<Vec<_>>>()? {
        if encoded && !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
            normal.extend(format!("%{byte:02X}").into_bytes());
        } else {
            normal.push(byte);
        }
    }
    let mut routed = Vec::with_capacity(normal.len());
    for (byte, encoded) in Bytes(&clean(&normal)).collect::<Option<Vec<_>>>()? {
        if encoded && RESERVED.contains(&byte) {
            routed.extend(format!("%{byte:02X}").into_bytes());
        } else {
            routed.push(byte);
        }
    }
    Some(routed)
}

/// Go's `url.JoinPath` of nothing: a slash at the end stays.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut cleaned: Vec<u8> = parts.iter().flat_map(|part| [b"/", *part].concat()).collect();
    if cleaned.is_empty() || path.ends_with(b"/") {
        cleaned.push(b'/');
    }
    cleaned
}

/// Each byte that is meant, and whether it stands as `%XX`; `None` where a `%` is nothing.
struct Bytes<'a>(&'a [u8]);

impl Iterator for Bytes<'_> {
    type Item = Option<(u8, bool)>;

    fn next(&mut self) -> Option<Self::Item> {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match self.0 {
            [] => None,
            [b'%', rest @ ..] => {
                let (byte, left) = match rest {
                    [high, low, left @ ..] => (digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low), left),
                    _ => (None, &[][..]),
                };
                self.0 = left;
                Some(byte.map(|byte| (byte, true)))
            }
            [byte, left @ ..] => {
                self.0 = left;
                Some(Some((*byte, false)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_the_one_that_traefik_routes_by() {
        for (url, path) in [
            ("http://a.org", "/"),
            ("http://a.org?x=/y", "/"),
            ("http://a.org/b/", "/b/"),
            ("http://a.org//b/./c/../d", "/b/d"),
            ("http://a.org/..", "/"),
            ("http://a.org/%2e%2e/x/%2E%2e", "/"),
            ("http://a.org/%61dmin", "/admin"),
            ("http://a.org/a%21b%2fc", "/a%21b%2Fc"),
            ("http://a.org/%20%C3%A9%25", "/ é%25"),
            ("http://a.org/x#/y", "/x"),
        ] {
            assert_eq!(Request::parse(url).unwrap().shown().path, path, "{url}");
        }
    }

    #[test]
    fn the_host_is_in_lower_case_without_user_and_port() {
        for (url, host) in [
            ("http://A.Org:80/", "a.org"),
            ("https://u:p@a.org", "a.org"),
            ("http://[::1]:80/", "::1"),
            ("tcp://mqtt.org:8883", "mqtt.org"),
            ("tcp://:1883", ""),
        ] {
            assert_eq!(Request::parse(url).unwrap().host, host, "{url}");
        }
    }

    #[test]
    fn what_is_no_url_says_what_to_write() {
        for (url, says) in [
            ("a.org", "it has no scheme"),
            ("ftp://a.org", "use one of them"),
            ("http:///x", "names no host"),
            ("http://bücher.de/", "xn--"),
            ("http://a.org/%zz", "write %25"),
            ("http://a.org/%4", "write %25"),
        ] {
            let error = Request::parse(url).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
        assert!(Request::parse("http://a.org").unwrap().header("x").is_err());
        assert!(Request::parse("http://a.org").unwrap().header("x y: z").is_err());
    }
}
