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

#[tokio::test]
async fn a_token_with_a_scope_touches_sees_and_shadows_nobody_elses_name() {
    let mut world = World::new().await;
    let admin = world.provider.admin_token();
    let row = |name: &str, more: Value| {
        let mut row = json!({"domain": name, "tls_mode": "default", "backend_host": "127.0.0.1", "backend_port": 80});
        row.as_object_mut().into_iter().for_each(|fields| fields.extend(more.as_object().cloned().unwrap_or_default()));
        row.to_string()
    };
    let others =
        world.provider.send(Method::POST, "/api/domains", &row("auth.charliehub.net", json!({"owner": "ops"}))).await;
    let others = format!("/api/domains/{}", others.json()["id"].as_str().unwrap_or_default());
    let ann =
        world.provider.must(&["token", "create", "--role", "editor", "--scope-domain", "*.trevarn.com", "ann"]).await;
    let bob = world.provider.must(&["token", "create", "--role", "editor", "--scope-owner", "bob", "bob"]).await;

    world.provider.speak_as(ann.trim());
    let made = world.provider.send(Method::POST, "/api/domains", &row("kunde.trevarn.com", json!({}))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let mine = format!("/api/domains/{}", made.json()["id"].as_str().unwrap_or_default());
    let listed = world.provider.get("/api/domains").await.json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let batch = format!(r#"[{{"op":"create","domain":{}}}]"#, row("evil.org", json!({})));
    for (method, path, body, status) in [
        (Method::GET, others.as_str(), String::new(), 404),
        (Method::PATCH, &others, json!({"notes": "x"}).to_string(), 403),
        (Method::DELETE, &others, String::new(), 403),
        (Method::POST, "/api/domains", row("evil.org", json!({})), 403),
        (Method::POST, "/api/domains", row("trevarn.com", json!({})), 403),
        (Method::PATCH, &mine, json!({"domain": "evil.org"}).to_string(), 403),
        (
            Method::PATCH,
            &mine,
            json!({"service_type": "reference", "service_ref": "api@internal", "backend_host": null,
            "backend_port": null})
            .to_string(),
            403,
        ),
        (Method::POST, "/api/domains/batch", batch, 403),
        (Method::POST, "/api/domains?rehearse=true", row("b.trevarn.com", json!({})), 400),
        (Method::GET, "/api/fragments", String::new(), 403),
        (Method::GET, "/api/revisions", String::new(), 403),
    ] {
        let answer = world.provider.send(method.clone(), path, &body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
    }
    assert_eq!(world.provider.send(Method::PATCH, &mine, r#"{"notes":"mine"}"#).await.status, 200);

    world.provider.speak_as(bob.trim());
    let path = json!({"owner": "bob", "path_prefix": "/bob"});
    let answer = world.provider.send(Method::POST, "/api/domains", &row("auth.charliehub.net", path)).await;
    assert!(answer.status == 403 && answer.text().contains("takes requests"), "{}", answer.text());
    let answer = world.provider.send(Method::POST, "/api/domains", &row("bob.test", json!({"owner": "bob"}))).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    world.provider.speak_as(&admin);
    assert_eq!(world.provider.get("/api/domains").await.json().as_array().map(Vec::len), Some(3));
}
