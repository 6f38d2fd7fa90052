use axum::extract::Request;
use serde_json::{Value, json};

use crate::{api::tests::World, postgres::tests::cluster::Cluster};

async fn ask(world: &World, token: &str, method: &str, path: &str) -> (u16, http::HeaderMap, Value) {
    let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
    let (status, headers, body) = world.send(request, "").await;
    (status.as_u16(), headers, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

#[tokio::test]
async fn history_is_listed_shown_and_compared_without_secrets() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    for sql in [
        "INSERT INTO domains (domain, backend_host, backend_port, tls_mode) VALUES ('a.test', 'h', 80, 'default')",
        "INSERT INTO fragments (kind, name, body)
         VALUES ('http.middleware', 'login', '{\"basicAuth\": {\"users\": [\"ann:secret\"]}}')",
        "UPDATE domains SET backend_port = 81",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let (status, headers, page) = ask(&world, &world.reader, "GET", "/api/revisions?limit=2").await;
    assert_eq!((status, &page[0]["revision"], &page[1]["revision"]), (200, &json!(3), &json!(2)), "{page}");
    assert_eq!((&page[0]["changes"], &page[0]["state"], &page[0]["pinned"]), (&json!(1), &Value::Null, &json!(false)));
    let link = headers["link"].to_str().unwrap();
    let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
    let (_, headers, page) = ask(&world, &world.reader, "GET", next).await;
    assert_eq!((page[0]["revision"].clone(), page.as_array().unwrap().len()), (json!(1), 1));
    assert!(!headers.contains_key("link"), "the last page");

    let (_, _, one) = ask(&world, &world.reader, "GET", "/api/revisions/3").await;
    let change = &one["changes"][0];
    assert_eq!((&change["name"], &change["op"]), (&json!("a.test"), &json!("update")));
    assert_eq!((&change["before"]["backend_port"], &change["after"]["backend_port"]), (&json!(80), &json!(81)));
    assert!(one["routes"].as_array().unwrap().iter().all(|route| route["change"] == "changed"), "{one}");
    let (_, _, diff) = ask(&world, &world.reader, "GET", "/api/revisions/1/diff/3").await;
    assert_eq!(diff["rows"].as_array().unwrap().len(), 2, "{diff}");
    assert!(diff["text"].as_str().unwrap().contains("http://h:81"), "{diff}");
    let (_, _, fragment) = ask(&world, &world.reader, "GET", "/api/revisions/2").await;
    for answer in [diff, fragment] {
        assert!(answer.to_string().contains("ann:masked"), "{answer}");
        assert!(!answer.to_string().contains("ann:secret"), "{answer}");
    }
}

#[tokio::test]
async fn each_refusal_of_history_names_its_reason_and_the_remedy() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    let (reader, editor) = (&world.reader, &world.editor);
    for (token, method, path, status, kind) in [
        (reader, "GET", "/api/revisions?limit=0", 400, "parameter"),
        (reader, "GET", "/api/revisions?limit=1001", 400, "parameter"),
        (reader, "GET", "/api/revisions?cursor=x", 400, "parameter"),
        (reader, "GET", "/api/revisions/one", 400, "bad-request"),
        (reader, "GET", "/api/revisions/1", 404, "not-found"),
        (reader, "GET", "/api/revisions/0/diff/1", 404, "not-found"),
        (reader, "GET", "/api/revisions/1/config", 403, "forbidden"),
        (reader, "POST", "/api/revisions/1/rollback", 403, "forbidden"),
        (editor, "POST", "/api/revisions/1/rollback", 404, "not-found"),
        (editor, "POST", "/api/revisions/1/rollback?dry=1", 400, "parameter"),
        (editor, "POST", "/api/revisions/1/approve", 403, "forbidden"),
        (editor, "POST", "/api/revisions/1/discard", 403, "forbidden"),
    ] {
        let (got, _, problem) = ask(&world, token, method, path).await;
        assert_eq!((got, &problem["type"]), (status, &json!(format!("urn:charliehub:problem:{kind}"))), "{path}");
        assert!(problem["remedy"].is_string(), "{path}: {problem}");
    }
}

#[tokio::test]
async fn an_administrator_pins_a_revision_and_the_audit_says_so_once() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    for sql in [
        "INSERT INTO domains (domain, backend_host, backend_port) VALUES ('a.test', 'h', 80)",
        "UPDATE domains SET backend_port = 81",
        "UPDATE domains SET backend_port = 82",
        "INSERT INTO snapshot_bodies VALUES ('d', '', 0)",
        "INSERT INTO snapshots (revision, token, digest, state, reason, routes, compiler)
         SELECT 2, token, 'd', 'served', 'change', 1, 'c' FROM revisions WHERE revision = 2",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let pinned = async || {
        let row = client.query_one("SELECT pinned FROM snapshots WHERE revision = 2", &[]).await.unwrap();
        row.get::<_, bool>(0)
    };
    for (method, state) in [("POST", true), ("POST", true), ("DELETE", false), ("DELETE", false), ("POST", true)] {
        let (status, _, answer) = ask(&world, &world.admin, method, "/api/revisions/2/pin").await;
        assert_eq!((status, answer), (200, json!({ "revision": 2, "pinned": state })));
        assert_eq!(pinned().await, state, "{method}");
    }
    let sql = "SELECT actor, kind, detail FROM audit_events WHERE kind LIKE 'revision.%' ORDER BY id";
    let lines = client.query(sql, &[]).await.unwrap();
    let kinds: Vec<&str> = lines.iter().map(|line| line.get(1)).collect();
    assert_eq!(kinds, ["revision.pinned", "revision.unpinned", "revision.pinned"]);
    assert_eq!((lines[0].get::<_, &str>(0), lines[0].get::<_, Value>(2)["revision"].clone()), ("ada", json!(2)));
    for (token, path, status, remedy) in [
        (&world.editor, "/api/revisions/2/pin", 403, "admin"),
        (&world.admin, "/api/revisions/1/pin", 409, "pin revision 2"),
        (&world.admin, "/api/revisions/3/pin", 409, "try again"),
        (&world.admin, "/api/revisions/4/pin", 404, "/api/revisions"),
        (&world.admin, "/api/revisions/0/pin", 404, "/api/revisions"),
        (&world.admin, "/api/revisions/two/pin", 400, "/api/revisions"),
        (&world.admin, "/api/revisions/2/pin?for=ever", 400, "leave it out"),
    ] {
        let (got, _, problem) = ask(&world, token, "POST", path).await;
        assert_eq!(got, status, "{path}: {problem}");
        assert!(problem["remedy"].as_str().unwrap().contains(remedy), "{path}: {problem}");
    }
    assert!(pinned().await, "a refusal changes nothing");
}
