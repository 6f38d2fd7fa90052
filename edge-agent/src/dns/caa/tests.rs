use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn one(text: &str) -> Property {
    let [flags, tag, value] = text.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
    Property { is_critical: flags == "128", tag: tag.to_owned(), value: value.to_owned() }
}

fn set(records: &[&str]) -> Set {
    Set { owner: charliehub_dns::name("a.test").unwrap(), properties: records.iter().map(|text| one(text)).collect() }
}

fn ours() -> Vec<String> {
    vec!["letsencrypt.org".to_owned(), "pki.example".to_owned()]
}

#[test]
fn whom_a_set_lets() {
    const OURS: &str = "0 issue letsencrypt.org";
    for (records, exact, wildcard) in [
        (&[][..], true, true),
        (&[OURS][..], true, true),
        (&["0 issue LetsEncrypt.org."], true, true),
        (&["0 issue  letsencrypt.org ; accounturi=https://a/1; x=y"], true, true),
        (&["0 issue pki.example", "0 issue other.example"], true, true),
        (&["0 issue other.example"], false, false),
        (&["0 issue other.example; letsencrypt.org"], false, false),
        (&["0 issue ;"], false, false),
        (&["0 issue "], false, false),
        (&["0 issue %%%%%"], false, false),
        (&["0 ISSUE ;", OURS], true, true),
        (&[OURS, "0 issuewild ;"], true, false),
        (&["0 issue ;", "0 issuewild letsencrypt.org"], false, true),
        (&["0 issuewild other.example"], true, false),
        (&["0 iodef mailto:a@b.test"], true, true),
        (&["128 iodef mailto:a@b.test"], true, true),
        (&["128 issue letsencrypt.org"], true, true),
        (&[OURS, "0 tbs strange"], true, true),
        (&[OURS, "128 tbs strange"], false, false),
    ] {
        let set = set(records);
        let lets = |is_wildcard| set.lets(&ours(), is_wildcard).is_ok();
        assert_eq!((lets(false), lets(true)), (exact, wildcard), "{records:?}");
    }
    assert_eq!(set(&["128 tbs x"]).lets(&ours(), false), Err(Refusal::Strange(&one("128 tbs x"))));
    assert_eq!(set(&["0 issuewild x"]).lets(&ours(), true), Err(Refusal::Others("issuewild")));
    assert_eq!(set(&["0 issue x;y"]).shown(), "a.test. CAA 0 issue \"x;y\"");
}

#[test]
fn the_way_up_begins_below_the_star_and_ends_below_the_root() {
    for (name, way) in
        [("a.b.test", &["a.b.test", "b.test", "test"][..]), ("*.b.test", &["b.test", "test"]), ("test", &["test"])]
    {
        let names: Vec<_> = upwards(&charliehub_dns::name(name).unwrap()).map(|name| shown(&name)).collect();
        assert_eq!(names, way);
    }
}

/// As RFC 8659 writes it, over a table of sets.
fn relevant<'a>(labels: &[&str], sets: &'a BTreeMap<String, Vec<Property>>) -> Option<&'a Vec<Property>> {
    let own = sets.get(&labels.join(".")).filter(|set| !set.is_empty());
    if labels.is_empty() { None } else { own.or_else(|| relevant(&labels[1..], sets)) }
}

fn property() -> impl Strategy<Value = Property> {
    let tag = prop_oneof!["issue", "issuewild", "iodef", "tbs"];
    let value = prop_oneof!["", ";", "letsencrypt\\.org", "letsencrypt\\.org; a=b", "other\\.example"];
    (any::<bool>(), tag, value).prop_map(|(is_critical, tag, value)| Property { is_critical, tag, value })
}

proptest! {
    /// The first names on the way up that have records bind, and no others; who is let by them is let, whatever stands above.
    #[test]
    fn the_nearest_records_bind(
        sets in proptest::collection::btree_map("([ab]\\.){0,3}test", proptest::collection::vec(property(), 0..4), 0..6),
        name in "(\\*\\.)?([ab]\\.){1,4}test",
    ) {
        let asked = charliehub_dns::name(&name).unwrap();
        let found = upwards(&asked).find_map(|at| sets.get(&shown(&at)).filter(|set| !set.is_empty()));
        let labels: Vec<_> = name.split('.').filter(|label| *label != "*").collect();
        prop_assert_eq!(found, relevant(&labels, &sets));

        let Some(properties) = found.cloned() else { return Ok(()) };
        let set = Set { owner: asked, properties };
        let is_wildcard = name.starts_with("*.");
        let of = |tag: &str| set.properties.iter().filter(|one| one.tag == tag).collect::<Vec<_>>();
        let tag = if is_wildcard && !of("issuewild").is_empty() { "issuewild" } else { "issue" };
        let is_bound = set.properties.iter().any(|one| one.is_critical && one.tag == "tbs");
        let is_let = of(tag).is_empty() || of(tag).iter().any(|one| one.value.starts_with("letsencrypt.org"));
        prop_assert_eq!(set.lets(&ours(), is_wildcard).is_ok(), is_let && !is_bound, "{:?}", set);
    }
}
