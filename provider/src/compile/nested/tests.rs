//! Rows below parents: what they look like, and that no request is answered otherwise.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{
    Compiler, Section,
    coalesce::tests::{hold_to_the_rows, routers, tiny},
    is_of_several, row_of,
    tests::{any_change, fragment, id, refused, row},
};
use crate::{
    matching::{self, Config, Request},
    row::{Key, Row},
    snapshot::encode::Draft,
};

type Change = (Key, Option<Arc<Row>>);

fn compiled(changes: Vec<Change>) -> Compiler {
    let mut compiler = tiny(true);
    compiler.apply(changes);
    compiler
}

/// Rows `from..to`, each with a backend of its own.
fn rows(from: u16, to: u16, columns: &Value) -> Vec<Change> {
    let own = |n: u16| {
        let mut columns = columns.clone();
        columns["backend_port"] = json!(1_000 + n);
        row(n.into(), &format!("h{n}.test"), &columns)
    };
    (from..to).map(own).collect()
}

fn parent<'a>(routers: &'a BTreeMap<String, Value>, child: &str) -> Option<&'a Value> {
    let refs = routers[child].get("parentRefs")?;
    Some(&routers[refs.as_array().unwrap()[0].as_str().unwrap()])
}

#[test]
fn a_child_has_what_is_its_own_and_the_parent_what_all_have() {
    let list = json!({"access_tier": "restricted", "ip_allowlist": ["192.0.2.0/24"], "path_prefix": "/x"});
    let compiler = compiled(rows(10, 30, &list));
    let routers = routers(&compiler);
    let priority = 200_000 + "/x".len();
    assert_eq!(
        routers["h12.test/x"],
        json!({
            "middlewares": ["h12.test/x-allow"], "parentRefs": routers["h12.test/x"]["parentRefs"], "priority": priority,
            "rule": "Host(`h12.test`) && PathPrefix(`/x`)", "service": "h12.test/x",
        })
    );
    let above = parent(&routers, "h12.test/x").unwrap();
    let rule = above["rule"].as_str().unwrap();
    assert!(rule.starts_with("HostRegexp(`^(?:h") && rule.contains(r"h12\.test"), "{rule}");
    assert!(rule.ends_with(r")\.?$`) && PathPrefix(`/x`)"), "{rule}");
    let rest = json!({"entryPoints": ["websecure"], "priority": priority, "rule": rule, "tls": {}});
    assert_eq!((above, compiler.counts().routers), (&rest, 20));
    assert_eq!(refused(&compiler), Vec::<String>::new());
    let name = routers["h12.test/x"]["parentRefs"][0].as_str().unwrap();
    assert!(is_of_several(name) && compiler.who_has("http", "routers", name).contains(&Key::domain(id(12))));
    assert_eq!(compiler.routers(&Key::domain(id(12))), [(Section::HttpRouters, "h12.test/x".into())]);
}

#[test]
fn who_needs_a_router_of_its_own_has_it() {
    for (columns, below) in [
        (json!({}), true),
        (json!({"tls_mode": "none"}), true),
        (json!({"rate_limit": {"average": 5}}), true),
        (json!({"status": "maintenance"}), true),
        (json!({"auth_required": true}), true),
        // Closed, in its place all the same.
        (json!({"access_tier": "restricted"}), true),
        // The resolver finds its name in the rule.
        (json!({"tls_mode": "acme"}), false),
        (json!({"protocol": "tcp", "tcp_entrypoint": "mqtt"}), false),
    ] {
        let compiler = compiled(rows(10, 20, &columns));
        let name = compiler.routers(&Key::domain(id(12)))[0].clone();
        let text = compiler.pieces()[&name.0][&name.1].to_string();
        // Rows that are closed for one reason have one router.
        assert_eq!(text.contains("parentRefs") || is_of_several(&name.1), below, "{columns}: {text}");
    }
    let mut changes = rows(10, 20, &json!({}));
    let strict =
        json!({"rule": "Host(`h12.test`) && Path(`/x`)", "service": "api@internal", "tls": {"options": "strict"}});
    changes.push(fragment(1, "tls.option", "strict", &json!({"minVersion": "VersionTLS13"})));
    changes.push(fragment(2, "http.router", "f", &strict));
    let routers = routers(&compiled(changes));
    assert!(parent(&routers, "h12.test").is_none(), "its TLS options depend on who names the host");
    assert!(parent(&routers, "h13.test").is_some());
}

#[test]
fn where_traefik_has_no_parents_it_is_known_that_there_would_be_some() {
    let mut compiler = tiny(false);
    compiler.apply(rows(10, 15, &json!({})));
    assert!(!compiler.would_nest(), "five are few");
    compiler.apply(rows(15, 30, &json!({})));
    assert!(compiler.would_nest() && routers(&compiler).keys().all(|name| !is_of_several(name)));
}

/// Rows of which many are alike but for their backends, and some entirely.
fn alike() -> impl Strategy<Value = Change> {
    let columns = prop::sample::select(vec![
        json!({}),
        json!({}),
        json!({"tls_mode": "none"}),
        json!({"tls_mode": "acme"}),
        json!({"path_prefix": "/x"}),
        json!({"priority": 100_003}),
        json!({"middlewares": ["gzip"]}),
        json!({"access_tier": "internal"}),
        json!({"access_tier": "restricted"}),
        json!({"status": "maintenance"}),
        json!({"protocol": "tcp", "tcp_entrypoint": "websecure", "tls_mode": "passthrough"}),
    ]);
    (20..40u128, columns, 0..40u8, any::<bool>()).prop_map(|(n, mut columns, other, is_wildcard)| {
        columns["backend_port"] = json!(if other % 3 == 0 { 80 } else { 1_000 + n });
        let host = if is_wildcard && n % 3 == 0 { "*.test".to_owned() } else { format!("h{n}.test") };
        match other {
            0..4 => (Key::domain(id(n)), None),
            // Another row may have this host.
            4 => row(n, &format!("h{}.test", n / 2), &columns),
            _ => row(n, &host, &columns),
        }
    })
}

/// Which row answers, and how.
fn answer(config: &Config, request: &Request, host: &str) -> Option<(String, Vec<Option<String>>, &'static str)> {
    let answer = matching::answer(config, request).unwrap().answer?;
    let row = row_of(&answer.router, host).unwrap_or(answer.router);
    Some((row, answer.middlewares.into_iter().map(|one| one.kind).collect(), answer.outcome.as_str()))
}

fn config(compiler: &Compiler) -> Config {
    Config::read(&Draft::new(compiler.pieces()).finish().identity()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// The same rows give the same pieces, however they came to be, and undoing a change leaves no trace.
    #[test]
    fn only_the_rows_matter(
        changes in prop::collection::vec(prop_oneof![4 => alike(), 1 => any_change()], 1..100),
        split in 0..100usize,
    ) {
        hold_to_the_rows(true, &changes, split, |_| Ok(()))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever is asked, the same row answers it in the same way as where each has a router of its own.
    #[test]
    fn no_request_is_answered_otherwise(
        changes in prop::collection::vec(prop_oneof![6 => alike(), 1 => any_change()], 10..80),
        asked in prop::collection::vec(19..41, 4),
    ) {
        let compiler = compiled(changes);
        let apart = Compiler::apart(compiler.configured(), compiler.rows().clone());
        let (nested, flat) = (config(&compiler), config(&apart));
        for n in asked {
            for (scheme, path) in [("https", "/"), ("https", "/x/y"), ("http", "/x/y")] {
                let host = format!("h{n}.test");
                let request = Request::parse(&format!("{scheme}://{host}{path}")).unwrap();
                prop_assert_eq!(answer(&nested, &request, &host), answer(&flat, &request, &host), "{} {}{}", scheme, host, path);
            }
        }
    }
}
