//! What a rehearsal tells: from Traefik's API and log to a verdict.
//!
//! Whoever writes is refused by what Traefik says of all of it, or of what is written; what it says of others keeps nobody
//! from a change, and is told as a warning.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::stage;

/// What Traefik made of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Rehearsed)]
pub struct Report {
    pub verdict: Verdict,
    /// Of the Traefik that loaded it.
    pub version: String,
    pub took_ms: u64,
    /// Routers of the candidate that Traefik knows, good and bad.
    pub loaded: usize,
    /// Why Traefik refused all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_error: Option<String>,
    /// Those that do not run as they were written.
    pub routers: Vec<Part>,
    pub services: Vec<Part>,
    pub middlewares: Vec<Part>,
    /// What the log says beside that.
    pub log: Vec<Line>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RehearsalVerdict)]
pub enum Verdict {
    Fine,
    /// Nothing of it would run: what runs now would go on.
    Refused,
    /// It would run, but not all of it.
    Errors,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Refused => "refused",
            Self::Errors => "errors",
        }
    }
}

/// A router, service or middleware with Traefik's own words about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RehearsedPart)]
pub struct Part {
    /// `http`, `tcp` or `udp`.
    pub protocol: &'static str,
    /// As the candidate names it.
    pub name: String,
    /// `warning`: it runs in part; `disabled`: it does not run.
    pub status: String,
    pub errors: Vec<String>,
}

/// A line of Traefik's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RehearsedLine)]
pub struct Line {
    /// `warn`, `error`, or worse.
    pub level: String,
    pub message: String,
    /// The router, service or middleware that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
}

impl Report {
    /// Judges what was found; `log` is told where the API's words do not say it already.
    pub(super) fn new(version: String, found: Found, heard: Heard) -> Self {
        let Found { loaded, routers, services, middlewares } = found;
        let objects = || routers.iter().chain(&services).chain(&middlewares);
        let told = |line: &Line| {
            objects().any(|object| {
                line.object.as_ref() == Some(&object.name)
                    && object.errors.iter().any(|error| error.contains(&line.message))
            })
        };
        let log: Vec<Line> = heard.lines.into_iter().filter(|line| !told(line)).collect();
        let is_fine = routers.is_empty() && services.is_empty() && middlewares.is_empty();
        let verdict = match &heard.body_error {
            Some(_) => Verdict::Refused,
            None if is_fine && log.iter().all(|line| line.level == "warn") => Verdict::Fine,
            None => Verdict::Errors,
        };
        Self { verdict, version, took_ms: 0, loaded, body_error: heard.body_error, routers, services, middlewares, log }
    }

    /// What keeps a write from being made, whose objects are those that `is_written` knows by name.
    pub fn against(&self, is_written: impl Fn(&str) -> bool) -> Option<Complaint> {
        if self.verdict == Verdict::Refused {
            return Some(Complaint { of: None, words: self.body_error.clone().unwrap_or_default() });
        }
        self.complaints().find(|complaint| complaint.of.as_deref().is_some_and(&is_written))
    }

    /// What is told of others when a write is made all the same.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.complaints().map(|complaint| format!("rehearsal: {complaint}"))
    }

    fn complaints(&self) -> impl Iterator<Item = Complaint> {
        let objects = self.routers.iter().chain(&self.services).chain(&self.middlewares);
        let objects =
            objects.map(|object| Complaint { of: Some(object.name.clone()), words: object.errors.join("; ") });
        let lines = self.log.iter().filter(|line| line.level != "warn");
        objects.chain(lines.map(|line| Complaint { of: line.object.clone(), words: line.message.clone() }))
    }
}

/// What Traefik would not run as it was written, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The router, service or middleware; none: all of it, or nothing that has a name.
    pub of: Option<String>,
    pub words: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Some(of) => write!(f, "{of}: {}", self.words),
            None => f.write_str(&self.words),
        }
    }
}

/// What the API said.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) loaded: usize,
    pub(super) routers: Vec<Part>,
    pub(super) services: Vec<Part>,
    pub(super) middlewares: Vec<Part>,
}

/// What the log said so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) body_error: Option<String>,
    pub(super) lines: Vec<Line>,
    /// The last complaint, of whatever kind.
    pub(super) last: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    level: String,
    #[serde(default)]
    message: String,
    error: Option<String>,
    provider_name: Option<String>,
    router_name: Option<String>,
    service_name: Option<String>,
    middleware_name: Option<String>,
    certificate_resolver: Option<String>,
}

impl Heard {
    pub(super) fn last_words(&self) -> String {
        let words = self.last.trim_start_matches("error: ");
        if words.is_empty() { "it said nothing".to_owned() } else { words.to_owned() }
    }

    /// Takes a line of the log, as Traefik writes it with `log.format: json`.
    pub(super) fn hear(&mut self, text: &str) {
        let Ok(entry) = serde_json::from_str::<Entry>(text) else {
            text.trim().clone_into(&mut self.last); // such as the trace of a panic
            return;
        };
        if !matches!(&*entry.level, "warn" | "error" | "fatal" | "panic") {
            return;
        }
        let error = entry.error.as_deref().unwrap_or_default();
        let message = match (&*entry.message, error, entry.certificate_resolver) {
            (message, "", Some(resolver)) => format!("{message} `{resolver}`"),
            (message, "", None) => message.to_owned(),
            ("", error, _) => error.to_owned(),
            (message, error, _) => format!("{message}: {error}"),
        };
        if entry.level != "warn" {
            self.last.clone_from(&message);
        }
        if entry.provider_name.as_deref() == Some("http") {
            // Its message is about trying again.
            self.body_error
                .get_or_insert_with(|| error.trim_start_matches("cannot decode configuration data: ").to_owned());
            return;
        }
        let object = entry.router_name.or(entry.service_name).or(entry.middleware_name);
        // A warning about nothing of the candidate's is about the stage, and checks of health fail there as they must.
        if entry.level == "warn" && (object.is_none() || message.to_ascii_lowercase().contains("health check")) {
            return;
        }
        let object = object.map(|name| stage::own(&name).to_owned());
        let line = Line { level: entry.level, message, object };
        // Traefik builds a router once for each of its entry points.
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Heard {
        let mut heard = Heard::default();
        for line in lines {
            heard.hear(line);
        }
        heard
    }

    #[test]
    fn what_a_line_of_traefiks_log_says() {
        for (line, message, object) in [
            (
                r#"{"level":"error","routerName":"r@http","certificateResolver":"nope","message":"Router uses a nonexistent certificate resolver"}"#,
                "Router uses a nonexistent certificate resolver `nope`",
                Some("r"),
            ),
            (
                r#"{"level":"error","entryPointName":"web","routerName":"r@http","error":"it is bad"}"#,
                "it is bad",
                Some("r"),
            ),
            (
                r#"{"level":"error","error":"no PEM","message":"Unable to parse certificate"}"#,
                "Unable to parse certificate: no PEM",
                None,
            ),
        ] {
            let heard = heard(&[line, line]);
            let expected =
                Line { level: "error".to_owned(), message: message.to_owned(), object: object.map(str::to_owned) };
            assert_eq!(heard.lines, [expected], "{line}");
        }
    }

    #[test]
    fn what_is_about_the_stage_is_not_told() {
        let heard = heard(&[
            r#"{"level":"info","message":"Starting"}"#,
            r#"{"level":"warn","entryPointName":"web","message":"aliasHeadersStrategy is not configured"}"#,
            r#"{"level":"warn","serviceName":"s@http","message":"Health check failed."}"#,
        ]);
        assert!(heard.lines.is_empty() && heard.body_error.is_none() && heard.last.is_empty(), "{heard:?}");
    }

    #[test]
    fn the_first_refusal_of_the_body_is_the_verdict() {
        let line = |what: &str| {
            format!(
                r#"{{"level":"error","providerName":"http","error":"cannot decode configuration data: {what}","message":"Provider error, retrying in 1s"}}"#
            )
        };
        let heard = heard(&[&line("field not found, node: colour"), &line("another")]);
        let report = Report::new("3".to_owned(), Found::default(), heard);
        assert_eq!(report.verdict, Verdict::Refused);
        assert_eq!(report.body_error.as_deref(), Some("field not found, node: colour"));
    }

    #[test]
    fn the_log_says_only_what_the_api_does_not() {
        let router = Part {
            protocol: "http",
            name: "r".to_owned(),
            status: "disabled".to_owned(),
            errors: vec!["it is bad".to_owned()],
        };
        let found = Found { loaded: 1, routers: vec![router], ..Found::default() };
        let heard = heard(&[
            r#"{"level":"error","routerName":"r@http","error":"it is bad"}"#,
            r#"{"level":"error","routerName":"r@http","error":"it is worse"}"#,
        ]);
        let report = Report::new("3".to_owned(), found, heard);
        assert_eq!((report.verdict, report.log.len()), (Verdict::Errors, 1));
    }

    #[test]
    fn only_what_is_said_of_the_written_is_against_it() {
        let object = |name: &str| Part {
            protocol: "http",
            name: name.to_owned(),
            status: "disabled".to_owned(),
            errors: vec!["it is wrong".to_owned()],
        };
        let line = |level: &str, object: Option<&str>| Line {
            level: level.to_owned(),
            message: "no such resolver".to_owned(),
            object: object.map(str::to_owned),
        };
        let report = |body_error: Option<&str>, routers: Vec<Part>, lines: Vec<Line>| {
            let heard = Heard { body_error: body_error.map(str::to_owned), lines, ..Heard::default() };
            Report::new("3".to_owned(), Found { routers, ..Found::default() }, heard)
        };
        for (report, words, warnings) in [
            (report(None, vec![object("a.test")], vec![]), Some("a.test: it is wrong"), 1),
            (report(None, vec![object("b.test")], vec![line("error", Some("b.test")), line("error", None)]), None, 3),
            (report(None, vec![], vec![line("error", Some("a.test"))]), Some("a.test: no such resolver"), 1),
            (report(None, vec![], vec![line("warn", Some("a.test"))]), None, 0),
            (report(Some("field not found"), vec![], vec![]), Some("field not found"), 0),
        ] {
            let against = report.against(|name| name == "a.test").map(|complaint| complaint.to_string());
            assert_eq!(against.as_deref(), words, "{report:?}");
            assert_eq!(report.warnings().count(), warnings, "{report:?}");
        }
    }

    #[test]
    fn a_warning_is_told_and_still_fine() {
        let heard = heard(&[r#"{"level":"warn","middlewareName":"m@http","message":"ipWhiteList is deprecated"}"#]);
        let report = Report::new("3".to_owned(), Found::default(), heard);
        assert_eq!((report.verdict, report.log.len()), (Verdict::Fine, 1));
    }
}
