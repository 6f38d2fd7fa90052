//! A quiet hour of a real firewall, recorded and played again: nothing may be said of it.
//!
//! `tests/data/quiet-firewall.gz` holds what `iptables-nft-save` and `ip6tables-nft-save` 1.8.9 printed in a network
//! namespace, every 5 s for more than an hour, and before it the two saved files. A quarter of an hour nothing happens. Then
//! containers come and go as dockerd writes their rules, addresses are banned and let go as by fail2ban, and wg-quick's rules
//! are there now and then.

use std::io::Read as _;

use charliehub_proto::finding::Status;

use super::{
    read::{Live, live},
    *,
};

/// What was printed: at which second of the recording, and of which family; or a saved file.
fn recording() -> Vec<(String, String)> {
    let mut text = String::new();
    let packed = include_bytes!("../../tests/data/quiet-firewall.gz").as_slice();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let records = text.split("@ ").skip(1).map(|record| record.split_once('\n').unwrap());
    records.map(|(head, printed)| (head.to_owned(), printed.to_owned())).collect()
}

/// The firewall that `deploy/agent/hub2.toml` wants.
fn policy() -> policy::Firewall {
    let sample: toml::Table = toml::from_str(include_str!("../../../deploy/agent/hub2.toml")).unwrap();
    sample["policy"]["firewall"].clone().try_into().unwrap()
}

#[test]
fn nothing_is_said_of_a_quiet_hour() {
    let services = Services::new();
    let foreign = Foreign::new(&config::Firewall::default());
    let wanted: Vec<Wanted> = policy()
        .rules
        .iter()
        .flat_map(|rule| judge::families(rule.family).iter().map(move |family| (rule, *family)))
        .map(|(rule, family)| {
            let (table, chain) = (rule.table.clone(), rule.chain.clone());
            Wanted { name: rule.name.clone(), family, table, chain, rules: meant(rule, family, &Services::new()) }
        })
        .collect();
    let recording = recording();
    let saved = |name: &str| {
        let (_, text) = recording.iter().find(|(head, _)| head == name).unwrap();
        let rules = save::parse(text, &services);
        Saved::Read { layout: rules.clone(), rules, unproven: None }
    };
    let side = |family: Family, printed: &str| Side {
        family,
        nft: live(printed, None, &services),
        legacy: Live::default(),
        default: Some(Backend::Nft),
        file: family.file().into(),
        saved: saved(family.file()),
    };
    let printed: Vec<_> = recording.iter().filter(|(head, _)| !head.starts_with("rules")).collect();
    let second = |head: &str| head.split(' ').next().unwrap().parse::<u32>().unwrap();
    assert!(second(&printed[printed.len() - 1].0) > 3600, "an hour");
    let mut seen = std::collections::BTreeSet::new();
    for pair in printed.chunks_exact(2) {
        let [(at, v4), (_, v6)] = pair else { panic!("of both families") };
        let (samples, _) = judge::judge(&[side(Family::V4, v4), side(Family::V6, v6)], &wanted, &foreign);
        let bad: Vec<_> = samples.iter().filter(|sample| sample.status != Status::Ok).collect();
        assert!(bad.is_empty(), "at {at}: {bad:#?}");
        assert!(samples.len() > wanted.len());
        seen.insert(v4.lines().filter(|line| line.starts_with("-A")).collect::<Vec<_>>());
    }
    println!("{} looks, {} different firewalls", printed.len() / 2, seen.len());
    assert!(seen.len() > 100, "a busy one too");
}
