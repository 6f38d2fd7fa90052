//! The hub's own Traefik: its static configuration is `deploy/traefik/hub.yaml`, made by `deploy/traefik/render.sh` as an
//! operator does it, with ports of this test in the place of the hub's.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use super::{Traefik, binary};
use crate::{Home, Process, home::repository, process::guarded, secs, until};

/// What the files of the hub are given here in the place of an operator's values.
pub struct Rendered<'a> {
    /// `--with`.
    pub with: &'a [&'a str],
    /// `NAME=VALUE`, beside the addresses of the entry points.
    pub values: &'a [String],
    /// Of the process.
    pub environment: &'a [(&'a str, String)],
}

impl Traefik {
    /// Starts it, and waits for its API.
    pub async fn of_the_hub(home: &Home, api: SocketAddr, web: SocketAddr, rendered: &Rendered<'_>) -> Self {
        let at = || SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let (websecure, mqtt) = (at(), at());
        let config = home.join("hub-traefik.yaml");
        let mut command = Command::new(repository().join("deploy/traefik/render.sh"));
        for word in rendered.with {
            command.args(["--with", word]);
        }
        command.arg(&config).args(rendered.values);
        for (name, address) in [("WEB", web), ("WEBSECURE", websecure), ("MQTT", mqtt), ("DASHBOARD", api)] {
            command.arg(format!("{name}={address}"));
        }
        let out = command.output().expect("render.sh starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let mut this = Self {
            home: home.clone(),
            name: "hub-traefik".to_owned(),
            program: binary(),
            config,
            web,
            websecure,
            mqtt,
            api,
            process: None,
        };
        let mut command = guarded(None, "KILL", &this.program);
        command.arg(format!("--configfile={}", this.config.display()));
        command.envs(rendered.environment.iter().map(|(name, value)| (name, value)));
        this.process = Some(Process::start(home, &this.name, command));
        until("Traefik's API answers", secs(20), async || {
            let answer = this.try_api("/api/version").await?;
            anyhow::ensure!(answer.status == 200, "{}, so its own routes are not there yet", answer.status);
            Ok(())
        })
        .await;
        this
    }

    /// What another version says of the file, with nothing behind it.
    pub async fn refused(home: &Home, version: &str) -> crate::Output {
        let config = home.join("refused.yaml");
        let mut command = Command::new(repository().join("deploy/traefik/render.sh"));
        command.arg(&config).args(["ACME_EMAIL=ops@charliehub.net", "TOKEN=none"]);
        for name in ["WEB", "WEBSECURE", "MQTT", "DASHBOARD"] {
            command.arg(format!("{name}=127.0.0.1:{}", home.port()));
        }
        assert!(command.status().is_ok_and(|status| status.success()), "{command:?}");
        let mut program = tokio::process::Command::new(super::installed(version));
        program.arg(format!("--configfile={}", config.display()));
        crate::Output::of(program).await
    }

    /// The file that it was started with.
    pub fn static_configuration(&self) -> &Path {
        &self.config
    }

    /// `traefik COMMAND --configfile=...`: what it says, and whether that went well.
    pub async fn command(&self, command: &str) -> crate::Output {
        let mut program = tokio::process::Command::new(&self.program);
        program.arg(command).arg(format!("--configfile={}", self.config.display()));
        crate::Output::of(program).await
    }
}
