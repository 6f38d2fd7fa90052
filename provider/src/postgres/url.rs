//! Takes a connection string apart: the options that tokio-postgres does not know, or knows by another name or unit,
//! are ours; the rest is handed on as it was written.
//!
//! Two forms, as libpq has them: `postgres://user:password@host,host/database?key=value` and `key=value key='a b'`.
//! No error repeats a value: it may be the password.

use std::fmt::Write as _;
use std::time::Duration;

use tokio_postgres::config::TargetSessionAttrs;

/// What we decide ourselves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ours {
    pub(super) ssl_mode: Option<String>,
    pub(super) ssl_root: Option<String>,
    pub(super) session: Option<TargetSessionAttrs>,
    /// Seconds; 0 waits for ever, as in libpq.
    pub(super) connect_timeout: Option<u64>,
    /// libpq counts milliseconds, tokio-postgres seconds.
    pub(super) user_timeout: Option<Duration>,
}

impl Ours {
    /// True when the option was one of ours.
    fn take(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "sslmode" => self.ssl_mode = Some(value.to_owned()),
            "sslrootcert" => self.ssl_root = Some(value.to_owned()).filter(|path| !path.is_empty()),
            "target_session_attrs" => {
                self.session = Some(match value {
                    "any" | "prefer-standby" => TargetSessionAttrs::Any,
                    "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
                    "read-only" | "standby" => TargetSessionAttrs::ReadOnly,
                    _ => return Err("target_session_attrs is not one of read-write, read-only, any".to_owned()),
                });
            }
            "connect_timeout" => self.connect_timeout = Some(number(key, value)?),
            "tcp_user_timeout" => self.user_timeout = Some(Duration::from_millis(number(key, value)?)),
            "sslcert" | "sslkey" => {
                return Err(format!("{key}: client certificates are not supported; use a password"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn number(key: &str, value: &str) -> Result<u64, String> {
    value.trim().parse().map_err(|_| format!("{key} is not a number"))
}

/// The name that tokio-postgres has for an option of libpq.
fn renamed(key: &str) -> &str {
    if key == "keepalives_count" { "keepalives_retries" } else { key }
}

/// Our options, and the string without them. The error says which option and why.
pub(super) fn split(url: &str) -> Result<(Ours, String), String> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") { split_url(url) } else { split_pairs(url) }
}

fn split_url(url: &str) -> Result<(Ours, String), String> {
    let mut ours = Ours::default();
    let Some((base, query)) = url.split_once('?') else { return Ok((ours, url.to_owned())) };
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("an option after ? has no value; write key=value")?;
        if !ours.take(key, &decode(value)?)? {
            rest.push(format!("{}={value}", renamed(key)));
        }
    }
    let rest = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Ok((ours, rest))
}

fn decode(value: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let hex = [rest.next(), rest.next()].map(|digit| digit.and_then(|digit| char::from(digit).to_digit(16)));
        let [Some(high), Some(low)] = hex else { return Err("a % is not followed by two hex digits".to_owned()) };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|_| "an option is not UTF-8".to_owned())
}

fn split_pairs(text: &str) -> Result<(Ours, String), String> {
    let mut ours = Ours::default();
    let mut rest = String::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok((ours, rest));
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=') {
            key.push(c);
        }
        if chars.next().is_none() {
            return Err("it is neither postgres://.. nor a list of key=value".to_owned());
        }
        let key = key.trim();
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        let quoted = chars.next_if_eq(&'\'').is_some();
        loop {
            match chars.next_if(|c| quoted || !c.is_whitespace()) {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) => value.push(c),
                None if quoted => return Err("a quote is not closed".to_owned()),
                None => break,
            }
        }
        if !ours.take(key, &value)? {
            let value = value.replace('\\', r"\\").replace('\'', r"\'");
            write!(rest, "{}='{value}' ", renamed(key)).map_err(|error| error.to_string())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_options_are_taken_and_the_rest_is_kept() {
        for (url, rest) in [
            ("postgres://u:p@h/d", "postgres://u:p@h/d"),
            ("postgres://h/d?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem", "postgres://h/d"),
            ("postgresql://h/d?sslmode=x&keepalives_count=3&user=u", "postgresql://h/d?keepalives_retries=3&user=u"),
            (r"host=h password='a b\'c' sslmode=require", r"host='h' password='a b\'c' "),
            ("host = h  user = u", "host='h' user='u' "),
        ] {
            assert_eq!(split(url).unwrap().1, rest, "{url}");
        }
        let (ours, _) = split("host=h sslmode=verify-ca sslrootcert='/a b/ca.pem' tcp_user_timeout=6000").unwrap();
        assert_eq!(ours.ssl_mode.as_deref(), Some("verify-ca"));
        assert_eq!(ours.ssl_root.as_deref(), Some("/a b/ca.pem"));
        assert_eq!(ours.user_timeout, Some(Duration::from_secs(6)));
    }

    #[test]
    fn no_error_repeats_a_value() {
        for url in [
            "secret",
            "host=h password='secret",
            "postgres://h/d?sslmode=require&secret",
            "postgres://h/d?target_session_attrs=secret",
            "postgres://h/d?connect_timeout=secret",
            "postgres://h/d?sslrootcert=secret%2",
        ] {
            let error = split(url).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
