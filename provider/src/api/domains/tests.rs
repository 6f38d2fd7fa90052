//! What a client does with rows, by HTTP against a real PostgreSQL.

use http::{HeaderMap, Request};
use serde_json::{Value, json};

use crate::{api::tests::World, postgres::tests::cluster::Cluster};

/// An answer: status, headers, body.
struct Answer(u16, HeaderMap, Value);

impl World {
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        request = request.header("authorization", format!("Bearer {}", self.editor));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, headers, body) = self.send(request, body).await;
        Answer(status.as_u16(), headers, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {body}")))
    }

    async fn made(&self, columns: &Value) -> Value {
        let mut row = json!({"domain": "a.test", "backend_host": "h", "backend_port": 80});
        row.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
        let Answer(status, _, row) = self.ask("POST", "/api/domains", &[], &row).await;
        assert_eq!(status, 201, "{row}");
        row
    }
}

fn place(row: &Value) -> String {
    format!("/api/domains/{}", row["id"].as_str().unwrap())
}

fn names(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["domain"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_row_is_replaced_patched_and_removed_and_each_answer_says_what_that_did() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    let row = world.made(&json!({"notes": "x", "rate_limit": {"average": 10, "burst": 5}})).await;
    assert_eq!(row["change"]["impact"]["exposed"], json!(["a.test"]));
    let sections = |change: &Value| {
        let diff = change["diff"].as_array().unwrap().clone();
        diff.iter().map(|one| one["section"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(sections(&row["change"]), ["http.routers", "http.services", "http.middlewares"]);

    let patch = json!({"rate_limit": {"burst": null}, "backend_port": 81});
    let Answer(status, headers, patched) = world.ask("PATCH", &place(&row), &[], &patch).await;
    assert_eq!((status, &patched["rate_limit"], &patched["notes"]), (200, &json!({"average": 10}), &json!("x")));
    assert_eq!(patched["change"]["impact"]["backend"], json!(["a.test"]));
    assert_eq!(headers["etag"], format!("\"{}\"", patched["version"]));
    assert_eq!(patched["change"]["revision"], patched["version"]);

    let whole = json!({"domain": "a.test", "backend_host": "h", "backend_port": 81});
    let Answer(status, _, replaced) = world.ask("PUT", &place(&row), &[], &whole).await;
    assert_eq!((status, &replaced["rate_limit"], &replaced["notes"]), (200, &Value::Null, &Value::Null));
    let Answer(_, _, again) = world.ask("PUT", &place(&row), &[], &whole).await;
    assert_eq!((&again["change"]["state"], &again["change"]["revision"]), (&json!("unchanged"), &Value::Null));
    assert_eq!(again["version"], replaced["version"]);

    let Answer(status, _, gone) = world.ask("DELETE", &place(&row), &[], &Value::Null).await;
    assert_eq!(
        (status, &gone["domain"], &gone["change"]["impact"]["off"]),
        (200, &json!("a.test"), &json!(["a.test"]))
    );
    let Answer(status, _, problem) = world.ask("GET", &place(&row), &[], &Value::Null).await;
    assert!(status == 404 && problem["remedy"].as_str().unwrap().contains("?domain="), "{problem}");
}

#[tokio::test]
async fn who_has_not_seen_the_newest_version_is_told_who_changed_it() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    let row = world.made(&json!({})).await;
    let seen = format!("\"{}\"", row["version"]);
    client.batch_execute("UPDATE domains SET notes = 'by psql'").await.unwrap();
    for method in ["PATCH", "DELETE"] {
        let Answer(status, _, problem) =
            world.ask(method, &place(&row), &[("if-match", &seen)], &json!({"notes": "mine"})).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == 412 && detail.contains("(sql) changed it at 20"), "{problem}");
    }
    let Answer(_, headers, now) = world.ask("GET", &place(&row), &[], &Value::Null).await;
    assert_eq!(now["notes"], "by psql");
    let seen = headers["etag"].to_str().unwrap().to_owned();
    let patch = json!({"notes": "mine"});
    assert_eq!(world.ask("PATCH", &place(&row), &[("if-match", &seen)], &patch).await.0, 200);
    assert_eq!(world.ask("PATCH", &place(&row), &[("if-match", "seventeen")], &patch).await.0, 400);
    assert_eq!(world.ask("PATCH", &place(&row), &[("if-match", "*")], &patch).await.0, 200);

    let strict = World::that(&cluster, &client, true).await;
    let Answer(status, _, problem) = strict.ask("PATCH", &place(&row), &[], &patch).await;
    assert_eq!((status, &problem["field"]), (428, &json!("If-Match")));
}

#[tokio::test]
async fn a_dry_run_tells_all_and_leaves_nothing() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    let row = world.made(&json!({})).await;
    client.batch_execute("LISTEN charliehub_revision").await.unwrap();
    let before = client.query_one("SELECT n, (SELECT count(*) FROM history) FROM revision", &[]).await.unwrap();
    for (method, path, body) in [
        ("POST", "/api/domains?dry_run=true", json!({"domain": "b.test", "backend_host": "h", "backend_port": 1})),
        ("PATCH", &format!("{}?dry_run=true", place(&row)), json!({"backend_port": 82})),
        ("DELETE", &format!("{}?dry_run=true", place(&row)), Value::Null),
    ] {
        let Answer(status, _, answer) = world.ask(method, path, &[], &body).await;
        assert_eq!((status, &answer["change"]["state"]), (200, &json!("dry_run")), "{method}: {answer}");
        assert_ne!(answer["change"]["diff"], json!([]), "{method}");
    }
    let after = client.query_one("SELECT n, (SELECT count(*) FROM history) FROM revision", &[]).await.unwrap();
    let numbers = |row: &tokio_postgres::Row| (row.get::<_, i64>(0), row.get::<_, i64>(1));
    assert_eq!(numbers(&before), numbers(&after));
    assert_eq!(names(&world.list().await), ["a.test"]);
    let refused = json!({"domain": "a.test", "backend_host": "h", "backend_port": 1});
    assert_eq!(world.ask("POST", "/api/domains?dry_run=true", &[], &refused).await.0, 409, "judged by the database");
}

#[tokio::test]
async fn the_same_request_twice_counts_once() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    let row = json!({"domain": "a.test", "backend_host": "h", "backend_port": 80});
    let key = [("idempotency-key", "8e03978e-40d5-43dd-bc93-6894a57f9324")];
    let Answer(status, _, first) = world.ask("POST", "/api/domains", &key, &row).await;
    assert_eq!(status, 201);
    let Answer(status, headers, second) = world.ask("POST", "/api/domains", &key, &row).await;
    assert_eq!((status, &headers["idempotency-replayed"]), (201, &"true".parse().unwrap()));
    assert_eq!(first["id"], second["id"]);
    let Answer(status, _, problem) = world
        .ask("POST", "/api/domains", &key, &json!({"domain": "b.test", "backend_host": "h", "backend_port": 80}))
        .await;
    assert_eq!((status, &problem["field"]), (422, &json!("Idempotency-Key")), "{problem}");
    assert_eq!(names(&world.list().await), ["a.test"]);
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    let row = world.made(&json!({})).await;
    let make =
        |name: &str| json!({"op": "create", "domain": {"domain": name, "backend_host": "h", "backend_port": 80}});
    let patch = json!({"op": "patch", "id": row["id"], "version": row["version"], "domain": {"backend_port": 81}});
    let items = json!([make("b.test"), patch, make("c.test")]);
    let Answer(status, _, answer) = world.ask("POST", "/api/domains/batch", &[], &items).await;
    assert_eq!((status, answer["items"].as_array().unwrap().len()), (200, 3), "{answer}");
    assert_eq!(answer["change"]["impact"]["on"], json!(["b.test", "c.test"]));
    let revisions: i64 = client.query_one("SELECT n FROM revision", &[]).await.unwrap().get(0);
    assert_eq!(revisions, 2, "one revision for all of it");

    let items = json!([make("d.test"), make("a.test"), patch, {"op": "delete", "id": row["id"]}]);
    let Answer(status, _, problem) = world.ask("POST", "/api/domains/batch", &[], &items).await;
    let told: Vec<_> =
        problem["items"].as_array().unwrap().iter().map(|item| (&item["index"], &item["status"])).collect();
    assert_eq!((status, told), (422, vec![(&json!(1), &json!(409)), (&json!(2), &json!(412))]), "{problem}");
    assert_eq!(names(&world.list().await), ["a.test", "b.test", "c.test"]);
    for (items, field) in [
        (json!([]), "."),
        (json!([{"op": "create", "domain": {"domian": "x.test"}}]), "[0].domian"),
        (json!([{"op": "destroy"}]), "[0].op"),
    ] {
        let Answer(status, _, problem) = world.ask("POST", "/api/domains/batch", &[], &items).await;
        assert_eq!((status, problem["field"].as_str().unwrap()), (422, field), "{problem}");
    }
}

#[tokio::test]
async fn rows_are_filtered_sorted_cut_and_paged() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    client
        .batch_execute(
            "INSERT INTO domains (domain, backend_host, backend_port, site, owner, environment, priority)
             SELECT format('h%s.test', lpad(i::text, 2, '0')), 'h', 80, CASE WHEN i % 2 = 0 THEN 'uk' END, 'o_' || i % 3,
                    CASE WHEN i < 3 THEN 'staging' ELSE 'production' END::domain_environment, i / 4 + 1
               FROM generate_series(1, 12) i",
        )
        .await
        .unwrap();
    let get = async |query: &str| world.ask("GET", &format!("/api/domains?{query}"), &[], &Value::Null).await;
    for (query, count) in [
        ("site=uk", 6),
        ("site=uk&owner=o_0", 2),
        ("owner=o_0&owner=o_1", 8),
        ("environment=staging", 2),
        ("status=draft", 0),
        ("q=h0", 9),
        ("q=o_1", 4),
        ("q=%25", 0),
        ("domain=h07.test", 1),
    ] {
        let Answer(status, _, rows) = get(query).await;
        assert_eq!((status, rows.as_array().unwrap().len()), (200, count), "{query}");
    }
    let Answer(_, _, rows) = get("fields=version,domain&domain=h01.test").await;
    assert_eq!(rows, json!([{"version": 1, "domain": "h01.test"}]));

    for (order, first) in
        [("domain", "h01.test"), ("-domain", "h12.test"), ("-priority,domain", "h12.test"), ("site,domain", "h01.test")]
    {
        let (mut path, mut seen) = (format!("/api/domains?limit=5&sort={order}"), Vec::new());
        loop {
            let Answer(status, headers, rows) = world.ask("GET", &path, &[], &Value::Null).await;
            assert_eq!(status, 200, "{rows}");
            seen.extend(names(&rows).into_iter().map(str::to_owned));
            let Some(link) = headers.get("link") else { break };
            link.to_str().unwrap().trim_start_matches('<').split_once('>').unwrap().0.clone_into(&mut path);
        }
        assert_eq!(seen.first().unwrap(), first, "{order}");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 12, "{order}");
    }
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=ten", "limit"),
        ("sort=colour", "sort"),
        ("fields=colour", "fields"),
        ("status=activ", "status"),
        ("colour=red", "colour"),
        ("limit=5&cursor=abc", "cursor"),
        ("limit=5&sort=version&cursor=WyJ2ZXJzaW9uIixbIngiLCJ5Il1d", "cursor"),
        ("q=%00", "q"),
    ] {
        let Answer(status, _, problem) = get(query).await;
        assert_eq!((status, problem["field"].as_str()), (400, Some(field)), "{query}: {problem}");
    }
}

#[tokio::test]
async fn what_would_not_compile_is_refused_and_so_is_what_others_need() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    let row = json!({"domain": "a.test", "backend_host": "h", "backend_port": 80, "middlewares": ["gz"]});
    let Answer(status, _, problem) = world.ask("POST", "/api/domains", &[], &row).await;
    assert_eq!((status, &problem["field"]), (422, &json!("middlewares")), "{problem}");
    let resolver = json!({"domain": "a.test", "backend_host": "h", "backend_port": 80, "cert_resolver": "nope"});
    let Answer(status, _, problem) = world.ask("POST", "/api/domains", &[], &resolver).await;
    assert_eq!((status, &problem["field"]), (422, &json!("cert_resolver")), "{problem}");
    assert_eq!(world.list().await, json!([]));

    let gz = "/api/fragments/http.middleware/gz";
    let Answer(status, _, problem) = world.ask("PUT", gz, &[], &json!({"body": {"compres": {}}})).await;
    assert!(status == 422 && problem["field"].as_str().unwrap().starts_with("body"), "{problem}");
    let Answer(status, _, made) = world.ask("PUT", gz, &[], &json!({"body": {"compress": {}}})).await;
    assert_eq!((status, &made["name"]), (201, &json!("gz")), "{made}");
    let Answer(status, ..) = world.ask("POST", "/api/domains", &[], &row).await;
    assert_eq!(status, 201);
    let Answer(status, _, problem) = world.ask("DELETE", gz, &[], &Value::Null).await;
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("a.test"), "{problem}");
    let Answer(status, _, changed) =
        world.ask("PUT", gz, &[], &json!({"body": {"compress": {"minResponseBodyBytes": 9}}})).await;
    assert_eq!((status, changed["change"]["diff"].as_array().unwrap().len()), (200, 1), "{changed}");
    let shown = world.ask("GET", "/api/fragments?kind=http.middleware", &[], &Value::Null).await.2;
    assert_eq!(
        (shown.as_array().unwrap().len(), &shown[0]["body"]),
        (1, &json!({"compress": {"minResponseBodyBytes": 9}}))
    );
}

#[tokio::test]
async fn a_row_that_takes_requests_from_a_wildcard_says_so() {
    let (cluster, client) = Cluster::migrated().await;
    let world = World::with(&cluster, &client).await;
    world.made(&json!({"domain": "*.b.test", "tls_mode": "default"})).await;
    let row = world.made(&json!({"domain": "x.b.test", "tls_mode": "default"})).await;
    assert_eq!(row["change"]["warnings"], json!(["x.b.test: its requests were answered by *.b.test until now"]));
    let internal = world.made(&json!({"domain": "i.test", "access_tier": "internal"})).await;
    assert!(internal["change"]["warnings"][0].as_str().unwrap().contains("internal_networks"), "{internal}");
}
