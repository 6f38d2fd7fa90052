//! The agent itself: what it is told, what it tells, what it does without a provider, and how people ask it.

#![allow(clippy::unwrap_used, reason = "a story fails by panicking")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use charliehub_proto::finding::Status;
use charliehub_tests::{Agent, Backend, Signal, SmallDisk, World, is_root, ms, secs, until};
use serde_json::Value;

const TIMING: &str = "[timing]\nwireguard = \"200ms\"\nfirewall = \"200ms\"\ncertificates = \"200ms\"\nhost = \"200ms\"\n\
                      doubt = \"50ms\"\nclear = \"100ms\"\nreport = \"500ms\"\n";

/// The settings of an agent `edge` of this provider, which watches that `secret` is one.
async fn settings(world: &World, secret: &Path) -> String {
    let token = world.provider.must(&["token", "create", "--role", "agent", "--subject", "edge", "edge"]).await;
    let file = world.home.join("agent.token");
    fs::write(&file, token).unwrap();
    format!(
        "name = \"edge\"\n{}\n{TIMING}\n[provider]\nurl = \"http://{}\"\ntoken_file = \"{}\"\n",
        watches(secret),
        world.provider.address(),
        file.display()
    )
}

fn watches(secret: &Path) -> String {
    format!("[[policy.files]]\npaths = [\"{}\"]\nmode = \"600\"\nsecret = true\n", secret.display())
}

fn secret(home: &Path) -> std::path::PathBuf {
    let secret = home.join("secret");
    fs::write(&secret, "s").unwrap();
    chmod(&secret, 0o600);
    secret
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What the provider knows of the agent, once it is right.
async fn until_known(world: &World, what: &str, right: impl Fn(&Value) -> bool) -> Value {
    until(what, secs(15), async || {
        let answer = world.provider.get("/api/agents").await.json();
        let edge = answer.as_array().and_then(|all| all.iter().find(|one| one["name"] == "edge")).cloned();
        edge.filter(&right).ok_or(answer)
    })
    .await
    .0
}

fn is_status(edge: &Value, check: &str, status: &str) -> bool {
    edge["findings"]
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one["check"] == check && one["status"] == status))
}

#[tokio::test]
async fn what_it_finds_is_known_at_once_and_what_is_mended_too() {
    let world = World::new().await;
    let secret = secret(world.home.path());
    let agent = Agent::start(&world.home, &settings(&world, &secret).await).await;
    until_known(&world, "all is well", |edge| is_status(edge, "file-mode", "ok")).await;

    chmod(&secret, 0o644);
    let (finding, _) = agent.until_status("file-mode", secret.to_str().unwrap(), Status::Critical, secs(5)).await;
    until_known(&world, "the provider knows", |edge| is_status(edge, "file-mode", "critical")).await;
    let metrics = agent.metrics().await;
    let series = format!("charliehub_agent_check_status{{check=\"file-mode\",target=\"{}\"}} 2", secret.display());
    assert!(metrics.contains(&series), "{metrics}");
    let metric = format!("agent_finding{{agent=\"edge\",check=\"file-mode\",target=\"{}\"}}", secret.display());
    world.provider.until_metric(&metric, secs(5), |value| value >= 2.0).await;

    let check = agent.run(&["check"]).await;
    assert_eq!(check.code, Some(2), "{}", check.err);
    assert!(check.out.starts_with("CRITICAL: 1 critical"), "{}", check.out);
    assert!(!check.out.contains('\x1b'), "no colour but on a terminal");
    let remedy = finding.remedy.expect("a remedy");
    assert!(check.out.contains(&remedy), "{}", check.out);
    let status = std::process::Command::new("sh").args(["-c", &remedy]).status().unwrap();
    assert!(status.success(), "{remedy}");
    until_known(&world, "it is mended", |edge| {
        is_status(edge, "file-mode", "ok") && !is_status(edge, "file-mode", "critical")
    })
    .await;
    let json: Vec<Value> = serde_json::from_str(&agent.run(&["check", "--json"]).await.out).unwrap();
    assert!(json.iter().any(|one| one["check"] == "provider" && one["status"] == "ok"), "{json:?}");
}

#[tokio::test]
async fn without_the_provider_it_goes_on_and_tells_in_order_when_it_is_back() {
    let mut world = World::new().await;
    world.psql("INSERT INTO sites (name, agent, networks) VALUES ('uk', 'edge', '{10.44.0.0/16}')").await;
    let secret = secret(world.home.path());
    let settings = settings(&world, &secret).await;
    let mut agent = Agent::start(&world.home, &settings).await;
    until_known(&world, "it reports", |edge| is_status(edge, "file-mode", "ok")).await;
    let expects = |text: &str| text.contains("1 sites");
    agent.until("a site is expected", secs(5), |all| all.iter().any(|one| expects(&one.text))).await;

    world.provider.kill();
    chmod(&secret, 0o644);
    agent.until_status("file-mode", secret.to_str().unwrap(), Status::Critical, secs(5)).await;
    agent.until_status("provider", &format!("http://{}", world.provider.address()), Status::Unknown, secs(10)).await;
    agent.kill();
    agent.up().await;
    agent.until("what was expected is kept", secs(5), |all| all.iter().any(|one| expects(&one.text))).await;
    agent.until_status("file-mode", secret.to_str().unwrap(), Status::Critical, secs(5)).await;
    chmod(&secret, 0o600);
    agent.until("it is mended", secs(5), |all| all.iter().all(|one| one.status != Status::Critical)).await;

    world.provider.up().await;
    until("all that waited is delivered, in its order", secs(15), async || {
        let told = world.provider.get("/api/agents/edge/transitions?limit=1000").await.json();
        let ours = told.as_array().unwrap().iter().rev().filter(|one| one["check"] == "file-mode");
        let now: Vec<String> = ours.map(|one| one["now"].as_str().unwrap_or("gone").to_owned()).collect();
        let is_told =
            now.iter().position(|now| now == "critical").is_some_and(|at| now[at..].contains(&"ok".to_owned()));
        if is_told { Ok(()) } else { Err(told) }
    })
    .await;
    until_known(&world, "it is known to be mended", |edge| {
        is_status(edge, "file-mode", "ok") && !is_status(edge, "file-mode", "critical") && edge["lost"] == 0
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_loses_no_report() {
    if !is_root() {
        println!("not checked: a small disk needs root");
        return;
    }
    let mut world = World::new().await;
    let secret = secret(world.home.path());
    let agent = Agent::new(&world.home, &settings(&world, &secret).await);
    let state = agent.state_dir();
    let disk = SmallDisk::mount(&world.home, state.file_name().unwrap().to_str().unwrap(), 1);
    let agent = agent.started().await;
    until_known(&world, "it reports", |edge| is_status(edge, "file-mode", "ok")).await;

    let ballast = disk.fill();
    world.provider.kill();
    let says = "the spool's disk takes no report; they are held in memory";
    until("the last block of its file is full too", secs(20), async || {
        if agent.log().contains(says) { Ok(()) } else { Err(agent.log()) }
    })
    .await;
    for (mode, status) in [(0o644, Status::Critical), (0o600, Status::Ok), (0o644, Status::Critical)] {
        chmod(&secret, mode);
        agent.until_status("file-mode", secret.to_str().unwrap(), status, secs(5)).await;
    }
    fs::remove_file(ballast).unwrap();
    chmod(&secret, 0o600);
    agent.until_status("file-mode", secret.to_str().unwrap(), Status::Ok, secs(5)).await;
    until("what waited in memory is on disk", secs(5), async || {
        let files = fs::read_dir(state.join("spool")).map_or(0, Iterator::count);
        if files > 0 { Ok(()) } else { Err(files) }
    })
    .await;

    world.provider.up().await;
    until("all that waited is delivered, in its order", secs(15), async || {
        let told = world.provider.get("/api/agents/edge/transitions?limit=1000").await.json();
        let ours = told.as_array().unwrap().iter().rev().filter(|one| one["check"] == "file-mode");
        let now: Vec<&str> = ours.filter_map(|one| one["now"].as_str()).collect();
        let all = ["critical", "ok", "critical", "ok"];
        if now.ends_with(&all) { Ok(()) } else { Err(told) }
    })
    .await;
    let edge = until_known(&world, "it is known", |edge| is_status(edge, "file-mode", "ok")).await;
    assert_eq!(edge["lost"], 0, "{edge}");
    assert_eq!(agent.log().matches(says).count(), 1, "said once: {}", agent.log());
}

/// Nothing is critical on account of a clock, and what waits is told in order.
#[tokio::test]
async fn a_clock_that_is_set_back_is_told_and_alarms_nobody() {
    let world = World::new().await;
    let secret = secret(world.home.path());
    let certificate = world.home.join("a.pem");
    fs::write(&certificate, rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap().cert.pem()).unwrap();
    let settings = format!(
        "{}\n[policy.certificates]\nfiles = [\"{}\"]\n",
        settings(&world, &secret).await,
        certificate.display()
    );
    let agent = Agent::new(&world.home, &settings).with_a_clock_of_its_own();
    let agent = agent.started().await;
    let target = certificate.to_str().unwrap();
    agent.until_status("certificate-files", target, Status::Ok, secs(10)).await;
    agent.until_status("clock", "host", Status::Ok, secs(10)).await;

    agent.set_clock("-1h");
    let (finding, _) = agent.until_status("clock", "host", Status::Unknown, secs(5)).await;
    assert!(finding.text.contains("the hour was set a moment ago"), "{finding:?}");
    agent.until_status("clock", "host", Status::Ok, secs(10)).await;
    chmod(&secret, 0o644);
    until_known(&world, "it goes on to tell", |edge| is_status(edge, "file-mode", "critical")).await;
    chmod(&secret, 0o600);
    until_known(&world, "and that it is mended", |edge| !is_status(edge, "file-mode", "critical")).await;
    agent.until_status("certificate-files", target, Status::Ok, secs(10)).await;
    let told = world.provider.get("/api/agents/edge/transitions?limit=1000").await.json();
    let critical: Vec<&Value> = told.as_array().unwrap().iter().filter(|one| one["now"] == "critical").collect();
    assert!(critical.iter().all(|one| one["check"] == "file-mode"), "{critical:?}");
    assert!(told.as_array().unwrap().iter().any(|one| one["check"] == "clock" && one["now"] == "unknown"), "{told}");
}

#[tokio::test]
async fn a_provider_that_talks_nonsense_changes_nothing() {
    let world = World::new().await;
    let nonsense = Backend::start(&world.home, "{\"agent\": \"edge\", \"digest\": 7}").await;
    let secret = secret(world.home.path());
    let settings = format!(
        "name = \"edge\"\n{}\n{TIMING}\n[provider]\nurl = \"http://{}\"\n",
        watches(&secret),
        nonsense.address()
    );
    let agent = Agent::start(&world.home, &settings).await;
    let target = format!("http://{}", nonsense.address());
    let (finding, _) = agent.until_status("provider", &target, Status::Unknown, secs(10)).await;
    assert!(finding.text.contains("is not understood"), "{}", finding.text);
    agent.until_status("file-mode", secret.to_str().unwrap(), Status::Ok, secs(5)).await;
}

#[tokio::test]
async fn settings_are_read_again_and_wrong_ones_change_nothing() {
    let world = World::new().await;
    let (one, other) = (world.home.join("one"), world.home.join("other"));
    for file in [&one, &other] {
        fs::write(file, "s").unwrap();
        chmod(file, 0o600);
    }
    let with = |file: &Path| format!("{}\n{TIMING}", watches(file));
    let agent = Agent::start(&world.home, &with(&one)).await;
    agent.until_status("file-mode", one.to_str().unwrap(), Status::Ok, secs(5)).await;

    agent.settings("[timing]\nhots = \"5s\"\n");
    agent.signal(Signal::HUP);
    until("it says why not", secs(5), async || agent.log().contains("not reloaded").then_some(()).ok_or(agent.log()))
        .await;
    assert!(agent.log().contains("hots"), "{}", agent.log());
    assert!(agent.finding("file-mode", one.to_str().unwrap()).await.is_some(), "all goes on as before");

    agent.settings(&with(&other));
    agent.signal(Signal::HUP);
    agent.until_status("file-mode", other.to_str().unwrap(), Status::Ok, secs(5)).await;
    assert!(agent.finding("file-mode", one.to_str().unwrap()).await.is_none());

    let wrong = Agent::new(&world.home, "listn = 1");
    let output = wrong.run(&["check"]).await;
    assert_eq!(output.code, Some(3));
    assert!(output.err.contains("listn") && output.err.contains("`listen`"), "{}", output.err);
}

#[tokio::test]
async fn without_an_agent_check_looks_by_itself() {
    let world = World::new().await;
    let secret = secret(world.home.path());
    let agent = Agent::new(&world.home, &format!("{}\n{TIMING}", watches(&secret)));
    let output = agent.run(&["check"]).await;
    assert_eq!(output.code, Some(0), "{}{}", output.out, output.err);
    assert!(output.out.contains("no agent runs here"), "{}", output.out);
    chmod(&secret, 0o644);
    let began = std::time::Instant::now();
    assert_eq!(agent.run(&["check", "--quiet"]).await.code, Some(2));
    assert!(began.elapsed() < secs(3) + ms(500), "{:?}", began.elapsed());
    let explained = agent.run(&["explain", "file-mode"]).await;
    assert!(explained.out.contains("file-mode: ") && explained.out.contains("mend: chmod"), "{}", explained.out);
}
