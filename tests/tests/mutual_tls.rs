//! The provider, Traefik and the agent know each other by certificates of a private authority, which change while all runs.

#![allow(clippy::unwrap_used, reason = "a story fails by panicking")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use charliehub_proto::finding::Status;
use charliehub_tests::{
    Agent, Answer, Connection, Home, Pair, Pki, Postgres, Provider, Row, Signal, Traefik, World, measured, ms, secs,
    until,
};
use hyper::Method;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A provider that serves with a certificate for 127.0.0.1, and believes the clients of the same authority.
struct Edge {
    world: World,
    pki: Pki,
}

impl Edge {
    async fn new() -> Self {
        Self::of(Home::new(), |provider| provider).await
    }

    async fn of(home: Home, settings: impl FnOnce(Provider) -> Provider) -> Self {
        let pki = Pki::init(&home, "pki").await;
        let server = pki.issue("server", "edge.test", &["--san", "127.0.0.1,localhost"]).await;
        let postgres = Postgres::start(&home).await;
        let world = World::over(home, postgres, |provider| {
            let own = format!("\"https://{}\"", provider.address());
            settings(provider)
                .set("serve", "tls_certificate", &quoted(&server.certificate))
                .set("serve", "tls_key", &quoted(&server.key))
                .set("serve", "client_ca", &quoted(&pki.ca()))
                .set("compile", "self_url", &own)
        })
        .await;
        Self { world, pki }
    }

    /// One request on a connection of its own, by this certificate.
    async fn ask(&self, pair: Option<&Pair>, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let mut connection = self.connect(pair).await?;
        connection.send(Method::GET, path, headers, "").await
    }

    async fn connect(&self, pair: Option<&Pair>) -> anyhow::Result<Connection> {
        let (home, address) = (&self.world.home, self.world.provider.address());
        Connection::by_tls(home, address, "127.0.0.1", self.pki.client(pair)).await
    }

    /// Waits until new handshakes show the certificate that is in this file.
    async fn until_shown(&self, certificate: &Path) -> Duration {
        let wanted = CertificateDer::from_pem_file(certificate).unwrap();
        until("the certificate of the file is shown", secs(10), async || {
            let stream = TcpStream::connect(self.world.provider.address()).await?;
            let name = ServerName::try_from("127.0.0.1")?;
            let connector = TlsConnector::from(charliehub_tests::trusting_all()?);
            let stream = connector.connect(name, stream).await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
            anyhow::ensure!(shown == Some(wanted.clone()), "another");
            Ok(())
        })
        .await
        .1
    }

    async fn reasons(&self) -> String {
        self.world.provider.get("/readyz").await.json().get("reasons").map(ToString::to_string).unwrap_or_default()
    }
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// Puts another pair in the place of one, as somebody who renews it does.
fn replace(place: &Pair, with: &Pair) {
    for (to, from) in [(&place.key, &with.key), (&place.certificate, &with.certificate)] {
        let beside = to.with_extension("new");
        fs::copy(from, &beside).unwrap();
        fs::rename(&beside, to).unwrap();
    }
}

#[tokio::test]
async fn a_traefik_polls_by_its_certificate_alone_and_no_renewal_is_felt() {
    let home = Home::new();
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
    let edge = Edge::of(home, |it| it.traefik(&format!("instance = \"hub2\"\napi = \"http://{api}\""))).await;
    let Edge { world, pki } = &edge;
    let pair = pki.issue("traefik", "hub2", &[]).await;
    let traefik = Traefik::by_certificate(&world.home, "hub2", world.provider.address(), &pki.ca(), &pair, api).await;
    let hello = world.backend("hello").await;
    let mut took = Vec::new();
    for n in 0..5 {
        world.insert(&Row::http(&format!("live{n}.test"), hello.address())).await;
        took.push(traefik.until_answers(&format!("http://live{n}.test/"), "hello").await);
    }
    took.sort();
    measured("from the commit to live over mutual TLS, the median", took[2]);
    assert!(took[2] < ms(500), "{took:?}");
    world.until_instance("it is known to run", |hub2| hub2["state"] == "current").await;
    let ends = "tls_client_not_after_timestamp_seconds{role=\"traefik\",name=\"hub2\"}";
    world.provider.until_metric(ends, secs(5), |at| at > 1.7e9).await;

    // Others shake hands all the while, each for one request.
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let busy = world.home.tasks().spawn({
        let (stop, asked, home) = (Arc::clone(&stop), Arc::clone(&asked), world.home.clone());
        let (address, client) = (world.provider.address(), pki.client(Some(&pair)));
        async move {
            let mut refused = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let connection = Connection::by_tls(&home, address, "127.0.0.1", Arc::clone(&client)).await;
                let answer = match connection {
                    Ok(mut it) => it.send(Method::GET, "/traefik?instance=hub2", &[], "").await,
                    Err(error) => Err(error),
                };
                match answer {
                    Ok(answer) if answer.status == 200 => {}
                    other => refused.push(format!("{other:?}")),
                }
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(ms(20)).await;
            }
            refused
        }
    });
    let server = pki.pair("server", "edge.test");
    let before = fs::read(&server.certificate).unwrap();
    for round in 0..2 {
        pki.must("renew", &["server", "edge.test"]).await;
        measured("from the renewal to the first handshake with it", edge.until_shown(&server.certificate).await);
        world.insert(&Row::http(&format!("renewed{round}.test"), hello.address())).await;
        let took = traefik.until_answers(&format!("http://renewed{round}.test/"), "hello").await;
        assert!(took < ms(1000), "Traefik's held poll went on: {took:?}");
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(busy.await.unwrap(), Vec::<String>::new());
    assert!(asked.load(Ordering::Relaxed) > 20, "{asked:?} requests");
    assert_ne!(fs::read(&server.certificate).unwrap(), before);
    let log = traefik.log();
    assert!(!log.contains("cannot fetch configuration") && !log.contains("Provider error"), "{log}");
}

#[tokio::test]
async fn a_certificate_does_its_own_and_no_more() {
    let edge = Edge::new().await;
    let Edge { world, pki } = &edge;
    world.serve(&Row::http("a.test", SocketAddr::from((Ipv4Addr::LOCALHOST, 9)))).await;
    let traefik = pki.issue("traefik", "hub2", &[]).await;
    let agent = pki.issue("agent", "hub2", &[]).await;
    let client = pki.issue("client", "prometheus", &[]).await;
    for (pair, path, status, said) in [
        (None, "/traefik?instance=hub2", 401, "no token was sent"),
        (None, "/healthz", 200, "alive"),
        (Some(&traefik), "/traefik?instance=hub2", 200, "a.test"),
        (Some(&traefik), "/traefik?instance=hub3", 403, "it speaks for another instance than `hub3`"),
        (Some(&traefik), "/traefik", 403, "deploy/pki issue DIR traefik"),
        (Some(&traefik), "/api/domains", 403, "role `traefik` may not do this; it needs `reader`"),
        (Some(&traefik), "/api/agents/hub2/expected", 403, "certificate hub2, serial "),
        (Some(&agent), "/api/agents/hub2/expected", 200, "\"agent\":\"hub2\""),
        (Some(&agent), "/api/agents/hub3/expected", 403, "it speaks for another agent than `hub3`"),
        (Some(&agent), "/traefik?instance=hub2", 403, "role `agent` may not do this; it needs `traefik`"),
        (Some(&agent), "/api/agents", 403, "certificate hub2, serial "),
        (Some(&agent), "/debug.json", 403, "certificate hub2, serial "),
        (Some(&client), "/traefik?instance=hub2", 403, "it names no role"),
    ] {
        let answer = edge.ask(pair, path, &[]).await.unwrap();
        assert!(answer.status == status && answer.text().contains(said), "{pair:?} {path}: {answer:?}");
    }

    // What a proxy passes on is not its own.
    for forwarded in ["via", "forwarded", "x-forwarded-for"] {
        let mut connection = edge.connect(Some(&traefik)).await.unwrap();
        for (headers, status) in [(&[][..], 200), (&[(forwarded, "192.0.2.1")][..], 403), (&[][..], 200)] {
            let answer = connection.send(Method::GET, "/traefik?instance=hub2", headers, "").await.unwrap();
            assert_eq!(answer.status, status, "{forwarded}: {answer:?}");
        }
    }
    // A token that is sent is what counts, right or wrong.
    let admin = format!("Bearer {}", world.provider.admin_token());
    let by_token = edge.ask(Some(&agent), "/api/domains", &[("authorization", &admin)]).await.unwrap();
    assert_eq!(by_token.status, 200, "{by_token:?}");
    let wrong = edge.ask(Some(&agent), "/api/agents/hub2/expected", &[("authorization", "Bearer x")]).await.unwrap();
    assert_eq!(wrong.status, 401, "{wrong:?}");
    // Refusals are written behind the answers, some at a time.
    until("the audit names the certificate and what it asked for", secs(10), async || {
        let audit = world.provider.get("/api/audit?kind=refused").await.text();
        let is_whole =
            ["certificate hub2, serial ", "/api/agents/hub3/expected"].iter().all(|told| audit.contains(told));
        if is_whole { Ok(()) } else { Err(audit) }
    })
    .await;
}

#[tokio::test]
async fn a_bad_certificate_is_refused_in_the_handshake_and_the_log_says_whose() {
    let edge = Edge::new().await;
    let Edge { world, pki } = &edge;
    let other = Pki::init(&world.home, "other").await;
    let bad = [
        (other.issue("agent", "stranger", &[]).await, "UnknownCA"),
        (pki.issue_ended("agent", "late").await, "CertificateExpired"),
        // It may be shown by a server only.
        (pki.pair("server", "edge.test"), "Certificate"),
    ];
    for (round, (pair, alert)) in bad.iter().enumerate() {
        let refused = edge.ask(Some(pair), "/healthz", &[]).await.unwrap_err();
        let said = format!("{refused:#} {refused:?}");
        assert!(said.contains(alert), "{alert}: {said}");
        let refused = f64::from(u32::try_from(round).unwrap() + 1);
        world.provider.until_metric("tls_client_certificates_refused_total", secs(5), |n| n >= refused).await;
    }
    let log = world.provider.log();
    assert!(log.contains("a client's certificate is refused") && log.contains("stranger"), "{log}");
    assert_eq!(edge.ask(None, "/healthz", &[]).await.unwrap().status, 200);
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing_and_are_told_until_they_are_mended() {
    let edge = Edge::new().await;
    let Edge { world, pki } = &edge;
    world.serve(&Row::http("a.test", SocketAddr::from((Ipv4Addr::LOCALHOST, 9)))).await;
    let (server, ca) = (pki.pair("server", "edge.test"), pki.ca());
    let traefik = pki.issue("traefik", "hub2", &[]).await;
    let good = Pair { certificate: world.home.join("good.pem"), key: world.home.join("good.key") };
    replace(&good, &server);
    let check = world.provider.must(&["check"]).await;
    assert!(
        check.contains("TLS: certificate edge.test, serial ") && check.contains("clients of 1 authorities"),
        "{check}"
    );

    // Another's key: a pair that does not belong together.
    fs::copy(&traefik.key, &server.key).unwrap();
    until("it is told", secs(10), async || {
        let reasons = edge.reasons().await;
        if reasons.contains("do not belong together") { Ok(()) } else { Err(reasons) }
    })
    .await;
    edge.until_shown(&good.certificate).await;
    let check = world.provider.run(&["check"]).await;
    assert!(check.code == Some(1) && check.out.contains("do not belong together"), "{check:?}");
    let refused = world.provider.metric("tls_reloads_total{outcome=\"refused\"}").await;
    assert_eq!(refused, Some(1.0), "told once: {}", world.provider.log());
    assert_eq!(world.provider.metric("tls_files_refused").await, Some(1.0));
    fs::write(&server.key, "").unwrap();
    world.provider.signal(Signal::HUP);
    until("SIGHUP says it at once", secs(10), async || {
        let log = world.provider.log();
        if log.contains("is empty; write PEM into it") { Ok(()) } else { Err(log) }
    })
    .await;
    replace(&server, &good);
    until("nothing is told any more", secs(10), async || {
        let reasons = edge.reasons().await;
        if reasons == "[]" { Ok(()) } else { Err(reasons) }
    })
    .await;
    assert_eq!(world.provider.metric("tls_files_refused").await, Some(0.0));

    // An authority that is taken out counts no more, on open connections too; one that is put in counts.
    let other = Pki::init(&world.home, "other").await;
    let stranger = other.issue("traefik", "hub2", &[]).await;
    let mut open = edge.connect(Some(&traefik)).await.unwrap();
    let path = "/traefik?instance=hub2";
    assert_eq!(open.send(Method::GET, path, &[], "").await.unwrap().status, 200);
    let beside = ca.with_extension("new");
    fs::copy(other.ca(), &beside).unwrap();
    let own = world.home.join("own-ca.pem");
    fs::copy(&ca, &own).unwrap();
    fs::rename(&beside, &ca).unwrap();
    let answer = until("the open connection is refused", secs(10), async || {
        let answer = open.send(Method::GET, path, &[], "").await?;
        anyhow::ensure!(answer.status == 403, "{}", answer.status);
        Ok(answer)
    })
    .await
    .0;
    assert!(answer.text().contains("its authority is not in `serve.client_ca` any more"), "{answer:?}");
    let (home, address) = (&world.home, world.provider.address());
    let mut new = Connection::by_tls(home, address, "127.0.0.1", Pki::trusting(&own, Some(&stranger))).await.unwrap();
    assert_eq!(new.send(Method::GET, path, &[], "").await.unwrap().status, 200);
}

const TIMING: &str = "[timing]\nwireguard = \"200ms\"\nfirewall = \"200ms\"\ncertificates = \"200ms\"\nhost = \"200ms\"\n\
                      doubt = \"50ms\"\nclear = \"100ms\"\nreport = \"500ms\"\n";

#[tokio::test]
async fn an_agent_reports_by_its_certificate_and_believes_no_wrong_provider() {
    let edge = Edge::new().await;
    let Edge { world, pki } = &edge;
    let secret = world.home.join("secret");
    fs::write(&secret, "s").unwrap();
    let chmod = |mode| fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o600);
    let pair = pki.issue("agent", "hub2", &[]).await;
    let url = format!("https://{}", world.provider.address());
    let settings = format!(
        "name = \"hub2\"\n[[policy.files]]\npaths = [\"{}\"]\nmode = \"600\"\nsecret = true\n{TIMING}[provider]\nurl = \"{url}\"\n\
         ca_file = {}\nclient_certificate = {}\nclient_key = {}\n",
        secret.display(),
        quoted(&pki.ca()),
        quoted(&pair.certificate),
        quoted(&pair.key),
    );
    let agent = Agent::start(&world.home, &settings).await;
    let file = secret.to_str().unwrap();
    let known = async |status: &str| {
        until(&format!("the provider knows that it is {status}"), secs(30), async || {
            let agents = world.provider.get("/api/agents").await.text();
            let finding = format!("\"check\":\"file-mode\",\"target\":\"{file}\",\"status\":\"{status}\"");
            let compact = agents.replace(": ", ":").replace(", ", ",");
            if compact.contains(&finding) { Ok(()) } else { Err(agents) }
        })
        .await
        .1
    };
    known("ok").await;

    // A renewed pair is used without a restart.
    let ends = "tls_client_not_after_timestamp_seconds{role=\"agent\",name=\"hub2\"}";
    let before = world.provider.metric(ends).await.unwrap();
    pki.issue("agent", "hub2", &["--days", "20"]).await;
    world.provider.until_metric(ends, secs(10), |at| at < before).await;

    let server = pki.pair("server", "edge.test");
    let good = Pair { certificate: world.home.join("good.pem"), key: world.home.join("good.key") };
    replace(&good, &server);
    let other = Pki::init(&world.home, "other").await;
    let strange = other.issue("server", "edge.test", &["--san", "127.0.0.1"]).await;
    let elsewhere = pki.issue("server", "elsewhere.test", &[]).await;
    let wrong = [
        (&strange, "signed by nobody whom we trust; set provider.ca_file to the authority that signed it"),
        (&elsewhere, "not for `127.0.0.1`; call it in provider.url by a name that its certificate has"),
    ];
    for (round, (pair, said)) in wrong.into_iter().enumerate() {
        replace(&server, pair);
        let found = agent
            .until(said, secs(30), |all| {
                all.iter()
                    .any(|one| one.check == "provider" && one.status == Status::Unknown && one.text.contains(said))
            })
            .await;
        assert_eq!(found.0.iter().filter(|one| one.check == "provider").count(), 1);
        // What is found meanwhile waits.
        let (mode, status) = if round == 0 { (0o644, Status::Critical) } else { (0o600, Status::Ok) };
        chmod(mode);
        agent.until_status("file-mode", file, status, secs(10)).await;
    }
    let log = agent.log();
    let warned =
        log.lines().filter(|line| line.contains("does not take reports") && line.contains("nobody whom we trust"));
    assert_eq!(warned.count(), 1, "{log}");
    replace(&server, &good);
    until("what waited is delivered", secs(40), async || {
        let transitions = world.provider.get("/api/agents/hub2/transitions").await.text();
        if transitions.contains("critical") { Ok(()) } else { Err(transitions) }
    })
    .await;
    known("ok").await;
    agent.until_status("provider", &url, Status::Ok, secs(10)).await;
    let agents = world.provider.get("/api/agents").await.json();
    assert_eq!(agents[0]["lost"].as_u64().unwrap_or(0), 0, "{agents}");
}

#[tokio::test]
async fn the_authority_is_never_replaced_and_what_it_makes_is_private_and_renewed_in_time() {
    let home = Home::new();
    let pki = Pki::init(&home, "pki").await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let authority = fs::read(pki.ca()).unwrap();
    let said = pki.must("init", &[]).await;
    assert!(said.contains("stays as it is") && fs::read(pki.ca()).unwrap() == authority, "{said}");
    assert_eq!((mode(pki.dir()), mode(&pki.dir().join("ca.key"))), (0o700, 0o600));

    let copies = home.join("copies");
    let marker = home.join("restarted");
    let then = format!("echo again >>{}", marker.display());
    let options = ["--to", copies.to_str().unwrap(), "--then", &then];
    let pair = pki.issue("traefik", "hub2", &options).await;
    let first = fs::read(&pair.certificate).unwrap();
    assert_eq!((mode(&pair.key), mode(&copies.join("traefik-hub2.key"))), (0o600, 0o600));
    assert_eq!(fs::read(copies.join("traefik-hub2.pem")).unwrap(), first);
    pki.issue("traefik", "hub2", &options).await;
    assert_eq!(fs::read(&pair.certificate).unwrap(), first, "the same again changes nothing");
    pki.must("renew", &["--due"]).await;
    assert!(fs::read(&pair.certificate).unwrap() == first && !marker.exists(), "it is not time yet");

    let late = pki.issue_ended("agent", "late").await;
    let list = pki.run("list", &[]).await;
    assert!(
        list.code == Some(1) && list.out.lines().any(|line| line.contains("late") && line.ends_with("ended")),
        "{list:?}"
    );
    let ended = fs::read(&late.certificate).unwrap();
    // Cut short between the two files: the key is another's.
    fs::copy(&late.key, &pair.key).unwrap();
    pki.must("renew", &["--due"]).await;
    assert_ne!(fs::read(&late.certificate).unwrap(), ended);
    assert_ne!(fs::read(&pair.certificate).unwrap(), first);
    assert_eq!(fs::read_to_string(&marker).unwrap(), "again\n");
    assert_eq!(fs::read(copies.join("traefik-hub2.key")).unwrap(), fs::read(&pair.key).unwrap());
    assert_eq!(pki.run("list", &[]).await.code, Some(0));
    let left = fs::read_dir(pki.dir())
        .unwrap()
        .filter(|it| it.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.'));
    assert_eq!(left.count(), 0, "nothing half-made stays");

    for (args, said) in [
        (&["admin", "x"][..], "it is one of server, traefik, agent, client"),
        (&["agent", "a b"], "up to 64 letters"),
        (&["agent", "a", "--san", "b"], "--san is for role server"),
        (&["server", "a", "--days", "0"], "a whole number of days above 0"),
        (&["server", "a", "--owner", "root"], "say with --to where they go"),
    ] {
        let output = pki.run("issue", args).await;
        assert!(output.code == Some(1) && output.err.contains(said), "{args:?}: {output:?}");
    }
}
