//! A real ACME server, pebble, which looks for HTTP-01 at a port of this machine whatever the name.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
};

use hyper::Method;
use serde_json::json;

use crate::{Authority, Connection, Home, Process, client::trusting_all, process::guarded, secs, until};

pub struct Pebble {
    home: Home,
    at: SocketAddr,
    manager: SocketAddr,
    authority: Authority,
    _processes: [Process; 2],
}

impl Pebble {
    /// `web` is where it finds everybody's `/.well-known/acme-challenge/`.
    pub async fn start(home: &Home, web: SocketAddr) -> Self {
        let on_loopback = || SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let (at, manager, names, names_manager, tls) =
            (on_loopback(), on_loopback(), on_loopback(), on_loopback(), on_loopback());
        let authority = Authority::new(home, "pebble");
        let (certificate, key) = authority.issue("pebble-server", &["localhost", "127.0.0.1"]);
        let config = home.join("pebble.json");
        let settings = json!({ "pebble": {
            "listenAddress": at, "managementListenAddress": manager, "certificate": certificate, "privateKey": key,
            "httpPort": web.port(), "tlsPort": tls.port(), "ocspResponderURL": "",
            "externalAccountBindingRequired": false, "certificateValidityPeriod": 7_776_000,
        }});
        std::fs::write(&config, settings.to_string()).expect("pebble's settings");
        let mut resolver: Command = guarded(None, "KILL", "pebble-challtestsrv");
        resolver.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", &names.to_string()]);
        resolver.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", &names_manager.to_string()]);
        let mut pebble = guarded(None, "KILL", "pebble");
        pebble.arg("-config").arg(config).args(["-dnsserver", &names.to_string()]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        let processes = [Process::start(home, "challtestsrv", resolver), Process::start(home, "pebble", pebble)];
        let this = Self { home: home.clone(), at, manager, authority, _processes: processes };
        until("pebble answers", secs(20), async || this.ask(this.at, "/dir").await).await;
        this
    }

    /// As `caServer` has it.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.at)
    }

    /// Who signed the certificate of the server itself, for `LEGO_CA_CERTIFICATES`.
    pub fn authority(&self) -> PathBuf {
        self.authority.file()
    }

    /// The root of what it issues, as PEM.
    pub async fn root(&self) -> String {
        self.ask(self.manager, "/roots/0").await.expect("pebble's root")
    }

    async fn ask(&self, address: SocketAddr, path: &str) -> anyhow::Result<String> {
        let mut connection = Connection::by_tls(&self.home, address, "localhost", trusting_all()?).await?;
        Ok(connection.send(Method::GET, path, &[], "").await?.text())
    }
}
