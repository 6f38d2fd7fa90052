//! What cannot work is said in one line, with how to mend it, and exit code 1.

use charliehub_tests::{Home, Postgres, Provider};

async fn refusal(provider: &Provider) -> String {
    let output = provider.run(&["serve"]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    let said = format!("{}{}", output.out, output.err);
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[tokio::test]
async fn a_taken_port() {
    let home = Home::new();
    let postgres = Postgres::start(&home).await;
    let first = Provider::new(&home, "first").database(&postgres.url()).start().await;
    let second = Provider::new(&home, "second").database(&postgres.url()).set(
        "serve",
        "listen",
        &format!("\"{}\"", first.address()),
    );
    let said = refusal(&second).await;
    assert!(said.contains(&first.address().port().to_string()), "{said}");
}

#[tokio::test]
async fn a_bad_url_a_wrong_key_and_an_open_listener() {
    let home = Home::new();
    for (section, key, value, names) in [
        ("database", "url", "\"postgres//nowhere\"", "`database.url`"),
        ("serve", "listn", "\"127.0.0.1:1\"", "listen"),
        ("serve", "listen", "\"0.0.0.0:18001\"", "--insecure"),
        ("guard", "max_removed", "\"many\"", "max_removed"),
    ] {
        let provider = Provider::new(&home, key).set(section, key, value);
        let said = refusal(&provider).await;
        assert!(said.contains(names), "{key}: {said}");
    }
}

#[tokio::test]
async fn a_wrong_password() {
    let home = Home::new();
    let postgres = Postgres::start(&home).await;
    postgres.sql("CREATE ROLE edge LOGIN SUPERUSER PASSWORD 'right'").await;
    let (host, port) = postgres.host_and_port();
    let hba = postgres.data().join("pg_hba.conf");
    std::fs::write(&hba, "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n").unwrap();
    postgres.sql("SELECT pg_reload_conf()").await;
    let url = format!("postgres://edge:wrong@{host}:{port}/charliehub");
    let said = refusal(&Provider::new(&home, "provider").database(&url)).await;
    assert!(said.contains("password"), "{said}");
    assert!(!said.contains("wrong@"), "a password is never printed: {said}");
}
