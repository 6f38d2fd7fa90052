//! The same pieces are the same bytes, whatever was there before, and nobody but us needs to know how they were made.

use proptest::prelude::*;

use super::*;

fn pieces(list: &[(Section, &str, &str)]) -> Pieces {
    let mut pieces = Pieces::new();
    for (section, name, json) in list {
        pieces.entry(*section).or_default().insert((*name).into(), (*json).into());
    }
    pieces
}

#[test]
fn the_body_is_json_with_the_marker_whatever_stands_beside_it() {
    for names in [&[][..], &["authelia"], &["zeta"], &["authelia", "zeta"]] {
        let mut list: Vec<_> =
            names.iter().map(|name| (Section::HttpMiddlewares, *name, "{\"compress\":{}}")).collect();
        list.push((Section::HttpRouters, "a.test", "{\"rule\":\"Host(`a.test`)\",\"service\":\"a.test\"}"));
        list.push((Section::TlsCertificates, "c", "{\"certFile\":\"x\",\"keyFile\":\"y\"}"));
        let encoded = Draft::new(&pieces(&list)).finish();
        let json: serde_json::Value = serde_json::from_slice(&encoded.identity()).unwrap();
        let middlewares = json["http"]["middlewares"].as_object().unwrap();
        assert_eq!(middlewares.len(), names.len() + 1, "{names:?}");
        assert_eq!(middlewares[MARKER]["headers"]["customResponseHeaders"]["X-Charliehub-Config"], *encoded.digest);
        assert_eq!(json["tls"]["certificates"][0]["certFile"], "x");
        assert_eq!(encoded.identity().len(), encoded.length);
    }
}

#[test]
fn nothing_at_all_is_still_not_an_empty_object() {
    let encoded = Draft::new(&Pieces::new()).finish();
    assert!(encoded.identity().starts_with(b"{\"http\":{\"middlewares\":{\"charliehub-revision\""));
}

#[test]
fn what_shows_counts_and_nothing_else() {
    let of = |list: &[(Section, &str, &str)]| Draft::new(&pieces(list)).digest();
    let (routers, certificates) = (Section::HttpRouters, Section::TlsCertificates);
    assert_ne!(of(&[(routers, "a", "{}")]), of(&[(routers, "b", "{}")]), "a name");
    assert_ne!(of(&[(routers, "a", "{}")]), of(&[(routers, "a", "{\"x\":1}")]), "a text");
    assert_ne!(of(&[(routers, "a", "{}")]), of(&[(Section::TcpRouters, "a", "{}")]), "a section");
    let named = |name: &dyn Fn(u32) -> String| {
        let names: Vec<String> = (0..500).map(name).collect();
        of(&names.iter().map(|name| (certificates, name.as_str(), "{}")).collect::<Vec<_>>())
    };
    assert_eq!(named(&|n| format!("a{n}")), named(&|n| format!("b{n}")), "the names of a list are not written");
}

#[test]
fn a_small_change_leaves_nearly_all_chunks_alone() {
    let name = |n: u32| -> Arc<str> { format!("h{n}.rows.test").into() };
    let mut all = Pieces::new();
    for n in 0..10_000 {
        all.entry(Section::HttpRouters).or_default().insert(name(n), "{\"service\":\"x\"}".into());
    }
    let mut draft = Draft::new(&all);
    let hashes = |draft: &Draft| draft.chunks().map(|chunk| chunk.hash).collect::<BTreeSet<_>>();
    let before = hashes(&draft);
    assert!((80..320).contains(&before.len()), "{} chunks", before.len());
    for n in 0..1_000 {
        let changed = name(n * 7);
        all.entry(Section::HttpRouters).or_default().insert(Arc::clone(&changed), format!("{{\"n\":{n}}}").into());
        let old = hashes(&draft);
        draft.update(&all, &Changes::These([(Section::HttpRouters, changed)].into()));
        assert_eq!(hashes(&draft).difference(&old).count(), 1);
    }
}

/// So many names as the routers of groups list them, of which a few are others for another `seed`.
fn listed(count: u32, seed: u32) -> String {
    let name = |n: u32| n.wrapping_mul(0x9E37_79B1) ^ if n.is_multiple_of(97) { seed } else { 0 };
    let names: BTreeSet<String> = (0..count).map(|n| format!("{:08x}.rows.test|", name(n))).collect();
    names.into_iter().collect()
}

#[test]
fn a_name_that_comes_to_a_large_entry_leaves_nearly_all_of_it_alone() {
    let group: Arc<str> = "group".into();
    let with = |names: &str| Pieces::from([(Section::HttpRouters, [(Arc::clone(&group), names.into())].into())]);
    let mut list = listed(8_000, 0);
    let mut draft = Draft::new(&with(&list));
    let hashes = |draft: &Draft| draft.chunks().map(|chunk| chunk.hash).collect::<BTreeSet<_>>();
    assert!((8..32).contains(&hashes(&draft).len()), "{} chunks", hashes(&draft).len());
    let mut made = 0;
    for n in 0..100 {
        list.insert_str(n * 18 * 79, &format!("{n:08}.new.test.|"));
        let old = hashes(&draft);
        draft.update(&with(&list), &Changes::These([(Section::HttpRouters, Arc::clone(&group))].into()));
        made += hashes(&draft).difference(&old).count();
    }
    assert!(made < 150, "{made} chunks made again for 100 names");
    assert!(draft.finish().identity().ends_with(b"}}}"));
}

/// What happens to the names of a section: set to a text, or removed.
fn changes() -> impl Strategy<Value = Vec<Vec<(usize, u16, Option<u8>)>>> {
    let change = (0..5_usize, 0..400_u16, proptest::option::weighted(0.6, 0..4_u8));
    prop::collection::vec(prop::collection::vec(change, 1..60), 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever happened in which order, what was kept is what would be made anew.
    #[test]
    fn a_kept_draft_is_as_one_from_scratch(steps in changes()) {
        const SECTIONS: [Section; 5] = [
            Section::HttpRouters,
            Section::HttpMiddlewares,
            Section::TcpServices,
            Section::TlsCertificates,
            Section::TlsStores,
        ];
        let (mut all, mut draft) = (Pieces::new(), Draft::default());
        let mut seen = BTreeMap::from([(draft.digest(), all.clone())]);
        for step in steps {
            let mut names = BTreeSet::new();
            for (section, n, text) in step {
                let (section, name): (_, Arc<str>) = (SECTIONS[section], format!("n{n}").into());
                let entries = all.entry(section).or_default();
                match text {
                    Some(text) => {
                        // Some end a chunk by their size, and some of those are several.
                        let long = listed(if text >= 2 && n % 64 == 0 { u32::from(n) * 5 } else { 0 }, u32::from(text));
                        let json = format!("{{\"n\":{n},\"text\":\"{text}{long}\"}}");
                        drop(entries.insert(Arc::clone(&name), json.into()));
                    }
                    None => drop(entries.remove(&name)),
                }
                if entries.is_empty() {
                    all.remove(&section);
                }
                names.insert((section, name));
            }
            draft.update(&all, &Changes::These(names));
            let (kept, scratch) = (draft.finish(), Draft::new(&all).finish());
            prop_assert_eq!(&kept.digest, &scratch.digest);
            prop_assert!(kept.gzip.to_bytes() == scratch.gzip.to_bytes());
            prop_assert_eq!(kept.length, kept.identity().len());
            let json: serde_json::Value = serde_json::from_slice(&kept.identity()).unwrap();
            let routers = json["http"]["routers"].as_object().map_or(0, serde_json::Map::len);
            prop_assert_eq!(routers, all.get(&Section::HttpRouters).map_or(0, BTreeMap::len));
            let before = seen.entry(draft.digest()).or_insert_with(|| all.clone());
            let texts = |pieces: &Pieces| -> Vec<_> {
                let named = |section: Section, entries: &BTreeMap<Arc<str>, _>| {
                    if section == Section::TlsCertificates { Vec::new() } else { entries.keys().cloned().collect() }
                };
                let texts = |(section, entries): (&Section, &BTreeMap<Arc<str>, Arc<str>>)| {
                    (*section, named(*section, entries), entries.values().cloned().collect::<Vec<_>>())
                };
                pieces.iter().map(texts).collect()
            };
            prop_assert_eq!(texts(before), texts(&all), "another config with the same digest");
        }
    }
}
