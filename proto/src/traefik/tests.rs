//! The model against `tests/every_option.json`, which Traefik 3.7.15 took as a whole, and against typical mistakes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::{
    http::{
        Chain, HealthCheck, InFlightReq, LoadBalancer, Middleware, Router, RouterTls, Service, SourceCriterion, Sticky,
    },
    *,
};

fn every_option() -> Vec<(Kind, String, Value)> {
    let kinds: BTreeMap<Kind, BTreeMap<String, Value>> =
        serde_json::from_str(include_str!("../../tests/every_option.json")).unwrap();
    let named = |(kind, bodies): (Kind, BTreeMap<String, Value>)| bodies.into_iter().map(move |(n, b)| (kind, n, b));
    kinds.into_iter().flat_map(named).collect()
}

#[test]
fn every_option_is_read_and_written_back() {
    let mut configuration = Configuration::default();
    for (kind, name, body) in every_option() {
        let typed = piece(kind, &body).unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        let written: Value = serde_json::from_str(&typed.to_json()).unwrap();
        assert_eq!(leaves(&written), leaves(&body), "{kind} {name}");
        assert_eq!(piece(kind, &written).as_ref(), Ok(&typed), "{kind} {name}");
        assert_eq!(typed.kind(), kind);
        configuration.insert(name, typed);
    }
    let written = to_json(&configuration);
    assert_eq!(serde_json::from_str::<Configuration>(&written).unwrap(), configuration);
}

/// Paths of everything that says something, whatever its notation.
fn leaves(value: &Value) -> Vec<String> {
    let under = |key: String, value: &Value| leaves(value).into_iter().map(move |leaf| format!("{key}.{leaf}"));
    match value {
        Value::Object(fields) if !fields.is_empty() => fields.iter().flat_map(|(k, v)| under(k.clone(), v)).collect(),
        Value::Array(items) => items.iter().enumerate().flat_map(|(i, v)| under(i.to_string(), v)).collect(),
        Value::Bool(false) => vec![],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => vec![String::new()],
    }
}

#[test]
fn mistakes_are_named_with_their_path_and_remedy() {
    let server = |server: Value| json!({"loadBalancer": {"servers": [server]}});
    let plugin = |setting: Value| json!({"plugin": {"p": {"a": setting}}});
    for (kind, body, path, reason) in [
        ("http.service", server(json!({"urll": "x"})), "loadBalancer.servers[0].urll", "did you mean url?"),
        ("http.service", server(json!({"url": "10.0.0.1:80"})), "loadBalancer.servers[0].url", "http://10.0.0.1:8080"),
        ("http.service", server(json!({"url": "http://a", "weight": "1"})), "loadBalancer.servers[0].weight", "i64"),
        ("http.service", json!({"loadbalancer": {"servers": []}}), "loadbalancer", "did you mean loadBalancer?"),
        ("http.service", json!({"loadBalancer": []}), "", "needs one of"),
        ("http.middleware", json!({"compress": []}), "compress", "must be an object"),
        ("http.middleware", json!({"addPrefix": ["/a"]}), "addPrefix", "must be an object"),
        ("http.middleware", json!({"addPrefix": [""]}), "addPrefix", "must be an object"),
        ("http.service", json!({"loadBalancer": {}}), "loadBalancer", "is empty"),
        ("http.service", json!({"loadBalancer": {"servers": []}}), "loadBalancer", "is empty"),
        (
            "http.service",
            json!({"loadBalancer": {"healthCheck": {"headers": {}}}}),
            "loadBalancer.healthCheck.headers",
            "is empty",
        ),
        (
            "http.service",
            json!({"loadBalancer": {"healthCheck": {"path": "/", "interval": "10x"}}}),
            "loadBalancer.healthCheck.interval",
            "write 10s",
        ),
        ("http.service", json!({"loadBalancer": {"strategy": "wwr"}}), "loadBalancer.strategy", "did you mean wrr?"),
        ("http.service", json!({}), "", "needs one of: loadBalancer, weighted"),
        (
            "http.service",
            json!({"failover": {"service": "a", "fallback": "b"}, "mirroring": {"service": "a"}}),
            "",
            "mirroring and failover",
        ),
        (
            "http.service",
            json!({"weighted": {"services": [{"weight": 1}]}}),
            "weighted.services[0].name",
            "is required",
        ),
        ("http.router", json!({"service": "s"}), "rule", "is required"),
        ("http.router", json!({"rule": "Host(`a`)", "tls": null, "tsl": {}}), "tsl", "did you mean tls?"),
        ("http.router", json!({"rule": "Host(`a`)", "parentRefs": ["p"], "tls": {}}), "tls", "belongs to the parent"),
        ("http.router", json!({"rule": "Host(`a`)", "priority": i64::MAX}), "priority", "at most"),
        (
            "http.router",
            json!({"rule": "Host(`a`)", "deniedEncodedPathCharacters": {}}),
            "deniedEncodedPathCharacters",
            "over HTTP",
        ),
        ("http.router", json!("Host(`a`)"), "", "must be an object"),
        ("http.middleware", json!({}), "", "needs one of: addPrefix"),
        ("http.middleware", json!({"requestRedirect": {"scheme": "https"}}), "requestRedirect", "over HTTP"),
        ("http.middleware", json!({"URLRewrite": {}}), "URLRewrite", "over HTTP"),
        ("http.middleware", json!({"stripPrefix": {}}), "stripPrefix", "is empty"),
        ("http.middleware", json!({"grpcWeb": {}}), "grpcWeb", "is empty"),
        ("http.middleware", json!({"compress": {}, "chain": {"middlewares": ["a"]}}), "", "chain and compress"),
        (
            "http.middleware",
            json!({"ipAllowList": {"sourceRange": ["10.0.0.0/33"]}}),
            "ipAllowList.sourceRange[0]",
            "network",
        ),
        (
            "http.middleware",
            json!({"ipAllowList": {"rejectStatusCode": 404}}),
            "ipAllowList.sourceRange",
            "at least one",
        ),
        ("http.middleware", json!({"basicAuth": {"users": ["ann"]}}), "basicAuth.users[0]", "name:hash"),
        ("http.middleware", json!({"errors": {"status": ["5xx"], "service": "s"}}), "errors.status[0]", "500-599"),
        ("http.middleware", json!({"retry": {"timeout": "1s"}}), "retry.attempts", "at least 1"),
        ("http.middleware", json!({"chain": {"middlewares": ["a║b"]}}), "chain.middlewares[0]", "splits"),
        ("http.middleware", plugin(json!([[1]])), "plugin.p.a", "all flags"),
        ("http.middleware", plugin(json!([true, 1])), "plugin.p.a", "all flags"),
        ("http.middleware", plugin(json!([u64::MAX])), "plugin.p.a", "2^63"),
        ("http.middleware", plugin(json!({"b": null})), "plugin.p.a", "null"),
        ("http.middleware", plugin(json!({"a": 1})), "plugin.p.a", "own name"),
        ("tcp.router", json!({"rule": "HostSNI(`*`)"}), "service", "is required"),
        ("tcp.router", json!({"rule": "HostSNI(`a`)", "service": "s"}), "rule", "needs TLS"),
        ("tcp.router", json!({"rule": "Host(`a`)", "service": "s"}), "rule", "did you mean HostSNI?"),
        (
            "http.router",
            json!({"rule": "Host(`a`) && Pth(`/`)"}),
            "rule",
            "at character 14: there is no matcher Pth, did you mean Path?",
        ),
        ("http.router", json!({"rule": "Host(`a`, `b`)"}), "rule", "takes one value"),
        (
            "tcp.service",
            json!({"loadBalancer": {"servers": [{"address": "a"}]}}),
            "loadBalancer.servers[0].address",
            "host and port",
        ),
        ("tcp.serversTransport", json!({"proxyProtocol": {"version": 3}}), "proxyProtocol.version", "1 or 2"),
        (
            "udp.service",
            json!({"loadBalancer": {"servers": [{"address": "::1:53"}]}}),
            "loadBalancer.servers[0].address",
            "host and port",
        ),
        ("http.serversTransport", json!({"minVersion": "VersionTLS12"}), "maxVersion", "is required with minVersion"),
        ("tls.option", json!({"minVersion": "VersionTLS1.2"}), "minVersion", "did you mean VersionTLS12?"),
        ("tls.option", json!({"minVersion": "VersionTLS13", "maxVersion": "VersionTLS12"}), "minVersion", "above"),
        ("tls.option", json!({"cipherSuites": ["TLS_NULL"]}), "cipherSuites[0]", "not a cipher suite"),
        (
            "tls.option",
            json!({"clientAuth": {"clientAuthType": "RequireAndVerifyClientCert"}}),
            "clientAuth.caFiles",
            "required",
        ),
        ("tls.certificate", json!({"certFile": "a.pem"}), "keyFile", "is required"),
    ] {
        let found = piece(kind.parse().unwrap(), &body).expect_err(&format!("{kind} {body}"));
        assert_eq!(found.path, path, "{kind} {body}: {found}");
        assert!(found.reason.contains(reason), "{kind} {body}: {found}");
    }
}

#[test]
fn a_piece_says_which_others_it_names() {
    let named = |kind: Kind, name: &str| {
        let (_, _, body) = every_option().into_iter().find(|(k, n, _)| *k == kind && n == name).unwrap();
        let references = piece(kind, &body).unwrap().references();
        references.into_iter().map(|to| format!("{} {} {}", to.path, to.kind, to.name)).collect::<Vec<_>>()
    };
    for (kind, name, references) in [
        (
            Kind::HttpRouter,
            "shop",
            vec![
                "middlewares[0] http.middleware every-header",
                "middlewares[1] http.middleware chain",
                "service http.service balanced",
                "tls.options tls.option modern",
            ],
        ),
        (Kind::HttpRouter, "child", vec!["service http.service hashed", "parentRefs[0] http.router parent"]),
        (
            Kind::HttpService,
            "balanced",
            vec![
                "middlewares[0] http.middleware add-prefix",
                "loadBalancer.serversTransport http.serversTransport mutual",
            ],
        ),
        (
            Kind::HttpService,
            "mirrored",
            vec!["mirroring.service http.service balanced", "mirroring.mirrors[0].name http.service least-time"],
        ),
        (
            Kind::TcpService,
            "split",
            vec!["weighted.services[0].name tcp.service brokers", "weighted.services[1].name tcp.service defaults"],
        ),
        (Kind::HttpMiddleware, "errors", vec!["errors.service http.service balanced"]),
        (Kind::UdpRouter, "dns", vec!["service udp.service dns-split"]),
        (Kind::TlsCertificate, "edge", vec!["stores[0] tls.store default"]),
    ] {
        assert_eq!(named(kind, name), references, "{kind} {name}");
    }
}

#[test]
fn what_says_nothing_is_not_written() {
    let hollow = Service {
        load_balancer: Some(LoadBalancer {
            health_check: Some(HealthCheck::default()),
            sticky: Some(Sticky::default()),
            pass_host_header: Some(false),
            ..LoadBalancer::default()
        }),
        ..Service::default()
    };
    assert_eq!(to_json(&hollow), r#"{"loadBalancer":{"passHostHeader":false}}"#);
    let nested = Middleware {
        in_flight_req: Some(InFlightReq { source_criterion: Some(SourceCriterion::default()), amount: None }),
        ..Middleware::default()
    };
    assert_eq!(to_json(&nested), "{}");
    let router = Router {
        rule: "Host(`a.test`)".into(),
        service: "s".into(),
        tls: Some(RouterTls::default()),
        ..Router::default()
    };
    assert_eq!(to_json(&router), r#"{"service":"s","rule":"Host(`a.test`)","tls":{}}"#);
    let empty = Middleware { chain: Some(Chain::default()), ..Middleware::default() };
    assert_eq!(to_json(&empty), "{}");
    assert_eq!(to_json(&Configuration::default()), "{}");
}

#[test]
fn kinds_are_spelt_as_in_the_database() {
    for kind in Kind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(*kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.name()));
    }
    assert!("http.routers".parse::<Kind>().unwrap_err().to_string().contains("http.router, "));
}

/// Paths of all fields in a body, as JSON pointers.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut step = |key: &str, value: &Value| {
        let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        found.push(at.clone());
        pointers(value, &at, found);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| step(key, value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, value)| step(&i.to_string(), value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn any_body() -> impl Strategy<Value = (Kind, Value)> {
    let odd = prop_oneof![
        Just(json!({})),
        Just(json!([])),
        Just(json!("")),
        Just(json!(null)),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), odd), 0..4);
    (prop::sample::select(every_option()), changes).prop_map(|((kind, _, mut body), changes)| {
        for (which, odd) in changes {
            let mut found = Vec::new();
            pointers(&body, "", &mut found);
            if !found.is_empty() {
                let at = which.get::<String>(&found);
                *body.pointer_mut(at).unwrap() = odd;
            }
        }
        (kind, body)
    })
}

/// Objects without a field, but where Traefik takes them.
fn refused_by_traefik(value: &Value) -> bool {
    const MAY_BE_EMPTY: [&str; 9] =
        ["tls", "cookie", "healthCheck", "compress", "contentType", "proxyProtocol", "spiffe", "p", "geoblock"];
    match value {
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let hollow = value.as_object().is_some_and(serde_json::Map::is_empty);
            (hollow && !MAY_BE_EMPTY.contains(&key.as_str())) || value.is_null() || refused_by_traefik(value)
        }),
        Value::Array(items) => items.iter().any(refused_by_traefik),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

proptest! {
    /// What passes is canonical after one pass, and has nothing in it that keeps a whole configuration out.
    #[test]
    fn what_passes_is_written_so_that_traefik_takes_it((kind, body) in any_body()) {
        if let Ok(typed) = piece(kind, &body) {
            let written = typed.to_json();
            let again: Value = serde_json::from_str(&written).unwrap();
            prop_assert!(!refused_by_traefik(&again), "{}", written);
            let raw = written.contains(|c| matches!(c, '\u{7f}'..='\u{9f}' | '\u{feff}' | '║'));
            prop_assert!(!raw, "{}", written);
            let second = piece(kind, &again);
            prop_assert_eq!(second.map(|piece| piece.to_json()), Ok(written));
        }
    }
}
