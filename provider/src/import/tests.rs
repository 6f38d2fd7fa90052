//! Files to rows and fragments, and back: what is imported compiles to what it was.

use std::collections::BTreeMap;

use charliehub_proto::{domain::Domain, fragment::Fragment};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    compile::{Compiler, ForwardAuth, Pieces, Section, tests::domain_with},
    row::{Key, Row},
};

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        forward_auth: Some(ForwardAuth {
            address: "http://127.0.0.1:9091/api/authz/forward-auth".to_owned(),
            auth_response_headers: vec!["Remote-User".to_owned()],
        }),
        internal_networks: vec!["10.44.0.0/16".parse().unwrap(), "10.35.0.0/16".parse().unwrap()],
        ..Settings::default()
    })
}

fn source(config: &Value) -> Source {
    source_of("routes.json", &config.to_string())
}

fn source_of(name: &str, text: &str) -> Source {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    Source::files(&[path]).unwrap()
}

/// What the tables hold after an import.
fn taken_over(plan: &Plan, existing: &Rows) -> Rows {
    let mut rows = existing.clone();
    for write in &plan.writes {
        let key = match &write.row {
            Row::Domain(row) => Key::domain(row.id),
            Row::Fragment(row) => Key::fragment(row.id),
            Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => panic!("nothing bad is written"),
        };
        rows.insert(key, Arc::new(write.row.clone()));
    }
    rows
}

fn imported(config: &Value) -> (Plan, Rows) {
    let plan = source(config).plan(&Rows::new(), &settings());
    let rows = taken_over(&plan, &Rows::new());
    let again = source(config).plan(&rows, &settings());
    let written: Vec<_> = again.writes.iter().map(|write| &write.row).collect();
    assert_eq!(again.changes(), 0, "a second import changes nothing, not {written:?}");
    (plan, rows)
}

fn compiled(rows: &Rows) -> Pieces {
    let mut compiler = Compiler::new(settings());
    compiler.apply(rows.iter().map(|(key, row)| (*key, Some(Arc::clone(row)))).collect());
    compiler.pieces().clone()
}

/// The configuration as `export` has it.
fn exported(pieces: &Pieces) -> Value {
    let mut config = json!({});
    for (section, inner) in pieces {
        let (top, key) = section.path();
        let named: BTreeMap<&str, Value> =
            inner.iter().map(|(name, text)| (&**name, serde_json::from_str(text).unwrap())).collect();
        config[top][key] =
            if *section == Section::TlsCertificates { named.into_values().collect() } else { json!(named) };
    }
    config
}

fn domains(rows: &Rows) -> Vec<&Domain> {
    let domain = |row: &'_ Arc<Row>| matches!(**row, Row::Domain(_));
    let mut found: Vec<&Domain> = rows
        .values()
        .filter(|row| domain(row))
        .map(|row| match &**row {
            Row::Domain(row) => row,
            Row::Fragment(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => unreachable!(),
        })
        .collect();
    found.sort_by_key(|row| (row.domain.clone(), row.path_prefix.clone()));
    found
}

fn fragments(rows: &Rows) -> Vec<&Fragment> {
    let mut found: Vec<&Fragment> = rows
        .values()
        .filter_map(|row| match &**row {
            Row::Fragment(row) => Some(row),
            Row::Domain(_) | Row::Site(_) | Row::Policy(_) | Row::Peer(_) | Row::Bad(_) => None,
        })
        .collect();
    found.sort_by_key(|row| (row.kind.clone(), row.name.clone()));
    found
}

/// As the seed's generator writes it.
const SEED: &str = r#"
http:
  routers:
    auth-charliehub-net:
      rule: "Host(`auth.charliehub.net`)"
      entryPoints: [websecure]
      service: auth-charliehub-net-service
      tls: {certResolver: letsencrypt}
    grafana-charliehub-net:
      rule: "Host(`grafana.charliehub.net`)"
      entryPoints: [websecure]
      service: grafana-charliehub-net-service
      middlewares: [internal-only, authelia]
      tls: {certResolver: letsencrypt}
    docs-charliehub-net:
      rule: "Host(`docs.charliehub.net`) && PathPrefix(`/api`)"
      entryPoints: [websecure]
      service: docs-charliehub-net-service
      middlewares: [office, authelia]
      tls: {certResolver: letsencrypt, domains: [{main: docs.charliehub.net}]}
  services:
    auth-charliehub-net-service: {loadBalancer: {servers: [{url: "http://127.0.0.1:9091"}]}}
    grafana-charliehub-net-service: {loadBalancer: {passHostHeader: true, servers: [{url: "http://10.44.1.7:3000/"}]}}
    docs-charliehub-net-service: {loadBalancer: {servers: [{url: "https://docs"}]}}
  middlewares:
    internal-only: {ipAllowList: {sourceRange: [10.44.0.0/16, 10.35.0.0/16]}}
    office: {ipAllowList: {sourceRange: [192.0.2.7, 192.0.2.6]}}
    authelia:
      forwardAuth:
        address: "http://127.0.0.1:9091/api/authz/forward-auth"
        trustForwardHeader: false
        authResponseHeaders: [Remote-User]
tcp:
  routers:
    mqtt-verdegris-eu:
      rule: "HostSNI(`mqtt.verdegris.eu`)"
      entryPoints: [mqtt]
      service: mqtt-verdegris-eu-service
      tls: {certResolver: letsencrypt}
  services:
    mqtt-verdegris-eu-service: {loadBalancer: {servers: [{address: "parking-mosquitto:1883"}]}}
"#;

#[test]
fn the_seeds_routes_come_in_as_rows_and_nothing_else() {
    let plan = source_of("routes.yml", SEED).plan(&Rows::new(), &settings());
    let rows = taken_over(&plan, &Rows::new());
    assert_eq!(fragments(&rows), Vec::<&Fragment>::new());
    assert_eq!((plan.warnings.as_slice(), plan.renamed.as_slice()), (&[][..], &[][..]));
    let seen: Vec<Value> = domains(&rows)
        .iter()
        .map(|row| {
            json!([
                row.domain,
                row.path_prefix,
                row.access_tier,
                row.ip_allowlist,
                row.auth_required,
                row.cert_resolver,
                row.backend_scheme,
                row.backend_host,
                row.backend_port,
                row.tcp_entrypoint,
                row.priority
            ])
        })
        .collect();
    assert_eq!(
        json!(seen),
        json!([
            ["auth.charliehub.net", "/", "public", [], false, "letsencrypt", null, "127.0.0.1", 9091, null, null],
            [
                "docs.charliehub.net",
                "/api",
                "restricted",
                ["192.0.2.6/31"],
                true,
                "letsencrypt",
                "https",
                "docs",
                443,
                null,
                null
            ],
            ["grafana.charliehub.net", "/", "internal", [], true, "letsencrypt", null, "10.44.1.7", 3000, null, null],
            [
                "mqtt.verdegris.eu",
                "/",
                "public",
                [],
                false,
                "letsencrypt",
                null,
                "parking-mosquitto",
                1883,
                "mqtt",
                null
            ],
        ])
    );
    assert_eq!(domains(&rows)[0].notes.as_deref(), Some("imported: auth-charliehub-net of routes.yml"));
    assert_eq!(source_of("routes.yml", SEED).plan(&rows, &settings()).changes(), 0);
}

/// A router of `a.org`, and what else there is.
fn http(router: &Value, rest: &Value) -> Value {
    let mut base = json!({"rule": "Host(`a.org`)", "entryPoints": ["websecure"], "service": "s", "tls": {}});
    base.as_object_mut().unwrap().extend(router.as_object().unwrap().clone());
    let mut config = json!({"http": {"routers": {"r": base},
        "services": {"s": {"loadBalancer": {"servers": [{"url": "http://h:1"}]}}}}});
    for (section, inner) in rest.as_object().unwrap() {
        for (name, body) in inner.as_object().unwrap() {
            config["http"][section][name] = body.clone();
        }
    }
    config
}

#[test]
fn what_a_row_can_say_becomes_a_row() {
    let none = json!({});
    let service = |balancer: Value| json!({"services": {"s": {"loadBalancer": balancer}}});
    let servers = json!([{"url": "http://h:1", "weight": 3}, {"url": "https://i:2"}]);
    for (router, rest, columns) in [
        (none.clone(), none.clone(), json!({"tls_mode": "default", "backend_host": "h"})),
        (json!({"tls": null, "entryPoints": ["web"]}), none.clone(), json!({"tls_mode": "none"})),
        (json!({"rule": "Host(`A.ORG`) && PathPrefix(`/`)"}), none.clone(), json!({"path_prefix": "/"})),
        (
            json!({"rule": r"HostRegexp(`^[^.]+\.a\.org\.?$`)", "tls": {"certResolver": "le", "domains": [{"main": "*.a.org"}]}}),
            none.clone(),
            json!({"domain": "*.a.org", "tls_mode": "acme", "cert_resolver": "le"}),
        ),
        (
            none.clone(),
            service(json!({"servers": servers, "sticky": {"cookie": {"name": "c", "httpOnly": true, "path": "/"}},
                "healthCheck": {"path": "/up", "interval": "90s", "timeout": 2}})),
            json!({"backends": [{"host": "h", "port": 1, "weight": 3}, {"host": "i", "port": 2, "scheme": "https"}],
                "sticky": {"cookie": "c", "http_only": true},
                "health_check": {"path": "/up", "interval": "90s", "timeout": "2s"}}),
        ),
        (
            json!({"middlewares": ["m", "gzip@file", "x"]}),
            json!({"middlewares": {"m": {"rateLimit": {"average": 5, "period": "1m", "burst": 9}}, "x": {"compress": {}}}}),
            json!({"rate_limit": {"average": 5, "burst": 9, "period": "1m"}, "middlewares": ["gzip@file", "x"]}),
        ),
        (
            json!({"service": "api@internal", "middlewares": ["auth@file"]}),
            none.clone(),
            json!({"service_type": "reference", "service_ref": "api@internal", "middlewares": ["auth@file"]}),
        ),
        (
            json!({"middlewares": ["to"]}),
            json!({"middlewares": {"to": {"redirectRegex": {"regex": "^.*$", "replacement": "https://b.org/x", "permanent": true}}}}),
            json!({"service_type": "redirect", "redirect_to": "https://b.org/x", "redirect_permanent": true, "middlewares": []}),
        ),
        // To itself: where it is there already, the service behind it answers.
        (
            json!({"middlewares": ["to"]}),
            json!({"middlewares": {"to": {"redirectRegex": {"regex": "^.*$", "replacement": "https://a.org/x"}}}}),
            json!({"service_type": "proxy", "middlewares": ["to"]}),
        ),
        (
            none.clone(),
            service(json!({"servers": [{"url": "http://h:1"}], "passHostHeader": false})),
            json!({"service_type": "reference", "service_ref": "s"}),
        ),
        (
            json!({"middlewares": ["list"]}),
            json!({"middlewares": {"list": {"ipAllowList": {"sourceRange": ["10.0.0.0/8"], "ipStrategy": {"depth": 1}}}}}),
            json!({"access_tier": "public", "middlewares": ["list"]}),
        ),
        (
            json!({"middlewares": ["all"]}),
            json!({"middlewares": {"all": {"chain": {"middlewares": ["list"]}},
                "list": {"ipAllowList": {"sourceRange": ["10.0.0.0/8"]}}}}),
            json!({"access_tier": "public", "middlewares": ["all"]}),
        ),
        (json!({"priority": 7}), none.clone(), json!({"priority": 7})),
    ] {
        let (plan, rows) = imported(&http(&router, &rest));
        let [row] = domains(&rows)[..] else { panic!("{router} {rest}: {plan:#?}") };
        let row = serde_json::to_value(row).unwrap();
        for (column, value) in columns.as_object().unwrap() {
            assert_eq!(&row[column], value, "{column} of {router} {rest}");
        }
        assert_eq!(plan.warnings, Vec::<String>::new(), "{router} {rest}");
    }
}

#[test]
fn what_no_row_can_say_stays_as_it_is() {
    for (router, rest, because) in [
        (json!({"rule": "Host(`a.org`) || Host(`b.org`)"}), json!({}), "one host"),
        (json!({"rule": "Host(`a.org`) && Method(`GET`)"}), json!({}), "one host"),
        (json!({"rule": "Host(`a.org`) && PathPrefix(`/x/`)"}), json!({}), "path_prefix: not a path"),
        (json!({"entryPoints": ["web", "websecure"]}), json!({}), "websecure"),
        (json!({"entryPoints": []}), json!({}), "websecure"),
        (json!({"tls": {"options": "default"}}), json!({}), "tls.options"),
        (
            json!({"tls": {"certResolver": "le", "domains": [{"main": "a.org", "sans": ["b.org"]}]}}),
            json!({}),
            "the same",
        ),
        (json!({"observability": {"metrics": false}}), json!({}), "observability"),
        (json!({"priority": -3}), json!({}), "priority"),
        (json!({"middlewares": ["nope"]}), json!({}), "no fragment http.middleware/nope"),
    ] {
        let (plan, rows) = imported(&http(&router, &rest));
        assert_eq!(domains(&rows), Vec::<&Domain>::new(), "{router}");
        let line = plan.fragments.iter().find(|line| line.kind == "http.router").unwrap();
        assert!(line.because.as_ref().unwrap().contains(because), "{router}: {:?}", line.because);
        let router = fragments(&rows).into_iter().find(|row| row.kind == "http.router").unwrap();
        assert_eq!((router.name.as_str(), &router.body["service"]), ("r", &json!("s")));
    }
}

#[test]
fn a_name_that_we_cannot_hold_is_renamed_with_every_reference_and_that_is_said() {
    let config = http(
        &json!({"rule": "Host(`a.org`) && Method(`GET`)", "middlewares": ["to b", "authelia", "own@file", "own@docker"]}),
        &json!({
            "routers": {"row": {"rule": "Host(`b.org`)", "entryPoints": ["websecure"], "service": "b.org", "tls": {},
                "middlewares": ["to b"]}},
            "services": {"b.org": {"loadBalancer": {"servers": [{"url": "http://h:2"}], "passHostHeader": false}}},
            "middlewares": {"to b": {"chain": {"middlewares": ["charliehub-x"]}}, "charliehub-x": {"compress": {}},
                "authelia": {"addPrefix": {"prefix": "/x"}}, "own": {"compress": {}}},
        }),
    );
    let (plan, rows) = imported(&config);
    let renamed: Vec<(&str, &str)> = plan.renamed.iter().map(|one| (one.from.as_str(), one.to.as_str())).collect();
    assert_eq!(renamed, [("b.org", "b.org-2"), ("authelia", "authelia-2"), ("charliehub-x", "x"), ("to b", "to-b")]);
    let [row] = domains(&rows)[..] else { panic!("{rows:?}") };
    assert_eq!((row.middlewares.as_slice(), row.service_ref.as_deref()), (&["to-b".to_owned()][..], Some("b.org-2")));
    let body = |name: &str| fragments(&rows).into_iter().find(|row| row.name == name).unwrap().body.clone();
    assert_eq!(body("r")["middlewares"], json!(["to-b", "authelia-2", "own", "own@docker"]));
    assert_eq!(body("to-b")["chain"]["middlewares"], json!(["x"]));
}

#[test]
fn a_reference_that_leads_nowhere_does_not_come_to_lead_to_a_row() {
    let (plan, rows) = imported(&http(
        &json!({}),
        &json!({"routers": {"lost": {"rule": "Host(`b.org`)", "entryPoints": ["websecure"], "service": "a.org", "tls": {}}}}),
    ));
    let lost = fragments(&rows).into_iter().find(|row| row.name == "lost").unwrap();
    assert_eq!(lost.body["service"], "missing-a.org");
    assert!(
        plan.warnings.iter().any(|said| said.contains("lost") && said.contains("answers 503")),
        "{:?}",
        plan.warnings
    );
}

#[test]
fn what_somebody_wrote_on_a_row_outlives_an_import() {
    let config = http(&json!({}), &json!({}));
    let (_, mut rows) = imported(&config);
    let key = *rows.keys().find(|key| key.table == crate::row::Table::Domains).unwrap();
    let mut row = domains(&rows)[0].clone();
    (row.owner, row.notes, row.access_tier) =
        (Some("ann".to_owned()), None, charliehub_proto::domain::AccessTier::Internal);
    rows.insert(key, Arc::new(Row::Domain(row.clone())));
    let plan = source(&config).plan(&rows, &settings());
    assert_eq!((plan.changes(), plan.rows[0].action), (1, Action::Update));
    assert_eq!(plan.rows[0].changed, ["access_tier"]);
    let rows = taken_over(&plan, &rows);
    let [now] = domains(&rows)[..] else { panic!("{rows:?}") };
    assert_eq!((now.id, now.owner.as_deref(), now.access_tier.as_str()), (row.id, Some("ann"), "public"));
}

/// A row in maintenance does not say what it was before, so elsewhere it can only stay closed.
#[test]
fn an_export_with_closed_rows_changes_nothing_here_and_opens_nothing_elsewhere() {
    let rows = [
        ("a.test", json!({"status": "maintenance"})),
        ("b.test", json!({"access_tier": "internal"})),
        ("b.test", json!({"path_prefix": "/x!", "middlewares": ["nope"], "auth_required": true})),
        ("c.test", json!({"status": "draft"})),
    ];
    let rows: Rows = (1..)
        .zip(rows)
        .map(|(n, (name, columns))| {
            let mut row = domain_with(name, &columns);
            row.id = uuid::Uuid::from_u128(n);
            (Key::domain(row.id), Arc::new(Row::Domain(row)))
        })
        .collect();
    let with_pages = Arc::new(Settings { self_url: Some("http://127.0.0.1:8001".to_owned()), ..(*settings()).clone() });
    let mut compiler = Compiler::new(Arc::clone(&with_pages));
    compiler.apply(rows.iter().map(|(key, row)| (*key, Some(Arc::clone(row)))).collect());
    let config = exported(compiler.pieces());
    let here = source(&config).plan(&rows, &with_pages);
    assert_eq!(here.changes(), 0, "{here:#?}");
    let (plan, elsewhere) = imported(&config);
    let [row] = domains(&elsewhere)[..] else { panic!("{plan:#?}") };
    assert_eq!((row.domain.as_str(), row.access_tier.as_str()), ("b.test", "internal"));
    let after = exported(&compiled(&elsewhere));
    for router in ["a.test", "b.test-x"] {
        assert_eq!(after["http"]["routers"][router]["service"], "charliehub-closed", "{router}: {after:#}");
    }
    assert_eq!(plan.warnings.iter().filter(|said| said.contains("answers 503")).count(), 2, "{:?}", plan.warnings);
}

/// Valid rows that are live, on hosts where they meet.
fn any_row() -> impl Strategy<Value = Domain> {
    let name = prop::sample::select(vec!["a.test", "*.a.test", "x.a.test", "b.test", "xn--9ca.test"]);
    let path = prop::sample::select(vec!["/", "/x", "/x/y", "/x!", "/a@b", "/%20", "/caf%C3%A9", "/a%2Fb", "/a.b~c"]);
    let tier = prop::sample::select(vec![
        json!({}),
        json!({"access_tier": "internal"}),
        json!({"access_tier": "internal", "ip_allowlist": ["10.44.3.0/24"]}),
        json!({"access_tier": "restricted", "ip_allowlist": ["192.0.2.0/24", "192.0.3.0/24", "2001:db8::1/128"]}),
    ]);
    let tls = prop::sample::select(vec![
        json!({}),
        json!({"tls_mode": "none"}),
        json!({"tls_mode": "acme", "cert_resolver": "le"}),
        json!({"auth_required": true}),
    ]);
    let what = prop::sample::select(vec![
        json!({}),
        json!({"backend_scheme": "h2c", "backend_host": "fd00::7", "backend_port": 8080}),
        json!({"backend_host": null, "backend_port": null, "sticky": {"cookie": "c", "same_site": "lax", "secure": true},
            "health_check": {"path": "/up", "interval": "90s"},
            "backends": [{"host": "a", "port": 1, "weight": 3}, {"host": "b", "port": 2, "scheme": "https", "weight": 0}]}),
        json!({"backend_host": null, "backend_port": null, "backends": [{"host": "a", "port": 1}, {"host": "a", "port": 2}]}),
        json!({"backend_host": null, "backend_port": null, "service_type": "reference", "service_ref": "api@internal"}),
        json!({"backend_host": null, "backend_port": null, "service_type": "redirect", "redirect_to": "https://new.test/x",
            "redirect_keep_path": true}),
        json!({"backend_host": null, "backend_port": null, "service_type": "redirect",
            "redirect_to": "https://new.test/x?y#z", "redirect_permanent": true}),
    ]);
    let more = prop::sample::select(vec![
        json!({}),
        json!({"middlewares": ["gzip@file", "x@docker"]}),
        json!({"rate_limit": {"average": 10}}),
        json!({"rate_limit": {"average": 10, "burst": 1, "period": "1500ms"}, "priority": 77}),
    ]);
    (any::<u128>(), name, path, tier, tls, what, more).prop_map(|(id, name, path, tier, tls, what, more)| {
        let mut columns = json!({"path_prefix": path});
        for part in [tier, tls, what, more] {
            columns.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        let mut row = domain_with(name, &columns);
        row.id = uuid::Uuid::from_u128(id);
        row
    })
}

fn any_tcp_row() -> impl Strategy<Value = Domain> {
    let tls = prop::sample::select(vec!["default", "passthrough", "acme", "none"]);
    let name = prop::sample::select(vec!["m.test", "*.m.test"]);
    let two = prop::sample::select(vec![false, true]);
    (any::<u128>(), name, tls, two).prop_map(|(id, name, tls, two)| {
        let mut columns =
            json!({"protocol": "tcp", "tcp_entrypoint": "mqtt", "tls_mode": tls, "access_tier": "internal"});
        if tls == "acme" {
            columns["cert_resolver"] = json!("le");
        }
        if two {
            let backends = json!({"backend_host": null, "backend_port": null,
                "backends": [{"host": "a", "port": 1, "weight": 2}, {"host": "fd00::1", "port": 2}]});
            columns.as_object_mut().unwrap().extend(backends.as_object().unwrap().clone());
        }
        let mut row = domain_with(name, &columns);
        row.id = uuid::Uuid::from_u128(id);
        row
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// What we export comes in as the rows that it came from, as far as Traefik can tell.
    #[test]
    fn an_export_comes_in_as_the_same_config(
        http in prop::collection::vec(any_row(), 1..8),
        tcp in prop::collection::vec(any_tcp_row(), 0..3),
    ) {
        let mut places = std::collections::BTreeSet::new();
        let mut plain = false;
        let keep = |row: &Domain| {
            let tcp = row.tcp_entrypoint.is_some();
            let none = tcp && row.tls_mode == charliehub_proto::domain::TlsMode::None;
            let fresh = places.insert((row.domain.clone(), row.path_prefix.clone(), tcp)) && !(none && plain);
            plain |= none && fresh;
            // Nobody may be asked who he is without TLS.
            fresh && !(row.auth_required && row.tls_mode == charliehub_proto::domain::TlsMode::None)
        };
        let rows: Vec<Domain> = http.into_iter().chain(tcp).filter(keep).collect();
        let rows: Rows = rows.into_iter().map(|row| (Key::domain(row.id), Arc::new(Row::Domain(row)))).collect();
        let before = compiled(&rows);
        let config = exported(&before);
        let (plan, after) = imported(&config);
        prop_assert_eq!(&compiled(&after), &before, "{:#?}", plan);
        prop_assert_eq!(fragments(&after), Vec::<&Fragment>::new());
        prop_assert_eq!(source(&config).plan(&rows, &settings()).changes(), 0);
    }
}
