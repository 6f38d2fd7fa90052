//! A rule that we take is one that Traefik runs, and a rule that we refuse is one that it disables.
//!
//! Traefik reads a file with one router per rule; its API says which it disabled. Each verdict is compared with ours.

use std::collections::BTreeMap;

use charliehub_proto::traefik::{Kind, piece};
use charliehub_tests::{Home, Traefik, secs, until};
use serde_json::{Value, json};

const HTTP: &[&str] = &[
    "Host(`a.org`)",
    "host(`a.org`)",
    "HOST(`a.org`)",
    "hOST(`a.org`)",
    "Hostregexp(`a`)",
    "hostregexp(`a`)",
    "Clientip(`10.0.0.1`)",
    "ClientIp(`10.0.0.1`)",
    "Host(\"a.org\")",
    "Host('a.org')",
    "Host(a.org)",
    "Host(`a.org`,)",
    "Host(`a.org`,,)",
    "Host(`a.org`...)",
    "Host()",
    "Host(``)",
    "Host(`a`, `b`)",
    "Host(1)",
    "Host((`a`))",
    "(Host)(`a`)",
    "Host(`*`)",
    "Host(`*.a.org`)",
    "Host(`bücher.de`)",
    "Host(`a b`)",
    "Host(\"\\x61\")",
    "Host(\"\\400\")",
    "Host(\"\\'\")",
    "Host(\"\\u0061\\141\")",
    "`a`",
    "Host",
    "HostSNI(`a`)",
    "Headers(`a`, `b`)",
    "!Host(`a`)",
    "!!(Host(`a`))",
    "-Host(`a`)",
    "Host(`a`) && Path(`/`)",
    "Host(`a`) & Path(`/`)",
    "Host(`a`) and Path(`/`)",
    "Host(`a`) Path(`/`)",
    "Host(`a`) || Path(`/`) && !Method(`GET`)",
    "(Host(`a`)",
    "Host(`a`))",
    "Host(`a`) == Path(`/`)",
    "Host(`a`) &&",
    "Host(`a`)\n&& Path(`/`)",
    "Host(`a`) &&\nPath(`/`)",
    "Host(`a`)\n\n",
    "(Host(`a`)\n)",
    "Host(\n`a`\n)",
    "Host(`a`);",
    "Host(`a`) // a comment",
    "Host(`a`) /* a\ncomment */ && Path(`/`)",
    "Host(`a`) /* a comment */ && Path(`/`)",
    "Host(`a`) /* a comment",
    "\u{feff}Host(`a`)",
    "Host(`a\u{feff}`)",
    "Host(`a\u{0}`)",
    "x.Host(`a`)",
    "Path(`a`)",
    "Path(`/a b`)",
    "PathPrefix(`a`)",
    "PathPrefix(`/é`)",
    "PathRegexp(`^/a{`)",
    "PathRegexp(`^/a{2,1}`)",
    "PathRegexp(`a**`)",
    "PathRegexp(`*a`)",
    "PathRegexp(`(a{100}){11}`)",
    "PathRegexp(`a(?i)*`)",
    "PathRegexp(`a{01}`)",
    "PathRegexp(`\\Qa(`)",
    "PathRegexp(`\\<a\\>`)",
    "PathRegexp(`[[a]`)",
    "PathRegexp(`[a&&b]`)",
    "PathRegexp(`(?=a)`)",
    "PathRegexp(`(?<name>a)`)",
    "PathRegexp(`(?P<1>a)(?P<1>b)`)",
    "PathRegexp(`\\1`)",
    "PathRegexp(`\\12`)",
    "PathRegexp(`\\p{Greek}\\pL\\p{^Lu}`)",
    "PathRegexp(`\\p{Nope}`)",
    "PathRegexp(`[[:alpha:][:^digit:]]`)",
    "PathRegexp(`[[:nope:]]`)",
    "PathRegexp(`[\\b]`)",
    "PathRegexp(`\\C`)",
    "PathRegexp(`\\x{D800}`)",
    "PathRegexp(`\\x{110000}`)",
    "PathRegexp(`(?i-)a`)",
    "PathRegexp(`(?)a`)",
    "Method(`anything`)",
    "Header(`X-A`)",
    "Header(`X-A`, ``)",
    "Header(`X-A`, `1`)",
    "HeaderRegexp(`X-A`, `(`)",
    "HeaderRegexp(`(`, `a`)",
    "Query(`a`)",
    "Query(`a`, `b`, `c`)",
    "QueryRegexp(`(`)",
    "QueryRegexp(`a`, `(`)",
    "ClientIP(`10.0.0.1/8`)",
    "ClientIP(`10.0.0.1/08`)",
    "ClientIP(`10.0.0.1/33`)",
    "ClientIP(`10.0.0.01`)",
    "ClientIP(`fe80::1%eth0`)",
    "ClientIP(`::ffff:10.0.0.1/120`)",
    "ClientIP(`::/0`)",
    "ClientIP(`10.0.0.0/`)",
];

const HTTP_V2: &[&str] = &[
    "Host(`a`, `b`)",
    "HostHeader(`a`)",
    "HostRegexp(`{sub:[a-z]+}.a.org`)",
    "HostRegexp(`{sub:[a-z}.a.org`)",
    "Path(`/{id}`, `/b`)",
    "Path(`/{id`)",
    "Path(`/{}`)",
    "Path(`a`)",
    "PathRegexp(`a`)",
    "Method(`GET`, `PUT`)",
    "Headers(`a`)",
    "Headers(`a`, `b`)",
    "HeadersRegexp(`a`, `(`)",
    "Query(`a`)",
    "Query(`a=b`, `c={d:[0-9]+}`)",
    "ClientIP(`10.0.0.1`, `nope`)",
];

const TCP: &[&str] = &[
    "HostSNI(`a.org`)",
    "HostSNI(`*`)",
    "HostSNI(`*.a.org`)",
    "HostSNI(`*a.org`)",
    "HostSNI(`a b`)",
    "HostSNI(`bücher.de`)",
    "HostSNI(`a`, `b`)",
    "Hostsni(`a`)",
    "HostSNIRegexp(`^[a-z]+$`)",
    "HostSNIRegexp(`^[a-z$`)",
    "HostSNIRegexp(`ü`)",
    "ALPN(`h2`)",
    "ALPN(`acme-tls/1`)",
    "!HostSNI(`a`)",
    "!!HostSNI(`a`)",
    "!HostSNI(`a`) && HostSNI(`b`)",
    "ClientIP(`10.0.0.0/8`) && HostSNI(`a`)",
    "ClientIP(`10.0.0.0/8`) && !HostSNI(`a`)",
    "HostSNI(`*`) && HostSNI(`a`)",
    "HostSNI(`a`) || HostSNI(`*`)",
    "!(HostSNI(`a`) || ClientIP(`10.0.0.0/8`))",
    "Host(`a`)",
];

const TCP_V2: &[&str] = &[
    "HostSNI(`a`, `b`)",
    "HostSNI(`*.a`)",
    "HostSNIRegexp(`{sub:[a-z]+}.a`)",
    "HostSNIRegexp(`{sub`)",
    "ALPN(`h2`, `acme-tls/1`)",
];

/// Every router, by its name: what it is and what is written.
fn routers() -> BTreeMap<String, (Kind, Value)> {
    let tables = [
        ("http", Kind::HttpRouter, HTTP, json!(null), json!(null)),
        ("old-http", Kind::HttpRouter, HTTP_V2, json!("v2"), json!(null)),
        ("tcp", Kind::TcpRouter, TCP, json!(null), json!({"passthrough": true})),
        ("plain-tcp", Kind::TcpRouter, TCP, json!(null), json!(null)),
        ("old-tcp", Kind::TcpRouter, TCP_V2, json!("v2"), json!({})),
    ];
    let mut routers = BTreeMap::new();
    for (prefix, kind, rules, syntax, tls) in tables {
        let entry_point = if kind == Kind::HttpRouter { "web" } else { "mqtt" };
        for (i, rule) in rules.iter().enumerate() {
            let options = [
                ("service", json!("s")),
                ("rule", json!(rule)),
                ("entryPoints", json!([entry_point])),
                ("ruleSyntax", syntax.clone()),
                ("tls", tls.clone()),
            ];
            let given = options.into_iter().filter(|(_, value)| !value.is_null());
            let body = Value::Object(given.map(|(option, value)| (option.to_owned(), value)).collect());
            routers.insert(format!("{prefix}{i}"), (kind, body));
        }
    }
    routers
}

#[tokio::test]
async fn our_verdict_on_a_rule_is_the_verdict_of_traefik() {
    let home = Home::new();
    let routers = routers();
    let file = home.join("dynamic.yml");
    std::fs::write(&file, configuration(&routers).to_string()).unwrap();
    let traefik = Traefik::from_file(&home, "judge", &file).await;

    let mut verdicts = BTreeMap::new();
    for protocol in ["http", "tcp"] {
        let path = format!("/api/{protocol}/routers?per_page=1000");
        let count = routers.keys().filter(|name| name.contains(protocol)).count();
        let (listed, _) = until("Traefik lists every router", secs(10), async || {
            let listed = traefik.api(&path).await.as_array().cloned().unwrap_or_default();
            let ours = listed.iter().filter(|router| router["provider"] == "file").count();
            if ours == count { Ok(listed) } else { Err(format!("{ours} of {count}")) }
        })
        .await;
        for router in listed.into_iter().filter(|router| router["provider"] == "file") {
            let name = router["name"].as_str().unwrap().trim_end_matches("@file").to_owned();
            verdicts.insert(name, (router["status"] != "disabled", router["error"].clone()));
        }
    }

    let mut differing = Vec::new();
    for (name, (kind, body)) in &routers {
        let (taken, why) = &verdicts[name];
        let ours = piece(*kind, body);
        if ours.is_ok() != *taken {
            differing.push(format!("{name} {:?}: Traefik {taken} {why}, we {:?}", body["rule"], ours.err()));
        }
    }
    let refused = verdicts.values().filter(|(taken, _)| !taken).count();
    println!("{} rules, of which Traefik refuses {refused}", routers.len());
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert!(refused > 40 && routers.len() - refused > 40, "the table has good and bad ones");
}

/// For Traefik's file provider: JSON is YAML.
fn configuration(routers: &BTreeMap<String, (Kind, Value)>) -> Value {
    let of = |wanted: Kind| -> BTreeMap<&String, &Value> {
        routers.iter().filter(|(_, (kind, _))| *kind == wanted).map(|(name, (_, body))| (name, body)).collect()
    };
    json!({
        "http": {
            "routers": of(Kind::HttpRouter),
            "services": {"s": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:1"}]}}},
        },
        "tcp": {
            "routers": of(Kind::TcpRouter),
            "services": {"s": {"loadBalancer": {"servers": [{"address": "127.0.0.1:1"}]}}},
        },
    })
}
