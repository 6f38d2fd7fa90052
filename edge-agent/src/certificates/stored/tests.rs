use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};

use super::*;

/// The certificate of a name by itself, and its key: as PEM.
fn pair(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn entry(main: &str, certificate: &str, key: &str) -> String {
    let (certificate, key) = (STANDARD.encode(certificate), STANDARD.encode(key));
    format!(
        r#"{{"domain":{{"main":"{main}","sans":["B.Test"]}},"certificate":"{certificate}","key":"{key}","Store":"default"}}"#
    )
}

fn account(certificates: &str) -> String {
    format!(
        r#"{{"Account":{{"Email":"ops@example.test","PrivateKey":"MIISECRET","Registration":{{"uri":"https://ca/acct/1",
            "body":{{"status":"valid"}}}}}},"Certificates":{certificates}}}"#
    )
}

fn read(text: &str) -> Result<Stored, String> {
    parse(text.as_bytes(), &Authorities::default(), Timestamp::UNIX_EPOCH)
}

#[test]
fn all_resolvers_and_what_may_be_null() {
    let ((certificate, key), (_, other)) = (pair("a.test"), pair("a.test"));
    let good = entry("A.Test", &certificate, &key);
    for (text, resolvers, keys) in [
        ("{}".to_owned(), 0, vec![]),
        (r#"{"one":null}"#.to_owned(), 1, vec![]),
        (r#"{"one":{"Account":null,"Certificates":null}}"#.to_owned(), 1, vec![]),
        (format!(r#"{{"one":{}}}"#, account("null")), 1, vec![]),
        (format!(r#"{{"one":{},"two":{}}}"#, account("null"), account(&format!("[{good}]"))), 2, vec![Key::Fits]),
        (
            format!(r#"{{"one":{}}}"#, account(&format!("[{good},{}]", entry("a.test", &certificate, &other)))),
            1,
            vec![Key::Fits, Key::Other],
        ),
        (
            format!(r#"{{"one":{}}}"#, account(&format!("[{}]", entry("a.test", &certificate, "no key")))),
            1,
            vec![Key::Unknown],
        ),
    ] {
        let stored = read(&text).unwrap();
        let found: Vec<_> = stored.certificates.iter().map(|kept| kept.key).collect();
        assert_eq!((stored.resolvers, found), (resolvers, keys), "{text}");
        for kept in &stored.certificates {
            assert_eq!(kept.domains, ["a.test", "b.test"]);
            assert_eq!(kept.chain.as_ref().unwrap().leaf.names, ["a.test"]);
        }
    }
}

#[test]
fn the_leaf_is_the_one_that_the_key_is_for() {
    let ((leaf, key), (other, _)) = (pair("a.test"), pair("b.test"));
    for (chain, is_leaf_first) in [(format!("{leaf}{other}"), true), (format!("{other}{leaf}"), false)] {
        let stored =
            read(&format!(r#"{{"one":{}}}"#, account(&format!("[{}]", entry("a.test", &chain, &key))))).unwrap();
        let kept = &stored.certificates[0];
        assert_eq!((kept.is_leaf_first, kept.key), (is_leaf_first, Key::Fits));
        assert_eq!(kept.chain.as_ref().unwrap().leaf.names, ["a.test"]);
    }
    let stored =
        read(&format!(r#"{{"one":{}}}"#, account(&format!("[{}]", entry("a.test", "nothing", &key))))).unwrap();
    assert_eq!(stored.certificates[0].chain, None);
}

#[test]
fn what_is_torn_is_said_without_its_words() {
    let (certificate, key) = pair("a.test");
    let whole = format!(r#"{{"one":{}}}"#, account(&format!("[{}]", entry("a.test", &certificate, &key))));
    let torn = read(&whole[..whole.len() * 2 / 3]).unwrap_err();
    assert!(torn.starts_with("is no whole JSON (line "), "{torn}");
    for (text, says) in [
        (r#"{"one":"MIISECRET"}"#, "is not what Traefik writes (line 1"),
        (r#"{"one":{"Certificates":"MIISECRET"}}"#, "is not what Traefik writes (line 1"),
        (r#"["MIISECRET"]"#, "is not what Traefik writes (line 1"),
        ("\u{1}MIISECRET", "is no whole JSON (line 1"),
    ] {
        let why = read(text).unwrap_err();
        assert!(why.starts_with(says) && !why.contains("MII"), "{text}: {why}");
    }
}

#[test]
fn the_public_half_of_a_key() {
    let key = KeyPair::generate().unwrap();
    assert_eq!(public_key(key.serialize_pem().as_bytes()), Some(key.subject_public_key_info()));
    assert_eq!(public_key(b"-----BEGIN PRIVATE KEY-----\nbm8=\n-----END PRIVATE KEY-----\n"), None);
}

#[test]
fn what_may_be_at_a_path() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acme.json");
    let read =
        |earlier: Option<&Storage>| Storage::read(&path, 64, &Authorities::default(), Timestamp::UNIX_EPOCH, earlier);
    assert_eq!(read(None).content, Content::Missing);
    fs::create_dir(&path).unwrap();
    assert_eq!(read(None).content, Content::Directory);
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let empty = read(None);
    assert_eq!((empty.mode, &empty.content), (Some(0o640), &Content::Empty));
    fs::write(&path, [b' '; 65]).unwrap();
    assert_eq!(read(Some(&empty)).content, Content::TooLarge(65));
    fs::write(&path, r#"{"one":null}"#).unwrap();
    let whole = read(None);
    assert_eq!(whole.content, Content::Whole(Arc::new(Stored { resolvers: 1, certificates: Vec::new() })));
    assert_eq!(read(Some(&whole)).stamp, whole.stamp);
    fs::write(&path, r#"{"one":null"#).unwrap();
    assert!(matches!(read(Some(&whole)).content, Content::Torn(_)));
    fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    assert!(matches!(read(None).content, Content::Unreadable(_)), "a pipe is not waited for");
}

proptest! {
    #[test]
    fn any_bytes_are_a_file_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(parse(&bytes, &Authorities::default(), Timestamp::UNIX_EPOCH));
    }

    /// A file in any state of being rewritten: never a panic, never a word of it in what is said.
    #[test]
    fn a_file_cut_or_spoilt_anywhere(cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), value: u8) {
        let (certificate, key) = ("-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n", "MIISECRET");
        let mut text = format!(r#"{{"one":{}}}"#, account(&format!("[{}]", entry("a.test", certificate, key)))).into_bytes();
        let at = at.index(text.len());
        text[at] = value;
        text.truncate(cut.index(text.len() + 1));
        if let Err(why) = parse(&text, &Authorities::default(), Timestamp::UNIX_EPOCH) {
            prop_assert!(!why.contains("MII"), "{}", why);
        }
    }

    /// Nothing that nests makes the reader run out of stack.
    #[test]
    fn depth_is_bounded(depth in 1..20_000_usize, within in any::<bool>()) {
        let deep = "[".repeat(depth);
        let text = if within { format!(r#"{{"one":{{"Account":{deep}"#) } else { deep };
        prop_assert!(read(&text).is_err());
    }
}
