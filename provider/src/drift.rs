//! Holds what a Traefik runs against what the rows say: of all its providers, not only of ours.
//!
//! Between [`read`], which asks a Traefik's API, and whoever wants to know whether the edge is as it should be. In order:
//! each router, service and middleware of the config is looked up among those that run and held against it by [`same`],
//! which knows what Traefik adds; what runs as ours and is in no config is extra; [`shadow`] finds the routers of other
//! providers that answer in the place of ours, by what [`reach`] tells of their rules.
//!
//! All but [`read`] is pure. What Traefik's API does not list is not compared: transports, TLS options, certificates. If one
//! of them is another, the marker is, which is a middleware like the others. Nor is it told here whether a router works:
//! Traefik lists one that it refuses with the values that it was given.

mod reach;
pub mod read;
mod same;
mod shadow;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use charliehub_proto::{
    drift::{Drift, DriftKind},
    instance::Owner,
};
use serde_json::{Map, Value};

use self::same::{Difference, Strictness};
use crate::{compile::Section, mask::mask, snapshot::encode::MARKER};

/// What Traefik's API lists.
pub const LISTED: [Section; 8] = [
    Section::HttpRouters,
    Section::HttpServices,
    Section::HttpMiddlewares,
    Section::TcpRouters,
    Section::TcpServices,
    Section::TcpMiddlewares,
    Section::UdpRouters,
    Section::UdpServices,
];

/// The provider that we are to Traefik.
const OURS: &str = "http";

/// What a Traefik says that it runs: objects of every provider, as its API writes them.
#[derive(Debug, Default)]
pub struct Running {
    pub lists: BTreeMap<Section, Vec<Value>>,
    pub entry_points: Vec<Value>,
}

impl Running {
    /// The digest of the config that it runs.
    pub fn digest(&self) -> Option<&str> {
        let marker = self.list(Section::HttpMiddlewares).iter().find(|one| is(one, MARKER))?;
        digest(marker)
    }

    fn list(&self, section: Section) -> &[Value] {
        self.lists.get(&section).map_or(&[], Vec::as_slice)
    }
}

/// The digest of a config.
pub fn marker(config: &Value) -> Option<&str> {
    config.pointer(&format!("/http/middlewares/{MARKER}")).and_then(digest)
}

/// What a marker says.
fn digest(marker: &Value) -> Option<&str> {
    marker.pointer("/headers/customResponseHeaders/X-Charliehub-Config")?.as_str()
}

/// As people say it.
pub fn word(kind: DriftKind) -> &'static str {
    match kind {
        DriftKind::Missing => "missing",
        DriftKind::Extra => "extra",
        DriftKind::Different => "different",
        DriftKind::Shadowed => "shadowed",
    }
}

/// Everything that runs otherwise than `config` says, in the order of kinds and names. Nothing on a healthy edge.
pub fn compare(config: &Value, running: &Running, owner: &dyn Fn(Section, &str) -> Option<Owner>) -> Vec<Drift> {
    // To the config that we made Traefik adds only defaults, also those that we do not know yet.
    let strictness = if marker(config) == running.digest() { Strictness::SameConfig } else { Strictness::OtherConfig };
    let entry_points = EntryPoints::of(&running.entry_points);
    let mut found = Vec::new();
    for section in LISTED {
        let (top, key) = section.path();
        let said = config.get(top).and_then(|top| top.get(key)).and_then(Value::as_object);
        let part = Part { section, said, running: running.list(section), strictness, entry_points: &entry_points };
        found.extend(part.compare());
    }
    found.extend(shadow::shadowed(config, running));
    let mut all: Vec<Drift> = found.into_iter().map(|one| one.told(owner)).collect();
    all.sort();
    all
}

/// A difference, before it is told whose it is.
struct Found {
    kind: DriftKind,
    section: Section,
    /// In the config; `None` for what is not in it.
    ours: Option<String>,
    /// As Traefik calls it.
    name: String,
    detail: String,
}

impl Found {
    fn told(self, owner: &dyn Fn(Section, &str) -> Option<Owner>) -> Drift {
        let (protocol, objects) = self.section.path();
        Drift {
            kind: self.kind,
            protocol: protocol.to_owned(),
            object: objects.trim_end_matches('s').to_owned(),
            owner: self.ours.and_then(|name| owner(self.section, &name)),
            name: self.name,
            detail: self.detail,
        }
    }
}

/// What an entry point of the static configuration gives to its routers.
#[derive(Default)]
struct Model<'a> {
    middlewares: &'a [Value],
    tls: Option<&'a Value>,
}

struct EntryPoints<'a>(BTreeMap<&'a str, Model<'a>>);

impl<'a> EntryPoints<'a> {
    fn of(entry_points: &'a [Value]) -> Self {
        let models = entry_points.iter().map(|one| {
            let middlewares = one.pointer("/http/middlewares").and_then(Value::as_array);
            let model = Model {
                middlewares: middlewares.map_or(&[], Vec::as_slice),
                tls: one.pointer("/http/tls").filter(|tls| !tls.is_null()),
            };
            (text(one, "name"), model)
        });
        Self(models.collect())
    }

    /// The names under which Traefik runs a router of http: its own, and one for each entry point that gives something to
    /// its routers, or on which another router wants other TLS options for the same host.
    fn names(&self, router: &str) -> impl Iterator<Item = String> {
        let own = std::iter::once(router.to_owned());
        own.chain(self.0.keys().flat_map(move |entry| {
            [
                format!("{entry}-{router}"),
                format!("{entry}-conflicted-{router}"),
                format!("{entry}-conflicted-{entry}-{router}"),
            ]
        }))
    }
}

/// One list of the API beside its section of the config.
struct Part<'a> {
    section: Section,
    said: Option<&'a Map<String, Value>>,
    running: &'a [Value],
    strictness: Strictness,
    entry_points: &'a EntryPoints<'a>,
}

impl Part<'_> {
    fn compare(&self) -> Vec<Found> {
        let ours = self.running.iter().filter(|one| text(one, "provider") == OURS);
        let runs: HashMap<&str, &Value> = ours.clone().map(|one| (bare(text(one, "name")), one)).collect();
        let mut known: HashSet<&str> = HashSet::with_capacity(runs.len());
        let mut found = Vec::new();
        for (name, said) in self.said.into_iter().flatten() {
            let instances = self.instances(name, &runs, &mut known);
            if instances.is_empty() {
                let detail = "it does not run it, and the rows say it".to_owned();
                found.push(self.found(DriftKind::Missing, Some(name), format!("{name}@{OURS}"), detail));
            } else if let Some((runs, detail)) = self.difference(said, &instances) {
                found.push(self.found(DriftKind::Different, Some(name), text(runs, "name").to_owned(), detail));
            }
        }
        let extra = ours.filter(|one| !known.contains(bare(text(one, "name"))));
        found.extend(extra.map(|one| {
            let detail = "it runs it as ours, and no row says it".to_owned();
            self.found(DriftKind::Extra, None, text(one, "name").to_owned(), detail)
        }));
        found
    }

    /// What runs for one of ours: several where Traefik makes a router of each of its entry points.
    fn instances<'r>(
        &self,
        name: &str,
        runs: &HashMap<&'r str, &'r Value>,
        known: &mut HashSet<&'r str>,
    ) -> Vec<&'r Value> {
        let mut take = |name: &str| {
            let (name, one) = runs.get_key_value(name)?;
            known.insert(name);
            Some(*one)
        };
        if self.section != Section::HttpRouters {
            return take(name).into_iter().collect();
        }
        let own = take(name);
        // Nearly always it is there whole.
        let said = self.said.and_then(|said| said.get(name));
        if let (Some(own), Some(said)) = (own, said)
            && own.get("entryPoints") == said.get("entryPoints")
        {
            return vec![own];
        }
        let others = self.entry_points.names(name).skip(1);
        // A router that is in the config by this name is another one.
        let others = others.filter(|name| self.said.is_none_or(|said| !said.contains_key(name)));
        own.into_iter().chain(others.filter_map(|name| take(&name))).collect()
    }

    /// Which of them is not as it is said, and how.
    fn difference<'r>(&self, said: &Value, instances: &[&'r Value]) -> Option<(&'r Value, String)> {
        if let [one] = instances
            && is(one, MARKER)
        {
            let short = |digest: &str| digest.get(..12).unwrap_or(digest).to_owned();
            let (said, runs) = (digest(said).map(short), digest(one).map(short));
            let detail = || {
                let [said, runs] = [&said, &runs].map(|digest| digest.as_deref().unwrap_or("without a digest"));
                format!("it runs config {runs}, and the rows come to {said}")
            };
            return (said != runs).then(|| (*one, detail()));
        }
        for runs in instances {
            let said = self.given(said, runs);
            if let Some(difference) = same::difference(&said, runs, self.strictness) {
                return Some((runs, told(&difference, &said, runs, self.strictness)));
            }
        }
        let first = instances.first()?;
        if instances.len() == 1 && first.get("entryPoints") == said.get("entryPoints") {
            return None;
        }
        let said = words(said, "entryPoints");
        let all: BTreeSet<&str> = instances.iter().flat_map(|one| words(one, "entryPoints")).collect();
        // Without any, Traefik takes the default ones of its static configuration.
        if said.is_empty() || said == all {
            return None;
        }
        let list = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
        Some((first, format!("`entryPoints` is {}, and the rows say {}", list(&all), list(&said))))
    }

    /// What is said of a router, with what the entry point gives to it that it runs on.
    fn given<'s>(&self, said: &'s Value, runs: &Value) -> Cow<'s, Value> {
        let on = runs.get("entryPoints").and_then(Value::as_array).map(Vec::as_slice);
        let model = match (self.section, on) {
            (Section::HttpRouters, Some([one])) => one.as_str().and_then(|name| self.entry_points.0.get(name)),
            _ => None,
        };
        let Some(model) = model.filter(|model| !model.middlewares.is_empty() || model.tls.is_some()) else {
            return Cow::Borrowed(said);
        };
        let mut said = said.clone();
        if let Some(object) = said.as_object_mut() {
            if !model.middlewares.is_empty() {
                let own = object.get("middlewares").and_then(Value::as_array).into_iter().flatten().cloned();
                let all: Vec<Value> = model.middlewares.iter().cloned().chain(own).collect();
                object.insert("middlewares".to_owned(), all.into());
            }
            if let Some(tls) = model.tls {
                object.entry("tls").or_insert_with(|| tls.clone());
            }
        }
        Cow::Owned(said)
    }

    fn found(&self, kind: DriftKind, ours: Option<&String>, name: String, detail: String) -> Found {
        Found { kind, section: self.section, ours: ours.cloned(), name, detail }
    }
}

/// A difference in a sentence, without secrets.
fn told(difference: &Difference, said: &Value, runs: &Value, strictness: Strictness) -> String {
    let (mut said, mut runs) = (said.clone(), runs.clone());
    mask(&mut said);
    mask(&mut runs);
    let shown = same::difference(&said, &runs, strictness);
    shown.map_or_else(|| format!("`{}` has another value, which is a secret", difference.path), |one| one.to_string())
}

/// Without the provider.
fn bare(name: &str) -> &str {
    name.rsplit_once('@').map_or(name, |(bare, _)| bare)
}

fn is(object: &Value, name: &str) -> bool {
    text(object, "provider") == OURS && bare(text(object, "name")) == name
}

/// Empty where there is none.
fn text<'v>(object: &'v Value, key: &str) -> &'v str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The words of a list, whatever their order.
fn words<'v>(object: &'v Value, key: &str) -> BTreeSet<&'v str> {
    object.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}
