//! What the API answered, for people. Pure.

use std::fmt::Write as _;

use charliehub_proto::{
    change::{Change, ChangeState, WrittenDomain},
    domain::{Domain, Protocol, ServiceType},
    problem::Problem,
};

use crate::cli::output;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Add,
    Change,
    Remove,
}

impl Deed {
    fn done(self) -> &'static str {
        match self {
            Self::Add => "added",
            Self::Change => "changed",
            Self::Remove => "removed",
        }
    }
}

/// As people call it: `a.example.org/path`; tcp: with its entry point.
pub(super) fn name(row: &Domain) -> String {
    let path = if row.path_prefix == "/" { "" } else { &row.path_prefix };
    let entry_point = row.tcp_entrypoint.as_ref().filter(|_| row.protocol == Protocol::Tcp);
    let entry_point = entry_point.map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{}{path}{entry_point}", row.domain)
}

pub(super) fn table(rows: &[Domain]) -> String {
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let login = if row.auth_required { "yes" } else { "-" };
            let labels =
                [row.status.as_str(), row.access_tier.as_str(), row.tls_mode.as_str(), login].map(str::to_owned);
            let mut line = vec![name(row), goes_to(row)];
            line.extend(labels);
            line.extend([row.version.to_string(), row.id.to_string()]);
            line
        })
        .collect();
    output::table(&["NAME", "GOES TO", "STATUS", "TIER", "TLS", "LOGIN", "VERSION", "ID"], &lines)
}

fn goes_to(row: &Domain) -> String {
    let server = |host: &str, port: u16| {
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    };
    match row.service_type {
        ServiceType::Redirect => format!("-> {}", row.redirect_to.as_deref().unwrap_or_default()),
        ServiceType::Reference => row.service_ref.clone().unwrap_or_default(),
        ServiceType::Proxy => {
            let alone = row.backend_host.as_deref().zip(row.backend_port);
            let several = row.backends.iter().map(|backend| (backend.host.as_str(), backend.port));
            alone.into_iter().chain(several).map(|(host, port)| server(host, port)).collect::<Vec<_>>().join(", ")
        }
    }
}

/// One line with what happened, then one for each way in which somebody is affected.
pub(super) fn written(deed: Deed, written: &WrittenDomain) -> String {
    let WrittenDomain { domain, change } = written;
    let mut text = format!("{} ({}): {}\n", name(domain), domain.id, happened(deed, change));
    for (what, names) in affected(change) {
        if !names.is_empty() {
            let _ = writeln!(text, "  {what}: {}", names.join(", "));
        }
    }
    for warning in &change.warnings {
        let _ = writeln!(text, "  warning: {warning}");
    }
    text
}

fn happened(deed: Deed, change: &Change) -> String {
    let (done, revision) = (deed.done(), change.revision.unwrap_or_default());
    match change.state {
        ChangeState::Served => format!("{done}; served as revision {revision}"),
        ChangeState::Withheld => format!(
            "{done} as revision {revision}, which is withheld; an administrator decides: charliehub-provider approve \
             {revision}, or discard {revision}"
        ),
        ChangeState::Pending => format!("{done} as revision {revision}, and not served yet"),
        ChangeState::Unchanged => "nothing to do: it is like this already".to_owned(),
        ChangeState::DryRun => format!("would be {done}; it was a dry run"),
    }
}

fn affected(change: &Change) -> [(&'static str, &[String]); 8] {
    let impact = &change.impact;
    [
        ("goes off", &impact.off),
        ("comes on", &impact.on),
        ("goes to another backend", &impact.backend),
        ("reachable from the internet", &impact.exposed),
        ("was protected, and is open to the internet", &impact.opened),
        ("reachable from more networks", &impact.widened),
        ("needs no login any more", &impact.login_lost),
        ("closed, answers 503", &impact.closed),
    ]
}

/// A refusal in one line: where, what, and how to mend it.
pub(super) fn refusal(problem: &Problem) -> String {
    let Problem { title, detail, field, remedy, .. } = problem;
    let field = field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
    let remedy = remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
    format!("{title}: {field}{detail}{remedy}")
}

#[cfg(test)]
pub(super) mod tests {
    use charliehub_proto::change::Impact;
    use serde_json::{Value, json};

    use super::*;

    /// A row `a.test` of version 7.
    pub(in crate::cli::domains) fn row() -> Domain {
        of(&json!({}))
    }

    fn of(fields: &Value) -> Domain {
        let mut row = json!({
            "id": "00000000-0000-0000-0000-000000000001", "domain": "a.test", "path_prefix": "/", "protocol": "http",
            "service_type": "proxy", "environment": "production", "status": "active", "access_tier": "public",
            "tls_mode": "default", "backend_host": "10.0.0.7", "backend_port": 80, "backends": [],
            "auth_required": false, "ip_allowlist": [], "middlewares": [], "redirect_permanent": false,
            "redirect_keep_path": true, "dns_mode": "external", "labels": {}, "created_at": "2026-11-24T12:00:00Z",
            "updated_at": "2026-11-24T12:00:00Z", "version": 7,
        });
        row.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_row_is_a_line() {
        let servers = json!([{"host": "fd00::7", "port": 1}, {"host": "h", "port": 2}]);
        for (fields, begin) in [
            (json!({}), "a.test 10.0.0.7:80 active public default - 7 "),
            (json!({"path_prefix": "/x", "auth_required": true}), "a.test/x 10.0.0.7:80 active public default yes 7 "),
            (
                json!({"protocol": "tcp", "tcp_entrypoint": "mqtt", "access_tier": "internal"}),
                "a.test (mqtt) 10.0.0.7:80 active internal default - 7 ",
            ),
            (
                json!({"backend_host": null, "backend_port": null, "backends": servers}),
                "a.test [fd00::7]:1, h:2 active public default - 7 ",
            ),
            (
                json!({"service_type": "redirect", "redirect_to": "https://b.test"}),
                "a.test -> https://b.test active public default - 7 ",
            ),
            (
                json!({"service_type": "reference", "service_ref": "api@internal"}),
                "a.test api@internal active public default - 7 ",
            ),
        ] {
            let text = table(&[of(&fields)]);
            let line: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
            assert!(line.join(" ").starts_with(begin), "{text}");
        }
    }

    #[test]
    fn a_write_says_what_happened_and_to_whom() {
        let change = |state, revision| Change {
            state,
            revision,
            digest: None,
            impact: Impact::default(),
            diff: Vec::new(),
            warnings: Vec::new(),
            instances: Vec::new(),
            rehearsal: None,
        };
        let begin = "a.test (00000000-0000-0000-0000-000000000001): ";
        for (deed, state, revision, line) in [
            (Deed::Add, ChangeState::Served, Some(12), "added; served as revision 12"),
            (Deed::Change, ChangeState::Pending, Some(12), "changed as revision 12, and not served yet"),
            (Deed::Change, ChangeState::Unchanged, None, "nothing to do: it is like this already"),
            (Deed::Remove, ChangeState::DryRun, None, "would be removed; it was a dry run"),
            (
                Deed::Remove,
                ChangeState::Withheld,
                Some(12),
                "removed as revision 12, which is withheld; an administrator decides: charliehub-provider approve 12, \
                 or discard 12",
            ),
        ] {
            let said = written(deed, &WrittenDomain { domain: row(), change: change(state, revision) });
            assert_eq!(said, format!("{begin}{line}\n"));
        }
        let names = |text: &str| vec![text.to_owned()];
        let impact = Impact { exposed: names("a.test"), login_lost: names("a.test"), ..Impact::default() };
        let warnings = names("it is odd");
        let change = Change { impact, warnings, ..change(ChangeState::Served, Some(1)) };
        let said = written(Deed::Change, &WrittenDomain { domain: row(), change });
        let lines: Vec<&str> = said.lines().skip(1).collect();
        assert_eq!(
            lines,
            ["  reachable from the internet: a.test", "  needs no login any more: a.test", "  warning: it is odd"]
        );
    }

    #[test]
    fn a_refusal_is_one_line_with_field_and_remedy() {
        let problem = |field: Option<&str>, remedy: Option<&str>| Problem {
            kind: "urn:charliehub:problem:invalid".to_owned(),
            title: "A field is not valid".to_owned(),
            status: 422,
            detail: "it is 0".to_owned(),
            field: field.map(str::to_owned),
            remedy: remedy.map(str::to_owned),
            items: Vec::new(),
        };
        for (problem, line) in [
            (problem(Some("backend_port"), Some("use 1")), "A field is not valid: backend_port: it is 0; use 1"),
            (problem(None, None), "A field is not valid: it is 0"),
        ] {
            assert_eq!(refusal(&problem), line);
        }
    }
}
