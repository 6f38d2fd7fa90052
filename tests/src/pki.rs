//! A private authority made by the real `deploy/pki`, and clients that trust it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::process::Command;

use crate::{Home, Output};

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

pub struct Pki(PathBuf);

impl Pki {
    /// A new authority in this directory of the home.
    pub async fn init(home: &Home, name: &str) -> Self {
        let this = Self(home.join(name));
        // Long ago, so that it can have signed what has ended since.
        let output = this.command(&["faketime", "-f", "-200d"], "init", &[]).await;
        assert_eq!(output.code, Some(0), "{output:?}");
        this
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    pub async fn issue(&self, role: &str, name: &str, options: &[&str]) -> Pair {
        self.must("issue", &[&[role, name], options].concat()).await;
        self.pair(role, name)
    }

    /// One that ended long ago.
    pub async fn issue_ended(&self, role: &str, name: &str) -> Pair {
        let output = self.command(&["faketime", "-f", "-100d"], "issue", &[role, name, "--days", "1"]).await;
        assert_eq!(output.code, Some(0), "{output:?}");
        self.pair(role, name)
    }

    pub fn pair(&self, role: &str, name: &str) -> Pair {
        let file = |ending| self.0.join(format!("{role}-{name}.{ending}"));
        Pair { certificate: file("pem"), key: file("key") }
    }

    /// `deploy/pki COMMAND DIR ARGS...`
    pub async fn run(&self, command: &str, args: &[&str]) -> Output {
        self.command(&[], command, args).await
    }

    /// What a command must do; what it said.
    pub async fn must(&self, command: &str, args: &[&str]) -> String {
        let output = self.run(command, args).await;
        assert_eq!(output.code, Some(0), "{command:?} {args:?}: {output:?}");
        output.err + &output.out
    }

    async fn command(&self, before: &[&str], command: &str, args: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/pki");
        let script = script.to_str().expect("a path of text");
        let words: Vec<&str> = before.iter().copied().chain([script, command]).collect();
        let mut program = Command::new(words[0]);
        program.args(&words[1..]).arg(&self.0).args(args);
        Output::of(program).await
    }

    /// Trusts this authority, and shows a certificate, if any.
    pub fn client(&self, pair: Option<&Pair>) -> Arc<ClientConfig> {
        Self::trusting(&self.ca(), pair)
    }

    /// Trusts the authority in this file, and shows a certificate, if any.
    pub fn trusting(ca: &Path, pair: Option<&Pair>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).expect("the authority")).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots);
        Arc::new(match pair {
            None => builder.with_no_client_auth(),
            Some(Pair { certificate, key }) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).expect("a file").collect();
                let key = PrivateKeyDer::from_pem_file(key).expect("a key");
                builder.with_client_auth_cert(chain.expect("a chain"), key).expect("a pair")
            }
        })
    }
}
