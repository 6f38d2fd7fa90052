use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{
    compile::{ForwardAuth, Settings, tests::domain_with},
    row::{Row, Rows},
};

fn compiled(rows: &[(u128, &str, Value)]) -> Compiler {
    let settings = Settings {
        forward_auth: Some(ForwardAuth { address: "http://127.0.0.1:9091".to_owned(), auth_response_headers: vec![] }),
        internal_networks: vec!["10.44.0.0/16".parse().unwrap()],
        ..Settings::default()
    };
    let rows = rows.iter().map(|(n, name, columns)| {
        let mut row = domain_with(name, columns);
        row.id = Uuid::from_u128(*n);
        (Key::domain(row.id), Arc::new(Row::Domain(row)))
    });
    let rows: Rows = rows.collect();
    let mut compiler = Compiler::new(Arc::new(settings));
    compiler.apply(rows.into_iter().map(|(key, row)| (key, Some(row))).collect());
    compiler
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

type Table = Vec<(u128, &'static str, Value)>;

#[test]
fn the_blast_radius_of_a_change_is_told_by_places() {
    let open = || json!({});
    let internal = || json!({"access_tier": "internal"});
    let login = || json!({"auth_required": true});
    let admin = |mut columns: Value| {
        columns["path_prefix"] = json!("/admin");
        columns
    };
    let list = |nets: &[&str]| json!({"access_tier": "restricted", "ip_allowlist": nets});
    let cases: Vec<(&str, Table, Table, Impact)> = vec![
        ("the same", vec![(1, "a.test", open())], vec![(1, "a.test", open())], Impact::default()),
        (
            "a new public name",
            vec![],
            vec![(1, "a.test", open())],
            Impact { on: names(&["a.test"]), exposed: names(&["a.test"]), ..Impact::default() },
        ),
        (
            "a new internal name",
            vec![],
            vec![(1, "a.test", internal())],
            Impact { on: names(&["a.test"]), ..Impact::default() },
        ),
        ("gone", vec![(1, "a.test", open())], vec![], Impact { off: names(&["a.test"]), ..Impact::default() }),
        (
            "disabled",
            vec![(1, "a.test", open())],
            vec![(1, "a.test", json!({"status": "disabled"}))],
            Impact { off: names(&["a.test"]), ..Impact::default() },
        ),
        (
            "maintenance",
            vec![(1, "a.test", open())],
            vec![(1, "a.test", json!({"status": "maintenance"}))],
            Impact { off: names(&["a.test"]), ..Impact::default() },
        ),
        (
            "gone, and a wildcard answers",
            vec![(1, "a.b.test", open()), (2, "*.b.test", json!({"backend_port": 81}))],
            vec![(2, "*.b.test", json!({"backend_port": 81}))],
            Impact { backend: names(&["a.b.test"]), ..Impact::default() },
        ),
        (
            "another backend",
            vec![(1, "a.test", open())],
            vec![(1, "a.test", json!({"backend_port": 81}))],
            Impact { backend: names(&["a.test"]), ..Impact::default() },
        ),
        (
            "opened",
            vec![(1, "a.test", internal())],
            vec![(1, "a.test", open())],
            Impact { exposed: names(&["a.test"]), opened: names(&["a.test"]), ..Impact::default() },
        ),
        (
            "a protected path gone, and its neighbour takes the requests",
            vec![(1, "a.test", open()), (2, "a.test", admin(internal()))],
            vec![(1, "a.test", open())],
            Impact { exposed: names(&["a.test/admin"]), opened: names(&["a.test/admin"]), ..Impact::default() },
        ),
        (
            "no login",
            vec![(1, "a.test", login())],
            vec![(1, "a.test", open())],
            Impact { login_lost: names(&["a.test"]), ..Impact::default() },
        ),
        (
            "a login gone with its path",
            vec![(1, "a.test", open()), (2, "a.test", admin(login()))],
            vec![(1, "a.test", open())],
            Impact { login_lost: names(&["a.test/admin"]), ..Impact::default() },
        ),
        (
            "a wider list",
            vec![(1, "a.test", list(&["10.44.1.0/24"]))],
            vec![(1, "a.test", list(&["10.0.0.0/8"]))],
            Impact { widened: names(&["a.test"]), ..Impact::default() },
        ),
        (
            "a narrower list",
            vec![(1, "a.test", list(&["10.0.0.0/8"]))],
            vec![(1, "a.test", internal())],
            Impact::default(),
        ),
        (
            "not to be compiled",
            vec![(1, "a.test", open())],
            vec![(1, "a.test", json!({"middlewares": ["nope"]}))],
            Impact { off: names(&["a.test"]), closed: names(&["a.test"]), ..Impact::default() },
        ),
    ];
    for (name, before, after, expected) in cases {
        assert_eq!(impact(&compiled(&before), &compiled(&after)), expected, "{name}");
    }
}

#[test]
fn what_is_different_is_told_by_names_of_traefik() {
    let (before, after) =
        (compiled(&[(1, "a.test", json!({}))]), compiled(&[(1, "a.test", json!({"access_tier": "internal"}))]));
    let found = differences(before.pieces(), after.pieces());
    let told: Vec<_> = found.iter().map(|one| (one.section.as_str(), one.name.as_str())).collect();
    assert_eq!(told, [("http.routers", "a.test")], "the shared list of networks says nothing");
    let router = |value: &Option<Value>| value.as_ref().unwrap()["middlewares"].clone();
    assert_eq!((router(&found[0].before), router(&found[0].after)), (Value::Null, json!(["charliehub-internal"])));
    assert_eq!(differences(after.pieces(), after.pieces()), []);
}

fn any_rows() -> impl Strategy<Value = Table> {
    let columns = prop_oneof![
        Just(json!({})),
        Just(json!({"access_tier": "internal"})),
        Just(json!({"auth_required": true})),
        Just(json!({"status": "disabled"})),
        Just(json!({"middlewares": ["nope"]})),
    ];
    let place = proptest::sample::subsequence(vec!["a.b.test", "*.b.test", "b.test"], 0..3);
    (place, proptest::collection::vec(columns, 3)).prop_map(|(hosts, columns)| {
        (1..).zip(hosts).zip(columns).map(|((n, host), columns)| (n, host, columns)).collect()
    })
}

proptest! {
    /// There and back: what went off comes on again, and nothing that is the same is told.
    #[test]
    fn the_way_back_is_the_reverse(before in any_rows(), after in any_rows()) {
        let (before, after) = (compiled(&before), compiled(&after));
        let (there, back) = (impact(&before, &after), impact(&after, &before));
        prop_assert_eq!(there.off, back.on);
        prop_assert_eq!(there.on, back.off);
        prop_assert_eq!(there.backend, back.backend);
        prop_assert!(impact(&before, &before).off.is_empty() && impact(&after, &after).exposed.is_empty());
    }
}
