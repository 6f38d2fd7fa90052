//! Who reaches which name is told as it is, and a name that is taken off the internet is off it at once.

use charliehub_tests::{Alias, Row, World, secs, until};
use serde_json::Value;

/// What the surface says of a name; null where it has none of that name.
async fn reach(world: &World, name: &str) -> Value {
    let surface = world.provider.get("/api/surface").await.json();
    surface
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["name"] == name)
        .map_or(Value::Null, |one| one["reach"].clone())
}

#[tokio::test]
async fn names_that_are_moved_to_the_sites_are_closed_to_others_and_open_to_a_site() {
    let (world, traefik, hello) = World::running().await;
    let site = Alias::new(44);
    for name in ["a.move.test", "b.move.test", "stays.test"] {
        world.insert(&Row::http(name, hello.address())).await;
    }
    let inner = Row::http("a.move.test", hello.address()).with("path_prefix", "/in");
    world.insert(&inner.with("access_tier", "restricted").with("ip_allowlist", "{10.0.0.0/8}")).await;
    traefik.until_status("http://a.move.test/in", 403).await;
    let status = async |url: &str, from_site: bool| {
        let client = if from_site { traefik.client().from(site.ip()) } else { traefik.client() };
        client.get(url).await.unwrap().status
    };
    for name in ["a.move.test", "b.move.test", "stays.test"] {
        assert_eq!(status(&format!("http://{name}/"), false).await, 200, "{name}");
        assert_eq!(reach(&world, name).await, "internet", "{name}");
    }

    let before = world.postgres.revision().await;
    let asked = ["surface", "--move-to", "internal", "--select", "*.move.test", "--reason", "a ticket"];
    let plan = world.provider.must(&[&asked[..], &["--dry-run"]].concat()).await;
    let lines: Vec<Vec<&str>> = plan.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "BEFORE", "AFTER"], "{plan}");
    assert_eq!(lines[1], ["a.move.test", "internet", "10.35.0.0/16,", "10.44.0.0/16"], "{plan}");
    assert_eq!(lines[2], ["a.move.test/in", "10.0.0.0/8", "10.35.0.0/16,", "10.44.0.0/16"], "{plan}");
    assert_eq!(lines[3][0], "b.move.test", "{plan}");
    assert!(plan.ends_with("nothing was written\n") && lines.len() == 5, "{plan}");
    assert_eq!(world.postgres.revision().await, before);
    assert_eq!(status("http://a.move.test/", false).await, 200, "a plan changes nothing");

    world.provider.must(&asked).await;
    assert_eq!(world.postgres.revision().await, before + 1, "all of it in one revision");
    for name in ["a.move.test", "b.move.test"] {
        let url = format!("http://{name}/");
        traefik.until_status(&url, 403).await;
        assert_eq!(status(&url, true).await, 200, "{name} from a site");
        assert_eq!(reach(&world, name).await, "networks", "{name}");
    }
    assert_eq!(status("http://a.move.test/in", true).await, 200);
    assert_eq!(status("http://stays.test/", false).await, 200);
    let revision = world.provider.get(&format!("/api/revisions/{}", before + 1)).await.json();
    assert_eq!((&revision["source"], &revision["reason"]), (&"surface".into(), &"a ticket".into()), "{revision}");
    assert!(world.provider.must(&asked).await.contains("internal already"));
    let refused = world.provider.run(&["surface", "--move-to", "internal", "--select", "nobody.*"]).await;
    assert!(refused.code == Some(1) && refused.err.contains("no row is called nobody.*"), "{refused:?}");
}

#[tokio::test]
async fn the_command_and_the_api_tell_the_same_of_rows_and_of_fragments() {
    let (world, traefik, hello) = World::running().await;
    world.insert(&Row::http("in.test", hello.address()).with("access_tier", "internal")).await;
    let list = r#"{"ipAllowList": {"sourceRange": ["10.99.0.0/16"]}}"#;
    let router =
        r#"{"rule": "Host(`raw.test`)", "service": "first.test", "entryPoints": ["web"], "middlewares": ["list"]}"#;
    world
        .psql(&format!(
            "INSERT INTO fragments (kind, name, body) VALUES ('http.middleware', 'list', '{list}'), ('http.router', 'raw', '{router}')"
        ))
        .await;
    traefik.until_status("http://raw.test/", 403).await;
    let said = world.provider.get("/api/surface").await.json();
    let (command, _) = until("the command answers", secs(5), async || {
        serde_json::from_str::<Value>(&world.provider.must(&["surface", "--json"]).await)
    })
    .await;
    assert_eq!(command, said);
    assert_eq!(reach(&world, "raw").await, "networks");
    assert_eq!(reach(&world, "in.test").await, "networks");
    let table = world.provider.must(&["surface"]).await;
    let raw = table.lines().find(|line| line.starts_with("raw ")).unwrap();
    assert_eq!(raw.split_whitespace().collect::<Vec<_>>(), ["raw", "http", "10.99.0.0/16", "-"], "{table}");

    let all = world.provider.get("/api/routes").await.json();
    let names: Vec<&Value> = all.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    for name in ["first.test", "second.test", "in.test", "raw", "list"] {
        assert!(names.contains(&&name.into()), "{name} is not in {names:?}");
    }
}
