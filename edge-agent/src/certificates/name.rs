//! Which names a certificate is for, as clients decide it (RFC 6125): a subject's common name never counts, and `*.` is
//! exactly one label. Pure.

/// As names are compared: lower case, no dot at the end. None for what cannot be asked for by SNI: an address, letters
/// that are not in punycode, no name at all.
pub(crate) fn canonical(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let plain = name.strip_prefix("*.").unwrap_or(&name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = plain.rsplit('.').next()?;
    (name.len() <= 253 && plain.split('.').all(label) && !last.bytes().all(|byte| byte.is_ascii_digit()))
        .then_some(name)
}

/// True when a certificate with this alternative name is for `name`; both canonical. A wanted `*.` is not for one label:
/// only the same wildcard covers it.
pub(super) fn covers(alternative: &str, name: &str) -> bool {
    let one_label = |parent: &str| {
        name.split_once('.').is_some_and(|(label, rest)| rest == parent && label != "*" && !label.is_empty())
    };
    alternative == name || alternative.strip_prefix("*.").is_some_and(one_label)
}

/// What is asked for in the place of a wildcard: a name that no row is likely to have.
pub(super) fn asked(name: &str) -> String {
    name.strip_prefix("*.").map_or_else(|| name.to_owned(), |parent| format!("charliehub-check.{parent}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::ServerName;
    use webpki::EndEntityCert;

    use super::*;

    #[test]
    fn names_as_they_are_compared() {
        for (given, canonically) in [
            ("A.Example.ORG", Some("a.example.org")),
            ("a.example.org.", Some("a.example.org")),
            ("*.example.org", Some("*.example.org")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("bücher.example", None),
            ("192.0.2.1", None),
            ("a..org", None),
            ("", None),
            ("*", None),
            ("*.*.org", None),
            ("a.org:443", None),
        ] {
            assert_eq!(canonical(given).as_deref(), canonically, "{given}");
        }
    }

    #[test]
    fn a_wildcard_is_one_label() {
        for (alternative, name, fits) in [
            ("a.org", "a.org", true),
            ("*.a.org", "b.a.org", true),
            ("*.a.org", "c.b.a.org", false),
            ("*.a.org", "a.org", false),
            ("*.a.org", "*.a.org", true),
            ("*.org", "*.a.org", false),
            ("b.a.org", "*.a.org", false),
            ("b*.a.org", "bc.a.org", false),
            ("a.org", "a.org.uk", false),
        ] {
            assert_eq!(covers(alternative, name), fits, "{alternative} for {name}");
        }
        assert!(covers("*.a.org", &asked("*.a.org")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// What we call covered is what a client accepts.
        #[test]
        fn clients_agree(alternative in r"(\*\.)?[ab]\.([ab]\.)?test", name in r"[ab]\.([ab]\.)?([ab]\.)?test") {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new([alternative.clone()]).unwrap().self_signed(&key).unwrap();
            let leaf = EndEntityCert::try_from(certificate.der()).unwrap();
            let accepted = leaf.verify_is_valid_for_subject_name(&ServerName::try_from(name.as_str()).unwrap()).is_ok();
            prop_assert_eq!(covers(&alternative, &name), accepted, "{} for {}", alternative, name);
        }

        #[test]
        fn any_text_is_a_name_or_none(text in ".{0,300}") {
            if let Some(name) = canonical(&text) {
                prop_assert_eq!(canonical(&name), Some(name.clone()));
                prop_assert!(ServerName::try_from(asked(&name)).is_ok() || name.len() > 230, "{}", name);
            }
        }
    }
}
