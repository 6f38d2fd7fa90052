//! A tunnel that is gone is started again, by the hardened unit's own right and no more: a real systemd, a real `wg-quick`, a real
//! polkit, as the packages install them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "fails as its stories do")]

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{Caller, HUB_PACKAGES, Home, Lab, Systemd, measured, secs, until};

const EXAMPLES: &str = "/usr/share/doc/charliehub-edge-agent/examples";
const RUN_DIR: &str = "/run/charliehub-edge-agent";
/// The process of the tunnel, and its interface with it.
const KILL: &str = "systemctl kill -s KILL wg-quick@wg-fr";

fn settings(lab: &Lab, mode: &str) -> String {
    format!(
        "[timing]\nwireguard = \"500ms\"\ndoubt = \"200ms\"\nclear = \"400ms\"\nflapping = \"1s\"\n{}\
         [[act.restart]]\nsite = \"fr\"\nmode = \"{mode}\"\nafter = \"1s\"\n",
        lab.expected(),
    )
}

/// Waits until a check says it of wg-fr.
async fn told_by(check: &str, agent: Caller, status: Status, words: &str) -> Finding {
    let found = async || {
        let (_, body) = agent.send("GET", "/findings", "", "").map_err(|error| error.to_string())?;
        let all: Vec<Finding> = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        let found = all.into_iter().find(|one| one.check == check && one.target == "wg-fr");
        let found = found.ok_or("nothing is said of it")?;
        let deed = found.action.as_ref().map(ToString::to_string).unwrap_or_default();
        let is_it = found.status == status && (found.text.contains(words) || deed.contains(words));
        if is_it { Ok(found) } else { Err(format!("{found:?}")) }
    };
    let (found, took) = until(&format!("{status}: {words}"), secs(60), found).await;
    measured(words, took);
    found
}

async fn told(agent: Caller, status: Status, words: &str) -> Finding {
    told_by("restart", agent, status, words).await
}

#[tokio::test]
async fn a_tunnel_that_is_gone_is_started_again() {
    if !Systemd::can_boot() {
        return;
    }
    let home = Home::new();
    let lab = Lab::up(&home, 0).await;
    let systemd = Systemd::boot_as_hub(&home, &HUB_PACKAGES, &lab, &[("/dev/net/tun".into(), "/dev/net/tun")]).await;
    systemd.install(&home);
    let agent = systemd.caller("127.0.0.1:9745".parse().unwrap());
    let configure = |mode: &str| {
        systemd.output(&["tee", "/etc/charliehub/edge-agent.toml"], &settings(&lab, mode));
        systemd.must("systemctl restart charliehub-edge-agent");
    };
    systemd.must(&format!(
        "install -D -m 644 -t /etc/systemd/system/charliehub-edge-agent.service.d {EXAMPLES}/acting.conf"
    ));
    systemd.must("systemctl daemon-reload");

    // The tunnel of the lab becomes one of wg-quick, of the same keys.
    let conf = "umask 077; { wg showconf wg-fr | sed '/Interface/a Address = 10.254.35.1/30\\nMTU = 1420\\nTable = off\\n\
                PostUp = ip route replace 10.35.0.0/16 dev %i metric 100'; } >/etc/wireguard/wg-fr.conf";
    systemd.must(conf);
    systemd.must("ip link delete wg-fr");
    configure("act");
    told(agent, Status::Warning, "was stopped, or never started").await;
    systemd.must("systemctl start wg-quick@wg-fr");
    told(agent, Status::Ok, "wg-fr is there").await;

    // Not without the rule, which it says. Nor while somebody holds it.
    systemd.must(KILL);
    let refused = told(agent, Status::Critical, "needs the rule of polkit").await;
    println!("{}\n{}", refused.text, refused.action.unwrap());
    systemd.must(&format!("touch {RUN_DIR}/hold-fr"));
    let held = told(agent, Status::Critical, "held: wg-fr is gone").await;
    assert_eq!(held.remedy.unwrap(), format!("when it can be relied on: rm {RUN_DIR}/hold-fr"));
    systemd.must(&format!("install -m 644 -t /etc/polkit-1/rules.d {EXAMPLES}/charliehub-edge-agent.rules"));
    systemd.must(&format!("rm {RUN_DIR}/hold-fr"));
    let done = told(agent, Status::Ok, "done: wg-fr is there again").await;
    println!("{}\n{}", done.text, done.action.unwrap());
    told_by("wg-reachable", agent, Status::Ok, "answers").await;
    let (may, said) =
        systemd.try_sh("runuser -u charliehub-edge-agent -- systemctl restart --no-ask-password dbus.service");
    assert!(!may, "the rule lets it do nothing else: {said}");

    // Dead in the middle it knows that it began; it neither tries again at once nor begins to count anew.
    let unit = "/etc/systemd/system/charliehub-edge-agent.service.d/dies.conf";
    for (step, status, words) in [
        ("restart-noted", Status::Critical, "it was started lately, and is again after 10 min"),
        ("restart-done", Status::Ok, "it was started 1 of 3 times within a day"),
    ] {
        systemd.must(&format!("touch {RUN_DIR}/hold-fr; systemctl restart wg-quick@wg-fr"));
        told(agent, Status::Warning, "held: wg-fr is there").await;
        systemd.output(&["tee", unit], &format!("[Service]\nEnvironment=CHARLIEHUB_CRASH_AT={step}\n"));
        systemd.must(&format!("rm {RUN_DIR}/hold-fr {RUN_DIR}/restart-wg-fr.json"));
        systemd.must("systemctl daemon-reload; systemctl restart charliehub-edge-agent");
        told(agent, Status::Ok, "wg-fr is there").await;
        systemd.must(KILL);
        until("it has died of it, and is there again", secs(30), async || {
            let shown = systemd.must("systemctl show -p NRestarts,ActiveState charliehub-edge-agent");
            if shown.contains("NRestarts=1") && shown.contains("ActiveState=active") { Ok(()) } else { Err(shown) }
        })
        .await;
        told(agent, status, words).await;
    }

    // In a dry run it says when it would.
    systemd.must(&format!("rm {unit} {RUN_DIR}/restart-wg-fr.json; systemctl daemon-reload"));
    configure("dry-run");
    systemd.must(KILL);
    told(agent, Status::Critical, "dry run: nothing was changed").await;
    assert!(!systemd.path("/sys/class/net/wg-fr").exists(), "nothing was");
}
