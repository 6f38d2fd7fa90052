//! Rows together: stories of a few, and properties of many.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Limits, Size,
    listed::{Listed, is_of_several},
};
use crate::{
    compile::{
        Coalesce, Compiler, Counts, Section, Settings, State,
        tests::{any_change, fragment, id, refused, row, seen, settings},
    },
    row::{Key, Row},
};

type Change = (Key, Option<Arc<Row>>);

/// Small enough that a few rows show all there is.
const TINY: Limits = Limits {
    few: 5,
    alike: 3,
    plain: Size { least: 2, one_in: 3, most: 6 },
    resolved: Size { least: 1, one_in: 2, most: 3 },
};

pub(in crate::compile) fn tiny(nested: bool) -> Compiler {
    let mut compiler = Compiler::new(Arc::new(Settings { coalesce: Coalesce::Auto, nested, ..settings() }));
    compiler.coalesced.limits = TINY;
    compiler.nested.limits = TINY;
    compiler
}

/// The same rows give the same pieces, however they came to be, and undoing a change leaves no trace. `end` looks at all of them.
pub(in crate::compile) fn hold_to_the_rows(
    nested: bool,
    changes: &[Change],
    split: usize,
    end: impl FnOnce(&Compiler) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut compiler = tiny(nested);
    let (first, second) = changes.split_at(split.min(changes.len()));
    for some in first.chunks(7) {
        compiler.apply(some.to_vec());
    }
    let scratch = |of: &Compiler| {
        let mut scratch = tiny(nested);
        scratch.apply(of.rows().iter().rev().map(|(key, row)| (*key, Some(Arc::clone(row)))).collect());
        scratch
    };
    let middle = scratch(&compiler);
    prop_assert_eq!(seen(&compiler), seen(&middle));
    let mut undo = compiler.apply(second.to_vec());
    let all = scratch(&compiler);
    prop_assert_eq!(seen(&compiler), seen(&all));
    prop_assert_eq!(refused(&compiler), Vec::<String>::new());
    end(&compiler)?;
    undo.reverse();
    compiler.apply(undo);
    prop_assert_eq!(seen(&compiler), seen(&middle));
    Ok(())
}

fn compiled(changes: Vec<Change>) -> Compiler {
    let mut compiler = tiny(false);
    compiler.apply(changes);
    compiler
}

/// Rows `from..to` with these columns.
fn rows(from: u128, to: u128, columns: &Value) -> Vec<Change> {
    (from..to).map(|n| row(n, &format!("h{n}.test"), columns)).collect()
}

pub(in crate::compile) fn routers(compiler: &Compiler) -> BTreeMap<String, Value> {
    let routers = compiler.pieces().get(&Section::HttpRouters).into_iter().flatten();
    routers.map(|(name, text)| (name.to_string(), serde_json::from_str(text).unwrap())).collect()
}

fn pattern(router: &Value) -> &str {
    router["rule"].as_str().unwrap().split('`').nth(1).unwrap()
}

fn router_of(compiler: &Compiler, n: u128) -> String {
    let routers = compiler.routers(&Key::domain(id(n)));
    assert_eq!(routers.len(), 1, "{routers:?}");
    routers[0].1.to_string()
}

fn is_together(compiler: &Compiler, n: u128) -> bool {
    router_of(compiler, n).starts_with("group:")
}

#[test]
fn rows_that_differ_in_their_host_share_routers_and_a_service() {
    let mut changes = rows(10, 30, &json!({}));
    changes.extend(rows(30, 32, &json!({"backend_port": 81})));
    let compiler = compiled(changes);
    let shared: Vec<_> = routers(&compiler).into_iter().filter(|(name, _)| name.starts_with("group:")).collect();
    assert!((20 / 6..10).contains(&shared.len()), "{shared:?}");
    let mut hosts: Vec<String> = Vec::new();
    for (name, router) in &shared {
        let listed = Listed::read(pattern(router)).unwrap();
        assert!(name.ends_with(&format!(":{}", listed.hosts().next().unwrap())), "{name}");
        assert!((1..=6).contains(&listed.hosts().count()));
        hosts.extend(listed.hosts());
        assert_eq!((&router["priority"], &router["tls"]), (&json!(200_001), &json!({})));
        assert_eq!(compiler.who_has("http", "routers", name).len(), listed.hosts().count());
    }
    assert_eq!(hosts, (10..30).map(|n| format!("h{n}.test")).collect::<Vec<_>>());
    let services = &compiler.pieces()[&Section::HttpServices];
    assert_eq!(services.len(), 3, "one for all that share, and two of their own");
    assert_eq!(compiler.who_has("http", "services", shared[0].1["service"].as_str().unwrap()).len(), 20);
    assert_eq!((router_of(&compiler, 30), is_together(&compiler, 12)), ("h30.test".to_owned(), true));
    assert_eq!(compiler.counts().routers, 22);
    assert_eq!(refused(&compiler), Vec::<String>::new());
}

#[test]
fn what_is_not_the_same_for_several_stays_alone() {
    let list = json!({"access_tier": "restricted", "ip_allowlist": ["192.0.2.0/24"]});
    for (columns, together) in [
        (json!({}), true),
        (list, true),
        (json!({"auth_required": true}), true),
        (json!({"access_tier": "restricted"}), true),
        (json!({"path_prefix": "/x"}), true),
        (json!({"middlewares": ["gzip", "authelia"]}), true),
        (json!({"tls_mode": "acme"}), true),
        (
            json!({"service_type": "redirect", "redirect_to": "https://n.test", "backend_host": null, "backend_port": null}),
            true,
        ),
        (json!({"rate_limit": {"average": 5}}), false),
        (json!({"middlewares": ["limit"]}), false),
        (json!({"middlewares": ["outer"]}), false),
        (json!({"middlewares": ["x@file"]}), false),
        (json!({"status": "maintenance"}), false),
    ] {
        let mut changes = rows(10, 20, &columns);
        changes.extend([
            fragment(1, "http.middleware", "gzip", &json!({"compress": {}})),
            fragment(2, "http.middleware", "limit", &json!({"rateLimit": {"average": 5}})),
            fragment(3, "http.middleware", "outer", &json!({"chain": {"middlewares": ["gzip", "limit"]}})),
        ]);
        let compiler = compiled(changes);
        assert_eq!(is_together(&compiler, 15), together, "{columns}");
        assert_eq!(refused(&compiler), Vec::<String>::new());
    }
}

#[test]
fn the_middlewares_of_a_shape_are_those_of_its_rows() {
    let list = json!({"access_tier": "restricted", "ip_allowlist": ["192.0.2.0/24"], "auth_required": true});
    let compiler = compiled(rows(10, 20, &list));
    let (name, router) = routers(&compiler).pop_first().unwrap();
    let shape = name.rsplit_once(':').unwrap().0;
    assert_eq!(router["middlewares"], json!([format!("{shape}-allow"), "authelia"]));
    assert_eq!(compiler.who_has("http", "middlewares", &format!("{shape}-allow")).len(), 10);
    assert_eq!(compiler.pieces()[&Section::HttpMiddlewares].len(), 2);
}

#[test]
fn a_closed_row_is_named_and_closes_nobody_else() {
    let mut compiler = compiled(rows(10, 30, &json!({})));
    compiler.apply(vec![row(15, "h15.test", &json!({"access_tier": "restricted"}))]);
    let State::Closed { reason } = &compiler.route(&Key::domain(id(15))).unwrap().state else { panic!("it is open") };
    assert!(reason.contains("ip_allowlist") && compiler.counts().quarantined == 1, "{reason}");
    assert!(!is_together(&compiler, 15) && is_together(&compiler, 14));
    // Many that are closed for one reason are closed together, and each is named.
    compiler.apply(rows(15, 20, &json!({"access_tier": "restricted"})));
    assert_eq!((compiler.counts().quarantined, compiler.closed().count()), (5, 5));
    let name = router_of(&compiler, 16);
    let router = routers(&compiler).into_iter().find(|(other, _)| *other == name).unwrap().1;
    assert_eq!((is_together(&compiler, 16), &router["middlewares"]), (true, &Value::Null));
    let service = &compiler.pieces()[&Section::HttpServices][router["service"].as_str().unwrap()];
    assert_eq!(**service, *r#"{"loadBalancer":{"servers":[]}}"#);
}

#[test]
fn a_row_whose_service_a_fragment_names_has_one_of_its_own() {
    let mut compiler = compiled(rows(10, 20, &json!({})));
    let uses = json!({"rule": "Host(`f.test`)", "service": "h15.test"});
    compiler.apply(vec![fragment(1, "http.router", "uses", &uses)]);
    assert!(!is_together(&compiler, 15) && is_together(&compiler, 16));
    assert_eq!(refused(&compiler), Vec::<String>::new());
    compiler.apply(vec![(Key::fragment(id(1)), None)]);
    assert!(is_together(&compiler, 15));
}

#[test]
fn a_row_whose_connections_another_router_could_take_keeps_its_host_rule() {
    let option = fragment(9, "tls.option", "strict", &json!({"minVersion": "VersionTLS13"}));
    let mtls =
        json!({"rule": "Host(`H12.test`) && Path(`/x`)", "service": "api@internal", "tls": {"options": "strict"}});
    let by_name = json!({"rule": "HostSNI(`h12.test`)", "service": "m", "tls": {"passthrough": true}});
    let by_all = json!({"rule": "HostSNIRegexp(`^.+$`)", "service": "m", "tls": {"passthrough": true}});
    let service = fragment(8, "tcp.service", "m", &json!({"loadBalancer": {"servers": [{"address": "127.0.0.1:1"}]}}));
    let tcp =
        |domain| row(99, domain, &json!({"protocol": "tcp", "tcp_entrypoint": "websecure", "tls_mode": "passthrough"}));
    let open = Settings { entry_points: None, coalesce: Coalesce::Auto, ..settings() };
    for (change, others) in [
        (fragment(1, "http.router", "f", &mtls), true),
        (fragment(1, "tcp.router", "f", &by_name), true),
        (fragment(1, "tcp.router", "f", &by_all), false),
        (tcp("h12.test"), true),
        (tcp("*.test"), false),
    ] {
        let mut compiler = Compiler::new(Arc::new(open.clone()));
        compiler.coalesced.limits = TINY;
        compiler.apply(rows(10, 20, &json!({})).into_iter().chain([option.clone(), service.clone()]).collect());
        let before = compiler.pieces().clone();
        let undo = compiler.apply(vec![change]);
        assert_eq!((is_together(&compiler, 12), is_together(&compiler, 13)), (false, others), "{undo:?}");
        compiler.apply(undo);
        assert_eq!(compiler.pieces(), &before);
    }
}

#[test]
fn a_resolver_is_asked_for_every_name_and_for_few_by_one_router() {
    let compiler = compiled(rows(10, 30, &json!({"tls_mode": "acme"})));
    let mut names = BTreeSet::new();
    for (_, router) in routers(&compiler) {
        let domains = router["tls"]["domains"].as_array().unwrap();
        assert!((1..=3).contains(&domains.len()), "{router}");
        names.extend(domains.iter().map(|one| one["main"].as_str().unwrap().to_owned()));
    }
    assert_eq!(names, (10..30).map(|n| format!("h{n}.test")).collect());
}

#[test]
fn a_change_leaves_all_other_groups_as_they_are() {
    let mut compiler = compiled(rows(100, 400, &json!({})));
    let mut more = 0;
    for n in (100..400).step_by(7) {
        let before: BTreeSet<_> =
            routers(&compiler).into_iter().map(|(name, router)| (name, router.to_string())).collect();
        compiler.apply(vec![(Key::domain(id(n)), None)]);
        let after: BTreeSet<_> =
            routers(&compiler).into_iter().map(|(name, router)| (name, router.to_string())).collect();
        let fresh = after.difference(&before).count();
        more += usize::from(fresh > 2);
    }
    assert!(more < 10, "{more} of 43 changes made more than two groups again");
}

#[test]
fn few_places_have_a_router_each_and_a_group_empties() {
    let mut compiler = compiled(rows(10, 15, &json!({})));
    assert!(!is_together(&compiler, 12), "five are few");
    compiler.apply(rows(15, 16, &json!({})));
    assert!(is_together(&compiler, 12));
    compiler.apply(
        (10..14).map(|n| (Key::domain(id(n)), None)).chain(rows(20, 26, &json!({"backend_port": 81}))).collect(),
    );
    assert!(!is_together(&compiler, 14) && is_together(&compiler, 21), "two are not many");
    compiler.apply((14..26).map(|n| (Key::domain(id(n)), None)).collect());
    assert_eq!(compiler.pieces().get(&Section::HttpRouters), None);
    assert_eq!(compiler.counts().routers, 0);
}

/// Rows of which many are alike, so that they come together and apart.
fn alike() -> impl Strategy<Value = Change> {
    let columns = prop::sample::select(vec![
        json!({}),
        json!({}),
        json!({"tls_mode": "acme"}),
        json!({"path_prefix": "/x"}),
        json!({"middlewares": ["gzip"]}),
        json!({"access_tier": "internal", "ip_allowlist": ["10.44.7.0/24"]}),
        json!({"status": "maintenance"}),
        json!({"protocol": "tcp", "tcp_entrypoint": "websecure", "tls_mode": "passthrough"}),
    ]);
    (20..50u128, columns, 0..40u8, any::<bool>()).prop_map(|(n, columns, other, wildcard)| match other {
        0..8 => (Key::domain(id(n)), None),
        // Another row may have this host.
        8 => row(n, &format!("h{}.test", n / 2), &columns),
        _ => row(n, &format!("{}h{n}.test", if wildcard && n % 3 == 0 { "*." } else { "" }), &columns),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// The same rows give the same pieces, however they came to be; undoing a change leaves no trace; each row that is served
    /// has its place, and no place is another's.
    #[test]
    fn only_the_rows_matter(
        changes in prop::collection::vec(prop_oneof![4 => alike(), 1 => any_change()], 1..120),
        split in 0..120usize,
    ) {
        hold_to_the_rows(false, &changes, split, |compiler| {
            let apart = Compiler::apart(compiler.configured(), compiler.rows().clone());
            prop_assert_eq!(apart.counts(), &Counts { resolved: 0, ..compiler.counts().clone() });
            for (key, route) in apart.routes() {
                let together = compiler.route(key).unwrap();
                prop_assert_eq!((&route.state, &route.warnings), (&together.state, &together.warnings), "{:?}", key);
                prop_assert_eq!(route.routers.len(), compiler.routers(key).len(), "{:?}", key);
                for (section, name) in compiler.routers(key) {
                    let behind = compiler.behind(section, &name);
                    prop_assert!(!is_of_several(&name) || behind.contains(key), "{} of {:?}", name, behind);
                    prop_assert!(compiler.pieces()[&section].contains_key(&name), "{}", name);
                }
            }
            Ok(())
        })?;
    }
}
