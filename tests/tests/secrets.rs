//! Secrets are rotated while they are used: nobody is refused, nothing that was written is lost, and a rotation that fails
//! or is killed leaves each secret whole, the old one or the new one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper of a story fails by panicking")]

use std::{collections::BTreeSet, path::Path, process::Command};

use charliehub_tests::{Keyring, full};

/// Whose old secret must not open any more.
const WITHDRAWN: &[&str] = &[
    "database.url",
    "editor.token",
    "traefik.token",
    "redis.password",
    "session.secret",
    "storage.key",
    "grafana.password",
];

#[tokio::test]
async fn everything_is_rotated_under_load_and_nobody_is_refused() {
    let hub = Keyring::start().await;
    let poller = hub.provider.watch();
    let users = hub.users();
    users.go_on(3).await;
    let before: Vec<String> = WITHDRAWN.iter().map(|file| hub.held(file)).collect();
    let leaf = hub.held("leaf/agent-hub2.pem");

    let (code, said) = hub.rotate(&["--dry-run"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("roles charliehub_a charliehub_b take turns") && said.contains("nowhere is not there"),
        "{said}"
    );
    let now: Vec<String> = WITHDRAWN.iter().map(|file| hub.held(file)).collect();
    assert_eq!(now, before, "a dry run changed something");

    let began = std::time::Instant::now();
    let (code, said) = hub.rotate(&[]).await;
    println!("a whole rotation took {:?}", began.elapsed());
    assert_eq!(code, Some(0), "{said}");
    users.go_on(3).await;
    users.stop().await;
    for name in ["writer", "redis", "mqtt"] {
        let tally = users.of(name);
        println!("{name}: {} done, {} failed", tally.done, tally.failed.len());
        assert_eq!(tally.failed, Vec::<String>::new(), "{name}");
    }
    // A Traefik that has just started knows no route yet; but it refuses nobody.
    let site = users.of("site");
    println!("site: {} right, other: {:?}", site.done, site.failed);
    assert!(site.refused_nobody(), "{site:?}");
    assert_eq!(poller.errors(), Vec::<String>::new(), "polls failed");
    let (told, there) = hub.rows().await;
    assert_eq!(told, there, "rows that the writer was told are there");
    let written = users.of("redis").done;
    assert!(hub.counted().await >= written, "Redis lost writes");

    hub.in_use().await.unwrap();
    hub.those_in_step().await;
    for (file, old) in WITHDRAWN.iter().zip(&before) {
        assert_ne!(&hub.held(file), old, "{file}");
    }
    assert_eq!((hub.opens(&before[1], "/api/domains").await, hub.opens(&before[2], "/traefik").await), (401, 401));
    assert!(hub.held("database.url").contains("charliehub_b:"), "the other role's turn");
    assert_eq!(hub.postgres.value("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'charliehub_a'").await, "f");
    assert!(hub.held("mqtt.conf").contains("edge_b") && !hub.held("mosquitto.users").contains("edge_a:"));
    assert_ne!(hub.held("leaf/agent-hub2.pem"), leaf, "a new certificate of the same authority");
    assert_eq!(hub.held("restarts"), "restarted");
    assert!(said.contains("ovh: NEEDS A PERSON (last done: never): make a new consumer key"), "{said}");
    assert!(said.contains("skipped: elsewhere"), "{said}");

    let told = everything_told(&hub, &said);
    for file in WITHDRAWN {
        let secret = hub.held(file);
        let secret = secret.rsplit([':', '@']).find(|part| part.len() > 30).unwrap_or(&secret);
        assert!(!told.contains(secret), "{file} is in what was said or logged");
    }
    let stamps = names(&hub.home.join("rotation/stamps"));
    for name in ["all", "database", "traefik", "mosquitto"] {
        assert!(stamps.contains(name), "{stamps:?}");
    }
    assert!(!stamps.contains("ovh") && !hub.home.join("rotation/run").exists());
    let backup = names(&hub.home.join("backups"));
    assert_eq!(backup.len(), 1);
    let loose = "find backups rotation -type f -perm /077 ! -path '*/stamps/*'";
    let loose = Command::new("bash").args(["-c", loose]).current_dir(hub.home.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&loose.stdout), "", "files that others can read");

    let (code, said) = hub.rotate(&["--done", "ovh"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = hub.rotate(&["--only", "external"]).await;
    assert!(code == Some(0) && said.contains("ovh: was done 0 days ago"), "{said}");
}

/// Its own log, PostgreSQL's, and what it printed.
fn everything_told(hub: &Keyring, said: &str) -> String {
    let logs = ["rotate.log", "provider.log", "redis.log", "mosquitto.log", "calls"];
    let logs = logs.map(|log| std::fs::read_to_string(hub.home.join(log)).unwrap_or_default());
    format!("{said}{}{}", logs.join("\n"), hub.postgres.log())
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

const STEPS: [&str; 6] = ["prepare", "admit", "switch", "verify", "retire", "confirm"];

/// In this order each is killed at what is hardest for it: a role that is there and not noted, a Traefik that was restarted.
const SECRETS: [&str; 9] =
    ["editor", "redis", "pki", "database", "authelia-storage", "traefik", "grafana", "authelia-session", "mosquitto"];

/// Before each step and behind it, going through the secrets; with `--full` each secret at each step.
fn cases() -> Vec<(&'static str, &'static str, bool)> {
    let moments = || STEPS.into_iter().flat_map(|step| [(step, false), (step, true)]);
    if full() {
        return SECRETS
            .into_iter()
            .flat_map(|name| moments().map(move |(step, behind)| (name, step, behind)))
            .collect();
    }
    SECRETS.into_iter().cycle().zip(moments()).map(|(name, (step, behind))| (name, step, behind)).collect()
}

#[tokio::test]
async fn a_killed_rotation_leaves_the_old_or_the_new_and_the_next_start_brings_it_to_an_end() {
    let hub = Keyring::start().await;
    let poller = hub.provider.watch();
    let users = hub.users();
    users.go_on(2).await;
    for (name, step, behind) in cases() {
        let case = format!("{name} killed {} {step}", if behind { "behind" } else { "before" });
        hub.kill_at(name, step, behind).await;
        // Those that know one secret at a time stand still in between.
        hub.in_use().await.unwrap_or_else(|error| panic!("{case}: {error:#}"));
        users.go_on(2).await;
        let (code, said) = hub.rotate(&["--only", name]).await;
        assert_eq!(code, Some(0), "{case}: {said}");
        let settled = matches!(step, "retire" | "confirm");
        let way = if settled { format!("{name}: rotated already") } else { format!("{name}: taken back") };
        assert!(said.contains(&way), "{case}: no `{way}` in {said}");
        assert!(said.contains(&format!("{name}: rotated")), "{case}: {said}");
        hub.in_use().await.unwrap_or_else(|error| panic!("{case}: {error:#}"));
        hub.those_in_step().await;
        assert!(!hub.home.join("rotation/run").exists(), "{case}");
        let living = "SELECT count(*) FROM tokens WHERE revoked_at IS NULL AND role <> 'admin'";
        assert_eq!(hub.postgres.value(living).await, "2", "{case}: a token for Traefik, one for the writer");
        let roles = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'charliehub\\__' AND rolcanlogin";
        assert_eq!(hub.postgres.value(roles).await, "1", "{case}: one role whose turn it is");
    }
    // Who is asked to stop takes back what is half-way before that.
    let old = hub.held("redis.password");
    let (code, said) = hub.interrupt("redis", "switch", true, "kill -TERM $$").await;
    assert!(code == Some(1) && said.contains("redis: taken back") && said.contains("stopped before the end"), "{said}");
    assert_eq!(hub.held("redis.password"), old);
    users.go_on(2).await;
    users.stop().await;
    for name in ["writer", "redis", "mqtt"] {
        assert_eq!(users.of(name).failed, Vec::<String>::new(), "{name}");
    }
    let site = users.of("site");
    assert!(site.refused_nobody(), "{site:?}");
    assert_eq!(poller.errors(), Vec::<String>::new(), "polls failed");
    let (told, there) = hub.rows().await;
    assert_eq!(told, there, "rows that the writer was told are there");

    // What fails is taken back by itself.
    let text = std::fs::read_to_string(hub.config()).unwrap();
    let failing = text.replace("patience = 40", "patience = 2").replace("[redis]\n", "[redis]\nverify = false\n");
    std::fs::write(hub.config(), failing).unwrap();
    let old = hub.held("redis.password");
    let (code, said) = hub.rotate(&["--only", "redis"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("redis: verify FAILED") && said.contains("not rotated: redis"), "{said}");
    assert_eq!(hub.held("redis.password"), old);
}

#[tokio::test]
async fn what_is_wrong_with_its_settings_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rotate-secrets.conf");
    for (text, said) in [
        ("[databse]", ":1: unknown kind [databse]; there are:"),
        ("state = x", ":1: 'state' stands before the first section"),
        ("[run]\nstat = x", ":2: unknown key 'stat' in [run]; there are: state"),
        ("[file one]\nphase = soon\nfile = x", ": [one] phase = soon; write internal, config or external"),
        ("[file one]", ": [file one] needs 'file'"),
        ("[file one]\nfile = x\n[token one]\nfile = x", ":3: two sections are called 'one'"),
        ("[run]\ngrace = soon", ": [run] grace is a whole number"),
        ("[run]\nwhat", ":2: neither [KIND NAME] nor key = value"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = refused(&["--config", file.to_str().unwrap(), "--dry-run"]);
        assert!(error.contains(said), "{text}: {error}");
    }
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let error = refused(&["--config", file.to_str().unwrap(), "--dry-run"]);
    assert!(error.contains("can be written by others: chmod go-w"), "{error}");
    assert!(refused(&["--only"]).contains("--only needs a word"));
    let sample = Keyring::deploy().join("rotate-secrets.conf");
    let out = script(&["--config", sample.to_str().unwrap(), "--dry-run"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn script(words: &[&str]) -> std::process::Output {
    Command::new(Keyring::deploy().join("rotate-secrets")).args(words).output().unwrap()
}

fn refused(words: &[&str]) -> String {
    let out = script(words);
    assert!(!out.status.success(), "{words:?} is taken");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// The unit's calendar against one that is counted by hand: every quarter to 2040.
#[test]
fn the_timer_elapses_on_the_last_sunday_of_each_quarter() {
    let timer = std::fs::read_to_string(Keyring::deploy().join("systemd/charliehub-rotate-secrets.timer")).unwrap();
    let calendar = timer.lines().find_map(|line| line.strip_prefix("OnCalendar=")).unwrap();
    assert!(timer.contains("\nPersistent=true\n"), "a host that was off makes up for it");
    let out = Command::new("systemd-analyze")
        .args(["calendar", "--base-time=2026-01-01 00:00:00 UTC", "--iterations=60", calendar])
        .env("TZ", "UTC")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let elapses: Vec<String> = text
        .lines()
        .filter(|line| line.contains("Next elapse:") || line.contains("Iter."))
        .map(|line| {
            line.split_whitespace().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" ")
        })
        .collect();
    let mut expected = Vec::new();
    for year in 2026..=2040 {
        for month in [3, 6, 9, 12] {
            let mut day = jiff::civil::date(year, month, 1).last_of_month();
            while day.weekday() != jiff::civil::Weekday::Sunday {
                day = day.yesterday().unwrap();
            }
            expected.push(format!("Sun {day} 02:00:00 UTC"));
        }
    }
    assert_eq!(expected.len(), 60);
    assert_eq!(elapses, expected, "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn the_units_are_what_systemd_takes() {
    let folder = Keyring::deploy().join("systemd");
    let units: Vec<_> = ["charliehub-rotate-secrets.service", "charliehub-rotate-secrets.timer"]
        .into_iter()
        .chain(["charliehub-rotate-secrets-resume.service", "traefik.service"])
        .map(|name| folder.join(name))
        .collect();
    let out = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    // What they start is not installed here.
    let wrong: Vec<&str> =
        said.lines().filter(|line| !line.ends_with("is not executable: No such file or directory")).collect();
    assert_eq!(wrong, Vec::<&str>::new());
    // Traefik finds a socket by the name of the entry point.
    for (name, port) in [("web", 80), ("websecure", 443), ("mqtt", 8883)] {
        let socket = std::fs::read_to_string(folder.join(format!("traefik-{name}.socket"))).unwrap();
        for line in [format!("FileDescriptorName={name}"), format!("ListenStream={port}")] {
            assert!(socket.lines().any(|one| one == line), "traefik-{name}.socket: no {line}");
        }
    }
}
