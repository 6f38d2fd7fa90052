use std::time::Instant;

use charliehub_proto::drift::DriftKind;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Section::{HttpRouters, TcpRouters, UdpRouters},
    *,
};

/// As Traefik's API shows what it was sent.
fn shown(config: &Value) -> Running {
    let mut running = Running::default();
    for section in LISTED {
        let (top, key) = section.path();
        let all = config.get(top).and_then(|top| top.get(key)).and_then(Value::as_object);
        let list =
            all.into_iter().flatten().map(|(name, said)| object(&format!("{name}@http"), said.clone())).collect();
        running.lists.insert(section, list);
    }
    running
}

fn object(name: &str, mut body: Value) -> Value {
    let provider = name.rsplit('@').next().unwrap();
    let about = json!({"name": name, "provider": provider, "status": "enabled"});
    body.as_object_mut().unwrap().extend(about.as_object().unwrap().clone());
    body
}

fn config(digest: &str) -> Value {
    json!({
        "http": {
            "routers": {
                "a.test": {"rule": "Host(`a.test`)", "service": "a.test", "entryPoints": ["web"], "priority": 300_000},
                "b.test/x": {"rule": "Host(`b.test`) && (Path(`/x`) || PathPrefix(`/x/`))", "service": "b.test/x",
                    "entryPoints": ["websecure"], "priority": 300_002, "tls": {}, "middlewares": ["b.test/x-allow"]},
                "*.c.test": {"rule": "HostRegexp(`^[^.]+\\.c\\.test\\.?$`)", "service": "a.test", "entryPoints": ["web"],
                    "priority": 200_000},
            },
            "services": {
                "a.test": {"loadBalancer": {"servers": [{"url": "http://10.0.0.1:80"}]}},
                "b.test/x": {"loadBalancer": {"servers": []}},
            },
            "middlewares": {
                "b.test/x-allow": {"ipAllowList": {"sourceRange": ["10.0.0.0/8"]}},
                "basic": {"basicAuth": {"users": ["ann:$apr1$secret"]}},
                "charliehub-revision": {"headers": {"customResponseHeaders": {"X-Charliehub-Config": digest}}},
            },
        },
        "tcp": {
            "routers": {"m.test-mqtt": {"rule": "HostSNI(`m.test`)", "service": "m", "entryPoints": ["mqtt"], "tls": {},
                "priority": 300_000}},
            "services": {"m": {"loadBalancer": {"servers": [{"address": "10.0.0.2:1883"}]}}},
        },
        "udp": {"routers": {"dns": {"service": "dns", "entryPoints": ["dns"]}}},
    })
}

fn compared(config: &Value, running: &Running) -> Vec<Drift> {
    compare(config, running, &|section, name| {
        let kind = if section.path().1 == "routers" { "domain" } else { "other" };
        Some(Owner { id: Uuid::nil(), kind: kind.to_owned(), name: name.to_owned() })
    })
}

fn add(running: &mut Running, section: Section, name: &str, body: Value) {
    running.lists.entry(section).or_default().push(object(name, body));
}

fn remove(running: &mut Running, section: Section, name: &str) {
    running.lists.entry(section).or_default().retain(|one| text(one, "name") != name);
}

#[test]
fn an_edge_that_runs_what_it_was_sent_has_no_drift() {
    assert_eq!(compared(&config("d"), &shown(&config("d"))), []);
}

#[test]
fn what_is_missing_extra_or_different_is_named_with_its_owner() {
    let (config, mut running) = (config("new"), shown(&config("old")));
    remove(&mut running, HttpRouters, "a.test@http");
    remove(&mut running, Section::HttpServices, "b.test/x@http");
    add(
        &mut running,
        Section::HttpServices,
        "b.test/x@http",
        json!({"loadBalancer": {"servers": [{"url": "http://h"}]}}),
    );
    add(&mut running, TcpRouters, "old@http", json!({"rule": "HostSNI(`o`)", "service": "m"}));
    let found = compared(&config, &running);
    let short: Vec<_> = found
        .iter()
        .map(|one| (one.kind, &*one.protocol, &*one.object, &*one.name, one.owner.as_ref().map(|owner| &*owner.name)))
        .collect();
    assert_eq!(
        short,
        [
            (DriftKind::Missing, "http", "router", "a.test@http", Some("a.test")),
            (DriftKind::Extra, "tcp", "router", "old@http", None),
            (DriftKind::Different, "http", "middleware", "charliehub-revision@http", Some("charliehub-revision")),
            (DriftKind::Different, "http", "service", "b.test/x@http", Some("b.test/x")),
        ],
        "{found:?}"
    );
    assert!(found[3].detail.starts_with("`loadBalancer.servers` is [{\"url\":\"http://h\"}], and the rows say []"));
}

#[test]
fn a_secret_that_differs_is_not_told() {
    let (config, mut running) = (config("d"), shown(&config("d")));
    remove(&mut running, Section::HttpMiddlewares, "basic@http");
    add(&mut running, Section::HttpMiddlewares, "basic@http", json!({"basicAuth": {"users": ["ann:$apr1$other"]}}));
    let found = compared(&config, &running);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].detail, "`basicAuth.users[0]` has another value, which is a secret");
}

#[test]
fn a_router_that_an_entry_point_made_several_of_is_itself() {
    let mut config = config("d");
    let said = json!({"rule": "Host(`two.test`)", "service": "a.test", "middlewares": ["basic"], "tls": {},
        "entryPoints": ["web", "websecure"]});
    config["http"]["routers"]["two.test"] = said.clone();
    let mut running = shown(&config);
    running.entry_points = vec![
        json!({"name": "web", "http": {}}),
        json!({"name": "websecure", "http": {"middlewares": ["sec@file"], "tls": {}}}),
    ];
    let on = |entry: &str, middlewares: &[&str]| {
        let mut said = said.clone();
        said["entryPoints"] = json!([entry]);
        said["middlewares"] = json!(middlewares);
        said
    };
    for name in ["two.test@http", "b.test/x@http"] {
        remove(&mut running, HttpRouters, name);
    }
    let mut other = config["http"]["routers"]["b.test/x"].clone();
    other["middlewares"] = json!(["sec@file", "b.test/x-allow@http"]);
    add(&mut running, HttpRouters, "websecure-conflicted-b.test/x@http", other);
    add(&mut running, HttpRouters, "two.test@http", on("web", &["basic@http"]));
    add(&mut running, HttpRouters, "websecure-two.test@http", on("websecure", &["sec@file", "basic@http"]));
    assert_eq!(compared(&config, &running), []);
    remove(&mut running, HttpRouters, "websecure-two.test@http");
    let found = compared(&config, &running);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].detail, "`entryPoints` is web, and the rows say web, websecure");
    add(&mut running, HttpRouters, "websecure-two.test@http", on("websecure", &["basic@http"]));
    let found = compared(&config, &running);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].detail.starts_with("`middlewares` is"), "{found:?}");
}

#[test]
fn a_router_of_another_provider_that_answers_in_the_place_of_ours_is_told_with_the_reason() {
    let rival = |rule: &str, entry: &str, priority: i64, tls: bool| {
        let mut rival = json!({"rule": rule, "service": "x", "entryPoints": [entry], "priority": priority});
        if tls {
            rival["tls"] = json!({"options": "default"});
        }
        rival
    };
    for (section, name, rival, shadowed, says) in [
        (
            HttpRouters,
            "a@docker",
            rival("Host(`a.test`)", "web", 300_001, false),
            "a.test@http",
            "its priority is 300001, ours 300000",
        ),
        (
            HttpRouters,
            "a@docker",
            rival("Host(`a.test`)", "web", 300_000, false),
            "a.test@http",
            "both have priority 300000",
        ),
        (HttpRouters, "a@rest", rival("Host(`a.test`)", "web", 300_000, false), "", ""),
        (HttpRouters, "a@docker", rival("Host(`a.test`)", "web", 299_999, false), "", ""),
        (HttpRouters, "a@docker", rival("Host(`a.test`)", "websecure", 400_000, false), "", ""),
        (HttpRouters, "a@docker", rival("Host(`a.test`)", "web", 400_000, true), "", ""),
        (
            HttpRouters,
            "a@file",
            rival("Host(`a.test`) && PathPrefix(`/api`)", "web", 400_000, false),
            "a.test@http",
            "a part of its requests (below /api)",
        ),
        (HttpRouters, "x@file", rival("PathPrefix(`/outpost`)", "web", 400_000, false), "", ""),
        (HttpRouters, "x@file", rival("Host(`b.test`) && PathPrefix(`/y`)", "websecure", 400_000, true), "", ""),
        (
            HttpRouters,
            "x@file",
            rival("Host(`b.test`)", "websecure", 400_000, true),
            "b.test/x@http",
            "in its place on websecure",
        ),
        (HttpRouters, "x.c@file", rival("Host(`x.c.test`)", "web", 400_000, false), "", ""),
        (
            HttpRouters,
            "c@file",
            rival("HostRegexp(`^.+\\.c\\.test$`)", "web", 400_000, false),
            "*.c.test@http",
            "in its place",
        ),
        (
            HttpRouters,
            "acme-http@internal",
            rival("PathPrefix(`/.well-known/acme-challenge/`)", "web", i64::MAX - 1, false),
            "",
            "",
        ),
        (
            HttpRouters,
            "m@docker",
            rival("Host(`m.test`)", "mqtt", 1, true),
            "m.test-mqtt@http",
            "HTTPS for a host goes before tcp",
        ),
        (
            HttpRouters,
            "m@docker",
            rival("Host(`m.test`) && PathPrefix(`/x`)", "mqtt", 1, true),
            "m.test-mqtt@http",
            "in its place on mqtt: HTTPS",
        ),
        (HttpRouters, "m@docker", rival("PathPrefix(`/`)", "mqtt", 1, true), "", ""),
        (HttpRouters, "bad@docker", rival("Host(`a.test`", "web", 400_000, false), "", ""),
        (
            TcpRouters,
            "m@file",
            rival("HostSNI(`m.test`)", "mqtt", 400_000, true),
            "m.test-mqtt@http",
            "its priority is 400000",
        ),
        (
            TcpRouters,
            "m@file",
            rival("HostSNI(`*`)", "mqtt", 400_000, true),
            "m.test-mqtt@http",
            "in its place on mqtt",
        ),
        (TcpRouters, "m@file", rival("HostSNI(`*`)", "mqtt", -1, true), "", ""),
        (UdpRouters, "z@file", json!({"service": "x", "entryPoints": ["dns"]}), "dns@http", "the last name"),
        (UdpRouters, "a@file", json!({"service": "x", "entryPoints": ["dns"]}), "", ""),
    ] {
        let (config, mut running) = (config("d"), shown(&config("d")));
        let what = rival.to_string();
        add(&mut running, section, name, rival);
        let found = compared(&config, &running);
        let names: Vec<&str> = found.iter().map(|one| &*one.name).collect();
        assert_eq!(names, if shadowed.is_empty() { vec![] } else { vec![shadowed] }, "{name} {what}: {found:?}");
        for one in &found {
            assert_eq!(one.kind, DriftKind::Shadowed);
            assert!(one.detail.contains(says) && one.detail.contains(name), "{what}: {}", one.detail);
            assert_eq!(one.owner.as_ref().map(|owner| format!("{}@http", owner.name)).as_deref(), Some(shadowed));
        }
    }
}

#[test]
fn a_redirection_of_a_whole_entry_point_is_in_the_way_of_every_plain_row_on_it() {
    let (config, mut running) = (config("d"), shown(&config("d")));
    let all = json!({"rule": "HostRegexp(`^.+$`)", "service": "noop@internal", "entryPoints": ["web"],
        "priority": i64::MAX - 1, "middlewares": ["redirect-web-to-websecure@internal"]});
    add(&mut running, HttpRouters, "web-to-websecure@internal", all);
    let found = compared(&config, &running);
    let names: Vec<&str> = found.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["*.c.test@http", "a.test@http"]);
}

/// `cargo nextest run --release --run-ignored all --no-capture drift::tests::ten_thousand`
#[test]
#[ignore = "measures"]
fn ten_thousand_routers_are_compared_in_a_moment() {
    let (mut routers, mut services) = (Map::new(), Map::new());
    for n in 0..10_000 {
        let name = format!("host-{n}.example.org");
        let router = json!({"rule": format!("Host(`{name}`)"), "service": name, "entryPoints": ["websecure"], "tls": {},
            "priority": 300_000, "middlewares": ["charliehub-internal"]});
        routers.insert(name.clone(), router);
        let url = format!("http://10.44.{}.{}:80", n / 250, n % 250);
        services.insert(name, json!({"loadBalancer": {"servers": [{"url": url}]}}));
    }
    let config = json!({"http": {"routers": routers, "services": services, "middlewares": {
        "charliehub-internal": {"ipAllowList": {"sourceRange": ["10.44.0.0/16"]}},
    }}});
    let mut running = shown(&config);
    for rivals in [0, 1, 100] {
        for n in 0..rivals {
            let rival = json!({"rule": format!("Host(`other-{rivals}-{n}.org`)"), "service": "x", "entryPoints": ["websecure"],
                "tls": {}, "priority": 400_000});
            add(&mut running, HttpRouters, &format!("{rivals}-{n}@docker"), rival);
        }
        let began = Instant::now();
        assert_eq!(compared(&config, &running).len(), 0);
        println!("10,000 routers, {rivals} more of another provider: {:?}", began.elapsed());
    }
}
