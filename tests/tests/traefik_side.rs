//! Traefik is killed, hangs, or gets half an answer. Fault matrix 26, 29, 30, 33.

use std::time::Instant;

use charliehub_tests::{Connection, Link, Row, Signal, Stop, Traefik, World, full, measured, ms, secs, until};
use hyper::Method;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_killed_traefik_gets_its_routes_as_soon_as_it_is_back() {
    let world = World::new().await;
    let mut traefik = world.traefik("hub2").await;
    let hello = world.backend("hello").await;
    world.insert(&Row::http("a.test", hello.address())).await;
    traefik.until_answers("http://a.test/", "hello").await;
    for round in 0..3 {
        traefik.kill();
        world.insert(&Row::http(&format!("b{round}.test"), hello.address())).await;
        traefik.up().await;
        let took = traefik.until_answers(&format!("http://b{round}.test/"), "hello").await;
        measured("routes after the start", took);
        assert!(took < secs(1), "{took:?}");
    }
}

#[tokio::test]
async fn a_traefik_that_hangs_slows_nobody_and_is_current_when_it_goes_on() {
    let world = World::new().await;
    let (one, two) = (world.traefik("one").await, world.traefik("two").await);
    let hello = world.backend("hello").await;
    world.insert(&Row::http("a.test", hello.address())).await;
    one.until_answers("http://a.test/", "hello").await;
    two.until_answers("http://a.test/", "hello").await;
    one.signal(Signal::STOP);
    for n in 0..5 {
        world.insert(&Row::http(&format!("b{n}.test"), hello.address())).await;
        let took = two.until_answers(&format!("http://b{n}.test/"), "hello").await;
        assert!(took < ms(500), "{took:?}");
    }
    one.signal(Signal::CONT);
    let took = one.until_answers("http://b4.test/", "hello").await;
    assert!(took < secs(1), "{took:?}");
}

#[tokio::test]
async fn a_provider_that_hangs_or_dies_takes_no_route_from_traefik() {
    let mut world = World::new().await;
    let traefik = world.traefik("hub2").await;
    let hello = world.backend("hello").await;
    world.insert(&Row::http("a.test", hello.address())).await;
    traefik.until_answers("http://a.test/", "hello").await;
    world.provider.signal(Signal::STOP);
    world.insert(&Row::http("b.test", hello.address())).await;
    assert_eq!(traefik.get("http://a.test/").await.text(), "hello");
    world.provider.signal(Signal::CONT);
    traefik.until_answers("http://b.test/", "hello").await;
    world.provider.kill();
    world.insert(&Row::http("c.test", hello.address())).await;
    assert_eq!(traefik.get("http://b.test/").await.text(), "hello");
    world.provider.up().await;
    // Traefik backs off after an error: 0.3 to 2.3 s after one death.
    let took = traefik.until_answers("http://c.test/", "hello").await;
    measured("live after a death", took);
    assert!(took < secs(4), "{took:?}");
    assert_eq!(traefik.get("http://a.test/").await.text(), "hello");
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_not_believed_to_be_sent() {
    let world = World::new().await;
    world.serve(&Row::http("a.test", ([127, 0, 0, 1], 1).into())).await;
    let whole = world.provider.poll().await;
    let link = Link::to(&world.home, world.provider.address()).await;
    let authorization = format!("Bearer {}", world.provider.admin_token());
    let ask = async || {
        let headers = [("authorization", authorization.as_str()), ("host", "localhost")];
        let mut connection = Connection::open(&world.home, link.address()).await?;
        connection.send(Method::GET, "/traefik?wait=20s&instance=cut", &headers, "").await
    };
    // The head of an answer is shorter than 400 bytes; an answer that came whole ends the row.
    let step = if full() { 1 } else { 23 };
    let mut cut = 0;
    for bytes in (1..whole.body.len() as u64 + 400).step_by(step) {
        link.cut_after(bytes);
        if let Ok(answer) = ask().await {
            assert_eq!(answer.body, whole.body, "after {bytes} bytes");
            break;
        }
        cut += 1;
        link.mend();
        let began = Instant::now();
        let answer = ask().await.unwrap();
        assert_eq!((answer.status, &answer.body), (200, &whole.body), "after {bytes} bytes");
        assert!(began.elapsed() < secs(1), "held after {bytes} bytes: it was believed sent");
    }
    assert!(cut > whole.body.len() / step, "cut {cut} times");
}

#[tokio::test]
async fn traefik_recovers_from_cut_answers() {
    let world = World::new().await;
    let link = Link::to(&world.home, world.provider.address()).await;
    let token = world.provider.token("traefik").await;
    let traefik = Traefik::start(&world.home, "hub2", link.address(), &token).await;
    let hello = world.backend("hello").await;
    world.insert(&Row::http("a.test", hello.address())).await;
    traefik.until_answers("http://a.test/", "hello").await;
    // Half of an answer for a while, then none is cut any more.
    link.cut_after(700);
    traefik_polls_anew(&link).await;
    world.insert(&Row::http("b.test", hello.address())).await;
    let before = link.connections();
    until("an answer is cut", secs(5), async || {
        let now = link.connections();
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(traefik.get("http://a.test/").await.text(), "hello");
    link.mend();
    let took = traefik.until_answers("http://b.test/", "hello").await;
    measured("live after cut answers", took);
}

/// The connection that is there was made before the fault: stalling it makes no new one, closing it does.
async fn traefik_polls_anew(link: &Link) {
    let before = link.connections();
    link.close_all();
    until("Traefik connects again", secs(10), async || {
        let now = link.connections();
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test]
async fn no_request_fails_while_everything_behind_traefik_fails() {
    let mut world = World::for_faults().await;
    let traefik = world.traefik("hub2").await;
    let hello = world.backend("hello").await;
    world.insert(&Row::http("a.test", hello.address())).await;
    traefik.until_answers("http://a.test/", "hello").await;
    let (client, stop) = (traefik.client(), CancellationToken::new());
    let (asked, stopped) = (client.clone(), stop.clone());
    let requests = world.home.tasks().spawn(async move {
        let (mut right, mut wrong) = (0_u32, Vec::new());
        while !stopped.is_cancelled() {
            match asked.get("http://a.test/").await {
                Ok(answer) if answer.text() == "hello" => right += 1,
                Ok(answer) => wrong.push(format!("{} {}", answer.status, answer.text())),
                Err(error) => wrong.push(format!("{error:#}")),
            }
            tokio::time::sleep(ms(2)).await;
        }
        (right, wrong)
    });
    let (writer, watch) = world.busy().await;
    drop(watch);
    world.postgres.restart(Stop::Immediate).await;
    world.provider.kill();
    world.provider.up().await;
    world.postgres.stop(Stop::Fast).await;
    world.provider.stop().await;
    world.provider.up().await;
    world.postgres.up().await;
    world.until_followed().await;
    writer.stop().await;
    world.insert(&Row::http("last.test", hello.address())).await;
    // After several deaths Traefik's back-off is up to some 20 s.
    let ((), took) = until("the last row is live", secs(30), async || match client.get("http://last.test/").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(other.map(|answer| answer.status)),
    })
    .await;
    measured("live after all that", took);
    stop.cancel();
    let (right, wrong) = requests.await.unwrap();
    assert!(wrong.is_empty(), "{} of {right} requests failed: {:?}", wrong.len(), wrong.first());
    println!("{right} requests were answered");
}
