//! What stands on both sides of the routes: a real Traefik with one entry point, of which the peers differ in the source
//! of routes only, and backends that answer with their name and remember nothing.

use std::{
    convert::Infallible,
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use bytes::Bytes;
use charliehub_tests::{Home, Process};
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Where Traefik has its routes from.
pub(crate) enum Source<'a> {
    /// Us, asked as our README says.
    Hold { provider: SocketAddr, token: &'a str },
    /// Us, asked as Traefik asks by default.
    Poll { provider: SocketAddr, token: &'a str },
    /// Traefik's file provider on a directory; `throttle` is `providersThrottleDuration`, Traefik's default when none.
    Files { watched: &'a Path, throttle: Option<&'a str> },
}

impl Source<'_> {
    /// The section `providers` of the static configuration.
    fn yaml(&self) -> String {
        let http = |provider: &SocketAddr, query: &str, token: &str| {
            format!(
                "  http:\n    endpoint: http://{provider}/traefik{query}\n    headers:\n      Authorization: Bearer {token}\n"
            )
        };
        let throttled = |time: &str| format!("  providersThrottleDuration: {time}\n");
        match self {
            Self::Hold { provider, token } => {
                throttled("10ms")
                    + &http(provider, "?wait=55s&instance=live", token)
                    + "    pollInterval: 10ms\n    pollTimeout: 60s\n"
            }
            Self::Poll { provider, token } => http(provider, "?instance=polling", token),
            Self::Files { watched, throttle } => {
                throttle.map(throttled).unwrap_or_default()
                    + &format!("  file:\n    directory: {}\n", watched.display())
            }
        }
    }
}

pub(crate) struct Traefik {
    address: SocketAddr,
    _process: Process,
}

impl Traefik {
    /// It has its routes once one of them answers.
    pub(crate) fn start(home: &Home, name: &str, source: &Source<'_>) -> anyhow::Result<Self> {
        Self::with(home, name, source, "", "")
    }

    /// The same with more entry points, each a line, and more sections.
    pub(crate) fn with(
        home: &Home,
        name: &str,
        source: &Source<'_>,
        entry_points: &str,
        more: &str,
    ) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, home.port()));
        let config = home.join(format!("{name}.yaml"));
        let text = format!(
            "global: {{checkNewVersion: false, sendAnonymousUsage: false}}\nlog: {{level: ERROR}}\n\
             entryPoints:\n  websecure:\n    address: {address}\n{entry_points}{more}providers:\n{}",
            source.yaml()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(env::var_os("TRAEFIK").unwrap_or_else(|| "traefik".into()));
        command.arg(format!("--configFile={}", config.display()));
        Ok(Self { address, _process: Process::start(home, name, command) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Starts a backend that answers every request with `name`; returns its port.
pub(crate) async fn backend(home: &Home, name: &'static str) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let tasks = home.tasks().clone();
    home.tasks().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(move |_| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(name.as_bytes()))))
            });
            tasks.spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await.ok() });
        }
    });
    Ok(port)
}
