//! `charliehub-provider domains` against a real provider: what people type is what the API does, and each refusal is one
//! line that says how to go on.
#![expect(clippy::unwrap_used, reason = "a story that cannot be told panics")]

use charliehub_tests::{Home, Output, Postgres, Provider, Row, World, secs, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

/// Runs `domains` against the provider of the world, whose own configuration says where it is.
async fn domains(world: &World, args: &[&str]) -> Output {
    world.provider.run(&[&["domains"], args].concat()).await
}

/// The same; what it printed.
async fn must(world: &World, args: &[&str]) -> String {
    let output = domains(world, args).await;
    assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
    output.out
}

async fn must_json(world: &World, args: &[&str]) -> Value {
    serde_json::from_str(&must(world, &[args, &["--json"]].concat()).await).unwrap()
}

/// What a refusal says, in its one line.
async fn refused(world: &World, args: &[&str]) -> String {
    let output = domains(world, args).await;
    assert_eq!((output.code, output.err.lines().count()), (Some(1), 1), "{args:?}: {output:?}");
    assert!(output.err.starts_with("error: "), "{args:?}: {output:?}");
    output.err
}

#[tokio::test]
async fn a_row_is_made_listed_changed_and_removed() {
    let world = World::new().await;
    let first = world.postgres.revision().await;
    let add = ["add", "new.test", "--backend", "127.0.0.1:9000", "--tls", "default"];

    let said = must(&world, &[&add[..], &["--dry-run"]].concat()).await;
    assert!(said.contains("would be added") && said.contains("reachable from the internet: new.test"), "{said}");
    assert_eq!(world.postgres.revision().await, first, "a dry run makes none");

    let said = must(&world, &[&add[..], &["--wait", "live", "--reason", "a first route"]].concat()).await;
    let revision = world.postgres.revision().await;
    assert!(said.contains(&format!("added; served as revision {revision}\n  comes on: new.test\n")), "{said}");
    let signed = world.postgres.value("SELECT source || ': ' || reason FROM revisions ORDER BY revision DESC LIMIT 1");
    assert_eq!(signed.await, "api: a first route");

    let table = must(&world, &["list"]).await;
    let id = must_json(&world, &["list"]).await[0]["id"].as_str().unwrap().to_owned();
    let line = format!("new.test  127.0.0.1:9000  active  public  default  -      {revision}        {id}");
    assert_eq!(table.lines().nth(1), Some(line.as_str()), "{table}");

    let said = must(&world, &["set", "new.test", "access_tier=internal", "owner=ann", "--wait", "live"]).await;
    assert!(said.contains("changed; served as revision"), "{said}");
    let said = must(&world, &["set", &id, "owner=ann"]).await;
    assert!(said.contains("it is like this already"), "{said}");
    let answer = must_json(&world, &["set", &id, "owner=", "access_tier=public"]).await;
    assert_eq!((&answer["owner"], &answer["change"]["impact"]["opened"][0]), (&Value::Null, &"new.test".into()));

    let said = must(&world, &["rm", "new.test", "--dry-run"]).await;
    assert!(said.contains("would be removed") && said.contains("goes off: new.test"), "{said}");
    assert!(must(&world, &["rm", "new.test"]).await.contains("removed"));
    assert_eq!(must_json(&world, &["list"]).await, serde_json::json!([]));
}

#[tokio::test]
async fn every_page_is_listed_and_a_limit_is_one() {
    let world = World::new().await;
    world
        .psql(
            "INSERT INTO domains (domain, backend_host, backend_port, tls_mode, status)
             SELECT n || '.test', '127.0.0.1', 80, 'default', (CASE WHEN n <= 5 THEN 'draft' ELSE 'active' END)::domain_status
               FROM generate_series(1, 2100) n",
        )
        .await;
    let names = |rows: &Value| rows.as_array().unwrap().iter().map(|row| row["domain"].to_string()).collect::<Vec<_>>();
    let mut all = names(&must_json(&world, &["list"]).await);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 2100);
    let output = domains(&world, &["list", "--limit", "1500", "--json"]).await;
    assert_eq!(names(&serde_json::from_str(&output.out).unwrap()).len(), 1500);
    assert!(output.err.contains("there are more"), "{output:?}");
    let output = domains(&world, &["list", "--status", "draft", "--q", ".test"]).await;
    assert_eq!((output.out.lines().count(), output.err.as_str()), (6, ""), "{output:?}");
}

#[tokio::test]
async fn a_refusal_is_one_line_that_says_how_to_go_on() {
    let world = World::new().await;
    for path in ["/", "/admin"] {
        world.insert(&Row::https("two.test", "127.0.0.1:9".parse().unwrap()).with("path_prefix", path)).await;
    }
    world.insert(&Row::https("one.test", "127.0.0.1:9".parse().unwrap())).await;
    let revision = world.postgres.revision().await;
    let other = world.home.join("other.token");
    std::fs::write(&other, world.provider.token("reader").await).unwrap();
    let wrong = world.home.join("wrong.token");
    std::fs::write(&wrong, "chp_wrong").unwrap();
    let (other, wrong) = (other.to_str().unwrap(), wrong.to_str().unwrap());
    let silent = format!("http://127.0.0.1:{}", world.home.port());
    for (args, words) in [
        (&["set", "one.test", "owner=ann", "--if-version", "1"][..], &["was changed meanwhile", "changed"][..]),
        (&["rm", "one.test", "--if-version", "1"], &["was changed meanwhile"]),
        (&["set", "one.test", "backend_prot=9"], &["backend_prot", "did you mean `backend_port`?"]),
        (&["set", "one.test", "backend_port=0"], &["backend_port: "]),
        (
            &["add", "one.test", "--backend", "127.0.0.1:9", "--tls", "default"],
            &["It is there already", "domain: ", "path_prefix"],
        ),
        (&["add", "b.test", "--backend", "h`:9"], &["backend_host: "]),
        (&["rm", "two.test"], &["2 rows are named two.test", "two.test/admin ("]),
        (&["rm", "none.test"], &["no row is named none.test"]),
        (&["rm", "00000000-0000-0000-0000-000000000001"], &["no row with this id"]),
        (&["list", "--sort", "colour"], &["sort: ", "use some of domain"]),
        (&["list", "--token-file", wrong], &["A token is needed", "token create"]),
        (&["rm", "one.test", "--token-file", other], &["role", "--role editor"]),
        (&["list", "--token-file", "/nowhere/token"], &["/nowhere/token cannot be read", "--token-file"]),
        (&["list", "--server", &silent], &["no answer from", "--server"]),
        (&["list", "--server", "https://192.0.2.1"], &["is not this machine", "--token-file"]),
    ] {
        let said = refused(&world, args).await;
        for word in words {
            assert!(said.contains(word), "{args:?}: {word}: {said}");
        }
    }
    for args in [&["domains"][..], &["domains", "add", "x.test"], &["domains", "list", "--server", "nonsense"]] {
        assert_eq!(world.provider.run(args).await.code, Some(2), "{args:?}");
    }
    assert_eq!(world.postgres.revision().await, revision, "no refusal changes anything");
    let output = domains(&world, &["set", "one.test", "backend_port=0", "--json"]).await;
    let problem: Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!((output.code, &problem["field"]), (Some(1), &"backend_port".into()), "{output:?}");
}

#[tokio::test]
async fn another_machine_needs_only_where_and_a_token() {
    let world = World::new().await;
    world.insert(&Row::https("one.test", "127.0.0.1:9".parse().unwrap())).await;
    let elsewhere = Provider::new(&world.home, "elsewhere");
    let server = format!("http://{}", world.provider.address());
    let output = elsewhere.run(&["domains", "list", "--server", &server]).await;
    assert!(output.code == Some(1) && output.err.contains("admin.token"), "it has none: {output:?}");
    let token = world.home.join("editor.token");
    std::fs::write(&token, world.provider.token("editor").await).unwrap();
    let flags = ["--server", &server, "--token-file", token.to_str().unwrap()];
    let said = elsewhere.must(&[&["domains", "set", "one.test", "status=disabled"][..], &flags].concat()).await;
    assert!(said.contains("goes off: one.test"), "{said}");
    assert_eq!(world.postgres.value("SELECT status FROM domains").await, "disabled");
}

#[tokio::test]
async fn a_provider_by_https_is_believed_when_its_authority_was_named() {
    let home = Home::new();
    let postgres = Postgres::start(&home).await;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let write = |name: &str, pem: String| {
        let path = home.join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = write("ca.pem", authority.pem());
    let (chain, key) = (write("tls.crt", certificate.pem()), write("tls.key", key.serialize_pem()));
    let mut provider = Provider::new(&home, "provider")
        .database(&postgres.url())
        .set("serve", "tls_certificate", &format!("\"{chain}\""))
        .set("serve", "tls_key", &format!("\"{key}\""));
    provider.launch();
    until("the rows are listed by https", secs(20), async || {
        let output = provider.run(&["domains", "list", "--ca", &ca]).await;
        if output.code == Some(0) { Ok(()) } else { Err(output) }
    })
    .await;
    let output = provider.run(&["domains", "list"]).await;
    assert!(
        output.code == Some(1) && output.err.contains("--ca FILE") && output.err.contains("UnknownIssuer"),
        "{output:?}"
    );
}
