//! Which names must be served with a valid certificate here, where they are asked for, and from whom it comes. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use charliehub_proto::expected::{Expected, Served};

use super::name::canonical;

/// A name to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Canonical.
    pub name: String,
    /// None: nobody can be asked for it from here.
    pub entry_point: Option<SocketAddr>,
    pub entry_point_name: String,
    pub origin: Origin,
}

/// Where its certificate should come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A resolver, by ACME.
    Acme,
    /// The policy names it, and not from whom: anybody whom clients trust.
    Any,
    /// The entry point's own, also where nobody trusts it.
    Default,
}

/// The names, and those of them that nobody could ask for.
pub(super) fn wanted(expected: &Expected, entry_points: &BTreeMap<String, SocketAddr>) -> (Vec<Wanted>, Vec<String>) {
    let policy = &expected.policy.certificates;
    let except: BTreeSet<_> = policy.except.iter().filter_map(|name| canonical(name)).collect();
    let mut names: BTreeMap<String, (Served, Origin)> = BTreeMap::new();
    let mut strange = Vec::new();
    let listed = policy.names.iter().map(|name| (name, Served::default(), Origin::Any));
    let served = expected.names.iter().map(|(name, served)| {
        let origin = if served.resolver.is_some() { Origin::Acme } else { Origin::Default };
        (name, served.clone(), origin)
    });
    for (given, served, origin) in listed.chain(served) {
        match canonical(given) {
            Some(name) if except.contains(&name) => {}
            Some(name) => {
                let entry = names.entry(name).or_insert_with(|| (served.clone(), origin));
                // Who lists a domain's name wants a certificate that clients trust for it.
                let origin = if origin == Origin::Default { entry.1 } else { origin };
                *entry = (served, origin);
            }
            None => strange.push(given.clone()),
        }
    }
    let wanted = names.into_iter().map(|(name, (served, origin))| {
        // Who lists a name does not say where it is served.
        let is_given =
            !served.entry_point.is_empty() && (origin != Origin::Any || entry_points.contains_key(&served.entry_point));
        let entry_point_name = if is_given { served.entry_point } else { usual(entry_points) };
        Wanted { entry_point: entry_points.get(&entry_point_name).copied(), name, entry_point_name, origin }
    });
    (wanted.collect(), strange)
}

/// The entry point of names that the policy lists.
fn usual(entry_points: &BTreeMap<String, SocketAddr>) -> String {
    match entry_points.first_key_value() {
        Some((only, _)) if entry_points.len() == 1 => only.clone(),
        _ => "websecure".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_domains_and_of_the_policy_once() {
        let served = |entry_point: &str, resolver: Option<&str>| Served {
            entry_point: entry_point.to_owned(),
            resolver: resolver.map(str::to_owned),
            ..Served::default()
        };
        let names = [
            ("a.test".to_owned(), served("websecure", Some("letsencrypt"))),
            ("b.test".to_owned(), served("websecure", None)),
            ("c.test".to_owned(), served("inside", Some("letsencrypt"))),
            ("d.test".to_owned(), served("websecure", None)),
            ("e.test".to_owned(), served("websecure", None)),
        ];
        let mut expected = Expected { names: names.into(), ..Expected::default() };
        expected.policy.certificates.names = ["D.test.", "f.test", "192.0.2.1"].map(str::to_owned).into();
        expected.policy.certificates.except = vec!["E.test".to_owned()];
        let at: SocketAddr = "127.0.0.1:443".parse().unwrap();
        let (wanted, strange) = wanted(&expected, &[("websecure".to_owned(), at)].into());
        let said: Vec<_> =
            wanted.iter().map(|wanted| (wanted.name.as_str(), wanted.entry_point, wanted.origin)).collect();
        assert_eq!(
            said,
            [
                ("a.test", Some(at), Origin::Acme),
                ("b.test", Some(at), Origin::Default),
                ("c.test", None, Origin::Acme),
                ("d.test", Some(at), Origin::Any),
                ("f.test", Some(at), Origin::Any),
            ]
        );
        assert_eq!(strange, ["192.0.2.1"]);

        // The only one is where a listed name is served, whatever it is called.
        let (wanted, _) = super::wanted(&expected, &[("https".to_owned(), at)].into());
        let asked = wanted.iter().filter(|wanted| wanted.entry_point.is_some()).map(|wanted| wanted.name.as_str());
        assert_eq!(asked.collect::<Vec<_>>(), ["d.test", "f.test"]);
    }
}
