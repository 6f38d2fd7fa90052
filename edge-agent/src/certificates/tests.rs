use std::{fs, os::unix::fs::PermissionsExt as _};

use rcgen::{CertificateParams, KeyPair};
use tokio::net::TcpListener;

use super::*;

fn seconds(seconds: u64) -> Now {
    Now { boot: Duration::from_secs(seconds), wall: jiff::Timestamp::now(), is_trusted: true }
}

fn expecting(names: &[&str]) -> Arc<Expected> {
    let mut expected = Expected::default();
    expected.policy.certificates.names = names.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(expected)
}

#[tokio::test]
async fn a_file_that_is_torn_or_empty_is_given_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acme.json");
    let settings = config::Certificates { acme_json: vec![path.clone()], ..config::Certificates::default() };
    let mut group = Certificates::new(&settings);
    let expected = expecting(&["a.test"]);
    for (at, text, status) in [
        (0, r#"{"one":{"Certif"#, Status::Unknown),
        (20, r#"{"one":{"Certif"#, Status::Unknown),
        (21, r#"{"one":{"Certif"#, Status::Unknown),
        (22, r#"{"one":{"Certif"#, Status::Critical),
        (82, r#"{"one":{"Certif"#, Status::Critical),
        (83, r#"{"one":{"Certificates":null}}"#, Status::Warning),
        (84, r#"{"one":{"Certif"#, Status::Unknown),
        (85, "", Status::Unknown),
        (86, "", Status::Warning),
    ] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let samples = group.look(&expected, seconds(at)).await;
        // No name was ever seen in it, and nobody can be asked.
        let said: Vec<_> = samples.iter().map(|sample| (sample.check, sample.status)).collect();
        assert_eq!(said, [(judge::SERVED, Status::Unknown), (judge::STORAGE, status)], "at {at}: {samples:?}");
    }
}

#[tokio::test]
async fn an_entry_point_that_does_not_answer_costs_little_and_is_unknown() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let names: Vec<String> = (0..200).map(|n| format!("{n}.test")).collect();
    let settings = config::Certificates {
        entry_points: [("websecure".to_owned(), silent.local_addr().unwrap())].into(),
        handshake: Duration::from_millis(200),
        ..config::Certificates::default()
    };
    let mut group = Certificates::new(&settings);
    let began = std::time::Instant::now();
    let samples = group.look(&expecting(&names.iter().map(String::as_str).collect::<Vec<_>>()), seconds(1)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(samples.len(), 200);
    assert!(samples.iter().all(|sample| sample.status == Status::Unknown && sample.remedy.is_some()));
}

#[test]
fn what_fits_and_what_is_left_over() {
    let kept = |names: &[&str], domain: &str| {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let chain = Chain::read(&[certificate.der().clone()], &Authorities::default(), jiff::Timestamp::now()).unwrap();
        Kept {
            resolver: "one".to_owned(),
            domains: vec![domain.to_owned()],
            chain: Some(Arc::new(chain)),
            key: stored::Key::Fits,
            is_leaf_first: true,
        }
    };
    let certificates = vec![
        kept(&["a.test"], "a.test"),
        kept(&["*.b.test"], "*.b.test"),
        kept(&["old.test", "older.test"], "old.test"),
        Kept { chain: None, ..kept(&[], "c.test") },
    ];
    let stored = [Arc::new(Stored { resolvers: 1, certificates })];
    let index = index(&stored);
    for (name, fits) in [
        ("a.test", 1),
        ("x.b.test", 1),
        ("*.b.test", 1),
        ("b.test", 0),
        ("y.x.b.test", 0),
        ("c.test", 1),
        ("d.test", 0),
    ] {
        assert_eq!(fitting(&index, name).len(), fits, "{name}");
    }
    let (wanted, _) = wanted::wanted(&expecting(&["a.test", "x.b.test", "c.test"]), &BTreeMap::new());
    assert_eq!(leftover(&stored[0], &wanted), ["old.test"]);
    assert!(leftover(&stored[0], &[]).is_empty());
}

#[tokio::test]
async fn what_changes_right_after_the_first_look_wakes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acme.json");
    fs::write(&path, r#"{"one":null}"#).unwrap();
    let settings = config::Certificates { acme_json: vec![path.clone()], ..config::Certificates::default() };
    let mut group = Certificates::new(&settings);
    group.look(&expecting(&[]), seconds(0)).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    tokio::time::timeout(Duration::from_secs(5), group.wake()).await.unwrap();
    let samples = group.look(&expecting(&[]), seconds(1)).await;
    assert_eq!(samples[0].remedy.as_deref(), Some(&*format!("chmod 600 {}", path.display())));
}
