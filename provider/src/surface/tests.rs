use charliehub_proto::domain::AccessTier;
use serde_json::json;

use super::{moving::Error, *};
use crate::{
    author::Author,
    compile::{ForwardAuth, Settings},
    postgres::tests::cluster::Cluster,
    store::read,
};

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        internal_networks: vec!["10.44.0.0/16".parse().unwrap()],
        forward_auth: Some(ForwardAuth { address: "http://auth".to_owned(), auth_response_headers: Vec::new() }),
        ..Settings::default()
    })
}

const ROWS: &str = "INSERT INTO domains (domain, tls_mode, backend_host, backend_port, access_tier, ip_allowlist, auth_required, status)
     VALUES ('a.org', 'none', 'h', 80, 'public', '{}', false, 'active'),
            ('b.org', 'none', 'h', 80, 'internal', '{}', false, 'active'),
            ('c.org', 'none', 'h', 80, 'restricted', '{192.0.2.0/24}', false, 'active'),
            ('d.org', 'default', 'h', 80, 'public', '{}', true, 'active'),
            ('e.org', 'none', 'h', 80, 'public', '{}', false, 'active'),
            ('f.org', 'none', 'h', 80, 'public', '{}', false, 'disabled')";

#[tokio::test]
async fn each_name_tells_who_reaches_it_and_what_is_not_served_is_not_there() {
    let (_cluster, mut client) = Cluster::migrated().await;
    client.batch_execute(ROWS).await.unwrap();
    client
        .batch_execute(
            "UPDATE domains SET middlewares = '{gone}' WHERE domain = 'e.org';
             INSERT INTO fragments (kind, name, body) VALUES
             ('http.middleware', 'list', '{\"ipAllowList\": {\"sourceRange\": [\"10.1.0.0/16\"]}}'),
             ('http.router', 'open', '{\"rule\": \"Host(`r.org`)\", \"service\": \"a.org\"}'),
             ('http.router', 'listed', '{\"rule\": \"Host(`s.org`)\", \"service\": \"a.org\", \"middlewares\": [\"list\"]}')",
        )
        .await
        .unwrap();
    let rows = read::newest(&mut client).await.unwrap();
    let shown: Vec<_> = surface(&Compiler::of(&settings(), rows.clone()))
        .iter()
        .map(|one| json!([one.name, one.reach, one.login, one.tier, one.networks, one.row.is_some()]))
        .collect();
    assert_eq!(
        shown,
        [
            json!(["a.org", "internet", false, "public", [], true]),
            json!(["b.org", "networks", false, "internal", ["10.44.0.0/16"], true]),
            json!(["c.org", "networks", false, "restricted", ["192.0.2.0/24"], true]),
            json!(["d.org", "internet", true, "public", [], true]),
            json!(["e.org", "nobody", false, "public", [], true]), // its middleware is not there
            json!(["listed", "networks", false, null, ["10.1.0.0/16"], false]),
            json!(["open", "internet", false, null, [], false]),
        ]
    );
}

#[tokio::test]
async fn a_move_is_one_signed_revision_and_what_would_be_closed_stops_all_of_it() {
    let (_cluster, mut client) = Cluster::migrated().await;
    client.batch_execute(ROWS).await.unwrap();
    let author =
        Author { actor: "ada".to_owned(), source: "surface", reason: "a ticket".to_owned(), ..Author::default() };
    let globs = |globs: &[&str]| globs.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (settings, nowhere) = (settings(), Arc::new(Settings::default()));
    let names = globs(&["a.org", "b.*", "f.org"]);

    let dry = moving::to_internal(&mut client, &names, &author, &settings, true).await.unwrap();
    assert_eq!(dry.revision, None);
    let error = moving::to_internal(&mut client, &globs(&["x.org"]), &author, &settings, false).await.unwrap_err();
    assert!(matches!(error, Error::Nothing(_)), "{error}");
    let error = moving::to_internal(&mut client, &globs(&["*"]), &author, &settings, false).await.unwrap_err();
    assert!(error.to_string().starts_with("it would close these: c.org: ip_allowlist"), "{error}");
    let error = moving::to_internal(&mut client, &names, &author, &nowhere, false).await.unwrap_err();
    assert!(error.to_string().contains("set [access] internal_networks"), "{error}");
    let revision = "SELECT n FROM revision";
    assert_eq!(client.query_one(revision, &[]).await.unwrap().get::<_, i64>(0), 1, "nothing was written yet");

    let moved = moving::to_internal(&mut client, &names, &author, &settings, false).await.unwrap();
    assert_eq!(moved.moves, dry.moves);
    let shown: Vec<_> = moved
        .moves
        .iter()
        .map(|one| (one.name.as_str(), one.before.as_ref().map(|is| is.reach), one.after.as_ref().map(|is| is.reach)))
        .collect();
    let (internet, networks) = (Some(SurfaceReach::Internet), Some(SurfaceReach::Networks));
    assert_eq!(shown, [("a.org", internet, networks), ("f.org", None, None)]);
    assert_eq!(moved.revision, Some(2));
    let sql = "SELECT actor || ' ' || source || ' ' || reason FROM revisions WHERE revision = 2";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, String>(0), "ada surface a ticket");
    let again = moving::to_internal(&mut client, &names, &author, &settings, false).await.unwrap();
    assert_eq!((again.revision, again.moves.len()), (None, 0));
    let rows = read::newest(&mut client).await.unwrap();
    let tiers =
        rows.values().filter(|row| matches!(&***row, Row::Domain(row) if row.access_tier == AccessTier::Internal));
    assert_eq!(tiers.count(), 3);
}
