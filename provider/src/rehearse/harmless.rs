//! Takes from a candidate what would reach out of a rehearsal, or would be a false alarm in one.
//!
//! All else stays, byte for byte in meaning, so that Traefik's decoder and builder judge it as in production:
//! - **Checks of health** stay, for Traefik to judge; but the servers that they would contact are moved to an address
//!   that the kernel connects nobody to.
//! - **Resolvers** that the edge has are taken out, and all of them where it is not known which it has. To let the
//!   stage have them would make Traefik register an account for each. An unknown one stays: Traefik's log names it.
//! - **Names of other providers** (`auth@file`) give way to stand-ins, and plugins, which Traefik would download, to a
//!   middleware that does nothing.
//!
//! What does not decode here is handed on as it is: Traefik's own words about it are better.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::stage::STAND_IN;

/// The middleware whose header says which configuration runs.
pub(super) const MARKER: &str = "charliehub-rehearsal";
/// The value of that header while the candidate runs.
pub(super) const CANDIDATE: &str = "candidate";
/// The value of that header after it.
pub(super) const LAST: &str = "last";

/// Linux refuses a TCP connection to it without sending anything.
const NOWHERE: &str = "255.255.255.255";

/// What Traefik gets instead of `candidate`, and the same as a value (null when it is no object).
pub(super) fn harmless(candidate: &[u8], resolvers: Option<&BTreeSet<String>>) -> (Vec<u8>, Value) {
    let Ok(mut config @ Value::Object(_)) = serde_json::from_slice(candidate) else {
        return (candidate.to_vec(), Value::Null);
    };
    isolate(&mut config, "http", "url", of_url);
    isolate(&mut config, "tcp", "address", of_address);
    forget_resolvers(&mut config, resolvers);
    for middleware in entries(&mut config, "http", "middlewares") {
        if middleware.get("plugin").is_some() {
            *middleware = json!({ "compress": {} });
        }
    }
    stand_in(&mut config);
    mark(&mut config);
    (config.to_string().into_bytes(), config)
}

/// What runs after the candidate: when it does, all was said about the candidate.
pub(super) fn last() -> Vec<u8> {
    json!({ "http": { "middlewares": { MARKER: marker(LAST) } } }).to_string().into_bytes()
}

fn marker(value: &str) -> Value {
    json!({ "headers": { "customResponseHeaders": { super::stage::HEADER: value } } })
}

/// The objects of one kind, such as `http.routers`.
fn entries<'c>(config: &'c mut Value, section: &str, kind: &str) -> impl Iterator<Item = &'c mut Value> {
    let found = config.get_mut(section).and_then(|section| section.get_mut(kind)).and_then(Value::as_object_mut);
    found.into_iter().flat_map(Map::values_mut)
}

/// Moves the servers whose health is checked to where nobody is.
fn isolate(config: &mut Value, section: &str, key: &str, elsewhere: fn(&str) -> String) {
    for service in entries(config, section, "services") {
        let Some(balancer) = service.get_mut("loadBalancer").filter(|it| it.get("healthCheck").is_some()) else {
            continue;
        };
        let servers = balancer.get_mut("servers").and_then(Value::as_array_mut);
        for server in servers.into_iter().flatten().filter_map(|server| server.get_mut(key)) {
            if let Value::String(at) = server {
                *at = elsewhere(at);
            }
        }
    }
}

/// `http://host:80/x` is `http://255.255.255.255:80/x`; what is no URL stays, for Traefik to say so.
fn of_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{}{path}", of_address(host))
}

fn of_address(address: &str) -> String {
    // The colons of an IPv6 address are within brackets.
    match address.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        Some((_, port)) => format!("{NOWHERE}:{port}"),
        None => NOWHERE.to_owned(),
    }
}

fn forget_resolvers(config: &mut Value, known: Option<&BTreeSet<String>>) {
    let is_known = |name: Option<&Value>| {
        name.and_then(Value::as_str).is_some_and(|name| known.is_none_or(|known| known.contains(name)))
    };
    for section in ["http", "tcp"] {
        for router in entries(config, section, "routers") {
            if let Some(Value::Object(tls)) = router.get_mut("tls")
                && is_known(tls.get("certResolver"))
            {
                tls.remove("certResolver");
            }
        }
    }
    for store in entries(config, "tls", "stores") {
        if let Value::Object(store) = store
            && is_known(store.get("defaultGeneratedCert").and_then(|generated| generated.get("resolver")))
        {
            store.remove("defaultGeneratedCert");
            if store.is_empty() {
                // An empty object would be refused.
                store.insert("defaultGeneratedCert".to_owned(), json!({ "domain": { "main": "rehearsal.invalid" } }));
            }
        }
    }
}

/// True for a name that another provider brings.
fn is_foreign(name: &str) -> bool {
    name.rsplit_once('@').is_some_and(|(_, provider)| !matches!(provider, "http" | "internal"))
}

/// Puts stand-ins for the names of other providers, wherever Traefik has a reference.
fn stand_in(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object.iter_mut() {
                match (key.as_str(), inner) {
                    ("service" | "fallback" | "name", Value::String(name)) if is_foreign(name) => {
                        STAND_IN.clone_into(name);
                    }
                    ("middlewares" | "parentRefs", Value::Array(names)) => {
                        names.retain(|name| !name.as_str().is_some_and(is_foreign));
                    }
                    (_, inner) => stand_in(inner),
                }
            }
            for key in ["serversTransport", "options"] {
                if object.get(key).and_then(Value::as_str).is_some_and(is_foreign) {
                    object.remove(key);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(stand_in),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Adds the marker. An empty map stays empty, because Traefik refuses it.
fn mark(config: &mut Value) {
    let Some(Value::Object(http)) =
        config.as_object_mut().map(|all| all.entry("http").or_insert_with(|| json!({ "middlewares": null })))
    else {
        return;
    };
    if http.is_empty() {
        return;
    }
    let middlewares = http.entry("middlewares").or_insert(Value::Null);
    match middlewares {
        Value::Object(there) if !there.is_empty() => drop(there.insert(MARKER.to_owned(), marker(CANDIDATE))),
        Value::Null => *middlewares = json!({ MARKER: marker(CANDIDATE) }),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(candidate: &Value, resolvers: Option<&[&str]>) -> Value {
        let resolvers = resolvers.map(|names| names.iter().map(ToString::to_string).collect());
        let (body, value) = harmless(candidate.to_string().as_bytes(), resolvers.as_ref());
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), value);
        value
    }

    #[test]
    fn a_checked_server_is_moved_to_where_nobody_is_and_its_check_stays() {
        for (from, to) in [
            ("http://app:8080/base", "http://255.255.255.255:8080/base"),
            ("https://u:p@app", "https://255.255.255.255"),
            ("h2c://[::1]:80?x", "h2c://255.255.255.255:80?x"),
            ("http://[::1]", "http://255.255.255.255"),
            ("no url", "no url"),
        ] {
            let check = json!({ "path": "/up", "interval": "nonsense" });
            let service = json!({ "loadBalancer": { "servers": [{ "url": from }], "healthCheck": check } });
            let value = prepared(&json!({ "http": { "services": { "s": service } } }), None);
            let balancer = &value["http"]["services"]["s"]["loadBalancer"];
            assert_eq!(balancer["servers"][0]["url"], to, "{from}");
            assert_eq!(balancer["healthCheck"], check);
        }
        let service =
            |check: Value| json!({ "loadBalancer": { "servers": [{ "address": "db:5432" }], "healthCheck": check } });
        let candidate = json!({ "tcp": { "services": { "s": service(json!({ "port": 1 })) } } });
        let value = prepared(&candidate, None);
        assert_eq!(value["tcp"]["services"]["s"]["loadBalancer"]["servers"][0]["address"], "255.255.255.255:5432");
    }

    #[test]
    fn a_server_that_is_not_checked_stays() {
        let service = json!({ "loadBalancer": { "servers": [{ "url": "http://app:80" }] } });
        let value = prepared(&json!({ "http": { "services": { "s": service.clone() } } }), None);
        assert_eq!(value["http"]["services"]["s"], service);
    }

    #[test]
    fn a_known_resolver_goes_and_an_unknown_one_stays() {
        let candidate = json!({
            "http": { "routers": { "r": { "tls": { "certResolver": "le", "domains": [{ "main": "a.test" }] } } } },
            "tcp": { "routers": { "r": { "tls": { "certResolver": "le" } } } },
            "tls": { "stores": { "default": { "defaultGeneratedCert": { "resolver": "le" } } } },
        });
        for known in [None, Some(&["le"][..])] {
            let value = prepared(&candidate, known);
            assert!(!value.to_string().contains("\"le\""), "{known:?}: {value}");
            assert_eq!(value["tcp"]["routers"]["r"]["tls"], json!({}), "TLS stays on");
            assert_eq!(value["http"]["routers"]["r"]["tls"]["domains"][0]["main"], "a.test");
        }
        let value = prepared(&candidate, Some(&["other"]));
        for section in ["http", "tcp"] {
            assert_eq!(value[section]["routers"]["r"]["tls"]["certResolver"], "le");
        }
    }

    #[test]
    fn names_of_other_providers_have_stand_ins() {
        let value = prepared(
            &json!({
                "http": {
                    "routers": {
                        "r": { "service": "x@docker", "middlewares": ["auth@file", "own", "m@http"], "tls": { "options": "o@file" } },
                        "api": { "service": "api@internal" },
                    },
                    "services": {
                        "w": { "weighted": { "services": [{ "name": "a@consul", "weight": 1 }, { "name": "b", "weight": 1 }] } },
                        "f": { "failover": { "service": "b", "fallback": "c@file" } },
                        "l": { "loadBalancer": { "serversTransport": "t@file", "servers": [] } },
                    },
                    "middlewares": { "c": { "chain": { "middlewares": ["z@file"] } }, "p": { "plugin": { "x": { "a": 1 } } } },
                },
                "udp": { "routers": { "u": { "service": "dns@file" } } },
            }),
            None,
        );
        let http = &value["http"];
        assert_eq!(http["routers"]["r"], json!({ "service": STAND_IN, "middlewares": ["own", "m@http"], "tls": {} }));
        assert_eq!(http["routers"]["api"]["service"], "api@internal");
        assert_eq!(http["services"]["w"]["weighted"]["services"][0]["name"], STAND_IN);
        assert_eq!(http["services"]["w"]["weighted"]["services"][1]["name"], "b");
        assert_eq!(http["services"]["f"]["failover"], json!({ "service": "b", "fallback": STAND_IN }));
        assert_eq!(http["services"]["l"]["loadBalancer"], json!({ "servers": [] }));
        assert_eq!(http["middlewares"]["c"]["chain"]["middlewares"], json!([]));
        assert_eq!(http["middlewares"]["p"], json!({ "compress": {} }));
        assert_eq!(value["udp"]["routers"]["u"]["service"], STAND_IN);
    }

    #[test]
    fn what_traefik_refuses_is_not_mended_by_the_marker() {
        for refused in
            [json!({ "http": {} }), json!({ "http": { "middlewares": {} } }), json!({ "http": { "middlewares": [1] } })]
        {
            assert_eq!(prepared(&refused, None), refused);
        }
        for bytes in [&b"{\"http\":"[..], b"[1]", b"\"x\"", b""] {
            assert_eq!(harmless(bytes, None), (bytes.to_vec(), Value::Null));
        }
        for taken in
            [json!({}), json!({ "tcp": { "routers": { "r": {} } } }), json!({ "http": { "routers": { "r": {} } } })]
        {
            assert_eq!(prepared(&taken, None)["http"]["middlewares"][MARKER], marker(CANDIDATE), "{taken}");
        }
    }
}
