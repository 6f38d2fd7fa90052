//! Who has logged in, by Authelia's contract with a proxy (v4.38 and newer), through the hub's own Traefik and settings.
//! Authelia itself cannot be had here: a stand-in answers what its endpoint does.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a story fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};

use charliehub_tests::{Answer, Authelia, Connection, Home, Hub, Rendered, Row, STRANGER, secs, trusting, until};
use hyper::Method;

const NAME: &str = "grafana.charliehub.net";
const PORTAL: &str = "https://auth.charliehub.net";
const BROWSER: &[(&str, &str)] = &[("host", NAME), ("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];

struct Edge {
    hub: Hub,
}

impl Edge {
    /// A request to the protected name, by TLS.
    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let (home, at) = (&self.hub.world.home, self.hub.traefik.websecure());
        let mut connection = Connection::by_tls(home, at, NAME, trusting(&self.hub.authority.pem())).await?;
        connection.send(method, path, headers, "").await
    }

    async fn get(&self, headers: &[(&str, &str)]) -> Answer {
        self.ask(Method::GET, "/d/1?orgId=1", &[&[("host", NAME)], headers].concat()).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_with_a_login_lets_in_who_has_a_session_and_nobody_while_authelia_is_away() {
    let home = Home::new();
    let web = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
    let authelia = Authelia::start(&home, PORTAL).await;
    let none = Rendered { with: &[], values: &[], environment: &[] };
    let edge = Edge { hub: Hub::start(home, web, &authelia.url(), &none).await };
    let backend = edge.hub.world.backend("panels").await;
    edge.hub.world.insert(&Row::https(NAME, backend.address()).with("auth_required", "true")).await;

    // A person without a session is sent to log in, and comes back to where they were.
    let (person, _) = until("the row asks for a login", secs(20), async || {
        let answer = edge.ask(Method::GET, "/d/1?orgId=1", BROWSER).await.map_err(|error| format!("{error:#}"))?;
        if answer.status == 302 { Ok(answer) } else { Err(format!("{} {}", answer.status, answer.text())) }
    })
    .await;
    let back = "https%3A%2F%2Fgrafana.charliehub.net%2Fd%2F1%3ForgId%3D1";
    assert_eq!(person.header("location"), format!("{PORTAL}/?rd={back}&rm=GET"));
    let form = edge.ask(Method::POST, "/login", BROWSER).await.unwrap();
    assert_eq!((form.status, form.header("location").ends_with("&rm=POST")), (303, true));

    // A program is told, and not led astray.
    for program in [("accept", "application/json"), ("x-requested-with", "XMLHttpRequest")] {
        assert_eq!(edge.get(&[program]).await.status, 401, "{program:?}");
    }
    let wrong = edge.get(&[("authorization", "Basic YTpi"), ("accept", "text/html")]).await;
    assert_eq!((wrong.status, wrong.header("www-authenticate").is_empty()), (401, false));
    assert_eq!(
        edge.get(&[("cookie", &format!("authelia_session={STRANGER}")), ("accept", "text/html")]).await.status,
        403
    );
    assert_eq!(backend.seen().len(), 0, "nothing of all that reached the backend");

    // Who has a session is let in, and the backend hears who it is from Authelia alone.
    let forged = [
        ("cookie", "theme=dark; authelia_session=anna"),
        ("remote-user", "root"),
        ("remote-groups", "admins"),
        ("remote-name", "Root"),
        ("remote-email", "root@charliehub.net"),
        ("remote_user", "root"),
        ("Remote_Groups", "admins"),
    ];
    let let_in = edge.get(&forged).await;
    assert_eq!((let_in.status, let_in.text().as_str()), (200, "panels"));
    let seen = backend.seen();
    let heard = &seen.last().unwrap().headers;
    let told = ["remote-user", "remote-groups", "remote-name", "remote-email"].map(|name| heard[name].as_str());
    assert_eq!(told, ["anna", "operators,staff", "anna of the hub", "anna@charliehub.net"]);
    let aliases: Vec<&String> = heard.keys().filter(|name| name.contains('_')).collect();
    assert_eq!(aliases, Vec::<&String>::new(), "what a backend may read as one of those names is gone");

    // A client that says where it comes from is not believed: Authelia's rules by network hear the real address.
    edge.get(&[("cookie", "authelia_session=anna"), ("x-forwarded-for", "10.44.0.1")]).await;
    let asked = authelia.seen();
    assert_eq!(asked.last().unwrap().headers["x-forwarded-for"], "127.0.0.1");

    // Away: closed for all, also for who has a session. Back: open again, with nothing done.
    authelia.down();
    let before = backend.seen().len();
    for headers in [&[("cookie", "authelia_session=anna")][..], &[]] {
        let status = edge.get(headers).await.status;
        assert!(status >= 500, "{status}");
    }
    assert_eq!(backend.seen().len(), before, "nothing passed");
    authelia.up();
    assert_eq!(edge.get(&[("cookie", "authelia_session=anna")]).await.status, 200);
}
