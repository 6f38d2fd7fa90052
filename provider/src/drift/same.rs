//! Whether an object runs as it was sent, as Traefik's API shows objects.
//!
//! Measured with Traefik 3.0.4 to 3.7.15. What was sent comes back as it was, but for this: references get a provider
//! (`a` is `a@http`) in most places; durations are written as Go writes them (`60` is `1m0s`); plain values of plugins become
//! text, and their fractions have six digits; zeros, `false` and empty lists are left out; a priority of 0 becomes the length
//! of the rule; and defaults join, each of which is [`is_default`].

use std::fmt;

use charliehub_proto::traefik::Duration;
use serde_json::{Map, Value};

/// How much is known about the config that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// It says that it runs the config that we compare with.
    SameConfig,
    OtherConfig,
}

/// The first value that is not as it was sent.
#[derive(Debug)]
pub(super) struct Difference {
    /// `loadBalancer.servers[0].url`
    pub(super) path: String,
    said: Option<String>,
    runs: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match (&self.runs, &self.said) {
            (Some(runs), Some(said)) => write!(f, "`{path}` is {runs}, and the rows say {said}"),
            (Some(runs), None) => write!(f, "`{path}` is {runs}, and the rows do not say it"),
            (None, said) => {
                write!(f, "`{path}` is not there, and the rows say {}", said.as_deref().unwrap_or_default())
            }
        }
    }
}

/// What the API says about an object beside its values. Entry points are compared over all routers that one became.
const ABOUT: [&str; 10] =
    ["status", "error", "using", "usedBy", "name", "provider", "type", "serverStatus", "priorityStr", "entryPoints"];

/// Keys whose values name other objects.
const REFERENCES: [&str; 8] =
    ["service", "services", "middlewares", "name", "fallback", "serversTransport", "options", "parentRefs"];

/// Keys whose presence is a meaning, whoever added them.
const MEANINGFUL: [&str; 4] = ["tls", "middlewares", "parentRefs", "service"];

/// Compares an object, not a value within one.
pub(super) fn difference(said: &Value, runs: &Value, strictness: Strictness) -> Option<Difference> {
    let (Some(said), Some(runs)) = (said.as_object(), runs.as_object()) else {
        return Walk::new(strictness).of("", said, runs);
    };
    Walk::new(strictness).objects(said, runs)
}

struct Walk {
    depth: usize,
    strictness: Strictness,
}

impl Walk {
    fn new(strictness: Strictness) -> Self {
        Self { depth: 0, strictness }
    }

    fn objects(&mut self, said: &Map<String, Value>, runs: &Map<String, Value>) -> Option<Difference> {
        let top = self.depth == 0;
        for (key, value) in said {
            if top && ABOUT.contains(&key.as_str()) {
                continue;
            }
            let found = match runs.get(key) {
                Some(runs) => self.within(|walk| walk.of(key, value, runs)),
                None if is_nothing(value) => None,
                None => Some(Difference::between(Some(value), None)),
            };
            if let Some(found) = found {
                return Some(found.below(key));
            }
        }
        let extra = runs.iter().find(|(key, value)| {
            !(said.contains_key(*key) || top && ABOUT.contains(&key.as_str()) || self.is_added(said, key, value))
        });
        extra.map(|(key, value)| Difference::between(None, Some(value)).below(key))
    }

    /// Whether Traefik may have added it by itself.
    fn is_added(&self, said: &Map<String, Value>, key: &str, value: &Value) -> bool {
        // A middleware of two kinds, a service of two: never by itself.
        let may_be_new = self.strictness == Strictness::SameConfig
            && !MEANINGFUL.contains(&key)
            && (self.depth > 0 || said.contains_key("rule"));
        may_be_new || is_default(said, key, value)
    }

    fn of(&mut self, key: &str, said: &Value, runs: &Value) -> Option<Difference> {
        let same = match (said, runs) {
            (Value::Object(said), Value::Object(runs)) => return self.objects(said, runs),
            (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
                let pairs = ours.iter().zip(theirs).enumerate();
                if key == "parentRefs" {
                    pairs.into_iter().all(|(_, (said, runs))| is_parent(said, runs))
                } else {
                    for (index, (said, runs)) in pairs {
                        if let Some(found) = self.within(|walk| walk.of(key, said, runs)) {
                            return Some(found.below(&format!("[{index}]")));
                        }
                    }
                    true
                }
            }
            // A parent that runs on several entry points is several.
            (Value::Array(ours), Value::Array(theirs)) if key == "parentRefs" => {
                theirs.iter().all(|runs| ours.iter().any(|said| is_parent(said, runs)))
                    && ours.iter().all(|said| theirs.iter().any(|runs| is_parent(said, runs)))
            }
            _ => is_same(key, said, runs),
        };
        (!same).then(|| Difference::between(Some(said), Some(runs)))
    }

    fn within<T>(&mut self, look: impl FnOnce(&mut Self) -> T) -> T {
        self.depth += 1;
        let seen = look(self);
        self.depth -= 1;
        seen
    }
}

impl Difference {
    fn between(said: Option<&Value>, runs: Option<&Value>) -> Self {
        Self { path: String::new(), said: said.map(shown), runs: runs.map(shown) }
    }

    /// The same, found in this key or `[index]`.
    fn below(mut self, step: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }
}

/// So much of a value is told.
const SHOWN: usize = 120;

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// What Traefik leaves out. An empty object is something: TLS, a check of health.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Object(_) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0s",
        Value::Array(items) => items.is_empty(),
    }
}

fn is_same(key: &str, said: &Value, runs: &Value) -> bool {
    if said == runs || is_nothing(said) && (is_nothing(runs) || key == "priority") {
        return true;
    }
    let duration = |value: &Value| match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(seconds) => seconds.as_i64().and_then(Duration::from_secs),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    match (said, runs) {
        (Value::String(said), Value::String(runs)) if REFERENCES.contains(&key) => is_reference(said, runs),
        (Value::String(text), Value::String(_)) | (Value::Number(_), Value::String(text)) => {
            // Of two numbers in words each may be a name.
            let is_number = matches!((said, runs), (Value::String(_), Value::String(_))) && text.parse::<f64>().is_ok();
            !is_number && duration(said).zip(duration(runs)).is_some_and(|(said, runs)| said == runs)
                || said.as_f64().is_some_and(|said| text.parse() == Ok(said))
        }
        (Value::Number(said), Value::Number(runs)) => said.as_f64() == runs.as_f64(),
        (Value::Bool(said), Value::String(runs)) => *runs == said.to_string(),
        _ => false,
    }
}

/// `a` and `a@http` are the same.
fn is_reference(said: &str, runs: &str) -> bool {
    said == runs || runs.strip_suffix("@http") == Some(said)
}

/// The router itself, or the one that Traefik made of it for an entry point: `websecure-a@http`.
fn is_parent(said: &Value, runs: &Value) -> bool {
    let (Some(said), Some(runs)) = (said.as_str(), runs.as_str()) else { return false };
    let made = |name: &str| runs.strip_suffix(name).is_some_and(|entry| entry.ends_with('-'));
    is_reference(said, runs) || made(said) || made(&format!("{said}@http"))
}

/// What Traefik adds where nothing was sent.
fn is_default(said: &Map<String, Value>, key: &str, value: &Value) -> bool {
    let is = |texts: &[&str]| value.as_str().is_some_and(|text| texts.contains(&text));
    let number = |numbers: &[i64]| value.as_i64().is_some_and(|number| numbers.contains(&number));
    match key {
        "priority" => {
            let rule = said.get("rule").and_then(Value::as_str).unwrap_or_default();
            value.as_u64().is_some_and(|priority| priority == rule.len() as u64) || number(&[-1])
        }
        // The static configuration says them.
        "ruleSyntax" | "accessLogs" | "metrics" | "tracing" | "traceVerbosity" => true,
        // Of a cookie.
        "name" => !said.contains_key("name"),
        "path" => is(&["/"]),
        "options" => is(&["default"]),
        "strategy" => is(&["wrr"]),
        "mode" => is(&["http"]),
        "passHostHeader" | "followRedirects" | "mirrorBody" => *value == Value::Bool(true),
        "flushInterval" | "checkPeriod" => is(&["100ms"]),
        "interval" => is(&["30s"]),
        "timeout" | "dialTimeout" => is(&["5s"]),
        "period" => is(&["1s"]),
        "failureWindow" | "fallbackDuration" | "recoveryDuration" => is(&["10s"]),
        "readTimeout" | "writeTimeout" => is(&["3s"]),
        "weight" | "burst" | "maxFailedAttempts" => number(&[1]),
        "maxBodySize" => number(&[-1]),
        "maxRequestBodyBytes" => number(&[-1, 2_097_152]),
        "responseCode" => number(&[503]),
        "version" => number(&[2]),
        "encodings" => {
            let list: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            list == ["gzip", "br", "zstd"] || list == ["zstd", "br", "gzip"]
        }
        "endpoints" => *value == serde_json::json!(["localhost:6379"]),
        "observability" | "responseForwarding" => {
            value.as_object().is_some_and(|group| group.iter().all(|(key, value)| is_default(&Map::new(), key, value)))
        }
        _ => is_nothing(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_traefik_makes_of_values_is_the_same_and_all_else_is_not() {
        for (key, said, runs, same) in [
            ("url", json!("http://a"), json!("http://a"), true),
            ("url", json!("http://a"), json!("http://b"), false),
            ("service", json!("a"), json!("a@http"), true),
            ("service", json!("a@file"), json!("a"), false),
            ("service", json!("a"), json!("a@docker"), false),
            ("replacement", json!("a"), json!("a@http"), false),
            ("interval", json!("60s"), json!("1m0s"), true),
            ("timeout", json!(2), json!("2s"), true),
            ("timeout", json!("2"), json!("2s"), false),
            ("timeout", json!(2), json!("3s"), false),
            ("weight", json!(0), json!(0), true),
            ("weight", json!(0), json!(1), false),
            ("priority", json!(0), json!(9), true),
            ("priority", json!(5), json!(9), false),
            ("ratio", json!(0.5), json!("0.500000"), true),
            ("limit", json!(7), json!("7"), true),
            ("enabled", json!(true), json!("true"), true),
            ("enabled", json!(true), json!("false"), false),
            ("X-Port", json!("080"), json!("80"), false),
            ("users", json!(["a"]), json!(["a", "b"]), false),
            ("parentRefs", json!(["p"]), json!(["web-p@http", "p@http"]), true),
            ("parentRefs", json!(["p"]), json!(["q@http"]), false),
        ] {
            let found = Walk::new(Strictness::OtherConfig).of(key, &said, &runs);
            assert_eq!(found.is_none(), same, "{key}: {said} {runs}: {found:?}");
        }
    }

    #[test]
    fn a_default_is_nothing_and_what_nobody_asked_for_is_something() {
        let router = json!({"rule": "Host(`a`)", "service": "s"});
        for (more, same) in [
            (json!({"priority": 9, "priorityStr": "9", "status": "enabled", "using": ["web"]}), true),
            (json!({"priority": 10}), false),
            (
                json!({"ruleSyntax": "default", "observability": {"accessLogs": true, "traceVerbosity": "minimal"}}),
                true,
            ),
            (json!({"tls": {"options": "default"}}), false),
            (json!({"middlewares": ["login@file"]}), false),
        ] {
            let mut runs = router.clone();
            runs.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let found = difference(&router, &runs, Strictness::OtherConfig);
            assert_eq!(found.is_none(), same, "{more}: {found:?}");
            let lenient = difference(&router, &runs, Strictness::SameConfig).is_none();
            assert_eq!(lenient, same || more.get("priority").is_some(), "{more}");
        }
    }

    #[test]
    fn a_difference_is_a_sentence_with_its_place() {
        let said = json!({"loadBalancer": {"servers": [{"url": "http://a"}], "sticky": {"cookie": {}}}});
        for (runs, says) in [
            (
                json!({"loadBalancer": {"servers": [{"url": "http://b"}], "sticky": {"cookie": {"name": "_1", "path": "/"}}}}),
                "`loadBalancer.servers[0].url` is \"http://b\", and the rows say \"http://a\"",
            ),
            (
                json!({"loadBalancer": {"servers": [{"url": "http://a"}]}}),
                "`loadBalancer.sticky` is not there, and the rows say {\"cookie\":{}}",
            ),
            (
                json!({"loadBalancer": {"servers": [{"url": "http://a", "weight": 3}], "sticky": {"cookie": {}}}}),
                "`loadBalancer.servers[0].weight` is 3, and the rows do not say it",
            ),
        ] {
            let found = difference(&said, &runs, Strictness::OtherConfig).map(|found| found.to_string());
            assert_eq!(found.as_deref(), Some(says));
        }
    }
}
