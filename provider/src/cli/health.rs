//! `health`: does a provider serve? One line, and the exit code, for health checks in images that hold no other program.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Args;
use http::{Request, Uri, uri::PathAndQuery};

use super::output;
use crate::{
    client::{self, Limits, Trust},
    config::Config,
};

/// Shorter than the time-out that a health check is usually given.
const LIMITS: Limits = Limits { patience: Duration::from_secs(3), largest: 1 << 20 };

#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// The provider to ask [default: the one that the settings are of]
    #[arg(long, value_name = "URL")]
    server: Option<Uri>,
    /// The authorities that may have signed the certificate of an https server, as PEM [default: those of this machine]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Prints what `/readyz` says. An error unless it says that a configuration is served.
pub(super) async fn run(config: &Config, wanted: Wanted) -> anyhow::Result<()> {
    let listening = of_the_settings(config.serve.tls.is_some(), config.serve.listen);
    let mut server = wanted.server.map_or_else(|| listening.parse::<Uri>(), Ok)?.into_parts();
    server.path_and_query = Some(PathAndQuery::from_static("/readyz"));
    let uri = Uri::from_parts(server).context("write --server as http://HOST:PORT or https://HOST:PORT")?;
    let trust = wanted.ca.map_or(Trust::System, Trust::Only);
    let answer = client::send(Request::get(&uri).body(Bytes::new())?, &trust, LIMITS).await.with_context(|| {
        format!("no answer from {uri}; is it started, and does --ca name who signed its certificate?")
    })?;
    let said = String::from_utf8_lossy(answer.body()).into_owned();
    ensure!(answer.status().is_success(), "{uri} answers {}: {}", answer.status(), said.trim());
    Ok(output::print(&format!("{}\n", said.trim()))?)
}

/// Where somebody on this machine reaches who listens there.
fn of_the_settings(tls: bool, listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) => IpAddr::V4(if ip.is_unspecified() { Ipv4Addr::LOCALHOST } else { ip }),
        IpAddr::V6(ip) => IpAddr::V6(if ip.is_unspecified() { Ipv6Addr::LOCALHOST } else { ip }),
    };
    format!("{}://{}", if tls { "https" } else { "http" }, SocketAddr::new(ip, listen.port()))
}

#[cfg(test)]
mod tests {
    use super::of_the_settings;

    #[test]
    fn where_it_listens_is_where_it_is_asked() {
        for (tls, listen, url) in [
            (false, "127.0.0.1:8001", "http://127.0.0.1:8001"),
            (true, "0.0.0.0:8001", "https://127.0.0.1:8001"),
            (true, "[::]:8001", "https://[::1]:8001"),
            (true, "172.19.2.3:8001", "https://172.19.2.3:8001"),
        ] {
            assert_eq!(of_the_settings(tls, listen.parse().unwrap()), url);
        }
    }
}
