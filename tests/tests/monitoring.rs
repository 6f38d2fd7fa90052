//! What watches the edge: every alert is tested and explained, one cause is one page, a page reaches somebody and so does its
//! end, and every panel of every dashboard shows something when something happens. Prometheus, Alertmanager and the exporters
//! are Debian's; there is no Grafana here: its own types check the dashboards, and its queries are asked as it would ask them.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a story fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use charliehub_proto::finding::Status;
use charliehub_tests::{
    Agent, Alertmanager, Backend, CertCase, Exporter, Home, Lab, Postgres, Prometheus, Row, Signal, Site, Stop, Switch,
    Traefik, World, deployed, deployed_files, ms, secs, unix_time, until,
};
use futures_util::future::join_all;
use hyper::{Method, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

mod tls;

/// An alert as its file has it.
#[derive(Debug, Default)]
struct Alert {
    severity: String,
    summary: String,
    description: String,
    runbook: String,
}

/// Every alert of `deploy/prometheus/rules`, by name.
fn alerts() -> BTreeMap<String, Alert> {
    let mut all = BTreeMap::new();
    let mut current: Option<(String, Alert)> = None;
    for file in deployed_files("prometheus/rules") {
        for line in fs::read_to_string(file).unwrap().lines() {
            let line = line.trim();
            if line.starts_with("- alert: ") || line.starts_with("- record: ") {
                all.extend(current.take());
            }
            if let Some(name) = line.strip_prefix("- alert: ") {
                current = Some((name.to_owned(), Alert::default()));
            }
            let (Some((_, alert)), Some((key, value))) = (&mut current, line.split_once(": ")) else { continue };
            let value = value.trim_matches('"').to_owned();
            match key {
                "severity" => alert.severity = value,
                "summary" => alert.summary = value,
                "description" => alert.description = value,
                "runbook_url" => alert.runbook = value,
                _ => {}
            }
        }
        all.extend(current.take());
    }
    all
}

/// The alerts that the unit tests expect to fire, and those that they expect not to.
fn tested() -> [BTreeSet<String>; 2] {
    let mut all = [BTreeSet::new(), BTreeSet::new()];
    for file in deployed_files("prometheus/tests") {
        let text = fs::read_to_string(file).unwrap();
        for test in text.split("alertname: ").skip(1) {
            let name = test.lines().next().unwrap().to_owned();
            all[usize::from(test.contains("exp_alerts: []"))].insert(name);
        }
    }
    all
}

fn must(program: &str, arguments: &[PathBuf]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; deploy/install-tools.sh prometheus"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said.into_owned()
}

#[test]
fn every_alert_is_tested_both_ways_and_has_a_severity_and_a_runbook() {
    let handbook = fs::read_to_string(deployed("README.md")).unwrap();
    let runbooks = handbook.split("\n## Runbooks\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let chapters: BTreeMap<&str, &str> =
        runbooks.split("\n### ").skip(1).filter_map(|chapter| chapter.split_once('\n')).collect();
    let alerts = alerts();
    let [fires, is_silent] = tested();
    assert!(alerts.len() > 30, "{alerts:?}");
    for (name, alert) in &alerts {
        assert!(fires.contains(name), "no unit test in which {name} fires");
        assert!(is_silent.contains(name), "no unit test in which {name} does not fire");
        assert!(["critical", "warning"].contains(&alert.severity.as_str()), "{name}: {alert:?}");
        assert!(alert.summary.len() > 10 && alert.description.contains("$value"), "{name}: {alert:?}");
        let anchor = alert.runbook.rsplit_once('#').map(|(_, anchor)| anchor.to_owned());
        assert_eq!(anchor, Some(name.to_lowercase()), "{name}'s runbook_url");
        let chapter =
            chapters.get(name.as_str()).unwrap_or_else(|| panic!("no runbook ### {name} in deploy/README.md"));
        assert!(chapter.contains("```"), "the runbook of {name} has no command");
    }
    let known = |name: &&&str| !alerts.contains_key(**name);
    assert_eq!(chapters.keys().filter(known).count(), 0, "runbooks of no alert: {:?}", chapters.keys());
}

#[test]
fn the_rules_do_what_their_unit_tests_say() {
    must("promtool", &["check".into(), "config".into(), deployed("prometheus/prometheus.yml")]);
    let all = |first: &str, folder: &str| [vec![first.into(), "rules".into()], deployed_files(folder)].concat();
    must("promtool", &all("check", "prometheus/rules"));
    must("promtool", &all("test", "prometheus/tests"));
    let said = must("amtool", &["check-config".into(), deployed("alertmanager/alertmanager.yml")]);
    assert!(said.contains("inhibit rules"), "{said}");
}

/// The dashboards: their file's name, and what is in it.
fn dashboards() -> Vec<(String, Value)> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let read = |path: &PathBuf| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    deployed_files("grafana/dashboards").iter().map(|path| (name(path), read(path))).collect()
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

fn cells(panel: &Value) -> [u64; 4] {
    ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap())
}

#[test]
fn dashboards_are_those_of_grafanas_own_types() {
    let place = Command::new(deployed("install-tools.sh")).arg("--grafana-schema").stderr(Stdio::inherit()).output();
    let place = PathBuf::from(String::from_utf8(place.unwrap().stdout).unwrap().trim());
    assert!(place.join("node_modules").is_dir(), "missing: deploy/install-tools.sh grafana-schema");
    let home = Home::new();
    std::os::unix::fs::symlink(place.join("node_modules"), home.join("node_modules")).unwrap();
    // JSON has the values of an enumeration, not its names.
    let mut text = "import type { Dashboard, Panel } from '@grafana/schema';\n".to_owned();
    let kinds =
        [("stat", "Stat"), ("timeseries", "TimeSeries"), ("state-timeline", "StateTimeline"), ("bargauge", "BarGauge")];
    for (number, (kind, name)) in kinds.iter().enumerate() {
        let folder = kind.replace('-', "");
        let path = format!("@grafana/schema/dist/esm/raw/composable/{folder}/panelcfg/x/{name}PanelCfg_types.gen");
        writeln!(text, "import type * as kind{number} from '{path}';").unwrap();
    }
    text += "type Json<T> = unknown extends T ? T : T extends string ? `${T}` : T extends object ? { [K in keyof T]: Json<T[K]> } : T;\n";
    for (number, (file, dashboard)) in dashboards().iter().enumerate() {
        writeln!(text, "// {file}\nexport const dashboard{number}: Json<Dashboard> = {dashboard};").unwrap();
        for panel in panels(dashboard) {
            let kind =
                kinds.iter().position(|(kind, _)| panel["type"] == *kind).expect("a kind of panel that is checked");
            let options = json!({ "options": panel["options"], "custom": panel["fieldConfig"]["defaults"]["custom"] });
            let has_custom = panel["fieldConfig"]["defaults"]["custom"].is_object();
            let (what, value) = if has_custom {
                (format!("{{ options: kind{kind}.Options; custom: kind{kind}.FieldConfig }}"), options)
            } else {
                (format!("{{ options: kind{kind}.Options }}"), json!({ "options": panel["options"] }))
            };
            let name = format!("panel{number}_{}", panel["id"]);
            writeln!(text, "// {file}: {}\nexport const {name}: Json<{what}> = {value};", panel["title"]).unwrap();
        }
    }
    fs::write(home.join("dashboards.ts"), &text).unwrap();
    let check = || {
        let mut command = Command::new("node");
        command.arg("node_modules/typescript/bin/tsc").current_dir(home.path());
        command.args(["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext"]);
        let output = command.args(["--moduleResolution", "bundler", "dashboards.ts"]).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (is_right, said) = check();
    assert!(is_right, "{said}");
}

#[test]
fn dashboards_say_first_whether_the_edge_is_right() {
    let mut uids = BTreeSet::new();
    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 6);
    for (file, dashboard) in &dashboards {
        assert!(uids.insert(dashboard["uid"].to_string()), "{file}: its uid is another one's");
        let variables: Vec<&Value> = dashboard["templating"]["list"].as_array().unwrap().iter().collect();
        for name in ["datasource", "instance", "site"] {
            assert!(variables.iter().any(|variable| variable["name"] == name), "{file}: no variable {name}");
        }
        assert!(dashboard["links"].to_string().contains("/debug"), "{file}: no link to /debug");
        let panels = panels(dashboard);
        assert!(panels.len() <= 24, "{file}: {} panels", panels.len());
        let first: Vec<&Value> = panels.iter().filter(|panel| cells(panel)[1] == 0).collect();
        assert!(first.len() >= 4 && first.iter().all(|panel| panel["type"] == "stat"), "{file}: its first row");
        assert_eq!(first[0]["title"], "Runs the newest", "{file}");
        for (at, panel) in panels.iter().enumerate() {
            let title = &panel["title"];
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(defaults["unit"].is_string() && defaults["thresholds"].is_object(), "{file}: {title}");
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 5), "{file}: {title}");
            assert!(panel["links"].to_string().contains("/debug"), "{file}: {title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {title}");
            let [x, y, w, h] = cells(panel);
            assert!(x + w <= 24 && w > 0 && h > 0, "{file}: {title} is out of the grid");
            for other in &panels[at + 1..] {
                let [ox, oy, ow, oh] = cells(other);
                let is_apart = x + w <= ox || ox + ow <= x || y + h <= oy || oy + oh <= y;
                assert!(is_apart && panel["id"] != other["id"], "{file}: {title} and {}", other["title"]);
            }
        }
    }
}

/// A webhook, and what it was told: the name of each alert with its state.
async fn webhook(home: &Home) -> Backend {
    Backend::with(home, |_| Response::new(String::new())).await
}

fn told(webhook: &Backend) -> Vec<(String, String)> {
    let bodies = webhook.seen();
    let bodies = bodies.iter().map(|seen| serde_json::from_str::<Value>(&seen.body).unwrap());
    let alerts = bodies.flat_map(|body| body["alerts"].as_array().cloned().unwrap_or_default());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    alerts.map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["status"]))).collect()
}

async fn until_told(webhook: &Backend, alert: &str, status: &str) {
    until(&format!("{alert} is told to be {status}"), secs(60), async || {
        let told = told(webhook);
        let is_it = told.iter().any(|(name, state)| name == alert && state == status);
        if is_it { Ok(()) } else { Err(told) }
    })
    .await;
}

/// Labels of a cause, of what it makes silent, and of the same about something else.
const CAUSES: [[&str; 3]; 10] = [
    ["ConfigRefused traefik=a", "NotLive traefik=a", "NotLive traefik=b"],
    ["TraefikDown job=traefik", "ServiceLevelBurnsFast slo=latency", "PostgresDown instance=a"],
    ["PostgresDown instance=a", "DatabaseLinkDown instance=b", "RedisDown instance=a"],
    [
        "WireGuardSiteUnreachable agent=a site=fr",
        "WireGuardTunnelDown agent=a site=fr",
        "WireGuardTunnelDown agent=a site=uk",
    ],
    ["AgentDown agent=a", "AgentSilent agent=a", "AgentSilent agent=b"],
    ["FirewallRuleMissing agent=a", "FirewallDrift agent=a", "FirewallDrift agent=b"],
    [
        "DiskSpaceCritical instance=a mountpoint=/",
        "DiskSpaceLow instance=a mountpoint=/",
        "DiskSpaceLow instance=a mountpoint=/b",
    ],
    [
        "CertificateAlmostExpired agent=a domain=a",
        "CertificateExpiresSoon agent=a domain=a",
        "CertificateExpiresSoon agent=a domain=b",
    ],
    [
        "ProviderCertificateAlmostExpired instance=a",
        "ProviderCertificateExpiresSoon instance=a",
        "ProviderCertificateExpiresSoon instance=b",
    ],
    [
        "ServiceLevelBurnsFast slo=availability",
        "ServiceLevelBurnsSlowly slo=availability",
        "ServiceLevelBurnsSlowly slo=latency",
    ],
];

fn labelled(text: &str, alerts: &BTreeMap<String, Alert>) -> Value {
    let (name, rest) = text.split_once(' ').unwrap();
    let mut labels = json!({ "alertname": name, "severity": alerts[name].severity });
    for (key, value) in rest.split(' ').filter_map(|pair| pair.split_once('=')) {
        labels[key] = value.into();
    }
    json!({ "labels": labels })
}

#[tokio::test]
async fn one_cause_is_one_page() {
    let alerts = alerts();
    join_all(CAUSES.iter().map(|causes| one_page(causes.map(|text| labelled(text, &alerts))))).await;
}

async fn one_page([cause, silent, other]: [Value; 3]) {
    let home = Home::new();
    let webhook = webhook(&home).await;
    let alertmanager = Alertmanager::start(&home, webhook.address()).await;
    alertmanager.post(&json!([cause, silent, other])).await;
    let state = async |of: &Value| {
        let all = alertmanager.alerts().await.unwrap_or_default();
        let found = all.into_iter().find(|one| one["labels"] == of["labels"]);
        found.and_then(|one| one["status"]["state"].as_str().map(str::to_owned)).unwrap_or_default()
    };
    until("the consequence is silent, and nothing else", secs(60), async || {
        let states = [state(&cause).await, state(&silent).await, state(&other).await];
        if states == ["active", "suppressed", "active"] { Ok(()) } else { Err((silent.clone(), states)) }
    })
    .await;
    for page in [&cause, &other] {
        until_told(&webhook, page["labels"]["alertname"].as_str().unwrap(), "firing").await;
    }
    let quiet = silent["labels"]["alertname"].as_str().unwrap();
    let pages = told(&webhook).iter().filter(|(name, _)| name == quiet).count();
    let expected = usize::from(quiet == other["labels"]["alertname"]);
    assert_eq!(pages, expected, "{:?}", told(&webhook));
}

#[tokio::test]
async fn a_page_reaches_somebody_and_so_does_its_end() {
    let mut world = World::new().await;
    let webhook = webhook(&world.home).await;
    let alertmanager = Alertmanager::start(&world.home, webhook.address()).await;
    let addresses = [("127.0.0.1:8001", world.provider.address()), ("127.0.0.1:9093", alertmanager.address())];
    let prometheus = Prometheus::start(&world.home, &addresses).await;
    prometheus.until(r#"up{job="charliehub-provider"} == 1"#, secs(30)).await;
    assert!(!told(&webhook).iter().any(|(name, _)| name == "ProviderDown"), "{:?}", told(&webhook));
    world.provider.kill();
    until_told(&webhook, "ProviderDown", "firing").await;
    world.provider.up().await;
    until_told(&webhook, "ProviderDown", "resolved").await;
}

const DOMAIN: &str = "app.example.test";
const RULE: &str = "PostgreSQL for containers only";
const ADD: &str = "iptables-nft -t raw -A PREROUTING ! -s 172.16.0.0/12 -p tcp -m tcp --dport 5432 -j DROP";

/// An edge, whole: the hub with its tunnels, its firewall and an agent; a Traefik; and everything that is scraped.
struct Edge {
    prometheus: Prometheus,
    traefik: Traefik,
    lab: Lab,
    hello: Backend,
    served: Switch,
    checked: Switch,
    /// A certificate that does not have the name.
    wrong: CertCase,
    _good: CertCase,
    _exporters: [Exporter; 4],
    agent: Agent,
    /// Last: it takes the folder with it, where the others find what they have to end.
    world: World,
}

impl Edge {
    async fn up() -> Self {
        let home = Home::new();
        let api = SocketAddr::from(([127, 0, 0, 1], home.port()));
        let postgres = Postgres::start(&home).await;
        let known = format!("instance = \"hub2\"\napi = \"http://{api}\"");
        let world = World::over(home, postgres, |provider| provider.traefik(&known)).await;
        let home = &world.home;
        let token = world.provider.token("traefik").await;
        let traefik = Traefik::measured_at(home, "hub2", world.provider.address(), &token, api).await;
        let lab = Lab::up(home, 0).await;
        let good = CertCase::make(home, "good", DOMAIN, "valid", "Good Root").await;
        let wrong = CertCase::make(home, "wrong", DOMAIN, "wrong-san", "Other Root").await;
        let served = Switch::inside(home, &lab.hub(), good.port.unwrap()).await;
        let agent = agent(&world, &lab, served.address(), [&good, &wrong]).await;
        let hello = world.backend("hello").await;
        let checked = Switch::to(home, hello.address().port());

        let redis = Exporter::redis_server(home).await;
        fill(home, redis.address());
        let exporters = [
            Exporter::node(home).await,
            Exporter::postgres(home, &world.postgres).await,
            Exporter::redis(home, &redis).await,
            redis,
        ];
        let out = Switch::out_of(home, &lab.hub(), agent.address().port()).await;
        let addresses = [
            ("127.0.0.1:9100", exporters[0].address()),
            ("127.0.0.1:8091", api),
            ("172.19.0.5:9187", exporters[1].address()),
            ("127.0.0.1:9121", exporters[2].address()),
            ("127.0.0.1:8001", world.provider.address()),
            ("127.0.0.1:9745", out.address()),
        ];
        let prometheus = Prometheus::start(home, &addresses).await;
        Self {
            prometheus,
            traefik,
            lab,
            hello,
            served,
            checked,
            wrong,
            _good: good,
            _exporters: exporters,
            agent,
            world,
        }
    }

    /// Waits until Prometheus sees it.
    async fn sees(&self, expression: &str) {
        self.prometheus.until(expression, secs(90)).await;
    }
}

async fn agent(world: &World, lab: &Lab, served: SocketAddr, cases: [&CertCase; 2]) -> Agent {
    let home = &world.home;
    let provider = Switch::inside(home, &lab.hub(), world.provider.address().port()).await;
    for one in lab.sites() {
        let answer = world.provider.send(Method::POST, "/api/sites", &site(one).to_string()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let policy = json!({ "firewall": { "rules": [{ "name": RULE, "table": "raw", "chain": "PREROUTING",
        "rule": "! -s 172.16.0.0/12 -p tcp --dport 5432 -j DROP" }] }, "disks": [{ "path": "/" }] });
    let answer = world.provider.send(Method::PUT, "/api/agents/hub2/policy", &policy.to_string()).await;
    assert!(answer.status < 300, "{}", answer.text());
    let rules = home.join("rules");
    fs::create_dir(&rules).unwrap();
    let rules = rules.display();
    lab.on_hub(&format!("{ADD}; iptables-nft-save > {rules}/rules.v4; ip6tables-nft-save > {rules}/rules.v6")).await;
    let token = world.provider.must(&["token", "create", "--role", "agent", "--subject", "hub2", "hub2"]).await;
    fs::write(home.join("agent.token"), token).unwrap();
    let sockets = lab.settings().split("[[sites]]").next().unwrap_or_default().to_owned();
    let settings = format!(
        "name = \"hub2\"\n\
         [timing]\nwireguard = \"500ms\"\nfirewall = \"1s\"\ncertificates = \"1s\"\ndoubt = \"200ms\"\nclear = \"500ms\"\n\
         [provider]\nurl = \"http://{}\"\ntoken_file = \"{}\"\n{sockets}\
         [firewall]\nrules_dir = \"{rules}\"\nwants_dir = \"{rules}\"\nplugins_dir = \"{rules}\"\n\
         [certificates]\nentry_points = {{ websecure = \"{served}\" }}\nauthorities = [\"{}\", \"{}\"]\n",
        provider.address(),
        home.join("agent.token").display(),
        cases[0].dir.join("root.pem").display(),
        cases[1].dir.join("root.pem").display(),
    );
    Agent::start_in(home, &settings, &lab.hub()).await
}

fn site(site: &Site) -> Value {
    json!({
        "name": site.name, "networks": [site.network], "hosts": [{ "address": site.host }],
        "tunnels": [{ "interface": site.interface, "public_key": site.key, "keepalive": 25, "peer_address": site.end,
            "allowed_ips": [site.network, format!("{}/32", site.end)] }],
    })
}

/// Sessions, more and more of them.
fn fill(home: &Home, redis: SocketAddr) {
    home.tasks().spawn(async move {
        let mut connection = TcpStream::connect(redis).await.unwrap();
        let mut answer = [0; 5]; // +OK and the end of the line
        for number in 0.. {
            connection.write_all(format!("SET session{number} {}\r\n", "x".repeat(2_000)).as_bytes()).await.ok();
            connection.read_exact(&mut answer).await.ok();
            tokio::time::sleep(ms(50)).await;
        }
    });
}

/// A backend that takes longer than the objective allows.
async fn slow(home: &Home) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = home.tasks().clone();
    home.tasks().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tasks.spawn(async move {
                let mut request = [0; 4_096];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    tokio::time::sleep(ms(1_500)).await; // it is what is measured
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nslow")
                        .await
                        .ok();
                }
            });
        }
    });
    address
}

/// Somebody who asks for this all the time.
fn visit(edge: &Edge, name: &str, pause: u64) {
    let (client, url) = (edge.traefik.client(), format!("http://{name}/"));
    edge.world.home.tasks().spawn(async move {
        loop {
            drop(client.get(&url).await);
            tokio::time::sleep(ms(pause)).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_shows_what_happens() {
    let mut edge = Edge::up().await;
    let world = &edge.world;
    world.insert(&Row::https(DOMAIN, edge.hello.address())).await;
    world.insert(&Row::http("good.test", edge.hello.address())).await;
    world.insert(&Row::http("slow.test", slow(&world.home).await)).await;
    let health = r#"{"path": "/", "interval": "1s"}"#;
    world.insert(&Row::http("checked.test", edge.checked.address()).with("health_check", health)).await;
    edge.traefik.until_answers("http://good.test/", "hello").await;
    for (name, pause) in [("good.test", 20), ("slow.test", 300), ("checked.test", 200)] {
        visit(&edge, name, pause);
    }
    edge.sees("count(up == 1) == 6").await;
    edge.sees("traefik_service_server_up == 1").await;
    edge.sees(r#"charliehub_agent_check_status{check="firewall-required"} == 0"#).await;
    edge.sees(r#"charliehub_agent_check_status{check="certificate"} == 0"#).await;
    edge.sees("count(charliehub_agent_wireguard_reachable == 1) == 2").await;
    edge.sees("charliehub_provider_instance_running_current == 1").await;
    let since = unix_time();

    // What the agent needs its time for goes first: a site that is cut off, a wrong certificate.
    edge.lab.fault("drop-underlay", "fr", None).await;
    edge.served.turn_to(edge.wrong.port.unwrap());
    edge.checked.turn_to(9);
    let dead = Row::http("dead.test", "127.0.0.1:9".parse().unwrap());
    world.insert(&dead).await;
    visit(&edge, "dead.test", 200);

    for number in 0..16 {
        let name = format!("row{number}.test");
        world.insert(&Row::http(&name, edge.hello.address())).await;
        edge.traefik.until_answers(&format!("http://{name}/"), "hello").await;
    }

    // A Traefik that is stopped does not run what it is sent.
    edge.traefik.signal(Signal::STOP);
    world.insert(&Row::http("late.test", edge.hello.address())).await;
    edge.sees("charliehub_provider_instance_lag_seconds > 1.5").await;
    edge.traefik.signal(Signal::CONT);
    edge.sees("charliehub_provider_instance_running_current == 1").await;

    let stream = world.provider.follow("", &[]).await;
    world.insert(&Row::http("refused.test", edge.hello.address()).with("middlewares", "{nobody@file}")).await;
    edge.sees("charliehub_provider_refused_routes + charliehub_provider_held_back_rows > 0").await;
    world.psql("DELETE FROM domains WHERE domain = 'refused.test'").await;

    world.psql("DELETE FROM domains").await;
    edge.sees("charliehub_provider_withheld == 1").await;
    let revision = world.postgres.revision().await.to_string();
    world.provider.must(&["discard", &revision]).await;
    edge.sees("charliehub_provider_withheld == 0").await;
    drop(stream);

    edge.world.postgres.stop(Stop::Fast).await;
    edge.sees("charliehub_provider_database_connected == 0").await;
    // What is found now cannot be reported yet.
    edge.lab.on_hub(&ADD.replace(" -A ", " -D ")).await;
    edge.sees(r#"charliehub_agent_check_status{check="firewall-required"} == 2"#).await;
    edge.sees("charliehub_agent_report_spool_entries > 0").await;
    edge.world.postgres.up().await;
    edge.sees("charliehub_provider_database_connected == 1").await;

    edge.sees(r#"charliehub_agent_check_status{check="certificate"} == 2"#).await;
    edge.sees("charliehub_agent_wireguard_reachable == 0").await;
    edge.sees("traefik_service_server_up == 0").await;
    for alert in ["FirewallRuleMissing", "WireGuardSiteUnreachable", "TraefikBackendDown"] {
        edge.sees(&format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}")).await;
    }

    each_shows_something_that_changes(&edge.prometheus, since, |name| !name.starts_with(TLS)).await;
    variables(&edge.prometheus).await;
    names(&edge.prometheus, |name| !name.starts_with(TLS)).await;
    let finding = edge.agent.finding("firewall-required", RULE).await.unwrap();
    assert_eq!(finding.status, Status::Critical);
}

/// What only a provider that listens with TLS tells.
const TLS: &str = "charliehub_provider_tls_";

async fn each_shows_something_that_changes(prometheus: &Prometheus, since: f64, is_asked: impl Fn(&str) -> bool) {
    let mut asked = 0;
    for (place, query) in queries().into_iter().filter(|(_, query)| is_asked(query)) {
        asked += 1;
        until(&format!("{place} shows something, and that it changed: {query}"), secs(60), async || {
            let series = prometheus.range(&query, since).await.map_err(|error| format!("{error:#}"))?;
            let values =
                |values: &Vec<String>| values.iter().filter(|value| *value != "NaN").collect::<BTreeSet<_>>().len();
            let most = series.iter().map(values).max();
            if most > Some(1) { Ok(()) } else { Err(format!("at most {most:?} values")) }
        })
        .await;
    }
    assert!(asked > 2, "{asked} queries");
}

/// The query of every panel, and where it is.
fn queries() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().unwrap() {
                let place = format!("{file}: {} {}", panel["title"], target["refId"]);
                all.push((place, substituted(target["expr"].as_str().unwrap())));
            }
        }
    }
    assert!(all.len() > 90, "{all:?}");
    all
}

/// As Grafana asks it: all instances, all sites, a scrape each second.
fn substituted(query: &str) -> String {
    let pairs = [("$__rate_interval", "10s"), ("$__range", "60s"), ("$instance", ".*"), ("$site", ".*")];
    let query = pairs.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    assert!(!query.contains("$_") && !query.contains("${"), "{query}");
    query
}

/// What a dashboard lets one choose from is there.
async fn variables(prometheus: &Prometheus) {
    for (file, dashboard) in dashboards() {
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let Some(inner) = variable["query"].as_str().and_then(|text| text.strip_prefix("label_values(")) else {
                continue;
            };
            let (metric, label) = inner.trim_end_matches(')').split_once(", ").unwrap();
            let values = prometheus.label_values(metric, label).await.unwrap();
            assert!(!values.is_empty() && !values.contains(&String::new()), "{file}: {inner}: {values:?}");
        }
    }
}

/// Every metric that a rule or a panel names is one that was really scraped; of those that are meant.
async fn names(prometheus: &Prometheus, is_meant: impl Fn(&str) -> bool) {
    let known: BTreeSet<String> = prometheus.names().await.unwrap().into_iter().collect();
    let mut text = String::new();
    for file in [deployed_files("prometheus/rules"), deployed_files("grafana/dashboards")].concat() {
        let all = fs::read_to_string(file).unwrap();
        text.extend(all.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(|line| [line, "\n"]));
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let families = ["charliehub_provider_", "charliehub_agent_", "traefik_", "node_", "pg_", "redis_", "slo:"];
    let used: BTreeSet<&str> = text
        .split(|c: char| !is_part(c))
        .filter(|word| families.iter().any(|family| word.starts_with(family) && word.len() > family.len()))
        .collect();
    assert!(used.len() > 50, "{used:?}");
    let missing: Vec<&&str> = used.iter().filter(|name| is_meant(name) && !known.contains(**name)).collect();
    assert!(missing.is_empty(), "nobody has {missing:?}");
}
