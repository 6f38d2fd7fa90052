use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;

use super::*;

type Der = CertificateDer<'static>;

fn day(text: &str) -> Timestamp {
    format!("{text}T00:00:00Z").parse().unwrap()
}

/// A root, an intermediate that ends in 2027, and what makes leaves of it.
struct Lab {
    root: Der,
    intermediate: Der,
    issuer: Issuer<'static, KeyPair>,
}

impl Lab {
    fn new() -> Self {
        let root = Issuer::new(authority("Lab Root", 2040), KeyPair::generate().unwrap());
        let root_der = authority("Lab Root", 2040).self_signed(root.key()).unwrap().der().clone();
        let issuer = Issuer::new(authority("Lab R3", 2027), KeyPair::generate().unwrap());
        let intermediate = authority("Lab R3", 2027).signed_by(issuer.key(), &root).unwrap().der().clone();
        Self { root: root_der, intermediate, issuer }
    }

    /// Valid through 2026 and 2027.
    fn leaf(&self, usage: ExtendedKeyUsagePurpose) -> Der {
        let key = KeyPair::generate().unwrap();
        params(usage).signed_by(&key, &self.issuer).unwrap().der().clone()
    }
}

fn authority(name: &str, until: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 7, 1));
    params
}

fn params(usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::new(["A.Test".to_owned(), "*.b.test".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a.test");
    params.extended_key_usages = vec![usage];
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2028, 1, 1));
    params
}

#[test]
fn a_leaf_as_clients_read_it() {
    let leaf = Leaf::read(&Lab::new().leaf(ExtendedKeyUsagePurpose::ServerAuth)).unwrap();
    assert_eq!((leaf.subject.as_str(), leaf.issuer.as_str()), ("a.test", "Lab R3"));
    assert_eq!(leaf.names, ["a.test", "*.b.test"]);
    assert_eq!((leaf.not_before, leaf.not_after), (day("2026-01-01"), day("2028-01-01")));
    assert!(leaf.is_for_servers && !leaf.is_self_signed && !leaf.is_sha1 && leaf.rsa_bits.is_none());
    assert_eq!(Leaf::read(b"no"), Err(NotACertificate));
}

#[test]
fn chains_and_what_is_wrong_with_them() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let (lab, other, now) = (Lab::new(), Lab::new(), day("2026-06-01"));
    let authorities = Authorities::of(std::slice::from_ref(&lab.root));
    let leaf = lab.leaf(ServerAuth);
    let key = KeyPair::generate().unwrap();
    let own = params(ServerAuth).self_signed(&key).unwrap().der().clone();
    let expired = Fault::Expired { intermediate: "Lab R3".to_owned(), at: day("2027-07-01") };
    for (what, chain, at, fault, is_in_order) in [
        ("whole", vec![&leaf, &lab.intermediate], now, None, true),
        ("with its root", vec![&leaf, &lab.intermediate, &lab.root], now, None, true),
        ("alone", vec![&leaf], now, Some(Fault::NoIssuer("Lab R3".to_owned())), true),
        ("order", vec![&leaf, &lab.root, &lab.intermediate], now, None, false),
        ("intermediate over", vec![&leaf, &lab.intermediate], day("2027-08-01"), Some(expired.clone()), true),
        ("leaf over, too", vec![&leaf, &lab.intermediate], day("2030-01-01"), Some(expired), true),
        ("leaf not yet", vec![&leaf, &lab.intermediate], day("2021-01-01"), None, true),
        ("self-signed", vec![&own], now, Some(Fault::SelfSigned), true),
        ("for clients", vec![&lab.leaf(ClientAuth), &lab.intermediate], now, None, true),
    ] {
        let chain: Vec<Der> = chain.into_iter().cloned().collect();
        let chain = Chain::read(&chain, &authorities, at).unwrap();
        assert_eq!((chain.fault, chain.is_in_order), (fault, is_in_order), "{what}");
    }
    let chain = [leaf.clone(), lab.intermediate.clone()];
    let whole = Chain::read(&chain, &authorities, now).unwrap();
    assert_eq!(whole.until, day("2027-07-01"), "the intermediate ends first");
    let nobody = Chain::read(&chain, &Authorities::default(), now).unwrap();
    assert_eq!(nobody.fault, Some(Fault::NoAuthorities));
    let others = Authorities::of(&[authority("Another Root", 2040).self_signed(&key).unwrap().der().clone()]);
    let untrusted = Chain::read(&chain, &others, now).unwrap();
    assert_eq!(untrusted.fault, Some(Fault::Untrusted("Lab Root".to_owned())));
    // The names are right, and the signatures are not.
    let forged = Chain::read(&[leaf, other.intermediate], &authorities, now).unwrap();
    assert!(matches!(forged.fault, Some(Fault::Other(_))), "{:?}", forged.fault);
    assert_eq!(Chain::read(&[], &authorities, now), Err(NotACertificate));
}

/// Made by `openssl x509 -req -sha1`: no library that we use signs so any more.
#[test]
fn sha1_is_followed_and_named() {
    let pem = include_bytes!("sha1.pem");
    let both: Vec<Der> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap();
    let chain = Chain::read(&both[..1], &Authorities::of(&both[1..]), day("2030-01-01")).unwrap();
    assert_eq!((chain.fault, chain.leaf.is_sha1, chain.leaf.rsa_bits), (None, true, Some(2_048)));
}

proptest! {
    #[test]
    fn any_bytes_are_a_certificate_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        drop(Leaf::read(&bytes));
    }

    /// As bytes rot on a disk or on a hostile entry point.
    #[test]
    fn a_spoilt_certificate_is_read_or_not(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let pem = include_bytes!("sha1.pem");
        let mut both: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(pem).map(|one| one.unwrap().to_vec()).collect();
        let at = at.index(both[0].len());
        both[0][at] = value;
        let both: Vec<Der> = both.into_iter().map(Der::from).collect();
        drop(Chain::read(&both, &Authorities::of(&both[1..]), day("2030-01-01")));
    }
}
