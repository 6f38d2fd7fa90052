//! The hub's Traefik and provider, started with the very files of `deploy`: entry points, redirect, ACME, TLS between them.
#![allow(clippy::unwrap_used, reason = "a story fails by panicking")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
};

use charliehub_tests::{Alias, Backend, Connection, Home, Hub, Pebble, Rendered, Row, Traefik, secs, trusting, until};
use hyper::Method;
use rustls::ClientConfig;
use serde_json::json;

/// Nobody answers there: rows of these stories ask for no login.
const NO_LOGIN: &str = "http://127.0.0.1:9/api/authz/forward-auth";
const CHALLENGE: &str = "/.well-known/acme-challenge";

fn loopback(home: &Home) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()))
}

/// `GET /` of a name on `websecure`, with a certificate that must be right: status and body.
async fn https(hub: &Hub, name: &str, config: &Arc<ClientConfig>) -> anyhow::Result<(u16, String)> {
    let mut connection = Connection::by_tls(&hub.world.home, hub.traefik.websecure(), name, Arc::clone(config)).await?;
    let answer = connection.send(Method::GET, "/", &[("host", name)], "").await?;
    Ok((answer.status, answer.text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_redirects_but_answers_http_01_and_rows_without_tls() {
    let home = Home::new();
    let web = loopback(&home);
    let pebble = Pebble::start(&home, web).await;
    let rendered = Rendered {
        with: &[],
        values: &[format!("ACME_SERVER={}", pebble.directory())],
        environment: &[("LEGO_CA_CERTIFICATES", pebble.authority().display().to_string())],
    };
    let hub = Hub::start(home, web, NO_LOGIN, &rendered).await;
    let (hello, plain) = (hub.world.backend("hello").await, hub.world.backend("plain").await);
    let signed = trusting(&pebble.root().await);

    // Nothing is routed yet, and everything redirects.
    let nobody = hub.traefik.get("http://nobody.example.test/x?y=z").await;
    let port = hub.traefik.websecure().port();
    assert_eq!(
        (nobody.status, nobody.header("location")),
        (301, format!("https://nobody.example.test:{port}/x?y=z").as_str())
    );

    // A row on `web` in the very place where the challenge of its host is answered does not get in its way.
    let squatter = Row::http("squat.example.test", plain.address()).with("path_prefix", CHALLENGE);
    for row in [
        Row::http("plain.example.test", plain.address()),
        squatter,
        Row::bare("docs.example.test").with("tls_mode", "acme").to(hello.address()),
        Row::bare("squat.example.test").with("tls_mode", "acme").to(hello.address()),
        Row::bare("covered.charliehub.net").with("tls_mode", "acme").to(hello.address()),
    ] {
        hub.world.insert(&row).await;
    }
    for name in ["docs.example.test", "squat.example.test"] {
        until(&format!("{name} is served with the certificate that it was given"), secs(40), async || {
            let (status, body) = https(&hub, name, &signed).await.map_err(|error| format!("{error:#}"))?;
            if (status, body.as_str()) == (200, "hello") { Ok(()) } else { Err(format!("{status} {body}")) }
        })
        .await;
        let redirected = hub.traefik.get(&format!("http://{name}/")).await;
        assert_eq!(
            (redirected.status, redirected.header("location")),
            (301, format!("https://{name}:{port}/").as_str())
        );
    }
    let mut connection = Connection::open(&hub.world.home, web).await.unwrap();
    let sent = connection.send(Method::POST, "/", &[("host", "docs.example.test")], "x").await.unwrap();
    assert_eq!(sent.status, 308, "what has a body is sent again as it was");

    hub.traefik.until_answers("http://plain.example.test/", "plain").await;
    let taken = hub.traefik.get(&format!("http://squat.example.test{CHALLENGE}/x")).await;
    assert_eq!((taken.status, taken.text().as_str()), (404, ""), "that place is Traefik's, whatever a row says");
    assert_eq!(hello.seen().iter().filter(|seen| seen.path.starts_with(CHALLENGE)).count(), 0);

    // A name that the default certificate is for already gets none of its own: Traefik has one that fits.
    let ours = trusting(&hub.authority.pem());
    assert_eq!(https(&hub, "covered.charliehub.net", &ours).await.unwrap(), (200, "hello".to_owned()));

    // It is known to run, with everything that it was given.
    hub.world.until_instance("the hub's Traefik runs it all", |hub2| hub2["state"] == "current").await;
    let store = std::fs::metadata(hub.world.home.join("acme.json")).unwrap();
    assert_eq!(store.permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_serves_by_its_own_certificates_and_shows_what_it_runs_on_loopback() {
    let home = Home::new();
    let web = loopback(&home);
    let tunnel = Alias::new(44);
    let internal = SocketAddr::from((tunnel.ip(), home.port()));
    let rendered = Rendered { with: &["internal"], values: &[format!("INTERNAL={internal}")], environment: &[] };
    let hub = Hub::start(home, web, NO_LOGIN, &rendered).await;
    let hello = hub.world.backend("hello").await;
    let echo = Backend::echo(&hub.world.home).await;
    let ours = trusting(&hub.authority.pem());

    // The default certificate is the file that Traefik sees, and the token came over TLS.
    hub.world.insert(&Row::https("docs.charliehub.net", hello.address())).await;
    let (answer, _) = until("docs is served", secs(20), async || {
        https(&hub, "docs.charliehub.net", &ours).await.and_then(|answer| {
            anyhow::ensure!(answer.0 == 200, "{answer:?}");
            Ok(answer)
        })
    })
    .await;
    assert_eq!(answer.1, "hello");
    let file = hub.traefik.static_configuration();
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "it holds a token");

    // The page of a row in maintenance comes from the provider, by TLS of the private authority.
    hub.world
        .psql("UPDATE domains SET status = 'maintenance', maintenance_message = 'moving racks' WHERE domain = 'docs.charliehub.net'")
        .await;
    until("the page of the maintenance", secs(20), async || {
        let (status, body) = https(&hub, "docs.charliehub.net", &ours).await.map_err(|error| format!("{error:#}"))?;
        if status == 503 && body.contains("moving racks") { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;

    // Health checks as the compose file has them.
    let healthy = hub.traefik.command("healthcheck").await;
    assert_eq!(healthy.code, Some(0), "{healthy:?}");
    let (server, ca) = (format!("https://{}", hub.world.provider.address()), hub.authority.file());
    let ca = ca.to_str().unwrap();
    let healthy = hub.world.provider.must(&["health", "--server", &server, "--ca", ca]).await;
    assert!(healthy.contains("\"ready\":true"), "{healthy}");
    let here = hub.world.provider.must(&["health", "--ca", ca]).await;
    assert!(here.contains("\"ready\":true"), "{here}");
    let stranger = hub.world.provider.run(&["health", "--server", &server]).await;
    assert_eq!(stranger.code, Some(1), "its certificate is nobody's whom this machine knows: {stranger:?}");
    let metrics = hub.traefik.try_api("/metrics").await.unwrap();
    assert!(metrics.text().contains("traefik_config_last_reload_success"), "{}", metrics.status);

    // What is on `internal` is reached by the tunnel's address, and nowhere else.
    let routed = json!({ "body": { "rule": "Host(`inside.charliehub.net`)", "entryPoints": ["internal"],
        "service": "api@internal" } });
    let put = hub.world.provider.send(Method::PUT, "/api/fragments/http.router/inside", &routed.to_string()).await;
    assert!(put.status < 300, "{}", put.text());
    hub.world.insert(&Row::tcp("echo.charliehub.net", "internal", echo.address())).await;
    until("the dashboard answers on the tunnel", secs(20), async || {
        let mut connection = Connection::open(&hub.world.home, internal).await?;
        let answer = connection.send(Method::GET, "/api/version", &[("host", "inside.charliehub.net")], "").await?;
        anyhow::ensure!(answer.status == 200, "{}", answer.status);
        Ok(())
    })
    .await;
    assert_eq!(hub.traefik.get("http://inside.charliehub.net/api/version").await.status, 301);
    assert_eq!(https(&hub, "inside.charliehub.net", &ours).await.unwrap().0, 404);
    until("the TCP row answers on the tunnel", secs(20), async || {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = charliehub_tests::open_tls(internal, "echo.charliehub.net").await?;
        stream.write_all(b"ping").await?;
        let mut back = [0; 4];
        stream.read_exact(&mut back).await?;
        anyhow::ensure!(&back == b"ping", "{back:?}");
        Ok(())
    })
    .await;
}

/// Traefik before 3.7.12 refuses the file, and names why: `aliasHeadersStrategy` is not left out silently.
#[tokio::test]
async fn an_older_traefik_refuses_the_file_rather_than_let_headers_pass() {
    let home = Home::new();
    let older = Traefik::installed().into_iter().find(|version| version.starts_with("3.6"));
    let older = older.expect("deploy/install-tools.sh traefik-3.6.15");
    let output = Traefik::refused(&home, &older).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    let said = output.out + &output.err;
    assert!(said.contains("aliasHeadersStrategy"), "{said}");
}
