//! The hub as `deploy` describes it: the provider of `deploy/compose/provider.toml` and the Traefik of
//! `deploy/traefik/hub.yaml`, with addresses and files of this test in the place of the containers'.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{Home, Postgres, Provider, Rendered, Traefik, World, home::repository};

/// A private authority, and what it signed, as files in the home.
pub struct Authority {
    home: Home,
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(home: &Home, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("{name} authority"));
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let this = Self { home: home.clone(), name: name.to_owned(), issuer };
        fs::create_dir(this.directory()).expect("a directory for its certificate");
        fs::write(this.file(), this.issuer.pem()).expect("its certificate");
        this
    }

    /// With nothing in it but its certificate, as `SSL_CERT_DIR` wants it.
    pub fn directory(&self) -> PathBuf {
        self.home.join(format!("{}-authority", self.name))
    }

    pub fn file(&self) -> PathBuf {
        self.directory().join("ca.pem")
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate and its key.
    pub fn issue(&self, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names).expect("names").signed_by(&key, &self.issuer);
        let files = (self.home.join(format!("{name}.pem")), self.home.join(format!("{name}.key")));
        fs::write(&files.0, certificate.expect("a certificate").pem()).expect("its certificate");
        fs::write(&files.1, key.serialize_pem()).expect("its key");
        files
    }
}

/// Fields are dropped in this order.
pub struct Hub {
    pub traefik: Traefik,
    pub world: World,
    pub authority: Authority,
}

impl Hub {
    /// `web`: where its entry point of that name will be. The default certificate is for `*.charliehub.net`,
    /// `*.verdegris.eu` and `*.trevarn.com`.
    pub async fn start(home: Home, web: SocketAddr, forward_auth: &str, rendered: &Rendered<'_>) -> Self {
        let authority = Authority::new(&home, "hub");
        let (certificate, key) = authority.issue("provider-server", &["provider", "127.0.0.1"]);
        let default = authority.issue("default", &["*.charliehub.net", "*.verdegris.eu", "*.trevarn.com"]);
        let api = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let password = home.join("database-password");
        fs::write(&password, "not asked for here\n").expect("a password");
        let postgres = Postgres::start(&home).await;
        let url = postgres.url();
        let known = ["internal", "postgres", "ssh"].into_iter().filter(|word| rendered.with.contains(word));
        let entry_points: Vec<&str> = ["web", "websecure", "mqtt"].into_iter().chain(known).collect();
        let ours = |provider: Provider| {
            let address = provider.address();
            let quoted = |text: &dyn std::fmt::Display| format!("\"{text}\"");
            as_in_the_container(provider)
                .set("serve", "listen", &quoted(&address))
                .set("serve", "tls_certificate", &quoted(&certificate.display()))
                .set("serve", "tls_key", &quoted(&key.display()))
                .set("database", "url", &quoted(&url))
                .set("database", "password_file", &quoted(&password.display()))
                .set("compile", "entry_points", &format!("{entry_points:?}"))
                .set(
                    "compile",
                    "default_certificate",
                    &format!("{{ cert_file = \"{}\", key_file = \"{}\" }}", default.0.display(), default.1.display()),
                )
                .set("compile", "self_url", &format!("\"https://{address}\""))
                .set("access", "forward_auth", &format!("{{ address = \"{forward_auth}\" }}"))
                .traefik(&format!("instance = \"hub2\"\napi = \"http://{api}\""))
        };
        let world = World::over(home, postgres, ours).await;
        let token = world.home.join("traefik-token");
        fs::write(&token, world.provider.token("traefik").await).expect("Traefik's token");
        let mut values = rendered.values.to_vec();
        values.extend([
            format!("PROVIDER=https://{}", world.provider.address()),
            format!("PROVIDER_CA={}", authority.file().display()),
            format!("TOKEN_FILE={}", token.display()),
            format!("ACME_JSON={}", world.home.join("acme.json").display()),
        ]);
        if !values.iter().any(|value| value.starts_with("ACME_EMAIL=")) {
            values.push("ACME_EMAIL=ops@charliehub.net".to_owned());
        }
        let mut environment = rendered.environment.to_vec();
        environment.push(("SSL_CERT_DIR", authority.directory().display().to_string()));
        let rendered = Rendered { with: rendered.with, values: &values, environment: &environment };
        let traefik = Traefik::of_the_hub(&world.home, api, web, &rendered).await;
        Self { traefik, world, authority }
    }
}

/// The settings of the file, but for its `[[traefik]]`, whose API is elsewhere here.
fn as_in_the_container(mut provider: Provider) -> Provider {
    let text = fs::read_to_string(repository().join("deploy/compose/provider.toml")).expect("the provider's settings");
    let mut section = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once(" = ")
            && !section.starts_with('[')
        {
            provider = provider.set(&section, key, value);
        }
    }
    provider
}

/// TLS that takes only what the authorities in this PEM signed.
pub fn trusting(pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("an authority");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let versions = builder.with_safe_default_protocol_versions().expect("versions of TLS");
    Arc::new(versions.with_root_certificates(roots).with_no_client_auth())
}
