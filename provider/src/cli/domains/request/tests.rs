use clap::{Parser, Subcommand};

use super::*;
use crate::cli::domains::text::tests::row;

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Add(Add),
    Set(Set),
    Rm(Remove),
}

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// What is asked with these arguments, of a row `a.test` of version 7.
fn ask(args: &[&str]) -> Result<Ask, clap::Error> {
    let line = Line::try_parse_from(std::iter::once("domains").chain(args.iter().copied()))?;
    Ok(match line.command {
        Command::List(list) => list.ask(),
        Command::Add(add) => add.ask(),
        Command::Set(set) => set.ask(&row()),
        Command::Rm(remove) => remove.ask(&row()),
    })
}

#[test]
fn what_arguments_ask() {
    const ID: &str = "00000000-0000-0000-0000-000000000001";
    let cases: [(&[&str], &str, Option<i64>, Value); 19] = [
        (&["list"], "GET /api/domains?limit=1000", None, Value::Null),
        (
            &[
                "list", "--status", "draft", "--status", "disabled", "--tier", "internal", "--q", "a b&c=ü", "--limit",
                "5000",
            ],
            "GET /api/domains?status=draft&status=disabled&access_tier=internal&q=a%20b%26c%3D%C3%BC&limit=1000",
            None,
            Value::Null,
        ),
        (
            &["list", "--sort", "-updated_at,domain", "--limit", "2"],
            "GET /api/domains?sort=-updated_at,domain&limit=2",
            None,
            Value::Null,
        ),
        (
            &["add", "a.test", "--backend", "10.0.0.7:8080"],
            "POST /api/domains",
            None,
            json!({"domain": "a.test", "backend_host": "10.0.0.7", "backend_port": 8080}),
        ),
        (
            &["add", "a.test", "--backend", "[fd00::7]:80", "--path", "/p", "--tls", "default", "--auth"],
            "POST /api/domains",
            None,
            json!({"domain": "a.test", "backend_host": "fd00::7", "backend_port": 80, "path_prefix": "/p",
                "tls_mode": "default", "auth_required": true}),
        ),
        (
            &[
                "add",
                "a.test",
                "--backend",
                "h:80",
                "--tier",
                "restricted",
                "--allow",
                "10.0.0.0/8",
                "fd00::/8",
                "--allow",
                "192.0.2.7/32",
            ],
            "POST /api/domains",
            None,
            json!({"domain": "a.test", "backend_host": "h", "backend_port": 80, "access_tier": "restricted",
                "ip_allowlist": ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"]}),
        ),
        (
            &["add", "a.test", "--redirect-to", "https://b.test"],
            "POST /api/domains",
            None,
            json!({"domain": "a.test", "service_type": "redirect", "redirect_to": "https://b.test"}),
        ),
        (
            &["add", "a.test", "--service", "api@internal", "--dry-run", "--wait", "live"],
            "POST /api/domains?dry_run=true&wait=live",
            None,
            json!({"domain": "a.test", "service_type": "reference", "service_ref": "api@internal"}),
        ),
        (
            &["add", "a.test", "--set", r#"backends=[{"host": "h", "port": 1}]"#, "--set", "owner=ann"],
            "POST /api/domains",
            None,
            json!({"domain": "a.test", "backends": [{"host": "h", "port": 1}], "owner": "ann"}),
        ),
        (
            &["set", "a.test", "status=maintenance", "priority=7", "owner=", r#"notes="7""#, "site=a=b"],
            "PATCH /api/domains/ID",
            Some(7),
            json!({"status": "maintenance", "priority": 7, "owner": null, "notes": "7", "site": "a=b"}),
        ),
        (
            &["set", "a.test", "auth_required=true", "--if-version", "3", "--wait", "commit"],
            "PATCH /api/domains/ID?wait=commit",
            Some(3),
            json!({"auth_required": true}),
        ),
        (&["rm", "a.test"], "DELETE /api/domains/ID", Some(7), Value::Null),
        (&["rm", ID, "--dry-run", "--if-version", "6"], "DELETE /api/domains/ID?dry_run=true", Some(6), Value::Null),
        (&["list", "--environment", "staging"], "GET /api/domains?environment=staging&limit=1000", None, Value::Null),
        (&["list", "--protocol", "tcp"], "GET /api/domains?protocol=tcp&limit=1000", None, Value::Null),
        (&["list", "--site", "hub2"], "GET /api/domains?site=hub2&limit=1000", None, Value::Null),
        (&["list", "--owner", "ann"], "GET /api/domains?owner=ann&limit=1000", None, Value::Null),
        (&["list", "--limit", "1"], "GET /api/domains?limit=1", None, Value::Null),
        (&["list", "--q", "100%+"], "GET /api/domains?q=100%25%2B&limit=1000", None, Value::Null),
    ];
    for (args, line, version, body) in cases {
        let asked = ask(args).unwrap();
        assert_eq!(format!("{} {}", asked.method, asked.path).replace(ID, "ID"), line, "{args:?}");
        assert_eq!(asked.version, version, "{args:?}");
        assert_eq!(asked.body.map_or(Value::Null, Value::Object), body, "{args:?}");
    }
    let asked = ask(&["rm", "a.test", "--reason", "ümzug"]).unwrap();
    assert_eq!(asked.reason.unwrap().as_bytes(), "ümzug".as_bytes());
}

#[test]
fn what_cannot_be_asked_is_wrong_usage() {
    for args in [
        &["add", "a.test"][..],
        &["add", "--backend", "h:80"],
        &["add", "a.test", "--backend", "h"],
        &["add", "a.test", "--backend", "h:0"],
        &["add", "a.test", "--backend", ":80"],
        &["add", "a.test", "--backend", "h:80", "--redirect-to", "https://b.test"],
        &["add", "a.test", "--redirect-to", "https://b.test", "--service", "s"],
        &["add", "a.test", "--backend", "h:80", "--tier", "open"],
        &["add", "a.test", "--backend", "h:80", "--allow", "everybody"],
        &["add", "a.test", "--backend", "h:80", "--reason", "two\nlines"],
        &["set", "a.test"],
        &["set", "a.test", "status"],
        &["set", "a.test", "=x"],
        &["set", "/x", "status=draft"],
        &["rm"],
        &["rm", "a.test", "--if-version", "x"],
        &["list", "--limit", "0"],
        &["list", "--status", "gone"],
    ] {
        assert_eq!(ask(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
}

#[test]
fn a_name_that_several_rows_have_is_refused_and_lists_them() {
    let (root, admin) = (row(), Domain { id: Uuid::from_u128(2), path_prefix: "/admin".to_owned(), ..row() });
    let both = || vec![root.clone(), admin.clone()];
    for (text, found, right) in [
        ("a.test", vec![root.clone()], Ok(&root)),
        ("A.test", vec![admin.clone()], Ok(&admin)),
        ("a.test/", both(), Ok(&root)),
        ("a.test/admin", both(), Ok(&admin)),
        ("a.test", both(), Err("2 rows are named a.test; name one by its path or its id: a.test (")),
        ("a.test/x", both(), Err("no row is named a.test/x; see: ")),
        ("a.test", vec![], Err("no row is named a.test; see: ")),
    ] {
        match (wanted(text).unwrap().only(found), right) {
            (Ok(row), Ok(right)) => assert_eq!(&row, right, "{text}"),
            (Err(error), Err(right)) => assert!(error.to_string().starts_with(right), "{text}: {error}"),
            (got, right) => panic!("{text}: {got:?} is not {right:?}"),
        }
    }
    let id = Uuid::from_u128(2);
    assert_eq!(wanted(&id.to_string()).unwrap().ask().path, format!("/api/domains/{id}"));
    assert_eq!(wanted("*.A.test").unwrap().ask().path, "/api/domains?domain=%2A.a.test");
}
