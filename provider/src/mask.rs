//! Hides the secrets in a piece of Traefik's configuration from those who may read the rest of it.
//!
//! By the names of Traefik's fields, wherever they stand, so that a fragment, a whole config and a difference are masked by
//! one rule: passwords of users, private keys, what a plugin is told (nobody knows what is secret there), headers that carry
//! a login, and a login within a URL. Pure.

use serde_json::{Map, Value};

const HIDDEN: &str = "masked: shown to role admin";
const LOGIN: &str = "://***@";

/// Replaces every secret in `value`.
pub fn mask(value: &mut Value) {
    match value {
        Value::Object(object) => object.iter_mut().for_each(|(name, value)| field(name, value)),
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::String(text) => url(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// True when a secret in `value` was replaced by [`mask`]: it cannot be written.
pub fn is_masked(value: &Value) -> bool {
    let text = value.to_string();
    text.contains(HIDDEN) || text.contains(LOGIN)
}

fn field(name: &str, value: &mut Value) {
    // Traefik takes its fields in any case.
    match (name.to_ascii_lowercase().as_str(), value) {
        ("users", Value::Array(users)) => users.iter_mut().for_each(user),
        ("users" | "key" | "keyfile" | "password" | "secret" | "token" | "sessionticketkeys", value) => hide(value),
        ("plugin", Value::Object(plugins)) => plugins.iter_mut().for_each(|(_, settings)| hide(settings)),
        ("customrequestheaders" | "customresponseheaders" | "headers", Value::Object(headers)) => logins(headers),
        (_, value) => mask(value),
    }
}

/// Leaves the name of `name:hash`.
fn user(user: &mut Value) {
    match user.as_str().and_then(|user| user.split_once(':')) {
        Some((name, _)) => *user = Value::from(format!("{name}:{HIDDEN}")),
        None => hide(user),
    }
}

fn hide(value: &mut Value) {
    if !value.is_null() {
        *value = HIDDEN.into();
    }
}

/// Hides the headers that carry a login; what stands below the middleware `headers` is fields again.
fn logins(headers: &mut Map<String, Value>) {
    const WORDS: [&str; 6] = ["auth", "cookie", "key", "password", "secret", "token"];
    for (name, value) in headers {
        let lower = name.to_ascii_lowercase();
        if value.is_string() && WORDS.iter().any(|word| lower.contains(word)) {
            hide(value);
        } else {
            field(name, value);
        }
    }
}

/// Hides the logins of all URLs in a sentence.
pub fn mask_text(text: &mut String) {
    if !text.contains("://") || !text.contains('@') {
        return;
    }
    let words = text.split_inclusive(char::is_whitespace).map(|word| {
        let mut word = word.to_owned();
        url(&mut word);
        word
    });
    *text = words.collect();
}

/// `http://user:password@host` without the login.
fn url(text: &mut String) {
    let Some((scheme, rest)) = text.split_once("://") else { return };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some((_, host)) = authority.rsplit_once('@') {
        let path = rest.strip_prefix(authority).unwrap_or_default();
        *text = format!("{scheme}{LOGIN}{host}{path}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        let hidden = HIDDEN;
        for (body, shown) in [
            (
                json!({"basicAuth": {"users": ["anna:$2y$hash", "broken"], "realm": "r"}}),
                json!({"basicAuth": {"users": [format!("anna:{hidden}"), hidden], "realm": "r"}}),
            ),
            (
                json!({"digestAuth": {"users": "anna:r:hash", "usersFile": "/u"}}),
                json!({"digestAuth": {"users": hidden, "usersFile": "/u"}}),
            ),
            (
                json!({"forwardAuth": {"address": "http://me:pw@auth:9091/x?y=1", "tls": {"cert": "c", "key": "k"}}}),
                json!({"forwardAuth": {"address": "http://***@auth:9091/x?y=1", "tls": {"cert": "c", "key": hidden}}}),
            ),
            (
                json!({"headers": {"customRequestHeaders": {"Authorization": "Basic x", "X-Api-Key": "k", "X-Real": "1"},
                                   "stsSeconds": 1, "frameDeny": true}}),
                json!({"headers": {"customRequestHeaders": {"Authorization": hidden, "X-Api-Key": hidden, "X-Real": "1"},
                                   "stsSeconds": 1, "frameDeny": true}}),
            ),
            (json!({"plugin": {"crowdsec": {"lapi": "s"}}}), json!({"plugin": {"crowdsec": hidden}})),
            (
                json!({"defaultCertificate": {"certFile": "PEM", "keyFile": "PEM"}}),
                json!({"defaultCertificate": {"certFile": "PEM", "keyFile": hidden}}),
            ),
            (
                json!({"rateLimit": {"redis": {"endpoints": ["r:1"], "username": "u", "password": "p"}}}),
                json!({"rateLimit": {"redis": {"endpoints": ["r:1"], "username": "u", "password": hidden}}}),
            ),
            (
                json!({"loadBalancer": {"servers": [{"url": "http://a@b:1"}],
                                        "healthCheck": {"path": "/", "headers": {"authorization": "x", "x": "y"}}}}),
                json!({"loadBalancer": {"servers": [{"url": "http://***@b:1"}],
                                        "healthCheck": {"path": "/", "headers": {"authorization": hidden, "x": "y"}}}}),
            ),
            (
                json!({"certificates": [{"certFile": "c", "KEYFILE": "k"}], "serverName": "n", "rootCAs": ["ca"]}),
                json!({"certificates": [{"certFile": "c", "KEYFILE": hidden}], "serverName": "n", "rootCAs": ["ca"]}),
            ),
            (
                json!({"rule": "Host(`a.test`)", "service": "s", "middlewares": ["m"], "note": "see http://a/b@c"}),
                json!({"rule": "Host(`a.test`)", "service": "s", "middlewares": ["m"], "note": "see http://a/b@c"}),
            ),
        ] {
            let mut masked = body.clone();
            mask(&mut masked);
            assert_eq!(masked, shown, "{body}");
            assert!(!is_masked(&body) && is_masked(&masked) == (body != shown), "{body}");
        }
    }

    #[test]
    fn logins_in_a_sentence_are_hidden() {
        let mut text = "cannot dial \"http://me:pw@a.test/x\" nor\nhttp://u@b.test, as mail@c.test says".to_owned();
        mask_text(&mut text);
        assert_eq!(text, "cannot dial \"http://***@a.test/x\" nor\nhttp://***@b.test, as mail@c.test says");
    }
}
