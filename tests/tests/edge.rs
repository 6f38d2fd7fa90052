//! The whole edge: a hub with two real tunnels, a real firewall and a served certificate; sites, policy and names are rows.
//! What is broken on the hub shows in `check`, at the provider and in metrics, within its time, and goes when it is mended.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a story fails by panicking")]

use std::{fs, time::Duration};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{Agent, CertCase, Lab, Row, Site, Switch, World, full, measured, ms, secs, until};
use hyper::Method;
use serde_json::{Value, json};

const DOMAIN: &str = "app.example.test";
const RULE: &str = "PostgreSQL for containers only";
const DELETE: &str = "iptables-nft -t raw -D PREROUTING ! -s 172.16.0.0/12 -p tcp -m tcp --dport 5432 -j DROP";

/// The hub and all that watches it.
struct Edge {
    world: World,
    lab: Lab,
    agent: Agent,
}

impl Edge {
    /// Waits until the hub itself, the provider and the metrics say so of a target; tells how long that took.
    async fn until(&self, check: &str, target: &str, status: Status, within: Duration) -> Finding {
        let (finding, took) = self.agent.until_status(check, target, status, within).await;
        measured(&format!("{check} is {status}"), took);
        let what = format!("the provider knows that {check} is {status}");
        until(&what, secs(5), async || {
            let agents = self.world.provider.get("/api/agents").await.json();
            let known = findings_of_hub2(&agents)
                .into_iter()
                .any(|one| one["check"] == check && one["target"] == target && one["status"] == status.as_str());
            if known { Ok(()) } else { Err(agents) }
        })
        .await;
        let labels = format!("check=\"{check}\",target=\"{target}\"");
        let metrics = self.agent.metrics().await;
        let series = format!("charliehub_agent_check_status{{{labels}}} {}", status.code());
        assert!(metrics.contains(&series), "{series}\n{metrics}");
        let metric = format!("agent_finding{{agent=\"hub2\",{labels}}}");
        self.world
            .provider
            .until_metric(&metric, secs(5), |value| (value - f64::from(status.code())).abs() < 0.1)
            .await;
        let output = self.agent.run(&["check"]).await;
        assert!(output.code >= Some(i32::from(status == Status::Critical)), "{}", output.out);
        let line = output.out.lines().find(|line| line.contains(check) && line.contains(target)).unwrap_or_default();
        assert!(line.starts_with(status.as_str()), "{}", output.out);
        finding
    }
}

fn findings_of_hub2(agents: &Value) -> Vec<Value> {
    let hub2 = agents.as_array().and_then(|all| all.iter().find(|one| one["name"] == "hub2"));
    hub2.and_then(|hub2| hub2["findings"].as_array()).cloned().unwrap_or_default()
}

fn site(site: &Site) -> Value {
    json!({
        "name": site.name, "networks": [site.network], "hosts": [{ "address": site.host }],
        "tunnels": [{ "interface": site.interface, "public_key": site.key, "keepalive": 25, "peer_address": site.end,
            "allowed_ips": [site.network, format!("{}/32", site.end)] }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_on_the_hub_shows_everywhere_and_goes_when_it_is_mended() {
    let world = World::new().await;
    let lab = Lab::up(&world.home, 0).await;
    let hub = lab.hub();
    let provider = Switch::inside(&world.home, &hub, world.provider.address().port()).await;
    let good = CertCase::make(&world.home, "good", DOMAIN, "valid", "Good Root").await;
    let wrong = CertCase::make(&world.home, "wrong", DOMAIN, "wrong-san", "Other Root").await;
    let served = Switch::inside(&world.home, &hub, good.port.unwrap()).await;

    // What should be: rows.
    for one in lab.sites() {
        let answer = world.provider.send(Method::POST, "/api/sites", &site(one).to_string()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let policy = json!({ "firewall": { "rules": [{ "name": RULE, "table": "raw", "chain": "PREROUTING",
        "rule": "! -s 172.16.0.0/12 -p tcp --dport 5432 -j DROP" }] } });
    let answer = world.provider.send(Method::PUT, "/api/agents/hub2/policy", &policy.to_string()).await;
    assert!(answer.status < 300, "{}", answer.text());
    world.serve(&Row::https(DOMAIN, "127.0.0.1:9".parse().unwrap())).await;

    // What is: a firewall that is saved, and an agent.
    let rules = world.home.join("rules");
    fs::create_dir(&rules).unwrap();
    let token = world.provider.must(&["token", "create", "--role", "agent", "--subject", "hub2", "hub2"]).await;
    fs::write(world.home.join("agent.token"), token).unwrap();
    let firewall =
        format!("[firewall]\nrules_dir = \"{0}\"\nwants_dir = \"{0}\"\nplugins_dir = \"{0}\"\n", rules.display());
    let timing = "[timing]\nwireguard = \"500ms\"\nfirewall = \"1s\"\ncertificates = \"1s\"\ndoubt = \"200ms\"\nclear = \"500ms\"\n";
    let sockets = lab.settings().split("[[sites]]").next().unwrap_or_default().to_owned();
    let settings = format!(
        "name = \"hub2\"\n{}[provider]\nurl = \"http://{}\"\ntoken_file = \"{}\"\n{sockets}{firewall}\
         [certificates]\nentry_points = {{ websecure = \"{}\" }}\nauthorities = [\"{}\", \"{}\"]\n",
        if full() { "" } else { timing },
        provider.address(),
        world.home.join("agent.token").display(),
        served.address(),
        good.dir.join("root.pem").display(),
        wrong.dir.join("root.pem").display(),
    );
    let edge = Edge { agent: Agent::new(&world.home, &settings).inside(&hub), world, lab };
    edge.lab.on_hub(&DELETE.replace(" -D ", " -A ")).await;
    edge.lab
        .on_hub(&format!("iptables-nft-save > {0}/rules.v4; ip6tables-nft-save > {0}/rules.v6", rules.display()))
        .await;
    let mut edge = edge;
    edge.agent.up().await;
    for (check, target) in
        [("wg-reachable", "wg-fr"), ("wg-peer", "wg-uk"), ("firewall-required", RULE), ("certificate", DOMAIN)]
    {
        edge.until(check, target, Status::Ok, secs(40)).await;
    }

    edge.lab.fault("drop-underlay", "fr", None).await;
    edge.until("wg-reachable", "wg-fr", Status::Critical, secs(14)).await;
    edge.lab.undo("fr").await;

    edge.lab.on_hub(DELETE).await;
    let finding = edge.until("firewall-required", RULE, Status::Critical, secs(5) + ms(500)).await;
    let remedy = finding.remedy.unwrap();
    edge.lab.on_hub(&remedy).await;
    edge.until("firewall-required", RULE, Status::Ok, secs(40)).await;

    served.turn_to(wrong.port.unwrap());
    edge.until("certificate", DOMAIN, Status::Critical, secs(65)).await;
    served.turn_to(good.port.unwrap());
    edge.until("certificate", DOMAIN, Status::Ok, secs(90)).await;
    edge.until("wg-reachable", "wg-fr", Status::Ok, secs(60)).await;
}
