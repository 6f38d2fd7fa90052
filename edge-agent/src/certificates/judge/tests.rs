use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use Status::{Critical, Unknown, Warning};

use super::*;
use crate::certificates::stored::Stored;
use crate::sample::few;

const DAY: i64 = 86_400;

/// 90 days from 10 days ago, for a.test, by somebody whom clients trust; now is 0.
fn leaf() -> Leaf {
    Leaf {
        fingerprint: [7; 32],
        subject: "a.test".to_owned(),
        issuer: "R3".to_owned(),
        names: vec!["a.test".to_owned()],
        not_before: at(-10 * DAY),
        not_after: at(80 * DAY),
        rsa_bits: None,
        is_sha1: false,
        is_for_servers: true,
        is_self_signed: false,
        key: Vec::new(),
    }
}

fn chain(leaf: Leaf) -> Chain {
    Chain { until: leaf.not_after, leaf, fault: None, is_in_order: true }
}

/// Seconds from now.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(2_000_000_000 + seconds).unwrap()
}

fn now() -> Now {
    Now { boot: Duration::ZERO, wall: at(0), is_trusted: true }
}

fn wanted(name: &str, origin: Origin) -> Wanted {
    let entry_point = Some(SocketAddr::from(([127, 0, 0, 1], 443)));
    Wanted { name: name.to_owned(), entry_point, entry_point_name: "websecure".to_owned(), origin }
}

fn kept(chain: Option<Chain>) -> Kept {
    Kept {
        resolver: "letsencrypt".to_owned(),
        domains: vec!["a.test".to_owned()],
        chain: chain.map(Arc::new),
        key: Key::Fits,
        is_leaf_first: true,
    }
}

fn judged(chain: Chain, origin: Origin, now: Now) -> Sample {
    served(&wanted("a.test", origin), &Heard::Chain(Arc::new(chain)), None, false, false, now)
}

#[test]
fn what_is_served() {
    let fault = |fault| Chain { fault: Some(fault), ..chain(leaf()) };
    let lasting = |from: i64, until: i64| chain(Leaf { not_before: at(from), not_after: at(until), ..leaf() });
    let hour = 3_600;
    for (what, chain, status, says) in [
        ("fresh", chain(leaf()), Status::Ok, "is valid for 80 d more"),
        ("six days", lasting(-80 * hour, 80 * hour), Status::Ok, "is valid for 3 d more"),
        ("six days, late", lasting(-130 * hour, 30 * hour), Warning, "has 30 h left of 6 d"),
        ("six days, too late", lasting(-159 * hour, hour), Critical, "has 60 min left of 6 d"),
        (
            "late",
            lasting(-68 * DAY, 22 * DAY),
            Warning,
            "has 22 d left of 90 d: it should have been renewed 30 d before",
        ),
        ("too late", lasting(-88 * DAY, 2 * DAY), Critical, "has 2 d left"),
        ("expired", lasting(-91 * DAY, -DAY), Critical, "expired 24 h ago"),
        ("not yet", lasting(6 * hour, 90 * DAY), Critical, "is not valid before"),
        ("back-dated", lasting(-hour, 90 * DAY - hour), Status::Ok, "is valid for 89 d more"),
        ("intermediate ends", Chain { until: at(2 * DAY), ..chain(leaf()) }, Critical, "has 2 d left"),
        (
            "other name",
            chain(Leaf { names: vec!["b.test".to_owned()], ..leaf() }),
            Critical,
            "is not for it but for b.test",
        ),
        ("common name only", chain(Leaf { names: Vec::new(), ..leaf() }), Critical, "is for no name"),
        ("wildcard", chain(Leaf { names: vec!["*.test".to_owned()], ..leaf() }), Status::Ok, "is valid"),
        ("for clients", chain(Leaf { is_for_servers: false, ..leaf() }), Critical, "is not for servers"),
        ("weak", chain(Leaf { rsa_bits: Some(1_024), ..leaf() }), Warning, "has an RSA key of 1024 bits"),
        ("strong", chain(Leaf { rsa_bits: Some(2_048), ..leaf() }), Status::Ok, "is valid"),
        ("sha1", chain(Leaf { is_sha1: true, ..leaf() }), Warning, "is signed with SHA-1"),
        ("staging", chain(Leaf { issuer: "(STAGING) Artificial Apricot R3".to_owned(), ..leaf() }), Warning, "staging"),
        ("fake", chain(Leaf { issuer: "Fake LE Intermediate X1".to_owned(), ..leaf() }), Warning, "staging"),
        ("order", Chain { is_in_order: false, ..chain(leaf()) }, Warning, "wrong order"),
        ("self-signed", fault(Fault::SelfSigned), Critical, "is self-signed"),
        ("alone", fault(Fault::NoIssuer("R3".to_owned())), Critical, "comes without its issuer, `R3`"),
        ("untrusted", fault(Fault::Untrusted("Root".to_owned())), Critical, "ends in `Root`"),
        (
            "intermediate over",
            fault(Fault::Expired { intermediate: "R3".to_owned(), at: at(-3 * DAY) }),
            Critical,
            "hangs on the intermediate `R3`, which expired 3 d ago",
        ),
        ("refused", fault(Fault::Other("BadDer".to_owned())), Critical, "is refused by clients: BadDer"),
        ("nobody to trust", fault(Fault::NoAuthorities), Unknown, "this machine has no trusted authorities"),
        (
            "default",
            chain(Leaf { subject: "TRAEFIK DEFAULT CERT".to_owned(), ..leaf() }),
            Critical,
            "is Traefik's default one",
        ),
    ] {
        let sample = judged(chain, Origin::Acme, now());
        assert_eq!((sample.check, sample.status), (SERVED, status), "{what}: {}", sample.text);
        assert!(sample.text.contains(says), "{what}: {}", sample.text);
        assert_eq!(sample.remedy.is_some(), status != Status::Ok, "{what}");
    }
}

#[test]
fn the_worst_is_told_first() {
    let bad = Leaf { rsa_bits: Some(1_024), not_after: at(-DAY), ..leaf() };
    let heard = Heard::Chain(Arc::new(chain(bad)));
    let text = served(&wanted("a.test", Origin::Acme), &heard, None, true, false, now()).text;
    let also = "Z; also, it has an RSA key of 1024 bits, is not in acme.json: Traefik never got one";
    assert!(text.contains(" expired 24 h ago, at ") && text.ends_with(also), "{text}");
}

#[test]
fn without_a_resolver_the_entry_points_own_is_fine() {
    let own = Leaf { is_self_signed: true, subject: "TRAEFIK DEFAULT CERT".to_owned(), names: Vec::new(), ..leaf() };
    let own = Chain { fault: Some(Fault::SelfSigned), ..chain(own) };
    assert_eq!(judged(own.clone(), Origin::Default, now()).status, Status::Ok);
    assert_eq!(judged(own.clone(), Origin::Any, now()).status, Critical);
    let over = Now { wall: at(81 * DAY), ..now() };
    assert_eq!(judged(own, Origin::Default, over).status, Critical);
    let wrong = chain(Leaf { names: vec!["b.test".to_owned()], ..leaf() });
    assert_eq!(judged(wrong, Origin::Default, now()).status, Critical);
}

#[test]
fn without_a_clock_only_what_it_does_not_matter_for_is_told() {
    let doubtful = Now { is_trusted: false, ..now() };
    for (what, chain, status) in [
        ("fine", chain(leaf()), Unknown),
        ("expired", chain(Leaf { not_after: at(-DAY), ..leaf() }), Unknown),
        ("other name", chain(Leaf { names: Vec::new(), ..leaf() }), Critical),
        (
            "intermediate over",
            Chain { fault: Some(Fault::Expired { intermediate: "R3".to_owned(), at: at(-1) }), ..chain(leaf()) },
            Unknown,
        ),
    ] {
        let sample = judged(chain, Origin::Acme, doubtful);
        assert_eq!(sample.status, status, "{what}: {}", sample.text);
        assert!(sample.remedy.is_some());
    }
}

#[test]
fn a_staging_authority_that_is_wanted() {
    let staging = Leaf { issuer: "(STAGING) R3".to_owned(), ..leaf() };
    let staging = Heard::Chain(Arc::new(Chain { fault: Some(Fault::Untrusted("S".to_owned())), ..chain(staging) }));
    let wanted = wanted("a.test", Origin::Acme);
    assert_eq!(served(&wanted, &staging, None, false, true, now()).status, Status::Ok);
    assert_eq!(served(&wanted, &staging, None, false, false, now()).status, Critical);
}

#[test]
fn another_one_than_is_stored() {
    let heard = Heard::Chain(Arc::new(chain(leaf())));
    let minutes = Duration::from_mins;
    for (lasted, status, confirm) in
        [(minutes(0), Status::Ok, 2), (minutes(1), Status::Ok, 2), (minutes(2), Warning, 1), (minutes(10), Critical, 1)]
    {
        let differs = Some((lasted, minutes(2), minutes(10)));
        let sample = served(&wanted("a.test", Origin::Acme), &heard, differs, false, false, now());
        assert_eq!((sample.status, sample.confirm), (status, confirm), "{lasted:?}");
    }
}

#[test]
fn who_does_not_answer_is_unknown_and_who_refuses_is_not() {
    for (heard, status) in [
        (Heard::Unreachable("Connection refused".to_owned()), Unknown),
        (Heard::Refused("UnrecognizedName".to_owned()), Critical),
        (Heard::NotACertificate, Critical),
    ] {
        let sample = served(&wanted("a.test", Origin::Acme), &heard, None, false, false, now());
        assert_eq!(sample.status, status);
        assert!(sample.remedy.is_some() && sample.source.is_some());
    }
}

#[test]
fn what_is_stored() {
    let (other, over) = (Leaf { fingerprint: [8; 32], ..leaf() }, Leaf { not_after: at(-DAY), ..leaf() });
    let other_over = Leaf { fingerprint: [8; 32], ..over.clone() };
    let heard = |leaf: &Leaf| Some(Heard::Chain(Arc::new(chain(leaf.clone()))));
    let silent = Some(Heard::Unreachable(String::new()));
    let good = kept(Some(chain(leaf())));
    let (wrong_key, corrupt) = (Kept { key: Key::Other, ..good.clone() }, kept(None));
    let disordered = Kept { is_leaf_first: false, ..good.clone() };
    for (what, kept, heard, status) in [
        ("served", vec![good.clone()], heard(&leaf()), Some(Status::Ok)),
        ("expired, and served: told there", vec![kept(Some(chain(over.clone())))], heard(&over), Some(Status::Ok)),
        ("expired, another is served", vec![kept(Some(chain(over.clone())))], heard(&other), Some(Critical)),
        ("expired, nobody answers", vec![kept(Some(chain(over)))], silent.clone(), Some(Critical)),
        ("the best counts", vec![kept(Some(chain(other_over))), good], heard(&other), Some(Status::Ok)),
        ("key", vec![wrong_key], heard(&leaf()), Some(Critical)),
        ("corrupt", vec![corrupt], None, Some(Critical)),
        ("order", vec![disordered], heard(&leaf()), Some(Warning)),
        ("none, and something is served: told there", vec![], heard(&leaf()), None),
        ("none, and nobody answers", vec![], silent, Some(Warning)),
    ] {
        let kept: Vec<&Kept> = kept.iter().collect();
        let sample = stored(&wanted("a.test", Origin::Acme), &kept, heard.as_ref(), kept.is_empty(), false, now());
        assert_eq!(sample.as_ref().map(|sample| sample.status), status, "{what}: {sample:?}");
        assert!(
            stored(&wanted("a.test", Origin::Default), &kept, heard.as_ref(), kept.is_empty(), false, now()).is_none()
        );
    }
}

#[test]
fn the_file_itself() {
    let path = Path::new("/etc/traefik/my acme.json");
    let certificates = vec![kept(Some(chain(leaf())))];
    let whole = Content::Whole(Arc::new(Stored { resolvers: 1, certificates }));
    let none = Content::Whole(Arc::new(Stored { resolvers: 1, certificates: Vec::new() }));
    let torn = Content::Torn("is no whole JSON (line 1, column 2)".to_owned());
    let (fresh, again) = (Trouble::default(), Trouble { was_empty: true, ..Trouble::default() });
    let for_good = Trouble { is_torn_for_good: true, ..fresh };
    for (what, mode, content, trouble, is_wanted, status) in [
        ("whole", 0o600, whole.clone(), fresh, true, Status::Ok),
        ("read only", 0o400, whole.clone(), fresh, true, Status::Ok),
        ("group", 0o640, whole.clone(), fresh, true, Critical),
        ("others", 0o604, whole, fresh, true, Critical),
        ("none", 0o600, none.clone(), fresh, true, Warning),
        ("none, and none wanted", 0o600, none, fresh, false, Status::Ok),
        ("torn", 0o600, torn.clone(), fresh, true, Unknown),
        ("torn for good", 0o600, torn, for_good, true, Critical),
        ("empty", 0o600, Content::Empty, fresh, true, Unknown),
        ("still empty", 0o600, Content::Empty, again, true, Warning),
        ("still empty, and none wanted", 0o600, Content::Empty, again, false, Status::Ok),
        ("empty, group", 0o640, Content::Empty, again, true, Critical),
        ("directory", 0o600, Content::Directory, fresh, true, Critical),
        ("missing", 0o600, Content::Missing, fresh, true, Unknown),
        ("denied", 0o600, Content::Unreadable("Permission denied".to_owned()), fresh, true, Unknown),
        ("large", 0o600, Content::TooLarge(65 << 20), fresh, true, Unknown),
    ] {
        let sample = storage(path, &Storage::fake(mode, content), trouble, is_wanted, &[]);
        assert_eq!((sample.check, sample.status), (STORAGE, status), "{what}: {}", sample.text);
        assert_eq!(sample.remedy.is_some(), status != Status::Ok, "{what}");
        if [0o640, 0o604].contains(&mode) {
            assert_eq!(sample.remedy.as_deref(), Some("chmod 600 '/etc/traefik/my acme.json'"));
        }
    }
}

#[test]
fn what_nobody_expects_is_a_note() {
    let stored = Stored { resolvers: 1, certificates: vec![kept(Some(chain(leaf())))] };
    let whole = Storage::fake(0o600, Content::Whole(Arc::new(stored)));
    let sample = storage(Path::new("/acme.json"), &whole, Trouble::default(), true, &["old.test".to_owned()]);
    assert_eq!((sample.status, sample.observed.as_deref()), (Status::Ok, Some("nobody expects 1 of them: old.test")));
}

#[test]
fn pem_files() {
    let root = Leaf { is_self_signed: true, is_sha1: true, names: Vec::new(), ..leaf() };
    let over = Leaf { not_after: at(-DAY), ..leaf() };
    let holding = |leaves: &[&Leaf], key| files::Content::Certificates(leaves.iter().copied().cloned().collect(), key);
    for (what, content, status) in [
        ("with its key", holding(&[&leaf()], Key::Fits), Status::Ok),
        ("chain and root", holding(&[&leaf(), &root], Key::Unknown), Status::Ok),
        ("an expired intermediate", holding(&[&leaf(), &over], Key::Unknown), Critical),
        ("another's key", holding(&[&leaf()], Key::Other), Critical),
        ("weak", holding(&[&Leaf { rsa_bits: Some(1_024), ..leaf() }], Key::Unknown), Warning),
        ("missing", files::Content::Missing, Critical),
        ("none", files::Content::None, Critical),
        ("denied", files::Content::Unreadable("Permission denied".to_owned()), Unknown),
    ] {
        let sample = file(&files::File { path: PathBuf::from("/a.pem"), content }, now());
        assert_eq!((sample.status, sample.target.as_str()), (status, "/a.pem"), "{what}: {}", sample.text);
    }
}

#[test]
fn of_many_only_those_that_are_not_ok_are_told() {
    let all = |count: usize| -> Vec<Sample> {
        let mut samples: Vec<_> = (0..count).map(|n| Sample::ok(SERVED, format!("{n}.test"), "fine")).collect();
        samples[0].status = Critical;
        samples
    };
    assert_eq!(few(SERVED, "the certificates", all(10), 10, 10).len(), 10);
    let told = few(SERVED, "the certificates", all(11), 11, 10);
    assert_eq!(told.iter().map(|sample| sample.target.as_str()).collect::<Vec<_>>(), ["0.test", "names"]);
    assert_eq!(told[1].text, "the certificates of 10 names of 11 are ok");
}

#[test]
fn when_all_fail_at_once_the_worst_are_told_and_the_others_counted() {
    let all = (0..5_000).map(|n| {
        let status = if n == 4_000 { Critical } else { Unknown };
        Sample::new(SERVED, format!("{n:05}.test"), status, "the entry point does not answer").remedy("start Traefik")
    });
    let told = few(SERVED, "the certificates", all.collect(), 5_000, 1_000);
    assert_eq!((told.len(), told[0].target.as_str(), told[1].target.as_str()), (1_001, "04000.test", "00000.test"));
    let rest = &told[1_000];
    assert_eq!((rest.target.as_str(), rest.status, rest.remedy.as_deref()), ("names", Unknown, Some("start Traefik")));
    assert!(rest.observed.as_deref().unwrap().starts_with("4000 more names are not told"), "{rest:?}");
}

#[test]
fn a_path_is_one_word() {
    for (path, word) in [("/a/b.json", "/a/b.json"), ("/a b", "'/a b'"), ("/it's", r"'/it'\''s'"), ("/$(x)", "'/$(x)'")]
    {
        assert_eq!(quoted(path), word);
    }
}
