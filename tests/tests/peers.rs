//! Clients of the VPN: one is given a configuration and no one else its private key, each gets addresses of its own, and one
//! that is revoked is gone when its hub says so.

#![allow(clippy::unwrap_used, reason = "a story fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use charliehub_tests::{Agent, Row, SmallDisk, World, is_root, measured, secs, until};
use futures_util::future::join_all;
use serde_json::{Value, json};

/// What `program` says to `input`.
fn said(program: &str, args: &[&str], input: &str) -> std::process::Output {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; install wireguard-tools"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim().to_owned()
}

fn public_key_of(private: &str) -> String {
    text(&said("wg", &["pubkey"], private).stdout)
}

/// A public key, of a private one that nobody has.
fn some_key() -> String {
    public_key_of(&text(&said("wg", &["genkey"], "").stdout))
}

/// The policy of hub2, whose clients are in `networks`.
async fn hub(world: &World, networks: &[&str], more: Value) -> String {
    let key = some_key();
    let mut vpn =
        json!({"interface": "wg-clients", "public_key": key, "endpoint": "203.0.113.7:51820", "addresses": networks});
    vpn.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let file = world.home.join("policy.json");
    fs::write(&file, json!({"vpn": [vpn]}).to_string()).unwrap();
    world.provider.must(&["agents", "policy", "hub2", "set", file.to_str().unwrap()]).await;
    key
}

async fn rows(world: &World) -> Vec<Vec<String>> {
    world.psql("SELECT name, array_to_string(addresses, ' '), public_key FROM peers ORDER BY name").await
}

/// The value of a key of a configuration.
fn value<'c>(configuration: &'c str, key: &str) -> &'c str {
    let line = configuration.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    line.unwrap_or_else(|| panic!("no {key} in {configuration}"))
}

/// All files below a directory, as bytes.
fn contents(directory: &Path, all: &mut Vec<u8>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contents(&path, all);
        } else if let Ok(bytes) = fs::read(&path) {
            all.extend(bytes);
        }
    }
}

#[tokio::test]
async fn a_client_gets_its_configuration_and_nobody_else_its_private_key() {
    let world = World::new().await;
    let hub_key = hub(&world, &["10.99.0.1/24", "fd99::1/64"], json!({"dns": ["10.44.0.53"], "mtu": 1380})).await;
    world.psql("INSERT INTO sites (name, networks) VALUES ('uk', '{10.44.0.0/16}')").await;
    world.serve(&Row::http("a.test", "127.0.0.1:9".parse().unwrap())).await;
    let served = async |world: &World| world.provider.poll().await.header("etag").to_owned();
    let before = served(&world).await;

    let file = world.home.join("anna.conf");
    let issue = ["peers", "issue", "anna", "--notes", "her laptop", "--reason", "a new colleague"];
    let dry = world.provider.must(&[&issue[..], &["--dry-run"]].concat()).await;
    assert_eq!(dry, "peer anna: nothing was written; it gets 10.99.0.2 fd99::2\n");
    assert!(rows(&world).await.is_empty());
    let out = ["--out", file.to_str().unwrap()];
    let output = world.provider.run(&[&issue[..], &out].concat()).await;
    assert_eq!((output.code, output.out), (Some(0), format!("{}\n", file.display())), "{}", output.err);
    assert!(output.err.contains("10.99.0.2 is in no site's networks"), "{}", output.err);

    let configuration = fs::read_to_string(&file).unwrap();
    let private = value(&configuration, "PrivateKey").to_owned();
    let public = public_key_of(&private);
    assert_eq!(rows(&world).await, [["anna", "10.99.0.2/32 fd99::2/128", &public]]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    for (key, wanted) in [
        ("Address", "10.99.0.2/32, fd99::2/128"),
        ("DNS", "10.44.0.53"),
        ("MTU", "1380"),
        ("PublicKey", &hub_key),
        ("Endpoint", "203.0.113.7:51820"),
        ("AllowedIPs", "10.44.0.0/16, 10.99.0.0/24, fd99::/64"),
        ("PersistentKeepalive", "25"),
    ] {
        assert_eq!(value(&configuration, key), wanted);
    }

    // The real tools take it: what they leave of it for the interface, and that in each line.
    let stripped = said("wg-quick", &["strip", file.to_str().unwrap()], "");
    let left = text(&stripped.stdout);
    assert!(stripped.status.success() && left.contains(&private) && !left.contains("DNS"), "{stripped:?}");
    let bare = world.home.join("bare");
    fs::write(&bare, &left).unwrap();
    let set = said("wg", &["setconf", "nosuchlink", bare.to_str().unwrap()], "");
    assert!(text(&set.stderr).starts_with("Unable to modify interface"), "read to its end: {set:?}");
    fs::write(&bare, left.replace("AllowedIPs", "AllowedIP")).unwrap();
    let set = said("wg", &["setconf", "nosuchlink", bare.to_str().unwrap()], "");
    assert!(text(&set.stderr).contains("unrecognized"), "it would say so: {set:?}");

    // Where it was made it is, and nowhere else: the file is the only one.
    let all = world.psql("SELECT schema_to_xml('charliehub', true, false, '')::text").await.concat().concat();
    assert!(all.contains(&public) && !all.contains(&private));
    let mut kept = Vec::new();
    contents(world.provider.data(), &mut kept);
    kept.extend(world.provider.log().into_bytes());
    for secret in [&private, private.trim_end_matches('=')] {
        assert!(!kept.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "it is in a file or in the log");
    }

    let expected = world.provider.get("/api/agents/hub2/expected?wait=10s").await.json();
    assert_eq!((&expected["peers"][0]["name"], &expected["peers"][0]["public_key"]), (&json!("anna"), &json!(public)));
    let held = format!("/api/agents/hub2/expected?wait=30s&have={}", expected["digest"].as_str().unwrap());
    let held = async || (world.provider.get(&held).await.json(), Instant::now());
    let write = async || {
        let client = world.postgres.connect().await;
        let began = Instant::now();
        client.batch_execute("UPDATE peers SET addresses = '{10.99.0.9}' WHERE name = 'anna'").await.unwrap();
        began
    };
    let ((delta, at), began) = tokio::join!(held(), write());
    let took = at.saturating_duration_since(began);
    measured("client changed -> with its hub", took);
    assert_eq!((&delta["from"], &delta["peers"][0]["addresses"]), (&expected["digest"], &json!(["10.99.0.9/32"])));
    // Of a build without optimization, beside other stories.
    assert!(took < secs(1), "{took:?}");
    world.psql("UPDATE peers SET addresses = '{10.99.0.2,fd99::2}' WHERE name = 'anna'").await;

    let revisions = world.provider.get("/api/revisions").await.json();
    assert_eq!((&revisions[2]["reason"], &revisions[2]["source"]), (&json!("a new colleague"), &json!("api")));
    assert!(world.provider.get("/api/audit?kind=row").await.text().contains("peer anna"));

    // Nothing is overwritten, and nothing written where a file would be.
    let output = world.provider.run(&[&["peers", "issue", "ben"], &out[..]].concat()).await;
    assert!(output.code == Some(1) && output.err.contains("is not overwritten"), "{output:?}");
    assert_eq!((rows(&world).await.len(), fs::read_to_string(&file).unwrap()), (1, configuration));
    for (args, words) in [
        (&["anna"][..], &["It is there already", "name"][..]),
        (&["Ben"], &["name: ", "lower case"]),
        (&["ben", "--address", "10.99.0.2"], &["addresses: ", "is that of peer anna"]),
        (&["ben", "--address", "10.99.0.1"], &["is not for a client of hub2", "10.99.0.0/24"]),
        (&["ben", "--address", "10.98.0.7"], &["is not for a client of hub2"]),
        (&["ben", "--hub", "hub9"], &["the policy of hub9 has no `vpn`", "agents policy hub9 set"]),
        (&["ben", "--interface", "wg9"], &["no `vpn` for wg9"]),
        (&["ben", "--agents", "hub3"], &["hub2 is not among --agents"]),
        (&["ben", "--public-key", &public], &["public_key: ", "another peer has this key"]),
    ] {
        let output = world.provider.run(&[&["peers", "issue"], args].concat()).await;
        assert_eq!((output.code, output.err.lines().count()), (Some(1), 1), "{args:?}: {output:?}");
        for word in words {
            assert!(output.err.contains(word), "{args:?}: {word}: {}", output.err);
        }
    }

    // By a phone's camera, by its own key, by an address that was asked for.
    let drawn = world.provider.must(&["peers", "issue", "phone", "--qr"]).await;
    let widths: BTreeSet<usize> = drawn.lines().map(|line| line.chars().count()).collect();
    let width = *widths.first().unwrap();
    assert!(widths.len() == 1 && width > 50 && width.div_ceil(2) == drawn.lines().count(), "{drawn}");
    assert!(drawn.chars().all(|c| " ▀▄█\n".contains(c)), "{drawn}");
    let own = some_key();
    let printed =
        world.provider.must(&["peers", "issue", "own", "--public-key", &own, "--address", "10.99.0.77"]).await;
    assert!(printed.contains("# PrivateKey = the one that ") && !printed.contains("\nPrivateKey"), "{printed}");
    assert_eq!(rows(&world).await[1], ["own", "10.99.0.77/32", &own]);
    let listed = world.provider.must(&["peers", "list"]).await;
    assert!(listed.contains(&own) && listed.lines().count() == 4, "{listed}");
    assert!(world.provider.must(&["peers", "show", "anna"]).await.contains("her laptop"));
    world.provider.until_serves(world.postgres.revision().await, secs(5)).await;
    assert_eq!(served(&world).await, before, "it is nothing to Traefik");

    // A network of a site of its own makes them internal; with a full tunnel all goes through it.
    world.psql("INSERT INTO sites (name, networks) VALUES ('vpn', '{10.99.0.0/24,fd99::/64}')").await;
    hub(&world, &["10.99.0.1/24"], json!({"routes": ["0.0.0.0/0", "::/0"]})).await;
    let output = world.provider.run(&["peers", "issue", "zoe", "--agents", "hub2,hub3"]).await;
    assert_eq!(value(&output.out, "AllowedIPs"), "0.0.0.0/0, ::/0");
    assert!(!output.err.contains("site's networks") && output.err.contains("is not let in there"), "{output:?}");

    let with_anna = world.postgres.revision().await;
    world.psql("DELETE FROM peers WHERE name = 'anna'").await;
    let back = world.provider.must(&["rollback", &with_anna.to_string()]).await;
    assert!(back.contains("peer anna is kept narrower"), "{back}");
    assert!(rows(&world).await.iter().all(|row| row[0] != "anna"), "a rollback lets nobody in again");
}

#[tokio::test]
async fn clients_that_come_at_once_each_get_an_address_of_their_own() {
    let world = World::new().await;
    hub(&world, &["10.99.0.9/28"], json!({})).await;
    let names = (0..8).map(|n| format!("c{n}"));
    let issue = async |name: String| world.provider.must(&["peers", "issue", &name]).await;
    let issued = join_all(names.map(issue));
    let addresses: BTreeSet<String> = issued.await.iter().map(|one| value(one, "Address").to_owned()).collect();
    let wanted: BTreeSet<String> = (1..=8).map(|n| format!("10.99.0.{n}/32")).collect();
    assert_eq!(addresses, wanted);
    for n in 8..13 {
        world.provider.must(&["peers", "issue", &format!("c{n}")]).await;
    }
    let output = world.provider.run(&["peers", "issue", "late"]).await;
    assert!(output.code == Some(1) && output.err.contains("each address of 10.99.0.0/28 is taken"), "{output:?}");
    let freed = world.psql("DELETE FROM peers WHERE name = 'c3' RETURNING array_to_string(addresses, '')").await;
    let printed = world.provider.must(&["peers", "issue", "late"]).await;
    assert_eq!(value(&printed, "Address"), freed[0][0]);
}

#[tokio::test]
async fn a_client_that_is_revoked_is_gone_when_its_hub_says_so() {
    let world = World::new().await;
    hub(&world, &["10.99.0.1/24"], json!({})).await;
    let token = world.provider.must(&["token", "create", "--role", "agent", "--subject", "hub2", "hub2"]).await;
    let token_file = world.home.join("agent.token");
    fs::write(&token_file, token).unwrap();
    // With the intervals of everyday: what it holds reality against it says at once.
    let settings = format!(
        "name = \"hub2\"\n[provider]\nurl = \"http://{}\"\ntoken_file = \"{}\"\n",
        world.provider.address(),
        token_file.display()
    );
    let mut agent = Agent::start(&world.home, &settings).await;
    for name in ["anna", "ben", "carl"] {
        world.provider.must(&["peers", "issue", name]).await;
    }
    world.provider.must(&["peers", "issue", "both", "--agents", "hub2,hub3"]).await;
    until("hub2 holds reality against the rows", secs(20), async || {
        let agents = world.provider.get("/api/agents").await.json();
        let is_current = agents[0]["expected"].is_string() && agents[0]["expected"] == agents[0]["expected_current"];
        if is_current { Ok(()) } else { Err(agents) }
    })
    .await;

    let dry = world.provider.must(&["peers", "revoke", "anna", "--dry-run"]).await;
    assert_eq!(dry, "peer anna: nothing was written\n");
    let began = Instant::now();
    let told = world.provider.must(&["peers", "revoke", "anna", "--reason", "left us"]).await;
    measured("client revoked -> its hub knows", began.elapsed());
    assert!(told.contains("peer anna: written") && told.contains("gone from hub2 after "), "{told}");
    assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
    let expected = world.provider.get("/api/agents/hub2/expected").await.json();
    assert!(!expected["peers"].to_string().contains("anna"), "{expected}");

    let output = world.provider.run(&["peers", "revoke", "both"]).await;
    assert!(output.out.contains("gone from hub2 after ") && !output.out.contains("hub3"), "{output:?}");
    assert!(output.code == Some(1) && output.err.contains("hub3 has never reported"), "{output:?}");
    agent.kill();
    let output = world.provider.run(&["peers", "revoke", "ben"]).await;
    assert!(output.code == Some(1) && output.err.contains("hub2 has not answered"), "{output:?}");
    assert!(output.err.contains("the row is removed"), "{output:?}");
    let output = world.provider.run(&["peers", "revoke", "ben"]).await;
    assert!(output.code == Some(1) && output.err.contains("there is no peer of this name"), "{output:?}");
    assert_eq!(rows(&world).await.len(), 1);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_written_leaves_nobody_let_in() {
    if !is_root() {
        println!("not checked: a small disk needs root");
        return;
    }
    let world = World::new().await;
    hub(&world, &["10.99.0.1/24"], json!({})).await;
    let disk = SmallDisk::mount(&world.home, "small", 1);
    let ballast = disk.fill();
    let file = disk.path().join("anna.conf");
    let issue = ["peers", "issue", "anna", "--out", file.to_str().unwrap()];
    let output = world.provider.run(&issue).await;
    assert!(output.code == Some(1) && output.err.contains("the row of anna was removed again"), "{output:?}");
    assert!(output.err.contains("No space left") && !output.out.contains("PrivateKey"), "{output:?}");
    assert!(rows(&world).await.is_empty());
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 1, "nothing is left of it");
    let full = world.provider.sh("! $P peers issue anna > /dev/full 2> $HOME/said; cat $HOME/said").await;
    assert!(full.contains("the row of anna was removed again") && rows(&world).await.is_empty(), "{full}");
    fs::remove_file(ballast).unwrap();
    world.provider.must(&issue).await;
    assert_eq!(rows(&world).await.len(), 1);
}
