//! With no database configured the provider brings its own, and takes it along when it goes.

use charliehub_tests::{Home, Provider, Row, secs, until};

async fn insert(provider: &Provider, name: &str) {
    let sql = Row::http(name, ([127, 0, 0, 1], 80).into()).insert();
    provider.must(&["psql", "--", "-c", &sql]).await;
}

async fn until_serves(provider: &Provider, name: &str) {
    until(name, secs(10), async || {
        let answer = provider.try_get("/traefik").await.map_err(|e| e.to_string())?;
        if answer.text().contains(name) { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
    })
    .await;
}

/// Command lines of the servers on this provider's data.
fn servers(provider: &Provider) -> Vec<String> {
    let data = provider.data().display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("postgres") && line.contains(&data) {
            found.push(line);
        }
    }
    found
}

#[tokio::test]
async fn a_private_server_is_started_used_and_stopped() {
    let home = Home::new();
    let mut provider = Provider::new(&home, "provider").start().await;
    provider.until_metric("database_connected", secs(30), |v| v >= 1.0).await;
    insert(&provider, "a.test").await;
    until_serves(&provider, "a.test").await;
    assert_eq!(servers(&provider).len(), 1, "{:?}", servers(&provider));
    let status = provider.stop().await;
    assert!(status.success(), "{status}");
    assert_eq!(servers(&provider), Vec::<String>::new(), "stopped with it");
    provider.up().await;
    until_serves(&provider, "a.test").await;
    provider.stop().await;
}

#[tokio::test]
async fn a_living_orphan_is_adopted_and_a_dead_one_recovered() {
    let home = Home::new();
    let mut provider = Provider::new(&home, "provider").start().await;
    provider.until_metric("database_connected", secs(30), |v| v >= 1.0).await;
    insert(&provider, "a.test").await;
    until_serves(&provider, "a.test").await;
    for name in ["b.test", "c.test"] {
        provider.kill();
        provider.up().await;
        provider.until_metric("database_connected", secs(10), |v| v >= 1.0).await;
        insert(&provider, name).await;
        until_serves(&provider, name).await;
        assert!(servers(&provider).len() <= 1, "{:?}", servers(&provider));
    }
    provider.stop().await;
    assert_eq!(servers(&provider), Vec::<String>::new(), "an adopted one is stopped too");
}

#[tokio::test]
async fn secrets_and_data_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let mut provider = Provider::new(&home, "provider").start().await;
    provider.until_metric("database_connected", secs(30), |v| v >= 1.0).await;
    insert(&provider, "a.test").await;
    until_serves(&provider, "a.test").await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(provider.data()), 0o700);
    until("files are there", secs(5), async || {
        let token = provider.data().join("admin.token");
        if token.exists() && provider.data().join("snapshot").exists() { Ok(()) } else { Err("missing") }
    })
    .await;
    for name in ["admin.token", "snapshot"] {
        assert_eq!(mode(&provider.data().join(name)), 0o600, "{name}");
    }
    provider.stop().await;
}
