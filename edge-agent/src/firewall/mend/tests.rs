use proptest::prelude::*;

use super::*;
use crate::{
    config,
    firewall::{diff, rule::Services, save},
};

fn parsed(rules: &[String], policy: &str) -> Ruleset {
    let text = format!("*filter\n:INPUT {policy} [0:0]\n{}COMMIT\n", rules.concat());
    save::parse(&text, &Services::new())
}

/// Does what the commands say, as iptables and sed would.
fn done(commands: &str, live: &mut Vec<String>, policy: &mut String, file: &mut Vec<String>) {
    for command in commands.split("   #").next().unwrap().split(" && ") {
        if let Some(edits) = command.strip_prefix("sed -i ") {
            let old = std::mem::take(file);
            let edits: Vec<&str> = edits.split("-e '").skip(1).map(|edit| edit.split('\'').next().unwrap()).collect();
            let last = old.len();
            for (number, line) in (1..).zip(old) {
                let of: Vec<(char, &str)> = edits
                    .iter()
                    .filter_map(|edit| {
                        let digits = edit.find(|c: char| !c.is_ascii_digit() && c != '$').unwrap();
                        let (at, rest) = edit.split_at(digits);
                        let is_here = if at == "$" { number == last } else { at.parse() == Ok(number) };
                        is_here.then(|| (rest.chars().next().unwrap(), rest.get(2..).unwrap()))
                    })
                    .collect();
                file.extend(of.iter().filter(|(what, _)| *what == 'i').map(|(_, text)| (*text).to_owned()));
                let changed = of.iter().find(|(what, _)| *what == 'c').map(|(_, text)| (*text).to_owned());
                file.push(changed.unwrap_or(line));
                file.extend(of.iter().filter(|(what, _)| *what == 'a').map(|(_, text)| (*text).to_owned()));
            }
            continue;
        }
        let rest = command.strip_prefix("iptables -w -t filter ").unwrap();
        let words: Vec<&str> = rest.splitn(3, ' ').collect();
        match words.as_slice() {
            ["-P", "INPUT", new] => (*new).clone_into(policy),
            ["-A", "INPUT", rule] => live.push(format!("-A INPUT {rule}\n")),
            ["-D", "INPUT", place] => drop(live.remove(place.parse::<usize>().unwrap() - 1)),
            ["-I", "INPUT", rest] => {
                let (place, rule) = rest.split_once(' ').unwrap();
                live.insert(place.parse::<usize>().unwrap() - 1, format!("-A INPUT {rule}\n"));
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    /// After the commands, both sides are the same in our rules, and those of others are where they were.
    #[test]
    fn the_commands_mend(live in rules(), saved in rules(), policies in ("(ACCEPT|DROP)", "(ACCEPT|DROP)")) {
        let foreign = Foreign::new(&config::Firewall::default());
        let (mut live, mut policy) = (live, policies.0);
        let mut file: Vec<String> = format!("*filter\n:INPUT {} [0:0]\n{}COMMIT", policies.1, saved.concat()).lines().map(str::to_owned).collect();
        for _ in 0..3 {
            let now = parsed(&live, &policy);
            let then = save::parse(&file.join("\n"), &Services::new());
            let (one, other) = (&now.tables["filter"], &then.tables["filter"]);
            let differences = diff::differences("filter", one, other, &foreign);
            if differences.is_empty() {
                break;
            }
            let place = Place { program: "iptables", table: "filter", file: Path::new("rules") };
            let sides = Sides { live: one, saved: other, layout: &then };
            let commands = reconcile(place, sides, &differences, &foreign).unwrap();
            done(&commands, &mut live, &mut policy, &mut file);
        }
        let (now, then) = (parsed(&live, &policy), save::parse(&file.join("\n"), &Services::new()));
        let left = diff::differences("filter", &now.tables["filter"], &then.tables["filter"], &foreign);
        prop_assert!(left.is_empty(), "{left:?}\nlive {live:?}\nfile {file:?}");
    }
}

fn rules() -> impl Strategy<Value = Vec<String>> {
    let rule = prop_oneof![
        4 => "-A INPUT -i [a-f] -j (DROP|ACCEPT)\n",
        1 => "-A INPUT -i [a-c] -j f2b-[xy]\n",
    ];
    proptest::collection::vec(rule, 0..8)
}

#[test]
fn rules_for_the_saved_file() {
    let layout = save::parse("*raw\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n", &Services::new());
    let rule =
        crate::firewall::rule::parse(r#"-m comment --comment "a\\b" -j DROP"#, &Services::new()).unwrap().remove(0);
    let edits = |table, chain, length| save_rule(&layout, table, chain, 0, length, &rule);
    let line = |chain: &str| format!(r#"-A {chain} -m comment --comment "a\\\\b" -j DROP"#);
    assert_eq!(
        edits("raw", "PREROUTING", 0),
        Some(vec![format!("3i {}", line("PREROUTING"))]),
        "sed reads a backslash twice"
    );
    assert_eq!(edits("raw", "CH", 0), Some(vec!["1a :CH - [0:0]".to_owned(), format!("3i {}", line("CH"))]));
    assert_eq!(
        edits("nat", "OUTPUT", 0),
        Some(vec!["$a *nat".to_owned(), format!("$a {}", line("OUTPUT")), "$a COMMIT".to_owned()])
    );
    assert_eq!(edits("raw", "PREROUTING", 2), None, "the file's lines are not what was restored");
}

#[test]
fn a_new_file_has_nothing_of_others() {
    let text = "*nat\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A DOCKER -j RETURN\n-A OUTPUT -j ACCEPT\nCOMMIT\n";
    let live = save::parse(text, &Services::new());
    let foreign = Foreign::new(&config::Firewall::default());
    let place = Place { program: "iptables", table: "", file: Path::new("/etc/iptables/rules.v4") };
    assert_eq!(
        save_all(place, &live, &foreign),
        "(umask 027; iptables-save | grep -vE '^(:|-A )(DOCKER)( |$)' | grep -vxF -e \
         '-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER' >/etc/iptables/rules.v4.new) && \
         mv /etc/iptables/rules.v4.new /etc/iptables/rules.v4"
    );
}
