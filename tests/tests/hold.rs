//! A poll is held until there is something new for that instance on that connection, and never for another reason.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use charliehub_tests::{Answer, Connection, Provider, Row, Signal, World, ms, secs, until};
use hyper::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// A connection that polls with the admin's token.
struct Poller {
    connection: Connection,
    token: String,
}

impl Poller {
    async fn new(provider: &Provider) -> Self {
        Self { connection: provider.connection().await, token: provider.admin_token() }
    }

    #[expect(clippy::expect_used, reason = "fails as its story does")]
    async fn ask(&mut self, method: Method, query: &str, headers: &[(&str, &str)]) -> Answer {
        let authorization = format!("Bearer {}", self.token);
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend(headers);
        self.connection.send(method, &format!("/traefik{query}"), &all, "").await.expect("an answer")
    }

    async fn poll(&mut self, query: &str) -> Answer {
        self.ask(Method::GET, query, &[]).await
    }
}

/// One route is served.
async fn configured() -> World {
    configured_with(|provider| provider).await
}

async fn configured_with(settings: impl FnOnce(Provider) -> Provider) -> World {
    let world = World::with(settings).await;
    change(&world, 1).await;
    world.provider.until_serves(world.postgres.revision().await, secs(5)).await;
    world
}

async fn change(world: &World, port: u16) {
    let row = Row::http("a.test", ([127, 0, 0, 1], port).into()).insert();
    let port =
        format!("ON CONFLICT (domain, path_prefix, protocol, tcp_entrypoint) DO UPDATE SET backend_port = {port}");
    world.psql(&format!("{row} {port}")).await;
}

const AT_ONCE: Duration = ms(150);

#[tokio::test]
async fn the_first_poll_is_answered_at_once_and_the_second_is_held_until_a_change() {
    let world = configured().await;
    let mut poller = Poller::new(&world.provider).await;
    let first = poller.poll("?wait=20s&instance=a").await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert!(first.took < AT_ONCE, "{:?}", first.took);
    assert!(first.header("content-type").starts_with("application/json"));
    let (second, committed) = tokio::join!(poller.poll("?wait=20s&instance=a"), async {
        sleep(ms(400)).await;
        change(&world, 2).await;
        Instant::now()
    });
    let after = committed.elapsed();
    assert!(second.took >= ms(400), "it was held: {:?}", second.took);
    assert!(after < ms(200), "answered {after:?} after the commit");
    assert_ne!(second.body, first.body);
    assert_eq!(second.revision(), world.postgres.revision().await);
    assert_ne!(second.header("etag"), first.header("etag"));
}

#[tokio::test]
async fn a_poll_without_news_gets_the_same_body_when_its_wait_ends() {
    let world = configured().await;
    let mut poller = Poller::new(&world.provider).await;
    let first = poller.poll("?wait=600ms&instance=a").await;
    let second = poller.poll("?wait=600ms&instance=a").await;
    assert!(second.took >= ms(550) && second.took < ms(1_200), "{:?}", second.took);
    assert_eq!((second.status, second.body), (200, first.body));
    let without = poller.poll("?instance=a").await;
    assert!(without.took < AT_ONCE, "no wait, no hold: {:?}", without.took);
}

#[tokio::test]
async fn a_commit_that_changes_nothing_for_traefik_answers_no_poll() {
    let world = configured().await;
    let mut poller = Poller::new(&world.provider).await;
    poller.poll("?wait=1s&instance=a").await;
    let (held, ()) = tokio::join!(poller.poll("?wait=1s&instance=a"), async {
        world.psql("UPDATE domains SET notes = 'only for people'").await;
    });
    assert!(held.took >= ms(950), "{:?}", held.took);
    world.provider.until_serves(world.postgres.revision().await, secs(2)).await;
}

#[tokio::test]
async fn another_connection_and_another_instance_are_answered_at_once() {
    let world = configured().await;
    let mut one = Poller::new(&world.provider).await;
    one.poll("?wait=20s&instance=a").await;
    let other_instance = one.poll("?wait=20s&instance=b").await;
    assert!(other_instance.took < AT_ONCE, "per instance: {:?}", other_instance.took);
    let mut two = Poller::new(&world.provider).await;
    let other_connection = two.poll("?wait=20s&instance=a").await;
    assert!(other_connection.took < AT_ONCE, "per connection: {:?}", other_connection.took);
    let again = one.poll("?wait=500ms&instance=a").await;
    assert!(again.took >= ms(450), "what was sent to b is not forgotten for a: {:?}", again.took);
}

#[tokio::test]
async fn a_change_between_two_polls_is_answered_at_once() {
    let world = configured().await;
    let mut poller = Poller::new(&world.provider).await;
    let first = poller.poll("?wait=20s&instance=a").await;
    change(&world, 3).await;
    world.provider.until_serves(world.postgres.revision().await, secs(2)).await;
    let second = poller.poll("?wait=20s&instance=a").await;
    assert!(second.took < AT_ONCE && second.body != first.body, "{:?}", second.took);
}

#[tokio::test]
async fn what_came_through_a_proxy_is_never_held() {
    let world = configured().await;
    for header in [("via", "1.1 proxy"), ("x-forwarded-for", "10.44.0.1")] {
        let mut poller = Poller::new(&world.provider).await;
        for _ in 0..3 {
            let answer = poller.ask(Method::GET, "?wait=20s&instance=a", &[header]).await;
            assert_eq!(answer.status, 200);
            assert!(answer.took < AT_ONCE, "{header:?}: {:?}", answer.took);
        }
    }
}

#[tokio::test]
async fn the_server_bounds_the_wait() {
    let world = configured_with(|provider| provider.set("serve", "max_wait", "\"500ms\"")).await;
    let mut poller = Poller::new(&world.provider).await;
    poller.poll("?wait=55s&instance=a").await;
    let held = poller.poll("?wait=55s&instance=a").await;
    assert!(held.took >= ms(400) && held.took < secs(2), "{:?}", held.took);
}

#[tokio::test]
async fn etags_answer_304_without_wait_and_block_with_it() {
    let world = configured().await;
    let mut poller = Poller::new(&world.provider).await;
    let first = poller.poll("?instance=cli").await;
    let etag = first.header("etag").to_owned();
    assert!(etag.starts_with('"'), "{etag:?}");
    let known = [("if-none-match", etag.as_str())];
    let same = poller.ask(Method::GET, "?instance=cli", &known).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert!(same.took < AT_ONCE);
    let mut fresh = Poller::new(&world.provider).await;
    let (news, ()) = tokio::join!(fresh.ask(Method::GET, "?wait=20s&instance=other", &known), async {
        sleep(ms(300)).await;
        change(&world, 4).await;
    });
    assert_eq!(news.status, 200);
    assert!(news.took >= ms(300) && news.took < secs(3), "{:?}", news.took);
    assert_ne!(news.header("etag"), etag);
}

#[tokio::test]
async fn head_answers_what_get_would_without_the_body() {
    let world = configured().await;
    let mut poller = Poller::new(&world.provider).await;
    let get = poller.poll("?instance=a").await;
    let head = poller.ask(Method::HEAD, "?instance=a", &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    for header in ["etag", "x-charliehub-revision", "content-type"] {
        assert_eq!(head.header(header), get.header(header), "{header}");
    }
    let mut other = Poller::new(&world.provider).await;
    other.ask(Method::HEAD, "?wait=5s&instance=a", &[]).await;
    let first = other.poll("?wait=5s&instance=a").await;
    assert!(first.took < AT_ONCE, "a HEAD has shown no body, so the GET is the first: {:?}", first.took);
}

#[tokio::test]
async fn gzip_is_the_same_body() {
    let world = configured().await;
    let mut poller = Poller::new(&world.provider).await;
    let plain = poller.poll("?instance=a").await;
    assert_eq!(plain.header("content-encoding"), "");
    let packed = poller.ask(Method::GET, "?instance=a", &[("accept-encoding", "gzip")]).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.header("vary").to_ascii_lowercase().contains("accept-encoding"), "{}", packed.header("vary"));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    let refused = poller.ask(Method::GET, "?instance=a", &[("accept-encoding", "gzip;q=0, identity")]).await;
    assert_eq!(refused.header("content-encoding"), "");
}

#[tokio::test]
async fn who_hangs_up_while_held_is_noticed_and_held_for_less() {
    let world = configured().await;
    let impatient = ms(1_000);
    for _ in 0..3 {
        let mut poller = Poller::new(&world.provider).await;
        poller.poll("?wait=30s&instance=hasty").await;
        let held = timeout(impatient, poller.poll("?wait=30s&instance=hasty")).await;
        if held.is_ok() {
            break;
        }
    }
    let mut poller = Poller::new(&world.provider).await;
    poller.poll("?wait=30s&instance=hasty").await;
    let held = timeout(secs(10), poller.poll("?wait=30s&instance=hasty")).await.expect("held for less than it asked");
    assert!(held.took < impatient, "it hung up after {impatient:?} and was held for {:?}", held.took);
    let log = world.provider.log();
    assert!(log.contains("pollTimeout"), "the log names the line to change");
    let mut patient = Poller::new(&world.provider).await;
    patient.poll("?wait=2s&instance=patient").await;
    assert!(patient.poll("?wait=2s&instance=patient").await.took >= ms(1_900), "the others are held as before");
}

#[tokio::test]
async fn who_leaves_gaps_between_polls_is_told_which_line_to_change() {
    let world = configured().await;
    let mut lazy = Poller::new(&world.provider).await;
    for _ in 0..4 {
        lazy.poll("?wait=50ms&instance=lazy").await;
        sleep(ms(500)).await;
    }
    lazy.poll("?instance=lazy").await;
    until("the log names the line", secs(2), async || {
        let log = world.provider.log();
        if log.contains("pollInterval") && log.contains("lazy") { Ok(()) } else { Err(log.lines().count()) }
    })
    .await;
}

#[tokio::test]
async fn before_the_first_config_polls_are_held_then_503_and_the_first_row_answers_them() {
    let world = World::new().await;
    let mut poller = Poller::new(&world.provider).await;
    let at_once = poller.poll("?instance=a").await;
    assert_eq!(at_once.status, 503, "{}", at_once.text());
    let held = poller.poll("?wait=700ms&instance=a").await;
    assert_eq!(held.status, 503);
    assert!(held.took >= ms(600), "{:?}", held.took);
    let mut poller = Poller::new(&world.provider).await;
    let (first, ()) = tokio::join!(poller.poll("?wait=20s&instance=a"), async {
        sleep(ms(200)).await;
        change(&world, 1).await;
    });
    assert_eq!(first.status, 200);
    assert!(first.took >= ms(200) && first.took < secs(2), "{:?}", first.took);
    assert!(first.text().contains("a.test"));
    let ready = world.provider.get("/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
}

#[tokio::test]
async fn a_graceful_stop_answers_the_held_polls() {
    let mut world = configured().await;
    let mut poller = Poller::new(&world.provider).await;
    let first = poller.poll("?wait=30s&instance=a").await;
    let (held, ()) = tokio::join!(poller.poll("?wait=30s&instance=a"), async {
        sleep(ms(300)).await;
        world.provider.signal(Signal::TERM);
    });
    assert_eq!((held.status, held.body), (200, first.body));
    assert!(held.took < secs(3), "{:?}", held.took);
    let status = world.provider.ended(secs(5)).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn who_was_let_in_before_the_stop_is_answered_though_it_asks_after() {
    let mut world = configured().await;
    let mut connection = world.provider.connection().await;
    // Asked on another one, so that ours was let in before.
    assert_eq!(world.provider.get("/healthz").await.status, 200);
    world.provider.signal(Signal::TERM);
    let address = world.provider.address();
    until("nobody is let in any more", secs(2), async || {
        if tokio::net::TcpStream::connect(address).await.is_err() { Ok(()) } else { Err("somebody is") }
    })
    .await;
    let answer = connection.send(hyper::Method::GET, "/healthz", &[], "").await.unwrap();
    assert_eq!(answer.status, 200);
    drop(connection);
    let status = world.provider.ended(secs(5)).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn five_hundred_held_polls_are_answered_by_one_commit() {
    let world = configured().await;
    let mut pollers = Vec::new();
    for _ in 0..500 {
        let mut poller = Poller::new(&world.provider).await;
        poller.poll("?wait=20s&instance=many").await;
        pollers.push(poller);
    }
    let polls = pollers.iter_mut().map(|poller| poller.poll("?wait=20s&instance=many"));
    let (answers, committed) = tokio::join!(futures_util::future::join_all(polls), async {
        sleep(ms(300)).await;
        change(&world, 5).await;
        Instant::now()
    });
    let after = committed.elapsed();
    assert!(answers.iter().all(|a| a.status == 200 && a.revision() == answers[0].revision()));
    assert!(after < secs(2), "all answered {after:?} after the commit");
}

#[tokio::test]
async fn a_token_of_the_right_role_is_needed() {
    let world = configured().await;
    let ask = async |path: &str, token: Option<&str>| {
        let authorization = format!("Bearer {}", token.unwrap_or_default());
        let headers = token.map(|_| ("authorization", authorization.as_str()));
        let mut connection = world.provider.connection().await;
        connection.send(Method::GET, path, headers.as_slice(), "").await.unwrap().status
    };
    let [traefik, reader] = [world.provider.token("traefik").await, world.provider.token("reader").await];
    assert_eq!(ask("/traefik", None).await, 401);
    assert_eq!(ask("/traefik", Some("wrong")).await, 401);
    assert_eq!(ask("/traefik", Some(&reader)).await, 403);
    assert_eq!(ask("/traefik", Some(&traefik)).await, 200);
    assert_eq!(ask("/api/domains", Some(&traefik)).await, 403);
    assert_eq!(ask("/api/domains", Some(&reader)).await, 200);
    assert_eq!(ask("/api/domains", None).await, 401);
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ask(open, None).await, 200, "{open}");
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_within_a_second() {
    let world = configured().await;
    let token = world.provider.token("traefik").await;
    let authorization = format!("Bearer {token}");
    let status = async || {
        let headers = [("authorization", authorization.as_str())];
        world.provider.connection().await.send(Method::GET, "/traefik", &headers, "").await.unwrap().status
    };
    assert_eq!(status().await, 200);
    let list = world.provider.must(&["token", "list"]).await;
    assert!(!list.contains(&token), "a list never shows a token");
    world.psql("UPDATE tokens SET revoked_at = now() WHERE role = 'traefik'").await;
    until("the token is refused", secs(2), async || {
        let status = status().await;
        if status == 401 { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test]
async fn a_foreign_host_header_is_refused() {
    let world = configured().await;
    let token = format!("Bearer {}", world.provider.admin_token());
    let mut connection = world.provider.connection().await;
    for (host, status) in [("evil.example", 421), ("localhost", 200), ("127.0.0.1:1", 200)] {
        let headers = [("authorization", token.as_str()), ("host", host)];
        let answer = connection.send(Method::GET, "/traefik", &headers, "").await.unwrap();
        assert_eq!(answer.status, status, "{host}");
    }
}

#[tokio::test]
async fn nonsense_on_the_socket_harms_nobody() {
    let world = configured().await;
    for junk in
        ["GET /traefik?wait=junk&instance=a HTTP/1.1\r\n", "\u{0}\u{1}\u{2}\r\n\r\n", "GET / HTTP/9\r\n\r\n", "G"]
    {
        let mut stream = TcpStream::connect(world.provider.address()).await.unwrap();
        stream.write_all(junk.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(secs(5), stream.read_to_end(&mut answer)).await.expect("the connection ends").ok();
    }
    let mut poller = Poller::new(&world.provider).await;
    for query in ["?wait=junk&instance=a", "?wait=-1s", "?wait=1s&instance=a%0ab"] {
        assert_eq!(poller.poll(query).await.status, 422, "{query}");
    }
    assert_eq!(poller.poll("?instance=a").await.status, 200);
}
