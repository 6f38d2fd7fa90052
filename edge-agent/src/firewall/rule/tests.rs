use proptest::prelude::*;

use super::*;

fn services() -> Services {
    Services::from([("postgresql".to_owned(), 5432), ("http".to_owned(), 80)])
}

fn rule(text: &str) -> Rule {
    let rules = parse(text, &services()).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(rules.len(), 1, "{text}");
    rules.into_iter().next().unwrap()
}

/// The left ones as people write them, the right ones as iptables-save 1.8.9 printed them after a restore.
#[test]
fn spellings_of_the_same() {
    for (written, printed) in [
        (
            "-p tcp ! --source 172.16.0.0/255.240.0.0 --destination-port postgresql -j DROP",
            "! -s 172.16.0.0/12 -p tcp -m tcp --dport 5432 -j DROP",
        ),
        (
            "-p TCP --dport 6379:6379 ! -s 172.16.0.0/12 -j DROP",
            "! -s 172.16.0.0/12 -p tcp -m tcp --dport 6379 -j DROP",
        ),
        ("-d localhost -p 6 --dport 5432 --jump DROP", "-d 127.0.0.1/32 -p tcp -m tcp --dport 5432 -j DROP"),
        ("-m comment --comment why -s 0/0 -j ACCEPT", "-j ACCEPT"),
        ("-p tcp --syn -j ACCEPT", "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT"),
        ("-m conntrack --ctstate established,new -j ACCEPT", "-m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT"),
        ("-m mark --mark 1 -j ACCEPT", "-m mark --mark 0x1 -j ACCEPT"),
        ("-j MARK --set-mark 3", "-j MARK --set-xmark 0x3/0xffffffff"),
        ("-p icmp --icmp-type echo-request -j DROP", "-p icmp -m icmp --icmp-type 8 -j DROP"),
        ("-p tcp -m tcp --dport 0:65535 -j ACCEPT", "-p tcp -m tcp -j ACCEPT"),
        ("-p tcp -m multiport --dports 80,22 -j ACCEPT", "-p tcp -m multiport --dports 22,http -j ACCEPT"),
        ("-m limit --limit 3/second -j ACCEPT", "-m limit --limit 3/sec -j ACCEPT"),
        ("-s ::1/128 -j ACCEPT", "-s ::1 -j ACCEPT"),
        ("-p all -j ACCEPT", "-j ACCEPT"),
    ] {
        let (written, printed) = (rule(written), rule(printed));
        assert!(written.does_the_same_as(&printed), "{written:?}\n{printed:?}");
        assert!(written.is_understood, "{written:?}");
    }
}

#[test]
fn what_is_not_the_same() {
    for (one, other) in [
        ("-p tcp --dport 5432 -j DROP", "-p udp --dport 5432 -j DROP"),
        ("-p tcp --dport 5432 -j DROP", "-p tcp --sport 5432 -j DROP"),
        ("-p tcp --dport 5432 -j DROP", "-p tcp ! --dport 5432 -j DROP"),
        ("-p tcp --dport 5432 -j DROP", "-p tcp --dport 5432 -j REJECT --reject-with tcp-reset"),
        ("-j CHAIN", "-g CHAIN"),
        ("-m mark --mark 1 -j ACCEPT", "-m connmark --mark 1 -j ACCEPT"),
        ("-m rpfilter -j DROP", "-j DROP"),
        ("-i eth0 -j DROP", "-i eth+ -j DROP"),
    ] {
        assert!(!rule(one).does_the_same_as(&rule(other)), "{one} | {other}");
    }
}

#[test]
fn words_that_only_iptables_can_judge() {
    for text in [
        "-m set --match-set bad src -j DROP",
        "-p tcp -j REJECT",
        "-s hub2.example.org -m rpfilter -j DROP",
        "-m u32 --u32 0=1 -j DROP",
    ] {
        assert!(!rule(text).is_understood, "{text}");
    }
}

#[test]
fn a_list_of_networks_is_a_rule_for_each() {
    let rules = parse("-s 10.0.0.0/8,192.168.0.0/16 -p tcp -j DROP", &services()).unwrap();
    let lines: Vec<String> = rules.iter().map(Rule::line).collect();
    assert_eq!(lines, ["-s 10.0.0.0/8 -p tcp -j DROP", "-s 192.168.0.0/16 -p tcp -j DROP"]);
}

#[test]
fn what_cannot_be_read_says_why() {
    for (text, error) in [
        (r#"--comment "a"#, Error::Quote),
        ("5432 -j DROP", Error::Stray("5432".to_owned())),
        ("-j", Error::NoValue("-j".to_owned())),
        ("-p tcp !", Error::NoValue("!".to_owned())),
    ] {
        assert_eq!(parse(text, &services()), Err(error), "{text}");
    }
}

#[test]
fn which_rule_takes_all_of_another() {
    let wanted = rule("! -s 172.16.0.0/12 -p tcp --dport 5432 -j DROP");
    for (earlier, covers) in [
        ("-p tcp --dport 5432 -j ACCEPT", true),
        ("-p tcp -j ACCEPT", true),
        ("-j ACCEPT", true),
        ("-p tcp -m multiport --dports 22,5432 -j ACCEPT", true),
        ("-p tcp --dport 5000:6000 -j ACCEPT", true),
        ("! -s 172.17.0.0/16 -p tcp -j ACCEPT", true),
        ("! -p udp -j ACCEPT", true),
        ("! -s 10.0.0.0/8 -p tcp -j ACCEPT", false),
        ("-s 10.0.0.0/8 -p tcp --dport 5432 -j ACCEPT", false),
        ("-i lo -j ACCEPT", false),
        ("-p udp -j ACCEPT", false),
        ("-p tcp --dport 5433 -j ACCEPT", false),
        ("-m conntrack --ctstate ESTABLISHED -j ACCEPT", false),
        ("-p tcp --dport 5432 -m limit --limit 3/sec -j ACCEPT", false),
    ] {
        assert_eq!(rule(earlier).covers(&wanted), covers, "{earlier}");
    }
    let local = rule("-i lo -d 127.0.0.1 -p tcp --dport 8091 -j DROP");
    assert!(rule("-i l+ -j ACCEPT").covers(&local));
    assert!(rule("! -i eth+ -j ACCEPT").covers(&local));
    assert!(rule("-d 127.0.0.0/8 ! -s 10.0.0.0/8 -j ACCEPT").covers(&rule("-d 127.0.0.1 -s 192.0.2.1 -j DROP")));
}

proptest! {
    #[test]
    fn a_printed_rule_is_read_as_it_was(rule in any_rule()) {
        let again = parse(&rule.line(), &services()).unwrap();
        prop_assert_eq!(again, vec![rule]);
    }

    #[test]
    fn a_rule_takes_what_it_takes_and_less_is_taken_by_more(rule in any_rule(), drop in any::<prop::sample::Index>()) {
        prop_assert!(rule.covers(&rule));
        let mut wider = rule.clone();
        if let Some(gone) = wider.matches.iter().nth(drop.index(wider.matches.len().max(1))).cloned() {
            wider.matches.remove(&gone);
            prop_assert!(wider.covers(&rule));
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "[-!a-z0-9./:, \"\\\\]{0,120}") {
        parse(&text, &services()).ok();
    }
}

/// Rules of all kinds of words.
fn any_rule() -> impl Strategy<Value = Rule> {
    let not = prop_oneof![Just(""), Just("! ")];
    let source = (not.clone(), any::<std::net::Ipv4Addr>(), 1..=32_u8)
        .prop_map(|(not, address, prefix)| format!("{not}-s {address}/{prefix}"));
    let inside = (not.clone(), "[a-z]{1,4}[+]?").prop_map(|(not, name)| format!("{not}-i {name}"));
    let ports = (not, any::<u16>(), any::<u16>())
        .prop_map(|(not, a, b)| format!("-p tcp -m tcp {not}--dport {}:{}", a.min(b), a.max(b)));
    let comment = "[ -~]{1,12}".prop_map(|text| {
        let text = text.replace('\\', r"\\").replace('"', "\\\"");
        format!("-m comment --comment \"{text}\"")
    });
    let state = Just("-m conntrack --ctstate RELATED,ESTABLISHED".to_owned());
    let target = prop_oneof![
        Just("-j DROP"),
        Just("-j ACCEPT"),
        Just("-j CH-SITES"),
        Just("-j REJECT --reject-with tcp-reset"),
        Just("")
    ];
    let any = prop_oneof![source, inside, ports, comment, state];
    (proptest::collection::vec(any, 0..4), target).prop_filter_map("read", |(parts, target)| {
        let text = format!("{} {target}", parts.join(" "));
        parse(&text, &services()).ok()?.into_iter().next()
    })
}
