use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::cluster::Cluster;
use crate::postgres::assume_role;

/// A good HTTP row, and one of TCP, with more columns set.
const HTTP: &str = "domain = 'a.test', backend_host = '10.0.0.1', backend_port = 80";
const TCP: &str =
    "domain = 't.test', protocol = 'tcp', tcp_entrypoint = 'mqtt', backend_host = 'mq', backend_port = 1883";

/// `column = value, ..` on top of a good row: what may not enter, and the CHECK that says so.
const REFUSED: &[(&str, &str, &str)] = &[
    (HTTP, "domain = 'A.test'", "domains_domain_lower"),
    (HTTP, "domain = 'a`.test'", "domains_domain_valid"),
    (HTTP, "domain = 'a..test'", "domains_domain_valid"),
    (HTTP, "domain = 'localhost'", "domains_domain_valid"),
    (HTTP, "domain = 'a.*.test'", "domains_domain_valid"),
    (HTTP, "domain = E'a.test\\n'", "domains_domain_valid"),
    (HTTP, "path_prefix = 'x'", "domains_path_valid"),
    (HTTP, "path_prefix = '/x/'", "domains_path_valid"),
    (HTTP, "path_prefix = '/a`) || Host(`b'", "domains_path_valid"),
    (HTTP, "path_prefix = '/../x'", "domains_path_valid"),
    (HTTP, "path_prefix = '/%zz'", "domains_path_valid"),
    (HTTP, "backend_port = NULL", "domains_backend_coupling"),
    (HTTP, "backend_port = 0", "domains_backend_port_range"),
    (HTTP, "backend_port = 65536", "domains_backend_port_range"),
    (HTTP, "backend_host = '300.1.1.1'", "domains_backend_host_valid"),
    (HTTP, "backend_host = 'a b'", "domains_backend_host_valid"),
    (HTTP, "backend_host = '::zz'", "domains_backend_host_valid"),
    (HTTP, "backend_scheme = 'ftp'", "domains_backend_scheme_valid"),
    (TCP, "backend_scheme = 'http'", "domains_backend_scheme_valid"),
    (HTTP, "backend_host = NULL, backend_port = NULL, backends = '[{\"host\":\"a\"}]'", "domains_backends_valid"),
    (
        HTTP,
        "backend_host = NULL, backend_port = NULL, backends = '[{\"host\":\"a\",\"port\":1,\"x\":1}]'",
        "domains_backends_valid",
    ),
    (HTTP, "backend_host = NULL, backend_port = NULL", "domains_backend_required"),
    (HTTP, "backends = '[{\"host\":\"a\",\"port\":1}]'", "domains_backend_required"),
    (HTTP, "service_type = 'reference', backend_host = NULL, backend_port = NULL", "domains_backend_required"),
    (TCP, "tcp_entrypoint = NULL", "domains_tcp_requires"),
    (HTTP, "tcp_entrypoint = 'mqtt'", "domains_tcp_entrypoint_valid"),
    (TCP, "tcp_entrypoint = 'a`b'", "domains_tcp_entrypoint_valid"),
    (TCP, "path_prefix = '/x'", "domains_tcp_plain"),
    (TCP, "auth_required = true", "domains_tcp_plain"),
    (HTTP, "tls_mode = 'passthrough'", "domains_tls_protocol"),
    (HTTP, "tls_mode = 'default', cert_resolver = 'le'", "domains_tls_resolver"),
    (HTTP, "cert_resolver = 'l`e'", "domains_tls_resolver"),
    (HTTP, "auth_required = true, tls_mode = 'none'", "domains_auth_needs_tls"),
    (HTTP, "access_tier = 'restricted'", "domains_access_tier_list"),
    (HTTP, "ip_allowlist = '{10.0.0.0/8}'", "domains_access_tier_list"),
    (HTTP, "access_tier = 'internal', ip_allowlist = '{8.8.8.0/24}'", "domains_access_tier_list"),
    (HTTP, "access_tier = 'restricted', ip_allowlist = '{0.0.0.0/0}'", "domains_ip_allowlist_valid"),
    (HTTP, "middlewares = '{a b}'", "domains_middlewares_valid"),
    (HTTP, "middlewares = '{a,a}'", "domains_middlewares_valid"),
    (HTTP, "redirect_to = 'https://b.test'", "domains_redirect_fields"),
    (
        HTTP,
        "service_type = 'redirect', backend_host = NULL, backend_port = NULL, redirect_to = 'https://b.test/$1'",
        "domains_redirect_fields",
    ),
    (HTTP, "redirect_permanent = true", "domains_redirect_fields"),
    (TCP, "status = 'maintenance'", "domains_maintenance_fields"),
    (HTTP, "maintenance_message = 'a`b'", "domains_maintenance_fields"),
    (HTTP, "rate_limit = '{\"average\":0}'", "domains_rate_limit_valid"),
    (HTTP, "rate_limit = '{\"average\":1.5}'", "domains_rate_limit_valid"),
    (HTTP, "health_check = '{\"path\":\"x\"}'", "domains_health_check_valid"),
    (HTTP, "sticky = '{\"cookie\":\"a b\"}'", "domains_sticky_valid"),
    (HTTP, "priority = 0", "domains_priority_range"),
    (HTTP, "owner = 'a\"b'", "domains_text_valid"),
    (HTTP, "site = 'Upper'", "domains_text_valid"),
    (HTTP, "notes = U&'\\202E'", "domains_text_valid"),
    (HTTP, "labels = '{\"a\":1}'", "domains_labels_valid"),
    (HTTP, "labels = '[]'", "domains_labels_valid"),
];

#[tokio::test]
async fn every_check_refuses_what_it_should() {
    let (_cluster, client) = Cluster::migrated().await;
    for good in [HTTP, TCP] {
        client.batch_execute(&insert(good, "")).await.unwrap();
    }
    client.batch_execute("TRUNCATE domains").await.unwrap();
    // each refused by the CHECK named, also where others would refuse it too
    let checks = client
        .query(
            "SELECT conname::text FROM pg_constraint WHERE conrelid = 'domains'::regclass AND contype = 'c' ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let checks: Vec<String> = checks.iter().map(|row| row.get(0)).collect();
    assert_eq!(checks.len(), 26);
    for check in &checks {
        assert!(REFUSED.iter().any(|(_, _, name)| name == check), "no bad value for {check}");
    }
    for (good, bad, check) in REFUSED {
        let error = client.batch_execute(&insert(good, bad)).await.expect_err(bad);
        let db = error.as_db_error().unwrap();
        assert_eq!(db.code().code(), "23514", "{bad}: {}", db.message());
        let others: Vec<_> = checks.iter().filter(|other| other != check).cloned().collect();
        if db.constraint() != Some(check) {
            // an earlier one refuses it as well: without the others it is this one
            let drop: Vec<_> = others.iter().map(|name| format!("DROP CONSTRAINT {name}")).collect();
            let alone = format!("BEGIN; ALTER TABLE domains {}; {}", drop.join(", "), insert(good, bad));
            let error = client.batch_execute(&alone).await.expect_err(bad);
            assert_eq!(error.as_db_error().unwrap().constraint(), Some(*check), "{bad}");
            client.batch_execute("ROLLBACK").await.unwrap();
        }
    }
    assert_eq!(revision(&client).await, 3, "what was refused made no revision");
}

/// `INSERT` of the columns of `good`, those of `bad` over them.
fn insert(good: &str, bad: &str) -> String {
    let mut columns: Vec<(&str, &str)> = Vec::new();
    for list in [good, bad] {
        for pair in list.split(", ").filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once(" = ").unwrap();
            columns.retain(|(known, _)| *known != name);
            columns.push((name, value));
        }
    }
    let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    format!("INSERT INTO domains ({}) VALUES ({})", names.join(", "), values.join(", "))
}

fn domain(name: &str) -> String {
    insert(HTTP, &format!("domain = '{name}'"))
}

async fn revision(client: &Client) -> i64 {
    client.query_one("SELECT n FROM revision", &[]).await.unwrap().get(0)
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_change_is_one_revision_and_one_small_notification() {
    let (cluster, client) = Cluster::migrated().await;
    let (listener, mut heard) = cluster.listener("owner").await;
    listener.batch_execute("LISTEN charliehub_revision").await.unwrap();

    client.batch_execute(&format!("BEGIN; {}; {}; COMMIT", domain("a.test"), domain("b.test"))).await.unwrap();
    let (channel, payload) = heard.recv().await.unwrap();
    assert_eq!(channel, "charliehub_revision");
    let token: String = client.query_one("SELECT token::text FROM revision", &[]).await.unwrap().get(0);
    assert_eq!(payload, format!(r#"{{"r":1,"t":"{token}"}}"#));
    assert!(payload.len() < 80);

    for nothing in [
        "UPDATE domains SET notes = notes",
        "DELETE FROM domains WHERE domain = 'none'",
        &format!("{} ON CONFLICT DO NOTHING", domain("a.test")),
        &format!("BEGIN; {}; ROLLBACK", domain("c.test")),
        &format!("BEGIN; SAVEPOINT s; {}; ROLLBACK TO s; COMMIT", domain("c.test")),
    ] {
        client.batch_execute(nothing).await.unwrap();
        assert_eq!(revision(&client).await, 1, "{nothing}");
    }
    client.batch_execute("UPDATE domains SET notes = 'x'").await.unwrap();
    assert!(heard.recv().await.unwrap().1.starts_with(r#"{"r":2,"#), "nothing was told of what changed nothing");
}

#[tokio::test]
async fn revisions_have_no_gaps_and_the_order_of_commits() {
    let (cluster, client) = Cluster::migrated().await;
    let (listener, mut heard) = cluster.listener("owner").await;
    listener.batch_execute("LISTEN charliehub_revision").await.unwrap();
    let write = |writer: usize| {
        let cluster = &cluster;
        async move {
            let client = cluster.client("owner").await;
            for row in 0..20 {
                let end = if row % 5 == 4 { "ROLLBACK" } else { "COMMIT" };
                let name = domain(&format!("r{row}.w{writer}.test"));
                client.batch_execute(&format!("BEGIN; {name}; {end}")).await.unwrap();
            }
        }
    };
    tokio::join!(write(0), write(1), write(2), write(3));
    assert_eq!(revision(&client).await, 64);
    for n in 1..=64 {
        let (_, payload) = heard.recv().await.unwrap();
        assert!(payload.starts_with(&format!(r#"{{"r":{n},"#)), "{payload} is not {n}");
    }
    assert_eq!(number(&client, "SELECT count(*) FROM revisions WHERE revision BETWEEN 1 AND 64").await, 64);
}

#[tokio::test]
async fn the_past_can_be_read_again_also_before_a_truncate() {
    let (_cluster, client) = Cluster::migrated().await;
    client.batch_execute(&format!("{}; {}", domain("a.test"), domain("b.test"))).await.unwrap();
    for change in ["UPDATE domains SET notes = 'x' WHERE domain = 'a.test'", "TRUNCATE domains", &domain("c.test")] {
        client.batch_execute(change).await.unwrap();
    }
    for (revision, rows) in [(0, 0), (1, 2), (2, 2), (3, 0), (4, 1)] {
        assert_eq!(number(&client, &format!("SELECT count(*) FROM domains_as_of({revision})")).await, rows);
    }
    let notes = "SELECT count(*) FROM domains_as_of(2) WHERE notes = 'x' AND version = 2";
    assert_eq!(number(&client, notes).await, 1);
    assert_eq!(number(&client, "SELECT count(*) FROM history WHERE op = 'T'").await, 2);
    assert_eq!(
        number(&client, "SELECT count(*) FROM domains_as_of(4) JOIN domains USING (id, domain, version, created_at)")
            .await,
        1
    );
    assert!(client.query("SELECT * FROM domains_as_of(5)", &[]).await.is_err());

    number(&client, "SELECT prune_history(2)").await;
    assert_eq!(number(&client, "SELECT count(*) FROM domains_as_of(2)").await, 2);
    assert!(client.query("SELECT * FROM domains_as_of(1)", &[]).await.is_err());
}

#[tokio::test]
async fn what_is_ours_cannot_be_forged() {
    let (_cluster, client) = Cluster::migrated().await;
    client.batch_execute(&domain("a.test")).await.unwrap();
    for forbidden in [
        "UPDATE domains SET id = gen_random_uuid()",
        "UPDATE domains SET created_at = now() - interval '1 day'",
        "UPDATE history SET key = 'x'",
        "DELETE FROM revisions",
        "TRUNCATE history",
        "SET session_replication_role = replica; DELETE FROM history",
    ] {
        assert!(client.batch_execute(forbidden).await.is_err(), "{forbidden}");
        client.batch_execute("RESET session_replication_role").await.unwrap();
    }
    client.batch_execute("UPDATE domains SET version = 77, updated_at = '2000-01-01', notes = 'x'").await.unwrap();
    assert_eq!(number(&client, "SELECT version FROM domains WHERE updated_at > '2001-01-01'").await, 2);
    client.batch_execute("SET session_replication_role = replica; UPDATE domains SET notes = 'y'").await.unwrap();
    assert_eq!(revision(&client).await, 3, "triggers run always");
}

const KEY: &str = "Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFyMTI=";

/// `column = value` on top of a good site or policy: what may not enter, and the constraint that says so.
#[tokio::test]
async fn every_constraint_of_sites_and_policies_refuses_what_it_should() {
    let (_cluster, client) = Cluster::migrated().await;
    let tunnel = |more: &str| {
        format!(
            "tunnels = '[{{\"interface\":\"wg-uk\",\"public_key\":\"{KEY}\",\"allowed_ips\":[\"10.44.0.0/16\"]{more}}}]'"
        )
    };
    let site = "INSERT INTO sites (name, networks) VALUES ('uk', '{10.44.0.0/16}')";
    let policy = "INSERT INTO policies (agent, body) VALUES ('hub2', '{}')";
    for good in [
        site,
        policy,
        &format!(
            "UPDATE sites SET {}",
            tunnel(
                ",\"keepalive\":25,\"rank\":1,\"peer_address\":\"10.44.0.1\",\"addresses\":[\"10.44.255.1/30\",\"fd00::1/64\"],\"listen_port\":51820,\"mtu\":1420,\"endpoint\":\"uk.example.org:51820\""
            )
        ),
        &format!("UPDATE sites SET {}", tunnel(",\"endpoint\":\"[2001:db8::1]:51820\"")),
        "UPDATE sites SET hosts = '[{\"address\":\"10.44.1.20\",\"name\":\"px1\",\"port\":8006}]', wan_name = 'uk.example.org'",
        "UPDATE policies SET body = '{\"firewall\":{\"rules\":[{\"name\":\"n\",\"table\":\"raw\",\"chain\":\"PREROUTING\",\"rule\":\"-j DROP\"}]},\"files\":[{\"paths\":[\"/x\"],\"mode\":\"440\",\"secret\":true}],\"units\":[{\"name\":\"a.timer\",\"active\":false}],\"disks\":[{\"path\":\"/\",\"warning_percent\":20}],\"recent\":[{\"name\":\"backup\",\"path\":\"/b/*\",\"max_age\":\"26h\"}],\"certificates\":{\"names\":[\"a.test\"],\"allow_staging\":true}}'",
        "INSERT INTO sites (name, networks) VALUES ('fr', '{10.35.0.0/16,fd35::/48}')",
    ] {
        client.batch_execute(good).await.unwrap_or_else(|error| panic!("{good}: {error:?}"));
    }
    let before = revision(&client).await;
    let set = |table: &str, what: &str| {
        format!(
            "UPDATE {table} SET {what} WHERE {} = '{}'",
            if table == "sites" { "name" } else { "agent" },
            if table == "sites" { "uk" } else { "hub2" }
        )
    };
    for (bad, constraint) in [
        ("INSERT INTO sites (name, networks) VALUES ('uk', '{10.1.0.0/16}')".to_owned(), "sites_name_unique"),
        ("INSERT INTO policies (agent, body) VALUES ('hub2', '{}')".to_owned(), "policies_agent_unique"),
        (set("sites", "name = 'U K'"), "sites_name_valid"),
        (set("sites", "agent = 'a b'"), "sites_agent_valid"),
        (set("sites", "networks = '{}'"), "sites_networks_valid"),
        (set("sites", "networks = '{0.0.0.0/0}'"), "sites_networks_valid"),
        (set("sites", "networks = '{10.44.0.0/16,10.44.7.0/24}'"), "sites_networks_valid"),
        (set("sites", "networks = '{10.35.7.0/24}'"), "sites_networks_apart"),
        (set("sites", "networks = '{10.0.0.0/8}'"), "sites_networks_apart"),
        (
            "INSERT INTO sites (name, networks) VALUES ('a', '{10.1.0.0/16}'), ('b', '{10.1.2.0/24}')".to_owned(),
            "sites_networks_apart",
        ),
        (set("sites", &tunnel("").replace(KEY, "Zm9v")), "sites_tunnel_keys_valid"),
        (set("sites", &tunnel("").replace("MTI=", "MTJ=")), "sites_tunnel_keys_valid"),
        (set("sites", &tunnel(",\"own_public_key\":\"x\"")), "sites_tunnel_keys_valid"),
        (set("sites", &tunnel(",\"colour\":1")), "sites_tunnels_valid"),
        (set("sites", &tunnel(",\"keepalive\":65536")), "sites_tunnels_valid"),
        (set("sites", &tunnel(",\"rank\":0")), "sites_tunnels_valid"),
        (set("sites", &tunnel(",\"peer_address\":\"10.44.0.1/16\"")), "sites_tunnels_valid"),
        (set("sites", &tunnel(",\"endpoint\":\"uk.example.org\"")), "sites_tunnels_valid"),
        (set("sites", &tunnel(",\"endpoint\":\"uk.example.org:99999\"")), "sites_tunnels_valid"),
        (set("sites", &tunnel("").replace("10.44.0.0/16", "10.44.0.1/16")), "sites_tunnels_valid"),
        (set("sites", &tunnel("").replace("10.44.0.0/16", "10.44/16")), "sites_tunnels_valid"),
        (set("sites", &tunnel("").replace("10.44.0.0/16", "010.44.0.0/16")), "sites_tunnels_valid"),
        (set("sites", &tunnel("").replace("wg-uk", "wg uk")), "sites_tunnels_valid"),
        (set("sites", "tunnels = '{}'"), "sites_tunnels_valid"),
        (set("sites", "tunnels = tunnels || tunnels"), "sites_tunnels_valid"),
        (set("sites", "hosts = '[{\"name\":\"px1\"}]'"), "sites_hosts_valid"),
        (set("sites", "hosts = '[{\"address\":\"px1\"}]'"), "sites_hosts_valid"),
        (set("sites", "wan_name = '*.example.org'"), "sites_wan_name_valid"),
        (set("sites", "notes = '`'"), "sites_notes_valid"),
        (set("sites", "id = gen_random_uuid()"), "sites_immutable"),
        (set("policies", "id = gen_random_uuid()"), "policies_immutable"),
        (set("policies", "agent = ''"), "policies_agent_valid"),
        (set("policies", "body = '[]'"), "policies_body_valid"),
        (set("policies", "body = '{\"colour\":1}'"), "policies_body_valid"),
        (
            set(
                "policies",
                "body = '{\"firewall\":{\"rules\":[{\"name\":\"n\",\"table\":\"rawr\",\"chain\":\"C\",\"rule\":\"r\"}]}}'",
            ),
            "policies_body_valid",
        ),
        (
            set("policies", "body = '{\"firewall\":{\"rules\":[{\"name\":\"n\",\"table\":\"raw\"}]}}'"),
            "policies_body_valid",
        ),
        (set("policies", "body = '{\"files\":[{\"paths\":[\"/x\"],\"mode\":\"9\"}]}'"), "policies_body_valid"),
        (set("policies", "body = '{\"files\":[{\"paths\":\"/x\"}]}'"), "policies_body_valid"),
        (set("policies", "body = '{\"units\":[{\"name\":\"a\",\"active\":1}]}'"), "policies_body_valid"),
        (
            set("policies", "body = '{\"recent\":[{\"name\":\"b\",\"path\":\"/b\",\"max_age\":\"old\"}]}'"),
            "policies_body_valid",
        ),
        (set("policies", "body = '{\"disks\":[{\"path\":\"/\",\"warning_percent\":101}]}'"), "policies_body_valid"),
        (set("policies", "body = '{\"certificates\":[]}'"), "policies_body_valid"),
    ] {
        let error = client.batch_execute(&bad).await.expect_err(&bad);
        let db = error.as_db_error().unwrap_or_else(|| panic!("{bad}: {error:?}"));
        assert_eq!(db.constraint(), Some(constraint), "{bad}: {db:?}");
    }
    assert_eq!(revision(&client).await, before, "what was refused left nothing");
    let error = client.batch_execute(&set("sites", "networks = '{10.35.7.0/24}'")).await.unwrap_err();
    assert_eq!(
        error.as_db_error().unwrap().message(),
        "network 10.35.7.0/24 of site uk overlaps 10.35.0.0/16 of site fr"
    );
    client
        .batch_execute(
            "UPDATE sites SET networks = CASE name WHEN 'uk' THEN '{10.35.0.0/16}' ELSE '{10.44.0.0/16}' END::cidr[]",
        )
        .await
        .expect("in one statement two sites may change places");
}

/// `column = value` on top of a good peer, and `vpn` of a policy: what may not enter, and the constraint that says so.
#[tokio::test]
async fn every_constraint_of_peers_refuses_what_it_should() {
    let (_cluster, client) = Cluster::migrated().await;
    let other = KEY.replace("Zm9v", "YmFy");
    let peer = |name: &str, key: &str, addresses: &str| {
        format!("INSERT INTO peers (name, public_key, addresses) VALUES ('{name}', '{key}', '{{{addresses}}}')")
    };
    let vpn = |more: &str| {
        format!(
            "UPDATE policies SET body = '{{\"vpn\":[{{\"interface\":\"wg-clients\",\"public_key\":\"{KEY}\",\"endpoint\":\"vpn.example.org:51820\",\"addresses\":[\"10.99.0.1/24\",\"fd99::1/64\"]{more}}}]}}'"
        )
    };
    let all = ",\"routes\":[\"0.0.0.0/0\"],\"dns\":[\"10.44.0.53\",\"fd44::53\"],\"listen_port\":51820,\"mtu\":1380";
    for good in [
        peer("anna", KEY, "10.99.0.2,fd99::2"),
        "UPDATE peers SET agents = '{hub2,hub3}', interface = 'wg0', notes = 'Anna''s laptop'".to_owned(),
        peer("ben", &other, "10.99.0.3/32"),
        "INSERT INTO policies (agent, body) VALUES ('hub2', '{}')".to_owned(),
        vpn(""),
        vpn(all),
    ] {
        client.batch_execute(&good).await.unwrap_or_else(|error| panic!("{good}: {error:?}"));
    }
    let before = revision(&client).await;
    let third = KEY.replace("Zm9v", "YmF6");
    let set = |what: &str| format!("UPDATE peers SET {what} WHERE name = 'anna'");
    let mut cases = vec![
        (peer("anna", &third, "10.99.0.4"), "peers_name_unique"),
        (peer("carl", KEY, "10.99.0.4"), "peers_public_key_unique"),
        (peer("carl", &third, "10.99.0.3"), "peers_addresses_apart"),
        (
            format!("{}, ('b', '{}', '{{10.99.0.9}}')", peer("a", &third, "10.99.0.9"), KEY.replace("Zm9v", "YmF4")),
            "peers_addresses_apart",
        ),
        (set("name = 'Anna Laptop'"), "peers_name_valid"),
        (set("name = ''"), "peers_name_valid"),
        (set("agents = '{}'"), "peers_agents_valid"),
        (set("agents = '{hub2,hub2}'"), "peers_agents_valid"),
        (set("agents = '{a b}'"), "peers_agents_valid"),
        (set("agents = '{hub2,NULL}'"), "peers_agents_valid"),
        (set("interface = 'wg clients'"), "peers_interface_valid"),
        (set("interface = 'wg-of-all-clients'"), "peers_interface_valid"),
        (set("public_key = 'Zm9v'"), "peers_public_key_valid"),
        (set(&format!("public_key = '{}'", KEY.replace("MTI=", "MTJ="))), "peers_public_key_valid"),
        (set("addresses = '{}'"), "peers_addresses_valid"),
        (set("addresses = '{10.99.0.0/24}'"), "peers_addresses_valid"),
        (set("addresses = '{fd99::/64}'"), "peers_addresses_valid"),
        (set("addresses = '{10.99.0.2,10.99.0.2}'"), "peers_addresses_valid"),
        (set("addresses = '{10.99.0.2,NULL}'"), "peers_addresses_valid"),
        (set("addresses = '{10.99.0.2,10.99.0.3}'"), "peers_addresses_apart"),
        (set("notes = '`'"), "peers_notes_valid"),
        (set("id = gen_random_uuid()"), "peers_immutable"),
    ];
    let bad = [
        vpn("").replace("wg-clients", "wg clients"),
        vpn("").replace(KEY, "Zm9v"),
        vpn("").replace(":51820", ""),
        vpn("").replace("10.99.0.1/24", "10.99.0.1"),
        vpn("").replace("\"10.99.0.1/24\",\"fd99::1/64\"", ""),
        vpn(",\"routes\":[\"10.44.0.1/16\"]"),
        vpn(",\"dns\":[\"dns.example.org\"]"),
        vpn(",\"dns\":\"10.44.0.53\""),
        vpn(",\"listen_port\":0"),
        vpn(",\"mtu\":65536"),
        vpn(",\"colour\":1"),
        vpn(&format!(
            "}},{{\"interface\":\"wg-clients\",\"public_key\":\"{KEY}\",\"endpoint\":\"a.test:1\",\"addresses\":[\"10.98.0.1/24\"]"
        )),
        "UPDATE policies SET body = '{\"vpn\":{}}'".to_owned(),
    ];
    cases.extend(bad.map(|bad| (bad, "policies_body_valid")));
    for (bad, constraint) in cases {
        let error = client.batch_execute(&bad).await.expect_err(&bad);
        let db = error.as_db_error().unwrap_or_else(|| panic!("{bad}: {error:?}"));
        assert_eq!(db.constraint(), Some(constraint), "{bad}: {db:?}");
    }
    assert_eq!(revision(&client).await, before, "what was refused left nothing");
    let error = client.batch_execute(&peer("carl", &third, "fd99::2")).await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().message(), "address fd99::2 of peer carl is that of peer anna");
    client
        .batch_execute(
            "UPDATE peers SET addresses = CASE name WHEN 'anna' THEN '{10.99.0.3}' ELSE '{10.99.0.2}' END::cidr[]",
        )
        .await
        .expect("in one statement two peers may change places");
    client.batch_execute("DELETE FROM peers WHERE name = 'ben'; TRUNCATE peers").await.unwrap();
    let history =
        "SELECT count(*) FROM history WHERE tbl = 'peers' AND ch_row_name(tbl, coalesce(new, old)) LIKE 'peer %'";
    assert_eq!(number(&client, history).await, 7);
    let then = "SELECT count(*) FROM peers_as_of(1) WHERE name = 'anna' AND addresses = '{10.99.0.2/32,fd99::2/128}'";
    assert_eq!(number(&client, then).await, 1);
    assert_eq!(number(&client, "SELECT count(*) FROM audit_breaks()").await, 0);
}

#[tokio::test]
async fn the_app_may_do_its_work_and_no_more() {
    let (cluster, _owner) = Cluster::migrated().await;
    let client = cluster.client("owner").await;
    assume_role(&client).await.unwrap();
    let hash = "sha256('x')";
    for allowed in [
        &domain("a.test"),
        "UPDATE domains SET notes = 'x'",
        "INSERT INTO fragments (kind, name, body) VALUES ('http.middleware', 'm', '{}')",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE domains, fragments IN ACCESS SHARE MODE; SELECT n FROM revision; COMMIT",
        "SELECT lock_revision()",
        &format!("INSERT INTO tokens (name, role, hash) VALUES ('t', 'reader', {hash})"),
        "UPDATE tokens SET last_used_at = now()",
        "INSERT INTO snapshot_bodies VALUES ('d', '', 0)",
        "INSERT INTO snapshots (revision, token, digest, state, reason, routes, compiler) SELECT 1, token, 'd', 'withheld', 'r', 1, 'c' FROM revision",
        "INSERT INTO instances (name, state, advice) VALUES ('hub2', 'unverified', '{line}')",
        "INSERT INTO audit_events (actor, source, kind) VALUES ('a', 'api', 'k')",
        "SELECT * FROM audit_events, schema_migrations, revisions, history",
        "SELECT * FROM domains_as_of(1), fragments_as_of(1)",
        "SELECT bit_xor(row_hash(id, version, xmin)), count(*) FROM domains",
        "INSERT INTO sites (name, networks) VALUES ('uk', '{10.44.0.0/16}'); UPDATE sites SET notes = 'x'",
        "INSERT INTO policies (agent, body) VALUES ('hub2', '{}'); UPDATE policies SET body = '{\"units\": []}'",
        &format!(
            "INSERT INTO peers (name, public_key, addresses) VALUES ('anna', '{KEY}', '{{10.99.0.2}}'); UPDATE peers SET notes = 'x'"
        ),
        "SELECT * FROM peers_as_of(1); DELETE FROM peers",
        "INSERT INTO agents (name, reported_at, boot, version) VALUES ('hub2', now(), gen_random_uuid(), '1')",
        "INSERT INTO agent_installs (agent, install, seq) VALUES ('hub2', gen_random_uuid(), 1)",
        "INSERT INTO agent_findings (agent, \"check\", target, status, text, since, seen) VALUES ('hub2', 'c', 't', 'ok', '', now(), now())",
        "INSERT INTO agent_transitions (agent, \"check\", target, text, at) VALUES ('hub2', 'c', 't', '', now())",
        "INSERT INTO rotations (id, agent, site, interface, old_key, new_key) VALUES (gen_random_uuid(), 'hub2', 'uk', 'wg-uk', encode(sha256('a'), 'base64'), encode(sha256('b'), 'base64'))",
        "UPDATE rotations SET phase = 'undone', why = 'x'; DELETE FROM rotations",
        "SELECT * FROM sites_as_of(1), policies_as_of(1)",
        "SELECT prune_transitions('90 days', 10)",
        "DELETE FROM sites; DELETE FROM policies; DELETE FROM agent_findings",
        "SELECT prune_history(1), prune_snapshots()",
        "LISTEN charliehub_revision; LISTEN charliehub_rotations; NOTIFY charliehub_probe, 'x'",
        "DELETE FROM domains",
    ] {
        client.batch_execute(allowed).await.unwrap_or_else(|error| panic!("{allowed}: {error:?}"));
    }
    for forbidden in [
        "TRUNCATE domains",
        "UPDATE revision SET n = 9",
        "INSERT INTO history (revision, tbl, key, op) VALUES (1, 'domains', 'x', 'I')",
        "SET charliehub.pruning = 'on'; DELETE FROM history",
        "TRUNCATE sites",
        "TRUNCATE peers",
        "DELETE FROM agent_transitions",
        "TRUNCATE rotations",
        "SELECT ch_bump()",
        "UPDATE audit_events SET actor = 'x'",
        "DELETE FROM audit_events",
        "ALTER TABLE domains DISABLE TRIGGER ALL",
        "DROP TABLE domains",
        "CREATE TABLE charliehub.x ()",
    ] {
        let error = client.batch_execute(forbidden).await.expect_err(forbidden);
        assert_eq!(error.code().unwrap().code(), "42501", "{forbidden}");
    }
}

#[tokio::test]
async fn rotations_are_as_they_can_be_for_everybody_to_read_and_told() {
    let (cluster, client) = Cluster::migrated().await;
    let (listener, mut heard) = cluster.listener("owner").await;
    listener.batch_execute("LISTEN charliehub_rotations").await.unwrap();
    let insert = |interface: &str| {
        format!(
            "INSERT INTO rotations (id, agent, site, interface, old_key, new_key) VALUES (gen_random_uuid(), 'hub2', 'uk', '{interface}',
             encode(sha256('a'), 'base64'), encode(sha256('b'), 'base64'))"
        )
    };
    client.batch_execute(&insert("wg-uk")).await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), ("charliehub_rotations".to_owned(), String::new()));
    let set = |what: &str| format!("UPDATE rotations SET {what}");
    for (bad, constraint) in [
        (insert("wg-uk"), "rotations_one_open"),
        (set("agent = 'a b'"), "rotations_agent_valid"),
        (set("agent = 'a@file'"), "rotations_agent_valid"),
        (set("site = ''"), "rotations_site_valid"),
        (set("interface = 'wg uk'"), "rotations_interface_valid"),
        (set("old_key = 'Zm9v'"), "rotations_keys_valid"),
        (set("new_key = old_key"), "rotations_keys_valid"),
        (set("phase = 'begun'"), "rotations_phase_valid"),
        (set("follower = agent"), "rotations_follower_valid"),
        (set("phase = 'going'"), "rotations_followed"),
        (set("why = 'x'"), "rotations_why_valid"),
        (set("phase = 'undone', why = repeat('x', 2001)"), "rotations_why_valid"),
    ] {
        let error = client.batch_execute(&bad).await.expect_err(&bad);
        let db = error.as_db_error().unwrap_or_else(|| panic!("{bad}: {error:?}"));
        assert_eq!(db.constraint(), Some(constraint), "{bad}: {db:?}");
    }
    client.batch_execute(&set("phase = 'undone', why = 'x'")).await.unwrap();
    client.batch_execute(&insert("wg-uk")).await.expect("the first one has ended");
    for role in ["charliehub_reader", "charliehub_editor"] {
        client.batch_execute(&format!("SET ROLE {role}; SELECT * FROM charliehub.rotations")).await.unwrap();
        let error = client.batch_execute("DELETE FROM charliehub.rotations").await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{role}");
        client.batch_execute("RESET ROLE").await.unwrap();
    }
}

#[tokio::test]
async fn decisions_and_tokens_are_told() {
    let (cluster, client) = Cluster::migrated().await;
    let (listener, mut heard) = cluster.listener("owner").await;
    listener.batch_execute("LISTEN charliehub_tokens; LISTEN charliehub_decision").await.unwrap();
    client
        .batch_execute(
            "INSERT INTO tokens (name, role, hash) VALUES ('t', 'reader', sha256('x'));
             INSERT INTO snapshot_bodies VALUES ('d', '', 0);
             INSERT INTO snapshots (revision, token, digest, state, reason, routes, compiler)
             SELECT 1, token, 'd', 'withheld', 'guard:empty', 1, 'c' FROM revision;",
        )
        .await
        .unwrap();
    client.batch_execute("UPDATE tokens SET last_used_at = now(); UPDATE snapshots SET pinned = true").await.unwrap();
    client.batch_execute("UPDATE snapshots SET state = 'approved'").await.unwrap();
    client.batch_execute("UPDATE snapshots SET state = 'approved'").await.unwrap();
    client.batch_execute("UPDATE tokens SET revoked_at = now()").await.unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(heard.recv().await.unwrap());
    }
    let told: Vec<_> = told.iter().map(|(channel, payload)| (channel.as_str(), payload.as_str())).collect();
    assert_eq!(told, [("charliehub_tokens", ""), ("charliehub_decision", "1"), ("charliehub_tokens", "")]);
}

#[tokio::test]
async fn ten_thousand_rows_at_once_after_small_changes() {
    let (_cluster, client) = Cluster::migrated().await;
    for row in 0..8 {
        client.batch_execute(&domain(&format!("s{row}.test"))).await.unwrap();
        client.batch_execute("UPDATE domains SET notes = coalesce(notes, '') || 'x'").await.unwrap();
    }
    let before = revision(&client).await;
    let began = Instant::now();
    client
        .batch_execute(
            "INSERT INTO domains (domain, backend_host, backend_port)
             SELECT 'd' || i || '.bulk.test', '10.0.0.1', 80 FROM generate_series(1, 10000) i",
        )
        .await
        .unwrap();
    let inserted = began.elapsed();
    client.batch_execute("UPDATE domains SET backend_port = 81 WHERE domain LIKE '%.bulk.test'").await.unwrap();
    // alone 2.5 s; with a plan that joins old and new rows it was minutes
    assert!(began.elapsed() < Duration::from_secs(20), "insert {inserted:?}, all {:?}", began.elapsed());
    assert_eq!(revision(&client).await, before + 2);
}
