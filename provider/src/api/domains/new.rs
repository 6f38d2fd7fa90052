//! A row that a client wants: what can be said about it without the database.

use std::{collections::BTreeMap, net::IpAddr};

use charliehub_proto::domain::{
    AccessTier, Backend, DnsMode, Environment, HealthCheck, Protocol, RateLimit, ServiceType, Status, Sticky, TlsMode,
};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::{Problem, json};

/// Declares the fields that may be written: their names as columns, and their types. `null` is SQL's NULL.
macro_rules! fields {
    ($($name:ident: $type:ty),* $(,)?) => {
        const WRITABLE: &[&str] = &[$(stringify!($name)),*];

        /// Only read to find what has the wrong type: the row is written from the JSON itself.
        #[derive(Deserialize)]
        struct Types { $(#[serde(default)] #[expect(dead_code, reason = "its type is checked")] $name: Option<$type>),* }
    };
}

fields! {
    domain: String, path_prefix: String, protocol: Protocol, service_type: ServiceType, environment: Environment,
    status: Status, access_tier: AccessTier, tls_mode: TlsMode, cert_resolver: String, backend_scheme: String,
    backend_host: String, backend_port: i32, backends: Vec<Backend>, service_ref: String, redirect_to: String,
    redirect_permanent: bool, redirect_keep_path: bool, maintenance_message: String, tcp_entrypoint: String,
    auth_required: bool, ip_allowlist: Vec<String>, middlewares: Vec<String>, rate_limit: RateLimit,
    health_check: HealthCheck, sticky: Sticky, priority: i32, dns_mode: DnsMode, site: String, owner: String,
    notes: String, labels: BTreeMap<String, String>,
}

/// Fields that the database alone sets.
const READ_ONLY: &[&str] = &["created_at", "id", "updated_at", "version"];

/// A row whose fields exist and have the right types.
#[derive(Debug)]
pub(super) struct New {
    columns: Vec<&'static str>,
    json: Value,
}

impl New {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let fields: Map<String, Value> = json::read(bytes)?;
        for name in fields.keys() {
            check_name(name)?;
        }
        if !fields.contains_key("domain") {
            return Err(Problem::invalid("domain", "`domain` is missing").remedy("give the public name of the row"));
        }
        json::read::<Types>(bytes).map(drop)?;
        for network in fields.get("ip_allowlist").and_then(Value::as_array).into_iter().flatten() {
            check_network(network.as_str().unwrap_or_default())?;
        }
        let columns = WRITABLE.iter().copied().filter(|name| fields.contains_key(*name)).collect();
        Ok(Self { columns, json: Value::Object(fields) })
    }

    /// The columns that are given: names of ours, never the client's text.
    pub(super) fn columns(&self) -> &[&'static str] {
        &self.columns
    }

    pub(super) fn json(&self) -> &Value {
        &self.json
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    if WRITABLE.contains(&name) {
        return Ok(());
    }
    if READ_ONLY.contains(&name) {
        return Err(Problem::invalid(name, format!("`{name}` is set by the database")).remedy("leave it out"));
    }
    let nearest = WRITABLE.iter().min_by_key(|known| strsim::damerau_levenshtein(name, known)).copied();
    let shown: String = name.chars().take(64).collect();
    Err(Problem::invalid(&shown, format!("there is no field `{shown}`"))
        .remedy(format!("did you mean `{}`?", nearest.unwrap_or_default())))
}

fn check_network(text: &str) -> Result<(), Problem> {
    let problem = |detail: String, remedy: String| Err(Problem::invalid("ip_allowlist", detail).remedy(remedy));
    match text.parse::<IpNet>() {
        Ok(network) if network.trunc() == network => Ok(()),
        Ok(network) => {
            problem(format!("`{text}` has bits set behind its prefix"), format!("write {}", network.trunc()))
        }
        Err(_) if text.parse::<IpAddr>().is_ok() => Ok(()),
        Err(_) => problem(format!("`{text}` is not a network"), "write it as 203.0.113.0/24".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_named_with_its_field_and_its_remedy() {
        for (body, status, field, words) in [
            ("{", 400, None, "line 1 column 1"),
            ("[]", 422, Some("."), "expected a map"),
            (r#"{"domain":"a.test","domain":"b.test"}"#, 400, None, "key `domain` is there twice"),
            (r#"{"domain":"a.test","labels":{"a":"1","a":"2"}}"#, 400, None, "key `a` is there twice"),
            (r#"{"domian":"a.test"}"#, 422, Some("domian"), "did you mean `domain`?"),
            (r#"{"domain":"a.test","version":1}"#, 422, Some("version"), "set by the database"),
            (r#"{"backend_port":80}"#, 422, Some("domain"), "missing"),
            (r#"{"domain":"a.test","protocol":"htp"}"#, 422, Some("protocol"), "expected `http` or `tcp`"),
            ("{\"domain\":\"a.test\",\n\"backend_port\":\"80\"}", 422, Some("backend_port"), "line 2"),
            (r#"{"domain":"a.test","backends":[{"host":"a","prt":1}]}"#, 422, Some("backends[0].prt"), "unknown field"),
            (r#"{"domain":"a.test","ip_allowlist":["10.0.0.1/8"]}"#, 422, Some("ip_allowlist"), "write 10.0.0.0/8"),
            (r#"{"domain":"a.test","ip_allowlist":["ten"]}"#, 422, Some("ip_allowlist"), "203.0.113.0/24"),
        ] {
            let problem = New::read(body.as_bytes()).unwrap_err();
            let told = format!("{} {}", problem.body().detail, problem.body().remedy.clone().unwrap_or_default());
            assert_eq!((problem.body().status, problem.body().field.as_deref()), (status, field), "{body}: {told}");
            assert!(told.contains(words), "{body}: {told}");
        }
    }

    #[test]
    fn only_the_given_columns_are_written() {
        let new = New::read(br#"{"notes":null,"domain":"a.test","ip_allowlist":["10.0.0.0/8","192.0.2.1"]}"#).unwrap();
        assert_eq!(new.columns(), ["domain", "ip_allowlist", "notes"]);
    }
}
