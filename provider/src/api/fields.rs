//! What a client writes into a row: what can be said about it without the database.

use std::{collections::BTreeMap, net::IpAddr};

use charliehub_proto::{
    domain::{
        AccessTier, Backend, DnsMode, Environment, HealthCheck, Protocol, RateLimit, ServiceType, Status, Sticky,
        TlsMode,
    },
    policy::Policy,
    site::{Host, Tunnel},
};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Problem, json};
use crate::{mask::is_masked, row::Table};

/// Declares the fields that may be written: their names as columns, and their types. `null` is SQL's NULL.
macro_rules! fields {
    ($list:ident, $types:ident as $schema:ident: $($(#[$said:meta])* $name:ident: $type:ty),* $(,)?) => {
        const $list: &[&str] = &[$(stringify!($name)),*];

        /// What may be written. Only read to find what has the wrong type: the row is written from the JSON itself.
        #[derive(Deserialize, ToSchema)]
        #[schema(as = $schema)]
        #[expect(dead_code, reason = "the types are checked")]
        pub(super) struct $types { $($(#[$said])* #[serde(default)] $name: Option<$type>),* }
    };
}

fields! { DOMAIN, OfDomain as NewDomain:
    #[schema(example = "app.example.org", max_length = 253)]
    domain: String,
    #[schema(example = "/admin", pattern = "^/", max_length = 1024)]
    path_prefix: String, protocol: Protocol, service_type: ServiceType, environment: Environment,
    status: Status, access_tier: AccessTier, tls_mode: TlsMode, cert_resolver: String, backend_scheme: String,
    #[schema(example = "10.44.1.7", max_length = 253)]
    backend_host: String,
    #[schema(minimum = 1, maximum = 65_535)]
    backend_port: i32, backends: Vec<Backend>, service_ref: String, redirect_to: String,
    redirect_permanent: bool, redirect_keep_path: bool, maintenance_message: String, tcp_entrypoint: String,
    auth_required: bool, ip_allowlist: Vec<String>, middlewares: Vec<String>, rate_limit: RateLimit,
    health_check: HealthCheck, sticky: Sticky,
    #[schema(minimum = 1, maximum = 1_000_000)]
    priority: i32, dns_mode: DnsMode, site: String, owner: String,
    notes: String, labels: BTreeMap<String, String>,
}

fields! { FRAGMENT, OfFragment as NewFragment:
    kind: String, name: String, body: Map<String, Value>, enabled: bool, notes: String,
}

fields! { SITE, OfSite as NewSite:
    /// Lower case letters, digits and hyphens.
    #[schema(example = "uk", max_length = 32)]
    name: String,
    /// The agent on the host that its tunnels end on; `hub2` when left out.
    agent: String,
    #[schema(example = json!(["10.44.0.0/16"]))]
    networks: Vec<String>,
    tunnels: Vec<Tunnel>, hosts: Vec<Host>, wan_name: String, notes: String,
}

fields! { PEER, OfPeer as NewPeer:
    /// Lower case letters, digits and hyphens.
    #[schema(example = "anna-laptop", max_length = 32)]
    name: String,
    /// The agents on the hubs that let it in; `hub2` when left out.
    agents: Vec<String>,
    /// On these hubs; `wg-clients` when left out.
    interface: String,
    /// As `wg pubkey` writes it.
    public_key: String,
    #[schema(example = json!(["10.99.0.7/32"]))]
    addresses: Vec<String>,
    notes: String,
}

fields! { POLICY, OfPolicy as NewPolicy:
    agent: String, body: Policy,
}

/// Fields that the database alone sets.
pub(super) const READ_ONLY: &[&str] = &["created_at", "id", "updated_at", "version"];

/// The fields of a table that may be written.
pub(super) fn writable(table: Table) -> &'static [&'static str] {
    match table {
        Table::Domains => DOMAIN,
        Table::Fragments => FRAGMENT,
        Table::Sites => SITE,
        Table::Policies => POLICY,
        Table::Peers => PEER,
    }
}

/// Fields that exist and have the right types: what they are set to, or that they get their default.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    given: Vec<&'static str>,
    defaults: Vec<&'static str>,
    json: Map<String, Value>,
}

impl Fields {
    /// Reads a new row; its name must be there.
    pub(super) fn read(table: Table, bytes: &[u8]) -> Result<Self, Problem> {
        let fields = Self::of(table, bytes, json::read(bytes)?)?;
        let needed: &[(&str, &str)] = match table {
            Table::Domains => &[("domain", "give the public name of the row")],
            Table::Fragments => &[
                ("kind", "give the section that it belongs to, such as http.middleware"),
                ("name", "give the name that Traefik has for it"),
                ("body", "give the object in Traefik's own JSON"),
            ],
            Table::Sites => &[
                ("name", "give a word that people call it by, such as uk"),
                ("networks", "give the networks that are there, such as [\"10.44.0.0/16\"]"),
            ],
            Table::Policies => &[("agent", "give the name of the agent"), ("body", "give the policy")],
            Table::Peers => &[
                ("name", "give a word that people call it by, such as anna-laptop"),
                ("public_key", "give what `wg pubkey` makes of its private key"),
                ("addresses", "give its addresses in the VPN, such as [\"10.99.0.7/32\"]"),
            ],
        };
        match needed.iter().find(|(name, _)| !fields.json.contains_key(*name)) {
            Some((name, remedy)) => Err(Problem::invalid(name, format!("`{name}` is missing")).remedy(*remedy)),
            None => Ok(fields),
        }
    }

    /// Reads a row that is a value already.
    pub(super) fn from_value(table: Table, value: &Value) -> Result<Self, Problem> {
        Self::read(table, value.to_string().as_bytes())
    }

    /// What a merge patch (RFC 7396) makes of the row that is there.
    pub(super) fn merged(table: Table, now: &Map<String, Value>, patch: &Map<String, Value>) -> Result<Self, Problem> {
        let mut merged = Map::new();
        for (name, change) in patch {
            check_name(table, name)?;
            let mut value = now.get(name).cloned().unwrap_or_default();
            merge(&mut value, change);
            merged.insert(name.clone(), value);
        }
        let gone = |name: &&str| patch.get(*name).is_some_and(Value::is_null);
        let defaults: Vec<&'static str> = writable(table).iter().copied().filter(gone).collect();
        merged.retain(|name, _| !defaults.contains(&name.as_str()));
        let bytes = serde_json::to_vec(&merged).unwrap_or_default();
        Ok(Self { defaults, ..Self::of(table, &bytes, merged)? })
    }

    fn of(table: Table, bytes: &[u8], json: Map<String, Value>) -> Result<Self, Problem> {
        for name in json.keys() {
            check_name(table, name)?;
        }
        match table {
            Table::Domains => json::read::<OfDomain>(bytes).map(drop)?,
            Table::Fragments => {
                json::read::<OfFragment>(bytes).map(drop)?;
                if json.get("body").is_some_and(is_masked) {
                    return Err(Problem::invalid("body", "a secret in it is masked, and would be lost")
                        .remedy("write the secret itself, or let an administrator write it"));
                }
            }
            Table::Sites => check_tunnels(&json::read::<OfSite>(bytes)?)?,
            Table::Policies => json::read::<OfPolicy>(bytes).map(drop)?,
            Table::Peers => json::read::<OfPeer>(bytes).map(drop)?,
        }
        for field in ["ip_allowlist", "networks", "addresses"] {
            for network in json.get(field).and_then(Value::as_array).into_iter().flatten() {
                check_network(field, network.as_str().unwrap_or_default())?;
            }
        }
        let given = writable(table).iter().copied().filter(|name| json.contains_key(*name)).collect();
        Ok(Self { given, defaults: Vec::new(), json })
    }

    /// The whole row: what is not given gets its default.
    pub(super) fn all(mut self, table: Table) -> Self {
        self.defaults = writable(table).iter().copied().filter(|name| !self.given.contains(name)).collect();
        self
    }

    /// The columns that are given: names of ours, never the client's text.
    pub(super) fn given(&self) -> &[&'static str] {
        &self.given
    }

    /// The columns that get their defaults.
    pub(super) fn defaults(&self) -> &[&'static str] {
        &self.defaults
    }

    pub(super) fn json(&self) -> Value {
        Value::Object(self.json.clone())
    }
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, change) in patch {
        if change.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

fn check_name(table: Table, name: &str) -> Result<(), Problem> {
    if writable(table).contains(&name) {
        return Ok(());
    }
    if READ_ONLY.contains(&name) {
        return Err(Problem::invalid(name, format!("`{name}` is set by the database")).remedy("leave it out"));
    }
    let nearest = writable(table).iter().min_by_key(|known| strsim::damerau_levenshtein(name, known)).copied();
    let shown: String = name.chars().take(64).collect();
    Err(Problem::invalid(&shown, format!("there is no field `{shown}`"))
        .remedy(format!("did you mean `{}`?", nearest.unwrap_or_default())))
}

/// Names the tunnel at fault: of the database's constraints only its column would be known.
fn check_tunnels(site: &OfSite) -> Result<(), Problem> {
    for (at, tunnel) in site.tunnels.iter().flatten().enumerate() {
        for (field, key) in
            [("public_key", Some(&tunnel.public_key)), ("own_public_key", tunnel.own_public_key.as_ref())]
        {
            if key.is_some_and(|key| !is_wireguard_key(key)) {
                let field = format!("tunnels[{at}].{field}");
                return Err(Problem::invalid(&field, format!("`{field}` is not a public key of WireGuard"))
                    .remedy("write the 44 characters, the last one =, that `wg show INTERFACE public-key` prints"));
            }
        }
        for network in &tunnel.allowed_ips {
            check_network(&format!("tunnels[{at}].allowed_ips"), &network.to_string())?;
        }
    }
    Ok(())
}

/// 32 bytes in base64: the last digit before the padding has two bits that are 0.
fn is_wireguard_key(text: &str) -> bool {
    let Some((digits, last)) = text.strip_suffix('=').and_then(|digits| digits.split_at_checked(42)) else {
        return false;
    };
    digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        && matches!(last.as_bytes(), [byte] if b"AEIMQUYcgkosw048".contains(byte))
}

fn check_network(field: &str, text: &str) -> Result<(), Problem> {
    let problem = |detail: String, remedy: String| Err(Problem::invalid(field, detail).remedy(remedy));
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
    use serde_json::json;

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
            let problem = Fields::read(Table::Domains, body.as_bytes()).unwrap_err();
            let told = format!("{} {}", problem.body().detail, problem.body().remedy.clone().unwrap_or_default());
            assert_eq!((problem.body().status, problem.body().field.as_deref()), (status, field), "{body}: {told}");
            assert!(told.contains(words), "{body}: {told}");
        }
    }

    #[test]
    fn only_the_given_columns_are_written() {
        let new = Fields::read(
            Table::Domains,
            br#"{"notes":null,"domain":"a.test","ip_allowlist":["10.0.0.0/8","192.0.2.1"]}"#,
        )
        .unwrap();
        assert_eq!(new.given(), ["domain", "ip_allowlist", "notes"]);
    }

    /// The examples of RFC 7396, appendix A, that are objects.
    #[test]
    fn a_merge_patch_does_what_its_standard_says() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, result, "{target} {patch}");
        }
    }

    #[test]
    fn a_patch_sets_merges_and_gives_back_defaults() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let now = object(json!({"domain": "a.test", "rate_limit": {"average": 10, "burst": 5}, "notes": "x"}));
        let patch = object(json!({"rate_limit": {"burst": null, "average": 20}, "notes": null}));
        let fields = Fields::merged(Table::Domains, &now, &patch).unwrap();
        assert_eq!(fields.json(), json!({"rate_limit": {"average": 20}}));
        assert_eq!((fields.given(), fields.defaults()), (&["rate_limit"][..], &["notes"][..]));
        let wrong = Fields::merged(Table::Domains, &now, &object(json!({"rate_limit": {"average": "many"}})));
        assert_eq!(wrong.unwrap_err().body().field.as_deref(), Some("rate_limit.average"));
    }
}
