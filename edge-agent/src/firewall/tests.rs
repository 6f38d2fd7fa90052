use charliehub_proto::policy::Family as Wanted;

use super::*;

fn rule(family: Wanted, table: &str, text: &str) -> policy::Rule {
    policy::Rule {
        name: "a".to_owned(),
        family,
        table: table.to_owned(),
        chain: "INPUT".to_owned(),
        rule: text.to_owned(),
    }
}

#[test]
fn what_a_policy_may_say() {
    for (table, text, family, expected) in [
        ("raw", "-p tcp --dport 5432 -j DROP", Family::V4, "known"),
        ("raw", "-s 10.0.0.0/8 -j DROP", Family::V6, "10.0.0.0/8 is no ipv6 network"),
        ("raws", "-j DROP", Family::V4, "there is no table `raws`"),
        ("raw", "-p tcp", Family::V4, "it has no `-j`"),
        ("raw", "5432", Family::V4, "`5432` stands where an option must be"),
        ("raw", "-m set --match-set a src -j DROP", Family::V4, "unsure"),
    ] {
        let said = match meant(&rule(Wanted::Both, table, text), family, &Services::new()) {
            Meaning::Known(_) => "known".to_owned(),
            Meaning::Unsure(_) => "unsure".to_owned(),
            Meaning::Not(why) => why,
        };
        assert_eq!(said, expected, "{text}");
    }
}
