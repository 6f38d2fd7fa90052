use super::*;
use crate::postgres::tests::cluster::Cluster;

fn file(text: &str) -> Source {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routes.yml");
    std::fs::write(&path, text).unwrap();
    Source::files(&[path]).unwrap()
}

async fn import(client: &mut Client, source: Source, dry_run: bool) -> anyhow::Result<(Plan, Option<i64>)> {
    let author =
        Author { actor: "ann".to_owned(), source: "import", reason: "moving in".to_owned(), ..Author::default() };
    let imported = write(client, &Arc::default(), source, &author, dry_run).await?;
    Ok((imported.plan, imported.revision))
}

async fn value(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

const FILE: &str = r#"
http:
  routers:
    a: {rule: "Host(`a.test`)", entryPoints: [websecure], service: a, tls: {}, middlewares: [gzip]}
    b: {rule: "Host(`b.test`) && Method(`GET`)", entryPoints: [websecure], service: a, tls: {}}
  services:
    a: {loadBalancer: {servers: [{url: "http://10.0.0.1:80"}]}}
  middlewares:
    gzip: {compress: {}}
"#;

#[tokio::test]
async fn an_import_is_one_signed_revision_and_a_second_one_is_none() {
    let (_cluster, mut client) = Cluster::migrated().await;
    let rows = "SELECT count(*)::text FROM (SELECT id FROM domains UNION ALL SELECT id FROM fragments) x";
    let (plan, revision) = import(&mut client, file(FILE), true).await.unwrap();
    assert_eq!((plan.changes(), revision, value(&client, rows).await.as_str()), (4, None, "0"), "{plan:#?}");
    let (_, revision) = import(&mut client, file(FILE), false).await.unwrap();
    assert_eq!((revision, value(&client, rows).await.as_str()), (Some(1), "4"));
    let signed = "SELECT concat_ws(' ', actor, source, reason) FROM revisions";
    assert_eq!(value(&client, signed).await, "ann import moving in");
    let (plan, revision) = import(&mut client, file(FILE), false).await.unwrap();
    assert_eq!((plan.changes(), revision), (0, None), "{plan:#?}");

    let changed = FILE.replace("10.0.0.1", "10.0.0.2").replace("compress: {}", "compress: {encodings: [gzip]}");
    let (plan, revision) = import(&mut client, file(&changed), false).await.unwrap();
    assert_eq!((plan.changes(), revision), (3, Some(2)), "{plan:#?}");
    let sql = "SELECT backend_host || ' ' || body::text FROM domains, fragments WHERE name = 'gzip'";
    assert_eq!(value(&client, sql).await, r#"10.0.0.2 {"compress": {"encodings": ["gzip"]}}"#);
    assert_eq!(value(&client, "SELECT n::text FROM revision").await, "2");
}

#[tokio::test]
async fn what_the_database_refuses_names_the_router_and_the_file() {
    let (_cluster, mut client) = Cluster::migrated().await;
    client
        .batch_execute("ALTER TABLE domains ADD CONSTRAINT domains_priority_few CHECK (domain <> 'a.test')")
        .await
        .unwrap();
    client.batch_execute("ALTER TABLE domains RENAME CONSTRAINT domains_priority_range TO old").await.unwrap();
    client
        .batch_execute("ALTER TABLE domains RENAME CONSTRAINT domains_priority_few TO domains_priority_range")
        .await
        .unwrap();
    let error = import(&mut client, file(FILE), true).await.unwrap_err().to_string();
    assert!(error.starts_with("a.test (router a of routes.yml): the database refuses it: priority: "), "{error}");
    assert_eq!(value(&client, "SELECT n::text FROM revision").await, "0");
}

#[tokio::test]
async fn the_seeds_table_comes_in_by_the_names_of_its_columns() {
    let (cluster, mut client) = Cluster::migrated().await;
    let missing = Source::seed(&client).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(missing.starts_with("there is no table `domains`"), "{missing}");
    client
        .batch_execute(
            "CREATE TABLE public.domains (id serial PRIMARY KEY, domain_name text, backend_host text, backend_port int,
                 protocol text, tcp_entrypoint text, auth_required boolean, internal_only boolean, allowed_ips text,
                 status text, environment text, service_type text, description text, team text, created_at timestamptz);
             INSERT INTO public.domains (domain_name, backend_host, backend_port, protocol, tcp_entrypoint, auth_required,
                 internal_only, allowed_ips, status, environment, service_type, description, team) VALUES
                 ('Grafana.charliehub.net', 'grafana', 3000, 'https', NULL, true, true, NULL, 'active', 'prod', 'web', 'Dashboards', 'ops'),
                 ('mqtt.verdegris.eu', 'mosquitto', 1883, 'tcp', 'mqtt', false, false, NULL, 'active', NULL, NULL, NULL, NULL),
                 ('office.charliehub.net', '10.44.0.9', 80, 'http', NULL, false, false, '192.0.2.0/24, 198.51.100.7', 'weird', 'dev', NULL, NULL, NULL),
                 ('lost.charliehub.net', NULL, NULL, 'http', NULL, false, false, NULL, 'active', NULL, NULL, NULL, NULL)",
        )
        .await
        .unwrap();
    let source = Source::seed(&cluster.client("owner").await).await.unwrap();
    let (plan, revision) = import(&mut client, source, false).await.unwrap();
    assert_eq!((plan.changes(), revision), (3, Some(1)), "{plan:#?}");
    assert_eq!(
        (plan.left_out[0].name.as_str(), plan.left_out[0].reason.as_str()),
        ("lost.charliehub.net", "has no backend host")
    );
    assert!(plan.warnings.iter().any(|said| said.contains("column team")), "{:?}", plan.warnings);
    let sql =
        "SELECT string_agg(concat_ws(' ', domain, protocol, tcp_entrypoint, backend_host, backend_port, access_tier,
                      ip_allowlist, auth_required, status, environment, notes, labels), '; ' ORDER BY domain)
                 FROM charliehub.domains";
    assert_eq!(
        value(&client, sql).await,
        "grafana.charliehub.net http grafana 3000 internal {} t active production Dashboards \
         {\"team\": \"ops\", \"service_type\": \"web\"}; \
         mqtt.verdegris.eu tcp mqtt mosquitto 1883 public {} f active production imported: mqtt.verdegris.eu of public.domains {}; \
         office.charliehub.net http 10.44.0.9 80 restricted {192.0.2.0/24,198.51.100.7/32} f draft development \
         imported: office.charliehub.net of public.domains {}"
    );
    let source = Source::seed(&client).await.unwrap();
    assert_eq!(import(&mut client, source, false).await.unwrap().0.changes(), 0);
}
