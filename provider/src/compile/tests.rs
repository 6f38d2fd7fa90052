//! Stories over several rows, and properties of all of them.

use std::sync::Arc;

use charliehub_proto::{
    domain::{DnsMode, Domain},
    traefik::{self, Kind},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::row::BadRow;

/// A valid row: a proxy to `127.0.0.1:80` behind TLS, for everybody.
pub(super) fn domain(name: &str) -> Domain {
    domain_with(name, &json!({}))
}

/// [`domain`] with some columns as given. The id is made of the name and path.
pub(crate) fn domain_with(name: &str, columns: &Value) -> Domain {
    let mut row = json!({
        "id": Uuid::nil(), "domain": name, "path_prefix": "/", "protocol": "http", "service_type": "proxy",
        "environment": "production", "status": "active", "access_tier": "public", "tls_mode": "default",
        "cert_resolver": null, "backend_scheme": null, "backend_host": "127.0.0.1", "backend_port": 80, "backends": [],
        "tcp_entrypoint": null, "auth_required": false, "ip_allowlist": [], "middlewares": [], "service_ref": null,
        "redirect_to": null, "redirect_permanent": false, "redirect_keep_path": false, "maintenance_message": null,
        "rate_limit": null, "health_check": null, "sticky": null, "priority": null, "dns_mode": "external",
        "site": null, "owner": null, "notes": null, "labels": {}, "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z", "version": 1,
    });
    row.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
    serde_json::from_value(row).unwrap()
}

pub(super) fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// A change that sets row `n`.
pub(super) fn row(n: u128, name: &str, columns: &Value) -> (Key, Option<Arc<Row>>) {
    let mut row = domain_with(name, columns);
    row.id = id(n);
    (Key::domain(row.id), Some(Arc::new(Row::Domain(row))))
}

fn bad(n: u128, raw: Value) -> (Key, Option<Arc<Row>>) {
    (Key::domain(id(n)), Some(Arc::new(Row::Bad(BadRow { raw, reason: "access_tier: `open` is unknown".to_owned() }))))
}

pub(super) fn fragment(n: u128, kind: &str, name: &str, body: &Value) -> (Key, Option<Arc<Row>>) {
    let fragment = json!({
        "id": id(n), "kind": kind, "name": name, "body": body, "enabled": true, "notes": null,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "version": 1,
    });
    (Key::fragment(id(n)), Some(Arc::new(Row::Fragment(serde_json::from_value(fragment).unwrap()))))
}

fn site(n: u128, networks: &[&str]) -> (Key, Option<Arc<Row>>) {
    let site = json!({
        "id": id(n), "name": format!("s{n}"), "networks": networks, "tunnels": [], "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z", "version": 1,
    });
    let key = Key { table: Table::Sites, id: id(n) };
    (key, Some(Arc::new(Row::Site(serde_json::from_value(site).unwrap()))))
}

pub(super) fn settings() -> Settings {
    Settings {
        entry_points: Some(["web", "websecure", "mqtt"].map(str::to_owned).into()),
        cert_resolvers: Some(["le".to_owned()].into()),
        self_url: Some("http://127.0.0.1:8001".to_owned()),
        forward_auth: Some(ForwardAuth {
            address: "http://127.0.0.1:9091/api".to_owned(),
            auth_response_headers: vec!["Remote-User".to_owned()],
        }),
        internal_networks: vec!["10.44.0.0/16".parse().unwrap(), "10.35.0.0/16".parse().unwrap()],
        default_certificate: Some(("/c.pem".to_owned(), "/k.pem".to_owned())),
        ..Settings::default()
    }
}

fn compiled(changes: Vec<(Key, Option<Arc<Row>>)>) -> Compiler {
    compiled_with(settings(), changes)
}

fn compiled_with(settings: Settings, changes: Vec<(Key, Option<Arc<Row>>)>) -> Compiler {
    let mut compiler = Compiler::new(Arc::new(settings));
    compiler.apply(changes);
    compiler
}

impl Compiler {
    /// One object of the configuration; `null` where there is none.
    fn get(&self, section: Section, name: &str) -> Value {
        let text = self.pieces.get(&section).and_then(|inner| inner.get(name));
        text.map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
    }

    fn reason(&self, key: Key) -> &str {
        match &self.route(&key).unwrap().state {
            State::Closed { reason } => reason,
            State::Live | State::Maintenance | State::Off => "",
        }
    }

    fn domain_reason(&self, n: u128) -> &str {
        self.reason(Key::domain(id(n)))
    }

    /// True when the http router is there, and leads to nothing.
    fn is_closed(&self, name: &str) -> bool {
        let router = self.get(Section::HttpRouters, name);
        let service = router["service"].as_str().unwrap_or_default();
        router["middlewares"].is_null()
            && self.get(Section::HttpServices, service) == json!({"loadBalancer": {"servers": []}})
    }
}

/// What Traefik would refuse in all that was compiled: each piece, and each name that leads nowhere.
pub(super) fn refused(compiler: &Compiler) -> Vec<String> {
    let mut refused = Vec::new();
    for (section, inner) in &compiler.pieces {
        assert!(!inner.is_empty(), "{section:?} is an empty map");
        for (name, text) in inner {
            // The model takes no list without servers for one; Traefik 3.7 does.
            if **text == *service::CLOSED {
                continue;
            }
            let kind = Kind::ALL.iter().find(|kind| Section::from(**kind) == *section).unwrap();
            match traefik::piece(*kind, &serde_json::from_str(text).unwrap()) {
                Ok(piece) => refused.extend(piece.references().into_iter().filter_map(|reference| {
                    let bare = router::own_name(&reference.name)?;
                    let there =
                        compiler.pieces.get(&reference.kind.into()).is_some_and(|inner| inner.contains_key(bare));
                    (!there).then(|| format!("{section:?} {name}: {} leads nowhere", reference.path))
                })),
                Err(invalid) => refused.push(format!("{section:?} {name}: {invalid} in {text}")),
            }
        }
    }
    refused
}

#[test]
fn a_row_of_each_kind_compiles_to_what_traefik_takes() {
    let mut changes: Vec<_> = [
        ("plain.test", json!({"tls_mode": "none"})),
        (
            "auth.test",
            json!({"auth_required": true, "rate_limit": {"average": 5, "burst": 9, "period": "1m"},
            "access_tier": "restricted", "ip_allowlist": ["192.0.2.0/24"], "middlewares": ["gzip", "x@file"]}),
        ),
        ("auth.test", json!({"path_prefix": "/a@b"})),
        ("internal.test", json!({"access_tier": "internal"})),
        ("*.acme.test", json!({"tls_mode": "acme"})),
        (
            "redirect.test",
            json!({"service_type": "redirect", "backend_host": null, "backend_port": null,
            "redirect_to": "https://new.test/", "redirect_keep_path": true, "redirect_permanent": true}),
        ),
        (
            "reference.test",
            json!({"service_type": "reference", "backend_host": null, "backend_port": null,
            "service_ref": "api@internal"}),
        ),
        ("maintenance.test", json!({"status": "maintenance", "access_tier": "internal", "auth_required": true})),
        (
            "weights.test",
            json!({"backend_host": null, "backend_port": null, "sticky": {"cookie": "c", "same_site": "lax"},
            "health_check": {"path": "/h", "interval": "5s"},
            "backends": [{"host": "::1", "port": 1, "weight": 3}, {"host": "b", "port": 2, "scheme": "h2c"}]}),
        ),
        (
            "equal.test",
            json!({"backend_host": null, "backend_port": null,
            "backends": [{"host": "a", "port": 1, "scheme": "https"}, {"host": "b", "port": 2}]}),
        ),
        (
            "mqtt.test",
            json!({"protocol": "tcp", "tcp_entrypoint": "mqtt", "tls_mode": "acme", "access_tier": "internal"}),
        ),
        (
            "*.pass.test",
            json!({"protocol": "tcp", "tcp_entrypoint": "mqtt", "tls_mode": "passthrough",
            "access_tier": "restricted", "ip_allowlist": ["192.0.2.1/32"]}),
        ),
        ("all.test", json!({"protocol": "tcp", "tcp_entrypoint": "mqtt", "tls_mode": "none"})),
        ("off.test", json!({"status": "disabled"})),
    ]
    .iter()
    .zip(1..)
    .map(|((name, columns), n)| row(n, name, columns))
    .collect();
    changes.push(fragment(99, "http.middleware", "gzip", &json!({"compress": {}})));
    let compiler = compiled(changes);
    for (key, route) in compiler.routes() {
        assert!(matches!(route.state, State::Live | State::Maintenance | State::Off), "{key:?}: {:?}", route.state);
        assert_eq!(route.warnings, Vec::<String>::new(), "{key:?}");
    }
    assert_eq!(refused(&compiler), Vec::<String>::new());
    let expected = json!({"entryPoints": ["websecure"], "priority": 200_001, "rule": "Host(`auth.test`)",
        "middlewares": ["auth.test-allow", "auth.test-ratelimit", "authelia", "gzip", "x@file"],
        "service": "auth.test", "tls": {}});
    assert_eq!(compiler.get(Section::HttpRouters, "auth.test"), expected);
    assert_eq!(
        compiler.get(Section::HttpRouters, "*.acme.test")["tls"],
        json!({"certResolver": "le", "domains": [{"main": "*.acme.test"}]})
    );
    assert_eq!(
        compiler.get(Section::HttpRouters, "maintenance.test")["middlewares"],
        json!(["charliehub-internal", "maintenance.test-maintenance"])
    );
    assert_eq!(
        compiler.get(Section::HttpServices, "weights.test"),
        json!({"weighted": {"healthCheck": {},
        "services": [{"name": "weights.test[1]", "weight": 3}, {"name": "weights.test[2]", "weight": 1}],
        "sticky": {"cookie": {"name": "c", "sameSite": "lax"}}}})
    );
    assert_eq!(
        compiler.get(Section::HttpServices, "weights.test[1]")["loadBalancer"]["servers"],
        json!([{"url": "http://[::1]:1"}])
    );
    assert_eq!(
        compiler.get(Section::HttpMiddlewares, "redirect.test-redirect"),
        json!({"redirectRegex": {
        "permanent": true, "regex": "^[^:]*://[^/?]*(.*)$", "replacement": "https://new.test${1}"}})
    );
    assert_eq!(
        compiler.get(Section::TcpRouters, "*.pass.test-mqtt"),
        json!({"entryPoints": ["mqtt"],
        "middlewares": ["*.pass.test-mqtt-allow"], "priority": 100_001, "service": "*.pass.test-mqtt",
        "rule": r"HostSNIRegexp(`^[^.]+\.pass\.test\.?$`)", "tls": {"passthrough": true}})
    );
    assert_eq!(compiler.get(Section::TcpRouters, "all.test-mqtt")["rule"], "HostSNI(`*`)");
    assert_eq!(
        compiler.get(Section::TlsStores, "default"),
        json!({"defaultCertificate": {"certFile": "/c.pem", "keyFile": "/k.pem"}})
    );
    assert_eq!(compiler.counts.routers, 13);
}

#[test]
fn what_is_wrong_closes_its_place_and_says_why() {
    for (columns, reason) in [
        (json!({"access_tier": "restricted"}), "ip_allowlist: is empty"),
        (json!({"ip_allowlist": ["10.0.0.0/8"]}), "ip_allowlist: is not empty"),
        (json!({"tls_mode": "passthrough"}), "tls_mode: passthrough is for tcp"),
        (json!({"tls_mode": "none", "auth_required": true}), "auth_required: needs"),
        (json!({"tls_mode": "acme", "cert_resolver": "nope"}), "cert_resolver: `nope`"),
        (json!({"cert_resolver": "le"}), "cert_resolver: is only"),
        (json!({"priority": 0}), "priority: not from"),
        (json!({"backend_port": null}), "backend_host: goes together"),
        (json!({"backend_port": 0}), "backend: the port"),
        (json!({"backend_host": "a b"}), "backend: the host"),
        (json!({"backend_scheme": "ftp"}), "backend: the scheme"),
        (json!({"backends": [{"host": "a", "port": 1}]}), "backends: not together"),
        (json!({"middlewares": ["nope"]}), "middlewares: there is no fragment http.middleware/nope"),
        (json!({"middlewares": ["nope@http"]}), "middlewares: there is no fragment http.middleware/nope"),
        (json!({"middlewares": ["a`b"]}), "middlewares: has what is not a name"),
        (json!({"service_type": "reference"}), "service_ref: goes together"),
        (json!({"service_type": "redirect"}), "redirect_to: goes together"),
        (json!({"redirect_to": "https://a.org"}), "redirect_to: goes together"),
        (json!({"rate_limit": {"average": 0}}), "rate_limit: average"),
        (json!({"rate_limit": {"average": 1, "period": "1 m"}}), "rate_limit: period"),
        (json!({"health_check": {"path": "/a b"}}), "health_check: path"),
        (json!({"health_check": {"path": "/", "interval": "5"}}), "health_check: interval"),
        (json!({"sticky": {"cookie": "a;b"}}), "sticky: cookie"),
    ] {
        let compiler = compiled(vec![row(1, "a.test", &columns), row(2, "b.test", &json!({}))]);
        assert!(compiler.domain_reason(1).starts_with(reason), "{columns}: {}", compiler.domain_reason(1));
        assert!(compiler.is_closed("a.test"), "{columns}");
        assert_eq!(refused(&compiler), Vec::<String>::new(), "{columns}");
        assert_eq!((compiler.domain_reason(2), compiler.counts.quarantined), ("", 1));
    }
    let nobody = compiled_with(Settings::default(), vec![row(1, "a.test", &json!({"auth_required": true}))]);
    assert!(nobody.is_closed("a.test") && nobody.domain_reason(1).contains("[access] forward_auth"));
}

#[test]
fn a_path_that_cannot_be_written_closes_its_host_and_no_other() {
    let mut compiler = compiled(vec![
        row(1, "a.test", &json!({"priority": 1_000_000})),
        row(2, "a.test", &json!({"path_prefix": "/ad`min"})),
        row(3, "x.a.test", &json!({})),
        row(4, "*.a.test", &json!({"path_prefix": "/x/../y"})),
        row(5, "*.a.test", &json!({"path_prefix": "/fine"})),
    ]);
    let all = format!("a.test[{}]", id(2));
    assert_eq!(compiler.route(&Key::domain(id(2))).unwrap().routers.len(), 2);
    assert_eq!(compiler.get(Section::HttpRouters, &all)["rule"], "Host(`a.test`)");
    assert_eq!(compiler.get(Section::HttpRouters, &format!("{all}[web]"))["tls"], Value::Null);
    assert!(compiler.is_closed("a.test") && compiler.is_closed(&all) && compiler.is_closed("*.a.test/fine"));
    assert_eq!(compiler.domain_reason(3), "");
    let priority = |name: &str| compiler.get(Section::HttpRouters, name)["priority"].as_u64().unwrap();
    assert!(priority(&all) > priority("a.test"));
    let wildcard = priority(&format!("*.a.test[{}]", id(4)));
    assert!(wildcard > priority("*.a.test/fine") && wildcard < priority("x.a.test"));
    assert_eq!(refused(&compiler), Vec::<String>::new());

    compiler.apply(vec![row(2, "a.test", &json!({"path_prefix": "/admin"}))]);
    assert_eq!((compiler.domain_reason(1), compiler.domain_reason(2)), ("", ""));
}

#[test]
fn a_name_that_no_rule_can_hold_affects_nobody() {
    let compiler = compiled(vec![row(1, "a`) || Host(`b.test", &json!({})), row(2, "b.test", &json!({}))]);
    assert_eq!(compiler.route(&Key::domain(id(1))).unwrap().routers, vec![]);
    assert!(compiler.domain_reason(1).starts_with("domain:"));
    assert_eq!((compiler.domain_reason(2), compiler.counts.routers), ("", 1));
}

#[test]
fn two_rows_of_one_place_are_closed_both() {
    let mut compiler = compiled(vec![
        row(1, "a.test", &json!({"path_prefix": "/admin"})),
        row(2, "a.test", &json!({"path_prefix": "/%61dmin", "tls_mode": "none"})),
        row(3, "a.test", &json!({})),
        row(4, "p.test", &json!({"protocol": "tcp", "tcp_entrypoint": "mqtt", "tls_mode": "none"})),
        row(5, "q.test", &json!({"protocol": "tcp", "tcp_entrypoint": "mqtt", "tls_mode": "none"})),
    ]);
    assert!(compiler.is_closed(&format!("a.test/admin[{}]", id(1))));
    assert!(compiler.is_closed(&format!("a.test/admin[{}]", id(2))));
    assert!(compiler.domain_reason(1).contains(&id(2).to_string()));
    assert_eq!(compiler.domain_reason(3), "");
    assert!(compiler.domain_reason(4).starts_with("tls_mode: none, as in row"), "{}", compiler.domain_reason(4));
    compiler.apply(vec![(Key::domain(id(2)), None), (Key::domain(id(5)), None)]);
    assert_eq!((compiler.domain_reason(1), compiler.domain_reason(4), compiler.counts.quarantined), ("", "", 0));
    assert!(compiler.pieces[&Section::HttpRouters].contains_key("a.test/admin"));
}

#[test]
fn a_row_that_does_not_decode_holds_its_place() {
    let compiler = compiled(vec![
        bad(1, json!({"domain": "a.test", "path_prefix": "/admin", "tls_mode": "none", "priority": 7})),
        bad(2, json!({"domain": "b.test", "path_prefix": "/", "tls_mode": "quantum"})),
        bad(3, json!({"domain": "c.test"})),
        bad(4, json!({"domain": "d.test", "path_prefix": "/", "status": "draft"})),
        bad(5, Value::Null),
        bad(
            6,
            json!({"domain": "t.test", "path_prefix": "/", "protocol": "quic", "tcp_entrypoint": "mqtt", "tls_mode": "passthrough"}),
        ),
        row(7, "c.test", &json!({})),
    ]);
    assert_eq!(compiler.get(Section::HttpRouters, "a.test/admin")["priority"], 7);
    assert!(compiler.is_closed("a.test/admin") && compiler.is_closed("b.test") && compiler.is_closed("b.test[web]"));
    assert!(compiler.is_closed(&format!("c.test[{}]", id(3))) && compiler.is_closed("c.test"));
    assert_eq!(compiler.route(&Key::domain(id(4))).unwrap().state, State::Off);
    assert_eq!(compiler.get(Section::TcpRouters, "t.test-mqtt")["tls"], json!({"passthrough": true}));
    assert_eq!(compiler.get(Section::TcpServices, "t.test-mqtt"), json!({"loadBalancer": {"servers": []}}));
    assert_eq!(compiler.counts.quarantined, 6);
    assert_eq!(refused(&compiler), Vec::<String>::new());
}

#[test]
fn a_router_on_an_entry_point_that_traefik_lacks_is_left_out_and_named() {
    let settings = Settings { entry_points: Some(["web".to_owned()].into()), ..settings() };
    let tcp = json!({"protocol": "tcp", "tcp_entrypoint": "mqtt"});
    let compiler = compiled_with(settings, vec![row(1, "a.test", &json!({})), row(2, "b.test", &tcp)]);
    assert!(compiler.domain_reason(1).contains("`websecure`") && compiler.domain_reason(2).contains("`mqtt`"));
    assert_eq!((compiler.counts.routers, compiler.counts.quarantined), (0, 2));
}

#[test]
fn acme_without_a_resolver_is_live_with_a_warning() {
    let compiler = compiled_with(Settings::default(), vec![row(1, "a.test", &json!({"tls_mode": "acme"}))]);
    let route = compiler.route(&Key::domain(id(1))).unwrap();
    assert!(route.state == State::Live && route.warnings[0].contains("default_resolver"));
    assert_eq!(compiler.get(Section::HttpRouters, "a.test")["tls"], json!({}));
}

#[test]
fn a_very_long_path_gets_a_name_that_traefik_can_read() {
    let path = format!("/{}", "x".repeat(1000));
    let compiler = compiled(vec![row(1, "a.test", &json!({"path_prefix": path}))]);
    let (_, name) = &compiler.route(&Key::domain(id(1))).unwrap().routers[0];
    assert!(name.len() < 930 && name.starts_with("a.test/xxx"), "{name}");
    assert_eq!(compiler.domain_reason(1), "");
}

#[test]
fn what_a_row_names_comes_and_goes() {
    let gzip = || fragment(9, "http.middleware", "gzip", &json!({"compress": {}}));
    let broken = fragment(9, "http.middleware", "gzip", &json!({"compres": {}}));
    let mut compiler = compiled(vec![row(1, "a.test", &json!({"middlewares": ["gzip"]})), gzip()]);
    assert_eq!(compiler.domain_reason(1), "");
    for gone in [broken, (Key::fragment(id(9)), None)] {
        compiler.apply(vec![gone]);
        assert!(compiler.is_closed("a.test"));
        compiler.apply(vec![gzip()]);
        assert_eq!(compiler.domain_reason(1), "");
    }
}

#[test]
fn fragments_are_judged_together() {
    let chain = |names: &[&str]| json!({"chain": {"middlewares": names}});
    let router = |service: &str, middlewares: &[&str]| json!({"rule": "Host(`f.test`)", "entryPoints": ["web"], "service": service, "middlewares": middlewares});
    let mut compiler = compiled(vec![
        row(1, "a.test", &json!({})),
        fragment(1, "http.middleware", "outer", &chain(&["inner"])),
        fragment(2, "http.middleware", "inner", &json!({"compress": {}})),
        fragment(3, "http.middleware", "circle", &chain(&["round"])),
        fragment(4, "http.middleware", "round", &chain(&["circle"])),
        fragment(5, "http.router", "uses", &router("a.test", &["outer", "authelia", "x@file"])),
        fragment(6, "http.router", "misses", &router("nope", &["outer"])),
        fragment(7, "http.router", "a.test", &router("a.test", &[])),
        fragment(8, "http.middleware", "a.test-allow", &json!({"compress": {}})),
        fragment(9, "http.middleware", "authelia", &json!({"compress": {}})),
        fragment(10, "http.middleware", "charliehub-x", &json!({"compress": {}})),
        fragment(11, "http.service", "bad", &json!({"loadBalancer": {"server": []}})),
        fragment(12, "tls.certificate", "cert", &json!({"certFile": "/a", "keyFile": "/b"})),
        fragment(13, "http.routers", "x", &json!({})),
    ]);
    let reason = |n| compiler.reason(Key::fragment(id(n)));
    for (n, part) in [
        (1, ""),
        (2, ""),
        (3, "`round`"),
        (4, "`circle`"),
        (5, ""),
        (6, "body.service: there is no `nope`"),
        (7, &*id(1).to_string()),
        (8, &id(1).to_string()),
        (9, "forward_auth"),
        (10, "charliehub-"),
        (11, "body.loadBalancer.server"),
        (12, ""),
        (13, "kind:"),
    ] {
        assert!(reason(n).contains(part) && reason(n).is_empty() == part.is_empty(), "{n}: {}", reason(n));
    }
    assert_eq!(compiler.get(Section::HttpRouters, "misses")["service"], "charliehub-closed");
    assert_eq!(compiler.get(Section::HttpRouters, "a.test")["priority"], 200_001);
    assert_eq!(refused(&compiler), Vec::<String>::new());

    compiler.apply(vec![(Key::fragment(id(2)), None)]);
    assert!(compiler.is_closed("uses"), "its middleware's middleware is gone");
    compiler.apply(vec![(Key::domain(id(1)), None)]);
    assert_eq!(compiler.reason(Key::fragment(id(8))), "", "the name is free");
}

#[test]
fn the_default_certificate_of_the_settings_wins() {
    let store =
        fragment(1, "tls.store", "default", &json!({"defaultCertificate": {"certFile": "/f", "keyFile": "/g"}}));
    assert_eq!(
        compiled(vec![store.clone()]).get(Section::TlsStores, "default")["defaultCertificate"]["certFile"],
        "/c.pem"
    );
    let without = Settings { default_certificate: None, ..settings() };
    let mut compiler = compiled_with(without, vec![store]);
    assert_eq!(compiler.get(Section::TlsStores, "default")["defaultCertificate"]["certFile"], "/f");
    compiler.apply(vec![(Key::fragment(id(1)), None)]);
    assert!(compiler.pieces.is_empty());
}

/// Odd and plain values of each column that can reach a rule, in rows that often meet on a host.
pub(super) fn any_change() -> impl Strategy<Value = (Key, Option<Arc<Row>>)> {
    let name = prop::sample::select(vec!["a.test", "*.test", "A.test", "a`.test", "b.test"]);
    let path =
        prop::sample::select(vec!["/", "/x", "/%78", "/x`) || Host(`z", "/x/y", "/x!", "//", "/%60\"", "/\u{202e}"]);
    let tier =
        prop::sample::select(vec![json!({}), json!({"access_tier": "internal"}), json!({"access_tier": "restricted"})]);
    let more = prop::sample::select(vec![
        json!({}),
        json!({"middlewares": ["gzip"]}),
        json!({"middlewares": ["`"]}),
        json!({"status": "draft"}),
        json!({"status": "maintenance"}),
        json!({"tls_mode": "none"}),
        json!({"protocol": "tcp", "tcp_entrypoint": "mqtt"}),
        json!({"protocol": "tcp", "tcp_entrypoint": "mqtt", "tls_mode": "none"}),
        json!({"service_type": "redirect", "redirect_to": "https://`"}),
        json!({"service_type": "redirect", "redirect_to": "https://n.test", "backend_host": null, "backend_port": null}),
        json!({"service_type": "reference", "service_ref": "svc", "backend_host": null, "backend_port": null}),
        json!({"auth_required": true}),
        json!({"priority": 500_000}),
        json!({"backend_host": "`"}),
    ]);
    let domains = (1..9u128, name, path, tier, more, 0..12u8).prop_map(|(n, name, path, mut columns, more, odd)| {
        columns.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        columns["path_prefix"] = json!(path);
        match odd {
            0 => (Key::domain(id(n)), None),
            1 => {
                columns["domain"] = json!(name);
                bad(n, columns)
            }
            _ => row(n, name, &columns),
        }
    });
    let fragments = (1..5u128, 0..7u8).prop_map(|(n, what)| match what {
        0 => (Key::fragment(id(n)), None),
        1 => fragment(n, "http.middleware", "gzip", &json!({"compress": {}})),
        2 => fragment(n, "http.middleware", "gzip", &json!({"chain": {"middlewares": ["b.test-allow"]}})),
        3 => fragment(n, "http.middleware", "b.test-allow", &json!({"compress": {}})),
        4 => fragment(n, "http.service", "svc", &json!({"weighted": {"services": [{"name": "a.test"}]}})),
        5 => fragment(
            n,
            "http.router",
            "r",
            &json!({"rule": "Host(`r`)", "service": "a.test/x", "middlewares": ["gzip"]}),
        ),
        _ => fragment(n, "tls.store", "default", &json!({"defaultCertificate": {"certFile": "/f", "keyFile": "/g"}})),
    });
    let sites = (1..4u128, 0..4u8).prop_map(|(n, what)| match what {
        0 => (site(n, &[]).0, None),
        1 => site(n, &["10.44.7.0/24"]),
        2 => site(n, &["10.60.0.0/16", "fd00::/64"]),
        _ => site(n, &["10.61.0.0/16"]),
    });
    prop_oneof![6 => domains, 2 => fragments, 1 => sites]
}

/// All that can be seen of a compiler.
pub(super) fn seen(compiler: &Compiler) -> (&Pieces, &Counts, Vec<(&Key, &Route)>) {
    (&compiler.pieces, &compiler.counts, compiler.routes().collect())
}

#[test]
fn the_networks_of_sites_are_internal_beside_those_that_are_configured() {
    let internal = json!({"access_tier": "internal"});
    let narrowed = json!({"access_tier": "internal", "ip_allowlist": ["10.35.7.0/24"]});
    let none = Settings { internal_networks: Vec::new(), ..settings() };
    let rows = vec![row(1, "a.org", &internal), row(2, "b.org", &narrowed), row(3, "c.org", &json!({}))];
    let mut compiler = compiled_with(none, rows);
    assert!(compiler.domain_reason(1).contains("add a site"), "{}", compiler.domain_reason(1));
    let list =
        |compiler: &Compiler, name| compiler.get(Section::HttpMiddlewares, name)["ipAllowList"]["sourceRange"].clone();

    compiler.apply(vec![site(9, &["10.44.0.0/16"])]);
    assert_eq!((compiler.domain_reason(1), list(&compiler, shared::INTERNAL)), ("", json!(["10.44.0.0/16"])));
    assert!(compiler.domain_reason(2).contains("nothing in common"), "{}", compiler.domain_reason(2));
    let mut undo = compiler.apply(vec![site(8, &["10.35.0.0/16"])]);
    assert_eq!(compiler.domain_reason(2), "");
    assert_eq!(list(&compiler, shared::INTERNAL), json!(["10.35.0.0/16", "10.44.0.0/16"]));
    assert_eq!(compiler.configured().internal_networks, [], "as they were given");

    undo.reverse();
    compiler.apply(undo);
    assert_eq!(list(&compiler, shared::INTERNAL), json!(["10.44.0.0/16"]));
    compiler.apply(vec![(site(9, &[]).0, None)]);
    assert!(compiler.is_closed("a.org") && compiler.is_closed("b.org") && !compiler.is_closed("c.org"));
    assert_eq!(refused(&compiler), Vec::<String>::new());
}

#[test]
fn a_name_is_served_as_its_row_says() {
    let tcp = |more: &Value| {
        let mut all = json!({"protocol": "tcp", "tcp_entrypoint": "mqtt"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    for (columns, served) in [
        (json!({"tls_mode": "acme"}), Some(("websecure", Some("le")))),
        (json!({"tls_mode": "acme", "cert_resolver": "other"}), Some(("websecure", Some("other")))),
        (json!({}), Some(("websecure", None))),
        (json!({"status": "maintenance"}), Some(("websecure", None))),
        (json!({"status": "draft"}), None),
        (json!({"tls_mode": "none"}), None),
        (tcp(&json!({})), Some(("mqtt", None))),
        (tcp(&json!({"tls_mode": "passthrough"})), None),
        (tcp(&json!({"tls_mode": "none"})), None),
    ] {
        let found = compiled(vec![row(1, "*.a.org", &columns)]).served(&Key::domain(id(1)));
        let found = found.as_ref().map(|(name, served)| {
            assert_eq!(name, "*.a.org");
            (served.entry_point.as_str(), served.resolver.as_deref())
        });
        assert_eq!(found, served, "{columns}");
    }
    for dns_mode in [DnsMode::External, DnsMode::Static, DnsMode::Ddns] {
        let found = compiled(vec![row(1, "a.org", &json!({"dns_mode": dns_mode}))]).served(&Key::domain(id(1)));
        assert_eq!(found.map(|(_, served)| served.dns_mode), Some(dns_mode));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The same rows give the same pieces, however they came to be; undoing a change leaves no trace.
    #[test]
    fn only_the_rows_matter(changes in prop::collection::vec(any_change(), 1..40), split in 0..40usize) {
        let mut compiler = Compiler::new(Arc::new(settings()));
        let (first, second) = changes.split_at(split.min(changes.len()));
        for change in first {
            compiler.apply(vec![change.clone()]);
        }
        let scratch = |rows: &Rows, backwards: bool| {
            let mut rows: Vec<_> = rows.iter().map(|(key, row)| (*key, Some(Arc::clone(row)))).collect();
            if backwards { rows.reverse(); }
            compiled(rows)
        };
        let middle = scratch(compiler.rows(), false);
        prop_assert_eq!(seen(&compiler), seen(&middle));
        let mut undo = compiler.apply(second.to_vec());
        let end = scratch(compiler.rows(), true);
        prop_assert_eq!(seen(&compiler), seen(&end));
        undo.reverse();
        compiler.apply(undo);
        prop_assert_eq!(seen(&compiler), seen(&middle));
    }

    /// Nothing that Traefik refuses, nothing injected, and every served row holds its place.
    #[test]
    fn whatever_the_rows_hold(changes in prop::collection::vec(any_change(), 1..30)) {
        let compiler = compiled(changes);
        prop_assert_eq!(refused(&compiler), Vec::<String>::new());
        for section in [Section::HttpRouters, Section::TcpRouters] {
            for (name, text) in compiler.pieces.get(&section).into_iter().flatten() {
                let router: Value = serde_json::from_str(text).unwrap();
                let rule = router["rule"].as_str().unwrap();
                let matchers = rule.split(" && ").count();
                prop_assert_eq!(rule.matches('`').count(), 2 * matchers, "{}", rule);
                prop_assert!(rule.is_ascii() && !rule.contains('"') && !name.contains(['`', '@', '"']), "{} {}", name, rule);
            }
        }
        for (key, row) in compiler.rows().iter().filter(|(key, _)| key.table.compiles()) {
            let route = compiler.route(key).unwrap();
            if let Row::Domain(row) = &**row && row.is_served() {
                prop_assert_eq!(route.routers.is_empty(), row.domain.contains('`'), "{:?}", row);
            }
            if let (State::Closed { reason }, Table::Domains) = (&route.state, key.table) {
                prop_assert!(reason.contains(": "), "{}", reason);
                for (section, name) in &route.routers {
                    let services = if *section == Section::HttpRouters { Section::HttpServices } else { Section::TcpServices };
                    let service = compiler.get(*section, name)["service"].as_str().unwrap().to_owned();
                    prop_assert_eq!(&compiler.get(services, &service)["loadBalancer"]["servers"], &json!([]));
                }
            }
        }
    }
}
