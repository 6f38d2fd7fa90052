//! The Debian packages on a Debian that really boots: installed, hardened, upgraded while requests come, stopped dead,
//! rebooted, purged.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "fails as its stories do")]

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use charliehub_tests::{
    AGENT, Caller, HUB_PACKAGES, Home, PROVIDER, Systemd, Traefik, deb, full, measured, package, programs, repository,
    secs, until,
};

/// Rules as the agent's policy has them, saved and restored at each boot.
const RULES: &str = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    -A PREROUTING ! -s 172.16.0.0/12 -p tcp -m tcp --dport 5432 -j DROP\nCOMMIT\n";

/// Of each kind of check that needs rights of the host one that is well.
const POLICY: &str = r#"
name = "hub2"
[provider]
url = "http://127.0.0.1:8001"
[policy.firewall]
unit = "netfilter-persistent.service"
[[policy.firewall.rules]]
name = "PostgreSQL for containers only"
table = "raw"
chain = "PREROUTING"
rule = "-p tcp --dport 5432 ! -s 172.16.0.0/12 -j DROP"
[[policy.files]]
paths = ["/etc/charliehub/*.toml"]
mode = "440"
owner = "root"
[[policy.files]]
paths = ["/var/lib/charliehub-provider/admin.token"]
mode = "600"
owner = "charliehub-provider"
secret = true
[[policy.units]]
name = "charliehub-provider.service"
[[policy.units]]
name = "charliehub-provider.socket"
[[policy.disks]]
path = "/"
[[policy.recent]]
name = "settings"
path = "/etc/charliehub/*.toml"
max_age = "365d"
"#;

fn domain(number: usize) -> String {
    format!(
        r#"{{"domain":"n{number}.test","tls_mode":"none","backend_host":"127.0.0.1","backend_port":{}}}"#,
        9000 + number
    )
}

/// Writes and polls, one after the other, each on a connection of its own, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: thread::JoinHandle<(usize, Vec<String>)>,
    began: mpsc::Receiver<()>,
}

impl Load {
    fn start(caller: Caller, token: &str, first: usize) -> Self {
        let (stop, token) = (Arc::new(AtomicBool::new(false)), token.to_owned());
        let (stopped, (tell, began)) = (Arc::clone(&stop), mpsc::channel());
        let done = thread::spawn(move || {
            let (mut errors, mut number) = (Vec::new(), first);
            while !stopped.load(Ordering::Relaxed) {
                let written = match caller.send("POST", "/api/domains", &token, &domain(number)) {
                    Ok((201, _)) => true,
                    // Its private database starts: a write is told so at once, and tried again.
                    Ok((503, said)) if said.contains("problem:unavailable") => false,
                    other => {
                        errors.push(format!("write {number}: {other:?}"));
                        false
                    }
                };
                match caller.send("GET", "/traefik?instance=load", &token, "") {
                    Ok((200, body)) if body.contains("n0.test") => {}
                    other => errors.push(format!("poll {number}: {other:?}")),
                }
                if written {
                    number += 1;
                    tell.send(()).ok();
                }
            }
            (number, errors)
        });
        Self { stop, done, began }
    }

    fn until_rounds(&self, count: usize) {
        for _ in 0..count {
            self.began.recv_timeout(secs(60)).unwrap();
        }
    }

    /// The number after the last row, and what went wrong.
    fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.done.join().unwrap()
    }
}

#[tokio::test]
async fn the_packages_bring_a_hub_through_install_upgrade_a_dead_stop_a_reboot_and_purge() {
    if !Systemd::can_boot() {
        return;
    }
    let began = Instant::now();
    let home = Home::new();
    let mut systemd = Systemd::boot_with(&home, &HUB_PACKAGES).await;
    measured("booted", began.elapsed());
    let before = systemd.must("find / -xdev -path /proc -prune -o -path /sys -prune -o -print | sort");
    systemd.output(&["tee", "/etc/iptables/rules.v4"], RULES);
    systemd.must("iptables-restore </etc/iptables/rules.v4");
    let step = Instant::now();
    systemd.install(&home);
    measured("packed and installed", step.elapsed());
    let api = systemd.caller("127.0.0.1:8001".parse().unwrap());
    let agent = systemd.caller("127.0.0.1:9745".parse().unwrap());
    api.until_ready().await;

    what_was_installed(&systemd);
    what_the_units_may(&systemd);
    let token = systemd.must("cat /var/lib/charliehub-provider/admin.token").trim().to_owned();
    assert_eq!(api.send("POST", "/api/domains", &token, &domain(0)).unwrap().0, 201);
    everything_works_inside(&systemd, api, agent, &token).await;
    let rows = an_upgrade_refuses_nobody(&home, &systemd, api, &token).await;
    what_stands_still_is_started_anew(&systemd, api).await;

    let step = Instant::now();
    systemd.reboot().await;
    let api = systemd.caller("127.0.0.1:8001".parse().unwrap());
    api.until_ready().await;
    measured("rebooted and ready", step.elapsed());
    let (_, served) = api.send("GET", "/traefik", &token, "").unwrap();
    assert!(served.contains("n0.test") && served.contains(&format!("n{}.test", rows - 1)), "{served}");
    systemd.must("systemctl is-active charliehub-edge-agent charliehub-provider charliehub-provider.socket");

    nothing_is_left(&systemd, &before);
    measured("all of it", began.elapsed());
}

/// Modes, owners, pages, completions.
fn what_was_installed(systemd: &Systemd) {
    let listed = systemd.must(
        "stat -c '%a %U:%G %n' /usr/bin/charliehub-* /usr/lib/systemd/system/charliehub-* /etc/charliehub \
         /etc/charliehub/* /etc/logrotate.d/charliehub-provider /var/lib/charliehub-* /var/log/charliehub",
    );
    let wanted = [
        "555 root:root /usr/bin/charliehub-edge-agent",
        "555 root:root /usr/bin/charliehub-provider",
        "444 root:root /usr/lib/systemd/system/charliehub-backup.service",
        "444 root:root /usr/lib/systemd/system/charliehub-backup.timer",
        "444 root:root /usr/lib/systemd/system/charliehub-edge-agent.service",
        "444 root:root /usr/lib/systemd/system/charliehub-provider.service",
        "444 root:root /usr/lib/systemd/system/charliehub-provider.socket",
        "444 root:root /usr/lib/systemd/system/charliehub-rotate-keys@.service",
        "444 root:root /usr/lib/systemd/system/charliehub-rotate-keys@.timer",
        "555 root:root /etc/charliehub",
        "440 root:charliehub-edge-agent /etc/charliehub/edge-agent.toml",
        "440 root:charliehub-provider /etc/charliehub/provider.toml",
        "444 root:root /etc/logrotate.d/charliehub-provider",
        "700 charliehub-edge-agent:charliehub-edge-agent /var/lib/charliehub-edge-agent",
        "700 charliehub-provider:charliehub-provider /var/lib/charliehub-provider",
        "755 charliehub-provider:adm /var/log/charliehub",
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), wanted);
    for page in [PROVIDER, "charliehub-provider-domains-add", AGENT, "charliehub-edge-agent-check"] {
        let shown = systemd.must(&format!("man -l --warnings /usr/share/man/man1/{page}.1.gz | cat"));
        assert!(shown.contains("SYNOPSIS") && !shown.contains("warning:"), "{page}: {shown}");
    }
    for name in [PROVIDER, AGENT] {
        let loaded = systemd.must(&format!(
            "bash -c '. /usr/share/bash-completion/bash_completion; _completion_loader {name}; complete -p {name}'"
        ));
        assert!(loaded.contains(&format!("complete -F _{name}")) || loaded.contains(name), "{loaded}");
        systemd.must(&format!("dpkg -s {name} | grep -q 'Status: install ok installed'"));
        systemd.must(&format!(
            "test -s /usr/share/doc/{name}/copyright && zcat /usr/share/doc/{name}/changelog.Debian.gz"
        ));
    }
}

/// The units as systemd itself judges them.
fn what_the_units_may(systemd: &Systemd) {
    let units = [
        ("charliehub-provider.service", 1.5),
        ("charliehub-backup.service", 1.5),
        ("charliehub-edge-agent.service", 2.5),
    ];
    for (unit, most) in units {
        let said = systemd.must(&format!("systemd-analyze verify /usr/lib/systemd/system/{unit}"));
        assert_eq!(said, "", "systemd-analyze verify {unit}");
        let said =
            systemd.must(&format!("systemd-analyze security --no-pager --offline=true /usr/lib/systemd/system/{unit}"));
        let exposure =
            said.lines().find_map(|line| line.split_once("Overall exposure level for")?.1.split_whitespace().nth(1));
        let exposure: f64 = exposure.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
        println!("{unit}: exposure {exposure}");
        assert!(exposure <= most, "{unit}: {exposure}\n{said}");
    }
    for unit in ["charliehub-provider.socket", "charliehub-backup.timer"] {
        assert_eq!(systemd.must(&format!("systemd-analyze verify /usr/lib/systemd/system/{unit}")), "", "{unit}");
    }
}

/// Commands of root, a rehearsal with a real Traefik, checks of the agent, a reload: all within the hardened units.
async fn everything_works_inside(systemd: &Systemd, api: Caller, agent: Caller, token: &str) {
    let listed = systemd.must("charliehub-provider psql -- -Atc 'SELECT domain FROM domains'");
    assert!(listed.contains("n0.test"), "{listed}");
    let shows = async || {
        let status = systemd.must("systemctl show -p StatusText,User,NRestarts charliehub-provider");
        let wanted = ["StatusText=serving revision ", "User=charliehub-provider", "NRestarts=0"];
        if wanted.iter().all(|wanted| status.contains(wanted)) { Ok(()) } else { Err(status) }
    };
    until("the line of status tells what is served", secs(30), shows).await;

    systemd.copy(Traefik::program(), "/usr/bin/traefik");
    systemd.must("printf '[rehearse]\\ntraefik = \"/usr/bin/traefik\"\\n' >>/etc/charliehub/provider.toml");
    systemd.must("systemctl restart charliehub-provider");
    api.until_ready().await;
    let (status, said) = api.send("POST", "/api/domains?rehearse=true&dry_run=true", token, &domain(1)).unwrap();
    assert!(status == 200 && said.contains("\"rehearsal\""), "{status} {said}");
    let pid = systemd.must("systemctl show -P MainPID charliehub-provider");
    systemd.must("systemctl reload charliehub-provider");
    assert_eq!(api.send("GET", "/healthz", "", "").unwrap().0, 200);
    assert_eq!(systemd.must("systemctl show -P MainPID charliehub-provider"), pid, "a reload ends nothing");
    let log = systemd.must("cat /var/log/charliehub/changes.log");
    assert!(log.contains("n0.test"), "{log}");
    systemd.must("logrotate --force /etc/logrotate.d/charliehub-provider && test -s /var/log/charliehub/changes.log.1");

    systemd.must("chmod 640 /etc/charliehub/edge-agent.toml");
    systemd.output(&["tee", "/etc/charliehub/edge-agent.toml"], POLICY);
    systemd.must("chmod 440 /etc/charliehub/edge-agent.toml");
    systemd.must(
        "charliehub-provider token create --role agent --subject hub2 hub2 \
         | install -D -m 600 /dev/stdin /etc/credstore/agent-token",
    );
    systemd.must("systemctl restart charliehub-edge-agent && systemctl reload charliehub-edge-agent");
    let findings = async || {
        let (_, body) = agent.send("GET", "/findings", "", "").map_err(|error| error.to_string())?;
        let found: Vec<serde_json::Value> = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        let of = |check: &str| found.iter().any(|one| one["check"] == check);
        let checks = [
            "firewall-required",
            "firewall-persisted",
            "firewall-boot",
            "firewall-backend",
            "file-mode",
            "unit",
            "disk",
            "recent",
        ];
        let bad: Vec<_> = found.iter().filter(|one| one["status"] != "ok").collect();
        if checks.iter().all(|check| of(check)) && bad.is_empty() { Ok(()) } else { Err(format!("{bad:?} of {body}")) }
    };
    until("every check of the agent can look, and all is well", secs(60), findings).await;
    let said = systemd.must("charliehub-edge-agent check");
    assert!(said.starts_with("OK"), "{said}");
    let reported = async || {
        let (_, body) = api.send("GET", "/api/agents", token, "").map_err(|error| error.to_string())?;
        if body.contains("\"hub2\"") && body.contains("firewall-boot") { Ok(()) } else { Err(body) }
    };
    until("the agent's report came, with the token of its credential", secs(30), reported).await;
}

/// A package of a higher version, while rows are written and polled: no connection is refused, every poll is answered with
/// the routes, and every row that was taken is live.
async fn an_upgrade_refuses_nobody(home: &Home, systemd: &Systemd, api: Caller, token: &str) -> usize {
    let debs = home.join("newer");
    package(&debs, &["--revision", "2", "--only", PROVIDER]);
    let file = deb(PROVIDER, 2);
    systemd.copy(debs.join(&file), &format!("/root/{file}"));
    let pid = systemd.must("systemctl show -P MainPID charliehub-provider");
    let load = Load::start(api, token, 1);
    load.until_rounds(5);
    let began = Instant::now();
    systemd.must(&format!("dpkg -i /root/{file}"));
    measured("upgraded", began.elapsed());
    load.until_rounds(5);
    let (rows, errors) = load.stop();
    assert_eq!(errors, Vec::<String>::new(), "requests during the upgrade");
    println!("{rows} rows were written during it");
    assert_ne!(systemd.must("systemctl show -P MainPID charliehub-provider"), pid, "it was started anew");
    systemd.must("dpkg -s charliehub-provider | grep -q '^Version: .*-2$'");
    let all = async || {
        let (status, body) = api.send("GET", "/traefik", token, "").map_err(|error| error.to_string())?;
        let missing: Vec<usize> = (0..rows).filter(|number| !body.contains(&format!("n{number}.test"))).collect();
        if status == 200 && missing.is_empty() { Ok(()) } else { Err(format!("{status}: {missing:?} are missing")) }
    };
    until("every row that was answered is served", secs(10), all).await;
    rows
}

/// A process that gets no processor is ended and started by the watchdog, the provider's with a PostgreSQL below it.
async fn what_stands_still_is_started_anew(systemd: &Systemd, api: Caller) {
    systemd.must("systemctl restart charliehub-provider charliehub-edge-agent");
    api.until_ready().await;
    let show = "systemctl show -P NRestarts";
    let before = systemd.must(&format!("{show} {PROVIDER} {AGENT}"));
    assert_eq!(before.split_whitespace().collect::<Vec<_>>(), ["0", "0"]);
    let began = Instant::now();
    systemd.must(&format!("systemctl kill --kill-whom=main --signal=STOP {PROVIDER} {AGENT}"));
    let restarted = async || {
        let now = systemd.must(&format!("{show} {PROVIDER} {AGENT}; systemctl is-active {PROVIDER} {AGENT} || true"));
        if now.split_whitespace().eq(["1", "1", "active", "active"]) { Ok(()) } else { Err(now) }
    };
    until("the watchdog started both anew", secs(60), restarted).await;
    measured("stopped dead, and back", began.elapsed());
    api.until_ready().await;
    let why = systemd.must(&format!("journalctl --no-pager -u {PROVIDER} -u {AGENT} | grep -c 'Watchdog timeout'"));
    assert_eq!(why.trim(), "2");
}

/// As Debian has it: what was removed keeps settings and data, what was purged keeps nothing but its user.
fn nothing_is_left(systemd: &Systemd, before: &str) {
    systemd.must("dpkg -r charliehub-provider charliehub-edge-agent");
    systemd.must("test -e /etc/charliehub/provider.toml && test -d /var/lib/charliehub-provider/postgres");
    assert!(!systemd.try_sh("systemctl is-active charliehub-provider.socket charliehub-provider").0);
    systemd.must("dpkg --purge charliehub-provider charliehub-edge-agent");
    systemd.must("rm -f /root/*.deb /usr/bin/traefik");
    let after = systemd.must("find / -xdev -path /proc -prune -o -path /sys -prune -o -print | sort");
    let known: std::collections::BTreeSet<&str> = before.lines().collect();
    // Pages that were shown are in the cache of `man`, which is its own to clean.
    let left: Vec<&str> = after
        .lines()
        .filter(|path| path.contains("charliehub") && !path.starts_with("/var/cache/man/") && !known.contains(path))
        .collect();
    assert_eq!(left, Vec::<&str>::new(), "left behind");
    assert_eq!(systemd.must("systemctl --failed --plain --no-legend | grep charliehub || true"), "");
    systemd.must("id charliehub-provider && id charliehub-edge-agent");
}

/// The list of what is linked in, held against CycloneDX's own schema.
#[test]
fn what_is_in_the_programs_is_listed_as_cyclonedx_has_it() {
    const CHECK: &str = "import sys\n\
        from cyclonedx.schema import SchemaVersion\n\
        from cyclonedx.validation.json import JsonStrictValidator\n\
        found = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())\n\
        print('valid' if found is None else repr(found)[:2000])\n";
    let home = Home::new();
    package(home.path(), &["--only", AGENT]);
    let list = home.join(format!("{AGENT}.cdx.json"));
    let cache = std::env::var("XDG_CACHE_HOME")
        .map_or_else(|_| PathBuf::from(std::env::var("HOME").unwrap()).join(".cache"), PathBuf::from);
    let library = std::fs::read_dir(cache.join("charliehub")).unwrap().flatten();
    let library =
        library.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("/cyclonedx-python-lib-"));
    let mut check = Command::new("python3");
    check.env("PYTHONPATH", library.expect("deploy/install-tools.sh cyclonedx")).args(["-c", CHECK]);
    let said = check.arg(&list).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!(said.trim(), "valid");

    let list: serde_json::Value = serde_json::from_slice(&std::fs::read(list).unwrap()).unwrap();
    let parts: Vec<&str> =
        list["components"].as_array().unwrap().iter().filter_map(|part| part["name"].as_str()).collect();
    assert!(parts.contains(&"rustls") && parts.contains(&"charliehub-proto"), "{parts:?}");
    assert!(!parts.contains(&"proptest"), "what only tests use is not in the program");
}

/// The same commit in another folder: the same bytes. `--full` builds the programs there too, with nothing built before.
#[test]
fn two_clones_give_the_same_packages() {
    let home = Home::new();
    let first = home.join("one");
    // The second of the first: a build takes long, and the repository goes on meanwhile.
    let folders = [(first.clone(), repository().to_owned()), (home.join("another/much/longer/path"), first)];
    // Side by side: half of a build has work for one core alone.
    let made = folders.map(|(clone, of)| {
        let cloned = Command::new("git").args(["clone", "--quiet"]).arg(of).arg(&clone).status().unwrap();
        assert!(cloned.success());
        let mut command = Command::new(clone.join("deploy/package"));
        if !full() {
            command.arg("--fast").arg("--binaries").arg(programs());
        }
        command.env_remove("CARGO_TARGET_DIR").env_remove("SOURCE_DATE_EPOCH");
        let program = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        (clone, program)
    });
    let sums = made.map(|(clone, program)| {
        let made = program.wait_with_output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let listed =
            Command::new("sh").arg("-c").arg("sha256sum *").current_dir(clone.join("target/debian")).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    });
    println!("{}", sums[0]);
    assert_eq!(sums[0].lines().count(), 4, "{}", sums[0]);
    assert_eq!(sums[0], sums[1]);
}
