//! What everything that an instance runs comes to: what is refused, who is down, and whether it is what it should be.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use serde::Deserialize;

use crate::{
    heard::{Faulty, Found, Server},
    running::{List, Object, Running},
    snapshot::Snapshot,
};

/// As many names are enough to understand.
const NAMES: usize = 3;

pub(super) fn found(running: &Running) -> Found {
    let mut found = Found::default();
    let mut others = DefaultHasher::new();
    for ((protocol, kind), objects) in &running.lists {
        for object in objects {
            if object.ours().is_none() {
                // A faulty one is as good as missing.
                (protocol, kind, &object.name, object.is_faulty()).hash(&mut others);
            }
            if object.is_faulty() {
                found.faulty.push(Faulty {
                    protocol,
                    kind,
                    name: object.name.clone(),
                    status: object.status.clone(),
                    errors: object.error.clone(),
                });
            }
            found.servers.extend(servers(protocol, object));
        }
    }
    found.others = others.finish();
    found
}

fn servers(protocol: &'static str, object: &Object) -> impl Iterator<Item = Server> {
    let service = &object.name;
    // Without a health check Traefik says UP, whatever it is: it says so only of servers that it knows a status of.
    object.server_status.iter().map(move |(url, status)| Server {
        protocol,
        service: service.clone(),
        url: url.clone(),
        up: status == "UP",
    })
}

/// Why it cannot be that it runs `snapshot`, as its marker says: its routers are others.
pub(super) fn pretence(snapshot: &Snapshot, running: &Running) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Config {
        http: Routers,
        tcp: Routers,
        udp: Routers,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Routers {
        routers: BTreeMap<String, Router>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Router {
        rule: String,
    }
    let config: Config = serde_json::from_slice(&snapshot.encoded.identity()).ok()?;
    let mut missing = Vec::new();
    let mut extra = Vec::new();
    for (protocol, half) in [("http", &config.http), ("tcp", &config.tcp), ("udp", &config.udp)] {
        let list: List = (protocol, "routers");
        let runs: BTreeMap<&str, &str> = (running.lists.get(&list).into_iter().flatten())
            .filter_map(|object| Some((object.ours()?, &*object.rule)))
            .collect();
        let differs = |(name, router): &(&String, &Router)| runs.get(&***name) != Some(&&*router.rule);
        missing.extend(half.routers.iter().filter(differs).map(|(name, _)| name.clone()));
        extra.extend(runs.keys().filter(|name| !half.routers.contains_key(**name)).map(|name| (*name).to_owned()));
    }
    let told = |what: &str, names: &[String]| {
        let some = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
        let more = names.len().saturating_sub(NAMES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!names.is_empty()).then(|| format!("{what} {some}{more}"))
    };
    let wrong: Vec<_> =
        [told("has not, or not with their rules,", &missing), told("has also", &extra)].into_iter().flatten().collect();
    (!wrong.is_empty()).then(|| {
        let digest = snapshot.digest().get(..12).unwrap_or_default();
        format!(
            "it says that it runs {digest}, but {}; is `api` the address of the Traefik that polls?",
            wrong.join(", and ")
        )
    })
}
