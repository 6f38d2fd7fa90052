//! A site whose address changed is called where its name leads to now: on real tunnels, over a name that is really looked up.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "fails as its stories do")]

use std::{fs, path::PathBuf, time::Duration};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{Agent, Home, Lab, measured, secs};

const OLD: &str = "203.0.113.2";
const NEW: &str = "203.0.113.9";
const NAME: &str = "fr.example.test";

/// Waits until it is said of wg-fr.
async fn told(agent: &Agent, status: Status, words: &str) -> (Finding, Duration) {
    let is_it = |one: &Finding| {
        let deed = one.action.as_ref().map(ToString::to_string).unwrap_or_default();
        one.check == "re-resolve" && one.status == status && (one.text.contains(words) || deed.contains(words))
    };
    let (findings, took) = agent.until(&format!("{status}: {words}"), secs(20), |all| all.iter().any(is_it)).await;
    (findings.into_iter().find(is_it).unwrap(), took)
}

struct Hub {
    lab: Lab,
    home: Home,
}

impl Hub {
    fn run_dir(&self) -> PathBuf {
        self.home.join("run")
    }

    fn hosts(&self) -> PathBuf {
        self.home.join("hosts")
    }

    /// What the name leads to from now on.
    fn leads_to(&self, address: &str) {
        fs::write(self.hosts(), format!("127.0.0.1 localhost\n{address} {NAME}\n")).unwrap();
    }

    async fn agent(&self, mode: &str) -> Agent {
        let settings = format!(
            "[timing]\nwireguard = \"300ms\"\ndoubt = \"100ms\"\nclear = \"200ms\"\n[act]\nrun_dir = \"{}\"\n{}\
             [[act.re_resolve]]\nsite = \"fr\"\nmode = \"{mode}\"\nafter = \"2s\"\n\
             [[act.re_resolve]]\nsite = \"uk\"\nmode = \"{mode}\"\n",
            self.run_dir().display(),
            self.lab.settings().replace(OLD, NAME),
        );
        Agent::new(&self.home, &settings).inside(&self.lab.hub()).with_hosts(self.hosts()).started().await
    }

    async fn endpoint(&self) -> String {
        let shown = self.lab.asked_on_hub("wg show wg-fr endpoints").await;
        shown.split_whitespace().last().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_site_with_a_new_address_is_called_there() {
    let home = Home::new();
    let hub = Hub { lab: Lab::up(&home, 0).await, home };
    // It does not call, and comes back with another address.
    let key = &hub.lab.sites().iter().find(|site| site.name == "fr").unwrap().hub_key;
    hub.lab
        .at_site(
            "fr",
            &format!("wg set wg-hub peer {key} remove && wg set wg-hub peer {key} allowed-ips 10.254.35.1/32"),
        )
        .await;
    hub.leads_to(OLD);
    let agent = hub.agent("dry-run").await;
    told(&agent, Status::Ok, "leads nowhere else").await;
    let only_calls = agent.finding("re-resolve", "uk").await.unwrap();
    assert_eq!((only_calls.status, only_calls.text.contains("by no name")), (Status::Ok, true), "{}", only_calls.text);

    let moves =
        format!("ip addr flush dev eth0 && ip addr add {NEW}/24 dev eth0 && ip route add default via 203.0.113.1");
    hub.lab.at_site("fr", &moves).await;
    hub.leads_to("");
    let (lost, _) = told(&agent, Status::Warning, "cannot be resolved").await;
    assert_eq!(lost.remedy.unwrap(), format!("getent ahosts {NAME}"));
    hub.leads_to(NEW);
    told(&agent, Status::Warning, "dry run: nothing was changed").await;
    assert_eq!(hub.endpoint().await, format!("{OLD}:51820"));
    drop(agent);

    // Held, it says so. Then it does it.
    fs::create_dir_all(hub.run_dir()).unwrap();
    fs::write(hub.run_dir().join("hold-fr"), "").unwrap();
    let agent = hub.agent("act").await;
    told(&agent, Status::Warning, "held").await;
    assert_eq!(hub.endpoint().await, format!("{OLD}:51820"));
    fs::remove_file(hub.run_dir().join("hold-fr")).unwrap();
    let (done, took) = told(&agent, Status::Warning, "done: it was read back").await;
    measured("from letting go to another endpoint", took);
    println!("{}", done.action.unwrap());
    assert_eq!(hub.endpoint().await, format!("{NEW}:51820"));
    let is_reached = |one: &Finding| one.check == "wg-reachable" && one.target == "wg-fr" && one.status == Status::Ok;
    agent.until("the site answers", secs(40), |all| all.iter().any(is_reached)).await;
    let log = agent.log();
    assert!(log.contains("a re-resolve begins") && log.contains("a re-resolve is done"), "{log}");

    // Once in two minutes, whatever the name says.
    hub.leads_to("203.0.113.10");
    told(&agent, Status::Warning, "does not answer yet").await;
    assert_eq!(hub.endpoint().await, format!("{NEW}:51820"));
}
