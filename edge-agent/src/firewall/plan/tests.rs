use charliehub_proto::policy;

use super::*;
use crate::firewall::{meant, read, rule::Services, save};

const SEED: &[(&str, &str, &str)] = &[
    ("PostgreSQL", "PREROUTING", "-p tcp --dport 5432 ! -s 172.16.0.0/12 -j DROP"),
    ("Redis", "PREROUTING", "-p tcp --dport 6379 ! -s 172.16.0.0/12 -j DROP"),
    ("own", "OUTPUT", "-p tcp --dport 5432 -d 127.0.0.1 -j DROP"),
];

fn wanted() -> Vec<Wanted> {
    let one = |(name, chain, text): &(&str, &str, &str)| {
        let rule = policy::Rule {
            name: (*name).to_owned(),
            family: policy::Family::Ipv4,
            table: "raw".to_owned(),
            chain: (*chain).to_owned(),
            rule: (*text).to_owned(),
        };
        let rules = meant(&rule, Family::V4, &Services::new());
        Wanted { name: rule.name, family: Family::V4, table: rule.table, chain: rule.chain, rules }
    };
    SEED.iter().map(one).collect()
}

fn planned(live: &str, file: Option<&str>) -> Plan {
    let saved = file.map_or(Saved::Missing, |text| {
        let layout = save::parse(text, &Services::new());
        if layout.tables.is_empty() {
            return Saved::Empty;
        }
        Saved::Read { rules: layout.clone(), layout, unproven: None }
    });
    let side = Side {
        family: Family::V4,
        nft: read::live(live, None, &Services::new()),
        legacy: read::Live::default(),
        default: Some(Backend::Nft),
        file: "/etc/iptables/rules.v4".into(),
        saved,
    };
    plan(&side, &wanted(), &Foreign::new(&config::Firewall::default()), file.unwrap_or_default())
}

fn commands(plan: &Plan) -> Vec<String> {
    let short = |step: &Step| {
        step.command.replace("-m comment --comment charliehub-harden ", "# ").replace("iptables -w -t raw ", "")
    };
    plan.live.iter().map(short).collect()
}

const POSTGRES: &str = "-A PREROUTING ! -s 172.16.0.0/12 -p tcp -m tcp --dport 5432 -j DROP";

#[test]
fn an_empty_firewall_gets_the_rules_in_their_order_live_and_saved() {
    let plan = planned("", None);
    assert_eq!(
        commands(&plan),
        [
            "-A PREROUTING # -p tcp --dport 5432 ! -s 172.16.0.0/12 -j DROP",
            "-A PREROUTING # -p tcp --dport 6379 ! -s 172.16.0.0/12 -j DROP",
            "-A OUTPUT # -p tcp --dport 5432 -d 127.0.0.1 -j DROP",
        ]
    );
    assert_eq!(plan.tables, [("ip", "raw".to_owned())]);
    let mark = "-m comment --comment charliehub-harden";
    assert_eq!(
        plan.saved.unwrap(),
        format!(
            "*raw\n-A PREROUTING {mark} -p tcp --dport 5432 ! -s 172.16.0.0/12 -j DROP\n\
             -A PREROUTING {mark} -p tcp --dport 6379 ! -s 172.16.0.0/12 -j DROP\n\
             -A OUTPUT {mark} -p tcp --dport 5432 -d 127.0.0.1 -j DROP\nCOMMIT\n"
        )
    );
    assert!(plan.is_restored && plan.left.is_empty());
}

#[test]
fn what_is_there_stays_and_what_takes_the_packets_comes_behind() {
    let taken = "-A PREROUTING -i a -j ACCEPT\n-A PREROUTING -p tcp -m tcp --dport 5432 -j ACCEPT";
    let live = format!("*raw\n:PREROUTING ACCEPT [0:0]\n{taken}\n{POSTGRES}\nCOMMIT\n");
    let file = format!("# by hand\n*nat\n:DOCKER - [0:0]\n-A DOCKER -j RETURN\nCOMMIT\n{live}");
    let plan = planned(&live, Some(&file));
    assert_eq!(
        commands(&plan),
        [
            "-I PREROUTING 2 # -p tcp --dport 5432 ! -s 172.16.0.0/12 -j DROP",
            "-A PREROUTING # -p tcp --dport 6379 ! -s 172.16.0.0/12 -j DROP",
            "-A OUTPUT # -p tcp --dport 5432 -d 127.0.0.1 -j DROP",
        ]
    );
    assert!(plan.tables.is_empty());
    let saved = plan.saved.unwrap();
    let gone: Vec<&str> = saved.lines().filter(|line| !line.contains(MARK)).collect();
    assert_eq!(gone, file.lines().collect::<Vec<_>>(), "only lines of ours were added");
    let raw: Vec<&str> = saved.lines().skip_while(|line| *line != "*raw").collect();
    assert!(raw[3].contains("charliehub-harden -p tcp --dport 5432"), "{raw:?}");
    assert!(raw[4].contains("--dport 5432 -j ACCEPT") && raw[6].contains("--dport 6379"), "{raw:?}");
}

#[test]
fn what_is_live_only_is_saved_as_it_is_and_all_of_it_is_no_step() {
    let own = "-A PREROUTING ! -s 172.16.0.0/12 -p tcp -m tcp --dport 6379 -m comment --comment redis -j DROP";
    let rest = "-A OUTPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 5432 -j DROP";
    let live = format!("*raw\n:PREROUTING ACCEPT [0:0]\n{POSTGRES}\n{own}\n{rest}\nCOMMIT\n");
    let first = planned(&live, Some(&format!("*raw\n{POSTGRES}\nCOMMIT\n")));
    assert!(first.live.is_empty() && !first.is_restored);
    let saved = first.saved.unwrap();
    assert_eq!(saved, format!("*raw\n{POSTGRES}\n{own}\n{rest}\nCOMMIT\n"));
    let second = planned(&live, Some(&saved));
    assert!(second.live.is_empty() && second.saved.is_none() && second.left.is_empty() && second.is_restored);
}
