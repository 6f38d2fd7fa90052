//! What happens is told by a stream that goes on where it was left, and that one who does not read holds up for nobody.

use std::time::{Duration, Instant};

use charliehub_tests::{Heard, Row, Stream, World, measured, secs, until};
use hyper::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    time::timeout,
};

const REVISIONS: &str = "?kind=revision";

#[expect(clippy::expect_used, reason = "fails as its story does")]
async fn hear(stream: &mut Stream, within: Duration) -> Heard {
    timeout(within, stream.next()).await.expect("an event in time").expect("an open stream")
}

/// Serves so many more rows, one after the other; their revisions.
async fn serve(world: &World, name: &str, count: usize) -> Vec<u64> {
    let mut revisions = Vec::new();
    for n in 0..count {
        revisions.push(world.serve(&Row::http(&format!("{name}{n}.test"), ([127, 0, 0, 1], 9).into())).await);
    }
    revisions
}

fn revision(event: &Value) -> u64 {
    event["revision"].as_u64().unwrap_or_default()
}

#[tokio::test]
async fn a_change_is_told_in_milliseconds() {
    let world = World::new().await;
    let mut stream = world.provider.follow("", &[]).await;
    for n in 0..5 {
        let began = Instant::now();
        world.insert(&Row::http(&format!("a{n}.test"), ([127, 0, 0, 1], 9).into())).await;
        let revision = world.postgres.revision().await;
        let heard = hear(&mut stream, secs(1)).await;
        measured("commit to event", began.elapsed());
        assert_eq!((heard.kind.as_str(), heard.data["revision"].as_u64()), ("revision", Some(revision)));
        assert_eq!((&heard.data["id"], &heard.data["kind"]), (&Value::from(heard.id), &Value::from("revision")));
    }
    let printed = world.provider.must(&["events", "--kind", "revision"]).await;
    assert_eq!(printed.lines().filter(|line| line.contains(" is served, with ")).count(), 5, "{printed}");
    let lines = world.provider.must(&["events", "--json"]).await;
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["revision"], world.postgres.revision().await);
}

#[tokio::test]
async fn who_comes_back_has_every_event_once() {
    let mut world = World::new().await;
    let mut stream = world.provider.follow(REVISIONS, &[]).await;
    let mut told = serve(&world, "a", 3).await;
    let mut heard = Vec::new();
    for _ in 0..2 {
        heard.push(revision(&hear(&mut stream, secs(1)).await.data));
    }
    let id = stream.id().to_owned();
    drop(stream);
    world.provider.until_metric("event_streams", secs(5), |open| open == 0.0).await;
    told.extend(serve(&world, "b", 20).await);
    // The header goes before the query: a browser sends both when it comes again.
    let mut stream = world.provider.follow("?kind=revision&after=0", &[("last-event-id", &id)]).await;
    while heard.len() < told.len() {
        heard.push(revision(&hear(&mut stream, secs(1)).await.data));
    }
    assert_eq!(heard, told);
    let bearer = format!("Bearer {}", world.provider.admin_token());
    let (path, headers) = (
        format!("/api/events?kind=revision&after={id}"),
        [("authorization", bearer.as_str()), ("accept", "application/json")],
    );
    let array = world.provider.connection().await.send(Method::GET, &path, &headers, "").await.unwrap();
    let array: Vec<Value> = serde_json::from_value(array.json()).unwrap();
    assert_eq!(array.iter().map(revision).collect::<Vec<_>>(), told[2..], "the same at once");

    // A stream that hears nothing of what it wants still learns where it stands.
    let newest = stream.id().to_owned();
    let began = Instant::now();
    let stop = world.provider.stop().await;
    measured("stop with an open stream", began.elapsed());
    assert!(stop.success() && began.elapsed() < secs(5), "{stop}");
    assert!(timeout(secs(1), stream.next()).await.unwrap().is_none(), "the stream ended");
    world.provider.up().await;
    let mut stream = world.provider.follow("", &[("last-event-id", &newest)]).await;
    let first = hear(&mut stream, secs(1)).await;
    assert_eq!(first.kind, "missed", "ids of an earlier life are told as a gap: {first:?}");
    let served = until("the newest revision is told again", secs(5), async || {
        let heard = stream.next().await.unwrap();
        if heard.kind == "revision" { Ok(revision(&heard.data)) } else { Err(heard) }
    });
    assert_eq!(Some(served.await.0), told.last().copied());
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_there_are_only_so_many() {
    let world = World::new().await;
    let token = world.provider.token("reader").await;
    let bearer = format!("Bearer {token}");
    let open = async || {
        let mut connection = world.provider.connection().await;
        connection.stream("/api/events", &[("authorization", &bearer)]).await.unwrap()
    };
    let mut streams = Vec::new();
    let (status, _, mut last) = loop {
        let (status, media, stream) = open().await;
        if status != 200 {
            break (status, media, stream);
        }
        streams.push(stream);
    };
    assert_eq!((status, streams.len()), (503, 256));
    assert!(last.next().await.is_none());
    drop(streams.pop());
    let (again, took) = until("a place is free again", secs(5), async || {
        let (status, _, stream) = open().await;
        if status == 200 { Ok(stream) } else { Err(status) }
    })
    .await;
    measured("a place after one was left", took);
    streams.push(again);

    let tokens = world.provider.must(&["token", "list"]).await;
    let line = tokens.lines().find(|line| line.contains("reader-token")).unwrap();
    let began = Instant::now();
    world.provider.must(&["token", "revoke", line.split_whitespace().next().unwrap()]).await;
    for stream in &mut streams {
        assert!(timeout(secs(5), stream.next()).await.unwrap().is_none(), "a stream of a revoked token ends");
    }
    measured("256 streams ended after their token was revoked, the command included", began.elapsed());
    assert_eq!(open().await.0, 401);
    world.provider.until_metric("event_streams", secs(5), |open| open == 0.0).await;
}

/// One commit that replaces 20 closed places by others with names of a kilobyte, so 20 events of some 2 KB.
async fn bad_rows(world: &World, n: usize) {
    let path = "x".repeat(900);
    world
        .psql(&format!(
            "BEGIN; DELETE FROM domains WHERE domain LIKE 'bad%';
             INSERT INTO domains (domain, path_prefix, tls_mode, cert_resolver, backend_host, backend_port)
             SELECT 'bad' || i || '.test', '/{n}/{path}', 'acme', 'nobody', '127.0.0.1', 9 FROM generate_series(1, 20) i;
             COMMIT"
        ))
        .await;
    let revision = world.postgres.revision().await;
    world.provider.until_serves(revision, secs(5)).await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_hung_up_on_and_a_quick_one_has_everything() {
    let world = World::with(|provider| {
        let limits = ["max_removed", "max_quarantined"].into_iter();
        let provider = limits.fold(provider, |provider, key| provider.set("guard", key, "1000000"));
        provider.set("guard", "max_quarantined_percent", "100").set("compile", "cert_resolvers", r#"["letsencrypt"]"#)
    })
    .await;
    serve(&world, "good", 1).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(world.provider.address()).await.unwrap();
    let request = format!(
        "GET /api/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        world.provider.admin_token()
    );
    slow.write_all(request.as_bytes()).await.unwrap();
    slow.readable().await.unwrap();
    let mut quick = world.provider.follow("", &[]).await;
    world.provider.until_metric("event_streams", secs(5), |open| open > 1.5).await;

    let (rounds, mut events, mut closed, mut ids) = (120, 0, 0, Vec::new());
    let mut slowest = Duration::ZERO;
    for n in 0..rounds {
        bad_rows(&world, n).await;
        let began = Instant::now();
        let want = (n + 1) * 20;
        while closed < want {
            let heard = hear(&mut quick, secs(2)).await;
            let (life, number) = heard.id.split_once('-').unwrap();
            ids.push((life.to_owned(), number.parse::<u64>().unwrap()));
            events += 1;
            assert_ne!(heard.kind, "missed");
            closed += usize::from(heard.kind == "quarantined");
        }
        slowest = slowest.max(began.elapsed());
    }
    measured("slowest batch for the quick reader, beside one that is stuck", slowest);
    assert!(ids.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[0].1 + 1 == pair[1].1), "none lost, none twice");
    println!("{events} events");
    assert!(slowest < secs(1));
    let took = world.provider.until_metric("event_streams", secs(45), |open| open < 1.5).await;
    measured("until the stuck reader was hung up on, after the last event", took);
    let mut rest = Vec::new();
    let ended = timeout(secs(5), slow.read_to_end(&mut rest)).await.unwrap();
    println!("{ended:?}, {} bytes were on their way", rest.len());
    assert!(!rest.ends_with(b"0\r\n\r\n"), "cut, not ended");
    serve(&world, "later", 1).await;
    assert_eq!(hear(&mut quick, secs(1)).await.kind, "revision");
}
