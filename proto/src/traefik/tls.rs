//! TLS: certificates, options and stores, and what other sections share with them.

use std::collections::BTreeMap;

use super::{
    Invalid, Kind, Reference, Rules,
    invalid::require,
    options::{choices, options},
};

options! {
    /// The `tls` section.
    pub struct Tls {
        pub certificates: Vec<Certificate>,
        pub options: BTreeMap<String, Options>,
        pub stores: BTreeMap<String, Store>,
    }

    /// Files or PEM; without `stores`, for the default store.
    pub struct Certificate {
        pub cert_file: String,
        pub key_file: String,
        pub stores: Vec<String>,
    }

    /// Files or PEM.
    pub struct CertAndKey {
        pub cert_file: String,
        pub key_file: String,
    }

    pub struct Options {
        pub min_version: Option<TlsVersion>,
        pub max_version: Option<TlsVersion>,
        pub cipher_suites: Vec<String>,
        pub curve_preferences: Vec<String>,
        pub client_auth: Option<ClientAuth>,
        pub sni_strict: bool,
        pub alpn_protocols: Vec<String>,
        pub disable_session_tickets: bool,
        /// Deprecated by Traefik.
        pub prefer_server_cipher_suites: Option<bool>,
    }

    pub struct ClientAuth {
        /// Files or PEM.
        pub ca_files: Vec<String>,
        pub client_auth_type: Option<ClientAuthType>,
    }

    /// Traefik uses the store named `default` only.
    pub struct Store {
        pub default_certificate: Option<CertAndKey>,
        pub default_generated_cert: Option<GeneratedCert>,
    }

    pub struct GeneratedCert {
        pub resolver: String,
        pub domain: Option<Domain>,
    }

    pub struct Domain {
        pub main: String,
        pub sans: Vec<String>,
    }
}

choices! {
    pub enum TlsVersion {
        Tls10 = "VersionTLS10",
        Tls11 = "VersionTLS11",
        Tls12 = "VersionTLS12",
        Tls13 = "VersionTLS13",
    }
    pub enum ClientAuthType {
        None = "NoClientCert",
        Request = "RequestClientCert",
        RequireAny = "RequireAnyClientCert",
        VerifyIfGiven = "VerifyClientCertIfGiven",
        RequireAndVerify = "RequireAndVerifyClientCert",
    }
}

/// After `TLS_`.
const CIPHER_SUITES: [&str; 28] = [
    "AES_128_GCM_SHA256",
    "AES_256_GCM_SHA384",
    "CHACHA20_POLY1305_SHA256",
    "ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "ECDHE_ECDSA_WITH_RC4_128_SHA",
    "ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "ECDHE_RSA_WITH_RC4_128_SHA",
    "FALLBACK_SCSV",
    "RSA_WITH_3DES_EDE_CBC_SHA",
    "RSA_WITH_AES_128_CBC_SHA",
    "RSA_WITH_AES_128_CBC_SHA256",
    "RSA_WITH_AES_128_GCM_SHA256",
    "RSA_WITH_AES_256_CBC_SHA",
    "RSA_WITH_AES_256_GCM_SHA384",
    "RSA_WITH_RC4_128_SHA",
];

/// In lower case; Go's spelling and the RFCs'.
const CURVES: [(&str, &str); 7] = [
    ("CurveP256", "secp256r1"),
    ("CurveP384", "secp384r1"),
    ("CurveP521", "secp521r1"),
    ("X25519", "x25519"),
    ("X25519MLKEM768", "x25519mlkem768"),
    ("SecP256r1MLKEM768", "secp256r1mlkem768"),
    ("SecP384r1MLKEM1024", "secp384r1mlkem1024"),
];

/// One that Traefik does not know makes it drop all of the TLS options.
pub(crate) fn check_ciphers(suites: &[String]) -> Result<(), Invalid> {
    match suites.iter().position(|suite| !suite.strip_prefix("TLS_").is_some_and(|rest| CIPHER_SUITES.contains(&rest)))
    {
        Some(i) => Err(Invalid::new(format!("cipherSuites[{i}]"), "is not a cipher suite of Traefik's")),
        None => Ok(()),
    }
}

pub(crate) fn check_versions(min: Option<TlsVersion>, max: Option<TlsVersion>) -> Result<(), Invalid> {
    match (min, max) {
        (Some(min), Some(max)) if min > max => Err(Invalid::new("minVersion", "is above maxVersion")),
        _ => Ok(()),
    }
}

impl CertAndKey {
    fn check(&self) -> Result<(), Invalid> {
        require("certFile", &self.cert_file)?;
        require("keyFile", &self.key_file)
    }

    pub(crate) fn check_all(path: &str, pairs: &[Self]) -> Result<(), Invalid> {
        pairs.iter().enumerate().try_for_each(|(i, pair)| pair.check().map_err(|e| e.under(&format!("{path}[{i}]"))))
    }
}

impl Rules for Certificate {
    fn check(&self) -> Result<(), Invalid> {
        require("certFile", &self.cert_file)?;
        require("keyFile", &self.key_file)
    }

    fn references(&self) -> Vec<Reference> {
        Reference::all(Kind::TlsStore, "stores", &self.stores)
    }
}

impl Rules for Options {
    fn check(&self) -> Result<(), Invalid> {
        check_versions(self.min_version, self.max_version)?;
        check_ciphers(&self.cipher_suites)?;
        let known = |curve: &String| CURVES.iter().any(|(go, rfc)| curve == go || curve == rfc);
        if let Some(i) = self.curve_preferences.iter().position(|curve| !known(curve)) {
            let reason = format!("is not one of: {}", CURVES.map(|(go, _)| go).join(", "));
            return Err(Invalid::new(format!("curvePreferences[{i}]"), reason));
        }
        match &self.client_auth {
            Some(ClientAuth { ca_files, client_auth_type: Some(kind) })
                if ca_files.is_empty()
                    && matches!(kind, ClientAuthType::VerifyIfGiven | ClientAuthType::RequireAndVerify) =>
            {
                Err(Invalid::new("clientAuth.caFiles", "is required to verify client certificates"))
            }
            _ => Ok(()),
        }
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
}

impl Rules for Store {
    fn check(&self) -> Result<(), Invalid> {
        if let Some(pair) = &self.default_certificate {
            pair.check().map_err(|error| error.under("defaultCertificate"))?;
        }
        self.default_generated_cert.as_ref().map_or(Ok(()), |cert| {
            require("defaultGeneratedCert.resolver", &cert.resolver)?;
            require("defaultGeneratedCert.domain.main", cert.domain.as_ref().map_or("", |domain| &domain.main))
        })
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
}
