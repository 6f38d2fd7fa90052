//! A Debian that really boots, twice: its firewall is restored by netfilter-persistent, and the agent in it says what will be
//! and what will not.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{Agent, Home, Systemd, measured, secs};

/// Saved as netfilter-persistent has it: the raw rules of `deploy/agent/hub2.toml`.
const SAVED: &str = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    -A PREROUTING ! -s 172.16.0.0/12 -p tcp -m tcp --dport 5432 -j DROP\n\
    -A PREROUTING ! -s 172.16.0.0/12 -p tcp -m tcp --dport 6379 -j DROP\n\
    -A PREROUTING ! -s 172.16.0.0/12 ! -i lo -p tcp -m tcp --dport 8091 -j DROP\n\
    -A OUTPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 5432 -j DROP\n\
    -A OUTPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 6379 -j DROP\nCOMMIT\n";
const SAVED_V6: &str = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 5432 -j DROP\nCOMMIT\n";

/// Runs at the end of each boot: what the agent says; at the first one, also of a rule that nobody saved.
const PROOF: &str = "#!/bin/sh\n\
    check() { /usr/local/bin/charliehub-edge-agent --config /etc/agent.toml check --json >/proof/$1.json 2>/proof/$1.log; }\n\
    if [ -e /proof/first.json ]; then check second; iptables-save >/proof/second.rules\n\
    else check first; iptables -A INPUT -p tcp --dport 9 -j DROP; check unsaved; iptables-save >/proof/first.rules; fi\n\
    systemctl poweroff\n";
const UNIT: &str = "[Unit]\nAfter=netfilter-persistent.service dbus.service\n[Service]\nExecStart=/proof/run\n\
    [Install]\nWantedBy=multi-user.target\n";

#[tokio::test]
async fn what_the_agent_says_before_a_reboot_is_so_after_it() {
    if !Systemd::can_boot() {
        return;
    }
    let home = Home::new();
    let root = home.join("root");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Command::new(tests.join("tools/debian-root")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let shared = String::from_utf8(made.stdout).unwrap();
    assert!(Command::new("cp").arg("-a").arg(shared.trim()).arg(&root).status().unwrap().success());

    let binary = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("charliehub-edge-agent");
    std::fs::copy(binary, root.join("usr/local/bin/charliehub-edge-agent")).unwrap();
    std::fs::create_dir_all(root.join("proof")).unwrap();
    std::fs::write(root.join("proof/run"), PROOF).unwrap();
    std::fs::set_permissions(root.join("proof/run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(root.join("etc/systemd/system/proof.service"), UNIT).unwrap();
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    std::fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink("../proof.service", wants.join("proof.service")).unwrap();
    std::fs::create_dir_all(root.join("etc/iptables")).unwrap();
    std::fs::write(root.join("etc/iptables/rules.v4"), SAVED).unwrap();
    std::fs::write(root.join("etc/iptables/rules.v6"), SAVED_V6).unwrap();
    std::fs::write(root.join("etc/agent.toml"), Agent::sample_firewall()).unwrap();

    for boot in ["first", "second"] {
        let began = Instant::now();
        boot_to_the_end(&home, &root).await;
        measured(&format!("the {boot} boot, to its end"), began.elapsed());
    }
    let troubles = |name: &str| -> Vec<(String, String, Status)> {
        let text = std::fs::read_to_string(root.join(format!("proof/{name}.json"))).unwrap();
        let log = std::fs::read_to_string(root.join(format!("proof/{name}.log"))).unwrap();
        let findings: Vec<Finding> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {log}"));
        assert!(findings.iter().any(|one| one.check == "firewall-required"), "{text} {log}");
        let bad = findings.into_iter().filter(|one| one.status != Status::Ok);
        bad.map(|one| (one.check, one.target, one.status)).collect()
    };
    assert_eq!(troubles("first"), [], "what boot restored is what should be");
    let unsaved = ("firewall-persisted".to_owned(), "filter ipv4".to_owned(), Status::Warning);
    assert_eq!(troubles("unsaved"), [unsaved], "a rule that nobody saved is told before it is gone");
    assert_eq!(troubles("second"), []);
    let rules = |name: &str| std::fs::read_to_string(root.join(format!("proof/{name}.rules"))).unwrap();
    assert!(rules("first").contains("--dport 9 ") && !rules("second").contains("--dport 9 "), "and then it is gone");
    assert!(rules("second").contains("--dport 5432 -j DROP"), "what was saved survived");
}

/// PID 1 and all, until it powers off by itself.
async fn boot_to_the_end(home: &Home, root: &Path) {
    let log = std::fs::File::create(home.join("boot.log")).unwrap();
    let mut nspawn = tokio::process::Command::new("systemd-nspawn");
    nspawn.args(["--quiet", "--register=no", "--keep-unit", "--private-network", "--boot", "-D"]).arg(root);
    nspawn.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
    let ended = tokio::time::timeout(secs(80), nspawn.status()).await;
    let said = || std::fs::read_to_string(home.join("boot.log")).unwrap_or_default();
    assert!(ended.is_ok_and(|status| status.is_ok_and(|status| status.success())), "the boot did not end: {}", said());
}
