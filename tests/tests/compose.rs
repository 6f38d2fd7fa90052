//! The hub's compose file, read: what is pinned, who reaches whom, where secrets are. Docker itself is not had here; what the
//! containers are given on a host is made for real, and taken by the real PostgreSQL.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "a story fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use charliehub_tests::{Home, Postgres, World, repository, secs};
use serde_json::Value;

const SCHEMA: &str = "check-jsonschema-0.39.0";

fn deploy(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn compose() -> Value {
    serde_saphyr::from_str(&text("compose/compose.yaml")).expect("YAML")
}

/// Name and description of each service.
fn services(compose: &Value) -> Vec<(&str, &Value)> {
    compose["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service)).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// Keys of a table.
fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().map(|table| table.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// Names of the secrets that a service is given.
fn secrets(service: &Value) -> BTreeSet<&str> {
    let given = service["secrets"].as_array().map(Vec::as_slice).unwrap_or_default();
    given.iter().filter_map(|one| one.as_str().or(one["source"].as_str())).collect()
}

/// Who shares a network with `name`.
fn beside<'a>(compose: &'a Value, name: &str) -> BTreeSet<&'a str> {
    let own = keys(&compose["services"][name]["networks"]);
    let all = services(compose).into_iter();
    all.filter(|(other, service)| *other != name && !own.is_disjoint(&keys(&service["networks"])))
        .map(|(other, _)| other)
        .collect()
}

#[test]
fn every_image_is_pinned_and_every_service_is_held_tight() {
    let compose = compose();
    assert_eq!(services(&compose).len(), 16, "the hub, whole");
    for (name, service) in services(&compose) {
        let (image, tag) = service["image"].as_str().unwrap().rsplit_once(':').expect("a tag");
        let numbers = tag.trim_start_matches('v').split(['.', '-']).filter(|part| part.parse::<u32>().is_ok()).count();
        assert!(numbers >= 2, "{name}: {image}:{tag} moves");
        let is_ours = image.starts_with("localhost/");
        assert_eq!(is_ours, service["pull_policy"] == "never", "{name}: what is built here is pulled from nobody");
        assert!(is_ours || image.split('/').count() <= 2, "{name}: {image}");

        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["privileged"].is_null() && service["devices"].is_null(), "{name}");
        let capabilities: &[&str] = if name == "traefik" { &["NET_BIND_SERVICE"] } else { &[] };
        assert_eq!(strings(&service["cap_add"]), capabilities, "{name}");
        let user = service["user"].as_str().unwrap_or("0");
        assert_eq!(user.starts_with('0'), name == "traefik", "{name}: only Traefik is root, without capabilities");
        let limits = &service["deploy"]["resources"]["limits"];
        assert_eq!(keys(limits), BTreeSet::from(["cpus", "memory", "pids"]), "{name}");

        let check = &service["healthcheck"];
        assert!(strings(&check["test"]).len() >= 2, "{name}");
        for key in ["interval", "timeout", "retries", "start_period"] {
            assert!(!check[key].is_null(), "{name}: {key}");
        }
        for volume in strings(&service["volumes"]) {
            assert!(!volume.contains("docker.sock"), "{name}: {volume}");
        }
    }
    let traefik = compose["services"]["traefik"]["image"].as_str().unwrap();
    assert_eq!(
        traefik,
        format!("traefik:v{}", charliehub_tests::Traefik::VERSION),
        "the one that all this is tried with"
    );
}

#[test]
fn only_who_must_reach_postgres_shares_a_network_with_it() {
    let compose = compose();
    assert_eq!(beside(&compose, "postgres"), BTreeSet::from(["authelia", "postgres-exporter", "provider"]));
    assert_eq!(beside(&compose, "redis"), BTreeSet::from(["authelia", "redis-exporter"]));
    assert_eq!(beside(&compose, "mosquitto"), BTreeSet::from(["mqtt-exporter", "traefik"]));
    assert_eq!(keys(&compose["services"]["postgres"]["networks"]), BTreeSet::from(["database"]));
    assert_eq!(keys(&compose["services"]["redis"]["networks"]), BTreeSet::from(["session"]));
    let on = |network: &str| -> BTreeSet<&str> {
        let all = services(&compose).into_iter();
        all.filter(|(_, service)| keys(&service["networks"]).contains(network)).map(|(name, _)| name).collect()
    };
    assert_eq!(on("edge"), BTreeSet::from(["traefik"]));
    assert_eq!(on("control"), BTreeSet::from(["provider", "traefik"]));
    let declared = keys(&compose["networks"]);
    let mut nets = BTreeMap::new();
    for name in &declared {
        let network = &compose["networks"][*name];
        let inner = network["internal"] == true;
        assert_eq!(inner, ["broker", "database", "services", "session"].contains(name), "{name}");
        let subnet = network["ipam"]["config"][0]["subnet"].as_str().unwrap();
        assert!(subnet.starts_with("172.19.") && subnet.ends_with(".0/24"), "{name}: let in by the host's firewall");
        assert!(nets.insert(subnet, *name).is_none(), "{name}: {subnet} is there twice");
    }
    let mut hosts = BTreeSet::new();
    for (name, service) in services(&compose) {
        if service["network_mode"] == "host" {
            hosts.insert(name);
            let listens: Vec<&str> = strings(&service["command"])
                .into_iter()
                .filter_map(|word| word.strip_prefix("--web.listen-address="))
                .collect();
            assert!(!listens.is_empty(), "{name}");
            for address in listens {
                assert!(address.starts_with("127.0.0.1:") || address.starts_with("172.19.0.1:"), "{name}: {address}");
            }
        } else {
            let own = keys(&service["networks"]);
            assert!(
                !own.is_empty() && own.is_subset(&declared),
                "{name}: without networks it would be on one with all"
            );
        }
    }
    assert_eq!(hosts, BTreeSet::from(["node-exporter", "prometheus"]));
}

#[test]
fn three_ports_are_public_and_all_others_on_loopback() {
    let compose = compose();
    let all = services(&compose).into_iter();
    let published: BTreeSet<String> = all
        .flat_map(|(name, service)| strings(&service["ports"]).into_iter().map(move |port| format!("{name} {port}")))
        .collect();
    let expected = [
        "alertmanager 127.0.0.1:9093:9093",
        "mqtt-exporter 127.0.0.1:9234:9000",
        "provider 127.0.0.1:8001:8001",
        "redis-exporter 127.0.0.1:9121:9121",
        "traefik 0.0.0.0:443:443",
        "traefik 0.0.0.0:80:80",
        "traefik 0.0.0.0:8883:8883",
        "traefik 127.0.0.1:8091:8091",
    ];
    assert_eq!(published, expected.map(str::to_owned).into());
}

#[test]
fn no_secret_is_in_it_and_each_is_made_or_named() {
    let compose = compose();
    let prepare = text("compose/prepare.sh");
    let defined = keys(&compose["secrets"]);
    let mut used = BTreeSet::new();
    for (name, service) in services(&compose) {
        let given = secrets(service);
        assert!(given.is_subset(&defined), "{name}: {given:?}");
        used.extend(&given);
        let reads = strings(&service["group_add"]) == ["10400"];
        assert!(given.is_empty() || reads || name == "postgres", "{name}: cannot read its secrets");
        let environment = service["environment"].as_object().cloned().unwrap_or_default();
        for (key, value) in &environment {
            let value = value.as_str().expect("a text");
            if let Some(file) = value.strip_prefix("/run/secrets/") {
                assert!(given.contains(file), "{name}: {key} names {file}, which it is not given");
            }
            looks_like_no_secret(name, key, value);
        }
        for word in
            [&service["command"], &service["entrypoint"], &service["healthcheck"]["test"]].into_iter().flat_map(strings)
        {
            for part in word.split([' ', '"']) {
                if let Some(file) = part.split("/run/secrets/").nth(1) {
                    assert!(given.contains(file.trim_end_matches(')')), "{name}: {part}");
                }
                let (key, value) = part.split_once('=').unwrap_or(("", part));
                looks_like_no_secret(name, key, value);
            }
        }
    }
    assert_eq!(used, defined, "a secret that nobody is given");
    for name in defined {
        let file = compose["secrets"][name]["file"].as_str().unwrap();
        assert_eq!(file, format!("${{CHARLIEHUB_SECRETS:-/etc/charliehub/secrets}}/{name}"));
        assert!(
            prepare.split([' ', '"', '\n', ':', '/']).any(|word| word == name),
            "prepare.sh knows nothing of {name}"
        );
    }
}

/// A value under a name for secrets is the path of one; no value has a password in a URL, or looks random.
fn looks_like_no_secret(service: &str, key: &str, value: &str) {
    let is_named =
        ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL"].iter().any(|word| key.to_uppercase().contains(word));
    assert!(
        !is_named || value.is_empty() || value.starts_with("/run/secrets/"),
        "{service}: {key} holds a value of its own"
    );
    let authority = value.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
    assert!(!authority.contains('@'), "{service}: {key} has a user in its URL");
    for run in value.split(|c: char| !c.is_ascii_alphanumeric()) {
        let kinds = [char::is_uppercase, char::is_lowercase, |c: char| c.is_ascii_digit()];
        let is_random = run.len() >= 16 && kinds.iter().all(|kind| run.contains(*kind));
        assert!(!is_random, "{service}: {key} holds what looks random");
    }
}

#[test]
#[should_panic(expected = "looks random")]
fn what_looks_random_is_seen() {
    let random = ["k3yMat3", "ria1XyZ", "qwErty42"].concat();
    looks_like_no_secret("a service", "GREETING", &random);
}

#[test]
fn everything_that_is_mounted_from_the_repository_is_in_it() {
    let compose = compose();
    let here = deploy("compose");
    let mut paths: Vec<&str> =
        compose["configs"].as_object().unwrap().values().map(|config| config["file"].as_str().unwrap()).collect();
    let given: BTreeSet<&str> = services(&compose)
        .into_iter()
        .flat_map(|(_, service)| service["configs"].as_array().cloned().unwrap_or_default())
        .map(|config| config["source"].as_str().unwrap().to_owned())
        .map(|source| *keys(&compose["configs"]).get(source.as_str()).expect("a config that is there"))
        .collect();
    assert_eq!(given, keys(&compose["configs"]), "each is given to somebody");
    for (_, service) in services(&compose) {
        for volume in service["volumes"].as_array().map(Vec::as_slice).unwrap_or_default() {
            if let Some(source) = volume["source"].as_str() {
                assert_eq!(volume["bind"]["create_host_path"], false, "{source}: a slip is no empty directory");
                paths.push(source);
            }
        }
    }
    assert!(paths.len() >= 10, "{paths:?}");
    let missing: Vec<&&str> = paths.iter().filter(|path| !here.join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_agent_of_the_hub_looks_for_the_containers_that_are_here() {
    let compose = compose();
    let all = services(&compose).into_iter();
    let names: BTreeSet<&str> = all.map(|(_, service)| service["container_name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), services(&compose).len());
    let agent = text("agent/hub2.toml");
    let wanted: Vec<&str> = agent
        .split("[[policy.containers]]")
        .skip(1)
        .filter_map(|part| part.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')))
        .collect();
    assert!(wanted.len() >= 9, "{wanted:?}");
    let strange: Vec<&&str> = wanted.iter().filter(|name| !names.contains(**name)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn it_is_what_the_specification_of_compose_allows() {
    let said = specified(&deploy("compose/compose.yaml"));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    let home = Home::new();
    let wrong = home.join("wrong.yaml");
    fs::write(
        &wrong,
        text("compose/compose.yaml")
            .replace("    read_only: true", "    readonly: true")
            .replace("  read_only: true", "  readonly: true"),
    )
    .unwrap();
    let said = specified(&wrong);
    assert!(!said.status.success() && String::from_utf8_lossy(&said.stdout).contains("readonly"), "{said:?}");
}

fn specified(file: &Path) -> Output {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"), PathBuf::from);
    let place = cache.join("charliehub").join(SCHEMA);
    assert!(place.is_dir(), "{SCHEMA} is missing: deploy/install-tools.sh check-jsonschema");
    let mut command = Command::new("python3");
    command.args(["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]).arg(file);
    command.env("PYTHONPATH", place).output().expect("check-jsonschema starts")
}

/// As root: it gives directories to users of containers.
fn prepare(home: &Home) -> Output {
    let mut command = Command::new(deploy("compose/prepare.sh"));
    command.arg("--home").arg(home.join("opt")).arg("--secrets").arg(home.join("secrets"));
    let output = command.output().expect("prepare.sh starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[tokio::test]
async fn what_the_host_must_have_is_made_once_and_taken_by_postgres() {
    let home = Home::new();
    let first = prepare(&home);
    let read = |name: &str| fs::read(home.join("secrets").join(name)).unwrap();
    let names: BTreeSet<String> = fs::read_dir(home.join("secrets"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let before: BTreeMap<&String, Vec<u8>> = names.iter().map(|name| (name, read(name))).collect();
    for (name, value) in &before {
        let about = fs::metadata(home.join("secrets").join(name)).unwrap();
        assert_eq!((about.permissions().mode() & 0o777, about.uid(), about.gid()), (0o440, 0, 10400), "{name}");
        assert!(value.len() >= 43, "{name}");
    }
    assert_eq!(before.values().collect::<BTreeSet<_>>().len(), names.len(), "no two are the same");
    let of = |path: &str| {
        let about = fs::metadata(home.join("opt").join(path)).unwrap();
        (about.permissions().mode() & 0o777, about.uid())
    };
    assert_eq!(of("postgres/data"), (0o755, 70));
    assert_eq!(of("authelia/redis-data"), (0o775, 999));
    assert_eq!(of("traefik/certs"), (0o700, 0));

    // What is missing is said, and made with what it makes is all that the compose file names.
    let said = String::from_utf8(first.stdout).unwrap();
    let missing: BTreeSet<String> = said
        .lines()
        .filter_map(|line| Some(line.strip_prefix("missing  ")?.split("  ").next()?.rsplit('/').next()?.to_owned()))
        .collect();
    let all: BTreeSet<String> = keys(&compose()["secrets"]).into_iter().map(str::to_owned).collect();
    assert_eq!(names.union(&missing).cloned().collect::<BTreeSet<_>>(), all);
    prepare(&home);
    assert_eq!(
        names.iter().map(|name| (name, read(name))).collect::<BTreeMap<_, _>>(),
        before,
        "nothing is made twice"
    );

    let postgres = Postgres::start(&home).await;
    let (host, port) = postgres.host_and_port();
    let init = async || {
        let mut command = tokio::process::Command::new(deploy("compose/postgres-init.sh"));
        command.env("PGHOST", host.to_string()).env("PGPORT", port.to_string()).env("SECRETS", home.join("secrets"));
        tokio::time::timeout(secs(30), command.output()).await.expect("psql ends").unwrap()
    };
    let done = init().await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let allowed = "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database WHERE datname IN ('authelia', \
                   'charliehub_domains') AND has_database_privilege";
    for (role, databases) in
        [("charliehub", "charliehub_domains"), ("authelia", "authelia"), ("postgres_exporter", "charliehub_domains")]
    {
        assert_eq!(postgres.value(&format!("{allowed}('{role}', oid, 'CONNECT')")).await, databases, "{role}");
    }
    let scram = "SELECT count(*)::text FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256$%' AND rolcanlogin AND NOT rolsuper";
    assert_eq!(postgres.value(scram).await, "3");
    assert!(!postgres.log().contains(std::str::from_utf8(&before[&"provider_database_password".to_owned()]).unwrap()));
    fs::remove_file(home.join("secrets/provider_database_password")).unwrap();
    let refused = init().await;
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("a password is empty"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_rows_of_the_hub_lead_to_its_containers() {
    let world = World::with(|provider| {
        provider.set("access", "forward_auth", "{ address = \"http://authelia:9091/api/authz/forward-auth\" }")
    })
    .await;
    let rows = text("compose/routes.sql");
    world.psql(&rows).await;
    let count = world.psql("SELECT domain, backend_host, backend_port FROM domains").await;
    world.psql(&rows).await;
    assert_eq!(world.psql("SELECT domain, backend_host, backend_port FROM domains").await, count, "twice is once");
    let revision = world.postgres.revision().await;
    world.provider.until_serves(revision, secs(5)).await;
    assert_eq!(world.provider.count("quarantined_rows").await, 0);

    let compose = compose();
    let reach = beside(&compose, "traefik");
    let elsewhere = strings(&compose["services"]["traefik"]["extra_hosts"]).concat();
    let authelia = text("authelia/configuration.yml");
    let settings = text("compose/provider.toml") + &text("mosquitto/mosquitto.conf") + &authelia;
    for row in &count {
        let [domain, host, port] = row.as_slice() else { panic!("{row:?}") };
        assert!(reach.contains(host.as_str()) || elsewhere.starts_with(&format!("{host}:")), "{domain}: {host}");
        let told = format!("{} {settings}", compose["services"][host]);
        assert!(told.contains(port), "{domain}: nothing of {host} names {port}");
        let asked = world.psql(&format!("SELECT auth_required FROM domains WHERE domain = '{domain}'")).await;
        let is_ruled =
            authelia.contains(&format!("- {domain}\n")) || authelia.contains(&format!("- domain: {domain}\n"));
        assert_eq!(
            asked[0][0] == "t",
            is_ruled,
            "{domain}: a row that asks Authelia has a rule there, or nobody gets in"
        );
    }
    assert!(authelia.contains("  default_policy: deny\n"));
}
