//! Access by tier and by login, through a real Traefik: what is not surely allowed is closed.

use charliehub_tests::{Alias, Backend, Home, Postgres, Row, Seen, World, ms, secs, until};
use hyper::{Response, StatusCode, header::HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_tcp_route_of_the_internal_tier_is_closed_to_others() {
    let (world, traefik, _) = World::running().await;
    let echo = Backend::echo(&world.home).await;
    world.insert(&Row::tcp("in.test", "mqtt", echo.address()).with("access_tier", "internal")).await;
    until("the TCP route is there", secs(5), async || {
        let routers = traefik.api("/api/tcp/routers").await;
        if routers[0]["name"] == "in.test-mqtt@http" { Ok(()) } else { Err(routers) }
    })
    .await;
    let mut stream = traefik.tls("in.test").await;
    if let Ok(stream) = &mut stream {
        stream.write_all(b"x").await.ok();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "from outside nothing comes back");
    }
}

#[tokio::test]
async fn the_internal_tier_lets_in_who_comes_from_a_site_and_nobody_by_a_header() {
    let (world, traefik, hello) = World::running().await;
    let site = Alias::new(44);
    world.insert(&Row::http("in.test", hello.address()).with("access_tier", "internal")).await;
    traefik.until_status("http://in.test/", 403).await;
    let inside = traefik.client().from(site.ip()).get("http://in.test/").await.unwrap();
    assert_eq!((inside.status, inside.text().as_str()), (200, "hello"));
    for header in ["X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip", "Cf-Connecting-Ip"] {
        let value = if header == "Forwarded" { format!("for={}", site.ip()) } else { site.ip().to_string() };
        let forged = traefik.client().with(header, &value).get("http://in.test/").await.unwrap();
        assert_eq!(forged.status, 403, "{header}");
    }
}

#[tokio::test]
async fn closing_an_open_name_to_the_sites_is_live_in_milliseconds() {
    let (world, traefik, hello) = World::running().await;
    world.insert(&Row::http("a.test", hello.address())).await;
    traefik.until_answers("http://a.test/", "hello").await;
    world.psql("UPDATE domains SET access_tier = 'internal' WHERE domain = 'a.test'").await;
    let took = traefik.until_status("http://a.test/", 403).await;
    assert!(took < ms(500), "closed after {took:?}");
}

#[tokio::test]
async fn the_restricted_tier_lets_in_its_own_list_only() {
    let (world, traefik, hello) = World::running().await;
    let [site, partner] = [Alias::new(44), Alias::new(99)];
    let list = format!("{{{}/32}}", partner.ip());
    world
        .insert(&Row::http("r.test", hello.address()).with("access_tier", "restricted").with("ip_allowlist", &list))
        .await;
    traefik.until_status("http://r.test/", 403).await;
    let status = async |from| traefik.client().from(from).get("http://r.test/").await.unwrap().status;
    assert_eq!(status(partner.ip()).await, 200);
    assert_eq!(status(site.ip()).await, 403, "a site is not on the list");
}

#[tokio::test]
async fn internal_without_networks_is_closed_and_not_open() {
    let world = World::with(|provider| provider.set("access", "internal_networks", "[]")).await;
    let traefik = world.traefik("hub2").await;
    let hello = world.backend("hello").await;
    world.insert(&Row::http("in.test", hello.address()).with("access_tier", "internal")).await;
    traefik.until_status("http://in.test/", 503).await;
    assert_eq!(hello.seen().len(), 0);
}

/// Lets in who has the cookie, and says who it is.
fn authelia(seen: &Seen) -> Response<String> {
    let known = seen.headers.get("cookie").is_some_and(|c| c == "session=ok");
    let mut answer = Response::new("auth says no".to_owned());
    *answer.status_mut() = if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    answer.headers_mut().insert("remote-user", HeaderValue::from_static("ada"));
    answer
}

#[tokio::test]
async fn authentication_comes_after_the_address_and_before_the_backend() {
    let home = Home::new();
    let auth = Backend::with(&home, authelia).await;
    let postgres = Postgres::start(&home).await;
    let forward =
        format!(r#"{{ address = "http://{}/verify", auth_response_headers = ["Remote-User"] }}"#, auth.address());
    let world = World::over(home, postgres, |provider| provider.set("access", "forward_auth", &forward)).await;
    let traefik = world.traefik("hub2").await;
    let hello = world.backend("hello").await;
    let protected = Row::https("p.test", hello.address()).with("auth_required", "true");
    world.insert(&protected).await;
    let inner = Row::https("in.test", hello.address()).with("auth_required", "true").with("access_tier", "internal");
    world.insert(&inner).await;
    traefik.until_status("https://p.test/", 401).await;
    traefik.until_status("https://in.test/", 403).await;
    assert_eq!(hello.seen().len(), 0, "nothing reached the backend");
    let asked = auth.seen().len();
    assert_eq!(traefik.get("https://in.test/").await.status, 403);
    assert_eq!(auth.seen().len(), asked, "the address is judged first");

    let known = traefik.client().with("cookie", "session=ok").with("remote-user", "root");
    assert_eq!(known.get("https://p.test/").await.unwrap().status, 200);
    let seen = hello.seen();
    assert_eq!(
        seen.last().unwrap().headers["remote-user"],
        "ada",
        "who it is comes from Authelia, not from the client"
    );
}

#[tokio::test]
async fn authentication_that_is_not_configured_answers_503() {
    let (world, traefik, hello) = World::running().await;
    world.insert(&Row::https("p.test", hello.address()).with("auth_required", "true")).await;
    traefik.until_status("https://p.test/", 503).await;
}
