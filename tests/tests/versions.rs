//! What we say that an older Traefik does not know is what that Traefik does not know.
//!
//! Each version polls bodies that this test makes: all options that we say it knows at once, then every other one alone.
//! A body is taken when its marker shows in Traefik's API, and refused when the log says that it cannot be decoded.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "fails as its stories do"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use charliehub_proto::traefik::{
    Kind,
    since::{Need, TooOld, Version, every_need},
};
use charliehub_tests::{Backend, Home, Traefik, secs, until};
use hyper::Response;
use serde_json::{Value, json};

/// A Traefik, and the body that it polls.
struct Judge {
    traefik: Traefik,
    running: bool,
    body: Arc<Mutex<String>>,
    bodies: u32,
    /// Else Traefik makes one at each change, which takes longer than all the rest.
    certificate: Value,
    _server: Backend,
    _home: Home,
}

impl Judge {
    async fn of(version: &str) -> Self {
        let home = Home::new();
        let pair = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let certificate = json!({"certFile": pair.cert.pem(), "keyFile": pair.signing_key.serialize_pem()});
        let body = Arc::new(Mutex::new("{}".to_owned()));
        let shared = body.clone();
        let server = Backend::with(&home, move |_| Response::new(shared.lock().unwrap().clone())).await;
        let traefik = Traefik::of_version(&home, version, &format!("http://{}/", server.address())).await;
        Self { traefik, running: true, body, bodies: 0, certificate, _server: server, _home: home }
    }

    /// Why Traefik refuses it, if so. One that refused is started anew for the next: it would wait longer after each.
    async fn take(&mut self, body: &Value) -> Result<(), String> {
        self.bodies += 1;
        let number = self.bodies.to_string();
        let mut whole = body.clone();
        whole["http"]["middlewares"]["marker"] = json!({"headers": {"customResponseHeaders": {"X": number}}});
        whole["tls"]["stores"]["default"] = json!({"defaultCertificate": self.certificate});
        *self.body.lock().unwrap() = whole.to_string();
        if !self.running {
            self.traefik.launch();
        }
        let (verdict, _) = until("Traefik takes or refuses a body", secs(10), async || {
            let log = self.traefik.log();
            if let Some((_, reason)) = log.split_once("cannot decode configuration data: ") {
                return Ok(Err(reason.lines().next().unwrap_or_default().to_owned()));
            }
            let marker = self.traefik.try_api("/api/http/middlewares/marker@http").await.map_err(|e| e.to_string())?;
            let runs = marker.status == 200 && marker.json()["headers"]["customResponseHeaders"]["X"] == number;
            if runs { Ok(Ok(())) } else { Err(marker.text()) }
        })
        .await;
        self.running = verdict.is_ok();
        if !self.running {
            self.traefik.kill();
        }
        verdict
    }

    /// What Traefik says of the routers of a body that it took, by name: nothing, or why it disabled one.
    async fn routers(&self, protocol: &str, count: usize) -> BTreeMap<String, Option<Value>> {
        let path = format!("/api/{protocol}/routers?per_page=1000");
        let (listed, _) = until("Traefik lists every router", secs(10), async || {
            let listed = self.traefik.api(&path).await.as_array().cloned().unwrap_or_default();
            let ours = listed.into_iter().filter(|router| router["provider"] == "http");
            let said: BTreeMap<_, _> = ours
                .map(|router| {
                    let name = router["name"].as_str().unwrap().trim_end_matches("@http").to_owned();
                    (name, (router["status"] == "disabled").then(|| router["error"].clone()))
                })
                .collect();
            if said.len() == count { Ok(said) } else { Err(said.len()) }
        })
        .await;
        listed
    }
}

/// An option: the smallest body that holds it, and how it is called.
struct Alone {
    kind: Kind,
    path: String,
    body: Value,
}

/// Every option of the model, alone, and those that it shares between groups, at their other places.
fn options() -> Vec<Alone> {
    let kinds: BTreeMap<Kind, BTreeMap<String, Value>> =
        serde_json::from_str(include_str!("../../proto/tests/every_option.json")).unwrap();
    let cookie = json!({"path": "/", "domain": "a.test"});
    let strategy = json!({"ipv6Subnet": 64});
    let elsewhere = [
        (Kind::HttpService, json!({"weighted": {"sticky": {"cookie": cookie}}})),
        (Kind::HttpMiddleware, json!({"ipAllowList": {"ipStrategy": strategy}})),
        (Kind::HttpMiddleware, json!({"rateLimit": {"sourceCriterion": {"ipStrategy": strategy}}})),
        (Kind::HttpMiddleware, json!({"inFlightReq": {"sourceCriterion": {"ipStrategy": strategy}}})),
    ];
    let every = kinds.into_iter().flat_map(|(kind, bodies)| bodies.into_values().map(move |body| (kind, body)));
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for (kind, body) in every.chain(elsewhere) {
        for (path, body) in leaves(&body) {
            if seen.insert((kind, path.clone())) {
                found.push(Alone { kind, path, body });
            }
        }
    }
    found
}

/// Everything that says something, with only what leads to it around it.
fn leaves(value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Object(fields) if !fields.is_empty() => fields
            .iter()
            .flat_map(|(name, value)| {
                leaves(value).into_iter().map(move |(path, leaf)| (format!(".{name}{path}"), json!({ name: leaf })))
            })
            .collect(),
        Value::Array(items) => {
            items.iter().flat_map(leaves).map(|(path, leaf)| (format!("[]{path}"), json!([leaf]))).collect()
        }
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            vec![(format!("={value}"), value.clone())]
        }
    }
}

/// A body with one piece in it.
fn put(body: &mut Value, kind: Kind, name: &str, piece: &Value) {
    let (section, kind) = kind.name().split_once('.').unwrap();
    let kind = format!("{kind}s");
    if section == "tls" && kind == "certificates" {
        let all = body["tls"]["certificates"].as_array().into_iter().flatten().chain([piece]).cloned();
        body["tls"]["certificates"] = all.collect();
    } else {
        body[section][kind][name] = piece.clone();
    }
}

/// The field for which a version refuses all.
fn unknown_field(option: &Alone, version: Version) -> Option<Need> {
    let needs = every_need(option.kind, &option.body).into_iter();
    needs.filter(|need| need.too_old == TooOld::RefusesAll && need.since > version).min_by_key(|need| need.field.len())
}

/// Every option as `judge` has it: at least `refused` of them, or groups of them, are more than it knows.
async fn judge_options(judge: &mut Judge, version: Version, refused: usize) {
    let options = options();
    let (mut known, mut count, mut unknown) = (json!({}), 0, BTreeMap::new());
    for (i, option) in options.iter().enumerate() {
        // What is within an unknown group is unknown with it, whatever it is: one of them stands for the group.
        if let Some(need) = unknown_field(option, version) {
            unknown.entry((option.kind, need.field)).or_insert(option);
        } else {
            count += 1;
            put(&mut known, option.kind, &format!("option{i}"), &option.body);
        }
    }
    assert_eq!(judge.take(&known).await, Ok(()), "{version} knows each of {count}");
    assert!(unknown.len() >= refused, "{version}: {:?}", unknown.keys());
    for ((kind, field), option) in &unknown {
        let mut body = json!({});
        put(&mut body, *kind, "option", &option.body);
        let reason = judge.take(&body).await.expect_err(&format!("{version} knows {kind} {field} ({})", option.path));
        let name = field.rsplit('.').next().unwrap();
        assert!(reason.contains(&format!("field not found, node: {name}")), "{kind} {field}: {reason}");
    }
    println!("{version}: knows {count} options, refuses {}", unknown.len());
}

/// Words and rules that came later than their field.
fn values() -> Vec<(Kind, Value)> {
    let tcp = |rule: &str, tls: Value| (Kind::TcpRouter, json!({"rule": rule, "service": "s", "tls": tls}));
    let http = |rule: &str| (Kind::HttpRouter, json!({"rule": rule, "service": "s"}));
    let balancer =
        |strategy| json!({"loadBalancer": {"servers": [{"url": "http://127.0.0.1:1"}], "strategy": strategy}});
    let strategies = ["wrr", "p2c", "hrw", "leasttime"].map(|word| (Kind::HttpService, balancer(word)));
    let curves = [
        "CurveP256",
        "secp521r1",
        "X25519",
        "X25519MLKEM768",
        "x25519mlkem768",
        "SecP256r1MLKEM768",
        "secp256r1mlkem768",
        "SecP384r1MLKEM1024",
        "secp384r1mlkem1024",
    ]
    .map(|curve| (Kind::TlsOption, json!({"curvePreferences": [curve]})));
    let rules = [
        http("Host(`a.test`)"),
        http("HostRegexp(`^[a-z]+$`)"),
        tcp("HostSNI(`*`)", Value::Null),
        tcp("HostSNI(`a.test`)", json!({})),
        tcp("HostSNI(`a_b.test`)", json!({})),
        tcp("HostSNI(`*.a.test`)", json!({})),
        tcp("HostSNIRegexp(`^a_b$`)", json!({})),
        tcp("!HostSNI(`a.test`)", json!({})),
        tcp("!HostSNI(`a.test`)", Value::Null),
        tcp("ClientIP(`10.0.0.0/8`) && !HostSNI(`a.test`)", Value::Null),
        tcp("HostSNI(`*`) && !HostSNI(`a.test`)", Value::Null),
    ];
    strategies.into_iter().chain(curves).chain(rules).collect()
}

/// Each value in a router of its own: disabled where we say so. With none that would refuse the whole body.
async fn judge_values(judge: &mut Judge, version: Version) {
    let mut body = json!({
        "http": {"services": {"s": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:1"}]}}}},
        "tcp": {"services": {"s": {"loadBalancer": {"servers": [{"address": "127.0.0.1:1"}]}}}},
    });
    let mut expected = BTreeMap::new();
    for (i, (kind, value)) in values().into_iter().enumerate() {
        let needs: Vec<Need> = every_need(kind, &value).into_iter().filter(|need| need.since > version).collect();
        if needs.iter().any(|need| need.too_old == TooOld::RefusesAll) {
            continue;
        }
        let name = format!("value{i}");
        put(&mut body, kind, &name, &value);
        let (protocol, entry_point) = if kind == Kind::TcpRouter { ("tcp", "mqtt") } else { ("http", "web") };
        let router = &mut body[protocol]["routers"][&name];
        router["entryPoints"] = json!([entry_point]);
        if kind == Kind::HttpService {
            (router["rule"], router["service"]) = (json!("Host(`a.test`)"), json!(name));
        } else if kind == Kind::TlsOption {
            let rule = format!("Host(`{name}.test`)");
            (router["rule"], router["service"], router["tls"]) = (json!(rule), json!("s"), json!({"options": name}));
        } else if router["tls"].is_null() {
            router.as_object_mut().unwrap().remove("tls");
        }
        expected.insert((protocol, name), (value, needs.iter().any(|need| need.too_old == TooOld::Disables)));
    }
    assert_eq!(judge.take(&body).await, Ok(()), "{version}");
    for protocol in ["http", "tcp"] {
        let count = expected.keys().filter(|(of, _)| *of == protocol).count();
        let said = judge.routers(protocol, count).await;
        for ((_, name), (value, disabled)) in expected.iter().filter(|((of, _), _)| *of == protocol) {
            assert_eq!(said[name].is_some(), *disabled, "{version} {value}: {:?}", said[name]);
        }
    }
}

/// A rule that is read as another one disables nothing: the router just does not answer.
async fn judge_hosts(judge: &mut Judge, version: Version) {
    for (rule, host) in [("Host(`*.a.test`)", "b.a.test"), ("Host(`*`)", "b.test"), ("Host(`a.test`)", "a.test")] {
        let router = json!({"rule": rule, "service": "s", "entryPoints": ["web"]});
        let misread = every_need(Kind::HttpRouter, &router).iter().any(|need| need.since > version);
        let services = json!({"s": {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:1"}]}}});
        assert_eq!(judge.take(&json!({"http": {"routers": {"r": router}, "services": services}})).await, Ok(()));
        judge.traefik.until_status(&format!("http://{host}/"), if misread { 404 } else { 502 }).await;
    }
}

async fn is_judged_as_we_judge(version: &str, refused: usize) {
    let mut judge = Judge::of(version).await;
    let version = version.parse().unwrap();
    judge_values(&mut judge, version).await;
    judge_hosts(&mut judge, version).await;
    judge_options(&mut judge, version, refused).await;
}

#[tokio::test]
async fn traefik_3_0_4_knows_what_we_say_and_nothing_else() {
    is_judged_as_we_judge("3.0.4", 40).await;
}

#[tokio::test]
async fn traefik_3_4_3_knows_what_we_say_and_nothing_else() {
    is_judged_as_we_judge("3.4.3", 20).await;
}

#[tokio::test]
async fn traefik_3_6_15_knows_what_we_say_and_nothing_else() {
    is_judged_as_we_judge("3.6.15", 10).await;
}

#[tokio::test]
async fn the_newest_traefik_knows_everything() {
    is_judged_as_we_judge(Traefik::VERSION, 0).await;
}

/// What the table was made with, and what to run when Traefik has a new version: `deploy/install-tools.sh traefik-...`.
#[tokio::test]
#[ignore = "judges every version that is installed, some seconds each"]
async fn every_installed_traefik_knows_what_we_say_and_nothing_else() {
    let installed = Traefik::installed();
    assert!(!installed.is_empty(), "deploy/install-tools.sh traefik-3.0.4");
    for version in installed {
        is_judged_as_we_judge(&version, 0).await;
    }
}
