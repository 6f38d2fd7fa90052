//! What a rule of Traefik's says, as far as a row can say it too, and which hosts any rule is about.
//!
//! Only alternatives (`||`) of matchers that must all hold (`&&`) are understood. What is not understood may be about
//! every host, and never becomes a row.

use std::fmt::Write as _;

/// `Host(`a.org`)`: one matcher and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Matcher {
    name: String,
    arguments: Vec<String>,
}

/// What a row would have as `domain` and `path_prefix`. A host of `*` is every TCP connection without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) host: String,
    pub(super) path: String,
}

/// The requests that a rule may take: of one host (`*.a.org`: of its wildcard) below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// `None`: of any.
    pub(super) host: Option<String>,
    pub(super) path: String,
}

/// The place that a rule is exactly.
pub(super) fn spot(rule: &str) -> Option<Spot> {
    let alternatives = parse(rule)?;
    let [matchers] = alternatives.as_slice() else { return None };
    let (host, path) = match matchers.as_slice() {
        [host] => (host, None),
        [host, path] => (host, Some(path)),
        _ => return None,
    };
    let path = match path {
        None => "/".to_owned(),
        Some(path) => match (path.name.as_str(), path.arguments.as_slice()) {
            ("pathprefix", [path]) => path.clone(),
            ("pathregexp", [regexp]) => path_of(regexp)?,
            _ => return None,
        },
    };
    Some(Spot { host: host_of(host)?, path })
}

/// What a rule may be about; one for each alternative.
pub(super) fn reach(rule: &str) -> Vec<Reach> {
    let everywhere = || vec![Reach { host: None, path: String::new() }];
    let Some(alternatives) = parse(rule) else { return everywhere() };
    let of = |matchers: Vec<Matcher>| {
        let path = matchers.iter().find_map(|matcher| match (matcher.name.as_str(), matcher.arguments.as_slice()) {
            ("pathprefix" | "path", [path]) => Some(path.clone()),
            _ => None,
        });
        let host = matchers.iter().find_map(host_of).filter(|host| host != "*");
        Reach { host, path: path.unwrap_or_default() }
    };
    alternatives.into_iter().map(of).collect()
}

fn host_of(matcher: &Matcher) -> Option<String> {
    match (matcher.name.as_str(), matcher.arguments.as_slice()) {
        ("host" | "hostsni", [host]) => Some(host.to_ascii_lowercase()),
        ("hostregexp" | "hostsniregexp", [regexp]) => wildcard_of(regexp),
        _ => None,
    }
}

/// `*.a.org` of `^[^.]+\.a\.org\.?$`.
fn wildcard_of(regexp: &str) -> Option<String> {
    let parent = regexp.strip_prefix(r"^[^.]+\.")?.strip_suffix(r"\.?$")?;
    let labels: Vec<&str> = parent.split(r"\.").collect();
    let plain = |label: &&str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    labels.iter().all(plain).then(|| format!("*.{}", labels.join(".")))
}

/// The path whose spellings a regular expression of ours takes. Whether it is one of ours shows when it is compiled.
fn path_of(regexp: &str) -> Option<String> {
    let mut rest = regexp.strip_prefix('^')?;
    let mut path = String::new();
    while let Some(first) = rest.chars().next() {
        if let Some(either) = rest.strip_prefix(r"(?:\x") {
            let (digits, after) = either.split_at_checked(2)?;
            push(&mut path, &[u8::from_str_radix(digits, 16).ok()?]);
            rest = after.strip_prefix("|%")?.strip_prefix(digits)?.strip_prefix(')')?;
        } else if let Some(long) = rest.strip_prefix(r"\x{") {
            let (digits, after) = long.split_once('}')?;
            let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
            push(&mut path, character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
        } else if let Some(short) = rest.strip_prefix(r"\x") {
            let (digits, after) = short.split_at_checked(2)?;
            push(&mut path, &[u8::from_str_radix(digits, 16).ok()?]);
            rest = after;
        } else {
            path.push(first);
            rest = rest.get(first.len_utf8()..)?;
        }
    }
    Some(path)
}

/// As a row has it: what may stand in a path as it is, and the rest encoded.
fn push(path: &mut String, bytes: &[u8]) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~!$&()*+,;=:@".contains(byte) {
            path.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            let _: std::fmt::Result = write!(path, "%{byte:02X}");
        }
    }
}

fn parse(rule: &str) -> Option<Vec<Vec<Matcher>>> {
    let mut rest = rule.trim_start();
    let mut alternatives = vec![Vec::new()];
    loop {
        let (matcher, after) = matcher(rest)?;
        alternatives.last_mut()?.push(matcher);
        rest = after.trim_start();
        if rest.is_empty() {
            return Some(alternatives);
        }
        if let Some(after) = rest.strip_prefix("||") {
            alternatives.push(Vec::new());
            rest = after.trim_start();
        } else {
            rest = rest.strip_prefix("&&")?.trim_start();
        }
    }
}

fn matcher(text: &str) -> Option<(Matcher, &str)> {
    let (name, mut rest) = text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric())?);
    let mut arguments = Vec::new();
    rest = rest.trim_start().strip_prefix('(')?;
    loop {
        let (quote, after) = rest.trim_start().split_at_checked(1)?;
        let (argument, after) = after.split_once(quote)?;
        if !matches!(quote, "`" | "\"") || (quote == "\"" && argument.contains('\\')) {
            return None;
        }
        arguments.push(argument.to_owned());
        let after = after.trim_start();
        if let Some(after) = after.strip_prefix(')') {
            return (!name.is_empty()).then(|| (Matcher { name: name.to_ascii_lowercase(), arguments }, after));
        }
        rest = after.strip_prefix(',')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_a_row_can_say() {
        for (rule, expected) in [
            ("Host(`A.org`)", Some(("a.org", "/"))),
            ("Host(\"a.org\") && PathPrefix(`/x`)", Some(("a.org", "/x"))),
            (" host( `a.org` )&&PathPrefix( `/x` ) ", Some(("a.org", "/x"))),
            (r"HostRegexp(`^[^.]+\.a\.org\.?$`)", Some(("*.a.org", "/"))),
            (r"HostRegexp(`^.+\.a\.org$`)", None),
            (r"Host(`a.org`) && PathRegexp(`^/a(?:\x21|%21)b\x{E9}\x20%2F`)", Some(("a.org", "/a!b%C3%A9%20%2F"))),
            ("HostSNI(`*`)", Some(("*", "/"))),
            ("HostSNI(`m.org`)", Some(("m.org", "/"))),
            ("Host(`a.org`) || Host(`b.org`)", None),
            ("Host(`a.org`) && Path(`/x`)", None),
            ("Host(`a.org`) && Method(`GET`)", None),
            ("!Host(`a.org`)", None),
            ("(Host(`a.org`))", None),
            ("Host(`a.org`, `b.org`)", None),
            ("Host(\"a\\n.org\")", None),
            ("Host(`a.org`) &&", None),
            ("Host(`é", None),
            ("", None),
        ] {
            let found = spot(rule);
            let found = found.as_ref().map(|spot| (spot.host.as_str(), spot.path.as_str()));
            assert_eq!(found, expected, "{rule}");
        }
    }

    #[test]
    fn what_a_rule_is_about() {
        let about = |host: Option<&str>, path: &str| Reach { host: host.map(str::to_owned), path: path.to_owned() };
        for (rule, expected) in [
            ("Host(`a.org`) && Header(`x`, `y`)", vec![about(Some("a.org"), "")]),
            (
                "Host(`a.org`) || Host(`b.org`) && Path(`/x`)",
                vec![about(Some("a.org"), ""), about(Some("b.org"), "/x")],
            ),
            ("PathPrefix(`/x`)", vec![about(None, "/x")]),
            ("HostSNI(`*`)", vec![about(None, "")]),
            ("!Host(`a.org`)", vec![about(None, "")]),
        ] {
            assert_eq!(reach(rule), expected, "{rule}");
        }
    }
}
