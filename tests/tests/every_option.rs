//! Every option of Traefik's dynamic configuration, with valid values, comes through an import as it was written: a real
//! Traefik has the same of us as of its own file provider.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "fails as its stories do")]

use std::collections::BTreeSet;

use charliehub_proto::traefik::Configuration;
use charliehub_tests::{Home, Traefik, World, configuration, secs, until};
use serde_json::{Value, json};

/// All that Traefik's API lists.
const LISTS: [&str; 8] = [
    "http/routers",
    "http/services",
    "http/middlewares",
    "tcp/routers",
    "tcp/services",
    "tcp/middlewares",
    "udp/routers",
    "udp/services",
];

/// Taken and shown by any Traefik, and at work only in one whose static configuration knows what they name. Each is
/// used by something that a Traefik without it still runs.
const NEEDS_STATIC: [(&str, &str); 3] = [
    ("certResolver", "certificatesResolvers.<name>.acme"),
    ("plugin", "experimental.plugins.<name>"),
    ("spiffe", "spiffe.workloadAPIAddr"),
];

/// The options of the model, by path; `*` stands for a name or a number.
fn options_of_the_model() -> BTreeSet<String> {
    let (mut found, mut next) = (BTreeSet::new(), vec![String::new()]);
    while let Some(path) = next.pop() {
        // A decoder takes a list for a group too, so in this order.
        let groups = ["", ".*", ".[]"].map(|of| format!("{path}{of}"));
        let Some(group) = groups.into_iter().find(|group| !fields(group).is_empty()) else { continue };
        for field in fields(&group) {
            let option = format!("{group}.{field}");
            found.insert(option.trim_start_matches('.').replace("[]", "*"));
            next.push(option);
        }
    }
    found
}

/// The fields of the group of options at a path, as the decoder tells them when it meets an unknown one; none: there is
/// no group.
fn fields(path: &str) -> Vec<String> {
    let parts = path.rsplit('.').filter(|part| !part.is_empty());
    let probe =
        parts.fold(json!({"?": 0}), |value, part| if part == "[]" { json!([value]) } else { json!({ part: value }) });
    let refused =
        serde_json::from_value::<Configuration>(probe).err().map(|error| error.to_string()).unwrap_or_default();
    let known = refused.strip_prefix("unknown field `?`, expected ").unwrap_or_default();
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The paths of everything in a configuration, names and numbers as `*` where the model has them so.
fn said(value: &Value, path: &str, options: &BTreeSet<String>, found: &mut BTreeSet<String>) {
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().map(|item| ("*".to_owned(), item)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return,
    };
    for (key, value) in entries {
        let exact = if path.is_empty() { key } else { format!("{path}.{key}") };
        let any = format!("{path}.*");
        let path = if options.contains(&exact) { exact } else { any };
        found.insert(path.clone());
        said(value, &path, options, found);
    }
}

/// One configuration with all of it, and files where it names files.
fn every_option(home: &Home) -> Value {
    let made = rcgen::generate_simple_self_signed(["edge.test".to_owned()]).unwrap();
    let mut text = include_str!("../../proto/tests/every_option.json").replace("\"mqtts\"", "\"mqtt\"");
    for (name, content) in [
        ("ca.pem", made.cert.pem()),
        ("client.pem", made.cert.pem()),
        ("client.key", made.signing_key.serialize_pem()),
        ("edge.pem", made.cert.pem()),
        ("edge.key", made.signing_key.serialize_pem()),
        ("users", "bob:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/\n".to_owned()),
    ] {
        std::fs::write(home.join(name), content).unwrap();
        text = text.replace(&format!(": \"{name}\""), &format!(": \"{}\"", home.join(name).display()));
        text = text.replace(&format!("[\"{name}\"]"), &format!("[\"{}\"]", home.join(name).display()));
    }
    let kinds: Value = serde_json::from_str(&text).unwrap();
    configuration(&kinds)
}

/// What a Traefik runs, by list and name: with what became of it, without who gave it.
async fn running(traefik: &Traefik) -> Result<Vec<(String, Value)>, String> {
    let mut found = Vec::new();
    for path in LISTS {
        let answer =
            traefik.try_api(&format!("/api/{path}?per_page=1000")).await.map_err(|error| format!("{error:#}"))?;
        assert!(["", "1"].contains(&answer.header("x-next-page")), "{path} has another page");
        // A reference is shown with its provider, which is the one difference.
        let text = answer.text().replace("@file", "@http");
        let list: Vec<Value> = serde_json::from_str(&text).map_err(|_| text.clone())?;
        for mut object in list {
            let name = object["name"].as_str().unwrap_or_default().to_owned();
            let Some((name, provider)) = name.split_once('@') else { continue };
            if provider == "internal" || name.starts_with("charliehub-") {
                continue;
            }
            // Health is by the clock.
            for key in ["provider", "serverStatus"] {
                object.as_object_mut().unwrap().remove(key);
            }
            // A cookie without a name gets one of the service's name, with its provider.
            for kind in ["weighted", "loadBalancer"] {
                let cookie = object.pointer_mut(&format!("/{kind}/sticky/cookie/name"));
                cookie.filter(|name| name.as_str().is_some_and(|name| name.starts_with('_'))).map(Value::take);
            }
            found.push((format!("{path}/{name}"), object));
        }
    }
    found.sort_by(|one, two| one.0.cmp(&two.0));
    Ok(found)
}

/// The configuration that a Traefik last had of a provider, as it logs it: all but certificates and authorities.
fn received(traefik: &Traefik, provider: &str) -> Result<Value, String> {
    let log = traefik.log();
    let of_provider = |line: &&str| line.contains("Configuration received") && line.ends_with(provider);
    let line = log.lines().rfind(of_provider).ok_or("no configuration was received")?;
    let text = line.find('{').and_then(|at| line.get(at..)).ok_or("a line without configuration")?;
    let first = serde_json::Deserializer::from_str(text).into_iter::<Value>().next();
    let mut config = first.ok_or("no configuration")?.map_err(|error| error.to_string())?;
    for (_, section) in config.as_object_mut().unwrap() {
        for (_, objects) in section.as_object_mut().unwrap() {
            if let Some(objects) = objects.as_object_mut() {
                objects.retain(|name, _| !name.starts_with("charliehub-"));
            }
        }
    }
    Ok(config)
}

/// The certificate for a name that nobody has.
async fn default_certificate(traefik: &Traefik) -> Vec<u8> {
    let stream = traefik.tls("nobody.test").await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn every_option_of_traefiks_reference_arrives_as_it_was_written() {
    let points = r#"["web", "websecure", "mqtt", "dns"]"#;
    let world = World::with(|provider| provider.set("compile", "entry_points", points)).await;
    let every = every_option(&world.home);
    let options = options_of_the_model();
    let mut used = BTreeSet::new();
    said(&every, "", &options, &mut used);
    let missing: Vec<&String> = options.difference(&used).collect();
    assert!(missing.is_empty() && options.len() > 400, "{} options, without a value: {missing:#?}", options.len());
    for (option, needs) in NEEDS_STATIC {
        assert!(options.iter().any(|path| path.ends_with(&format!(".{option}"))), "{option} ({needs}) is not known");
    }

    let file = world.home.join("every.yml");
    std::fs::write(&file, every.to_string()).unwrap();
    let before = Traefik::from_file(&world.home, "files", &file).await;
    let said: Value =
        serde_json::from_str(&world.provider.must(&["import", file.to_str().unwrap(), "--json"]).await).unwrap();
    assert_eq!((&said["renamed"], &said["rows"]), (&json!([]), &json!([])), "{said:#}");
    let after = world.traefik("hub2").await;
    let (alike, _) = until("both Traefiks run the same", secs(10), async || {
        let (one, two) = (running(&before).await?, running(&after).await?);
        let other = one.iter().find(|object| !two.contains(object)).or(two.iter().find(|object| !one.contains(object)));
        match other {
            None if one.len() > 50 => Ok(one.len()),
            None => Err(format!("only {} objects", one.len())),
            Some((name, object)) => {
                let of = |all: &[(String, Value)]| all.iter().find(|(other, _)| other == name).map(|(_, v)| v.clone());
                Err(format!(
                    "{name}: {object} is not {:?}",
                    if one.iter().any(|(_, o)| o == object) { of(&two) } else { of(&one) }
                ))
            }
        }
    })
    .await;
    // Transports, models and TLS are not in its API. It was sent them as it has them of the file.
    let (one, two) = (received(&before, "file").unwrap(), received(&after, "http").unwrap());
    assert_eq!(one, two);
    assert_eq!(one["tcp"]["serversTransports"]["proxied"]["terminationDelay"], "150ms", "{one:#}");
    assert_eq!(default_certificate(&before).await, default_certificate(&after).await);
    // What it logs without: as it is in our export.
    let exported: Value = serde_json::from_str(&world.provider.must(&["export", "--format", "json"]).await).unwrap();
    for path in [
        "/http/serversTransports/mutual/rootCAs",
        "/http/serversTransports/mutual/certificates",
        "/tcp/serversTransports/proxied/tls/rootCAs",
        "/tcp/serversTransports/proxied/tls/certificates",
        "/tls/options/mutual/clientAuth/caFiles",
        "/tls/stores/default/defaultCertificate",
        "/tls/certificates",
    ] {
        assert!(every.pointer(path).is_some() && every.pointer(path) == exported.pointer(path), "{path}: {exported:#}");
    }
    println!("{} options, {alike} objects of Traefik's API alike", options.len());
}
