//! One real TLS handshake on each entry point that serves TLS: a certificate file that is missing shows nowhere else.
//!
//! Which certificate comes is not judged here: that it can be spoken at all is what an acknowledgement promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, de::IgnoredAny};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{AlertDescription, Error, pki_types::ServerName},
};

use crate::{
    config::Traefik,
    postgres::tls::believing,
    running::{Api, EntryPoint},
    snapshot::Snapshot,
};

const PATIENCE: Duration = Duration::from_secs(3);
/// So many names of an entry point are tried.
const NAMES: usize = 4;
/// Asked for where no router says a host.
const ANY_NAME: &str = "localhost";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    http: Routers,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Routers {
    routers: BTreeMap<String, Router>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Router {
    rule: String,
    entry_points: Vec<String>,
    tls: Option<IgnoredAny>,
}

/// Shakes hands where `snapshot` serves TLS. What is broken; what cannot be reached from here is not.
pub(super) async fn everywhere(api: &mut Api, traefik: &Traefik, snapshot: &Snapshot) -> Option<String> {
    let config: Config = serde_json::from_slice(&snapshot.encoded.identity()).ok()?;
    let entry_points: Vec<EntryPoint> = api.entry_points().await.ok()?;
    let host = traefik.host.clone().or_else(|| host_of(traefik.api.as_deref()?))?;
    for entry_point in entry_points {
        let Some(port) = port_of(&entry_point.address) else { continue };
        let serves = |router: &&Router| router.tls.is_some() && router.entry_points.contains(&entry_point.name);
        let routers: Vec<_> = config.http.routers.values().filter(serves).collect();
        if routers.is_empty() {
            continue;
        }
        let names: BTreeSet<&str> = routers.iter().filter_map(|router| host_in(&router.rule)).collect();
        let names = if names.is_empty() { BTreeSet::from([ANY_NAME]) } else { names };
        let mut broken = None;
        for name in names.into_iter().take(NAMES) {
            match timeout(PATIENCE, shake(&host, port, name)).await {
                // Options of one router may refuse a name; one that is served is enough.
                Ok(Ok(())) => {
                    broken = None;
                    break;
                }
                Ok(Err(Broken::Tls(error))) => broken = broken.or(Some((name, error))),
                Ok(Err(Broken::Unreachable)) | Err(_) => {
                    tracing::debug!(
                        instance = traefik.instance, entry_point = entry_point.name, %host, port,
                        "cannot be reached from here, so no TLS handshake was tried; set `host` in its [[traefik]]"
                    );
                    break;
                }
            }
        }
        if let Some((name, error)) = broken {
            return Some(format!(
                "its entry point {} ({host}:{port}) does not speak TLS since, asked for {name}: {error}; is the default \
                 certificate where Traefik can read it?",
                entry_point.name
            ));
        }
    }
    None
}

enum Broken {
    Unreachable,
    Tls(String),
}

async fn shake(host: &str, port: u16, name: &str) -> Result<(), Broken> {
    let stream = TcpStream::connect((host, port)).await.map_err(|_| Broken::Unreachable)?;
    let name = ServerName::try_from(name.to_owned()).map_err(|error| Broken::Tls(error.to_string()))?;
    let config = believing().map_err(|error| Broken::Tls(error.to_string()))?;
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            match inner {
                // It wants to know who we are, so it speaks TLS.
                Some(Error::AlertReceived(
                    AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
                )) => Ok(()),
                _ => Err(Broken::Tls(error.to_string())),
            }
        }
    }
}

/// The host of an API's URL.
fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    uri.host().map(|host| host.trim_matches(['[', ']']).to_owned())
}

/// The port of an entry point that takes TCP: `:443`, `127.0.0.1:443/tcp`.
fn port_of(address: &str) -> Option<u16> {
    let address = address.strip_suffix("/tcp").unwrap_or(address);
    address.rsplit_once(':')?.1.parse().ok()
}

/// The first host that a rule names as it is.
fn host_in(rule: &str) -> Option<&str> {
    let (_, rest) = rule.split_once("Host(`")?;
    rest.split('`').next().filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_points_and_rules_tell_where_to_knock() {
        assert_eq!(port_of(":443"), Some(443));
        assert_eq!(port_of("[::1]:8443/tcp"), Some(8443));
        assert_eq!(port_of(":53/udp"), None);
        assert_eq!(host_of("http://[::1]:8080").as_deref(), Some("::1"));
        assert_eq!(host_in("Host(`a.org`) && PathPrefix(`/x`)"), Some("a.org"));
        assert_eq!(host_in("HostRegexp(`^.+$`)"), None);
    }
}
