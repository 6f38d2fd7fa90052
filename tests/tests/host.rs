//! The host's own state, with each thing wrong that the seed's hardening was made against: files, units, containers,
//! gateways, room and backups. Every remedy that is a command is run, and mends it.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command, time::Duration};

use charliehub_proto::finding::{Finding, Status};
use charliehub_tests::{Agent, Broker, Home, Podman, SmallDisk, Systemd, full, measured, secs};

/// In CI everything is looked at often; `--full` has the real intervals.
fn timing() -> &'static str {
    if full() { "" } else { "[timing]\nhost = '300ms'\ndoubt = '100ms'\nclear = '200ms'\n" }
}

/// Within which a fact of the host must be a finding, and ok again: `edge.md` section 6. With intervals of a tenth and less it
/// takes a second; what is left is for a machine that boots and installs beside it.
fn budget() -> Duration {
    if full() { secs(65) } else { secs(20) }
}

/// Runs a remedy, or what undoes a fault.
fn sh(line: &str) {
    let out = Command::new("sh").args(["-c", line]).output().unwrap_or_else(|error| panic!("sh: {error}"));
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Every finding that is not ok, as `STATUS CHECK TARGET`.
fn bad(findings: &[Finding]) -> Vec<String> {
    let bad = findings.iter().filter(|one| one.status != Status::Ok);
    let mut bad: Vec<String> = bad.map(|one| format!("{} {} {}", one.status, one.check, one.target)).collect();
    bad.sort();
    bad
}

fn remedy<'a>(findings: &'a [Finding], target: &str) -> &'a str {
    let found = findings.iter().find(|one| one.target == target).unwrap_or_else(|| panic!("no finding on {target}"));
    found.remedy.as_deref().unwrap_or_else(|| panic!("{target} has no remedy"))
}

/// Waits until all of so many targets of a check are known to be ok, and nothing is not.
async fn until_well(agent: &Agent, check: &str, count: usize) {
    let known = |all: &[Finding]| all.iter().filter(|one| one.check == check).count() == count;
    agent.until("all is well at first", budget(), |all| known(all) && bad(all).is_empty()).await;
}

/// Waits until exactly these are not ok.
async fn until_bad(agent: &Agent, wanted: &[String]) -> Vec<Finding> {
    let mut wanted = wanted.to_vec();
    wanted.sort();
    let (findings, took) = agent.until(&format!("exactly {wanted:?}"), budget(), |all| bad(all) == wanted).await;
    measured(&format!("{} findings", wanted.len()), took);
    findings
}

#[tokio::test]
async fn files_that_are_not_as_the_policy_says_are_named_and_mended_by_their_remedies() {
    let home = Home::new();
    let root = home.join("opt").display().to_string();
    let write = |name: &str, mode: &str, owner: &str| {
        let path = format!("{root}/{name}");
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        sh(&format!("chown {owner} \"{path}\" && chmod {mode} \"{path}\""));
    };
    for name in ["app/a.py", "app/b.py", "app/deep/er/c.py", "app/it's d.py", "app/e.py", "app/f.py", "app/g.py"] {
        write(name, "444", "root:root");
    }
    for name in ["app/.env", "app/x.yml"] {
        write(name, "440", "root:daemon");
    }
    for name in ["acme.json", "key", "gone"] {
        write(name, "600", "root:root");
    }
    sh(&format!(
        "mkdir -p {root}/data/1 {root}/data/2 {root}/data/3 && chmod 775 {root}/data/* && chown root:daemon {root}/data/*"
    ));
    let settings = format!(
        "{}
        [[policy.files]]
        paths = ['{root}/**/*.py']
        mode = '444'
        owner = 'root'
        [[policy.files]]
        paths = ['{root}/app/*.{{env,yml}}', '{root}/app/.env']
        mode = '440'
        group = 'daemon'
        [[policy.files]]
        paths = ['{root}/acme.json', '{root}/key', '{root}/gone']
        mode = '600'
        secret = true
        [[policy.files]]
        paths = ['{root}/data/*']
        kind = 'directory'
        mode = '775'
        writable_by = 'daemon'
        ",
        timing()
    );
    let agent = Agent::start(&home, &settings).await;
    until_well(&agent, "file-mode", 7).await;

    // What is done to it, how it is found, and what undoes it where the remedy is no command.
    let faults = [
        ("chmod 644", "app/a.py", "warning", None),
        ("chmod 446", "app/b.py", "critical", None),
        ("chown daemon", "app/deep/er/c.py", "warning", None),
        ("chown daemon:daemon", "app/it's d.py", "warning", None),
        ("chmod 4444", "app/f.py", "warning", None),
        ("chgrp root", "app/.env", "warning", None),
        ("chmod 460", "app/x.yml", "warning", None),
        ("chmod 604", "acme.json", "critical", None),
        ("chmod 640", "key", "warning", None),
        ("chgrp root", "data/1", "warning", None),
        ("chmod 755", "data/2", "warning", None),
        ("chmod 777", "data/3", "critical", None),
        ("rm", "gone", "critical", Some(format!("echo x >{root}/gone && chmod 600 {root}/gone"))),
    ];
    for (fault, name, ..) in &faults {
        sh(&format!("{fault} \"{root}/{name}\""));
    }
    fs::remove_file(format!("{root}/app/e.py")).unwrap();
    symlink("g.py", format!("{root}/app/e.py")).unwrap();
    let mut wanted: Vec<String> =
        faults.iter().map(|(_, name, status, _)| format!("{status} file-mode {root}/{name}")).collect();
    wanted.push(format!("critical file-mode {root}/app/e.py"));
    let findings = until_bad(&agent, &wanted).await;

    for (_, name, _, undo) in &faults {
        sh(undo.as_deref().unwrap_or_else(|| remedy(&findings, &format!("{root}/{name}"))));
    }
    assert!(remedy(&findings, &format!("{root}/app/e.py")).contains("back in place"));
    sh(&format!("rm {root}/app/e.py && echo x >{root}/app/e.py && chmod 444 {root}/app/e.py"));
    let findings = until_bad(&agent, &[]).await;
    let mended = findings.iter().find(|one| one.target == format!("{root}/app/a.py"));
    assert!(mended.is_some_and(|one| one.status == Status::Ok), "what was wrong is seen to be right: {findings:?}");

    // A glob that matches nothing any more proves nothing.
    sh(&format!("mv {root}/app {root}/elsewhere && rm {root}/elsewhere/*.py {root}/elsewhere/deep/er/*.py"));
    let barren = [format!("warning file-mode {root}/**/*.py"), format!("warning file-mode {root}/app/*.{{env,yml}}")];
    let barren = [&barren[..], &[format!("critical file-mode {root}/app/.env")]].concat();
    until_bad(&agent, &barren).await;
}

#[tokio::test]
async fn a_full_disk_a_late_backup_and_a_read_only_one_are_found() {
    let home = Home::new();
    let disk = SmallDisk::mount(&home, "disk", 4);
    let (path, root) = (disk.path().display().to_string(), home.path().display().to_string());
    sh(&format!("mkdir {root}/data && mkdir {root}/backups && echo x >{root}/backups/1.gz"));
    let settings = format!(
        "{}
        [[policy.disks]]
        path = '{path}'
        [[policy.recent]]
        name = 'backup'
        path = '{root}/backups/*.gz'
        max_age = '26h'
        [[policy.files]]
        paths = ['{path}']
        kind = 'directory'
        writable_by = 'root'
        ",
        timing()
    );
    let agent = Agent::start(&home, &settings).await;
    until_well(&agent, "disk", 1).await;

    let ballast = disk.fill();
    sh(&format!("touch -d '30 hours ago' {root}/backups/1.gz && touch {root}/backups/2.gz"));
    let findings = until_bad(&agent, &[format!("critical disk {path}"), "warning recent backup".to_owned()]).await;
    let backup = findings.iter().find(|one| one.check == "recent").unwrap();
    assert!(backup.text.contains("2.gz is newer, and empty"), "{}", backup.text);
    assert!(remedy(&findings, &path).contains("du -x -h"));
    fs::remove_file(ballast).unwrap();
    sh(&format!("touch -d '40 hours ago' {root}/backups/1.gz"));
    until_bad(&agent, &["critical recent backup".to_owned()]).await;
    sh(&format!("echo x >{root}/backups/2.gz"));
    until_bad(&agent, &[]).await;

    disk.read_only(true);
    let read_only = [format!("critical disk {path}"), format!("warning file-mode {path}")];
    let findings = until_bad(&agent, &read_only).await;
    assert!(remedy(&findings, &path).contains("mount -o remount,rw"));
    disk.read_only(false);
    until_bad(&agent, &[]).await;
}

#[tokio::test]
async fn a_gateway_that_falls_silent_is_told_from_a_broker_that_is_down() {
    let home = Home::new();
    let mut broker = Broker::start(&home).await;
    broker.retain("us/gateway/kept");
    let gateways = ["uk", "fr", "us"]
        .map(|name| format!("[[policy.gateways]]\nname = '{name}'\ntopic = '{name}/gateway/#'\nmax_age = '3s'\n"));
    let settings = format!("{}{}{}", timing(), broker.settings(), gateways.concat());
    let (uk, fr) = (broker.gateway("uk/gateway/1"), broker.gateway("fr/gateway/1"));
    let agent = Agent::start(&home, &settings).await;

    // Of us there is only a message that the broker kept from before.
    let patience = if full() { secs(130) } else { secs(10) };
    let silent = |name: &str, status: Status| {
        let name = name.to_owned();
        move |all: &[Finding]| bad(all) == [format!("{status} gateway {name}")]
    };
    agent.until("us is silent, the others are not", patience, silent("us", Status::Critical)).await;
    let us = broker.gateway("us/gateway/1");
    agent.until("us speaks", patience, |all| bad(all).is_empty()).await;

    drop(fr);
    if !full() {
        agent.until("fr is late", patience, silent("fr", Status::Warning)).await;
    }
    let (findings, _) = agent.until("fr is silent", patience, silent("fr", Status::Critical)).await;
    assert!(remedy(&findings, "fr").contains("power and network of gateway fr"));
    let fr = broker.gateway("fr/gateway/1");
    agent.until("fr speaks", patience, |all| bad(all).is_empty()).await;

    let address = broker.address();
    let down = [
        format!("critical mqtt-broker {address}"),
        "unknown gateway fr".to_owned(),
        "unknown gateway uk".to_owned(),
        "unknown gateway us".to_owned(),
    ];
    broker.down();
    agent.until("the broker is down, and nobody is blamed for it", patience, |all| bad(all) == down).await;
    broker.up().await;
    agent.until("all is well again", patience, |all| bad(all).is_empty()).await;

    // Whom the broker does not let in cannot look.
    fs::write(broker.password_file(), "another").unwrap();
    broker.down();
    broker.up().await;
    let (findings, _) = agent
        .until("it is not let in", patience, |all| {
            all.iter().any(|one| one.check == "mqtt-broker" && one.status == Status::Unknown)
        })
        .await;
    assert!(remedy(&findings, &address).contains("password_file"));
    assert!(!agent.log().contains("another"), "a password is nobody's business");
    drop((uk, fr, us));
}

#[tokio::test]
async fn units_of_a_real_systemd_are_held_against_the_policy() {
    let home = Home::new();
    let mut systemd = Systemd::boot(&home).await;
    let service = |start: &str, more: &str| {
        format!(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart={start}\n{more}[Install]\nWantedBy=multi-user.target\n"
        )
    };
    for name in ["stops", "fails", "disabled", "masked", "good"] {
        systemd.unit(&format!("{name}.service"), &service("/bin/sleep infinity", ""));
    }
    systemd.unit(
        "loops.service",
        &service(
            "/bin/sh -c 'test -e /run/well && exec sleep infinity; sleep 0.3'",
            "Restart=always\nRestartSec=100ms\n",
        ),
    );
    systemd.unit("backup.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n");
    systemd.unit("backup.timer", "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n");
    let units = [
        "stops.service",
        "fails.service",
        "disabled.service",
        "masked.service",
        "good.service",
        "loops.service",
        "backup.timer",
    ];
    systemd.must(&format!("touch /run/well && systemctl daemon-reload && systemctl enable --now {}", units.join(" ")));
    let policy = units.map(|unit| format!("[[policy.units]]\nname = '{unit}'\n")).concat();
    let settings = format!("{}{policy}", timing());
    let window = if full() { "" } else { "[host]\nrestart_window = '5s'\n" };
    let agent = Agent::new(&home, &format!("{window}{settings}")).with_programs(systemd.programs()).started().await;
    until_well(&agent, "unit", units.len()).await;

    systemd.must("systemctl stop stops.service");
    systemd.must("systemctl kill -s KILL fails.service");
    systemd.must("systemctl disable disabled.service");
    systemd.must(
        "systemctl disable --now masked.service; rm /etc/systemd/system/masked.service; systemctl mask masked.service",
    );
    systemd.must("rm /run/well; systemctl kill loops.service");
    systemd.must("systemctl stop backup.timer");
    let is_found = |all: &[Finding]| {
        let mut bad = bad(all);
        // Looked at between two starts, it is critical.
        let looping = bad.iter().position(|one| one.ends_with(" unit loops.service"));
        looping.map(|place| bad.remove(place)).is_some()
            && bad
                == [
                    "critical unit backup.timer",
                    "critical unit fails.service",
                    "critical unit masked.service",
                    "critical unit stops.service",
                    "warning unit disabled.service",
                ]
    };
    let (findings, took) = agent.until("all but the good one are found", budget() * 2, is_found).await;
    measured("units", took);
    for unit in ["stops.service", "disabled.service", "backup.timer"] {
        systemd.must(remedy(&findings, unit));
    }
    assert!(remedy(&findings, "fails.service").contains("systemctl restart fails.service"));
    systemd.must("systemctl restart fails.service");
    // What is unmasked must still be there.
    systemd.must("systemctl unmask masked.service");
    systemd.unit("masked.service", &service("/bin/sleep infinity", ""));
    systemd.must("systemctl daemon-reload; systemctl enable --now masked.service; touch /run/well");
    let calm = if full() { secs(11 * 60) } else { secs(40) };
    agent.until("all is well again", calm, |all| bad(all).is_empty()).await;

    systemd.kill();
    let unknown = units.map(|unit| format!("unknown unit {unit}"));
    let findings = until_bad(&agent, &unknown).await;
    assert!(remedy(&findings, "good.service").contains("systemctl show"));
}

#[tokio::test]
async fn containers_that_end_are_ill_or_restart_are_found() {
    let home = Home::new();
    let mut podman = Podman::start(&home).await;
    let sleep = ["/bin/sleep", "1000"];
    fs::write(podman.root().join("healthy"), "").unwrap();
    podman.run("stops", &[], &sleep);
    podman.run("good", &[], &sleep);
    let health = ["--health-cmd", "/bin/test -e /healthy", "--health-interval", "disable", "--health-retries", "1"];
    podman.run("ill", &health, &sleep);
    podman.check_health("ill");
    podman.run(
        "loops",
        &["--restart", "always"],
        &["/bin/sh", "-c", "while test -e /healthy; do sleep 0.2; done; sleep 0.3"],
    );
    let names = ["stops", "good", "ill", "loops"];
    let policy = names.map(|name| format!("[[policy.containers]]\nname = '{name}'\n")).concat();
    let window = if full() { "" } else { "restart_window = '5s'\n" };
    let settings = format!("[host]\ndocker = '{}'\n{window}{}{policy}", podman.socket().display(), timing());
    let agent = Agent::start(&home, &settings).await;
    until_well(&agent, "container", names.len()).await;

    podman.podman(&["stop", "-t", "0", "stops"]);
    fs::remove_file(podman.root().join("healthy")).unwrap();
    podman.check_health("ill");
    let is_found = |all: &[Finding]| {
        let mut bad = bad(all);
        let looping = bad.iter().position(|one| one.ends_with(" container loops"));
        looping.map(|place| bad.remove(place)).is_some()
            && bad == ["critical container ill", "critical container stops"]
    };
    let (findings, took) = agent.until("all but the good one are found", budget() * 2, is_found).await;
    measured("containers", took);
    assert_eq!(remedy(&findings, "stops"), "docker start stops");
    podman.podman(&["start", "stops"]);
    fs::write(podman.root().join("healthy"), "").unwrap();
    podman.check_health("ill");
    let calm = if full() { secs(11 * 60) } else { secs(20) };
    agent.until("all is well again", calm, |all| bad(all).is_empty()).await;

    podman.podman(&["rm", "-f", "-t", "0", "good"]);
    until_bad(&agent, &["critical container good".to_owned()]).await;
    podman.run("good", &[], &sleep);
    until_bad(&agent, &[]).await;

    podman.down();
    let unknown = names.map(|name| format!("unknown container {name}"));
    let findings = until_bad(&agent, &unknown).await;
    assert!(remedy(&findings, "good").contains("systemctl start docker"));
}

#[tokio::test]
async fn what_cannot_be_asked_is_unknown_with_what_would_let_us() {
    let home = Home::new();
    let settings = format!(
        "[host]
        docker = '{}'
        {}
        [[policy.containers]]
        name = 'charliehub-traefik'
        [[policy.gateways]]
        name = 'uk'
        topic = 'uk/#'
        max_age = '10m'
        [[policy.units]]
        name = 'docker.service'
        [[policy.files]]
        paths = ['/etc/passwd']
        owner = 'nobody-has-this-name'
        ",
        home.join("nothing.sock").display(),
        timing()
    );
    let broken = home.join("programs");
    fs::create_dir_all(&broken).unwrap();
    fs::write(broken.join("systemctl"), "#!/bin/sh\nexec sleep 60\n").unwrap();
    sh(&format!("chmod 755 {}/systemctl", broken.display()));
    let agent =
        Agent::new(&home, &settings.replace("[host]", "[host]\ntimeout = '1s'")).with_programs(broken).started().await;
    let wanted = ["container charliehub-traefik", "file-mode /etc/passwd", "gateway uk", "unit docker.service"];
    let wanted = wanted.map(|one| format!("unknown {one}"));
    // Gateways are given time: 8 looks, each as long as the program that hangs.
    let (findings, _) = agent.until("all is unknown", budget() + secs(15), |all| bad(all) == wanted).await;
    for (target, words) in
        [("charliehub-traefik", "host.docker"), ("uk", "host.mqtt.address"), ("docker.service", "bus")]
    {
        assert!(remedy(&findings, target).contains(words), "{target}");
    }
}
