//! Rows in, and what each part makes of requests.

use charliehub_proto::domain::Domain;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{
    compile::{Compiler, Settings, tests::domain_with},
    matching::{self, Config, Request},
    row::BadRow,
    snapshot::encode::Draft,
};

fn key(n: u128) -> Key {
    Key::domain(Uuid::from_u128(n))
}

fn row(n: u128, name: &str, columns: &Value) -> (Key, Arc<Row>) {
    (key(n), Arc::new(Row::Domain(Domain { id: key(n).id, ..domain_with(name, columns) })))
}

fn of_site(site: &str) -> Selector {
    Selector { site: Some(site.to_owned()), ..Selector::default() }
}

fn of_share(share: &str) -> Selector {
    Selector { share: share.parse().ok(), ..Selector::default() }
}

/// The rows that a selector selects, by their numbers.
fn selected(selector: &Selector, rows: &[(Key, Arc<Row>)]) -> Vec<u128> {
    let rows: Rows = rows.iter().cloned().collect();
    Division::select(selector, &rows).keys().map(|key| key.id.as_u128()).collect()
}

#[test]
fn what_would_answer_in_the_place_of_a_row_comes_with_it() {
    let berlin = json!({"site": "berlin"});
    let tcp = |tls: &str, site: &str| json!({"protocol": "tcp", "tcp_entrypoint": "mqtt", "tls_mode": tls, "site": site, "backend_scheme": null});
    let ranked = json!({"site": "berlin", "priority": 5});
    for (what, rows, wanted) in [
        ("another site", vec![row(1, "a.test", &berlin), row(2, "b.test", &json!({"site": "rome"}))], vec![1]),
        (
            "a path of a host",
            vec![row(1, "a.test", &berlin), row(2, "a.test", &json!({"path_prefix": "/x"}))],
            vec![1, 2],
        ),
        ("the hosts below a wildcard", vec![row(1, "*.a.test", &berlin), row(2, "x.a.test", &json!({}))], vec![1, 2]),
        ("not what is below those", vec![row(1, "*.a.test", &berlin), row(2, "x.y.a.test", &json!({}))], vec![1]),
        ("a host without its wildcard", vec![row(1, "x.a.test", &berlin), row(2, "*.a.test", &json!({}))], vec![1]),
        ("unless that may beat it", vec![row(1, "x.a.test", &ranked), row(2, "*.a.test", &json!({}))], vec![1, 2]),
        (
            "and then all below that",
            vec![row(1, "x.a.test", &ranked), row(2, "*.a.test", &json!({})), row(3, "y.a.test", &json!({}))],
            vec![1, 2, 3],
        ),
        (
            "a disabled wildcard beats nobody",
            vec![row(1, "x.a.test", &ranked), row(2, "*.a.test", &json!({"status": "disabled"}))],
            vec![1],
        ),
        (
            "one tcp row of several",
            vec![row(1, "a.test", &tcp("default", "berlin")), row(2, "b.test", &tcp("default", "rome"))],
            vec![1],
        ),
        (
            "those of an entry point that one takes whole",
            vec![row(1, "a.test", &tcp("none", "berlin")), row(2, "b.test", &tcp("default", "rome"))],
            vec![1, 2],
        ),
        (
            "not that one with them",
            vec![row(1, "a.test", &tcp("none", "rome")), row(2, "b.test", &tcp("default", "berlin"))],
            vec![2],
        ),
        (
            "two that want it whole, so that neither gets it",
            vec![row(1, "a.test", &tcp("none", "rome")), row(2, "b.test", &tcp("none", "berlin"))],
            vec![1, 2],
        ),
    ] {
        assert_eq!(selected(&of_site("berlin"), &rows), wanted, "{what}");
    }
}

#[test]
fn labels_are_all_asked_for_and_a_row_that_does_not_decode_has_its_place() {
    let wanted = [("tier", "gold"), ("env", "prod")];
    let labels = wanted.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let selector = Selector { labels, ..Selector::default() };
    let raw = json!({"domain": "c.test", "path_prefix": 7, "labels": {"tier": "gold", "env": "prod"}});
    let rows = [
        row(1, "a.test", &json!({"labels": {"tier": "gold", "env": "prod", "x": "y"}})),
        row(2, "b.test", &json!({"labels": {"tier": "gold"}})),
        (key(3), Arc::new(Row::Bad(BadRow { raw, reason: "path_prefix: no text".to_owned() }))),
    ];
    assert_eq!(selected(&selector, &rows), [1, 3]);
}

const HOSTS: [&str; 8] =
    ["a.t.test", "b.t.test", "*.t.test", "c.u.test", "*.u.test", "t.test", "x.a.t.test", "*.a.t.test"];
const REQUESTS: [&str; 9] =
    ["a.t.test", "b.t.test", "z.t.test", "c.u.test", "z.u.test", "t.test", "x.a.t.test", "z.a.t.test", ""];

/// A row at some place, with some say about who gets it.
fn any_row() -> impl Strategy<Value = Option<(String, Value)>> {
    let priority = prop_oneof![4 => Just(None), 1 => Just(Some(5)), 1 => Just(Some(150_000)), 1 => Just(Some(900_000))];
    let kind = prop_oneof![
        4 => (prop::sample::select(vec!["/", "/x", "/x/y"]), prop::sample::select(vec!["none", "default"]))
            .prop_map(|(path, tls)| json!({"path_prefix": path, "tls_mode": tls})),
        2 => (prop::sample::select(vec!["mqtt", "ssh"]), prop::sample::select(vec!["none", "default", "passthrough"]))
            .prop_map(|(entry, tls)| json!({"protocol": "tcp", "tcp_entrypoint": entry, "tls_mode": tls})),
    ];
    let site = prop::sample::select(vec![None, Some("berlin"), Some("rome")]);
    let more = (priority, site, any::<bool>(), prop::bool::weighted(0.8));
    prop::option::weighted(0.8, (prop::sample::select(HOSTS.to_vec()), kind, more)).prop_map(|made| {
        let (host, mut columns, (priority, site, internal, active)) = made?;
        // By TLS Traefik asks routers with TLS alone, whatever the priority of one without; `matching` goes by priorities.
        let plain = columns["protocol"] == "tcp" && columns["tls_mode"] == "none";
        columns["priority"] = priority.filter(|_| !plain).into();
        columns["site"] = site.into();
        columns["access_tier"] = if internal { "internal" } else { "public" }.into();
        columns["status"] = if active { "active" } else { "disabled" }.into();
        Some((host.to_owned(), columns))
    })
}

fn config(rows: Rows) -> Config {
    let settings = Settings { internal_networks: vec!["10.44.0.0/16".parse().unwrap()], ..Settings::default() };
    let compiler = Compiler::of(&Arc::new(settings), rows);
    Config::read(&Draft::new(compiler.pieces()).finish().identity()).unwrap()
}

/// Every request that could be told from the others.
fn requests() -> Vec<Request> {
    let mut requests = Vec::new();
    for host in REQUESTS {
        for entry in ["mqtt", "ssh"] {
            requests.push(Request::parse(&format!("tcp://{host}")).unwrap().entry_point(Some(entry.to_owned())));
        }
        for path in ["/", "/x", "/x/y/z"] {
            for scheme in ["http", "https"].into_iter().filter(|_| !host.is_empty()) {
                requests.push(Request::parse(&format!("{scheme}://{host}{path}")).unwrap());
            }
        }
    }
    requests
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a part answers, the same row of all answers, and with every share each row is answered somewhere. What
    /// was brought up step by step is what is made at once.
    #[test]
    fn a_part_answers_as_all_do_or_not_at_all(steps in prop::collection::vec((0..12u128, any_row()), 1..40)) {
        let selectors =
            vec![of_site("berlin"), of_site("rome"), of_share("1/3"), of_share("2/3"), of_share("3/3")];
        let mut division = Division::new(selectors.clone());
        let mut rows = Rows::new();
        let mut parts = vec![Rows::new(); selectors.len()];
        for (n, columns) in steps {
            let made = columns.map(|(name, columns)| row(n, &name, &columns).1);
            match &made {
                Some(row) => drop(rows.insert(key(n), Arc::clone(row))),
                None => drop(rows.remove(&key(n))),
            }
            let changes = division.apply(&[(key(n), made)], &rows);
            for (part, changes) in parts.iter_mut().zip(changes) {
                for (key, row) in changes {
                    match row {
                        Some(row) => drop(part.insert(key, row)),
                        None => prop_assert!(part.remove(&key).is_some(), "what goes was there"),
                    }
                }
            }
        }
        for (selector, part) in selectors.iter().zip(&parts) {
            prop_assert_eq!(part, &Division::select(selector, &rows), "{}", selector);
        }
        let all = config(rows);
        let parts: Vec<Config> = parts.into_iter().map(config).collect();
        for request in requests() {
            let by_all = matching::answer(&all, &request).unwrap().answer;
            let by_parts: Vec<_> =
                parts.iter().map(|part| matching::answer(part, &request).unwrap().answer).collect();
            for (selector, answer) in selectors.iter().zip(&by_parts) {
                prop_assert!(answer.is_none() || *answer == by_all, "{selector}: {answer:?}, and all: {by_all:?}");
            }
            prop_assert_eq!(by_parts[2..].iter().any(Option::is_some), by_all.is_some(), "in one of the shares");
        }
    }
}
