//! The 23 routes of the yardstick, as rows for us and as the file that people write for Traefik's file provider.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

/// The route whose backend the benches change.
pub(crate) const SWITCH: &str = "switch.bench.test";
/// As many as the edge that this product was made for has.
pub(crate) const ROUTES: usize = 23;

fn hosts() -> impl Iterator<Item = String> {
    (1..ROUTES).map(|n| format!("app{n:02}.bench.test")).chain([SWITCH.to_owned()])
}

/// Rows for all routes, each answered by the backend on `port` of loopback.
pub(crate) fn insert(port: u16) -> String {
    let rows: Vec<_> = hosts().map(|host| format!("('{host}', 'default', '127.0.0.1', {port})")).collect();
    format!("INSERT INTO charliehub.domains (domain, tls_mode, backend_host, backend_port) VALUES {}", rows.join(", "))
}

/// The directory that a file provider watches, and a place beside it to write in.
pub(crate) struct Files {
    watched: PathBuf,
    draft: PathBuf,
    certificate: Option<PathBuf>,
}

impl Files {
    /// `certificate`: a PEM file with certificate and key, to be the default one.
    pub(crate) fn new(dir: &Path, certificate: Option<&Path>) -> io::Result<Self> {
        let watched = dir.join("dynamic");
        fs::create_dir_all(&watched)?;
        Ok(Self { watched, draft: dir.join("draft.yaml"), certificate: certificate.map(Path::to_owned) })
    }

    pub(crate) fn watched(&self) -> &Path {
        &self.watched
    }

    /// Puts the file in place, whole, with `SWITCH` answered by the backend on `port`; returns when that was done.
    pub(crate) fn write(&self, port: u16, switch_port: u16) -> io::Result<Instant> {
        fs::write(&self.draft, self.yaml(port, switch_port))?;
        fs::rename(&self.draft, self.watched.join("routes.yaml"))?;
        Ok(Instant::now())
    }

    fn yaml(&self, port: u16, switch_port: u16) -> String {
        let (mut routers, mut services) = (String::new(), String::new());
        for host in hosts() {
            let port = if host == SWITCH { switch_port } else { port };
            let name = host.replace('.', "-");
            let _ = write!(
                routers,
                "    {name}:\n      rule: Host(`{host}`)\n      entryPoints: [websecure]\n      service: {name}\n      tls: {{}}\n"
            );
            let _ = write!(
                services,
                "    {name}:\n      loadBalancer:\n        servers:\n          - url: http://127.0.0.1:{port}\n"
            );
        }
        let tls = self.certificate.as_ref().map_or(String::new(), |pem| {
            let pem = pem.display();
            format!("tls:\n  stores:\n    default:\n      defaultCertificate:\n        certFile: {pem}\n        keyFile: {pem}\n")
        });
        format!("http:\n  routers:\n{routers}  services:\n{services}{tls}")
    }
}
