//! Our Debian packages, of the programs of this build, and a Debian that has installed them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Caller, Home, Systemd, provider::built, repository, secs, until};

pub const PROVIDER: &str = "charliehub-provider";
pub const AGENT: &str = "charliehub-edge-agent";
/// What Debian itself brings to the hub.
pub const HUB_PACKAGES: [&str; 7] =
    ["bash-completion", "logrotate", "man-db", "polkitd", "postgresql", "wireguard-go", "wireguard-tools"];

/// Where the programs of this build are.
pub fn programs() -> PathBuf {
    built(PROVIDER, "CHARLIEHUB_PROVIDER").parent().unwrap().to_owned()
}

/// `deploy/package` of the programs of this build: packs fast, and builds nothing.
pub fn package(output: &Path, more: &[&str]) {
    let mut command = Command::new(repository().join("deploy/package"));
    command.arg("--fast").arg("--output").arg(output).arg("--binaries").arg(programs()).args(more);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The name of a package's file.
pub fn deb(package: &str, revision: u32) -> String {
    format!("{package}_{}-{revision}_amd64.deb", env!("CARGO_PKG_VERSION"))
}

impl Systemd {
    /// Both packages, as an operator installs them.
    pub fn install(&self, home: &Home) {
        let debs = home.join("debs");
        package(&debs, &[]);
        for name in [PROVIDER, AGENT] {
            let file = deb(name, 1);
            self.copy(debs.join(&file), &format!("/root/{file}"));
        }
        self.must("dpkg -i /root/*.deb");
    }
}

impl Caller {
    /// Waits until the provider there follows its database.
    pub async fn until_ready(self) {
        until("the provider is ready", secs(60), async || match self.send("GET", "/readyz", "", "") {
            Ok((200, body)) if !body.contains("stale") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}
