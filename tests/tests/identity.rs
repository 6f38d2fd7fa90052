//! Who is let in, for how much, and by whose word.

use charliehub_tests::{World, secs, until};
use hyper::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_token_made_and_revoked_by_http_counts_at_once_on_an_open_connection() {
    let mut world = World::new().await;
    let admin = world.provider.admin_token();
    world.provider.speak_as(&admin);
    let wanted = json!({"name": "ann", "role": "reader"}).to_string();
    let made = world.provider.send(Method::POST, "/api/tokens", &wanted).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    world.provider.speak_as(made["token"].as_str().unwrap_or_default());
    assert_eq!(world.provider.get("/api/domains").await.status, 200);
    let mut open = world.provider.connection().await;
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap_or_default());
    let headers = [("host", "127.0.0.1"), ("authorization", bearer.as_str())];
    let path = format!("/api/tokens/{}", made["id"].as_str().unwrap_or_default());
    assert_eq!(open.send(Method::GET, "/api/domains", &headers, "").await.map(|answer| answer.status).ok(), Some(200));
    world.provider.speak_as(&admin);
    assert_eq!(world.provider.send(Method::DELETE, &path, "").await.status, 200);
    assert_eq!(open.send(Method::GET, "/api/domains", &headers, "").await.map(|answer| answer.status).ok(), Some(401));
    let listed = world.provider.must(&["token", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
    let states = listed.as_array().into_iter().flatten().map(|token| (&token["name"], &token["state"]));
    assert!(states.clone().any(|pair| pair == (&json!("ann"), &json!("revoked"))), "{listed}");
}

#[tokio::test]
async fn a_consumer_that_is_too_fast_is_told_when_to_come_again_and_others_are_not_slowed() {
    let mut world =
        World::with(|provider| provider.set("serve", "rate_limit", "1").set("serve", "rate_burst", "3")).await;
    let ann = world.provider.token("reader").await;
    let bob = world.provider.token("reader").await;
    world.provider.speak_as(&ann);
    let mut last = world.provider.get("/api/domains").await;
    for _ in 0..10 {
        if last.status == 429 {
            break;
        }
        last = world.provider.get("/api/domains").await;
    }
    assert_eq!((last.status, last.header("ratelimit-remaining")), (429, "0"), "{}", last.text());
    assert!(!last.header("retry-after").is_empty() && last.json()["remedy"].is_string());
    world.provider.speak_as(&bob);
    assert_eq!(world.provider.get("/api/domains").await.status, 200);
    world.provider.speak_as(&ann);
    until("the bucket fills again", secs(5), async || {
        let answer = world.provider.get("/api/domains").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status) }
    })
    .await;
}

#[tokio::test]
async fn a_user_whom_traefik_let_in_reads_the_api_and_its_groups_decide() {
    let world = World::with(|provider| {
        provider
            .set("access", "trusted_proxies", "[\"127.0.0.1/32\"]")
            .set("access", "group_roles", "[\"ops=editor\"]")
            .set("serve", "allowed_hosts", "[\"admin.test\", \"guest.test\"]")
    })
    .await;
    let traefik = world.traefik("hub2").await;
    let address = world.provider.address();
    // What a forward-auth service answers, as Traefik hands it on.
    for (name, groups) in [("admin", "all,ops"), ("guest", "all")] {
        world
            .psql(&format!(
                "INSERT INTO fragments (kind, name, body) VALUES ('http.middleware', '{name}',
                     '{{\"headers\": {{\"customRequestHeaders\": {{\"Remote-User\": \"ann\", \"Remote-Groups\": \"{groups}\"}}}}}}');
                 INSERT INTO domains (domain, tls_mode, backend_host, backend_port, middlewares)
                 VALUES ('{name}.test', 'none', '{}', {}, '{{{name}}}')",
                address.ip(),
                address.port()
            ))
            .await;
    }
    traefik.until_status("http://admin.test/api/domains", 200).await;
    traefik.until_status("http://guest.test/api/domains", 401).await;
    assert_eq!(traefik.get("http://admin.test/api/tokens").await.status, 403, "an editor is no admin");
}
