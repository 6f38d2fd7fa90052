use super::*;
use crate::{
    auth::{self, Role},
    decide::{Decision, decide},
    postgres::tests::cluster::Cluster,
};

fn parse(args: &[&str]) -> Result<(Command, Flags), clap::Error> {
    Cli::try_parse_from(std::iter::once("charliehub-provider").chain(args.iter().copied())).and_then(command_and_flags)
}

#[test]
fn the_arguments_are_sound_and_every_command_has_its_help() {
    let mut command = Cli::command();
    command.clone().debug_assert();
    command.build();
    for sub in command.get_subcommands() {
        assert!(sub.get_about().is_some(), "{}", sub.get_name());
    }
}

#[test]
fn serve_is_the_default_and_takes_its_flags_on_either_side() {
    for args in [
        ["--listen", "127.0.0.1:1"].as_slice(),
        &["serve", "--listen", "127.0.0.1:1"],
        &["--listen", "127.0.0.1:1", "serve"],
    ] {
        let (command, flags) = parse(args).unwrap();
        assert!(matches!(command, Command::Serve(_)));
        assert_eq!(flags.listen.as_deref(), Some("127.0.0.1:1"), "{args:?}");
    }
    assert_eq!(parse(&["migrate", "--data-dir", "/d"]).unwrap().1.data_dir.as_deref(), Some("/d"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [
        ["--listen", "x", "migrate"].as_slice(),
        &["approve"],
        &["approve", "one"],
        &["token", "create", "x"],
        &["token", "create", "--role", "king", "x"],
        &["token", "create", "--role", "agent", "x"],
        &["token", "create", "--role", "reader", "--expires", "soon", "x"],
        &["export", "--format", "toml"],
        &["import"],
        &["import", "--yes", "--dry-run", "postgres://h/d"],
        &["nothing"],
    ] {
        assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
}

#[test]
fn what_follows_two_dashes_is_for_psql() {
    let Command::Psql { args } = parse(&["psql", "--", "-c", "SELECT 1"]).unwrap().0 else { panic!("not psql") };
    assert_eq!(args, ["-c", "SELECT 1"]);
}

#[test]
fn a_table_is_as_wide_as_its_widest_cells() {
    let text = output::table(&["A", "LONG"], &[vec!["wide cell".to_owned(), "x".to_owned()]]);
    assert_eq!(text, "A          LONG\nwide cell  x\n");
}

/// A line of the history of configs, whose body has the routers of `names`.
async fn snapshot(client: &tokio_postgres::Client, revision: i64, state: &str, names: &[&str]) {
    let routers: serde_json::Map<String, serde_json::Value> =
        names.iter().map(|name| ((*name).to_owned(), serde_json::json!({}))).collect();
    let body = serde_json::json!({ "http": { "routers": routers } }).to_string();
    let gzip = crate::snapshot::encode::gzip(body.as_bytes());
    let digest = format!("{revision} {state}");
    client.execute("INSERT INTO snapshot_bodies VALUES ($1, $2, 0)", &[&digest, &&*gzip]).await.unwrap();
    let sql = "INSERT INTO snapshots (revision, token, digest, state, reason, routes, compiler)
               SELECT $1, token, $2, $3, 'change', 1, 'test' FROM revision";
    client.execute(sql, &[&revision, &digest, &state]).await.unwrap();
}

#[tokio::test]
async fn a_decision_is_written_once_and_a_wrong_one_says_what_waits() {
    let (_cluster, mut client) = Cluster::migrated().await;
    snapshot(&client, 7, "withheld", &[]).await;
    snapshot(&client, 8, "withheld", &[]).await;
    decide(&mut client, 7, Decision::Approve, &database::author("cli")).await.unwrap();
    for decision in [Decision::Approve, Decision::Discard] {
        let error = decide(&mut client, 7, decision, &database::author("cli")).await.unwrap_err();
        assert_eq!(error.to_string(), "revision 7 does not wait for a decision; these do: 8");
    }
    decide(&mut client, 8, Decision::Approve, &database::author("cli")).await.unwrap();
    let sql = "SELECT count(*) FROM audit_events WHERE kind = 'snapshot.approved'";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 2);
    let error = decide(&mut client, 8, Decision::Approve, &database::author("cli")).await.unwrap_err();
    assert!(error.to_string().ends_with("nothing does"), "{error}");
}

#[tokio::test]
async fn a_discarded_change_leaves_the_rows_that_run_and_no_name_more_open() {
    let (_cluster, mut client) = Cluster::migrated().await;
    client
        .batch_execute(
            "INSERT INTO domains (domain, backend_host, backend_port, tls_mode, owner)
             SELECT n || '.test', 'h', 80, 'default', 'before' FROM unnest('{a,b,c,d}'::text[]) n",
        )
        .await
        .unwrap();
    snapshot(&client, 1, "served", &["a.test", "b.test", "d.test"]).await;
    client
        .batch_execute(
            "BEGIN; DELETE FROM domains WHERE domain IN ('a.test', 'c.test');
             UPDATE domains SET owner = 'after', access_tier = 'internal' WHERE domain = 'b.test';
             INSERT INTO domains (domain, backend_host, backend_port, tls_mode) VALUES ('new.test', 'h', 80, 'default');
             COMMIT",
        )
        .await
        .unwrap();
    snapshot(&client, 2, "withheld", &["b.test", "d.test", "new.test"]).await;
    decide(&mut client, 2, Decision::Discard, &database::author("cli")).await.unwrap();
    let sql = "SELECT domain || ' ' || access_tier || ' ' || owner FROM domains ORDER BY domain";
    let rows: Vec<String> = client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(rows, ["a.test public before", "b.test internal before", "d.test public before"]);
    let sql = "SELECT n || ' ' || source FROM revision JOIN revisions ON revision = n";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, String>(0), "3 discard");
}

#[tokio::test]
async fn a_token_is_revoked_by_name_unless_two_have_it() {
    let (_cluster, mut client) = Cluster::migrated().await;
    for name in ["one", "two", "two"] {
        auth::make(&client, name, Role::Reader, None, None).await.unwrap();
    }
    token::revoke(&mut client, "one").await.unwrap();
    let error = token::revoke(&mut client, "one").await.unwrap_err().to_string();
    assert!(error.contains("no living token"), "{error}");
    let error = token::revoke(&mut client, "two").await.unwrap_err().to_string();
    assert!(error.contains("2 living tokens"), "{error}");
    let id = error.rsplit(' ').next().unwrap();
    token::revoke(&mut client, id).await.unwrap();
    token::revoke(&mut client, "two").await.unwrap();
}

#[tokio::test]
async fn a_revision_is_exported_as_it_was_served() {
    use std::io::Write as _;
    let (_cluster, client) = Cluster::migrated().await;
    assert_eq!(export::exact(&client, None).await.unwrap(), None, "nothing was served yet");
    for (revision, state, body) in
        [(1_i64, "served", "{\"one\":1}"), (2, "served", "{\"two\":2}"), (3, "withheld", "{}")]
    {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(body.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        client.execute("INSERT INTO snapshot_bodies VALUES ($1, $2, 0)", &[&body, &gzip]).await.unwrap();
        let sql = "INSERT INTO snapshots (revision, token, digest, state, reason, routes, compiler)
                   VALUES ($1, gen_random_uuid(), $2, $3, 'change', 1, 'test')";
        client.execute(sql, &[&revision, &body, &state]).await.unwrap();
    }
    assert_eq!(export::exact(&client, None).await.unwrap().unwrap(), b"{\"two\":2}");
    assert_eq!(export::exact(&client, Some(1)).await.unwrap().unwrap(), b"{\"one\":1}");
    assert_eq!(export::exact(&client, Some(9)).await.unwrap(), None, "compiled from the rows instead");
}
