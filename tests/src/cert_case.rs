//! A certificate in one situation (`tools/cert-case`): its files, an `acme.json` that holds it, and a server that serves it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Home;

/// What was made; gone, and served no more, when it is dropped.
pub struct CertCase {
    pub dir: PathBuf,
    /// Where it is served on loopback; none where it cannot be.
    pub port: Option<u16>,
}

impl CertCase {
    /// `root`: the name of the authority, which must differ between those that one machine trusts.
    pub async fn make(home: &Home, name: &str, domain: &str, case: &str, root: &str) -> Self {
        let dir = home.join(name);
        let mut command = tokio::process::Command::new(tool());
        command.env("ROOT_NAME", root).arg("--work").arg(&dir).args(["--domain", domain]);
        if case != "corrupt-leaf" {
            command.args(["--serve", &home.port().to_string()]);
        }
        let out = command.arg(case).output().await.expect("cert-case starts");
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "cert-case {case}: {said}{}", String::from_utf8_lossy(&out.stderr));
        let port = said.lines().find_map(|line| line.strip_prefix("PORT="));
        Self { port: port.map(|port| port.parse().expect("a port")), dir }
    }

    /// As its `acme.json` is, so becomes that at `path`, at once.
    pub fn store(&self, path: &Path) {
        let (from, draft) = (self.dir.join("acme.json"), path.with_extension("draft"));
        match fs::copy(&from, &draft) {
            Ok(_) => fs::rename(&draft, path).expect("a file in its place"),
            Err(_) => fs::remove_file(path).expect("no file any more"),
        }
    }
}

impl Drop for CertCase {
    fn drop(&mut self) {
        Command::new(tool()).args(["down", "--work"]).arg(&self.dir).output().ok();
    }
}

fn tool() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/cert-case")
}
