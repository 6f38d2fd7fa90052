use super::*;
use crate::postgres::tests::cluster::Cluster;

#[tokio::test]
async fn every_line_is_on_one_page_and_a_filter_finds_name_backend_owner_and_site() {
    let (_cluster, client) = Cluster::migrated().await;
    client
        .batch_execute(
            "INSERT INTO domains (domain, path_prefix, tls_mode, backend_host, backend_port, owner, site, status) VALUES
             ('b.org', '/', 'none', 'h1', 80, 'Ann', NULL, 'active'), ('a.org', '/', 'none', 'h2', 80, NULL, 'fr', 'draft'),
             ('a.org', '/Admin', 'none', 'h3', 80, NULL, NULL, 'maintenance'), ('c.org', '/', 'none', 'h1', 80, NULL, NULL, 'active');
             INSERT INTO fragments (kind, name, body, enabled) VALUES
             ('http.middleware', 'zip', '{\"compress\": {}}', true), ('http.middleware', 'old', '{\"compress\": {}}', false)",
        )
        .await
        .unwrap();
    let shut: Uuid = client.query_one("SELECT id FROM domains WHERE domain = 'c.org'", &[]).await.unwrap().get(0);
    let closed = BTreeMap::from([(Key::domain(shut), ("c.org".to_owned(), "site: is odd; correct it".to_owned()))]);
    let all = ["a.org", "a.org/Admin", "b.org", "c.org", "old", "zip"];
    for limit in 1..8 {
        let (mut wanted, mut seen) = (Wanted { limit, ..Wanted::default() }, Vec::new());
        loop {
            let page = page(&client, &wanted, &closed).await.unwrap();
            assert!(page.lines.len() <= limit);
            seen.extend(page.lines.into_iter().map(|line| line.name));
            let Some(next) = page.next else { break };
            wanted.after = After::read(&next.cursor());
            assert_eq!(wanted.after, Some(next));
        }
        assert_eq!(seen, all, "by {limit}");
    }
    for (filter, state, names) in [
        (Some("a.org/admin"), None, &["a.org/Admin"][..]),
        (Some("h1"), None, &["b.org", "c.org"]),
        (Some("ann"), None, &["b.org"]),
        (Some("fr"), None, &["a.org"]),
        (Some("middleware z"), None, &["zip"]),
        (Some("%"), None, &[]),
        (None, Some(RouteState::Closed), &["c.org"]),
        (None, Some(RouteState::Live), &["b.org", "zip"]),
        (None, Some(RouteState::Maintenance), &["a.org/Admin"]),
        (None, Some(RouteState::Off), &["a.org", "old"]),
        (Some("org"), Some(RouteState::Live), &["b.org"]),
    ] {
        let wanted = Wanted { filter: filter.map(str::to_owned), state, ..Wanted::default() };
        let found = page(&client, &wanted, &closed).await.unwrap();
        let found: Vec<&str> = found.lines.iter().map(|line| &*line.name).collect();
        assert_eq!(found, names, "{filter:?} {state:?}");
    }
    for wrong in ["", "x", "e30", &BASE64_URL_SAFE_NO_PAD.encode("{\"Fragment\":[\"a\\u0000\",\"b\"]}")] {
        assert_eq!(After::read(wrong), None, "{wrong}");
    }
}
