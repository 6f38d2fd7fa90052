use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::body::Body;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::{
    auth::{self, Role},
    postgres::{Database, tests::cluster::Cluster},
    store::reread,
};

/// The API with a token of each of three roles; `pool` may lead nowhere.
pub(super) struct World {
    app: Router,
    pub(super) auth: Arc<Auth>,
    pub(super) expectations: Arc<Expectations>,
    pub(super) admin: String,
    pub(super) editor: String,
    pub(super) reader: String,
    _data_dir: tempfile::TempDir,
}

impl World {
    pub(super) async fn with(cluster: &Cluster, client: &tokio_postgres::Client) -> Self {
        Self::that(cluster, client, false).await
    }

    pub(super) async fn that(cluster: &Cluster, client: &tokio_postgres::Client, strict_locking: bool) -> Self {
        let admin = auth::make(client, "ada", Role::Admin, None, None).await.unwrap().text;
        let editor = auth::make(client, "ed", Role::Editor, None, None).await.unwrap().text;
        let reader = auth::make(client, "rita", Role::Reader, None, None).await.unwrap().text;
        let world = Self::new(cluster.database("owner", "test").pool(4), [admin, editor, reader], strict_locking);
        world.1.reload(client).await.unwrap();
        world.0
    }

    fn without_database() -> Self {
        let pool = Database::parse("postgres://nobody@127.0.0.1:1/none").unwrap().pool(1);
        Self::new(pool, [const { String::new() }; 3], false).0
    }

    fn new(pool: Pool, [admin, editor, reader]: [String; 3], strict_locking: bool) -> (Self, Arc<Auth>) {
        let data_dir = tempfile::tempdir().unwrap();
        let auth = Arc::new(Auth::open(data_dir.path()));
        let messages: Messages = Arc::new(|id| id.is_nil().then(|| "<b>Back & \"soon\"</b>".to_owned()));
        let current = Arc::new(Current::default());
        // Nobody follows this database: no answer waits for the swap.
        current.decide(i64::MAX);
        let settings = Settings {
            cert_resolvers: Some(["le".to_owned()].into()),
            default_resolver: Some("le".to_owned()),
            ..Settings::default()
        };
        let settings = Arc::new(settings);
        let off = crate::config::Rehearse { traefik: None, timeout: None };
        let rehearsal = Arc::new(Rehearsal::configured(&off, Arc::clone(&settings)));
        let limits = Arc::new(Limits::new(Policy { rate: 10_000, burst: 10_000 }));
        // Nor does anybody hear a wish.
        let (asker, _) = reread::channel();
        let expectations: Arc<Expectations> = Arc::default();
        let api = Api {
            pool,
            auth: auth.clone(),
            messages,
            current,
            asker,
            settings,
            rehearsal,
            instances: Arc::new(Instances::configured(&[], &Current::default())),
            telling: tokio::sync::mpsc::channel(1).0,
            traefiks: Arc::default(),
            events: Arc::default(),
            agents: Arc::new(crate::agents::Agents::new(std::time::Duration::from_mins(2))),
            expectations: Arc::clone(&expectations),
            rotations: Arc::default(),
            status: Arc::default(),
            overview: Arc::default(),
            shown: Arc::default(),
            https: false,
            strict_locking,
            limits,
            kept: Arc::default(),
        };
        let routes = router(api).route("/panics", get(async || -> Response { panic!("a test panics") }));
        let app = finish(routes, Hosts::new(BTreeSet::from(["edge.example.org".to_owned()])));
        (Self { app, auth: Arc::clone(&auth), expectations, admin, editor, reader, _data_dir: data_dir }, auth)
    }

    pub(super) async fn send(
        &self,
        request: http::request::Builder,
        body: impl Into<Body>,
    ) -> (StatusCode, http::HeaderMap, String) {
        let response = self.app.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    pub(super) async fn list(&self) -> Value {
        let request = Request::get("/api/domains").header("authorization", format!("Bearer {}", self.reader));
        let (status, _, body) = self.send(request, "").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(super) async fn post(&self, row: &Value) -> (StatusCode, http::HeaderMap, Value) {
        let request = Request::post("/api/domains")
            .header("authorization", format!("Bearer {}", self.editor))
            .header("content-type", "application/json")
            .header("x-change-reason", "a ticket")
            .header("x-request-id", "req-7");
        let (status, headers, body) = self.send(request, row.to_string()).await;
        (status, headers, serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_its_request_id() {
    let world = World::without_database();
    let json = |method: &str, path: &str| Request::builder().method(method).uri(path);
    for (request, status) in [
        (json("GET", "/nowhere"), 404),
        (json("DELETE", "/api/domains"), 405),
        (json("GET", "/api/domains"), 401),
        (json("GET", "/api/domains").header("host", "evil.test"), 421),
        (json("GET", "/nowhere").header("host", "edge.example.org:8001"), 404),
        (json("GET", "/panics"), 500),
    ] {
        let what = format!("{request:?}");
        let (got, headers, body) = world.send(request, "").await;
        assert_eq!(got.as_u16(), status, "{what}: {body}");
        assert_eq!(headers["content-type"], "application/problem+json", "{what}");
        assert!(headers.contains_key("x-request-id"), "{what}");
        let problem: charliehub_proto::problem::Problem = serde_json::from_str(&body).unwrap();
        assert_eq!(problem.status, status);
    }
}

#[tokio::test]
async fn a_request_id_is_kept_when_it_is_harmless() {
    let world = World::without_database();
    let (_, headers, _) = world.send(Request::get("/x").header("x-request-id", "abc-1"), "").await;
    assert_eq!(headers["x-request-id"], "abc-1");
    let (_, headers, _) = world.send(Request::get("/x").header("x-request-id", "a b\tc"), "").await;
    assert_eq!(headers["x-request-id"].len(), 36);
}

#[tokio::test]
async fn a_visitor_of_a_site_under_maintenance_sees_its_message_whatever_the_host() {
    let world = World::without_database();
    let page = format!("/maintenance/{}", Uuid::nil());
    let (status, headers, body) = world.send(Request::get(page).header("host", "shop.example.org"), "").await;
    assert_eq!(status, 503);
    assert_eq!(
        (&headers["cache-control"], &headers["retry-after"]),
        (&"no-store".parse().unwrap(), &"300".parse().unwrap())
    );
    assert!(body.contains("&lt;b&gt;Back &amp; &#34;soon&#34;&lt;/b&gt;"), "{body}");
    let (status, _, body) = world.send(Request::get("/maintenance/unknown"), "").await;
    assert!(status == 503 && body.contains("under maintenance"), "{status} {body}");
}

#[tokio::test]
async fn a_row_is_inserted_and_listed_and_history_knows_who() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    assert_eq!(world.list().await, json!([]));

    let (status, headers, mut row) =
        world.post(&json!({"domain": "b.test", "backend_host": "10.44.1.7", "backend_port": 80, "notes": null})).await;
    assert_eq!(status, 201, "{row}");
    assert_eq!(row.as_object_mut().unwrap().remove("change").unwrap()["revision"], 1);
    assert_eq!(headers["location"], format!("/api/domains/{}", row["id"].as_str().unwrap()));
    let typed: charliehub_proto::domain::Domain = serde_json::from_value(row.clone()).unwrap();
    assert_eq!((typed.domain.as_str(), typed.path_prefix.as_str()), ("b.test", "/"));
    let (status, ..) =
        world.post(&json!({"domain": "a.test", "service_type": "redirect", "redirect_to": "https://b.test"})).await;
    assert_eq!(status, 201);
    let (status, ..) = world
        .post(&json!({"domain": "mqtt.test", "protocol": "tcp", "tcp_entrypoint": "mqtt",
            "backends": [{"host": "h", "port": 1883}], "access_tier": "restricted", "ip_allowlist": ["192.0.2.0/24"],
            "labels": {"team": "iot"}}))
        .await;
    assert_eq!(status, 201);

    let rows = world.list().await;
    assert_eq!(
        rows.as_array().unwrap().iter().map(|row| &row["domain"]).collect::<Vec<_>>(),
        ["a.test", "b.test", "mqtt.test"]
    );
    assert_eq!(rows[1], row, "a list shows a row as its insert did");
    let who = client
        .query_one("SELECT actor, source, address, request_id, reason FROM revisions WHERE revision = 1", &[])
        .await
        .unwrap();
    let who: [String; 5] = std::array::from_fn(|at| who.get(at));
    assert_eq!(who, ["ed", "api", "0.0.0.0", "req-7", "a ticket"]);
}

#[tokio::test]
async fn a_refused_row_leaves_everything_as_it_was_and_says_how_to_mend_it() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    let row = json!({"domain": "a.test", "backend_host": "h", "backend_port": 80});
    assert_eq!(world.post(&row).await.0, 201);
    let with = |change: Value| {
        let mut row = json!({"domain": "b.test", "backend_host": "h", "backend_port": 80});
        row.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        row
    };
    for (row, status, field, remedy) in [
        (row.clone(), 409, "domain", "change that row"),
        (json!({"domain": "b.test"}), 422, "service_type", "proxy: give `backend_host`"),
        (with(json!({"domain": "B.test"})), 422, "domain", "a.example.org"),
        (with(json!({"domain": "b.test`) || Host(`c"})), 422, "domain", "a.example.org"),
        (with(json!({"backend_port": 70_000})), 422, "backend_port", "the port"),
        (with(json!({"status": null})), 422, "status", "leave `status` out"),
        (with(json!({"tls_mode": "none", "auth_required": true})), 422, "auth_required", "tls_mode"),
        (with(json!({"access_tier": "restricted"})), 422, "ip_allowlist", "name its networks"),
        (with(json!({"colour": "red"})), 422, "colour", "did you mean"),
    ] {
        let (got, _, problem) = world.post(&row).await;
        assert_eq!((got.as_u16(), problem["field"].as_str()), (status, Some(field)), "{row}: {problem}");
        assert!(problem["remedy"].as_str().unwrap().contains(remedy), "{row}: {problem}");
    }
    let (got, _, problem) = world.post(&with(json!({"notes": "a\u{0}b"}))).await;
    assert!(got == 422 && problem["detail"].as_str().unwrap().contains("u0000"), "{problem}");
    assert_eq!(world.list().await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_reader_may_not_write_and_a_body_must_be_small_json() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    let request = |token: &str| Request::post("/api/domains").header("authorization", format!("Bearer {token}"));
    let (status, _, body) = world.send(request(&world.reader), "{}").await;
    assert!(status == 403 && body.contains("--role editor"), "{status} {body}");
    assert_eq!(world.send(request(&world.editor), "{}").await.0, 415);
    let large = format!("{{\"domain\":\"{}\"}}", "a".repeat(json::LIMIT));
    let request = request(&world.editor).header("content-type", "application/json");
    assert_eq!(world.send(request, large).await.0, 413);
}

#[tokio::test]
async fn a_write_that_waited_in_vain_names_who_holds_the_lock() {
    let (cluster, mut client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    client.batch_execute("SET application_name = 'a long import'").await.unwrap();
    let open = client.transaction().await.unwrap();
    open.batch_execute("SELECT lock_revision()").await.unwrap();
    let (status, headers, problem) =
        world.post(&json!({"domain": "a.test", "backend_host": "h", "backend_port": 80})).await;
    assert_eq!((status.as_u16(), &headers["retry-after"]), (503, &"2".parse().unwrap()), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("a long import"), "{problem}");
}

#[tokio::test]
async fn a_token_works_as_soon_as_it_was_made_and_not_after_it_was_revoked() {
    let (cluster, client) = Cluster::migrated().await;
    let data_dir = tempfile::tempdir().unwrap();
    let auth = Auth::open(data_dir.path());
    let pool = cluster.database("owner", "test").pool(2);
    let done = AtomicBool::new(false);
    let story = async {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let made = auth::make(&client, "hub2", Role::Traefik, None, None).await.unwrap();
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {}", made.text).parse().unwrap());
        assert_eq!(auth.check(&headers, Need::Traefik, here, None).await.unwrap().name, "hub2");
        let kept = Auth::open(data_dir.path());
        assert!(kept.check(&headers, Need::Traefik, here, None).await.is_ok(), "without a database too");
        client.execute("UPDATE tokens SET revoked_at = now() WHERE id = $1", &[&made.id]).await.unwrap();
        auth.changed();
        while auth.check(&headers, Need::Traefik, here, None).await.is_ok() {
            tokio::task::yield_now().await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::select! {
        () = auth.follow(&pool) => {}
        () = story => {}
    }
    assert!(done.load(Ordering::Relaxed));
}

#[tokio::test]
async fn the_first_start_makes_an_admin_token_and_the_second_does_not() {
    let (_cluster, mut client) = Cluster::migrated().await;
    crate::postgres::assume_role(&client).await.unwrap();
    let data_dir = tempfile::tempdir().unwrap();
    let path = auth::ensure_admin(&mut client, data_dir.path()).await.unwrap().unwrap();
    let token = std::fs::read_to_string(path).unwrap();
    assert!(token.starts_with("ch_") && token.len() == 3 + 43 + 1, "{token}");
    assert_eq!(auth::ensure_admin(&mut client, data_dir.path()).await.unwrap(), None);
    let missing = data_dir.path().join("missing");
    client.execute("DELETE FROM tokens", &[]).await.unwrap();
    auth::ensure_admin(&mut client, &missing).await.unwrap_err();
    let left: i64 = client.query_one("SELECT count(*) FROM tokens", &[]).await.unwrap().get(0);
    assert_eq!(left, 0, "no token that nobody can read");
}

#[tokio::test]
async fn an_administrator_makes_and_revokes_tokens_and_reads_who_did() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    let admin = auth::make(&client, "root", Role::Admin, None, None).await.unwrap().text;
    world.auth.reload(&client).await.unwrap();
    let ask = |method: &str, path: &str, token: &str| {
        Request::builder()
            .method(method)
            .uri(path.to_owned())
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
    };
    for path in ["/api/tokens", "/api/audit"] {
        assert_eq!(world.send(ask("GET", path, &world.editor), "").await.0, 403, "{path}");
    }
    let wanted = json!({"name": "ann", "role": "editor", "expires": "90d", "scope": {"domains": ["*.trevarn.com"]}});
    let (status, headers, body) = world.send(ask("POST", "/api/tokens", &admin), wanted.to_string()).await;
    assert_eq!((status.as_u16(), &headers["cache-control"]), (201, &"no-store".parse().unwrap()), "{body}");
    let made: Value = serde_json::from_str(&body).unwrap();
    let (id, text) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert_eq!((&made["scope"], &made["state"]), (&wanted["scope"], &json!("living")));
    world.auth.reload(&client).await.unwrap();
    let (status, _, body) = world.send(ask("GET", "/api/fragments", text), "").await;
    assert!(status == 403 && body.contains("problem:scope"), "what is not by row is closed: {body}");

    for (wrong, field) in [
        (json!({"name": "a", "role": "admin", "scope": {"owners": ["x"]}}), "scope"),
        (json!({"name": "a", "role": "editor", "scope": {"domains": ["*.com"]}}), "scope"),
        (json!({"name": "a", "role": "agent"}), "subject"),
        (json!({"name": "a`", "role": "reader"}), "name"),
        (json!({"name": "a", "role": "reader", "expires": "soon"}), "expires"),
        (json!({"name": "a", "role": "root"}), "role"),
    ] {
        let (status, _, body) = world.send(ask("POST", "/api/tokens", &admin), wrong.to_string()).await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status.as_u16(), problem["field"].as_str()), (422, Some(field)), "{wrong}: {problem}");
    }

    let (status, _, body) = world.send(ask("GET", "/api/tokens", &admin), "").await;
    assert!(status == 200 && !body.contains("ch_"), "no text of a token in a list: {body}");
    let path = format!("/api/tokens/{id}");
    // The tokens are read again before the answer.
    assert_eq!(world.send(ask("DELETE", &path, &admin), "").await.0, 200);
    assert_eq!(world.send(ask("DELETE", &path, &admin), "").await.0, 404);
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {text}").parse().unwrap());
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    assert!(world.auth.check(&headers, Need::Read, here, None).await.is_err());

    let (status, headers, body) = world.send(ask("GET", "/api/audit?kind=token&limit=1", &admin), "").await;
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status.as_u16(), &page[0]["kind"], &page[0]["actor"]), (200, &json!("token.revoke"), &json!("root")));
    let link = headers["link"].to_str().unwrap();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    let (_, headers, body) = world.send(ask("GET", next, &admin), "").await;
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&page[0]["kind"], page[0]["detail"]["id"].as_str()), (&json!("token.create"), Some(id)), "{body}");
    assert!(!headers.contains_key("link"), "the last page");
    for (query, field) in [("since=x", "since"), ("limit=0", "limit"), ("cursor=%7B", "cursor"), ("who=x", "who")] {
        let (status, _, body) = world.send(ask("GET", &format!("/api/audit?{query}"), &admin), "").await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status.as_u16(), problem["field"].as_str()), (400, Some(field)), "{problem}");
    }
}

#[tokio::test]
async fn every_answer_says_what_is_left_and_an_unknown_caller_the_policy_only() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    let request = Request::get("/api/domains").header("authorization", format!("Bearer {}", world.reader));
    let (status, headers, _) = world.send(request, "").await;
    assert_eq!((status.as_u16(), &headers["ratelimit-remaining"]), (200, &"9999".parse().unwrap()));
    let (status, headers, _) = world.send(Request::get("/api/domains"), "").await;
    assert_eq!((status.as_u16(), headers.contains_key("ratelimit-remaining")), (401, false));
    assert_eq!(headers["ratelimit-policy"], "10000;w=1;burst=10000");
}
