//! The tools of the stories hold what they promise.

use charliehub_tests::{
    Alias, Backend, Home, Link, Netns, Options, PgBouncer, Postgres, Row, Signal, SmallDisk, Stop, Traefik, World,
    measured, ms, secs, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_cluster_can_be_stopped_killed_and_followed() {
    let home = Home::new();
    let began = std::time::Instant::now();
    let mut postgres = Postgres::start(&home).await;
    measured("a cluster from the template", began.elapsed());
    postgres.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await;
    postgres.restart(Stop::Fast).await;
    postgres.restart(Stop::Immediate).await;
    postgres.kill();
    postgres.up().await;
    let mut standby = postgres.standby().await;
    postgres.sql("INSERT INTO t VALUES (2)").await;
    postgres.caught_up(&standby).await;
    postgres.kill();
    standby.promote().await;
    standby.sql("INSERT INTO t VALUES (3)").await;
    assert_eq!(standby.value("SELECT count(*) FROM t").await, "3");
    standby.signal(Signal::STOP);
    standby.signal(Signal::CONT);
    standby.stop(Stop::Fast).await;
}

#[tokio::test]
async fn a_cluster_behind_a_pooler_and_on_a_small_disk() {
    let home = Home::new();
    let disk = SmallDisk::mount(&home, "small", 60);
    let postgres = Postgres::start_with(&home, Options { under: Some(disk.path()), ..Options::default() }).await;
    let pooler = PgBouncer::start(&home, &postgres).await;
    let (client, connection) = tokio_postgres::connect(&pooler.url(&postgres), tokio_postgres::NoTls).await.unwrap();
    home.tasks().spawn(async move { drop(connection.await) });
    client.batch_execute("CREATE TABLE t (t text)").await.unwrap();
    let ballast = disk.fill();
    let refused = client.batch_execute("INSERT INTO t SELECT repeat('x', 8000) FROM generate_series(1, 2000)").await;
    assert!(refused.is_err(), "the disk is full");
    std::fs::remove_file(ballast).unwrap();
}

#[tokio::test]
async fn a_network_can_be_cut() {
    let home = Home::new();
    let netns = Netns::new(&home);
    let postgres = Postgres::start_with(&home, Options { netns: Some(&netns), ..Options::default() }).await;
    let connect = async || {
        let attempt = tokio::time::timeout(ms(300), tokio::net::TcpStream::connect(postgres.host_and_port()));
        attempt.await.map_err(|_| "no answer")?.map_err(|_| "refused")
    };
    connect().await.unwrap();
    netns.cut();
    assert_eq!(connect().await.unwrap_err(), "no answer");
    assert_eq!(postgres.value("SELECT 1").await, "1");
    netns.heal();
    until("the network is back", secs(2), connect).await;
}

#[tokio::test]
async fn traefik_answers_by_name_from_an_address() {
    let home = Home::new();
    let (hello, echo, alias) = (Backend::start(&home, "hello").await, Backend::echo(&home).await, Alias::new(44));
    let file = home.join("routes.yml");
    let text = format!(
        r#"
http:
  routers:
    plain: {{rule: "Host(`a.test`)", entryPoints: [web], service: s, middlewares: [inside]}}
    safe: {{rule: "Host(`a.test`)", entryPoints: [websecure], service: s, tls: {{}}}}
  middlewares:
    inside: {{ipAllowList: {{sourceRange: [10.44.0.0/16]}}}}
  services:
    s: {{loadBalancer: {{servers: [{{url: "http://{}"}}]}}}}
tcp:
  routers:
    t: {{rule: "HostSNI(`t.test`)", entryPoints: [mqtt], service: t, tls: {{}}}}
  services:
    t: {{loadBalancer: {{servers: [{{address: "{}"}}]}}}}
"#,
        hello.address(),
        echo.address()
    );
    std::fs::write(&file, text).unwrap();
    let traefik = Traefik::from_file(&home, "compared", &file).await;
    traefik.until_status("http://a.test/", 403).await;
    let inside = traefik.client().from(alias.ip()).get("http://a.test/").await.unwrap();
    assert_eq!((inside.status, inside.text().as_str()), (200, "hello"));
    traefik.until_answers("https://a.test/", "hello").await;
    let mut stream = traefik.tls("t.test").await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
    assert_eq!(hello.seen().len(), 2);
}

#[tokio::test]
async fn a_link_cuts_at_the_byte() {
    let home = Home::new();
    let echo = Backend::echo(&home).await;
    let link = Link::to(&home, echo.address()).await;
    link.cut_after(3);
    let mut stream = tokio::net::TcpStream::connect(link.address()).await.unwrap();
    stream.write_all(b"abcdef").await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"abc");
    assert_eq!(link.connections(), 1);
}

#[tokio::test]
#[should_panic(expected = "was served with other routes than its rows")]
async fn a_body_that_is_not_its_rows_is_noticed() {
    let world = World::for_faults().await;
    let watch = world.provider.watch();
    world.serve(&Row::http("a.test", ([127, 0, 0, 1], 1).into())).await;
    watch.until(world.postgres.revision().await, secs(2)).await;
    // As if the provider had served another port than the row of that revision had.
    let forged = "UPDATE history SET new = jsonb_set(new, '{backend_port}', '2') WHERE tbl = 'domains'";
    world.psql(&format!("SET charliehub.pruning = 'on'; {forged}")).await;
    watch.audit(&world.postgres).await;
}
