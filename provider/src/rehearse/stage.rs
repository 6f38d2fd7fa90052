//! The static configuration of a Traefik under rehearsal: everything on loopback, nothing that calls home.
//!
//! Its entry points are those of the real edge where they are known, so that another one is an error; else all that the
//! candidate names. They take any free port, since nobody asks them. A second provider, a file, holds what the stage
//! itself needs: a way to the API for who has the token, and stand-ins for what other providers would bring.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A service in the place of one of another provider.
pub(super) const STAND_IN: &str = "rehearsal@file";
/// Carries the tokens of the stage.
pub(super) const HEADER: &str = "X-Charliehub-Rehearsal";
/// The entry point of the API, which no candidate names.
const API: &str = "charliehub-rehearsal";
/// Traefik's own; routers that name no entry point are on all but this one.
const INTERNAL: &str = "traefik";
/// Of the stage's directory; then come our process and something random.
const PREFIX: &str = "charliehub-rehearsal-";

/// A name without the provider that we are for Traefik.
pub(super) fn own(name: &str) -> &str {
    name.strip_suffix("@http").unwrap_or(name)
}

/// Who may ask the API, and who may have the candidate: other users of this machine may not.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) api: String,
    pub(super) prompt: String,
}

/// Where the two sides meet on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) api: u16,
    pub(super) prompt: u16,
}

/// The files of a stage, ours alone. Traefik reads them once, when it starts.
pub(super) struct Stage {
    directory: TempDir,
}

impl Stage {
    pub(super) fn set(entry_points: &BTreeMap<String, Protocol>, ports: Ports, tokens: &Tokens) -> io::Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let directory = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        let stage = Self { directory };
        let props = stage.directory.path().join("props.yml");
        // JSON is YAML, with one way to quote.
        fs::write(&props, file_provider(tokens).to_string())?;
        fs::write(stage.configuration(), configuration(entry_points, ports, tokens, &props).to_string())?;
        Ok(stage)
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.directory.path().join("traefik.yml")
    }
}

/// Removes the stages of processes that were killed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            drop(fs::remove_dir_all(entry.path())); // another user's stays, for that user to sweep
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// The entry points to open. One that is only named by udp routers is of udp.
pub(super) fn entry_points(candidate: &Value, known: Option<&BTreeSet<String>>) -> BTreeMap<String, Protocol> {
    let named = |section| {
        let routers = candidate.get(section).and_then(|section| section.get("routers")).and_then(Value::as_object);
        let lists =
            routers.into_iter().flat_map(|routers| routers.values()).filter_map(|router| router.get("entryPoints"));
        let names = lists.filter_map(Value::as_array).flatten().filter_map(Value::as_str).map(str::to_owned);
        names.collect::<BTreeSet<String>>()
    };
    let (tcp, udp) = (&named("http") | &named("tcp"), named("udp"));
    let all = known.cloned().unwrap_or_else(|| &tcp | &udp);
    let protocol =
        |name: &String| if udp.contains(name) && !tcp.contains(name) { Protocol::Udp } else { Protocol::Tcp };
    let mut opened: BTreeMap<String, Protocol> = all.into_iter().map(|name| (name.clone(), protocol(&name))).collect();
    if !opened.iter().any(|(name, protocol)| name != INTERNAL && *protocol == Protocol::Tcp) {
        // Without any, a router that names none would be an error.
        opened.insert("web".to_owned(), Protocol::Tcp);
    }
    opened
}

fn configuration(entry_points: &BTreeMap<String, Protocol>, ports: Ports, tokens: &Tokens, props: &Path) -> Value {
    let mut opened: BTreeMap<&str, Value> = entry_points
        .iter()
        .map(|(name, protocol)| {
            let point = match protocol {
                Protocol::Tcp => json!({ "address": "127.0.0.1:0", "asDefault": name != INTERNAL }),
                Protocol::Udp => json!({ "address": "127.0.0.1:0/udp" }),
            };
            (&**name, point)
        })
        .collect();
    opened.insert(API, json!({ "address": format!("127.0.0.1:{}", ports.api) }));
    json!({
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "log": { "level": "WARN", "format": "json" },
        "api": { "dashboard": true },
        // For candidates that refer to ping@internal and prometheus@internal.
        "ping": { "manualRouting": true },
        "metrics": { "prometheus": { "manualRouting": true } },
        "entryPoints": opened,
        "providers": {
            "providersThrottleDuration": "1ms",
            "file": { "filename": props, "watch": false },
            "http": {
                "endpoint": format!("http://127.0.0.1:{}/", ports.prompt),
                "pollInterval": "5ms",
                // Longer than any rehearsal.
                "pollTimeout": "24h",
                "headers": { HEADER: tokens.prompt },
            },
        },
    })
}

fn file_provider(tokens: &Tokens) -> Value {
    let nobody = json!({ "loadBalancer": { "servers": [] } });
    json!({
        "http": {
            "routers": { "rehearsal": {
                "rule": format!("Header(`{HEADER}`, `{}`)", tokens.api),
                "entryPoints": [API],
                "service": "api@internal",
                "priority": 1_000_000_000,
            } },
            // A parent may insist that its children watch their health.
            "services": { "rehearsal": { "loadBalancer": { "servers": [], "healthCheck": { "path": "/" } } } },
        },
        "tcp": { "services": { "rehearsal": nobody } },
        "udp": { "services": { "rehearsal": nobody } },
    })
}

#[cfg(test)]
mod tests {
    use super::{
        Protocol::{Tcp, Udp},
        *,
    };

    fn opened(candidate: &Value, known: Option<&[&str]>) -> Vec<(String, Protocol)> {
        let known = known.map(|known| known.iter().map(ToString::to_string).collect());
        Vec::from_iter(entry_points(candidate, known.as_ref()))
    }

    #[test]
    fn the_entry_points_are_the_known_ones_or_all_that_are_named() {
        let router = |names: &[&str]| json!({ "routers": { "r": { "entryPoints": names } } });
        let candidate =
            json!({ "http": router(&["web", "both"]), "tcp": router(&["mqtt"]), "udp": router(&["dns", "both"]) });
        let point = |name: &str, protocol| (name.to_owned(), protocol);
        assert_eq!(
            opened(&candidate, None),
            [point("both", Tcp), point("dns", Udp), point("mqtt", Tcp), point("web", Tcp)]
        );
        assert_eq!(opened(&candidate, Some(&["web", "dns"])), [point("dns", Udp), point("web", Tcp)]);
        assert_eq!(opened(&json!({}), None), [point("web", Tcp)]);
        assert_eq!(
            opened(&json!({ "http": { "routers": [] } }), Some(&["traefik"])),
            [point("traefik", Tcp), point("web", Tcp)]
        );
    }

    #[test]
    fn the_stage_is_on_loopback_and_calls_nobody() {
        let tokens = Tokens { api: "secret-a".to_owned(), prompt: "secret-p".to_owned() };
        let points = BTreeMap::from([("web".to_owned(), Protocol::Tcp), ("dns".to_owned(), Protocol::Udp)]);
        let stage = Stage::set(&points, Ports { api: 1, prompt: 2 }, &tokens).unwrap();
        let mode = fs::metadata(stage.directory.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let read: Value = serde_json::from_str(&fs::read_to_string(stage.configuration()).unwrap()).unwrap();
        assert_eq!(read["global"], json!({ "checkNewVersion": false, "sendAnonymousUsage": false }));
        assert_eq!(read["entryPoints"]["dns"]["address"], "127.0.0.1:0/udp");
        assert!(read["certificatesResolvers"].is_null(), "a resolver would go out");
        for point in read["entryPoints"].as_object().unwrap().values() {
            assert!(point["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{point}");
        }
        let directory = stage.directory.path().to_owned();
        drop(stage);
        assert!(!directory.exists());
    }

    #[test]
    fn the_stage_of_a_process_that_is_gone_is_swept_and_that_of_a_living_one_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let [gone, living, other] =
            [format!("{PREFIX}4194305-x"), format!("{PREFIX}{}-x", std::process::id()), "x".to_owned()]
                .map(|name| parent.path().join(name));
        for directory in [&gone, &living, &other] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("traefik.yml"), "").unwrap();
        }
        sweep(parent.path());
        assert_eq!([&gone, &living, &other].map(|directory| directory.exists()), [false, true, true]);
    }
}
