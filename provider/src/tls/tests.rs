use std::{fs, path::PathBuf};

use http::{HeaderMap, HeaderValue};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, SerialNumber};
use tempfile::TempDir;

use super::*;

/// An authority, and a directory for files.
struct World {
    authority: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl World {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { authority, directory: tempfile::tempdir().unwrap() }
    }

    /// A certificate with these alternative names as URIs, and its key, as PEM.
    fn issue(&self, uris: &[&str], serial: &[u8]) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "some\nbody");
        params.serial_number = Some(SerialNumber::from_slice(serial));
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.authority).unwrap().pem(), key.serialize_pem())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn files(&self) -> config::Tls {
        let (certificate, key) = self.issue(&["charliehub:agent:hub2"], &[0x0a]);
        config::Tls {
            certificate: self.write("tls.pem", &certificate),
            key: self.write("tls.key", &key),
            client_ca: Some(self.write("ca.pem", &self.authority.pem())),
        }
    }

    fn presented(&self, tls: &Arc<Tls>, uris: &[&str]) -> Presented {
        let (pem, _) = self.issue(uris, &[0x0a, 0xbc]);
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        Presented::new(&[pem.contents.into()], &tls.loaded.load(), Arc::clone(tls)).unwrap()
    }
}

#[test]
fn exactly_one_uri_of_ours_says_who_a_client_is() {
    let world = World::new();
    let tls = Arc::new(Tls::open(&world.files()).unwrap());
    let agent = |name: &str| Ok(Named { role: Kind::Agent, name: name.to_owned() });
    let wrong = |uri: &str| Err(Fault::Wrong(uri.to_owned()));
    for (uris, named) in [
        (&["charliehub:agent:hub2"][..], agent("hub2")),
        (&["charliehub:traefik:hub2"], Ok(Named { role: Kind::Traefik, name: "hub2".to_owned() })),
        (&["https://a.test/", "charliehub:agent:hub.2_a"], agent("hub.2_a")),
        (&["https://a.test/charliehub:agent:hub2"], Err(Fault::Nobody)),
        (&[], Err(Fault::Nobody)),
        (&["charliehub:agent:hub2", "charliehub:traefik:hub2"], Err(Fault::Several)),
        (&["charliehub:agent:hub2", "charliehub:agent:hub2"], Err(Fault::Several)),
        (&["charliehub:admin:hub2"], wrong("charliehub:admin:hub2")),
        (&["charliehub:reader:hub2"], wrong("charliehub:reader:hub2")),
        (&["CharlieHub:agent:hub2"], wrong("CharlieHub:agent:hub2")),
        (&["charliehub:agent:"], wrong("charliehub:agent:")),
        (&["charliehub:agent:*"], wrong("charliehub:agent:*")),
        (&["charliehub:agent:hub2:hub3"], wrong("charliehub:agent:hub2:hub3")),
        (&["charliehub:agent"], wrong("charliehub:agent")),
    ] {
        assert_eq!(world.presented(&tls, uris).named, named, "{uris:?}");
    }
    let named = world.presented(&tls, &["charliehub:agent:hub2"]);
    assert_eq!(named.to_string(), "certificate hub2, serial 0ABC");
    let nobody = world.presented(&tls, &[]).to_string();
    assert!(!nobody.contains('\n') && nobody.ends_with(", serial 0ABC"), "{nobody}");
}

#[test]
fn a_certificate_counts_while_it_lasts_and_for_its_owners_own_requests() {
    let world = World::new();
    let tls = Arc::new(Tls::open(&world.files()).unwrap());
    let agent = world.presented(&tls, &["charliehub:agent:hub2"]);
    let none = HeaderMap::new();
    assert!(agent.owner(&none, Timestamp::now()).is_ok());
    let after = agent.not_after + jiff::SignedDuration::from_secs(1);
    assert_eq!(agent.owner(&none, after), Err(Fault::Ended(agent.not_after)));
    let forwarded = HeaderMap::from_iter([(http::header::VIA, HeaderValue::from_static("1.1 proxy"))]);
    assert_eq!(agent.owner(&forwarded, Timestamp::now()), Err(Fault::Forwarded));
    // Other authorities: who came before them is asked again.
    world.write("ca.pem", &(World::new().authority.pem() + &world.authority.pem()));
    tls.look(true);
    assert!(agent.owner(&none, Timestamp::now()).is_ok(), "its own is among them");
    world.write("ca.pem", &World::new().authority.pem());
    tls.look(true);
    assert_eq!(agent.owner(&none, Timestamp::now()), Err(Fault::Distrusted));
}

#[test]
fn each_file_that_cannot_be_used_is_named_with_what_it_should_hold() {
    let world = World::new();
    let leaf = world.issue(&[], &[1]).0;
    for (file, text, said) in [
        ("tls.pem", "", "tls_certificate PATH is empty; write PEM into it: our certificate"),
        ("tls.pem", "certificate", "tls_certificate PATH holds no PEM of what it should; write our certificate"),
        ("tls.pem", &leaf[..leaf.len() / 2], "tls_certificate PATH is broken: "),
        ("tls.key", " \n", "tls_key PATH is empty; write PEM into it: the certificate's private key"),
        ("tls.key", &leaf, "tls_key PATH holds no PEM of what it should; write the certificate's private key"),
        ("tls.key", &KeyPair::generate().unwrap().serialize_pem(), "do not belong together"),
        ("ca.pem", "", "client_ca PATH is empty; write PEM into it: the certificates of the authorities"),
        ("ca.pem", "x", "client_ca PATH holds no PEM of what it should"),
        ("ca.pem", &leaf, "may sign nobody (no CA:TRUE); write the certificates of authorities, not of clients"),
    ] {
        let files = world.files();
        let path = world.write(file, text);
        let error = Loaded::read(&files).unwrap_err().to_string();
        let said = said.replace("PATH", &path.display().to_string());
        assert!(error.starts_with("[serve] ") && error.contains(&said), "{file}: {error}");
        fs::remove_file(&path).unwrap();
        let error = Loaded::read(&files).unwrap_err().to_string();
        assert!(error.contains("cannot be read: No such file"), "{error}");
    }
}

#[test]
fn half_of_a_renewal_is_looked_at_twice_and_what_is_bad_is_told_once() {
    let world = World::new();
    let files = world.files();
    let tls = Tls::open(&files).unwrap();
    let serial = || tls.loaded.load().own.serial.clone();
    let trouble = || tls.trouble(Timestamp::now());
    let (certificate, key) = world.issue(&[], &[0x0b]);
    world.write("tls.key", &key);
    tls.look(false);
    assert_eq!((serial().as_str(), trouble()), ("0A", None), "half of it");
    world.write("tls.pem", &certificate);
    tls.look(false);
    assert_eq!((serial().as_str(), trouble()), ("0B", None));
    world.write("tls.key", "x");
    tls.look(false);
    assert_eq!(trouble(), None);
    tls.look(false);
    assert!(trouble().is_some_and(|why| why.contains("tls_key")), "{:?}", trouble());
    assert_eq!(serial(), "0B");
    world.write("tls.key", &key);
    tls.look(false);
    assert_eq!((serial().as_str(), trouble()), ("0B", None));
    world.write("tls.key", "x");
    tls.look(true);
    assert!(trouble().is_some(), "who asks is told at once");
    // Another file in its place by a rename.
    let beside = world.write("beside", &key);
    fs::rename(beside, &files.key).unwrap();
    tls.look(false);
    assert_eq!(trouble(), None);
    let ended = tls.loaded.load().own.not_after + jiff::SignedDuration::from_secs(1);
    assert!(tls.trouble(ended).is_some_and(|why| why.contains("our certificate ended at")));
}
